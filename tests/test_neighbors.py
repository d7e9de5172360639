"""Batches of near neighbours: alike, complete, resumable, and learned from."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from helpers.errors import Fields, raises
from helpers.runs import RECIPE, make_pairs, train, weights
from labse_tf import data
from labse_tf.mining import principal_axes
from labse_tf.recipes import get_recipe
from labse_tf.training import Interrupted, Run, RunOptions, train_dual_encoder


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def planted(topics: int, each: int, dim: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around some centres, shuffled, and the number of each's centre."""
    random = np.random.default_rng(7)
    centres = unit(random.normal(size=(topics, dim)))
    topic = random.permutation(np.repeat(np.arange(topics), each))
    noise = random.normal(size=(len(topic), dim))
    return unit(centres[topic] + 0.05 * noise), topic


# === Groups ===


def test_groups_are_of_one_topic_and_hold_no_row_twice() -> None:
    vectors, topic = planted(topics=20, each=40)
    groups = data.neighbor_groups(vectors, 8, np.random.default_rng(0))
    assert groups.shape == (100, 8)
    assert sorted(groups.ravel()) == list(range(800))

    def purity(groups: np.ndarray) -> float:
        """Share of the rows whose topic is the commonest of their group."""
        return np.mean([np.bincount(topic[group]).max() / 8 for group in groups])

    by_chance = np.random.default_rng(0).permutation(800).reshape(-1, 8)
    # Where one anchor's rows end in a group, those of another begin.
    assert purity(groups) > 0.8 > 0.4 > purity(by_chance)


def test_groups_depend_on_the_generator_alone() -> None:
    vectors, _ = planted(topics=5, each=10)
    first, again, other = (
        data.neighbor_groups(vectors.astype(t), 4, np.random.default_rng(seed))
        for t, seed in ((np.float32, 1), (np.float32, 1), (np.float32, 2))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_rows_that_fill_no_group_are_left_out_at_random() -> None:
    vectors, _ = planted(topics=5, each=10)
    left = [
        set(range(50))
        - set(data.neighbor_groups(vectors, 8, np.random.default_rng(i)).ravel())
        for i in range(40)
    ]
    assert {len(rows) for rows in left} == {2}
    assert len(set.union(*left)) > 25


@pytest.mark.parametrize("size", [0, 51])
def test_a_group_size_that_cannot_be(size: int) -> None:
    vectors, _ = planted(topics=5, each=10)
    with raises(ValueError, 50, argument="group_size", received=size):
        data.neighbor_groups(vectors, size, np.random.default_rng(0))


def test_principal_axes_keep_inner_products() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(200, 5)) @ random.normal(size=(5, 32))
    axes = principal_axes(vectors, 5)
    np.testing.assert_allclose(axes.T @ axes, np.eye(5), atol=1e-6)
    short = vectors @ axes
    np.testing.assert_allclose(short @ short.T, vectors @ vectors.T, rtol=1e-4, atol=1)
    few = vectors @ principal_axes(vectors, 2)
    others = np.linalg.norm(vectors @ np.linalg.qr(random.normal(size=(32, 2)))[0])
    assert np.linalg.norm(few) > others  # the best two, not any two


# === Batches ===

COUNTS = {"hi": 320, "ta": 100, "or": 3}


@pytest.fixture(scope="module")
def corpus() -> data.ParallelCorpus:
    return data.ParallelCorpus(
        data.SentencePair(f"{code} {i} " + "x" * (i * 7 % 30), f"{code} {i}", code)
        for code, count in COUNTS.items()
        for i in range(count)
    )


@pytest.fixture(scope="module")
def vectors(corpus: data.ParallelCorpus) -> np.ndarray:
    random = np.random.default_rng(0)
    return unit(random.normal(size=(len(corpus), 4))).astype(np.float16)


def rows(corpus: data.ParallelCorpus, **options: object) -> list[list[int]]:
    """Row numbers of the batches."""
    pytest.importorskip("tensorflow")
    known = {
        text.decode(): row
        for row, text in enumerate(corpus.sources(np.arange(len(corpus))))
    }
    plan = data.SamplingPlan(batches="one_language", **options)
    dataset = data.sentence_pairs(corpus, lambda texts: {"text": texts}, plan)
    return [
        [known[text.decode()] for text in batch["source"]["text"]]
        for batch in dataset.as_numpy_iterator()
    ]


@pytest.mark.parametrize("buckets", [True, False])
def test_batches_are_alike_and_complete(corpus, vectors, buckets) -> None:
    options = {"batch_size": 32, "steps": 200, "length_buckets": buckets}

    def cosines(group_size: int | None) -> float:
        extra = {"vectors": vectors, "group_size": group_size} if group_size else {}
        products = []
        for batch in rows(corpus, **options, **extra):
            chosen = vectors[batch].astype(np.float32)
            products.append((chosen @ chosen.T)[~np.eye(32, dtype=bool)].mean())
        return float(np.mean(products))

    at_random, grouped, one_topic = (cosines(size) for size in (None, 8, 32))
    assert abs(at_random) < 0.1
    assert at_random + 0.05 < grouped < one_topic
    drawn = rows(corpus, vectors=vectors, group_size=8, **options)
    first, last = corpus.bounds["hi"]
    hindi = [batch for batch in drawn if first <= batch[0] < last]
    for start in range(0, len(hindi) - 9, 10):  # an epoch is ten batches
        epoch = list(itertools.chain(*hindi[start : start + 10]))
        assert sorted(epoch) == list(range(first, last))


def test_neighbours_are_of_like_length() -> None:
    random = np.random.default_rng(0)
    size = 4096
    letters = random.integers(1, 60, size)
    corpus = data.ParallelCorpus(
        data.SentencePair("x" * n + f" {i}", f"{i}", "hi")
        for i, n in enumerate(letters)
    )
    vectors = unit(random.normal(size=(size, 8)))

    def filled(**options: object) -> float:
        """Share of a batch's places that hold letters."""
        batches = rows(corpus, batch_size=64, vectors=vectors, group_size=16, **options)
        assert len(batches) == 64
        return np.mean([letters[b].mean() / letters[b].max() for b in batches])

    assert filled(length_buckets=True) > 0.8 > 0.6 > filled(length_buckets=False)


@pytest.mark.parametrize("size", [51, 52, 53, 64])
def test_an_epoch_ends_where_its_groups_end(size: int) -> None:
    """Three bands of 52 pairs leave out four of them, with which a batch is missing."""
    texts = data.ParallelCorpus(
        data.SentencePair(f"{i}" + "x" * (i % 9), f"{i}", "hi") for i in range(size)
    )
    plan = data.SamplingPlan(
        4,
        steps=40,
        batches="one_language",
        vectors=unit(np.random.default_rng(0).normal(size=(size, 3))),
        group_size=4,
    )
    batches = list(data.sampling.RowBatches(plan, texts, texts.lengths))
    assert len(batches) == 40 and all(
        len(set(rows)) == 4 for rows in map(list, batches)
    )
    bands = np.array_split(np.arange(size), min(8, size // 16))
    epoch = sum(len(band) // 4 for band in bands)
    for start in range(0, 40 - epoch, epoch):
        drawn = np.concatenate(batches[start : start + epoch])
        assert len(set(drawn.tolist())) == 4 * epoch


def test_a_resumed_dataset_goes_on(corpus, vectors) -> None:
    options = {"batch_size": 16, "steps": 90, "vectors": vectors, "group_size": 8}
    whole = rows(corpus, **options, seed=3)
    for start in (1, 64, 89):
        assert rows(corpus, **options, seed=3, start_step=start) == whole[start:]
    assert rows(corpus, **options, seed=4) != whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": "mixed"}, Fields(argument="vectors", received="mixed")),
        ({"group_size": 7}, Fields(16, argument="group_size", received=7)),
        ({"group_size": 0}, Fields(argument="group_size", received=0)),
        ({"vectors": np.zeros((3, 4))}, Fields(423, "(3, 4)", argument="vectors")),
        ({"vectors": np.zeros(423)}, Fields(423, "(423,)", argument="vectors")),
    ],
)
def test_wrong_arguments(corpus, vectors, options, message) -> None:
    whole = {"batches": "one_language", "vectors": vectors, "batch_size": 16}
    whole = {**whole, "group_size": 8, **options}
    with raises(ValueError, message):
        plan = data.SamplingPlan(**whole)
        data.sentence_pairs(corpus, lambda texts: {"text": texts}, plan)


# === Runs ===


@pytest.fixture
def start(tmp_path):
    """A trained model to go on from."""
    from helpers.runs import TOKENS

    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(TOKENS) + "\n")
    train(data.ParallelCorpus(make_pairs()), tmp_path / "start", vocabulary)
    return tmp_path / "start"


def test_killed_and_resumed_is_undisturbed(tmp_path, start, monkeypatch) -> None:
    recipe = dataclasses.replace(
        RECIPE, hard_negatives=4, batches="one_language", train_steps=10
    )

    def go(name: str):
        return train_dual_encoder(
            recipe,
            data.ParallelCorpus(make_pairs()),
            tmp_path / name,
            model=start,
            options=RunOptions(checkpoint_every=4, progress=False),
        )

    expected = go("whole")
    assert not (tmp_path / "whole" / "neighbors.npy").exists()

    saved = Run.save

    def killed(self: Run, model: object, step: int) -> None:
        saved(self, model, step)
        raise Interrupted(15, step)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", killed)
        with pytest.raises(Interrupted):
            go("killed")
    assert [p.name for p in (tmp_path / "killed" / "checkpoints").iterdir()]
    found = np.load(tmp_path / "killed" / "neighbors.npy")
    assert found.shape == (200, 16) and found.dtype == np.float16
    # The vectors are those of the start, not of the checkpoint: they are not made anew.
    monkeypatch.setattr("labse_tf.training.dual_encoder.principal_axes", None)
    for ours, theirs in zip(weights(go("killed")), weights(expected), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_hard_negatives_need_a_model(tmp_path, start) -> None:
    recipe = dataclasses.replace(RECIPE, hard_negatives=4, batches="one_language")
    with raises(ValueError, "`model`", "model=None", argument="hard_negatives"):
        train_dual_encoder(
            recipe,
            data.ParallelCorpus(make_pairs()),
            tmp_path / "new",
            vocabulary=tmp_path / "vocab.txt",
        )
    assert not (tmp_path / "new").exists()


def test_a_run_that_could_not_begin_leaves_no_vectors(
    tmp_path, start, monkeypatch
) -> None:
    """So that the corrected command can use the directory."""
    recipe = dataclasses.replace(
        RECIPE, hard_negatives=4, batches="one_language", train_steps=3
    )

    def go():
        return train_dual_encoder(
            recipe,
            data.ParallelCorpus(make_pairs()),
            tmp_path / "run",
            model=start,
            options=RunOptions(progress=False),
        )

    def fails(*args: object) -> None:
        raise ValueError("no batches")

    with monkeypatch.context() as patch:
        patch.setattr("labse_tf.training.dual_encoder._batches", fails)
        with pytest.raises(ValueError, match="no batches"):
            go()
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["run.lock"]
    recipe = dataclasses.replace(recipe, batch_size=8)
    go()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hard_negatives": 7}, Fields("hard_negatives=7", argument="batch_size")),
        ({"hard_negatives": -1}, Fields(0, "hard_negatives=-1")),
        ({"batches": "mixed"}, Fields("batches='mixed'", argument="batches")),
    ],
)
def test_recipes_that_cannot_be(changes, message) -> None:
    whole = {"hard_negatives": 8, "batch_size": 64, "batches": "one_language"}
    with raises(ValueError, message):
        get_recipe("small", **{**whole, **changes})
