"""Suspects: the messages of a catalog and their vectors -> probability of an error.

Cosines of short messages differ from message to message also if all are right, so a
message is compared with the catalog around it:

1. Vectors get hashed character n-grams beside them, which tell similar messages apart.
2. A linear map from each side to the other is fitted to the catalog (ridge regression).
   Each message is mapped by the fit without it, in closed form.
3. The margin of a message is the similarity of its two sides less that of the nearest
   other messages. A swapped message fits another entry better than its own.
4. A logistic regression separates the messages from artificial errors, each message
   with the translation of its most similar other message. Its inputs are the margin,
   the similarity, the cosine, and differences of length, numbers, placeholders and
   final punctuation. Few messages are wrong, so that they hardly change it.

Shapes: N messages, D dimensions, F inputs of the regression.

References:
    - Artetxe and Schwenk (margins), https://arxiv.org/abs/1811.01136
    - Mikolov et al., "Exploiting Similarities among Languages for Machine Translation"
      (linear maps between languages), https://arxiv.org/abs/1309.4168
    - Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning", section
      7.10 (ridge regression without one row in closed form)
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from labse_tf.mining import unit_rows

_GRAMS = 384  # ours: dimensions of the projected n-grams
_GRAM_WEIGHT = 0.5  # ours, as the next, by the catalogs of the benchmark
_RIDGE = 0.3
_PENALTY = 0.01  # ours: of the regression, per message
_BLOCK = 1024
_FEWEST = 20  # ours: below this number of messages the maps are not fitted

# Of SplitMix64, https://doi.org/10.1145/2714064.2660195.
_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIXING = (
    (30, np.uint64(0xBF58476D1CE4E5B9)),
    (27, np.uint64(0x94D049BB133111EB)),
)

_WORD = re.compile(r"[\w\u0300-\u036f\u0900-\u0dff\u200c\u200d]+")
_NUMBER = re.compile(r"\d+")
_PLACEHOLDER = re.compile(
    r"%\([^()]*\)[a-zA-Z]|%(?:\d+\$)?[diouxXeEfgGcrs@]|\$?\{\{?[^{}]*\}?\}|</?[A-Za-z]+"
)
_ENDS = {"।": ".", "。": ".", "۔": ".", "？": "?", "؟": "?", "！": "!", "：": ":"}
_ENDS |= {"…": ":", "৷": ".", "։": ".", ".": ".", "?": "?", "!": "!", ":": ":"}


class Suspects(NamedTuple):
    """How likely the messages of a catalog are wrong.

    Attributes:
        probabilities: Probability that each message is wrong, float64 `(N,)`, if the
            expected share of messages is wrong and errors are like swapped messages.
        cosines: Cosine of each message and its translation, float64 `(N,)`.
        margins: Similarity less that of the nearest other messages, float64 `(N,)`;
            below 0 another message fits better.
        others: Index of the other message whose translation fits best, int64 `(N,)`,
            or -1 if there is no other message.
    """

    probabilities: np.ndarray
    cosines: np.ndarray
    margins: np.ndarray
    others: np.ndarray


def find_suspects(
    sources: Sequence[str],
    targets: Sequence[str],
    source_vectors: Any,
    target_vectors: Any,
    *,
    share: float = 0.05,
) -> Suspects:
    """Estimate for each message of a catalog the probability that it is wrong.

    Memory is linear in the number of messages, apart from one block of similarities.

    Args:
        sources: Messages, N strings.
        targets: Their translations, N strings.
        source_vectors: Vectors of the messages, best without markup and placeholders,
            `(N, D)`.
        target_vectors: Vectors of the translations, `(N, D)`.
        share: Expected share of wrong messages, in (0, 1), which moves all
            probabilities but not their order.

    Raises:
        ValueError: If the arguments differ in length, or `share` is out of range.
    """
    count = len(sources)
    shapes = np.shape(source_vectors), np.shape(target_vectors)
    if len(targets) != count or any(len(s) != 2 or s[0] != count for s in shapes):
        raise ValueError(
            "the arguments must have one row per message. "
            f"Received: {count}, {len(targets)}, {shapes[0]} and {shapes[1]}"
        )
    if not 0 < share < 1:
        raise ValueError(f"`share` must be in (0, 1). Received: {share}")
    if not count:
        none = np.empty(0)
        return Suspects(none, none, none, none.astype(np.int64))
    x, y = (unit_rows(np.asarray(v)) for v in (source_vectors, target_vectors))
    cosines = np.einsum("nd,nd->n", x, y)
    left, right = x, y
    if count >= _FEWEST:
        left = np.hstack([x, _GRAM_WEIGHT * _hashed(sources)])
        right = np.hstack([y, _GRAM_WEIGHT * _hashed(targets)])
        mapped, right_unit = _mapped(left, right)
        back, left_unit = _mapped(right, left)
        left, right = np.hstack([mapped, left_unit]), np.hstack([right_unit, back])
    near = _Nearest(left, right, _numbered(sources), _numbered(targets))
    margins = near.own - (near.rows[:, 0] + near.columns[:, 0]) / 2
    if not near.others_exist:
        return Suspects(np.full(count, share), cosines, margins, near.row_places)
    # Artificial errors: each message with the translation of the most similar one.
    every, fake = np.arange(count), near.similar(x)
    fakes = np.einsum("nd,nd->n", left, right[fake])
    rivals = [
        np.maximum(near.own, _without(near.rows, near.row_places, fake)),
        np.maximum(
            near.own[fake],
            _without(near.columns[fake], near.column_places[fake], every),
        ),
    ]
    fake_margins = fakes - (rivals[0] + rivals[1]) / 2
    surface = _Surface(sources, targets)
    right_inputs = [margins, near.own, *surface(every, every)]
    wrong_inputs = [fake_margins, fakes, *surface(every, fake)]
    logits = _separated(np.stack(right_inputs, 1), np.stack(wrong_inputs, 1))
    logits += np.log(share / (1 - share))
    return Suspects(1 / (1 + np.exp(-logits)), cosines, margins, near.row_places)


def _without(best: np.ndarray, places: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Return the largest of two similarities `(N, 2)` without that of one place."""
    return np.where(places == left_out, best[:, 1], best[:, 0])


def _numbered(texts: Sequence[str]) -> np.ndarray:
    """Return the same number for the same text, int64 `(N,)`."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text, len(numbers)) for text in texts])


def _hashed(texts: Sequence[str]) -> np.ndarray:
    """Return random projections of weighted character n-grams, unit rows `(N, G)`.

    n-grams that are in only one text say nothing about others.
    """
    grams = [_grams(text) for text in texts]
    counts: dict[str, int] = {}
    for own in grams:
        for gram in own:
            counts[gram] = counts.get(gram, 0) + 1
    common = [gram for gram, times in counts.items() if times > 1]
    places = {gram: place for place, gram in enumerate(common)}
    weights = np.log([len(texts) / counts[gram] for gram in common])
    table = _signs(common)
    table *= weights.astype(np.float32)[:, None]
    found = np.zeros((len(texts), _GRAMS))
    for row, own in enumerate(grams):
        chosen = [places[gram] for gram in own if gram in places]
        if chosen:
            found[row] = table[chosen].sum(axis=0)
    return unit_rows(found)


def _signs(words: Sequence[str]) -> np.ndarray:
    """Return a random vector of 1 and -1 for each word, the same in each catalog.

    float32 `(n, G)`: the bits of SplitMix64, seeded with a hash of the word.
    """
    seeds = [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words]
    state = np.array(seeds, dtype=np.uint64)[:, None] << np.uint64(16)
    state = state + np.arange(1, _GRAMS // 64 + 1, dtype=np.uint64) * _STEP
    for shift, factor in _MIXING:
        state = (state ^ (state >> np.uint64(shift))) * factor
    state ^= state >> np.uint64(31)
    bits = np.unpackbits(state.astype("<u8").view(np.uint8), axis=1)
    return bits.astype(np.float32) * 2 - 1


def _grams(text: str) -> set[str]:
    """Return the words of a text and their parts of three and four characters."""
    found = set()
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).lower()):
        word = f"<{word}>"
        found.add(word)
        for size in (3, 4):
            found.update(word[i : i + size] for i in range(len(word) - size + 1))
    return found


def _mapped(inputs: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each row of inputs, mapped by the fit without it, and the outputs.

    Both are centered unit rows. The prediction without row i is (p - h y) / (1 - h) for
    its prediction p, output y and leverage h.
    """
    centered, wanted = (
        (side - side.mean(axis=0)).astype(np.float32) for side in (inputs, outputs)
    )
    square = (centered.T @ centered).astype(np.float64)
    inverse = np.linalg.inv(square + _RIDGE * np.eye(len(square))).astype(np.float32)
    leverage = np.einsum("nd,nd->n", centered @ inverse, centered)
    leverage = leverage.clip(max=1 - 1e-6)[:, None]
    predicted = centered @ (inverse @ (centered.T @ wanted))
    return unit_rows((predicted - leverage * wanted) / (1 - leverage)), unit_rows(
        wanted
    )


class _Nearest:
    """Similarity of each message with itself and with its two nearest others.

    Messages with the same source or the same target do not count as other messages.

    Attributes:
        own: `(N,)`.
        rows: Similarity of each source with its two nearest other targets, `(N, 2)`;
            its own if there are none.
        row_places: The nearest other target of each source, int64 `(N,)`, or -1.
        columns: The same for each target and its nearest other sources, `(N, 2)`.
        column_places: The nearest other source of each target.
        others_exist: Whether each message has another one.
    """

    def __init__(
        self,
        left: np.ndarray,
        right: np.ndarray,
        sources: np.ndarray,
        targets: np.ndarray,
    ) -> None:
        self.own = np.einsum("nd,nd->n", left, right)
        self._ids = sources.astype(np.int32), targets.astype(np.int32)
        forward, backward = self._both_sides(left, right)
        self.rows, self.row_places = self._finished(*forward)
        self.columns, self.column_places = self._finished(*backward)
        self.others_exist = bool(
            (self.row_places >= 0).all() and (self.column_places >= 0).all()
        )

    def similar(self, vectors: np.ndarray) -> np.ndarray:
        """Return the most similar other message by `(N, D)`, int64 `(N,)`."""
        return self._finished(*self._both_sides(vectors, vectors)[0])[1]

    def _both_sides(
        self, left: np.ndarray, right: np.ndarray
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return two similarities and the first place, of each row and each column."""
        count = len(left)
        forward, backward = (
            (np.full((count, 2), -np.inf), np.zeros(count, dtype=np.int64))
            for _ in range(2)
        )
        left = left.astype(np.float32)
        columns = np.ascontiguousarray(right.T, dtype=np.float32)
        sources, targets = self._ids
        every = np.arange(count)
        for start in range(0, count, _BLOCK):
            span = slice(start, min(start + _BLOCK, count))
            block = left[span] @ columns
            same = sources[span, None] == sources
            same |= targets[span, None] == targets
            block[same] = -np.inf
            rows = np.arange(len(block))
            first = block.argmax(axis=1)
            value = block[rows, first]
            forward[0][span, 0], forward[1][span] = value, first
            block[rows, first] = -np.inf
            forward[0][span, 1] = block.max(axis=1)
            block[rows, first] = value
            # The two largest of a column: of those so far and those of this block.
            first = block.argmax(axis=0)
            value = block[first, every]
            block[first, every] = -np.inf
            second = block.max(axis=0)
            best, places = backward
            better = value > best[:, 0]
            runner = np.where(better, best[:, 0], value)
            best[:, 1] = np.maximum(runner, np.where(better, second, best[:, 1]))
            best[:, 0] = np.where(better, value, best[:, 0])
            places[better] = first[better] + start
        return [forward, backward]

    def _finished(
        self, best: np.ndarray, places: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Replace the similarities of messages without another one."""
        alone = np.isneginf(best)
        places = np.where(alone[:, 0], -1, places)
        return np.where(alone, self.own[:, None], best), places


class _Surface:
    """Differences between messages and translations that need no model."""

    def __init__(self, sources: Sequence[str], targets: Sequence[str]) -> None:
        sides = (sources, targets)
        self._lengths = [np.log1p([len(text) for text in side]) for side in sides]
        self._middle = float(np.median(self._lengths[1] - self._lengths[0]))
        self._numbers = [[sorted(_digits(text)) for text in side] for side in sides]
        self._places = [
            [sorted(_PLACEHOLDER.findall(text)) for text in side] for side in sides
        ]
        self._ends = [[_ENDS.get(t.strip()[-1:], "") for t in side] for side in sides]

    def __call__(self, sources: np.ndarray, targets: np.ndarray) -> list[np.ndarray]:
        """Return length, number, placeholder and punctuation differences, `(n,)`."""
        lengths = self._lengths[1][targets] - self._lengths[0][sources] - self._middle
        found = [np.abs(lengths)]
        for left, right in (self._numbers, self._places, self._ends):
            pairs = zip(sources.tolist(), targets.tolist(), strict=True)
            found.append(np.array([float(left[i] != right[j]) for i, j in pairs]))
        return found


def _digits(text: str) -> list[str]:
    """Return the numbers of a text in any script, as ASCII digits."""
    return [str(int(number)) for number in _NUMBER.findall(text)]


def _separated(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Fit a logistic regression, and return its logits for the first rows, `(N,)`.

    Args:
        right: Inputs of the messages, `(N, F)`.
        wrong: Inputs of the artificial errors, `(N, F)`.
    """
    inputs = np.concatenate([right, wrong])
    center, width = inputs.mean(axis=0), inputs.std(axis=0)
    width[width == 0] = 1
    inputs = np.hstack([(inputs - center) / width, np.ones((len(inputs), 1))])
    labels = np.repeat([0.0, 1.0], [len(right), len(wrong)])
    weights = np.zeros(inputs.shape[1])
    penalty = np.full(len(weights), _PENALTY * len(labels))
    penalty[-1] = 0
    for _ in range(50):
        chances = 1 / (1 + np.exp(-(inputs @ weights).clip(-30, 30)))
        slope = inputs.T @ (chances - labels) + penalty * weights
        curve = (inputs.T * (chances * (1 - chances))) @ inputs + np.diag(penalty)
        step = np.linalg.solve(curve + 1e-9 * np.eye(len(curve)), slope)
        weights -= step
        if np.abs(step).max() < 1e-8:
            break
    return (inputs[: len(right)] @ weights).clip(-30, 30)
