r"""Sentences a second to token ids, beside Hugging Face's `tokenizers`.

    pip install '.[bench,quickstart]'
    python benchmarks/tokenization.py --texts path/to/tatoeba --count 100000

Real sentences of many languages, all at once, on all cores: ours in the graph of
TF-Text, theirs in Rust (`encode_batch_fast`), both with the vocabulary of a shipped
model. "differ" counts sentences whose ids are not the same.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import turns

OURS, THEIRS = "ours", "Hugging Face tokenizers"


def main() -> None:
    """Compares both."""
    parser = turns.parser(__doc__)
    turns.add_texts(parser, count=20_000)
    parser.add_argument("--model", default="labse-mini", help="whose vocabulary")
    options = parser.parse_args()
    if options.worker:
        work(options)
        return
    with turns.folder_of(options) as (folder, arguments):
        ways = turns.in_turns((OURS, THEIRS), options, arguments)
        rates = {name: options.count / way.median() for name, way in ways.items()}
        ids = [
            np.load(folder / f"{name}.npy", allow_pickle=True)
            for name in (OURS, THEIRS)
        ]
    differ = sum(list(a) != list(b) for a, b in zip(*ids, strict=True))
    print(turns.heading(), end="\n\n")
    rows = [
        [name, f"{rate:,.0f}", f"{rates[OURS] / rate:.2f}"]
        for name, rate in rates.items()
    ]
    print(turns.table(["way", "sentences/s", "ours is faster by"], rows))
    print(f"\n{differ} of {options.count:,} sentences differ.")


def work(options: Any) -> None:
    """One way, in its own process."""
    texts = turns.real_sentences(options.texts, options.count)
    tokenize, to_lists = tokenizer(options.worker, options.model, texts)
    rows = np.empty(len(texts), dtype=object)
    rows[:] = to_lists(tokenize())
    np.save(Path(options.folder) / f"{options.worker}.npy", rows, allow_pickle=True)
    turns.serve(lambda: tokenize() is None)


def tokenizer(
    name: str, model: str, texts: list[str]
) -> tuple[Callable[[], Any], Callable[[Any], list[list[int]]]]:
    """A function that tokenizes all, and one from what it gives to lists."""
    from labse_tf import presets

    vocabulary = presets.find(model) / presets.VOCABULARY
    settings = presets.read_config(presets.find(model))["tokenizer"]
    if name == OURS:
        import tensorflow as tf

        from labse_tf import WordPieceTokenizer

        ours = WordPieceTokenizer(vocabulary, **settings)
        graph = tf.function(
            ours, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False
        )
        return lambda: graph(tf.constant(texts)), lambda ids: ids.to_list()
    from tokenizers.implementations import BertWordPieceTokenizer

    theirs = BertWordPieceTokenizer(
        str(vocabulary),
        lowercase=settings["lowercase"],
        strip_accents=settings["strip_accents"],
    )
    return (
        lambda: theirs._tokenizer.encode_batch_fast(texts, add_special_tokens=False),
        lambda found: [one.ids for one in found],
    )


if __name__ == "__main__":
    main()
