"""Accuracy with and without a guide, on pairs of which some are wrong or near copies.

    python benchmarks/guide.py --data path/to/data --output /tmp/guide
    python benchmarks/guide.py --data path/to/data --output /tmp/guide-mini \
        --guide labse-mini --seeds 0 1 --margins 0 0.05

`--data` is the folder that holds `corpus/` and `dev/tico19/` (pair files
`en-XX.tsv.gz`). From each language come `--pairs` pairs of four or more English words.
In the noisy text the translations of `--shuffled` of the pairs are exchanged inside the
language, and `--near` of the pairs are there a second time with other punctuation, so
that they are not copies by their tokens. A bag of tokens (no layers, weighted mean, as
labse-nano) is trained from scratch on the text as it is, on the noisy text, and on the
noisy text with the guide.

The table shows the accuracy of the nearest translation by language, mean of both
directions, in percent: mean over the seeds, and the standard deviation of the mean over
the languages. If interrupted, the same command resumes.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from zoo import read_pairs

from labse_tf import evaluation
from labse_tf.data import ParallelCorpus, SentencePair, TextVectors
from labse_tf.encoders import fingerprint, open_encoder
from labse_tf.models import LaBSE
from labse_tf.recipes import Recipe
from labse_tf.tokenizers import learn_vocabulary, save_vocabulary
from labse_tf.training import Guide, RunOptions, train_dual_encoder

MARKS = " .!?…।。！？"


def choose(folder: Path, languages: list[str], count: int) -> ParallelCorpus:
    """Return some pairs of each language, without repeated English sentences."""
    chosen = []
    for code, sides in read_pairs(folder, languages).items():
        pairs = {s: t for s, t in zip(*sides, strict=True) if len(s.split()) >= 4}
        every = [SentencePair(s, t, code) for s, t in pairs.items()]
        rows = np.random.default_rng(0).permutation(len(every))[:count]
        chosen += [every[row] for row in rows]
    return ParallelCorpus(chosen)


def add_noise(
    corpus: ParallelCorpus, shuffled: float, near: float
) -> Iterator[SentencePair]:
    """Yield the pairs, of which some are wrong, and near copies of some of them."""
    random = np.random.default_rng(1)
    for code, (sources, targets) in corpus.lists().items():
        order = random.permutation(len(sources))
        wrong = order[: round(shuffled * len(order))]
        targets = np.array(targets, object)
        targets[wrong] = targets[np.roll(wrong, 1)]
        for source, target in zip(sources, targets, strict=True):
            yield SentencePair(source, target, code)
        for row in random.permutation(len(sources))[: round(near * len(sources))]:
            # The same text with a final mark added or removed.
            source, target = (
                text.rstrip(MARKS) if text[-1] in MARKS else f"{text}!"
                for text in (sources[row], targets[row])
            )
            if source and target:
                yield SentencePair(source, target, code)


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path, help="folder of the runs")
    parser.add_argument("--guide", default="labse-mini", metavar="MODEL")
    parser.add_argument("--guide-prefix", default="", metavar="TEXT")
    parser.add_argument("--margins", nargs="+", type=float, default=[0.0])
    parser.add_argument(
        "--languages", nargs="+", default=["hi", "bn", "ta", "fr", "ru", "zh"]
    )
    parser.add_argument("--pairs", type=int, default=20_000, help="for each language")
    parser.add_argument("--shuffled", type=float, default=0.1)
    parser.add_argument("--near", type=float, default=0.3)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--vocab-size", type=int, default=16_000)
    parser.add_argument("--hidden-dim", type=int, default=192)
    options = parser.parse_args()
    clean = choose(options.data / "corpus", options.languages, options.pairs)
    noisy = ParallelCorpus(add_noise(clean, options.shuffled, options.near))
    dev = read_pairs(options.data / "dev" / "tico19", options.languages)
    if not clean.languages or not dev:
        parser.error(f"no pairs of these languages: {options.languages}")
    options.output.mkdir(parents=True, exist_ok=True)
    vocabulary = options.output / "vocab.txt"
    if not vocabulary.exists():
        texts = clean.lists()

        def sentences(code: str) -> Iterator[tuple[str, str]]:
            for language, side in zip(("en", code), texts[code], strict=True):
                yield from ((language, text) for text in side)

        tokens = learn_vocabulary(texts, options.vocab_size, reader=sentences)
        save_vocabulary(tokens, vocabulary)
    name = f"{options.guide} {fingerprint(options.guide)}"
    vectors = TextVectors(options.output / "vectors", name, options.guide_prefix)
    guide = Guide(vectors, lambda: open_encoder(options.guide))
    rows = {
        "text as it is": (clean, None, 0.0),
        "noisy text": (noisy, None, 0.0),
        **{
            f"noisy text, guide, margin {margin:g}": (noisy, guide, margin)
            for margin in options.margins
        },
    }
    print(f"| {options.steps:,} steps | " + " | ".join(dev) + " | mean | ± |")
    print("|---|" + "---:|" * (len(dev) + 2), flush=True)
    for label, (text, asked, margin) in rows.items():
        found = []
        for seed in options.seeds:
            recipe = Recipe(
                num_layers=0,
                hidden_dim=options.hidden_dim,
                num_heads=1,
                dropout=0.0,
                pooling="weighted_mean",
                optimizer="lazy_adamw",
                batch_size=options.batch_size,
                train_steps=options.steps,
                warmup_steps=options.steps // 20,
                learning_rate=3e-3,
                weight_decay=0.0,
                guide_margin=margin,
                seed=seed,
            )
            run = options.output / f"{label}, seed {seed}"
            model: LaBSE = train_dual_encoder(
                recipe,
                text,
                run,
                vocabulary=vocabulary,
                guide=asked,
                options=RunOptions(checkpoint_every=10_000, progress=False),
            )
            result = evaluation.retrieval(model.encode, dev, progress=False)
            found.append([100 * result.accuracy[code] for code in dev])
        means = [statistics.mean(values) for values in found]
        spread = statistics.stdev(means) if len(means) > 1 else 0.0
        columns = map(statistics.mean, zip(*found, strict=True))
        cells = [f"{value:.1f}" for value in itertools.chain(columns, [np.mean(means)])]
        print(f"| {label} | " + " | ".join(cells) + f" | {spread:.1f} |", flush=True)


if __name__ == "__main__":
    main()
