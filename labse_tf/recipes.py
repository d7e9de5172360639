"""Recipes: everything that decides what a training run makes, by name.

A recipe is a frozen dataclass; the command line's flags come from its fields: `Recipe`
for the dual encoder, `PretrainingRecipe` for the masked language model. Each named
recipe says for each field where the value is from: a section of the paper, the official
YAML, or `ours:` and the reason.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar

from labse_tf.settings import check_settings, setting

POOLINGS = ("pooler", "cls", "mean", "weighted_mean")
BATCHES = ("mixed", "one_language")
LENGTH_BUCKETS = ("characters", "tokens", "none")
DTYPES = ("float32", "bfloat16", "float16")
OPTIMIZERS = ("adamw", "lazy_adamw")

# Shares of the steps that the paper gives to its stages (section 4.1: 400k, 800k and
# 1.8M), and the part of the depth that each has.
_PAPER_STAGES = ((4, 400), (2, 800), (1, 1800))


class Stage(NamedTuple):
    """A part of a run in which the depth stays the same.

    Attributes:
        number: From 1.
        num_layers: Transformer blocks.
        start: The step it begins after.
        end: The step it ends with.
    """

    number: int
    num_layers: int
    start: int
    end: int


def parse_stage(text: str) -> tuple[int, int]:
    """Reads a stage as the command line writes it.

    Args:
        text: `"LAYERS:STEPS"`.

    Returns:
        The two numbers.

    Raises:
        ValueError: If it is anything else.

    Example:
        >>> from labse_tf.recipes import parse_stage
        >>> parse_stage("3:400000")
        (3, 400000)
    """
    match = re.fullmatch(r"(\d+):(\d+)", text.strip())
    if match is None:
        raise ValueError(f"Expected LAYERS:STEPS, such as 3:400000. Received: {text!r}")
    return int(match[1]), int(match[2])


@dataclasses.dataclass(frozen=True)
class BaseRecipe:
    """What both kinds of training have; see the fields' help for meaning and units.

    Raises:
        ValueError: From `check`, if a value makes no sense.
    """

    # The encoder: used where a model is made anew, not where one is loaded.
    num_layers: int = setting(
        2, "transformer blocks", group="model", must_be="0 or more"
    )
    num_heads: int = setting(
        4, "attention heads a block", group="model", must_be="positive"
    )
    hidden_dim: int = setting(
        256, "width, and length of the vectors", group="model", must_be="positive"
    )
    intermediate_dim: int = setting(
        1024, "feed-forward width", group="model", must_be="positive"
    )
    activation: str = setting(
        "gelu",
        "of the feed-forward layer",
        group="model",
        choices=("gelu", "gelu_approximate", "relu"),
    )
    dropout: float = setting(0.1, "dropout rate", group="model")
    max_sequence_length: int = setting(512, "rows of the position table", group="model")
    pooling: str = setting(
        "pooler", "how a sentence becomes a vector", group="model", choices=POOLINGS
    )
    # The text.
    sequence_length: int = setting(64, "most tokens a sentence", group="data")
    smoothing: float = setting(
        0.3,
        "exponent of the language mixture: 1 as it is, 0 all alike",
        group="data",
        must_be="0 or more",
    )
    cap: int | None = setting(None, "most pairs a language", group="data")
    # The training.
    batch_size: int = setting(
        256, "pairs a step, over all replicas", group="training", must_be="positive"
    )
    train_steps: int = setting(
        10_000, "steps in all, over all stages", group="training", must_be="positive"
    )
    stages: tuple[tuple[int, int], ...] | None = setting(
        (),
        "shallower stages that come first, LAYERS:STEPS each; the rest of the steps "
        "has all layers. From 0 layers the function is kept, from others blocks are "
        "copied",
        group="training",
        parse=parse_stage,
    )
    learning_rate: float = setting(
        1e-4, "highest learning rate", group="training", must_be="positive"
    )
    warmup_steps: int = setting(
        0, "steps until it is reached", group="training", must_be="0 or more"
    )
    weight_decay: float = setting(
        0.01, "of AdamW", group="training", must_be="0 or more"
    )
    clip_norm: float | None = setting(
        None, "largest norm of all gradients", group="training"
    )
    epsilon: float = setting(1e-6, "of AdamW", group="training", must_be="positive")
    dtype: str = setting(
        "float32", "compute type; weights are float32", group="training", choices=DTYPES
    )
    seed: int = setting(0, "of weights, dropout and data order", group="training")

    def check(self) -> None:
        """Refuses values that make no sense, by name.

        Raises:
            ValueError: The first field that is wrong, and what was expected.
        """
        check_settings(self)
        if not 0 <= self.dropout < 1:
            raise ValueError(
                f"`dropout` must be from 0 up to 1. Received: {self.dropout}"
            )
        if self.warmup_steps >= self.train_steps:
            raise ValueError(
                "`warmup_steps` must be less than `train_steps`. Received: "
                f"warmup_steps={self.warmup_steps}, train_steps={self.train_steps}"
            )
        self.stage_plan()

    def stage_plan(self) -> list[Stage]:
        """Lists the stages, the last one with all layers.

        Returns:
            At least one stage; together they have all steps. `stages=None` means the
            paper's three: a quarter, half and all of the layers, for 2/15, 4/15 and
            9/15 of the steps.

        Raises:
            ValueError: If a stage has no steps, there are none left for the last
                one, or its layers do not divide those of the next one.

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
                "`stages` must have a step each and leave some of `train_steps` to "
                f"the last one. Received: stages={_written(stages)}, "
                f"train_steps={self.train_steps}"
            )
        plan: list[Stage] = []
        for layers, count in (*stages, (self.num_layers, self.train_steps - steps)):
            before = plan[-1] if plan else Stage(0, layers, 0, 0)
            if layers < before.num_layers or (
                before.num_layers and layers % before.num_layers
            ):
                raise ValueError(
                    "`stages` must go from layers to a multiple of them, up to "
                    f"`num_layers`. Received: stages={_written(stages)}, "
                    f"num_layers={self.num_layers}"
                )
            plan.append(
                Stage(before.number + 1, layers, before.end, before.end + count)
            )
        return plan

    def _paper_stages(self) -> tuple[tuple[int, int], ...]:
        """A quarter and half of the layers, for the paper's shares of the steps."""
        if self.num_layers < 1 or self.num_layers % 4:
            raise ValueError(
                "`num_layers` must be a multiple of 4 for the paper's stages of a "
                "quarter, half and all layers; or give `stages`. "
                f"Received: num_layers={self.num_layers}"
            )
        whole = sum(share for _, share in _PAPER_STAGES)
        return tuple(
            (self.num_layers // part, max(1, round(self.train_steps * share / whole)))
            for part, share in _PAPER_STAGES[:-1]
        )


@dataclasses.dataclass(frozen=True)
class Recipe(BaseRecipe):
    """What makes a dual encoder; see the fields' help for meaning and units.

    Raises:
        ValueError: From `check`, if a value makes no sense.
    """

    batches: str = setting(
        "mixed", "languages in a batch", group="data", choices=BATCHES
    )
    length_buckets: str = setting(
        "characters",
        "pairs of a batch are of similar length, to save padding: by characters, or by "
        "tokens, which saves more and first counts those of the whole corpus; none is "
        "slower and may teach more",
        group="data",
        choices=LENGTH_BUCKETS,
    )
    hard_negatives: int = setting(
        0,
        "a batch is put together of groups of so many pairs whose English sentences "
        "are near each other by the model that the run starts from; 0: at random. "
        "Needs --model and --batches one_language",
        group="data",
    )
    optimizer: str = setting(
        "adamw",
        "lazy_adamw lets the rows of the token table rest that a batch has not: many "
        "times faster where the table is large",
        group="training",
        choices=OPTIMIZERS,
    )
    chunk_size: int | None = setting(
        None,
        "gradient caching: pairs of a replica that are encoded at a time, each twice; "
        "the negatives are those of the whole batch, and memory holds one chunk",
        group="training",
        must_be="positive",
    )
    length_groups: int = setting(
        1,
        "sentences of a batch are encoded in so many groups of like length, each cut "
        "to its own longest: saves padding where length buckets are none, and changes "
        "no result. 8 is good; not on a TPU",
        group="training",
        must_be="positive",
    )
    loss_block_size: int | None = setting(
        None,
        "candidates that a batch is compared with at a time: the loss is the same, and "
        "its memory grows with the batch and not with its square. 256 is good for "
        "batches of thousands",
        group="training",
        must_be="positive",
    )
    margin: float = setting(0.3, "subtracted from the positive", group="training")
    scale: float = setting(
        20.0, "multiplies the cosines", group="training", must_be="positive"
    )

    def check(self) -> None:
        """See `BaseRecipe.check`."""
        super().check()
        size = self.hard_negatives
        if size < 0 or (size and self.batch_size % size):
            raise ValueError(
                "`hard_negatives` must be 0 or a divisor of `batch_size`. Received: "
                f"hard_negatives={size}, batch_size={self.batch_size}"
            )
        if size and self.batches != "one_language":
            raise ValueError(
                '`hard_negatives` needs `batches` "one_language". Received: '
                f"hard_negatives={size}, batches={self.batches!r}"
            )


@dataclasses.dataclass(frozen=True)
class PretrainingRecipe(BaseRecipe):
    """What makes a masked language model; see the fields' help.

    Raises:
        ValueError: From `check`, if a value makes no sense.
    """

    num_layers: int = setting(
        4, "transformer blocks", group="model", must_be="positive"
    )
    sequence_length: int = setting(128, "tokens a row", group="data")
    cap: int | None = setting(
        None,
        "sentences or pairs of a language beyond which its share stays",
        group="data",
    )
    batch_size: int = setting(
        64,
        "rows a step, several sentences each, over all replicas",
        group="training",
        must_be="positive",
    )
    stages: tuple[tuple[int, int], ...] | None = setting(
        None,
        "shallower stages that come first, LAYERS:STEPS each; the rest of the steps "
        "has all layers (left out: a quarter and half of the layers for 2/15 and 4/15 "
        "of the steps; without a value: no stages)",
        group="training",
        parse=parse_stage,
    )
    mask_rate: float = setting(0.2, "share of the tokens to predict", group="data")
    max_predictions: int = setting(
        26, "most predictions a row", group="data", must_be="positive"
    )
    tlm_share: float = setting(0.5, "rows of pairs among all rows", group="data")
    sentences_from_pairs: bool = setting(
        True, "the two sides of pairs are sentences too", group="data"
    )

    def check(self) -> None:
        """See `BaseRecipe.check`."""
        super().check()
        for name in ("mask_rate", "tlm_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"`{name}` must be from 0 to 1. Received: {getattr(self, name)}"
                )
        if self.sequence_length > self.max_sequence_length:
            raise ValueError(
                "`sequence_length` must be at most `max_sequence_length`. Received: "
                f"sequence_length={self.sequence_length}, "
                f"max_sequence_length={self.max_sequence_length}"
            )


def _written(stages: tuple[tuple[int, int], ...]) -> str:
    """Stages as the command line takes them."""
    return " ".join(f"{layers}:{steps}" for layers, steps in stages) or "none"


AnyRecipe = TypeVar("AnyRecipe", bound=BaseRecipe)


@dataclasses.dataclass(frozen=True)
class NamedRecipe(Generic[AnyRecipe]):
    """A recipe, what it is for, and where each value is from.

    Attributes:
        recipe: The values.
        about: One line.
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
    "pooling": "the released weights; the paper's text says [CLS], which is `cls`",
}
_OURS_EVERYWHERE = {
    "smoothing": "ours: the vocabulary's exponent (section 4.1), for the pairs too",
    "cap": "ours: none; the paper's 100 M a language is known second-hand only",
    "batches": "ours: the paper says nothing of a batch's languages",
    "hard_negatives": "arXiv 2007.01852: none; they are said not to help",
    "length_buckets": "ours: the paper says nothing of lengths in a batch",
    "chunk_size": "ours: none; the paper's accelerators hold their part of the batch",
    "loss_block_size": "ours: none; 4096 x 4096 cosines fit",
    "length_groups": "ours: 1; a TPU's shapes do not vary",
    "stages": "ours: none; the encoder comes from pre-training with all its layers",
    "optimizer": "ours: dense; on a TPU rows of tables cannot be sparse",
    "dtype": "ours: float32 is exact everywhere",
    "seed": "ours: any number does",
}


def _named(
    about: str, values: Mapping[str, Any], sources: Mapping[str, str]
) -> NamedRecipe[Recipe]:
    """A recipe of BERT-base shape with its sources."""
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
                    (
                        "sequence_length",
                        "batch_size",
                        "train_steps",
                        "learning_rate",
                    ),
                    f"{_PAPER}v1, section 3.4",
                ),
                "warmup_steps": "ours: none; the paper speaks of linear decay only",
                "weight_decay": "ours: 0.01 as BERT; the paper says AdamW only",
                "clip_norm": "ours: none, the paper does not say",
                "epsilon": "ours: 1e-6 as BERT; the paper does not say",
                "margin": f"{_PAPER}v1, section 2.1 (0.3)",
                "scale": "ours: 100 as in the official YAML; the paper gives none",
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
                "sequence_length": f"{_PAPER}v2, known second-hand only",
                "batch_size": f"{_PAPER}v2, section 4.2 (32 cores x 128)",
                "train_steps": f"{_PAPER}v1, section 3.4; v2 is taken to have kept it",
                "learning_rate": f"{_PAPER}v2, known second-hand only",
                "warmup_steps": "ours: none; the paper speaks of linear decay only",
                "weight_decay": "ours: 0.01 as BERT; the paper says AdamW only",
                "clip_norm": "ours: none, the paper does not say",
                "epsilon": "ours: 1e-6 as BERT; the paper does not say",
                "margin": f"{_PAPER}v2, section 4.2 (0.3)",
                "scale": "ours: 100 as in the official YAML; the paper gives none",
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
            "MLM and TLM in three stages, as both versions of the paper have it",
            MappingProxyType(
                {
                    **_BERT_SOURCES,
                    "sequence_length": f"{_PAPER}, section 4.1 (512)",
                    "smoothing": "ours: the vocabulary's exponent (section 4.1)",
                    "cap": "ours: none; the paper has text enough of no language",
                    "batch_size": f"{_PAPER}, section 4.1 (8192)",
                    "train_steps": f"{_PAPER}, section 4.1 (400k + 800k + 1.8M; that "
                    "these are per stage and not cumulative is a reading)",
                    "stages": f"{_PAPER}, section 4.1 (progressive stacking)",
                    "learning_rate": "ours: 1e-4 as BERT; the paper does not say",
                    "warmup_steps": "ours: 10k as BERT; the paper does not say",
                    "weight_decay": "ours: 0.01 as BERT; the paper does not say",
                    "clip_norm": "ours: none, the paper does not say",
                    "epsilon": "ours: 1e-6 as BERT; the paper does not say",
                    "dtype": "ours: float32 is exact everywhere",
                    "seed": "ours: any number does",
                    "mask_rate": f"{_PAPER}, section 4.1 (20 %)",
                    "max_predictions": f"{_PAPER}, section 4.1 (80)",
                    "tlm_share": "ours: half; the paper does not say",
                    "sentences_from_pairs": "ours: pairs are text too",
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
            ),
        ),
    }
)


def get_recipe(name: str, **changes: Any) -> Recipe:
    """Returns a dual encoder's recipe by name, with some fields changed.

    Args:
        name: One of `RECIPES`.
        **changes: Field name -> value.

    Returns:
        A checked recipe.

    Raises:
        ValueError: If there is no such recipe or field, or a value makes no sense.

    Example:
        >>> from labse_tf.recipes import get_recipe
        >>> get_recipe("paper_v1").batch_size
        2048
        >>> get_recipe("paper_v1", batch_size=64).batch_size
        64
    """
    return _get(RECIPES, name, changes)


def get_pretraining_recipe(name: str, **changes: Any) -> PretrainingRecipe:
    """Returns a masked language model's recipe by name, with some fields changed.

    Args:
        name: One of `PRETRAINING_RECIPES`.
        **changes: Field name -> value.

    Returns:
        A checked recipe.

    Raises:
        ValueError: If there is no such recipe or field, or a value makes no sense.

    Example:
        >>> from labse_tf.recipes import get_pretraining_recipe
        >>> [s.num_layers for s in get_pretraining_recipe("paper").stage_plan()]
        [3, 6, 12]
    """
    return _get(PRETRAINING_RECIPES, name, changes)


def _get(
    recipes: Mapping[str, NamedRecipe[AnyRecipe]], name: str, changes: dict[str, Any]
) -> AnyRecipe:
    """One of the named recipes with some fields changed, checked."""
    if name not in recipes:
        raise ValueError(
            f"`name` must be one of {', '.join(sorted(recipes))}. Received: {name!r}"
        )
    recipe = recipes[name].recipe
    names = {field.name for field in dataclasses.fields(recipe)}
    unknown = sorted(set(changes) - names)
    if unknown:
        raise ValueError(
            f"A recipe has the fields {', '.join(sorted(names))}. "
            f"Received: {', '.join(unknown)}"
        )
    recipe = dataclasses.replace(recipe, **changes)
    recipe.check()
    return recipe
