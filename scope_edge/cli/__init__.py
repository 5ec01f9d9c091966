"""The command line, the only room that uses click. A command parses its options, calls the library, and prints text or JSON.

`group.py` lists the commands, which are in `commands/`; `render/` makes their tables and texts.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line and end the process with its exit code (docs/cli.md)."""
    # The matrices here are small: starting threads costs more than they save. numpy reads this when it is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from scope_edge.cli.run import run

    sys.exit(run(sys.argv[1:]))
