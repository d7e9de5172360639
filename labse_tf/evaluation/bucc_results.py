"""BUCC results: one result, a report of many results, and published results.

References:
    - Feng et al., the results on BUCC, https://arxiv.org/abs/2007.01852
    - https://github.com/facebookresearch/LASER/tree/main/tasks/bucc
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from labse_tf.evaluation.bucc_files import pair_name
from labse_tf.evaluation.result import Score, titled
from labse_tf.languages import language_name
from labse_tf.plots import PrecisionRecall, plot_precision_recall

DIRECTIONS = ("forward", "backward")

NOT_MTEB = (
    "BUCC mining: precision, recall and F in percent at a threshold. Most of the "
    "sentences have\nno translation. Not comparable with mteb's BUCC.v2, which ranks "
    "gold sentences only."
)

# === Published ===

# The recall of 72.7 (fr, backward) is as printed, but its F of 74.7 implies 72.2 or
# 72.3.
_PUBLISHED = """
forward | cosine | Artetxe and Schwenk 2019 | fr 82.1 74.2 78.0 | de 78.9 75.1 77.0
forward | cosine | Yang et al. 2019 | fr 86.7 85.6 86.1 | de 90.3 88.0 89.2 \
| ru 84.6 91.1 87.7 | zh 86.7 90.9 88.8
forward | cosine | LaBSE | fr 86.6 90.9 88.7 | de 92.3 92.7 92.5 \
| ru 86.1 91.9 88.9 | zh 88.2 89.7 88.9
backward | cosine | Artetxe and Schwenk 2019 | fr 77.2 72.7 74.7 | de 79.0 73.1 75.9
backward | cosine | Yang et al. 2019 | fr 83.8 85.5 84.6 | de 89.3 87.7 88.5 \
| ru 83.6 90.5 86.9 | zh 88.7 87.5 88.1
backward | cosine | LaBSE | fr 87.1 88.4 87.8 | de 91.3 92.7 92.0 \
| ru 86.3 90.7 88.4 | zh 87.8 90.3 89.0
both | ratio | LASER | fr 91.52 93.32 92.41 | de 95.65 95.19 95.42 \
| ru 90.60 94.04 92.29 | zh 91.99 91.31 91.65
"""


class PublishedBucc(NamedTuple):
    """A published result on a training set of BUCC.

    Attributes:
        system: Name of the system, such as `"LaBSE"`.
        pair: Language pair, such as `"fr-en"`.
        direction: `"forward"`, `"backward"`, or `"both"`: the best pairs of both
            directions, each sentence in at most one pair.
        score: Score by which pairs were sorted.
        precision: 0 to 1.
        recall: 0 to 1.
        f1: 0 to 1.
    """

    system: str
    pair: str
    direction: str
    score: str
    precision: float
    recall: float
    f1: float


def _parse_published(table: str) -> Iterator[PublishedBucc]:
    """Parse the table of published results."""
    for line in table.strip().split("\n"):
        direction, score, system, *pairs = (part.strip() for part in line.split("|"))
        for code, *numbers in map(str.split, pairs):
            precision, recall, f1 = (round(float(n) / 100, 6) for n in numbers)
            yield PublishedBucc(
                system, f"{code}-en", direction, score, precision, recall, f1
            )


BUCC_PUBLISHED = tuple(_parse_published(_PUBLISHED))
"""Published results. Those by cosine are from the BUCC table of Feng et al. (LaBSE,
Yang et al. 2019, Artetxe and Schwenk 2019); those by ratio are from the README of
LASER's `tasks/bucc`."""

# Number of lines of BUCC's own training.gold files. It detects other data in the same
# format, for which published results are not comparable.
BUCC_GOLD_PAIRS: Mapping[str, int] = MappingProxyType(
    {"fr-en": 9086, "de-en": 9580, "ru-en": 14435, "zh-en": 1899}
)


# === A result ===


@dataclass(frozen=True)
class BuccResult:
    """Pairs found at a threshold in one direction by one score.

    `labse_tf/evaluation/bucc.py` describes how pairs are counted.

    Attributes:
        pair: A language and English, such as `"hi-en"`.
        direction: `"forward"`: each sentence of the language with its best English
            sentence; `"backward"`: each English sentence with its best sentence of the
            language.
        score: `"cosine"`, `"ratio"` or `"distance"`.
        split: `"training"`, `"sample"` or `"test"`.
        threshold: Lowest score of a found pair.
        threshold_from: Split on which the threshold has the best F, or `"caller"` if it
            was given.
        found: Number of found pairs.
        right: Number of found pairs that are gold pairs.
        gold: Number of distinct gold pairs of texts.
        lines: Number of lines of the files: of the language, English, gold.
        texts: Number of distinct texts of the language, of English.
        curve: Recall and precision at about 100 thresholds, highest threshold first.
    """

    pair: str
    direction: str
    score: str
    split: str
    threshold: float
    threshold_from: str
    found: int
    right: int
    gold: int
    lines: tuple[int, int, int]
    texts: tuple[int, int]
    curve: tuple[tuple[float, float], ...]

    task: ClassVar[str] = "bucc"

    @property
    def precision(self) -> float:
        """Share of the found pairs that are right, 0 to 1; 0 if no pair is found."""
        return self.right / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        """Share of the gold pairs that are found, 0 to 1."""
        return self.right / self.gold

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, 0 to 1."""
        return 2 * self.right / (self.found + self.gold)

    @property
    def comparable(self) -> bool:
        """Whether published results apply: this is BUCC's own training set."""
        own = BUCC_GOLD_PAIRS.get(self.pair) == self.lines[2]
        return own and self.split == self.threshold_from == "training"

    @property
    def set_name(self) -> str:
        """The split, with the origin of the threshold if that is not the split."""
        if self.threshold_from == self.split:
            return self.split
        if self.threshold_from == "caller":
            return f"{self.split} at a given threshold"
        return f"{self.split} at {self.threshold_from}'s threshold"

    def scores(self) -> list[Score]:
        """Return F at the threshold."""
        return BuccReport((self,)).scores()

    def table(self) -> str:
        """Return the result as text, in percent, with published results below it."""
        return BuccReport((self,)).table()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a dict for `json.dump`.

        Returns:
            `"task"`, `"pair"`, `"direction"`, `"score"`, `"split"`, `"threshold"`,
            `"threshold_from"`, `"precision"`, `"recall"`, `"f1"`, the counts `"found"`,
            `"right"`, `"gold"`, `"lines"` and `"texts"` (by language), and `"curve"`
            with the lists `"recall"` and `"precision"`.
        """
        code = self.pair.removesuffix("-en")
        return {
            "task": self.task,
            "pair": self.pair,
            "direction": self.direction,
            "score": self.score,
            "split": self.split,
            "threshold": self.threshold,
            "threshold_from": self.threshold_from,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "found": self.found,
            "right": self.right,
            "gold": self.gold,
            "lines": dict(zip((code, "en", "gold"), self.lines, strict=True)),
            "texts": dict(zip((code, "en"), self.texts, strict=True)),
            "curve": {
                "recall": [recall for recall, _ in self.curve],
                "precision": [precision for _, precision in self.curve],
            },
        }

    def plot(self, path: str | os.PathLike[str], *, model: str | None = None) -> None:
        """Plot precision over recall and mark the threshold, see `Result.plot`."""
        BuccReport((self,)).plot(path, model=model)


# === Many results ===


@dataclass(frozen=True)
class BuccReport:
    """Results over pairs, directions, scores and splits.

    Attributes:
        results: The results in display order.
    """

    results: tuple[BuccResult, ...]

    task: ClassVar[str] = "bucc report"

    def find(
        self,
        pair: str,
        direction: str = "forward",
        score: str = "cosine",
        split: str = "training",
    ) -> BuccResult:
        """Return the result of one pair, direction, score and split.

        Args:
            pair: Pair with any code of its language.
            direction: See `BuccResult`.
            score: See `BuccResult`.
            split: See `BuccResult`.

        Raises:
            KeyError: If no such result exists.
            ValueError: If `pair` is not a language and English.
        """
        wanted = (pair_name(pair), direction, score, split)
        for result in self.results:
            key = (result.pair, result.direction, result.score, result.split)
            if key == wanted:
                return result
        raise KeyError(wanted)

    def scores(self) -> list[Score]:
        """Return the mean F over the pairs for each split, direction and score."""
        groups: dict[str, list[float]] = {}
        for result in self.results:
            title = f"BUCC {result.set_name}, {result.direction}, {result.score}: F"
            groups.setdefault(title, []).append(result.f1)
        return [Score(name, len(f1), sum(f1) / len(f1)) for name, f1 in groups.items()]

    def table(self) -> str:
        """Return the paper's table as text, in percent, one block per pair.

        The scores are side by side. Published rows have a mark if they are on other
        data.
        """
        scores = _unique(result.score for result in self.results)
        rows: list[_Row] = []
        for pair in _unique(result.pair for result in self.results):
            rows += _pair_rows([r for r in self.results if r.pair == pair], scores)
        # A row without cells is a heading and may extend below the columns.
        width = 2 + max(len(row.label) for row in rows if row.cells)
        lines = [NOT_MTEB, ""]
        lines.append(" " * width + "".join(f"{score:>{_CELLS}}" for score in scores))
        head = f"{'P':>7}{'R':>6}{'F':>6}{'threshold':>{_CELLS - 19}}"
        lines.append(" " * width + head * len(scores))
        lines.append("-" * (width + _CELLS * len(scores)))
        for row in rows:
            cells = [row.cells.get(score, " " * _CELLS) for score in scores]
            lines.append((f"{row.label:<{width}}" + "".join(cells)).rstrip())
        other = [row.other_data for row in rows if row.other_data]
        if other:
            lines += [
                "",
                "* Published on BUCC's own training set. These files are other data, "
                "so the numbers",
                "  are not comparable. Gold pairs in these files and in BUCC's own: "
                f"{', '.join(_unique(other))}.",
            ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a dict for `json.dump`.

        Returns:
            `{"task": "bucc report", "note": str, "results": [BuccResult.to_dict()],
            "published": [{"system", "pair", "direction", "score", "precision",
            "recall", "f1", "comparable"}]}`, with the published results of the same
            pairs.
        """
        pairs = {result.pair for result in self.results}
        comparable = {result.pair for result in self.results if result.comparable}
        return {
            "task": self.task,
            "note": NOT_MTEB.replace("\n", " "),
            "results": [result.to_dict() for result in self.results],
            "published": [
                {**row._asdict(), "comparable": row.pair in comparable}
                for row in BUCC_PUBLISHED
                if row.pair in pairs
            ],
        }

    def plot(self, path: str | os.PathLike[str], *, model: str | None = None) -> None:
        """Plot precision over recall, one panel per pair, and mark the thresholds.

        If thresholds were chosen on one split and used on another, only the first split
        is plotted. See `Result.plot`.
        """
        searched = [r for r in self.results if r.threshold_from == r.split]
        panels: dict[str, list[PrecisionRecall]] = {}
        for result in searched or self.results:
            title = f"{result.pair}, {result.set_name}"
            panels.setdefault(title, []).append(
                PrecisionRecall(
                    label=f"{result.direction}, {result.score}: F {result.f1:.1%}",
                    points=result.curve,
                    mark=(result.recall, result.precision),
                )
            )
        title = titled(model, "BUCC mining (not mteb's BUCC.v2)")
        plot_precision_recall(panels, path, title=title)


# === The table ===

_DIRECTION_NAMES = {
    "forward": "forward, {} to English",
    "backward": "backward, English to {}",
    "both": "both ways, one to one",
}
_CELLS = 31


class _Row(NamedTuple):
    """A row of the table: precision, recall, F and threshold by score."""

    label: str
    cells: Mapping[str, str]
    other_data: str = ""  # gold pair counts of a published row on other data


def _pair_rows(results: Sequence[BuccResult], scores: Sequence[str]) -> Iterator[_Row]:
    """Yield the rows of a pair: measured, then published, by direction."""
    first = results[0]
    name = language_name(first.pair.removesuffix("-en"))
    yield _Row(
        f"{first.pair}  {name}, {first.split}: {first.lines[0]:,} and "
        f"{first.lines[1]:,} sentences, {first.gold:,} gold pairs",
        {},
    )
    other_data = ""
    if not any(result.comparable for result in results):
        own = BUCC_GOLD_PAIRS.get(first.pair, 0)
        other_data = f"{first.pair} {first.lines[2]:,} and {own:,}"
    for direction in (*DIRECTIONS, "both"):
        ours = [result for result in results if result.direction == direction]
        published = [
            row
            for row in BUCC_PUBLISHED
            if (row.pair, row.direction) == (first.pair, direction)
            and row.score in scores
            and (ours or direction == "both")
        ]
        if not ours and not published:
            continue
        yield _Row(f"  {_DIRECTION_NAMES[direction].format(name)}", {})
        for set_name in _unique(result.set_name for result in ours):
            of_set = [result for result in ours if result.set_name == set_name]
            yield _Row(f"    {set_name}", {r.score: _cells(r) for r in of_set})
        mark = " *" if other_data else ""
        for row in published:
            yield _Row(f"    {row.system}{mark}", {row.score: _cells(row)}, other_data)


def _cells(row: BuccResult | PublishedBucc) -> str:
    """Format precision, recall, F and threshold in columns."""
    precision, recall, f1 = (100 * v for v in (row.precision, row.recall, row.f1))
    threshold = f"{row.threshold:.4f}" if isinstance(row, BuccResult) else ""
    return f"{precision:7.1f}{recall:6.1f}{f1:6.1f}{threshold:>{_CELLS - 19}}"


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
