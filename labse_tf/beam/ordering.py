"""Ordering: shards of equal size in the order of keys, without a global sort.

Counting the keys of each bucket gives the rank of the bucket's first key. Sorting the
keys of one bucket then gives the keys at which shards begin, and these assign a shard
to every element. A worker holds the keys of one bucket, later the elements of one
shard.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import apache_beam as beam
from apache_beam.pvalue import AsDict

V = TypeVar("V")
Shard = tuple[str, int, int]  # group, index, number of the group's shards


class AssignShards(beam.PTransform):
    """Assign a shard to each element, for grouping.

    From (group, key, value) to (shard, (key, value)), see `Shard`. The k-th element of
    a group, in the order of the keys, is in shard k // shard_size.

    Args:
        shard_size: Number of elements per shard. A group's last shard may have fewer.
        prefix: Number of bytes of a key that name its bucket.
    """

    def __init__(self, shard_size: int, prefix: int) -> None:
        super().__init__()
        if shard_size < 1:
            raise ValueError(f"`shard_size` must be positive. Received: {shard_size}")
        self._size, self._prefix = shard_size, prefix

    def expand(self, rows: Any) -> Any:
        """Apply the transform."""
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
    """Yield the rank of the first key of each bucket of a group."""
    start = 0
    for bucket, count in sorted(buckets):
        yield (group, bucket), start
        start += count


def _cuts(
    bucket: tuple[tuple[str, bytes], Iterable[bytes]],
    size: int,
    starts: Mapping[tuple[str, bytes], int],
) -> Iterator[tuple[str, bytes]]:
    """Yield the keys of a bucket at which a shard begins."""
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
    """Return the values of a shard in the order of their keys, which are unique."""
    return [value for _, value in sorted(rows, key=lambda row: row[0])]
