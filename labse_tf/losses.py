"""Losses: bidirectional additive-margin softmax over the global batch, nested sizes.

Shapes: b = local batch (one replica's rows), G = global batch, D = dimension, K = block
of candidates, g = dimension of a guide's vectors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from labse_tf.blockwise import (
    LogSumExp,
    cut_rows,
    empty_rows,
    outside_eager,
    over_blocks,
    write_rows,
)
from labse_tf.distribute import all_gather_rows, global_row_ids, replica_count
from labse_tf.duplicates import joined_ids, pair_masks
from labse_tf.nested import cut_vectors

# A finite logit whose softmax is 0.
_MASKED = -1e9
GUIDE_MARGINS = ("absolute", "relative")


@keras.saving.register_keras_serializable(package="labse_tf")
class AdditiveMarginSoftmax(keras.losses.Loss):
    r"""Loss that ranks translations above all other sentences of the global batch.

    With cosine similarities $\phi$ of unit vectors, margin $m$ and scale $s$:

    $$L_{st} = -\frac{1}{G} \sum_i \log \frac{e^{s (\phi(x_i, y_i) - m)}}
    {e^{s (\phi(x_i, y_i) - m)} + \sum_{n \ne i} e^{s \phi(x_i, y_n)}}$$

    The loss is the sum $L_{st} + L_{ts}$, not the mean. Other pairs with the same
    source or the same target are not negatives in either direction.

    A guide, an encoder that already is good, can name more pairs that are not
    negatives: given its vectors, candidate n of query i is ignored if the guide's
    cosine of the two is above $\gamma_i - m_g$, where $\gamma_i$ is its cosine of pair
    i and $m_g$ is `guide_margin`.

    Args:
        margin: Number subtracted from the cosine of the positive, 0.3 in the paper.
        scale: Factor of the cosines. The paper does not give it; the official YAML has
            100. ours: 20, the best for small batches and small models.
        bidirectional: Whether to add target -> source to source -> target.
        cross_replica: Whether to use negatives from all replicas. `False` uses only
            this replica's negatives, as the official code does, for comparison.
        mask_duplicates: Whether to use `source_ids` and `target_ids` if given.
        block_size: K, number of candidates at a time. Memory is then linear in the
            batch: besides the vectors and their gradients, a few times `b * K` floats.
            The backward pass computes the cosines again. Value and gradients equal
            those of `None`, which holds all cosines and is faster if they fit.
        guide_margin: Number by which a negative must be farther than the pair itself,
            for the guide. Only used with a guide's vectors.
        guide_margin_strategy: `"absolute"`: the limit is $\gamma_i - m_g$.
            `"relative"`: it is $\gamma_i - m_g |\gamma_i|$.
        name: Name of the loss.

    Call arguments:
        source: Float `(b, D)`, unit vectors.
        target: Float `(b, D)`, unit vectors; row i is the translation of source row i.
        sample_weight: Must be `None`.
        source_ids: int32 `(b, 2)` fingerprints, equal for equal sentences; see
            `labse_tf.duplicates.sentence_fingerprints`.
        target_ids: The same for the targets. Requires `source_ids`, and vice versa.
        source_guide: Float `(b, g)`, unit vectors of the sources by a guide.
        target_guide: The same for the targets. Requires `source_guide`, and vice versa.

    Returns:
        float32 scalar, this replica's share: the sum over the replicas is the mean over
        the global batch, as `tf.distribute` expects.

    Raises:
        ValueError: If `scale` or `block_size` is not positive, `guide_margin` is not
            finite, `guide_margin_strategy` is unknown, `source` and `target` differ in
            shape, only one of the id matrices or of the guide's matrices is given, the
            latter are not matrices of one shape, `sample_weight` is given, or the batch
            size is not static with several replicas.

    Example:
        >>> import numpy as np
        >>> from labse_tf.losses import AdditiveMarginSoftmax
        >>> vectors = np.eye(2, dtype="float32")
        >>> loss = AdditiveMarginSoftmax(margin=0.5, scale=2.0)
        >>> # Each direction: log(e ** (2 * (1 - 0.5)) + e ** 0) - 1 = 0.3133
        >>> round(float(loss(vectors, vectors)), 4)
        0.6265

    References:
        Feng et al., 2022, sections 2.1 and 2.2, equations 1 to 3
        (https://arxiv.org/abs/2007.01852); Yang et al., 2019
        (https://arxiv.org/abs/1902.08564); Milakov and Gimelshein, 2018, on the
        running softmax (https://arxiv.org/abs/1805.02867); Solatorio, 2024, GISTEmbed,
        on the guide (https://arxiv.org/abs/2402.16829). The margin of the guide is that
        of sentence-transformers' `CachedGISTEmbedLoss`.
    """

    def __init__(
        self,
        margin: float = 0.3,
        scale: float = 20.0,
        *,
        bidirectional: bool = True,
        cross_replica: bool = True,
        mask_duplicates: bool = True,
        block_size: int | None = None,
        guide_margin: float = 0.0,
        guide_margin_strategy: str = "absolute",
        name: str = "additive_margin_softmax",
    ) -> None:
        super().__init__(name=name, reduction="sum_over_batch_size")
        if not scale > 0:
            raise ValueError(f"`scale` must be positive. Received: scale={scale}")
        if block_size is not None and block_size < 1:
            raise ValueError(
                f"`block_size` must be positive. Received: block_size={block_size}"
            )
        if not math.isfinite(guide_margin):
            raise ValueError(
                f"`guide_margin` must be finite. Received: guide_margin={guide_margin}"
            )
        if guide_margin_strategy not in GUIDE_MARGINS:
            raise ValueError(
                f"`guide_margin_strategy` must be one of {', '.join(GUIDE_MARGINS)}. "
                f"Received: guide_margin_strategy={guide_margin_strategy!r}"
            )
        self.margin = float(margin)
        self.scale = float(scale)
        self.bidirectional = bidirectional
        self.cross_replica = cross_replica
        self.mask_duplicates = mask_duplicates
        self.block_size = block_size
        self.guide_margin = float(guide_margin)
        self.guide_margin_strategy = guide_margin_strategy

    def __call__(
        self,
        source: Any,
        target: Any,
        sample_weight: None = None,
        *,
        source_ids: Any | None = None,
        target_ids: Any | None = None,
        source_guide: Any | None = None,
        target_guide: Any | None = None,
    ) -> Any:
        """Return this replica's share of the loss; see the class."""
        if sample_weight is not None:
            raise ValueError(
                "`sample_weight` must be None, because rows are negatives of each "
                f"other. Received: sample_weight={sample_weight}"
            )
        values = self.call(
            source,
            target,
            source_ids=source_ids,
            target_ids=target_ids,
            source_guide=source_guide,
            target_guide=target_guide,
        )
        return ops.mean(values) / replica_count()

    def call(
        self,
        source: Any,
        target: Any,
        *,
        source_ids: Any | None = None,
        target_ids: Any | None = None,
        source_guide: Any | None = None,
        target_guide: Any | None = None,
    ) -> Any:
        """Return the loss of each local pair, summed over the directions: `(b,)`."""
        source = ops.convert_to_tensor(source, dtype="float32")
        target = ops.convert_to_tensor(target, dtype="float32")
        if len(source.shape) != 2 or tuple(source.shape) != tuple(target.shape):
            raise ValueError(
                "`source` and `target` must be matrices of the same shape (b, D). "
                f"Received: source.shape={tuple(source.shape)}, "
                f"target.shape={tuple(target.shape)}"
            )
        known = _Known(self._labels(source))
        ids = joined_ids(source_ids, target_ids)  # (b, 4)
        if ids is not None and self.mask_duplicates:
            known = known._replace(ids=ids, all_ids=self._gather(ids))
        if source_guide is not None or target_guide is not None:
            known = self._guided(known, source, source_guide, target_guide)
        all_sources, all_targets = self._gather_sides(source, target)
        directions = [(source, all_targets)]
        if self.bidirectional:
            directions.append((target, all_sources))
        if self.block_size is None:
            size = ops.shape(all_targets)[0]
            own, ignored = _block_masks(known, 0, size, len(directions))  # (b, G) each
            return sum(
                self._rank(*direction, own, others)
                for direction, others in zip(directions, ignored, strict=True)
            )
        return self._rank_in_blocks(directions, known)

    def _guided(
        self, known: _Known, source: Any, source_guide: Any, target_guide: Any
    ) -> _Known:
        """Return what is known of the pairs, with the guide's vectors and limits."""
        if source_guide is None or target_guide is None:
            raise ValueError(
                "`source_guide` and `target_guide` require each other: expected both "
                f"or neither. Received: source_guide={source_guide}, "
                f"target_guide={target_guide}"
            )
        sides = [
            ops.stop_gradient(ops.convert_to_tensor(side, dtype="float32"))
            for side in (source_guide, target_guide)
        ]
        shapes = [tuple(side.shape) for side in sides]
        rows = source.shape[0]
        if (
            len(shapes[0]) != 2
            or shapes[0][1] is None
            or shapes[1][1:] != shapes[0][1:]
            or any(shape[0] not in (None, rows) for shape in shapes)
        ):
            raise ValueError(
                "`source_guide` and `target_guide` must be matrices of the same shape "
                f"(b, g), b = {rows}. Received: source_guide.shape={shapes[0]}, "
                f"target_guide.shape={shapes[1]}"
            )
        if rows is not None:
            # A replica's part of `fit`'s second argument has lost its static size.
            sides = [ops.reshape(side, (rows, shapes[0][1])) for side in sides]
        cosines = ops.sum(sides[0] * sides[1], axis=1)  # (b,)
        relative = self.guide_margin_strategy == "relative"
        unit = ops.absolute(cosines) if relative else 1.0
        all_sides = self._gather_sides(*sides)
        return known._replace(
            limits=cosines - self.guide_margin * unit,
            source_guide=sides[0],
            target_guide=sides[1],
            all_source_guide=all_sides[0],
            all_target_guide=all_sides[1],
        )

    def _gather(self, rows: Any) -> Any:
        """Return the rows of all replicas, or of this replica only."""
        return all_gather_rows(rows) if self.cross_replica else rows

    def _gather_sides(self, source: Any, target: Any) -> tuple[Any, Any]:
        """Return all sources and all targets, `(G, D)` each."""
        if replica_count() == 1 or not self.cross_replica:
            return source, target
        # One collective for both sides instead of two.
        both = self._gather(ops.concatenate([source, target], axis=1))  # (G, 2D)
        dim = source.shape[1]
        return both[:, :dim], both[:, dim:]

    def _labels(self, rows: Any) -> Any:
        """Return the index of each row's own pair in the candidates, int32 `(b,)`."""
        if self.cross_replica:
            return global_row_ids(rows)
        return ops.arange(ops.shape(rows)[0], dtype="int32")

    def _rank(
        self, queries: Any, candidates: Any, own: Any, ignored: Any | None
    ) -> Any:
        """Return the cross-entropy of one direction for each query, `(b,)`."""
        logits = _logits(queries, candidates, own, ignored, self.margin, self.scale)
        correct = ops.sum(logits * ops.cast(own, logits.dtype), axis=1)
        return ops.logsumexp(logits, axis=1) - correct

    def _rank_in_blocks(self, directions: list[tuple[Any, Any]], known: _Known) -> Any:
        """Return the sum of `_rank` over the directions, in blocks of candidates."""
        count = len(directions)
        settings = (self.block_size, self.margin, self.scale)

        @ops.custom_gradient
        def rank(*tensors: Any) -> Any:
            # A gradient tape would otherwise keep intermediate results of all blocks.
            vectors = tuple(map(ops.stop_gradient, tensors[: 2 * count]))
            others = iter(tensors[2 * count :])
            pairs = _Known(*(None if x is None else next(others) for x in known))
            widths = tuple(
                None if x is None else x.shape[1]
                for x in (vectors[0], pairs.source_guide)
            )
            values, sums = outside_eager(
                _forward, vectors, pairs, *settings, key=widths
            )

            def gradient(*upstream: Any) -> tuple[Any, ...]:
                # TensorFlow passes one argument per output, JAX a tuple of all outputs.
                outer = keras.tree.flatten(upstream)[0]
                gradients = outside_eager(
                    _backward, vectors, pairs, sums, outer, *settings, key=widths
                )
                return (*gradients, *(None for _ in tensors[2 * count :]))

            return values, gradient

        constants = (x for x in known if x is not None)
        return rank(*(x for sides in directions for x in sides), *constants)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "name": self.name,
            "margin": self.margin,
            "scale": self.scale,
            "bidirectional": self.bidirectional,
            "cross_replica": self.cross_replica,
            "mask_duplicates": self.mask_duplicates,
            "block_size": self.block_size,
            "guide_margin": self.guide_margin,
            "guide_margin_strategy": self.guide_margin_strategy,
        }


@keras.saving.register_keras_serializable(package="labse_tf")
class MatryoshkaLoss(keras.losses.Loss):
    """Sum of a loss over vectors cut to several sizes.

    The first components of a vector then are a smaller vector of their own. Vectors
    that are cut are normalized again.

    Args:
        loss: Loss of two matrices, such as `AdditiveMarginSoftmax`.
        dims: Sizes, each from 1 to D. D itself is always one of the sizes.
        name: Name of the loss.

    Call arguments:
        source: Float `(b, D)`, unit vectors.
        target: Float `(b, D)`, unit vectors.
        sample_weight: See `loss`.
        **known: What else `loss` takes: `source_ids`, `target_ids`, `source_guide` and
            `target_guide`. A guide's vectors stay whole.

    Returns:
        float32 scalar, this replica's share; see `AdditiveMarginSoftmax`.

    Raises:
        ValueError: If `dims` is empty, has repetitions, or a size is below 1 or above
            D.

    Example:
        >>> import numpy as np
        >>> from labse_tf.losses import AdditiveMarginSoftmax, MatryoshkaLoss
        >>> vectors = np.eye(4, dtype="float32")[:2]
        >>> loss = AdditiveMarginSoftmax()
        >>> nested = MatryoshkaLoss(loss, dims=(2,))
        >>> float(nested(vectors, vectors)) == 2 * float(loss(vectors, vectors))
        True

    References:
        Kusupati et al., 2022, Matryoshka Representation Learning
        (https://arxiv.org/abs/2205.13147).
    """

    def __init__(
        self,
        loss: keras.losses.Loss,
        dims: Sequence[int],
        name: str = "matryoshka",
    ) -> None:
        super().__init__(name=name, reduction="sum_over_batch_size")
        sizes = [int(dim) for dim in dims]
        if not sizes or min(sizes) < 1 or len(set(sizes)) != len(sizes):
            raise ValueError(
                f"`dims` must be different positive numbers. Received: {list(dims)}"
            )
        self.loss, self.dims = loss, tuple(sorted(sizes))

    @property
    def block_size(self) -> int | None:
        """`block_size` of the loss."""
        return getattr(self.loss, "block_size", None)

    def __call__(
        self, source: Any, target: Any, sample_weight: None = None, **known: Any
    ) -> Any:
        """Return this replica's share of the loss; see the class."""
        width = source.shape[-1]
        if self.dims[-1] > width:
            raise ValueError(
                f"`dims` must be at most the dimension of the vectors, {width}. "
                f"Received: {list(self.dims)}"
            )
        total = self.loss(source, target, sample_weight, **known)
        for dim in self.dims:
            if dim < width:
                short = (cut_vectors(side, dim) for side in (source, target))
                total = total + self.loss(*short, sample_weight, **known)
        return total

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "loss": keras.saving.serialize_keras_object(self.loss),
            "dims": list(self.dims),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MatryoshkaLoss:
        """Create the loss from the result of `get_config`."""
        loss = keras.saving.deserialize_keras_object(config["loss"])
        return cls(**{**config, "loss": loss})


class _Known(NamedTuple):
    """What is known of the pairs of a batch besides their vectors.

    Attributes:
        labels: int32 `(b,)`, index of each pair in the candidates.
        ids: int32 `(b, 4)`, see `pair_masks`; `None` without fingerprints.
        all_ids: int32 `(G, 4)`, those of the candidates.
        limits: float32 `(b,)`, guide's cosines above which candidates are ignored.
            `None` without a guide, like all that follow.
        source_guide: float32 `(b, g)`, the guide's vectors.
        target_guide: float32 `(b, g)`.
        all_source_guide: float32 `(G, g)`, those of the candidates.
        all_target_guide: float32 `(G, g)`.
    """

    labels: Any
    ids: Any | None = None
    all_ids: Any | None = None
    limits: Any | None = None
    source_guide: Any | None = None
    target_guide: Any | None = None
    all_source_guide: Any | None = None
    all_target_guide: Any | None = None


def _logits(
    queries: Any,
    candidates: Any,
    own: Any,
    ignored: Any | None,
    margin: float,
    scale: float,
) -> Any:
    """Return the logits of queries x candidates; see `pair_masks` for the masks."""
    cosines = ops.matmul(queries, ops.transpose(candidates))
    logits = scale * (cosines - margin * ops.cast(own, cosines.dtype))
    return logits if ignored is None else ops.where(ignored, _MASKED, logits)


def _forward(
    vectors: tuple[Any, ...],
    known: _Known,
    block_size: int,
    margin: float,
    scale: float,
) -> tuple[Any, tuple[LogSumExp, ...]]:
    """Return the loss of each pair `(b,)` and one log-sum-exp `(b,)` per direction.

    `vectors` are the queries `(b, D)` and candidates `(G, D)` of each direction.
    """
    directions = tuple(zip(vectors[::2], vectors[1::2], strict=True))

    def step(start: Any, rows: Any, correct: Any, *sums: LogSumExp) -> tuple[Any, ...]:
        own, ignored = _block_masks(known, start, rows, len(directions))  # (b, K)
        new = []
        for (queries, candidates), others, log_sum in zip(
            directions, ignored, sums, strict=True
        ):
            block = cut_rows(candidates, start, rows)
            logits = _logits(queries, block, own, others, margin, scale)
            correct = correct + ops.sum(logits * ops.cast(own, "float32"), axis=1)
            new.append(log_sum.add(logits))
        return correct, *new

    zeros = ops.zeros_like(vectors[0][:, 0])
    nothing = LogSumExp.of_nothing(zeros)
    size = ops.shape(vectors[1])[0]
    state = (zeros, *(nothing for _ in directions))
    correct, *sums = over_blocks(step, state, size, block_size)
    return sum(log_sum.value() for log_sum in sums) - correct, tuple(sums)


def _backward(
    vectors: tuple[Any, ...],
    known: _Known,
    sums: tuple[LogSumExp, ...],
    outer: Any,
    block_size: int,
    margin: float,
    scale: float,
) -> tuple[Any, ...]:
    """Return the gradients of `vectors`, given that of the loss; see `_forward`."""
    directions = tuple(zip(vectors[::2], vectors[1::2], strict=True))
    outer = (scale * outer)[:, None]

    def step(start: Any, rows: Any, *state: Any) -> tuple[Any, ...]:
        own, ignored = _block_masks(known, start, rows, len(directions))  # (b, K)
        new = []
        for (queries, candidates), others, log_sum, to_queries, to_candidates in zip(
            directions, ignored, sums, state[::2], state[1::2], strict=True
        ):
            block = cut_rows(candidates, start, rows)
            logits = _logits(queries, block, own, others, margin, scale)
            shares = log_sum.shares(logits) - ops.cast(own, "float32")
            shares = shares * outer  # gradient of the cosines
            to_queries = to_queries + ops.matmul(shares, block)
            part = ops.matmul(ops.transpose(shares), queries)
            new += [to_queries, write_rows(to_candidates, start, part)]
        return tuple(new)

    state = []
    for queries, candidates in directions:
        state += [ops.zeros_like(queries), empty_rows(ops.shape(candidates))]
    return over_blocks(step, tuple(state), ops.shape(vectors[1])[0], block_size)


def _block_masks(
    known: _Known, start: Any, rows: Any, directions: int
) -> tuple[Any, list[Any | None]]:
    """Return masks of a block of candidates, bool `(b, K)`.

    The first is true where the candidate is the pair itself. The others, one per
    direction, are true where the candidate is ignored; `None` if none is.
    """
    columns = start + ops.arange(rows, dtype="int32")
    all_ids = None if known.all_ids is None else cut_rows(known.all_ids, start, rows)
    own, ignored = pair_masks(known.labels, columns, known.ids, all_ids)
    if known.limits is None:
        return own, [ignored] * directions
    masks = []
    for queries, candidates in (
        (known.source_guide, known.all_target_guide),
        (known.target_guide, known.all_source_guide),
    )[:directions]:
        block = cut_rows(candidates, start, rows)
        near = ops.matmul(queries, ops.transpose(block)) > known.limits[:, None]
        near = ops.logical_and(near, ops.logical_not(own))
        masks.append(near if ignored is None else ops.logical_or(near, ignored))
    return own, masks
