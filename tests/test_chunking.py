"""Gradient caching: a batch in chunks is the batch at once, in all but memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers.errors import raises
from helpers.models import make_model, pairs
from labse_tf.losses import AdditiveMarginSoftmax
from labse_tf.models import DualEncoder
from labse_tf.models import gradient_caching as chunking
from labse_tf.models.gradient_caching import (
    Chunks,
    chunk_gradients,
    encode_chunks,
    random_states,
)
from labse_tf.optimizers import adamw
from labse_tf.recipes import get_recipe


def make_dual(
    model=None, chunk_size=None, groups=1, optimizer="sgd", block_size=None, **settings
):
    model = model or make_model(dropout=0.0)
    dual = DualEncoder(model, chunk_size, length_groups=groups)
    loss = AdditiveMarginSoftmax(block_size=block_size)
    dual.compile(optimizer, loss, **settings)
    return dual


def at_once(dual: DualEncoder, batch):
    """Loss, vectors and gradients of a tape over everything."""
    with tf.GradientTape() as tape:
        vectors = dual(batch, training=True)
        loss = dual.compute_loss(x=batch, y_pred=vectors)
    return loss, vectors, tape.gradient(loss, dual.trainable_variables)


def cached(dual: DualEncoder, batch):
    """The same by gradient caching, as `train_step` does it."""

    def encode(features):
        return dual.encoder(features, training=True)

    chunks = Chunks(batch, dual.chunk_size, dual.length_groups > 1)
    states = random_states(dual.encoder)
    vectors, before = encode_chunks(encode, chunks, states)
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        loss = dual.compute_loss(x=batch, y_pred=vectors)
    return (
        loss,
        vectors,
        chunk_gradients(
            encode,
            chunks,
            tape.gradient(loss, vectors),
            dual.trainable_variables,
            states,
            before,
        ),
    )


def check_equal(ours, theirs) -> None:
    assert float(ours[0]) == pytest.approx(float(theirs[0]), rel=1e-5)
    for side in ("source", "target"):
        np.testing.assert_allclose(ours[1][side], theirs[1][side], atol=1e-6)
    for one, other in zip(ours[2], theirs[2], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            one, other = tf.convert_to_tensor(one), tf.convert_to_tensor(other)
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "groups", "graph"),
    [(8, 1, True), (12, 8, True), (31, 1, False), (12, 1, False), (12, 8, False)],
)
def test_gradients_are_those_of_the_whole_batch(size, groups, graph) -> None:
    batch = next(iter(pairs(make_model(), 1, batch=32)))
    model = make_model("weighted_mean", dropout=0.0)
    wanted = at_once(make_dual(model), batch)
    dual = make_dual(model, size, groups)
    run = tf.function(cached) if graph else cached
    check_equal(run(dual, batch), wanted)


@pytest.mark.parametrize("pooling", ["pooler", "cls", "mean"])
def test_every_pooling(pooling) -> None:
    batch = next(iter(pairs(make_model(), 1, batch=16)))
    model = make_model(pooling, dropout=0.0)
    ours = cached(make_dual(model, 5), batch)
    check_equal(ours, at_once(make_dual(model), batch))


def test_a_batch_whose_size_is_not_known_when_it_is_traced() -> None:
    model = make_model(dropout=0.0)
    whole, chunked = make_dual(model), make_dual(model, 5)
    features = {
        name: tf.TensorSpec((None, None), tf.int32)
        for name in ("token_ids", "segment_ids", "padding_mask")
    }
    run = tf.function(
        lambda batch: cached(chunked, batch),
        input_signature=[{"source": features, "target": features}],
    )
    # Less than a chunk, some chunks, a rest.
    for size in (3, 10, 13):
        batch = next(iter(pairs(model, 1, batch=size)))
        check_equal(run(batch), at_once(whole, batch))


@pytest.mark.parametrize(("groups", "graph"), [(1, False), (1, True), (4, True)])
def test_dropout_is_the_same_in_both_passes(groups, graph) -> None:
    batch = next(iter(pairs(make_model(), 1, batch=16)))
    dual = make_dual(make_model("mean", dropout=0.3), 4, groups)
    states = random_states(dual.encoder)
    assert states
    start = [state.numpy() for state in states]
    run = tf.function(cached) if graph else cached
    ours = run(dual, batch)
    end = [state.numpy() for state in states]
    # A tape over the loop of chunks, from the same seeds: what caching stands for.
    for state, value in zip(states, start, strict=True):
        state.assign(value)
    check_equal(ours, at_once(dual, batch))
    for state, value, before in zip(states, end, start, strict=True):
        np.testing.assert_array_equal(state.numpy(), value)
        assert (value != before).any()
    # And the next batch has other masks.
    other = run(dual, batch)
    assert abs(float(other[0]) - float(ours[0])) > 1e-4


def test_sparse_gradients_stay_sparse_with_each_row_once() -> None:
    batch = next(iter(pairs(make_model(), 1, batch=32)))
    dual = make_dual(make_model(dropout=0.0), 4)
    _, _, grads = tf.function(cached)(dual, batch)
    sparse = {
        variable.path: gradient
        for variable, gradient in zip(dual.trainable_variables, grads, strict=True)
        if isinstance(gradient, tf.IndexedSlices)
    }
    (path,) = [path for path in sparse if "token_embedding" in path]
    rows = sparse[path].indices.numpy()
    assert len(set(rows.tolist())) == len(rows)
    used = np.unique(np.concatenate([batch[side]["token_ids"] for side in batch], None))
    assert set(rows.tolist()) == set(used.tolist())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "chunks"),
    [
        ("adamw", {"chunk_size": 3, "block_size": 5}),
        ("lazy", {"chunk_size": 8, "groups": 2}),
    ],
)
def test_fit_in_chunks_is_fit(optimizer, chunks) -> None:
    histories, weights = [], []
    for settings in ({}, chunks):
        keras.utils.set_random_seed(0)
        rule = adamw(3e-3, lazy=optimizer == "lazy")
        dual = make_dual(optimizer=rule, **settings)
        data = pairs(dual.encoder, 12)
        history = dual.fit(data, epochs=2, shuffle=False, verbose=0).history
        histories.append(history | {"seen": dual.evaluate(data, verbose=0)})
        weights.append([np.asarray(w) for w in dual.trainable_weights])
    whole, chunked = histories
    assert set(whole) == set(chunked)
    for name in whole:
        np.testing.assert_allclose(chunked[name], whole[name], rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(weights[1], weights[0], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_a_batch_of_one_chunk_is_encoded_once(monkeypatch) -> None:
    def never(*args, **kwargs):
        raise AssertionError("encoded in chunks")

    monkeypatch.setattr("labse_tf.models.dual_encoder.encode_chunks", never)
    dual = make_dual(chunk_size=16)
    batch = next(iter(pairs(dual.encoder, 1, batch=16)))
    dual.train_on_batch(batch)
    with pytest.raises(AssertionError, match="encoded in chunks"):
        make_dual(chunk_size=15).train_on_batch(batch)


@pytest.mark.slow
def test_xla_compiles_a_step_of_whole_chunks() -> None:
    batch = next(iter(pairs(make_model(), 1, batch=16)))
    weights = []
    for settings in ({"jit_compile": True, "block_size": 5}, {"jit_compile": False}):
        keras.utils.set_random_seed(0)
        dual = make_dual(chunk_size=4, optimizer=adamw(1e-3), **settings)
        assert dual.pair_metrics[0].block_size == settings.get("block_size")
        losses = [dual.train_on_batch(batch)[0] for _ in range(3)]
        weights.append([losses, *(np.asarray(w) for w in dual.trainable_weights)])
    for compiled, plain in zip(*weights, strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=1e-3, atol=1e-4)


def test_chunks_are_kept_by_saving_and_growing(tmp_path: Path) -> None:
    from labse_tf.pretraining import grow

    dual = make_dual(make_model(num_layers=1), 4, 2)
    dual.optimizer.build(dual.trainable_variables)
    deeper = grow(dual, 2)
    assert (deeper.chunk_size, deeper.length_groups) == (4, 2)
    dual.save(tmp_path / "dual.keras")
    loaded = keras.saving.load_model(tmp_path / "dual.keras")
    assert (loaded.chunk_size, loaded.length_groups) == (4, 2)


def test_bad_chunk_sizes_are_named(monkeypatch) -> None:
    model = make_model()
    with raises(ValueError, argument="chunk_size", received=0):
        DualEncoder(model, 0)
    with raises(ValueError, argument="chunk_size", received="-1"):
        dataclasses.replace(get_recipe("small"), chunk_size=-1).check()
    with raises(ValueError, argument="loss_block_size", received=0):
        get_recipe("small", loss_block_size=0)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with raises(ValueError, "TensorFlow", received="chunk_size=2"):
        DualEncoder(model, 2)


def test_the_parts_do_not_stand_in_for_each_other(monkeypatch) -> None:
    """The checks above fail where a pass forgets something."""
    batch = next(iter(pairs(make_model(), 1, batch=16)))
    dual = make_dual(make_model("mean", dropout=0.3), 4)
    states = random_states(dual.encoder)
    start = [state.numpy() for state in states]
    monkeypatch.setattr(chunking, "_added", lambda total, more: total)
    forgetful = cached(dual, batch)
    monkeypatch.undo()
    for state, value in zip(states, start, strict=True):
        state.assign(value)
    with pytest.raises(AssertionError):
        check_equal(forgetful, at_once(dual, batch))
