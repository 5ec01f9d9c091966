"""One model asked: its cost reserved before the call and settled after it, its answer read piece by piece."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from scope_edge.encoding.token_count import PromptTokens, estimate_prompt_tokens
from scope_edge.errors import AssetError, ProviderError
from scope_edge.execution.protocols import CompletionStream, Provider, SpendingGuard, TokenBudget
from scope_edge.execution.token_budget import estimated_prompt, token_budget_for, wanted_tokens
from scope_edge.policy.costs import Price
from scope_edge.providers.openai.stream import Piece

if TYPE_CHECKING:
    from scope_edge.execution.request import Request
    from scope_edge.types import Candidate, Counted, Ending, ModelCard


@dataclass(frozen=True, slots=True)
class Bill:
    """What a call used: the model's own tokens, None = not known; who counted them; US dollars, None = the price is unset."""

    prompt_tokens: float | None
    completion_tokens: float | None
    counted: Counted | None
    usd: float | None


class Call:
    """One try of one candidate. `begin`, iterate `pieces`, and always `settle`."""

    problem: str | None = None
    """What went wrong while settling it, in one line."""

    def __init__(self, candidate: Candidate, card: ModelCard, place: Provider, ledger: SpendingGuard | None) -> None:
        self.candidate, self.card = candidate, card
        self._place, self._ledger = place, ledger
        self._answering: CompletionStream[Any] | None = None
        self._reservation: Any = None
        self._room: TokenBudget | None = None
        self._texts: list[str] = []
        # Nothing is owed before the model is asked.
        self._free, self._settled = True, False
        self._ended = threading.Event()
        self.first: float | None = None
        """When the first piece came, by time.monotonic()."""

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._texts)

    @property
    def ending(self) -> Ending:
        """How an answer ended that came to its end."""
        return "failed" if self._answering is None else self._answering.ending

    def begin(self, request: Request, fields: Mapping[str, Any], spent: float = 0.0) -> None:
        """Reserve and ask. spent: US dollars, by the calls before this one.

        Raises ProviderError, BudgetError (a cap on spending forbids it), AssetError (the ledger cannot be read or written).
        """
        messages, limits = request.conversation, request.limits
        if limits.usd is not None and spent:
            limits = replace(limits, usd=limits.usd - spent)
        counted = None if limits.tokens is None else self._place.prompt_tokens(self.card, messages)
        exact = None if counted is None else PromptTokens(float(counted), float(counted))
        prompt = exact or estimated_prompt(self.card, messages, fields, limits)
        capped = self._ledger is not None and self._ledger.capped
        self._room = token_budget_for(self.card, self.candidate, limits, prompt, wanted_tokens(fields), capped=capped)
        if self._ledger is not None and not Price.on(self.card).free:
            self._reservation = self._ledger.reserve(self._room.usd_hi, self.card.id)
        self._free = False
        try:
            self._answering = self._place.begin(self.card, messages, fields, self._room, request.until)
        except ProviderError as error:
            self._free = error.unbilled
            raise
        if self._ended.is_set():
            self._answering.close()

    def pieces(self) -> Iterator[Piece]:
        """Yield the answer as it comes. Raises ProviderError."""
        if self._answering is None:
            return
        try:
            for piece in self._answering:
                if self.first is None:
                    self.first = time.monotonic()
                self._texts.append(piece.text)
                yield piece
        except ProviderError as error:
            self._free = error.unbilled and self.first is None
            raise

    def end(self) -> None:
        """End it, from any thread, even while `begin` runs."""
        self._ended.set()
        if self._answering is not None:
            self._answering.close()

    def settle(self) -> Bill:
        """Close it, tell the ledger once, and return the bill. Missing counts are estimated from the texts."""
        if self._answering is not None:
            self._answering.close()
        bill = self._bill()
        if self._ledger is not None and self._reservation is not None and not self._settled:
            self._settled = True
            try:
                if self._free:
                    self._ledger.release(self._reservation)
                else:
                    self._ledger.settle(self._reservation, bill.usd)
            except AssetError as error:
                self.problem = f"what it cost stays reserved: {error}"
            self.problem = self.problem or self._ledger.problem
        return bill

    def overrun(self, bill: Bill) -> str | None:
        """Say by how much a server exceeded its limit; None = it kept to it."""
        most = None if self._room is None else self._room.max_tokens
        if (
            most is None
            or bill.counted == "estimate"
            or bill.completion_tokens is None
            or bill.completion_tokens <= most
        ):
            return None
        return f"{self.card.id} wrote {bill.completion_tokens:.0f} tokens where it was told to stop at {most}"

    def _bill(self) -> Bill:
        if self._free or self._room is None:
            return Bill(None, None, None, 0.0)
        told = self._answering
        prompt = None if told is None else told.prompt_tokens
        completion = None if told is None else told.completion_tokens
        counted: Counted = "estimate" if told is None or prompt is None or completion is None else told.counted
        wrote = estimate_prompt_tokens(self.text).expected * self.card.token_factor
        prompt_tokens = self._room.prompt.expected if prompt is None else float(prompt)
        completion_tokens = wrote if completion is None else float(completion)
        price = Price.on(self.card)
        usd = 0.0 if price.free else price.of(prompt_tokens, completion_tokens)
        return Bill(prompt_tokens, completion_tokens, counted, usd)
