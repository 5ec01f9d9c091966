"""What the estimator's tests need: a small set of anchors with text, an installed entry, and a client that computes answers.

The client stands in for the worker where the logic around it is tested; test_stage_b.py runs a real GGUF.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.encoding.token_count import PromptTokens
from scope_edge.estimation.anchors import AnchorSet
from scope_edge.estimation.fingerprints import Fingerprint
from scope_edge.estimator.prompt import BUNDLED
from scope_edge.estimator.store import Installed
from scope_edge.policy.contenders import contenders
from scope_edge.policy.utility import PolicyPool, decision_context
from scope_edge.providers.llama.messages import Job, JobResult, ModelShape, Sample, Stats
from scope_edge.types import EncodedQuery, Preference, Query

if TYPE_CHECKING:
    from scope_edge.estimator.scope import CouldWin

SHAPE = ModelShape("qwen3", "Q4_K_M", 4_000_000_000, 36, 32768, 151_936, 147_456, True)
DIMENSIONS = 8
QUESTIONS = tuple(f"What is {n} times {n + 3}?" for n in range(2, 14))


def anchor_set(texts: Sequence[str] = QUESTIONS, name: str = "own") -> AnchorSet:
    """Anchors with text whose vectors are drawn once."""
    n = len(texts)
    vectors = np.random.default_rng(3).normal(size=(n, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    zeros = np.zeros(n)
    return AnchorSet(
        name=name,
        ids=tuple(f"{name}/{i}" for i in range(n)),
        categories=("arithmetic",) * n,
        vectors=vectors,
        prompt_tokens=np.full(n, 10.0),
        difficulty=zeros,
        discrimination=np.ones(n),
        log_length=zeros,
        map_difficulty=zeros,
        domains=np.zeros((n, 1)),
        traits=np.zeros((n, 1)),
        linked=False,
        texts=tuple(texts),
        own=True,
    )


def fingerprint(model: str, anchors: AnchorSet, correct: Sequence[float], tokens: Sequence[float]) -> Fingerprint:
    return Fingerprint(model, anchors, np.array(correct, np.float64), np.array(tokens, np.float64))


def installed(folder: Path, **changes: object) -> Installed:
    """An entry of the store as far as the estimator reads it: its template and how to sample."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompt.txt").write_text(BUNDLED, "utf-8", newline="")
    facts: dict[str, object] = {
        "name": "mine",
        "folder": folder,
        "sha256": "0" * 64,
        "size": 1,
        "shape": SHAPE,
        "mode": "cot",
        "template_sha256": hashlib.sha256(BUNDLED.encode()).hexdigest(),
        "template_from": "bundled",
        "source": "here",
        "revision": None,
        "licence": None,
        "installed": "2026-01-01T00:00:00Z",
    }
    return Installed(**{**facts, **changes})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Warm:
    """What the client says of itself when started."""

    prefill_tps: float = 1000.0
    decode_tps: float = 100.0
    batch_prompts: int = 2


def sample(p: float | None, length: int | None = 50, text: str = "Analysis: alike.", ending: str = "answer") -> Sample:
    line = f"\nPredicted Performance: {{len: {length}, correct: {'yes' if (p or 0) >= 0.5 else 'no'}}}"
    return Sample(text + line, 40, length, p, ending)  # type: ignore[arg-type]


@dataclass
class Client:
    """Answers jobs by `answer(model, i)`, the i-th sample of a model, and remembers what it was asked."""

    answer: Callable[[str, int], Sample]
    warm: Warm = field(default_factory=Warm)
    jobs: list[tuple[str, Job]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    timeouts: list[float | None] = field(default_factory=list)
    started: int = 0
    closed: int = 0

    def start(self, timeout: float) -> Warm:
        self.started += 1
        return self.warm

    def run(self, jobs: Sequence[Job], timeout: float | None) -> tuple[tuple[JobResult, ...], Stats]:
        self.batches.append(len(jobs))
        self.timeouts.append(timeout)
        results = []
        for job in jobs:
            model = job.pieces[1].text.split("### Target Model\n")[1].split("\n")[0]
            before = sum(one.samples for name, one in self.jobs if name == model)
            self.jobs.append((model, job))
            results.append(JobResult(100, 0, tuple(self.answer(model, before + i) for i in range(job.samples))))
        written = sum(one.tokens for result in results for one in result.samples)
        return tuple(results), Stats(100 * len(jobs), 0.1 * len(jobs), written, written / self.warm.decode_tps, 0.5)

    def close(self) -> None:
        self.closed += 1

    @property
    def asked(self) -> list[str]:
        """The models prompted, in the order of their first prompt."""
        return list(dict.fromkeys(model for model, _ in self.jobs))


def encoded(text: str = "What is 5 times 6?") -> EncodedQuery:
    vector = np.full(DIMENSIONS, DIMENSIONS**-0.5, np.float32)
    return EncodedQuery(Query(text), vector, vector, vector, 1, False)


def could_win(pool: PolicyPool, prompt: PromptTokens, preference: Preference) -> CouldWin:
    return lambda estimates, low, high: contenders(decision_context(pool, estimates, prompt, preference), low, high)
