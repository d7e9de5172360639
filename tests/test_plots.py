"""Plots: labels in all scripts, ticks and titles that say what is drawn."""

from __future__ import annotations

import html.parser
import warnings

import numpy as np
import pytest

from helpers.errors import raises
from labse_tf import plots
from labse_tf.evaluation import RetrievalResult, StsResult, XsimResult
from labse_tf.html_page import Page

ROWS = ["नमस्ते दुनिया", "<Hello> & goodbye"]
COLUMNS = ["வணக்கம்", "世界", "en"]


@pytest.fixture
def figures(monkeypatch):
    """The figures instead of files."""
    pytest.importorskip("matplotlib")
    drawn = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: drawn.append(figure))
    return drawn


class Cells(html.parser.HTMLParser):
    """The texts of a page by their element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.open = [""]
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_data(self, data):
        self.found.append((self.open[-1], data))


def test_similarity_as_html_needs_no_font_and_no_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "new_figure", None)
    cosines = [[0.25, -0.5, 1.0], [0.125, 0.75, 0.0]]
    path = tmp_path / "new" / "map.html"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.plot_similarity(cosines, path, rows=ROWS, columns=COLUMNS)
    text = path.read_text(encoding="utf-8")
    cells = Cells(text).found
    assert [data for tag, data in cells if tag == "th" and data.strip()] == COLUMNS
    shown = [data for tag, data in cells if tag == "td" and data.strip()]
    assert shown == [ROWS[0], "0.25", "-0.50", "1.00", ROWS[1], "0.12", "0.75", "0.00"]
    assert "http" not in text
    with raises(ValueError, "(2, 1)"):
        plots.plot_similarity(cosines, path, rows=ROWS, columns=["en"])


def test_letters_without_a_font_are_named_once(figures):
    unassigned = "\U000e0fff"  # No font has this letter.
    with pytest.warns(UserWarning, match=r"\.html") as caught:
        plots.plot_similarity([[0.5]], "x.png", rows=[unassigned], columns=["en"])
    assert len(caught) == 1 and unassigned in str(caught[0].message)


def test_letters_are_taken_from_another_installed_font(figures):
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    find = font_manager.fontManager.findfont
    other = set(FT2Font(find("STIXGeneral")).get_charmap())
    letter = chr(min(other - set(FT2Font(find("DejaVu Sans")).get_charmap())))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.plot_similarity([[0.5]], "x.png", rows=[letter], columns=["en"])
    (figure,) = figures
    (label,) = figure.axes[0].get_yticklabels()
    assert label.get_text() == letter and len(label.get_fontfamily()) == 2


@pytest.mark.parametrize(
    "counts", [[30, 25, 22], [240_000, 52_000, 900, 4], [1], list(range(300, 0, -1))]
)
def test_the_ticks_of_shares_are_plain_numbers(figures, counts):
    shares = np.asarray(counts) / sum(counts)
    names = [f"l{i}" for i in range(len(counts))]
    plots.plot_shares("x.png", labels=names, before=shares, after=shares)
    figures[0].canvas.draw()
    axes = figures[0].axes[0]
    low, high = axes.get_ylim()
    ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    shown = {place: label.get_text() for place, label in ticks if low <= place <= high}
    assert len(shown) >= 2
    for place, text in shown.items():
        assert float(text) == pytest.approx(place) and "e" not in text
    assert not any(label.get_text() for label in axes.get_yticklabels(minor=True))


def test_the_model_is_in_the_title(figures):
    from labse_tf.evaluation.sts import StsScores

    shares = {"hi": 0.5}
    for kind in (RetrievalResult, XsimResult):
        kind(shares, shares, {"hi": 2}).plot("x.png", model="labse-mini")
    StsResult({"en": StsScores(3, 0.5, 0.5, 0.5, 0.5)}).plot(
        "x.png", model="labse-mini"
    )
    assert len(figures) == 3
    for figure in figures:
        title = figure.axes[0].get_title()
        assert title.startswith("labse-mini: ")


def test_a_page_is_one_file():
    page = Page("a < b")
    page.heading("part & part")
    page.picture(b"\x89PNG", 'the "plot"')
    page.block("1  2\n3  4")
    text = page.text()
    assert "<title>a &lt; b</title>" in text and "part &amp; part" in text
    assert 'src="data:image/png;base64,iVBORw=="' in text
    assert "<pre>1  2\n3  4</pre>" in text
