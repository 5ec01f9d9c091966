"""Downloads against a real server on this machine: what comes is what the hub promised, and nothing is fetched twice."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_server import COMMIT, Hub, running

from scope_edge.errors import AssetError, RemoteError, UsageError
from scope_edge.estimator.sources import find_origin
from scope_edge.fingerprinting.importing.scope_dataset import import_anchors
from scope_edge.settings.config import load_settings
from scope_edge.storage import hub as remote
from scope_edge.storage.hub import discard, fetch, is_hub_id, look_up

pytest.importorskip("huggingface_hub")

ID = "someone/SCOPE"
TOKEN = "hf_notasecretbutlookslikeone"
WEIGHTS = random.Random(1).randbytes(26 * 1024 * 1024)
README = b"# SCOPE\nweights\n"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "SCOPE_EDGE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SCOPE_EDGE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("SCOPE_EDGE_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    return tmp_path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    repos = {("model", ID): {"model.safetensors": WEIGHTS, "README.md": README, "sub/config.json": b"{}"}}
    with running(Hub(repos=repos, large={"model.safetensors"}, cards={ID: {"license": "apache-2.0"}})) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        yield served


def asked(hub: Hub, part: str) -> list[str | None]:
    """The ranges asked for of contents whose path has `part` in it."""
    return [one.headers.get("range") for one in hub.asked if part in one.path and "/api/" not in one.path]


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert TOKEN not in text
    return text


def test_a_branch_becomes_a_commit_and_only_that_commit_is_asked_for(hub: Hub) -> None:
    repo = look_up(ID)
    assert (repo.commit, repo.licence) == (COMMIT, "apache-2.0")
    assert {file.path: file.size for file in repo.files} == {
        "model.safetensors": len(WEIGHTS),
        "README.md": len(README),
        "sub/config.json": 2,
    }
    folder = fetch(repo, ["README.md", "sub/config.json", "model.safetensors"])
    assert (folder / "README.md").read_bytes() == README
    assert (folder / "sub" / "config.json").read_bytes() == b"{}"
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert all(f"/resolve/{COMMIT}/" in one.path for one in hub.asked if "/resolve/" in one.path)


def test_what_is_there_is_not_fetched_again_and_can_be_discarded(hub: Hub) -> None:
    repo = look_up(ID)
    folder = fetch(repo, ["README.md"])
    before = len(hub.asked)
    fetch(repo, ["README.md"])
    assert len(hub.asked) == before
    (folder / "README.md").write_bytes(README[:-1] + b"!")
    fetch(repo, ["README.md"])
    assert (folder / "README.md").read_bytes() == README
    discard(repo)
    assert not folder.exists()


def test_a_cut_connection_is_continued_within_one_call(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    hub.drops["model.safetensors"] = (12 * 1024 * 1024, 1)
    folder = fetch(look_up(ID), ["model.safetensors"])
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert any(span and span != "bytes=0-" for span in asked(hub, "/stored/"))


def test_a_network_that_is_gone_is_one_line_and_the_part_is_kept(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    hub.drops["model.safetensors"] = (12 * 1024 * 1024, 100)
    repo = look_up(ID)
    with pytest.raises(RemoteError, match="run it again to go on") as error:
        fetch(repo, ["model.safetensors"])
    assert ID in one_line(error)
    part = repo.folder / "model.safetensors.part"
    kept = part.stat().st_size
    assert kept >= 10 * 1024 * 1024
    hub.drops.clear()
    hub.asked.clear()
    assert (fetch(repo, ["model.safetensors"]) / "model.safetensors").read_bytes() == WEIGHTS
    assert asked(hub, "/stored/") == [f"bytes={kept}-"]
    assert not part.exists()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_download_killed_in_the_middle_goes_on_where_it_stopped(hub: Hub, place: Path) -> None:
    hub.stalls["model.safetensors"] = 21 * 1024 * 1024
    code = f"from scope_edge.storage.hub import *; fetch(look_up({ID!r}), ['model.safetensors'])"
    child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ}, stderr=subprocess.DEVNULL)
    part = place / "cache" / "hub" / "models--someone--SCOPE" / COMMIT / "model.safetensors.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size >= 20 * 1024 * 1024):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.kill()
    child.wait()
    kept = part.stat().st_size
    hub.stalls.clear()
    hub.asked.clear()
    folder = fetch(look_up(ID), ["model.safetensors"])
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert asked(hub, "/stored/") == [f"bytes={kept}-"]


def test_a_server_that_knows_no_ranges_starts_over(hub: Hub) -> None:
    hub.ignores_ranges = True
    repo = look_up(ID)
    repo.folder.mkdir(parents=True)
    (repo.folder / "model.safetensors.part").write_bytes(b"x" * 1000)
    assert (fetch(repo, ["model.safetensors"]) / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("path", ["model.safetensors", "README.md"])
def test_content_that_is_not_what_the_hub_promised_is_thrown_away(hub: Hub, path: str) -> None:
    right = hub.repos[("model", ID)][path]
    hub.altered[path] = bytes([right[0] ^ 1]) + right[1:]
    repo = look_up(ID)
    with pytest.raises(RemoteError, match=r"came damaged \(expected hash") as error:
        fetch(repo, [path])
    assert path in one_line(error)
    assert not [one for one in repo.folder.rglob("*") if one.suffix != ".lock"]
    hub.altered.clear()
    assert (fetch(repo, [path]) / path).read_bytes() == right


def test_a_part_of_something_else_is_not_taken_for_the_file(hub: Hub) -> None:
    repo = look_up(ID)
    repo.folder.mkdir(parents=True)
    part = repo.folder / "model.safetensors.part"
    part.write_bytes(WEIGHTS + b"too long")
    assert (fetch(repo, ["model.safetensors"]) / "model.safetensors").read_bytes() == WEIGHTS


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.private[ID] = TOKEN
    with pytest.raises(UsageError, match="set HF_TOKEN if it is private"):
        look_up(ID)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fetch(look_up(ID), ["model.safetensors"])
    stored = [one for one in hub.asked if one.path.startswith("/stored/")]
    assert {one.host for one in stored} == {"localhost"}
    assert not any("authorization" in one.headers for one in stored)
    assert any(one.headers.get("authorization") == f"Bearer {TOKEN}" for one in hub.asked)


def test_a_stored_login_is_not_used(hub: Hub, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "hf").mkdir()
    (place / "hf" / "token").write_text(TOKEN)
    monkeypatch.setenv("HF_TOKEN_PATH", str(place / "hf" / "token"))
    fetch(look_up(ID), ["README.md"])
    assert not any("authorization" in one.headers for one in hub.asked)


def test_nothing_of_this_machine_is_told_but_the_programs_name(hub: Hub) -> None:
    fetch(look_up(ID), ["README.md"])
    file = next(one for one in hub.asked if "/resolve/" in one.path)
    assert file.headers["user-agent"].startswith("scope-edge/")
    assert {one.method for one in hub.asked} == {"GET"}
    assert len(hub.asked) == 2


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("someone/nothing", "no model someone/nothing at http"),
        (f"{ID}@nobranch", "has no revision 'nobranch'"),
        ("noslash", "not a hub id"),
        ("a/b/c", "not a hub id"),
        (f"{ID}@", "not a hub id"),
    ],
)
def test_what_is_not_there_is_a_usage_error(hub: Hub, source: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        look_up(source)
    one_line(error)


def test_gated_weights_name_the_page_to_go_to(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated.add(ID)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(RemoteError, match="is gated: accept its terms at") as error:
        fetch(look_up(ID), ["model.safetensors"])
    assert f"{hub.address}/{ID}" in one_line(error)


@pytest.mark.parametrize(
    ("status", "said"), [(500, r"HTTP 500.*later"), (429, "HTTP 429"), (403, "HTTP 403.*HF_TOKEN")]
)
def test_a_hub_that_answers_with_an_error(hub: Hub, monkeypatch: pytest.MonkeyPatch, status: int, said: str) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.status = status
    with pytest.raises(RemoteError, match=said) as error:
        look_up(ID)
    one_line(error)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HTTPS_PROXY", "ftp://u:hidden@192.0.2.1", "HTTPS_PROXY cannot be used; correct or unset it"),
        ("ALL_PROXY", "http://u:hidden@host:port", "ALL_PROXY cannot be used; correct or unset it"),
        ("ALL_PROXY", "socks5://192.0.2.1:1", 'a SOCKS proxy needs socksio, pip install "scope-edge[hub]"'),
        ("SSL_CERT_FILE", "/nowhere/ca.pem", "SSL_CERT_FILE leads to no file"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, hub: Hub, variable: str, value: str, said: str
) -> None:
    # In a process of its own: the client of this one is made already.
    script = "import sys; sys.modules['socksio'] = None; from scope_edge.cli import main; main()"
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("HF_ENDPOINT", "https://192.0.2.1")
    command = [sys.executable, "-c", script, "estimator", "install", ID]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 5 and said in done.stderr and "hidden" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_no_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RemoteError, match=r"connection to http://127\.0\.0\.1:9 failed") as error:
        look_up(ID)
    one_line(error)
    monkeypatch.setenv("HF_ENDPOINT", "not an address")
    with pytest.raises(UsageError, match="HF_ENDPOINT"):
        look_up(ID)


def test_offline_refuses_before_any_connection(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOPE_EDGE_OFFLINE", "1")
    for refused in (find_origin, import_anchors):
        with pytest.raises(UsageError, match="offline is set by SCOPE_EDGE_OFFLINE") as error:
            refused(ID, None, offline=load_settings().offline_by)
        one_line(error)
    monkeypatch.setenv("SCOPE_EDGE_OFFLINE", "0")
    assert load_settings().offline_by is None
    assert hub.asked == []


def test_the_hubs_own_offline_variable_is_respected(hub: Hub) -> None:
    code = f"from scope_edge.storage.hub import look_up; look_up({ID!r})"
    child = [sys.executable, "-c", code]
    ended = subprocess.run(child, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    assert "UsageError: someone/SCOPE is not downloaded: HF_HUB_OFFLINE is set" in ended.stderr
    assert hub.asked == []


def test_no_space_is_said_before_a_byte_is_fetched(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = look_up(ID)
    hub.asked.clear()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10 * 1024 * 1024))
    with pytest.raises(AssetError, match=r"the download: needs 27 MB, the disk of .* has 10 MB free") as error:
        fetch(repo, ["model.safetensors"])
    one_line(error)
    assert hub.asked == []


@pytest.mark.parametrize("path", ["../../evil", "/etc/passwd", "a//b", "a\\b", "C:/x", "."])
def test_a_hub_cannot_write_outside_the_folder(hub: Hub, path: str) -> None:
    hub.repos[("model", ID)] = {path: b"evil"}
    with pytest.raises(RemoteError, match="describes an impossible file"):
        look_up(ID)


def test_progress_reaches_the_end(hub: Hub) -> None:
    seen: list[tuple[str, int, int]] = []
    fetch(look_up(ID), ["model.safetensors"], lambda *step: seen.append(step))
    assert ("downloading model.safetensors", len(WEIGHTS), len(WEIGHTS)) in seen
    assert seen[-1] == ("checking model.safetensors", len(WEIGHTS), len(WEIGHTS))


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("Cooolder/SCOPE", True),
        ("a/b@main", True),
        ("a/b@v1.0/x", True),
        ("./a", False),
        ("a", False),
        ("a/b/c", False),
    ],
)
def test_what_reads_like_a_hub_id(text: str, is_one: bool) -> None:
    assert is_hub_id(text) == is_one


def test_the_client_is_imported_with_everything_else_off() -> None:
    code = (
        "import os; before = dict(os.environ)\n"
        "from scope_edge.storage import hub; hub._client()\n"
        "from huggingface_hub import constants as c\n"
        "assert c.HF_HUB_DISABLE_TELEMETRY and c.HF_HUB_DISABLE_IMPLICIT_TOKEN and getattr(c, 'HF_HUB_DISABLE_XET', True)\n"
        "assert dict(os.environ) == before, 'the environment is as it was'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(remote.MissingExtraError, match=r'pip install "scope-edge\[hub\]"'):
        look_up(ID)
