"""The command line: `labse-tf` and `python -m labse_tf`.

Exit status: 0 done, 2 the input is wrong (one line says what), 1 our fault, 130 and
143 stopped by Ctrl-C and SIGTERM, in training after a checkpoint.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf import __version__
from labse_tf.files import whole_file, write_text
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
    import numpy as np

    from labse_tf.data import SkipReport

Encode = Callable[[list[str]], "np.ndarray"]

_MODEL_HELP = "a shipped name, a preset directory or a SavedModel"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: Without the program's name; the process's own where left out.

    Returns:
        The exit status.
    """
    options = build_parser().parse_args(arguments)
    try:
        _start_tensorflow_quietly()
        return options.run(options) or 0
    except KeyboardInterrupt:
        print("labse-tf: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does: nothing to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError) as error:
        print(f"labse-tf: {_one_line(error)}", file=sys.stderr)
        if options.traceback:
            raise
        return 2


def _start_tensorflow_quietly() -> None:
    """Imports TensorFlow without its start-up messages, unless it fails.

    They tell of CPU features and missing GPUs, on the file descriptor and not through
    Python, before any setting of TensorFlow's has an effect.
    """
    if "tensorflow" in sys.modules or "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as messages:
        os.dup2(messages.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        except BaseException:
            os.dup2(kept, 2)
            messages.seek(0)
            os.write(2, messages.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _one_line(error: BaseException) -> str:
    """An error's message on one line."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="labse-tf",
        description="Train, serve and measure multilingual sentence encoders.",
        epilog="example: labse-tf quickstart",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--traceback", action="store_true", help="show where an error came from"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_quickstart(commands)
    _add_vocab(commands)
    _add_pretrain(commands)
    _add_train(commands)
    _add_embed(commands)
    _add_evaluate(commands)
    _add_export(commands)
    return parser


def _command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    help: str,
    example: str,
) -> argparse.ArgumentParser:
    """Adds a command with its help and an example."""
    parser = commands.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog=f"example: {example}",
    )
    parser.set_defaults(run=run)
    return parser


# === quickstart ===


def _add_quickstart(commands: Any) -> None:
    parser = _command(
        commands,
        "quickstart",
        _quickstart,
        "learn, train, measure, export and serve a small encoder in minutes",
        "labse-tf quickstart --output labse-quickstart",
    )
    parser.add_argument("--output", default="labse-quickstart", metavar="DIR")
    parser.add_argument(
        "--pairs", nargs="+", metavar="FILE", help="your own pair files (TSV, PO, MO)"
    )
    parser.add_argument(
        "--languages", nargs="+", metavar="CODE", help="only these, such as hi bn ta"
    )
    _add_on_error(parser)
    parser.add_argument("--fresh", action="store_true", help="start over")
    parser.add_argument("--train-steps", type=int, metavar="N")
    parser.add_argument(
        "--pretrain-steps",
        type=int,
        metavar="N",
        help="of the masked language model before; 0 leaves it out",
    )
    parser.add_argument("--vocabulary-size", type=int, metavar="N")
    _add_json(parser)


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
    _write_json(options.json, result.to_dict())
    return None


_R = typing.TypeVar("_R", bound=BaseRecipe)


def _with_steps(recipe: _R, steps: int) -> _R:
    """A recipe of fewer or more steps, with a warm-up that fits into them."""
    warmup = min(recipe.warmup_steps, steps // 10)
    return dataclasses.replace(recipe, train_steps=steps, warmup_steps=warmup)


# === vocab ===


def _add_vocab(commands: Any) -> None:
    parser = _command(
        commands,
        "vocab",
        _vocab,
        "learn a WordPiece vocabulary from text in many languages",
        "labse-tf vocab en-hi.tsv en-bn.tsv.gz --size 32000 --output vocab.txt",
    )
    _add_text(parser)
    parser.add_argument("--size", type=int, required=True, metavar="N")
    parser.add_argument("--output", required=True, metavar="FILE")
    parser.add_argument(
        "--smoothing",
        type=float,
        default=0.3,
        help="exponent of the languages' shares: 1 as they are, 0 all alike "
        "(default 0.3, the paper's)",
    )
    parser.add_argument("--lowercase", action="store_true")
    parser.add_argument("--workers", type=int, metavar="N", help="processes")
    _add_json(parser)


def _vocab(options: argparse.Namespace) -> None:
    import functools

    from labse_tf import data, tokenizers

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
        languages=options.languages,
        num_workers=options.workers,
    )
    tokenizers.save_vocabulary(tokens, options.output)
    _say_skipped(report)
    rates = tokenizers.unk_rate(
        files,
        tokenizers.WordPieceTokenizer(tokens, lowercase=options.lowercase),
        reader=reader,
    )
    _print_table(
        ("language", "[UNK]"), [(code, f"{rate:.3%}") for code, rate in rates.items()]
    )
    print(f"{len(tokens):,} tokens in {options.output}")
    _write_json(options.json, {"size": len(tokens), "unk_rate": rates})


# === pretrain ===


def _add_pretrain(commands: Any) -> None:
    parser = _command(
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
        "(wiki.hi.txt.gz), or pair files, of which both sides are taken",
    )
    parser.add_argument(
        "--pairs",
        nargs="+",
        default=[],
        metavar="FILE",
        help="text for TLM: en-XX.tsv, .po or .mo, plain or .gz, or a directory",
    )
    _add_languages(parser)
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
        pairs = _load(options, files, data.load_pairs, report)
    if options.mono:
        files = data.find_sentence_files(options.mono)
        sentences = _load(options, files, data.load_sentences, report)
    _say_skipped(report)
    for text, unit in ((pairs, "pairs"), (sentences, "sentences")):
        if text is not None:
            _say_counts(text.counts, unit)
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
    print(f"model: {options.output}")
    return None


# === train ===


def _add_train(commands: Any) -> None:
    parser = _command(
        commands,
        "train",
        _train,
        "train a sentence encoder on pairs of translations",
        "labse-tf train en-hi.tsv en-bn.tsv --vocab vocab.txt --output my-model",
    )
    _add_text(parser)
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--model", metavar="PRESET", help="go on from this model")
    start.add_argument("--vocab", metavar="FILE", help="a new model with this one")
    _add_run(parser, RECIPES)
    _add_recipe_flags(parser, Recipe)


def _train(options: argparse.Namespace) -> int | None:
    recipe = get_recipe(options.recipe, **_given(options, Recipe))
    _check_run(options)
    from labse_tf import data, pretraining, training

    report = data.SkipReport()
    files = data.find_pair_files(options.files)
    pairs = _load(options, files, data.load_pairs, report)
    _say_skipped(report)
    _say_counts(pairs.counts, "pairs")
    result = _until_signal(
        lambda: training.train_dual_encoder(
            recipe,
            pairs,
            options.output,
            model=options.model,
            vocabulary=options.vocab,
            fit=pretraining.fit_progressively,
            **_run_options(options),
        )
    )
    if isinstance(result, int):
        return result
    print(f"model: {options.output}")
    return None


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
    parser.add_argument("--lowercase", action="store_true")
    parser.add_argument(
        "--strategy",
        default="auto",
        help="auto, one_device, mirrored, cpu:N, multi_worker or tpu",
    )
    parser.add_argument("--checkpoint-every", type=int, default=1000, metavar="STEPS")
    parser.add_argument("--log-every", type=int, default=50, metavar="STEPS")
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="bit-identical results on the same machine, somewhat slower",
    )


def _check_run(options: argparse.Namespace) -> None:
    for name in ("checkpoint_every", "log_every"):
        if getattr(options, name) < 1:
            raise ValueError(
                f"--{name.replace('_', '-')} must be positive. "
                f"Received: {getattr(options, name)}"
            )


def _run_options(options: argparse.Namespace) -> dict[str, Any]:
    """What both trainers take as it is."""
    names = ("lowercase", "strategy", "checkpoint_every", "log_every", "deterministic")
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


def _load(
    options: argparse.Namespace,
    files: Sequence[Path],
    load: Callable[..., Any],
    report: SkipReport,
) -> Any:
    """Reads text files with a bar."""
    from labse_tf.progress import progress_bar

    with progress_bar(
        "Reading", len(files), "files", show=sys.stderr.isatty()
    ) as advance:
        return load(
            files,
            language=options.language,
            on_error=options.on_error,
            languages=options.languages,
            skipped=report,
            progress=lambda path, kept: advance(1),
        )


def _say_counts(counts: Mapping[str, int], unit: str) -> None:
    print(
        f"{sum(counts.values()):,} {unit} in {len(counts)} languages: "
        + ", ".join(f"{code} {count:,}" for code, count in counts.items()),
        file=sys.stderr,
    )


def _until_signal(work: Callable[[], Any]) -> Any:
    """Runs a training; an exit status instead of a result if a signal ended it."""
    from labse_tf.training import Interrupted

    try:
        return work()
    except Interrupted as stop:
        print(f"labse-tf: {stop}; the same command goes on from there", file=sys.stderr)
        return 128 + stop.signal


# === embed ===


def _add_embed(commands: Any) -> None:
    parser = _command(
        commands,
        "embed",
        _embed,
        "turn the lines of a file into vectors",
        "labse-tf embed sentences.txt --model my-model --output vectors.npy",
    )
    parser.add_argument("file", metavar="FILE", help="one sentence a line, UTF-8")
    _add_model(parser)
    parser.add_argument(
        "--output", required=True, metavar="FILE.npy", help="float32 (lines, D)"
    )


def _embed(options: argparse.Namespace) -> None:
    import numpy as np

    from labse_tf.progress import progress_bar

    path, output = Path(options.file), Path(options.output)
    if output.suffix != ".npy":
        raise ValueError(f"--output must end with .npy. Received: {output}")
    total = sum(len(block) for block in _line_blocks(path))
    encode = _encoder(options.model)
    dim = encode([""]).shape[1]
    with whole_file(output) as temporary:
        # Mapped and filled a block at a time: memory does not grow with the file.
        vectors = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.float32, shape=(total, dim)
        )
        with progress_bar("Encoding", total, "lines") as advance:
            row = 0
            for block in _line_blocks(path):
                vectors[row : row + len(block)] = encode(block)
                row += len(block)
                advance(len(block))
        vectors.flush()
    print(f"{total:,} vectors of {dim} in {output}")


def _line_blocks(path: Path, size: int = 8192) -> Iterator[list[str]]:
    """The lines of a UTF-8 file, some thousands at a time."""
    block = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                block.append(line.decode("utf-8").rstrip("\r\n"))
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}:{number}: expected UTF-8. Received: byte "
                    f"0x{line[error.start]:02x} at column {error.start + 1}"
                ) from error
            if len(block) == size:
                yield block
                block = []
    if block:
        yield block


# === evaluate ===


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure a model",
        description="Measure a model.",
        epilog="example: labse-tf evaluate tatoeba tatoeba/v1 --model my-model",
    )
    tests = parser.add_subparsers(dest="test", required=True, metavar="TEST")
    tatoeba = _command(
        tests,
        "tatoeba",
        _tatoeba,
        "nearest-translation accuracy on the Tatoeba files of LASER",
        "labse-tf evaluate tatoeba tatoeba/v1 --model my-model --plot tatoeba.png",
    )
    tatoeba.add_argument(
        "folder", metavar="DIR", help="with tatoeba.XXX-eng.XXX and tatoeba.XXX-eng.eng"
    )
    _add_model(tatoeba)
    tatoeba.add_argument("--languages", nargs="+", metavar="CODE")
    tatoeba.add_argument("--plot", metavar="FILE.png", help="bar chart a language")
    _add_json(tatoeba)


def _tatoeba(options: argparse.Namespace) -> None:
    from labse_tf import evaluation
    from labse_tf.progress import progress_bar

    if not Path(options.folder).is_dir():
        raise ValueError(
            f"{options.folder}: expected the folder of the Tatoeba files. "
            "Received: no such directory"
        )
    encode = _encoder(options.model)
    with progress_bar(
        "Tatoeba", None, "languages", show=sys.stderr.isatty()
    ) as advance:
        result = evaluation.tatoeba(
            encode,
            options.folder,
            languages=options.languages,
            progress=lambda code, done, total: advance(1),
        )
    print(result.table())
    if options.plot:
        result.plot(options.plot)
        print(f"plot: {options.plot}")
    _write_json(options.json, result.to_dict())


# === export ===


def _add_export(commands: Any) -> None:
    parser = _command(
        commands,
        "export",
        _export,
        "write a SavedModel for TF Hub and TF Serving, preprocessing inside",
        "labse-tf export --model my-model --output serving/1",
    )
    _add_model(parser)
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="for TF Serving NAME/VERSION"
    )
    parser.add_argument("--interface", default="text", choices=("text",))
    parser.add_argument("--overwrite", action="store_true")


def _export(options: argparse.Namespace) -> None:
    from labse_tf.export import export_saved_model
    from labse_tf.models import LaBSE

    path = export_saved_model(
        LaBSE.from_preset(options.model),
        options.output,
        options.interface,
        overwrite=options.overwrite,
    )
    print(f"SavedModel: {path}")


# === Shared by commands ===


def _add_text(parser: argparse.ArgumentParser) -> None:
    """The arguments of a command that reads pair files."""
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="pairs: en-XX.tsv, .po or .mo, plain or .gz, or a directory of them",
    )
    _add_languages(parser)


def _add_languages(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--language", metavar="CODE", help="of files whose names do not say it"
    )
    parser.add_argument("--languages", nargs="+", metavar="CODE", help="only these")
    _add_on_error(parser)


def _add_on_error(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--on-error",
        default="raise",
        choices=("raise", "skip"),
        help="at a bad line: stop, or count it and go on (default: raise)",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="MODEL", help=_MODEL_HELP)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE", help="write the results there too")


def _encoder(name: str) -> Encode:
    """A model's `encode` from whatever the user has named."""
    if (Path(name) / "saved_model.pb").is_file():
        return _saved_model_encoder(name)
    from labse_tf.models import LaBSE

    return LaBSE.from_preset(name).encode


def _saved_model_encoder(path: str) -> Encode:
    """`encode` of a SavedModel by the TF Hub text contract."""
    import numpy as np
    import tensorflow as tf
    import tensorflow_text  # noqa: F401 (registers the ops of the tokenizer)

    module = tf.saved_model.load(path)

    def encode(texts: list[str]) -> np.ndarray:
        # By length, so that a batch is not padded for one long sentence in it.
        order = np.argsort([len(text) for text in texts], kind="stable")
        parts = []
        for start in range(0, len(order), 128):
            batch = tf.constant([texts[i] for i in order[start : start + 128]])
            output = module(batch)
            vectors = output["default"] if isinstance(output, dict) else output
            parts.append(vectors.numpy())
        result = np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)
        restored = np.empty_like(result)
        restored[order] = result
        return restored

    return encode


def _say_skipped(report: SkipReport) -> None:
    if report:
        print(report, file=sys.stderr)


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 100).print(table)


def _write_json(path: str | None, result: dict[str, Any]) -> None:
    if path is not None:
        write_text(path, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
