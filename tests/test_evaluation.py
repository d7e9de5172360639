"""Groups of languages, nearest neighbours and Tatoeba, against plain NumPy."""

from __future__ import annotations

import gzip
import json
import lzma
import re
import sys

import numpy as np
import pytest

from helpers.errors import Fields, raises
from helpers.evaluation import no_encoding, png_size, some_result, write_pair
from labse_tf.evaluation import (
    LANGUAGES,
    TATOEBA_GROUPS,
    TATOEBA_PUBLISHED,
    TatoebaResult,
    language_code,
    tatoeba,
    translation_accuracy,
)
from labse_tf.evaluation.tatoeba import _tatoeba_files
from labse_tf.text import DataError

# === Groups ===


def test_groups():
    for name, group in TATOEBA_GROUPS.items():
        assert len(group) == len(set(group)) == int(name)
        assert "en" not in group
        assert all(code in LANGUAGES for code in group), name
    assert set(TATOEBA_GROUPS["14"]) < set(TATOEBA_GROUPS["36"])
    assert set(TATOEBA_GROUPS["36"]) < set(TATOEBA_GROUPS["112"])


def test_groups_are_the_files_of_the_release(shared):
    files = _tatoeba_files(shared / "tatoeba")
    assert set(files) == set(TATOEBA_GROUPS["112"])


def test_the_table_has_what_the_evaluation_data_has(shared):
    for file in sorted(shared.glob("dev/*/en-*.tsv.gz")):
        code = file.name.removeprefix("en-").removesuffix(".tsv.gz")
        assert language_code(code, strict=True) in LANGUAGES, code


# === Nearest neighbours ===


def brute_force(source, target):
    """Accuracy both ways, a pair of rows at a time, lowest row first among equals."""

    def unit(row):
        row = np.asarray(row, np.float64)
        return row / (np.sqrt((row**2).sum()) or 1.0)

    def share_of_hits(queries, candidates):
        hits = 0
        for i, query in enumerate(queries):
            best, where = -np.inf, -1
            for j, candidate in enumerate(candidates):
                cosine = np.float32(np.sum(unit(query) * unit(candidate)))
                if cosine > best:
                    best, where = cosine, j
            hits += where == i
        return hits / len(queries)

    return share_of_hits(source, target), share_of_hits(target, source)


@pytest.mark.parametrize("rows", [1, 2, 7, 40])
def test_accuracy_equals_brute_force(rows):
    rng = np.random.default_rng(rows)
    source = rng.normal(size=(rows, 6)).astype(np.float32)
    target = source + rng.normal(size=(rows, 6)).astype(np.float32)
    # Lengths must not matter.
    target *= rng.uniform(0.1, 9, size=(rows, 1)).astype(np.float32)
    assert translation_accuracy(source, target) == brute_force(source, target)


def test_the_two_directions_differ_where_they_should():
    # Both sources are nearest to target 0; each target is nearest to its own source.
    source = np.array([[1.0, 0.0], [0.8, 0.6]])
    target = np.array([[0.95, 0.3], [-0.6, 0.8]])
    assert translation_accuracy(source, target) == (0.5, 1.0)
    assert translation_accuracy(target, source) == (1.0, 0.5)


def test_blocks_never_change_the_result():
    rng = np.random.default_rng(5)
    # Few distinct vectors: nearly every neighbour is a tie.
    source = rng.normal(size=(9, 48)).astype(np.float32)[rng.integers(0, 9, 131)]
    target = source[rng.permutation(131)] + np.float32(0)
    whole = translation_accuracy(source, target, block_size=1000)
    assert whole == brute_force(source, target)
    for block_size in (1, 2, 3, 16, 64, 130, 131, 132):
        assert translation_accuracy(source, target, block_size=block_size) == whole


def test_a_tie_is_a_hit_for_the_lowest_row_only():
    same = np.ones((4, 3))
    assert translation_accuracy(same, same) == (0.25, 0.25)
    # Rows 1 and 3 are copies: row 3's neighbour is row 1.
    rows = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0, 1.0, 0]])
    assert translation_accuracy(rows, rows) == (0.75, 0.75)


def test_one_row_and_rows_of_zeros():
    assert translation_accuracy([[3.0, 4.0]], [[-1.0, 0.0]]) == (1.0, 1.0)
    # The zeros tie everywhere: row 0. Target 1 is orthogonal to both: row 0.
    assert translation_accuracy([[0.0, 0.0], [1.0, 0.0]], np.eye(2)) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (np.ones((2, 3)), np.ones((3, 3)), Fields("(2, 3)", "(3, 3)")),
        (np.ones((2, 3)), np.ones((2, 4)), Fields("(2, 3)", "(2, 4)")),
        (np.ones((0, 3)), np.ones((0, 3)), Fields(received="(0, 3)")),
        (np.ones(3), np.ones(3), Fields("source_vectors")),
        (np.ones((1, 1)), [[np.nan]], Fields("target_vectors", 0)),
        ([[1.0], [1.0, 2.0]], np.ones((2, 1)), Fields("source_vectors")),
        ([["a"]], [["b"]], Fields(received=True)),
    ],
)
def test_bad_matrices(source, target, message):
    with raises(ValueError, message):
        translation_accuracy(source, target)


def test_bad_block_size():
    with raises(ValueError, "block_size", received=0):
        translation_accuracy([[1.0]], [[1.0]], block_size=0)


# === Tatoeba ===


class PlantedEncoder:
    """A vector a sentence, by its first word; counts what it is asked for."""

    def __init__(self, dimension=16):
        self.seen = []
        self._dimension = dimension

    def __call__(self, sentences):
        assert isinstance(sentences, list)
        assert all(isinstance(sentence, str) for sentence in sentences)
        self.seen += sentences
        return np.stack([self._vector(sentence) for sentence in sentences])

    def _vector(self, sentence):
        key, _, noise = sentence.partition(" ")
        rng = np.random.default_rng(int(key))
        return 5 * rng.normal(size=self._dimension) + 0.01 * len(noise)


@pytest.fixture
def folder(tmp_path):
    """Two languages: Hindi's last two sentences are swapped, of four; Chinese fits."""
    write_pair(tmp_path, "hin", ["1 a", "2 a", "4 a", "3 a"], ["1", "2", "3", "4"])
    write_pair(tmp_path, "cmn", ["1 b", "2 b", "5 b"], ["1", "2", "5"])
    (tmp_path / "LASER-LICENSE").write_text("text")
    return tmp_path


def test_planted_neighbours(folder):
    encode = PlantedEncoder()
    result = tatoeba(encode, folder)
    assert result.forward == result.backward == {"hi": 0.5, "zh": 1.0}
    assert result.accuracy == {"hi": 0.5, "zh": 1.0}
    assert result.counts == {"hi": 4, "zh": 3}
    # A language counts the same, however many sentences it has.
    assert result.mean_accuracy == 0.75
    assert result.group_means["14"] == (0.75, 2, 14)
    assert result.group_means["112"] == (0.75, 2, 112)


def test_each_sentence_is_encoded_once(folder):
    encode = PlantedEncoder()
    tatoeba(encode, folder)
    english = [sentence for sentence in encode.seen if " " not in sentence]
    assert sorted(english) == ["1", "2", "3", "4", "5"]
    assert len(encode.seen) == len(set(encode.seen)) == 5 + 4 + 3


def test_repeated_sentences_within_a_language(tmp_path):
    write_pair(tmp_path, "fra", ["1 a", "1 a", "2 a"], ["1", "1 x", "2"])
    encode = PlantedEncoder()
    result = tatoeba(encode, tmp_path)
    assert sorted(encode.seen) == ["1", "1 a", "1 x", "2", "2 a"]
    # fr -> en: both copies have one neighbour; en -> fr: row 1 finds copy 0.
    assert result.counts == {"fr": 3}
    assert result.forward == {"fr": pytest.approx(2 / 3)}
    assert result.backward == {"fr": pytest.approx(2 / 3)}


def test_directions_are_named_right(tmp_path):
    # As matrices: source [[1, 0], [0, 1]], target [[2, .1], [3, 1]].
    write_pair(tmp_path, "deu", ["a", "b"], ["c", "d"])
    vectors = {"a": [1, 0], "b": [0, 1], "c": [2, 0.1], "d": [3, 1]}
    result = tatoeba(lambda s: [vectors[x] for x in s], tmp_path)
    assert result.forward == {"de": 1.0}  # de -> en
    assert result.backward == {"de": 0.5}  # en -> de
    assert result.accuracy == {"de": 0.75}


def test_random_vectors_equal_brute_force(tmp_path):
    rng = np.random.default_rng(0)
    n = 30
    write_pair(
        tmp_path, "tam", [f"{i} t" for i in range(n)], [str(i) for i in range(n)]
    )
    source = rng.normal(size=(n, 8))
    target = source + rng.normal(size=(n, 8))

    def encode(sentences):
        return np.stack(
            [(source if " " in s else target)[int(s.split()[0])] for s in sentences]
        )

    result = tatoeba(encode, tmp_path, ["tam"], block_size=7)
    assert (result.forward["ta"], result.backward["ta"]) == brute_force(source, target)
    assert 0 < result.accuracy["ta"] < 1


def test_request_of_languages(folder):
    for request in (["zho-CN", "zh"], "cmn", ("Chinese",), iter(["zh"])):
        assert list(tatoeba(PlantedEncoder(), folder, request).counts) == ["zh"]
    assert list(tatoeba(PlantedEncoder(), folder, ["zh", "hi"]).counts) == ["zh", "hi"]
    with raises(ValueError, received=True):
        tatoeba(PlantedEncoder(), folder, ["hi", "ta", "fr"])
    with raises(ValueError, received=True):
        tatoeba(PlantedEncoder(), folder, "14")
    with raises(ValueError, received=True):
        tatoeba(PlantedEncoder(), folder, [])


def test_progress_is_told(folder):
    told = []
    tatoeba(PlantedEncoder(), folder, progress=lambda *step: told.append(step))
    assert [total for _, total in told] == [told[-1][0]] * 2


def test_folder_is_missing_or_has_no_files(tmp_path):
    with raises(FileNotFoundError, path=tmp_path / "absent"):
        tatoeba(no_encoding, tmp_path / "absent")
    with raises(ValueError, "tatoeba.XXX-eng.XXX", received=True):
        tatoeba(no_encoding, tmp_path)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(NotADirectoryError):
        tatoeba(no_encoding, file)


@pytest.mark.parametrize("end", ["hin", "eng"])
def test_one_file_of_two(folder, end):
    (folder / f"tatoeba.hin-eng.{end}").unlink()
    with raises(ValueError, f"tatoeba.hin-eng.{end}"):
        tatoeba(no_encoding, folder)


def test_files_of_other_names_are_left_alone(folder):
    for name in ("tatoeba.hin-eng.zzz", "tatoeba.hin-eng.hin~", "tatoeba.hin-fra.hin"):
        (folder / name).write_bytes(b"\xff")
    assert tatoeba(PlantedEncoder(), folder).counts == {"hi": 4, "zh": 3}


def test_files_of_different_length(folder):
    write_pair(folder, "hin", ["1 a", "2 a"], ["1", "2", "3"])
    with pytest.raises(DataError) as caught:
        tatoeba(no_encoding, folder)
    assert caught.value.path == folder / "tatoeba.hin-eng.hin"
    assert caught.value.line == 3  # the first that is missing


def test_invalid_utf8_names_file_and_line(folder):
    path = folder / "tatoeba.hin-eng.hin"
    path.write_bytes("नमस्ते\n".encode() + b"\xff\xfe\nx\ny\n")
    with pytest.raises(DataError) as caught:
        tatoeba(no_encoding, folder)
    assert (caught.value.path, caught.value.line) == (path, 2)
    assert "UTF-8" in caught.value.expected


def test_empty_file(folder):
    (folder / "tatoeba.hin-eng.hin").write_bytes(b"")
    with raises(DataError, received=True) as caught:
        tatoeba(no_encoding, folder)
    assert caught.value.path == folder / "tatoeba.hin-eng.hin"


def test_files_in_every_compression(folder):
    expected = tatoeba(PlantedEncoder(), folder)
    for number, path in enumerate(sorted(folder.glob("tatoeba.*"))):
        ending, compress = ((".gz", gzip.compress), (".xz", lzma.compress))[number % 2]
        content = compress(path.read_bytes())
        path.with_name(path.name + ending).write_bytes(content)
        if number == 0:
            with raises(ValueError, path.name, f"{path.name}.gz"):
                tatoeba(no_encoding, folder)
        path.unlink()
    assert tatoeba(PlantedEncoder(), folder) == expected


def test_two_spellings_of_one_language(folder):
    write_pair(folder, "zho", ["1"], ["1"])
    with raises(ValueError, "cmn-eng.cmn", "zho-eng.zho", "'zh'"):
        tatoeba(no_encoding, folder)


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda s: np.full((len(s), 4), np.nan), Fields(4)),
        (lambda s: np.ones((len(s) - 1, 4)), Fields(4, "(3, 4)")),
        (lambda s: np.ones(len(s)), Fields(received="(4,)")),
        (lambda s: None, Fields(received=True)),
        (
            lambda s: [["a"]] * len(s),
            Fields("hi", received=True),
        ),
        (
            lambda s: np.ones((len(s), 4 if " " in s[0] else 5)),
            Fields(4, 5, received=True),
        ),
        (
            lambda s: np.ones((len(s), 5 if "5" in s else 4)),
            Fields(4, 5, received=True),
        ),
    ],
)
def test_an_encoder_that_breaks_its_contract(folder, encode, message):
    with raises(ValueError, message):
        tatoeba(encode, folder, ["hi", "zh"])


def test_json(folder):
    for result in (
        tatoeba(PlantedEncoder(), folder),
        some_result(TATOEBA_GROUPS["112"]),
    ):
        values = json.loads(json.dumps(result.to_dict()))
        assert values["mean_accuracy"] == result.mean_accuracy
        assert values["languages"]["hi"]["name"] == "Hindi"
        assert values["groups"]["14"]["size"] == 14


def test_means_over_groups():
    result = some_result(TATOEBA_GROUPS["36"])
    means = result.group_means
    for name in ("14", "36"):
        expected = np.mean([result.accuracy[code] for code in TATOEBA_GROUPS[name]])
        assert means[name] == (pytest.approx(expected), int(name), int(name))
    assert means["112"][1:] == (36, 112)
    assert some_result(["ta"]).group_means["14"] == (None, 0, 14)


def test_table():
    lines = some_result(TATOEBA_GROUPS["36"]).table().splitlines()
    assert len(lines) == 1 + 1 + 36 + 1 + 4
    assert re.search(r"LaBSE\D+95\.3", lines[-3])
    assert re.search(r"LaBSE\D+95\.0", lines[-2])
    assert re.search(r"\b36\D+112\b", lines[-1]) and "LaBSE" not in lines[-1]
    # Every number of a column ends at the same place; best language first.
    means = [float(line.split()[-1]) for line in lines[2:38]]
    assert means == sorted(means, reverse=True)
    assert len({len(line) for line in lines[2:38]}) == 1
    one = TatoebaResult({"hi": 1.0}, {"hi": 0.5}, {"hi": 7}).table()
    row = next(line for line in one.splitlines() if line.startswith("hi"))
    assert row.split() == ["hi", "Hindi", "7", "100.0", "50.0", "75.0"]
    assert re.search(r"\b1 language\b", one)


def test_plot_is_a_png_that_grows_with_the_languages(tmp_path):
    pytest.importorskip("matplotlib")
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    some_result(["hi", "ta"]).plot(small)
    some_result(TATOEBA_GROUPS["112"]).plot(large)
    (width, height), (large_width, large_height) = png_size(small), png_size(large)
    assert 600 < width < 1200 and 120 < height < 500
    assert 600 < large_width < 1200 and 1800 < large_height < 3500
    assert sorted(p.name for p in tmp_path.iterdir()) == ["large.png", "small.png"]


def test_plot_leaves_nothing_half_written(tmp_path):
    pytest.importorskip("matplotlib")
    some_result(["hi"]).plot(tmp_path / "new" / "plot.png")
    (tmp_path / "plot.png").mkdir()
    with raises(OSError, "plot.png"):
        some_result(["hi"]).plot(tmp_path / "plot.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "plot.png"]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["plot.png"]


def test_plot_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with raises(ImportError, "'labse-tf[plots]'"):
        some_result(["hi"]).plot(tmp_path / "plot.png")


def test_the_release_with_a_bag_of_letters(shared):
    """Real files through the whole of it: related scripts must beat chance by far."""

    def encode(sentences):
        vectors = np.zeros((len(sentences), 512), np.float32)
        for row, sentence in enumerate(sentences):
            text = f" {sentence.lower()} "
            for i in range(len(text) - 2):
                vectors[row, hash_of(text[i : i + 3]) % 512] += 1
        return vectors

    def hash_of(text):
        return sum(ord(c) * 31**i for i, c in enumerate(text))

    result = tatoeba(encode, shared / "tatoeba", ["nds", "spa", "hin"])
    assert result.counts == {"nds": 1000, "es": 1000, "hi": 1000}
    assert result.accuracy["es"] > 0.1 > result.accuracy["hi"]


def test_tatoeba_takes_what_was_trained(folder):
    result = tatoeba(PlantedEncoder(), folder, trained=["Hindi"])
    assert result.zero_shot == ("zh",)
    assert isinstance(result, TatoebaResult)


# === Published ===


def test_published_means_stand_beside_a_whole_group_only():
    table = some_result(TATOEBA_GROUPS["112"]).table()
    lines = table.splitlines()[-5:]
    assert re.search(r"\b112 languages\b", lines[0])
    assert re.search(r"LaBSE\D+83\.7\)$", lines[0])
    assert [line.split()[1:] for line in lines[1:]] == [
        ["LEALLA-large", "83.5"],
        ["LEALLA-base", "82.4"],
        ["LEALLA-small", "80.7"],
        ["LASER", "65.5"],
    ]
    # In the column of the means.
    assert {len(line) for line in lines[1:]} == {lines[0].index("  (LaBSE")}
    assert "LASER" not in some_result(TATOEBA_GROUPS["112"][1:]).table()
    groups = some_result(["hi"]).to_dict()["groups"]
    assert groups["112"]["published"]["LASER"] == 0.655
    assert groups["14"]["published"] == {"LaBSE": 0.953}
    for group in TATOEBA_GROUPS:
        assert all(group in TATOEBA_GROUPS for group in TATOEBA_PUBLISHED["LaBSE"])
        assert group in TATOEBA_PUBLISHED["LaBSE"]
