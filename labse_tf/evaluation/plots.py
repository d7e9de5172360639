"""Pictures of results. Matplotlib is needed by those who ask for one only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """Makes a figure without pyplot: no window system, no state shared with others.

    Args:
        width: in inches.
        height: in inches.

    Returns:
        A `matplotlib.figure.Figure` that draws to PNG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "a plot needs matplotlib: pip install 'labse-tf[plots]'"
        ) from error
    figure = Figure(figsize=(width, height), dpi=110)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure as PNG; the file appears whole or not at all.

    Args:
        figure: of `new_figure`.
        path: the file, in a folder that exists.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(unfinished, format="png", bbox_inches="tight")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def plot_similarity(
    cosines: Any,
    path: str | os.PathLike[str],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str = "Cosine similarity",
) -> None:
    """Draws a matrix of cosines as a heat map, the value in each cell.

    Args:
        cosines: `(n, m)`, from -1 to 1, such as `model.similarity` gives.
        path: the PNG file to write.
        rows: n labels. Matplotlib's own font has no Indic or East Asian letters: use
            codes or names of languages.
        columns: m labels.
        title: above the map.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
        ValueError: the labels do not fit the matrix.
    """
    matrix = np.asarray(cosines, dtype=np.float32)
    if matrix.shape != (len(rows), len(columns)) or not matrix.size:
        raise ValueError(
            f"cosines must have the shape ({len(rows)}, {len(columns)}), as many rows "
            f"and columns as there are labels. Received: {matrix.shape}"
        )
    figure = new_figure(2.2 + 0.62 * len(columns), 1.6 + 0.36 * len(rows))
    axes = figure.add_subplot()
    image = axes.imshow(matrix, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for (row, column), value in np.ndenumerate(matrix):
        axes.text(
            column,
            row,
            f"{value:.2f}",
            ha="center",
            va="center",
            fontsize=7,
            color="white" if value > 0.6 else "#222222",
        )
    axes.set_xticks(
        range(len(columns)), labels=columns, rotation=30, ha="right", fontsize=7
    )
    axes.set_yticks(range(len(rows)), labels=rows, fontsize=7)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02).ax.tick_params(labelsize=7)
    axes.set_title(title, fontsize=10)
    save_figure(figure, path)
