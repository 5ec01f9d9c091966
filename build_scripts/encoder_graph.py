"""The encoder's graph, written out node by node: BERT (6 layers), mean pooling over the mask, L2 norm; and the states half way.

Written by hand rather than traced: a traced export bakes the mask handling of one library version in, and its bytes
change with every release of the exporter. Only standard operators of opset 17 are used, so any execution provider may run it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
# What is added to the score of a masked token: exp() of it is 0 in float32, and it is far from overflow.
MASKED = -10000.0
# The layer whose states are put out, too; anchors/README.md says why, and what the others are worth.
STATE_LAYER = 3
Weights = Mapping[str, NDArray[np.float32]]
# By linear layer, what each of its input channels is divided by, and its weights multiplied by.
Factors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the transformer, read from its config.json."""

    layers: int
    heads: int
    hidden: int
    epsilon: float


@dataclass(slots=True)
class Graph:
    """Nodes and constants in the order they are added; every method returns the name of its result."""

    factors: Factors = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, operator: str, *inputs: str, result: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [result], name=result, **attributes))
        return result

    def linear(self, name: str, source: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> str:
        if name in self.factors:
            inverse = self.constant(f"{name}/inverse", 1 / self.factors[name])
            source = self.node("Mul", source, inverse, result=f"{name}/narrowed")
            weight = weight * self.factors[name]
        product = self.node("MatMul", source, self.constant(f"{name}/weight", weight.T), result=f"{name}/matmul")
        return self.node("Add", product, self.constant(f"{name}/bias", bias), result=name)

    def normalised(self, name: str, source: str, weights: Weights, key: str, epsilon: float) -> str:
        scale = self.constant(f"{name}/scale", weights[f"{key}.weight"])
        shift = self.constant(f"{name}/shift", weights[f"{key}.bias"])
        return self.node("LayerNormalization", source, scale, shift, result=name, axis=-1, epsilon=epsilon)


def build(weights: Weights, shape: Shape, *, int8_words: bool, factors: Factors | None = None) -> onnx.ModelProto:
    """The whole encoder in float32; with `int8_words`, the word table is stored as int8 with one scale a row.

    `factors` narrow wide channels, see encoder_ranges; they change no result in float32.
    Inputs: `input_ids` and `attention_mask`, int64 (batch, tokens). Outputs, float32 (batch, hidden): `embedding`, norm 1, and
    `state`, the mean over the tokens of what layer STATE_LAYER puts out.
    Token type ids are all zero: their row is folded into the position table.
    """
    graph = Graph(factors or {})
    for name, value in (("axis_1", [1]), ("axis_2", [2]), ("axes_12", [1, 2]), ("zero", [0]), ("one", [1])):
        graph.constant(name, np.array(value, dtype=np.int64))
    mask = _mask(graph)
    state = _embed(graph, weights, shape, int8_words)
    for layer in range(shape.layers):
        state = _layer(graph, state, mask, _of_layer(weights, layer), shape, f"layer{layer}")
        if layer + 1 == STATE_LAYER:
            _mean(graph, state, "state")
    graph.node("LpNormalization", _mean(graph, state, "pool"), result="embedding", axis=-1, p=2)
    return _model(graph, shape)


def _mask(graph: Graph) -> str:
    """Attention bias, (batch, 1, 1, tokens): 0 where a token counts, MASKED where it is padding."""
    kept = graph.node("Cast", "attention_mask", result="mask", to=TensorProto.FLOAT)
    wide = graph.node("Unsqueeze", kept, "axes_12", result="mask/wide")
    absent = graph.node("Sub", graph.constant("mask/one", np.array(1, np.float32)), wide, result="mask/absent")
    return graph.node("Mul", absent, graph.constant("mask/low", np.array(MASKED, np.float32)), result="mask/bias")


def _embed(graph: Graph, weights: Weights, shape: Shape, int8_words: bool) -> str:
    words = weights["embeddings.word_embeddings.weight"]
    if int8_words:
        scale = np.abs(words).max(axis=1, keepdims=True) / 127.0
        scale[scale == 0] = 1.0
        rounded = np.rint(words / scale).astype(np.int8)
        raw = graph.node("Gather", graph.constant("words/table", rounded), "input_ids", result="words/raw")
        wide = graph.node("Cast", raw, result="words/float", to=TensorProto.FLOAT)
        step = graph.node("Gather", graph.constant("words/scale", scale), "input_ids", result="words/step")
        word = graph.node("Mul", wide, step, result="words")
    else:
        word = graph.node("Gather", graph.constant("words/table", words), "input_ids", result="words")
    positions = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    count = graph.node("Gather", graph.node("Shape", "input_ids", result="shape"), "one", result="tokens", axis=0)
    place = graph.node("Slice", graph.constant("places/table", positions), "zero", count, "zero", result="places")
    total = graph.node("Add", word, place, result="embedded/sum")
    return graph.normalised("embedded", total, weights, "embeddings.LayerNorm", shape.epsilon)


def _layer(graph: Graph, state: str, mask: str, weights: Weights, shape: Shape, name: str) -> str:
    mixed = _attention(graph, state, mask, weights, shape, f"{name}/attention")
    key = "attention.output"
    out = graph.linear(f"{name}/out", mixed, weights[f"{key}.dense.weight"], weights[f"{key}.dense.bias"])
    added = graph.node("Add", out, state, result=f"{name}/out/residual")
    state = graph.normalised(f"{name}/out/norm", added, weights, f"{key}.LayerNorm", shape.epsilon)
    up = graph.linear(f"{name}/up", state, weights["intermediate.dense.weight"], weights["intermediate.dense.bias"])
    active = _gelu(graph, up, f"{name}/gelu")
    down = graph.linear(f"{name}/down", active, weights["output.dense.weight"], weights["output.dense.bias"])
    added = graph.node("Add", down, state, result=f"{name}/down/residual")
    return graph.normalised(f"{name}/down/norm", added, weights, "output.LayerNorm", shape.epsilon)


def _attention(graph: Graph, state: str, mask: str, weights: Weights, shape: Shape, name: str) -> str:
    """Multi-head attention; query, key and value are one product, so that their input is quantized once."""
    size = shape.hidden // shape.heads
    parts = [f"attention.self.{part}" for part in ("query", "key", "value")]
    # softmax(q k / sqrt(size)): the factor goes into the query's weights.
    factors = np.array([size**-0.5, 1.0, 1.0], dtype=np.float32)
    weight = np.concatenate([weights[f"{part}.weight"] * f for part, f in zip(parts, factors, strict=True)])
    bias = np.concatenate([weights[f"{part}.bias"] * f for part, f in zip(parts, factors, strict=True)])
    joint = graph.linear(f"{name}/qkv", state, weight, bias)
    pieces = [f"{name}/{piece}" for piece in "qkv"]
    graph.nodes.append(helper.make_node("Split", [joint], pieces, name=f"{name}/split", axis=2))
    heads = graph.constant(f"{name}/heads", np.array([0, 0, shape.heads, size], dtype=np.int64))
    rows = [graph.node("Reshape", piece, heads, result=f"{piece}/heads") for piece in pieces]
    orders = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    q, k, v = (
        graph.node("Transpose", row, result=f"{row}/turned", perm=o) for row, o in zip(rows, orders, strict=True)
    )
    scores = graph.node("Add", graph.node("MatMul", q, k, result=f"{name}/scores"), mask, result=f"{name}/masked")
    shares = graph.node("Softmax", scores, result=f"{name}/shares", axis=-1)
    mixed = graph.node("MatMul", shares, v, result=f"{name}/mixed")
    turned = graph.node("Transpose", mixed, result=f"{name}/mixed/turned", perm=[0, 2, 1, 3])
    flat = graph.constant(f"{name}/flat", np.array([0, 0, shape.hidden], dtype=np.int64))
    return graph.node("Reshape", turned, flat, result=name)


def _gelu(graph: Graph, source: str, name: str) -> str:
    """x / 2 * (1 + erf(x / sqrt 2)), the exact form the model was trained with."""
    root = graph.constant(f"{name}/root", np.array(np.sqrt(2.0), np.float32))
    one = graph.constant(f"{name}/one", np.array(1, np.float32))
    half = graph.constant(f"{name}/half", np.array(0.5, np.float32))
    erf = graph.node("Erf", graph.node("Div", source, root, result=f"{name}/scaled"), result=f"{name}/erf")
    weight = graph.node("Add", erf, one, result=f"{name}/weight")
    return graph.node("Mul", graph.node("Mul", source, weight, result=f"{name}/twice"), half, result=name)


def _mean(graph: Graph, state: str, result: str) -> str:
    """Mean over the tokens that count, (batch, hidden)."""
    weight = graph.node("Unsqueeze", "mask", "axis_2", result=f"{result}/mask")
    kept = graph.node("Mul", state, weight, result=f"{result}/kept")
    total = graph.node("ReduceSum", kept, "axis_1", result=f"{result}/sum", keepdims=0)
    count = graph.node("ReduceSum", weight, "axis_1", result=f"{result}/count", keepdims=0)
    return graph.node("Div", total, count, result=result)


def _of_layer(weights: Weights, layer: int) -> Weights:
    start = f"encoder.layer.{layer}."
    return {key[len(start) :]: value for key, value in weights.items() if key.startswith(start)}


def _model(graph: Graph, shape: Shape) -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", shape.hidden])
        for name in ("embedding", "state")
    ]
    body = helper.make_graph(graph.nodes, "encoder", inputs, outputs, graph.constants)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(body, opset_imports=opset, ir_version=8, producer_name="scope-edge")
    onnx.checker.check_model(model)
    return model
