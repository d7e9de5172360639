"""Preparing: pairs -> the shards of token ids that `labse-tf prepare` makes.

The layout is that of `labse_tf.data.shards.layout`. The order of a language's pairs is
that of a hash of their positions, where `prepare_pairs` has a permutation: random as
well, but known for each pair alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsDict

from labse_tf.beam.files import Pair, local_copy, publish, publish_text
from labse_tf.beam.ordering import AssignShards, Shard, in_order
from labse_tf.data.shards.layout import (
    DATASET,
    FORMATS,
    VOCABULARY,
    Description,
    PathLike,
    join,
)
from labse_tf.data.shards.writing import (
    SHARD_SIZE,
    batch_tokenizer,
    describe,
    vocabulary_text,
    write_shard,
)

if TYPE_CHECKING:
    from labse_tf.tokenizers import WordPieceTokenizer

# Bytes of a hash that name its bucket: 256 of a language.
_PREFIX = 1


class PreparePairs(beam.PTransform):
    """Writes pairs as token ids, in random order, in shards.

    From (position, (source, target, language)), as `ReadPairs` gives them, to a
    directory that `open_prepared` and `PairStream` read. Each shard is a function of
    the pairs, their positions, the tokenizer and the arguments. The vocabulary is
    written when the pipeline is built, where workers find it; `dataset.json` when all
    shards are there. A worker holds a shard.

    Args:
        tokenizer: as in `prepare_pairs`.
        output: a new directory, local or remote.
        formats: as in `prepare_pairs`.
        sequence_length: as in `prepare_pairs`.
        shard_size: as in `prepare_pairs`.
        seed: as in `prepare_pairs`.

    Raises:
        ValueError: an argument is wrong, or (in the pipeline) there are no pairs.
    """

    def __init__(
        self,
        tokenizer: WordPieceTokenizer,
        output: PathLike,
        *,
        formats: Sequence[str] = tuple(FORMATS),
        sequence_length: int = 128,
        shard_size: int = SHARD_SIZE,
        seed: int = 0,
    ) -> None:
        """Checks the arguments and keeps what they say."""
        super().__init__()
        self._output = output
        self._vocabulary = vocabulary_text(tokenizer)
        self._description = describe(
            tokenizer, formats, sequence_length, shard_size, seed
        )

    def expand(self, pairs: Any) -> Any:
        """Applies it."""
        described = self._description
        publish_text(join(self._output, VOCABULARY), self._vocabulary)
        counts = (
            pairs
            | "Shuffle"
            >> beam.Map(_shuffled, described.seed).with_output_types(
                tuple[str, bytes, tuple[str, str]]
            )
            | "Assign shards"
            >> AssignShards(described.shard_size, _PREFIX).with_output_types(
                tuple[Shard, tuple[bytes, tuple[str, str]]]
            )
            | "Group shards" >> beam.GroupByKey()
            | "Write shards" >> beam.ParDo(_WriteShard(self._output, described))
            | "Count pairs" >> beam.CombinePerKey(sum)
        )
        return (
            pairs
            | "Digest pairs" >> beam.MapTuple(_digest).with_output_types(bytes)
            | "Join digests" >> beam.CombineGlobally(_joined)
            | "Write description"
            >> beam.Map(_write_description, described, self._output, AsDict(counts))
        )


def _shuffled(row: tuple[bytes, Pair], seed: int) -> tuple[str, bytes, tuple[str, str]]:
    """A pair with the key by which its language is sorted."""
    position, (source, target, language) = row
    key = hashlib.blake2b(f"{seed} {language} ".encode() + position, digest_size=16)
    return language, key.digest(), (source, target)


def _digest(position: bytes, pair: Pair) -> bytes:
    return hashlib.sha256(position + "\t".join(pair).encode()).digest()


def _joined(digests: Iterable[bytes]) -> bytes:
    """The same of parts as of the whole, in any order."""
    total = sum(int.from_bytes(digest, "big") for digest in digests)
    return (total % (1 << 256)).to_bytes(32, "big")


class _WriteShard(beam.DoFn):
    """Tokenizes and writes a shard, with a tokenizer that is made once a worker."""

    def __init__(self, output: PathLike, description: Description) -> None:
        super().__init__()
        self._output, self._description = output, description

    def setup(self) -> None:
        """Makes the tokenizer."""
        from labse_tf.tokenizers import WordPieceTokenizer

        names = "lowercase", "strip_accents", "compat"
        options = {name: self._description.tokenizer[name] for name in names}
        with local_copy(join(self._output, VOCABULARY)) as path:
            tokenizer = WordPieceTokenizer(path, **options)
        most = self._description.sequence_length - 2
        self._tokenize = batch_tokenizer(tokenizer, most)

    def process(
        self, group: tuple[Shard, Iterable[tuple[bytes, tuple[str, str]]]]
    ) -> Any:
        """Writes a shard; gives its language and the number of its pairs."""
        (language, number, total), rows = group
        pairs = in_order(rows)
        sources, targets = (
            self._tokenize(np.array([text.encode() for text in texts], object))
            for texts in zip(*pairs, strict=True)
        )
        for kind in self._description.formats:
            name = f"{language}-{number:05d}-of-{total:05d}{FORMATS[kind]}"
            with tempfile.TemporaryDirectory() as folder:
                local = Path(folder, name)
                sides = sources, targets
                write_shard(str(local), kind, sides, self._description, language)
                publish(local, join(self._output, kind, name))
        yield language, len(pairs)


def _write_description(
    digest: bytes,
    description: Description,
    output: PathLike,
    counts: Mapping[str, int],
) -> None:
    if not counts:
        raise ValueError("`pairs` must not be empty. Received: no pairs")
    described = dataclasses.replace(
        description, counts=dict(sorted(counts.items())), text=digest.hex()
    )
    publish_text(join(output, DATASET), described.to_json())
