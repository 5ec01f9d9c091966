"""The command line. click lives only here: a command parses, calls the library, and prints text or JSON.

run.py         one run: the exit code, and the one line an error is worth
group.py       the commands, loaded when they are used
options.py     option types and shell completion
inputs.py      text from standard input and files, within limits
route.py       `route`        lines.py  its --jsonl       decision.py  its table
models.py      `models`, with models_add.py, models_remove.py, models_test.py, models_compare.py
pool.py  anchors.py  fingerprint.py  imports.py  export.py  estimator.py  calibrate.py  doctor.py  completion.py   the others
words.py       numbers, tables and colours for people
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line and end the process with its exit code (docs/cli.md)."""
    # The products here are small: threads to share them cost more to start than they save. Read when numpy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from scope_edge.cli.run import run

    sys.exit(run(sys.argv[1:]))
