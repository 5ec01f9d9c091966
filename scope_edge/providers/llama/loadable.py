"""Whether the GGUF of a card can be loaded on this machine: it is there and whole, it fits, and llama.cpp did not refuse it.

Headers are remembered in the cache folder by the file's stamp, so that `route` reads a page of text and not a vocabulary.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scope_edge.errors import AssetError, WorkerError
from scope_edge.providers.llama.gguf import read_header
from scope_edge.providers.llama.memory import (
    NoRoom,
    Plan,
    available_memory,
    plan_device,
    plan_estimator,
)
from scope_edge.providers.llama.messages import AnswerFormat
from scope_edge.storage import assets
from scope_edge.storage.files import file_sha256, file_stamp, write_atomically

if TYPE_CHECKING:
    from scope_edge.providers.llama.client import LlamaClient
    from scope_edge.providers.llama.speed import SpeedRecord
    from scope_edge.types import ModelCard


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a GGUF.

    Attributes:
        refused: why the installed llama.cpp could not load it when it was last started; None = it was not.
        sha256: None until somebody had to hash it.
    """

    shape: AnswerFormat
    size: int
    refused: str | None = None
    sha256: str | None = None


def unloadable(cards: Iterable[ModelCard]) -> Mapping[str, str]:
    """Model id -> why it cannot be loaded now, for cards with a GGUF that cannot."""
    found = {card.id: why_not(card) for card in cards if card.gguf is not None}
    return {model: why for model, why in found.items() if why is not None}


def why_not(card: ModelCard) -> str | None:
    """Why the GGUF of a card cannot be loaded now, in words; None = nothing speaks against it, or it has none."""
    if card.gguf is None:
        return None
    path = gguf_path(card)
    if not path.is_file():
        return f"no file {path}"
    try:
        known = look_up(path)
    except AssetError as error:
        return str(error)
    if known.refused is not None:
        return f"{known.refused} when it was last started; `scope-edge models test {card.id}` tries again"
    # What fits beside the processor needs no look at GPUs, which takes longer than a decision.
    if isinstance(plan_estimator(known.shape, known.size, available=available_memory()), Plan):
        return None
    plan = plan_device(known.shape, known.size)
    return plan.why if isinstance(plan, NoRoom) else None


def gguf_path(card: ModelCard) -> Path:
    """The file a card names."""
    return Path(card.gguf or "").expanduser()


def look_up(path: Path) -> Known:
    """What is known of a GGUF; its header is read again when the file was touched. Raises AssetError."""
    stamp = _stamp(path)
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        body = json.loads(_memory(path).read_bytes())
        if body["stamp"] == stamp:
            refusal = body["refusal"]
            current = refusal is not None and refusal["by"] == _llama_version()
            return Known(
                AnswerFormat(**body["shape"]), stamp["size"], refusal["why"] if current else None, body["sha256"]
            )
    header = read_header(path)
    known = Known(header.shape, header.size)
    _keep(path, known)
    return known


def hash_of(path: Path) -> str:
    """The sha256 of a GGUF, read again when the file was touched. Raises AssetError."""
    known = look_up(path)
    if known.sha256 is not None:
        return known.sha256
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise AssetError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error
    _keep(path, replace(known, sha256=digest))
    return digest


def start_worker(client: LlamaClient, path: Path, timeout: float) -> SpeedRecord:
    """Start the worker of a GGUF; `route` will know whether llama.cpp loads it. Raises WorkerError."""
    try:
        ready = client.start(timeout)
    except WorkerError as error:
        if error.refused:
            note_loading(path, str(error))
        raise
    note_loading(path, None)
    return ready


def note_loading(path: Path, problem: str | None) -> None:
    """Remember that llama.cpp refused to load a GGUF, and why; None = it loads. Costs nothing where nothing changes."""
    with contextlib.suppress(AssetError):
        known = look_up(path)
        if known.refused != problem:
            _keep(path, replace(known, refused=problem))


def _keep(path: Path, known: Known) -> None:
    """A cache that cannot be written costs time only."""
    refusal = None if known.refused is None else {"why": known.refused, "by": _llama_version()}
    with contextlib.suppress(AssetError):
        body: dict[str, Any] = {
            "stamp": _stamp(path),
            "shape": asdict(known.shape),
            "refusal": refusal,
            "sha256": known.sha256,
        }
        write_atomically(_memory(path), json.dumps(body).encode())


def _stamp(path: Path) -> dict[str, int]:
    try:
        return file_stamp(path)
    except OSError as error:
        raise AssetError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error


def _memory(path: Path) -> Path:
    place = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    return assets.user_cache_dir() / "gguf" / f"{place[:24]}.json"


def _llama_version() -> str:
    from importlib import metadata  # slow to import, and hardly ever needed

    try:
        return metadata.version("llama-cpp-python")
    except metadata.PackageNotFoundError:
        return "none"
