"""One device = two = four replicas: loss, metric, and weights after five steps.

Each number of replicas has a process of its own: logical devices are made once a
process, and a second MirroredStrategy in one process aborts.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers import reference
from helpers.errors import raises

# A dual encoder without dropout on fixed token ids, trained for five steps. Settings
# come as JSON, results leave as JSON, weights as .npz.
TRAIN = """
    import json, sys
    settings = json.loads(sys.argv[1])
    import keras
    import numpy as np
    import tensorflow as tf
    from labse_tf import distribute, layers, losses, models

    strategy = distribute.get_strategy(settings["strategy"])
    BATCH, STEPS = settings.get("batch", 16), 5
    rng = np.random.default_rng(5)

    def side(length):
        ids = rng.integers(5, 60, size=(BATCH * STEPS, length))
        # Some sentences twice in a batch, on different replicas.
        ids[3::BATCH] = ids[12::BATCH]
        mask = np.arange(length) < rng.integers(2, length + 1, size=(len(ids), 1))
        mask[3::BATCH] = mask[12::BATCH]
        return {
            "token_ids": ids.astype("int32"),
            "segment_ids": np.zeros_like(ids, dtype="int32"),
            "padding_mask": mask.astype("int32"),
        }

    data = {"source": side(7), "target": side(9)}
    dataset = tf.data.Dataset.from_tensor_slices(data)
    dataset = dataset.batch(BATCH, drop_remainder=settings.get("drop", True))
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.OFF
    )
    dataset = dataset.with_options(options)

    class StopGradient(losses.AdditiveMarginSoftmax):
        def _gather(self, rows):
            gathered = tf.stop_gradient(distribute.all_gather_rows(rows))
            if rows.dtype.is_integer:
                return gathered
            mine = distribute.global_row_ids(rows)
            return tf.tensor_scatter_nd_update(gathered, mine[:, None], rows)

    keras.utils.set_random_seed(3)
    with strategy.scope():
        backbone = models.LaBSEBackbone(60, 1, 2, 16, 32, dropout=0.0)
        encoder = models.LaBSE(backbone, pooling="mean")
        if "lora" in settings:
            encoder.enable_lora(settings["lora"])
        dual = models.DualEncoder(encoder, settings.get("chunk"))
        kind = StopGradient if settings.get("stop") else losses.AdditiveMarginSoftmax
        loss = kind(
            0.3,
            10.0,
            cross_replica=settings.get("cross", True),
            block_size=settings.get("block"),
        )
        optimizer = keras.optimizers.SGD(0.5)
        if "clip" in settings:
            from labse_tf.optimizers import adamw
            optimizer = adamw(1e-3, weight_decay=0.1, clip_norm=settings["clip"])
            # Far from 0, or Adam's division hides what clipping does.
            optimizer.epsilon = 0.1
        dual.compile(optimizer, loss)
    first = {}

    class Note(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 0:
                first.update({k: float(v) for k, v in logs.items()})

    try:
        dual.fit(dataset, epochs=1, shuffle=False, verbose=0, callbacks=[Note()])
    except ValueError as error:
        print(json.dumps({"error": str(error)}))
        sys.exit()
    np.savez(sys.argv[2], *[np.asarray(w) for w in encoder.trainable_weights])
    print(json.dumps({"first": first, "replicas": strategy.num_replicas_in_sync}))
"""

COLLECTIVES = """
    import json
    import tensorflow as tf
    from labse_tf import distribute

    strategy = distribute.get_strategy("cpu:4")
    rows = tf.reshape(tf.range(24, dtype=tf.float32), [8, 3])
    values = strategy.experimental_distribute_values_from_function(
        lambda c: rows[
            c.replica_id_in_sync_group * 2 : c.replica_id_in_sync_group * 2 + 2
        ]
    )

    def step(mine):
        mine = tf.ensure_shape(mine, [2, 3])
        with tf.GradientTape() as tape:
            tape.watch(mine)
            everyone = distribute.all_gather_rows(mine)
            # Each replica looks at all rows with a factor of its own: 1, 2, 3, 4.
            factor = tf.cast(
                tf.distribute.get_replica_context().replica_id_in_sync_group + 1,
                tf.float32,
            )
            value = tf.reduce_sum(everyone) * factor
        return everyone, distribute.global_row_ids(mine), tape.gradient(value, mine)

    everyone, ids, gradients = (
        strategy.experimental_local_results(x)
        for x in tf.function(lambda v: strategy.run(step, args=(v,)))(values)
    )
    outside = None
    with strategy.scope():
        try:
            distribute.all_gather_rows(rows)
        except ValueError as error:
            outside = str(error)
    print(json.dumps({
        "gathered": [bool((e.numpy() == rows.numpy()).all()) for e in everyone],
        "ids": [i.numpy().tolist() for i in ids],
        "gradients": [sorted(set(g.numpy().ravel().tolist())) for g in gradients],
        "outside": outside,
    }))
"""


# A model of a user, with the `fit` of Keras: vectors of sources against given targets.
OWN_MODEL = """
    import json, sys
    settings = json.loads(sys.argv[1])
    import keras
    import numpy as np
    import tensorflow as tf
    from labse_tf import distribute, losses, metrics

    strategy = distribute.get_strategy(settings["strategy"])
    BATCH, STEPS = 16, 5
    rng = np.random.default_rng(5)
    sources = rng.normal(size=(BATCH * STEPS, 7)).astype("float32")
    targets = rng.normal(size=(BATCH * STEPS, 6)).astype("float32")
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    dataset = tf.data.Dataset.from_tensor_slices((sources, targets))
    dataset = dataset.batch(BATCH, drop_remainder=True)

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(6)

        def call(self, inputs):
            return keras.ops.normalize(self.dense(inputs), axis=1)

    keras.utils.set_random_seed(3)
    with strategy.scope():
        model = Own()
        model.compile(
            keras.optimizers.SGD(0.5),
            losses.AdditiveMarginSoftmax(0.3, 10.0, block_size=settings.get("block")),
            metrics=[metrics.TranslationRankingAccuracy(name="ranking_accuracy")],
        )
    first = {k: v[0] for k, v in model.fit(
        dataset, epochs=1, shuffle=False, verbose=0).history.items()}
    last = model.evaluate(dataset, verbose=0, return_dict=True)
    np.savez(sys.argv[2], *[np.asarray(w) for w in model.trainable_weights])
    print(json.dumps({"first": first, "last": last}))
"""


# A masked language model, packed rows of both tasks, grown from one layer to two in
# between, with the moments of AdamW.
PRETRAIN = """
    import json, sys
    settings = json.loads(sys.argv[1])
    import keras
    import numpy as np
    import tensorflow as tf
    from labse_tf import distribute, models, optimizers, pretraining

    strategy = distribute.get_strategy(settings["strategy"])
    ROWS, STEPS, T, P = 8, 6, 12, 4
    rng = np.random.default_rng(5)
    count = ROWS * STEPS
    ids = rng.integers(5, 60, size=(count, T)).astype("int32")
    two = np.arange(count) % 2  # every other row holds a pair
    data = {
        "token_ids": ids,
        "segment_ids": (two[:, None] * (np.arange(T) >= 6)).astype("int32"),
        "padding_mask": np.ones_like(ids),
        "position_ids": np.tile(np.arange(T, dtype="int32"), (count, 1)),
        "sequence_ids": np.ones_like(ids),
        "mask_positions": np.sort(rng.permuted(
            np.tile(np.arange(T), (count, 1)), axis=1)[:, :P]).astype("int32"),
        "mask_ids": rng.integers(5, 60, size=(count, P)).astype("int32"),
        # The replicas do not have equally many predictions.
        "mask_weights": (np.arange(P) < rng.integers(0, P + 1, (count, 1))).astype(
            "float32"),
    }
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.OFF
    )
    dataset = tf.data.Dataset.from_tensor_slices(data)
    dataset = dataset.batch(ROWS, drop_remainder=True).with_options(options)

    keras.utils.set_random_seed(3)
    with strategy.scope():
        backbone = models.LaBSEBackbone(60, 1, 2, 16, 32, dropout=0.0)
        model = pretraining.MaskedLM(backbone, chunk_size=17)
        optimizer = optimizers.adamw(0.1, weight_decay=0.1, clip_norm=0.5)
        # Far from 0, or Adam's division makes much of the sums' order.
        optimizer.epsilon = 0.1
        model.compile(optimizer)
        optimizer.build(model.trainable_variables)
    logs = []
    for part in (dataset.take(3), dataset.skip(3)):
        history = model.fit(part, epochs=1, shuffle=False, verbose=0).history
        logs.append({name: values[0] for name, values in history.items()})
        if model.backbone.num_layers == 1:
            model = pretraining.grow(model, 2)
            if settings.get("forget"):
                for variable in model.optimizer.variables[2:]:
                    variable.assign(np.zeros(variable.shape))
    np.savez(sys.argv[2], *[np.asarray(w) for w in model.trainable_weights])
    print(json.dumps({"logs": logs, "replicas": strategy.num_replicas_in_sync}))
"""


def train(run_python, tmp_path: Path, **settings: object) -> tuple[dict, np.ndarray]:
    """Result and all weights, flattened, of a run of TRAIN."""
    path = tmp_path / "weights.npz"
    code = settings.pop("code", TRAIN)
    result = json.loads(run_python(code, json.dumps(settings), path).splitlines()[-1])
    if "error" in result:
        return result, np.zeros(0)
    with np.load(path) as weights:
        flat = np.concatenate([weights[name].ravel() for name in weights.files])
    return result, flat


@pytest.fixture(scope="module")
def one(run_python, tmp_path_factory) -> tuple[dict, np.ndarray]:
    """The run on one device, which all others are compared with."""
    folder = tmp_path_factory.mktemp("one")
    return train(run_python, folder, strategy="one_device")


@pytest.mark.parametrize("replicas", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_replicas_train_as_one_device(run_python, tmp_path, one, replicas) -> None:
    result, weights = train(run_python, tmp_path, strategy=f"cpu:{replicas}")
    assert result["replicas"] == replicas
    assert result["first"]["loss"] == pytest.approx(one[0]["first"]["loss"], rel=1e-6)
    assert result["first"]["ranking_accuracy"] == pytest.approx(
        one[0]["first"]["ranking_accuracy"], abs=1e-6
    )
    difference = np.abs(weights - one[1]).max()
    print(f"{replicas} replicas: largest difference after 5 steps {difference:.2e}")
    assert difference < 1e-5


def test_replicas_that_encode_in_chunks_train_as_one_device(
    run_python, tmp_path, one
) -> None:
    """Vectors are gathered once, between the chunks' two passes; ranked in blocks."""
    result, weights = train(run_python, tmp_path, strategy="cpu:2", chunk=3, block=5)
    assert result["replicas"] == 2
    assert result["first"]["loss"] == pytest.approx(one[0]["first"]["loss"], rel=1e-6)
    assert result["first"]["ranking_accuracy"] == pytest.approx(
        one[0]["first"]["ranking_accuracy"], abs=1e-6
    )
    assert np.abs(weights - one[1]).max() < 1e-5


def test_low_rank_weights_train_as_on_one_device(run_python, tmp_path) -> None:
    runs = {
        "one": {"strategy": "one_device"},
        "two": {"strategy": "cpu:2", "chunk": 3},
    }
    found = {n: train(run_python, tmp_path, lora=4, **s) for n, s in runs.items()}
    assert found["two"][0]["replicas"] == 2
    one, two = (found[name][1] for name in runs)
    # One block: 4 projections 16 x 16, two layers 16 x 32.
    assert len(one) == 4 * (4 * (16 + 16) + 2 * (16 + 32))
    assert np.abs(one - two).max() < 1e-5
    assert np.abs(one).max() > 0.1


@pytest.fixture(scope="module")
def own(run_python, tmp_path_factory) -> tuple[dict, np.ndarray]:
    """OWN_MODEL on one device."""
    folder = tmp_path_factory.mktemp("own")
    return train(run_python, folder, code=OWN_MODEL, strategy="one_device")


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "cpu:2"},
        pytest.param({"strategy": "cpu:4"}, marks=pytest.mark.slow),
        pytest.param({"strategy": "cpu:2", "block": 5}, marks=pytest.mark.slow),
    ],
)
def test_the_loss_in_a_model_that_is_not_ours(
    run_python, tmp_path, own, settings
) -> None:
    """Keras builds the model with symbolic tensors outside the replicas first."""
    result, weights = train(run_python, tmp_path, code=OWN_MODEL, **settings)
    assert np.abs(weights - own[1]).max() < 1e-5
    for logs in ("first", "last"):
        assert result[logs] == pytest.approx(own[0][logs], abs=1e-5, rel=1e-5)


@pytest.mark.slow
def test_clipping_is_that_of_one_device(run_python, tmp_path) -> None:
    """Gradients are summed over the replicas first, then clipped."""
    _, alone = train(run_python, tmp_path, strategy="one_device", clip=0.1)
    _, two = train(run_python, tmp_path, strategy="cpu:2", clip=0.1)
    _, unclipped = train(run_python, tmp_path, strategy="cpu:2", clip=100.0)
    assert np.abs(two - alone).max() < 1e-6
    assert np.abs(unclipped - alone).max() > 1e-4


@pytest.mark.slow
def test_masked_lm_grows_on_replicas_as_on_one_device(run_python, tmp_path) -> None:
    runs = {
        name: train(run_python, tmp_path, code=PRETRAIN, **settings)
        for name, settings in {
            "one": {"strategy": "one_device"},
            "two": {"strategy": "cpu:2"},
            "forgetful": {"strategy": "one_device", "forget": True},
        }.items()
    }
    (one, weights), (two, others) = runs["one"], runs["two"]
    assert two["replicas"] == 2
    for before, after in zip(one["logs"], two["logs"], strict=True):
        for name in ("loss", "mlm_loss", "tlm_loss", "tlm_accuracy"):
            assert after[name] == pytest.approx(before[name], abs=1e-5), name
    difference = np.abs(others - weights).max()
    print(f"2 replicas, grown: largest difference after 6 steps {difference:.2e}")
    assert difference < 1e-5
    # Moments that are lost on the way would be seen.
    assert np.abs(runs["forgetful"][1] - weights).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"stop": True}, {"cross": False}])
def test_weaker_negatives_train_something_else(
    run_python, tmp_path, one, change
) -> None:
    _, weights = train(run_python, tmp_path, strategy="cpu:2", **change)
    assert np.abs(weights - one[1]).max() > 1e-3


def test_an_uneven_batch_is_refused(run_python, tmp_path) -> None:
    result, _ = train(run_python, tmp_path, strategy="cpu:2", drop=False)
    assert "drop_remainder=True" in result["error"]
    assert "Received: shape=(None, " in result["error"]


def test_gathering_order_ids_and_gradient(run_python) -> None:
    result = json.loads(run_python(COLLECTIVES).splitlines()[-1])
    assert result["gathered"] == [True] * 4
    assert result["ids"] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    # Every row is seen by all four replicas: 1 + 2 + 3 + 4.
    assert result["gradients"] == [[10.0]] * 4
    assert "inside `strategy.run`" in result["outside"]


def test_one_replica_gathers_itself() -> None:
    from labse_tf import distribute

    rows = reference.unit_rows(np.random.default_rng(0), 3, 2)
    assert distribute.all_gather_rows(rows) is rows
    assert np.asarray(distribute.global_row_ids(rows)).tolist() == [0, 1, 2]
    assert distribute.replica_count() == 1


@pytest.mark.parametrize("name", ["", "cpu", "cpu:0", "cpu:two", "gpu", "cpu:-1"])
def test_unknown_strategy_is_refused(name: str) -> None:
    from labse_tf import distribute

    with raises(ValueError, argument="name", received="name"):
        distribute.get_strategy(name)


def test_logical_cpus_that_come_too_late_are_explained() -> None:
    import tensorflow as tf

    from labse_tf import distribute

    tf.constant(1.0)
    with raises(ValueError, "TensorFlow", "CPU"):
        distribute.get_strategy("cpu:64")
