"""BUCC against planted data with a known answer and against brute force."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import json
import lzma
import math
import re
import struct
import sys
from fractions import Fraction

import numpy as np
import pytest

from helpers.errors import Fields, raises
from labse_tf import cli
from labse_tf.cli import evaluate
from labse_tf.evaluation import (
    BUCC_GOLD_PAIRS,
    BUCC_PUBLISHED,
    BuccReport,
    BuccResult,
    best_threshold,
    bucc,
    bucc_files,
    bucc_report,
)
from labse_tf.evaluation.bucc_files import find_bucc_files, pair_name, read_bucc
from labse_tf.text import DataError

# === The threshold ===


def brute_force(scores, right, gold):
    """(F, found, right) of the first best cut, over all scores, the highest first."""
    best = (Fraction(-1), 0, 0)
    for score in sorted(set(scores), reverse=True):
        kept = [r for s, r in zip(scores, right, strict=True) if s >= score]
        f1 = Fraction(2 * sum(kept), len(kept) + gold)
        if f1 > best[0]:
            best = (f1, len(kept), sum(kept))
    return best


@pytest.mark.parametrize("levels", [1, 2, 3, 10, 1000])
def test_threshold_is_that_of_brute_force_with_ties(levels):
    rng = np.random.default_rng(levels)
    for size in (1, 2, 3, 5, 20, 50):
        for _ in range(20):
            scores = (rng.integers(0, levels, size) / 7).astype(np.float32)
            right = rng.random(size) < rng.choice([0.1, 0.5, 0.9])
            gold = int(right.sum() + rng.integers(0, 3)) or 1
            cut = best_threshold(scores, right, gold)
            _, found, rights = brute_force(scores.tolist(), right.tolist(), gold)
            assert (cut.found, cut.right) == (found, rights)
            # What the threshold keeps is what was counted.
            kept = scores.astype(np.float64) >= cut.threshold
            assert (kept.sum(), (kept & right).sum()) == (found, rights)
            assert type(cut.found) is type(cut.right) is int


@pytest.mark.parametrize(
    ("scores", "right", "gold", "expected"),
    [
        # Best at the first item: halfway to the second.
        ([0.75, 0.5, 0.25], [1, 0, 0], 1, (0.625, 1, 1)),
        # Best at the last one: its own score, there is no next.
        ([0.75, 0.5, 0.25], [0, 0, 1], 1, (0.25, 3, 1)),
        ([0.75, 0.5, 0.25], [1, 1, 1], 3, (0.25, 3, 3)),
        ([0.25], [1], 5, (0.25, 1, 1)),
        # Taken apart, the tie's right one alone would have F = 1.
        ([0.5, 0.5, 0.25], [1, 0, 0], 1, (0.375, 2, 1)),
        ([0.5, 0.5, 0.25], [0, 1, 0], 1, (0.375, 2, 1)),
        ([0.5, 0.5], [0, 1], 1, (0.5, 2, 1)),
        # F is 1/2 at the first and at the second cut: the higher threshold.
        ([0.75, 0.5, 0.25], [1, 0, 1], 3, (0.25, 3, 2)),
        ([1.0, 0.75, 0.5, 0.25], [1, 0, 0, 1], 1 + 1, (0.875, 1, 1)),
        # Nothing is right: as little as possible.
        ([0.75, 0.5, 0.25], [0, 0, 0], 2, (0.625, 1, 0)),
        # Unsorted, and below zero.
        ([-0.5, 0.25, -0.25], [0, 1, 1], 2, (-0.375, 2, 2)),
    ],
)
def test_threshold_by_hand(scores, right, gold, expected):
    assert best_threshold(scores, np.array(right, bool), gold) == expected


def test_threshold_lies_between_neighbouring_float32():
    high = np.float32(0.5)
    low = np.nextafter(high, np.float32(0))
    cut = best_threshold(np.array([low, high]), [False, True], gold=1)
    assert float(low) < cut.threshold < float(high)


@pytest.mark.parametrize(
    ("scores", "right", "gold", "message"),
    [
        ([], [], 1, Fields(received="(0,)")),
        ([1.0], [True, False], 1, Fields("(1,)", "(2,)")),
        ([[1.0]], [[True]], 1, Fields("(1, 1)")),
        ([1.0, np.nan], [True, False], 1, Fields(1)),
        ([1.0], [False], 0, Fields(1, received=0)),
        ([1.0, 0.5], [True, True], 1, Fields(2, received=1)),
    ],
)
def test_bad_scores(scores, right, gold, message):
    with raises(ValueError, message):
        best_threshold(scores, right, gold)


# === Planted data ===


def write_split(folder, pair, split, sides, *, pack=False):
    """Writes the files of a split: lists of lines by end of name."""
    folder.mkdir(parents=True, exist_ok=True)
    for end, lines in sides.items():
        content = "".join(f"{line}\n" for line in lines).encode()
        path = folder / f"{pair}.{split}.{end}"
        if pack:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
        else:
            path.write_bytes(content)


class Planted:
    """An encoder whose vectors are known, and sentences with known cosines.

    `couple(score)` makes a source and a target that lie at this cosine and are
    orthogonal to all others.
    """

    def __init__(self):
        self.vectors = {}
        self.seen = []
        self._axis = 0

    def __call__(self, sentences):
        assert isinstance(sentences, list)
        self.seen += sentences
        return np.stack([self.vectors[sentence] for sentence in sentences])

    def axis(self):
        vector = np.zeros(64)
        vector[self._axis] = 1
        self._axis += 1
        return vector

    def couple(self, name, score):
        source, other = self.axis(), self.axis()
        self.vectors[f"{name} src"] = 3 * source
        self.near(f"{name} trg", source, score, other)

    def near(self, name, vector, score, other=None):
        other = self.axis() if other is None else other
        self.vectors[name] = score * vector + math.sqrt(1 - score**2) * other


def numbered(code, texts):
    return [f"{code}-{i:03}\t{text}" for i, text in enumerate(texts)]


COUPLES = (
    *(("c", 0.7, False), ("a", 0.9, True), ("b", 0.8, True)),
    *(("e", 0.5, False), ("d", 0.6, True)),
)


def plant(
    folder,
    pair="hi-en",
    split="training",
    *,
    code=None,
    couples=COUPLES,
    encode=None,
    pack=False,
):
    """Couples (name, cosine, is it gold) and one gold pair that forward cannot find.

    s5 has a wrong target at 0.4 and its translation at 0.1; with the five below:

        score   0.9 0.8 0.7 0.6 0.5 0.4 (0.1 backward)
        right    1   1   0   1   0   0   1
        F        .4 .67 .57 .75 .67 .6 (.73)          4 gold pairs
    """
    encode = Planted() if encode is None else encode
    code = pair.removesuffix("-en") if code is None else code
    sources, targets, gold = [], [], []
    for name, score, is_gold in couples:
        encode.couple(name, score)
        if is_gold:
            gold.append(f"{code}-{len(sources):03}\ten-{len(targets):03}")
        sources.append(f"{name} src")
        targets.append(f"{name} trg")
    lost = encode.axis()
    encode.vectors[f"lost src {split}"] = lost
    encode.near(f"wrong trg {split}", lost, 0.4)
    encode.near(f"lost trg {split}", lost, 0.1)
    gold.append(f"{code}-{len(sources):03}\ten-{len(targets) + 1:03}")
    sources.append(f"lost src {split}")
    targets += [f"wrong trg {split}", f"lost trg {split}"]
    sides = {code: numbered(code, sources), "en": numbered("en", targets), "gold": gold}
    write_split(folder, pair, split, sides, pack=pack)
    return encode


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("pack", [False, True])
def test_planted_pairs(tmp_path, inside, pack):
    encode = plant(tmp_path / "hi-en" if inside else tmp_path, pack=pack)
    result = bucc(encode, tmp_path, "hi-en")
    assert (result.found, result.right, result.gold) == (4, 3, 4)
    assert result.precision == result.recall == result.f1 == 0.75
    assert result.threshold == pytest.approx(0.55)
    assert result.lines == (6, 7, 4) and result.texts == (6, 7)
    assert (result.pair, result.split) == ("hi-en", "training")
    assert (result.direction, result.score) == ("forward", "cosine")
    assert result.threshold_from == "training" and not result.comparable
    backward = bucc(encode, tmp_path, "hi-en", direction="backward")
    assert (backward.found, backward.right) == (4, 3)


@pytest.mark.parametrize("spelling", ["hi-en", "hin-en", "hin_Deva-eng", "Hindi-en"])
def test_a_pair_is_found_by_any_code(tmp_path, spelling):
    encode = plant(tmp_path, pair="hin-en", code="hin")
    assert bucc(encode, tmp_path, spelling).pair == "hi-en"
    assert list(find_bucc_files(tmp_path)) == ["hi-en"]


def test_a_given_threshold_is_applied(tmp_path):
    encode = plant(tmp_path)

    def at(threshold, direction="forward"):
        result = bucc(
            encode, tmp_path, "hi-en", direction=direction, threshold=threshold
        )
        assert result.threshold == threshold
        assert result.threshold_from == "caller"
        return result.found, result.right, result.precision, result.recall, result.f1

    assert at(-1.0) == (6, 3, 0.5, 0.75, 0.6)
    assert at(0.65) == (3, 2, 2 / 3, 0.5, 4 / 7)
    assert at(0.85) == (1, 1, 1.0, 0.25, 0.4)
    assert at(0.95) == (0, 0, 0.0, 0.0, 0.0)
    # All English sentences look for their source: the lost one is found too.
    assert at(-1.0, "backward") == (7, 4, 4 / 7, 1.0, 8 / 11)


def test_best_threshold_at_the_last_pair(tmp_path):
    encode = Planted()
    names = [("a", 0.9), ("b", 0.5), ("c", 0.25)]
    for name, score in names:
        encode.couple(name, score)
    sides = {
        "ta": numbered("ta", [f"{name} src" for name, _ in names]),
        "en": numbered("en", [f"{name} trg" for name, _ in names]),
        "gold": [f"ta-{i:03}\ten-{i:03}" for i in range(3)],
    }
    write_split(tmp_path, "ta-en", "training", sides)
    for direction in ("forward", "backward"):
        result = bucc(encode, tmp_path, "ta-en", direction=direction)
        assert result.precision == result.recall == result.f1 == 1.0
        assert result.found == 3
        assert result.threshold == 0.25
        # Given, it keeps the pair whose score it is.
        again = bucc(*(encode, tmp_path, "ta-en"), direction=direction, threshold=0.25)
        assert again == dataclasses.replace(result, threshold_from="caller")


def test_repeated_texts_count_once_and_for_any_of_their_ids(tmp_path):
    encode = Planted()
    for name, score in (("a", 0.9), ("b", 0.8), ("c", 0.7)):
        encode.couple(name, score)
    sides = {
        # "a" three times, once with spaces around; "b trg" twice.
        "ta": numbered("ta", ["a src", "b src", "a src", "c src", " a src  "]),
        "en": numbered("en", ["b trg", "a trg", "c trg", "b trg"]),
        "gold": [
            # a is gold by its second and third copy: one pair.
            "ta-002\ten-001",
            "ta-004\ten-001",
            # b by the second copy of its translation.
            "ta-001\ten-003",
            "ta-001\ten-003",
        ],
    }
    write_split(tmp_path, "ta-en", "training", sides)
    result = bucc(encode, tmp_path, "ta-en")
    assert sorted(encode.seen) == sorted(encode.vectors)  # each text once
    assert (result.lines, result.texts) == ((5, 4, 4), (3, 3))
    assert (result.found, result.right, result.gold) == (2, 2, 2)
    assert result.precision == result.recall == result.f1 == 1.0
    every = bucc(encode, tmp_path, "ta-en", threshold=-1.0)
    assert (every.found, every.right) == (3, 2)
    assert every.precision == 2 / 3


def test_white_space_is_no_part_of_a_text(tmp_path):
    sides = {
        "ta": ["1\t a\u2028b ", "2\ta\u2028b", "3\tc\td", "4\t"],
        "en": ["1\tx\r"],
        "gold": ["3\t1 "],
    }
    write_split(tmp_path, "ta-en", "training", sides)
    data = read_bucc(tmp_path, "ta-en", "training", find_bucc_files(tmp_path)["ta-en"])
    assert data.sources == ["a\u2028b", "c\td", ""]
    assert data.targets == ["x"]
    assert data.gold.tolist() == [[1, 0]]


def test_ratio_finds_what_cosine_does_not(tmp_path):
    """A crowd in which all is near to all, against pairs that stand alone."""
    encode = Planted()
    names = [f"p{i}" for i in range(4)]
    for name in names:
        encode.couple(name, 0.6)
    crowd, aside = encode.axis(), encode.axis()
    for i in range(4):
        encode.vectors[f"crowd{i} src"] = crowd
        encode.near(f"crowd{i} trg", crowd, 0.9, aside)
    texts = names + [f"crowd{i}" for i in range(4)]
    sides = {
        "ta": numbered("ta", [f"{name} src" for name in texts]),
        "en": numbered("en", [f"{name} trg" for name in texts]),
        "gold": [f"ta-{i:03}\ten-{i:03}" for i in range(4)],
    }
    write_split(tmp_path, "ta-en", "training", sides)
    report = bucc_report(
        encode, tmp_path, "ta-en", scores=("cosine", "ratio", "distance")
    )
    for direction in ("forward", "backward"):
        cosine, ratio, distance = (
            report.find("ta-en", direction, score)
            for score in ("cosine", "ratio", "distance")
        )
        # By cosine the crowd comes first: all 8 pairs for the 4 that are right.
        assert (cosine.found, cosine.right) == (8, 4)
        assert cosine.threshold == pytest.approx(0.6)
        for margin in (ratio, distance):
            assert (margin.found, margin.right, margin.f1) == (4, 4, 1.0)
        # 0.6 / mean(0.6, 0, 0, 0) = 4 and 0.9 / 0.9 = 1: halfway is 2.5.
        assert ratio.threshold == pytest.approx(2.5)
        # 0.6 - 0.15 and 0.9 - 0.9.
        assert distance.threshold == pytest.approx(0.225)


def oracle(source, target, score, k, gold):
    """Best F by loops over every pair: (found, right), forward."""

    def unit(row):
        return row / np.linalg.norm(row)

    cosines = [[float(unit(s) @ unit(t)) for t in target] for s in source]
    k_source, k_target = min(k, len(target)), min(k, len(source))
    forward = [np.mean(sorted(row)[-k_source:]) for row in cosines]
    backward = [np.mean(sorted(column)[-k_target:]) for column in np.transpose(cosines)]
    scores, right = [], []
    for i, row in enumerate(cosines):
        values = []
        for j, cosine in enumerate(row):
            mean = (forward[i] + backward[j]) / 2
            value = {
                "cosine": cosine,
                "ratio": cosine / mean,
                "distance": cosine - mean,
            }[score]
            # Candidates are the k nearest by cosine.
            if cosine >= sorted(row)[-k_source]:
                values.append((value, -j))
        value, j = max(values)
        scores.append(value)
        right.append((i, -j) in gold)
    return brute_force(scores, right, len(gold))[1:]


@pytest.mark.parametrize("score", ["cosine", "ratio", "distance"])
@pytest.mark.parametrize("k", [1, 3, 100])
def test_random_vectors_equal_brute_force(tmp_path, score, k):
    rng = np.random.default_rng(k)
    source = rng.uniform(0, 1, (25, 6)) * rng.uniform(1, 9, (25, 1))
    target = np.concatenate([source[:15], rng.uniform(0, 1, (20, 6))])
    target = (target + rng.uniform(0, 1, target.shape))[rng.permutation(35)]
    gold = {(i, int(rng.integers(35))) for i in range(8)}
    best = np.argmax(
        (source / np.linalg.norm(source, axis=1, keepdims=True))
        @ (target / np.linalg.norm(target, axis=1, keepdims=True)).T,
        axis=1,
    )
    gold |= {(i, int(best[i])) for i in range(8, 20)}
    sides = {
        "ta": numbered("ta", [f"s {i}" for i in range(25)]),
        "en": numbered("en", [f"t {i}" for i in range(35)]),
        "gold": [f"ta-{i:03}\ten-{j:03}" for i, j in sorted(gold)],
    }
    write_split(tmp_path, "ta-en", "training", sides)

    def encode(sentences):
        rows = {"s": source, "t": target}
        return [rows[text[0]][int(text[2:])] for text in sentences]

    result = bucc(encode, tmp_path, "ta-en", score=score, k=k)
    assert (result.found, result.right) == oracle(source, target, score, k, gold)
    turned = {(j, i) for i, j in gold}
    result = bucc(encode, tmp_path, "ta-en", score=score, k=k, direction="backward")
    assert (result.found, result.right) == oracle(target, source, score, k, turned)


# === Reports ===


def plant_two(folder):
    """hi-en with training and test, ta-en with training only."""
    encode = plant(folder / "hi-en", "hi-en")
    # The threshold of training, 0.55, keeps two here, one of them right; the best
    # one would keep three, two of them right.
    couples = [("x", 0.8, True), ("y", 0.6, False), ("z", 0.5, True)]
    plant(folder / "hi-en", "hi-en", "test", couples=couples, encode=encode)
    return plant(folder / "ta-en", "ta-en", encode=encode, pack=True)


def test_a_threshold_of_training_is_used_on_test(tmp_path):
    encode = plant_two(tmp_path)
    report = bucc_report(encode, tmp_path)
    assert len(report.results) == (2 + 1) * 2 * 2
    training = report.find("hin-en")
    test = report.find("hi-en", split="test")
    assert training.threshold == test.threshold == pytest.approx(0.55)
    assert (training.threshold_from, test.threshold_from) == ("training", "training")
    # x and y are kept; z is below, and the lost one is not found.
    assert (test.found, test.right, test.gold) == (2, 1, 3)
    given = bucc(
        *(encode, tmp_path, "hi-en"), split="test", threshold=training.threshold
    )
    assert test == dataclasses.replace(given, threshold_from="training")
    own = bucc(encode, tmp_path, "hi-en", split="test")
    assert (own.found, own.right) == (3, 2)
    with pytest.raises(KeyError):
        report.find("ta-en", split="test")
    assert bucc_report(encode, tmp_path, "hi-en", apply_to=None).results == tuple(
        r for r in report.results if (r.pair, r.split) == ("hi-en", "training")
    )


def test_every_text_is_encoded_once_for_all_scores_and_directions(tmp_path):
    encode = plant(tmp_path)
    bucc_report(encode, tmp_path, scores=("cosine", "ratio", "distance"))
    assert len(encode.seen) == len(set(encode.seen)) == 13


def test_report_and_single_results_agree(tmp_path):
    encode = plant_two(tmp_path)
    report = bucc_report(encode, tmp_path, ["ta-en"], scores=["ratio"])
    for result in report.results:
        assert result == bucc(
            *(encode, tmp_path, "ta-en"), direction=result.direction, score="ratio"
        )


def test_encoding_in_blocks(tmp_path, monkeypatch):
    # `bucc` in the package is the function; the module is in sys.modules.
    module = sys.modules["labse_tf.evaluation.bucc"]
    encode = plant(tmp_path)
    whole = bucc_report(encode, tmp_path)
    monkeypatch.setattr(module, "_ENCODED_AT_A_TIME", 2)
    assert bucc_report(encode, tmp_path) == whole
    encode.vectors["d src"] = encode.vectors["d src"] * np.nan
    with raises(ValueError, 1, 2, 4, "'d src'"):
        bucc_report(encode, tmp_path)


def test_progress_is_shown_where_asked(tmp_path, capfd):
    encode = plant(tmp_path)
    bucc(encode, tmp_path, "hi-en")
    assert capfd.readouterr().err == ""
    bucc(encode, tmp_path, "hi-en", progress=True)
    shown = capfd.readouterr().err
    for step in ("Encoding hi-en training hi", "Encoding hi-en training en", "Search"):
        assert step in shown


def test_json(tmp_path):
    report = bucc_report(plant_two(tmp_path), tmp_path)
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert "BUCC.v2" in values["note"]
    first = values["results"][0]
    assert first == json.loads(json.dumps(report.results[0].to_dict()))
    assert first["lines"] == {"hi": 6, "en": 7, "gold": 4}
    assert first["f1"] == report.results[0].f1


def test_curve_goes_through_the_threshold(tmp_path):
    result = bucc(plant(tmp_path), tmp_path, "hi-en")
    expected = [(1, 1), (2, 2), (2, 3), (3, 4), (3, 6)]  # right, found
    for right, found in expected:
        point = (round(right / 4, 5), round(right / found, 5))
        assert (point in result.curve) == ((right, found) != (2, 3))
    assert (result.recall, result.precision) in result.curve
    assert [r for r, _ in result.curve] == sorted(r for r, _ in result.curve)
    # Long lists are thinned out.
    assert len(some_result(size=5000).curve) < 110


def some_result(pair="fr-en", *, size=5000, gold_lines=9086, **changes):
    rng = np.random.default_rng(0)
    module = sys.modules["labse_tf.evaluation.bucc"]
    scores = rng.random(size).astype(np.float32)
    right = rng.random(size) < scores**3
    gold = int(right.sum()) + 100
    cut = best_threshold(scores, right, gold)
    values = {
        "pair": pair,
        "direction": "forward",
        "score": "cosine",
        "split": "training",
        "threshold": cut.threshold,
        "threshold_from": "training",
        "found": cut.found,
        "right": cut.right,
        "gold": gold,
        "lines": (271874, 369810, gold_lines),
        "texts": (270000, 360000),
        "curve": module._curve(module._cuts(scores, right, gold), gold, cut),
    }
    return BuccResult(**{**values, **changes})


def test_table_has_the_published_rows_beside_ours():
    results = [
        some_result(direction=direction, score=score)
        for direction in ("forward", "backward")
        for score in ("cosine", "ratio")
    ]
    text = BuccReport(tuple(results)).table()
    assert "BUCC.v2" in text.split("---")[0]
    lines = text.splitlines()
    rows = {}
    for line in lines:
        rows.setdefault(line.strip().split("  ")[0], line)  # forward comes first
    assert rows["LaBSE"].split()[-3:] == ["86.6", "90.9", "88.7"]
    assert rows["Yang et al. 2019"].split()[-3:] == ["86.7", "85.6", "86.1"]
    assert rows["Artetxe and Schwenk 2019"].split()[-3:] == ["82.1", "74.2", "78.0"]
    assert rows["LASER"].split()[-3:] == ["91.5", "93.3", "92.4"]
    assert any("backward" in row and "English" in row for row in rows)
    first = results[0]
    numbers = [f"{100 * n:.1f}" for n in (first.precision, first.recall, first.f1)]
    assert rows["training"].split()[1:] == [*numbers, f"{first.threshold:.4f}"] * 2
    # Published by cosine or by ratio: below our numbers of that score.
    ends = [rows["training"].index(numbers[2]), rows["training"].rindex(numbers[2])]
    assert rows["LaBSE"].index("88.7") == ends[0]
    assert rows["LASER"].index("92.4") == ends[1]
    assert "*" not in text
    assert max(map(len, lines)) <= 100
    alone = BuccReport((results[0],)).table()
    assert alone == results[0].table()
    assert "LaBSE" in alone and "LASER" not in alone and "backward" not in alone


@pytest.mark.parametrize(
    "changes",
    [
        {"gold_lines": 726},
        {"split": "sample", "threshold_from": "sample"},
        {"split": "test"},
        {"threshold_from": "caller"},
    ],
)
def test_published_rows_are_marked_on_other_data(changes):
    result = some_result(**changes)
    assert not result.comparable
    text = result.table()
    assert "LaBSE * " in text
    assert "9,086" in text
    assert some_result().comparable
    values = BuccReport((result,)).to_dict()["published"]
    assert not any(row["comparable"] for row in values)


def test_languages_without_published_rows_have_none():
    text = some_result("hi-en").table()
    assert "Hindi" in text and "LaBSE" not in text and "*" not in text


def test_published_figures_fit_each_other():
    assert len(BUCC_PUBLISHED) == 2 * (2 + 4 + 4) + 4
    assert {row.pair for row in BUCC_PUBLISHED} == set(BUCC_GOLD_PAIRS)
    for row in BUCC_PUBLISHED:
        f1 = 2 * row.precision * row.recall / (row.precision + row.recall)
        # Rounding to 0.1 per cent moves F by 0.1 at most; one row is misprinted.
        printed = (row.system, row.pair, row.direction)
        misprint = printed == ("Artetxe and Schwenk 2019", "fr-en", "backward")
        assert (abs(f1 - row.f1) < 0.0011) != misprint, row


def test_plot_is_a_png_with_a_panel_a_pair(tmp_path):
    pytest.importorskip("matplotlib")
    one, four = tmp_path / "one.png", tmp_path / "four.png"
    some_result().plot(one)
    codes = ("fr-en", "de-en", "ru-en", "zh-en")
    BuccReport(tuple(some_result(code) for code in codes)).plot(four)
    sizes = []
    for path in (one, four):
        content = path.read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        sizes.append(struct.unpack(">II", content[16:24]))
    assert 300 < sizes[0][0] < 700 and 300 < sizes[0][1] < 800
    assert sizes[1][0] > 2 * sizes[0][0] and sizes[1][1] > 1.5 * sizes[0][1]
    some_result(threshold_from="caller", found=0, right=0, gold=3).plot(one)


def test_curves_are_those_of_the_set_that_was_searched(monkeypatch):
    module = sys.modules["labse_tf.evaluation.bucc_results"]
    drawn, titles = [], []
    monkeypatch.setattr(
        module,
        "plot_precision_recall",
        lambda panels, path, title: (drawn.append(panels), titles.append(title)),
    )
    training, test = some_result(), some_result(split="test")
    BuccReport((training, test)).plot("x.png", model="labse-mini")
    test.plot("x.png", model="labse-mini")
    assert all(title.startswith("labse-mini: BUCC") for title in titles)
    assert list(drawn[0]) == ["fr-en, training"]
    assert list(drawn[1]) == ["fr-en, test at training's threshold"]
    (curve,) = drawn[0]["fr-en, training"]
    assert curve.mark == (training.recall, training.precision)
    assert curve.points == training.curve
    assert curve.label == f"forward, cosine: F {training.f1:.1%}"


# === Bad input ===


def no_encoding(sentences):
    raise AssertionError("nothing may be encoded before the files are checked")


@pytest.mark.parametrize(
    ("end", "content", "line", "word"),
    [
        ("hi", b"hi-0\ta\nno tab\n", 2, "'no tab'"),
        ("hi", b"hi-0\ta\n\nhi-1\tb\n", 2, "''"),
        ("hi", b"\ta\n", 1, "id<TAB>sentence"),
        ("en", b"en-0\ta\nen-1\tb\nen-0\tc\n", 3, "'en-0', also the id of line 1"),
        ("hi", b"hi-0\ta\nhi-1\t\xff\n", 2, "UTF-8"),
        ("hi", b"", 1, "empty"),
        ("gold", b"", 1, "empty"),
        ("gold", b"hi-000\ten-000\nhi-9\ten-0\n", 2, ".hi. Received: 'hi-9'"),
        ("gold", b"hi-000\ten-9\n", 1, ".en. Received: 'en-9'"),
        ("gold", b"en-000\thi-000\n", 1, ".hi. Received: 'en-000'"),
        ("gold", b"hi-000 en-000\n", 1, "two ids"),
        ("gold", b"hi-000\ten-000\t1\n", 1, "two ids"),
        ("en", b"\x1f\x8b\x08\x00broken", 1, "gzip"),
    ],
)
def test_bad_lines(tmp_path, capsys, monkeypatch, end, content, line, word):
    plant(tmp_path)
    path = tmp_path / f"hi-en.training.{end}"
    path.write_bytes(content)
    for measure in (bucc, bucc_report):
        with pytest.raises(DataError) as caught:
            measure(no_encoding, tmp_path, *["hi-en"][: measure is bucc])
        assert (caught.value.path, caught.value.line) == (path, line)
        assert word in str(caught.value)
    message = Fields(path=path, line=line)
    assert_one_line(capsys, monkeypatch, ("evaluate", "bucc", tmp_path), message)


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz"])
def test_files_in_every_compression(tmp_path, ending):
    encode = plant(tmp_path)
    expected = bucc(encode, tmp_path, "hi-en")
    compress = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    for path in list(tmp_path.iterdir()):
        path.with_name(path.name + ending).write_bytes(
            compress[ending](path.read_bytes())
        )
        path.unlink()
    assert bucc(encode, tmp_path, "hi-en") == expected


def assert_one_line(capsys, monkeypatch, arguments, message):
    """The command ends with 2 and one line on standard error; it loads no model."""
    monkeypatch.setattr(evaluate, "open_encoder", no_encoding)
    capsys.readouterr()
    assert cli.main([*map(str, arguments), "--model", "any"]) == 2
    output = capsys.readouterr()
    assert output.out == "" and len(output.err.strip().splitlines()) == 1
    assert output.err.startswith("labse-tf: ")
    with raises(ValueError, message):
        raise ValueError(output.err)


def test_bad_requests(tmp_path, capsys, monkeypatch):
    plant(tmp_path)
    for pairs, message in (
        (["hi-en", "ta-en"], Fields(received="ta-en")),
        (["hi-fr"], Fields("pair", received="'hi-fr'")),
        (["en-en"], Fields("pair", received="'en-en'")),
        (["hi"], Fields("pair", received="'hi'")),
    ):
        with raises(ValueError, message):
            bucc_report(no_encoding, tmp_path, pairs)
        arguments = ("evaluate", "bucc", tmp_path, "--pairs", *pairs)
        assert_one_line(capsys, monkeypatch, arguments, message)
    absent = tmp_path / "absent"
    with raises(FileNotFoundError, path=absent):
        bucc(no_encoding, absent, "hi-en")
    assert_one_line(
        *(capsys, monkeypatch, ("evaluate", "bucc", absent)),
        Fields(path=absent),
    )
    for options, message in (
        ({"direction": "both"}, Fields("direction", received="'both'")),
        ({"score": "dot"}, Fields("score", received="'dot'")),
        ({"split": "dev"}, Fields("split", received="'dev'")),
        ({"threshold": math.nan}, Fields("threshold", received="nan")),
        (
            {"split": "sample"},
            Fields("sample", "hi-en", received=True),
        ),
        ({"k": 0}, Fields("k", received=0)),
    ):
        with raises(ValueError, message):
            bucc(no_encoding, tmp_path, "hi-en", **options)
    for options, message in (
        ({"directions": []}, Fields("directions", received=True)),
        ({"scores": ["cosine", "dot"]}, Fields("scores", received="'dot'")),
        ({"pairs": []}, Fields("pairs", received=True)),
        ({"apply_to": "dev"}, Fields("apply_to", received=True)),
        ({"split": "test"}, Fields("XX-en.test.XX")),
    ):
        with raises(ValueError, message):
            bucc_report(no_encoding, tmp_path, **options)


def test_k_is_checked_before_any_file_is_read(tmp_path, monkeypatch):
    def no_reading(*arguments):
        raise AssertionError("a file was read")

    monkeypatch.setattr(bucc_files, "read_bucc", no_reading)
    plant(tmp_path)
    with raises(ValueError, argument="k", received=0):
        bucc(no_encoding, tmp_path, "hi-en", k=0)
    with raises(ValueError, argument="k", received=0):
        bucc_report(no_encoding, tmp_path, k=0)


def test_missing_and_doubled_files(tmp_path, capsys, monkeypatch):
    plant(tmp_path)
    gold = tmp_path / "hi-en.training.gold"
    content = gold.read_bytes()
    gold.unlink()
    message = Fields("hi-en.training", received=True)
    with raises(ValueError, message):
        bucc(no_encoding, tmp_path, "hi-en")
    assert_one_line(capsys, monkeypatch, ("evaluate", "bucc", tmp_path), message)
    gold.write_bytes(content)
    (tmp_path / "hi-en").mkdir()
    second = tmp_path / "hi-en" / "hi-en.training.gold.gz"
    second.write_bytes(gzip.compress(content))
    with raises(ValueError, "hi-en/hi-en"):
        bucc(no_encoding, tmp_path, "hi-en")
    second.unlink()
    # A test set without a gold file, as BUCC's own, is no test set to measure.
    (tmp_path / "hi-en.test.hi").write_bytes(b"")
    encode = plant(tmp_path)
    assert {r.split for r in bucc_report(encode, tmp_path).results} == {"training"}
    (tmp_path / "hi-en.test.gold").write_bytes(b"hi-000\ten-000\n")
    with raises(ValueError, "hi-en.test"):
        bucc_report(no_encoding, tmp_path)


def test_a_folder_without_such_files(tmp_path):
    for name in ("notes.txt", "hi-en.training.fr", "en-en.training.en", "hi-en.dev.hi"):
        (tmp_path / name).write_text("x")
    with raises(ValueError, "XX-en.training.XX"):
        bucc(no_encoding, tmp_path, "hi-en")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda v: v[:-1], Fields("hi-en training hi", "(6, D)")),
        (lambda v: v[:, 0], Fields("hi-en training hi", received=True)),
        (
            lambda v: np.full(v.shape, np.nan),
            Fields("hi-en training hi", received=True),
        ),
        (
            lambda v: v[:, : 60 + len(v) % 2],
            Fields(60, 61, received=True),
        ),
    ],
)
def test_an_encoder_that_breaks_its_contract(tmp_path, break_it, message):
    encode = plant(tmp_path)
    with raises(ValueError, message):
        bucc(lambda sentences: break_it(encode(sentences)), tmp_path, "hi-en")


def test_names_of_pairs():
    assert pair_name("de-en") == pair_name("deu-eng") == "de-en"
    assert pair_name("zh-Hant-en") == pair_name("zh_TW-en") == "zh-Hant-en"
    for bad in ("", "de", "-en", "de-", "en-en", "en-de", None, 3):
        with raises(ValueError, received=True):
            pair_name(bad)


# === The command ===


def test_command_prints_writes_and_draws(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "data"
    encode = plant_two(folder)
    monkeypatch.setattr(evaluate, "open_encoder", lambda options: encode)
    scores, plot = tmp_path / "scores.json", tmp_path / "curves.png"
    arguments = ["evaluate", "bucc", folder, "--model", "any"]
    more = ["--json", scores, "--plot", plot]
    assert cli.main([str(a) for a in (*arguments, *more)]) == 0
    printed = capsys.readouterr().out
    report = bucc_report(encode, folder)
    assert printed == f"{report.table()}\nplot: {plot}\n"
    for words in (
        "cosine",
        "ratio",
        "Hindi",
        "Tamil",
        "BUCC.v2",
        "forward",
        "backward",
    ):
        assert words in printed
    assert re.search(r"^ *test ", printed, re.M)
    assert json.loads(scores.read_text()) == json.loads(json.dumps(report.to_dict()))
    assert plot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    more = ["--pairs", "tam-en", "--scores", "distance", "--training-only"]
    assert cli.main([str(a) for a in (*arguments, *more)]) == 0
    printed = capsys.readouterr().out
    assert "Hindi" not in printed and "ratio" not in printed
    more = ["--pairs", "hi-en", "--training-only"]
    assert cli.main([str(a) for a in (*arguments, *more)]) == 0
    assert not re.search(r"^ *test ", capsys.readouterr().out, re.M)


def test_command_refuses_an_unknown_score(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["evaluate", "bucc", str(tmp_path), "--model", "m", "--scores", "dot"])
    assert end.value.code == 2
    assert "'dot'" in capsys.readouterr().err


# === Real text ===


def test_the_mining_set_with_a_bag_of_letters(shared):
    """Real files through the whole of it: shared words must beat chance by far."""

    def encode(sentences):
        vectors = np.empty((len(sentences), 256), np.float32)
        for row, sentence in enumerate(sentences):
            letters = np.frombuffer(f"  {sentence.lower()} ".encode(), np.uint8)
            letters = letters.astype(np.int64)
            threes = letters[:-2] * 961 + letters[1:-1] * 31 + letters[2:]
            vectors[row] = np.bincount(threes % 251, minlength=256)
        return vectors

    report = bucc_report(encode, shared / "mining", "fra-en", apply_to=None)
    for direction in ("forward", "backward"):
        cosine = report.find("fr-en", direction, "cosine")
        ratio = report.find("fr-en", direction, "ratio")
        assert ratio.f1 > cosine.f1 > 0.05
        assert cosine.lines[:2] == (9089, 9089) and cosine.lines[2] == cosine.gold
        assert not cosine.comparable
