"""The command `pretrain`."""

from __future__ import annotations

import argparse
from typing import Any

from labse_tf.cli.arguments import PAIRS_HELP, add_languages, command
from labse_tf.cli.memory import print_plan, wants_plan
from labse_tf.cli.output import load, say_counts, say_skipped
from labse_tf.cli.runs import add_run, recipe_of, run_options, say_model, until_signal
from labse_tf.recipes import (
    PRETRAINING_RECIPES,
    PretrainingRecipe,
    get_pretraining_recipe,
)


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = command(
        commands,
        "pretrain",
        _pretrain,
        "train a masked language model (MLM and TLM) in stages of growing depth",
        "labse-tf pretrain --mono wiki.hi.txt.gz --pairs en-hi.tsv en-bn.tsv "
        "--vocab vocab.txt --output my-pretrained, then: "
        "labse-tf train en-hi.tsv en-bn.tsv --model my-pretrained --output my-model",
    )
    parser.add_argument(
        "--mono",
        nargs="+",
        default=[],
        metavar="FILE",
        help="text for MLM: one sentence or paragraph per line, with the language in "
        "the name (wiki.hi.txt.gz) or before it (hi=wiki.txt); JSON Lines of one text "
        "each; or pair files, of which both sides are read",
    )
    parser.add_argument(
        "--pairs",
        nargs="+",
        default=[],
        metavar="FILE",
        help="text for TLM; " + PAIRS_HELP,
    )
    add_languages(parser)
    parser.add_argument(
        "--vocab",
        required=True,
        metavar="FILE",
        help="vocabulary, as written by labse-tf vocab",
    )
    without = ("dev_every", "keep_best", "patience", "keep_adapters")
    add_run(parser, PRETRAINING_RECIPES, without=without)


def _pretrain(options: argparse.Namespace) -> int | None:
    recipe = recipe_of(options, PretrainingRecipe, get_pretraining_recipe)
    how = run_options(options)
    if wants_plan(options):
        from labse_tf.tokenizers import load_vocabulary

        size = len(load_vocabulary(options.vocab))
        print_plan(options, recipe, size, [*options.mono, *options.pairs])
        return None
    if not options.mono and not options.pairs:
        raise ValueError("Expected --mono, --pairs or both. Received: neither")
    from labse_tf import data, pretraining

    report = data.SkipReport()
    pairs = sentences = None
    if options.pairs:
        files = data.find_pair_files(options.pairs)
        pairs = load(options, files, data.load_pairs, report)
    if options.mono:
        files = data.find_sentence_files(options.mono)
        sentences = load(options, files, data.load_sentences, report)
    say_skipped(report)
    for text, unit in ((pairs, "pairs"), (sentences, "sentences")):
        if text is not None:
            say_counts(text.counts, unit)
    result = until_signal(
        lambda: pretraining.pretrain(
            recipe,
            pairs,
            sentences,
            options.output,
            vocabulary=options.vocab,
            lowercase=options.lowercase,
            strip_accents=options.strip_accents,
            options=how,
        )
    )
    if isinstance(result, int):
        return result
    say_model(options.output)
    return None
