"""SavedModels: written whole, measured, with a card; loaded without labse_tf."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
from labse_tf.export.storage import STORAGES, StoredEncoder
from labse_tf.files import atomic_directory, write_text
from labse_tf.models import LaBSE

CARD = "README.md"
REPORT = "assets.extra/labse_tf.json"

_FORMAT = "labse_tf SavedModel"


@dataclass(frozen=True)
class ExportReport:
    """What was exported, how large it is, and what it cost.

    Attributes:
        interface: One of `INTERFACES`.
        storage: One of `STORAGES`.
        embedding_dim: D, the length of a vector.
        pooling: Of the model.
        sequence_length: Most tokens a row, [CLS] and [SEP] included.
        pad: One of `PADS`; `None` for an encoder.
        buckets: Lengths that rows are padded to, where they are.
        num_bytes: Of the graph, the weights and the vocabulary.
        num_weights: Numbers in all weights, int8's scales among them.
        num_trainable: Numbers in those that get gradients.
        parity: With the model; `None` for a preprocessor, whose ids are the model's.
        labse_tf_version: Of the exporter.
        dtype: That it computes in.
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

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        fields = asdict(self)
        if self.parity is not None:
            fields["parity"] = self.parity._asdict()
        return {"format": _FORMAT, **fields}


def export_saved_model(
    model: LaBSE,
    path: str | Path,
    interface: str = "text",
    *,
    storage: str = "float32",
    dtype: str | None = None,
    pad: str = "longest",
    buckets: Sequence[int] = BUCKETS,
    texts: Iterable[str] | None = None,
    serving: bool = False,
    overwrite: bool = False,
) -> Path:
    """Writes a reusable SavedModel by the TF Hub text contract.

    `"text"`: `__call__(strings, training=False)` takes strings `(B,)` and gives a dict
    whose `default` holds unit vectors float32 `(B, D)`.

    `"preprocessor"`: strings to `input_word_ids`, `input_mask`, `input_type_ids`, int32
    `(B, T)`. `tokenize(strings)` gives RaggedTensors of token ids,
    `tokenize.get_special_tokens_dict()` the special ones, and
    `bert_pack_inputs([ids], seq_length=64)`, of one or two segments a row, rows of
    that length.

    `"encoder"`: those three to `default` as above, `pooled_output` `(B, D)` (the same
    before it is divided by its length), `sequence_output` `(B, T, D)` and
    `encoder_outputs`, each block's. `encoder(preprocessor(strings))` is the text model.

    All have `variables`, `trainable_variables` and `regularization_losses`, so that
    `hub.KerasLayer(path, trainable=True)` fine-tunes them, the endpoints `serve` and
    `serve_training` for `keras.layers.TFSMLayer`, and the signature
    `serving_default`, which TF Serving runs. The vocabulary lies in `assets/`, a card
    in `README.md`. The parity with the model, measured with the written files, stands
    in the card and in what `read_report` returns.

    Args:
        model: With a preprocessor.
        path: The SavedModel's directory; for TF Serving its name is the version, a
            number. It is written atomically.
        interface: `"text"`, `"preprocessor"` or `"encoder"`.
        storage: Of the weights: `"float32"`, as trained; `"bfloat16"` or `"float16"`,
            half the size, computed in float32, none trainable (a step of fine-tuning
            is smaller than their rounding); `"int8"`, the token table at a quarter of
            its size with a scale a row and frozen, the rest float32 and trainable.
        dtype: Compute type, whatever the storage: `"float32"`, `"bfloat16"`, or
            `"auto"` for bfloat16 where this machine has instructions for it; left out,
            the model's. The parity is that with `model` as it is.
        pad: What rows are padded to: `"longest"`, the longest of the batch, or
            `"buckets"`, the next of `buckets`, for hardware that compiles each shape.
        buckets: Lengths in tokens; the model's own greatest length is the last.
        texts: Sentences to measure the parity on; left out, those of the shipped
            sample in 25 languages.
        serving: Whether to write what TF Serving reads too: warm-up requests inside,
            and `batching_parameters.txt` beside the directory, unless there is one.
        overwrite: Whether an existing directory is replaced.

    Returns:
        The directory.

    Raises:
        ValueError: If an argument is none of the above, the model has no preprocessor,
            or the directory exists already.
        ImportError: If `serving` needs `tensorflow-serving-api`, which is missing.
        OSError: If it cannot be written.

    References:
        https://www.tensorflow.org/hub/reusable_saved_models
    """
    import tensorflow as tf

    from labse_tf import __version__

    _check_arguments(interface, storage, dtype, pad)
    lengths = _check_buckets(buckets, model) if pad == "buckets" else None
    if serving:
        tf_serving.check_version_directory(path)
        tf_serving.import_serving("prediction_log_pb2")
    target, preprocessor = Path(path), model.text_preprocessor()
    computing = model if dtype is None else model.with_dtype(dtype)
    sentences = sample_texts(model) if texts is None else _check_texts(texts)
    try:
        with atomic_directory(target, overwrite=overwrite) as folder:
            weights = _save(computing, folder, interface, storage, lengths)
            report = ExportReport(
                interface=interface,
                storage=storage,
                embedding_dim=model.embedding_dim,
                pooling=model.pooling,
                sequence_length=preprocessor.sequence_length,
                pad=None if interface == "encoder" else pad,
                buckets=lengths,
                num_bytes=_size(folder),
                num_weights=weights[0],
                num_trainable=weights[1],
                parity=measure(folder, model, interface, sentences),
                labse_tf_version=__version__,
                dtype=computing.backbone.compute_dtype,
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
        # TensorFlow's own file system says so of a full disk, too.
        raise OSError(f"{target}: cannot be written: {error.message}") from error
    batching = target.parent / tf_serving.BATCHING_PARAMETERS
    if serving and not batching.exists():
        write_text(batching, tf_serving.batching_parameters(interface))
    return target


def read_report(path: str | Path) -> ExportReport:
    """Reads what `export_saved_model` wrote down about a SavedModel.

    Args:
        path: The SavedModel's directory.

    Returns:
        The report.

    Raises:
        ValueError: If the directory has none.
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
            f"{path}: expected a SavedModel by labse_tf, which holds {REPORT}. "
            "Received: a path without it"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file}: expected the report of an export. Received: {error}"
        ) from error


def _save(
    model: LaBSE,
    folder: Path,
    interface: str,
    storage: str,
    buckets: Sequence[int] | None,
) -> tuple[int, int]:
    """Writes the SavedModel; returns the numbers in all and in trainable weights."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as assets:
        vocabulary = Path(assets) / "vocab.txt"
        preprocessor = model.text_preprocessor()
        preprocessor.tokenizer.save_vocabulary(vocabulary)
        if interface == "preprocessor":
            module, signature = preprocessor_module(preprocessor, buckets, vocabulary)
        elif interface == "encoder":
            module, signature = encoder_module(StoredEncoder(model, storage))
        else:
            encoder = StoredEncoder(model, storage)
            module, signature = text_module(encoder, preprocessor, buckets, vocabulary)
        tf.saved_model.save(
            module, str(folder), signatures={"serving_default": signature}
        )
    all_weights = sum(v.shape.num_elements() for v in module.variables)
    trainable = sum(v.shape.num_elements() for v in module.trainable_variables)
    return all_weights, trainable


def _size(folder: Path) -> int:
    """Bytes of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _check_arguments(interface: str, storage: str, dtype: str | None, pad: str) -> None:
    """Refuses values, and combinations of them, that do not exist."""
    _check_choice("interface", interface, INTERFACES)
    _check_choice("storage", storage, STORAGES)
    _check_choice("pad", pad, PADS)
    if interface == "preprocessor":
        for name, value in (("storage", storage), ("dtype", dtype or "float32")):
            if value != "float32":
                raise ValueError(
                    f"`{name}` is of weights, and a preprocessor has none. "
                    f"Received: {name}={value!r}"
                )
    if interface == "encoder" and pad != "longest":
        raise ValueError(
            f"`pad` goes with text; an encoder takes padded rows. Received: pad={pad!r}"
        )


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises unless an argument is one of its values."""
    if value not in choices:
        raise ValueError(
            f"`{name}` must be one of {', '.join(choices)}. Received: {value!r}"
        )


def _check_buckets(buckets: Sequence[int], model: LaBSE) -> tuple[int, ...]:
    """Sorts lengths and ends them with the model's."""
    most = model.text_preprocessor().sequence_length
    numbers = list(buckets)
    if not numbers or any(
        isinstance(b, bool) or not isinstance(b, int) or b < 2 for b in numbers
    ):
        raise ValueError(
            "`buckets` must be numbers of tokens, 2 or more: [CLS], [SEP]. "
            f"Received: {numbers}"
        )
    return (*sorted(b for b in set(numbers) if b < most), most)


def _check_texts(texts: Iterable[str]) -> list[str]:
    """Takes sentences from any iterable."""
    found = list(texts) if not isinstance(texts, (str, bytes)) else None
    if not found:
        raise ValueError(f"`texts` must hold a sentence or more. Received: {texts!r}")
    return found


def _card(target: Path, report: ExportReport) -> str:
    """What the files are and how to use them."""
    d, name = report.embedding_dim, target.name
    parity = "its ids are the model's"
    if report.parity is not None:
        parity = report.parity.in_words()
    stored = report.storage
    if stored == "int8":
        stored = "the token table as int8 with a scale a row, the rest float32"
    trainable = {
        "float32": "as in the model",
        "int8": "all but the token table, which is int8",
    }.get(report.storage, "none")
    rows = [
        ("interface", report.interface),
        ("most tokens a row", report.sequence_length),
        ("padding", _padding(report)),
    ]
    if report.interface != "preprocessor":
        rows += [
            ("vector", f"{d} numbers, **length 1**"),
            ("pooling", report.pooling),
            ("weights", f"{report.num_weights:,}, {stored}"),
            ("trainable", f"{report.num_trainable:,}: {trainable}"),
            ("computes in", report.dtype),
        ]
    rows += [("size", f"{report.num_bytes / 1e6:.1f} MB"), ("parity", parity)]
    table = "\n".join(f"| {key} | {value} |" for key, value in rows)
    return f"""# {target.absolute().parent.name}/{name}

A SavedModel by the TF Hub text contract, made with labse_tf {report.labse_tf_version}.

| | |
|---|---|
{table}

```python
{_USES[report.interface].format(path=name, d=d)}
```
"""


def _padding(report: ExportReport) -> str:
    """How rows are padded, for the card."""
    if report.pad is None:
        return "the caller's"
    if report.buckets is None:
        return "to the longest row of the batch"
    return "to the next of " + ", ".join(map(str, report.buckets))


_HEAD = """import tensorflow as tf
import tensorflow_text  # registers the tokenizer's ops
"""
_USES = {
    "text": _HEAD
    + """
model = tf.saved_model.load("{path}")  # or hub.KerasLayer("{path}")
# Unit vectors (2, {d}): their products are cosines, nothing is left to normalise.
vectors = model(tf.constant(["Hello, world.", "नमस्ते दुनिया"]))["default"]""",
    "preprocessor": _HEAD
    + """
preprocessor = tf.saved_model.load("{path}")
inputs = preprocessor(tf.constant(["Hello, world."]))  # for the encoder
# Two segments a row, of a fixed length:
pairs = [preprocessor.tokenize(tf.constant([side])) for side in ("one", "other")]
inputs = preprocessor.bert_pack_inputs(pairs, seq_length=tf.constant(32))""",
    "encoder": """import tensorflow as tf

encoder = tf.saved_model.load("{path}")
outputs = encoder(preprocessor(texts))  # a preprocessor of the same model
# Unit vectors ({d},): their products are cosines, nothing is left to normalise.
vectors = outputs["default"]""",
}
