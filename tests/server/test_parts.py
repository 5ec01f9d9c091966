"""Parts of the server that a call over HTTP does not show well: turns, conversations, pieces put together, limits narrowed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from executor_cases import candidate, decided

from scope_edge.settings.config import Settings, load_settings
from scope_edge.types import ModelCard, Query

pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")
from starlette.requests import ClientDisconnect, Request

from scope_edge.policy.overrides import keep_model
from scope_edge.server import asgi
from scope_edge.server.asgi import ThreadBridge
from scope_edge.server.backend import tightened
from scope_edge.server.errors import ApiError
from scope_edge.server.limits import RequestQueue
from scope_edge.server.models import ModelsEndpoints
from scope_edge.server.pipelines import PipelineCache
from scope_edge.server.responses import joined
from scope_edge.server.schemas import RequestOptions
from scope_edge.server.sessions import Sessions
from scope_edge.server.state import AppState, Metrics, ServerOptions

A, B = (ModelCard(name, "cloud", usd_in=1.0, usd_out=1.0) for name in ("a", "b"))


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_requests_that_differ_in_what_a_call_gives_share_a_router() -> None:
    cache, settings = PipelineCache(load_settings()), load_settings()
    router = cache.router(settings)
    for changes in ({"max_answer_tokens": 5}, {"max_tokens": 5}, {"alpha": 0.9}):
        assert cache.router(replace(settings, **changes)) is router


@pytest.mark.parametrize(("most", "name"), [(2**20, "WHOLE_BODY_SECONDS"), (4096, "BODY_SECONDS")])
def test_a_body_that_comes_in_drops_comes_to_an_end(most: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is never silent is no better than who is; what can only be short has less time."""
    monkeypatch.setattr(asgi, name, 0.3)

    async def drop() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b" ", "more_body": True}

    with pytest.raises(ApiError) as refused:
        asyncio.run(asgi.read_body(Request({"type": "http", "headers": []}, drop), most))
    assert refused.value.status == 408


def test_work_ends_when_the_client_hangs_up() -> None:
    async def run() -> None:
        gone, ended = asyncio.Event(), asyncio.Event()

        async def receive() -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def work() -> None:
            try:
                gone.set()
                await asyncio.Event().wait()
            finally:
                ended.set()

        with pytest.raises(ClientDisconnect):
            await asgi.unless_disconnected(receive, work())
        assert ended.is_set()

    asyncio.run(run())


def test_a_request_that_the_ending_server_cancels_is_told_so() -> None:
    """asyncio.run cancels all tasks at its end: the client is still there, and may ask another server."""

    async def run() -> ApiError:
        waiting = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

        async def work() -> None:
            waiting.set()
            await asyncio.Event().wait()

        request = asyncio.create_task(asgi.unless_disconnected(receive, work()))
        await waiting.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        with pytest.raises(ApiError) as told:
            await request
        return told.value

    told = asyncio.run(run())
    assert (told.status, told.error["code"]) == (503, "shutting_down")


class Encoding:
    """Stands for the parts of a server: an encoder whose first text takes until `go`. threads: one for each encoded text."""

    def __init__(self) -> None:
        self.began, self.go = threading.Event(), threading.Event()
        self.threads: list[threading.Thread] = []
        self.cache = SimpleNamespace(
            load_encoder=lambda: SimpleNamespace(dimension=2), encode=self.encode, close=lambda: None
        )

    def encode(self, query: Query) -> Any:
        self.threads.append(threading.current_thread())
        self.began.set()
        assert self.go.wait(60)
        return SimpleNamespace(vector=np.ones(2, np.float32))

    def state(self) -> AppState:
        return AppState(cast(Any, self), ServerOptions("127.0.0.1", 0, (), True, 10.0, False, 1, 1, 2**20, 8))

    def request(self, gone: asyncio.Event) -> Request:
        bodies = [{"type": "http.request", "body": b'{"input": ["a", "b", "c"]}', "more_body": False}]

        async def receive() -> dict[str, Any]:
            if bodies:
                return bodies.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        return Request({"type": "http", "headers": []}, receive)


def test_embeddings_end_when_the_client_hangs_up() -> None:
    encoding = Encoding()

    async def run() -> None:
        gone = asyncio.Event()
        task = asyncio.create_task(ModelsEndpoints(encoding.state()).embeddings(encoding.request(gone)))
        await asyncio.to_thread(encoding.began.wait, 60)
        gone.set()
        with pytest.raises(ClientDisconnect):
            await task
        encoding.go.set()

    asyncio.run(run())
    encoding.threads[0].join(60)
    assert len(encoding.threads) == 1


@pytest.mark.parametrize("cut", [False, True])
def test_embeddings_have_their_time_at_shutdown_and_end_with_it(cut: bool) -> None:
    encoding = Encoding()

    async def run() -> None:
        state = encoding.state()
        task = asyncio.create_task(ModelsEndpoints(state).embeddings(encoding.request(asyncio.Event())))
        await asyncio.to_thread(encoding.began.wait, 60)
        state.close_queues()
        if cut:
            state.cut()
        encoding.go.set()
        if cut:
            with pytest.raises(ApiError, match="shutting down"):
                await task
        else:
            assert (await task).status_code == 200

    asyncio.run(run())
    assert len(encoding.threads) == (1 if cut else 3)


def test_turns_are_given_in_order_and_no_more_than_there_are() -> None:
    async def run() -> list[int]:
        queue, done = RequestQueue(2, 10), []

        async def one(number: int) -> None:
            async with queue.turn():
                assert queue.running <= 2
                await asyncio.sleep(0)
                done.append(number)

        await asyncio.gather(*(one(n) for n in range(8)))
        assert queue.running == queue.waiting == 0
        return done

    assert asyncio.run(run()) == list(range(8))


class Turn:
    """A request that holds a turn until it is told to leave."""

    def __init__(self, queue: RequestQueue) -> None:
        self.held, self.leave = asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(self._run(queue))

    async def _run(self, queue: RequestQueue) -> None:
        async with queue.turn():
            self.held.set()
            await self.leave.wait()


async def settle() -> None:
    """Let all tasks run until they wait."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_request_that_leaves_the_queue_takes_no_turn() -> None:
    async def run() -> None:
        queue = RequestQueue(1, 2)
        first, second, third = (Turn(queue) for _ in range(3))
        await settle()
        assert first.held.is_set() and queue.waiting == 2
        with pytest.raises(ApiError) as full:
            await Turn(queue).task
        assert full.value.status == 429 and int(full.value.headers["retry-after"]) >= 1
        second.task.cancel()
        await settle()
        first.leave.set()
        await settle()
        assert third.held.is_set()
        third.leave.set()
        # A request that is given its turn and cancelled at the same moment passes it on.
        async with queue.turn():
            fourth, fifth = Turn(queue), Turn(queue)
            await settle()
        fourth.task.cancel()
        await settle()
        assert fifth.held.is_set() and not fourth.held.is_set() and queue.running == 1
        waiting = Turn(queue)
        await settle()
        queue.close()
        for refused in (waiting, Turn(queue), Turn(queue)):
            with pytest.raises(ApiError, match="shutting down"):
                await refused.task
        assert queue.running == 1
        fifth.leave.set()
        await fifth.task

    asyncio.run(run())


class Numbers:
    """Counts for ever, until it is cancelled."""

    def __init__(self, most: int, error: Exception | None = None) -> None:
        self.given, self.most, self.error = 0, most, error
        self.cancelled, self.closed = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[int]:
        while self.given < self.most and not self.cancelled.is_set():
            self.given += 1
            yield self.given
        if self.error is not None:
            raise self.error

    def cancel(self) -> None:
        self.cancelled.set()

    def close(self) -> None:
        self.closed.set()


def test_a_bridge_gives_all_in_order_and_then_what_went_wrong() -> None:
    async def run() -> None:
        with ThreadPoolExecutor(1) as pool:
            source = Numbers(2000, ValueError("broke"))
            bridge, came = ThreadBridge(source, pool), []
            with pytest.raises(ValueError, match="broke"):
                async for item in bridge:
                    came.append(item)
            assert came == list(range(1, 2001)) and source.closed.is_set()

    asyncio.run(run())


def test_a_bridge_runs_no_further_ahead_of_its_reader_than_it_may_and_stops() -> None:
    async def run() -> None:
        with ThreadPoolExecutor(1) as pool:
            source = Numbers(10**9)
            bridge = ThreadBridge(source, pool)
            async for _ in bridge:
                break
            await asyncio.sleep(0.2)
            assert source.given < 1000
            await bridge.end()
            assert source.closed.is_set() and bridge.thread.done()

    asyncio.run(run())


class Hangs(Numbers):
    """Gives one number and hangs, whoever cancels it."""

    def __init__(self) -> None:
        super().__init__(1)
        self.over = threading.Event()

    def __iter__(self) -> Iterator[int]:
        yield 1
        self.over.wait(30)


def test_a_bridge_that_is_cut_or_abandoned_does_not_wait_for_its_thread() -> None:
    async def run() -> None:
        with ThreadPoolExecutor(1) as pool:
            source = Hangs()
            bridge, came = ThreadBridge(source, pool), []
            async for item in bridge:
                came.append(item)
                bridge.cut()
            ending = asyncio.create_task(bridge.end())
            await settle()
            ending.cancel()
            await settle()
            assert came == [1] and not ending.done(), "the turn is not over while a model may be writing"
            bridge.abandon()
            await ending
            assert not bridge.thread.done()
            source.over.set()

    asyncio.run(run())


def test_a_conversation_is_known_by_what_was_said_before_its_last_answer() -> None:
    known = Sessions()
    begun = [user("one")]
    assert known.model_of("auto", begun) is None
    known.answered("auto", begun, "a")
    goes_on = [*begun, assistant("anything, edited even"), user("two")]
    assert known.model_of("auto", goes_on) == "a"
    assert known.model_of("auto:best", goes_on) is None, "asked for as another, it is another"
    assert known.model_of("auto", [user("uno"), *goes_on[1:]]) is None
    called = [*begun, assistant(""), {"role": "tool", "content": "3", "tool_call_id": "x"}]
    assert known.model_of("auto", called) == "a", "a tool's result goes back to who called it"
    assert b"one" not in b"".join(known._known)


def test_it_stays_unless_another_is_better_by_more_than_the_threshold() -> None:
    near = decided(candidate(A, 0.75), candidate(B, 0.7))
    assert keep_model(near, "b", 0.1).choice == "b" and "stays with b" in keep_model(near, "b", 0.1).warnings[-1]
    assert keep_model(near, "b", 0.01).choice == "a"
    assert keep_model(near, "gone", 0.1) is near and keep_model(near, None, 0.1) is near
    ruled_out = decided(candidate(A, 0.75), candidate(B, 0.7, excluded_by="max_usd"))
    assert keep_model(ruled_out, "b", 0.1).choice == "a", "a limit goes before a habit"
    first = keep_model(near, "b", 0.1).candidates
    assert [one.model for one in first] == ["b", "a"], "who would be asked next is the better one"


def test_tool_calls_that_come_in_pieces_are_put_together() -> None:
    deltas = [
        {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 1, "id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}], "reasoning_content": "so "},
        {"reasoning_content": "be it"},
    ]
    assert joined(deltas) == {
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
            {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
        "reasoning_content": "so be it",
    }


def test_a_request_narrows_limits_and_never_widens_them() -> None:
    held = replace(Settings(), max_usd=0.01, local_only=True)
    wide = tightened(held, RequestOptions({"max_usd": 5.0, "local_only": False, "alpha": 0.9, "max_tokens": 7}))
    assert (wide.max_usd, wide.local_only, wide.alpha, wide.max_tokens) == (0.01, True, 0.9, 7)
    assert tightened(held, RequestOptions({"max_usd": 0.001})).max_usd == 0.001


def test_each_server_has_metrics_of_its_own() -> None:
    metrics, other = Metrics(), Metrics()
    for seconds in (0.001, 0.3, 1000.0):
        metrics.decision_seconds.observe(seconds)
    metrics.requests.labels(path='odd"\\name\n', status="200").inc()
    text = metrics.text({"running": 3}).decode()
    assert 'scope_edge_decision_seconds_bucket{le="+Inf"} 3' in text and 'le="0.5"} 2' in text
    assert "scope_edge_decision_seconds_sum 1000.301" in text and "scope_edge_running 3" in text
    assert 'scope_edge_requests_total{path="odd\\"\\\\name\\n"' in text and "_created" not in text
    assert "decision_seconds_count 0" in other.text({}).decode()
