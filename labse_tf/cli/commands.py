"""What the commands share: arguments, models by name, tables and JSON."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.files import write_text

if TYPE_CHECKING:
    import numpy as np

    from labse_tf.data import SkipReport
    from labse_tf.models import LaBSE

Encode = Callable[[list[str]], "np.ndarray"]

# Of the commands that need none to be named.
DEFAULT_MODEL = "labse-mini"

_MODEL_HELP = (
    "a shipped name, a preset directory, a Hugging Face directory or a SavedModel"
)


def command(
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


PAIRS_HELP = (
    "pairs: en-XX.tsv, .po, .mo, .tmx, .xlf, .jsonl, .tfrecord, the two files of Moses "
    "(corpus.en corpus.XX), each also .gz, .bz2, .xz or .zst, a directory of them, or "
    "tfds:NAME/CONFIG; XX=FILE where a file cannot say its language"
)


def add_text(parser: argparse.ArgumentParser) -> None:
    """The arguments of a command that reads pair files."""
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help=PAIRS_HELP,
    )
    add_languages(parser)


def add_languages(parser: argparse.ArgumentParser) -> None:
    """Arguments that say the language of files, or choose some."""
    parser.add_argument(
        "--language",
        metavar="CODE",
        help="of all files that are not given as XX=FILE; of several languages in a "
        "file it chooses",
    )
    parser.add_argument("--languages", nargs="+", metavar="CODE", help="only these")
    add_on_error(parser)


def add_case(parser: argparse.ArgumentParser) -> None:
    """How a new tokenizer treats capitals and accents."""
    parser.add_argument("--lowercase", action="store_true")
    parser.add_argument(
        "--strip-accents",
        action=argparse.BooleanOptionalAction,
        help="delete non-spacing marks, by default where --lowercase is given; in "
        "Indian scripts they are vowels, so give --no-strip-accents there",
    )


def add_on_error(parser: argparse.ArgumentParser) -> None:
    """What to do at a bad line."""
    parser.add_argument(
        "--on-error",
        default="raise",
        choices=("raise", "skip"),
        help="at a bad line: stop, or count it and go on (default: raise)",
    )


def add_model(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """The model, needed where there is no default."""
    parser.add_argument(
        "--model",
        required=default is None,
        default=default,
        metavar="MODEL",
        help=_MODEL_HELP + (f" (default: {default})" if default else ""),
    )
    add_dtype(parser)


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """The type that a model computes in."""
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "bfloat16", "auto"),
        help="compute in bfloat16, twice as fast where the machine has instructions "
        "for it; auto: where it has (default: float32)",
    )


def add_margin(parser: argparse.ArgumentParser) -> None:
    """How pairs are scored against their neighbourhoods."""
    parser.add_argument(
        "--margin",
        default="ratio",
        choices=("ratio", "distance", "cosine"),
        help="score: the cosine over, less, or without the mean cosine with the "
        "neighbours of both (default: ratio)",
    )
    parser.add_argument(
        "--k", type=int, default=4, metavar="K", help="neighbours (default: 4)"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Where results go beside standard output."""
    parser.add_argument("--json", metavar="FILE", help="write the results there too")


def encoder(name: str, dtype: str = "float32") -> Encode:
    """A model's `encode` from whatever the user has named, in a compute type.

    What another type than float32 costs is said on standard error.
    """
    if (Path(name) / "saved_model.pb").is_file():
        if dtype != "float32":
            raise ValueError(
                "--dtype is for models that are no SavedModel yet: export one with "
                f"--dtype. Received: --dtype {dtype} with {name}"
            )
        return _saved_model_encoder(name)
    model = load_model(name)
    fast = model.with_dtype(dtype)
    if fast is not model:
        from labse_tf.export import parity

        texts = parity.sample_texts(model)
        vectors = [m.encode(texts, progress=False) for m in (fast, model)]
        print(
            f"{fast.backbone.compute_dtype}: {parity.compare(*vectors).in_words()}",
            file=sys.stderr,
        )
    return fast.encode


def load_model(name: str) -> LaBSE:
    """A model from whatever the user has named, to train, export or convert."""
    from labse_tf import checkpoints

    return checkpoints.load(name)


@contextmanager
def as_preset(name: str | None) -> Iterator[str | None]:
    """A preset for what the user has named: converted for as long as it is needed.

    Converting gives the same bytes each time, so that a run knows its start again.
    """
    from labse_tf import checkpoints

    if name is None or checkpoints.layout_of(name) in (None, "preset"):
        yield name
        return
    with tempfile.TemporaryDirectory(prefix="labse_tf.") as folder:
        preset = Path(folder) / "model"
        checkpoints.load(name).save_to_preset(preset)
        yield str(preset)


def _saved_model_encoder(path: str) -> Encode:
    """`encode` of a SavedModel by the TF Hub text contract."""
    import numpy as np
    import tensorflow as tf
    import tensorflow_text  # noqa: F401 (registers the ops of the tokenizer)

    module = tf.saved_model.load(path)
    # Whatever a SavedModel raises that takes something else, several kinds of errors.
    try:
        first = module(tf.constant([""]))
    except Exception as error:
        raise ValueError(
            f"{path}: expected a SavedModel that takes strings and gives vectors; of a "
            "BERT that takes token ids, as LaBSE on TF Hub, `labse-tf convert` makes a "
            f"model that can be used here. Received: {str(error).strip()[:120]}"
        ) from error

    def vectors_of(output: Any) -> Any:
        return output.get("default") if isinstance(output, Mapping) else output

    vectors = vectors_of(first)
    if not (tf.is_tensor(vectors) and vectors.dtype.is_floating and vectors.ndim == 2):
        keys = sorted(first) if isinstance(first, Mapping) else type(first).__name__
        raise ValueError(
            f"{path}: expected a SavedModel that gives vectors (n, D), as such or as "
            f"`default`. Received: {keys}"
        )

    def encode(texts: list[str]) -> np.ndarray:
        # By length, so that a batch is not padded for one long sentence in it.
        order = np.argsort([len(text) for text in texts], kind="stable")
        parts = []
        for start in range(0, len(order), 128):
            batch = tf.constant([texts[i] for i in order[start : start + 128]])
            parts.append(vectors_of(module(batch)).numpy())
        result = np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)
        restored = np.empty_like(result)
        restored[order] = result
        return restored

    return encode


def say_skipped(report: SkipReport) -> None:
    """Tells on standard error what could not be read."""
    if report:
        print(report, file=sys.stderr)


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: Sequence[str] = (),
) -> None:
    """Prints a table to standard output, the first column and some to the left."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for index, name in enumerate(columns):
        number = index and name not in left
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 100).print(table)


def write_json(path: str | None, result: dict[str, Any]) -> None:
    """Writes a result, where the user asked for the file."""
    if path is not None:
        write_text(path, json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def load(
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


def say_counts(counts: Mapping[str, int], unit: str) -> None:
    """Tells on standard error what was read, by language."""
    print(
        f"{sum(counts.values()):,} {unit} in {len(counts)} languages: "
        + ", ".join(f"{code} {count:,}" for code, count in counts.items()),
        file=sys.stderr,
    )
