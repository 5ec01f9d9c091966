"""What is to be done in a while unless it is called off: one thread for all of it, since a thread for each costs more than the call."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable


class Alarm:
    """One thing to be done."""

    __slots__ = ("act", "at")

    def __init__(self, at: float, act: Callable[[], object]) -> None:
        self.at = at
        self.act: Callable[[], object] | None = act

    def cancel(self) -> None:
        """It need not be done."""
        self.act = None


class Watch:
    """Does things when their time has come, in a thread of its own that begins with the first. They must not block."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._alarms: list[tuple[float, int, Alarm]] = []
        self._numbers = itertools.count()
        self._running_in = 0

    def after(self, seconds: float, act: Callable[[], object]) -> Alarm:
        """Do it in so many seconds."""
        alarm = Alarm(time.monotonic() + seconds, act)
        with self._changed:
            first = not self._alarms or alarm.at < self._alarms[0][0]
            heapq.heappush(self._alarms, (alarm.at, next(self._numbers), alarm))
            # A process that this one forked into has no such thread yet.
            if self._running_in != os.getpid():
                self._running_in = os.getpid()
                threading.Thread(target=self._run, name="watch", daemon=True).start()
            elif first:
                self._changed.notify()
        return alarm

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._alarms and self._alarms[0][2].act is None:
                    heapq.heappop(self._alarms)
                wait = self._alarms[0][0] - time.monotonic() if self._alarms else None
                if wait is None or wait > 0:
                    self._changed.wait(wait)
                    continue
                _, _, alarm = heapq.heappop(self._alarms)
            act = alarm.act
            if act is not None:
                act()


WATCH = Watch()
