"""Writing: a corpus of pairs -> shards of token ids, shard by shard, resumable."""

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
_BLOCK = 4096  # pairs tokenized in a call

# Token ids of some sentences: end to end, and how many each has.
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
    """Writes pairs as token ids, in random order, in shards.

    Each shard is a function of the text, the tokenizer and the arguments. Interrupted
    and called again, it goes on with the shards that are missing; when all are there,
    it does nothing.

    Args:
        pairs: the text.
        tokenizer: of the model that will be trained.
        output: a new directory, local or on what `tf.io.gfile` knows (`gs://...`).
        formats: `"arrays"`, which train at once and in any way but are read into
            memory whole, and `"tfrecord"`, which are streamed. See `layout`.
        sequence_length: tokens of a sentence at most, with [CLS] and [SEP]; the rest
            is cut off. Training may use less.
        shard_size: pairs of a shard.
        seed: of the order.
        progress: see `labse_tf.progress`; counts pairs.

    Returns:
        What is there.

    Raises:
        ValueError: an argument is wrong, or the directory holds something else.
        OSError: it cannot be written.
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
        """Writes a shard in the formats that it lacks."""
        paths = {kind: f"{kind}/{name}{FORMATS[kind]}" for kind in description.formats}
        missing = [kind for kind, path in paths.items() if path not in there]
        if missing:
            sides = _tokens(pairs, language, rows, tokenize)
            for kind in missing:
                path = join(output, paths[kind])
                write_shard(path, kind, sides, description, language)
        return len(rows)

    # TensorFlow tokenizes on one core a call, and lets others run meanwhile.
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
    """Describes a directory of shards before its pairs are known.

    Args:
        tokenizer: As in `prepare_pairs`.
        formats: As in `prepare_pairs`.
        sequence_length: As in `prepare_pairs`.
        shard_size: As in `prepare_pairs`.
        seed: As in `prepare_pairs`.

    Returns:
        A `Description` without `counts` and `text`.

    Raises:
        ValueError: If an argument is out of range.
    """
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
    """Returns the content of `vocab.txt`, one token per line."""
    return "".join(token + "\n" for token in tokenizer.vocabulary)


def _shards(description: Description) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
    """Language, name and rows of each shard."""
    for language, count in description.counts.items():
        seeds = description.seed, zlib.crc32(language.encode())
        order = np.random.default_rng(seeds).permutation(count)
        for name, span in description.shards(language):
            yield language, name, order[span.start : span.stop]


def _begin(description: Description, output: PathLike) -> bool:
    """Takes the directory, or goes on in it; whether all is there already."""
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
    for field, value in vars(description).items():
        if getattr(before, field) != value:
            raise ValueError(
                f"{output} was started with another {field}; the same command goes on "
                "with it, another one needs another directory. Received: "
                f"{str(value)[:60]} instead of {str(getattr(before, field))[:60]}"
            )
    return known == DATASET


def batch_tokenizer(
    tokenizer: WordPieceTokenizer, most: int
) -> Callable[[NDArray[np.object_]], Tokens]:
    """Makes a function of texts to token ids, one graph for all threads.

    Args:
        tokenizer: any.
        most: tokens of a text that are kept.

    Returns:
        From an array of n UTF-8 `bytes` to the ids end to end and how many each has,
        `(n,)`.
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
    """Writes the pairs of a shard.

    Args:
        path: local or remote.
        kind: of `FORMATS`.
        sides: token ids of the sources and of the targets.
        description: of the directory.
        language: of the targets.

    Raises:
        OSError: it cannot be written.
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
