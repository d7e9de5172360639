"""Rows of tokens, padding, static shapes, what runs in a graph."""

from __future__ import annotations

import keras
import tensorflow as tf

from helpers.errors import raises
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.tokenizers import WordPieceTokenizer

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sun", "moon", "##s"]


def make(sequence_length: int = 6, **settings: str) -> SentencePreprocessor:
    return SentencePreprocessor(WordPieceTokenizer(TOKENS), sequence_length, **settings)


def test_rows_by_hand() -> None:
    features = make()(["sun moons", "", "stars", "sun sun sun sun sun sun"])
    assert features["token_ids"].numpy().tolist() == [
        [2, 5, 6, 7, 3, 0],
        [2, 3, 0, 0, 0, 0],
        [2, 1, 3, 0, 0, 0],
        [2, 5, 5, 5, 5, 3],  # cut to 6, [SEP] still there
    ]
    assert features["padding_mask"].numpy().sum(axis=1).tolist() == [5, 2, 3, 6]
    assert features["segment_ids"].numpy().sum() == 0


def test_longest_and_fixed() -> None:
    assert make(pad="longest")(["sun"])["token_ids"].shape == (1, 3)
    assert make(pad="fixed")(["sun"])["token_ids"].shape == (1, 6)


def test_no_texts() -> None:
    features = make()(tf.constant([], tf.string))
    assert features["token_ids"].shape[0] == 0


def test_graph_shapes() -> None:
    spec = tf.TensorSpec([4], tf.string)
    fixed = tf.function(make(pad="fixed"), input_signature=[spec], autograph=False)
    outputs = fixed.get_concrete_function().structured_outputs
    shapes = {name: output.shape for name, output in outputs.items()}
    assert {tuple(shape)[1] for shape in shapes.values()} == {6}
    eager = make(pad="fixed")(["sun", "", "moons", "stars"])
    graph = fixed(tf.constant(["sun", "", "moons", "stars"]))
    for name in eager:
        tf.debugging.assert_equal(eager[name], graph[name])
        assert graph[name].dtype == tf.int32


def test_round_trip_and_bad_arguments() -> None:
    preprocessor = make(5, pad="fixed")
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(preprocessor)
    )
    assert again(["sun"])["token_ids"].numpy().tolist() == [[2, 5, 3, 0, 0]]
    with raises(ValueError, 3, received="sequence_length=2"):
        make(2)
    with raises(ValueError, argument="pad", received="pad='some'"):
        make(pad="some")
