"""Qwen3's forward pass in plain float64 numpy, straight from a checkpoint: the judge of what a conversion kept.

Written from the architecture's description and sharing no code with the converter: RMS norm, grouped-query attention
with normed queries and keys, rotary positions by halves, SwiGLU.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class NumpyQwen3:
    """A checkpoint, loaded."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        self.tensors: dict[str, Floats] = {}
        for shard in folder.glob("*.safetensors"):
            self.tensors |= _load(shard)

    def logits(self, tokens: Sequence[int]) -> Floats:
        """Shape (tokens, vocabulary)."""
        embedding = self.tensors["model.embed_tokens.weight"]
        x = embedding[list(tokens)]
        for layer in range(self.config["num_hidden_layers"]):
            x = x + self._attention(layer, self._norm(x, f"model.layers.{layer}.input_layernorm"))
            x = x + self._feed_forward(layer, self._norm(x, f"model.layers.{layer}.post_attention_layernorm"))
        head = embedding if self.config["tie_word_embeddings"] else self.tensors["lm_head.weight"]
        return self._norm(x, "model.norm") @ head.T

    def _norm(self, x: Floats, name: str) -> Floats:
        scale = np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.config["rms_norm_eps"])
        normed: Floats = x / scale * self.tensors[f"{name}.weight"]
        return normed

    def _attention(self, layer: int, x: Floats) -> Floats:
        prefix, c = f"model.layers.{layer}.self_attn", self.config
        heads, groups, width = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]

        def project(name: str, count: int) -> Floats:
            return (x @ self.tensors[f"{prefix}.{name}_proj.weight"].T).reshape(len(x), count, width)

        q = self._rotate(self._norm(project("q", heads), f"{prefix}.q_norm"))
        k = self._rotate(self._norm(project("k", groups), f"{prefix}.k_norm"))
        v = project("v", groups)
        mixed = np.zeros_like(q)
        future = np.triu(np.full((len(x), len(x)), -np.inf), 1)
        for head in range(heads):
            group = head * groups // heads
            scores = q[:, head] @ k[:, group].T / np.sqrt(width) + future
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            mixed[:, head] = weights / weights.sum(axis=1, keepdims=True) @ v[:, group]
        out: Floats = mixed.reshape(len(x), -1) @ self.tensors[f"{prefix}.o_proj.weight"].T
        return out

    def _rotate(self, x: Floats) -> Floats:
        half = x.shape[-1] // 2
        angle = np.arange(len(x))[:, None] * self.config["rope_theta"] ** (-np.arange(half) / half)
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        first, second = x[..., :half], x[..., half:]
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    def _feed_forward(self, layer: int, x: Floats) -> Floats:
        gate, up, down = (
            self.tensors[f"model.layers.{layer}.mlp.{name}_proj.weight"] for name in ("gate", "up", "down")
        )
        opened = x @ gate.T
        out: Floats = (opened / (1 + np.exp(-opened)) * (x @ up.T)) @ down.T
        return out


def log_softmax(logits: NDArray[Any]) -> Floats:
    """Along the last axis, in float64."""
    x = logits.astype(np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    out: Floats = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return out


def _load(path: Path) -> dict[str, Floats]:
    blob = path.read_bytes()
    start = 8 + int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8:start])
    found = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (start + offset for offset in entry["data_offsets"])
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(blob[begin:end], "<u2").astype("<u4") << 16).view("<f4")
        else:
            values = np.frombuffer(blob[begin:end], {"F32": "<f4", "F16": "<f2"}[entry["dtype"]])
        found[name] = values.astype(np.float64).reshape(entry["shape"])
    return found
