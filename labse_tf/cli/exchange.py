"""Commands that bring models in and out: export, convert."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from labse_tf.cli.commands import add_model, command

_STORAGES = ("float32", "float16", "int8")  # of `presets`, which is slow to import

# === export ===


def _add_export(commands: Any) -> None:
    parser = command(
        commands,
        "export",
        _export,
        "write a SavedModel for TF Hub and TF Serving, preprocessing inside",
        "labse-tf export --model my-model --output serving/1",
    )
    add_model(parser)
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="for TF Serving NAME/VERSION"
    )
    parser.add_argument("--interface", default="text", choices=("text",))
    parser.add_argument("--overwrite", action="store_true")


def _export(options: argparse.Namespace) -> None:
    from labse_tf.export import export_saved_model
    from labse_tf.models import LaBSE

    path = export_saved_model(
        LaBSE.from_preset(options.model),
        options.output,
        options.interface,
        overwrite=options.overwrite,
    )
    print(f"SavedModel: {path}")


# === convert ===


def _add_convert(commands: Any) -> None:
    parser = command(
        commands,
        "convert",
        _convert,
        "write a model's weights in a smaller storage type",
        "labse-tf convert my-model --storage int8 --output my-model-int8",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a shipped name or a preset directory"
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR")
    parser.add_argument(
        "--storage",
        default="float32",
        choices=_STORAGES,
        help="int8: the token table as int8 with a scale a row, the rest as float16 "
        "(default: float32)",
    )


def _convert(options: argparse.Namespace) -> None:
    from labse_tf import presets
    from labse_tf.models import LaBSE

    source, target = presets.find(options.model), Path(options.output)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(
            f"--output must be a new or empty directory. Received: {target}"
        )
    model = LaBSE.from_preset(source)
    model.save_to_preset(target, storage=options.storage)
    # The vocabulary is text that every model has: what has rounding done to it?
    words = model.text_preprocessor().tokenizer.vocabulary[::7][:5000]
    before = model.encode(words, progress=False)
    after = LaBSE.from_preset(target).encode(words, progress=False)
    cosine = (before * after).sum(axis=1)
    sizes = [
        sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) / 1e6
        for folder in (source, target)
    ]
    print(
        f"{options.storage}: {sizes[0]:.1f} -> {sizes[1]:.1f} MB; cosine of new and "
        f"old vectors of {len(words):,} tokens: mean {cosine.mean():.5f}, lowest "
        f"{cosine.min():.5f}"
    )
    print(f"model: {target}")


COMMANDS = (_add_export, _add_convert)
