"""Other people's weights: Hugging Face, TF Hub and BERT checkpoints, in and out.

The only place with foreign names. All of them hold a BERT, and `bert` knows under which
name and in which shape each layout keeps each weight. `huggingface`, `tf_hub` and
`bert` itself read configuration, vocabulary and weights; `writing` makes a directory
for sentence-transformers. Weights that are missing, surplus or of another shape are
named.

`downloads` fetches a model of `presets.FAMILY`; `conversion` saves a converted model
with a record of its source. `labse_tf.encoders.load_model` loads any of these layouts.
"""

from __future__ import annotations

from labse_tf.checkpoints.bert import from_bert_checkpoint
from labse_tf.checkpoints.conversion import describe_source, save_converted
from labse_tf.checkpoints.downloads import Download, download
from labse_tf.checkpoints.huggingface import from_huggingface
from labse_tf.checkpoints.tf_hub import from_tf_hub
from labse_tf.checkpoints.writing import to_huggingface

__all__ = [
    "Download",
    "describe_source",
    "download",
    "from_bert_checkpoint",
    "from_huggingface",
    "from_tf_hub",
    "save_converted",
    "to_huggingface",
]
