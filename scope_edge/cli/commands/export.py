"""`scope-edge export`: write a model's fingerprint to a file, to share it."""

from __future__ import annotations

from pathlib import Path

import click

from scope_edge.cli import format
from scope_edge.cli.options import complete_model
from scope_edge.cli.output import one_line, out, print_facts

_EPILOG = """\b
Examples:
  scope-edge export our-finetune --anchors core-250 -o our-finetune.pack
  scope-edge export our-finetune --anchors our-questions --with-text -o for-colleagues.pack

\b
Exit codes:
  0 ok   2 usage, or no such fingerprint   5 a file is damaged or cannot be written
"""


@click.command("export", epilog=_EPILOG)
@click.argument("model", shell_complete=complete_model)
@click.option("--anchors", metavar="SET", help="The anchor set. Default: the only one the model was measured on.")
@click.option(
    "-o",
    "--output",
    "path",
    required=True,
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write.",
)
@click.option("--with-text", is_flag=True, help="Include the questions of your own anchor set.")
def command(model: str, anchors: str | None, path: Path, with_text: bool) -> None:
    """Write a model's fingerprint to a file, to share it; `scope-edge import FILE` reads it.

    Your own anchor set is included, but its questions only with --with-text. The model's answers are never included.
    """
    from scope_edge.fingerprinting.importing.share import export_fingerprint

    done = export_fingerprint(model, path, anchors, with_text=with_text)
    out(f"{one_line(done.model)} on {done.anchor_set}: {format.plural(done.outcomes, 'outcome')}")
    content = "fingerprint"
    if done.with_set:
        content += f" and anchor set, {'with' if done.with_text else 'without'} its questions"
    print_facts({"content": content, "sha256": done.sha256, "written": str(done.file)})
