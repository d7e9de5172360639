"""Masked rows for MLM and TLM: what is masked, how pairs lie, how rows are packed."""

from __future__ import annotations

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers.errors import Fields, raises
from labse_tf.models import LaBSEBackbone
from labse_tf.preprocessing import MaskedLMPreprocessor, plan_rows
from labse_tf.tokenizers import WordPieceTokenizer

# As in LaBSE [PAD] is first and the others come later; [unusedN] on both sides of them.
WORDS = [a + b for a in "bcdfghjklm" for b in "aeiou"]
TOKENS = [
    *("[PAD]", "[unused1]", "[unused2]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *WORDS[:20],
    "[unused3]",
    *WORDS[20:],
    "[unused99]",
]
PAD, UNK, CLS, SEP, MASK = (
    TOKENS.index(f"[{name}]") for name in ("PAD", "UNK", "CLS", "SEP", "MASK")
)
NEVER = {i for i, token in enumerate(TOKENS) if token.startswith("[")}
PACKED = ("position_ids", "sequence_ids")


@pytest.fixture(scope="module")
def tokenizer() -> WordPieceTokenizer:
    return WordPieceTokenizer(TOKENS)


def ids_of(text: str) -> list[int]:
    return [TOKENS.index(w) if w in WORDS else UNK for w in text.split()]


def sentences(count: int, longest: int, seed: int = 0) -> list[str]:
    """Random sentences of 1 to `longest` words, one word in 50 unknown."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, longest + 1, count)
    words = np.array([*WORDS, "unknown"])
    shares = np.append(np.full(len(WORDS), 0.98 / len(WORDS)), 0.02)
    drawn = words[random.choice(len(words), lengths.sum(), p=shares)]
    return [" ".join(part) for part in np.split(drawn, np.cumsum(lengths)[:-1])]


def numpy(features: dict[str, tf.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in features.items()}


def sequences(features: dict[str, np.ndarray]) -> list[list[int]]:
    """The sequences in the rows, row by row, read by their ids alone."""
    found = []
    for ids, numbers in zip(
        features["token_ids"], features["sequence_ids"], strict=True
    ):
        for number in range(1, numbers.max(initial=0) + 1):
            found.append(ids[numbers == number].tolist())
    return found


def unmasked(features: dict[str, np.ndarray]) -> np.ndarray:
    """Puts `mask_ids` back where they were."""
    ids = features["token_ids"].copy()
    rows, columns = np.nonzero(features["mask_weights"])
    ids[rows, features["mask_positions"][rows, columns]] = features["mask_ids"][
        rows, columns
    ]
    return ids


def assert_binomial(successes: int, trials: int, rate: float) -> None:
    """Within five standard deviations: one false alarm in two million runs."""
    deviation = math.sqrt(trials * rate * (1 - rate))
    assert abs(successes - trials * rate) < 5 * deviation, (
        f"{successes / trials:.5f} of {trials} where {rate} was asked for"
    )


# === Masking ===


@pytest.mark.parametrize("rate", [0.15, 0.2])
@pytest.mark.parametrize("packed", [True, False])
def test_rates_over_a_million_tokens(tokenizer, rate, packed):
    longest = 40
    texts = sentences(50_000, longest)
    preprocessor = MaskedLMPreprocessor(
        tokenizer, 64, mask_rate=rate, max_predictions=64, packed=packed
    )
    features = numpy(preprocessor(texts, (7, 1)))
    original = numpy(preprocessor.pack(texts, (7, 1)))["token_ids"]
    can_be_chosen = ~np.isin(original, [PAD, UNK, CLS, SEP, MASK])
    tokens = int(can_be_chosen.sum())
    assert tokens > 980_000
    real = features["mask_weights"] == 1
    # At most the binomial's variance: a row's number of predictions is nearly fixed.
    assert_binomial(int(real.sum()), tokens, rate)
    counts, available = real.sum(axis=1), can_be_chosen.sum(axis=1)
    assert (np.abs(counts - rate * available) < 1 + 1e-4).all()

    rows = np.nonzero(real)[0]
    before = features["mask_ids"][real]
    after = features["token_ids"][rows, features["mask_positions"][real]]
    # A random token is the same as before once in `len(WORDS)` times.
    same, masked = after == before, after == MASK
    assert_binomial(int(masked.sum()), len(before), 0.8)
    assert_binomial(int(same.sum()), len(before), 0.1 + 0.1 / len(WORDS))
    # Every word as often as any other, and nothing else.
    drawn = np.bincount(after[~same & ~masked], minlength=len(TOKENS))
    assert not drawn[sorted(NEVER)].any()
    for word in set(range(len(TOKENS))) - NEVER:
        assert_binomial(int(drawn[word]), int(drawn.sum()), 1 / len(WORDS))

    # Every place of a row is chosen alike: [CLS] is at 0, the rest by its share.
    where = np.bincount(features["mask_positions"][real], minlength=64)
    for place in range(64):
        if trials := int(can_be_chosen[:, place].sum()):
            assert_binomial(int(where[place]), trials, rate)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("task", ["mlm", "tlm"])
def test_special_tokens_and_padding_are_never_masked(tokenizer, task, packed):
    texts = sentences(500, 12)
    if task == "tlm":
        texts = (texts, sentences(500, 12, seed=1))
    preprocessor = MaskedLMPreprocessor(
        tokenizer, 32, mask_rate=1.0, max_predictions=32, packed=packed
    )
    features = numpy(preprocessor(texts, (1, 2)))
    original = numpy(preprocessor.pack(texts, (1, 2)))["token_ids"]
    chosen = np.zeros(original.shape, bool)
    rows, columns = np.nonzero(features["mask_weights"])
    chosen[rows, features["mask_positions"][rows, columns]] = True
    # At a rate of 1 all that may be chosen is, and nothing else.
    assert (chosen == ~np.isin(original, [PAD, UNK, CLS, SEP])).all()
    assert (features["token_ids"][~chosen] == original[~chosen]).all()
    assert (original == UNK).any()


def test_the_pad_tokens_id_in_padding_alone_is_padding(tokenizer):
    """Chosen by place too: rows made elsewhere may pad with another id."""
    preprocessor = MaskedLMPreprocessor(tokenizer, 8, mask_rate=1.0, max_predictions=8)
    word = TOKENS.index("ba")
    features = {
        "token_ids": tf.constant([[CLS, word, SEP, word, word, word, word, word]]),
        "padding_mask": tf.constant([[1, 1, 1, 0, 0, 0, 0, 0]]),
    }
    assert preprocessor.mask(features, (0, 0))["mask_weights"].numpy().sum() == 1


@pytest.mark.parametrize("task", ["mlm", "tlm"])
def test_labels_restore_the_rows(tokenizer, task):
    texts = sentences(300, 20)
    if task == "tlm":
        texts = (texts, sentences(300, 20, seed=1))
    preprocessor = MaskedLMPreprocessor(tokenizer, 64, max_predictions=20)
    features = numpy(preprocessor(texts, (3, 4)))
    original = numpy(preprocessor.pack(texts, (3, 4)))
    assert (features["token_ids"] != original["token_ids"]).any()
    assert (unmasked(features) == original["token_ids"]).all()
    for name in set(original) - {"token_ids"}:
        assert (features[name] == original[name]).all()
    real = features["mask_weights"] == 1
    assert np.isin(features["mask_weights"], [0, 1]).all()
    assert (features["mask_positions"][~real] == 0).all()
    assert (features["mask_ids"][~real] == 0).all()
    # Ascending, none twice, the real ones first.
    for places, weights in zip(features["mask_positions"], real, strict=True):
        assert (np.diff(places[weights]) > 0).all()
        assert (np.diff(weights.astype(int)) <= 0).all()


def test_no_more_predictions_than_allowed(tokenizer):
    texts = sentences(400, 60)
    preprocessor = MaskedLMPreprocessor(tokenizer, 128, max_predictions=9)
    features = numpy(preprocessor(texts, (0, 0)))
    counts = features["mask_weights"].sum(axis=1)
    assert features["mask_positions"].shape[1] == 9
    # A full row asks for more than 20; only the last may be short.
    assert (counts[:-1] == 9).all()
    # The cap takes a random part and not the row's beginning.
    places = features["mask_positions"][features["mask_weights"] == 1]
    assert 50 < places.mean() < 78


def test_more_predictions_than_places(tokenizer):
    preprocessor = MaskedLMPreprocessor(tokenizer, 6, mask_rate=1.0)
    features = numpy(preprocessor(["ba be bi bo", "ba"], (0, 0)))
    assert features["mask_positions"].shape == (2, 80)
    assert features["mask_weights"].sum(axis=1).tolist() == [4, 1]
    assert features["mask_positions"][0, :5].tolist() == [1, 2, 3, 4, 0]
    assert features["mask_ids"][0, :5].tolist() == [*ids_of("ba be bi bo"), 0]


def test_rates_of_nothing(tokenizer):
    texts = sentences(50, 10)
    preprocessor = MaskedLMPreprocessor(tokenizer, 32, mask_rate=0.0)
    features = numpy(preprocessor(texts, (0, 0)))
    assert not features["mask_weights"].any()
    preprocessor = MaskedLMPreprocessor(
        tokenizer, 32, mask_token_rate=0.0, random_token_rate=0.0
    )
    features = numpy(preprocessor(texts, (0, 0)))
    assert features["mask_weights"].any()
    assert (unmasked(features) == features["token_ids"]).all()


@pytest.mark.parametrize("task", ["mlm", "tlm"])
def test_the_seed_decides(tokenizer, task):
    texts = sentences(100, 20)
    if task == "tlm":
        texts = (texts, sentences(100, 20, seed=1))
    preprocessor = MaskedLMPreprocessor(tokenizer, 64)
    first = numpy(preprocessor(texts, (5, 6)))
    tf.random.set_seed(99)
    tf.random.uniform([3])
    again = MaskedLMPreprocessor(tokenizer, 64)
    step = tf.constant(6, tf.int64)
    for other in (
        preprocessor(texts, (5, 6)),
        again(texts, tf.constant([5, 6], tf.int32)),
        tf.function(again, autograph=False)(
            tf.nest.map_structure(tf.constant, texts)
            if task == "mlm"
            else tuple(map(tf.constant, texts)),
            (5, step),
        ),
    ):
        for name in first:
            assert (first[name] == other[name].numpy()).all(), name
    for seed in ((5, 7), (6, 6), (6, 5), (2**40, 6)):
        other = numpy(preprocessor(texts, seed))
        assert (first["mask_positions"] != other["mask_positions"]).any()


def test_steps_are_independent(tokenizer):
    """Places of consecutive steps agree as often as chance has it."""
    text = tf.constant([" ".join(WORDS[i % 50] for i in range(100))])
    preprocessor = MaskedLMPreprocessor(tokenizer, 102, packed=False)
    steps = tf.data.Dataset.range(200).map(
        lambda step: preprocessor(text, (0, step))["mask_positions"][0, :20]
    )
    chosen = np.zeros((200, 102), bool)
    for step, places in enumerate(steps.as_numpy_iterator()):
        chosen[step, places] = True
    both = (chosen[1:] & chosen[:-1]).sum()
    assert_binomial(int(both), 199 * 100, 0.04)


def test_the_golden_row(tokenizer):
    """The draws stay what they are from release to release, or runs cannot resume."""
    preprocessor = MaskedLMPreprocessor(
        tokenizer, 16, mask_rate=0.7, mask_token_rate=0.4, random_token_rate=0.4
    )
    features = numpy(preprocessor(["ba be bi bo bu ca ce ci co cu da de"], (1, 2)))
    places = features["mask_positions"][0][features["mask_weights"][0] == 1]
    assert places.tolist() == [1, 2, 3, 5, 6, 7, 11, 12]
    row = [CLS, 7, MASK, 36, 10, 41, 14, 53, 14, 15, 16, MASK, MASK, SEP, PAD, PAD]
    assert features["token_ids"][0].tolist() == row


# === Pairs ===


def test_pairs_by_hand(tokenizer):
    preprocessor = MaskedLMPreprocessor(tokenizer, 10, mask_rate=0.0, packed=False)
    texts = (["ba be", "ba be"] * 20, ["bi", "bi"] * 20)
    features = numpy(preprocessor(texts, (0, 0)))
    ba, be, bi = ids_of("ba be bi")
    source_first = [CLS, ba, be, SEP, bi, SEP, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]
    target_first = [CLS, bi, SEP, ba, be, SEP, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1]
    seen = [0, 0]
    for ids, segments, mask in zip(
        features["token_ids"].tolist(),
        features["segment_ids"].tolist(),
        features["padding_mask"].tolist(),
        strict=True,
    ):
        expected_ids, expected_segments = source_first if ids[1] == ba else target_first
        seen[ids[1] == ba] += 1
        assert ids == expected_ids
        assert segments == [*expected_segments, 0, 0, 0, 0]
        assert mask == [1] * 6 + [0] * 4
    assert min(seen) > 0


def test_sentences_by_hand(tokenizer):
    preprocessor = MaskedLMPreprocessor(tokenizer, 6, mask_rate=0.0, packed=False)
    features = numpy(preprocessor(["ba be", "", "ba be bi bo bu", "what"], (0, 0)))
    ba, be, bi, bo = ids_of("ba be bi bo")
    assert features["token_ids"].tolist() == [
        [CLS, ba, be, SEP, 0, 0],
        [CLS, SEP, 0, 0, 0, 0],
        [CLS, ba, be, bi, bo, SEP],
        [CLS, UNK, SEP, 0, 0, 0],
    ]
    assert not features["segment_ids"].any()
    assert not set(PACKED) & set(features)


def test_both_orders_occur_and_change_with_the_step(tokenizer):
    preprocessor = MaskedLMPreprocessor(tokenizer, 8, mask_rate=0.0, packed=False)
    pairs = (["ba"] * 10_000, ["be"] * 10_000)
    ba = ids_of("ba")[0]
    first = preprocessor(pairs, (0, 0))["token_ids"].numpy()[:, 1] == ba
    second = preprocessor(pairs, (0, 1))["token_ids"].numpy()[:, 1] == ba
    assert_binomial(int(first.sum()), 10_000, 0.5)
    assert_binomial(int((first == second).sum()), 10_000, 0.5)


def test_masks_fall_on_both_sides(tokenizer):
    preprocessor = MaskedLMPreprocessor(tokenizer, 64)
    pairs = (sentences(4_000, 20), sentences(4_000, 20, seed=1))
    features = numpy(preprocessor(pairs, (0, 0)))
    original = numpy(preprocessor.pack(pairs, (0, 0)))
    open_to_choice = ~np.isin(original["token_ids"], [PAD, UNK, CLS, SEP])
    real = features["mask_weights"] == 1
    rows = np.nonzero(real)[0]
    segments = features["segment_ids"][rows, features["mask_positions"][real]]
    for segment in (0, 1):
        trials = int((open_to_choice & (original["segment_ids"] == segment)).sum())
        assert_binomial(int((segments == segment).sum()), trials, 0.2)


def shortened(first: int, second: int, room: int) -> tuple[int, int]:
    """One token at a time off the longer side; off the second of two equal ones."""
    while first + second > room:
        if second >= first:
            second -= 1
        else:
            first -= 1
    return first, second


@pytest.mark.parametrize("length", [5, 6, 12, 17])
def test_long_pairs_lose_from_the_longer_side(tokenizer, length):
    random = np.random.default_rng(length)
    lengths = random.integers(0, 20, (300, 2))
    # Told apart by their words: sources of the first 25, targets of the others.
    pairs = tuple(
        [
            " ".join(WORDS[offset + i % 25] for i in range(n))
            for n in lengths[:, side].tolist()
        ]
        for side, offset in ((0, 0), (1, 25))
    )
    preprocessor = MaskedLMPreprocessor(tokenizer, length, packed=False)
    rows = preprocessor.pack(pairs, (0, 0))["token_ids"].numpy()
    orders = set()
    for row, source, target in zip(rows.tolist(), *pairs, strict=True):
        sides = [ids_of(source), ids_of(target)]
        first = row[1 : row.index(SEP)]
        swapped = (first or sides[0])[:1] != sides[0][:1] or (
            not first and bool(sides[0])
        )
        orders.add(swapped)
        if swapped:
            sides.reverse()
        kept = shortened(len(sides[0]), len(sides[1]), length - 3)
        expected = [CLS, *sides[0][: kept[0]], SEP, *sides[1][: kept[1]], SEP]
        assert row == expected + [PAD] * (length - len(expected))
    assert orders == {True, False}


# === Packing ===


def next_fit(lengths: list[int], length: int) -> list[int]:
    rows, row, used = [], 0, 0
    for n in lengths:
        if used + n > length:
            row, used = row + 1, 0
        used += n
        rows.append(row)
    return rows


@pytest.mark.parametrize(
    ("count", "longest"),
    [(0, 5), (1, 5), (2, 30), (3, 62), (255, 9), (256, 30), (257, 62), (2000, 62)],
)
def test_every_sentence_is_there_once_and_in_order(tokenizer, count, longest):
    texts = sentences(count, longest) if count else []
    preprocessor = MaskedLMPreprocessor(tokenizer, 64, mask_rate=0.0)
    features = numpy(preprocessor(texts, (0, 0)))
    expected = [[CLS, *ids_of(text), SEP] for text in texts]
    assert sequences(features) == expected
    rows = next_fit([len(ids) for ids in expected], 64)
    assert len(features["token_ids"]) == len(set(rows))
    numbers = features["sequence_ids"].max(axis=1, initial=0)
    assert numbers.tolist() == np.bincount(rows).tolist()


@pytest.mark.parametrize("task", ["mlm", "tlm"])
def test_what_a_packed_row_looks_like(tokenizer, task):
    texts = sentences(500, 12)
    if task == "tlm":
        texts = (texts, sentences(500, 12, seed=1))
    preprocessor = MaskedLMPreprocessor(tokenizer, 48)
    features = numpy(preprocessor.pack(texts, (0, 0)))
    alone = MaskedLMPreprocessor(tokenizer, 48, packed=False)
    singles = numpy(alone.pack(texts, (0, 0)))
    lengths = singles["padding_mask"].sum(axis=1)
    expected = iter(range(500))
    for row in range(len(features["token_ids"])):
        sequence_ids = features["sequence_ids"][row]
        last = sequence_ids.max()
        at = 0
        for number in range(1, last + 1):
            i = next(expected)
            part = slice(at, at + lengths[i])
            assert (sequence_ids[part] == number).all()
            assert features["position_ids"][row, part].tolist() == [*range(lengths[i])]
            for name in ("token_ids", "segment_ids"):
                own = singles[name][i, : lengths[i]].tolist()
                assert features[name][row, part].tolist() == own
            assert features["token_ids"][row, at] == CLS
            at += lengths[i]
        for name in ("segment_ids", "padding_mask", *PACKED):
            assert not features[name][row, at:].any()
        assert (features["token_ids"][row, at:] == PAD).all()
        assert (features["padding_mask"][row, :at] == 1).all()
    assert next(expected, None) is None


def test_pad_token_anywhere():
    tokenizer = WordPieceTokenizer(["[UNK]", "ba", "[CLS]", "[SEP]", "[MASK]", "[PAD]"])
    preprocessor = MaskedLMPreprocessor(tokenizer, 5, mask_rate=0.0)
    features = numpy(preprocessor(["ba"], (0, 0), num_rows=2))
    assert features["token_ids"].tolist() == [[2, 1, 3, 5, 5], [5] * 5]
    assert features["padding_mask"].tolist() == [[1, 1, 1, 0, 0], [0] * 5]


@pytest.mark.parametrize("task", ["mlm", "tlm"])
def test_counts_are_those_of_the_rows(tokenizer, task):
    texts = sentences(200, 30)
    if task == "tlm":
        texts = (texts, sentences(200, 30, seed=1))
    preprocessor = MaskedLMPreprocessor(tokenizer, 24, packed=False)
    mask = preprocessor.pack(texts, (0, 0))["padding_mask"].numpy()
    assert preprocessor.count_tokens(texts).numpy().tolist() == mask.sum(1).tolist()


@pytest.mark.parametrize(("longest", "length"), [(1, 7), (12, 13), (30, 64), (64, 64)])
def test_plan_is_the_best_fit(longest, length):
    lengths = np.random.default_rng(0).integers(1, longest + 1, 700)
    rows = plan_rows(lengths, length)
    assert rows.dtype == np.int32 and rows.shape == (700,)
    room: list[int] = []
    for n, row in zip(lengths.tolist(), rows.tolist(), strict=True):
        fitting = [left for left in room if left >= n]
        if row == len(room):
            assert not fitting
            room.append(length)
        else:
            assert room[row] == min(fitting)
        room[row] -= n
    assert len(room) == rows.max() + 1


def test_plan_fills_rows():
    lengths = np.random.default_rng(0).integers(5, 35, 20_000)
    filled = lengths.sum() / (64 * (plan_rows(lengths, 64).max() + 1))
    in_order = lengths.sum() / (64 * (next_fit(lengths.tolist(), 64)[-1] + 1))
    assert filled > 0.98 > 0.9 > in_order


def test_planned_steps_hold_everything_and_start_anywhere(tokenizer):
    """As the class's docstring has it: static shapes, nothing lost, no replay."""
    texts = np.array(sentences(1000, 30))
    preprocessor = MaskedLMPreprocessor(tokenizer, 64, max_predictions=13)
    order = np.random.default_rng(1).permutation(len(texts))
    lengths = preprocessor.count_tokens(texts).numpy()
    rows = plan_rows(lengths[order], 64)
    steps = -(-(rows.max() + 1) // 8)

    spec = tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.int32)

    @tf.function(input_signature=[*spec, tf.TensorSpec([], tf.int64)], autograph=False)
    def make(strings, rows, step):
        return preprocessor(strings, (0, step), rows=rows, num_rows=8)

    shapes = make.get_concrete_function().structured_outputs
    for name, value in shapes.items():
        assert value.shape == ((8, 13) if name.startswith("mask_") else (8, 64)), name

    def step(k):
        chosen = np.flatnonzero(rows // 8 == k)
        strings = tf.constant(texts[order][chosen].tolist())
        return numpy(make(strings, rows[chosen] % 8, k))

    found = []
    for k in range(steps):
        features = step(k)
        found += sequences({**features, "token_ids": unmasked(features)})
    assert sorted(found) == sorted([CLS, *ids_of(text), SEP] for text in texts)
    resumed, straight = step(5), [step(k) for k in range(6)][5]
    assert all((resumed[name] == straight[name]).all() for name in resumed)


def test_given_rows_in_any_order(tokenizer):
    preprocessor = MaskedLMPreprocessor(tokenizer, 8, mask_rate=0.0)
    ba, be, bi = ids_of("ba be bi")
    features = numpy(
        preprocessor(["ba", "be", "bi"], (0, 0), rows=[2, 0, 2], num_rows=4)
    )
    assert features["token_ids"].tolist() == [
        [CLS, be, SEP, 0, 0, 0, 0, 0],
        [0] * 8,
        [CLS, ba, SEP, CLS, bi, SEP, 0, 0],
        [0] * 8,
    ]
    assert features["sequence_ids"][2].tolist() == [1, 1, 1, 2, 2, 2, 0, 0]
    # Segments go along with their pairs.
    pairs = (["ba", "be be"], ["ba", "be be"])
    features = numpy(preprocessor(pairs, (0, 0), rows=[1, 0]))
    assert features["segment_ids"].tolist() == [
        [0, 0, 0, 0, 1, 1, 1, 0],
        [0, 0, 0, 1, 1, 0, 0, 0],
    ]


@pytest.mark.parametrize(
    ("rows", "num_rows", "message"),
    [
        ([0, 0, 0], 2, "`sequence_length`"),
        ([0, 1, 2], 2, "`num_rows`"),
        ([0, -1, 1], 2, "`rows`"),
        ([0, 1], 2, "`rows`"),
        (None, 1, "`num_rows`"),
    ],
)
def test_nothing_is_lost_in_silence(tokenizer, rows, num_rows, message):
    preprocessor = MaskedLMPreprocessor(tokenizer, 8)
    texts = ["ba", "be", "bi"]
    with raises((ValueError, tf.errors.InvalidArgumentError), message):
        preprocessor(texts, (0, 0), rows=rows, num_rows=num_rows)
    # In a dataset too, where nobody looks at a failed check unless it is run.
    given = {} if rows is None else {"rows": tf.constant(rows)}
    arguments = {"texts": tf.constant(texts), **given}
    dataset = tf.data.Dataset.from_tensors(arguments).repeat(1)
    with raises((ValueError, tf.errors.InvalidArgumentError), message):
        list(
            dataset.map(
                lambda x: preprocessor(
                    x["texts"], (0, 0), rows=x.get("rows"), num_rows=num_rows
                )
            )
        )


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("task", ["mlm", "tlm"])
def test_rebatched_rows_in_a_dataset(tokenizer, task, packed):
    texts = (sentences(256, 10), sentences(256, 10, seed=1))
    preprocessor = MaskedLMPreprocessor(tokenizer, 32, max_predictions=7, packed=packed)
    dataset = tf.data.Dataset.from_tensor_slices(texts).batch(64).enumerate()
    if task == "mlm":
        dataset = dataset.map(lambda k, pair: preprocessor(pair[0], (0, k)))
    else:
        dataset = dataset.map(lambda k, pair: preprocessor(pair, (0, k)))
    dataset = dataset.unbatch().batch(4, drop_remainder=True)
    for name, value in dataset.element_spec.items():
        assert value.shape == ((4, 7) if name.startswith("mask_") else (4, 32)), name
        kind = tf.float32 if name == "mask_weights" else tf.int32
        assert value.dtype == kind
    assert sum(1 for _ in dataset) > 3


@pytest.mark.parametrize("task", ["mlm", "tlm"])
def test_packing_leaks_nothing(tokenizer, task):
    texts = sentences(40, 12)
    if task == "tlm":
        texts = (texts, sentences(40, 12, seed=1))
    backbone = LaBSEBackbone(
        len(TOKENS), 2, 2, 16, 32, dropout=0.0, initializer_range=0.5
    )
    packed = MaskedLMPreprocessor(tokenizer, 64, mask_rate=0.0)
    alone = MaskedLMPreprocessor(tokenizer, 64, mask_rate=0.0, packed=False)
    rows, singles = packed(texts, (0, 0)), alone(texts, (0, 0))
    inputs = ("token_ids", "segment_ids", "padding_mask")
    together = backbone({name: rows[name] for name in (*inputs, *PACKED)})
    separate = backbone({name: singles[name] for name in inputs})
    together, separate = (x["sequence_output"].numpy() for x in (together, separate))
    assert np.isfinite(together).all()
    numbers = rows["sequence_ids"].numpy()
    lengths = singles["padding_mask"].numpy().sum(axis=1)
    i = 0
    for row in range(len(numbers)):
        for number in range(1, numbers[row].max() + 1):
            np.testing.assert_allclose(
                together[row][numbers[row] == number],
                separate[i, : lengths[i]],
                atol=1e-5,
                rtol=0,
            )
            i += 1
    assert i == 40 and len(numbers) < 25


# === The layer ===


def test_round_trip(tokenizer):
    settings = {
        "sequence_length": 32,
        "mask_rate": 0.15,
        "max_predictions": 20,
        "mask_token_rate": 0.7,
        "random_token_rate": 0.2,
        "packed": False,
    }
    preprocessor = MaskedLMPreprocessor(tokenizer, name="mlm", **settings)
    config = keras.saving.serialize_keras_object(preprocessor)
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    assert again.name == "mlm"
    assert {name: again.get_config()[name] for name in settings} == settings
    texts = sentences(20, 10)
    first, second = preprocessor(texts, (1, 1)), again(texts, (1, 1))
    assert all((first[name].numpy() == second[name].numpy()).all() for name in first)


def test_kinds_of_input(tokenizer):
    preprocessor = MaskedLMPreprocessor(tokenizer, 16)
    texts = ["ba be", "bi bo"]
    expected = preprocessor(texts, (0, 0))["token_ids"].numpy()
    # A tuple of strings is a batch; a tuple of batches is a pair of sides.
    for given in (tuple(texts), np.array(texts), tf.constant(texts)):
        assert (preprocessor(given, (0, 0))["token_ids"].numpy() == expected).all()
    assert not preprocessor(texts, (0, 0))["segment_ids"].numpy().any()
    assert preprocessor((texts, texts), (0, 0))["segment_ids"].numpy().any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sequence_length": 4}, Fields(5, argument="sequence_length", received=4)),
        ({"mask_rate": 1.1}, Fields(0, 1, argument="mask_rate", received="1.1")),
        ({"max_predictions": 0}, Fields(argument="max_predictions", received=0)),
        ({"mask_token_rate": 0.95}, Fields(1, received="0.95")),
        ({"random_token_rate": -0.1}, Fields(received="-0.1")),
    ],
)
def test_bad_arguments(tokenizer, settings, message):
    with raises(ValueError, message):
        MaskedLMPreprocessor(tokenizer, **settings)


def test_bad_calls(tokenizer):
    preprocessor = MaskedLMPreprocessor(tokenizer, 16, packed=False)
    with raises(ValueError, "`packed=True`", argument="rows"):
        preprocessor(["ba"], (0, 0), rows=[0])
    with raises(ValueError, argument="seed"):
        preprocessor(["ba"], (0, 0, 0))
    with raises(ValueError, 3):
        preprocessor((["ba"], ["ba"], ["ba"]), (0, 0))
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        preprocessor((["ba"], ["ba", "be"]), (0, 0))
    with raises(ValueError, 0, 9, argument="lengths"):
        plan_rows([0, 9], 8)
