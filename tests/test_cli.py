"""The command line: what it makes, what it says to bad input, how fast it answers."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.command_line import fails, run
from helpers.errors import check_message, refuses
from helpers.models import make_model, sentences
from labse_tf import cli, presets
from labse_tf.cli import convert, embed
from labse_tf.models import LaBSE
from labse_tf.text import reading


@pytest.fixture(scope="module")
def preset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "preset"
    make_model().save_to_preset(folder)
    return folder


# === What works ===


def test_vocab_train_embed_export_evaluate(tmp_path, capsys) -> None:
    """The way a user goes, on a toy language, through the commands only."""
    words = "one two three four five six seven eight nine ten".split()
    rng = np.random.default_rng(0)
    rows = [" ".join(rng.choice(words, rng.integers(3, 6))) for _ in range(300)]
    pairs = tmp_path / "en-hi.tsv.gz"
    with gzip.open(pairs, "wt", encoding="utf-8") as file:
        file.writelines(f"{row}\t{row.upper()}\n" for row in rows)
    vocabulary, model = tmp_path / "vocab.txt", tmp_path / "model"
    report = tmp_path / "vocab.json"
    assert (
        run("vocab", pairs, "--size", 300, "--output", vocabulary, "--json", report)
        == 0
    )
    assert json.loads(report.read_text())["unk_rate"] == {"en": 0.0, "hi": 0.0}
    flags = "--num-layers 0 --hidden-dim 32 --num-heads 2 --intermediate-dim 8"
    flags += " --pooling mean --batch-size 32 --train-steps 60 --learning-rate 0.02"
    assert (
        run(*f"train {pairs} --vocab {vocabulary} --output {model} {flags}".split())
        == 0
    )
    assert presets.is_preset(model)

    text, vectors = tmp_path / "text.txt", tmp_path / "vectors.npy"
    text.write_text("one two three\n\nnine ten\n", encoding="utf-8")
    assert run("embed", text, "--model", model, "--output", vectors) == 0
    loaded = LaBSE.from_preset(model)
    embedded = np.load(vectors)
    np.testing.assert_allclose(
        embedded, loaded.encode(["one two three", "", "nine ten"]), atol=1e-6
    )

    saved = tmp_path / "serving" / "1"
    assert run("export", "--model", model, "--output", saved) == 0
    again = tmp_path / "again.npy"
    assert run("embed", text, "--model", saved, "--output", again) == 0
    np.testing.assert_allclose(np.load(again), embedded, atol=1e-6)

    folder = tmp_path / "tatoeba"
    folder.mkdir()
    english = sorted(set(rows))[:50]
    (folder / "tatoeba.hin-eng.eng").write_text("\n".join(english) + "\n")
    (folder / "tatoeba.hin-eng.hin").write_text("\n".join(english).upper() + "\n")
    scores, plot = tmp_path / "scores.json", tmp_path / "scores.png"
    capsys.readouterr()
    assert (
        run(
            *("evaluate", "tatoeba", folder, "--model", model),
            *("--json", scores, "--plot", plot),
        )
        == 0
    )
    assert "Hindi" in capsys.readouterr().out
    accuracy = json.loads(scores.read_text())["languages"]["hi"]["accuracy"]
    assert accuracy > 0.5  # 2 % is chance
    assert plot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_saved_models_that_give_no_vectors_are_refused(tmp_path, capsys) -> None:
    import tensorflow as tf

    text, output = tmp_path / "text.txt", tmp_path / "vectors.npy"
    text.write_text("one\n", encoding="utf-8")
    strings = tf.TensorSpec([None], tf.string)

    def refused(function: object, signature: object) -> str:
        module = tf.train.Checkpoint()
        module.__call__ = tf.function(function, input_signature=[signature])
        path = tmp_path / "other"
        tf.saved_model.save(module, str(path))
        said = fails_at_the_end(
            *(capsys, "embed", text, "--model", path, "--output", output)
        )
        assert not output.exists()
        shutil.rmtree(path)
        return said

    said = refused(lambda x: {"input_word_ids": tf.strings.length(x)}, strings)
    check_message(said, argument="default", received="['input_word_ids']")
    check_message(refused(tf.strings.length, strings), "(n, D)", received=True)
    numbers = tf.TensorSpec([None, None], tf.int32)
    said = refused(lambda x: tf.cast(x, tf.float32), numbers)
    check_message(said, path=tmp_path / "other", received=True)


def test_skipped_lines_are_reported(tmp_path, capsys) -> None:
    pairs = tmp_path / "en-hi.tsv"
    pairs.write_text("one\tएक\nno tab here\ntwo\tदो\n", encoding="utf-8")
    target = tmp_path / "vocab.txt"
    arguments = ("vocab", pairs, "--size", 200, "--output", target)
    assert "en-hi.tsv:2: " in fails_at_the_end(capsys, *arguments)
    assert not target.exists()
    assert run(*arguments, "--on-error", "skip") == 0
    said = capsys.readouterr().err
    assert "en-hi.tsv" in said
    assert "2" in said
    assert target.exists()


def test_embedding_a_larger_file_by_blocks(tmp_path, preset, monkeypatch) -> None:
    texts = sentences(300)
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    monkeypatch.setattr(reading, "BLOCK", 128)
    output = tmp_path / "vectors.npy"
    assert run("embed", path, "--model", preset, "--output", output) == 0
    np.testing.assert_allclose(
        np.load(output, mmap_mode="r"),
        LaBSE.from_preset(preset).encode(texts),
        atol=1e-6,
    )


def test_another_compute_type_says_what_it_costs(tmp_path, preset, capsys) -> None:
    path, output = tmp_path / "text.txt", tmp_path / "vectors.npy"
    path.write_text("\n".join(sentences(9)), encoding="utf-8")
    embed = ("embed", path, "--output", output)
    assert run(*embed, "--model", preset, "--dtype", "bfloat16") == 0
    assert re.search(r"bfloat16: .*0\.\d+", capsys.readouterr().err)
    expected = LaBSE.from_preset(preset, dtype="bfloat16").encode(sentences(9))
    np.testing.assert_allclose(np.load(output), expected, atol=1e-6)
    export = ("export", "--model", preset, "--output", tmp_path / "1")
    assert run(*export, "--dtype", "bfloat16") == 0
    check_message(capsys.readouterr().out, "bfloat16")
    assert run(*embed, "--model", tmp_path / "1", "--dtype", "auto") == 2
    check_message(capsys.readouterr().err, argument="dtype")


def test_search_finds_lines_of_several_files(tmp_path, preset, capsys, monkeypatch):
    texts = sentences(30)
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("".join(f"{t}\n\n" for t in texts[:20]), encoding="utf-8")
    second.write_text("\n".join(texts[20:]), encoding="utf-8")
    # Blocks smaller than a file: rows are counted through files and blank lines.
    monkeypatch.setattr(reading, "BLOCK", 7)
    report = tmp_path / "found.json"
    query = texts[25]
    arguments = ("search", query, first, second, "--model", preset)
    assert run(*arguments, "--top", 4, "--json", report) == 0
    lines = capsys.readouterr().out.splitlines()
    vectors = LaBSE.from_preset(preset).encode(texts)
    order = np.argsort(-(vectors @ vectors[25]), kind="stable")[:4]
    places = [(first, 2 * i + 1) if i < 20 else (second, i - 19) for i in order]
    assert lines[0] == f"1.000  {second}:6  {query}"
    assert [line.split("  ")[1] for line in lines] == [f"{f}:{n}" for f, n in places]
    found = json.loads(report.read_text())
    assert found["query"] == query
    assert [line["text"] for line in found["lines"]] == [texts[i] for i in order]
    assert found["lines"][0]["cosine"] == 1.0


def test_embed_and_search_read_pairs_and_every_compression(
    tmp_path, preset, capsys
) -> None:
    texts = ["one two", "three", "four", "five six"]
    tsv, plain = tmp_path / "en-hi.tsv.xz", tmp_path / "hi.txt.bz2"
    tsv.write_bytes(lzma.compress(b"one two\tthree\nfour\tfive six\n"))
    plain.write_bytes(bz2.compress(b"one two\n\nfour\n"))
    output = tmp_path / "vectors.npy"
    expected = LaBSE.from_preset(preset).encode([*texts, ""])
    for path, side, rows in (
        (tsv, "both", [0, 1, 2, 3]),
        (tsv, "source", [0, 2]),
        (f"hi={tsv}", "target", [1, 3]),
        (plain, "target", [0, 4, 2]),  # a text has one side and blank lines
    ):
        options = ("--model", preset, "--output", output, "--side", side)
        assert run("embed", path, *options) == 0
        np.testing.assert_allclose(np.load(output), expected[rows], atol=1e-6)
    memory = tmp_path / "memory.tmx"
    memory.write_text(
        '<tmx><body>\n<tu><tuv xml:lang="en"><seg>one two</seg></tuv>'
        '<tuv xml:lang="hi"><seg>three</seg></tuv></tu>\n'
        '<tu><tuv xml:lang="en"><seg>four</seg></tuv>'
        '<tuv xml:lang="ta"><seg>five\nsix</seg></tuv></tu>\n</body></tmx>'
    )
    capsys.readouterr()
    files = (tsv, f"ta={memory}")
    search = ("search", "five six", *files, "--model", preset, "--side", "target")
    assert run(*search) == 0
    found = capsys.readouterr().out.splitlines()
    assert sorted(line.split("  ")[1:] for line in found) == [
        [f"{tsv}:1", "three"],
        [f"{tsv}:2", "five six"],
        [f"{memory}:3", "five six"],
    ]
    tsv.write_bytes(lzma.compress(b"no tab\nfour\tfive six\n"))
    assert "en-hi.tsv.xz:1: " in fails(capsys, *search)
    assert run(*search, "--on-error", "skip") == 0
    assert f"{tsv}:1: skipped 1" in capsys.readouterr().err


def test_files_of_all_kinds_train_together(tmp_path, preset, capsys) -> None:
    """Two steps on one text in seven languages, each in another format."""
    texts = sorted(set(sentences(60)) - {""})[:8]
    po = "".join(f'msgid "{text}"\nmsgstr "{text}"\n\n' for text in texts)
    tuv = '<tuv xml:lang="{}"><seg>{}</seg></tuv>'.format
    units = "".join(
        f"<tu>{tuv('en-US', text)}{tuv('hi', text)}{tuv('bn', text)}</tu>\n"
        for text in texts
    )
    rows = "".join(f"{text}\t{text}\n" for text in texts)
    lines = "".join(json.dumps({"en": text, "te": text}) + "\n" for text in texts)
    text = "".join(f"{text}\n" for text in texts)
    files = {
        "app.ta.po": po.encode(),
        "memory.tmx": f"<tmx><header/><body>{units}</body></tmx>".encode("utf-16"),
        "en-kn.tsv": rows.encode(),
        "opus.en-ml.en": text.encode(),
        "opus.en-ml.ml": bz2.compress(text.encode()),
        "talk.jsonl": lzma.compress(lines.encode()),
        "any": rows.encode(),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name in files]
    paths[-1] = f"mr={paths[-1]}"
    output = tmp_path / "out"
    small = ("--batch-size", 8, "--train-steps", 2, "--output", output)
    assert run("train", *paths, "--model", preset, *small) == 0
    codes = ("bn", "hi", "kn", "ml", "mr", "ta", "te")
    counts = [f"{code} {len(texts)}" for code in codes]
    check_message(capsys.readouterr().err, 7 * len(texts), 7, *counts)
    assert presets.is_preset(output)
    line = fails(capsys, "evaluate", "retrieval", f"ta={paths[1]}", "--model", preset)
    check_message(line, "ta", path="memory.tmx", line=1, received="bn, hi")


def test_convert_makes_a_smaller_preset_of_nearly_the_same_vectors(
    tmp_path, preset, capsys
) -> None:
    assert presets.STORAGES == convert.STORAGES
    target, report = tmp_path / "small", tmp_path / "convert.json"
    command = ("convert", preset, "--storage", "int8", "--output", target)
    assert run(*command, "--json", report) == 0
    assert "int8: " in capsys.readouterr().out
    result = json.loads(report.read_text())
    assert (result["storage"], result["model"]) == ("int8", str(target))
    assert 0.9 < result["cosine"]["lowest"] <= result["cosine"]["mean"] < 1.001
    assert result["megabytes"]["after"] < result["megabytes"]["before"]
    assert run("convert", "--list", "--json", report) == 0
    names = [model["name"] for model in json.loads(report.read_text())["models"]]
    assert set(presets.shipped_names()) < set(names)
    texts = sentences(20)
    exact, small = (LaBSE.from_preset(p).encode(texts) for p in (preset, target))
    assert 0 < np.abs(exact - small).max() < 2e-2
    line = fails(capsys, "convert", preset, "--output", target)
    check_message(line, argument="--output")


def test_evaluate_retrieval_on_pair_files(tmp_path, preset, capsys) -> None:
    texts = sorted(set(sentences(60)) - {""})
    for code, other in (("hi", texts), ("ta", texts[::-1])):
        lines = (f"{a}\t{b}\n" for a, b in zip(texts, other, strict=True))
        (tmp_path / f"en-{code}.tsv").write_text("".join(lines), encoding="utf-8")
    report = tmp_path / "scores.json"
    common = ("evaluate", "retrieval", tmp_path, "--model", preset)
    assert run(*common, "--json", report) == 0
    assert "Hindi" in capsys.readouterr().out
    scores = json.loads(report.read_text())
    assert scores["languages"]["hi"]["accuracy"] == 1.0
    # The middle of an odd number stays in its place when the order is turned round.
    assert scores["languages"]["ta"]["accuracy"] == len(texts) % 2 / len(texts)
    assert run(*common, "--languages", "hi") == 0
    assert "Tamil" not in capsys.readouterr().out


# === Bad input: exit status 2 and one line that says which and where ===


def test_no_such_model(tmp_path, capsys) -> None:
    (tmp_path / "t.txt").write_text("one\n")
    output = tmp_path / "v.npy"
    line = fails(
        capsys, "embed", tmp_path / "t.txt", "--model", "nothing", "--output", output
    )
    assert line.endswith("Received: 'nothing'")
    assert not output.exists()


def test_bad_text(tmp_path, preset, capsys) -> None:
    path, output = tmp_path / "t.txt", tmp_path / "v.npy"
    path.write_bytes(b"one\ntwo \xff\n")
    line = fails(capsys, "embed", path, "--model", preset, "--output", output)
    check_message(line, "UTF-8", path=path, line=2, received=True)
    missing, embed = tmp_path / "no.txt", ("--model", preset, "--output")
    refuses(capsys, ("embed", missing, *embed, output), path=missing)
    other = tmp_path / "v.txt"
    refuses(capsys, ("embed", path, *embed, other), ".npy", argument="--output")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.txt"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "en-hi.tsv:1: "),
        (b"one\t\xff\n", "en-hi.tsv:1: "),
        (b"one\ttwo\nthree\n", "en-hi.tsv:2: "),
        (b"\x1f\x8b\x08\x00broken", "en-hi.tsv"),
    ],
)
def test_bad_pairs(tmp_path, capsys, content: bytes, expected: str) -> None:
    path, output = tmp_path / "en-hi.tsv", tmp_path / "out"
    path.write_bytes(content)
    vocabulary = tmp_path / "vocab.txt"
    make_model().preprocessor.tokenizer.save_vocabulary(vocabulary)
    for arguments in (
        ("vocab", path, "--size", 200, "--output", output),
        ("train", path, "--vocab", vocabulary, "--output", output),
        ("quickstart", "--pairs", path, "--output", output),
    ):
        line = fails_at_the_end(capsys, *arguments)
        assert expected in line
        assert "Received: " in line
        assert not (output / "text").exists()
        assert not output.is_file()


def fails_at_the_end(capsys, *arguments: object) -> str:
    """As `fails`, where stages have announced themselves before."""
    capsys.readouterr()
    assert run(*arguments) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_flags_that_a_model_would_ignore_are_refused(tmp_path, preset, capsys) -> None:
    path, output = tmp_path / "en-hi.tsv", tmp_path / "out"
    path.write_text("".join(f"{t}\t{t}\n" for t in sentences(40) if t))
    common = ("train", path, "--model", preset, "--output", output)
    for flags, expected in (
        (("--num-layers", 3), 2),
        (("--hidden-dim", 32), 16),
        (("--pooling", "cls"), "mean"),
        (("--dropout", 0.25), "0.1"),
    ):
        line = fails_at_the_end(capsys, *common, *flags)
        check_message(line, expected, "--stages", argument=flags[0], received=flags[1])
    prepare = ("prepare", path, "--model", preset, "--output", output)
    for command in (common, prepare):
        for flag in ("--lowercase", "--no-strip-accents"):
            line = fails_at_the_end(capsys, *command, flag)
            check_message(line, "--vocab", argument=flag, received=flag)
    line = fails_at_the_end(capsys, *common, "--stream")
    check_message(line, argument="--stream", received="en-hi.tsv")
    assert not output.exists()
    # What is true of the model may be said, and what deepens it.
    same = ("--hidden-dim", 16, "--pooling", "mean", "--num-layers", 4, "--stages")
    small = ("--batch-size", 8, "--train-steps", 2)
    assert run(*common, *same, "2:1", *small) == 0
    assert LaBSE.from_preset(output).backbone.num_layers == 4
    recipe = json.loads((output / "run.json").read_text())["recipe"]
    assert (recipe["num_layers"], recipe["num_heads"]) == (4, 4)


def test_a_run_from_the_run_json_of_another(tmp_path, preset, capsys) -> None:
    path, report = tmp_path / "en-hi.tsv", tmp_path / "train.json"
    path.write_text("".join(f"{t}\t{t}\n" for t in sentences(40) if t))
    common = ("train", path, "--model", preset)
    small = ("--batch-size", 8, "--train-steps", 3, "--margin", 0.2)
    assert run(*common, *small, "--output", tmp_path / "first") == 0
    config = tmp_path / "first" / "run.json"
    again = ("--config", config, "--train-steps", 2, "--json", report)
    assert run(*common, *again, "--output", tmp_path / "second") == 0
    written = json.loads((tmp_path / "second" / "run.json").read_text())
    expected = json.loads(config.read_text())
    expected["recipe"]["train_steps"] = 2
    assert written == expected
    result = json.loads(report.read_text())
    assert (result["steps"], result["kept_step"]) == (2, 2)
    assert result["model"] == str(tmp_path / "second")
    vectors, report = tmp_path / "v.npy", tmp_path / "embed.json"
    embed = ("embed", path, "--side", "source", "--model", preset)
    assert run(*embed, "--output", vectors, "--json", report) == 0
    result = json.loads(report.read_text())
    assert (result["sentences"], result["dimension"]) == np.load(vectors).shape


def test_bad_flags(tmp_path, capsys) -> None:
    path, output = tmp_path / "en-hi.tsv", tmp_path / "out"
    path.write_text("one\ttwo\n" * 4)
    common = ("train", path, "--output", output)
    missing = fails_at_the_end(capsys, *common, "--vocab", tmp_path / "no.txt")
    assert missing.endswith("expected a vocab.txt. Received: no such file")
    assert "`dropout`" in fails(capsys, *common, "--vocab", "v", "--dropout", 1.5)
    assert "`log_every`" in fails(capsys, *common, "--vocab", "v", "--log-every", 0)
    vocabulary = tmp_path / "vocab.txt"
    make_model().preprocessor.tokenizer.save_vocabulary(vocabulary)
    small = ("--num-heads", 2, "--hidden-dim", 8, "--train-steps", 2)
    line = fails_at_the_end(
        capsys, *common, "--vocab", vocabulary, *small, "--batch-size", 64
    )
    check_message(line, 4, argument="batch_size")
    quickstart = ("quickstart", "--pairs", path, "--output", tmp_path / "o3")
    line = fails_at_the_end(capsys, *quickstart, "--vocabulary-size", 0)
    check_message(line, argument="vocabulary_size", received=0)
    assert not (tmp_path / "o3").exists()
    line = fails_at_the_end(
        capsys, *common[:3], tmp_path / "o2", "--vocab", vocabulary, "--strategy", "gpu"
    )
    assert "Received: name='gpu'" in line
    for unknown in (("train", path), ("nothing",), ("evaluate",), ()):
        with pytest.raises(SystemExit) as stop:
            run(*unknown)
        assert stop.value.code == 2


def test_no_folder_and_no_space_for_results(tmp_path, preset, capsys) -> None:
    line = fails(capsys, "evaluate", "tatoeba", tmp_path / "no", "--model", preset)
    check_message(line, path=tmp_path / "no", received=True)
    target = tmp_path / "1"
    target.mkdir()
    line = fails(capsys, "export", "--model", preset, "--output", target)
    check_message(line, path=target, received=True)
    (tmp_path / "file").write_text("")
    line = fails(
        capsys, "export", "--model", preset, "--output", tmp_path / "file" / "1"
    )
    assert "file" in line


def test_bad_searches(tmp_path, preset, capsys) -> None:
    text = tmp_path / "t.txt"
    text.write_text("\n \n", encoding="utf-8")
    common = ("--model", preset)
    assert "no-file" in fails(capsys, "search", "one", tmp_path / "no-file", *common)
    assert "--top" in fails(capsys, "search", "one", text, *common, "--top", 0)
    assert "QUERY" in fails(capsys, "search", " ", text, *common)
    refuses(capsys, ("search", "one", text, *common), path=text, received=True)
    line = fails(capsys, "search", "one", text, "--model", "no-model")
    check_message(line, "labse-mini", received="'no-model'")


def test_our_fault_is_not_the_users(monkeypatch, preset, tmp_path) -> None:
    """An error that no input explains keeps its traceback and ends with 1."""

    def broken(options: object) -> None:
        raise TypeError("ours")

    monkeypatch.setattr(embed, "open_encoder", broken)
    (tmp_path / "t.txt").write_text("one\n")
    with pytest.raises(TypeError, match="ours"):
        run("embed", tmp_path / "t.txt", "--model", preset, "--output", "v.npy")


# === As a process ===


def process(*arguments: object, **kwargs: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "labse_tf", *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=600,
        **kwargs,
    )


def test_a_process_is_quiet_and_tells_its_status(tmp_path, preset) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    (tmp_path / "t.txt").write_text("one\n")
    done = process(
        *("embed", tmp_path / "t.txt", "--model", preset),
        *("--output", tmp_path / "v.npy"),
        env=environment,
    )
    assert done.returncode == 0
    assert done.stderr == ""  # no greetings of TensorFlow's
    assert done.stdout == f"1 vectors of 16 in {tmp_path / 'v.npy'}\n"
    assert (
        process("embed", "no.txt", "--model", "x", "--output", "v.npy").returncode == 2
    )


def test_help_and_version_load_nothing_heavy(run_python) -> None:
    code = """
        import sys
        from labse_tf import cli
        try:
            cli.main(["--help"])
        except SystemExit as stop:
            assert not stop.code
        heavy = {"tensorflow", "keras", "keras_hub", "rich", "matplotlib", "numpy"}
        print(sorted(heavy & set(sys.modules)))
    """
    assert run_python(code).splitlines()[-1] == "[]"
    assert process("--version").stdout.strip() == cli.__version__


def test_every_command_has_an_example(capsys) -> None:
    for command in (
        *("quickstart", "vocab", "pretrain", "train", "embed", "search", "export"),
        "convert",
        *(("evaluate", t) for t in ("tatoeba", "retrieval", "xsim", "sts", "all")),
    ):
        parts = (command,) if isinstance(command, str) else command
        with pytest.raises(SystemExit):
            run(*parts, "--help")
        assert "example: labse-tf " + parts[0] in capsys.readouterr().out
