"""Writing: a corpus of pairs -> shards of token ids. Interrupted runs can resume."""

from __future__ import annotations

import dataclasses
import io
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labse_tf.data.corpus import ParallelCorpus
from labse_tf.data.shards.layout import (
    DATASET,
    FORMATS,
    UNFINISHED,
    VOCABULARY,
    Description,
    describe_tokenizer,
    join,
    names_in,
    new_file,
    read_bytes,
    remove,
    write_bytes,
)
from labse_tf.progress import Progress, progress_bar
from labse_tf.text import PathLike

if TYPE_CHECKING:
    from labse_tf.tokenizers import WordPieceTokenizer

SHARD_SIZE = 1 << 16  # ours: some megabytes
_BLOCK = 4096  # pairs tokenized per call

# Concatenated token ids of some sentences, and the length of each sentence.
Tokens = tuple[NDArray[np.int32], NDArray[np.int64]]


def prepare_pairs(
    pairs: ParallelCorpus,
    tokenizer: WordPieceTokenizer,
    output: PathLike,
    *,
    formats: Sequence[str] = tuple(FORMATS),
    sequence_length: int = 128,
    shard_size: int = SHARD_SIZE,
    seed: int = 0,
    progress: Progress = None,
) -> Description:
    """Write pairs as token ids, in random order, in shards.

    Each shard is a function of the text, the tokenizer and the arguments. Call again
    with the same arguments to resume: only missing shards are written.

    Args:
        pairs: The pairs.
        tokenizer: Tokenizer of the model to train.
        output: New directory, local or remote (`gs://...`).
        formats: `"arrays"` for training from memory, with all options of a plan;
            `"tfrecord"` for streaming from disk. See `layout`.
        sequence_length: Greatest number of tokens per sentence, with [CLS] and [SEP];
            longer sentences are truncated. Training may use a smaller value.
        shard_size: Number of pairs per shard.
        seed: Seed of the order.
        progress: See `labse_tf.progress`; counts pairs.

    Returns:
        The `Description` of the directory.

    Raises:
        ValueError: If an argument is out of range, or the directory holds other data.
        OSError: If the directory cannot be written.
    """
    description = dataclasses.replace(
        describe(tokenizer, formats, sequence_length, shard_size, seed),
        counts=dict(pairs.counts),
        text=pairs.digest(),
    )
    if _begin(description, output):
        return description
    write_bytes(join(output, VOCABULARY), vocabulary_text(tokenizer).encode())
    there = {
        f"{name}/{file}"
        for name in description.formats
        for file in names_in(join(output, name))
    }
    tokenize = batch_tokenizer(tokenizer, sequence_length - 2)

    def make(language: str, name: str, rows: NDArray[np.int64]) -> int:
        """Write a shard in the formats that are missing."""
        paths = {kind: f"{kind}/{name}{FORMATS[kind]}" for kind in description.formats}
        missing = [kind for kind, path in paths.items() if path not in there]
        if missing:
            sides = _tokens(pairs, language, rows, tokenize)
            for kind in missing:
                path = join(output, paths[kind])
                write_shard(path, kind, sides, description, language)
        return len(rows)

    # TensorFlow tokenizes on one core per call and lets other threads run.
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        with progress_bar("Preparing", len(pairs), "pairs", show=progress) as advance:
            for done in pool.map(lambda shard: make(*shard), _shards(description)):
                advance(done)
    finally:
        pool.shutdown(cancel_futures=True)
    write_bytes(join(output, DATASET), description.to_json().encode())
    remove(join(output, UNFINISHED))
    return description


def describe(
    tokenizer: WordPieceTokenizer,
    formats: Sequence[str],
    sequence_length: int,
    shard_size: int,
    seed: int,
) -> Description:
    """Return a `Description` without `counts` and `text`. See `prepare_pairs`.

    Raises:
        ValueError: If an argument is out of range, or the tokenizer is not WordPiece.
    """
    if tokenizer.file_name != VOCABULARY:
        raise ValueError(
            "Prepared pairs need a WordPiece vocabulary; train a model with a "
            "SentencePiece tokenizer from text: labse-tf train FILE... Received: "
            f"{type(tokenizer).__name__}"
        )
    if not formats or not set(formats) <= set(FORMATS):
        raise ValueError(
            f"`formats` must be some of {', '.join(FORMATS)}. Received: {formats}"
        )
    if not 3 <= sequence_length <= 1 << 16 or not 1 <= shard_size < 1 << 31 or seed < 0:
        raise ValueError(
            "`sequence_length` must be 3 to 65,536, `shard_size` positive and `seed` "
            f"not negative. Received: {sequence_length}, {shard_size}, {seed}"
        )
    return Description(
        formats=tuple(name for name in FORMATS if name in formats),
        sequence_length=sequence_length,
        shard_size=shard_size,
        seed=seed,
        counts={},
        tokenizer=describe_tokenizer(tokenizer),
        text="",
    )


def vocabulary_text(tokenizer: WordPieceTokenizer) -> str:
    """Return the content of `vocab.txt`, one token per line."""
    return "".join(token + "\n" for token in tokenizer.vocabulary)


def _shards(description: Description) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
    """Iterate over the language, name and rows of each shard."""
    for language, count in description.counts.items():
        seeds = description.seed, zlib.crc32(language.encode())
        order = np.random.default_rng(seeds).permutation(count)
        for name, span in description.shards(language):
            yield language, name, order[span.start : span.stop]


def _begin(description: Description, output: PathLike) -> bool:
    """Start or resume the directory. Return whether it is already finished."""
    names = names_in(output)
    known = next((name for name in (DATASET, UNFINISHED) if name in names), None)
    if known is None:
        if names:
            raise ValueError(
                f"{output}: expected a new or empty directory, or one that this "
                f"command started. Received: {', '.join(sorted(names)[:5])}"
            )
        write_bytes(join(output, UNFINISHED), description.to_json().encode())
        return False
    path = join(output, known)
    before = Description.from_json(read_bytes(path).decode("utf-8", "replace"), path)
    check_same(before, description, output)
    return known == DATASET


def check_same(before: Description, now: Description, output: PathLike) -> None:
    """Check that a directory was started with these arguments.

    Raises:
        ValueError: If a field differs; the message names it.
    """
    for field, value in vars(now).items():
        if getattr(before, field) != value:
            raise ValueError(
                f"{output}: expected the {field} of the command that started this "
                "directory; use a new directory for other arguments. Received: "
                f"{str(value)[:60]} instead of {str(getattr(before, field))[:60]}"
            )


def batch_tokenizer(
    tokenizer: WordPieceTokenizer, most: int
) -> Callable[[NDArray[np.object_]], Tokens]:
    """Return a function from texts to at most `most` token ids, for all threads.

    Returns:
        Function from an array of n UTF-8 `bytes` to the concatenated ids, int32, and
        the number of ids of each text, int64 `(n,)`.
    """
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)], autograph=False)
    def run(texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        ids = tokenizer(texts)[:, :most]
        return ids.values, ids.row_lengths()

    traced = run.get_concrete_function()

    def tokenize(texts: NDArray[np.object_]) -> Tokens:
        parts = [
            traced(tf.constant(texts[start : start + _BLOCK]))
            for start in range(0, len(texts), _BLOCK)
        ]
        values, lengths = zip(*parts, strict=True)
        return np.concatenate(values), np.concatenate(lengths)

    return tokenize


def _tokens(
    pairs: ParallelCorpus,
    language: str,
    rows: NDArray[np.int64],
    tokenize: Callable[[NDArray[np.object_]], Tokens],
) -> tuple[Tokens, Tokens]:
    sources, targets = pairs.pairs(language, rows)
    return tokenize(sources), tokenize(targets)


def write_shard(
    path: str,
    kind: str,
    sides: tuple[Tokens, Tokens],
    description: Description,
    language: str,
) -> None:
    """Write the token ids of sources and targets to a shard.

    Args:
        path: Local or remote path.
        kind: One of `FORMATS`.
        sides: Token ids of the sources and of the targets.
        description: Description of the directory.
        language: Language of the targets.

    Raises:
        OSError: If the file cannot be written.
    """
    _WRITERS[kind](path, sides, description, language)


def _write_arrays(
    path: str, sides: tuple[Tokens, Tokens], description: Description, language: str
) -> None:
    small = description.tokenizer["vocabulary_size"] <= 1 << 16
    buffer = io.BytesIO()
    np.savez(
        buffer,
        lengths=np.stack([lengths for _, lengths in sides], axis=1).astype(np.uint16),
        tokens=np.concatenate([values for values, _ in sides]).astype(
            np.uint16 if small else np.int32
        ),
    )
    write_bytes(path, buffer.getvalue())


def _write_records(
    path: str, sides: tuple[Tokens, Tokens], description: Description, language: str
) -> None:
    import tensorflow as tf

    def feature(ids: NDArray[np.int32]) -> Any:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=ids))

    code = tf.train.Feature(bytes_list=tf.train.BytesList(value=[language.encode()]))
    rows = [np.split(values, lengths.cumsum()[:-1]) for values, lengths in sides]
    with new_file(path) as temporary, tf.io.TFRecordWriter(temporary) as writer:
        for source, target in zip(*rows, strict=True):
            example = tf.train.Example(
                features=tf.train.Features(
                    feature={
                        "source": feature(source),
                        "target": feature(target),
                        "language": code,
                    }
                )
            )
            writer.write(example.SerializeToString(deterministic=True))


_WRITERS = {"arrays": _write_arrays, "tfrecord": _write_records}
