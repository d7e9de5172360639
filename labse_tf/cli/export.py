"""The command `export`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from labse_tf.cli.arguments import (
    add_dim,
    add_dtype,
    add_json,
    add_model,
    add_output,
    command,
    needs,
)
from labse_tf.cli.output import write_json
from labse_tf.encoders import load_encoder, load_model

_EXPORT_STORAGES = ("float32", "bfloat16", "float16", "int8", "int4")
# Flags of SavedModels only, and their defaults.
_OF_SAVED_MODELS = {
    "interface": "text",
    "dtype": "float32",
    "dim": None,
    "pad": "longest",
    "buckets": None,
    "serving": False,
}


def add_command(commands: Any) -> None:
    """Add the command `export`."""
    parser = command(
        commands,
        "export",
        _export,
        "write a SavedModel with preprocessing for TF Hub and TF Serving, or an ONNX "
        "graph with its tokenizer",
        "labse-tf export --model my-model --output serving/1, or: labse-tf export "
        "--model my-model --format onnx --output my-model-onnx",
    )
    add_model(parser, "model to export")
    add_output(parser, "DIR", "NAME/VERSION for TF Serving", required=False)
    parser.add_argument(
        "--format",
        default="saved_model",
        choices=("saved_model", "onnx"),
        help="saved_model; or onnx: onnx/model.onnx from token ids to vectors, beside "
        "tokenizer.json and the files that sentence-transformers and transformers.js "
        "read (default: saved_model)",
    )
    parser.add_argument(
        "--check",
        metavar="PATH",
        help="instead of exporting, check any text SavedModel against TF Hub's "
        "contract and the operations of TF Serving; exit status 2 if a check fails",
    )
    add_json(parser)
    parser.add_argument(
        "--interface",
        default="text",
        choices=("text", "preprocessor", "encoder"),
        help="text: strings to vectors; preprocessor: strings to token ids; encoder: "
        "token ids to vectors (default: text)",
    )
    parser.add_argument(
        "--storage",
        choices=_EXPORT_STORAGES,
        help="storage type of the weights; bfloat16, float16: half the size, not "
        "trainable, for SavedModels; int8: a quarter of the size, matrices with one "
        "scale per channel and not trainable, other weights float32; int4: as int8, "
        "but the token table in 4 bits, for ONNX (default: float32, for ONNX int8)",
    )
    add_dtype(parser)
    add_dim(parser)
    parser.add_argument(
        "--pad",
        default="longest",
        choices=("longest", "buckets"),
        help="pad rows to the longest of the batch or to the next of --buckets "
        "(default: longest)",
    )
    parser.add_argument(
        "--buckets",
        nargs="+",
        type=int,
        metavar="N",
        help="lengths in tokens; the model's maximum length is always added (default: "
        "16 32 64 128)",
    )
    parser.add_argument(
        "--texts",
        metavar="FILE",
        help="sentences to measure the parity on, one per line, or a pair file "
        "(default: the shipped sample in 25 languages)",
    )
    parser.add_argument(
        "--serving",
        action="store_true",
        help="write warm-up requests, and batching_parameters.txt next to DIR, for TF "
        "Serving",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing output"
    )
    needs(parser, "serving", "--serving", lambda options: options.serving)
    needs(parser, "onnx", "--format onnx", lambda options: options.format == "onnx")


def _export(options: argparse.Namespace) -> None:
    if options.check is not None:
        _check(options)
        return
    if options.model is None or options.output is None:
        raise ValueError(
            "export needs --model MODEL and --output DIR, or --check PATH. "
            f"Received: --model {options.model}, --output {options.output}"
        )
    if options.buckets is not None and options.pad != "buckets":
        raise ValueError(
            "--buckets requires --pad buckets. "
            f"Received: --buckets {options.buckets}, --pad {options.pad}"
        )
    _check_storage(options)
    from labse_tf.data import read_sentences
    from labse_tf.export import export_saved_model, read_report

    texts = None
    if options.texts is not None:
        texts = [text for _, text in read_sentences(options.texts, language="und")]
        if not texts:
            raise ValueError(f"{options.texts}: expected sentences. Received: none")
    if options.format == "onnx":
        _export_onnx(options, texts)
        return
    path = export_saved_model(
        load_encoder(options.model),
        options.output,
        options.interface,
        storage=options.storage or "float32",
        dtype=options.dtype,
        dim=options.dim,
        pad=options.pad,
        **({} if options.buckets is None else {"buckets": options.buckets}),
        texts=texts,
        serving=options.serving,
        overwrite=options.overwrite,
    )
    report = read_report(path)
    print(f"SavedModel: {path}")
    computes = "" if report.dtype == "float32" else f"computes in {report.dtype}, "
    cut = f"vectors of {report.embedding_dim}, " if report.cut_from else ""
    size = f"{report.num_bytes / 1e6:.1f} MB"
    print(f"{report.interface}, {report.storage}, {computes}{cut}{size}")
    if report.parity is None:
        print("parity: token ids equal to the model's")
    else:
        print(
            f"parity: {report.parity.in_words()}, largest difference "
            f"{report.parity.largest_difference:.1e}"
        )
    write_json(options.json, {"path": str(path), **report.to_json()})


def _check_storage(options: argparse.Namespace) -> None:
    """Raise an error for flags of the other format."""
    onnx = options.format == "onnx"
    if options.storage in (("bfloat16", "float16") if onnx else ("int4",)):
        raise ValueError(
            f"--storage must be {'float32, int8 or int4' if onnx else 'another type'} "
            f"with --format {options.format}. Received: --storage {options.storage}"
        )
    for name, default in _OF_SAVED_MODELS.items():
        if onnx and getattr(options, name) != default:
            raise ValueError(
                f"--{name} must be left out with --format onnx. "
                f"Received: --{name} {getattr(options, name)}"
            )


def _export_onnx(options: argparse.Namespace, texts: list[str] | None) -> None:
    from labse_tf.export import export_onnx

    report = export_onnx(
        load_model(options.model),
        options.output,
        storage=options.storage or "int8",
        texts=texts,
        overwrite=options.overwrite,
    )
    print(f"ONNX: {report.path}")
    print(f"{report.storage}, {report.num_bytes / 1e6:.1f} MB with the tokenizer")
    print(f"parity: {report.parity.in_words()}")
    same, count = report.same_ids, report.parity.sentences
    print(f"tokenizer.json: the model's ids for {same:,} of {count:,} sentences")
    write_json(options.json, report.to_json())


def _check(options: argparse.Namespace) -> None:
    from rich.console import Console

    from labse_tf.export import check_saved_model

    if options.model is not None or options.output is not None:
        raise ValueError(
            "--check PATH does not allow --model or --output. "
            f"Received: --model {options.model}, --output {options.output}"
        )
    report = check_saved_model(options.check)
    Console(width=None if sys.stdout.isatty() else 100).print(report.table())
    write_json(options.json, report.to_dict())
    if not report.passed:
        raise ValueError(
            f"{options.check}: expected a SavedModel that passes all checks. "
            f"Received: failures in {', '.join(report.names('fail'))}"
        )
