"""Two things that a map which has learned difficulty may fool itself about, checked.

    python build_scripts/check_map.py --data ROUTING_DATA/zeroeval ... --cache FOLDER --write anchors/README.md

Another domain: learned on all sets but one, what is said of the one left out.
Its own queries: calibration and lengths of held-out models on training queries, as the map has them with their families left
out of it, and on held-out ones. Anchors are training queries: were the two apart, abilities fitted to anchors would be off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from figures import table, write_figures
from manifest import ROOT
from unseen import CLIP, Unseen, arguments, read, unseen

from scope_edge.encoding.encoder import Encoder
from scope_edge.estimation.irt import IrtEstimator
from scope_edge.estimation.metrics import scores
from scope_edge.estimation.newton import fit_platt, logit, sigmoid
from scope_edge.training.asks import read_asks, with_asks
from scope_edge.training.joint_fit import fit_joint, fit_lengths
from scope_edge.training.learn import CORE_SIZE, COVERAGE, learn, pool_estimator
from scope_edge.types import ModelCard

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.estimation.difficulty import MapPositions
    from scope_edge.estimation.irt import EstimateTable
    from scope_edge.training.dataset import Pooled
    from scope_edge.training.joint_fit import JointFit, LengthFit
    from scope_edge.training.learn import Learned
    from scope_edge.types import Floats

# Sets that are left out together: the same requests in other languages, or by other judges.
RELATED = (
    ("arena_hard_lengths", "arena_hard_v2_lengths", "m_arena_hard_lengths"),
    ("ifeval_en", "ifeval_multi"),
    ("shaberi_gpt41", "shaberi_gpt51", "shaberi_panel"),
)
# The fewest queries of a set, and outcomes or answers of a model there, for a figure.
LEAST_QUERIES, LEAST_OF_A_MODEL = 100, 50
# Half as many as the bundled map has: 20 maps are learned.
LANDMARKS = 2_048


def main() -> None:
    options = arguments(__doc__, "map")
    data = read(options.data, options.cache)
    data = with_asks(data, read_asks(ROOT / "anchors" / "everyday.txt"), Encoder.load())
    for name, text in (("strange", another_domain(data)), ("map", own_queries(data, options.seeds))):
        print(text, flush=True)
        if options.write:
            write_figures(options.write, text, name)


def another_domain(data: Pooled) -> str:
    """A row a set that nothing was learned from: difficulty, length and evidence, for the models known from other sets."""
    joint = fit_joint(data.correct, data.sets, data.domains, data.expected[:, 0])
    lengths = fit_lengths(data.tokens, data.sets, data.domains, data.expected[:, 1])
    rows = []
    for number, name in enumerate(data.set_names):
        there = np.flatnonzero(data.sets == number)
        if len(there) >= LEAST_QUERIES:
            out = next((group for group in RELATED if name in group), (name,))
            rest = _without(data, [data.set_names.index(one) for one in out if one in data.set_names])
            learned = learn(rest, LANDMARKS, calibrated=False)
            rows.append([name, *_strange(data, there, learned, joint, lengths)])
            print(" | ".join(rows[-1]), flush=True)
    head = [
        "left out",
        "difficulty, r",
        "AUC by difficulty",
        "length, rank r",
        "median log error",
        "covered (0.9 asked)",
    ]
    head += ["strong", "excess log-loss: strong", "weak"]
    return (
        "Learned on all sets but one (and those related to it). Excess log-loss is over that of each model's mean on the set,"
        " which nothing knew:\n\n" + table(head, rows)
    )


def _strange(data: Pooled, there: NDArray[np.intp], learned: Learned, joint: JointFit, lengths: LengthFit) -> list[str]:
    """The cells of one set; "" where it tells nothing."""
    places = learned.irt.map.places_of(*data.encoded(there))
    graded, answered = np.isfinite(joint.error[there]), lengths.count[there] > 0
    cells = ["", "", "", "", "", "", "", ""]
    if np.isfinite(data.correct[:, there]).any():
        cells[0] = f"{np.corrcoef(places.difficulty[graded], joint.b[there][graded])[0, 1]:.2f}"
        cells[1] = f"{_mean_auc(-places.difficulty, data.correct[:, there][~data.base]):.3f}"
    if answered.sum() >= LEAST_QUERIES:
        own, said = lengths.log_length[there][answered], places.log_length[answered]
        cells[2] = f"{np.corrcoef(_ranks(own), _ranks(said))[0, 1]:.2f}"
        cells[3] = f"{np.median(np.abs(own - said)):.2f}"
    known = [m for m in np.flatnonzero(~data.base) if data.models[m] in learned.irt.abilities]
    if known:
        cards = [ModelCard(id=str(data.models[m]), where="cloud") for m in known]
        said_of = IrtEstimator(learned.irt, cards, {}, coverage=COVERAGE).table(places, np.ones(len(there)))
        cells[4:] = _of_models(data.correct[np.ix_(known, there)].T, data.tokens[np.ix_(known, there)].T, said_of)
    return cells


def _of_models(correct: Floats, tokens: Floats, said: EstimateTable) -> list[str]:
    """Coverage, share of strong estimates, and excess log-loss of strong and weak ones; (queries, models) each."""
    enough = (tokens > 0).sum(axis=0) >= LEAST_OF_A_MODEL
    counted = (tokens > 0) & enough
    covered = f"{(tokens[counted] <= said.tokens_hi[counted]).mean():.2f}" if counted.any() else ""
    usable = np.isfinite(correct).sum(axis=0) >= LEAST_OF_A_MODEL
    known = np.isfinite(correct) & usable
    if not known.any():
        return [covered, "", "", ""]
    mean = np.broadcast_to(np.nanmean(np.where(usable, correct, 0.0), axis=0), correct.shape)
    excess = _log_loss(correct, said.p_correct) - _log_loss(correct, mean)
    words = [said.strong & known, ~said.strong & known]
    losses = [f"{excess[one].mean():+.3f}" if one.sum() >= LEAST_OF_A_MODEL else "" for one in words]
    return [covered, f"{said.strong[known].mean():.0%}", *losses]


def _log_loss(correct: Floats, p: Floats) -> Floats:
    p = np.clip(p, CLIP, 1 - CLIP)
    return np.asarray(-(correct * np.log(p) + (1 - correct) * np.log(1 - p)))


def _ranks(values: Floats) -> Floats:
    return np.asarray(np.argsort(np.argsort(values)), np.float64)


def _without(data: Pooled, numbers: list[int]) -> Pooled:
    """The table without these sets, and without the models that were measured on nothing else."""
    rest = data.take(np.ones(len(data.models), bool), ~np.isin(data.sets, numbers))
    kept = [i for i in range(len(data.set_names)) if i not in numbers]
    domains = sorted(set(rest.domains.tolist()))
    rest = replace(
        rest,
        set_names=tuple(data.set_names[i] for i in kept),
        sets=np.searchsorted(kept, rest.sets),
        domain_names=tuple(data.domain_names[i] for i in domains),
        domains=np.searchsorted(domains, rest.domains),
    )
    measured = np.isfinite(rest.correct).any(axis=1) | (rest.tokens > 0).any(axis=1)
    return rest.take(measured, np.ones(len(rest), bool))


def _mean_auc(values: Floats, correct: Floats) -> float:
    """Mean AUC over models; of graded scores, whether one is at least the model's median there."""
    found = []
    for row in correct:
        known = row[np.isfinite(row)]
        right = known > 0.5 if len(np.unique(known)) <= 2 else known >= np.median(known)
        if len(known) >= LEAST_OF_A_MODEL and 0 < right.mean() < 1:
            found.append(scores(sigmoid(values[np.isfinite(row)]), right.astype(np.float64)).auc)
    return float(np.mean(found)) if found else np.nan


def own_queries(data: Pooled, seeds: list[int]) -> str:
    """A row a set: slope and intercept of outcomes on predicted log-odds, and share of lengths under the bound."""
    found: dict[str, list[NDArray[np.float64]]] = {}
    for seed in seeds:
        for part in unseen(data, seed):
            found.setdefault(part.set_name, []).append(np.array(list(_taught_and_fresh(part))))
    rows = []
    for name, values in found.items():
        stacked = np.array(values)
        means = stacked.mean(axis=0)
        apart = stacked[:, 1] - stacked[:, 0]
        error = apart.std(axis=0, ddof=1) / np.sqrt(len(apart)) if len(apart) > 1 else np.full(3, np.nan)
        cells = [
            f"{means[0, i]:.3f} | {means[1, i]:.3f} | {apart[:, i].mean():+.3f} ± {error[i]:.3f}" for i in range(3)
        ]
        rows.append([name, *cells])
    head = ["set"]
    for title in ("slope", "intercept", "lengths covered (0.9 asked)"):
        head += [f"{title}: training queries", "held-out", "difference"]
    return (
        f"Held-out models by {CORE_SIZE} anchors at random (half of a set's queries where these are fewer), on the other training"
        f" queries and on held-out ones, means and standard errors over {len(seeds)} splits:\n\n" + table(head, rows)
    )


def _taught_and_fresh(part: Unseen) -> Iterator[list[float]]:
    """(slope, intercept, coverage) of all models of the part together: on training queries, then on held-out ones."""
    whole = part.learned.whole[part.set_name]
    order = np.random.default_rng(part.seed).permutation(len(whole))
    # At random, so that what is left is as fair a sample as the held-out queries are.
    anchors = whole.take(order[: min(CORE_SIZE, len(order) // 2)].tolist())
    prior = pool_estimator(part.train, part.models, part.learned, anchors, CORE_SIZE)
    own = np.flatnonzero(part.train.sets == part.set_number)
    own = own[~np.isin(part.train.ids[own], anchors.ids)]
    for table_, rows, places in (
        (part.train, own, part.learned.positions.take(own)),
        (part.test, part.rows, part.positions),
    ):
        yield _calibration(table_, part, rows, places, prior)


def _calibration(
    data: Pooled, part: Unseen, rows: NDArray[np.intp], places: MapPositions, prior: IrtEstimator
) -> list[float]:
    said = prior.table(places, np.ones(len(places)))
    correct, tokens = (values[np.ix_(part.models, rows)].T for values in (data.correct, data.tokens))
    known, counted = np.isfinite(correct), tokens > 0
    slope, intercept = fit_platt(logit(said.p_correct[known], CLIP), correct[known], np.zeros((2, 2)))
    covered = float((tokens[counted] <= said.tokens_hi[counted]).mean()) if counted.any() else np.nan
    return [slope, intercept, covered]


if __name__ == "__main__":
    main()
