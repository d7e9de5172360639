"""Writing of pairs: pairs and their scores -> TSV, JSON Lines, TMX or Parquet.

The ending of the output chooses the format, and a further ending the compression. Files
are written atomically, and `read_pairs` reads them.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from labse_tf.extras import require
from labse_tf.files import atomic_file
from labse_tf.languages import is_english
from labse_tf.pipes import is_stream
from labse_tf.text.names import PACKED, stem_and_kind
from labse_tf.text.problems import PathLike

_ENDINGS = (".tsv", ".jsonl", ".ndjson", ".tmx", ".parquet")
_ON_ONE_LINE = str.maketrans("\t\r\n", "   ")
# XML 1.0 has no way to write these characters.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_GROUP = 1 << 13  # ours: pairs of a Parquet row group, some megabytes


class WrittenPair(NamedTuple):
    """A pair to write, or for TMX a unit of two or more languages.

    Attributes:
        texts: The two sentences; for TMX, two or more.
        languages: Canonical code of each, or `""` if unknown.
        numbers: Name -> number, such as a score, which TSV omits.
        line: Line that TSV has in place of the two texts, if not empty.
    """

    texts: tuple[str, ...]
    languages: tuple[str, ...] = ("", "")
    numbers: Mapping[str, float] = MappingProxyType({})
    line: str = ""


Write = Callable[[WrittenPair], None]


def on_one_line(text: str) -> str:
    """Replace tabs and line ends by spaces, for a column of TSV."""
    return text.translate(_ON_ONE_LINE)


def output_kind(path: PathLike) -> str:
    """Return the ending that chooses the format of an output of pairs.

    Returns:
        `.tsv`, `.jsonl`, `.ndjson`, `.tmx` or `.parquet`; `.tsv` for a stream without
        an ending, such as `-`.

    Raises:
        ImportError: If the format or the compression needs a package that is missing.
        ValueError: If the ending is another.
    """
    kind = stem_and_kind(path)[1]
    if not kind and is_stream(path):
        return ".tsv"
    packed = Path(path).suffix.lower()
    if kind not in _ENDINGS or (kind == ".parquet" and packed in PACKED):
        raise ValueError(
            f"The output must end in {', '.join(_ENDINGS)}; all except .parquet also "
            f"with {', '.join(PACKED)}. Received: {path}"
        )
    extra = {".parquet": "parquet", ".zst": "text"}.get(packed)
    if extra is not None:
        require(extra, str(path))
    return kind


def english_first(languages: Sequence[str], hint: str) -> bool:
    """Return whether two languages are in the order of `en-XX.tsv`.

    Args:
        languages: Canonical codes, or `""` if unknown.
        hint: How to give the languages, for the error message.

    Raises:
        ValueError: If neither or both are English.
    """
    marks = [bool(code) and is_english(code) for code in languages]
    if sum(marks) != 1:
        received = " and ".join(code or "unknown" for code in languages)
        raise ValueError(
            f"One of the two languages must be English; {hint}. Received: {received}"
        )
    return marks[0]


@contextmanager
def pair_writer(path: PathLike) -> Iterator[Write]:
    """Write pairs atomically: yield a function that writes one pair.

    Args:
        path: Output, see `output_kind`.

    Raises:
        ImportError: See `output_kind`.
        OSError: If the file cannot be written.
        ValueError: See `output_kind`; for TMX also if a language is unknown.
    """
    kind, packed = output_kind(path), Path(path).suffix.lower()
    with atomic_file(path) as temporary:
        if kind == ".parquet":
            with _parquet_writer(temporary) as write:
                yield write
            return
        with _opened(temporary, packed) as file:
            if kind == ".tsv":
                yield lambda pair: _write_tsv(file, pair)
            elif kind == ".tmx":
                file.write(_TMX_HEAD)
                yield lambda pair: _write_tmx(file, pair)
                file.write(_TMX_END)
            else:
                yield lambda pair: _write_json(file, pair)


@contextmanager
def _opened(path: Path, packed: str) -> Iterator[IO[str]]:
    """Open a text file, which is compressed if `packed` is such an ending."""
    with path.open("wb") as raw:
        stream: AbstractContextManager[Any] = raw
        if packed == ".gz":
            # Without a name and a time stamp the same text gives the same bytes.
            stream = gzip.GzipFile("", "wb", fileobj=raw, mtime=0)
        elif packed == ".bz2":
            stream = bz2.BZ2File(raw, "wb")
        elif packed == ".xz":
            stream = lzma.LZMAFile(raw, "wb")
        elif packed == ".zst":
            import zstandard

            stream = zstandard.ZstdCompressor().stream_writer(raw, closefd=False)
        with stream as binary:
            file = io.TextIOWrapper(binary, encoding="utf-8", newline="\n")
            yield file
            file.flush()
            file.detach()


def _write_tsv(file: IO[str], pair: WrittenPair) -> None:
    file.write((pair.line or "\t".join(map(on_one_line, pair.texts))) + "\n")


def _entry(pair: WrittenPair) -> dict[str, Any]:
    """Return a pair as the object of JSON Lines or the row of Parquet."""
    source, target = pair.languages
    return {
        "source": pair.texts[0],
        "target": pair.texts[1],
        "source_language": source or None,
        "language": target or None,
        **pair.numbers,
    }


def _write_json(file: IO[str], pair: WrittenPair) -> None:
    entry = {key: value for key, value in _entry(pair).items() if value is not None}
    file.write(json.dumps(entry, ensure_ascii=False) + "\n")


_TMX_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<tmx version="1.4">
<header creationtool="labse-tf" creationtoolversion="1" segtype="sentence" \
o-tmf="labse-tf" adminlang="en" srclang="*all*" datatype="plaintext"/>
<body>
"""
_TMX_END = "</body>\n</tmx>\n"


def _write_tmx(file: IO[str], pair: WrittenPair) -> None:
    if not all(pair.languages):
        received = " and ".join(code or "unknown" for code in pair.languages)
        raise ValueError(f"TMX needs the language of each text. Received: {received}")
    numbers = "".join(
        f'<prop type="x-{name}">{value}</prop>' for name, value in pair.numbers.items()
    )
    variants = "".join(
        f"\n<tuv xml:lang={quoteattr(code)}><seg>{_xml_text(text)}</seg></tuv>"
        for code, text in zip(pair.languages, pair.texts, strict=True)
    )
    file.write(f"<tu>{numbers}{variants}\n</tu>\n")


def _xml_text(text: str) -> str:
    return escape(_NOT_XML.sub(" ", text), {"\r": "&#13;"})


@contextmanager
def _parquet_writer(path: Path) -> Iterator[Write]:
    """Write row groups of pairs to a Parquet file."""
    import pyarrow
    from pyarrow import parquet

    text = [(name, pyarrow.string()) for name in _entry(WrittenPair(("", "")))]
    waiting: list[WrittenPair] = []
    writer: Any = None

    def flush() -> None:
        nonlocal writer
        if writer is None:
            numbers = waiting[0].numbers if waiting else {}
            columns = [
                (name, pyarrow.int64() if isinstance(value, int) else pyarrow.float64())
                for name, value in numbers.items()
            ]
            writer = parquet.ParquetWriter(path, pyarrow.schema([*text, *columns]))
        if waiting:
            rows = list(map(_entry, waiting))
            writer.write_table(pyarrow.Table.from_pylist(rows, writer.schema))
            waiting.clear()

    def write(pair: WrittenPair) -> None:
        waiting.append(pair)
        if len(waiting) >= _GROUP:
            flush()

    try:
        yield write
        flush()
    finally:
        if writer is not None:
            writer.close()
