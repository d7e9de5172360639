"""The command trim."""

from __future__ import annotations

import argparse
from typing import Any

from labse_tf.cli import arguments
from labse_tf.cli.convert import STORAGES
from labse_tf.cli.output import print_table, say_skipped, write_json


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = arguments.command(
        commands,
        "trim",
        _trim,
        "keep only the tokens of some languages and measure the effect",
        "labse-tf trim labse-nano --corpus en-hi.tsv en-ta.tsv.gz -o nano-hi-ta, or "
        "without text: labse-tf trim labse-nano --languages hi ta -o nano-hi-ta",
    )
    arguments.add_model_by_place(parser, "model to trim")
    parser.add_argument(
        "--corpus",
        nargs="+",
        metavar="FILE",
        help="keep the tokens of this text: " + arguments.SENTENCES_HELP,
    )
    parser.add_argument(
        "--languages",
        nargs="+",
        metavar="CODE",
        help="only these languages of the corpus; without --corpus: keep all tokens "
        "written in their scripts (default: all languages of the corpus)",
    )
    parser.add_argument(
        "--language", metavar="CODE", help="language of files not given as XX=FILE"
    )
    parser.add_argument(
        "--english",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep English too (default: yes)",
    )
    arguments.add_output(parser, "DIR", "directory of the new preset")
    parser.add_argument(
        "--min-count",
        type=int,
        default=1,
        metavar="N",
        help="keep tokens that occur at least N times in the corpus (default: 1)",
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help="keep at most N tokens: those with the greatest sum of their shares in "
        "the text of each language of the corpus (default: no limit)",
    )
    parser.add_argument(
        "--keep-characters",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep all single-character tokens in the scripts of the languages, so "
        "that words missing from the corpus can be split (default: yes)",
    )
    parser.add_argument(
        "--held-out",
        nargs="+",
        metavar="FILE",
        help="text to compare the old and the new model (default: 5 %% of the corpus, "
        "at most 1,000 sentences per language, not used to choose the tokens; without "
        "a corpus the shipped sample)",
    )
    parser.add_argument(
        "--storage",
        choices=STORAGES,
        help="storage type of the new weights (default: that of MODEL)",
    )
    arguments.add_on_error(parser)
    arguments.add_json(parser)


def _trim(options: argparse.Namespace) -> None:
    from labse_tf import data, trimming

    if options.model is None:
        raise ValueError("trim needs MODEL or --model MODEL. Received: neither")
    if not options.corpus and not options.languages:
        raise ValueError("trim needs --corpus or --languages. Received: neither")
    skipped = data.SkipReport()
    report = trimming.trim_preset(
        options.model,
        options.output,
        files=options.corpus,
        languages=options.languages,
        english=options.english,
        language=options.language,
        held_out=options.held_out,
        min_count=options.min_count,
        max_tokens=options.max_tokens,
        keep_characters=options.keep_characters,
        storage=options.storage,
        on_error=options.on_error,
        skipped=skipped,
    )
    say_skipped(skipped)
    print_table(
        ("", "before", "after", "kept"),
        [
            (name, form(before), form(after), f"{after / before:.1%}")
            for name, (before, after), form in (
                ("tokens", report.tokens, "{:,}".format),
                ("parameters", report.parameters, "{:,}".format),
                ("bytes on disk", report.bytes, "{:,}".format),
            )
        ],
    )
    print(f"kept: {report.chosen_by}")
    if report.parity:
        print(f"old and new model, compared on {report.held_out}:")
        print_table(trimming.COLUMNS, report.rows())
    else:
        print("no text to compare the old and the new model: use --held-out FILE")
    print(f"model: {options.output}")
    write_json(options.json, report.to_dict())
