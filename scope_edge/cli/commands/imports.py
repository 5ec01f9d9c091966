"""`scope-edge import`: outcomes that were measured elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from scope_edge.cli import format
from scope_edge.cli.format import Column
from scope_edge.cli.output import ProgressLine, one_line, out
from scope_edge.cli.run import complain

if TYPE_CHECKING:
    from scope_edge.fingerprinting.importing.outcomes import Imported

# Written files that are named; of more, only how many.
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
  0 ok   2 usage, or what is here must not be replaced
  5 a file is missing, damaged, too large or of an unknown format
  130 interrupted
"""


@click.command("import", epilog=_EPILOG)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(FORMATS), help="What it is. Default: what its content says.")
@click.option("--name", metavar="NAME", help="Call the anchor set so. Default: made of the path's name.")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    help="Anchors, those that tell most models apart first, categories in turn.  [default: all]",
)
@click.option("--model", metavar="MODEL", help="Whose answers a log or result file holds.")
@click.option("--replace", is_flag=True, help="Put one model's outcomes in place of others of it that are here.")
def command(
    path: Path,
    kind: str | None,
    name: str | None,
    limit: int | None,
    model: str | None,
    replace: bool,
) -> None:
    """Import outcomes measured elsewhere: their questions become anchors, every model's outcomes a fingerprint.

    PATH is a folder of labelled queries, queries.jsonl.gz and outcomes.csv.gz (docs/fingerprints.md), a pack that
    `scope-edge export` wrote, a sample log of lm-evaluation-harness, or an anchor_results.json of the paper's reference
    implementation. Nothing imported is executed. Imported again, a folder or log replaces the outcomes that it brought.
    """
    from scope_edge.factory import open_cards
    from scope_edge.fingerprinting.importing.detect import ImportOptions, import_path

    wishes = ImportOptions(kind, name, limit, model, replace)
    with ProgressLine() as progress:
        done, sha256 = import_path(path, wishes, open_cards(), progress)
    report(done, sha256)


def report(done: Imported, sha256: str | None = None) -> None:
    """Say what came of an import, and on standard error what to do about models without a card."""
    where = f"joined to {done.anchor_set}" if done.joined else f"anchor set {done.anchor_set}"
    models = format.plural(len(done.models) + len(done.strangers), "model")
    missing = f", {done.missing} missing" if done.missing else ""
    anchors = format.plural(done.anchors, "anchor")
    outcomes = format.plural(done.outcomes, "outcome")
    out(f"{one_line(done.source)}: {one_line(where)}, {anchors}; {outcomes} of {models}{missing}")
    dropped = "; ".join(f"{count} {reason}" for reason, count in done.dropped.items())
    facts = {"with a card": ", ".join(done.models) or "none", "without": ", ".join(done.strangers), "dropped": dropped}
    print_facts({**facts, "sha256": sha256 or "", "written": _files(done.files)})
    if done.strangers:
        from scope_edge.settings.config import load_settings

        complain(
            f"{format.plural(len(done.strangers), 'model')} without a card cannot be chosen;"
            f' a table [models."{done.strangers[0]}"] in {load_settings().file} makes one (docs/models.md)',
            0,
        )


def print_facts(facts: dict[str, str]) -> None:
    """Names and values below each other, those without a value left out."""
    shown = {name: value for name, value in facts.items() if value}
    names, values = [f"  {name}" for name in shown], [one_line(value) for value in shown.values()]
    for line in format.table([Column("", names), Column("", values)])[1:]:
        out(line)


def _files(files: tuple[Path, ...]) -> str:
    if len(files) <= _SHOWN:
        return ", ".join(map(str, files))
    return f"{files[0]}, and {len(files) - 1} fingerprints in {files[-1].parent}"
