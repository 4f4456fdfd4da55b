"""Do the solutions in docs/labs.md still apply, and do the tests that they name pass with them?

python bench/check_labs.py             # git apply alone
python bench/check_labs.py --test      # and the labs' own pytest commands, in a copy: minutes
"""

import os
import re
import subprocess
import sys
import tempfile

from common import ROOT, parser

from lib.errors import UserError
from lib.files import UTF8


def labs(text: str) -> dict[str, tuple[str, list[str]]]:
    """title -> (the solution as a diff, the test files that its commands name)."""
    out = {}
    for part in re.split(r"^## ", text, flags=re.M)[1:]:
        if found := re.search(r"^```diff\n(.*?)^```", part, re.M | re.S):
            tests = re.findall(r"^python -m pytest -q (\S+)", part, re.M)
            out[part.split("\n")[0]] = found[1], tests
    return out


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--test", action="store_true", help="run the tests that the labs name")
    args = flags.parse_args()
    with open(os.path.join(ROOT, "docs", "labs.md"), **UTF8) as f:
        found = labs(f.read())
    if not found:
        raise UserError("docs/labs.md has no solution")
    for title, (diff, tests) in found.items():
        with tempfile.TemporaryDirectory() as copy:
            subprocess.run(["git", "clone", "-q", ROOT, copy], check=True)
            apply = ["git", "apply", "--unidiff-zero", "-"]
            done = subprocess.run(apply, input=diff, cwd=copy, text=True, capture_output=True)
            if done.returncode:
                sys.exit(f"{title}: {done.stderr}")
            if args.test and tests:
                subprocess.run([sys.executable, "-m", "pytest", "-q", *tests], cwd=copy, check=True)
        print(f"{title}: applies{', and its tests pass' * bool(args.test and tests)}", flush=True)


if __name__ == "__main__":
    main()
