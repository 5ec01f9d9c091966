"""The ledger: no cap is ever passed, whoever spends at once and however they end; what is spent is counted to the micro-dollar."""

from __future__ import annotations

import random
import signal
import stat
import subprocess
import sys
import threading
from datetime import date, datetime
from pathlib import Path

import pytest

from scope_edge.errors import AssetError, BudgetError, UsageError
from scope_edge.execution import spending as room
from scope_edge.execution.spending import Ledger
from scope_edge.factory import open_ledger
from scope_edge.settings.config import Settings

MODEL = "a-model"


@pytest.fixture(autouse=True)
def file(own_folders: Path) -> Path:
    return own_folders / "data" / "ledger" / "ledger.sqlite"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """The time it is, for the ledger: change its one element."""
    now = [datetime(2026, 11, 30, 23, 59)]

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return now[0]

    monkeypatch.setattr(room, "datetime", Clock)
    return now


def open_(day: float | None = None, month: float | None = None) -> Ledger:
    return open_ledger(Settings(max_usd_day=day, max_usd_month=month))


def totals(ledger: Ledger) -> list[tuple[float, float, int]]:
    return [(span.spent, span.reserved, span.calls) for span in ledger.spending()]


def test_a_call_is_reserved_at_most_and_settled_at_what_it_cost() -> None:
    ledger = open_(day=1.0)
    one = ledger.reserve(0.4, MODEL)
    assert totals(ledger) == [(0.0, 0.4, 0)] * 2
    ledger.settle(one, 0.1)
    assert totals(ledger) == [(0.1, 0.0, 1)] * 2
    ledger.release(ledger.reserve(0.9, MODEL))
    assert totals(ledger) == [(0.1, 0.0, 1)] * 2
    day, month = ledger.spending()
    assert (day.cap, day.left, month.cap, month.left) == (1.0, 0.9, None, None)
    assert day.models == month.models == ((MODEL, 0.1),)


def test_a_cap_is_kept_before_the_call_and_the_error_says_all_there_is_to_say(clock: list[datetime]) -> None:
    ledger = open_(day=1.0, month=1.5)
    ledger.settle(ledger.reserve(0.5, MODEL), 0.5)
    ledger.reserve(0.43, MODEL)
    with pytest.raises(BudgetError) as error:
        ledger.reserve(0.0701, MODEL)
    assert str(error.value) == (
        "a-model may cost up to $0.0701, and of max_usd_day $1.00 there are $0.93 spent or reserved, $0.07 left;"
        " raise it, or wait until 2026-12-01 00:00"
    )
    assert error.value.exit_code == 3
    assert totals(ledger)[0] == (0.5, 0.43, 1), "what was refused is not reserved"
    ledger.reserve(0.07, MODEL)
    clock[0] = datetime(2026, 11, 29, 12, 0)
    with pytest.raises(BudgetError, match=r"max_usd_month \$1\.50 .* wait until 2026-12-01 00:00"):
        ledger.reserve(0.6, MODEL)


def test_the_month_is_capped_too(clock: list[datetime]) -> None:
    ledger = open_(month=1.0)
    clock[0] = datetime(2026, 12, 3, 9, 0)
    ledger.settle(ledger.reserve(0.8, MODEL), 0.8)
    clock[0] = datetime(2026, 12, 31, 9, 0)
    with pytest.raises(BudgetError, match=r"max_usd_month \$1\.00 .* \$0\.20 left; .* wait until 2027-01-01 00:00"):
        ledger.reserve(0.3, MODEL)
    clock[0] = datetime(2027, 1, 1, 0, 0)
    assert ledger.reserve(1.0, MODEL) is not None


def test_a_call_over_midnight_belongs_to_the_day_it_began_on(clock: list[datetime]) -> None:
    ledger = open_(day=1.0)
    one = ledger.reserve(0.9, MODEL)
    clock[0] = datetime(2026, 12, 1, 0, 1)
    assert totals(ledger) == [(0.0, 0.0, 0)] * 2
    ledger.settle(one, 0.9)
    assert totals(ledger) == [(0.0, 0.0, 0)] * 2
    clock[0] = datetime(2026, 11, 30, 23, 59)
    assert totals(ledger) == [(0.9, 0.0, 1)] * 2


def test_an_unknown_price_is_refused_where_there_is_a_cap_and_counted_where_there_is_none() -> None:
    for unknown in (None, float("nan")):
        for capped in (open_(day=1.0), open_(month=1.0)):
            with pytest.raises(BudgetError, match="the price of a-model is unknown, so max_usd_"):
                capped.reserve(unknown, MODEL)
    ledger = open_()
    ledger.settle(ledger.reserve(None, MODEL), None)
    day, _ = ledger.spending()
    assert (day.spent, day.calls, day.unpriced) == (0.0, 1, 1)


def test_a_cost_that_is_not_known_afterwards_counts_in_full() -> None:
    ledger = open_(day=1.0)
    ledger.settle(ledger.reserve(0.25, MODEL), None)
    ledger.settle(ledger.reserve(0.25, MODEL), float("nan"))
    assert totals(ledger)[0] == (0.5, 0.0, 2)


def test_it_settles_once_whatever_is_said_later() -> None:
    ledger = open_(day=1.0)
    one = ledger.reserve(0.4, MODEL)
    ledger.settle(one, 0.3)
    ledger.settle(one, 0.4)
    ledger.release(one)
    assert totals(ledger)[0] == (0.3, 0.0, 1)
    ledger.settle(ledger.reserve(0.1, MODEL), 0.2)
    assert totals(ledger)[0] == (0.5, 0.0, 2), "what came dearer than was promised is counted as it came"


def test_money_is_whole_micro_dollars_rounded_up_and_sums_are_exact() -> None:
    ledger = open_(day=10.0)
    for _ in range(10):
        ledger.settle(ledger.reserve(0.1, MODEL), 0.1)
    assert totals(ledger)[0][0] == 1.0
    ledger.settle(ledger.reserve(1e-9, MODEL), 1e-9)
    assert totals(ledger)[0][0] == 1.000001
    ledger.settle(ledger.reserve(4.6000000000000004e-05, MODEL), 4.6000000000000004e-05)
    assert totals(ledger)[0][0] == 1.000047


def test_a_cap_of_nothing_lets_only_free_calls_through() -> None:
    ledger = open_(day=0.0)
    assert ledger.reserve(0.0, MODEL) is not None
    with pytest.raises(BudgetError):
        ledger.reserve(1e-9, MODEL)


@pytest.mark.parametrize("huge", [1e12, 1e300, float("inf")])
def test_no_amount_is_too_large_to_count(huge: float) -> None:
    ledger = open_()
    for _ in range(3):
        ledger.reserve(huge, MODEL)
    assert ledger.spending()[0].reserved >= 1e9
    with pytest.raises(BudgetError):
        open_(day=1e308).reserve(huge, MODEL)


def test_less_than_nothing_is_refused() -> None:
    ledger = open_(day=1.0)
    with pytest.raises(UsageError, match="cannot cost -1"):
        ledger.reserve(-1.0, MODEL)
    one = ledger.reserve(0.5, MODEL)
    with pytest.raises(UsageError):
        ledger.settle(one, -0.5)
    assert totals(ledger)[0] == (0.0, 0.5, 0)


SPENDER = """
import random, sys
from scope_edge.factory import open_ledger
from scope_edge.settings.config import Settings
from scope_edge.errors import BudgetError
ledger, chance, refused = open_ledger(Settings(max_usd_day=0.5)), random.Random(sys.argv[1]), 0
ledger._database._patience = 60
paid = 0
for _ in range(60):
    try:
        one = ledger.reserve(0.004, "m")
    except BudgetError:
        refused += 1
        continue
    micro = chance.randrange(0, 4001)
    if micro % 5:
        ledger.settle(one, micro / 1e6)
        paid += micro
    else:
        ledger.release(one)
print(paid, refused)
"""


@pytest.mark.long
def test_many_processes_never_pass_the_cap_and_every_micro_dollar_is_there() -> None:
    spenders = [
        subprocess.Popen([sys.executable, "-c", SPENDER, str(seed)], stdout=subprocess.PIPE, text=True)
        for seed in range(6)
    ]
    ends = [one.communicate()[0].split() for one in spenders]
    assert [one.returncode for one in spenders] == [0] * 6
    day, _ = open_(day=0.5).spending()
    assert round(day.spent * 1e6) == sum(int(paid) for paid, _ in ends)
    assert day.spent <= 0.5 and day.reserved == 0.0
    assert sum(int(refused) for _, refused in ends) > 0, "the cap was never met: nothing was proven"


def test_threads_share_one() -> None:
    ledger, refused = open_(day=0.1), []

    def spend(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(30):
            try:
                ledger.settle(ledger.reserve(0.001, MODEL), chance.randrange(500, 1001) / 1e6)
            except BudgetError:
                refused.append(seed)

    threads = [threading.Thread(target=spend, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    day, _ = ledger.spending()
    assert 0.099 < day.spent <= 0.1 and day.calls == 240 - len(refused)


HOLDER = """
import sys, time
from scope_edge.factory import open_ledger
from scope_edge.settings.config import Settings
ledger = open_ledger(Settings(max_usd_day=1.0))
ledger.settle(ledger.reserve(0.2, "m"), 0.1)
ledger.reserve(0.6, "m")
print("reserved", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_what_a_killed_process_had_reserved_counts_in_full_until_its_day_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "reserved\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    ledger = open_(day=1.0)
    day, _ = ledger.spending()
    assert (day.spent, day.reserved, day.waiting) == (0.1, 0.6, 1)
    with pytest.raises(BudgetError, match=r"\$0\.70 spent or reserved, \$0\.30 left"):
        ledger.reserve(0.31, MODEL)
    tomorrow = datetime.combine(day.resets, datetime.min.time())

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return tomorrow

    monkeypatch.setattr(room, "datetime", Clock)
    assert ledger.reserve(1.0, MODEL) is not None


def test_what_was_lost_before_last_month_is_taken_to_be_spent_then(clock: list[datetime]) -> None:
    ledger = open_()
    lost = ledger.reserve(0.5, MODEL)
    clock[0] = datetime(2027, 1, 2, 0, 0)
    ledger.settle(ledger.reserve(0.1, MODEL), 0.1)
    clock[0] = datetime(2026, 11, 30, 12, 0)
    assert ledger.spending()[0].spent == 0.5
    ledger.settle(lost, 0.0)
    assert ledger.spending()[0].spent == 0.5


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_its_files_are_for_their_owner_alone(file: Path) -> None:
    open_().reserve(0.1, MODEL)
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(one.stat().st_mode) for one in file.parent.iterdir()} == {0o600}


def test_a_damaged_ledger_stops_what_is_capped_and_nothing_else(file: Path) -> None:
    with open_() as ledger:
        ledger.reserve(0.1, MODEL)
    file.write_bytes(b"noise" * 2000)
    with pytest.raises(AssetError, match=r"ledger\.sqlite: damaged .*move it away"):
        open_(day=1.0).reserve(0.1, MODEL)
    ledger = open_()
    one = ledger.reserve(0.1, MODEL)
    assert ledger.problem is not None and str(file) in ledger.problem
    ledger.settle(one, 0.1)
    ledger.release(one)


def test_looking_makes_no_file(file: Path) -> None:
    day, month = open_(day=2.0).spending()
    assert (day.spent, day.left, month.left) == (0.0, 2.0, None)
    assert day.first == date.today() and month.first == date.today().replace(day=1)
    assert not file.parent.exists()
