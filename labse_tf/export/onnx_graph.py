"""ONNX graph of an encoder: token ids to unit vectors, in standard operators.

    float32  as in the model
    int8     matrices as int8 codes with one float32 scale per channel; see
             `labse_tf.quantization`
    int4     as int8, but the token table in 4 bits with one scale per 32 values

All products are computed in float32. A runtime multiplies codes and scales of the
blocks once, when it loads the graph; of the table it reads the rows of each batch.

Shapes: B = batch, T = length in tokens, D = hidden dimension, V = vocabulary size, H =
heads, K = D / H.

References:
    https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from labse_tf import __version__
from labse_tf.models import LaBSE
from labse_tf.models.backbone import merged_weights
from labse_tf.quantization import GROUP, quantize, quantize_groups

if TYPE_CHECKING:
    import onnx

ONNX_STORAGES = ("float32", "int8", "int4")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUTS = ("last_hidden_state", "sentence_embedding")

_OPSET = 18  # the first with BitwiseAnd
_IR_VERSION = 9  # of ONNX Runtime 1.14 and later
_HIDDEN = -1e9  # added to the score of padding, as in `TransformerBlock`
_TABLE = "token_embedding/embeddings"


def encoder_graph(model: LaBSE, storage: str = "float32") -> onnx.ModelProto:
    """Return the ONNX graph of a model without its tokenizer.

    The inputs are those of transformers' BERT models: `input_ids`, `attention_mask` and
    `token_type_ids`, int64 `(B, T)`. The outputs are `last_hidden_state`, float32
    `(B, T, D)`, and `sentence_embedding`, the unit vectors, float32 `(B, D)`.

    Args:
        model: A model of any pooling.
        storage: One of `ONNX_STORAGES`.

    Raises:
        ValueError: If the storage or the activation is unknown, or D is not a multiple
            of 32 with `"int4"`.
        ImportError: If `onnx` is missing.
    """
    import onnx
    from onnx import TensorProto, helper

    backbone = model.backbone
    if storage not in ONNX_STORAGES:
        raise ValueError(
            f"`storage` must be one of {', '.join(ONNX_STORAGES)}. "
            f"Received: {storage!r}"
        )
    if storage == "int4" and backbone.hidden_dim % GROUP:
        raise ValueError(
            f"`storage='int4'` requires a hidden dimension that is a multiple of "
            f"{GROUP}. Received: {backbone.hidden_dim}"
        )
    activations = {"gelu": _gelu, "gelu_approximate": _gelu_approximate, "relu": _relu}
    if backbone.activation not in activations:
        raise ValueError(
            f"`model` must have an activation of {', '.join(activations)}. "
            f"Received: {backbone.activation!r}"
        )
    graph = _Graph(merged_weights(model), storage)
    states = _encode(graph, model, activations[backbone.activation])
    graph.add("Identity", states, name=OUTPUTS[0])
    width = backbone.hidden_dim
    _pool(graph, states, model.pooling, width)
    results: list[list[str | int | None]] = [
        ["batch", "length", width],
        ["batch", width],
    ]
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "labse_tf",
            [
                helper.make_tensor_value_info(
                    name, TensorProto.INT64, ["batch", "length"]
                )
                for name in INPUTS
            ],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in zip(OUTPUTS, results, strict=True)
            ],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="labse_tf",
        producer_version=__version__,
    )
    helper.set_model_props(made, {"pooling": model.pooling, "storage": storage})
    onnx.checker.check_model(made)
    return made


class _Graph:
    """Nodes and weights of a graph that is being written.

    Each method returns the name of a tensor.
    """

    def __init__(self, values: Mapping[str, Any], storage: str) -> None:
        self._values, self._storage = values, storage
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._constants: dict[tuple[Any, ...], str] = {}

    def add(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node with one output."""
        from onnx import helper

        name = name or f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def store(self, name: str, array: np.ndarray) -> str:
        """Add a weight."""
        from onnx import numpy_helper

        array = np.asarray(array, order="C")
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Add a small constant, once."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self._constants[key] = self.store(name, array)
        return self._constants[key]

    def float(self, name: str) -> str:
        """Cast to float32."""
        from onnx import TensorProto

        return self.add("Cast", name, to=TensorProto.FLOAT)

    def vector(self, path: str) -> str:
        """Add a bias or a weight of a normalization as float32 `(n,)`."""
        return self.store(path, np.asarray(self._values[path], np.float32).reshape(-1))

    def matrix(self, path: str, rows: int) -> str:
        """Add a kernel or a table as a matrix of `rows` rows in the storage type."""
        value = np.asarray(self._values[path], np.float32)
        if self._storage == "float32":
            return self.store(path, value.reshape(rows, -1))
        codes, scales = quantize(path, value)
        whole = self.store(path, codes.reshape(rows, -1))
        scale = self.store(f"{path}:scale", scales.reshape(1, -1))
        return self.add("Mul", self.float(whole), scale)

    def table(self, path: str) -> str:
        """Add a small table as float32."""
        return self.store(path, np.asarray(self._values[path], np.float32))

    def tokens(self, ids: str) -> str:
        """Look up the rows of the token table, float32 `(B, T, D)`."""
        value = np.asarray(self._values[_TABLE], np.float32)
        if self._storage == "float32":
            return self.add("Gather", self.store(_TABLE, value), ids)
        packed = self._storage == "int4"
        codes, scales = quantize_groups(value) if packed else quantize(_TABLE, value)
        rows = self.add("Gather", self.store(_TABLE, codes), ids)
        scale = self.add("Gather", self.store(f"{_TABLE}:scale", scales), ids)
        if not packed:
            return self.add("Mul", self.float(rows), scale)
        return self._unpack(rows, scale, value.shape[1])

    def _unpack(self, rows: str, scale: str, width: int) -> str:
        """Return the values of rows in 4 bits; see `dequantize_groups`."""
        half, groups = GROUP // 2, width // GROUP
        shape = self.constant([0, 0, groups, half], np.int64)
        split = self.add("Reshape", rows, shape)  # (B, T, D / 32, 16)
        low = self.add("BitwiseAnd", split, self.constant(15, np.uint8))
        four = self.constant(4, np.uint8)
        high = self.add("BitShift", split, four, direction="RIGHT")
        codes = self.float(self.add("Concat", low, high, axis=-1))
        codes = self.add("Sub", codes, self.constant(8))
        last = self.constant([3], np.int64)
        scales = self.add("Unsqueeze", self.float(scale), last)
        values = self.add("Mul", codes, scales)
        return self.add("Reshape", values, self.constant([0, 0, width], np.int64))


def _encode(
    graph: _Graph, model: LaBSE, activation: Callable[[_Graph, str], str]
) -> str:
    """Add embeddings and blocks; return the states `(B, T, D)`."""
    backbone = model.backbone
    ids, mask, segments = INPUTS
    epsilon = backbone.layer_norm_epsilon

    def norm(x: str, layer: str) -> str:
        gamma, beta = graph.vector(f"{layer}/gamma"), graph.vector(f"{layer}/beta")
        return graph.add("LayerNormalization", x, gamma, beta, epsilon=epsilon)

    def dense(x: str, layer: str, inputs: int) -> str:
        kernel = graph.matrix(f"{layer}/kernel", inputs)
        return graph.add(
            "Add", graph.add("MatMul", x, kernel), graph.vector(f"{layer}/bias")
        )

    length = graph.add("Shape", ids, start=1, end=2)
    zero = graph.constant([0], np.int64)
    positions = graph.add(
        "Slice", graph.table("position_embedding/embeddings"), zero, length, zero
    )
    kinds = graph.add("Gather", graph.table("segment_embedding/embeddings"), segments)
    x = graph.add("Add", graph.tokens(ids), positions)
    x = norm(graph.add("Add", x, kinds), "embeddings_layer_norm")
    if not backbone.num_layers:
        return x
    width, heads = backbone.hidden_dim, backbone.num_heads
    depth = width // heads
    # (B, 1, 1, T): 0 for a token, and for padding what hides it.
    hidden = graph.add("Sub", graph.constant(1), graph.float(mask))
    hidden = graph.add("Mul", hidden, graph.constant(_HIDDEN))
    hidden = graph.add("Unsqueeze", hidden, graph.constant([1, 2], np.int64))
    by_heads = graph.constant([0, 0, heads, depth], np.int64)
    joined = graph.constant([0, 0, width], np.int64)
    for number in range(backbone.num_layers):
        block = f"transformer_layer_{number}"
        attention = f"{block}/self_attention_layer"

        def split(name: str, order: list[int], x: str = x, of: str = attention) -> str:
            y = graph.add("Reshape", dense(x, f"{of}/{name}", width), by_heads)
            return graph.add("Transpose", y, perm=order)

        query = split("query", [0, 2, 1, 3])  # (B, H, T, K)
        key = split("key", [0, 2, 3, 1])  # (B, H, K, T)
        value = split("value", [0, 2, 1, 3])
        scores = graph.add("MatMul", query, key)
        scores = graph.add("Mul", scores, graph.constant(depth**-0.5))
        shares = graph.add("Softmax", graph.add("Add", scores, hidden), axis=-1)
        y = graph.add("MatMul", shares, value)
        y = graph.add("Transpose", y, perm=[0, 2, 1, 3])
        y = graph.add("Reshape", y, joined)
        y = dense(y, f"{attention}/attention_output", width)
        x = norm(graph.add("Add", x, y), f"{block}/self_attention_layer_norm")
        y = dense(x, f"{block}/feedforward_intermediate_dense", width)
        y = activation(graph, y)
        inner = backbone.intermediate_dim
        y = dense(y, f"{block}/feedforward_output_dense", inner)
        x = norm(graph.add("Add", x, y), f"{block}/feedforward_layer_norm")
    return x


def _pool(graph: _Graph, states: str, pooling: str, width: int) -> None:
    """Add the pooling and the normalization; see `SentencePooling`."""
    axis = graph.constant([1], np.int64)
    if pooling in ("pooler", "cls"):
        x = graph.add("Gather", states, graph.constant(0, np.int64), axis=1)  # (B, D)
        if pooling == "pooler":
            x = graph.add("MatMul", x, graph.matrix("pooler/kernel", width))
            x = graph.add("Tanh", graph.add("Add", x, graph.vector("pooler/bias")))
    else:
        last = graph.constant([2], np.int64)
        weights = graph.add("Unsqueeze", graph.float(INPUTS[1]), last)  # (B, T, 1)
        if pooling == "weighted_mean":
            table = graph.table("token_weights/embeddings")
            learned = graph.add("Exp", graph.add("Gather", table, INPUTS[0]))
            weights = graph.add("Mul", weights, learned)
        x = graph.add("Mul", states, weights)
        x = graph.add("ReduceSum", x, axis, keepdims=0)
    squares = graph.add("ReduceSumSquare", x, axis, keepdims=1)
    length = graph.add("Sqrt", graph.add("Max", squares, graph.constant(1e-24)))
    graph.add("Div", x, length, name=OUTPUTS[1])


def _gelu(graph: _Graph, x: str) -> str:
    """Exact GELU: `x / 2 * (1 + erf(x / sqrt(2)))`."""
    y = graph.add("Erf", graph.add("Div", x, graph.constant(2**0.5)))
    y = graph.add("Mul", x, graph.add("Add", y, graph.constant(1)))
    return graph.add("Mul", y, graph.constant(0.5))


def _gelu_approximate(graph: _Graph, x: str) -> str:
    """GELU's tanh approximation: `x / 2 * (1 + tanh(c * (x + 0.044715 x^3)))`."""
    cube = graph.add("Mul", graph.add("Mul", x, x), x)
    y = graph.add("Add", x, graph.add("Mul", cube, graph.constant(0.044715)))
    y = graph.add("Tanh", graph.add("Mul", y, graph.constant((2 / np.pi) ** 0.5)))
    y = graph.add("Mul", x, graph.add("Add", y, graph.constant(1)))
    return graph.add("Mul", y, graph.constant(0.5))


def _relu(graph: _Graph, x: str) -> str:
    """ReLU."""
    return graph.add("Relu", x)
