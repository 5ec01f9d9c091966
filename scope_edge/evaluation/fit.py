"""What a split lets the router know: a bank and a calibration learned from its training part, and fingerprints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.encoding.token_count import query_prompt_tokens
from scope_edge.errors import UsageError
from scope_edge.estimation.irt import IrtEstimator
from scope_edge.estimation.item_selection import asked
from scope_edge.types import Query

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from scope_edge.estimation.anchors import AnchorSet, Bank
    from scope_edge.estimation.difficulty import MapPositions
    from scope_edge.estimation.fingerprints import Fingerprint
    from scope_edge.estimation.irt import IrtModel
    from scope_edge.estimation.reference import Reference
    from scope_edge.estimation.user_calibration import Personal
    from scope_edge.evaluation.splits import Split
    from scope_edge.training.dataset import Pooled
    from scope_edge.training.learn import Learned
    from scope_edge.types import Floats, ModelCard

# A bank of fewer is no map, and a population of fewer is none.
LEAST_QUERIES, LEAST_MODELS = 40, 3
# A model is scored on a set where this many outcomes can teach and as many can be scored.
LEAST_OUTCOMES = 10


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One set's part of a split, with what may be known before it is scored.

    Attributes:
        basis: what estimates rest on. reference: queries that no scored one is among, for what is to be expected of a pool.
        material: every model on the training queries of all sets.
        rows: (q,) scored queries of this set, index in `data`. places: theirs. similarity: (q,), to the nearest taught query.
        prompts: (q,) cl100k tokens of theirs as prompts, as `route` estimates them: expected, and the 95 % bound.
        models: (m,) candidates, index in `data`. unseen: (m,) which of them taught the bank nothing.
        prints: their fingerprints, the most informative anchors first. personal: the user's own calibration, if there is one.
        bank: what a user would see similar questions of; None = the training queries.
    """

    data: Pooled
    split: Split
    set_number: int
    basis: IrtModel
    reference: Reference
    material: Pooled
    rows: NDArray[np.intp]
    places: MapPositions
    similarity: Floats
    prompts: tuple[Floats, Floats]
    models: NDArray[np.intp]
    unseen: NDArray[np.bool_]
    prints: Mapping[str, tuple[Fingerprint, ...]]
    personal: Personal | None = None
    bank: Bank | None = None

    @property
    def name(self) -> str:
        """The set's."""
        return self.data.set_names[self.set_number]

    @property
    def names(self) -> tuple[str, ...]:
        """The candidates' ids."""
        return tuple(self.data.models[self.models].tolist())

    @property
    def taught(self) -> NDArray[np.intp]:
        """The set's training queries, index in `material`."""
        return np.flatnonzero(self.material.sets == self.set_number)

    @property
    def joined(self) -> NDArray[np.bool_]:
        """(m,) the unseen candidates, or all if there are none."""
        return self.unseen if self.unseen.any() else np.ones(len(self.models), bool)

    def fingerprints(self, size: int) -> Mapping[str, tuple[Fingerprint, ...]]:
        """Every candidate by `size` anchors of each of its fingerprints, chosen by its answers as they come."""
        population = self.basis.population
        return {name: tuple(asked(one, population, size) for one in parts) for name, parts in self.prints.items()}

    def prior(self, cards: Sequence[ModelCard], size: int, coverage: float) -> IrtEstimator:
        """The prior of candidates, each known by `size` anchors."""
        return IrtEstimator(self.basis, cards, self.fingerprints(size), coverage=coverage, personal=self.personal)


def refitted(data: Pooled, split: Split) -> list[Part]:
    """The sets that can be scored, with all that the split lets be learned. Raises UsageError when that is too little."""
    from scope_edge.training.learn import learn

    train = data.take(~split.unseen, split.taught)
    measured = np.isfinite(train.correct).any(axis=1) & ~train.base
    if len(train) < LEAST_QUERIES or measured.sum() < LEAST_MODELS:
        raise UsageError(
            f"{len(train)} queries and {int(measured.sum())} models are left to learn from, fewer than"
            f" {LEAST_QUERIES} and {LEAST_MODELS}; give more data, or `--bank bundled` to score the bank that comes along"
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
        for part in _parts(data, split, learned.basis, material, material.vectors)
    ]


def bundled(data: Pooled, split: Split) -> list[Part]:
    """The sets that can be scored by the bank that comes along and the fingerprints that are there, as `route` uses them.

    What the user has had measured on a query that is scored is left out of the fingerprints. Raises UsageError when the
    bank holds one of those queries, by id or by text.
    """
    from scope_edge.estimation.anchors import load_bank, load_bank_vectors, taught_by, text_hash
    from scope_edge.estimation.fingerprints import load_fingerprints
    from scope_edge.estimation.irt import load_irt_model
    from scope_edge.estimation.refit import refitted as told
    from scope_edge.estimation.user_calibration import load_personal

    ids, hashes = taught_by()
    for i in np.flatnonzero(split.scored):
        if data.ids[i] in ids or text_hash(data.texts[i]) in hashes:
            raise UsageError(
                f"query {data.ids[i]!r} is in the bundled bank: it would be scored by what was fitted on it;"
                " leave --bank out, and the bank is learned anew without it"
            )
    basis, measured = load_irt_model(), load_fingerprints()[1]
    asked = frozenset(text_hash(text) for text in data.texts[split.scored])
    prints = {model: tuple(_without(one, asked) for one in parts) for model, parts in measured.items()}
    # A calibration rests on all that was measured: where that is part of what is scored, it cannot be used.
    clean = all(a is b for model, parts in measured.items() for a, b in zip(parts, prints[model], strict=True))
    personal = load_personal(measured).found if clean else None
    if any(one.anchors.own for parts in prints.values() for one in parts):
        prints = dict(told(prints, basis, prints))
    bank = load_bank("auto")
    material = data.take(np.ones(len(data.models), bool), split.taught)
    found = []
    for part in _parts(data, split, basis, material, load_bank_vectors()):
        known = np.array([name in prints or name in basis.abilities for name in part.names], bool)
        models = part.models[known]
        names = data.models[models].tolist()
        if names:
            found.append(
                replace(
                    part,
                    models=models,
                    unseen=np.array([name not in basis.abilities for name in names], bool),
                    prints={name: prints.get(name, ()) for name in names},
                    personal=personal,
                    bank=bank,
                )
            )
    return found


def _without(one: Fingerprint, asked: frozenset[int]) -> Fingerprint:
    """The fingerprint without outcomes on questions whose text is one of these, by hash; itself where there is none."""
    from scope_edge.estimation.anchors import text_hash

    same = np.array([text_hash(text) in asked for text in one.anchors.texts], bool)
    if not same.any():
        return one
    return replace(one, correct=np.where(same, np.nan, one.correct), tokens=np.where(same, np.nan, one.tokens))


def _parts(data: Pooled, split: Split, basis: IrtModel, material: Pooled, bank: NDArray[np.float32]) -> list[Part]:
    """The sets with candidates that have outcomes to be known by and to be scored on; without their fingerprints."""
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
                    basis=basis,
                    reference=basis.reference,
                    material=material,
                    rows=rows,
                    places=basis.map.places_of(data.vectors[rows], data.states[rows], data.features[rows]),
                    similarity=nearest_similarity(data.vectors[rows], bank),
                    prompts=_prompts(data.texts[rows].tolist()),
                    models=models,
                    unseen=np.zeros(len(models), bool),
                    prints={},
                )
            )
    return found


def _reference(learned: Learned, material: Pooled, set_number: int) -> Reference:
    """The set's training queries, as the map has them with their family left out: all of them, or evenly `SIZE`."""
    from scope_edge.estimation.reference import SIZE
    from scope_edge.training.learn import reference_of

    here = np.flatnonzero(material.sets == set_number)
    here = here[:: max(1, -(-len(here) // SIZE))]
    return reference_of(material, learned.joint, learned.places, here)


def nearest_similarity(vectors: NDArray[np.float32], bank: NDArray[np.float32]) -> Floats:
    """(q,) cosine of each unit vector to the nearest of the bank."""
    steps = range(0, len(vectors), 512)
    return np.concatenate([(vectors[i : i + 512] @ bank.T).max(axis=1) for i in steps]).astype(np.float64)


def _prompts(texts: Sequence[str]) -> tuple[Floats, Floats]:
    tokens = [query_prompt_tokens(Query(text)) for text in texts]
    return np.array([one.expected for one in tokens]), np.array([one.high for one in tokens])


def _prints(part: Part, learned: Learned) -> Mapping[str, tuple[Fingerprint, ...]]:
    """Each candidate by the most informative of what it was measured on. Models measured alike share their anchors."""
    from scope_edge.training.learn import core_of, fingerprint

    whole = learned.whole[part.name]
    made: dict[bytes, AnchorSet] = {}
    found = {}
    for name, m in zip(part.names, part.models.tolist(), strict=True):
        known = np.isfinite(part.material.correct[m, part.taught])
        key = known.tobytes()
        if key not in made:
            made[key] = core_of(whole, known.astype(np.float64), learned.basis.population)
        found[name] = (fingerprint(part.material, m, made[key]),)
    return found
