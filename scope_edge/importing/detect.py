"""Which format a path has, by its content; and its import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scope_edge.errors import AssetError, UsageError
from scope_edge.importing import routing_data

if TYPE_CHECKING:
    from scope_edge.importing.keeping import Progress
    from scope_edge.importing.outcomes import Imported


def import_path(
    path: Path,
    kind: str | None = None,
    name: str | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Imported:
    """Import a path of a known format, by default the one its content shows.

    Raises UsageError (no such path, a format that is not known), and what the format's import raises.
    """
    path = path.expanduser()
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    found = kind or detect(path)
    if found == "routing-data":
        return routing_data.import_routing_data(path, name, limit, progress)
    raise UsageError(f"{found!r} is not a format that can be imported")


def detect(path: Path) -> str:
    """The name of the format. Raises AssetError when it is none that is known."""
    if (path / routing_data.QUERIES).is_file():
        return "routing-data"
    raise AssetError(
        f"{path}: of no known format (a folder with {routing_data.QUERIES}); docs/fingerprints.md names them"
    )
