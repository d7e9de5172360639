"""The command `filter`: keep the pairs with the best scores."""

from __future__ import annotations

import argparse
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.cli.arguments import (
    add_encoder,
    add_json,
    add_mean_floor,
    add_on_error,
    add_pair_output,
    add_plot,
    add_work,
    command,
)
from labse_tf.cli.models import fingerprint_of, open_encoder, say_truncated
from labse_tf.cli.output import print_table, say_skipped, work_folder, write_json
from labse_tf.cli.pairs import (
    Pair,
    column_languages,
    cosines_on_disk,
    pair_cosines,
    read_file,
    read_marked,
)
from labse_tf.encoders import Encode

if TYPE_CHECKING:
    import numpy as np

    from labse_tf.mining import CalibrationResult, PairMargins, ThresholdEstimate
    from labse_tf.text import WrittenPair

# Intervals of the histogram: those of a ratio end at 2, where few pairs are.
_EDGES = {
    "cosine": [i / 100 for i in range(-100, 101)],
    "distance": [i / 100 for i in range(-100, 101)],
    "ratio": [i / 100 for i in range(-20, 201)],
}

# Below this number of good or bad marks, the estimates are hardly better than none.
_FEW = 10


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = command(
        commands,
        "filter",
        _filter,
        "keep the pairs of a file whose sentences have the same meaning",
        "labse-tf filter pairs.tsv --marked sample.tsv -o kept.tsv; "
        "labse-tf filter pairs.tsv --margin ratio --drop-share 0.1 -o kept.tsv",
    )
    parser.add_argument(
        "file",
        metavar="PAIRS",
        help="tab-separated table with the sentences in the last two columns, such as "
        "en-XX.tsv or the output of mine, or any other format of train, whose pairs "
        "are written as source<TAB>target; UTF-8; plain, .gz, .bz2, .xz or .zst",
    )
    add_on_error(parser)
    add_encoder(parser)
    add_pair_output(parser, "kept lines, unchanged")
    parser.add_argument(
        "--columns",
        nargs=2,
        metavar=("CODE", "CODE"),
        help="languages of the two columns of a table, such as hi en (default: en and "
        "the language in the name, in the order that the scripts show)",
    )
    _add_scores(parser)
    _add_rules(parser)
    parser.add_argument(
        "--with-scores",
        action="store_true",
        help="write before each line of a table the cosine, then the margin score "
        "(with --margin) and the probability (with --marked); other formats always "
        "have them",
    )
    add_work(parser, "the cosines, which do not depend on the rule")
    add_plot(parser, "a histogram of the scores")
    add_json(parser)


def _add_scores(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the score."""
    parser.add_argument(
        "--margin",
        nargs="?",
        const="ratio",
        default="cosine",
        choices=("ratio", "distance", "cosine"),
        help="score: the cosine divided by (ratio, also without a value), minus "
        "(distance) or without (cosine) the mean cosine of both sentences with their "
        "nearest different texts on the other side of the file (default: cosine)",
    )
    parser.add_argument(
        "--k",
        type=int,
        default=4,
        metavar="K",
        help="number of neighbors of a margin (default: 4)",
    )
    add_mean_floor(parser)


def _add_rules(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose the pairs to keep."""
    rule = parser.add_mutually_exclusive_group()
    rule.add_argument(
        "--threshold", type=float, metavar="SCORE", help="lowest score to keep"
    )
    rule.add_argument(
        "--drop-share",
        type=float,
        metavar="SHARE",
        help="share of the pairs to drop, those with the lowest scores",
    )
    rule.add_argument(
        "--keep",
        type=int,
        metavar="N",
        help="number of pairs to keep, those with the highest scores; of equal scores "
        "the first in the file",
    )
    rule.add_argument(
        "--probability",
        type=float,
        metavar="P",
        help="lowest calibrated probability to keep; requires --marked",
    )
    parser.add_argument(
        "--marked",
        metavar="SAMPLE.tsv",
        help="pairs marked by a person, with `good` or `bad` in the last column, as "
        "review writes; they calibrate the probability that a pair is good, and, "
        "without another rule, the threshold is the lowest at which enough of the "
        "kept pairs are good (default: none; required without another rule)",
    )
    parser.add_argument(
        "--good-share",
        type=float,
        default=0.8,
        metavar="SHARE",
        help="share of the kept marked pairs that must be good (default: 0.8, as in "
        "the paper)",
    )
    parser.add_argument(
        "--calibration",
        default="auto",
        choices=("auto", "logistic", "isotonic"),
        help="method of the probability; auto: the one with the lower cross-validated "
        "error (default: auto)",
    )


def _filter(options: argparse.Namespace) -> None:
    from labse_tf import mining
    from labse_tf.text import SkipReport

    _check_options(options)
    marked = list(read_marked(options.marked)) if options.marked else []
    if options.marked and not marked:
        raise ValueError(f"{options.marked}: expected marked pairs. Received: no pairs")
    skipped = SkipReport()
    total, digest = 0, hashlib.sha256()
    for pair in read_file(options, skipped):
        total += 1
        digest.update("\t".join([*pair.texts, ""]).encode())
    say_skipped(skipped)
    if not total:
        raise ValueError(f"{options.file}: expected pairs. Received: no pairs")
    languages = column_languages(options)
    encode = open_encoder(options)
    with work_folder(options.work, options.output) as work:
        texts = [pair.texts for pair, _ in marked]
        sample: list[float] = []
        if options.margin == "cosine":
            cosines = _cosines(options, encode, work, total, digest.hexdigest())
            scores = cosines
            sample = pair_cosines(encode, texts).tolist() if texts else []
        else:
            found = _margins(options, encode, work, total, texts)
            cosines, scores = found.cosines, found.scores[:total]
            sample = found.scores[total:].tolist()
        say_truncated(encode)
        calibration, estimates = None, list[mining.ThresholdEstimate]()
        good = [mark for _, mark in marked]
        if marked:
            calibration = mining.calibrate(sample, good, options.calibration)
            estimates = mining.threshold_estimates(sample, good)
        limit, kept = _chosen(options, scores, sample, good, calibration)
        histogram = _write_kept(options, cosines, scores, kept, languages, calibration)
    above = [mark for mark, score in zip(good, sample, strict=True) if score >= limit]
    print(
        f"{kept.sum():,} of {total:,} pairs kept ({kept.mean():.1%}), "
        f"{_name(options)} threshold {limit:.4f}"
        + f"; {sum(above)} of {len(above)} marked pairs above it are good" * bool(good)
        + f": {options.output}"
    )
    if calibration is not None:
        _say_calibration(calibration, good, estimates, scores)
    if options.plot:
        from labse_tf.plots import plot_histogram

        edges = _EDGES[options.margin]
        plot_histogram(histogram, edges, limit, options.plot, score=_name(options))
        print(f"plot: {options.plot}")
    result: dict[str, Any] = {"pairs": total, "kept": int(kept.sum())}
    result |= {"score": _name(options), "threshold": limit}
    if marked:
        result |= {"marked": len(marked), "marked_kept": len(above)}
        result |= {"good_share": sum(above) / len(above) if above else None}
        result["calibration"] = _as_json(calibration, estimates)
    write_json(options.json, result)


def _name(options: argparse.Namespace) -> str:
    """Return the name of the score."""
    margin = options.margin
    return margin if margin == "cosine" else f"margin ({margin})"


def _check_options(options: argparse.Namespace) -> None:
    """Raise `ValueError` if options are out of range or do not fit each other."""
    from labse_tf import mining
    from labse_tf.text import output_kind

    for name, value, fits in (
        ("--good-share", options.good_share, "(0, 1]"),
        ("--drop-share", options.drop_share, "[0, 1)"),
        ("--probability", options.probability, "[0, 1]"),
    ):
        low, high = fits[0] == "[", fits[-1] == "]"
        if value is not None and not (
            (0 <= value if low else 0 < value) and (value <= 1 if high else value < 1)
        ):
            raise ValueError(f"{name} must be in {fits}. Received: {value}")
    if options.keep is not None and options.keep < 1:
        raise ValueError(f"--keep must be positive. Received: {options.keep}")
    mining.check_options(
        k=options.k, margin=options.margin, mean_floor=options.mean_floor
    )
    if not options.marked:
        if options.probability is not None:
            raise ValueError(
                "--probability requires --marked, which calibrates it. "
                f"Received: --probability {options.probability}"
            )
        if _has_no_rule(options):
            raise ValueError(
                "expected a rule: --threshold, --drop-share, --keep or --marked. "
                "Received: no rule"
            )
    kind = output_kind(options.output)
    if options.with_scores and options.format == "pairs" and kind == ".tsv":
        raise ValueError(
            "--with-scores requires --format table, or an output that has scores, such "
            f"as .jsonl. Received: --format pairs and {options.output}"
        )


def _chosen(
    options: argparse.Namespace,
    scores: np.ndarray,
    sample: Sequence[float],
    good: Sequence[bool],
    calibration: CalibrationResult | None,
) -> tuple[float, np.ndarray]:
    """Return the lowest score to keep, and which pairs are kept, bool `(p,)`."""
    import numpy as np

    from labse_tf import mining

    if options.threshold is not None or _has_no_rule(options):
        limit = options.threshold
        if limit is None:
            limit = mining.quality_threshold(sample, good, options.good_share)
        return float(limit), np.asarray(scores, dtype=np.float64) >= limit
    if options.probability is not None and calibration is not None:
        kept = calibration.calibration(scores) >= options.probability
    else:
        count = options.keep
        if count is None:
            # 0.29 * 100 is less than 29.
            count = len(scores) - int(options.drop_share * len(scores) + 1e-9)
        kept = mining.best_rows(scores, count)
    if not kept.any():
        return float(np.nextafter(scores.max(), np.float32(np.inf))), kept
    return float(scores[kept].min()), kept


def _has_no_rule(options: argparse.Namespace) -> bool:
    """Return whether only the marked pairs choose the pairs to keep."""
    rules = (options.threshold, options.drop_share, options.keep, options.probability)
    return all(rule is None for rule in rules)


def _write_kept(
    options: argparse.Namespace,
    cosines: np.ndarray,
    scores: np.ndarray,
    kept: np.ndarray,
    languages: tuple[str, str],
    calibration: CalibrationResult | None,
) -> list[int]:
    """Write the kept pairs, and return a histogram of all scores.

    `languages` are those of a table.
    """
    import numpy as np

    from labse_tf.text import SkipReport, blocks_of, check_unchanged, pair_writer

    edges = _EDGES[options.margin]
    histogram = np.zeros(len(edges) - 1, dtype=np.int64)
    row = 0
    with pair_writer(options.output) as write:
        for block in blocks_of(read_file(options, SkipReport())):
            span = slice(row, row + len(block))
            values = scores[span]
            histogram += np.histogram(values.clip(edges[0], edges[-1]), edges)[0]
            numbers = {"cosine": cosines[span]}
            if options.margin != "cosine":
                numbers["margin"] = values
            if calibration is not None:
                numbers["probability"] = calibration.calibration(values)
            columns = [column.tolist() for column in numbers.values()]
            chosen = kept[span].tolist()
            for pair, keep, *found in zip(block, chosen, *columns, strict=True):
                if keep:
                    named = dict(zip(numbers, found, strict=True))
                    write(_written(options, pair, named, languages))
            row += len(block)
        check_unchanged(options.file, len(kept), row)
    return histogram.tolist()


def _cosines(
    options: argparse.Namespace, encode: Encode, work: Path, total: int, digest: str
) -> np.ndarray:
    """Return the cosine of each pair of the file, float32 `(total,)`, on disk."""
    from labse_tf.text import SkipReport

    return cosines_on_disk(
        lambda: (pair.texts for pair in read_file(options, SkipReport())),
        encode,
        work,
        total=total,
        digest=digest,
        model=fingerprint_of(options),
    )


def _margins(
    options: argparse.Namespace,
    encode: Encode,
    work: Path,
    total: int,
    marked: Sequence[tuple[str, str]],
) -> PairMargins:
    """Return the margins of the file's pairs, followed by those of the marked pairs.

    Marked pairs that are not in the file count as if they were.
    """
    from labse_tf import mining
    from labse_tf.text import SkipReport, check_unchanged

    def side(number: int) -> Iterator[tuple[int, str]]:
        pairs = (pair.texts for pair in read_file(options, SkipReport()))
        both = itertools.chain(pairs, marked)
        return ((row, texts[number].strip()) for row, texts in enumerate(both))

    model = fingerprint_of(options)
    sides, vectors = [], []
    for number, name in enumerate(("source", "target")):
        texts = mining.DistinctTexts(
            lambda number=number: side(number),  # type: ignore[misc]
            options.file,
            keep_rows=True,
        )
        check_unchanged(options.file, total + len(marked), texts.total)
        path = work / f"{name}.npy"
        vectors.append(mining.embed_to_disk(texts, encode, path, model=model))
        sides.append(texts)
    # The state of a search belongs to its texts, model and k.
    made_of = "\n".join([*(texts.digest for texts in sides), model, str(options.k)])
    name = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    return mining.pair_margins(
        *vectors,
        *(texts.rows for texts in sides),
        k=options.k,
        margin=options.margin,
        mean_floor=options.mean_floor,
        checkpoint=work / f"search-{name}.npz",
    )


def _written(
    options: argparse.Namespace,
    pair: Pair,
    numbers: dict[str, float],
    languages: tuple[str, str],
) -> WrittenPair:
    """Return a pair as the writer needs it, English first except in tables."""
    from labse_tf.text import WrittenPair

    line = ""
    if options.format == "table":
        scores = [f"{number:.6f}" for number in numbers.values()]
        line = "\t".join([*(scores if options.with_scores else ()), pair.whole])
    texts = pair.texts
    numbers = {name: round(number, 6) for name, number in numbers.items()}
    languages = languages if pair.languages == ("", "") else pair.languages
    if languages[1] == "en" != languages[0]:
        texts, languages = texts[::-1], languages[::-1]
    stripped = texts[0].strip(), texts[1].strip()
    return WrittenPair(stripped, languages, numbers, line)


# === What the command reports ===


def _say_calibration(
    result: CalibrationResult,
    good: Sequence[bool],
    estimates: Sequence[ThresholdEstimate],
    scores: np.ndarray,
) -> None:
    """Print the calibration and what each threshold is expected to give."""
    import numpy as np

    right = sum(good)
    error = "unknown" if result.brier is None else f"{result.brier:.3f}"
    print(
        f"{len(good):,} marked pairs, {right:,} good; probability by "
        f"{result.calibration.method} calibration, squared error {error} when "
        f"cross-validated ({result.base_brier:.3f} without scores)"
    )
    if min(right, len(good) - right) < _FEW:
        print(
            f"only {right:,} good and {len(good) - right:,} bad marks: mark at least "
            f"{_FEW} of each for estimates to rely on"
        )
    rows = []
    for each in estimates:
        precision = "-"
        if each.precision is not None and each.interval is not None:
            low, high = each.interval
            precision = f"{each.precision:.1%} ({low:.0%} to {high:.0%})"
        share = np.count_nonzero(scores >= each.threshold) / len(scores)
        rows.append(
            (
                f"{each.share:.0%}",
                f"{each.threshold:.4f}",
                precision,
                f"{each.recall:.1%}",
                f"{share:.1%}",
            )
        )
    columns = ("good", "threshold", "expected (95 %)", "of good marks", "of the file")
    print_table(columns, rows)


def _as_json(
    result: CalibrationResult | None, estimates: Sequence[ThresholdEstimate]
) -> dict[str, Any] | None:
    """Return a calibration and its estimates for the JSON file."""
    if result is None:
        return None
    return {
        "method": result.calibration.method,
        "brier": result.brier,
        "log_loss": result.log_loss,
        "base_brier": result.base_brier,
        "thresholds": [each._asdict() for each in estimates],
    }
