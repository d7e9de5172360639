"""Streams: `-`, pipes, FIFOs, devices and links as inputs and outputs of commands."""

from __future__ import annotations

import dataclasses
import importlib
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers.command_line import fails, run
from helpers.errors import check_message, raises
from helpers.models import make_model
from helpers.paths import ROOT
from helpers.runs import RECIPE, write_text
from labse_tf import files, pipes, presets
from labse_tf.models import LaBSE
from labse_tf.text import read_lines

LINES = ["sun moon", "star", "sky day night"]


@pytest.fixture(scope="module")
def preset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pipes") / "preset"
    make_model().save_to_preset(folder)
    return folder


@pytest.fixture
def piped() -> Iterator[Callable[[str | bytes], str]]:
    """Makes a path such as a shell's `<(...)`: a pipe with a text, readable once."""
    ends = []

    def path(text: str | bytes) -> str:
        read, write = os.pipe()
        ends.append(read)
        os.write(write, text.encode() if isinstance(text, str) else text)
        os.close(write)
        return f"/dev/fd/{read}"

    yield path
    for end in ends:
        os.close(end)


@pytest.fixture
def stdin() -> Iterator[Callable[[str], str]]:
    """Makes a text the standard input of this process and returns `-`."""
    kept = os.dup(0)

    def give(text: str) -> str:
        read, write = os.pipe()
        os.write(write, text.encode())
        os.close(write)
        os.dup2(read, 0)
        os.close(read)
        return "-"

    yield give
    os.dup2(kept, 0)
    os.close(kept)


def command(
    *arguments: object, env: dict[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[bytes]:
    """Runs a command in a new process."""
    return subprocess.run(
        [sys.executable, "-m", "labse_tf", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        input=stdin.encode(),
        capture_output=True,
        timeout=300,
    )


# === Outputs ===


def test_a_link_is_followed(tmp_path) -> None:
    real, link = tmp_path / "real" / "a.json", tmp_path / "link.json"
    link.symlink_to("real/a.json")
    for text in ("new", "again"):
        files.write_text(link, text)
        assert link.is_symlink()
        assert real.read_text() == text
    assert [path.name for path in real.parent.iterdir()] == ["a.json"]

    folder, link = tmp_path / "real", tmp_path / "folder"
    link.symlink_to("real")
    with files.atomic_directory(link, overwrite=True) as new:
        (new / "b").touch()
    assert link.is_symlink()
    assert os.listdir(folder) == ["b"]


def test_what_is_not_a_file_is_written_not_replaced(tmp_path, capfdbinary) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    found = []
    reader = threading.Thread(target=lambda: found.append(fifo.read_text()))
    reader.start()
    files.write_text(fifo, "through\n")
    reader.join()
    assert found == ["through\n"]
    assert fifo.is_fifo()

    for path in ("/dev/stdout", "-", "/dev/fd/1"):
        assert pipes.is_stdout(path)
        files.write_text(path, path)
    assert os.path.islink("/dev/stdout")
    assert capfdbinary.readouterr().out == b"/dev/stdout-/dev/fd/1"
    files.write_text("/dev/stderr", "error")
    assert capfdbinary.readouterr().err == b"error"
    assert os.listdir(tmp_path) == ["fifo"]


def test_an_open_file_is_written_at_its_position(tmp_path) -> None:
    with (tmp_path / "log").open("w") as log:
        log.write("before\n")
        log.flush()
        files.write_text(f"/dev/fd/{log.fileno()}", "inside\n")
        log.write("after\n")
    assert (tmp_path / "log").read_text() == "before\ninside\nafter\n"


def test_a_directory_as_a_file_and_a_stream_as_a_directory(tmp_path) -> None:
    with raises(IsADirectoryError, path=tmp_path), files.atomic_file(tmp_path):
        pass
    for path in ("-", "/dev/null"):
        with raises(ValueError, path=path, received=True):
            make_model().save_to_preset(path)
        with raises(ValueError, path=path, received=True):
            files.check_vacant(path, "`output`")
        with pytest.raises(SystemExit):
            run("clean", "en-hi.tsv", "--output", path)
    assert os.listdir(tmp_path) == []


def test_standard_output_has_only_the_output(
    tmp_path, monkeypatch, capsysbinary, preset
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("\n".join(LINES))
    Path("en-hi.tsv").write_text("one\ttwo\nthree\tfour\n")
    assert run("search", "one", "a.txt", "--model", preset, "--json", "-") == 0
    output = capsysbinary.readouterr()
    assert len(json.loads(output.out)["lines"]) == 3
    assert b"a.txt:1" in output.err
    assert run("embed", "a.txt", "--model", preset, "-o", "-") == 0
    vectors = np.load(io.BytesIO(capsysbinary.readouterr().out))
    model = LaBSE.from_preset(preset)
    np.testing.assert_allclose(vectors, model.encode(LINES), atol=1e-6)
    files_of_pairs = ("en-hi.tsv", "--model", preset, "--threshold", -1, "-o", "-")
    assert run("filter", *files_of_pairs) == 0
    assert capsysbinary.readouterr().out == b"one\ttwo\nthree\tfour\n"
    assert run("mine", "a.txt", "a.txt", "--model", preset, "-o", "-") == 0
    assert len(capsysbinary.readouterr().out.splitlines()) == 3
    assert run("vocab", "en-hi.tsv", "--size", 120, "-o", "/dev/stdout") == 0
    assert b"[PAD]\n" in capsysbinary.readouterr().out
    assert sorted(os.listdir()) == ["a.txt", "en-hi.tsv"]


# === Inputs ===


def test_a_pipe_is_read_as_often_as_needed(piped) -> None:
    path = piped("a\nb\n")
    for _ in range(2):
        assert [line for _, line in read_lines(path)] == ["a", "b"]
    copy = pipes.spooled(path)
    assert copy == pipes.spooled(path)
    pipes.forget_spooled()
    assert not copy.exists()


def test_commands_read_pipes(tmp_path, capsys, preset, piped) -> None:
    text, output = "\n".join(LINES), tmp_path / "a.npy"
    model = ("--model", preset)
    assert run("embed", piped(text), *model, "-o", output) == 0
    expected = LaBSE.from_preset(preset).encode(LINES)
    np.testing.assert_allclose(np.load(output), expected, atol=1e-6)
    capsys.readouterr()
    assert run("search", "three", piped(text), *model) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert run("mine", piped(text), piped(text), *model, "-o", tmp_path / "m.tsv") == 0
    assert len((tmp_path / "m.tsv").read_text().splitlines()) == 3
    pairs = "one\ttwo\nthree\tfour\n"
    flags = (*model, "--threshold", -1, "-o", tmp_path / "kept.tsv")
    assert run("filter", piped(pairs), *flags) == 0
    assert (tmp_path / "kept.tsv").read_text() == pairs
    vocabulary = tmp_path / "vocab.txt"
    assert run("vocab", f"hi={piped(pairs)}", "--size", 120, "-o", vocabulary) == 0
    assert "\nt\n" in vocabulary.read_text()
    long = "".join(f"sentence number {n}\tवाक्य संख्या क {n}\n" for n in "abcd")
    flags = ("--without", "near_duplicate", "--output", tmp_path / "clean")
    assert run("clean", f"hi={piped(long)}", *flags) == 0
    assert (tmp_path / "clean" / "en-hi.tsv.gz").exists()


# Each input as `XX={name}` or `{name}`; names of files of `readable`.
READING = {
    "evaluate retrieval": ("es={pairs}", "--pool", "en={text}", "es={other}"),
    "evaluate xsim": ("{pairs}", "--language", "es"),
    "balance": ("es={pairs}",),
    "clean": ("es={pairs}", "--held-out", "set={text}"),
    "prepare": ("es={pairs}", "--vocab", "{vocabulary}"),
    "vocab": ("es={pairs}", "--size", 130),
    "vocab --from-counts": ("{counts}", "--size", 130),
    "trim": ("--corpus", "es={pairs}", "--held-out", "es={text}"),
    "pretrain": (
        *("--mono", "es={text}", "--pairs", "es={pairs}", "--vocab", "{vocabulary}"),
        *("--num-layers", 1, "--num-heads", 2, "--hidden-dim", 16, "--stages"),
        *("--intermediate-dim", 32, "--sequence-length", 16, "--batch-size", 8),
        *("--train-steps", 2, "--warmup-steps", 1),
    ),
    "train": (
        *("es={pairs}", "--vocab", "{vocabulary}", "--dev", "es={pairs}"),
        *("--config", "{config}"),
    ),
}


@pytest.fixture(scope="module")
def readable(tmp_path_factory) -> dict[str, Path]:
    """Small files by their names in `READING`."""
    folder = tmp_path_factory.mktemp("readable")
    pairs, vocabulary = write_text(folder)
    recipe = dataclasses.asdict(dataclasses.replace(RECIPE, train_steps=3))
    contents = {
        "text": "sun moon star night\nday sky sky night moon\n" * 8,
        "other": "sol luna\nnoche\n",
        "counts": "es\tsol\t10\nes\tluna\t20\nen\tsun\t5\n",
        "config": json.dumps({"recipe": recipe}),
    }
    for name, content in contents.items():
        (folder / name).write_text(content)
    found = {name: folder / name for name in contents}
    return found | {"pairs": pairs, "vocabulary": vocabulary}


def results(folder: Path) -> dict[str, object]:
    """The files of a command that depend on its text, by name."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".json":
            content = json.loads(path.read_text())
            content.pop("seconds", None)
            found[path.name] = content
        elif path.suffix in (".gz", ".npz", ".txt", ".tfrecord"):
            found[path.name] = path.read_bytes()
    return found


@pytest.mark.parametrize("name", READING)
def test_commands_do_with_pipes_what_they_do_with_files(
    tmp_path, capsys, preset, piped, readable, name
) -> None:
    """In every command and flag that takes a file of text.

    A finished training run accepts only the same text, vocabulary and recipe again,
    and then does nothing.
    """
    trains = name in ("train", "pretrain")

    def outputs(place: str, path_of: Callable[[Path], object]) -> dict[str, object]:
        folder = tmp_path / ("run" if trains else place)
        folder.mkdir(exist_ok=trains)
        arguments = [
            re.sub(r"{(\w+)}", lambda m: str(path_of(readable[m[1]])), str(part))
            for part in READING[name]
        ]
        if name.startswith("evaluate"):
            arguments += ["--model", preset, "--json", folder / "a.json"]
        elif name == "trim":
            arguments += ["--model", preset, "-o", folder / "out"]
        elif name == "balance":
            arguments += ["--json", folder / "a.json"]
        else:
            arguments += ["-o", folder / ("a.txt" if "vocab" in name else "out")]
        assert run(*name.split(), *arguments) == 0, capsys.readouterr().err
        return results(folder)

    found = outputs("pipes", lambda path: piped(path.read_bytes()))
    assert found
    assert outputs("files", lambda path: path) == found


def test_standard_input_is_read_by_commands_that_train_or_measure(
    tmp_path, preset, readable, stdin
) -> None:
    pairs, vocabulary = readable["pairs"].read_text(), readable["vocabulary"]
    flags = ("--vocab", vocabulary, "-o")
    for place in ("-", "/dev/stdin"):
        stdin(pairs)
        folder = tmp_path / place.replace("/", "_")
        assert run("prepare", f"es={place}", *flags, folder) == 0
        description = json.loads((folder / "dataset.json").read_text())
        assert description["counts"] == {"es": 200}
    stdin(pairs)
    report = tmp_path / "a.json"
    flags = ("--model", preset, "--json", report)
    assert run("evaluate", "retrieval", "es=-", *flags) == 0
    assert json.loads(report.read_text())["languages"].keys() == {"es"}


def test_standard_input_is_a_file_of_text(tmp_path, preset) -> None:
    for path in ("-", "/dev/stdin"):
        output = tmp_path / "a.npy"
        done = command(
            *("embed", path, "--model", preset, "-o", output), stdin="\n".join(LINES)
        )
        assert done.returncode == 0, done.stderr
        assert (np.abs(np.load(output)).sum(axis=1) > 0).tolist() == [True] * 3


@pytest.mark.parametrize("command", ["embed", "filter", "mine", "search"])
@pytest.mark.parametrize("lines", [LINES[:1], [*LINES, "new"]], ids=["less", "more"])
def test_a_file_that_changes_while_it_is_read_is_an_error(
    tmp_path, capsys, monkeypatch, command, lines
) -> None:
    """Rows written are rows read, in every command that reads twice."""
    path, output = tmp_path / "a.tsv", tmp_path / "output.npy"
    path.write_text("".join(f"{line}\t{line}\n" for line in LINES))
    arguments = {
        "embed": ("embed", path, "-o", output),
        "filter": ("filter", path, "--threshold", -1, "-o", output.with_suffix(".tsv")),
        "mine": ("mine", path, path, "-o", output.with_suffix(".tsv")),
        "search": ("search", "one", path),
    }[command]
    if len(lines) > len(LINES) and command in ("mine", "search"):
        pytest.skip("reads only the lines that it knows")

    def change() -> None:
        path.write_text("".join(f"{line}\t{line}\n" for line in lines))

    def encode(texts: list[str]) -> np.ndarray:
        if texts != ["one"]:
            change()
        return np.eye(4, dtype=np.float32)[[len(text) % 4 for text in texts]]

    def open_encoder(options: object) -> Callable[[list[str]], np.ndarray]:
        if command != "search":
            change()
        return encode

    module = importlib.import_module(f"labse_tf.cli.{command}")
    monkeypatch.setattr(module, "open_encoder", open_encoder)
    check_message(fails(capsys, *arguments), received=True)
    assert not output.exists() and not output.with_suffix(".tsv").exists()


# === Surroundings ===


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}, ""),
        ({"TMPDIR": "/no/such/folder", "HOME": "/proc/no-home"}, ""),
        ({"KERAS_BACKEND": "jax"}, "KERAS_BACKEND=jax"),
        ({"KERAS_BACKEND": "torch", "TF_USE_LEGACY_KERAS": "1"}, "KERAS_BACKEND=torch"),
    ],
    ids=["ASCII", "no folders", "jax", "torch"],
)
def test_commands_run_in_any_surroundings(tmp_path, preset, env, said) -> None:
    (tmp_path / "a.txt").write_text("नमस्ते दुनिया\n", encoding="utf-8")
    report = tmp_path / "found.json"
    flags = ("--model", preset, "--json", report)
    done = command("search", "नमस्ते", tmp_path / "a.txt", *flags, env=env)
    assert done.returncode == 0, done.stderr
    assert "नमस्ते दुनिया" in done.stdout.decode()
    assert json.loads(report.read_text(encoding="utf-8"))["query"] == "नमस्ते"
    assert said in done.stderr.decode()
    assert (b"KERAS_BACKEND" in done.stderr) == bool(said)


def test_a_name_that_is_not_utf_8_is_printed_escaped(tmp_path, preset) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt"))
    path.write_text("one\n")
    flags = ("--model", preset, "--json", tmp_path / "found.json")
    done = command("search", "one", path, *flags, env={"PYTHONUTF8": "1"})
    assert done.returncode == 0, done.stderr
    assert b"udcff.txt:1  one" in done.stdout
    json.loads((tmp_path / "found.json").read_text())


# === Presets ===


def test_an_existing_preset_is_exchanged_in_one_step(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "model"
    make_model().save_to_preset(folder)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "a").write_text("a")
    lock = (folder / "run.lock").open("w")
    before = presets.sha256(folder / presets.CONFIG)

    def crash(*arguments: object) -> None:
        raise KeyboardInterrupt

    other = make_model()
    with monkeypatch.context() as context:
        context.setattr(presets, "exchange", crash)
        context.setattr(presets.os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            other.save_to_preset(folder)
    assert presets.sha256(folder / presets.CONFIG) == before
    LaBSE.from_preset(folder)

    for atomic in (True, False):
        if not atomic:  # As on systems without renameat2.
            monkeypatch.setattr(files, "_exchange", lambda one, other: False)
        other.save_to_preset(folder)
        np.testing.assert_array_equal(
            LaBSE.from_preset(folder).encode(["one"]), other.encode(["one"])
        )
        assert (folder / "checkpoints" / "a").read_text() == "a"
        assert os.path.samestat(os.fstat(lock.fileno()), os.stat(folder / "run.lock"))
        assert os.listdir(tmp_path) == ["model"]
    lock.close()

    monkeypatch.chdir(folder)  # A current directory is not exchanged.
    other.save_to_preset(".")
    LaBSE.from_preset(".")
