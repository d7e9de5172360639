"""Transfer: the blocks of a teacher with the token table of another vocabulary.

Shapes: V = tokens of the teacher, n = tokens of the student, D = hidden dimension.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labse_tf.models import LaBSE
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.progress import Progress, progress_bar
from labse_tf.tokenizers import WordPieceTokenizer
from labse_tf.trimming.pieces import Pieces, wordpiece_pieces
from labse_tf.trimming.rebuilding import PER_TOKEN, rebuild

_UNUSED = re.compile(r"\[unused\d+\]").fullmatch
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
    progress: Progress = None,
) -> Transfer:
    """Create a student with the teacher's blocks and another vocabulary.

    The row of a token is the mean of the rows of the pieces into which the teacher's
    tokenizer splits the text of the token. Special tokens get the row of the teacher's
    special token. A token that the teacher does not know gets the mean of all rows. The
    token weights of the pooling `"weighted_mean"` are computed in the same way. All
    other weights are copied.

    Args:
        teacher: The model to start from. It needs no preprocessor if `pieces` are
            given.
        tokenizer: Tokenizer of the student.
        pieces: The teacher's pieces. Default: those of the teacher's tokenizer.
        sequence_length: Maximum number of tokens per text of the student. Default: as
            the teacher's preprocessor, else the position table.
        progress: See `labse_tf.progress`; counts tokens.

    Returns:
        The student, and how well the vocabularies fit.

    Raises:
        ValueError: If the teacher has no preprocessor and `pieces` are not given, or
            the pieces are not those of the teacher's table.
    """
    if pieces is None:
        pieces = wordpiece_pieces(teacher.text_preprocessor().tokenizer)
    rows = teacher.backbone.vocabulary_size
    if pieces.size > rows:
        raise ValueError(
            f"`pieces` must have at most {rows:,} tokens, the rows of the teacher's "
            f"token table. Received: {pieces.size:,}"
        )
    old, longest = teacher.preprocessor, teacher.backbone.max_sequence_length
    length = sequence_length or (longest if old is None else old.sequence_length)
    chosen, unknown = [], []
    tokens = tokenizer.vocabulary
    with progress_bar(
        "Splitting tokens", len(tokens), "tokens", show=progress
    ) as advance:
        for token in tokens:
            found = pieces.of_token(token) if not _UNUSED(token) else []
            if not found and not _UNUSED(token):
                unknown.append(token)
            chosen.append(found)
            advance(1)

    def value(path: str, weights: Mapping[str, Any]) -> Any:
        if path not in PER_TOKEN:
            return weights[path]
        return mean_rows(np.asarray(weights[path])[: pieces.size], chosen)

    student = rebuild(
        teacher,
        {"vocabulary_size": len(tokens)},
        SentencePreprocessor(
            tokenizer, length, pad="longest" if old is None else old.pad
        ),
        value,
    )
    counts = [len(found) for found in chosen if found]
    return Transfer(student, float(np.mean(counts)) if counts else 0.0, unknown)


def mean_rows(table: NDArray[Any], groups: list[list[int]]) -> NDArray[np.float32]:
    """Return the mean of the rows of each group; of all rows for an empty group.

    Args:
        table: Float `(V, D)`.
        groups: n lists of row numbers.

    Returns:
        float32 `(n, D)`.
    """
    result = np.empty((len(groups), table.shape[1]), np.float32)
    result[:] = table.mean(axis=0, dtype=np.float64)
    filled = [i for i, group in enumerate(groups) if group]
    for start in range(0, len(filled), _BLOCK):
        block = filled[start : start + _BLOCK]
        counts = np.array([len(groups[i]) for i in block])
        rows = table[np.concatenate([groups[i] for i in block])].astype(np.float64)
        sums = np.add.reduceat(rows, np.cumsum(counts) - counts, axis=0)
        result[block] = sums / counts[:, None]
    return result
