"""Stream: the TFRecords of a prepared directory -> batches, for text beyond memory.

Shapes: B pairs of a batch, W batches of a window.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from labse_tf.data.batches import (
    _check_kind,
    _one_pass,
    _remaining,
    finish,
    token_features,
)
from labse_tf.data.sampling import (
    DEAL,
    WINDOW,
    _check_numbers,
    _drawn,
    mixed_window,
    mixture,
)
from labse_tf.data.shards.layout import join
from labse_tf.data.shards.tokens import (
    check_tokenizer,
    chosen_counts,
    read_description,
)
from labse_tf.text import PathLike

if TYPE_CHECKING:
    import tensorflow as tf

    from labse_tf.preprocessing import SentencePreprocessor


class PairStream:
    """Prepared pairs that stay on disk, or in a bucket, and are read as they are used.

    Args:
        path: a directory of `prepare_pairs` with TFRecords, local or remote.
        languages: only these.

    Attributes:
        counts: language -> number of pairs.
        languages: the languages, sorted.
        description: what the directory holds.

    Raises:
        ValueError: it is no prepared directory, or has no TFRecords or not the
            languages.
    """

    def __init__(
        self, path: PathLike, *, languages: Iterable[str] | None = None
    ) -> None:
        """Reads the description."""
        self.path, self.description = path, read_description(path)
        if "tfrecord" not in self.description.formats:
            raise ValueError(
                f"{path}: expected TFRecords; arrays are read by `open_prepared`. "
                f"Received: a directory of {', '.join(self.description.formats)}"
            )
        self.counts = chosen_counts(self.description, languages)
        self.languages = list(self.counts)

    def __len__(self) -> int:
        """Number of pairs in all languages."""
        return sum(self.counts.values())

    def digest(self) -> str:
        """SHA-256 of what is there, 64 hexadecimal digits."""
        text = self.description.to_json() + str(self.languages)
        return hashlib.sha256(text.encode()).hexdigest()


def stream_pairs(
    stream: PairStream,
    preprocessor: SentencePreprocessor,
    *,
    batch_size: int,
    steps: int | None = None,
    start_step: int = 0,
    seed: int = 0,
    smoothing: float = 0.3,
    cap: int | None = None,
    batches: Literal["mixed", "one_language"] = "mixed",
    length_buckets: bool = True,
    prefetch: int | None = None,
) -> tf.data.Dataset:
    """Batches of features for a `DualEncoder`, read from disk or bucket as they go.

    Batch k depends on the directory, the seed, the options and k only, and starting at
    k opens the shards where batch k begins: at most one shard a language is read in
    vain. The languages' shares in a batch are those of `sentence_pairs`. Each
    language's shards come in a new order in every epoch; inside a shard the pairs stay
    in the random order in which they were prepared.

    Args:
        stream: the pairs.
        preprocessor: with the tokenizer that they were prepared with.
        batch_size: B, pairs of the global batch.
        steps: number of the batch to stop before; None for one pass's worth; -1 for
            no end.
        start_step: number of the first batch.
        seed: not negative.
        smoothing: see `mixture`.
        cap: see `mixture`.
        batches: `"mixed"` or `"one_language"`.
        length_buckets: sort the pairs of W mixed batches by tokens, to save padding.
        prefetch: batches made ahead; None lets tf.data choose.

    Returns:
        A `tf.data.Dataset` of `{"source": features, "target": features}`, with a known
        cardinality and a static batch dimension.

    Raises:
        ValueError: an argument is out of range or does not fit.
    """
    import tensorflow as tf

    _check_kind(batches)
    _check_numbers(batch_size, start_step, seed)
    check_tokenizer(stream.description, preprocessor)
    if steps is None:
        steps = _one_pass(stream.counts, cap, batch_size)
    remaining = _remaining(steps, start_step)
    one_language = batches == "one_language"
    shares = list(mixture(stream.counts, smoothing=smoothing, cap=cap).values())
    # Mixed batches draw pairs, batches of one language draw batches.
    unit = 1 if one_language else batch_size
    window = WINDOW if one_language else mixed_window(len(stream), batch_size)
    turns = _Turns(shares, window * unit, seed)
    first_window, skip = divmod(start_step, window)
    sources = [
        _records(stream, code, used * (batch_size if one_language else 1), seed)
        for code, used in zip(stream.languages, turns.before(first_window), strict=True)
    ]
    if one_language:
        sources = [source.batch(batch_size) for source in sources]
    dataset = tf.data.Dataset.choose_from_datasets(
        sources,
        tf.data.Dataset.from_generator(
            functools.partial(turns.windows, first_window),
            output_signature=tf.TensorSpec((None,), tf.int64),
        ).unbatch(),
    )
    if not one_language:
        dataset = dataset.batch(window * batch_size)
        if length_buckets:
            numbers = tf.data.Dataset.counter(start=first_window)
            dataset = tf.data.Dataset.zip(dataset, numbers).map(
                functools.partial(_by_length, shape=(window, batch_size), seed=seed),
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
        else:
            dataset = dataset.map(lambda rows: tf.reshape(rows, (-1, batch_size)))
        dataset = dataset.unbatch()
    dataset = dataset.skip(skip)
    if remaining is not None:
        dataset = dataset.take(remaining)

    def features(records: tf.Tensor) -> dict[str, Any]:
        return token_features(preprocessor, *_parse(records), batch_size)

    return finish(dataset, features, cardinality=remaining, prefetch=prefetch)


class _Turns:
    """Which language is drawn from next, window by window.

    A window's draws are a function of the seed and its number, and how many there were
    before it is known without making them.
    """

    def __init__(self, shares: list[float], size: int, seed: int) -> None:
        self._edges = np.cumsum(shares) * size
        self._seed = seed

    def before(self, window: int) -> list[int]:
        """Draws of each language in all windows before one."""
        return _drawn(self._edges, self._seed, range(window)).tolist()

    def windows(self, first: int) -> Iterator[NDArray[np.int64]]:
        """Numbers of languages, a window's at a time, without end."""
        for window in itertools.count(first):
            counts = _drawn(self._edges, self._seed, range(window, window + 1))
            random = np.random.default_rng([self._seed, window])
            yield random.permutation(np.repeat(np.arange(len(counts)), counts))


def _records(
    stream: PairStream, language: str, position: int, seed: int
) -> tf.data.Dataset:
    """A language's records from a position on, epoch after epoch, without end."""
    import tensorflow as tf

    shards = stream.description.shards(language)
    paths = [join(stream.path, "tfrecord", f"{name}.tfrecord") for name, _ in shards]
    epoch, skip = divmod(position, stream.counts[language])
    if len(paths) == 1:
        # Small, and read in every epoch.
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
    """Token ids of the sides of serialized pairs, `(n,)`."""
    import tensorflow as tf

    ragged = tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64)
    parsed = tf.io.parse_example(records, {"source": ragged, "target": ragged})
    return tuple(tf.cast(parsed[name], tf.int32) for name in ("source", "target"))


def _by_length(
    records: tf.Tensor, number: tf.Tensor, *, shape: tuple[int, int], seed: int
) -> tf.Tensor:
    """The pairs of a window as batches of like length in random order, `(W, B)`.

    As in `sentence_pairs` neighbours in length are dealt to several batches, and a pair
    that was drawn twice lies beside itself, so that it does not meet itself.
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
    """Half of the seed of TensorFlow's stateless functions."""
    return number & 0x7FFFFFFF
