"""Semantic textual similarity: do cosines rank sentence pairs as people do?

References:
    - Cer et al., "SemEval-2017 Task 1: Semantic Textual Similarity",
      https://arxiv.org/abs/1708.00055
    - Cer et al., "Universal Sentence Encoder" (the angle in place of the cosine),
      https://arxiv.org/abs/1803.11175
    - STSb Multi MT, the test in ten more languages,
      https://github.com/PhilipMay/stsb-multi-mt
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from labse_tf.evaluation.nearest import DistinctRows, Encoder
from labse_tf.evaluation.result import Score, titled
from labse_tf.languages import (
    CODE_PATTERN,
    chosen_languages,
    language_code,
    language_name,
)
from labse_tf.mining import unit_rows
from labse_tf.plots import plot_bars
from labse_tf.progress import Progress, progress_bar
from labse_tf.text import COMPRESSED, DataError, read_csv, shorten

SPLITS = ("train", "dev", "test")
_HEADER = ["sentence1", "sentence2"]
_FILE = re.compile(rf"stsb-({CODE_PATTERN})-(train|dev|test)\.csv{COMPRESSED}")
_MOST = 5.0  # Score of two sentences with the same meaning.

ScoredPairs = tuple[Sequence[str], Sequence[str], Sequence[float]]


class StsScores(NamedTuple):
    """Correlations with human scores, -1 to 1.

    Attributes:
        pairs: Number of sentence pairs.
        spearman: Spearman's correlation of the cosines.
        spearman_angular: Spearman's correlation of the negative angle, -arccos(cosine).
            Arccos is monotonic, so it equals `spearman`; other libraries report it.
        pearson: Pearson's correlation of the cosines.
        pearson_angular: Pearson's correlation of the negative angles. It differs from
            `pearson` because arccos is not linear.
    """

    pairs: int
    spearman: float
    spearman_angular: float
    pearson: float
    pearson_angular: float


@dataclass(frozen=True)
class StsResult:
    """Semantic textual similarity for each language.

    Attributes:
        languages: The correlations, by language.
        split: The split, if the data was read from files.
    """

    languages: dict[str, StsScores]
    split: str | None = None

    task: ClassVar[str] = "sts"

    @property
    def spearman(self) -> dict[str, float]:
        """Spearman's correlation of the cosines, by language."""
        return {code: scores.spearman for code, scores in self.languages.items()}

    @property
    def mean_spearman(self) -> float:
        """Mean of `spearman` over the languages, each with the same weight."""
        return float(np.mean(list(self.spearman.values())))

    def scores(self) -> list[Score]:
        """Return the mean of Spearman's correlation."""
        measure = f"STS {self.split}, Spearman" if self.split else "STS, Spearman"
        return [Score(measure, len(self.languages), self.mean_spearman)]

    def table(self) -> str:
        """Return the correlations times 100 as text, best language first."""
        codes = self._best_first()
        names = {code: language_name(code) for code in codes}
        width = max(map(len, (*names.values(), "mean of 00 languages")))
        above = f"{'':<{9 + width}}{'':7}{'Spearman':>16}{'Pearson':>16}"
        head = (
            f"{'code':<9}{'language':<{width}}  pairs  cosine  arccos  cosine  arccos"
        )
        lines = [above, head, "-" * len(head)]
        for code in codes:
            pairs, *values = self.languages[code]
            row = "".join(f"{100 * value:8.1f}" for value in values)
            lines.append(f"{code:<9}{names[code]:<{width}}{pairs:7d}{row}")
        columns = list(zip(*self.languages.values(), strict=True))
        means = "".join(f"{100 * float(np.mean(c)):8.1f}" for c in columns[1:])
        title = f"mean of {len(codes)} language" + ("s" if len(codes) > 1 else "")
        lines += [
            "-" * len(head),
            f"{title:<{9 + width}}{sum(columns[0]):7d}{means}",
        ]
        return "\n".join(line.rstrip() for line in lines)

    def _best_first(self) -> list[str]:
        """Return languages by Spearman's correlation, descending, then by code."""
        return sorted(self.languages, key=lambda code: (-self.spearman[code], code))

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a dict for `json.dump`.

        Returns:
            `{"task": "sts", "split": str, "mean_spearman": float, "languages": {code:
            {"name", "pairs", "spearman", "spearman_angular", "pearson",
            "pearson_angular"}}}`.
        """
        return {
            "task": self.task,
            "split": self.split,
            "mean_spearman": self.mean_spearman,
            "languages": {
                code: {"name": language_name(code), **scores._asdict()}
                for code, scores in self.languages.items()
            },
        }

    def plot(self, path: str | os.PathLike[str], *, model: str | None = None) -> None:
        """Plot one horizontal bar per language, best on top, see `Result.plot`."""
        codes = self._best_first()
        rows = [self.languages[code] for code in codes]
        count = f"{len(codes)} language" + ("s" if len(codes) > 1 else "")
        plot_bars(
            path,
            labels=[f"{language_name(code)}  {code}" for code in codes],
            bars={"Spearman": [100 * row.spearman for row in rows]},
            marks={
                "Pearson, cosine": [100 * row.pearson for row in rows],
                "Pearson, arccos": [100 * row.pearson_angular for row in rows],
            },
            title=titled(
                model, f"STS, mean Spearman {100 * self.mean_spearman:.1f} over {count}"
            ),
            axis="correlation with human scores, times 100",
        )


def sts(
    encode: Encoder,
    pairs: str | os.PathLike[str] | Mapping[str, ScoredPairs],
    languages: str | Iterable[str] | None = None,
    split: str = "test",
    *,
    progress: Progress = None,
) -> StsResult:
    """Measure whether cosines rank sentence pairs as people do.

    Cosines are rounded to 7 decimals, so that equal vectors have equal cosines. Equal
    values share the mean of their ranks. If all cosines of a language are equal, its
    correlations are 0.

    Args:
        encode: Callable from a list of strings to vectors `(n, D)` of any norm.
        pairs: A folder of `stsb-XX-{train,dev,test}.csv`, plain or compressed, with
            rows `sentence1,sentence2,score` and scores from 0 to 5; or language ->
            (sentences, sentences, scores), three lists of the same length.
        languages: Codes in any spelling. If `None`, all languages.
        split: Split to read from a folder: `"test"`, `"dev"` or `"train"`.
        progress: See `labse_tf.progress`. Counts pairs.

    Returns:
        Correlations for each language, in the order of `languages`, or sorted by code
        if `languages` is `None`.

    Raises:
        OSError: If the folder or a file cannot be read.
        ValueError: If a language is missing, a row of a file is invalid (the message
            names it), lists differ in length, all scores of a language are equal, or
            `encode` does not return one finite row per sentence.

    Example:
        >>> import numpy as np
        >>> from labse_tf.evaluation import sts
        >>> def encode(sentences):
        ...     return np.array([[len(s), 1.0] for s in sentences])
        >>> pairs = {"en": (["a", "a", "a"], ["b", "two", "three"], [5, 3, 0])}
        >>> round(sts(encode, pairs).spearman["en"], 6)
        1.0
    """
    if isinstance(pairs, Mapping):
        scored = chosen_languages(pairs, languages, "pairs")
        for code, sides in scored.items():
            _check_lists(code, sides)
    else:
        scored = read_sts(pairs, languages, split)
    found = {}
    total = sum(len(people) for _, _, people in scored.values())
    with progress_bar("STS", total, "pairs", show=progress) as advance:
        for code, (first, second, people) in scored.items():
            # One call per language, for the sentences of both sides.
            rows = DistinctRows(encode)([*first, *second], what=f"{code} sentences")
            one, other = np.split(unit_rows(rows), [len(first)])
            cosines = np.einsum("nd,nd->n", one, other)
            found[code] = _correlations(cosines.clip(-1, 1).round(7), people)
            advance(len(people))
    return StsResult(found, None if isinstance(pairs, Mapping) else split)


def read_sts(
    folder: str | os.PathLike[str],
    languages: str | Iterable[str] | None = None,
    split: str = "test",
) -> dict[str, ScoredPairs]:
    """Read `stsb-XX-SPLIT.csv`, plain or compressed.

    Args:
        folder: Folder of the files.
        languages: See `sts`.
        split: `"test"`, `"dev"` or `"train"`.

    Returns:
        Language -> sentences, sentences, scores.

    Raises:
        OSError: If the folder cannot be read.
        ValueError: If there are no such files, or a language has no file.
        DataError: If a file cannot be read or a row is invalid.
    """
    if split not in SPLITS:
        raise ValueError(f"`split` must be one of {SPLITS}. Received: {split!r}")
    files: dict[str, Path] = {}
    # If the folder does not exist, the error of os.listdir names it.
    for name in sorted(os.listdir(folder)):
        match = _FILE.fullmatch(name)
        if match and match[2] == split:
            code, path = language_code(match[1]), Path(folder, name)
            if code in files:
                raise ValueError(
                    f"{folder}: expected one file per language. Received: "
                    f"{files[code].name} and {name}, both of {code!r}"
                )
            files[code] = path
    if not files:
        raise ValueError(
            f"`folder` must have files named stsb-XX-{split}.csv, plain or "
            f"compressed. Received: {folder}"
        )
    chosen = chosen_languages(files, languages, str(folder))
    return {code: _read_scored(path) for code, path in chosen.items()}


def _read_scored(path: Path) -> ScoredPairs:
    """Read the sentences and scores of a file."""
    first, second, people = [], [], []
    for line, (one, other, score) in read_csv(path, 3):
        if line == 1 and [one, other] == _HEADER:
            continue
        try:
            value = float(score)
        except ValueError:
            value = math.nan
        if not 0 <= value <= _MOST:
            expected = "a score from 0 to 5 in the third field"
            raise DataError(path, line, expected, shorten(score))
        if not one.strip() or not other.strip():
            received = shorten(",".join((one, other, score)))
            raise DataError(path, line, "two sentences and a score", received)
        first.append(one)
        second.append(other)
        people.append(value)
    if len(set(people)) < 2:
        received = f"{len(people)} rows, scores {sorted(set(people))}"
        raise DataError(path, 1, "rows with different scores", received)
    return first, second, people


def _check_lists(code: str, sides: ScoredPairs) -> None:
    """Raise an error for lists of different lengths or without different scores."""
    sizes = [len(side) for side in sides]
    if len(sizes) != 3 or len(set(sizes)) != 1:
        raise ValueError(
            f"`pairs[{code!r}]` must be two lists of sentences and one list of scores "
            f"of the same length. Received: lengths {sizes}"
        )
    bad = [score for score in sides[2] if not math.isfinite(score)]
    if bad or len(set(sides[2])) < 2:
        raise ValueError(
            f"`pairs[{code!r}]` must have finite scores with at least two different "
            f"values. Received: {sorted(set(bad or sides[2]), key=str)}"
        )


def _correlations(cosines: np.ndarray, people: Sequence[float]) -> StsScores:
    """Return all correlations of a language."""
    scores = np.asarray(people, dtype=np.float64)
    angles = -np.arccos(cosines)
    return StsScores(
        len(scores),
        _pearson(_ranks(cosines), _ranks(scores)),
        _pearson(_ranks(angles), _ranks(scores)),
        _pearson(cosines, scores),
        _pearson(angles, scores),
    )


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 1, `(n,)`; equal values share the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Return Pearson's correlation, or 0 if one side is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip((x @ y) / np.sqrt((x @ x) * (y @ y)), -1, 1))
