"""The memory plan against models, files and errors; its sums against their parts."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from helpers.command_line import fails
from helpers.command_line import run as run_command
from helpers.errors import raises
from helpers.runs import RECIPE, TOKENS, train, write_text
from labse_tf import cpu_kernels, presets, training
from labse_tf.adapters import FILE, LoRA
from labse_tf.cli import build_parser
from labse_tf.cli.memory import parse_device
from labse_tf.cli.runs import given
from labse_tf.encoders import read_sizes
from labse_tf.layers import MaskedLMHead
from labse_tf.models import DualEncoder
from labse_tf.models.masked_lm import MaskedLM
from labse_tf.recipes import PretrainingRecipe, Recipe, get_recipe
from labse_tf.training import Run, RunOptions, machine, memory
from labse_tf.training.from_recipe import make_backbone, make_optimizer
from labse_tf.training.memory import (
    MOMENTS,
    combined_savings,
    explaining_out_of_memory,
    plan_memory,
    savings,
)

LABSE = presets.FAMILY["labse"].backbone


def labse(**changes: object) -> Recipe:
    return get_recipe("paper_v1", **{"batch_size": 256, **changes})


def held(plan: memory.MemoryPlan, name: str, moment: str) -> int:
    """The bytes of an item; 0 if the plan does not have it."""
    return sum(i.held.get(moment, 0) for i in plan.items if i.name == name)


def numbers(variables: list) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


# === Against models and files ===


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler", "weighted_mean"])
@pytest.mark.parametrize("frozen", [(), ("table",), ("table", "blocks:1")])
def test_weights_and_moments_are_those_of_the_model(tmp_path, pooling, frozen) -> None:
    recipe = dataclasses.replace(RECIPE, num_layers=2, pooling=pooling, freeze=frozen)
    _, vocabulary = write_text(tmp_path)
    encoder = training.untrained_encoder(recipe, vocabulary)
    dual = training.compile_dual_encoder(encoder, recipe)
    plan = plan_memory(recipe, len(TOKENS))
    assert held(plan, "weights", "update") == 4 * numbers(encoder.weights)
    trained = numbers(dual.trainable_weights)
    assert held(plan, "optimizer moments", "update") == 8 * trained
    assert held(plan, "gradients", "update") <= 4 * trained


@pytest.mark.parametrize("pooling", ["mean", "pooler", "weighted_mean"])
@pytest.mark.parametrize("frozen", [(), ("table",), ("table", "blocks:1")])
def test_weights_and_moments_with_lora(tmp_path, pooling, frozen) -> None:
    recipe = dataclasses.replace(
        RECIPE, num_layers=2, pooling=pooling, freeze=frozen, lora=3
    )
    _, vocabulary = write_text(tmp_path)
    encoder = training.untrained_encoder(recipe, vocabulary)
    without = numbers(encoder.weights)
    dual = training.compile_dual_encoder(encoder, recipe)
    trained = numbers(dual.trainable_variables)
    assert numbers(encoder.weights) == without + trained
    for optimizer in ("adamw", "lazy_adamw"):
        changed = dataclasses.replace(recipe, optimizer=optimizer)
        plan = plan_memory(changed, len(TOKENS))
        assert held(plan, "weights", "update") == 4 * (without + trained)
        assert held(plan, "optimizer moments", "update") == 8 * trained
        assert held(plan, "gradients", "update") == 4 * trained
    # The moments of the optimizer, without its step and its learning rate.
    moments = [v for v in dual.optimizer.variables if len(v.shape)]
    assert 4 * numbers(moments) == held(plan, "optimizer moments", "update")


def test_weights_and_moments_of_pretraining() -> None:
    recipe = PretrainingRecipe(
        num_layers=2, num_heads=2, hidden_dim=16, intermediate_dim=32, stages=()
    )
    model = MaskedLM(make_backbone(recipe, 50))
    optimizer = make_optimizer(recipe)
    optimizer.build(model.trainable_variables)
    plan = plan_memory(recipe, 50)
    assert held(plan, "weights", "update") == 4 * numbers(model.weights)
    trained = numbers(model.trainable_variables)
    assert held(plan, "optimizer moments", "update") == 8 * trained
    # All gradients are dense, also that of the table.
    assert held(plan, "gradients", "update") == 4 * trained


def test_disk_space_is_that_of_the_files(tmp_path, corpus, text, monkeypatch) -> None:
    sizes = []
    save = Run.save

    def note(self: Run, model: DualEncoder, step: int) -> None:
        save(self, model, step)
        sizes.append(max(p.stat().st_size for p in self.checkpoints.glob("*.npz")))

    monkeypatch.setattr(Run, "save", note)
    wide = {"hidden_dim": 128, "intermediate_dim": 512}
    train(corpus, tmp_path / "run", text[1], train_steps=4, **wide)
    plan = plan_memory(dataclasses.replace(RECIPE, **wide), len(TOKENS))
    checkpoints, preset = plan.disk.values()
    assert checkpoints == pytest.approx(3 * sizes[-1], rel=0.02)
    written = (tmp_path / "run" / presets.WEIGHTS).stat().st_size
    assert preset == pytest.approx(written, rel=0.1)


def test_disk_space_with_lora_is_that_of_the_files(
    tmp_path, corpus, text, monkeypatch
) -> None:
    sizes: dict[str, list[int]] = {"checkpoints": [], "best": []}
    save = Run.save

    def note(self: Run, model: DualEncoder, step: int) -> None:
        save(self, model, step)
        for name, found in sizes.items():
            folder = self.directory / name
            found.append(max(p.stat().st_size for p in folder.iterdir()))

    monkeypatch.setattr(Run, "save", note)
    recipe = dataclasses.replace(
        RECIPE, hidden_dim=128, intermediate_dim=512, lora=32, train_steps=4
    )
    encoder = training.untrained_encoder(recipe, text[1])
    encoder.save_to_preset(tmp_path / "start")
    for kept in (False, True):
        training.train_dual_encoder(
            recipe, corpus, tmp_path / f"run {kept}", model=tmp_path / "start",
            dev=corpus, options=RunOptions(keep_adapters=kept, progress=False),
        )  # fmt: skip
        plan = plan_memory(recipe, len(TOKENS), measured=True, keep_adapters=kept)
        checkpoints, best, preset = plan.disk.values()
        assert checkpoints == pytest.approx(3 * sizes["checkpoints"][-1], rel=0.05)
        assert best == pytest.approx(3 * sizes["best"][-1], rel=0.05)
        file = tmp_path / f"run {kept}" / (FILE if kept else presets.WEIGHTS)
        assert preset == pytest.approx(file.stat().st_size, rel=0.1)


def test_constants_are_those_of_the_code() -> None:
    assert memory._NARROWEST == cpu_kernels.NARROWEST
    assert MaskedLMHead(50, 4).chunk_size == memory._MASKED_CHUNK
    assert set(memory._STORAGE_BYTES) == set(presets.STORAGES)


def test_sizes_without_weights() -> None:
    config = presets.read_config(presets.find("labse-nano"))
    assert read_sizes("labse-nano") == {
        **config["backbone"],
        "pooling": config["pooling"],
        "storage": config["storage"],
    }
    assert read_sizes("LaBSE") == {**LABSE, "pooling": "pooler"}
    with raises(ValueError, received="no-such-model"):
        read_sizes("no-such-model")


def test_the_facts_of_labse() -> None:
    """Weights, moments, gradients and temporaries before activations, in GB."""
    size = LABSE["vocabulary_size"]
    for changes, known in (
        ({}, 10.6),
        ({"optimizer": "lazy_adamw"}, 6.0),
        ({"freeze": ("table",)}, 2.9),
    ):
        plan = plan_memory(labse(chunk_size=32, **changes), size)
        found = sum(
            held(plan, name, moment)
            for name, moment in (
                ("weights", "update"),
                ("optimizer moments", "update"),
                ("gradients", "update" if not changes else "backward"),
                ("copies in the optimizer", "update" if not changes else "loss"),
            )
        )
        assert found / 1e9 == pytest.approx(known, rel=0.1), changes
    whole = plan_memory(labse(), size)
    chunks = plan_memory(labse(chunk_size=32), size)
    assert held(whole, "activations", "backward") / 1e9 == pytest.approx(23.6, rel=0.1)
    assert held(chunks, "activations", "backward") / 1e9 == pytest.approx(2.9, rel=0.1)


# === Sums and directions ===


def test_totals_are_sums_and_the_peak_is_their_maximum() -> None:
    plan = plan_memory(labse(chunk_size=32), 1000, text_bytes=7)
    assert plan.moments == MOMENTS
    for moment in MOMENTS:
        assert plan.total(moment) == sum(i.held.get(moment, 0) for i in plan.items)
    assert plan.peak == max(map(plan.total, MOMENTS)) == plan.total(plan.peak_moment)
    sizes = [
        i.held.get(plan.peak_moment, 0)
        for i in plan.items
        if i.name != memory.LIBRARIES
    ]
    assert plan.largest.held[plan.peak_moment] == max(sizes)
    assert held(plan, "text", "end") == 7
    assert plan_memory(labse(), 1000).moments == MOMENTS[1:]


def test_what_grows_and_what_does_not() -> None:
    def activations(**changes: object) -> int:
        plan = plan_memory(labse(**changes), 1000)
        return held(plan, "activations", "backward")

    assert activations(chunk_size=64) == 2 * activations(chunk_size=32)
    assert activations(chunk_size=256) == activations(chunk_size=999) == activations()
    # Attention scores grow with the square of the length.
    assert activations(sequence_length=128) > 2 * activations(sequence_length=64)
    assert 0.45 < activations(dtype="bfloat16") / activations() < 0.65
    assert activations(freeze=("blocks:6",)) < activations()
    # Without the kernels of the CPU, more tensors are kept.
    plain = plan_memory(labse(), 1000, deterministic=True)
    assert held(plain, "activations", "backward") > 1.2 * activations()


def test_lora_saves_moments_and_the_activations_of_frozen_blocks() -> None:
    def total(name: str, moment: str, **changes: object) -> int:
        return held(plan_memory(labse(**changes), 1000), name, moment)

    everything, low_rank, upper = (
        total("activations", "backward", **changes)
        for changes in ({}, {"lora": 8}, {"lora": 8, "freeze": ("blocks:6",)})
    )
    assert low_rank == pytest.approx(everything, rel=0.05)
    assert upper == pytest.approx(low_rank / 2, rel=0.05)
    known = LoRA(8).count_parameters(LABSE)
    assert total("optimizer moments", "update", lora=8) == 8 * known
    # In mixed precision the frozen kernels of blocks with a backward pass count too.
    half = {"dtype": "bfloat16", "lora": 8, "freeze": ("blocks:11",)}
    small, large = (
        total("activations", "backward", **half, batch_size=size) for size in (256, 512)
    )
    block = presets.count_parameters(LABSE) - presets.count_parameters(
        {**LABSE, "num_layers": 11}
    )
    low = LoRA(8, first_block=11).count_parameters(LABSE)
    pooler = 768 * 769
    assert 2 * small - large == 2 * (block + low + pooler)


@pytest.mark.parametrize("length", [16, 64, 256])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_gpu_holds_what_a_cpu_without_kernels_holds(length, dropout) -> None:
    recipe = labse(sequence_length=length, dropout=dropout)
    plain = plan_memory(recipe, 1000, deterministic=True)
    gpu = plan_memory(recipe, 1000, device="gpu")
    for name in ("activations", "gradients", "weights", "copies in the optimizer"):
        for moment in ("backward", "update"):
            assert held(gpu, name, moment) == held(plain, name, moment)


def test_replicas_share_the_batch() -> None:
    recipe = labse()
    half = plan_memory(dataclasses.replace(recipe, batch_size=128), 1000, device="gpu")
    two = plan_memory(recipe, 1000, device="gpu", replicas=2)
    assert held(two, "activations", "backward") == held(half, "activations", "backward")
    assert held(two, "weights", "backward") == held(half, "weights", "backward")
    # On a CPU, all replicas are in the main memory.
    one, both = plan_memory(recipe, 1000), plan_memory(recipe, 1000, replicas=2)
    assert held(both, "activations", "backward") == held(one, "activations", "backward")
    assert held(both, "weights", "update") == 2 * held(one, "weights", "update")


def test_blocks_of_the_loss_and_nested_sizes() -> None:
    def loss(**changes: object) -> int:
        plan = plan_memory(labse(chunk_size=32, **changes), 1000)
        return held(plan, "vectors and loss", "loss")

    big = {"batch_size": 8192}
    plain = get_recipe("paper_v1", **big)
    blocks = dataclasses.replace(plain, loss_block_size=256)
    sizes = [
        held(plan_memory(r, 1000), "vectors and loss", "backward")
        for r in (plain, blocks)
    ]
    assert sizes[0] > 10 * sizes[1]
    assert loss(dims=(64, 128)) > loss(dims=(64,)) > loss()


@pytest.mark.parametrize(
    ("argument", "value"), [("device", "tpu"), ("storage", "float64")]
)
def test_arguments_that_are_not_allowed(argument, value) -> None:
    with raises(ValueError, argument=argument, received=value):
        plan_memory(labse(), 1000, **{argument: value})


# === What helps ===

PLANNERS = {
    "cpu": functools.partial(plan_memory, vocabulary_size=501_153),
    "gpu": functools.partial(plan_memory, vocabulary_size=501_153, device="gpu"),
}


@pytest.mark.parametrize("device", PLANNERS)
def test_savings_are_flags_of_the_command(device) -> None:
    recipe, planner = labse(), PLANNERS[device]
    found = savings(recipe, planner)
    assert [s.saved for s in found] == sorted((s.saved for s in found), reverse=True)
    flags = {s.flag.partition(" ")[0] for s in found}
    assert {"--chunk-size", "--dtype", "--batch-size", "--sequence-length"} <= flags
    for saving in found:
        assert saving.plan.peak + saving.saved == planner(recipe).peak
        words = ["train", "--vocab", "v", "--recipe", "paper_v1", "--batch-size", "256"]
        options = build_parser().parse_args([*words, *saving.flag.split()])
        assert get_recipe("paper_v1", **given(options, Recipe)) == saving.recipe


def test_each_flag_of_the_issue_can_be_the_best() -> None:
    planner = PLANNERS["cpu"]
    best = savings(labse(), planner)[0].flag
    assert best == "--chunk-size 32"
    # The table dominates if the chunks are small.
    flags = {s.flag for s in savings(labse(chunk_size=8), planner)[:2]}
    assert flags == {"--lora 8", "--freeze table"}
    flags = {s.flag for s in savings(labse(chunk_size=8), planner, new=True)[:2]}
    assert flags == {"--freeze table", "--optimizer lazy_adamw"}


@pytest.mark.parametrize("lora", [None, 4])
@pytest.mark.parametrize("new", [True, False])
def test_lora_is_a_flag_of_models_with_weights(lora, new) -> None:
    found = savings(labse(lora=lora), PLANNERS["cpu"], new=new)
    flags = {s.flag for s in found}
    assert ("--lora 8" in flags) == (lora is None and not new)
    # With LoRA the table has neither gradients nor moments to save.
    others = {"--freeze table", "--optimizer lazy_adamw"}
    assert bool(flags & others) == (lora is None)
    together = combined_savings(
        labse(lora=lora), PLANNERS["cpu"], 8_000_000_000, new=new
    )
    assert together is not None
    assert ("--lora 8" in {s.flag for s in together}) == (lora is None and not new)


def test_flags_together() -> None:
    recipe, planner = labse(), PLANNERS["cpu"]
    whole = planner(recipe).peak
    assert combined_savings(recipe, planner, whole) == []
    assert combined_savings(recipe, planner, 1_000_000) is None
    found = combined_savings(recipe, planner, 8_000_000_000)
    assert len(found) > 1 and found[-1].plan.peak <= 8_000_000_000
    names = [saving.flag.partition(" ")[0] for saving in found]
    assert len(set(names)) == len(names)
    # The last recipe has all changes.
    options = build_parser().parse_args(
        ["train", "--vocab", "v", *" ".join(s.flag for s in found).split()]
    )
    for name, value in given(options, Recipe).items():
        assert getattr(found[-1].recipe, name) == value


def test_no_flag_that_the_recipe_does_not_allow() -> None:
    grown = get_recipe("small", stages=((1, 10),), batch_size=8)
    names = {
        s.flag.partition(" ")[0]
        for s in savings(grown, functools.partial(plan_memory, vocabulary_size=10**6))
    }
    assert "--freeze" not in names and "--chunk-size" not in names
    recipe = PretrainingRecipe()
    names = {
        s.flag.partition(" ")[0]
        for s in savings(recipe, functools.partial(plan_memory, vocabulary_size=1000))
    }
    assert names <= {"--dtype", "--sequence-length", "--batch-size"}


# === Errors of full memory ===

OUT_OF_MEMORY = {
    "TensorFlow": tf.errors.ResourceExhaustedError(
        None, None, "OOM when allocating tensor\nwith shape[9]"
    ),
    "Python": MemoryError(),
    "JAX": RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"),
}


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_errors_of_full_memory_name_the_flag(kind) -> None:
    recipe, planner = labse(), PLANNERS["cpu"]
    with pytest.raises(MemoryError) as caught:
        with explaining_out_of_memory(recipe, planner):
            raise OUT_OF_MEMORY[kind]
    message = str(caught.value)
    assert "\n" not in message and "--chunk-size 32" in message
    assert "activations" in message
    assert caught.value.__cause__ is OUT_OF_MEMORY[kind]


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.ResourceExhaustedError(None, None, "events; No space left on device"),
        ValueError("x"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_stay_as_they_are(error) -> None:
    with pytest.raises(type(error)) as caught:
        with explaining_out_of_memory(labse(), PLANNERS["cpu"]):
            raise error
    assert caught.value is error


def test_a_step_without_memory_ends_the_command(
    tmp_path, text, capsys, monkeypatch
) -> None:
    def step(self: DualEncoder, *arguments: object) -> None:
        raise OUT_OF_MEMORY["TensorFlow"]

    monkeypatch.setattr(DualEncoder, "train_step", step)
    output = tmp_path / "run"
    command = ["train", text[0], "--vocab", text[1], "--output", output]
    capsys.readouterr()
    assert run_command(*command, "--batch-size", 128, "--train-steps", 2) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("labse-tf: ") and "Received: " in line
    assert "--chunk-size 32" in line and "OOM" in line
    assert not presets.is_preset(output)


# === The command ===


def test_the_command_prints_the_plan_and_trains_nothing(tmp_path, capsys) -> None:
    output, report = tmp_path / "run", tmp_path / "plan.json"
    command = ["train", "--model", "labse", "--output", output, "--json", report]
    flags = "--batch-size 256 --chunk-size 32 --plan-for gpu:16".split()
    assert run_command(*command, *flags) == 0
    assert not output.exists()
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("activations", "--freeze table", "16.0 GB"))
    result = json.loads(report.read_text())
    shape = {name: value for name, value in LABSE.items() if name in vars(labse())}
    recipe = get_recipe(
        "small", **shape, pooling="pooler", batch_size=256, chunk_size=32
    )
    plan = plan_memory(recipe, LABSE["vocabulary_size"], device="gpu")
    assert result["peak"] == plan.peak == result["moments"][result["peak_moment"]]
    assert result["items"] == {item.name: dict(item.held) for item in plan.items}
    assert result["fits"] is (plan.peak <= 16e9)
    assert result["memory"]["total"] == 16_000_000_000


def test_a_run_that_does_not_fit_names_the_flags(tmp_path, capsys) -> None:
    command = ["train", "--model", "labse", "--batch-size", 256]
    assert run_command(*command, "--plan-for", "gpu:8") == 0
    printed = capsys.readouterr().out
    assert "does not fit" in printed
    last = printed[printed.index("fits with") :]
    assert "--chunk-size" in last and "--lora 8" in last
    assert "--batch-size" not in last and "--sequence-length" not in last
    # The largest saving comes first.
    assert printed.index("│ --chunk-size 32") < printed.index("│ --batch-size")
    assert run_command(*command, "--plan-for", "gpu:0.1") == 0
    assert "not sufficient" in capsys.readouterr().out


def test_the_plan_of_new_models_and_of_their_text(tmp_path, text, capsys) -> None:
    report = tmp_path / "plan.json"
    command = ["train", text[0], "--vocab", text[1], "--json", report]
    assert run_command(*command, "--plan") == 0
    plan = json.loads(report.read_text())
    assert plan["items"]["text"]["backward"] == text[0].stat().st_size
    assert plan["memory"] == machine.main_memory()._asdict() | plan["memory"]
    assert plan["fits"]
    capsys.readouterr()
    assert run_command("pretrain", "--vocab", text[1], "--plan") == 0
    assert "optimizer moments" in capsys.readouterr().out


def test_the_plan_of_a_student(tmp_path, text, capsys) -> None:
    report = tmp_path / "plan.json"
    command = ["distill", text[0], "--teacher", "labse", "--plan", "--json", report]
    flags = ["--num-layers", 3, "--vocab-size", 1000, "--batch-size", 64]
    assert run_command(*command, *flags) == 0
    plan = json.loads(report.read_text())
    teacher = presets.count_parameters(LABSE)
    assert plan["items"]["teacher"]["update"] == 4 * teacher
    student = presets.count_parameters(
        {**LABSE, "num_layers": 3, "vocabulary_size": 1000}
    )
    assert plan["items"]["weights"]["update"] == 4 * student
    assert "preset in int8" in plan["disk"]
    both = plan["items"]["activations"]["backward"]
    assert run_command(*command, *flags, "--source-share", 0.5) == 0
    assert (
        2 * json.loads(report.read_text())["items"]["activations"]["backward"] == both
    )
    # The student is the model, the teacher is a folder of vectors.
    (tmp_path / "vectors.json").write_text("{}")
    command = ["distill", "--teacher", tmp_path, "--plan"]
    assert "--teacher" in fails(capsys, *command)
    assert run_command(*command, "--model", "labse-nano") == 0
    assert "teacher" not in capsys.readouterr().out


def test_the_plan_of_a_student_that_learns_states(tmp_path) -> None:
    report = tmp_path / "plan.json"

    def planned(*flags: object) -> dict:
        command = ["distill", "--teacher", "labse", "--plan", "--json", report]
        assert run_command(*command, "--batch-size", 64, *flags) == 0
        return json.loads(report.read_text())["items"]

    name = "states of the teacher"
    assert name not in planned("--num-layers", 3)
    few, more, large = (
        planned("--states-weight", 1, *flags)[name]["backward"]
        for flags in (
            ("--num-layers", 3),
            ("--num-layers", 4),
            ("--num-layers", 3, "--batch-size", 128),
        )
    )
    assert more - few == 4 * 768 * (2 * 64 * 64)
    assert large == 2 * few


def test_the_plan_of_a_guide_and_of_lora(tmp_path) -> None:
    report = tmp_path / "plan.json"

    def planned(*flags: object) -> dict:
        command = ["train", "--model", "labse", "--plan", "--json", report]
        assert run_command(*command, "--batch-size", 64, *flags) == 0
        return json.loads(report.read_text())

    plain, guided = planned(), planned("--guide", "labse-mini")
    losses = [p["items"]["vectors and loss"]["backward"] for p in (plain, guided)]
    # Two matrices of cosines, and their masks.
    assert losses[1] - losses[0] == 4 * 2.5 * 64 * 64
    kept = planned("--lora", 8, "--keep-adapters")
    known = LoRA(8).count_parameters(LABSE)
    assert kept["items"]["optimizer moments"]["update"] == 8 * known
    assert 4 * known in kept["disk"].values()


def test_a_training_requires_text_and_an_output(tmp_path, text, capsys) -> None:
    vocabulary = ["--vocab", text[1]]
    assert "--output" in fails(capsys, "train", text[0], *vocabulary)
    assert "FILE" in fails(capsys, "train", *vocabulary, "--output", tmp_path / "run")
    flags = ["--plan", "--strategy", "multi_worker"]
    assert "--strategy" in fails(capsys, "train", *vocabulary, *flags)
    flags = ["--plan", "--model", "labse", "--num-layers", 3]
    assert "--num-layers" in fails(capsys, "train", *flags)


@pytest.mark.parametrize("device", ["tpu", "gpu:", "gpu:0", "cpu:-1", "gpu:x", "16"])
def test_devices_that_are_not_known(device) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"Received: {device}"):
        parse_device(device)


def test_devices() -> None:
    assert parse_device("cpu") == ("cpu", None)
    assert parse_device("gpu:15.5") == ("gpu", 15_500_000_000)


# === The machine ===


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    """The root of a machine with 8 GB, 5 of them free."""
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    (tmp_path / "proc" / "self").mkdir(parents=True)
    meminfo = "MemTotal: 8000000 kB\nMemFree: 1 kB\nMemAvailable: 5000000 kB\n"
    (tmp_path / "proc" / "meminfo").write_text(meminfo)
    return tmp_path


def write(folder: Path, **texts: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def test_main_memory_without_a_container(files) -> None:
    assert machine.main_memory()[1:] == (8_000_000 * 1024, 5_000_000 * 1024)
    (files / "proc" / "meminfo").unlink()
    assert machine.main_memory() is None


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("place", ["", "outer/inner"])
def test_main_memory_of_a_container(files, version, place) -> None:
    line = f"0::/{place}" if version == 2 else f"4:cpu,memory:/{place}\n0::/"
    (files / "proc" / "self" / "cgroup").write_text(line + "\n")
    base = files / "sys" / "fs" / "cgroup" / ("memory" if version == 1 else "")
    names = {
        1: ("memory__limit_in_bytes", "memory__usage_in_bytes"),
        2: ("memory__max", "memory__current"),
    }[version]
    unlimited = {1: str(2**63 - 4096), 2: "max"}[version]
    write(base / place, **dict.fromkeys(names, unlimited))
    assert machine.main_memory().total == 8_000_000 * 1024
    # The limit is that of the outer group; 100 of the 300 MB are pages of files.
    stat = {"memory__stat": "anon 200000000\ninactive_file 100000000"}
    outer = base / Path(place).parent if place else base
    write(outer, **dict(zip(names, ("1000000000", "300000000"), strict=True)), **stat)
    assert machine.main_memory()[1:] == (1_000_000_000, 800_000_000)


def test_gpus_that_tensorflow_sees(tmp_path, monkeypatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '15360, 15000, Tesla T4'\necho '80000, 9, H100'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.gpu_memory() == []  # TensorFlow sees none here.
    devices = ["one", "two"]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: devices)
    assert [gpu.name for gpu in machine.gpu_memory()] == ["Tesla T4", "H100"]
    assert machine.gpu_memory()[0][1:] == (15360 << 20, 15000 << 20)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [gpu.name for gpu in machine.gpu_memory()] == ["H100"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert machine.gpu_memory() == []
    tool.write_text("#!/bin/sh\nexit 9\n")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert machine.gpu_memory() == []


def test_every_moment_is_documented() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for flag in ("--plan", "--plan-for gpu:16", "labse-tf[gpu]"):
        assert flag in readme
    pairs = itertools.pairwise(MOMENTS)
    assert all(readme.index(f"`{a}`") < readme.index(f"`{b}`") for a, b in pairs)


def test_copied_constants_are_those_of_the_layers() -> None:
    """The plan does not import Keras, so it has copies of them."""
    from labse_tf import cpu_kernels
    from labse_tf.layers import MaskedLMHead
    from labse_tf.training import memory

    assert memory._NARROWEST == cpu_kernels.NARROWEST
    assert memory._MASKED_CHUNK == MaskedLMHead(7, 4).chunk_size
