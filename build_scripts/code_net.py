"""The encoder with upper layers of its own for a difficulty code, in torch: what train_encoder.py trains.

The lower layers stay as they are, so that embedding and states come out of one pass with the code and do not change. The
code of a query is linear in the first token's state and the mean over tokens; of several windows it is their mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from teaching import Teaching

LAYERS, HEADS, EPSILON = 6, 12, 1e-12
# The layer whose states the map reads, see encoder_graph.
STATE_LAYER = 3
Weights = Mapping[str, NDArray[np.float32]]


class _Layer(nn.Module):
    """One layer of BERT, with query, key and value as one product."""

    def __init__(self, weights: Weights, number: int, dropout: float) -> None:
        super().__init__()
        start = f"encoder.layer.{number}."

        def kept(*names: str) -> nn.Parameter:
            return nn.Parameter(torch.cat([torch.tensor(weights[start + name]) for name in names]))

        parts = ("query", "key", "value")
        self.joint = kept(*(f"attention.self.{part}.weight" for part in parts))
        self.joint_bias = kept(*(f"attention.self.{part}.bias" for part in parts))
        self.out, self.out_bias = kept("attention.output.dense.weight"), kept("attention.output.dense.bias")
        self.scale, self.shift = kept("attention.output.LayerNorm.weight"), kept("attention.output.LayerNorm.bias")
        self.up, self.up_bias = kept("intermediate.dense.weight"), kept("intermediate.dense.bias")
        self.down, self.down_bias = kept("output.dense.weight"), kept("output.dense.bias")
        self.scale_2, self.shift_2 = kept("output.LayerNorm.weight"), kept("output.LayerNorm.bias")
        self.dropout = dropout

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        joint = functional.linear(x, self.joint, self.joint_bias).view(batch, tokens, 3, HEADS, -1)
        q, k, v = joint.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        mixed = functional.linear(mixed.transpose(1, 2).reshape(x.shape), self.out, self.out_bias)
        mixed = functional.dropout(mixed, self.dropout, self.training)
        x = functional.layer_norm(x + mixed, (width,), self.scale, self.shift, EPSILON)
        wide = functional.gelu(functional.linear(x, self.up, self.up_bias))
        back = functional.dropout(functional.linear(wide, self.down, self.down_bias), self.dropout, self.training)
        return functional.layer_norm(x + back, (width,), self.scale_2, self.shift_2, EPSILON)


class Encoder(nn.Module):
    """Layers 1 to LAYERS on top of the word table, which does not learn."""

    def __init__(self, weights: Weights, dropout: float = 0.0) -> None:
        super().__init__()
        for name, key in (("words", "word_embeddings.weight"), ("places", "position_embeddings.weight")):
            self.register_buffer(name, torch.tensor(weights[f"embeddings.{key}"]))
        for name, key in (("scale", "LayerNorm.weight"), ("shift", "LayerNorm.bias")):
            self.register_buffer(name, torch.tensor(weights[f"embeddings.{key}"]))
        self.layers = nn.ModuleList(_Layer(weights, number, dropout) for number in range(LAYERS))

    def begin(self, ids: Tensor) -> Tensor:
        """What the first layer reads, (batch, tokens, width)."""
        x = functional.embedding(ids, self.words) + self.places[: ids.shape[1]]
        return functional.layer_norm(x, (x.shape[-1],), self.scale, self.shift, EPSILON)


class CodeNet(nn.Module):
    """Code and log-length of a query, and how every model answers to them.

    logit P(model m right on q) = level[m, set] + loading[m] . code(q)
    log tokens                  = length_level[m, set] + length_slope[m] length(q)

    own: layers that learn, from the top. size: of the code.
    """

    def __init__(self, weights: Weights, models: int, sets: int, *, size: int, own: int, dropout: float) -> None:
        super().__init__()
        self.size, self.dropout, self.fixed = size, dropout, LAYERS - own
        self.encoder = Encoder(weights, dropout)
        for layer in self.encoder.layers[: self.fixed]:
            layer.requires_grad_(False).dropout = 0.0
        self.head = nn.Linear(2 * self.encoder.words.shape[1], size + 1)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.level, self.length_level = (nn.Parameter(torch.zeros(models, sets)) for _ in range(2))
        loading = 0.3 * torch.randn(models, size)
        loading[:, 0] += 1
        self.loading, self.length_slope = nn.Parameter(loading), nn.Parameter(torch.ones(models))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(windows, size + 1): code and log-length of each window."""
        x = self.encoder.begin(ids)
        for number, layer in enumerate(self.encoder.layers):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= self.fixed):
                x = layer(x, mask)
        both = torch.cat([x[:, 0], mean(x, mask)], 1).float()
        return self.head(functional.dropout(both, self.dropout, self.training))


def mean(x: Tensor, mask: Tensor) -> Tensor:
    """Over the tokens that count, (windows, width)."""
    counted = mask[..., None].to(x.dtype)
    return (x * counted).sum(1) / counted.sum(1)


class Windows:
    """The windows of a `Teaching`, where the network is."""

    def __init__(self, teaching: Teaching, device: str) -> None:
        self.ids = torch.tensor(teaching.windows, device=device)
        self.lengths = torch.tensor(teaching.lengths, device=device)
        self.owner = torch.tensor(teaching.owner, device=device)
        self.queries = len(teaching)
        self._order = torch.argsort(self.lengths, stable=True)

    def batch(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """(ids, mask) of these windows, cut at the longest."""
        lengths = self.lengths[chosen]
        tokens = int(lengths.max())
        return self.ids[chosen, :tokens], torch.arange(tokens, device=lengths.device) < lengths[:, None]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """All windows by length, `size` at once: which they are, ids and mask."""
        for chosen in self._order.split(size):
            yield chosen, *self.batch(chosen)

    def by_query(self, rows: Tensor) -> Tensor:
        """Means (n, k) of rows (w, k) over each query's windows, every token counting once."""
        weight = (self.lengths - 2).clamp(min=1).float()
        total = torch.zeros(self.queries, rows.shape[1], device=rows.device)
        total.index_add_(0, self.owner, rows.float() * weight[:, None])
        counts = torch.zeros(self.queries, device=rows.device).index_add_(0, self.owner, weight)
        return total / counts[:, None]


@torch.inference_mode()
def untuned(weights: Weights, windows: Windows) -> tuple[Tensor, Tensor]:
    """Embeddings (n, d), not of unit length where there are several windows, and states (n, d), in float32."""
    encoder = Encoder(weights).to(windows.ids.device).eval()
    width = encoder.words.shape[1]
    vectors, states = (torch.empty(len(windows.ids), width, device=windows.ids.device) for _ in range(2))
    for chosen, ids, mask in windows.batches(256):
        x = encoder.begin(ids)
        for number, layer in enumerate(encoder.layers, 1):
            x = layer(x, mask)
            if number == STATE_LAYER:
                states[chosen] = mean(x, mask)
        vectors[chosen] = functional.normalize(mean(x, mask), dim=1)
    return windows.by_query(vectors), windows.by_query(states)


@torch.inference_mode()
def codes(net: CodeNet, windows: Windows) -> Tensor:
    """(n, size + 1): code and log-length of every query."""
    net.eval()
    found = torch.empty(len(windows.ids), net.size + 1, device=windows.ids.device)
    for chosen, ids, mask in windows.batches(512):
        with torch.autocast(windows.ids.device.type, torch.bfloat16, enabled=windows.ids.is_cuda):
            out = net(ids, mask)
        found[chosen] = out.float()
    return windows.by_query(found)
