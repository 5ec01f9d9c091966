"""Questions to a model behind an endpoint, a few at once, and the money they cost."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scope_edge.encoding.token_count import estimate_prompt_tokens
from scope_edge.errors import NoAnswerError, ScopeEdgeError, UsageError
from scope_edge.fingerprinting.answer_log import AnswerLog, LoggedAnswer
from scope_edge.policy.price import Price
from scope_edge.types import ModelCard

if TYPE_CHECKING:
    from scope_edge.fingerprinting.questions import Question
    from scope_edge.providers.openai.client import ChatClient
    from scope_edge.providers.openai.responses import ChatReply
    from scope_edge.types import Counted

_LOOK_SECONDS = 0.5


class SpendingBudget:
    """The money a run has spent and may have spent. Threads may share it.

    The cap is on the second: it holds whatever becomes of the calls under way. spent: on answers; reserved: for calls without
    an answer, in US dollars.
    """

    def __init__(self, card: ModelCard, log: AnswerLog, max_usd: float | None) -> None:
        """Raises UsageError: a cap without a price."""
        self.price = Price.on(card)
        if max_usd is not None and card.usd_in is None:
            raise UsageError(
                f"the price of {card.id} is not known, so spending cannot be limited; write usd_in and usd_out on its card,"
                " or leave out --max-usd"
            )
        self.log, self._limit = log, max_usd
        self.lock = threading.Lock()
        self.spent = sum(answer.usd or 0.0 for answer in log.answers.values())
        self.reserved = log.unanswered_usd

    @property
    def at_most(self) -> float:
        """The money spent on answers, and what calls without an answer may have cost."""
        return self.spent + self.reserved

    def worst_usd(self, question: Question, max_tokens: int) -> float | None:
        """Return the most that one call about a question can cost, in US dollars; None = unknown price."""
        return self.price.of(question.prompt_tokens_high, max_tokens)

    def allows(self, usd: float | None) -> bool:
        """Return whether a call that costs up to `usd` keeps to the limit."""
        return self._limit is None or usd is None or self.at_most + usd <= self._limit


@dataclass(frozen=True, slots=True)
class CallMeter:
    """The calls about one anchor, as a `CostHook`. usd: the most that one may cost; None = unknown price."""

    budget: SpendingBudget
    anchor: str
    usd: float | None

    def begin(self) -> bool:
        """Log the call and reserve its cost, unless it could exceed the limit; return whether it is allowed."""
        with self.budget.lock:
            if not self.budget.allows(self.usd):
                return False
            self.budget.reserved += self.usd or 0.0
        self.budget.log.calls(self.anchor, self.usd)
        return True

    def unbilled(self) -> None:
        """Log that the last call cost nothing."""
        with self.budget.lock:
            self.budget.reserved -= self.usd or 0.0
        self.budget.log.fails(self.anchor)

    def settle(self, cost: float | None) -> None:
        """Count the cost of the last call, which was answered."""
        with self.budget.lock:
            self.budget.reserved -= self.usd or 0.0
            self.budget.spent += cost or 0.0


class EndpointAsker:
    """Asks one endpoint, `concurrency` questions at once."""

    def __init__(
        self, card: ModelCard, client: ChatClient, budget: SpendingBudget, *, max_tokens: int, concurrency: int
    ) -> None:
        self._card, self._client, self._budget = card, client, budget
        self._max_tokens, self._concurrency = max_tokens, concurrency
        self._done: queue.SimpleQueue[LoggedAnswer | ScopeEdgeError] = queue.SimpleQueue()

    def ask(self, next_question: Callable[[], Question | None], record: Callable[[LoggedAnswer], bool]) -> None:
        """Ask `next_question` until it returns None; pass every answer to `record`, in this thread.

        Raises NoAnswerError when no question is likely to be answered, RemoteError when none can be. Answers that are under
        way then are waited for.
        """
        threads: list[threading.Thread] = []
        under_way, failure = 0, None
        while True:
            while failure is None and under_way < self._concurrency and (question := next_question()) is not None:
                # Daemons: an interrupted run does not wait for the calls under way.
                threads = [one for one in threads if one.is_alive()]
                threads.append(threading.Thread(target=self._serve, args=(question,), daemon=True))
                threads[-1].start()
                under_way += 1
            if not under_way:
                break
            came = self._wait(threads)
            under_way -= 1
            if isinstance(came, LoggedAnswer):
                record(came)
            else:
                failure = failure or came
        if failure is not None:
            raise failure

    def _wait(self, threads: list[threading.Thread]) -> LoggedAnswer | ScopeEdgeError:
        """Wait for an answer; look up now and then, so that Ctrl-C works on every system and a broken thread is noticed."""
        while True:
            try:
                return self._done.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                if not any(thread.is_alive() for thread in threads) and self._done.empty():
                    raise RuntimeError("a thread that asks has broken off") from None

    def _serve(self, question: Question) -> None:
        try:
            self._done.put(self._answer(question))
        except ScopeEdgeError as error:
            self._done.put(error)

    def _answer(self, question: Question) -> LoggedAnswer:
        """Return the answer, or why it is missing. Raises RemoteError, AssetError."""
        worst = self._budget.worst_usd(question, self._max_tokens)
        meter = CallMeter(self._budget, question.anchor, worst)
        try:
            reply = self._client.ask(question.prompt, self._max_tokens, meter)
        except NoAnswerError as error:
            if error.hopeless:
                raise
            return LoggedAnswer(question.anchor, None, str(error))
        answer = self._counted(question, reply)
        meter.settle(answer.usd)
        return answer

    def _counted(self, question: Question, reply: ChatReply) -> LoggedAnswer:
        """Return the answer with its tokens and cost: the server's count, or an estimate that is marked as one."""
        prompt, completion = reply.prompt_tokens, reply.completion_tokens
        counted: Counted = "estimate" if prompt is None or completion is None else "server"
        if completion is None:
            completion_tokens = estimate_prompt_tokens(reply.text).expected * self._card.token_factor
        else:
            completion_tokens = float(completion)
        prompt_tokens = question.prompt_tokens if prompt is None else float(prompt)
        return LoggedAnswer(
            anchor=question.anchor,
            text=reply.text,
            cut=reply.cut,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            counted=counted,
            seconds=reply.seconds,
            usd=self._budget.price.of(prompt_tokens, completion_tokens),
        )
