r"""Measures the shipped models and writes the tables and pictures of their cards.

    python benchmarks/zoo.py --data path/to/data labse-nano labse-mini

`--data` is the folder that holds `tatoeba/` (LASER's files), `dev/tico19/` and
`dev/storybooks/` (pair files `en-XX.tsv.gz`). For each model, in its folder of
`saved_models/`:

- `scores.json`: accuracy a language on each set, over the languages that the model was
  trained on (`languages` in that file; `--languages` sets them the first time);
- `accuracy.png`, `similarity.png`, and, of a trained model, `curve.png` from the log;
- the part of `README.md` between `<!-- scores -->` and `<!-- end of scores -->`.

Shapes: accuracy is that of the nearest translation, mean of both directions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

import labse_tf
from labse_tf import data, evaluation, presets

SETS = ("tatoeba", "tico19", "storybooks", "sample")
# The same sentence in these languages is the rows of the heat map, and the columns.
SHOWN = ("en", "hi", "bn", "ta", "te", "ur", "fr", "de", "id", "ru", "zh")
BEGIN, END = "<!-- scores -->", "<!-- end of scores -->"


def main() -> None:
    """Measures and draws."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("models", nargs="+", help="names of shipped models")
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--languages", nargs="+", help="that it was trained on")
    options = parser.parse_args()
    for name in options.models:
        folder = presets.find(name)
        known = folder / "scores.json"
        languages = options.languages or json.loads(known.read_text())["languages"]
        model = labse_tf.LaBSE.from_preset(folder, dtype="auto")
        scores = measure(model.encode, folder, options.data, languages)
        known.write_text(json.dumps(scores, indent=1, ensure_ascii=False) + "\n")
        draw_similarity(model, name, folder / "similarity.png")
        if (folder / "training_log.jsonl").exists():  # labse-small was not trained
            draw_curve(folder, folder / "curve.png")
        table = "\n".join(markdown(scores))
        print(f"{name}\n\n{table}\n")
        card = folder / "README.md"
        text = card.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        card.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def measure(
    encode: evaluation.Encoder, folder: Path, files: Path, languages: list[str]
) -> dict[str, Any]:
    """Accuracy a language on each set, and the chart of Tatoeba."""
    encode = once(encode)
    started = time.perf_counter()
    there = evaluation.tatoeba_pairs(files / "tatoeba")
    result = evaluation.tatoeba(
        encode, files / "tatoeba", [code for code in languages if code in there]
    )
    result.plot(folder / "accuracy.png")
    scores = {"tatoeba": result.accuracy}
    for name in SETS[1:]:
        place = sample_folder() if name == "sample" else files / "dev" / name
        pairs = read_pairs(place, languages)
        scores[name] = evaluation.retrieval(encode, pairs).accuracy
    return {
        "languages": languages,
        "accuracy": {
            name: {code: round(value, 4) for code, value in by_language.items()}
            for name, by_language in scores.items()
        },
        "means": {name: means(by_language) for name, by_language in scores.items()},
        "seconds": round(time.perf_counter() - started),
    }


def once(encode: evaluation.Encoder) -> evaluation.Encoder:
    """The encoder, which computes the vector of each text once."""
    known: dict[str, np.ndarray] = {}

    def vectors(texts: list[str]) -> np.ndarray:
        new = list(dict.fromkeys(text for text in texts if text not in known))
        if new:
            known.update(zip(new, np.asarray(encode(new)), strict=True))
        return np.stack([known[text] for text in texts])

    return vectors


def read_pairs(folder: Path, languages: list[str]) -> dict[str, Any]:
    """English sentences and translations by language; the first file of a language."""
    pairs: dict[str, Any] = {}
    for path in data.find_pair_files(folder):
        # Both sets name regions: pt-BR is Portuguese here, es-419 Spanish.
        code = evaluation.language_code(data.file_language(path) or "")
        if code not in languages or code in pairs:
            continue
        rows = list(data.read_pairs(path, on_error="skip"))
        pairs[code] = [row.source for row in rows], [row.target for row in rows]
    return pairs


def sample_folder() -> Path:
    """Twenty everyday sentences in 25 languages, which ship with the models."""
    return presets.shipped_directory() / "sample"


def means(accuracy: dict[str, float]) -> dict[str, float]:
    """Mean over all languages, over the Indian languages, and over the paper's 36."""
    groups = {
        "all": list(accuracy),
        "indian": [c for c in accuracy if c in evaluation.INDIAN_LANGUAGES],
        "of_36": [c for c in accuracy if c in evaluation.TATOEBA_GROUPS["36"]],
    }
    return {
        name: round(statistics.mean(accuracy[c] for c in codes), 4)
        for name, codes in groups.items()
        if codes
    }


def markdown(scores: dict[str, Any]) -> list[str]:
    """The table of a card, Indian languages first."""
    accuracy = scores["accuracy"]
    indian = [c for c in scores["languages"] if c in evaluation.INDIAN_LANGUAGES]
    others = [c for c in scores["languages"] if c not in indian]
    lines = [
        "| language | Tatoeba | TICO-19 | storybooks | the sample |",
        "|---|---:|---:|---:|---:|",
    ]

    def row(title: str, values: list[float | None]) -> str:
        cells = ("" if value is None else f"{value:.1%}" for value in values)
        return f"| {title} | " + " | ".join(cells) + " |"

    for title, group in (
        ("mean", "all"),
        ("mean, Indian languages", "indian"),
        ("mean, languages of the paper's 36", "of_36"),
    ):
        values = [scores["means"][name].get(group) for name in SETS]
        lines.append(row(f"**{title}**", values))
    for code in (*indian, *others):
        values = [accuracy[name].get(code) for name in SETS]
        if any(value is not None for value in values):
            lines.append(row(evaluation.language_name(code), values))
    return lines


def draw_similarity(model: labse_tf.LaBSE, name: str, path: Path) -> None:
    """Cosines of three sentences with themselves in ten other languages."""
    pairs = read_pairs(sample_folder(), list(SHOWN))
    english = pairs["hi"][0][:3]
    rows = [(code, i) for i in range(len(english)) for code in SHOWN]
    sentences = [english[i] if code == "en" else pairs[code][1][i] for code, i in rows]
    cosines = model.similarity(model.encode(sentences), model.encode(english))
    evaluation.plot_similarity(
        cosines,
        path,
        rows=[f"{evaluation.language_name(code)} {i + 1}" for code, i in rows],
        columns=[f"{i + 1}. {text}" for i, text in enumerate(english)],
        title=f"{name}: cosine to three English sentences",
    )


def draw_curve(folder: Path, path: Path) -> None:
    """Loss, and accuracy on held-out pairs or in the batch, against minutes."""
    from labse_tf.plots import new_figure, save_figure

    whole = json.loads((folder / "run.json").read_text())["recipe"]["batch_size"]
    log = (folder / "training_log.jsonl").read_text()
    losses, measured = [], []
    seconds, before = 0.0, 0
    for entry in map(json.loads, log.splitlines()):
        if "loss" not in entry:
            measured.append((seconds / 60, entry["dev_accuracy"]))
            continue
        steps = entry["step"] - before
        seconds += steps * entry.get("batch_size", whole) / entry["pairs_per_second"]
        before = entry["step"]
        inside = entry.get("ranking_accuracy", entry.get("teacher_cosine"))
        losses.append((seconds / 60, entry["loss"], inside))
    figure = new_figure(7, 3.4)
    axes = figure.add_subplot()
    minutes, loss, in_batch = zip(*losses, strict=True)
    axes.plot(minutes, loss, color="#08519c")
    axes.set_xlabel("minutes of training")
    axes.set_ylabel("loss", color="#08519c")
    axes.set_ylim(bottom=0)
    other = axes.twinx()
    if measured:
        other.plot(*zip(*measured, strict=True), "o-", color="#e6550d", markersize=4)
        other.set_ylabel("accuracy on held-out pairs", color="#e6550d")
    else:
        other.plot(minutes, in_batch, color="#e6550d")
        other.set_ylabel("accuracy in the batch", color="#e6550d")
    other.set_ylim(0, 1)
    for side in (axes, other):
        side.spines["top"].set_visible(False)
    save_figure(figure, path)


if __name__ == "__main__":
    main()
