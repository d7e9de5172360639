"""Document alignment: vectors of documents, their pairs, and the command."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from helpers.command_line import run as run_command
from helpers.errors import raises, refuses
from helpers.paths import ROOT
from labse_tf.alignment import align, embed_runs
from labse_tf.alignment.document_pairs import (
    Documents,
    align_documents,
    alignment_score,
    bimax,
    document_vectors,
    shared_axes,
    slot_weights,
)
from labse_tf.cli import align_documents as align_documents_command
from labse_tf.encoders import open_encoder
from labse_tf.text import join_sentences, read_document, read_pairs


def random_unit(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("float32")


def near(vectors: np.ndarray, noise: float, seed: int = 1) -> np.ndarray:
    """Translations: the same vectors with noise."""
    found = vectors + noise * random_unit(*vectors.shape, seed)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def of_documents(parts: list[np.ndarray]) -> Documents:
    return Documents(np.concatenate(parts), [len(part) for part in parts])


# === Vectors ===


def test_slot_weights_are_beta_densities() -> None:
    def density(at: float, mode: float) -> float:
        a, b = 1 + 20 * mode, 1 + 20 * (1 - mode)
        beta = math.gamma(a) * math.gamma(b) / math.gamma(a + b)
        return at ** (a - 1) * (1 - at) ** (b - 1) / beta

    positions = [0.01, 0.2, 0.5, 0.77, 0.99]
    found = slot_weights(positions, slots=5)
    assert found.shape == (5, 5)
    for row, at in enumerate(positions):
        for slot, mode in enumerate((0, 0.25, 0.5, 0.75, 1)):
            highest = density(mode, mode) if 0 < mode < 1 else 21.0
            assert found[row, slot] == pytest.approx(density(at, mode) / highest, 1e-4)


def test_vectors_are_those_of_numpy() -> None:
    vectors, lengths = random_unit(6, 4), [4, 2, 2, 8, 1, 1]
    # The second sentence of the second document is also in the third one.
    rows, counts = [0, 1, 2, 3, 4, 5, 4], [3, 2, 0, 2]
    documents = Documents(vectors, counts, rows=rows, lengths=[*lengths, 3])
    assert documents.weights.tolist() == [1, 1, 1, 1, 0.5, 1, 0.5]
    at = [2 / 8, 5 / 8, 7 / 8, 4 / 9, 8.5 / 9, 0.5 / 4, 2.5 / 4]
    np.testing.assert_allclose(documents.positions, at, rtol=1e-6)
    axes = shared_axes(documents, documents, 3)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    found = document_vectors(documents, axes=axes, slots=4)
    mean = document_vectors(documents, method="mean")
    assert (found.shape, mean.shape) == ((4, 12), (4, 4))
    start = 0
    for document, count in enumerate(counts):
        parts, whole = np.zeros((4, 3)), np.zeros(4)
        for i in range(start, start + count):
            weight, vector = documents.weights[i], vectors[rows[i]].astype(float)
            whole += weight * vector
            short = vector @ axes / np.linalg.norm(vector @ axes)
            for slot in range(4):
                parts[slot] += weight * slot_weights([at[i]], 4)[0, slot] * short
        start += count
        norms = np.linalg.norm(parts, axis=1, keepdims=True)
        expected = (parts / np.where(norms, norms, 1)).ravel() / 2
        np.testing.assert_allclose(found[document], expected, atol=1e-5)
        length = np.linalg.norm(whole) or 1
        np.testing.assert_allclose(mean[document], whole / length, atol=1e-6)


def test_the_order_of_the_sentences_counts() -> None:
    part = random_unit(8, 16)
    documents = of_documents([part, part[::-1]])
    one, other = document_vectors(documents, method="mean")
    assert one @ other == pytest.approx(1, abs=1e-6)
    one, other = document_vectors(documents)
    assert one @ other < 0.7


def test_bimax_is_the_mean_of_both_directions() -> None:
    one, other = random_unit(3, 5), random_unit(4, 5, seed=2)
    best = [max(float(a @ b) for b in other) for a in one]
    back = [max(float(a @ b) for a in one) for b in other]
    expected = (sum(best) / 3 + sum(back) / 4) / 2
    assert bimax(one, other) == pytest.approx(expected, abs=1e-6)
    assert bimax(one, other[:0]) == -1


def test_the_alignment_score_counts_deletions() -> None:
    part = random_unit(6, 64)
    assert alignment_score(part, part) == pytest.approx(1, abs=1e-5)
    # Two of eight sentences have no translation.
    more = np.concatenate([part[:3], random_unit(2, 64, seed=5), part[3:]])
    assert alignment_score(part, more) == pytest.approx(12 / 14, abs=1e-5)
    # Another order: bimax does not notice.
    assert alignment_score(part, part[::-1]) < 0.5
    assert bimax(part, part[::-1]) == pytest.approx(1, abs=1e-5)
    assert alignment_score(part, part[:0]) == -1


# === Pairs ===


@pytest.mark.parametrize("method", ["slots", "mean"])
@pytest.mark.parametrize("rescore", [bimax, alignment_score, None])
def test_translations_of_documents_are_found(tmp_path, method, rescore) -> None:
    random = np.random.default_rng(3)
    # All documents share a footer, and neighbors share a third of their sentences.
    sentences, footer = random_unit(300, 32), random_unit(1, 32, seed=9)
    parts = [np.concatenate([sentences[5 * i : 5 * i + 8], footer]) for i in range(50)]
    order = random.permutation(50)
    there = [near(parts[i], 0.8, seed=int(i)) for i in order if i != 7]
    source, target = of_documents(parts), of_documents(there)
    options = {"method": method, "rescore": rescore, "candidates": 8}
    pairs = align_documents(source, target, **options)
    expected = {(int(i), row) for row, i in enumerate(i for i in order if i != 7)}
    found = set(zip(pairs.sources.tolist(), pairs.targets.tolist(), strict=True))
    assert len(found & expected) >= 48
    assert (np.diff(pairs.scores) <= 0).all()
    assert len(set(pairs.sources.tolist())) == len(pairs.scores)
    on_disk = align_documents(source, target, **options, work=tmp_path)
    for memory, disk in zip(pairs, on_disk, strict=True):
        np.testing.assert_array_equal(memory, disk)
    best = float(pairs.scores[10])
    few = align_documents(source, target, **options, threshold=best)
    assert len(few.scores) == 11


def test_order_tells_documents_of_the_same_sentences_apart() -> None:
    part = random_unit(9, 32)
    orders = [part, part[::-1], np.roll(part, 4, axis=0)]
    target = of_documents([near(orders[i], 0.3) for i in (2, 0, 1)])
    pairs = align_documents(of_documents(orders), target, rescore=None)
    assert dict(zip(pairs.sources.tolist(), pairs.targets.tolist(), strict=True)) == {
        0: 1,
        1: 2,
        2: 0,
    }


def test_each_document_is_in_one_pair() -> None:
    part = random_unit(4, 8)
    source = of_documents([part, near(part, 0.1), part[:0]])
    target = of_documents([part, part[:0]])
    pairs = align_documents(source, target)
    assert (pairs.sources.tolist(), pairs.targets.tolist()) == ([0], [0])
    assert pairs.scores[0] == pytest.approx(1, abs=1e-6)
    none = align_documents(source, Documents(np.zeros((0, 8)), []))
    assert len(none.scores) == 0


def test_bad_arguments() -> None:
    part = random_unit(4, 8)
    with raises(ValueError, "expected 5 rows of `vectors`", received="(4, 8)"):
        Documents(part, [2, 3])
    with raises(ValueError, "`counts`", received="-1"):
        Documents(part, [5, -1])
    with raises(ValueError, "expected 4 rows", received="`lengths` (3,)"):
        Documents(part, [4], lengths=[1, 2, 3])
    documents = Documents(part, [4])
    with raises(ValueError, "`method`", received="'bag'"):
        document_vectors(documents, method="bag")
    with raises(ValueError, "`slots`", received="1, 20"):
        document_vectors(documents, slots=1)
    with raises(ValueError, "`candidates` must be positive", received="0"):
        align_documents(documents, documents, candidates=0)
    with raises(ValueError, "same dimension", received="(8, 7)"):
        align_documents(documents, Documents(part[:, :7], [4]))


# === The command ===


@pytest.fixture
def articles(tmp_path) -> Path:
    """Two folders of documents in other names and another order."""
    sample = ROOT / "saved_models" / "sample" / "en-hi.tsv"
    hindi = [line.split("\t") for line in sample.read_text().splitlines()]
    for number in range(4):
        part = hindi[5 * number : 5 * number + 5]
        for language, column, name in (("en", 0, number), ("hi", 1, 9 - number)):
            folder = tmp_path / language / ("deep" if number == 3 else ".")
            folder.mkdir(parents=True, exist_ok=True)
            text = "\n".join(row[column] for row in part)
            (folder / f"{name}.txt").write_text(text + "\n")
    (tmp_path / "hi" / "empty.txt").write_text("\n")
    (tmp_path / "hi" / ".hidden.txt").write_text("x\n")
    return tmp_path


@pytest.mark.parametrize("score", ["bimax", "alignment"])
def test_the_command_finds_documents_and_aligns_them(articles, score, capsys) -> None:
    pairs, memory = articles / "pairs.tsv", articles / "memory.tmx"
    command = [
        *("align-documents", articles / "en", articles / "hi", "-o", pairs),
        *("--model", "labse-nano", "--score", score, "--align", memory),
        *("--run-vectors", "sum", "--json", articles / "out.json"),
    ]
    assert run_command(*command) == 0
    rows = [line.split("\t") for line in pairs.read_text().splitlines()]
    found = {
        (Path(a).relative_to(articles).as_posix(), Path(b).name) for _, a, b in rows
    }
    assert found == {
        ("en/0.txt", "9.txt"),
        ("en/1.txt", "8.txt"),
        ("en/2.txt", "7.txt"),
        ("en/deep/3.txt", "6.txt"),
    }
    scores = [float(row[0]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    out = json.loads((articles / "out.json").read_text())
    assert out["documents"] == {"source": 4, "target": 5}
    assert out["empty"] == {"source": 0, "target": 1}
    units = list(read_pairs(memory))
    assert len(units) == out["aligned"] >= 15
    assert {unit.language for unit in units} == {"hi"}
    assert not (articles / "pairs.tsv.work").exists()
    assert "4 pairs among 4 x 5 documents" in capsys.readouterr().out


def test_texts_are_embedded_once(articles, monkeypatch) -> None:
    """By both alignments, also if the command is interrupted."""
    pairs, table = articles / "pairs.tsv", articles / "beads.tsv"
    command = [
        *("align-documents", articles / "en", articles / "hi", "-o", pairs),
        *("--model", "labse-nano", "--align", table),
    ]
    model = open_encoder("labse-nano")
    asked: list[str] = []

    def encode(texts: list[str]) -> np.ndarray:
        if len(asked) + len(texts) > limit:
            raise KeyboardInterrupt
        asked.extend(texts)
        return model(texts)

    monkeypatch.setattr(align_documents_command, "open_encoder", lambda _: encode)
    limit = 90
    assert run_command(*command) == 130
    assert len(asked) > 70 and not table.exists()
    limit = 10**9
    assert run_command(*command) == 0
    documents = {
        str(path): [s.text for s in read_document(path, language=code)]
        for code in ("en", "hi")
        for path in (articles / code).rglob("[0-9].txt")
    }
    runs = [
        join_sentences(texts[start : start + length])
        for texts in documents.values()
        for length in range(1, 5)
        for start in range(len(texts) - length + 1)
    ]
    times = Counter(asked)
    assert {times[run] for run in runs} == {1}
    assert len(asked) - len(runs) <= 4  # Probes of the model.
    # The same beads as from vectors that are all computed here.
    found = []
    for line in pairs.read_text().splitlines():
        texts = [documents[path] for path in line.split("\t")[1:]]
        found += [
            [
                join_sentences(texts[0][i] for i in bead.source),
                join_sentences(texts[1][i] for i in bead.target),
            ]
            for bead in align(*texts, model, progress=False).beads()
        ]
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    assert [row[3:] for row in rows] == found


def test_known_vectors_must_fit_the_sentences(tmp_path) -> None:
    for wrong in (np.ones((2, 3)), np.ones(3)):
        with raises(ValueError, argument="sentence_vectors", received=wrong.shape):
            embed_runs(
                ["a", "b", "c"],
                len,
                tmp_path / "v.npy",
                longest=2,
                sentence_vectors=wrong,
            )


def test_bad_folders(articles, capsys) -> None:
    refuses(
        capsys,
        ["align-documents", articles / "en", articles / "xx", "-o", articles / "p.tsv"],
        str(articles / "xx"), "a folder of documents", received="no such folder",
    )  # fmt: skip
    (articles / "none").mkdir()
    refuses(
        capsys,
        ["align-documents", articles / "none", articles / "hi", "-o", "-"],
        "documents (.txt, .md)", received="none",
    )  # fmt: skip
    (articles / "en").rename(articles / "documents")
    refuses(
        capsys,
        [
            *("align-documents", articles / "documents", articles / "hi"),
            *("-o", articles / "p.tsv", "--align", articles / "m.tmx"),
        ],
        "TMX needs two languages", received="unknown and hi",
    )  # fmt: skip
    assert not (articles / "p.tsv").exists()
    (articles / "hi" / "9.txt").write_bytes(b"\xff\n")
    refuses(
        capsys,
        ["align-documents", articles / "documents", articles / "hi", "-o", "-"],
        f"{articles / 'hi' / '9.txt'}:1:", received=True,
    )  # fmt: skip
