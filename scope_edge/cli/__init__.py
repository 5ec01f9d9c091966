"""The command line, the only room that uses click. A command parses its options, calls the library, and prints text or JSON.

`group.py` lists the commands, which are in `commands/`; `render/` makes their tables and texts.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and end the process with its exit code (docs/cli.md)."""
    from scope_edge.estimation.blas import default_to_one

    default_to_one()
    from scope_edge.cli.run import run

    sys.exit(run(sys.argv[1:]))
