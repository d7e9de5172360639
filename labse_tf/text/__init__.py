"""Text: one file, plain or compressed -> lines, sentences or sentence pairs.

    XX=PATH -names-> path -formats-> reader -streams-> bytes, lines or markup
            -reader-> rows (line, English, translation, language)
            -reading-> lines, sentences, pairs

One module per format: `tsv`, `csv_tables`, `catalogues` (gettext), `moses`, `tmx`,
`xliff`, `jsonl`, `parquet`, `tfrecord`, `tfds`, `plain`. Each maps an `InputFile` to
rows. Invalid content raises a `DataError` with path and line, or is skipped and counted
in a `SkipReport` (`problems`); `plausibility` warns of files that are probably wrong.
`distinct_lines` reads the distinct sentences of a file that is too large for memory;
`sentences` splits documents; `writing` writes pairs.
"""

from __future__ import annotations

from labse_tf.text.csv_tables import read_csv
from labse_tf.text.distinct_lines import DistinctLines, DistinctTexts
from labse_tf.text.documents import DocumentFolder, find_documents, read_documents
from labse_tf.text.formats import (
    FORMATS,
    Format,
    distinct_files,
    format_of,
    has_one_language,
    moses_sides,
)
from labse_tf.text.names import (
    file_language,
    split_language,
    stem_and_kind,
)
from labse_tf.text.plain import clean_interface_text
from labse_tf.text.plausibility import column_languages
from labse_tf.text.problems import (
    DataError,
    DataWarning,
    OnError,
    PathLike,
    SentencePair,
    SkipReport,
    check_unchanged,
    shorten,
)
from labse_tf.text.reading import (
    Side,
    blocks_of,
    read_lines,
    read_numbered,
    read_numbered_pairs,
    read_pairs,
    read_scored_pairs,
    read_sentences,
)
from labse_tf.text.sentences import (
    LAYOUTS,
    Layout,
    Sentence,
    join_sentences,
    read_document,
    split_document,
    split_sentences,
)
from labse_tf.text.streams import COMPRESSED
from labse_tf.text.translations import SCORES
from labse_tf.text.writing import (
    WrittenPair,
    english_first,
    on_one_line,
    output_kind,
    pair_writer,
)

__all__ = [
    "read_documents",
    "find_documents",
    "DocumentFolder",
    "COMPRESSED",
    "FORMATS",
    "LAYOUTS",
    "SCORES",
    "DataError",
    "DataWarning",
    "DistinctLines",
    "DistinctTexts",
    "Format",
    "Layout",
    "OnError",
    "PathLike",
    "Sentence",
    "SentencePair",
    "Side",
    "SkipReport",
    "WrittenPair",
    "blocks_of",
    "check_unchanged",
    "clean_interface_text",
    "column_languages",
    "distinct_files",
    "english_first",
    "file_language",
    "format_of",
    "has_one_language",
    "join_sentences",
    "moses_sides",
    "on_one_line",
    "output_kind",
    "pair_writer",
    "read_csv",
    "read_document",
    "read_lines",
    "read_numbered",
    "read_numbered_pairs",
    "read_pairs",
    "read_scored_pairs",
    "read_sentences",
    "shorten",
    "split_document",
    "split_language",
    "split_sentences",
    "stem_and_kind",
]
