"""Preparing pipeline: pairs -> shards of token ids in the format of `prepare_pairs`.

See `labse_tf.data.shards.layout` for the format. A language's pairs are ordered by a
hash of their positions instead of the permutation of `prepare_pairs`: this order is
random too, and each pair's key is computed independently.
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
from labse_tf.data.shards import writing
from labse_tf.data.shards.layout import (
    DATASET,
    FORMATS,
    VOCABULARY,
    Description,
    PathLike,
    join,
)

if TYPE_CHECKING:
    from labse_tf.tokenizers import WordPieceTokenizer

# Bytes of a key that name its bucket: 256 buckets per language.
_PREFIX = 1


class PreparePairs(beam.PTransform):
    """Write pairs as token ids, in random order, in shards.

    From (position, (source, target, language)), such as `ReadPairs` returns, to a
    directory that `open_prepared` and `PairStream` read. Each shard is a function of
    the pairs, their positions, the tokenizer and the arguments. The vocabulary is
    written when the pipeline is built, so that workers can read it; `dataset.json` is
    written after all shards. A worker holds one shard.

    See `prepare_pairs` for the arguments.

    Raises:
        ValueError: If an argument is out of range or, in the pipeline, there are no
            pairs.
    """

    def __init__(
        self,
        tokenizer: WordPieceTokenizer,
        output: PathLike,
        *,
        formats: Sequence[str] = tuple(FORMATS),
        sequence_length: int = 128,
        shard_size: int = writing.SHARD_SIZE,
        seed: int = 0,
    ) -> None:
        """Check the arguments and describe the directory."""
        super().__init__()
        self._output = output
        self._vocabulary = writing.vocabulary_text(tokenizer)
        self._description = writing.describe(
            tokenizer, formats, sequence_length, shard_size, seed
        )

    def expand(self, pairs: Any) -> Any:
        """Apply the transform."""
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
    """Return (language, key in the random order, pair)."""
    position, (source, target, language) = row
    key = hashlib.blake2b(f"{seed} {language} ".encode() + position, digest_size=16)
    return language, key.digest(), (source, target)


def _digest(position: bytes, pair: Pair) -> bytes:
    return hashlib.sha256(position + "\t".join(pair).encode()).digest()


def _joined(digests: Iterable[bytes]) -> bytes:
    """Return a sum of digests that is independent of their order and grouping."""
    total = sum(int.from_bytes(digest, "big") for digest in digests)
    return (total % (1 << 256)).to_bytes(32, "big")


class _WriteShard(beam.DoFn):
    """Write a shard of tokenized pairs, with one tokenizer per worker."""

    def __init__(self, output: PathLike, description: Description) -> None:
        super().__init__()
        self._output, self._description = output, description

    def setup(self) -> None:
        """Create the tokenizer."""
        from labse_tf.tokenizers import WordPieceTokenizer

        names = "lowercase", "strip_accents", "compat"
        options = {name: self._description.tokenizer[name] for name in names}
        with local_copy(join(self._output, VOCABULARY)) as path:
            tokenizer = WordPieceTokenizer(path, **options)
        most = self._description.sequence_length - 2
        self._tokenize = writing.batch_tokenizer(tokenizer, most)

    def process(
        self, group: tuple[Shard, Iterable[tuple[bytes, tuple[str, str]]]]
    ) -> Any:
        """Write a shard and yield its language and number of pairs."""
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
                writing.write_shard(
                    str(local), kind, sides, self._description, language
                )
                publish(local, join(self._output, kind, name))
        yield language, len(pairs)


def _write_description(
    digest: bytes, description: Description, output: PathLike, counts: Mapping[str, int]
) -> None:
    if not counts:
        raise ValueError("`pairs` must not be empty. Received: no pairs")
    described = dataclasses.replace(
        description, counts=dict(sorted(counts.items())), text=digest.hex()
    )
    publish_text(join(output, DATASET), described.to_json())
