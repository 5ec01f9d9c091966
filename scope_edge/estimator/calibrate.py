"""Calibrate the installed estimator: ask it about known outcomes, fit, compare, store."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.errors import AssetError, UsageError, WorkerError
from scope_edge.estimation.ability import design
from scope_edge.estimation.irt import IrtEstimator, IrtModel
from scope_edge.estimation.newton import sigmoid
from scope_edge.estimator.calibration import (
    FILE,
    Key,
    Observed,
    Score,
    before_and_after,
    fit_calibration,
    save_calibration,
)
from scope_edge.estimator.factory import INSTALL, engine, key
from scope_edge.estimator.prompt import Prompter, TextSlices
from scope_edge.estimator.refined import read_samples
from scope_edge.estimator.store import find_installed

if TYPE_CHECKING:
    from scope_edge.estimation.anchors import AnchorSet
    from scope_edge.estimation.fingerprints import Fingerprint
    from scope_edge.estimator.scope import Client
    from scope_edge.estimator.store import Installed
    from scope_edge.providers.llama.messages import Job, JobResult
    from scope_edge.types import ModelCard, Vector

# An estimator asked about outcomes that are known: every anchor with text as if it were a new query, for every model.
#
# For anchor a and model m the prompt shows m's outcomes on other anchors, and the prior is fitted without m's outcome on a.
# What came of each prompt is written to a journal at once, so that a run of hours goes on where it was interrupted.

JOURNAL = "calibration.journal"
_TRIES = 3
_COVERAGE = 0.9  # of the prior's bound, which is not looked at here


@dataclass(frozen=True, slots=True)
class LeftOutTask:
    """One prompt: an anchor (by set and id) and a model."""

    set: str
    anchor: str
    model: str


@dataclass(frozen=True, slots=True)
class EstimatorReply:
    """What came of a prompt; p and tokens are None when no sample could be used."""

    task: LeftOutTask
    p: float | None
    tokens: float | None


class LeftOut:
    """The tasks of a pool and what is known about each."""

    def __init__(
        self,
        basis: IrtModel,
        pool: Sequence[ModelCard],
        fingerprints: Mapping[str, Sequence[Fingerprint]],
    ) -> None:
        self._basis = basis
        self._cards = {card.id: card for card in pool}
        self._parts = {card.id: tuple(fingerprints.get(card.id, ())) for card in pool}
        self.slices = TextSlices(pool, fingerprints)
        self._sets = {one.name: one for one in self.slices.sets}

    def tasks(self, limit: int | None = None) -> tuple[LeftOutTask, ...]:
        """Every measured outcome with text, the most informative anchors first, over all models before the next anchor."""
        found: list[LeftOutTask] = []
        orders = {name: self._order(anchors) for name, anchors in self._sets.items()}
        for rank in range(max(map(len, self._sets.values()), default=0)):
            for name, anchors in self._sets.items():
                if rank < len(anchors):
                    row = orders[name][rank]
                    found += [LeftOutTask(name, anchors.ids[row], model) for model in self._measured(anchors, row)]
            if limit is not None and len(found) >= limit:
                break
        return tuple(found[:limit])

    def _order(self, anchors: AnchorSet) -> list[int]:
        """Rows, most informative first: as a bundled set has them, else by Fisher information on an average model."""
        if not anchors.own:
            return list(range(len(anchors)))
        a = anchors.discrimination
        p = sigmoid(design(anchors) @ self._basis.population.mean - a * anchors.difficulty)
        return [int(row) for row in np.argsort(-(a**2) * p * (1 - p), kind="stable")]

    def _measured(self, anchors: AnchorSet, row: int) -> Iterator[str]:
        for i in self.slices.models:
            model = self.slices.names[i]
            for part in self._parts[model]:
                if part.anchors.name == anchors.name and np.isfinite(part.correct[row]) and part.tokens[row] > 0:
                    yield model

    def ask(
        self, tasks: Sequence[LeftOutTask], installed: Installed, client: Client, done: Callable[[EstimatorReply], None]
    ) -> None:
        """Prompt for tasks one after another, as many at once as the client likes.

        A worker that fails is started again, for a run of hours should outlive a bad minute. Raises WorkerError when it
        fails at the same prompts again and again, AssetError.
        """
        prompter = Prompter(installed, self.slices)
        at_once = max(client.start(600.0).batch_prompts, 1)
        for start in range(0, len(tasks), at_once):
            turn = tasks[start : start + at_once]
            jobs = [
                prompter.job(prompter.prompt(*self._question(task), without=self._text(task)), installed.samples)
                for task in turn
            ]
            for task, result in zip(turn, _persistent(client, jobs), strict=True):
                reading = read_samples(result.samples)
                done(EstimatorReply(task, reading.p, reading.length) if reading else EstimatorReply(task, None, None))

    def observed(self, said: Sequence[EstimatorReply]) -> Observed:
        """What was said beside the prior's word and what really happened; prompts without a usable sample left out."""
        rows = [(one, *self._known(one.task)) for one in said if one.p is not None and one.tokens]
        table = np.array(
            [[one.p, p, one.tokens, tokens, real, length] for one, p, tokens, real, length in rows], np.float64
        )
        p, prior, tokens, prior_tokens, correct, real = table.reshape(-1, 6).T
        group = tuple(f"{one.task.set}/{one.task.anchor}" for one, *_ in rows)
        return Observed(p, prior, tokens, prior_tokens, correct, real, group)

    def _text(self, task: LeftOutTask) -> str:
        anchors = self._sets[task.set]
        return anchors.texts[anchors.ids.index(task.anchor)]

    def _question(self, task: LeftOutTask) -> tuple[int, list[Vector], str]:
        anchors = self._sets[task.set]
        vector = anchors.vectors[anchors.ids.index(task.anchor)]
        return self.slices.names.index(task.model), self.slices.similarities(vector), self._text(task)

    def _known(self, task: LeftOutTask) -> tuple[float, float, float, float]:
        """(the prior's p and tokens with this outcome left out, correct, completion tokens); tokens in own tokens."""
        anchors, card, text = self._sets[task.set], self._cards[task.model], self._text(task)
        row = anchors.ids.index(task.anchor)
        outcome = next(part for part in self._parts[task.model] if part.anchors.name == task.set)
        parts = tuple(_without(part, text, task) for part in self._parts[task.model])
        # What a model that taught the bank is known by holds this outcome too, unless the user measured it.
        basis = self._basis if outcome.own else replace(self._basis, abilities={})
        prior = IrtEstimator(basis, [card], {card.id: parts}, coverage=_COVERAGE)
        estimate = prior.at(anchors.positions.take(row), 1.0)
        real = float(outcome.tokens[row]) * card.token_factor
        return float(estimate.p_correct[0]), float(estimate.tokens[0]), float(outcome.correct[row]), real


def _persistent(client: Client, jobs: Sequence[Job]) -> tuple[JobResult, ...]:
    """Run jobs, on a new worker if the old one fails. Raises WorkerError after some tries."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(WorkerError):
            return client.run(jobs, None)[0]
    return client.run(jobs, None)[0]


def _without(part: Fingerprint, text: str, task: LeftOutTask) -> Fingerprint:
    """The fingerprint without the outcome of a task, nor of the same question elsewhere."""
    same = np.array([one == text for one in part.anchors.texts], bool)
    if part.anchors.name == task.set:
        same |= np.array([one == task.anchor for one in part.anchors.ids], bool)
    if not same.any():
        return part
    nothing = np.nan
    return replace(part, correct=np.where(same, nothing, part.correct), tokens=np.where(same, nothing, part.tokens))


class CalibrationLog:
    """What was said so far, one line a prompt, in the estimator's folder. Another key's journal is begun anew."""

    def __init__(self, folder: Path, key: Key, how: str = "") -> None:
        """how: it is asked, in words; asked otherwise is another journal. Raises AssetError: it cannot be read or written."""
        self._path = folder / JOURNAL
        self._head = json.dumps({**asdict(key), "how": how}, sort_keys=True)
        self.said = self._read()

    def add(self, said: EstimatorReply) -> None:
        """Write one line. Raises AssetError."""
        self.said.append(said)
        self._write(json.dumps(asdict(said)) + "\n", "ab")

    def clear(self) -> None:
        """Forget everything. Raises AssetError."""
        self.said = []
        self._write(self._head + "\n", "wb")

    def _read(self) -> list[EstimatorReply]:
        try:
            lines = self._path.read_text("utf-8", "replace").split("\n")
        except FileNotFoundError:
            lines = []
        except OSError as error:
            raise AssetError(f"{self._path}: cannot be read ({error.strerror or error}); remove it") from error
        if not lines or lines[0] != self._head:
            self._write(self._head + "\n", "wb")
            return []
        # The last line is empty, or was cut off by whatever ended the run: the file then goes on after the one before.
        found = [said for line in lines[1:-1] if (said := _said(line)) is not None]
        if lines[-1]:
            self._write("\n".join(lines[:-1]) + "\n", "wb")
        return found

    def _write(self, text: str, mode: str) -> None:
        try:
            with self._path.open(mode) as file:
                file.write(text.encode("utf-8"))
        except OSError as error:
            raise AssetError(
                f"{self._path}: cannot be written ({error.strerror or error}); check the folder"
            ) from error


def _said(line: str) -> EstimatorReply | None:
    """One line of the journal, None when it is no such line or its numbers make no sense: the prompt is run again then."""
    try:
        body = json.loads(line)
        task = LeftOutTask(**{name: str(body["task"][name]) for name in ("set", "anchor", "model")})
        p, tokens = body["p"], body["tokens"]
        if p is None or tokens is None:
            return EstimatorReply(task, None, None)
        p, tokens = float(p), float(tokens)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return EstimatorReply(task, p, tokens) if 0.0 <= p <= 1.0 and tokens > 0 and math.isfinite(tokens) else None


# Fewer say less than the pull towards the middle does.
LEAST_PROMPTS = 30


@dataclass(frozen=True, slots=True)
class CalibrationProgress:
    """How far a run is. seconds_left: at the pace so far, None before the first prompt of this run is done."""

    done: int
    total: int
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class CalibrationOutcome:
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
    progress: Callable[[CalibrationProgress], None] | None = None,
) -> CalibrationOutcome:
    """Run leave-one-out prompts over a pool's anchors with text and fit the estimator to what really happened.

    Args:
        name: of the estimator; None = the newest.
        limit: prompts in all, those of an interrupted run included; None = every measured outcome.
        again: forget what an earlier run found out.

    Raises AssetError (none installed, damaged files), UsageError (nothing to calibrate on), WorkerError. What was found
    out until then is kept, and the next call goes on from there.
    """
    from scope_edge.estimation.fingerprints import load_fingerprints
    from scope_edge.estimation.irt import load_irt_model
    from scope_edge.estimation.refit import refitted

    installed = _wanted(name)
    basis = load_irt_model()
    left_out = LeftOut(basis, pool, refitted(load_fingerprints()[1], basis, [card.id for card in pool]))
    tasks = left_out.tasks(limit)
    if not tasks:
        raise UsageError(
            "no model of the pool has outcomes on anchors with text, so there is nothing to calibrate on;"
            " `scope-edge estimator anchors` brings some"
        )
    journal = CalibrationLog(installed.folder, key(installed), _how(installed))
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
    return CalibrationOutcome(
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
    journal: CalibrationLog, total: int, todo: int, progress: Callable[[CalibrationProgress], None] | None
) -> Callable[[EstimatorReply], None]:
    """What is done with every prompt's outcome: into the journal at once, then counted."""
    started, before = monotonic(), total - todo
    done = 0

    def count(said: EstimatorReply) -> None:
        nonlocal done
        journal.add(said)
        done += 1
        if progress is not None:
            progress(CalibrationProgress(before + done, total, (monotonic() - started) / done * (todo - done)))

    if progress is not None:
        progress(CalibrationProgress(before, total, None))
    return count
