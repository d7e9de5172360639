"""Folders of documents: text files -> sentences without duplicates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labse_tf.text.distinct_lines import DistinctTexts
from labse_tf.text.names import file_language, split_language, stem_and_kind
from labse_tf.text.problems import DataError, OnError, PathLike, SkipReport
from labse_tf.text.sentences import Layout, Sentence, read_document

DOCUMENTS = (".txt", ".md")


@dataclass(frozen=True)
class DocumentFolder:
    """The documents of a folder.

    Attributes:
        paths: Path of each document, sorted.
        language: Canonical code of their language, or `""` if unknown.
        texts: The different sentences; `texts.rows` has the row of each sentence, in
            the order of the documents.
        counts: Number of sentences of each document, int64 `(N,)`.
        lengths: Number of characters of each sentence, int64 `(S,)`.
    """

    paths: list[Path]
    language: str
    texts: DistinctTexts
    counts: np.ndarray
    lengths: np.ndarray


def find_documents(folder: PathLike) -> list[Path]:
    """Return the documents of a folder and its subfolders, sorted.

    Args:
        folder: Path of a folder, or `XX=PATH`. Documents are `.txt` and `.md`, plain
            or compressed. Hidden files and folders are left out.

    Raises:
        DataError: If it is not a folder, or has no documents.
    """
    place = split_language(folder)[1]
    if not place.is_dir():
        raise DataError(place, 1, "a folder of documents", "no such folder")
    found = sorted(
        path
        for path in place.rglob("*")
        if stem_and_kind(path)[1] in DOCUMENTS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(place).parts)
    )
    if not found:
        raise DataError(place, 1, f"documents ({', '.join(DOCUMENTS)})", "none")
    return found


def read_documents(
    folder: PathLike,
    *,
    layout: Layout = "paragraphs",
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
) -> DocumentFolder:
    """Read the documents of a folder.

    Memory holds some numbers per sentence. The texts are read again when needed.

    Args:
        folder: Path of a folder, or `XX=PATH` with the language of its documents. If
            not given, the language is that of the folder's name (`hi`) or of the first
            document's name (`chapter1.hi.txt`).
        layout: See `split_document`.
        on_error: See `read_document`.
        skipped: See `read_document`.

    Raises:
        DataError: If there are no documents, no document has text, or a document
            cannot be read.
    """
    given, place = split_language(folder)
    paths = find_documents(folder)
    language = given or file_language(place / f"{place.name}.txt")
    language = language or file_language(paths[0]) or ""
    counts: list[int] = []
    lengths: list[int] = []
    report = SkipReport() if skipped is None else skipped

    def sentences(path: Path, report: SkipReport | None) -> list[Sentence]:
        return read_document(
            path,
            language=language or None,
            layout=layout,
            on_error=on_error,
            skipped=report,
        )

    def first_time() -> Iterator[tuple[int, str]]:
        for path in paths:
            found = sentences(path, report)
            counts.append(len(found))
            lengths.extend(len(sentence.text) for sentence in found)
            yield from ((sentence.line, sentence.text) for sentence in found)

    def again() -> Iterator[tuple[int, str]]:
        for path in paths:
            for sentence in sentences(path, SkipReport()):
                yield sentence.line, sentence.text

    texts = DistinctTexts(
        lambda: again() if counts else first_time(), place, keep_rows=True
    )
    return DocumentFolder(
        paths, language, texts, np.asarray(counts), np.asarray(lengths)
    )
