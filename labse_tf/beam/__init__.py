"""Beam: Apache Beam pipelines for large corpora, with the local commands' functions.

    files -ReadPairs-> (position, pair) -CleanPairs-> kept, report -WritePairs-> files
    files -ReadPairs-> (position, pair) -PreparePairs-> a prepared directory
    files -ReadSentences-> (language, sentence) -CountWords-> ((language, word), count)
          -WriteWordCounts-> files
    files -ReadLines-> (position, text) -EmbedLines-> arrays of vectors and their texts
    (key, text) -EmbedTexts-> ((key, text), vector)

A `position` has 12 bytes, which sort by file and line. Outputs depend only on the text
and the arguments, not on the runner, the number of workers or their bundles.

Files are read and written with Beam's `FileSystems` (`gs://`, `s3://`, `hdfs://` with
Beam's extras). A remote file is first copied to the worker. One worker reads one file,
so split large corpora into many files.

`files` reads and writes files, `ordering` assigns shards, `cleaning`, `words`,
`preparing` and `embedding` are the pipelines, `commands` is `python -m labse_tf.beam`.
"""

import importlib.util

if importlib.util.find_spec("apache_beam") is None:
    raise ImportError(
        "`labse_tf.beam` needs Apache Beam: pip install 'labse-tf[beam]'",
        name="apache_beam",
    )

from labse_tf.beam.cleaning import Cleaned, CleanPairs, CombineReports, WritePairs
from labse_tf.beam.embedding import EmbedLines, EmbedTexts, SavedModelHandler
from labse_tf.beam.files import ReadLines, ReadPairs, ReadSentences, position
from labse_tf.beam.preparing import PreparePairs
from labse_tf.beam.words import CountWords, WriteWordCounts

__all__ = ["CleanPairs", "Cleaned", "CombineReports", "CountWords", "EmbedLines"]
__all__ += ["EmbedTexts", "PreparePairs", "ReadLines", "ReadPairs", "ReadSentences"]
__all__ += ["SavedModelHandler", "WritePairs", "WriteWordCounts", "position"]
