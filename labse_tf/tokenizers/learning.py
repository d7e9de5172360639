"""Learning a vocabulary from text in many languages, and its share of `[UNK]`.

    files -reader-> sentences -TF Text-> word counts by language -smoothing-> weights
          -characters, trainer of Hugging Face tokenizers-> vocabulary

References:
    - Feng et al., Language-agnostic BERT Sentence Embedding, section 3.1,
      https://arxiv.org/abs/2007.01852
"""

from __future__ import annotations

import itertools
import json
import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from labse_tf.languages import language_code
from labse_tf.progress import Progress, announce, progress_bar
from labse_tf.text import DataError, distinct_files, read_lines, read_sentences, shorten
from labse_tf.tokenizers.layer import to_strings
from labse_tf.tokenizers.vocabulary import LAYOUT, MAX_BYTES_PER_TOKEN, UNK_TOKEN
from labse_tf.tokenizers.wordpiece import (
    MAX_BYTES_PER_WORD,
    FastBert,
    WordPieceTokenizer,
)

if TYPE_CHECKING:
    import tensorflow as tf

# Number of sentences per call of the ops while counting.
_BATCH_SIZE = 16384

# Fractional bits of a word's weight, which is a fixed-point integer.
_WEIGHT_BITS = 32

# The trainer takes no weights, so each word is repeated in proportion to its weight: an
# occurrence in the language with the smallest weight `_FINENESS` times, or less if the
# sum would exceed `_MOST_WORDS`, which take half a minute.
_FINENESS = 10
_MOST_WORDS = 30_000_000

# For the trainer, each form of a character (`a`, `##a`) is a letter from here on.
_FIRST_LETTER = 0x10000


def learn_vocabulary(
    files: Sequence[str | os.PathLike[str]],
    size: int,
    *,
    reader: Callable[[Any], Iterable[tuple[str, str]]] = read_sentences,
    smoothing: float = 0.3,
    lowercase: bool = False,
    strip_accents: bool | None = None,
    min_frequency: int = 2,
    character_coverage: float = 0.9999,
    languages: Collection[str] | None = None,
    num_workers: int | None = None,
    progress: Progress = None,
) -> list[str]:
    """Learn a WordPiece vocabulary from text in many languages.

    Words are counted by language, and language l with n_l words gets the share

        p_l = n_l ** smoothing / sum over k of n_k ** smoothing

    of the text, so that small languages keep enough weight. The ops of the tokenizer
    split the words. Starting from characters, the pair of neighboring tokens with the
    largest weight is joined to a new token until the vocabulary is full.

    The ids are laid out as in LaBSE: `[PAD]` 0, `[unused1]` to `[unused99]`, `[UNK]`
    100, `[CLS]` 101, `[SEP]` 102, `[MASK]` 103, then characters in code point order,
    then longer tokens by weight, descending. The vocabulary does not depend on the
    order of the files or the number of workers.

    Args:
        files: Inputs of `reader`. The default reader takes pair files and text in any
            format and compression whose name or content gives the language
            (`en-hi.tsv`, `memory.tmx`, `news.hi.txt.gz`), or `hi=any.txt`.
        size: Number of tokens, including 104 fixed tokens. A small text gives fewer.
        reader: Function from one of `files` to `(language, sentence)` pairs, called in
            a thread. The default is `labse_tf.text.read_sentences`.
        smoothing: Exponent of the language sizes, from 0 (equal shares) to 1 (original
            shares). The default is that of section 3.1 of the paper.
        lowercase: See `WordPieceTokenizer`.
        strip_accents: See `WordPieceTokenizer`.
        min_frequency: Minimum frequency of a token in the text before smoothing. ours:
            2, because a token seen once learns nothing.
        character_coverage: Share of each language's characters to keep; the rarest
            characters become `[UNK]`. This limits Chinese characters and keeps whole
            alphabets. At most half of `size` are characters. ours: 0.9999.
        languages: Languages to use; all by default.
        num_workers: Number of counting threads; one per core by default.
        progress: See `labse_tf.progress`; counts files. `None` prints one line per
            stage if there is no terminal.

    Returns:
        The tokens in the order of their ids, at most `size`.

    Raises:
        ValueError: If an argument is out of range or there is no text.
        DataError: If the default reader cannot read a file or determine its language.
        ImportError: If Hugging Face tokenizers is not installed.

    Example:
        ```python
        vocabulary = learn_vocabulary(["en-hi.tsv", "news.hi.txt.gz"], 8000)
        tokenizer = WordPieceTokenizer(vocabulary)
        tokenizer.save_vocabulary("vocab.txt")
        ```
    """
    files = _list_files(files, reader)
    _check_learning(size, smoothing, min_frequency, character_coverage)
    splitter = _WordSplitter(lowercase, strip_accents)
    counts = _count_words(files, reader, splitter, languages, num_workers, progress)
    if not counts:
        chosen = "" if languages is None else f" in {', '.join(sorted(languages))}"
        raise ValueError(
            f"`files` must contain text{chosen}. Received: {len(files)} files"
        )
    return _learn(counts, size, smoothing, min_frequency, character_coverage, progress)


def learn_vocabulary_from_counts(
    counts: Mapping[str, Mapping[str, int]],
    size: int,
    *,
    smoothing: float = 0.3,
    min_frequency: int = 2,
    character_coverage: float = 0.9999,
    progress: Progress = None,
) -> list[str]:
    """Learn the vocabulary of `learn_vocabulary` from word counts instead of text.

    Args:
        counts: Language -> word -> count, from `WordCounter` or `read_word_counts`.
        size: See `learn_vocabulary`.
        smoothing: See `learn_vocabulary`.
        min_frequency: See `learn_vocabulary`.
        character_coverage: See `learn_vocabulary`.
        progress: See `learn_vocabulary`.

    Returns:
        The tokens in the order of their ids.

    Raises:
        ValueError: If an argument is out of range or there are no words.
        ImportError: If Hugging Face tokenizers is not installed.
    """
    _check_learning(size, smoothing, min_frequency, character_coverage)
    words = {code: Counter(counts[code]) for code in sorted(counts) if counts[code]}
    if not words:
        raise ValueError(f"`counts` must have words. Received: {len(counts)} languages")
    return _learn(words, size, smoothing, min_frequency, character_coverage, progress)


def _check_learning(
    size: int, smoothing: float, min_frequency: int, character_coverage: float
) -> None:
    """Raise an error for arguments that are out of range."""
    if size <= len(LAYOUT):
        raise ValueError(
            f"`size` must be greater than {len(LAYOUT)}, the number of fixed tokens. "
            f"Received: size={size}"
        )
    if not 0.0 <= smoothing <= 1.0:
        raise ValueError(
            f"`smoothing` must be from 0 to 1. Received: smoothing={smoothing}"
        )
    if not 0.0 < character_coverage <= 1.0:
        raise ValueError(
            "`character_coverage` must be greater than 0 and at most 1. "
            f"Received: character_coverage={character_coverage}"
        )
    if min_frequency < 1:
        raise ValueError(
            "`min_frequency` must be 1 or more. "
            f"Received: min_frequency={min_frequency}"
        )


def _learn(
    counts: dict[str, Counter[str]],
    size: int,
    smoothing: float,
    min_frequency: int,
    character_coverage: float,
    progress: Progress,
) -> list[str]:
    """Learn the tokens; clears `counts` to free memory."""
    factors = _language_weights(counts, smoothing)
    characters = _choose_characters(
        counts, factors, character_coverage, min_frequency, size // 2
    )
    weights, occurrences = _smooth(counts, factors)
    counts.clear()
    bars = announce("Joining pieces", size, "tokens", show=progress)
    return [
        *LAYOUT,
        *_join_pieces(
            _repetitions(weights, min(factors.values())),
            occurrences,
            characters,
            size - len(LAYOUT),
            min_frequency,
            bars is True,
        ),
    ]


def unk_rate(
    files: Sequence[str | os.PathLike[str]],
    tokenizer: WordPieceTokenizer,
    *,
    reader: Callable[[Any], Iterable[tuple[str, str]]] = read_sentences,
    languages: Collection[str] | None = None,
) -> dict[str, float]:
    """Return the share of `[UNK]` among the tokens of each language.

    Args:
        files: See `learn_vocabulary`.
        tokenizer: Tokenizer to measure.
        reader: See `learn_vocabulary`.
        languages: Languages to measure; all by default.

    Returns:
        Language -> share from 0 to 1, sorted, for languages with at least one token.
    """
    tokens: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    for file in _list_files(files, reader):
        for language, sentences in _batches(reader(file), languages):
            ids = tokenizer(sentences).flat_values.numpy()
            tokens[language] += len(ids)
            unknown[language] += int(np.sum(ids == tokenizer.unk_token_id))
    return {
        language: unknown[language] / tokens[language]
        for language in sorted(tokens)
        if tokens[language]
    }


def _list_files(files: Any, reader: Callable[..., Any] | None = None) -> list[Any]:
    """Return a list of files; raise an error for a single path."""
    if isinstance(files, (str, bytes, os.PathLike)):
        raise ValueError(f"`files` must be a list of paths. Received: {files!r}")
    return distinct_files(files) if reader is read_sentences else list(files)


def _batches(
    pairs: Iterable[tuple[str, str]], languages: Collection[str] | None
) -> Iterator[tuple[str, list[str]]]:
    """Yield (language, sentences) with at most `_BATCH_SIZE` sentences."""
    waiting: dict[str, list[str]] = defaultdict(list)
    wanted = None if languages is None else set(map(language_code, languages))
    for language, sentence in pairs:
        if wanted is not None and language_code(language) not in wanted:
            continue
        batch = waiting[language]
        batch.append(sentence)
        if len(batch) == _BATCH_SIZE:
            yield language, waiting.pop(language)
    yield from waiting.items()


class WordCounter:
    """Counter of words, split exactly as `WordPieceTokenizer` splits them.

    Args:
        lowercase: See `WordPieceTokenizer`.
        strip_accents: See `WordPieceTokenizer`.
    """

    def __init__(
        self, *, lowercase: bool = False, strip_accents: bool | None = None
    ) -> None:
        self._splitter = _WordSplitter(lowercase, strip_accents)

    def count(self, sentences: Iterable[str]) -> Counter[str]:
        """Return word -> count, without words that are too long for the tokenizer.

        The counts of several parts of a text may be added.
        """
        return _usable(self._splitter.count(list(sentences)))


def read_word_counts(
    files: Iterable[str | os.PathLike[str]],
) -> dict[str, Counter[str]]:
    """Read word counts and add up repeated words.

    Args:
        files: UTF-8 files of tab-separated language, word and count, plain or
            compressed.

    Returns:
        Language -> word -> count, sorted by language.

    Raises:
        DataError: If a file cannot be read, or a line has another form.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for path in _list_files(files):
        for number, line in read_lines(path):
            try:
                language, word, count = line.split("\t")
                counts[language][word] += int(count)
            except ValueError:
                expected = "tab-separated language, word and count"
                raise DataError(path, number, expected, shorten(line)) from None
    return {language: counts[language] for language in sorted(counts)}


def _usable(words: Mapping[bytes, int]) -> Counter[str]:
    """Return counts of decoded words, without words too long for the tokenizer."""
    longest = MAX_BYTES_PER_WORD["bert"]
    return Counter(
        {
            word.decode("utf-8"): count
            for word, count in words.items()
            if len(word) <= longest
        }
    )


class _WordSplitter:
    """Splitter of sentences into the words of `WordPieceTokenizer`."""

    def __init__(self, lowercase: bool, strip_accents: bool | None) -> None:
        import tensorflow as tf
        import tensorflow_text as tf_text

        # If [UNK] is the only token that matches, each word becomes one token, whose
        # offsets are those of the word. The op needs a second token: cleaned text does
        # not contain U+FFFD.
        vocabulary = [UNK_TOKEN, "\N{REPLACEMENT CHARACTER}"]
        self._ops = FastBert(vocabulary, lowercase, strip_accents, "bert")
        with tf.device("cpu:0"):
            self._normalizer = tf_text.FastBertNormalizer()
            self._splitter = tf_text.FastWordpieceTokenizer(
                vocabulary, token_out_type=tf.int32, unknown_token=UNK_TOKEN
            )

    def split(self, texts: tf.Tensor) -> tf.Tensor:
        """Split string tensor `(batch,)` into its words, string tensor `(words,)`."""
        import tensorflow as tf

        texts = self._normalizer.normalize(self._ops.clean(texts))
        _, starts, ends = self._splitter.tokenize_with_offsets(texts)
        rows = tf.gather(texts, starts.value_rowids())
        return tf.strings.substr(rows, starts.values, ends.values - starts.values)

    def count(self, sentences: list[str]) -> dict[bytes, int]:
        """Return word -> count."""
        import tensorflow as tf

        with tf.device("cpu:0"):
            words = self.split(to_strings(sentences))
            unique, _, count = tf.unique_with_counts(words, out_idx=tf.int64)
        return dict(zip(unique.numpy().tolist(), count.numpy().tolist(), strict=True))


def _count_words(
    files: list[Any],
    reader: Callable[[Any], Iterable[tuple[str, str]]],
    splitter: _WordSplitter,
    languages: Collection[str] | None,
    num_workers: int | None,
    progress: Progress,
) -> dict[str, Counter[str]]:
    """Return language -> word -> count.

    Threads suffice, because the ops and the decompression release Python's lock.
    """

    def count_file(file: Any) -> dict[str, Counter[bytes]]:
        counts: dict[str, Counter[bytes]] = defaultdict(Counter)
        for language, sentences in _batches(reader(file), languages):
            counts[language].update(splitter.count(sentences))
        return counts

    workers = num_workers or os.cpu_count() or 1
    total: dict[str, Counter[bytes]] = defaultdict(Counter)
    bar = announce("Counting words", len(files), "files", show=progress)
    with (
        progress_bar("Counting words", len(files), "files", show=bar) as advance,
        ThreadPoolExecutor(max(1, workers)) as pool,
    ):
        for counts in pool.map(count_file, files):
            for language, words in counts.items():
                total[language].update(words)
            advance(1)
    usable = {language: _usable(total[language]) for language in sorted(total)}
    return {language: words for language, words in usable.items() if words}


def _language_weights(
    counts: dict[str, Counter[str]], smoothing: float
) -> dict[str, int]:
    """Return the weight of an occurrence of a word in each language.

    n_l words with a weight of n_l ** (smoothing - 1) add up to n_l ** smoothing. The
    weights are integers, so that sums do not depend on the order.
    """
    sizes = {language: words.total() for language, words in counts.items()}
    smallest = min(sizes.values())
    return {
        language: max(
            1, round((n / smallest) ** (smoothing - 1.0) * (1 << _WEIGHT_BITS))
        )
        for language, n in sizes.items()
    }


def _choose_characters(
    counts: dict[str, Counter[str]],
    factors: dict[str, int],
    coverage: float,
    min_frequency: int,
    limit: int,
) -> list[str]:
    """Return at most `limit` tokens of one character, `a` before `##a`, sorted."""
    weights: Counter[str] = Counter()
    for language, words in counts.items():
        forms: Counter[str] = Counter()
        for word, count in words.items():
            forms[word[0]] += count
            for character in word[1:]:
                forms["##" + character] += count
        characters: Counter[str] = Counter()
        for form, count in forms.items():
            characters[form[-1]] += count
        kept = set()
        allowed = coverage * characters.total()
        covered = 0
        for character in sorted(characters, key=lambda c: (-characters[c], c)):
            if covered >= allowed or characters[character] < min_frequency:
                break
            covered += characters[character]
            kept.add(character)
        for form, count in forms.items():
            if form[-1] in kept:
                weights[form] += count * factors[language]
    heaviest = sorted(weights, key=lambda form: (-weights[form], form))[:limit]
    return sorted(heaviest, key=lambda form: (len(form), form))


def _smooth(
    counts: dict[str, Counter[str]], factors: dict[str, int]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the weight and the count of each word over all languages."""
    weights: dict[str, int] = defaultdict(int)
    occurrences: dict[str, int] = defaultdict(int)
    for language, words in counts.items():
        factor = factors[language]
        for word, count in words.items():
            weights[word] += count * factor
            occurrences[word] += count
    return weights, occurrences


def _repetitions(weights: dict[str, int], lightest: int) -> dict[str, int]:
    """Return the number of repetitions of each word for the trainer, sorted by word.

    The checksum of a word decides between rounding up and down, so that rare words as a
    group lose no weight and rounding is reproducible. `lightest` is the weight of an
    occurrence in the language with the smallest weight.
    """
    scale = min(_FINENESS / lightest, _MOST_WORDS / max(1, sum(weights.values())))
    times = {}
    for word in sorted(weights):
        rounding = zlib.crc32(word.encode("utf-8")) / 2**32
        times[word] = int(weights[word] * scale + rounding)
    return times


# Hugging Face's trainer takes 60 s for 1,000,000 sentences of 199 languages and 32,000
# tokens on two cores; one of up to 45 rounds of TF Text's learner takes over 600 s.
def _join_pieces(
    times: dict[str, int],
    occurrences: dict[str, int],
    characters: list[str],
    size: int,
    min_frequency: int,
    bars: bool,
) -> list[str]:
    """Join neighbors with the largest weight; return at most `size` tokens.

    `times` are the repetitions of each word for the trainer, `occurrences` the counts
    in the text, of which a joined token needs `min_frequency`. `characters` are the
    first tokens of the result.
    """
    letters = {form: chr(_FIRST_LETTER + row) for row, form in enumerate(characters)}
    spelled: dict[str, str] = {}
    for word in times:
        forms = [word[0], *("##" + character for character in word[1:])]
        if len(forms) > 1 and letters.keys() >= set(forms):
            spelled[word] = "".join(letters[form] for form in forms)
    asked = size
    while True:
        joined, frequencies = _train(
            {spelled[word]: times[word] for word in spelled},
            {spelled[word]: occurrences[word] for word in spelled},
            list(letters.values()),
            asked,
            bars,
        )
        kept = [
            token
            for token, frequency in zip(joined, frequencies, strict=True)
            if frequency >= min_frequency
        ][: size - len(characters)]
        full = len(characters) + len(joined) == asked
        if len(characters) + len(kept) == size or not full:
            break
        asked *= 2
    tokens = list(characters)
    for token in kept:
        first, *rest = (characters[ord(letter) - _FIRST_LETTER] for letter in token)
        tokens.append(first + "".join(form.removeprefix("##") for form in rest))
    return tokens


def _train(
    times: dict[str, int],
    occurrences: dict[str, int],
    alphabet: list[str],
    size: int,
    bars: bool,
) -> tuple[list[str], list[int]]:
    """Run the trainer; `size` includes the `alphabet`, all letters in code point order.

    Returns:
        The tokens without the alphabet by weight, descending, and the count of each in
        the text at the time when it was joined.
    """
    try:
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    except ImportError as error:
        raise ImportError(
            "`learn_vocabulary` needs Hugging Face tokenizers: pip install tokenizers"
        ) from error

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # Several words per line, because each line costs a call.
    most = 1000
    tokenizer.train_from_iterator(
        (
            f"{word} " * min(most, number - start)
            for word, number in times.items()
            for start in range(0, number, most)
        ),
        trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=alphabet,
            # A letter is a character here, which has at most four bytes.
            max_token_length=MAX_BYTES_PER_TOKEN // 4,
            show_progress=bars,
        ),
        length=sum(-(-number // most) for number in times.values()),
    )
    model = json.loads(tokenizer.to_str())["model"]
    index = model["vocab"]
    frequencies = [0] * len(index)
    words = iter(occurrences)
    while batch := list(itertools.islice(words, _BATCH_SIZE)):
        for word, encoding in zip(batch, tokenizer.encode_batch(batch), strict=True):
            for row in encoding.ids:
                frequencies[row] += occurrences[word]
    # Parts of a longer token had been in the text as often as the longer token.
    for left, right in reversed(model["merges"]):
        frequency = frequencies[index[left + right]]
        frequencies[index[left]] += frequency
        frequencies[index[right]] += frequency
    tokens = sorted(index, key=index.__getitem__)
    return tokens[len(alphabet) :], frequencies[len(alphabet) :]
