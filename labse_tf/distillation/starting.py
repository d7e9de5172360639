"""A student to start from: some of the teacher's blocks, and a new vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from labse_tf import presets
from labse_tf.data import ParallelCorpus
from labse_tf.distillation.bag import make_bag
from labse_tf.distillation.recipe import DistillationRecipe
from labse_tf.distillation.teacher import Encode
from labse_tf.files import directory_beside
from labse_tf.progress import Progress
from labse_tf.tokenizers import WordPieceTokenizer, learn_vocabulary, save_vocabulary
from labse_tf.trimming import shrink_preset


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
