"""Cleaning of pairs: pairs -> pairs that the rules keep, and a report, in blocks."""

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
_BUFFER = 1 << 20  # bytes of a language that are compressed together


def new_report(held_out: Sequence[HeldOut] = ()) -> CleaningReport:
    """Create an empty report for `clean_pairs` with all rules, in their order.

    Raises:
        ValueError: If two held-out sets have the same name.
    """
    names = [each.name for each in held_out]
    if len(set(names)) < len(names):
        raise ValueError(
            f"`held_out` must be sets with different names. Received: {names}"
        )
    return CleaningReport([*RULES, *names, *DUPLICATES])


def clean_pairs(
    pairs: Iterable[SentencePair],
    rules: CleaningRules | None = None,
    *,
    held_out: Sequence[HeldOut] = (),
    report: CleaningReport | None = None,
) -> Iterator[SentencePair]:
    """Remove pairs that would teach an encoder nothing, or something wrong.

    White space is collapsed and text is normalized to NFC. The order of the pairs is
    kept. Of duplicates in the same language the first pair is kept. Memory holds one
    block of pairs and two hashes of each pair that was kept (some 130 bytes).

    Args:
        pairs: Pairs of any languages, such as `read_pairs` returns.
        rules: Rules to apply; the defaults of `CleaningRules` if `None`.
        held_out: Sets whose sentences must not be in the text, on either side and in
            any language.
        report: Report from `new_report` to which the counts are added.

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
    # Language -> keys of the pairs kept so far.
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
    """Clean pair files into a directory of `en-XX.tsv.gz` files and a report.

    Files are read sorted by path, in any format that `read_pairs` accepts.

    Args:
        files: See `load_pairs`.
        output: New directory, created atomically.
        rules: See `clean_pairs`.
        held_out: See `clean_pairs`.
        language: See `load_pairs`.
        languages: Languages to keep; `None` for all.
        on_error: See `read_pairs`.
        skipped: See `read_pairs`.
        overwrite: Whether to replace an existing output.
        progress: See `labse_tf.progress`; counts files.

    Returns:
        The report, which is also in `cleaning.json` and `cleaning.md`.

    Raises:
        DataError: See `read_pairs`.
        ValueError: If no pair is kept, or an argument is invalid.
        OSError: If the output cannot be written.
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
    """Raise `ValueError` if no pair was kept."""
    if not sum(report.kept.values()):
        hints = "".join(f"{hint} " for hint in report.hints())
        raise ValueError(
            f"`files` must hold pairs that the rules keep. {hints}Received: "
            f"{sum(report.read.values())} pairs, all removed: {report.by_rule()}"
        )


def report_files(report: CleaningReport) -> dict[str, str]:
    """Return the names and contents of the report's files."""
    as_json = json.dumps(report.to_dict(), indent=1, ensure_ascii=False)
    return {"cleaning.json": as_json + "\n", "cleaning.md": report.to_markdown()}


def write_pairs(pairs: Iterable[SentencePair], folder: str | os.PathLike[str]) -> None:
    """Write the pairs of each language to `en-XX.tsv.gz` in a directory.

    Languages may come in any order. Only one file is open at a time.

    Args:
        pairs: Pairs without tabs and line ends in their sentences.
        folder: Existing directory. Pairs are appended to the files in it.

    Raises:
        ValueError: If a sentence contains a tab or a line end.
    """
    waiting: dict[str, bytearray] = {}

    def write(language: str) -> None:
        path = Path(folder) / f"en-{language}.tsv.gz"
        # A gzip file may consist of several members. Without a time stamp the same
        # text gives the same bytes.
        with path.open("ab") as file:
            file.write(gzip.compress(waiting.pop(language), 6, mtime=0))

    for source, target, language in pairs:
        line = f"{source}\t{target}\n"
        if line.count("\t") != 1 or line.count("\n") != 1:
            raise ValueError(
                "`pairs` must not contain tabs or line ends inside a sentence. "
                f"Received: {line!r}"
            )
        waiting.setdefault(language, bytearray()).extend(line.encode())
        if len(waiting[language]) >= _BUFFER:
            write(language)
    for language in sorted(waiting):
        write(language)
