"""Cleaning: the pairs that `labse_tf.data.clean_pairs` keeps, and the same report.

A pair goes through `judge` as it does there. What is good is grouped by language and
key, and of each group the pair with the lowest position stays: the one that a single
machine meets first. Equal pairs have equal letters, so where near duplicates go a group
by letters holds the exact ones too. The one difference is that two different texts with
the same 64-bit key, which one machine takes for duplicates, are none here where only
their exact keys are the same.
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

# What is grouped: position, hash of the text, source, target.
Row = tuple[bytes, int, str, str]


class Cleaned(NamedTuple):
    """What `CleanPairs` gives.

    Attributes:
        kept: (position, (source, target, language)) of the pairs that stay, tidied.
        report: one `CleaningReport`.
    """

    kept: Any
    report: Any


class CleanPairs(beam.PTransform):
    """Leaves out the pairs that would teach an encoder nothing, or something wrong.

    From (position, (source, target, language)), as `ReadPairs` gives them, to
    `Cleaned`. The pairs kept and the report are those of `labse_tf.data.clean_pairs`
    over the pairs in the order of their positions.

    Args:
        rules: as there.
        held_out: as there; 8 bytes a sentence go with the pipeline to all workers.

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
        """Checks the names of the sets."""
        super().__init__()
        self._rules = CleaningRules() if rules is None else rules
        self._held_out = tuple(held_out)
        self._names = new_report(self._held_out).rules

    def expand(self, pairs: Any) -> Cleaned:
        """Applies it."""
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
    """Good pairs by what they are grouped by, and a report of the others."""
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
    """The hash as a number that Beam's coder of integers takes."""
    return number - (1 << 64) if number >> 63 else number


def _keep_first(
    group: tuple[tuple[str, bytes], Iterable[Row]],
    duplicates: bool,
    names: Sequence[str],
) -> Iterator[Any]:
    """The pair of a group that stays, and a report of the others.

    The rows are gone through twice and never held: a group may be all of a corpus.
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
    """Adds up `CleaningReport`s of the same rules, by `CleaningReport.update`.

    Args:
        rules: their names, as `CleaningReport` takes them.
    """

    def __init__(self, rules: Sequence[str]) -> None:
        super().__init__()
        self._rules = tuple(rules)

    def create_accumulator(self) -> CleaningReport:
        """An empty report."""
        return CleaningReport(self._rules)

    def add_input(self, total: CleaningReport, report: CleaningReport) -> Any:
        """One more."""
        total.update(report)
        return total

    def merge_accumulators(self, totals: Iterable[CleaningReport]) -> Any:
        """Several as one."""
        merged = self.create_accumulator()
        for total in totals:
            merged.update(total)
        return merged

    def extract_output(self, total: CleaningReport) -> CleaningReport:
        """What was added up."""
        return total


class WritePairs(beam.PTransform):
    """Writes cleaned pairs as pair files that every command reads, and the report.

    `pairs-00000-of-00003.hi.tsv.gz` and so on: a language's shards, one after another,
    are the lines of the `en-hi.tsv.gz` that `labse-tf clean` writes, in the same order.
    `cleaning.md` and then `cleaning.json` are written when all shards are there.

    Args:
        output: a directory, local or remote.
        shard_size: pairs of a shard; a worker holds as many.

    Raises:
        ValueError: (in the pipeline) no pairs are left, or a sentence holds a tab or a
            line end.
    """

    def __init__(self, output: PathLike, *, shard_size: int = SHARD_SIZE) -> None:
        """Checks the size."""
        super().__init__()
        self._output = output
        self._assign = AssignShards(shard_size, POSITION_PREFIX)

    def expand(self, cleaned: Cleaned) -> Any:
        """Applies it."""
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
    """Writes a shard; returns the number of its pairs."""
    (language, number, total), rows = group
    pairs = [as_pair(pair) for pair in in_order(rows)]
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(pairs, folder)
        name = f"pairs-{number:05d}-of-{total:05d}.{language}.tsv.gz"
        publish(Path(folder, f"en-{language}.tsv.gz"), join(output, name))
    return len(pairs)


def _write_report(
    report: CleaningReport, output: PathLike, written: Iterable[int]
) -> None:
    """Writes the report; `written` is there to wait for."""
    check_kept(report)
    files = report_files(report)
    for name in sorted(files, reverse=True):
        publish_text(join(output, name), files[name])
