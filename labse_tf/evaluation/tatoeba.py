"""Tatoeba: the test of 112 languages, with the paper's groups and published results.

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
from labse_tf.languages import chosen_languages, language_code
from labse_tf.progress import Progress
from labse_tf.text import COMPRESSED, DataError, read_lines
from labse_tf.text.plausibility import Plausibility

# 14: the languages of XNLI without English. 36: the languages of XTREME's Tatoeba task.
# 112: all files of LASER's release. The paper's group of 82 is omitted on purpose: its
# list of languages was not found, and a mean over a guessed list is not comparable.
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

# Published mean accuracy over a group. Only numbers that were checked at their source
# are included, so the groups of 14 and 36 of LASER and m~USE are missing.
TATOEBA_PUBLISHED: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        # Feng et al., section 5.2; the mean of 112 is also in the abstract.
        "LaBSE": MappingProxyType({"14": 0.953, "36": 0.950, "112": 0.837}),
        # Mao and Nakagawa, https://arxiv.org/abs/2302.08387
        "LEALLA-large": MappingProxyType({"112": 0.835}),
        "LEALLA-base": MappingProxyType({"112": 0.824}),
        "LEALLA-small": MappingProxyType({"112": 0.807}),
        # Artetxe and Schwenk, as reported in the abstract of Feng et al.
        "LASER": MappingProxyType({"112": 0.655}),
    }
)

TATOEBA_FILE = re.compile(rf"tatoeba\.([a-z]{{2,3}})-eng\.([a-z]{{2,3}}){COMPRESSED}")


class GroupMean(NamedTuple):
    """Mean accuracy over the measured languages of a group.

    Attributes:
        mean: 0 to 1, or `None` if no language of the group was measured.
        present: Number of measured languages of the group.
        size: Number of languages of the group. Only a mean with `present == size` is
            comparable with a published mean.
    """

    mean: float | None
    present: int
    size: int


@dataclass(frozen=True)
class TatoebaResult(RetrievalResult):
    """Accuracy on Tatoeba for each language, 0 to 1, by canonical code."""

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
        """Return the means over the paper's groups, if measured."""
        notes = []
        for name, (mean, present, size) in self.group_means.items():
            if mean is None:
                continue
            if present < size:
                title = f"{present} of the paper's {size}"
                notes.append((title, mean, "(incomplete: not comparable)"))
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
        """Return `RetrievalResult.to_dict` with the means of the paper's groups.

        Returns:
            Additionally `"groups": {name: {"mean", "present", "size", "published"}}`.
        """
        groups = {
            name: {**mean._asdict(), "published": published(name)}
            for name, mean in self.group_means.items()
        }
        return {**super().to_dict(), "groups": groups}


def published(group: str) -> dict[str, float]:
    """Return published means over a group of `TATOEBA_GROUPS`, LaBSE first.

    Args:
        group: `"14"`, `"36"` or `"112"`.

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
    """Measure how often the nearest neighbor of a sentence is its translation.

    The folder has LASER's layout: `tatoeba.XXX-eng.XXX` and `tatoeba.XXX-eng.eng`, one
    sentence per line, where line i of one file is the translation of line i of the
    other. Neighbors are searched by cosine among the sentences of the same pair of
    files; see `translation_accuracy` for ties. Each distinct sentence is encoded once,
    also if many languages translate the same English sentence.

    Args:
        encode: Callable from a list of strings to vectors `(n, D)` of any norm.
        folder: Folder of the files.
        languages: Codes in any spelling; `"14"`, `"36"` and `"112"` select a group of
            the paper. If `None`, all languages of the folder.
        trained: See `retrieval`.
        block_size: See `retrieval`.
        progress: See `labse_tf.progress`. Counts sentences.

    Returns:
        Accuracy in both directions for each language and the means, in the order of
        `languages`, or sorted by code if `languages` is `None`.

    Raises:
        OSError: If the folder or a file cannot be read.
        ValueError: If a language is missing or has only one file, the files of a
            language differ in length or are invalid UTF-8, or `encode` does not return
            one finite row per sentence.

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
    """Read Tatoeba files in LASER's layout.

    Args:
        folder: Folder of the files.
        languages: See `tatoeba`.

    Returns:
        Language -> (English sentences, their translations), for `retrieval` and `xsim`.
        Warns (`DataWarning`) if the two files of a language seem not to be parallel.

    Raises:
        OSError: See `tatoeba`.
        ValueError: See `tatoeba`.
    """
    folder = Path(folder)
    if languages is not None:
        named = [languages] if isinstance(languages, str) else languages
        languages = [code for n in named for code in TATOEBA_GROUPS.get(n, (n,))]
    files = chosen_languages(_tatoeba_files(folder), languages, str(folder))
    pairs = {}
    for code, both in files.items():
        translations, english = _read_translations(*both)
        plausibility = Plausibility(both[1])
        for pair in zip(english, translations, strict=True):
            plausibility.add(*pair)
        plausibility.finish()
        pairs[code] = english, translations
    return pairs


def _tatoeba_files(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Find the two files of each language, by canonical code."""
    sides: dict[str, dict[str, Path]] = {}
    # If the folder does not exist, the error of os.listdir names it.
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
            "`folder` must have files named tatoeba.XXX-eng.XXX and "
            f"tatoeba.XXX-eng.eng. Received: {folder}"
        )
    files: dict[str, tuple[Path, Path]] = {}
    for spelling, found in sides.items():
        if len(found) < 2:
            missing = spelling if "eng" in found else "eng"
            raise ValueError(
                f"{folder / f'tatoeba.{spelling}-eng.{missing}'}: expected both files "
                f"of a language. Received: only {next(iter(found.values())).name}"
            )
        code = language_code(spelling)
        if code in files:
            raise ValueError(
                f"{folder}: expected one pair of files per language. Received: "
                f"{files[code][0].name} and {found['other'].name}, both of {code!r}"
            )
        files[code] = (found["other"], found["eng"])
    return files


def _read_translations(source: Path, target: Path) -> tuple[list[str], list[str]]:
    """Read two files whose lines are translations of each other."""
    sources, targets = [[line for _, line in read_lines(p)] for p in (source, target)]
    if len(sources) != len(targets):
        sides = sorted([(len(sources), source), (len(targets), target)])
        (fewer, short), (more, full) = sides
        expected = f"{more} lines, as in {full.name}"
        raise DataError(short, fewer + 1, expected, f"{fewer} lines")
    return sources, targets
