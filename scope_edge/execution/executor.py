"""One answer, as it comes: from the best model, or from the next one if the best fails before its first piece.

A piece is never given twice: an answer that breaks off after its first piece ends in an error that says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from scope_edge.errors import AssetError, BrokenAnswerError, BudgetError, ProviderError, RefusedError, UnansweredError
from scope_edge.execution.call import Bill, Call
from scope_edge.execution.fallback import better_elsewhere, fallback_order, why_not_called
from scope_edge.execution.self_consistency import read_twice, worth_checking
from scope_edge.types import Answer, Attempt, Candidate, Run

if TYPE_CHECKING:
    from scope_edge.execution.protocols import Provider
    from scope_edge.execution.request import Request
    from scope_edge.execution.spending import Ledger
    from scope_edge.history import Journal
    from scope_edge.providers.openai.stream import Piece
    from scope_edge.types import Decision, Ending, ModelCard, Where

# A model whose failure may pass is called again, after a pause, once all others have failed too.
_ROUNDS = 2
_PAUSE, _LONGEST_PAUSE = 0.5, 20.0
# So many different servers have to refuse a question before no further one is asked.
_REFUSING_SERVERS = 2
_LATE = "the time was up before the answer was whole"


class Executor:
    """Carries decisions out. Threads may share it."""

    def __init__(
        self,
        cards: Sequence[ModelCard],
        *,
        device: Provider | None,
        cloud: Provider,
        agree: Callable[[str, str], bool],
        ledger: Ledger | None = None,
        journal: Journal | None = None,
    ) -> None:
        """device: runs GGUFs; None = no model has one. cloud: calls endpoints. agree: whether two answers say the same."""
        self.cards: Mapping[str, ModelCard] = {card.id: card for card in cards}
        self.agree, self.ledger, self.journal = agree, ledger, journal
        self._device, self._cloud = device, cloud

    def start(self, request: Request) -> Execution:
        """Return an answer; no model is called before it is iterated."""
        return Execution(self, request)

    def call(self, candidate: Candidate) -> Call:
        """Return a call of one candidate, not begun."""
        card = self.cards[candidate.model]
        provider = self._device if card.gguf is not None and self._device is not None else self._cloud
        return Call(candidate, card, provider, self.ledger)

    def close(self) -> None:
        """End what runs, and close the user's files."""
        for part in (self._device, self._cloud):
            if part is not None:
                part.close()
        self.release()

    def release(self) -> None:
        """Close the user's files, and leave the providers open. The next use opens the files again."""
        for part in (self.ledger, self.journal):
            if part is not None:
                part.close()


class Execution:
    """An answer on its way: iterate it once, in one thread. Any thread may `cancel` it.

    Attributes:
        attempts: the models that were called and did not answer, so far. model, where: the one that answers, from its first piece.
        answer: set at its end; also of one that was cancelled.

    Iterating raises UnansweredError, RefusedError, BrokenAnswerError and, where a cap on spending forbids every call, BudgetError.
    """

    def __init__(self, executor: Executor, request: Request) -> None:
        self._executor, self._request = executor, request
        self._cancelled = threading.Event()
        self._calls: list[Call] = []
        self._usd: float | None = 0.0
        self._warnings: list[str] = []
        self._retries: list[tuple[Candidate, float]] = []
        self._contradicted: tuple[Candidate, Call, Bill, tuple[Piece, ...]] | None = None
        self._budget_errors: list[BudgetError] = []
        self._refusing: list[str] = []
        self._unable: list[str] = []
        self._over = False
        self.attempts: list[Attempt] = []
        self.model: str | None = None
        self.where: Where | None = None
        self.answer: Answer | None = None
        self._pieces = self._run()

    @property
    def decision(self) -> Decision:
        """The decision that is carried out."""
        return self._request.decision

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        return next(self._pieces)

    def __enter__(self) -> Execution:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, from the thread that iterates: no further piece comes, or is paid for."""
        self._cancelled.set()
        self._pieces.close()
        if not self._over:
            self._end(None, Bill(), "cancelled")

    def cancel(self) -> None:
        """End it, from any thread: iterating stops soon."""
        self._cancelled.set()
        for call in tuple(self._calls):
            call.end()

    def _run(self) -> Generator[Piece, None, None]:
        for candidate in self._candidates():
            if (yield from self._try(candidate)):
                return
        if self._cancelled.is_set():
            self._end(None, Bill(), "cancelled")
        elif self._contradicted is not None:
            _, call, bill, pieces = self._contradicted
            self._warnings.append(f"{call.card.id} contradicted itself when asked twice, and no better model answered")
            yield from self._give(call, bill, pieces)
        else:
            self._give_up()

    def _candidates(self) -> Iterator[Candidate]:
        """Yield the models to call, while there is time."""
        waiting = fallback_order(self._request, self._executor.cards)
        for round_ in range(_ROUNDS):
            self._retries = []
            for candidate in waiting:
                if self._cancelled.is_set() or time.monotonic() >= self._request.until:
                    return
                if self._contradicted is None or better_elsewhere(candidate, self._contradicted[0]):
                    yield candidate
            if not self._retries or round_ == _ROUNDS - 1:
                return
            pause = max(_PAUSE, min(wait for _, wait in self._retries))
            if pause > _LONGEST_PAUSE or time.monotonic() + pause >= self._request.until:
                return
            self._cancelled.wait(pause)
            waiting = tuple(candidate for candidate, _ in self._retries)

    def _try(self, candidate: Candidate) -> Generator[Piece, None, bool]:
        """Call a model. Return True if it answered or the caller has cancelled, False if the next model's turn comes."""
        why = why_not_called(self._executor.cards[candidate.model], local_only=self._request.local_only)
        if why is not None:
            self._add_attempt(candidate, why)
            return False
        if candidate.where == "device" and self._contradicted is None and worth_checking(self._request):
            return (yield from self._try_twice(candidate))
        call = self._new_call(candidate)
        ending: Ending = "cancelled"
        failure: Exception | None = None
        try:
            call.begin(self._request, self._request.fields, self._usd or 0.0)
            for piece in call.pieces():
                self._commit(call)
                yield piece
            ending = "cancelled" if self._cancelled.is_set() else self._whole(call)
        except (ProviderError, BudgetError, AssetError) as error:
            failure = error
            ending = self._ending_of(call)
        finally:
            bill = self._settle(call)
            over = ending in ("cancelled", "complete", "cut", "loop")
            if over:
                self._end(call, bill, ending)
        if not over:
            self._failed(call, bill, failure)
        return over

    def _try_twice(self, candidate: Candidate) -> Generator[Piece, None, bool]:
        """Do as `_try`, with a second sample to compare with."""
        first, second = self._new_call(candidate), self._new_call(candidate)
        failure: Exception | None = None
        checked = None
        try:
            checked = read_twice(first, second, self._request, self._executor.agree)
        except (ProviderError, BudgetError, AssetError) as error:
            failure = error
        finally:
            bill, _ = self._settle(first), self._settle(second)
        if self._cancelled.is_set():
            self._end(first, bill, "cancelled")
            return True
        if checked is None:
            # No piece of it was given: however it failed, the next model may begin anew.
            self._refused(first, bill, failure)
            return False
        if checked.verdict == "differ":
            self._contradicted = (candidate, first, bill, checked.pieces)
            self._add_attempt(candidate, "contradicted itself when asked twice")
            return False
        if checked.verdict == "unchecked":
            self._warnings.append(f"{candidate.model} could not be asked a second time: {checked.why}")
        yield from self._give(first, bill, checked.pieces)
        return True

    def _give(self, call: Call, bill: Bill, pieces: Sequence[Piece]) -> Iterator[Piece]:
        """Yield an answer that is whole already."""
        ending: Ending = "cancelled"
        self._commit(call)
        try:
            yield from pieces
            ending = self._whole(call)
        finally:
            self._end(call, bill, ending)

    def _new_call(self, candidate: Candidate) -> Call:
        call = self._executor.call(candidate)
        self._calls.append(call)
        if self._cancelled.is_set():
            call.end()
        return call

    def _settle(self, call: Call) -> Bill:
        bill = call.settle()
        self._usd = None if self._usd is None or bill.usd is None else self._usd + bill.usd
        self._warnings += filter(None, (call.overrun(bill), call.problem))
        return bill

    def _commit(self, call: Call) -> None:
        self.model, self.where = call.card.id, call.card.where

    def _late(self) -> bool:
        return time.monotonic() >= self._request.until

    def _whole(self, call: Call) -> Ending:
        """Return how a whole answer ended, with a warning if it was cut."""
        if call.ending == "cut":
            self._warnings.append(_LATE if self._late() else "the answer was cut off at the limit on its tokens")
        elif call.ending == "loop":
            self._warnings.append(f"{call.card.id} only repeated itself, so its answer was ended")
        return call.ending

    def _ending_of(self, call: Call) -> Ending:
        """Return how an answer ended that failed."""
        if self._cancelled.is_set():
            return "cancelled"
        if call.first is None:
            return "failed"
        if self._late():
            self._warnings.append(_LATE)
            return "cut"
        return "broken"

    def _failed(self, call: Call, bill: Bill, failure: Exception | None) -> None:
        """Note a failed call. Raises BrokenAnswerError, RefusedError: no other model may follow."""
        if call.first is not None:
            run = self._end(call, bill, "broken")
            lead = f"{call.card.id} broke off after {len(call.text)} characters"
            raise BrokenAnswerError(f"{lead} ({failure}); ask again for a whole answer", call.text, run) from failure
        self._refused(call, bill, failure)

    def _refused(self, call: Call, bill: Bill, failure: Exception | None) -> None:
        """Note a call without an answer. Raises RefusedError: no other model may follow."""
        model, why = call.card.id, str(failure)
        self._add_attempt(call.candidate, why, failure)
        if isinstance(failure, ProviderError) and failure.code is not None:
            self._unable.append(failure.code)
        if not (isinstance(failure, ProviderError) and failure.content):
            return
        # One server's refusal may be its own fault; of two, it is the question's.
        self._refusing.append(call.server)
        if len(set(self._refusing)) >= _REFUSING_SERVERS and self._contradicted is None:
            raise RefusedError(f"{model}: {why}", self._end(None, bill, "failed")) from failure

    def _add_attempt(self, candidate: Candidate, why: str, failure: Exception | None = None) -> None:
        self.attempts.append(Attempt(candidate.model, candidate.where, why))
        if isinstance(failure, ProviderError) and failure.retryable:
            self._retries.append((candidate, failure.retry_after or 0.0))
        if isinstance(failure, BudgetError):
            self._budget_errors.append(failure)

    def _give_up(self) -> None:
        run, late = self._end(None, Bill(), "failed"), self._late()
        if self._budget_errors and len(self._budget_errors) == len(self.attempts):
            raise self._budget_errors[-1]
        if not self.attempts:
            why = "the time was up before a model could be called; allow more" if late else "no model may be called"
            raise UnansweredError(why, run)
        latest = {one.model: f"{one.model}: {one.error}" for one in self.attempts}
        if not late and len(self._refusing) + len(self._unable) == len(self.attempts):
            raise RefusedError("; ".join(latest.values()), run, self._unable[-1] if self._unable else None)
        lead = "the time was up before a model answered" if late else "no model answered"
        raise UnansweredError(f"{lead} ({'; '.join(latest.values())})", run)

    def _end(self, call: Call | None, bill: Bill, ending: Ending) -> Run:
        """Record how it ended, once. call: None = no model answered."""
        self._over = True
        begun, first = self._request.started, None if call is None else call.first
        run = Run(
            model=None if call is None else call.card.id,
            where=None if call is None else call.card.where,
            attempts=tuple(self.attempts),
            prompt_tokens=bill.prompt_tokens,
            completion_tokens=bill.completion_tokens,
            counted=bill.counted,
            usd=self._usd,
            first_token_seconds=None if first is None else first - begun,
            seconds=time.monotonic() - begun,
            ending=ending,
        )
        id, journal = None, self._executor.journal
        if journal is not None:
            id = journal.record(self._request.query, self.decision, run, encoded=self._request.encoded) or None
            if journal.problem is not None:
                self._warnings.append(journal.problem)
        if ending not in ("failed", "broken"):
            text = "" if call is None else call.text
            self.answer = Answer(text, self.decision, run, id, tuple(self._warnings))
        return run
