"""A data folder in which everything of stage B is real: an installed GGUF, and anchors with text that it answered itself.

The GGUF is a small Qwen3 of random weights, so its answers are noise; that they were given, counted and graded is not.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from scope_edge.estimator.install import InstallOptions, install
from scope_edge.estimator.store import Installed, write_manifest
from scope_edge.factory import open_cards
from scope_edge.fingerprinting.importing.scope_dataset import import_anchors
from scope_edge.providers.llama.client import LlamaClient
from scope_edge.providers.llama.memory import Plan
from scope_edge.providers.llama.messages import Job, Sampling, TextPiece

# Cloud models, so that the memory plan keeps no room for one on the device.
MODELS = ("llama-3.1-70b-instruct", "gpt-4o-mini-2024-07-18", "claude-3-haiku-20240307")
PLAN = Plan(context=6144, batch=128, gpu_layers=0, threads=1, needs=0, why="")
LETTERS = "etaoinshrdlucm"
QUESTIONS = tuple(f"Write a few words. At least two of them must have the letter {one} in them." for one in LETTERS)


def right(letter: str, answer: str) -> bool:
    """Whether an answer does what the question asks."""
    return sum(letter in word.lower() for word in answer.split()) >= 2


def answered(gguf: Path, cache: Path) -> list[dict[str, object]]:
    """What the GGUF answers, once a model: rows as the paper's datasets have them."""
    jobs, about = [], []
    for m, model in enumerate(MODELS):
        for q, question in enumerate(QUESTIONS):
            before, after = (
                TextPiece("<|im_start|>user\n", True),
                TextPiece("<|im_end|>\n<|im_start|>assistant\n", True),
            )
            jobs.append(Job((before, TextPiece(question), after), 1, "text", 8 + 8 * m, Sampling(seed=100 * m + q)))
            about.append((model, q, question))
    with LlamaClient(gguf, "answers", PLAN, cache_dir=cache) as client:
        results, _ = client.run(jobs, 300.0)
    rows: list[dict[str, object]] = []
    for (model, q, question), result in zip(about, results, strict=True):
        (one,) = result.samples
        correct = right(LETTERS[q], one.text)
        tokens = {"usage_prompt_tokens": result.prompt_tokens, "usage_completion_tokens": one.tokens}
        row = {"id": f"q{q}", "prompt": question, "model_name": model, "is_correct": correct, "category": "words"}
        rows.append({**row, "gt": LETTERS[q], **tokens})
    return rows


def fill(gguf: Path, work: Path) -> Installed:
    """Install the GGUF and import what it answered, into the folders that SCOPE_EDGE_DATA_DIR and _CACHE_DIR name."""
    installed = replace(install(str(gguf), InstallOptions(name="tiny", mode="cot")), samples=4, analysis_tokens=12)
    write_manifest(installed)  # short analyses: nothing is lost on random weights, and much time saved
    table = work / "letters" / "anchor.jsonl"
    table.parent.mkdir(parents=True)
    table.write_text("\n".join(map(json.dumps, answered(gguf, work / "cache"))), "utf-8")
    import_anchors(str(table.parent), open_cards())
    return installed
