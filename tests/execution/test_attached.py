"""All that a request sends counts against caps and is checked for private parts, not its messages' text alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import Said, Server, serving
from executor_cases import QUESTION, candidate, card, decided, executor, told

from scope_edge import Router
from scope_edge.encoding.token_count import query_prompt_tokens
from scope_edge.errors import BudgetError, InfeasibleError, UnansweredError, UsageError
from scope_edge.execution import Request
from scope_edge.execution.attached import attached_strings, unsized_part
from scope_edge.factory import open_ledger
from scope_edge.policy.privacy import private_parts
from scope_edge.settings.config import load_settings
from scope_edge.types import Budget, Query

pytest.importorskip("httpx")
LONG = "the weather in Paris and elsewhere " * 400
ADDRESS = "alice@example.com"
USER = {"role": "user", "content": QUESTION}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.fixture(autouse=True)
def alone(own_folders: Path) -> None:
    """Every test has folders of its own."""


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(lambda *_: Said("fine", 12, 5)) as made:
        yield made


def called(text: str) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": "f", "arguments": text}}


def requests(text: str) -> dict[str, tuple[list[dict[str, Any]], dict[str, Any]]]:
    """Requests that hold a text in every place that is not a message's text."""
    assistant = {"role": "assistant", "content": None}
    tool = {"type": "function", "function": {"name": "f", "description": text}}
    return {
        "arguments": ([USER, {**assistant, "tool_calls": [called(text)]}], {}),
        "function_call": ([USER, {**assistant, "function_call": {"name": "f", "arguments": text}}], {}),
        "reasoning_content": ([USER, {**assistant, "reasoning_content": text}], {}),
        "name": ([{**USER, "name": text}], {}),
        "refusal": ([USER, {"role": "assistant", "content": [{"type": "refusal", "refusal": text}]}], {}),
        "tools": ([USER], {"tools": [tool]}),
        "response_format": ([USER], {"response_format": {"type": "json_schema", "json_schema": {"description": text}}}),
        "prediction": ([USER], {"prediction": {"type": "content", "content": text}}),
        "stop": ([USER], {"stop": [text]}),
        "metadata": ([USER], {"metadata": {"note": text}}),
        "metadata's name": ([USER], {"metadata": {text: 1}}),
        "user": ([USER], {"user": text}),
    }


@pytest.mark.parametrize("place", requests(""))
@pytest.mark.parametrize("limits", [{"budget": Budget(usd=0.5)}, {"budget": Budget(tokens=500)}, {"cap": 0.5}])
def test_a_cap_sees_what_is_sent_beside_the_text(server: Server, place: str, limits: dict[str, Any]) -> None:
    """A thousand tokens cost a dollar here, and LONG has some 2,400."""
    one, cap = card("one", server), limits.get("cap")
    for text, free in (("short", True), (LONG, False)):
        messages, fields = requests(text)[place]
        request = Request(
            query=Query(QUESTION),
            decision=decided(candidate(one)),
            budget=limits.get("budget", Budget()),
            messages=tuple(messages),
            fields={"max_tokens": 20, **fields},
        )
        with executor(one, **({} if cap is None else {"max_usd_day": cap})) as made:
            if free:
                assert told(made.start(request)) == "fine"
            else:
                with pytest.raises(UnansweredError if cap is None else BudgetError):
                    told(made.start(request))
    assert len(server.calls) == 1
    if cap is not None:
        with open_ledger(load_settings()) as ledger:
            assert ledger.spending()[0].spent == pytest.approx(17 / 1000) and ledger.spending()[0].waiting == 0


UNSIZED: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "pictures": ([{"role": "user", "content": [{"type": "text", "text": "What is it?"}, PICTURE]}], {}),
    "files": ([{"role": "user", "content": [{"type": "file", "file": {"file_id": "f1"}}]}], {}),
    "audio": ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA"}}]}], {}),
    "parts of type hologram": ([{"role": "user", "content": [{"type": "hologram", "text": "it"}]}], {}),
    "tools of type web_search": ([USER], {"tools": [{"type": "web_search"}]}),
    "the service tier priority": ([USER], {"service_tier": "priority"}),
    "web_search_options": ([USER], {"web_search_options": {"x": 1}}),
    "models": ([USER], {"models": ["another/dear-one"]}),
}


@pytest.mark.parametrize("part", UNSIZED)
def test_what_cannot_be_sized_is_refused_while_a_cap_holds(server: Server, part: str) -> None:
    messages, fields = UNSIZED[part]
    one, free = card("one", server), card("free", server, usd_in=0.0, usd_out=0.0)
    assert unsized_part(messages, fields) == part and unsized_part([USER], {"tools": [called("")]}) is None
    given: dict[str, Any] = {"query": Query(QUESTION), "messages": tuple(messages), "fields": fields}
    with executor(one, free) as made:
        assert told(made.start(Request(decision=decided(candidate(one)), **given))) == "fine", "no cap"
    with executor(one, free, max_usd_day=100.0) as made:
        with pytest.raises(BudgetError, match=f"the cost of {part} is unknown"):
            told(made.start(Request(decision=decided(candidate(one)), **given)))
        assert told(made.start(Request(decision=decided(candidate(free)), **given))) == "fine", "it costs nothing"
    with executor(one, free) as made, pytest.raises(UnansweredError, match=f"the size of {part} in tokens is unknown"):
        told(made.start(Request(decision=decided(candidate(one)), budget=Budget(usd=5.0), **given)))
    assert len(server.calls) == 2


def test_the_decision_counts_it_too(server: Server, own_folders: Path) -> None:
    fields = {"tools": [{"type": "function", "function": {"name": "f", "description": LONG}}]}
    bare, whole = Query(QUESTION), Query(QUESTION, attached=attached_strings([], fields))
    assert query_prompt_tokens(whole).expected > query_prompt_tokens(bare).expected + 2000
    (own_folders / "config.toml").write_text(f'[models."gpt-4o"]\nendpoint = "{server.address}"\n', "utf-8")
    with Router.load(pool="gpt-4o") as router:
        assert router.ask(QUESTION, max_tokens=2000).text == "fine"
        with pytest.raises(InfeasibleError, match="max_tokens"):
            router.ask(QUESTION, max_tokens=2000, fields=fields)


@pytest.mark.parametrize("place", requests(""))
def test_every_string_is_checked_for_private_parts(place: str) -> None:
    messages, fields = requests(f"note: {ADDRESS}.")[place]
    assert private_parts(attached_strings(messages, fields)) == ("an e-mail address",)
    assert private_parts(attached_strings(*requests("note: nothing.")[place])) == ()


@pytest.mark.parametrize(
    "parts",
    [["Write to ali", "ce@exam", "ple.com now"], ["alice@", "example.com"], ["I am alice@example", ".com, you know"]],
)
def test_an_address_split_over_parts_is_found(parts: list[str]) -> None:
    content: list[dict[str, Any]] = [{"type": "text", "text": part} for part in parts]
    content.insert(1, PICTURE)
    assert private_parts(attached_strings([{"role": "user", "content": content}], {})) == ("an e-mail address",)


def test_parts_that_do_not_meet_are_not_joined() -> None:
    parts = [{"type": "text", "text": "Say hello to alice@ "}, {"type": "text", "text": "example.com"}]
    assert attached_strings([{"role": "user", "content": parts}], {}) == ()


def test_a_pictures_address_is_read_and_its_data_is_not() -> None:
    link = {"type": "image_url", "image_url": {"url": f"https://example.org/p.png?for={ADDRESS}"}}
    assert private_parts(attached_strings([{"role": "user", "content": [link]}], {})) == ("an e-mail address",)
    (*_, data) = attached_strings([{"role": "user", "content": [PICTURE]}], {})
    assert data == "data:image/png"


@pytest.mark.parametrize("value", [10**30, {"deep": [-(2**70)]}])
def test_a_number_that_no_server_reads_is_refused_at_once(value: object) -> None:
    with pytest.raises(UsageError, match="out of range"):
        Router.load().ask(QUESTION, fields={"seed": value})


@pytest.mark.parametrize("lead", ["data:;base64,", "data:text/plain;base64,"])
def test_a_text_that_looks_like_a_data_uri_counts_whole(lead: str) -> None:
    words = lead + "word " * 1000 + "bob@example.org"
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": words}}
    message = {"role": "assistant", "content": None, "tool_calls": [call], "name": words}
    found = attached_strings((message,), {"tools": [{"function": {"description": words}}]})
    assert sum(words in one for one in found) == 3
    picture = {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9000}}],
    }
    assert "data:image/png" in attached_strings((picture,), {})
