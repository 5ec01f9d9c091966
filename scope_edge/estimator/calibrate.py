"""Calibrate the installed estimator: ask it about known outcomes, fit, compare, store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from scope_edge.errors import AssetError, UsageError
from scope_edge.estimator.calibrated import FILE, fit_calibration, save_calibration
from scope_edge.estimator.installed import find_installed
from scope_edge.estimator.leave_one_out import Journal, LeftOut, Said
from scope_edge.estimator.scored import Score, before_and_after
from scope_edge.estimator.use import INSTALL, engine, key

if TYPE_CHECKING:
    from scope_edge.estimator.installed import Installed
    from scope_edge.records import ModelCard

# Fewer say less than the pull towards the middle does.
LEAST_PROMPTS = 30


@dataclass(frozen=True, slots=True)
class Step:
    """How far a run is. seconds_left: at the pace so far, None before the first prompt of this run is done."""

    done: int
    total: int
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a calibration came to.

    Attributes:
        name: of the estimator. prompts: with a usable answer; unusable: without one.
        scores: before and after, see `before_and_after`. weights: a0, a1, a2; length: b0, b1; reach: in logit.
        stored: whether it is in use from now on; where: its file.
    """

    name: str
    prompts: int
    unusable: int
    scores: Mapping[str, Score]
    weights: tuple[float, ...]
    length: tuple[float, ...]
    reach: float
    stored: bool
    where: str


def calibrate_estimator(
    pool: Sequence[ModelCard],
    name: str | None = None,
    *,
    threads: int | None = None,
    limit: int | None = None,
    again: bool = False,
    progress: Callable[[Step], None] | None = None,
) -> Outcome:
    """Run leave-one-out prompts over a pool's anchors with text and fit the estimator to what really happened.

    Args:
        name: of the estimator; None = the newest.
        limit: prompts in all, those of an interrupted run included; None = every measured outcome.
        again: forget what an earlier run found out.

    Raises AssetError (none installed, damaged files), UsageError (nothing to calibrate on), WorkerError. What was found
    out until then is kept, and the next call goes on from there.
    """
    from scope_edge.fingerprints import load_fingerprints
    from scope_edge.prior import load_basis
    from scope_edge.refit.use import refitted

    installed = _wanted(name)
    basis = load_basis()
    left_out = LeftOut(basis, pool, refitted(load_fingerprints()[1], basis, [card.id for card in pool]))
    tasks = left_out.tasks(limit)
    if not tasks:
        raise UsageError(
            "no model of the pool has outcomes on anchors with text, so there is nothing to calibrate on;"
            " `scope-edge estimator anchors` brings some"
        )
    journal = Journal(installed.folder, key(installed), _how(installed))
    if again:
        journal.clear()
    todo = [task for task in tasks if task not in {one.task for one in journal.said}]
    if todo:
        counted = _counted(journal, len(tasks), len(todo), progress)
        with contextlib.closing(engine(installed, pool, threads).open()) as client:
            left_out.ask(todo, installed, client, counted)
    # By task: two runs at once may have asked the same.
    answers = {one.task: one for one in journal.said}
    said = [answers[task] for task in tasks if task in answers]
    seen = left_out.observed(said)
    if not len(seen):
        raise AssetError(f"{installed.name}: none of {len(said)} prompts had a usable answer; is it a SCOPE estimator?")
    fitted, stored = fit_calibration(seen), len(seen) >= LEAST_PROMPTS
    if stored:
        save_calibration(installed.folder, key(installed), fitted)
    return Outcome(
        name=installed.name,
        prompts=len(seen),
        unusable=len(said) - len(seen),
        scores=before_and_after(seen),
        weights=tuple(fitted.weights.tolist()),
        length=tuple(fitted.length.tolist()),
        reach=fitted.reach,
        stored=stored,
        where=str(installed.folder / FILE),
    )


def _wanted(name: str | None) -> Installed:
    """Find the estimator of that name, or the newest. Raises UsageError or AssetError when there is none."""
    found = find_installed(name)
    if found is not None:
        return found
    if name is not None:
        raise UsageError(f"no estimator {name!r} is installed; `scope-edge estimator list` shows what is")
    raise AssetError(f"no estimator is installed; {INSTALL}")


def _how(installed: Installed) -> str:
    """What besides weights, template and mode makes an answer what it is."""
    return (
        f"{installed.samples} samples of {installed.analysis_tokens} tokens, {installed.examples} examples,"
        f" {installed.sampling}"
    )


def _counted(
    journal: Journal, total: int, todo: int, progress: Callable[[Step], None] | None
) -> Callable[[Said], None]:
    """What is done with every prompt's outcome: into the journal at once, then counted."""
    started, before = monotonic(), total - todo
    done = 0

    def count(said: Said) -> None:
        nonlocal done
        journal.add(said)
        done += 1
        if progress is not None:
            progress(Step(before + done, total, (monotonic() - started) / done * (todo - done)))

    if progress is not None:
        progress(Step(before, total, None))
    return count
