"""Pipelines give what the local commands give, whatever the order and the bundles."""

from __future__ import annotations

import functools
import gzip
import json
import os
import random
import re
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.errors import check_message, raises

beam = pytest.importorskip(
    "apache_beam", reason="Apache Beam is missing: pip install '.[beam]'"
)

from apache_beam.io.filesystem import FileMetadata  # noqa: E402
from apache_beam.io.filesystems import FileSystems  # noqa: E402
from apache_beam.io.localfilesystem import LocalFileSystem  # noqa: E402
from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402

import labse_tf.beam as pipelines  # noqa: E402
from labse_tf import cli, data, tokenizers  # noqa: E402
from labse_tf.beam import cleaning, commands, embedding, ordering, preparing  # noqa: E402
from labse_tf.beam import files as beam_files  # noqa: E402
from labse_tf.beam.files import find_files, publish  # noqa: E402
from labse_tf.data import CleaningReport, CleaningRules, HeldOut, SentencePair  # noqa: E402
from labse_tf.data.cleaning import new_report  # noqa: E402
from labse_tf.encoders import Encoder, open_encoder  # noqa: E402

RUNNER = "FnApiRunner"  # the direct runner without a download of Prism before it

# What pipelines put out: they run in this process.
COLLECTED: dict[str, list] = {}


def collect(element, name):
    COLLECTED.setdefault(name, []).append(element)


def run(build, *flags):
    """Runs a pipeline; returns what `build` names: {name: PCollection}."""
    COLLECTED.clear()
    options = PipelineOptions(list(flags), runner=RUNNER)
    with beam.Pipeline(options=options) as pipeline:
        for name, elements in build(pipeline).items():
            elements | f"collect {name}" >> beam.Map(collect, name)
    return {name: list(elements) for name, elements in COLLECTED.items()}


# === clean ===

ENGLISH = [
    *("Open the file again", "open the file, again!", "Open the  file again 7"),
    *("Where is the station?", "WHERE IS THE STATION", "Short", "See <b>this</b> one"),
    *("The sum of all the parts", "The sum of all the parts."),
]
TARGETS = {
    "hi": [
        *("फ़ाइल फिर से खोलें", "फ़ाइल फिर से खोलें।", "फ़ाइल 7 फिर से खोलें"),
        *("स्टेशन कहाँ पर है?", "स्टेशन कहाँ पर है", "Where is the station"),
    ],
    "mr": ["फाइल पुन्हा उघडा", "फाइल पुन्हा उघडा!", "स्थानक कुठे आहे?"],
}
HELD_OUT = "The sum of all the parts\n"


@st.composite
def corpora(draw):
    """Pairs of several files and languages, most of them somebody's duplicates."""
    files = draw(st.lists(st.sampled_from(sorted(TARGETS)), min_size=1, max_size=4))
    return [
        [
            SentencePair(source, target, language)
            for source, target in draw(
                st.lists(
                    st.tuples(
                        st.sampled_from(ENGLISH), st.sampled_from(TARGETS[language])
                    ),
                    max_size=12,
                )
            )
        ]
        for language in files
    ]


def rules():
    names = ["duplicate", "near_duplicate", "too_short", "markup"]
    return st.lists(st.sampled_from(names), unique=True).map(CleaningRules().without)


def positioned(files):
    return [
        (pipelines.position(number, index), pair)
        for number, pairs in enumerate(files)
        for index, pair in enumerate(pairs)
    ]


def clean_locally(files, chosen, held_out=()):
    report = new_report(held_out)
    pairs = (pair for pairs in files for pair in pairs)
    kept = list(data.clean_pairs(pairs, chosen, held_out=held_out, report=report))
    return kept, report.to_dict()


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    path = tmp_path_factory.mktemp("held") / "test.txt"
    path.write_text(HELD_OUT, encoding="utf-8")
    return [HeldOut("test-set", path)]


@settings(deadline=None, max_examples=150)
@given(files=corpora(), chosen=rules(), seed=st.integers(0, 99))
def test_steps_of_cleaning_give_what_one_machine_gives(held_out, files, chosen, seed):
    """Without a runner: judged in any batches, grouped, each group in any order."""
    rng = random.Random(seed)
    elements = positioned(files)
    rng.shuffle(elements)
    names = new_report(held_out).rules
    reports, groups, kept = [], {}, []

    def sort_out(outputs, main):
        for output in outputs:
            if isinstance(output, beam.pvalue.TaggedOutput):
                reports.append(output.value)
            else:
                main(output)

    while elements:
        size = rng.randint(1, 5)
        batch, elements = elements[:size], elements[size:]
        sort_out(
            cleaning._judge(batch, chosen, held_out, names),
            lambda out: groups.setdefault(out[0], []).append(out[1]),
        )
    for key, rows in groups.items():
        if chosen.duplicates or chosen.near_duplicates:
            group = key, rng.sample(rows, len(rows))
            sort_out(cleaning._keep_first(group, chosen.duplicates, names), kept.append)
        else:
            kept += [cleaning._kept(key, row) for row in rows]

    combine = cleaning.CombineReports(names)
    half = len(reports) // 2
    totals = []
    for part in (reports[:half], reports[half:]):
        total = combine.create_accumulator()
        for report in rng.sample(part, len(part)):
            total = combine.add_input(total, report)
        totals.append(total)
    report = combine.extract_output(combine.merge_accumulators(totals))

    expected, counted = clean_locally(files, chosen, held_out)
    assert [SentencePair(*pair) for _, pair in sorted(kept)] == expected
    assert report.to_dict() == counted


@pytest.mark.parametrize("without", [[], ["near_duplicate"], ["duplicate"], ["both"]])
def test_clean_pairs_gives_what_one_machine_gives(held_out, without):
    rng = random.Random(len(without))
    both = ["duplicate", "near_duplicate"]
    chosen = CleaningRules().without(both if without == ["both"] else without)
    files = [
        [
            SentencePair(rng.choice(ENGLISH), rng.choice(TARGETS[code]), code)
            for _ in range(60)
        ]
        for code in ("hi", "mr", "hi")
    ]
    elements = positioned(files)
    rng.shuffle(elements)

    def build(pipeline):
        pairs = pipeline | beam.Create(elements)
        cleaned = pairs | pipelines.CleanPairs(chosen, held_out=held_out)
        return {"kept": cleaned.kept, "report": cleaned.report}

    found = run(build)
    expected, counted = clean_locally(files, chosen, held_out)
    assert [SentencePair(*pair) for _, pair in sorted(found["kept"])] == expected
    assert [report.to_dict() for report in found["report"]] == [counted]
    assert counted["removed"]["test-set"] and counted["removed"]["markup"]


def test_reports_add_up_in_any_order():
    combine = cleaning.CombineReports(["markup"])
    assert combine.extract_output(combine.create_accumulator()).to_dict() == (
        CleaningReport(["markup"]).to_dict()
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Pair files of two languages, in folders, hi in two of them."""
    root = tmp_path_factory.mktemp("corpus")
    rng = random.Random(3)
    for name, code in (("b/en-hi.tsv", "hi"), ("a/en-hi.tsv.gz", "hi")) + (
        ("en-mr.tsv", "mr"),
    ):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        lines = "".join(
            f"{rng.choice(ENGLISH)} {'abcdefgh'[rng.randrange(8)]}\t"
            f"{rng.choice(TARGETS[code])}\n"
            for _ in range(150)
        )
        opener = gzip.open if name.endswith(".gz") else open
        with opener(path, "wt", encoding="utf-8") as file:
            file.write(lines)
    return root


def lines_of(folder, language):
    """The lines of a language's files, one file after another."""
    names = [f"en-{language}.tsv.gz", f"en-{language}-*.tsv.gz"]
    paths = sorted(path for name in names for path in Path(folder).glob(name))
    assert paths
    return b"".join(gzip.decompress(path.read_bytes()) for path in paths)


def test_clean_command_writes_the_same_lines(corpus, tmp_path, capsys):
    report = data.clean_files(corpus, tmp_path / "local", CleaningRules(interface=True))
    arguments = [str(corpus), "--interface", "--shard-size", "20", "--runner", RUNNER]
    output = tmp_path / "beam"
    assert commands.main(["clean", *arguments, "--output", str(output)]) == 0
    for language in ("hi", "mr"):
        assert lines_of(output, language) == lines_of(tmp_path / "local", language)
    for name in ("cleaning.json", "cleaning.md"):
        local = (tmp_path / "local" / name).read_bytes()
        assert (output / name).read_bytes() == local
    shards = sorted(path.name for path in output.glob("en-hi-*.tsv.gz"))
    kept = report.kept["hi"]
    total = -(-kept // 20)
    assert total > 1
    assert shards == [f"en-hi-{i:05d}-of-{total:05d}.tsv.gz" for i in range(total)]
    # The names say the language to whoever reads the folder next.
    assert data.load_pairs(output).counts == report.kept
    assert f"{sum(report.kept.values()):,} of 450 pairs" in capsys.readouterr().out

    assert commands.main(["clean", *arguments, "--output", str(output)]) == 2
    check_message(capsys.readouterr().err, argument="--output")


def test_a_bad_line_is_named_and_leaves_no_report(tmp_path, capsys, caplog):
    (tmp_path / "en-hi.tsv").write_text("good\tbad\nno tab\n", encoding="utf-8")
    output = tmp_path / "out"
    arguments = ["clean", str(tmp_path / "en-hi.tsv"), "--output", str(output)]
    assert commands.main([*arguments, "--runner", RUNNER]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("python -m labse_tf.beam: ")
    check_message(told, path=tmp_path / "en-hi.tsv", line=2, received="'no tab'")
    assert not (output / "cleaning.json").exists()
    # Without it nothing is left, which is an error as well.
    assert commands.main([*arguments, "--runner", RUNNER, "--on-error", "skip"]) == 2
    check_message(capsys.readouterr().err, received=1)
    check_message(caplog.text, 1, path=tmp_path / "en-hi.tsv", line=2)


def test_the_commands_have_the_flags_of_the_local_ones():
    def flags(parser, name):
        chosen = parser._subparsers._group_actions[0].choices[name]
        return {flag for action in chosen._actions for flag in action.option_strings}

    ours, local = commands.build_parser(), cli.build_parser()
    for name, gone in (
        ("clean", {"--overwrite", "--json"}),
        ("prepare", {"--json"}),
        ("embed", {"--json"}),
    ):
        missing = flags(local, name) - flags(ours, name)
        assert missing == gone, name


# === shards ===


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.binary(min_size=2, max_size=3), unique=True, min_size=1, max_size=60),
    st.integers(1, 9),
    st.integers(1, 2),
)
def test_steps_of_sharding_cut_sorted_keys(keys, size, prefix):
    """By the k-th of the sorted keys, in buckets of any sizes."""
    buckets = Counter(key[:prefix] for key in keys)
    starts = dict(ordering._starts("g", list(buckets.items())[::-1]))
    cuts = sorted(
        cut
        for bucket in buckets
        for _, cut in ordering._cuts(
            (("g", bucket), [key for key in keys if key[:prefix] == bucket]),
            size,
            starts,
        )
    )
    assigned = [ordering._assign(("g", key, None), {"g": cuts})[0] for key in keys]
    total = -(-len(keys) // size)
    rank = {key: i for i, key in enumerate(sorted(keys))}
    assert assigned == [("g", rank[key] // size, total) for key in keys]


# === count words ===


def test_words_are_counted_as_for_a_local_vocabulary(corpus, tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    odd = ["a\u2028b c\u200dd", "x" * 500 + " short", "tab\u00a0and\u3000blank", "é É"]
    with (texts / "en-hi.tsv").open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{source}\tनमस्ते दुनिया, {source}\n" for source in odd)
    files = [corpus, texts / "en-hi.tsv"]
    arguments = ["count-words", *map(str, files), "--runner", RUNNER]
    counts = tmp_path / "counts"
    assert commands.main([*arguments, "--output", str(counts)]) == 0

    found = tokenizers.read_word_counts(sorted(counts.glob("counts-*.tsv.gz")))
    sentences: dict[str, list[str]] = {}
    for path in data.find_pair_files(files):
        for language, sentence in data.read_sentences(path):
            sentences.setdefault(language, []).append(sentence)
    counter = tokenizers.WordCounter()
    assert found == {code: counter.count(texts) for code, texts in sentences.items()}
    # Not by our own counter alone.
    assert found["hi"]["दुनिया"] == len(odd)
    stations = sum(text.count("station") for text in sentences["en"])
    assert found["en"]["station"] == stations > 10
    assert max(map(len, found["en"])) < 400

    vocabulary = tokenizers.learn_vocabulary(
        data.find_pair_files(files), 300, reader=data.read_sentences, progress=False
    )
    assert len(vocabulary) > 150
    learned = tmp_path / "vocab.txt"
    assert not cli.main(
        f"vocab {counts} --from-counts --size 300 --output {learned}".split()
    )
    assert tokenizers.load_vocabulary(learned) == vocabulary


def test_vocabularies_are_of_all_text_in_a_directory(tmp_path):
    """As for `pretrain --mono`: also of text that is not in pairs."""
    folder, output = tmp_path / "text", tmp_path / "vocab.txt"
    folder.mkdir()
    for name, text in (("en-mr.tsv", "sun\tसूर्य\n" * 3), ("ta.txt", "சூரியன்\n" * 3)):
        (folder / name).write_text(text, encoding="utf-8")
    assert cli.main(["vocab", str(folder), "--size", "200", "-o", str(output)]) == 0
    assert {"ர", "य", "u"} <= {t.strip("#") for t in tokenizers.load_vocabulary(output)}
    found = pipelines.ReadSentences(folder)._read.paths
    assert found == [str(folder / "en-mr.tsv"), str(folder / "ta.txt")]
    assert pipelines.ReadPairs(folder)._read.paths == found[:1]


def test_vocab_from_counts_ignores_no_flag(tmp_path, capsys):
    counts, output = tmp_path / "counts.tsv", tmp_path / "vocab.txt"
    counts.write_text("hi\tन\t9\nta\tத\t9\nen\tsun\t9\n", encoding="utf-8")
    common = ["vocab", str(counts), "--size", "200", "--output", str(output)]
    for flag in (
        ["--language", "hi"],
        ["--on-error", "skip"],
        ["--lowercase"],
        ["--strip-accents"],
        ["--no-strip-accents"],
        ["--workers", "1"],
    ):
        assert cli.main([*common, "--from-counts", *flag]) == 2
        name = flag[0].replace("--no-", "--[no-]").replace("--strip", "--[no-]strip")
        check_message(capsys.readouterr().err, received=name)
        assert not output.exists()
    chosen = ["--from-counts", "--smoothing", "1", "--languages", "hin", "en"]
    assert cli.main([*common, *chosen]) == 0
    learned = tokenizers.load_vocabulary(output)
    assert "न" in learned and "த" not in learned
    assert cli.main([*common, "--from-counts", "--languages", "mr"]) == 2
    check_message(capsys.readouterr().err, argument="languages", received="mr")


def test_word_counts_add_up_and_bad_ones_are_named(tmp_path):
    good, bad = tmp_path / "good.tsv", tmp_path / "bad.tsv"
    good.write_text("hi\tन\t2\nen\ta\u2028b\t1\nhi\tन\t3\n", encoding="utf-8")
    assert tokenizers.read_word_counts([good]) == {
        "en": {"a\u2028b": 1},
        "hi": {"न": 5},
    }
    bad.write_text("hi\tन\t2\nhi\tन\n", encoding="utf-8")
    with raises(data.DataError, path=bad, line=2):
        tokenizers.read_word_counts([bad])
    with raises(ValueError, argument="counts"):
        tokenizers.learn_vocabulary_from_counts({"hi": {}}, 200)


# === prepare ===


@pytest.fixture(scope="module")
def vocabulary(corpus):
    return tokenizers.learn_vocabulary(
        data.find_pair_files(corpus), 250, reader=data.read_sentences, progress=False
    )


def pairs_of(corpus):
    """The token ids of each pair of a corpus, by language, sorted."""
    found = {}
    for language, count in corpus.counts.items():
        sides = corpus.pairs(language, np.arange(count))
        rows = ([ids.tolist() for ids in side] for side in sides)
        found[language] = sorted(zip(*rows, strict=True))
    return found


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_prepared_directory_is_read_as_the_local_one(corpus, vocabulary, tmp_path):
    tokenizer = tokenizers.WordPieceTokenizer(vocabulary)
    vocab = tmp_path / "vocab.txt"
    tokenizers.save_vocabulary(vocabulary, vocab)
    options = {"sequence_length": 8, "shard_size": 64, "seed": 5}
    local = tmp_path / "local"
    data.prepare_pairs(data.load_pairs(corpus), tokenizer, local, **options)
    output = tmp_path / "beam"
    flags = ["--sequence-length", "8", "--shard-size", "64", "--seed", "5"]
    arguments = ["prepare", str(corpus), "--vocab", str(vocab), *flags]
    arguments += ["--output", str(output), "--runner", RUNNER]
    assert commands.main(arguments) == 0

    assert content(output).keys() == content(local).keys()
    assert content(output)["vocab.txt"] == content(local)["vocab.txt"]
    described = json.loads((output / "dataset.json").read_text())
    same = json.loads((local / "dataset.json").read_text())
    assert described.pop("text") != same.pop("text")
    assert described == same
    prepared = data.open_prepared(output)
    assert pairs_of(prepared) == pairs_of(data.open_prepared(local))

    from labse_tf.preprocessing import SentencePreprocessor

    preprocessor = SentencePreprocessor(tokenizer, 8)
    stream = data.PairStream(output)
    batches = data.stream_pairs(stream, preprocessor, data.SamplingPlan(10, steps=3))
    assert [len(batch["source"]["token_ids"]) for batch in batches] == [10] * 3
    # Both formats hold the same pairs in the same order.
    import tensorflow as tf

    records = sorted(map(str, (output / "tfrecord").glob("hi-*.tfrecord")))
    parsed = [
        tf.train.Example.FromString(record).features.feature["target"].int64_list.value
        for record in tf.data.TFRecordDataset(records).as_numpy_iterator()
    ]
    _, targets = prepared.pairs("hi", np.arange(described["counts"]["hi"]))
    assert list(map(list, parsed)) == [ids.tolist() for ids in targets]
    # Not in the order of the text.
    texts, _ = data.load_pairs(corpus).pairs("hi", np.arange(len(targets)))
    sources, _ = prepared.pairs("hi", np.arange(len(targets)))
    cut = [ids[:6] for ids in tokenizer(texts).to_list()]
    assert [ids.tolist() for ids in sources] != cut


def test_shards_do_not_depend_on_order_and_bundles(corpus, vocabulary, tmp_path):
    tokenizer = tokenizers.WordPieceTokenizer(vocabulary)
    files = [list(data.read_pairs(path)) for path in data.find_pair_files(corpus)]
    elements = positioned(files)
    found = []
    for number, flags in enumerate(
        ([], ["--direct_num_workers=3", "--direct_running_mode=multi_threading"])
    ):
        output = tmp_path / str(number)

        def build(pipeline, output=output):
            prepare = pipelines.PreparePairs(tokenizer, output, shard_size=50)
            (
                pipeline
                | beam.Create(elements)
                | beam.Reshuffle()
                | beam.Map(lambda element: element)
                | prepare
            )
            return {}

        run(build, *flags)
        found.append(content(output))
        random.Random(1).shuffle(elements)
    assert found[0] == found[1]
    description = json.loads(found[0]["dataset.json"])
    assert description["counts"] == {"hi": 300, "mr": 150}

    other = tmp_path / "other"
    prepare = pipelines.PreparePairs(tokenizer, other, shard_size=50, seed=1)
    run(lambda pipeline: (pipeline | beam.Create(elements) | prepare) and {})
    first, second = data.open_prepared(tmp_path / "0"), data.open_prepared(other)
    assert pairs_of(first) == pairs_of(second)
    assert (
        content(other)["arrays/hi-00000-of-00006.npz"]
        != (found[0]["arrays/hi-00000-of-00006.npz"])
    )


def test_a_stopped_prepare_resumes_and_ends_as_one_undisturbed(
    corpus, vocabulary, tmp_path, monkeypatch, capsys
):
    corpus = shutil.copytree(corpus, tmp_path / "corpus")
    vocab, output = tmp_path / "vocab.txt", tmp_path / "out"
    tokenizers.save_vocabulary(vocabulary, vocab)

    def prepare(output, *flags):
        arguments = ["prepare", str(corpus), "--vocab", str(vocab), "--shard-size"]
        arguments += ["64", "--output", str(output), "--runner", RUNNER, *flags]
        return commands.main(arguments)

    written, write_shard = [], preparing.write_shard

    def writes(path, *rest, most):
        if len(written) == most:
            raise ValueError("expected to go on. Received: a stop")
        write_shard(path, *rest)
        written.append(Path(path).name)

    def wrote(most=1000):
        written.clear()
        stopping = functools.partial(writes, most=most)
        monkeypatch.setattr(preparing, "write_shard", stopping)

    wrote()
    assert prepare(tmp_path / "whole") == 0
    files = sorted(written)
    # Both formats of two shards, and one of a third, which counts as missing.
    wrote(most=5)
    assert prepare(output) == 2
    assert "a stop" in capsys.readouterr().err
    assert not data.is_prepared(output)
    refuses = prepare(output, "--seed", "1")
    assert refuses == 2
    check_message(capsys.readouterr().err, "seed", path=output)
    finished = set(written[:4])
    wrote()
    assert prepare(output) == 0
    assert sorted(written) == sorted(set(files) - finished)
    assert content(output) == content(tmp_path / "whole")
    assert not (output / "preparing").exists()

    # Finished: no shard is written again, and other pairs are refused.
    wrote()
    assert prepare(output) == 0 and written == []
    before = content(output)
    changed = corpus / "en-mr.tsv"
    changed.write_text("one more line\tएक और पंक्ति\n" + changed.read_text())
    assert prepare(output) == 2
    check_message(capsys.readouterr().err, "other pairs", path=output)
    assert content(output) == before


def test_prepare_resumes_with_other_pairs_as_if_it_had_not_been_stopped(
    corpus, vocabulary, tmp_path, monkeypatch
):
    """Shards of the first pairs are replaced, and removed if there are fewer now."""
    tokenizer = tokenizers.WordPieceTokenizer(vocabulary)
    files = [list(data.read_pairs(path)) for path in data.find_pair_files(corpus)]
    elements = positioned(files)
    write = preparing._write_description

    def prepared(elements, output):
        prepare = pipelines.PreparePairs(tokenizer, output, shard_size=50)
        run(lambda pipeline: (pipeline | beam.Create(elements) | prepare) and {})
        return content(output)

    def stops(*arguments):
        raise ValueError("a stop")

    monkeypatch.setattr(preparing, "_write_description", stops)
    with pytest.raises(Exception, match="a stop"):
        prepared(elements, tmp_path / "out")
    monkeypatch.setattr(preparing, "_write_description", write)
    fewer = elements[:-120]
    assert prepared(fewer, tmp_path / "out") == prepared(fewer, tmp_path / "whole")


@pytest.mark.parametrize("error", [True, False])
def test_a_file_is_published_atomically(tmp_path, monkeypatch, error):
    """A reader finds the old or the new file at any moment."""
    target, source = tmp_path / "target", tmp_path / "source"
    target.write_text("old")
    source.write_text("new")
    rename = FileSystems.rename

    def renames(sources, targets):
        assert target.read_text() == "old"
        if error:
            raise OSError("the disk is full")
        rename(sources, targets)

    monkeypatch.setattr(FileSystems, "rename", renames)
    # Local targets do not go through Beam's file systems.
    monkeypatch.setattr(beam_files, "is_remote", lambda path: True)
    if error:
        with pytest.raises(OSError):
            publish(source, str(target))
    else:
        publish(source, str(target))
    assert target.read_text() == ("old" if error else "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source", "target"]


def test_prepare_refuses_what_makes_no_sense(vocabulary, tmp_path):
    tokenizer = tokenizers.WordPieceTokenizer(vocabulary)
    with raises(ValueError, argument="formats"):
        pipelines.PreparePairs(tokenizer, tmp_path, formats=["csv"])
    with raises(ValueError, argument="shard_size"):
        pipelines.PreparePairs(tokenizer, tmp_path, shard_size=0)
    with raises(ValueError, argument="shard_size"):
        pipelines.WritePairs(tmp_path, shard_size=0)
    with raises(Exception, argument="pairs"):
        prepare = pipelines.PreparePairs(tokenizer, tmp_path / "out")
        run(lambda pipeline: (pipeline | beam.Create([]) | prepare) and {})
    assert not (tmp_path / "out" / "dataset.json").exists()


# === embed, and files that are not local ===


class FarFiles(LocalFileSystem):
    """`far://` stands for the folder FAR_ROOT."""

    @classmethod
    def scheme(cls):
        return "far"

    def _near(self, path):
        return path.replace("far://", os.environ["FAR_ROOT"] + "/", 1)

    def _path_open(self, path, *args, **kwargs):
        return super()._path_open(self._near(path), *args, **kwargs)

    def create(self, path, *args, **kwargs):
        return super().create(self._near(path), *args, **kwargs)

    def split(self, path):
        folder, _, name = path.rpartition("/")
        return folder, name

    def mkdirs(self, path):
        return super().mkdirs(self._near(path))

    def exists(self, path):
        return super().exists(self._near(path))

    def delete(self, paths):
        return super().delete([self._near(path) for path in paths])

    def rename(self, sources, targets):
        near = ([self._near(path) for path in paths] for paths in (sources, targets))
        return super().rename(*near)

    def metadata(self, path):
        found = super().metadata(self._near(path))
        return FileMetadata(path, found.size_in_bytes)

    def _list(self, folder):
        for found in super()._list(self._near(folder)):
            path = os.path.relpath(found.path, os.environ["FAR_ROOT"])
            found.path = "far://" + path
            yield found


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    from helpers.models import make_model
    from labse_tf.export import export_saved_model

    folder = tmp_path_factory.mktemp("model")
    return str(export_saved_model(make_model(num_layers=1), folder / "1"))


def test_embed_writes_the_vectors_of_the_local_command(saved_model, tmp_path):
    lines = [*ENGLISH, "", "sun\rmoon", *ENGLISH[::-1], " two  blanks "]
    first, second = tmp_path / "a.txt", tmp_path / "b.txt.gz"
    first.write_bytes("".join(f"{line}\n" for line in lines).encode())
    second.write_bytes(gzip.compress("\n".join(ENGLISH).encode()))
    output = tmp_path / "vectors"
    arguments = ["embed", str(first), str(second), "--model", saved_model]
    arguments += ["--output", str(output), "--shard-size", "8", "--runner", RUNNER]
    assert commands.main(arguments) == 0

    arrays = sorted(output.glob("vectors-*.npy"))
    total = -(-(len(lines) + len(ENGLISH)) // 8)
    assert [path.name for path in arrays] == [
        f"vectors-{i:05d}-of-{total:05d}.npy" for i in range(total)
    ]
    vectors = np.concatenate([np.load(path, mmap_mode="r") for path in arrays])
    assert vectors.dtype == np.float32
    texts = b"".join(path.read_bytes() for path in sorted(output.glob("texts-*.txt")))
    assert texts.decode().split("\n")[:-1] == [*lines, *ENGLISH]

    # What `labse-tf embed` calls, here on all lines at once.
    expected = open_encoder(saved_model)([*lines, *ENGLISH])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert np.ptp(vectors, axis=0).max() > 0.1  # they do differ


def test_embed_reads_the_requested_side_of_pairs(saved_model, tmp_path):
    path, output = tmp_path / "en-hi.tsv", tmp_path / "vectors"
    path.write_text("sun\tसूरज\nmoon\tचाँद\n", encoding="utf-8")
    arguments = ["embed", str(path), "--model", saved_model, "--side", "target"]
    arguments += ["--output", str(output), "--runner", RUNNER]
    assert commands.main(arguments) == 0
    (texts,) = output.glob("texts-*.txt")
    assert texts.read_text(encoding="utf-8").splitlines() == ["सूरज", "चाँद"]


def test_embed_computes_in_the_type_that_was_asked_for(monkeypatch, tmp_path):
    opened = []

    def open_model(*arguments):
        opened.append(arguments)
        return Encoder("my-model", lambda texts: np.zeros((len(texts), 2)), 2)

    monkeypatch.setattr(embedding, "open_encoder", open_model)
    handler = embedding.SavedModelHandler("my-model", dtype="bfloat16")
    handler.load_model()
    assert opened == [("my-model", "bfloat16", None, None)]
    options = commands.build_parser().parse_args(
        ["embed", "a.txt", "--dtype", "auto", "-o", "vectors"]
    )
    assert (options.model, options.dtype) == ("labse-mini", "auto")


def test_embed_counts_truncated_texts_as_the_local_command(tmp_path, capsys):
    """In batches of any size, on any number of threads."""
    from helpers.models import make_model

    model, text = tmp_path / "model", tmp_path / "a.txt"
    make_model(num_layers=1).save_to_preset(model)
    long = "sun " * 20
    text.write_text(f"{long}\nmoon\n" * 30 + f"{long}moon\n", encoding="utf-8")

    def embed(*flags):
        beam_out, local = tmp_path / "beam", tmp_path / "local.npy"
        common = [str(text), "--model", str(model), *flags, "--output"]
        assert cli.main(["embed", *common, str(local)]) == 0
        shutil.rmtree(beam_out, ignore_errors=True)
        capsys.readouterr()
        own = ["--runner", RUNNER, "--shard-size", "25"]
        assert commands.main(["embed", *common, str(beam_out), *own]) == 0
        found = [np.load(path) for path in sorted(beam_out.glob("vectors-*.npy"))]
        np.testing.assert_allclose(np.concatenate(found), np.load(local), atol=1e-6)
        return capsys.readouterr().err

    assert re.search(r"(?m)^31 texts were cut .*--sequence-length", embed())
    check_message(embed("--sequence-length", "5"), "31 texts", "5 tokens")

    encoder = embedding.SavedModelHandler(str(model)).load_model()
    with ThreadPoolExecutor(4) as pool:
        counts = pool.map(
            lambda _: (encoder([long, "sun"]), encoder.newly_truncated())[1], range(40)
        )
        assert sum(counts) + encoder.newly_truncated() == 40


def test_streams_are_refused_for_workers_cannot_open_them(tmp_path, capsys):
    for path in ("-", "hi=-", "/dev/stdin", "hi=/dev/fd/0"):
        for name in ("clean", "count-words", "embed"):
            output = ["--output", str(tmp_path / "out"), "--runner", RUNNER]
            assert commands.main([name, path, *output]) == 2
            check_message(capsys.readouterr().err, received=path)
    assert not (tmp_path / "out").exists()


def test_far_files_are_read_and_written(
    corpus, vocabulary, saved_model, tmp_path, monkeypatch
):
    """By Beam's file systems, in and out."""
    monkeypatch.setenv("FAR_ROOT", str(tmp_path))
    shutil.copytree(corpus, tmp_path / "corpus")
    shutil.copytree(saved_model, tmp_path / "model")
    (tmp_path / "lines.txt").write_text("sun and moon\n", encoding="utf-8")
    assert find_files(["far://corpus/**.tsv", "far://corpus/a/*"], None) == [
        *("far://corpus/a/en-hi.tsv.gz", "far://corpus/b/en-hi.tsv"),
        "far://corpus/en-mr.tsv",
    ]
    assert find_files("mr=far://corpus/b/*", None) == ["mr=far://corpus/b/en-hi.tsv"]
    with raises(ValueError, path="far://none/*"):
        find_files("far://none/*", None)

    def command(*arguments):
        assert commands.main([*arguments, "--runner", RUNNER]) == 0

    command("clean", "far://corpus/**", "--output", "far://cleaned")
    data.clean_files(corpus, tmp_path / "local")
    for language in ("hi", "mr"):
        assert lines_of(tmp_path / "cleaned", language) == (
            lines_of(tmp_path / "local", language)
        )
    vocab = tmp_path / "vocab.txt"
    tokenizers.save_vocabulary(vocabulary, vocab)
    command(
        "prepare", "far://cleaned/*.gz", "--vocab", str(vocab), "--output", "far://p"
    )
    found = run(
        lambda start: {"mr": start | pipelines.ReadPairs("mr=far://corpus/a/*")}
    )
    assert {pair[2] for _, pair in found["mr"]} == {"mr"}
    counts = data.load_pairs(tmp_path / "cleaned").counts
    assert data.open_prepared(tmp_path / "p").counts == counts
    command("count-words", "far://cleaned/*.gz", "--output", "far://counts")
    assert len(tokenizers.read_word_counts((tmp_path / "counts").iterdir())) == 3
    model = ["--model", "far://model", "--output", "far://vectors"]
    command("embed", "far://lines.txt", *model)
    assert np.load(next((tmp_path / "vectors").glob("*.npy"))).shape[0] == 1
    leftover = [path for path in tmp_path.rglob("*") if len(path.suffix) == 33]
    assert leftover == []


def test_errors_name_the_far_file(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setenv("FAR_ROOT", str(tmp_path))
    (tmp_path / "en-hi.tsv").write_text("no tab\n", encoding="utf-8")
    arguments = ["clean", "far://en-hi.tsv", "--output", "far://out"]
    assert commands.main([*arguments, "--runner", RUNNER]) == 2
    assert "far://en-hi.tsv:1: expected English" in capsys.readouterr().err
    assert commands.main([*arguments, "--runner", RUNNER, "--on-error", "skip"]) == 2
    check_message(caplog.text, 1, path="far://en-hi.tsv", line=1)
