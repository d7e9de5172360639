"""`labse_tf.text.plausibility`: warnings of swapped columns and unordered lines."""

from __future__ import annotations

import random
import warnings

import pytest

from helpers.command_line import run
from helpers.errors import check_message, warns
from labse_tf import evaluation
from labse_tf.text import DataWarning, read_pairs
from labse_tf.text.plausibility import is_in_another_script, mostly_in_another_script

WORDS = ["खोलें", "फ़ाइल", "फिर", "से", "सहेजें", "भाषा", "चुनें"]


def translations(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Pairs whose sides have as many words as each other."""
    rng = random.Random(seed)
    pairs = []
    for number in range(count):
        length = rng.randint(1, 12)
        english = " ".join(["open", "the", "file"][i % 3] for i in range(length))
        hindi = " ".join(rng.choice(WORDS) for _ in range(length))
        pairs.append((f"{english} {number}", hindi))
    return pairs


def write(path, pairs):
    path.write_text("".join(f"{a}\t{b}\n" for a, b in pairs), encoding="utf-8")
    return path


def read(path) -> int:
    return len(list(read_pairs(path)))


def test_swapped_columns_are_warned_of(tmp_path):
    pairs = translations(2500)
    path = write(tmp_path / "en-hi.tsv", [(b, a) for a, b in pairs])
    with warns(DataWarning, "swapped", "1,000", path=path, received=True):
        assert read(path) == 2500
    # Most lines, not all of them, and also of a short file.
    path = write(tmp_path / "en-hi.tsv", [(b, a) for a, b in pairs[:4]] + pairs[4:7])
    with warns(DataWarning, 4, 7, path=path):
        read(path)


def test_the_command_line_warns_on_one_line(tmp_path, capsys):
    path = write(tmp_path / "en-hi.tsv", [(b, a) for a, b in translations(20)])
    # Latin letters in Hindi break the rule of scripts.
    arguments = ("--without", "wrong_script", "too_short", "-o", tmp_path / "cleaned")
    assert run("clean", path, *arguments) == 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("warning: ") and "reading.py" not in line
    check_message(line, "swapped", 20, path=path)


@pytest.mark.parametrize(
    "change",
    [
        lambda pairs: pairs,
        lambda pairs: [(b, a) for a, b in pairs[:4]],  # too few to say
        lambda pairs: [(f"‘{a}’ — café", b) for a, b in pairs],
        lambda pairs: [(b, a) for a, b in pairs[:200]] + pairs[200:],
        lambda pairs: sorted(pairs),
        lambda pairs: [("1 + 1", "१ + १")] * 300,
        lambda pairs: [(a, f"word{i}") for i, (a, _) in enumerate(pairs[:99])],
    ],
    ids=["good", "few", "quotes", "half", "sorted", "symbols", "99"],
)
def test_plausible_pairs_give_no_warning(tmp_path, change):
    path = write(tmp_path / "en-hi.tsv", change(translations(500)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(path)


def test_sides_in_different_orders_are_warned_of(tmp_path):
    english, hindi = zip(*translations(600), strict=True)
    path = write(tmp_path / "en-hi.tsv", zip(sorted(english), hindi, strict=True))
    with warns(DataWarning, "parallel", 600, path=path, received=True):
        read(path)
    # Moses: two files, of which one was sorted.
    for code, side in (("en", english), ("hi", sorted(hindi))):
        text = "".join(f"{line}\n" for line in side)
        (tmp_path / f"corpus.{code}").write_text(text, encoding="utf-8")
    with warns(DataWarning, "parallel", path=tmp_path / "corpus.hi"):
        read(tmp_path / "corpus.hi")


def test_tatoeba_in_different_orders_is_warned_of(tmp_path):
    english, hindi = zip(*translations(300), strict=True)
    paths = [tmp_path / f"tatoeba.hin-eng.{code}" for code in ("hin", "eng")]
    for path, side in zip(paths, (hindi, english), strict=True):
        path.write_text("".join(f"{line}\n" for line in side), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation.tatoeba_pairs(tmp_path)
    lines = "".join(f"{line}\n" for line in sorted(english))
    paths[1].write_text(lines, encoding="utf-8")
    with warns(DataWarning, "parallel", path=paths[1], received=True):
        evaluation.tatoeba_pairs(tmp_path)


def test_scripts():
    assert [
        is_in_another_script(t) for t in ("", "…", "naïve", "Ｆｉｌｅ", "файл")
    ] == [
        *(False, False, False, False),
        True,
    ]
    assert mostly_in_another_script(["файл", "file", "файлы", "1", "2", "3"])
    assert not mostly_in_another_script([])
