"""The command `align-documents`: two folders -> documents that are translations."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.cli.arguments import (
    add_encoder,
    add_json,
    add_layout,
    add_on_error,
    add_output,
    add_run_vectors,
    add_work,
    command,
)
from labse_tf.cli.models import fingerprint_of, open_encoder, say_truncated
from labse_tf.cli.output import say_skipped, work_folder, write_json

if TYPE_CHECKING:
    from labse_tf.alignment import DocumentPairs, Documents
    from labse_tf.encoders import Encoder
    from labse_tf.text import DocumentFolder, WrittenPair


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = command(
        commands,
        "align-documents",
        _align_documents,
        "find the documents of two folders that are translations of each other",
        "labse-tf align-documents articles/en articles/hi -o pairs.tsv "
        "--align articles.tmx",
    )
    for name in ("source", "target"):
        parser.add_argument(
            name,
            metavar=name.upper(),
            help="folder of documents, .txt or .md, plain or compressed; its name or "
            "those of the documents give the language, or XX=FOLDER",
        )
    add_layout(parser)
    add_on_error(parser)
    add_encoder(parser)
    add_output(parser, "FILE", "pairs of documents, TSV: score and both paths")
    parser.add_argument(
        "--align",
        metavar="FILE",
        help="also align the sentences of all pairs into one file: .tmx, .tsv, .jsonl "
        "or .parquet, with scores, as labse-tf align does (default: none)",
    )
    add_run_vectors(parser)
    parser.add_argument(
        "--vectors",
        choices=("slots", "mean"),
        default="slots",
        help="vectors of documents that choose candidates: of 16 positions, or the "
        "mean of the sentences (default: slots)",
    )
    parser.add_argument(
        "--candidates",
        type=int,
        default=32,
        metavar="N",
        help="number of candidates per document (default: 32)",
    )
    parser.add_argument(
        "--score",
        choices=("alignment", "bimax", "cosine"),
        default="bimax",
        help="score of a pair: the cosine of the documents' vectors (cosine), or its "
        "mean with the cosine of the aligned sentences (alignment, slow) or the best "
        "cosines of all sentences in both directions (bimax) (default: bimax)",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="SCORE",
        help="lowest score of a pair (default: none)",
    )
    add_work(parser, "the vectors")
    add_json(parser)


def _align_documents(options: argparse.Namespace) -> None:
    from labse_tf import alignment
    from labse_tf.text import SkipReport, read_documents

    skipped = SkipReport()
    sides = [
        read_documents(
            folder, layout=options.layout, on_error=options.on_error, skipped=skipped
        )
        for folder in (options.source, options.target)
    ]
    say_skipped(skipped)
    _check_aligned(options, sides)
    encode = open_encoder(options)
    scores = {
        "alignment": alignment.alignment_score,
        "bimax": alignment.bimax,
        "cosine": None,
    }
    with work_folder(options.work, options.output) as work:
        documents = [
            _embedded(options, side, encode, work / f"{name}.npy")
            for name, side in zip(("source", "target"), sides, strict=True)
        ]
        found = alignment.align_documents(
            *documents,
            method=options.vectors,
            candidates=options.candidates,
            rescore=scores[options.score],
            threshold=options.threshold,
            work=work,
        )
        _write_pairs(options, sides, found)
        beads = 0
        if options.align:
            beads = _write_beads(options, sides, documents, found, encode, work)
    say_truncated(encode)
    _say_found(options, sides, found, beads)


def _check_aligned(options: argparse.Namespace, sides: list[DocumentFolder]) -> None:
    """Check the output of `--align` before any work."""
    from labse_tf.text import output_kind

    if not options.align:
        return
    codes = [side.language for side in sides]
    if output_kind(options.align) == ".tmx" and not (all(codes) and len({*codes}) == 2):
        raise ValueError(
            "TMX needs two languages; give them in the names of the folders or as "
            "prefixes (hi=FOLDER). Received: "
            + " and ".join(code or "unknown" for code in codes)
        )


def _embedded(
    options: argparse.Namespace, side: DocumentFolder, encode: Encoder, path: Path
) -> Documents:
    """Return the documents of a folder with the vectors of their sentences."""
    from labse_tf.alignment import Documents
    from labse_tf.mining import embed_to_disk

    model = fingerprint_of(options)
    vectors = embed_to_disk(side.texts, encode, path, model=model)
    return Documents(vectors, side.counts, rows=side.texts.rows, lengths=side.lengths)


def _write_pairs(
    options: argparse.Namespace, sides: list[DocumentFolder], found: DocumentPairs
) -> None:
    """Write score and paths of each pair, atomically."""
    from labse_tf.files import atomic_file

    with atomic_file(options.output) as temporary:
        lines = [
            f"{score:.6f}\t{sides[0].paths[one]}\t{sides[1].paths[other]}\n"
            for score, one, other in _rows(found)
        ]
        temporary.write_text("".join(lines), encoding="utf-8")


def _rows(found: DocumentPairs) -> Iterator[tuple[float, int, int]]:
    return zip(*(column.tolist() for column in found), strict=True)


def _write_beads(
    options: argparse.Namespace,
    sides: list[DocumentFolder],
    documents: list[Documents],
    found: DocumentPairs,
    encode: Encoder,
    work: Path,
) -> int:
    """Align the sentences of each pair, write them, and return their number."""
    from labse_tf.alignment import MAX_SENTENCES, align, embed_runs
    from labse_tf.progress import progress_bar
    from labse_tf.text import join_sentences, on_one_line, pair_writer, read_document

    model = fingerprint_of(options)
    written = 0
    with (
        pair_writer(options.align) as write,
        progress_bar("Aligning", len(found.scores), "documents") as advance,
    ):
        for _, *rows in _rows(found):
            paths = [side.paths[row] for side, row in zip(sides, rows, strict=True)]
            read = [
                read_document(
                    path,
                    language=side.language or None,
                    layout=options.layout,
                    on_error=options.on_error,
                )
                for path, side in zip(paths, sides, strict=True)
            ]
            texts = [[sentence.text for sentence in part] for part in read]
            vectors: list[Any] = [
                side.sentences(row) for side, row in zip(documents, rows, strict=True)
            ]
            if options.run_vectors == "text":
                vectors = [
                    embed_runs(
                        part,
                        encode,
                        work / f"{name}_runs" / f"{row}.npy",
                        longest=MAX_SENTENCES - 1,
                        sentence_vectors=known,
                        model=model,
                        progress=False,
                    )
                    for name, row, part, known in zip(
                        ("source", "target"), rows, texts, vectors, strict=True
                    )
                ]
            result = align(
                texts[0],
                texts[1],
                source_vectors=vectors[0],
                target_vectors=vectors[1],
                progress=False,
            )
            for bead in result.beads():
                runs = bead.source, bead.target
                both = [
                    join_sentences(part[i] for i in run)
                    for part, run in zip(texts, runs, strict=True)
                ]
                lines = [
                    part[run[0]].line for part, run in zip(read, runs, strict=True)
                ]
                write(_bead(both, lines, bead.score, sides, paths, on_one_line))
                written += 1
            advance(1)
    return written


def _bead(
    texts: list[str],
    lines: list[int],
    score: float,
    sides: list[DocumentFolder],
    paths: list[Path],
    on_one_line: Any,
) -> WrittenPair:
    """Return a bead to write."""
    from labse_tf.text import WrittenPair

    places = [f"{path}:{line}" for path, line in zip(paths, lines, strict=True)]
    return WrittenPair(
        (texts[0], texts[1]),
        (sides[0].language, sides[1].language),
        {"score": round(score, 6), "source_line": lines[0], "target_line": lines[1]},
        "\t".join([f"{score:.6f}", *places, *map(on_one_line, texts)]),
    )


def _say_found(
    options: argparse.Namespace,
    sides: list[DocumentFolder],
    found: DocumentPairs,
    beads: int,
) -> None:
    """Print a summary and write the JSON file, if requested."""
    sizes = [len(side.paths) for side in sides]
    empty = [int((side.counts == 0).sum()) for side in sides]
    count = len(found.scores)
    ends = [round(float(score), 6) for score in found.scores[[0, -1] if count else []]]
    span = f", scores {ends[0]:.3f} to {ends[1]:.3f}" if count else ""
    print(
        f"{count:,} pairs among {sizes[0]:,} x {sizes[1]:,} documents{span}: "
        f"{options.output}"
    )
    if sum(empty):
        print(f"{sum(empty):,} documents have no text")
    if options.align:
        print(f"{beads:,} pairs of sentences: {options.align}")
    write_json(
        options.json,
        {
            "pairs": count,
            "documents": dict(zip(("source", "target"), sizes, strict=True)),
            "empty": dict(zip(("source", "target"), empty, strict=True)),
            "score": options.score,
            "highest_score": ends[0] if count else None,
            "lowest_score": ends[1] if count else None,
            "aligned": beads if options.align else None,
        },
    )
