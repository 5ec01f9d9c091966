"""`scope-edge calibrate --estimator prior`: the correction of what fingerprints alone say, before and after."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from scope_edge.cli import words
from scope_edge.cli.output import out, out_json
from scope_edge.cli.progress import Progress
from scope_edge.cli.words import Column
from scope_edge.errors import UsageError

if TYPE_CHECKING:
    from scope_edge.calibrating import Calibrated, Figures, Kept


def run(pool: str | None, *, dry_run: bool, anyway: bool, forget: bool, as_json: bool) -> None:
    """Calibrate, or forget a calibration, and print what came of it."""
    if forget:
        if dry_run or anyway:
            raise UsageError(f"--forget only removes; leave {'--dry-run' if dry_run else '--anyway'} out")
        _forget(as_json)
        return
    from scope_edge.assemble import open_catalog
    from scope_edge.calibrating import calibrate_own
    from scope_edge.config import load_settings

    settings = load_settings({"pool": pool})
    with Progress() as progress:
        kept = calibrate_own(
            open_catalog(settings).pool(), settings.coverage, dry_run=dry_run, anyway=anyway, progress=progress
        )
    if as_json:
        out_json(_body(kept))
    else:
        out("\n".join(_lines(kept, settings.coverage, dry_run)))


def _forget(as_json: bool) -> None:
    from scope_edge.personal import file, forget_personal

    there = forget_personal()
    if as_json:
        out_json({"forgotten": there, "file": str(file())})
    else:
        out(f"removed {file()}; estimates are as they come" if there else "there is no calibration to forget")


def _body(kept: Kept) -> dict[str, Any]:
    found = kept.calibrated
    return {
        "models": list(found.full.models),
        "helps": list(found.helps),
        "fitted": {name: getattr(found.full, name) for name in ("slope", "intercept", "widening")},
        "before": {name: asdict(one) for name, one in found.before.items()},
        "after": {name: asdict(one) for name, one in found.after.items()},
        "stored": kept.stored,
        "file": str(kept.where),
    }


def _lines(kept: Kept, coverage: float, dry_run: bool) -> Iterator[str]:
    found = kept.calibrated
    number = found.before["all"].outcomes
    yield f"{number} outcomes that you measured, each predicted without it; after: by a correction that does not know it either"
    yield ""
    names = [name for name in found.before if name != "all"] if len(found.before) > 2 else []
    rows = [
        (name, when, one)
        for name in (*names, "all")
        for when, one in (("before", found.before[name]), ("after", found.after[name]))
    ]
    yield from words.table(_columns(rows))
    yield ""
    full = found.full
    yield f"logit p = {full.intercept:+.2f} {full.slope:+.2f} logit(prior): {_verdict(found, 'probability')}"
    bound = f"upper bound on tokens, to cover {100 * coverage:g} %: {full.widening:.2f} times as far from the median"
    yield f"{bound}: {_verdict(found, 'length')}"
    if kept.stored:
        yield f"stored in {kept.where}; `scope-edge calibrate --forget` removes it"
    elif dry_run:
        yield "nothing was stored (--dry-run)"
    else:
        yield "no gain, so nothing was stored (--anyway would)"


def _verdict(found: Calibrated, part: str) -> str:
    return "helps" if part in found.helps else "no gain"


def _columns(rows: list[tuple[str, str, Figures]]) -> list[Column]:
    def numbers(title: str, cells: Iterator[str]) -> Column:
        return Column(title, list(cells), right=True)

    figures = [one for _, _, one in rows]
    return [
        Column("", [name if when == "before" else "" for name, when, _ in rows]),
        Column("", [when for _, when, _ in rows]),
        numbers("outcomes", (str(one.outcomes) for one in figures)),
        numbers("log loss", (f"{one.logloss:.3f}" for one in figures)),
        numbers("brier", (f"{one.brier:.3f}" for one in figures)),
        numbers("ece above floor", (f"{max(one.ece, 0):.3f}" for one in figures)),
        numbers(
            "covered %", (words.UNKNOWN if one.coverage is None else f"{100 * one.coverage:.1f}" for one in figures)
        ),
        numbers("upper / median", (words.UNKNOWN if one.width is None else f"{one.width:.2f}" for one in figures)),
    ]
