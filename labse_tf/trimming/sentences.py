"""Sentences: one language of a corpus, read in blocks, and the shipped sample."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator

import numpy as np

from labse_tf import data, presets
from labse_tf.trimming.tokens import BLOCK

# ours: 1,000 sentences measure a rate to 0.1 %, and the other 95 % of a text still
# count its tokens well.
HELD_OUT_SHARE, HELD_OUT_MOST = 0.05, 1000


class Sentences:
    """Sentences of one language of a corpus, which can be read repeatedly."""

    def __init__(self, corpus: data.MonolingualCorpus, language: str) -> None:
        self._corpus, self._language = corpus, language

    def __len__(self) -> int:
        """Return the number of sentences."""
        return self._corpus.counts[self._language]

    def __iter__(self) -> Iterator[bytes]:
        """Yield the sentences in the order of the corpus."""
        for start in range(0, len(self), BLOCK):
            rows = np.arange(start, min(start + BLOCK, len(self)))
            yield from self._corpus.sentences(self._language, rows)

    def lowest(self, share: float) -> list[bytes]:
        """Return the share with the lowest hashes, at most 1,000, in any file order."""
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
        """Return the sentences that are not in `texts`."""
        return (text for text in self if text not in texts)


def sample_sentences(codes: Collection[str] | None = None) -> dict[str, list[bytes]]:
    """Return the sentences of the shipped sample in some languages, or in all."""
    folder = presets.shipped_directory() / "sample"
    paths = [
        path
        for path in sorted(folder.glob("en-*.tsv"))
        if codes is None or "en" in codes or data.file_language(path) in codes
    ]
    if not paths:
        return {}
    corpus = data.load_sentences(paths, progress=False)
    return {
        code: list(Sentences(corpus, code))
        for code in corpus.languages
        if codes is None or code in codes
    }
