"""SavedModels: text in, unit vectors out, no labse_tf."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.files import whole_directory
from labse_tf.models import LaBSE

if TYPE_CHECKING:
    import tensorflow as tf

    from labse_tf.preprocessing import SentencePreprocessor

INTERFACES = ("text",)


def export_saved_model(
    model: LaBSE,
    path: str | Path,
    interface: str = "text",
    *,
    overwrite: bool = False,
) -> Path:
    """Writes a reusable SavedModel with the preprocessing inside.

    `"text"`: `__call__(strings, training=False)` takes strings `(batch,)` and gives
    a dict whose `default` holds unit vectors float32 `(batch, D)`. So does the
    signature `serving_default`, which TF Serving runs. Rows are padded in the graph
    to the longest of the batch. `variables`, `trainable_variables` and
    `regularization_losses` are there, so `hub.KerasLayer(path, trainable=True)`
    fine-tunes it; `serve` and `serve_training` are endpoints for
    `keras.layers.TFSMLayer`. The vocabulary lies in `assets/`.

    Args:
        model: With a preprocessor.
        path: The SavedModel's directory; for TF Serving its name is the version, a
            number. It appears whole or not at all.
        interface: `"text"`.
        overwrite: Whether an existing directory is replaced.

    Returns:
        The directory.

    Raises:
        ValueError: If the interface is unknown, the model has no preprocessor, or
            the directory exists already.
        OSError: If it cannot be written.
    """
    import tensorflow as tf

    if interface not in INTERFACES:
        raise ValueError(
            f"`interface` must be one of {INTERFACES}. Received: {interface!r}"
        )
    preprocessor = model.text_preprocessor()
    with whole_directory(path, overwrite=overwrite) as folder:
        with tempfile.TemporaryDirectory() as assets:
            vocabulary = Path(assets) / "vocab.txt"
            preprocessor.tokenizer.save_vocabulary(vocabulary)
            module = _text_module(model, preprocessor, vocabulary)
            tf.saved_model.save(
                module,
                str(folder),
                signatures={"serving_default": module.serve},
            )
    return Path(path)


def _text_module(
    model: LaBSE, preprocessor: SentencePreprocessor, vocabulary: Path
) -> Any:
    """The object that is saved: functions, variables and the asset."""
    import tensorflow as tf

    def embed(inputs: tf.Tensor, training: bool) -> dict[str, tf.Tensor]:
        return {"default": model(preprocessor(inputs), training=training)}

    def __call__(inputs: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        return embed(inputs, training)

    strings = tf.TensorSpec([None], tf.string, name="inputs")
    # A Checkpoint is the plain trackable of the public API; a Keras model would be
    # saved with its layers, whose classes a loader outside this package lacks.
    module = tf.train.Checkpoint()
    module.__call__ = tf.function(__call__, autograph=False)
    for training in (False, True):
        module.__call__.get_concrete_function(strings, training=training)
    module.serve = tf.function(
        lambda inputs: embed(inputs, False), input_signature=[strings], autograph=False
    )
    module.serve_training = tf.function(
        lambda inputs: embed(inputs, True), input_signature=[strings], autograph=False
    )
    module.variables = [v.value for v in model.weights]
    module.trainable_variables = [v.value for v in model.trainable_weights]
    module.regularization_losses = []
    # Dropout's seeds are no weights, yet the training trace reads and moves them.
    weights = {id(v) for v in model.weights}
    module.random_states = [v.value for v in model.variables if id(v) not in weights]
    module.vocabulary_file = tf.saved_model.Asset(str(vocabulary))
    return module
