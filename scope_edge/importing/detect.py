"""Which format a path has, by its content; and its import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scope_edge.errors import AssetError, UsageError
from scope_edge.importing import lm_eval, routing_data, share

if TYPE_CHECKING:
    from scope_edge.importing.keeping import Progress
    from scope_edge.importing.outcomes import Imported


@dataclass(frozen=True, slots=True)
class Wishes:
    """How to import; None = by default.

    Attributes:
        kind: the format. name: of the anchor set. limit: anchors at most.
        model: whose outcomes a sample log holds.
        replace: whether outcomes of the same model that are here may be replaced by those in a pack.
    """

    kind: str | None = None
    name: str | None = None
    limit: int | None = None
    model: str | None = None
    replace: bool = False


def import_path(path: Path, wishes: Wishes, progress: Progress | None = None) -> tuple[Imported, str | None]:
    """Import a path of a known format, by default the one its content shows; of a pack also its sha256, hex.

    Raises UsageError (no such path, a wish that the format does not know), and what the format's import raises.
    """
    path = path.expanduser()
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    kind = wishes.kind or detect(path)
    if kind == "pack":
        if (wishes.name, wishes.limit, wishes.model) != (None, None, None):
            raise UsageError(f"{path}: a pack brings its own names and anchors; leave out --name, --limit and --model")
        return share.import_pack(path, replace_own=wishes.replace)
    if wishes.model is not None and kind != "lm-eval":
        raise UsageError(f"{path}: {kind} says whose outcomes these are; leave out --model")
    if wishes.replace:
        raise UsageError(f"{path}: --replace is for packs; {kind} replaces its outcomes anyway")
    if kind == "lm-eval":
        return lm_eval.import_lm_eval(path, wishes.model, wishes.name, wishes.limit, progress), None
    return routing_data.import_routing_data(path, wishes.name, wishes.limit, progress), None


def detect(path: Path) -> str:
    """The name of the format. Raises AssetError when it is none that is known."""
    if (path / routing_data.QUERIES).is_file():
        return "routing-data"
    if path.is_file() and share.is_pack(path):
        return "pack"
    if path.is_file() and path.suffix == ".jsonl" and lm_eval.looks_like_log(path):
        return "lm-eval"
    raise AssetError(
        f"{path}: of no known format (a folder with {routing_data.QUERIES}, a pack, samples_*.jsonl); docs/fingerprints.md names them"
    )
