"""Teacher states: the outputs of a teacher's blocks, as targets of a student's blocks.

The student has the teacher's tokens, so each of its tokens has a target: after block j
the teacher's output after block m(j). A vector per text says only what the sum of all
tokens should be.

Shapes: B = batch, T = length in tokens, D = hidden dimension of both models.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from keras import ops

from labse_tf.models import LaBSE
from labse_tf.trimming import spread_blocks

_SAMPLE = 512  # ours: texts from which the variances are computed


class TeacherStates:
    """Outputs of a teacher's blocks for the features of a student.

    The teacher may have a prefix where the student has none: its tokens are inserted
    after the first token, and their states are left out. The states of one text then
    belong to the same tokens in both models.

    Args:
        teacher: The teacher. Its weights are frozen.
        student: The student. It must have the teacher's tokenizer and dimension, and
            the teacher's prefix or none.
        blocks: For each of the student's blocks the number of the teacher's block, from
            0, whose output it should have (default: blocks at equal distances, the last
            one the last; 1, 3, 5, ... for a student of half as many).

    Attributes:
        blocks: Numbers of the teacher's blocks.
        variances: One number per block by which its squared distances are divided; see
            `fit`. 1 before.

    Raises:
        ValueError: If the models do not fit together or a number is out of range.

    References:
        - Jiao et al., 2020, TinyBERT, section 3.1, hidden states
          (https://arxiv.org/abs/1909.10351)
        - Sanh et al., 2019, DistilBERT (https://arxiv.org/abs/1910.01108)
    """

    def __init__(
        self, teacher: LaBSE, student: LaBSE, blocks: Sequence[int] | None = None
    ) -> None:
        """Check that the models fit together."""
        many, few = teacher.backbone.num_layers, student.backbone.num_layers
        if not 0 < few <= many:
            raise ValueError(
                f"`student` must have from 1 to {many} blocks, as many as the teacher "
                f"at most. Received: {few}"
            )
        if blocks is None:
            blocks = spread_blocks(many, few)
        if len(blocks) != few or not all(0 <= block < many for block in blocks):
            raise ValueError(
                f"`blocks` must be {few} numbers from 0 to {many - 1}, one per block "
                f"of the student. Received: {list(blocks)}"
            )
        if teacher.embedding_dim != student.embedding_dim:
            raise ValueError(
                "`student` must have the teacher's hidden dimension, "
                f"{teacher.embedding_dim}, if it learns states. "
                f"Received: {student.embedding_dim}"
            )
        self._inserted = _inserted(teacher, student)
        longest = student.text_preprocessor().sequence_length + len(self._inserted)
        if longest > teacher.backbone.max_sequence_length:
            raise ValueError(
                "`teacher` must have a position for each token of the student and of "
                f"its own prefix, {longest}. "
                f"Received: {teacher.backbone.max_sequence_length}"
            )
        teacher.trainable = False
        self._teacher = teacher
        self.blocks = tuple(int(block) for block in blocks)
        self.variances: tuple[float, ...] = (1.0,) * few

    def __call__(self, features: dict[str, Any]) -> list[Any]:
        """Return the states that the student's blocks should have.

        Args:
            features: The student's features, int32 `(B, T)` each.

        Returns:
            One float32 `(B, T, D)` per block, without a gradient. Rows of padding have
            no meaning.
        """
        outputs = block_outputs(
            self._teacher, self._own_features(features), training=False
        )
        count = len(self._inserted)
        states = [ops.cast(outputs[block], "float32") for block in self.blocks]
        if count:
            states = [
                ops.concatenate([x[:, :1], x[:, 1 + count :]], axis=1) for x in states
            ]
        return [ops.stop_gradient(x) for x in states]

    def _own_features(self, features: dict[str, Any]) -> dict[str, Any]:
        """Return the features of the same texts with the teacher's prefix."""
        if not len(self._inserted):
            return features
        inserted = {
            "token_ids": self._inserted,
            "segment_ids": np.zeros_like(self._inserted),
            "padding_mask": np.ones_like(self._inserted),
        }
        result = {}
        for name, values in inserted.items():
            given = features[name]
            row = ops.convert_to_tensor(values[None], given.dtype)
            rows = ops.tile(row, [ops.shape(given)[0], 1])
            result[name] = ops.concatenate([given[:, :1], rows, given[:, 1:]], axis=1)
        return result

    def fit(self, texts: Iterable[str], preprocessor: Any) -> None:
        """Set `variances` from a sample of texts.

        The variance of a block is the mean squared distance of a token's state to the
        mean state, averaged over the tokens of each text and then over the texts. A
        student that always answers with the mean state then has the loss 1.

        Args:
            texts: Texts, of which the first 512 are used.
            preprocessor: The student's preprocessor.

        Raises:
            ValueError: If `texts` is empty.
        """
        texts = list(texts)[:_SAMPLE]
        if not texts:
            raise ValueError("`texts` must not be empty. Received: no text")
        rows: list[list[np.ndarray]] = [[] for _ in self.blocks]
        for start in range(0, len(texts), 32):
            features = preprocessor(texts[start : start + 32])
            mask = np.asarray(features["padding_mask"], bool)
            for found, states in zip(rows, self(features), strict=True):
                array = ops.convert_to_numpy(states)
                found += [x[real] for x, real in zip(array, mask, strict=True)]
        variances = []
        for found in rows:
            mean = np.concatenate(found).mean(axis=0, dtype="float64")
            each = [np.square(x - mean).sum(axis=1).mean() for x in found]
            variances.append(max(float(np.mean(each)), 1e-12))
        self.variances = tuple(variances)


def _inserted(teacher: LaBSE, student: LaBSE) -> np.ndarray:
    """Return the ids of the teacher's prefix that the student's rows lack, `(p,)`."""
    old, new = teacher.text_preprocessor(), student.text_preprocessor()
    if old.tokenizer.describe() != new.tokenizer.describe():
        raise ValueError(
            "`student` must have the teacher's tokenizer if it learns states, such as "
            "`labse-tf shrink` without --vocab makes it. Received: another tokenizer"
        )
    if new.prefix == old.prefix:
        return np.zeros(0, np.int32)
    if new.prefix:
        raise ValueError(
            f"`student` must have the teacher's prefix {old.prefix!r} or none. "
            f"Received: {new.prefix!r}"
        )
    return np.asarray(old.tokenizer([old.prefix]).values, np.int32)


def block_outputs(
    model: LaBSE, features: dict[str, Any], *, training: bool | None
) -> list[Any]:
    """Return the output of each block, `(B, T, D)`, of the compute type."""
    backbone = model.backbone
    outputs = backbone.call_with_embeddings(
        backbone.token_embedding(features["token_ids"]),
        segment_ids=features["segment_ids"],
        padding_mask=features["padding_mask"],
        training=training,
    )
    return outputs["encoder_outputs"]


def vectors_and_states(
    model: LaBSE, features: dict[str, Any], training: bool | None
) -> tuple[Any, list[Any]]:
    """Return a model's unit vectors `(B, D)` and the output of each block."""
    states = block_outputs(model, features, training=training)
    last, mask = states[-1], features["padding_mask"]
    pooled = model.backbone.pooler(last[:, 0, :])
    vectors = model.sentence_pooling(last, pooled, mask, features["token_ids"])
    return vectors, states


def states_loss(
    found: Sequence[Any],
    wanted: Sequence[Any],
    padding_mask: Any,
    variances: Sequence[float],
) -> Any:
    r"""Return the relative squared distance of states, float32 `(B,)`.

    $\frac{1}{L} \sum_j \frac{1}{T_i V_j} \sum_t |s_{jt} - u_{jt}|^2$ for text i with
    $T_i$ tokens, the student's states s, the teacher's u, and the variance $V_j$ of
    block j, of L.

    Args:
        found: The student's states, `(B, T, D)` per block.
        wanted: The teacher's states, `(B, T, D)` per block.
        padding_mask: int32 `(B, T)`.
        variances: One number per block.
    """
    mask = ops.cast(padding_mask, "float32")
    weights = mask / ops.maximum(ops.sum(mask, axis=1, keepdims=True), 1.0)
    total = 0.0
    for x, y, variance in zip(found, wanted, variances, strict=True):
        distances = ops.sum(ops.square(ops.cast(x, "float32") - y), axis=2)
        total = total + ops.sum(distances * weights, axis=1) / variance
    return total / len(variances)
