"""Cleaning of pairs: each rule, duplicates, held-out sets, the report, the files."""

from __future__ import annotations

import bz2
import collections
import itertools
import json
import random
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.errors import Fields, check_message, raises
from labse_tf import cli, data
from labse_tf.cli.arguments import CLEANING_NUMBERS
from labse_tf.data import CleaningRules, HeldOut, SentencePair, clean_pairs
from labse_tf.data.cleaning import (
    DUPLICATES,
    RELAXED_BY,
    RULES,
    characters,
    new_report,
    pairs,
    unlikely_lines,
)
from labse_tf.languages import SCRIPTS, scripts_of

SAMPLE = Path(__file__).resolve().parents[1] / "saved_models" / "sample"
GOOD = SentencePair("Open the file once more", "फ़ाइल एक बार फिर खोलें", "hi")

texts = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("aZ é कीख்தமி中の한ﾃ々ー٣1 \t\n.،।{}<>"),
    ),
    max_size=20,
)


def cleaned(*given: SentencePair, **options) -> tuple[list[SentencePair], dict]:
    """What stays, and how many went by which rule."""
    report = new_report(options.get("held_out", ()))
    kept = list(clean_pairs(given, report=report, **options))
    return kept, {rule: n for rule, n in report.by_rule().items() if n}


# === Characters ===


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(texts, st.sampled_from(["hi", "ja", "sr", "xyz"]))))
def test_characters_are_counted_as_one_by_one(rows) -> None:
    """NumPy's sums over blocks against Unicode's tables, one character at a time."""
    counts = characters.count_characters([t for t, _ in rows], [c for _, c in rows])

    def script(character: str) -> str | None:
        if unicodedata.category(character)[0] not in "LM":
            return None
        name = re.sub("^(FULL|HALF)WIDTH ", "", unicodedata.name(character, ""))
        name = name.replace("IDEOGRAPHIC ", "CJK ")
        found = [
            code
            for code, start in ((s.code, s.unicode_name) for s in SCRIPTS.values())
            if start and name.startswith((start + " ", start + "-"))
        ]
        return found[0] if found else None

    for i, (text, language) in enumerate(rows):
        own = scripts_of(language)
        groups = [unicodedata.category(c)[0] for c in text]
        dense = {"Hang", "Hani", "Hira", "Kana", "Yiii"}
        assert counts.characters[i] == sum(3 if script(c) in dense else 1 for c in text)
        spaces = sum(
            g == "Z" or c in "\t\n\r\v\f" for g, c in zip(groups, text, strict=True)
        )
        assert counts.visible[i] == len(text) - spaces
        assert counts.words[i] == sum(g in "LM" for g in groups)
        letters = [
            c for c, g in zip(text, groups, strict=True) if g == "L" or script(c)
        ]
        assert counts.letters[i] == len(letters)
        right = [c for c in letters if own is None or script(c) in own]
        assert counts.right[i] == len(right)


@settings(max_examples=200, deadline=None)
@given(st.lists(texts, max_size=8))
def test_keys_are_equal_where_the_letters_are(rows) -> None:
    def letters(text: str) -> str:
        folded = unicodedata.normalize("NFKC", text.casefold())
        return (
            "".join(c for c in folded if unicodedata.category(c)[0] in "LM") or folded
        )

    keys = characters.letter_keys(rows)
    assert keys.shape == (len(rows),)
    for (a, left), (b, right) in itertools.combinations(
        zip(rows, keys, strict=True), 2
    ):
        assert (left == right) == (letters(a) == letters(b))


# === Rules ===

BAD = {
    "too_short": SentencePair("Open it", "फ़ाइल एक बार फिर खोलें", "hi"),
    "too_long": SentencePair("word " * 1001, "शब्द " * 1001, "hi"),
    "markup": SentencePair("Open the file %(name)s", "फ़ाइल %(name)s खोलें", "hi"),
    "few_letters": SentencePair("12:30 - 14:45 hours", "१२:३० - १४:४५ घंटे", "hi"),
    "wrong_script": SentencePair("Open the file once", "fail ek bar phir kholen", "hi"),
    "length_ratio": SentencePair(
        "Open the file, and do not forget to close it when you have read all of it",
        "फ़ाइल खोलें।।",
        "hi",
    ),
    "identical": SentencePair("LibreOffice Writer 4", "libreoffice writer 5", "fr"),
}


def test_each_rule_takes_its_own_and_can_be_switched_off() -> None:
    assert set(BAD) == set(RULES)
    for rule, pair in BAD.items():
        assert cleaned(pair, GOOD) == ([GOOD], {rule: 1}), rule
        # A pair may break several rules: without the first it may go by another.
        kept, gone = cleaned(pair, rules=CleaningRules().without([rule]))
        assert rule not in gone and len(kept) + sum(gone.values()) == 1
    nothing = CleaningRules().without([*RULES, *DUPLICATES])
    every = [*BAD.values(), GOOD, GOOD]
    assert [p.source for p in cleaned(*every, rules=nothing)[0]] == [
        p.source.strip() for p in every
    ]


@pytest.mark.parametrize(
    "text",
    [
        *("a <b>bold</b> word", "fish &amp; chips", "fish &#38; chips", "{0} files"),
        *("see ${HOME} now", "%d files here", "%1$s files here", "100 %s of all"),
        *("in $HOME here", "call $name$ now", "[[Main Page]] here", "__NAME__ is it"),
    ],
)
def test_markup_is_seen(text: str) -> None:
    pair = SentencePair(text + " and more", "फ़ाइल एक बार फिर खोलें", "hi")
    assert cleaned(pair)[1] == {"markup": 1}


@pytest.mark.parametrize(
    "text",
    [
        *("5 < 6 and 7 > 6 is so", "fish & chips; and more", "50% of all users"),
        *("it costs $ 100 or US$ 5", "the snake_case of a name", "R&D is fun; not so"),
        *("50% discount on all", "a list [of things] here", "100%, says she"),
    ],
)
def test_prose_is_no_markup(text: str) -> None:
    pair = SentencePair(text, "फ़ाइल एक बार फिर खोलें", "hi")
    assert cleaned(pair)[1] == {}


def test_real_translations_stay() -> None:
    """Twenty sentences in 24 languages, of as many scripts as there are in India."""
    files = sorted(SAMPLE.glob("en-*.tsv"))
    assert len(files) >= 24
    for path in files:
        given = list(data.read_pairs(path))
        gone = cleaned(*given)[1]
        # "How are you?" in Chinese or Thai may be shorter than the paper's limit.
        assert gone.keys() <= {"too_short"}, (path.name, gone)
        assert sum(gone.values()) <= 5


def test_white_space_and_unicode_are_made_one() -> None:
    pair = SentencePair("Open  the\tfile\nonce ", "cafe\u0301 est ouvert", "fr")
    kept, _ = cleaned(pair)
    assert kept == [SentencePair("Open the file once", "café est ouvert", "fr")]


def test_interface_text_loses_its_placeholders_first() -> None:
    pair = SentencePair(
        "&amp;Open the <b>file</b> %(name)s", "फ़ाइल एक बार {0} खोलें", "hi"
    )
    assert cleaned(pair)[1] == {"markup": 1}
    kept, gone = cleaned(pair, rules=CleaningRules(interface=True))
    assert kept == [SentencePair("Open the file", "फ़ाइल एक बार खोलें", "hi")] and not gone
    empty = SentencePair("%(name)s %(count)d", "%(name)s", "hi")
    assert cleaned(
        empty, rules=CleaningRules(interface=True).without(["too_short"])
    ) == ([], {"too_short": 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min_characters": 0}, Fields(argument="min_characters")),
        ({"min_characters": 9, "max_characters": 8}, Fields(9, 8, received=True)),
        ({"min_letters": 1.5}, Fields(0, 1, argument="min_letters", received="1.5")),
        ({"min_script": -1}, Fields(argument="min_script")),
        ({"max_length_ratio": 0.5}, Fields(1, argument="max_length_ratio")),
        ({"max_length_ratio": float("nan")}, Fields(received="nan")),
    ],
)
def test_rules_that_make_no_sense_are_refused(change, message) -> None:
    if change.get("min_characters") == 0:
        change = {"min_characters": -1}
    with raises(ValueError, message):
        CleaningRules(**change)


def test_an_unknown_rule_is_refused() -> None:
    with raises(ValueError, "too_short", received="'short'"):
        CleaningRules().without(["short"])


# === Duplicates ===


def test_the_first_of_duplicates_stays() -> None:
    near = [
        SentencePair("Open the file once more", "फ़ाइल एक बार फिर खोलें", "hi"),
        SentencePair("open the file once more!", "फ़ाइल एक बार फिर खोलें।", "hi"),
        SentencePair("Open the file once more", "फ़ाइल एक बार फिर खोलें", "hi"),
        SentencePair("Open the file once more", "फ़ाइल एक बार फिर खोलें", "mr"),
    ]
    kept, gone = cleaned(*near)
    assert kept == [near[0], near[3]]
    assert gone == {"duplicate": 1, "near_duplicate": 1}
    kept, gone = cleaned(*near, rules=CleaningRules(near_duplicates=False))
    assert kept == [near[0], near[1], near[3]] and gone == {"duplicate": 1}
    # An equal pair is also one that is nearly equal.
    kept, gone = cleaned(*near, rules=CleaningRules(duplicates=False))
    assert kept == [near[0], near[3]] and gone == {"near_duplicate": 2}


def test_vowel_signs_and_sides_tell_pairs_apart() -> None:
    """की and कि differ by a mark alone; the sides are no bag of words."""
    given = [
        SentencePair("The story of the king", "राजा की कहानी यहाँ", "hi"),
        SentencePair("The story of the king", "राजा कि कहानी यहाँ", "hi"),
        SentencePair("Wir essen heute Brot", "The story of the king", "de"),
        SentencePair("The story of the king", "Wir essen heute Brot", "de"),
    ]
    assert cleaned(*given) == (given, {})


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 9))
def test_blocks_change_nothing(monkeypatch_block, chance, size) -> None:
    given = [*BAD.values(), GOOD, GOOD, GOOD._replace(source="open the FILE once more")]
    given = [p for p in given for _ in range(2)]
    chance.shuffle(given)
    whole = cleaned(*given)
    with monkeypatch_block(size):
        assert cleaned(*given) == whole


@pytest.fixture(scope="module")
def monkeypatch_block():
    import contextlib

    @contextlib.contextmanager
    def block(size: int):
        before, pairs.BLOCK = pairs.BLOCK, size
        try:
            yield
        finally:
            pairs.BLOCK = before

    return block


# === Held-out sets ===


def test_held_out_sentences_go_on_either_side_in_any_language(tmp_path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "en-hi.tsv").write_text(
        "The minister arrived on Monday\tमंत्री सोमवार को पहुँचे\n", encoding="utf-8"
    )
    with bz2.open(tmp_path / "set" / "sts.csv.bz2", "wt", encoding="utf-8") as file:
        file.write('"A man, a plan, a canal",Ein Mann und sein Plan,3.2\n')
    (tmp_path / "set" / "hi-en.hi.txt").write_text(
        "hi-000000001\tपेड़ पर एक चिड़िया बैठी है\n", encoding="utf-8"
    )
    (tmp_path / "set" / "talk.jsonl").write_text(
        '{"en": "A bird sits in the tree", "te": "short"}\n'
    )
    (tmp_path / "set" / "README.md").write_text("Open the file once more\n")
    held_out = [HeldOut.parse(f"exam={tmp_path / 'set'}")]
    assert len(held_out[0]) == 6
    given = [
        SentencePair("the minister arrived on monday.", "மந்திரி திங்கள் வந்தார்", "ta"),
        SentencePair("The minister came on a Monday", "मंत्री सोमवार को पहुँचे।", "hi"),
        SentencePair("A man, a plan — a canal!", "un homme et son plan", "fr"),
        SentencePair("A bird sat in the tree", "पेड़ पर एक चिड़िया बैठी है", "hi"),
        SentencePair("A bird sits in the tree", "un oiseau dans cet arbre", "fr"),
        GOOD,
    ]
    kept, gone = cleaned(*given, held_out=held_out)
    assert kept == [GOOD] and gone == {"exam": 5}
    # A sentence's number is none.
    keys = characters.letter_keys(["hi-000000001", "पेड़ पर एक चिड़िया बैठी है"])
    assert held_out[0].holds(keys).tolist() == [False, True]


@pytest.mark.parametrize("name", ["markup", "duplicate", ""])
def test_a_held_out_set_has_a_name_of_its_own(tmp_path, name) -> None:
    (tmp_path / "a.txt").write_text("A sentence of the set\n")
    with raises(ValueError, argument="name"):
        HeldOut(name, tmp_path / "a.txt")


def test_held_out_sets_that_hold_nothing_are_refused(tmp_path) -> None:
    (tmp_path / "a.txt").write_text("short\n1234567890123456\n")
    with raises(ValueError, 12, received=True):
        HeldOut("a", tmp_path / "a.txt")
    (tmp_path / "a.txt").write_bytes(b"A sentence \xff of the set\n")
    with raises(data.DataError, "UTF-8", path="a.txt", line=1):
        HeldOut("a", tmp_path / "a.txt")
    with pytest.raises(data.DataError):
        HeldOut("a", tmp_path / "b.txt")
    (tmp_path / "a.txt").write_text("A sentence of the set\n")
    held_out = [HeldOut("a", tmp_path / "a.txt")] * 2
    with raises(ValueError, received="['a', 'a']"):
        list(clean_pairs([GOOD], held_out=held_out))


# === The report ===


def numbered(count: int) -> list[SentencePair]:
    """Pairs that all are too short, so that all are counted."""
    return [SentencePair(f"no {i}", f"नहीं {i}", "hi") for i in range(count)]


def test_reports_add_up_and_show_the_same_examples_in_any_order() -> None:
    given = [*numbered(40), *BAD.values(), GOOD]
    whole = new_report()
    list(clean_pairs(given, report=whole))
    shuffled = random.Random(1).sample(given, len(given))
    parts = new_report()
    for part in (shuffled[:7], shuffled[7:30], shuffled[30:]):
        report = new_report()
        list(clean_pairs(part, report=report))
        parts.update(report)
    assert parts.to_dict() == whole.to_dict()
    assert whole.kept == {"fr": 0, "hi": 1}
    assert whole.read == {"hi": 47, "fr": 1}
    assert len(whole.examples["too_short", "hi"]) == 3
    assert [code for code, _ in whole.examples_of("identical")] == ["fr"]


def test_the_page_tells_rules_languages_and_examples() -> None:
    report = new_report()
    list(clean_pairs([*BAD.values(), GOOD], report=report))
    page = report.to_markdown()
    assert "1 of 8 pairs in 2 languages were kept." in page
    assert f"| markup | 1 | 12.50% | {RULES['markup']} |" in page
    assert "### wrong_script" in page and "fail ek bar phir kholen" in page
    assert "### duplicate" not in page
    row = next(line for line in page.splitlines() if line.startswith("| fr |"))
    assert row.split("|")[2:4] == [" 1 ", " 0 "]


# === Files ===


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Pairs in two languages, in two formats, some of them bad."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = [*(p for p in BAD.values() if p.language == "hi"), GOOD, GOOD]
    lines = [f"{p.source}\t{p.target}\n" for p in rows]
    (folder / "en-hi.tsv").write_text("".join(lines), encoding="utf-8")
    (folder / "mr.po").write_text(
        'msgid ""\nmsgstr "Language: mr\\n"\n\n'
        'msgid "Open the file\\nonce more"\nmsgstr "फाइल पुन्हा\\n एकदा उघडा"\n',
        encoding="utf-8",
    )
    return folder


def test_files_are_cleaned_into_files(corpus, tmp_path) -> None:
    report = data.clean_files(corpus, tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *("en-hi.tsv.gz", "en-mr.tsv.gz", "cleaning.json", "cleaning.md")
    }
    assert list(data.read_pairs(tmp_path / "out" / "en-hi.tsv.gz")) == [GOOD]
    assert list(data.read_pairs(tmp_path / "out" / "en-mr.tsv.gz")) == [
        SentencePair("Open the file once more", "फाइल पुन्हा एकदा उघडा", "mr")
    ]
    kept = json.loads((tmp_path / "out" / "cleaning.json").read_text("utf-8"))
    assert kept == report.to_dict() and kept["kept"] == 2
    # What is clean stays as it is, and the same text gives the same bytes.
    again = data.clean_files(tmp_path / "out", tmp_path / "again")
    assert sum(again.by_rule().values()) == 0
    for name in ("en-hi.tsv.gz", "en-mr.tsv.gz"):
        first, second = (tmp_path / d / name for d in ("out", "again"))
        assert first.read_bytes() == second.read_bytes()
    # A corpus of files is what the loader makes of it.
    assert data.load_pairs(tmp_path / "out").counts == {"hi": 1, "mr": 1}


def test_large_languages_are_written_in_parts(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pairs, "_BUFFER", 50)
    given = [
        SentencePair(f"sentence number {i}", f"वाक्य संख्या {i}", code)
        for i, code in itertools.product(range(20), ("hi", "mr"))
    ]
    pairs.write_pairs(given, tmp_path)
    for code in ("hi", "mr"):
        assert list(data.read_pairs(tmp_path / f"en-{code}.tsv.gz")) == [
            p for p in given if p.language == code
        ]
    with raises(ValueError, received=r"'a\tb\tc\n'"):
        pairs.write_pairs([SentencePair("a\tb", "c", "hi")], tmp_path)


def test_a_bad_line_leaves_no_output(corpus, tmp_path) -> None:
    (corpus / "en-ta.tsv").write_bytes(b"Open the file\n")
    with raises(data.DataError, path="en-ta.tsv", line=1):
        data.clean_files(corpus, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["corpus"]
    skipped = data.SkipReport()
    data.clean_files(corpus, tmp_path / "out", on_error="skip", skipped=skipped)
    assert skipped.total == 1


def test_nothing_left_is_an_error(corpus, tmp_path) -> None:
    with raises(ValueError, 9, received=True):
        data.clean_files(corpus, tmp_path / "out", CleaningRules(min_characters=4000))
    assert not (tmp_path / "out").exists()


# === Short text ===

INTERFACE = [
    ("Open", "खोलें"),
    ("Save as", "इस रूप में सहेजें"),
    ("File name", "फ़ाइल का नाम"),
    ("Settings", "सेटिंग्स"),
    ("Delete the file?", "फ़ाइल हटाएँ?"),
    ("Search history", "खोज इतिहास"),
    ("Cancel", "रद्द करें"),
    ("Are you sure?", "क्या आपको यकीन है?"),
    ("Log out", "लॉग आउट"),
    ("OK", "ठीक"),
]


def test_short_text_is_kept_and_the_report_tells_how(tmp_path, capsys) -> None:
    path, output = tmp_path / "en-hi.tsv", tmp_path / "out"
    path.write_text("".join(f"{a}\t{b}\n" for a, b in INTERFACE), encoding="utf-8")
    arguments = ["clean", str(path), "--output", str(output), "--overwrite"]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    check_message(out, "too_short removed 70%", "`--short`", "`--min-characters`")
    assert "`--short`" in (output / "cleaning.md").read_text("utf-8")
    assert cli.main([*arguments, "--short"]) == 0
    out = capsys.readouterr().out
    check_message(out, "10 of 10")
    assert "relax" not in out + (output / "cleaning.md").read_text("utf-8")
    assert cli.main([*arguments, "--short", "--min-characters", "3"]) == 0
    check_message(capsys.readouterr().out, "9 of 10")
    path.write_text("Open\tखोलें\n", encoding="utf-8")
    assert cli.main(arguments) == 2
    check_message(capsys.readouterr().err, "`--short`", 1)


def test_every_rule_can_be_relaxed(capsys) -> None:
    assert set(RELAXED_BY) == {*RULES, *DUPLICATES}
    with pytest.raises(SystemExit):
        cli.main(["clean", "--help"])
    flags = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    assert set(re.findall(r"--[\w-]+", " ".join(RELAXED_BY.values()))) <= flags


# === The command ===


def test_the_command_cleans_and_tells(corpus, tmp_path, capsys) -> None:
    held_out = tmp_path / "exam.txt"
    held_out.write_text("फाइल पुन्हा एकदा उघडा\n", encoding="utf-8")
    arguments = ["clean", str(corpus), "--output", str(tmp_path / "out")]
    arguments += ["--held-out", str(held_out), "--json", str(tmp_path / "report.json")]
    assert cli.main([*arguments, "--without", "markup", "length_ratio"]) == 0
    output = capsys.readouterr()
    check_message(output.err, 1, path="exam.txt")
    check_message(output.out, 3, 9, 2)
    assert "wrong_script" in output.out and "fail ek bar phir kholen" in output.out
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["removed"]["exam.txt"] == 1 and report["removed"]["markup"] == 0
    assert cli.main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main([*arguments, "--overwrite", "--min-letters", "2"]) == 2
    check_message(capsys.readouterr().err, argument="min_letters")


def test_the_help_tells_the_defaults_of_the_rules(capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["clean", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    for name in CLEANING_NUMBERS:
        flag = "--" + name.replace("_", "-")
        default = getattr(CleaningRules(), name)
        assert re.search(rf"{flag} N [^-]*\(default: {re.escape(str(default))}", told)
    for rule in (*RULES, *DUPLICATES):
        assert rule in told


def test_balance_is_told_and_drawn(corpus, tmp_path, capsys) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plots` is missing")
    plot, result = tmp_path / "shares.png", tmp_path / "shares.json"
    arguments = ["balance", str(corpus), "--smoothing", "0.5", "--draws", "90"]
    assert cli.main([*arguments, "--plot", str(plot), "--json", str(result)]) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    shares = json.loads(result.read_text())["languages"]
    # 8 and 1 pairs: roots 2.83 and 1.
    assert shares["hi"]["pairs"] == 8 and shares["hi"]["before"] == round(8 / 9, 6)
    assert shares["hi"]["after"] == round(8**0.5 / (8**0.5 + 1), 6)
    assert shares["mr"]["passes"] == round(90 * (1 - 8**0.5 / (8**0.5 + 1)), 4)
    assert re.search(
        rf"hi .*\b8\b.*{shares['hi']['after']:.2%}", capsys.readouterr().out
    )


def test_balance_adds_up() -> None:
    counts = {"hi": 900, "ta": 90, "or": 9}
    shares = data.balance(counts, cap=100, draws=10_000)
    assert [s.language for s in shares] == ["hi", "ta", "or"]
    assert sum(s.before for s in shares) == pytest.approx(1)
    assert sum(s.passes * s.pairs for s in shares) == pytest.approx(10_000)
    expected = np.array([100, 90, 9]) ** 0.3
    np.testing.assert_allclose([s.after for s in shares], expected / expected.sum())
    assert collections.Counter(counts) == {s.language: s.pairs for s in shares}


# === Single lines ===


@pytest.mark.parametrize(
    ("main", "others"),
    [
        ("यह एक वाक्य है, PC के साथ और उसके बिना भी", ["An English line", "доброе утро"]),
        ("これは漢字とカナの文です。", ["доброе утро", "यह एक वाक्य है"]),
        ("A sentence: 3 of them.", ["这是一个句子。", "доброе утро"]),
    ],
)
def test_lines_that_are_hardly_sentences(main, others):
    lines = [f"{main} {i}" for i in range(20)]
    digits = ["12.05.2026", "+49 30 1234 / A", "--- ***", "१२३ ४५६"]
    every = [*lines[:10], *digits, *others, *lines[10:]]
    found = unlikely_lines(lambda: [every[:7], every[7:]])
    expected = np.zeros(len(every), bool)
    expected[10:14] = True
    assert found.few_letters.tolist() == expected.tolist()
    expected = np.zeros(len(every), bool)
    expected[14:16] = True
    assert found.other_script.tolist() == expected.tolist()
    # A file of two languages in equal parts keeps both.
    both = [*lines, *(f"{others[0]} {i}" for i in range(20))]
    assert not unlikely_lines(lambda: [both]).other_script.any()
    assert [part.size for part in unlikely_lines(lambda: [])] == [0, 0]
