"""One answer, as it comes: asked of the best model first, of the next one as long as nothing has been given yet.

What has been given is never given again: an answer that breaks off after its first piece ends in an error that says so, while
one that breaks before it is the next model's to give.
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
from scope_edge.providers.openai.stream import Piece
from scope_edge.types import Answer, Attempt, Candidate, Run

if TYPE_CHECKING:
    from scope_edge.execution.protocols import JournalSink, Provider, SpendingGuard
    from scope_edge.execution.request import Request
    from scope_edge.types import Decision, Ending, ModelCard, Where

# Whoever fails in a way that may pass is asked again once all others have failed too, after a pause.
_ROUNDS = 2
_PAUSE, _LONGEST_PAUSE = 0.5, 20.0
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
        ledger: SpendingGuard | None = None,
        journal: JournalSink | None = None,
    ) -> None:
        """device: runs GGUFs, None = there are none. cloud: calls endpoints. agree: whether two answers say the same. Closes them all."""
        self.cards: Mapping[str, ModelCard] = {card.id: card for card in cards}
        self.agree, self.ledger, self.journal = agree, ledger, journal
        self._device, self._cloud = device, cloud

    def start(self, request: Request) -> Execution:
        """An answer; nothing is asked before it is iterated."""
        return Execution(self, request)

    def call(self, candidate: Candidate) -> Call:
        """One try of one candidate, not begun."""
        card = self.cards[candidate.model]
        place = self._device if card.gguf is not None and self._device is not None else self._cloud
        return Call(candidate, card, place, self.ledger)

    def close(self) -> None:
        """End what runs."""
        for part in (self._device, self._cloud):
            if part is not None:
                part.close()
        self.release()

    def release(self) -> None:
        """Close the user's files, and leave open where models run. The next use opens them again."""
        for part in (self.ledger, self.journal):
            if part is not None:
                part.close()


class Execution:
    """An answer on its way: iterate it once, in one thread. `cancel` may be called from any.

    Attributes:
        attempts: who was asked and did not answer, so far. model, where: who answers, once there is a piece.
        answer: once it has come to its end; also of one that was cancelled.

    Iterating raises UnansweredError, RefusedError, BrokenAnswerError and, where a cap on spending forbids the last that could
    be asked, BudgetError.
    """

    def __init__(self, executor: Executor, request: Request) -> None:
        self._executor, self._request = executor, request
        self._cancelled = threading.Event()
        self._calls: list[Call] = []
        self._usd: float | None = 0.0
        self._warnings: list[str] = []
        self._again: list[tuple[Candidate, float]] = []
        self._doubted: tuple[Candidate, Call, Bill, tuple[Piece, ...]] | None = None
        self._budget_errors: list[BudgetError] = []
        self._over = False
        self.attempts: list[Attempt] = []
        self.model: str | None = None
        self.where: Where | None = None
        self.answer: Answer | None = None
        self._pieces = self._run()

    @property
    def decision(self) -> Decision:
        """What is carried out."""
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
        """Done with it, for the thread that iterates: what has not come yet does not, and is not paid for any further."""
        self._cancelled.set()
        self._pieces.close()
        if not self._over:
            self._end(None, Bill(None, None, None, None), "cancelled")

    def cancel(self) -> None:
        """End it, from whichever thread: who iterates comes to the end soon."""
        self._cancelled.set()
        for call in tuple(self._calls):
            call.end()

    def _run(self) -> Generator[Piece, None, None]:
        for candidate in self._turns():
            if (yield from self._try(candidate)):
                return
        if self._doubted is not None and not self._cancelled.is_set():
            _, call, bill, pieces = self._doubted
            self._warnings.append(
                f"{call.card.id} contradicted itself when asked twice, and nobody better could be asked"
            )
            yield from self._give(call, bill, pieces)
            return
        if self._cancelled.is_set():
            self._end(None, Bill(None, None, None, None), "cancelled")
            return
        self._give_up()

    def _turns(self) -> Iterator[Candidate]:
        """Whose turn it is, while there is anybody to ask and time to."""
        waiting = fallback_order(self._request, self._executor.cards)
        for round_ in range(_ROUNDS):
            self._again = []
            for candidate in waiting:
                if self._cancelled.is_set() or time.monotonic() >= self._request.until:
                    return
                if self._doubted is None or better_elsewhere((candidate,), self._doubted[0]):
                    yield candidate
            if not self._again or round_ == _ROUNDS - 1:
                return
            pause = max(_PAUSE, min(wait for _, wait in self._again))
            if pause > _LONGEST_PAUSE or time.monotonic() + pause >= self._request.until:
                return
            self._cancelled.wait(pause)
            waiting = tuple(candidate for candidate, _ in self._again)

    def _try(self, candidate: Candidate) -> Generator[Piece, None, bool]:
        """Whether it is over: True = it answered, or the caller has cancelled; False = the next one's turn."""
        why = why_not_called(self._executor.cards[candidate.model], local_only=self._request.local_only)
        if why is not None:
            self._note(candidate, why)
            return False
        if candidate.where == "device" and self._doubted is None and worth_checking(self._request):
            return (yield from self._try_twice(candidate))
        call = self._begun(self._executor.call(candidate))
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
            bill = self._settled(call)
            if ending in ("cancelled", "complete", "cut"):
                self._end(call, bill, ending)
        if ending in ("cancelled", "complete", "cut"):
            return True
        self._take(call, bill, failure)
        return False

    def _try_twice(self, candidate: Candidate) -> Generator[Piece, None, bool]:
        """As `_try`, with a second sample to compare with."""
        first, second = (self._begun(self._executor.call(candidate)) for _ in range(2))
        failure: Exception | None = None
        checked = None
        try:
            checked = read_twice(first, second, self._request, self._executor.agree)
        except (ProviderError, BudgetError, AssetError) as error:
            failure = error
        finally:
            bill, _ = self._settled(first), self._settled(second)
        if self._cancelled.is_set():
            self._end(first, bill, "cancelled")
            return True
        if checked is None:
            # Nothing was given of it: whatever became of it, the next one may begin anew.
            self._note(candidate, str(failure), failure)
            return False
        if checked.verdict == "differ":
            self._doubted = (candidate, first, bill, checked.pieces)
            self._note(candidate, "contradicted itself when asked twice")
            return False
        if checked.verdict == "unchecked":
            self._warnings.append(f"{candidate.model} could not be asked a second time: {checked.why}")
        yield from self._give(first, bill, checked.pieces)
        return True

    def _give(self, call: Call, bill: Bill, pieces: Sequence[Piece]) -> Iterator[Piece]:
        """An answer that is whole already."""
        ending: Ending = "cancelled"
        self._commit(call)
        try:
            yield from pieces
            ending = self._whole(call)
        finally:
            self._end(call, bill, ending)

    def _begun(self, call: Call) -> Call:
        self._calls.append(call)
        if self._cancelled.is_set():
            call.end()
        return call

    def _settled(self, call: Call) -> Bill:
        bill = call.settle()
        self._usd = None if self._usd is None or bill.usd is None else self._usd + bill.usd
        self._warnings += filter(None, (call.overrun(bill), call.problem))
        return bill

    def _commit(self, call: Call) -> None:
        self.model, self.where = call.card.id, call.card.where

    def _whole(self, call: Call) -> Ending:
        """Of an answer that came to its end, and what to know of it."""
        if call.ending == "cut":
            late = time.monotonic() >= self._request.until
            self._warnings.append(_LATE if late else "the answer was cut off at the limit on its tokens")
        return call.ending

    def _ending_of(self, call: Call) -> Ending:
        """Of an answer that did not come to its end by itself."""
        if self._cancelled.is_set():
            return "cancelled"
        if call.first is None:
            return "failed"
        if time.monotonic() >= self._request.until:
            self._warnings.append(_LATE)
            return "cut"
        return "broken"

    def _take(self, call: Call, bill: Bill, failure: Exception | None) -> None:
        """What a failed try means: raises where no other may follow."""
        model, why = call.card.id, str(failure)
        if call.first is not None:
            run = self._end(call, bill, "broken")
            raise BrokenAnswerError(
                f"{model} broke off after {len(call.text)} characters ({why}); ask again for a whole answer",
                call.text,
                run,
            ) from failure
        self._note(call.candidate, why, failure)
        if isinstance(failure, ProviderError) and failure.content and self._doubted is None:
            raise RefusedError(f"{model}: {why}", self._end(None, bill, "failed")) from failure

    def _note(self, candidate: Candidate, why: str, failure: Exception | None = None) -> None:
        self.attempts.append(Attempt(candidate.model, candidate.where, why))
        if isinstance(failure, ProviderError) and failure.retryable:
            self._again.append((candidate, failure.retry_after or 0.0))
        if isinstance(failure, BudgetError):
            self._budget_errors.append(failure)

    def _give_up(self) -> None:
        run = self._end(None, Bill(None, None, None, None), "failed")
        late = time.monotonic() >= self._request.until
        if self._budget_errors and len(self._budget_errors) == len(self.attempts):
            raise self._budget_errors[-1]
        if not self.attempts:
            raise UnansweredError(
                "the time was up before anybody could be asked; give more of it" if late else "nobody may be asked", run
            )
        latest = {one.model: f"{one.model}: {one.error}" for one in self.attempts}
        lead = "the time was up before anybody answered" if late else "nobody answered"
        raise UnansweredError(f"{lead} ({'; '.join(latest.values())})", run)

    def _end(self, call: Call | None, bill: Bill, ending: Ending) -> Run:
        """Write down what became of it, once; None: nobody answered."""
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
        text = "" if call is None else call.text
        if ending not in ("failed", "broken"):
            self.answer = Answer(text, self.decision, run, id, tuple(self._warnings))
        return run
