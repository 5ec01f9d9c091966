"""Which other alpha would choose another model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_cases import PROMPT, card, cases, estimates, pool_like

from scope_edge.policy.policy import decide
from scope_edge.policy.utility import PolicyPool
from scope_edge.types import Budget, Estimates, ModelCard, PolicyName, Preference

Case = tuple[tuple[ModelCard, ...], PolicyPool, Estimates]
ANY_ALPHA = st.one_of(st.integers(0, 1000).map(lambda step: step / 1000), st.floats(0, 1))


@given(cases(most=5), ANY_ALPHA, st.sampled_from(["scope-edge", "paper"]), st.none() | st.floats(0, 0.02))
def test_flips_are_what_deciding_at_every_other_alpha_would_find(
    case: Case, alpha: float, policy: PolicyName, usd: float | None
) -> None:
    _, pool, row = case

    def choice(at: float) -> str | None:
        return decide(pool, row, PROMPT, Preference(at, Budget(usd=usd), policy=policy)).choice

    verdict = decide(pool, row, PROMPT, Preference(alpha, Budget(usd=usd), policy=policy))
    grid = [step / 1000 for step in range(1001)]
    below, above = [at for at in reversed(grid) if at < alpha], [at for at in grid if at > alpha]
    for flip, outward in ((verdict.flip_below, below), (verdict.flip_above, above)):
        if flip is not None:
            assert flip.model != verdict.choice
            assert choice(flip.alpha) == flip.model
        between = outward[: outward.index(flip.alpha) if flip else None]
        for at in {*between[:2], *between[::97], *between[-2:]}:
            assert choice(at) == verdict.choice


def test_between_two_models_the_flip_is_where_the_gain_stops_paying_for_the_price() -> None:
    cards = [card("device", 0), card("cloud", 10.0)]
    row = estimates(cards, [0.5, 0.8])
    pool = pool_like(cards, *(estimates(cards, [0.5, 0.5 + gain / 100]) for gain in range(1, 40)))
    low, high = (decide(pool, row, PROMPT, Preference(alpha)) for alpha in (0.2, 0.9))
    assert (low.choice, high.choice) == ("device", "cloud")
    assert low.flip_below is None
    assert high.flip_above is None
    assert low.flip_above is not None
    assert high.flip_below is not None
    assert (low.flip_above.model, high.flip_below.model) == ("cloud", "device")
    exact = pool.curve.alpha_at((0.8 - 0.5 - 0.005) / (200 * 10 / 1e6 + pool.curve.toll))
    assert high.flip_below.alpha <= exact <= low.flip_above.alpha
    assert low.flip_above.alpha - high.flip_below.alpha == pytest.approx(0.001)


@pytest.mark.parametrize("policy", ["scope-edge", "paper"])
def test_a_single_model_never_flips(policy: PolicyName) -> None:
    cards = [card("only", 1.0)]
    row = estimates(cards, [0.5])
    verdict = decide(pool_like(cards, row), row, PROMPT, Preference(0.5, policy=policy))
    assert (verdict.flip_below, verdict.flip_above) == (None, None)
