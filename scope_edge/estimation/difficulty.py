"""The map: how hard a query is and how long its answers run, from what the encoder made of it and a few features of its text.

The embedding says what a text is about. How it is to be worked on (which rules, which form of answer) is clearer in the
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

from scope_edge.errors import PackError

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


@dataclass(frozen=True, slots=True)
class MapPosition:
    """Where a query lies on the map.

    Attributes:
        difficulty: on the logit scale of the bank's joint fit; larger = harder.
        log_length: natural log of the completion tokens (cl100k) a typical model spends.
        domains: shape (sets,), how much the query is like each measured set; >= 0, sums to 1.
        traits: shape (k,), what the query asks for besides difficulty, relative to its domains' averages.
    """

    difficulty: float
    log_length: float
    domains: Floats
    traits: Floats


@dataclass(frozen=True, slots=True, eq=False)
class MapPositions:
    """Where q queries lie: the fields of `Place` with the queries as first axis."""

    difficulty: Floats
    log_length: Floats
    domains: Floats
    traits: Floats

    def __len__(self) -> int:
        return len(self.difficulty)

    def row(self, query: int) -> MapPosition:
        """The place of one of them."""
        return MapPosition(
            float(self.difficulty[query]), float(self.log_length[query]), self.domains[query], self.traits[query]
        )

    def take(self, queries: NDArray[np.bool_] | NDArray[np.intp]) -> MapPositions:
        """Only these queries, by mask or index."""
        return MapPositions(
            self.difficulty[queries], self.log_length[queries], self.domains[queries], self.traits[queries]
        )


@dataclass(frozen=True, slots=True)
class Kernel:
    """The curved kernel's numbers; see the module's first lines."""

    curve: float = 2.0
    sharpness: float = 3.0
    turn: float = 4.0
    keenness: float = 3.0
    bend: float = 1.0
    width: float = 20.0

    def of(self, cosines: Vector, states: Vector, distances: Vector) -> Vector:
        """Its value where embeddings and states have these cosines and features these squared distances."""
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
        norms: Vector = np.einsum("ij,ij->i", self.landmark_features, self.landmark_features)
        return norms

    def place(self, encoded: EncodedQuery) -> MapPosition:
        """Where an encoded query lies. About 0.4 ms for 4,000 landmarks."""
        return self.place_of(encoded.vector, encoded.state, text_features(encoded.query.text))

    def place_of(self, vector: Vector, state: Vector, features: Floats) -> MapPosition:
        """As `place`, from the unit vector (d,), the state (d,) and the raw `text_features` (FEATURES,)."""
        scaled = self.scaled(features)
        out = np.concatenate([vector, scaled]) @ self.linear + self.curve(vector, state, scaled) @ self.curved
        out = out.astype(np.float64) + self.offset
        domains = memberships(out[2:])
        traits = (self.trait_axes @ vector).astype(np.float64) - domains @ self.trait_mean
        return MapPosition(difficulty=float(out[0]), log_length=float(out[1]), domains=domains, traits=traits)

    def places_of(self, vectors: Vector, states: Vector, features: Floats) -> MapPositions:
        """As `place_of`, of q queries, each argument with them as first axis. Last digits may differ from one at a time."""
        steps = [slice(i, i + _MANY) for i in range(0, len(vectors), _MANY)]
        outputs = [self.read_out(vectors[one], states[one], self.scaled(features[one])) for one in steps]
        traits = (vectors @ self.trait_axes.T).astype(np.float64)
        return self.places_from(np.vstack(outputs) if outputs else np.zeros((0, len(self.offset))), traits)

    def places_from(self, outputs: Floats, traits: Floats) -> MapPositions:
        """The places that raw outputs (q, 2 + sets) and uncentred traits (q, k) say."""
        domains = memberships(outputs[:, 2:])
        return MapPositions(outputs[:, 0], outputs[:, 1], domains, traits - domains @ self.trait_mean)

    def read_out(self, vectors: Vector, states: Vector, scaled: Vector) -> Floats:
        """Raw outputs (q, 2 + sets) of many queries, from vectors and states (q, d), standardised features (q, FEATURES)."""
        out = np.hstack([vectors, scaled]) @ self.linear + self.curves(vectors, states, scaled) @ self.curved
        return out.astype(np.float64) + self.offset

    def curves(self, vectors: Vector, states: Vector, scaled: Vector) -> Vector:
        """The curved kernel between many queries and every landmark, shape (q, L)."""
        own = np.einsum("ij,ij->i", scaled, scaled)[:, None]
        distances = self._landmark_norms - 2 * (scaled @ self.landmark_features.T) + own
        cosines = unit_rows(vectors @ self.axes.T) @ self.landmarks.T
        states = unit_rows(states @ self.state_axes.T - self.state_center) @ self.landmark_states.T
        return self.kernel.of(cosines, states, distances)

    def scaled(self, features: Floats) -> Vector:
        """Features standardised and clipped to 6 standard deviations, so that odd text cannot leave the map."""
        scaled: Vector = np.clip((features - self.feature_mean) / self.feature_scale, -6, 6).astype(np.float32)
        return scaled

    def curve(self, vector: Vector, state: Vector, scaled: Vector) -> Vector:
        """The curved kernel between one query and every landmark, shape (L,)."""
        cosines = _product(self.landmarks, unit_rows(self.axes @ vector))
        states = _product(self.landmark_states, unit_rows(self.state_axes @ state - self.state_center))
        distances = self._landmark_norms - 2 * (self.landmark_features @ scaled) + scaled @ scaled
        return self.kernel.of(cosines, states, distances)


def unit_rows(rows: Vector) -> Vector:
    """Each row (..., n) over its length."""
    unit: Vector = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-6)
    return unit


def _product(rows: Vector, vector: Vector) -> Vector:
    """rows @ vector, a product at a time that BLAS starts no threads for: on a busy machine they wait for a core far longer."""
    step = _PRODUCT // len(vector)
    return np.concatenate([rows[i : i + step] @ vector for i in range(0, len(rows), step)])


def memberships(raw: Floats) -> Floats:
    """Regressed set indicators, shape (..., sets), as weights that are >= 0 and sum to 1."""
    clipped = np.clip(raw, 1e-3, None)
    weights: Floats = clipped / clipped.sum(axis=-1, keepdims=True)
    return weights


def text_features(text: str) -> Floats:
    """Cheap features of a text, shape (FEATURES,): logs of length and of counts of characters, and shares of classes."""
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
_ARRAYS = (
    ("axes", np.float32),
    ("landmarks", np.float32),
    ("state_axes", np.float32),
    ("state_center", np.float32),
    ("landmark_states", np.float32),
    ("landmark_features", np.float32),
    ("feature_mean", np.float64),
    ("feature_scale", np.float64),
    ("linear", np.float32),
    ("curved", np.float32),
    ("offset", np.float64),
    ("trait_axes", np.float32),
    ("trait_mean", np.float64),
)


def map_body(fitted: DifficultyMap) -> dict[str, Any]:
    """The map as the body of a pack; landmarks at half precision, which moves no difficulty by more than 0.01."""
    body: dict[str, Any] = {name: getattr(fitted, name) for name, _ in _ARRAYS}
    for name in ("axes", "landmarks", "state_axes", "landmark_states", "landmark_features"):
        body[name] = body[name].astype(np.float16)
    return {**body, "kernel": list(astuple(fitted.kernel))}


def map_from_body(body: Mapping[str, Any], where: str) -> DifficultyMap:
    """The map out of a pack's body. Raises PackError when a field is missing or shapes do not fit."""
    try:
        arrays = {name: np.require(body[name], dtype, "A") for name, dtype in _ARRAYS}
        fitted = DifficultyMap(kernel=Kernel(*body["kernel"]), **arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise PackError(f"{where}: not a usable map ({error!r}); reinstall scope-edge") from error
    outputs, d = len(fitted.offset), fitted.axes.shape[1]
    count, sides = len(fitted.landmarks), len(fitted.state_center)
    expected = {
        "linear": (d + FEATURES, outputs),
        "curved": (count, outputs),
        "landmark_states": (count, sides),
        "state_axes": (sides, d),
        "state_center": (sides,),
        "trait_axes": (len(fitted.trait_axes), d),
        "trait_mean": (outputs - 2, len(fitted.trait_axes)),
    }
    found = {name: getattr(fitted, name).shape for name in expected}
    if found != expected:
        raise PackError(f"{where}: shapes {found} where {expected} were expected; reinstall scope-edge")
    return fitted
