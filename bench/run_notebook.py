"""Run a notebook's cells in order, without Jupyter; an error ends it with its traceback. Kept is
what the cells print, not the value of a last expression.

python bench/run_notebook.py docs/grpo_step.ipynb           # does it still run?
python bench/run_notebook.py docs/grpo_step.ipynb --save    # and keep what the cells print
"""

import argparse
import contextlib
import io
import json
import os
import time

from common import ROOT

from lib.files import write_json


def run(notebook: dict) -> None:
    """Execute the code cells in one namespace, in the folder docs; their outputs are replaced."""
    names: dict = {"__name__": "__main__"}
    os.chdir(os.path.join(ROOT, "docs"))
    for number, cell in enumerate(c for c in notebook["cells"] if c["cell_type"] == "code"):
        printed, start = io.StringIO(), time.time()
        source = "".join(cell["source"])
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(source, f"<cell {number}>", "exec"), names)
        except Exception:
            print(printed.getvalue())
            raise
        print(f"cell {number}: {time.time() - start:.1f} s", flush=True)
        text = printed.getvalue().splitlines(keepends=True)
        cell["execution_count"] = number + 1
        cell["outputs"] = (
            [{"name": "stdout", "output_type": "stream", "text": text}] if text else []
        )


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("notebook")
    flags.add_argument("--save", action="store_true", help="write the outputs into the file")
    args = flags.parse_args()
    path = os.path.abspath(args.notebook)
    with open(path, encoding="utf-8") as f:
        notebook = json.load(f)
    run(notebook)
    if args.save:
        write_json(path, notebook)


if __name__ == "__main__":
    main()
