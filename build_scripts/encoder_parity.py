"""How close an exported encoder is to the original in torch, on real queries, one query per run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from encoder_graph import STATE_LAYER
from numpy.typing import NDArray
from tokenizers import Tokenizer

Vectors = NDArray[np.float32]
Tokens = NDArray[np.int64]
NEAREST = 10


@dataclass(frozen=True, slots=True)
class Parity:
    """Cosines to the original (mean, worst), share of the 10 nearest queries kept, mean cosine of standardised states, size."""

    mean: float
    worst: float
    overlap: float
    states: float
    megabytes: float


def tokenize(tokenizer: bytes, texts: Sequence[str], window: int) -> list[Tokens]:
    """Token ids of every text, [CLS] and [SEP] included, cut at `window`; shape (tokens,) each."""
    reader = Tokenizer.from_buffer(tokenizer)
    reader.enable_truncation(window)
    return [np.array(reader.encode(text).ids, dtype=np.int64) for text in texts]


def original(folder: Path, ids: Sequence[Tokens]) -> tuple[Vectors, Vectors]:
    """Unit vectors and states of the original in torch, float32, one query per run: means over the tokens, the first of norm 1."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    vectors, states = [], []
    with torch.no_grad():
        for row in ids:
            layers = model(input_ids=torch.from_numpy(row)[None], output_hidden_states=True).hidden_states
            vectors.append(torch.nn.functional.normalize(layers[-1].mean(dim=1), dim=1)[0].numpy())
            states.append(layers[STATE_LAYER].mean(dim=1)[0].numpy())
    return np.stack(vectors), np.stack(states)


def encode(model: bytes, ids: Sequence[Tokens], *, batch: int = 1) -> tuple[Vectors, Vectors]:
    """Unit vectors and states of an exported encoder; `batch` > 1 pads queries of unlike length together."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    vectors, states = [], []
    for first in range(0, len(ids), batch):
        part = ids[first : first + batch]
        feed = np.zeros((len(part), max(map(len, part))), dtype=np.int64)
        mask = np.zeros_like(feed)
        for row, tokens in enumerate(part):
            feed[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        both = session.run(["embedding", "state"], {"input_ids": feed, "attention_mask": mask})
        vectors.append(both[0])
        states.append(both[1])
    return np.concatenate(vectors), np.concatenate(states)


def compare(model: bytes, ids: Sequence[Tokens], reference: tuple[Vectors, Vectors], *, batch: int = 1) -> Parity:
    """Parity of an exported encoder with `reference`, the original's vectors and states of the same queries."""
    vectors, states = encode(model, ids, batch=batch)
    cosines = _cosines(vectors, reference[0])
    kept = [len(set(a) & set(b)) / NEAREST for a, b in zip(nearest(vectors), nearest(reference[0]), strict=True)]
    # As the map reads them: about their mean, every dimension in standard deviations.
    mean, scale = reference[1].mean(axis=0), reference[1].std(axis=0)
    alike = _cosines((states - mean) / scale, (reference[1] - mean) / scale)
    return Parity(
        float(cosines.mean()), float(cosines.min()), float(np.mean(kept)), float(alike.mean()), len(model) / 1e6
    )


def _cosines(one: Vectors, other: Vectors) -> NDArray[np.float64]:
    a, b = one.astype(np.float64), other.astype(np.float64)
    cosines: NDArray[np.float64] = np.einsum("ij,ij->i", a, b) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return cosines


def nearest(vectors: Vectors) -> NDArray[np.intp]:
    """Rows of the 10 most similar other vectors, shape (n, 10)."""
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1)[:, :NEAREST]
