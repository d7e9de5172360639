"""Ordering: shards of equal size, in the order of keys, without sorting it all.

Buckets of keys are counted, which gives the ranks at which they begin; inside a bucket
the keys are sorted to find those at which a shard begins; with these, every element
knows its shard. A worker holds the keys of a bucket, and then a shard.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import apache_beam as beam
from apache_beam.pvalue import AsDict

V = TypeVar("V")
Shard = tuple[str, int, int]  # group, number, number of the group's shards


class AssignShards(beam.PTransform):
    """Gives each element its shard, to be grouped by it.

    From (group, key, value) to (shard, (key, value)) with `Shard`. The k-th element of
    a group, in the order of the keys, is in shard k // shard_size.

    Args:
        shard_size: elements of a shard; a group's last one may have fewer.
        prefix: bytes of a key that name its bucket.
    """

    def __init__(self, shard_size: int, prefix: int) -> None:
        super().__init__()
        if shard_size < 1:
            raise ValueError(f"`shard_size` must be positive. Received: {shard_size}")
        self._size, self._prefix = shard_size, prefix

    def expand(self, rows: Any) -> Any:
        """Applies it."""
        prefix = self._prefix
        buckets = rows | "To buckets" >> beam.MapTuple(
            lambda group, key, value: ((group, key[:prefix]), key)
        ).with_output_types(tuple[tuple[str, bytes], bytes])
        starts = (
            buckets
            | "Count buckets" >> beam.combiners.Count.PerKey()
            | "Of a group" >> beam.MapTuple(lambda at, count: (at[0], (at[1], count)))
            | "Group buckets" >> beam.GroupByKey()
            | "Add up"
            >> beam.FlatMapTuple(_starts).with_output_types(
                tuple[tuple[str, bytes], int]
            )
        )
        cuts = (
            buckets
            | "Group keys" >> beam.GroupByKey()
            | "Find cuts"
            >> beam.FlatMap(_cuts, self._size, AsDict(starts)).with_output_types(
                tuple[str, bytes]
            )
            | "Group cuts" >> beam.GroupByKey()
            | "Sort cuts" >> beam.MapTuple(lambda group, keys: (group, sorted(keys)))
        )
        return rows | "Assign" >> beam.Map(_assign, AsDict(cuts))


def _starts(
    group: str, buckets: Iterable[tuple[bytes, int]]
) -> Iterator[tuple[tuple[str, bytes], int]]:
    """The ranks at which the buckets of a group begin."""
    start = 0
    for bucket, count in sorted(buckets):
        yield (group, bucket), start
        start += count


def _cuts(
    bucket: tuple[tuple[str, bytes], Iterable[bytes]],
    size: int,
    starts: Mapping[tuple[str, bytes], int],
) -> Iterator[tuple[str, bytes]]:
    """The keys of a bucket at which a shard begins."""
    at, keys = bucket
    start = starts[at]
    for key in sorted(keys)[-start % size :: size]:
        yield at[0], key


def _assign(
    row: tuple[str, bytes, V], cuts: Mapping[str, Sequence[bytes]]
) -> tuple[Shard, tuple[bytes, V]]:
    group, key, value = row
    begins = cuts[group]
    number = bisect.bisect_right(begins, key) - 1
    return (group, number, len(begins)), (key, value)


def in_order(rows: Iterable[tuple[bytes, V]]) -> list[V]:
    """The values of a shard in the order of their keys.

    Args:
        rows: (key, value), no key twice.

    Returns:
        The values.
    """
    return [value for _, value in sorted(rows, key=lambda row: row[0])]
