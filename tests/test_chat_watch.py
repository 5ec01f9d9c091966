"""Things are done when their time has come, in order, and not when they were called off; in a process that forked, too."""

from __future__ import annotations

import os
import threading

import pytest

from scope_edge.chat.watch import Watch


def test_what_is_due_is_done_in_order_and_what_was_called_off_is_not() -> None:
    watch, done, over = Watch(), [], threading.Event()
    watch.after(0.2, over.set)
    watch.after(0.1, lambda: done.append("second"))
    called_off = watch.after(0.07, lambda: done.append("never"))
    watch.after(0.03, lambda: done.append("first"))
    called_off.cancel()
    assert over.wait(30)
    assert done == ["first", "second"]
    again = threading.Event()
    watch.after(0.0, again.set)
    assert again.wait(30), "it goes on after having had nothing to do"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_process_that_was_forked_has_one_of_its_own() -> None:
    watch, here = Watch(), threading.Event()
    watch.after(0.0, here.set)
    assert here.wait(30)
    child = os.fork()
    if child == 0:
        there = threading.Event()
        watch.after(0.0, there.set)
        os._exit(0 if there.wait(30) else 1)
    assert os.waitpid(child, 0)[1] == 0
