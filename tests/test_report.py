"""One report of all that a folder has: what is found, written, refused, and when."""

from __future__ import annotations

import gzip
import html
import json
import re
import sys

import numpy as np
import pytest

from helpers.errors import Fields, raises
from helpers.evaluation import no_encoding, png_size, write_pair
from labse_tf import cli, presets
from labse_tf.cli import evaluate
from labse_tf.evaluation import (
    bucc_report,
    evaluate_all,
    retrieval,
    sts,
    tatoeba,
    xsim,
)
from labse_tf.evaluation.report import KINDS, Report, find_parts
from labse_tf.text import read_pairs

pytest.importorskip("matplotlib")


def letters(sentences):
    """Counts of letters and of pairs of them."""
    vectors = np.zeros((len(sentences), 256), np.float32)
    for row, sentence in enumerate(sentences):
        for i in range(len(sentence)):
            for part in (sentence[i], sentence[i : i + 2]):
                vectors[row, sum(map(ord, part)) * len(part) % 256] += 1
    return vectors


def lists(path):
    """The English sentences and the translations of a pair file."""
    pairs = [(pair.source, pair.target) for pair in read_pairs(path)]
    return [source for source, _ in pairs], [target for _, target in pairs]


WORDS = "red green blue white black brown orange yellow purple silver".split()


def sentences(seed, count=12):
    rng = np.random.default_rng(seed)
    return [f"{' '.join(rng.choice(WORDS, 3))} {i}" for i in range(count)]


@pytest.fixture
def data(tmp_path):
    """A folder with all kinds, two levels deep, and text to train on."""
    folder = tmp_path / "data"
    for name in ("tatoeba", "dev/news", "mining/hi-en", "sts", "corpus", ".cache"):
        (folder / name).mkdir(parents=True)
    english = sentences(0)
    write_pair(folder / "tatoeba", "hin", [s.upper() for s in english], english)
    write_pair(folder / "tatoeba", "deu", english[::-1], english)
    with gzip.open(folder / "dev/news/en-pt-BR.tsv.gz", "wt", encoding="utf-8") as file:
        file.writelines(f"{s}\t {s} !\tmore\n" for s in english)
    (folder / "dev/news/en-fr.tsv").write_text("red\tred 1\nblue\tblue 2\n")
    for split, seed in (("training", 1), ("test", 2)):
        sides = sentences(seed), sentences(seed + 10)
        sides[1][:4] = [f"{text}." for text in sides[0][:4]]
        stem = folder / "mining/hi-en" / f"hi-en.{split}"
        for code, texts in zip(("hi", "en"), sides, strict=True):
            lines = [f"{code}-{i}\t{text}\n" for i, text in enumerate(texts)]
            stem.with_name(f"{stem.name}.{code}").write_text("".join(lines))
        gold = "".join(f"hi-{i}\ten-{i}\n" for i in range(4))
        stem.with_name(f"{stem.name}.gold").write_text(gold)
    (folder / "sts/stsb-de-test.csv").write_text("red,red,5\nred,blue,0\nblue,red,1\n")
    (folder / "sts/stsb-de-dev.csv").write_text("red,red,5\nred,blue,0\n")
    (folder / "corpus/en-hi.tsv").write_text("no tab, and nobody looks\n")
    (folder / ".cache/en-hi.tsv").write_text("no tab, and nobody looks\n")
    (folder / "notes.txt").write_text("nothing\n")
    return folder


def names(folder):
    return [part.name for part in find_parts(folder)]


def test_parts_are_found(data):
    assert names(data) == ["corpus", "dev/news", "mining", "sts", "tatoeba"]
    assert [part.kind for part in find_parts(data)] == [
        *("pairs", "pairs", "bucc", "sts", "tatoeba"),
    ]
    assert names(data / "mining") == ["bucc"]
    assert names(data / "mining/hi-en") == ["bucc"]
    assert names(data / "dev") == ["news"]
    (data / "sts/en-hi.tsv").write_text("red\tred\n")
    assert names(data / "sts") == ["pairs", "sts"]
    assert names(data)[3:5] == ["sts:pairs", "sts:sts"]


def test_every_number_is_that_of_the_measure_alone(data, tmp_path):
    report = evaluate_all(letters, data, tmp_path / "report", model="letters")
    results = {part.name: results for part, results, _ in report.measured}
    assert list(results) == ["dev/news", "mining", "sts", "tatoeba"]
    assert results["tatoeba"]["accuracy"] == tatoeba(letters, data / "tatoeba")
    pairs = {
        "fr": lists(data / "dev/news/en-fr.tsv"),
        "pt": lists(data / "dev/news/en-pt-BR.tsv.gz"),
    }
    assert pairs["pt"][1][0] == f"{pairs['pt'][0][0]} !"
    assert results["dev/news"] == {
        "accuracy": retrieval(letters, pairs),
        "xsim": xsim(letters, pairs),
    }
    assert results["mining"]["mining"] == bucc_report(letters, data / "mining")
    assert results["sts"]["similarity"] == sts(letters, data / "sts")


def test_what_is_written(data, tmp_path):
    output = tmp_path / "report"
    report = evaluate_all(letters, data, output, model="letters")
    assert {path.name for path in output.iterdir()} == {
        *(
            "report.md",
            "report.html",
            "report.json",
            "dev-news.png",
            "mining.png",
            "sts.png",
        ),
        "tatoeba.png",
    }
    text = (output / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# letters\n") and f"`{data}`" in text
    assert re.search(r"^[^|#]*: corpus\.$", text, re.M)
    for part in ("dev/news", "mining", "sts", "tatoeba"):
        assert f"\n## {part}\n" in text
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert png_size(output / picture)[0] > 300
    page = (output / "report.html").read_text(encoding="utf-8")
    assert page.count('src="data:image/png;base64,') == 4
    assert not re.search(r"https?:|src=\"(?!data:)", page)
    for _, results, _ in report.measured:
        for result in results.values():
            assert result.table() in text
            assert html.escape(result.table()) in page
    for line in report.table().splitlines()[2:]:
        cells = [html.escape(cell) for cell in re.split(r" {2,}", line)]
        row = f"<tr><td>{cells[0]}</td><td>{cells[1]}</td>"
        assert row in page and f'<td class="number">{cells[3]}</td>' in page
    values = json.loads((output / "report.json").read_text())
    assert values == json.loads(json.dumps(report.to_dict()))
    assert values["parts"]["tatoeba"]["kind"] == "tatoeba"
    assert values["parts"]["sts"]["results"]["similarity"]["split"] == "test"
    # The table of the command and that of the file say the same.
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line[:2] == "| "][1:]
    assert len(rows) == len(report.table().splitlines()) - 2
    for row, line in zip(rows, report.table().splitlines()[2:], strict=True):
        assert [cell.strip() for cell in row] == re.split(r" {2,}", line)


def test_zero_shot_languages_in_the_summary(data, tmp_path):
    report = evaluate_all(
        letters, data, tmp_path / "report", trained=["hin", "fr", "pt"], only="tatoeba"
    )
    rows = {row[1]: row[2:] for row in report.measured[0].scores()}
    accuracy = report.measured[0].results["accuracy"].accuracy
    assert rows["accuracy, trained"] == (1, 100 * accuracy["hi"])
    assert rows["accuracy, zero-shot"] == (1, 100 * accuracy["de"])
    text = (tmp_path / "report/report.md").read_text()
    assert re.search(r"^[^|#]*\bhi fr pt\b", text, re.M)
    assert "corpus, dev/news, mining, sts" in text


def test_missing_kinds_are_said(data, tmp_path):
    report = evaluate_all(letters, data / "dev", tmp_path / "report")
    assert report.missing == ("tatoeba", "bucc", "sts")
    text = (tmp_path / "report/report.md").read_text()
    assert f"No data for: {KINDS['tatoeba']}; {KINDS['bucc']}; {KINDS['sts']}." in text


def test_training_text_is_measured_on_where_asked_for(data, tmp_path):
    with raises(ValueError, path="corpus/en-hi.tsv", line=1):
        evaluate_all(no_encoding, data, tmp_path / "report", only=["corpus"])
    (data / "corpus/en-hi.tsv").write_text("red\tred\nblue\tblue\n")
    report = evaluate_all(letters, data, tmp_path / "report", only=["corpus"])
    assert report.measured[0].results["accuracy"].mean_accuracy == 1.0


def test_development_set_where_there_is_no_test_set(data, tmp_path):
    (data / "sts/stsb-de-test.csv").unlink()
    report = evaluate_all(letters, data, tmp_path / "report", only=["sts"])
    assert report.measured[0].results["similarity"].split == "dev"
    assert "STS dev, Spearman" in report.table()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tatoeba/tatoeba.hin-eng.hin", "one\n", Fields("tatoeba.hin-eng.hin")),
        ("dev/news/en-fr.tsv", "a\tb\nno tab\n", Fields(path="en-fr.tsv", line=2)),
        ("dev/news/en-fr.tsv.gz", "a\tb\n", Fields(path="en-fr.tsv.gz")),
        ("dev/news/en-a b.tsv", "a\tb\n", Fields(path="en-a b.tsv")),
        (
            "mining/hi-en/hi-en.test.gold",
            "hi-0\ten-99\n",
            Fields(path="test.gold", line=1),
        ),
        (
            "mining/hi-en/hi-en.training.en",
            "no tab\n",
            Fields(path="training.en", line=1),
        ),
        ("sts/stsb-de-test.csv", "a,b,9\n", Fields(path="stsb-de-test.csv", line=1)),
    ],
)
def test_bad_data_is_found_before_anything_is_encoded(
    data, tmp_path, name, text, message
):
    (data / name).write_text(text)
    with raises(ValueError, message, received=True):
        evaluate_all(no_encoding, data, tmp_path / "report")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_bucc_without_a_training_set(data, tmp_path):
    for path in (data / "mining/hi-en").glob("*.training.*"):
        path.unlink()
    with raises(ValueError, "XX-en.training.XX"):
        evaluate_all(no_encoding, data, tmp_path / "report")


@pytest.mark.parametrize(
    ("folder", "options", "message"),
    [
        ("absent", {}, Fields("absent")),
        ("data", {"only": ["news"]}, Fields("corpus", received="news")),
        ("data", {"only": []}, Fields(received=True)),
        ("data", {"only": ["sts", "x", "y"]}, Fields(received=True)),
        ("empty", {}, Fields(received="empty")),
        ("data", {"trained": ["no code"]}, Fields(received="'no code'")),
    ],
)
def test_bad_arguments(data, tmp_path, folder, options, message):
    (tmp_path / "empty").mkdir()
    with raises((ValueError, OSError), message):
        evaluate_all(no_encoding, tmp_path / folder, tmp_path / "report", **options)
    assert not (tmp_path / "report").exists()


def test_text_to_train_on_only(data, tmp_path):
    for name in ("tatoeba", "dev", "mining", "sts"):
        (data / name).rename(tmp_path / f"away-{name}")
    with raises(ValueError, path=data):
        evaluate_all(no_encoding, data, tmp_path / "report")


def test_a_report_is_whole_or_not_there(data, tmp_path):
    output = tmp_path / "report"
    calls = []

    def fails_late(texts):
        calls.append(len(texts))
        # Tatoeba's two languages come last.
        if any(text.isupper() for text in texts):
            return np.full((len(texts), 256), np.nan)
        return letters(texts)

    with raises(ValueError, "hi", received=True):
        evaluate_all(fails_late, data, output)
    assert len(calls) > 5 and [p.name for p in tmp_path.iterdir()] == ["data"]
    evaluate_all(letters, data, output, only="sts")
    with raises(ValueError, path=output, received=True):
        evaluate_all(no_encoding, data, output)
    before = (output / "report.md").read_text()
    with raises(ValueError, "hi", received=True):
        evaluate_all(fails_late, data, output, overwrite=True)
    assert (output / "report.md").read_text() == before
    evaluate_all(letters, data, output, only="dev/news", overwrite=True)
    assert not (output / "sts.png").exists() and (output / "dev-news.png").exists()


def test_without_matplotlib_nothing_begins(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with raises(ImportError, "'labse-tf[plots]'"):
        evaluate_all(no_encoding, data, tmp_path / "report")


# === Command ===


def test_command(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluate, "open_encoder", lambda options: letters)
    output = tmp_path / "report"
    words = ["evaluate", "all", str(data), "--output", str(output)]
    model = ["--model", "labse-nano"]
    assert cli.main([*words, *model]) == 0
    said = capsys.readouterr()
    assert f"report: {output / 'report.md'}" in said.out and said.err == ""
    assert said.out.startswith("part ")
    # The languages are those of the model's card.
    assert "zero-shot" not in said.out
    values = json.loads((output / "report.json").read_text())
    assert values["model"] == "labse-nano" and values["trained"][:2] == ["en", "hi"]
    assert cli.main([*words, *model]) == 2
    assert "--overwrite" in capsys.readouterr().err
    again = [*words, *model, "--overwrite", "--only", "tatoeba", "--trained", "hi"]
    assert cli.main(again) == 0
    assert "accuracy, zero-shot" in capsys.readouterr().out
    assert (
        cli.main(
            [*words[:3], "--output", str(tmp_path / "other"), *model, "--only", "x"]
        )
        == 2
    )
    error = capsys.readouterr().err.strip()
    assert error.startswith("labse-tf: `only` must name parts") and "\n" not in error


def test_languages_of_a_card(tmp_path):
    card = tmp_path / "README.md"
    assert presets.stated_languages(tmp_path) is None
    for text, languages in (
        ("# no front matter\n\nlanguage: hi\n", None),
        ("---\nlanguage: hi\n---\n", ("hi",)),
        (
            "---\nlicense: mit\nlanguage: [hi, 'no', \"zh-Hant\"]\n---\n# x\n",
            ("hi", "no", "zh-Hant"),
        ),
        ("---\nlanguage:\n  - hi\n  - 'no'\ntags:\n  - bert\n---\n", ("hi", "no")),
        (
            "---\ntags:\n- bert\n---\n| languages | Hindi; Tamil, French |\n",
            ("hi", "ta", "fr"),
        ),
        ("---\nlanguage: [hin, hi-IN, zh_TW]\n---\n", ("hi", "zh-Hant")),
        ("---\nlanguage: multilingual\n---\n", None),
        ("| languages | Chinese (Hant), Serbian (Latn) |\n", ("zh-Hant", "sr-Latn")),
        ("# x\n\n| layers | 2 |\n", None),
    ):
        card.write_text(text, encoding="utf-8")
        assert presets.stated_languages(tmp_path) == languages, text
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"source": {"name": "smaller-labse"}}))
    languages = presets.stated_languages(tmp_path)
    assert languages == presets.FAMILY["smaller-labse"].languages
    for other in ({"source": {"layout": "huggingface"}}, {"model_type": "bert"}, []):
        config.write_text(json.dumps(other))
        assert presets.stated_languages(tmp_path) is None
    config.write_text("no JSON")
    assert presets.stated_languages(tmp_path) is None


def test_the_data_beside_the_checkout(shared, tmp_path):
    """Parts are found as they lie there, and one small part is measured."""
    found = {part.name: part.kind for part in find_parts(shared)}
    assert found == {
        "corpus": "pairs",
        "dev/storybooks": "pairs",
        "dev/tico19": "pairs",
        "mining": "bucc",
        "sts": "sts",
        "tatoeba": "tatoeba",
    }
    report = evaluate_all(letters, shared, tmp_path / "report", only=["sts"])
    assert isinstance(report, Report) and report.left_out[0] == "corpus"
    assert len(report.measured[0].results["similarity"].languages) == 11
