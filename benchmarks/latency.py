r"""How long one short sentence takes, beside sentence-transformers.

    pip install '.[bench,quickstart]'
    python benchmarks/latency.py --texts path/to/tatoeba

The same weights (all-MiniLM-L6-v2) in float32; each call is one sentence of 5 to 10
words, a new one each time, text in and vector out. A turn is `--calls` calls. "padded
to 128" is the same SavedModel with rows of 128 tokens, as the official exporter of
LaBSE makes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import turns
from encode import prepare_model

OURS = "ours, SavedModel"
WAYS = (
    "ours, encode",
    OURS,
    "ours, SavedModel bfloat16",
    "ours, SavedModel padded to 128",
    "sentence-transformers",
)


def main() -> None:
    """Compares all ways."""
    parser = turns.parser(__doc__)
    turns.add_texts(parser)
    parser.add_argument("--calls", type=int, default=300)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return
    with turns.folder_of(options) as (folder, arguments):
        prepare_model("minilm", folder)
        ways = turns.in_turns(WAYS, options, arguments)
    ours = ways[OURS].median("p50") if OURS in ways else float("nan")
    rows = []
    for name, way in ways.items():
        p50, p99 = way.median("p50"), way.median("p99")
        rows.append([name, f"{p50:.2f}", f"{p99:.2f}", f"{p50 / ours:.2f}"])
    print(turns.heading(), end="\n\n")
    columns = ["way", "p50, ms", "p99, ms", "p50 over that of ours, SavedModel"]
    print(turns.table(columns, rows))


def work(options: Any) -> None:
    """One way, in its own process."""
    texts = turns.real_sentences(options.texts, options.count)
    short = [text for text in texts if 5 <= len(text.split()) <= 10]
    call = one_sentence(options.worker, Path(options.folder))
    place = 0

    def calls() -> dict[str, float]:
        nonlocal place
        times = []
        for _ in range(options.calls):
            text = short[place % len(short)]
            place += 1
            start = time.perf_counter()
            call(text)
            times.append(1000 * (time.perf_counter() - start))
        return {
            "p50": float(np.percentile(times, 50)),
            "p99": float(np.percentile(times, 99)),
        }

    calls()
    turns.serve(calls)


def one_sentence(name: str, folder: Path) -> Callable[[str], Any]:
    """A function from a sentence to its vector."""
    if name == "sentence-transformers":
        from sentence_transformers import SentenceTransformer

        theirs = SentenceTransformer(str(folder / "model"), device="cpu")
        return lambda text: theirs.encode(
            text, show_progress_bar=False, normalize_embeddings=True
        )
    import tensorflow as tf

    from labse_tf import checkpoints
    from labse_tf.export import export_saved_model

    model = checkpoints.from_huggingface(folder / "model")
    if name == "ours, encode":
        return model.encode
    saved = folder / name.replace(", ", "-").replace(" ", "-")
    if not saved.exists():
        if name.endswith("128"):
            model.text_preprocessor().sequence_length = 128
            export_saved_model(model, saved, pad="buckets", buckets=[128])
        else:
            dtype = "bfloat16" if name.endswith("bfloat16") else "float32"
            export_saved_model(model, saved, dtype=dtype)
    module = tf.saved_model.load(str(saved))
    return lambda text: module(tf.constant([text]))["default"].numpy()


if __name__ == "__main__":
    main()
