"""The command `evaluate`: one sub-command per test, and `all` for a folder of data."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from labse_tf.cli.arguments import (
    add_encoder,
    add_json,
    add_margin,
    add_output,
    add_plot,
    add_text,
    command,
    needs,
)
from labse_tf.cli.models import open_encoder, say_truncated
from labse_tf.cli.output import load, say_skipped, write_json

if TYPE_CHECKING:
    import numpy as np

    from labse_tf.data import OnError, SkipReport
    from labse_tf.evaluation import Encoder, Result
    from labse_tf.evaluation.pool import Pool


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = commands.add_parser(
        "evaluate",
        help="measure a model",
        description="Measure a model.",
        epilog="example: labse-tf evaluate tatoeba tatoeba/v1 --model my-model",
    )
    tests = parser.add_subparsers(dest="test", required=True, metavar="TEST")
    _add_tatoeba(tests)
    _add_bucc(tests)
    _add_retrieval(tests)
    _add_xsim(tests)
    _add_sts(tests)
    _add_all(tests)


def _add_trained(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trained",
        nargs="*",
        metavar="CODE",
        help="languages that the model was trained on; all other languages are "
        "reported separately, as zero-shot (default: the languages in its card; "
        "without a code: no separate report)",
    )


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    add_plot(parser, "one bar per language")
    add_json(parser)


def _trained(options: argparse.Namespace) -> tuple[str, ...] | None:
    """Return the languages from `--trained`, or else from the model's card."""
    from labse_tf import evaluation, presets

    if options.trained is not None:
        return evaluation.trained_codes(options.trained) or None
    folder = Path(options.model)
    if not folder.is_dir():
        folder = presets.shipped_directory() / options.model
    return presets.stated_languages(folder)


def _show(options: argparse.Namespace, measure: Callable[[Encoder], Result]) -> None:
    """Measure the model and write all requested outputs."""
    encode = open_encoder(options)
    result = measure(encode)
    say_truncated(encode)
    _tell(options, result)


def _tell(options: argparse.Namespace, result: Result) -> None:
    """Print the table and write all other requested outputs."""
    print(result.table())
    # JSON is written before the plot, which needs matplotlib.
    write_json(options.json, result.to_dict())
    if options.plot:
        result.plot(options.plot, model=Path(options.model).name)
        print(f"plot: {options.plot}")


# === tatoeba ===


def _add_tatoeba(tests: Any) -> None:
    parser = command(
        tests,
        "tatoeba",
        _tatoeba,
        "measure nearest-translation accuracy on the Tatoeba files of LASER",
        "labse-tf evaluate tatoeba tatoeba/v1 --model my-model --plot tatoeba.png",
    )
    parser.add_argument(
        "folder", metavar="DIR", help="folder of the files tatoeba.XXX-eng.{XXX,eng}"
    )
    add_encoder(parser)
    parser.add_argument(
        "--languages",
        nargs="+",
        metavar="CODE",
        help="languages to measure; 14, 36 and 112 select a group of the paper "
        "(default: all)",
    )
    _add_trained(parser)
    _add_outputs(parser)


def _tatoeba(options: argparse.Namespace) -> None:
    from labse_tf import evaluation

    if not Path(options.folder).is_dir():
        raise ValueError(
            f"{options.folder}: expected the folder of the Tatoeba files. "
            "Received: no such directory"
        )
    _show(
        options,
        functools.partial(
            evaluation.tatoeba,
            folder=options.folder,
            languages=options.languages,
            trained=_trained(options),
        ),
    )


# === retrieval ===


def _add_retrieval(tests: Any) -> None:
    parser = command(
        tests,
        "retrieval",
        _retrieval,
        "measure nearest-translation accuracy on pair files",
        "labse-tf evaluate retrieval un/en-fr.tsv --model my-model --pool un.en.txt",
    )
    add_text(parser)
    add_encoder(parser)
    parser.add_argument(
        "--pool",
        nargs="+",
        default=[],
        metavar="FILE",
        help="additional candidates: text (news.en.txt, news.hi.txt.gz), pairs "
        "(en-hi.tsv), or vectors written by `labse-tf embed` (news.en.npy); the "
        "language is in the name or given as hi=FILE",
    )
    _add_trained(parser)
    _add_outputs(parser)


def _retrieval(options: argparse.Namespace) -> None:
    from labse_tf import evaluation

    trained = _trained(options)
    pairs = _pairs(options)
    pool = _pool(options, pairs)
    _show(
        options,
        functools.partial(
            evaluation.retrieval, pairs=pairs, pool=pool, trained=trained
        ),
    )


def _pairs(options: argparse.Namespace) -> dict[str, tuple[list[str], list[str]]]:
    """Return the pairs of the files by language."""
    from labse_tf import data

    report = data.SkipReport()
    files = data.find_pair_files(options.files)
    corpus = load(options, files, data.load_pairs, report)
    say_skipped(report)
    return corpus.lists()


def _pool(options: argparse.Namespace, pairs: Mapping[str, Any]) -> dict[str, Pool]:
    """Return streams of sentences and vectors by language."""
    from labse_tf import data

    streams: dict[str, list[Path]] = {}
    vectors: dict[str, np.ndarray] = {}
    for path in map(Path, options.pool):
        codes = [data.file_language(path) or ""]
        kind = data.format_of(path)
        if kind is not None:
            codes = ["en", *pairs] if kind.several else [*codes, "en"]
        for code in codes:
            if code not in ("en", *pairs):
                raise ValueError(
                    f"{path}: expected a name with a language of the pairs "
                    f"(news.en.txt, news.{next(iter(pairs))}.txt.gz). "
                    f"Received: {code or 'none'}"
                )
            if path.suffix == ".npy":
                matrix = _vectors(data.split_language(path)[1])
                if vectors.setdefault(code, matrix) is not matrix:
                    raise ValueError(
                        f"{path}: expected one file of vectors per language. "
                        f"Received: a second file of {code!r}"
                    )
            else:
                streams.setdefault(code, []).append(path)
    both = sorted(streams.keys() & vectors.keys())
    if both:
        raise ValueError(
            f"--pool must have either text or vectors per language. Received: both of "
            f"{', '.join(both)}"
        )
    skipped = data.SkipReport()
    pool: dict[str, Pool] = {
        code: _Sentences(paths, code, options.on_error, skipped)
        for code, paths in streams.items()
    }
    say_skipped(skipped)
    return {**pool, **vectors}


class _Sentences:
    """The sentences of a language in files, read again in each iteration.

    They are read once at the start, to find invalid lines before hours of encoding.
    """

    def __init__(
        self, paths: list[Path], code: str, on_error: OnError, skipped: SkipReport
    ) -> None:
        self._paths, self._code, self._skipped = paths, code, skipped
        self._side: Literal["source", "target"] = "source" if code == "en" else "target"
        self._on_error = on_error
        self._count = sum(1 for _ in self)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        from labse_tf import data

        for path in self._paths:
            for code, sentence in data.read_sentences(
                path, side=self._side, on_error=self._on_error, skipped=self._skipped
            ):
                if code == self._code:
                    yield sentence


def _vectors(path: Path) -> np.ndarray:
    """Memory-map a matrix and check its shape and type."""
    import numpy as np

    try:
        matrix = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(
            f"{path}: expected vectors saved by NumPy. Received: {error}"
        ) from error
    if matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise ValueError(
            f"{path}: expected a matrix (sentences, D) of floats. "
            f"Received: {matrix.shape}, {matrix.dtype}"
        )
    return matrix


# === xsim, sts ===


def _add_xsim(tests: Any) -> None:
    parser = command(
        tests,
        "xsim",
        _xsim,
        "measure the error rate of margin-based alignment (LASER's xSIM) on pair files",
        "labse-tf evaluate xsim dev/en-hi.tsv dev/en-ta.tsv --model my-model",
    )
    add_text(parser)
    add_encoder(parser)
    add_margin(parser)
    parser.add_argument(
        "--match",
        default="row",
        choices=("row", "text"),
        help="sentences that count as right: only the translation (row), or any "
        "sentence with the same text (text), for files with duplicates (default: row)",
    )
    _add_trained(parser)
    _add_outputs(parser)


def _xsim(options: argparse.Namespace) -> None:
    from labse_tf import evaluation

    if options.k < 1:
        raise ValueError(f"--k must be positive. Received: {options.k}")
    _show(
        options,
        functools.partial(
            evaluation.xsim,
            pairs=_pairs(options),
            margin=options.margin,
            k=options.k,
            match=options.match,
            trained=_trained(options),
        ),
    )


def _add_sts(tests: Any) -> None:
    parser = command(
        tests,
        "sts",
        _sts,
        "measure the correlation of cosines with human similarity scores (STS)",
        "labse-tf evaluate sts stsb --model my-model --languages de fr",
    )
    parser.add_argument(
        "folder", metavar="DIR", help="folder of stsb-XX-SPLIT.csv, also compressed"
    )
    add_encoder(parser)
    parser.add_argument(
        "--languages", nargs="+", metavar="CODE", help="languages (default: all)"
    )
    parser.add_argument(
        "--split",
        default="test",
        choices=("train", "dev", "test"),
        help="split to measure (default: test)",
    )
    _add_outputs(parser)


def _sts(options: argparse.Namespace) -> None:
    from labse_tf import evaluation

    files = (options.folder, options.languages, options.split)
    evaluation.read_sts(*files)  # Before the model is loaded.
    _show(
        options,
        lambda encode: evaluation.sts(encode, *files),
    )


# === all ===


def _add_all(tests: Any) -> None:
    parser = command(
        tests,
        "all",
        _all,
        "run every test for which a folder has data and write one report with plots",
        "labse-tf evaluate all data --model my-model --output report",
    )
    parser.add_argument(
        "folder",
        metavar="DIR",
        help="folder of Tatoeba, en-XX.tsv, BUCC or STS files, also in sub-folders; "
        "folders named corpus, train or training are skipped",
    )
    add_encoder(parser)
    add_output(
        parser,
        "DIR",
        "folder for report.md, report.html, report.json and the plots, written "
        "atomically at the end",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="PART",
        help="folders below DIR, such as dev/news (default: all)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing report"
    )
    needs(parser, "plots", "evaluate all", lambda options: True)
    _add_trained(parser)


def _all(options: argparse.Namespace) -> None:
    from labse_tf import evaluation

    encode = open_encoder(options)
    report = evaluation.evaluate_all(
        encode,
        options.folder,
        options.output,
        model=Path(options.model).name,
        only=options.only,
        trained=_trained(options),
        overwrite=options.overwrite,
    )
    say_truncated(encode)
    print(report.table())
    for name in ("report.md", "report.html"):
        print(f"report: {Path(options.output) / name}")


# === bucc ===


def _add_bucc(tests: Any) -> None:
    parser = command(
        tests,
        "bucc",
        _bucc,
        "mine translations from two sets of sentences, by BUCC's protocol",
        "labse-tf evaluate bucc bucc2018 --model my-model --pairs fr-en de-en",
    )
    parser.add_argument(
        "folder",
        metavar="DIR",
        help="folder of XX-en.training.{XX,en,gold}, plain or compressed, or of "
        "sub-folders XX-en",
    )
    add_encoder(parser)
    parser.add_argument(
        "--pairs",
        nargs="+",
        metavar="XX-en",
        help="language pairs to measure (default: all)",
    )
    parser.add_argument(
        "--scores",
        nargs="+",
        choices=("cosine", "ratio", "distance"),
        default=("cosine", "ratio"),
        help="scores by which pairs are sorted (default: cosine, as in the paper, and "
        "ratio)",
    )
    parser.add_argument(
        "--training-only",
        action="store_true",
        help="skip the test set, on which the threshold of the training set is used",
    )
    add_plot(parser, "precision over recall, one panel per pair")
    add_json(parser)


def _bucc(options: argparse.Namespace) -> None:
    from labse_tf import evaluation

    if not Path(options.folder).is_dir():
        raise ValueError(
            f"{options.folder}: expected the folder of the BUCC files. "
            "Received: no such directory"
        )
    # The model is loaded after all files have been read.
    encode = functools.cache(lambda: open_encoder(options))
    result = evaluation.bucc_report(
        lambda texts: encode()(texts),
        options.folder,
        options.pairs,
        scores=options.scores,
        apply_to=None if options.training_only else "test",
    )
    say_truncated(encode())
    _tell(options, result)
