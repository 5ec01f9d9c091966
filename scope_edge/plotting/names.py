"""Names, shares and dollars as pictures and terminal text show them."""

from __future__ import annotations

import math
import unicodedata


def plain(name: str) -> str:
    """A name of unknown origin on one line, one column a character: all else is spelled out as an escape.

    That is what keeps a terminal's columns straight, and the font of the pictures has no wider characters anyway.
    """
    return "".join(char if _narrow(char) else char.encode("unicode_escape").decode("ascii") for char in name)


def _narrow(char: str) -> bool:
    return char.isprintable() and unicodedata.east_asian_width(char) not in "WF" and not unicodedata.combining(char)


def shortened(name: str, width: int) -> str:
    """`plain`, its middle left out where it has more than `width` characters: models differ at both ends."""
    text = plain(name)
    if len(text) <= width:
        return text
    tail = (width - 2) // 2
    return text[: width - 2 - tail] + ".." + text[-tail:]


def distinct(names: list[str], width: int) -> dict[str, str]:
    """Each name shortened; those that would then look alike are numbered."""
    shown: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        text, number = shortened(name, width), 2
        while text in taken:
            mark = f"#{number}"
            text, number = shortened(name, width - len(mark)) + mark, number + 1
        taken.add(text)
        shown[name] = text
    return shown


def percent(share: float) -> str:
    """0.7431 -> "74.3%"."""
    return f"{100 * share:.1f}%"


def dollars(usd: float | None) -> str:
    """US dollars to two digits or the cent; "free" for what costs nothing, "?" for what is not known."""
    if usd is None:
        return "?"
    if usd == 0:
        return "free"
    if usd >= 0.995:
        text = f"{usd:,.2f}" if usd < 99.5 else f"{usd:,.0f}"
        return "$" + text.removesuffix(".00")
    digits = max(1, 1 - math.floor(math.log10(usd)))
    return "$" + (f"{usd:.{digits}f}".rstrip("0") if usd >= 1e-6 else f"{usd:.0e}")
