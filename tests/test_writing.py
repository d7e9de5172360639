"""`labse_tf.text.writing` and the outputs of `mine` and `filter` in every format."""

from __future__ import annotations

import csv
import gzip
import json
import os
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from helpers.command_line import fails, run
from helpers.errors import check_message, raises, refuses
from labse_tf import data
from labse_tf.cli import evaluate, filter, mine
from labse_tf.text import (
    WrittenPair,
    output_kind,
    pair_writer,
    read_lines,
    read_pairs,
    read_scored_pairs,
)

XML = "{http://www.w3.org/XML/1998/namespace}"
PACKED = ("", ".gz", ".bz2", ".xz", ".zst")
OUTPUTS = [
    *(f"kept{kind}{ending}" for kind in (".jsonl", ".tmx") for ending in PACKED),
    *("kept.ndjson", "kept.parquet"),
]
PAIRS = [
    ("A <b>file</b> & “more”\u2028end", "फ़ाइल <&>", "hi"),
    ("Two lines\nwith a\ttab", "दो\tपंक्तियाँ\nयहाँ", "hi"),
    ("Third", "மூன்று", "ta"),
]


def needs(name: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="the extra `parquet` is missing")
    if name.endswith(".zst"):
        pytest.importorskip("zstandard", reason="the extra `text` is missing")


def write_all(path: Path, pairs=PAIRS) -> Path:
    with pair_writer(path) as write:
        for number, (source, target, code) in enumerate(pairs):
            numbers = {"score": number / 4, "source_line": number}
            write(WrittenPair((source, target), ("en", code), numbers))
    return path


def triples(path, **options) -> list[tuple[str, str, str]]:
    return [tuple(pair) for pair in read_pairs(path, **options)]


# === The writer ===


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_is_written_is_read_back(tmp_path, name):
    needs(name)
    path = write_all(tmp_path / name)
    assert triples(path) == PAIRS
    assert triples(path, language="ta") == PAIRS[2:]
    assert [p.name for p in tmp_path.iterdir()] == [name]
    # A directory of them is a corpus.
    assert data.load_pairs(tmp_path).counts == {"hi": 2, "ta": 1}


@pytest.mark.parametrize("name", OUTPUTS)
def test_scores_are_read_back(tmp_path, name):
    needs(name)
    path = write_all(tmp_path / name)
    scored = list(read_scored_pairs(path))
    assert [tuple(pair) for _, pair, _ in scored] == PAIRS
    assert [score for *_, score in scored] == [0, 0.25, 0.5]
    # Of several numbers, the one that was computed last.
    for numbers, score in (
        ({"cosine": 0.5, "margin": 1.25}, 1.25),
        ({"cosine": 0.5, "margin": 1.25, "probability": 0.75}, 0.75),
        ({"source_line": 3}, None),
        ({"score": float("nan"), "cosine": 0.5}, 0.5),
    ):
        with pair_writer(path) as write:
            write(WrittenPair(("a", "b"), ("en", "hi"), numbers))
        assert [found for *_, found in read_scored_pairs(path)] == [score], numbers


@pytest.mark.parametrize("ending", PACKED)
def test_tsv_has_one_line_per_pair(tmp_path, ending):
    needs(ending)
    path = write_all(tmp_path / f"en-hi.tsv{ending}")
    assert triples(path) == [
        (*PAIRS[0][:2], "hi"),
        ("Two lines with a tab", "दो पंक्तियाँ यहाँ", "hi"),
        (*PAIRS[2][:2], "hi"),
    ]
    with pair_writer(path) as write:
        write(WrittenPair(("a", "b"), line="1\ta\tb"))
    assert [text for _, text in read_lines(path)] == ["1\ta\tb"]


def test_tmx_of_other_tools(tmp_path):
    path = write_all(tmp_path / "kept.tmx", [*PAIRS, ("bell\x07\r", "\ufffe", "hi")])
    root = ET.parse(path).getroot()
    assert (root.tag, root.get("version")) == ("tmx", "1.4")
    units = root.findall("body/tu")
    assert [len(unit) for unit in units] == [4] * 4
    props = [prop.get("type") for prop in units[1].findall("prop")]
    assert props == ["x-score", "x-source_line"]
    assert units[1].findtext("prop") == "0.25"
    variants = units[2].findall("tuv")
    assert [v.get(f"{XML}lang") for v in variants] == ["en", "ta"]
    assert units[0].findtext("tuv/seg") == PAIRS[0][0]
    assert units[3].findtext("tuv/seg") == "bell \r"
    # Regions and scripts are kept, and a language must be known.
    with raises(ValueError, "TMX", received=True), pair_writer(path) as write:
        write(WrittenPair(("a", "b"), ("en", "")))
    assert ET.parse(path).getroot().findall("body/tu")[3:], "the old file is kept"


def test_parquet_of_other_tools(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is missing")
    from pyarrow import parquet

    from labse_tf.text import writing

    monkeypatch.setattr(writing, "_GROUP", 2)
    path = write_all(tmp_path / "kept.parquet")
    table = parquet.read_table(path)
    assert table.column_names == [
        *("source", "target", "source_language", "language", "score", "source_line")
    ]
    assert table["score"].to_pylist() == [0.0, 0.25, 0.5]
    assert parquet.ParquetFile(path).num_row_groups == 2
    with pair_writer(path):
        pass
    assert parquet.read_table(path).num_rows == 0
    # Tables of others: a column per language, or a struct of translations.
    structs = [{"translation": {"en": a, c: b}} for a, b, c in PAIRS[:2]]
    columns = [{"id": i, "en": a, "hi": b} for i, (a, b, _) in enumerate(PAIRS[:2])]
    for rows in (structs, columns):
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        assert triples(path) == PAIRS[:2]
    parquet.write_table(pyarrow.table({"text": ["a", "b"]}), path)
    sentences = list(data.read_sentences(path, language="hi"))
    assert sentences == [("hi", "a"), ("hi", "b")]
    path.write_bytes(path.read_bytes()[:-20])
    with raises(data.DataError, "Parquet", path=path, line=1):
        triples(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for use in (lambda: triples(path), lambda: output_kind(path)):
        with raises(ImportError, "'labse-tf[parquet]'", path=path):
            use()


def test_gzip_of_the_same_pairs_has_the_same_bytes(tmp_path):
    first = write_all(tmp_path / "a.tsv.gz").read_bytes()
    assert write_all(tmp_path / "b.tsv.gz").read_bytes() == first


@pytest.mark.parametrize(
    "name", ["kept", "kept.txt", "kept.po", "kept.gz", "kept.parquet.gz", "a.tsv.zip"]
)
def test_an_unknown_ending_is_an_error_before_the_work(tmp_path, capsys, name):
    path = tmp_path / "en-hi.tsv"
    path.write_text("a\tb\n")
    output = tmp_path / name
    refuses(
        capsys,
        ("filter", path, "--threshold", 0, "--model", "no-model", "-o", output),
        *(".tsv", ".jsonl", ".tmx", ".parquet"),
        received=output,
    )
    line = fails(capsys, "mine", path, path, "--model", "no-model", "-o", output)
    check_message(line, received=output)
    assert [p.name for p in tmp_path.iterdir()] == ["en-hi.tsv"]


def test_streams_without_an_ending_are_tsv(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert {output_kind(p) for p in ("-", "/dev/stdout", fifo)} == {".tsv"}
    assert output_kind(tmp_path / "a.TMX.gz") == ".tmx"


# === mine and filter ===

ENGLISH = ["the file", "a word", "my house", "open it", "this tree", "last one"]
HINDI = ["फ़ाइल", "शब्द", "घर मेरा", "खोलें", "पेड़ यह", "आखिरी"]


def encode(sentences: list[str]) -> np.ndarray:
    """Unit vectors: sentence i of both languages has the same direction."""
    vectors = np.zeros((len(sentences), 6), np.float32)
    for row, text in enumerate(sentences):
        side = ENGLISH if text in ENGLISH else HINDI
        vectors[row, side.index(text) if text in side else 0] = 1
        vectors[row] += 0.01
    return vectors


@pytest.fixture
def model(monkeypatch) -> None:
    for module in (mine, filter, evaluate):
        monkeypatch.setattr(module, "open_encoder", lambda options: encode)


@pytest.fixture
def sides(tmp_path) -> tuple[Path, Path]:
    paths = tmp_path / "news.hi.txt", tmp_path / "news.en.txt"
    for path, texts in zip(paths, (HINDI, ENGLISH[::-1]), strict=True):
        path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return paths


def expected() -> set[tuple[str, str]]:
    return set(zip(ENGLISH, HINDI, strict=True))


@pytest.mark.usefixtures("model")
def test_mine_writes_pairs_that_train_reads(tmp_path, sides):
    for order in (sides, sides[::-1]):
        output = tmp_path / "en-hi.tsv"
        options = ("--margin", "cosine", "--format", "pairs", "-o", output)
        assert run("mine", *order, *options) == 0
        assert {(a, b) for a, b, _ in triples(output)} == expected()
        assert output.read_text("utf-8").count("\t") == 6
    for name in ("en-hi.jsonl", "en-hi.tmx", "en-hi.parquet"):
        needs(name)
        output = tmp_path / name
        assert run("mine", *sides, "--margin", "cosine", "-o", output) == 0
        assert {(a, b) for a, b, _ in triples(output)} == expected()
    lines = (tmp_path / "en-hi.jsonl").read_text("utf-8").splitlines()
    entry = next(e for e in map(json.loads, lines) if e["source"] == "a word")
    assert (entry["source_language"], entry["language"]) == ("en", "hi")
    assert (entry["source_line"], entry["target_line"]) == (5, 2)
    assert entry["score"] == pytest.approx(1)


@pytest.mark.usefixtures("model")
def test_mine_needs_the_languages_that_it_writes(tmp_path, capsys, sides):
    names = ("first.txt", "second.txt")
    plain = [side.rename(tmp_path / n) for side, n in zip(sides, names, strict=True)]
    pairs = ("--format", "pairs", "-o", tmp_path / "pairs.tsv")
    line = fails(capsys, "mine", *plain, *pairs)
    check_message(line, "English", received="unknown")
    line = fails(capsys, "mine", *plain, "-o", tmp_path / "pairs.tmx")
    check_message(line, "TMX", "hi=FILE", received="unknown")
    given = f"hi={plain[0]}", f"en={plain[1]}"
    assert run("mine", *given, "--margin", "cosine", *pairs) == 0
    assert {(a, b) for a, b, _ in triples(f"hi={pairs[-1]}")} == expected()


def table(path: Path, *columns: list[str]) -> Path:
    rows = zip(*columns, strict=True)
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.usefixtures("model")
def test_filter_puts_english_first(tmp_path, capsys):
    numbers = [str(number) for number in range(6)]
    output = tmp_path / "en-hi.tsv"
    pairs = ("--threshold", 0.5, "--format", "pairs", "-o", output)
    for columns in ((numbers, HINDI, ENGLISH), (ENGLISH, HINDI)):
        path = table(tmp_path / "mined.tsv", *columns)
        assert run("filter", path, *pairs) == 0
        assert {(a, b) for a, b, _ in triples(output)} == expected()
    # Where the scripts do not show it, the name or the flag does.
    path = table(tmp_path / "mined.tsv", ENGLISH, ENGLISH)
    line = fails(capsys, "filter", path, *pairs)
    check_message(line, "--columns", received="unknown")
    assert run("filter", path, "--columns", "de", "en", *pairs) == 0
    refuses(capsys, ("filter", path, *pairs, "--with-scores"), argument="--with-scores")


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("name", OUTPUTS)
def test_filter_writes_the_format_of_the_ending(tmp_path, capsys, name):
    needs(name)
    path = table(tmp_path / "en-hi.tsv", HINDI, ENGLISH)
    first, second = tmp_path / name, tmp_path / f"again-{name}"
    assert run("filter", path, "--threshold", 0.5, "-o", first) == 0
    assert triples(first) == [(a, b, "hi") for a, b in zip(ENGLISH, HINDI, strict=True)]
    assert run("filter", first, "--threshold", 0.5, "-o", second) == 0
    assert triples(second) == triples(first)
    cleaned = ("--short", "--overwrite", "-o", tmp_path / "cleaned")
    assert run("clean", first, *cleaned) == 0
    assert {(a, b) for a, b, _ in triples(tmp_path / "cleaned/en-hi.tsv.gz")} == (
        expected()
    )
    unknown = table(tmp_path / "mined.tsv", ENGLISH, HINDI)
    arguments = ("filter", unknown, "--threshold", 0.5, "-o", first)
    if ".tmx" in name:
        check_message(fails(capsys, *arguments), "--columns", received="unknown")
    else:
        assert run(*arguments) == 0
        assert len(triples(first, language="hi")) == 6


@pytest.mark.usefixtures("model")
def test_filter_and_evaluate_take_csv(tmp_path, capsys):
    path, output = tmp_path / "en-hi.csv", tmp_path / "kept.tsv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["hi", "en"])
        writer.writerows(zip(HINDI, ENGLISH, strict=True))
    assert run("filter", path, "--threshold", 0.5, "-o", output) == 0
    kept = [tuple(text.split("\t")) for _, text in read_lines(output)]
    assert kept == list(zip(ENGLISH, HINDI, strict=True))
    assert run("evaluate", "retrieval", path, "--json", tmp_path / "scores.json") == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["mean_accuracy"] == 1
    path.write_text("id,note\n1,a\n")
    line = fails(capsys, "filter", path, "--threshold", 0.5, "-o", output)
    check_message(line, path=path, line=1, received=True)


@pytest.mark.usefixtures("model")
def test_filter_takes_the_language_of_a_catalogue(tmp_path):
    path = tmp_path / "any.po"
    entries = "".join(
        f'msgid "{a}"\nmsgstr "{b}"\n\n' for a, b in zip(ENGLISH, HINDI, strict=True)
    )
    header = 'msgid ""\nmsgstr "Language: hi\\n"\n\n'
    path.write_text(header + entries, encoding="utf-8")
    output = tmp_path / "kept.tmx.gz"
    assert run("filter", path, "--threshold", 0.5, "-o", output) == 0
    assert gzip.decompress(output.read_bytes()).startswith(b"<?xml")
    assert {code for *_, code in triples(output)} == {"hi"}


def test_clean_refuses_the_name_of_a_file(tmp_path, capsys):
    path = table(tmp_path / "en-hi.tsv", ENGLISH, HINDI)
    for name in ("kept.tmx", "kept.tsv.gz", "kept.parquet"):
        output = tmp_path / name
        arguments = ("clean", path, "--short", "-o", output)
        refuses(capsys, arguments, argument="--output", received=output)
        assert not output.exists()
