"""The recipes: the paper's numbers, a source for every field, checks by name."""

from __future__ import annotations

import dataclasses
import json

import pytest

from helpers.errors import Fields, raises
from labse_tf import presets
from labse_tf.cli import build_parser
from labse_tf.cli.runs import run_options
from labse_tf.distillation import DistillationRecipe
from labse_tf.recipes import (
    PRETRAINING_RECIPES,
    RECIPES,
    PretrainingRecipe,
    Recipe,
    get_recipe,
    read_recipe,
)
from labse_tf.training import RunOptions


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


def test_from_nothing_the_pooling_is_mean_and_in_the_papers_recipes_the_papers() -> (
    None
):
    for recipes in (RECIPES, PRETRAINING_RECIPES):
        for name, named in recipes.items():
            expected = "mean" if name == "small" else "pooler"
            assert named.recipe.pooling == expected, name
    assert "mean" in RECIPES["small"].sources["pooling"]


def test_changes_and_unknown_names() -> None:
    assert get_recipe("paper_v1", batch_size=64).batch_size == 64
    assert RECIPES["paper_v1"].recipe.batch_size == 2048
    with raises(ValueError, "paper_v1", received="'paper_v3'"):
        get_recipe("paper_v3")
    with raises(ValueError, received="bach_size"):
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
        ("smoothing", 1.5),
        ("smoothing", -0.1),
        ("smoothing", float("nan")),
        ("cap", 0),
        ("clip_norm", -1.0),
        ("clip_norm", 0.0),
        ("sequence_length", 0),
        ("max_sequence_length", 0),
        ("freeze", ["tables"]),
        ("freeze", ["blocks:0"]),
        ("dims", [0, 8]),
        ("dims", [8, 8]),
    ],
)
def test_bad_values_are_named(field: str, value: object) -> None:
    with raises(ValueError, argument=field, received=value):
        get_recipe("small", **{field: value})


@pytest.mark.parametrize(
    ("field", "value"), [("freeze", ["blocks:3"]), ("dims", [8, 257])]
)
def test_the_shape_is_compared_when_it_is_known(field: str, value: object) -> None:
    recipe = get_recipe("small", **{field: value})  # A loaded model may be larger.
    with raises(ValueError, argument=field, received=value):
        recipe.check_shape()
    dataclasses.replace(recipe, num_layers=3, hidden_dim=257).check_shape()


def test_the_recipe_of_a_run_is_read(tmp_path) -> None:
    path = tmp_path / "run.json"
    staged = Recipe(num_layers=4, stages=((0, 5), (2, 7)), batch_size=8)
    nested = Recipe(freeze=("table", "blocks:1"), dims=(64, 128))
    for recipe in (Recipe(), nested, staged):
        values = dataclasses.asdict(recipe)
        path.write_text(json.dumps({"recipe": values, "text": {}}))
        assert read_recipe(Recipe, path) == recipe
    assert read_recipe(Recipe, path, batch_size=16).batch_size == 16
    kinds = {"labse-nano": Recipe, "labse-mini": DistillationRecipe}
    assert set(kinds) == set(presets.shipped_names())
    for name, kind in kinds.items():
        shipped = read_recipe(kind, presets.find(name) / "run.json")
        assert shipped.hidden_dim == 384
    for content, expected in (
        ("{", Fields(received=True)),
        ("[]", Fields("run.json", received="list")),
        ({"recipe": {**values, "mask_rate": 0.2}}, Fields(received="mask_rate")),
        ({"recipe": {**values, "scale": "high"}}, Fields(received="str")),
        ({"recipe": {**values, "stages": [1]}}, Fields(received=True)),
    ):
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text)
        with raises(ValueError, expected, path=path):
            read_recipe(Recipe, path)
    path.write_text(json.dumps({"recipe": {**values, "scale": -1.0}}))
    with raises(ValueError, argument="scale", received=-1.0):
        read_recipe(Recipe, path)


def test_recipes_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPES["small"].recipe.batch_size = 1  # type: ignore[misc]


# === Options of a run ===


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("checkpoint_every", 0),
        ("log_every", -1),
        ("dev_every", 0),
        ("steps_per_execution", 0),
        ("on_nan", "ignore"),
    ],
)
def test_bad_options_are_named(field: str, value: object) -> None:
    with raises(ValueError, argument=field, received=value):
        RunOptions(**{field: value})


COMMANDS = {
    "train": ["train", "en-hi.tsv", "--vocab", "v", "--output", "o"],
    "pretrain": ["pretrain", "--mono", "hi.txt", "--vocab", "v", "--output", "o"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_flag_and_its_default(command: str) -> None:
    parse = build_parser().parse_args
    assert run_options(parse(COMMANDS[command])) == RunOptions()
    given: dict[str, object] = {
        "strategy": "cpu:2",
        "tpu": "node-1",
        "steps_per_execution": 3,
        "on_nan": "skip",
        "checkpoint_every": 7,
        "log_every": 5,
        "deterministic": True,
    }
    if command == "train":
        given["dev_every"] = 11
    flags = [
        part
        for name, value in given.items()
        for part in ("--" + name.replace("_", "-"), *([] if value is True else [value]))
    ]
    options = run_options(parse([*COMMANDS[command], *map(str, flags)]))
    assert options == RunOptions(**given)  # type: ignore[arg-type]


def test_flags_of_several_values_name_one() -> None:
    for kind in (Recipe, PretrainingRecipe, DistillationRecipe):
        for field in dataclasses.fields(kind):
            parse, metavar = field.metadata["parse"], field.metadata["metavar"]
            assert (parse is None) == (metavar is None), field.name


def test_pretraining_measures_nothing() -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args([*COMMANDS["pretrain"], "--dev-every", "3"])
