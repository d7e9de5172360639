"""Word counts per language, for learning a vocabulary."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam

from labse_tf.data.shards.layout import PathLike, join

_BATCH = 1 << 14  # sentences per call of the ops


class CountWords(beam.PTransform):
    """Count the words of each language, split by the tokenizer's rules.

    From (language, sentence), such as `ReadSentences` returns, to
    ((language, word), count), the same counts as in `learn_vocabulary`. See
    `WordPieceTokenizer` for the arguments.
    """

    def __init__(
        self, *, lowercase: bool = False, strip_accents: bool | None = None
    ) -> None:
        super().__init__()
        self._lowercase, self._strip_accents = lowercase, strip_accents

    def expand(self, sentences: Any) -> Any:
        """Apply the transform."""
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
    """Count the words of batches, with ops that are created once per worker."""

    def __init__(self, lowercase: bool, strip_accents: bool | None) -> None:
        super().__init__()
        self._options = {"lowercase": lowercase, "strip_accents": strip_accents}

    def setup(self) -> None:
        """Create the ops."""
        from labse_tf.tokenizers import WordCounter

        self._counter = WordCounter(**self._options)  # type: ignore[arg-type]

    def process(self, batch: Sequence[tuple[str, str]]) -> Iterator[Any]:
        """Yield the counts of each language of a batch."""
        languages = defaultdict(list)
        for language, sentence in batch:
            languages[language].append(sentence)
        for language, sentences in languages.items():
            for word, count in self._counter.count(sentences).items():
                yield (language, word), count


class WriteWordCounts(beam.PTransform):
    """Write counts to files such as `counts-00000-of-00003.tsv.gz` in a directory.

    Lines hold tab-separated language, word and count. `read_word_counts` reads them.
    The directory may be remote.
    """

    def __init__(self, output: PathLike) -> None:
        super().__init__()
        self._output = output

    def expand(self, counts: Any) -> Any:
        """Apply the transform."""
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
