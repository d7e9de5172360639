"""Other people's weights: Hugging Face, TF Hub and BERT checkpoints, in and out.

The only place with foreign names. All of them hold a BERT, and `bert` knows under which
name and in which shape each layout keeps each weight. `huggingface`, `tf_hub` and
`bert` itself read configuration, vocabulary and weights; `writing` makes a directory
for sentence-transformers. Weights that are missing, surplus or of another shape are
named.

`downloads` fetches a model of `presets.FAMILY` where a network allows it; `conversion`
tells what a path holds, loads it, and saves it with a note of where it is from.
"""

from __future__ import annotations

from labse_tf.checkpoints.bert import from_bert_checkpoint
from labse_tf.checkpoints.conversion import (
    describe_source,
    layout_of,
    load,
    save_converted,
)
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
    "layout_of",
    "load",
    "save_converted",
    "to_huggingface",
]
