"""Make the wheel smaller without changing a file in it: hatchling runs this on every wheel that it has built.

zlib's usual strategy looks for repeated bytes, and tables of numbers have none worth finding: codes alone, or nearly alone, make the
largest of them 5 % smaller. `zipfile` has no choice of strategy, so the container is written here (PKWARE's APPNOTE, 4.3).
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY)
_VERSION, _UNIX, _UTF_8 = 20, 3, 0x800


class PackWheel(BuildHookInterface):  # type: ignore[type-arg]
    """Pack a finished wheel anew."""

    PLUGIN_NAME = "custom"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Replace the wheel by a smaller one with the same files."""
        if version == "standard":
            repack(Path(artifact_path))


def repack(wheel: Path) -> None:
    """Write a zip file again, each file of it by the strategy that suits it best."""
    with zipfile.ZipFile(wheel) as source:
        parts = [(info, _packed(source.read(info))) for info in source.infolist()]
    body, directory = bytearray(), bytearray()
    for info, packed in parts:
        name = info.filename.encode()
        year, month, day, hour, minute, second = info.date_time
        facts = struct.pack(
            "<HHHHHLLLHH",
            _VERSION,
            0 if name.isascii() else _UTF_8,
            zipfile.ZIP_DEFLATED,
            hour << 11 | minute << 5 | second // 2,
            (year - 1980) << 9 | month << 5 | day,
            info.CRC,
            len(packed),
            info.file_size,
            len(name),
            0,
        )
        attributes = struct.pack("<HHHLL", 0, 0, 0, info.external_attr, len(body))
        directory += b"PK\1\2" + struct.pack("<BB", _VERSION, _UNIX) + facts + attributes + name
        body += b"PK\3\4" + facts + name + packed
    end = struct.pack("<HHHHLLH", 0, 0, len(parts), len(parts), len(directory), len(body), 0)
    wheel.write_bytes(body + directory + b"PK\5\6" + end)


def _packed(content: bytes) -> bytes:
    return min((_deflated(content, strategy) for strategy in _STRATEGIES), key=len)


def _deflated(content: bytes, strategy: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, strategy)
    return packer.compress(content) + packer.flush()
