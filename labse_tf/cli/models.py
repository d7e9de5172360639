"""The encoder that `--model` and `--dtype` of a command specify."""

from __future__ import annotations

import sys

from labse_tf import encoders


def open_encoder(name: str, dtype: str) -> encoders.Encoder:
    """Open an encoder; print the parity of a lower precision to standard error."""
    encoder = encoders.open_encoder(name, dtype)
    if encoder.model is not None and encoder.dtype != "float32":
        from labse_tf.export import parity

        exact = encoder.model.with_dtype("float32")
        texts = parity.sample_texts(exact)
        vectors = [m.encode(texts, progress=False) for m in (encoder.model, exact)]
        print(
            f"{encoder.dtype}: {parity.compare(*vectors).in_words()}", file=sys.stderr
        )
    return encoder
