"""The command clean."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from labse_tf.cli.arguments import add_json, add_output, add_text, command
from labse_tf.cli.output import print_table, say_skipped, write_json

if TYPE_CHECKING:
    from labse_tf.data import CleaningReport, CleaningRules, HeldOut


# Fields of `CleaningRules`, which is not imported for a parser alone; a test compares.
_NUMBERS: dict[str, tuple[type, str]] = {
    "min_characters": (int, "least of each side (default: 10, the paper's)"),
    "max_characters": (int, "most of each side (default: 5000, the paper's)"),
    "min_letters": (float, "share of letters in what is visible (default: 0.5)"),
    "min_script": (float, "share of letters in the side's own script (default: 0.4)"),
    "max_length_ratio": (float, "of the two sides (default: 3.0)"),
}


def add_command(commands: Any) -> None:
    """Adds the command to the parser of all commands."""
    parser = command(
        commands,
        "clean",
        _clean,
        "leave out pairs that teach an encoder nothing or something wrong",
        "labse-tf clean corpus/ app.hi.po --held-out tatoeba/ --output cleaned",
    )
    add_text(parser)
    add_output(
        parser,
        "DIR",
        "en-XX.tsv.gz of each language, and what each rule left out, with "
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
