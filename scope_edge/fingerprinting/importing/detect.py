"""Detect the format of a path by its content, and import it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scope_edge.errors import AssetError, UsageError
from scope_edge.fingerprinting.importing import lm_eval, routing_data, scope_dataset, share
from scope_edge.storage.files import expand_user

if TYPE_CHECKING:
    from scope_edge.fingerprinting.importing.naming import Cards
    from scope_edge.fingerprinting.importing.outcomes import Imported, Progress


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to import; None = the format's default.

    Attributes:
        kind: the format. name: of the anchor set. limit: the maximum number of anchors.
        model: whose outcomes a sample log or anchor_results.json holds.
        replace: whether a pack or anchor_results.json may replace other outcomes of the same model.
    """

    kind: str | None = None
    name: str | None = None
    limit: int | None = None
    model: str | None = None
    replace: bool = False


def import_path(
    path: Path, options: ImportOptions, cards: Cards, progress: Progress | None = None
) -> tuple[Imported, str | None]:
    """Import a path of a known format, by default the detected one; return the result and the sha256 of a pack's file.

    Raises UsageError (no such path, an option that the format does not have), and the errors of the format's import.
    """
    path = expand_user(path)
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    kind = options.kind or detect(path)
    if kind == "pack":
        if (options.name, options.limit, options.model) != (None, None, None):
            raise UsageError(f"{path}: a pack brings its own names and anchors; leave out --name, --limit and --model")
        return share.import_pack(path, cards, replace_own=options.replace)
    if kind == "anchor-results":
        if options.limit is not None:
            raise UsageError(f"{path}: these anchors are here already; leave out --limit")
        return scope_dataset.import_anchor_results(
            path, cards, options.model, options.name, replace_own=options.replace
        ), None
    if options.model is not None and kind != "lm-eval":
        raise UsageError(f"{path}: {kind} says whose outcomes these are; leave out --model")
    if options.replace:
        raise UsageError(
            f"{path}: --replace is for packs and {scope_dataset.RESULTS}; {kind} replaces its outcomes anyway"
        )
    if kind == "lm-eval":
        return lm_eval.import_lm_eval(path, cards, options.model, options.name, options.limit, progress), None
    return routing_data.import_routing_data(path, cards, options.name, options.limit, progress), None


def detect(path: Path) -> str:
    """Return the name of a path's format. Raises AssetError for an unknown one."""
    if routing_data.is_labelled(path):
        return "routing-data"
    if scope_dataset.has_anchor_results(path):
        return "anchor-results"
    if path.is_file() and share.is_pack(path):
        return "pack"
    if path.is_file() and path.suffix == ".jsonl" and lm_eval.looks_like_log(path):
        return "lm-eval"
    known = f"a folder with {routing_data.QUERIES}, a pack, samples_*.jsonl, {scope_dataset.RESULTS}"
    raise AssetError(f"{path}: unknown format (known: {known}); docs/fingerprints.md describes them")
