"""Commands that make text ready for training: clean, prepare, balance."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from labse_tf.cli.commands import (
    add_case,
    add_json,
    add_text,
    command,
    load,
    load_model,
    print_table,
    say_counts,
    say_skipped,
    write_json,
)

if TYPE_CHECKING:
    from labse_tf.data import CleaningReport, CleaningRules, HeldOut
    from labse_tf.tokenizers import WordPieceTokenizer

# === clean ===

# Fields of `CleaningRules`, which is not imported for a parser alone; a test compares.
_NUMBERS: dict[str, tuple[type, str]] = {
    "min_characters": (int, "least of each side (default: 10, the paper's)"),
    "max_characters": (int, "most of each side (default: 5000, the paper's)"),
    "min_letters": (float, "share of letters in what is visible (default: 0.5)"),
    "min_script": (float, "share of letters in the side's own script (default: 0.4)"),
    "max_length_ratio": (float, "of the two sides (default: 3.0)"),
}


def _add_clean(commands: Any) -> None:
    parser = command(
        commands,
        "clean",
        _clean,
        "leave out pairs that teach an encoder nothing or something wrong",
        "labse-tf clean corpus/ app.hi.po --held-out tatoeba/ --output cleaned",
    )
    add_text(parser)
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="en-XX.tsv.gz of each language, and what each rule left out, with "
        "examples: cleaning.md, cleaning.json",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace DIR")
    add_rules(parser)
    add_json(parser)


def add_rules(parser: argparse.ArgumentParser) -> None:
    """Which pairs are left out."""
    parser.add_argument(
        "--held-out",
        nargs="+",
        default=[],
        metavar="[NAME=]PATH",
        help="test sets: pairs with one of their sentences on either side, in any "
        "language, go",
    )
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        metavar="RULE",
        help="rules to switch off: too_short, too_long, markup, few_letters, "
        "wrong_script, length_ratio, identical, duplicate, near_duplicate",
    )
    parser.add_argument(
        "--interface",
        action="store_true",
        help="take tags, placeholders and accelerators out of the sentences first, "
        "as messages of programs have them",
    )
    for name, (kind, meaning) in _NUMBERS.items():
        parser.add_argument(
            "--" + name.replace("_", "-"), type=kind, metavar="N", help=meaning
        )


def rules_of(options: argparse.Namespace) -> tuple[CleaningRules, list[HeldOut]]:
    """The rules and held-out sets that the user has named."""
    from labse_tf import data

    given = {name: getattr(options, name) for name in _NUMBERS}
    rules = data.CleaningRules(
        **{name: value for name, value in given.items() if value is not None},
        interface=options.interface,
    ).without(options.without)
    held_out = [data.HeldOut.parse(text) for text in options.held_out]
    for each in held_out:
        print(f"{each.name}: {len(each):,} sentences held out", file=sys.stderr)
    return rules, held_out


def _clean(options: argparse.Namespace) -> None:
    from labse_tf import data
    from labse_tf.progress import progress_bar

    rules, held_out = rules_of(options)
    skipped = data.SkipReport()
    files = data.find_pair_files(options.files)
    began = time.monotonic()
    show = sys.stderr.isatty()
    with progress_bar("Cleaning", len(files), "files", show=show) as advance:
        report = data.clean_files(
            files,
            options.output,
            rules,
            held_out=held_out,
            language=options.language,
            languages=options.languages,
            on_error=options.on_error,
            skipped=skipped,
            overwrite=options.overwrite,
            progress=lambda path, count: advance(1),
        )
    seconds = time.monotonic() - began
    say_skipped(skipped)
    _print_cleaned(report)
    read, kept = sum(report.read.values()), sum(report.kept.values())
    print(
        f"{kept:,} of {read:,} pairs in {len(report.read)} languages kept, "
        f"{read / seconds:,.0f} a second: {options.output}"
    )
    write_json(options.json, {**report.to_dict(), "seconds": round(seconds, 1)})


def _print_cleaned(report: CleaningReport) -> None:
    """A table of the rules with examples; languages have theirs in the files."""
    read = sum(report.read.values())
    rows = []
    for rule, count in report.by_rule().items():
        share = f"{count / read:.2%}" if read else ""
        examples = [
            f"{code}: {_shorten(example.source)} | {_shorten(example.target)}"
            for code, example in report.examples_of(rule)
        ]
        rows.append((rule, f"{count:,}", share, "\n".join(examples)))
    print_table(("rule", "pairs", "share", "such as"), rows, left=("such as",))


def _shorten(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


# === prepare ===


def _add_prepare(commands: Any) -> None:
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
    tokenizer.add_argument("--model", metavar="MODEL", help="with its tokenizer")
    add_case(parser)
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="local, or gs://bucket/folder"
    )
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
    from labse_tf.progress import progress_bar

    tokenizer = tokenizer_of(options)
    skipped = data.SkipReport()
    began = time.monotonic()
    files = data.find_pair_files(options.files)
    pairs = load(options, files, data.load_pairs, skipped)
    say_skipped(skipped)
    say_counts(pairs.counts, "pairs")
    show = sys.stderr.isatty()
    with progress_bar("Preparing", len(pairs), "pairs", show=show) as advance:
        description = data.prepare_pairs(
            pairs,
            tokenizer,
            options.output,
            formats=options.format,
            sequence_length=options.sequence_length,
            shard_size=options.shard_size,
            seed=options.seed,
            progress=advance,
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


# === balance ===


def _add_balance(commands: Any) -> None:
    parser = command(
        commands,
        "balance",
        _balance,
        "show what each language gets of the batches, before a training",
        "labse-tf balance cleaned --smoothing 0.3 --cap 100000 --plot shares.png",
    )
    add_text(parser)
    parser.add_argument(
        "--smoothing",
        type=float,
        default=0.3,
        help="exponent of the pairs: 1 as they are, 0 all alike (default: 0.3)",
    )
    parser.add_argument(
        "--cap", type=int, metavar="N", help="pairs beyond which a share stays"
    )
    parser.add_argument(
        "--draws",
        type=int,
        metavar="N",
        help="pairs drawn in all, steps times batch size (default: as many as there "
        "are)",
    )
    parser.add_argument("--plot", metavar="FILE.png", help="shares before and after")
    add_json(parser)


def _balance(options: argparse.Namespace) -> None:
    from labse_tf import data

    counts = _counted(options)
    shares = data.balance(
        counts, smoothing=options.smoothing, cap=options.cap, draws=options.draws
    )
    print_table(
        ("language", "pairs", "before", "after", "times each"),
        [
            (s.language, f"{s.pairs:,}", f"{s.before:.2%}", f"{s.after:.2%}")
            + (f"{s.passes:.2f}",)
            for s in shares
        ],
    )
    if options.plot:
        from labse_tf.evaluation.plots import plot_shares

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
    """Pairs of each language, of a prepared directory or of files."""
    from labse_tf import data
    from labse_tf.progress import progress_bar

    if len(options.files) == 1 and data.is_prepared(options.files[0]):
        return data.prepared_counts(options.files[0], options.languages)
    skipped = data.SkipReport()
    files = data.find_pair_files(options.files)
    show = sys.stderr.isatty()
    with progress_bar("Counting", len(files), "files", show=show) as advance:
        pairs = data.read_files(
            files,
            language=options.language,
            languages=options.languages,
            on_error=options.on_error,
            skipped=skipped,
            progress=lambda path, count: advance(1),
        )
        counts = Counter(pair.language for pair in pairs)
    say_skipped(skipped)
    return counts


COMMANDS = (_add_clean, _add_prepare, _add_balance)
