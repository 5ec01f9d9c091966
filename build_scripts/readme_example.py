"""Run the examples of README.md and docs/troubleshooting.md and write what they print: `python build_scripts/readme_example.py`.

An example is the fenced block after a line `<!-- example -->`. Its first line is the command; the rest is what the command printed.
Each runs as a new user with empty folders, shown as /home/you.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "troubleshooting.md")
EXAMPLE = re.compile(r"(<!-- example -->\n```console\n\$ ([^\n]+)\n)(.*?)(```\n)", re.DOTALL)


def printed(command: str) -> str:
    """Run one example's command line, with any NAME=value before it, and return its standard output and error."""
    words = shlex.split(command)
    variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    program, *arguments = words[len(variables) :]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder).resolve()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SCOPE_EDGE_")}
        path = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH"))))
        ours = {
            "COLUMNS": "120",
            "PYTHONPATH": path,
            "SCOPE_EDGE_CONFIG": str(home / "config.toml"),
            "SCOPE_EDGE_DATA_DIR": str(home / "data"),
            "SCOPE_EDGE_CACHE_DIR": str(home / "cache"),
        }
        done = subprocess.run(
            [sys.executable, "-m", program.replace("-", "_"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            cwd=home,
            env={**kept, **ours, **variables},
        )
        return done.stdout.replace(str(home), "/home/you")


def main() -> None:
    for page in PAGES:
        text, count = EXAMPLE.subn(lambda found: found[1] + printed(found[2]) + found[4], page.read_text("utf-8"))
        if not count:
            sys.exit(
                f"{page}: no example; mark it with <!-- example --> and a console block that begins with a command"
            )
        page.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
