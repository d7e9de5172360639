"""Preprocessing: text to int32 features of the encoder, with or without masking.

`SentencePreprocessor` is for embeddings. `MaskedLMPreprocessor` is for pre-training;
`plan_rows` fills its rows.

Shapes: B = sentences or pairs, T = length in tokens, R = rows of several sentences, P =
predictions per row. A feature dict holds `token_ids`, `segment_ids` and `padding_mask`,
each int32 `(B, T)`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

from labse_tf.tokenizers import Tokenizer
from labse_tf.tokenizers.layer import to_strings

if TYPE_CHECKING:
    import tensorflow as tf

PADS = ("longest", "fixed")

# Random draws of MaskedLMPreprocessor; each has a separate stream.
_ORDERS, _COUNTS, _PLACES, _KINDS, _TOKENS = range(5)


@keras.saving.register_keras_serializable(package="labse_tf")
class SentencePreprocessor(keras.layers.Layer):
    """Layer that converts sentences to padded rows `[CLS] tokens [SEP]`.

    Runs in the graph: in `tf.data`, in a `tf.function`, in an exported SavedModel.

    Args:
        tokenizer: A tokenizer of `labse_tf.tokenizers`.
        sequence_length: Maximum number of tokens per row, including [CLS] and [SEP].
            Longer sentences are truncated. 64 is the paper's length for dual-encoder
            training (v1, section 3.4).
        pad: `"longest"`: to the longest row of the batch, which is several times faster
            on CPU and GPU. `"fixed"`: to `sequence_length`, the static shape that a TPU
            needs.
        prefix: Text before each sentence, such as `"query: "` for the E5 models. Its
            tokens count as tokens of the row.
        **kwargs: `name` and other arguments of `keras.layers.Layer`.

    Call arguments:
        texts: Strings `(B,)`: a list, a NumPy array or a tensor.

    Returns:
        Dict of int32 `(B, T)` tensors: `token_ids`, `segment_ids` (all 0),
        `padding_mask` (1 for tokens, 0 for padding).

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
        tokenizer: Tokenizer,
        sequence_length: int = 64,
        *,
        pad: str = "longest",
        prefix: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True
        if not isinstance(prefix, str):
            raise ValueError(f"`prefix` must be a string. Received: prefix={prefix!r}")
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
        self.prefix = prefix
        self.built = True

    @property
    def room(self) -> int:
        """Maximum number of tokens of a text, without [CLS] and [SEP]."""
        return self.sequence_length - len(self.tokenizer.start_token_ids) - 1

    def copy(
        self,
        *,
        tokenizer: Tokenizer | None = None,
        sequence_length: int | None = None,
        prefix: str | None = None,
    ) -> SentencePreprocessor:
        """Return a preprocessor with some other settings.

        Args:
            tokenizer: The tokenizer (default: the same).
            sequence_length: The maximum length (default: the same).
            prefix: The prefix (default: the same).

        Returns:
            A new preprocessor; its other settings are the same.
        """
        return SentencePreprocessor(
            self.tokenizer if tokenizer is None else tokenizer,
            self.sequence_length if sequence_length is None else sequence_length,
            pad=self.pad,
            prefix=self.prefix if prefix is None else prefix,
        )

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments after the first two, as JSON values.

        Without an empty prefix, which earlier versions do not know.
        """
        prefix = {"prefix": self.prefix} if self.prefix else {}
        return {"pad": self.pad, **prefix}

    def tokenize(self, texts: Any) -> tf.RaggedTensor:
        """Split strings `(B,)`, after the prefix, into ids without [CLS] and [SEP].

        Returns:
            RaggedTensor int32 `(B, None)`, not truncated.
        """
        if self.prefix:
            texts = self.prefix + to_strings(texts)
        return self.tokenizer(texts)

    def token_rows(self, texts: Any) -> tf.RaggedTensor:
        """Convert strings `(B,)` to unpadded rows `[CLS] tokens [SEP]`.

        Returns:
            RaggedTensor int32 `(B, None)`, at most `sequence_length` tokens per row.
        """
        return self.frame(self.tokenize(texts))

    def frame(self, ids: tf.RaggedTensor) -> tf.RaggedTensor:
        """Convert the ids of `tokenize` to the unpadded rows of `token_rows`."""
        return frame_segments(self.tokenizer, [ids], self.sequence_length)[0]

    def pack(
        self,
        rows: tf.RaggedTensor,
        *,
        length: tf.Tensor | None = None,
        first_lengths: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """Pad rows of token ids and return the features.

        Args:
            rows: RaggedTensor int32 `(B, None)`, the output of `token_rows`.
            length: T, an integer scalar. Default: determined by `pad`.
            first_lengths: int `(B,)`, the number of tokens of each row in segment 0, as
                returned by `frame_segments`. Default: all tokens.

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
        # By length, not by `token_ids != pad`: a text may contain the pad token's id.
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
        """Convert sentences to features; see the class."""
        return self.pack(self.token_rows(texts))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, including the vocabulary."""
        return {
            **super().get_config(),
            "tokenizer": keras.saving.serialize_keras_object(self.tokenizer),
            "sequence_length": self.sequence_length,
            **self.settings(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SentencePreprocessor:
        """Create the layer from the result of `get_config`."""
        config = dict(config)
        config["tokenizer"] = keras.saving.deserialize_keras_object(config["tokenizer"])
        return cls(**config)


@keras.saving.register_keras_serializable(package="labse_tf")
class MaskedLMPreprocessor(keras.layers.Layer):
    """Layer that converts sentences or pairs to masked rows for MLM and TLM.

    MLM takes sentences, `[CLS] tokens [SEP]`, all in segment 0. TLM takes pairs, each
    as one sequence `[CLS] one side [SEP] other side [SEP]` with segments 0 and 1. The
    order of the two sides is random. Both sides are masked, and no feature identifies
    the languages.

    **Masking** is BERT's: 80 % of the chosen tokens become [MASK], 10 % become a random
    token, 10 % stay unchanged. A row with n tokens that can be chosen gets
    `mask_rate * n` predictions, rounded up or down at random so that the mean is exact
    (a short row may have no predictions), and at most `max_predictions`. Special tokens
    are never chosen: [CLS], [SEP], [PAD] and, unlike in BERT's own script, [UNK], which
    carries no information about its text. A random token is never a special token or an
    `[unusedN]`.

    **Packing** puts several sequences into one row, because a row of length 512 with
    one sentence is nine tenths padding. `sequence_ids` number the sequences of a row
    from 1 (0 is padding; both sides of a pair share a number), `position_ids` start at
    0 in each sequence, and each sequence has its own [CLS]. Sequences are never split
    or dropped; an error is raised if they do not fit. There are two ways:

    - Without `rows`, sequences are packed in their order, and a row ends when the next
      sequence does not fit. The number of rows depends on the text, so a dataset needs
      `.unbatch().batch(R, drop_remainder=True)` for a static shape, and a resumed run
      must read all data again to find its position.
    - With `rows` and `num_rows`, sequence i is written to row `rows[i]` of `num_rows`,
      which is static. `plan_rows` computes `rows` for a whole epoch from token counts
      alone. Step k then consists of rows k * R to (k + 1) * R of the plan, independent
      of earlier steps, and rows contain less padding:

      ```python
      lengths = preprocessor.count_tokens(texts)  # once per corpus
      rows = plan_rows(lengths[order], T)  # `order`: the epoch's shuffled indices
      chosen = np.flatnonzero(rows // R == k)
      preprocessor(texts[order][chosen], (seed, k), rows=rows[chosen] % R, num_rows=R)
      ```

    The result depends only on the texts, the seed and the arguments. The layer has no
    state, so a resumed run masks the same tokens as an uninterrupted run.

    Args:
        tokenizer: A `WordPieceTokenizer` or `SentencePieceTokenizer`.
        sequence_length: T. A longer sentence is truncated at its end. For a longer pair
            see `frame_segments`.
        mask_rate: Share of the tokens to predict. 0.2 is LaBSE's (section 4.1 of the
            paper), 0.15 BERT's.
        max_predictions: P, the maximum number of predictions per row. 80 is LaBSE's at
            length 512, 20 BERT's at 128. It is the width of three outputs, so use less
            for short rows: about `mask_rate * sequence_length`.
        mask_token_rate: Share of the predictions whose token becomes [MASK].
        random_token_rate: Share of the predictions whose token becomes a random token;
            the other tokens stay unchanged.
        packed: Whether to put several sequences into one row. False: one sequence per
            row, and no `position_ids` or `sequence_ids`.
        **kwargs: `name` and other arguments of `keras.layers.Layer`.

    Call arguments:
        texts: Strings `(B,)` for MLM, or a tuple of two such batches, sources and
            targets, for TLM.
        seed: Two integers, int `(2,)`, such as `(seed, step)`. The same seed gives the
            same result; batches of one step (MLM and TLM, for example) need different
            seeds.
        rows: int `(B,)`, the row of each sequence; only with `packed`.
        num_rows: R as a Python integer, for a static shape. Rows without a sequence
            contain only padding.

    Returns:
        Dict of `token_ids` (masked), `segment_ids`, `padding_mask` and, if packed,
        `position_ids`, `sequence_ids`, int32 `(R, T)`; `mask_positions` (ascending),
        `mask_ids` (the original tokens), int32 `(R, P)`, and `mask_weights`, float32
        `(R, P)`, 1 for a prediction and 0 for padding, where the other two are 0.

    Raises:
        ValueError: If an argument has a wrong value or shape.
        tf.errors.InvalidArgumentError: If a row of `rows` is too full or not less than
            `num_rows`, or `num_rows` is too small.

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
        tokenizer: Tokenizer,
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
                f"`mask_rate` must be from 0 to 1. Received: mask_rate={mask_rate}"
            )
        if (
            min(mask_token_rate, random_token_rate) < 0
            or mask_token_rate + random_token_rate > 1 + 1e-6
        ):
            raise ValueError(
                "`mask_token_rate` and `random_token_rate` must not be negative, and "
                "their sum must be at most 1. Received: "
                f"mask_token_rate={mask_token_rate}, "
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
        # Number of ids that can be drawn before each id that cannot.
        self._gaps = np.array(sorted(never), np.int32) - np.arange(len(never))
        self.built = True

    def __call__(self, texts: Any, seed: Any, **kwargs: Any) -> dict[str, tf.Tensor]:
        """Convert Python strings to tensors before Keras inspects each string."""
        return super().__call__(_text_sides(texts), seed=_seed_pair(seed), **kwargs)

    def call(
        self,
        texts: Any,
        seed: Any,
        *,
        rows: Any | None = None,
        num_rows: int | None = None,
    ) -> dict[str, tf.Tensor]:
        """Pack and mask texts; see the class."""
        features = self.pack(texts, seed, rows=rows, num_rows=num_rows)
        return self.mask(features, seed)

    def count_tokens(self, texts: Any) -> tf.Tensor:
        """Return the number of tokens of each sequence, without packing.

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
        """Pack texts into rows without masking; see the class for arguments and result.

        The seed determines which side of a pair comes first.
        """
        import tensorflow as tf

        if rows is not None and not self.packed:
            raise ValueError(
                "`rows` requires `packed=True`: otherwise every sequence has its own "
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
                    "`rows` must have one row index per text.",
                ),
                tf.debugging.assert_non_negative(rows, "`rows` must not be negative."),
            )
            order = tf.argsort(rows, stable=True)
            rows, lengths = tf.gather(rows, order), tf.gather(lengths, order)
            sequences = tf.gather(sequences, order)
            second_segment = tf.gather(second_segment, order)

        # From here `rows` ascends, so the tokens are in the order of the rows.
        count = tf.reduce_max(tf.concat([rows, [-1]], axis=0)) + 1
        if num_rows is not None:
            limit = tf.constant(num_rows, tf.int64)
            count = _checked(
                limit,
                tf.debugging.assert_less_equal(
                    count, limit, "`num_rows` is too small for the sequences."
                ),
            )
        sizes = tf.math.unsorted_segment_sum(tf.ones_like(rows), rows, count)  # (R,)
        widths = tf.math.unsorted_segment_sum(lengths, rows, count)  # (R,)
        widths = _checked(
            widths,
            tf.debugging.assert_less_equal(
                widths,
                tf.constant(self.sequence_length, tf.int64),
                "`rows` assigns more than `sequence_length` tokens to a row.",
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
        """Mask rows, packed or not.

        Args:
            features: Dict with `token_ids` and `padding_mask`, int32 `(R, T)`.
            seed: See the class.

        Returns:
            The same dict, masked, with the three `mask_*` outputs of the class.
        """
        import tensorflow as tf

        # Not KerasHub's MaskedLMMaskGenerator or the mask_language_model of TF-Text
        # that it calls. Their random numbers are stateful, so a resumed run would mask
        # other tokens. They round the number of predictions up: 33 % of three tokens.
        # And their random token may be [CLS] or [unused7].
        def uniform(stream: int, shape: tf.Tensor) -> tf.Tensor:
            return tf.random.stateless_uniform(
                shape, _stream(seed, stream), alg="philox"
            )

        ids = features["token_ids"]
        length = ids.shape[1]
        special = tf.reduce_any(ids[:, :, None] == self._special_ids, axis=-1)
        # By position and by id: a text may contain the pad token's id.
        open_to_choice = ~special & (features["padding_mask"] > 0)  # (R, T)
        available = tf.reduce_sum(tf.cast(open_to_choice, tf.float32), axis=1)  # (R,)
        predictions = tf.floor(
            available * self.mask_rate + uniform(_COUNTS, tf.shape(available))
        )
        # The sum may be rounded up to the next integer if `mask_rate` is 1.
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
        # Padding rewrites the token at position 0, which is never chosen.
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
        """Return token ids of the pairs' first and second sides, in random order."""
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
        """Return the constructor's arguments, including the vocabulary."""
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
        """Create the layer from the result of `get_config`."""
        config = dict(config)
        config["tokenizer"] = keras.saving.deserialize_keras_object(config["tokenizer"])
        return cls(**config)


def frame_segments(
    tokenizer: Tokenizer,
    segments: Sequence[tf.RaggedTensor],
    length: int | tf.Tensor,
) -> tuple[tf.RaggedTensor, tf.Tensor]:
    """Return rows `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]` of one or two segments.

    Without a [CLS] token, rows start with the first segment.

    A row that is too long loses tokens at the end of the longer segment. Once both
    segments have the same length, they lose tokens alternately, the second segment
    first.

    Args:
        tokenizer: The tokenizer, for the ids of [CLS] and [SEP].
        segments: One or two RaggedTensors of token ids int32 `(B, None)`.
        length: The maximum length of a row, at least 1 + the number of segments.

    Returns:
        The rows, RaggedTensor int32 `(B, None)`, and the number of tokens of each row
        in segment 0, int64 `(B,)`.

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

    starts = tokenizer.start_token_ids
    room = tf.cast(length, tf.int64) - len(starts) - len(segments)
    if len(segments) == 1:
        kept = [segments[0][:, :room]]
    else:
        first, second = (segment.row_lengths() for segment in segments)
        first = tf.minimum(first, tf.maximum((room + 1) // 2, room - second))
        second = tf.minimum(second, room - first)
        kept = [_cut(segments[0], first), _cut(segments[1], second)]
    ends = tf.ones([segments[0].nrows(), 1], tf.int32)
    parts = [ends * start for start in starts]
    for segment in kept:
        parts += [segment, ends * tokenizer.sep_token_id]
    return tf.concat(parts, axis=1), kept[0].row_lengths() + len(starts) + 1


def _cut(rows: tf.RaggedTensor, lengths: tf.Tensor) -> tf.RaggedTensor:
    """Return the first `lengths[i]` tokens of each row i."""
    import tensorflow as tf

    places = tf.ragged.range(rows.row_lengths()).flat_values
    keep = places < tf.repeat(lengths, rows.row_lengths())
    return tf.RaggedTensor.from_row_lengths(
        tf.boolean_mask(rows.flat_values, keep), lengths, validate=False
    )


def plan_rows(lengths: Any, sequence_length: int) -> NDArray[np.int32]:
    """Return the row of each sequence, chosen so that rows contain little padding.

    Best fit: a sequence is added to the fullest open row with enough room, or starts a
    new row. Only the lengths matter. Speed: about one million sequences per second.

    Args:
        lengths: int `(N,)`, the result of `MaskedLMPreprocessor.count_tokens`, in the
            order in which the sequences are drawn.
        sequence_length: T, the length of a row.

    Returns:
        int32 `(N,)`, row indices from 0 without gaps, by the first sequence of each
        row.

    Raises:
        ValueError: If a length is not from 1 to `sequence_length`.

    Example:
        >>> from labse_tf.preprocessing import plan_rows
        >>> plan_rows([5, 4, 6, 3, 1, 2], 8).tolist()
        [0, 1, 2, 0, 2, 1]
    """
    lengths = np.asarray(lengths)
    if lengths.size and not (1 <= lengths.min() and lengths.max() <= sequence_length):
        raise ValueError(
            "`lengths` must be from 1 to `sequence_length`. Received: "
            f"{lengths.min()} to {lengths.max()}, sequence_length={sequence_length}"
        )
    rows = np.empty(len(lengths), np.int32)
    begun: list[list[int]] = [[] for _ in range(sequence_length + 1)]  # by room left
    rooms = 0  # bit r is set if `begun[r]` has a row: the best fit is one shift
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
    """Return one string tensor `(B,)` for sentences, two for a tuple of sides."""
    pair = isinstance(texts, tuple) and not any(
        isinstance(side, (str, bytes)) for side in texts
    )
    if pair and len(texts) not in (1, 2):
        raise ValueError(
            "`texts` must be strings or a tuple of sources and targets. "
            f"Received: a tuple of {len(texts)}"
        )
    return tuple(to_strings(side) for side in (texts if pair else (texts,)))


def _seed_pair(seed: Any) -> tf.Tensor:
    """Convert two integers (Python's or a tensor's) to int64 `(2,)`."""
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
    """Return the seed of one random draw."""
    import tensorflow as tf

    return tf.random.fold_in(
        _seed_pair(seed), tf.constant(number, tf.int64), alg="philox"
    )


def _checked(tensor: tf.Tensor, *checks: Any) -> tf.Tensor:
    """Return the tensor after the checks, before other ops can fail."""
    import tensorflow as tf

    with tf.control_dependencies([check for check in checks if check is not None]):
        return tf.identity(tensor)


def _rows_in_order(lengths: tf.Tensor, sequence_length: int) -> tf.Tensor:
    """Return the row of each sequence if a row ends where the next one does not fit.

    The sequence that starts a row determines which sequence starts the next row, so the
    starts are the sequences that can be reached from sequence 0. Doubling the step
    finds them in log2(B) rounds of whole-batch operations; a loop over sequences takes
    B rounds.

    Args:
        lengths: int64 `(B,)`, at most `sequence_length` each.
        sequence_length: T.

    Returns:
        int64 `(B,)`, ascending from 0.
    """
    import tensorflow as tf

    ends = tf.cumsum(lengths)
    limits = ends - lengths + sequence_length
    count = tf.size(lengths, tf.int64)
    # jumps[i] starts the next row if i starts a row. B is the end and jumps to itself.
    jumps = tf.searchsorted(ends, limits, side="right", out_type=tf.int64)
    jumps = tf.concat([jumps, [count]], axis=0)
    opens = tf.cast(tf.range(count + 1) == 0, tf.int64)

    def double(
        span: tf.Tensor, opens: tf.Tensor, jumps: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        reached = tf.math.unsorted_segment_max(opens, jumps, count + 1)
        return 2 * span, tf.maximum(opens, reached), tf.gather(jumps, jumps)

    _, opens, _ = tf.while_loop(
        lambda span, *_: span <= count, double, (tf.constant(1, tf.int64), opens, jumps)
    )
    return tf.cumsum(opens[:-1]) - 1
