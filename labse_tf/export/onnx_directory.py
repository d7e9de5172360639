"""Export to ONNX: a graph with the files that Hugging Face's libraries read beside it.

sentence-transformers (`backend="onnx"`), transformers.js and plain ONNX Runtime with
Hugging Face's `tokenizers` read the directory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from labse_tf.checkpoints import to_huggingface
from labse_tf.checkpoints.unigram import TOKENIZER
from labse_tf.export.onnx_graph import INPUTS, encoder_graph
from labse_tf.export.parity import (
    BATCH,
    Parity,
    compare,
    encode_by_length,
    sample_texts,
)
from labse_tf.extras import require
from labse_tf.files import atomic_directory, write_text
from labse_tf.models import LaBSE

GRAPH = "onnx/model.onnx"
_LARGEST = 1_900_000_000  # bytes of weights inside the graph; Protobuf allows 2 GB


class OnnxReport(NamedTuple):
    """Result of `export_onnx`.

    Attributes:
        path: The directory.
        storage: One of `labse_tf.export.ONNX_STORAGES`.
        num_bytes: Size of the graph with its weights, and of the tokenizer.
        parity: Parity of the vectors with the model's, for the model's token ids.
        same_ids: Number of sentences for which `tokenizer.json` gives the model's ids.
    """

    path: Path
    storage: str
    num_bytes: int
    parity: Parity
    same_ids: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            **self._asdict(),
            "path": str(self.path),
            "parity": self.parity._asdict(),
        }


def export_onnx(
    model: LaBSE,
    path: str | Path,
    *,
    storage: str = "int8",
    texts: Iterable[str] | None = None,
    overwrite: bool = False,
) -> OnnxReport:
    """Write a directory with an ONNX graph of the encoder and its tokenizer.

    `onnx/model.onnx` takes `input_ids`, `attention_mask` and `token_type_ids`, int64
    `(B, T)`, and returns `last_hidden_state`, float32 `(B, T, D)`, and
    `sentence_embedding`, the unit vectors, float32 `(B, D)`. `tokenizer.json` makes the
    ids; see `labse_tf.checkpoints.to_huggingface` for the rare cases in which they
    differ. Graph and tokenizer are compared with the model on the written files.

    Args:
        model: A model with a preprocessor.
        path: Target directory, written atomically.
        storage: Storage type of the weights. `"float32"`: as in the model. `"int8"`:
            matrices with one scale per channel. `"int4"`: as int8, but the token table
            in 4 bits with one scale per 32 values, without loss if the preset is
            stored so.
        texts: Sentences to compare on. Default: the shipped sample in 25 languages.
        overwrite: Whether to replace an existing directory.

    Returns:
        The report.

    Raises:
        ValueError: If the storage or the activation is unknown, the model has no
            preprocessor, its tokenizer has `compat="tfhub"`, or the directory exists.
        ImportError: If `onnx`, `onnxruntime` or `safetensors` is missing.
        OSError: If the directory cannot be written.

    References:
        https://huggingface.co/docs/transformers.js/custom_usage
    """
    require("onnx", "export_onnx")
    import onnx

    sentences = sample_texts(model) if texts is None else list(texts)
    if not sentences:
        raise ValueError(f"`texts` must have a sentence. Received: {texts!r}")
    graph = encoder_graph(model, storage)
    target = Path(path)
    with atomic_directory(target, overwrite=overwrite) as folder:
        to_huggingface(model, folder, weights=False, overwrite=True)
        file = folder / GRAPH
        file.parent.mkdir()
        if graph.ByteSize() > _LARGEST:
            onnx.save_model(
                graph, file, save_as_external_data=True, location="model.onnx_data"
            )
        else:
            file.write_bytes(graph.SerializeToString())
        del graph
        files = (*file.parent.iterdir(), folder / TOKENIZER)
        report = OnnxReport(
            path=target,
            storage=storage,
            num_bytes=sum(each.stat().st_size for each in files),
            parity=_vectors_parity(model, file, sentences),
            same_ids=_same_ids(model, folder / TOKENIZER, sentences),
        )
        write_text(folder / "README.md", _card(target.name, model, report))
    return report


def _vectors_parity(model: LaBSE, file: Path, texts: Sequence[str]) -> Parity:
    """Compare the graph's vectors with the model's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(file), providers=["CPUExecutionProvider"]
    )
    preprocessor = model.text_preprocessor()

    def encode(batch: list[str]) -> np.ndarray:
        features = preprocessor(batch)
        names = ("token_ids", "padding_mask", "segment_ids")
        inputs = {
            theirs: np.asarray(features[ours], np.int64)
            for theirs, ours in zip(INPUTS, names, strict=True)
        }
        return session.run(["sentence_embedding"], inputs)[0]

    vectors = encode_by_length(encode, texts)
    return compare(vectors, model.encode(texts, progress=False))


def _same_ids(model: LaBSE, file: Path, texts: Sequence[str]) -> int:
    """Count the sentences for which `tokenizer.json` gives the model's ids."""
    import tokenizers

    preprocessor = model.text_preprocessor()
    theirs = tokenizers.Tokenizer.from_file(str(file))
    theirs.enable_truncation(preprocessor.sequence_length)
    prefix = preprocessor.prefix
    found = theirs.encode_batch([prefix + text for text in texts])
    same = 0
    for start in range(0, len(texts), BATCH):
        features = preprocessor(texts[start : start + BATCH])
        ids = np.asarray(features["token_ids"])
        counts = np.asarray(features["padding_mask"]).sum(axis=1)
        same += sum(
            row[:count].tolist() == other.ids
            for row, count, other in zip(
                ids, counts, found[start : start + BATCH], strict=True
            )
        )
    return same


def _card(name: str, model: LaBSE, report: OnnxReport) -> str:
    """Return the text of the card."""
    from labse_tf import __version__

    preprocessor = model.text_preprocessor()
    prefix = preprocessor.prefix
    text = f'"{prefix}" + text' if prefix else "text"
    same, count = report.same_ids, report.parity.sentences
    return f"""---
pipeline_tag: sentence-similarity
library_name: sentence-transformers
tags:
- sentence-transformers
- onnx
- labse
---

# {name}

A multilingual sentence encoder with {model.embedding_dim} dimensions as an ONNX graph,
exported by labse_tf {__version__}.

| | |
|---|---|
| storage | {report.storage}, {report.num_bytes / 1e6:.1f} MB with the tokenizer |
| parity | {report.parity.in_words()} |
| tokenizer.json | the model's ids for {same:,} of {count:,} sentences |

```python
import numpy as np
import onnxruntime
import tokenizers

tokenizer = tokenizers.Tokenizer.from_file("{name}/{TOKENIZER}")
tokenizer.enable_truncation({preprocessor.sequence_length})
tokenizer.enable_padding(pad_id={preprocessor.tokenizer.pad_token_id})
session = onnxruntime.InferenceSession("{name}/{GRAPH}")

def encode(texts):
    rows = tokenizer.encode_batch([{text} for text in texts])
    inputs = {{
        "input_ids": np.array([row.ids for row in rows]),
        "attention_mask": np.array([row.attention_mask for row in rows]),
        "token_type_ids": np.array([row.type_ids for row in rows]),
    }}
    return session.run(["sentence_embedding"], inputs)[0]

print(encode(["Hello, world.", "नमस्ते दुनिया"]))
```

In JavaScript, `pipeline("feature-extraction", ...)` of `@huggingface/transformers`
reads the same directory.
"""
