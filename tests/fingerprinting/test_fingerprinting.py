"""A model answers the anchors: nothing is lost, nothing is paid twice, what got no answer is missing and not wrong."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import Answers, Said, Server, faulty, from_gguf, from_keys, key_of, serving

from scope_edge.errors import AssetError, BudgetError, NoAnswerError, PackError, RemoteError, UsageError
from scope_edge.estimation.anchor_spec import load_core
from scope_edge.estimation.fingerprints import load_fingerprints
from scope_edge.factory import open_catalog
from scope_edge.fingerprinting.answer_log import AnswerLog, LoggedAnswer
from scope_edge.fingerprinting.grading import AnchorSpec, grade, prompt_of
from scope_edge.fingerprinting.progress import FingerprintOptions, FingerprintProgress, Summary
from scope_edge.fingerprinting.run import Fingerprinting
from scope_edge.providers.llama.client import LlamaClient
from scope_edge.providers.llama.memory import Plan
from scope_edge.providers.llama.process import installed
from scope_edge.providers.openai import client as chat
from scope_edge.providers.openai.client import RetryPolicy
from scope_edge.settings.config import load_settings
from scope_edge.storage.packs import read_pack, write_pack

pytest.importorskip("httpx")
KEY = "sk-this-is-secret-0123456789"
PLAN = Plan(context=4096, batch=128, gpu_layers=0, threads=1, needs=0, why="")
ABLE = from_keys(lambda spec: spec.tier < 3)
ALL = FingerprintOptions()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new user's folders, with short pauses between calls."""
    for name in [name for name in os.environ if name.startswith("SCOPE_EDGE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SCOPE_EDGE_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("SCOPE_EDGE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SCOPE_EDGE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("VENDOR_KEY", KEY)
    monkeypatch.setattr(chat, "_FIRST_PAUSE", 0.01)
    return tmp_path


def prepared(server: Server | None, options: FingerprintOptions = ALL, **fields: Any) -> Fingerprinting:
    """A card for the server, and a run of it. Prices: $1 and $10 per million tokens."""
    card: dict[str, Any] = {"where": "cloud", "usd_in": 1.0, "usd_out": 10.0, "key_env": "VENDOR_KEY"}
    if server is not None:
        card["endpoint"] = server.address
    card |= fields
    lines = [f"{name} = {json.dumps(value)}" for name, value in card.items() if value is not None]
    Path(os.environ["SCOPE_EDGE_CONFIG"]).write_text("\n".join(['[models."mine"]', *lines, ""]), "utf-8")
    return Fingerprinting(open_catalog(load_settings()), "mine", options)


def fingerprint(server: Server, options: FingerprintOptions = ALL, **fields: Any) -> Summary:
    return prepared(server, options, **fields).run()


def prompt(anchor: str) -> str:
    core = load_core()
    return prompt_of(core.specs[core.anchors.ids.index(anchor)])


def outcomes() -> tuple[list[float], list[float]]:
    (one,) = load_fingerprints()[1]["mine"]
    return one.correct.tolist(), one.tokens.tolist()


def tiers() -> Counter[int]:
    """How many questions of each tier have an outcome."""
    specs = load_core().specs
    return Counter(spec.tier for spec, correct in zip(specs, outcomes()[0], strict=True) if correct == correct)


def all_right(right: Callable[[AnchorSpec], bool] = lambda spec: spec.tier < 3) -> bool:
    """Whether each outcome is the one that a model earns that answers these questions right; `ABLE` by default."""
    pairs = zip(load_core().specs, outcomes()[0], strict=True)
    return all(correct == float(right(spec)) for spec, correct in pairs if correct == correct)


def test_it_is_asked_graded_and_known_from_then_on() -> None:
    with serving(ABLE) as server:
        summary = fingerprint(server, FingerprintOptions(limit=40))
    assert (summary.asked, summary.answered, summary.ended, summary.missing) == (40, 40, "all", {})
    assert summary.correct == pytest.approx(1 - tiers()[3] / 40)
    assert sum(n for _, n in summary.fields.values()) == 40
    assert max(server.asked.values()) == 1
    correct, tokens = np.array(outcomes())
    assert all_right() and np.isfinite(correct).sum() == 40
    assert np.array_equal(np.isfinite(tokens), np.isfinite(correct)), "what was not asked is not known"
    assert summary.counted == {"server": 40}
    (name,) = {one.anchors.name for one in load_fingerprints()[1]["mine"]}
    assert name == summary.anchor_set == "core-250"


def test_a_better_model_stands_higher_and_more_answers_make_surer() -> None:
    with serving(from_keys(lambda spec: spec.tier == 1)) as server:
        poor = fingerprint(server, FingerprintOptions(limit=30))
    with serving(from_keys(lambda spec: True)) as server:
        good, sure = (
            fingerprint(server, FingerprintOptions(limit=30)),
            fingerprint(server, FingerprintOptions(limit=120)),
        )
    assert good.ability.value > poor.ability.value and good.place.rank < poor.place.rank
    assert good.place.of == poor.place.of > 70
    assert sure.ability.error < good.ability.error < 1.0
    assert max(server.asked.values()) == 1, "what was answered before is not asked again"


def test_the_next_question_follows_from_the_answers() -> None:
    asked = []
    for right in (lambda spec: False, lambda spec: True):
        with serving(from_keys(right)) as server:
            fingerprint(server, FingerprintOptions(limit=25, again=True))
        asked.append(tiers())
    weak, able = asked
    assert weak[1] > able[1] and able[3] > weak[3], "who knows little is asked easy ones, who knows all hard ones"


def test_it_stops_when_ability_is_precise_enough() -> None:
    with serving(ABLE) as server:
        summary = fingerprint(server, FingerprintOptions(precision=0.6))
    assert summary.ended == "precision" and summary.ability.error <= 0.6
    assert 5 < summary.asked == len(server.calls) < 60


@pytest.mark.parametrize("concurrency", [1, 4])
def test_whatever_goes_wrong_on_the_way_nothing_is_lost_or_wrong(concurrency: int) -> None:
    faults = [
        "429",
        None,
        "500",
        "dropped",
        None,
        "cut",
        "text",
        None,
        "lost",
        "no usage",
        "usage",
        "echo",
        None,
        "503",
    ]

    def right(spec: AnchorSpec) -> bool:
        # Where the whole reply is graded, an echo before the answer would make it wrong.
        return spec.tier < 3 and spec.kind != "rules"

    with serving(from_keys(right)) as server, faulty(server, faults, key=KEY) as front:
        summary = fingerprint(front, FingerprintOptions(limit=20, concurrency=concurrency))
    assert (summary.answered, summary.missing) == (20, {})
    assert all_right(right) and sum(tiers().values()) == 20
    # Of the faults only these reached the model, which was paid for answers that never came.
    assert len(server.calls) == 20 + sum(fault in ("cut", "text", "lost") for fault in faults)
    assert summary.counted == {"server": 18, "estimate": 2}
    assert summary.usd is not None and summary.usd_most is not None
    assert summary.usd_most > summary.usd > 0


def test_what_gets_no_answer_is_missing_and_asked_again_next_time() -> None:
    faults = [None, *["500"] * 2, None, *["cut"] * 2, None]
    with serving(ABLE) as server, faulty(server, faults) as front:
        first = fingerprint(front, FingerprintOptions(limit=10, patience=RetryPolicy(attempts=2)))
        assert first.answered == 8
        refused, cut = first.missing
        assert "HTTP 500, 2 times" in first.missing[refused]
        known = dict(zip(load_core().anchors.ids, np.isfinite(outcomes()[0]).tolist(), strict=True))
        assert not known[refused] and not known[cut] and sum(known.values()) == 8
        again = fingerprint(front, FingerprintOptions(limit=10, patience=RetryPolicy(attempts=2)))
    assert (again.asked, again.answered, again.missing) == (2, 10, {})
    asked = server.asked
    # Once for good, too, unless another question has become more informative meanwhile.
    assert asked.pop(prompt(cut)) in (2, 3), "twice in vain"
    assert set(asked.values()) == {1}


def test_three_in_a_row_without_an_answer_end_it_and_keep_what_there_is() -> None:
    options = FingerprintOptions(limit=12, patience=RetryPolicy(attempts=1))
    with serving(ABLE) as server, faulty(server, [None] * 5 + ["500"] * 3) as front:
        with pytest.raises(RemoteError, match="3 questions in a row"):
            fingerprint(front, options)
        (kept,) = load_fingerprints()[1]["mine"]
        assert len(front.calls) == 8 and np.isfinite(kept.correct).sum() == 5
        again = fingerprint(front, options)
    assert (again.asked, again.answered) == (7, 12) and max(server.asked.values()) == 1


def test_nobody_there_ends_it_at_the_first_question() -> None:
    with serving(ABLE) as server:
        pass
    with pytest.raises(NoAnswerError, match="no connection"):
        fingerprint(server, FingerprintOptions(patience=RetryPolicy(attempts=2)))
    assert "mine" not in load_fingerprints()[1]


def test_no_call_is_made_that_is_expected_to_cost_too_much() -> None:
    with serving(ABLE) as server:
        with pytest.raises(BudgetError, match="nothing was asked") as refused:
            fingerprint(server, FingerprintOptions(max_usd=0.01))
        assert refused.value.exit_code == 3 and server.calls == []


def test_the_cap_on_spending_is_never_passed() -> None:
    def long(_: str, limit: int) -> Said:
        return Said("I cannot say.", 100, limit)  # every answer as dear as it may be

    with serving(long) as server:
        summary = fingerprint(server, FingerprintOptions(limit=20, max_usd=0.04, max_tokens=400, concurrency=3))
    spent = sum((100 * 1 + 400 * 10) / 1e6 for _ in server.calls)
    assert summary.ended == "max_usd" and 3 <= len(server.calls) < 20
    assert spent <= 0.04 and summary.usd == pytest.approx(spent)


def test_calls_whose_answer_was_lost_count_towards_the_cap() -> None:
    options = FingerprintOptions(limit=20, max_usd=0.04, max_tokens=400, patience=RetryPolicy(attempts=20))
    with serving(lambda *_: Said("I cannot say.", 100, 400)) as server, faulty(server, ["lost"] * 99) as front:
        with pytest.raises(RemoteError):
            fingerprint(front, options)
        calls = len(server.calls)
        assert calls * 0.0041 <= 0.04
        with pytest.raises((BudgetError, RemoteError)):
            fingerprint(front, options)
        assert len(server.calls) == calls, "a second run knows what the first may have spent"


def test_a_cap_without_a_price_is_refused() -> None:
    with serving(ABLE) as server:
        with pytest.raises(UsageError, match="price of mine is not known"):
            fingerprint(server, FingerprintOptions(max_usd=1.0), usd_in=None, usd_out=None)
        summary = fingerprint(server, FingerprintOptions(limit=3), usd_in=None, usd_out=None)
    assert summary.usd is None and summary.usd_most is None


def test_own_tokens_are_billed_and_common_ones_are_kept() -> None:
    with serving(lambda *_: Said("Answer: 1", 100, 60)) as server:
        summary = fingerprint(server, FingerprintOptions(limit=4), token_factor=1.2)
    assert summary.completion_tokens == 240 and summary.usd == pytest.approx(4 * (100 + 600) / 1e6)
    assert [one for one in outcomes()[1] if one == one] == pytest.approx([50.0] * 4)


def test_fresh_questions_have_a_journal_of_their_own() -> None:
    with serving(lambda *_: Said("Answer: 1", 10, 10)) as server:
        fingerprint(server)
        plain = server.asked
        summary = fingerprint(server, FingerprintOptions(seed=7))
    templates = sum(spec.fresh for spec in load_core().specs)
    assert summary.asked == len(load_core().specs) and templates > 3
    assert set(plain.values()) == {1} and templates / 2 < len(set(server.asked) - set(plain)) <= templates


def test_progress_is_told_after_every_answer() -> None:
    steps: list[FingerprintProgress] = []
    with serving(ABLE) as server:
        prepared(server, FingerprintOptions(limit=6)).run(steps.append)
    assert [step.done for step in steps] == [0, 1, 2, 3, 4, 5, 6] and {step.total for step in steps} == {6}
    assert steps[0].seconds_left is None and steps[-1].seconds_left == 0
    assert steps[-1].usd > steps[1].usd > 0 and steps[-1].ability.error < steps[0].ability.error


def test_a_dry_run_asks_nothing() -> None:
    with serving(ABLE) as server:
        plan = prepared(server, FingerprintOptions(limit=25)).project()
        assert server.calls == [] and plan.left == 25 and plan.usd and plan.usd_most and plan.usd < plan.usd_most
        fingerprint(server, FingerprintOptions(limit=5))
        assert prepared(server, FingerprintOptions(limit=25)).project().left == 20


def test_a_card_that_says_not_how_it_is_called_is_named() -> None:
    with pytest.raises(UsageError, match="add endpoint"):
        prepared(None, key_env=None)


def test_the_key_is_in_no_file(home: Path) -> None:
    with serving(ABLE) as server, faulty(server, ["echo", None, "echo"], key=KEY) as front:
        fingerprint(front, FingerprintOptions(limit=6))
        with faulty(server, ["401"]) as refusing, pytest.raises(RemoteError) as refused:
            fingerprint(refusing, FingerprintOptions(limit=6))
    assert front.calls[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in str(refused.value)
    files = [path for path in home.rglob("*") if path.is_file()]
    assert len(files) >= 3
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_outcomes_on_other_questions_are_not_taken_for_these() -> None:
    with serving(ABLE) as server:
        path = fingerprint(server, FingerprintOptions(limit=3)).fingerprint
    body = read_pack(path, "fingerprints")
    write_pack(path, "fingerprints", {**body, "digests": {"core-250": "0" * 64}})
    with pytest.raises(PackError, match="another release's core-250\\); make it again"):
        load_fingerprints()


def test_what_alpha_means_does_not_move_when_a_model_joins() -> None:
    before = [one.name for one in load_fingerprints()[0] if not one.own]
    with serving(ABLE) as server:
        fingerprint(server, FingerprintOptions(limit=3))
    sets = load_fingerprints()[0]
    assert [one.name for one in sets if not one.own] == before
    (added,) = [one for one in sets if one.own]
    assert added.name == "core-250" and len(added.texts) == 250


# The journal


@pytest.fixture
def journal() -> Iterator[AnswerLog]:
    with AnswerLog("mine", {"way": 1}) as made:
        yield made


def test_a_torn_line_costs_one_answer(journal: AnswerLog) -> None:
    for i in range(3):
        journal.calls(f"a{i}", 0.5)
        journal.add(
            LoggedAnswer(f"a{i}", f"text {i}", prompt_tokens=3.0, completion_tokens=4.0, counted="server", usd=0.25)
        )
    journal.__exit__()
    whole = journal.path.read_bytes()
    for cut in range(len(whole) - 1, len(whole) - 140, -7):
        journal.path.write_bytes(whole[:cut])
        with AnswerLog("mine", {"way": 1}) as again:
            assert list(again.answers) == ["a0", "a1"]
            again.add(LoggedAnswer("a2", "text 2"))
        with AnswerLog("mine", {"way": 1}) as after:
            assert [one.text for one in after.answers.values()] == ["text 0", "text 1", "text 2"]
        journal.path.write_bytes(whole)


def test_what_is_written_is_read_again(journal: AnswerLog) -> None:
    answer = LoggedAnswer("a", 'text\n"\u2028', None, True, 3.0, 4.0, "estimate", 0.5, 0.25)
    journal.add(answer)
    journal.add(LoggedAnswer("b", None, "no answer"))
    journal.calls("c", 0.5)
    journal.calls("d", 0.75)
    journal.fails("d")
    journal.__exit__()
    with AnswerLog("mine", {"way": 1}) as again:
        assert again.answers == {"a": answer} and again.unanswered_usd == 0.5


def test_lines_that_make_no_sense_are_asked_again(journal: AnswerLog) -> None:
    journal.__exit__()
    bad = ['{"anchor": "a", "text": 5}', '{"anchor": "b", "text": "x", "usd": -1}', "[]", "null", "{", '{"call": "q"}']
    with journal.path.open("a") as file:
        file.write("\n".join([*bad, '{"anchor": "z", "text": "fine"}']) + "\n")
    with AnswerLog("mine", {"way": 1}) as again:
        assert list(again.answers) == ["z"]


def test_two_runs_of_one_model_do_not_ask_at_once(journal: AnswerLog) -> None:
    with pytest.raises(UsageError, match="another run"):
        AnswerLog("mine", {"way": 1})
    with AnswerLog("mine", {"way": 2}) as other:
        assert other.path != journal.path


def test_a_folder_that_cannot_be_written_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("SCOPE_EDGE_DATA_DIR", str(home / "file"))
    with pytest.raises(AssetError, match="cannot be opened"):
        AnswerLog("mine", {})


# A GGUF


@pytest.fixture(scope="module")
def asked(scripted_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answers]:
    if not installed():
        pytest.skip("llama-cpp-python is not installed")
    with LlamaClient(scripted_gguf, "served", PLAN, cache_dir=tmp_path_factory.mktemp("served")) as client:
        yield from_gguf(client)


def test_a_gguf_behind_a_server_with_faults(asked: Answers) -> None:
    """Everything real: a GGUF in the worker, a server over it, a faulty one before that, the library in front."""
    with serving(asked) as server, faulty(server, ["429", None, "cut", "500", "dropped", None]) as front:
        summary = fingerprint(front, FingerprintOptions(limit=6, max_tokens=24))
        assert (summary.answered, summary.missing, summary.counted) == (6, {}, {"server": 6})
        calls = len(server.calls)
        assert calls == 7 and fingerprint(front, FingerprintOptions(limit=6, max_tokens=24)).asked == 0
        assert len(server.calls) == calls
    core, (correct, tokens) = load_core(), np.array(outcomes())
    rows = np.flatnonzero(np.isfinite(correct))
    answers = [asked(prompt_of(core.specs[row]), 24) for row in rows]
    assert correct[rows].tolist() == [
        grade(core.specs[row], said.text) for row, said in zip(rows, answers, strict=True)
    ]
    assert tokens[rows].tolist() == [float(said.completion_tokens) for said in answers]


def test_a_gguf_is_asked_in_the_worker_and_its_speed_goes_on_the_card(asked: Answers, scripted_gguf: Path) -> None:
    fields: dict[str, Any] = {
        "where": "device",
        "usd_in": 0.0,
        "usd_out": 0.0,
        "key_env": None,
        "gguf": str(scripted_gguf),
    }
    summary = prepared(None, FingerprintOptions(limit=9, max_tokens=24), **fields).run()
    assert (summary.answered, summary.counted, summary.usd) == (9, {"tokenizer": 9}, 0.0)
    card = load_settings().models["mine"]
    assert summary.card and card["tokens_per_second"] > 0 and card["prompt_tokens_per_second"] > 0
    assert card["load_seconds"] > 0
    known = np.array(outcomes())
    rows = np.flatnonzero(np.isfinite(known[0]))
    specs = load_core().specs
    assert known[1][rows].tolist() == [float(asked(prompt_of(specs[row]), 24).completion_tokens) for row in rows]
    again = prepared(None, FingerprintOptions(limit=9, max_tokens=24), **fields).run()
    assert again.asked == 0
    np.testing.assert_array_equal(outcomes(), known)


def test_a_gguf_that_cannot_be_asked_is_named(home: Path) -> None:
    fields: dict[str, Any] = {"where": "device", "usd_in": 0.0, "usd_out": 0.0, "key_env": None}
    with pytest.raises(UsageError, match="no file"):
        prepared(None, gguf=str(home / "none.gguf"), **fields)
    (home / "bad.gguf").write_bytes(b"not one")
    with pytest.raises((AssetError, UsageError), match="not a GGUF"):
        prepared(None, gguf=str(home / "bad.gguf"), **fields)


def test_keys_are_right_by_their_own_graders() -> None:
    """What the answers of most of these tests rest on."""
    assert all(grade(spec, key_of(spec)) == 1.0 for spec in load_core().specs)
