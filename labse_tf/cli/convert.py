"""The command convert."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from labse_tf.cli.arguments import (
    add_model_by_place,
    add_output,
    command,
)
from labse_tf.cli.output import print_table
from labse_tf.files import check_vacant

STORAGES = ("float32", "float16", "int8")  # of `presets`, which is slow to import


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = command(
        commands,
        "convert",
        _convert,
        "bring a model in from elsewhere, or write it in another form",
        "labse-tf convert sentence-transformers-dir --output my-model, or: labse-tf "
        "convert my-model --storage int8 --output my-model-int8",
    )
    add_model_by_place(
        parser,
        "model to convert, also the name of a published one to download, see --list",
    )
    add_output(parser, "DIR", "new or empty", required=False)
    parser.add_argument(
        "--to",
        default="preset",
        choices=("preset", "huggingface"),
        help="huggingface: a directory for sentence-transformers (default: preset)",
    )
    parser.add_argument(
        "--storage",
        default="float32",
        choices=STORAGES,
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
    from labse_tf import checkpoints, encoders, presets
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
    model = encoders.load_model(path, vocabulary=vocabulary)
    layout = encoders.layout_of(path)
    if layout in (None, "preset"):
        path = presets.find(path)
    if foreign:
        checkpoints.to_huggingface(model, target, overwrite=target.exists())
    else:
        if source is None:
            source = checkpoints.describe_source(path, layout)
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
