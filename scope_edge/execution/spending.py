"""What cloud models may be paid in a day and in a month, and what they were paid: enforced before a call, not after it.

A call is reserved at the most it may cost and settled at what it cost. Until then, and for good if its process dies before,
the whole reservation counts: nobody knows what the provider will bill for a call whose answer was lost. It counts for the day
and the month it was made in, which is also when it ends to count; a call over midnight belongs to the day it began on. Days
and months are those of this machine's calendar, in its own time zone.

Money is counted in whole micro-dollars, rounded up, so that a cap is never passed by sums of what was rounded away.
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

FOLDER, FILE = "ledger", "ledger.sqlite"
_MICRO = 1_000_000
# What a float can be off by after some sums: not a reason to round a whole number up.
_DUST = 1e-6
# A billion dollars: what is more is as good as unlimited, and thousands of them still fit SQLite's whole numbers.
_MOST = 10**15
_MEND = "move it away to begin with nothing spent"

# Format 1. What is here is never changed: see database.py.
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
class Reservation:
    """Money set aside for one call. usd_hi: at most; None = not known. id: None = nothing could be written down."""

    id: int | None
    model: str
    usd_hi: float | None


@dataclass(frozen=True, slots=True)
class Spending:
    """What a day or a month has cost, in US dollars.

    Attributes:
        first: its first day. spent: settled. reserved: for calls under way, or lost with their process; waiting: so many.
        cap: None = none. resets: the day it begins anew.
        calls: settled. unpriced: of these, those whose cost is not known, which are in no sum.
        models: model -> spent, the dearest first.
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
        """What may still be spent; None = there is no cap."""
        return None if self.cap is None else max(self.cap - self.spent - self.reserved, 0.0)


class Ledger(SqliteStore):
    """The user's spending, under some caps."""

    def __init__(self, max_usd_day: float | None = None, max_usd_month: float | None = None) -> None:
        """Caps in US dollars; None = no cap."""
        super().__init__(Database(assets.user_data_dir() / FOLDER / FILE, _STEPS, _MEND))
        self._caps: dict[Span, float | None] = {"day": max_usd_day, "month": max_usd_month}
        self.problem: str | None = None
        """Why the last call could not be written down, in one line; only without caps: with one it is refused."""

    @property
    def capped(self) -> bool:
        """Whether there is a cap: then every reservation must be the most that a call can cost."""
        return any(cap is not None for cap in self._caps.values())

    def reserve(self, usd_hi: float | None, model: str) -> Reservation:
        """Set aside what a call may cost at most; None or NaN = not known.

        Raises BudgetError when a cap would be passed, or there is one and the price is not known: then nothing may be called.
        Raises UsageError for less than nothing, and AssetError when a cap cannot be seen to.
        """
        micro = _micro(usd_hi)
        known = None if micro is None else usd_hi
        capped = self.capped
        if capped and micro is None:
            raise BudgetError(
                f"the price of {model} is not known, so {self._named()} cannot be kept; write usd_in and usd_out on its card"
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
            self.problem = f"what is spent is not written down: {error}"
            return Reservation(None, model, known)
        self.problem = None
        return Reservation(made.lastrowid, model, known)

    def settle(self, reservation: Reservation, usd: float | None) -> None:
        """The call is over and has cost so much; None or NaN = not known, then what was reserved is taken to be spent.

        What is settled or released already stays so. Raises UsageError for less than nothing, AssetError: it stays reserved.
        """
        micro = _micro(usd)
        if reservation.id is None:
            return
        with self._database.writing() as link:
            row = link.execute("SELECT day, model, micro FROM reserved WHERE id = ?", (reservation.id,)).fetchone()
            if row is None:
                return
            day, model, most = row
            link.execute("DELETE FROM reserved WHERE id = ?", (reservation.id,))
            _pay(link, day, model, most if micro is None else micro)

    def release(self, reservation: Reservation) -> None:
        """The call was not made, or is known to have cost nothing. Raises AssetError: it stays reserved."""
        if reservation.id is None:
            return
        with self._database.writing() as link:
            link.execute("DELETE FROM reserved WHERE id = ?", (reservation.id,))

    def spending(self) -> tuple[Spending, Spending]:
        """Today's and this month's. Raises AssetError."""
        today = datetime.now().date()
        spans: tuple[tuple[Span, date], ...] = (("day", today), ("month", today.replace(day=1)))
        if not self._database.path.exists():
            nothing = [
                Spending(span, first, _next(span, first), 0.0, 0.0, 0, self._caps[span], 0, 0, ())
                for span, first in spans
            ]
            return nothing[0], nothing[1]
        with self._database.reading() as link:
            found = [self._spending(link, span, first) for span, first in spans]
        return found[0], found[1]

    def _check(self, link: sqlite3.Connection, micro: int, model: str, today: date) -> None:
        """Raises BudgetError when so much more would pass a cap."""
        for span, cap in self._caps.items():
            limit = _limit(cap)
            if limit is None or micro == 0:
                continue
            first = _first(span, today)
            taken = _taken(link, first, _next(span, first))
            if taken + micro > limit:
                left = max(limit - taken, 0)
                raise BudgetError(
                    f"{model} may cost up to {_usd(micro)}, and of max_usd_{span} {_usd(limit)} there are"
                    f" {_usd(taken)} spent or reserved, {_usd(left)} left; raise it, or wait until {_next(span, first)} 0:00"
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

    def _named(self) -> str:
        return " and ".join(f"max_usd_{span}" for span, cap in self._caps.items() if cap is not None)


def _close_old(link: sqlite3.Connection, today: date) -> None:
    """Calls of before last month were lost: what was reserved for them is taken to be spent, then."""
    last_month = (today.replace(day=1) - timedelta(days=1)).replace(day=1).isoformat()
    for id, day, model, micro in link.execute("SELECT * FROM reserved WHERE day < ?", (last_month,)).fetchall():
        _pay(link, day, model, micro)
        link.execute("DELETE FROM reserved WHERE id = ?", (id,))


def _pay(link: sqlite3.Connection, day: str, model: str, micro: int | None) -> None:
    link.execute(_PAY, {"day": day, "model": model, "unpriced": micro is None, "micro": micro or 0})


def _taken(link: sqlite3.Connection, first: date, end: date) -> int:
    """Micro-dollars spent and reserved from a day on and before another."""
    total = 0
    for table in ("spent", "reserved"):
        days = (first.isoformat(), end.isoformat())
        ((found,),) = link.execute(f"SELECT coalesce(sum(micro), 0) FROM {table} WHERE {_WITHIN}", days).fetchall()
        total += int(found)
    return total


def _micro(usd: float | None) -> int | None:
    """Dollars as whole micro-dollars, rounded up; None for what is not known. Raises UsageError for less than nothing."""
    if usd is None or math.isnan(usd):
        return None
    if usd < 0:
        raise UsageError(f"a call cannot cost {usd:g} US dollars; give at least 0")
    return min(math.ceil(usd * _MICRO - _DUST), _MOST) if math.isfinite(usd) else _MOST


def _limit(cap: float | None) -> int | None:
    """A cap as whole micro-dollars, rounded down."""
    return None if cap is None else math.floor(cap * _MICRO + _DUST) if cap * _MICRO < _MOST else _MOST


def _first(span: Span, day: date) -> date:
    return day if span == "day" else day.replace(day=1)


def _next(span: Span, first: date) -> date:
    return first + timedelta(days=1) if span == "day" else (first + timedelta(days=32)).replace(day=1)


def _usd(micro: int) -> str:
    """To the micro-dollar, without zeros that say nothing beyond cents."""
    whole, cents, rest = micro // _MICRO, micro // 10_000 % 100, f"{micro % 10_000:04d}".rstrip("0")
    return f"${whole}.{cents:02d}{rest}"
