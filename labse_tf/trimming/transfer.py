"""Transfer: the blocks of a teacher with the token table of another vocabulary.

Shapes: V = tokens of the teacher, n = tokens of the student, D = hidden dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labse_tf.models import LaBSE
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.tokenizers import WordPieceTokenizer
from labse_tf.trimming.pieces import Pieces, is_unused, pieces_of
from labse_tf.trimming.rebuilding import TOKEN_WEIGHTS, rebuild
from labse_tf.variables import TOKEN_TABLE

_BLOCK = 4096  # tokens whose rows are computed at once


class Transfer(NamedTuple):
    """Result of `transfer_vocabulary`.

    Attributes:
        model: The student.
        pieces_per_token: Mean number of the teacher's pieces per token, of the tokens
            that have some.
        unknown: Tokens that have the mean row of the teacher's table because the
            teacher does not know their characters. Without `[unused...]`.
    """

    model: LaBSE
    pieces_per_token: float
    unknown: list[str]


def transfer_vocabulary(
    teacher: LaBSE,
    tokenizer: WordPieceTokenizer,
    *,
    pieces: Pieces | None = None,
    sequence_length: int | None = None,
) -> Transfer:
    """Create a student with the teacher's blocks and another vocabulary.

    The row of a token is the mean of the rows of the pieces into which the teacher's
    tokenizer splits the text of the token. Special tokens get the row of the teacher's
    special token. A token that the teacher does not know gets the mean of all rows. See
    `token_rows` for the pooling `"weighted_mean"`. All other weights are copied. The
    student has no prefix: before training it scores higher without the teacher's.

    Args:
        teacher: The model to start from. It needs no preprocessor if `pieces` are
            given.
        tokenizer: Tokenizer of the student.
        pieces: The teacher's pieces. Default: those of the teacher's tokenizer.
        sequence_length: Maximum number of tokens per text of the student. Default: as
            the teacher's preprocessor, else the position table.

    Returns:
        The student, and how well the vocabularies fit.

    Raises:
        ValueError: If the teacher has no preprocessor and `pieces` are not given, or
            the pieces are not those of the teacher's table.
    """
    if pieces is None:
        pieces = pieces_of(teacher.text_preprocessor().tokenizer)
    rows = teacher.backbone.vocabulary_size
    if pieces.size > rows:
        raise ValueError(
            f"`pieces` must have at most {rows:,} tokens, the rows of the teacher's "
            f"token table. Received: {pieces.size:,}"
        )
    old, longest = teacher.preprocessor, teacher.backbone.max_sequence_length
    length = sequence_length or (longest if old is None else old.sequence_length)
    tokens = tokenizer.vocabulary
    chosen = pieces.of_tokens(tokens)
    unknown = [
        token
        for token, ids in zip(tokens, chosen, strict=True)
        if not ids and not is_unused(token)
    ]
    new = token_rows({w.path: w for w in teacher.weights}, chosen, pieces.size)
    student = rebuild(
        teacher,
        {"vocabulary_size": len(tokens)},
        SentencePreprocessor(tokenizer, length)
        if old is None
        else old.copy(tokenizer=tokenizer, sequence_length=length, prefix=""),
        lambda path, weights: new.get(path, weights[path]),
    )
    counts = [len(found) for found in chosen if found]
    return Transfer(student, float(np.mean(counts)) if counts else 0.0, unknown)


def token_rows(
    weights: Mapping[str, Any], groups: Sequence[Sequence[int]], size: int
) -> dict[str, NDArray[np.float32]]:
    """Return the rows of new tokens from the rows of their pieces.

    The row of a token is the mean of the rows of its pieces; of all rows for a token
    without pieces. With the pooling `"weighted_mean"`, a token stands for its pieces in
    the weighted sum: its weight `exp(w)` is the sum of their weights, and its row is
    their mean by these weights.

    Args:
        weights: Weights of the old model by path.
        groups: Ids of the pieces of each of n new tokens.
        size: Number of rows of the old table that have a token.

    Returns:
        float32 `(n, D)`, and with the pooling `"weighted_mean"` `(n, 1)`, by path.
    """
    table = np.asarray(weights[TOKEN_TABLE])[:size]
    if TOKEN_WEIGHTS not in weights:
        return {TOKEN_TABLE: _mean_rows(table, groups, np.ones(size))}
    factors = np.exp(np.asarray(weights[TOKEN_WEIGHTS], np.float64)[:size, 0])
    # The mean of the logarithms for a token without pieces, the sum for all others.
    sums = np.array([factors[list(group)].sum() for group in groups])
    typical = np.exp(np.log(factors).mean())
    new = np.log(np.where(sums > 0, sums, typical))
    return {
        TOKEN_TABLE: _mean_rows(table, groups, factors),
        TOKEN_WEIGHTS: new.astype(np.float32)[:, None],
    }


def _mean_rows(
    table: NDArray[Any], groups: Sequence[Sequence[int]], weights: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the weighted mean row of each group, of all rows for an empty group."""
    result = np.empty((len(groups), table.shape[1]), np.float32)
    result[:] = table.mean(axis=0, dtype=np.float64)
    filled = [i for i, group in enumerate(groups) if len(group)]
    for start in range(0, len(filled), _BLOCK):
        block = filled[start : start + _BLOCK]
        starts = np.cumsum([0, *(len(groups[i]) for i in block[:-1])])
        ids = np.concatenate([np.asarray(groups[i]) for i in block])
        factors = weights[ids][:, None]
        rows = np.add.reduceat(table[ids] * factors, starts, axis=0)
        result[block] = rows / np.add.reduceat(factors, starts, axis=0)
    return result
