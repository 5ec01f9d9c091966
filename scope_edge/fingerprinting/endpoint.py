"""Questions to a model behind an endpoint, a few at once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from scope_edge.encoding.token_count import estimate_prompt_tokens
from scope_edge.errors import NoAnswerError, ScopeEdgeError
from scope_edge.fingerprinting.answer_log import LoggedAnswer

if TYPE_CHECKING:
    from scope_edge.fingerprinting.budget import CallMeter, SpendingBudget
    from scope_edge.fingerprinting.questions import Question
    from scope_edge.providers.openai.client import ChatClient
    from scope_edge.providers.openai.responses import ChatReply
    from scope_edge.types import Counted, ModelCard

_LOOK_SECONDS = 0.5


class EndpointAsker:
    """Asks one endpoint. Money is counted per call."""

    def __init__(
        self, card: ModelCard, client: ChatClient, purse: SpendingBudget, *, max_tokens: int, concurrency: int
    ) -> None:
        self._card, self._client, self._purse = card, client, purse
        self._max_tokens, self._concurrency = max_tokens, concurrency

    def ask(self, following: Callable[[], Question | None], take: Callable[[LoggedAnswer], bool]) -> None:
        """Ask what `following` gives until it gives None; hand every answer to `take`, in this thread.

        Raises NoAnswerError when nothing says that any question will fare better, RemoteError when none will. Answers that
        are on their way then are waited for.
        """
        todo: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        done: queue.SimpleQueue[LoggedAnswer | ScopeEdgeError] = queue.SimpleQueue()
        threads = [
            threading.Thread(target=self._serve, args=(todo, done), daemon=True) for _ in range(self._concurrency)
        ]
        for thread in threads:
            thread.start()
        under_way, failure = 0, None
        try:
            while True:
                while failure is None and under_way < self._concurrency and (question := following()) is not None:
                    todo.put(question)
                    under_way += 1
                if not under_way:
                    break
                came = _waited(done, threads)
                under_way -= 1
                if isinstance(came, LoggedAnswer):
                    take(came)
                else:
                    failure = failure or came
        finally:
            for _ in threads:
                todo.put(None)
        if failure is not None:
            raise failure

    def _serve(
        self, todo: queue.SimpleQueue[Question | None], done: queue.SimpleQueue[LoggedAnswer | ScopeEdgeError]
    ) -> None:
        while (question := todo.get()) is not None:
            try:
                done.put(self._answer(question))
            except ScopeEdgeError as error:
                done.put(error)

    def _answer(self, question: Question) -> LoggedAnswer:
        """One answer, or why there is none. Raises RemoteError, AssetError."""
        meter = self._purse.meter(question.anchor, worst_usd(self._purse, question, self._max_tokens))
        try:
            reply = self._client.ask(question.prompt, self._max_tokens, meter)
        except NoAnswerError as error:
            if error.hopeless:
                raise
            return LoggedAnswer(question.anchor, None, str(error))
        return self._counted(question, reply, meter)

    def _counted(self, question: Question, reply: ChatReply, meter: CallMeter) -> LoggedAnswer:
        """The answer with its tokens and cost: as the server counts, else estimated from the texts, and said to be."""
        prompt, completion = reply.prompt_tokens, reply.completion_tokens
        counted: Counted = "estimate" if prompt is None or completion is None else "server"
        prompt_tokens = question.prompt_tokens if prompt is None else float(prompt)
        wrote = estimate_prompt_tokens(reply.text).expected * self._card.token_factor
        completion_tokens = wrote if completion is None else float(completion)
        usd = self._purse.price.of(prompt_tokens, completion_tokens)
        meter.settle(usd)
        return LoggedAnswer(
            anchor=question.anchor,
            text=reply.text,
            cut=reply.cut,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            counted=counted,
            seconds=reply.seconds,
            usd=usd,
        )


def worst_usd(purse: SpendingBudget, question: Question, max_tokens: int) -> float | None:
    """What one call about a question can cost, in US dollars; None = the price is not known."""
    return purse.price.of(question.prompt_tokens_high, max_tokens)


def _waited(
    done: queue.SimpleQueue[LoggedAnswer | ScopeEdgeError], threads: list[threading.Thread]
) -> LoggedAnswer | ScopeEdgeError:
    """The next one; looking up now and then, so that Ctrl-C is heard on every system, and a thread that broke is seen."""
    while True:
        try:
            return done.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            if not all(thread.is_alive() for thread in threads):
                raise RuntimeError("a thread that asks has broken off") from None
