"""Files and results of the evaluations."""

from __future__ import annotations

import struct

import numpy as np

from labse_tf.evaluation import TatoebaResult


def write_pair(folder, code, source, target):
    for end, lines in ((code, source), ("eng", target)):
        text = "".join(f"{line}\n" for line in lines)
        path = folder / f"tatoeba.{code}-eng.{end}"
        path.write_text(text, encoding="utf-8")


def no_encoding(sentences):
    raise AssertionError("nothing may be encoded before the files are checked")


def some_result(codes):
    rng = np.random.default_rng(0)
    forward = {code: float(rng.uniform(0, 1)) for code in codes}
    backward = {code: float(np.clip(f + 0.02, 0, 1)) for code, f in forward.items()}
    return TatoebaResult(forward, backward, dict.fromkeys(codes, 1000))


def png_size(path):
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])
