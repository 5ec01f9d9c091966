"""The estimator's decoding against llama-cpp-python's `Llama` called once per sample, on the same model and prompts.

    python benchmarks/random_gguf.py 0.6b random-0.6b.gguf
    python benchmarks/estimator.py random-0.6b.gguf
    python benchmarks/estimator.py random-4b.gguf --single 1 --fresh 2

What is timed: `candidates` prompts of `prompt-tokens` tokens, `samples` samples each of `generate` tokens, through the worker
as `route` uses it: the wall time is the caller's, pipes and all. `Llama` runs in a process of its own, prompt by prompt and
sample by sample, with its prefix cache (`single`) and without (`fresh`), on fewer prompts where it would take hours: rates
are compared, and how many samples a rate comes from is printed with it. Prefill is the time until a prompt's first token.

`Llama` cannot switch repacked weights off, so on a processor with AMX give it an f16 model (--type f16 of random_gguf.py).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from scope_edge.providers.llama.client import LlamaClient
from scope_edge.providers.llama.gguf import describe_gguf
from scope_edge.providers.llama.memory import (
    NoRoom,
    Plan,
    available_memory,
    find_gpus,
    physical_cores,
    plan_estimator,
)
from scope_edge.providers.llama.messages import Job, Mode, Sampling, Stats, TextPiece

HEAD = "### Task\nPredict how a model will do, from how it did on similar questions.\n\n### Target Model\n"
WORDS = (
    "the",
    "estimator",
    "reads",
    "what",
    "each",
    "anchor",
    "says",
    "of",
    "a",
    "model",
    "correct",
    "on",
    "this",
    "query",
)


@dataclass(frozen=True)
class Row:
    """One way of doing it. Tokens and seconds of reading prompts and of writing samples, and the wall around both."""

    name: str
    samples: int
    read: int
    read_seconds: float
    written: int
    write_seconds: float
    wall: float

    def line(self) -> str:
        """For the table."""
        rate = self.written / self.write_seconds
        reading = f"{self.read / self.read_seconds:8.1f}" if self.read_seconds else "        "
        return (
            f"{self.name:28} {self.samples:4} {self.wall:8.1f} {self.read_seconds:8.1f} {self.write_seconds:8.1f}"
            f" {reading} {rate:8.1f} {self.wall / self.samples:8.3f}"
        )


def prompt(candidate: int, words: int) -> str:
    """A prompt whose beginning all candidates share, as estimator prompts do."""
    body = " ".join(WORDS[(i * (candidate + 3) + i // 7) % len(WORDS)] for i in range(words))
    return f"{HEAD}model-{candidate}\n\n{body}\n\n### Output:"


def jobs(candidates: int, samples: int, words: int, mode: Mode, limit: int) -> list[Job]:
    """One job a candidate."""
    head, tail = TextPiece("<|im_start|>user\n", True), TextPiece("<|im_end|>\n<|im_start|>assistant\n", True)
    return [
        Job((head, TextPiece(prompt(i, words)), tail), samples, mode, limit, Sampling(seed=i))
        for i in range(candidates)
    ]


def words_for(client: LlamaClient, tokens: int) -> int:
    """How many words make a prompt of so many tokens."""
    words = tokens
    for _ in range(6):
        found = client.run(jobs(1, 1, words, "text", 1), 600)[0][0].prompt_tokens
        if abs(found - tokens) <= 2:
            break
        words = max(1, round(words + (tokens - found) * words / found))
    client.run([Job((TextPiece("x"),), 1, "text", 1)], 600)
    return words


def ours(client: LlamaClient, options: argparse.Namespace, words: int, mode: Mode, together: int) -> tuple[Row, float]:
    """All prompts through the worker, so many at once; and the share of the wall that is not llama.cpp's."""
    many = jobs(options.candidates, options.samples, words, mode, options.generate)
    total = Stats(0, 0.0, 0, 0.0, 0.0)
    begun = perf_counter()
    for i in range(0, len(many), together):
        _, stats = client.run(many[i : i + together], None)
        total = Stats(*(getattr(total, name) + getattr(stats, name) for name in Stats.__dataclass_fields__))
    wall = perf_counter() - begun
    name = f"scope-edge {mode}, {together} prompt{'s' if together > 1 else ''} at once"
    row = Row(
        name,
        options.candidates * options.samples,
        total.prefill_tokens,
        total.prefill_seconds,
        total.decode_tokens,
        total.decode_seconds,
        wall,
    )
    return row, 1 - (total.prefill_seconds + total.decode_seconds) / wall


def theirs(options: argparse.Namespace, words: int, name: str, *, prompts: int, samples: int, keep: bool) -> Row | None:
    """`Llama` on the first prompts, sample by sample. keep: with its prefix cache. None: it crashed, and that is printed."""
    order = {
        "model": str(options.baseline_model or options.model),
        "prompts": [prompt(i, words) for i in range(prompts)],
        "samples": samples,
        "generate": options.generate,
        "threads": options.threads,
        "gpu_layers": options.gpu_layers,
        "keep": keep,
    }
    ended = subprocess.run(
        [sys.executable, "-X", "faulthandler", __file__, "--child"],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        print(
            f"{name}: ended with {ended.returncode}; it last said", *ended.stderr.strip().splitlines()[-12:], sep="\n  "
        )
        return None
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return Row(name, prompts * samples, **found)


def child() -> None:
    """The other process: `Llama`, one call per sample."""
    from llama_cpp import Llama

    order = json.load(sys.stdin)
    llama = Llama(
        order["model"],
        n_ctx=4096,
        n_batch=512,
        n_threads=order["threads"],
        n_threads_batch=order["threads"],
        n_gpu_layers=order["gpu_layers"],
        flash_attn=order["gpu_layers"] != 0,  # as ours
        verbose=True,
    )
    llama.eval(llama.tokenize(b"warm up"))
    read = written = 0
    read_seconds = write_seconds = 0.0
    begun = perf_counter()
    for text in order["prompts"]:
        head = llama.tokenize(b"<|im_start|>user\n", add_bos=False, special=True)
        tail = llama.tokenize(b"<|im_end|>\n<|im_start|>assistant\n", add_bos=False, special=True)
        tokens = head + llama.tokenize(text.encode(), add_bos=False) + tail
        for number in range(order["samples"]):
            if not order["keep"]:
                llama.reset()
            before = llama.n_tokens if number and order["keep"] else 0
            start = perf_counter()
            stream = llama.generate(tokens, top_k=20, top_p=0.95, temp=0.6, min_p=0.0, repeat_penalty=1.0)
            next(stream)
            first = perf_counter()
            read_seconds += first - start
            read += len(tokens) if not before else 1
            for _ in range(order["generate"] - 1):
                next(stream)
            written += order["generate"]
            write_seconds += perf_counter() - first
    body = {"read": read, "read_seconds": read_seconds, "written": written, "write_seconds": write_seconds}
    print(json.dumps({**body, "wall": perf_counter() - begun}))


def main() -> None:
    """Run and print the table."""
    options = arguments()
    shape = describe_gguf(options.model)
    plan = plan_estimator(
        shape,
        options.model.stat().st_size,
        available=available_memory(),
        gpus=find_gpus() if options.gpu_layers else (),
    )
    if isinstance(plan, NoRoom):
        raise SystemExit(plan.why)
    cells = options.prompt_tokens + options.samples * (options.generate + 64)
    context = max(plan.context, options.together[-1] * cells)
    plan = Plan(context, options.batch or plan.batch, options.gpu_layers, options.threads, plan.needs, plan.why)
    with tempfile.TemporaryDirectory() as folder:
        client = LlamaClient(options.model, str(options.model), plan, cache_dir=Path(folder))
        ready = client.start(600)
        print(f"{options.model.name}: {shape.architecture} {shape.parameters / 1e9:.2f}B {shape.quantization}, {ready}")
        words = words_for(client, options.prompt_tokens)
        rows: list[Row] = []
        print(
            f"{'':28} {'n':>4} {'wall s':>8} {'read s':>8} {'write s':>8} {'read/s':>8} {'write/s':>8} {'s/sample':>8}"
        )

        failed = False

        def show(row: Row | None, note: str = "") -> None:
            nonlocal failed
            if row is None:
                failed = True
                return
            rows.append(row)
            print(row.line(), note, flush=True)

        for mode in options.modes:
            for together in options.together:
                client.run([Job((TextPiece(f"forget {mode} {together} "),), 1, "text", 1)], 600)
                row, outside = ours(client, options, words, mode, together)
                show(row, f"outside llama.cpp {100 * outside:.1f} %")
                client.close()
                client.start(600)
        client.close()
        if options.single:
            name = "Llama, prefix cache"
            show(theirs(options, words, name, prompts=options.single, samples=options.samples, keep=True))
        if options.fresh:
            show(theirs(options, words, "Llama, no cache", prompts=1, samples=options.fresh, keep=False))
    summary(rows)
    if failed:
        raise SystemExit(1)


def summary(rows: list[Row]) -> None:
    """The ratios the goals are about."""
    text = [row for row in rows if " text," in row.name or " cot," in row.name]
    for other in (row for row in rows if row.name.startswith("Llama")):
        for row in text:
            faster = (row.written / row.write_seconds) / (other.written / other.write_seconds)
            whole = (other.wall / other.samples) / (row.wall / row.samples)
            print(f"{row.name} against {other.name}: writing {faster:.2f} x, a sample in all {whole:.2f} x")
    for cot in (row for row in rows if " cot," in row.name):
        direct = next((row for row in rows if row.name == cot.name.replace(" cot,", " direct,")), None)
        if direct:
            wall, part = cot.wall / direct.wall, cot.write_seconds / direct.write_seconds
            print(f"{direct.name} against cot: wall {wall:.2f} x, its writing part {part:.2f} x")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--baseline-model", type=Path, help="another file for Llama, as f16 on AMX")
    parser.add_argument("--candidates", type=int, default=7)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=1000)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--modes", type=lambda text: text.split(","), default=["text", "cot", "direct"])
    parser.add_argument("--together", type=lambda text: [int(n) for n in text.split(",")], default=[1])
    parser.add_argument("--single", type=int, default=2, help="prompts given to Llama with its prefix cache")
    parser.add_argument("--fresh", type=int, default=4, help="samples drawn by Llama without it")
    parser.add_argument("--gpu-layers", type=int, default=0)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--threads", type=int, default=physical_cores())
    return parser.parse_args()


if __name__ == "__main__":
    if "--child" in sys.argv:
        child()
    else:
        main()
