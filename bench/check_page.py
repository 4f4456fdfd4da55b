"""Screenshots of a run's page, light and dark, at two widths: to be looked at.

    python bench/check_page.py runs/zero --out FOLDER

Needs Chromium (Debian's package has this name), which nothing else here does.
"""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile

from common import parser

from lib import page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SCHEMES = {"dark": 0, "light": 1}
WIDTHS, HEIGHT = (1280, 840), 3000


def main() -> None:
    args = parser(__doc__)
    args.add_argument("run")
    args.add_argument("--out", default=".")
    args = args.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        sys.exit(f"no browser to look with: install one of {', '.join(BROWSERS)}")
    os.makedirs(args.out, exist_ok=True)
    page.write(args.run)
    for width, (name, scheme) in itertools.product(WIDTHS, SCHEMES.items()):
        path = os.path.abspath(f"{args.out}/page-{name}-{width}.png")
        with tempfile.TemporaryDirectory() as profile:
            flags = f"--headless --no-sandbox --disable-gpu --user-data-dir={profile}".split()
            flags += [f"--window-size={width},{HEIGHT}", f"--screenshot={path}"]
            flags.append(f"--blink-settings=preferredColorScheme={scheme}")
            address = f"file://{os.path.abspath(args.run)}/report.html"
            subprocess.run([browser, *flags, address], check=True, capture_output=True)
        print(path if os.path.exists(path) else sys.exit(f"{browser} has not written '{path}'"))


if __name__ == "__main__":
    main()
