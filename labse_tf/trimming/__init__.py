"""Trimming: a smaller model that keeps some tokens, and models of other vocabularies.

    text or scripts -choose_tokens-> ids to keep -keep_tokens-> smaller LaBSE
    held-out text -compare-> effect per language; trim_preset runs all steps

    tokenizer -transfer_vocabulary-> LaBSE with this vocabulary and the same blocks
    -keep_layers, keep_positions, drop_prefix-> smaller; shrink_preset runs all steps

    text -choose_new_tokens-> tokens -extend_vocabulary-> LaBSE with more tokens;
    extend_preset runs both steps and compares

In LaBSE 82 % of the weights are rows of the token table, most of them for languages
that a given user does not need. Kept rows do not change, so a sentence whose tokens are
all kept has the same vector. WordPiece takes the longest matching piece: if all pieces
of a word are kept, its split is the same. SentencePiece takes the pieces with the
largest sum of scores, which dropping other pieces does not change. A word that lost a
piece is split into other pieces. In rare cases a word that was [UNK] can be split after
trimming, so the report compares ids instead of inferring them.

The row of a token that the old model does not have is the mean of the rows of the old
pieces of its text; see `token_rows`.

Shapes: V = tokens before, n = tokens kept or added, D = hidden dimension.
"""

from labse_tf.trimming.extended import ExtendReport, extend_preset
from labse_tf.trimming.extending import (
    Extension,
    check_tokens,
    choose_new_tokens,
    extend_vocabulary,
)
from labse_tf.trimming.parity import COLUMNS, LanguageParity, compare
from labse_tf.trimming.pieces import Pieces, sentencepiece_pieces, wordpiece_pieces
from labse_tf.trimming.preset import TrimReport, trim_preset
from labse_tf.trimming.sentences import HELD_OUT_MOST, HELD_OUT_SHARE
from labse_tf.trimming.shrinking import (
    drop_prefix,
    keep_layers,
    keep_positions,
    spread_blocks,
)
from labse_tf.trimming.smaller import keep_tokens, trim
from labse_tf.trimming.student import ShrinkReport, Teacher, load_teacher, shrink_preset
from labse_tf.trimming.tokens import choose_tokens
from labse_tf.trimming.transfer import Transfer, token_rows, transfer_vocabulary

__all__ = ["COLUMNS", "ExtendReport", "Extension", "HELD_OUT_MOST", "HELD_OUT_SHARE"]
__all__ += [
    "LanguageParity",
    "Pieces",
    "ShrinkReport",
    "Teacher",
    "Transfer",
    "TrimReport",
]
__all__ += ["check_tokens", "choose_new_tokens", "choose_tokens", "compare"]
__all__ += ["drop_prefix", "extend_preset", "extend_vocabulary", "keep_layers"]
__all__ += ["keep_positions", "keep_tokens", "load_teacher"]
__all__ += ["sentencepiece_pieces", "shrink_preset", "spread_blocks"]
__all__ += ["token_rows", "transfer_vocabulary", "trim", "trim_preset"]
__all__ += ["wordpiece_pieces"]
