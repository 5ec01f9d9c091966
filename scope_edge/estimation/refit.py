"""What models tell of one anchor set whose difficulty the map guessed.

Of every anchor, difficulty b has a Gaussian prior: the map's word as its mean, what the map usually misses
(`Population.unexplained`) as its variance. Every outcome is evidence, the less the less the model's ability is known. The
posterior's mode is found by Newton's method, its variance is Laplace's.

A model is judged by what the *others* tell, never by its own outcomes twice: they are taken out of the posterior again by one
Newton step, which is exact where it was the only one.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.errors import AssetError, PackError
from scope_edge.estimation.ability import softening
from scope_edge.estimation.irt import ability_of
from scope_edge.estimation.newton import sigmoid
from scope_edge.storage.packs import read_pack, write_pack

if TYPE_CHECKING:
    from scope_edge.estimation.ability import Population
    from scope_edge.estimation.anchors import AnchorSet
    from scope_edge.types import Floats

_STEPS = 30
# In logits of difficulty: the longest step, so that none leaves the region where the next one is better; and the end.
_STRIDE, _SETTLED_POSTERIOR = 1.0, 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """An anchor set as the map placed it, with the blur taken off.

    slope: (n,) discrimination, and rows: (n, d) with logit = rows . g - slope b, of an anchor whose difficulty is known.
    variance: (n,) of what the map misses.
    """

    anchors: AnchorSet
    slope: Floats
    rows: Floats
    variance: Floats

    @classmethod
    def of(cls, anchors: AnchorSet, population: Population) -> Placed:
        """As `placing.place` made it."""
        slope, variance = anchors.domains @ population.discrimination, anchors.domains @ population.unexplained
        traits = anchors.traits / softening(slope, variance)[:, None]
        rows = np.hstack([slope[:, None], slope[:, None] * anchors.domains, traits])
        return cls(anchors, slope, rows, variance)

    def seen(self, difficulty: Floats, variance: Floats) -> AnchorSet:
        """The set with these difficulties, known but for these variances, each (n,)."""
        factor = softening(self.slope, variance)
        return replace(
            self.anchors,
            difficulty=difficulty,
            discrimination=self.slope * factor,
            traits=self.rows[:, 1 + self.anchors.domains.shape[1] :] * factor[:, None],
        )


@dataclass(frozen=True, slots=True, eq=False)
class RefitPosterior:
    """difficulty: (n,) mode; information: (n,) of the posterior there, the prior's included.

    models: whose outcomes it rests on. pulls, shares: (models, n) what each adds to the gradient and to the information.
    """

    models: Sequence[str]
    difficulty: Floats
    information: Floats
    pulls: Floats
    shares: Floats

    def by_others(self, model: str, placed: Placed) -> AnchorSet:
        """The set as the map and all models but this one tell."""
        difficulty, information = self.difficulty, self.information
        if model in self.models:
            row = self.models.index(model)
            information = information - self.shares[row]
            difficulty = difficulty + self.pulls[row] / information
        return placed.seen(_centered(difficulty, information, placed), 1 / information)


def _centered(difficulty: Floats, information: Floats, placed: Placed) -> Floats:
    """Difficulties without what they have in common, as far as each was told: on the whole they stay as hard as the map says.

    What all anchors seem harder by than the map says may be an error in the models' abilities; and if it is the map's, it errs
    so about queries like these too, which are predicted by the map.
    """
    told = 1 - 1 / (placed.variance * information)
    guess = placed.anchors.map_difficulty
    return difficulty - told * ((told @ (difficulty - guess)) / max(float(told @ told), 1e-9))


def update(
    placed: Placed, outcomes: Mapping[str, Floats], abilities: Mapping[str, tuple[Floats, Floats]]
) -> RefitPosterior:
    """What models tell. outcomes: model -> (n,), NaN = missing. abilities: model -> mean (d,) and covariance (d, d)."""
    models, rows = list(outcomes), placed.rows
    correct = np.array([outcomes[model] for model in models])
    known = ~np.isnan(correct)
    level = np.array([rows @ abilities[model][0] for model in models])
    doubt = np.array([np.einsum("ij,ij->i", rows @ abilities[model][1], rows) for model in models])
    blur = np.where(known, softening(1.0, doubt), 0.0)
    correct = np.where(known, correct, 0.0)
    prior = 1 / placed.variance
    guess = difficulty = placed.anchors.map_difficulty
    for _ in range(_STEPS):
        p = sigmoid(blur * (level - placed.slope * difficulty))
        pulls = blur * placed.slope * (correct - p)
        shares = (blur * placed.slope) ** 2 * p * (1 - p)
        information = prior + shares.sum(axis=0)
        step = np.clip((prior * (difficulty - guess) + pulls.sum(axis=0)) / information, -_STRIDE, _STRIDE)
        difficulty = difficulty - step
        if np.abs(step).max() < _SETTLED_POSTERIOR:
            break
    return RefitPosterior(models, difficulty, information, pulls, shares)


# Difficulties and abilities in turns, until they agree: the joint fit of what the user has had measured.
#
# What models did on other sets, bundled ones above all, counts in their abilities. The result is the same whatever the order
# in which models and files come.

if TYPE_CHECKING:
    from scope_edge.estimation.fingerprints import Fingerprint
    from scope_edge.estimation.irt import IrtModel
    from scope_edge.types import Floats

    Fingerprints = Mapping[str, tuple[Fingerprint, ...]]

_ROUNDS = 20
# Logits of difficulty; outcomes cannot show as little.
_SETTLED = 0.01


def told_by_all(fingerprints: Fingerprints, placed: Mapping[str, Placed], basis: IrtModel) -> dict[str, RefitPosterior]:
    """What the models tell of every placed set, by its name. Milliseconds a model and round, of which there are about five."""
    outcomes = {
        name: {model: part.correct for model in sorted(fingerprints) if (part := _on(name, fingerprints[model]))}
        for name in sorted(placed)
    }
    models = sorted({model for one in outcomes.values() for model in one})
    # Sums differ in their last digits with the order.
    parts = {model: sorted(fingerprints[model], key=lambda part: part.anchors.name) for model in models}
    told: dict[str, RefitPosterior] = {}
    for _ in range(_ROUNDS):
        abilities = {m: _able(basis, m, seen_by(m, parts[m], told, placed)) for m in models}
        before, told = told, {name: update(placed[name], one, abilities) for name, one in outcomes.items()}
        if before and all(
            np.abs(one.difficulty - before[name].difficulty).max() < _SETTLED for name, one in told.items()
        ):
            break
    return told


def seen_by(
    model: str, parts: Sequence[Fingerprint], told: Mapping[str, RefitPosterior], placed: Mapping[str, Placed]
) -> tuple[Fingerprint, ...]:
    """A model's fingerprints, their anchors as hard as the other models tell."""
    return tuple(
        replace(part, anchors=told[name].by_others(model, placed[name]))
        if (name := part.anchors.name) in told
        else part
        for part in parts
    )


def _on(name: str, parts: Sequence[Fingerprint]) -> Fingerprint | None:
    return next((part for part in parts if part.anchors.name == name), None)


def _able(basis: IrtModel, model: str, parts: Sequence[Fingerprint]) -> tuple[Floats, Floats]:
    ability = ability_of(basis, model, parts)
    assert ability is not None  # it has at least one fingerprint
    return ability.mean, ability.covariance


# The refit as the rest of the package meets it: fingerprints in, the same with better anchors out; remembered on the disk.

if TYPE_CHECKING:
    from pathlib import Path

    from scope_edge.estimation.ability import Population
    from scope_edge.estimation.anchors import AnchorSet
    from scope_edge.estimation.fingerprints import Fingerprint
    from scope_edge.estimation.irt import IrtModel


_KIND = "refit-cache"
# Of the way it is computed: other numbers are not read.
_VERSION = 1


def refitted(
    fingerprints: Fingerprints, basis: IrtModel, models: Iterable[str], *, cache_dir: Path | None = None
) -> Fingerprints:
    """The fingerprints, those of `models` with their anchors as hard as the other models on them found them.

    Only anchors that the map placed are learned about: bundled sets stay as they are, and what one model alone was measured
    on. cache_dir: where to keep what was learned; a folder that cannot be written is no error.
    """
    placed = _placed(fingerprints, basis.population, least=2)
    if not placed:
        return fingerprints
    told = _remembered(fingerprints, placed, basis, cache_dir)
    return {**fingerprints, **{m: seen_by(m, fingerprints[m], told, placed) for m in models if m in fingerprints}}


def anchors_for(model: str, anchors: AnchorSet, fingerprints: Fingerprints, basis: IrtModel) -> AnchorSet:
    """The anchors as hard as all models but this one, which is about to answer them, found them."""
    others = {
        name: tuple(part for part in parts if name != model or part.anchors.name != anchors.name)
        for name, parts in fingerprints.items()
    }
    placed = _placed(others, basis.population, least=1)
    if anchors.name not in placed:
        return anchors
    return told_by_all(others, placed, basis)[anchors.name].by_others(model, placed[anchors.name])


def _placed(fingerprints: Fingerprints, population: Population, least: int) -> dict[str, Placed]:
    """The sets that the map placed and that so many models were measured on."""
    parts = [part for one in fingerprints.values() for part in one if is_placed(part.anchors)]
    names = [part.anchors.name for part in parts]
    sets = {part.anchors.name: part.anchors for part in parts if names.count(part.anchors.name) >= least}
    return {name: Placed.of(anchors, population) for name, anchors in sets.items()}


def is_placed(anchors: AnchorSet) -> bool:
    """Whether the map alone says how hard it is."""
    return np.array_equal(anchors.difficulty, anchors.map_difficulty)


def _remembered(
    fingerprints: Fingerprints, placed: Mapping[str, Placed], basis: IrtModel, cache_dir: Path | None
) -> Mapping[str, RefitPosterior]:
    """What was told, out of the cache if it was told by the same outcomes."""
    if cache_dir is None:
        return told_by_all(fingerprints, placed, basis)
    path, identity = cache_dir / "refit.pack", _identity(fingerprints, placed, basis)
    with contextlib.suppress(PackError):
        body = read_pack(path, _KIND)
        if body.get("identity") == identity:
            return {name: _told(body, name, len(one.anchors)) for name, one in placed.items()}
    told = told_by_all(fingerprints, placed, basis)
    rows = {name: {field.name: getattr(one, field.name) for field in fields(one)} for name, one in told.items()}
    with contextlib.suppress(AssetError):
        write_pack(path, _KIND, {"identity": identity, "told": rows})
    return told


def _told(body: Mapping[str, Any], name: str, anchors: int) -> RefitPosterior:
    """What the cache says of a set of so many anchors. Raises PackError."""
    try:
        told = RefitPosterior(**body["told"][name])
        shapes = {told.pulls.shape, told.shares.shape, (len(told.models), *told.difficulty.shape)}
    except (KeyError, TypeError, AttributeError) as error:
        raise PackError(f"not a usable cache ({error!r})") from error
    if shapes != {(len(told.models), anchors)} or told.information.shape != (anchors,):
        raise PackError(f"a cache of other anchors than {name}")
    return told


def _identity(fingerprints: Fingerprints, placed: Mapping[str, Placed], basis: IrtModel) -> str:
    """A hash of all that the refit looks at, whatever the order of models and sets."""
    found = hashlib.sha256(f"{_VERSION}".encode())

    def add(*values: Any) -> None:
        for value in values:
            found.update(value.encode() if isinstance(value, str) else np.ascontiguousarray(value).tobytes())

    population = basis.population
    add(population.mean, population.covariance, population.discrimination, population.unexplained)
    for name in sorted(placed):
        add(name, placed[name].anchors.map_difficulty, placed[name].rows)
    for model in sorted(fingerprints):
        parts = sorted(fingerprints[model], key=lambda part: part.anchors.name)
        if any(part.anchors.name in placed for part in parts):
            add(model)
            if (taught := basis.abilities.get(model)) is not None:
                add(taught.mean, taught.covariance)
            for part in parts:
                add(part.anchors.name, part.anchors.difficulty, part.anchors.discrimination, part.correct)
    return found.hexdigest()
