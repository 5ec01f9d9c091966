"""Feedback: what the user says of an answer moves what that model is expected to do, from the next query on, and back again."""

from __future__ import annotations

import math
import stat
import sys
import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from journal_cases import FAR, OTHER, QUERY, decided, recorded

from scope_edge.errors import AssetError, UsageError
from scope_edge.estimation.difficulty import text_features
from scope_edge.estimation.feedback_correction import FeedbackCorrectedEstimator
from scope_edge.estimation.feedback_store import FEEDBACK, FeedbackRecord, file, load_feedback, record
from scope_edge.estimation.fingerprints import load_fingerprints
from scope_edge.estimation.irt import load_irt_model
from scope_edge.estimation.user_calibration import load_personal, save_personal
from scope_edge.factory import load_pipeline, open_catalog, open_journal
from scope_edge.fingerprinting.importing.naming import set_name
from scope_edge.history import Journal
from scope_edge.history.entry import STEPS
from scope_edge.history.feedback import forget_feedback, give, purge, undo
from scope_edge.management.remove import forget, list_sets, own_sets_of, remove_set
from scope_edge.policy.pool import load_pool_state
from scope_edge.settings.config import Settings, load_settings
from scope_edge.storage.packs import read_pack, write_pack
from scope_edge.storage.sqlite import Database
from scope_edge.tuning.calibrate import Personal
from scope_edge.types import ModelCard, Query

MODELS = ("gemma-2-2b-it", "qwen2.5-7b-instruct", "mixtral-8x7b-instruct-v0.1", "llama-3.1-405b-instruct")
NEAR = "How many prime numbers are smaller than two hundred?"


@pytest.fixture(autouse=True)
def journal(own_folders: Path) -> Journal:
    # What is decided before a test begins knows of no feedback.
    for text in (QUERY, OTHER):
        decided(text)
    return open_journal(Settings(journal_embedding=True))


def expected(model: str, text: str = NEAR) -> tuple[float, float]:
    """p(correct) and tokens that a router loaded now expects of a model."""
    settings = Settings(pool="open-2024")
    with load_pipeline(settings) as router:
        decision = router.route(Query(text), settings.preference())
    (one,) = [one for one in decision.candidates if one.model == model]
    assert one.p_correct is not None and one.tokens is not None
    return one.p_correct, one.tokens


def said_of(model: str, correct: float, count: int, text: str = QUERY) -> tuple[FeedbackRecord, ...]:
    encoded = decided(text)[0]
    place = (encoded.vector, encoded.state, encoded.multilingual, text_features(text))
    return tuple(FeedbackRecord(f"{model}{i}", model, float(i), *place, correct, math.nan, 20.0) for i in range(count))


def all_expected(text: str) -> dict[str, float]:
    """p(correct) of `MODELS`, as a router loaded now expects it of them."""
    settings = Settings(pool=",".join(MODELS))
    with load_pipeline(settings) as router:
        decision = router.route(Query(text), settings.preference())
    return {one.model: one.p_correct or math.nan for one in decision.candidates}


@pytest.mark.parametrize("correct", [0.0, 1.0])
def test_it_moves_what_is_expected_near_by_from_the_next_query_on_and_back(journal: Journal, correct: float) -> None:
    model = decided()[1].choice
    assert model is not None
    near, far = expected(model), expected(model, FAR)
    id = recorded(journal, completion_tokens=4000.0)
    given = give(journal, open_catalog(Settings(pool="open-2024")), id, correct)
    assert (given.model, given.tokens, given.total, given.before, given.known) == (model, 4000.0, 1, None, True)
    after = expected(model)
    assert (after[0] > near[0]) if correct else (after[0] < near[0])
    assert abs(after[0] - near[0]) > 0.005 and after[1] > 1.05 * near[1]
    assert expected(model, FAR) == pytest.approx(far, rel=1e-3)
    undo(journal, id)
    assert expected(model) == near and expected(model, FAR) == far
    assert not file().exists()


def test_a_router_that_runs_knows_it_from_the_next_query_on(journal: Journal) -> None:
    id = recorded(journal, model=MODELS[0], where="device")
    settings = Settings(pool=MODELS[0])
    with load_pipeline(settings) as router:

        def now() -> float | None:
            return router.route(Query(QUERY), settings.preference()).candidates[0].p_correct

        before = now()
        give(journal, open_catalog(settings), id, 1.0)
        after = now()
        undo(journal, id)
        assert before is not None and after is not None and after > before + 0.05
        assert now() == before


def test_the_word_always_moves_the_estimate_the_way_it_says() -> None:
    for text in (QUERY, OTHER, FAR):
        record(())
        before = all_expected(text)
        for correct in (1.0, 0.0):
            record([one for model in MODELS for one in said_of(model, correct, 1, text)])
            for model, after in all_expected(text).items():
                assert (after - before[model]) * (correct - 0.5) > 0, (model, text, correct)


def test_the_more_is_said_the_farther_it_moves_and_other_models_stay() -> None:
    model, other = "qwen2.5-7b-instruct", "gemma-2-2b-it"
    moves, others = [expected(model, QUERY)[0]], [expected(other, QUERY)[0]]
    for count in (1, 5, 50):
        record(said_of(model, 0.0, count))
        moves.append(expected(model, QUERY)[0])
        others.append(expected(other, QUERY)[0])
    assert moves == sorted(moves, reverse=True) and moves[-1] < 0.1 < moves[0]
    assert len(set(others)) == 1


def test_the_band_and_the_bound_on_length_move_along() -> None:
    query, settings, model = Query(QUERY), Settings(pool=MODELS[1]), MODELS[1]
    found = []
    for said in ((), [replace(one, tokens=5000.0) for one in said_of(model, 1.0, 10)]):
        record(said)
        with load_pipeline(settings) as router:
            found.append(router.route(query, settings.preference()).candidates[0])
    for name in ("p_low", "p_correct", "p_high", "tokens", "tokens_hi"):
        before, after = (getattr(one, name) for one in found)
        assert after > before, name
    after = found[1]
    assert 0 < after.p_low < after.p_correct < after.p_high < 1 and after.tokens < after.tokens_hi


def test_a_thousand_words_on_one_model_are_taken_in() -> None:
    record(said_of(MODELS[0], 1.0, 1000))
    assert 0.9 < expected(MODELS[0], QUERY)[0] < 1


def test_a_model_without_a_fingerprint_learns_from_feedback_too() -> None:
    record(said_of("brand-new", 1.0, 3))
    prior = load_pool_state([ModelCard(id="brand-new", where="device")]).prior
    one = FeedbackCorrectedEstimator(prior, load_irt_model().map, [ModelCard(id="brand-new", where="device")])
    estimates, _ = one.estimate(decided()[0], 0.9)
    assert estimates.p_correct > prior.estimate(decided()[0], 0.9)[0].p_correct and estimates.evidence == ("none",)


def test_said_again_it_replaces_what_was_said(journal: Journal) -> None:
    id = recorded(journal)
    give(journal, open_catalog(Settings(pool="open-2024")), id, 1.0)
    again = give(journal, open_catalog(Settings(pool="open-2024")), id, 0.0, tokens=77)
    assert (again.before, again.total, again.tokens) == (1.0, 1, 77)
    (one,) = load_feedback().said
    assert (one.id, one.correct) == (id, 0.0)
    feedback = journal.entry(id).feedback
    assert feedback is not None and (feedback.correct, feedback.tokens) == (0.0, 77)


def test_tokens_are_kept_as_fingerprints_count_them_and_only_of_whole_answers(journal: Journal) -> None:
    settings = load_settings()
    card = next(card for card in open_catalog(settings).cards if card.token_factor > 1.1)
    ids = [recorded(journal, model=card.id, ending=ending) for ending in ("complete", "cut")]
    for id in ids:
        give(journal, open_catalog(settings), id, 1.0)
    whole, cut = load_feedback().said
    assert whole.tokens == pytest.approx(120 / card.token_factor) and math.isnan(cut.tokens)
    assert whole.prompt_tokens == pytest.approx(31 / card.token_factor)


def test_without_an_embedding_it_takes_the_text_and_no_other(own_folders: Path) -> None:
    decided()  # kept, before there is any feedback
    journal = open_journal(Settings(journal_embedding=False))
    id = recorded(journal)
    with pytest.raises(UsageError, match=r"has neither text nor embedding .* --text"):
        give(journal, open_catalog(Settings(pool="open-2024")), id, 1.0)
    with pytest.raises(UsageError, match=f"not the text of {id}"):
        give(journal, open_catalog(Settings(pool="open-2024")), id, 1.0, text=OTHER)
    assert load_feedback().said == ()
    give(journal, open_catalog(Settings(pool="open-2024")), id, 1.0, text=f" {QUERY}\n")
    (one,) = load_feedback().said
    assert one.vector @ decided()[0].vector == pytest.approx(1.0, abs=1e-3)
    assert QUERY.encode() not in b"".join(path.read_bytes() for path in file().parent.iterdir())


def test_the_kept_text_does_as_well_as_the_kept_embedding(journal: Journal) -> None:
    decided()  # kept, before there is any feedback
    texts = open_journal(Settings(journal_text=True))
    for one in (journal, texts):
        give(one, open_catalog(Settings(pool="open-2024")), recorded(one), 1.0)
    first, second = load_feedback().said
    assert np.allclose(first.vector, second.vector, atol=1e-3) and np.allclose(first.features, second.features)
    for one in (first, second):
        assert one.multilingual @ decided()[0].multilingual == pytest.approx(1.0, abs=1e-3)


def forget_multilingual(id: str) -> None:
    """Make an entry one that a release with one encoder recorded."""
    with Database(file().parent / "journal.sqlite", STEPS, "").writing() as link:
        link.execute("UPDATE entries SET multilingual = NULL WHERE id = ?", (id,))


def test_an_entry_of_a_release_with_one_encoder_needs_its_text(journal: Journal) -> None:
    settings = Settings(journal_text=True, journal_embedding=True)
    ids = [recorded(journal), recorded(open_journal(settings))]
    for id in ids:
        forget_multilingual(id)
    with pytest.raises(UsageError, match=f"{ids[0]} was recorded by a release with another encoder.* --text"):
        give(journal, open_catalog(settings), ids[0], 1.0)
    give(journal, open_catalog(settings), ids[0], 1.0, text=QUERY)
    give(journal, open_catalog(settings), ids[1], 1.0)
    assert all(one.whole for one in load_feedback().said)


def test_feedback_without_multilingual_vectors_opens_and_corrects_nothing(journal: Journal) -> None:
    model = MODELS[0]
    before = expected(model)
    old = recorded(journal, model=model, where="device")
    give(journal, open_catalog(Settings(pool="open-2024")), old, 0.0)
    after = expected(model)
    body = read_pack(file(), "feedback")
    del body["multilingual"], body["multilingual encoder"]
    write_pack(file(), "feedback", body)
    held = load_feedback()
    assert held.ignored is None and [one.id for one in held.said] == [old] and not held.said[0].whole
    assert held.note is not None and "1 of 1" in held.note and "\n" not in held.note
    assert expected(model) == before != after
    # What is said later counts, and leaves what was said before as it is.
    new = recorded(journal, model=model, where="device")
    given = give(journal, open_catalog(Settings(pool="open-2024")), new, 0.0)
    assert given.total == 2 and [one.whole for one in load_feedback().said] == [False, True]
    assert expected(model) == pytest.approx(after)
    # Said again, it is whole.
    give(journal, open_catalog(Settings(pool="open-2024")), old, 0.0, text=QUERY)
    assert load_feedback().note is None


def test_multilingual_vectors_of_another_encoder_are_unknown(journal: Journal) -> None:
    give(journal, open_catalog(Settings(pool="open-2024")), recorded(journal), 0.0)
    write_pack(file(), "feedback", {**read_pack(file(), "feedback"), "multilingual encoder": "another"})
    (one,) = load_feedback().said
    assert np.isnan(one.multilingual).all() and one.multilingual.shape == (512,)


def test_what_was_not_answered_cannot_be_judged(journal: Journal) -> None:
    encoded, decision = decided()
    failed = recorded(journal, model=None, where=None, ending="failed")
    none = journal.record(encoded.query, replace(decision, choice=None, where=None), None, encoded=encoded)
    for id in (failed, none):
        with pytest.raises(UsageError, match="nothing to judge"):
            give(journal, open_catalog(Settings(pool="open-2024")), id, 1.0)
    with pytest.raises(UsageError, match="has no feedback to undo"):
        undo(journal, failed)
    with pytest.raises(UsageError, match="no entry"):
        undo(journal, "zzzzzz")


def test_it_can_be_taken_back_when_the_entry_is_gone(journal: Journal) -> None:
    id = recorded(journal)
    give(journal, open_catalog(Settings(pool="open-2024")), id, 0.0)
    journal.purge()
    assert undo(journal, id.upper()).total == 0
    assert load_feedback().said == ()


def test_purging_takes_what_was_learned_along_unless_it_is_to_stay(journal: Journal) -> None:
    old, new = recorded(journal, OTHER), recorded(journal)
    for id in (old, new):
        give(journal, open_catalog(Settings(pool="open-2024")), id, 0.0)
    record([replace(one, time=one.time - (86_400 * 40 if one.id == old else 0)) for one in load_feedback().said])
    month = datetime.now(timezone.utc) - timedelta(days=30)
    assert purge(journal, older_than=month).anchors == 1
    assert [one.id for one in load_feedback().said] == [new]
    kept = purge(journal, keep_feedback=True)
    assert (kept.entries, kept.anchors, len(load_feedback().said)) == (2, 0, 1)
    assert purge(journal).anchors == 1
    assert not [path for path in file().parent.iterdir() if path.name.startswith("feedback")]


def test_what_is_replaced_is_overwritten_on_the_disk(journal: Journal, tmp_path: Path) -> None:
    give(journal, open_catalog(Settings(pool="open-2024")), recorded(journal), 0.0)
    other = tmp_path / "other name"
    other.hardlink_to(file())
    size = file().stat().st_size
    forget_feedback(journal)
    assert other.read_bytes() == bytes(size)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_its_file_is_for_its_owner_alone(journal: Journal) -> None:
    give(journal, open_catalog(Settings(pool="open-2024")), recorded(journal), 0.0)
    assert stat.S_IMODE(file().stat().st_mode) == 0o600


def test_those_who_judge_at_once_lose_nothing(journal: Journal) -> None:
    ids = [recorded(journal) for _ in range(24)]

    def judge(some: list[str]) -> None:
        mine = open_journal(Settings(pool="open-2024"))
        for id in some:
            give(mine, open_catalog(Settings(pool="open-2024")), id, 1.0)

    threads = [threading.Thread(target=judge, args=(ids[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.id for one in load_feedback().said} == set(ids)


def test_routing_goes_on_without_what_cannot_be_used(journal: Journal) -> None:
    before = expected("gemma-2-2b-it")
    give(journal, open_catalog(Settings(pool="open-2024")), recorded(journal), 0.0)
    body, blob = read_pack(file(), "feedback"), file().read_bytes()
    for break_it, why in (
        (lambda: file().write_bytes(blob[:-9]), "body"),
        (lambda: write_pack(file(), "feedback", {**body, "encoder": "another"}), "another encoder"),
        (lambda: write_pack(file(), "feedback", {**body, "ids": []}), "not a usable feedback file"),
    ):
        break_it()
        ignored = load_feedback().ignored
        assert ignored is not None and why in ignored and "scope-edge anchors remove feedback" in ignored
        assert expected("gemma-2-2b-it") == before
        with pytest.raises(AssetError):
            give(journal, open_catalog(Settings(pool="open-2024")), recorded(journal), 1.0)
        (listed,) = [one for one in list_sets() if one.name == FEEDBACK]
        assert listed.problem == ignored
    with pytest.raises(UsageError):
        forget("gemma-2-2b-it", FEEDBACK)
    assert file().exists(), "what cannot be used is taken away only when that is asked for"
    remove_set(FEEDBACK)
    assert not file().exists()


def test_it_is_listed_and_removed_like_an_anchor_set(journal: Journal) -> None:
    for model in MODELS[:2]:
        give(journal, open_catalog(Settings(pool="open-2024")), recorded(journal, model=model, where="device"), 0.0)
    (listed,) = [one for one in list_sets() if one.name == FEEDBACK]
    assert (listed.anchors, listed.own, listed.with_text, listed.measured) == (2, True, False, MODELS[:2])
    assert own_sets_of(MODELS[0]) == (FEEDBACK,)
    assert forget(MODELS[0]).fingerprints == ((MODELS[0], FEEDBACK),)
    assert [one.model for one in load_feedback().said] == [MODELS[1]]
    assert [entry.feedback is None for entry in journal.entries()] == [False, True]
    assert remove_set(FEEDBACK).fingerprints == ((MODELS[1], FEEDBACK),)
    assert all(entry.feedback is None for entry in journal.entries())
    with pytest.raises(UsageError, match="not 'feedback'"):
        set_name("feedback")


def test_a_calibration_of_the_users_stays_in_force(journal: Journal) -> None:
    save_personal(Personal(0.5, 0.0, 1.0, MODELS), load_fingerprints()[1])
    give(journal, open_catalog(Settings(pool="open-2024")), recorded(journal, model=MODELS[0], where="device"), 0.0)
    assert load_personal(load_fingerprints()[1]).found is not None


def test_the_papers_policy_sees_the_anchor_among_the_nearest(journal: Journal) -> None:
    id = recorded(journal, model=MODELS[0], where="device")
    give(journal, open_catalog(Settings(pool="open-2024")), id, 0.0)
    settings = Settings(pool="open-2024")
    cards = open_catalog(settings).pool("open-2024")
    standing = load_pool_state(cards)
    one = FeedbackCorrectedEstimator(standing.prior, standing.irt.map, cards)
    plain = {found.model: found for found in standing.prior.slices(decided()[0])}
    slices = {found.model: found for found in one.slices(decided()[0])}
    assert list(slices) == list(plain)
    mine = slices.pop(MODELS[0])
    assert mine.neighbors[0].anchor == f"feedback/{id}" and mine.outcomes[0].correct == 0.0
    assert mine.neighbors[1:] == plain.pop(MODELS[0]).neighbors[:-1]
    assert slices == plain
