"""What a split lets the router know: a bank and a calibration learned from its training part, and fingerprints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.errors import UsageError
from scope_edge.learning.learn import CORE_SIZE, Learned, core_of, fingerprint, learn
from scope_edge.prior import Prior
from scope_edge.prompt_tokens import query_prompt_tokens
from scope_edge.records import Query

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from scope_edge.anchors import AnchorSet
    from scope_edge.difficulty import Places
    from scope_edge.evaluating.splits import Split
    from scope_edge.fingerprints import Fingerprint
    from scope_edge.learning.pooled import Pooled
    from scope_edge.records import Floats, ModelCard

# A bank of fewer is no map, and a population of fewer is none.
LEAST_QUERIES, LEAST_MODELS = 60, 3
# A model is scored on a set where this many outcomes can teach and as many can be scored.
LEAST_OUTCOMES = 10


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One set's part of a split, with what may be known before it is scored.

    Attributes:
        learned: from the training part of all sets. material: every model on the training queries of all sets.
        rows: (q,) scored queries of this set, index in `data`. places: theirs. similarity: (q,), to the nearest taught query.
        prompts: (q,) cl100k tokens of theirs as prompts, as `route` estimates them: expected, and the 95 % bound.
        models: (m,) candidates, index in `data`. anchors: of each candidate, most informative first.
    """

    data: Pooled
    split: Split
    set_number: int
    learned: Learned
    material: Pooled
    rows: NDArray[np.intp]
    places: Places
    similarity: Floats
    prompts: tuple[Floats, Floats]
    models: NDArray[np.intp]
    anchors: Mapping[str, AnchorSet]

    @property
    def name(self) -> str:
        """The set's."""
        return self.data.set_names[self.set_number]

    @property
    def names(self) -> tuple[str, ...]:
        """The candidates' ids."""
        return tuple(self.data.models[self.models].tolist())

    @property
    def unseen(self) -> NDArray[np.bool_]:
        """(m,) which candidates taught the bank nothing."""
        return self.split.unseen[self.models]

    @property
    def taught(self) -> NDArray[np.intp]:
        """The set's training queries, index in `material`."""
        return np.flatnonzero(self.material.sets == self.set_number)

    def reference(self) -> tuple[Places, Floats]:
        """Places, and prompt tokens, of the set's training queries, as the map has them with their family left out."""
        return self.learned.places.take(self.taught), self.material.text_tokens[self.taught]

    def fingerprints(self, size: int) -> Mapping[str, tuple[Fingerprint, ...]]:
        """Every candidate by its first `size` anchors."""
        rows = zip(self.names, self.models.tolist(), strict=True)
        return {name: (fingerprint(self.material, m, self.anchors[name], size),) for name, m in rows}

    def prior(self, cards: Sequence[ModelCard], size: int, coverage: float) -> Prior:
        """The prior of candidates, each known by its first `size` anchors."""
        return Prior(self.learned.basis, cards, self.fingerprints(size), coverage=coverage)


def fit(data: Pooled, split: Split) -> Learned:
    """Learn what the split lets be learned. Raises UsageError when that is too little."""
    train = data.take(~split.unseen, split.taught)
    measured = np.isfinite(train.correct).any(axis=1) & ~train.base
    if len(train) < LEAST_QUERIES or measured.sum() < LEAST_MODELS:
        raise UsageError(
            f"{len(train)} queries and {int(measured.sum())} models are left to learn from, fewer than"
            f" {LEAST_QUERIES} and {LEAST_MODELS}; give more data, or `--bank bundled` to score the bank that comes along"
        )
    return learn(train)


def parts_of(data: Pooled, split: Split, learned: Learned) -> list[Part]:
    """The sets that can be scored, each with its candidates."""
    material = data.take(np.ones(len(data.models), bool), split.taught)
    found = []
    for s in range(len(data.set_names)):
        rows = np.flatnonzero(split.scored & (data.sets == s))
        scored = np.isfinite(data.correct[:, rows]).sum(axis=1)
        known = np.isfinite(material.correct[:, material.sets == s]).sum(axis=1)
        models = np.flatnonzero((np.minimum(scored, known) >= LEAST_OUTCOMES) & ~data.base)
        if not (len(rows) and len(models)):
            continue
        part = Part(
            data=data,
            split=split,
            set_number=s,
            learned=learned,
            material=material,
            rows=rows,
            places=learned.basis.map.places_of(data.vectors[rows], data.features[rows]),
            similarity=nearest_similarity(data.vectors[rows], material.vectors),
            prompts=_prompts(data.texts[rows].tolist()),
            models=models,
            anchors={},
        )
        found.append(replace(part, anchors=_anchors(part)))
    return found


def nearest_similarity(vectors: NDArray[np.float32], bank: NDArray[np.float32]) -> Floats:
    """(q,) cosine of each unit vector to the nearest of the bank."""
    steps = range(0, len(vectors), 512)
    return np.concatenate([(vectors[i : i + 512] @ bank.T).max(axis=1) for i in steps]).astype(np.float64)


def _prompts(texts: Sequence[str]) -> tuple[Floats, Floats]:
    tokens = [query_prompt_tokens(Query(text)) for text in texts]
    return np.array([one.expected for one in tokens]), np.array([one.high for one in tokens])


def _anchors(part: Part) -> Mapping[str, AnchorSet]:
    """Each candidate's anchors: the most informative of what it was measured on. Models measured alike share theirs."""
    whole = part.learned.whole[part.name]
    made: dict[bytes, AnchorSet] = {}
    found = {}
    for name, m in zip(part.names, part.models.tolist(), strict=True):
        known = np.isfinite(part.material.correct[m, part.taught])
        key = known.tobytes()
        if key not in made:
            made[key] = core_of(whole, known.astype(np.float64), part.learned.basis.population, CORE_SIZE)
        found[name] = made[key]
    return found
