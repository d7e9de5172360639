"""A student to start from: the teacher's first blocks and a new vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from labse_tf import presets
from labse_tf.data import ParallelCorpus
from labse_tf.distillation.recipe import DistillationRecipe
from labse_tf.files import directory_beside
from labse_tf.progress import Progress
from labse_tf.tokenizers import learn_vocabulary, save_vocabulary
from labse_tf.trimming import shrink_preset


def make_student(
    teacher: str | Path,
    pairs: ParallelCorpus,
    directory: str | Path,
    recipe: DistillationRecipe,
    *,
    vocabulary: str | Path | None = None,
    vocabulary_size: int = 32_000,
    lowercase: bool = False,
    strip_accents: bool | None = None,
    progress: Progress = None,
) -> None:
    """Write a preset with the teacher's first blocks and another vocabulary.

    An existing preset is kept, so that an interrupted run can be resumed.

    Args:
        teacher: A model; see `labse_tf.trimming.load_teacher`.
        pairs: Pairs, from which the vocabulary is learned.
        directory: Directory of the preset.
        recipe: Recipe; `num_layers`, `sequence_length` and `smoothing` are used.
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
        shrink_preset(
            teacher,
            directory,
            layers=recipe.num_layers,
            vocabulary=path,
            lowercase=lowercase,
            strip_accents=strip_accents,
            sequence_length=recipe.sequence_length,
            progress=progress,
        )
