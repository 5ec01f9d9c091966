"""Install an estimator: weights, the prompt template they were trained with, and a manifest, as one entry of the store.

An entry is made in a temporary folder beside the others and renamed at the end, so that an interrupted installation leaves no
partial entry. Downloads stay in the cache, and the next try continues them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from scope_edge.errors import AssetError, UsageError, WorkerError
from scope_edge.estimator.convert.card import mode_from_card, template_from_card
from scope_edge.estimator.convert.quantize import QUANTS, Quant
from scope_edge.estimator.factory import memory_plan
from scope_edge.estimator.prompt import BUNDLED, PromptTemplate
from scope_edge.estimator.sources import (
    DEFAULT_QUANT,
    WeightsOrigin,
    check_extras,
    find_origin,
    model_card,
    put_weights,
    read_text,
    step,
)
from scope_edge.estimator.store import (
    GGUF,
    MODES,
    PROMPT,
    Installed,
    Mode,
    check_entry_name,
    check_gguf,
    remember_gguf,
    store,
    write_manifest,
)
from scope_edge.providers.llama.client import LlamaClient
from scope_edge.providers.llama.gguf import describe_gguf, writes_text
from scope_edge.providers.llama.memory import NoRoom
from scope_edge.providers.llama.messages import ModelShape
from scope_edge.providers.llama.speed import SpeedRecord, remembered
from scope_edge.settings.validation import check_choice
from scope_edge.storage import assets
from scope_edge.storage.files import file_sha256, write_atomically
from scope_edge.storage.hub import Progress, discard

_A_DAY = 86_400


@dataclass(frozen=True, slots=True)
class InstallOptions:
    """How to install; None = as the source suggests.

    Attributes:
        name: of the entry. quant: of the weights; a GGUF stays unchanged unless this is set.
        template_file: a prompt template (prompt.py's format). card_file: a model card to take the template from.
        offline: why downloads are forbidden, in words.
    """

    name: str | None = None
    quant: Quant | None = None
    template_file: Path | None = None
    card_file: Path | None = None
    mode: Mode | None = None
    offline: str | None = None


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A template and its origin, in words. mode: of the weights, if that origin tells."""

    template: str
    origin: str
    mode: Mode | None = None


def install(source: str, options: InstallOptions = InstallOptions(), progress: Progress | None = None) -> Installed:
    """Install an estimator from a GGUF file, a checkpoint's folder or a hub id (OWNER/NAME or OWNER/NAME@REVISION).

    Args:
        progress: called with (the current step, done, in all).

    Raises:
        UsageError: no such source, quantization or template, or a name that is taken.
        AssetError: a damaged file, a model that writes no text, or no space. RemoteError: the download failed.
        MissingExtraError: a library that the source needs is not installed.
    After an error only downloads are left, which the next try continues.
    """
    if options.quant is not None:
        check_choice("--quant", options.quant, QUANTS)
    if options.mode is not None:
        check_choice("--mode", options.mode, MODES)
    given = _given_template(options)
    origin = find_origin(source, options.quant, offline=options.offline)
    check_extras(origin)
    name = check_entry_name(options.name or _name_of(origin, options.quant))
    if (store() / name).exists():
        raise UsageError(
            f"an estimator {name} is installed already; `scope-edge estimator remove {name}` first, or give another --name"
        )
    prompt, mode = _prompt(origin, given, progress)
    with _new_entry(name) as folder:
        path = folder / GGUF
        put_weights(origin, path, options.quant, progress)
        shape = _described(path, origin)
        write_atomically(folder / PROMPT, prompt.template.encode("utf-8"))
        entry = Installed(
            name=name,
            folder=folder,
            sha256=file_sha256(path, step(progress, "hashing the weights")),
            size=path.stat().st_size,
            shape=shape,
            mode=options.mode or mode,
            template_sha256=hashlib.sha256(prompt.template.encode("utf-8")).hexdigest(),
            template_from=prompt.origin,
            source=origin.source,
            revision=origin.repo.commit if origin.repo else None,
            licence=origin.repo.licence if origin.repo else None,
            installed=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        write_manifest(entry)
    entry = replace(entry, folder=store() / name)
    remember_gguf(entry)
    if origin.repo is not None:
        discard(origin.repo)  # its weights are in the store now
    return entry


def measure(installed: Installed, timeout: float = 600.0) -> SpeedRecord:
    """Load the estimator on this machine in several ways; remember the fastest and its speed.

    Raises AssetError (its weights were changed), WorkerError (no memory for it, or llama.cpp fails).
    """
    check_gguf(installed)
    plan = memory_plan(installed, ())
    if isinstance(plan, NoRoom):
        raise WorkerError(plan.why)
    with LlamaClient(installed.gguf, installed.sha256, plan, cache_dir=assets.user_cache_dir()) as client:
        return client.measure(timeout)


def measured(installed: Installed) -> SpeedRecord | None:
    """Return the result of `measure` on this machine; None = not measured yet."""
    return remembered(installed.sha256, assets.user_cache_dir())


def _given_template(options: InstallOptions) -> _Prompt | None:
    """Read the template in the user's file or card, before any long step. Raises UsageError, AssetError."""
    if options.template_file is not None and options.card_file is not None:
        raise UsageError("--prompt-template and --card both name a template; give one of them")
    if options.template_file is not None:
        text = read_text(options.template_file)
        PromptTemplate.parse(text, str(options.template_file))
        return _Prompt(text, options.template_file.name)
    if options.card_file is not None:
        found = _from_card(read_text(options.card_file), f"model card {options.card_file.name}")
        if found is None:
            raise UsageError(
                f"{options.card_file}: no prompt template found in it; write one to a file and give --prompt-template"
            )
        return found
    return None


def _prompt(origin: WeightsOrigin, given: _Prompt | None, progress: Progress | None) -> tuple[_Prompt, Mode]:
    """Choose template and mode: from the user's file, the model's own card, or its name and the bundled template."""
    card = model_card(origin, progress)
    source = f"{origin.repo.id}@{origin.repo.commit[:12]}" if origin.repo else origin.source
    own = _from_card(card, f"model card of {source}") if card is not None else None
    named: Mode = "direct" if "nocot" in re.sub(r"[^a-z]", "", origin.source.lower()) else "cot"
    shown = next((one.mode for one in (given, own) if one is not None and one.mode is not None), None)
    return given or own or _Prompt(BUNDLED, "bundled"), shown or named


def _from_card(card: str, origin: str) -> _Prompt | None:
    template = template_from_card(card)
    return None if template is None else _Prompt(template, origin, mode_from_card(card))


def _described(path: Path, origin: WeightsOrigin) -> ModelShape:
    """Describe the GGUF. Raises AssetError (llama.cpp cannot read it, or it writes no text)."""
    try:
        shape = describe_gguf(path)
    except AssetError as error:
        # The error names the temporary copy; the user knows the source.
        raise AssetError(str(error).replace(str(path), origin.source)) from error
    if not writes_text(shape):
        raise AssetError(
            f"{origin.source}: a {shape.architecture} model writes no text; an estimator is a model that does"
        )
    return shape


def _name_of(origin: WeightsOrigin, quant: Quant | None) -> str:
    """Derive a name from the source, with the quantization where it is chosen here."""
    text = f"{origin.stem}-{quant or DEFAULT_QUANT}" if origin.repo or origin.folder else origin.stem
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64].rstrip("-._")
    return name or "estimator"


@contextlib.contextmanager
def _new_entry(name: str) -> Iterator[Path]:
    """Yield a temporary folder. It becomes the entry when the block succeeds, else it is removed."""
    # Killed installations and removals may have left gigabytes.
    with contextlib.suppress(OSError):
        for folder in store().iterdir():
            found = re.match(r"\.(?:installing|removed)-(\d+)-", folder.name)
            if found and _abandoned(folder, int(found[1])):
                shutil.rmtree(folder, ignore_errors=True)
    folder = store() / f".installing-{os.getpid()}-{name}"
    try:
        try:
            folder.mkdir(parents=True)
            yield folder
            folder.rename(store() / name)
        except OSError as error:
            raise AssetError(
                f"{store() / name}: cannot be made ({error.strerror or error}); check the folder's permissions and space"
            ) from error
    except AssetError as error:
        # The temporary folder is gone by then, so the error names the entry.
        raise type(error)(str(error).replace(str(folder), str(store() / name))) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _abandoned(folder: Path, process: int) -> bool:
    """Return whether the process that made a folder is gone."""
    if os.name == "nt":  # where signal 0 would end the process
        return time.time() - folder.stat().st_mtime > _A_DAY
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False
