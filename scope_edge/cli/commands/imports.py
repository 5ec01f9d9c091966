"""`scope-edge import`: take outcomes that were measured elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from scope_edge.cli.format import plural
from scope_edge.cli.options import count_option
from scope_edge.cli.output import ProgressLine, one_line, out, print_facts
from scope_edge.cli.run import complain

if TYPE_CHECKING:
    from scope_edge.fingerprinting.importing.outcomes import Imported

# Written files to name; of more, only the number is shown.
_SHOWN = 3
FORMATS = ("routing-data", "pack", "lm-eval", "anchor-results")
_EPILOG = """\b
Examples:
  scope-edge import ./our-questions --limit 500
  scope-edge import ./our-questions --name support-mails
  scope-edge import ./our-finetune.pack
  scope-edge import samples_gsm8k_2026-01-31T10-11-12.jsonl --model our-finetune

\b
Exit codes:
  0 ok   2 usage, or existing data must not be replaced
  5 a file is missing, damaged, too large or of an unknown format
  130 interrupted
"""


@click.command("import", epilog=_EPILOG)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--format", type=click.Choice(FORMATS), help="The file's format. Default: recognized by content.")
@click.option("--name", metavar="NAME", help="A name for the anchor set. Default: made from the path.")
@count_option(
    "--limit",
    "Import at most N anchors, drawn evenly from all categories.  [default: all]",
)
@click.option("--model", metavar="MODEL", help="The model whose answers a log or result file holds.")
@click.option("--replace", is_flag=True, help="Replace a model's outcomes by the imported ones.")
def command(
    path: Path, format: str | None, name: str | None, limit: int | None, model: str | None, replace: bool
) -> None:
    """Import outcomes measured elsewhere: the questions become anchors, each model's outcomes a fingerprint.

    PATH is a folder of labelled queries, queries.jsonl.gz and outcomes.csv.gz (docs/fingerprints.md), a pack written by
    `scope-edge export`, a sample log of lm-evaluation-harness, or an anchor_results.json of the paper's reference
    implementation. Nothing imported is executed. Importing a folder or log again replaces the outcomes from it.
    """
    from scope_edge.factory import open_cards
    from scope_edge.fingerprinting.importing.detect import ImportOptions, import_path

    options = ImportOptions(format, name, limit, model, replace)
    with ProgressLine() as progress:
        done, sha256 = import_path(path, options, open_cards(), progress)
    report(done, sha256)


def report(done: Imported, sha256: str | None = None) -> None:
    """Print the result of an import, and on standard error what to do about models without a card."""
    where = f"joined to {done.anchor_set}" if done.joined else f"anchor set {done.anchor_set}"
    models = plural(len(done.models) + len(done.strangers), "model")
    missing = f", {done.missing} missing" if done.missing else ""
    anchors = plural(done.anchors, "anchor")
    outcomes = plural(done.outcomes, "outcome")
    out(f"{one_line(done.source)}: {one_line(where)}, {anchors}; {outcomes} of {models}{missing}")
    dropped = "; ".join(f"{count} {reason}" for reason, count in done.dropped.items())
    facts = {"with a card": ", ".join(done.models) or "none", "without": ", ".join(done.strangers), "dropped": dropped}
    print_facts({**facts, "sha256": sha256 or "", "written": _files(done.files)})
    if done.strangers:
        from scope_edge.settings.config import load_settings

        complain(
            f"{plural(len(done.strangers), 'model')} without a card cannot be chosen;"
            f' add one as a table [models."{done.strangers[0]}"] in {load_settings().file} (docs/models.md)',
            0,
        )


def _files(files: tuple[Path, ...]) -> str:
    if len(files) <= _SHOWN:
        return ", ".join(map(str, files))
    return f"{files[0]}, and {len(files) - 1} fingerprints in {files[-1].parent}"
