"""`route` and `ask` through a server that runs: the same output, under the caller's limits; and no trust in what only looks like it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest
from chat_server import Said, Server, faulty, serving
from cli_cases import QUERY, Ended, command, heed_ctrl_c, spawn, without_timings
from serve_cases import KEY, LARGE, SMALL, Served, served, settings

from scope_edge.cli.server_client import NotServed, ServerConnection
from scope_edge.server.token import PROOF, RunningServer, proof

pytest.importorskip("httpx")
if find_spec("uvicorn") is None or find_spec("starlette") is None:
    pytest.skip("the extra `server` is not installed", allow_module_level=True)

TEXT = "There are 25 primes below one hundred.\nNo more."


@dataclass
class World:
    server: Served
    model: Server
    folder: Path

    def both(self, *args: str, **env: str) -> tuple[Ended, Ended]:
        """A command through the server and without it."""
        environment = self.server.env | env
        before = self.taken
        through = spawn(args, environment)
        assert self.taken == before + 1, f"the server was not asked: {through.err}"
        alone = spawn([args[0], "--no-server", *args[1:]], environment)
        assert self.taken == before + 1, "--no-server asked it all the same"
        return through, alone

    @property
    def taken(self) -> float:
        """Requests that the server has decided or answered, or reported an error of."""
        lines = self.server.call("GET", "/metrics").raw.decode().splitlines()
        rows = [line for line in lines if 'path="/v1/route"' in line or 'path="/v1/chat/completions"' in line]
        return sum(float(line.rpartition(" ")[2]) for line in rows)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("home")
    with serving(lambda *_: Said(TEXT, 12, 9)) as model, served(folder, settings=settings(model, model)) as server:
        yield World(server, model, folder)


@pytest.mark.parametrize(
    "args",
    [
        (QUERY,),
        (QUERY, "--explain", "--alpha", "0.9"),
        (QUERY, "--quiet", "--local-only"),
        (QUERY, "--max-usd", "0.00001", "--fallback", "cheapest"),
        (QUERY, "--max-tokens", "2"),
        (QUERY, "--policy", "paper", "--top-k", "3", "--system", "Be brief."),
        (QUERY, "--pool", "gemma-2-2b-it,mistral-large-2407", "--exclude", "gemma-2-2b-it"),
        (QUERY, "--profile", "careful"),
    ],
)
def test_route_prints_the_same(world: World, args: tuple[str, ...]) -> None:
    through, alone = world.both("route", *args)
    assert (through.code, without_milliseconds(through.out), through.err) == (
        alone.code,
        without_milliseconds(alone.out),
        alone.err,
    )


def without_milliseconds(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("milliseconds")]


def test_route_prints_the_same_object(world: World) -> None:
    through, alone = world.both("route", QUERY, "--json", SCOPE_EDGE_ALPHA="0.8")
    assert without_timings(through.json) == without_timings(alone.json) and through.json["alpha"] == 0.8
    refused, here = world.both("route", QUERY, "--exclude", "nosuch")
    assert (refused.code, refused.err) == (here.code, here.err) == (2, here.err)


@pytest.mark.parametrize(
    "args", [(), ("--alpha", "1"), ("--quiet", "--no-stream"), ("--max-tokens", "3"), ("--model", SMALL)]
)
def test_ask_prints_the_same(world: World, args: tuple[str, ...]) -> None:
    through, alone = world.both("ask", QUERY, *args)
    assert through == alone
    assert through.code in (0, 3)


def test_ask_prints_the_same_object(world: World) -> None:
    through, alone = (one.json for one in world.both("ask", QUERY, "--json", "--system", "Be brief."))
    ids = {one.pop("id") for one in (through, alone)}
    assert len(ids) == 2 and {one["id"] for one in spawn(["log", "--json"], world.server.env).json} >= ids
    for one in (through, alone):
        one["decision"].pop("timings_ms")
        for name in ("first_token_seconds", "seconds"):
            assert one["run"].pop(name) > 0
    assert through == alone


def test_a_command_is_listed_as_one_and_journalled_under_its_profile(tmp_path: Path) -> None:
    """Also with --model, under a profile named as a model, and without a profile at a server that has one."""
    with serving(lambda *_: Said(TEXT, 12, 9)) as model:
        profiles = f'\n[profiles.work]\nalpha = 0.9\n[profiles."{LARGE}"]\nalpha = 0.0\n'
        own = settings(model, model, 'journal = "all"') + profiles
        with served(tmp_path, "--profile", "work", settings=own) as server:
            both = ["--profile", "work", "--model", LARGE]
            for n, args in enumerate((["--profile", "work"], both, ["--profile", LARGE], []), 1):
                assert spawn(["ask", *args, QUERY], server.env).code == 0
                assert f'/v1/chat/completions",status="200"}} {n}.0' in server.call("GET", "/metrics").raw.decode()
            assert spawn(["route", "--profile", "work", QUERY], server.env).code == 0
            assert '/v1/route",status="200"} 1.0' in server.call("GET", "/metrics").raw.decode()
            entries = json.loads(spawn(["log", "--json"], server.env).out)
            server.ask(scope_edge={"recorded_as": None})
            recent = server.call("GET", "/page/recent").json["recent"]
    assert [one["profile"] for one in entries] == ["work", None, LARGE, "work", "work"]
    assert entries[2]["model"] == SMALL, "the profile's name is no model to call"
    assert [one["asked"] for one in recent] == ["auto", *["scope-edge ask"] * 4]


@pytest.mark.parametrize("variables", [{"SCOPE_EDGE_OFFLINE": "1"}, {"SCOPE_EDGE_PRIVACY": "patterns"}])
def test_the_callers_offline_switch_and_privacy_hold(world: World, variables: dict[str, str]) -> None:
    """A request cannot give them, so the command does the work itself."""
    calls, before = len(world.model.calls), world.taken
    done = spawn(["ask", "Who is jane@example.org?", "--json", "--alpha", "1"], world.server.env | variables)
    assert done.json["run"]["model"] == SMALL and world.taken == before
    assert all(call.body["model"] == SMALL for call in world.model.calls[calls:])


def test_a_servers_limit_is_not_widened_and_ends_no_command(tmp_path: Path) -> None:
    with serving(lambda *_: Said(TEXT, 12, 9)) as model:
        own = settings(model, model, "max_tokens = 100000")
        with served(tmp_path, settings=own) as server:
            world = World(server, model, tmp_path)
            assert spawn(["route", "-q", "--max-tokens", "90000", QUERY], server.env).code == 0 and world.taken == 1
            assert spawn(["route", "-q", "--max-tokens", "110000", QUERY], server.env).code == 0 and world.taken == 1


def test_a_servers_limit_on_answers_cuts_no_commands_answer(tmp_path: Path) -> None:
    limit = "SCOPE_EDGE_MAX_ANSWER_TOKENS"
    with (
        serving(lambda *_: Said(TEXT, 12, 9)) as model,
        served(tmp_path, settings=settings(model, model), env={limit: "5"}) as server,
    ):
        world, free = World(server, model, tmp_path), {k: value for k, value in server.env.items() if k != limit}
        for env in (free, free | {limit: "6"}):
            assert spawn(["ask", QUERY], env).code == 0 and world.taken == 0
        assert spawn(["ask", QUERY], free | {limit: "4"}).code == 0 and world.taken == 1


def test_an_answer_that_breaks_off_ends_alike(tmp_path: Path) -> None:
    with (
        serving(lambda *_: Said(TEXT, 12, 9)) as model,
        faulty(model, ["cut", "cut", "401", "401", "refused", "refused"]) as front,
        served(tmp_path, settings=settings(model, front)) as server,
    ):
        both = World(server, model, tmp_path).both
        through, alone = both("ask", QUERY, "--model", LARGE)
        assert through == alone and through.code == 4 and through.out.strip()
        through, alone = both("ask", QUERY, "--model", LARGE)
        assert through == alone and through.code == 5
        through, alone = both("ask", QUERY, "--model", LARGE)
        assert through == alone and through.code == 2 and "refuses" in through.complaint


@pytest.mark.parametrize("fault", ["cut", "401", "refused"])
def test_what_went_wrong_is_the_same_object(tmp_path: Path, fault: str) -> None:
    with (
        serving(lambda *_: Said(TEXT, 12, 9)) as model,
        faulty(model, [fault, fault]) as front,
        served(tmp_path, settings=settings(model, front)) as server,
    ):
        through, alone = (
            one.json for one in World(server, model, tmp_path).both("ask", QUERY, "--json", "--model", LARGE)
        )
        for one in (through, alone):
            one["decision"].pop("timings_ms")
            one["run"] = {name: value for name, value in one["run"].items() if not name.endswith("seconds")}
        assert through == alone and through["run"]["ending"] in ("broken", "failed")


def test_limits_and_a_cap_end_alike(tmp_path: Path) -> None:
    with (
        serving(lambda *_: Said(TEXT, 12, 9)) as model,
        served(tmp_path, settings=settings(model, model, "max_usd_day = 0.000001")) as server,
    ):
        both = World(server, model, tmp_path).both
        for args in (("--max-tokens", "1"), ("--max-tokens", "1", "--json"), ("--model", LARGE)):
            through, alone = both("ask", QUERY, *args)
            assert through.code == alone.code == 3 and through.err == alone.err
        assert model.calls == []


def test_ctrl_c_in_the_command_ends_the_answer_in_the_server(tmp_path: Path) -> None:
    with (
        serving(lambda *_: Said(TEXT, 12, 9)) as model,
        faulty(model, ["stalls"]) as front,
        served(tmp_path, settings=settings(model, front)) as server,
    ):
        process = subprocess.Popen(
            command("ask", QUERY, "--model", LARGE),
            env=server.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=heed_ctrl_c,
        )
        assert process.stdout is not None and os.read(process.stdout.fileno(), 10)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130 and b"Traceback" not in err
        server.until(lambda: server.metric("running") == 0)
        assert spawn(["log", "--json"], server.env).json[0]["run"]["ending"] == "cancelled"


def test_a_command_shows_what_the_server_says_at_its_end(tmp_path: Path) -> None:
    with (
        serving(lambda *_: Said(TEXT, 12, 9)) as model,
        faulty(model, ["stalls"]) as front,
        served(tmp_path, "--grace", "0.1", settings=settings(model, front)) as server,
    ):
        process = subprocess.Popen(
            command("ask", QUERY, "--model", LARGE), env=server.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None and os.read(process.stdout.fileno(), 10)
        assert server.end() == 0
        _, err = process.communicate(timeout=60)
        assert process.returncode == 5 and b"the server is shutting down" in err


@pytest.mark.parametrize(
    "changed",
    [
        {"SCOPE_EDGE_USE_SERVER": "0"},
        {"VENDOR_KEY": "another-key-than-the-servers"},
        {"HTTPS_PROXY": "http://127.0.0.1:9"},
        {"SCOPE_EDGE_VALUE_OF_TIME": "0.001"},
        {"SCOPE_EDGE_JOURNAL": "off"},
    ],
)
def test_who_would_decide_otherwise_does_it_alone(world: World, changed: dict[str, str]) -> None:
    before = world.taken
    assert spawn(["ask", QUERY, "-q"], world.server.env | changed).out == TEXT + "\n"
    assert world.taken == before


def test_changed_cards_are_not_the_servers(tmp_path: Path) -> None:
    with serving(lambda *_: Said(TEXT, 12, 9)) as model, served(tmp_path, settings=settings(model, model)) as server:
        file = tmp_path / "config.toml"
        file.write_text(file.read_text().replace('where = "device"', 'where = "device"\nusd_in = 5.0\nusd_out = 5.0'))
        row = spawn(["route", "--json", QUERY], server.env).json["candidates"]
        assert next(one for one in row if one["model"] == SMALL)["usd"] > 0


def test_a_server_that_is_local_only_serves_no_more(tmp_path: Path) -> None:
    with (
        serving(lambda *_: Said(TEXT, 12, 9)) as model,
        served(tmp_path, "--local-only", settings=settings(model, model)) as server,
    ):
        assert server.ask(model=LARGE).json["error"]["code"] == "infeasible"
        assert server.ask(model="auto:best").headers["x-scope-edge-model"] == SMALL
        wider = server.ask(model="auto:best", scope_edge={"local_only": False})
        assert wider.headers["x-scope-edge-model"] == SMALL
        body = spawn(["ask", "--json", "--alpha", "1", QUERY], server.env).json
        assert body["run"]["model"] == LARGE, "who asks for more asks without it"


def note_of(server: Served) -> Path:
    return Path(server.env["SCOPE_EDGE_DATA_DIR"]) / "server" / f"running-{server.process.pid}.json"


def test_of_two_servers_the_latest_is_asked_and_its_end_does_not_hide_the_other(tmp_path: Path) -> None:
    with serving(lambda *_: Said(TEXT, 12, 9)) as model, served(tmp_path, settings=settings(model, model)) as first:
        world = World(first, model, tmp_path)
        with served(tmp_path) as second:
            assert spawn(["route", "-q", QUERY], first.env).code == 0
            assert (world.taken, World(second, model, tmp_path).taken) == (0, 1)
        assert spawn(["route", "-q", QUERY], first.env).code == 0 and world.taken == 1


def test_a_stale_note_is_passed_over(tmp_path: Path) -> None:
    with serving(lambda *_: Said(TEXT, 12, 9)) as model:
        with served(tmp_path, settings=settings(model, model)) as server:
            note = note_of(server)
            kept = note.read_text()
            server.process.kill()
            server.process.wait()
            assert note.exists(), "nobody could take it away"
        assert spawn(["ask", "-q", QUERY], server.env).out == TEXT + "\n"
        note.write_text("{" * 5000)
        assert spawn(["route", "-q", QUERY], server.env).code == 0
        note.write_text(json.dumps(json.loads(kept) | {"host": "192.0.2.1"}))
        assert spawn(["route", "-q", QUERY], server.env).code == 0
        note.write_text(kept)
        with served(tmp_path) as after:
            assert note_of(after).exists() and not note.exists(), "the next one takes it away"


def test_a_program_that_took_the_port_gets_neither_token_nor_query(tmp_path: Path) -> None:
    """It answers as it likes, and knows every proof but the one for its port."""
    heard: list[tuple[str, str, bytes]] = []
    with serving(lambda *_: Said(TEXT, 12, 9)) as model, served(tmp_path, settings=settings(model, model)) as server:

        class Liar(BaseHTTPRequestHandler):
            disable_nagle_algorithm = True  # else a head and its body are 40 ms apart

            def log_message(self, *_: object) -> None:
                """Nothing."""

            def do_GET(self) -> None:
                heard.append((self.path, str(self.headers), b""))
                true = http.client.HTTPConnection("127.0.0.1", server.port)
                true.request("GET", self.path, headers={"x-scope-edge-nonce": self.headers["x-scope-edge-nonce"]})
                relayed = true.getresponse()
                self.send_response(200)
                self.send_header(PROOF, relayed.headers[PROOF])
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")
                true.close()

            def do_POST(self) -> None:
                heard.append((self.path, str(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))

        liar = ThreadingHTTPServer(("127.0.0.1", 0), Liar)
        threading.Thread(target=liar.serve_forever, daemon=True).start()
        note = note_of(server)
        note.write_text(json.dumps(json.loads(note.read_text()) | {"port": liar.server_address[1]}))
        done = spawn(["ask", "-q", QUERY], server.env)
        liar.shutdown()
        liar.server_close()
    assert done.out == TEXT + "\n"
    assert [path for path, _, _ in heard] == ["/identity"]
    assert server.token not in str(heard) and QUERY not in str(heard)


def test_a_folder_that_others_can_write_to_is_not_believed(tmp_path: Path) -> None:
    with serving(lambda *_: Said(TEXT, 12, 9)) as model, served(tmp_path, settings=settings(model, model)) as server:
        world = World(server, model, tmp_path)
        folder = tmp_path / "data" / "server"
        before = world.taken
        spawn(["route", "-q", QUERY], server.env)
        assert world.taken == before + 1
        folder.chmod(0o777)
        spawn(["route", "-q", QUERY], server.env)
        folder.chmod(0o700)
        (folder / "token").chmod(0o644)
        spawn(["route", "-q", QUERY], server.env)
        (folder / "token").chmod(0o600)
        moved = folder.rename(tmp_path / "data" / "elsewhere")
        folder.symlink_to(moved)
        spawn(["route", "-q", QUERY], server.env)
        folder.unlink()
        moved.rename(folder)
        assert world.taken == before + 1


def test_it_connects_to_this_machine_alone() -> None:
    limits = {"max_tokens": None, "max_usd": None, "max_seconds": None, "local_only": False}
    for host in ("192.0.2.1", "example.org", "0.0.0.0", "127.0.0.1.example.org", "localhost.example.org"):
        with pytest.raises(NotServed):
            ServerConnection(RunningServer(host, 80, 1, 0.0, "", limits), "token")
    with ServerConnection(RunningServer("127.0.0.1", 80, 1, 0.0, "", limits), "token"):
        pass


def test_a_proof_is_for_one_port_and_one_number() -> None:
    assert len({proof(token, nonce, port) for token in "ab" for nonce in "cd" for port in (1, 2)}) == 8


def test_no_key_is_in_the_state_file(world: World) -> None:
    text = note_of(world.server).read_text()
    assert KEY not in text and world.server.token not in text
