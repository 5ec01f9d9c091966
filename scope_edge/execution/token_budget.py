"""How many tokens an answer may have and what a call may cost, before it is made.

A limit on tokens counts prompt and completion together, in the model's own tokens. Its tokenizer counts the prompt where it is on
this machine; elsewhere the estimate's upper bound is used. A limit in dollars becomes one on tokens. The model is sent the
smallest of these and of the request's own limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scope_edge.encoding.token_count import (
    CHAT_WRAPPING,
    TURN_WRAPPING,
    PromptTokens,
    attached_tokens,
    estimate_prompt_tokens,
)
from scope_edge.errors import BudgetError, ProviderError
from scope_edge.execution.attached import attached_strings, predicted_text, unsized_part
from scope_edge.execution.request import texts_of, wanted_tokens
from scope_edge.policy.price import Price

if TYPE_CHECKING:
    from scope_edge.execution.request import Messages
    from scope_edge.types import Budget, Candidate, ModelCard

# The limit of an answer where spending is capped and no other limit is set, or no reservation would hold.
_CAPPED_TOKENS, _CAPPED_TIMES = 4096, 4


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """The limits of one call.

    Attributes:
        max_tokens: of the completion; None = no limit. prompt: its tokens, in the model's own.
        usd_hi: the most that the call can cost: with no limit on tokens, at the upper bound of their estimate. None = unknown.
    """

    max_tokens: int | None
    prompt: PromptTokens
    usd_hi: float | None


def token_budget_for(
    card: ModelCard,
    candidate: Candidate,
    budget: Budget,
    prompt: PromptTokens,
    fields: Mapping[str, Any],
    *,
    capped: bool,
) -> TokenBudget:
    """Return the limits of a call to this model. fields: of the wire format. capped: total spending is.

    Raises ProviderError: a limit leaves no room for a single token, or the price is unknown.
    """
    price, wanted = Price.on(card), wanted_tokens(fields)
    # Billed as completion, whether the answer uses them or not.
    predicted = estimate_prompt_tokens(predicted_text(fields)).high * card.token_factor
    caps = [] if wanted is None else [float(wanted)]
    if budget.tokens is not None:
        caps.append(budget.tokens - prompt.high - predicted)
    if budget.usd is not None and not price.free:
        affordable = price.affords(budget.usd, prompt.high)
        if affordable is None:
            raise ProviderError("its price is unknown, so no limit in dollars can be kept", unbilled=True)
        caps.append(affordable - predicted)
    if capped and not caps and not price.free:
        caps.append(max(_CAPPED_TOKENS, _CAPPED_TIMES * (candidate.tokens_hi or 0.0)))
    cap = min(caps, default=math.inf)
    if cap < 1:
        raise ProviderError(
            f"the limits leave no room for an answer after {prompt.high:.0f} tokens of prompt", unbilled=True
        )
    if math.isfinite(cap) and card.context_tokens is not None and card.context_tokens - prompt.high >= 1:
        cap = min(cap, card.context_tokens - prompt.high)
    completion = cap if math.isfinite(cap) else candidate.tokens_hi
    usd_hi = 0.0 if price.free else None if completion is None else price.of(prompt.high, completion + predicted)
    return TokenBudget(math.floor(cap) if math.isfinite(cap) else None, prompt, usd_hi)


def check_sized(
    card: ModelCard, messages: Messages, fields: Mapping[str, Any], budget: Budget, *, capped: bool
) -> None:
    """Raise ProviderError for a request that has no upper bound where this query is limited, BudgetError where spending is."""
    paid = not Price.on(card).free
    if budget.tokens is None and not (paid and (capped or budget.usd is not None)):
        return
    part = unsized_part(messages, fields)
    if part is None:
        return
    if budget.tokens is not None or budget.usd is not None:
        raise ProviderError(f"the size of {part} in tokens is unknown, so no limit can be kept", unbilled=True)
    raise BudgetError(
        f"{card.id}: the cost of {part} is unknown, so max_usd_day and max_usd_month cannot be kept; leave it out, or unset them"
    )


def estimated_prompt(card: ModelCard, messages: Messages, fields: Mapping[str, Any]) -> PromptTokens:
    """Estimate the tokens of all that is sent, in the model's own, where its tokenizer is missing."""
    total = CHAT_WRAPPING + attached_tokens(attached_strings(messages, fields))
    for number, text in enumerate(texts_of(messages)[0]):
        total = total + estimate_prompt_tokens(text)
        total = total + TURN_WRAPPING if number else total
    return PromptTokens(total.expected * card.token_factor, total.high * card.token_factor)
