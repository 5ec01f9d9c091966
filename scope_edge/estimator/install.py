"""Install an estimator: weights, the prompt template they were trained with, and a manifest, as one entry of the store.

An entry is made in a folder of its own beside the others and gets its name at the end, so that an interrupted installation
leaves no half of one; downloads stay in the cache and are continued by the next try.
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
    InstallStep,
    WeightsOrigin,
    check_extras,
    find_origin,
    forget,
    model_card,
    put_weights,
    read_text,
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
from scope_edge.storage.hub import Progress

_A_DAY = 86_400


@dataclass(frozen=True, slots=True)
class InstallOptions:
    """What the user asks for beyond the source; None = as the source suggests.

    Attributes:
        name: of the entry. quant: of the weights; a GGUF given as such stays as it is unless this is set.
        template_file: a prompt template (prompt.py's format). card_file: a model card to take the template from.
        offline: what forbids a download, in words.
    """

    name: str | None = None
    quant: Quant | None = None
    template_file: Path | None = None
    card_file: Path | None = None
    mode: Mode | None = None
    offline: str | None = None


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A template and where it comes from, in words. mode: as far as that source tells."""

    template: str
    came_from: str
    mode: Mode | None = None


def install(source: str, wishes: InstallOptions = InstallOptions(), progress: Progress | None = None) -> Installed:
    """Install an estimator from a GGUF file, a checkpoint's folder or a hub id (OWNER/NAME or OWNER/NAME@REVISION).

    Args:
        progress: called with (what is being done, done, in all).

    Raises:
        UsageError: what was asked makes no sense: no such source, quantization or template, a name that is taken.
        AssetError: a file is damaged, no model that can write, or there is no space for it; RemoteError: the download failed.
        MissingExtraError: what the source needs is not installed.
    In any case of these nothing is left behind but downloads, which the next try goes on with.
    """
    if wishes.quant is not None:
        check_choice("--quant", wishes.quant, QUANTS)
    if wishes.mode is not None:
        check_choice("--mode", wishes.mode, MODES)
    given = _given_template(wishes)
    origin = find_origin(source, wishes.quant, offline=wishes.offline)
    check_extras(origin)
    name = _free_name(wishes.name or _name_of(origin, wishes.quant))
    prompt, mode = _prompt(origin, given, progress)
    with _making(name) as folder:
        path = folder / GGUF
        put_weights(origin, path, wishes.quant, progress)
        shape = _described(path, origin)
        write_atomically(folder / PROMPT, prompt.template.encode("utf-8"))
        entry = Installed(
            name=name,
            folder=folder,
            sha256=file_sha256(path, InstallStep(progress, "hashing the weights") if progress else None),
            size=path.stat().st_size,
            shape=shape,
            mode=wishes.mode or mode,
            template_sha256=hashlib.sha256(prompt.template.encode("utf-8")).hexdigest(),
            template_from=prompt.came_from,
            source=origin.source,
            revision=origin.repo.commit if origin.repo else None,
            licence=origin.repo.licence if origin.repo else None,
            installed=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        write_manifest(entry)
    entry = replace(entry, folder=store() / name)
    remember_gguf(entry)
    forget(origin)
    return entry


def measure(installed: Installed, timeout: float = 600.0) -> SpeedRecord:
    """Start the estimator on this machine and remember how it is best loaded and how fast it then is.

    Raises AssetError (its weights were changed), WorkerError (no room for it, or llama.cpp fails on it).
    """
    check_gguf(installed)
    plan = memory_plan(installed, ())
    if isinstance(plan, NoRoom):
        raise WorkerError(plan.why)
    with LlamaClient(installed.gguf, installed.sha256, plan, cache_dir=assets.user_cache_dir()) as client:
        return client.measure(timeout)


def measured(installed: Installed) -> SpeedRecord | None:
    """What `measure` found on this machine; None = not measured yet."""
    return remembered(installed.sha256, assets.user_cache_dir())


def _given_template(wishes: InstallOptions) -> _Prompt | None:
    """The template out of the user's file or card, checked before anything takes long. Raises UsageError, AssetError."""
    if wishes.template_file is not None and wishes.card_file is not None:
        raise UsageError("--prompt-template and --card both name a template; give one of them")
    if wishes.template_file is not None:
        text = read_text(wishes.template_file)
        PromptTemplate.parse(text, str(wishes.template_file))
        return _Prompt(text, wishes.template_file.name)
    if wishes.card_file is not None:
        found = _from_card(read_text(wishes.card_file), f"model card {wishes.card_file.name}")
        if found is None:
            raise UsageError(
                f"{wishes.card_file}: no prompt template found in it; write one to a file and give --prompt-template"
            )
        return found
    return None


def _prompt(origin: WeightsOrigin, given: _Prompt | None, progress: Progress | None) -> tuple[_Prompt, Mode]:
    """Template and mode from what knows best: the user's file, the model's own card, then its name and the bundled one."""
    card = model_card(origin, progress)
    place = f"{origin.repo.id}@{origin.repo.commit[:12]}" if origin.repo else origin.source
    own = _from_card(card, f"model card of {place}") if card is not None else None
    named: Mode = "direct" if "nocot" in re.sub(r"[^a-z]", "", origin.source.lower()) else "cot"
    shown = next((one.mode for one in (given, own) if one is not None and one.mode is not None), None)
    return given or own or _Prompt(BUNDLED, "bundled"), shown or named


def _from_card(card: str, place: str) -> _Prompt | None:
    template = template_from_card(card)
    return None if template is None else _Prompt(template, place, mode_from_card(card))


def _described(path: Path, origin: WeightsOrigin) -> ModelShape:
    """What the GGUF says of itself. Raises AssetError (llama.cpp cannot read it, or it writes no text)."""
    try:
        shape = describe_gguf(path)
    except AssetError as error:
        # What is said of the copy in the making is true of what the user gave.
        raise AssetError(str(error).replace(str(path), origin.source)) from error
    if not writes_text(shape):
        raise AssetError(
            f"{origin.source}: a {shape.architecture} model writes no text; an estimator is a model that does"
        )
    return shape


def _name_of(origin: WeightsOrigin, quant: Quant | None) -> str:
    """A name out of the source's own: what it is called, and how it is quantized where that is decided here."""
    text = f"{origin.stem}-{quant or DEFAULT_QUANT}" if origin.repo or origin.folder else origin.stem
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64].rstrip("-._")
    return name or "estimator"


def _free_name(name: str) -> str:
    check_entry_name(name)
    if (store() / name).exists():
        raise UsageError(
            f"an estimator {name} is installed already; `scope-edge estimator remove {name}` first, or give another --name"
        )
    return name


@contextlib.contextmanager
def _making(name: str) -> Iterator[Path]:
    """A folder to make an entry in. It becomes the entry when the block ends well and goes when it does not."""
    _sweep()
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
        # The folder that is gone by then means nothing to the reader.
        raise type(error)(str(error).replace(str(folder), str(store() / name))) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """Remove what installations and removals that were killed have left: gigabytes, perhaps."""
    with contextlib.suppress(OSError):
        for folder in store().iterdir():
            found = re.match(r"\.(?:installing|removed)-(\d+)-", folder.name)
            if found and _abandoned(folder, int(found[1])):
                shutil.rmtree(folder, ignore_errors=True)


def _abandoned(folder: Path, process: int) -> bool:
    """Whether nobody works on a folder any more."""
    if os.name == "nt":  # where asking for a process by signal 0 would end it
        return time.time() - folder.stat().st_mtime > _A_DAY
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False
