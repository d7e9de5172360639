"""The command `mine`: two files of sentences -> pairs of translations."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.cli import arguments
from labse_tf.cli.models import open_encoder
from labse_tf.cli.output import ON_ONE_LINE, logged_to_stderr, say_skipped, write_json
from labse_tf.files import atomic_file

if TYPE_CHECKING:
    import numpy as np

    from labse_tf.mining import DistinctLines, MinedPairs


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = arguments.command(
        commands,
        "mine",
        _mine,
        "find translations in two files of sentences",
        "labse-tf mine news.hi.txt news.en.txt --threshold 1.05 -o pairs.tsv",
    )
    for name in ("source", "target"):
        parser.add_argument(
            name,
            metavar=name.upper(),
            help=f"{arguments.TEXT_HELP}; repeated sentences are used once",
        )
    for name in ("source", "target"):
        arguments.add_side(parser, f"--{name}-side")
    arguments.add_on_error(parser)
    arguments.add_encoder(parser)
    arguments.add_output(
        parser,
        "FILE.tsv",
        "tab-separated score, line numbers and texts of each pair, best first",
    )
    arguments.add_margin(parser)
    parser.add_argument(
        "--retrieval",
        default="max",
        choices=("max", "intersection", "forward", "backward"),
        help="pairs to keep: best candidates of either side (max), of both sides "
        "(intersection), of the source (forward) or of the target (backward) "
        "(default: max)",
    )
    parser.add_argument(
        "--many-to-many", action="store_true", help="allow a sentence in several pairs"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="SCORE",
        help="lowest score to keep (default: none; for ratio, start with 1.05)",
    )
    parser.add_argument(
        "--top", type=int, metavar="N", help="maximum number of pairs (default: all)"
    )
    parser.add_argument(
        "--index",
        default="auto",
        choices=("auto", "exact", "faiss"),
        help="compare all pairs (exact), or find nearly all neighbors much faster "
        "(faiss); auto: faiss if it is installed and there are more than 10^10 pairs",
    )
    parser.add_argument(
        "--recall",
        type=float,
        default=0.99,
        metavar="SHARE",
        help="share of the neighbors that faiss must find on a sample (default: 0.99)",
    )
    parser.add_argument(
        "--work",
        metavar="DIR",
        help="folder for vectors and the state of the search; if interrupted, run the "
        "same command again to resume (default: OUTPUT.work, removed at the end)",
    )
    arguments.add_json(parser)


def _mine(options: argparse.Namespace) -> None:
    from labse_tf import mining
    from labse_tf.text import SkipReport

    output = Path(options.output)
    # Check the options before hours of embedding.
    mining.check_options(
        k=options.k,
        margin=options.margin,
        retrieval=options.retrieval,
        top=options.top,
        index=options.index,
        recall=options.recall,
    )
    skipped = SkipReport()
    sides = [
        mining.DistinctLines(
            path, side=side, on_error=options.on_error, skipped=skipped
        )
        for path, side in (
            (options.source, options.source_side),
            (options.target, options.target_side),
        )
    ]
    say_skipped(skipped)
    work = Path(options.work or f"{output}.work")
    work.mkdir(parents=True, exist_ok=True)
    vectors = _embedded(options, sides, work)
    found = _searched(options, vectors, work)
    texts = [
        side.texts(rows)
        for side, rows in zip(sides, (found.sources, found.targets), strict=True)
    ]
    with (
        atomic_file(output) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        for score, source, target in zip(
            *(column.tolist() for column in found), strict=True
        ):
            lines = f"{sides[0].lines[source]}\t{sides[1].lines[target]}"
            pair = "\t".join(
                text[row].translate(ON_ONE_LINE)
                for text, row in zip(texts, (source, target), strict=True)
            )
            file.write(f"{score:.6f}\t{lines}\t{pair}\n")
    if options.work is None:
        shutil.rmtree(work)
    _say_mined(options, sides, found)


def _embedded(
    options: argparse.Namespace, sides: list[DistinctLines], work: Path
) -> list[np.ndarray]:
    """Return the vectors of both files, on disk."""
    from labse_tf import mining

    encode = open_encoder(options.model, options.dtype)
    return [
        mining.embed_to_disk(side, encode, work / f"{name}.npy")
        for name, side in zip(("source", "target"), sides, strict=True)
    ]


def _searched(
    options: argparse.Namespace, vectors: list[np.ndarray], work: Path
) -> MinedPairs:
    """Return the pairs found among the vectors."""
    from labse_tf import mining

    with logged_to_stderr("labse_tf.mining"):
        return mining.mine_pairs(
            *vectors,
            k=options.k,
            margin=options.margin,
            retrieval=options.retrieval,
            one_to_one=not options.many_to_many,
            threshold=options.threshold,
            top=options.top,
            index=options.index,
            recall=options.recall,
            checkpoint=work / "search.npz",
        )


def _say_mined(
    options: argparse.Namespace, sides: list[DistinctLines], found: MinedPairs
) -> None:
    """Print a summary and write the JSON file, if requested."""
    sizes = [len(side) for side in sides]
    count = len(found.scores)
    ends = [round(float(score), 6) for score in found.scores[[0, -1] if count else []]]
    span = f", scores {ends[0]:.3f} to {ends[1]:.3f}" if count else ""
    print(
        f"{count:,} pairs among {sizes[0]:,} x {sizes[1]:,} different lines{span}: "
        f"{options.output}"
    )
    write_json(
        options.json,
        {
            "pairs": count,
            "lines": dict(zip(("source", "target"), sizes, strict=True)),
            "margin": options.margin,
            "retrieval": options.retrieval,
            "threshold": options.threshold,
            "highest_score": ends[0] if count else None,
            "lowest_score": ends[1] if count else None,
        },
    )
