"""Preparing pipeline: pairs -> shards of token ids in the format of `prepare_pairs`.

See `labse_tf.data.shards.layout` for the format. A language's pairs are ordered by a
hash of their positions instead of the permutation of `prepare_pairs`: this order is
random too, and each pair's key is computed independently.

Interrupted pipelines can resume. `preparing.json` describes the directory until
`dataset.json` does, and `preparing/` has, for each finished shard, a file with the
digest of its pairs: a shard with the same digest is not written again.
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
from apache_beam.io.filesystems import FileSystems
from apache_beam.pvalue import AsDict

from labse_tf.beam.files import (
    Pair,
    local_copy,
    names_in,
    publish,
    publish_text,
    read_text,
)
from labse_tf.beam.ordering import AssignShards, Shard, in_order
from labse_tf.data.shards.layout import (
    DATASET,
    FORMATS,
    UNFINISHED,
    VOCABULARY,
    Description,
    PathLike,
    join,
)
from labse_tf.data.shards.writing import (
    SHARD_SIZE,
    batch_tokenizer,
    check_same,
    describe,
    vocabulary_text,
    write_shard,
)

if TYPE_CHECKING:
    from labse_tf.tokenizers import WordPieceTokenizer

# Bytes of a key that name its bucket: 256 buckets per language.
_PREFIX = 1
# Directory of the digests of finished shards, while the directory is not finished.
_FINISHED = "preparing"


class PreparePairs(beam.PTransform):
    """Write pairs as token ids, in random order, in shards.

    From (position, (source, target, language)), such as `ReadPairs` returns, to a
    directory that `open_prepared` and `PairStream` read. Each shard is a function of
    the pairs, their positions, the tokenizer and the arguments. The vocabulary is
    written when the pipeline is built, so that workers can read it; `dataset.json` is
    written after all shards. A worker holds one shard.

    If interrupted, run the same pipeline again to resume: only missing shards are
    tokenized and written. For a finished directory, only the pairs are checked.

    See `prepare_pairs` for the arguments.

    Raises:
        ValueError: If an argument is out of range, the directory holds other data or,
            in the pipeline, there are no pairs, or a finished directory has others.
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
        """Check the arguments and describe the directory."""
        super().__init__()
        self._output = output
        self._vocabulary = vocabulary_text(tokenizer)
        self._description = describe(
            tokenizer, formats, sequence_length, shard_size, seed
        )

    def expand(self, pairs: Any) -> Any:
        """Apply the transform."""
        described = self._description
        finished = _begin(described, self._output)
        digest = (
            pairs
            | "Digest pairs" >> beam.MapTuple(_digest).with_output_types(bytes)
            | "Join digests" >> beam.CombineGlobally(_joined)
        )
        if finished is not None:
            return digest | "Check pairs" >> beam.Map(
                _check_text, finished.text, self._output
            )
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
        return digest | "Write description" >> beam.Map(
            _write_description, described, self._output, AsDict(counts)
        )


def _begin(description: Description, output: PathLike) -> Description | None:
    """Start or resume the directory, and return its description if it is finished."""
    names = names_in(join(output))
    known = next((name for name in (UNFINISHED, DATASET) if name in names), None)
    if known is None:
        if names:
            raise ValueError(
                f"{output}: expected a new or empty directory, or one that this "
                f"command started. Received: {', '.join(sorted(names)[:5])}"
            )
        publish_text(join(output, UNFINISHED), description.to_json())
        return None
    path = join(output, known)
    before = Description.from_json(read_text(path), path)
    # The pipeline counts and digests the pairs.
    now = dataclasses.replace(description, counts=before.counts, text=before.text)
    check_same(before, now, output)
    if known == DATASET:
        return before
    if DATASET in names:  # Stopped while the notes were deleted.
        FileSystems.delete([join(output, DATASET)])
    return None


def _check_text(digest: bytes, text: str, output: PathLike) -> None:
    if digest.hex() != text:
        raise ValueError(
            f"{output}: expected the pairs of the command that wrote this directory; "
            "use a new directory for other pairs. Received: other pairs"
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
        self._tokenize = batch_tokenizer(tokenizer, most)

    def process(
        self, group: tuple[Shard, Iterable[tuple[bytes, tuple[str, str]]]]
    ) -> Any:
        """Write a shard and yield its language and number of pairs."""
        (language, number, total), rows = group
        rows = list(rows)
        shard = f"{language}-{number:05d}-of-{total:05d}"
        note = join(self._output, _FINISHED, shard)
        digest = _joined(_digest(key, (*pair, language)) for key, pair in rows).hex()
        kinds = self._description.formats
        files = [join(self._output, kind, shard + FORMATS[kind]) for kind in kinds]
        there = all(map(FileSystems.exists, [note, *files]))
        if not (there and read_text(note) == digest):
            self._write(shard, language, in_order(rows))
            publish_text(note, digest)
        yield language, len(rows)

    def _write(self, shard: str, language: str, pairs: list[tuple[str, str]]) -> None:
        """Write a shard in all formats."""
        sources, targets = (
            self._tokenize(np.array([text.encode() for text in texts], object))
            for texts in zip(*pairs, strict=True)
        )
        for kind in self._description.formats:
            name = shard + FORMATS[kind]
            with tempfile.TemporaryDirectory() as folder:
                local = Path(folder, name)
                sides = sources, targets
                write_shard(str(local), kind, sides, self._description, language)
                publish(local, join(self._output, kind, name))


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
    # Notes, and shards that the pairs of an earlier attempt had and these do not have.
    keep = {DATASET, VOCABULARY} | {
        f"{kind}/{name}{FORMATS[kind]}"
        for kind in described.formats
        for language in described.counts
        for name, _ in described.shards(language)
    }
    surplus = [join(output, name) for name in names_in(join(output)) - keep]
    if surplus:
        FileSystems.delete(surplus)
    folder = join(output, _FINISHED)
    if FileSystems.exists(folder):  # Buckets have no empty directories.
        FileSystems.delete([folder])
