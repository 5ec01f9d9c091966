"""Spending on cloud models, with caps for a day and a month that are enforced before a call.

The most that a call may cost is reserved before it, and its cost is settled after it. Until then, and for good if its process
dies before, the whole reservation counts: a provider may bill a call whose answer was lost. A call counts for the day and the
month in which it began, by this machine's calendar and time zone.

Money is counted in whole micro-dollars, rounded up, so that rounding never lets spending pass a cap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from scope_edge.errors import AssetError, BudgetError, UsageError
from scope_edge.storage import assets
from scope_edge.storage.sqlite import Database, SqliteStore

if TYPE_CHECKING:
    import sqlite3

    Span = Literal["day", "month"]

_MICRO = 1_000_000
# The error of a float after some sums, which must not round a whole number up.
_DUST = 1e-6
# A billion dollars. More is as good as unlimited, and thousands of them still fit SQLite's whole numbers.
_MOST = 10**15
_MEND = "move it away to begin with nothing spent"

# Format 1. These steps are never changed: see storage/sqlite.py.
_STEPS = (
    (
        """CREATE TABLE spent (
            day TEXT NOT NULL,
            model TEXT NOT NULL,
            calls INTEGER NOT NULL,
            unpriced INTEGER NOT NULL,
            micro INTEGER NOT NULL,
            PRIMARY KEY (day, model)
        ) WITHOUT ROWID""",
        "CREATE TABLE reserved (id INTEGER PRIMARY KEY AUTOINCREMENT, day TEXT NOT NULL, model TEXT NOT NULL, micro INTEGER)",
        "CREATE INDEX reserved_by_day ON reserved (day)",
    ),
)
_PAY = """INSERT INTO spent VALUES (:day, :model, 1, :unpriced, :micro) ON CONFLICT (day, model)
    DO UPDATE SET calls = calls + 1, unpriced = unpriced + excluded.unpriced, micro = micro + excluded.micro"""

_WITHIN = "day >= ? AND day < ?"


@dataclass(frozen=True, slots=True)
class Spending:
    """The spending of a day or a month, in US dollars.

    Attributes:
        first: its first day. resets: the first day of the next. cap: None = unset.
        spent: settled. reserved: for calls under way, or lost with their process; waiting: their number.
        calls: settled. unpriced: of these, those of unknown cost, which are in no sum.
        models: (model, spent), the most expensive first.
    """

    span: Span
    first: date
    resets: date
    spent: float
    reserved: float
    waiting: int
    cap: float | None
    calls: int
    unpriced: int
    models: tuple[tuple[str, float], ...]

    @property
    def left(self) -> float | None:
        """What may still be spent; None = no cap."""
        return None if self.cap is None else max(self.cap - self.spent - self.reserved, 0.0)


class Ledger(SqliteStore):
    """The user's spending. problem: why the last call could not be recorded, in one line; only without caps."""

    def __init__(self, max_usd_day: float | None = None, max_usd_month: float | None = None) -> None:
        """Caps in US dollars; None = no cap."""
        super().__init__(Database(assets.user_data_dir() / "ledger" / "ledger.sqlite", _STEPS, _MEND))
        self._caps: dict[Span, float | None] = {"day": max_usd_day, "month": max_usd_month}
        self.problem: str | None = None

    @property
    def capped(self) -> bool:
        """Whether a cap is set: then every reservation must be the most that a call can cost."""
        return any(cap is not None for cap in self._caps.values())

    def reserve(self, usd_hi: float | None, model: str) -> int | None:
        """Set aside the most that a call may cost; None or NaN = unknown. Return the reservation; None = it is not recorded.

        Raises BudgetError (a cap would be passed, or a cap is set and the price is unknown), UsageError (a negative amount),
        AssetError (a cap is set, and the ledger cannot be read or written).
        """
        micro, capped = _micro(usd_hi), self.capped
        if capped and micro is None:
            caps = " and ".join(f"max_usd_{span}" for span, cap in self._caps.items() if cap is not None)
            raise BudgetError(
                f"the price of {model} is unknown, so {caps} cannot be kept; write usd_in and usd_out on its card"
            )
        try:
            # A reservation that a power failure takes back would leave a call uncounted.
            with self._database.writing(durable=capped) as link:
                today = datetime.now().date()
                _close_old(link, today)
                self._check(link, micro or 0, model, today)
                row = (today.isoformat(), model, micro)
                made = link.execute("INSERT INTO reserved (day, model, micro) VALUES (?, ?, ?)", row)
        except AssetError as error:
            if capped:
                raise
            self.problem = f"spending is not recorded: {error}"
            return None
        self.problem = None
        return made.lastrowid

    def settle(self, reservation: int | None, usd: float | None) -> None:
        """Record what a call has cost; None or NaN = unknown, then the whole reservation counts as spent.

        A reservation that was settled or released stays so. Raises UsageError (a negative amount), AssetError: it stays reserved.
        """
        micro = _micro(usd)
        if reservation is None:
            return
        with self._database.writing() as link:
            row = link.execute("SELECT day, model, micro FROM reserved WHERE id = ?", (reservation,)).fetchone()
            if row is None:
                return
            day, model, most = row
            link.execute("DELETE FROM reserved WHERE id = ?", (reservation,))
            _pay(link, day, model, most if micro is None else micro)

    def release(self, reservation: int | None) -> None:
        """Drop the reservation of a call that was not made, or has cost nothing. Raises AssetError: it stays reserved."""
        if reservation is None:
            return
        with self._database.writing() as link:
            link.execute("DELETE FROM reserved WHERE id = ?", (reservation,))

    def spending(self) -> tuple[Spending, Spending]:
        """Return today's and this month's spending. Raises AssetError."""
        today = datetime.now().date()
        spans: tuple[tuple[Span, date], ...] = (("day", today), ("month", today.replace(day=1)))
        if not self._database.path.exists():
            found = [
                Spending(span, first, _next(span, first), 0.0, 0.0, 0, self._caps[span], 0, 0, ())
                for span, first in spans
            ]
        else:
            with self._database.reading() as link:
                found = [self._spending(link, span, first) for span, first in spans]
        return found[0], found[1]

    def _check(self, link: sqlite3.Connection, micro: int, model: str, today: date) -> None:
        """Raises BudgetError: this amount would pass a cap."""
        for span, cap in self._caps.items():
            limit = _limit(cap)
            if limit is None or micro == 0:
                continue
            first = today if span == "day" else today.replace(day=1)
            taken = _taken(link, first, _next(span, first))
            if taken + micro > limit:
                left = max(limit - taken, 0)
                raise BudgetError(
                    f"{model} may cost up to {_usd(micro)}, and of max_usd_{span} {_usd(limit)} there are"
                    f" {_usd(taken)} spent or reserved, {_usd(left)} left; raise it, or wait until {_next(span, first)} 00:00"
                )

    def _spending(self, link: sqlite3.Connection, span: Span, first: date) -> Spending:
        days = (first.isoformat(), _next(span, first).isoformat())
        rows = link.execute(
            f"SELECT model, sum(calls), sum(unpriced), sum(micro) FROM spent WHERE {_WITHIN} GROUP BY model", days
        ).fetchall()
        ((reserved, waiting),) = link.execute(
            f"SELECT total(micro), count(*) FROM reserved WHERE {_WITHIN}", days
        ).fetchall()
        models = sorted(((model, micro / _MICRO) for model, _, _, micro in rows), key=lambda pair: (-pair[1], pair[0]))
        return Spending(
            span=span,
            first=first,
            resets=_next(span, first),
            spent=sum(row[3] for row in rows) / _MICRO,
            reserved=reserved / _MICRO,
            waiting=waiting,
            cap=self._caps[span],
            calls=sum(row[1] for row in rows),
            unpriced=sum(row[2] for row in rows),
            models=tuple(models),
        )


def _close_old(link: sqlite3.Connection, today: date) -> None:
    """Settle calls from before last month, which were lost, at their reservations."""
    last_month = (today.replace(day=1) - timedelta(days=1)).replace(day=1).isoformat()
    for id, day, model, micro in link.execute("SELECT * FROM reserved WHERE day < ?", (last_month,)).fetchall():
        _pay(link, day, model, micro)
        link.execute("DELETE FROM reserved WHERE id = ?", (id,))


def _pay(link: sqlite3.Connection, day: str, model: str, micro: int | None) -> None:
    link.execute(_PAY, {"day": day, "model": model, "unpriced": micro is None, "micro": micro or 0})


def _taken(link: sqlite3.Connection, first: date, end: date) -> int:
    """Return the micro-dollars spent and reserved from a day on and before another."""
    query = " UNION ALL ".join(f"SELECT micro FROM {table} WHERE {_WITHIN}" for table in ("spent", "reserved"))
    days = (first.isoformat(), end.isoformat())
    ((total,),) = link.execute(f"SELECT coalesce(sum(micro), 0) FROM ({query})", days * 2).fetchall()
    return int(total)


def _micro(usd: float | None) -> int | None:
    """Return dollars as whole micro-dollars, rounded up; None = unknown. Raises UsageError: they are negative."""
    if usd is None or math.isnan(usd):
        return None
    if usd < 0:
        raise UsageError(f"a call cannot cost {usd:g} US dollars; give at least 0")
    return min(math.ceil(usd * _MICRO - _DUST), _MOST) if math.isfinite(usd) else _MOST


def _limit(cap: float | None) -> int | None:
    """Return a cap as whole micro-dollars, rounded down."""
    return None if cap is None else math.floor(cap * _MICRO + _DUST) if cap * _MICRO < _MOST else _MOST


def _next(span: Span, first: date) -> date:
    return first + timedelta(days=1) if span == "day" else (first + timedelta(days=32)).replace(day=1)


def _usd(micro: int) -> str:
    """Format an amount to the micro-dollar, without trailing zeros after the cents."""
    whole, cents, rest = micro // _MICRO, micro // 10_000 % 100, f"{micro % 10_000:04d}".rstrip("0")
    return f"${whole}.{cents:02d}{rest}"
