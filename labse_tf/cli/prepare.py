"""The command `prepare`: pairs to token ids in shards."""

from __future__ import annotations

import argparse
import time
from typing import Any

from labse_tf.cli import arguments
from labse_tf.cli.output import load, say_counts, say_skipped, write_json


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = arguments.command(
        commands,
        "prepare",
        _prepare,
        "tokenize, shuffle and shard pairs once for many training runs",
        "labse-tf prepare cleaned --vocab vocab.txt --output prepared, then: "
        "labse-tf train prepared --vocab vocab.txt --output my-model",
    )
    arguments.add_text(parser)
    arguments.add_shards(parser)
    arguments.add_json(parser)


def _prepare(options: argparse.Namespace) -> None:
    from labse_tf import data

    tokenizer = arguments.tokenizer_of(options)
    skipped = data.SkipReport()
    began = time.monotonic()
    files = data.find_pair_files(options.files)
    pairs = load(options, files, data.load_pairs, skipped)
    say_skipped(skipped)
    say_counts(pairs.counts, "pairs")
    description = data.prepare_pairs(
        pairs,
        tokenizer,
        options.output,
        formats=options.format,
        sequence_length=options.sequence_length,
        shard_size=options.shard_size,
        seed=options.seed,
    )
    seconds = time.monotonic() - began
    shards = sum(len(description.shards(code)) for code in description.counts)
    print(
        f"{len(pairs):,} pairs in {len(pairs.counts)} languages, {shards:,} shards of "
        f"{' and '.join(description.formats)}, {len(pairs) / seconds:,.0f} pairs "
        f"per second: {options.output}"
    )
    write_json(
        options.json,
        {"pairs": len(pairs), "shards": shards, "seconds": round(seconds, 1)},
    )
