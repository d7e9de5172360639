"""Guide: an encoder whose vectors tell the loss which negatives are translations.

The vectors of the texts in the batches are computed before the first step, each once,
and given to the loss with the batches; see `labse_tf.losses.AdditiveMarginSoftmax`.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from labse_tf.progress import Progress
from labse_tf.recipes import Recipe
from labse_tf.training.from_recipe import make_plan
from labse_tf.training.run import Run

if TYPE_CHECKING:
    from labse_tf.data import TextVectors
    from labse_tf.data.text_vectors import CorpusVectors, Encode
    from labse_tf.preprocessing import SentencePreprocessor

# Directory inside that of a run for vectors that only this run needs.
DIRECTORY = "guide"


@dataclasses.dataclass(frozen=True)
class Guide:
    """Encoder that is asked which negatives of a batch are translations.

    Attributes:
        vectors: Its vectors; those that are missing are added. Of a directory `guide`
            inside that of the run they are removed when the run ends.
        open: Function that returns the encoder, a callable from a list of strings to
            `(n, g)`, such as `labse_tf.encoders.open_encoder` with its arguments. It is
            called inside the run if vectors are missing, and its result is dropped
            before the first step. `None` if `vectors` has all vectors.
    """

    vectors: TextVectors
    open: Callable[[], Encode] | None = None

    def describe(self) -> dict[str, Any]:
        """Return a description by content, in JSON types."""
        return {"model": self.vectors.model, "prefix": self.vectors.prefix}


def check_guide(guide: Guide | None, recipe: Recipe, pairs: Any) -> None:
    """Check that a run can have its guide.

    Args:
        guide: The guide, or `None`.
        recipe: Recipe of the run.
        pairs: Pairs of the run.

    Raises:
        ValueError: If `guide_margin` is set without a guide, or the pairs have no text.
    """
    from labse_tf.data import ParallelCorpus

    if guide is None:
        if recipe.guide_margin:
            raise ValueError(
                "`guide_margin` requires `guide`. Received: "
                f"guide_margin={recipe.guide_margin}, guide=None"
            )
        return
    if not isinstance(pairs, ParallelCorpus):
        raise ValueError(
            "`guide` requires pairs as text, not prepared pairs. Received: "
            f"guide={guide.vectors.model!r}, pairs={type(pairs).__name__}"
        )


def guide_vectors(
    run: Run,
    guide: Guide,
    recipe: Recipe,
    pairs: Any,
    preprocessor: SentencePreprocessor,
    progress: Progress,
) -> CorpusVectors:
    """Return the guide's vectors of the pairs of a run, and compute missing ones.

    The chief computes them for all workers, which then hold them in memory.

    Args:
        run: Open run.
        guide: The guide.
        recipe: Recipe of the run.
        pairs: Pairs of the run, as text.
        preprocessor: Preprocessor of the model, by which batches may be planned.
        progress: See `labse_tf.progress`. Counts texts.

    Raises:
        ValueError: If the guide cannot be opened, a vector is missing without `open`,
            or the guide returns a wrong shape or numbers that are not finite.
    """
    from labse_tf.data.batches import rows_in_batches
    from labse_tf.data.text_vectors import CorpusVectors, texts_to_embed

    shape = [0, 0]
    if run.writes:
        # With groups of neighbors, whose search takes long, all pairs.
        used = np.arange(len(pairs))
        if not recipe.hard_negatives:
            used = rows_in_batches(make_plan(recipe, 0), pairs, preprocessor)
        if guide.open is not None:
            opened = functools.cache(guide.open)
            texts = texts_to_embed(pairs.subset(used))
            guide.vectors.add(texts, lambda block: opened()(block), progress=progress)
            # Models have cycles, and their weights would stay in memory.
            del opened
            gc.collect()
        found = guide.vectors.of(pairs, used=used)
        shape = list(found.vectors.shape)
    shape = run.workers.share(shape)
    if not run.writes:
        no_rows = np.zeros(len(pairs), np.int64)
        found = CorpusVectors(np.zeros(shape, np.float16), (no_rows, no_rows))
    vectors, *rows = run.workers.share_arrays([found.vectors, *found.rows])
    return CorpusVectors(vectors, tuple(rows))
