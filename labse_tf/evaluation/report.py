"""Evaluation report: all measures for which a folder has test data.

    report.md      the measured folder, the means, and the table and plot of each part
    report.html    the same with the plots inside, one file to send and to open
    report.json    the same data for programs
    *.png          the plots

A part is a folder with files of one kind; its name is its path. All files are read and
checked before the first sentence is encoded. The report is written atomically.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from labse_tf.evaluation.bucc import bucc_report
from labse_tf.evaluation.bucc_files import find_bucc_files, read_bucc
from labse_tf.evaluation.nearest import Encoder, first_shares
from labse_tf.evaluation.ranking import (
    RetrievalResult,
    count_sentences,
    searched,
    trained_codes,
)
from labse_tf.evaluation.result import Result
from labse_tf.evaluation.sts import SPLITS, StsResult, read_sts, sts
from labse_tf.evaluation.tatoeba import TATOEBA_FILE, TatoebaResult, tatoeba_pairs
from labse_tf.evaluation.xsim import XsimResult, xsim_shares
from labse_tf.files import atomic_directory
from labse_tf.html_page import Page
from labse_tf.languages import canonical_keys, language_code
from labse_tf.plots import new_figure
from labse_tf.progress import Progress, progress_bar
from labse_tf.text import COMPRESSED, read_pairs

KINDS = {
    "tatoeba": "Tatoeba (tatoeba.XXX-eng.XXX)",
    "pairs": "Pairs (en-XX.tsv)",
    "bucc": "BUCC mining (XX-en.training.gold)",
    "sts": "Semantic textual similarity (stsb-XX-test.csv)",
}

# Training text takes hours to encode, and scores on it are meaningless for a model that
# was trained on it.
TRAINING_FOLDERS = ("corpus", "train", "training")

_NAMES = {
    "tatoeba": TATOEBA_FILE,
    "pairs": re.compile(rf"en-(?P<code>.+)\.tsv{COMPRESSED}"),
    "bucc": re.compile(rf"(?P<pair>.+-en)\.(training|sample|test)\.gold{COMPRESSED}"),
    "sts": re.compile(rf"stsb-.+-(train|dev|test)\.csv{COMPRESSED}"),
}
_NEIGHBORS = 4  # k of xSIM's margin, as in LASER


class Part(NamedTuple):
    """A folder with files of one kind.

    Attributes:
        name: Path below the searched folder; the kind if it is that folder itself;
            `path:kind` if several parts share the path.
        kind: Key of `KINDS`.
        folder: Folder of the files.
    """

    name: str
    kind: str
    folder: Path


class Measured(NamedTuple):
    """Results of one part.

    Attributes:
        part: The part.
        results: Name of the measure -> result.
        seconds: Duration of the measurement.
    """

    part: Part
    results: dict[str, Result]
    seconds: float

    def scores(self) -> list[tuple[str, str, int, float]]:
        """Return the rows of the summary: part, measure, languages, percent."""
        return [
            (self.part.name, measure, languages, 100 * mean)
            for result in self.results.values()
            for measure, languages, mean in result.scores()
        ]


@dataclass(frozen=True)
class Report:
    """All results for a folder.

    Attributes:
        model: Name of the model.
        folder: The searched folder.
        measured: The measured parts, sorted by name.
        missing: Keys of `KINDS` for which the folder has no data.
        left_out: Names of parts that were found but not measured.
        trained: Languages that the encoder was trained on, or `None` if unknown.
        version: Version of labse_tf.
        date: Date of the report, ISO 8601.
    """

    model: str
    folder: str
    measured: tuple[Measured, ...]
    missing: tuple[str, ...]
    left_out: tuple[str, ...]
    trained: tuple[str, ...] | None
    version: str
    date: str

    def table(self) -> str:
        """Return the means in percent as text, one row per part and measure."""
        rows = [row for part in self.measured for row in part.scores()]
        widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:2]]
        head = f"{'part':<{widths[0]}}  {'measure':<{widths[1]}}  languages    mean"
        lines = [head, "-" * len(head)]
        for part, measure, languages, mean in rows:
            titles = f"{part:<{widths[0]}}  {measure:<{widths[1]}}"
            lines.append(f"{titles}  {languages:9d}{mean:8.1f}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a dict for `json.dump`.

        Returns:
            `{"task": "all", "model", "folder", "labse_tf", "date", "trained",
            "missing", "left_out", "parts": {name: {"kind", "seconds", "results":
            {measure: Result.to_dict()}}}}`.
        """
        return {
            "task": "all",
            "model": self.model,
            "folder": self.folder,
            "labse_tf": self.version,
            "date": self.date,
            "trained": None if self.trained is None else list(self.trained),
            "missing": list(self.missing),
            "left_out": list(self.left_out),
            "parts": {
                part.name: {
                    "kind": part.kind,
                    "seconds": round(seconds, 1),
                    "results": {
                        name: result.to_dict() for name, result in results.items()
                    },
                }
                for part, results, seconds in self.measured
            },
        }

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write `report.md`, `report.html`, `report.json` and the plots.

        Args:
            folder: Existing folder.

        Raises:
            ImportError: If matplotlib is not installed.
            OSError: If a file cannot be written.
        """
        folder = Path(folder)
        page = Page(self.model)
        self._head_of(page)
        lines = [f"# {self.model}", "", *self._head(), ""]
        for part, results, seconds in self.measured:
            lines += [
                f"## {part.name}",
                "",
                f"{KINDS[part.kind]}, {seconds:.0f} s.",
                "",
            ]
            page.heading(part.name)
            page.paragraph(f"{KINDS[part.kind]}, {seconds:.0f} s.")
            # One plot per part: the plot of xSIM would repeat the first plot inverted.
            picture = re.sub(r"[^A-Za-z0-9.]+", "-", part.name) + ".png"
            for number, (name, result) in enumerate(results.items()):
                lines += ["```text", result.table(), "```", ""]
                page.block(result.table())
                if not number:
                    result.plot(folder / picture, model=self.model)
                    data = (folder / picture).read_bytes()
                    page.picture(data, f"{part.name}, {name}")
                    lines += [f"![{part.name}, {name}]({picture})", ""]
        text = "\n".join(lines).rstrip() + "\n"
        (folder / "report.md").write_text(text, encoding="utf-8", newline="\n")
        (folder / "report.html").write_text(page.text(), "utf-8", newline="\n")
        values = json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"
        (folder / "report.json").write_text(values, encoding="utf-8", newline="\n")

    def _head(self) -> list[str]:
        """Return the data, the means, and the missing and unmeasured parts as lines."""
        before, after = self._notes()
        lines = "\n\n".join(before).splitlines()
        lines += ["", "| part | measure | languages | mean |", "|---|---|---:|---:|"]
        lines += [
            f"| {part} | {measure} | {languages} | {mean:.1f} |"
            for measured in self.measured
            for part, measure, languages, mean in measured.scores()
        ]
        for note in after:
            lines += ["", note]
        return lines

    def _head_of(self, page: Page) -> None:
        """Add the lines of `_head` to a page."""
        before, after = self._notes()
        for note in before:
            page.paragraph(note.replace("`", ""))
        rows = [
            (part, measure, str(languages), f"{mean:.1f}")
            for measured in self.measured
            for part, measure, languages, mean in measured.scores()
        ]
        page.table(("part", "measure", "languages", "mean"), rows, numbers=(2, 3))
        for note in after:
            page.paragraph(note)

    def _notes(self) -> tuple[list[str], list[str]]:
        """Return the paragraphs before and after the table of means."""
        before = [
            f"Measured on `{self.folder}`, {self.date}, with labse_tf {self.version}. "
            "Each language has the same weight in the means. Accuracy is "
            "nearest-translation accuracy, the mean of both directions. Values are in "
            "percent; correlations are times 100."
        ]
        if self.trained is not None:
            before.append(
                f"Trained on {' '.join(self.trained)}; all other languages are "
                "zero-shot."
            )
        after = []
        if self.missing:
            absent = "; ".join(KINDS[kind] for kind in self.missing)
            after.append(f"No data for: {absent}.")
        if self.left_out:
            after.append(f"Not measured: {', '.join(self.left_out)}.")
        return before, after


def evaluate_all(
    encode: Encoder,
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: str = "encoder",
    only: Iterable[str] | None = None,
    trained: Iterable[str] | None = None,
    overwrite: bool = False,
    block_size: int = 1024,
    progress: Progress = None,
) -> Report:
    """Run every test for which a folder has data, and write and return a report.

    The folder is searched recursively for the following files, plain or compressed:
    Tatoeba files and pair files (`en-XX.tsv`), for nearest-translation accuracy and
    xSIM error rates; BUCC files, for mining; STS files, of which the test split is used
    if it exists, else the development split, else the training split. Folders named
    `corpus`, `train` or `training` contain training text and are skipped unless `only`
    names one.

    Args:
        encode: Callable from a list of strings to `(n, D)`.
        folder: Folder of the data.
        output: Folder of the report, created atomically at the end.
        model: Name of the encoder, for the title.
        only: Names of parts, see `find_parts`. If `None`, all parts except training
            text.
        trained: See `retrieval`.
        overwrite: Whether to replace an existing report.
        block_size: See `retrieval`.
        progress: See `labse_tf.progress`. Counts sentences of each step.


    Raises:
        ImportError: If matplotlib is not installed.
        OSError: If a file cannot be read or the report cannot be written.
        ValueError: If the folder has no data or not the parts in `only`, a file is
            invalid (the message has file and line), `output` exists, or `encode` does
            not return one finite row per sentence. All but the last are found before
            anything is encoded.

    Example:
        >>> report = evaluate_all(model.encode, "data", "report")  # doctest: +SKIP
        >>> print(report.table())  # doctest: +SKIP
    """
    from labse_tf import __version__

    new_figure(1, 1)  # Fail now if matplotlib is missing.
    known = trained_codes(trained)
    found = find_parts(folder)
    parts = _chosen_parts(found, folder, only)
    with atomic_directory(output, overwrite=overwrite) as unfinished:
        # All files are read before the first sentence is encoded, which may take hours.
        ready = [(part, _prepare(part)) for part in parts]
        measured = []
        for part, measure in ready:
            started = time.perf_counter()
            results = measure(_Run(encode, known, block_size, progress))
            seconds = time.perf_counter() - started
            measured.append(Measured(part, results, seconds))
        report = Report(
            model,
            str(folder),
            tuple(measured),
            missing=tuple(k for k in KINDS if k not in {part.kind for part in found}),
            left_out=tuple(part.name for part in found if part not in parts),
            trained=known,
            version=__version__,
            date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        )
        report.write(unfinished)
    return report


# === Finding ===


def find_parts(folder: str | os.PathLike[str]) -> list[Part]:
    """Return the parts of a folder, sorted by name.

    Args:
        folder: Folder to search recursively, without hidden folders.

    Raises:
        OSError: If the folder cannot be read.
    """
    root = Path(folder)
    os.listdir(root)  # os.walk reports no error for a missing folder.
    found: dict[tuple[Path, str], None] = {}
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(place)
        for kind, pattern in _NAMES.items():
            names = [match for match in map(pattern.fullmatch, files) if match]
            if not names:
                continue
            # A BUCC pair may have its own folder, named like the pair.
            apart = kind == "bucc" and here != root
            apart = apart and here.name in {match["pair"] for match in names}
            found[here.parent if apart else here, kind] = None
    shared = [where for where, _ in found]
    parts = []
    for where, kind in found:
        name = where.relative_to(root).as_posix()
        if name == ".":
            name = kind
        elif shared.count(where) > 1:
            name = f"{name}:{kind}"
        parts.append(Part(name, kind, where))
    return sorted(parts)


def _chosen_parts(
    parts: Sequence[Part], folder: str | os.PathLike[str], only: Iterable[str] | None
) -> list[Part]:
    """Return the parts to measure."""
    if only is None:
        chosen = [
            part
            for part in parts
            if not set(part.folder.relative_to(folder).parts) & set(TRAINING_FOLDERS)
        ]
    else:
        named = [only] if isinstance(only, str) else list(only)
        there = {part.name: part for part in parts}
        missing = [name for name in named if name not in there]
        if missing or not named:
            raise ValueError(
                f"`only` must name parts of {folder}, which has "
                f"{', '.join(there) or 'none'}. "
                f"Received: {', '.join(missing) or 'none'}"
            )
        chosen = [there[name] for name in sorted(set(named))]
    if not chosen:
        raise ValueError(
            f"`folder` must have test files: {'; '.join(KINDS.values())}. "
            f"Received: {folder}" + (", which has only training text" if parts else "")
        )
    return chosen


# === Measuring ===


class _Run(NamedTuple):
    """Settings shared by all parts."""

    encode: Encoder
    trained: tuple[str, ...] | None
    block_size: int
    progress: Progress


Measure = Callable[[_Run], dict[str, Result]]


def _prepare(part: Part) -> Measure:
    """Read and check the files of a part, and return a function that measures it."""
    if part.kind == "tatoeba":
        return _ranking(part, tatoeba_pairs(part.folder))
    if part.kind == "pairs":
        return _ranking(part, _pair_files(part.folder))
    if part.kind == "bucc":
        return _mining(part)
    return _similarity(part)


def _ranking(part: Part, pairs: Mapping[str, tuple[list[str], list[str]]]) -> Measure:
    """Return a function that measures accuracy and xSIM with one search."""

    def measure(run: _Run) -> dict[str, Result]:
        nearest: dict[str, tuple[float, float]] = {}
        aligned: dict[str, tuple[float, float]] = {}
        total = count_sentences(pairs)
        with progress_bar(part.name, total, "sentences", show=run.progress) as advance:
            for code, _, both in searched(
                run.encode, pairs, _NEIGHBORS, run.block_size, advance
            ):
                nearest[code] = first_shares(both)
                aligned[code] = xsim_shares(both, pairs[code])
        kind = TatoebaResult if part.kind == "tatoeba" else RetrievalResult
        return {
            "accuracy": kind.from_shares(nearest, pairs, run.trained),
            "xsim": XsimResult.from_shares(aligned, pairs, run.trained, k=_NEIGHBORS),
        }

    return measure


def _pair_files(folder: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Read the files `en-XX.tsv`, plain or compressed, by canonical code of XX."""
    pairs: dict[str, tuple[list[str], list[str]]] = {}
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        match = _NAMES["pairs"].fullmatch(path.name)
        if match is None:
            continue
        code = match["code"]
        try:
            language_code(code)
        except ValueError as error:
            raise ValueError(
                f"{path}: expected a name en-XX.tsv with a language. {error}"
            ) from None
        if code in files:
            raise ValueError(
                f"{path}: expected one file per language. Received: "
                f"{files[code].name} as well"
            )
        files[code] = path
        found = [
            (pair.source, pair.target) for pair in read_pairs(path, language="und")
        ]
        pairs[code] = [source for source, _ in found], [target for _, target in found]
    return canonical_keys(pairs)


def _mining(part: Part) -> Measure:
    """Return a function that runs BUCC.

    The files are read twice: now, to find errors early, and again by `bucc_report`.
    """
    files = find_bucc_files(part.folder)
    trained_on = [pair for pair, splits in files.items() if "training" in splits]
    if not trained_on:
        raise ValueError(
            f"{part.folder}: expected files XX-en.training.XX, .en and .gold. "
            f"Received: only other splits of {' '.join(files)}"
        )
    for pair in trained_on:
        read_bucc(part.folder, pair, "training", files[pair])
        if "gold" in files[pair].get("test", {}):
            read_bucc(part.folder, pair, "test", files[pair])

    def measure(run: _Run) -> dict[str, Result]:
        return {"mining": bucc_report(run.encode, part.folder, progress=run.progress)}

    return measure


def _similarity(part: Part) -> Measure:
    """Return a function that measures STS on the test split, else dev, else train."""
    names = os.listdir(part.folder)
    there = {m[1] for m in map(_NAMES["sts"].fullmatch, names) if m}
    split = next(s for s in reversed(SPLITS) if s in there)
    pairs = read_sts(part.folder, split=split)

    def measure(run: _Run) -> dict[str, Result]:
        result = sts(run.encode, pairs, progress=run.progress)
        return {"similarity": StsResult(result.languages, split)}

    return measure
