"""Anchor sets whose difficulty the map predicted: how they are placed, and refitted to the models' outcomes on them.

Every anchor's difficulty b has a Gaussian prior: the map's prediction as its mean, the map's usual error
(`Population.unexplained`) as its variance. An outcome counts for less the less is known of the model's ability. The
posterior's mode is found by Newton's method, its variance is Laplace's.

A model is judged by the *other* models' posterior, never by its own outcomes twice: they are taken out again by one Newton
step, which is exact where it was the only one.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.encoding.encoder import Encoder
from scope_edge.encoding.token_count import estimate_prompt_tokens
from scope_edge.errors import AssetError, PackError
from scope_edge.estimation.ability import softening
from scope_edge.estimation.anchors import AnchorSet
from scope_edge.estimation.irt import ability_of, load_irt_model
from scope_edge.estimation.local_difficulty import LocalDifficulty
from scope_edge.estimation.newton import sigmoid
from scope_edge.storage.packs import read_pack, reading, write_pack
from scope_edge.types import Query

if TYPE_CHECKING:
    from pathlib import Path

    from scope_edge.estimation.ability import Population
    from scope_edge.estimation.fingerprints import Fingerprint
    from scope_edge.estimation.irt import IrtModel
    from scope_edge.types import Floats

    Fingerprints = Mapping[str, tuple[Fingerprint, ...]]

_STEPS, _ROUNDS = 30, 20
# In logits of difficulty: the longest step, so that none leaves the region where the next one is better; and the end of
# the steps, and of the rounds, since outcomes cannot show as little.
_STRIDE, _SETTLED_POSTERIOR, _SETTLED_ROUND = 1.0, 1e-4, 0.01
_KIND = "refit-cache"
# Of the computation: the numbers of another version are not read.
_VERSION = 1


@dataclass(frozen=True, slots=True)
class PlacedQuestion:
    """A question to be placed: its id and category within the set, and its text."""

    id: str
    category: str
    text: str


def place(
    name: str,
    questions: Sequence[PlacedQuestion],
    progress: Callable[[str, int, int], None] | None = None,
    *,
    own: bool,
) -> AnchorSet:
    """Make an anchor set called `name` of questions, in their order, with the difficulty that the map predicts.

    Raises AssetError when the encoder or the map is missing or damaged.
    """
    irt, encoder = load_irt_model(), Encoder.load()
    vectors, positions = [], []
    for done, encoded in enumerate(encoder.encode_many(Query(one.text) for one in questions), 1):
        vectors.append(encoded.vector)
        positions.append(irt.map.place(encoded))
        if progress is not None:
            progress("placing anchors", done, len(questions))
    domains = np.array([one.domains for one in positions])
    difficulty = np.array([one.difficulty for one in positions])
    slope = domains @ irt.population.discrimination
    # The map does not know an anchor's own difficulty exactly: its error is averaged over, until models are measured.
    factor = softening(slope, domains @ irt.population.unexplained)
    return AnchorSet(
        name=name,
        ids=tuple(f"{name}/{one.id}" for one in questions),
        categories=tuple(f"{name}/{one.category}" for one in questions),
        vectors=np.array(vectors),
        prompt_tokens=np.array([estimate_prompt_tokens(one.text).expected for one in questions]),
        difficulty=difficulty,
        discrimination=slope * factor,
        log_length=np.array([one.log_length for one in positions]),
        map_difficulty=difficulty,
        domains=domains,
        traits=np.array([one.traits for one in positions]) * factor[:, None],
        linked=False,
        texts=tuple(one.text for one in questions),
        own=own,
    )


def is_placed(anchors: AnchorSet) -> bool:
    """Say whether a set's difficulty comes from the map alone."""
    return np.array_equal(anchors.difficulty, anchors.map_difficulty)


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """An anchor set as the map placed it, before the map's error was averaged over.

    slope: (n,) discrimination, and rows: (n, d) with logit = rows . g - slope b, of an anchor whose difficulty is known.
    variance: (n,) of the map's error.
    """

    anchors: AnchorSet
    slope: Floats
    rows: Floats
    variance: Floats

    @classmethod
    def of(cls, anchors: AnchorSet, population: Population) -> Placed:
        """Undo the averaging of `place`."""
        slope, variance = anchors.domains @ population.discrimination, anchors.domains @ population.unexplained
        traits = anchors.traits / softening(slope, variance)[:, None]
        rows = np.hstack([slope[:, None], slope[:, None] * anchors.domains, traits])
        return cls(anchors, slope, rows, variance)

    def seen(self, difficulty: Floats, variance: Floats) -> AnchorSet:
        """Return the set with these difficulties, known but for these variances, each (n,)."""
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

    models: whose outcomes it rests on. pulls, shares: (models, n) each model's part of the gradient and of the information.
    """

    models: Sequence[str]
    difficulty: Floats
    information: Floats
    pulls: Floats
    shares: Floats

    def excluding(self, model: str, placed: Placed) -> AnchorSet:
        """Return the set as hard as the map and all models but this one say."""
        difficulty, information = self.difficulty, self.information
        if model in self.models:
            row = self.models.index(model)
            information = information - self.shares[row]
            difficulty = difficulty + self.pulls[row] / information
        return placed.seen(_centered(difficulty, information, placed), 1 / information)


def _centered(difficulty: Floats, information: Floats, placed: Placed) -> Floats:
    """Return difficulties without their common shift, in proportion to what outcomes say of each: the mean stays the map's.

    A common shift may be an error in the models' abilities; and if it is the map's, the map errs so about similar queries
    too, which it predicts.
    """
    told = 1 - 1 / (placed.variance * information)
    guess = placed.anchors.map_difficulty
    return difficulty - told * ((told @ (difficulty - guess)) / max(float(told @ told), 1e-9))


def update(
    placed: Placed, outcomes: Mapping[str, Floats], abilities: Mapping[str, tuple[Floats, Floats]]
) -> RefitPosterior:
    """Fit difficulties to outcomes: model -> (n,), NaN = missing. abilities: model -> mean (d,) and covariance (d, d)."""
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


def joint_refit(fingerprints: Fingerprints, placed: Mapping[str, Placed], irt: IrtModel) -> dict[str, RefitPosterior]:
    """Fit difficulties and abilities in turns until they agree; return the posterior of every placed set, by name.

    Models' outcomes on other sets, bundled ones above all, count in their abilities. The result does not depend on the
    order of models and files. Milliseconds per model and round, of which about five are needed.
    """
    outcomes = {
        name: {
            model: part.correct
            for model in sorted(fingerprints)
            if (part := next((one for one in fingerprints[model] if one.anchors.name == name), None))
        }
        for name in sorted(placed)
    }
    models = sorted({model for one in outcomes.values() for model in one})
    # Sums differ in their last digits with the order.
    parts = {model: sorted(fingerprints[model], key=lambda part: part.anchors.name) for model in models}
    found: dict[str, RefitPosterior] = {}
    for _ in range(_ROUNDS):
        abilities = {}
        for model in models:
            ability = ability_of(irt, model, _seen_by(model, parts[model], found, placed))
            assert ability is not None  # it has at least one fingerprint
            abilities[model] = ability.mean, ability.covariance
        before, found = found, {name: update(placed[name], one, abilities) for name, one in outcomes.items()}
        moves = [np.abs(found[name].difficulty - one.difficulty).max() for name, one in before.items()]
        if before and max(moves) < _SETTLED_ROUND:
            break
    return found


def _seen_by(
    model: str, parts: Sequence[Fingerprint], found: Mapping[str, RefitPosterior], placed: Mapping[str, Placed]
) -> tuple[Fingerprint, ...]:
    """Return a model's fingerprints, their anchors as hard as the other models found them."""
    return tuple(
        replace(part, anchors=found[name].excluding(model, placed[name]))
        if (name := part.anchors.name) in found
        else part
        for part in parts
    )


def refitted(
    fingerprints: Fingerprints, irt: IrtModel, models: Iterable[str], *, cache_dir: Path | None = None
) -> Fingerprints:
    """Return the fingerprints, those of `models` with their anchors as hard as the other models on them found them.

    Only anchors that the map placed are refitted: bundled sets stay as they are, and so do sets that one model alone was
    measured on. cache_dir: where to keep the result; a folder that cannot be written is not an error.
    """
    placed = _placed(fingerprints, irt.population, least=2)
    if not placed:
        return fingerprints
    found = _cached_refit(fingerprints, placed, irt, cache_dir)
    return {**fingerprints, **{m: _seen_by(m, fingerprints[m], found, placed) for m in models if m in fingerprints}}


def near_own_anchors(
    fingerprints: Fingerprints, irt: IrtModel, *, cache_dir: Path | None = None
) -> LocalDifficulty | None:
    """Return what all models' outcomes on the user's own sets say of queries near them; None without such outcomes."""
    placed = _placed(fingerprints, irt.population, least=2)
    return LocalDifficulty.of(placed, _cached_refit(fingerprints, placed, irt, cache_dir)) if placed else None


def anchors_for(model: str, anchors: AnchorSet, fingerprints: Fingerprints, irt: IrtModel) -> AnchorSet:
    """Return the anchors as hard as all models but this one, which is about to answer them, found them."""
    others = {
        name: tuple(part for part in parts if name != model or part.anchors.name != anchors.name)
        for name, parts in fingerprints.items()
    }
    placed = _placed(others, irt.population, least=1)
    if anchors.name not in placed:
        return anchors
    return joint_refit(others, placed, irt)[anchors.name].excluding(model, placed[anchors.name])


def _placed(fingerprints: Fingerprints, population: Population, least: int) -> dict[str, Placed]:
    """Return the sets that the map placed and that so many models were measured on."""
    parts = [part for one in fingerprints.values() for part in one if is_placed(part.anchors)]
    names = [part.anchors.name for part in parts]
    sets = {part.anchors.name: part.anchors for part in parts if names.count(part.anchors.name) >= least}
    return {name: Placed.of(anchors, population) for name, anchors in sets.items()}


def _cached_refit(
    fingerprints: Fingerprints, placed: Mapping[str, Placed], irt: IrtModel, cache_dir: Path | None
) -> Mapping[str, RefitPosterior]:
    """Return the joint refit, from the cache if the same outcomes led to it."""
    if cache_dir is None:
        return joint_refit(fingerprints, placed, irt)
    path, identity = cache_dir / "refit.pack", _identity(fingerprints, placed, irt)
    with contextlib.suppress(PackError):
        body = read_pack(path, _KIND)
        if body.get("identity") == identity:
            return {name: _read_posterior(body, name, len(one.anchors)) for name, one in placed.items()}
    found = joint_refit(fingerprints, placed, irt)
    rows = {name: {field.name: getattr(one, field.name) for field in fields(one)} for name, one in found.items()}
    with contextlib.suppress(AssetError):
        write_pack(path, _KIND, {"identity": identity, "told": rows})
    return found


def _read_posterior(body: Mapping[str, Any], name: str, anchors: int) -> RefitPosterior:
    """Read the posterior of a set of so many anchors from the cache. Raises PackError."""
    with reading("refit.pack", "cache"):
        found = RefitPosterior(**body["told"][name])
        shapes = {found.pulls.shape, found.shares.shape, (len(found.models), *found.difficulty.shape)}
        if shapes != {(len(found.models), anchors)} or found.information.shape != (anchors,):
            raise ValueError(f"of other anchors than {name}")
        return found


def _identity(fingerprints: Fingerprints, placed: Mapping[str, Placed], irt: IrtModel) -> str:
    """Return a hash of everything the refit depends on, whatever the order of models and sets."""
    found = hashlib.sha256(f"{_VERSION}".encode())

    def add(*values: Any) -> None:
        for value in values:
            found.update(value.encode() if isinstance(value, str) else np.ascontiguousarray(value).tobytes())

    population = irt.population
    add(population.mean, population.covariance, population.discrimination, population.unexplained)
    for name in sorted(placed):
        add(name, placed[name].anchors.map_difficulty, placed[name].rows)
    for model in sorted(fingerprints):
        parts = sorted(fingerprints[model], key=lambda part: part.anchors.name)
        if any(part.anchors.name in placed for part in parts):
            add(model)
            if (taught := irt.abilities.get(model)) is not None:
                add(taught.mean, taught.covariance)
            for part in parts:
                add(part.anchors.name, part.anchors.difficulty, part.anchors.discrimination, part.correct)
    return found.hexdigest()
