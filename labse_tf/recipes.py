"""Recipes: all settings that determine the result of a training run.

A recipe is a frozen dataclass: `Recipe` for the dual encoder, `PretrainingRecipe` for
the masked language model. The flags of the command line come from its fields. Each
named recipe gives the source of each value: a section of the paper, the official YAML,
or `ours:` and the reason.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar

from labse_tf.files import read_json
from labse_tf.settings import check_settings, setting

POOLINGS = ("pooler", "cls", "mean", "weighted_mean")
BATCHES = ("mixed", "one_language")
LENGTH_BUCKETS = ("characters", "tokens", "none")
DTYPES = ("float32", "bfloat16", "float16")
OPTIMIZERS = ("adamw", "lazy_adamw")

# The paper's stages (section 4.1): divisor of the depth, thousands of steps.
_PAPER_STAGES = ((4, 400), (2, 800), (1, 1800))


class Stage(NamedTuple):
    """Part of a run with constant depth.

    Attributes:
        number: Number of the stage, from 1.
        num_layers: Number of transformer blocks.
        start: Number of steps before the stage.
        end: Last step of the stage.
    """

    number: int
    num_layers: int
    start: int
    end: int


def parse_stage(text: str) -> tuple[int, int]:
    """Parse a stage of the command line, `"LAYERS:STEPS"`.

    Raises:
        ValueError: If `text` has another form.

    Example:
        >>> from labse_tf.recipes import parse_stage
        >>> parse_stage("3:400000")
        (3, 400000)
    """
    match = re.fullmatch(r"(\d+):(\d+)", text.strip())
    if match is None:
        raise ValueError(f"Expected LAYERS:STEPS, such as 3:400000. Received: {text!r}")
    return int(match[1]), int(match[2])


def parse_dim(text: str) -> int:
    """Parse a dimension of the command line.

    Raises:
        ValueError: If `text` is not a positive integer.
    """
    if not re.fullmatch(r"0*[1-9]\d*", text.strip()):
        raise ValueError(f"Expected a positive integer. Received: {text!r}")
    return int(text)


def parse_frozen(text: str) -> str:
    """Check a part of the model to freeze, `"table"` or `"blocks:N"`.

    Raises:
        ValueError: If `text` has another form.

    Example:
        >>> from labse_tf.recipes import parse_frozen
        >>> parse_frozen("blocks:6")
        'blocks:6'
    """
    if not re.fullmatch(r"table|blocks:0*[1-9]\d*", text.strip()):
        raise ValueError(f"Expected table or blocks:N. Received: {text!r}")
    return text.strip()


@dataclasses.dataclass(frozen=True)
class BaseRecipe:
    """Settings of both trainings; see the help of each field for meaning and unit."""

    # The encoder. The shape of a loaded model replaces these values, except that
    # `stages` can deepen it.
    num_layers: int = setting(
        2, "number of transformer blocks", group="model", must_be="0 or more"
    )
    num_heads: int = setting(
        4, "number of attention heads per block", group="model", must_be="positive"
    )
    hidden_dim: int = setting(
        256, "hidden width and embedding dimension", group="model", must_be="positive"
    )
    intermediate_dim: int = setting(
        1024, "width of the feed-forward layer", group="model", must_be="positive"
    )
    activation: str = setting(
        "gelu",
        "activation of the feed-forward layer",
        group="model",
        choices=("gelu", "gelu_approximate", "relu"),
    )
    dropout: float = setting(0.1, "dropout rate", group="model")
    max_sequence_length: int = setting(
        512, "size of the position table", group="model", must_be="positive"
    )
    pooling: str = setting(
        "mean",
        "pooling of the token vectors; mean learns from small corpora, pooler is the "
        "paper's",
        group="model",
        choices=POOLINGS,
    )
    # The text.
    sequence_length: int = setting(
        64, "maximum tokens per sentence", group="data", must_be="positive"
    )
    smoothing: float = setting(
        0.3,
        "exponent of the language mixture: 1 keeps the shares of the text, 0 gives all "
        "languages equal shares",
        group="data",
        must_be="from 0 to 1",
    )
    cap: int | None = setting(
        None,
        "number of pairs above which the share of a language does not grow",
        group="data",
        must_be="positive",
    )
    # The training.
    batch_size: int = setting(
        256, "number of pairs in the global batch", group="training", must_be="positive"
    )
    train_steps: int = setting(
        10_000, "number of steps of all stages", group="training", must_be="positive"
    )
    stages: tuple[tuple[int, int], ...] | None = setting(
        (),
        "shallower stages before the last one, LAYERS:STEPS each; the last stage has "
        "all layers and the remaining steps. Growing from 0 layers keeps the function, "
        "growing from more layers copies blocks",
        group="training",
        parse=parse_stage,
        metavar="LAYERS:STEPS",
    )
    learning_rate: float = setting(
        1e-4, "peak learning rate", group="training", must_be="positive"
    )
    warmup_steps: int = setting(
        0, "number of warm-up steps", group="training", must_be="0 or more"
    )
    weight_decay: float = setting(
        0.01, "weight decay of AdamW", group="training", must_be="0 or more"
    )
    clip_norm: float | None = setting(
        None,
        "maximum norm of all gradients together",
        group="training",
        must_be="positive",
    )
    epsilon: float = setting(
        1e-6, "epsilon of AdamW", group="training", must_be="positive"
    )
    dtype: str = setting(
        "float32", "compute type; weights are float32", group="training", choices=DTYPES
    )
    seed: int = setting(0, "seed of weights, dropout and data order", group="training")

    def check(self) -> None:
        """Check the values.

        Raises:
            ValueError: If a value is not allowed. The message names the field.
        """
        check_settings(self)
        if not 0 <= self.dropout < 1:
            raise ValueError(
                f"`dropout` must be 0 or more and below 1. Received: {self.dropout}"
            )
        if self.warmup_steps >= self.train_steps:
            raise ValueError(
                "`warmup_steps` must be less than `train_steps`. Received: "
                f"warmup_steps={self.warmup_steps}, train_steps={self.train_steps}"
            )
        self.stage_plan()

    def stage_plan(self) -> list[Stage]:
        """Return the stages; the last stage has all layers.

        `stages=None` means the paper's three stages: a quarter, half and all of the
        layers, for 2/15, 4/15 and 9/15 of the steps.

        Raises:
            ValueError: If a stage has no steps, no steps remain for the last stage, or
                the layers of a stage do not divide the layers of the next stage.

        Example:
            >>> from labse_tf.recipes import PretrainingRecipe
            >>> recipe = PretrainingRecipe(num_layers=12, train_steps=1500)
            >>> [(stage.num_layers, stage.end) for stage in recipe.stage_plan()]
            [(3, 200), (6, 600), (12, 1500)]
        """
        stages = self._paper_stages() if self.stages is None else self.stages
        steps = sum(count for _, count in stages)
        if any(count < 1 for _, count in stages) or steps >= self.train_steps:
            raise ValueError(
                "`stages` must have at least one step each and leave some of the "
                f"`train_steps` for the last one. Received: stages={_written(stages)}, "
                f"train_steps={self.train_steps}"
            )
        plan: list[Stage] = []
        for layers, count in (*stages, (self.num_layers, self.train_steps - steps)):
            before = plan[-1] if plan else Stage(0, layers, 0, 0)
            if layers < before.num_layers or (
                before.num_layers and layers % before.num_layers
            ):
                raise ValueError(
                    "`stages` must have layers that divide those of the next stage and "
                    f"`num_layers`. Received: stages={_written(stages)}, "
                    f"num_layers={self.num_layers}"
                )
            plan.append(
                Stage(before.number + 1, layers, before.end, before.end + count)
            )
        return plan

    def _paper_stages(self) -> tuple[tuple[int, int], ...]:
        """Return the paper's first two stages: a quarter and half of the layers."""
        if self.num_layers < 1 or self.num_layers % 4:
            raise ValueError(
                "`num_layers` must be a multiple of 4 for the paper's stages (a "
                "quarter, half and all layers) unless `stages` is given. "
                f"Received: num_layers={self.num_layers}"
            )
        whole = sum(share for _, share in _PAPER_STAGES)
        return tuple(
            (self.num_layers // part, max(1, round(self.train_steps * share / whole)))
            for part, share in _PAPER_STAGES[:-1]
        )


@dataclasses.dataclass(frozen=True)
class Recipe(BaseRecipe):
    """Settings of a dual encoder; see the help of each field for meaning and unit."""

    batches: str = setting(
        "mixed", "languages of a batch", group="data", choices=BATCHES
    )
    length_buckets: str = setting(
        "characters",
        "similar length of the pairs in a batch, to save padding: in characters, or in "
        "tokens, which saves more but tokenizes the whole corpus first; none is slower "
        "but may give a better model",
        group="data",
        choices=LENGTH_BUCKETS,
    )
    hard_negatives: int = setting(
        0,
        "size of the groups that form a batch: pairs whose English sentences have near "
        "embeddings in the starting model; 0: random batches. Requires --model and "
        "--batches one_language",
        group="data",
    )
    optimizer: str = setting(
        "adamw",
        "optimizer; lazy_adamw updates only the rows of the token table that the batch "
        "uses, which is many times faster if the table is large",
        group="training",
        choices=OPTIMIZERS,
    )
    chunk_size: int | None = setting(
        None,
        "gradient caching: number of pairs that a replica encodes at a time, each "
        "twice; memory holds one chunk, and the negatives are still the whole batch",
        group="training",
        must_be="positive",
    )
    length_groups: int = setting(
        1,
        "number of groups of similar length in which the sentences of a batch are "
        "encoded, each cut to its longest sentence: saves padding with "
        "--length-buckets none, same result. 8 is a good value; not on a TPU",
        group="training",
        must_be="positive",
    )
    loss_block_size: int | None = setting(
        None,
        "number of candidates that a batch is compared with at a time: memory grows "
        "with the batch size, not with its square; same loss. 256 is a good value for "
        "batches of thousands of pairs",
        group="training",
        must_be="positive",
    )
    margin: float = setting(
        0.3, "subtracted from the cosine of the positive", group="training"
    )
    scale: float = setting(
        20.0, "factor of the cosines", group="training", must_be="positive"
    )
    guide_margin: float = setting(
        0.0,
        "with --guide: ignore negatives up to this much farther than the pair itself, "
        "by the guide's cosines; below 0 also keep some that are nearer",
        group="training",
    )
    freeze: tuple[str, ...] = setting(
        (),
        "parts of the model that are not trained, which saves memory and time: table "
        "(the token embeddings), blocks:N (the first N transformer blocks)",
        group="training",
        parse=parse_frozen,
        metavar="PART",
    )
    lora: int | None = setting(
        None,
        "rank of low-rank weights (LoRA) beside the attention projections and the "
        "feed-forward layers. Only these are trained, which saves memory; the model at "
        "the end has them merged. Requires --model; the blocks of --freeze get none",
        group="training",
        must_be="positive",
    )
    lora_alpha: float | None = setting(
        None,
        "with --lora, the low-rank products are multiplied by this number divided by "
        "the rank (default: twice the rank)",
        group="training",
        must_be="positive",
    )
    dims: tuple[int, ...] = setting(
        (),
        "nested sizes (Matryoshka): the loss is the sum over vectors cut to each of "
        "these dimensions and whole vectors, so that the first components of a vector, "
        "normalized again, are a smaller vector",
        group="training",
        parse=parse_dim,
        metavar="N",
    )

    def check(self) -> None:
        """Check the values; see `BaseRecipe.check`."""
        super().check()
        if self.freeze and self.stages:
            raise ValueError(
                "`freeze` must be empty with `stages`, since the blocks change. "
                f"Received: freeze={list(self.freeze)}, stages={_written(self.stages)}"
            )
        self.frozen_parts()
        if self.lora is not None and self.stages:
            raise ValueError(
                "`lora` must not be set with `stages`, since the blocks change. "
                f"Received: lora={self.lora}, stages={_written(self.stages)}"
            )
        if self.lora_alpha is not None and self.lora is None:
            raise ValueError(
                "`lora_alpha` requires `lora`. Received: "
                f"lora_alpha={self.lora_alpha}, lora=None"
            )
        if min(self.dims, default=1) < 1 or len(set(self.dims)) != len(self.dims):
            raise ValueError(
                "`dims` must be different numbers from 1 to `hidden_dim`. Received: "
                f"dims={list(self.dims)}"
            )
        size = self.hard_negatives
        if size < 0 or (size and self.batch_size % size):
            raise ValueError(
                "`hard_negatives` must be 0 or a divisor of `batch_size`. Received: "
                f"hard_negatives={size}, batch_size={self.batch_size}"
            )
        if size and self.batches != "one_language":
            raise ValueError(
                '`hard_negatives` requires `batches` "one_language". Received: '
                f"hard_negatives={size}, batches={self.batches!r}"
            )

    def check_shape(self) -> None:
        """Compare the values with the shape of the model.

        `check` does not, since a model that is loaded has its own shape.

        Raises:
            ValueError: If `freeze` has more blocks than the model, or leaves none for
                `lora`, or `lora` or a number of `dims` is larger than `hidden_dim`.
        """
        _, blocks = self.frozen_parts()
        if blocks > self.num_layers:
            raise ValueError(
                f"`freeze` must have at most the {self.num_layers} blocks of the "
                f"model. Received: {list(self.freeze)}"
            )
        if self.lora is not None:
            if self.lora > self.hidden_dim:
                raise ValueError(
                    f"`lora` must be at most the {self.hidden_dim} dimensions of the "
                    f"model. Received: lora={self.lora}"
                )
            if blocks == self.num_layers:
                raise ValueError(
                    "`lora` must have a block of the model that is not frozen. "
                    f"Received: lora={self.lora}, freeze={list(self.freeze)}, "
                    f"num_layers={self.num_layers}"
                )
        if max(self.dims, default=1) > self.hidden_dim:
            raise ValueError(
                f"`dims` must be at most the {self.hidden_dim} dimensions of the "
                f"model. Received: dims={list(self.dims)}"
            )

    def frozen_parts(self) -> tuple[bool, int]:
        """Return whether the token table is frozen, and the number of frozen blocks.

        Raises:
            ValueError: If `freeze` has another form.
        """
        try:
            parts = [parse_frozen(part) for part in self.freeze]
        except ValueError:
            raise ValueError(
                "`freeze` must be some of table and blocks:N. "
                f"Received: {list(self.freeze)}"
            ) from None
        counts = [int(part.partition(":")[2] or 0) for part in parts]
        return "table" in parts, max(counts, default=0)


@dataclasses.dataclass(frozen=True)
class PretrainingRecipe(BaseRecipe):
    """Settings of a masked language model; see the help of each field."""

    num_layers: int = setting(
        4, "number of transformer blocks", group="model", must_be="positive"
    )
    sequence_length: int = setting(
        128, "number of tokens per row", group="data", must_be="positive"
    )
    cap: int | None = setting(
        None,
        "number of sentences or pairs above which the share of a language does not "
        "grow",
        group="data",
        must_be="positive",
    )
    batch_size: int = setting(
        64,
        "number of rows in the global batch; a row holds several sentences",
        group="training",
        must_be="positive",
    )
    stages: tuple[tuple[int, int], ...] | None = setting(
        None,
        "shallower stages before the last one, LAYERS:STEPS each; the last stage has "
        "all layers and the remaining steps (default: a quarter and half of the layers "
        "for 2/15 and 4/15 of the steps; the flag without values: no stages)",
        group="training",
        parse=parse_stage,
        metavar="LAYERS:STEPS",
    )
    mask_rate: float = setting(
        0.2, "share of the tokens to predict", group="data", must_be="from 0 to 1"
    )
    max_predictions: int = setting(
        26, "maximum number of predictions per row", group="data", must_be="positive"
    )
    tlm_share: float = setting(
        0.5, "share of the rows that hold pairs", group="data", must_be="from 0 to 1"
    )
    sentences_from_pairs: bool = setting(
        True, "use both sides of the pairs as sentences as well", group="data"
    )

    def check(self) -> None:
        """Check the values; see `BaseRecipe.check`."""
        super().check()
        if self.sequence_length > self.max_sequence_length:
            raise ValueError(
                "`sequence_length` must be at most `max_sequence_length`. Received: "
                f"sequence_length={self.sequence_length}, "
                f"max_sequence_length={self.max_sequence_length}"
            )


def _written(stages: tuple[tuple[int, int], ...]) -> str:
    """Return stages in the form of the command line."""
    return " ".join(f"{layers}:{steps}" for layers, steps in stages) or "none"


AnyRecipe = TypeVar("AnyRecipe", bound=BaseRecipe)


@dataclasses.dataclass(frozen=True)
class NamedRecipe(Generic[AnyRecipe]):
    """Recipe with a description and the source of each value.

    Attributes:
        recipe: Recipe.
        about: Description in one line.
        sources: Field name -> source, for every field.
    """

    recipe: AnyRecipe
    about: str
    sources: Mapping[str, str]


_PAPER = "arXiv 2007.01852"
_BERT_BASE: Mapping[str, Any] = {
    "num_layers": 12,
    "num_heads": 12,
    "hidden_dim": 768,
    "intermediate_dim": 3072,
    "activation": "gelu",
    "dropout": 0.1,
    "max_sequence_length": 512,
    "pooling": "pooler",
}
_BERT_SOURCES = {
    **dict.fromkeys(
        ("num_layers", "num_heads", "hidden_dim", "intermediate_dim"),
        f"{_PAPER}, section 4.1 (BERT-base)",
    ),
    "activation": "BERT, arXiv 1810.04805, appendix A.2",
    "dropout": "BERT, arXiv 1810.04805, appendix A.2",
    "max_sequence_length": f"{_PAPER}, section 4.1 (512 positions)",
    "pooling": "the released weights; the paper states [CLS], which is `cls`",
}
_SMALL_SOURCES = {
    "pooling": "ours: mean; a new pooler learns little in thousands of steps",
}
_OURS_EVERYWHERE = {
    "smoothing": "ours: the exponent of the vocabulary (section 4.1), also for pairs",
    "cap": "ours: none; 100 M per language is known only from secondary sources",
    "batches": "ours: mixed; the paper does not mention the languages of a batch",
    "hard_negatives": "arXiv 2007.01852: none; the paper reports no gain",
    "dims": "ours: none; the paper has one size",
    "guide_margin": "arXiv 2402.16829: none; the paper of LaBSE has no guide",
    "freeze": "ours: none; the paper trains everything",
    "lora": "ours: none; the paper trains everything",
    "lora_alpha": "ours: twice the rank",
    "length_buckets": "ours: characters; the paper does not mention lengths in a batch",
    "chunk_size": "ours: none; the paper's accelerators hold their parts of the batch",
    "loss_block_size": "ours: none; 4096 x 4096 cosines fit into memory",
    "length_groups": "ours: 1; a TPU requires fixed shapes",
    "stages": "ours: none; the pre-trained encoder already has all layers",
    "optimizer": "ours: dense; sparse updates of tables do not run on a TPU",
    "dtype": "ours: float32 is precise on all hardware",
    "seed": "ours: any number",
}


def _named(
    about: str, values: Mapping[str, Any], sources: Mapping[str, str]
) -> NamedRecipe[Recipe]:
    """Return a recipe of BERT-base shape with its sources."""
    return NamedRecipe(
        Recipe(**{**_BERT_BASE, **values}),
        about,
        MappingProxyType({**_BERT_SOURCES, **_OURS_EVERYWHERE, **sources}),
    )


RECIPES: Mapping[str, NamedRecipe[Recipe]] = MappingProxyType(
    {
        "paper_v1": _named(
            "the first version of the paper, July 2020",
            {
                "sequence_length": 64,
                "batch_size": 2048,
                "train_steps": 50_000,
                "learning_rate": 1e-5,
                "scale": 100.0,
            },
            {
                **dict.fromkeys(
                    ("sequence_length", "batch_size", "train_steps", "learning_rate"),
                    f"{_PAPER}v1, section 3.4",
                ),
                "warmup_steps": "ours: none; the paper only states linear decay",
                "weight_decay": "ours: 0.01 as in BERT; the paper only states AdamW",
                "clip_norm": "ours: none; not in the paper",
                "epsilon": "ours: 1e-6 as in BERT; not in the paper",
                "margin": f"{_PAPER}v1, section 2.1 (0.3)",
                "scale": "ours: 100 as in the official YAML; not in the paper",
            },
        ),
        "paper_v2": _named(
            "the second version of the paper, March 2022",
            {
                "sequence_length": 128,
                "batch_size": 4096,
                "train_steps": 50_000,
                "learning_rate": 1e-3,
                "scale": 100.0,
            },
            {
                "sequence_length": f"{_PAPER}v2, known only from secondary sources",
                "batch_size": f"{_PAPER}v2, section 4.2 (32 cores x 128)",
                "train_steps": f"{_PAPER}v1, section 3.4; assumed unchanged in v2",
                "learning_rate": f"{_PAPER}v2, known only from secondary sources",
                "warmup_steps": "ours: none; the paper only states linear decay",
                "weight_decay": "ours: 0.01 as in BERT; the paper only states AdamW",
                "clip_norm": "ours: none; not in the paper",
                "epsilon": "ours: 1e-6 as in BERT; not in the paper",
                "margin": f"{_PAPER}v2, section 4.2 (0.3)",
                "scale": "ours: 100 as in the official YAML; not in the paper",
            },
        ),
        "model_garden": _named(
            "the YAML of the official code",
            {
                "sequence_length": 32,
                "batch_size": 4096,
                "train_steps": 500_000,
                "learning_rate": 1e-4,
                "warmup_steps": 5_000,
                "weight_decay": 0.0,
                "clip_norm": 100.0,
                "epsilon": 1e-5,
                "scale": 100.0,
            },
            dict.fromkeys(
                (
                    "sequence_length",
                    "batch_size",
                    "train_steps",
                    "learning_rate",
                    "warmup_steps",
                    "weight_decay",
                    "clip_norm",
                    "epsilon",
                    "margin",
                    "scale",
                ),
                "https://github.com/tensorflow/models, official/projects/labse, YAML",
            ),
        ),
        "small": NamedRecipe(
            Recipe(),
            "ours: a small encoder from scratch on one machine",
            MappingProxyType(
                {
                    field.name: "ours: a size that a laptop trains in hours"
                    for field in dataclasses.fields(Recipe)
                }
                | _SMALL_SOURCES
            ),
        ),
    }
)


PRETRAINING_RECIPES: Mapping[str, NamedRecipe[PretrainingRecipe]] = MappingProxyType(
    {
        "paper": NamedRecipe(
            PretrainingRecipe(
                **_BERT_BASE,
                sequence_length=512,
                batch_size=8192,
                train_steps=3_000_000,
                stages=((3, 400_000), (6, 800_000)),
                learning_rate=1e-4,
                warmup_steps=10_000,
                mask_rate=0.2,
                max_predictions=80,
            ),
            "MLM and TLM in three stages, as in both versions of the paper",
            MappingProxyType(
                {
                    **_BERT_SOURCES,
                    "sequence_length": f"{_PAPER}, section 4.1 (512)",
                    "smoothing": "ours: the exponent of the vocabulary (section 4.1)",
                    "cap": "ours: none; `smoothing` already reduces large languages",
                    "batch_size": f"{_PAPER}, section 4.1 (8192)",
                    "train_steps": f"{_PAPER}, section 4.1 (400k + 800k + 1.8M, read "
                    "as steps per stage, not as cumulative steps)",
                    "stages": f"{_PAPER}, section 4.1 (progressive stacking)",
                    "learning_rate": "ours: 1e-4 as in BERT; not in the paper",
                    "warmup_steps": "ours: 10k as in BERT; not in the paper",
                    "weight_decay": "ours: 0.01 as in BERT; not in the paper",
                    "clip_norm": "ours: none; not in the paper",
                    "epsilon": "ours: 1e-6 as in BERT; not in the paper",
                    "dtype": "ours: float32 is precise on all hardware",
                    "seed": "ours: any number",
                    "mask_rate": f"{_PAPER}, section 4.1 (20 %)",
                    "max_predictions": f"{_PAPER}, section 4.1 (80)",
                    "tlm_share": "ours: half; not in the paper",
                    "sentences_from_pairs": "ours: yes; both sides of pairs are text",
                }
            ),
        ),
        "small": NamedRecipe(
            PretrainingRecipe(learning_rate=5e-4, warmup_steps=500),
            "ours: a small model from scratch on one machine",
            MappingProxyType(
                {
                    field.name: "ours: a size that a laptop trains in hours"
                    for field in dataclasses.fields(PretrainingRecipe)
                }
                | _SMALL_SOURCES
            ),
        ),
    }
)


def shape_fields(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sizes of a model that are fields of a recipe, by name."""
    fields = dataclasses.fields(Recipe)
    names = {field.name for field in fields if field.metadata["group"] == "model"}
    return {name: value for name, value in sizes.items() if name in names}


def with_shape(recipe: Recipe, shape: Mapping[str, Any]) -> Recipe:
    """Return the recipe with the shape of a model that it starts from.

    A recipe with stages keeps its `num_layers`, to which the model grows.

    Args:
        recipe: Recipe.
        shape: Fields of `shape_fields`.
    """
    kept = {"num_layers"} if recipe.stages else set()
    changes = {name: value for name, value in shape.items() if name not in kept}
    return dataclasses.replace(recipe, **changes)


def get_recipe(name: str, **changes: Any) -> Recipe:
    """Return a dual encoder's recipe by name, with some fields changed.

    Args:
        name: Name in `RECIPES`.
        **changes: Field name -> value.

    Raises:
        ValueError: If no such recipe or field exists, or a value is not allowed.

    Example:
        >>> from labse_tf.recipes import get_recipe
        >>> get_recipe("paper_v1").batch_size
        2048
        >>> get_recipe("paper_v1", batch_size=64).batch_size
        64
    """
    return choose_recipe(RECIPES, name, changes)


def get_pretraining_recipe(name: str, **changes: Any) -> PretrainingRecipe:
    """Return a recipe of `PRETRAINING_RECIPES`; see `get_recipe`.

    Example:
        >>> from labse_tf.recipes import get_pretraining_recipe
        >>> [s.num_layers for s in get_pretraining_recipe("paper").stage_plan()]
        [3, 6, 12]
    """
    return choose_recipe(PRETRAINING_RECIPES, name, changes)


def read_recipe(kind: type[AnyRecipe], path: str | Path, **changes: Any) -> AnyRecipe:
    """Read the recipe of a run from its `run.json`, with some fields changed.

    Args:
        kind: Class of the recipe.
        path: Path of a `run.json`. Fields that it does not have, as the file of an
            older version, get their default.
        **changes: Field name -> value.

    Raises:
        ValueError: If the file is not a `run.json` of such a run, or a value is not
            allowed.
        OSError: If the file cannot be read.
    """
    content = read_json(path)
    values = content.get("recipe")
    if not isinstance(values, dict):
        raise ValueError(
            f'{path}: expected the run.json of a run, with a "recipe". '
            f"Received: {str(content)[:60]}"
        )
    unknown = sorted(set(values) - {field.name for field in dataclasses.fields(kind)})
    if unknown:
        raise ValueError(
            f"{path}: expected the fields of a {kind.__name__}. "
            f"Received: {', '.join(unknown)}"
        )
    try:
        # JSON has no tuples.
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        if values.get("stages"):
            values["stages"] = tuple((layers, n) for layers, n in values["stages"])
        recipe = dataclasses.replace(kind(**values), **changes)
        recipe.check()
    except TypeError as error:
        raise ValueError(
            f"{path}: expected values of the right types. Received: {error}"
        ) from error
    return recipe


def choose_recipe(
    recipes: Mapping[str, NamedRecipe[AnyRecipe]], name: str, changes: dict[str, Any]
) -> AnyRecipe:
    """Return one of some named recipes with some fields changed, checked.

    Raises:
        ValueError: See `get_recipe`.
    """
    if name not in recipes:
        raise ValueError(
            f"`name` must be one of {', '.join(sorted(recipes))}. Received: {name!r}"
        )
    recipe = recipes[name].recipe
    names = {field.name for field in dataclasses.fields(recipe)}
    unknown = sorted(set(changes) - names)
    if unknown:
        raise ValueError(
            f"Unknown field: expected one of {', '.join(sorted(names))}. "
            f"Received: {', '.join(unknown)}"
        )
    recipe = dataclasses.replace(recipe, **changes)
    recipe.check()
    return recipe
