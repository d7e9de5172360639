"""Checks of the sub-objects of a preprocessor: `tokenize` and `bert_pack_inputs`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from labse_tf.export.check.elsewhere import tensors
from labse_tf.export.check.subject import (
    Subject,
    arrays,
    attempt,
    largest_gap,
    shape_text,
)


def check_subobjects(subject: Subject, outputs: Mapping[str, np.ndarray]) -> None:
    """Checks that `tokenize` and `bert_pack_inputs` give what the call gives."""
    import tensorflow as tf

    parts = ("tokenize", "bert_pack_inputs")
    tokenize, pack = (getattr(subject.module, part, None) for part in parts)
    if tokenize is None or pack is None:
        missing = [f"`{part}`" for part in parts if not hasattr(subject.module, part)]
        told = f"no {' and no '.join(missing)}: pairs of segments cannot be packed"
        subject.add("subobjects", "warn", told)
        return
    faults: list[str] = []
    tokens, error = attempt(tokenize, tensors(subject.batch))
    if not isinstance(tokens, tf.RaggedTensor) or tokens.dtype != tf.int32:
        what = error or f"{type(tokens).__name__} {tokens.dtype.name}"
        told = f"`tokenize` must give a ragged int32 tensor. Received: {what}"
        subject.add("subobjects", "fail", told)
        return
    # Short rows, which are padded, and then all, of which some are cut.
    short = sorted(subject.rows, key=len)[:2]
    for count, rows in ((1, short), (2, subject.rows)):
        packed, error = attempt(
            lambda strings, n=count: arrays(
                pack([tokenize(strings)] * n, seq_length=16)
            ),
            tensors(rows),
        )
        what = f"`bert_pack_inputs` of {count} segment{'s'[: count - 1]}"
        if packed is None:
            faults.append(f"{what} fails: {error}")
            continue
        shapes = {value.shape for value in packed.values()}
        if shapes != {(len(rows), 16)}:
            faults.append(f"{what} to a length of 16 gives the shapes {shapes}")
        types = packed.get("input_type_ids", np.array(count - 1))
        if types.max() != count - 1:
            faults.append(f"{what} gives type ids up to {types.max()}")
    width = next(iter(outputs.values())).shape[1]
    packed, _ = attempt(lambda: arrays(pack([tokens], seq_length=width)))
    if packed is not None and largest_gap(outputs, packed):
        faults.append("tokenized and packed is not what the call gives")
    special = getattr(tokenize, "get_special_tokens_dict", dict)
    table, error = attempt(special)
    doubts = [] if table else [f"no `tokenize.get_special_tokens_dict` {error}"]
    told = f"`tokenize` gives {shape_text(tokens.shape)}; 1 and 2 segments packed"
    subject.judge("subobjects", faults, doubts, "" if faults else told)
