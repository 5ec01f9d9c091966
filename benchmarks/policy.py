"""Time of one decision by the policy alone, without encoder and estimates: `python benchmarks/policy.py`.

The pool is synthetic: abilities, prices and lengths are drawn once, p follows an item response curve.
"""

from __future__ import annotations

import argparse
from time import perf_counter, thread_time

import numpy as np

from scope_edge.encoding.token_count import PromptTokens
from scope_edge.policy.policy import decide
from scope_edge.policy.utility import PolicyPool, policy_pool
from scope_edge.types import Budget, Estimates, Evidence, ModelCard, PolicyName, Preference


def pool_of(size: int, rng: np.random.Generator) -> tuple[PolicyPool, list[Estimates]]:
    """A pool of `size` models, three in eight of them free, and estimates for 200 queries."""
    ability = np.sort(rng.normal(0.5, 1.0, size))
    price = np.where(np.arange(size) < size * 3 / 8, 0.0, np.exp(ability + rng.normal(0.0, 0.5, size)))
    cards = tuple(
        ModelCard(f"model-{i}", "cloud" if usd else "device", usd_in=usd / 4, usd_out=usd, context_tokens=32768)
        for i, usd in enumerate(price.tolist())
    )
    hard = rng.normal(0.0, 1.2, 450)
    p = 1.0 / (1.0 + np.exp(hard - ability[:, None] - rng.normal(0.0, 0.3, (size, 450))))
    tokens = np.exp(rng.normal(5.5, 0.4, (size, 1)) + 0.3 * hard + rng.normal(0.0, 0.2, (size, 450)))
    strong: Evidence = "strong"
    evidence, models, source = (strong,) * size, tuple(card.id for card in cards), ("prior",) * size
    rows = [
        Estimates(models, q, q - 0.1, q + 0.1, t, 2.0 * t, evidence, source)
        for q, t in zip(p.T[250:].copy(), tokens.T[250:].copy(), strict=True)
    ]
    return policy_pool(cards, p[:, :250], tokens[:, :250], np.full(250, 150.0)), rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 100, 1000])
    parser.add_argument("--rounds", type=int, default=3, help="times the 200 queries are decided")
    options = parser.parse_args()
    policies: tuple[PolicyName, ...] = ("scope-edge", "paper")
    print("models  policy      decide p50 ms  p95 ms  CPU p50 ms")
    for size in options.sizes:
        pool, rows = pool_of(size, np.random.default_rng(size))
        for policy in policies:
            wall, cpu = [], []
            for turn, estimates in enumerate(rows * options.rounds):
                preference = Preference(alpha=turn % 101 / 100, budget=Budget(tokens=4096, usd=0.05), policy=policy)
                start, busy = perf_counter(), thread_time()
                decide(pool, estimates, PromptTokens(120.0, 180.0), preference)
                wall.append((perf_counter() - start) * 1e3)
                cpu.append((thread_time() - busy) * 1e3)
            middle, slow = np.percentile(wall, [50, 95])
            print(f"{size:6}  {policy:<11} {middle:13.3f} {slow:7.3f} {np.median(cpu):11.3f}")


if __name__ == "__main__":
    main()
