"""Tatoeba, the test of 112 languages, with the paper's groups and figures beside.

References:
    - Feng et al., section 5.2, https://arxiv.org/abs/2007.01852
    - Artetxe and Schwenk (LASER), https://arxiv.org/abs/1812.10464
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np

from labse_tf.evaluation.nearest import Encoder
from labse_tf.evaluation.ranking import RetrievalResult, retrieval
from labse_tf.languages import language_code
from labse_tf.progress import Progress
from labse_tf.text import COMPRESSED, DataError, read_lines

# 14: the languages of XNLI without English. 36: those of XTREME's Tatoeba task.
# 112: all files of LASER's release. The paper's group of 82 is left out on purpose:
# no source at hand lists its languages, and a guessed list would give a number that
# looks comparable and is not.
TATOEBA_GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "14": tuple("ar bg de el es fr hi ru sw th tr ur vi zh".split()),
        "36": tuple(
            "af ar bg bn de el es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr "
            "nl pt ru sw ta te th tl tr ur vi zh".split()
        ),
        "112": tuple(
            "af am ang ar arq arz ast awa az be bn ber bs br bg ca cbk ceb ch cs kzj "
            "zh kw csb cy da de dsb dtp el eo et eu fo fi fr fy gd ga gl gsw he hi hr "
            "hsb hu hy io ie ia id is it jv ja kab ka kk km ko ku la lfn lt lv ml mr "
            "max mhr mk mn ms nds nl nn no nov oc orv pam fa pms pl pt ro ru sk sl es "
            "sq sr sv swg sw ta tt te tl th tk tr tzl ug uk ur uz vi war wuu xh yi "
            "yue".split()
        ),
    }
)

# Mean accuracy over a group, as published, to be printed beside our own numbers. Only
# what could be read at its source is here: the groups of 14 and 36 of LASER and m~USE
# are not.
TATOEBA_PUBLISHED: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        # Feng et al., section 5.2; the mean of 112 is in the abstract too.
        "LaBSE": MappingProxyType({"14": 0.953, "36": 0.950, "112": 0.837}),
        # Mao and Nakagawa, https://arxiv.org/abs/2302.08387
        "LEALLA-large": MappingProxyType({"112": 0.835}),
        "LEALLA-base": MappingProxyType({"112": 0.824}),
        "LEALLA-small": MappingProxyType({"112": 0.807}),
        # Artetxe and Schwenk, as the abstract of Feng et al. gives it.
        "LASER": MappingProxyType({"112": 0.655}),
    }
)

TATOEBA_FILE = re.compile(rf"tatoeba\.([a-z]{{2,3}})-eng\.([a-z]{{2,3}}){COMPRESSED}")


class GroupMean(NamedTuple):
    """Mean accuracy over the languages of a group that were measured.

    Attributes:
        mean: 0 to 1; None where no language of the group was measured.
        present: how many languages of the group were measured.
        size: how many languages the group has. Only a mean with `present == size`
            compares with a published one.
    """

    mean: float | None
    present: int
    size: int


@dataclass(frozen=True)
class TatoebaResult(RetrievalResult):
    """Accuracy on Tatoeba a language, 0 to 1, by canonical code."""

    task: ClassVar[str] = "tatoeba"
    title: ClassVar[str] = "Tatoeba"

    @property
    def group_means(self) -> dict[str, GroupMean]:
        """Means over the groups of 14, 36 and 112 languages."""
        accuracy = self.accuracy
        means = {}
        for name, group in TATOEBA_GROUPS.items():
            present = [accuracy[code] for code in group if code in accuracy]
            mean = float(np.mean(present)) if present else None
            means[name] = GroupMean(mean, len(present), len(group))
        return means

    def _notes(self) -> list[tuple[str, float, str]]:
        """The paper's groups, as far as they were measured."""
        notes = []
        for name, (mean, present, size) in self.group_means.items():
            if mean is None:
                continue
            if present < size:
                title = f"{present} of the paper's {size}"
                notes.append((title, mean, "(incomplete: no comparison)"))
                continue
            title = f"{size} languages of the paper"
            labse = (
                f"(LaBSE in the paper: {100 * TATOEBA_PUBLISHED['LaBSE'][name]:.1f})"
            )
            notes.append((title, mean, labse))
            notes += [
                (f"  published: {model}", value, "")
                for model, value in published(name).items()
                if model != "LaBSE"
            ]
        return notes

    def to_dict(self) -> dict[str, Any]:
        """As `RetrievalResult.to_dict`, with the means of the paper's groups.

        Returns:
            `"groups": {name: {"mean", "present", "size", "published"}}` in addition.
        """
        groups = {
            name: {**mean._asdict(), "published": published(name)}
            for name, mean in self.group_means.items()
        }
        return {**super().to_dict(), "groups": groups}


def published(group: str) -> dict[str, float]:
    """Published means over a group of `TATOEBA_GROUPS`, LaBSE's first.

    Args:
        group: "14", "36" or "112".

    Returns:
        Model -> mean accuracy, 0 to 1.

    Example:
        >>> published("36")
        {'LaBSE': 0.95}
    """
    return {
        model: means[group]
        for model, means in TATOEBA_PUBLISHED.items()
        if group in means
    }


def tatoeba(
    encode: Encoder,
    folder: str | os.PathLike[str],
    languages: str | Iterable[str] | None = None,
    *,
    trained: Iterable[str] | None = None,
    block_size: int = 1024,
    progress: Progress = None,
) -> TatoebaResult:
    """Measures how often a sentence's nearest neighbour is its translation.

    The folder has LASER's layout: `tatoeba.XXX-eng.XXX` and `tatoeba.XXX-eng.eng`,
    one sentence a line, line i of one file the translation of line i of the other.
    The neighbour is by cosine, among the sentences of the same pair of files; for
    ties see `translation_accuracy`. Each distinct sentence is encoded once, also
    where many languages translate the same English sentence.

    Args:
        encode: from a list of strings to `(n, D)`; the rows need not be unit vectors.
        folder: where the files are.
        languages: codes (any spelling); "14", "36" and "112" stand for a group of the
            paper; all languages of the folder where None.
        trained: languages that the encoder was trained on, to report the others apart.
        block_size: rows that are compared at a time; it bounds memory and does not
            change the result.
        progress: see `labse_tf.progress`; counts sentences.

    Returns:
        Accuracy both ways a language, in the order of the request (of the codes where
        all are measured), with means.

    Raises:
        OSError: the folder or a file cannot be read.
        ValueError: a language is not there or has one file only, the files of a
            language differ in length or are not UTF-8, or `encode` gives anything but
            one finite row a sentence.

    Example:
        >>> result = tatoeba(model.encode, "tatoeba", ["hi", "ta"])  # doctest: +SKIP
        >>> result.mean_accuracy  # doctest: +SKIP
        0.914

    References:
        - Artetxe and Schwenk, https://arxiv.org/abs/1812.10464
    """
    # All files are read before the first sentence is encoded, which may take hours.
    pairs = tatoeba_pairs(folder, languages)
    result = retrieval(
        encode, pairs, trained=trained, block_size=block_size, progress=progress
    )
    return TatoebaResult(result.forward, result.backward, result.counts, result.trained)


def tatoeba_pairs(
    folder: str | os.PathLike[str], languages: str | Iterable[str] | None = None
) -> dict[str, tuple[list[str], list[str]]]:
    """Reads Tatoeba's files in LASER's layout.

    Args:
        folder: where the files are.
        languages: as in `tatoeba`.

    Returns:
        Language -> English sentences and their translations, as `retrieval` and `xsim`
        take them.

    Raises:
        OSError: the folder or a file cannot be read.
        ValueError: a language is not there or has one file only, or the files of a
            language differ in length or are not UTF-8.
    """
    folder = Path(folder)
    files = _tatoeba_files(folder)
    if languages is None:
        codes = sorted(files)
    else:
        named = [languages] if isinstance(languages, str) else languages
        single = (code for name in named for code in TATOEBA_GROUPS.get(name, (name,)))
        codes = list(dict.fromkeys(language_code(code) for code in single))
        if not codes:
            raise ValueError("languages must name at least one. Received: none")
        missing = [code for code in codes if code not in files]
        if missing:
            raise ValueError(
                f"languages that {folder} has no files of; it has "
                f"{' '.join(sorted(files))}. Received: {' '.join(missing)}"
            )
    pairs = {}
    for code in codes:
        translations, english = _read_translations(*files[code])
        pairs[code] = english, translations
    return pairs


def _tatoeba_files(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Finds the two files of each language, by canonical code."""
    sides: dict[str, dict[str, Path]] = {}
    # os.listdir names the folder in the error where there is none.
    for name in sorted(os.listdir(folder)):
        match = TATOEBA_FILE.fullmatch(name)
        if match and match[2] in (match[1], "eng"):
            side = "eng" if match[2] == "eng" else "other"
            found = sides.setdefault(match[1], {})
            if side in found:
                raise ValueError(
                    f"{folder}: expected one file per language. "
                    f"Received: {found[side].name} and {name}"
                )
            found[side] = folder / name
    if not sides:
        raise ValueError(
            "folder must have files named tatoeba.XXX-eng.XXX and tatoeba.XXX-eng.eng. "
            f"Received: {folder}"
        )
    files: dict[str, tuple[Path, Path]] = {}
    for spelling, found in sides.items():
        if len(found) < 2:
            missing = spelling if "eng" in found else "eng"
            raise ValueError(
                f"{folder / f'tatoeba.{spelling}-eng.{missing}'} must be beside its "
                f"other half. Received: only {next(iter(found.values())).name}"
            )
        code = language_code(spelling)
        if code in files:
            raise ValueError(
                f"one pair of files a language is expected in {folder}. Received: "
                f"{files[code][0].name} and {found['other'].name}, both of {code!r}"
            )
        files[code] = (found["other"], found["eng"])
    return files


def _read_translations(source: Path, target: Path) -> tuple[list[str], list[str]]:
    """Reads two files whose lines are translations of each other."""
    sources, targets = [[line for _, line in read_lines(p)] for p in (source, target)]
    if len(sources) != len(targets):
        sides = sorted([(len(sources), source), (len(targets), target)])
        (fewer, short), (more, full) = sides
        expected = f"{more} lines, as in {full.name}"
        raise DataError(short, fewer + 1, expected, f"{fewer} lines")
    return sources, targets
