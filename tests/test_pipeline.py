"""The library as an application uses it: names, what they do, and that nothing but what is asked for is loaded or called."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import Said, Server, faulty, serving
from executor_cases import QUESTION

import scope_edge
from scope_edge import Answer, Decision, InfeasibleError, Router, UnansweredError, UsageError
from scope_edge.factory import open_journal
from scope_edge.settings.config import load_settings

pytest.importorskip("httpx")
TEXT = "There are 25 primes below one hundred."
SMALL, LARGE, MUTE = "llama-3.1-8b-instruct", "llama-3.1-70b-instruct", "gemma-3-4b-it"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(lambda *_: Said(TEXT, 12, 9)) as made:
        yield made


def settings(own_folders: Path, small: Server, large: Server) -> None:
    """Bundled models that are answered for on this machine: a small one on the device, a large one in the cloud, a mute one."""
    lines = [f'[models."{SMALL}"]', f'endpoint = "{small.address}"', 'where = "device"']
    lines += [
        f'[models."{LARGE}"]',
        f'endpoint = "{large.address}"',
        f"[pools]\nmine = {json.dumps([SMALL, LARGE, MUTE])}",
    ]
    (own_folders / "config.toml").write_text("\n".join(['pool = "mine"', *lines, "[profiles.dear]\nalpha = 1.0"]))


@pytest.fixture
def router(own_folders: Path, server: Server) -> Iterator[Router]:
    settings(own_folders, server, server)
    with Router.load() as made:
        yield made


def test_the_public_names_are_exactly_these() -> None:
    assert scope_edge.__all__ == [
        "Answer", "AssetError", "BrokenAnswerError", "BudgetError", "Candidate", "Decision", "InfeasibleError", "ModelCard",
        "RefusedError", "Router", "Run", "ScopeEdgeError", "Stream", "UnansweredError", "UsageError", "__version__",
    ]  # fmt: skip
    for name in scope_edge.__all__:
        assert getattr(scope_edge, name) is not None and name in dir(scope_edge)
    public = {name for name in vars(Router) if not name.startswith("_")}
    below = {"prepare", "decide", "decide_many", "start", "journal_problem"}
    assert public == {"load", "close", "pool", "route", "route_many", "ask", "stream"} | below
    stream = {name for name in vars(scope_edge.Stream) if not name.startswith("_")}
    assert stream == {"decision", "model", "where", "attempts", "answer", "close", "cancel"}
    with pytest.raises(AttributeError, match="nosuch"):
        _ = scope_edge.nosuch


def test_deciding_calls_nobody_and_loads_no_client(own_folders: Path, server: Server) -> None:
    settings(own_folders, server, server)
    script = (
        "import sys\nfrom scope_edge import Router\n"
        f"with Router.load() as router: print(router.route({QUESTION!r}).choice)\n"
        "assert not {'httpx', 'llama_cpp'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in (SMALL, LARGE, MUTE) and server.calls == []


def test_what_a_call_asks_for_wins_over_the_settings(router: Router) -> None:
    assert router.route(QUESTION, alpha=1.0).choice == LARGE
    assert router.route(QUESTION, alpha=0.0).where == "device"
    assert router.route(QUESTION, alpha=1.0, local_only=True).where == "device"
    assert router.route(QUESTION, alpha=1.0, exclude=LARGE).choice != LARGE
    assert router.route(QUESTION, max_tokens=1).feasible is False
    assert router.route(QUESTION, max_tokens=1, fallback="cheapest").over_budget
    system = router.route(QUESTION, system="Be brief. " * 50).candidates[0].prompt_tokens
    history = router.route(QUESTION, history=[("user", "Be brief. " * 50), ("assistant", "Yes.")]).candidates[0]
    plain = router.route(QUESTION).candidates[0].prompt_tokens
    assert plain and system and history.prompt_tokens and system > plain + 50 and history.prompt_tokens > plain + 50


def test_a_profile_and_settings_by_name(own_folders: Path, server: Server) -> None:
    settings(own_folders, server, server)
    with Router.load("dear") as dear, Router.load(pool=SMALL) as small:
        assert dear.route(QUESTION).choice == LARGE
        assert [card.id for card in small.pool] == [SMALL]


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"alpa": 1}, "did you mean alpha"),
        ({"alpha": 2}, "alpha must be"),
        ({"exclude": "nosuch"}, "unknown model"),
        ({"max_usd": -1}, "max_usd must be"),
        ({"history": [("robot", "hi")]}, "history must be"),
        ({"system": 7}, "system must be"),
        ({"local_only": "yes"}, "local_only must be"),
        ({"exclude": 5}, "exclude must be"),
        ({"history": 5}, "history must be"),
        ({"history": [5]}, "history must be"),
        ({"id": 5}, "id must be"),
    ],
)
def test_what_makes_no_sense_is_refused(router: Router, server: Server, wishes: Any, said: str) -> None:
    for ask in (router.route, router.ask, router.stream):
        with pytest.raises(UsageError, match=said):
            ask(QUESTION, **wishes)
    with pytest.raises(UsageError, match="blank"):
        router.ask("  ")
    odd: list[tuple[Any, str]] = [(5, "mapping"), ({"stop": object()}, "as JSON"), ({"max_tokens": 0}, "at least 1")]
    for fields, said in odd:
        with pytest.raises(UsageError, match=said):
            router.ask(QUESTION, fields=fields)
    assert server.calls == []


def test_half_a_character_is_asked_as_the_sign_for_one(router: Router, server: Server) -> None:
    halves: Any = {"system": "\ud83d", "history": [("user", "a\ude00"), ("assistant", "b")]}
    router.ask("Cut \ud83d in two", alpha=1.0, exclude=None, **halves)
    assert [turn["content"] for turn in server.calls[-1].body["messages"]] == [
        "\ufffd",
        "a\ufffd",
        "b",
        "Cut \ufffd in two",
    ]


def test_what_is_shown_of_them_is_short(router: Router) -> None:
    with router.stream(QUESTION, alpha=1.0) as stream:
        assert repr(stream) == f"<Stream of {LARGE}, under way>"
        assert "".join(stream) and repr(stream) == f"<Stream of {LARGE}, complete>"
    assert repr(router) == "<Router of 3 models, alpha 0.5>" and len(repr(stream.answer)) < 2000


def test_many_are_decided_as_one_by_one(router: Router) -> None:
    texts = ["What is 2 + 2?", QUESTION, "Who painted Guernica?"]
    many = list(router.route_many(iter(texts), alpha=0.9))
    assert [one.choice for one in many] == [router.route(text, alpha=0.9).choice for text in texts]


def test_an_answer_has_its_text_its_decision_and_what_it_cost(router: Router, server: Server) -> None:
    answer = router.ask(QUESTION, alpha=1.0, system="Be brief.", history=[("user", "Hi"), ("assistant", "Hello.")])
    assert isinstance(answer, Answer) and isinstance(answer.decision, Decision)
    assert answer.text == TEXT and answer.run.model == LARGE == answer.decision.choice
    assert answer.run.usd and answer.run.usd > 0
    assert [message["role"] for message in server.calls[0].body["messages"]] == ["system", "user", "assistant", "user"]
    body = answer.as_dict()
    json.dumps(body, allow_nan=False)
    assert body["answer"] == TEXT and body["run"]["model"] == LARGE and body["decision"]["choice"] == LARGE
    with open_journal(load_settings()) as journal:
        (entry,) = journal.entries()
        assert entry.id == answer.id


def test_who_cannot_be_called_is_not_chosen_and_said_to_be(router: Router) -> None:
    answer = router.ask(QUESTION, alpha=0.0)
    assert answer.run.model == SMALL, "the mute one is cheap too"
    assert any(MUTE in one and "left out" in one for one in answer.decision.warnings)


def test_of_the_default_pool_only_a_retired_one_is_missed(own_folders: Path, server: Server) -> None:
    cards = [f'[models."{model}"]\nendpoint = "{server.address}"' for model in ("gemma-3-4b-it", "gpt-oss-120b")]
    (own_folders / "config.toml").write_text("\n".join(cards))
    with Router.load() as router:
        assert router.ask(QUESTION).decision.warnings == (), "the others need a user's word on how they are called"
    (own_folders / "config.toml").write_text("\n".join([*cards, 'status = "retired"']))
    with Router.load() as router:
        (warning,) = [one for one in router.ask(QUESTION).decision.warnings if one.startswith("left out")]
    assert warning.endswith(": gpt-oss-120b")


def test_a_model_can_be_pinned(router: Router, server: Server) -> None:
    for model in (SMALL, LARGE):
        assert router.ask(QUESTION, model=model).run.model == model
    with pytest.raises(UsageError, match="models add"):
        router.ask(QUESTION, model=MUTE)
    with pytest.raises(UsageError, match="is not in this pool"):
        router.ask(QUESTION, model="gpt-4o-2024-08-06")
    with pytest.raises(UsageError, match="unknown model"):
        router.ask(QUESTION, model="nosuch")
    with pytest.raises(InfeasibleError, match="local_only"):
        router.ask(QUESTION, model=LARGE, local_only=True)
    assert len(server.calls) == 2


def test_nothing_keeps_to_the_limits_and_nobody_is_asked(router: Router, server: Server) -> None:
    with pytest.raises(InfeasibleError, match=r"keeps to max_tokens 1; max_tokens \d+ is enough") as nothing:
        router.ask(QUESTION, max_tokens=1)
    assert nothing.value.decision.feasible is False and nothing.value.exit_code == 3 and server.calls == []


def test_pieces_come_one_by_one_and_the_answer_at_the_end(router: Router) -> None:
    with router.stream(QUESTION, alpha=1.0) as stream:
        assert stream.decision.choice == LARGE and stream.answer is None and stream.model is None
        pieces = [next(stream)]
        assert stream.model == LARGE and stream.where == "cloud" and stream.answer is None
        pieces += stream
    assert len(pieces) > 3 and "".join(pieces) == TEXT
    assert stream.answer is not None and stream.answer.text == TEXT


def test_a_stream_left_early_is_no_error(router: Router) -> None:
    with router.stream(QUESTION) as stream:
        next(stream)
    assert stream.answer is not None and stream.answer.run.ending == "cancelled"
    router.stream(QUESTION).close()


def test_the_next_best_answers_where_the_chosen_one_does_not(own_folders: Path, server: Server) -> None:
    with faulty(server, ["503"] * 3) as front:
        settings(own_folders, server, front)
        with Router.load() as router:
            answer = router.ask(QUESTION, alpha=1.0)
            assert (answer.decision.choice, answer.run.model) == (LARGE, SMALL)
            with pytest.raises(UnansweredError, match="HTTP 503"):
                router.ask(QUESTION, exclude=SMALL, max_usd=0.5)


def test_threads_may_share_a_router(router: Router) -> None:
    came: list[str] = []
    threads = [threading.Thread(target=lambda: came.append(router.ask(QUESTION).text)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert came == [TEXT] * 8


def test_a_closed_router_begins_anew_when_asked(router: Router) -> None:
    assert router.ask(QUESTION).text == TEXT
    router.close()
    assert router.ask(QUESTION).text == TEXT


def test_private_queries_stay_on_the_device_in_asking_too(own_folders: Path, server: Server) -> None:
    with serving(lambda *_: Said("never", 1, 1)) as cloud:
        settings(own_folders, server, cloud)
        with Router.load(privacy="patterns") as router:
            answer = router.ask("Who is jane@example.org?", alpha=1.0)
            assert answer.run.model == SMALL and "kept on the device" in answer.decision.warnings[0]
        assert cloud.calls == []


def test_offline_asks_the_device_alone(own_folders: Path, server: Server) -> None:
    with serving(lambda *_: Said("never", 1, 1)) as cloud:
        settings(own_folders, server, cloud)
        with Router.load(offline=True) as router:
            assert router.ask(QUESTION, alpha=1.0).run.model == SMALL
            assert router.ask(QUESTION, alpha=1.0, local_only=False).run.model == SMALL
        assert cloud.calls == []
