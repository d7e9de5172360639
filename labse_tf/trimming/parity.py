"""Parity: old and new model, compared on text not used to choose the tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from labse_tf.languages import language_name
from labse_tf.models import LaBSE
from labse_tf.progress import Progress, announce, progress_bar


@dataclasses.dataclass(frozen=True)
class LanguageParity:
    """Old and new model, compared on held-out sentences of a language.

    Attributes:
        sentences: Number of sentences.
        tokens_per_word: Tokens per word (split at white space), before and after.
        unk_rate: Share of [UNK] among the tokens, before and after.
        same: Share of sentences with the same tokens before and after.
        same_difference: Largest difference of two vector components among sentences
            with the same tokens; `None` if there are none.
        rest_mean_cosine: Mean cosine of old and new vectors of the other sentences;
            `None` if there are none.
        rest_lowest_cosine: The lowest cosine of the other sentences.
        mean_cosine: Mean cosine of all sentences.
    """

    sentences: int
    tokens_per_word: tuple[float, float]
    unk_rate: tuple[float, float]
    same: float
    same_difference: float | None
    rest_mean_cosine: float | None
    rest_lowest_cosine: float | None
    mean_cosine: float


COLUMNS = (
    "language",
    "sentences",
    "tokens per word",
    "[UNK] rate",
    "same tokens",
    "largest difference",
    "mean cosine of the rest",
    "lowest cosine",
)


def parity_rows(parity: Mapping[str, LanguageParity]) -> list[tuple[str, ...]]:
    """Return a table of the results, one row per language, under `COLUMNS`."""

    def show(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    return [
        (
            language_name(code),
            f"{found.sentences:,}",
            " → ".join(f"{x:.2f}" for x in found.tokens_per_word),
            " → ".join(f"{x:.2%}" for x in found.unk_rate),
            f"{found.same:.1%}",
            show(found.same_difference, ".1g"),
            show(found.rest_mean_cosine, ".4f"),
            show(found.rest_lowest_cosine, ".3f"),
        )
        for code, found in parity.items()
    ]


def compare(
    model: LaBSE,
    trimmed: LaBSE,
    texts: Mapping[str, Sequence[str | bytes]],
    *,
    progress: Progress = None,
) -> dict[str, LanguageParity]:
    """Compare a model with its trimmed or extended version.

    Args:
        model: The model before.
        trimmed: The model after. One of the two models must have all tokens of the
            other.
        texts: Language -> sentences not used to choose the tokens.
        progress: See `labse_tf.progress`; counts sentences. `None` prints one line if
            there is no terminal.

    Returns:
        Language -> results; languages without sentences are omitted.

    Raises:
        ValueError: If a model has no preprocessor, or each model has tokens that the
            other does not have.
    """
    old, new = (m.text_preprocessor().tokenizer for m in (model, trimmed))
    index = {token: row for row, token in enumerate(new.vocabulary)}
    renumbered = np.array([index.pop(token, -1) for token in old.vocabulary])
    if index and (renumbered < 0).any():
        raise ValueError(
            "`trimmed` must only have tokens of `model`, or all of them. "
            f"Received: {next(iter(index))!r} and {len(index) - 1} more"
        )
    total = sum(map(len, texts.values()))
    shown = announce("Comparing old and new", total, "sentences", show=progress)
    found = {}
    with progress_bar(
        "Comparing old and new", total, "sentences", show=shown
    ) as advance:
        for code, sentences in texts.items():
            if sentences:
                found[code] = _compare_language(
                    model, trimmed, list(sentences), renumbered, advance
                )
    return found


def _compare_language(
    model: LaBSE,
    trimmed: LaBSE,
    sentences: list[str | bytes],
    renumbered: NDArray[np.int64],
    advance: Callable[[int], None],
) -> LanguageParity:
    words = sum(len(text.split()) for text in sentences)
    per_word, unk_rates, rows = [], [], []
    for each in (model, trimmed):
        preprocessor = each.text_preprocessor()
        ids = preprocessor.tokenizer(sentences).values.numpy()
        unk = preprocessor.tokenizer.unk_token_id
        per_word.append(len(ids) / max(words, 1))
        unk_rates.append(float((ids == unk).mean()) if len(ids) else 0.0)
        ragged = preprocessor.token_rows(sentences)
        rows.append(np.split(ragged.values.numpy(), ragged.row_splits.numpy()[1:-1]))
    same = np.array(
        [np.array_equal(renumbered[a], b) for a, b in zip(*rows, strict=True)]
    )
    cosines, differences = [], []
    for start in range(0, len(sentences), 512):
        block = [
            text.decode("utf-8", "replace") if isinstance(text, bytes) else text
            for text in sentences[start : start + 512]
        ]
        before, after = (m.encode(block, progress=False) for m in (model, trimmed))
        cosines.append((before * after).sum(axis=1))
        differences.append(np.abs(before - after).max(axis=1))
        advance(len(block))
    cosine, difference = np.concatenate(cosines), np.concatenate(differences)
    some, rest = bool(same.any()), cosine[~same]
    return LanguageParity(
        sentences=len(sentences),
        tokens_per_word=(per_word[0], per_word[1]),
        unk_rate=(unk_rates[0], unk_rates[1]),
        same=float(same.mean()),
        same_difference=float(difference[same].max()) if some else None,
        rest_mean_cosine=float(rest.mean()) if len(rest) else None,
        rest_lowest_cosine=float(rest.min()) if len(rest) else None,
        mean_cosine=float(cosine.mean()),
    )
