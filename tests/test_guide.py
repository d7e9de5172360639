"""The guide: negatives that another encoder holds for translations are ignored."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers import reference
from helpers.errors import raises
from helpers.models import make_model, pairs
from labse_tf.losses import AdditiveMarginSoftmax, MatryoshkaLoss
from labse_tf.models import DualEncoder

Sides = tuple[np.ndarray, np.ndarray]
# At each, the guide of the fixture ignores some negatives and keeps some.
MARGINS = [(0.0, "absolute"), (0.3, "absolute"), (-0.2, "absolute"), (0.4, "relative")]


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


def near_pairs(rows: int, dim: int, noise: float, seed: int) -> Sides:
    """Vectors of pairs; the larger the noise, the more negatives are nearer."""
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(rows, dim))
    return unit(source), unit(source + noise * rng.normal(size=(rows, dim)))


def ids(*numbers: int) -> np.ndarray:
    return np.array([[number, number] for number in numbers], dtype=np.int32)


@pytest.fixture
def batch() -> Sides:
    return near_pairs(7, 5, 0.5, 7)


@pytest.fixture
def guide() -> Sides:
    """Of another dimension; the cosine of some pairs is negative."""
    return near_pairs(7, 3, 1.5, 3)


def ignored(guide: Sides, margin: float, strategy: str) -> np.ndarray:
    """Which candidates the guide ignores, both directions one above the other."""
    x, y = (side.astype(np.float64) for side in guide)
    positive = (x * y).sum(axis=1)
    limit = positive - margin * (np.abs(positive) if strategy == "relative" else 1)
    both = np.concatenate([x @ y.T > limit[:, None], y @ x.T > limit[:, None]])
    return both & ~np.tile(np.eye(len(x), dtype=bool), (2, 1))


def of_sides(guide: Sides) -> dict[str, np.ndarray]:
    return {"source_guide": guide[0], "target_guide": guide[1]}


def value_and_gradients(loss: keras.losses.Loss, batch: Sides, known: dict) -> tuple:
    sides = tuple(map(tf.constant, batch))
    with tf.GradientTape() as tape:
        tape.watch(sides)
        value = loss(*sides, **known)
    return value, *tape.gradient(value, sides)


def test_the_fixture_has_both_kinds_of_negatives(guide: Sides) -> None:
    shares = [ignored(guide, *margin).mean() for margin in MARGINS]
    assert all(0.05 < share < 0.8 for share in shares), shares
    assert len(set(shares)) == len(shares)
    assert ((guide[0] * guide[1]).sum(axis=1) < 0).any()


@pytest.mark.parametrize("block_size", [None, 2, 4, 100])
@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("bidirectional", [True, False])
def test_value_and_gradients_equal_numpy(
    batch: Sides,
    guide: Sides,
    margin: tuple[float, str],
    bidirectional: bool,
    block_size: int | None,
) -> None:
    settings = {
        "margin": 0.3,
        "scale": 7.0,
        "bidirectional": bidirectional,
        "guide_margin": margin[0],
        "guide_margin_strategy": margin[1],
    }
    loss = AdditiveMarginSoftmax(**settings, block_size=block_size)
    copies = {"source_ids": ids(0, 1, 2, 0, 4, 5, 6), "target_ids": ids(*range(7))}
    for known in ({}, copies):
        settings["guide"] = guide
        expected = reference.additive_margin_softmax(*batch, **settings, **known)
        slopes = reference.additive_margin_softmax_gradients(
            *batch, **settings, **known
        )
        value, *found = value_and_gradients(loss, batch, of_sides(guide) | known)
        assert float(value) == pytest.approx(expected, abs=1e-6, rel=1e-6)
        for ours, numpy in zip(found, slopes, strict=True):
            np.testing.assert_allclose(ours, numpy, atol=2e-6, rtol=5e-6)
        # Without the guide the loss is another one.
        assert abs(float(loss(*batch, **known)) - expected) > 1e-3


def test_a_guide_that_ignores_all_or_nothing(batch: Sides) -> None:
    plain = float(AdditiveMarginSoftmax()(*batch))
    same = np.ones((7, 1), np.float32)  # Every cosine is 1.
    known = {"source_guide": same, "target_guide": same}
    # A negative that is as near as the pair itself is kept.
    assert float(AdditiveMarginSoftmax()(*batch, **known)) == plain
    wide = AdditiveMarginSoftmax(guide_margin=0.1)
    assert float(wide(*batch, **known)) == pytest.approx(0, abs=1e-6)


def test_no_gradient_flows_to_the_guide(batch: Sides, guide: Sides) -> None:
    for block_size in (None, 3):
        loss = AdditiveMarginSoftmax(block_size=block_size, guide_margin=0.1)
        sides = tuple(map(tf.constant, guide))
        with tf.GradientTape() as tape:
            tape.watch(sides)
            value = loss(*batch, source_guide=sides[0], target_guide=sides[1])
        assert tape.gradient(value, sides) == (None, None)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("static", [True, False])
def test_blocks_equal_the_whole_in_a_graph(jit_compile: bool, static: bool) -> None:
    count = 300
    batch, guide = near_pairs(count, 16, 1.1, 0), near_pairs(count, 8, 0.8, 1)
    assert 0.01 < ignored(guide, 0.1, "absolute").mean() < 0.9
    known = of_sides(guide) | {
        "source_ids": ids(*(row % 200 for row in range(count))),
        "target_ids": ids(*range(count)),
    }
    tensors = [tf.constant(x) for x in (*batch, *known.values())]
    signature = [
        tf.TensorSpec((count if static else None, x.shape[1]), x.dtype) for x in tensors
    ]

    def run(block_size: int | None) -> tuple:
        loss = AdditiveMarginSoftmax(block_size=block_size, guide_margin=0.1)

        @tf.function(input_signature=signature, jit_compile=jit_compile)
        def step(source, target, *others):
            with tf.GradientTape() as tape:
                tape.watch((source, target))
                value = loss(source, target, **dict(zip(known, others, strict=True)))
            return (value, *tape.gradient(value, (source, target)))

        return step(*tensors)

    value, *found = run(64)
    whole, *wanted = run(None)
    assert float(value) == pytest.approx(float(whole), rel=1e-5)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(count * ours, count * theirs, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("block_size", [None, 3])
def test_nested_sizes_share_the_guide(
    batch: Sides, guide: Sides, block_size: int | None
) -> None:
    loss = AdditiveMarginSoftmax(0.2, 5.0, block_size=block_size, guide_margin=0.1)
    nested = MatryoshkaLoss(loss, dims=(2, 3))
    expected = sum(
        reference.additive_margin_softmax(
            *(unit(side[:, :dim]) for side in batch),
            margin=0.2,
            scale=5.0,
            guide=guide,
            guide_margin=0.1,
        )
        for dim in (2, 3, 5)
    )
    assert float(nested(*batch, **of_sides(guide))) == pytest.approx(expected, rel=1e-5)


def test_bad_arguments_are_named(batch: Sides, guide: Sides) -> None:
    loss = AdditiveMarginSoftmax()
    for value in (float("nan"), float("inf")):
        with raises(ValueError, argument="guide_margin", received=value):
            AdditiveMarginSoftmax(guide_margin=value)
    with raises(ValueError, argument="guide_margin_strategy", received="'both'"):
        AdditiveMarginSoftmax(guide_margin_strategy="both")
    for side in ("source_guide", "target_guide"):
        with raises(ValueError, argument=side, received=True):
            loss(*batch, **{side: guide[0]})
    for wrong in (guide[1][:4], guide[1][:, :2], guide[1][0]):
        with raises(ValueError, argument="target_guide", received=str(wrong.shape)):
            loss(*batch, source_guide=guide[0], target_guide=wrong)


def test_config_round_trip() -> None:
    loss = AdditiveMarginSoftmax(guide_margin=0.1, guide_margin_strategy="relative")
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(loss)
    )
    assert (again.guide_margin, again.guide_margin_strategy) == (0.1, "relative")


# === Training ===


@pytest.mark.parametrize(
    "settings",
    [{"chunk_size": 5}, {"chunk_size": 4, "length_groups": 3}, {"length_groups": 4}],
    ids=str,
)
def test_chunks_and_groups_train_as_the_whole_batch(settings: dict) -> None:
    data = pairs(make_model(), 3, batch=16)
    guide = near_pairs(48, 4, 1.0, 5)
    taught = tf.data.Dataset.from_tensor_slices(
        {"source": guide[0], "target": guide[1]}
    ).batch(16)
    found = []
    for more, block_size in (({}, None), (settings, 6), ({}, "unguided")):
        keras.utils.set_random_seed(0)
        dual = DualEncoder(make_model(dropout=0.0), **more)
        guided = block_size != "unguided"
        loss = AdditiveMarginSoftmax(block_size=block_size if guided else None)
        dual.compile(keras.optimizers.SGD(0.5), loss)
        examples = tf.data.Dataset.zip(data, taught) if guided else data
        history = dual.fit(examples, verbose=0, shuffle=False).history
        found.append((history["loss"][0], dual.get_weights()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for one, two in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
    assert abs(found[0][0] - found[2][0]) > 1e-2


REPLICAS = """
    import json, sys
    settings = json.loads(sys.argv[1])
    import keras
    import numpy as np
    import tensorflow as tf
    from labse_tf import distribute, losses, models

    strategy = distribute.get_strategy(settings["strategy"])
    BATCH, STEPS = 16, 4
    rng = np.random.default_rng(5)

    def side(length):
        ids = rng.integers(5, 60, size=(BATCH * STEPS, length)).astype("int32")
        return {
            "token_ids": ids,
            "segment_ids": np.zeros_like(ids),
            "padding_mask": np.ones_like(ids),
        }

    def unit(rows):
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("float32")

    features = {"source": side(7), "target": side(9)}
    x = rng.normal(size=(BATCH * STEPS, 4))
    guide = {"source": unit(x), "target": unit(x + 0.7 * rng.normal(size=x.shape))}
    # Negatives that another replica has: row 0 is on the first, row 12 on the last.
    guide["target"][12::BATCH] = guide["source"][0::BATCH]
    guide["source"][13::BATCH] = guide["target"][1::BATCH]
    dataset = tf.data.Dataset.from_tensor_slices((features, guide))
    dataset = dataset.batch(BATCH, drop_remainder=True)

    keras.utils.set_random_seed(3)
    with strategy.scope():
        backbone = models.LaBSEBackbone(60, 1, 2, 16, 32, dropout=0.0)
        encoder = models.LaBSE(backbone, pooling="mean")
        dual = models.DualEncoder(encoder, settings.get("chunk"))
        loss = losses.AdditiveMarginSoftmax(
            0.3, 10.0, block_size=settings.get("block"), guide_margin=0.05,
            cross_replica=settings.get("cross", True),
        )
        if settings.get("dims"):
            loss = losses.MatryoshkaLoss(loss, settings["dims"])
        dual.compile(keras.optimizers.SGD(0.1), loss)
    history = dual.fit(dataset, shuffle=False, verbose=0).history
    np.savez(sys.argv[2], *[np.asarray(w) for w in encoder.trainable_weights])
    print(json.dumps({"loss": history["loss"][0]}))
"""


def replicas(run_python, folder: Path, **settings: object) -> tuple[float, np.ndarray]:
    path = folder / "weights.npz"
    told = run_python(REPLICAS, json.dumps(settings), path, timeout=600)
    with np.load(path) as weights:
        flat = np.concatenate([weights[name].ravel() for name in weights.files])
    return json.loads(told.splitlines()[-1])["loss"], flat


@pytest.mark.parametrize(
    "settings",
    [{"chunk": 3, "block": 5}, {"dims": [4, 8]}],
    ids=lambda settings: "-".join(settings),
)
def test_replicas_train_as_one_device(run_python, tmp_path, settings) -> None:
    dims = {"dims": settings["dims"]} if "dims" in settings else {}
    one = replicas(run_python, tmp_path, strategy="one_device", **dims)
    two = replicas(run_python, tmp_path, strategy="cpu:2", **settings)
    assert two[0] == pytest.approx(one[0], rel=1e-5)
    np.testing.assert_allclose(two[1], one[1], atol=1e-5)
    if not dims:
        # The guide of each replica alone trains something else.
        own = replicas(run_python, tmp_path, strategy="cpu:2", cross=False)
        assert np.abs(own[1] - one[1]).max() > 1e-3
