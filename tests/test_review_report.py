"""`labse-tf review --report`: the arithmetic by hand, wrong messages in catalogs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from helpers.command_line import fails, run
from helpers.errors import check_message, raises
from labse_tf.cli import review
from labse_tf.review import (
    Finding,
    as_annotation,
    find_suspects,
    report_findings,
    suspects,
)

WORDS = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(120)]


def direction(word: str) -> np.ndarray:
    seed = int(hashlib.md5(word.encode()).hexdigest()[:8], 16)
    return np.random.default_rng(seed).normal(size=24)


def encode(texts: list[str]) -> np.ndarray:
    """Bags of words; a capital word is near the word in small letters."""
    vectors = [
        np.sum([direction(w.lower()) + 0.8 * direction(w) for w in t.split()], axis=0)
        for t in texts
    ]
    return np.array(vectors, dtype=np.float32)


@pytest.fixture(autouse=True)
def model(monkeypatch) -> None:
    monkeypatch.setattr(review, "open_encoder", lambda options: encode)


def messages(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Messages of one to six words, and "translations" of the same words."""
    rng = np.random.default_rng(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        text = " ".join(rng.choice(WORDS, rng.integers(1, 7)))
        found[text] = text.upper()
    return list(found.items())


def auroc(scores: np.ndarray, wrong: np.ndarray) -> float:
    high, low = scores[wrong][:, None], scores[~wrong][None, :]
    return float(((high > low) + 0.5 * (high == low)).mean())


def catalog(path: Path, pairs: list[tuple[str, str]], tail: str = "") -> dict[str, int]:
    """Writes a PO file, and returns the line of each message."""
    lines, places = ['msgid ""', 'msgstr ""', '"Language: de\\n"', ""], {}
    for source, target in pairs:
        lines += ["#: a.py:1"]
        places[source] = len(lines) + 1
        lines += [f'msgid "{source}"', f'msgstr "{target}"', ""]
    path.write_text("\n".join(lines) + "\n" + tail, encoding="utf-8")
    return places


def test_maps_without_one_row_equal_fits_without_it():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 5)), rng.normal(size=(30, 4))
    mapped, unit = suspects._mapped(x, y)
    a, b = x - x.mean(0), y - y.mean(0)
    for row in range(30):
        kept = np.arange(30) != row
        square = a[kept].T @ a[kept] + suspects._RIDGE * np.eye(5)
        wanted = a[row] @ np.linalg.solve(square, a[kept].T @ b[kept])
        wanted /= np.linalg.norm(wanted)
        np.testing.assert_allclose(mapped[row], wanted, atol=1e-5)
        np.testing.assert_allclose(
            unit[row], b[row] / np.linalg.norm(b[row]), atol=1e-6
        )


@pytest.mark.parametrize("block", [7, 1024])
def test_nearest_others_are_of_other_texts(monkeypatch, block):
    monkeypatch.setattr(suspects, "_BLOCK", block)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)), rng.normal(size=(40, 6))
    sources, targets = rng.integers(0, 30, 40), rng.integers(0, 30, 40)
    near = suspects._Nearest(x, y, sources, targets)
    similar = near.similar(x)
    for i in range(40):
        others = [
            j
            for j in range(40)
            if sources[i] != sources[j] and targets[i] != targets[j]
        ]
        row = sorted(((x[i] @ y[j], j) for j in others), reverse=True)
        column = sorted(((x[j] @ y[i], j) for j in others), reverse=True)
        np.testing.assert_allclose(near.rows[i], [s for s, _ in row[:2]], rtol=1e-5)
        np.testing.assert_allclose(
            near.columns[i], [s for s, _ in column[:2]], rtol=1e-5
        )
        assert (near.row_places[i], near.column_places[i]) == (row[0][1], column[0][1])
        assert similar[i] == max(others, key=lambda j: x[i] @ x[j])


def test_blocks_do_not_change_the_result(monkeypatch):
    pairs = messages(60)
    sides = list(zip(*pairs, strict=True))
    vectors = [encode(list(side)) for side in sides]
    whole = find_suspects(*sides, *vectors)
    monkeypatch.setattr(suspects, "_BLOCK", 7)
    for one, other in zip(whole, find_suspects(*sides, *vectors), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("count", [300, 40])
def test_swapped_messages_are_found(count):
    pairs = messages(count)
    sources = [source for source, _ in pairs]
    x = encode(sources)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    order, wrong = np.arange(count), np.zeros(count, dtype=bool)
    for i in np.random.default_rng(1).permutation(count)[: max(count // 40, 2)]:
        j = int(np.argsort(-(x @ x[i]))[1])  # Its nearest neighbor.
        if not wrong[[i, j]].any():
            order[[i, j]] = order[[j, i]]
            wrong[[i, j]] = True
    targets = [pairs[i][1] for i in order]
    found = find_suspects(sources, targets, x, encode(targets))
    assert auroc(found.probabilities, wrong) > 0.95
    assert auroc(found.probabilities, wrong) >= auroc(-found.cosines, wrong)
    assert 0 <= found.probabilities.min() <= found.probabilities.max() <= 1
    more = find_suspects(sources, targets, x, encode(targets), share=0.5)
    assert (more.probabilities > found.probabilities).all()
    order = np.argsort(more.probabilities, kind="stable")
    np.testing.assert_array_equal(order, np.argsort(found.probabilities, kind="stable"))


def test_few_and_equal_messages_are_judged_without_an_error():
    for pairs in ([], messages(1), messages(2), messages(5), [("a", "A")] * 30):
        sides = [list(side) for side in zip(*pairs, strict=True)] or [[], []]
        vectors = [encode(side).reshape(len(side), 24) for side in sides]
        found = find_suspects(*sides, *vectors)
        assert found.probabilities.shape == (len(pairs),)
        assert np.isfinite(found.probabilities).all()
    with raises(ValueError, argument="share", received=1):
        find_suspects(["a"], ["A"], np.ones((1, 2)), np.ones((1, 2)), share=1)
    with raises(ValueError, received=True):
        find_suspects(["a"], ["A", "B"], np.ones((1, 2)), np.ones((2, 2)))


@pytest.mark.parametrize("column", range(4))
def test_each_difference_of_the_surface_counts(column):
    sources = ["one %s", "page 12", "{name} is", "End."]
    targets = ["ONE %s", "PAGE १२", "{name} IS", "END।"]
    wrong = ["ONE", "PAGE 13", "{user} IS", "END?"]
    every = np.arange(4)
    same = suspects._Surface(sources, targets)(every, every)
    assert [values.tolist() for values in same[1:]] == [[0.0] * 4] * 3
    changed = suspects._Surface(sources, wrong)(every, every)
    found = {0: 2, 1: 1, 2: 2, 3: 3}[column]
    assert changed[found][column] == 1


def test_a_report_names_file_and_line(tmp_path, capsys):
    pairs = messages(60)
    swapped = dict(pairs)
    first, second = pairs[7][0], pairs[30][0]
    swapped[first], swapped[second] = swapped[second], swapped[first]
    path, report = tmp_path / "de.po", tmp_path / "report.json"
    tail = '#, fuzzy\nmsgid "waa wab"\nmsgstr "WRONG"\n\nmsgid "wac"\nmsgstr ""\n'
    tail += '\n#~ msgid "wad"\n#~ msgstr "WRONG"\n'
    lines = catalog(path, list(swapped.items()), tail)
    assert run("review", "--report", path, "--limit", 2, "--json", report) == 0
    result = json.loads(report.read_text())
    assert result["messages"] == 60
    found = {f["source"]: f for f in result["findings"]}
    assert set(found) == {first, second}
    for source, entry in found.items():
        assert (entry["file"], entry["line"]) == (str(path), lines[source])
        assert (entry["language"], entry["target"]) == ("de", swapped[source])
        assert entry["probability"] > 0.5
    assert found[first]["better"] == first.upper()
    text = capsys.readouterr().out.replace("\n", "")
    assert "60 messages" in text


def test_the_status_is_that_of_linters(tmp_path, capsys):
    pairs = dict(messages(60))
    path = tmp_path / "de.po"
    catalog(path, list(pairs.items()))
    flags = ("--report", path, "--fail-above", 0.5)
    assert run("review", *flags) == 0
    check_message(capsys.readouterr().out, 60, 0, "50%")
    first, second = list(pairs)[3], list(pairs)[40]
    pairs[first], pairs[second] = pairs[second], pairs[first]
    lines = catalog(path, list(pairs.items()))
    assert run("review", *flags, "--format", "github") == 1
    output = capsys.readouterr()
    places = {line.split("::")[1] for line in output.out.splitlines()}
    assert places == {
        f"warning file={path},line={lines[source]},title=Translation"
        for source in (first, second)
    }
    check_message(output.err, 60, 2)


def test_all_files_of_a_language_are_one_catalog(tmp_path):
    pairs = messages(60)
    catalog(tmp_path / "whole.po", pairs)
    names = ("a.po", "b.po")
    for name, part in zip(names, (pairs[:25], pairs[25:]), strict=True):
        catalog(tmp_path / name, part)
    other = tmp_path / "fr.tsv"
    other.write_text("waa\tWAB\nwac\tWAC\n", encoding="utf-8")
    whole = report_findings([tmp_path / "whole.po"], encode)
    parts = report_findings([*(tmp_path / name for name in names), other], encode)
    by_source = {f.source: f.probability for f in parts if f.language == "de"}
    assert by_source == pytest.approx({f.source: f.probability for f in whole})


def test_messages_are_embedded_without_markup(tmp_path):
    path, seen = tmp_path / "de.po", []
    catalog(path, [("<b>&waa</b> %s", "_WAA %s"), ("{wab}", "{wab}")])

    def record(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return encode(texts)

    report_findings([path], record)
    assert sorted(seen) == ["WAA", "waa", "{wab}"]


def test_annotations_are_escaped():
    found = Finding("a,b:c.po", 3, "de", "100%\nof", "x", 0.5, 0.1, -0.1, "y")
    line = as_annotation(found)
    assert line.startswith("::warning file=a%2Cb%3Ac.po,line=3,")
    assert "100%25%0Aof" in line and "\n" not in line


@pytest.mark.parametrize(
    "flags, argument",
    [
        (("--report", "--fail-above", "1"), "--fail-above"),
        (("--report", "--wrong-share", "0"), "--wrong-share"),
        (("--fail-above", "0.5"), "--fail-above"),
        (("--report", "--limit", "0"), "--limit"),
    ],
)
def test_bad_flags_of_a_report(tmp_path, capsys, flags, argument):
    path = tmp_path / "de.po"
    catalog(path, messages(3))
    check_message(fails(capsys, "review", path, *flags), argument=argument)


def test_bad_files_of_a_report(tmp_path, capsys):
    path = tmp_path / "de.po"
    path.write_text('msgid "a"\nmsgstr b\n', encoding="utf-8")
    line = fails(capsys, "review", "--report", path)
    check_message(line, path=path, line=2, received=True)
    catalog(path, [("a", "")])
    check_message(fails(capsys, "review", "--report", path), path=path, received=True)
    line = fails(capsys, "review", path, path, "-o", tmp_path / "page.html")
    check_message(line, "--report", received=2)
