"""BERT at random weights that ours and Hugging Face's can both take.

Weights come from NumPy's generator, so that the golden outputs, which
`python tests/helpers/peers.py` writes with `transformers`, need no weights beside them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden" / "bert_outputs.npz"
SHAPE = {
    "vocabulary_size": 120,
    "num_layers": 2,
    "num_heads": 4,
    "hidden_dim": 64,
    "intermediate_dim": 96,
    "max_sequence_length": 32,
    "num_segments": 2,
}
# Our name of an activation -> Hugging Face's.
ACTIVATIONS = {"gelu": "gelu", "gelu_approximate": "gelu_pytorch_tanh"}


def bert_state() -> dict[str, np.ndarray]:
    """Weights under Hugging Face's names, far larger than at initialisation."""
    rng = np.random.default_rng(2020)
    dim, inner = SHAPE["hidden_dim"], SHAPE["intermediate_dim"]

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.2, size=shape).astype(np.float32)

    state = {
        "embeddings.word_embeddings.weight": normal(SHAPE["vocabulary_size"], dim),
        "embeddings.position_embeddings.weight": normal(
            SHAPE["max_sequence_length"], dim
        ),
        "embeddings.token_type_embeddings.weight": normal(SHAPE["num_segments"], dim),
        "pooler.dense.weight": normal(dim, dim),
        "pooler.dense.bias": normal(dim),
    }
    norms = ["embeddings.LayerNorm"]
    for i in range(SHAPE["num_layers"]):
        prefix = f"encoder.layer.{i}"
        for name, shape in {
            "attention.self.query": (dim, dim),
            "attention.self.key": (dim, dim),
            "attention.self.value": (dim, dim),
            "attention.output.dense": (dim, dim),
            "intermediate.dense": (inner, dim),
            "output.dense": (dim, inner),
        }.items():
            state[f"{prefix}.{name}.weight"] = normal(*shape)
            state[f"{prefix}.{name}.bias"] = normal(shape[0])
        norms += [f"{prefix}.attention.output.LayerNorm", f"{prefix}.output.LayerNorm"]
    for name in norms:
        state[f"{name}.weight"] = 1 + normal(dim)
        state[f"{name}.bias"] = normal(dim)
    return state


def batch() -> dict[str, np.ndarray]:
    """Token ids, segments and a mask with rows of 11, 6 and 1 tokens."""
    rng = np.random.default_rng(7)
    length = 11
    mask = np.arange(length) < np.array([[11], [6], [1]])
    return {
        "token_ids": (rng.integers(1, 120, (3, length)) * mask).astype(np.int32),
        "segment_ids": (rng.integers(0, 2, (3, length)) * mask).astype(np.int32),
        "padding_mask": mask.astype(np.int32),
    }


def assign(backbone: object, state: dict[str, np.ndarray]) -> None:
    """Puts the weights into a `LaBSEBackbone` of the same shape."""
    dim, heads = SHAPE["hidden_dim"], SHAPE["num_heads"]

    def dense(layer: object, name: str) -> list[np.ndarray]:
        return [state[f"{name}.weight"].T, state[f"{name}.bias"]]

    def norm(layer: object, name: str) -> None:
        layer.set_weights([state[f"{name}.weight"], state[f"{name}.bias"]])

    tables = {
        "token_embedding": "word_embeddings",
        "position_embedding": "position_embeddings",
        "segment_embedding": "token_type_embeddings",
    }
    for ours, theirs in tables.items():
        layer = backbone.get_layer(ours)
        layer.set_weights([state[f"embeddings.{theirs}.weight"]])
    norm(backbone.get_layer("embeddings_layer_norm"), "embeddings.LayerNorm")
    pooler = backbone.get_layer("pooler")
    pooler.set_weights(dense(pooler, "pooler.dense"))
    for i in range(SHAPE["num_layers"]):
        prefix = f"encoder.layer.{i}"
        layer = backbone.get_layer(f"transformer_layer_{i}")
        attention = []
        for part in ("query", "key", "value"):
            kernel, bias = dense(None, f"{prefix}.attention.self.{part}")
            attention += [
                kernel.reshape(dim, heads, dim // heads),
                bias.reshape(heads, dim // heads),
            ]
        kernel, bias = dense(None, f"{prefix}.attention.output.dense")
        attention += [kernel.reshape(heads, dim // heads, dim), bias]
        layer.self_attention_layer.set_weights(attention)
        norm(layer.self_attention_layer_norm, f"{prefix}.attention.output.LayerNorm")
        for ours, theirs in {
            "feedforward_intermediate_dense": "intermediate.dense",
            "feedforward_output_dense": "output.dense",
        }.items():
            part = getattr(layer, ours)
            part.set_weights(dense(part, f"{prefix}.{theirs}"))
        norm(layer.feedforward_layer_norm, f"{prefix}.output.LayerNorm")


def check_outputs(backbone: Any, expected: dict[str, np.ndarray]) -> None:
    """A backbone with the weights of `bert_state` gives these outputs for `batch`."""
    features = batch()
    outputs = backbone(features)
    real = features["padding_mask"].astype(bool)
    np.testing.assert_allclose(
        outputs["sequence_output"].numpy()[real],
        expected["sequence_output"][real],
        atol=1e-5,
    )
    np.testing.assert_allclose(
        outputs["pooled_output"].numpy(), expected["pooled_output"], atol=1e-5
    )


def hugging_face_outputs(activation: str) -> dict[str, np.ndarray]:
    """What `transformers.BertModel` makes of the batch with the weights."""
    import torch
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=SHAPE["vocabulary_size"],
        hidden_size=SHAPE["hidden_dim"],
        num_hidden_layers=SHAPE["num_layers"],
        num_attention_heads=SHAPE["num_heads"],
        intermediate_size=SHAPE["intermediate_dim"],
        hidden_act=ACTIVATIONS[activation],
        max_position_embeddings=SHAPE["max_sequence_length"],
        type_vocab_size=SHAPE["num_segments"],
        layer_norm_eps=1e-12,
    )
    model = BertModel(config).eval()
    state = {name: torch.tensor(value) for name, value in bert_state().items()}
    missing = model.load_state_dict(state, strict=False)
    unknown = [name for name in missing.missing_keys if "position_ids" not in name]
    if unknown or missing.unexpected_keys:
        raise ValueError(f"weights differ: {unknown}, {missing.unexpected_keys}")
    features = {name: torch.tensor(value).long() for name, value in batch().items()}
    with torch.no_grad():
        outputs = model(
            input_ids=features["token_ids"],
            token_type_ids=features["segment_ids"],
            attention_mask=features["padding_mask"],
        )
    return {
        "sequence_output": outputs.last_hidden_state.numpy(),
        "pooled_output": outputs.pooler_output.numpy(),
    }


def write_golden() -> None:
    """Writes the outputs for both activations, with the versions that made them."""
    import torch
    import transformers

    arrays = {
        f"{activation}.{name}": value
        for activation in ACTIVATIONS
        for name, value in hugging_face_outputs(activation).items()
    }
    versions = f"transformers {transformers.__version__}, torch {torch.__version__}"
    np.savez_compressed(GOLDEN, made_with=np.array(versions), **arrays)


if __name__ == "__main__":
    write_golden()
