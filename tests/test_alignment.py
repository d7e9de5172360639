"""Sentence alignment: the search against all paths, costs by hand, the command."""

from __future__ import annotations

import argparse
import functools
import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from helpers.command_line import fails, run
from helpers.errors import check_message, raises, refuses
from labse_tf import alignment, cli, plots
from labse_tf.alignment import (
    align,
    anchors_by_pattern,
    costs,
    documents,
    embed_runs,
    read_anchors,
    score_alignment,
    search,
)
from labse_tf.alignment.runs import StoredRuns, SummedRuns
from labse_tf.cli import align as command
from labse_tf.text import DataError, Sentence, read_pairs


@functools.cache
def direction(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.md5(word.encode()).digest()[:4], "little")
    return np.random.default_rng(seed).normal(size=64)


def encode(sentences: list[str]) -> np.ndarray:
    """A bag of words, each a random direction, which capitals change a little."""
    vectors = np.full((len(sentences), 64), 1e-3, np.float32)
    for row, sentence in enumerate(sentences):
        for word in map(lambda word: word.rstrip(".۔"), sentence.split()):
            vectors[row] += direction(word.lower()) + 0.2 * direction(word)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def sentences(count: int, seed: int) -> list[str]:
    """Sentences of words that hardly repeat."""
    rng = np.random.default_rng(seed)
    words = [f"w{seed}x{i}" for i in range(20 * count + 50)]
    return [" ".join(rng.choice(words, rng.integers(4, 9))) for _ in range(count)]


def found_beads(result: alignment.Alignment) -> list[tuple[tuple, tuple]]:
    return [(tuple(b.source), tuple(b.target)) for b in result.beads(deletions=True)]


# === The search ===

KINDS = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)]


def cheapest(table, source_deletions, target_deletions) -> float:
    """The cost of the best of all paths, by recursion over all nodes."""
    rows, columns = len(source_deletions) + 1, len(target_deletions) + 1
    best = np.full((rows, columns), np.inf)
    best[0, 0] = 0
    for i, j in itertools.product(range(rows), range(columns)):
        ways = [best[i, j]]
        if i:
            ways.append(best[i - 1, j] + source_deletions[i - 1])
        if j:
            ways.append(best[i, j - 1] + target_deletions[j - 1])
        for kind, (x, y) in enumerate(KINDS):
            if i >= x and j >= y:
                ways.append(best[i - x, j - y] + table[i, j, kind])
        best[i, j] = min(ways)
    return best[-1, -1]


def random_table(sources: int, targets: int, rng) -> np.ndarray:
    table = rng.random((sources + 1, targets + 1, len(KINDS))) * 3
    for kind, (x, y) in enumerate(KINDS):
        table[:x, :, kind] = table[:, :y, kind] = np.inf
    return table


def block_of(table: np.ndarray):
    def block(start: int, stop: int, columns: np.ndarray) -> np.ndarray:
        return np.stack([table[r, columns[r - start]].T for r in range(start, stop)])

    return block


def total_cost(path, table, source_deletions, target_deletions) -> float:
    total = 0.0
    for (a, b), (c, d) in zip(path[:-1].tolist(), path[1:].tolist(), strict=True):
        step = c - a, d - b
        if step == (1, 0):
            total += source_deletions[a]
        elif step == (0, 1):
            total += target_deletions[b]
        else:
            total += table[c, d, KINDS.index(step)]
    return total


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_the_path_is_the_cheapest_of_all(rows, monkeypatch):
    monkeypatch.setattr(search, "_BLOCK_ROWS", rows)
    rng = np.random.default_rng(rows)
    for _ in range(60):
        sources, targets = rng.integers(0, 9, 2)
        table = random_table(sources, targets, rng)
        deletions = rng.random(sources), rng.random(targets)
        path = search.best_path(
            block_of(table), KINDS, *deletions, search.full_band(sources, targets)
        )
        assert path[0].tolist() == [0, 0] and path[-1].tolist() == [sources, targets]
        cost = total_cost(path, table, *deletions)
        np.testing.assert_allclose(cost, cheapest(table, *deletions), atol=1e-9)


def test_more_kinds_of_beads_than_a_byte_holds():
    kinds = [(x, y) for x in range(1, 13) for y in range(1, 13)]

    def block(start: int, stop: int, columns: np.ndarray) -> np.ndarray:
        found = np.full((stop - start, len(kinds), columns.shape[1]), np.inf)
        found[12 - start, -1, columns[12 - start] == 12] = 0.5
        return found

    path = search.best_path(
        block, kinds, np.ones(12), np.ones(12), search.full_band(12, 12)
    )
    assert path.tolist() == [[0, 0], [12, 12]]


def test_a_band_holds_its_path_and_all_nodes_near_it():
    path = np.array([[0, 0], [1, 1], [1, 5], [3, 6], [6, 6], [7, 8]])
    band = search.band_around(path, 7, 8, 1)
    near = {
        (i, j)
        for (a, b), (c, d) in zip(path[:-1], path[1:], strict=True)
        for i in range(a - 1, c + 2)
        for j in range(b - 1, d + 2)
        if 0 <= i <= 7 and 0 <= j <= 8
    }
    for i in range(8):
        columns = [j for row, j in near if row == i]
        assert (band.first[i], band.last[i]) == (min(columns), max(columns))


def test_a_search_in_a_band_is_a_search_with_infinite_costs_outside():
    rng = np.random.default_rng(3)
    for _ in range(30):
        sources, targets = rng.integers(5, 14, 2)
        steps = np.sort(rng.integers(0, targets + 1, sources + 1))
        path = np.stack([np.arange(sources + 1), steps], 1)
        path[0, 1], path[-1, 1] = 0, targets
        band = search.band_around(path, sources, targets, 1)
        table = random_table(sources, targets, rng)
        deletions = rng.random(sources) + 0.5, rng.random(targets) + 0.5
        found = search.best_path(block_of(table), KINDS, *deletions, band)
        assert all(band.first[i] <= j <= band.last[i] for i, j in found)
        assert (
            total_cost(found, table, *deletions) >= cheapest(table, *deletions) - 1e-9
        )
    wide = search.band_around(path, sources, targets, 99)
    found = search.best_path(block_of(table), KINDS, *deletions, wide)
    np.testing.assert_allclose(
        total_cost(found, table, *deletions), cheapest(table, *deletions), atol=1e-9
    )


# === Costs ===


def side(texts: list[str], longest: int) -> costs.Side:
    lengths = np.array([len(t) for t in texts], float)
    runs = SummedRuns(encode(texts), lengths, longest)
    return costs.Side(runs, lengths, documents.has_letters(texts))


def test_costs_by_hand():
    source = [*sentences(5, 1), "***", *sentences(3, 2)]
    target = [text.upper() for text in [*source[1:5], *source[6:], "ABC DEF"]]
    kinds = [(1, 1), (1, 2), (2, 1), (2, 2), (1, 3)]
    sides = side(source, 3), side(target, 3)
    measured = costs.BeadCosts(*sides, kinds, length_ratio=1.21)
    rows, columns = len(source), len(target)
    grid = np.tile(np.arange(columns + 1), (rows, 1))
    found = np.concatenate(
        [
            measured.block(1, 4, grid[:3]),
            measured.block(4, rows + 1, grid[3:]),
        ]
    )  # (rows, K, columns)

    usable = [i for i, text in enumerate(source) if text != "***"]
    singles = encode(source).astype(float), encode(target).astype(float)
    cosines = singles[0][usable] @ singles[1].T
    # A short document has so few sentences that the translation does not count.
    excess = [dict.fromkeys(range(len(texts)), 0.0) for texts in (source, target)]
    for which, (indices, table) in enumerate(
        ((usable, cosines), (range(columns), cosines.T))
    ):
        for index, row in zip(indices, table, strict=True):
            others = sorted(row)[:-1]
            excess[which][index] = row.mean() - np.mean(others)
    scale = 1.1

    def run_of(which: int, texts: list[str], start: int, length: int):
        weights = [len(text) for text in texts[start : start + length]]
        vector = np.array(weights, float) @ singles[which][start : start + length]
        return vector / np.linalg.norm(vector), sum(weights)

    def far(which: int, vector: np.ndarray, start: int, length: int) -> float:
        others = singles[1] if which == 0 else singles[0][usable]
        more = [excess[which][k] for k in range(start, start + length)]
        return float(np.mean([1 - vector @ other for other in others]) + np.mean(more))

    for i, (kind, (x, y)), j in itertools.product(
        range(1, rows + 1), enumerate(kinds), range(columns + 1)
    ):
        cost = found[i - 1, kind, j]
        if i < x or j < y or "***" in source[i - x : i]:
            assert cost == np.inf
            continue
        one, first = run_of(0, source, i - x, x)
        two, second = run_of(1, target, j - y, y)
        first, second = first * scale, second / scale
        distance = 2 * (1 - one @ two) / (far(0, one, i - x, x) + far(1, two, j - y, y))
        term = abs(first - second) / (4 * (first + second + 1) ** 0.5)
        np.testing.assert_allclose(
            cost, x * y * (distance + 0.15 * min(term, 2)), rtol=2e-3, atol=1e-4
        )


def test_no_bead_begins_before_the_origin():
    texts = sentences(6, 5)
    measured = costs.BeadCosts(side(texts, 2), side(texts, 2), [(1, 1), (2, 1), (1, 2)])
    block = measured.block(4, 5, np.array([[3, 4]]), (3, 3))
    assert np.isfinite(block[0]).tolist() == [
        [False, True],
        [False, False],
        [False, False],
    ]


# === Documents ===


def split_and_merge(texts: list[str]) -> tuple[list[str], list[str], list]:
    """A document and its "translation" with merges, splits and deletions."""
    rng = np.random.default_rng(7)
    source, target, beads = [], [], []
    for k, text in enumerate(texts):
        s, t = len(source), len(target)
        if k % 5 == 1:
            words = text.split()
            source.append(text)
            half = len(words) // 2
            target += [" ".join(p).upper() for p in (words[:half], words[half:])]
        elif k % 5 == 2:
            other = sentences(1, 1000 + k)[0]
            source += [text, other]
            target.append(f"{text} {other}".upper())
        elif k % 5 == 3 and rng.random() < 0.7:
            source.append(text)
        elif k % 5 == 4 and rng.random() < 0.7:
            target.append(text.upper())
        else:
            source.append(text)
            target.append(text.upper())
        beads.append((tuple(range(s, len(source))), tuple(range(t, len(target)))))
    return source, target, beads


@pytest.fixture(scope="module")
def edited():
    return split_and_merge(sentences(120, 11))


@pytest.fixture(scope="module")
def aligned(edited):
    return align(*edited[:2], encode)


def test_merges_splits_and_deletions_are_found(edited, aligned):
    source, target, expected = edited
    score = score_alignment([b[:2] for b in aligned.beads()], expected)
    assert score.f1 > 0.97
    summary = aligned.summary()
    assert summary["sentences"] == {"source": len(source), "target": len(target)}
    beads = aligned.beads()
    assert summary["beads"] == len(beads) == sum(summary["kinds"].values())
    assert summary["deleted"]["source"] == len(source) - sum(
        len(b.source) for b in beads
    )
    assert summary["deleted"]["target"] == len(target) - sum(
        len(b.target) for b in beads
    )
    for bead in beads[:10]:
        pair = [
            " ".join(texts[i] for i in indices)
            for texts, indices in ((source, bead.source), (target, bead.target))
        ]
        one, two = encode(pair)
        assert bead.score == pytest.approx(float(one @ two), abs=1e-5)


def test_every_sentence_is_in_one_bead_in_order(edited, aligned):
    for texts, side_ in zip(edited[:2], (0, 1), strict=True):
        runs = [bead[side_] for bead in aligned.beads(deletions=True)]
        assert [i for r in runs for i in r] == list(range(len(texts)))


@pytest.mark.parametrize("nodes", [16, 400])
def test_coarse_to_fine_is_a_full_search_on_easy_text(edited, nodes, monkeypatch):
    monkeypatch.setattr(documents, "_FULL_SEARCH", nodes)
    coarse = align(*edited[:2], encode)
    monkeypatch.setattr(documents, "_FULL_SEARCH", 10**9)
    full = align(*edited[:2], encode)
    assert found_beads(coarse) == found_beads(full)
    np.testing.assert_array_equal(coarse.scores, full.scores)


@pytest.mark.parametrize("side_", [0, 1])
def test_a_block_of_alien_lines_is_deleted_and_the_rest_is_kept(side_, monkeypatch):
    monkeypatch.setattr(documents, "_FULL_SEARCH", 30 * 30)
    source, target, _ = split_and_merge(sentences(250, 21))
    texts = [source, target]
    place = len(texts[side_]) // 3
    texts[side_] = [
        *texts[side_][:place],
        *sentences(300, 99),
        *texts[side_][place:],
    ]
    plain = align(source, target, encode, run_vectors="sum")
    moved = [
        tuple(
            tuple(i + 300 if k == side_ and i >= place else i for i in indices)
            for k, indices in enumerate(bead[:2])
        )
        for bead in plain.beads()
    ]
    result = align(*texts, encode, run_vectors="sum")
    found = [b[:2] for b in result.beads()]
    assert score_alignment(found, moved).f1 > 0.98
    assert score_alignment(found, moved, lax=True).f1 > 0.99
    assert result.summary()["deleted"][("source", "target")[side_]] >= 300


def test_vectors_may_be_given(edited, aligned, tmp_path):
    source, target, _ = edited
    runs = [
        embed_runs(texts, encode, tmp_path / f"{k}.npy", longest=4)
        for k, texts in enumerate((source, target))
    ]
    arrays = []
    for texts, own in zip((source, target), runs, strict=True):
        starts = np.arange(len(texts))
        arrays.append(np.stack([own.vectors(x, starts) for x in range(1, 5)], axis=1))
    for given in (runs, arrays):
        found = align(source, target, source_vectors=given[0], target_vectors=given[1])
        np.testing.assert_array_equal(found.nodes, aligned.nodes)
        np.testing.assert_allclose(found.scores, aligned.scores, atol=1e-6)
    singles = [array[:, 0] for array in arrays]
    summed = align(source, target, source_vectors=singles[0], target_vectors=singles[1])
    embedded = align(source, target, encode, run_vectors="sum")
    np.testing.assert_array_equal(summed.nodes, embedded.nodes)


def test_runs_are_those_of_the_joined_text(tmp_path):
    texts = ["a b", "c", "a b", "c", "d", "a b", "c", "d"]
    calls: list[str] = []

    def counted(batch: list[str]) -> np.ndarray:
        calls.extend(batch)
        return encode(batch)

    runs = embed_runs(texts, counted, tmp_path / "v.npy", longest=3)
    for length, start in itertools.product(range(1, 4), range(len(texts))):
        if start + length <= len(texts):
            joined = " ".join(texts[start : start + length])
            expected = encode([joined])[0]
            vector = runs.vectors(length, np.array([start]))[0]
            np.testing.assert_allclose(vector, expected, atol=1e-6)
    del calls[0]  # The probe.
    # Of 8 + 7 + 6 runs.
    assert len(calls) == len(set(calls)) == 3 + 4 + 5


def test_sums_are_weighted_by_length():
    vectors = np.eye(3, dtype=np.float32)
    runs = SummedRuns(vectors, np.array([3.0, 4.0, 1.0]), 2)
    np.testing.assert_allclose(runs.vectors(2, np.array([0]))[0], [0.6, 0.8, 0])
    stored = StoredRuns(vectors, np.array([[2, 0, 1]]))
    np.testing.assert_allclose(stored.vectors(1, np.array([0, 2])), vectors[[2, 1]])


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ([], [], []),
        ([], ["a", "b"], [((), (0,)), ((), (1,))]),
        (["a"], [], [((0,), ())]),
        (["a b c"], ["A B C"], [((0,), (0,))]),
        (["a b c d", "..."], ["A B C D"], [((0,), (0,)), ((1,), ())]),
        (["1", "2"], ["1", "2"], None),
        (["a b", "c d"], ["A B C D"], [((0, 1), (0,))]),
        (
            ["alpha beta gamma", "other words here", "delta epsilon zeta"],
            ["ALPHA BETA GAMMA", "DELTA EPSILON ZETA"],
            [((0,), (0,)), ((1,), ()), ((2,), (1,))],
        ),
    ],
)
def test_small_documents(source, target, expected):
    found = found_beads(align(source, target, encode))
    if expected is None:
        assert all(not (s and t) for s, t in found) and len(found) == 4
    else:
        assert found == expected


def test_equal_documents_align_one_to_one_whatever_their_length():
    for count in (1, 2, 3, 5, 8, 40):
        texts = sentences(count, count)
        result = align(texts, [t.upper() for t in texts], encode)
        assert found_beads(result) == [((i,), (i,)) for i in range(count)]


def test_no_bead_crosses_an_anchor(edited):
    source, target, expected = edited
    # Anchors in the wrong place force the sentences before them to be left out.
    result = align(source, target, encode, anchors=[(10, 4), (40, 40), (40, 40)])
    for s, t in found_beads(result):
        for i, j in ((10, 4), (40, 40)):
            sides = {k >= i for k in s} | {k >= j for k in t}
            assert len(sides) == 1
    good = [(b[0][0], b[1][0]) for b in expected if b[0] and b[1]][10:60:25]
    anchored = align(source, target, encode, anchors=good)
    plain = align(source, target, encode)
    assert found_beads(anchored) == found_beads(plain)


def test_larger_beads_need_a_larger_maximum():
    text = sentences(7, 3)
    source = [*text[:2], text[2], *text[6:]]
    parts = [" ".join(text[2].split()[k : k + 1]).upper() for k in range(4)]
    target = [text[0].upper(), text[1].upper(), *parts, text[6].upper()]
    source[2] = " ".join(text[2].split()[:4])
    whole = ((2,), (2, 3, 4, 5))
    for most in (3, 4):
        assert whole not in found_beads(
            align(source, target, encode, max_sentences=most)
        )
    assert whole in found_beads(align(source, target, encode, max_sentences=5))


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        ({"max_sentences": 1}, {"argument": "max_sentences", "received": 1}),
        ({"band": 0}, {"argument": "band", "received": 0}),
        ({"deletion": -1.0}, {"argument": "deletion"}),
        ({"run_vectors": "mean"}, {"argument": "run_vectors", "received": "mean"}),
        ({"anchors": [(2, 1), (1, 2)]}, {"argument": "anchors"}),
        ({"anchors": [(4, 1)]}, {"argument": "anchors"}),
        ({"source_vectors": np.ones((2, 4))}, {"argument": "source_vectors"}),
        ({"source_vectors": np.ones((3, 2, 4))}, {"argument": "source_vectors"}),
        ({"source_vectors": np.full((3, 4), np.nan)}, {"argument": "source_vectors"}),
        ({"encode": None}, {"argument": "encode"}),
        ({"encode": lambda texts: np.ones(4)}, {"argument": "encode"}),
        ({"encode": lambda t: np.full((len(t), 4), np.nan)}, {"argument": "encode"}),
    ],
)
def test_bad_arguments(arguments, fields):
    with raises(ValueError, **fields):
        align(["a", "b", "c"], ["A", "B", "C"], **{"encode": encode, **arguments})


def test_killed_and_resumed_vectors_are_the_same(
    edited, aligned, tmp_path, monkeypatch
):
    from labse_tf.alignment import runs

    monkeypatch.setattr(runs, "_BLOCK", 16)
    source, target, _ = edited
    calls = []

    def dies(limit: int):
        def encode_some(batch: list[str]) -> np.ndarray:
            calls.append(len(batch))
            if len(calls) > limit:
                raise KeyboardInterrupt
            return encode(batch)

        return encode_some

    with pytest.raises(KeyboardInterrupt):
        align(source, target, dies(6), work=tmp_path, model="a")
    calls.clear()
    resumed = align(source, target, dies(10**9), work=tmp_path, model="a")
    np.testing.assert_array_equal(resumed.nodes, aligned.nodes)
    np.testing.assert_array_equal(resumed.scores, aligned.scores)
    after_a_stop = sum(calls)
    calls.clear()
    align(source, target, dies(10**9), work=tmp_path, model="a")
    assert calls == [1, 1]  # The probes.
    calls.clear()
    align(source, target, dies(10**9), work=tmp_path, model="another")
    # A probe and five blocks were done before the stop.
    assert sum(calls) - after_a_stop == 5 * 16


# === Scores ===


def test_scores_by_hand():
    reference = [((0,), (0,)), ((1, 2), (1,)), ((3,), ()), ((4,), (2, 3))]
    found = [((0,), (0,)), ((1,), (1,)), ((2,), ()), ((4,), (2, 3)), ((5,), (9,))]
    assert score_alignment(found, reference) == pytest.approx((2 / 4, 2 / 3, 4 / 7))
    lax = score_alignment(found, reference, lax=True)
    assert lax == pytest.approx((3 / 4, 1.0, 6 / 7))
    assert score_alignment([], reference).f1 == 0
    assert score_alignment([], [((1,), ())]).f1 == 1


# === Anchors ===


def test_anchors_by_pattern():
    documents_ = [["# a", "b", "# c"], ["# x", "# y", "z"], ["q", "# r", "# s"]]
    assert anchors_by_pattern(documents_, "^# ") == [(0, 0, 1), (2, 1, 2)]
    for pattern in ("(", "nothing", "b"):
        with raises(ValueError, argument="pattern", received=True):
            anchors_by_pattern(documents_, pattern)


def test_anchors_of_line_numbers(tmp_path):
    documents_ = [
        [Sentence("a", 1), Sentence("b", 1), Sentence("c", 4)],
        [Sentence("x", 2), Sentence("y", 5)],
    ]
    path = tmp_path / "marks.txt"
    path.write_text("1 1\n\n3\t5\n9\t9\n")
    assert read_anchors(path, documents_) == [(0, 0), (2, 1), (3, 2)]
    for text in ("1 1\n2\n", "1 1\n2 x\n", "2 2\n1 3\n"):
        path.write_text(text)
        with raises(DataError, path=path, line=2, received=True):
            read_anchors(path, documents_)


# === The command ===


@pytest.fixture
def model(monkeypatch) -> None:
    monkeypatch.setattr(command, "open_encoder", lambda options: encode)


def two_files(folder: Path, edited) -> tuple[Path, Path]:
    paths = folder / "book.en.txt", folder / "book.hi.txt"
    for path, texts in zip(paths, edited, strict=False):
        path.write_text("".join(f"{text}\n\n" for text in texts), encoding="utf-8")
    return paths


def rows(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.usefixtures("model")
def test_the_command_writes_beads_with_their_lines(edited, aligned, tmp_path, capsys):
    paths = two_files(tmp_path, edited)
    output, report, plot = (tmp_path / f"out.{e}" for e in ("tsv", "json", "png"))
    common = ("align", *paths, "--lines", "-o", output)
    assert run(*common, "--json", report, "--plot", plot) == 0
    assert not (tmp_path / "out.tsv.work").exists()
    assert plot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    beads = aligned.beads()
    table = rows(output)
    assert len(table) == len(beads)
    for row, bead in zip(table, beads, strict=True):
        assert float(row[0]) == pytest.approx(bead.score, abs=1e-5)
        for place, indices, texts in (
            (1, bead.source, edited[0]),
            (2, bead.target, edited[1]),
        ):
            numbers = [
                str(2 * indices[k] + 1)
                for k in ({0, len(indices) - 1} if indices else ())
            ]
            assert row[place] == "-".join(sorted(numbers, key=int))
            assert row[place + 2] == " ".join(texts[i] for i in indices)
    result = json.loads(report.read_text())["pairs"][0]
    assert result["languages"] == ["en", "hi"]
    assert {k: result[k] for k in aligned.summary()} == aligned.summary()
    assert "book.hi.txt" in capsys.readouterr().out

    assert run(*common, "--deleted") == 0
    assert len(rows(output)) == len(aligned.scores)
    limit = sorted(bead.score for bead in beads)[9]
    assert run(*common, "--threshold", limit) == 0
    assert len(rows(output)) in (len(beads) - 9, len(beads) - 10)


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("order", [1, -1])
def test_pairs_and_parallel_files(edited, aligned, tmp_path, order):
    paths = two_files(tmp_path, edited)[::order]
    output = tmp_path / "en-hi.tsv"
    assert run("align", *paths, "--lines", "--format", "pairs", "-o", output) == 0
    pairs = list(read_pairs(output))
    assert (
        run("align", *paths, "--lines", "--format", "parallel", "-o", tmp_path / "c")
        == 0
    )
    sides = [(tmp_path / f"c.{code}").read_text().splitlines() for code in ("en", "hi")]
    assert [(p.source, p.target) for p in pairs] == list(zip(*sides, strict=True))
    if order == 1:
        assert [p.source for p in pairs] == [
            " ".join(edited[0][i] for i in bead.source) for bead in aligned.beads()
        ]


@pytest.mark.usefixtures("model")
def test_several_translations_share_units(tmp_path):
    english = ["One aa bb. Two dd ee.", "Three gg hh. Four jj kk."]
    urdu = ["ONE AA BB۔ TWO DD EE۔", "THREE GG HH۔ FOUR JJ KK۔"]
    tamil = ["ONE AA BB.", "THREE GG HH FOUR JJ KK."]
    for code, lines in (("en", english), ("ur", urdu), ("ta", tamil)):
        (tmp_path / f"{code}.txt").write_text("\n".join(lines), encoding="utf-8")
    files = [tmp_path / f"{code}.txt" for code in ("en", "ur", "ta")]
    output = tmp_path / "book.tmx"
    assert run("align", *files, "-o", output) == 0
    text = output.read_text()
    assert text.count("<tu>") == 5
    assert text.count('"ur"') == 4 and text.count('"ta"') == 2
    pairs = {(p.source, p.target, p.language) for p in read_pairs(output)}
    assert pairs == {
        ("One aa bb.", "ONE AA BB۔", "ur"),
        ("One aa bb.", "ONE AA BB.", "ta"),
        ("Two dd ee.", "TWO DD EE۔", "ur"),
        ("Three gg hh.", "THREE GG HH۔", "ur"),
        ("Four jj kk.", "FOUR JJ KK۔", "ur"),
        ("Three gg hh. Four jj kk.", "THREE GG HH FOUR JJ KK.", "ta"),
    }
    parallel = tmp_path / "all"
    assert run("align", *files, "--format", "parallel", "-o", parallel) == 0
    assert (tmp_path / "all.ta").read_text() == "ONE AA BB.\n"
    table = tmp_path / "all.jsonl"
    assert run("align", *files, "-o", table) == 0
    entries = [json.loads(line) for line in table.read_text().splitlines()]
    assert [e["language"] for e in entries] == ["ur"] * 4 + ["ta"] * 2
    assert entries[2]["source_line"] == 2 and entries[-1]["source_sentences"] == 2


@pytest.mark.usefixtures("model")
def test_long_lines_and_right_to_left_text(tmp_path):
    long = " ".join(f"w{i}" for i in range(3600))
    assert len(long) > 20_000
    english = tmp_path / "a.en.txt"
    arabic = tmp_path / "a.ar.txt"
    english.write_text(f"{long}\nشكرا جزيلا لك. نعم هذا صحيح!\nlast one here")
    arabic.write_text(f"{long.upper()}\nشكرا جزيلا لك. نعم هذا صحيح!\nLAST ONE HERE\n")
    output = tmp_path / "a.tmx"
    assert run("align", english, arabic, "-o", output) == 0
    assert [(p.source, p.target) for p in read_pairs(output)] == [
        (long, long.upper()),
        ("شكرا جزيلا لك.", "شكرا جزيلا لك."),
        ("نعم هذا صحيح!", "نعم هذا صحيح!"),
        ("last one here", "LAST ONE HERE"),
    ]


@pytest.mark.usefixtures("model")
def test_anchors_of_the_command(tmp_path):
    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    a.write_text("Chapter 1\none two three\nChapter 2\nfour five six\n")
    b.write_text("Chapter 1\nFOUR FIVE SIX\nChapter 2\nONE TWO THREE\nFOUR FIVE SIX")
    output, marks = tmp_path / "o.tsv", tmp_path / "marks"
    marks.write_text("1 1\n3 3\n")
    for flags in (("--anchors", "^Chapter"), ("--anchor-lines", marks)):
        assert run("align", a, b, *flags, "--lines", "-o", output) == 0
        places = [tuple(row[1:3]) for row in rows(output)]
        assert ("3", "3") in places and ("4", "5") in places
        assert ("4", "2") not in places


@pytest.mark.usefixtures("model")
def test_bad_input_of_the_command(tmp_path, capsys):
    good, bad = tmp_path / "a.en.txt", tmp_path / "b.hi.txt"
    good.write_text("one\ntwo\n")
    bad.write_bytes(b"one\ntwo \xff\n")
    output = tmp_path / "out.tmx"

    def refused(*arguments: object, **fields: object) -> None:
        refuses(capsys, ("align", *arguments), **fields)

    refused(good, bad, "-o", output, path=bad, line=2, received=True)
    refused(good, tmp_path / "no.hi.txt", "-o", output, path="no.hi.txt")
    refused(good, "-o", output, received=str(good))
    refused(good, f"hi={tmp_path / 'x.tmx'}", "-o", output, path="x.tmx", received=True)
    other = tmp_path / "plain.txt"
    other.write_text("x\n")
    refused(good, other, "-o", output, received="en and unknown")
    refused(good, f"en={other}", "-o", output, received="en and en")
    other_marks = tmp_path / "marks"
    other_marks.write_text("1 1\n1\n")
    files = (good, f"hi={other}")
    refused(
        *files, "--anchor-lines", other_marks, "-o", output, path=other_marks, line=2
    )
    refused(*files, "--anchors", "two", "-o", output, argument="pattern")
    refused(*files, "--max-sentences", 1, "-o", output, argument="max_sentences")
    refused(*files, "-o", tmp_path / "out.doc", received="out.doc")
    refused(*files, "--deleted", "-o", output, argument="--deleted")
    hindi = (f"hi={good}", f"ta={other}")
    refused(*hindi, "--format", "pairs", "-o", "x.tsv", received="hi and ta")
    refused(*files, "--format", "parallel", "-o", "-", argument="--format")
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["a.en.txt", "b.hi.txt", "marks", "plain.txt"]
    assert run("align", good, bad, "--on-error", "skip", "-o", output) == 0
    assert "b.hi.txt:2: " in capsys.readouterr().err


@pytest.mark.usefixtures("model")
def test_an_encoder_that_fails_leaves_vectors_but_no_output(
    tmp_path, monkeypatch, capsys
):
    a, b = tmp_path / "a.en.txt", tmp_path / "b.hi.txt"
    a.write_text("one\ntwo\n")
    b.write_text("ONE\nTWO\n")
    nan = lambda texts: np.full((len(texts), 4), np.nan)  # noqa: E731
    monkeypatch.setattr(command, "open_encoder", lambda options: nan)
    output = tmp_path / "out.tmx"
    check_message(fails(capsys, "align", a, b, "-o", output), argument="encode")
    assert not output.exists()


@pytest.mark.usefixtures("model")
def test_an_empty_document_gives_an_empty_file(tmp_path):
    a, b = tmp_path / "a.en.txt", tmp_path / "b.hi.txt"
    a.write_text("")
    b.write_text("one.\n")
    for ending in ("tsv", "jsonl"):
        output = tmp_path / f"out.{ending}"
        assert run("align", a, b, "-o", output) == 0
        assert output.read_text() == ""
    assert run("align", a, b, "--deleted", "-o", output) == 0
    assert json.loads(output.read_text())["target"] == "one."


def test_a_plot_needs_a_label_for_each_path(tmp_path):
    path = tmp_path / "path.png"
    nodes = np.array([[0, 0], [1, 1], [2, 1]])
    for paths, labels in (([nodes], []), ([], [])):
        with raises(ValueError, argument="paths", received=str(len(paths))):
            plots.plot_paths(path, paths=paths, labels=labels, axis="a")
    plots.plot_paths(path, paths=[nodes, nodes], labels=["b", "c"], axis="a")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_defaults_of_the_command_are_those_of_the_library():
    parser = cli.build_parser()
    actions = next(
        a for a in parser._actions if isinstance(a, argparse._SubParsersAction)
    )
    get = actions.choices["align"].get_default
    assert get("max_sentences") == alignment.MAX_SENTENCES
    assert get("band") == alignment.BAND
    assert get("run_vectors") == alignment.RUN_VECTORS[0]
