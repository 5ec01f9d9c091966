"""Which channels of the encoder are far wider than the others, and by how much to narrow them before int8.

Activations are stored with one step for all channels, taken from the widest: a few channels 15 times as wide as the
median leave the others three bits. Such a channel is divided by a factor and the next product's weights multiplied by
it, which changes nothing in float32 (the factors are powers of two) and evens the ranges out for int8.
The idea is that of SmoothQuant (Xiao et al. 2023, arXiv 2211.10438), with exponent 1/2 and activations only.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnxruntime
from encoder_graph import Factors, Shape, Weights, build
from numpy.typing import NDArray
from onnx import TensorProto, helper

# Ranges are taken on random tokens, not on anybody's text: wide channels are a property of the weights.
SEQUENCES = 64
LENGTHS = (8, 128)
SEED = 0
FIRST_WORD = 999  # ids below are special tokens
CLS, SEP = 101, 102
# The product after attention gains nothing: its inputs are narrow already.
NARROWED = ("qkv", "up", "down")


def channel_factors(weights: Weights, shape: Shape) -> Factors:
    """Factors by linear layer, shape (its inputs,): the power of two nearest to sqrt(range / median range), at least 1."""
    model = build(weights, shape, int8_words=False)
    products = [node for node in model.graph.node if node.name.endswith(tuple(f"{name}/matmul" for name in NARROWED))]
    inputs = [node.input[0] for node in products]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    seen = [session.run(inputs, feed) for feed in _random_feeds(len(weights["embeddings.word_embeddings.weight"]))]
    widths = [np.abs(np.concatenate(values, axis=1)).max(axis=(0, 1)) for values in zip(*seen, strict=True)]
    return {node.name.removesuffix("/matmul"): _factor(width) for node, width in zip(products, widths, strict=True)}


def _factor(width: NDArray[np.float32]) -> NDArray[np.float32]:
    excess = np.sqrt(np.maximum(width / np.median(width), 1.0))
    factor: NDArray[np.float32] = np.exp2(np.rint(np.log2(excess))).astype(np.float32)
    return factor


def _random_feeds(words: int) -> Iterator[dict[str, NDArray[np.int64]]]:
    rng = np.random.default_rng(SEED)
    for length in rng.integers(*LENGTHS, SEQUENCES):
        tokens = np.array([[CLS, *rng.integers(FIRST_WORD, words, length), SEP]], dtype=np.int64)
        yield {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
