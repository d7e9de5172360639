"""The command line: `labse-tf` and `python -m labse_tf`.

One module per command, named after it. `arguments` holds the flags that several
commands share, `output` their tables and JSON, `runs` the flags of a training run,
`parsing` the parser and its error messages.

Exit status: 0 for success, 2 for invalid input (with a message of one line), 1 for a
bug, and as linters do if `review --report --fail-above` finds something, 130 and 143
after Ctrl-C and SIGTERM. Training then writes a checkpoint first.
"""

from __future__ import annotations

import argparse
import codecs
import io
import os
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from contextlib import ExitStack

from labse_tf import __version__, pipes
from labse_tf.cli import (
    align,
    align_documents,
    balance,
    clean,
    convert,
    distill,
    doctor,
    embed,
    evaluate,
    export,
    extend,
    filter,
    mine,
    prepare,
    pretrain,
    quickstart,
    review,
    search,
    shrink,
    train,
    trim,
    vocab,
)
from labse_tf.cli.output import plain_warnings
from labse_tf.cli.parsing import GroupsFormatter, Parser
from labse_tf.extras import require

GROUPS = {
    "first steps": (quickstart, doctor),
    "use a model": (embed, search, mine, align, align_documents, filter, review),
    "prepare text": (vocab, clean, balance, prepare),
    "train a model": (pretrain, train, distill),
    "measure a model": (evaluate,),
    "serve, convert, shrink and extend a model": (
        export,
        convert,
        trim,
        shrink,
        extend,
    ),
}
_CLUSTER = """
on a cluster (Apache Beam):
  python -m labse_tf.beam clean | count-words | prepare | embed

`labse-tf COMMAND --help` lists the flags of a command.
example: labse-tf quickstart"""

# Options that name an output, which may be standard output.
_OUTPUTS = ("output", "json", "plot")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, by default that of `sys.argv`, and return the exit status."""
    return run_command("labse-tf", build_parser().parse_args(arguments))


def run_command(program: str, options: argparse.Namespace) -> int:
    """Run a parsed command, print its errors on one line, return the exit status.

    `program` is the name in error messages. `options` have the function `run`, which
    is called with them, and `traceback`.
    """
    try:
        with ExitStack() as stack:
            stack.callback(pipes.forget_spooled)
            _make_printable()
            outputs = [getattr(options, name, None) for name in _OUTPUTS]
            if any(path and pipes.is_stdout(path) for path in outputs):
                stack.enter_context(pipes.reserve_stdout())
            for extra, user, when in getattr(options, "needs", ()):
                if when(options):
                    require(extra, user)
            if getattr(options, "start_tensorflow", True):
                _choose_tensorflow(program)
                _start_tensorflow_quietly()
            stack.enter_context(plain_warnings())
            return options.run(options) or 0
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of the output has exited, as `head` does: not an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError, MemoryError) as error:
        print(f"{program}: {_one_line(error)}", file=sys.stderr)
        if options.traceback:
            raise
        return 2


def _make_printable() -> None:
    """Set standard output and error to UTF-8 in an ASCII locale, to escapes in others.

    ASCII is the encoding of a system without a locale, such as `LC_ALL=C`.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(
                encoding="utf-8" if ascii_only else None, errors="backslashreplace"
            )


def _choose_tensorflow(program: str) -> None:
    """Set Keras's backend to TensorFlow, which the commands need, and say so."""
    chosen = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if chosen != "tensorflow":
        print(
            f"{program}: commands run on TensorFlow; KERAS_BACKEND={chosen} is ignored",
            file=sys.stderr,
        )
    # Also without the variable: keras.json may select another backend.
    os.environ["KERAS_BACKEND"] = "tensorflow"


def _start_tensorflow_quietly() -> None:
    """Import TensorFlow without its start-up messages, unless it fails.

    TensorFlow writes them to the file descriptor, before any of its settings apply.
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
    """Return the message of an error on one line."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = Parser(
        prog="labse-tf",
        usage="labse-tf [-h] [--version] [--traceback] COMMAND ...",
        description="Train, serve and measure multilingual sentence encoders.",
        formatter_class=GroupsFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--traceback", action="store_true", help="show the traceback of an error"
    )
    commands = parser.add_subparsers(
        dest="command",
        required=True,
        metavar="COMMAND",
        prog="labse-tf",
        # The list is in the epilog, in groups.
        help=argparse.SUPPRESS,
    )
    lines = []
    for title, modules in GROUPS.items():
        lines += ["", f"{title}:"]
        for module in modules:
            module.add_command(commands)
            name = module.__name__.rpartition(".")[2].replace("_", "-")
            lines += _listed(name, commands.choices[name].description or "")
    parser.epilog = "\n".join([*lines[1:], _CLUSTER])
    return parser


def _listed(name: str, description: str) -> list[str]:
    """Return the lines of a command in the list of commands."""
    text = description[0].lower() + description[1:].rstrip(".")
    width = min(shutil.get_terminal_size().columns, 100) - 19
    lines = textwrap.wrap(text, max(width, 20))
    return [f"  {name:<17}{lines[0]}", *(" " * 19 + line for line in lines[1:])]
