"""Prepared pairs: written, resumed, read as arrays and as a stream, near and far."""

from __future__ import annotations

import collections
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import labse_tf
from helpers.errors import Fields, check_message, raises
from labse_tf import cli, data, presets
from labse_tf.data.shards import layout, writing
from labse_tf.preprocessing import SentencePreprocessor

WORDS = [f"w{i}" for i in range(40)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
COUNTS = {"hi": 230, "mr": 50, "ta": 7}
# Of each language a target begins with a word of its own.
MARKS = {"hi": "w0", "mr": "w1", "ta": "w2"}


def make_corpus() -> data.ParallelCorpus:
    """Pairs that all differ, of 1 to 12 words."""
    rng = np.random.default_rng(0)
    rows = []
    for language, count in COUNTS.items():
        for i in range(count):
            source = " ".join(rng.choice(WORDS[3:], rng.integers(1, 12)))
            number = f"{WORDS[3 + i // 30]} {WORDS[3 + i % 30]}"
            rows.append(
                data.SentencePair(source, f"{MARKS[language]} {number}", language)
            )
    return data.ParallelCorpus(rows)


@pytest.fixture(scope="module")
def corpus() -> data.ParallelCorpus:
    return make_corpus()


@pytest.fixture(scope="module")
def preprocessor() -> SentencePreprocessor:
    tokenizer = labse_tf.WordPieceTokenizer([*SPECIAL, *WORDS])
    return SentencePreprocessor(tokenizer, 12)


@pytest.fixture(scope="module")
def prepared(corpus, preprocessor, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "pairs"
    prepare(corpus, preprocessor, folder)
    return folder


def prepare(corpus, preprocessor, folder, **options):
    settings = {"sequence_length": 14, "shard_size": 64, **options}
    return data.prepare_pairs(corpus, preprocessor.tokenizer, folder, **settings)


def token_pairs(corpus, preprocessor, language) -> list[tuple[tuple, tuple]]:
    """What the tokenizer makes of each pair of a language, cut to the 14 tokens."""
    sides = corpus.pairs(language, range(corpus.counts[language]))
    ids = [preprocessor.tokenizer(list(side)).to_list() for side in sides]
    return [(tuple(s[:12]), tuple(t[:12])) for s, t in zip(*ids, strict=True)]


def rows_of(batch) -> list[tuple[tuple, tuple]]:
    """The pairs of a batch of features, without padding."""
    sides = []
    for name in ("source", "target"):
        features = batch[name]
        lengths = features["padding_mask"].numpy().sum(axis=1)
        ids = features["token_ids"].numpy()
        sides.append([tuple(row[:n]) for row, n in zip(ids, lengths, strict=True)])
    return list(zip(*sides, strict=True))


def same(a, b) -> bool:
    """Whether two batches are equal, bit for bit."""
    tf.nest.assert_same_structure(a, b)
    return all(
        x.shape == y.shape and bool((x.numpy() == y.numpy()).all())
        for x, y in zip(tf.nest.flatten(a), tf.nest.flatten(b), strict=True)
    )


# === Writing ===


def test_both_formats_hold_every_pair_in_the_same_shards(
    corpus, preprocessor, prepared
) -> None:
    description = data.read_description(prepared)
    assert description.counts == COUNTS
    for language in COUNTS:
        found = []
        for name, rows in description.shards(language):
            arrays = np.load(prepared / "arrays" / f"{name}.npz")
            assert arrays["tokens"].dtype == arrays["lengths"].dtype == np.uint16
            parts = np.split(arrays["tokens"], arrays["lengths"].T.cumsum()[:-1])
            ids = [tuple(part.tolist()) for part in parts]
            pairs = list(zip(ids[: len(rows)], ids[len(rows) :], strict=True))
            records = []
            path = prepared / "tfrecord" / f"{name}.tfrecord"
            for record in tf.data.TFRecordDataset(str(path)):
                example = tf.train.Example.FromString(record.numpy()).features.feature
                assert example["language"].bytes_list.value == [language.encode()]
                records.append(
                    tuple(
                        tuple(example[side].int64_list.value)
                        for side in ("source", "target")
                    )
                )
            assert records == pairs
            found += pairs
        expected = token_pairs(corpus, preprocessor, language)
        assert sorted(found) == sorted(expected)
        assert (found == expected) == (len(found) < 3), "the order is random"
    tokens = (prepared / "vocab.txt").read_text().splitlines()
    assert tokens == preprocessor.tokenizer.vocabulary
    assert not (prepared / "preparing.json").exists()


class Stop(Exception):
    pass


@pytest.mark.parametrize("after", [1, 3])
def test_killed_and_resumed_is_undisturbed(
    corpus, preprocessor, prepared, tmp_path, after, monkeypatch
) -> None:
    """Stopped after some shards; the same call makes the others, and the same bytes."""
    folder = tmp_path / "again"
    monkeypatch.setattr(writing.os, "cpu_count", lambda: 1)
    calls = itertools.count(1)

    def progress(done: int, total: int) -> None:
        if next(calls) == after:
            raise Stop

    with pytest.raises(Stop):
        prepare(corpus, preprocessor, folder, progress=progress)
    assert not data.is_prepared(folder)
    with raises(ValueError, "`labse-tf prepare`"):
        data.open_prepared(folder)
    there = {p: p.stat().st_mtime_ns for p in folder.rglob("*-of-*")}
    assert after <= len(there) < len(list(prepared.rglob("*-of-*")))
    done = []
    prepare(corpus, preprocessor, folder, progress=lambda *step: done.append(step))
    assert done[-1] == (len(corpus), len(corpus))
    assert all(p.stat().st_mtime_ns == t for p, t in there.items())
    files = sorted(p.relative_to(prepared) for p in prepared.rglob("*") if p.is_file())
    assert files == sorted(
        p.relative_to(folder) for p in folder.rglob("*") if p.is_file()
    )
    for name in files:
        assert (folder / name).read_bytes() == (prepared / name).read_bytes(), name
    # And once more there is nothing to do.
    prepare(corpus, preprocessor, folder)
    assert all(p.stat().st_mtime_ns == t for p, t in there.items())


def test_another_text_or_setting_needs_another_directory(
    corpus, preprocessor, prepared, tmp_path
) -> None:
    for change, field in (
        ({"seed": 1}, "seed"),
        ({"shard_size": 65}, "shard_size"),
        ({"formats": ("arrays",)}, "formats"),
    ):
        with raises(ValueError, field):
            prepare(corpus, preprocessor, prepared, **change)
    with raises(ValueError, "counts"):
        prepare(corpus.select(["hi"]), preprocessor, prepared)
    other = SentencePreprocessor(labse_tf.WordPieceTokenizer([*SPECIAL, *WORDS[::-1]]))
    with raises(ValueError, "tokenizer"):
        prepare(corpus, other, prepared)
    (tmp_path / "thesis.txt").write_text("mine")
    with raises(ValueError, received="thesis.txt"):
        prepare(corpus, preprocessor, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formats": ("parquet",)}, Fields(argument="formats")),
        ({"formats": ()}, Fields(received=True)),
        ({"sequence_length": 2}, Fields(3, "65,536", argument="sequence_length")),
        ({"shard_size": 0}, Fields(14, 0, received=True)),
        ({"seed": -1}, Fields(argument="seed")),
    ],
)
def test_bad_arguments_are_refused(
    corpus, preprocessor, tmp_path, change, message
) -> None:
    with raises(ValueError, message):
        prepare(corpus, preprocessor, tmp_path / "new", **change)
    assert not (tmp_path / "new").exists()


# === Reading: arrays ===


def test_token_ids_train_as_their_text_does(corpus, preprocessor, prepared) -> None:
    """In file order the features of ids are those of the text, pair by pair."""
    tokens = data.open_prepared(prepared)
    plan = data.SamplingPlan(16, shuffle=False, drop_remainder=False)
    found, expected = (
        [
            pair
            for batch in data.sentence_pairs(text, preprocessor, plan)
            for pair in rows_of(batch)
        ]
        for text in (tokens, corpus)
    )
    assert sorted(found) == sorted(expected) and len(found) == len(corpus)
    batch = next(iter(data.sentence_pairs(tokens, preprocessor, batch_size=16)))
    text = next(iter(data.sentence_pairs(corpus, preprocessor, batch_size=16)))
    tf.nest.assert_same_structure(batch, text)
    assert batch["source"]["token_ids"].dtype == tf.int32
    assert batch["source"]["token_ids"].shape[0] == 16


def test_options_of_batches_work_on_token_ids(preprocessor, prepared) -> None:
    tokens = data.open_prepared(prepared)
    whole, late = (
        list(
            data.sentence_pairs(
                tokens,
                preprocessor,
                data.SamplingPlan(
                    8,
                    steps=80,
                    start_step=start,
                    batches="one_language",
                    length_buckets="tokens",
                    seed=3,
                ),
            )
        )
        for start in (0, 70)
    )
    assert all(map(same, whole[70:], late)) and len(late) == 10
    first = preprocessor.tokenizer.token_to_id("w0")
    languages = [{row[1][1] - first for row in rows_of(batch)} for batch in whole]
    assert all(len(of_batch) == 1 for of_batch in languages)
    assert {0, 1} <= set().union(*languages)
    only = tokens.select(["mr"])
    plan = data.SamplingPlan(10, batches="one_language")
    batches = data.sentence_pairs(only, preprocessor, plan)
    pairs = [row for batch in batches for row in rows_of(batch)]
    assert {row[1][1] - first for row in pairs} == {1} and len(set(pairs)) == 50
    assert only.digest() != tokens.digest()
    assert data.open_prepared(prepared, languages=["mr"]).counts == {"mr": 50}


def test_arrays_need_no_tensorflow(prepared, run_python) -> None:
    found = run_python(
        """
        import sys
        for name in ("tensorflow", "tensorflow_text", "keras"):
            sys.modules[name] = None
        from labse_tf import data
        corpus = data.open_prepared(sys.argv[1])
        sources, targets = corpus.pairs("mr", range(50))
        print(corpus.counts, len(sources), targets[49].dtype, targets[49][0])
        """,
        prepared,
    )
    assert found.strip() == f"{COUNTS} 50 int32 {len(SPECIAL) + 1}"


def test_damaged_and_missing_files_are_named(prepared, tmp_path) -> None:
    folder = tmp_path / "pairs"
    shutil.copytree(prepared, folder)
    shard = folder / "arrays" / "mr-00000-of-00001.npz"
    whole = shard.read_bytes()
    other = (folder / "arrays" / "ta-00000-of-00001.npz").read_bytes()
    for content in (whole[:100], b"", other):
        shard.write_bytes(content)
        with raises(ValueError, "mr-00000", 50):
            data.open_prepared(folder)
    shard.unlink()
    with pytest.raises(FileNotFoundError):
        data.open_prepared(folder)
    description = json.loads((folder / "dataset.json").read_text())
    for text in ("{", "[]", "{}", json.dumps({**description, "version": 2})):
        (folder / "dataset.json").write_text(text)
        with raises(ValueError, path="dataset.json"):
            data.open_prepared(folder)


def test_what_does_not_fit_is_refused(corpus, preprocessor, prepared, tmp_path) -> None:
    tokens, stream = data.open_prepared(prepared), data.PairStream(prepared)
    tokenizer = preprocessor.tokenizer
    lower = labse_tf.WordPieceTokenizer([*SPECIAL, *WORDS], lowercase=True)
    for batches, text in (
        (data.sentence_pairs, tokens),
        (data.stream_pairs, stream),
    ):
        with raises(ValueError, "lowercase=False", received="True"):
            batches(text, SentencePreprocessor(lower, 12), batch_size=4)
        with raises(ValueError, 14, received=15):
            batches(text, SentencePreprocessor(tokenizer, 15), batch_size=4)
        with raises(ValueError, "SentencePreprocessor"):
            batches(text, lambda texts: {}, batch_size=4)
    with raises(ValueError, argument="languages"):
        data.open_prepared(prepared, languages=["en"])
    prepare(corpus, preprocessor, tmp_path / "a", formats=["arrays"])
    with raises(ValueError, "TFRecords"):
        data.PairStream(tmp_path / "a")
    prepare(corpus, preprocessor, tmp_path / "b", formats=["tfrecord"])
    with raises(ValueError, "TFRecords"):
        data.open_prepared(tmp_path / "b")


# === Reading: the stream ===


def streamed(prepared, preprocessor, languages=None, **options) -> list:
    stream = data.PairStream(prepared, languages=languages)
    return list(data.stream_pairs(stream, preprocessor, data.SamplingPlan(**options)))


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 4},
        {"batch_size": 3, "length_buckets": False, "smoothing": 1.0},
        {"batch_size": 5, "batches": "one_language", "cap": 100},
    ],
)
def test_a_stream_that_starts_later_is_the_same(
    prepared, preprocessor, options
) -> None:
    """Over the bounds of shards, epochs and windows of 64 batches."""
    whole = streamed(prepared, preprocessor, steps=200, seed=5, **options)
    assert len(whole) == 200
    for start in (1, 64, 150):
        late = streamed(
            prepared, preprocessor, steps=200, start_step=start, seed=5, **options
        )
        assert len(late) == 200 - start and all(map(same, whole[start:], late))
    other = streamed(prepared, preprocessor, steps=4, seed=6, **options)
    assert not all(map(same, whole, other))
    assert whole[0]["source"]["token_ids"].shape[0] == options["batch_size"]


def test_an_epoch_of_a_stream_has_every_pair_once(
    corpus, preprocessor, prepared
) -> None:
    expected = collections.Counter(
        row
        for batch in data.sentence_pairs(
            corpus.select(["hi"]),
            preprocessor,
            data.SamplingPlan(230, shuffle=False),
        )
        for row in rows_of(batch)
    )
    epochs = []
    batches = streamed(prepared, preprocessor, ["hi"], batch_size=10, steps=64 * 3)
    pairs = [row for batch in batches for row in rows_of(batch)]
    # A window of 640 pairs is sorted; epochs are told apart by counting.
    assert collections.Counter(pairs[:640]).most_common()[-1][1] >= 640 // 230
    unsorted = streamed(
        prepared,
        preprocessor,
        ["hi"],
        batch_size=10,
        steps=69,
        length_buckets=False,
    )
    pairs = [row for batch in unsorted for row in rows_of(batch)]
    for start in (0, 230, 460):
        epochs.append(pairs[start : start + 230])
        assert collections.Counter(epochs[-1]) == expected
    # Four shards come in another order.
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_stream_draws_the_mixture(prepared, preprocessor) -> None:
    batches = streamed(prepared, preprocessor, batch_size=8, steps=128)
    first = preprocessor.tokenizer.token_to_id("w0")
    drawn = collections.Counter(
        row[1][1] - first for batch in batches for row in rows_of(batch)
    )
    for number, share in enumerate(data.mixture(COUNTS).values()):
        assert abs(drawn[number] - 128 * 8 * share) <= 2
    lengths = [[max(map(len, row)) for row in rows_of(batch)] for batch in batches]
    loose = streamed(
        prepared, preprocessor, batch_size=8, steps=128, length_buckets=False
    )
    spread = [max(map(len, r)) for b in loose for r in rows_of(b)]

    def padding(rows: list[list[int]]) -> float:
        return 1 - sum(map(sum, rows)) / sum(len(r) * max(r) for r in rows)

    unsorted = [spread[i : i + 8] for i in range(0, len(spread), 8)]
    assert padding(lengths) < 0.6 * padding(unsorted)


def test_a_pair_that_is_drawn_often_does_not_meet_itself(
    prepared, preprocessor
) -> None:
    """Seven Tamil pairs come 13 times each in 64 batches of 8."""

    def met(batches) -> int:
        return sum(8 - len(set(rows)) for rows in map(rows_of, batches))

    plan = data.SamplingPlan(8, steps=64)
    stream = met(data.stream_pairs(data.PairStream(prepared), preprocessor, plan))
    tokens = data.open_prepared(prepared)
    assert stream <= 1.3 * met(data.sentence_pairs(tokens, preprocessor, plan))
    # Side by side and not dealt out, the copies would fill batches of their own.
    assert stream < 80


def test_streams_check_their_arguments(prepared, preprocessor) -> None:
    for change, message in (
        ({"batches": "alternating"}, Fields('"mixed"', '"one_language"')),
        ({"batch_size": 0}, Fields(argument="batch_size")),
        ({"steps": 1, "start_step": 2}, Fields("-1", argument="steps")),
        ({"shuffle": False}, Fields("shuffle=False", argument="plan")),
    ):
        with raises(ValueError, message):
            streamed(prepared, preprocessor, **{"batch_size": 4, **change})
    endless = data.stream_pairs(
        data.PairStream(prepared), preprocessor, data.SamplingPlan(4, steps=-1)
    )
    assert endless.cardinality() == tf.data.INFINITE_CARDINALITY
    assert len(list(endless.take(300))) == 300


# === Far away ===


def test_buckets_are_directories(corpus, preprocessor, prepared) -> None:
    """`ram://` goes through `tf.io.gfile` as `gs://` does."""
    far = "ram://bucket/folder/pairs"
    calls = []

    def progress(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == 2:
            raise Stop

    with pytest.raises(Stop):
        prepare(corpus, preprocessor, far, progress=progress)
    assert not data.is_prepared(far)
    prepare(corpus, preprocessor, far)
    assert data.is_prepared(far) and data.prepared_counts(far) == COUNTS
    near = data.open_prepared(prepared)
    assert data.open_prepared(far).digest() == near.digest()
    options = {"batch_size": 4, "steps": 20, "seed": 1}
    assert all(
        map(
            same,
            streamed(far, preprocessor, **options),
            streamed(prepared, preprocessor, **options),
        )
    )
    assert not any(name.endswith(".tmp") for name in layout.names_in(far + "/arrays"))
    with raises(OSError, "bucket/none"):
        layout.read_bytes("ram://bucket/none")


def test_two_writers_of_a_far_file_do_not_meet_and_leave_nothing_behind() -> None:
    path = "ram://writers/folder/file"
    with layout.new_file(path) as first, layout.new_file(path) as second:
        assert first != second
        for temporary, text in ((first, "first"), (second, "second")):
            with tf.io.gfile.GFile(temporary, "w") as file:
                file.write(text)
    assert layout.read_bytes(path) == b"first"
    with pytest.raises(Stop), layout.new_file(path) as temporary:
        with tf.io.gfile.GFile(temporary, "w") as file:
            file.write("half")
        raise Stop
    assert layout.read_bytes(path) == b"first"
    assert layout.names_in("ram://writers/folder") == {"file"}


# === The commands ===


def test_prepare_and_train_from_the_shell(tmp_path, capsys) -> None:
    """Prepare, train on the arrays and on the stream; a finished run is left alone."""
    corpus = make_corpus()
    files = []
    for language in ("hi", "mr"):
        sides = corpus.pairs(language, range(COUNTS[language]))
        files.append(tmp_path / f"en-{language}.tsv")
        lines = [f"{s.decode()}\t{t.decode()}\n" for s, t in zip(*sides, strict=True)]
        files[-1].write_text("".join(lines))
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("".join(token + "\n" for token in [*SPECIAL, *WORDS]))
    folder = tmp_path / "prepared"
    arguments = ["prepare", *map(str, files), "--vocab", str(vocabulary)]
    arguments += ["--output", str(folder), "--sequence-length", "16"]
    assert cli.main(arguments) == 0
    output = capsys.readouterr().out
    check_message(output, 280, 2, "arrays", "tfrecord")
    assert cli.main(["balance", str(folder)]) == 0
    assert "82.14%" in capsys.readouterr().out
    flags = "--num-layers 0 --hidden-dim 8 --num-heads 2 --intermediate-dim 8"
    flags += " --pooling mean --batch-size 16 --train-steps 6 --sequence-length 12"
    train = ["train", str(folder), "--vocab", str(folder / "vocab.txt")]
    for name, more in (("arrays", []), ("stream", ["--stream"])):
        run = [*train, *flags.split(), "--output", str(tmp_path / name), *more]
        assert cli.main(run) == 0
        assert presets.is_preset(tmp_path / name)
    capsys.readouterr()
    wrong = [*train, *flags.split(), "--output", str(tmp_path / "no")]
    for change, message in (
        (["--sequence-length", "64"], "at most 16"),
        (["--lowercase"], "lowercase=False"),
        (["--language", "hi"], "without --language"),
    ):
        assert cli.main([*wrong, *change]) == 2
        assert message in capsys.readouterr().err
    # What was refused before its first step leaves the directory to what is right.
    assert cli.main(wrong) == 0


def test_a_directory_of_an_earlier_version(corpus, preprocessor, prepared, tmp_path):
    """Its shards are named by other codes of the languages; two are of one language."""
    folder = Path(shutil.copytree(prepared, tmp_path / "old"))
    labels = {"hi": "hi-IN", "mr": "hin", "ta": "ta"}
    for path in [*folder.glob("*/*")]:
        code, number = path.name.split("-", 1)
        path.rename(path.with_name(f"{labels[code]}-{number}"))
    description = json.loads((folder / "dataset.json").read_text())
    counts = {labels[code]: n for code, n in description["counts"].items()}
    (folder / "dataset.json").write_text(json.dumps({**description, "counts": counts}))
    assert data.prepared_counts(folder) == {"hi": 280, "ta": 7}
    assert data.prepared_counts(folder, ["hin"]) == {"hi": 280}
    tokens = data.open_prepared(folder, languages=["hi_IN", "tam"])
    assert tokens.counts == {"hi": 280, "ta": 7}
    sides = tokens.pairs("hi", range(280))
    found = [tuple(map(tuple, pair)) for pair in zip(*sides, strict=True)]
    expected = [token_pairs(corpus, preprocessor, code) for code in ("hi", "mr")]
    assert sorted(found) == sorted(itertools.chain(*expected))
    stream = data.PairStream(folder)
    assert stream.counts == {"hi": 280, "ta": 7}
    plan = data.SamplingPlan(20, smoothing=1.0)
    batches = data.stream_pairs(stream, preprocessor, plan)
    marks = {row[1][1] for batch in batches for row in rows_of(batch)}
    assert marks == {preprocessor.tokenizer.vocabulary.index(m) for m in MARKS.values()}
