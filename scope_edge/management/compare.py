"""Two models compared: paired outcomes on shared anchors, and expected accuracy elsewhere from their abilities.

Paired differences get the adjusted Wald interval for matched pairs (Agresti and Min 2005), which holds for a handful of
pairs: half a pair is added to each of the four cells. Expected accuracy on a set is averaged over draws of both abilities
from their posteriors; the interval is that of the draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.errors import UsageError
from scope_edge.estimation.fingerprints import Fingerprint, load_fingerprints
from scope_edge.estimation.irt import IrtModel, ability_of, load_irt_model
from scope_edge.estimation.newton import sigmoid
from scope_edge.estimation.reference import own_rows

if TYPE_CHECKING:
    from scope_edge.catalog.cards import Catalog
    from scope_edge.estimation.ability import Ability
    from scope_edge.policy.costs import Bools
    from scope_edge.types import Floats

_NORMAL_95 = 1.959963984540054
_DRAWS = 2000
# With fewer shared anchors a note says that they are few.
FEW = 30


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """The difference of two models on some anchors.

    Attributes:
        category: None = the whole set. anchors: how many. a, b: mean correct. difference: a - b. low, high: its 95 % interval.
        better: the model that is better by more than the interval; None = neither.
    """

    anchor_set: str
    category: str | None
    anchors: int
    a: float
    b: float
    difference: float
    low: float
    high: float
    better: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of two models.

    Attributes:
        shared: paired outcomes on shared anchors; a set's row comes before those of its categories.
        expected: on a random sample of each domain's questions, from the fitted abilities.
        notes: sentences on the limits of the figures.
    """

    a: str
    b: str
    shared: tuple[FieldDifference, ...]
    expected: tuple[FieldDifference, ...]
    notes: tuple[str, ...]


def compare(catalog: Catalog, a: str, b: str) -> Comparison:
    """Compare two models. Raises UsageError (unknown, the same one, one without a fingerprint), AssetError."""
    catalog.card(a), catalog.card(b)
    if a == b:
        raise UsageError(f"{a} is named twice; name two models")
    fingerprints = load_fingerprints()[1]
    for model in (a, b):
        if not fingerprints.get(model):
            raise UsageError(f"{model} has no fingerprint; `scope-edge fingerprint {model}` measures it")
    first, second = fingerprints[a], fingerprints[b]
    shared = tuple(_shared(first, second))
    expected = tuple(_expected((first, second), load_irt_model()))
    return Comparison(a, b, shared, expected, tuple(_notes(first, second, shared)))


def paired(correct_a: Floats, correct_b: Floats) -> tuple[float, float, float]:
    """Return (mean difference, low, high) of outcomes in [0, 1] on the same anchors, shape (n,) each, without NaN."""
    gaps = correct_a - correct_b
    n = len(gaps) + 2
    middle = float(gaps.sum()) / n
    spread = ((float(gaps @ gaps) + 1) / n - middle**2) / n
    half = _NORMAL_95 * max(spread, 0.0) ** 0.5
    return float(gaps.mean()), max(middle - half, -1.0), min(middle + half, 1.0)


def _shared(first: Sequence[Fingerprint], second: Sequence[Fingerprint]) -> Iterator[FieldDifference]:
    others = {one.anchors.name: one for one in second}
    for one in first:
        other = others.get(one.anchors.name)
        if other is None:
            continue
        both = np.isfinite(one.correct) & np.isfinite(other.correct)
        categories = np.array(one.anchors.categories)
        if both.any():
            yield _difference(one, other, None, both)
            for category in sorted(set(categories[both].tolist())):
                yield _difference(one, other, category, both & (categories == category))


def _difference(one: Fingerprint, other: Fingerprint, category: str | None, rows: Bools) -> FieldDifference:
    a, b = one.correct[rows], other.correct[rows]
    gap, low, high = paired(a, b)
    better = _better(one.model, other.model, low, high)
    means = float(a.mean()), float(b.mean())
    return FieldDifference(one.anchors.name, category, len(a), *means, gap, low, high, better)


def _expected(pair: tuple[Sequence[Fingerprint], Sequence[Fingerprint]], irt: IrtModel) -> Iterator[FieldDifference]:
    draw = np.random.default_rng(0)
    models = [parts[0].model for parts in pair]
    abilities = [_draws(ability_of(irt, parts[0].model, parts), draw) for parts in pair]
    rows, offsets = own_rows(irt.by_set)
    for number, name in enumerate(irt.domains):
        here = irt.by_set.sets == number
        if not here.any():
            continue
        a, b = (sigmoid(one @ rows[here].T + offsets[here]).mean(axis=1) for one in abilities)
        low, high = np.quantile(a - b, (0.025, 0.975)).tolist()
        better = _better(models[0], models[1], low, high)
        mean_a, mean_b = float(a.mean()), float(b.mean())
        yield FieldDifference(name, None, int(here.sum()), mean_a, mean_b, mean_a - mean_b, low, high, better)


def _draws(ability: Ability | None, draw: np.random.Generator) -> Floats:
    """Draw abilities from the posterior, (draws, d)."""
    assert ability is not None  # a model with a fingerprint has one
    root = np.linalg.cholesky(ability.covariance)
    return ability.mean + draw.standard_normal((_DRAWS, len(ability.mean))) @ root.T


def _better(a: str, b: str, low: float, high: float) -> str | None:
    return a if low > 0 else b if high < 0 else None


def _notes(
    first: Sequence[Fingerprint], second: Sequence[Fingerprint], shared: Sequence[FieldDifference]
) -> Iterator[str]:
    a, b = first[0].model, second[0].model
    count = sum(one.anchors for one in shared if one.category is None)
    if not count:
        yield (
            f"they were measured on different anchors ({a}: {_where(first)}; {b}: {_where(second)}), so nothing can be"
            " paired; the expected figures rest on the map of difficulty alone"
        )
    elif count < FEW:
        yield f"only {count} anchors have an outcome of both: enough for large differences only"


def _where(parts: Sequence[Fingerprint]) -> str:
    return ", ".join(f"{int(np.isfinite(one.correct).sum())} of {one.anchors.name}" for one in parts)
