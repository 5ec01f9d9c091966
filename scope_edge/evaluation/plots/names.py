"""Names, shares and dollars as pictures and terminal text show them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from itertools import takewhile


def plain(name: str) -> str:
    """Escape all characters that are not printable or not one column wide, such as line breaks and wide letters.

    This keeps a terminal's columns straight, and the pictures' font has no wider characters.
    """

    def narrow(char: str) -> bool:
        return char.isprintable() and unicodedata.east_asian_width(char) not in "WF" and not unicodedata.combining(char)

    return "".join(char if narrow(char) else char.encode("unicode_escape").decode("ascii") for char in name)


def shortened(name: str, width: int) -> str:
    """Return `plain`, with dots for its middle beyond `width` characters: models differ at both ends."""
    text = plain(name)
    if len(text) <= width:
        return text
    tail = (width - 2) // 2
    return text[: width - 2 - tail] + ".." + text[-tail:]


def distinct(names: Sequence[str], width: int) -> dict[str, str]:
    """Shorten names so that no two look alike: common beginnings are left out, and numbers tell the rest apart."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(shortened(name, width), []).append(name)
    shown: dict[str, str] = {}
    taken: set[str] = set()
    for text, group in alike.items():
        for name in group:
            short, number = text if len(group) == 1 else _without_common(name, group, width), 2
            while short in taken:
                mark = f"#{number}"
                short, number = shortened(name, width - len(mark)) + mark, number + 1
            taken.add(short)
            shown[name] = short
    return shown


def _without_common(name: str, group: Sequence[str], width: int) -> str:
    columns = zip(*map(plain, group), strict=False)
    common = [chars[0] for chars in takewhile(lambda chars: len(set(chars)) == 1, columns)]
    rest = ".." + plain(name)[1 + "".join(common).rfind("-") :]
    return rest if len(rest) <= width else rest[: width - 2] + ".."


def percent(share: float) -> str:
    """Return a share as text: 0.7431 -> "74.3%"."""
    return f"{100 * share:.1f}%"


def dollars(usd: float | None) -> str:
    """Return US dollars to two digits or the cent; "free" for 0, "?" for an unknown cost."""
    if usd is None:
        return "?"
    if usd == 0:
        return "free"
    if usd >= 0.995:
        text = f"{usd:,.2f}" if usd < 99.5 else f"{usd:,.0f}"
        return "$" + text.removesuffix(".00")
    if usd < 1e-6:
        return f"${usd:.0e}"
    text = f"{usd:.{1 - math.floor(math.log10(usd))}f}".rstrip("0")
    return "$" + text.ljust(len("0.00"), "0")
