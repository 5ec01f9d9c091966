"""How close an exported encoder is to the original in torch, on real queries, one query per run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

Vectors = NDArray[np.float32]
Tokens = NDArray[np.int64]
NEAREST = 10


@dataclass(frozen=True, slots=True)
class Parity:
    """Cosines to the original (mean, worst), share of the 10 nearest queries kept, size."""

    mean: float
    worst: float
    overlap: float
    megabytes: float


def tokenize(tokenizer: bytes, texts: Sequence[str], window: int) -> list[Tokens]:
    """Token ids of every text, [CLS] and [SEP] included, cut at `window`; shape (tokens,) each."""
    reader = Tokenizer.from_buffer(tokenizer)
    reader.enable_truncation(window)
    return [np.array(reader.encode(text).ids, dtype=np.int64) for text in texts]


def original(folder: Path, ids: Sequence[Tokens]) -> Vectors:
    """Unit vectors of the original in torch, float32, one query per run: mean over the tokens, L2 norm."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    rows = []
    with torch.no_grad():
        for row in ids:
            states = model(input_ids=torch.from_numpy(row)[None]).last_hidden_state
            rows.append(torch.nn.functional.normalize(states.mean(dim=1), dim=1)[0].numpy())
    return np.stack(rows)


def encode(model: bytes, ids: Sequence[Tokens], *, batch: int = 1) -> Vectors:
    """Unit vectors of an exported encoder; `batch` > 1 pads queries of unlike length together."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    rows = []
    for first in range(0, len(ids), batch):
        part = ids[first : first + batch]
        feed = np.zeros((len(part), max(map(len, part))), dtype=np.int64)
        mask = np.zeros_like(feed)
        for row, tokens in enumerate(part):
            feed[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        rows.append(session.run(None, {"input_ids": feed, "attention_mask": mask})[0])
    return np.concatenate(rows)


def compare(model: bytes, ids: Sequence[Tokens], reference: Vectors, *, batch: int = 1) -> Parity:
    """Parity of an exported encoder with `reference`, the original's vectors of the same queries."""
    vectors = encode(model, ids, batch=batch)
    cosines = np.einsum("ij,ij->i", vectors.astype(np.float64), reference.astype(np.float64))
    kept = [len(set(a) & set(b)) / NEAREST for a, b in zip(nearest(vectors), nearest(reference), strict=True)]
    return Parity(float(cosines.mean()), float(cosines.min()), float(np.mean(kept)), len(model) / 1e6)


def nearest(vectors: Vectors) -> NDArray[np.intp]:
    """Rows of the 10 most similar other vectors, shape (n, 10)."""
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1)[:, :NEAREST]
