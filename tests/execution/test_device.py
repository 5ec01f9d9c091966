"""A GGUF is asked through the worker: streamed, limited in its own tokens, survived, and never with so much as a look outside."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from chat_server import Said, serving
from cli_cases import QUERY, command, heed_ctrl_c, spawn, user
from network_cut import CUT
from scripted_gguf import after
from tracing import Trace

from scope_edge import BrokenAnswerError, Router, UnansweredError, UsageError
from scope_edge.encoding.token_count import PromptTokens
from scope_edge.errors import ProviderError
from scope_edge.execution.device import DeviceProvider
from scope_edge.execution.token_budget import TokenBudget
from scope_edge.providers.llama.host import DeviceHost
from scope_edge.types import ModelCard

pytest.importorskip("httpx")
if find_spec("llama_cpp") is None:
    pytest.skip("llama-cpp-python is not installed", allow_module_level=True)

SMALL, LARGE = "gemma-2-2b-it", "llama-3.1-70b-instruct"
TEXT = "There are 25 primes below one hundred."
SHORT = {"max_tokens": 12, "temperature": 0}
WARM = {"max_tokens": 40, "temperature": 2.0}


def settings(gguf: Path, cloud: str = "http://127.0.0.1:9/v1") -> str:
    return f'threads = 1\npool = "{SMALL},{LARGE}"\n[models."{SMALL}"]\ngguf = "{gguf}"\n[models."{LARGE}"]\nendpoint = "{cloud}"\n'


@pytest.fixture
def router(own_folders: Path, scripted_gguf: Path) -> Iterator[Router]:
    (own_folders / "config.toml").write_text(settings(scripted_gguf))
    with Router.load() as made:
        yield made


def workers() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def test_a_gguf_answers_piece_by_piece_in_its_own_tokens(router: Router) -> None:
    with router.stream(QUERY, model=SMALL, fields=SHORT) as stream:
        text = "".join(stream)
    answer = stream.answer
    assert answer is not None and answer.text == text
    run = answer.run
    assert (run.model, run.where, run.completion_tokens, run.usd) == (SMALL, "device", 12, 0.0)
    assert (run.counted, run.ending) == ("tokenizer", "cut") and "cut off" in answer.warnings[0]
    again = router.ask(QUERY, model=SMALL, fields=SHORT)
    assert again.text == text and again.run.prompt_tokens == run.prompt_tokens, "the likeliest words again"
    assert text == after("?", 12), "the likeliest words"
    others = [router.ask(QUERY, model=SMALL, fields={**WARM, "seed": seed}).text for seed in (5, 5, 6)]
    assert others[0] == others[1] != others[2]
    for odd, said in (({"seed": "x"}, "seed must be"), ({"stop": 5}, "stop must be")):
        with pytest.raises(UsageError, match=said):
            router.ask(QUERY, model=SMALL, fields=SHORT | odd)
    stop = text.removeprefix(after("?", 11))
    assert router.ask(QUERY, model=SMALL, fields={**SHORT, "stop": [stop]}).text == after("?", 11)


def test_the_limit_on_tokens_is_exact_where_the_tokenizer_is(router: Router) -> None:
    prompt = router.ask(QUERY, model=SMALL, fields=SHORT).run.prompt_tokens
    assert prompt is not None
    feasible = int(router.route(QUERY, exclude=LARGE, max_tokens=1).bound.needed)  # type: ignore[union-attr, arg-type]
    answer = router.ask(QUERY, model=SMALL, max_tokens=feasible, fields={"seed": 1})
    spent = (answer.run.prompt_tokens or 0) + (answer.run.completion_tokens or 0)
    assert spent == feasible and answer.run.ending == "cut"


def test_what_a_gguf_cannot_do_is_the_next_ones(own_folders: Path, scripted_gguf: Path) -> None:
    with serving(lambda *_: Said(TEXT, 12, 9)) as cloud:
        (own_folders / "config.toml").write_text(settings(scripted_gguf, cloud.address))
        with Router.load() as router:
            answer = router.ask(QUERY, alpha=0.0, fields={"tools": [{"type": "function", "function": {"name": "f"}}]})
    assert answer.text == TEXT and "not supported on the device: tools" in answer.run.attempts[0].error


def test_a_gguf_that_does_not_load_is_followed_by_the_next(
    own_folders: Path, scripted_gguf: Path, tmp_path: Path
) -> None:
    """A sound header, and weights that llama.cpp wants and does not find."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(scripted_gguf.read_bytes().replace(b"blk.1.attn_k.weight", b"blk.1.attn_x.weight"))
    with serving(lambda *_: Said(TEXT, 12, 9)) as cloud:
        (own_folders / "config.toml").write_text(settings(broken, cloud.address))
        with Router.load() as router:
            assert router.ask(QUERY, alpha=0.0).text == TEXT
            with pytest.raises(UnansweredError, match="cannot load it"):
                router.ask(QUERY, alpha=0.0, local_only=True)
    assert len(cloud.calls) == 1


def test_every_answer_keeps_the_time_that_route_expects_up_to_date(router: Router) -> None:
    def expected(of: Router) -> float | None:
        rows = {one.model: one for one in of.route(QUERY).candidates}
        return rows[SMALL].seconds

    assert expected(router) is None, "its card says nothing of its speed"
    before = expected(router)
    for _ in range(2):
        router.ask(QUERY, model=SMALL, fields={"max_tokens": 40, "temperature": 0})
        now = expected(router)
        assert now is not None and now != before
        before = now
    with Router.load() as another:
        assert expected(another) == before, "it is kept"
        card = next(one for one in another.pool if one.id == SMALL)
        row = next(one for one in another.route(QUERY).candidates if one.model == SMALL)
    assert row.prompt_tokens and row.tokens
    assert card.load_seconds and card.prompt_tokens_per_second and card.tokens_per_second
    reading, writing = row.prompt_tokens / card.prompt_tokens_per_second, row.tokens / card.tokens_per_second
    assert before == pytest.approx(card.load_seconds + reading + writing)


def test_what_is_wrong_with_a_file_is_said_with_what_to_do(tmp_path: Path) -> None:
    card = ModelCard(SMALL, "device", gguf=str(tmp_path / "gone.gguf"))
    with DeviceHost(cache_dir=tmp_path) as host, pytest.raises(ProviderError, match="write the right gguf on its card"):
        budget = TokenBudget(None, PromptTokens(1.0, 1.0), None)
        DeviceProvider(host).begin(card, [{"role": "user", "content": "x"}], {}, budget, math.inf)


def test_a_worker_that_dies_in_the_middle_breaks_its_answer_and_the_next_has_a_new_one(router: Router) -> None:
    with router.stream(QUERY, model=SMALL, fields={"max_tokens": 2000}) as stream:
        came = next(stream)
        (worker,) = workers()
        worker.send_signal(signal.SIGKILL)
        with pytest.raises(BrokenAnswerError, match=f"{SMALL} broke off") as broken:
            came += "".join(stream)
    assert broken.value.text.startswith(came) and broken.value.run.ending == "broken"
    assert router.ask(QUERY, model=SMALL, fields=SHORT).text


def test_leaving_a_stream_frees_the_worker_and_closing_the_router_ends_it(router: Router) -> None:
    with router.stream(QUERY, model=SMALL, fields={"max_tokens": 3000}) as stream:
        next(stream)
    assert stream.answer is not None and stream.answer.run.ending == "cancelled"
    assert router.ask(QUERY, model=SMALL, fields=SHORT).run.completion_tokens == 12
    assert len(workers()) == 1
    router.close()
    assert workers() == []


def test_two_samples_that_differ_are_doubted_and_two_that_do_not_are_believed(
    own_folders: Path, scripted_gguf: Path
) -> None:
    with serving(lambda *_: Said(TEXT, 12, 9)) as cloud:
        (own_folders / "config.toml").write_text(settings(scripted_gguf, cloud.address))
        with Router.load(verify=2) as router:
            answer = router.ask(QUERY, alpha=0.0, fields=WARM)
            here = router.ask(QUERY, alpha=0.0, fields=WARM, local_only=True)
            alike = router.ask(QUERY, alpha=0.0, fields={**WARM, "top_p": 1e-9}, local_only=True)
    assert answer.text == TEXT and answer.run.model == LARGE and "contradicted itself" in answer.run.attempts[0].error
    assert here.run.model == SMALL and "contradicted itself" in here.warnings[0]
    assert alike.run.attempts == (), "one who always says the same is believed"


@pytest.fixture
def home(tmp_path: Path, scripted_gguf: Path) -> Path:
    """A user with a GGUF that ends its answer soon: few tokens fit its card's context."""
    shutil.copy(scripted_gguf, tmp_path / "ours.gguf")
    (tmp_path / "config.toml").write_text(settings(tmp_path / "ours.gguf", "http://192.0.2.1/v1"))
    return tmp_path


def limited(*more: str) -> list[str]:
    return ["ask", QUERY, "--json", "--max-tokens", "460", *more]


@pytest.mark.usefixtures("can_cut")
def test_it_answers_with_the_network_cut_off_worker_included(home: Path) -> None:
    done = subprocess.run(
        [*CUT, *command(*limited("--local-only"))],
        env=user(home) | {"SCOPE_EDGE_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f'"model": "{SMALL}"' in done.stdout and '"counted": "tokenizer"' in done.stdout


def test_a_trace_shows_no_connection_to_anywhere_else(home: Path, trace: Trace) -> None:
    done = subprocess.run(
        [*trace.command, *command(*limited("--local-only"))],
        env=user(home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert trace.ran("child.py"), "the worker is traced, too"
    assert not trace.outside()


def test_a_connection_elsewhere_would_be_seen_in_a_trace(home: Path, trace: Trace) -> None:
    environment = user(home) | {"SCOPE_EDGE_SILENCE_SECONDS": "1"}
    args = [*trace.command, *command("ask", QUERY, "--model", LARGE, "--json")]
    subprocess.run(args, env=environment, capture_output=True, check=False)
    assert trace.outside(), "the cloud model's address was called"


def test_the_answer_of_a_gguf_is_printed_as_it_comes(home: Path) -> None:
    process = subprocess.Popen(
        command("ask", QUERY, "--model", SMALL),
        env=user(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heed_ctrl_c,
    )
    assert process.stdout is not None
    first = os.read(process.stdout.fileno(), 64)
    assert first and process.poll() is None, "the rest is still being written"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and b"Traceback" not in err
    assert SMALL.encode() in err
    assert spawn(["log", "--json"], user(home)).json[0]["run"]["ending"] == "cancelled"


def test_an_answer_has_a_limit_of_its_own(router: Router, own_folders: Path) -> None:
    assert router.ask(QUERY, model=SMALL, fields={"temperature": 0}).run.completion_tokens < 4097  # type: ignore[operator]
    (own_folders / "config.toml").write_text(
        (own_folders / "config.toml").read_text().replace("threads = 1", "threads = 1\nmax_answer_tokens = 9")
    )
    with Router.load() as capped:
        for fields, tokens in (({}, 9), ({"max_tokens": 5}, 5), ({"max_completion_tokens": 50}, 9)):
            run = capped.ask(QUERY, model=SMALL, fields={"temperature": 0, **fields}).run
            assert (run.completion_tokens, run.ending) == (tokens, "cut")
        for most, tokens in ((12, 9), (3, 3)):
            over = capped.ask(QUERY, alpha=0.0, exclude=LARGE, max_tokens=most, fallback="cheapest")
            assert over.decision.over_budget and over.run.completion_tokens == tokens, "no fallback lifts either"
