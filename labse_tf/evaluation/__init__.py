"""Evaluation of an encoder: a translation must be the nearest neighbor of its source.

In this folder, `encode` is any callable from a list of strings to an `(n, D)` matrix: a
method of a model, a SavedModel, a model of another library. No module here needs
TensorFlow.

`nearest` compares vectors; `ranking` measures retrieval on any pairs, also among the
millions of sentences of a `pool`; `xsim` aligns pairs by margin; `tatoeba` reads the
Tatoeba files and averages over the paper's language groups; `bucc` mines; `sts`
correlates cosines with human scores. Each returns a `result.Result`; `report` combines
all of them.

Shapes: N rows of the first matrix, M rows of the second, D dimensions.

References:
    - Feng et al., "Language-agnostic BERT Sentence Embedding",
      https://arxiv.org/abs/2007.01852
    - Artetxe and Schwenk, "Massively Multilingual Sentence Embeddings for Zero-Shot
      Cross-Lingual Transfer and Beyond" (LASER), https://arxiv.org/abs/1812.10464
"""

from labse_tf.evaluation.bucc import best_threshold, bucc, bucc_report
from labse_tf.evaluation.bucc_results import (
    BUCC_GOLD_PAIRS,
    BUCC_PUBLISHED,
    BuccReport,
    BuccResult,
    PublishedBucc,
)
from labse_tf.evaluation.nearest import Encoder, translation_accuracy
from labse_tf.evaluation.ranking import RetrievalResult, retrieval, trained_codes
from labse_tf.evaluation.report import Report, evaluate_all
from labse_tf.evaluation.result import Result, Score
from labse_tf.evaluation.sts import StsResult, StsScores, read_sts, sts
from labse_tf.evaluation.tatoeba import (
    TATOEBA_GROUPS,
    TATOEBA_PUBLISHED,
    GroupMean,
    TatoebaResult,
    tatoeba,
    tatoeba_pairs,
)
from labse_tf.evaluation.xsim import XsimResult, xsim
from labse_tf.languages import (
    INDIAN_LANGUAGES,
    LANGUAGES,
    Language,
    language_code,
    language_name,
)
from labse_tf.plots import plot_similarity

__all__ = ["BUCC_GOLD_PAIRS", "BUCC_PUBLISHED", "INDIAN_LANGUAGES", "LANGUAGES"]
__all__ += ["TATOEBA_GROUPS", "TATOEBA_PUBLISHED", "BuccReport", "BuccResult"]
__all__ += ["Encoder", "GroupMean", "Language", "PublishedBucc", "Report", "Result"]
__all__ += ["RetrievalResult", "Score", "StsResult", "StsScores", "TatoebaResult"]
__all__ += ["XsimResult", "best_threshold", "bucc", "bucc_report", "evaluate_all"]
__all__ += ["language_code", "language_name", "plot_similarity", "read_sts"]
__all__ += ["retrieval", "sts", "tatoeba", "tatoeba_pairs", "trained_codes"]
__all__ += ["translation_accuracy", "xsim"]
