"""Run the example of README.md and put what it prints into it: `python build_scripts/readme_example.py`.

The example is the fenced block after the line `<!-- example -->`; its first line is the command, the rest what it printed.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
EXAMPLE = re.compile(r"(<!-- example -->\n```console\n\$ ([^\n]+)\n)(.*?)(```\n)", re.DOTALL)


def main() -> None:
    text = README.read_text("utf-8")
    found = EXAMPLE.search(text)
    if found is None:
        sys.exit(f"{README}: no example; mark it with <!-- example --> and a console block that begins with a command")
    program, *arguments = shlex.split(found[2])
    run = [sys.executable, "-m", program.replace("-", "_"), *arguments]
    wide = {**os.environ, "COLUMNS": "120"}
    printed = subprocess.run(run, capture_output=True, text=True, check=True, cwd=README.parent, env=wide).stdout
    README.write_text(text[: found.start(3)] + printed + text[found.end(3) :], "utf-8")


if __name__ == "__main__":
    main()
