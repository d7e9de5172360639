"""`labse_tf.text`: lines, sentences with their lines, CSV; in every compression."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import pytest

from helpers.errors import raises, warns
from labse_tf import text

zstandard = pytest.importorskip("zstandard", reason="the extra `text` is missing")


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


COMPRESSIONS = {
    "": lambda content: content,
    ".gz": lambda content: gzip.compress(content[:9]) + gzip.compress(content[9:]),
    ".bz2": lambda content: bz2.compress(content[:9]) + bz2.compress(content[9:]),
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_lines_of_text(tmp_path, ending):
    content = "\ufeffa\u2028b\r\nc\x85\x0bd\n\n e ".encode()
    # the content tells the compression, not the name
    for name in (f"x{ending}", "x.txt"):
        path = write(tmp_path / name, COMPRESSIONS[ending](content))
        expected = [(1, "a\u2028b"), (2, "c\x85\x0bd"), (3, ""), (4, " e ")]
        assert list(text.read_lines(path)) == expected
        assert list(text.read_numbered(path, blank_lines=True)) == expected
        assert list(text.read_numbered(path)) == [*expected[:2], expected[3]]
        assert list(text.read_sentences(f"hi={path}")) == [
            ("hi", line.strip()) for _, line in expected if line
        ]


def test_invalid_utf8_is_an_error_or_left_out_and_counted(tmp_path):
    path = write(tmp_path / "x", b"a\nb\xff\nc\n")
    for reader in (text.read_lines, text.read_numbered):
        with pytest.raises(text.DataError) as caught:
            list(reader(path))
        assert (caught.value.path, caught.value.line) == (path, 2)
        assert "UTF-8" in caught.value.expected
        report = text.SkipReport()
        found = list(reader(path, on_error="skip", skipped=report))
        assert found == [(1, "a"), (3, "c")] and report.total == 1
        with warns(UserWarning, 1):
            list(reader(path, on_error="skip"))


def test_an_empty_file_has_no_lines(tmp_path):
    path = write(tmp_path / "x", b"")
    with raises(text.DataError, path=path):
        list(text.read_lines(path))
    assert list(text.read_numbered(path)) == []
    with pytest.raises(text.DataError) as caught:
        list(text.read_numbered(tmp_path / "missing"))
    assert caught.value.path == tmp_path / "missing"


def test_sentences_have_the_lines_of_their_pairs(tmp_path):
    po = (
        'msgid ""\nmsgstr "Language: hi\\n"\n\n# note\nmsgid "one"\nmsgstr "एक"\n\n'
        'msgctxt "c"\nmsgid "two"\nmsgid_plural "twos"\nmsgstr[0] "दो"\n'
        'msgstr[1] "कई"\n'
    )
    tmx = (
        '<tmx><body><tu>\n<tuv xml:lang="en"><seg>one</seg></tuv>\n'
        '<tuv xml:lang="hi"><seg>एक</seg></tuv>\n<tuv xml:lang="ta"><seg>ஒன்று</seg>'
        '</tuv></tu>\n<tu><tuv xml:lang="en"><seg>two</seg></tuv>'
        '<tuv xml:lang="ta"><seg>இரண்டு</seg></tuv></tu></body></tmx>'
    )
    lines = '{"en": "one", "hi": "एक"}\n\n{"text": "दो"}\n'
    files = {
        "x.po": po,
        "x.tmx": tmx,
        "x.jsonl": lines,
        "x.tsv": "one\tएक\nno tab\ntwo\tदो\n",
    }
    paths = {name: write(tmp_path / name, content) for name, content in files.items()}
    assert list(text.read_numbered(paths["x.po"])) == [
        *((5, "one"), (5, "एक"), (8, "two"), (8, "दो"), (8, "twos"), (8, "कई"))
    ]
    assert list(text.read_numbered(paths["x.tmx"])) == [
        *((1, "one"), (1, "एक"), (1, "one"), (1, "ஒன்று"), (5, "two"), (5, "இரண்டு"))
    ]
    tamil = text.read_numbered(f"ta={paths['x.tmx']}", side="target")
    assert list(tamil) == [(1, "ஒன்று"), (5, "இரண்டு")]
    assert list(text.read_numbered(paths["x.jsonl"])) == [
        *((1, "one"), (1, "एक"), (3, "दो"))
    ]
    assert list(text.read_numbered(paths["x.jsonl"], side="source")) == [
        *((1, "one"), (3, "दो"))
    ]
    with pytest.raises(text.DataError) as caught:
        list(text.read_numbered(paths["x.tsv"]))
    assert caught.value.line == 2
    report = text.SkipReport()
    options = {"side": "target", "on_error": "skip", "skipped": report}
    assert list(text.read_numbered(paths["x.tsv"], **options)) == [(1, "एक"), (3, "दो")]


def test_each_file_of_moses_is_text_by_itself(tmp_path):
    english = write(tmp_path / "x.en-hi.en", "one\ntwo\n")
    hindi = write(tmp_path / "x.en-hi.hi", "एक\nदो\n")
    assert list(text.read_numbered(hindi)) == [(1, "एक"), (2, "दो")]
    assert list(text.read_numbered(english)) == [(1, "one"), (2, "two")]
    assert len(list(text.read_numbered(tmp_path / "x.en-hi"))) == 4
    assert text.distinct_files([english, hindi, "a", "a"]) == [hindi, Path("a")]
    for path, code in ((hindi, "hi"), (english, "en")):
        other = path.read_bytes()
        for name in (hindi, english):
            name.unlink(missing_ok=True)
        write(path, other)
        assert {c for c, _ in text.read_sentences(path)} == {code}
        write(english, "one\ntwo\n")


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_rows_of_csv(tmp_path, ending):
    content = '\ufeffa,"b\r\n""c"", d"\r\ne,"f"\r\n'.encode()
    path = write(tmp_path / f"x.csv{ending}", COMPRESSIONS[ending](content))
    assert list(text.read_csv(path, 2)) == [(1, ["a", 'b\r\n"c", d']), (3, ["e", "f"])]
    for bad in ('a,b\n"c\n', "a,b\nc\n", 'a,b\nc,"d"e\n', "a,b\nc,\xff"):
        write(path, bad.encode("latin-1"))
        with pytest.raises(text.DataError) as caught:
            list(text.read_csv(path, 2))
        assert (caught.value.path, caught.value.line) == (path, 2)
