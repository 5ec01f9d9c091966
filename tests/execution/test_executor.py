"""A decision is carried out by the best model that answers, within the limits, and nothing is given twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from chat_server import Call, Handler, Said, Server, completion, faulty, running, serving
from executor_cases import QUESTION, asked, candidate, card, decided, executor, told
from silent_server import silent

from scope_edge.errors import BrokenAnswerError, BudgetError, RefusedError, UnansweredError
from scope_edge.execution import executor as execution_room
from scope_edge.factory import open_journal, open_ledger
from scope_edge.settings.config import load_settings
from scope_edge.types import Attempt, Budget

pytest.importorskip("httpx")
KEY = "sk-this-is-secret-0123456789"
TEXT = "There are 25 primes below one hundred."
# What the server below says it used.
PROMPT, COMPLETION = 12, 9


@pytest.fixture(autouse=True)
def alone(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENDOR_KEY", KEY)
    monkeypatch.setattr(execution_room, "_PAUSE", 0.02)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(lambda *_: Said(TEXT, PROMPT, COMPLETION)) as made:
        yield made


def spent() -> float:
    with open_ledger(load_settings()) as ledger:
        today, _ = ledger.spending()
        assert today.reserved == 0, "nothing stays reserved once it is over"
        return today.spent


def test_the_chosen_model_answers_and_everything_is_written_down(server: Server) -> None:
    one = card("one", server, key_env="VENDOR_KEY", served_as="vendor/one")
    with executor(one) as made:
        execution = asked(made, decided(candidate(one)))
        assert told(execution) == TEXT
    answer = execution.answer
    assert answer is not None and answer.text == TEXT and answer.warnings == ()
    run = answer.run
    assert (run.model, run.where, run.attempts, run.ending) == ("one", "cloud", (), "complete")
    assert (run.prompt_tokens, run.completion_tokens, run.counted) == (PROMPT, COMPLETION, "server")
    assert run.usd == pytest.approx((PROMPT + COMPLETION) / 1000) == spent()
    assert run.first_token_seconds is not None and 0 < run.first_token_seconds <= (run.seconds or 0)
    (call,) = server.calls
    assert call.body["model"] == "vendor/one" and call.body["messages"] == [{"role": "user", "content": QUESTION}]
    assert "max_tokens" not in call.body, "no limit was asked for"
    with open_journal(load_settings()) as journal:
        assert answer.id is not None and journal.entry(answer.id).run == run


@pytest.mark.parametrize("fault", ["429", "500", "503", "dropped", "text", "401", "403", "404", "410"])
def test_where_the_first_fails_before_it_says_anything_the_next_answers(server: Server, fault: str) -> None:
    with faulty(server, [fault]) as front:
        one, two = card("one", front), card("two", server)
        with executor(one, two) as made:
            execution = asked(made, decided(candidate(one), candidate(two)))
            assert told(execution) == TEXT
    assert execution.model == "two"
    (attempt,) = execution.attempts
    assert (attempt.model, attempt.where) == ("one", "cloud") and attempt.error and "\n" not in attempt.error
    assert execution.answer is not None and execution.answer.run.attempts == (attempt,)


def test_nobody_there_is_a_reason_to_ask_the_next(server: Server) -> None:
    gone, two = card("gone", server, endpoint="http://127.0.0.1:9/v1"), card("two", server)
    with executor(gone, two) as made:
        execution = asked(made, decided(candidate(gone), candidate(two)))
        assert told(execution) == TEXT
    assert "no connection" in execution.attempts[0].error


def test_a_slow_server_is_given_up_on_before_it_says_anything(server: Server) -> None:
    with faulty(server, ["slow"]) as front:
        one, two = card("one", front), card("two", server)
        with executor(one, two, silence=0.5) as made:
            execution = asked(made, decided(candidate(one), candidate(two)))
            assert told(execution) == TEXT
    assert "no answer within 0.5 seconds" in execution.attempts[0].error


def test_what_two_servers_refuse_no_third_is_asked(server: Server) -> None:
    with faulty(server, ["refused"]) as front, faulty(server, ["refused"]) as other:
        one, two, three = card("one", front), card("two", other), card("three", server)
        with executor(one, two, three) as made, pytest.raises(RefusedError, match="against our policy") as refused:
            told(asked(made, decided(candidate(one), candidate(two), candidate(three))))
    assert server.calls == [] and refused.value.exit_code == 2 and refused.value.run.ending == "failed"


def test_what_one_server_refuses_another_may_answer(server: Server) -> None:
    with faulty(server, ["refused", "refused"]) as front:
        one, two, three = card("one", front), card("two", front), card("three", server)
        with executor(one, two, three) as made:
            execution = asked(made, decided(candidate(one), candidate(two), candidate(three)))
            assert told(execution) == TEXT
    assert execution.model == "three" and len(execution.attempts) == 2


def test_what_the_only_server_refuses_is_refused(server: Server) -> None:
    with faulty(server, ["refused"]) as front:
        one = card("one", front)
        with executor(one) as made, pytest.raises(RefusedError, match=r"one: .*against our policy"):
            told(asked(made, decided(candidate(one))))


OF_THE_MODEL = [
    {"error": {"code": 400, "message": "request (9000 tokens) exceeds the available context size (4096 tokens)"}},
    {"error": {"code": 400, "message": "The input token count (40000) exceeds the maximum number of tokens allowed"}},
    {"error": "This model's maximum prompt length is 8192 but the request contains 9000 tokens."},
    {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low."}},
    {"error": {"message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT"}},
    {"error": {"message": "invalid model name passed in model=big-model", "type": "invalid_request_error"}},
    {"error": {"message": "messages[0].role: unknown variant `developer`, expected one of `system`, `user`"}},
    {"error": {"message": "System message must be at the beginning.", "type": "BadRequestError", "code": 400}},
    {"error": {"message": "tool choice requires a tool-call parser to be set", "type": "BadRequestError"}},
    {"error": {"message": "Invalid 'temperature': decimal above maximum value. Expected a value <= 1"}},
    {"error": {"code": "content_filter", "message": "The response was filtered by the content management policy."}},
    {"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}},
    {"detail": "Something else entirely that has no known words"},
    [{"error": {"code": 400, "message": "Request contains an invalid argument."}}],
]


@pytest.mark.parametrize("said", OF_THE_MODEL, ids=range(len(OF_THE_MODEL)))
@pytest.mark.parametrize("status", [400, 422])
def test_a_refusal_is_the_models_until_another_server_says_the_same(server: Server, said: Any, status: int) -> None:
    class Refusing(Handler):
        def answer(self, call: Call, raw: bytes) -> None:
            self.send(status, json.dumps(said).encode())

    with running(Refusing) as front:
        one, two = card("one", front), card("two", server)
        with executor(one, two) as made:
            execution = asked(made, decided(candidate(one), candidate(two)))
            assert told(execution) == TEXT
    (attempt,) = execution.attempts
    assert "\n" not in attempt.error and attempt.error.count("(HTTP") <= 1


@pytest.mark.parametrize("why", ["maximum context length is 4096 tokens", "unsupported parameter: 'seed'"])
def test_what_this_model_alone_cannot_take_is_the_next_ones(server: Server, why: str) -> None:
    class Refusing(Handler):
        def answer(self, call: Call, raw: bytes) -> None:
            self.send(400, b'{"error": {"message": "%s"}}' % why.encode())

    with running(Refusing) as front:
        one, two = card("one", front), card("two", server)
        with executor(one, two) as made:
            assert told(asked(made, decided(candidate(one), candidate(two)))) == TEXT


@pytest.mark.parametrize("fault", ["cut", "stalls"])
def test_an_answer_that_breaks_off_says_so_and_is_not_begun_anew(server: Server, fault: str) -> None:
    with faulty(server, [fault]) as front:
        one, two = card("one", front), card("two", server)
        with executor(one, two, silence=1.0) as made:
            execution, came = asked(made, decided(candidate(one), candidate(two))), ""
            with pytest.raises(BrokenAnswerError, match="one broke off after") as broken:
                for piece in execution:
                    came += piece.text
    assert came and TEXT.startswith(came) and broken.value.text == came
    assert len(server.calls) == 1, "forwarded by the one that broke; the other model was not asked"
    run = broken.value.run
    assert (run.model, run.ending, run.counted, broken.value.exit_code) == ("one", "broken", "estimate", 4)
    assert run.usd == pytest.approx(spent()), "what had come was paid for"
    assert run.usd and run.usd > 0


def test_who_fails_in_passing_is_asked_again_when_all_have_failed(server: Server) -> None:
    with faulty(server, ["503"]) as front:
        one = card("one", front)
        with executor(one) as made:
            execution = asked(made, decided(candidate(one)))
            assert told(execution) == TEXT
    assert [one.error for one in execution.attempts] == ["HTTP 503"] and len(front.calls) == 2


def test_a_server_that_asks_to_be_left_alone_is(server: Server) -> None:
    with faulty(server, ["429"], retry_after="60") as front:
        one, two = card("one", front), card("two", server)
        with executor(one, two) as made:
            for _ in range(2):
                assert told(asked(made, decided(candidate(one), candidate(two)))) == TEXT
            again = asked(made, decided(candidate(one)))
            with pytest.raises(UnansweredError, match="wants no calls"):
                told(again)
        assert len(front.calls) == 1


def test_nobody_answers_and_each_says_why(server: Server) -> None:
    with faulty(server, ["401", "503", "503"], key=KEY) as front:
        one, two = card("one", front, key_env="VENDOR_KEY"), card("two", front, key_env="VENDOR_KEY")
        with executor(one, two) as made, pytest.raises(UnansweredError) as nobody:
            told(asked(made, decided(candidate(one), candidate(two))))
    said = str(nobody.value)
    assert (
        "one: it refuses the call (HTTP 401)" in said
        and "two: HTTP 503" in said
        and "\n" not in said
        and KEY not in said
    )
    run = nobody.value.run
    assert (run.model, run.ending, run.usd, nobody.value.exit_code) == (None, "failed", 0.0, 5)
    assert spent() == 0.0, "refusals cost nothing"
    with open_journal(load_settings()) as journal:
        assert journal.entries()[0].run == run


def test_an_excluded_or_retired_one_is_never_asked(server: Server) -> None:
    with faulty(server, ["500", "500"]) as front:
        one = card("one", front)
        barred, old = card("barred", server), card("old", server, status="retired")
        gone, mute = card("gone", server, retires="2024-01-01"), card("mute", server, endpoint=None)
        row = [candidate(one), candidate(barred, excluded_by="max_usd"), *map(candidate, (old, gone, mute))]
        with executor(one, barred, old, gone, mute) as made, pytest.raises(UnansweredError) as nobody:
            told(asked(made, decided(*row)))
    assert server.calls == []
    why = {one.model: one.error for one in nobody.value.run.attempts}
    assert "barred" not in why and "retired" in why["old"] and "2024-01-01" in why["gone"]
    assert "models add" in why["mute"]


def test_with_local_only_a_device_that_fails_is_not_followed_by_the_cloud(server: Server) -> None:
    with faulty(server, ["500", "500"]) as front:
        here, there = card("here", front, where="device", usd_in=0.0, usd_out=0.0), card("there", server)
        with executor(here, there) as made, pytest.raises(UnansweredError):
            told(asked(made, decided(candidate(here), candidate(there)), local_only=True))
    assert server.calls == []


def test_offline_calls_nothing_but_loopback_on_the_device(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    there = card("there", server)
    here = card("here", server, where="device", usd_in=0.0, usd_out=0.0)
    with executor(there, here, offline=True) as made:
        execution = asked(made, decided(candidate(there), candidate(here)))
        assert told(execution) == TEXT
    assert execution.model == "here" and "offline is set" in execution.attempts[0].error


def test_the_limit_on_tokens_is_what_is_left_after_the_prompt(server: Server) -> None:
    one = card("one", server, token_factor=2.0)
    with executor(one) as made:
        told(asked(made, decided(candidate(one)), budget=Budget(tokens=300)))
    sent = server.calls[0].body["max_tokens"]
    # The question has 10 tokens, and twice as many of this model's own; what the template adds is bounded, not known.
    assert 300 - 2 * 80 <= sent <= 300 - 2 * 20


def test_the_limit_in_dollars_is_one_on_tokens(server: Server) -> None:
    one = card("one", server, usd_in=0.0)
    with executor(one) as made:
        told(asked(made, decided(candidate(one)), budget=Budget(usd=0.0501)))
    assert server.calls[0].body["max_tokens"] == 50


def test_the_smallest_limit_counts_and_other_fields_pass_through(server: Server) -> None:
    one = card("one", server, context_tokens=200)
    fields = {"max_completion_tokens": 7, "temperature": 0.3, "logit_bias": {"50256": -100}, "stop": ["END"]}
    with executor(one) as made:
        told(asked(made, decided(candidate(one)), budget=Budget(tokens=300), fields=fields))
    (call,) = server.calls
    assert call.body["max_tokens"] == 7 and "max_completion_tokens" not in call.body
    assert {name: call.body[name] for name in ("temperature", "logit_bias", "stop")} == {
        name: fields[name] for name in ("temperature", "logit_bias", "stop")
    }


def test_a_limit_that_leaves_no_room_asks_nobody(server: Server) -> None:
    one = card("one", server)
    with executor(one) as made, pytest.raises(UnansweredError, match="no room for an answer"):
        told(asked(made, decided(candidate(one)), budget=Budget(tokens=5)))
    assert server.calls == []


def test_a_fallback_over_the_budget_is_answered_all_the_same(server: Server) -> None:
    one, two = card("one", server), card("two", server)
    rows = (candidate(one, excluded_by="max_usd"), candidate(two, excluded_by="max_usd"))
    with executor(one, two) as made:
        decision = decided(*rows, choice="one", over_budget=True)
        assert told(asked(made, decision, budget=Budget(usd=0.0))) == TEXT
    assert [call.body["model"] for call in server.calls] == ["one"]


def test_a_server_that_forgets_its_limit_is_stopped_and_told_on() -> None:
    with serving(lambda *_: Said("word " * 3000, PROMPT, 3000)) as long:
        one = card("one", long)
        with executor(one) as made:
            execution = asked(made, decided(candidate(one)), fields={"max_tokens": 20})
            assert len(told(execution)) < 1000
        answer = execution.answer
        assert answer is not None and answer.run.ending == "cut" and "cut off" in answer.warnings[0]


def test_a_server_that_counts_more_than_it_was_allowed_is_told_on() -> None:
    with serving(lambda *_: Said(TEXT, PROMPT, 50)) as liar:
        one = card("one", liar)
        with executor(one) as made:
            execution = asked(made, decided(candidate(one)), fields={"max_tokens": 20})
            told(execution)
    assert execution.answer is not None
    assert execution.answer.warnings == ("one wrote 50 tokens, more than its limit of 20",)
    assert execution.answer.run.completion_tokens == 50


LONG = "x y z " * 4000
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "write", "arguments": LONG}}],
}


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (CALLED, {}),
        ({"role": "assistant", "content": "", "function_call": {"name": "write", "arguments": LONG}}, {}),
        ({"role": "assistant", "content": "So.", "reasoning_content": LONG}, {}),
        ({"role": "user", "content": "Hello.", "name": LONG}, {}),
        ({"role": "user", "content": [{"type": "text", "text": "Hello.", "note": LONG}]}, {}),
        ({"role": "user", "content": "Hello."}, {"prediction": {"type": "content", "content": LONG}}),
        ({"role": "user", "content": "Hello."}, {"tools": [{"function": {"name": "f", "description": LONG}}]}),
        ({"role": "user", "content": "Hello."}, {"metadata": {"note": LONG}}),
    ],
)
@pytest.mark.parametrize("limit", ["tokens", "usd", "day"])
def test_limits_see_all_that_is_sent(
    server: Server, message: dict[str, Any], fields: dict[str, Any], limit: str
) -> None:
    one = card("one", server, usd_in=1.0, usd_out=1.0)
    budget = {"tokens": Budget(tokens=5000), "usd": Budget(usd=0.005), "day": Budget()}[limit]
    messages = (message, {"role": "user", "content": "Go on."})
    with (
        executor(one, max_usd_day=0.005 if limit == "day" else None) as made,
        pytest.raises((UnansweredError, BudgetError)),
    ):
        told(asked(made, decided(candidate(one)), budget=budget, messages=messages, fields=fields))
    assert server.calls == []


@pytest.mark.parametrize("part", [{"type": "image_url", "image_url": {"url": "data:,"}}, {"type": "file", "file": {}}])
def test_what_has_no_known_size_is_not_sent_while_a_cap_holds(server: Server, part: dict[str, Any]) -> None:
    dear, free = card("dear", server), card("free", server, where="device", usd_in=0.0, usd_out=0.0)
    messages = ({"role": "user", "content": [{"type": "text", "text": "What is this?"}, part]},)
    with executor(dear, free, max_usd_month=100.0) as made:
        execution = asked(made, decided(candidate(dear), candidate(free)), messages=messages)
        told(execution)
    assert execution.model == "free" and "unknown" in execution.attempts[0].error
    assert [call.body["model"] for call in server.calls] == ["free"]


def test_a_cap_on_spending_is_kept_before_the_call(server: Server) -> None:
    dear, cheap = card("dear", server), card("cheap", server, usd_in=1.0, usd_out=1.0)
    with executor(dear, cheap, max_usd_day=0.05) as made:
        execution = asked(made, decided(candidate(dear), candidate(cheap)))
        assert told(execution) == TEXT
        assert execution.model == "cheap" and "max_usd_day" in execution.attempts[0].error
        assert execution.answer is not None
        assert execution.answer.run.usd == pytest.approx((PROMPT + COMPLETION) / 1e6), "who was not asked cost nothing"
        with pytest.raises(BudgetError, match="max_usd_day") as over:
            told(asked(made, decided(candidate(dear))))
    assert over.value.exit_code == 3 and [call.body["model"] for call in server.calls] == ["cheap"]
    assert "max_tokens" in server.calls[0].body, "without a limit the reservation would not hold"
    assert spent() == pytest.approx((PROMPT + COMPLETION) / 1e6, abs=1e-6)


def test_spending_is_exact_under_threads_and_faults(server: Server) -> None:
    came: list[str] = []
    with faulty(server, [None, "503", None, "429", "500", None] * 4) as front:
        one, two = card("one", front), card("two", server)
        with executor(one, two) as made:

            def ask() -> None:
                came.append(told(asked(made, decided(candidate(one), candidate(two)))))

            threads = [threading.Thread(target=ask) for _ in range(12)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
    assert came == [TEXT] * 12 and len(server.calls) == 12, "each got one whole answer"
    assert spent() == pytest.approx(12 * (PROMPT + COMPLETION) / 1000)


def test_the_time_is_up_while_it_writes(server: Server) -> None:
    with faulty(server, ["stalls"]) as front:
        one = card("one", front)
        with executor(one) as made:
            execution = asked(made, decided(candidate(one)), budget=Budget(seconds=1.0))
            came = told(execution)
    answer = execution.answer
    assert answer is not None and came and answer.text == came != TEXT
    assert answer.run.ending == "cut" and "time was up" in answer.warnings[0]


def test_the_time_is_up_before_anything_came(server: Server) -> None:
    with faulty(server, ["slow"]) as front:
        one, two = card("one", front), card("two", server)
        with executor(one, two) as made, pytest.raises(UnansweredError, match="the time was up"):
            told(asked(made, decided(candidate(one), candidate(two)), budget=Budget(seconds=0.5)))
    assert server.calls == []


def test_who_asked_may_leave_in_the_middle(server: Server) -> None:
    with faulty(server, ["stalls"]) as front:
        one = card("one", front)
        with executor(one) as made:
            with asked(made, decided(candidate(one))) as execution:
                first = next(execution).text
            answer = execution.answer
            assert answer is not None and answer.text == first and answer.run.ending == "cancelled"
            assert answer.run.usd == pytest.approx(spent())


def test_another_thread_may_end_it(server: Server) -> None:
    with faulty(server, ["stalls"]) as front:
        one = card("one", front)
        with executor(one) as made:
            execution = asked(made, decided(candidate(one)))
            next(execution)
            ending = threading.Timer(0.2, execution.cancel)
            ending.start()
            assert list(execution) == []
    assert execution.answer is not None and execution.answer.run.ending == "cancelled"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_another_thread_may_end_it_while_the_server_says_nothing(server: Server, scheme: str) -> None:
    """Not even the head of an answer, or of the handshake: the call would last for as long as a server may be silent."""
    with silent() as mute:
        one, two = card("one", server, endpoint=mute.address(scheme)), card("two", server)
        with executor(one, two, silence=600.0) as made:
            execution = asked(made, decided(candidate(one), candidate(two)))
            reading = threading.Thread(target=list, args=(execution,))
            reading.start()
            mute.until_came()
            execution.cancel()
            reading.join(30)
            assert not reading.is_alive()
            mute.until_left()
            assert execution.answer is not None and execution.answer.run.ending == "cancelled"
            assert told(asked(made, decided(candidate(two)))) == TEXT
    assert len(server.calls) == 1, "nobody else is asked what nobody wants to know any more"
    assert spent() > 0 or scheme == "https", "what was sent whole may be billed"


def test_the_time_is_up_in_the_middle_of_the_head(server: Server) -> None:
    with silent(dripping=True) as slow:
        one = card("one", server, endpoint=slow.address())
        with (
            executor(one, silence=600.0) as made,
            pytest.raises(UnansweredError, match=r"the time was up.*no answer within 0\.\d seconds"),
        ):
            told(asked(made, decided(candidate(one)), budget=Budget(seconds=0.5)))
        slow.until_left()


def test_closing_ends_calls_that_nobody_has_answered(server: Server) -> None:
    with silent() as mute:
        one = card("one", server, endpoint=mute.address())
        with executor(one, silence=600.0) as made:
            failures: list[Exception] = []

            def read() -> None:
                try:
                    told(asked(made, decided(candidate(one))))
                except UnansweredError as error:
                    failures.append(error)

            reading = threading.Thread(target=read)
            reading.start()
            mute.until_came()
            made.close()
            reading.join(30)
    assert not reading.is_alive() and "the router is closed" in str(failures[0])


def test_a_server_that_knows_no_streaming_still_answers() -> None:
    class Plain(Handler):
        def answer(self, call: Call, raw: bytes) -> None:
            if "stream_options" in call.body:
                self.send(400, b'{"error": {"message": "unknown field stream_options"}}')
            else:
                self.send(200, json.dumps(completion("m", Said(TEXT, PROMPT, COMPLETION))).encode())

    with running(Plain) as server:
        one = card("one", server)
        with executor(one) as made:
            for _ in range(2):
                execution = asked(made, decided(candidate(one)))
                assert told(execution) == TEXT
        assert len(server.calls) == 3, "what it does not know is learned once"
    assert execution.answer is not None and execution.answer.run.completion_tokens == COMPLETION


def test_one_connection_serves_many_questions(server: Server) -> None:
    ports: set[Any] = set()

    class Counting(Handler):
        def answer(self, call: Call, raw: bytes) -> None:
            ports.add(self.client_address)
            self.send_answer(call, completion("m", Said(TEXT, PROMPT, COMPLETION)))

    with running(Counting) as counting:
        one = card("one", counting)
        with executor(one) as made:
            for _ in range(4):
                told(asked(made, decided(candidate(one))))
    assert len(ports) == 1


def test_a_key_in_the_answer_is_cleared_however_it_is_cut(server: Server) -> None:
    with serving(lambda *_: Said(f"The key is {KEY} and that is all.", PROMPT, 12)) as gossip:
        one = card("one", gossip, key_env="VENDOR_KEY")
        with executor(one) as made:
            assert told(asked(made, decided(candidate(one)))) == "The key is [key] and that is all."


def test_a_word_that_stands_for_a_key_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENDOR_KEY", "ollama")
    with serving(lambda *_: Said("That is what ollama serve does.", PROMPT, 12)) as local:
        one = card("one", local, key_env="VENDOR_KEY")
        with executor(one) as made:
            assert told(asked(made, decided(candidate(one)))) == "That is what ollama serve does."


def test_without_a_key_the_next_is_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VENDOR_KEY")
    one, two = card("one", server, key_env="VENDOR_KEY"), card("two", server)
    with executor(one, two) as made:
        execution = asked(made, decided(candidate(one), candidate(two)))
        assert told(execution) == TEXT
    assert (
        execution.attempts == [Attempt("one", "cloud", execution.attempts[0].error)]
        and "VENDOR_KEY" in execution.attempts[0].error
    )


@contextmanager
def two_minded(first: str, second: str = "never") -> Iterator[Server]:
    """A server that says one thing, and another where it is asked to draw with other luck."""

    class TwoMinded(Handler):
        def answer(self, call: Call, raw: bytes) -> None:
            self.send_answer(call, completion("m", Said(second if "seed" in call.body else first, PROMPT, COMPLETION)))

    with running(TwoMinded) as state:
        yield state


def device(server: Server) -> Any:
    return card("here", server, where="device", usd_in=0.0, usd_out=0.0)


def test_two_samples_that_agree_are_one_answer() -> None:
    with two_minded("Answer: 25", "It is 25.") as local, serving(lambda *_: Said("never", 1, 1)) as cloud:
        here, there = device(local), card("there", cloud)
        with executor(here, there) as made:
            execution = asked(made, decided(candidate(here, 0.6), candidate(there, 0.9)), verify=2)
            assert told(execution) == "Answer: 25"
        assert {call.body.get("seed") for call in local.calls} == {None, 1} and cloud.calls == []
    assert execution.model == "here" and execution.attempts == []


def test_two_samples_that_differ_go_to_a_better_model_in_the_cloud(server: Server) -> None:
    with two_minded("Answer: 25", "It is 24.") as local:
        here, worse, better = device(local), card("worse", server), card("better", server)
        rows = (candidate(here, 0.6), candidate(worse, 0.5), candidate(better, 0.9))
        with executor(here, worse, better) as made:
            execution = asked(made, decided(*rows), verify=2)
            assert told(execution) == TEXT
    assert execution.model == "better"
    assert execution.attempts == [Attempt("here", "device", "contradicted itself when asked twice")]


def test_with_nobody_better_to_ask_the_first_answer_is_given_and_doubted(server: Server) -> None:
    with two_minded("Answer: 25", "It is 24.") as local:
        here, there = device(local), card("there", server)
        with executor(here, there) as made:
            rows = (candidate(here, 0.6), candidate(there, 0.9))
            execution = asked(made, decided(*rows), verify=2, local_only=True)
            assert told(execution) == "Answer: 25"
    assert server.calls == [] and execution.answer is not None
    assert "contradicted itself" in execution.answer.warnings[0] and execution.answer.run.model == "here"


def test_a_doubted_answer_is_better_than_a_refusal(server: Server) -> None:
    with two_minded("Answer: 25", "It is 24.") as local, faulty(server, ["refused"]) as front:
        here, there = device(local), card("there", front)
        with executor(here, there) as made:
            execution = asked(made, decided(candidate(here, 0.6), candidate(there, 0.9)), verify=2)
            assert told(execution) == "Answer: 25"
    assert [one.model for one in execution.attempts] == ["here", "there"]


def test_an_answer_asked_for_twice_may_be_left_in_the_middle_too() -> None:
    with two_minded("one two three four", "one two three four") as local:
        here = device(local)
        with executor(here) as made:
            with asked(made, decided(candidate(here)), verify=2) as execution:
                next(execution)
            assert execution.answer is not None and execution.answer.run.model == "here"
            assert execution.answer.run.ending == "cancelled"


def test_at_temperature_0_there_is_nothing_to_compare() -> None:
    with two_minded("Answer: 25") as local:
        here = device(local)
        with executor(here) as made:
            execution = asked(made, decided(candidate(here)), verify=2, fields={"temperature": 0})
            assert told(execution) == "Answer: 25"
        assert len(local.calls) == 1


@pytest.mark.parametrize("spelled", ["<think>{}</think>\n\n{}", "[THINK]{}[/THINK]{}", "{}{}"])
def test_what_a_model_thinks_first_is_no_part_of_its_answer(spelled: str) -> None:
    thought = "" if spelled == "{}{}" else "Is it 26? No."
    with serving(lambda *_: Said(spelled.format(thought, TEXT), PROMPT, COMPLETION)) as thinking:
        one = card("one", thinking)
        with executor(one) as made:
            execution = asked(made, decided(candidate(one)))
            pieces = list(execution)
    assert "".join(piece.text for piece in pieces) == TEXT
    assert execution.answer is not None and execution.answer.text == TEXT
    assert "".join(piece.extra.get("reasoning_content", "") for piece in pieces) == thought


@pytest.mark.parametrize(
    "delta", [{"reasoning_content": "hm " * 20}, {"tool_calls": [{"index": 0, "function": {"arguments": "x y " * 15}}]}]
)
def test_what_is_written_beside_the_text_is_limited_and_paid_for(delta: dict[str, Any]) -> None:
    event = b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"

    class Thinking(Handler):
        def answer(self, call: Call, raw: bytes) -> None:
            body = event * 500 + b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
            self.send(200, body)

    with running(Thinking) as thinking:
        one = card("one", thinking, usd_in=0.0, usd_out=1000.0)
        with executor(one) as made:
            execution = asked(made, decided(candidate(one)), budget=Budget(usd=0.1))
            list(execution)
    assert execution.answer is not None
    run = execution.answer.run
    assert run.ending == "cut" and run.completion_tokens and run.completion_tokens > 50 and run.usd
