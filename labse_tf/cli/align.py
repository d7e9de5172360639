"""The command `align`: translated documents -> sentences that are translations."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from labse_tf.cli.arguments import (
    add_encoder,
    add_json,
    add_layout,
    add_on_error,
    add_output,
    add_plot,
    add_run_vectors,
    add_work,
    command,
)
from labse_tf.cli.models import fingerprint_of, open_encoder, say_truncated
from labse_tf.cli.output import print_table, say_skipped, work_folder, write_json
from labse_tf.pipes import is_stream

if TYPE_CHECKING:
    from labse_tf.alignment import Alignment, Bead
    from labse_tf.encoders import Encoder
    from labse_tf.text import Sentence, WrittenPair


class _Document(NamedTuple):
    """A document.

    Attributes:
        path: As the user gave it.
        language: Canonical code, or `""` if unknown.
        sentences: Its sentences.
    """

    path: str
    language: str
    sentences: list[Sentence]

    @property
    def texts(self) -> list[str]:
        return [sentence.text for sentence in self.sentences]

    def joined(self, run: Sequence[int]) -> str:
        from labse_tf.text import join_sentences

        return join_sentences(self.sentences[i].text for i in run)

    def lines(self, run: Sequence[int]) -> str:
        """Return the lines of a run of sentences: `12`, `12-14`, empty for none."""
        numbers = [self.sentences[i].line for i in run]
        if not numbers:
            return ""
        first, last = numbers[0], numbers[-1]
        return str(first) if first == last else f"{first}-{last}"


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = command(
        commands,
        "align",
        _align,
        "align the sentences of translated documents",
        "labse-tf align book.en.txt book.hi.txt -o book.tmx",
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="two or more texts, the same document in several languages "
        "(book.hi.txt, or hi=FILE); plain, .gz, .bz2, .xz or .zst; the first is "
        "aligned with each of the others",
    )
    add_layout(parser)
    add_on_error(parser)
    add_encoder(parser)
    add_output(
        parser,
        "FILE",
        "aligned sentences: .tmx (one unit with all languages), .tsv (see --format), "
        ".jsonl or .parquet; each except .parquet also .gz, .bz2, .xz or .zst",
    )
    parser.add_argument(
        "--format",
        choices=("table", "pairs", "parallel"),
        default="table",
        help="lines of .tsv: score, line numbers and texts (table), or "
        "English<TAB>translation for train (pairs); parallel: two files with aligned "
        "lines, OUTPUT.XX and OUTPUT.YY (default: table)",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="SCORE",
        help="lowest cosine to write (default: none)",
    )
    parser.add_argument(
        "--deleted",
        action="store_true",
        help="also write sentences without a translation, with an empty text and a "
        "score of 0 (.tsv tables, .jsonl and .parquet)",
    )
    parser.add_argument(
        "--max-sentences",
        type=int,
        default=5,
        metavar="N",
        help="maximum number of sentences of both sides together (default: 5)",
    )
    add_run_vectors(parser)
    parser.add_argument(
        "--anchors",
        metavar="REGEX",
        help="sentences that match begin a part, such as a chapter: the k-th match of "
        "each file belong together (default: none)",
    )
    parser.add_argument(
        "--anchor-lines",
        metavar="FILE",
        help="text with the line numbers at which a part begins, one column per "
        "document (default: none)",
    )
    parser.add_argument(
        "--band",
        type=int,
        default=8,
        metavar="N",
        help="width of the search around the path of the coarser level (default: 8)",
    )
    parser.add_argument(
        "--deletion",
        type=float,
        metavar="COST",
        help="cost of a sentence without a translation, where a random pair costs "
        "about 1; lower values leave out more (default: measured, about 0.5)",
    )
    add_work(parser, "the vectors")
    add_json(parser)
    add_plot(parser, "the path of each pair of documents")


def _align(options: argparse.Namespace) -> None:
    from labse_tf.alignment import align, check_options
    from labse_tf.text import SkipReport

    # Check the options before hours of embedding.
    check_options(
        run_vectors=options.run_vectors,
        max_sentences=options.max_sentences,
        band=options.band,
        deletion=options.deletion,
    )
    languages = _languages(options)
    skipped = SkipReport()
    documents = _read(options, languages, skipped)
    say_skipped(skipped)
    anchors = _anchors(options, documents)
    encode = open_encoder(options)
    with work_folder(options.work, options.output) as work:
        vectors = _embedded(options, documents, encode, work)
        found = [
            align(
                documents[0].texts,
                other.texts,
                source_vectors=vectors[0],
                target_vectors=vectors[k],
                max_sentences=options.max_sentences,
                anchors=[(anchor[0], anchor[k]) for anchor in anchors],
                band=options.band,
                deletion=options.deletion,
            )
            for k, other in enumerate(documents[1:], 1)
        ]
        _write(options, documents, found)
    say_truncated(encode)
    _say_aligned(options, documents, found)


def _embedded(
    options: argparse.Namespace,
    documents: Sequence[_Document],
    encode: Encoder,
    work: Path,
) -> list[Any]:
    """Return the vectors of each document: of its runs, or of its sentences."""
    import numpy as np

    from labse_tf.alignment import embed_runs

    model = fingerprint_of(options)
    summed = options.run_vectors == "sum"
    longest = 1 if summed else options.max_sentences - 1
    found: list[Any] = []
    for k, document in enumerate(documents):
        path = work / f"document-{k}.npy"
        runs = embed_runs(document.texts, encode, path, longest=longest, model=model)
        rows = np.arange(len(document.sentences))
        found.append(runs.vectors(1, rows) if summed else runs)
    return found


def _languages(options: argparse.Namespace) -> list[str]:
    """Return the languages of the files, and check the output."""
    from labse_tf.text import english_first, file_language, output_kind

    if len(options.files) < 2:
        raise ValueError(
            f"expected two or more files. Received: {' '.join(options.files)}"
        )
    codes = [file_language(path) or "" for path in options.files]
    hint = "give them in the names (book.hi.txt) or as prefixes (hi=FILE)"
    received = " and ".join(code or "unknown" for code in codes)
    if options.format == "parallel":
        if is_stream(options.output):
            raise ValueError(
                f"--format parallel writes files. Received: {options.output}"
            )
        kind = ".parallel"
    else:
        kind = output_kind(options.output)
    if kind in (".tmx", ".parallel") and not (
        all(codes) and len(set(codes)) == len(codes)
    ):
        raise ValueError(
            f"{kind[1:]} needs a different language for each file; {hint}. "
            f"Received: {received}"
        )
    if options.format == "pairs":
        for code in codes[1:]:
            english_first((codes[0], code), hint)
    if options.deleted and (kind in (".tmx", ".parallel") or options.format == "pairs"):
        raise ValueError(
            "--deleted is for .tsv tables, .jsonl and .parquet. "
            f"Received: {options.output} --format {options.format}"
        )
    if options.anchors is not None and options.anchor_lines is not None:
        raise ValueError("expected one of --anchors and --anchor-lines. Received: both")
    return codes


def _read(
    options: argparse.Namespace, languages: Sequence[str], skipped: Any
) -> list[_Document]:
    """Read the documents."""
    from labse_tf.text import read_document

    return [
        _Document(
            path,
            code,
            read_document(
                path,
                language=code or None,
                layout=options.layout,
                on_error=options.on_error,
                skipped=skipped,
            ),
        )
        for path, code in zip(options.files, languages, strict=True)
    ]


def _anchors(
    options: argparse.Namespace, documents: Sequence[_Document]
) -> list[tuple[int, ...]]:
    """Return the sentences that begin the same part in each document."""
    from labse_tf.alignment import anchors_by_pattern, read_anchors

    if options.anchors is not None:
        return anchors_by_pattern([d.texts for d in documents], options.anchors)
    if options.anchor_lines is not None:
        return read_anchors(options.anchor_lines, [d.sentences for d in documents])
    return []


def _kept(options: argparse.Namespace, alignment: Alignment) -> Iterator[Bead]:
    """Yield the beads to write."""
    for bead in alignment.beads(deletions=options.deleted):
        whole = bead.source and bead.target
        if whole and options.threshold is not None and bead.score < options.threshold:
            continue
        yield bead


def _write(
    options: argparse.Namespace,
    documents: Sequence[_Document],
    found: Sequence[Alignment],
) -> None:
    """Write the beads of all pairs of documents."""
    from labse_tf.text import output_kind, pair_writer

    if options.format == "parallel":
        _write_parallel(options, documents, found)
        return
    several = output_kind(options.output) == ".tmx"
    rows = (_units if several else _pairs)(options, documents, found)
    with pair_writer(options.output) as write:
        for row in rows:
            write(row)


def _pairs(
    options: argparse.Namespace,
    documents: Sequence[_Document],
    found: Sequence[Alignment],
) -> Iterator[WrittenPair]:
    """Yield one row per bead, for each pair of documents."""
    from labse_tf.text import WrittenPair, on_one_line

    first = documents[0]
    for other, alignment in zip(documents[1:], found, strict=True):
        swapped = options.format == "pairs" and other.language == "en"
        for bead in _kept(options, alignment):
            texts = first.joined(bead.source), other.joined(bead.target)
            languages = first.language, other.language
            if options.format == "pairs":
                order = -1 if swapped else 1
                yield WrittenPair(texts[::order], languages[::order])
                continue
            lines = first.lines(bead.source), other.lines(bead.target)
            table = [f"{bead.score:.6f}", *lines, *map(on_one_line, texts)]
            if len(documents) > 2:
                table.append(other.language or other.path)
            yield WrittenPair(
                texts,
                languages,
                {
                    "score": round(bead.score, 6),
                    **_places("source", first, bead.source),
                    **_places("target", other, bead.target),
                },
                "\t".join(table),
            )


def _places(name: str, document: _Document, run: Sequence[int]) -> dict[str, int]:
    """Return the first line and the number of sentences of a run; 0 if empty."""
    first = document.sentences[run[0]].line if len(run) else 0
    return {f"{name}_line": first, f"{name}_sentences": len(run)}


def _units(
    options: argparse.Namespace,
    documents: Sequence[_Document],
    found: Sequence[Alignment],
) -> Iterator[WrittenPair]:
    """Yield one unit per run of the first document, with all languages that have it."""
    from labse_tf.text import WrittenPair

    first = documents[0]
    units: dict[range, list[tuple[_Document, Bead]]] = defaultdict(list)
    for other, alignment in zip(documents[1:], found, strict=True):
        for bead in _kept(options, alignment):
            units[bead.source].append((other, bead))
    for run, beads in sorted(
        units.items(), key=lambda unit: (unit[0][0], len(unit[0]))
    ):
        others = [(other.joined(b.target), other.language) for other, b in beads]
        texts, languages = zip(
            (first.joined(run), first.language), *others, strict=True
        )
        score = min(bead.score for _, bead in beads)
        yield WrittenPair(
            texts,
            languages,
            {
                "score": round(score, 6),
                "source_line": first.sentences[run[0]].line,
            },
        )


def _write_parallel(
    options: argparse.Namespace,
    documents: Sequence[_Document],
    found: Sequence[Alignment],
) -> None:
    """Write files with aligned lines, one per language, for the runs that all have."""
    from labse_tf.files import atomic_file
    from labse_tf.text import on_one_line

    units = (
        unit
        for unit in _units(options, documents, found)
        if len(unit.texts) == len(documents)
    )
    with ExitStack() as stack:
        files = [
            stack.enter_context(
                stack.enter_context(
                    atomic_file(f"{options.output}.{document.language}")
                ).open("w", encoding="utf-8", newline="\n")
            )
            for document in documents
        ]
        for unit in units:
            for file, text in zip(files, unit.texts, strict=True):
                file.write(on_one_line(text) + "\n")


def _say_aligned(
    options: argparse.Namespace,
    documents: Sequence[_Document],
    found: Sequence[Alignment],
) -> None:
    """Print a summary; write the JSON file and the plot, if requested."""
    results = []
    for other, alignment in zip(documents[1:], found, strict=True):
        written = sum(1 for bead in _kept(options, alignment))
        results.append(
            {
                "source": documents[0].path,
                "target": other.path,
                "languages": [documents[0].language or None, other.language or None],
                "written": written,
                **alignment.summary(),
            }
        )
    print_table(
        ["target", "sentences", "beads", "1-1", "deleted", "mean score", "written"],
        [
            [
                Path(result["target"]).name,
                "{source:,} x {target:,}".format(**result["sentences"]),
                f"{result['beads']:,}",
                f"{result['one_to_one']:.1%}",
                "{source:.1%}, {target:.1%}".format(**result["deleted_share"]),
                "-" if result["beads"] == 0 else f"{result['mean_score']:.3f}",
                f"{result['written']:,}",
            ]
            for result in results
        ],
    )
    print(f"{options.output}")
    write_json(options.json, {"output": str(options.output), "pairs": results})
    if options.plot:
        from labse_tf.plots import plot_paths

        plot_paths(
            options.plot,
            paths=[alignment.nodes for alignment in found],
            labels=[other.path for other in documents[1:]],
            axis=documents[0].path,
        )
        print(f"plot: {options.plot}")
