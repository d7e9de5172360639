"""Sentence alignment: two documents -> beads of sentences that are translations.

`document_pairs` finds the documents that are translations of each other. `documents`
aligns two of them coarse to fine, `search` is the dynamic programme, `costs` its costs,
`runs` the vectors of one or more consecutive sentences, `token_sums` those of a bag of
tokens, `anchors` the parts of both documents that belong together, `scoring` the F1
against a reference.

The arithmetic is NumPy, except for `token_sums`.

References:
    - Thompson and Koehn, "Vecalign: Improved Sentence Alignment in Linear Time and
      Space", https://aclanthology.org/D19-1136/
"""

from __future__ import annotations

from labse_tf.alignment.anchors import anchors_by_pattern, read_anchors
from labse_tf.alignment.document_pairs import (
    METHODS,
    DocumentPairs,
    Documents,
    align_documents,
    alignment_score,
    bimax,
    document_vectors,
    shared_axes,
    slot_weights,
)
from labse_tf.alignment.documents import (
    BAND,
    MAX_SENTENCES,
    RUN_VECTORS,
    Alignment,
    Bead,
    align,
    check_options,
    has_letters,
)
from labse_tf.alignment.runs import embed_runs
from labse_tf.alignment.scoring import AlignmentScore, score_alignment

__all__ = [
    "slot_weights",
    "shared_axes",
    "document_vectors",
    "bimax",
    "alignment_score",
    "align_documents",
    "Documents",
    "DocumentPairs",
    "METHODS",
    "BAND",
    "MAX_SENTENCES",
    "RUN_VECTORS",
    "Alignment",
    "AlignmentScore",
    "Bead",
    "align",
    "anchors_by_pattern",
    "check_options",
    "embed_runs",
    "has_letters",
    "read_anchors",
    "score_alignment",
]
