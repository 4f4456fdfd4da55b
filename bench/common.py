"""What the programs of this folder share. Importing it makes the project's modules importable."""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from lib import files, report

ROOT = sys.path[0]


def parser(doc: str) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=doc, formatter_class=raw)


def save(name: str, content: dict, command: str) -> str:
    """Write results/NAME.json, with command, date and machine; returns its path."""
    os.makedirs("results", exist_ok=True)
    path = f"results/{name}.json"
    files.write_json(path, report.provenance(command) | content)
    return path
