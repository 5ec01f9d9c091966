"""Streams of a device model through the host: several at once against one after another, and what a newcomer costs and waits.

    python benchmarks/random_gguf.py 0.6b random-0.6b.gguf
    python benchmarks/host.py random-0.6b.gguf --threads 1

Every stream asks something of its own, so that no prompt is found in the cache, and writes so many tokens unless it ends its
turn before. Times are those of who reads the streams: pipes, threads and all. A gap is the time between two pieces of one stream.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import perf_counter

from scope_edge.providers.llama.host import DeviceHost, DeviceStream, Generation, Message, Sampling
from scope_edge.types import ModelCard

TEXT = "the model reads what each anchor says of a query and writes how likely it is to be right about that"
WORDS = TEXT.split(" ")
_FRESH = count()


@dataclass
class Read:
    """A stream read to its end. first: seconds until its first piece. gaps: between its pieces."""

    tokens: int = 0
    first: float = 0.0
    gaps: list[float] = field(default_factory=list)
    cached: int = 0


def question(words: int) -> tuple[Message, ...]:
    """One that nobody has asked yet, of so many words."""
    number = next(_FRESH)
    return (Message("user", f"{number} " + " ".join(WORDS[(i * 7 + number) % len(WORDS)] for i in range(words))),)


def read(stream: DeviceStream) -> Read:
    """Read it to its end, with the times at which pieces came."""
    found, begun, last = Read(), perf_counter(), None
    for _ in stream:
        now = perf_counter()
        if last is None:
            found.first = now - begun
        else:
            found.gaps.append(now - last)
        last = now
    found.tokens, found.cached = stream.completion_tokens, stream.cached_tokens or 0
    return found


class Bench:
    """One model in a host."""

    def __init__(self, host: DeviceHost, card: ModelCard, tokens: int, words: int) -> None:
        self._host, self._card, self._tokens, self._words = host, card, tokens, words

    def stream(self, messages: tuple[Message, ...], tokens: int | None = None) -> DeviceStream:
        """An answer, to be read."""
        return self._host.stream(self._card, messages, Generation(tokens or self._tokens, Sampling(seed=next(_FRESH))))

    def after_one_another(self, streams: int) -> float:
        """Tokens a second, one stream at a time; of more than eight, those of eight."""
        streams = min(streams, 8)
        begun = perf_counter()
        tokens = sum(read(self.stream(question(self._words))).tokens for _ in range(streams))
        return tokens / (perf_counter() - begun)

    def at_once(self, streams: int) -> tuple[float, list[Read]]:
        """Tokens a second of all together."""
        begun = perf_counter()
        with ThreadPoolExecutor(streams) as pool:
            found = list(pool.map(read, [self.stream(question(self._words)) for _ in range(streams)]))
        return sum(one.tokens for one in found) / (perf_counter() - begun), found

    def newcomer(self, others: int, words: int) -> tuple[float, list[float]]:
        """Seconds until one with a prompt of so many words gets its first piece while others write; their longest gaps then."""
        going = [self.stream(question(self._words), 4000) for _ in range(others)]
        for one in going:
            next(one)
        with ThreadPoolExecutor(max(1, others)) as pool:
            reading = [pool.submit(read, one) for one in going]
            fresh = self.stream(question(words), 2)
            first = read(fresh).first
            for one in going:
                one.close()
            return first, [max(found.gaps, default=0.0) for found in (one.result() for one in reading)]

    def gone_on_with(self, words: int) -> tuple[Read, Read]:
        """A long first question, and the one after its answer."""
        chat = question(words)
        stream = self.stream(chat)
        pieces: list[str] = []
        first, begun = Read(), perf_counter()
        for piece in stream:
            first.first = first.first or perf_counter() - begun
            pieces.append(piece)
        chat = (*chat, Message("assistant", "".join(pieces)), Message("user", "And then?"))
        return first, read(self.stream(chat))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--tokens", type=int, default=48, help="of each answer")
    parser.add_argument("--words", type=int, default=30, help="of each question")
    parser.add_argument("--long", type=int, default=400, help="words of a long question")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--others", type=int, nargs="+", default=[0, 4, 8], help="writing when a newcomer comes")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    card = ModelCard("bench", "device", gguf=str(options.model))
    with (
        tempfile.TemporaryDirectory() as folder,
        DeviceHost(threads=options.threads, keep_alive=-1, cache_dir=Path(folder)) as host,
    ):
        bench = Bench(host, card, options.tokens, options.words)
        loading = bench.stream(question(5), 1)
        list(loading)
        print(f"loaded in {loading.load_seconds:.1f} s\n")
        rows = []
        for streams in options.streams:
            pairs = [(bench.after_one_another(streams), bench.at_once(streams)) for _ in range(options.rounds)]
            singly = statistics.median(one for one, _ in pairs)
            together = statistics.median(rate for _, (rate, _) in pairs)
            ratio = statistics.median(rate / one for one, (rate, _) in pairs)
            first = statistics.median(one.first for _, (_, found) in pairs for one in found)
            rows.append([str(streams), f"{singly:.1f}", f"{together:.1f}", f"{ratio:.2f}", f"{first:.2f}"])
        heads = ["streams", "one after another, tokens/s", "at once, tokens/s", "ratio", "first piece at once, s"]
        print(table(heads, rows), "\n")
        rows = []
        for words in (options.words, options.long):
            for others in options.others:
                tries = [bench.newcomer(others, words) for _ in range(options.rounds)]
                gaps = [gap for _, found in tries for gap in found]
                longest = f"{statistics.median(gaps):.2f}" if gaps else ""
                rows.append([str(words), str(others), f"{statistics.median(one for one, _ in tries):.2f}", longest])
        print(table(["words", "others writing", "first piece after, s", "others' longest gap, s"], rows), "\n")
        first, second = bench.gone_on_with(options.long)
        print(
            table(
                ["a conversation of a long question", "first piece after, s", "prompt tokens found in the cache"],
                [
                    ["its beginning", f"{first.first:.2f}", "0"],
                    ["gone on with", f"{second.first:.2f}", str(second.cached)],
                ],
            )
        )


if __name__ == "__main__":
    main()
