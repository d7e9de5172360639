"""Trimming: a model that keeps the tokens of a few languages.

    text or scripts -choose_tokens-> ids to keep -keep_tokens-> smaller LaBSE
    held-out text -compare-> what it cost, a language; trim_preset does it all

In LaBSE 82 % of the weights are rows of the token table, most of them for languages
that a given user never meets. A row that is kept is kept as it is, so a sentence whose
token ids stay the same has the same vector. WordPiece takes the longest piece that
matches: while all pieces that a word was cut into are still there, the longest match at
each place is the same and so is the cut. A word that lost a piece is spelled with
shorter ones, and in rare cases a word that had no spelling, [UNK], gains one: the
report therefore compares ids and does not infer them.

Shapes: V = tokens before, n = tokens kept, D = hidden dimension.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from labse_tf import __version__, presets
from labse_tf.data import (
    Files,
    MonolingualCorpus,
    OnError,
    SkipReport,
    file_language,
    find_sentence_files,
    has_one_language,
    load_sentences,
)
from labse_tf.data.cleaning.characters import (
    SCRIPTS,
    character_scripts,
    code_points,
)
from labse_tf.files import atomic_directory, check_vacant, write_text
from labse_tf.languages import language_code, language_name, scripts_of
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.progress import Progress, announce, progress_bar
from labse_tf.tokenizers import WordPieceTokenizer
from labse_tf.tokenizers.vocabulary import SPECIAL_TOKENS

Texts = Mapping[str, Iterable[str | bytes]]

# ours: enough for a rate to a tenth of a percent, and 5 % of a text leaves its tokens
# well counted.
HELD_OUT_SHARE, HELD_OUT_MOST = 0.05, 1000

# A language's text quotes others; a script with less than this share of its characters
# is not the language's own. ours: the English words in Hindi text are above it, the
# Chinese ones in English text far below.
_SCRIPT_SHARE = 0.01
_UNUSED = re.compile(r"\[unused\d+\]").fullmatch
_BLOCK = 8192  # sentences that are tokenized at once


# === Which tokens to keep ===


def choose_tokens(
    tokenizer: WordPieceTokenizer,
    texts: Texts | None = None,
    *,
    languages: Iterable[str] | None = None,
    min_count: int = 1,
    keep_characters: bool = True,
    progress: Progress = None,
) -> NDArray[np.int64]:
    """Chooses the tokens that some languages need.

    With `texts`, the tokens that the text is cut into, and single characters; with
    `languages` alone, every token that is written in their scripts, digits,
    punctuation and symbols included. Scripts cannot tell English from French: with
    any language of Latin script all tokens in Latin letters stay, so text is the
    sharper way. The five special tokens stay always, `[unused...]` never.

    Args:
        tokenizer: The model's.
        texts: Language code -> sentences, each language's read once.
        languages: Codes or English names; instead of `texts`.
        min_count: How often a token must occur in all of the text.
        keep_characters: Whether to keep also the tokens of one character that are
            written in Latin letters, in a script of the languages of `texts` (by the
            table of languages, or 1 % of a language's characters), or in none (digits,
            punctuation, symbols), so that words which the text lacks can be spelled.
        progress: See `labse_tf.progress`; counts sentences.

    Returns:
        Ids in ascending order, `(n,)`.

    Raises:
        ValueError: If not exactly one of `texts` and `languages` is given, a language
            is unknown, `min_count` is not positive, or no token is found.

    Example:
        >>> from labse_tf.tokenizers import WordPieceTokenizer
        >>> special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        >>> tokenizer = WordPieceTokenizer([*special, "sun", "moon", "m", "दिन"])
        >>> choose_tokens(tokenizer, {"en": ["sun"]}).tolist()
        [0, 1, 2, 3, 4, 5, 7]
        >>> choose_tokens(tokenizer, languages=["hi"]).tolist()
        [0, 1, 2, 3, 4, 7, 8]
    """
    if (texts is None) == (languages is None):
        raise ValueError(
            "Expected `texts` or `languages`, one of them. Received: "
            f"{'neither' if texts is None else 'both'}"
        )
    if min_count < 1:
        raise ValueError(f"`min_count` must be positive. Received: {min_count}")
    characters = _Characters(tokenizer.vocabulary)
    if texts is not None:
        counts = _count_tokens(tokenizer, texts, progress)
        if not sum(count.sum() for count in counts.values()):
            raise ValueError(
                "`texts` must hold tokens of the vocabulary. Received: none in the "
                f"text of {', '.join(counts) or 'no language'}"
            )
        keep = sum(counts.values()) >= min_count
        if keep_characters:
            scripts = {"Latn"}
            for code, count in counts.items():
                scripts |= _language_scripts(code) | characters.scripts_of(count)
            keep |= characters.single & characters.within(scripts)
    else:
        scripts = set()
        codes = [languages] if isinstance(languages, str) else list(languages or ())
        if not codes:
            raise ValueError("`languages` must name a language. Received: none")
        for code in codes:
            scripts |= _language_scripts(language_code(code, strict=True))
        keep = characters.within(scripts)
        if keep_characters:
            keep |= characters.single & characters.within({"Latn"})
    keep &= ~np.fromiter(map(bool, map(_UNUSED, tokenizer.vocabulary)), bool)
    special = list(tokenizer.special_token_ids.values())
    keep[special] = False
    if not keep.any():
        raise ValueError(
            "At least one token must be left beside the special ones. Received: none "
            f"with min_count={min_count}, keep_characters={keep_characters}"
        )
    keep[special] = True
    return np.flatnonzero(keep)


def _count_tokens(
    tokenizer: WordPieceTokenizer, texts: Texts, progress: Progress
) -> dict[str, NDArray[np.int64]]:
    """How often each token comes in each language's text; special ones: never."""
    size = tokenizer.vocabulary_size
    special = list(tokenizer.special_token_ids.values())
    counts = {}
    with progress_bar("Counting tokens", None, "sentences", show=progress) as advance:
        for code, sentences in texts.items():
            counts[code] = np.zeros(size, np.int64)
            for block in _blocks(sentences):
                ids = tokenizer(block).values.numpy()
                counts[code] += np.bincount(ids, minlength=size)
                advance(len(block))
            counts[code][special] = 0
    return counts


def _blocks(sentences: Iterable[str | bytes]) -> Iterator[list[str | bytes]]:
    """Lists of sentences, none longer than a block."""
    block: list[str | bytes] = []
    for sentence in sentences:
        block.append(sentence)
        if len(block) == _BLOCK:
            yield block
            block = []
    if block:
        yield block


class _Characters:
    """The characters of all tokens, without `##`, by script."""

    def __init__(self, tokens: Sequence[str]) -> None:
        words = [t[2:] if len(t) > 2 and t.startswith("##") else t for t in tokens]
        codes, bounds = code_points(words)
        self._scripts = character_scripts()[codes]
        self._lengths, self._starts = np.diff(bounds), bounds[:-1]
        self.single = self._lengths == 1

    def within(self, scripts: Set[str]) -> NDArray[np.bool_]:
        """Which tokens have only characters of these scripts or of no script."""
        allowed = np.array([True, *(script in scripts for script in SCRIPTS)])
        return np.logical_and.reduceat(allowed[self._scripts], self._starts)

    def scripts_of(self, counts: NDArray[np.int64]) -> set[str]:
        """The scripts that tokens with these counts are written in."""
        weights = np.repeat(counts, self._lengths)
        shares = np.bincount(self._scripts, weights, len(SCRIPTS) + 1)[1:]
        own = np.flatnonzero(shares > _SCRIPT_SHARE * shares.sum())
        return {SCRIPTS[i] for i in own}


def _language_scripts(code: str) -> frozenset[str]:
    """The usual scripts of a language by the table; none if the table lacks it."""
    return scripts_of(code, usual=True) or frozenset()


# === The smaller model ===


def trim(
    model: LaBSE,
    texts: Texts | None = None,
    *,
    languages: Iterable[str] | None = None,
    min_count: int = 1,
    keep_characters: bool = True,
    progress: Progress = None,
) -> LaBSE:
    """Makes a model with the tokens that some languages need.

    Args:
        model: Any `LaBSE` with a preprocessor.
        texts: As in `choose_tokens`.
        languages: As in `choose_tokens`.
        min_count: As in `choose_tokens`.
        keep_characters: As in `choose_tokens`.
        progress: As in `choose_tokens`.

    Returns:
        A new model; see `keep_tokens`.

    Raises:
        ValueError: As in `choose_tokens`, or if the model has no preprocessor.

    Example:
        >>> from labse_tf.models import LaBSE, LaBSEBackbone
        >>> tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sun", "lune"]
        >>> preprocessor = SentencePreprocessor(WordPieceTokenizer(tokens))
        >>> model = LaBSE(LaBSEBackbone(7, 1, 2, 8, 16), preprocessor)
        >>> small = trim(model, {"en": ["sun sun"]})
        >>> small.backbone.vocabulary_size
        6
        >>> bool(abs(small.encode("sun") - model.encode("sun")).max() < 1e-6)
        True
    """
    kept = choose_tokens(
        model.text_preprocessor().tokenizer,
        texts,
        languages=languages,
        min_count=min_count,
        keep_characters=keep_characters,
        progress=progress,
    )
    return keep_tokens(model, kept)


def keep_tokens(model: LaBSE, ids: Any) -> LaBSE:
    """Makes a model with some of the tokens.

    What has a row a token (the token table, and the token weights of
    `pooling="weighted_mean"`) keeps the rows of these tokens; everything else is
    copied. Beside the model, memory for the smaller one is needed twice.

    Args:
        model: A `LaBSE` with a preprocessor.
        ids: Ids of the tokens to keep, `(n,)`, in ascending order; the special tokens
            among them.

    Returns:
        A new model in which token `ids[i]` has the id i.

    Raises:
        ValueError: If the model has no preprocessor, or the ids are not as described.
    """
    preprocessor = model.text_preprocessor()
    tokenizer = preprocessor.tokenizer
    size = tokenizer.vocabulary_size
    kept = np.asarray(ids)
    if (
        kept.ndim != 1
        or not np.issubdtype(kept.dtype, np.integer)
        or not kept.size
        or not (0 <= kept[0] and kept[-1] < size and (np.diff(kept) > 0).all())
    ):
        raise ValueError(
            f"`ids` must be integers from 0 to {size - 1} in ascending order. "
            f"Received: {ids!r:.80}"
        )
    missing = [t for t, i in tokenizer.special_token_ids.items() if i not in kept]
    if missing:
        raise ValueError(
            f"`ids` must hold those of {', '.join(SPECIAL_TOKENS)}. "
            f"Received: none for {', '.join(missing)}"
        )
    tokens = tokenizer.vocabulary
    smaller = SentencePreprocessor(
        WordPieceTokenizer(
            [tokens[i] for i in kept],
            lowercase=tokenizer.lowercase,
            strip_accents=tokenizer.strip_accents,
            compat=tokenizer.compat,
        ),
        preprocessor.sequence_length,
        pad=preprocessor.pad,
    )
    config = model.backbone.get_config() | {"vocabulary_size": len(kept)}
    config["dtype"] = model.backbone.dtype_policy
    trimmed = LaBSE(
        LaBSEBackbone(**config), smaller, pooling=model.pooling, name=model.name
    )
    old, new = ({w.path: w for w in m.weights} for m in (model, trimmed))
    if old.keys() != new.keys():
        raise ValueError(
            "The model must have the weights that its configuration describes. "
            f"Received: also or not {', '.join(sorted(old.keys() ^ new.keys()))}"
        )
    for path, weight in new.items():
        value = old[path]
        if tuple(weight.shape) != tuple(value.shape):
            # A gather from the variable: the whole table is never copied.
            value = keras.ops.take(value, kept, axis=0)
        weight.assign(value)
    return trimmed


# === What it cost ===


@dataclasses.dataclass(frozen=True)
class LanguageParity:
    """Old model against new on held-out sentences of a language.

    Attributes:
        sentences: How many.
        tokens_per_word: Tokens a word (between blanks), before and after.
        unk_rate: Share of [UNK] among the tokens, before and after.
        same: Share of sentences that have the same tokens.
        same_difference: Largest difference of two numbers in the vectors of those;
            `None` where there are none.
        rest_mean_cosine: Mean cosine of old and new vectors of the others; `None`
            where there are none.
        rest_lowest_cosine: The lowest of them.
        mean_cosine: Of all sentences.
    """

    sentences: int
    tokens_per_word: tuple[float, float]
    unk_rate: tuple[float, float]
    same: float
    same_difference: float | None
    rest_mean_cosine: float | None
    rest_lowest_cosine: float | None
    mean_cosine: float


def compare(
    model: LaBSE,
    trimmed: LaBSE,
    texts: Mapping[str, Sequence[str | bytes]],
    *,
    progress: Progress = None,
) -> dict[str, LanguageParity]:
    """Compares a model with the one that was made of it.

    Args:
        model: Before.
        trimmed: After, with tokens that `model` has too.
        texts: Language -> sentences that had no part in the choice of tokens.
        progress: See `labse_tf.progress`; counts sentences. `None` prints one line
            where there is no terminal.

    Returns:
        Language -> what was found; languages without sentences are not in it.

    Raises:
        ValueError: If a model has no preprocessor, or `trimmed` has other tokens.
    """
    old, new = (m.text_preprocessor().tokenizer for m in (model, trimmed))
    index = {token: row for row, token in enumerate(new.vocabulary)}
    renumbered = np.array([index.pop(token, -1) for token in old.vocabulary])
    if index:
        raise ValueError(
            "`trimmed` must have tokens of `model` alone. "
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


# === From files to a preset ===


@dataclasses.dataclass(frozen=True)
class TrimReport:
    """What `trim_preset` made of a preset; each pair is before and after.

    Attributes:
        source: The preset's name or path, as it was given.
        source_sha256: Of its `config.json`, which holds those of its other files.
        languages: Codes of those whose tokens were kept.
        chosen_by: How the tokens were chosen, in words.
        storage: Storage type of the weights.
        tokens: Rows of the token table.
        parameters: Numbers in all weights.
        bytes: Of configuration, vocabulary and weights on the disk.
        held_out: Where the sentences of `parity` came from, in words.
        parity: Language -> old and new on them.
    """

    source: str
    source_sha256: str
    languages: list[str]
    chosen_by: str
    storage: str
    tokens: tuple[int, int]
    parameters: tuple[int, int]
    bytes: tuple[int, int]
    held_out: str
    parity: dict[str, LanguageParity]

    def to_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return dataclasses.asdict(self)

    def rows(self) -> list[tuple[str, ...]]:
        """The table of `parity`, a row a language, under `COLUMNS`."""

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
            for code, found in self.parity.items()
        ]


COLUMNS = (
    "language",
    "sentences",
    "tokens/word",
    "[UNK]",
    "same",
    "differ by",
    "rest, mean",
    "lowest",
)


def trim_preset(
    preset: str | Path,
    directory: str | Path,
    *,
    files: Files | None = None,
    languages: Iterable[str] | None = None,
    english: bool = True,
    language: str | None = None,
    held_out: Files | None = None,
    min_count: int = 1,
    keep_characters: bool = True,
    storage: str | None = None,
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
    progress: Progress = None,
) -> TrimReport:
    """Trims a preset and measures on held-out text what that cost.

    With `files`, tokens are chosen by their text, and 5 % of each language's
    sentences, at most 1,000, are held out for the measurement, the same ones each
    time. Without, tokens are chosen by the languages' scripts, and the measurement is
    made on the sample that ships with the package, where it has the language. What is
    measured is the preset as it was written, rounding to `storage` included.

    Args:
        preset: A shipped name or a preset directory.
        directory: Where to write the new one; new or empty.
        files: Text and pair files, as `labse_tf.data.load_sentences` takes them.
        languages: Keep these only; may be left out where `files` are given.
        english: Whether to keep English too.
        language: The language of files whose names do not say it.
        held_out: Files to measure on instead.
        min_count: As in `choose_tokens`.
        keep_characters: As in `choose_tokens`.
        storage: Of the new weights, as in `LaBSE.save_to_preset`; the old preset's
            where left out.
        on_error: What to do at a bad line, `"raise"` or `"skip"`.
        skipped: Where `"skip"` counts what it left out.
        progress: See `labse_tf.progress`.

    Returns:
        The report, which is in the new preset's card too.

    Raises:
        ValueError: If there is no such preset, the directory is not empty, a language
            is unknown or has no text, or the text has no token of the vocabulary.
        DataError: As `labse_tf.data.load_sentences`.
        OSError: If the directory cannot be written.
    """
    source, target = presets.find(preset), Path(directory)
    check_vacant(target, "The output")
    if storage is not None and storage not in presets.STORAGES:
        raise ValueError(
            f"`storage` must be one of {', '.join(presets.STORAGES)}. "
            f"Received: {storage!r}"
        )
    if languages is not None:
        given = [languages] if isinstance(languages, str) else languages
        languages = sorted({language_code(code) for code in given})
    if not languages and (files is None or languages is not None):
        raise ValueError("Expected `files`, or `languages`. Received: neither")
    if files is None:
        for code in languages or ():
            language_code(code, strict=True)
    storage = storage or presets.read_config(source).get("storage", "float32")

    def load(paths: Files) -> dict[str, _Sentences]:
        return _load(paths, languages, english, language, on_error, skipped, progress)

    texts: Texts | None = None
    codes: list[str] = list(languages or ())
    if files is not None:
        corpus = load(files)
        codes = sorted(corpus)
    else:
        if english and "en" not in codes:
            codes.append("en")
        chosen_by = f"those written in the scripts of {_names(codes)}"
    if held_out is not None:
        measured = {c: s.lowest(1.0) for c, s in load(held_out).items()}
        where = "the files that were given for it"
    elif files is not None:
        measured = {c: s.lowest(HELD_OUT_SHARE) for c, s in corpus.items()}
        where = "the same text, held out from the choice of tokens"
    else:
        measured, where = _sample(codes), "the sample that ships with labse_tf"
    if files is not None:
        # A sentence that two languages have would be in the one and out of the other.
        unseen = set() if held_out else {t for s in measured.values() for t in s}
        texts = {code: s.without(unseen) for code, s in corpus.items()}
        count = sum(map(len, corpus.values())) - len(unseen)
        chosen_by = f"those that {count:,} sentences in {_names(codes)} use"
        if min_count > 1:
            chosen_by += f" {min_count:,} times or more"
        if keep_characters:
            chosen_by += ", and single characters"
    # The folder is made before the long work: what cannot be written says so at once.
    with atomic_directory(target, overwrite=target.exists()) as folder:
        model = LaBSE.from_preset(source)
        trimmed = trim(
            model,
            texts,
            languages=codes if texts is None else None,
            min_count=min_count,
            keep_characters=keep_characters,
            progress=progress,
        )
        trimmed.save_to_preset(folder, storage=storage)
        written = LaBSE.from_preset(folder)
        report = TrimReport(
            source=str(preset),
            source_sha256=presets.sha256(source / presets.CONFIG),
            languages=codes,
            chosen_by=chosen_by,
            storage=storage,
            tokens=(model.backbone.vocabulary_size, written.backbone.vocabulary_size),
            parameters=(model.count_params(), written.count_params()),
            bytes=(_bytes(source), _bytes(folder)),
            held_out=where,
            parity=compare(model, written, measured, progress=progress),
        )
        write_text(folder / presets.CARD, _card(target.name, written, report))
    return report


class _Sentences:
    """The sentences of one language of a corpus; can be read again and again."""

    def __init__(self, corpus: MonolingualCorpus, language: str) -> None:
        self._corpus, self._language = corpus, language

    def __len__(self) -> int:
        return self._corpus.counts[self._language]

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self), _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, len(self)))
            yield from self._corpus.sentences(self._language, rows)

    def lowest(self, share: float) -> list[bytes]:
        """A share of them, at most 1,000, by their hashes: in any order the same."""
        hashes = np.fromiter(
            (
                int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
                for text in self
            ),
            np.uint64,
            count=len(self),
        )
        least = 1 if share < 1 and len(self) > 1 else 0
        count = min(max(int(len(self) * share), least), HELD_OUT_MOST)
        rows = np.sort(np.argsort(hashes, kind="stable")[:count])
        return list(self._corpus.sentences(self._language, rows))

    def without(self, texts: set[bytes]) -> Iterator[bytes]:
        """Those that are not among `texts`."""
        return (text for text in self if text not in texts)


def _load(
    files: Files,
    languages: list[str] | None,
    english: bool,
    language: str | None,
    on_error: OnError,
    skipped: SkipReport | None,
    progress: Progress,
) -> dict[str, _Sentences]:
    """The sentences of the languages, each of which must be there, and English."""

    def wanted(code: str) -> bool:
        if code == "en":
            return english or "en" in (languages or ())
        return languages is None or code in languages

    paths = find_sentence_files(files)
    if language is None:
        # Pairs with a language that is not wanted are not read for their English.
        some = (p for p in paths if has_one_language(p))
        left_out = {p for p in some if not wanted(file_language(p) or "en")}
        paths = [p for p in paths if p not in left_out] or paths
    corpus = load_sentences(
        paths,
        language=language,
        on_error=on_error,
        skipped=skipped,
        progress=announce("Reading", len(paths), "files", show=progress),
    )
    found = [code for code in corpus.languages if wanted(code)]
    missing = set(languages or ()) - set(found)
    if missing or not found:
        raise ValueError(
            "The files must hold sentences in "
            f"{_names(sorted(missing)) or 'a language to keep'}. Received: "
            f"{len(paths)} from {paths[0]} on, in {', '.join(corpus.languages)}"
        )
    return {code: _Sentences(corpus, code) for code in found}


def _sample(codes: Sequence[str]) -> dict[str, list[bytes]]:
    """The sentences of the shipped sample in some languages."""
    folder = presets.shipped_directory() / "sample"
    paths = [
        path
        for path in sorted(folder.glob("en-*.tsv"))
        if "en" in codes or file_language(path) in codes
    ]
    if not paths:
        return {}
    corpus = load_sentences(paths, progress=False)
    return {
        code: list(_Sentences(corpus, code))
        for code in corpus.languages
        if code in codes
    }


def _names(codes: Iterable[str]) -> str:
    return ", ".join(language_name(code) for code in codes)


def _bytes(directory: Path) -> int:
    """Size of a preset's files, its card and what else lies there left out."""
    names = (presets.CONFIG, presets.VOCABULARY, presets.WEIGHTS)
    return sum((directory / name).stat().st_size for name in names)


def _card(name: str, model: LaBSE, report: TrimReport) -> str:
    """The model card: what was trimmed, how, and what it cost."""
    backbone = model.backbone
    source = Path(report.source).name
    table = "".join(f"| {' | '.join(row)} |\n" for row in report.rows())
    head = f"| {' | '.join(COLUMNS)} |\n|---|{'---:|' * (len(COLUMNS) - 1)}\n"
    parity = (
        f"""Old model against new on {report.held_out}.
"Same" are sentences all of whose tokens were kept: their vectors are the same, and
"differ by" is the largest difference of two numbers in them, rounding of the weights to
{report.storage} included. "The rest" lost a token, are spelled with other ones, and
have the cosine with their old vectors that the last two columns give.

{head}{table}"""
        if report.parity
        else "No text was at hand to compare it with the old model.\n"
    )
    return f"""# {name}

`{source}` with fewer tokens.
Kept: {report.chosen_by}.
All other weights are those of `{source}`, whose card has its training data, its scores
and its licence, which is the licence of this model too.

| | before | after |
|---|---:|---:|
| tokens | {report.tokens[0]:,} | {report.tokens[1]:,} |
| parameters | {report.parameters[0]:,} | {report.parameters[1]:,} |
| on the disk | {report.bytes[0] / 1e6:.1f} MB | {report.bytes[1] / 1e6:.1f} MB |

| | |
|---|---|
| trimmed from | `{source}`, sha256 of its config.json: `{report.source_sha256}` |
| trimmed by | labse_tf {__version__} |
| languages | {_names(report.languages)} |
| layers | {backbone.num_layers} |
| hidden dimension | {backbone.hidden_dim} |
| pooling | {model.pooling} |
| weights on disk | {report.storage} |

```python
import labse_tf

model = labse_tf.LaBSE.from_preset("{name}")  # or the path of this directory
vectors = model.encode(["Hello, world."])
```

## What it costs

{parity}"""
