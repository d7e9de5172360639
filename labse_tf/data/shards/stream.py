"""Stream: TFRecords of a prepared directory -> batches, for data larger than memory.

Shapes: B pairs of a batch, W batches of a window.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labse_tf.data.batches import finish
from labse_tf.data.sampling import DEAL, Draws, SamplingPlan, given_plan
from labse_tf.data.shards import tokens
from labse_tf.data.shards.layout import join
from labse_tf.text import PathLike

if TYPE_CHECKING:
    import tensorflow as tf

    from labse_tf.preprocessing import SentencePreprocessor


class PairStream:
    """Prepared pairs that stay on disk or in a bucket and are read during training.

    Args:
        path: Directory with TFRecords from `prepare_pairs`, local or remote.
        languages: Languages to read; `None` for all.

    Attributes:
        counts: Language -> number of pairs.
        languages: Languages, sorted.
        description: Description of the directory.

    Raises:
        ValueError: If the directory is not prepared, has no TFRecords or lacks one of
            the languages.
    """

    def __init__(
        self, path: PathLike, *, languages: Iterable[str] | None = None
    ) -> None:
        """Read the description."""
        self.path, self.description = path, tokens.read_description(path)
        if "tfrecord" not in self.description.formats:
            raise ValueError(
                f"{path}: expected TFRecords (`open_prepared` reads arrays). "
                f"Received: a directory of {', '.join(self.description.formats)}"
            )
        self.counts = tokens.chosen_counts(self.description, languages)
        self.languages = list(self.counts)

    def __len__(self) -> int:
        """Number of pairs in all languages."""
        return sum(self.counts.values())

    def digest(self) -> str:
        """Return the SHA-256 of the description, 64 hexadecimal digits."""
        text = self.description.to_json() + str(self.languages)
        return hashlib.sha256(text.encode()).hexdigest()


def stream_pairs(
    stream: PairStream,
    preprocessor: SentencePreprocessor,
    plan: SamplingPlan | None = None,
    *,
    batch_size: int | None = None,
    prefetch: int | None = None,
) -> tf.data.Dataset:
    """Create batches of features for a `DualEncoder`, read from disk or bucket.

    Batch k depends only on the directory, the plan and k. Starting at batch k opens the
    shards in which batch k begins and skips at most one shard per language. The shares
    of the languages are the same as in `sentence_pairs`. The shards of a language come
    in a new order in every epoch; the order of the pairs in a shard is fixed.

    Args:
        stream: The pairs.
        preprocessor: Preprocessor with the tokenizer that prepared the pairs.
        plan: Which pairs are in which batch. `length_buckets` sorts the pairs of W
            mixed batches by tokens; `vectors`, `shuffle` and `drop_remainder` must have
            their defaults.
        batch_size: Number of pairs in the global batch, for a plan with all defaults.
        prefetch: Number of batches to prefetch; `None` lets tf.data choose.

    Returns:
        A `tf.data.Dataset` of `{"source": features, "target": features}`, with a known
        cardinality and a static batch dimension.

    Raises:
        ValueError: If an argument is out of range or does not fit the stream.
    """
    plan = given_plan(plan, batch_size)
    if plan.vectors is not None or not plan.shuffle or not plan.drop_remainder:
        raise ValueError(
            "`plan` for a stream must have the defaults of `vectors`, `shuffle` and "
            f"`drop_remainder`: pairs are not in memory. Received: {plan}"
        )
    tokens.check_tokenizer(stream.description, preprocessor)
    size, remaining = plan.batch_size, plan.remaining(plan.one_pass(stream.counts))
    dataset = _batches(stream, plan)
    if remaining is not None:
        dataset = dataset.take(remaining)

    def features(records: tf.Tensor) -> dict[str, Any]:
        return tokens.token_features(preprocessor, *_parse(records), size)

    return finish(dataset, features, cardinality=remaining, prefetch=prefetch)


def _batches(stream: PairStream, plan: SamplingPlan) -> tf.data.Dataset:
    """Return the records of batch `start_step`, `start_step` + 1, ... without end."""
    import tensorflow as tf

    size, window = plan.batch_size, plan.window(len(stream))
    # Mixed batches draw pairs; batches of one language draw whole batches.
    unit, drawn = (size, 1) if plan.one_language else (1, size)
    turns = Draws(plan.shares(stream.counts), window * drawn, plan.seed)
    first, skip = divmod(plan.start_step, window)
    sources = [
        _records(stream, code, used * unit, plan.seed)
        for code, used in zip(stream.languages, turns.of(range(first)), strict=True)
    ]
    if plan.one_language:
        sources = [source.batch(size) for source in sources]
    dataset = tf.data.Dataset.choose_from_datasets(
        sources,
        tf.data.Dataset.from_generator(
            functools.partial(_turns, turns, plan.seed, first),
            output_signature=tf.TensorSpec((None,), tf.int64),
        ).unbatch(),
    )
    if plan.one_language:
        return dataset.skip(skip)
    dataset = dataset.batch(window * size)
    if plan.length_buckets:
        numbers = tf.data.Dataset.counter(start=first)
        dataset = tf.data.Dataset.zip(dataset, numbers).map(
            functools.partial(_by_length, shape=(window, size), seed=plan.seed),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
    else:
        dataset = dataset.map(lambda rows: tf.reshape(rows, (-1, size)))
    return dataset.unbatch().skip(skip)


def _turns(draws: Draws, seed: int, first: int) -> Iterator[NDArray[np.int64]]:
    """Iterate over windows: the index of the language from which to draw each unit."""
    for window in itertools.count(first):
        counts = draws.of(range(window, window + 1))
        random = np.random.default_rng([seed, window])
        yield random.permutation(np.repeat(np.arange(len(counts)), counts))


def _records(
    stream: PairStream, language: str, position: int, seed: int
) -> tf.data.Dataset:
    """Return a language's records from a position on, epoch after epoch."""
    import tensorflow as tf

    shards = stream.description.shards(language)
    paths = [join(stream.path, "tfrecord", f"{name}.tfrecord") for name, _ in shards]
    epoch, skip = divmod(position, stream.counts[language])
    if len(paths) == 1:
        # A single shard is small and is read in every epoch.
        return tf.data.TFRecordDataset(paths).cache().repeat().skip(skip)
    names, own = tf.constant(paths), _seed(zlib.crc32(language.encode()))

    def order(epoch: tf.Tensor) -> tf.Tensor:
        numbers = tf.random.stateless_uniform(
            (len(paths),),
            (_seed(seed), tf.bitwise.bitwise_xor(own, tf.cast(epoch, tf.int32))),
            alg="philox",
        )
        return tf.argsort(numbers)

    first = order(tf.constant(epoch)).numpy()
    sizes = np.array([len(rows) for _, rows in shards])[first]
    begun = int(np.searchsorted(sizes.cumsum(), skip, side="right"))
    skip -= int(sizes[:begun].sum())
    now = tf.data.TFRecordDataset([paths[i] for i in first[begun:]]).skip(skip)
    later = tf.data.Dataset.counter(start=epoch + 1).flat_map(
        lambda e: tf.data.TFRecordDataset(tf.gather(names, order(e)))
    )
    return now.concatenate(later)


def _parse(records: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
    """Return the token ids of both sides of serialized pairs, `(n,)`."""
    import tensorflow as tf

    ragged = tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64)
    parsed = tf.io.parse_example(records, {"source": ragged, "target": ragged})
    return tuple(tf.cast(parsed[name], tf.int32) for name in ("source", "target"))


def _by_length(
    records: tf.Tensor, number: tf.Tensor, *, shape: tuple[int, int], seed: int
) -> tf.Tensor:
    """Return the pairs of a window as batches of similar length, `(W, B)`.

    The batches are in random order. As in `sentence_pairs`, pairs next to each other in
    length are dealt to different batches. Two copies of a pair are next to each other,
    so that no batch holds both.
    """
    import tensorflow as tf

    lengths = tf.maximum(*(side.row_lengths() for side in _parse(records)))
    ties = tf.strings.to_hash_bucket_fast(records, 1 << 31)
    order = tf.argsort(lengths * (1 << 32) + ties, stable=True)
    hands = (-1, shape[1], min(DEAL, shape[0]))
    dealt = tf.reshape(tf.gather(records, order), hands)
    batches = tf.reshape(tf.transpose(dealt, (0, 2, 1)), shape)
    numbers = tf.random.stateless_uniform(
        shape[:1], (_seed(seed), tf.cast(number, tf.int32)), alg="philox"
    )
    return tf.gather(batches, tf.argsort(numbers))


def _seed(number: int) -> int:
    """Return a seed in the range of TensorFlow's stateless functions."""
    return number & 0x7FFFFFFF
