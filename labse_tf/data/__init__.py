"""Data: files of text -> corpora -> batches of features.

    files -read_pairs-> SentencePair -clean_pairs-> pairs kept -> files
    files -read_pairs-> SentencePair -load_pairs-> ParallelCorpus
          -SamplingPlan-> rows of batch k -sentence_pairs-> tf.data.Dataset
    texts -TextVectors-> vectors on disk, computed once
    ParallelCorpus -prepare_pairs-> shards of token ids -open_prepared, PairStream->
          sentence_pairs, stream_pairs as above
    files -read_sentences-> (language, sentence) -load_sentences-> MonolingualCorpus
          -MaskedPlan-> packed rows of batch k -masked_rows-> tf.data.Dataset

A batch is a pure function of the text, the plan and its index. A run that starts at
step k gets exactly the batches that an uninterrupted run gets from step k on.

`labse_tf.text` reads one file of any format as pairs or sentences. In this package
`corpus` packs them in memory and `loading` fills a corpus from many files; `cleaning`
removes pairs that are unfit for training; `mixture` computes the share of each
language, `neighbors` groups similar pairs, `sampling` plans the rows of each batch;
`batches` makes the dataset of pairs, `masked` the dataset of masked rows; `shards`
writes and reads token ids; `text_vectors` keeps vectors of texts on disk.
"""

from labse_tf.data.batches import sentence_pairs
from labse_tf.data.cleaning import (
    CleaningReport,
    CleaningRules,
    HeldOut,
    clean_files,
    clean_pairs,
)
from labse_tf.data.corpus import Corpus, MonolingualCorpus, ParallelCorpus
from labse_tf.data.loading import (
    Files,
    find_pair_files,
    find_sentence_files,
    load_pairs,
    load_sentences,
    read_files,
)
from labse_tf.data.masked import MaskedPlan, masked_rows
from labse_tf.data.mixture import Share, balance, mixture
from labse_tf.data.neighbors import neighbor_groups
from labse_tf.data.sampling import SamplingPlan
from labse_tf.data.shards.stream import PairStream, stream_pairs
from labse_tf.data.shards.tokens import (
    TokenCorpus,
    is_prepared,
    open_prepared,
    prepared_counts,
    read_description,
)
from labse_tf.data.shards.writing import prepare_pairs
from labse_tf.data.text_vectors import TextVectors
from labse_tf.text import (
    DataError,
    OnError,
    PathLike,
    SentencePair,
    SkipReport,
    clean_interface_text,
    file_language,
    format_of,
    has_one_language,
    read_pairs,
    read_sentences,
    split_language,
)

__all__ = ["CleaningReport", "CleaningRules", "Corpus", "DataError", "Files", "HeldOut"]
__all__ += ["MaskedPlan", "MonolingualCorpus", "OnError", "PairStream"]
__all__ += ["ParallelCorpus", "PathLike", "SamplingPlan", "SentencePair", "Share"]
__all__ += ["SkipReport", "TextVectors", "TokenCorpus", "balance", "clean_files"]
__all__ += ["clean_interface_text", "clean_pairs", "file_language", "find_pair_files"]
__all__ += ["find_sentence_files", "format_of", "has_one_language", "is_prepared"]
__all__ += ["load_pairs", "load_sentences", "masked_rows", "mixture", "neighbor_groups"]
__all__ += ["open_prepared", "prepare_pairs", "prepared_counts"]
__all__ += ["read_description", "read_files", "read_pairs", "read_sentences"]
__all__ += ["sentence_pairs", "split_language", "stream_pairs"]
