"""Commands that make a model: quickstart, vocab, pretrain, train."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.cli.commands import (
    PAIRS_HELP,
    add_case,
    add_json,
    add_languages,
    add_on_error,
    add_text,
    as_preset,
    command,
    load,
    print_table,
    say_counts,
    say_skipped,
    write_json,
)
from labse_tf.progress import progress_bar
from labse_tf.recipes import (
    PRETRAINING_RECIPES,
    RECIPES,
    BaseRecipe,
    PretrainingRecipe,
    Recipe,
    get_pretraining_recipe,
    get_recipe,
)

if TYPE_CHECKING:
    from labse_tf.data import SkipReport

# === quickstart ===


def _add_quickstart(commands: Any) -> None:
    parser = command(
        commands,
        "quickstart",
        _quickstart,
        "learn, train, measure, export and serve a small encoder in minutes",
        "labse-tf quickstart --output labse-quickstart",
    )
    parser.add_argument("--output", default="labse-quickstart", metavar="DIR")
    parser.add_argument(
        "--pairs", nargs="+", metavar="FILE", help="your own; " + PAIRS_HELP
    )
    parser.add_argument(
        "--languages", nargs="+", metavar="CODE", help="only these, such as hi bn ta"
    )
    add_on_error(parser)
    parser.add_argument("--fresh", action="store_true", help="start over")
    parser.add_argument("--train-steps", type=int, metavar="N")
    parser.add_argument(
        "--pretrain-steps",
        type=int,
        metavar="N",
        help="of the masked language model before; 0 leaves it out",
    )
    parser.add_argument("--vocabulary-size", type=int, metavar="N")
    add_json(parser)


def _quickstart(options: argparse.Namespace) -> int | None:
    from labse_tf import quickstart

    recipe = quickstart.RECIPE
    if options.train_steps is not None:
        recipe = _with_steps(recipe, options.train_steps)
    recipe.check()
    pretraining: PretrainingRecipe | None = quickstart.PRETRAINING
    if options.pretrain_steps is not None:
        steps = options.pretrain_steps
        pretraining = _with_steps(quickstart.PRETRAINING, steps) if steps else None
    result = _until_signal(
        lambda: quickstart.quickstart(
            options.output,
            pairs=options.pairs,
            languages=options.languages,
            recipe=recipe,
            pretraining=pretraining,
            vocabulary_size=options.vocabulary_size or quickstart.VOCABULARY_SIZE,
            on_error=options.on_error,
            fresh=options.fresh,
        )
    )
    if isinstance(result, int):
        return result
    quickstart.print_result(result)
    write_json(options.json, result.to_dict())
    return None


_R = typing.TypeVar("_R", bound=BaseRecipe)


def _with_steps(recipe: _R, steps: int) -> _R:
    """A recipe of fewer or more steps, with a warm-up that fits into them."""
    warmup = min(recipe.warmup_steps, steps // 10)
    return dataclasses.replace(recipe, train_steps=steps, warmup_steps=warmup)


# === vocab ===


def _add_vocab(commands: Any) -> None:
    parser = command(
        commands,
        "vocab",
        _vocab,
        "learn a WordPiece vocabulary from text in many languages",
        "labse-tf vocab en-hi.tsv en-bn.tsv.gz --size 32000 --output vocab.txt",
    )
    add_text(parser)
    parser.add_argument(
        "--from-counts",
        action="store_true",
        help="the files are words that `python -m labse_tf.beam count-words` counted",
    )
    parser.add_argument("--size", type=int, required=True, metavar="N")
    parser.add_argument("--output", required=True, metavar="FILE")
    parser.add_argument(
        "--smoothing",
        type=float,
        default=0.3,
        help="exponent of the languages' shares: 1 as they are, 0 all alike "
        "(default 0.3, the paper's)",
    )
    add_case(parser)
    parser.add_argument("--workers", type=int, metavar="N", help="processes")
    add_json(parser)


def _vocab(options: argparse.Namespace) -> None:
    from labse_tf import data, tokenizers

    if options.from_counts:
        tokens = tokenizers.learn_vocabulary_from_counts(
            tokenizers.read_word_counts(_count_files(options.files)),
            options.size,
            smoothing=options.smoothing,
        )
        tokenizers.save_vocabulary(tokens, options.output)
        print(f"{len(tokens):,} tokens in {options.output}")
        write_json(options.json, {"size": len(tokens)})
        return
    report = data.SkipReport()
    files = data.find_pair_files(options.files)
    reader = functools.partial(
        data.read_sentences,
        language=options.language,
        on_error=options.on_error,
        skipped=report,
    )
    tokens = tokenizers.learn_vocabulary(
        files,
        options.size,
        reader=reader,
        smoothing=options.smoothing,
        lowercase=options.lowercase,
        strip_accents=options.strip_accents,
        languages=options.languages,
        num_workers=options.workers,
    )
    tokenizers.save_vocabulary(tokens, options.output)
    say_skipped(report)
    rates = tokenizers.unk_rate(
        files,
        tokenizers.WordPieceTokenizer(
            tokens, lowercase=options.lowercase, strip_accents=options.strip_accents
        ),
        reader=reader,
    )
    print_table(
        ("language", "[UNK]"), [(code, f"{rate:.3%}") for code, rate in rates.items()]
    )
    print(f"{len(tokens):,} tokens in {options.output}")
    write_json(options.json, {"size": len(tokens), "unk_rate": rates})


def _count_files(files: list[str]) -> list[Path]:
    """Files of counts; a directory stands for those in it."""
    found: list[Path] = []
    for path in map(Path, files):
        inside = sorted(path.glob("counts-*")) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"{path}: expected counts-*.tsv.gz. Received: none")
        found += inside
    return found


# === pretrain ===


def _add_pretrain(commands: Any) -> None:
    parser = command(
        commands,
        "pretrain",
        _pretrain,
        "train a masked language model (MLM and TLM) in stages of growing depth",
        "labse-tf pretrain --mono wiki.hi.txt.gz --pairs en-hi.tsv en-bn.tsv "
        "--vocab vocab.txt --output my-pretrained, then: "
        "labse-tf train en-hi.tsv en-bn.tsv --model my-pretrained --output my-model",
    )
    parser.add_argument(
        "--mono",
        nargs="+",
        default=[],
        metavar="FILE",
        help="text for MLM: a sentence or paragraph a line, the language in the name "
        "(wiki.hi.txt.gz) or before it (hi=wiki.txt), JSON Lines with a text each, or "
        "pair files, of which both sides are taken",
    )
    parser.add_argument(
        "--pairs",
        nargs="+",
        default=[],
        metavar="FILE",
        help="text for TLM; " + PAIRS_HELP,
    )
    add_languages(parser)
    parser.add_argument("--vocab", required=True, metavar="FILE")
    _add_run(parser, PRETRAINING_RECIPES)
    _add_recipe_flags(parser, PretrainingRecipe)


def _pretrain(options: argparse.Namespace) -> int | None:
    recipe = get_pretraining_recipe(
        options.recipe, **_given(options, PretrainingRecipe)
    )
    _check_run(options)
    if not options.mono and not options.pairs:
        raise ValueError("--mono or --pairs must name text. Received: neither")
    from labse_tf import data, pretraining

    report = data.SkipReport()
    pairs = sentences = None
    if options.pairs:
        files = data.find_pair_files(options.pairs)
        pairs = load(options, files, data.load_pairs, report)
    if options.mono:
        files = data.find_sentence_files(options.mono)
        sentences = load(options, files, data.load_sentences, report)
    say_skipped(report)
    for text, unit in ((pairs, "pairs"), (sentences, "sentences")):
        if text is not None:
            say_counts(text.counts, unit)
    result = _until_signal(
        lambda: pretraining.pretrain(
            recipe,
            pairs,
            sentences,
            options.output,
            vocabulary=options.vocab,
            **_run_options(options),
        )
    )
    if isinstance(result, int):
        return result
    _say_model(options.output)
    return None


# === train ===


def _add_train(commands: Any) -> None:
    parser = command(
        commands,
        "train",
        _train,
        "train a sentence encoder on pairs of translations",
        "labse-tf train en-hi.tsv en-bn.tsv --vocab vocab.txt --output my-model",
    )
    add_text(parser)
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument(
        "--model",
        metavar="MODEL",
        help="go on from this model: a shipped name, a preset, a Hugging Face "
        "directory, a SavedModel of TF Hub or a BERT checkpoint",
    )
    start.add_argument("--vocab", metavar="FILE", help="a new model with this one")
    _add_run(parser, RECIPES)
    parser.add_argument(
        "--stream",
        action="store_true",
        help="read the TFRecords of a prepared directory as they are used, and not "
        "its arrays into memory",
    )
    parser.add_argument(
        "--dev",
        nargs="+",
        default=[],
        metavar="FILE",
        help="held-out pairs, as FILE; their accuracy goes into the log",
    )
    parser.add_argument("--dev-every", type=int, default=1000, metavar="STEPS")
    _add_recipe_flags(parser, Recipe)


def _train(options: argparse.Namespace) -> int | None:
    recipe = get_recipe(options.recipe, **_given(options, Recipe))
    _check_run(options)
    _check_every(options, "dev_every")
    from labse_tf import data, pretraining, training

    report = data.SkipReport()
    pairs = _training_pairs(options, report)
    dev = None
    if options.dev:
        dev = load(options, data.find_pair_files(options.dev), data.load_pairs, report)
    say_skipped(report)
    say_counts(pairs.counts, "pairs")
    with as_preset(options.model) as model:
        result = _until_signal(
            lambda: training.train_dual_encoder(
                recipe,
                pairs,
                options.output,
                model=model,
                vocabulary=options.vocab,
                dev=dev,
                dev_every=options.dev_every,
                fit=pretraining.fit_progressively,
                **_run_options(options),
            )
        )
    if isinstance(result, int):
        return result
    _say_model(options.output)
    return None


def _training_pairs(options: argparse.Namespace, report: SkipReport) -> Any:
    """Pairs of files, or of a directory that `prepare` has made."""
    from labse_tf import data

    prepared = [path for path in options.files if data.is_prepared(path)]
    if not prepared:
        files = data.find_pair_files(options.files)
        return load(options, files, data.load_pairs, report)
    if len(options.files) > 1 or options.language is not None:
        raise ValueError(
            "A prepared directory goes alone, and knows its languages. Received: "
            f"{' '.join(options.files)}"
        )
    path, languages = prepared[0], options.languages
    if options.stream or "arrays" not in data.read_description(path).formats:
        return data.PairStream(path, languages=languages)
    count = sum(data.prepared_counts(path, languages).values())
    with progress_bar("Reading", count, "pairs") as advance:
        return data.open_prepared(path, languages=languages, progress=advance)


# === Shared by the trainers ===


def _add_run(parser: argparse.ArgumentParser, recipes: Mapping[str, Any]) -> None:
    """The arguments of a command that trains."""
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="a preset when the run ends"
    )
    about = "; ".join(f"{name}: {named.about}" for name, named in recipes.items())
    parser.add_argument(
        "--recipe",
        default="small",
        choices=sorted(recipes),
        help="where the values come from that no flag gives (default: small). " + about,
    )
    add_case(parser)
    parser.add_argument(
        "--strategy",
        default="auto",
        help="auto, one_device, mirrored, cpu:N, multi_worker (hosts of TF_CONFIG: the "
        "same command on each) or tpu",
    )
    parser.add_argument(
        "--tpu", default="local", metavar="NAME", help="name or address of the TPU"
    )
    parser.add_argument(
        "--steps-per-execution",
        type=int,
        default=1,
        metavar="N",
        help="steps that TensorFlow does before Python looks again; the weights are "
        "the same",
    )
    parser.add_argument(
        "--on-nan",
        choices=("stop", "skip"),
        default="stop",
        help="at a loss that is not finite: stop and say at which step, or leave the "
        "step out and count it in the log",
    )
    parser.add_argument("--checkpoint-every", type=int, default=1000, metavar="STEPS")
    parser.add_argument("--log-every", type=int, default=50, metavar="STEPS")
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="bit-identical results on the same machine, somewhat slower",
    )


def _say_model(output: str) -> None:
    """Says where the model is."""
    from labse_tf import presets

    if presets.is_preset(Path(output)):
        print(f"model: {output}")
    else:
        print(f"the chief has written the model, to its {output}")


def _check_run(options: argparse.Namespace) -> None:
    _check_every(options, "checkpoint_every", "log_every", "steps_per_execution")


def _check_every(options: argparse.Namespace, *names: str) -> None:
    for name in names:
        if getattr(options, name) < 1:
            raise ValueError(
                f"--{name.replace('_', '-')} must be positive. "
                f"Received: {getattr(options, name)}"
            )


def _run_options(options: argparse.Namespace) -> dict[str, Any]:
    """What both trainers take as it is."""
    names = (
        *("lowercase", "strip_accents", "strategy", "tpu"),
        *("steps_per_execution", "on_nan"),
        *("checkpoint_every", "log_every", "deterministic"),
    )
    return {name: getattr(options, name) for name in names}


def _add_recipe_flags(parser: argparse.ArgumentParser, kind: type[BaseRecipe]) -> None:
    """A flag for each field of a recipe."""
    types = typing.get_type_hints(kind)
    titles = {"model": "the model, where it is new", "data": "text"}
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        name = field.metadata["group"]
        if name not in groups:
            groups[name] = parser.add_argument_group(titles.get(name, name))
        settings: dict[str, Any] = {"help": field.metadata["help"]}
        parts = [t for t in typing.get_args(types[field.name]) if t is not type(None)]
        if field.metadata["parse"]:
            settings |= {"nargs": "*", "metavar": "LAYERS:STEPS"}
        elif types[field.name] is bool:
            settings["action"] = argparse.BooleanOptionalAction
        else:
            settings["type"] = parts[0] if parts else types[field.name]
            settings["choices"] = field.metadata["choices"]
            settings["metavar"] = None if field.metadata["choices"] else "N"
        groups[name].add_argument("--" + field.name.replace("_", "-"), **settings)


def _given(options: argparse.Namespace, kind: type[BaseRecipe]) -> dict[str, Any]:
    """The fields of a recipe whose flags were given."""
    given = {}
    for field in dataclasses.fields(kind):
        value = getattr(options, field.name)
        if value is not None:
            parse = field.metadata["parse"]
            given[field.name] = tuple(map(parse, value)) if parse else value
    return given


def _until_signal(work: Callable[[], Any]) -> Any:
    """Runs a training; an exit status instead of a result if it ended otherwise."""
    from labse_tf.distribute import WorkerLostError
    from labse_tf.training import EndedElsewhere, Interrupted

    try:
        return work()
    except EndedElsewhere as end:
        print(f"labse-tf: {end}", file=sys.stderr)
        return 0
    except WorkerLostError as lost:
        print(
            f"labse-tf: {lost}; the same command on all hosts goes on from the last "
            "checkpoint",
            file=sys.stderr,
        )
        return 1
    except Interrupted as stop:
        print(f"labse-tf: {stop}; the same command goes on from there", file=sys.stderr)
        return 128 + stop.signal


COMMANDS = (_add_quickstart, _add_vocab, _add_pretrain, _add_train)
