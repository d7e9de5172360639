"""Recipes: everything that decides what a training run makes, by name.

A recipe is a frozen dataclass; the command line's flags come from its fields. Each
named recipe says for each field where the value is from: a section of the paper, the
official YAML, or `ours:` and the reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

POOLINGS = ("pooler", "cls", "mean")
BATCHES = ("mixed", "one_language")
DTYPES = ("float32", "bfloat16", "float16")


def _field(
    default: Any,
    help: str,
    *,
    group: str,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A dataclass field with what the command line needs to offer it as a flag."""
    metadata = {"help": help, "group": group, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What makes a dual encoder; see the fields' help for meaning and units.

    Raises:
        ValueError: From `check`, if a value makes no sense.
    """

    # The encoder: used where a model is made anew, not where one is loaded.
    num_layers: int = _field(2, "transformer blocks", group="model")
    num_heads: int = _field(4, "attention heads a block", group="model")
    hidden_dim: int = _field(256, "width, and length of the vectors", group="model")
    intermediate_dim: int = _field(1024, "feed-forward width", group="model")
    activation: str = _field(
        "gelu",
        "of the feed-forward layer",
        group="model",
        choices=("gelu", "gelu_approximate", "relu"),
    )
    dropout: float = _field(0.1, "dropout rate", group="model")
    max_sequence_length: int = _field(512, "rows of the position table", group="model")
    pooling: str = _field(
        "pooler", "how a sentence becomes a vector", group="model", choices=POOLINGS
    )
    # The text.
    sequence_length: int = _field(64, "most tokens a sentence", group="data")
    smoothing: float = _field(
        0.3, "exponent of the language mixture: 1 as it is, 0 all alike", group="data"
    )
    cap: int | None = _field(None, "most pairs a language", group="data")
    batches: str = _field(
        "mixed", "languages in a batch", group="data", choices=BATCHES
    )
    # The training.
    batch_size: int = _field(256, "pairs a step, over all replicas", group="training")
    train_steps: int = _field(10_000, "steps in all", group="training")
    learning_rate: float = _field(1e-4, "highest learning rate", group="training")
    warmup_steps: int = _field(0, "steps until it is reached", group="training")
    weight_decay: float = _field(0.01, "of AdamW", group="training")
    clip_norm: float | None = _field(
        None, "largest norm of all gradients", group="training"
    )
    epsilon: float = _field(1e-6, "of AdamW", group="training")
    margin: float = _field(0.3, "subtracted from the positive", group="training")
    scale: float = _field(20.0, "multiplies the cosines", group="training")
    dtype: str = _field(
        "float32", "compute type; weights are float32", group="training", choices=DTYPES
    )
    seed: int = _field(0, "of weights, dropout and data order", group="training")

    def check(self) -> None:
        """Refuses values that make no sense, by name.

        Raises:
            ValueError: The first field that is wrong, and what was expected.
        """
        for name in (
            "num_heads",
            "hidden_dim",
            "intermediate_dim",
            "batch_size",
            "train_steps",
            "learning_rate",
            "epsilon",
            "scale",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"`{name}` must be positive. Received: {getattr(self, name)}"
                )
        for name in ("num_layers", "warmup_steps", "weight_decay", "smoothing"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"`{name}` must be 0 or more. Received: {getattr(self, name)}"
                )
        if not 0 <= self.dropout < 1:
            raise ValueError(
                f"`dropout` must be from 0 up to 1. Received: {self.dropout}"
            )
        if self.warmup_steps >= self.train_steps:
            raise ValueError(
                "`warmup_steps` must be less than `train_steps`. Received: "
                f"warmup_steps={self.warmup_steps}, train_steps={self.train_steps}"
            )
        for field in dataclasses.fields(self):
            choices = field.metadata["choices"]
            if choices and getattr(self, field.name) not in choices:
                raise ValueError(
                    f"`{field.name}` must be one of {choices}. "
                    f"Received: {getattr(self, field.name)!r}"
                )


@dataclasses.dataclass(frozen=True)
class NamedRecipe:
    """A recipe, what it is for, and where each value is from.

    Attributes:
        recipe: The values.
        about: One line.
        sources: Field name -> source, for every field.
    """

    recipe: Recipe
    about: str
    sources: Mapping[str, str]


_PAPER = "arXiv 2007.01852"
_BERT_BASE = {
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
    "dtype": "ours: float32 is exact everywhere",
    "seed": "ours: any number does",
}


def _named(
    about: str, values: Mapping[str, Any], sources: Mapping[str, str]
) -> NamedRecipe:
    """A recipe of BERT-base shape with its sources."""
    return NamedRecipe(
        Recipe(**{**_BERT_BASE, **values}),
        about,
        MappingProxyType({**_BERT_SOURCES, **_OURS_EVERYWHERE, **sources}),
    )


RECIPES: Mapping[str, NamedRecipe] = MappingProxyType(
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


def get_recipe(name: str, **changes: Any) -> Recipe:
    """Returns a recipe by name, with some fields changed.

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
    if name not in RECIPES:
        raise ValueError(
            f"`name` must be one of {', '.join(sorted(RECIPES))}. Received: {name!r}"
        )
    names = {field.name for field in dataclasses.fields(Recipe)}
    unknown = sorted(set(changes) - names)
    if unknown:
        raise ValueError(
            f"A recipe has the fields {', '.join(sorted(names))}. "
            f"Received: {', '.join(unknown)}"
        )
    recipe = dataclasses.replace(RECIPES[name].recipe, **changes)
    recipe.check()
    return recipe
