"""`labse-tf review`: reading, the page in a browser, and its marks in `filter`."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers.browser import DOWN, END, ESCAPE, Browser, opened_browser, wait_for
from helpers.command_line import fails, run
from helpers.errors import check_message
from labse_tf.cli import align, filter, mine, review
from labse_tf.html_page import json_in_html
from labse_tf.review import ReviewPair, read_review_pairs, review_page
from labse_tf.text import read_scored_pairs

HINDI = [
    ("Open the file.", "फ़ाइल खोलें।"),
    ("The password is too short.", "पासवर्ड बहुत छोटा है।"),
    ("Delete all messages?", "सभी संदेश हटाएँ?"),
]
EVIL = [
    ('</script><script>document.title = "broken"</script>', "<b>bold</b> & &amp;"),
    ("line\u2028separator\u2029here", "quotes \" and ' and \\ and `"),
    ("<!-- <script> not closed", "tab is a space"),
]


def encode(texts: list[str]) -> np.ndarray:
    """Vectors of which those of equal lengths are near."""
    seeds = [int(hashlib.md5(t.encode()).hexdigest()[:8], 16) for t in texts]
    noise = [np.random.default_rng(seed).normal(size=8) for seed in seeds]
    return np.array([[len(t), 5, *n] for t, n in zip(texts, noise, strict=True)])


@pytest.fixture(autouse=True)
def model(monkeypatch) -> None:
    for module in (review, filter):
        monkeypatch.setattr(module, "open_encoder", lambda options: encode)


def table(path: Path, lines: list[tuple[object, ...]]) -> Path:
    text = "".join("\t".join(map(str, line)) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


def data_of(path: Path) -> dict:
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="pairs">(.*?)</script>', text, re.S)[1])


# === Reading ===


def found(path: Path | str) -> list[tuple]:
    return [tuple(pair) for pair in read_review_pairs(path)]


def test_tables_with_scores_and_marks_at_either_end(tmp_path):
    plain = [(n, n + 1, *pair, ("en", "hi")) for n, pair in enumerate(HINDI)]
    scores = (0.25, -1.5, 1e-3)
    marks = ("good", "bad", "good")
    path = tmp_path / "en-hi.tsv"
    for lines, wanted_scores, wanted_marks in (
        (HINDI, (None,) * 3, ("",) * 3),
        ([(s, *p) for s, p in zip(scores, HINDI, strict=True)], scores, ("",) * 3),
        ([(*p, s) for s, p in zip(scores, HINDI, strict=True)], scores, ("",) * 3),
        ([(*p, m) for m, p in zip(marks, HINDI, strict=True)], (None,) * 3, marks),
        (
            [(s, *p, m) for s, p, m in zip(scores, HINDI, marks, strict=True)],
            scores,
            marks,
        ),
        # What mine writes: score, two line numbers, two texts.
        (
            [(s, 3, 4, *p) for s, p in zip(scores, HINDI, strict=True)],
            scores,
            ("",) * 3,
        ),
        ([("id", *p) for p in HINDI], (None,) * 3, ("",) * 3),
    ):
        wanted = [
            (*p, s, m)
            for p, s, m in zip(plain, wanted_scores, wanted_marks, strict=True)
        ]
        assert found(table(path, lines)) == wanted


def test_every_format_and_csv(tmp_path):
    objects = [{"en": a, "hi": b, "score": 0.5} for a, b in HINDI]
    lines = "".join(json.dumps(entry) + "\n" for entry in objects)
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(lines)
    po = "".join(f'#: x.py\nmsgid "{a}"\nmsgstr "{b}"\n\n' for a, b in HINDI)
    (tmp_path / "hi.po").write_text(po, encoding="utf-8")
    fields = "".join(f'"{a}","{b}",0.5\n' for a, b in HINDI)
    (tmp_path / "en-hi.csv").write_text(fields, encoding="utf-8")
    named = "id,hi,en,score\n" + "".join(f'7,"{b}","{a}",0.5\n' for a, b in HINDI)
    (tmp_path / "named.csv").write_text(named, encoding="utf-8")
    named = "target,source\n" + "".join(f'"{b}","{a}"\n' for a, b in HINDI)
    (tmp_path / "sides.csv").write_text(named, encoding="utf-8")
    for name, score, first_line, languages in (
        ("a.jsonl.gz", 0.5, 1, ("en", "hi")),
        ("hi.po", None, 2, ("en", "hi")),
        ("en-hi.csv", 0.5, 1, ("en", "hi")),
        ("named.csv", 0.5, 2, ("en", "hi")),
    ):
        pairs = list(read_review_pairs(tmp_path / name))
        assert [(p.source, p.target) for p in pairs] == HINDI, name
        assert {p.score for p in pairs} == {score}, name
        assert {p.languages for p in pairs} == {languages}, name
        assert pairs[0].line == first_line, name
    sides = list(read_review_pairs(tmp_path / "sides.csv"))
    assert [(p.source, p.target) for p in sides] == HINDI


def test_bad_lines_name_file_and_line(tmp_path, capsys):
    output = ("-o", tmp_path / "page.html")
    path = table(tmp_path / "a.tsv", [(0.5, "a", "b"), (0.25, "c", "d")] * 600)
    text = path.read_text(encoding="utf-8")
    path.write_text(text + "high\te\tf\n", encoding="utf-8")
    check_message(fails(capsys, "review", path, *output), path=path, line=1201)
    assert run("review", path, *output, "--on-error", "skip") == 0
    check_message(capsys.readouterr().err, "skipped", path=path, line=1201)
    path.write_text("a\tb\nonly one\n", encoding="utf-8")
    check_message(fails(capsys, "review", path, *output), path=path, line=2)
    path.write_text("\n", encoding="utf-8")
    check_message(fails(capsys, "review", path, *output), path=path, received=True)
    for flag in ("--limit", "--sample"):
        line = fails(capsys, "review", path, *output, flag, 0)
        check_message(line, argument=flag, received=0)


# === The page as a file ===


def test_worst_first_and_random(tmp_path, capsys):
    scores = np.random.default_rng(0).permutation(40) / 40
    lines = [(s, f"text {n}", f"TEXT {n}") for n, s in enumerate(scores)]
    path, output = table(tmp_path / "en-de.tsv", lines), tmp_path / "page.html"
    assert run("review", path, "-o", output, "--limit", 10) == 0
    order = np.argsort(scores)
    assert [p[0] for p in data_of(output)["pairs"]] == order[:10].tolist()
    check_message(capsys.readouterr().out, 10, 40, "0.225", output)
    shown = []
    for seed in (1, 1, 2):
        assert run("review", path, "-o", output, "--sample", 15, "--seed", seed) == 0
        shown.append([p[0] for p in data_of(output)["pairs"]])
        assert len(set(shown[-1])) == 15
        for row, score, source, *_ in data_of(output)["pairs"]:
            assert (score, source) == (round(scores[row], 6), f"text {row}")
    assert shown[0] == shown[1] != shown[2]


def test_scores_by_model_if_there_are_none_or_on_request(tmp_path):
    path, output = tmp_path / "en-hi.tsv", tmp_path / "page.html"
    vectors = [encode(list(pair)) for pair in HINDI]
    cosines = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in vectors]
    for lines, flags in ((HINDI, ()), ([(9, *p) for p in HINDI], ("--rescore",))):
        assert run("review", table(path, lines), "-o", output, *flags) == 0
        data = data_of(output)
        assert data["score"] == "cosine"
        found = {p[0]: p[1] for p in data["pairs"]}
        assert [found[n] for n in range(3)] == pytest.approx(cosines, abs=1e-6)
        assert [p[1] for p in data["pairs"]] == sorted(found.values())


@pytest.mark.parametrize("kind", ["tmx", "parquet", "jsonl"])
def test_scores_of_other_commands_are_not_computed_again(tmp_path, kind, monkeypatch):
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="the extra `parquet` is missing")
    table(tmp_path / "en-hi.tsv", HINDI)
    for name, path in zip(("en", "hi"), zip(*HINDI, strict=True), strict=True):
        (tmp_path / f"{name}.txt").write_text("\n".join(path), encoding="utf-8")
    texts = tmp_path / "en.txt", tmp_path / "hi.txt"
    outputs = [tmp_path / f"{name}.{kind}" for name in ("filtered", "mined", "aligned")]
    for module in (align, mine):
        monkeypatch.setattr(module, "open_encoder", lambda options: encode)
    pairs = tmp_path / "en-hi.tsv"
    assert run("filter", pairs, "--threshold", -1, "-o", outputs[0]) == 0
    assert run("mine", *texts, "-o", outputs[1]) == 0
    assert run("align", *texts, "--lines", "-o", outputs[2]) == 0
    monkeypatch.setattr(review, "open_encoder", None)
    page = tmp_path / "page.html"
    for output in outputs:
        scores = {(p.source, p.target): s for _, p, s in read_scored_pairs(output)}
        assert scores and None not in scores.values()
        assert run("review", output, "-o", page) == 0
        data = data_of(page)
        assert data["score"] == "score"
        assert {(p[2], p[3]): p[1] for p in data["pairs"]} == scores


def test_texts_cannot_leave_the_data(tmp_path):
    pairs = [ReviewPair(n, n, *texts) for n, texts in enumerate(EVIL)]
    pairs.append(ReviewPair(3, 3, "half \ud800 pair", "NUL \0"))
    page = review_page(pairs, name="</title><script>", digest="0")
    assert page.count("</script>") == page.count("<script") == 2
    assert "\u2028" not in page and page.encode("utf-8")
    data = json.loads(re.search(r'id="pairs">(.*?)</script>', page, re.S)[1])
    assert [(p[2], p[3]) for p in data["pairs"][:3]] == EVIL
    with pytest.raises(ValueError):
        json_in_html(float("nan"))


def test_the_page_loads_nothing(tmp_path):
    page = review_page([], name="a.tsv", digest="0")
    assert not re.search(r"(?:src|href)\s*=\s*[\"']|@import|url\(|https?://", page)
    assert "default-src 'none'" in page


# === The page in a browser ===


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    downloads = tmp_path_factory.mktemp("downloads")
    with opened_browser(downloads) as session:
        session.downloads = downloads
        yield session


def counts(browser: Browser) -> str:
    return browser.text("#counts")


def wait_for_counts(browser: Browser, wanted: str) -> None:
    """A browser writes the marks of the page before a moment after a reload."""
    wait_for(lambda: counts(browser) == wanted or None)


def test_marks_of_another_tab_are_shown(tmp_path, browser):
    lines = [(n / 10, f"text {n} {a}", b) for n, (a, b) in enumerate(HINDI)]
    path, page = table(tmp_path / "tabs.tsv", lines), tmp_path / "tabs.html"
    assert run("review", path, "-o", page) == 0
    browser.open(page)
    browser.press("g")
    # A frame is another document with the same store, as another tab is.
    browser.run(
        "const frame = document.createElement('iframe');"
        "frame.src = 'about:blank'; document.body.append(frame);"
        "frame.contentWindow.localStorage.setItem(arguments[0], "
        "JSON.stringify({0: 'bad', 1: 'skip'}));",
        browser.run("return STORE"),
    )
    wait_for_counts(browser, "2 of 3 marked: 0 good, 1 bad, 1 skipped")


def test_keys_reload_download_and_filter(tmp_path, browser):
    lines = [(n / 10, f"text {n} {a}", b) for n, (a, b) in enumerate([*HINDI, *EVIL])]
    path, page = table(tmp_path / "en-hi.tsv", lines), tmp_path / "page.html"
    assert run("review", path, "-o", page) == 0
    browser.open(page)
    assert browser.text("#title") == "en-hi.tsv"
    assert browser.run("return document.title") == "Review of en-hi.tsv"
    assert browser.text("#texts .text").startswith("text 0")
    target = "return document.querySelectorAll('#texts .text')[1]."
    assert (
        browser.run(target + "dir") == "auto" and browser.run(target + "lang") == "hi"
    )
    browser.press("g")
    assert counts(browser) == "1 of 6 marked: 1 good, 0 bad, 0 skipped"
    assert browser.text("#texts .text").startswith("text 1")
    browser.press("bsb")
    assert counts(browser) == "4 of 6 marked: 1 good, 2 bad, 1 skipped"
    browser.press("u")
    assert counts(browser) == "3 of 6 marked: 1 good, 1 bad, 1 skipped"
    assert browser.text("#texts .text").startswith("text 3")
    browser.press("k" + DOWN + "jg")
    assert browser.text("#texts .text").startswith("text 5")
    # A key in the search is text; what it finds is on either side.
    browser.press("/quotes")
    assert browser.run("return document.getElementById('search').value") == "quotes"
    assert browser.run("return document.querySelectorAll('.row').length") == 1
    browser.press(ESCAPE)
    assert browser.text("#texts .text").startswith("text 4")
    # The page again, and a page of other pairs of the same file.
    browser.reload()
    wait_for_counts(browser, "4 of 6 marked: 2 good, 1 bad, 1 skipped")
    assert run("review", path, "-o", page, "--limit", 2) == 0
    browser.open(page)
    wait_for_counts(browser, "2 of 2 marked: 1 good, 1 bad, 0 skipped")
    browser.press("b")
    assert run("review", path, "-o", page) == 0
    browser.open(page)
    wait_for(lambda: counts(browser).startswith("4 of 6 marked: "))
    browser.press("d")
    marked = browser.downloads / "en-hi.tsv.marked.tsv"
    wait_for(marked.exists)
    rows = [line.split("\t") for line in marked.read_text("utf-8").split("\n")[:-1]]
    marks = browser.run("return marks")
    wanted = [
        [*(line[1:3]), marks[str(n)]]
        for n, line in enumerate(lines)
        if marks.get(str(n)) in ("good", "bad")
    ]
    assert rows == wanted and len(rows) == 3
    flags = ("--marked", marked, "--keep", 2, "-o", tmp_path / "kept.tsv")
    report = tmp_path / "kept.json"
    assert run("filter", path, *flags, "--json", report) == 0
    assert json.loads(report.read_text())["marked"] == 3
    # The download is also a file to review, with its marks.
    assert [p.mark for p in read_review_pairs(marked)] == [row[2] for row in rows]
    assert browser.errors() == []


def test_filters_by_score_mark_and_text(tmp_path, browser):
    lines = [(n / 100, f"Text {n}", f"ÉTÉ {n}") for n in range(100)]
    path, page = table(tmp_path / "en-fr.tsv", lines), tmp_path / "page.html"
    assert run("review", path, "-o", page) == 0
    browser.open(page)

    def choose(**values: str) -> int:
        for name, value in values.items():
            browser.run(
                "const e = document.getElementById(arguments[0]);"
                "e.value = arguments[1]; e.dispatchEvent(new Event('input'))",
                name,
                value,
            )
        return browser.run("return shown.length")

    assert choose(low="0.5") == 50
    assert choose(low="0.5", high="0.6") == 11
    assert choose(low="", high="") == 100
    assert choose(search="e\u0301te\u0301 1") == 11
    browser.run("document.activeElement.blur()")
    browser.press("gb")
    assert choose(search="", kind="bad") == 1
    assert choose(kind="none") == 98
    # A mark that a filter hides is still undone.
    browser.press("g" + "u")
    assert choose(kind="none") == 98


def test_a_page_of_many_pairs_has_few_nodes_and_is_quick(tmp_path, browser):
    count = 50_000
    lines = [(n / count, f"Sentence {n}", f"वाक्य {n} " * 5) for n in range(count)]
    path, page = table(tmp_path / "en-hi.tsv", lines), tmp_path / "page.html"
    assert run("review", path, "-o", page, "--limit", count) == 0
    browser.open(page)
    assert browser.run("return shown.length") == count
    nodes = "return document.getElementsByTagName('*').length"
    assert browser.run(nodes) < 300
    browser.press(END)
    assert browser.text("#place").startswith("50,000 of 50,000")
    assert browser.run("return document.querySelector('.row.here') !== null")
    assert browser.run(nodes) < 300
    # Seconds per key; a bound for machines that do other work.
    seconds = browser.run(
        "const start = performance.now();"
        "for (let i = 0; i < 20; i++) { KEYS.g(); KEYS.k(); }"
        "return (performance.now() - start) / 40000"
    )
    assert seconds < 0.25


def test_marks_of_the_file_can_be_undone_for_good(tmp_path, browser):
    path = table(tmp_path / "en-hi.tsv", [(*HINDI[0], "good"), (*HINDI[1], "bad")])
    page = tmp_path / "page.html"
    assert run("review", path, "-o", page) == 0
    browser.open(page)
    wait_for_counts(browser, "2 of 2 marked: 1 good, 1 bad, 0 skipped")
    browser.press("s")
    browser.reload()
    wait_for(lambda: "1 skipped" in counts(browser))
