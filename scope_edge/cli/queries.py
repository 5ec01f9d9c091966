"""Queries without labels, out of a file: one a line, as plain text or as `route --jsonl` reads them."""

from __future__ import annotations

from collections.abc import Iterator

from scope_edge.checks import suggestion
from scope_edge.cli.inputs import LineReader, decoded, opened
from scope_edge.cli.lines import KEYS, MAX_LINE_BYTES, parse_line
from scope_edge.errors import UsageError
from scope_edge.records import Query
from scope_edge.router import check_query


def read_queries(path: str) -> Iterator[Query]:
    """The queries of a file, or of standard input for "-". A line that begins with { is a JSON object, whose "text" and
    "system" count; of its other keys nothing does. Blank lines are skipped.

    Raises UsageError, naming the line that cannot be used: a query left out would change what is found without a sign.
    """
    with opened(path) as (file, name):
        for number, raw in LineReader(file, name, MAX_LINE_BYTES):
            try:
                query = _query(raw)
            except UsageError as error:
                raise UsageError(f"{name}, line {number}: {error}") from error
            if query is not None:
                yield query


def _query(raw: bytes | None) -> Query | None:
    if raw is None:
        raise UsageError(f"longer than the {MAX_LINE_BYTES} bytes a line may have")
    text = decoded(raw, "the line").strip()
    if not text:
        return None
    query = Query(text)
    if text.startswith("{"):
        query = _from_object(raw)
    check_query(query)
    return query


def _from_object(raw: bytes) -> Query:
    fields = parse_line(raw)
    for key in fields:
        if key not in KEYS:
            raise UsageError(f"{key!r} is not a key of a line{suggestion(key, KEYS)}; the keys are {', '.join(KEYS)}")
    text, system = fields.get("text"), fields.get("system")
    if not isinstance(text, str):
        raise UsageError('a line needs a "text", which is a string')
    if system is not None and not isinstance(system, str):
        raise UsageError("system must be a string")
    return Query(text, system=system)
