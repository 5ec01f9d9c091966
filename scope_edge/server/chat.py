"""/v1/chat/completions and /v1/completions: a conversation in, the answer of the model it should go to out, as it comes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from scope_edge.ask_request import Asked
from scope_edge.chat.stream import Piece
from scope_edge.errors import ScopeEdgeError
from scope_edge.records import Decision, Run
from scope_edge.server.exchange import Exchange, encoded
from scope_edge.server.problems import Problem, closing, problem_of
from scope_edge.server.pump import Pump
from scope_edge.server.shapes import Shape, error_details, event
from scope_edge.server.wire import Conversation, parse, read_chat, read_completion

if TYPE_CHECKING:
    from scope_edge.answer import Answer
    from scope_edge.executor import Execution
    from scope_edge.server.desk import Desk
    from scope_edge.server.names import Target
    from scope_edge.server.service import Service

SHOW = "x-scope-edge-decision"
_EVENTS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store"}
Read = Callable[..., Conversation]


class Answering:
    """Decides, then answers, in one thread: the decision comes first, then the pieces."""

    def __init__(self, desk: Desk, target: Target, conversation: Conversation) -> None:
        self._desk, self._target, self._conversation = desk, target, conversation
        self._cancelled = threading.Event()
        self._execution: Execution | None = None

    def __iter__(self) -> Iterator[Asked | Piece]:
        asked = self._desk.ask(self._target, self._conversation)
        self._execution = asked.execution
        yield asked
        if self._cancelled.is_set():
            asked.execution.cancel()
        yield from asked.execution

    def cancel(self) -> None:
        """End it, from whichever thread."""
        self._cancelled.set()
        if self._execution is not None:
            self._execution.cancel()

    def close(self) -> None:
        """Done with it, in the thread that read it."""
        if self._execution is not None:
            self._execution.close()


class Chat:
    """The two endpoints."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def chat(self, exchange: Exchange) -> None:
        """POST /v1/chat/completions."""
        await self._take(exchange, read_chat, chat=True)

    async def completion(self, exchange: Exchange) -> None:
        """POST /v1/completions."""
        await self._take(exchange, read_completion, chat=False)

    async def _take(self, exchange: Exchange, read: Read, *, chat: bool) -> None:
        show = exchange.header(SHOW).lower() in ("1", "true", "yes")
        conversation = await exchange.read(self._service.bounds.body_bytes, lambda raw: read(parse(raw), show=show))
        target = self._service.desk.names.find(conversation.model)
        reply = _Reply(exchange, self._service, target, conversation, Shape(chat, conversation.wishes.show))
        await exchange.unless_hung_up(reply.give())


class _Reply:
    """One answer on its way out."""

    def __init__(
        self, exchange: Exchange, service: Service, target: Target, conversation: Conversation, shape: Shape
    ) -> None:
        self._exchange, self._service, self._target = exchange, service, target
        self._conversation, self._shape = conversation, shape
        self._asked: Asked | None = None
        self._pieces: list[Piece] = []

    async def give(self) -> None:
        """All of it, or what went wrong. Raises Problem (there is no turn), HungUp."""
        async with self._service.answers.turn():
            pump = Pump(Answering(self._service.desk, self._target, self._conversation), self._service.threads)
            self._service.pumps.add(pump)
            run: Run | None = None
            try:
                run = await (self._stream(pump) if self._conversation.stream else self._whole(pump))
            except ScopeEdgeError as error:
                run = _run_of(error)
                await self._refuse(self._problem(error))
            except Problem as problem:
                await self._refuse(problem)
            finally:
                # Its turn ends with its thread: until then a model may be writing.
                await pump.end()
                self._service.pumps.discard(pump)
                self._note(run)

    async def _refuse(self, problem: Problem) -> None:
        """Said at once, though the thread may not be done."""
        if not self._exchange.begun:
            await self._exchange.problem(problem)

    def _problem(self, error: ScopeEdgeError) -> Problem:
        problem = problem_of(error)
        if self._conversation.wishes.show:
            problem.more["scope_edge"] = error_details(error, None if self._asked is None else self._asked.decision)
        return problem

    async def _whole(self, pump: Pump[Asked | Piece]) -> Run:
        async for batch in pump.batches():
            self._sort(batch)
        answer = self._answer()
        self._shape.model = answer.run.model or ""
        headers = self._headers() | {"x-scope-edge-id": answer.id or "none"}
        await self._exchange.json(200, self._shape.whole(answer, self._pieces), headers)
        return answer.run

    async def _stream(self, pump: Pump[Asked | Piece]) -> Run | None:
        """The status is sent with the first piece, when it is known who answers; what goes wrong before has its own."""
        given = 0
        try:
            async for batch in pump.batches():
                self._sort(batch)
                if not self._exchange.begun and self._pieces:
                    await self._begin()
                events = b"".join(self._shape.piece(piece) for piece in self._pieces[given:])
                given = len(self._pieces)
                if events:
                    await self._exchange.write(events, more=True)
            answer = self._answer()
        except ScopeEdgeError as error:
            if not self._exchange.begun:
                raise
            await self._exchange.write(event(self._problem(error).body()), more=False)
            return _run_of(error)
        except Problem as problem:
            if not self._exchange.begun:
                raise
            await self._exchange.write(event(problem.body()), more=False)
            return None
        if not self._exchange.begun:
            await self._begin()
        await self._exchange.write(b"".join(self._shape.last(answer, usage=self._conversation.usage)), more=False)
        return answer.run

    async def _begin(self) -> None:
        asked = self._decided()
        self._shape.model = asked.execution.model or ""
        await self._exchange.start(200, encoded(_EVENTS | self._headers()))
        first = self._shape.first(asked.decision, asked.execution.attempts)
        if first:
            await self._exchange.write(first, more=True)

    def _sort(self, batch: list[Asked | Piece]) -> None:
        for item in batch:
            if isinstance(item, Asked):
                self._asked = item
                self._service.metrics.time("decision_seconds", item.deciding)
                if item.sticky:
                    self._service.metrics.count("sticky_total")
            else:
                self._pieces.append(item)

    def _decided(self) -> Asked:
        if self._asked is None:
            raise closing()
        return self._asked

    def _answer(self) -> Answer:
        """Raises Problem: it was ended from here, since the server is ending."""
        answer = self._decided().execution.answer
        if answer is None or answer.run.ending == "cancelled":
            raise closing()
        return answer

    def _headers(self) -> dict[str, str]:
        asked = self._decided()
        return decision_headers(asked.decision, asked.execution.model, sticky=asked.sticky) | {
            "x-scope-edge-attempts": str(len(asked.execution.attempts))
        }

    def _note(self, run: Run | None) -> None:
        """Remember what became of it."""
        if self._asked is None:
            return
        execution = self._asked.execution
        answer = execution.answer
        run = run or (None if answer is None else answer.run)
        if run is None:
            return
        self._service.ran(self._target.name, execution.decision, run, None if answer is None else answer.id)
        if run.first_token_seconds is not None:
            self._service.metrics.time("first_piece_seconds", run.first_token_seconds)
        if run.model is not None and run.ending in ("complete", "cut") and self._target.pinned is None:
            self._service.desk.conversations.answered(self._target.name, self._conversation.messages, run.model)


def decision_headers(decision: Decision, model: str | None, *, sticky: bool = False) -> dict[str, str]:
    """Why who answers, in headers. model: who does; None = nobody has been asked."""
    row = next((one for one in decision.candidates if one.model == (model or decision.choice)), None)
    found: dict[str, Any] = {
        "choice": decision.choice or "none",
        "model": model,
        "where": None if row is None else row.where,
        "alpha": f"{decision.alpha:g}",
        "evidence": None if row is None else row.evidence,
        "p-correct": None if row is None or row.p_correct is None else f"{row.p_correct:.4f}",
        "usd-expected": None if row is None or row.usd is None else f"{row.usd:.8f}".rstrip("0").rstrip("."),
        "sticky": "1" if sticky else None,
        "over-budget": "1" if decision.over_budget else None,
    }
    return {f"x-scope-edge-{name}": value for name, value in found.items() if value}


def _run_of(error: ScopeEdgeError) -> Run | None:
    run = getattr(error, "run", None)
    return run if isinstance(run, Run) else None
