"""Decisions beside the policy's: for a pinned model, and for a conversation that stays with its model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from scope_edge.encoding.token_count import query_prompt_tokens
from scope_edge.types import Budget, Candidate, Decision, EstimatorReport

if TYPE_CHECKING:
    from scope_edge.settings.config import Settings
    from scope_edge.types import ModelCard, Preference, Query


def is_unlimited(card: ModelCard, preference: Preference, settings: Settings) -> bool:
    """Say whether no limit can rule out a pinned model, so that no estimate is needed."""
    here = card.where == "device" or not preference.local_only
    return here and preference.budget == Budget() and settings.privacy == "off" and card.id not in preference.exclude


def pinned_decision(card: ModelCard, query: Query, preference: Preference) -> Decision:
    """Decide for a pinned model, without an estimate."""
    prompt = query_prompt_tokens(query).expected * card.token_factor
    only = Candidate(
        model=card.id, where=card.where, p_correct=None, p_low=None, p_high=None, tokens=None, tokens_hi=None,
        prompt_tokens=prompt, usd=None, usd_hi=None, seconds=None, utility=None, evidence="none", excluded_by=None, rationale=None,
    )  # fmt: skip
    return Decision(
        choice=card.id, where=card.where, alpha=preference.alpha, policy=preference.policy, feasible=True, bound=None,
        over_budget=False, estimator=EstimatorReport("none"), candidates=(only,), neighbors=(), flip_below=None,
        flip_above=None, truncated=False,
    )  # fmt: skip


def keep_model(decision: Decision, model: str | None, threshold: float) -> Decision:
    """Change the decision to the conversation's model, unless the choice is better by more than the threshold (in utility).

    A model that a limit rules out, or that is outside the pool, is not kept. If utilities cannot be compared, it is kept.
    """
    if model is None or decision.choice is None or model == decision.choice:
        return decision
    rows = {row.model: row for row in decision.candidates}
    stays, goes = rows.get(model), rows[decision.choice]
    if stays is None or stays.excluded_by is not None or _gain(stays, goes, decision) > threshold:
        return decision
    others = tuple(row for row in decision.candidates if row.model != model)
    return replace(
        decision,
        choice=model,
        where=stays.where,
        candidates=(stays, *others),
        # These belong to the policy's own choice.
        flip_below=None,
        flip_above=None,
        warnings=(*decision.warnings, f"the conversation stays with {model}; by itself this would go to {goes.model}"),
    )


def _gain(stays: Candidate, goes: Candidate, decision: Decision) -> float:
    """Return the utility that a change would gain. At alpha 0, where cost weighs infinitely, only probabilities count."""
    before, after = stays.utility, goes.utility
    if decision.alpha == 0:
        before, after = stays.p_correct, goes.p_correct
    return 0.0 if before is None or after is None else after - before
