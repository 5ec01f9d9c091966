"""The map: how hard a query is and how long its answers run, from the encoder's output and a few features of the text.

The embedding says what a text is about. What has to be done with it (which rules, which form of answer) is clearer in the
states half way up the encoder, which the last layers give up for meaning; so both are read (anchors/README.md has figures).

Learned from every model ever measured, by ridge regression on a sum of three kernels: linear in the embedding, linear in
the text features, and a curved one, `curve exp(sharpness (cos - 1))` of embeddings `+ turn exp(keenness (cos - 1))` of
states `+ bend exp(-|features|^2 / width)`, spanned by a few thousand landmarks (Nystroem, Williams and Seeger 2001). The
curved kernel looks at the leading principal axes only: three times as many landmarks for the same cost predict better
than all dimensions do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.storage.packs import reading

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.types import EncodedQuery, Floats, Vector

# Text beyond this many characters does not change the features.
FEATURE_CHARACTERS = 8_192
_CLASSES = ("0-9", "A-Z", " ", "\n", "\\", "$", "([{", "=")
FEATURES = 16
_PRODUCT = 262_144
# Queries placed at once when there are many: their kernel takes 4 bytes a landmark.
_MANY = 512


@dataclass(frozen=True, slots=True, eq=False)
class MapPositions:
    """Where queries lie on the map: shapes (...) are () for one query, (q,) for q of them.

    Attributes:
        difficulty: (...), on the logit scale of the bank's joint fit; larger = harder.
        log_length: (...), natural log of the completion tokens (cl100k) a typical model spends.
        domains: (..., sets), how much a query is like each measured set; >= 0, sums to 1.
        traits: (..., k), other demands of a query than difficulty, relative to its domains' averages.
    """

    difficulty: Floats
    log_length: Floats
    domains: Floats
    traits: Floats

    def __len__(self) -> int:
        return len(self.difficulty)

    def take(self, queries: Any) -> MapPositions:
        """Return only these queries, by mask or indices; or one, by its index."""
        columns = (self.difficulty, self.log_length, self.domains, self.traits)
        return MapPositions(*(column[queries] for column in columns))


@dataclass(frozen=True, slots=True)
class Kernel:
    """The curved kernel's constants; see the module's docstring."""

    curve: float = 2.0
    sharpness: float = 3.0
    turn: float = 4.0
    keenness: float = 3.0
    bend: float = 1.0
    width: float = 20.0

    def of(self, cosines: Vector, states: Vector, distances: Vector) -> Vector:
        """Return its value for cosines of embeddings, cosines of states and squared distances of features."""
        value: Vector = (
            self.curve * np.exp(self.sharpness * (cosines - 1))
            + self.turn * np.exp(self.keenness * (states - 1))
            + self.bend * np.exp(-distances / self.width)
        )
        return value


@dataclass(frozen=True)
class DifficultyMap:
    """The fitted map.

    Attributes:
        axes: (a, d) float32, leading principal axes of the bank; landmarks: (L, a) float32 unit vectors on them.
        state_axes: (s, d) float32, leading principal axes of the bank's standardised states; state_center: (s,) where these
            lie on average. landmark_states: (L, s) float32 unit vectors on them, centred.
        landmark_features: (L, FEATURES) float32, standardised. feature_mean, feature_scale: (FEATURES,).
        linear: (d + FEATURES, 2 + sets) float32 and curved: (L, 2 + sets) float32: weights of the outputs difficulty,
            log-length and one membership per set. offset: (2 + sets,).
        trait_axes: (k, d) float32, trait_mean: (sets, k): average traits of each set.
    """

    kernel: Kernel
    axes: Vector
    landmarks: Vector
    state_axes: Vector
    state_center: Vector
    landmark_states: Vector
    landmark_features: Vector
    feature_mean: Floats
    feature_scale: Floats
    linear: Vector
    curved: Vector
    offset: Floats
    trait_axes: Vector
    trait_mean: Floats

    @cached_property
    def _landmark_norms(self) -> Vector:
        return np.asarray(np.einsum("ij,ij->i", self.landmark_features, self.landmark_features))

    def place(self, encoded: EncodedQuery) -> MapPositions:
        """Return the position of one encoded query. About 0.4 ms for 4,000 landmarks."""
        return self.place_of(encoded.vector, encoded.state, text_features(encoded.query.text))

    def place_of(self, vector: Vector, state: Vector, features: Floats) -> MapPositions:
        """As `place`, from the unit vector (d,), the state (d,) and the raw `text_features` (FEATURES,)."""
        scaled = self.scaled(features)
        cosines = _product(self.landmarks, unit_rows(self.axes @ vector))
        states = _product(self.landmark_states, unit_rows(self.state_axes @ state - self.state_center))
        distances = self._landmark_norms - 2 * (self.landmark_features @ scaled) + scaled @ scaled
        curved = self.kernel.of(cosines, states, distances)
        out = np.concatenate([vector, scaled]) @ self.linear + curved @ self.curved
        return self.places_from(out.astype(np.float64) + self.offset, (self.trait_axes @ vector).astype(np.float64))

    def places_of(self, vectors: Vector, states: Vector, features: Floats) -> MapPositions:
        """As `place_of`, of q queries, each argument with them as first axis. Last digits may differ from one at a time."""
        outputs = [np.zeros((0, len(self.offset)))]
        for one in (slice(i, i + _MANY) for i in range(0, len(vectors), _MANY)):
            scaled = self.scaled(features[one])
            curved = self.curves(vectors[one], states[one], scaled)
            out = np.hstack([vectors[one], scaled]) @ self.linear + curved @ self.curved
            outputs.append(out.astype(np.float64) + self.offset)
        return self.places_from(np.vstack(outputs), (vectors @ self.trait_axes.T).astype(np.float64))

    def places_from(self, outputs: Floats, traits: Floats) -> MapPositions:
        """Return the positions for raw outputs (..., 2 + sets) and uncentred traits (..., k)."""
        domains = memberships(outputs[..., 2:])
        return MapPositions(outputs[..., 0], outputs[..., 1], domains, traits - domains @ self.trait_mean)

    def curves(self, vectors: Vector, states: Vector, scaled: Vector) -> Vector:
        """Return the curved kernel between many queries and every landmark, shape (q, L)."""
        own = np.einsum("ij,ij->i", scaled, scaled)[:, None]
        distances = self._landmark_norms - 2 * (scaled @ self.landmark_features.T) + own
        cosines = unit_rows(vectors @ self.axes.T) @ self.landmarks.T
        states = unit_rows(states @ self.state_axes.T - self.state_center) @ self.landmark_states.T
        return self.kernel.of(cosines, states, distances)

    def scaled(self, features: Floats) -> Vector:
        """Return features standardised and clipped to 6 standard deviations, so that odd text cannot leave the map."""
        return np.clip((features - self.feature_mean) / self.feature_scale, -6, 6).astype(np.float32)


def unit_rows(rows: Vector) -> Vector:
    """Return each row (..., n) over its length."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-6))


def _product(rows: Vector, vector: Vector) -> Vector:
    """Return rows @ vector in pieces so small that BLAS starts no threads: on a busy machine they wait far longer."""
    step = _PRODUCT // len(vector)
    return np.concatenate([rows[i : i + step] @ vector for i in range(0, len(rows), step)])


def memberships(raw: Floats) -> Floats:
    """Return regressed set indicators, shape (..., sets), as weights that are >= 0 and sum to 1."""
    clipped = np.clip(raw, 1e-3, None)
    return np.asarray(clipped / clipped.sum(axis=-1, keepdims=True))


def text_features(text: str) -> Floats:
    """Return cheap features of a text, (FEATURES,): logs of length and of counts of characters, and shares of classes."""
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
    return np.concatenate([logs, shares])


def _class_table() -> NDArray[np.int64]:
    table = np.zeros((len(_CLASSES), 256), np.int64)
    for row, members in enumerate(_CLASSES):
        span = range(ord(members[0]), ord(members[2]) + 1) if members in ("0-9", "A-Z") else map(ord, members)
        table[row, list(span)] = 1
    return table


_CLASS_TABLE = _class_table()
# In packs at half precision, which moves no difficulty by more than 0.01.
_HALF = ("axes", "landmarks", "state_axes", "landmark_states", "landmark_features")
_SINGLE = (*_HALF, "state_center", "linear", "curved", "trait_axes")
_DOUBLE = ("feature_mean", "feature_scale", "offset", "trait_mean")


def map_body(fitted: DifficultyMap) -> dict[str, Any]:
    """Return the map as the body of a pack."""
    body: dict[str, Any] = {name: getattr(fitted, name) for name in (*_SINGLE, *_DOUBLE)}
    halves = {name: body[name].astype(np.float16) for name in _HALF}
    return {**body, **halves, "kernel": list(astuple(fitted.kernel))}


def map_from_body(body: Mapping[str, Any], where: str) -> DifficultyMap:
    """Read the map from a pack's body. Raises PackError when a field is missing or shapes do not fit."""
    with reading(where, "map"):
        single = {name: np.require(body[name], np.float32, "A") for name in _SINGLE}
        double = {name: np.require(body[name], np.float64, "A") for name in _DOUBLE}
        fitted = DifficultyMap(kernel=Kernel(*body["kernel"]), **single, **double)
        outputs, d = len(fitted.offset), fitted.axes.shape[1]
        count, sides, traits = len(fitted.landmarks), len(fitted.state_center), len(fitted.trait_axes)
        expected = {
            "linear": (d + FEATURES, outputs),
            "curved": (count, outputs),
            "landmark_states": (count, sides),
            "state_axes": (sides, d),
            "state_center": (sides,),
            "trait_axes": (traits, d),
            "trait_mean": (outputs - 2, traits),
        }
        found = {name: getattr(fitted, name).shape for name in expected}
        if found != expected:
            raise ValueError(f"shapes {found} where {expected} were expected")
        return fitted
