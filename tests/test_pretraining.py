"""Masked language models; stacking: what comes from where, moments, growth."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers.errors import raises
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.models.masked_lm import MaskedLM
from labse_tf.optimizers import WarmupLinearDecay, adamw
from labse_tf.preprocessing import MaskedLMPreprocessor
from labse_tf.pretraining import stack, stack_moments
from labse_tf.tokenizers import WordPieceTokenizer

SIZE = {"num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32}


def backbone(num_layers: int, seed: int = 0, **changes: object) -> LaBSEBackbone:
    """Every weight random and different, biases and norms too."""
    model = LaBSEBackbone(40, num_layers, **SIZE, **changes)
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.normal(0.5, 0.5, size=weight.shape))
    return model


def batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    mask = np.arange(9) < np.array([[9], [5], [2]])
    return {
        "token_ids": (rng.integers(1, 40, (3, 9)) * mask).astype(np.int32),
        "segment_ids": np.zeros((3, 9), np.int32),
        "padding_mask": mask.astype(np.int32),
    }


@pytest.mark.parametrize(("layers", "target"), [(1, 3), (3, 6), (2, 6), (3, 3)])
def test_blocks_are_copied_in_turn_and_the_rest_as_it_is(layers, target) -> None:
    old = backbone(layers)
    before = {w.path: w.numpy() for w in old.weights}
    new = stack(old, target)
    assert new.num_layers == target
    assert new is not old
    seen = set()
    for weight in new.weights:
        path = weight.path
        if path.startswith("transformer_layer_"):
            index, rest = path.removeprefix("transformer_layer_").split("/", 1)
            seen.add(int(index))
            path = f"transformer_layer_{int(index) % layers}/{rest}"
        np.testing.assert_array_equal(weight.numpy(), before[path], err_msg=path)
    assert seen == set(range(target))
    # The old one is untouched, and shares nothing with the new one.
    new.weights[0].assign(new.weights[0] * 0)
    for weight in old.weights:
        np.testing.assert_array_equal(weight.numpy(), before[weight.path])


def test_blocks_of_a_deep_model_with_two_digits() -> None:
    old = backbone(11)
    new = {w.path: w.numpy() for w in stack(old, 22).weights}
    name = "feedforward_output_dense/kernel"
    for target, source in ((10, 10), (11, 0), (12, 1), (21, 10)):
        np.testing.assert_array_equal(
            new[f"transformer_layer_{target}/{name}"],
            {w.path: w.numpy() for w in old.weights}[
                f"transformer_layer_{source}/{name}"
            ],
        )


@pytest.mark.parametrize(("layers", "target"), [(2, 3), (4, 2), (3, 0)])
def test_depths_that_do_not_fit_are_refused(layers, target) -> None:
    with raises(ValueError, layers, argument="num_layers", received=target):
        stack(backbone(layers), target)


@pytest.mark.parametrize("target", [1, 2, 4])
def test_growing_from_zero_layers_keeps_the_function(target) -> None:
    """With any scale and shift of the embedding norm, not only 1 and 0."""
    old = backbone(0)
    new = stack(old, target)
    one, two = (m(batch()) for m in (old, new))
    real = batch()["padding_mask"].astype(bool)
    np.testing.assert_allclose(
        two["sequence_output"].numpy()[real],
        one["sequence_output"].numpy()[real],
        atol=1e-5,
    )
    np.testing.assert_allclose(two["pooled_output"], one["pooled_output"], atol=1e-5)
    sentence = [LaBSE(m, pooling="mean")(batch()).numpy() for m in (old, new)]
    np.testing.assert_allclose(*sentence, atol=1e-5)


def test_grown_blocks_learn() -> None:
    """Zero projections get gradients, and in the next step the rest does too."""
    new = stack(backbone(0, dropout=0.0), 2)
    optimizer = keras.optimizers.SGD(0.1)
    target = tf.random.normal((3, 9, 16))
    before = [w.numpy() for w in new.trainable_weights]
    for _ in range(2):
        with tf.GradientTape() as tape:
            output = new(batch())["sequence_output"]
            loss = tf.reduce_mean(tf.square(output - target))
        optimizer.apply(
            tape.gradient(loss, new.trainable_weights), new.trainable_weights
        )
    still = [
        w.path
        for w, b in zip(new.trainable_weights, before, strict=True)
        if np.array_equal(w.numpy(), b)
    ]
    # A key's bias adds the same to all scores of a query: the softmax ignores it.
    assert all("key/bias" in p or p.startswith("pooler") for p in still), still


def test_dtype_and_settings_go_along() -> None:
    old = backbone(1, activation="gelu_approximate", dropout=0.3, dtype="bfloat16")
    new = stack(old, 2)
    assert new.compute_dtype == "bfloat16"
    assert (new.activation, new.dropout) == ("gelu_approximate", 0.3)


def test_moments_follow_their_weights() -> None:
    old, layers = backbone(2), 2
    new = stack(old, 4)
    optimizers = []
    for model in (old, new):
        optimizer = adamw(0.01, weight_decay=0.1)
        optimizer.build(model.trainable_variables)
        optimizers.append(optimizer)
    rng = np.random.default_rng(0)
    optimizers[0].iterations.assign(17)
    slots = {}
    for variable in optimizers[0].variables[2:]:
        variable.assign(rng.normal(size=variable.shape))
        slots[variable.path.split("/")[1]] = variable.numpy()
    stack_moments(
        optimizers[0],
        old.trainable_variables,
        optimizers[1],
        new.trainable_variables,
        layers,
    )
    assert int(optimizers[1].iterations) == 17
    for variable in optimizers[1].variables[2:]:
        path = variable.path.split("/")[1]  # without the optimiser's own name
        for target, source in ((2, 0), (3, 1)):
            path = path.replace(
                f"transformer_layer_{target}_", f"transformer_layer_{source}_"
            )
        np.testing.assert_array_equal(variable.numpy(), slots[path], err_msg=path)


def test_moments_of_grown_blocks_start_at_zero() -> None:
    old = backbone(0)
    new = stack(old, 2)
    first, second = (adamw(0.01) for _ in range(2))
    for optimizer, model in ((first, old), (second, new)):
        optimizer.build(model.trainable_variables)
    for variable in first.variables[2:]:
        variable.assign(np.ones(variable.shape))
    stack_moments(first, old.trainable_variables, second, new.trainable_variables, 0)
    for variable in second.variables[2:]:
        expected = 0.0 if "transformer_layer" in variable.path else 1.0
        np.testing.assert_array_equal(variable.numpy(), expected)
    with raises(ValueError, "AdamW", "SGD", received=True):
        stack_moments(first, [], keras.optimizers.SGD(), [], 0)


# === The masked language model ===

WORDS = "sun moon star sky day night good bad old new hill sea".split()
OTHER = [word[::-1].upper() for word in WORDS]
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *OTHER]


def masked_lm(num_layers: int = 1, **changes: object) -> MaskedLM:
    size = {"num_heads": 4, "hidden_dim": 32, "intermediate_dim": 64}
    model = LaBSEBackbone(len(TOKENS), num_layers, **size, dropout=0.0, **changes)
    return MaskedLM(model, chunk_size=10)


def masker(**changes: object) -> MaskedLMPreprocessor:
    tokenizer = WordPieceTokenizer(TOKENS)
    settings = {"packed": False, "max_predictions": 8} | changes
    return MaskedLMPreprocessor(tokenizer, 24, **settings)


def rows(count: int, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Random words (nothing to guess from a neighbour) and their translations."""
    numbers = [rng.integers(0, len(WORDS), 5) for _ in range(count)]
    return tuple(
        [" ".join(words[i] for i in row) for row in numbers] for words in (WORDS, OTHER)
    )


def pair_batches(steps: int, preprocessor: MaskedLMPreprocessor) -> tf.data.Dataset:
    features = preprocessor(rows(32 * steps, np.random.default_rng(3)), (0, 0))
    return tf.data.Dataset.from_tensor_slices(features).batch(32, drop_remainder=True)


def test_loss_and_metrics_are_those_of_the_full_softmax() -> None:
    model = masked_lm()
    rng = np.random.default_rng(0)
    source, target = rows(6, rng)
    preprocessor = masker()
    sentences = preprocessor(source[:3], (0, 1))
    pairs = preprocessor((source[3:], target[3:]), (0, 2))
    width = max(f["token_ids"].shape[1] for f in (sentences, pairs))

    def padded(name: str, value: tf.Tensor) -> np.ndarray:
        value = value.numpy()
        if not name.startswith("mask_"):
            value = np.pad(value, ((0, 0), (0, width - value.shape[1])))
        return value

    features = {
        name: np.concatenate([padded(name, f[name]) for f in (sentences, pairs)])
        for name in sentences
    }
    model.compile("sgd")
    found = model.test_on_batch(features, return_dict=True)

    states = model.backbone(features)["sequence_output"]
    logits = model.head.logits(
        states, features["mask_positions"], model.backbone.token_embedding.embeddings
    ).numpy()
    log_softmax = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    ids, weights = features["mask_ids"], features["mask_weights"]
    losses = -np.take_along_axis(log_softmax, ids[:, :, None], axis=2)[:, :, 0]
    hits = (logits.argmax(-1) == ids).astype(float)
    for task, part in (("mlm", slice(0, 3)), ("tlm", slice(3, 6))):
        total = weights[part].sum()
        assert total > 0
        expected = (losses[part] * weights[part]).sum() / total
        assert found[f"{task}_loss"] == pytest.approx(expected, abs=1e-5)
        accuracy = (hits[part] * weights[part]).sum() / total
        assert found[f"{task}_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    expected = (losses * weights).sum() / weights.sum()
    assert found["loss"] == pytest.approx(expected, abs=1e-5)


def test_the_pooler_is_not_trained_and_stays_trainable() -> None:
    model = masked_lm()
    paths = {w.path for w in model.trainable_variables}
    assert not any(path.startswith("pooler") for path in paths)
    assert len(paths) == len(model.weights) - 2
    assert model.backbone.pooler.trainable


def test_a_new_model_knows_how_often_tokens_occur() -> None:
    """Its first loss is the entropy of the frequencies, not log V."""
    rng = np.random.default_rng(0)
    frequent = [" ".join(rng.choice(WORDS[:2], 6)) for _ in range(60)]
    rare = [" ".join(rng.choice(WORDS, 6)) for _ in range(20)]
    features = masker()(frequent + rare, (0, 0))
    batches = tf.data.Dataset.from_tensor_slices(features).batch(20)
    model = masked_lm()
    model.start_from_frequencies(batches)
    labels = features["mask_ids"].numpy()[features["mask_weights"].numpy() > 0]
    counts = [1 + (labels == i).sum() for i in range(len(TOKENS))]
    np.testing.assert_allclose(
        model.head.output_bias, np.log(counts) - np.log(np.sum(counts)), atol=1e-6
    )
    # States that say nothing leave the bias alone.
    model.backbone.token_embedding.embeddings.assign(np.zeros((len(TOKENS), 32)))
    model.compile("sgd")
    loss = model.test_on_batch(features, return_dict=True)["loss"]
    shares = np.bincount(labels, minlength=len(TOKENS)) / len(labels)
    expected = -(shares * np.log(np.array(counts) / np.sum(counts))).sum()
    assert loss == pytest.approx(expected, abs=1e-5)
    assert loss < np.log(len(TOKENS)) - 0.5


@pytest.mark.slow
def test_losses_fall_and_the_translation_helps() -> None:
    """What TLM is for: a masked word is read off from the other language.

    The same model on the same masked words, with the translation beside them and
    with that of another sentence.
    """
    model = masked_lm(2)
    model.compile(adamw(WarmupLinearDecay(5e-3, 300, warmup_steps=20)))
    preprocessor = masker(mask_rate=0.3)
    history = model.fit(
        pair_batches(300, preprocessor), epochs=1, shuffle=False, verbose=0
    ).history
    after = model.evaluate(pair_batches(4, preprocessor), verbose=0, return_dict=True)
    rng = np.random.default_rng(99)
    source, target = rows(128, rng)
    right = model.test_on_batch(
        preprocessor((source, target), (7, 7)), return_dict=True
    )
    wrong = model.test_on_batch(
        preprocessor((source, target[1:] + target[:1]), (7, 7)), return_dict=True
    )
    # Without the translation there are twelve words to guess from.
    assert after["tlm_loss"] < np.log(len(WORDS)) - 0.3
    assert history["tlm_loss"][0] > after["tlm_loss"]
    assert right["tlm_accuracy"] > wrong["tlm_accuracy"] + 0.2


def test_a_stage_hands_its_head_and_embeddings_on() -> None:
    model = masked_lm(1)
    deeper = MaskedLM(stack(model.backbone, 2), model.head)
    assert deeper.head is model.head
    before = {w.path: w.numpy() for w in model.weights}
    for weight in deeper.weights:
        if not weight.path.startswith("transformer_layer_1"):
            np.testing.assert_array_equal(weight.numpy(), before[weight.path])


def test_the_step_compiles_with_xla() -> None:
    """Static shapes, no strings, no callbacks: what a TPU asks for."""
    model = masked_lm(1)
    preprocessor = masker(packed=True)
    source, target = rows(6, np.random.default_rng(0))
    features = preprocessor((source, target), (0, 0), num_rows=8)
    assert "position_ids" in features
    eager = masked_lm(1)
    eager.set_weights(model.get_weights())
    model.compile(keras.optimizers.SGD(0.1), jit_compile=True)
    eager.compile(keras.optimizers.SGD(0.1))
    results = [m.train_on_batch(features, return_dict=True) for m in (model, eager)]
    assert results[0]["loss"] == pytest.approx(results[1]["loss"], rel=1e-5)
    for one, two in zip(model.weights, eager.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), two.numpy(), atol=1e-5)


def test_masked_lm_saves(tmp_path) -> None:
    model = masked_lm(1)
    features = masker()(rows(4, np.random.default_rng(0))[0], (0, 0))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(features)["loss"], model(features)["loss"])
