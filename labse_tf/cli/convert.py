"""The command `convert`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from labse_tf.cli.arguments import (
    add_json,
    add_model_by_place,
    add_output,
    command,
    needs,
)
from labse_tf.cli.output import print_table, write_json
from labse_tf.files import check_vacant

# Copied from `presets`, which is slow to import.
STORAGES = ("float32", "float16", "int8", "int4")


def add_command(commands: Any) -> None:
    """Add the command `convert`."""
    parser = command(
        commands,
        "convert",
        _convert,
        "convert a model of another library, or write a model in another format",
        "labse-tf convert sentence-transformers-dir --output my-model, or: labse-tf "
        "convert my-model --storage int8 --output my-model-int8",
    )
    add_model_by_place(
        parser,
        "model to convert, or the name of a published model to download, see --list",
    )
    add_output(parser, "DIR", "new or empty directory", required=False)
    parser.add_argument(
        "--to",
        default="preset",
        choices=("preset", "huggingface"),
        help="format of the output; huggingface: a directory for sentence-transformers "
        "(default: preset)",
    )
    parser.add_argument(
        "--storage",
        default="float32",
        choices=STORAGES,
        help="storage type of a preset; int8: matrices in int8 with one scale per "
        "channel, other weights in float16; int4: token table in 4 bits, kernels in 4 "
        "bits only if that is exact, else in int8 (default: float32)",
    )
    parser.add_argument(
        "--vocabulary",
        metavar="PATH",
        help="a vocab.txt or the preprocessing SavedModel, for a SavedModel without a "
        "vocabulary",
    )
    parser.add_argument(
        "--prefix",
        metavar="TEXT",
        help='text that the new model puts before each sentence, such as "query: " for '
        "multilingual-e5-small (default: that of MODEL; mostly none)",
    )
    parser.add_argument(
        "--hub",
        choices=("huggingface", "kaggle"),
        help="hub to download from (default: the first that can be reached)",
    )
    parser.add_argument(
        "--list", action="store_true", help="print the available models and exit"
    )
    needs(
        parser,
        "convert",
        "--to huggingface",
        lambda options: options.to == "huggingface" and not options.list,
    )
    add_json(parser)


def _convert(options: argparse.Namespace) -> None:
    from labse_tf import checkpoints, encoders, presets
    from labse_tf.export.parity import compare, sample_texts
    from labse_tf.models import LaBSE

    if options.list:
        _print_family(options.json)
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
            "--storage must be float32 for --to huggingface. "
            f"Received: --storage {options.storage}"
        )
    path, vocabulary, source = options.model, options.vocabulary, None
    published = None if Path(path).exists() else presets.published_name(path)
    if published is not None:
        fetched = checkpoints.download(published, hub=options.hub)
        path, source = fetched.path, fetched.source
        vocabulary = vocabulary or fetched.vocabulary
    elif options.hub is not None:
        raise ValueError(
            "--hub requires one of the published models "
            f"{', '.join(presets.FAMILY)}. Received: {options.model}"
        )
    model = encoders.load_model(path, vocabulary=vocabulary)
    if options.prefix is not None:
        model = model.with_prefix(options.prefix)
    layout = encoders.layout_of(path)
    if layout in (None, "preset"):
        path = presets.find(path)
    if foreign:
        checkpoints.to_huggingface(model, target, overwrite=target.exists())
    else:
        if source is None:
            source = checkpoints.describe_source(path, layout)
        checkpoints.save_converted(model, target, source, storage=options.storage)
    texts = sample_texts(model)
    again = checkpoints.from_huggingface if foreign else LaBSE.from_preset
    cosine = compare(
        again(target).encode(texts, progress=False), model.encode(texts, progress=False)
    )
    sizes = [_megabytes(folder) for folder in (Path(path), target)]
    print(
        f"{options.to if foreign else options.storage}: {sizes[0]:.1f} -> "
        f"{sizes[1]:.1f} MB"
    )
    print(f"parity: {cosine.in_words()}")
    print(f"model: {target}")
    write_json(
        options.json,
        {
            "model": str(target),
            "from": options.model,
            "format": options.to,
            "storage": options.storage,
            "megabytes": {"before": sizes[0], "after": sizes[1]},
            "cosine": {
                "sentences": cosine.sentences,
                "mean": cosine.mean_cosine,
                "lowest": cosine.lowest_cosine,
            },
        },
    )


def _megabytes(path: Path) -> float:
    """Return the size in MB of a directory, or of the directory of a checkpoint."""
    folder = path if path.is_dir() else path.parent
    files = (file for file in folder.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files) / 1e6


def _print_family(json: str | None) -> None:
    """Print the models that are available by name, and write them as JSON."""
    from labse_tf import presets

    rows, places = [], []
    for name in presets.shipped_names():
        folder = presets.find(name)
        sizes = presets.read_config(folder)["backbone"]
        stated = presets.stated_languages(folder)
        languages = "see card" if stated is None else str(len(stated))
        rows.append((name, sizes, languages, presets.LICENSES[name]))
        places.append(f"{name}: ships with labse_tf")
    for name, published in presets.FAMILY.items():
        languages = str(len(published.languages))
        rows.append((name, published.backbone, languages, published.licence))
        places += [f"{name}: {origin.url}" for origin in published.origins]
    print_table(
        ("name", "layers", "width", "tokens", "languages", "license"),
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
    write_json(
        json,
        {
            "models": [
                {
                    "name": name,
                    "num_layers": sizes["num_layers"],
                    "hidden_dim": sizes["hidden_dim"],
                    "vocabulary_size": sizes["vocabulary_size"],
                    "license": licence,
                }
                for name, sizes, _, licence in rows
            ]
        },
    )
