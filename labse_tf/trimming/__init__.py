"""Trimming: a model that keeps the tokens of a few languages.

    text or scripts -choose_tokens-> ids to keep -keep_tokens-> smaller LaBSE
    held-out text -compare-> what it cost, a language; trim_preset does it all

In LaBSE 82 % of the weights are rows of the token table, most of them for languages
that a given user never meets. A row that is kept is kept as it is, so a sentence whose
token ids stay the same has the same vector. WordPiece takes the longest piece that
matches: while all pieces that a word was cut into are still there, the longest match at
each place is the same and so is the cut. A word that lost a piece is spelled with
shorter ones, and in rare cases a word that had no spelling, [UNK], gains one: the
report therefore compares ids and does not infer them.

Shapes: V = tokens before, n = tokens kept, D = hidden dimension.
"""

from __future__ import annotations

from labse_tf.trimming.parity import LanguageParity, compare
from labse_tf.trimming.preset import (
    COLUMNS,
    HELD_OUT_MOST,
    HELD_OUT_SHARE,
    TrimReport,
    trim_preset,
)
from labse_tf.trimming.smaller import keep_tokens, trim
from labse_tf.trimming.tokens import choose_tokens

__all__ = [
    "COLUMNS",
    "HELD_OUT_MOST",
    "HELD_OUT_SHARE",
    "LanguageParity",
    "TrimReport",
    "choose_tokens",
    "compare",
    "keep_tokens",
    "trim",
    "trim_preset",
]
