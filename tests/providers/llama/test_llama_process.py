"""What a child process of llama.cpp is started with."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from scope_edge.providers.llama.process import child_environment

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "hf_token", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "GOOGLE_APPLICATION_CREDENTIALS"]
)
def test_a_child_inherits_no_secret(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "sk-this-is-secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found = child_environment(gpu=True)
    assert "sk-this-is-secret" not in found.values()
    assert found["CUDA_VISIBLE_DEVICES"] == "1" and found["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize(
    "value",
    ["postgres://app:hunter22@db/x", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx"],
)
def test_a_child_inherits_no_secret_under_another_name(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SERVICE", value)
    assert value not in child_environment(gpu=True).values()


def test_threads_wait_briefly_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert child_environment(gpu=False)["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("GOMP_SPINCOUNT", "infinite")
    found = child_environment(gpu=False)
    assert found["GOMP_SPINCOUNT"] == "infinite" and "OMP_WAIT_POLICY" not in found


def test_a_child_that_needs_no_gpu_sees_none() -> None:
    script = "import os, json; print(json.dumps(dict(os.environ)))"
    told = subprocess.run(
        [sys.executable, "-c", script], env=child_environment(gpu=False), capture_output=True, text=True, check=True
    )
    assert json.loads(told.stdout)["CUDA_VISIBLE_DEVICES"] == "-1"
