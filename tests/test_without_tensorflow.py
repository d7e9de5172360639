"""The core on JAX, with TensorFlow not to be had: imports, presets, training."""

from __future__ import annotations

import json
from importlib.metadata import version

import numpy as np
import pytest

from helpers.models import make_model, sentences

pytest.importorskip("jax", reason="the extra `parity` is not installed")

# Before 0.32, `import keras_hub` imports TensorFlow in its Gemma and Qwen models.
KERAS_HUB = tuple(int(n) for n in version("keras-hub").split(".")[:2])

FREE = (
    "adapters recipes presets blockwise cpu_kernels duplicates languages precision "
    "text layers models losses metrics optimizers mining evaluation pretraining "
    "alignment"
).split()

CODE = """
    import importlib, json, sys
    for name in ("tensorflow", "tensorflow_text", "tensorflow_hub", "tf_keras"):
        sys.modules[name] = None
    import numpy as np
    for name in json.loads(sys.argv[3]):
        importlib.import_module("labse_tf." + name)
    import keras
    assert keras.backend.backend() == "jax"
    import labse_tf
    from labse_tf.losses import AdditiveMarginSoftmax
    from labse_tf.optimizers import WarmupLinearDecay, adamw

    model = labse_tf.LaBSE.from_preset(sys.argv[1], preprocessor=None)
    with np.load(sys.argv[2]) as arrays:
        features = dict(arrays)
    vectors = np.asarray(model(features))

    rng = np.random.default_rng(0)
    count, length = 256, 8
    ids = rng.integers(5, 11, size=(count, length)).astype("int32")

    def side(ids):
        return {
            "token_ids": ids,
            "segment_ids": np.zeros_like(ids),
            "padding_mask": np.ones_like(ids),
        }

    # The translation of token i is token i + 6.
    pairs = {"source": side(ids), "target": side(ids[:, ::-1] + 6)}
    dual = labse_tf.DualEncoder(model)
    schedule = WarmupLinearDecay(5e-3, 200, warmup_steps=8)
    loss = AdditiveMarginSoftmax(block_size=12)
    dual.compile(adamw(schedule, weight_decay=0.01), loss)
    history = dual.fit(pairs, batch_size=32, epochs=8, verbose=0).history
    from labse_tf.pretraining import grow

    deeper = grow(dual, 4)
    more = deeper.fit(pairs, batch_size=32, epochs=1, verbose=0).history
    print(json.dumps({
        "vectors": vectors.tolist(),
        "history": history,
        "layers": deeper.encoder.backbone.num_layers,
        "steps": int(deeper.optimizer.iterations),
        "more": more["loss"][0],
    }))
"""


@pytest.mark.parity
@pytest.mark.skipif(
    KERAS_HUB < (0, 32),
    reason="KerasHub before 0.32 does not import without TensorFlow",
)
def test_core_on_jax(run_python, tmp_path) -> None:
    model = make_model("mean", dropout=0.1)
    model.save_to_preset(tmp_path / "preset")
    features = {k: v.numpy() for k, v in model.preprocessor(sentences(6)).items()}
    np.savez(tmp_path / "features.npz", **features)
    printed = run_python(
        CODE,
        tmp_path / "preset",
        tmp_path / "features.npz",
        json.dumps(FREE),
        env={"KERAS_BACKEND": "jax"},
        timeout=300,
    )
    result = json.loads(printed.splitlines()[-1])
    np.testing.assert_allclose(result["vectors"], model(features), atol=1e-5)
    losses = result["history"]["loss"]
    assert losses[-1] < losses[0] - 1
    accuracy = result["history"]["ranking_accuracy"]
    assert accuracy[-1] > accuracy[0]
    # Stacked from two layers to four, with the optimiser's steps.
    assert (result["layers"], result["steps"]) == (4, 9 * 8)
    assert result["more"] < losses[0]


@pytest.mark.parity
def test_loss_and_fingerprints_are_those_of_tensorflow(run_python, tmp_path) -> None:
    from helpers import reference

    code = """
        import json, sys
        sys.modules["tensorflow"] = None
        import jax
        import numpy as np
        from labse_tf.duplicates import sentence_fingerprints
        from labse_tf.losses import AdditiveMarginSoftmax
        with np.load(sys.argv[1]) as a:
            ids = [
                np.asarray(sentence_fingerprints(a[k], np.ones_like(a[k])))
                for k in ("source_tokens", "target_tokens")
            ]
            sides = a["source"], a["target"]
        results = []
        for block_size in (None, 5):
            loss = AdditiveMarginSoftmax(0.3, 10.0, block_size=block_size)
            run = jax.jit(jax.value_and_grad(
                lambda s, t, *ids: loss(s, t, source_ids=ids[0], target_ids=ids[1]),
                argnums=(0, 1),
            ))
            value, gradients = run(*sides, *ids)
            results.append([float(value), *(g.tolist() for g in gradients)])
        # One matrix of the batch's square would be 268 MB.
        shapes = [jax.ShapeDtypeStruct((8192, 8), "float32")] * 2
        shapes += [jax.ShapeDtypeStruct((8192, 2), "int32")] * 2
        memory = run.lower(*shapes).compile().memory_analysis().temp_size_in_bytes
        print(json.dumps([results, memory, [i.tolist() for i in ids]]))
    """
    from labse_tf.duplicates import sentence_fingerprints
    from labse_tf.losses import AdditiveMarginSoftmax

    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 500_000, size=(2, 12, 9)).astype(np.int32)
    tokens[0, 3] = tokens[0, 7]
    source, target = (reference.unit_rows(rng, 12, 8) for _ in range(2))
    np.savez(
        tmp_path / "a.npz",
        source=source,
        target=target,
        source_tokens=tokens[0],
        target_tokens=tokens[1],
    )
    printed = run_python(code, tmp_path / "a.npz", env={"KERAS_BACKEND": "jax"})
    results, memory, ids = json.loads(printed.splitlines()[-1])
    ours = [np.asarray(sentence_fingerprints(t, np.ones_like(t))) for t in tokens]
    np.testing.assert_array_equal(ids, ours)
    loss = AdditiveMarginSoftmax(0.3, 10.0)
    expected = float(loss(source, target, source_ids=ours[0], target_ids=ours[1]))
    for value, *_ in results:
        assert value == pytest.approx(expected, abs=1e-5)
    for plain, blocks in zip(*(result[1:] for result in results), strict=True):
        np.testing.assert_allclose(blocks, plain, atol=1e-6)
    assert memory < 20e6
