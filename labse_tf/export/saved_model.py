"""Atomic export of a model as a SavedModel with a parity report and a card."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.export import serving as tf_serving
from labse_tf.export.interfaces import (
    BUCKETS,
    INTERFACES,
    PADS,
    encoder_module,
    preprocessor_module,
    text_module,
)
from labse_tf.export.parity import Parity, measure, sample_texts
from labse_tf.export.storage import STORAGES, StoredEncoder, check_storage
from labse_tf.files import atomic_directory, write_text
from labse_tf.models import KerasHubEncoder, SentenceEncoder
from labse_tf.models.keras_hub_encoder import as_encoder
from labse_tf.nested import check_dim

if TYPE_CHECKING:
    from keras_hub.models import TextEmbedder

CARD = "README.md"
REPORT = "assets.extra/labse_tf.json"

_FORMAT = "labse_tf SavedModel"


@dataclass(frozen=True)
class ExportReport:
    """Settings, size and parity of an exported SavedModel.

    Attributes:
        interface: One of `INTERFACES`.
        storage: One of `STORAGES`.
        embedding_dim: Dimension of a vector.
        pooling: Pooling of the model.
        sequence_length: Maximum number of tokens per row, including [CLS] and [SEP].
        pad: One of `PADS`; `None` for an encoder.
        buckets: Lengths that rows are padded to, if `pad` is `"buckets"`.
        num_bytes: Size of the graph, the weights and the vocabulary.
        num_weights: Number of elements in all weights, including the scales of int8.
        num_trainable: Number of elements in the trainable weights.
        parity: Parity with the model; `None` for a preprocessor.
        labse_tf_version: Version of labse_tf that exported the model.
        dtype: Compute type.
        cut_from: Dimension of the model's vectors, if those of the SavedModel are cut;
            else `None`.
    """

    interface: str
    storage: str
    embedding_dim: int
    pooling: str
    sequence_length: int
    pad: str | None
    buckets: tuple[int, ...] | None
    num_bytes: int
    num_weights: int
    num_trainable: int
    parity: Parity | None
    labse_tf_version: str
    dtype: str = "float32"
    cut_from: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        fields = asdict(self)
        if self.parity is not None:
            fields["parity"] = self.parity._asdict()
        return {"format": _FORMAT, **fields}


def export_saved_model(
    model: SentenceEncoder | TextEmbedder,
    path: str | Path,
    interface: str = "text",
    *,
    storage: str = "float32",
    dtype: str | None = None,
    dim: int | None = None,
    pad: str = "longest",
    buckets: Sequence[int] = BUCKETS,
    texts: Iterable[str] | None = None,
    serving: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a reusable SavedModel that follows the TF Hub text contract.

    `"text"`: `__call__(strings, training=False)` takes strings `(B,)` and returns a
    dict whose `default` holds unit vectors, float32 `(B, D)`.

    `"preprocessor"`: strings to `input_word_ids`, `input_mask`, `input_type_ids`, int32
    `(B, T)`. `tokenize(strings)` returns a RaggedTensor of token ids,
    `tokenize.get_special_tokens_dict()` the special token ids, and
    `bert_pack_inputs([ids], seq_length=64)` rows of that length from one or two
    segments.

    `"encoder"`: these three features to `default` as above, `pooled_output` `(B, D)`
    (before L2 normalization), `sequence_output` `(B, T, D)` and `encoder_outputs`, the
    output of each block. `encoder(preprocessor(strings))` equals the text model.

    All interfaces have `variables`, `trainable_variables` and `regularization_losses`,
    so that `hub.KerasLayer(path, trainable=True)` can fine-tune them; the endpoints
    `serve` and `serve_training` for `keras.layers.TFSMLayer`; and the signature
    `serving_default` for TF Serving. The vocabulary is in `assets/`, the card in
    `README.md`. The parity with the model is measured with the written files. The card
    and `read_report` state it.

    Args:
        model: A model with a preprocessor. A `KerasHubEncoder`, and a `TextEmbedder` of
            KerasHub, support the interface `"text"` and the storage type `"float32"`.
        path: Target directory, written atomically. For TF Serving its name must be a
            version number.
        interface: `"text"`, `"preprocessor"` or `"encoder"`.
        storage: Storage type of the weights. `"float32"`: as trained. `"bfloat16"` or
            `"float16"`: half the size, computed in float32, not trainable because a
            fine-tuning step is smaller than their rounding. `"int8"`: matrices at a
            quarter of the size with one scale per channel (see
            `labse_tf.quantization`), not trainable, cast to float32 in each call;
            biases and normalizations float32 and trainable.
        dtype: Compute type, independent of `storage`: `"float32"`, `"bfloat16"`, or
            `"auto"` for bfloat16 if this CPU has instructions for it. Default: the
            model's. The parity is measured against `model` in its own compute type.
        dim: d: `default` holds the first d components of each vector, normalized again,
            `(B, d)`, as `model.encode(texts, dim=d)` returns them. Other outputs stay
            whole. Default: whole vectors.
        pad: Padding of rows: `"longest"` for the longest row of the batch, `"buckets"`
            for the next of `buckets`, for hardware that compiles each shape.
        buckets: Lengths in tokens. The model's maximum length is always the last.
        texts: Sentences to measure the parity on. Default: the shipped sample in 25
            languages.
        serving: Whether to write files for TF Serving: warm-up requests inside the
            SavedModel and, unless it exists, `batching_parameters.txt` next to it.
        overwrite: Whether to replace an existing directory.

    Returns:
        The directory.

    Raises:
        ValueError: If an argument is invalid, the model has no preprocessor, or the
            directory exists already.
        ImportError: If `serving` is set and `tensorflow-serving-api` is missing.
        OSError: If the directory cannot be written.

    References:
        https://www.tensorflow.org/hub/reusable_saved_models
    """
    import tensorflow as tf

    from labse_tf import __version__

    _check_arguments(interface, storage, dtype, dim, pad)
    model = _check_model(model, interface, storage)
    if dim is not None:
        check_dim(dim, model.embedding_dim)
    lengths = _check_buckets(buckets, model) if pad == "buckets" else None
    if serving:
        tf_serving.check_version_directory(path)
        tf_serving.import_serving("prediction_log_pb2")
    target, preprocessor = Path(path), model.text_preprocessor()
    computing = (model if dtype is None else model.with_dtype(dtype)).merged()
    sentences = sample_texts(model) if texts is None else _check_texts(texts)
    try:
        with atomic_directory(target, overwrite=overwrite) as folder:
            weights = _save(computing, folder, interface, storage, dim, lengths)
            report = ExportReport(
                interface=interface,
                storage=storage,
                embedding_dim=dim or model.embedding_dim,
                pooling=model.pooling,
                sequence_length=preprocessor.sequence_length,
                pad=None if interface == "encoder" else pad,
                buckets=lengths,
                num_bytes=_size(folder),
                num_weights=weights[0],
                num_trainable=weights[1],
                parity=measure(folder, model, interface, sentences, dim),
                labse_tf_version=__version__,
                dtype=computing.backbone.compute_dtype,
                cut_from=None if dim is None else model.embedding_dim,
            )
            (folder / REPORT).parent.mkdir(exist_ok=True)
            text = json.dumps(report.to_json(), indent=2) + "\n"
            (folder / REPORT).write_text(text, encoding="utf-8")
            (folder / CARD).write_text(_card(target, report), encoding="utf-8")
            if serving:
                tf_serving.write_warmup(
                    folder,
                    tf_serving.warmup_requests(
                        interface,
                        sentences,
                        preprocessor,
                        target.absolute().parent.name,
                    ),
                )
    except tf.errors.OpError as error:
        # TensorFlow's file system also reports a full disk as an OpError.
        raise OSError(f"{target}: cannot be written: {error.message}") from error
    batching = target.parent / tf_serving.BATCHING_PARAMETERS
    if serving and not batching.exists():
        write_text(batching, tf_serving.batching_parameters(interface))
    return target


def read_report(path: str | Path) -> ExportReport:
    """Read the report that `export_saved_model` wrote into a directory.

    Raises:
        ValueError: If the directory has no valid report.
    """
    file = Path(path) / REPORT
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        if fields.pop("format") != _FORMAT:
            raise ValueError("another format")
        for name, kind in (("parity", lambda p: Parity(**p)), ("buckets", tuple)):
            if fields[name] is not None:
                fields[name] = kind(fields[name])
        return ExportReport(**fields)
    except FileNotFoundError:
        raise ValueError(
            f"{path}: expected a SavedModel exported by labse_tf, with {REPORT}. "
            "Received: a path without this file"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file}: expected the report of an export. Received: {error}"
        ) from error


def _save(
    model: SentenceEncoder,
    folder: Path,
    interface: str,
    storage: str,
    dim: int | None,
    buckets: Sequence[int] | None,
) -> tuple[int, int]:
    """Write the SavedModel; return the sizes of all and of the trainable weights."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as assets:
        preprocessor = model.text_preprocessor()
        vocabulary = preprocessor.tokenizer.save_files(Path(assets))
        if interface == "preprocessor":
            module, signature = preprocessor_module(preprocessor, buckets, vocabulary)
        elif interface == "encoder":
            module, signature = encoder_module(StoredEncoder(model, storage, dim))
        else:
            encoder = StoredEncoder(model, storage, dim)
            module, signature = text_module(encoder, preprocessor, buckets, vocabulary)
        tf.saved_model.save(
            module, str(folder), signatures={"serving_default": signature}
        )
    all_weights = sum(v.shape.num_elements() for v in module.variables)
    trainable = sum(v.shape.num_elements() for v in module.trainable_variables)
    return all_weights, trainable


def _size(folder: Path) -> int:
    """Return the size of all files in bytes."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _check_arguments(
    interface: str, storage: str, dtype: str | None, dim: int | None, pad: str
) -> None:
    """Raise an error for invalid values or combinations of values."""
    _check_choice("interface", interface, INTERFACES)
    _check_choice("storage", storage, STORAGES)
    _check_choice("pad", pad, PADS)
    if interface == "preprocessor":
        for name, value, usual in (
            ("storage", storage, "float32"),
            ("dtype", dtype or "float32", "float32"),
            ("dim", dim, None),
        ):
            if value != usual:
                raise ValueError(
                    f"`{name}` must be left out: a preprocessor has no weights. "
                    f"Received: {name}={value!r}"
                )
    if interface == "encoder" and pad != "longest":
        raise ValueError(
            "`pad` must be left out: an encoder takes padded rows. "
            f"Received: pad={pad!r}"
        )


def _check_model(
    model: SentenceEncoder | TextEmbedder, interface: str, storage: str
) -> SentenceEncoder:
    """Return the encoder; raise an error for arguments that it does not support."""
    encoder = as_encoder(model, "model")
    if not isinstance(encoder, SentenceEncoder):
        raise ValueError(
            "`model` must be a LaBSE, a KerasHubEncoder or a TextEmbedder of KerasHub. "
            f"Received: {type(encoder).__name__}"
        )
    if isinstance(encoder, KerasHubEncoder) and interface != "text":
        raise ValueError(
            "`interface` must be text for a KerasHubEncoder, whose inputs and special "
            f"tokens may not be BERT's. Received: interface={interface!r}"
        )
    check_storage(encoder, storage)
    return encoder


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise an error unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(
            f"`{name}` must be one of {', '.join(choices)}. Received: {value!r}"
        )


def _check_buckets(buckets: Sequence[int], model: SentenceEncoder) -> tuple[int, ...]:
    """Return the lengths sorted, with the model's maximum length as the last."""
    most = model.text_preprocessor().sequence_length
    numbers = list(buckets)
    if not numbers or any(
        isinstance(b, bool) or not isinstance(b, int) or b < 2 for b in numbers
    ):
        raise ValueError(
            "`buckets` must be lengths of at least 2 tokens ([CLS] and [SEP]). "
            f"Received: {numbers}"
        )
    return (*sorted(b for b in set(numbers) if b < most), most)


def _check_texts(texts: Iterable[str]) -> list[str]:
    """Return the sentences as a list."""
    found = list(texts) if not isinstance(texts, (str, bytes)) else None
    if not found:
        raise ValueError(f"`texts` must be one or more sentences. Received: {texts!r}")
    return found


def _card(target: Path, report: ExportReport) -> str:
    """Return the text of the card: a description of the files and their use."""
    d, name = report.embedding_dim, target.name
    parity = "token ids equal to the model's"
    if report.parity is not None:
        parity = report.parity.in_words()
    stored = report.storage
    if stored == "int8":
        stored = "matrices in int8 with one scale per channel, others in float32"
    trainable = {
        "float32": "as in the model",
        "int8": "biases, normalizations and other small weights",
    }.get(report.storage, "none")
    rows = [
        ("interface", report.interface),
        ("maximum tokens per row", report.sequence_length),
        ("padding", _padding(report)),
    ]
    if report.interface != "preprocessor":
        cut = f", the first of {report.cut_from}" if report.cut_from else ""
        rows += [
            ("vector", f"{d} dimensions{cut}, **length 1**"),
            ("pooling", report.pooling),
            ("weights", f"{report.num_weights:,}, {stored}"),
            ("trainable", f"{report.num_trainable:,}: {trainable}"),
            ("compute type", report.dtype),
        ]
    rows += [("size", f"{report.num_bytes / 1e6:.1f} MB"), ("parity", parity)]
    table = "\n".join(f"| {key} | {value} |" for key, value in rows)
    return f"""# {target.absolute().parent.name}/{name}

A SavedModel that follows the TF Hub text contract, exported by labse_tf
{report.labse_tf_version}.

| property | value |
|---|---|
{table}

```python
{_USES[report.interface].format(path=name, d=d)}
```
"""


def _padding(report: ExportReport) -> str:
    """Describe the padding for the card."""
    if report.pad is None:
        return "by the caller"
    if report.buckets is None:
        return "to the longest row of the batch"
    return "to the next length of " + ", ".join(map(str, report.buckets))


_HEAD = """import tensorflow as tf
import tensorflow_text  # registers the tokenizer's ops
"""
_USES = {
    "text": _HEAD
    + """
model = tf.saved_model.load("{path}")  # or hub.KerasLayer("{path}")
# Unit vectors (2, {d}): dot products are cosines, no normalization is needed.
vectors = model(tf.constant(["Hello, world.", "नमस्ते दुनिया"]))["default"]""",
    "preprocessor": _HEAD
    + """
preprocessor = tf.saved_model.load("{path}")
inputs = preprocessor(tf.constant(["Hello, world."]))  # inputs of the encoder
# Two segments per row, with a fixed length:
pairs = [preprocessor.tokenize(tf.constant([side])) for side in ("one", "other")]
inputs = preprocessor.bert_pack_inputs(pairs, seq_length=tf.constant(32))""",
    "encoder": """import tensorflow as tf

encoder = tf.saved_model.load("{path}")
outputs = encoder(preprocessor(texts))  # a preprocessor of the same model
# Unit vectors (B, {d}): dot products are cosines, no normalization is needed.
vectors = outputs["default"]""",
}
