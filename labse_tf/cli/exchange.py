"""Commands that bring models in and out: export, convert, trim."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from labse_tf.cli.commands import (
    PAIRS_HELP,
    add_dtype,
    add_json,
    add_on_error,
    command,
    load_model,
    print_table,
    say_skipped,
    write_json,
)
from labse_tf.files import check_vacant

_STORAGES = ("float32", "float16", "int8")  # of `presets`, which is slow to import

# === export ===

_EXPORT_STORAGES = ("float32", "bfloat16", "float16", "int8")


def _add_export(commands: Any) -> None:
    parser = command(
        commands,
        "export",
        _export,
        "write a SavedModel for TF Hub and TF Serving, preprocessing inside",
        "labse-tf export --model my-model --output serving/1",
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="a shipped name, a preset directory or a Hugging Face directory",
    )
    parser.add_argument("--output", metavar="DIR", help="for TF Serving NAME/VERSION")
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


# === convert ===


def _add_convert(commands: Any) -> None:
    parser = command(
        commands,
        "convert",
        _convert,
        "bring a model in from elsewhere, or write it in another form",
        "labse-tf convert sentence-transformers-dir --output my-model, or: labse-tf "
        "convert my-model --storage int8 --output my-model-int8",
    )
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a shipped name or a preset directory; a Hugging Face directory, a "
        "SavedModel of TF Hub or a BERT checkpoint; or the name of a published model "
        "to download (--list names them)",
    )
    parser.add_argument("-o", "--output", metavar="DIR", help="new or empty")
    parser.add_argument(
        "--to",
        default="preset",
        choices=("preset", "huggingface"),
        help="huggingface: a directory for sentence-transformers (default: preset)",
    )
    parser.add_argument(
        "--storage",
        default="float32",
        choices=_STORAGES,
        help="of a preset; int8: the token table as int8 with a scale a row, the rest "
        "as float16 (default: float32)",
    )
    parser.add_argument(
        "--vocabulary",
        metavar="PATH",
        help="for a SavedModel without one: a vocab.txt, or the preprocessing "
        "SavedModel",
    )
    parser.add_argument(
        "--hub",
        choices=("huggingface", "kaggle"),
        help="where to download from (default: the first that answers)",
    )
    parser.add_argument(
        "--list", action="store_true", help="print the published models and stop"
    )


def _convert(options: argparse.Namespace) -> None:
    from labse_tf import checkpoints, presets
    from labse_tf.models import LaBSE

    if options.list:
        _print_family()
        return
    if options.model is None or options.output is None:
        raise ValueError(
            "convert needs MODEL and --output DIR, or --list. "
            f"Received: MODEL={options.model}, --output={options.output}"
        )
    target = Path(options.output)
    check_vacant(target, "--output")
    foreign = options.to == "huggingface"
    if foreign and options.storage != "float32":
        raise ValueError(
            "--storage is for presets, Hugging Face directories are float32. "
            f"Received: --storage {options.storage}"
        )
    path, vocabulary, source = options.model, options.vocabulary, None
    if path in presets.FAMILY and not Path(path).exists():
        fetched = checkpoints.download(path, hub=options.hub)
        path, source = fetched.path, fetched.source
        vocabulary = vocabulary or fetched.vocabulary
    elif options.hub is not None:
        raise ValueError(
            f"--hub is for {', '.join(presets.FAMILY)}. Received: {options.model}"
        )
    model = checkpoints.load(path, vocabulary=vocabulary)
    if checkpoints.layout_of(path) in (None, "preset"):
        path = presets.find(path)
    if foreign:
        checkpoints.to_huggingface(model, target, overwrite=target.exists())
    else:
        if source is None:
            source = checkpoints.describe_source(path)
        checkpoints.save_converted(model, target, source, storage=options.storage)
    # The vocabulary is text that every model has: what has rounding done to it?
    words = model.text_preprocessor().tokenizer.vocabulary[::7][:5000]
    before = model.encode(words, progress=False)
    again = checkpoints.from_huggingface if foreign else LaBSE.from_preset
    after = again(target).encode(words, progress=False)
    cosine = (before * after).sum(axis=1)
    sizes = [_megabytes(folder) for folder in (Path(path), target)]
    print(
        f"{options.to if foreign else options.storage}: {sizes[0]:.1f} -> "
        f"{sizes[1]:.1f} MB; cosine of new and old vectors of {len(words):,} tokens: "
        f"mean {cosine.mean():.5f}, lowest {cosine.min():.5f}"
    )
    print(f"model: {target}")


def _megabytes(path: Path) -> float:
    """The size of a directory, or of the one that a checkpoint is in."""
    folder = path if path.is_dir() else path.parent
    files = (file for file in folder.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files) / 1e6


def _print_family() -> None:
    """What can be had by name: shipped, or published by others."""
    from labse_tf import presets

    rows, places = [], []
    for name in presets.shipped_names():
        sizes = presets.read_config(presets.find(name))["backbone"]
        rows.append((name, sizes, "see its card", "Apache-2.0"))
        places.append(f"{name}: ships with labse_tf")
    for name, published in presets.FAMILY.items():
        languages = str(len(published.languages))
        rows.append((name, published.backbone, languages, published.licence))
        places += [f"{name}: {origin.url}" for origin in published.origins]
    print_table(
        ("name", "layers", "width", "tokens", "languages", "licence"),
        [
            (
                name,
                str(sizes["num_layers"]),
                str(sizes["hidden_dim"]),
                f"{sizes['vocabulary_size']:,}",
                languages,
                licence,
            )
            for name, sizes, languages, licence in rows
        ],
    )
    print("\n".join(places))


# === trim ===


def _add_trim(commands: Any) -> None:
    parser = command(
        commands,
        "trim",
        _trim,
        "keep the tokens that some languages need, and measure what that costs",
        "labse-tf trim labse-nano --corpus en-hi.tsv en-ta.tsv.gz -o nano-hi-ta, or "
        "without text: labse-tf trim labse-nano --languages hi ta -o nano-hi-ta",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a shipped name or a preset directory"
    )
    parser.add_argument(
        "--corpus",
        nargs="+",
        metavar="FILE",
        help="keep the tokens that this text uses: text (XX.txt, or XX=FILE), or "
        + PAIRS_HELP,
    )
    parser.add_argument(
        "--languages",
        nargs="+",
        metavar="CODE",
        help="only these languages of the corpus; without --corpus: keep all tokens "
        "written in their scripts",
    )
    parser.add_argument(
        "--language",
        metavar="CODE",
        help="of all files that are not given as XX=FILE",
    )
    parser.add_argument(
        "--english",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep English too (default: yes)",
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR")
    parser.add_argument(
        "--min-count",
        type=int,
        default=1,
        metavar="N",
        help="keep tokens that the corpus uses so often or more (default: 1)",
    )
    parser.add_argument(
        "--keep-characters",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep all tokens of one character in the languages' scripts, so that "
        "words which the corpus lacks can be spelled (default: yes)",
    )
    parser.add_argument(
        "--held-out",
        nargs="+",
        metavar="FILE",
        help="text to compare the old and the new model on (default: 5 %% of the "
        "corpus, at most 1,000 sentences a language, which then choose no tokens; "
        "without a corpus the shipped sample)",
    )
    parser.add_argument(
        "--storage",
        choices=_STORAGES,
        help="of the new weights (default: as MODEL has them)",
    )
    add_on_error(parser)
    add_json(parser)


def _trim(options: argparse.Namespace) -> None:
    from labse_tf import data, trimming

    if not options.corpus and not options.languages:
        raise ValueError("trim needs --corpus or --languages. Received: neither")
    skipped = data.SkipReport()
    report = trimming.trim_preset(
        options.model,
        options.output,
        files=options.corpus,
        languages=options.languages,
        english=options.english,
        language=options.language,
        held_out=options.held_out,
        min_count=options.min_count,
        keep_characters=options.keep_characters,
        storage=options.storage,
        on_error=options.on_error,
        skipped=skipped,
    )
    say_skipped(skipped)
    print_table(
        ("", "before", "after", "left"),
        [
            (name, form(before), form(after), f"{after / before:.1%}")
            for name, (before, after), form in (
                ("tokens", report.tokens, "{:,}".format),
                ("parameters", report.parameters, "{:,}".format),
                ("bytes on the disk", report.bytes, "{:,}".format),
            )
        ],
    )
    print(f"tokens kept: {report.chosen_by}")
    if report.parity:
        print(f"old and new model on {report.held_out}:")
        print_table(trimming.COLUMNS, report.rows())
    else:
        print("no text to compare the old and the new model on: give --held-out FILE")
    print(f"model: {options.output}")
    write_json(options.json, report.to_dict())


COMMANDS = (_add_export, _add_convert, _add_trim)
