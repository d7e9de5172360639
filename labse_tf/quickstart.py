"""Quickstart: from real text to a served model in minutes.

    catalogs -> text/ -> vocab.txt -> pretrained/ -> model/ -> saved_model/1
        -> hub.KerasLayer

Each stage writes its result to the output directory. A stage whose result exists is
skipped.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from labse_tf import data, presets
from labse_tf.evaluation import translation_accuracy
from labse_tf.files import atomic_directory, read_json, write_text
from labse_tf.languages import language_code, language_name
from labse_tf.progress import Progress
from labse_tf.recipes import PretrainingRecipe, Recipe
from labse_tf.training.options import RunOptions

if TYPE_CHECKING:
    from labse_tf.models import LaBSE

# Packages whose message catalogs are the text, with their licenses. The extra
# `quickstart` installs them.
PACKAGES: Mapping[str, str] = {
    "django": "BSD-3-Clause",
    "rest_framework": "BSD-3-Clause",
    "sphinx": "BSD-2-Clause",
    "weblate_language_data": "MIT",
}

# Twelve Indian languages first, then eight others of several scripts.
LANGUAGES = tuple("hi bn ta te mr ml kn pa ne ur or si ar de es fr id ru tr zh".split())

# The shape is taken from RECIPE.
PRETRAINING = PretrainingRecipe(
    sequence_length=64,
    batch_size=32,
    train_steps=100,
    learning_rate=5e-4,
    warmup_steps=10,
    max_predictions=13,
)

RECIPE = Recipe(
    num_layers=4,
    num_heads=4,
    hidden_dim=128,
    intermediate_dim=256,
    max_sequence_length=128,
    pooling="mean",
    sequence_length=48,
    batch_size=128,
    train_steps=400,
    learning_rate=1e-3,
    warmup_steps=40,
)

VOCABULARY_SIZE = 8000
_HELD_OUT = 0.1  # share of the English sentences, with all their translations
_HELD_OUT_MOST = 200  # maximum number of held-out pairs per language
_STATE = "quickstart.json"
_MADE = (
    *("text", "vocab.txt", "pretrained", "model", "saved_model"),
    *("accuracy.json", _STATE),
)
# Fields that must be equal in both trainings, since they train the same encoder.
_SHAPE = (
    *("num_layers", "num_heads", "hidden_dim", "intermediate_dim", "activation"),
    *("max_sequence_length", "pooling"),
)

# Runs in a separate process, to show that the SavedModel does not need labse_tf.
_NEIGHBOURS = """
import json, os, sys
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import warnings
warnings.filterwarnings("ignore")
sys.modules["labse_tf"] = None
import numpy as np
import tensorflow as tf
import tensorflow_text
import tensorflow_hub as hub
task = json.load(sys.stdin)
layer = hub.KerasLayer(sys.argv[1])
def embed(texts):
    parts = [texts[i : i + 256] for i in range(0, len(texts), 256)]
    return np.concatenate([layer(tf.constant(p))["default"].numpy() for p in parts])
cosines = embed(task["queries"]) @ embed(task["candidates"]).T
best = cosines.argmax(axis=1)
print(json.dumps([[int(i), float(c[i])] for i, c in zip(best, cosines)]))
"""


class Accuracy(NamedTuple):
    """Nearest-translation accuracy of a language, mean of both directions, 0 to 1."""

    pairs: int
    before: float
    after: float


class Neighbour(NamedTuple):
    """Sentence with its nearest English sentence and its correct translation."""

    language: str
    sentence: str
    nearest: str
    cosine: float
    translation: str


@dataclasses.dataclass(frozen=True)
class QuickstartResult:
    """Result of a quickstart.

    Attributes:
        model: Directory of the preset.
        saved_model: Directory of the SavedModel.
        accuracy: Language -> accuracy before and after training.
        neighbours: Up to five sentences with the nearest sentence found by the
            SavedModel.
        seconds: Wall time of this call.
    """

    model: Path
    saved_model: Path
    accuracy: dict[str, Accuracy]
    neighbours: list[Neighbour]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the result in JSON types."""
        return {
            "model": str(self.model),
            "saved_model": str(self.saved_model),
            "accuracy": {code: a._asdict() for code, a in self.accuracy.items()},
            "neighbours": [n._asdict() for n in self.neighbours],
            "seconds": round(self.seconds, 1),
        }


def quickstart(
    output: str | Path = "labse-quickstart",
    *,
    pairs: Sequence[str | Path] | None = None,
    languages: Sequence[str] | None = None,
    recipe: Recipe = RECIPE,
    pretraining: PretrainingRecipe | None = PRETRAINING,
    vocabulary_size: int = VOCABULARY_SIZE,
    on_error: data.OnError = "raise",
    fresh: bool = False,
    progress: Progress = None,
) -> QuickstartResult:
    """Learn a vocabulary, pre-train, train, measure, export and serve an encoder.

    A tenth of the English sentences is held out with all their translations. Run the
    same call again to resume.

    Args:
        output: Output directory; `model` is the preset, `saved_model/1` the SavedModel.
        pairs: Pair files; see `labse_tf.data.find_pair_files`. By default, the message
            catalogs of the `PACKAGES`, which the extra `quickstart` installs.
        languages: Language codes to keep. By default all languages of `pairs`, or
            `LANGUAGES` if `pairs` is not given.
        recipe: Recipe of the dual encoder.
        pretraining: Recipe of the masked language model; the shape is taken from
            `recipe`. If it is `None`, or the encoder has no layers, pre-training is
            skipped.
        vocabulary_size: Size of the vocabulary, with special tokens.
        on_error: `"skip"` counts invalid lines of `pairs` instead of raising an error.
        fresh: Whether to remove the results of an earlier call first.
        progress: See `labse_tf.progress`.

    Raises:
        ValueError: If there is no text, or `output` contains other files or the
            results of other settings.
        ImportError: If the extra `quickstart` is not installed.
    """
    from labse_tf.export import export_saved_model
    from labse_tf.tokenizers import load_vocabulary
    from labse_tf.tokenizers.vocabulary import LAYOUT
    from labse_tf.training import untrained_encoder

    started = time.perf_counter()
    folder = Path(output)
    if pairs is None and languages is None:
        languages = LANGUAGES
    _need_hub()
    if vocabulary_size <= len(LAYOUT):
        raise ValueError(
            f"`vocabulary_size` must be greater than {len(LAYOUT)}, the number of "
            f"fixed tokens. Received: {vocabulary_size}"
        )
    pretraining = _fitted(pretraining, recipe)
    wanted = {
        "pairs": None if pairs is None else [str(Path(p).resolve()) for p in pairs],
        "languages": None if languages is None else list(languages),
        "recipe": dataclasses.asdict(recipe),
        "pretraining": pretraining and dataclasses.asdict(pretraining),
        "vocabulary_size": vocabulary_size,
    }
    _take_folder(folder, wanted, fresh=fresh)
    text, vocabulary = folder / "text", folder / "vocab.txt"
    saved_model = folder / "saved_model" / "1"

    with _stage(1, "Text") as say:
        if not _reused(text.is_dir(), text, say):
            _collect(text, pairs, languages, on_error)
        train = data.load_pairs(text / "train", progress=progress)
        held_out = data.load_pairs(text / "held_out", progress=progress)
        say(
            f"{len(train):,} pairs in {len(train.languages)} languages to train on, "
            f"{len(held_out):,} held out"
        )
    with _stage(2, "Vocabulary") as say:
        if not _reused(vocabulary.is_file(), vocabulary, say):
            _learn(text / "train", vocabulary, vocabulary_size, progress)
        say(f"{len(load_vocabulary(vocabulary)):,} tokens")
    with _stage(3, "Pre-training") as say:
        start = {"vocabulary": vocabulary}
        if pretraining is None:
            say("skipped")
        else:
            start = {"model": _pretrain(pretraining, train, folder, say, progress)}
    with _stage(4, "Training") as say:
        before = _measure(untrained_encoder(recipe, vocabulary), held_out)
        model = _train(recipe, train, folder, start, say, progress)
    with _stage(5, "Accuracy") as say:
        accuracy = _compare(before, _measure(model, held_out), held_out)
        found = {code: row._asdict() for code, row in accuracy.items()}
        write_text(folder / "accuracy.json", json.dumps(found, indent=2))
        say("nearest translation among the held-out pairs, mean of both directions")
    with _stage(6, "Export") as say:
        if not _reused(saved_model.is_dir(), saved_model, say):
            export_saved_model(model, saved_model)
            say(f"{saved_model}")
    with _stage(7, "Serving") as say:
        say("hub.KerasLayer in a new process")
        neighbours = _neighbours(saved_model, held_out)
    return QuickstartResult(
        folder / "model",
        saved_model,
        accuracy,
        neighbours,
        time.perf_counter() - started,
    )


def print_result(result: QuickstartResult) -> None:
    """Print the two tables of a quickstart to standard output."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 100)
    table = Table(title="Held-out accuracy (nearest translation)")
    for name, justify in (
        ("language", "left"),
        ("pairs", "right"),
        ("chance", "right"),
        ("before", "right"),
        ("after", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for code, row in result.accuracy.items():
        table.add_row(
            f"{code}  {language_name(code)}",
            str(row.pairs),
            f"{1 / row.pairs:.1%}",
            f"{row.before:.1%}",
            f"{row.after:.1%}",
        )
    rows = list(result.accuracy.values())
    table.add_section()
    table.add_row(
        "mean",
        str(sum(row.pairs for row in rows)),
        f"{sum(1 / row.pairs for row in rows) / len(rows):.1%}",
        f"{sum(row.before for row in rows) / len(rows):.1%}",
        f"{sum(row.after for row in rows) / len(rows):.1%}",
    )
    console.print(table)
    table = Table(title="Nearest English sentence (SavedModel)", show_lines=True)
    for name in ("sentence", "nearest English", "cosine", ""):
        table.add_column(name, overflow="fold")
    for n in result.neighbours:
        right = n.nearest == n.translation
        table.add_row(
            f"{n.language}  {n.sentence}",
            n.nearest,
            f"{n.cosine:.2f}",
            "right" if right else f"expected: {n.translation}",
        )
    console.print(table)
    print(f"model        {result.model}")
    print(f"SavedModel   {result.saved_model}")
    print(f"time         {result.seconds:.0f} s")


@contextmanager
def _stage(number: int, name: str) -> Iterator[Callable[[str], None]]:
    """Print a stage and its time to standard error."""
    started = time.perf_counter()
    print(f"[{number}/7] {name}", file=sys.stderr, flush=True)
    yield lambda text: print(f"      {text}", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - started
    print(f"      done in {seconds:.1f} s", file=sys.stderr, flush=True)


def _reused(made: bool, path: Path, say: Callable[[str], None]) -> bool:
    """Report an existing result, and return whether it exists."""
    if made:
        say(f"reused: {path}")
    return made


def _need_hub() -> None:
    """Raise an error before the work starts if the extra is not installed."""
    for module in ("tensorflow_hub", "tf_keras"):
        if importlib.util.find_spec(module) is None:
            raise ImportError(
                f"The quickstart requires {module}: pip install 'labse-tf[quickstart]'"
            )


def _take_folder(folder: Path, wanted: dict[str, Any], *, fresh: bool) -> None:
    """Prepare the output directory, or raise an error if it contains other files."""
    # JSON turns tuples into lists; convert for the comparison with the file.
    wanted = json.loads(json.dumps(wanted))
    state = folder / _STATE
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: expected a directory. Received: a file")
    ours = state.is_file()
    others = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if others and not ours:
        raise ValueError(
            f"{folder}: expected a new or empty directory, or one of a quickstart. "
            f"Received: {', '.join(sorted(others)[:5])}"
        )
    if fresh and ours:
        for name in _MADE:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    elif ours and (known := read_json(state)) != wanted:
        different = sorted(key for key in wanted if known.get(key) != wanted[key])
        raise ValueError(
            f"{folder} was made with other settings: expected --fresh to start over "
            f"or another directory. Received: other values of {', '.join(different)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(state, json.dumps(wanted, indent=2))


def _collect(
    target: Path,
    pairs: Sequence[str | Path] | None,
    languages: Sequence[str] | None,
    on_error: data.OnError,
) -> None:
    """Write `train/en-XX.tsv` and `held_out/en-XX.tsv` atomically."""
    files = data.find_pair_files(pairs) if pairs else _catalogues(languages or ())
    seen = set()

    def tidy(pair: data.SentencePair) -> data.SentencePair | None:
        source, translation = pair.source, pair.target
        if pairs is None:
            source = data.clean_interface_text(source)
            translation = data.clean_interface_text(translation)
        source, translation = " ".join(source.split()), " ".join(translation.split())
        key = (pair.language, source, translation)
        # Untranslated messages and single characters are useless as pairs.
        if len(source) < 3 or len(translation) < 2 or source == translation:
            return None
        if key in seen:
            return None
        seen.add(key)
        return data.SentencePair(source, translation, pair.language)

    # The user cannot fix errors in the catalogs of packages.
    on_error = on_error if pairs else "skip"
    corpus = data.load_pairs(
        files, languages=languages, transform=tidy, on_error=on_error
    )
    if corpus.skipped:
        print(corpus.skipped, file=sys.stderr)
    train, held_out = corpus.split(_HELD_OUT, seed=0)
    with atomic_directory(target) as folder:
        for name, part, most in (
            ("train", train, None),
            ("held_out", held_out, _HELD_OUT_MOST),
        ):
            for code in part.languages:
                lines = [f"{s}\t{t}\n" for s, t in _rows(part, code)[:most]]
                write_text(folder / name / f"en-{code}.tsv", "".join(lines))
        if pairs is None:
            origins = [f"- {name}: {licence}" for name, licence in PACKAGES.items()]
            write_text(
                folder / "SOURCES.md",
                "Messages and their translations from the catalogs of these "
                "packages, under their licenses:\n\n" + "\n".join(origins) + "\n",
            )


def _rows(corpus: data.ParallelCorpus, code: str) -> list[tuple[str, str]]:
    """Return all pairs of a language, English first."""
    sides = corpus.pairs(code, range(corpus.counts[code]))
    return [(s.decode(), t.decode()) for s, t in zip(*sides, strict=True)]


def _catalogues(languages: Iterable[str]) -> list[Path]:
    """Return the gettext catalogs of the packages in the given languages.

    Of several variants of a language, only the first catalog is used, since most of
    their messages are the same.
    """
    wanted = {language_code(code) for code in languages}
    found: dict[tuple[Path, str, str | None], Path] = {}
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise ImportError(
                f"The quickstart requires {name}: "
                "pip install 'labse-tf[quickstart]', or give --pairs"
            )
        for place in spec.submodule_search_locations:
            for path in data.find_pair_files(place):
                code = data.file_language(path)
                if path.suffix in (".po", ".mo") and code in wanted:
                    found.setdefault((path.parents[2], path.name, code), path)
    return list(found.values())


def _learn(text: Path, target: Path, size: int, progress: Progress) -> None:
    """Learn the vocabulary from the training text."""
    from labse_tf.tokenizers import learn_vocabulary, save_vocabulary

    files = data.find_pair_files(text)
    tokens = learn_vocabulary(
        files, size, reader=data.read_sentences, progress=progress
    )
    save_vocabulary(tokens, target)


def _fitted(
    pretraining: PretrainingRecipe | None, recipe: Recipe
) -> PretrainingRecipe | None:
    """Return the pre-training recipe in the shape of `recipe`; `None` to skip it."""
    if pretraining is None or not recipe.num_layers:
        return None
    shape = {name: getattr(recipe, name) for name in _SHAPE}
    fitted = dataclasses.replace(pretraining, **shape)
    if fitted.stages is None and fitted.num_layers % 4:
        # The default stages need a number of layers that 4 divides.
        fitted = dataclasses.replace(fitted, stages=())
    fitted.check()
    return fitted


def _pretrain(
    recipe: PretrainingRecipe,
    train: data.ParallelCorpus,
    folder: Path,
    say: Callable[[str], None],
    progress: Progress,
) -> Path:
    """Train the masked language model and return the directory of its preset."""
    from labse_tf.training.masked_lm import pretrain

    target = folder / "pretrained"
    if not _reused(presets.is_preset(target), target, say):
        layers = " -> ".join(str(stage.num_layers) for stage in recipe.stage_plan())
        say(
            f"MLM and TLM, {recipe.train_steps} steps of {recipe.batch_size} rows of "
            f"{recipe.sequence_length} tokens, layers {layers}"
        )
    pretrain(
        recipe,
        train,
        None,
        target,
        vocabulary=folder / "vocab.txt",
        options=RunOptions(checkpoint_every=50, log_every=10, progress=progress),
    )
    return target


def _train(
    recipe: Recipe,
    train: data.ParallelCorpus,
    folder: Path,
    start: Mapping[str, Path],
    say: Callable[[str], None],
    progress: Progress,
) -> LaBSE:
    """Train the dual encoder and return its encoder."""
    from labse_tf.training import train_dual_encoder

    target = folder / "model"
    if not _reused(presets.is_preset(target), target, say):
        say(
            f"{recipe.train_steps} steps of {recipe.batch_size} pairs, "
            f"{recipe.num_layers} layers of {recipe.hidden_dim}"
        )
    return train_dual_encoder(
        recipe,
        train,
        target,
        model=start.get("model"),
        vocabulary=start.get("vocabulary"),
        options=RunOptions(checkpoint_every=100, log_every=10, progress=progress),
    )


def _compare(
    before: Mapping[str, float],
    after: Mapping[str, float],
    held_out: data.ParallelCorpus,
) -> dict[str, Accuracy]:
    """Return the accuracy before and after training for each language."""
    return {
        code: Accuracy(held_out.counts[code], before[code], after[code])
        for code in held_out.languages
    }


def _measure(model: LaBSE, held_out: data.ParallelCorpus) -> dict[str, float]:
    """Return the accuracy for each language, mean of both directions."""
    accuracy = {}
    for code in held_out.languages:
        source, target = (
            model.encode(side, progress=False)
            for side in zip(*_rows(held_out, code), strict=True)
        )
        accuracy[code] = sum(translation_accuracy(source, target)) / 2
    return accuracy


def _neighbours(saved_model: Path, held_out: data.ParallelCorpus) -> list[Neighbour]:
    """Return up to five sentences in as many languages with their neighbors."""
    everything = {code: _rows(held_out, code) for code in held_out.languages}
    candidates = sorted({s for rows in everything.values() for s, _ in rows})
    # Languages in the order of LANGUAGES; sentences at the third quartile of length.
    order = [code for code in LANGUAGES if code in everything]
    order += [code for code in everything if code not in order]
    step = max(1, len(order) // 5)
    chosen = []
    for code in order[::step][:5]:
        rows = sorted(everything[code], key=lambda row: (len(row[0].split()), row))
        chosen.append((code, *rows[len(rows) * 3 // 4]))
    task = {"queries": [target for _, _, target in chosen], "candidates": candidates}
    answer = subprocess.run(
        [sys.executable, "-c", _NEIGHBOURS, str(saved_model)],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if answer.returncode:
        raise RuntimeError(f"The SavedModel could not be used:\n{answer.stderr}")
    found = json.loads(answer.stdout.splitlines()[-1])
    return [
        Neighbour(code, target, candidates[row], cosine, source)
        for (code, source, target), (row, cosine) in zip(chosen, found, strict=True)
    ]
