"""The text of the runs: which pairs, how they are spoilt and mended, vocabularies.

Everything is made once, under a folder, and by one process at a time.
"""

from __future__ import annotations

import fcntl
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np

from claims.settings import INDIAN, LANGUAGES, UNSPACED, Plan, Scale
from labse_tf import data
from labse_tf.data import SentencePair
from labse_tf.files import write_text

# Of the English sentences, by a hash of each: those of the scorer's pairs.
SCORER_SHARE = 0.2
MARKED = 2_000  # Pairs that are marked good or bad for the filter.
# With the default of 0.8, which is the paper's, a tenth of bad pairs is left as it is.
GOOD_SHARE = 0.95


@contextmanager
def made_once(path: Path) -> Iterator[bool]:
    """Says whether `path` is still to be made; others wait until this block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not path.exists()


def write_pairs(path: Path, pairs: Sequence[SentencePair]) -> None:
    """A file that is written atomically."""
    write_text(path, "".join(f"{row.source}\t{row.target}\n" for row in pairs))


def choose_pairs(corpus: Path, work: Path, scale: Scale) -> None:
    """Writes `train/en-XX.tsv` and `scorer/en-XX.tsv`: sentences of four words or more.

    They are chosen by a hash of the English sentence, so that the languages share as
    many English sentences as they do in the whole corpus, and the scorer's pairs none
    with the others.

    Raises:
        ValueError: If a language has too few pairs.
    """
    for language in (*LANGUAGES, *UNSPACED):
        paths = {n: work / n / f"en-{language}.tsv" for n in ("scorer", "train")}
        if all(path.exists() for path in paths.values()):
            continue
        rows = [
            row
            for row in data.read_pairs(
                corpus / f"en-{language}.tsv.gz", on_error="skip"
            )
            if len(row.source.split()) >= 4
        ]
        codes = [zlib.crc32(row.source.encode()) / 2**32 for row in rows]
        order = np.argsort(codes, kind="stable").tolist()
        parts = {
            "scorer": [rows[i] for i in order if codes[i] < SCORER_SHARE],
            "train": [rows[i] for i in order if codes[i] >= SCORER_SHARE],
        }
        for name, count in (("scorer", scale.scorer_pairs), ("train", scale.pairs)):
            if len(parts[name]) < count:
                raise ValueError(
                    f"{corpus}: expected {count:,} pairs of {language} with four "
                    f"English words. Received: {len(parts[name]):,} for {name}"
                )
            write_pairs(paths[name], parts[name][:count])


def read_text(work: Path, name: str, language: str, count: int) -> list[SentencePair]:
    """The first pairs of a language."""
    path = work / name / f"en-{language}.tsv"
    return list(data.read_pairs(path, on_error="skip"))[:count]


def training_pairs(
    plan: Plan, seed: int, work: Path, scale: Scale
) -> dict[str, list[SentencePair]]:
    """The pairs of a plan by language, before any filter."""
    count = round(scale.pairs * plan.share)
    return {
        language: exchanged(
            read_text(work, "train", language, count), plan.shuffled, seed
        )
        for language in plan.languages
    }


def exchanged(pairs: list[SentencePair], share: float, seed: int) -> list[SentencePair]:
    """Gives a share of the sentences the translations of others of them."""
    random = np.random.default_rng(seed)
    rows = random.permutation(len(pairs))[: round(share * len(pairs))]
    spoilt = list(pairs)
    # One round through all of them: nobody keeps their own place.
    for row, other in zip(rows.tolist(), np.roll(rows, 1).tolist(), strict=True):
        spoilt[row] = pairs[row]._replace(target=pairs[other].target)
    return spoilt


def filtered(
    pairs: dict[str, list[SentencePair]],
    clean: dict[str, list[SentencePair]],
    scorer: Path,
    folder: Path,
    seed: int,
) -> tuple[dict[str, list[SentencePair]], dict[str, float]]:
    """What `labse-tf filter` keeps, and how good that is.

    Args:
        pairs: By language, good and bad.
        clean: The same rows as they were.
        scorer: A preset.
        folder: For the command's files.
        seed: Of the choice of pairs that are marked.

    Returns:
        The pairs that are left; the shares of the pairs kept, of good ones before, and
        of good ones among those kept.
    """
    from labse_tf.cli import main

    rows = [
        (row, row.target == other.target)
        for language in pairs
        for row, other in zip(pairs[language], clean[language], strict=True)
    ]
    chosen = np.random.default_rng(seed).choice(len(rows), MARKED, replace=False)
    lines = [f"{row.language}\t{row.source}\t{row.target}" for row, _ in rows]
    marks = [("bad", "good")[good] for _, good in rows]
    folder.mkdir(parents=True, exist_ok=True)
    text, sample, kept = (folder / f"{name}.tsv" for name in ("text", "sample", "kept"))
    write_text(text, "\n".join(lines) + "\n")
    write_text(sample, "".join(f"{lines[i]}\t{marks[i]}\n" for i in chosen))
    command = ["filter", str(text), "--model", str(scorer), "--marked", str(sample)]
    command += ["--good-share", str(GOOD_SHARE)]
    with redirect_stdout(StringIO()):
        status = main([*command, "--output", str(kept)])
    if status:
        raise RuntimeError(f"labse-tf {' '.join(command)} ended with {status}")
    good = {line for line, (_, is_good) in zip(lines, rows, strict=True) if is_good}
    left: dict[str, list[SentencePair]] = {language: [] for language in pairs}
    count = still = 0
    for line in kept.read_text(encoding="utf-8").splitlines():
        language, source, target = line.split("\t")
        left[language].append(SentencePair(source, target, language))
        count += 1
        still += line in good
    for path in (text, sample, kept):
        path.unlink()
    return left, {
        "kept": count / len(rows),
        "good_before": sum(is_good for _, is_good in rows) / len(rows),
        "good_after": still / count,
    }


def vocabulary(plan: Plan, work: Path, scale: Scale) -> Path:
    """The `vocab.txt` of a plan, learned where it is not there yet."""
    from labse_tf.tokenizers import learn_vocabulary

    path = work / "vocabularies" / f"{plan.vocabulary}_{plan.smoothing:g}.txt"
    with made_once(path) as missing:
        if missing:
            languages = UNSPACED if plan.vocabulary == "unspaced" else LANGUAGES
            skewed = plan.vocabulary == "skewed"
            text = [
                read_text(
                    work,
                    "train",
                    language,
                    scale.scarce_pairs
                    if skewed and language in INDIAN
                    else scale.pairs,
                )
                for language in languages
            ]
            tokens = learn_vocabulary(
                text,
                scale.vocabulary_size,
                reader=both_sides,
                smoothing=plan.smoothing,
                progress=False,
            )
            write_text(path, "".join(f"{token}\n" for token in tokens))
    return path


def both_sides(pairs: Sequence[SentencePair]) -> Iterator[tuple[str, str]]:
    """Language and sentence, of both sides."""
    for row in pairs:
        yield "en", row.source
        yield row.language, row.target
