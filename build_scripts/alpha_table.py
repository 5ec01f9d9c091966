"""What alpha buys: accuracy and cost of the default pool over held-out queries, by models and queries nothing was fitted on.

    python build_scripts/alpha_table.py --data ROUTING_DATA/zeroeval ... --cache FILE.npz --write docs/alpha.md

Half of the queries is held out by hash, and the pool's models are left out of the bank: each is known by its core anchors
of the training half alone, as a new model would be. Scored are the queries that every compared model really ran.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from figures import write_figures
from learn import fingerprint, learn
from pooled import read_pooled
from routing_data import held_out

from scope_edge.calibration import calibrate
from scope_edge.catalog import load_catalog
from scope_edge.config import Settings
from scope_edge.fingerprints import slice_of
from scope_edge.policy import AnchorStatistics, anchor_statistics, choose_many, expected_costs, policy_pool
from scope_edge.prior import Prior

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from learn import Learned
    from numpy.typing import NDArray
    from pooled import Pooled

    from scope_edge.fingerprints import Fingerprint
    from scope_edge.policy import PolicyPool
    from scope_edge.records import ModelCard

    Floats = NDArray[np.float64]

SEED = 20
STEP = 0.05
LAMBDAS = np.concatenate([[0.0], np.geomspace(1e-2, 1e9, 600)])


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """Held-out queries of one set with what is predicted and what is true, shape (queries, models)."""

    name: str
    models: tuple[str, ...]
    pool: PolicyPool
    p: Floats
    expected: Floats
    correct: Floats
    cost: Floats
    anchors: AnchorStatistics

    def result(self, chosen: NDArray[np.int64]) -> tuple[float, float]:
        """(accuracy, US dollars per 1,000 queries) of these choices."""
        rows = np.arange(len(chosen))
        return float(self.correct[rows, chosen].mean()), float(self.cost[rows, chosen].mean() * 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders in the routing data format")
    parser.add_argument("--cache", type=Path, help="file that keeps embeddings between runs (.npz)")
    parser.add_argument("--landmarks", type=int, default=3072)
    parser.add_argument("--write", type=Path, help="put the tables between the <!-- figures --> marks of this file")
    options = parser.parse_args()
    data = read_pooled(options.data, options.cache)
    cards = load_catalog(Settings()).pool("default")
    unseen = np.zeros(len(data.ids), bool)
    for s, name in enumerate(data.set_names):
        here = data.sets == s
        unseen[here] = held_out(name, [group.partition(":")[2] for group in data.groups[here]], SEED, 0.5)
    mine = np.isin(data.models, [card.id for card in cards])
    learned = learn(data.take(~mine, ~unseen), options.landmarks)
    train, test = data.take(mine, ~unseen), data.take(mine, unseen)
    text = "\n\n".join(
        _section(one) for s in range(len(data.set_names)) if (one := replay(s, cards, learned, train, test))
    )
    print(text)
    if options.write:
        write_figures(options.write, text)


def replay(s: int, cards: tuple[ModelCard, ...], learned: Learned, train: Pooled, test: Pooled) -> Replay | None:
    """One set's held-out queries on the pool's models that ran enough of them; None where fewer than three did."""
    here = np.flatnonzero(test.sets == s)
    row = {str(model): i for i, model in enumerate(test.models)}
    ran = {c.id: np.isfinite(test.correct[row[c.id], here]) & (test.tokens[row[c.id], here] > 0) for c in cards}
    # A model that ran few of the queries would leave few for the others: those that cost the most queries go.
    kept = [card for card in cards if ran[card.id].mean() > 0.35]
    if len(kept) < 3:
        return None
    here = here[np.all([ran[card.id] for card in kept], axis=0)]
    rows = [row[card.id] for card in kept]
    core = list(learned.anchors.values())
    fingerprints = {
        card.id: [one for a in core if np.isfinite((one := fingerprint(train, m, a)).correct).sum() >= 25]
        for card, m in zip(kept, rows, strict=True)
    }
    prior = Prior(learned.map, learned.population, kept, fingerprints, calibration=learned.calibration, coverage=0.9)
    p, tokens = (np.hstack(part) for part in zip(*(prior.on(one) for one in core), strict=True))
    pool = policy_pool(kept, p, tokens, np.concatenate([one.prompt_tokens for one in core]))
    estimates = [
        calibrate(prior.at(learned.map.place_of(test.vectors[q], test.features[q]), 1.0), learned.calibration)
        for q in here
    ]
    prompts = test.text_tokens[here]
    factor = np.array([card.token_factor for card in kept])
    return Replay(
        name=test.set_names[s],
        models=tuple(card.id for card in kept),
        pool=pool,
        p=np.array([one.p_correct for one in estimates]),
        expected=expected_costs(pool.columns, np.array([one.tokens for one in estimates]), prompts),
        correct=test.correct[np.ix_(rows, here)].T,
        cost=expected_costs(pool.columns, test.tokens[np.ix_(rows, here)].T * factor, prompts),
        anchors=_statistics(fingerprints, test, here, pool),
    )


def _statistics(
    fingerprints: Mapping[str, Sequence[Fingerprint]], test: Pooled, here: NDArray[np.int64], pool: PolicyPool
) -> AnchorStatistics:
    """What the paper's policy reads off each query's slices."""
    rows = []
    for q in here:
        slices = [slice_of(model, parts, test.vectors[q], 10) for model, parts in fingerprints.items()]
        rows.append(anchor_statistics(pool.columns, slices, float(test.text_tokens[q])))
    return AnchorStatistics(np.array([one.accuracy for one in rows]), np.array([one.cost for one in rows]))


def _section(one: Replay) -> str:
    alphas = np.round(np.arange(0, 1 + STEP / 2, STEP), 2)
    choices = {a: choose_many(one.pool, one.p, one.expected, float(a)) for a in alphas}
    sweep = np.array([one.result((one.p - lam * one.expected).argmax(axis=1)) for lam in LAMBDAS])
    rows = []
    for before, a in zip([None, *alphas], alphas, strict=False):
        moved = np.nan if before is None else float((choices[before] != choices[a]).mean())
        accuracy, usd = one.result(choices[a])
        best = _at_equal_cost(sweep, usd)
        paper = one.result(choose_many(one.pool, one.p, one.expected, float(a), policy="paper", anchors=one.anchors))
        rows.append((a, accuracy, usd, best - accuracy, moved, *paper, _device_share(one, choices[a])))
    table = [
        "| alpha | accuracy | $ per 1,000 | on the device | below best lambda | moved | paper: accuracy | paper: $ |"
    ]
    table.append("|---|---|---|---|---|---|---|---|")
    for a, accuracy, usd, gap, _, p_accuracy, p_usd, device in rows[::2]:
        span = max((m for b, *_, m, _, _, _ in rows if a - 0.1 - 1e-9 < b <= a and not np.isnan(m)), default=0.0)
        table.append(
            f"| {a:.1f} | {accuracy:.3f} | {usd:.4f} | {device:.0%} | {100 * gap:+.1f} | {span:.0%} "
            f"| {p_accuracy:.3f} | {p_usd:.4f} |"
        )
    worst, step = max(r[3] for r in rows), max(r[4] for r in rows[1:])
    summary = (
        f"Over all alphas in steps of {STEP}: at most {100 * worst:.1f} points below the best lambda at equal cost; "
        f"at most {step:.0%} of queries moved in one step."
    )
    return f"### {one.name}: {len(one.p)} held-out queries\n\n" + "\n".join([*table, "", summary, "", _references(one)])


def _at_equal_cost(sweep: Floats, usd: float) -> float:
    """Accuracy of the lambda sweep, interpolated at this spend."""
    order = np.argsort(sweep[:, 1], kind="stable")
    return float(np.interp(usd, sweep[order, 1], sweep[order, 0]))


def _device_share(one: Replay, chosen: NDArray[np.int64]) -> float:
    return float(np.mean([one.pool.columns.where[i] == "device" for i in chosen]))


def _references(one: Replay) -> str:
    """Each model alone, and the oracle (the cheapest right model)."""
    rows = ["| always | accuracy | $ per 1,000 |", "|---|---|---|"]
    for i, model in enumerate(one.models):
        accuracy, usd = one.result(np.full(len(one.p), i))
        rows.append(f"| {model} | {accuracy:.3f} | {usd:.4f} |")
    right = np.where(one.correct > 0.5, one.cost, np.inf)
    oracle = np.where(np.isfinite(right).any(axis=1), right.argmin(axis=1), one.cost.argmin(axis=1))
    accuracy, usd = one.result(oracle)
    rng = np.random.default_rng(0)
    random_accuracy, random_usd = one.result(rng.integers(0, len(one.models), len(one.p)))
    rows.append(f"| *random* | {random_accuracy:.3f} | {random_usd:.4f} |")
    rows.append(f"| *oracle* | {accuracy:.3f} | {usd:.4f} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
