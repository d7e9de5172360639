"""The command `vocab`: text or word counts to a WordPiece vocabulary."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

from labse_tf.cli.arguments import (
    add_case,
    add_json,
    add_output,
    add_text,
    command,
)
from labse_tf.cli.output import print_table, say_skipped, write_json


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = command(
        commands,
        "vocab",
        _vocab,
        "learn a WordPiece vocabulary from text in many languages",
        "labse-tf vocab en-hi.tsv en-bn.tsv.gz --size 32000 --output vocab.txt",
    )
    add_text(parser, sentences=True)
    parser.add_argument(
        "--from-counts",
        action="store_true",
        help="the files are word counts of `python -m labse_tf.beam count-words`, "
        "which takes --language, --on-error, --lowercase and --strip-accents itself",
    )
    parser.add_argument(
        "--size",
        type=int,
        required=True,
        metavar="N",
        help="maximum number of tokens, such as 32000",
    )
    add_output(parser, "FILE", "the vocabulary, one token per line")
    parser.add_argument(
        "--smoothing",
        type=float,
        default=0.3,
        help="exponent of the language sizes: 1 for original shares, 0 for equal "
        "shares (default: 0.3, as in the paper)",
    )
    add_case(parser)
    parser.add_argument(
        "--workers", type=int, metavar="N", help="threads (default: one per core)"
    )
    add_json(parser)


def _vocab(options: argparse.Namespace) -> None:
    from labse_tf import data, tokenizers
    from labse_tf.languages import chosen_languages

    if options.from_counts:
        _check_counted(options)
        counts = tokenizers.read_word_counts(_count_files(options.files))
        if options.languages is not None:
            counts = chosen_languages(counts, options.languages, "the counts")
        tokens = tokenizers.learn_vocabulary_from_counts(
            counts, options.size, smoothing=options.smoothing
        )
        tokenizers.save_vocabulary(tokens, options.output)
        print(f"{len(tokens):,} tokens in {options.output}")
        write_json(options.json, {"size": len(tokens)})
        return
    report = data.SkipReport()
    files = data.find_sentence_files(options.files)
    reader = functools.partial(
        data.read_sentences,
        language=options.language,
        on_error=options.on_error,
        skipped=report,
    )
    tokens = tokenizers.learn_vocabulary(
        files,
        options.size,
        reader=reader,
        smoothing=options.smoothing,
        lowercase=options.lowercase,
        strip_accents=options.strip_accents,
        languages=options.languages,
        num_workers=options.workers,
    )
    tokenizers.save_vocabulary(tokens, options.output)
    say_skipped(report)
    rates = tokenizers.unk_rate(
        files,
        tokenizers.WordPieceTokenizer(
            tokens, lowercase=options.lowercase, strip_accents=options.strip_accents
        ),
        reader=reader,
    )
    print_table(
        ("language", "[UNK]"), [(code, f"{rate:.3%}") for code, rate in rates.items()]
    )
    print(f"{len(tokens):,} tokens in {options.output}")
    write_json(options.json, {"size": len(tokens), "unk_rate": rates})


def _check_counted(options: argparse.Namespace) -> None:
    """Raise an error for flags that do not apply to finished counts."""
    given = {
        "--language": options.language is not None,
        "--on-error": options.on_error != "raise",
        "--lowercase": options.lowercase,
        "--[no-]strip-accents": options.strip_accents is not None,
        "--workers": options.workers is not None,
    }
    flags = " ".join(flag for flag, is_given in given.items() if is_given)
    if flags:
        raise ValueError(
            "With --from-counts the words are already counted: expected these flags "
            f"in `count-words`, or not at all. Received: {flags}"
        )


def _count_files(files: list[str]) -> list[Path]:
    """Return files of counts; a directory stands for its files `counts-*`."""
    found: list[Path] = []
    for path in map(Path, files):
        inside = sorted(path.glob("counts-*")) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"{path}: expected counts-*.tsv.gz. Received: none")
        found += inside
    return found
