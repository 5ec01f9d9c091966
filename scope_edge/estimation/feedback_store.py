"""The user's feedback on answers: for each the query's embedding, its text features, and the outcome. No text is stored.

Positions on the map are computed anew at every start, so that a release with another map can use the records; one with another
encoder cannot, and leaves them out. Multilingual vectors that are missing, or another encoder's, are unknown. The file lies beside
the journal, in a folder that only the user can open.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.encoding.encoder import ONNX
from scope_edge.encoding.multilingual import DIMENSION, MultilingualEncoder
from scope_edge.errors import AssetError, PackError
from scope_edge.storage import assets
from scope_edge.storage.packs import read_pack, reading, write_pack
from scope_edge.storage.sqlite import make_private, shred

if TYPE_CHECKING:
    from scope_edge.types import Floats, Vector

# The name of these anchors as a set, reserved for them.
FEEDBACK = "feedback"
FOLDER, FILE = "journal", "feedback.pack"
_KIND = "feedback"
_SECOND = "multilingual encoder"
_MEND = "`scope-edge anchors remove feedback` takes it away"
# Column -> its type in the file.
_COLUMNS = {
    "vector": "<f2",
    "state": "<f2",
    "multilingual": "<f2",
    "features": "<f4",
    "time": "<f8",
    "correct": "<f4",
    "tokens": "<f4",
    "prompt_tokens": "<f4",
}


@dataclass(frozen=True, slots=True, eq=False)
class FeedbackRecord:
    """One answer judged.

    Attributes:
        id: of the journal's entry. time: of it, seconds since 1970. vector, state, features: of its query.
        multilingual: (512,) of its query, NaN = unknown. correct in [0, 1]; tokens, prompt_tokens: cl100k, NaN = not known.
    """

    id: str
    model: str
    time: float
    vector: Vector
    state: Vector
    multilingual: Vector
    features: Floats
    correct: float
    tokens: float
    prompt_tokens: float

    @property
    def whole(self) -> bool:
        """Whether all vectors of the query are known."""
        return bool(np.isfinite(self.multilingual).all())


@dataclass(frozen=True, slots=True, eq=False)
class FeedbackStore:
    """All feedback, oldest first. ignored: why stored feedback cannot be used, or None."""

    said: tuple[FeedbackRecord, ...] = ()
    ignored: str | None = None

    @property
    def note(self) -> str | None:
        """A sentence on feedback without multilingual vectors, which corrects nothing, or None."""
        lacking = sum(not one.whole for one in self.said)
        if not lacking:
            return None
        return (
            f"{lacking} of {len(self.said)} judged answers in {file()} were stored by a release with another multilingual"
            f" encoder; give that feedback again with --text, or {_MEND}"
        )


def file() -> Path:
    """Return the file's path, whether or not it exists."""
    return assets.user_data_dir() / FOLDER / FILE


def stamp() -> tuple[int, int] | None:
    """Return a value that changes whenever the file does; None without a file. One system call."""
    try:
        found = file().stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def load_feedback() -> FeedbackStore:
    """Load all feedback. A damaged file is ignored like one of another encoder: it only refines."""
    path = file()
    if not path.exists():
        return FeedbackStore()
    try:
        body = read_pack(path, _KIND)
        with reading(str(path), "feedback file", "damaged, or made by another release"):
            encoder = body["encoder"]
            names = zip(body["ids"], body["models"], strict=True)
            body["multilingual"] = _multilingual(body)
            columns = zip(*(body[name].astype(np.float64) for name in _COLUMNS), strict=True)
            said = tuple(
                FeedbackRecord(str(id), str(model), float(when), vector, state, second, features, *map(float, outcome))
                for (id, model), (vector, state, second, features, when, *outcome) in zip(names, columns, strict=True)
            )
    except PackError as error:
        return FeedbackStore(ignored=f"{error}; {_MEND}")
    if encoder != _encoder():
        return FeedbackStore(ignored=f"{path}: made by a release with another encoder; {_MEND}")
    return FeedbackStore(said)


def record(said: Sequence[FeedbackRecord]) -> None:
    """Replace all feedback by these records; the old file is overwritten on the disk. Raises AssetError."""
    path = file()
    old = path.with_suffix(".old")
    try:
        make_private(path.parent)
        shred(old)
        # Not every disk has second names for a file; there the old one is only deleted.
        with contextlib.suppress(OSError):
            old.hardlink_to(path)
        if said:
            columns = {name: np.array([getattr(one, name) for one in said], kind) for name, kind in _COLUMNS.items()}
            ids, models = [one.id for one in said], [one.model for one in said]
            encoders = {"encoder": _encoder(), _SECOND: MultilingualEncoder.identity()}
            write_pack(path, _KIND, {**encoders, "ids": ids, "models": models, **columns}, private=True)
        else:
            path.unlink(missing_ok=True)
        shred(old)
    except OSError as error:
        raise AssetError(f"{path}: cannot be changed ({error.strerror or error}); check its permissions") from error


def _multilingual(body: dict[str, Any]) -> Floats:
    """Return the multilingual vectors of a file, (n, 512); NaN where it has none, or another encoder's."""
    if body.get(_SECOND) == MultilingualEncoder.identity():
        return np.asarray(body["multilingual"])
    return np.full((len(body["ids"]), DIMENSION), np.nan)


def _encoder() -> str:
    return assets.manifest()[ONNX].sha256
