"""Calibrate an installed estimator: predict known outcomes, fit, compare, store.

Every anchor with text is treated as a new query, for every model. For anchor a and model m the prompt shows m's outcomes on
other anchors, and the IRT estimator is fitted without m's outcome on a. Every reply is written to a log at once, so that an
interrupted run of hours can continue.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.errors import AssetError, PackError, UsageError, WorkerError
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
    gains,
    save_calibration,
)
from scope_edge.estimator.factory import INSTALL, calibration, engine, key
from scope_edge.estimator.prompt import Prompter, TextSlices
from scope_edge.estimator.refined import read_samples
from scope_edge.estimator.store import find_installed

if TYPE_CHECKING:
    from scope_edge.estimation.anchors import AnchorSet
    from scope_edge.estimation.fingerprints import Fingerprint
    from scope_edge.estimator.store import Installed
    from scope_edge.providers.llama.client import LlamaClient
    from scope_edge.providers.llama.messages import Job, JobResult
    from scope_edge.types import ModelCard

JOURNAL = "calibration.journal"
# With fewer prompts the fit is mostly its penalty.
LEAST_PROMPTS = 30
_TRIES = 3
_COVERAGE = 0.9  # of the IRT estimator's token bound, which is not used here


@dataclass(frozen=True, slots=True)
class LeftOutTask:
    """One prompt: an anchor (by set and id) and a model."""

    set: str
    anchor: str
    model: str


@dataclass(frozen=True, slots=True)
class EstimatorReply:
    """The result of a prompt; p and tokens are None when no sample was usable."""

    task: LeftOutTask
    p: float | None
    tokens: float | None


@dataclass(frozen=True, slots=True)
class CalibrationProgress:
    """How far a run is. seconds_left: at the pace so far; None before the first prompt of this run is done."""

    done: int
    total: int
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class CalibrationOutcome:
    """The result of a calibration.

    Attributes:
        name: of the estimator. prompts: with a usable answer; unusable: without one.
        scores: before and after, see `before_and_after`. weights: a0, a1, a2; length: b0, b1; reach: in logit.
        stored: whether it is used from now on; where: its file.
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
    """Run leave-one-out prompts over a pool's anchors with text and fit the estimator to the known outcomes.

    Args:
        name: of the estimator; None = the newest.
        limit: the maximum number of prompts, those of an interrupted run included; None = every measured outcome.
        again: forget the replies of an earlier run.

    Raises AssetError (no estimator installed, damaged files), UsageError (nothing to calibrate on), WorkerError. Replies
    until then are kept, and the next call continues from there.
    """
    from scope_edge.estimation.fingerprints import load_fingerprints
    from scope_edge.estimation.irt import load_irt_model
    from scope_edge.estimation.refit import refitted

    installed = find_installed(name)
    if installed is None:
        if name is not None:
            raise UsageError(
                f"no estimator {name!r} is installed; `scope-edge estimator list` shows the installed ones"
            )
        raise AssetError(f"no estimator is installed; {INSTALL}")
    # Besides weights, template and mode, these settings change an answer.
    how = (
        f"{installed.samples} samples of {installed.analysis_tokens} tokens, {installed.examples} examples,"
        f" {installed.sampling}"
    )
    log = CalibrationLog(installed.folder, key(installed), how)
    if not again:
        _check_limit(installed, limit, len(log.replies))
    irt = load_irt_model()
    left_out = LeftOut(irt, pool, refitted(load_fingerprints()[1], irt, [card.id for card in pool]))
    tasks = left_out.tasks(limit)
    if not tasks:
        raise UsageError(
            "no model of the pool has outcomes on anchors with text, so there is nothing to calibrate on;"
            " `scope-edge estimator anchors` brings some"
        )
    if again:
        log.clear()
    done = {reply.task for reply in log.replies}
    todo = [task for task in tasks if task not in done]
    if todo:
        record = _recorder(log, len(tasks), len(todo), progress)
        with contextlib.closing(engine(installed, pool, threads).open()) as client:
            left_out.ask(todo, installed, client, record)
    return _fitted(installed, left_out, tasks, log.replies)


def _check_limit(installed: Installed, limit: int | None, replies: int) -> None:
    """Raise UsageError if a limit would replace a calibration, or drop replies, by fewer prompts than are stored."""
    if limit is None:
        return
    with contextlib.suppress(PackError):  # a damaged calibration is about to be replaced
        fitted = calibration(installed)
        replies = max(replies, 0 if fitted is None else fitted.prompts)
    if limit < replies:
        raise UsageError(
            f"--limit {limit} is less than the {replies} prompts already stored for {installed.name}; raise it or leave it"
            " out, or start over with --again"
        )


def _fitted(
    installed: Installed, left_out: LeftOut, tasks: Sequence[LeftOutTask], replies: Sequence[EstimatorReply]
) -> CalibrationOutcome:
    """Fit to the replies; store the fit if it rests on enough of them and predicts better than the prior alone.

    Else the estimator has no weight, and an earlier calibration on fewer prompts is removed. Raises AssetError when no reply
    is usable.
    """
    by_task = {reply.task: reply for reply in replies}  # two runs at once may have prompted for the same task
    wanted = [by_task[task] for task in tasks if task in by_task]
    seen = left_out.observed(wanted)
    if not len(seen):
        raise AssetError(
            f"{installed.name}: none of {len(wanted)} prompts had a usable answer; is it a SCOPE estimator?"
        )
    fitted, enough, path = fit_calibration(seen), len(seen) >= LEAST_PROMPTS, installed.folder / FILE
    stored = enough and gains(seen)
    if stored:
        save_calibration(installed.folder, key(installed), fitted)
    elif enough:
        path.unlink(missing_ok=True)
    return CalibrationOutcome(
        name=installed.name,
        prompts=len(seen),
        unusable=len(wanted) - len(seen),
        scores=before_and_after(seen),
        weights=tuple(fitted.weights.tolist()),
        length=tuple(fitted.length.tolist()),
        reach=fitted.reach,
        stored=stored,
        where=str(path),
    )


def _recorder(
    log: CalibrationLog, total: int, todo: int, progress: Callable[[CalibrationProgress], None] | None
) -> Callable[[EstimatorReply], None]:
    """Return the function that logs a reply and reports progress."""
    started, before, done = monotonic(), total - todo, 0

    def record(reply: EstimatorReply) -> None:
        nonlocal done
        log.add(reply)
        done += 1
        if progress is not None:
            progress(CalibrationProgress(before + done, total, (monotonic() - started) / done * (todo - done)))

    if progress is not None:
        progress(CalibrationProgress(before, total, None))
    return record


class LeftOut:
    """The tasks of a pool, their prompts, and their known outcomes."""

    def __init__(
        self, irt: IrtModel, pool: Sequence[ModelCard], fingerprints: Mapping[str, Sequence[Fingerprint]]
    ) -> None:
        self._irt = irt
        self._cards = {card.id: card for card in pool}
        self._parts = {card.id: tuple(fingerprints.get(card.id, ())) for card in pool}
        self.slices = TextSlices(pool, fingerprints)
        self._sets = {one.name: one for one in self.slices.sets}

    def tasks(self, limit: int | None = None) -> tuple[LeftOutTask, ...]:
        """List every measured outcome with text, the most informative anchors first, all models of an anchor together."""
        found: list[LeftOutTask] = []
        orders = {name: self._order(anchors) for name, anchors in self._sets.items()}
        for rank in range(max(map(len, self._sets.values()), default=0)):
            for name, order in orders.items():
                for row in order[rank : rank + 1]:
                    found += [
                        LeftOutTask(name, self._sets[name].ids[row], self.slices.names[i])
                        for i in self.slices.models
                        for part in self._parts[self.slices.names[i]]
                        if part.anchors.name == name and np.isfinite(part.correct[row]) and part.tokens[row] > 0
                    ]
            if limit is not None and len(found) >= limit:
                break
        return tuple(found[:limit])

    def _order(self, anchors: AnchorSet) -> list[int]:
        """Order rows, most informative first: a bundled set as it is, others by Fisher information on an average model."""
        if not anchors.own:
            return list(range(len(anchors)))
        a = anchors.discrimination
        p = sigmoid(design(anchors) @ self._irt.population.mean - a * anchors.difficulty)
        return [int(row) for row in np.argsort(-(a**2) * p * (1 - p), kind="stable")]

    def ask(
        self,
        tasks: Sequence[LeftOutTask],
        installed: Installed,
        client: LlamaClient,
        done: Callable[[EstimatorReply], None],
    ) -> None:
        """Run the prompts of tasks, in batches of the worker's size, and hand every reply to `done`.

        A failed worker is started again, since a run of hours should outlive a bad minute. Raises WorkerError when it fails
        at the same prompts repeatedly, AssetError.
        """
        prompter = Prompter(installed, self.slices)
        batch_size = max(client.start(600.0).batch_prompts, 1)
        for start in range(0, len(tasks), batch_size):
            batch = tasks[start : start + batch_size]
            jobs = []
            for task in batch:
                anchors, row = self._anchor(task)
                similarities, text = self.slices.similarities(anchors.vectors[row]), anchors.texts[row]
                model = self.slices.names.index(task.model)
                jobs.append(prompter.job(prompter.prompt(model, similarities, text, without=text), installed.samples))
            for task, result in zip(batch, _run(client, jobs), strict=True):
                reading = read_samples(result.samples)
                done(EstimatorReply(task, reading.p, reading.length) if reading else EstimatorReply(task, None, None))

    def observed(self, replies: Sequence[EstimatorReply]) -> Observed:
        """Return the usable replies beside the IRT estimates and the known outcomes."""
        rows = [(one, *self._known(one.task)) for one in replies if one.p is not None and one.tokens]
        table = np.array(
            [[one.p, p, one.tokens, tokens, correct, real] for one, p, tokens, correct, real in rows], np.float64
        )
        p, prior, tokens, prior_tokens, correct, real = table.reshape(-1, 6).T
        group = tuple(f"{one.task.set}/{one.task.anchor}" for one, *_ in rows)
        return Observed(p, prior, tokens, prior_tokens, correct, real, group)

    def _anchor(self, task: LeftOutTask) -> tuple[AnchorSet, int]:
        anchors = self._sets[task.set]
        return anchors, anchors.ids.index(task.anchor)

    def _known(self, task: LeftOutTask) -> tuple[float, float, float, float]:
        """Return (IRT p and tokens without this outcome, correct, completion tokens); tokens are the model's own."""
        (anchors, row), card = self._anchor(task), self._cards[task.model]
        outcome = next(part for part in self._parts[task.model] if part.anchors.name == task.set)
        parts = tuple(_without(part, anchors.texts[row], task) for part in self._parts[task.model])
        # The stored ability of a model in the bank rests on this outcome too, unless the user measured it.
        irt = self._irt if outcome.own else replace(self._irt, abilities={})
        estimator = IrtEstimator(irt, [card], {card.id: parts}, coverage=_COVERAGE)
        estimate = estimator.at(anchors.positions.take(row), 1.0)
        real = float(outcome.tokens[row]) * card.token_factor
        return float(estimate.p_correct[0]), float(estimate.tokens[0]), float(outcome.correct[row]), real


def _run(client: LlamaClient, jobs: Sequence[Job]) -> tuple[JobResult, ...]:
    """Run jobs, on a new worker if the old one fails. Raises WorkerError after some tries."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(WorkerError):
            return client.run(jobs, None)[0]
    return client.run(jobs, None)[0]


def _without(part: Fingerprint, text: str, task: LeftOutTask) -> Fingerprint:
    """Return the fingerprint without a task's outcome and without the same question under another id."""
    same = np.array([one == text for one in part.anchors.texts], bool)
    if part.anchors.name == task.set:
        same |= np.array([one == task.anchor for one in part.anchors.ids], bool)
    if not same.any():
        return part
    return replace(part, correct=np.where(same, np.nan, part.correct), tokens=np.where(same, np.nan, part.tokens))


class CalibrationLog:
    """The replies so far, one line per prompt, in the estimator's folder. A log of another key is started anew."""

    def __init__(self, folder: Path, key: Key, how: str = "") -> None:
        """how: the sampling settings, in words, as part of the key. Raises AssetError (unreadable, not writable)."""
        self._path = folder / JOURNAL
        self._head = json.dumps({**asdict(key), "how": how}, sort_keys=True)
        self.replies = self._read()

    def add(self, reply: EstimatorReply) -> None:
        """Append a reply. Raises AssetError."""
        self.replies.append(reply)
        self._write(json.dumps(asdict(reply)) + "\n", "ab")

    def clear(self) -> None:
        """Delete all replies. Raises AssetError."""
        self.replies = []
        self._write(self._head + "\n", "wb")

    def _read(self) -> list[EstimatorReply]:
        try:
            lines = self._path.read_text("utf-8", "replace").split("\n")
        except FileNotFoundError:
            lines = []
        except OSError as error:
            raise AssetError(f"{self._path}: cannot be read ({error.strerror or error}); remove it") from error
        if not lines or lines[0] != self._head:
            self.clear()
            return []
        # The last line is empty, or was cut off when the run was interrupted: then the file continues after the one before.
        if lines[-1]:
            self._write("\n".join(lines[:-1]) + "\n", "wb")
        return [reply for line in lines[1:-1] if (reply := _reply(line)) is not None]

    def _write(self, text: str, mode: str) -> None:
        try:
            with self._path.open(mode) as file:
                file.write(text.encode("utf-8"))
        except OSError as error:
            raise AssetError(
                f"{self._path}: cannot be written ({error.strerror or error}); check the folder"
            ) from error


def _reply(line: str) -> EstimatorReply | None:
    """Parse a line of the log; None for an invalid line, whose prompt is then run again."""
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
