"""A replica's step compiles with XLA: static shapes, no strings, nothing of the host.

That is what a TPU asks for. The program is read, not run; one replica gathers itself,
so collectives are not in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from labse_tf.data import ParallelCorpus, SentencePair, sentence_pairs
from labse_tf.losses import AdditiveMarginSoftmax
from labse_tf.models import DualEncoder, LaBSE, LaBSEBackbone
from labse_tf.models.masked_lm import MaskedLM
from labse_tf.optimizers import adamw
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.tokenizers import WordPieceTokenizer
from labse_tf.training.dual_encoder import fixed_shapes

B, T, P = 8, 12, 3
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sun", "moon"]


def slow(value: Any) -> Any:
    return pytest.param(value, marks=pytest.mark.slow)


# What a TPU's program must not have: a dimension with a bound, a talk with the host.
FOREIGN = {
    "dynamic shape": r"\[[^\]]*<=\d+[^\]]*\]|set-dimension-size|get-dimension-size",
    "infeed": r"\binfeed\(",
    "outfeed": r"\boutfeed\(",
    "host transfer": r"\b(send|recv)(-done)?\(|is_host_transfer=true",
    "custom call": r"\bcustom-call\(",
}


def foreign(hlo: str) -> set[str]:
    return {name for name, pattern in FOREIGN.items() if re.search(pattern, hlo)}


def hlo(function: Callable[..., Any], *arguments: Any) -> str:
    """The program that XLA gets for these arguments' shapes."""
    compiled = tf.function(function, jit_compile=True, autograph=False)
    return compiled.experimental_get_compiler_ir(*arguments)(stage="hlo")


def features(length: int) -> dict[str, tf.Tensor]:
    ids = np.random.default_rng(0).integers(5, 50, (B, length)).astype(np.int32)
    both = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": 0 * ids + 1}
    return {name: tf.constant(x) for name, x in both.items()}


def masked() -> dict[str, tf.Tensor]:
    packed = {
        "position_ids": tf.tile(tf.range(T)[None], (B, 1)),
        "sequence_ids": tf.ones((B, T), tf.int32),
        "mask_positions": tf.ones((B, P), tf.int32),
        "mask_ids": 5 * tf.ones((B, P), tf.int32),
        "mask_weights": tf.ones((B, P)),
    }
    return {**features(T), **packed}


def model(kind: str, **options: Any) -> tuple[keras.Model, Any]:
    backbone = LaBSEBackbone(50, 2, 2, 16, 32, dropout=0.1)
    optimizer = adamw(0.01, weight_decay=0.1, clip_norm=1.0, **options)
    if kind == "masked":
        made, data = MaskedLM(backbone, chunk_size=17), masked()
        made.compile(optimizer, jit_compile=True)
    else:
        chunk_size = 4 if kind == "chunked" else None
        made = DualEncoder(LaBSE(backbone, pooling="pooler"), chunk_size)
        made.compile(optimizer, AdditiveMarginSoftmax(), jit_compile=True)
        data = {"source": features(T), "target": features(T)}
    optimizer.build(made.trainable_variables)
    return made, data


@pytest.mark.parametrize("kind", ["dual", slow("chunked"), "masked"])
@pytest.mark.parametrize("skip", [slow(False), True])
def test_a_step_is_a_program_for_a_tpu(kind: str, skip: bool) -> None:
    made, data = model(kind, skip_nonfinite=skip)
    flat = tf.nest.flatten(data)

    def step(*tensors: tf.Tensor) -> Any:
        return made.train_step(tf.nest.pack_sequence_as(data, tensors))

    program = hlo(step, *flat)
    assert foreign(program) == set()
    # It is the step: products of matrices, and all weights go in and come out.
    assert len(re.findall(r"\bdot\(", program)) > 20
    assert program.count("parameter(") >= len(made.trainable_variables)
    graph = tf.function(step, autograph=False).get_concrete_function(*flat).graph
    assert strings(graph.as_graph_def()) == []


def strings(graph: Any) -> list[str]:
    """Operations of a graph, and of its functions, that take or make strings."""
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    found = []
    for node in nodes:
        operation = op_def_registry.get(node.op)  # None for a function of the library.
        arguments = operation and [*operation.input_arg, *operation.output_arg]
        kinds = [a.type or node.attr[a.type_attr].type for a in arguments or ()]
        if tf.string.as_datatype_enum in kinds:
            found.append(node.name)
    return found


def test_the_inspection_sees_what_it_should() -> None:
    ids = tf.constant([1, 0, 2], tf.int32)
    rows = tf.constant(np.eye(3, dtype=np.float32))
    assert foreign(hlo(lambda x: x @ x, rows)) == set()
    found = foreign(hlo(lambda x: tf.reduce_sum(tf.where(x > 0)), ids))
    assert "dynamic shape" in found
    # As XLA writes them; none of these can be had from TensorFlow on a CPU at will.
    for name, line in (
        ("infeed", "%i = ((f32[3]), token[]) infeed(token[] %t)"),
        ("outfeed", "%o = token[] outfeed(f32[3] %x, token[] %t)"),
        ("host transfer", "%s = token[] send-done(%q), is_host_transfer=true"),
        ("custom call", '%c = f32[3] custom-call(f32[3] %x), custom_call_target="h"'),
        ("dynamic shape", "%d = f32[<=8,3] parameter(0)"),
    ):
        assert name in foreign(line)
    assert foreign("%a = pred[8] compare(s32[8] %x, s32[8] %y), direction=LE") == set()

    text = tf.function(lambda x: tf.strings.length(tf.strings.as_string(x)))
    graph = text.get_concrete_function(ids).graph.as_graph_def()
    assert strings(graph)


def test_lengths_are_fixed_for_a_tpu() -> None:
    preprocessor = SentencePreprocessor(WordPieceTokenizer(TOKENS), 9)
    fixed = fixed_shapes(preprocessor)
    texts = ["sun moon", "sun"]
    assert preprocessor(texts)["token_ids"].shape == (2, 4)
    pairs = ParallelCorpus([SentencePair("sun moon", "sun", "es")] * 4)
    spec = sentence_pairs(pairs, fixed, batch_size=2).element_spec
    assert {tuple(x.shape) for x in tf.nest.flatten(spec)} == {(2, 9)}
    ours, theirs = fixed(texts)["token_ids"], preprocessor(texts)["token_ids"]
    assert ours[:, :4].numpy().tolist() == theirs.numpy().tolist()
    assert preprocessor.pad == "longest"  # The model's own is left as it was.
