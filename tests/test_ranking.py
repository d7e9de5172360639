"""Accuracy among pools, zero-shot languages, xSIM: against a sort of all cosines."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from helpers.errors import Fields, check_message, raises
from helpers.evaluation import no_encoding, png_size, some_result
from labse_tf import cli
from labse_tf.cli import evaluate
from labse_tf.evaluation import (
    RetrievalResult,
    retrieval,
    trained_codes,
    xsim,
)
from labse_tf.evaluation import pool as pool_module


def letters(sentences):
    """A bag of letters: few sentences of the tests have the same, some have none."""
    vectors = np.zeros((len(sentences), 26), np.float32)
    for row, sentence in enumerate(sentences):
        for letter in sentence.lower():
            if "a" <= letter <= "z":
                vectors[row, ord(letter) - 97] += 1
    return vectors


# === Pools ===


def few_words(rng, count, length=2):
    """Sentences of few letters: many have the same vector, some the same text."""
    return ["".join(word) for word in rng.choice(list("abcxyz"), (count, length))]


def accuracy_among(encode, queries, translations, pool):
    """Share of queries whose translation is nearest, over a sort of all candidates."""
    known = set(translations)
    candidates = [*translations, *(text for text in pool if text not in known)]
    both = [np.asarray(encode(texts), np.float64) for texts in (queries, candidates)]
    q, c = (v / np.maximum(np.linalg.norm(v, axis=1), 1e-30)[:, None] for v in both)
    order = np.argsort(-(q @ c.T).round(7).astype(np.float32), axis=1, kind="stable")
    return float(np.mean(order[:, 0] == np.arange(len(queries)))), len(candidates)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("block_size", "stream"), [(1, 1), (3, 7), (1024, 8192)])
def test_pools_equal_a_sort_of_all_candidates(seed, block_size, stream, monkeypatch):
    rng = np.random.default_rng(seed)
    pairs = {
        code: (few_words(rng, count, 3), few_words(rng, count, 3))
        for code, count in (("hi", 12), ("ta", 1), ("fr", 30))
    }
    # Some translations that are near, and copies of own sentences among the others.
    pairs["fr"][1][:20] = [text[::-1] for text in pairs["fr"][0][:20]]
    pool = {
        "en": few_words(rng, 40, 4) + pairs["fr"][0][:5],
        "fr": few_words(rng, 25, 2) + pairs["fr"][1][3:9],
    }
    monkeypatch.setattr(pool_module, "_BLOCK", stream)
    result = retrieval(
        letters,
        pairs,
        # One goes by once, the other is vectors.
        pool={"en": iter(pool["en"]), "fr": letters(pool["fr"]).astype(np.float64)},
        block_size=block_size,
    )
    for code, (english, others) in pairs.items():
        forward = accuracy_among(letters, others, english, pool["en"])
        assert (result.forward[code], result.candidates[code][0]) == forward
        backward = accuracy_among(letters, english, others, pool.get(code, []))
        assert result.backward[code] == backward[0]
    # Of vectors nobody knows which are of sentences that are there already.
    assert result.candidates["fr"][1] == 30 + len(pool["fr"])
    assert result.candidates["ta"] == (
        1 + 45 - len({*pairs["ta"][0]} & {*pool["en"]}),
        1,
    )
    assert 0 < result.forward["fr"] < 1


def test_a_pool_of_nothing_changes_nothing():
    pairs = {"de": (["abc", "abd", "xyz"], ["abcc", "abe", "yx"])}
    plain = retrieval(letters, pairs)
    for pool in ({"en": []}, {"de": np.zeros((0, 26))}, {"en": pairs["de"][0]}):
        result = retrieval(letters, pairs, pool=pool)
        assert (result.forward, result.backward) == (plain.forward, plain.backward)
        assert result.candidates == {"de": (3, 3)}
    assert plain.candidates is None


def test_a_copy_of_the_translation_is_no_error_and_what_is_nearer_is():
    pairs = {"de": (["abc"], ["abcd"])}

    def forward(*pool):
        return retrieval(letters, pairs, pool={"en": pool}).forward["de"]

    assert forward("abc", "abc") == 1.0
    # The same letters in another sentence, so the same vector: of equals the first.
    assert forward("cba") == 1.0
    assert forward("dcba") == 0.0
    # Who sees vectors only has the copy as a tie.
    assert forward() == 1.0
    vectors = letters(["abc", "cba"])
    assert retrieval(letters, pairs, pool={"en": vectors}).forward["de"] == 1.0


def test_a_pool_is_encoded_once_in_blocks_and_told(monkeypatch, tmp_path):
    monkeypatch.setattr(pool_module, "_BLOCK", 4)
    pairs = {code: (["abc", "xy"], [code, "yx"]) for code in ("hi", "ta")}
    calls, told = [], []

    def encode(sentences):
        calls.append(len(sentences))
        return letters(sentences)

    vectors = tmp_path / "vectors.npy"
    np.save(vectors, letters(few_words(np.random.default_rng(0), 9)))
    pool = {"en": [f"b{i}" for i in range(10)], "ta": np.load(vectors, "r")}
    retrieval(encode, pairs, pool=pool, progress=lambda *step: told.append(step))
    # Two languages, English once; then the pool of both languages once.
    assert calls == [2, 2, 2, 4, 4, 2]
    assert told == [(done, 27) for done in (4, 8, 12, 16, 18, 22, 26, 27)]
    # Of a generator nobody knows the length.
    pool = {"en": iter(["b"])}
    retrieval(encode, pairs, pool=pool, progress=lambda *step: told.append(step))
    assert told[-3:] == [(4, 0), (8, 0), (9, 0)]


def not_finite_at(text):
    def encode(sentences):
        vectors = letters(sentences)
        vectors[[sentence == text for sentence in sentences]] = np.nan
        return vectors

    return encode


@pytest.mark.parametrize(
    ("encode", "pool", "message"),
    [
        (letters, {"fr": ["a"]}, Fields(received="'fr'")),
        (letters, {"en": "file.txt"}, Fields("'en'", received="str")),
        (letters, {"en": 3}, Fields("'en'", received="int")),
        (letters, {"en": np.ones(3)}, Fields(received="(3,)")),
        (letters, {"de": np.ones((2, 3))}, Fields("'de'", 26, received=3)),
        (
            letters,
            {"de": np.r_[np.ones((10, 26)), [[np.nan] * 26]]},
            Fields("'de'", 1, 10),
        ),
        (
            not_finite_at("bad"),
            {"en": ["a"] * 13 + ["bad"]},
            Fields("'en'", 13, "'bad'"),
        ),
        (not_finite_at("abd"), {}, Fields(1, "'abd'")),
    ],
)
def test_bad_pools_and_rows(encode, pool, message, monkeypatch):
    monkeypatch.setattr(pool_module, "_BLOCK", 5)
    pairs = {"de": (["abc", "abd"], ["abcc", "abe"])}
    with raises(ValueError, message):
        retrieval(encode, pairs, pool=pool)


# === Zero-shot ===


def test_languages_that_were_not_trained_stand_apart():
    codes = ["hi", "zh-Hant", "pa-Arab", "fr", "pt-BR"]
    result = dataclasses.replace(
        RetrievalResult(
            dict(zip(codes, (0.5, 0.25, 0.75, 1.0, 0.0), strict=True)),
            dict(zip(codes, (0.5, 0.75, 0.25, 1.0, 0.5), strict=True)),
            dict.fromkeys(codes, 10),
        ),
        trained=trained_codes(["hin", "Chinese", "pa", "en", "fra_Latn"]),
    )
    # In any script; a region is no language.
    assert result.zero_shot == ("pt-BR",)
    assert result.training_means == {"trained": 0.625, "zero-shot": 0.25}
    lines = result.table().splitlines()
    assert [line.split()[0] for line in lines if line[0] != "-"] == [
        *("code", "fr", "hi", "pa-Arab", "zh-Hant", "mean", "pt-BR", "mean", "mean"),
    ]
    assert lines[7].startswith("mean of 4 trained languages")
    assert lines[7].split()[-3:] == ["62.5", "62.5", "62.5"]
    assert lines[11].startswith("mean of 1 zero-shot language ")
    assert lines[13].split() == [
        "mean",
        "of",
        "5",
        "languages",
        "50",
        "50.0",
        "60.0",
        "55.0",
    ]
    values = json.loads(json.dumps(result.to_dict()))
    assert values["training_means"]["zero-shot"] == 0.25
    assert values["trained"] == ["hi", "zh", "pa", "en", "fr"]
    assert [c for c, row in values["languages"].items() if row["zero_shot"]] == [
        "pt-BR"
    ]


def test_all_trained_or_nobody_knows():
    tatoeba = some_result(["hi", "ta"])
    result = RetrievalResult(tatoeba.forward, tatoeba.backward, tatoeba.counts)
    assert result.zero_shot == () and result.training_means == {}
    assert "trained" not in result.table() and "trained" not in result.to_dict()
    trained = dataclasses.replace(result, trained=("hi", "ta", "te"))
    assert list(trained.training_means) == ["trained"]
    assert re.search(r"\b2 trained\b", trained.table())
    assert len(trained.table().splitlines()) == len(result.table().splitlines())
    none = dataclasses.replace(result, trained=())
    assert list(none.training_means) == ["zero-shot"]
    assert trained_codes(None) is None
    assert trained_codes("hin") == ("hi",)
    with raises(ValueError, received="'not a code'"):
        trained_codes(["not a code"])


def test_a_plot_with_both_kinds_of_languages(tmp_path):
    pytest.importorskip("matplotlib")
    result = dataclasses.replace(some_result(["hi", "ta", "te"]), trained=("hi",))
    result.plot(tmp_path / "both.png")
    assert png_size(tmp_path / "both.png")[0] > 600


def test_candidates_in_table_and_json():
    pairs = {"de": (["abc", "xyz"], ["abcc", "zyx"]), "fr": (["a"], ["a"])}
    result = retrieval(letters, pairs, pool={"de": ["q"] * 5})
    lines = result.table().splitlines()
    assert lines[0].split()[2:] == [
        "pairs",
        "in",
        "en",
        "in",
        "XX",
        *lines[0].split()[7:],
    ]
    assert lines[2].split() == [
        "de",
        "German",
        "2",
        "2",
        "7",
        "100.0",
        "100.0",
        "100.0",
    ]
    assert lines[3].split()[2:5] == ["1", "1", "1"]
    assert lines[5].split()[-4:] == ["3", "100.0", "100.0", "100.0"]
    assert len({len(line) for line in lines[2:4]}) == 1
    candidates = result.to_dict()["languages"]["de"]["candidates"]
    assert candidates == {"english": 2, "language": 7}


# === xSIM ===


def xsim_errors(source, target, margin, k):
    """LASER's xSIM a sentence at a time; of equal scores the lower row first."""
    unit = [
        v / np.maximum(np.linalg.norm(v, axis=1), 1e-30)[:, None]
        for v in (source, target)
    ]
    cosines = (unit[0] @ unit[1].T).round(7)
    k = min(k, len(source))

    def nearest(row):
        return np.argsort(-row, kind="stable")[:k]

    means = [
        np.array([row[nearest(row)].mean() for row in m]) for m in (cosines, cosines.T)
    ]
    errors = 0
    for i, row in enumerate(cosines):
        best, where = -np.inf, -1
        for j in sorted(nearest(row)):
            mean = (means[0][i] + means[1][j]) / 2
            score = {
                "ratio": row[j] / max(mean, 1e-6),
                "distance": row[j] - mean,
                "cosine": row[j],
            }[margin]
            score = np.float32(score)
            if score > best:
                best, where = score, j
        errors += where != i
    return errors / len(source)


@pytest.mark.parametrize("margin", ["ratio", "distance", "cosine"])
@pytest.mark.parametrize(("rows", "k"), [(1, 4), (3, 4), (25, 1), (25, 4), (25, 40)])
def test_xsim_equals_brute_force(margin, rows, k):
    rng = np.random.default_rng(rows + k)
    # Few distinct vectors, so with ties; and all sentences different.
    source = rng.normal(size=(7, 6))[rng.integers(0, 7, rows)]
    target = source + 0.8 * rng.normal(size=(rows, 6)).round(1)

    def encode(sentences):
        sides = {"s": source, "t": target}
        return np.stack([sides[s[0]][int(s[1:])] for s in sentences])

    pairs = {"ta": ([f"t{i}" for i in range(rows)], [f"s{i}" for i in range(rows)])}
    source, target = source.astype(np.float32), target.astype(np.float32)
    expected = (
        xsim_errors(source.astype(float), target.astype(float), margin, k),
        xsim_errors(target.astype(float), source.astype(float), margin, k),
    )
    for block_size in (2, 1024):
        result = xsim(encode, pairs, margin=margin, k=k, block_size=block_size)
        found = 1 - result.forward["ta"], 1 - result.backward["ta"]
        assert found == pytest.approx(expected, abs=1e-12)
        assert result.error_rate["ta"] == pytest.approx(sum(expected) / 2, abs=1e-12)


def test_xsim_without_a_margin_is_what_retrieval_misses():
    rng = np.random.default_rng(3)
    pairs = {"fr": (few_words(rng, 40, 4), few_words(rng, 40, 4))}
    result, other = xsim(letters, pairs, margin="cosine"), retrieval(letters, pairs)
    assert result.forward == other.forward and result.backward == other.backward


def test_xsim_by_text():
    pairs = {"de": (["abc", "abc", "xyz"], ["abcd", "abce", "xyzq"])}
    by_row, by_text = (xsim(letters, pairs, match=match) for match in ("row", "text"))
    # Both sources of "abc" find the first copy.
    assert by_row.forward == {"de": pytest.approx(2 / 3)}
    assert by_text.forward == {"de": 1.0}
    assert by_text.table() != by_row.table()


def test_xsim_results():
    pairs = {"de": (["abc", "xyz"], ["abcc", "zyx"]), "hi": (["q", "r"], ["r", "q"])}
    told = []
    result = xsim(
        letters,
        pairs,
        k=1,
        trained=["de"],
        progress=lambda *step: told.append(step),
    )
    assert told == [(4, 8), (8, 8)]
    assert result.error_rate == {"de": 0.0, "hi": 1.0}
    assert result.mean_error_rate == 0.5
    lines = result.table().splitlines()
    assert lines[0] == "xSIM error rate, margin ratio, k 1"
    assert lines[3].split() == ["de", "German", "2", "0.0", "0.0", "0.0"]
    assert lines[-1].split()[-3:] == ["50.0", "50.0", "50.0"]
    values = json.loads(json.dumps(result.to_dict()))
    assert values["task"] == "xsim" and values["mean_error_rate"] == 0.5
    assert values["languages"]["hi"]["error_rate"] == 1.0
    assert result.scores() == [("xSIM error rate (lower is better)", 2, 0.5)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": "absolute"}, Fields(received="'absolute'")),
        ({"match": "id"}, Fields(received="'id'")),
        ({"k": 0}, Fields(received=0)),
    ],
)
def test_bad_options_of_xsim(options, message):
    with raises(ValueError, message):
        xsim(no_encoding, {"de": (["a"], ["b"])}, **options)


# === Commands ===


@pytest.fixture
def run(monkeypatch):
    """Runs `labse-tf evaluate` on the bag of letters."""
    monkeypatch.setattr(evaluate, "open_encoder", lambda options: letters)

    def run(test, *arguments):
        return cli.main(["evaluate", test, "--model", "letters", *map(str, arguments)])

    return run


@pytest.fixture
def pair_files(tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    (folder / "en-de.tsv").write_text("abc\tabcd\nxyz\txyzq\n", encoding="utf-8")
    (folder / "en-fr.tsv").write_text("abc\txyz\nxyz\tabc\n", encoding="utf-8")
    return folder


def test_command_with_pools(run, pair_files, tmp_path, capsys):
    english, german = tmp_path / "news.en.txt", tmp_path / "news.de.npy"
    english.write_text("dcba\n\nabc\n", encoding="utf-8")
    np.save(german, letters(["zyx"]))
    scores = tmp_path / "scores.json"
    common = (pair_files, "--languages", "de", "--json", scores)
    assert run("retrieval", *common, "--pool", english, german) == 0
    assert re.search(r"\ben\b", capsys.readouterr().out)
    row = json.loads(scores.read_text())["languages"]["de"]
    # "abcd" finds "dcba", which is nearer than "abc"; "xyz" finds "zyx".
    assert (row["forward"], row["backward"]) == (0.5, 0.5)
    assert row["candidates"] == {"english": 3, "language": 3}
    # Pairs have sentences of both languages.
    more = tmp_path / "en-de.tsv"
    more.write_text("dcba\tzyx\n", encoding="utf-8")
    assert run("retrieval", *common, "--pool", more) == 0
    assert json.loads(scores.read_text())["languages"]["de"] == row
    more.write_text("no tab\ndcba\tzyx\n", encoding="utf-8")
    assert run("retrieval", *common, "--pool", more, "--on-error", "skip") == 0
    assert "en-de.tsv:1" in capsys.readouterr().err


def test_commands_know_what_was_trained(run, pair_files, tmp_path, capsys):
    def said(*arguments):
        assert run(*arguments) == 0
        return capsys.readouterr().out

    assert "zero-shot" not in said("retrieval", pair_files)
    table = said("retrieval", pair_files, "--trained", "de")
    assert re.search(r"\b1 zero-shot\b", table)
    assert table.index("de ") < table.index("fr ")
    # Of a model with a card, without a flag.
    card = tmp_path / "README.md"
    card.write_text("---\nlanguage:\n- fr\n- en\n---\n# Model\n", encoding="utf-8")
    table = said("xsim", pair_files, "--model", tmp_path, "--margin", "distance")
    assert re.search(r"\b1 trained\b", table)
    assert "trained" not in said("xsim", pair_files, "--model", tmp_path, "--trained")
    card.write_text("---\nlanguage: multilingual\n---\n", encoding="utf-8")
    assert "trained" not in said("xsim", pair_files, "--model", tmp_path)
    plot = tmp_path / "plot.png"
    assert "plot: " in said("xsim", pair_files, "--trained", "de", "--plot", plot)
    assert png_size(plot)[0] > 600


@pytest.mark.parametrize(
    ("arguments", "content", "message"),
    [
        (("retrieval", "--pool"), ("news.txt", b"a\n"), Fields(path="news.txt")),
        (
            ("retrieval", "--pool"),
            ("a.hi.txt", b"a\n"),
            Fields("news.de.txt", received="hi"),
        ),
        (
            ("retrieval", "--pool"),
            ("a.en.txt", b"a\n\xff\n"),
            Fields(path="a.en.txt", line=2),
        ),
        (
            ("retrieval", "--pool"),
            ("a.en.txt.gz", b"\x1f\x8b\x08"),
            Fields("a.en.txt.gz:1"),
        ),
        (
            ("retrieval", "--pool"),
            ("a.en.npy", b"text"),
            Fields(path="a.en.npy"),
        ),
        (
            ("retrieval", "--trained", "not a code", "--pool"),
            ("a.en.txt", b"a\n"),
            Fields(received="'not a code'"),
        ),
        (("xsim", "--k"), "0", Fields(argument="--k", received=0)),
    ],
)
def test_bad_input_of_commands(
    run, pair_files, tmp_path, capsys, monkeypatch, arguments, content, message
):
    def no_model(name):
        raise AssertionError("the files are looked at before the model is loaded")

    monkeypatch.setattr(evaluate, "open_encoder", no_model)
    if isinstance(content, tuple):
        path = tmp_path / content[0]
        path.write_bytes(content[1])
        content = path
    assert run(arguments[0], pair_files, *arguments[1:], content) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("labse-tf: ")
    check_message(lines[0], message, received=True)


def test_two_files_of_vectors_or_both_kinds(run, pair_files, tmp_path, capsys):
    first, second = tmp_path / "a.en.npy", tmp_path / "b.en.npy"
    text = tmp_path / "c.en.txt"
    for path in (first, second):
        np.save(path, letters(["abc"]))
    text.write_text("abc\n")
    assert run("retrieval", pair_files, "--pool", first, second) == 2
    check_message(capsys.readouterr().err, received="'en'")
    assert run("retrieval", pair_files, "--pool", first, text) == 2
    check_message(capsys.readouterr().err, "en", received=True)
    np.save(first, np.ones(3))
    assert run("retrieval", pair_files, "--pool", first) == 2
    check_message(capsys.readouterr().err, path=first, received="(3,)")
