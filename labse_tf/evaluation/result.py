"""The interface of every test result: its means, a table, a dict and a plot."""

from __future__ import annotations

import os
from typing import Any, ClassVar, NamedTuple, Protocol


class Score(NamedTuple):
    """A mean over languages, which is one row of a report's summary.

    Attributes:
        measure: Name of the measure, such as `"accuracy, zero-shot"`.
        languages: Number of languages.
        mean: 0 to 1, or -1 to 1 for correlations.
    """

    measure: str
    languages: int
    mean: float


class Result(Protocol):
    """A result that `labse-tf evaluate` prints and a report contains.

    `RetrievalResult`, `TatoebaResult`, `XsimResult`, `BuccResult`, `BuccReport` and
    `StsResult` are results.

    Attributes:
        task: Name of the test, as in `to_dict()["task"]`.
    """

    task: ClassVar[str]

    def scores(self) -> list[Score]:
        """Return the means, most important first."""

    def table(self) -> str:
        """Return the result as text, in percent or correlations times 100."""

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a dict for `json.dump`."""

    def plot(self, path: str | os.PathLike[str], *, model: str | None = None) -> None:
        """Plot the result.

        Args:
            path: PNG file to write.
            model: Name of the model, for the title.

        Raises:
            ImportError: If matplotlib is not installed.
            OSError: If the file cannot be written.
        """


def titled(model: str | None, title: str) -> str:
    """Return the title of a plot, with the name of the model if it is known."""
    return f"{model}: {title}" if model else title
