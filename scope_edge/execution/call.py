"""One call of a model: its cost is reserved before it and settled after it, its answer is read piece by piece."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from scope_edge.catalog.endpoint import addresses_of, parse_endpoint
from scope_edge.encoding.token_count import PromptTokens, estimate_prompt_tokens
from scope_edge.errors import AssetError, ProviderError
from scope_edge.execution.token_budget import TokenBudget, check_sized, estimated_prompt, token_budget_for
from scope_edge.policy.price import Price
from scope_edge.providers.openai.stream import Piece
from scope_edge.providers.thoughts import ThoughtFilter

if TYPE_CHECKING:
    from scope_edge.execution.protocols import CompletionStream, Provider
    from scope_edge.execution.request import Request
    from scope_edge.execution.spending import Ledger
    from scope_edge.types import Candidate, Counted, Ending, ModelCard

# The field in which servers send what a model thinks.
_REASONING = "reasoning_content"


@dataclass(frozen=True, slots=True)
class Bill:
    """What a call has used: the model's own tokens, None = unknown; how they were counted; US dollars, None = unknown."""

    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    counted: Counted | None = None
    usd: float | None = None


class Call:
    """One attempt of one candidate. `begin`, iterate `pieces`, and always `settle`.

    Attributes:
        first: when the first piece came, by time.monotonic(). problem: what went wrong while settling, in one line.
    """

    def __init__(self, candidate: Candidate, card: ModelCard, provider: Provider, ledger: Ledger | None) -> None:
        self.candidate, self.card = candidate, card
        self.first: float | None = None
        self.problem: str | None = None
        self._provider, self._ledger = provider, ledger
        self._stream: CompletionStream[Any] | None = None
        self._reservation: int | None = None
        self._budget: TokenBudget | None = None
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        # Nothing is owed before the model is called.
        self._free, self._reserved = True, False
        self._ended = threading.Event()

    @property
    def server(self) -> str:
        """The address that is called without its path, or "this machine"."""
        if self.card.endpoint is None:
            return "this machine"
        endpoint = parse_endpoint(self.card.endpoint)
        return f"{addresses_of(endpoint.host)[0]}:{endpoint.port}"

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._texts)

    @property
    def ending(self) -> Ending:
        """How a whole answer ended."""
        return "failed" if self._stream is None else self._stream.ending

    def begin(self, request: Request, fields: Mapping[str, Any], spent: float = 0.0) -> None:
        """Reserve the cost and call the model. spent: US dollars, by the calls before this one.

        Raises ProviderError, BudgetError (a cap on spending forbids it), AssetError (the ledger cannot be read or written).
        """
        messages, limits = request.conversation, request.limits
        if limits.usd is not None and spent:
            limits = replace(limits, usd=limits.usd - spent)
        capped = self._ledger is not None and self._ledger.capped
        check_sized(self.card, messages, fields, limits, capped=capped)
        counted = None if limits.tokens is None else self._provider.prompt_tokens(self.card, messages)
        exact = None if counted is None else PromptTokens(float(counted), float(counted))
        prompt = exact or estimated_prompt(self.card, messages, fields)
        self._budget = token_budget_for(self.card, self.candidate, limits, prompt, fields, capped=capped)
        if self._ledger is not None and not Price.on(self.card).free:
            self._reservation, self._reserved = self._ledger.reserve(self._budget.usd_hi, self.card.id), True
        try:
            self._stream = self._provider.begin(self.card, messages, fields, self._budget, request.until)
        except ProviderError as error:
            self._free = error.unbilled
            raise
        # From here on; what failed before was not sent.
        self._free = False
        if self._ended.is_set():
            self._stream.close()

    def pieces(self) -> Iterator[Piece]:
        """Yield the answer as it comes. Raises ProviderError."""
        if self._stream is None:
            return
        try:
            for piece in self._parted(self._stream):
                if self.first is None:
                    self.first = time.monotonic()
                self._texts.append(piece.text)
                yield piece
        except ProviderError as error:
            self._free = error.unbilled and self.first is None
            raise

    def _parted(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """Move what a model thinks before its answer from the text to the field that servers use for it."""
        thoughts = ThoughtFilter()
        for piece in pieces:
            thought, text = thoughts.feed(piece.text)
            self._thoughts.append(piece.beside)
            if (part := _piece(thought, text, piece.extra)) is not None:
                self._thoughts.append(thought)
                yield part
        thought, text = thoughts.rest()
        if (part := _piece(thought, text, {})) is not None:
            self._thoughts.append(thought)
            yield part

    def end(self) -> None:
        """End it, from any thread, even while `begin` runs."""
        self._ended.set()
        if self._stream is not None:
            self._stream.close()

    def settle(self) -> Bill:
        """Close the stream, settle with the ledger once, and return the bill. Missing counts are estimated from the texts."""
        if self._stream is not None:
            self._stream.close()
        bill = self._bill()
        if self._ledger is not None and self._reserved:
            self._reserved = False
            try:
                if self._free:
                    self._ledger.release(self._reservation)
                else:
                    self._ledger.settle(self._reservation, bill.usd)
            except AssetError as error:
                self.problem = f"its cost stays reserved: {error}"
            self.problem = self.problem or self._ledger.problem
        return bill

    def overrun(self, bill: Bill) -> str | None:
        """Say by how much a server exceeded its limit; None = it kept to it."""
        most = None if self._budget is None else self._budget.max_tokens
        wrote = bill.completion_tokens
        if most is None or wrote is None or wrote <= most or bill.counted == "estimate":
            return None
        return f"{self.card.id} wrote {wrote:.0f} tokens, more than its limit of {most}"

    def _bill(self) -> Bill:
        if self._free or self._budget is None:
            return Bill(usd=0.0)
        stream = self._stream
        prompt = None if stream is None else stream.prompt_tokens
        completion = None if stream is None else stream.completion_tokens
        counted: Counted = "estimate" if stream is None or prompt is None or completion is None else stream.counted
        # Thoughts are paid for as well.
        text = "".join((*self._thoughts, self.text))
        wrote = estimate_prompt_tokens(text).expected * self.card.token_factor
        prompt_tokens = self._budget.prompt.expected if prompt is None else float(prompt)
        completion_tokens = wrote if completion is None else float(completion)
        price = Price.on(self.card)
        usd = 0.0 if price.free else price.of(prompt_tokens, completion_tokens)
        return Bill(prompt_tokens, completion_tokens, counted, usd)


def _piece(thought: str, text: str, extra: Mapping[str, Any]) -> Piece | None:
    """Return a piece of text and thought; None = it would be empty."""
    if not (thought or text or extra):
        return None
    if not thought:
        return Piece(text, extra)
    return Piece(text, {**extra, _REASONING: f"{extra.get(_REASONING) or ''}{thought}"})
