"""Card of a trained model: languages, data, base model, steps, scores, license."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labse_tf import presets
from labse_tf.adapters import LoRA
from labse_tf.files import write_text
from labse_tf.languages import language_name
from labse_tf.recipes import BaseRecipe


@dataclasses.dataclass(frozen=True)
class TrainingFacts:
    """Facts about a training run for the card.

    Attributes:
        recipe: Recipe of the run.
        counts: Language -> number of pairs or sentences.
        unit: Unit of the counts, "pairs" or "sentences".
        digest: SHA-256 of the text, or an empty string.
        base: Preset that the run started from; `None` for a new model.
        teacher: Teacher of a distillation, or an empty string.
        guide: Guide of the loss, or an empty string.
    """

    recipe: BaseRecipe
    counts: Mapping[str, int]
    unit: str
    digest: str = ""
    base: str | Path | None = None
    teacher: str = ""
    guide: str = ""

    def languages(self) -> list[str]:
        """Return the codes of all training languages, also those of the base model.

        The list is empty if the languages of the base model are not known.
        """
        codes = ["en"] if self.unit == "pairs" else []
        codes += [code for code in self.counts if code != "und"]
        if self.base is not None:
            stated = presets.stated_languages(presets.find(self.base))
            codes = [*stated, *codes] if stated else []
        return list(dict.fromkeys(codes))


def add_training(directory: Path, facts: TrainingFacts, log: Path) -> None:
    """Add front matter and a section on the training to the card of a preset.

    Args:
        directory: Preset with a card as written by `LaBSE.save_to_preset`.
        facts: Facts about the training.
        log: Training log; the last loss and the dev accuracy are taken from it.

    Raises:
        OSError: If a file cannot be read or written.
    """
    name, license_ = _base(facts)
    front = ["---", "library_name: labse_tf", "pipeline_tag: sentence-similarity"]
    front += [f"license: {license_}"]
    if name is not None:
        front += [f"base_model: {json.dumps(name)}"]
    if languages := facts.languages():
        # Quoted, because YAML reads `no` as false.
        front += ["language:", *(f"- '{code}'" for code in languages)]
    front += ["tags:", "- sentence-embeddings", "- translation-mining", "---"]
    recipe = facts.recipe
    total = sum(facts.counts.values())
    rows = {
        "base model": name or "none; trained from random weights",
        "teacher": f"`{facts.teacher}`" if facts.teacher else "",
        "guide": f"`{facts.guide}`" if facts.guide else "",
        "data": f"{total:,} {facts.unit}",
        "SHA-256 of the data": f"`{facts.digest}`" if facts.digest else "",
        "steps": f"{recipe.train_steps:,} of batch size {recipe.batch_size:,}",
        "learning rate": f"{recipe.learning_rate:g}",
        "LoRA": _lora(recipe),
        **_scores(log),
        "license": license_
        + (" (of the base model)" if name else "; it depends on the data"),
    }
    counts = sorted(facts.counts.items(), key=lambda item: -item[1])
    lines = ["## Training", "", "| property | value |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in rows.items() if value]
    lines += ["", f"| language | {facts.unit} |", "|---|---:|"]
    lines += [f"| {language_name(code)} | {n:,} |" for code, n in counts]
    lines += ["", "All settings are in `run.json`, the log in `training_log.jsonl`."]
    path = directory / presets.CARD
    card = path.read_text(encoding="utf-8").rstrip()
    write_text(path, "\n".join([*front, "", card, "", *lines, ""]))


def _lora(recipe: BaseRecipe) -> str:
    """Return rank and alpha of the low-rank weights, if the recipe has any."""
    rank = getattr(recipe, "lora", None)
    if rank is None:
        return ""
    lora = LoRA(rank, getattr(recipe, "lora_alpha", None))
    return f"rank {lora.rank}, alpha {lora.alpha:g}"


def _base(facts: TrainingFacts) -> tuple[str | None, str]:
    """Return the name of the base model and its license."""
    if facts.base is None:
        return None, "unknown"
    directory = presets.find(facts.base)
    source = presets.read_config(directory).get("source", {})
    card = directory / presets.CARD
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    found = re.search(r"^(?:license: *|\| *license *\| *)([\w.-]+)", text, re.MULTILINE)
    return source.get("name", directory.name), found[1].lower() if found else "unknown"


def _scores(log: Path) -> dict[str, str]:
    """Return the last loss, and the last and the best dev accuracy, of a log."""
    entries: list[dict[str, Any]] = []
    if log.is_file():
        entries = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    rows = {}
    losses = [entry for entry in entries if "loss" in entry]
    if losses:
        rows["loss"] = f"{losses[-1]['loss']:.4f} at step {losses[-1]['step']:,}"
    scores = [entry for entry in entries if "dev_accuracy" in entry]
    if scores:
        best = max(scores, key=lambda entry: entry["dev_accuracy"])
        for key, entry in (("last", scores[-1]), ("best", best)):
            rows[f"dev accuracy, {key}"] = (
                f"{entry['dev_accuracy']:.1%} at step {entry['step']:,}"
            )
    return rows
