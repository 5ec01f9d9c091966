"""Prompts that anytime refinement saves on real queries, and how often the choice is the one that refining everything makes.

    python benchmarks/anytime.py --data ROUTING_DATA/zeroeval ROUTING_DATA/mmlu_pro ... --write docs/benchmarks.md

The prior stands in for the language model, whose answers nobody here has: stage A is the prior from each model's 25 most
informative anchors, and an oracle answers every prompt with the prior from all 250, which is taken at its word. All else is
the code that runs in `route`: contest, order, turns, ranges. The oracle's samples agree, so half of them always do.

Saved is the share of prompts not run, of one a model and query. The reach is set on one half of the queries, as
`scope-edge calibrate` sets it, and used on the other; the 1.0 that holds without a calibration is shown beside it.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "build_scripts"))
from figures import write_figures

from scope_edge.catalog.cards import is_retired
from scope_edge.encoding.encoder import Encoder
from scope_edge.estimation.fingerprints import Fingerprint, load_fingerprints
from scope_edge.estimation.irt import IrtEstimator, load_irt_model
from scope_edge.estimation.newton import logit, sigmoid
from scope_edge.estimator.calibration import CLIP, REACH, REACH_COVERED, EstimatorCalibration
from scope_edge.estimator.prompt import BUNDLED, TextSlices
from scope_edge.estimator.scope import EstimatorEngine, Limits, ScopeEstimator
from scope_edge.estimator.store import Installed
from scope_edge.factory import open_catalog
from scope_edge.policy.policy import PoolPolicy
from scope_edge.policy.pool import prepared_pool
from scope_edge.providers.llama.messages import Job, JobResult, ModelShape, Sample, Stats
from scope_edge.settings.config import Settings
from scope_edge.types import EncodedQuery, Estimates, ModelCard, Preference, Query

if TYPE_CHECKING:
    from scope_edge.types import Floats

FEW = 25
ALPHAS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
_SEED = "anytime"


@dataclass(frozen=True)
class Speed:
    """What the oracle says of itself when started."""

    batch_prompts: int
    prefill_tps: float = 1e6
    decode_tps: float = 1e6


class Oracle:
    """A client that answers every prompt with what it was told of the model named in it."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.knows: dict[str, tuple[float, float]] = {}

    def start(self, timeout: float) -> Speed:
        return Speed(self.batch)

    def run(self, jobs: Sequence[Job], timeout: float | None) -> tuple[tuple[JobResult, ...], Stats]:
        return tuple(JobResult(1, 0, self._samples(job)) for job in jobs), Stats(1, 1e-6, 1, 1e-6, 1e-6)

    def _samples(self, job: Job) -> tuple[Sample, ...]:
        model = job.pieces[1].text.split("### Target Model\n")[1].split("\n")[0]
        p, tokens = self.knows[model]
        return (Sample("", 1, max(round(tokens), 1), p, "answer"),) * job.samples

    def close(self) -> None:
        """Nothing runs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders in the routing data format")
    parser.add_argument("--queries", type=int, default=120, help="a set, half of them for the reach")
    parser.add_argument("--batch", type=int, default=1, help="prompts run together: 1 on a processor, more on a GPU")
    parser.add_argument(
        "--write", type=Path, help="put the table between the <!-- figures: anytime --> marks of this file"
    )
    options = parser.parse_args()
    catalog, everything = open_catalog(Settings()), load_fingerprints()[1]
    priced = [one for one in catalog.cards if one.usd_out is not None and not is_retired(one) and one.id in everything]
    anchored = {id for parts in everything.values() for part in parts for id in part.anchors.ids}
    queries = list(_encoded(options.data, options.queries, anchored))
    rows: list[list[str]] = []
    for name, cards in (("default", catalog.pool("default")), ("all that can be called", tuple(priced))):
        rows += measure(f"{name}, {len(cards)} models", cards, queries, options.batch)
    head = ["pool", "alpha", "reach", "prompts saved", "same choice", "same without any prompt", "utility lost, points"]
    text = "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
    print(text)
    if options.write:
        write_figures(options.write, text, "anytime")


def measure(
    name: str, cards: tuple[ModelCard, ...], queries: Sequence[EncodedQuery], batch: int
) -> Iterator[list[str]]:
    """The rows of one pool."""
    few, policy = stage(cards, FEW)
    many, _ = stage(cards, None)
    cases = [(one, few.estimate(one, 1.0)[0], clipped(many.estimate(one, 1.0)[0])) for one in queries]
    fit, test = cases[::2], cases[1::2]
    moved = np.concatenate([np.abs(logit(b.p_correct, CLIP) - logit(a.p_correct, CLIP)) for _, a, b in fit])
    reach = float(np.quantile(moved[np.isfinite(moved)], REACH_COVERED))
    for alpha in ALPHAS:
        for label, away in (("measured", reach), ("uncalibrated", REACH)):
            saved, same, idle, lost = replay(cards, policy, test, Preference(alpha=alpha), (away, batch))
            shown = f"{away:.2f} {label}"
            yield [name, f"{alpha:g}", shown, f"{saved:.0%}", f"{same:.1%}", f"{idle:.1%}", f"{100 * lost:.2f}"]


def replay(
    cards: tuple[ModelCard, ...],
    policy: PoolPolicy,
    cases: Sequence[tuple[EncodedQuery, Estimates, Estimates]],
    preference: Preference,
    how: tuple[float, int],
) -> tuple[float, float, float, float]:
    """(prompts saved, same choice as with all refined, likewise with none, utility lost), means over the queries."""
    reach, batch = how
    oracle = Oracle(batch)
    with tempfile.TemporaryDirectory() as folder:
        scope = estimator(cards, oracle, reach, Path(folder))
        found = []
        for encoded, before, after in cases:
            columns = zip(after.models, after.p_correct.tolist(), after.tokens.tolist(), strict=True)
            oracle.knows = {model: (p, tokens) for model, p, tokens in columns}
            refined = scope.refine(encoded, before, policy.contest(encoded.query, preference, ()))
            report = refined.report
            share = report.prompts_saved / (report.prompts_run + report.prompts_saved)
            best = policy.decide(encoded.query, after, preference, ())
            chosen, idle = (
                policy.decide(encoded.query, one, preference, ()).choice for one in (refined.estimates, before)
            )
            utility = {row.model: row.utility or 0.0 for row in best.candidates}
            lost = utility[str(best.choice)] - utility[str(chosen)]
            found.append((share, chosen == best.choice, idle == best.choice, lost))
    saved, same, none, loss = np.mean(np.array(found, np.float64), axis=0).tolist()
    return saved, same, none, loss


def stage(cards: tuple[ModelCard, ...], size: int | None) -> tuple[IrtEstimator, PoolPolicy]:
    """The prior from each model's first anchors of every set, and the pool's policy as `route` prepares it."""
    basis, everything = load_irt_model(), load_fingerprints()[1]
    prints = {card.id: tuple(_first(part, size) for part in everything[card.id]) for card in cards}
    prior = IrtEstimator(basis, cards, prints, coverage=0.9)
    return prior, PoolPolicy(cards, prepared_pool(cards, prior, basis.reference))


def estimator(cards: tuple[ModelCard, ...], oracle: Oracle, reach: float, folder: Path) -> ScopeEstimator:
    """The real estimator, which takes the oracle's word for it."""
    (folder / "prompt.txt").write_text(BUNDLED, "utf-8", newline="")
    hashed = hashlib.sha256(BUNDLED.encode()).hexdigest()
    shape = ModelShape("oracle", "none", 0, 0, 0, 0, 0, False)
    installed = Installed(
        "oracle", folder, "", 0, shape, "direct", hashed, "bundled", "", None, None, "", samples=2, examples=1
    )
    word = EstimatorCalibration(np.array([0.0, 1.0, 0.0]), np.array([0.0, 1.0]), np.zeros(0), reach, 1)
    return ScopeEstimator(
        installed, _slices(cards), EstimatorEngine(lambda: oracle), limits=Limits(), calibration=word, coverage=0.9
    )


def clipped(estimates: Estimates) -> Estimates:
    """As sure as an estimator may be, and with lengths it can say."""
    p: Floats = sigmoid(logit(estimates.p_correct, CLIP))
    return replace(estimates, p_correct=p, tokens=np.maximum(np.rint(estimates.tokens), 1))


def _slices(cards: tuple[ModelCard, ...]) -> TextSlices:
    """One anchor with text that every model was measured on: the oracle does not read it."""
    _, everything = load_fingerprints()
    any_set = next(iter(everything.values()))[0].anchors
    anchors = replace(any_set, texts=("?",) * len(any_set))
    nothing = np.full(len(anchors), np.nan)
    one = np.where(np.arange(len(anchors)) == 0, 1.0, nothing)
    prints: Mapping[str, tuple[Fingerprint, ...]] = {c.id: (Fingerprint(c.id, anchors, one, one),) for c in cards}
    return TextSlices(cards, prints)


def _first(part: Fingerprint, size: int | None) -> Fingerprint:
    kept = np.arange(len(part.correct)) < (size or len(part.correct))
    return replace(part, correct=np.where(kept, part.correct, np.nan), tokens=np.where(kept, part.tokens, np.nan))


def _encoded(folders: Sequence[Path], size: int, anchored: set[str]) -> Iterator[EncodedQuery]:
    """So many queries a set, by hash of their ids, none of them an anchor."""
    encoder = Encoder.load(threads=1)
    for folder in folders:
        with gzip.open(folder / "queries.jsonl.gz", "rt", encoding="utf-8") as file:
            rows = [row for row in map(json.loads, file) if str(row["id"]) not in anchored]
        rows.sort(key=lambda row: hashlib.sha256(f"{_SEED}:{row['id']}".encode()).digest())
        for row in rows[:size]:
            yield encoder.encode(Query(str(row["text"])))


if __name__ == "__main__":
    main()
