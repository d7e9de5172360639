"""Import and export of Hugging Face, KerasHub, TF Hub and BERT checkpoints.

Only this package contains the weight names of other libraries. `bert` defines the names
and shapes of BERT's weights in each layout. `huggingface`, `tf_hub` and `bert` read
configuration, vocabulary and weights. `keras_hub` converts models of KerasHub.
`writing` writes a directory for sentence-transformers. Errors name weights that are
missing, unexpected or of the wrong shape.

`downloads` fetches a model of `presets.FAMILY`. `conversion` saves a converted model
with a record of its source. `labse_tf.encoders.load_model` loads any of these layouts.
"""

from labse_tf.checkpoints.bert import from_bert_checkpoint
from labse_tf.checkpoints.conversion import describe_source, save_converted
from labse_tf.checkpoints.downloads import Download, download
from labse_tf.checkpoints.huggingface import from_huggingface
from labse_tf.checkpoints.keras_hub import (
    from_keras_hub,
    is_convertible,
    load_keras_hub,
)
from labse_tf.checkpoints.tf_hub import from_tf_hub
from labse_tf.checkpoints.writing import to_huggingface

__all__ = ["Download", "describe_source", "download", "from_bert_checkpoint"]
__all__ += ["from_huggingface", "from_keras_hub", "from_tf_hub", "is_convertible"]
__all__ += ["load_keras_hub", "save_converted", "to_huggingface"]
