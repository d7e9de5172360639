"""Files of translations -> batches of features: readers, corpus, mixture, dataset.

    files -read_pairs-> SentencePair -load_pairs-> ParallelCorpus
          -mixture, plan-> row numbers of batch k -sentence_pairs-> tf.data.Dataset

A batch is a pure function of the text, the seed, the options and its number: a run
that starts at step k sees exactly what an uninterrupted run sees from step k on.

`readers` turns one file into pairs, `corpus` packs many files in memory, `pipeline`
plans the batches and makes the dataset; each imports from those before it only.
"""

from __future__ import annotations

from labse_tf.data.corpus import Files, ParallelCorpus, find_pair_files, load_pairs
from labse_tf.data.pipeline import DEAL, WINDOW, mixture, sentence_pairs
from labse_tf.data.readers import (
    DataError,
    OnError,
    PathLike,
    SentencePair,
    SkipReport,
    clean_interface_text,
    file_language,
    language_tag,
    read_pairs,
    read_sentences,
)

__all__ = [
    "DEAL",
    "WINDOW",
    "DataError",
    "Files",
    "OnError",
    "ParallelCorpus",
    "PathLike",
    "SentencePair",
    "SkipReport",
    "clean_interface_text",
    "file_language",
    "find_pair_files",
    "language_tag",
    "load_pairs",
    "mixture",
    "read_pairs",
    "read_sentences",
    "sentence_pairs",
]
