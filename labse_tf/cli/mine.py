"""Commands that find translations and judge them: mine, filter."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from labse_tf.cli.commands import (
    DEFAULT_MODEL,
    Encode,
    add_json,
    add_margin,
    add_model,
    command,
    encoder,
    write_json,
)
from labse_tf.files import whole_file

if TYPE_CHECKING:
    import numpy as np

    from labse_tf.mining import DistinctLines, MinedPairs

# === mine ===


def _add_mine(commands: Any) -> None:
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
            metavar=f"{name.upper()}.txt",
            help="one sentence a line, UTF-8, plain or .gz; each text counts once",
        )
    add_model(parser, default=DEFAULT_MODEL)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE.tsv",
        help="score, line numbers and texts of each pair, best first, tabs between",
    )
    add_margin(parser)
    parser.add_argument(
        "--retrieval",
        default="max",
        choices=("max", "intersection", "forward", "backward"),
        help="pairs that either side chooses, both do, the source or the target does "
        "(default: max)",
    )
    parser.add_argument(
        "--many-to-many",
        action="store_true",
        help="let a sentence be in several pairs",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="SCORE",
        help="lowest score (default: none; for ratio, 1.05 is a good start)",
    )
    parser.add_argument("--top", type=int, metavar="N", help="only the best N pairs")
    parser.add_argument(
        "--index",
        default="auto",
        choices=("auto", "exact", "faiss"),
        help="compare all pairs, or nearly all neighbours much faster; auto: faiss "
        "where it is installed and there are more than 10^10 pairs",
    )
    parser.add_argument(
        "--recall",
        type=float,
        default=0.99,
        metavar="SHARE",
        help="of the neighbours that faiss must find on a sample (default: 0.99)",
    )
    parser.add_argument(
        "--work",
        metavar="DIR",
        help="keep vectors and the state of the search there: interrupted, the same "
        "command goes on (default: OUTPUT.work, removed at the end)",
    )
    add_json(parser)


def _mine(options: argparse.Namespace) -> None:
    from labse_tf import mining

    output = Path(options.output)
    # Before hours of embedding.
    mining.check_options(
        k=options.k,
        margin=options.margin,
        retrieval=options.retrieval,
        top=options.top,
        index=options.index,
        recall=options.recall,
    )
    sides = [mining.DistinctLines(path) for path in (options.source, options.target)]
    work = Path(options.work or f"{output}.work")
    work.mkdir(parents=True, exist_ok=True)
    vectors = _embedded(options, sides, work)
    found = _searched(options, vectors, work)
    texts = [
        side.texts(rows)
        for side, rows in zip(sides, (found.sources, found.targets), strict=True)
    ]
    with (
        whole_file(output) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        for score, source, target in zip(
            *(column.tolist() for column in found), strict=True
        ):
            lines = f"{sides[0].lines[source]}\t{sides[1].lines[target]}"
            pair = "\t".join(
                text[row].replace("\t", " ")
                for text, row in zip(texts, (source, target), strict=True)
            )
            file.write(f"{score:.6f}\t{lines}\t{pair}\n")
    if options.work is None:
        shutil.rmtree(work)
    _say_mined(options, sides, found)


def _embedded(
    options: argparse.Namespace, sides: list[DistinctLines], work: Path
) -> list[np.ndarray]:
    """The vectors of both files, on disk."""
    from labse_tf import mining
    from labse_tf.progress import progress_bar

    encode = encoder(options.model, options.dtype)
    total = sum(map(len, sides))
    show = sys.stderr.isatty()
    with progress_bar("Encoding", total, "lines", show=show) as advance:
        return [
            mining.embed_to_disk(side, encode, work / f"{name}.npy", advance=advance)
            for name, side in zip(("source", "target"), sides, strict=True)
        ]


def _searched(
    options: argparse.Namespace, vectors: list[np.ndarray], work: Path
) -> MinedPairs:
    """The pairs among the vectors."""
    from labse_tf import mining
    from labse_tf.progress import progress_bar

    show = sys.stderr.isatty()
    with progress_bar("Searching", len(vectors[0]), "lines", show=show) as advance:
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
            advance=advance,
            say=lambda line: print(line, file=sys.stderr),
        )


def _say_mined(
    options: argparse.Namespace, sides: list[DistinctLines], found: MinedPairs
) -> None:
    """Tells what was found and writes it, where asked."""
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


# === filter ===

_MARKS = {"good": True, "bad": False, "1": True, "0": False}
_EDGES = [i / 100 for i in range(-100, 101)]


def _add_filter(commands: Any) -> None:
    parser = command(
        commands,
        "filter",
        _filter,
        "keep the pairs of a file whose sentences mean the same",
        "labse-tf filter pairs.tsv --marked sample.tsv -o kept.tsv",
    )
    parser.add_argument(
        "file",
        metavar="PAIRS.tsv",
        help="the last two columns are the sentences, as en-XX.tsv and the output of "
        "mine; UTF-8, plain or .gz",
    )
    add_model(parser, default=DEFAULT_MODEL)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE.tsv",
        help="the lines that are kept, as they are",
    )
    rule = parser.add_mutually_exclusive_group(required=True)
    rule.add_argument(
        "--threshold", type=float, metavar="COSINE", help="lowest cosine that is kept"
    )
    rule.add_argument(
        "--marked",
        metavar="SAMPLE.tsv",
        help="pairs that a person has marked, `good` or `bad` in a last column: the "
        "lowest threshold is taken at which enough of those it keeps are good",
    )
    parser.add_argument(
        "--good-share",
        type=float,
        default=0.8,
        metavar="SHARE",
        help="how much of it must be good (default: 0.8, as in the paper)",
    )
    parser.add_argument(
        "--with-scores",
        action="store_true",
        help="put the cosine in front of each line",
    )
    parser.add_argument("--plot", metavar="FILE.png", help="histogram of the cosines")
    add_json(parser)


class _Pair(NamedTuple):
    """A line of a pair file."""

    number: int
    whole: str
    texts: tuple[str, str]


def _filter(options: argparse.Namespace) -> None:
    from labse_tf import mining

    if not 0 < options.good_share <= 1:
        raise ValueError(
            f"--good-share must be above 0, at most 1. Received: {options.good_share}"
        )
    marked = list(_marked(options.marked)) if options.marked else []
    total = sum(len(block) for block in _pair_blocks(options.file))
    if not total:
        raise ValueError(f"{options.file}: expected pairs. Received: no line with text")
    encode = encoder(options.model, options.dtype)
    threshold, rule = options.threshold, ""
    if marked:
        cosines = _cosines(encode, [line.texts for line, _ in marked])
        good = [mark for _, mark in marked]
        threshold = mining.quality_threshold(cosines, good, options.good_share)
        above = [mark for mark, c in zip(good, cosines, strict=True) if c >= threshold]
        rule = f"; of {len(above)} marked pairs above, {sum(above)} are good"
    histogram, kept = _write_kept(options, encode, float(threshold), total)
    print(
        f"{kept:,} of {total:,} pairs kept ({kept / total:.1%}), cosine from "
        f"{threshold:.4f}{rule}: {options.output}"
    )
    if options.plot:
        from labse_tf.evaluation.plots import plot_histogram

        plot_histogram(histogram, _EDGES, float(threshold), options.plot)
        print(f"plot: {options.plot}")
    result = {"pairs": total, "kept": kept, "threshold": float(threshold)}
    if marked:
        result |= {"marked": len(marked), "marked_kept": len(above)}
        result |= {"good_share": sum(above) / len(above)}
    write_json(options.json, result)


def _write_kept(
    options: argparse.Namespace, encode: Encode, threshold: float, total: int
) -> tuple[list[int], int]:
    """Writes the lines above the threshold; returns a histogram and their number."""
    import numpy as np

    from labse_tf.progress import progress_bar

    histogram = np.zeros(len(_EDGES) - 1, dtype=np.int64)
    kept = 0
    with (
        whole_file(options.output) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
        progress_bar("Scoring", total, "pairs") as advance,
    ):
        for block in _pair_blocks(options.file):
            cosines = _cosines(encode, [line.texts for line in block])
            histogram += np.histogram(cosines.clip(-1, 1), _EDGES)[0]
            for line, cosine in zip(block, cosines.tolist(), strict=True):
                if cosine >= threshold:
                    kept += 1
                    score = f"{cosine:.6f}\t" if options.with_scores else ""
                    file.write(f"{score}{line.whole}\n")
            advance(len(block))
    return histogram.tolist(), kept


def _cosines(encode: Encode, pairs: list[tuple[str, str]]) -> np.ndarray:
    """The cosine of each pair, float32, to 7 decimals; each text is encoded once."""
    import numpy as np

    from labse_tf import mining

    texts, places = np.unique(np.array(pairs, dtype=object), return_inverse=True)
    vectors = mining.unit_rows(np.asarray(encode(texts.tolist())))
    mining.check_finite(vectors, "the model's vectors")
    rows = places.reshape(-1, 2)
    cosines = np.einsum("pd,pd->p", vectors[rows[:, 0]], vectors[rows[:, 1]])
    return cosines.round(7).astype(np.float32)


def _marked(path: str) -> Iterator[tuple[_Pair, bool]]:
    """Pairs and what a person says of them."""
    for block in _pair_blocks(path, marked=True):
        for pair in block:
            mark = pair.whole.rpartition("\t")[2].strip().lower()
            if mark not in _MARKS:
                raise ValueError(
                    f"{path}:{pair.number}: expected a last column with "
                    f"{' or '.join(sorted(_MARKS))}. Received: {mark!r}"
                )
            yield pair, _MARKS[mark]


def _pair_blocks(
    path: str, *, marked: bool = False, size: int = 8192
) -> Iterator[list[_Pair]]:
    """The pairs of a file, some thousands at a time; blank lines are left out."""
    from labse_tf.mining.texts import decode_line, open_text

    block = []
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            whole = decode_line(path, number, line)
            if not whole.strip():
                continue
            columns = whole.split("\t")
            sentences = columns[-3:-1] if marked else columns[-2:]
            if len(sentences) < 2 or not all(text.strip() for text in sentences):
                raise ValueError(
                    f"{path}:{number}: expected two sentences with a tab between"
                    f"{', and a mark' if marked else ''}. Received: {whole[:80]!r}"
                )
            block.append(_Pair(number, whole, (sentences[0], sentences[1])))
            if len(block) == size:
                yield block
                block = []
    if block:
        yield block


COMMANDS = (_add_mine, _add_filter)
