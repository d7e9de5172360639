"""The loss against NumPy: values, gradients, duplicates, blocks, on one device."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers import reference
from helpers.errors import raises
from labse_tf.losses import AdditiveMarginSoftmax, MatryoshkaLoss
from labse_tf.metrics import TranslationRankingAccuracy

SETTINGS = [
    {"margin": 0.3, "scale": 20.0},
    {"margin": 0.0, "scale": 1.0},
    {"margin": 0.2, "scale": 5.0, "bidirectional": False},
]


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    source = reference.unit_rows(rng, 6, 5)
    target = source + 0.4 * reference.unit_rows(rng, 6, 5)
    return source, target / np.linalg.norm(target, axis=1, keepdims=True)


def ids(*numbers: int) -> np.ndarray:
    """Fingerprints that differ where the numbers do, in one column of the two."""
    return np.array([[number % 3, number] for number in numbers], dtype=np.int32)


def gradients(
    loss: AdditiveMarginSoftmax,
    source: np.ndarray,
    target: np.ndarray,
    **kwargs: object,
) -> tuple[np.ndarray, np.ndarray]:
    variables = tf.constant(source), tf.constant(target)
    with tf.GradientTape() as tape:
        tape.watch(variables)
        value = loss(*variables, **kwargs)
    return tuple(g.numpy() for g in tape.gradient(value, variables))  # type: ignore[return-value]


# Of six pairs: all at once, blocks that divide, that do not, that are larger.
@pytest.mark.parametrize("block_size", [None, 2, 4, 100])
@pytest.mark.parametrize("settings", SETTINGS)
def test_value_and_gradients_equal_numpy(
    batch: tuple[np.ndarray, np.ndarray],
    settings: dict[str, float],
    block_size: int | None,
) -> None:
    loss = AdditiveMarginSoftmax(**settings, block_size=block_size)  # type: ignore[arg-type]
    expected = reference.additive_margin_softmax(*batch, **settings)  # type: ignore[arg-type]
    assert float(loss(*batch)) == pytest.approx(expected, abs=1e-6, rel=1e-6)
    for ours, numpy in zip(
        gradients(loss, *batch),
        reference.additive_margin_softmax_gradients(*batch, **settings),
        strict=True,
    ):
        np.testing.assert_allclose(ours, numpy, atol=2e-6, rtol=5e-6)


def test_by_hand() -> None:
    # Two orthogonal pairs that agree perfectly. Each row's logits are
    # 2 * (1 - 0.5) = 1 for its own and 0 for the other: log(e + 1) - 1 = 0.31326,
    # twice for the two directions.
    vectors = np.eye(2, dtype=np.float32)
    loss = AdditiveMarginSoftmax(margin=0.5, scale=2.0)
    assert float(loss(vectors, vectors)) == pytest.approx(2 * 0.3132617, abs=1e-6)


def test_margin_is_subtracted_on_the_positive_only() -> None:
    # With one pair there is no negative: whatever the margin, nothing to lose.
    vector = np.array([[0.6, 0.8]], dtype=np.float32)
    assert float(AdditiveMarginSoftmax(margin=0.9)(vector, vector)) == 0.0
    # With two, it raises the loss; subtracted from all logits it would not.
    vectors = np.eye(2, dtype=np.float32)
    losses = [
        float(AdditiveMarginSoftmax(margin=m, scale=4.0)(vectors, vectors))
        for m in (0.0, 0.3)
    ]
    assert losses[1] > losses[0] + 0.03


@pytest.mark.parametrize(
    ("source_numbers", "target_numbers"),
    [
        ((0, 1, 2, 0, 4, 5), (10, 11, 12, 13, 14, 15)),  # a source twice
        ((0, 1, 2, 3, 4, 5), (10, 11, 11, 13, 14, 11)),  # a target three times
        ((0, 0, 2, 3, 2, 5), (10, 11, 12, 10, 14, 15)),  # both kinds
        ((0, 0, 0, 0, 0, 0), (10, 10, 10, 10, 10, 10)),  # nothing but copies
    ],
)
@pytest.mark.parametrize("block_size", [None, 4])
def test_duplicates_are_no_negatives(
    batch: tuple[np.ndarray, np.ndarray],
    source_numbers: tuple[int, ...],
    target_numbers: tuple[int, ...],
    block_size: int | None,
) -> None:
    known = {"source_ids": ids(*source_numbers), "target_ids": ids(*target_numbers)}
    settings = {"margin": 0.3, "scale": 7.0}
    loss = AdditiveMarginSoftmax(**settings, block_size=block_size)
    expected = reference.additive_margin_softmax(*batch, **settings, **known)
    assert float(loss(*batch, **known)) == pytest.approx(expected, abs=1e-6)
    for ours, numpy in zip(
        gradients(loss, *batch, **known),
        reference.additive_margin_softmax_gradients(*batch, **settings, **known),
        strict=True,
    ):
        np.testing.assert_allclose(ours, numpy, atol=2e-6, rtol=5e-6)
    blind = AdditiveMarginSoftmax(
        **settings, mask_duplicates=False, block_size=block_size
    )
    plain = reference.additive_margin_softmax(*batch, **settings)
    assert float(blind(*batch, **known)) == pytest.approx(plain, abs=1e-6)
    assert abs(plain - expected) > 1e-3


def test_ids_that_differ_in_one_half_are_different(
    batch: tuple[np.ndarray, np.ndarray],
) -> None:
    # First halves all equal, second halves all different: no duplicates.
    known = np.stack([np.zeros(6, np.int32), np.arange(6, dtype=np.int32)], axis=1)
    loss = AdditiveMarginSoftmax()
    assert float(loss(*batch, source_ids=known, target_ids=known)) == pytest.approx(
        float(loss(*batch)), abs=1e-6
    )


@pytest.fixture(params=["mixed_bfloat16", "mixed_float16"])
def policy(request: pytest.FixtureRequest) -> Iterator[str]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("block_size", [None, 4])
def test_half_precision_vectors_are_ranked_in_float32(
    batch: tuple[np.ndarray, np.ndarray], policy: str, block_size: int | None
) -> None:
    source, target = (tf.cast(x, policy.removeprefix("mixed_")) for x in batch)
    loss = AdditiveMarginSoftmax(block_size=block_size)
    assert loss(source, target).dtype == tf.float32
    rounded = [tf.cast(x, tf.float32) for x in (source, target)]
    assert float(loss(source, target)) == float(loss(*rounded))
    for ours, exact in zip(
        gradients(loss, source, target), gradients(loss, *rounded), strict=True
    ):
        np.testing.assert_allclose(ours.astype(np.float32), exact, rtol=1e-2, atol=1e-3)
    accuracy = TranslationRankingAccuracy(block_size=block_size)
    accuracy.update_state(source, target)
    assert accuracy.result() == 1.0


@pytest.mark.parametrize("block_size", [None, 1, 2])
def test_large_scale_stays_finite(block_size: int | None) -> None:
    vectors = np.eye(3, dtype=np.float32)
    turned = np.roll(vectors, 1, axis=0)  # every positive is at cosine 0
    loss = AdditiveMarginSoftmax(margin=0.3, scale=1000.0, block_size=block_size)
    # The wrong one is ahead by scale * (1 - (0 - 0.3)) = 1300, in each direction.
    assert float(loss(vectors, turned)) == pytest.approx(2600.0, rel=1e-6)


# --- blocks ---------------------------------------------------------------------------


def many(count: int, dim: int = 32) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
    """Vectors in which a tenth of the pairs is not found, and ids with many copies."""
    rng = np.random.default_rng(2)
    source = rng.normal(size=(count, dim))
    target = source + 1.1 * rng.normal(size=(count, dim))
    sides = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (source, target)]
    known = {
        f"{side}_ids": tf.constant(
            np.stack([rng.integers(0, kinds, count)] * 2, axis=1), tf.int32
        )
        for side, kinds in (("source", count // 3), ("target", 2 * count))
    }
    return [tf.constant(x, tf.float32) for x in sides], known


def evaluated(loss: AdditiveMarginSoftmax) -> Callable[..., tuple[tf.Tensor, ...]]:
    """The loss and its gradients, to be traced."""

    def run(
        sides: list[tf.Tensor], known: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, ...]:
        with tf.GradientTape() as tape:
            tape.watch(sides)
            value = loss(*sides, **known)
        return (value, *tape.gradient(value, sides))

    return run


@pytest.fixture(scope="module")
def plain() -> tuple[tf.Tensor, ...]:
    """Value and gradients of 4,096 pairs, all cosines at once."""
    return tf.function(evaluated(AdditiveMarginSoftmax()))(*many(4096))


@pytest.mark.parametrize(
    ("block_size", "jit_compile", "static"),
    [
        (256, False, True),
        (600, False, False),
        (600, True, True),
        (256, True, False),
        (5000, True, False),
    ],
)
def test_blocks_equal_the_whole_at_4096(
    plain: tuple[tf.Tensor, ...], block_size: int, jit_compile: bool, static: bool
) -> None:
    batch = many(4096)
    signature = keras.tree.map_structure(
        lambda x: tf.TensorSpec((x.shape[0] if static else None, x.shape[1]), x.dtype),
        batch,
    )
    run = tf.function(
        evaluated(AdditiveMarginSoftmax(block_size=block_size)),
        input_signature=signature,
        jit_compile=jit_compile,
    )
    value, *found = run(*batch)
    assert float(value) == pytest.approx(float(plain[0]), rel=1e-6)
    for ours, whole in zip(found, plain[1:], strict=True):
        # The loss is a mean: of one pair, 4,096 times as much.
        np.testing.assert_allclose(4096 * ours, 4096 * whole, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize(
    ("with_ids", "jit_compile"), [(False, False), (True, False), (True, True)]
)
def test_accuracy_in_blocks(with_ids: bool, jit_compile: bool) -> None:
    sides, known = many(1000, dim=16)
    # Multiples of 1/64, whose products are exact in any order of the sum. Candidates
    # that are equally near: the first counts, in whatever block.
    sides = [tf.round(side * 64) / 64 for side in sides]
    sides[1] = tf.concat([sides[1][:500], sides[1][:500]], axis=0)

    def accuracy(block_size: int | None) -> float:
        metric = TranslationRankingAccuracy(block_size=block_size)
        run = tf.function(metric.update_state, jit_compile=jit_compile)
        run(*sides, **(known if with_ids else {}))
        return float(metric.result())

    whole = accuracy(None)
    assert 0.1 < whole < 0.8
    assert [accuracy(size) for size in (100, 300)] == [whole, whole]


MEMORY = """
    import json
    from pathlib import Path
    import tensorflow as tf
    from labse_tf.losses import AdditiveMarginSoftmax, MatryoshkaLoss
    from labse_tf.metrics import TranslationRankingAccuracy

    def in_use(key):
        lines = Path("/proc/self/status").read_text().splitlines()
        (line,) = [line for line in lines if line.startswith(key)]
        return int(line.split()[1]) / 1e3

    def grown(run, count):
        # What was once in use TensorFlow keeps and may use again: the small goes first.
        sides = [tf.random.normal((count, 16)) for _ in range(2)]
        ids = [tf.cast(100 * x[:, :2], "int32") for x in sides]
        step = tf.function(run).get_concrete_function(*sides, *ids)
        Path("/proc/self/clear_refs").write_text("5")
        before = in_use("VmRSS")
        step(*sides, *ids)
        return in_use("VmHWM") - before

    loss = AdditiveMarginSoftmax(block_size=128)
    metric = TranslationRankingAccuracy(block_size=128)

    def gradients(source, target, source_ids, target_ids):
        with tf.GradientTape() as tape:
            tape.watch(source)
            ids = {"source_ids": source_ids, "target_ids": target_ids}
            value = loss(source, target, **ids)
        return tape.gradient(value, source)

    def accuracy(source, target, source_ids, target_ids):
        metric.update_state(
            source, target, source_ids=source_ids, target_ids=target_ids
        )

    def square(source, target, *ids):
        return tf.reduce_max(tf.matmul(source, target, transpose_b=True))

    for count in (500, 8192):
        found = [grown(run, count) for run in (gradients, accuracy, square)]
    print(json.dumps(found))
"""


def test_neither_cosines_nor_masks_are_held(run_python: Callable[..., str]) -> None:
    """A matrix of the batch's square has 67 MB as booleans and 268 MB as floats."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a process is told by Linux only")
    loss, metric, square = json.loads(run_python(MEMORY).splitlines()[-1])
    assert loss < 60
    assert metric < 60
    assert square > 250  # the measure sees one


def test_config_round_trip() -> None:
    loss = AdditiveMarginSoftmax(
        0.1,
        50.0,
        bidirectional=False,
        cross_replica=False,
        mask_duplicates=False,
        block_size=64,
    )
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(loss)
    )
    assert isinstance(again, AdditiveMarginSoftmax)
    assert again.get_config() == loss.get_config()
    assert again.get_config()["margin"] == 0.1
    assert again.get_config()["bidirectional"] is False
    assert again.get_config()["block_size"] == 64
    metric = TranslationRankingAccuracy(block_size=64)
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric)
    )
    assert copy.get_config() == metric.get_config()
    assert copy.block_size == 64


def test_bad_arguments_are_named(batch: tuple[np.ndarray, np.ndarray]) -> None:
    source, target = batch
    loss = AdditiveMarginSoftmax()
    with raises(ValueError, argument="scale", received="scale=0"):
        AdditiveMarginSoftmax(scale=0)
    for kind in (AdditiveMarginSoftmax, TranslationRankingAccuracy):
        with raises(ValueError, argument="block_size", received="block_size=0"):
            kind(block_size=0)
    with raises(ValueError, "(6, 5)", "(4, 5)", received=True):
        loss(source, target[:4])
    with raises(ValueError, "`target_ids`", argument="source_ids"):
        loss(source, target, source_ids=ids(0, 1, 2, 3, 4, 5))
    accuracy = TranslationRankingAccuracy()
    with raises(ValueError, "`source_ids`", argument="target_ids"):
        accuracy.update_state(source, target, target_ids=ids(0, 1, 2, 3, 4, 5))
    assert float(accuracy.count) == 0
    with raises(ValueError, argument="sample_weight"):
        loss(source, target, np.ones(6))  # type: ignore[arg-type]


# === Nested sizes ===


def cut(vectors: np.ndarray, dim: int) -> np.ndarray:
    short = vectors[:, :dim].astype(np.float64)
    return short / np.linalg.norm(short, axis=1, keepdims=True)


@pytest.mark.parametrize("block_size", [None, 4])
def test_nested_sizes_are_a_sum_of_losses(
    batch: tuple[np.ndarray, np.ndarray], block_size: int | None
) -> None:
    source, target = batch
    plain = AdditiveMarginSoftmax(0.2, 5.0, block_size=block_size)
    nested = MatryoshkaLoss(plain, dims=(3, 2, 5))
    assert nested.block_size == block_size
    known = {"source_ids": ids(0, 1, 2, 3, 0, 5), "target_ids": ids(9, 8, 7, 6, 5, 4)}
    for more in ({}, known):
        expected = sum(
            reference.additive_margin_softmax(
                cut(source, dim), cut(target, dim), margin=0.2, scale=5.0, **more
            )
            for dim in (2, 3, 5)
        )
        value = float(nested(source, target, **more))
        np.testing.assert_allclose(value, expected, rtol=1e-5)
    # Central differences, through the normalization of the cut vectors.
    found = gradients(nested, source, target)
    for side, gradient in enumerate(found):
        for row, column in ((0, 0), (2, 2), (4, 4)):
            values = []
            for step in (1e-3, -1e-3):
                both = [source.copy(), target.copy()]
                both[side][row, column] += step
                values.append(float(nested(*both)))
            slope = (values[0] - values[1]) / 2e-3
            assert gradient[row, column] == pytest.approx(slope, rel=2e-2, abs=2e-3)


def test_nested_sizes_survive_their_config_and_are_checked(
    batch: tuple[np.ndarray, np.ndarray],
) -> None:
    loss = MatryoshkaLoss(AdditiveMarginSoftmax(0.1, 50.0), dims=(4, 2))
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(loss)
    )
    assert (again.dims, again.loss.scale) == ((2, 4), 50.0)
    assert float(again(*batch)) == float(loss(*batch))
    for dims in ((), (0,), (2, 2)):
        with raises(ValueError, argument="dims", received=str(list(dims))):
            MatryoshkaLoss(AdditiveMarginSoftmax(), dims)
    with raises(ValueError, "5", argument="dims", received="[6]"):
        MatryoshkaLoss(AdditiveMarginSoftmax(), (6,))(*batch)
    with raises(ValueError, argument="sample_weight"):
        loss(*batch, np.ones(6))
