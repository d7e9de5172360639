"""Nearest-translation accuracy (P@1) on any pairs, and the result that it gives.

References:
    - Feng et al., section 5.1 (UN: the translation among all sentences of the other
      side), https://arxiv.org/abs/2007.01852
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from labse_tf.evaluation.languages import language_name
from labse_tf.evaluation.nearest import DistinctRows, Encoder, translation_accuracy
from labse_tf.evaluation.plots import new_figure, save_figure

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class RetrievalResult:
    """Accuracy of the nearest neighbour a language, 0 to 1.

    Attributes:
        forward: share of the sentences of a language whose nearest English sentence
            is their translation (XX -> en), by language.
        backward: the same for the English sentences (en -> XX).
        counts: number of sentence pairs.
    """

    forward: dict[str, float]
    backward: dict[str, float]
    counts: dict[str, int]

    task: ClassVar[str] = "retrieval"
    title: ClassVar[str] = "Retrieval"

    @property
    def accuracy(self) -> dict[str, float]:
        """Mean of both directions, by language."""
        return {
            code: (forward + self.backward[code]) / 2
            for code, forward in self.forward.items()
        }

    @property
    def mean_accuracy(self) -> float:
        """Mean over all measured languages, each with the same weight."""
        return float(np.mean(list(self.accuracy.values())))

    def table(self) -> str:
        """Writes the result as text, per cent, best language first."""
        codes = _best_first(self.accuracy)
        names = [language_name(code) for code in codes]
        notes = self._notes()
        width = max(map(len, (*names, "mean of 000 languages", *(n[0] for n in notes))))
        head = f"{'code':<9}{'language':<{width}}  pairs  XX->en  en->XX    mean"
        lines = [head, "-" * len(head)]
        for code, name in zip(codes, names, strict=True):
            forward, backward = self.forward[code], self.backward[code]
            lines.append(
                f"{code:<9}{name:<{width}}{self.counts[code]:7d}{forward:8.1%}"
                f"{backward:8.1%}{self.accuracy[code]:8.1%}".replace("%", " ")
            )
        lines.append("-" * len(head))
        pairs = sum(self.counts.values())
        title = f"mean of {len(codes)} language" + ("s" if len(codes) > 1 else "")
        means = (
            float(np.mean(list(self.forward.values()))),
            float(np.mean(list(self.backward.values()))),
            self.mean_accuracy,
        )
        row = "".join(f"{mean:8.1%}" for mean in means).replace("%", " ")
        lines.append(f"{title:<{9 + width}}{pairs:7d}{row}")
        for title, mean, note in notes:
            value = f"{mean:8.1%}".replace("%", " ")
            lines.append(f"{title:<{9 + width}}{'':23}{value} {note}")
        return "\n".join(line.rstrip() for line in lines)

    def _notes(self) -> list[tuple[str, float, str]]:
        """Further means below the table: title, value, remark."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """Gives the result as what `json.dump` takes.

        Returns:
            `{"task": str, "mean_accuracy": float, "languages": {code: {"name",
            "pairs", "forward", "backward", "accuracy"}}}`.
        """
        return {
            "task": self.task,
            "mean_accuracy": self.mean_accuracy,
            "languages": {
                code: {
                    "name": language_name(code),
                    "pairs": self.counts[code],
                    "forward": self.forward[code],
                    "backward": self.backward[code],
                    "accuracy": accuracy,
                }
                for code, accuracy in self.accuracy.items()
            },
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Makes a result from what `to_dict` gave.

        Args:
            values: the dict, from JSON for instance.

        Returns:
            The result.

        Raises:
            ValueError: `values` does not come from `to_dict` of this class.
        """
        if values.get("task") != cls.task:
            raise ValueError(
                f"values must come from {cls.__name__}.to_dict and have the task "
                f"{cls.task!r}. Received: task={values.get('task')!r}"
            )
        rows = values["languages"]
        return cls(
            forward={code: row["forward"] for code, row in rows.items()},
            backward={code: row["backward"] for code, row in rows.items()},
            counts={code: row["pairs"] for code, row in rows.items()},
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws a horizontal bar a language, best on top.

        Args:
            path: the PNG file to write.

        Raises:
            ImportError: matplotlib is not installed.
            OSError: the file cannot be written.
        """
        accuracy = self.accuracy
        codes = _best_first(accuracy)
        bars = [100 * accuracy[code] for code in codes]
        rows = range(len(codes))
        figure = new_figure(8, 1.3 + 0.19 * len(codes))
        axes = figure.add_subplot()
        axes.barh(rows, bars, height=0.72, color="#9ecae1", label="mean")
        for values, marker, label in (
            (self.forward, ">", "XX to en"),
            (self.backward, "<", "en to XX"),
        ):
            axes.scatter(
                [100 * values[code] for code in codes],
                rows,
                s=9,
                marker=marker,
                color="#08519c" if marker == ">" else "#e6550d",
                label=label,
                zorder=3,
                clip_on=False,
            )
        for row, value in zip(rows, bars, strict=True):
            axes.text(101.5, row, f"{value:.1f}", va="center", fontsize=7)
        labels = [f"{language_name(code)}  {code}" for code in codes]
        axes.set_yticks(rows, labels=labels, fontsize=7)
        axes.set_ylim(len(codes) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.set_xlabel("accuracy, per cent", fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        count = f"{len(codes)} language" + ("s" if len(codes) > 1 else "")
        axes.set_title(
            f"{self.title}, mean accuracy {100 * self.mean_accuracy:.1f} over {count}",
            fontsize=10,
            pad=22,
        )
        axes.legend(
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            bbox_transform=axes.transAxes,
            ncol=3,
            fontsize=7,
            frameon=False,
            borderaxespad=0.2,
        )
        save_figure(figure, path)


def retrieval(
    encode: Encoder,
    pairs: Mapping[str, tuple[Sequence[str], Sequence[str]]],
    *,
    block_size: int = 1024,
    progress: Callable[[str, int, int], None] | None = None,
) -> RetrievalResult:
    """Measures how often a sentence's nearest neighbour is its translation.

    The candidates of a sentence are all sentences of the other side of its language.
    For ties see `translation_accuracy`: of several copies of a sentence only the
    first can be right, so leave duplicates out where there are any. Each distinct
    sentence is encoded once, also where many languages share English sentences.

    Args:
        encode: from a list of strings to `(n, D)`; the rows need not be unit vectors.
        pairs: language -> (English sentences, their translations), as long as each
            other.
        block_size: rows that are compared at a time; it bounds memory and does not
            change the result.
        progress: called after each language with its code, the number of languages
            done and the number of all.

    Returns:
        Accuracy both ways a language, in the order of `pairs`.

    Raises:
        ValueError: there is no language or a language without pairs, the sides of a
            language differ in length, or `encode` gives anything but one finite row a
            sentence.

    Example:
        >>> import numpy as np
        >>> from labse_tf.evaluation import retrieval
        >>> def encode(sentences):
        ...     return np.array([[len(s), 1.0] for s in sentences])
        >>> retrieval(encode, {"de": (["a", "one"], ["A", "Eins"])}).accuracy
        {'de': 1.0}
    """
    if not pairs:
        raise ValueError("pairs must have at least one language. Received: none")
    for code, sides in pairs.items():
        sizes = [len(side) for side in sides]
        if len(sizes) != 2 or sizes[0] != sizes[1] or not sizes[0]:
            raise ValueError(
                f"pairs[{code!r}] must be two lists of the same length, with one "
                f"sentence at least. Received: lengths {sizes}"
            )
    english = DistinctRows(encode)
    forward, backward, counts = {}, {}, {}
    for done, (code, (target, source)) in enumerate(pairs.items(), 1):
        source_vectors = DistinctRows(encode)(source, what=f"{code} sentences")
        target_vectors = english(target, what=f"English sentences of {code}")
        if source_vectors.shape[1] != target_vectors.shape[1]:
            raise ValueError(
                "encode must give vectors of one length. Received: "
                f"{source_vectors.shape[1]} for {code} and {target_vectors.shape[1]} "
                "for English"
            )
        forward[code], backward[code] = translation_accuracy(
            source_vectors, target_vectors, block_size=block_size
        )
        counts[code] = len(source)
        if progress is not None:
            progress(code, done, len(pairs))
    return RetrievalResult(forward, backward, counts)


def _best_first(accuracy: Mapping[str, float]) -> list[str]:
    """Sorts codes by accuracy, those of the same one by code."""
    return sorted(accuracy, key=lambda code: (-accuracy[code], code))
