"""Trimming: a smaller model that keeps only the tokens of some languages.

    text or scripts -choose_tokens-> ids to keep -keep_tokens-> smaller LaBSE
    held-out text -compare-> effect per language; trim_preset runs all steps

In LaBSE 82 % of the weights are rows of the token table, most of them for languages
that a given user does not need. Kept rows do not change, so a sentence whose tokens are
all kept has the same vector. WordPiece takes the longest matching piece: if all pieces
of a word are kept, its split is the same. A word that lost a piece is split into
shorter pieces. In rare cases a word that was [UNK] can be split after trimming, so the
report compares ids instead of inferring them.

Shapes: V = tokens before, n = tokens kept, D = hidden dimension.
"""

from labse_tf.trimming.parity import LanguageParity, compare
from labse_tf.trimming.pieces import Pieces, sentencepiece_pieces, wordpiece_pieces
from labse_tf.trimming.preset import (
    COLUMNS,
    HELD_OUT_MOST,
    HELD_OUT_SHARE,
    TrimReport,
    trim_preset,
)
from labse_tf.trimming.shrinking import keep_layers, keep_positions
from labse_tf.trimming.smaller import keep_tokens, trim
from labse_tf.trimming.student import ShrinkReport, load_teacher, shrink_preset
from labse_tf.trimming.tokens import choose_tokens
from labse_tf.trimming.transfer import Transfer, transfer_vocabulary

__all__ = ["COLUMNS", "HELD_OUT_MOST", "HELD_OUT_SHARE", "LanguageParity", "Pieces"]
__all__ += ["ShrinkReport", "Transfer", "TrimReport", "choose_tokens", "compare"]
__all__ += ["keep_layers", "keep_positions", "keep_tokens", "load_teacher"]
__all__ += ["sentencepiece_pieces", "shrink_preset", "transfer_vocabulary", "trim"]
__all__ += ["trim_preset", "wordpiece_pieces"]
