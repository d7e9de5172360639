"""Tokens: arrays of a prepared directory as a corpus in memory. No TensorFlow.

Shapes: N pairs of the corpus.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labse_tf.data.corpus import Corpus
from labse_tf.data.shards.layout import (
    DATASET,
    Description,
    describe_tokenizer,
    join,
    names_in,
    read_bytes,
)
from labse_tf.languages import language_code
from labse_tf.progress import Progress, progress_bar
from labse_tf.text import PathLike

if TYPE_CHECKING:
    import tensorflow as tf

    from labse_tf.preprocessing import SentencePreprocessor


class _Tokens(NamedTuple):
    """Concatenated token ids of one side; the counterpart of a corpus's texts."""

    values: NDArray[np.integer]
    offsets: NDArray[np.int64]  # (N + 1,)

    def take(
        self, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the concatenated token ids of some rows and their lengths."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        ends = lengths.cumsum()
        places = np.arange(ends[-1] if len(ends) else 0)
        places += np.repeat(starts - (ends - lengths), lengths)
        return self.values[places].astype(np.int32), lengths

    def subset(self, rows: NDArray[np.int64]) -> _Tokens:
        values, lengths = self.take(rows)
        return _Tokens(
            values.astype(self.values.dtype), np.concatenate([[0], lengths.cumsum()])
        )

    def lengths(self) -> NDArray[np.int32]:
        return np.diff(self.offsets).astype(np.int32)


class TokenCorpus(Corpus):
    """Pairs of many languages as token ids in memory, for `sentence_pairs`.

    Created by `open_prepared`. Holds 2 bytes per token (4 for a vocabulary of more than
    65,536 tokens) and 16 bytes per pair. See `Corpus` for the attributes.

    Args:
        counts: Language -> number of pairs, sorted.
        sides: Token ids of the sources and of the targets.
        description: Description of the directory.
    """

    def __init__(
        self,
        counts: dict[str, int],
        sides: tuple[_Tokens, ...],
        description: Description,
    ) -> None:
        """Store the arguments."""
        super().__init__(counts, sides)
        self.description = description

    def digest(self) -> str:
        """Return the SHA-256 of the description and the counts, 64 hex digits."""
        text = self.description.to_json() + str(list(self.counts.items()))
        return hashlib.sha256(text.encode()).hexdigest()

    def pairs(
        self, language: str, rows: ArrayLike
    ) -> tuple[list[NDArray[np.int32]], list[NDArray[np.int32]]]:
        """Return the token ids of some rows of a language, without [CLS] and [SEP].

        Args:
            language: One of `languages`.
            rows: Integers below `counts[language]`, in any order.

        Returns:
            Sources and targets, one int32 array per sentence.
        """
        taken = self.take(self.rows(language, rows))
        sources, targets = (
            np.split(values, lengths.cumsum()[:-1]) for values, lengths in taken
        )
        return sources, targets


def read_description(path: PathLike) -> Description:
    """Read the description of a local or remote prepared directory.

    Raises:
        ValueError: If the directory is not prepared or not finished.
    """
    names = names_in(path)
    if DATASET not in names:
        raise ValueError(
            f"{path}: expected a directory that `labse-tf prepare` has finished, with "
            f"{DATASET}. Received: {', '.join(sorted(names)[:5]) or 'nothing'}"
        )
    file = join(path, DATASET)
    return Description.from_json(read_bytes(file).decode("utf-8", "replace"), file)


def is_prepared(path: PathLike) -> bool:
    """Return whether `labse-tf prepare` has finished a directory."""
    return DATASET in names_in(path)


def prepared_counts(
    path: PathLike, languages: Iterable[str] | None = None
) -> dict[str, int]:
    """Return the number of pairs per language of a local or remote prepared directory.

    Reads the description only. `languages` selects languages; `None` for all.

    Raises:
        ValueError: If the directory is not prepared or lacks one of the languages.
    """
    return chosen_counts(read_description(path), languages)


def open_prepared(
    path: PathLike, *, languages: Iterable[str] | None = None, progress: Progress = None
) -> TokenCorpus:
    """Read the arrays of a prepared directory into memory.

    Args:
        path: Local or remote path (`gs://...`).
        languages: Languages to read; `None` for all.
        progress: See `labse_tf.progress`; counts pairs.

    Raises:
        ValueError: If the directory is not prepared, has no arrays or lacks one of the
            languages, or a file is damaged.
        OSError: If a file cannot be read.
    """
    description = read_description(path)
    if "arrays" not in description.formats:
        raise ValueError(
            f"{path}: expected arrays (`PairStream` reads TFRecords). "
            f"Received: a directory of {', '.join(description.formats)}"
        )
    counts = chosen_counts(description, languages)
    lengths: tuple[list[Any], list[Any]] = [], []
    tokens: tuple[list[Any], list[Any]] = [], []
    total = sum(counts.values())
    with progress_bar("Reading", total, "pairs", show=progress) as advance:
        for language in counts:
            for name, rows in description.shards(language):
                shard = _read_shard(join(path, "arrays", name + ".npz"), len(rows))
                for side in (0, 1):
                    lengths[side].append(shard[side][1])
                    tokens[side].append(shard[side][0])
                advance(len(rows))
    sides = []
    for values, sizes in zip(tokens, lengths, strict=True):
        joined = np.concatenate(values)
        values.clear()
        ends = np.concatenate(sizes).cumsum(dtype=np.int64)
        sides.append(_Tokens(joined, np.concatenate([[0], ends])))
    return TokenCorpus(counts, tuple(sides), description)


def check_tokenizer(description: Description, preprocessor: Any) -> None:
    """Check that a preprocessor fits prepared token ids.

    Raises:
        ValueError: If it is not a `SentencePreprocessor`, has another tokenizer or
            makes longer rows.
    """
    tokenizer = getattr(preprocessor, "tokenizer", None)
    now = {} if tokenizer is None else describe_tokenizer(tokenizer)
    for option, value in description.tokenizer.items():
        if now.get(option) != value:
            raise ValueError(
                "`preprocessor` must be a SentencePreprocessor with the tokenizer that "
                f"the pairs were prepared with, {option}={str(value)[:12]}. Received: "
                f"{type(preprocessor).__name__}, {option}={str(now.get(option))[:12]}"
            )
    if preprocessor.prefix:
        raise ValueError(
            "`preprocessor` must have no prefix, since prepared pairs have none; train "
            f"from text instead. Received: prefix={preprocessor.prefix!r}"
        )
    if preprocessor.sequence_length > description.sequence_length:
        raise ValueError(
            f"`sequence_length` must be at most {description.sequence_length}, to "
            f"which the pairs were cut. Received: {preprocessor.sequence_length}"
        )


def token_features(
    preprocessor: SentencePreprocessor,
    source: tf.RaggedTensor,
    target: tf.RaggedTensor,
    batch_size: int | None,
) -> dict[str, Any]:
    """Return `{"source": features, "target": features}` of the token ids of pairs.

    Args:
        preprocessor: Preprocessor that adds [CLS] and [SEP], and pads.
        source: RaggedTensor int32 `(B, None)`.
        target: RaggedTensor int32 `(B, None)`.
        batch_size: B, or `None` if it is not static.
    """
    import tensorflow as tf

    both = {
        name: preprocessor.pack(preprocessor.frame(side))
        for name, side in (("source", source), ("target", target))
    }
    return tf.nest.map_structure(
        lambda x: tf.ensure_shape(x, (batch_size, *x.shape[1:])), both
    )


def chosen_counts(
    description: Description, languages: Iterable[str] | None
) -> dict[str, int]:
    """Return canonical code -> number of pairs for some languages (`None` for all).

    Raises:
        ValueError: If the directory lacks one of the languages.
    """
    counts = Counter[str]()
    for label, count in description.counts.items():
        counts[language_code(label)] += count
    if languages is None:
        return dict(sorted(counts.items()))
    wanted = {language_code(code) for code in languages}
    if not wanted or not wanted <= counts.keys():
        raise ValueError(
            f"`languages` must be some of {', '.join(sorted(counts))}. "
            f"Received: {sorted(wanted)}"
        )
    return {code: counts[code] for code in sorted(wanted)}


def _read_shard(path: str, count: int) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return (tokens, lengths) of the sources and of the targets."""
    try:
        with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as file:
            lengths, tokens = file["lengths"], file["tokens"]
        totals = lengths.sum(axis=0, dtype=np.int64)
        if lengths.shape != (count, 2) or totals.sum() != len(tokens):
            raise ValueError(f"{lengths.shape} lengths of {len(tokens)} tokens")
    except (ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(
            f"{path}: expected an undamaged shard of {count} pairs. Received: {error}"
        ) from None
    parts = np.split(tokens, totals[:1])
    return [(part, lengths[:, side]) for side, part in enumerate(parts)]
