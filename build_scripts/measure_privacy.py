"""Measure the privacy check: how many random keys it finds, and how many ordinary texts it takes for keys.

    python build_scripts/measure_privacy.py            # the table of docs/ask.md
    python build_scripts/measure_privacy.py --fit      # the table of letter pairs in policy/privacy.py
    python build_scripts/measure_privacy.py --speed    # seconds for hostile texts of one and two million characters

Keys, hashes and pictures are generated from a seed. Prose and code come from this repository and the standard library of the
running Python: the letter pairs are counted on one half of the files, and texts are drawn from the other. The figures of prose and
code change a little with the files.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import math
import random
import re
import string
import struct
import sysconfig
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from scope_edge.policy.privacy import private_parts

ROOT = Path(__file__).resolve().parents[1]
ALNUM = string.ascii_letters + string.digits
URLSAFE = ALNUM + "-_"
SAMPLES = 2000
SENTENCES = ("Use {} for the call.", "curl -H 'x-auth: {}' https://example.org/v1", 'config = ["{}"]', "{}")
# Said of no key: forms alone.
TOLD = ("password: {}", "my password is {}", 'API_KEY = "{}"', "Authorization: Bearer {}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fit", action="store_true", help="count letter pairs and print them")
    parser.add_argument("--speed", action="store_true", help="time hostile texts")
    parser.add_argument("--seed", type=int, default=15)
    options = parser.parse_args()
    if options.fit:
        print("\n".join(f'    "{row}",' for row in letter_pairs()))
    elif options.speed:
        for name, text in hostile().items():
            print(f"{name:24}", *(f"{seconds(text, size):7.3f}" for size in (1_000_000, 2_000_000)))
    else:
        table(random.Random(options.seed))


def table(draw: random.Random) -> None:
    print("| found | share |\n|---|---|")
    for name, make in keys(draw).items():
        print(f"| {name} | {share(make):.1%} |")
    print("\n| taken for a key or an address | share |\n|---|---|")
    for name, make in ordinary(draw).items():
        print(f"| {name} | {share(make):.2%} |")


def share(make: Callable[[], str]) -> float:
    return sum(bool(private_parts([make()])) for _ in range(SAMPLES)) / SAMPLES


def keys(draw: random.Random) -> dict[str, Callable[[], str]]:
    """Return generators of texts that hold a secret."""

    def of(alphabet: str, size: int) -> str:
        return "".join(draw.choices(alphabet, k=size))

    def within(make: Callable[[], str], frames: tuple[str, ...] = SENTENCES) -> Callable[[], str]:
        return lambda: draw.choice(frames).format(make())

    def named() -> str:
        prefix, size = draw.choice(
            (("sk-", 48), ("sk-proj-", 40), ("ghp_", 36), ("glpat-", 20), ("hf_", 34), ("npm_", 36))
        )
        return prefix + of(ALNUM, size)

    def address() -> str:
        name = of(string.ascii_lowercase, draw.randint(2, 9))
        host = draw.choice(
            (
                "example.com",
                "mail.example.co.uk",
                "bücher.example",
                "例え.テスト",
                "xn--bcher-kva.example",
                "post.xn--p1ai",
            )
        )
        return f"{name}@{host}"

    return {
        "prefixed keys (six makers)": within(named),
        "AWS secret keys (40 of base64)": within(lambda: of(ALNUM + "+/", 40)),
        "`token_urlsafe(32)` (43 characters)": within(lambda: of(URLSAFE, 43)),
        "64 letters and digits": within(lambda: of(ALNUM, 64)),
        "32 letters and digits": within(lambda: of(ALNUM, 32)),
        "24 letters and digits": within(lambda: of(ALNUM, 24)),
        "32 lower-case letters and digits": within(lambda: of(string.ascii_lowercase + string.digits, 32)),
        "32 of base32": within(lambda: of(string.ascii_uppercase + "234567", 32)),
        "32 lower-case letters": within(lambda: of(string.ascii_lowercase, 32)),
        '32 hex digits after a word such as "password:"': within(lambda: of("0123456789abcdef", 32), TOLD),
        "12 letters and digits after such a word": within(lambda: of(ALNUM, 12), TOLD),
        "32 hex digits alone": within(lambda: of("0123456789abcdef", 32)),
        "e-mail addresses (a third IDN or punycode)": within(address),
    }


def ordinary(draw: random.Random) -> dict[str, Callable[[], str]]:
    """Return generators of texts without a secret."""
    prose, code, library = (list(_parts(files)) for files in _files(1))
    digest: Callable[[], bytes] = lambda: hashlib.sha256(draw.randbytes(16)).digest()  # noqa: E731
    return {
        "paragraphs of this project's docs": lambda: draw.choice(prose),
        "40 lines of this project's code": lambda: draw.choice(code),
        "40 lines of Python's standard library": lambda: draw.choice(library),
        "UUIDs": lambda: f"id {uuid.UUID(int=draw.getrandbits(128))}",
        "hashes in hex (MD5, SHA-1, SHA-256)": lambda: f"commit {digest().hex()[: draw.choice((32, 40, 64))]}",
        "package checksums (`sha512-...`)": lambda: f'"integrity": "sha512-{base64.b64encode(digest() * 2).decode()}"',
        "pictures as data URIs": lambda: f"![]({_picture(draw)})",
        "pictures in base64, wrapped at 76": lambda: base64.encodebytes(_png(draw)).decode(),
        "SHA-256 in base64 (44 characters)": lambda: base64.b64encode(digest()).decode(),
    }


def _files(half: int) -> tuple[list[Path], list[Path], list[Path]]:
    """Return the docs, this project's code and the standard library: of each the half whose names' checksums say so."""
    library = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    places = sorted(ROOT.glob("docs/*.md")), sorted(ROOT.glob("scope_edge/**/*.py")), library
    docs, code, rest = ([file for file in files if zlib.crc32(file.name.encode()) % 2 == half] for files in places)
    return docs, code, rest


def _parts(files: list[Path]) -> Iterator[str]:
    for file in files:
        text = file.read_text("utf-8", "replace")
        if file.suffix == ".md":
            yield from (part for part in text.split("\n\n") if part.strip())
        else:
            lines = text.split("\n")
            yield from ("\n".join(lines[at : at + 40]) for at in range(0, len(lines), 40))


def _png(draw: random.Random) -> bytes:
    """Return a small picture of noise."""
    side = draw.randint(16, 64)
    rows = b"".join(b"\0" + draw.randbytes(3 * side) for _ in range(side))
    blocks = (
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in blocks
    )


def _picture(draw: random.Random) -> str:
    return "data:image/png;base64," + base64.b64encode(_png(draw)).decode()


def letter_pairs() -> list[str]:
    """Return the bits of the second letter of each pair in words and identifiers, a row for each first letter."""
    text = "\n".join(file.read_text("utf-8", "replace") for files in _files(0) for file in files)
    words = Counter(re.findall(r"[A-Za-z]{3,}", text))
    counts = [[1.0] * 26 for _ in range(26)]
    for word, times in words.items():
        for one, other in zip(word.lower(), word.lower()[1:], strict=False):
            # Between the number of words that have the pair and that of its uses.
            counts[ord(one) - 97][ord(other) - 97] += math.sqrt(times)
    bits = ([round(-math.log2(count / sum(row))) for count in row] for row in counts)
    return ["".join(chr(ord("0") + min(one, 12)) for one in row) for row in bits]


def hostile() -> dict[str, str]:
    """Return texts, to be repeated, at which a careless expression takes quadratic time."""
    pieces = (
        "sk-a-",
        "eyJ-",
        "a@",
        "a.b@c.",
        "@a.",
        "-----BEGIN ",
        "token",
        "token=",
        "x://a:",
        "x" * 61 + "\n",
        "ab1",
        "\\u0040",
        "&#64;",
        "%40",
    )
    return {piece.strip()[:12]: piece for piece in pieces}


def seconds(piece: str, size: int) -> float:
    text = piece * (size // len(piece))
    began = time.perf_counter()
    private_parts([text])
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
