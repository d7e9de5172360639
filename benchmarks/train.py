r"""Pairs a second in training, beside sentence-transformers' own trainer.

    pip install '.[bench,quickstart]'
    python benchmarks/train.py --pairs path/to/en-fr.tsv.gz
    python benchmarks/train.py --pairs path/to/en-fr.tsv.gz --shape small

A dual encoder on the same model (all-MiniLM-L6-v2, or 4 blocks of 256 at random), the
same pairs and batch size, dropout as the model has it, AdamW. Theirs is
`SentenceTransformerTrainer` with `MultipleNegativesRankingLoss`, bfloat16 as
`bf16=True` has it; ours the step of `DualEncoder.fit`, both ways. "ours" takes
batches at random as the peer does, "ours, like lengths" those that `labse-tf train`
makes. A turn is `--steps` steps; the first of theirs, which sets up, is not counted.

"input" is our pipeline alone, text to padded token ids, in batches like ours.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import turns
from encode import prepare_model

OURS = ("ours float32", "ours bfloat16")
SORTED = ("ours, like lengths float32", "ours, like lengths bfloat16")
PEERS = ("sentence-transformers float32", "sentence-transformers bfloat16")
INPUT = "input"


def main() -> None:
    """Compares all ways that are installed."""
    parser = turns.parser(__doc__)
    parser.add_argument(
        "--pairs", metavar="FILE", help="TSV; left out, Django's messages in French"
    )
    parser.add_argument("--shape", choices=("minilm", "small"), default="minilm")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--length", type=int, default=64, help="most tokens a side")
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return
    with turns.folder_of(options) as (folder, arguments):
        prepare_model(options.shape, folder)
        names = [*OURS, *SORTED, *PEERS, INPUT]
        ways = turns.in_turns(names, options, arguments, fresh=True)
    rate = {name: way.median("pairs_per_second") for name, way in ways.items()}
    rows = []
    for name, pairs in rate.items():
        kind = name.split()[-1]
        peer = rate.get(f"sentence-transformers {kind}")
        rows.append(
            [
                name,
                f"{pairs:,.0f}",
                f"{pairs / peer:.2f}" if peer and name not in PEERS else "",
                f"{rate[INPUT] / pairs:,.0f}" if INPUT in rate else "",
            ]
        )
    columns = ["way", "pairs/s", "of the peer's in this type", "input is faster by"]
    print(turns.heading(), end="\n\n")
    print(turns.table(columns, rows))


def work(options: Any) -> None:
    """One way, in its own process."""
    pairs = read_pairs(options.pairs, 100_000)
    name, model = options.worker, Path(options.folder) / "model"
    count = options.batch_size * options.steps
    if name in PEERS:
        train = theirs(model, pairs, options, name.split()[-1])
    elif name == INPUT:
        train = pipeline(model, pairs, options)
    else:
        train = ours(model, pairs, options, name)

    def turn() -> dict[str, Any]:
        seconds = train()
        return {"pairs_per_second": count / seconds}

    turn()
    turns.serve(turn)


def read_pairs(path: str | None, most: int) -> list[tuple[str, str]]:
    """Pairs of sentences."""
    if path is None:
        import gettext

        import django

        file = Path(django.__file__).parent / "conf/locale/fr/LC_MESSAGES/django.mo"
        with file.open("rb") as binary:
            catalogue = gettext.GNUTranslations(binary)._catalog  # type: ignore[attr-defined]
        return [(a, b) for a, b in catalogue.items() if isinstance(a, str) and a and b]
    opened = gzip.open if path.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row[0], row[1]) for row in itertools.islice(rows, most)]


def batches(model: Any, pairs: Any, options: Any, *, like_lengths: bool) -> Any:
    """Our pipeline from text to features, without an end."""
    from labse_tf.data import (
        ParallelCorpus,
        SamplingPlan,
        SentencePair,
        sentence_pairs,
    )

    corpus = ParallelCorpus([SentencePair(a, b, "fr") for a, b in pairs])
    plan = SamplingPlan(
        options.batch_size, steps=1_000_000, length_buckets=like_lengths
    )
    return sentence_pairs(corpus, model.text_preprocessor(), plan)


def ours(path: Path, pairs: Any, options: Any, name: str) -> Any:
    """A function that trains for some steps and returns the seconds."""
    import keras

    from labse_tf import checkpoints
    from labse_tf.losses import AdditiveMarginSoftmax
    from labse_tf.models import DualEncoder
    from labse_tf.optimizers import adamw

    keras.utils.set_random_seed(0)
    model = checkpoints.from_huggingface(
        path, name.split()[-1], sequence_length=options.length
    )
    dual = DualEncoder(model)
    dual.compile(adamw(2e-5, weight_decay=0.01), AdditiveMarginSoftmax())
    dual.optimizer.build(dual.trainable_variables)
    # What `fit` calls for each step.
    dual.make_train_function()
    data = iter(batches(model, pairs, options, like_lengths=name in SORTED))

    def train() -> float:
        start = time.perf_counter()
        for _ in range(options.steps):
            logs = dual.train_function(data)
        float(logs["loss"])
        return time.perf_counter() - start

    return train


def pipeline(path: Path, pairs: Any, options: Any) -> Any:
    """A function that makes batches, a hundred times as many, and their seconds."""
    from labse_tf import checkpoints

    model = checkpoints.from_huggingface(path, sequence_length=options.length)
    data = iter(batches(model, pairs, options, like_lengths=True))

    def make() -> float:
        start = time.perf_counter()
        for _ in range(100 * options.steps):
            next(data)
        return (time.perf_counter() - start) / 100

    return make


def theirs(path: Path, pairs: Any, options: Any, kind: str) -> Any:
    """The peer's trainer; its callback notes when steps end."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """Times of the ends of the steps."""

        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            self.ends.append(time.perf_counter())

    model = SentenceTransformer(str(path), device="cpu")
    model.max_seq_length = options.length
    data = Dataset.from_dict(
        {"anchor": [a for a, _ in pairs], "positive": [b for _, b in pairs]}
    )

    def train() -> float:
        clock = Clock()
        with tempfile.TemporaryDirectory() as output:
            trainer = SentenceTransformerTrainer(
                model=model,
                args=SentenceTransformerTrainingArguments(
                    output_dir=output,
                    per_device_train_batch_size=options.batch_size,
                    max_steps=options.steps + 1,
                    learning_rate=2e-5,
                    weight_decay=0.01,
                    bf16=kind == "bfloat16",
                    use_cpu=True,
                    report_to=[],
                    save_strategy="no",
                    logging_strategy="no",
                    disable_tqdm=True,
                ),
                train_dataset=data,
                loss=MultipleNegativesRankingLoss(model),
                callbacks=[clock],
            )
            trainer.train()
        return clock.ends[-1] - clock.ends[0]

    return train


if __name__ == "__main__":
    main()
