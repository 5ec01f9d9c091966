"""Find an estimator's weights (a GGUF, a checkpoint's folder, the hub) and make one GGUF of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from scope_edge.errors import AssetError, MissingExtraError, UsageError
from scope_edge.estimator.convert.gguf import About, convert_checkpoint
from scope_edge.estimator.convert.quantize import Quant, quantize_gguf
from scope_edge.estimator.store import read_small
from scope_edge.providers.llama.process import installed
from scope_edge.storage.files import check_space, expand_user, whole_file
from scope_edge.storage.hub import HubRepo, Progress, fetch, is_hub_id, look_up

DEFAULT_QUANT: Quant = "Q4_K_M"
CARD = "README.md"
MAX_CARD_BYTES = 1024 * 1024
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
# The files of a checkpoint besides its weights that the conversion reads. It needs the first two.
_SETTINGS = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)
_HEAD = 24
_BLOCK = 16 * 1024 * 1024
# No system accepts a longer path.
MAX_SOURCE = 4000


@dataclass(frozen=True, slots=True)
class WeightsOrigin:
    """Weights that were found but not read yet. Exactly one of `gguf`, `folder` and `repo` is set.

    Attributes:
        source: as the user gave it, a hub id without its revision. stem: to make a name of.
        chosen: the ready GGUF to take from a repository; None = convert its checkpoint.
    """

    source: str
    stem: str
    gguf: Path | None = None
    folder: Path | None = None
    repo: HubRepo | None = None
    chosen: str | None = None

    @property
    def converts(self) -> bool:
        """Whether the weights still have to be converted to a GGUF."""
        return self.gguf is None and self.chosen is None


def find_origin(source: str, quant: Quant | None, *, offline: str | None = None) -> WeightsOrigin:
    """Examine a path (a GGUF, or a folder with a checkpoint) or a hub id. An existing path wins over a hub id.

    Raises UsageError (neither), AssetError (not a GGUF, or a GGUF without weights), and the errors of `look_up`.
    """
    if not source.strip():
        raise UsageError("no source; give a .gguf file, a folder with a checkpoint, or a hub id such as Cooolder/SCOPE")
    path = expand_user(source)
    if len(source) > MAX_SOURCE:
        raise UsageError(
            f"{source[:60]}…: {len(source)} characters, too long for a path; give a file, a folder or a hub id"
        )
    if path.is_file():
        check_head(path)
        return WeightsOrigin(str(path), path.stem, gguf=path)
    if path.is_dir():
        return _in_folder(path, quant)
    if is_hub_id(source) and not source.endswith(".gguf"):
        return _on_hub(source, quant, offline)
    raise UsageError(f"{source}: no such file or folder, and not a hub id (OWNER/NAME, or OWNER/NAME@REVISION)")


def check_extras(origin: WeightsOrigin) -> None:
    """Raise MissingExtraError, before any download, when a library that the origin needs is not installed."""
    if not installed():
        raise MissingExtraError('an estimator needs llama-cpp-python; pip install "scope-edge[llama]"')
    for library in ("gguf", "safetensors") if origin.converts else ():
        if find_spec(library) is None:
            raise MissingExtraError(f'converting a checkpoint needs {library}; pip install "scope-edge[convert]"')


def model_card(origin: WeightsOrigin, progress: Progress | None) -> str | None:
    """Read the README of a checkpoint or repository; None without one. Raises AssetError and the errors of `fetch`."""
    if origin.repo is not None:
        size = next((file.size for file in origin.repo.files if file.path == CARD), None)
        if size is None or size > MAX_CARD_BYTES:
            return None
        return read_text(fetch(origin.repo, [CARD], progress) / CARD)
    path = None if origin.folder is None else origin.folder / CARD
    return read_text(path) if path is not None and path.is_file() else None


def read_text(path: Path) -> str:
    """Read a text file of at most 1 MB, without its byte order mark. Raises AssetError."""
    return read_small(path, MAX_CARD_BYTES, "give another file").decode("utf-8-sig", "replace")


def put_weights(origin: WeightsOrigin, target: Path, quant: Quant | None, progress: Progress | None) -> None:
    """Make `target` the GGUF of an origin: link or copy, download, convert, quantize as needed.

    Raises AssetError, UsageError, MissingExtraError and the errors of `fetch`. An interrupted download stays in the cache.
    """
    if origin.gguf is not None:
        _placed(origin.gguf, target, quant, progress)
        return
    folder, about, repo = origin.folder, About(), origin.repo
    if repo is not None:
        if origin.chosen is not None:
            _placed(fetch(repo, [origin.chosen], progress) / origin.chosen, target, None, progress)
            return
        held = {file.path for file in repo.files}
        folder = fetch(repo, [path for path in (*_SETTINGS, _INDEX) if path in held], progress)
        shards = _shards(folder / _INDEX) if _INDEX in held else [_SINGLE]
        check_space(target.parent, _conversion_bytes(repo, shards, target.parent), f"{repo.id}: the conversion")
        fetch(repo, shards, progress)
        about = About(repo.id.partition("/")[2], repo.licence, f"https://huggingface.co/{repo.id}")
    if folder is not None:
        _converted(folder, target, quant or DEFAULT_QUANT, about, progress)


def check_head(path: Path) -> None:
    """Raise AssetError unless a file begins like a GGUF with weights."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise AssetError(f"{path}: cannot be read ({error.strerror or error}); give another file") from error
    if head[:4] != b"GGUF":
        raise AssetError(f"{path}: not a GGUF file (it begins with {head[:4]!r}); give a .gguf file or a folder")
    if len(head) < _HEAD:
        raise AssetError(f"{path}: cut off after {len(head)} bytes; get a fresh copy")
    if not int.from_bytes(head[8:16], "little"):
        raise AssetError(f"{path}: a vocabulary without weights; give the model's own GGUF")


def _in_folder(folder: Path, quant: Quant | None) -> WeightsOrigin:
    stem = folder.resolve().name
    if (folder / "config.json").is_file():
        return WeightsOrigin(str(folder), stem, folder=folder)
    names = [path.name for path in folder.iterdir() if path.suffix == ".gguf"]
    if not names:
        raise UsageError(f"{folder}: holds neither a checkpoint (config.json, *.safetensors) nor a .gguf file")
    chosen = _ready(names, quant) or (names[0] if len(names) == 1 and quant is None else None)
    if chosen is None:
        raise UsageError(f"{folder}: which one? It holds {', '.join(sorted(names))}; give the path of one")
    check_head(folder / chosen)
    return WeightsOrigin(str(folder / chosen), Path(chosen).stem, gguf=folder / chosen)


def _on_hub(source: str, quant: Quant | None, offline: str | None) -> WeightsOrigin:
    repo = look_up(source, offline=offline)
    paths = {file.path for file in repo.files}
    chosen = _ready(paths, quant)
    if chosen is None and not (paths >= {"config.json", "tokenizer.json"} and paths & {_INDEX, _SINGLE}):
        ready = ", ".join(sorted(path for path in paths if path.endswith(".gguf")))
        raise UsageError(
            f"{repo.id}: has no {quant or DEFAULT_QUANT} in one piece, only {ready}; ask for one of them with --quant"
            if ready
            else f"{repo.id}: holds neither a checkpoint (config.json, *.safetensors) nor a .gguf file"
        )
    return WeightsOrigin(repo.id, repo.id.partition("/")[2], repo=repo, chosen=chosen)


def _ready(paths: Iterable[str], quant: Quant | None) -> str | None:
    """Find the GGUF of a quantization by its name, the shortest path of several; split files are skipped."""
    kind = re.escape(quant or DEFAULT_QUANT)
    named = re.compile(rf"(?:^|[^a-z0-9]){kind}(?:[^a-z0-9_].*)?\.gguf", re.IGNORECASE)
    found = [path for path in paths if named.search(path) and not re.search(r"-\d{5}-of-\d{5}\.gguf$", path)]
    return min(found, key=lambda path: (len(path), path), default=None)


def _conversion_bytes(repo: HubRepo, shards: Sequence[str], store: Path) -> int:
    """Return the bytes that must be free on the store's disk before the shards are downloaded."""
    size = sum(file.size for file in repo.files if file.path in shards)
    # In 16 bits, then quantized beside it: at most 1.6 times the size of the download.
    needed = int(1.6 * size)
    cache = next(one for one in (repo.folder, *repo.folder.parents) if one.exists())
    return needed + repo.missing_bytes(shards) if cache.stat().st_dev == store.stat().st_dev else needed


def _shards(index: Path) -> list[str]:
    """Return the shards that a checkpoint's index names. Raises AssetError."""
    try:
        return sorted(set(json.loads(read_text(index))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AssetError(f"{index}: not a checkpoint's index ({error!r}); is this revision a whole model?") from error


def _converted(folder: Path, target: Path, quant: Quant, about: About, progress: Progress | None) -> None:
    """Convert a checkpoint to a GGUF in 16 bits, then quantize it; the first file is removed."""
    converting = step(progress, f"converting {about.name or folder.name}")
    if quant == "F16":
        convert_checkpoint(folder, target, dtype="f16", about=about, progress=converting)
        return
    whole = target.with_name("whole.gguf")
    try:
        convert_checkpoint(folder, whole, about=about, progress=converting)
        quantize_gguf(whole, target, quant, progress=step(progress, f"quantizing to {quant}"))
    finally:
        whole.unlink(missing_ok=True)


def _placed(path: Path, target: Path, quant: Quant | None, progress: Progress | None) -> None:
    """Put a GGUF in place: quantized if requested and not quantized yet, else the same bytes."""
    check_head(path)
    if quant is not None and quant.lower() not in path.name.lower():
        quantize_gguf(path, target, quant, progress=step(progress, f"quantizing to {quant}"))
        return
    with contextlib.suppress(OSError):  # another disk, or one without links
        os.link(path.resolve(), target)
        return
    try:
        size, done = path.stat().st_size, 0
        check_space(target.parent, size, str(target))
        with whole_file(target) as copy, path.open("rb") as old, copy.open("wb") as new:
            while block := old.read(_BLOCK):
                new.write(block)
                done += len(block)
                if progress is not None:
                    progress(f"copying {path.name}", done, size)
    except OSError as error:
        raise AssetError(f"{path}: cannot be read ({error.strerror or error}); give another file") from error


def step(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    """Return a progress function of (done, in all) for one named step."""
    return None if progress is None else partial(progress, what)
