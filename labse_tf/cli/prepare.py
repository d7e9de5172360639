"""The command prepare."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from labse_tf.cli.arguments import (
    add_case,
    add_json,
    add_model,
    add_output,
    add_text,
    command,
)
from labse_tf.cli.output import load, say_counts, say_skipped, write_json
from labse_tf.encoders import load_model

if TYPE_CHECKING:
    from labse_tf.tokenizers import WordPieceTokenizer


def add_command(commands: Any) -> None:
    """Adds the command to the parser of all commands."""
    parser = command(
        commands,
        "prepare",
        _prepare,
        "tokenize, shuffle and shard pairs once, to train on them many times",
        "labse-tf prepare cleaned --vocab vocab.txt --output prepared, then: "
        "labse-tf train prepared --vocab vocab.txt --output my-model",
    )
    add_text(parser)
    add_shards(parser)
    add_json(parser)


def add_shards(parser: argparse.ArgumentParser) -> None:
    """Where prepared pairs go and how."""
    tokenizer = parser.add_mutually_exclusive_group(required=True)
    tokenizer.add_argument("--vocab", metavar="FILE", help="of a new model")
    add_model(tokenizer, "model whose tokenizer to use")
    add_case(parser)
    add_output(parser, "DIR", "local, or gs://bucket/folder")
    parser.add_argument(
        "--format",
        nargs="+",
        default=("arrays", "tfrecord"),
        choices=("arrays", "tfrecord"),
        help="arrays are read into memory whole and train in any way, also without "
        "TensorFlow; tfrecord is streamed (default: both)",
    )
    parser.add_argument(
        "--sequence-length",
        type=int,
        default=128,
        metavar="N",
        help="most tokens a sentence; training may use fewer (default: 128)",
    )
    parser.add_argument(
        "--shard-size",
        type=int,
        default=1 << 16,
        metavar="N",
        help="pairs of a shard (default: 65536)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the order (default: 0)"
    )


def tokenizer_of(options: argparse.Namespace) -> WordPieceTokenizer:
    """The tokenizer that the user has named."""
    from labse_tf import tokenizers

    if options.model is not None:
        return load_model(options.model).text_preprocessor().tokenizer
    return tokenizers.WordPieceTokenizer(
        options.vocab,
        lowercase=options.lowercase,
        strip_accents=options.strip_accents,
    )


def _prepare(options: argparse.Namespace) -> None:
    from labse_tf import data

    tokenizer = tokenizer_of(options)
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
        f"{' and '.join(description.formats)}, {len(pairs) / seconds:,.0f} pairs a "
        f"second: {options.output}"
    )
    write_json(
        options.json,
        {"pairs": len(pairs), "shards": shards, "seconds": round(seconds, 1)},
    )
