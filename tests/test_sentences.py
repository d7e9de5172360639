"""The splitter: where sentences end in each script, and on which line they begin."""

from __future__ import annotations

import gzip

import pytest

from helpers.errors import check_message, raises
from labse_tf import languages
from labse_tf.text import (
    DataError,
    SkipReport,
    read_document,
    split_document,
    split_sentences,
)
from labse_tf.text import sentences as module

# language or None, sentences of one paragraph
CASES = [
    ("en", ["Mr. and Mrs. Rao met Dr. A. P. J. Kalam.", "They talked."]),
    ("en", ["It costs 3.14 dollars, i.e. 10 % more.", "No. 5 is cheaper!"]),
    ("en", ["See fig. 3 and p. 12, e.g. the U.S. market etc. for more.", "Right?"]),
    ("en", ["She lives in the U.S.", "The house is large.", "Acme Inc. Sales fell."]),
    ("en", ["“Come here!” he said.", "(It rained.)", "“Why?”", "“No [1].”"]),
    ("en", ["He waited ... and waited.", "Then…", "Nothing happened.[12]", "Ever."]),
    ("en", ['He said "Stop."', '"Why?" she asked.', "Visit example.com/a.b today."]),
    ("en", ["1. Introduction", "2. See 1995."][:1]),
    ("en", ["It was 1995.", "We left at 5 p.m. Monday.", "What?!", "Yes."]),
    (None, ["Dr. Rao came.", "J. K. Rowling wrote it.", "End."]),
    ("hi", ["डॉ. शर्मा और श्री. वर्मा आए।", "यह सच है॥", "क्या?", "हाँ! …", "ठीक।"][:3]),
    ("hi", ["वह घर गया है.", "मैं यहाँ हूँ.", "दूरी 3.5 कि.मी. है.", "अच्छा."]),
    ("hi", ["माँ बोलीं, “लो पत्थर को मार दिया।”", "हिरण हँसा।"]),
    ("hi", ["ए. पी. जे. अब्दुल कलाम आए।", "१।२ एक संख्या है।"]),
    ("ne", ["यो राम्रो छ.", "डा. शर्मा आउनुभयो।"]),
    ("gu", ["આ સારું છે.", "ડૉ. પટેલ આવ્યા."]),
    ("bn", ["ড. মো. ইউনূস এলেন।", 'তিনি বললেন, "না।"', "কেন?"]),
    ("ta", ["திரு. மு. க. ஸ்டாலின் வந்தார்.", "நீ வா.", "சரி!"]),
    ("te", ["డా. రావు వచ్చారు.", "ఎందుకు?"]),
    ("ur", ["یہ سچ ہے۔", "کیا؟", "ہاں۔"]),
    ("ar", ["جاء د. أحمد.", "لماذا؟", "لا أعرف!"]),
    ("am", ["ሰላም ነው።", "ደህና ነህ?"]),
    ("hy", ["Սա նախադասություն է։", "Այո։"]),
    ("km", ["ខ្ញុំទៅផ្ទះ។", "ល្អ។"]),
    ("th", ["พ.ศ. ๒๕๓๐ เขามา และ กลับ"]),
    ("de", ["Am 3. Oktober kam z. B. Herr Dr. Weber.", "Er kam. »Komm«, rief er."][:1]),
    ("de", ["Er kam.", "»Komm!« rief sie."][:1]),
    ("fr", ["« Viens ! » dit-il.", "M. Dupont, p. 3, arrive.", "« Quoi ? »", "Rien."]),
    ("ru", ["А. С. Пушкин родился в 1799 г. в Москве.", "Это т. е. факт?", "Да."]),
    ("pt", ["Sei quem ele é.", "Ela não."]),
]
UNSPACED = [
    ("zh", ["你好。", "“真的吗？”", "是的！", "他有3.5元."]),
    ("ja", ["これは本です。", "「はい。」", "行こう!", "うん"]),
]


@pytest.mark.parametrize(("language", "expected"), CASES)
def test_sentences_of_a_paragraph(language, expected):
    assert split_sentences(" ".join(expected), language) == expected


@pytest.mark.parametrize(("language", "expected"), UNSPACED)
def test_sentences_without_spaces(language, expected):
    assert split_sentences("".join(expected), language) == expected


def test_marks_alone_join_the_sentence_before():
    assert split_sentences("Really? ?! … Yes. )") == ["Really? ?! …", "Yes. )"]
    assert split_sentences(" ... ") == ["..."]
    assert split_sentences(" \n\t\n") == []


def test_no_letter_is_lost():
    text = " ".join(s for _, expected in [*CASES, *UNSPACED] for s in expected)
    for language in (None, "en", "hi", "zh"):
        joined = "".join(split_sentences(text, language))
        assert "".join(joined.split()) == "".join(text.split())


def test_a_long_line_is_split_in_linear_time():
    parts = split_sentences("यह एक वाक्य है। " * 2000 + "x" * 20000 + ". End", "hi")
    assert len(parts) == 2002
    assert parts[-2] == "x" * 20000 + "."
    assert len(split_sentences("a.b." * 5000 + '."' * 5000)) == 1


LINES = [(1, " One ends. Two "), (2, "goes on."), (4, ""), (7, "三。四"), (8, "五。 ")]


def test_line_breaks_end_sentences_unless_text_is_wrapped():
    def split(layout):
        return [tuple(s) for s in split_document(LINES, "en", layout=layout)]

    assert split("paragraphs") == [
        *[("One ends.", 1), ("Two", 1), ("goes on.", 2)],
        *[("三。", 7), ("四", 7), ("五。", 8)],
    ]
    wrapped = [("One ends.", 1), ("Two goes on.", 1), ("三。", 7), ("四五。", 7)]
    assert split("wrapped") == wrapped
    assert split("lines") == [
        *[("One ends. Two", 1), ("goes on.", 2), ("三。四", 7), ("五。", 8)],
    ]
    ends = list(split_document([(3, "First."), (5, "Second.")], layout="wrapped"))
    assert [s.line for s in ends] == [3, 5]


def test_a_document_is_read_with_its_line_numbers(tmp_path):
    path = tmp_path / "book.hi.txt.gz"
    path.write_bytes(gzip.compress("एक। दो।\r\n\r\nतीन\n".encode()))
    assert [tuple(s) for s in read_document(path)] == [
        *[("एक।", 1), ("दो।", 1), ("तीन", 3)],
    ]
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    assert read_document(empty) == []


def test_the_language_of_the_name_chooses_the_abbreviations(tmp_path):
    text = "Er kam am 3. Oktober."
    for name, count in (("a.de.txt", 1), ("a.en.txt", 2), ("a.txt", 2)):
        path = tmp_path / name
        path.write_text(text)
        assert len(read_document(path)) == count
    assert len(read_document(tmp_path / "a.txt", language="deu")) == 1
    assert len(read_document(f"de={tmp_path / 'a.txt'}")) == 1


def test_bad_documents(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"one.\ntwo \xff\nthree.")
    with raises(DataError, path=path, line=2, received=True):
        read_document(path)
    skipped = SkipReport()
    found = read_document(path, on_error="skip", skipped=skipped)
    assert [s.line for s in found] == [1, 3]
    assert skipped.total == 1
    with raises(ValueError, "en-hi.tsv", received=True):
        read_document(tmp_path / "en-hi.tsv")
    with raises(ValueError, argument="layout", received="poem"):
        split_document([], layout="poem")
    with pytest.raises(ValueError) as caught:
        split_sentences("a", "no such language")
    check_message(str(caught.value), received=True)


def test_the_table_of_abbreviations_is_well_formed():
    kinds = {"never", "final", "number", "start", "ordinal"}
    for language, kind in module.abbreviations():
        assert kind in kinds
        assert language == "*" or language in languages.LANGUAGES
    assert not any(
        w.endswith(".") for ws in module.abbreviations().values() for w in ws
    )
