"""Cleaning pipeline: the same pairs and report as `labse_tf.data.clean_pairs`.

Pairs are judged by `judge`. The pairs that it keeps are grouped by language and key. Of
each group the pair with the lowest position is kept, which is the first one that a
single machine reads. Equal pairs have equal letters, so groups by letters contain the
exact duplicates.

One difference remains: if the exact keys (64 bits) of two different texts collide,
`clean_pairs` removes the second pair. Here, with `near_duplicates`, it is kept unless
the keys of the letters collide too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import AsIter, TaggedOutput

from labse_tf.beam.files import POSITION_PREFIX, Pair, as_pair, publish, publish_text
from labse_tf.beam.ordering import AssignShards, Shard, in_order
from labse_tf.data import CleaningReport, CleaningRules, HeldOut, SentencePair
from labse_tf.data.cleaning import new_report, report_files, write_pairs
from labse_tf.data.cleaning.pairs import BLOCK, check_kept
from labse_tf.data.cleaning.rules import judge
from labse_tf.data.shards.layout import PathLike, join

SHARD_SIZE = 1 << 18  # ours: some ten megabytes, gzipped

# One row of a group: position, hash of the text, source, target.
Row = tuple[bytes, int, str, str]


class Cleaned(NamedTuple):
    """Result of `CleanPairs`.

    Attributes:
        kept: PCollection of (position, (source, target, language)), normalized pairs.
        report: PCollection of one `CleaningReport`.
    """

    kept: Any
    report: Any


class CleanPairs(beam.PTransform):
    """Remove pairs that would teach an encoder nothing, or something wrong.

    From (position, (source, target, language)), such as `ReadPairs` returns, to
    `Cleaned`. The result is that of `labse_tf.data.clean_pairs` for the pairs sorted by
    position.

    Args:
        rules: See `labse_tf.data.clean_pairs`.
        held_out: See `labse_tf.data.clean_pairs`. Each worker gets a copy, 8 bytes per
            sentence.

    Example:
        ```python
        with beam.Pipeline(options=options) as pipeline:
            pairs = pipeline | ReadPairs("gs://bucket/pairs/*.tsv.gz")
            cleaned = pairs | CleanPairs(CleaningRules(min_characters=20))
            cleaned.kept | beam.Values() | ...
        ```
    """

    def __init__(
        self, rules: CleaningRules | None = None, *, held_out: Sequence[HeldOut] = ()
    ) -> None:
        """Check the names of the sets."""
        super().__init__()
        self._rules = CleaningRules() if rules is None else rules
        self._held_out = tuple(held_out)
        self._names = new_report(self._held_out).rules

    def expand(self, pairs: Any) -> Cleaned:
        """Apply the transform."""
        rules, names = self._rules, self._names
        judged = (
            pairs
            | "Batch" >> beam.BatchElements(min_batch_size=2048, max_batch_size=BLOCK)
            | "Judge"
            >> beam.FlatMap(_judge, rules, self._held_out, names)
            .with_output_types(tuple[tuple[str, bytes], Row])
            .with_outputs("report", main="good")
        )
        reports = [judged.report]
        if rules.duplicates or rules.near_duplicates:
            grouped = (
                judged.good
                | "Group alike" >> beam.GroupByKey()
                | "Keep first"
                >> beam.FlatMap(_keep_first, rules.duplicates, names)
                .with_output_types(tuple[bytes, Pair])
                .with_outputs("report", main="kept")
            )
            kept = grouped.kept
            reports.append(grouped.report)
        else:
            kept = judged.good | "Keep all" >> beam.MapTuple(_kept).with_output_types(
                tuple[bytes, Pair]
            )
        report = (
            reports
            | "Join reports" >> beam.Flatten()
            | "Add reports" >> beam.CombineGlobally(CombineReports(names))
        )
        return Cleaned(kept, report)


def _judge(
    batch: Sequence[tuple[bytes, Pair]],
    rules: CleaningRules,
    held_out: Sequence[HeldOut],
    names: Sequence[str],
) -> Iterator[Any]:
    """Yield pairs without a broken rule with their group, and a report of the rest."""
    judged = judge([as_pair(pair) for _, pair in batch], rules, held_out)
    report = CleaningReport(names)
    keys = judged.near if rules.near_duplicates else judged.exact
    for (position, _), pair, reason, exact, key in zip(
        batch, judged.pairs, judged.reasons, judged.exact.tolist(), keys, strict=True
    ):
        report.read[pair.language] += 1
        if reason:
            report.add(reason, pair, exact)
        else:
            row = position, _signed(exact), pair.source, pair.target
            yield (pair.language, key.tobytes()), row
    yield TaggedOutput("report", report)


def _signed(number: int) -> int:
    """Return the hash as a signed integer, which Beam's coder requires."""
    return number - (1 << 64) if number >> 63 else number


def _keep_first(
    group: tuple[tuple[str, bytes], Iterable[Row]],
    duplicates: bool,
    names: Sequence[str],
) -> Iterator[Any]:
    """Yield the pair of a group that is kept, and a report of the rest.

    The rows are iterated twice and never held in memory, because a group may contain
    most of the corpus.
    """
    key, rows = group
    first = min(rows)
    yield _kept(key, first)
    report = None
    for row in rows:
        if row[0] != first[0]:
            equal = duplicates and row[1] == first[1]
            reason = "duplicate" if equal else "near_duplicate"
            pair = SentencePair(row[2], row[3], key[0])
            report = CleaningReport(names) if report is None else report
            report.add(reason, pair, row[1] % (1 << 64))
    if report is not None:
        yield TaggedOutput("report", report)


def _kept(key: tuple[str, bytes], row: Row) -> tuple[bytes, Pair]:
    return row[0], (row[2], row[3], key[0])


class CombineReports(beam.CombineFn):
    """Sum of `CleaningReport`s of the same rules, by `CleaningReport.update`."""

    def __init__(self, rules: Sequence[str]) -> None:
        super().__init__()
        self._rules = tuple(rules)

    def create_accumulator(self) -> CleaningReport:
        """Return an empty report."""
        return CleaningReport(self._rules)

    def add_input(self, total: CleaningReport, report: CleaningReport) -> Any:
        """Add a report to the total."""
        total.update(report)
        return total

    def merge_accumulators(self, totals: Iterable[CleaningReport]) -> Any:
        """Merge totals."""
        merged = self.create_accumulator()
        for total in totals:
            merged.update(total)
        return merged

    def extract_output(self, total: CleaningReport) -> CleaningReport:
        """Return the total."""
        return total


class WritePairs(beam.PTransform):
    """Write cleaned pairs as pair files that every command reads, and the report.

    The shards of a language, `en-hi-00000-of-00003.tsv.gz` and so on, contain the
    lines of the `en-hi.tsv.gz` that `labse-tf clean` writes, in the same order.
    `cleaning.md` and then `cleaning.json` are written after all shards.

    Args:
        output: Local or remote directory.
        shard_size: Number of pairs per shard, which a worker holds in memory.

    Raises:
        ValueError: In the pipeline, if no pairs are kept, or a sentence contains a tab
            or a line end.
    """

    def __init__(self, output: PathLike, *, shard_size: int = SHARD_SIZE) -> None:
        """Check the size."""
        super().__init__()
        self._output = output
        self._assign = AssignShards(shard_size, POSITION_PREFIX)

    def expand(self, cleaned: Cleaned) -> Any:
        """Apply the transform."""
        written = (
            cleaned.kept
            | "By language"
            >> beam.MapTuple(
                lambda position, pair: (pair[2], position, pair)
            ).with_output_types(tuple[str, bytes, Pair])
            | "Assign shards"
            >> self._assign.with_output_types(tuple[Shard, tuple[bytes, Pair]])
            | "Group shards" >> beam.GroupByKey()
            | "Write shards" >> beam.Map(_write_pairs, self._output)
        )
        return cleaned.report | "Write report" >> beam.Map(
            _write_report, self._output, AsIter(written)
        )


def _write_pairs(
    group: tuple[Shard, Iterable[tuple[bytes, Pair]]], output: PathLike
) -> int:
    """Write a shard and return the number of its pairs."""
    (language, number, total), rows = group
    pairs = [as_pair(pair) for pair in in_order(rows)]
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(pairs, folder)
        name = f"en-{language}-{number:05d}-of-{total:05d}.tsv.gz"
        publish(Path(folder, f"en-{language}.tsv.gz"), join(output, name))
    return len(pairs)


def _write_report(
    report: CleaningReport, output: PathLike, written: Iterable[int]
) -> None:
    """Write the report. The argument `written` makes it wait for the shards."""
    check_kept(report)
    files = report_files(report)
    for name in sorted(files, reverse=True):
        publish_text(join(output, name), files[name])
