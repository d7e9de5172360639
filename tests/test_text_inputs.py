"""What `encode` takes and where it runs: containers, graphs, threads, forks."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import tensorflow as tf

from helpers.errors import raises
from helpers.models import make_model, sentences
from labse_tf.encoders import open_encoder
from labse_tf.export import export_saved_model
from labse_tf.models.text_inputs import WINDOW


@pytest.fixture(scope="module")
def model():
    return make_model(num_layers=1)


@pytest.mark.parametrize("count", [2, 40], ids=["one batch", "several"])
def test_containers_of_strings(model, count) -> None:
    texts = sentences(count)
    expected = model.encode(texts)
    for given in (
        np.array(texts),
        np.array(texts, object),
        np.array([text.encode() for text in texts], object),
        tf.constant(texts),
        [tf.constant(text) for text in texts],
        tf.data.Dataset.from_tensor_slices(texts),
    ):
        np.testing.assert_array_equal(model.encode(given), expected)
    for one in (np.array(texts[0]), tf.constant(texts[0])):
        np.testing.assert_allclose(model.encode(one), expected[0], atol=1e-6)


def test_a_series(model) -> None:
    pandas = pytest.importorskip("pandas")
    texts = sentences(3)
    # The labels of the rows are not their positions.
    series = pandas.Series(texts, index=[7, 3, 9])
    np.testing.assert_array_equal(model.encode(series), model.encode(texts))
    series[3] = None
    with raises(ValueError, "texts", "element 1"):
        model.encode(series)
    with raises(ValueError, "texts", "DataFrame"):
        model.encode(pandas.DataFrame({"text": texts}))


@pytest.mark.parametrize("wrong", [None, float("nan"), 7, ["sun"], np.array(["sun"])])
def test_an_element_that_is_not_a_string_has_an_index(model, wrong) -> None:
    with raises(ValueError, "texts", "element 1"):
        model.encode(["sun", wrong])
    # Of a long list before the first vector is computed.
    calls = []
    with raises(ValueError, "texts", f"element {WINDOW + 1}"):
        model.encode(
            ["sun"] * (WINDOW + 1) + [wrong], progress=lambda *done: calls.append(done)
        )
    assert not calls


@pytest.mark.parametrize(
    "wrong", [None, 7, np.array([["sun"]]), tf.ragged.constant([["sun"]])]
)
def test_what_is_not_a_sequence_of_strings(model, wrong) -> None:
    with raises(ValueError, argument="texts", received=type(wrong).__name__):
        model.encode(wrong)


@pytest.mark.parametrize(
    ("name", "replacement"),
    [
        ("batch_size", "batch_tokens"),
        ("show_progress_bar", "progress"),
        ("normalize_embeddings", "unit length"),
        ("convert_to_tensor", "convert_to_tensor"),
        ("convert_to_numpy", "NumPy"),
        ("device", "tf.device"),
        ("prompt", "batch_tokens"),
    ],
)
def test_arguments_of_sentence_transformers(model, name, replacement) -> None:
    with pytest.raises(TypeError, match=f"`{name}`.*{replacement}"):
        model.encode(["sun"], **{name: True})


def test_a_saved_model_takes_the_same(model, tmp_path) -> None:
    encoder = open_encoder(export_saved_model(model, tmp_path / "1"))
    expected = encoder(["sun", "moon"])
    for given in (np.array(["sun", "moon"]), tf.constant(["sun", "moon"])):
        np.testing.assert_array_equal(encoder(given), expected)
    with raises(ValueError, "texts", "element 1"):
        encoder(["sun", None])


def test_in_a_graph(model) -> None:
    texts = sentences(8)
    expected = model.encode(texts)
    dataset = tf.data.Dataset.from_tensor_slices(texts).batch(3)

    def outside(batch):
        return tf.numpy_function(model.encode, [batch], tf.float32)

    for function in (model.encode, outside):
        batches = dataset.map(function, num_parallel_calls=2)
        vectors = np.concatenate(list(batches.as_numpy_iterator()))
        np.testing.assert_allclose(vectors, expected, atol=1e-6)
    one = tf.function(model.encode)(tf.constant(texts[0]))
    np.testing.assert_allclose(one, expected[0], atol=1e-6)


def test_several_threads(model) -> None:
    texts = sentences(300)
    expected = model.encode(texts)
    fresh = make_model(num_layers=1)  # The threads trace its graphs.
    fresh.set_weights(model.get_weights())
    found = {}

    def encode(number: int) -> None:
        # Threads with one sentence use the other graph.
        found[number] = [fresh.encode(texts), fresh.encode(texts[number])]

    threads = [threading.Thread(target=encode, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(threads)
    for number, (vectors, one) in found.items():
        np.testing.assert_allclose(vectors, expected, atol=1e-6)
        np.testing.assert_allclose(one, expected[number], atol=1e-6)


FORKED = """
    import json, os, signal, sys, time
    import labse_tf
    import labse_tf.models

    def in_child(function):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            try:
                answer = str(function())
            except RuntimeError as error:
                answer = f"RuntimeError: {error}"
            os.write(writer, answer.encode())
            os._exit(0)
        os.close(writer)
        for _ in range(600):
            if os.waitpid(child, os.WNOHANG)[0]:
                return os.read(reader, 4000).decode()
            time.sleep(0.1)
        os.kill(child, signal.SIGKILL)
        return "hangs"

    def load():
        return labse_tf.LaBSE.from_preset("labse-nano")

    answers = {"before": in_child(lambda: load().encode(["sun"]).shape)}
    model = load()
    answers["encode"] = in_child(lambda: model.encode(["sun"]))
    answers["load"] = in_child(load)
    answers["parent"] = str(model.encode(["sun"]).shape)
    print(json.dumps(answers))
"""


def test_a_forked_process_gets_an_error(run_python) -> None:
    """TensorFlow's functions wait there forever."""
    answers = json.loads(run_python(FORKED).splitlines()[-1])
    assert answers["before"] == answers["parent"] == "(1, 384)"
    for name in ("encode", "load"):
        assert answers[name].startswith("RuntimeError"), name
        assert "spawn" in answers[name]
