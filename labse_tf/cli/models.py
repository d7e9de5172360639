"""The encoder of a command's arguments, and what it has cut."""

from __future__ import annotations

import argparse
import sys

from labse_tf import encoders


def open_encoder(options: argparse.Namespace) -> encoders.Encoder:
    """Open the encoder of the options that `add_encoder` adds.

    Prints the parity of a lower precision to standard error.
    """
    encoder = encoders.open_encoder(
        options.model, options.dtype, options.sequence_length, options.dim
    )
    if encoder.model is not None and encoder.dtype != "float32":
        from labse_tf.export import parity

        exact = encoder.model.with_dtype("float32")
        texts = parity.sample_texts(exact)
        vectors = [m.encode(texts, progress=False) for m in (encoder.model, exact)]
        print(
            f"{encoder.dtype}: {parity.compare(*vectors).in_words()}", file=sys.stderr
        )
    return encoder


def fingerprint_of(options: argparse.Namespace) -> str:
    """Return the identifier of the encoder of the options; see `fingerprint`."""
    return encoders.fingerprint(
        options.model, options.dtype, options.sequence_length, options.dim
    )


def say_truncated(encoder: encoders.Encoder) -> None:
    """Print the number of texts that were cut to standard error, if there are any."""
    # A plain function, which evaluation accepts as well, does not count.
    model = getattr(encoder, "model", None)
    if model is not None and (count := model.truncated_texts):
        length = model.text_preprocessor().sequence_length
        most = model.max_sequence_length
        advice = "; --sequence-length N uses more tokens"
        if most is not None:
            advice = f"; --sequence-length N uses up to {most:,} tokens"
        if length == most:
            advice = ""
        print(f"{count:,} texts were cut to {length:,} tokens{advice}", file=sys.stderr)
