"""`scope-edge models add`: from a file or an address to a card in a pool, asked on a terminal or said by options."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import Server, from_keys, serving
from cli_cases import QUERY, Cli, Ended, command, user
from repository import DOCS, documented

from scope_edge.providers.llama.memory import GIB

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytest.importorskip("httpx")
KEY = "sk-this-is-secret-0123456789"
SERVED = [{"id": "small:7b", "max_model_len": 8192}, {"id": "Big Model"}, {"id": "large:480b-cloud"}]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(from_keys(lambda spec: spec.tier < 3)) as made:
        made.models = [*SERVED]
        yield made


@pytest.fixture
def path(tmp_path: Path, tiny_gguf: Path) -> Path:
    return Path(shutil.copy(tiny_gguf, tmp_path / "Our Finetune-BF16.gguf"))


def card(cli: Cli, model: str) -> dict[str, object]:
    """What the settings file says of a model."""
    found: dict[str, object] = tomllib.loads((cli.folder / "config.toml").read_text())["models"][model]
    return found


def test_a_gguf_says_most_of_its_card_itself(cli: Cli, path: Path) -> None:
    done = cli("models", "add", str(path), "--no-check")
    assert done.code == 0 and "our-finetune-bf16 was added" in done.out
    assert card(cli, "our-finetune-bf16") == {
        "name": "tiny-qwen3",
        "where": "device",
        "context_tokens": 4096,
        "parameters_b": 0.000222,
        "size_gb": 0.000502,
        "note": "qwen3, BF16",
        "usd_in": 0,
        "usd_out": 0,
        "gguf": str(path),
    }
    assert "our-finetune-bf16" in cli("models", "show", "our-finetune-bf16", "--json").json["id"]
    assert cli("models", "show", "our-finetune-bf16", "--json").json["pools"] == ["default"]
    row = {one["model"]: one for one in cli("route", "--json", QUERY).json["candidates"]}["our-finetune-bf16"]
    assert row["evidence"] == "none" and row["excluded_by"] is None


def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scope_edge.providers.llama.memory.available_memory", lambda: GIB // 4)


def test_options_win_over_what_was_read_and_a_relative_path_is_kept_whole(
    cli: Cli, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    said = ["--id", "mine", "--name", "Ours", "--context", "2048", "--pool", "work", "--token-factor", "1.1"]
    assert cli("models", "add", path.name, "--no-check", *said).code == 0
    made = card(cli, "mine")
    assert (made["name"], made["context_tokens"], made["token_factor"], made["gguf"]) == ("Ours", 2048, 1.1, str(path))
    assert cli("pool", "list", "--json").json["pools"][-1] == {
        "name": "work",
        "active": False,
        "own": True,
        "models": ["mine"],
    }


def test_an_estimate_writes_nothing_and_its_exit_code_says_whether_it_fits(
    cli: Cli, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = cli("models", "add", str(path), "--estimate-only")
    assert done.code == 0 and re.search(r"memory +0\.5 GiB on the processor", done.out)
    little_memory(monkeypatch)
    short = cli("models", "add", str(path), "--estimate-only", "--json")
    assert short.code == 3 and short.json["fits"] is False and "no room" in short.json["why"]
    assert not (cli.folder / "config.toml").exists()


def test_json_is_as_documented(cli: Cli, path: Path, server: Server) -> None:
    section = (DOCS / "json.md").read_text("utf-8").split("## scope-edge models add")[1].split("\n## ")[0]
    added, fit = section.split("With `--estimate-only`")
    body = cli("models", "add", str(path), "--id", "mine", "--no-check", "--json").json
    assert list(body)[-2:] == documented(added)
    assert (
        list(body["fit"]) == documented(fit) == list(cli("models", "add", str(path), "--estimate-only", "--json").json)
    )
    assert cli("models", "add", server.address, "--served-as", "small:7b", "--json").json["fit"] is None


def test_what_does_not_fit_is_added_and_not_chosen_while_it_does_not(
    cli: Cli, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as short:
        little_memory(short)
        done = cli("models", "add", str(path), "--id", "mine", "--no-check", "--pool", "work")
        assert done.code == 0 and "not chosen as long as it cannot be loaded" in done.err
        refused = cli("route", QUERY, "--pool", "work", "--json")
        assert refused.code == 3 and refused.json["bound"]["limit"] == "cannot_load"
        assert any("mine cannot be loaded: no room" in text for text in refused.json["warnings"])
        assert "can be loaded on this machine" in cli("route", QUERY, "--pool", "work").out
        assert "cannot load" in cli("route", QUERY, "--pool", "mine,gpt-4o").out
        assert "no room" in cli("models", "show", "mine").out
    assert cli("route", QUERY, "--pool", "work", "--quiet").out == "mine\n"
    path.unlink()
    assert cli("route", QUERY, "--pool", "work", "--json").json["bound"]["limit"] == "cannot_load"
    report = cli("doctor", "--json", settings='pool = "work"\n' + (cli.folder / "config.toml").read_text()).json
    assert "cannot be loaded: no file" in report["pool"]["mine"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda raw: raw[:100], "ends in the middle"),
        (lambda raw: b"text", "not a GGUF"),
        (lambda raw: raw.replace(b"tokenizer.chat_template", b"tokenizer.chat_tomplate"), "no chat template"),
        (lambda raw: raw.replace(b"qwen3", b"bertX"), "a bertX model writes no text"),
    ],
)
def test_a_file_that_could_never_answer_is_refused_in_one_line(cli: Cli, path: Path, spoil: object, said: str) -> None:
    path.write_bytes(spoil(path.read_bytes()))  # type: ignore[operator]
    done = cli("models", "add", str(path))
    assert done.code in (2, 5) and said in done.complaint and not (cli.folder / "config.toml").exists()


def test_a_model_of_a_server_is_picked_and_counts_as_cloud_until_it_is_said_to_be_here(
    cli: Cli, server: Server
) -> None:
    several = cli("models", "add", server.address)
    assert several.code == 2 and "small:7b, Big Model, large:480b-cloud" in several.complaint
    assert "did you mean small:7b" in cli("models", "add", server.address, "--served-as", "small:8b").complaint
    assert cli("models", "add", server.address, "--served-as", "Big Model").code == 0
    assert card(cli, "big-model") == {"where": "cloud", "endpoint": server.address, "served_as": "Big Model"}
    done = cli("models", "add", server.address, "--served-as", "small:7b", "--where", "device")
    assert done.code == 0
    assert card(cli, "small:7b") == {
        "where": "device",
        "context_tokens": 8192,
        "usd_in": 0,
        "usd_out": 0,
        "endpoint": server.address,
    }
    refused = cli("models", "add", server.address, "--served-as", "large:480b-cloud", "--where", "device")
    assert refused.code == 2 and "never on the device" in refused.complaint
    assert server.calls == [], "listing asks no model"
    server.models = [{"id": "only"}]
    assert cli("models", "add", server.address).code == 0 and card(cli, "only")["where"] == "cloud"


def test_a_server_without_a_list_is_taken_at_the_users_word(cli: Cli, server: Server) -> None:
    server.models = None
    assert "--served-as" in cli("models", "add", server.address).complaint
    assert cli("models", "add", server.address, "--served-as", "any").code == 0
    nobody = cli("models", "add", "http://127.0.0.1:9/v1", "--served-as", "other")
    assert nobody.code == 5 and "no connection" in nobody.complaint
    assert cli("models", "add", "http://127.0.0.1:9/v1", "--served-as", "other", "--no-check", "--no-pool").code == 0
    assert cli("models", "show", "other", "--json").json["pools"] == []


def test_a_key_is_named_and_never_written(cli: Cli, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [server.address, "--served-as", "small:7b"]
    unset = cli("models", "add", *said, "--key-env", "VENDOR_KEY")
    assert unset.code == 2 and "VENDOR_KEY" in unset.complaint
    monkeypatch.setenv("VENDOR_KEY", KEY)
    done = cli("models", "add", *said, "--key-env", "VENDOR_KEY", "--usd-in", "1.5", "--usd-out", "6")
    assert done.code == 0 and KEY not in done.out + done.err
    assert server.listings[-1]["authorization"] == f"Bearer {KEY}"
    made = card(cli, "small:7b")
    assert (made["key_env"], made["usd_in"], made["usd_out"]) == ("VENDOR_KEY", 1.5, 6) and "price_as_of" in made
    assert not [one for one in cli.folder.rglob("*") if one.is_file() and KEY.encode() in one.read_bytes()]
    wrong = cli("models", "add", *said, "--id", "other", "--key-env", KEY, "--no-check")
    assert wrong.code == 2 and "never the key itself" in wrong.complaint and KEY not in wrong.err
    away = cli("models", "add", "https://vendor.example/v1", "--served-as", "x", "--key-env", KEY)
    assert away.code == 2 and "never the key itself" in away.complaint and KEY not in away.err
    half = cli("models", "add", *said, "--id", "other", "--usd-in", "1")
    assert half.code == 2 and "half a price" in half.complaint
    elsewhere = ["models", "add", "https://vendor.example/v1", "--served-as", "x", "--no-check", "--where", "device"]
    assert "another machine" in cli(*elsewhere).complaint


def test_what_a_model_can_do_beside_text_is_said_with_its_card(cli: Cli, server: Server, path: Path) -> None:
    said = ["models", "add", server.address, "--served-as", "small:7b", "--where", "device", "--pool", "mine"]
    done = cli(*said, "--supports", "tools, json,tools")
    assert done.code == 0 and re.search(r"supports +tools, json\n", done.out)
    assert card(cli, "small:7b")["supports"] == ["tools", "json"]
    shown = cli("models", "show", "small:7b")
    assert re.search(r"supports +tools, json\n", shown.out)
    assert cli("models", "show", "small:7b", "--json").json["supports"] == ["tools", "json"]
    assert cli(*said, "--replace").code == 0 and "supports" not in card(cli, "small:7b"), "written anew without it"


def test_offline_asks_only_what_is_said_to_run_here(cli: Cli, server: Server) -> None:
    said = ["models", "add", server.address, "--served-as", "small:7b"]
    refused = cli(*said, settings="offline = true\n")
    assert refused.code == 2 and "offline" in refused.complaint and server.listings == []
    assert cli(*said, "--where", "device").code == 0 and len(server.listings) == 1


def test_what_makes_no_sense_changes_nothing(cli: Cli, server: Server, path: Path) -> None:
    assert cli("models", "add", str(path), "--id", "mine", "--no-check").code == 0
    before = (cli.folder / "config.toml").read_bytes()
    cases = {
        (): "nothing to add",
        (str(path), "--id", "mine"): "--replace",
        (str(path), "--id", "Mine"): "differs from mine in capitals only",
        (str(path), "--id", "two words"): "no space",
        (str(path), "--id", "b", "--where", "cloud"): 'where = "device"',
        (str(path), "--id", "b", "--served-as", "x"): "belongs to a server",
        (str(path), "--pool", "a", "--no-pool"): "contradict",
        (str(path), "--id", "b", "--pool", "a,b"): "comma",
        (str(cli.folder),): "is a folder",
        (str(cli.folder / "none.gguf"),): "no such file",
        ("ftp://host/x",): "no such file",
        ("http://user:pw@host/v1",): "no user name or key",
        (server.address, "--estimate-only"): "is for a GGUF",
        (server.address, "--served-as", "small:7b", "--supports", "tool"): "did you mean tools",
        (str(path), "--id", "b", "--supports", "tools"): "answers with text alone",
    }
    for args, said in cases.items():
        done = cli("models", "add", *args, "--no-check")
        assert done.code == 2 and said in done.complaint, args
    assert (cli.folder / "config.toml").read_bytes() == before
    assert cli("models", "add", str(path), "--id", "mine", "--no-check", "--replace", "--name", "Anew").code == 0
    assert card(cli, "mine")["name"] == "Anew"
    assert cli("pool", "list", "--json").json["pools"][0]["models"].count("mine") == 1


def test_where_the_active_pool_is_a_list_a_pool_must_be_named(cli: Cli, path: Path) -> None:
    done = cli("models", "add", str(path), "--no-check", settings='pool = "gemma-2-2b-it,gpt-4o"\n')
    assert done.code == 2 and "--pool NAME" in done.complaint
    assert cli("models", "add", str(path), "--no-check", "--no-pool").code == 0


def test_over_a_bundled_card_its_fingerprint_counts_and_that_is_said(cli: Cli, server: Server) -> None:
    done = cli("models", "add", server.address, "--served-as", "small:7b", "--id", "gpt-4o")
    assert done.code == 0 and "it uses the fingerprint of that name" in done.err
    assert cli("models", "show", "gpt-4o", "--json").json["usd_in"] is not None, "the bundled price holds"
    gone = cli("models", "remove", "gpt-4o", "--yes")
    assert "the bundled card is used again" in gone.out
    assert cli("models", "show", "gpt-4o", "--json").json["endpoint"] is None


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of our own")
def test_on_a_terminal_it_asks(tmp_path: Path, server: Server) -> None:
    done = typed(tmp_path, ["models", "add"], server.address, "small:7b", "y", "", "y")
    assert done.code == 0, done.out
    assert "It serves small:7b, Big Model, large:480b-cloud" in done.out and "Does it run on this machine?" in done.out
    written = tomllib.loads((tmp_path / "config.toml").read_text())
    assert written["models"]["small:7b"]["where"] == "device" and written["pools"]["default"][-1] == "small:7b"
    again = ["small:8b", "large:480b-cloud", "big", "a lot", "1.5", "$6", "n"]
    cloud = typed(tmp_path, ["models", "add", server.address], *again)
    assert "did you mean small:7b" in cloud.out and "the price must be" in cloud.out, "asked again"
    assert cloud.code == 0 and "Does it run on this machine?" not in cloud.out, "its name says that it does not"
    written = tomllib.loads((tmp_path / "config.toml").read_text())
    made = written["models"]["big"]
    assert (made["usd_in"], made["usd_out"], made["where"]) == (1.5, 6, "cloud")
    assert "big" not in written["pools"]["default"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of our own")
def test_ctrl_c_at_a_question_writes_nothing(tmp_path: Path, server: Server) -> None:
    done = typed(tmp_path, ["models", "add", server.address], "small:7b", "\x03")
    assert done.code == 130 and not (tmp_path / "config.toml").exists()


def typed(folder: Path, args: list[str], *answers: str) -> Ended:
    """Run a command on a terminal, typing an answer whenever it has asked something and waits."""
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(*args),
        env=user(folder),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    os.close(theirs)
    said, left, until = b"", list(answers), time.monotonic() + 120
    while time.monotonic() < until:
        ready, _, _ = select.select([ours], [], [], 0.3)
        try:
            more = os.read(ours, 4096) if ready else b""
        except OSError:  # Linux says so when the other end is closed
            break
        said += more
        if not ready and left and said.rstrip(b" ").endswith((b":", b"]")):
            os.write(ours, f"{left.pop(0)}\r".encode() if left[0] != "\x03" else left.pop(0).encode())
            said += b"\n"
        elif ready and not more:
            break
    code = process.wait(timeout=60)
    os.close(ours)
    return Ended(code, said.decode("utf-8", "replace").replace("\r\n", "\n"), "")


def _take_terminal() -> None:
    import fcntl
    import signal
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # A shell that runs the tests in the background has its children ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
