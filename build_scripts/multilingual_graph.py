"""The graph of the multilingual encoder, node by node: a net over n-grams of the tokens' vectors, their sum, and a deep net.

Yang et al. (2019, arXiv 1907.04307), the CNN of universal-sentence-encoder-multilingual 3. Every product is of integers:
int8 weights with one step for each output, and activations with one step a run, as onnxruntime's quantize_dynamic does it.
The tokens' vectors come as the integers they are stored as, and lose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from encoder_graph import OPSET, Graph
from numpy.typing import NDArray
from onnx import TensorProto, helper

from scope_edge.encoding.multilingual import ZERO

# (words of an n-gram, how many of them stand before its own place).
ORDERS = ((2, 0), (3, 1), (5, 2))
BEFORE = AFTER = 2
WIDTH, CHANNELS = 512, 256
Weights = Mapping[str, NDArray[np.float32]]


def build(weights: Weights, *, bits: int = 7) -> onnx.ModelProto:
    """The net on one text.

    Inputs: `rows` uint8 (tokens, 512), the tokens' vectors as integers about ZERO; `kinds` int64 (tokens,), the part of the
    package's table that each is from; `windows` int64 (tokens, 5): i, i + 1, .. i + 4 for token i. Output: `embedding` (1, 512), norm 1.

    bits: of the weights behind activations of 8 bits; 7 for the reason that models/README.md gives.
    """
    graph = Graph()
    lowest, steps = weights["lo"], weights["scale"]
    # What is left of a part's lowest value when its integers begin at a whole number of steps.
    offsets = lowest - steps * np.rint(lowest / steps)
    step = graph.node("Gather", graph.constant("steps", steps[:, None]), "kinds", result="tokens/steps", axis=0)
    begin = graph.constant("begins", (offsets - ZERO * steps)[:, None].astype(np.float32))
    begin = graph.node("Gather", begin, "kinds", result="tokens/begins", axis=0)
    wide = graph.node("Cast", "rows", result="tokens/wide", to=TensorProto.FLOAT)
    tokens = graph.node("Add", graph.node("Mul", wide, step, result="tokens/scaled"), begin, result="tokens")
    places = _places(graph, weights, step, offsets)
    split = [f"order{n}" for n, _ in ORDERS]
    graph.nodes.append(helper.make_node("Split", [places], split, name="orders", axis=1))
    padded = _padded(graph, "places", places)
    parts = [f"{name}/w1/padded" for name in split]
    graph.nodes.append(helper.make_node("Split", [padded[0]], parts, name="orders/padded", axis=1))
    features = [tokens]
    for name, part, (n, left) in zip(split, parts, ORDERS, strict=True):
        windows = _columns(graph, name, BEFORE - left, n)
        inner = _layer(
            graph, f"{name}/w1", name, (part, *padded[1:]), windows, (weights[f"w1_{n}"], weights[f"b1_{n}"]), bits
        )
        outer = _padded(graph, f"{name}/w2", inner)
        features.append(
            _layer(graph, f"{name}/w2", inner, outer, windows, (weights[f"w2_{n}"], weights[f"b2_{n}"]), bits)
        )
    joined = graph.node("Concat", *features, result="features", axis=1)
    normed = _normed(graph, "features/norm", joined, weights["ln_g"], weights["ln_b"], weights)
    _deep(graph, normed, weights, bits)
    return _model(graph)


def _places(graph: Graph, weights: Weights, step: str, offsets: NDArray[np.float32]) -> str:
    """What the n-grams are made of: a product of each token's vector for each order."""
    joint = np.concatenate([weights[f"proj{n}"] for n, _ in ORDERS], axis=1)
    # At most 127 * 127 * 2 fits 16 bits, so these weights may have all of theirs.
    stored, of_weight = _int8(joint, 8)
    zero = graph.constant("rows/zero", np.array(ZERO, np.uint8))
    product = _integers(graph, "places", "rows", zero, step, stored, of_weight)
    # A vector's offset is one number, so it adds that times the sum of an output's weights.
    bias = _joined(weights, "proj_b") + np.outer(offsets, (stored * of_weight).sum(axis=0))
    shift = graph.node(
        "Gather", graph.constant("places/bias", bias.astype(np.float32)), "kinds", result="places/shift", axis=0
    )
    moved = graph.node("Add", product, shift, result="places/moved")
    return _normed(graph, "places/norm", moved, _joined(weights, "ln_g"), _joined(weights, "ln_b"), weights)


def _joined(weights: Weights, key: str) -> NDArray[np.float32]:
    return np.concatenate([weights[f"{key}{n}"] for n, _ in ORDERS])


def _normed(
    graph: Graph, name: str, source: str, scale: NDArray[np.float32], bias: NDArray[np.float32], weights: Weights
) -> str:
    constants = [graph.constant(f"{name}/{key}", value) for key, value in (("scale", scale), ("bias", bias))]
    return graph.node("LayerNormalization", source, *constants, result=name, axis=-1, epsilon=float(weights["eps"]))


def _columns(graph: Graph, name: str, first: int, n: int) -> str:
    """The places of an order's n-grams."""
    if n == BEFORE + 1 + AFTER:
        return "windows"
    ends = [graph.constant(f"{name}/{key}", np.array([i], np.int64)) for key, i in (("from", first), ("to", first + n))]
    axis = graph.constant(f"{name}/axis", np.array([1], np.int64))
    return graph.node("Slice", "windows", *ends, axis, result=f"{name}/windows")


def _padded(graph: Graph, name: str, source: str) -> tuple[str, str, str]:
    """Values as uint8, with rows of 0 before and after the text's own; step; zero."""
    values, step, zero = _quantized(graph, name, source)
    pads = graph.constant(f"{name}/pads", np.array([BEFORE, 0, AFTER, 0], np.int64))
    return graph.node("Pad", values, pads, zero, result=f"{name}/padded"), step, zero


def _layer(
    graph: Graph,
    name: str,
    source: str,
    padded: tuple[str, str, str],
    windows: str,
    weights: tuple[NDArray[np.float32], NDArray[np.float32]],
    bits: int,
) -> str:
    """One layer over n-grams, added to its input."""
    values, step, zero = padded
    weight, bias = weights
    grams = graph.node("Gather", values, windows, result=f"{name}/gathered", axis=0)
    shape = graph.constant(f"{name}/shape", np.array([-1, len(weight)], np.int64))
    flat = graph.node("Reshape", grams, shape, result=f"{name}/grams")
    product = _integers(graph, name, flat, zero, step, *_int8(weight, bits))
    biased = graph.node("Add", product, graph.constant(f"{name}/bias", bias), result=f"{name}/biased")
    active = graph.node("Relu", biased, result=f"{name}/active")
    return graph.node("Add", active, source, result=f"{name}/out")


def _deep(graph: Graph, features: str, weights: Weights, bits: int) -> None:
    """Sum over the tokens, by the root of their number, and the deep net behind it."""
    mean = graph.node("ReduceMean", features, result="mean", axes=[0], keepdims=1)
    count = graph.node("Shape", "kinds", result="count/shape", start=0, end=1)
    root = graph.node("Sqrt", graph.node("Cast", count, result="count", to=TensorProto.FLOAT), result="count/root")
    product = graph.node(
        "Add",
        _product(graph, "sum", mean, weights["cnn_W"], bits),
        graph.constant("sum/bias", weights["cnn_b"]),
        result="sum/mean",
    )
    total = graph.node("Mul", product, root, result="sum")
    both = _product(graph, "deep1", total, np.concatenate([weights["d0"], weights["p1"]], axis=1), bits)
    graph.nodes.append(helper.make_node("Split", [both], ["deep1/first", "deep1/past"], name="deep1/split", axis=1))
    first = graph.node("Relu", "deep1/first", result="deep1")
    inner = graph.node("Add", "deep1/past", _exact(graph, "deep2", first, weights["d1"], bits), result="deep2/sum")
    second = graph.node("Relu", inner, result="deep2")
    both = _exact(graph, "deep3", second, np.concatenate([weights["d2"], weights["p3"]], axis=1), bits)
    graph.nodes.append(helper.make_node("Split", [both], ["deep3/first", "deep3/past"], name="deep3/split", axis=1))
    third = graph.node("Relu", "deep3/first", result="deep3")
    last = graph.node("Add", "deep3/past", _product(graph, "deep4", third, weights["d3"], bits), result="deep4/sum")
    graph.node("LpNormalization", graph.node("Tanh", last, result="deep4"), result="embedding", axis=-1, p=2)


def _exact(graph: Graph, name: str, source: str, weight: NDArray[np.float32], bits: int) -> str:
    """A product with twice the bits: its weights are two integers, the second for what the first leaves.

    It is for the two products whose rounding costs more parity than that of all others together.
    """
    stored, steps = _int8(weight, bits)
    rest, finer = _int8(weight - stored * steps, bits)
    values, step, zero = _quantized(graph, name, source)
    weights = np.concatenate([stored, rest], axis=1), np.concatenate([steps, finer])
    both = _integers(graph, name, values, zero, step, *weights)
    graph.nodes.append(helper.make_node("Split", [both], [f"{name}/1", f"{name}/2"], name=f"{name}/both", axis=1))
    return graph.node("Add", f"{name}/1", f"{name}/2", result=f"{name}/total")


def _product(graph: Graph, name: str, source: str, weight: NDArray[np.float32], bits: int) -> str:
    values, step, zero = _quantized(graph, name, source)
    return _integers(graph, name, values, zero, step, *_int8(weight, bits))


def _quantized(graph: Graph, name: str, source: str) -> tuple[str, str, str]:
    """Values, step and zero of float32 as uint8."""
    names = [f"{name}/values", f"{name}/step", f"{name}/zero"]
    graph.nodes.append(helper.make_node("DynamicQuantizeLinear", [source], names, name=f"{name}/quantize"))
    return names[0], names[1], names[2]


def _integers(
    graph: Graph, name: str, values: str, zero: str, step: str, stored: NDArray[np.int8], steps: NDArray[np.float32]
) -> str:
    """The product of integers, as float32."""
    weight, of_weight = graph.constant(f"{name}/weight", stored), graph.constant(f"{name}/weight/steps", steps)
    product = graph.node("MatMulInteger", values, weight, zero, result=f"{name}/integers")
    wide = graph.node("Cast", product, result=f"{name}/wide", to=TensorProto.FLOAT)
    both = graph.node("Mul", step, of_weight, result=f"{name}/steps")
    return graph.node("Mul", wide, both, result=f"{name}/product")


def _int8(weight: NDArray[np.float32], bits: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights as integers of `bits` bits, and the step of each output."""
    most = 2 ** (bits - 1) - 1
    steps = (np.abs(weight).max(axis=0) / most).astype(np.float32)
    steps[steps == 0] = 1.0
    return np.rint(weight / steps).astype(np.int8), steps


def _model(graph: Graph) -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info("rows", TensorProto.UINT8, ["tokens", WIDTH]),
        helper.make_tensor_value_info("kinds", TensorProto.INT64, ["tokens"]),
        helper.make_tensor_value_info("windows", TensorProto.INT64, ["tokens", BEFORE + 1 + AFTER]),
    ]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, WIDTH])]
    body = helper.make_graph(graph.nodes, "multilingual", inputs, outputs, graph.constants)
    model = helper.make_model(
        body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="scope-edge"
    )
    onnx.checker.check_model(model)
    return model
