"""Readers of `labse_tf.data`: each format against a writer that others have made."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pickle
import sys
import tracemalloc
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from helpers.errors import raises, warns
from labse_tf import data
from labse_tf.text import DataWarning, read_scored_pairs

tf = pytest.importorskip("tensorflow")
hypothesis = pytest.importorskip("hypothesis", reason="needs hypothesis")
zstandard = pytest.importorskip("zstandard", reason="the extra `text` is missing")
st = hypothesis.strategies

Rows = list[tuple[str, str]]
XML = "{http://www.w3.org/XML/1998/namespace}"


def pairs_of(path, **kwargs) -> Rows:
    return [(pair.source, pair.target) for pair in data.read_pairs(path, **kwargs)]


def triples(path, **kwargs) -> list[tuple[str, str, str]]:
    return [tuple(pair) for pair in data.read_pairs(path, **kwargs)]


def error_of(path, **kwargs) -> data.DataError:
    with pytest.raises(data.DataError) as caught:
        list(data.read_pairs(path, **kwargs))
    assert str(caught.value).startswith(f"{caught.value.path}:{caught.value.line}: ")
    return caught.value


def skipping(path, **kwargs) -> tuple[Rows, data.SkipReport]:
    report = data.SkipReport()
    return pairs_of(path, on_error="skip", skipped=report, **kwargs), report


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# === Trusted writers ===


def write_tsv(path: Path, rows: Rows) -> None:
    write(path, "".join(f"{a}\t{b}\n" for a, b in rows))


def write_moses(path: Path, rows: Rows) -> None:
    write(path.with_suffix(".en"), "".join(f"{a}\n" for a, _ in rows))
    write(path, "".join(f"{b}\n" for _, b in rows))


def _tmx(path: Path, rows: Rows, encoding: str) -> None:
    root = ET.Element("tmx", version="1.4")
    ET.SubElement(root, "header", srclang="en")
    body = ET.SubElement(root, "body")
    for texts in rows:
        unit = ET.SubElement(body, "tu")
        for code, text in zip(("en", "hi"), texts, strict=True):
            variant = ET.SubElement(unit, "tuv", {f"{XML}lang": code})
            ET.SubElement(variant, "seg").text = text
    ET.ElementTree(root).write(path, encoding, xml_declaration=True)


def write_tmx(path: Path, rows: Rows) -> None:
    _tmx(path, rows, "utf-8")


def write_tmx_utf16(path: Path, rows: Rows) -> None:
    _tmx(path, rows, "utf-16")


def write_xliff_1(path: Path, rows: Rows) -> None:
    ET.register_namespace("", "urn:oasis:names:tc:xliff:document:1.2")
    name = "{urn:oasis:names:tc:xliff:document:1.2}%s".__mod__
    root = ET.Element(name("xliff"), version="1.2")
    languages = {"source-language": "en", "target-language": "hi"}
    file = ET.SubElement(root, name("file"), languages)
    body = ET.SubElement(file, name("body"))
    for source, target in rows:
        unit = ET.SubElement(body, name("trans-unit"))
        ET.SubElement(unit, name("source")).text = source
        ET.SubElement(unit, name("target"), state="final").text = target
    ET.ElementTree(root).write(path, "utf-8", xml_declaration=True)


def write_xliff_2(path: Path, rows: Rows) -> None:
    # Hindi is the source here
    root = ET.Element("xliff", version="2.0", srcLang="hi", trgLang="en")
    file = ET.SubElement(root, "file")
    for english, hindi in rows:
        segment = ET.SubElement(ET.SubElement(file, "unit"), "segment")
        ET.SubElement(segment, "source").text = hindi
        ET.SubElement(segment, "target").text = english
    ET.ElementTree(root).write(path, "utf-8")


def _write_json(path: Path, objects: list[dict]) -> None:
    write(path, "".join(json.dumps(o, ensure_ascii=len(o) > 1) + "\n" for o in objects))


def write_json_languages(path: Path, rows: Rows) -> None:
    _write_json(path, [{"en": a, "hi": b, "score": 0.5, "url": "x"} for a, b in rows])


def write_json_translation(path: Path, rows: Rows) -> None:
    _write_json(path, [{"translation": {"hi": b, "en_XX": a}} for a, b in rows])


def write_json_sides(path: Path, rows: Rows) -> None:
    _write_json(path, [{"src": a, "tgt": b} for a, b in rows])


def write_tfrecord(path: Path, rows: Rows, kind: str = "") -> None:
    def feature(text: str):
        value = tf.train.BytesList(value=[text.encode()])
        return tf.train.Feature(bytes_list=value)

    with tf.io.TFRecordWriter(str(path), kind) as writer:
        for source, target in rows:
            features = {"src_raw": feature(source), "tgt_raw": feature(target)}
            features = tf.train.Features(feature=features)
            writer.write(tf.train.Example(features=features).SerializeToString())


def write_tfrecord_gzip(path: Path, rows: Rows) -> None:
    write_tfrecord(path, rows, "GZIP")


WRITERS = {
    "hi.tsv": write_tsv,
    "moses/x.hi": write_moses,
    "hi.tmx": write_tmx,
    "utf16/hi.tmx": write_tmx_utf16,
    "hi.xliff": write_xliff_1,
    "2/hi.xlf": write_xliff_2,
    "hi.jsonl": write_json_languages,
    "translation/hi.ndjson": write_json_translation,
    "sides/hi.jsonl": write_json_sides,
    "hi.tfrecord": write_tfrecord,
    "gzip/hi.tfrecords": write_tfrecord_gzip,
}
PACKERS = {
    "": lambda content: content,
    "gzip": lambda content: gzip.compress(content, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor(level=1, write_checksum=True).compress,
}


def parts(name: str, path: Path) -> list[Path]:
    """All files that a writer has written."""
    return [path, path.with_suffix(".en")] if "moses" in name else [path]


def pack(path: Path, kind: str, members: int = 1) -> None:
    """Compresses a file in place, in some concatenated members."""
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):  # by its writer
        return
    size = -(-len(content) // members) or 1
    starts = range(0, len(content) or 1, size)
    path.write_bytes(b"".join(PACKERS[kind](content[i : i + size]) for i in starts))


LETTERS = st.sampled_from([*"aZ é&<>'\"{}\\,=%#", "हि", "\u2028", "𝄞", "\u200d", "]]>"])
SENTENCE = st.lists(LETTERS, min_size=1, max_size=8).map("".join).map(str.strip)
SENTENCE = SENTENCE.filter(bool)
ROWS = st.lists(st.tuples(SENTENCE, SENTENCE), min_size=1, max_size=6)


def fuzz(examples: int):
    """Runs a test on random input, the same each time."""
    settings = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    return lambda check: settings(hypothesis.seed(0)(check))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("readers")
    for name in WRITERS:
        (folder / name).parent.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("name", WRITERS)
def test_what_others_write_is_read_back(folder, name):
    path = folder / name

    @fuzz(40)
    @hypothesis.given(
        rows=ROWS, kind=st.sampled_from(sorted(PACKERS)), members=st.integers(1, 3)
    )
    def check(rows, kind, members):
        WRITERS[name](path, rows)
        for part in parts(name, path):
            pack(part, kind, members)
        assert triples(path) == [(*row, "hi") for row in rows]
        sentences = list(data.read_sentences(path))
        assert sorted(sentences) == sorted(
            [("en", a) for a, _ in rows] + [("hi", b) for _, b in rows]
        )

    check()


@pytest.mark.parametrize("name", WRITERS)
def test_damage_is_an_error_or_left_out(folder, name):
    """Whatever bytes: a `DataError` or no error, and what comes before is kept."""
    path = folder / name

    @fuzz(100)
    @hypothesis.given(
        rows=ROWS,
        kind=st.sampled_from(["", *sorted(PACKERS)]),
        damage=st.sampled_from(["cut", "changed", "inside", "inside", "any bytes"]),
        random=st.randoms(use_true_random=False),
        raw=st.binary(max_size=100),
    )
    def check(rows, kind, damage, random, raw):
        WRITERS[name](path, rows)
        victim = random.choice(parts(name, path))

        def hurt():
            content = bytearray(victim.read_bytes())
            if damage == "cut":
                # what is shorter does not look compressed
                del content[random.randrange(min(10, len(content)), len(content) + 1) :]
            elif damage == "any bytes":
                content[:] = raw
            else:
                for _ in range(random.choice([1, 1, 2, 5])):
                    start = random.randrange(len(content) + 1)
                    end = start + random.choice([0, 1, 1, 4])
                    content[start:end] = random.choice(
                        [b"", random.randbytes(1), b"<", b"\xff", b"\n", b"</tu>", raw]
                    )
            victim.write_bytes(content)

        if damage == "inside":
            hurt()
        for part in parts(name, path):
            pack(part, kind)
        if damage != "inside":
            hurt()
        try:
            strict = triples(path)
        except data.DataError:
            strict = None
        found, report = skipping(path)
        assert (strict is None) == bool(report)
        assert strict is None or [pair[:2] for pair in strict] == found
        assert all(a.strip() == a and a and b.strip() == b and b for a, b in found)
        assert len(data.ParallelCorpus(data.SentencePair(*p, "hi") for p in found)) == (
            len(found)
        )
        list(data.read_sentences(path, on_error="skip", skipped=data.SkipReport()))
        if damage == "cut" and (kind or name not in ("hi.tsv", "moses/x.hi")):
            assert found == rows[: len(found)]

    check()


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zstd"])
def test_a_damaged_stream_names_file_and_line(tmp_path, kind):
    rows = [(f"{i * 7919 % 104729:x} " * 9, f"b{i}") for i in range(40_000)]
    rows = [(a.strip(), b) for a, b in rows]
    path = tmp_path / "en-hi.tsv"
    write_tsv(path, rows)
    pack(path, kind, 2)
    assert pairs_of(path) == rows
    whole = path.read_bytes()
    write(path, whole[: len(whole) * 3 // 4])
    error = error_of(path)
    assert kind in error.expected
    found, report = skipping(path)
    assert len(rows) // 2 <= len(found) < len(rows) and found == rows[: len(found)]
    assert report.total == 1 and error.line == len(found) + 1
    broken = bytearray(whole)
    broken[len(whole) * 3 // 4] ^= 0xFF
    write(path, bytes(broken))
    assert error_of(path).line > 19_900
    found, report = skipping(path)
    assert found[:19_900] == rows[:19_900] and report


def test_text_that_begins_like_a_compressed_file(tmp_path):
    path = write(tmp_path / "en-hi.tsv", "BZh1 is a mark\tनिशान\n")
    assert pairs_of(path) == [("BZh1 is a mark", "निशान")]


def test_zstd_without_its_package(tmp_path, monkeypatch):
    path = write(tmp_path / "en-hi.tsv.zst", PACKERS["zstd"](b"a\tb\n"))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    for on_error in ("raise", "skip"):
        with raises(ImportError, "tsv.zst"):
            pairs_of(path, on_error=on_error)


# === Languages ===


def test_languages_that_names_give():
    expected = {
        "en-hi.jsonl.zst": "hi",
        "en-hi.tfrecord-00001-of-00003": "hi",
        "en-hi.tmx": "hi",
        "talk.en-hi.jsonl": "hi",
        "talk.hi-en.tsv.xz": "hi",
        "OpenSubtitles.en-hi.hi": "hi",
        "OpenSubtitles.en-hi.en": "hi",
        "train.zh_Hans.bz2": "zh",
        "app.en-CA.xlf": "en",
        "app.en-ca.po": "en",
        "memory.tmx": None,
        "README.md": None,
        "hi=any/pairs.tsv": "hi",
        "pt_br=en-hi.tsv": "pt",
        "tfds:opus/en": None,
        "hi=tfds:opus/en": "hi",
    }
    assert {path: data.file_language(path) for path in expected} == expected


WORDS = (
    "new dev all any old src tgt tmp out raw ref hyp max min tok run one two".split()
)


def test_words_in_names_are_not_languages():
    """Alone or at the end, also with what may follow a code; words may be codes."""
    for word in WORDS:
        for name in (
            *(f"{word}.txt", f"{word}.tsv.gz", f"corpus.{word}.txt", f"{word}.po"),
            *(f"{word.upper()}.txt", f"{word}_IN.txt", f"corpus.{word}"),
        ):
            assert data.file_language(name) is None, name
    for name in (
        *(
            "my-data.tsv",
            "my.data.txt",
            "to_translate.txt",
            "no-dups.tsv",
            "is_ok_now.txt",
            "xx.txt",
        ),
        *("de_dup.txt", "app.foo.txt", "train.my-data", "en-test.tsv", "en-dev.tsv"),
        *("en-all.tsv", "en-raw-2024.tsv", "talk.en-old.jsonl", "abc.po", "vlc.mo"),
    ):
        assert data.file_language(name) is None, name
    # Said in so many words, or in a pair, or in the header of the file.
    expected = {
        "new=dev.txt": "new",
        "dev=dev.txt": "dev",
        "en-max.tsv": "max",
        "talk.en-max.jsonl": "max",
        "en-xqx.tsv": "xqx",
        "en-xqx-00000-of-00002.tsv.gz": "xqx",
        "en-hi.clean.tsv": "hi",
        "locale/new/LC_MESSAGES/app.po": "new",
    }
    assert {path: data.file_language(path) for path in expected} == expected
    assert data.file_language("app.po", "new") == "new"
    # Codes with a script, a region, a variant or a locale's modifier.
    expected = {
        "zh_Hant.txt": "zh-Hant",
        "wiki.hin_Deva.txt": "hi",
        "es-419.tsv": "es",
        "pt-br.po": "pt",
        "app.sr@latin.po": "sr-Latn",
        "ca-valencia.po": "ca",
        "de_DE.UTF-8.po": "de",
        "zh-min-nan.txt": data.file_language("nan=a"),
    }
    assert {path: data.file_language(path) for path in expected} == expected


def test_a_file_named_by_a_word_is_an_error_and_in_a_directory_a_warning(tmp_path):
    for name in ("hi.tsv", "dev.tsv", "new.tsv.gz"):
        write(tmp_path / name, "a\tb\n")
    for name in ("ta.txt", "README.txt"):
        write(tmp_path / name, "a\n")
    for name in ("dev.tsv", "new.tsv.gz"):
        with raises(data.DataError, path=tmp_path / name, line=1):
            triples(tmp_path / name)
        assert triples(f"new={tmp_path / name}") == [("a", "b", "new")]
    with warns(DataWarning, "dev.tsv", "new.tsv.gz", path=tmp_path, received=2):
        found = data.find_pair_files(tmp_path)
    assert found == [tmp_path / "hi.tsv"]
    with warns(DataWarning, "README.txt", path=tmp_path, received=3):
        found = data.find_sentence_files(tmp_path)
    assert found == [tmp_path / "hi.tsv", tmp_path / "ta.txt"]
    assert len(data.find_pair_files(f"mr={tmp_path}")) == 3


def test_a_language_before_the_path(tmp_path, monkeypatch):
    path = write(tmp_path / "pairs.tsv", "a\tb\n")
    assert triples(f"hi={path}") == [("a", "b", "hi")]
    assert triples(Path(f"hi={path}"), language="ta") == [("a", "b", "hi")]
    text = write(tmp_path / "text", "one\n")
    assert list(data.read_sentences(f"pt_br={text}")) == [("pt", "one")]
    error = error_of(f"hi={write(tmp_path / 'bad.tsv', 'a')}")
    assert error.path == tmp_path / "bad.tsv"
    # a file that is really called so is a file
    odd = write(tmp_path / "hi=en-ta.tsv", "c\td\n")
    monkeypatch.chdir(tmp_path)
    assert data.split_language("hi=en-ta.tsv") == (None, Path("hi=en-ta.tsv"))
    assert data.split_language(odd) == (None, odd)
    write(tmp_path / "in" / "plain.tsv", "e\tf\n")
    assert data.find_pair_files([f"kn={tmp_path / 'in'}", f"hi={path}"]) == sorted(
        [Path(f"kn={tmp_path / 'in' / 'plain.tsv'}"), Path(f"hi={path}")]
    )
    corpus = data.load_pairs([f"kn={tmp_path / 'in'}", f"hi={path}"], language="ta")
    assert corpus.counts == {"hi": 1, "kn": 1}


def test_a_language_chooses_in_a_file_of_several(tmp_path):
    lines = [{"en-GB": "a", "pt-PT": "b", "hi": "c"}, {"en": "d", "pt_BR": "e"}]
    path = tmp_path / "x.jsonl"
    _write_json(path, lines)
    assert triples(path) == [
        ("a", "b", "pt"),
        ("a", "c", "hi"),
        ("d", "e", "pt"),
    ]
    assert triples(f"pt={path}") == [("a", "b", "pt"), ("d", "e", "pt")]
    assert triples(path, language="hin") == [("a", "c", "hi")]
    error = error_of(path, language="ta")
    assert (error.line, error.args[3]) == (1, "hi, pt")
    assert [c for c, _ in data.read_sentences(path, language="und")] == [
        *("en", "pt", "en", "hi", "en", "pt")
    ]


def test_languages_of_a_file_of_several_are_filtered(tmp_path):
    path = tmp_path / "x.jsonl"
    many = [{"en": f"e{i}", "hi": f"h{i}", "ta": f"t{i}"} for i in range(5)]
    _write_json(path, many)
    corpus = data.load_pairs(path, languages=["ta"])
    assert corpus.lists() == {
        "ta": ([f"e{i}" for i in range(5)], [f"t{i}" for i in range(5)])
    }
    assert data.load_pairs(path, max_pairs_per_language=2).counts == {"hi": 2, "ta": 2}
    sentences = data.load_sentences(path, languages=["ta"])
    assert sentences.counts == {"ta": 5}


# === Moses ===


def test_moses_finds_the_other_file(tmp_path):
    write(tmp_path / "x.en-hi.en", "a\n\nb\n")
    write(tmp_path / "x.en-hi.hi.gz", gzip.compress("क\n\nख".encode()))
    write(tmp_path / "train.en", "one\n")
    write(tmp_path / "train.ta", "ஒன்று\n")
    write(tmp_path / "train.zh_Hant", "一\n")
    write(tmp_path / "train.log", "no language\n")
    write(tmp_path / "d.hin_Deva-eng_Latn.eng_Latn", "e\n")
    write(tmp_path / "d.hin_Deva-eng_Latn.hin_Deva", "f\n")
    expected = [("a", "क", "hi"), ("b", "ख", "hi")]
    for name in ("x.en-hi.en", "x.en-hi.hi.gz", "x.en-hi"):
        assert triples(tmp_path / name) == expected
    assert triples(tmp_path / "train.ta") == [("one", "ஒன்று", "ta")]
    both = [("one", "ஒன்று", "ta"), ("one", "一", "zh-Hant")]
    for name in ("train", "train.en"):
        assert triples(tmp_path / name) == both
    assert triples(tmp_path / "d.hin_Deva-eng_Latn.eng_Latn") == [("e", "f", "hi")]
    targets = ["d.hin_Deva-eng_Latn.hin_Deva", "train.ta", "train.zh_Hant"]
    targets = [tmp_path / name for name in [*targets, "x.en-hi.hi.gz"]]
    assert data.find_pair_files(tmp_path) == targets
    # a shell's glob names both sides
    assert data.find_pair_files(tmp_path.glob("[!t]*")) == [targets[0], targets[3]]
    assert data.find_pair_files(tmp_path / "train") == targets[1:3]
    assert sorted(data.read_sentences(targets[3])) == [
        *(("en", "a"), ("en", "b"), ("hi", "क"), ("hi", "ख"))
    ]
    assert list(data.read_sentences(targets[3], side="source")) == [
        *(("en", "a"), ("en", "b"))
    ]


def test_moses_files_of_unequal_length(tmp_path):
    english = write(tmp_path / "x.en", "a\nb\nc\n")
    hindi = write(tmp_path / "x.hi", "क\n")
    for path in (english, hindi):
        error = error_of(path)
        assert (error.path, error.line) == (hindi, 2)
        assert "x.en" in error.expected
        assert skipping(path)[0] == [("a", "क")]
    write(hindi, "क\n")
    write(english, "".join("a\n" * 9))
    found, report = skipping(english)
    assert len(found) == report.total == 1
    write(english, "a\nb\nc\n")
    write(hindi, "क\nख\nग\nघ\n")
    assert (error_of(hindi).path, error_of(hindi).line) == (english, 4)
    # sentences need no order
    assert len(list(data.read_sentences(hindi))) == 7
    write(english, "a\n\nc\n\xff\n".encode("latin-1"))
    assert (error_of(hindi).path, error_of(hindi).line) == (english, 2)
    found, report = skipping(hindi)
    assert found == [("a", "क"), ("c", "ग")]
    assert {line for _, line in report.entries.values()} == {2, 4}
    english.unlink()
    lonely = hindi.rename(tmp_path / "x.en-hi.hi")
    assert error_of(lonely).path == lonely


# === TSV ===


@pytest.mark.parametrize("packed", [True, False])
def test_tsv_of_a_spreadsheet(tmp_path, packed):
    lines = ["\ufeffone\u2028more\tएक\r\n", "two\x85\x0cx\tदो\textra\r\n", "\r\n"]
    content = "".join(lines).encode()
    if packed:
        members = (content[:20], b"", content[20:31], content[31:])
        content = b"".join(map(gzip.compress, members))
    path = write(tmp_path / ("en-hi.tsv.gz" if packed else "en-hi.tsv"), content)
    found, report = skipping(path)
    assert found == [("one\u2028more", "एक"), ("two\x85\x0cx", "दो")]
    assert list(report.entries.values()) == [(1, 3)]


# === TMX ===

TMX = """<?xml version="1.0" encoding="{encoding}"?>
<!DOCTYPE tmx SYSTEM "http://nowhere.invalid/tmx14.dtd">
<tmx version="1.4"><header srclang="en-US" adminlang="de"><note>n</note></header>
<body>
<tu><prop type="x">p</prop>
  <tuv xml:lang="EN-US"><note>no</note><seg>One</seg></tuv>
  <tuv xml:lang="hi"><seg>एक</seg></tuv>
  <tuv lang="ta"><seg>ஒன்று</seg></tuv>
  <tuv xml:lang="en-GB"><seg>One, again</seg></tuv>
</tu>
<tu><tuv><seg>From srclang</seg></tuv><tuv xml:lang="hi"><seg>ख</seg></tuv></tu>
<tu><tuv xml:lang="de"><seg>Eins</seg></tuv><tuv xml:lang="hi"><seg>ग</seg></tuv></tu>
<tu><tuv xml:lang="en"><seg>Untranslated</seg></tuv>
  <tuv xml:lang="hi"><seg> </seg></tuv></tu>
<tu><tuv xml:lang="hi"><seg>A<bpt i="1">&lt;b>
<sub>x</sub>y</bpt>B<hi type="t">C<it pos="begin">i</it></hi><ept i="1">/b</ept><ph/>D\
<ut>u</ut>&amp;&#233;&nbsp;<![CDATA[<E>]]></seg></tuv>
  <tuv xml:lang="en"><seg>Inline</seg></tuv></tu>
</body></tmx>
"""
TMX_PAIRS = [
    ("One", "एक", "hi"),
    ("One", "ஒன்று", "ta"),
    ("From srclang", "ख", "hi"),
    ("Inline", "ABCD&é\xa0<E>", "hi"),
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-8-sig"])
def test_tmx(tmp_path, encoding):
    name = encoding.removesuffix("-sig").removesuffix("-le")
    content = TMX.format(encoding=name).encode(encoding)
    content = b"\xff\xfe" * (encoding == "utf-16-le") + content
    path = write(tmp_path / "memory.tmx", content)
    assert triples(path) == TMX_PAIRS
    sentences = list(data.read_sentences(path))
    assert ("ta", "ஒன்று") in sentences and ("en", "Inline") in sentences
    assert triples(path, language="ta") == TMX_PAIRS[1:2]
    assert triples(path, language="hi-IN") == [
        (a, b, "hi") for a, b, code in TMX_PAIRS if code == "hi"
    ]


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_tmx_in_utf_16_without_a_byte_order_mark(tmp_path, encoding, declared):
    declaration, _, rest = TMX.partition("\n")
    rest = rest.partition("\n")[2].replace("&nbsp;", "&#160;")  # No document type.
    content = declaration.format(encoding="UTF-16") * declared + rest
    path = write(tmp_path / "memory.tmx", content.encode(encoding))
    assert triples(path) == TMX_PAIRS


@pytest.mark.parametrize("code", ["*", "*all*", "all"])
def test_tmx_of_no_source_language(tmp_path, code):
    unit = '<tu{}><tuv xml:lang="en"><seg>a</seg></tuv><tuv xml:lang="hi">'
    unit += "<seg>b</seg></tuv></tu>\n"
    head = f'<tmx><header srclang="{code}"/><body>\n'
    units = unit.format("") + unit.format(f' srclang="{code}"')
    path = write(tmp_path / "memory.tmx", f"{head}{units}</body></tmx>")
    assert triples(path) == [("a", "b", "hi")] * 2
    bare = units.replace(' xml:lang="en"', "")
    path = write(tmp_path / "memory.tmx", f"{head}{bare}</body></tmx>")
    error = error_of(path)
    assert error.line == 2 and "xml:lang" in error.expected


def test_tmx_unit_of_many_variants(tmp_path):
    variants = [("en-US", "color"), ("hi-IN", "क"), ("hi", "ख"), ("en-GB", "colour")]
    variants += [("ta", "line\n  ends\r\n inside"), ("hin_Deva", "ग"), ("hi", " \n ")]
    unit = "".join(
        f'<tuv xml:lang="{code}"><seg>\n{text}</seg></tuv>\n' for code, text in variants
    )
    head = '<tmx><header srclang="en"/><body>'
    path = write(tmp_path / "memory.tmx", f"{head}<tu>{unit}</tu></body></tmx>")
    # Regions and spellings are one language; XML turns CRLF into LF.
    assert triples(path) == [
        *(("color", "क", "hi"), ("color", "ख", "hi")),
        ("color", "line\n  ends\n inside", "ta"),
        ("color", "ग", "hi"),
    ]


def test_scores_of_tmx_are_those_of_their_unit(tmp_path):
    def unit(props: str, inside: str = "") -> str:
        texts = f'<tuv xml:lang="en">{inside}<seg>a</seg></tuv><tuv xml:lang="hi">'
        return f"<tu>{props}{texts}<seg>b</seg></tuv></tu>"

    score = '<prop type="{}">{}</prop>'.format
    units = [
        unit(score("x-note", "first") + score("x-score", " 0.5 ")),
        unit(""),
        unit("", score("x-score", 0.25)),
        unit(score("x-cosine", 0.125) + score("x-margin", "1e0")),
        unit(score("x-score", "high")),
        unit(score("x-score", "nan")),
        unit(score("score", -1)),
    ]
    head = f'<tmx><header srclang="en">{score("x-score", 9)}</header><body>'
    path = write(tmp_path / "m.tmx", f"{head}{''.join(units)}</body></tmx>")
    # All units are on one line.
    found = [score for *_, score in read_scored_pairs(path)]
    assert found == [0.5, None, None, 1.0, None, None, -1.0]


def test_bad_tmx(tmp_path):
    good = TMX.format(encoding="utf-8")
    head, end = '<tmx><header srclang="*all*"/><body>\n', "</body></tmx>"
    unit = '<tu><tuv xml:lang="en"><seg>a</seg></tuv><tuv xml:lang="hi"><seg>b</seg>'
    unit += "</tuv></tu>"
    whole = head + unit + end
    bombs = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(9))
    use, doctype = whole.replace(">a<", ">&x;<"), "<!DOCTYPE tmx [\n"
    declare = '<?xml version="1.0" encoding="{}"?>'.format
    cases = {
        "cut": (good[: good.index("<tu><tuv><seg>")] + "<tu>\n", 12, 2, "well-formed"),
        "tags": (good.replace("</tuv>\n</tu>", "</tuv>", 1), 17, 2, "well-formed"),
        "other root": ("<html>\n</html>", 1, 0, "<tmx>"),
        "no xml": ("a\tb\n", 1, 0, "well-formed"),
        "empty": ("", 1, 0, "well-formed"),
        "entity": (use, 2, 0, "well-formed"),
        "bombs": (f'<!DOCTYPE tmx [<!ENTITY e0 "lol">{bombs}]>{use}', 1, 0, "entities"),
        "file": (f'{doctype}<!ENTITY x SYSTEM "/etc/passwd">]>{use}', 2, 0, "entities"),
        "parameter": (f'{doctype}<!ENTITY % x SYSTEM "a">%x;]>{use}', 2, 0, "entities"),
        "charset": (declare("klingon") + whole, 1, 0, "encoding"),
        "wide": (declare("gb18030") + whole, 1, 0, "encoding"),
        "no code": (whole.replace('xml:lang="hi"', ""), 2, 0, "xml:lang"),
        "bad code": (whole.replace('"hi"', '"klingonish"'), 2, 0, "code"),
        "no English": (whole.replace('"en"', '"de"'), 1, 0, "English"),
    }
    for name, (content, line, count, expected) in cases.items():
        path = write(tmp_path / "memory.tmx", content)
        error = error_of(path)
        assert (error.line, expected in error.expected) == (line, True), (name, error)
        found, report = skipping(path)
        assert (len(found), report.total) == (count, 1), name
    assert triples(write(tmp_path / "plain.tmx", whole)) == [("a", "b", "hi")]


def test_a_large_tmx_takes_no_more_memory_than_a_small_one(tmp_path):
    unit = (
        '<tu>{}<tuv xml:lang="en"><seg>English {}</seg></tuv>'
        '<tuv xml:lang="hi"><seg>हिन्दी</seg></tuv></tu>\n'
    )

    def peak(count: int) -> int:
        path = tmp_path / f"{count}.tmx"
        with open(path, "w", encoding="utf-8") as file:
            file.write('<tmx><header srclang="en"/><body>')
            file.writelines(
                unit.format(f"<prop>{'x' * 2000}</prop>", i) for i in range(count)
            )
            file.write("</body></tmx>")
        tracemalloc.start()
        assert sum(1 for _ in data.read_pairs(path)) == count
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(10)  # what is imported and cached once
    small, large = peak(700), peak(14_000)  # 1.5 and 30 MB
    assert large < small + 200_000


# === XLIFF ===

XLIFF_1 = """<?xml version="1.0"?>
<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2"><file original="a"
 source-language="en-US" target-language="hi" datatype="plaintext"><body>
<trans-unit id="1" approved="yes"><source>Open <g id="1">the <x id="2"/>file</g>\
</source>
<seg-source><mrk mtype="seg">no</mrk></seg-source>
<target state="translated"><mrk mtype="seg">खोलें <ph id="1">%s</ph></mrk></target>
<alt-trans><source>no</source><target>नहीं</target></alt-trans></trans-unit>
<trans-unit id="2"><source>No target</source></trans-unit>
<trans-unit id="3"><source>Empty</source><target/></trans-unit>
<trans-unit id="4"><source>New</source><target state="new">न</target></trans-unit>
<trans-unit id="5"><source>Needs</source><target state="needs-translation">न</target>\
</trans-unit>
<group><trans-unit id="6"><source>Plain</source><target>स</target></trans-unit></group>
<trans-unit id="7" approved="no"><source>Fuzzy</source><target>न</target></trans-unit>
<trans-unit id="8" approved="no"><source>Done</source><target state="final">ह</target>\
</trans-unit>
<trans-unit id="9"><source>Review</source><target state="needs-review-translation">न\
</target></trans-unit>
</body></file>
<file original="b" source-language="ta" target-language="en"><body>
<trans-unit id="1"><source>ஒன்று</source><target>One</target></trans-unit></body></file>
</xliff>
"""
XLIFF_2 = """<xliff xmlns="urn:oasis:names:tc:xliff:document:2.0" version="2.0"
 srcLang="en" trgLang="pt-BR" xmlns:mtc="urn:oasis:names:tc:xliff:matches:2.0">
<file id="f"><unit id="1"><mtc:matches><mtc:match ref="#1"><source>no</source>
<target>não</target></mtc:match></mtc:matches>
<originalData><data id="d">&lt;b></data></originalData>
<segment state="translated"><source>Two <pc id="1" dataRefStart="d">words</pc></source>
<target>Duas <pc id="1">palavras</pc><ph id="2"/></target></segment>
<ignorable><source> </source></ignorable>
<segment><source>More</source><target>Mais</target></segment>
<segment state="initial"><source>Start</source><target>x</target></segment>
<segment><source>None</source></segment></unit></file></xliff>
"""


def test_xliff(tmp_path):
    assert triples(write(tmp_path / "a.xlf", XLIFF_1)) == [
        ("Open the file", "खोलें", "hi"),
        ("Plain", "स", "hi"),
        ("Done", "ह", "hi"),
        ("One", "ஒன்று", "ta"),
    ]
    assert triples(write(tmp_path / "b.xliff", XLIFF_2)) == [
        ("Two words", "Duas palavras", "pt"),
        ("More", "Mais", "pt"),
    ]
    # the target's language may be missing: the name, or the caller, has it
    content = XLIFF_1.replace(' target-language="hi"', "")
    path = write(tmp_path / "messages.kn.xlf", content)
    assert [code for _, _, code in triples(path)] == ["kn", "kn", "kn", "ta"]
    path = path.rename(tmp_path / "messages.xlf")
    assert "language" in error_of(path).expected
    assert triples(f"ml={path}")[0][2] == "ml"
    cut = write(tmp_path / "cut.xlf", XLIFF_2[:-40])
    assert error_of(cut).line == XLIFF_2[:-40].count("\n") + 1
    assert len(skipping(cut)[0]) == 2
    german = write(tmp_path / "de.xlf", XLIFF_2.replace('"en"', '"de"'))
    assert "English" in error_of(german).expected


# === JSON Lines ===


def test_json_lines(tmp_path):
    path = tmp_path / "talk.jsonl"
    lines = [
        '{"en": "a", "hi": "b", "ta": "", "kn": null, "id": "line-1", "url": "u"}',
        "",
        '{"id": 7, "translation": {"en": "c", "ta": "d", "hi": "e"}}',
        '{"source": "f", "target": "g", "language": "pt_br"}',
        '{"en": "h", "id": "i"}',
        '{"en": "\\ud834\\udd1e", "hi": "\\u0915"}',
    ]
    write(path, "\n".join(lines))
    assert triples(path) == [
        *(("a", "b", "hi"), ("c", "d", "ta"), ("c", "e", "hi"), ("f", "g", "pt")),
        *(("h", "i", "id"), ("𝄞", "क", "hi")),
    ]
    bad = {
        "[1]": "JSON",
        '{"en": "a", "hi": "b"': "JSON",
        "[" * 100_000: "JSON",
        "1" * 5000: "JSON",
        '{"en": "a", "hi": " "}': "English",
        '{"hi": "a", "ta": "b"}': "English",
        '{"text": "a"}': "English",
        '{"src": 1, "tgt": "b"}': "English",
        '{"source": "a", "target": "b", "language": "klingonish"}': "language",
        '{"en": "a", "hi": "b\\ud834"}': "Unicode",
    }
    for line, expected in bad.items():
        write(path, f'{{"en": "x", "hi": "y"}}\n{line}\n{lines[0]}\n')
        error = error_of(path)
        assert (error.line, expected in error.expected) == (2, True), error
        assert skipping(path)[0] == [("x", "y"), ("a", "b")]
    write(path, '{"src": "a", "tgt": "b"}')
    assert "language" in error_of(path).expected
    assert triples(path, language="hi") == [("a", "b", "hi")]


def test_json_lines_of_text(tmp_path):
    path = tmp_path / "wiki.jsonl"
    write(path, '{"text": " a "}\n{"text": "b", "language": "ta"}\n{"text": ""}\n')
    assert list(data.read_sentences(path, language="und")) == [
        ("und", "a"),
        ("ta", "b"),
    ]
    assert list(data.read_sentences(path, side="source", language="ta"))[-1] == (
        *("ta", "b"),
    )
    named = path.rename(tmp_path / "wiki.hi.jsonl")
    assert list(data.read_sentences(named)) == [("hi", "a"), ("ta", "b")]
    assert data.load_sentences(named).counts == {"hi": 1, "ta": 1}
    assert data.load_sentences(named, languages=["hi"]).counts == {"hi": 1}


# === TFRecord ===


def test_csv(tmp_path):
    content = (
        '\ufeffid,EN,hi,Score\r\n1,"a, ""b""\r\nc",ख,0.5\r\n\r\n2, d ,"ग",\r\n'.encode()
    )
    wanted = [('a, "b"\r\nc', "ख", "hi"), ("d", "ग", "hi")]
    path = write(tmp_path / "talk.csv.gz", gzip.compress(content))
    assert triples(path) == wanted
    scored = [(line, score) for line, _, score in read_scored_pairs(path)]
    assert scored == [(2, 0.5), (5, None)]
    assert [s for c, s in data.read_sentences(path) if c == "en"] == [wanted[0][0], "d"]
    # Sides, whose language is a column, in the name or given.
    path = write(tmp_path / "en-ta.csv", "Target,Source\nx,a\n")
    assert triples(path) == [("a", "x", "ta")]
    assert triples(f"hi={path}") == [("a", "x", "hi")]
    path = write(tmp_path / "sides.csv", "src,tgt,language\na,x,hi\nb,y,ta\n")
    assert triples(path) == [("a", "x", "hi"), ("b", "y", "ta")]
    assert triples(path, language="ta") == [("b", "y", "ta")]
    # Several languages, of which a row may lack some.
    path = write(tmp_path / "many.csv", "hi,ta,en\nx,y,a\n,z,b\n")
    assert triples(path) == [("a", "x", "hi"), ("a", "y", "ta"), ("b", "z", "ta")]
    path = write(tmp_path / "text.csv", "text,language\nx,hi\ny,ta\n")
    assert list(data.read_sentences(path)) == [("hi", "x"), ("ta", "y")]


def test_bad_csv(tmp_path):
    head = "en,hi\n"
    for content, line, kept, expected in (
        ("a,b\nc,d\n", 1, 0, "header"),
        ("", 1, 0, "text"),
        (f"{head}a,b\nc\nd,e\n", 3, 2, "2 comma-separated fields"),
        (f"{head}a,b,c\nd,e\n", 2, 1, "2 comma-separated fields"),
        (f'{head}a,"b"c\nd,e\n', 2, 1, "row of CSV"),
        (f'{head}a,b\n"d,e\nf,g\n', 3, 1, "row of CSV"),
        (f"{head}a,\nd,e\n", 2, 1, "English and a translation"),
        (f"{head}a,\xff\nd,e\n", 2, 1, "UTF-8"),
    ):
        path = write(tmp_path / "en-hi.csv", content.encode("latin-1"))
        error = error_of(path)
        assert (error.line, expected in error.expected) == (line, True), error
        found, report = skipping(path)
        assert (len(found), report.total) == (kept, 1), content


def test_tfrecord(tmp_path):
    path = tmp_path / "en-hi.tfrecord"
    rows = [("a" * n, "ख" * (n * 37 % 301 + 1)) for n in range(1, 700, 23)]
    write_tfrecord(path, rows)
    assert pairs_of(path) == rows
    whole = path.read_bytes()
    again = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    starts, place = [], 0
    for record in again:
        starts.append(place)
        place += 16 + len(record)
    assert place == len(whole)
    # each byte counts: length, its check sum, content, its check sum
    for number in (0, 3, len(rows) - 1):
        start, size = starts[number], len(again[number])
        for offset in (0, 7, 8, 11, 12, 12 + size // 2, 11 + size, 15 + size):
            broken = bytearray(whole)
            broken[start + offset] ^= 0x40
            write(path, bytes(broken))
            with pytest.raises(tf.errors.DataLossError):
                list(tf.data.TFRecordDataset(str(path)))
            assert error_of(path).line == number + 1
            found, report = skipping(path)
            after = rows[number + 1 :] if offset >= 12 else []
            assert found == rows[:number] + after and report.total == 1
    write(path, whole[:-1])
    assert error_of(path).line == len(rows)
    unnamed = write(tmp_path / "train.tfrecord", whole)
    assert "language" in error_of(unnamed).expected
    assert pairs_of(f"hi={unnamed}") == rows


def test_tfrecord_of_other_examples(tmp_path):
    path = tmp_path / "en-hi.tfrecord"
    texts = {"bytes": [b"a"], "none": [], "two": [b"a", b"b"], "bad": [b"\xff"]}

    def example(source, target):
        features = {
            side: tf.train.Feature(bytes_list=tf.train.BytesList(value=texts[kind]))
            for side, kind in (("src_raw", source), ("tgt_raw", target))
            if kind
        }
        features = tf.train.Features(feature=features)
        return tf.train.Example(features=features).SerializeToString()

    bad = [example("bytes", "none"), example("two", "bytes"), example("bytes", "")]
    bad += [example("bad", "bytes"), b"\xff\xff", b""]
    for record in bad:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for each in (example("bytes", "bytes"), record, example("bytes", "bytes")):
                writer.write(each)
        assert error_of(path).line == 2
        assert len(skipping(path)[0]) == 2


# === TFDS ===


def test_tfds(monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets", reason="the extra `tfds`")
    with warnings.catch_warnings(), tfds.testing.mock_data(num_examples=20):
        warnings.simplefilter("ignore")
        found = triples("tfds:para_crawl/enbg")
        expected = tfds.as_numpy(tfds.load("para_crawl/enbg", split="train"))
        expected = [(e["en"].decode(), e["bg"].decode()) for e in expected]
        assert found == [(a.strip(), b.strip(), "bg") for a, b in expected if a and b]
        assert len(found) > 10
        assert triples("tfds:para_crawl/enbg?split=train") == found
        files = data.find_pair_files(["tfds:para_crawl/enbg"])
        assert triples(files[0]) == found
        seen = []
        corpus = data.load_pairs(
            "bg=tfds:para_crawl/enbg", progress=lambda *args: seen.append(args)
        )
        assert corpus.counts == {"bg": len(found)} and len(seen) == 1
        # variable languages: random codes here, so no English
        error = error_of("tfds:ted_multi_translate")
        assert "language" in error.expected
        for name, expected in {
            "tfds:no_such_set": "",
            "tfds:mnist": "translation",
            "tfds:para_crawl/enbg?speed=2": "split=NAME",
        }.items():
            assert expected in error_of(name).expected
            assert skipping(name)[0] == []
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with raises(ImportError, "'labse-tf[tfds]'"):
        pairs_of("tfds:x")


def test_tfds_of_variable_languages(monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets", reason="the extra `tfds`")
    feature = tfds.features.TranslationVariableLanguages()
    texts = {"en": "a", "hi": ["b", "c"], "ta": "d"}
    flat = {
        "language": [b"en", b"hi", b"hi", b"ta"],
        "translation": [b"a", b"b", b"c", b"d"],
    }
    encoded = feature.encode_example(texts)["language"]
    assert [str(code).encode() for code in encoded] == flat["language"]
    example = {"translations": {key: np.array(v, object) for key, v in flat.items()}}

    class Info:
        features = tfds.features.FeaturesDict({"translations": feature})

    monkeypatch.setattr(tfds, "load", lambda *args, **kwargs: ([example], Info))
    monkeypatch.setattr(tfds, "as_numpy", iter)
    assert triples("tfds:any") == [
        *(("a", "b", "hi"), ("a", "c", "hi"), ("a", "d", "ta")),
    ]


# === All together ===


def test_a_directory_stands_for_all_its_formats(tmp_path):
    rows = [("a", "b"), ("c", "d")]
    for name, writer in WRITERS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        writer(tmp_path / name, rows)
    for name in (
        "notes.md",
        "x/config.json",
        "en-hi.csv",
        "data.tfrecord",
        "pairs.tsv",
    ):
        write(tmp_path / name, "?")
    write(tmp_path / "wiki.ta.jsonl.xz", lzma.compress(b'{"text": "e"}\n'))
    write(tmp_path / "kn.txt.zst", PACKERS["zstd"](b"f\n"))
    found = data.find_pair_files(tmp_path)
    assert found == sorted(tmp_path / name for name in WRITERS)
    assert data.load_pairs(tmp_path).counts == {"hi": len(WRITERS) * 2}
    sentences = data.load_sentences(tmp_path)
    assert sentences.counts == {"en": 2, "hi": 2, "kn": 1, "ta": 1}
    reader = pickle.loads(pickle.dumps(data.read_pairs))
    assert [len(list(reader(path))) for path in found] == [2] * len(found)
