"""Asking about known outcomes: nothing that is asked is shown or known, and no prompt is lost or run twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from estimator_cases import Client, Warm, installed, sample

from scope_edge.errors import WorkerError
from scope_edge.estimation.ability import design
from scope_edge.estimation.anchors import AnchorSet
from scope_edge.estimation.fingerprints import Fingerprint, load_fingerprints
from scope_edge.estimation.irt import load_irt_model
from scope_edge.estimation.newton import sigmoid
from scope_edge.estimator.calibrate import JOURNAL, CalibrationLog, EstimatorReply, LeftOut, LeftOutTask
from scope_edge.estimator.calibration import Key, Observed, before_and_after, fit_calibration, gains, score
from scope_edge.providers.llama.messages import Sample
from scope_edge.types import ModelCard

MODELS = ("llama-3.1-70b-instruct", "gemma-2-2b-it")
CARDS = tuple(ModelCard(id=model, where="cloud", token_factor=1.2) for model in MODELS)
KEY = Key("a" * 64, "b" * 64, "cot")


@pytest.fixture(scope="module")
def prints() -> Mapping[str, tuple[Fingerprint, ...]]:
    """Bundled outcomes on one set, with texts of our own put to its anchors."""
    found = load_fingerprints()[1]
    name = next(
        part.anchors.name
        for part in found[MODELS[0]]
        if any(p.anchors.name == part.anchors.name for p in found[MODELS[1]])
    )
    chosen = {model: next(part for part in found[model] if part.anchors.name == name) for model in MODELS}
    anchors = with_texts(chosen[MODELS[0]].anchors)
    return {model: (replace(part, anchors=anchors),) for model, part in chosen.items()}


def with_texts(anchors: AnchorSet) -> AnchorSet:
    return replace(anchors, texts=tuple(f"What is question {i} of {len(anchors)}?" for i in range(len(anchors))))


def left_out(prints: Mapping[str, tuple[Fingerprint, ...]]) -> LeftOut:
    return LeftOut(load_irt_model(), CARDS, prints)


def test_tasks_are_what_was_measured_the_first_anchors_first(prints: Mapping[str, tuple[Fingerprint, ...]]) -> None:
    tasks = left_out(prints).tasks()
    known = sum(int((np.isfinite(p.correct) & (p.tokens > 0)).sum()) for parts in prints.values() for p in parts)
    assert len(tasks) == len(set(tasks)) == known
    ids = prints[MODELS[0]][0].anchors.ids
    assert [ids.index(task.anchor) for task in tasks] == sorted(ids.index(task.anchor) for task in tasks)
    assert {task.model for task in tasks[:4]} == set(MODELS)
    assert left_out(prints).tasks(7) == tasks[:7]


def test_a_set_of_ones_own_is_asked_where_it_tells_most(prints: Mapping[str, tuple[Fingerprint, ...]]) -> None:
    anchors = replace(prints[MODELS[0]][0].anchors, own=True)
    own = {model: (replace(parts[0], anchors=anchors),) for model, parts in prints.items()}
    population, a = load_irt_model().population, anchors.discrimination
    p = sigmoid(design(anchors) @ population.mean - a * anchors.difficulty)
    told = dict(zip(anchors.ids, (a**2 * p * (1 - p)).tolist(), strict=True))
    asked = [told[task.anchor] for task in left_out(own).tasks()]
    assert asked == sorted(asked, reverse=True)


def test_the_question_that_is_asked_is_never_shown(
    prints: Mapping[str, tuple[Fingerprint, ...]], tmp_path: Path
) -> None:
    this, client, said = left_out(prints), Client(lambda model, i: sample(0.7, 80)), list[EstimatorReply]()
    tasks = this.tasks(9)
    this.ask(tasks, installed(tmp_path), client, said.append)
    assert [one.task for one in said] == list(tasks)
    anchors = prints[MODELS[0]][0].anchors
    for task, (model, job) in zip(tasks, client.jobs, strict=True):
        question = anchors.texts[anchors.ids.index(task.anchor)]
        assert model == task.model
        assert job.pieces[1].text.count(question) == 1 and f"### Target Question\n{question}" in job.pieces[1].text
        assert job.samples == 8


def test_a_worker_that_fails_now_and_then_does_not_end_a_long_run(
    prints: Mapping[str, tuple[Fingerprint, ...]], tmp_path: Path
) -> None:
    calls = iter([True, True, False, False, True, False])

    def moody(model: str, i: int) -> Sample:
        if i == 0 and next(calls):
            raise WorkerError("gone")
        return sample(0.7, 80)

    this, said = left_out(prints), list[EstimatorReply]()
    this.ask(this.tasks(3), installed(tmp_path), Client(moody, Warm(batch_prompts=1)), said.append)
    assert [one.task for one in said] == list(this.tasks(3))


def test_one_that_always_fails_does(prints: Mapping[str, tuple[Fingerprint, ...]], tmp_path: Path) -> None:
    def dead(model: str, i: int) -> Sample:
        raise WorkerError("gone")

    this, client = left_out(prints), Client(dead)
    with pytest.raises(WorkerError, match="gone"):
        this.ask(this.tasks(3), installed(tmp_path), client, lambda said: None)
    assert len(client.batches) == 3


def test_the_prior_does_not_know_the_outcome_that_is_asked(prints: Mapping[str, tuple[Fingerprint, ...]]) -> None:
    task = left_out(prints).tasks(1)[0]
    part = prints[task.model][0]
    row = part.anchors.ids.index(task.anchor)
    turned = part.correct.copy()
    turned[row] = 1 - turned[row]
    longer = np.where(np.arange(len(part.tokens)) == row, part.tokens * 9, part.tokens)
    other = {**prints, task.model: (replace(part, correct=turned, tokens=longer),)}
    said = [EstimatorReply(task, 0.6, 100.0)]
    one, two = left_out(prints).observed(said), left_out(other).observed(said)
    assert one.prior == two.prior and one.prior_tokens == two.prior_tokens
    assert one.correct[0] == 1 - two.correct[0]
    assert one.real_tokens[0] == pytest.approx(1.2 * part.tokens[row])
    # Everything else it does know: without any other outcome it would say something else.
    bare = {
        **prints,
        task.model: (replace(part, correct=np.where(np.arange(len(turned)) == row, part.correct, np.nan)),),
    }
    assert left_out(bare).observed(said).prior != one.prior


def test_the_same_question_elsewhere_is_left_out_too(prints: Mapping[str, tuple[Fingerprint, ...]]) -> None:
    task = left_out(prints).tasks(1)[0]
    part = prints[task.model][0]
    twin = replace(part.anchors, name="twin", ids=tuple(f"twin/{id}" for id in part.anchors.ids))
    row = part.anchors.ids.index(task.anchor)
    flipped = part.correct.copy()
    flipped[row] = 1 - flipped[row]
    said, seen = [EstimatorReply(task, 0.6, 100.0)], []
    for correct in (part.correct, flipped):
        both = {**prints, task.model: (part, replace(part, anchors=twin, correct=correct))}
        seen.append(left_out(both).observed(said).prior[0])
    assert seen[0] == seen[1]


def test_prompts_without_an_answer_are_left_out(prints: Mapping[str, tuple[Fingerprint, ...]]) -> None:
    first, second = left_out(prints).tasks(2)
    seen = left_out(prints).observed([EstimatorReply(first, None, None), EstimatorReply(second, 0.3, 40.0)])
    assert len(seen) == 1 and seen.p.tolist() == [0.3]


def task(n: int) -> LeftOutTask:
    return LeftOutTask("set", f"set/{n}", "model")


def test_the_journal_keeps_every_prompt_and_survives_being_cut_off(tmp_path: Path) -> None:
    journal = CalibrationLog(tmp_path, KEY)
    for n in range(3):
        journal.add(EstimatorReply(task(n), 0.25 * n, 10.0 + n))
    journal.add(EstimatorReply(task(3), None, None))
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"task": {"set": "set", "anch')
    back = CalibrationLog(tmp_path, KEY)
    assert back.replies == journal.replies
    back.add(EstimatorReply(task(4), 0.5, 1.0))
    assert CalibrationLog(tmp_path, KEY).replies == back.replies


def test_another_estimators_journal_is_begun_anew(tmp_path: Path) -> None:
    CalibrationLog(tmp_path, KEY).add(EstimatorReply(task(0), 0.5, 9.0))
    assert CalibrationLog(tmp_path, replace(KEY, template="c" * 64)).replies == []
    assert CalibrationLog(tmp_path, KEY).replies == []


@pytest.mark.parametrize(
    "line",
    ["nonsense", "[]", '{"task": 3}', '{"task": {"set": "a"}, "p": 0.5, "tokens": 3}', "\x00\xff", "[" * 5000]
    + [
        json.dumps({"task": {"set": "a", "anchor": "b", "model": "c"}, "p": p, "tokens": t})
        for p, t in ((2.0, 9), (-0.1, 9), ("x", 9), (0.5, 0), (0.5, -3), (float("nan"), 9), (0.5, float("inf")))
    ],
)
def test_a_line_that_makes_no_sense_is_asked_again(tmp_path: Path, line: str) -> None:
    CalibrationLog(tmp_path, KEY).add(EstimatorReply(task(0), 0.5, 9.0))
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(line.encode("utf-8", "replace") + b"\n")
    assert CalibrationLog(tmp_path, KEY).replies == [EstimatorReply(task(0), 0.5, 9.0)]


def test_scores_are_what_they_are_called() -> None:
    p, correct = np.array([0.8, 0.6, 0.3, 0.1]), np.array([1.0, 0.0, 0.0, 0.0])
    found = score(p, correct)
    assert found.log_loss == pytest.approx(-np.log([0.8, 0.4, 0.7, 0.9]).mean())
    assert found.brier == pytest.approx((0.04 + 0.36 + 0.09 + 0.01) / 4)
    assert found.ece == pytest.approx((0.2 + 0.6 + 0.3 + 0.1) / 4)
    even = np.full(1000, 0.3)
    assert score(even, (np.arange(1000) % 10 < 3).astype(float)).ece == pytest.approx(0, abs=1e-9)


def observed(n: int, groups: int, seed: int = 0) -> Observed:
    """An estimator that knows nothing beside a prior that knows something; outcomes agree within a group."""
    rng = np.random.default_rng(seed)
    names = np.arange(n) % groups
    correct = (rng.random(groups) < 0.5).astype(float)[names]
    p = rng.random(groups)[names]
    ones = np.full(n, 100.0)
    return Observed(p, np.full(n, 0.5), ones, ones, correct, ones, tuple(map(str, names.tolist())))


def test_an_estimator_that_knows_nothing_gets_no_weight() -> None:
    for seed in range(5):
        nothing = observed(400, 400, seed)
        assert not gains(nothing)
        # Nor does one gain by an error of the prior that needs no estimator to be mended.
        assert not gains(replace(nothing, prior=np.full(400, 0.9)))
        assert gains(replace(nothing, p=np.where(np.arange(400) % 4 == 0, nothing.p, 0.2 + 0.6 * nothing.correct)))


def test_a_calibration_is_not_scored_on_what_it_was_fitted_on() -> None:
    """With a dozen groups, noise can be fitted. Cross-validated by group, that must not look like knowledge."""
    gains = []
    for seed in range(30):
        seen = observed(1200, 12, seed)
        fitted = fit_calibration(seen)
        inside = score(sigmoid(fitted.logit(seen.p, seen.prior)), seen.correct).log_loss
        found = before_and_after(seen)
        assert inside < found["prior"].log_loss
        gains.append(found["prior"].log_loss - found["calibrated"].log_loss)
    assert np.mean(gains) < 0
