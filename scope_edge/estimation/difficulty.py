"""The map: how hard a query is, how long its answers run, and what it asks for, from the encoders' output and its text.

The embedding says what a text is about. What has to be done with it (which rules, which form of answer) is clearer in the
states half way up the encoder, which the last layers give up for meaning; and what is not English is read by the multilingual
encoder. So all three are read (anchors/README.md has figures), and a few features of the text beside them.

Learned from every model ever measured, by ridge regression on a sum of kernels: linear in the embeddings and the features,
and curved ones, `exp(3 (cos - 1))` of embeddings, of states and of multilingual embeddings and `exp(-|features|^2 / 20)`,
spanned by a few thousand landmarks (Nystroem, Williams and Seeger 2001). The curved kernels look at the leading principal
axes only: three times as many landmarks for the same cost predict better than all dimensions do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.estimation.newton import sigmoid
from scope_edge.estimation.stated_length import STATED, stated_length
from scope_edge.estimation.tasks import TASKS, UNKNOWABLE
from scope_edge.storage.packs import reading

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.types import EncodedQuery, Floats, Vector

# Text beyond this many characters does not change the features.
FEATURE_CHARACTERS = 8_192
_CLASSES = ("0-9", "A-Z", " ", "\n", "\\", "$", "([{", "=")
# Features of the text's form, which are standardised and have a curved kernel; those of stated lengths follow them.
FORM = 16
FEATURES = FORM + STATED
_PRODUCT = 262_144
# Queries placed at once when there are many: their kernel takes 16 bytes a landmark.
_MANY = 512
SHARPNESS, WIDTH = 3.0, 20.0
# A query is foreign where its closest landmark is farther than KNOWN, wholly so from FOREIGN on, as shares of the kernel's
# largest value. Learned on all sets but one, predictions for such queries of that one spread too far and miss by more;
# see anchors/README.md.
KNOWN, FOREIGN = 0.6, 0.8
FOREIGN_SLOPE, FOREIGN_VARIANCE, FOREIGN_TRAITS = 0.65, 0.5, 0.25


@dataclass(frozen=True, slots=True, eq=False)
class MapPositions:
    """Where queries lie on the map: shapes (...) are () for one query, (q,) for q of them.

    Attributes:
        difficulty: (...), on the logit scale of the bank's joint fit; larger = harder.
        log_length: (...), natural log of the completion tokens (cl100k) a typical model spends.
        domains: (..., domains), how much a query is like each measured domain; >= 0, sums to 1.
        traits: (..., k), other demands of a query than difficulty, relative to its domains' averages.
        level_variance: (...), of log-length, since an unknown set may run longer or shorter than its texts say.
        foreign: (...), from 0, like what was measured, to 1, unlike all of it.
        explained: (...), variance of difficulty that outcomes on near anchors take from what the map misses.
        unknowable: (...), the probability that no model can answer it rightly, however easy it seems.
        tasks: (..., tasks), how much it is like each of TASKS; larger = more, no probabilities.
    """

    difficulty: Floats
    log_length: Floats
    domains: Floats
    traits: Floats
    level_variance: Floats
    foreign: Floats
    explained: Floats
    unknowable: Floats
    tasks: Floats

    @classmethod
    def measured(cls, difficulty: Floats, log_length: Floats, domains: Floats, traits: Floats) -> MapPositions:
        """Return the positions of measured queries: known, answerable, of whatever task."""
        zeros = np.zeros_like(difficulty)
        return cls(
            difficulty, log_length, domains, traits, zeros, zeros, zeros, zeros, np.zeros((*zeros.shape, len(TASKS)))
        )

    def __len__(self) -> int:
        return len(self.difficulty)

    def take(self, queries: Any) -> MapPositions:
        """Return only these queries, by mask or indices; or one, by its index."""
        return MapPositions(*(getattr(self, name)[queries] for name in MapPositions.__dataclass_fields__))


# Rows of `DifficultyMap.mix`: the weights of the curved kernels for difficulty, domains and tasks; and for length.
_KINDS, _LENGTH = 0, 1


@dataclass(frozen=True)
class DifficultyMap:
    """The fitted map. Outputs are difficulty, log-length, a membership per domain and one per task.

    Attributes:
        mix: (2, 4) weights of the curved kernels (embeddings, states, multilingual embeddings, features), for all outputs
            but length, and for length.
        axes: (a, d) float32, leading principal axes of the bank; landmarks: (L, a) float32 unit vectors on them.
        state_axes: (a, d) float32, leading principal axes of the bank's standardised states; state_center: (a,) where these
            lie on average. landmark_states: (L, a) float32 unit vectors on them, centred.
        tongue_axes: (a, 512) float32, leading principal axes of multilingual embeddings; landmark_tongues: (L, a) likewise.
        landmark_features: (L, FORM) float32, standardised. feature_mean, feature_scale: (FORM,).
        linear: (d + a + FEATURES, outputs) float32 and curved: (L, outputs) float32: weights of the outputs.
        offset: (outputs,). longer: (domains,) what a domain adds to log-length beyond what its texts say, and level_variance:
            (domains,) how its sets differ in that. Of difficulty the level is left to the linking constants
            (estimation.reference), which know each model.
        center: (domains,) each domain's mean difficulty. stretch: (domains,) how much farther from it queries are than the weights,
            which are shrunk, put them; by what they say of queries left out.
        unknowable: (2,) slope and intercept of the log-odds that a query is unknowable, on its membership in that task.
        trait_axes: (k, d) float32, trait_mean: (domains, k): average traits of each domain.
    """

    mix: Floats
    axes: Vector
    landmarks: Vector
    state_axes: Vector
    state_center: Vector
    landmark_states: Vector
    tongue_axes: Vector
    landmark_tongues: Vector
    landmark_features: Vector
    feature_mean: Floats
    feature_scale: Floats
    linear: Vector
    curved: Vector
    offset: Floats
    longer: Floats
    level_variance: Floats
    center: Floats
    stretch: Floats
    unknowable: Floats
    trait_axes: Vector
    trait_mean: Floats

    @cached_property
    def _landmark_norms(self) -> Vector:
        return np.asarray(np.einsum("ij,ij->i", self.landmark_features, self.landmark_features))

    @cached_property
    def _mix(self) -> Vector:
        return self.mix.astype(np.float32)

    def place(self, encoded: EncodedQuery) -> MapPositions:
        """Return the position of one encoded query. Half a millisecond for 4,000 landmarks."""
        return self.place_of(encoded.vector, encoded.state, encoded.multilingual, text_features(encoded.query.text))

    def place_of(self, vector: Vector, state: Vector, multilingual: Vector, features: Floats) -> MapPositions:
        """As `place`, from unit vector (d,), state (d,), multilingual unit vector (512,) and raw `text_features` (FEATURES,)."""
        scaled, tongue = self.scaled(features), self.tongue_axes @ multilingual
        form = scaled[:FORM]
        kernels = np.stack(
            [
                _product(self.landmarks, unit_rows(self.axes @ vector)),
                _product(self.landmark_states, unit_rows(self.state_axes @ state - self.state_center)),
                _product(self.landmark_tongues, unit_rows(tongue)),
                2 * _product(self.landmark_features, form) - self._landmark_norms - form @ form,
            ]
        )
        mixed = self._mix @ curved_kernels(kernels)
        out = np.concatenate([vector, tongue, scaled]) @ self.linear + mixed[_KINDS] @ self.curved
        out[1] += (mixed[_LENGTH] - mixed[_KINDS]) @ self.curved[:, 1]
        closeness = np.asarray(mixed[_KINDS].max() / self._mix[_KINDS].sum(), np.float64)
        return self.places_from(out + self.offset, (self.trait_axes @ vector).astype(np.float64), closeness)

    def places_of(self, vectors: Vector, states: Vector, multilingual: Vector, features: Floats) -> MapPositions:
        """As `place_of`, of q queries, each argument with them as first axis. Last digits may differ from one at a time."""
        outputs, close = [np.zeros((0, len(self.offset)))], [np.zeros(0)]
        for one in (slice(i, i + _MANY) for i in range(0, len(vectors), _MANY)):
            parts = vectors[one], states[one], multilingual[one], self.scaled(features[one])
            mixed, linear = self.curves(*parts), self.linear_rows(*parts)
            out = linear @ self.linear + mixed[_KINDS] @ self.curved
            out[:, 1] += (mixed[_LENGTH] - mixed[_KINDS]) @ self.curved[:, 1]
            outputs.append(out.astype(np.float64) + self.offset)
            close.append(mixed[_KINDS].max(axis=1, initial=0.0) / self.mix[_KINDS].sum())
        traits = (vectors @ self.trait_axes.T).astype(np.float64)
        return self.places_from(np.vstack(outputs), traits, np.concatenate(close))

    def places_from(self, outputs: Floats, traits: Floats, closeness: Floats) -> MapPositions:
        """Return the positions for raw outputs (..., outputs), uncentred traits (..., k) and the kernel's largest value (...).

        The kernel's value is that to the closest landmark, as a share of what it is where two queries are the same.
        """
        split = 2 + len(self.center)
        domains, tasks = memberships(outputs[..., 2:split]), outputs[..., split:]
        foreign = np.clip((1 - closeness - KNOWN) / (FOREIGN - KNOWN), 0.0, 1.0)
        difficulty, center = outputs[..., 0], domains @ self.center
        slope, intercept = self.unknowable
        return MapPositions(
            difficulty=center + (domains @ self.stretch) * (1 - (1 - FOREIGN_SLOPE) * foreign) * (difficulty - center),
            log_length=outputs[..., 1] + domains @ self.longer,
            domains=domains,
            traits=(1 - (1 - FOREIGN_TRAITS) * foreign)[..., None] * (traits - domains @ self.trait_mean),
            level_variance=domains @ self.level_variance,
            foreign=foreign,
            explained=np.zeros_like(foreign),
            unknowable=sigmoid(slope * tasks[..., UNKNOWABLE] + intercept),
            tasks=tasks,
        )

    def curves(self, vectors: Vector, states: Vector, multilingual: Vector, scaled: Vector) -> Vector:
        """Return the mixed kernels between many queries and every landmark, (2, q, L)."""
        form = scaled[:, :FORM]
        own = np.einsum("ij,ij->i", form, form)[:, None]
        kernels = np.stack(
            [
                unit_rows(vectors @ self.axes.T) @ self.landmarks.T,
                unit_rows(states @ self.state_axes.T - self.state_center) @ self.landmark_states.T,
                unit_rows(multilingual @ self.tongue_axes.T) @ self.landmark_tongues.T,
                2 * (form @ self.landmark_features.T) - self._landmark_norms - own,
            ]
        )
        return np.asarray(np.einsum("hk,kql->hql", self._mix, curved_kernels(kernels), optimize=True))

    def linear_rows(self, vectors: Vector, states: Vector, multilingual: Vector, scaled: Vector) -> Vector:
        """Return the inputs of the linear weights, (q, d + a + FEATURES), for scaled features."""
        return np.hstack([vectors, multilingual @ self.tongue_axes.T, scaled])

    def scaled(self, features: Floats) -> Vector:
        """Return features of form standardised, and clipped to 6 standard deviations so that odd text cannot leave the map."""
        form = np.clip((features[..., :FORM] - self.feature_mean) / self.feature_scale, -6, 6)
        return np.concatenate([form, features[..., FORM:]], axis=-1).astype(np.float32)


def curved_kernels(kernels: Vector) -> Vector:
    """Return the curved kernels of three cosines and a negative squared distance, along the first axis; overwrites them."""
    kernels[:3] -= 1
    kernels[:3] *= SHARPNESS
    kernels[3] /= WIDTH
    return np.asarray(np.exp(kernels, out=kernels))


def unit_rows(rows: Vector) -> Vector:
    """Return each row (..., n) over its length."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-6))


def _product(rows: Vector, vector: Vector) -> Vector:
    """Return rows @ vector in pieces so small that BLAS starts no threads: on a busy machine they wait far longer."""
    step = _PRODUCT // len(vector)
    return np.concatenate([rows[i : i + step] @ vector for i in range(0, len(rows), step)])


def memberships(raw: Floats) -> Floats:
    """Return regressed indicators of domains, shape (..., domains), as weights that are >= 0 and sum to 1.

    Squared, so that the traces of many domains do not outweigh the one or two that a query is like.
    """
    squared = np.clip(raw, 1e-3, None) ** 2
    return np.asarray(squared / squared.sum(axis=-1, keepdims=True))


def text_features(text: str) -> Floats:
    """Return cheap features of a text, (FEATURES,): logs of length and of counts of characters, shares of classes, stated lengths."""
    text = text[:FEATURE_CHARACTERS]
    raw = text.encode("utf-8", "replace")
    counts = np.bincount(np.frombuffer(raw, np.uint8), minlength=256)
    n = max(len(raw), 1)
    digits, capitals, spaces, lines, slashes, dollars, brackets, equals = (_CLASS_TABLE @ counts).tolist()
    letters = int(counts[97:123].sum())
    words = spaces + lines + 1
    options = min(text.count("\n("), 10)
    logs = np.log1p([len(text), words, lines, slashes, dollars, brackets, equals, digits])
    shares = (
        digits / n,
        capitals / n,
        (n - digits - capitals - letters - spaces - lines) / n,
        int(counts[128:].sum()) / n,
        min(len(text) / words, 30.0),
        float(options),
        float(text.rstrip().endswith("?")),
        float("def " in text),
    )
    return np.concatenate([logs, shares, stated_length(text)])


def _class_table() -> NDArray[np.int64]:
    table = np.zeros((len(_CLASSES), 256), np.int64)
    for row, members in enumerate(_CLASSES):
        span = range(ord(members[0]), ord(members[2]) + 1) if members in ("0-9", "A-Z") else map(ord, members)
        table[row, list(span)] = 1
    return table


_CLASS_TABLE = _class_table()
# In packs at half precision, which moves no difficulty by more than 0.01.
_HALF = (
    "axes",
    "landmarks",
    "state_axes",
    "landmark_states",
    "tongue_axes",
    "landmark_tongues",
    "landmark_features",
)
_SINGLE = (*_HALF, "state_center", "linear", "curved", "trait_axes")
_DOUBLE = (
    "mix",
    "feature_mean",
    "feature_scale",
    "offset",
    "longer",
    "level_variance",
    "center",
    "stretch",
    "unknowable",
    "trait_mean",
)


def map_body(fitted: DifficultyMap) -> dict[str, Any]:
    """Return the map as the body of a pack."""
    body: dict[str, Any] = {name: getattr(fitted, name) for name in (*_SINGLE, *_DOUBLE)}
    return {**body, **{name: body[name].astype(np.float16) for name in _HALF}}


def map_from_body(body: Mapping[str, Any], where: str) -> DifficultyMap:
    """Read the map from a pack's body. Raises PackError when a field is missing or shapes do not fit."""
    with reading(where, "map"):
        single = {name: np.require(body[name], np.float32, "A") for name in _SINGLE}
        double = {name: np.require(body[name], np.float64, "A") for name in _DOUBLE}
        fitted = DifficultyMap(**single, **double)
        outputs, d, axes = len(fitted.offset), fitted.axes.shape[1], len(fitted.tongue_axes)
        count, sides, traits = len(fitted.landmarks), len(fitted.state_center), len(fitted.trait_axes)
        domains = outputs - 2 - len(TASKS)
        expected = {
            "mix": (2, 4),
            "linear": (d + axes + FEATURES, outputs),
            "curved": (count, outputs),
            "landmark_states": (count, sides),
            "landmark_tongues": (count, axes),
            "landmark_features": (count, FORM),
            "state_axes": (sides, d),
            "longer": (domains,),
            "level_variance": (domains,),
            "center": (domains,),
            "stretch": (domains,),
            "unknowable": (2,),
            "trait_axes": (traits, d),
            "trait_mean": (domains, traits),
        }
        found = {name: getattr(fitted, name).shape for name in expected}
        if found != expected:
            raise ValueError(f"shapes {found} where {expected} were expected")
        return fitted
