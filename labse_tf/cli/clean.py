"""The command `clean`: pair files without unusable pairs."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.cli.arguments import (
    add_json,
    add_output,
    add_rules,
    add_text,
    command,
    rules_of,
)
from labse_tf.cli.output import print_table, say_skipped, write_json

if TYPE_CHECKING:
    from labse_tf.data import CleaningReport


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = command(
        commands,
        "clean",
        _clean,
        "remove pairs that are useless or harmful for training",
        "labse-tf clean corpus/ app.hi.po --held-out tatoeba/ --output cleaned",
    )
    add_text(parser)
    add_output(
        parser,
        "DIR",
        "output directory: en-XX.tsv.gz for each language, and a report of the removed "
        "pairs per rule with examples, cleaning.md and cleaning.json",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace DIR")
    add_rules(parser)
    add_json(parser)


def _clean(options: argparse.Namespace) -> None:
    from labse_tf import data
    from labse_tf.text import format_of

    if format_of(options.output) is not None and not Path(options.output).is_dir():
        raise ValueError(
            "--output must be a directory, in which each language has a file "
            f"en-XX.tsv.gz. Received: {options.output}"
        )
    rules, held_out = rules_of(options)
    skipped = data.SkipReport()
    files = data.find_pair_files(options.files)
    began = time.monotonic()
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
    )
    seconds = time.monotonic() - began
    say_skipped(skipped)
    _print_cleaned(report)
    read, kept = sum(report.read.values()), sum(report.kept.values())
    print(
        f"{kept:,} of {read:,} pairs in {len(report.read)} languages kept, "
        f"{read / seconds:,.0f} per second: {options.output}"
    )
    write_json(options.json, {**report.to_dict(), "seconds": round(seconds, 1)})


def _print_cleaned(report: CleaningReport) -> None:
    """Print one row per rule with examples; the report files have all languages."""
    read = sum(report.read.values())
    rows = []
    for rule, count in report.by_rule().items():
        share = f"{count / read:.2%}" if read else ""
        examples = [
            f"{code}: {_shorten(example.source)} | {_shorten(example.target)}"
            for code, example in report.examples_of(rule)
        ]
        rows.append((rule, f"{count:,}", share, "\n".join(examples)))
    print_table(("rule", "pairs", "share", "examples"), rows, left=("examples",))
    print("".join(f"{hint}\n" for hint in report.hints()), end="")


def _shorten(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
