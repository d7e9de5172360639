"""The loss against NumPy: values, gradients, duplicates, on one device."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

from labse_tf.losses import AdditiveMarginSoftmax

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


@pytest.mark.parametrize("settings", SETTINGS)
def test_value_and_gradients_equal_numpy(
    batch: tuple[np.ndarray, np.ndarray], settings: dict[str, float]
) -> None:
    loss = AdditiveMarginSoftmax(**settings)  # type: ignore[arg-type]
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
def test_duplicates_are_no_negatives(
    batch: tuple[np.ndarray, np.ndarray],
    source_numbers: tuple[int, ...],
    target_numbers: tuple[int, ...],
) -> None:
    known = {"source_ids": ids(*source_numbers), "target_ids": ids(*target_numbers)}
    settings = {"margin": 0.3, "scale": 7.0}
    loss = AdditiveMarginSoftmax(**settings)
    expected = reference.additive_margin_softmax(*batch, **settings, **known)
    assert float(loss(*batch, **known)) == pytest.approx(expected, abs=1e-6)
    for ours, numpy in zip(
        gradients(loss, *batch, **known),
        reference.additive_margin_softmax_gradients(*batch, **settings, **known),
        strict=True,
    ):
        np.testing.assert_allclose(ours, numpy, atol=2e-6, rtol=5e-6)
    blind = AdditiveMarginSoftmax(**settings, mask_duplicates=False)
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


def test_half_precision_vectors_are_ranked_in_float32(
    batch: tuple[np.ndarray, np.ndarray],
) -> None:
    source, target = (tf.cast(x, tf.bfloat16) for x in batch)
    loss = AdditiveMarginSoftmax()
    assert loss(source, target).dtype == tf.float32
    rounded = [tf.cast(x, tf.float32) for x in (source, target)]
    assert float(loss(source, target)) == float(loss(*rounded))


def test_large_scale_stays_finite() -> None:
    vectors = np.eye(3, dtype=np.float32)
    turned = np.roll(vectors, 1, axis=0)  # every positive is at cosine 0
    loss = AdditiveMarginSoftmax(margin=0.3, scale=1000.0)
    # The wrong one is ahead by scale * (1 - (0 - 0.3)) = 1300, in each direction.
    assert float(loss(vectors, turned)) == pytest.approx(2600.0, rel=1e-6)


def test_config_round_trip() -> None:
    loss = AdditiveMarginSoftmax(
        0.1, 50.0, bidirectional=False, cross_replica=False, mask_duplicates=False
    )
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(loss)
    )
    assert isinstance(again, AdditiveMarginSoftmax)
    assert again.get_config() == loss.get_config()
    assert again.get_config()["margin"] == 0.1
    assert again.get_config()["bidirectional"] is False


def test_bad_arguments_are_named(batch: tuple[np.ndarray, np.ndarray]) -> None:
    source, target = batch
    loss = AdditiveMarginSoftmax()
    with pytest.raises(ValueError, match=r"`scale`.*Received: scale=0"):
        AdditiveMarginSoftmax(scale=0)
    with pytest.raises(ValueError, match=r"same shape.*Received: .*\(6, 5\).*\(4, 5\)"):
        loss(source, target[:4])
    with pytest.raises(ValueError, match="`source_ids` and `target_ids` go together"):
        loss(source, target, source_ids=ids(0, 1, 2, 3, 4, 5))
    with pytest.raises(ValueError, match="`sample_weight`"):
        loss(source, target, np.ones(6))  # type: ignore[arg-type]
