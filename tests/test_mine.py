"""`labse-tf mine` and `filter`: what is found and kept, and what a stop leaves."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.command_line import fails, run
from helpers.errors import check_message, refuses
from labse_tf import mining, presets
from labse_tf.cli import filter, mine
from labse_tf.mining import DistinctLines, embed_to_disk, neighbors
from labse_tf.text import reading

# "Translations" are the same words in capitals.
WORDS = [f"word{i}" for i in range(200)]


def direction(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.md5(word.encode()).digest()[:4], "little")
    return np.random.default_rng(seed).normal(size=32)


def encode(sentences: list[str]) -> np.ndarray:
    """A bag of words, each a random direction, which capitals change a little."""
    vectors = np.zeros((len(sentences), 32), dtype=np.float32)
    for row, sentence in enumerate(sentences):
        for word in sentence.split():
            vectors[row] += direction(word.lower()) + 0.1 * direction(word)
    vectors[:, 0] += 1e-3
    return vectors


@pytest.fixture(autouse=True)
def model(monkeypatch) -> None:
    for module in (mine, filter):
        monkeypatch.setattr(module, "open_encoder", lambda options: encode)


def sentences(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 6)) for _ in range(count)]


def cosine(first: str, second: str) -> float:
    a, b = encode([first, second]).astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def two_files(folder: Path) -> tuple[Path, Path, dict[int, int]]:
    """Files with 20 true pairs among 50 and 60 lines: line -> line."""
    shared, rng = sentences(20, 1), np.random.default_rng(2)
    left = [*shared, *sentences(30, 3)]
    right = [*(text.upper() for text in shared), *sentences(40, 4)]
    orders = [rng.permutation(len(side)) for side in (left, right)]
    paths = folder / "left.txt", folder / "right.txt.gz"
    paths[0].write_text("".join(f"{left[i]}\n" for i in orders[0]), encoding="utf-8")
    with gzip.open(paths[1], "wt", encoding="utf-8") as file:
        file.writelines(f"{right[i]}\n" for i in orders[1])
    places = [np.argsort(order)[:20] + 1 for order in orders]
    return *paths, dict(zip(*(p.tolist() for p in places), strict=True))


def rows(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


# === mine ===


@pytest.mark.parametrize("margin", mining.MARGINS)
def test_mine_finds_the_pairs_and_writes_them_best_first(tmp_path, capsys, margin):
    left, right, truth = two_files(tmp_path)
    output, report = tmp_path / "pairs.tsv", tmp_path / "pairs.json"
    assert run("mine", left, right, "--top", 20, "--margin", margin, "-o", output) == 0
    found = rows(output)
    assert {int(r[1]): int(r[2]) for r in found} == truth
    scores = [float(r[0]) for r in found]
    assert scores == sorted(scores, reverse=True)
    lines = left.read_text().splitlines()
    assert all(r[3] == lines[int(r[1]) - 1] and r[4] == r[3].upper() for r in found)
    assert not (tmp_path / "pairs.tsv.work").exists()
    said = capsys.readouterr().out
    assert said.startswith("20 pairs among 50 x 60 different lines, scores ")
    limit = str((scores[9] + scores[10]) / 2)
    arguments = ("--margin", margin, "--threshold", limit, "--json", report)
    assert run("mine", left, right, *arguments, "-o", output) == 0
    assert rows(output) == found[:10]
    result = json.loads(report.read_text())
    assert (result["pairs"], result["lines"]) == (10, {"source": 50, "target": 60})
    assert result["lowest_score"] == scores[9]


def test_a_text_that_repeats_is_mined_once_at_its_first_line(tmp_path):
    left, right = tmp_path / "left.txt", tmp_path / "right.txt"
    left.write_text("word1 word2\n\n  word3\tword4 \nword1 word2\nword5\n")
    right.write_text("WORD3 WORD4\nWORD5\nWORD1 WORD2\nWORD3 WORD4\n")
    output = tmp_path / "pairs.tsv"
    assert run("mine", left, right, "--margin", "cosine", "-o", output) == 0
    assert sorted(r[1:] for r in rows(output)) == [
        ["1", "3", "word1 word2", "WORD1 WORD2"],
        # A tab in a text would be one column more.
        ["3", "1", "word3 word4", "WORD3 WORD4"],
        ["5", "2", "word5", "WORD5"],
    ]


def test_mine_reads_pairs_and_every_compression(tmp_path):
    left, right = tmp_path / "a.jsonl.bz2", tmp_path / "b.po.xz"
    objects = [{"en": "x1", "hi": "word1\tword2\nword3"}, {"en": "x2", "hi": "word4"}]
    lines = "".join(json.dumps(entry) + "\n" for entry in objects)
    left.write_bytes(bz2.compress(lines.encode()))
    po = (
        'msgid "WORD4"\nmsgstr "y1"\n\nmsgid "WORD1 WORD2\\n"\n"WORD3"\n'
        'msgstr "word4"\n'
    )
    right.write_bytes(lzma.compress(po.encode()))
    output = tmp_path / "pairs.tsv"
    options = ("--margin", "cosine", "-o", output)
    sides = ("--source-side", "target", "--target-side", "source")
    assert run("mine", left, right, *sides, *options) == 0
    assert sorted(r[1:] for r in rows(output)) == [
        ["1", "4", "word1 word2 word3", "WORD1 WORD2 WORD3"],
        ["2", "1", "word4", "WORD4"],
    ]
    assert run("mine", left, right, "--top", 1, *options) == 0
    assert [r[1:] for r in rows(output)] == [["2", "4", "word4", "word4"]]


def test_sentences_of_one_line_are_apart(tmp_path, monkeypatch):
    path = tmp_path / "memory.tmx"
    units = "".join(
        f'<tu><tuv xml:lang="en"><seg>{a}</seg></tuv>'
        f'<tuv xml:lang="hi"><seg>{b}</seg></tuv></tu>'
        for a, b in (("one", "ek"), ("two", "ek"), ("one", "do"))
    )
    path.write_text(f"<tmx><body>{units}</body></tmx>")
    monkeypatch.setattr(reading, "BLOCK", 2)
    texts = DistinctLines(path)
    assert texts.lines.tolist() == [1, 1, 1, 1] and texts.total == 6
    assert list(texts.blocks()) == [["one", "ek"], ["two", "do"]]
    assert list(texts.blocks(3)) == [["do"]]
    assert texts.texts(np.array([3, 1, 1])) == {1: "ek", 3: "do"}
    target = DistinctLines(path, side="target")
    assert list(target.blocks()) == [["ek", "do"]]
    assert target.digest != texts.digest
    plain = tmp_path / "plain.txt"
    plain.write_text("\n ek\ndo\n")
    assert DistinctLines(plain).digest == target.digest


def test_many_to_many_and_directions(tmp_path):
    left, right = tmp_path / "left.txt", tmp_path / "right.txt"
    left.write_text("word1 word2\nword1 word2 word3\n")
    right.write_text("WORD1 WORD2\n")
    output = tmp_path / "pairs.tsv"
    options = ("--margin", "cosine", "-o", output)
    counts = {}
    for retrieval in mining.RETRIEVALS:
        flags = ("--many-to-many", "--retrieval", retrieval)
        assert run("mine", left, right, *flags, *options) == 0
        counts[retrieval] = len(rows(output))
    assert counts == {"max": 2, "intersection": 1, "forward": 2, "backward": 1}
    assert run("mine", left, right, *options) == 0
    assert [r[1:3] for r in rows(output)] == [["1", "1"]]


def test_a_stopped_mine_goes_on_and_ends_as_one_undisturbed(tmp_path, monkeypatch):
    left, right, _ = two_files(tmp_path)
    whole, output = tmp_path / "whole.tsv", tmp_path / "pairs.tsv"
    assert run("mine", left, right, "-o", whole) == 0
    monkeypatch.setattr(reading, "BLOCK", 8)
    encoded: list[int] = []

    def stops(sentences: list[str]) -> np.ndarray:
        encoded.append(len(sentences))
        if sum(encoded) > 75:
            raise KeyboardInterrupt
        return encode(sentences)

    monkeypatch.setattr(mine, "open_encoder", lambda options: stops)
    assert run("mine", left, right, "-o", output) == 130
    assert not output.exists() and (tmp_path / "pairs.tsv.work").is_dir()
    first = sum(encoded[:-1])
    encoded.clear()
    monkeypatch.setattr(
        mine,
        "open_encoder",
        lambda options: lambda s: (encoded.append(len(s)), encode(s))[1],
    )
    assert run("mine", left, right, "-o", output) == 0
    # 110 texts and a probe of each file, twice.
    assert first + sum(encoded) == 110 + 2 * 2
    assert output.read_text() == whole.read_text()
    assert not (tmp_path / "pairs.tsv.work").exists()


def test_vectors_of_another_model_or_text_are_made_anew(tmp_path):
    path = tmp_path / "left.txt"
    path.write_text("word1\nword2\nword3\n")
    vectors = embed_to_disk(DistinctLines(path), encode, tmp_path / "v.npy")
    np.testing.assert_array_equal(vectors, encode(["word1", "word2", "word3"]))
    assert isinstance(vectors, np.memmap)
    asked = []

    def counting(sentences):
        asked.extend(sentences)
        return encode(sentences)

    def again(encode):
        asked.clear()
        embed_to_disk(DistinctLines(path), encode, tmp_path / "v.npy")
        return len(asked) - 1  # a probe

    assert again(counting) == 0
    assert again(lambda s: 2 * counting(s)) == 3
    path.write_text("word1\nword2\nword4\n")
    assert again(lambda s: 2 * counting(s)) == 3
    (tmp_path / "v.json").write_text("{half a fi")
    assert again(lambda s: 2 * counting(s)) == 3
    assert again(lambda s: counting(s)[:, :8]) == 3


def counting(monkeypatch) -> list[int]:
    """Let both commands count the texts that they encode, in the list."""
    counts: list[int] = []

    def counted(sentences: list[str]) -> np.ndarray:
        counts.append(len(sentences))
        return encode(sentences)

    for module in (mine, filter):
        monkeypatch.setattr(module, "open_encoder", lambda options: counted)
    return counts


def test_vectors_of_another_model_or_dtype_are_not_reused(tmp_path, monkeypatch):
    """Even if the other model gives the probe the same vector."""
    left, right, _ = two_files(tmp_path)
    counts, work = counting(monkeypatch), tmp_path / "work"
    own = tmp_path / "own"
    shutil.copytree(presets.find("labse-nano"), own)
    probes = 2
    for flags, expected in (
        ((), 110),
        ((), 0),
        (("--dtype", "bfloat16"), 110),
        (("--dtype", "bfloat16"), 0),
        (("--model", "labse-nano"), 110),
        # The same files under another name.
        (("--model", own), 0),
    ):
        counts.clear()
        options = ("-o", tmp_path / "pairs.tsv", "--work", work, *flags)
        # Left by a search among the vectors of the last run.
        (work / "search.npz").unlink(missing_ok=True)
        assert run("mine", left, right, *options) == 0
        assert sum(counts) - probes == expected, flags
    # Trained further in the same place.
    with (own / "model.weights.h5").open("ab") as file:
        file.write(b"more")
    counts.clear()
    (work / "search.npz").write_bytes(b"of other vectors")
    assert run("mine", left, right, *options) == 0
    assert sum(counts) - probes == 110


@pytest.mark.parametrize("wrong", [lambda v: v[:1], lambda v: v[0], lambda v: v[:, :1]])
def test_a_model_that_returns_too_few_rows_is_an_error(tmp_path, wrong):
    path = tmp_path / "left.txt"
    path.write_text("word1\nword2\nword3\n")

    def bad(sentences: list[str]) -> np.ndarray:
        vectors = encode(sentences)
        return vectors if len(sentences) == 1 else wrong(vectors)

    with pytest.raises(ValueError, match=r"\(3, 32\)"):
        embed_to_disk(DistinctLines(path), bad, tmp_path / "v.npy")
    # Nothing of it is taken for finished.
    vectors = embed_to_disk(DistinctLines(path), encode, tmp_path / "v.npy")
    np.testing.assert_array_equal(vectors, encode(["word1", "word2", "word3"]))


def test_the_search_of_mine_has_its_state_in_the_work_folder(tmp_path, monkeypatch):
    left, right, _ = two_files(tmp_path)
    whole, output = tmp_path / "whole.tsv", tmp_path / "pairs.tsv"
    work = tmp_path / "work"
    assert run("mine", left, right, "-o", whole, "--work", work) == 0
    assert sorted(p.name for p in work.iterdir()) == [
        "source.json",
        "source.npy",
        "target.json",
        "target.npy",
    ]
    monkeypatch.setattr(neighbors, "_SAVE_SECONDS", 0.0)
    both = mining.neighbors_both_ways

    def stops(*args, **options):
        def stop(done, total):
            if (work / "search.npz").exists():
                raise KeyboardInterrupt

        return both(*args, **{**options, "progress": stop, "block_size": 10})

    from labse_tf.mining import bitext

    monkeypatch.setattr(bitext, "neighbors_both_ways", stops)
    assert run("mine", left, right, "-o", output, "--work", work) == 130
    assert (work / "search.npz").exists() and not output.exists()
    monkeypatch.setattr(bitext, "neighbors_both_ways", both)
    assert run("mine", left, right, "-o", output, "--work", work) == 0
    assert output.read_text() == whole.read_text()


def test_mine_skips_digits_and_lines_in_another_script(tmp_path, capsys):
    left, right, truth = two_files(tmp_path)
    output, alone = tmp_path / "pairs.tsv", tmp_path / "alone.tsv"
    assert run("mine", left, right, "-o", alone) == 0
    noise = ["12.05.2026", "(1,234) - 56 %", "доброе утро", "早上好"]
    left.write_text(left.read_text() + "".join(f"{line}\n" for line in noise))
    with gzip.open(right, "at", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in noise)
    capsys.readouterr()
    assert run("mine", left, right, "-o", output) == 0
    assert output.read_text() == alone.read_text()
    said = capsys.readouterr().err
    for path, count in ((left, 54), (right, 64)):
        check_message(said, path, 4, count, "2 mostly digits", "2 in another script")
    assert run("mine", left, right, "--all-lines", "-o", output) == 0
    found = [tuple(row[3:]) for row in rows(output)]
    assert {(line, line) for line in noise} <= set(found)
    left.write_text("1\n2\n")
    refuses(capsys, ("mine", left, right, "-o", output), path=left, received=True)


@pytest.mark.parametrize("command", ["mine", "filter"])
def test_an_isolated_pair_is_not_above_the_translations(tmp_path, monkeypatch, command):
    """Of 40 pairs one is wrong, with a cosine of 0.5, and near to nothing else."""
    rng = np.random.default_rng(0)
    vectors = {}
    for i in range(40):
        own = rng.normal(size=64)
        for text in (f"left{i}", f"right{i}"):
            # All share a direction, so that neighborhoods have a mean of about 0.6.
            noise = 0.3 * rng.normal(size=64)
            vectors[text] = np.concatenate([own + noise, [8.0, 0, 0]])
    vectors["left0"] = np.eye(67)[65]
    vectors["right0"] = 0.5 * np.eye(67)[65] + 0.75**0.5 * np.eye(67)[66]

    def embed(texts: list[str]) -> np.ndarray:
        return np.stack([vectors.get(text, np.ones(67)) for text in texts])

    for module in (mine, filter):
        monkeypatch.setattr(module, "open_encoder", lambda options: embed)
    for side in ("left", "right"):
        text = "".join(f"{side}{i}\n" for i in range(40))
        (tmp_path / side).write_text(text)
    given = tmp_path / "given.tsv"
    given.write_text("".join(f"left{i}\tright{i}\n" for i in range(40)))
    arguments = {
        "mine": ("mine", tmp_path / "left", tmp_path / "right"),
        "filter": ("filter", given, "--margin", "--keep", 40, "--with-scores"),
    }[command]
    output = tmp_path / "pairs.tsv"
    places = []
    for flags in (("--mean-floor", 0), ()):
        assert run(*arguments, *flags, "-o", output) == 0
        found = [
            (float(row[1 if command == "filter" else 0]), row[-2])
            for row in rows(output)
        ]
        assert len(found) == 40
        texts = [text for _, text in sorted(found, reverse=True)]
        places.append(texts.index("left0"))
    assert places == [0, 39]


def test_bad_input_of_mine(tmp_path, capsys):
    left, right, _ = two_files(tmp_path)
    empty, bad = tmp_path / "empty.txt", tmp_path / "bad.txt"
    empty.write_text("\n \n")
    bad.write_bytes(b"word1\nword\xff2\n")
    output = ("-o", tmp_path / "pairs.tsv")
    assert "no-file" in fails(capsys, "mine", left, tmp_path / "no-file", *output)
    refuses(capsys, ("mine", left, empty, *output), path=empty, received=True)
    line = fails(capsys, "mine", bad, right, *output)
    check_message(line, "UTF-8", path=bad, line=2, received=True)
    assert run("mine", bad, right, "--on-error", "skip", *output) == 0
    check_message(capsys.readouterr().err, "skipped", path=bad, line=2)
    (tmp_path / "pairs.tsv").unlink()
    for flag, value in (
        ("--k", 0),
        ("--top", 0),
        ("--recall", 2),
        ("--mean-floor", 1),
    ):
        line = fails(capsys, "mine", left, right, flag, value, *output)
        check_message(line, argument=flag[2:].replace("-", "_"), received=value)
    assert list(tmp_path.glob("pairs*")) == []


# === filter ===


def pair_file(folder: Path) -> tuple[Path, list[str]]:
    """Pairs of which the first half are translations."""
    left = sentences(40, 5)
    right = [text.upper() for text in left[:20]] + sentences(20, 6)
    lines = [f"{a}\t{b}" for a, b in zip(left, right, strict=True)]
    path = folder / "en-hi.tsv"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path, lines


def test_filter_keeps_lines_as_they_are(tmp_path, capsys):
    path, lines = pair_file(tmp_path)
    output, plot = tmp_path / "kept.tsv", tmp_path / "cosines.png"
    arguments = ("--threshold", 0.9, "-o", output, "--plot", plot)
    assert run("filter", path, *arguments) == 0
    assert output.read_text().splitlines() == lines[:20]
    check_message(capsys.readouterr().out, 20, 40, "50.0%", "0.9000")
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert run("filter", path, *arguments, "--with-scores") == 0
    score, *texts_ = rows(output)[3]
    assert texts_ == lines[3].split("\t")
    assert float(score) == pytest.approx(cosine(*texts_), abs=1e-6)
    # What mine and filter write, filter reads: the last two columns are the texts.
    again = tmp_path / "again.tsv"
    assert run("filter", output, "--threshold", 0.9, "-o", again) == 0
    assert again.read_text() == output.read_text()


def test_filter_reads_every_format_and_compression(tmp_path):
    path, lines = pair_file(tmp_path)
    output = tmp_path / "kept.tsv"
    pairs = [line.split("\t") for line in lines]
    objects = "".join(json.dumps({"en": a, "hi": b}) + "\n" for a, b in pairs)
    po = "".join(f'msgid "{a}\\n"\nmsgstr "{b}"\n\n' for a, b in pairs)
    texts = zip(*pairs, strict=True)
    for side, name in zip(texts, ("x.en-hi.en", "x.en-hi.hi"), strict=True):
        (tmp_path / name).write_text("".join(f"{text}\n" for text in side))
    (tmp_path / "a.tsv.bz2").write_bytes(bz2.compress(path.read_bytes()))
    (tmp_path / "pairs.jsonl.xz").write_bytes(lzma.compress(objects.encode()))
    (tmp_path / "any.po").write_text(po)
    for name in ("a.tsv.bz2", "pairs.jsonl.xz", "any.po", "x.en-hi.hi"):
        assert run("filter", tmp_path / name, "--threshold", 0.9, "-o", output) == 0
        assert output.read_text().splitlines() == lines[:20]


def test_filter_learns_the_threshold_from_marked_pairs(tmp_path, capsys):
    path, lines = pair_file(tmp_path)
    marked, output = tmp_path / "marked.tsv", tmp_path / "kept.tsv"
    report = tmp_path / "filter.json"
    good = [f"{line}\tgood" for line in lines[:6]]
    texts = [line.split("\t") for line in lines[20:]]
    cosines = np.array([cosine(*pair) for pair in texts])
    best = np.argsort(-cosines)
    bad = [
        "\t".join([*texts[i], mark]) for i, mark in zip(best[:5], "00001", strict=True)
    ]
    marked.write_text("".join(f"{line}\n" for line in (*bad, *good)))
    arguments = ("--marked", marked, "-o", output, "--json", report)
    assert run("filter", path, *arguments) == 0
    # Under six good ones: with one bad 86 % are good, with two 75 %.
    result = json.loads(report.read_text())
    assert result["threshold"] == pytest.approx(cosines[best[0]], abs=1e-6)
    assert (result["marked"], result["marked_kept"]) == (11, 7)
    assert result["good_share"] == pytest.approx(6 / 7)
    assert len(rows(output)) == 21 == result["kept"]
    check_message(capsys.readouterr().out, 7, 6)
    assert run("filter", path, *arguments, "--good-share", 0.6) == 0
    assert json.loads(report.read_text())["marked_kept"] == 11


@pytest.mark.parametrize("work", [False, True])
def test_a_stopped_filter_resumes_and_ends_as_one_undisturbed(
    tmp_path, monkeypatch, work
):
    path, _ = pair_file(tmp_path)
    whole, output = tmp_path / "whole.tsv", tmp_path / "kept.tsv"
    rule = ("--threshold", 0.5, "--with-scores")
    flags = (*rule, "--work", tmp_path / "work") if work else rule
    assert run("filter", path, *rule, "-o", whole) == 0
    monkeypatch.setattr(reading, "BLOCK", 8)
    counts = counting(monkeypatch)

    def stops(sentences: list[str]) -> np.ndarray:
        counts.append(len(sentences))
        if len(counts) > 3:
            raise KeyboardInterrupt
        return encode(sentences)

    monkeypatch.setattr(filter, "open_encoder", lambda options: stops)
    assert run("filter", path, *flags, "-o", output) == 130
    assert not output.exists()
    counts = counting(monkeypatch)
    assert run("filter", path, *flags, "-o", output) == 0
    assert sum(counts) == 2 * (40 - 3 * 8)
    assert output.read_text() == whole.read_text()
    assert not (tmp_path / "kept.tsv.work").exists()
    assert (tmp_path / "work").exists() == work


def test_filter_reuses_cosines_of_the_same_pairs_and_model_only(tmp_path, monkeypatch):
    path, lines = pair_file(tmp_path)
    counts = counting(monkeypatch)
    output = tmp_path / "kept.tsv"
    options = ("-o", output, "--work", tmp_path / "work")

    def encoded(*flags: object) -> int:
        counts.clear()
        assert run("filter", path, *flags, *options) == 0
        return sum(counts)

    assert encoded("--threshold", 0.9) == 80
    assert encoded("--threshold", -1) == 0
    assert output.read_text().splitlines() == lines
    assert encoded("--threshold", -1, "--dtype", "bfloat16") == 80
    assert encoded("--threshold", -1, "--model", "labse-nano") == 80
    path.write_text("".join(f"{line}\n" for line in reversed(lines)))
    assert encoded("--threshold", -1, "--model", "labse-nano") == 80
    assert output.read_text().splitlines() == lines[::-1]


def test_bad_input_of_filter(tmp_path, capsys):
    path, lines = pair_file(tmp_path)
    output = ("-o", tmp_path / "kept.tsv")
    bad, empty = tmp_path / "bad.tsv", tmp_path / "empty.tsv"
    bad.write_text(f"{lines[0]}\n\nonly one column\n")
    empty.write_text("\n")
    line = fails(capsys, "filter", bad, "--threshold", 0, *output)
    check_message(line, path=bad, line=3, received="'only one column'")
    arguments = ("filter", empty, "--threshold", 0, *output)
    refuses(capsys, arguments, path=empty, received=True)
    skip = ("--threshold", 0, "--on-error", "skip", "-o", tmp_path / "skipped.tsv")
    assert run("filter", bad, *skip) == 0
    assert (tmp_path / "skipped.tsv").read_text() == f"{lines[0]}\n"
    check_message(capsys.readouterr().err, "skipped", path=bad, line=3)
    bad.write_text(f"{lines[0]}\tgood\n{lines[1]}\tperhaps\n")
    line = fails(capsys, "filter", path, "--marked", bad, *output)
    check_message(line, path=bad, line=2, received="'perhaps'")
    bad.write_text(f"{lines[0]}\tbad\n")
    line = fails(capsys, "filter", path, "--marked", bad, *output)
    check_message(line, "80%")
    line = fails(capsys, "filter", path, "--marked", bad, "--good-share", 0, *output)
    check_message(line, argument="--good-share")
    line = fails(capsys, "filter", path, *output)
    check_message(line, "--threshold", "--marked", received=True)
    assert not (tmp_path / "kept.tsv").exists()


def margin_oracle(pairs: list[list[str]], k: int) -> list[float]:
    """Ratio margin of each pair among the distinct texts of both sides."""

    def unit(texts: list[str]) -> np.ndarray:
        vectors = encode(texts).astype(np.float64)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    sides = [list(dict.fromkeys(side)) for side in zip(*pairs, strict=True)]
    cosines = unit(sides[0]) @ unit(sides[1]).T
    found = []
    for left, right in pairs:
        i, j = sides[0].index(left), sides[1].index(right)
        near = [np.sort(v)[::-1][:k].mean() for v in (cosines[i], cosines[:, j])]
        found.append(cosines[i, j] / np.mean(near))
    return found


@pytest.mark.parametrize("flags", [("--margin",), ("--margin", "ratio", "--k", 7)])
def test_filter_by_margin_counts_each_text_once(tmp_path, monkeypatch, flags):
    _, lines = pair_file(tmp_path)
    # Copies of a text are no neighbors of their own.
    lines += lines[:1] * 9 + [lines[0].split("\t")[0] + "\t" + lines[3].split("\t")[1]]
    path, output = tmp_path / "pairs.tsv", tmp_path / "kept.tsv"
    path.write_text("".join(f"{line}\n" for line in lines))
    pairs = [line.split("\t") for line in lines]
    wanted = margin_oracle(pairs, 7 if "--k" in flags else 4)
    flags = (*flags, "--mean-floor", 0)
    rule = ("--threshold", -9, "--with-scores", "-o", output)
    assert run("filter", path, *rule, *flags) == 0
    found = rows(output)
    assert [r[2:] for r in found] == pairs
    assert [float(r[1]) for r in found] == pytest.approx(wanted, abs=1e-5)
    assert float(found[3][0]) == pytest.approx(cosine(*pairs[3]), abs=1e-6)
    whole = output.read_text()
    monkeypatch.setattr(reading, "BLOCK", 8)
    assert run("filter", path, *rule, *flags) == 0
    assert output.read_text() == whole
    objects = tmp_path / "kept.jsonl"
    assert run("filter", path, "--threshold", -9, *flags, "-o", objects) == 0
    first = json.loads(objects.read_text().splitlines()[0])
    assert first["margin"] == pytest.approx(wanted[0], abs=1e-5)


def test_filter_keeps_a_number_or_a_share(tmp_path, capsys):
    path, lines = pair_file(tmp_path)
    output, report = tmp_path / "kept.tsv", tmp_path / "filter.json"
    scores = [cosine(*line.split("\t")) for line in lines]
    order = np.argsort(-np.array(scores), kind="stable")
    for rule, count in (
        (("--keep", 13), 13),
        (("--keep", 99), 40),
        (("--drop-share", 0.25), 30),
        (("--drop-share", 0.99), 1),
        (("--drop-share", 0), 40),
    ):
        assert run("filter", path, *rule, "-o", output, "--json", report) == 0
        kept = sorted(order[:count].tolist())
        assert output.read_text().splitlines() == [lines[i] for i in kept]
        result = json.loads(report.read_text())
        assert (result["pairs"], result["kept"]) == (40, count)
        lowest = min(scores[i] for i in kept)
        assert result["threshold"] == pytest.approx(lowest, abs=1e-6)
    # Of equal scores the first in the file.
    same = tmp_path / "same.tsv"
    same.write_text(f"{lines[30]}\n" + f"{lines[0]}\n" * 3)
    assert run("filter", same, "--keep", 2, "-o", output, "--with-scores") == 0
    assert [r[1:] for r in rows(output)] == [lines[0].split("\t")] * 2


@pytest.mark.parametrize("margin", ["cosine", "ratio"])
def test_marked_pairs_calibrate_a_probability(tmp_path, capsys, margin):
    path, lines = pair_file(tmp_path)
    marked, output = tmp_path / "marked.tsv", tmp_path / "kept.tsv"
    report = tmp_path / "filter.json"
    marks = ["good"] * 12 + ["bad"] * 12
    chosen = [*lines[:12], *lines[20:32]]
    marked.write_text(
        "".join(f"{x}\t{m}\n" for x, m in zip(chosen, marks, strict=True))
    )
    flags = ("--marked", marked, "--margin", margin, "--json", report)
    rule = ("--threshold", -9, "--with-scores", "-o", output)
    assert run("filter", path, *flags, *rule, "--calibration", "logistic") == 0
    said = capsys.readouterr().out
    check_message(said, 24, 12, "logistic", "95%")
    found = rows(output)
    assert len(found) == 40 and len(found[0]) == (4 if margin == "cosine" else 5)
    scores, chances = (np.array([float(r[i]) for r in found]) for i in (-4, -3))
    sample = np.r_[scores[:12], scores[20:32]]
    wanted = mining.fit_calibration(sample, [m == "good" for m in marks])
    np.testing.assert_allclose(chances, wanted(scores), atol=2e-5)
    result = json.loads(report.read_text())["calibration"]
    assert result["method"] == "logistic" and result["brier"] < result["base_brier"]
    by_share = {each["share"]: each for each in result["thresholds"]}
    assert by_share[0.99]["precision"] == 1 and by_share[0.99]["recall"] > 0.9
    assert run("filter", path, *flags, "--probability", 0.5, "-o", output) == 0
    assert output.read_text().splitlines() == lines[:20]
    assert run("filter", path, *flags, "--probability", 1, "-o", output) == 0
    kept = json.loads(report.read_text())["kept"]
    assert len(rows(output)) == kept < 40


def test_few_marks_are_said_to_be_few(tmp_path, capsys):
    path, lines = pair_file(tmp_path)
    marked = tmp_path / "marked.tsv"
    marked.write_text(f"{lines[0]}\tgood\n{lines[30]}\tbad\n")
    assert run("filter", path, "--marked", marked, "-o", tmp_path / "kept.tsv") == 0
    check_message(capsys.readouterr().out, 1, 10)


def test_a_stopped_filter_by_margin_resumes(tmp_path, monkeypatch):
    path, _ = pair_file(tmp_path)
    whole, output = tmp_path / "whole.tsv", tmp_path / "kept.tsv"
    rule = ("--margin", "distance", "--keep", 30, "--with-scores")
    assert run("filter", path, *rule, "-o", whole) == 0
    monkeypatch.setattr(reading, "BLOCK", 8)
    counts = counting(monkeypatch)

    def stops(sentences: list[str]) -> np.ndarray:
        counts.append(len(sentences))
        if len(counts) > 4:
            raise KeyboardInterrupt
        return encode(sentences)

    monkeypatch.setattr(filter, "open_encoder", lambda options: stops)
    assert run("filter", path, *rule, "-o", output) == 130
    assert not output.exists()
    counts = counting(monkeypatch)
    assert run("filter", path, *rule, "-o", output) == 0
    # 80 texts, without the three blocks of 8 that were finished, and two probes.
    assert sum(counts) == 80 - 3 * 8 + 2
    assert output.read_text() == whole.read_text()


@pytest.mark.parametrize(
    "flags, argument",
    [
        (("--drop-share", 1), "--drop-share"),
        (("--drop-share", -0.1), "--drop-share"),
        (("--keep", 0), "--keep"),
        (("--probability", 0.5), "--probability"),
        (("--probability", 2), "--probability"),
        (("--keep", 1, "--k", 0), "`k`"),
        (("--keep", 1, "--mean-floor", 1), "`mean_floor`"),
    ],
)
def test_bad_rules_of_filter(tmp_path, capsys, flags, argument):
    path, _ = pair_file(tmp_path)
    output = tmp_path / "kept.tsv"
    line = fails(capsys, "filter", path, *flags, "-o", output)
    check_message(line, argument, received=flags[-1 if "`" in argument else 1])
    assert not output.exists()


def test_rules_exclude_each_other(tmp_path, capsys):
    path, _ = pair_file(tmp_path)
    with pytest.raises(SystemExit) as end:
        run("filter", path, "--keep", 3, "--threshold", 1, "-o", tmp_path / "kept.tsv")
    assert end.value.code == 2
