"""Whether the GGUF of a card can be loaded on this machine: the file is whole, it fits, and llama.cpp did not refuse it.

The cache folder keeps headers by the file's stamp, so that `route` reads a page of text and not a vocabulary.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from scope_edge.errors import AssetError, WorkerError
from scope_edge.providers.llama.gguf import gguf_sha256, parts_of, read_header, sampling_of
from scope_edge.providers.llama.memory import explain_no_room
from scope_edge.providers.llama.messages import USUAL, ModelShape, Sampling
from scope_edge.providers.llama.process import llama_version
from scope_edge.providers.llama.speed import remembered, revision
from scope_edge.storage import assets
from scope_edge.storage.files import expand_user, file_stamp, write_atomically

if TYPE_CHECKING:
    from scope_edge.providers.llama.client import LlamaClient
    from scope_edge.providers.llama.speed import SpeedRecord
    from scope_edge.types import ModelCard

_MAX_CONFIG_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Known:
    """The cached facts about a GGUF.

    Attributes:
        refused: why the installed llama.cpp could not load it last time; None = it could, or never tried.
        sha256: None until the file was hashed. sampling: how its makers draw tokens; None = the header does not say.
    """

    shape: ModelShape
    size: int
    refused: str | None = None
    sha256: str | None = None
    sampling: Sampling | None = None


def unloadable(cards: Iterable[ModelCard]) -> Mapping[str, str]:
    """Return model id -> why it cannot be loaded now, for cards with such a GGUF."""
    return {card.id: why for card in cards if (why := why_not(card)) is not None}


def why_not(card: ModelCard) -> str | None:
    """Return why the GGUF of a card cannot be loaded now; None = it can, or the card has none."""
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
    return explain_no_room(known.shape, known.size)


def gguf_path(card: ModelCard) -> Path:
    """Return the path of the file that a card names."""
    return expand_user(card.gguf or "")


def look_up(path: Path) -> Known:
    """Return the facts about a GGUF; its header is read again when the file was touched. Raises AssetError."""
    with _readable(path):
        stamp = _stamp(path)
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        body = json.loads(_memory(path).read_bytes())
        if body["stamp"] == stamp:
            refusal = body["refusal"]
            current = refusal is not None and refusal["by"] == llama_version()
            return Known(
                ModelShape(**body["shape"]),
                sum(part["size"] for part in stamp),
                refusal["why"] if current else None,
                body["sha256"],
                None if body["sampling"] is None else Sampling(**body["sampling"]),
            )
    header = read_header(path)
    known = Known(header.shape, header.size, sampling=header.sampling)
    _keep(path, known)
    return known


def own_sampling(path: Path) -> Sampling:
    """Return how a model's makers draw tokens: the GGUF says, or a generation_config.json beside it; else the usual.

    Raises AssetError.
    """
    known = look_up(path).sampling
    if known is not None:
        return known
    with contextlib.suppress(OSError, ValueError, RecursionError):
        with path.with_name("generation_config.json").open("rb") as file:
            body = json.loads(file.read(_MAX_CONFIG_BYTES))
        if isinstance(body, dict):
            known = sampling_of(body.get("temperature"), body.get("top_p"), body.get("top_k"))
    return known or USUAL


def with_speed(card: ModelCard) -> ModelCard:
    """Return the card of a GGUF with the speed that its runs had on this machine, if it ever ran; other cards as they are."""
    if card.gguf is None:
        return card
    sha256 = None
    with contextlib.suppress(AssetError):
        sha256 = look_up(gguf_path(card)).sha256
    known = None if sha256 is None else remembered(sha256, assets.user_cache_dir())
    if known is None:
        return card
    return replace(
        card,
        tokens_per_second=known.alone_tps,
        prompt_tokens_per_second=known.prefill_tps,
        load_seconds=known.load_seconds,
    )


def speeds_of(cards: Sequence[ModelCard]) -> Callable[[], Sequence[ModelCard] | None]:
    """Return a function that returns the cards with their speeds; None = this process has learned nothing since its last call."""
    seen: int | None = None

    def look() -> Sequence[ModelCard] | None:
        nonlocal seen
        if seen == (now := revision()):
            return None
        seen = now
        return tuple(map(with_speed, cards))

    return look


def hash_of(path: Path) -> str:
    """Return the sha256 of a GGUF, computed again when the file was touched. Raises AssetError."""
    known = look_up(path)
    if known.sha256 is not None:
        return known.sha256
    with _readable(path):
        digest = gguf_sha256(path)
    _keep(path, replace(known, sha256=digest))
    return digest


def start_worker(client: LlamaClient, path: Path, timeout: float) -> SpeedRecord:
    """Start the worker of a GGUF, and note for `route` whether llama.cpp loads it. Raises WorkerError."""
    try:
        ready = client.start(timeout)
    except WorkerError as error:
        if error.refused:
            note_loading(path, str(error))
        raise
    note_loading(path, None)
    return ready


def note_loading(path: Path, problem: str | None) -> None:
    """Note why llama.cpp refused to load a GGUF; None = it loads."""
    with contextlib.suppress(AssetError):
        known = look_up(path)
        if known.refused != problem:
            _keep(path, replace(known, refused=problem))


def _keep(path: Path, known: Known) -> None:
    """Write the facts to the cache, if it can be written."""
    refusal = None if known.refused is None else {"why": known.refused, "by": llama_version()}
    with contextlib.suppress(AssetError), _readable(path):
        drawing = None if known.sampling is None else asdict(known.sampling)
        body = {"stamp": _stamp(path), "shape": asdict(known.shape), "refusal": refusal, "sha256": known.sha256}
        body["sampling"] = drawing
        write_atomically(_memory(path), json.dumps(body).encode())


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AssetError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error


def _stamp(path: Path) -> list[dict[str, int]]:
    """Return what changes when any part of a GGUF does; a missing part counts as empty. Raises OSError."""
    return [file_stamp(part) if part == path or part.exists() else {"size": 0} for part in parts_of(path)]


def _memory(path: Path) -> Path:
    place = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    return assets.user_cache_dir() / "gguf" / f"{place[:24]}.json"
