"""Device models as an application meets them: real workers, several models, many streams, and everything that goes wrong."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from repository import DOCS, ROOT
from scripted_gguf import ACCENT, FINISH, TEMPLATE, after, ring
from tiny_qwen3 import SPECIAL

from scope_edge.errors import UsageError, WorkerError
from scope_edge.providers.llama import loadable, memory
from scope_edge.providers.llama.host import DeviceHost, DeviceStream, Generation, Message, Sampling
from scope_edge.providers.llama.loadable import look_up
from scope_edge.providers.llama.memory import CONTEXT, GIB, SPARE, available_memory
from scope_edge.providers.llama.model_manager import STAY
from scope_edge.providers.llama.process import COMMAND_VARIABLE, installed
from scope_edge.settings.config import Settings
from scope_edge.types import ModelCard

pytestmark = [
    pytest.mark.skipif(not installed(), reason="llama-cpp-python is not installed"),
    pytest.mark.skipif(os.name == "nt", reason="signals"),
]
# One thread: two wait for each other at every layer, which takes long on a machine with other things to do.
SETTINGS = Settings(threads=1, keep_alive=-1)
COLD = Sampling(temperature=0.0)
QUESTION = (Message("user", "How many questions will the model get right?"),)
SHORT = Generation(12, COLD)
# A second or more of writing: long enough to be met in the middle.
LONG = Generation(None, COLD)
PATIENCE = 120.0


@pytest.fixture
def cards(own_folders: Path, scripted_gguf: Path) -> list[ModelCard]:
    """Three models, each in a file of its own."""
    names = ("a", "b", "c")
    for name in names:
        shutil.copy(scripted_gguf, own_folders / f"{name}.gguf")
    return [ModelCard(name, "device", gguf=str(own_folders / f"{name}.gguf")) for name in names]


@pytest.fixture
def hosts(own_folders: Path) -> Iterator[Callable[..., DeviceHost]]:
    """Makes hosts, and looks that they leave nothing behind."""
    made: list[DeviceHost] = []

    def make(settings: Settings = SETTINGS, reserved_bytes: int = 0) -> DeviceHost:
        made.append(
            DeviceHost(
                cache_dir=own_folders / "cache",
                threads=settings.threads,
                keep_alive=settings.keep_alive,
                reserved_bytes=reserved_bytes,
            )
        )
        return made[-1]

    yield make
    for host in made:
        host.close()
    assert not workers(), "a worker is left behind"


@pytest.fixture
def host(hosts: Callable[..., DeviceHost]) -> DeviceHost:
    return hosts()


def workers() -> list[psutil.Process]:
    """Worker processes of ours, zombies too."""
    found = []
    for one in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it has just been reaped
            if one.status() == psutil.STATUS_ZOMBIE or "child.py" in " ".join(one.cmdline()):
                found.append(one)
    return found


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for what must come true."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)


def together(count: int, do: Callable[[int], None]) -> None:
    """Run it in so many threads; their failures are the test's."""
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(do, range(count), timeout=PATIENCE))


def said(host: DeviceHost, card: ModelCard, text: str = QUESTION[0].text, options: Generation = SHORT) -> str:
    return "".join(host.stream(card, (Message("user", text),), options))


def begun(stream: DeviceStream) -> DeviceStream:
    """A stream that is being written."""
    next(stream)
    return stream


def room_for(models: float, card: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose memory holds so many models like this one."""
    known = look_up(Path(card.gguf or ""))
    needs = known.size + known.shape.kv_bytes * CONTEXT + GIB // 2
    monkeypatch.setattr(memory, "available_memory", lambda: SPARE + int(models * needs))


# One stream


def test_an_answer_comes_in_pieces_and_is_counted(host: DeviceHost, cards: list[ModelCard]) -> None:
    stream = host.stream(cards[0], QUESTION, Generation(30, COLD))
    assert (stream.ending, stream.prompt_tokens, stream.load_seconds) == (None, None, None)
    pieces = list(stream)
    assert len(pieces) > 10 and all(pieces) and "".join(pieces) == after("?", 30)
    assert (stream.ending, stream.completion_tokens) == ("limit", 30)
    assert stream.prompt_tokens == host.count(cards[0], QUESTION)
    assert stream.load_seconds is not None and stream.load_seconds > 0
    again = host.stream(cards[0], QUESTION, Generation(30, COLD))
    assert "".join(again) == "".join(pieces)
    assert again.load_seconds == 0.0 and host.loaded == ("a",)
    assert list(again) == [], "read to its end, it stays there"


def test_prompts_are_counted_without_loading_the_model(host: DeviceHost, cards: list[ModelCard]) -> None:
    chat = (Message("system", "Be brief."), *QUESTION, Message("assistant", "Seven."), Message("user", "Why?"))
    unloaded = host.count(cards[0], chat)
    assert host.loaded == ()
    said(host, cards[0])
    assert host.count(cards[0], chat) == unloaded > host.count(cards[0], QUESTION)


def test_a_file_is_hashed_once_however_it_comes_to_be_loaded(
    host: DeviceHost, cards: list[ModelCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    original = loadable.gguf_sha256
    monkeypatch.setattr(loadable, "gguf_sha256", lambda path: hashed.append(path) or original(path))
    with host.stream(cards[0], QUESTION, SHORT):
        pass
    assert not hashed, "one that was never read costs nothing"
    host.count(cards[0], QUESTION)
    said(host, cards[0])
    said(host, cards[0])
    assert len(hashed) == 1


def test_text_ends_before_a_stop_text_and_frees_its_place(host: DeviceHost, cards: list[ModelCard]) -> None:
    stop = after("?", 21).removeprefix(after("?", 20))
    stream = host.stream(cards[0], QUESTION, Generation(60, COLD, stop=("not in it at all", stop)))
    assert "".join(stream) == after("?", 20)
    assert stream.ending == "stop" and stream.completion_tokens < 60
    assert host.sequences == 0


def test_a_turn_that_ends_ends_the_text_and_control_tokens_are_not_shown(
    host: DeviceHost, cards: list[ModelCard]
) -> None:
    for seed in range(3):
        stream = host.stream(
            cards[0], (Message("user", f"Here it is at an{FINISH}"),), Generation(400, Sampling(seed=seed))
        )
        assert "".join(stream) == "" and stream.ending == "stop" and stream.completion_tokens <= 1
    hot = "".join(host.stream(cards[0], QUESTION, Generation(400, Sampling(5.0, 1.0, 2000, 1))))
    assert not any(mark in hot for mark in SPECIAL)


def test_no_piece_is_half_a_character(host: DeviceHost, cards: list[ModelCard]) -> None:
    """The two bytes of one character are a token each; and of whatever a hot sample writes, every piece is text."""
    pieces = list(host.stream(cards[0], (Message("user", f"This is one{ACCENT}"),), Generation(12, COLD)))
    assert pieces[0].startswith("é") and "".join(pieces) == f"é{ring()[0]}{after(ring()[0], 9)}"
    for seed in range(4):
        whole = "".join(host.stream(cards[0], QUESTION, Generation(60, Sampling(100.0, 1.0, 2000, seed))))
        assert whole.encode().decode() == whole
    cut = "".join(host.stream(cards[0], (Message("user", f"This is one{ACCENT}"),), Generation(1, COLD)))
    assert cut == "\ufffd", "half of it, and nothing can follow"


@pytest.mark.long
def test_no_limit_is_the_context_and_a_prompt_beyond_it_is_refused(host: DeviceHost, cards: list[ModelCard]) -> None:
    long = " ".join(["question"] * 4000)
    near = host.count(cards[0], (Message("user", long[: len(long) * 9 // 10]),))
    assert 3500 < near < 4096, "the model was trained on 4096"
    stream = host.stream(cards[0], (Message("user", long[: len(long) * 9 // 10]),), Generation(None, COLD))
    list(stream)
    assert stream.ending == "limit" and near + stream.completion_tokens == 4096
    with pytest.raises(UsageError, match="the context holds 4096"):
        said(host, cards[0], long + long)
    assert said(host, cards[0]) and host.sequences == 0


@pytest.mark.parametrize(
    ("messages", "options", "complaint"),
    [
        ((), Generation(5, COLD), "at least one message"),
        ((Message("tool", "42"),), Generation(5, COLD), "message 1: unknown role 'tool'"),
        ((Message("user", "\ud800"),), Generation(5, COLD), "lone surrogate"),
        (QUESTION, Generation(0, COLD), "max_tokens"),
        (QUESTION, Generation(5, COLD, stop=("",)), "stop must be non-empty texts"),
        (QUESTION, Generation(5, COLD, deadline=float("nan")), "deadline"),
        (QUESTION, Generation(5, replace(COLD, top_k=0)), "top_k"),
        (QUESTION, Generation(5, replace(COLD, top_p=1.5)), "top_p"),
        (QUESTION, Generation(5, replace(COLD, temperature=-1)), "temperature"),
        (QUESTION, Generation(5, replace(COLD, seed=-1)), "seed"),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_line_before_anything_is_loaded(
    host: DeviceHost, cards: list[ModelCard], messages: tuple[Message, ...], options: Generation, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint) as told:
        host.stream(cards[0], messages, options)
    assert "\n" not in str(told.value) and not workers()


def test_numbers_without_end_are_taken_for_very_large_ones(host: DeviceHost, cards: list[ModelCard]) -> None:
    stream = host.stream(cards[0], QUESTION, Generation(10**30, Sampling(1.0, 1.0, 10**30, 10**30), ("\n",)))
    next(stream)
    stream.close()


def test_cards_that_are_not_run_here_are_refused(host: DeviceHost, own_folders: Path) -> None:
    options = Generation(5, COLD)
    with pytest.raises(UsageError, match="names no gguf"):
        host.stream(ModelCard("x", "device", endpoint="http://127.0.0.1:1/v1"), QUESTION, options)
    with pytest.raises(UsageError, match="no file"):
        host.count(ModelCard("x", "device", gguf=str(own_folders / "none.gguf")), QUESTION)


def test_a_conversation_the_template_refuses_is_a_matter_of_usage_and_harms_nobody(
    host: DeviceHost, own_folders: Path, scripted_gguf: Path
) -> None:
    # A template of the same length that takes one message only.
    template = TEMPLATE.encode()
    strict = b"{{ raise_exception('one message only') if messages[1] }}{{ messages[0]['content'] }}"
    path = own_folders / "strict.gguf"
    path.write_bytes(scripted_gguf.read_bytes().replace(template, strict.ljust(len(template))))
    card = ModelCard("strict", "device", gguf=str(path))
    running = begun(host.stream(card, QUESTION, LONG))
    talk = (*QUESTION, Message("assistant", "So?"), *QUESTION)
    with pytest.raises(UsageError, match="one message only"):
        list(host.stream(card, talk, Generation(5, COLD)))
    with pytest.raises(UsageError, match="one message only"):
        host.count(card, talk)
    assert next(running)
    running.close()


def test_the_documented_example_runs(own_folders: Path, cards: list[ModelCard]) -> None:
    page = DOCS / "device.md"
    example = page.read_text("utf-8").split("```py\n")[1].split("```")[0]
    (own_folders / "config.toml").write_text(
        f'keep_alive = 0\nthreads = 1\n[models.our-finetune]\nwhere = "device"\ngguf = "{cards[0].gguf}"\n'
    )
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"(stop|limit) \d+ \d+ \d+\.\d+\n$", done.stdout), done.stdout


# Many streams


def test_eight_at_once_say_what_each_says_alone(host: DeviceHost, cards: list[ModelCard]) -> None:
    """That the bookkeeping changes nothing is proven with exact arithmetic in test_llama_streams.py; here with real workers."""
    lasts = ring()[::70][:8]
    texts = [f"Question {n}: how long is the{last}" for n, last in enumerate(lasts)]
    options = Generation(60, COLD)
    alone = [after(last, 60) for last in lasts]
    beside, most = [""] * 8, [0]

    def one(number: int) -> None:
        pieces = []
        for piece in host.stream(cards[0], (Message("user", texts[number]),), options):
            pieces.append(piece)
            most[0] = max(most[0], host.sequences)
        beside[number] = "".join(pieces)

    together(8, one)
    assert most[0] > 4, "they were not at it at the same time"
    assert beside == alone
    assert host.sequences == 0 and len(workers()) == 1


def test_more_than_there_are_slots_wait_for_one(host: DeviceHost, cards: list[ModelCard]) -> None:
    texts: dict[int, str] = {}
    together(40, lambda n: texts.update({n: said(host, cards[0], f"Question {n}?", Generation(8, COLD))}))
    assert len(texts) == 40 and all(texts.values())
    assert host.sequences == 0


def test_a_newcomer_is_answered_while_others_are_still_at_it(host: DeviceHost, cards: list[ModelCard]) -> None:
    going = [begun(host.stream(cards[0], (Message("user", f"Tell me {n}"),), LONG)) for n in range(3)]
    assert said(host, cards[0])
    assert all(one.ending is None and next(one) for one in going)
    for one in going:
        one.close()


def test_a_conversation_that_goes_on_is_not_read_again(host: DeviceHost, cards: list[ModelCard]) -> None:
    chat: tuple[Message, ...] = (Message("user", " ".join(["A long story about water and the sea."] * 40)),)
    first = host.stream(cards[0], chat, Generation(20, COLD))
    answer = "".join(first)
    said(host, cards[0], "Something else.")
    chat = (*chat, Message("assistant", answer), Message("user", "And then?"))
    second = host.stream(cards[0], chat, Generation(20, COLD))
    assert "".join(second) == after("?", 20)
    assert first.cached_tokens is not None and first.cached_tokens < 10
    assert first.prompt_tokens is not None and second.cached_tokens is not None
    assert second.cached_tokens >= first.prompt_tokens - 1


# Giving up


def test_one_that_is_closed_frees_its_place_and_the_others_go_on(host: DeviceHost, cards: list[ModelCard]) -> None:
    streams = [begun(host.stream(cards[0], (Message("user", f"Tell me {n}"),), LONG)) for n in range(16)]
    assert host.sequences == 16, "all slots there are"
    for one in streams[1:]:
        one.close()
        one.close()
    assert all(one.ending == "cancelled" and list(one) == [] for one in streams[1:])
    until(lambda: host.sequences == 1, "the closed ones are freed")
    others = [begun(host.stream(cards[0], (Message("user", f"Tell me {n}"),), LONG)) for n in range(15)]
    assert next(streams[0])
    for one in (*others, streams[0]):
        one.close()
    until(lambda: host.sequences == 0, "all are freed")


def test_one_can_be_closed_while_another_thread_reads_it(host: DeviceHost, cards: list[ModelCard]) -> None:
    stream = begun(host.stream(cards[0], QUESTION, LONG))
    reader = threading.Thread(target=lambda: list(stream))
    reader.start()
    stream.close()
    reader.join(PATIENCE)
    assert not reader.is_alive() and stream.ending == "cancelled"
    until(lambda: host.sequences == 0, "it is freed")


def test_a_long_prompt_can_be_given_up_while_it_is_read(host: DeviceHost, cards: list[ModelCard]) -> None:
    said(host, cards[0])
    stream = host.stream(cards[0], (Message("user", " ".join(["water"] * 3900)),), Generation(5, COLD))
    reader = threading.Thread(target=lambda: list(stream))
    reader.start()
    until(lambda: host.sequences == 1, "it is asked")
    stream.close()
    reader.join(PATIENCE)
    until(lambda: host.sequences == 0, "it is freed")
    assert stream.ending == "cancelled" and said(host, cards[0])


def test_one_that_was_never_read_costs_nothing(host: DeviceHost, cards: list[ModelCard]) -> None:
    with host.stream(cards[0], QUESTION, LONG) as stream:
        pass
    assert stream.ending == "cancelled" and list(stream) == [] and host.loaded == ()


def test_a_deadline_ends_an_answer_where_it_is(host: DeviceHost, cards: list[ModelCard]) -> None:
    said(host, cards[0])
    for seconds in (0.1, 0.3, 1.0, 3.0, 10.0):  # until it is long enough for a word, however busy the machine
        stream = host.stream(cards[0], QUESTION, Generation(None, COLD, deadline=seconds))
        text = "".join(stream)
        assert stream.ending == "cancelled" and stream.completion_tokens < 4000
        if text:
            break
    assert text and stream.completion_tokens > 0
    until(lambda: host.sequences == 0, "it is freed")
    over = host.stream(cards[0], QUESTION, Generation(5, COLD, deadline=-1.0))
    assert list(over) == [] and over.ending == "cancelled"


def test_a_deadline_holds_while_the_model_is_loaded(
    host: DeviceHost, cards: list[ModelCard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "child.py"
    code = "import sys, time; time.sleep(4); sys.path.insert(0, {!r}); from scope_edge.providers.llama import worker; worker.main()"
    slow.write_text(code.format(str(ROOT)))
    monkeypatch.setenv(COMMAND_VARIABLE, f"{sys.executable} {slow}")
    for seconds in (0.05, 0.2, 0.8, 3.2):  # until loading is begun before it is over, however busy the machine
        stream = host.stream(cards[0], QUESTION, Generation(5, COLD, deadline=seconds))
        assert list(stream) == [] and stream.ending == "cancelled"
        if workers():
            break
    until(lambda: host.loaded == ("a",), "what was begun is finished, for the next one")
    assert said(host, cards[0])


# Workers that die


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_ends_its_streams_and_nothing_else(
    host: DeviceHost, cards: list[ModelCard], how: signal.Signals
) -> None:
    struck = [begun(host.stream(cards[0], (Message("user", f"Tell me {n}"),), LONG)) for n in range(3)]
    (worker,) = workers()
    other = begun(host.stream(cards[1], QUESTION, LONG))
    os.kill(worker.pid, how)
    for stream in struck:
        with pytest.raises(WorkerError, match=how.name) as told:
            list(stream)
        assert "\n" not in str(told.value) and not told.value.refused and stream.ending is None
        assert list(stream) == [], "told once"
    assert next(other)
    other.close()
    assert host.loaded == ("b",)
    assert said(host, cards[0]) and host.loaded == ("a", "b")
    until(lambda: host.sequences == 0, "nothing is left of the struck ones")


def test_a_worker_that_dies_while_nobody_asks_is_not_noticed(host: DeviceHost, cards: list[ModelCard]) -> None:
    said(host, cards[0])
    (worker,) = workers()
    worker.kill()
    until(lambda: host.loaded == (), "it is seen")
    assert said(host, cards[0])


def test_a_model_that_llama_cpp_refuses_is_refused_and_told_so(host: DeviceHost, cards: list[ModelCard]) -> None:
    path = Path(cards[0].gguf or "")
    path.write_bytes(path.read_bytes().replace(b"qwen3", b"qwenX"))
    with pytest.raises(WorkerError, match="qwenX") as told:
        said(host, cards[0])
    assert told.value.refused and look_up(path).refused is not None
    assert said(host, cards[1])


def test_a_worker_that_cannot_be_started_is_an_error_for_all_who_wait(
    host: DeviceHost, cards: list[ModelCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(COMMAND_VARIABLE, "/bin/false")

    def fails(_: int) -> None:
        with pytest.raises(WorkerError):
            said(host, cards[0])

    together(4, fails)
    monkeypatch.delenv(COMMAND_VARIABLE)
    assert said(host, cards[0])


def test_closing_the_host_ends_what_is_under_way(hosts: Callable[..., DeviceHost], cards: list[ModelCard]) -> None:
    host = hosts()
    stream = begun(host.stream(cards[0], QUESTION, LONG))
    waiting = host.stream(cards[1], QUESTION, LONG)
    failed: list[WorkerError] = []

    def read() -> None:
        try:
            list(waiting)
        except WorkerError as error:
            failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    host.close()
    reader.join(PATIENCE)
    with pytest.raises(WorkerError, match="was ended"):
        list(stream)
    assert failed and not workers()
    with pytest.raises(WorkerError, match="closed"):
        said(host, cards[0])


# What is loaded


def test_a_model_nobody_uses_is_dropped_and_one_in_use_is_not(
    hosts: Callable[..., DeviceHost], cards: list[ModelCard]
) -> None:
    host = hosts(replace(SETTINGS, keep_alive=0.5))
    used = begun(host.stream(cards[0], QUESTION, LONG))
    said(host, cards[1])
    assert host.loaded == ("a", "b")
    until(lambda: host.loaded == ("a",), "b is dropped")
    assert next(used)
    used.close()
    until(lambda: host.loaded == () and not workers(), "a is dropped too")
    assert said(host, cards[0])


def test_keep_alive_0_drops_it_at_once(hosts: Callable[..., DeviceHost], cards: list[ModelCard]) -> None:
    host = hosts(replace(SETTINGS, keep_alive=0.0))
    assert said(host, cards[0])
    until(lambda: host.loaded == () and not workers(), "it is dropped")


def test_where_two_fit_a_third_takes_the_place_of_the_least_recently_used(
    hosts: Callable[..., DeviceHost], cards: list[ModelCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    room_for(2.5, cards[0], monkeypatch)
    host = hosts()
    said(host, cards[0])
    latest = host.stream(cards[1], QUESTION, SHORT)
    assert "".join(latest) and latest.load_seconds
    time.sleep(STAY * latest.load_seconds + 0.5)  # until then it is not thrown out, whoever was used last
    said(host, cards[0])
    assert said(host, cards[2]) and host.loaded == ("a", "c")
    assert len(workers()) == 2


def test_a_model_with_running_requests_keeps_its_place_and_the_other_waits(
    hosts: Callable[..., DeviceHost], cards: list[ModelCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    room_for(1.5, cards[0], monkeypatch)
    host = hosts()
    running = begun(host.stream(cards[0], QUESTION, LONG))
    assert host.wait_seconds(cards[1]) is None, "as long as the other takes"
    texts: list[str] = []
    waits = threading.Thread(target=lambda: texts.append(said(host, cards[1])))
    waits.start()
    assert next(running) and host.loaded == ("a",)
    running.close()
    waits.join(PATIENCE)
    assert texts and host.loaded == ("b",)


@pytest.mark.long
def test_two_that_do_not_fit_together_are_not_swapped_for_every_request(
    hosts: Callable[..., DeviceHost], cards: list[ModelCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    room_for(1.5, cards[0], monkeypatch)
    host = hosts()
    seen: set[int] = set()
    served = [0, 0]
    enough = threading.Event()

    def keep_asking(number: int) -> None:
        while not enough.is_set():
            said(host, cards[number], f"Question {served[number]}?", Generation(3, COLD))
            served[number] += 1
            seen.update(one.pid for one in workers())
            if min(served) >= 20 and len(seen) >= 3:
                enough.set()

    together(2, keep_asking)
    assert min(served) >= 20, "both were served"
    assert sum(served) / len(seen) > 6, f"{len(seen)} loads for {sum(served)} requests"


def test_what_the_estimator_holds_is_not_the_device_models_to_take(
    hosts: Callable[..., DeviceHost], cards: list[ModelCard]
) -> None:
    free = available_memory()
    assert free is not None
    host = hosts(reserved_bytes=2 * free)
    with pytest.raises(WorkerError, match="no room") as told:
        said(host, cards[0])
    assert not told.value.refused
    assert host.wait_seconds(cards[0]) is None


def test_how_long_loading_takes_is_known_once_it_was_done(
    hosts: Callable[..., DeviceHost], cards: list[ModelCard]
) -> None:
    host = hosts()
    assert host.wait_seconds(cards[0]) is None, "never loaded"
    assert host.wait_seconds(replace(cards[1], load_seconds=7.0)) == 7.0, "its card says so"
    said(host, cards[0])
    assert host.wait_seconds(cards[0]) == 0.0
    host.close()
    wait = hosts().wait_seconds(cards[0])
    assert wait is not None and wait > 0
