"""The command `balance`: the share of each language in the batches."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

from labse_tf.cli import arguments
from labse_tf.cli.output import load, print_table, say_skipped, write_json


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = arguments.command(
        commands,
        "balance",
        _balance,
        "show the share of each language in the batches of a training run",
        "labse-tf balance cleaned --smoothing 0.3 --cap 100000 --plot shares.png",
    )
    arguments.add_text(parser)
    parser.add_argument(
        "--smoothing",
        type=float,
        default=0.3,
        help="exponent of the numbers of pairs: 1 for original shares, 0 for equal "
        "shares (default: 0.3)",
    )
    parser.add_argument(
        "--cap", type=int, metavar="N", help="more pairs than this do not raise a share"
    )
    parser.add_argument(
        "--draws",
        type=int,
        metavar="N",
        help="total pairs drawn: steps times batch size (default: the number of pairs)",
    )
    arguments.add_plot(parser, "shares before and after")
    arguments.add_json(parser)


def _balance(options: argparse.Namespace) -> None:
    from labse_tf import data

    counts = _counted(options)
    shares = data.balance(
        counts, smoothing=options.smoothing, cap=options.cap, draws=options.draws
    )
    print_table(
        ("language", "pairs", "before", "after", "draws per pair"),
        [
            (s.language, f"{s.pairs:,}", f"{s.before:.2%}", f"{s.after:.2%}")
            + (f"{s.passes:.2f}",)
            for s in shares
        ],
    )
    if options.plot:
        from labse_tf.plots import plot_shares

        plot_shares(
            options.plot,
            labels=[s.language for s in shares],
            before=[s.before for s in shares],
            after=[s.after for s in shares],
        )
        print(f"plot: {options.plot}")
    write_json(
        options.json,
        {
            "smoothing": options.smoothing,
            "cap": options.cap,
            "languages": {
                s.language: {
                    "pairs": s.pairs,
                    "before": round(s.before, 6),
                    "after": round(s.after, 6),
                    "passes": round(s.passes, 4),
                }
                for s in shares
            },
        },
    )


def _counted(options: argparse.Namespace) -> dict[str, int]:
    """Return language -> number of pairs, of a prepared directory or of files."""
    from labse_tf import data

    if len(options.files) == 1 and data.is_prepared(options.files[0]):
        return data.prepared_counts(options.files[0], options.languages)
    skipped = data.SkipReport()
    files = data.find_pair_files(options.files)
    pairs = load(options, files, data.read_files, skipped)
    counts = Counter(pair.language for pair in pairs)
    say_skipped(skipped)
    return counts
