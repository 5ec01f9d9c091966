"""Linear algebra takes one thread unless the user asks for more."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from scope_edge.estimation.blas import VARIABLES, one_thread

threadpoolctl = pytest.importorskip("threadpoolctl")
PROGRAM = """\
import json, os, sys
from scope_edge.cli import main
sys.argv = ["scope-edge", "--version"]
try:
    main()
except SystemExit:
    pass
print(json.dumps({name: os.environ.get(name) for name in json.loads(sys.stdin.read())}))
"""


@pytest.mark.parametrize("own", [{}, {"OMP_NUM_THREADS": "2"}, {"OPENBLAS_NUM_THREADS": "3"}])
def test_the_commands_use_one_thread_unless_a_variable_is_set(own: dict[str, str]) -> None:
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES} | own
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(VARIABLES),
        capture_output=True,
        text=True,
        env=env,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {name: own.get(name) if own else "1" for name in VARIABLES}


def test_a_fit_uses_one_thread_and_leaves_the_application_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def threads() -> set[int]:
        return {one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"}

    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with threadpoolctl.threadpool_limits(2, "blas"):
        before = threads()
        with one_thread():
            assert threads() <= {1}
        assert threads() == before
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        with one_thread():
            assert threads() == before
