"""The server as programs call it: answers, errors, and who is let in, over plain HTTP on a process of its own."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from chat_server import Said, Server, faulty, serving
from cli_cases import QUERY, command, spawn, user
from serve_cases import KEY, LARGE, OTHER, SMALL, Served, served, settings
from silent_server import deaf, silent

pytest.importorskip("httpx")
if any(find_spec(name) is None for name in ("uvicorn", "starlette", "prometheus_client")):
    pytest.skip("the extra `server` is not installed", allow_module_level=True)

TEXT = "There are 25 primes below one hundred."
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]


@dataclass
class World:
    """The server, and the models behind it."""

    server: Served
    small: Server
    large: Server


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("home")
    with (
        serving(lambda *_: Said(TEXT, 12, 9)) as small,
        serving(lambda *_: Said(TEXT, 12, 9)) as large,
        served(folder, settings=settings(small, large)) as server,
    ):
        yield World(server, small, large)


def test_an_answer_whole_and_streamed_is_the_same(world: World) -> None:
    whole, streamed = world.server.ask(), world.server.ask(stream=True, stream_options={"include_usage": True})
    assert whole.status == streamed.status == 200 and whole.text == streamed.text == TEXT
    body = whole.json
    assert body["usage"] == {"prompt_tokens": 12, "completion_tokens": 9, "total_tokens": 21}
    assert body["choices"][0]["finish_reason"] == "stop" and body["model"] in (SMALL, LARGE)
    *chunks, usage, done = streamed.events
    assert done == "[DONE]" and usage["usage"] == body["usage"] and usage["choices"] == []
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [one["choices"][0]["finish_reason"] for one in chunks][-1] == "stop" and len(chunks) > 5
    assert {one["id"] for one in chunks} == {usage["id"]}


def test_the_decision_is_in_headers_and_where_asked_for_in_the_body(world: World) -> None:
    plain = world.server.ask(model="auto:best")
    assert plain.headers["x-scope-edge-model"] == plain.headers["x-scope-edge-choice"] == LARGE
    assert plain.headers["x-scope-edge-where"] == "cloud" and plain.headers["x-scope-edge-alpha"] == "1"
    assert 0 < float(plain.headers["x-scope-edge-p-correct"]) < 1 and "scope_edge" not in plain.json
    entry = spawn(["log", "--json"], world.server.env).json[0]
    assert entry["id"] == plain.headers["x-scope-edge-id"] and entry["model"] == LARGE
    shown = world.server.ask(model="auto:best", scope_edge={"decision": True}).json["scope_edge"]
    assert shown["decision"]["choice"] == LARGE and shown["run"]["model"] == LARGE and shown["id"]
    body = {"model": "auto:best", "stream": True, "messages": [{"role": "user", "content": QUERY}]}
    events = world.server.call("POST", "/v1/chat/completions", body, x_scope_edge_decision="1").events
    assert events[0]["scope_edge"]["decision"]["choice"] == LARGE
    assert events[-2]["scope_edge"]["run"]["ending"] == "complete"


def test_virtual_models_profiles_and_real_ones(world: World) -> None:
    listed = [one["id"] for one in world.server.call("GET", "/v1/models").json["data"]]
    wanted = ["auto", "auto:cheap", "auto:best", "auto:local", "careful", SMALL, LARGE, OTHER]
    assert [one for one in listed if one in wanted] == wanted, (
        "in this order, and bundled ones that nobody can call are not"
    )
    assert "gemma-2-2b-it" not in listed
    for name in listed:
        assert world.server.call("GET", f"/v1/models/{name}").json["id"] == name
    assert world.server.ask(model="auto:local").headers["x-scope-edge-model"] == SMALL
    assert world.server.ask(model="careful").headers["x-scope-edge-alpha"] == "1"
    pinned = world.server.ask(model=OTHER)
    assert pinned.headers["x-scope-edge-model"] == OTHER, "it need not be in the pool"
    for name, said in (("gpt-99", "there is no model"), ("gemma-2-2b-it", "cannot be called")):
        refused = world.server.ask(model=name)
        error = refused.json["error"]
        assert refused.status == 404 and error["code"] == "model_not_found" and said in error["message"]
        assert sorted(error) == ["code", "message", "param", "type"]


def test_what_we_do_not_know_goes_on_to_the_model(world: World) -> None:
    world.server.ask(model=LARGE, temperature=0.3, vendor_option={"a": [1]}, max_tokens=77, user="me")
    sent = world.large.calls[-1].body
    assert (sent["temperature"], sent["vendor_option"], sent["user"]) == (0.3, {"a": [1]}, "me")
    assert 77 in (sent.get("max_tokens"), sent.get("max_completion_tokens")) and "scope_edge" not in sent
    assert world.large.calls[-1].headers["authorization"] == f"Bearer {KEY}", "the model's own key, and not our token"


def test_tools_and_forms_go_to_who_supports_them(world: World) -> None:
    for fields in ({"tools": TOOLS}, {"response_format": {"type": "json_object"}}):
        found = world.server.ask(model="auto:cheap", **fields)
        assert found.headers["x-scope-edge-model"] == LARGE, "the cheap one's card says nothing of them"
    assert world.large.calls[-2].body["tools"] == TOOLS
    picture = [
        {"type": "text", "text": QUERY},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]
    refused = world.server.ask(messages=[{"role": "user", "content": picture}])
    assert refused.status == 400 and 'supports = ["images"]' in refused.json["error"]["message"]
    assert world.server.ask(model=LARGE, messages=[{"role": "user", "content": picture}]).status == 200, (
        "named, it is asked"
    )
    assert world.large.calls[-1].body["messages"][0]["content"] == picture


def test_limits_hold_and_are_only_narrowed(world: World) -> None:
    refused = world.server.ask(scope_edge={"max_tokens": 1})
    assert refused.status == 400 and refused.json["error"]["code"] == "infeasible"
    assert "max_tokens" in refused.json["error"]["message"]
    assert world.server.ask(model=LARGE, scope_edge={"local_only": True}).json["error"]["code"] == "infeasible"
    excluded = world.server.ask(model="auto:best", scope_edge={"exclude": LARGE})
    assert excluded.headers["x-scope-edge-model"] == SMALL
    assert "did you mean" in world.server.ask(scope_edge={"alhpa": 1}).json["error"]["message"]


def test_minus_one_is_no_limit(world: World) -> None:
    asked = world.server.ask(model=LARGE, max_tokens=-1)
    assert asked.status == 200 and "max_tokens" not in world.large.calls[-1].body
    assert world.server.ask(model=LARGE, max_tokens=-2).status == 400


def test_a_requests_fallback_lifts_its_own_limits_only(tmp_path: Path) -> None:
    with serving(lambda *_: Said("Yes.", 12, 1)) as model:
        written = settings(model, model, 'max_tokens = 3\n[profiles.lavish]\nfallback = "cheapest"')
        with served(tmp_path, settings=written) as server:
            refused = server.ask(scope_edge={"fallback": "cheapest"})
            allowed = server.ask(model="lavish")
    assert refused.status == 400 and refused.json["error"]["code"] == "infeasible"
    assert allowed.status == 200 and allowed.headers["x-scope-edge-over-budget"] == "1"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not JSON"),
        (b'{"temperature": 1e400}', "1e400 is out of range"),
        (b'{"logit_bias": {"1": -1e999}}', "-1e999 is out of range"),
        (b'{"max_tokens": 1%s}' % (b"0" * 400), "is out of range"),
        (b'{"scope_edge": {"max_usd": 1e400}}', "1e400 is out of range"),
        (b"[]", "must be a JSON object"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "system", "content": "x"}]}, "no user message"),
        ({"messages": [{"role": "user", "content": 3}]}, "content must be"),
        ({"messages": [{"role": "user", "content": " "}]}, "blank"),
        ({"messages": [{"role": "user", "content": "x"}], "n": 2}, "leave n out"),
        ({"messages": [{"role": "user", "content": "x"}], "logprobs": True}, "logprobs is not supported"),
        ({"messages": [{"role": "user", "content": "x"}], "stream": "yes"}, "stream must be true or false"),
        ({"messages": [{"role": "user", "content": "x"}], "max_tokens": -2}, "at least 1"),
        ({"messages": [{"role": "user", "content": "x"}], "scope_edge": {"alpha": 3}}, "alpha must be"),
        ({"messages": [{"role": "user", "content": "x"}], "modalities": 5}, "modalities must be a list"),
        ({"messages": [{"role": "user", "content": [{"type": {}, "text": "x"}]}]}, "each with a type"),
        ({"messages": [{"role": "user", "content": "x"}], "scope_edge": {"exclude": [SMALL, LARGE]}}, "is excluded"),
        ({"messages": [{"role": "user", "content": "x"}], "scope_edge": {"recorded_as": "a\nb"}}, "recorded_as must"),
        ({"messages": [{"role": "user", "content": "x"}], "scope_edge": {"recorded_profile": 1}}, "must be a text"),
        ({"messages": [{"role": "user", "content": "x"}], "scope_edge": {"recorded_profile": "x"}}, "no profile 'x'"),
        (b'{"messages": NaN}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_what_makes_no_sense_is_400_in_openais_words(world: World, body: Any, said: str) -> None:
    refused = world.server.call("POST", "/v1/chat/completions", body)
    error = refused.json["error"]
    assert refused.status == 400 and said in error["message"] and error["type"] == "invalid_request_error"


def test_completions(world: World) -> None:
    whole = world.server.call("POST", "/v1/completions", {"model": "auto", "prompt": QUERY}).json
    assert whole["object"] == "text_completion" and whole["choices"][0]["text"] == TEXT
    events = world.server.call("POST", "/v1/completions", {"prompt": [QUERY], "stream": True}).events
    assert "".join(one["choices"][0]["text"] for one in events[:-1]) == TEXT and events[-1] == "[DONE]"
    assert world.server.call("POST", "/v1/completions", {"prompt": [1, 2]}).status == 400


def test_embeddings_are_the_encoders(world: World) -> None:
    asked = {"model": "all-minilm-l6-v2", "input": [QUERY, "Why is the sky blue?"]}
    rows = world.server.call("POST", "/v1/embeddings", asked).json["data"]
    from scope_edge.encoding.encoder import Encoder
    from scope_edge.types import Query

    assert rows[0]["embedding"] == [float(x) for x in Encoder.load().encode(Query(QUERY)).vector]
    packed = world.server.call("POST", "/v1/embeddings", asked | {"encoding_format": "base64"}).json["data"]
    raw = base64.b64decode(packed[1]["embedding"])
    assert list(struct.unpack(f"<{len(raw) // 4}f", raw)) == rows[1]["embedding"]
    assert world.server.call("POST", "/v1/embeddings", asked | {"model": "ada"}).status == 404
    assert world.server.call("POST", "/v1/embeddings", asked | {"input": [[1, 2]]}).status == 400


def test_a_decision_alone_is_the_documented_object(world: World) -> None:
    before = len(world.small.calls) + len(world.large.calls)
    found = world.server.call("POST", "/v1/route", {"text": QUERY, "alpha": 1}).json
    printed = spawn(["route", "--json", "--alpha", "1", "--no-server", QUERY], world.server.env).json
    found.pop("timings_ms"), printed.pop("timings_ms")
    assert found == printed
    assert len(world.small.calls) + len(world.large.calls) == before, "nothing was run"
    assert world.server.call("POST", "/v1/route", {"text": QUERY, "alpah": 1}).status == 400
    both = {"text": QUERY, "messages": [{"role": "user", "content": "Another."}]}
    assert "not both" in world.server.call("POST", "/v1/route", both).json["error"]["message"]


def test_half_a_character_is_sent_on_as_the_sign_for_one(world: World) -> None:
    asked = b'{"model": "%s", "messages": [{"role": "user", "content": "Cut \\ud83d in two"}]}' % LARGE.encode()
    assert world.server.call("POST", "/v1/chat/completions", asked).text == TEXT
    assert world.large.calls[-1].body["messages"] == [{"role": "user", "content": "Cut \ufffd in two"}]


def test_a_conversation_stays_with_its_model(world: World) -> None:
    hard = "Prove that there are infinitely many primes of the form 4k+3, and bound their counting function from below."
    begun: list[dict[str, Any]] = [{"role": "user", "content": hard}]
    asked = {"scope_edge": {"alpha": 0.5}}
    first = world.server.ask(messages=begun, **asked)
    model = first.headers["x-scope-edge-model"]
    other = SMALL if model == LARGE else LARGE
    alpha = 0.0 if model == LARGE else 1.0
    goes_on = [*begun, {"role": "assistant", "content": first.text}, {"role": "user", "content": "Now commit it."}]
    fresh = world.server.ask("Now commit it.", scope_edge={"alpha": alpha})
    assert fresh.headers["x-scope-edge-model"] == other, "alone it would go to the other one"
    stays = world.server.ask(messages=goes_on, scope_edge={"alpha": alpha, "decision": True})
    gain = gain_of(stays.json["scope_edge"]["decision"], model, other, alpha)
    assert (stays.headers["x-scope-edge-model"] == model) == (gain <= 0.1)
    assert ("x-scope-edge-sticky" in stays.headers) == (gain <= 0.1)
    unknown = [{"role": "user", "content": "Hm."}, *goes_on[1:]]
    assert world.server.ask(messages=unknown, scope_edge={"alpha": alpha}).headers["x-scope-edge-model"] == other


def gain_of(decision: dict[str, Any], stays: str, goes: str, alpha: float) -> float:
    rows = {one["model"]: one for one in decision["candidates"]}
    key = "p_correct" if alpha == 0 else "utility"
    gain: float = rows[goes][key] - rows[stays][key]
    return gain


def test_nobody_without_the_token_is_let_in(world: World) -> None:
    ask = {"messages": [{"role": "user", "content": QUERY}]}
    before = len(world.small.calls) + len(world.large.calls)
    for value in (None, "", "Bearer", "Bearer wrong", f"Basic {world.server.token}", f"Bearer {world.server.token}x"):
        for method, path, body in (
            ("POST", "/v1/chat/completions", ask),
            ("POST", "/v1/route", {"text": QUERY}),
            ("GET", "/v1/models", None),
            ("GET", "/metrics", None),
            ("GET", "/page/recent", None),
        ):
            refused = world.server.call(method, path, body, authorization=value)
            assert refused.status == 401 and refused.json["error"]["code"] == "invalid_api_key", (value, path)
            assert world.server.token not in refused.raw.decode()
    assert len(world.small.calls) + len(world.large.calls) == before
    health = world.server.call("GET", "/health", authorization=None)
    assert health.status == 200 and sorted(health.json) == ["status", "version"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "evil.example:8743"}, 421),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"host": "localhost@evil.example"}, 421),
        ({"host": "8.8.8.8"}, 421),
        ({"host": ""}, 421),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:1"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"host": "localhost"}, 200),
        ({"host": "[::1]:77"}, 200),
    ],
)
def test_pages_of_others_cannot_use_it_even_with_the_token(world: World, headers: dict[str, str], status: int) -> None:
    found = world.server.call("POST", "/v1/route", {"text": QUERY}, **headers)
    assert found.status == status
    assert not [name for name in found.headers if name.startswith("access-control-")]


def test_a_browsers_question_whether_it_may_is_refused(world: World) -> None:
    asked = {"origin": "https://evil.example", "access_control_request_method": "POST"}
    found = world.server.call("OPTIONS", "/v1/chat/completions", **asked)
    assert found.status == 403 and "access-control-allow-origin" not in found.headers


def test_the_page_lets_a_browser_do_nothing_else(world: World) -> None:
    page = world.server.call("GET", "/", authorization=None)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert world.server.token not in page.raw.decode()
    assert not re.findall(rb"(?:src|href)=|url\(|@import|https?://(?!www\.w3\.org)", page.raw), "it loads nothing"


def test_the_printed_link_is_good_once_and_is_not_the_token(world: World) -> None:
    code = world.server.page.partition("#code=")[2]
    assert code and world.server.token not in world.server.page
    first = world.server.call("POST", "/page/token", {"code": code}, authorization=None)
    assert first.json == {"token": world.server.token}
    assert world.server.call("POST", "/page/token", {"code": code}, authorization=None).status == 403


def test_files_are_the_owners_alone(world: World) -> None:
    folder = Path(world.server.env["SCOPE_EDGE_DATA_DIR"]) / "server"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "token": 0o600,
        f"running-{world.server.process.pid}.json": 0o600,
    }


def test_metrics_count_and_say_nothing_of_what_was_asked(world: World) -> None:
    before = world.server.metric("answers_total")
    world.server.ask("a very private question about primes")
    assert world.server.metric("answers_total") == before + 1 and world.server.metric("running") == 0
    text = world.server.call("GET", "/metrics").raw.decode()
    assert "private" not in text and world.server.token not in text
    for line in text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) \w+ .+|scope_edge_\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? [-+.e\d]+', line), (
            line
        )
    world.server.call("GET", "/nosuch/" + "x" * 50)
    assert "nosuch" not in world.server.call("GET", "/metrics").raw.decode()


def test_bodies_and_heads_have_limits(tmp_path: Path) -> None:
    with (
        serving(lambda *_: Said(TEXT, 12, 9)) as model,
        served(tmp_path, "--max-body", "0.01", settings=settings(model, model)) as server,
    ):
        assert server.ask("x " * 20_000).json["error"]["code"] == "too_long"
        with contextlib.suppress(ConnectionError):
            assert server.call("GET", "/health", x_long="x" * 200_000).status in (400, 431)
        long = server.call("GET", "/health", x_long="x" * 66_000)
        assert long.status == 431 and long.json["error"]["code"] == "too_long"
        assert server.ask().status == 200


def test_errors_have_the_right_statuses(tmp_path: Path) -> None:
    with serving(lambda *_: Said(TEXT, 12, 9)) as model:
        faults = ["401", "refused", "503", "503", "cut", "cut", None]
        with faulty(model, faults) as front, served(tmp_path, settings=settings(model, front)) as server:
            lost = server.ask(model=LARGE)
            assert lost.status == 502 and lost.json["error"]["code"] == "unanswered"
            assert "VENDOR_KEY" in lost.json["error"]["message"] and KEY not in lost.raw.decode()
            assert lost.headers["x-should-retry"] == "false"
            refused = server.ask(model=LARGE)
            assert refused.status == 400 and refused.json["error"]["code"] == "refused_by_model"
            assert server.ask(model=LARGE, stream=True).status == 502, "twice 503, before anything was sent"
            broken = server.ask(model=LARGE)
            assert broken.status == 502 and broken.json["error"]["code"] == "broken_answer"
            assert TEXT.startswith(broken.json["error"]["partial"])
            midway = server.ask(model=LARGE, stream=True)
            assert midway.status == 200 and midway.events[-1]["error"]["code"] == "broken_answer"
            assert "[DONE]" not in midway.events
            instead = server.ask(model=LARGE)
            assert instead.status == 200 and len(model.calls) == 3, "two that were cut, and this one"


def test_the_next_best_answers_and_it_is_said(tmp_path: Path) -> None:
    with (
        serving(lambda *_: Said(TEXT, 12, 9)) as model,
        faulty(model, ["503"]) as front,
        served(tmp_path, settings=settings(model, front)) as server,
    ):
        found = server.ask(model="auto:best")
    assert found.headers["x-scope-edge-choice"] == LARGE and found.headers["x-scope-edge-model"] == SMALL
    assert found.headers["x-scope-edge-attempts"] == "1" and found.json["model"] == SMALL


def test_a_cap_on_spending_is_402(tmp_path: Path) -> None:
    with serving(lambda *_: Said(TEXT, 12, 9)) as model:
        own = settings(model, model, "max_usd_day = 0.000001")
        with served(tmp_path, settings=own) as server:
            found = server.ask(model=LARGE)
    assert found.status == 402 and "max_usd_day" in found.json["error"]["message"] and model.calls == []


def test_who_comes_when_all_places_are_taken_is_told_when_to_come_again(tmp_path: Path) -> None:
    with (
        serving(lambda *_: Said(TEXT, 12, 9)) as model,
        faulty(model, ["stalls", None, None]) as front,
        served(tmp_path, "--at-once", "1", "--queue", "0", settings=settings(model, front)) as server,
    ):
        body = {"model": LARGE, "stream": True, "messages": [{"role": "user", "content": QUERY}]}
        connection, answer = server.begin("POST", "/v1/chat/completions", body)
        assert answer.status == 200 and answer.read1(10)
        full = server.ask(model=LARGE)
        assert full.status == 429 and full.json["error"]["code"] == "queue_full"
        assert int(full.headers["retry-after"]) >= 1
        assert server.call("POST", "/v1/route", {"text": QUERY}).status == 200, "deciding has a door of its own"
        # Who hangs up gives the place free, and the call to the model is ended.
        connection.close()
        server.until(lambda: server.metric("running") == 0)
        assert server.ask(model=LARGE).text == TEXT
        latest = [one["run"]["ending"] for one in spawn(["log", "--json"], server.env).json]
        assert latest == ["complete", "cancelled"]
        assert server.call("GET", "/page/recent").json["recent"][1]["ending"] == "cancelled"


def test_running_answers_have_their_time_at_the_end(tmp_path: Path) -> None:
    with serving(lambda *_: Said(TEXT, 12, 9), seconds=1.0) as model:
        with served(tmp_path, "--grace", "20", settings=settings(model, model)) as server:
            body = {"model": SMALL, "messages": [{"role": "user", "content": QUERY}]}
            answers = []
            thread = threading.Thread(target=lambda: answers.append(server.call("POST", "/v1/chat/completions", body)))
            thread.start()
            server.until(lambda: len(model.calls) == 1)
            code = server.end()
            thread.join()
        assert code == 0 and answers[0].text == TEXT
        assert not list((tmp_path / "data" / "server").glob("running*"))


def test_what_is_not_over_by_then_is_cut_and_told_so(tmp_path: Path) -> None:
    with (
        serving(lambda *_: Said(TEXT, 12, 9)) as model,
        faulty(model, ["stalls"]) as front,
        served(tmp_path, "--grace", "0.2", settings=settings(model, front)) as server,
    ):
        body = {"model": LARGE, "stream": True, "messages": [{"role": "user", "content": QUERY}]}
        connection, answer = server.begin("POST", "/v1/chat/completions", body)
        first = answer.read1(10)
        code = server.end()
        rest = answer.read()
        connection.close()
        assert code == 0
        last = json.loads((first + rest).decode().split("data: ")[-1])
        assert last["error"]["code"] == "shutting_down" and b"[DONE]" not in rest
        assert spawn(["log", "--json"], server.env).json[0]["run"]["ending"] == "cancelled"
        spent = spawn(["log", "spend", "--json"], server.env).json
    assert "Traceback" not in server.errors.read_text(), "nothing is left hanging"
    assert spent


def test_a_client_that_hangs_up_ends_a_call_that_nobody_has_answered(tmp_path: Path) -> None:
    with (
        serving(lambda *_: Said(TEXT, 12, 9)) as model,
        silent() as mute,
        served(tmp_path, settings=settings(model, Server(mute.address()), "silence_seconds = 600")) as server,
    ):
        for stream in (False, True):
            body = {"model": LARGE, "stream": stream, "messages": [{"role": "user", "content": QUERY}]}
            connection = http.client.HTTPConnection("127.0.0.1", server.port)
            headers = {"authorization": f"Bearer {server.token}", "content-type": "application/json"}
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            mute.until_came()
            connection.close()
            mute.until_left()
            server.until(lambda: server.metric("running") == 0)
        runs = [one["run"] for one in spawn(["log", "--json"], server.env).json]
        assert [run["ending"] for run in runs] == ["cancelled"] * 2
        counted = server.call("GET", "/metrics").raw.decode()
        assert 'path="/v1/chat/completions",status="499"} 2.0' in counted, "no error of the client's"
        assert 'path="/v1/chat/completions",status="400"' not in counted


def test_a_call_that_is_being_connected_does_not_keep_the_server(tmp_path: Path) -> None:
    with deaf() as address:
        if address is None:
            pytest.skip("connections that nobody takes are refused here")
        far = Server(address)
        with served(tmp_path, "--grace", "0.1", settings=settings(far, far, "max_usd_day = 1.0")) as server:
            replies: list[int | None] = []

            def ask() -> None:
                try:
                    replies.append(server.ask(model=LARGE, max_tokens=100).status)
                except (OSError, http.client.HTTPException):
                    replies.append(None)

            thread = threading.Thread(target=ask)
            thread.start()
            server.until(lambda: spawn(["log", "spend", "--json"], server.env).json["day"]["waiting"] == 1)
            assert server.end() == 0, "the call is still being connected"
            thread.join()
            spent = spawn(["log", "spend", "--json"], server.env).json["day"]
    assert "Traceback" not in server.errors.read_text()
    assert replies == [503] and server.errors.read_text() == ""
    assert spent["reserved"] == 0 and spent["waiting"] == 0, "nothing was sent, so nothing may be billed"


def test_no_auth_is_for_this_machine_alone(tmp_path: Path) -> None:
    with (
        serving(lambda *_: Said(TEXT, 12, 9)) as model,
        served(tmp_path, "--no-auth", settings=settings(model, model)) as server,
    ):
        found = server.call("GET", "/v1/models", authorization=None)
        assert found.status == 200
        assert server.call("GET", "/v1/models", authorization=None, host="evil.example").status == 421
    done = spawn(["serve", "--no-auth", "--host", "0.0.0.0", "--port", "0"], server.env)
    assert done.code == 2 and "spend your keys" in done.complaint


def test_a_port_that_is_taken_is_said_in_one_line(world: World) -> None:
    done = spawn(["serve", "--port", str(world.server.port)], world.server.env)
    assert done.code == 2 and "already in use" in done.complaint and done.out == ""
    for name in ("\udcff", "x" * 70, "a..b"):
        done = spawn(["serve", "--port", "0", "--host", name], world.server.env)
        assert done.code == 2 and "--host must be" in done.complaint
    done = spawn(["serve", "--port", "0", "--host", "192.0.2.1"], world.server.env)
    assert done.code == 2 and "192.0.2.1" in done.complaint and "taken" not in done.complaint


def test_an_unknown_pool_is_said_before_anything_listens(world: World) -> None:
    done = spawn(["serve", "--port", "0", "--pool", "nosuch"], world.server.env)
    assert done.code == 2 and "nosuch" in done.complaint


def test_a_child_process_ends_with_its_parents_pipe(tmp_path: Path) -> None:
    with serving(lambda *_: Said(TEXT, 12, 9)) as model:
        (tmp_path / "config.toml").write_text(settings(model, model))
        process = subprocess.Popen(
            command("serve", "--port", "0", "--json", "--until-eof"),
            env=user(tmp_path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None and process.stdout is not None
        assert json.loads(process.stdout.readline())["pid"] == process.pid
        process.stdin.close()
        assert process.wait(60) == 0
        process.stdout.close()
