"""Recipe of a distillation: all settings that determine its result."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from labse_tf.recipes import OPTIMIZERS, NamedRecipe, Recipe, choose_recipe
from labse_tf.settings import setting

TEACHER_SIDES = ("own", "source")


@dataclasses.dataclass(frozen=True)
class DistillationRecipe(Recipe):
    """Settings of a distillation; see the help of each field.

    `margin` and `scale` are those of the margin loss, `margin_weight` is its weight.
    """

    num_layers: int = setting(
        6,
        "number of transformer blocks to keep of the teacher, from the first",
        group="model",
        must_be="0 or more",
    )
    dropout: float = setting(
        0.0, "dropout rate; a student sees each text once or twice", group="model"
    )
    optimizer: str = setting(
        "lazy_adamw",
        "optimizer; lazy_adamw updates only the rows of the token table that the batch "
        "uses, which is many times faster if the table is large",
        group="training",
        choices=OPTIMIZERS,
    )
    batch_size: int = setting(
        128, "number of pairs in the global batch", group="training", must_be="positive"
    )
    learning_rate: float = setting(
        3e-4, "peak learning rate", group="training", must_be="positive"
    )
    warmup_steps: int = setting(
        100, "number of warm-up steps", group="training", must_be="0 or more"
    )
    margin: float = setting(
        0.2, "subtracted from the cosine of the positive", group="training"
    )
    feature_weight: float = setting(
        5.0,
        "weight of the squared distance to the teacher's vector",
        group="distillation",
        must_be="0 or more",
    )
    logit_weight: float = setting(
        0.0,
        "weight of the divergence from the teacher's similarities in the batch",
        group="distillation",
        must_be="0 or more",
    )
    contrastive_weight: float = setting(
        0.0,
        "weight of the ranking of the text's own teacher vector in the batch",
        group="distillation",
        must_be="0 or more",
    )
    margin_weight: float = setting(
        0.5,
        "weight of the margin loss between the student's vectors of the pairs",
        group="distillation",
        must_be="0 or more",
    )
    states_weight: float = setting(
        0.0,
        "weight of the squared distance of each token's states after each block to the "
        "teacher's, relative to their variance; the student needs the teacher's "
        "tokenizer and dimension, and each step then also runs the teacher",
        group="distillation",
        must_be="0 or more",
    )
    temperature: float = setting(
        0.07,
        "temperature of the contrastive loss",
        group="distillation",
        must_be="positive",
    )
    logit_temperature: float = setting(
        0.05,
        "temperature of the similarities of the logit loss",
        group="distillation",
        must_be="positive",
    )
    center: bool = setting(
        True,
        "subtract the mean of the teacher's vectors, whose cosines may all be near 1",
        group="distillation",
    )
    teacher_side: str = setting(
        "own",
        "own: each text learns the teacher's vector of the text itself; source: both "
        "sides learn the vector of the English side, which halves the teacher's work "
        "and helps languages that the teacher knows less well",
        group="distillation",
        choices=TEACHER_SIDES,
    )

    source_share: float | None = setting(
        None,
        "encode only one side of each pair: the source with this probability, else the "
        "target. Learns from nearly twice as many translations in the same time; the "
        "margin loss is not used (default: both sides)",
        group="distillation",
        must_be="from 0 to 1",
    )

    def check(self) -> None:
        """Check the values; see `BaseRecipe.check`."""
        super().check()
        if self.stages or self.hard_negatives:
            raise ValueError(
                "`stages` and `hard_negatives` must not be set in a distillation. "
                f"Received: stages={self.stages}, "
                f"hard_negatives={self.hard_negatives}"
            )
        if self.dims:
            raise ValueError(
                "`dims` must not be set in a distillation, since the first components "
                "of a teacher's vector mean nothing by themselves; train with it "
                f"afterwards. Received: dims={list(self.dims)}"
            )
        if self.guide_margin:
            raise ValueError(
                "`guide_margin` must not be set in a distillation, which has no guide. "
                f"Received: guide_margin={self.guide_margin}"
            )
        if self.states_weight and (self.chunk_size or self.length_groups > 1):
            raise ValueError(
                "`chunk_size` and `length_groups` must not be set with "
                f"`states_weight`. Received: chunk_size={self.chunk_size}, "
                f"length_groups={self.length_groups}"
            )
        weights = {
            name: getattr(self, f"{name}_weight")
            for name in ("feature", "logit", "contrastive", "margin")
        }
        if self.source_share is not None:
            del weights["margin"]
            if self.batch_size % 2:
                raise ValueError(
                    "`batch_size` must be even with `source_share`. "
                    f"Received: {self.batch_size}"
                )
        if not any(weights.values()):
            raise ValueError(
                f"A weight of {', '.join(weights)} must be positive. "
                f"Received: {weights}"
            )


_STATES: dict[str, Any] = {
    "sequence_length": 96,
    "freeze": ("table",),
    "optimizer": "adamw",
    "learning_rate": 5e-4,
    "warmup_steps": 50,
    "train_steps": 1000,
    "smoothing": 0.5,
    "states_weight": 10.0,
    "contrastive_weight": 0.3,
    "margin_weight": 0.0,
    "teacher_side": "source",
    "source_share": 0.15,
}

DISTILLATION_RECIPES: Mapping[str, NamedRecipe[DistillationRecipe]] = MappingProxyType(
    {
        "small": NamedRecipe(
            DistillationRecipe(),
            "ours: a student with a few blocks of its teacher",
            MappingProxyType(
                {
                    field.name: "ours: a size that a laptop trains in hours"
                    for field in dataclasses.fields(DistillationRecipe)
                }
                | {
                    "feature_weight": "ours: 5 x the squared distance of unit vectors",
                    "margin_weight": "ours: a tenth of the feature loss's weight",
                    "teacher_side": "arXiv 2004.09813 has `source`; ours: own",
                    "temperature": "ours: 0.07",
                    "center": "ours: the cosines of E5 all lie above 0.7",
                }
            ),
        ),
        "states": NamedRecipe(
            DistillationRecipe(**_STATES),
            "ours: a student with half of its teacher's blocks, and its tokens, which "
            "learns the states of each token; how labse-mini was made",
            MappingProxyType(
                {
                    field.name: "ours: as in the recipe small"
                    for field in dataclasses.fields(DistillationRecipe)
                }
                | dict.fromkeys(_STATES, "ours: labse-mini's")
            ),
        ),
    }
)


def get_distillation_recipe(name: str, **changes: Any) -> DistillationRecipe:
    """Return a recipe of `DISTILLATION_RECIPES`; see `get_recipe`.

    Example:
        >>> from labse_tf.distillation import get_distillation_recipe
        >>> get_distillation_recipe("small", batch_size=64).feature_weight
        5.0
    """
    return choose_recipe(DISTILLATION_RECIPES, name, changes)
