"""Words: counted by language, to learn a vocabulary from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam

from labse_tf.data.shards.layout import PathLike, join

_BATCH = 1 << 14  # sentences that go through the ops at once


class CountWords(beam.PTransform):
    """Counts the words of each language, split as the tokenizer splits them.

    From (language, sentence), as `ReadSentences` gives them, to
    ((language, word), count): what `learn_vocabulary` counts in the same text.

    Args:
        lowercase: as in `WordPieceTokenizer`.
        strip_accents: as in `WordPieceTokenizer`.
    """

    def __init__(
        self, *, lowercase: bool = False, strip_accents: bool | None = None
    ) -> None:
        super().__init__()
        self._lowercase, self._strip_accents = lowercase, strip_accents

    def expand(self, sentences: Any) -> Any:
        """Applies it."""
        return (
            sentences
            | "Batch" >> beam.BatchElements(min_batch_size=1024, max_batch_size=_BATCH)
            | "Count"
            >> beam.ParDo(
                _CountWords(self._lowercase, self._strip_accents)
            ).with_output_types(tuple[tuple[str, str], int])
            | "Add up" >> beam.CombinePerKey(sum)
        )


class _CountWords(beam.DoFn):
    """Counts a batch with ops that are made once a worker."""

    def __init__(self, lowercase: bool, strip_accents: bool | None) -> None:
        super().__init__()
        self._options = {"lowercase": lowercase, "strip_accents": strip_accents}

    def setup(self) -> None:
        """Makes the ops."""
        from labse_tf.tokenizers import WordCounter

        self._counter = WordCounter(**self._options)  # type: ignore[arg-type]

    def process(self, batch: Sequence[tuple[str, str]]) -> Iterator[Any]:
        """Counts of the languages of a batch."""
        languages = defaultdict(list)
        for language, sentence in batch:
            languages[language].append(sentence)
        for language, sentences in languages.items():
            for word, count in self._counter.count(sentences).items():
                yield (language, word), count


class WriteWordCounts(beam.PTransform):
    """Writes counts as `counts-00000-of-00003.tsv.gz`: language, word, count.

    `labse_tf.tokenizers.read_word_counts` reads them.

    Args:
        output: a directory, local or remote.
    """

    def __init__(self, output: PathLike) -> None:
        super().__init__()
        self._output = output

    def expand(self, counts: Any) -> Any:
        """Applies it."""
        return (
            counts
            | "To lines"
            >> beam.MapTuple(
                lambda key, count: f"{key[0]}\t{key[1]}\t{count}"
            ).with_output_types(str)
            | "Write counts"
            >> beam.io.WriteToText(
                join(self._output, "counts"), file_name_suffix=".tsv.gz"
            )
        )
