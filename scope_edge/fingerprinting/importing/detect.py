"""Which format a path has, by its content; and its import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scope_edge.errors import AssetError, UsageError
from scope_edge.fingerprinting.importing import anchor_results, lm_eval, routing_data, share
from scope_edge.fingerprinting.importing.routing_data import QUERIES, is_labelled

if TYPE_CHECKING:
    from scope_edge.fingerprinting.importing.naming import Cards
    from scope_edge.fingerprinting.importing.outcomes import Imported, Progress


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to import; None = by default.

    Attributes:
        kind: the format. name: of the anchor set. limit: anchors at most.
        model: whose outcomes a sample log or anchor_results.json holds.
        replace: whether outcomes of the same model that are here may be replaced by those in a pack or anchor_results.json.
    """

    kind: str | None = None
    name: str | None = None
    limit: int | None = None
    model: str | None = None
    replace: bool = False


def import_path(
    path: Path, wishes: ImportOptions, cards: Cards, progress: Progress | None = None
) -> tuple[Imported, str | None]:
    """Import a path of a known format, by default the one its content shows; with it the sha256 of a pack's file.

    Raises UsageError (no such path, a wish that the format does not know), and what the format's import raises.
    """
    path = path.expanduser()
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    kind = wishes.kind or detect(path)
    if kind == "pack":
        if (wishes.name, wishes.limit, wishes.model) != (None, None, None):
            raise UsageError(f"{path}: a pack brings its own names and anchors; leave out --name, --limit and --model")
        return share.import_pack(path, cards, replace_own=wishes.replace)
    if kind == "anchor-results":
        if wishes.limit is not None:
            raise UsageError(f"{path}: these anchors are here already; leave out --limit")
        done = anchor_results.import_anchor_results(path, cards, wishes.model, wishes.name, replace_own=wishes.replace)
        return done, None
    if wishes.model is not None and kind != "lm-eval":
        raise UsageError(f"{path}: {kind} says whose outcomes these are; leave out --model")
    if wishes.replace:
        raise UsageError(
            f"{path}: --replace is for packs and {anchor_results.FILE}; {kind} replaces its outcomes anyway"
        )
    if kind == "lm-eval":
        return lm_eval.import_lm_eval(path, cards, wishes.model, wishes.name, wishes.limit, progress), None
    return routing_data.import_routing_data(path, cards, wishes.name, wishes.limit, progress), None


def detect(path: Path) -> str:
    """The name of the format. Raises AssetError when it is none that is known."""
    if is_labelled(path):
        return "routing-data"
    if anchor_results.looks_like_results(path):
        return "anchor-results"
    if path.is_file() and share.is_pack(path):
        return "pack"
    if path.is_file() and path.suffix == ".jsonl" and lm_eval.looks_like_log(path):
        return "lm-eval"
    known = f"a folder with {QUERIES}, a pack, samples_*.jsonl, {anchor_results.FILE}"
    raise AssetError(f"{path}: of no known format ({known}); docs/fingerprints.md names them")
