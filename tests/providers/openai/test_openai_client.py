"""A model behind an endpoint is asked once, patiently, and its key goes nowhere else."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from chat_server import Call, Handler, Said, Server, completion, faulty, running, serving

from scope_edge.errors import NoAnswerError, ProviderError, RemoteError, UsageError
from scope_edge.providers.openai import client as chat
from scope_edge.providers.openai import responses, stream
from scope_edge.providers.openai.client import ChatClient, RetryPolicy
from scope_edge.types import ModelCard

pytest.importorskip("httpx")
KEY = "sk-this-is-secret-0123456789"
PATIENCE = RetryPolicy(timeout=10.0, attempts=3)


@dataclass
class Meter:
    """Counts calls, and those that cost nothing; allows so many."""

    allowed: int = 100
    begun: int = 0
    free: int = 0
    log: list[float] = field(default_factory=list)

    def begin(self) -> bool:
        self.begun += self.begun < self.allowed
        self.log.append(time.monotonic())
        return len(self.log) <= self.allowed

    def unbilled(self) -> None:
        self.free += 1


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "_FIRST_PAUSE", 0.01)
    monkeypatch.setenv("VENDOR_KEY", KEY)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def model() -> Iterator[Server]:
    with serving(lambda prompt, limit: Said(f"You said: {prompt}", 12, 7)) as server:
        yield server


def card(server: Server, **fields: Any) -> ModelCard:
    made = ModelCard("mine", "cloud", endpoint=server.address, served_as="vendor/mine", key_env="VENDOR_KEY")
    return replace(made, **fields)


def ask(
    server: Server, meter: Meter | None = None, patience: RetryPolicy = PATIENCE, **fields: Any
) -> responses.ChatReply:
    with ChatClient(card(server, **fields), patience) as client:
        return client.ask("Hello?", 50, meter or Meter())


def test_one_question_one_call(model: Server) -> None:
    reply = ask(model)
    assert (reply.text, reply.cut) == ("You said: Hello?", False)
    assert (reply.prompt_tokens, reply.completion_tokens) == (12, 7)
    (call,) = model.calls
    assert call.path == "/v1/chat/completions"
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert call.body["model"] == "vendor/mine" and call.body["max_tokens"] == 50 and call.body["stream"] is True


def test_without_a_variable_no_key_is_sent(model: Server) -> None:
    ask(model, key_env=None)
    assert "authorization" not in model.calls[0].headers


@pytest.mark.parametrize(
    ("fault", "free"),
    [("429", 1), ("500", 1), ("503", 1), ("529", 1), ("dropped", 0), ("lost", 0), ("cut", 0), ("text", 0)],
)
def test_what_may_pass_is_tried_again(model: Server, fault: str, free: int) -> None:
    meter = Meter()
    with faulty(model, [fault]) as front:
        assert ask(front, meter).text == "You said: Hello?"
        assert len(front.calls) == 2
    assert (meter.begun, meter.free) == (2, free), "what may have cost money is counted, what cannot is not"


def test_slowness_is_given_up_on_and_tried_again(model: Server) -> None:
    with faulty(model, ["slow"]) as front:
        assert ask(front, patience=RetryPolicy(timeout=3.0, attempts=2)).text == "You said: Hello?"


@pytest.mark.parametrize("fault", ["429", "500", "dropped", "cut", "text"])
def test_what_does_not_pass_is_no_answer(model: Server, fault: str) -> None:
    with faulty(model, [fault] * 9) as front:
        with pytest.raises(NoAnswerError) as missing:
            ask(front)
        assert len(front.calls) == PATIENCE.attempts
    assert str(missing.value).endswith("3 times") and "\n" not in str(missing.value)


@pytest.mark.parametrize(
    ("status", "words"), [(401, "VENDOR_KEY"), (403, "VENDOR_KEY"), (404, "served_as"), (402, "credit")]
)
def test_what_no_question_will_change_is_said_at_once(model: Server, status: int, words: str) -> None:
    with faulty(model, [str(status)] * 9) as front:
        with pytest.raises(RemoteError, match=words) as refused:
            ask(front)
        assert len(front.calls) == 1
    assert not isinstance(refused.value, NoAnswerError)
    assert KEY not in str(refused.value) and f"HTTP {status}" in str(refused.value) and "\n" not in str(refused.value)


def test_a_refused_question_is_not_asked_again_and_others_may_be(model: Server) -> None:
    with faulty(model, [None, "400"]) as front, ChatClient(card(front), PATIENCE) as client:
        client.ask("one", 50, Meter())
        with pytest.raises(NoAnswerError, match="HTTP 400") as refused:
            client.ask("two", 50, Meter())
        assert not refused.value.hopeless and KEY not in str(refused.value)
        assert client.ask("three", 50, Meter()).text == "You said: three"
        assert len(front.calls) == 3


def test_a_first_question_that_is_refused_leaves_no_hope(model: Server) -> None:
    with faulty(model, ["400"]) as front, pytest.raises(NoAnswerError) as refused:
        ask(front)
    assert refused.value.hopeless


def test_a_redirect_to_another_server_is_refused_and_nothing_is_sent_there(model: Server) -> None:
    with (
        serving(lambda *_: Said("mine now", 1, 1)) as thief,
        faulty(model, ["elsewhere"], elsewhere=thief.address) as front,
    ):
        with pytest.raises(RemoteError, match=r"redirects to 127\.0\.0\.1") as refused:
            ask(front)
        assert thief.calls == [] and len(front.calls) == 1
    assert KEY not in str(refused.value)


def test_what_a_server_says_it_serves_is_read_with_distrust(model: Server) -> None:
    model.models = [
        {"id": "small", "context_length": 8192, "meta": {"n_params": 7_600_000_000}},
        {"id": "plain"},
        {"id": "odd", "max_model_len": -1, "context_window": "many", "meta": "none"},
        {"id": "plain"},
        {"id": "two\nlines"},
        {"id": 7},
    ]
    with ChatClient(card(model), PATIENCE) as asking:
        assert asking.served() == (
            responses.Served("small", 8192, 7_600_000_000),
            responses.Served("plain", None, None),
            responses.Served("odd", None, None),
        )
    assert model.listings[0]["authorization"] == f"Bearer {KEY}" and model.calls == []
    model.models = None
    with ChatClient(card(model), PATIENCE) as asking:
        assert asking.served() is None


def test_a_server_that_lists_nothing_of_use_is_one_line(model: Server) -> None:
    model.models = [{"name": "no id"}]
    with ChatClient(card(model), PATIENCE) as asking, pytest.raises(RemoteError, match="is not a list of models"):
        asking.served()
    nowhere = card(model, endpoint="http://127.0.0.1:9/v1")
    with ChatClient(nowhere, PATIENCE) as asking, pytest.raises(RemoteError) as told:
        asking.served()
    assert str(told.value).startswith("http://127.0.0.1:9/v1: no connection") and KEY not in str(told.value)


def test_a_redirect_on_the_same_server_is_followed(model: Server) -> None:
    with faulty(model, ["moved"]) as front:
        assert ask(front).text == "You said: Hello?"
        assert [call.path for call in front.calls] == ["/v1/chat/completions", "/v1/moved/chat/completions"]


@pytest.mark.parametrize("fault", ["usage", "no usage"])
def test_counts_that_cannot_be_are_not_taken(model: Server, fault: str) -> None:
    with faulty(model, [fault]) as front:
        reply = ask(front)
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("You said: Hello?", None, None)


def test_a_server_that_repeats_the_key_is_not_believed_to_be_funny(
    model: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), faulty(model, ["echo"], key=KEY) as front:
        assert ask(front).text == "Bearer [key]\n\nYou said: Hello?"
    assert KEY not in caplog.text


def test_retry_after_is_kept_to(model: Server) -> None:
    meter = Meter()
    with faulty(model, ["429"], retry_after="1.5") as front:
        assert ask(front, meter).text == "You said: Hello?"
    first, second = meter.log
    assert second - first >= 1.4


def test_a_server_that_wants_an_hour_is_left_alone(model: Server) -> None:
    with faulty(model, ["429"] * 9, retry_after="3600") as front:
        with pytest.raises(NoAnswerError, match="3600 seconds"):
            ask(front)
        assert len(front.calls) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("Tue, 01 Jan 2019 00:00:00 GMT", 0.0),
        ("soon", None),
        (None, None),
        ("-3", 0.0),
    ],
)
def test_retry_after_as_servers_write_it(value: str | None, seconds: float | None) -> None:
    assert responses.retry_after(value) == seconds


def test_calls_are_spread_over_the_minute(model: Server) -> None:
    meter = Meter()
    with ChatClient(card(model), RetryPolicy(per_minute=120.0)) as client:
        for _ in range(3):
            client.ask("Hello?", 50, meter)
    assert meter.log[-1] - meter.log[0] >= 0.95


def test_a_limit_on_spending_holds_between_attempts(model: Server) -> None:
    with faulty(model, ["cut"] * 9) as front:
        with pytest.raises(NoAnswerError, match="spending"):
            ask(front, Meter(allowed=1))
        assert len(front.calls) == 1


def test_a_call_on_this_machine_takes_no_detour(model: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ask(model).text == "You said: Hello?"


def test_offline_allows_only_what_stays_here(model: Server) -> None:
    with pytest.raises(UsageError, match="offline is set"):
        ChatClient(card(model), PATIENCE, offline=True)
    with ChatClient(card(model, where="device"), PATIENCE, offline=True) as client:
        assert client.ask("Hello?", 50, Meter()).text == "You said: Hello?"
    with pytest.raises(UsageError, match="offline is set"):
        ChatClient(card(model, endpoint="https://vendor.example/v1"), PATIENCE, offline=True)


@pytest.mark.parametrize("key", ["", "  ", "two words", "line\nbreak", "schlüssel"])
def test_a_key_that_is_none_is_named_by_its_variable_alone(
    model: Server, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("VENDOR_KEY", key)
    with pytest.raises(UsageError, match="VENDOR_KEY") as refused:
        ChatClient(card(model), PATIENCE)
    assert not key.strip() or key not in str(refused.value)
    assert model.calls == []


def test_nobody_there_is_no_answer(model: Server) -> None:
    with pytest.raises(NoAnswerError, match="no connection") as missing:
        ask(model, endpoint="http://127.0.0.1:9/v1")
    assert missing.value.hopeless


def test_options_a_model_refuses_are_left_out() -> None:
    class Strict(Handler):
        """Refuses options as the reasoning models do."""

        def answer(self, call: Call, raw: bytes) -> None:
            if "max_tokens" in call.body:
                self.send(400, b'{"error": {"message": "use max_completion_tokens instead"}}')
            elif "temperature" in call.body:
                self.send(400, b'{"error": {"message": "temperature is not supported"}}')
            else:
                self.send(200, json.dumps(completion("m", Said("fine", 3, 1))).encode())

    meter = Meter()
    with running(Strict) as server, ChatClient(card(server), PATIENCE) as client:
        assert client.ask("Hello?", 50, meter).text == "fine"
        assert client.ask("Again?", 50, meter).text == "fine"
        assert len(server.calls) == 4 and meter.begun == 2
        assert server.calls[-1].body["max_completion_tokens"] == 50


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"choices": [{"message": {"content": ""}}]}', ""),
        (b'{"choices": [{"message": {"content": null, "refusal": "I will not."}}]}', "I will not."),
        (
            b'{"choices": [{"message": {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}}]}',
            "ab",
        ),
    ],
)
def test_answers_in_every_shape(body: bytes, text: str) -> None:
    assert stream.read_whole(body, None).text == text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"message": {}}]}',
        b'{"error": {"code": 500}}',
        b"[" * 99999,
        b'{"choices": [{"message": {"content": 7}}]}',
        b'{"choices": [{"message": "x"}]}',
        b'{"choices": {"a": 1}}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_answer_is_not_taken_for_one(body: bytes) -> None:
    with pytest.raises(ProviderError):
        stream.read_whole(body, None)


@pytest.mark.parametrize("count", [-1, 0, 10**9, 1.5, "7 tokens", True, None, [7]])
def test_a_count_of_tokens_is_a_count(count: object) -> None:
    assert responses.read_usage({"completion_tokens": count}, 1, 3, 10)[1] is None


def test_a_key_may_be_in_the_keyring(model: Server) -> None:
    keyring = pytest.importorskip("keyring")
    from keyring.backend import KeyringBackend

    class InMemory(KeyringBackend):
        """A keyring of this process alone."""

        priority = 1.0

        def get_password(self, service: str, username: str) -> str | None:
            return KEY if (service, username) == ("scope-edge", "OTHER_KEY") else None

        def set_password(self, service: str, username: str, password: str) -> None:
            raise AssertionError("a key is never written")

    before = keyring.get_keyring()
    keyring.set_keyring(InMemory())  # type: ignore[no-untyped-call]
    try:
        ask(model, key_env="OTHER_KEY")
        with pytest.raises(UsageError, match="NO_SUCH_KEY"):
            ask(model, key_env="NO_SUCH_KEY")
    finally:
        keyring.set_keyring(before)
    assert [call.headers["authorization"] for call in model.calls] == [f"Bearer {KEY}"]
