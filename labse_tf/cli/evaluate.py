"""The command that measures a model: `evaluate`, with a test each."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.cli.commands import (
    add_json,
    add_model,
    add_text,
    command,
    encoder,
    load,
    say_skipped,
    write_json,
)

if TYPE_CHECKING:
    from labse_tf.evaluation import RetrievalResult


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure a model",
        description="Measure a model.",
        epilog="example: labse-tf evaluate tatoeba tatoeba/v1 --model my-model",
    )
    tests = parser.add_subparsers(dest="test", required=True, metavar="TEST")
    tatoeba = command(
        tests,
        "tatoeba",
        _tatoeba,
        "nearest-translation accuracy on the Tatoeba files of LASER",
        "labse-tf evaluate tatoeba tatoeba/v1 --model my-model --plot tatoeba.png",
    )
    tatoeba.add_argument(
        "folder", metavar="DIR", help="with tatoeba.XXX-eng.XXX and tatoeba.XXX-eng.eng"
    )
    add_model(tatoeba)
    tatoeba.add_argument(
        "--languages",
        nargs="+",
        metavar="CODE",
        help="only these; 14, 36 and 112 stand for the groups of the paper",
    )
    tatoeba.add_argument("--plot", metavar="FILE.png", help="bar chart a language")
    add_json(tatoeba)
    retrieval = command(
        tests,
        "retrieval",
        _retrieval,
        "nearest-translation accuracy on pair files of your own",
        "labse-tf evaluate retrieval dev/en-hi.tsv dev/en-ta.tsv --model my-model",
    )
    add_text(retrieval)
    add_model(retrieval)
    retrieval.add_argument("--plot", metavar="FILE.png", help="bar chart a language")
    add_json(retrieval)


def _retrieval(options: argparse.Namespace) -> None:
    from labse_tf import data, evaluation

    report = data.SkipReport()
    files = data.find_pair_files(options.files)
    corpus = load(options, files, data.load_pairs, report)
    say_skipped(report)
    pairs = corpus.lists()
    _show(options, "Retrieval", functools.partial(evaluation.retrieval, pairs=pairs))


def _show(
    options: argparse.Namespace, title: str, measure: Callable[..., RetrievalResult]
) -> None:
    """Measures under a bar; prints the table and writes what else was asked for."""
    from labse_tf.progress import progress_bar

    encode = encoder(options.model)
    with progress_bar(title, None, "languages", show=sys.stderr.isatty()) as advance:
        result = measure(encode, progress=lambda code, done, total: advance(1))
    print(result.table())
    if options.plot:
        result.plot(options.plot)
        print(f"plot: {options.plot}")
    write_json(options.json, result.to_dict())


def _tatoeba(options: argparse.Namespace) -> None:
    from labse_tf import evaluation

    if not Path(options.folder).is_dir():
        raise ValueError(
            f"{options.folder}: expected the folder of the Tatoeba files. "
            "Received: no such directory"
        )
    _show(
        options,
        "Tatoeba",
        functools.partial(
            evaluation.tatoeba, folder=options.folder, languages=options.languages
        ),
    )


COMMANDS = (_add_evaluate,)
