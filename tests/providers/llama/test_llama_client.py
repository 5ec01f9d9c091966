"""The worker is really broken here, in every way it can break, and every time the caller is answered and the next call works."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from scope_edge.errors import AssetError, WorkerError
from scope_edge.providers.llama import process as child_module
from scope_edge.providers.llama import speed
from scope_edge.providers.llama.client import LlamaClient, count_unloaded
from scope_edge.providers.llama.gguf import describe_gguf
from scope_edge.providers.llama.memory import Plan
from scope_edge.providers.llama.messages import Job, Sampling, TextPiece
from scope_edge.providers.llama.process import COMMAND_VARIABLE, installed
from scope_edge.providers.llama.speed import RunSpeed, SpeedRecord

pytestmark = [
    pytest.mark.skipif(not installed(), reason="llama-cpp-python is not installed"),
    pytest.mark.skipif(os.name == "nt", reason="signals"),
]

REPOSITORY = Path(child_module.__file__).resolve().parents[3]
PLAN = Plan(context=4096, batch=128, gpu_layers=0, threads=1, needs=0, why="")
PROMPT = (
    TextPiece("<|im_start|>user\n", True),
    TextPiece("How many questions will the model get right?"),
    TextPiece("<|im_end|>\n<|im_start|>assistant\n", True),
)
SHORT = Job(PROMPT, 4, "cot", 8, Sampling(seed=3))
# More than any of these machines decodes while a test waits.
ENDLESS = [Job(PROMPT, 8, "text", 400, Sampling(seed=n)) for n in range(400)]
START = 120.0


@pytest.fixture
def client(scripted_gguf: Path, tmp_path: Path) -> Iterator[LlamaClient]:
    with LlamaClient(scripted_gguf, "tiny", PLAN, cache_dir=tmp_path / "cache") as one:
        yield one
        pid = one.pid
    assert pid is None or not psutil.pid_exists(pid), "a worker, or its zombie, is left behind"


def works(client: LlamaClient) -> None:
    results, stats = client.run([SHORT], START)
    samples = results[0].samples
    assert len(samples) == 4
    assert all(sample.p_yes is not None and 0 <= sample.p_yes <= 1 and sample.length for sample in samples)
    assert stats.decode_tokens > 0


def pid_of(client: LlamaClient) -> int:
    client.start(START)
    assert client.pid is not None
    return client.pid


def in_the_middle(client: LlamaClient, do: object, seconds: float = 0.5) -> WorkerError:
    """Do something to the worker while it decodes, and give what the caller is told."""
    pid = pid_of(client)
    timer = threading.Timer(seconds, do, [pid])  # type: ignore[arg-type]
    timer.start()
    with pytest.raises(WorkerError) as told:
        client.run(ENDLESS, 60.0)
    timer.join()
    assert not psutil.pid_exists(pid)
    assert "\n" not in str(told.value)
    return told.value


def test_a_model_loads_answers_and_ends(client: LlamaClient) -> None:
    ready = client.start(START)
    assert ready.context == PLAN.context
    assert ready.prefill_tps > 0 and ready.decode_tps > 0
    works(client)
    pid = pid_of(client)
    client.close()
    assert not psutil.pid_exists(pid)
    works(client)


def test_the_same_seed_gives_the_same_samples(client: LlamaClient) -> None:
    runs = [client.run([SHORT], START)[0][0].samples for _ in range(2)]
    assert [sample.text for sample in runs[0]] == [sample.text for sample in runs[1]]


def test_markup_in_a_users_text_is_only_text(client: LlamaClient) -> None:
    as_markup, as_text = (
        client.run([Job((TextPiece("<|im_end|>", markup),), 1, "text", 1)], START)[0][0] for markup in (True, False)
    )
    assert as_markup.prompt_tokens == 1
    assert as_text.prompt_tokens > 1


def test_characters_are_composed_as_the_models_own_tokenizer_does(client: LlamaClient) -> None:
    spelled = ("caf\u00e9 na\u00efve", "cafe\u0301 nai\u0308ve")
    one, two = (client.run([Job((TextPiece(text),), 1, "text", 1)], START)[0][0] for text in spelled)
    assert one.prompt_tokens == two.prompt_tokens


def test_a_deadline_is_kept_and_what_was_reached_is_handed_over(client: LlamaClient) -> None:
    client.start(START)
    begun = time.monotonic()
    results, _ = client.run(ENDLESS, 3.0)
    assert time.monotonic() - begun < 60, "all of it takes many minutes"
    assert len(results) == len(ENDLESS)
    assert any(sample.ending == "cancelled" for result in results for sample in result.samples)
    works(client)


def test_a_list_has_the_worker_alone_and_waits_for_nobody(client: LlamaClient) -> None:
    with pytest.raises(WorkerError, match="has ended"):
        client.stream(replace(SHORT, mode="text", samples=1), None)
    client.start(START)
    reply = client.stream(Job(PROMPT, 1, "text", None, Sampling(seed=1)), None)
    assert reply.next()
    with pytest.raises(WorkerError, match="streams are under way"):
        client.run([SHORT], START)
    assert reply.next(), "it goes on"
    reply.cancel()
    assert reply.next() is None and reply.ending == "cancelled"
    while client.requests:
        time.sleep(0.01)
    works(client)


def test_a_stopped_worker_is_not_waited_for_longer_than_a_streams_deadline(client: LlamaClient) -> None:
    pid = pid_of(client)
    for seconds in (0.5, 2.0, 8.0):  # until it is long enough for a word, however busy the machine
        reply = client.stream(Job(PROMPT, 1, "text", None, Sampling(seed=1)), seconds)
        if reply.next():
            break
    os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    while reply.next() is not None:
        pass
    assert reply.ending == "cancelled" and time.monotonic() - begun < 60
    os.kill(pid, signal.SIGCONT)


def test_a_stopped_worker_is_found_out_by_all_its_streams(client: LlamaClient, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = pid_of(client)
    replies = [client.stream(Job(PROMPT, 1, "text", None, Sampling(seed=n)), None) for n in range(3)]
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(child_module, "SILENCE_SECONDS", 2.0)
    for reply in replies:
        with pytest.raises(WorkerError, match="not been heard of"):
            while reply.next() is not None:
                pass
    assert not psutil.pid_exists(pid)
    monkeypatch.undo()
    works(client)


def test_killed_in_the_middle(client: LlamaClient) -> None:
    assert "SIGKILL" in str(in_the_middle(client, lambda pid: os.kill(pid, signal.SIGKILL)))
    works(client)


def test_crashed_in_the_middle_goes_down_a_rung(client: LlamaClient, tmp_path: Path) -> None:
    assert "SIGSEGV" in str(in_the_middle(client, lambda pid: os.kill(pid, signal.SIGSEGV)))
    assert client.start(START).rung == "no repacking"
    works(client)
    assert speed.remembered_configuration("tiny", tmp_path / "cache") == "no repacking"


def test_stopped_in_the_middle(client: LlamaClient, monkeypatch: pytest.MonkeyPatch) -> None:
    pid_of(client)
    monkeypatch.setattr(child_module, "SILENCE_SECONDS", 2.0)
    assert "not been heard of" in str(in_the_middle(client, lambda pid: os.kill(pid, signal.SIGSTOP)))
    monkeypatch.undo()
    works(client)


def test_stopped_before_a_request_with_a_deadline(client: LlamaClient) -> None:
    os.kill(pid_of(client), signal.SIGSTOP)
    begun = time.monotonic()
    with pytest.raises(WorkerError, match="did not answer within 1"):
        client.run([SHORT], 1.0)
    assert time.monotonic() - begun < 60
    works(client)


def test_a_rung_that_crashes_is_left_for_the_next_one_and_that_is_remembered(
    client: LlamaClient, scripted_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A worker that crashes whenever weights are to be repacked, as llama.cpp does on AMX.
    script = tmp_path / "amx.py"
    script.write_text(
        textwrap.dedent(f"""
        import os, signal, sys
        sys.path.insert(0, {str(REPOSITORY)!r})
        from scope_edge.providers.llama import native, worker
        load = native.open_model
        def open_model(path, **options):
            if options["repack"]:
                os.kill(os.getpid(), signal.SIGSEGV)
            return load(path, **options)
        native.open_model = open_model
        worker.main()
        """)
    )
    monkeypatch.setenv(COMMAND_VARIABLE, f"{sys.executable} {script}")
    assert client.measure(START).rung == "no repacking"
    works(client)
    with LlamaClient(scripted_gguf, "tiny", PLAN, cache_dir=tmp_path / "cache") as other:
        assert speed.remembered("tiny", tmp_path / "cache") is not None
        assert other.start(START).rung == "no repacking"


@pytest.fixture
def full_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make workers that end as llama.cpp does where CUDA has no memory left, at a stage, unless they see no GPU."""

    def make(stage: str) -> None:
        script = tmp_path / "full.py"
        script.write_text(
            textwrap.dedent(f"""
            import os, sys
            sys.path.insert(0, {str(REPOSITORY)!r})
            import llama_cpp
            from scope_edge.providers.llama import native, worker
            def ends(do):
                def instead(*arguments, **options):
                    if os.environ.get("CUDA_VISIBLE_DEVICES") != "-1":
                        print("ggml-cuda.cu:109: CUDA error", file=sys.stderr, flush=True)
                        os.abort()
                    return do(*arguments, **options)
                return instead
            owner, name = {{
                "start": (native, "start"),
                "model": (native, "open_model"),
                "context": (llama_cpp, "llama_init_from_model"),
                "warm-up": (llama_cpp, "llama_decode"),
                "list": (worker.Worker, "_run"),
                "stream": (worker.Worker, "_stream"),
            }}[{stage!r}]
            setattr(owner, name, ends(getattr(owner, name)))
            worker.main()
            """)
        )
        monkeypatch.setenv(COMMAND_VARIABLE, f"{sys.executable} {script}")

    return make


@pytest.mark.parametrize("stage", ["start", "model", "context", "warm-up"])
def test_on_a_full_gpu_a_model_comes_up_without_it(
    scripted_gguf: Path, tmp_path: Path, full_gpu: Callable[[str], None], stage: str
) -> None:
    full_gpu(stage)
    with LlamaClient(scripted_gguf, "tiny", replace(PLAN, gpu_layers=-1), cache_dir=tmp_path / "cache") as one:
        ready = one.start(START)
        assert ready.rung == "no GPU" and not ready.gpu
        works(one)
    assert speed.remembered_configuration("tiny", tmp_path / "cache") == "no GPU"
    (kept,) = (tmp_path / "cache" / "llama").glob("*.json")
    os.utime(kept, (0, 0))
    assert speed.remembered_configuration("tiny", tmp_path / "cache") is None, "the GPU is tried again"


@pytest.mark.long
@pytest.mark.parametrize("stage", ["list", "stream"])
def test_a_gpu_that_fills_up_later_costs_two_requests(
    scripted_gguf: Path, tmp_path: Path, full_gpu: Callable[[str], None], stage: str
) -> None:
    full_gpu(stage)
    with LlamaClient(scripted_gguf, "tiny", replace(PLAN, gpu_layers=-1), cache_dir=tmp_path / "cache") as one:
        rungs = []
        for _ in range(2):
            rungs.append(one.start(START).rung)
            with pytest.raises(WorkerError, match=r"SIGABRT.*CUDA error"):
                if stage == "list":
                    one.run([SHORT], START)
                else:
                    one.stream(Job(PROMPT, 1, "text", 4), START).next()
        assert [*rungs, one.start(START).rung] == ["as configured", "no repacking", "no GPU"]
        works(one)
        assert one.stream(Job(PROMPT, 1, "text", 4, Sampling(seed=1)), START).next()


def test_what_stays_on_the_processor_does_not_look_at_a_full_gpu(
    scripted_gguf: Path, tmp_path: Path, full_gpu: Callable[[str], None]
) -> None:
    full_gpu("model")
    with LlamaClient(scripted_gguf, "tiny", PLAN, cache_dir=tmp_path / "cache") as one:
        assert one.start(START).rung == "as configured"
    assert count_unloaded(scripted_gguf, Job(PROMPT, 1, "text", 4)) > 0


@pytest.mark.parametrize("command", ['"unbalanced', " ", "/bin/cat", "/bin/false", "/bin/echo hello"])
def test_a_command_that_starts_no_worker(client: LlamaClient, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv(COMMAND_VARIABLE, command)
    with pytest.raises(WorkerError):
        client.start(START)
    monkeypatch.delenv(COMMAND_VARIABLE)
    works(client)


def test_one_slow_load_or_answer_lowers_the_speed_by_a_fifth_and_many_move_it(
    client: LlamaClient, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = client.start(START)
    assert speed.remembered("tiny", cache) == first and first.alone_tps > 0
    fast = replace(first, prefill_tps=1e12, decode_tps=1e12, alone_tps=1e12, load_seconds=1e-9)
    client.close()
    speed.remember("tiny", cache, fast.rung, fast)
    client.start(START)
    kept = speed.remembered("tiny", cache)
    assert kept is not None and kept.alone_tps == 1e12, "answers tell, where there were any"
    assert [kept.prefill_tps, kept.decode_tps] == pytest.approx([0.8e12] * 2, rel=1e-3)
    assert kept.load_seconds == pytest.approx(1.25e-9, rel=1e-3)
    since = speed.revision()
    reply = client.stream(Job(PROMPT, 1, "text", 32, Sampling(seed=1)), None)
    while reply.next():
        pass
    assert reply.ending == "limit" and speed.revision() > since
    slower = speed.remembered("tiny", cache)
    assert slower is not None and slower.alone_tps == pytest.approx(0.8e12, rel=1e-3)
    for n in range(1, 4):  # one by one in a list, as a fingerprint begins
        client.run([Job(PROMPT, 1, "text", 32, Sampling(seed=1))], START)
        slower = speed.remembered("tiny", cache)
        assert slower is not None and slower.alone_tps == pytest.approx(0.8 ** (n + 1) * 1e12, rel=1e-3)
    client.run([SHORT], START)
    assert speed.remembered("tiny", cache) == slower, "four samples at once say nothing of one"


def test_what_an_answer_says_of_the_speed(tmp_path: Path) -> None:
    known = SpeedRecord("as configured", 2.0, 100.0, 10.0, 40.0, 8, 4096, False)
    assert known.after(RunSpeed(100, 10.0, 50, 50.0)) == replace(known, prefill_tps=82.0, alone_tps=8.2)
    assert known.after(RunSpeed(10, 10.0, 5, 50.0)) == known, "too short to tell"
    assert known.after(RunSpeed(100, 0.0, 50, 0.0)) == known
    worn = known
    for _ in range(10):
        worn = worn.after(RunSpeed(0, 0.0, 50, 10.0))
    assert 5.0 < worn.alone_tps < 5.6, "half as fast for ten answers"
    assert worn.since(replace(known, gpu=True)) == worn, "another way of loading says nothing of this one"
    known = replace(known, rung="no GPU")
    speed.remember("model", tmp_path, known.rung, known)
    (file,) = (tmp_path / "llama").iterdir()
    os.utime(file, (1000.0, 1000.0))
    speed.learn("model", tmp_path, RunSpeed(100, 10.0, 50, 50.0))
    assert speed.remembered("model", tmp_path) == replace(known, prefill_tps=82.0, alone_tps=8.2)
    assert speed.remembered_configuration("model", tmp_path) is None, "answers do not put off the GPU's next chance"


@pytest.mark.long
def test_measuring_tries_every_rung_and_the_fastest_is_used_from_then_on(client: LlamaClient, tmp_path: Path) -> None:
    best = client.measure(START)
    assert client.pid is None
    assert speed.remembered("tiny", tmp_path / "cache") == best
    assert client.start(START).rung == best.rung


def test_a_model_that_computes_nonsense_is_refused(
    client: LlamaClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "broken.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(REPOSITORY)!r})
        from scope_edge.providers.llama import native, worker
        decode = native.Native.decode
        def broken(self, tokens, positions, sequences, wanted):
            logits = decode(self, tokens, positions, sequences, wanted)
            return logits[:, ::-1] if sum(wanted) > 1 else logits
        native.Native.decode = broken
        worker.main()
        """)
    )
    monkeypatch.setenv(COMMAND_VARIABLE, f"{sys.executable} {script}")
    with pytest.raises(WorkerError, match="decoded together"):
        client.start(START)


@pytest.mark.long
def test_a_truncated_gguf(scripted_gguf: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    whole = scripted_gguf.read_bytes()
    for size in (len(whole) - 4096, len(whole) // 2, 64, 8):
        broken.write_bytes(whole[:size])
        with LlamaClient(broken, f"broken {size}", PLAN, cache_dir=tmp_path) as one, pytest.raises(WorkerError) as told:
            one.start(START)
        assert "broken.gguf" in str(told.value)


def test_a_gguf_of_an_unknown_architecture(scripted_gguf: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(scripted_gguf.read_bytes().replace(b"qwen3", b"qwenX"))
    with LlamaClient(other, "other", PLAN, cache_dir=tmp_path) as one, pytest.raises(WorkerError, match="qwenX"):
        one.start(START)
    with pytest.raises(AssetError, match="qwenX"):
        describe_gguf(other)


@pytest.mark.long
def test_a_context_that_no_memory_holds(scripted_gguf: Path, tmp_path: Path) -> None:
    huge = Plan(context=2**31, batch=128, gpu_layers=0, threads=1, needs=0, why="")
    with LlamaClient(scripted_gguf, "tiny", huge, cache_dir=tmp_path) as one, pytest.raises(WorkerError):
        one.start(START)
    with LlamaClient(scripted_gguf, "tiny", PLAN, cache_dir=tmp_path) as one:
        works(one)


def test_no_orphan_when_the_parent_is_killed(scripted_gguf: Path, tmp_path: Path) -> None:
    script = f"""
import sys, time
sys.path.insert(0, {str(REPOSITORY)!r})
from pathlib import Path
from scope_edge.providers.llama.client import LlamaClient
from scope_edge.providers.llama.memory import Plan
one = LlamaClient(Path({str(scripted_gguf)!r}), "tiny", Plan(2048, 64, 0, 1, 0, ""), cache_dir=Path({str(tmp_path)!r}))
one.start(120)
print(one.pid, flush=True)
time.sleep(120)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    gone, left = psutil.wait_procs([worker], timeout=60)
    assert gone and not left


def test_a_hostile_current_folder(scripted_gguf: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    for name in ("numpy", "msgpack", "llama_cpp", "json", "scope_edge"):
        (trap / f"{name}.py").write_text(
            "import pathlib; pathlib.Path(__file__).with_suffix('.sprung').touch(); raise SystemExit(3)"
        )
    script = f"""
import sys
sys.path = [entry for entry in sys.path if entry]
sys.path.append({str(REPOSITORY)!r})
from pathlib import Path
from scope_edge.providers.llama.client import LlamaClient
from scope_edge.providers.llama.memory import Plan
sys.path.insert(0, {str(trap)!r})
with LlamaClient(Path({str(scripted_gguf)!r}), "tiny", Plan(2048, 64, 0, 1, 0, ""), cache_dir=Path({str(tmp_path)!r})) as one:
    print(one.start(120).rung)
"""
    ended = subprocess.run(
        [sys.executable, "-P", "-c", script] if sys.version_info >= (3, 11) else [sys.executable, "-I", "-c", script],
        cwd=trap,
        env={**os.environ, "PYTHONPATH": str(trap)} if sys.version_info < (3, 11) else dict(os.environ),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "as configured" in ended.stdout, ended.stderr
    assert not list(trap.glob("*.sprung"))


def test_ctrl_c_is_the_parents_to_answer(client: LlamaClient) -> None:
    os.kill(pid_of(client), signal.SIGINT)
    works(client)


def test_a_missing_file_and_a_missing_program(
    tmp_path: Path, scripted_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        LlamaClient(tmp_path / "none.gguf", "none", PLAN, cache_dir=tmp_path) as one,
        pytest.raises(WorkerError) as told,
    ):
        one.start(START)
    assert "none.gguf" in str(told.value)
    monkeypatch.setenv(COMMAND_VARIABLE, str(tmp_path / "no-such-program"))
    with LlamaClient(scripted_gguf, "tiny", PLAN, cache_dir=tmp_path) as one, pytest.raises(WorkerError) as told:
        one.start(START)
    assert "no worker process could be started" in str(told.value)


def test_what_a_gguf_says_of_itself(tiny_gguf: Path, tmp_path: Path) -> None:
    shape = describe_gguf(tiny_gguf)
    assert (shape.architecture, shape.layers, shape.context) == ("qwen3", 2, 4096)
    assert shape.chat_template
    assert shape.kv_bytes == 2 * 2 * 2 * (32 + 32), "bytes x layers x heads x (key + value)"
    text = tmp_path / "text.gguf"
    text.write_text("not a model")
    with pytest.raises(AssetError, match="not a GGUF"):
        describe_gguf(text)
    with pytest.raises(AssetError, match="cannot be read"):
        describe_gguf(tmp_path / "none.gguf")
    shutil.copy(tiny_gguf, text)
    text.write_bytes(text.read_bytes()[:200])
    with pytest.raises(AssetError, match="fresh copy"):
        describe_gguf(text)
