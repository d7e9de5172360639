"""The masked-LM head and its chunked softmax, against the full one in NumPy."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from helpers.errors import Fields, raises
from labse_tf import optimizers
from labse_tf.layers import MaskedLMHead, SentencePooling
from labse_tf.vocabulary_softmax import chunked_softmax_cross_entropy

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "loss_memory.py"
# Chunks of one, a ragged last one, several with nothing left over, one of exactly
# the vocabulary, one larger.
CHUNKS = (1, 10, 13, 52, 100)
P, V, D = 9, 52, 8


def problem(scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, V, P).astype(np.int32)
    # Repeated, first and last entry.
    labels[:5] = [17, 17, 0, V - 1, V - 1]
    return {
        "hidden": (scale * rng.normal(size=(P, D))).astype(np.float32),
        "table": rng.normal(size=(V, D)).astype(np.float32),
        "bias": rng.normal(size=V).astype(np.float32),
        "labels": labels,
        "weights": rng.normal(size=P).astype(np.float32),
    }


def full_softmax(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Loss, best entry and the gradients of sum(weights * loss), in float64."""
    wide = {k: v.astype(np.float64) for k, v in arrays.items() if k != "labels"}
    labels, rows = arrays["labels"], np.arange(len(arrays["labels"]))
    logits = wide["hidden"] @ wide["table"].T + wide["bias"]
    top = logits.max(axis=1, keepdims=True)
    log_sum = top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    shares = np.exp(logits - log_sum)
    shares[rows, labels] -= 1
    shares *= wide["weights"][:, None]
    return {
        "loss": log_sum[:, 0] - logits[rows, labels],
        "predicted": logits.argmax(axis=1),
        "hidden": shares @ wide["table"],
        "table": shares.T @ wide["hidden"],
        "bias": shares.sum(axis=0),
    }


def chunked(arrays: dict[str, Any], chunk_size: int) -> dict[str, Any]:
    """The same from the function under test, whichever way TensorFlow runs it."""
    sources = [tf.convert_to_tensor(arrays[k]) for k in ("hidden", "table", "bias")]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        loss, predicted = chunked_softmax_cross_entropy(
            *sources, arrays["labels"], chunk_size=chunk_size
        )
        total = tf.reduce_sum(loss * arrays["weights"])
    gradients = tape.gradient(total, sources)
    assert all(isinstance(gradient, tf.Tensor) for gradient in gradients)
    names = ("hidden", "table", "bias")
    return {
        "loss": loss,
        "predicted": predicted,
        **dict(zip(names, gradients, strict=True)),
    }


def compare(ours: dict[str, Any], expected: dict[str, Any], atol: float = 1e-5) -> None:
    assert ours.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(ours[name], array, atol=atol, rtol=1e-5)


def traced(chunk_size: int, **kwargs: Any) -> Callable[..., dict[str, Any]]:
    def run(arrays: dict[str, Any]) -> dict[str, Any]:
        return chunked(arrays, chunk_size)

    return tf.function(run, autograph=False, **kwargs)


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {name: tf.constant(array) for name, array in arrays.items()}


# --- the loss -------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_value_argmax_and_gradients_are_those_of_the_full_softmax(
    chunk_size: int,
) -> None:
    arrays = problem()
    compare(chunked(arrays, chunk_size), full_softmax(arrays))


@pytest.mark.parametrize("chunk_size", [10, 13, 100])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_in_a_graph_and_under_xla(chunk_size: int, jit_compile: bool) -> None:
    arrays = problem()
    run = traced(chunk_size, jit_compile=jit_compile or None)
    compare(run(tensors(arrays)), full_softmax(arrays))


def test_the_gradient_is_that_of_finite_differences() -> None:
    arrays = problem()
    ours = chunked(arrays, 10)
    rng = np.random.default_rng(0)
    for name in ("hidden", "table", "bias"):
        step = 1e-4 * rng.normal(size=arrays[name].shape)
        high, low = (
            full_softmax({**arrays, name: arrays[name] + sign * step})["loss"]
            for sign in (0.5, -0.5)
        )
        slope = (arrays["weights"] * (high - low)).sum() / 1e-4
        assert slope == pytest.approx(
            (ours[name] * step).numpy().sum() / 1e-4, rel=1e-3
        )


@pytest.mark.parametrize("jit_compile", [False, True])
def test_large_logits_overflow_nowhere(jit_compile: bool) -> None:
    arrays = problem(scale=200.0)
    logits = arrays["hidden"] @ arrays["table"].T
    assert logits.max() > 800 and logits.min() < -800
    ours = traced(10, jit_compile=jit_compile or None)(tensors(arrays))
    # The logits themselves are known to 1e-4 in float32.
    compare(ours, full_softmax(arrays), atol=2e-3)
    # All far below 0: the maximum is none of the start value's.
    arrays["bias"] -= 5000
    np.testing.assert_allclose(
        chunked(arrays, 10)["loss"], full_softmax(arrays)["loss"], atol=2e-2
    )


@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_shares_sum_to_one_however_large_the_logits(chunk_size: int) -> None:
    """A log-sum-exp of 5,000 in float32 would be off by up to 2e-4."""
    arrays = problem()
    arrays["bias"] -= 5000
    # The shares of a row minus 1 for its label, times its weight.
    total = float(tf.reduce_sum(chunked(arrays, chunk_size)["bias"]))
    assert abs(total) < 1e-5


def test_the_first_of_equal_logits_is_predicted() -> None:
    arrays = problem()
    arrays["table"][[20, 33]] = arrays["table"][4]
    arrays["bias"][[4, 20, 33]] = 50.0
    np.testing.assert_array_equal(chunked(arrays, 10)["predicted"], np.full(P, 4))


def test_a_batch_of_unknown_size() -> None:
    arrays = problem()
    specs = {k: tf.TensorSpec([None, *v.shape[1:]], v.dtype) for k, v in arrays.items()}
    specs["table"], specs["bias"] = (
        tf.TensorSpec(arrays[name].shape) for name in ("table", "bias")
    )
    run = traced(10, input_signature=[specs])
    for count in (P, 4):
        fewer = dict(arrays)
        for name in ("hidden", "labels", "weights"):
            fewer[name] = arrays[name][:count]
        compare(run(tensors(fewer)), full_softmax(fewer))
        compare(chunked(fewer, 10), full_softmax(fewer))


def test_bfloat16_states_round_the_products_and_nothing_else() -> None:
    # A thousand entries of about the same share: a sum in bfloat16 stops at 256.
    rng = np.random.default_rng(0)
    count, size = 16, 1000
    arrays = {
        "hidden": rng.normal(size=(count, D)).astype(np.float32),
        "table": (0.2 * rng.normal(size=(size, D))).astype(np.float32),
        "bias": (0.1 * rng.normal(size=size)).astype(np.float32),
        "labels": rng.integers(0, size, count).astype(np.int32),
        "weights": np.ones(count, np.float32),
    }
    rounded = dict(arrays)
    for name in ("hidden", "table"):
        rounded[name] = tf.cast(tf.cast(arrays[name], "bfloat16"), "float32").numpy()
    expected = full_softmax(rounded)
    for jit_compile in (None, True):
        inputs = tensors(arrays)
        inputs["hidden"] = tf.cast(inputs["hidden"], "bfloat16")
        ours = traced(64, jit_compile=jit_compile)(inputs)
        assert {name: x.dtype.name for name, x in ours.items()} == {
            "loss": "float32",
            "predicted": "int32",
            "hidden": "bfloat16",
            "table": "float32",
            "bias": "float32",
        }
        # A logit of 2 is rounded by up to 0.004, a share by up to as much of it.
        np.testing.assert_allclose(ours["loss"], expected["loss"], atol=0.01)
        for name in ("hidden", "table", "bias"):
            error = np.linalg.norm(ours[name].numpy().astype("f8") - expected[name])
            assert error < 0.01 * np.linalg.norm(expected[name]), name


def test_a_label_that_is_no_entry_gives_no_number() -> None:
    arrays = problem()
    arrays["labels"][:2] = [-1, V]
    loss = chunked(arrays, 10)["loss"].numpy()
    np.testing.assert_array_equal(np.isnan(loss), np.arange(P) < 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": np.zeros((P, D + 1), "float32")}, Fields("(9, 9)", received=True)),
        ({"bias": np.zeros(V - 1, "float32")}, Fields("(51,)", received=True)),
        ({"labels": np.zeros((P, 1), "int32")}, Fields("(9, 1)", received=True)),
        ({"labels": np.zeros(P - 1, "int32")}, Fields("(8,)", received=True)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    change: dict[str, np.ndarray], message: str
) -> None:
    with raises(ValueError, message):
        chunked({**problem(), **change}, 10)


def test_a_chunk_must_have_entries() -> None:
    with raises(ValueError, received="chunk_size=0"):
        chunked(problem(), 0)


@pytest.mark.parity
def test_on_jax(run_python: Callable[..., str], tmp_path: Path) -> None:
    pytest.importorskip("jax", reason="the extra `parity` is not installed")
    code = """
        import json, sys
        sys.modules["tensorflow"] = None
        import jax, keras
        import numpy as np
        from labse_tf.layers import MaskedLMHead
        from labse_tf.vocabulary_softmax import chunked_softmax_cross_entropy

        arrays = dict(np.load(sys.argv[1]))
        names = ("hidden", "table", "bias")

        def run(sources, labels, weights, chunk_size):
            def total(sources):
                values = chunked_softmax_cross_entropy(
                    *sources, labels, chunk_size=chunk_size
                )
                return (values[0] * weights).sum(), values
            (_, values), gradients = jax.value_and_grad(total, has_aux=True)(sources)
            return dict(zip(("loss", "predicted", *names), (*values, *gradients)))

        sources = tuple(jax.numpy.asarray(arrays[name]) for name in names)
        results = []
        compiled = jax.jit(run, static_argnums=3)
        for function, chunk_size in (
            (run, 10), (compiled, 10), (compiled, 13), (compiled, 100)
        ):
            result = function(sources, arrays["labels"], arrays["weights"], chunk_size)
            results.append({k: np.asarray(v).tolist() for k, v in result.items()})
        # A graph that keeps the vocabulary's logits would need 40 MB for them.
        big = [jax.ShapeDtypeStruct(s, "float32") for s in ((100, 8), (100003, 8))]
        rest = [jax.ShapeDtypeStruct(s, t) for s, t in (((100003,), "float32"),
                ((100,), "int32"), ((100,), "float32"))]
        lowered = compiled.lower((*big, rest[0]), rest[1], rest[2], 1000)
        memory = lowered.compile().memory_analysis().temp_size_in_bytes

        head = MaskedLMHead(vocabulary_size=52, hidden_dim=8, chunk_size=10)
        states = arrays["hidden"].reshape(1, 9, 8)
        positions = np.array([[8, 0, 0]], "int32")
        out = head(states, positions, positions, keras.Variable(arrays["table"]))
        print(json.dumps([results, memory, np.asarray(out["loss"]).tolist()]))
    """
    arrays = problem()
    np.savez(tmp_path / "arrays.npz", **arrays)
    printed = run_python(
        code,
        tmp_path / "arrays.npz",
        env={"KERAS_BACKEND": "jax"},
        timeout=300,
    )
    results, memory, losses = json.loads(printed.splitlines()[-1])
    assert len(results) == 4
    for result in results:
        compare(result, full_softmax(arrays))
    assert memory < 10e6
    assert np.isfinite(losses).all()


@pytest.mark.skipif(not BENCHMARK.exists(), reason="no benchmarks beside the tests")
@pytest.mark.parametrize(
    "jit_compile", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_neither_logits_nor_a_second_gradient_are_held(jit_compile: bool) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a process is told by Linux only")
    spec = importlib.util.spec_from_file_location("loss_memory", BENCHMARK)
    assert spec and spec.loader
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    setting = {
        "loss": "chunked",
        "predictions": 256,
        "vocabulary": 400_003,
        "dim": 256,
        "chunk": 8192,
        "dtype": "float32",
        "xla": jit_compile,
    }
    # All logits are 410 MB, and their gradient as much again; a second buffer for
    # the table's gradient is 410 MB.
    assert benchmark.run(setting)["memory"] < 330


# --- the head -------------------------------------------------------------------------

R, T = 3, 7


def make_head(**kwargs: Any) -> MaskedLMHead:
    head = MaskedLMHead(V, D, **{"chunk_size": 10, **kwargs})
    rng = np.random.default_rng(5)
    for weight in head.weights:
        mean = 1.0 if weight.name == "gamma" else 0.0
        weight.assign(mean + 0.3 * rng.normal(size=weight.shape))
    return head


def head_inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(6)
    return {
        "sequence_output": rng.normal(size=(R, T, D)).astype(np.float32),
        "mask_positions": np.array([[6, 1], [0, 0], [3, 4]], np.int32),
        "mask_ids": np.array([[51, 7], [0, 7], [7, 20]], np.int32),
        "table": rng.normal(size=(V, D)).astype(np.float32),
    }


def head_in_numpy(
    head: MaskedLMHead, inputs: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and loss by the definition, row by row."""
    import math

    weights = {w.path.partition("/")[2]: np.asarray(w, "f8") for w in head.weights}
    logits = np.empty((R, 2, V))
    for row in range(R):
        for column, position in enumerate(inputs["mask_positions"][row]):
            x = inputs["sequence_output"][row, position].astype("f8")
            x = x @ weights["transform_dense/kernel"] + weights["transform_dense/bias"]
            x = np.array([u * 0.5 * (1 + math.erf(u / math.sqrt(2))) for u in x])
            x = (x - x.mean()) / x.std()
            x = x * weights["transform_layer_norm/gamma"]
            x = x + weights["transform_layer_norm/beta"]
            logits[row, column] = inputs["table"] @ x + weights["bias"]
    own = np.take_along_axis(logits, inputs["mask_ids"][:, :, None], axis=2)[:, :, 0]
    return logits, np.log(np.exp(logits).sum(axis=2)) - own


def test_head_by_its_definition() -> None:
    head, inputs = make_head(), head_inputs()
    logits, loss = head_in_numpy(head, inputs)
    # One prediction of the six is made right, so that correctness has both values.
    inputs["mask_ids"][2, 1] = logits[2, 1].argmax()
    logits, loss = head_in_numpy(head, inputs)
    outputs = head(**inputs)
    np.testing.assert_allclose(outputs["loss"], loss, atol=1e-5, rtol=1e-5)
    correct = (logits.argmax(axis=2) == inputs["mask_ids"]).astype(np.float32)
    assert 0 < correct.sum() < correct.size
    np.testing.assert_array_equal(outputs["correct"], correct)
    places = {k: inputs[k] for k in ("sequence_output", "mask_positions", "table")}
    np.testing.assert_allclose(head.logits(**places), logits, atol=1e-5, rtol=1e-5)

    weights = np.array([[1, 0], [1, 1], [0, 0.5]], np.float32)
    weighted = head(**inputs, mask_weights=weights)
    np.testing.assert_allclose(weighted["loss"], loss * weights, atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(weighted["correct"], correct * weights)


def test_names_of_the_weights_and_no_decay_on_the_bias() -> None:
    head = MaskedLMHead(V, D, name="masked_lm_head")
    assert {weight.path: tuple(weight.shape) for weight in head.weights} == {
        "masked_lm_head/bias": (V,),
        "masked_lm_head/transform_dense/kernel": (D, D),
        "masked_lm_head/transform_dense/bias": (D,),
        "masked_lm_head/transform_layer_norm/gamma": (D,),
        "masked_lm_head/transform_layer_norm/beta": (D,),
    }
    decayed = [
        weight.path
        for weight in head.weights
        if not re.search(optimizers._NOT_DECAYED, weight.name)
    ]
    assert decayed == ["masked_lm_head/transform_dense/kernel"]


def test_gradients_reach_all_and_the_tied_table_from_both_ends() -> None:
    head, inputs = make_head(), head_inputs()
    embedding = keras_hub.layers.ReversibleEmbedding(V, D)
    embedding.build((None, None))
    embedding.embeddings.assign(inputs["table"])
    token_ids = np.array([[1, 2, 3, 4, 5, 6, 7]] * R, np.int32)

    def value(lookup: Any, table: Any) -> Any:
        outputs = head(
            lookup, inputs["mask_positions"], inputs["mask_ids"], table=table
        )
        return tf.reduce_sum(outputs["loss"])

    with tf.GradientTape() as tape:
        total = value(embedding(token_ids), embedding.embeddings)
    variables = [embedding.embeddings, *head.trainable_variables]
    gradients = tape.gradient(total, [variable.value for variable in variables])
    assert all(gradient is not None for gradient in gradients)
    together = tf.convert_to_tensor(gradients[0])

    table = tf.constant(inputs["table"])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(table)
        lookup_only = value(tf.gather(table, token_ids), tf.stop_gradient(table))
        head_only = value(tf.stop_gradient(tf.gather(table, token_ids)), table)
    parts = [
        tf.convert_to_tensor(tape.gradient(part, table))
        for part in (lookup_only, head_only)
    ]
    assert all(float(tf.norm(part)) > 0.1 for part in parts)
    np.testing.assert_allclose(together, parts[0] + parts[1], atol=1e-5)


def test_bfloat16_head_takes_the_table_in_float32() -> None:
    head, inputs = make_head(dtype="bfloat16"), head_inputs()
    assert {weight.dtype for weight in head.weights} == {"float32"}
    hidden = head.transform(
        tf.constant(inputs["sequence_output"]), inputs["mask_positions"]
    )
    assert hidden.dtype == "bfloat16"
    table = tf.Variable(inputs["table"])
    with tf.GradientTape() as tape:
        outputs = head(**{**inputs, "table": table})
        total = tf.reduce_sum(outputs["loss"])
    assert outputs["loss"].dtype == outputs["correct"].dtype == tf.float32
    gradient = tape.gradient(total, table)
    assert gradient.dtype == tf.float32
    reference = make_head()
    np.testing.assert_allclose(
        outputs["loss"], reference(**inputs)["loss"], atol=0.15, rtol=0.03
    )


def test_config_and_save_round_trip(tmp_path: Path) -> None:
    head = make_head(activation="gelu_approximate", name="head", dtype="bfloat16")
    again = MaskedLMHead.from_config(json.loads(json.dumps(head.get_config())))
    assert again.get_config() == head.get_config()
    assert [w.path for w in again.weights] == [w.path for w in head.weights]

    inputs = {
        "sequence_output": keras.Input((T, D), name="sequence_output"),
        "mask_positions": keras.Input((2,), dtype="int32", name="mask_positions"),
        "mask_ids": keras.Input((2,), dtype="int32", name="mask_ids"),
        "table": keras.Input(batch_shape=(V, D), name="table"),
    }
    outputs = head(*inputs.values())
    assert {k: tuple(v.shape) for k, v in outputs.items()} == {
        "loss": (None, 2),
        "correct": (None, 2),
    }
    model = keras.Model(inputs, outputs)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    expected = model(tensors(head_inputs()))
    for name, array in loaded(tensors(head_inputs())).items():
        np.testing.assert_array_equal(array, expected[name])
    assert loaded.get_layer("head").get_config() == head.get_config()


def test_what_does_not_fit_the_head_is_refused() -> None:
    head, inputs = make_head(), head_inputs()
    for name, sizes in {"vocabulary_size": (0, D), "hidden_dim": (V, 0)}.items():
        with raises(ValueError, received=f"{name}=0"):
            MaskedLMHead(*sizes)
    for size in (None, 0, -1, 2.5, True):
        with raises(ValueError, argument="vocabulary_size", received=size):
            SentencePooling("weighted_mean", vocabulary_size=size)
    with raises(ValueError, received="chunk_size=-1"):
        MaskedLMHead(V, D, chunk_size=-1)
    with raises(ValueError, "table.shape", "(51, 8)", received=True):
        head(**{**inputs, "table": inputs["table"][1:]})


def test_training_step_with_xla_lowers_the_loss() -> None:
    head, inputs = make_head(), head_inputs()
    table = keras.Variable(inputs.pop("table"))
    variables = [table, *head.trainable_variables]
    optimizer = optimizers.adamw(0.02)
    optimizer.build(variables)

    @tf.function(jit_compile=True, autograph=False)
    def step() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(head(**inputs, table=table)["loss"])
        gradients = tape.gradient(loss, [v.value for v in variables])
        optimizer.apply(gradients, variables)
        return loss

    losses = [float(step()) for _ in range(30)]
    assert losses[-1] < 0.2 * losses[0]
