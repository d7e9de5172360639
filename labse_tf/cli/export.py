"""The command export."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from labse_tf.cli.arguments import (
    add_dtype,
    add_json,
    add_model,
    add_output,
    command,
)
from labse_tf.cli.output import write_json
from labse_tf.encoders import load_model

_EXPORT_STORAGES = ("float32", "bfloat16", "float16", "int8")


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = command(
        commands,
        "export",
        _export,
        "write a SavedModel for TF Hub and TF Serving, preprocessing inside",
        "labse-tf export --model my-model --output serving/1",
    )
    add_model(parser, "model to export")
    add_output(parser, "DIR", "for TF Serving NAME/VERSION", required=False)
    parser.add_argument(
        "--check",
        metavar="PATH",
        help="instead: check any SavedModel for text against TF Hub's contract and "
        "what TF Serving runs; exit status 2 where it fails",
    )
    add_json(parser)
    parser.add_argument(
        "--interface",
        default="text",
        choices=("text", "preprocessor", "encoder"),
        help="text: strings to vectors; preprocessor and encoder: the two halves "
        "(default: text)",
    )
    parser.add_argument(
        "--storage",
        default="float32",
        choices=_EXPORT_STORAGES,
        help="bfloat16, float16: half the size, frozen; int8: the token table at a "
        "quarter, frozen, the rest float32 (default: float32)",
    )
    add_dtype(parser)
    parser.add_argument(
        "--pad",
        default="longest",
        choices=("longest", "buckets"),
        help="rows to the longest of the batch, or to the next of --buckets "
        "(default: longest)",
    )
    parser.add_argument(
        "--buckets",
        nargs="+",
        type=int,
        metavar="N",
        help="lengths in tokens (default: 16 32 64 128); the model's greatest is the "
        "last",
    )
    parser.add_argument(
        "--texts",
        metavar="FILE",
        help="measure the parity on these sentences, one a line or a pair file "
        "(default: the shipped sample in 25 languages)",
    )
    parser.add_argument(
        "--serving",
        action="store_true",
        help="for TF Serving: warm-up requests, and batching_parameters.txt beside DIR",
    )
    parser.add_argument("--overwrite", action="store_true")


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
            "--buckets goes with --pad buckets. "
            f"Received: --buckets {options.buckets}, --pad {options.pad}"
        )
    from labse_tf.data import read_sentences
    from labse_tf.export import export_saved_model, read_report

    texts = None
    if options.texts is not None:
        texts = [text for _, text in read_sentences(options.texts, language="und")]
        if not texts:
            raise ValueError(f"{options.texts}: expected sentences. Received: none")
    path = export_saved_model(
        load_model(options.model),
        options.output,
        options.interface,
        storage=options.storage,
        dtype=options.dtype,
        pad=options.pad,
        **({} if options.buckets is None else {"buckets": options.buckets}),
        texts=texts,
        serving=options.serving,
        overwrite=options.overwrite,
    )
    report = read_report(path)
    print(f"SavedModel: {path}")
    computes = "" if report.dtype == "float32" else f"computes in {report.dtype}, "
    size = f"{report.num_bytes / 1e6:.1f} MB"
    print(f"{report.interface}, {report.storage}, {computes}{size}")
    if report.parity is None:
        print("parity: its token ids are the model's")
    else:
        print(
            f"parity: {report.parity.in_words()}, largest difference "
            f"{report.parity.largest_difference:.1e}"
        )
    write_json(options.json, {"path": str(path), **report.to_json()})


def _check(options: argparse.Namespace) -> None:
    from rich.console import Console

    from labse_tf.export import check_saved_model

    if options.model is not None or options.output is not None:
        raise ValueError(
            "--check PATH writes no model and takes none. "
            f"Received: --model {options.model}, --output {options.output}"
        )
    report = check_saved_model(options.check)
    Console(width=None if sys.stdout.isatty() else 100).print(report.table())
    write_json(options.json, report.to_dict())
    if not report.passed:
        raise ValueError(
            f"{options.check}: expected a SavedModel that passes. Received: failures "
            f"in {', '.join(report.names('fail'))}"
        )
