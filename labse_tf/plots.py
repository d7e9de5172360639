"""Plots of results, as PNG files; `plot_similarity` also as HTML.

Matplotlib is imported when a plot is drawn; the module imports without it. All `plot_*`
functions raise `ImportError` if matplotlib is not installed and `OSError` if the file
cannot be written.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from labse_tf.files import atomic_file, write_text
from labse_tf.html_page import Page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BAR_COLORS = ("#9ecae1", "#fdd0a2")
_MARKS = ((">", "#08519c"), ("<", "#e6550d"))


def new_figure(width: float, height: float) -> Figure:
    """Create a figure without pyplot, so without a window system or global state.

    Args:
        width: Width in inches.
        height: Height in inches.

    Raises:
        ImportError: If matplotlib is not installed.
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
    """Write a figure as PNG, atomically; create the directory if needed."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight")


def _hide_frame(axes: Axes) -> None:
    """Hide the top and right lines of the frame."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def plot_similarity(
    cosines: Any,
    path: str | os.PathLike[str],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str = "Cosine similarity",
) -> None:
    """Draw a matrix of cosines as a heat map with the value in each cell.

    Letters that matplotlib's font lacks are taken from another installed font. An HTML
    file needs neither fonts nor matplotlib: the browser shapes the labels.

    Args:
        cosines: `(n, m)`, from -1 to 1, the result of `model.similarity`.
        path: The file to write, a PNG, or HTML if its name ends with `.html`.
        rows: `n` labels. If no installed font has their letters, a PNG shows boxes,
            and a warning names the letters.
        columns: `m` labels.
        title: Title above the map.

    Raises:
        ValueError: If the labels do not match the matrix.
    """
    matrix = np.asarray(cosines, dtype=np.float32)
    if matrix.shape != (len(rows), len(columns)) or not matrix.size:
        raise ValueError(
            f"`cosines` must have the shape ({len(rows)}, {len(columns)}), one row "
            f"and one column per label. Received: {matrix.shape}"
        )
    if Path(path).suffix == ".html":
        _write_similarity_page(matrix, path, rows, columns, title)
        return
    figure = new_figure(2.2 + 0.62 * len(columns), 1.6 + 0.36 * len(rows))
    axes = figure.add_subplot()
    fonts = _fonts_for([*rows, *columns, title])
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
        range(len(columns)),
        labels=columns,
        rotation=30,
        ha="right",
        fontsize=7,
        fontfamily=fonts,
    )
    axes.set_yticks(range(len(rows)), labels=rows, fontsize=7, fontfamily=fonts)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02).ax.tick_params(labelsize=7)
    axes.set_title(title, fontsize=10, fontfamily=fonts)
    with warnings.catch_warnings():
        # `_fonts_for` has warned once, instead of once per letter.
        warnings.filterwarnings("ignore", "Glyph")
        save_figure(figure, path)


def _write_similarity_page(
    matrix: np.ndarray,
    path: str | os.PathLike[str],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
) -> None:
    """Write a matrix of cosines as a colored table."""
    page = Page(title)
    cells = [
        [row, *(f"{value:.2f}" for value in values)]
        for row, values in zip(rows, matrix, strict=True)
    ]
    # The color of the bars, more opaque for larger cosines.
    colors = [
        [None, *(f"rgb(49 130 189 / {min(max(v, 0), 1) * 0.7:.0%})" for v in values)]
        for values in matrix
    ]
    page.table(["", *columns], cells, numbers=range(1, len(columns) + 1), colors=colors)
    write_text(path, page.text())


def _fonts_for(texts: Sequence[str]) -> list[str]:
    """Return font families that together have all letters of some texts.

    The first is matplotlib's default. Before version 3.11 matplotlib does not shape
    letters, so fonts help for scripts without combining forms only.
    """
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    fonts = font_manager.fontManager
    default = font_manager.FontProperties().get_name()
    families = [default]
    letters = {ord(letter) for letter in "".join(texts) if not letter.isspace()}
    letters -= set(FT2Font(fonts.findfont(default)).get_charmap())
    for entry in fonts.ttflist if letters else ():
        if not letters:
            break
        if "Last Resort" in entry.name:  # Its letters are all boxes.
            continue
        try:
            found = letters & set(FT2Font(entry.fname).get_charmap())
        except (OSError, RuntimeError):  # A listed font that is gone or damaged.
            continue
        if found:
            families.append(entry.name)
            letters -= found
    if letters:
        shown = "".join(map(chr, sorted(letters)[:10]))
        warnings.warn(
            f"No installed font has the letters {shown}: the plot shows boxes. Install "
            "a font such as Noto Sans, or give a file name that ends with .html",
            UserWarning,
            stacklevel=3,
        )
    return families


def plot_bars(
    path: str | os.PathLike[str],
    *,
    labels: Sequence[str],
    bars: Mapping[str, Sequence[float | None]],
    marks: Mapping[str, Sequence[float]],
    title: str,
    axis: str,
) -> None:
    """Draw one horizontal bar per label, the first at the top, with marks on it.

    Args:
        path: The PNG file to write.
        labels: `n` labels, to the left of the bars.
        bars: Name -> `n` lengths in percent, one color per name; `None` if a bar
            belongs to another name.
        marks: Name -> `n` positions in percent, at most two names.
        title: Title above the chart.
        axis: Label of the horizontal axis.
    """
    figure = new_figure(8, 1.3 + 0.19 * len(labels))
    axes = figure.add_subplot()
    shortest = 0.0
    for (name, lengths), color in zip(bars.items(), _BAR_COLORS, strict=False):
        rows = [row for row, length in enumerate(lengths) if length is not None]
        there = [length for length in lengths if length is not None]
        shortest = min(shortest, *there) if there else shortest
        axes.barh(rows, there, height=0.72, color=color, label=name)
        for row, length in zip(rows, there, strict=True):
            axes.text(101.5, row, f"{length:.1f}", va="center", fontsize=7)
    for (name, places), (marker, color) in zip(marks.items(), _MARKS, strict=False):
        axes.scatter(
            places,
            range(len(labels)),
            s=9,
            marker=marker,
            color=color,
            label=name,
            zorder=3,
            clip_on=False,
        )
        shortest = min(shortest, *places)
    axes.set_yticks(range(len(labels)), labels=labels, fontsize=7)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlim(shortest, 100)
    axes.set_xlabel(axis, fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    _hide_frame(axes)
    axes.set_title(title, fontsize=10, pad=22)
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        bbox_transform=axes.transAxes,
        ncol=4,
        fontsize=7,
        frameon=False,
        borderaxespad=0.2,
    )
    save_figure(figure, path)


class PrecisionRecall(NamedTuple):
    """Precision-recall curve.

    Attributes:
        label: Label of the curve.
        points: Recall and precision, 0 to 1, from the highest threshold to the lowest.
        mark: Recall and precision at the threshold that is used.
    """

    label: str
    points: Sequence[tuple[float, float]]
    mark: tuple[float, float]


def plot_precision_recall(
    panels: Mapping[str, Sequence[PrecisionRecall]],
    path: str | os.PathLike[str],
    *,
    title: str,
) -> None:
    """Draw precision against recall, with a mark at the threshold.

    Args:
        panels: Name of a panel -> its curves.
        path: The PNG file to write.
        title: Title above all panels.

    Raises:
        ValueError: If there are no panels, or a panel has no curves.
    """
    if not panels or not all(panels.values()):
        raise ValueError("`panels` must have at least one curve each. Received: none")
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(4.4 * columns, 4.6 * rows + 0.4)
    colors = ("#08519c", "#e6550d", "#31a354", "#756bb1", "#636363", "#d6279c")
    for place, (name, curves) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, columns, place)
        for number, curve in enumerate(curves):
            color = colors[number % len(colors)]
            recall, precision = (
                [100 * point[side] for point in curve.points] for side in (0, 1)
            )
            axes.plot(recall, precision, color=color, linewidth=1.2, label=curve.label)
            axes.plot(
                [100 * curve.mark[0]],
                [100 * curve.mark[1]],
                marker="o",
                markersize=6,
                color=color,
                markeredgecolor="white",
                clip_on=False,
                zorder=3,
            )
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_xlabel("recall, %", fontsize=8)
        axes.set_ylabel("precision, %", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        _hide_frame(axes)
        axes.set_title(name, fontsize=9)
        # Below the axes: the free space inside depends on the curves.
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.14),
            ncol=2,
            fontsize=7,
            frameon=False,
        )
    figure.suptitle(f"{title}; the threshold is marked", fontsize=10)
    figure.tight_layout()
    save_figure(figure, path)


def plot_histogram(
    counts: Sequence[int],
    edges: Sequence[float],
    threshold: float,
    path: str | os.PathLike[str],
    *,
    score: str = "cosine",
) -> None:
    """Draw the number of pairs per score, with the threshold.

    Args:
        counts: Number of pairs in each interval, `(n,)`.
        edges: Edges of the intervals, `(n + 1,)`, ascending.
        threshold: The lowest score that is kept.
        path: The PNG file to write.
        score: Name of the score.
    """
    filled = np.flatnonzero(counts)
    figure = new_figure(7, 3.2)
    axes = figure.add_subplot()
    middles = (np.asarray(edges[1:]) + np.asarray(edges[:-1])) / 2
    kept = middles >= threshold
    for chosen, color, label in (
        (~kept, _BAR_COLORS[1], "dropped"),
        (kept, _BAR_COLORS[0], "kept"),
    ):
        axes.bar(
            middles[chosen],
            np.asarray(counts)[chosen],
            width=np.diff(edges)[chosen],
            color=color,
            label=label,
        )
    axes.axvline(threshold, color="#08519c", linewidth=1)
    axes.text(threshold, 1.02, f"{threshold:.3f}", transform=axes.get_xaxis_transform())
    if len(filled):
        axes.set_xlim(edges[filled[0]] - 0.02, edges[filled[-1] + 1] + 0.02)
    axes.set_xlabel(score)
    axes.set_ylabel("pairs")
    axes.legend(frameon=False)
    _hide_frame(axes)
    save_figure(figure, path)


def plot_shares(
    path: str | os.PathLike[str],
    *,
    labels: Sequence[str],
    before: Sequence[float],
    after: Sequence[float],
) -> None:
    """Draw the share of each language in the text and in the batches.

    Args:
        path: The PNG file to write.
        labels: `n` languages, by amount of text, descending.
        before: `n` shares of the text, 0 to 1.
        after: `n` shares of the batches, 0 to 1.
    """
    figure = new_figure(min(14.0, 3 + 0.16 * len(labels)), 3.4)
    axes = figure.add_subplot()
    places = np.arange(len(labels))
    axes.bar(places, 100 * np.asarray(before), color=_BAR_COLORS[0], label="text")
    axes.plot(
        places, 100 * np.asarray(after), color=_MARKS[1][1], marker=".", label="batches"
    )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(
        lambda value, _: np.format_float_positional(value, precision=9, trim="-")
    )
    shares = 100 * np.asarray([*before, *after])
    shares = shares[shares > 0]
    if len(shares) and shares.max() < 10 * shares.min():
        # Within a factor of 10 a logarithmic axis has one named tick at most.
        axes.set_yscale("linear")
        axes.set_ylim(bottom=0)
    axes.yaxis.set_minor_formatter("")
    # If not all names fit, show every n-th name.
    step = -(-len(labels) // 80)
    axes.set_xticks(places[::step], labels=labels[::step], rotation=90, fontsize=7)
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.set_ylabel("share, %", fontsize=8)
    axes.tick_params(axis="y", labelsize=7)
    axes.legend(frameon=False, fontsize=8)
    _hide_frame(axes)
    save_figure(figure, path)


def plot_paths(
    path: str | os.PathLike[str],
    *,
    paths: Sequence[Any],
    labels: Sequence[str],
    axis: str,
) -> None:
    """Draw the paths of alignments, one panel per pair of documents.

    Vertical and horizontal parts are sentences without a translation.

    Args:
        path: The PNG file to write.
        paths: For each pair `(p, 2)`, numbers of source and target sentences before
            each step.
        labels: Name of each target.
        axis: Name of the source.

    Raises:
        ValueError: If there is not one label per path.
    """
    if len(paths) != len(labels) or not len(paths):
        raise ValueError(
            "`paths` and `labels` must have the same length, at least 1. "
            f"Received: {len(paths)} and {len(labels)}"
        )
    figure = new_figure(4.2 * len(paths), 4.2)
    for column, (nodes, label) in enumerate(zip(paths, labels, strict=True), 1):
        steps = np.asarray(nodes)
        axes = figure.add_subplot(1, len(paths), column)
        axes.plot(steps[:, 0], steps[:, 1], color=_MARKS[0][1], linewidth=1)
        deleted = np.flatnonzero((np.diff(steps, axis=0) == 0).any(axis=1))
        axes.plot(
            *(steps[deleted].T),
            color=_MARKS[1][1],
            marker=".",
            markersize=3,
            linestyle="none",
            label=f"{len(deleted):,} without a translation",
        )
        axes.set_xlabel(axis, fontsize=8)
        axes.set_ylabel(label, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.legend(frameon=False, fontsize=7)
        _hide_frame(axes)
    figure.tight_layout()
    save_figure(figure, path)
