"""Cleaning: pairs in, the pairs that are good for training out, one block at a time."""

from __future__ import annotations

import gzip
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from labse_tf.data.cleaning.held_out import HeldOut
from labse_tf.data.cleaning.report import DUPLICATES, RULES, CleaningReport
from labse_tf.data.cleaning.rules import CleaningRules, judge
from labse_tf.data.loading import Files, read_files
from labse_tf.files import atomic_directory, write_text
from labse_tf.progress import Progress
from labse_tf.text import OnError, SentencePair, SkipReport

BLOCK = 1 << 13  # pairs judged together: some megabytes
_BUFFER = 1 << 20  # bytes of a language that wait to be compressed


def new_report(held_out: Sequence[HeldOut] = ()) -> CleaningReport:
    """Makes an empty report for `clean_pairs`.

    Args:
        held_out: the sets that it will be given.

    Returns:
        A `CleaningReport` of all rules in their order.

    Raises:
        ValueError: two sets have one name.
    """
    names = [each.name for each in held_out]
    if len(set(names)) < len(names):
        raise ValueError(
            f"`held_out` must be sets of different names. Received: {names}"
        )
    return CleaningReport([*RULES, *names, *DUPLICATES])


def clean_pairs(
    pairs: Iterable[SentencePair],
    rules: CleaningRules | None = None,
    *,
    held_out: Sequence[HeldOut] = (),
    report: CleaningReport | None = None,
) -> Iterator[SentencePair]:
    """Leaves out the pairs that would teach an encoder nothing, or something wrong.

    White space is collapsed and text brought into NFC. Pairs stay in their order; of
    duplicates inside a language the first one stays. Beside some thousand pairs,
    memory holds two hashes of each pair that was kept (some 130 bytes).

    Args:
        pairs: of any languages, as `read_pairs` gives them.
        rules: what to leave out; the usual ones where left out.
        held_out: sets whose sentences must not be in the text, on either side, in any
            language.
        report: where to count, from `new_report`.

    Returns:
        An iterator of the pairs that stay.

    Example:
        >>> from labse_tf.data import SentencePair, clean_pairs
        >>> pairs = [
        ...     SentencePair("Open the file again", "फ़ाइल फिर से खोलें", "hi"),
        ...     SentencePair("Open the file again!", "फ़ाइल फिर से खोलें।", "hi"),
        ...     SentencePair("Where is the station?", "Where is the station", "hi"),
        ... ]
        >>> [pair.source for pair in clean_pairs(pairs)]
        ['Open the file again']
    """
    rules = CleaningRules() if rules is None else rules
    report = new_report(held_out) if report is None else report
    # language -> the keys of its pairs so far
    seen: dict[str, tuple[set[int], set[int]]] = {}
    pairs = iter(pairs)
    while block := list(itertools.islice(pairs, BLOCK)):
        judged = judge(block, rules, held_out)
        keys = judged.exact.tolist(), judged.near.tolist()
        for pair, reason, exact, near in zip(
            judged.pairs, judged.reasons, *keys, strict=True
        ):
            report.read[pair.language] += 1
            if not reason:
                equal, alike = seen.setdefault(pair.language, (set(), set()))
                if rules.duplicates and exact in equal:
                    reason = "duplicate"
                elif rules.near_duplicates and near in alike:
                    reason = "near_duplicate"
                else:
                    if rules.duplicates:
                        equal.add(exact)
                    if rules.near_duplicates:
                        alike.add(near)
                    yield pair
                    continue
            report.add(reason, pair, exact)


def clean_files(
    files: Files,
    output: str | Path,
    rules: CleaningRules | None = None,
    *,
    held_out: Sequence[HeldOut] = (),
    language: str | None = None,
    languages: Iterable[str] | None = None,
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
    overwrite: bool = False,
    progress: Progress = None,
) -> CleaningReport:
    """Cleans pair files into a directory of `en-XX.tsv.gz`, with a report beside them.

    Files are read sorted by path, in any format that `read_pairs` knows.

    Args:
        files: as in `load_pairs`.
        output: a new directory; it appears when all of it is there.
        rules: as in `clean_pairs`.
        held_out: as in `clean_pairs`.
        language: as in `load_pairs`.
        languages: keep only these.
        on_error: as in `read_pairs`.
        skipped: as in `read_pairs`.
        overwrite: replace an output that is there.
        progress: see `labse_tf.progress`; counts files.

    Returns:
        The report, which is also in `cleaning.json` and `cleaning.md`.

    Raises:
        DataError: as in `read_pairs`.
        ValueError: nothing is left, or an argument is wrong.
        OSError: the output cannot be written.
    """
    report = new_report(held_out)
    pairs = read_files(
        files,
        language=language,
        on_error=on_error,
        skipped=skipped,
        languages=languages,
        progress=progress,
    )
    with atomic_directory(output, overwrite=overwrite) as folder:
        write_pairs(clean_pairs(pairs, rules, held_out=held_out, report=report), folder)
        check_kept(report)
        for name, text in report_files(report).items():
            write_text(folder / name, text)
    return report


def check_kept(report: CleaningReport) -> None:
    """Refuses a cleaning that leaves nothing.

    Args:
        report: what it counted.

    Raises:
        ValueError: no pair was kept.
    """
    if not sum(report.kept.values()):
        raise ValueError(
            "`files` must hold pairs that the rules keep. Received: "
            f"{sum(report.read.values())} pairs, of which went {report.by_rule()}"
        )


def report_files(report: CleaningReport) -> dict[str, str]:
    """A report as it stands beside the pairs.

    Args:
        report: the report.

    Returns:
        Names of files and their text.
    """
    as_json = json.dumps(report.to_dict(), indent=1, ensure_ascii=False)
    return {
        "cleaning.json": as_json + "\n",
        "cleaning.md": report.to_markdown(),
    }


def write_pairs(pairs: Iterable[SentencePair], folder: str | os.PathLike[str]) -> None:
    """Writes `en-XX.tsv.gz` of each language into a directory.

    Languages may come in any order; no file is open while others are written.

    Args:
        pairs: without tabs and line ends in their sentences.
        folder: a directory that is there; pairs are added to the files in it.

    Raises:
        ValueError: a sentence holds a tab or a line end.
    """
    waiting: dict[str, bytearray] = {}

    def write(language: str) -> None:
        path = Path(folder) / f"en-{language}.tsv.gz"
        # a gzip file is one or more of them; no time stamp, so that the same text
        # gives the same bytes
        with path.open("ab") as file:
            file.write(gzip.compress(waiting.pop(language), 6, mtime=0))

    for source, target, language in pairs:
        line = f"{source}\t{target}\n"
        if line.count("\t") != 1 or line.count("\n") != 1:
            raise ValueError(
                "`pairs` must hold no tabs and line ends inside a sentence. "
                f"Received: {line!r}"
            )
        waiting.setdefault(language, bytearray()).extend(line.encode())
        if len(waiting[language]) >= _BUFFER:
            write(language)
    for language in sorted(waiting):
        write(language)
