"""The command `review`: a page to mark pairs, or a report of likely errors."""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.cli.arguments import (
    add_encoder,
    add_json,
    add_on_error,
    add_output,
    add_work,
    command,
)
from labse_tf.cli.models import fingerprint_of, open_encoder, say_truncated
from labse_tf.cli.output import print_table, say_skipped, work_folder, write_json
from labse_tf.cli.pairs import cosines_on_disk

if TYPE_CHECKING:
    import numpy as np

    from labse_tf.review import ReviewPair
    from labse_tf.text import SkipReport

# ours: enough for days of marking, in a file of about a megabyte.
_LIMIT = 5000
_REPORTED = 20  # ours: what fits on a screen


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = command(
        commands,
        "review",
        _run,
        "write a page to mark pairs as good or bad, or report wrong translations",
        "labse-tf review pairs.tsv -o review.html; "
        "labse-tf review --report locale/hi/*.po --fail-above 0.9",
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="PAIRS",
        help="pairs in any format of train, for the page one file, also .csv; of a "
        "table the last two columns, or those beside a column of scores or marks at "
        "either end; XX=FILE for the language",
    )
    add_on_error(parser)
    add_encoder(parser)
    add_output(
        parser,
        "FILE.html",
        "page to open in a browser, one file that loads nothing",
        default="review.html",
    )
    parser.add_argument(
        "--rescore",
        action="store_true",
        help="score by --model also if the file has scores (default: only if it has "
        "none)",
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="maximum number of pairs, the worst ones (default: "
        f"{_LIMIT}, of a report {_REPORTED})",
    )
    parser.add_argument(
        "--sample",
        type=int,
        metavar="N",
        help="random pairs in random order instead of the worst first, for marks that "
        "stand for the file (default: none)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of --sample (default: 0)"
    )
    add_work(parser, "the cosines")
    add_json(parser)
    report = parser.add_argument_group("report")
    report.add_argument(
        "--report",
        action="store_true",
        help="instead of the page, print the likeliest wrong translations of catalogs "
        "(.po, .xlf and other formats) with file and line; all files of one language "
        "count as one catalog, and its messages as examples for each other",
    )
    report.add_argument(
        "--format",
        default="table",
        choices=("table", "github"),
        help="table, or annotations of GitHub Actions (default: table)",
    )
    report.add_argument(
        "--fail-above",
        type=float,
        metavar="P",
        help="report only messages that are wrong with at least this probability, and "
        "exit with status 1 if there are any (default: report the worst, status 0)",
    )
    report.add_argument(
        "--wrong-share",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="share of messages expected to be wrong; more makes all probabilities "
        "higher, in the same order (default: 0.05)",
    )


def _run(options: argparse.Namespace) -> int:
    for name in ("limit", "sample"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be positive. Received: {value}")
    if options.report:
        return _report(options)
    if options.fail_above is not None:
        raise ValueError(
            f"--fail-above requires --report. Received: {options.fail_above}"
        )
    if len(options.files) > 1:
        raise ValueError(
            "a page has one file; --report takes several. "
            f"Received: {len(options.files)} files"
        )
    options.file = options.files[0]
    _review(options)
    return 0


def _report(options: argparse.Namespace) -> int:
    """Print the likeliest wrong translations, and return the exit status."""
    from labse_tf.review import as_annotation, report_findings
    from labse_tf.text import SkipReport, on_one_line

    for name, value in (
        ("--fail-above", options.fail_above),
        ("--wrong-share", options.wrong_share),
    ):
        if value is not None and not 0 < value < 1:
            raise ValueError(f"{name} must be in (0, 1). Received: {value}")
    skipped = SkipReport()
    encode = open_encoder(options)
    every = report_findings(
        options.files,
        encode,
        share=options.wrong_share,
        on_error=options.on_error,
        skipped=skipped,
    )
    say_skipped(skipped)
    say_truncated(encode)
    if not every:
        raise ValueError(
            f"{', '.join(options.files)}: expected translated messages. "
            "Received: no messages"
        )
    least = 0.0 if options.fail_above is None else options.fail_above
    above = [found for found in every if found.probability >= least]
    shown = above[: _REPORTED if options.limit is None else options.limit]
    if options.format == "github":
        for found in shown:
            print(as_annotation(found))
    elif shown:
        print_table(
            ("place", "wrong", "cosine", "message", "translation"),
            [
                (
                    f"{found.file}:{found.line}",
                    f"{found.probability:.0%}",
                    f"{found.cosine:.2f}",
                    on_one_line(found.source),
                    on_one_line(found.target),
                )
                for found in shown
            ],
            left=("message", "translation"),
        )
    expected = sum(found.probability for found in every)
    above_text = "" if options.fail_above is None else f" at least {least:.0%} likely"
    count = len(above) if above_text else round(expected)
    print(
        f"{len(every):,} messages, {count:,} {'' if above_text else 'probably '}wrong"
        f"{above_text}",
        file=sys.stderr if options.format == "github" else sys.stdout,
    )
    write_json(
        options.json,
        {
            "messages": len(every),
            "expected_wrong": expected,
            "fail_above": options.fail_above,
            "found": len(above) if above_text else None,
            "findings": [found._asdict() for found in shown],
        },
    )
    return int(bool(above_text and above))


def _review(options: argparse.Namespace) -> None:
    import numpy as np

    from labse_tf.files import write_text
    from labse_tf.review import review_page
    from labse_tf.text import SkipReport, split_language

    skipped = SkipReport()
    digest, found = hashlib.sha256(), array("d")
    for pair in _pairs(options, skipped):
        found.append(math.nan if pair.score is None else pair.score)
        digest.update(
            "\t".join([pair.source, pair.target, ""]).encode("utf-8", "replace")
        )
    say_skipped(skipped)
    scores = np.frombuffer(found, dtype=np.float64)
    if not len(scores):
        raise ValueError(f"{options.file}: expected pairs. Received: no pairs")
    name = "score"
    if options.rescore or np.isnan(scores).all():
        name = "cosine"
        scores = _cosines(options, len(scores), digest.hexdigest())
    chosen = _chosen(options, scores)
    places = {row: place for place, row in enumerate(chosen.tolist())}
    pairs: list[ReviewPair | None] = [None] * len(chosen)
    for pair in _pairs(options, SkipReport()):
        if pair.row in places:
            value = float(scores[pair.row])
            score = None if math.isnan(value) else round(value, 6)
            pairs[places[pair.row]] = pair._replace(score=score)
    title = split_language(options.file)[1].name
    page = review_page(
        [pair for pair in pairs if pair is not None],
        name=title,
        digest=digest.hexdigest(),
        score=name,
    )
    write_text(options.output, page)
    values = scores[chosen]
    values = values[~np.isnan(values)]
    ends = [round(float(end), 6) for end in (values.min(), values.max())]
    how = "random" if options.sample else "worst first"
    print(
        f"{len(chosen):,} of {len(scores):,} pairs, {how}, {name} {ends[0]:.3f} to "
        f"{ends[1]:.3f}: open {options.output} in a browser; its download is the "
        "SAMPLE.tsv of filter --marked"
    )
    write_json(
        options.json,
        {
            "pairs": len(scores),
            "shown": len(chosen),
            "score": name,
            "lowest_score": ends[0],
            "highest_score": ends[1],
        },
    )


def _pairs(options: argparse.Namespace, skipped: SkipReport) -> Iterator[ReviewPair]:
    from labse_tf.review import read_review_pairs

    return read_review_pairs(options.file, on_error=options.on_error, skipped=skipped)


def _chosen(options: argparse.Namespace, scores: np.ndarray) -> np.ndarray:
    """Return the rows to show, in their order."""
    import numpy as np

    if options.sample is not None:
        count = min(options.sample, len(scores))
        return np.random.default_rng(options.seed).permutation(len(scores))[:count]
    # Pairs without a score are last, because nothing says that they are bad.
    return np.argsort(scores, kind="stable")[: options.limit or _LIMIT]


def _cosines(options: argparse.Namespace, total: int, digest: str) -> np.ndarray:
    """Return the cosine of each pair of the file, float32 `(total,)`."""
    import numpy as np

    from labse_tf.text import SkipReport

    encode = open_encoder(options)
    with work_folder(options.work, Path(options.output)) as work:
        cosines = cosines_on_disk(
            lambda: ((p.source, p.target) for p in _pairs(options, SkipReport())),
            encode,
            work,
            total=total,
            digest=digest,
            model=fingerprint_of(options),
        )
        say_truncated(encode)
        return np.array(cosines)
