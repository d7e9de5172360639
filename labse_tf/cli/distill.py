"""The command `distill`."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING, Any

from labse_tf.cli.arguments import (
    MODELS,
    add_json,
    add_model,
    add_text,
    check_case,
    command,
)
from labse_tf.cli.convert import STORAGES
from labse_tf.cli.memory import print_plan, wants_plan
from labse_tf.cli.output import load, say_counts, say_skipped
from labse_tf.cli.runs import (
    add_run,
    check_adapters,
    open_text_vectors,
    recipe_of,
    run_options,
    until_signal,
)
from labse_tf.cli.train import say_summary
from labse_tf.distillation.recipe import (
    DISTILLATION_RECIPES,
    DistillationRecipe,
    get_distillation_recipe,
)
from labse_tf.recipes import shape_fields, with_shape

if TYPE_CHECKING:
    from labse_tf.data import ParallelCorpus, SkipReport, TextVectors
    from labse_tf.data.text_vectors import Encode
    from labse_tf.models import LaBSE


_VOCABULARY_SIZE = 32_000  # of a new student


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = command(
        commands,
        "distill",
        _distill,
        "train a small encoder to return the vectors of a large one",
        "labse-tf distill en-hi.tsv en-ta.tsv --teacher labse-mini --recipe states "
        "--num-layers 3 --output small, or without pairs: labse-tf distill --mono "
        "hi.txt ta.txt --teacher labse-mini --output small",
    )
    add_text(parser, optional=True)
    parser.add_argument(
        "--mono",
        nargs="+",
        default=[],
        metavar="FILE",
        help="text without translations, in the formats of pretrain --mono: the "
        "student also learns the teacher's vectors of these sentences",
    )
    parser.add_argument(
        "--teacher",
        metavar="MODEL",
        required=True,
        help=f"teacher: {MODELS}, or a directory of --teacher-vectors",
    )
    parser.add_argument(
        "--teacher-prefix",
        default="",
        metavar="TEXT",
        help='text before each text for the teacher, such as "query: " for E5 '
        "(default: none)",
    )
    parser.add_argument(
        "--teacher-vectors",
        metavar="DIR",
        help="directory of the teacher's vectors, which other runs can use again "
        "(default: OUTPUT.teacher)",
    )
    start = parser.add_mutually_exclusive_group()
    add_model(start, "student to start from")
    start.add_argument(
        "--vocab",
        metavar="FILE",
        help="vocabulary of a new student, which gets the teacher's first --num-layers "
        "blocks, and for each token the mean of the teacher's vectors of its pieces; "
        "--num-layers 0: a bag of tokens of --hidden-dim dimensions",
    )
    start.add_argument(
        "--vocab-size",
        type=int,
        metavar="N",
        help="size of the vocabulary of a new student, learned from the pairs "
        "(default: 32000, without --model and --vocab); with --states-weight, the "
        "greatest number of the teacher's tokens to keep (default: those of the text)",
    )
    add_run(parser, DISTILLATION_RECIPES)
    parser.add_argument(
        "--dev",
        nargs="+",
        default=[],
        metavar="FILE",
        help="held-out pairs, in the formats of FILE; the log gets their accuracy, and "
        "the model the weights with the highest accuracy, see --keep-best",
    )
    parser.add_argument(
        "--storage",
        choices=STORAGES,
        help="storage type of the preset (default: that of --model, or int8 for a new "
        "student)",
    )
    add_json(parser)


def _distill(options: argparse.Namespace) -> int | None:
    check_case(options)
    recipe = recipe_of(options, DistillationRecipe, get_distillation_recipe)
    how = run_options(options)
    check_adapters(how, recipe, options.model)
    if recipe.states_weight and options.vocab is not None:
        raise ValueError(
            "--vocab must be left out with --states-weight: the student has tokens of "
            f"the teacher. Received: --vocab {options.vocab}"
        )
    if wants_plan(options):
        _plan(options, recipe)
        return None
    from labse_tf import data, distillation
    from labse_tf.distribute import get_strategy
    from labse_tf.encoders import as_preset

    if not options.files and not options.mono:
        raise ValueError("Expected FILE, --mono or both. Received: neither")
    if how.strategy.startswith("cpu:"):
        # The teacher starts TensorFlow, after which no devices can be made.
        get_strategy(how.strategy)
    store, encode, teacher_model = _open_teacher(options)
    report = data.SkipReport()
    pairs = _load_text(options, report)
    dev = None
    if options.dev:
        dev = load(options, data.find_pair_files(options.dev), data.load_pairs, report)
    say_skipped(report)
    start, storage = options.model, options.storage
    if start is None:
        start = f"{options.output.rstrip('/')}.student"
        storage = storage or (None if how.keep_adapters else "int8")
        if recipe.states_weight:
            teacher_model = _student_of_states(options, pairs, recipe, teacher_model)
        else:
            distillation.make_student(
                options.teacher,
                pairs,
                start,
                recipe,
                encode=encode,
                prefix=options.teacher_prefix,
                vocabulary=options.vocab,
                vocabulary_size=options.vocab_size or _VOCABULARY_SIZE,
                lowercase=options.lowercase,
                strip_accents=options.strip_accents,
            )
    with as_preset(start) as student:
        result = until_signal(
            lambda: distillation.distill(
                recipe,
                pairs,
                options.output,
                student=student or start,
                teacher=store,
                encode=encode,
                teacher_model=teacher_model,
                dev=dev,
                options=how,
                storage=storage,
            )
        )
    if isinstance(result, int):
        return result
    say_summary(options)
    return None


def _student_of_states(
    options: argparse.Namespace,
    pairs: ParallelCorpus,
    recipe: DistillationRecipe,
    teacher: LaBSE | None,
) -> LaBSE:
    """Write a student with the teacher's tokens; return the teacher with its tokens."""
    from labse_tf import distillation

    if teacher is None or teacher.preprocessor is None:
        raise ValueError(
            "--states-weight requires a teacher that is a model of this package; "
            "`labse-tf convert` makes one of a BERT or XLM-RoBERTa encoder. "
            f"Received: --teacher {options.teacher}"
        )
    if options.teacher_prefix:
        teacher = teacher.with_prefix(options.teacher_prefix)
    output = options.output.rstrip("/")
    return distillation.make_student_of_states(
        teacher,
        pairs,
        f"{output}.student",
        f"{output}.trimmed",
        recipe,
        max_tokens=options.vocab_size,
    )


def _plan(options: argparse.Namespace, recipe: DistillationRecipe) -> None:
    """Print the memory of the run."""
    from labse_tf.encoders import read_sizes
    from labse_tf.tokenizers import load_vocabulary

    teacher = None
    # A teacher of another kind, or vectors on disk, is not counted.
    with contextlib.suppress(ValueError):
        teacher = read_sizes(options.teacher)
    storage = options.storage
    if options.model is not None:
        sizes = read_sizes(options.model)
        storage = storage or sizes.get("storage", "float32")
    elif teacher is None:
        raise ValueError(
            "--plan of a new student requires a teacher of known sizes: a preset or a "
            f"Hugging Face directory. Received: --teacher {options.teacher}"
        )
    else:
        size = options.vocab_size or (
            teacher["vocabulary_size"] if recipe.states_weight else _VOCABULARY_SIZE
        )
        if options.vocab is not None:
            size = len(load_vocabulary(options.vocab))
        new = {"num_layers": recipe.num_layers, "vocabulary_size": size}
        if not recipe.num_layers:
            new["hidden_dim"] = recipe.hidden_dim
        sizes = {**teacher, **new}
        storage = storage or "int8"
    shape = {**shape_fields(sizes), "dropout": recipe.dropout}
    print_plan(
        options,
        with_shape(recipe, shape),
        sizes["vocabulary_size"],
        [*options.files, *options.mono],
        storage,
        teacher=teacher,
    )


def _load_text(options: argparse.Namespace, report: SkipReport) -> ParallelCorpus:
    """Read the pairs, and the sentences of `--mono` as pairs of equal sides."""
    from labse_tf import data

    found: list[ParallelCorpus] = []
    if options.files:
        files = data.find_pair_files(options.files)
        found.append(load(options, files, data.load_pairs, report))
        say_counts(found[-1].counts, "pairs")
    if options.mono:
        files = data.find_sentence_files(options.mono)
        sentences = load(options, files, data.load_sentences, report)
        say_counts(sentences.counts, "sentences")
        found.append(sentences.to_pairs())
    return found[0].union(*found[1:]) if len(found) > 1 else found[0]


def _open_teacher(
    options: argparse.Namespace,
) -> tuple[TextVectors, Encode | None, LaBSE | None]:
    """Return the teacher's vectors on disk, and the teacher's `encode` and model."""
    from labse_tf.data import TextVectors
    from labse_tf.data.text_vectors import has_text_vectors
    from labse_tf.models import LaBSE

    if has_text_vectors(options.teacher):
        if options.model is None:
            raise ValueError(
                "--model is required if --teacher is a directory of vectors, which has "
                f"no blocks. Received: --teacher {options.teacher}"
            )
        return TextVectors(options.teacher), None, None
    folder = options.teacher_vectors or f"{options.output.rstrip('/')}.teacher"
    vectors, opened = open_text_vectors(
        "teacher", options.teacher, options.teacher_prefix, folder
    )
    teacher = opened()
    # Only a LaBSE model has blocks to learn from.
    model = teacher.model if isinstance(teacher.model, LaBSE) else None
    return vectors, teacher.encode, model
