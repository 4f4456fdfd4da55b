"""The shape of the house: arrows point down, there is no circle, and the code keeps to its size."""

import ast
import glob
import os
from graphlib import TopologicalSorter

from conftest import ROOT

LAYERS = [  # from the bottom up; a file imports only from its layer and from those below
    "lib tasks",
    "config data tokenizer model rewards inputs",
    "sample sft watch",
    "grpo eval reward_model",
    "algorithms stages decompose",
    "preference rejection export train_zero train_r1 distill",
    "experiments",
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names.split()}
MOST_LINES, MOST_IN_FUNCTION, MOST_PARAMETERS = 700, 60, 8


def sources() -> dict[str, str]:
    """Module name -> path, of all code but tests and bench."""
    found = {}
    for pattern in ("*.py", "lib/*.py", "tasks/*.py", "algorithms/*.py", "experiments/*.py"):
        for path in glob.glob(os.path.join(ROOT, pattern)):
            name = os.path.relpath(path, ROOT).removesuffix(".py").replace(os.sep, ".")
            found[name.removesuffix(".__init__")] = path
    return found


def parse(path: str) -> ast.Module:
    with open(path, encoding="utf-8") as f:
        return ast.parse(f.read())


def imports(tree: ast.Module, modules) -> set[str]:
    """The project's modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= parts if parts <= set(modules) else parts | {node.module}
    return names & set(modules)


def test_no_circle_and_no_import_upward():
    modules = sources()
    graph = {name: imports(parse(path), modules) for name, path in modules.items()}
    list(TopologicalSorter(graph).static_order())  # CycleError names the circle
    for name, used in graph.items():
        assert name.split(".")[0] in RANK, f"say in LAYERS where {name} belongs"
        for other in used:
            assert RANK[other.split(".")[0]] <= RANK[name.split(".")[0]], f"{name} imports {other}"
    assert not imports(parse(modules["config"]), modules) - {
        "lib",
        "lib.cli",
        "lib.loggers",
        "lib.presets",
    }


def test_files_and_functions_keep_to_their_size():
    for name, path in sources().items():
        with open(path, encoding="utf-8") as f:
            assert len(f.readlines()) <= MOST_LINES, name
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef):
                where = f"{name}.{node.name}"
                assert node.end_lineno - node.lineno < MOST_IN_FUNCTION, where
                arguments = [a.arg for a in (*node.args.args, *node.args.kwonlyargs)]
                assert len([a for a in arguments if a not in ("self", "cls")]) <= MOST_PARAMETERS, (
                    where
                )
