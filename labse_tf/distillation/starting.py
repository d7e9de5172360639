"""A student to start from: some of the teacher's blocks, and a new vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from labse_tf import presets
from labse_tf.data import ParallelCorpus
from labse_tf.data.text_vectors import Encode
from labse_tf.distillation.bag import make_bag
from labse_tf.distillation.recipe import DistillationRecipe
from labse_tf.files import directory_beside
from labse_tf.models import LaBSE
from labse_tf.progress import Progress
from labse_tf.tokenizers import WordPieceTokenizer, learn_vocabulary, save_vocabulary
from labse_tf.trimming import (
    drop_prefix,
    keep_layers,
    shrink_preset,
    spread_blocks,
    trim,
)
from labse_tf.trimming.sentences import Sentences


def make_student(
    teacher: str | Path,
    pairs: ParallelCorpus,
    directory: str | Path,
    recipe: DistillationRecipe,
    *,
    encode: Encode | None = None,
    prefix: str = "",
    vocabulary: str | Path | None = None,
    vocabulary_size: int = 32_000,
    lowercase: bool = False,
    strip_accents: bool | None = None,
    progress: Progress = None,
) -> None:
    """Write a preset with the teacher's first blocks and another vocabulary.

    Without blocks it is a bag of tokens; see `make_bag`.

    An existing preset is kept, so that an interrupted run can be resumed.

    Args:
        teacher: A model; see `labse_tf.trimming.load_teacher`.
        pairs: Pairs, from which the vocabulary is learned.
        directory: Directory of the preset.
        recipe: Recipe; `num_layers`, `sequence_length` and `smoothing` are used, and
            `hidden_dim` for a bag of tokens.
        encode: The teacher as a callable, for a bag of tokens.
        prefix: Text before each text for the teacher, for a bag of tokens.
        vocabulary: Path of a `vocab.txt` (default: a new vocabulary of the pairs).
        vocabulary_size: Number of tokens of a new vocabulary.
        lowercase: See `labse_tf.WordPieceTokenizer`.
        strip_accents: See `labse_tf.WordPieceTokenizer`.
        progress: See `labse_tf.progress`.

    Raises:
        ValueError: If the teacher cannot be shrunk, or an argument is out of range.
        OSError: If the directory cannot be written.
    """
    if presets.is_preset(Path(directory)):
        return
    with directory_beside(directory) as folder:
        path = vocabulary
        if path is None:

            def sentences(language: str) -> Iterator[tuple[str, str]]:
                for code, text in pairs.select([language]).texts():
                    yield code, text.decode()

            path = folder / "vocab.txt"
            tokens = learn_vocabulary(
                pairs.languages,
                vocabulary_size,
                reader=sentences,
                smoothing=recipe.smoothing,
                lowercase=lowercase,
                strip_accents=strip_accents,
                progress=progress,
            )
            save_vocabulary(tokens, path)
        if recipe.num_layers == 0:
            if encode is None:
                raise ValueError(
                    "`encode` is required for a bag of tokens. Received: encode=None"
                )
            tokenizer = WordPieceTokenizer(
                path, lowercase=lowercase, strip_accents=strip_accents
            )
            bag = make_bag(
                encode,
                tokenizer,
                recipe.hidden_dim,
                prefix=prefix,
                sequence_length=recipe.sequence_length,
                progress=progress,
            )
            bag.save_to_preset(directory)
            return
        shrink_preset(
            teacher,
            directory,
            layers=recipe.num_layers,
            vocabulary=path,
            lowercase=lowercase,
            strip_accents=strip_accents,
            sequence_length=recipe.sequence_length,
            measure=False,
            progress=progress,
        )


def make_student_of_states(
    teacher: LaBSE,
    pairs: ParallelCorpus,
    directory: str | Path,
    trimmed: str | Path,
    recipe: DistillationRecipe,
    *,
    max_tokens: int | None = None,
    progress: Progress = None,
) -> LaBSE:
    """Write a preset with some of the teacher's blocks and tokens, for its states.

    The tokens are those of the pairs, the blocks are at equal distances, and the
    student has no prefix. A teacher with the same tokens is written too.

    Existing presets are kept, so that an interrupted run can be resumed.

    Args:
        teacher: The teacher, with a preprocessor.
        pairs: Pairs, whose tokens are kept.
        directory: Directory of the student's preset.
        trimmed: Directory of the preset of the teacher with these tokens.
        recipe: Recipe; `num_layers` and `sequence_length` are used.
        max_tokens: See `labse_tf.trimming.choose_tokens`. Default: no limit.
        progress: See `labse_tf.progress`.

    Returns:
        The teacher with the student's tokens.

    Raises:
        ValueError: If the teacher has fewer blocks or positions than the recipe, or
            `max_tokens` has no room for the characters.
        OSError: If a directory cannot be written.
    """
    many, few = teacher.backbone.num_layers, recipe.num_layers
    if not 0 < few <= many:
        raise ValueError(
            f"`num_layers` must be from 1 to {many}, the blocks of the teacher, with "
            f"`states_weight`. Received: {few}"
        )
    if not presets.is_preset(Path(trimmed)):
        corpus = pairs.to_sentences()
        texts = {code: Sentences(corpus, code) for code in corpus.languages}
        small = trim(teacher, texts, max_tokens=max_tokens, progress=progress)
        small.save_to_preset(trimmed)
    teacher = LaBSE.from_preset(trimmed)
    if not presets.is_preset(Path(directory)):
        student = keep_layers(drop_prefix(teacher), spread_blocks(many, few))
        student = student.with_sequence_length(recipe.sequence_length)
        student.save_to_preset(directory)
    return teacher
