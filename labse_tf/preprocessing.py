"""Text to features: the int32 tensors that the encoder takes, masked or not.

`SentencePreprocessor` for embeddings; `MaskedLMPreprocessor` for pre-training, with
`plan_rows` to fill its rows.

Shapes: B = sentences or pairs, T = length in tokens, R = rows of several sentences,
P = predictions a row. A feature dict holds `token_ids`, `segment_ids` and
`padding_mask`, each int32 `(B, T)`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

from labse_tf.tokenizers import WordPieceTokenizer
from labse_tf.tokenizers.wordpiece import to_strings

if TYPE_CHECKING:
    import tensorflow as tf

PADS = ("longest", "fixed")

# What MaskedLMPreprocessor draws; each has random numbers of its own.
_ORDERS, _COUNTS, _PLACES, _KINDS, _TOKENS = range(5)


@keras.saving.register_keras_serializable(package="labse_tf")
class SentencePreprocessor(keras.layers.Layer):
    """Sentences to `[CLS] tokens [SEP]` rows, padded.

    Runs in the graph: in `tf.data`, in a `tf.function`, in an exported SavedModel.

    Args:
        tokenizer: A `WordPieceTokenizer`.
        sequence_length: Most tokens a row, [CLS] and [SEP] included. The rest of
            a longer sentence is cut off. 64 is the paper's length for dual-encoder
            training (v1, section 3.4).
        pad: `"longest"`: to the longest row of the batch, which is several times
            faster on CPU and GPU; `"fixed"`: to `sequence_length`, the static
            shape that a TPU asks for.
        **kwargs: `name` and other arguments of `keras.layers.Layer`.

    Call arguments:
        texts: Strings `(B,)`: a list, a NumPy array or a tensor.

    Returns:
        Dict of int32 `(B, T)` tensors: `token_ids`, `segment_ids` (all 0),
        `padding_mask` (1 where a token is).

    Raises:
        ValueError: If `sequence_length` has no room for a token between [CLS] and
            [SEP], or `pad` is unknown.

    Example:
        >>> from labse_tf.preprocessing import SentencePreprocessor
        >>> from labse_tf.tokenizers import WordPieceTokenizer
        >>> tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world"]
        >>> preprocessor = SentencePreprocessor(WordPieceTokenizer(tokens))
        >>> preprocessor(["hello world", "hello"])["token_ids"].numpy().tolist()
        [[2, 5, 6, 3], [2, 5, 3, 0]]
    """

    def __init__(
        self,
        tokenizer: WordPieceTokenizer,
        sequence_length: int = 64,
        *,
        pad: str = "longest",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True
        if int(sequence_length) < 3:
            raise ValueError(
                "`sequence_length` must be at least 3: [CLS], one token, [SEP]. "
                f"Received: sequence_length={sequence_length}"
            )
        if pad not in PADS:
            raise ValueError(f"`pad` must be one of {PADS}. Received: pad={pad!r}")
        self.tokenizer = tokenizer
        self.sequence_length = int(sequence_length)
        self.pad = pad
        self.built = True

    def token_rows(self, texts: Any) -> tf.RaggedTensor:
        """Sentences to unpadded rows `[CLS] tokens [SEP]`.

        Args:
            texts: Strings `(B,)`.

        Returns:
            RaggedTensor int32 `(B, None)`, no row longer than `sequence_length`.
        """
        return self.frame(self.tokenizer(texts))

    def frame(self, ids: tf.RaggedTensor) -> tf.RaggedTensor:
        """Token ids to unpadded rows `[CLS] tokens [SEP]`, cut to `sequence_length`.

        Args:
            ids: RaggedTensor int32 `(B, None)`, as the tokenizer makes them.

        Returns:
            RaggedTensor int32 `(B, None)`.
        """
        return frame_segments(self.tokenizer, [ids], self.sequence_length)[0]

    def pack(
        self,
        rows: tf.RaggedTensor,
        *,
        length: tf.Tensor | None = None,
        first_lengths: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """Pads rows of token ids to features.

        Args:
            rows: RaggedTensor int32 `(B, None)`, as `token_rows` makes them.
            length: T, an integer scalar. Default: determined by `pad`.
            first_lengths: int `(B,)`, the number of tokens of each row that belong to
                segment 0, as `frame_segments` returns it. Default: all.

        Returns:
            Dict of int32 `(B, T)` tensors.
        """
        import tensorflow as tf

        if length is None:
            shape: Any = [None, self.sequence_length if self.pad == "fixed" else None]
        else:
            shape = tf.stack([-1, tf.cast(length, tf.int64)])
        token_ids = rows.to_tensor(self.tokenizer.pad_token_id, shape=shape)
        token_ids = tf.ensure_shape(token_ids, [None, None])
        # By length, not by `token_ids != pad`: a text may hold the pad token's id.
        mask = tf.sequence_mask(
            rows.row_lengths(), maxlen=tf.shape(token_ids)[1], dtype=tf.int32
        )
        mask = tf.ensure_shape(mask, token_ids.shape)
        if first_lengths is None:
            segment_ids = tf.zeros_like(token_ids)
        else:
            width = tf.shape(token_ids)[1]
            segment_ids = mask - tf.sequence_mask(first_lengths, width, tf.int32)
        return {
            "token_ids": token_ids,
            "segment_ids": segment_ids,
            "padding_mask": mask,
        }

    def call(self, texts: Any) -> dict[str, tf.Tensor]:
        """See the class."""
        return self.pack(self.token_rows(texts))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, the tokenizer with its vocabulary."""
        return {
            **super().get_config(),
            "tokenizer": keras.saving.serialize_keras_object(self.tokenizer),
            "sequence_length": self.sequence_length,
            "pad": self.pad,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SentencePreprocessor:
        """Makes the layer again from `get_config`."""
        config = dict(config)
        config["tokenizer"] = keras.saving.deserialize_keras_object(config["tokenizer"])
        return cls(**config)


@keras.saving.register_keras_serializable(package="labse_tf")
class MaskedLMPreprocessor(keras.layers.Layer):
    """Sentences or pairs to masked rows for MLM and TLM.

    MLM takes sentences, `[CLS] tokens [SEP]`, all in segment 0. TLM takes pairs, each
    one sequence `[CLS] one side [SEP] other side [SEP]` in the segments 0 and 1; a
    coin a pair decides which side comes first, both sides are masked, and nothing
    says what language they are in.

    **Masking** is BERT's: of the chosen tokens 80 % become [MASK], 10 % a random
    token, 10 % stay. A row with n tokens that may be chosen gets `mask_rate * n`
    predictions, rounded up or down by chance so that the mean is exact (a row of few
    tokens may have none), and at most `max_predictions`. Special tokens are never
    chosen: [CLS], [SEP], [PAD] and, unlike in BERT's own script, [UNK], which says
    nothing about the text that it stands for. A random token is never a special
    one or an `[unusedN]`.

    **Packing** puts several sequences into one row, because at length 512 a row of one
    sentence is padding by nine tenths. `sequence_ids` number the sequences of a row
    from 1 (0 is padding; the two sides of a pair share a number), `position_ids` start
    at 0 in each, and each has its own [CLS]. No sequence is split and none is left
    out; what does not fit raises an error. There are two ways:

    - Without `rows`, sequences are packed in their order, a row being closed when the
      next one does not fit. How many rows come out depends on the text, so a dataset
      needs `.unbatch().batch(R, drop_remainder=True)` to get a static shape, and only
      by reading everything again does it know where a resumed run goes on.
    - With `rows` and `num_rows`, sequence i goes into row `rows[i]` of `num_rows`,
      which is static. `plan_rows` makes `rows` for a whole epoch from token counts
      alone; step k then is the rows k * R to (k + 1) * R of the plan, known without
      making the steps before it, and rows are filled better:

      ```python
      lengths = preprocessor.count_tokens(texts)  # once a corpus
      rows = plan_rows(lengths[order], T)  # `order`: the epoch's shuffled numbers
      chosen = np.flatnonzero(rows // R == k)
      preprocessor(texts[order][chosen], (seed, k), rows=rows[chosen] % R, num_rows=R)
      ```

    The result is a function of the texts, the seed and the arguments: no state, so a
    resumed run masks what the uninterrupted one would have masked.

    Args:
        tokenizer: A `WordPieceTokenizer`.
        sequence_length: T. A longer sentence is cut off at its end; of a longer pair
            the longer side is cut first, and both lose in turn once they are equal.
        mask_rate: Share of the tokens to predict. 0.2 is LaBSE's (section 4.1 of the
            paper), 0.15 BERT's.
        max_predictions: P, the most predictions a row. 80 is LaBSE's at length 512,
            20 BERT's at 128. It is the width of three outputs, so with short rows
            take less: about `mask_rate * sequence_length`.
        mask_token_rate: Share of the predictions whose token becomes [MASK].
        random_token_rate: Share that becomes a random token; the rest stays as it is.
        packed: Whether to put several sequences into one row. False: one each,
            and no `position_ids` or `sequence_ids`.
        **kwargs: `name` and other arguments of `keras.layers.Layer`.

    Call arguments:
        texts: Strings `(B,)` for MLM, or a tuple of two such, sources and targets, for
            TLM.
        seed: Two integers, int `(2,)`, such as `(seed, step)`. The same give the same
            result; batches of one step (MLM and TLM, say) need different ones.
        rows: int `(B,)`, the row of each sequence; only where `packed`.
        num_rows: R as a Python integer, for a static shape. Rows without a sequence
            are padding alone.

    Returns:
        Dict of `token_ids` (masked), `segment_ids`, `padding_mask` and, where packed,
        `position_ids`, `sequence_ids`, int32 `(R, T)`; `mask_positions` (ascending),
        `mask_ids` (what stood there), int32 `(R, P)`, and `mask_weights`, float32
        `(R, P)`, 1 for a prediction and 0 for padding, where the other two are 0.

    Raises:
        ValueError: If an argument is out of its range or its shape.
        tf.errors.InvalidArgumentError: If a row of `rows` is too full or is not
            one of `num_rows`, or `num_rows` are not enough.

    Example:
        >>> from labse_tf.preprocessing import MaskedLMPreprocessor
        >>> from labse_tf.tokenizers import WordPieceTokenizer
        >>> tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world"]
        >>> preprocessor = MaskedLMPreprocessor(
        ...     WordPieceTokenizer(tokens), 8, mask_rate=0.5, max_predictions=3
        ... )
        >>> features = preprocessor(["hello world", "world", "world hello"], (0, 1))
        >>> features["sequence_ids"].numpy().tolist()
        [[1, 1, 1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 0, 0, 0, 0]]
        >>> features["position_ids"].numpy().tolist()
        [[0, 1, 2, 3, 0, 1, 2, 0], [0, 1, 2, 3, 0, 0, 0, 0]]
        >>> features["mask_weights"].shape
        TensorShape([2, 3])

    References:
        Devlin et al., 2019, section 3.1 and appendix A.1
        (https://arxiv.org/abs/1810.04805); Conneau and Lample, 2019, section 3.3,
        for TLM (https://arxiv.org/abs/1901.07291); Feng et al., 2022, section 4.1
        (https://arxiv.org/abs/2007.01852).
    """

    def __init__(
        self,
        tokenizer: WordPieceTokenizer,
        sequence_length: int = 512,
        *,
        mask_rate: float = 0.2,
        max_predictions: int = 80,
        mask_token_rate: float = 0.8,
        random_token_rate: float = 0.1,
        packed: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True
        if int(sequence_length) < 5:
            raise ValueError(
                "`sequence_length` must be at least 5: [CLS], a token, [SEP], a token, "
                f"[SEP]. Received: sequence_length={sequence_length}"
            )
        if int(max_predictions) < 1:
            raise ValueError(
                "`max_predictions` must be positive. "
                f"Received: max_predictions={max_predictions}"
            )
        if not 0 <= mask_rate <= 1:
            raise ValueError(
                f"`mask_rate` must lie in 0 to 1. Received: mask_rate={mask_rate}"
            )
        if (
            min(mask_token_rate, random_token_rate) < 0
            or mask_token_rate + random_token_rate > 1 + 1e-6
        ):
            raise ValueError(
                "`mask_token_rate` and `random_token_rate` must not be negative and "
                f"not be over 1 together. Received: mask_token_rate={mask_token_rate}, "
                f"random_token_rate={random_token_rate}"
            )
        self.tokenizer = tokenizer
        self.sequence_length = int(sequence_length)
        self.mask_rate = float(mask_rate)
        self.max_predictions = int(max_predictions)
        self.mask_token_rate = float(mask_token_rate)
        self.random_token_rate = float(random_token_rate)
        self.packed = bool(packed)
        self._special_ids = [
            tokenizer.token_to_id(token) for token in tokenizer.special_tokens
        ]
        unused = re.compile(r"\[unused\d+\]").fullmatch
        never = {i for i, token in enumerate(tokenizer.vocabulary) if unused(token)}
        never.update(self._special_ids)
        self._num_replacements = tokenizer.vocabulary_size - len(never)
        # How many of the other ids come before each of these.
        self._gaps = np.array(sorted(never), np.int32) - np.arange(len(never))
        self.built = True

    def __call__(self, texts: Any, seed: Any, **kwargs: Any) -> dict[str, tf.Tensor]:
        """Takes Python strings to tensors before Keras looks at each one."""
        return super().__call__(_text_sides(texts), seed=_seed_pair(seed), **kwargs)

    def call(
        self,
        texts: Any,
        seed: Any,
        *,
        rows: Any | None = None,
        num_rows: int | None = None,
    ) -> dict[str, tf.Tensor]:
        """See the class."""
        features = self.pack(texts, seed, rows=rows, num_rows=num_rows)
        return self.mask(features, seed)

    def count_tokens(self, texts: Any) -> tf.Tensor:
        """Counts the places that sequences take in a row, without making them.

        Args:
            texts: As in the call.

        Returns:
            int32 `(B,)`, special tokens included, at most `sequence_length`.
        """
        import tensorflow as tf

        sides = _text_sides(texts)
        counts = [tf.cast(self.tokenizer(s).row_lengths(), tf.int32) for s in sides]
        return tf.minimum(tf.add_n(counts) + len(sides) + 1, self.sequence_length)

    def pack(
        self,
        texts: Any,
        seed: Any,
        *,
        rows: Any | None = None,
        num_rows: int | None = None,
    ) -> dict[str, tf.Tensor]:
        """Makes the rows that the call masks.

        Args:
            texts: As in the call.
            seed: As in the call; decides which side of a pair comes first.
            rows: As in the call.
            num_rows: As in the call.

        Returns:
            Dict of int32 `(R, T)` as in the call, with nothing masked.
        """
        import tensorflow as tf

        if rows is not None and not self.packed:
            raise ValueError(
                "`rows` goes with `packed=True`: otherwise every sequence has its own "
                "row. Received: packed=False and rows"
            )
        sides = _text_sides(texts)
        if len(sides) == 1:
            segments = [self.tokenizer(sides[0])]
        else:
            segments = self._shuffled_sides(sides[0], sides[1], seed)
        sequences, second_segment = frame_segments(
            self.tokenizer, segments, self.sequence_length
        )
        lengths = sequences.row_lengths()  # (B,)
        if not self.packed:
            rows = tf.range(sequences.nrows())
        elif rows is None:
            rows = _rows_in_order(lengths, self.sequence_length)
        else:
            rows = tf.cast(rows, tf.int64)
            rows = _checked(
                rows,
                tf.debugging.assert_equal(
                    tf.shape(rows),
                    tf.shape(lengths),
                    "`rows` must have one number for each text.",
                ),
                tf.debugging.assert_non_negative(rows, "`rows` must not be negative."),
            )
            order = tf.argsort(rows, stable=True)
            rows, lengths = tf.gather(rows, order), tf.gather(lengths, order)
            sequences = tf.gather(sequences, order)
            second_segment = tf.gather(second_segment, order)

        # From here `rows` ascends, so the tokens lie in the order of the rows.
        count = tf.reduce_max(tf.concat([rows, [-1]], axis=0)) + 1
        if num_rows is not None:
            limit = tf.constant(num_rows, tf.int64)
            count = _checked(
                limit,
                tf.debugging.assert_less_equal(
                    count, limit, "`num_rows` are not enough."
                ),
            )
        sizes = tf.math.unsorted_segment_sum(tf.ones_like(rows), rows, count)  # (R,)
        widths = tf.math.unsorted_segment_sum(lengths, rows, count)  # (R,)
        widths = _checked(
            widths,
            tf.debugging.assert_less_equal(
                widths,
                tf.constant(self.sequence_length, tf.int64),
                "`rows` puts more than `sequence_length` tokens into a row.",
            ),
        )
        first = tf.cumsum(sizes, exclusive=True)  # the first sequence of each row
        numbers = tf.range(sequences.nrows()) - tf.gather(first, rows) + 1
        position_ids = tf.ragged.range(lengths).flat_values

        def dense(values: tf.Tensor, padding: int = 0) -> tf.Tensor:
            ragged = tf.RaggedTensor.from_row_lengths(values, widths, validate=False)
            wide = ragged.to_tensor(padding, shape=[None, self.sequence_length])
            return tf.ensure_shape(
                tf.cast(wide, tf.int32), [num_rows, self.sequence_length]
            )

        sequence_ids = dense(tf.repeat(numbers, lengths))
        features = {
            "token_ids": dense(sequences.flat_values, self.tokenizer.pad_token_id),
            "segment_ids": dense(
                tf.cast(position_ids >= tf.repeat(second_segment, lengths), tf.int32)
            ),
            "padding_mask": tf.cast(sequence_ids > 0, tf.int32),
        }
        if self.packed:
            features["position_ids"] = dense(position_ids)
            features["sequence_ids"] = sequence_ids
        return features

    def mask(self, features: dict[str, tf.Tensor], seed: Any) -> dict[str, tf.Tensor]:
        """Masks rows, packed or not.

        Args:
            features: Dict with `token_ids` and `padding_mask`, int32 `(R, T)`.
            seed: As in the call.

        Returns:
            The same dict with other `token_ids`, and `mask_positions`, `mask_ids` and
            `mask_weights` as in the call.
        """
        import tensorflow as tf

        # Not KerasHub's MaskedLMMaskGenerator or TF-Text's mask_language_model, on
        # which it stands: their random numbers are stateful, so a resumed run would
        # mask other tokens; they round the number of predictions up, which makes 33 %
        # of a sentence of three; and a random token may be [CLS] or [unused7].
        def uniform(stream: int, shape: tf.Tensor) -> tf.Tensor:
            return tf.random.stateless_uniform(
                shape, _stream(seed, stream), alg="philox"
            )

        ids = features["token_ids"]
        length = ids.shape[1]
        special = tf.reduce_any(ids[:, :, None] == self._special_ids, axis=-1)
        # By place and by id: a text may hold the pad token's id.
        open_to_choice = ~special & (features["padding_mask"] > 0)  # (R, T)
        available = tf.reduce_sum(tf.cast(open_to_choice, tf.float32), axis=1)  # (R,)
        predictions = tf.floor(
            available * self.mask_rate + uniform(_COUNTS, tf.shape(available))
        )
        # The sum may be rounded up to the next integer where `mask_rate` is 1.
        predictions = tf.cast(tf.minimum(predictions, available), tf.int32)
        scores = tf.where(open_to_choice, uniform(_PLACES, tf.shape(ids)), -1.0)
        width = min(self.max_predictions, length)
        places = tf.math.top_k(scores, width).indices  # (R, P)
        places = tf.where(tf.range(width) < predictions[:, None], places, length)
        places = tf.sort(places, axis=1)
        real = places < length
        places = tf.where(real, places, 0)
        originals = tf.gather(ids, places, batch_dims=1)

        kinds = uniform(_KINDS, tf.shape(places))
        drawn = tf.random.stateless_uniform(
            tf.shape(places),
            _stream(seed, _TOKENS),
            minval=0,
            maxval=self._num_replacements,
            dtype=tf.int32,
            alg="philox",
        )
        gaps = tf.constant(self._gaps, tf.int32)
        skipped = tf.searchsorted(gaps, tf.reshape(drawn, [-1]), side="right")
        drawn += tf.reshape(skipped, tf.shape(drawn))
        changed = tf.where(
            kinds < self.mask_token_rate, self.tokenizer.mask_token_id, drawn
        )
        kept = kinds >= self.mask_token_rate + self.random_token_rate
        changed = tf.where(kept | ~real, originals, changed)
        numbers = tf.broadcast_to(tf.range(tf.shape(ids)[0])[:, None], tf.shape(places))
        # Padding writes what stands at place 0, which is never chosen, to place 0.
        token_ids = tf.tensor_scatter_nd_update(
            ids, tf.stack([numbers, places], axis=-1), changed
        )
        spare = [[0, 0], [0, self.max_predictions - width]]
        return {
            **features,
            "token_ids": token_ids,
            "mask_positions": tf.pad(places, spare),
            "mask_ids": tf.pad(tf.where(real, originals, 0), spare),
            "mask_weights": tf.pad(tf.cast(real, tf.float32), spare),
        }

    def _shuffled_sides(
        self, sources: tf.Tensor, targets: tf.Tensor, seed: Any
    ) -> list[tf.RaggedTensor]:
        """Token ids of the first and of the second side of each pair."""
        import tensorflow as tf

        sources = _checked(
            sources,
            tf.debugging.assert_equal(
                tf.shape(sources),
                tf.shape(targets),
                "`texts` must have as many sources as targets.",
            ),
        )
        tokens = self.tokenizer(tf.concat([sources, targets], axis=0))  # (2 B, None)
        pairs = tf.shape(sources, tf.int64)[0]
        heads = tf.random.stateless_uniform(
            [pairs], _stream(seed, _ORDERS), maxval=2, dtype=tf.int64, alg="philox"
        )
        first = tf.range(pairs) + heads * pairs
        second = (first + pairs) % (2 * pairs)
        return [tf.gather(tokens, first), tf.gather(tokens, second)]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, the tokenizer with its vocabulary."""
        return {
            **super().get_config(),
            "tokenizer": keras.saving.serialize_keras_object(self.tokenizer),
            "sequence_length": self.sequence_length,
            "mask_rate": self.mask_rate,
            "max_predictions": self.max_predictions,
            "mask_token_rate": self.mask_token_rate,
            "random_token_rate": self.random_token_rate,
            "packed": self.packed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MaskedLMPreprocessor:
        """Makes the layer again from `get_config`."""
        config = dict(config)
        config["tokenizer"] = keras.saving.deserialize_keras_object(config["tokenizer"])
        return cls(**config)


def frame_segments(
    tokenizer: WordPieceTokenizer,
    segments: Sequence[tf.RaggedTensor],
    length: int | tf.Tensor,
) -> tuple[tf.RaggedTensor, tf.Tensor]:
    """Makes rows `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]` of one or two segments.

    A row that is too long loses tokens at the end of the longer segment. Once both are
    equally long, they lose tokens in turn, the second segment first.

    Args:
        tokenizer: The tokenizer, for the ids of [CLS] and [SEP].
        segments: One or two RaggedTensors of token ids int32 `(B, None)`.
        length: The maximum length of a row, at least 1 + the number of segments.

    Returns:
        The rows, RaggedTensor int32 `(B, None)`, and the number of tokens of each row
        that belong to segment 0, int64 `(B,)`.

    Example:
        >>> import tensorflow as tf
        >>> from labse_tf.preprocessing import frame_segments
        >>> from labse_tf.tokenizers import WordPieceTokenizer
        >>> tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world"]
        >>> segments = [tf.ragged.constant([[5, 5, 5]]), tf.ragged.constant([[6]])]
        >>> rows, first = frame_segments(WordPieceTokenizer(tokens), segments, 6)
        >>> rows.to_list(), first.numpy().tolist()
        ([[2, 5, 5, 3, 6, 3]], [4])
    """
    import tensorflow as tf

    room = tf.cast(length, tf.int64) - 1 - len(segments)
    if len(segments) == 1:
        kept = [segments[0][:, :room]]
    else:
        first, second = (segment.row_lengths() for segment in segments)
        first = tf.minimum(first, tf.maximum((room + 1) // 2, room - second))
        second = tf.minimum(second, room - first)
        kept = [_cut(segments[0], first), _cut(segments[1], second)]
    ends = tf.ones([segments[0].nrows(), 1], tf.int32)
    parts = [ends * tokenizer.cls_token_id]
    for segment in kept:
        parts += [segment, ends * tokenizer.sep_token_id]
    return tf.concat(parts, axis=1), kept[0].row_lengths() + 2


def _cut(rows: tf.RaggedTensor, lengths: tf.Tensor) -> tf.RaggedTensor:
    """The first `lengths[i]` of each row."""
    import tensorflow as tf

    places = tf.ragged.range(rows.row_lengths()).flat_values
    keep = places < tf.repeat(lengths, rows.row_lengths())
    return tf.RaggedTensor.from_row_lengths(
        tf.boolean_mask(rows.flat_values, keep), lengths, validate=False
    )


def plan_rows(lengths: Any, sequence_length: int) -> NDArray[np.int32]:
    """Says which row each sequence goes into, so that the rows are full.

    Best fit: a sequence goes into the fullest of all rows begun that has room for it,
    or begins a new one. A function of the lengths alone, at about a million a second.

    Args:
        lengths: int `(N,)`, as `MaskedLMPreprocessor.count_tokens` gives them, in the
            order in which the sequences are drawn.
        sequence_length: T, the places of a row.

    Returns:
        int32 `(N,)`, row numbers from 0 without a gap, numbered as they were begun.

    Raises:
        ValueError: If a length is not in 1 to `sequence_length`.

    Example:
        >>> from labse_tf.preprocessing import plan_rows
        >>> plan_rows([5, 4, 6, 3, 1, 2], 8).tolist()
        [0, 1, 2, 0, 2, 1]
    """
    lengths = np.asarray(lengths)
    if lengths.size and not (1 <= lengths.min() and lengths.max() <= sequence_length):
        raise ValueError(
            "`lengths` must lie in 1 to `sequence_length`. Received: "
            f"{lengths.min()} to {lengths.max()}, sequence_length={sequence_length}"
        )
    rows = np.empty(len(lengths), np.int32)
    begun: list[list[int]] = [[] for _ in range(sequence_length + 1)]  # by room left
    rooms = 0  # bit r is set where `begun[r]` has a row: the best fit is one shift
    count = 0
    for number, length in enumerate(lengths.tolist()):
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = begun[room].pop()
            if not begun[room]:
                rooms ^= 1 << room
        else:
            room, row = sequence_length, count
            count += 1
        rows[number] = row
        if room > length:
            begun[room - length].append(row)
            rooms |= 1 << (room - length)
    return rows


def _text_sides(texts: Any) -> tuple[tf.Tensor, ...]:
    """One string tensor `(B,)` for sentences, two for a tuple of sides."""
    pair = isinstance(texts, tuple) and not any(
        isinstance(side, (str, bytes)) for side in texts
    )
    if pair and len(texts) not in (1, 2):
        raise ValueError(
            "`texts` must be strings, or a tuple of sources and targets. "
            f"Received: a tuple of {len(texts)}"
        )
    return tuple(to_strings(side) for side in (texts if pair else (texts,)))


def _seed_pair(seed: Any) -> tf.Tensor:
    """Makes int64 `(2,)` of two integers, Python's or a tensor's."""
    import tensorflow as tf

    if isinstance(seed, (tuple, list)):
        seed = tf.stack(
            [
                tf.cast(part, tf.int64)
                if tf.is_tensor(part)
                else tf.constant(part, tf.int64)
                for part in seed
            ]
        )
    seed = tf.cast(seed, tf.int64)
    if seed.shape != (2,):
        raise ValueError(
            "`seed` must be two integers, such as `(seed, step)`. "
            f"Received: shape {seed.shape}"
        )
    return seed


def _stream(seed: Any, number: int) -> tf.Tensor:
    """The seed of one of the draws."""
    import tensorflow as tf

    return tf.random.fold_in(
        _seed_pair(seed), tf.constant(number, tf.int64), alg="philox"
    )


def _checked(tensor: tf.Tensor, *checks: Any) -> tf.Tensor:
    """The tensor once the checks have passed, or other ops may fail before them."""
    import tensorflow as tf

    with tf.control_dependencies([check for check in checks if check is not None]):
        return tf.identity(tensor)


def _rows_in_order(lengths: tf.Tensor, sequence_length: int) -> tf.Tensor:
    """The row of each sequence when a row ends where the next one does not fit.

    The sequence that opens a row says which one opens the next, so the openers are
    what can be reached from sequence 0. Doubling the step finds them in log2(B) rounds
    of whole-batch operations, where a loop over sequences takes B.

    Args:
        lengths: int64 `(B,)`, none over `sequence_length`.
        sequence_length: T.

    Returns:
        int64 `(B,)`, ascending from 0.
    """
    import tensorflow as tf

    ends = tf.cumsum(lengths)
    limits = ends - lengths + sequence_length
    count = tf.size(lengths, tf.int64)
    # What opens the next row if i opens one; B stands for the end and leads to itself.
    jumps = tf.searchsorted(ends, limits, side="right", out_type=tf.int64)
    jumps = tf.concat([jumps, [count]], axis=0)
    opens = tf.cast(tf.range(count + 1) == 0, tf.int64)

    def double(
        span: tf.Tensor, opens: tf.Tensor, jumps: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        reached = tf.math.unsorted_segment_max(opens, jumps, count + 1)
        return 2 * span, tf.maximum(opens, reached), tf.gather(jumps, jumps)

    _, opens, _ = tf.while_loop(
        lambda span, *_: span <= count,
        double,
        (tf.constant(1, tf.int64), opens, jumps),
    )
    return tf.cumsum(opens[:-1]) - 1
