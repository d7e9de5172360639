"""The encoder: token ids to unit vectors, and the dual encoder that trains it.

`LaBSEBackbone` (BERT of `TransformerBlock`s) -> `LaBSE` (pooling, L2; text in,
vectors out) -> `DualEncoder` (one encoder, two sides, a loss over the batch).

Shapes: B = batch, T = length in tokens, D = hidden dimension, n = sentences.
"""

from __future__ import annotations

from labse_tf.models.backbone import FEATURES, PACKED_FEATURES, LaBSEBackbone
from labse_tf.models.dual_encoder import DualEncoder, resolve_jit_compile
from labse_tf.models.replicated_model import ReplicatedModel
from labse_tf.models.sentence_encoder import LaBSE, cosine_similarity
from labse_tf.models.transformer_block import TransformerBlock

__all__ = [
    "FEATURES",
    "PACKED_FEATURES",
    "DualEncoder",
    "LaBSE",
    "LaBSEBackbone",
    "ReplicatedModel",
    "TransformerBlock",
    "cosine_similarity",
    "resolve_jit_compile",
]
