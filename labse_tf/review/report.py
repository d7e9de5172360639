"""Report of likely errors: translated files -> messages, the likeliest errors first.

All files of one language are one catalog. Messages are embedded without placeholders,
accelerators and tags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from labse_tf.review.suspects import find_suspects
from labse_tf.text import (
    OnError,
    PathLike,
    SkipReport,
    clean_interface_text,
    read_numbered_pairs,
    split_language,
)


class Finding(NamedTuple):
    """A message and how likely its translation is wrong.

    Attributes:
        file: Path of the file.
        line: Line on which the message begins; in MO files its number.
        language: Language of the translation, or `"und"`.
        source: The message.
        target: Its translation.
        probability: Probability that the translation is wrong, see `Suspects`.
        cosine: Cosine of the message and the translation.
        margin: See `Suspects.margins`.
        better: The translation of another message that fits better, or `""`.
    """

    file: str
    line: int
    language: str
    source: str
    target: str
    probability: float
    cosine: float
    margin: float
    better: str = ""


def report_findings(
    paths: Iterable[PathLike],
    encode: Callable[[list[str]], Any],
    *,
    share: float = 0.05,
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
) -> list[Finding]:
    """Judge all messages of translated files.

    Fuzzy, obsolete and untranslated messages are left out, as by `read_pairs`; a plural
    gives two pairs.

    Args:
        paths: Files in any format of `labse_tf.text.read_pairs`, or `XX=PATH`.
        encode: Function from a list of strings to `(n, D)`.
        share: See `find_suspects`.
        on_error: See `labse_tf.text.read_pairs`.
        skipped: See `labse_tf.text.read_pairs`.

    Returns:
        All messages, those that are most likely wrong first.

    Raises:
        DataError: See `labse_tf.text.read_pairs`.
        ValueError: If `share` is out of range.
    """
    catalogs: dict[str, list[tuple[str, int, str, str]]] = {}
    for path in paths:
        place = str(split_language(path)[1])
        for line, pair in read_numbered_pairs(
            path,
            language=None if "=" in str(path) else "und",
            on_error=on_error,
            skipped=skipped,
        ):
            catalogs.setdefault(pair.language, []).append(
                (place, line, pair.source, pair.target)
            )
    found: list[Finding] = []
    for language, rows in catalogs.items():
        found += _judged(language, rows, encode, share)
    return sorted(found, key=lambda f: (-f.probability, f.margin, f.file, f.line))


def _judged(
    language: str,
    rows: Sequence[tuple[str, int, str, str]],
    encode: Callable[[list[str]], Any],
    share: float,
) -> list[Finding]:
    """Return the findings of one catalog, in its order."""
    sources, targets = [row[2] for row in rows], [row[3] for row in rows]
    # A message of placeholders alone is judged by them.
    plain = [clean_interface_text(text) or text for text in (*sources, *targets)]
    texts, places = np.unique(np.array(plain, dtype=object), return_inverse=True)
    vectors = np.asarray(encode(texts.tolist()))[places.ravel()]
    suspects = find_suspects(
        sources, targets, vectors[: len(rows)], vectors[len(rows) :], share=share
    )
    return [
        Finding(
            *row[:2],
            language,
            *row[2:],
            round(float(probability), 6),
            round(float(cosine), 6),
            round(float(margin), 6),
            targets[other] if margin < 0 and other >= 0 else "",
        )
        for row, probability, cosine, margin, other in zip(rows, *suspects, strict=True)
    ]


def as_annotation(finding: Finding) -> str:
    """Return a finding as a warning of GitHub Actions.

    Example:
        >>> from labse_tf.review import Finding, as_annotation
        >>> found = Finding("hi.po", 7, "hi", "Open", "बंद", 0.93, 0.2, -0.1)
        >>> print(as_annotation(found))  # doctest: +ELLIPSIS
        ::warning file=hi.po,line=7,title=...::93%25 likely wrong: "Open" -> "बंद"

    References:
        - https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
    """
    text = f'{finding.probability:.0%} likely wrong: "{finding.source}" -> '
    text += f'"{finding.target}"'
    if finding.better:
        text += f'; another translation fits better: "{finding.better}"'
    file = _escaped(finding.file).replace(":", "%3A").replace(",", "%2C")
    place = f"file={file},line={finding.line},title=Translation"
    return f"::warning {place}::{_escaped(text)}"


def _escaped(text: str) -> str:
    """Escape a value of a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
