"""Beam: corpora beyond one machine, by the functions that the local commands use.

    files -ReadPairs-> (position, pair) -CleanPairs-> kept, report -WritePairs-> files
    files -ReadPairs-> (position, pair) -PreparePairs-> a prepared directory
    files -ReadSentences-> (language, sentence) -CountWords-> ((language, word), count)
          -WriteWordCounts-> files
    files -ReadLines-> (position, text) -EmbedLines-> arrays of vectors and their texts
    (key, text) -EmbedTexts-> ((key, text), vector)

A `position` is 12 bytes, which sort as files and their lines do. What is written is a
function of the text and the arguments, whatever the runner, the number of workers and
their bundles.

Files are read and written by Beam's `FileSystems` (`gs://`, `s3://`, `hdfs://` with
Beam's extras). Readers want local paths: a remote file is copied to the worker first,
and one file is read by one worker, so large corpora should be many files.

`files` reads and publishes, `ordering` cuts shards, `cleaning`, `words`, `preparing`
and `embedding` are the pipelines, `commands` is `python -m labse_tf.beam`.
"""

from __future__ import annotations

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

__all__ = [
    "CleanPairs",
    "Cleaned",
    "CombineReports",
    "CountWords",
    "EmbedLines",
    "EmbedTexts",
    "PreparePairs",
    "ReadLines",
    "ReadPairs",
    "ReadSentences",
    "SavedModelHandler",
    "WritePairs",
    "WriteWordCounts",
    "position",
]
