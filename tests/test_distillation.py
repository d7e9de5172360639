"""Distillation: teacher vectors on disk, losses, batches, and the run of a student."""

from __future__ import annotations

import dataclasses
import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from helpers.command_line import run as run_command
from helpers.errors import raises, refuses
from helpers.runs import OTHER, TOKENS, WORDS, log_of, weights
from labse_tf import presets
from labse_tf.data import (
    ParallelCorpus,
    SamplingPlan,
    SentencePair,
    TextVectors,
    load_pairs,
    sentence_pairs,
)
from labse_tf.distillation import (
    DistillationLoss,
    DistillationRecipe,
    Distiller,
    distill,
    distillation_batches,
    make_bag,
    make_student_of_states,
    make_targets,
)
from labse_tf.distillation.recipe import DISTILLATION_RECIPES
from labse_tf.distillation.states import (
    TeacherStates,
    block_outputs,
    states_loss,
    vectors_and_states,
)
from labse_tf.losses import AdditiveMarginSoftmax
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.tokenizers import WordPieceTokenizer
from labse_tf.training import Interrupted, RunOptions, fitting
from labse_tf.trimming import drop_prefix, keep_layers

RECIPE = DistillationRecipe(
    sequence_length=16,
    batch_size=16,
    train_steps=12,
    learning_rate=5e-3,
    warmup_steps=2,
    dropout=0.1,  # its random states belong to a checkpoint
    contrastive_weight=0.3,
    logit_weight=0.2,
)


def random_unit(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("float32")


def of_words(texts: list[str]) -> np.ndarray:
    """A teacher: sums of random vectors of the words; translations are equal."""
    table = random_unit(6, 12, seed=3) + 0.5
    found = [
        sum(table[(WORDS + OTHER).index(word) % 6] for word in text.split() or ["sun"])
        for text in texts
    ]
    return np.asarray(found) / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture
def student(tmp_path) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    backbone = LaBSEBackbone(len(TOKENS), 1, 2, 8, 16, max_sequence_length=16)
    tokenizer = WordPieceTokenizer(tmp_path / "vocab.txt")
    model = LaBSE(backbone, SentencePreprocessor(tokenizer, 16), pooling="mean")
    model.save_to_preset(tmp_path / "student")
    return tmp_path / "student"


# === Teacher vectors ===


def test_each_text_is_computed_once(tmp_path) -> None:
    seen: list[str] = []

    def encode(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return of_words([text.removeprefix("query: ") for text in texts])

    store = TextVectors(tmp_path / "v", "words", "query: ")
    assert store.add(["sun", "moon", "sun"], encode, progress=False) == 2
    again = TextVectors(tmp_path / "v")
    assert (again.model, again.prefix, again.dimension) == ("words", "query: ", 12)
    assert again.add([b"moon", "sun star"], encode, progress=False) == 1
    assert sorted(seen) == ["query: moon", "query: sun", "query: sun star"]
    texts = ["sun star", "sun", "moon"]
    found = again.vectors[again.rows(texts)]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, of_words(texts), atol=1e-3)
    assert again.find(["night", "moon"]).tolist() == [-1, *again.rows(["moon"])]
    with raises(ValueError, "the vector of each text", received="none for 1 of 2"):
        again.rows(["sun", "night"])


@pytest.mark.parametrize("lost", [("vectors.bin", 3), ("keys.bin", 9)])
def test_a_killed_computation_resumes(tmp_path, lost) -> None:
    texts = [f"{a} {b}" for a in WORDS for b in WORDS]
    store = TextVectors(tmp_path / "v", "words")
    store.add(texts[:20], of_words, progress=False)
    # As after a kill between the writes of a block.
    with (tmp_path / "v" / lost[0]).open("ab") as file:
        file.truncate(file.tell() - lost[1])
    resumed = TextVectors(tmp_path / "v", "words", "")
    assert len(resumed) == (19 if lost[0] == "vectors.bin" else 18)
    missing = len(texts) - len(resumed)
    assert resumed.add(texts, of_words, progress=False) == missing
    rows = TextVectors(tmp_path / "v").rows(texts)
    assert len(set(rows.tolist())) == len(texts)
    np.testing.assert_allclose(resumed.vectors[rows], of_words(texts), atol=1e-3)


def test_an_interrupted_computation_keeps_its_blocks(tmp_path, monkeypatch) -> None:
    from labse_tf.data import text_vectors

    monkeypatch.setattr(text_vectors, "_BLOCK", 4)
    calls = 0

    def encode(texts: list[str]) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return of_words(texts)

    texts = [f"{a} {b}" for a in WORDS for b in WORDS]
    store = TextVectors(tmp_path / "v", "words")
    with pytest.raises(KeyboardInterrupt):
        store.add(texts, encode, progress=False)
    assert TextVectors(tmp_path / "v").find(texts).tolist() == [
        *range(8),
        *[-1] * 28,
    ]


def test_wrong_stores_and_teachers(tmp_path) -> None:
    with raises(ValueError, "expected vectors of texts", received="no vectors.json"):
        TextVectors(tmp_path / "none")
    store = TextVectors(tmp_path / "v", "words", "query: ")
    store.add(["sun"], lambda texts: of_words(["sun"]), progress=False)
    with raises(ValueError, "prefix ''", received="query: "):
        TextVectors(tmp_path / "v", "words", "")
    with raises(ValueError, "model 'other'", received="words"):
        TextVectors(tmp_path / "v", "other")
    with raises(ValueError, "one vector per text, (1, 12)", received=(1, 5)):
        store.add(["moon"], lambda texts: np.ones((1, 5)), progress=False)
    with raises(ValueError, "finite numbers", received="nan"):
        store.add(["moon"], lambda texts: np.full((1, 12), np.nan), progress=False)
    (tmp_path / "v" / "vectors.json").write_text("[1]")
    with raises(ValueError, "vectors.json", received="another content"):
        TextVectors(tmp_path / "v")


@pytest.mark.parametrize("dimension", [12, 5])
@pytest.mark.parametrize("center", [True, False])
def test_targets_are_centered_and_projected(tmp_path, dimension, center) -> None:
    texts = [f"{a} {b}" for a in WORDS for b in WORDS]
    corpus = ParallelCorpus([SentencePair(t, t, "es") for t in texts])
    store = TextVectors(tmp_path / "v", "words")
    store.add(texts, of_words, progress=False)
    targets = make_targets(store, corpus, dimension, center=center)
    found = targets.take(np.arange(len(texts)))[1]
    wanted = of_words(texts).astype(np.float16).astype(np.float64)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    if center:
        wanted -= wanted.mean(axis=0)
        wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    # A projection to d axes keeps the d largest singular values.
    left, values, _ = np.linalg.svd(wanted, full_matrices=False)
    wanted = left[:, :dimension] * values[:dimension]
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert found.shape == (36, dimension)
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=2e-3)


def test_targets_of_the_source_side(tmp_path) -> None:
    corpus = ParallelCorpus(
        [SentencePair("sun", "sol", "es"), SentencePair("moon", "luna", "es")]
    )
    store = TextVectors(tmp_path / "v", "words")
    store.add(["sun", "moon"], of_words, progress=False)
    source, target = make_targets(store, corpus, 12, side="source").take(np.arange(2))
    np.testing.assert_array_equal(source, target)
    with raises(ValueError, "each text", received="none for 2, such as 'sol'"):
        make_targets(store, corpus, 12)
    make_targets(store, corpus, 12, side="source", used=np.array([0]))
    with raises(ValueError, "not be wider", 12, received=13):
        make_targets(store, corpus, 13)


# === Losses ===


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def oracle(x, y, u, v, copies: list[tuple[int, int]] = ()) -> dict[str, float]:
    """The terms in float64, straight from their definitions."""
    x, y, u, v = (a.astype(np.float64) for a in (x, y, u, v))
    count = len(x)
    terms = {"feature": 0.0, "logit": 0.0, "contrastive": 0.0}
    for i in range(count):
        for ours, theirs in ((x, u), (y, v)):
            terms["feature"] += ((ours[i] - theirs[i]) ** 2).sum() / 2 / count
            logits = ours[i] @ theirs.T / 0.07
            kept = [j for j in range(count) if j == i or (i, j) not in copies]
            share = np.exp(logits[i]) / np.exp(logits[kept]).sum()
            terms["contrastive"] -= np.log(share) / 2 / count
    for queries, others, known, known_others in ((x, y, u, v), (y, x, v, u)):
        wanted = softmax(known @ known_others.T / 0.05)
        found = softmax(queries @ others.T / 0.05)
        divergence = (wanted * (np.log(wanted) - np.log(found))).sum(axis=1)
        terms["logit"] += divergence.mean() / 2
    return terms


def test_terms_are_those_of_numpy() -> None:
    x, y, u, v = (random_unit(7, 5, seed) for seed in range(4))
    loss = DistillationLoss(feature=2.0, logit=0.5, contrastive=3.0, margin=0.7)
    wanted = oracle(x, y, u, v)
    wanted["margin"] = float(AdditiveMarginSoftmax()(x, y))
    found = loss.terms(x, y, u, v)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        wanted, rel=1e-5
    )
    total = sum(loss.weights[name] * value for name, value in wanted.items())
    assert float(loss(x, y, u, v)) == pytest.approx(total, rel=1e-5)
    unpaired = total - 0.7 * wanted["margin"]
    assert float(loss(x, y, u, v, paired=0.0)) == pytest.approx(unpaired, rel=1e-5)


def test_copies_are_no_negatives() -> None:
    x, y, u, v = (random_unit(6, 5, seed) for seed in range(4))
    sources = np.array([[1, 1], [2, 2], [1, 1], [4, 4], [5, 5], [6, 6]], np.int32)
    targets = np.array([[9, 1], [9, 2], [9, 3], [9, 2], [9, 5], [9, 6]], np.int32)
    loss = DistillationLoss(feature=0.0, contrastive=1.0, margin=0.0)
    found = loss(x, y, u, v, source_ids=sources, target_ids=targets)
    copies = [(0, 2), (2, 0), (1, 3), (3, 1)]
    wanted = oracle(x, y, u, v, copies)["contrastive"]
    assert float(found) == pytest.approx(wanted, rel=1e-5)
    assert float(loss(x, y, u, v)) > float(found)


def test_a_perfect_student_has_no_loss() -> None:
    x, y = random_unit(6, 5, 0), random_unit(6, 5, 1)
    loss = DistillationLoss(feature=1.0, logit=1.0, margin=0.0)
    assert float(loss(x, y, x, y)) == pytest.approx(0.0, abs=1e-6)


def test_bad_losses() -> None:
    with raises(ValueError, "`logit` must be 0 or more", received=-1):
        DistillationLoss(logit=-1)
    with raises(ValueError, "must be positive", received="feature"):
        DistillationLoss(feature=0, margin=0)
    with raises(ValueError, "`temperature` must be positive", received=0):
        DistillationLoss(temperature=0)
    x = random_unit(3, 4)
    with raises(ValueError, "same shape (b, d)", received="(3, 5)"):
        DistillationLoss()(x, x, x, random_unit(3, 5))
    with raises(ValueError, "DistillationLoss", received="AdditiveMarginSoftmax"):
        model = LaBSE(LaBSEBackbone(20, 0, 1, 4, 4), None, pooling="mean")
        Distiller(model).compile(loss=AdditiveMarginSoftmax())


def test_the_loss_survives_its_config() -> None:
    loss = DistillationLoss(
        feature=1, logit=2, contrastive=3, pair_loss=AdditiveMarginSoftmax(0.1, 5.0)
    )
    again = DistillationLoss.from_config(loss.get_config())
    assert again.get_config() == loss.get_config()
    assert again.pair_loss.margin == 0.1


# === Batches ===


def test_batches_are_those_of_sentence_pairs(tmp_path, corpus, student) -> None:
    store = TextVectors(tmp_path / "v", "words")
    store.add([t for _, t in corpus.texts()], of_words, progress=False)
    targets = make_targets(store, corpus, 8)
    preprocessor = LaBSE.from_preset(student).text_preprocessor()
    plan = SamplingPlan(16, steps=6, start_step=2)
    both = zip(
        distillation_batches(corpus, targets, preprocessor, plan),
        sentence_pairs(corpus, preprocessor, plan),
        strict=True,
    )
    for (x, y), pairs in both:
        for side in ("source", "target"):
            for name, tensor in pairs[side].items():
                np.testing.assert_array_equal(x[side][name], tensor)
            assert y[side].shape == (16, 8)
        assert y["paired"].numpy().tolist() == [1.0] * 16
        # Sums of the same words.
        np.testing.assert_allclose(y["source"], y["target"], atol=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_one_side_of_each_pair(tmp_path, corpus, student, share) -> None:
    store = TextVectors(tmp_path / "v", "words")
    store.add([t for _, t in corpus.texts()], of_words, progress=False)
    targets = make_targets(store, corpus, 8)
    preprocessor = LaBSE.from_preset(student).text_preprocessor()
    first_words = TOKENS.index(WORDS[0]), TOKENS.index(OTHER[0])
    from_source = texts = 0
    plan = SamplingPlan(16, steps=40)
    for x, y in distillation_batches(
        corpus, targets, preprocessor, plan, source_share=share
    ):
        assert y["paired"].numpy().tolist() == [0.0] * 8
        for side in ("source", "target"):
            ids = x[side]["token_ids"].numpy()
            assert ids.shape[0] == 8
            is_source = ids[:, 1] < first_words[1]
            from_source, texts = from_source + is_source.sum(), texts + 8
            # Each row still has the vector of its own text.
            words = [
                " ".join(TOKENS[i] for i in row if i >= first_words[0]) for row in ids
            ]
            np.testing.assert_allclose(
                y[side], targets.project(of_words(words)), atol=1e-2
            )
    assert from_source / texts == pytest.approx(share, abs=0.06)


# === The run ===


def run(corpus, output: Path, student: Path, vectors: Path, **changes: object) -> LaBSE:
    options = {"checkpoint_every": 4, "log_every": 2, "progress": False}
    options |= changes.pop("options", {})
    return distill(
        dataclasses.replace(RECIPE, **changes),
        corpus,
        output,
        student=student,
        teacher=TextVectors(vectors, "words"),
        encode=of_words,
        options=RunOptions(**options),
    )


@pytest.mark.parametrize("share", [None, 0.2])
def test_a_student_learns(tmp_path, corpus, student, share) -> None:
    model = run(
        corpus, tmp_path / "run", student, tmp_path / "v", source_share=share,
        train_steps=150, learning_rate=2e-2,
    )  # fmt: skip
    cosines = [entry["teacher_cosine"] for entry in log_of(tmp_path / "run")]
    assert cosines[0] < 0.3 < 0.8 < cosines[-1]
    texts = [text.decode() for _, text in corpus.texts()][:50]
    store = TextVectors(tmp_path / "v")
    wanted = make_targets(store, corpus, 8).project(of_words(texts))
    assert (model.encode(texts, progress=False) * wanted).sum(axis=1).mean() > 0.8
    card = (tmp_path / "run" / presets.CARD).read_text()
    assert "words" in card and "teacher" in card


def test_killed_and_resumed_is_undisturbed(
    tmp_path, corpus, student, monkeypatch
) -> None:
    whole = run(corpus, tmp_path / "whole", student, tmp_path / "v")
    count = len(TextVectors(tmp_path / "v"))
    signal = fitting.Keeper._signal
    monkeypatch.setattr(
        fitting.Keeper, "_signal", lambda self: 15 if self.step == 6 else signal(self)
    )
    with pytest.raises(Interrupted):
        run(corpus, tmp_path / "parts", student, tmp_path / "v")
    monkeypatch.setattr(fitting.Keeper, "_signal", signal)
    parts = run(corpus, tmp_path / "parts", student, tmp_path / "v")
    for one, two in zip(weights(whole), weights(parts), strict=True):
        np.testing.assert_array_equal(one, two)
    assert len(TextVectors(tmp_path / "v")) == count
    with raises(ValueError, "start.teacher", received="other"):
        distill(
            RECIPE, corpus, tmp_path / "whole", student=student,
            teacher=TextVectors(tmp_path / "w", "other"), encode=of_words,
        )  # fmt: skip


def test_only_the_texts_of_the_batches_are_computed(tmp_path, student) -> None:
    pairs = [
        SentencePair(f"{a} {b} {c}", f"{a} {b} {c} {a}", "es")
        for a in WORDS for b in WORDS for c in WORDS
    ]  # fmt: skip
    corpus = ParallelCorpus(pairs)
    run(
        corpus, tmp_path / "run", student, tmp_path / "v", batch_size=8, train_steps=3,
        warmup_steps=0, teacher_side="source",
    )  # fmt: skip
    assert len(TextVectors(tmp_path / "v")) == 24


def test_chunks_train_as_the_whole_batch(tmp_path, corpus, student) -> None:
    found = [
        run(
            corpus, tmp_path / f"run{chunk}", student, tmp_path / "v", dropout=0.0,
            chunk_size=chunk,
        )
        for chunk in (None, 4)
    ]  # fmt: skip
    for one, two in zip(*map(weights, found), strict=True):
        np.testing.assert_allclose(one, two, atol=2e-5)


REPLICAS = """
    import json, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[4])
    import numpy as np
    from helpers.runs import make_pairs
    from labse_tf.data import ParallelCorpus
    from labse_tf.training import RunOptions
    import test_distillation as tests

    model = tests.run(
        ParallelCorpus(make_pairs()), Path(sys.argv[2]), Path(sys.argv[3]),
        Path(sys.argv[2] + ".v"), dropout=0.0, optimizer="adamw",
        options={"strategy": sys.argv[1]},
    )
    np.savez(sys.argv[2] + ".npz", *tests.weights(model))
"""


def test_replicas_train_as_one_device(run_python, tmp_path, student) -> None:
    found = []
    for strategy in ("one_device", "cpu:2"):
        output = tmp_path / strategy.replace(":", "")
        run_python(REPLICAS, strategy, output, student, Path(__file__).parent)
        with np.load(f"{output}.npz") as arrays:
            found.append([arrays[name] for name in arrays.files])
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, atol=2e-5)


# === States of the teacher's blocks ===


def with_blocks(vocabulary: Path, layers: int, prefix: str = "", **changes) -> LaBSE:
    """A model of random weights, large enough that its states differ."""
    config = {"max_sequence_length": 24, "dropout": 0.0, "initializer_range": 0.5}
    tokens = len(TOKENS) if vocabulary.name == "vocab.txt" else 40
    backbone = LaBSEBackbone(tokens, layers, 2, 8, 16, **(config | changes))
    tokenizer = WordPieceTokenizer(vocabulary)
    preprocessor = SentencePreprocessor(tokenizer, 16, prefix=prefix)
    return LaBSE(backbone, preprocessor, pooling="mean")


@pytest.fixture
def vocabulary(tmp_path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(TOKENS) + "\n")
    return path


TEXTS = ["sun moon", "star", "", "sky day night sol luna"]


@pytest.mark.parametrize("prefix", ["", "sun sky "])
def test_states_are_those_of_the_same_tokens(vocabulary, prefix) -> None:
    teacher = with_blocks(vocabulary, 4, prefix)
    student = with_blocks(vocabulary, 2)
    states = TeacherStates(teacher, student)
    assert states.blocks == (1, 3)
    features = student.preprocessor(TEXTS)
    found = states(features)
    own = teacher.preprocessor(TEXTS)
    wanted = block_outputs(teacher, own, training=False)
    count = len(prefix.split())
    for block, x in zip((1, 3), found, strict=True):
        y = np.asarray(wanted[block])
        y = np.concatenate([y[:, :1], y[:, 1 + count :]], axis=1)
        real = np.asarray(features["padding_mask"], bool)
        np.testing.assert_allclose(np.asarray(x)[real], y[real], atol=1e-5)


def test_the_loss_of_states_is_that_of_numpy(vocabulary) -> None:
    teacher, student = with_blocks(vocabulary, 4, "sun "), with_blocks(vocabulary, 2)
    states = TeacherStates(teacher, student, [0, 2])
    states.fit(TEXTS, student.preprocessor)
    features = student.preprocessor(TEXTS)
    vectors, found = vectors_and_states(student, features, False)
    np.testing.assert_allclose(
        vectors, student.encode(TEXTS, progress=False), atol=1e-6
    )
    wanted = [np.asarray(x) for x in states(features)]
    mask = np.asarray(features["padding_mask"], bool)
    variances = []
    for x in wanted:
        mean = x[mask].mean(axis=0)
        each = [
            ((row[m] - mean) ** 2).sum(axis=1).mean()
            for row, m in zip(x, mask, strict=True)
        ]
        variances.append(np.mean(each))
    np.testing.assert_allclose(states.variances, variances, rtol=1e-5)
    expected = np.zeros(len(TEXTS))
    for s, u, variance in zip(found, wanted, variances, strict=True):
        for row, m in enumerate(mask):
            distances = ((np.asarray(s)[row][m] - u[row][m]) ** 2).sum(axis=1)
            expected[row] += distances.mean() / variance / 2
    loss = states_loss(found, wanted, features["padding_mask"], states.variances)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    # The mean state of each block has the loss 1.
    means = [np.broadcast_to(x[mask].mean(axis=0), x.shape) for x in wanted]
    loss = states_loss(means, wanted, features["padding_mask"], states.variances)
    assert np.mean(loss) == pytest.approx(1.0, rel=1e-4)


def test_dropping_a_prefix_keeps_the_positions(vocabulary, tmp_path) -> None:
    teacher = with_blocks(vocabulary, 0, "sun sky ")
    dropped = drop_prefix(teacher)
    assert dropped.preprocessor.prefix == ""
    assert dropped.backbone.max_sequence_length == 22
    outputs = [
        np.asarray(m.backbone(m.preprocessor(["star moon"]))["sequence_output"])
        for m in (teacher, dropped)
    ]
    np.testing.assert_allclose(outputs[0][:, 3:], outputs[1][:, 1:], atol=1e-6)
    np.testing.assert_allclose(outputs[0][:, :1], outputs[1][:, :1], atol=1e-6)
    assert drop_prefix(dropped) is dropped


def test_models_whose_states_do_not_fit(vocabulary, tmp_path) -> None:
    student = with_blocks(vocabulary, 2)
    other = tmp_path / "other.txt"
    other.write_text("\n".join([*TOKENS, *(f"w{i}" for i in range(40 - len(TOKENS)))]))
    for teacher, asked, words in (
        (with_blocks(vocabulary, 1), None, ("`student`", "from 1 to 1 blocks")),
        (with_blocks(vocabulary, 4), [1], ("`blocks`", "0 to 3")),
        (with_blocks(vocabulary, 4), [1, 4], ("`blocks`", "0 to 3")),
        (with_blocks(other, 4), None, ("`student`", "tokenizer")),
        (
            with_blocks(vocabulary, 4, "sun sky ", max_sequence_length=17),
            None,
            ("`teacher`", "position"),
        ),
    ):
        with raises(ValueError, *words):
            TeacherStates(teacher, student, asked)
    with raises(ValueError, "`student`", "prefix", received="'sun '"):
        TeacherStates(with_blocks(vocabulary, 4), with_blocks(vocabulary, 2, "sun "))
    states = TeacherStates(with_blocks(vocabulary, 4), student)
    with raises(ValueError, "`texts`"):
        states.fit([], student.preprocessor)
    for changes in ({"chunk_size": 4}, {"length_groups": 2}):
        with raises(ValueError, "`chunk_size`"):
            Distiller(student, **changes).learn_states(states, 1.0)
        recipe = dataclasses.replace(RECIPE, states_weight=1.0, **changes)
        with raises(ValueError, "`chunk_size`"):
            recipe.check()
    with raises(ValueError, "`weight`"):
        Distiller(student).learn_states(states, 0.0)


STATES = {"dropout": 0.0, "states_weight": 2.0, "train_steps": 60}


def run_with_states(corpus, output: Path, student: Path, teacher: LaBSE, **changes):
    options = {"checkpoint_every": 4, "log_every": 2, "progress": False}
    options |= changes.pop("options", {})
    return distill(
        dataclasses.replace(RECIPE, **(STATES | changes)),
        corpus,
        output,
        student=student,
        teacher=TextVectors(f"{output}.v", "teacher"),
        encode=lambda texts: teacher.encode(texts, progress=False),
        teacher_model=teacher,
        options=RunOptions(**options),
    )


def test_a_student_learns_the_states(tmp_path, corpus, vocabulary) -> None:
    teacher = with_blocks(vocabulary, 4, "sun ")
    start = drop_prefix(keep_layers(teacher, [1, 3]))
    start.save_to_preset(tmp_path / "student")
    model = run_with_states(corpus, tmp_path / "run", tmp_path / "student", teacher)
    texts = [text.decode() for _, text in corpus.texts()][:50]
    losses = []
    for found in (start, model):
        states = TeacherStates(teacher, found)
        states.fit(texts, found.preprocessor)
        features = found.preprocessor(texts)
        _, own = vectors_and_states(found, features, False)
        wanted, mask = states(features), features["padding_mask"]
        losses.append(np.mean(states_loss(own, wanted, mask, states.variances)))
    assert losses[1] < 0.6 * losses[0]
    # The preset has the student only.
    assert model.backbone.num_layers == 2
    with raises(ValueError, "`teacher_model`", received="vectors only"):
        run(
            corpus, tmp_path / "no", tmp_path / "student", tmp_path / "w",
            states_weight=1.0,
        )  # fmt: skip


REPLICATED_STATES = """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[5])
    import numpy as np
    from helpers.runs import make_pairs
    from labse_tf.data import ParallelCorpus
    from labse_tf.distribute import get_strategy
    from labse_tf.models import LaBSE
    import test_distillation as tests

    get_strategy(sys.argv[1])  # before the teacher uses the devices
    model = tests.run_with_states(
        ParallelCorpus(make_pairs()), Path(sys.argv[2]), Path(sys.argv[3]),
        LaBSE.from_preset(sys.argv[4]), optimizer="adamw", train_steps=8,
        options={"strategy": sys.argv[1]},
    )
    # The bias of the keys has no gradient: its moments are rounding errors.
    arrays = [np.asarray(w) for w in model.weights if "key/bias" not in w.path]
    np.savez(sys.argv[2] + ".npz", *arrays)
"""


def test_replicas_learn_states_as_one_device(run_python, tmp_path, vocabulary) -> None:
    teacher = with_blocks(vocabulary, 4, "sun ")
    teacher.save_to_preset(tmp_path / "teacher")
    drop_prefix(keep_layers(teacher, [1, 3])).save_to_preset(tmp_path / "student")
    found = []
    for strategy in ("one_device", "cpu:2"):
        output = tmp_path / strategy.replace(":", "")
        run_python(
            REPLICATED_STATES, strategy, output, tmp_path / "student",
            tmp_path / "teacher", Path(__file__).parent,
        )  # fmt: skip
        with np.load(f"{output}.npz") as arrays:
            found.append([arrays[name] for name in arrays.files])
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, atol=2e-5)


# === Students to start from ===


def of_tokens(texts: list[str]) -> np.ndarray:
    """A teacher of any text: one random vector per text, off center."""
    vectors = [random_unit(1, 24, seed=zlib.crc32(text.encode()))[0] for text in texts]
    return np.asarray(vectors) + 0.4


def test_a_bag_has_the_vectors_of_the_tokens(tmp_path) -> None:
    words = [f"{a}{b}" for a in WORDS for b in OTHER]
    tokens = [*TOKENS, *words, *(f"##{word}" for word in words)]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n")
    tokenizer = WordPieceTokenizer(tmp_path / "vocab.txt")
    seen: list[str] = []

    def encode(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return of_tokens(texts)

    model = make_bag(encode, tokenizer, 24, prefix="q: ", progress=False)
    assert seen == ["q: " + token.removeprefix("##") for token in tokens[5:]]
    vectors = of_tokens(["q: " + token.removeprefix("##") for token in tokens[5:]])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    unit -= unit.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    # The mean of the tokens' vectors, each with the mean of its numbers subtracted by
    # the layer norm, which changes little.
    texts = ["sun moon", "sunsol", "nightnoche star"]
    wanted = np.stack(
        [sum(unit[tokens.index(word) - 5] for word in text.split()) for text in texts]
    )
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    found = model.encode(texts, progress=False)
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=0.15)
    table = np.asarray(model.backbone.token_embedding.embeddings)
    np.testing.assert_allclose(table[5:] @ table[5:].T, unit @ unit.T, atol=1e-4)
    assert not table[:5].any()
    with raises(ValueError, "multiple of 4", received=10):
        make_bag(of_tokens, tokenizer, 10, progress=False)
    with raises(ValueError, "at most 24", received=28):
        make_bag(of_tokens, tokenizer, 28, progress=False)


# === Recipe and command ===


def test_every_value_of_a_recipe_has_a_source() -> None:
    for named in DISTILLATION_RECIPES.values():
        named.recipe.check()
        fields = {field.name for field in dataclasses.fields(named.recipe)}
        assert set(named.sources) == fields and named.about


def test_recipes_are_checked() -> None:
    with raises(ValueError, "`stages`", received="stages"):
        dataclasses.replace(RECIPE, stages=((0, 2),), num_layers=1).check()
    with raises(ValueError, "`batch_size` must be even", received=15):
        dataclasses.replace(RECIPE, batch_size=15, source_share=0.1).check()
    with raises(ValueError, "must be positive", received="feature"):
        dataclasses.replace(
            RECIPE, feature_weight=0, logit_weight=0, contrastive_weight=0,
            source_share=0.5,
        ).check()  # fmt: skip


def write_teacher(folder: Path) -> Path:
    """A preset with two blocks over the vocabulary of the words."""
    (folder / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    backbone = LaBSEBackbone(len(TOKENS), 2, 2, 8, 16, max_sequence_length=32)
    tokenizer = WordPieceTokenizer(folder / "vocab.txt")
    model = LaBSE(backbone, SentencePreprocessor(tokenizer, 16), pooling="mean")
    model.save_to_preset(folder / "teacher")
    return folder / "teacher"


def test_one_command_makes_a_student(tmp_path, text, capsys) -> None:
    teacher = write_teacher(tmp_path)
    command = [
        *("distill", text[0], "--teacher", teacher, "--num-layers", 1),
        *("--vocab-size", 130, "--batch-size", 16, "--train-steps", 30),
        *("--warmup-steps", 2, "--sequence-length", 16, "--dev", text[0]),
        *("--output", tmp_path / "run", "--json", tmp_path / "run.out.json"),
    ]
    assert run_command(*command) == 0
    assert "dev_accuracy" in capsys.readouterr().err
    config = presets.read_config(tmp_path / "run")
    assert config["backbone"]["num_layers"] == 1
    assert config["storage"] == "int8"
    assert config["backbone"]["vocabulary_size"] <= 130
    assert json.loads((tmp_path / "run.out.json").read_text())["kept_step"] > 0
    assert len(TextVectors(tmp_path / "run.teacher")) > 0
    before = config["sha256"]
    assert run_command(*command) == 0  # A finished run is not repeated.
    assert presets.read_config(tmp_path / "run")["sha256"] == before
    # The vectors are a teacher for another student.
    assert run_command(
        *("distill", text[0], "--teacher", tmp_path / "run.teacher"),
        *("--model", tmp_path / "run.student", "--batch-size", 16),
        *("--train-steps", 5, "--warmup-steps", 1, "--sequence-length", 16),
        *("--output", tmp_path / "other"),
    ) == 0  # fmt: skip


def test_one_command_learns_states(tmp_path, text, capsys) -> None:
    spare = [*TOKENS, "spare", "more"]
    (tmp_path / "vocab.txt").write_text("\n".join(spare) + "\n")
    large = LaBSE(
        LaBSEBackbone(len(spare), 4, 2, 8, 16, max_sequence_length=32),
        SentencePreprocessor(WordPieceTokenizer(spare), 16),
        pooling="mean",
    )
    large.save_to_preset(tmp_path / "large")
    large = large.with_prefix("sun ")
    command = [
        *("distill", text[0], "--teacher", tmp_path / "large", "--recipe", "states"),
        *("--teacher-prefix", "sun ", "--num-layers", 2, "--batch-size", 16),
        *("--train-steps", 6, "--warmup-steps", 1, "--sequence-length", 16),
        *("--storage", "float32", "--output", tmp_path / "run"),
    ]
    assert run_command(*command) == 0
    trimmed = LaBSE.from_preset(tmp_path / "run.trimmed")
    tokens = trimmed.text_preprocessor().tokenizer.vocabulary
    assert not {"spare", "more"} & set(tokens)
    pairs = load_pairs([text[0]])
    sentences = [side.decode() for _, side in pairs.texts()][:20]
    np.testing.assert_allclose(
        trimmed.encode(sentences), large.encode(sentences), atol=1e-6
    )
    start = LaBSE.from_preset(tmp_path / "run.student")
    run = LaBSE.from_preset(tmp_path / "run")
    for model in (start, run):
        assert model.text_preprocessor().tokenizer.vocabulary == tokens
        assert model.text_preprocessor().prefix == ""
        assert model.backbone.num_layers == 2
    old, new = (
        {w.path: np.asarray(w) for w in model.backbone.weights}
        for model in (large, start)
    )
    for mine, its in ((0, 1), (1, 3)):
        for path, value in new.items():
            if path.startswith(f"transformer_layer_{mine}/"):
                theirs = path.replace(f"layer_{mine}/", f"layer_{its}/", 1)
                np.testing.assert_array_equal(value, old[theirs])
    recipe = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]
    assert (recipe["states_weight"], recipe["freeze"]) == (10, ["table"])
    learned = {w.path: np.asarray(w) for w in run.backbone.weights}
    table = "token_embedding/embeddings"
    np.testing.assert_array_equal(learned.pop(table), new[table])
    assert any((new[path] != value).any() for path, value in learned.items())
    refuses(
        capsys, [*command, "--vocab", tmp_path / "vocab.txt"], "--vocab",
        received="vocab.txt",
    )  # fmt: skip
    deep = dataclasses.replace(RECIPE, num_layers=5, states_weight=1.0)
    with raises(ValueError, argument="num_layers", received="5"):
        make_student_of_states(large, pairs, tmp_path / "a", tmp_path / "b", deep)
    assert not (tmp_path / "b").exists()


def test_a_teacher_is_opened_after_the_devices_are_made(
    run_python, tmp_path, text
) -> None:
    teacher = write_teacher(tmp_path)
    command = [
        *("distill", text[0], "--teacher", teacher, "--model", teacher),
        *("--batch-size", 16, "--train-steps", 2, "--warmup-steps", 1),
        *("--sequence-length", 16, "--strategy", "cpu:2", "--output", tmp_path / "run"),
    ]
    code = "import sys; from labse_tf import cli; sys.exit(cli.main(sys.argv[1:]))"
    said = run_python(code, *command)
    assert "2 steps" in said and presets.is_preset(tmp_path / "run")


def test_one_command_makes_a_bag(tmp_path, text) -> None:
    teacher = write_teacher(tmp_path)
    assert run_command(
        *("distill", text[0], "--teacher", teacher, "--num-layers", 0),
        *("--hidden-dim", 8, "--vocab", tmp_path / "vocab.txt", "--batch-size", 16),
        *("--train-steps", 5, "--warmup-steps", 1, "--output", tmp_path / "bag"),
    ) == 0  # fmt: skip
    backbone = presets.read_config(tmp_path / "bag")["backbone"]
    assert (backbone["num_layers"], backbone["hidden_dim"]) == (0, 8)


def test_text_without_translations(tmp_path, student, text, capsys) -> None:
    (tmp_path / "hi.txt").write_text("sun moon\nstar\nsun moon\n")
    command = [
        *("distill", "--teacher", write_teacher(tmp_path), "--model", student),
        *("--batch-size", 2, "--train-steps", 6, "--warmup-steps", 1),
        *("--sequence-length", 16, "--mono", tmp_path / "hi.txt"),
    ]
    assert run_command(*command, "--output", tmp_path / "run") == 0
    assert "2 sentences in 1 languages: hi 2" in capsys.readouterr().err
    store = TextVectors(tmp_path / "run.teacher")
    assert len(store) == 2
    assert (store.find(["sun moon", "star"]) >= 0).all()
    assert run_command(*command, "--output", tmp_path / "with", "--", text[0]) == 0
    pairs = sum(load_pairs([text[0]]).counts.values())
    run = json.loads((tmp_path / "with" / "run.json").read_text())
    assert run["text"]["pairs"] == pairs + 2
    refuses(
        capsys, [*command[:-2], "--output", tmp_path / "none"],
        "Expected FILE, --mono or both", received="neither",
    )  # fmt: skip


def test_bad_commands(tmp_path, text, capsys) -> None:
    store = TextVectors(tmp_path / "v", "words")
    store.add(["sun"], of_words, progress=False)
    refuses(
        capsys, ["distill", text[0], "--teacher", tmp_path / "v", "-o", tmp_path / "r"],
        "--model is required", received="--teacher",
    )  # fmt: skip
    refuses(
        capsys,
        ["distill", text[0], "--teacher", "labse-nan", "-o", tmp_path / "r"],
        "labse-nan",
    )
