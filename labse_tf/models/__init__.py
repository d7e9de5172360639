"""Models: the encoder and the two models that train it.

`LaBSEBackbone` (BERT) -> `LaBSE` (pooling and L2 normalization, text -> vectors)
-> `DualEncoder` (trains on translation pairs). `MaskedLM` pre-trains a backbone.
`KerasHubEncoder` is the encoder of a backbone of KerasHub; `SentenceEncoder` is what it
shares with `LaBSE`.
"""

from labse_tf.models.backbone import FEATURES, PACKED_FEATURES, LaBSEBackbone
from labse_tf.models.dual_encoder import DualEncoder
from labse_tf.models.keras_hub_encoder import KerasHubEncoder
from labse_tf.models.labse import LaBSE
from labse_tf.models.masked_lm import MaskedLM
from labse_tf.models.replicated_model import ReplicatedModel
from labse_tf.models.sentence_encoder import SentenceEncoder, cosine_similarity
from labse_tf.models.transformer_block import TransformerBlock

__all__ = ["FEATURES", "PACKED_FEATURES", "DualEncoder", "KerasHubEncoder", "LaBSE"]
__all__ += ["LaBSEBackbone"]
__all__ += ["MaskedLM", "ReplicatedModel", "SentenceEncoder", "TransformerBlock"]
__all__ += ["cosine_similarity"]
