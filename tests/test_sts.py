"""Semantic textual similarity: ranks with ties against oracles, files, command."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import math
import re

import numpy as np
import pytest

from helpers.errors import Fields, raises
from helpers.evaluation import no_encoding, png_size
from labse_tf import cli
from labse_tf.cli import evaluate
from labse_tf.evaluation import StsResult, StsScores, read_sts, sts
from labse_tf.text import DataError


def letters(sentences):
    """A bag of letters: many sentences of the tests have the same vector."""
    vectors = np.zeros((len(sentences), 26), np.float32)
    for row, sentence in enumerate(sentences):
        for letter in sentence.lower():
            if "a" <= letter <= "z":
                vectors[row, ord(letter) - 97] += 1
    return vectors


def ranks(values):
    """The mean place of a value in the sorted list, a value at a time."""
    return [
        sum(other < value for other in values)
        + (sum(other == value for other in values) + 1) / 2
        for value in values
    ]


def pearson(x, y):
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    products = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    squares = [sum((v - m) ** 2 for v in s) for s, m in ((x, mean_x), (y, mean_y))]
    return products / math.sqrt(squares[0] * squares[1])


def cosine(first, second):
    a, b = (np.asarray(letters([text])[0], np.float64) for text in (first, second))
    lengths = (np.linalg.norm(a) or 1) * (np.linalg.norm(b) or 1)
    return round(float(a @ b) / lengths, 7)


def some_pairs(seed, count, alphabet="abc"):
    """Short words over few letters, so with ties; and scores with ties."""
    rng = np.random.default_rng(seed)
    words = ["".join(w) for w in rng.choice(list(alphabet), (2 * count, 4))]
    scores = rng.integers(0, 6, count).astype(float).tolist()
    return words[:count], words[count:], [*scores[:-2], 0.0, 5.0]


@pytest.mark.parametrize(("seed", "count"), [(0, 2), (1, 3), (2, 10), (3, 200)])
def test_correlations_equal_an_oracle(seed, count):
    first, second, people = some_pairs(seed, count)
    found = sts(letters, {"en": (first, second, people)}).languages["en"]
    cosines = [cosine(a, b) for a, b in zip(first, second, strict=True)]
    angles = [-math.acos(min(1.0, max(-1.0, value))) for value in cosines]
    assert found.pairs == count
    expected = StsScores(
        count,
        pearson(ranks(cosines), ranks(people)),
        pearson(ranks(angles), ranks(people)),
        pearson(cosines, people),
        pearson(angles, people),
    )
    assert found == pytest.approx(expected, abs=1e-9)


def test_correlations_equal_scipy():
    stats = pytest.importorskip("scipy.stats")
    first, second, people = some_pairs(5, 500, "abcdefgh")
    found = sts(letters, {"en": (first, second, people)}).languages["en"]
    cosines = np.array([cosine(a, b) for a, b in zip(first, second, strict=True)])
    assert len(set(cosines.tolist())) < 400  # ties
    angles = -np.arccos(cosines.clip(-1, 1))
    for value, theirs in (
        (found.spearman, stats.spearmanr(cosines, people)),
        (found.spearman_angular, stats.spearmanr(angles, people)),
        (found.pearson, stats.pearsonr(cosines, people)),
        (found.pearson_angular, stats.pearsonr(angles, people)),
    ):
        assert value == pytest.approx(theirs.statistic, abs=1e-9)


def test_arccos_has_the_order_of_the_cosines_and_another_bend():
    found = sts(letters, {"en": some_pairs(8, 300, "abcdef")}).languages["en"]
    assert found.spearman == found.spearman_angular
    assert abs(found.pearson - found.pearson_angular) > 1e-3


def test_perfect_and_turned_round():
    pairs = ["aaaa", "aaab", "aabb", "abbb", "bbbb"]
    first, people = ["aaaa"] * 5, [5.0, 4.0, 3.0, 2.0, 1.0]
    assert sts(letters, {"en": (first, pairs, people)}).mean_spearman == 1.0
    turned = sts(letters, {"en": (first, pairs, people[::-1])})
    assert turned.mean_spearman == -1.0
    assert "-100.0" in turned.table()


def test_noise_in_the_last_bits_breaks_no_tie():
    """A batch of another size gives a sentence another last bit."""
    rng = np.random.default_rng(0)

    def noisy(sentences):
        vectors = letters(sentences)
        return vectors * (1 + 2e-8 * rng.normal(size=vectors.shape))

    pairs = {"en": some_pairs(4, 100)}
    assert sts(noisy, pairs).spearman == sts(letters, pairs).spearman


def test_an_encoder_that_tells_nothing_has_no_correlation():
    same = sts(lambda texts: np.ones((len(texts), 3)), {"en": some_pairs(1, 9)})
    assert same.languages["en"] == (9, 0.0, 0.0, 0.0, 0.0)
    none = sts(lambda texts: np.zeros((len(texts), 3)), {"en": some_pairs(1, 9)})
    assert none.mean_spearman == 0.0


def test_each_sentence_of_a_language_is_encoded_once():
    calls, told = [], []

    def encode(sentences):
        calls.append(sentences)
        return letters(sentences)

    pairs = {
        "fr": (["a", "a", "b"], ["b", "c", "b"], [1, 2, 3]),
        "de": (["a", "b"], ["a", "c"], [1, 2]),
    }
    result = sts(encode, pairs, progress=lambda *step: told.append(step))
    assert calls == [["a", "b", "c"], ["a", "b", "c"]]
    assert told == [(2, 5), (5, 5)]
    assert list(result.languages) == ["de", "fr"] and result.split is None
    assert list(sts(encode, pairs, ["fra"]).languages) == ["fr"]


@pytest.mark.parametrize(
    ("pairs", "options", "message"),
    [
        ({}, {}, Fields(received=True)),
        ({"de": (["a"], ["b"], [1])}, {}, Fields(received="[1]")),
        ({"de": (["a"] * 2, ["b"] * 2, [1, 1])}, {}, Fields(1)),
        (
            {"de": (["a"] * 2, ["b"] * 2, [1, math.nan])},
            {},
            Fields(received="nan"),
        ),
        ({"de": (["a"] * 2, ["b"], [1, 2])}, {}, Fields(2, 1)),
        ({"de": (["a"], ["b"])}, {}, Fields(1)),
        ({"de": ([], [], [])}, {}, Fields(received="[]")),
        (
            {"de": (["a"] * 2, ["b"] * 2, [1, 2])},
            {"languages": "hi"},
            Fields("de", received="hi"),
        ),
        (
            {"de": (["a"] * 2, ["b"] * 2, [1, 2])},
            {"languages": []},
            Fields("languages", received=True),
        ),
    ],
)
def test_bad_pairs(pairs, options, message):
    with raises(ValueError, message):
        sts(no_encoding, pairs, **options)


def test_rows_that_are_not_finite_are_named():
    def encode(sentences):
        vectors = letters(sentences)
        vectors[[sentence == "bad" for sentence in sentences]] = np.inf
        return vectors

    pairs = {"de": (["a", "b"], ["c", "bad"], [1, 2])}
    with raises(ValueError, 3, "'bad'"):
        sts(encode, pairs)


# === Files ===


@pytest.fixture
def folder(tmp_path):
    """English plain, German gzipped, with what CSV has for us."""
    folder = tmp_path / "sts"
    folder.mkdir()
    rows = [
        "plain,also plain,5.0",
        '"a, comma","a ""quote""",2.5',
        '"two\nlines",end,0',
        "last\u2028line,caf\u00e9,1.25",
    ]
    text = "".join(f"{row}\r\n" for row in rows)
    (folder / "stsb-en-test.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    with gzip.open(folder / "stsb-de-test.csv.gz", "wt", encoding="utf-8") as file:
        file.write("sentence1,sentence2,score\nabc,abd,4\nabc,xyz,1\n")
    (folder / "stsb-de-dev.csv").write_text("a,b,1\nab,ac,2\nc,c,3\n")
    for other in ("LICENSE", "stsb-en-test.txt", "stsb-en-other.csv"):
        (folder / other).write_bytes(b"\xff")
    return folder


def test_files_are_read_as_csv(folder):
    found = read_sts(folder)
    assert list(found) == ["de", "en"]
    assert found["de"] == (["abc", "abc"], ["abd", "xyz"], [4.0, 1.0])
    assert found["en"] == (
        ["plain", "a, comma", "two\nlines", "last\u2028line"],
        ["also plain", 'a "quote"', "end", "caf\u00e9"],
        [5.0, 2.5, 0.0, 1.25],
    )
    assert list(read_sts(folder, split="dev")) == ["de"]
    assert sts(letters, folder).split == "test"
    assert sts(letters, folder, "deu", "dev").languages["de"].pairs == 3


@pytest.mark.parametrize(
    ("content", "line", "word"),
    [
        (b"", 1, "empty"),
        (b"a,b,1\n\xff,b,1\n", 2, "UTF-8"),
        (b"a,b,1\na,b\n", 2, "3 comma-separated fields. Received: 2"),
        (b"a,b,1\na,b,c,2\n", 2, "Received: 4"),
        (b"a,b,1\n\na,b,2\n", 2, "Received: 0"),
        (b'"a\nb",c,1\nd,e,x\n', 3, "'x'"),
        (b"a,b,1\na,b,nan\n", 2, "'nan'"),
        (b"a,b,1\na,b,5.5\n", 2, "'5.5'"),
        (b"a,b,1\na,b,-1\n", 2, "'-1'"),
        (b"a,b,1\na, ,2\n", 2, "two sentences"),
        (b'a,b,1\n"a"x,b,2\n', 2, "CSV"),
        (b'a,b,1\n"a,b,2\n', 2, "CSV"),
        (b"sentence1,sentence2,score\n", 1, "different scores"),
        (b"a,b,1\nc,d,1\n", 1, "2 rows, scores [1.0]"),
        (b"\x1f\x8b\x08cut", 1, "gzip"),
    ],
)
def test_bad_files_are_named_with_the_line(tmp_path, content, line, word):
    path = tmp_path / "stsb-de-test.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        sts(no_encoding, tmp_path)
    assert (caught.value.path, caught.value.line) == (path, line)
    assert word in str(caught.value)


def test_a_file_of_every_compression(folder):
    plain = folder / "stsb-de-test.csv.gz"
    found = read_sts(folder)["de"]
    content = gzip.decompress(plain.read_bytes())
    plain.unlink()
    for ending, compress in ((".bz2", bz2.compress), (".xz", lzma.compress)):
        path = folder / f"stsb-de-test.csv{ending}"
        path.write_bytes(compress(content))
        assert read_sts(folder)["de"] == found
        path.unlink()


def test_bad_folders(folder, tmp_path):
    with raises(FileNotFoundError, path=tmp_path / "absent"):
        sts(no_encoding, tmp_path / "absent")
    with raises(ValueError, path="stsb-XX-train.csv", received=True):
        sts(no_encoding, folder, split="train")
    with raises(ValueError, received="'all'"):
        sts(no_encoding, folder, split="all")
    with raises(ValueError, received="hi"):
        sts(no_encoding, folder, ["de", "hi"])
    (folder / "stsb-de-test.csv").write_text("a,b,1\n")
    with raises(ValueError, "stsb-de-test.csv", received=True):
        sts(no_encoding, folder)


def test_the_data_beside_the_checkout(shared):
    """Every file of both splits reads; a bag of letters is better than chance."""
    assert len(read_sts(shared / "sts", split="dev")) == 11
    result = sts(letters, shared / "sts", ["en", "de"])
    assert [row.pairs for row in result.languages.values()] == [1379, 1379]
    assert all(0.3 < value < 0.8 for value in result.spearman.values())


# === Results ===


def test_results(folder, tmp_path):
    result = StsResult(
        {
            "hi": StsScores(10, 0.5, 0.5, 0.25, 0.3),
            "de": StsScores(20, 0.75, 0.75, 0.5, -0.1),
        },
        "dev",
    )
    lines = result.table().splitlines()
    assert lines[3].split() == ["de", "German", "20", "75.0", "75.0", "50.0", "-10.0"]
    assert lines[-1].split()[-5:] == ["30", "62.5", "62.5", "37.5", "10.0"]
    assert result.mean_spearman == 0.625
    values = json.loads(json.dumps(result.to_dict()))
    assert values["languages"]["hi"]["name"] == "Hindi"
    assert result.scores() == [("STS dev, Spearman", 2, 0.625)]
    pytest.importorskip("matplotlib")
    result.plot(tmp_path / "sts.png")
    assert png_size(tmp_path / "sts.png")[0] > 600


# === Command ===


def test_command(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluate, "open_encoder", lambda options: letters)

    def run(*arguments):
        words = ["evaluate", "sts", *map(str, arguments), "--model", "letters"]
        status = cli.main(words)
        return status, capsys.readouterr()

    scores, plot = tmp_path / "scores.json", tmp_path / "plot.png"
    status, said = run(folder, "--json", scores, "--plot", plot)
    assert status == 0 and "German" in said.out and "English" in said.out
    assert json.loads(scores.read_text())["split"] == "test"
    assert png_size(plot)[0] > 600
    status, said = run(folder, "--languages", "de", "--split", "dev", "--json", scores)
    assert status == 0 and "English" not in said.out
    assert json.loads(scores.read_text())["languages"]["de"]["pairs"] == 3

    def no_model(name):
        raise AssertionError("the files are looked at before the model is loaded")

    monkeypatch.setattr(evaluate, "open_encoder", no_model)
    (folder / "stsb-en-dev.csv").write_text("a,b,6\n")
    for arguments, message in (
        ((tmp_path / "absent",), "absent: No such file"),
        ((folder, "--languages", "ta"), "Received: ta"),
        ((folder, "--split", "dev"), r"stsb-en-dev\.csv:1: expected a score"),
    ):
        status, said = run(*arguments)
        lines = said.err.strip().splitlines()
        assert status == 2 and len(lines) == 1 and re.search(message, lines[0])
