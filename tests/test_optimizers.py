"""Schedules and lazy AdamW against NumPy, and what AdamW decays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers import reference
from helpers.errors import raises
from labse_tf.losses import AdditiveMarginSoftmax
from labse_tf.models import DualEncoder, LaBSE, LaBSEBackbone
from labse_tf.optimizers import (
    AdamW,
    LazyAdamW,
    WarmupLinearDecay,
    adamw,
    sum_repeated_rows,
)

ROWS, DIM = 11, 3


@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_schedule_equals_numpy(warmup: int) -> None:
    settings = {"learning_rate": 2e-3, "warmup_steps": warmup, "train_steps": 50}
    schedule = WarmupLinearDecay(2e-3, 50, warmup_steps=warmup)
    for step in (0, 1, 5, 9, 10, 11, 30, 49, 50, 60):
        expected = reference.linear_schedule(step, **settings)
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-9)


def test_schedule_round_trip_and_bad_arguments() -> None:
    schedule = WarmupLinearDecay(0.5, 20, warmup_steps=4)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(schedule)
    )
    assert again.get_config() == schedule.get_config()
    for warmup, steps in ((20, 20), (-1, 20), (0, 0)):
        with raises(ValueError, argument="warmup_steps"):
            WarmupLinearDecay(0.5, steps, warmup_steps=warmup)


def test_only_matrices_and_tables_decay() -> None:
    backbone = LaBSEBackbone(20, 1, 2, 8, 16)
    for weight in backbone.trainable_weights:
        weight.assign(tf.ones_like(weight))
    optimizer = adamw(0.1, weight_decay=0.5)
    optimizer.build(backbone.trainable_weights)
    zeros = [tf.zeros_like(w) for w in backbone.trainable_weights]
    optimizer.apply_gradients(zip(zeros, backbone.trainable_weights, strict=True))
    for weight in backbone.trainable_weights:
        kept = weight.path.endswith(("bias", "gamma", "beta"))
        # Without a gradient AdamW only decays: 1 - 0.1 * 0.5.
        expected = 1.0 if kept else 0.95
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-6)
    decayed = [w for w in backbone.trainable_weights if w.numpy().max() < 1]
    assert len(decayed) == 3 + 6 + 1  # tables, a block's kernels, the pooler's


def test_step_and_clipping_by_hand() -> None:
    variable = keras.Variable([3.0, 4.0])
    optimizer = adamw(0.01, clip_norm=1.0, epsilon=1e-6)
    optimizer.apply_gradients([(tf.constant([30.0, 40.0]), variable)])
    # Clipped to (0.6, 0.8); Adam's first step is lr * g / (|g| + epsilon).
    np.testing.assert_allclose(variable.numpy(), [2.99, 3.99], atol=1e-6)
    first_moment = [v.numpy() for v in optimizer.variables if "momentum" in v.path]
    np.testing.assert_allclose(first_moment[0], [0.06, 0.08], rtol=1e-5)


# === Lazy AdamW ===

# Rows of a table by step: some twice or three times, some not for several steps, row
# 10 never; one step without any.
STEPS = [[1, 4, 1, 0], [2, 2, 2, 9], [4, 1, 7, 4], [], [0, 1, 2, 3, 9, 9], [4, 8, 5, 6]]


def lazy_steps(seed: int = 0) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows, their gradients and a dense gradient, by step."""
    rng = np.random.default_rng(seed)
    return [
        (
            np.array(rows, np.int32),
            rng.normal(size=(len(rows), DIM)).astype(np.float32),
            rng.normal(size=(2, DIM)).astype(np.float32),
        )
        for rows in STEPS
    ]


def numpy_lazy_adamw(
    weights: dict[str, np.ndarray],
    steps: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
    *,
    rate: Callable[[int], float],
    weight_decay: float = 0.0,
    clip: tuple[str, float] | None = None,
    epsilon: float = 1e-6,
) -> dict[str, np.ndarray]:
    """Weights and moments after the steps, row by row in float64."""
    weights = {name: value.astype(np.float64) for name, value in weights.items()}
    state = {
        f"{name} {which}": np.zeros_like(value)
        for name, value in weights.items()
        for which in "mv"
    }
    for number, (rows, values, dense) in enumerate(steps, 1):
        table = np.zeros_like(weights["table"])
        np.add.at(table, rows, values.astype(np.float64))
        gradients = {"table": table, "kernel": dense.astype(np.float64)}
        if clip is not None:
            kind, limit = clip
            total = np.sqrt(sum((g**2).sum() for g in gradients.values()))
            for name, gradient in gradients.items():
                if kind == "clipvalue":
                    gradients[name] = np.clip(gradient, -limit, limit)
                    continue
                norm = total if kind == "global_clipnorm" else np.linalg.norm(gradient)
                gradients[name] = gradient * min(1.0, limit / max(norm, 1e-30))
        now = rate(number - 1)
        for name, weight in weights.items():
            touched = sorted(set(rows.tolist())) if name == "table" else range(2)
            for row in touched:
                m, v = state[f"{name} m"], state[f"{name} v"]
                gradient = gradients[name][row]
                m[row] = 0.9 * m[row] + 0.1 * gradient
                v[row] = 0.999 * v[row] + 0.001 * gradient**2
                first = m[row] / (1 - 0.9**number)
                second = v[row] / (1 - 0.999**number)
                if name == "table":  # The other one is excluded below.
                    weight[row] *= 1 - now * weight_decay
                # Keras adds epsilon to the root before its bias is corrected.
                hat = epsilon / np.sqrt(1 - 0.999**number)
                weight[row] -= now * first / (np.sqrt(second) + hat)
    return {**weights, **state}


def lazy_start() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "table": rng.normal(size=(ROWS, DIM)).astype(np.float32),
        "kernel": rng.normal(size=(2, DIM)).astype(np.float32),
    }


def make_variables(table: np.ndarray, kernel: np.ndarray) -> list[keras.Variable]:
    return [
        keras.Variable(table, name="table"),
        keras.Variable(kernel, name="kernel"),
    ]


def run_steps(
    optimizer: keras.optimizers.Optimizer,
    variables: list[keras.Variable],
    steps: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
    *,
    graph: bool = False,
    dense: bool = False,
) -> None:
    """Applies the steps; with `dense` the table's gradients are whole tensors."""

    def apply(rows: tf.Tensor, values: tf.Tensor, kernel: tf.Tensor) -> None:
        table = tf.IndexedSlices(values, rows, tf.constant([ROWS, DIM]))
        gradients = [tf.convert_to_tensor(table) if dense else table, kernel]
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    if not optimizer.built:
        optimizer.build(variables)
    if graph:
        signature = [((None,), tf.int32), ((None, DIM), tf.float32)]
        signature.append(((2, DIM), tf.float32))
        apply = tf.function(apply, [tf.TensorSpec(*spec) for spec in signature])
    for step in steps:
        apply(*map(tf.constant, step))


def state(
    optimizer: keras.optimizers.Optimizer, variables: list[keras.Variable]
) -> dict[str, np.ndarray]:
    """Under the names of the oracle."""
    found = dict(zip(("table", "kernel"), map(np.asarray, variables), strict=True))
    for variable in optimizer.variables:
        for name in ("table", "kernel"):
            for which, suffix in (("m", "momentum"), ("v", "velocity")):
                if variable.path.endswith(f"{name}_{suffix}"):
                    found[f"{name} {which}"] = np.asarray(variable)
    return found


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weight_decay": 0.3},
        {"clip": ("global_clipnorm", 0.7), "weight_decay": 0.1},
        {"clip": ("clipnorm", 0.4)},
        {"clip": ("clipvalue", 0.3)},
        {"clip": ("global_clipnorm", 1e6)},
        {"schedule": True, "weight_decay": 0.3},
    ],
    ids=str,
)
def test_lazy_equals_numpy(settings: dict, graph: bool) -> None:
    settings = dict(settings)
    clip = settings.pop("clip", None)
    rate: object = 0.02
    if settings.pop("schedule", False):
        rate = WarmupLinearDecay(0.05, 8, warmup_steps=3)
    start, steps = lazy_start(), lazy_steps()
    expected = numpy_lazy_adamw(
        start,
        steps,
        rate=lambda step: float(rate(step)) if callable(rate) else rate,
        clip=clip,
        **settings,
    )
    optimizer = LazyAdamW(rate, **settings, **dict([clip] if clip else []))
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    variables = make_variables(**start)
    run_steps(optimizer, variables, steps, graph=graph)
    for name, value in state(optimizer, variables).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-6, err_msg=name)
    assert np.abs(expected["table"] - start["table"]).max() > 0.02


def test_rows_that_do_not_occur_keep_their_bits() -> None:
    optimizer = LazyAdamW(0.1, weight_decay=0.5, global_clipnorm=0.1)
    variables = make_variables(**lazy_start())
    optimizer.build(variables)
    for step in lazy_steps():
        before = state(optimizer, variables)
        run_steps(optimizer, variables, [step])
        after = state(optimizer, variables)
        resting = np.setdiff1d(np.arange(ROWS), step[0])
        for name in ("table", "table m", "table v"):
            np.testing.assert_array_equal(before[name][resting], after[name][resting])
            assert (before[name][step[0]] != after[name][step[0]]).all()


@pytest.mark.parametrize("clip", [None, 0.5])
def test_dense_gradients_get_the_adamw_of_keras(clip: float | None) -> None:
    results = []
    for kind in (LazyAdamW, keras.optimizers.AdamW):
        optimizer = kind(
            WarmupLinearDecay(0.05, 9, warmup_steps=2),
            weight_decay=0.2,
            epsilon=1e-6,
            global_clipnorm=clip,
        )
        optimizer.exclude_from_weight_decay(var_names=["kernel"])
        variables = make_variables(**lazy_start())
        run_steps(optimizer, variables, lazy_steps(), dense=True)
        results.append(state(optimizer, variables))
    for name, value in results[0].items():
        np.testing.assert_allclose(value, results[1][name], atol=1e-7, err_msg=name)


def test_lazy_is_dense_where_every_row_occurs() -> None:
    rng = np.random.default_rng(2)
    steps = [
        (
            rng.permutation(np.arange(2 * ROWS) % ROWS).astype(np.int32),
            rng.normal(size=(2 * ROWS, DIM)).astype(np.float32),
            kernel,
        )
        for _, _, kernel in lazy_steps()
    ]
    results = []
    for kind, dense in ((LazyAdamW, False), (keras.optimizers.AdamW, True)):
        optimizer = kind(0.01, weight_decay=0.2, epsilon=1e-6, global_clipnorm=1.0)
        variables = make_variables(**lazy_start())
        run_steps(optimizer, variables, steps, dense=dense)
        results.append(state(optimizer, variables))
    for name, value in results[0].items():
        np.testing.assert_allclose(value, results[1][name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize("first", [LazyAdamW, keras.optimizers.AdamW])
def test_lazy_goes_on_from_saved_variables(first: type) -> None:
    # The dense optimiser's variables fit too: same names, shapes and order.
    steps = lazy_steps()
    settings = {"weight_decay": 0.2, "epsilon": 1e-6}
    optimizer, variables = first(0.02, **settings), make_variables(**lazy_start())
    run_steps(optimizer, variables, steps[:3], dense=first is not LazyAdamW)
    saved = [np.asarray(v) for v in (*variables, *optimizer.variables)]

    results = []
    for _ in range(2):
        optimizer, variables = LazyAdamW(0.02, **settings), make_variables(*saved[:2])
        optimizer.build(variables)
        for variable, value in zip(optimizer.variables, saved[2:], strict=True):
            variable.assign(value)
        run_steps(optimizer, variables, steps[3:])
        results.append(state(optimizer, variables))
    assert int(optimizer.iterations) == len(steps)
    if first is LazyAdamW:
        whole, untouched = LazyAdamW(0.02, **settings), make_variables(**lazy_start())
        run_steps(whole, untouched, steps)
        results.append(state(whole, untouched))
    for other in results[1:]:
        for name, value in results[0].items():
            np.testing.assert_array_equal(value, other[name])


def test_lazy_config_round_trip() -> None:
    schedule = WarmupLinearDecay(0.5, 20, warmup_steps=4)
    optimizer = LazyAdamW(
        schedule, 0.1, beta_2=0.98, epsilon=1e-5, global_clipnorm=2.0, tables="words"
    )
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(optimizer)
    )
    assert isinstance(again, LazyAdamW)
    assert again.get_config() == optimizer.get_config()
    assert (again.beta_2, again.tables) == (0.98, "words")


def test_adamw_lazy_leaves_biases_undecayed() -> None:
    backbone = LaBSEBackbone(20, 1, 2, 8, 16)
    for weight in backbone.trainable_weights:
        weight.assign(tf.ones_like(weight))
    optimizer = adamw(0.1, weight_decay=0.5, clip_norm=1.0, lazy=True)
    assert isinstance(optimizer, LazyAdamW)
    assert optimizer.global_clipnorm == 1.0
    gradients = [tf.zeros_like(w) for w in backbone.trainable_weights]
    names = [w.path for w in backbone.trainable_weights]
    table = names.index("token_embedding/embeddings")
    gradients[table] = tf.IndexedSlices(tf.zeros([3, 8]), [4, 2, 4], [20, 8])
    optimizer.apply_gradients(zip(gradients, backbone.trainable_weights, strict=True))
    for weight in backbone.trainable_weights:
        expected = np.full(weight.shape, 0.95, np.float32)
        if weight.path.endswith(("bias", "gamma", "beta")):
            expected[:] = 1
        elif weight.path == names[table]:
            expected[:] = 1
            expected[[2, 4]] = 0.95
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-6)


def test_repeated_rows_are_summed_and_others_pass() -> None:
    rows, values, _ = lazy_steps()[4]
    summed = sum_repeated_rows(tf.IndexedSlices(values, rows, [ROWS, DIM]))
    assert summed.indices.numpy().tolist() == [0, 1, 2, 3, 9]
    expected = np.zeros((ROWS, DIM))
    np.add.at(expected, rows, values)
    np.testing.assert_allclose(
        summed.values, expected[summed.indices.numpy()], atol=1e-6
    )
    np.testing.assert_array_equal(summed.dense_shape, [ROWS, DIM])
    dense = tf.ones([2, 2])
    assert sum_repeated_rows(dense) is dense
    assert sum_repeated_rows(None) is None


VOCABULARY = 4_099  # A number that no other shape of the model has.


def small_dual(
    optimizer: keras.optimizers.Optimizer, dtype: str = "float32"
) -> tuple[DualEncoder, dict]:
    """A compiled dual encoder without blocks, and a batch for it."""
    backbone = LaBSEBackbone(VOCABULARY, 0, 2, 8, 16, dropout=0.0, dtype=dtype)
    dual = DualEncoder(LaBSE(backbone, pooling="mean"))
    dual.compile(optimizer, AdditiveMarginSoftmax())
    optimizer.build(dual.trainable_variables)
    rng = np.random.default_rng(0)

    def side() -> dict[str, tf.Tensor]:
        ids = tf.constant(rng.integers(5, VOCABULARY, size=(6, 7)), tf.int32)
        return {
            "token_ids": ids,
            "segment_ids": tf.zeros_like(ids),
            "padding_mask": tf.ones_like(ids),
        }

    return dual, {"source": side(), "target": side()}


def whole_tables(dual: DualEncoder, batch: dict) -> list[str]:
    """Operations of a step's graph that make or read something of the table's size."""
    graph = tf.function(dual.train_step).get_concrete_function(batch).graph
    functions = graph.as_graph_def().library.function
    assert not functions, "the step's operations would be hidden in functions"
    return [
        operation.type
        for operation in graph.get_operations()
        for output in operation.outputs
        if output.shape.rank is not None and VOCABULARY in output.shape.as_list()
        # Without a reader it is never run.
        if output.consumers()
    ]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_lazy_step_makes_nothing_of_the_tables_size(dtype: str) -> None:
    lazy = adamw(0.01, weight_decay=0.1, clip_norm=1.0, lazy=True)
    # The encoder reads the table once a side, which makes no copy (see below).
    assert whole_tables(*small_dual(lazy, dtype)) == ["ReadVariableOp"] * 2
    dense = adamw(0.01, weight_decay=0.1, clip_norm=1.0)
    assert len(whole_tables(*small_dual(dense, dtype))) > 10


def test_a_lazy_step_does_not_copy_the_table() -> None:
    dual, batch = small_dual(adamw(0.01, weight_decay=0.1, lazy=True))
    table = dual.encoder.backbone.token_embedding.embeddings.value

    def place(read: tf.Tensor) -> int:
        return np.asarray(memoryview(read)).ctypes.data

    def copies_when_read() -> bool:
        first, second = table.read_value(), table.read_value()
        return place(first) != place(second)

    places = set()
    for _ in range(5):
        dual.train_on_batch(batch)
        assert not copies_when_read()
        places.add(place(table.read_value()))
    assert len(places) == 1
    table.scatter_add(tf.IndexedSlices(tf.zeros([1, 8]), [3]))
    assert copies_when_read()  # What a write of rows does by itself.


def test_an_earlier_read_of_the_table_keeps_its_values() -> None:
    variables = make_variables(**lazy_start())
    optimizer = LazyAdamW(0.1)
    run_steps(optimizer, variables, lazy_steps()[:1])
    read = variables[0].value.read_value()
    before = read.numpy().copy()
    run_steps(optimizer, variables, lazy_steps()[1:])
    np.testing.assert_array_equal(read, before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_dual_encoder_trains_lazily(dtype: str) -> None:
    dual, batch = small_dual(adamw(0.05, weight_decay=0.01, lazy=True), dtype)
    table = dual.encoder.backbone.token_embedding.embeddings
    before = table.numpy()
    dataset = tf.data.Dataset.from_tensors(batch).repeat(20)
    losses = [dual.fit(dataset, verbose=0).history["loss"][0] for _ in range(2)]
    assert losses[1] < losses[0]
    ids = np.concatenate([batch[side]["token_ids"].numpy().ravel() for side in batch])
    changed = (table.numpy() != before).any(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(changed), np.unique(ids))


REPLICAS = """
    import sys
    import numpy as np
    import tensorflow as tf
    import keras
    from labse_tf import distribute
    from labse_tf.optimizers import WarmupLinearDecay, adamw

    strategy = distribute.get_strategy(sys.argv[1])
    count = strategy.num_replicas_in_sync
    with np.load(sys.argv[2]) as file:
        arrays = dict(file)
    with strategy.scope():
        table = keras.Variable(arrays["table"], name="table")
        kernel = keras.Variable(arrays["kernel"], name="kernel")
        schedule = WarmupLinearDecay(0.05, 9, warmup_steps=2)
        optimizer = adamw(schedule, weight_decay=0.2, clip_norm=0.7, lazy=True)
        optimizer.build([table, kernel])

    @tf.function
    def step(rows, values, dense):
        def mine(rows, values, dense):
            # A replica has every second row, and its share of the dense gradient.
            me = tf.distribute.get_replica_context().replica_id_in_sync_group
            share = dense * (2.0 * tf.cast(me + 1, tf.float32) / (count * (count + 1)))
            slices = tf.IndexedSlices(
                values[me::count], rows[me::count], tf.constant([11, 3])
            )
            pairs = [(slices, table), (share, kernel)]
            optimizer.apply_gradients(pairs)
        strategy.run(mine, args=(rows, values, dense))

    for i in range(int(arrays["steps"])):
        names = (f"{name}_{i}" for name in ("rows", "values", "dense"))
        step(*(tf.constant(arrays[name]) for name in names))
    parts = [table, kernel, *optimizer.variables]
    copies = [
        [np.asarray(c) for c in strategy.experimental_local_results(p.value)]
        for p in parts
    ]
    assert all(len(c) == count for c in copies)
    for c in copies:
        for other in c[1:]:
            np.testing.assert_array_equal(c[0], other)
    np.savez(sys.argv[3], *[c[0] for c in copies])
    print(count)
"""


def steps_with_rows() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The steps that have any: TensorFlow 2.21 dies of no rows between replicas."""
    return [step for step in lazy_steps() if len(step[0])]


def write_steps(path: Path) -> None:
    """The start and the steps, for another process."""
    steps = steps_with_rows()
    arrays = {"steps": len(steps), **lazy_start()}
    for i, step in enumerate(steps):
        names = (f"{name}_{i}" for name in ("rows", "values", "dense"))
        arrays.update(zip(names, step, strict=True))
    np.savez(path, **arrays)


def test_replicas_equal_one_device(run_python, tmp_path: Path) -> None:
    write_steps(tmp_path / "in.npz")
    results = []
    for name, count in (("one_device", 1), ("cpu:2", 2)):
        out = tmp_path / f"{count}.npz"
        printed = run_python(REPLICAS, name, tmp_path / "in.npz", out)
        assert int(printed.split()[-1]) == count
        with np.load(out) as file:
            results.append([file[key] for key in file.files])
    assert len(results[0]) == 2 + 1 + 4  # weights, the step, moments
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
    schedule = WarmupLinearDecay(0.05, 9, warmup_steps=2)
    expected = numpy_lazy_adamw(
        lazy_start(),
        steps_with_rows(),
        rate=lambda step: float(schedule(step)),
        clip=("global_clipnorm", 0.7),
        weight_decay=0.2,
    )
    np.testing.assert_allclose(results[1][0], expected["table"], atol=1e-6)


JAX = """
    import json, sys
    sys.modules["tensorflow"] = None
    import numpy as np
    import keras
    from labse_tf.optimizers import WarmupLinearDecay, adamw

    assert keras.backend.backend() == "jax"
    with np.load(sys.argv[1]) as file:
        arrays = dict(file)
    table = keras.layers.Embedding(*arrays["table"].shape, name="token_embedding")
    table.build()
    table.embeddings.assign(arrays["table"])
    kernel = keras.Variable(arrays["kernel"], name="kernel")
    schedule = WarmupLinearDecay(0.05, 9, warmup_steps=2)
    optimizer = adamw(schedule, weight_decay=0.2, clip_norm=0.7, lazy=True)
    variables = [table.embeddings, kernel]
    optimizer.build(variables)

    import jax

    @jax.jit
    def step(weights, moments, gradients):
        return optimizer.stateless_apply(moments, gradients, weights)

    weights = [v.value for v in variables]
    moments = [v.value for v in optimizer.variables]
    for i in range(int(arrays["steps"])):
        gradient = np.zeros_like(arrays["table"])
        np.add.at(gradient, arrays[f"rows_{i}"], arrays[f"values_{i}"])
        gradients = [gradient, arrays[f"dense_{i}"]]
        weights, moments = step(weights, moments, gradients)
    np.savez(sys.argv[2], *weights, *moments)
"""


@pytest.mark.parity
def test_lazy_on_jax_equals_tensorflow(run_python, tmp_path: Path) -> None:
    pytest.importorskip("jax", reason="the extra `parity` is not installed")
    write_steps(tmp_path / "in.npz")
    out = tmp_path / "out.npz"
    run_python(JAX, tmp_path / "in.npz", out, env={"KERAS_BACKEND": "jax"})
    with np.load(out) as file:
        jax = [file[key] for key in file.files]

    variables = make_variables(**lazy_start())
    schedule = WarmupLinearDecay(0.05, 9, warmup_steps=2)
    optimizer = adamw(schedule, weight_decay=0.2, clip_norm=0.7, lazy=True)
    run_steps(optimizer, variables, steps_with_rows())
    ours = [np.asarray(v) for v in (*variables, *optimizer.variables)]
    for one, two in zip(ours, jax, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
    # Row 10 never occurs.
    np.testing.assert_array_equal(jax[0][10], lazy_start()["table"][10])


def test_what_is_not_decayed_survives_saving() -> None:
    for lazy in (False, True):
        optimizer = adamw(0.1, weight_decay=0.5, lazy=lazy)
        again = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(optimizer)
        )
        backbone = LaBSEBackbone(20, 1, 2, 8, 16)
        again.build(backbone.trainable_weights)
        decayed = [again._use_weight_decay(w.value) for w in backbone.trainable_weights]
        assert sum(decayed) == 3 + 6 + 1
        assert again.get_config() == optimizer.get_config()


def test_a_token_that_occurs_often_has_one_gradient() -> None:
    """AdamW on slices of the same row is AdamW on their sum."""
    tables = [keras.Variable(np.ones((6, 3), "float32")) for _ in "ab"]
    for table, dense in zip(tables, (False, True), strict=True):
        optimizer = AdamW(0.1)
        optimizer.build([table])
        generator = np.random.default_rng(1)
        for _ in range(3):
            values = generator.normal(size=(5, 3)).astype("float32")
            slices = tf.IndexedSlices(values, [2, 4, 2, 2, 0], tf.constant([6, 3]))
            gradient = tf.convert_to_tensor(slices) if dense else slices
            optimizer.apply([gradient])
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-6)
