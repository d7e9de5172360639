"""Bitext mining: sentence vectors -> pairs of translations.

`neighbors` finds the k nearest neighbors, exactly and in blocks; `approximate` finds
nearly all of them much faster (FAISS); `bitext` scores candidates by margin and selects
pairs; `pair_margins` scores given pairs by margin; `quality` chooses a score threshold
from marked pairs, and `calibration` maps scores to probabilities; `embedding` writes
the vectors of a file to disk and resumes.

Shapes: N sources, M targets, D dimensions, k neighbors.

References:
    - Artetxe and Schwenk, "Margin-based Parallel Corpus Mining with Multilingual
      Sentence Embeddings", https://arxiv.org/abs/1811.01136
    - Feng et al., section 5.3 (BUCC), https://arxiv.org/abs/2007.01852
"""

from __future__ import annotations

from labse_tf.mining.bitext import (
    INDEXES,
    MARGINS,
    RETRIEVALS,
    MinedPairs,
    check_options,
    find_neighbors,
    margin_scores,
    mine_bitext,
    mine_from_neighbors,
    mine_pairs,
    select_one_to_one,
)
from labse_tf.mining.calibration import (
    SHARES,
    Calibration,
    CalibrationResult,
    ThresholdEstimate,
    calibrate,
    fit_calibration,
    threshold_estimates,
)
from labse_tf.mining.embedding import embed_to_disk, rows_on_disk
from labse_tf.mining.neighbors import (
    BothWays,
    check_finite,
    nearest_neighbors,
    neighbors_both_ways,
    unit_rows,
)
from labse_tf.mining.pair_margins import PairMargins, pair_margins
from labse_tf.mining.projection import principal_axes
from labse_tf.mining.quality import best_rows, quality_threshold
from labse_tf.text import DistinctLines, DistinctTexts

__all__ = [
    "INDEXES",
    "MARGINS",
    "RETRIEVALS",
    "SHARES",
    "BothWays",
    "Calibration",
    "CalibrationResult",
    "DistinctLines",
    "DistinctTexts",
    "MinedPairs",
    "PairMargins",
    "ThresholdEstimate",
    "best_rows",
    "calibrate",
    "check_finite",
    "check_options",
    "embed_to_disk",
    "find_neighbors",
    "fit_calibration",
    "margin_scores",
    "mine_bitext",
    "mine_from_neighbors",
    "mine_pairs",
    "nearest_neighbors",
    "neighbors_both_ways",
    "principal_axes",
    "pair_margins",
    "quality_threshold",
    "rows_on_disk",
    "select_one_to_one",
    "threshold_estimates",
    "unit_rows",
]
