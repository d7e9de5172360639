"""The command `mine`: two files of sentences -> pairs of translations."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.cli.arguments import (
    TEXT_HELP,
    add_encoder,
    add_json,
    add_margin,
    add_mean_floor,
    add_on_error,
    add_pair_output,
    add_side,
    add_work,
    command,
    needs,
)
from labse_tf.cli.models import fingerprint_of, open_encoder, say_truncated
from labse_tf.cli.output import (
    logged_to_stderr,
    say_skipped,
    work_folder,
    write_json,
)

if TYPE_CHECKING:
    import numpy as np

    from labse_tf.mining import DistinctLines, MinedPairs

_SEARCH = "search.npz"


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = command(
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
            help=f"{TEXT_HELP}; repeated sentences are used once",
        )
    for name in ("source", "target"):
        add_side(parser, f"--{name}-side")
    add_on_error(parser)
    add_encoder(parser)
    add_pair_output(parser, "score, line numbers and texts, best first")
    add_margin(parser)
    parser.add_argument(
        "--retrieval",
        default="max",
        choices=("max", "intersection", "forward", "backward"),
        help="pairs to keep: best candidates of either side (max), of both sides "
        "(intersection), of the source (forward) or of the target (backward) "
        "(default: max)",
    )
    parser.add_argument(
        "--many-to-many",
        action="store_true",
        help="allow a sentence in several pairs",
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
    needs(parser, "mining", "--index faiss", lambda options: options.index == "faiss")
    parser.add_argument(
        "--recall",
        type=float,
        default=0.99,
        metavar="SHARE",
        help="share of the neighbors that faiss must find on a sample (default: 0.99)",
    )
    add_mean_floor(parser)
    parser.add_argument(
        "--all-lines",
        action="store_true",
        help="also use lines that are mostly digits and symbols, or in another script "
        "than most of their file (default: such lines are skipped and counted)",
    )
    add_work(parser, "vectors and the state of the search")
    add_json(parser)


def _mine(options: argparse.Namespace) -> None:
    from labse_tf import mining
    from labse_tf.text import SkipReport

    output = options.output
    # Check the options before hours of embedding.
    languages = _languages(options)
    mining.check_options(
        k=options.k,
        margin=options.margin,
        retrieval=options.retrieval,
        top=options.top,
        index=options.index,
        recall=options.recall,
        mean_floor=options.mean_floor,
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
    if not options.all_lines:
        sides = [_likely(side) for side in sides]
    with work_folder(options.work, output) as work:
        vectors = _embedded(options, sides, work)
        found = _searched(options, vectors, work)
        _write(options, languages, sides, found)
    _say_mined(options, sides, found)


def _likely(side: DistinctLines) -> DistinctLines:
    """Leave out lines that are hardly sentences of the file's language."""
    from labse_tf.data.cleaning import unlikely_lines

    few_letters, other_script = unlikely_lines(side.blocks)
    kept = ~(few_letters | other_script)
    if not kept.any():
        raise ValueError(
            f"{side.path}: expected lines that are mostly letters; use --all-lines for "
            f"others. Received: {len(side)} lines of digits and symbols"
        )
    if not kept.all():
        print(
            f"{side.path}: {(~kept).sum():,} of {len(side):,} lines skipped: "
            f"{few_letters.sum():,} mostly digits and symbols, "
            f"{other_script.sum():,} in another script than most of the file "
            "(--all-lines uses them)",
            file=sys.stderr,
        )
    return side.select(kept)


def _languages(options: argparse.Namespace) -> tuple[str, str]:
    """Return the languages of both sides, `""` if unknown, and check the output."""
    from labse_tf.text import (
        FORMATS,
        english_first,
        file_language,
        format_of,
        output_kind,
    )

    codes = []
    for path, side in (
        (options.source, options.source_side),
        (options.target, options.target_side),
    ):
        of_pairs = format_of(path) in FORMATS.values()
        if of_pairs and side != "target":
            codes.append("en" if side == "source" else "")
        else:
            codes.append(file_language(path) or "")
    kind = output_kind(options.output)
    hint = "give them in the names (news.hi.txt) or as prefixes (hi=FILE)"
    if options.format == "pairs":
        english_first(codes, hint)
    if kind == ".tmx" and not all(codes):
        raise ValueError(
            f"TMX needs the languages of both files; {hint}. "
            f"Received: {' and '.join(code or 'unknown' for code in codes)}"
        )
    return codes[0], codes[1]


def _write(
    options: argparse.Namespace,
    languages: tuple[str, str],
    sides: list[DistinctLines],
    found: MinedPairs,
) -> None:
    """Write the pairs, English first except in tables."""
    from labse_tf.text import WrittenPair, on_one_line, pair_writer

    texts = [
        side.texts(rows)
        for side, rows in zip(sides, (found.sources, found.targets), strict=True)
    ]
    swapped = languages[1] == "en" != languages[0]
    first, second = (1, 0) if swapped else (0, 1)
    with pair_writer(options.output) as write:
        for score, *rows in zip(*(column.tolist() for column in found), strict=True):
            both = [text[row] for text, row in zip(texts, rows, strict=True)]
            lines = [int(side.lines[i]) for side, i in zip(sides, rows, strict=True)]
            table = f"{score:.6f}\t{lines[0]}\t{lines[1]}"
            numbers = {"score": round(score, 6), "source_line": lines[first]}
            write(
                WrittenPair(
                    (both[first], both[second]),
                    (languages[first], languages[second]),
                    {**numbers, "target_line": lines[second]},
                    "\t".join([table, *map(on_one_line, both)])
                    if options.format == "table"
                    else "",
                )
            )


def _embedded(
    options: argparse.Namespace, sides: list[DistinctLines], work: Path
) -> list[np.ndarray]:
    """Return the vectors of both files, on disk."""
    from labse_tf import mining

    encode = open_encoder(options)
    model = fingerprint_of(options)
    vectors = []
    for name, side in zip(("source", "target"), sides, strict=True):
        path = work / f"{name}.npy"
        before = _note(path)
        vectors.append(mining.embed_to_disk(side, encode, path, model=model))
        if _note(path) != before:
            # The state of a search among other vectors.
            (work / _SEARCH).unlink(missing_ok=True)
    say_truncated(encode)
    return vectors


def _note(path: Path) -> bytes:
    """Return what a file of vectors was made of, empty if there is no such file."""
    note = path.with_suffix(".json")
    return note.read_bytes() if note.exists() else b""


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
            mean_floor=options.mean_floor,
            checkpoint=work / _SEARCH,
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
