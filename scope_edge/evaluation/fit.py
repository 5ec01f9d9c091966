"""The router's knowledge under a split: bank and calibration learned from its training part, and fingerprints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.encoding.token_count import query_prompt_tokens
from scope_edge.errors import UsageError
from scope_edge.estimation import refit
from scope_edge.estimation.anchors import load_bank, load_bank_vectors, taught_by, text_hash
from scope_edge.estimation.fingerprints import Fingerprint, load_fingerprints
from scope_edge.estimation.irt import IrtEstimator, IrtModel, load_irt_model
from scope_edge.estimation.item_selection import asked
from scope_edge.estimation.reference import SIZE, Reference
from scope_edge.estimation.user_calibration import Personal, load_personal
from scope_edge.training.learn import core_of, fingerprint, learn, reference_of
from scope_edge.types import Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.estimation.anchors import AnchorSet, Bank
    from scope_edge.estimation.difficulty import MapPositions
    from scope_edge.evaluation.splits import Split
    from scope_edge.training.dataset import Pooled
    from scope_edge.training.learn import Learned
    from scope_edge.types import Floats, ModelCard

# The fewest queries and models that a bank can be learned from.
LEAST_QUERIES, LEAST_MODELS = 40, 3
# The fewest outcomes, to be known by and to be scored on, of a model that is scored.
LEAST_OUTCOMES = 10


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One set's part of a split, with everything that may be known before it is scored.

    Attributes:
        irt: the bank's fitted model. reference: queries for pool forecasts, none of them scored.
        material: every model on the training queries of all sets.
        rows: (q,) scored queries of this set, index in `data`. positions: their map positions.
        similarity: (q,), to the nearest training query.
        prompts: (q,) their prompts' cl100k tokens as `route` estimates them: expected, and the 95 % bound.
        models: (m,) candidates, index in `data`. unseen: (m,) which of them taught the bank nothing.
        prints: their fingerprints, the most informative anchors first. personal: the user's own calibration, if any.
        bank: where similar questions are looked up; None = the training queries.
    """

    data: Pooled
    split: Split
    set_number: int
    irt: IrtModel
    reference: Reference
    material: Pooled
    rows: NDArray[np.intp]
    positions: MapPositions
    similarity: Floats
    prompts: tuple[Floats, Floats]
    models: NDArray[np.intp]
    unseen: NDArray[np.bool_]
    prints: Mapping[str, tuple[Fingerprint, ...]]
    personal: Personal | None = None
    bank: Bank | None = None

    @property
    def name(self) -> str:
        """The set's name."""
        return self.data.set_names[self.set_number]

    @property
    def names(self) -> tuple[str, ...]:
        """The candidates' ids."""
        return tuple(self.data.models[self.models].tolist())

    @property
    def taught(self) -> NDArray[np.intp]:
        """Indices of the set's training queries in `material`."""
        return np.flatnonzero(self.material.sets == self.set_number)

    @property
    def joined(self) -> NDArray[np.bool_]:
        """(m,) which candidates are unseen; all if none is."""
        return self.unseen if self.unseen.any() else np.ones(len(self.models), bool)

    def fingerprints(self, size: int) -> Mapping[str, tuple[Fingerprint, ...]]:
        """Return every candidate's fingerprints cut to `size` anchors, chosen adaptively by its answers."""
        population = self.irt.population
        return {name: tuple(asked(one, population, size) for one in parts) for name, parts in self.prints.items()}

    def estimator(self, cards: Sequence[ModelCard], size: int, coverage: float) -> IrtEstimator:
        """Return the estimator of candidates that are known by `size` anchors each."""
        return IrtEstimator(self.irt, cards, self.fingerprints(size), coverage=coverage, personal=self.personal)


def refitted(data: Pooled, split: Split) -> list[Part]:
    """Learn from the training part; return the sets that can be scored. Raises UsageError for too little data."""
    train = data.take(~split.unseen, split.taught)
    measured = np.isfinite(train.correct).any(axis=1) & ~train.base
    if len(train) < LEAST_QUERIES or measured.sum() < LEAST_MODELS:
        raise UsageError(
            f"{len(train)} queries and {int(measured.sum())} models are left to learn from, fewer than"
            f" {LEAST_QUERIES} and {LEAST_MODELS}; give more data, or `--bank bundled` to score the bundled bank"
        )
    learned = learn(train)
    material = data.take(np.ones(len(data.models), bool), split.taught)
    return [
        replace(
            part,
            reference=_reference(learned, material, part.set_number),
            unseen=split.unseen[part.models],
            prints=_prints(part, learned),
        )
        for part in _parts(data, split, learned.irt, material, material.vectors)
    ]


def in_bundled_bank(data: Pooled) -> NDArray[np.bool_]:
    """Return which queries taught the bundled bank, by id or by text, (n,): it cannot be scored on them."""
    ids, hashes = taught_by()
    here = (
        id in ids or text_hash(text) in hashes for id, text in zip(data.ids.tolist(), data.texts.tolist(), strict=True)
    )
    return np.fromiter(here, bool, len(data))


def bundled(data: Pooled, split: Split) -> list[Part]:
    """Return the sets that the bundled bank and the present fingerprints can be scored on, as `route` uses them.

    The user's own outcomes on scored queries are left out of the fingerprints. No scored query may be `in_bundled_bank`.
    """
    irt, measured = load_irt_model(), load_fingerprints()[1]
    scored = frozenset(text_hash(text) for text in data.texts[split.scored])
    prints = {model: tuple(_without(one, scored) for one in parts) for model, parts in measured.items()}
    # A calibration rests on all own outcomes: if scored ones are among them, it cannot be used.
    clean = all(a is b for model, parts in measured.items() for a, b in zip(parts, prints[model], strict=True))
    personal = load_personal(measured).found if clean else None
    if any(one.anchors.own for parts in prints.values() for one in parts):
        prints = dict(refit.refitted(prints, irt, prints))
    bank = load_bank("auto")
    material = data.take(np.ones(len(data.models), bool), split.taught)
    found = []
    for part in _parts(data, split, irt, material, load_bank_vectors()):
        known = np.array([name in prints or name in irt.abilities for name in part.names], bool)
        models = part.models[known]
        names = data.models[models].tolist()
        if names:
            found.append(
                replace(
                    part,
                    models=models,
                    unseen=np.array([name not in irt.abilities for name in names], bool),
                    prints={name: prints.get(name, ()) for name in names},
                    personal=personal,
                    bank=bank,
                )
            )
    return found


def _without(one: Fingerprint, scored: frozenset[int]) -> Fingerprint:
    """Return the fingerprint without outcomes on these texts, given by hash; itself if it has none."""
    same = np.array([text_hash(text) in scored for text in one.anchors.texts], bool)
    if not same.any():
        return one
    return replace(one, correct=np.where(same, np.nan, one.correct), tokens=np.where(same, np.nan, one.tokens))


def _parts(data: Pooled, split: Split, irt: IrtModel, material: Pooled, bank: NDArray[np.float32]) -> list[Part]:
    """Return the sets with candidates that can be scored, without fingerprints."""
    found = []
    for s in range(len(data.set_names)):
        rows = np.flatnonzero(split.scored & (data.sets == s))
        scored = np.isfinite(data.correct[:, rows]).sum(axis=1)
        known = np.isfinite(material.correct[:, material.sets == s]).sum(axis=1)
        models = np.flatnonzero((np.minimum(scored, known) >= LEAST_OUTCOMES) & ~data.base)
        if len(rows) and len(models):
            found.append(
                Part(
                    data=data,
                    split=split,
                    set_number=s,
                    irt=irt,
                    reference=irt.reference,
                    material=material,
                    rows=rows,
                    positions=irt.map.places_of(*data.encoded(rows)),
                    similarity=nearest_similarity(data.vectors[rows], bank),
                    prompts=_prompts(data.texts[rows].tolist()),
                    models=models,
                    unseen=np.zeros(len(models), bool),
                    prints={},
                )
            )
    return found


def _reference(learned: Learned, material: Pooled, set_number: int) -> Reference:
    """Return the set's training queries with cross-fitted positions: all of them, or `SIZE` evenly spaced ones."""
    here = np.flatnonzero(material.sets == set_number)
    here = here[:: max(1, -(-len(here) // SIZE))]
    return reference_of(material, learned.joint, learned.positions, here)


def nearest_similarity(vectors: NDArray[np.float32], bank: NDArray[np.float32]) -> Floats:
    """Return each unit vector's cosine to the nearest of the bank, (q,)."""
    steps = range(0, len(vectors), 512)
    return np.concatenate([(vectors[i : i + 512] @ bank.T).max(axis=1) for i in steps]).astype(np.float64)


def _prompts(texts: Sequence[str]) -> tuple[Floats, Floats]:
    tokens = [query_prompt_tokens(Query(text)) for text in texts]
    return np.array([one.expected for one in tokens]), np.array([one.high for one in tokens])


def _prints(part: Part, learned: Learned) -> Mapping[str, tuple[Fingerprint, ...]]:
    """Return each candidate's fingerprint on its most informative queries; models measured alike share their anchors."""
    whole = learned.whole[part.name]
    made: dict[bytes, AnchorSet] = {}
    found = {}
    for name, m in zip(part.names, part.models.tolist(), strict=True):
        known = np.isfinite(part.material.correct[m, part.taught])
        key = known.tobytes()
        if key not in made:
            made[key] = core_of(whole, known.astype(np.float64), learned.irt.population)
        found[name] = (fingerprint(part.material, m, made[key]),)
    return found
