"""Servers as they are: endings that are none, answers in another shape than asked for, options that they do not know."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from chat_server import Call, Handler, Said, Server, completion, running

from scope_edge.catalog.endpoint import parse_endpoint
from scope_edge.errors import ProviderError
from scope_edge.providers.openai.client import ChatClient, RetryPolicy
from scope_edge.providers.openai.keys import key_header
from scope_edge.providers.openai.stream import AnswerStream
from scope_edge.types import ModelCard

pytest.importorskip("httpx_sse")
MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "Hello?"}]
CALLS = [{"id": "call_1", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}]


def event(delta: Mapping[str, Any], finish: str | None = None, index: int = 0) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


@contextmanager
def saying(body: bytes, kind: str = "text/event-stream", status: int = 200) -> Iterator[Server]:
    class Saying(Handler):
        def answer(self, call: Call, raw: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with running(Saying) as state:
        yield state


def client(server: Server) -> ChatClient:
    return ChatClient(ModelCard("mine", "cloud", endpoint=server.address), RetryPolicy(20.0, attempts=1))


def streamed(body: bytes, kind: str = "text/event-stream") -> tuple[str, dict[str, Any], AnswerStream]:
    """The text, all other fields, and the stream at its end."""
    extra: dict[str, Any] = {}
    with saying(body, kind) as server, client(server) as made:
        stream = made.stream(MESSAGES, {}, None)
        text = ""
        for piece in stream:
            text += piece.text
            extra |= piece.extra
    return text, extra, stream


@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_finish_reason_ends_nothing(empty: str | None) -> None:
    pieces = [event({"content": f"w{n} "}, empty) for n in range(3)]
    text, _, stream = streamed(b"".join([*pieces, event({}, "length"), DONE]))
    assert text == "w0 w1 w2 " and stream.finish == "length"


def test_a_stream_that_only_ever_says_empty_ends_with_done() -> None:
    text, _, stream = streamed(b"".join([event({"content": "all"}, ""), DONE]))
    assert text == "all" and stream.finish is None


def test_the_only_choice_counts_whatever_its_number() -> None:
    assert streamed(event({"content": "yes"}, index=1) + event({}, "stop", index=1) + DONE)[0] == "yes"


def test_of_several_choices_the_first_counts() -> None:
    both = {"choices": [{"index": 1, "delta": {"content": "b"}}, {"index": 0, "delta": {"content": "a"}}]}
    assert streamed(b"data: " + json.dumps(both).encode() + b"\n\n" + event({}, "stop") + DONE)[0] == "a"


@pytest.mark.parametrize("kind", ["text/plain; charset=utf-8", "application/json", "application/octet-stream", ""])
def test_events_are_events_under_any_content_type(kind: str) -> None:
    assert streamed(b": waiting\n\n" + event({"content": "42"}) + event({}, "stop") + DONE, kind)[0] == "42"


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json", "text/plain"])
def test_a_whole_answer_in_place_of_a_stream_is_read_whole(kind: str) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": CALLS, "reasoning_content": "so"}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    text, extra, stream = streamed(b"\xef\xbb\xbf\n" + json.dumps(body).encode(), kind)
    assert (text, stream.finish) == ("", "tool_calls")
    assert extra["tool_calls"] == [{"index": 0, **CALLS[0]}] and extra["reasoning_content"] == "so"


def test_content_may_be_missing_beside_calls_of_tools() -> None:
    body = {"choices": [{"index": 0, "message": {"tool_calls": CALLS}, "finish_reason": "tool_calls"}]}
    assert streamed(json.dumps(body).encode())[1]["tool_calls"][0]["id"] == "call_1"


@pytest.mark.parametrize(
    ("said", "again"),
    [
        ({"error": {"message": "upstream is rate-limited", "code": 429}}, True),
        ({"error": {"message": "no such thing", "code": 404}}, False),
        ({"error": "overloaded"}, True),
    ],
)
@pytest.mark.parametrize("as_event", [False, True])
def test_an_error_sent_as_success_keeps_its_reason(said: dict[str, Any], again: bool, as_event: bool) -> None:
    raw = json.dumps(said).encode()
    with pytest.raises(ProviderError) as error:
        streamed(b"data: " + raw + b"\n\n" if as_event else raw)
    words = said["error"] if isinstance(said["error"], str) else said["error"]["message"]
    assert words in str(error.value) and error.value.retryable is again


def _sent(*bodies: object) -> bytes:
    return b"".join(b"data: " + json.dumps(body).encode() + b"\n\n" for body in bodies)


def _choice(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, **fields}]}


END = _choice(delta={}, finish_reason="stop")


@pytest.mark.parametrize(
    "body",
    [
        _sent({"choices": [], "prompt_filter_results": [{}]}, _choice(delta={"content": "a"}), {"choices": None}, END),
        (b": waiting\n\n" + _sent(_choice(delta={"content": "a"}), END)).replace(b"\n", b"\r\n"),
        _sent(_choice(delta={"content": "a"}), END).rstrip(),
        _sent(_choice(delta=None), _choice(delta={"content": "a"}), _choice(delta=None, finish_reason="stop")),
        _sent(_choice(delta={"content": ["a"]}), END),
        _sent(_choice(delta={"content": {"type": "text", "text": "a"}}), END),
        _sent(_choice(delta={"content": [{"text": "a"}, {"type": "thinking", "thinking": []}]}), END),
        _sent({"object": "chat.completion", **_choice(message={"content": "a"}, finish_reason="stop")}),
        _sent(_choice(delta={"content": "a"}), _choice(delta={}, message={"content": "a"}, finish_reason="stop")),
        _sent(_choice(text="a", finish_reason="stop")),
        json.dumps(_choice(text="a", finish_reason=None)).encode(),
        _sent({"choices": [{"index": "0", "delta": {"content": "a"}}, {"index": "1", "delta": {"content": "b"}}]}, END),
        _sent(_choice(delta={"content": "a"}), _choice(delta={}, finish_reason="STOP")),
        _sent(_choice(delta={"content": "a"}), _choice(delta={}, finish_reason="end_turn")),
    ],
)
def test_text_is_found_wherever_servers_put_it(body: bytes) -> None:
    text, extra, stream = streamed(body)
    assert (text, extra, stream.finish) == ("a", {}, "stop")


@pytest.mark.parametrize("reason", ["max_tokens", "MAX_TOKENS", "model_length"])
def test_an_answer_that_was_cut_is_cut_in_every_word_for_it(reason: str) -> None:
    assert streamed(_sent(_choice(delta={"content": "a"}, finish_reason=reason)))[2].finish == "length"


@pytest.mark.parametrize(
    "last",
    [
        {**END, "usage": {"prompt_tokens": "12", "completion_tokens": "5"}},
        {**END, "usage": {"prompt_tokens": 12.0, "completion_tokens": 5.0}},
        _choice(delta={}, finish_reason="stop", usage={"prompt_tokens": 12, "completion_tokens": 5}),
    ],
)
def test_usage_is_read_in_every_form(last: dict[str, Any]) -> None:
    stream = streamed(_sent(_choice(delta={"content": "a"}), last))[2]
    assert (stream.prompt_tokens, stream.completion_tokens) == (12, 5)


def test_calls_without_numbers_or_with_an_object_for_arguments_are_told_apart() -> None:
    def called(**call: Any) -> dict[str, Any]:
        return _choice(delta={"tool_calls": [call]})

    first, second = {"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": "{"}
    body = _sent(called(id="1", function=first), called(id="2", function=second), called(function={"arguments": "}"}))
    with saying(body + _sent(_choice(delta={}, finish_reason="tool_calls"))) as server, client(server) as made:
        calls = [piece.extra["tool_calls"][0] for piece in made.stream(MESSAGES, {}, None) if piece.extra]
    assert [one["index"] for one in calls] == [0, 1, 1]
    assert [one["function"]["arguments"] for one in calls] == ['{"a": 1}', "{", "}"]


@pytest.mark.parametrize(
    "said",
    [
        {"detail": "why"},
        {"object": "error", "message": "why", "code": 429},
        {"code": 429, "msg": "why"},
        {"errors": [{"message": "why", "code": 10000}]},
        {"base_resp": {"status_code": 1004, "status_msg": "why"}},
        _choice(delta={"content": ""}, message={"content": ""}, finish_reason="error", error={"message": "why"}),
    ],
)
@pytest.mark.parametrize("as_event", [False, True])
def test_an_error_in_any_form_keeps_its_reason(said: dict[str, Any], as_event: bool) -> None:
    with pytest.raises(ProviderError, match="why"):
        streamed(_sent(said) if as_event else json.dumps(said).encode())


@pytest.mark.parametrize("body", [DONE, _sent(_choice(delta={"role": "assistant"})) + DONE])
def test_a_stream_without_an_answer_is_none(body: bytes) -> None:
    with pytest.raises(ProviderError, match="not an answer"):
        streamed(body)


def test_an_answer_that_ended_in_an_error_is_not_whole() -> None:
    with pytest.raises(ProviderError, match="broke off"):
        streamed(_sent(_choice(delta={"content": "a"}), _choice(delta={}, finish_reason="error")) + DONE)


@contextmanager
def strict(refuses: Callable[[dict[str, Any]], str | None], status: int = 400) -> Iterator[Server]:
    """A server that refuses what `refuses` says something about."""

    class Strict(Handler):
        def answer(self, call: Call, raw: bytes) -> None:
            why = refuses(call.body)
            if why is None:
                self.send_answer(call, completion("m", Said("fine", 3, 1)))
            else:
                self.send(status, json.dumps({"error": {"message": why}}).encode())

    with running(Strict) as state:
        yield state


def told(server: Server, made: ChatClient, fields: dict[str, Any] | None = None, *before: dict[str, Any]) -> str:
    pieces = made.stream([*before, *MESSAGES], fields or {}, 50)
    return "".join(piece.text for piece in pieces)


def _unless(name: str, words: str) -> Callable[[dict[str, Any]], str | None]:
    return lambda body: words if name in body else None


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("stream_options", "Extra inputs are not permitted: body.stream_options"),
        (
            "temperature",
            "Unsupported value: 'temperature' does not support 0.3. Only the default (1) value is supported.",
        ),
        ("logit_bias", "unknown field `logit_bias`"),
        ("max_tokens", "Unsupported parameter: use 'max_completion_tokens' instead of 'max_tokens'"),
        ("user", "unexpected keyword argument: user"),
        ("temperature", "`temperature` may only be set to 1 when thinking is enabled."),
        ("temperature", "invalid temperature: only 1 is allowed for this model"),
        ("temperature", "`temperature` and `logit_bias` cannot both be specified for this model."),
        ("max_tokens", "Unsupported parameter: 'max_tokens' is not supported with this model."),
        ("logit_bias", "Argument not supported on this model: logitBias"),
        (
            "logit_bias",
            "unknown field `logit_bias`, expected one of `temperature`, `user`, `max_completion_tokens`, `stream_options`",
        ),
        (
            "user",
            json.dumps(
                [{"loc": ["body", "user"], "msg": "Extra inputs are not permitted", "input": {"temperature": 1}}]
            ),
        ),
        (
            "user",
            str([{"type": "x", "loc": ("body", "user"), "msg": "Extra inputs are not permitted", "input": "stream"}]),
        ),
    ],
)
def test_an_unknown_option_is_left_out_and_remembered(name: str, words: str, status: int) -> None:
    fields = {"temperature": 0.3, "logit_bias": {"1": 1}, "user": "me", "stop": ["END"]}
    with strict(_unless(name, words), status) as server, client(server) as made:
        assert told(server, made, fields) == told(server, made, fields) == "fine"
        refused, first, second = server.calls
    assert name in refused.body and name not in first.body and first.body == second.body
    added = {"max_completion_tokens"} if name == "max_tokens" else set()
    assert set(first.body) == set(refused.body) - {name} | added, "nothing else is left out"


def test_several_options_are_left_out_one_by_one() -> None:
    known = {"model", "messages", "stream", "max_tokens", "stop"}

    def first_unknown(body: dict[str, Any]) -> str | None:
        return next((f"unrecognized field {name}" for name in sorted(body) if name not in known), None)

    with strict(first_unknown) as server, client(server) as made:
        assert told(server, made, {"temperature": 0.3, "seed": 1, "top_p": 0.5}) == "fine"
        assert told(server, made, {"temperature": 0.3}) == "fine"
        assert len(server.calls) == 6


def test_what_a_request_means_is_never_left_out() -> None:
    words = "tools are not supported"
    with strict(_unless("tools", words)) as server, client(server) as made, pytest.raises(ProviderError, match=words):
        told(server, made, {"tools": [{"type": "function", "function": {"name": "f"}}]})


def test_a_model_that_may_not_be_streamed_is_asked_for_a_whole_answer() -> None:
    def refuses(body: dict[str, Any]) -> str | None:
        return "Your organization must be verified to stream this model." if body.get("stream") else None

    with strict(refuses) as server, client(server) as made:
        assert told(server, made) == told(server, made) == "fine"
        assert len(server.calls) == 3 and server.calls[-1].body["stream"] is False


def _said(message: str, code: object = None) -> dict[str, Any]:
    return {"error": {"message": message, "code": code}}


def refused(status: int, body: dict[str, Any], reason: str) -> ProviderError:
    with (
        saying(json.dumps(body).encode(), status=status) as server,
        client(server) as made,
        pytest.raises(ProviderError, match=reason) as error,
    ):
        told(server, made)
    return error.value


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": "This model's maximum prompt length is 131072 but the request contains 200000 tokens."}),
        (422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000"}),
        (400, _said("You have reached your specified API usage limits.")),
        (400, _said("Input data may contain inappropriate content.", "data_inspection_failed")),
        (400, _said("Content Exists Risk")),
        (400, _said("Your prompt was flagged as potentially violating our usage policy.", "invalid_prompt")),
        (400, _said("Model is overloaded")),
        (400, _said("max_tokens must be at most 10")),
        (400, _said("images are not accepted by this endpoint")),
        (400, _said("reasoning is mandatory for this endpoint and cannot be disabled")),
        (400, {}),
        (403, _said("Your chosen model requires moderation and your input was flagged for violence", 403)),
        (404, _said("No endpoints found that support tool use.", 404)),
    ],
)
def test_a_refusal_of_one_question_by_one_model(status: int, body: dict[str, Any]) -> None:
    error = refused(status, body, f"refuses the question .HTTP {status}")
    assert not (error.content or error.every_question or error.retryable)


@pytest.mark.parametrize(
    ("status", "words", "reason"),
    [
        (400, "Access denied, your account is not in good standing: Arrearage", "no credit"),
        (429, "Insufficient balance or no resource package. Please recharge.", "no credit"),
        (403, "Insufficient credits", "no credit"),
        (400, "Access token expired", "set key_env"),
        (401, "anything", "set key_env"),
        (404, "anything", "no model"),
    ],
)
def test_a_refusal_of_every_question(status: int, words: str, reason: str) -> None:
    error = refused(status, _said(words), reason)
    assert error.every_question


@pytest.mark.parametrize(
    "words",
    [
        "request (9000 tokens) exceeds the available context size (4096 tokens)",
        "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576).",
        "This model's maximum prompt length is 131072 but the request contains 200000 tokens.",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "Input is too long for requested model.",
        "Please reduce the length of the messages or completion.",
    ],
)
def test_a_prompt_that_is_too_long_is_told_in_openais_code(words: str) -> None:
    assert refused(400, _said(words), "refuses").code == "context_length_exceeded"
    assert refused(400, _said("temperature must be between 0 and 1"), "refuses").code is None


@pytest.mark.parametrize("words", ["At least one message must be provided", "credit card numbers must not be sent"])
def test_a_refusal_that_two_servers_would_have_to_share(words: str) -> None:
    error = refused(400, _said(words), words)
    assert error.content and not error.every_question


def test_a_rate_limit_that_speaks_of_billing_passes() -> None:
    words = "You exceeded your current quota, please check your plan and billing details"
    error = refused(429, _said(words), "HTTP 429")
    assert error.retryable


SYSTEM, DEVELOPER = {"role": "system", "content": "Be brief."}, {"role": "developer", "content": "Be kind."}


@pytest.mark.parametrize(
    ("refuses", "roles"),
    [
        (lambda roles: "developer" in roles, ["system", "system", "user"]),
        (lambda roles: roles.count("system") + roles.count("developer") > 1, ["system", "user"]),
        (lambda roles: "system" in roles or "developer" in roles, ["user"]),
    ],
)
def test_a_conversation_is_written_as_the_template_takes_it(
    refuses: Callable[[list[str]], bool], roles: list[str]
) -> None:
    def why(body: dict[str, Any]) -> str | None:
        return "messages[0].role: unknown variant" if refuses([one["role"] for one in body["messages"]]) else None

    with strict(why) as server, client(server) as made:
        assert told(server, made, {}, SYSTEM, DEVELOPER) == "fine"
        sent = server.calls[-1].body["messages"]
        assert [one["role"] for one in sent] == roles
        assert all(text in json.dumps(sent) for text in ("Be brief.", "Be kind.", "Hello?"))
        before = len(server.calls)
        assert told(server, made, {}, SYSTEM, DEVELOPER) == "fine" and len(server.calls) == before + 1


@pytest.mark.parametrize("content", ["Be terse.", [{"type": "text", "text": "Be terse."}]])
def test_text_in_parts_is_joined_as_text_is(content: object) -> None:
    def why(body: dict[str, Any]) -> str | None:
        roles = [one["role"] for one in body["messages"]]
        return "conversation roles must alternate" if any(a == b for a, b in pairwise(roles)) else None

    with strict(why) as server, client(server) as made:
        assert told(server, made, {}, SYSTEM, {"role": "user", "content": content}) == "fine"
        sent = server.calls[-1].body["messages"]
    assert [one["content"] for one in sent] == ["Be brief.", "Be terse.\n\nHello?"]


@pytest.mark.parametrize(
    "body",
    [
        b'[{"id": "ok", "context_length": 8192}]',
        b'{"data": [{"id": "ok"}]}',
        b'["ok"]',
        b'{"data": [null, {"name": "no"}, {"id": "ok"}]}',
    ],
)
def test_a_list_of_models_may_be_bare(body: bytes) -> None:
    class Listing(Handler):
        def do_GET(self) -> None:
            self.send(200, body)

    with running(Listing) as server, client(server) as made:
        assert [one.name for one in made.served() or ()] == ["ok"]


def test_a_list_of_models_may_be_null() -> None:
    class Listing(Handler):
        def do_GET(self) -> None:
            self.send(200, b'{"object": "list", "data": null}')

    with running(Listing) as server, client(server) as made:
        assert made.served() == ()


@pytest.mark.parametrize(
    ("host", "key", "header"),
    [
        ("mine.openai.azure.com", "0123456789abcdef", {"api-key": "0123456789abcdef"}),
        ("mine.services.ai.azure.com", "0123456789abcdef", {"api-key": "0123456789abcdef"}),
        ("mine.openai.azure.com", "eyJ0.e30.sig", {"authorization": "Bearer eyJ0.e30.sig"}),
        ("openai.azure.com.example.org", "0123456789abcdef", {"authorization": "Bearer 0123456789abcdef"}),
        ("api.example.org", "0123456789abcdef", {"authorization": "Bearer 0123456789abcdef"}),
    ],
)
def test_a_key_is_sent_where_its_server_reads_it(host: str, key: str, header: dict[str, str]) -> None:
    assert key_header(key, parse_endpoint(f"https://{host}/openai/v1?api-version=preview")) == header


def test_a_version_follows_every_path() -> None:
    class Azure(Handler):
        def answer(self, call: Call, raw: bytes) -> None:
            self.send_answer(call, completion("m", Said("fine", 3, 1)))

    with running(Azure) as server:
        card = ModelCard("mine", "cloud", endpoint=f"{server.address}?api-version=2024-10-21")
        with ChatClient(card, RetryPolicy(20.0, attempts=1)) as made:
            assert told(server, made) == "fine"
    assert server.calls[0].path == "/v1/chat/completions?api-version=2024-10-21"
