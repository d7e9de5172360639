"""The recipes: the paper's numbers, a source for every field, checks by name."""

from __future__ import annotations

import dataclasses

import pytest

from labse_tf.recipes import RECIPES, Recipe, get_recipe


def test_the_numbers_of_the_paper() -> None:
    first, second, official = (
        RECIPES[name].recipe for name in ("paper_v1", "paper_v2", "model_garden")
    )
    for recipe in (first, second, official):
        assert (recipe.num_layers, recipe.num_heads, recipe.hidden_dim) == (12, 12, 768)
        assert recipe.intermediate_dim == 3072
        assert recipe.margin == 0.3
    assert (first.batch_size, first.sequence_length) == (2048, 64)
    assert (first.train_steps, first.learning_rate) == (50_000, 1e-5)
    assert (second.batch_size, second.sequence_length) == (32 * 128, 128)
    assert second.learning_rate == 1e-3
    assert (official.sequence_length, official.batch_size) == (32, 4096)
    assert (official.learning_rate, official.train_steps) == (1e-4, 500_000)
    assert (official.warmup_steps, official.weight_decay) == (5000, 0.0)
    assert (official.clip_norm, official.epsilon, official.scale) == (100.0, 1e-5, 100)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_field_has_a_source_and_the_values_pass(name: str) -> None:
    named = RECIPES[name]
    fields = {field.name for field in dataclasses.fields(Recipe)}
    assert set(named.sources) == fields
    assert all(len(source) > 10 for source in named.sources.values())
    named.recipe.check()
    # "ours" is what nobody gave; the rest names a document.
    for field, source in named.sources.items():
        documented = any(s in source for s in ("arXiv", "https://", "weights"))
        assert source.startswith("ours: ") != documented, field


def test_changes_and_unknown_names() -> None:
    assert get_recipe("paper_v1", batch_size=64).batch_size == 64
    assert RECIPES["paper_v1"].recipe.batch_size == 2048
    with pytest.raises(ValueError, match=r"paper_v1.*Received: 'paper_v3'"):
        get_recipe("paper_v3")
    with pytest.raises(ValueError, match=r"fields .*Received: bach_size"):
        get_recipe("small", bach_size=3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("learning_rate", -1.0),
        ("scale", 0.0),
        ("length_groups", 0),
        ("dropout", 1.0),
        ("num_layers", -1),
        ("warmup_steps", 10_000),
        ("pooling", "max"),
        ("batches", "one"),
        ("length_buckets", "words"),
        ("dtype", "int8"),
    ],
)
def test_bad_values_are_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"`{field}` must be .*Received: .*{value}"):
        get_recipe("small", **{field: value})


def test_recipes_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPES["small"].recipe.batch_size = 1  # type: ignore[misc]
