"""Commands of `python -m labse_tf.beam`."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions

from labse_tf.beam import cleaning, embedding, preparing, words
from labse_tf.beam.files import ReadLines, ReadPairs, ReadSentences, names_in, read_text
from labse_tf.cli import run_command
from labse_tf.cli.arguments import (
    TEXT_HELP,
    add_case,
    add_encoder,
    add_output,
    add_rules,
    add_shards,
    add_side,
    add_text,
    command,
    rules_of,
    tokenizer_of,
)
from labse_tf.cli.output import print_table
from labse_tf.cli.parsing import Parser
from labse_tf.data.shards.layout import DATASET, Description, join

_PROGRAM = "python -m labse_tf.beam"
# The end of a worker's error; runners add different text around it.
_OURS = re.compile(r"(?m)^(?:labse_tf\.[\w.]+\.DataError|ValueError): (.*)$")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command as a pipeline.

    Args:
        arguments: Arguments without the program's name; `sys.argv` if `None`. Unknown
            arguments are passed to Beam's `PipelineOptions`.

    Returns:
        The exit status, see `labse_tf.cli.run_command`.
    """
    options, flags = build_parser().parse_known_args(arguments)
    options.pipeline = PipelineOptions(flags, runner=options.runner)
    return run_command(_PROGRAM, options)


class _PipelineParser(Parser):
    """Parser that returns unknown flags, which belong to Beam."""

    passes_unknown = True


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _PipelineParser(
        prog=_PROGRAM,
        description="Process large corpora as Apache Beam pipelines.",
    )
    parser.add_argument(
        "--traceback", action="store_true", help="show the traceback of an error"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_clean, _add_count_words, _add_prepare, _add_embed):
        add(commands)
    return parser


def _add_pipeline(parser: argparse.ArgumentParser) -> None:
    """Add the options of the pipeline's runner."""
    parser.allow_abbrev = False  # Beam's --project must not match our flags
    parser.add_argument(
        "--runner",
        default="DirectRunner",
        metavar="RUNNER",
        help="DirectRunner (default), FlinkRunner, SparkRunner, DataflowRunner or any "
        "other runner of Beam; unknown options after the files are passed to it",
    )


def _add_output(parser: argparse.ArgumentParser, what: str) -> None:
    add_output(
        parser, "DIR", f"new or empty directory, local or remote (gs://...): {what}"
    )


def _add_shard_size(parser: argparse.ArgumentParser, size: int, what: str) -> None:
    parser.add_argument(
        "--shard-size",
        type=int,
        default=size,
        metavar="N",
        help=f"number of {what} per shard (default: {size})",
    )


@contextmanager
def _pipeline(
    options: argparse.Namespace, *, resumes: bool = False
) -> Iterator[beam.Pipeline]:
    """Yield a pipeline and run it at the end; unless it resumes, into a new output.

    Then its `result` is that of the run.
    """
    there = set() if resumes else names_in(join(options.output))
    if there:
        raise ValueError(
            "--output must be a new or empty directory. Received: "
            f"{options.output} with {min(there)}"
        )
    pipeline = beam.Pipeline(options=options.pipeline)
    yield pipeline
    try:
        pipeline.result = pipeline.run()
        pipeline.result.wait_until_finish()
    except (ValueError, RuntimeError) as error:
        found = [str(error)] if isinstance(error, ValueError) else []
        found += _OURS.findall(str(error))
        if not found:
            raise
        text = re.sub(r" \[while running '.*?'\]", "", found[-1])
        raise ValueError(text) from error


# === clean ===


def _add_clean(commands: Any) -> None:
    parser = command(
        commands,
        "clean",
        _clean,
        "remove pairs that teach an encoder nothing or something wrong",
        f"{_PROGRAM} clean corpus/ --output cleaned --runner FlinkRunner",
    )
    add_text(parser)
    _add_output(parser, "en-XX-*.tsv.gz per language, cleaning.md, cleaning.json")
    add_rules(parser)
    _add_shard_size(parser, cleaning.SHARD_SIZE, "pairs")
    _add_pipeline(parser)


def _clean(options: argparse.Namespace) -> None:
    rules, held_out = rules_of(options)
    began = time.monotonic()
    with _pipeline(options) as pipeline:
        cleaned = _pairs(pipeline, options) | cleaning.CleanPairs(
            rules, held_out=held_out
        )
        write = cleaning.WritePairs(options.output, shard_size=options.shard_size)
        cleaned | write  # noqa: B018
    seconds = time.monotonic() - began
    report = json.loads(read_text(join(options.output, "cleaning.json")))
    read, kept = report["read"], report["kept"]
    print_table(
        ("rule", "pairs", "share"),
        [
            (rule, f"{count:,}", f"{count / read:.2%}")
            for rule, count in report["removed"].items()
        ],
    )
    print(
        f"{kept:,} of {read:,} pairs in {len(report['languages'])} languages kept, "
        f"{read / seconds:,.0f} per second: {options.output}"
    )


def _pairs(pipeline: Any, options: argparse.Namespace) -> Any:
    return pipeline | ReadPairs(
        options.files,
        language=options.language,
        languages=options.languages,
        on_error=options.on_error,
    )


# === count-words ===


def _add_count_words(commands: Any) -> None:
    parser = command(
        commands,
        "count-words",
        _count_words,
        "count the words of each language, for a vocabulary",
        f"{_PROGRAM} count-words corpus/ --output counts, then: "
        "labse-tf vocab counts --from-counts --size 32000 --output vocab.txt",
    )
    add_text(parser, sentences=True)
    _add_output(parser, "counts-*.tsv.gz with tab-separated language, word and count")
    add_case(parser)
    _add_pipeline(parser)


def _count_words(options: argparse.Namespace) -> None:
    with _pipeline(options) as pipeline:
        (
            pipeline
            | ReadSentences(
                options.files,
                language=options.language,
                languages=options.languages,
                on_error=options.on_error,
            )
            | words.CountWords(
                lowercase=options.lowercase, strip_accents=options.strip_accents
            )
            | words.WriteWordCounts(options.output)
        )
    print(f"words: {join(options.output, 'counts-*.tsv.gz')}")


# === prepare ===


def _add_prepare(commands: Any) -> None:
    parser = command(
        commands,
        "prepare",
        _prepare,
        "tokenize, shuffle and shard pairs once, for many training runs",
        f"{_PROGRAM} prepare cleaned --vocab vocab.txt --output prepared, then: "
        "labse-tf train prepared --vocab vocab.txt --output my-model",
    )
    add_text(parser)
    add_shards(parser)
    _add_pipeline(parser)


def _prepare(options: argparse.Namespace) -> None:
    began = time.monotonic()
    with _pipeline(options, resumes=True) as pipeline:
        _pairs(pipeline, options) | preparing.PreparePairs(
            tokenizer_of(options),
            options.output,
            formats=options.format,
            sequence_length=options.sequence_length,
            shard_size=options.shard_size,
            seed=options.seed,
        )
    seconds = time.monotonic() - began
    path = join(options.output, DATASET)
    description = Description.from_json(read_text(path), path)
    pairs = sum(description.counts.values())
    print(
        f"{pairs:,} pairs in {len(description.counts)} languages, "
        f"{pairs / seconds:,.0f} pairs per second: {options.output}"
    )


# === embed ===


def _add_embed(commands: Any) -> None:
    parser = command(
        commands,
        "embed",
        _embed,
        "compute the embeddings of the sentences of files",
        f"{_PROGRAM} embed news/*.txt.gz --model hub_model/1 --output vectors",
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help=TEXT_HELP,
    )
    add_side(parser)
    add_encoder(parser)
    _add_output(parser, "vectors-*.npy, float32 (n, D), and texts-*.txt with n lines")
    _add_shard_size(parser, embedding.SHARD_SIZE, "lines")
    _add_pipeline(parser)


def _embed(options: argparse.Namespace) -> None:
    with _pipeline(options) as pipeline:
        (
            pipeline
            | ReadLines(options.files, side=options.side)
            | embedding.EmbedLines(
                options.model,
                options.output,
                shard_size=options.shard_size,
                dtype=options.dtype,
                sequence_length=options.sequence_length,
                dim=options.dim,
            )
        )
    _say_truncated(pipeline.result, options.sequence_length)
    print(f"vectors: {join(options.output, 'vectors-*.npy')}")


def _say_truncated(result: Any, length: int | None) -> None:
    """Print the number of texts that were cut to standard error, if there are any."""
    chosen = MetricsFilter().with_namespace("labse_tf").with_name(embedding.TRUNCATED)
    try:
        counters = result.metrics().query(chosen)["counters"]
    except NotImplementedError:
        print("the runner does not count texts that were cut", file=sys.stderr)
        return
    # `result` is what was attempted if the runner does not know what was committed.
    if count := sum(counter.result or 0 for counter in counters):
        end = (
            "to the model's length; --sequence-length N changes it"
            if length is None
            else f"to {length:,} tokens"
        )
        print(f"{count:,} texts were cut {end}", file=sys.stderr)
