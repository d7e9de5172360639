"""What is compared, and what the paper says of it.

A `Plan` is all that decides a run but for its seed; a `Setting` is a row of a table: a
plan, what it is compared with, and what the paper expects of the two. Rows of several
tables may have one plan, which then runs once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import NamedTuple

INDIAN = ("hi", "bn", "mr", "ta", "te", "ml", "ur", "ne")
OTHERS = ("fr", "de", "ru", "zh", "ar", "id", "tr")
LANGUAGES = (*INDIAN, *OTHERS)
# Left out of training: two that have kin and script in common with Hindi, which stays;
# and a whole family with three scripts of its own.
RELATED = ("mr", "ne")
UNRELATED = ("ta", "te", "ml")
# Written without spaces: what is between two of them is longer than 100 bytes at times.
UNSPACED = ("th", "km")


class Scale(NamedTuple):
    """How large everything is.

    Attributes:
        pairs: Of a language, to train on.
        scarce_pairs: Of an Indian language, in the vocabularies' text.
        scorer_pairs: Of a language, for the model that filters; others than `pairs`.
        vocabulary_size: Entries.
        bag_steps: Steps of an encoder without layers.
        grown_steps: Further steps, after it has grown.
        tune_steps: Steps of an encoder with layers, pre-trained or new.
        pretrain_steps: Steps of masked language modelling, of all stages together.
        sentences: Of a language of a test set, at most.
    """

    pairs: int
    scarce_pairs: int
    scorer_pairs: int
    vocabulary_size: int
    bag_steps: int
    grown_steps: int
    tune_steps: int
    pretrain_steps: int
    sentences: int | None


FULL = Scale(16_000, 800, 4_000, 12_000, 400, 200, 400, 2_400, None)
QUICK = Scale(4_000, 200, 2_000, 8_000, 100, 50, 100, 480, 500)

# The encoder with layers: as wide as the one without.
WIDTH, HEADS, FEED_FORWARD, LAYERS = 128, 4, 256, 4
SENTENCE_LENGTH = 64
# Pre-training: rows of several sentences each.
ROWS, ROW_LENGTH, PREDICTIONS = 32, 64, 13


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """A masked language model.

    Attributes:
        tlm_share: Rows of pairs among all rows; 0 for MLM alone.
        stages: Layers and steps of the stages before the last.
        steps: Of all stages.
    """

    tlm_share: float
    stages: tuple[tuple[int, int], ...]
    steps: int

    def parts(self) -> list[tuple[int, int]]:
        """Layers and steps of all stages, the last one too."""
        before = sum(steps for _, steps in self.stages)
        return [*self.stages, (LAYERS, self.steps - before)]


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that decides a run but for its seed.

    Attributes:
        languages: To train on.
        share: Of the pairs of each language.
        shuffled: Share of the pairs whose translations are exchanged.
        filtered: Whether `labse-tf filter` then looks through them.
        vocabulary: Languages, and how scarce the text of the Indian ones is.
        smoothing: Exponent of the vocabulary's text.
        compat: Of the tokenizer.
        pretraining: What it starts from, or nothing.
        bag: The plan of the encoder without layers that it starts from, or nothing.
        keep_function: Whether the bag's function is kept when layers are added.
        num_layers: Transformer blocks.
        pooling: Of the encoder.
        steps: Of training.
        batch_size: Pairs a step, over all replicas.
        learning_rate: The highest.
        margin: Of the loss.
        scale: Of the loss.
        batches: Languages in a batch.
        replicas: Devices that share a batch.
        cross_replica: Whether negatives come from all of them.
        mask_duplicates: Whether a sentence's copies are no negatives.
    """

    languages: tuple[str, ...] = LANGUAGES
    share: float = 1.0
    shuffled: float = 0.0
    filtered: bool = False
    vocabulary: str = "plain"
    smoothing: float = 0.3
    compat: str = "bert"
    pretraining: Pretraining | None = None
    bag: Plan | None = None
    keep_function: bool = True
    num_layers: int = 0
    pooling: str = "mean"
    steps: int = 600
    batch_size: int = 512
    learning_rate: float = 1e-2
    margin: float = 0.3
    scale: float = 20.0
    batches: str = "mixed"
    replicas: int = 1
    cross_replica: bool = True
    mask_duplicates: bool = True

    def key(self, seed: int) -> str:
        """Names a run by its content."""
        text = json.dumps([dataclasses.asdict(self), seed], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def cost(self) -> float:
        """About how many seconds of a core it takes, for the progress bar."""
        rate = 1_400 / self.num_layers if self.num_layers else 7_000
        return 10 + 4 * self.num_layers + self.steps * self.batch_size / rate


class Setting(NamedTuple):
    """A row of a table.

    Attributes:
        name: In its table.
        plan: What is run.
        against: The row that it is compared with, by name; none for the first ones.
        expected: What the paper lets one expect of it beside that row: "better",
            "worse", "not worse", or nothing where it says nothing.
        paper: In words.
        measured: The languages that the row is about; those trained on if none.
    """

    name: str
    plan: Plan
    against: str = ""
    expected: str = ""
    paper: str = ""
    measured: tuple[str, ...] = ()


class Group(NamedTuple):
    """A table.

    Attributes:
        name: On the command line.
        title: Its heading.
        about: What is the same in all rows, and what is not.
        settings: Its rows.
    """

    name: str
    title: str
    about: str
    settings: tuple[Setting, ...]


def groups(scale: Scale) -> list[Group]:
    """All tables, at a scale."""
    bag = Plan(steps=scale.bag_steps)
    return [
        _pretraining(scale),
        _margin(bag),
        _scale(bag),
        _replicas(bag),
        _batch_size(bag),
        _equal_pairs(bag),
        _batches(bag),
        _stacking(scale),
        _growing(bag, scale),
        _noise(bag),
        _amount(bag),
        _zero_shot(bag),
        _vocabulary(bag),
        _tokenizer(bag),
    ]


def _change(plan: Plan, **changes: object) -> Plan:
    """A plan with some fields changed."""
    return dataclasses.replace(plan, **changes)  # type: ignore[arg-type]


# === Pre-training and stacking ===


def paper_stages(steps: int) -> tuple[tuple[int, int], ...]:
    """A quarter and half of the layers, for the paper's shares of the steps."""
    return ((LAYERS // 4, steps * 2 // 15), (LAYERS // 2, steps * 4 // 15))


def row_cost(num_layers: int, vocabulary_size: int) -> int:
    """Multiplications and additions of a row's matrix products, forward."""
    block = 4 * WIDTH**2 + 2 * WIDTH * FEED_FORWARD
    attention = 2 * ROW_LENGTH * WIDTH
    head = WIDTH**2 + WIDTH * vocabulary_size
    return ROW_LENGTH * num_layers * (block + attention) + PREDICTIONS * head


def equal_compute(staged: Pretraining, vocabulary_size: int) -> int:
    """Steps with all layers that cost what the stages together do."""
    cost = sum(n * row_cost(layers, vocabulary_size) for layers, n in staged.parts())
    return round(cost / row_cost(LAYERS, vocabulary_size))


def _tuned(scale: Scale, **changes: object) -> Plan:
    """An encoder with layers, from nothing."""
    plan = Plan(
        num_layers=LAYERS,
        steps=scale.tune_steps,
        batch_size=64,
        learning_rate=1e-3,
    )
    return _change(plan, **changes)


def _pretrained(scale: Scale, tlm_share: float) -> Pretraining:
    """In three stages."""
    steps = scale.pretrain_steps
    return Pretraining(tlm_share, paper_stages(steps), steps)


def _pretraining(scale: Scale) -> Group:
    kinds = {
        "none": None,
        "MLM": _pretrained(scale, 0.0),
        "MLM + TLM": _pretrained(scale, 0.5),
    }
    rows = []
    for pooling, shares in (("pooler", (1.0, 0.2, 0.05)), ("mean", (1.0,))):
        whole = _name("none", pooling, 1.0)
        for share in shares:
            for kind, pretraining in kinds.items():
                if pretraining is None and share < 0.2:
                    continue
                expected, paper = "", ""
                if pretraining is not None and share == 1:
                    expected = "better"
                    paper = "pre-training is worth much"
                elif pretraining is not None and share == 0.2:
                    expected = "not worse"
                    paper = "as good with 80 % fewer pairs"
                plan = _tuned(
                    scale, pooling=pooling, share=share, pretraining=pretraining
                )
                name = _name(kind, pooling, share)
                against = "" if name == whole else whole
                rows.append(Setting(name, plan, against, expected, paper))
    return Group(
        "pretraining",
        "Pre-training, and the pairs that it saves",
        f"{LAYERS} layers; {scale.pretrain_steps:,} steps of masked language modelling "
        f"in three stages, then {scale.tune_steps} steps of 64 pairs. The text is the "
        "same for all: pre-training sees all of it, as sentences (MLM) or half of its "
        "rows as pairs (TLM), and the dual encoder a share of its pairs, of which it "
        f"draws {scale.tune_steps * 64:,}, as often as it takes; all are "
        f"{scale.pairs * len(LANGUAGES):,}. `pooler` is the paper's: [CLS] and a dense "
        "layer.",
        tuple(rows),
    )


def _name(kind: str, pooling: str, share: float) -> str:
    return f"{kind}; {pooling}; {share:.0%} of the pairs".replace("%", " %")


def _stacking(scale: Scale) -> Group:
    staged = _pretrained(scale, 0.5)
    steps = equal_compute(staged, scale.vocabulary_size)
    stacked = _tuned(scale, pooling="pooler", pretraining=staged)
    scratch = _change(stacked, pretraining=Pretraining(0.5, (), steps))
    return Group(
        "stacking",
        "Progressive stacking",
        f"MLM + TLM: 1, 2 and {LAYERS} layers for 2, 4 and 9 fifteenths of "
        f"{scale.pretrain_steps:,} steps, beside {LAYERS} layers for {steps:,} steps, "
        "which are as many multiplications; then the same training of the dual "
        "encoder. The loss is that of the last tenth of the pre-training.",
        (
            Setting(f"{LAYERS} layers from the start", scratch),
            Setting(
                "three stages",
                stacked,
                f"{LAYERS} layers from the start",
                "better",
                "three stages speed pre-training up",
            ),
        ),
    )


def _growing(bag: Plan, scale: Scale) -> Group:
    steps = scale.grown_steps
    further: dict[str, object] = {"batch_size": 256, "learning_rate": 1e-3}
    grown = _change(bag, bag=bag, num_layers=2, steps=steps, **further)
    name = "grown, the function kept"
    return Group(
        "growing",
        "Growing from zero layers (ours)",
        f"An encoder without layers after {bag.steps} steps, then {steps} of 256 pairs "
        "with 2 new layers: their output projections zero, which keeps the function, "
        "or as random as a new model's. Beside them the same encoder trained on "
        f"without layers, and 2 layers from nothing for {steps * 3 // 2} steps, which "
        "take longer than both parts.",
        (
            Setting(name, grown),
            Setting(
                "grown, the function not kept",
                _change(grown, keep_function=False),
                name,
            ),
            Setting("no layers, trained on", _change(grown, num_layers=0), name),
            Setting(
                "2 layers from nothing",
                _change(grown, bag=None, steps=steps * 3 // 2),
                name,
            ),
        ),
    )


# === The loss and its negatives ===


def _margin(bag: Plan) -> Group:
    rows = [Setting("0", _change(bag, margin=0.0))]
    for margin in (0.1, 0.2, 0.3, 0.4):
        paper = "a margin matters much" + ("; 0.3 is taken" if margin == 0.3 else "")
        plan = _change(bag, margin=margin)
        rows.append(Setting(f"{margin}", plan, "0", "better", paper))
    return Group("margin", "Margin", "At scale 20.", tuple(rows))


def _scale(bag: Plan) -> Group:
    rows = [
        Setting(
            f"{scale}",
            _change(bag, scale=float(scale)),
            "" if scale == 20 else "20",
            "",
            "none given; the official YAML has 100" if scale == 100 else "",
        )
        for scale in (20, 10, 50, 100)
    ]
    return Group("scale", "Scale", "At margin 0.3.", tuple(rows))


def _replicas(bag: Plan) -> Group:
    four = _change(bag, replicas=4)
    own = _change(four, cross_replica=False)
    return Group(
        "replicas",
        "Negatives of other replicas",
        "512 pairs on 4 replicas, 128 on each. One device with all 512 is the check "
        "that gathering changes nothing.",
        (
            Setting("each replica its own (the official code)", own),
            Setting(
                "all of 4",
                four,
                "each replica its own (the official code)",
                "better",
                "without those of others slightly worse",
            ),
            Setting("one device", bag, "all of 4"),
        ),
    )


BATCH_SIZES = (64, 128, 256, 512, 1024, 2048)


def _sizes(bag: Plan, steps: dict[int, int], expected: str = "") -> tuple[Setting, ...]:
    return tuple(
        Setting(
            f"{size:,}",
            _change(bag, batch_size=size, steps=steps[size]),
            "" if size == BATCH_SIZES[0] else f"{BATCH_SIZES[0]}",
            expected if size > BATCH_SIZES[0] else "",
            "large batches are taken, 4,096" if size > BATCH_SIZES[0] else "",
        )
        for size in BATCH_SIZES
    )


def _batch_size(bag: Plan) -> Group:
    return Group(
        "batch_size",
        "Batch size, at equal steps",
        f"{bag.steps} steps: a larger batch sees more pairs.",
        _sizes(bag, dict.fromkeys(BATCH_SIZES, bag.steps), "better"),
    )


def _equal_pairs(bag: Plan) -> Group:
    pairs = bag.steps * bag.batch_size
    return Group(
        "equal_pairs",
        "Batch size, at equal pairs",
        f"{pairs:,} pairs: a larger batch makes fewer steps, all at one learning rate.",
        _sizes(bag, {size: pairs // size for size in BATCH_SIZES}),
    )


def _batches(bag: Plan) -> Group:
    return Group(
        "batches",
        "What is in a batch",
        "",
        (
            Setting("languages mixed, duplicates masked", bag),
            Setting(
                "languages mixed, duplicates not masked",
                _change(bag, mask_duplicates=False),
                "languages mixed, duplicates masked",
            ),
            Setting(
                "one language, duplicates masked",
                _change(bag, batches="one_language"),
                "languages mixed, duplicates masked",
            ),
            Setting(
                "one language, duplicates not masked",
                _change(bag, batches="one_language", mask_duplicates=False),
                "one language, duplicates masked",
            ),
        ),
    )


# === The text ===


def _noise(bag: Plan) -> Group:
    rows = [Setting("clean", bag)]
    for share in (0.1, 0.3, 0.5):
        noisy = f"{share:.0%} shuffled".replace("%", " %")
        plan = _change(bag, shuffled=share)
        paper = "without data selection retrieval fails"
        rows.append(Setting(noisy, plan, "clean", "worse", paper))
        filtered = _change(plan, filtered=True)
        paper = "selected data is better"
        rows.append(Setting(f"{noisy}, filtered", filtered, noisy, "better", paper))
    return Group(
        "noise",
        "Data selection",
        "A share of the pairs has its translations exchanged among each other, within "
        "a language. `labse-tf filter` goes by the vectors of an encoder that was "
        "trained on other, clean pairs (the paper's scorer, too, is a model of its "
        "own), and by the threshold above which 95 % of 2,000 pairs of the text, which "
        "are marked good or bad, are good.",
        tuple(rows),
    )


def _amount(bag: Plan) -> Group:
    rows = []
    for share in (1.0, 0.5, 0.25, 0.1):
        name = f"{share:.0%}".replace("%", " %")
        expected, paper = ("worse", "more pairs are better") if share < 1 else ("", "")
        plan = _change(bag, share=share)
        rows.append(Setting(name, plan, "100 %" if share < 1 else "", expected, paper))
    return Group(
        "amount",
        "Amount of data",
        "Equal steps: fewer pairs are seen more often.",
        tuple(rows),
    )


def _zero_shot(bag: Plan) -> Group:
    rows = []
    for name, left_out in (
        ("Marathi, Nepali (kin of Hindi)", RELATED),
        ("Tamil, Telugu, Malayalam (no kin)", UNRELATED),
    ):
        rest = tuple(code for code in LANGUAGES if code not in left_out)
        plans = {
            "untrained": _change(bag, steps=0),
            "left out": _change(bag, languages=rest),
            "trained": bag,
        }
        paper = "works for 30 unseen languages"
        for kind, plan in plans.items():
            rows.append(
                Setting(
                    f"{name}: {kind}",
                    plan,
                    "" if kind == "left out" else f"{name}: left out",
                    {"untrained": "worse"}.get(kind, ""),
                    paper if kind == "untrained" else "",
                    left_out,
                )
            )
    return Group(
        "zero_shot",
        "Zero-shot",
        "Accuracy on the languages named alone, which are left out of the training, "
        "and not of the vocabulary. Untrained vectors are above chance where sentences "
        "share names and numbers with English.",
        tuple(rows),
    )


def _vocabulary(bag: Plan) -> Group:
    rows = [
        Setting(
            f"{smoothing:g}",
            _change(bag, vocabulary="skewed", smoothing=smoothing),
            "" if smoothing == 0.3 else "0.3",
            "" if smoothing == 0.3 else "worse",
            "0.3 is taken",
        )
        for smoothing in (0.3, 0.0, 1.0)
    ]
    return Group(
        "vocabulary",
        "Smoothing of the vocabulary",
        "The vocabulary's text has a twentieth as much of each Indian language as of "
        "each other one, as the web has less of them; the training's text has as much. "
        "[UNK] is its share of the tokens of TICO-19 and Tatoeba.",
        tuple(rows),
    )


def _tokenizer(bag: Plan) -> Group:
    ours = _change(bag, languages=UNSPACED, vocabulary="unspaced")
    return Group(
        "tokenizer",
        "Words of more than 100 bytes",
        "Thai and Khmer alone, in training, vocabulary and tests. TF-Text makes one "
        "[UNK] of them, as the released SavedModel does; ours follows the original "
        "tokenizer, which counts characters.",
        (
            Setting("100 bytes (TF Hub)", _change(ours, compat="tfhub")),
            Setting("ours", ours, "100 bytes (TF Hub)"),
        ),
    )
