"""Moments on the command line: a date, a time, or how long ago."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import click

from scope_edge.cli.options import AnyParamType
from scope_edge.errors import UsageError

_AGO = re.compile(r"(\d{1,6})([hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
ALLOWED = "a date as in 2026-01-31, or an age as in 12h, 30d or 8w"


class Moment(AnyParamType):
    """A moment in this machine's time zone."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The moment. Raises UsageError."""
        if isinstance(value, datetime):
            return value
        named = param.opts[0] if param is not None else "the moment"
        try:
            if found := _AGO.fullmatch(value.strip().lower()):
                return datetime.now().astimezone() - int(found[1]) * _UNITS[found[2]]
            return datetime.fromisoformat(value.strip()).astimezone()
        except (ValueError, OverflowError, OSError) as error:
            raise UsageError(f"{named} must be {ALLOWED}, not {value[:60]!r}") from error
