"""Optimizers: BERT's AdamW, its lazy form for large token tables, and a schedule."""

from __future__ import annotations

import re
import types
from typing import Any

import keras
from keras import ops

from labse_tf.distribute import sum_over_replicas
from labse_tf.variables import TOKEN_TABLE, has_no_value, no_value

# Biases and the two weights of a layer normalization. Keras searches for this pattern
# in the name of a variable: on TensorFlow "pooler/bias:0", on other backends "bias".
_NOT_DECAYED = r"(^|/)(bias|gamma|beta)(:\d+)?$"


@keras.saving.register_keras_serializable(package="labse_tf")
class WarmupLinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Schedule that rises linearly from 0, then falls linearly to 0 at the last step.

    Args:
        learning_rate: The peak, reached at `warmup_steps`.
        train_steps: Step at which the rate is 0 again; it stays 0 afterwards.
        warmup_steps: Number of rising steps; 0 starts at the peak.

    Raises:
        ValueError: If `warmup_steps` is negative or not less than `train_steps`.

    Example:
        >>> from labse_tf.optimizers import WarmupLinearDecay
        >>> schedule = WarmupLinearDecay(1.0, train_steps=30, warmup_steps=10)
        >>> [round(float(schedule(step)), 2) for step in (0, 5, 10, 20, 30)]
        [0.0, 0.5, 1.0, 0.5, 0.0]

    References:
        Feng et al., 2022, section 4.2: AdamW with linear decay
        (https://arxiv.org/abs/2007.01852).
    """

    def __init__(
        self, learning_rate: float, train_steps: int, *, warmup_steps: int = 0
    ) -> None:
        super().__init__()
        if not 0 <= warmup_steps < train_steps:
            raise ValueError(
                "`warmup_steps` must be at least 0 and less than `train_steps`. "
                f"Received: warmup_steps={warmup_steps}, train_steps={train_steps}"
            )
        self.learning_rate = float(learning_rate)
        self.train_steps = int(train_steps)
        self.warmup_steps = int(warmup_steps)

    def __call__(self, step: Any) -> Any:
        """Return the float32 learning rate of a step."""
        step = ops.cast(step, "float32")
        left = (self.train_steps - step) / (self.train_steps - self.warmup_steps)
        rate = ops.clip(left, 0.0, 1.0)
        if self.warmup_steps:
            rate = ops.minimum(rate, step / self.warmup_steps)
        return self.learning_rate * rate

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "learning_rate": self.learning_rate,
            "train_steps": self.train_steps,
            "warmup_steps": self.warmup_steps,
        }


@keras.saving.register_keras_serializable(package="labse_tf")
class AdamW(keras.optimizers.AdamW):
    """AdamW with the same result on N replicas as on one device, even with clipping.

    Keras clips the gradients of each replica before it sums them, so its limit depends
    on the number of replicas. This class sums first. `not_decayed` is a constructor
    argument, so it is saved with the optimizer, and a decay of 0 costs nothing.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: Multiplied by the learning rate; 0 for none.
        not_decayed: Pattern; variables whose name contains it do not decay. `None`: all
            variables decay.
        skip_nonfinite: Whether to skip a step whose gradients, summed over the
            replicas, are not all finite. A skipped step changes nothing, including
            moments and step count; `skipped` counts it. TensorFlow only.
        name: Name of the optimizer.
        **kwargs: Other arguments of `keras.optimizers.AdamW`.

    Raises:
        ValueError: If `skip_nonfinite` is set on another backend.

    Example:
        >>> from labse_tf.optimizers import AdamW
        >>> AdamW(1e-3, not_decayed="bias").get_config()["not_decayed"]
        'bias'
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 1e-3,
        weight_decay: float = 0.0,
        *,
        not_decayed: str | None = None,
        skip_nonfinite: bool = False,
        name: str = "adamw",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate, weight_decay=weight_decay, name=name, **kwargs
        )
        if skip_nonfinite and keras.backend.backend() != "tensorflow":
            raise ValueError(
                "`skip_nonfinite` needs the TensorFlow backend. Received: "
                f"skip_nonfinite=True on {keras.backend.backend()}"
            )
        self.skip_nonfinite = skip_nonfinite
        self.not_decayed = not_decayed
        if not_decayed is not None:
            self.exclude_from_weight_decay(var_names=[not_decayed])

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update the variables.

        Args:
            grads: Tensors, `tf.IndexedSlices` or `None`, one per variable.
            trainable_variables: The variables (default: those passed to `build`).
        """
        if keras.backend.backend() == "tensorflow":
            grads = self._total(grads)
        if self.skip_nonfinite:
            self._apply_if_finite(grads, trainable_variables)
        else:
            super().apply(grads, trainable_variables)

    def build(self, variables: Any) -> None:
        """Create the moments and the counter of skipped steps."""
        super().build(variables)
        if self.skip_nonfinite:
            count = keras.Variable(
                0, dtype="int64", trainable=False, aggregation="only_first_replica"
            )
            # Hidden from Keras and so from checkpoints: a run can resume with or
            # without `skip_nonfinite`.
            self._skips = types.SimpleNamespace(count=count)

    def add_variable_from_reference(
        self,
        reference_variable: Any,
        name: str | None = None,
        initializer: Any = "zeros",
    ) -> Any:
        """Create a moment; see `keras.optimizers.Optimizer`."""
        if has_no_value() and reference_variable.path.endswith(TOKEN_TABLE):
            initializer = no_value
        return super().add_variable_from_reference(
            reference_variable, name=name, initializer=initializer
        )

    @property
    def skipped(self) -> int:
        """Number of steps skipped since the optimizer was built."""
        if not (self.skip_nonfinite and self.built):
            return 0
        return int(ops.convert_to_numpy(self._skips.count))

    def _apply_if_finite(self, grads: list[Any], variables: Any) -> None:
        """Update the variables or nothing, by one decision for all replicas.

        With mirrored replicas a branch that calls the optimizer must be outside the
        replicas, as in Keras's own `LossScaleOptimizer`.
        """
        import tensorflow as tf

        if not self.built:
            self.build(variables)
        values = [g.values if _is_rows(g) else g for g in grads if g is not None]
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(v)) for v in values])
        self._skips.count.assign_add(1 - ops.cast(finite, "int64"))
        apply = super().apply
        if tf.__internal__.distribute.strategy_supports_no_merge_call():
            tf.cond(finite, lambda: apply(grads, variables), lambda: None)
            return

        def across(strategy: Any, finite: Any, grads: Any) -> None:
            decision = strategy.experimental_local_results(finite)[0]
            each = strategy.extended.call_for_each_replica
            tf.cond(decision, lambda: each(apply, (grads, variables)), lambda: None)

        tf.distribute.get_replica_context().merge_call(across, args=(finite, grads))

    def _total(self, grads: Any) -> list[Any]:
        """Return the gradients of the global batch, dense.

        Keras squares a sparse gradient slice by slice. A token that occurs n times in a
        batch would get the sum of n squares instead of the square of the sum.
        """
        import tensorflow as tf

        return [
            tf.convert_to_tensor(gradient) if _is_rows(gradient) else gradient
            for gradient in _sum_over_replicas(grads)
        ]

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        """Return the input: `apply` has summed over the replicas, before clipping."""
        return grads_and_vars

    def _apply_weight_decay(self, variables: Any) -> None:
        """Skip a decay of 0, for which Keras would read and write every weight."""
        if self.weight_decay:
            super()._apply_weight_decay(variables)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "not_decayed": self.not_decayed,
            "skip_nonfinite": self.skip_nonfinite,
        }


@keras.saving.register_keras_serializable(package="labse_tf")
class LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """Keras's loss scaling for float16, with one decision for all replicas.

    If gradients overflow on any replica, the step is skipped and the scale is halved.
    Keras checks one replica only, so an overflow on another one would reach the
    weights.

    Args:
        inner_optimizer: A Keras optimizer.
        **kwargs: See `keras.optimizers.LossScaleOptimizer`.
    """

    def check_finite(self, grads: Any) -> Any:
        """Return as bool scalar whether all gradients are finite on all replicas."""
        bad = ops.logical_not(super().check_finite(grads))
        return ops.equal(sum_over_replicas(ops.cast(bad, "float32")), 0.0)


# Tables that are updated lazily although their gradients are dense, by path.
_TABLES = r"(^|/)((token|segment)_embedding|token_weights)/embeddings$"


@keras.saving.register_keras_serializable(package="labse_tf")
class LazyAdamW(AdamW):
    """AdamW that updates only the table rows that a batch looks up.

    A batch of 512 pairs contains a few thousand of up to 501,153 tokens. Dense AdamW
    still reads and writes the whole table and both moments, and applies the decay, at
    every step. TensorFlow returns the gradient of a looked-up table as
    `tf.IndexedSlices`, and this optimizer keeps it sparse: repeated rows are summed,
    the norm for clipping is computed from the sums, and the rows that occur get AdamW's
    moments, decay and update. All other rows and their moments stay unchanged. Nothing
    of the size of the table is allocated, so the cost of a step does not depend on the
    vocabulary size.

    The result differs from dense AdamW, where a row continues to move after its last
    occurrence (by its momentum) and decays at every step. Here the row of a rare token
    is not updated between its occurrences. Bias correction uses the number of all
    steps, not of the updates of the row. A dense gradient (of a kernel, or of a table
    that is also the output of a masked-LM head) gets Keras's AdamW.

    Backends without `IndexedSlices`, such as JAX, have dense gradients. There, for
    variables that match `tables`, rows whose gradient is all zero are not updated. The
    result is the same, except for tokens that occur with a gradient of exactly 0, such
    as padding (they decay on TensorFlow); the cost is that of dense AdamW. A step with
    lazy rows does not compile with XLA (`jit_compile=True`, TPUs): use dense AdamW
    there.

    The variables are those of `keras.optimizers.AdamW` in the same order, so either
    optimizer resumes from the other's checkpoint.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: Multiplied by the learning rate; 0 for none.
        beta_1: Decay of the first moment.
        beta_2: Decay of the second moment.
        epsilon: Added to the root of the second moment.
        clipnorm: Largest norm of each gradient. At most one limit can be set.
        clipvalue: Largest element of a gradient.
        global_clipnorm: Largest norm of all gradients together.
        not_decayed: See `AdamW`.
        skip_nonfinite: See `AdamW`.
        tables: Pattern that the path of a variable must contain; only used on backends
            without `IndexedSlices`.
        name: Name of the optimizer.

    Example:
        >>> import keras
        >>> from labse_tf.optimizers import LazyAdamW
        >>> optimizer = LazyAdamW(1e-3, weight_decay=0.01, global_clipnorm=1.0)
        >>> isinstance(optimizer, keras.optimizers.Optimizer)
        True

    References:
        Loshchilov and Hutter, 2019 (https://arxiv.org/abs/1711.05101); the rule for
        rows is that of TensorFlow Addons' `LazyAdam`:
        https://www.tensorflow.org/addons/api_docs/python/tfa/optimizers/LazyAdam.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 1e-3,
        weight_decay: float = 0.0,
        *,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        not_decayed: str | None = None,
        skip_nonfinite: bool = False,
        tables: str = _TABLES,
        name: str = "lazy_adamw",
    ) -> None:
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            not_decayed=not_decayed,
            skip_nonfinite=skip_nonfinite,
            name=name,
        )
        self.tables = tables

    def _total(self, grads: Any) -> list[Any]:
        """Return the gradients of the global batch, each row once."""
        return [sum_repeated_rows(gradient) for gradient in _sum_over_replicas(grads)]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable and its moments.

        Args:
            gradient: Tensor, or `tf.IndexedSlices` with unique indices as from `apply`.
            variable: A variable that the optimizer was built for.
            learning_rate: Learning rate of this step.
        """
        if _is_rows(gradient):
            self._update_rows(gradient, variable, learning_rate)
        elif keras.backend.backend() != "tensorflow" and re.search(
            self.tables, variable.path
        ):
            self._update_masked(gradient, variable, learning_rate)
        else:
            if self._decays(variable):
                rate = ops.cast(learning_rate, variable.dtype)
                self.assign_sub(variable, variable * self.weight_decay * rate)
            super().update_step(gradient, variable, learning_rate)

    def _update_rows(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Read, change and write the rows of an `IndexedSlices`."""
        import tensorflow as tf

        # Wait for the end of the forward pass: while another op still reads the
        # table, a write to single rows would copy the whole table.
        with tf.control_dependencies([gradient.values]):
            rows = tf.identity(gradient.indices)
        index = self._get_variable_index(variable)
        stored = (variable, self._momentums[index].value, self._velocities[index].value)
        new = self._adamw(
            tf.cast(gradient.values, variable.dtype),
            *(tf.gather(table, rows) for table in stored),
            learning_rate=learning_rate,
            decays=self._decays(variable),
        )
        for table, values in zip(stored, new, strict=True):
            self.assign(table, tf.IndexedSlices(values, rows))
        # Writing rows puts a variable into a mode where each read of the whole
        # variable, with which `ops.take` begins, makes a copy.
        tf.raw_ops.DisableCopyOnRead(resource=variable.handle)

    def _update_masked(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update the rows of a dense gradient that are not all zero."""
        index = self._get_variable_index(variable)
        stored = (variable, self._momentums[index], self._velocities[index])
        old = [ops.convert_to_tensor(table) for table in stored]
        new = self._adamw(
            ops.cast(gradient, variable.dtype),
            *old,
            learning_rate=learning_rate,
            decays=self._decays(variable),
        )
        axes = tuple(range(1, len(variable.shape)))
        touched = ops.any(ops.not_equal(gradient, 0), axis=axes, keepdims=True)
        for table, values, rest in zip(stored, new, old, strict=True):
            self.assign(table, ops.where(touched, values, rest))

    def _adamw(
        self,
        gradient: Any,
        weight: Any,
        momentum: Any,
        velocity: Any,
        *,
        learning_rate: Any,
        decays: bool,
    ) -> tuple[Any, Any, Any]:
        """Return new weight, momentum and velocity, in Keras's order of operations."""
        dtype = weight.dtype
        rate = ops.cast(learning_rate, dtype)
        step = ops.cast(self.iterations + 1, dtype)
        power_1 = ops.power(ops.cast(self.beta_1, dtype), step)
        power_2 = ops.power(ops.cast(self.beta_2, dtype), step)
        alpha = rate * ops.sqrt(1 - power_2) / (1 - power_1)
        if decays:
            weight = weight - weight * self.weight_decay * rate
        momentum = momentum + (gradient - momentum) * (1 - self.beta_1)
        velocity = velocity + (ops.square(gradient) - velocity) * (1 - self.beta_2)
        weight = weight - momentum * alpha / (ops.sqrt(velocity) + self.epsilon)
        return weight, momentum, velocity

    def _decays(self, variable: Any) -> bool:
        """Return whether there is a weight decay that applies to this variable."""
        return bool(self.weight_decay) and self._use_weight_decay(variable)

    def _clip_gradients(self, grads: Any) -> list[Any]:
        """Clip as Keras does, but only the values of sparse gradients.

        Missing rows are zero and do not change a norm. Keras itself computes the norm
        of repeated rows before they are summed and makes the result dense.
        """
        values = super()._clip_gradients(
            [g.values if _is_rows(g) else g for g in grads]
        )
        return [
            _with_values(gradient, clipped)
            for gradient, clipped in zip(grads, values, strict=True)
        ]

    def _apply_weight_decay(self, variables: Any) -> None:
        """Do nothing: `update_step` applies the decay, because it knows the rows."""

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        config = super().get_config()
        names = "name learning_rate weight_decay beta_1 beta_2 epsilon".split()
        names += [
            "clipnorm",
            "clipvalue",
            "global_clipnorm",
            "not_decayed",
            "skip_nonfinite",
        ]
        return {**{name: config[name] for name in names}, "tables": self.tables}


def sum_repeated_rows(gradient: Any) -> Any:
    """Sum the rows of a sparse gradient that belong to the same row of the table.

    Returns `tf.IndexedSlices` with unique indices in the order of first occurrence.
    Other types are returned unchanged.

    Example:
        >>> import tensorflow as tf
        >>> from labse_tf.optimizers import sum_repeated_rows
        >>> twice = tf.IndexedSlices(tf.constant([[1.0], [2.0], [4.0]]), [7, 3, 7])
        >>> rows = sum_repeated_rows(twice)
        >>> rows.indices.numpy().tolist(), rows.values.numpy().tolist()
        ([7, 3], [[5.0], [2.0]])
    """
    if not _is_rows(gradient):
        return gradient
    import tensorflow as tf

    rows, positions = tf.unique(gradient.indices)
    order = tf.argsort(positions, stable=True)
    # Twice as fast on a CPU as a sum over unsorted segments.
    values = tf.sparse.segment_sum(
        gradient.values, order, tf.gather(positions, order), num_segments=tf.size(rows)
    )
    return tf.IndexedSlices(values, rows, gradient.dense_shape)


def _is_rows(gradient: Any) -> bool:
    """Return whether this is `tf.IndexedSlices`; import TensorFlow only if needed."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return isinstance(gradient, tf.IndexedSlices)


def _with_values(gradient: Any, values: Any) -> Any:
    """Return the values as a tensor or `tf.IndexedSlices`, like the gradient."""
    if not _is_rows(gradient):
        return values
    import tensorflow as tf

    return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)


def _sum_over_replicas(grads: Any) -> list[Any]:
    """Sum each gradient over the replicas; sparse slices are concatenated."""
    import tensorflow as tf

    grads = list(grads)
    context = tf.distribute.get_replica_context()
    there = [gradient for gradient in grads if gradient is not None]
    if context is None or not there:
        return grads
    summed = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, there))
    return [None if gradient is None else next(summed) for gradient in grads]


def adamw(
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    *,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    epsilon: float = 1e-6,
    lazy: bool = False,
    skip_nonfinite: bool = False,
) -> keras.optimizers.Optimizer:
    """Create AdamW without decay of biases and layer normalizations.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: Multiplied by the learning rate at each step; 0 for none.
        clip_norm: Largest norm of all gradients together; `None` for no limit.
        epsilon: Added to the root of the second moment (default: BERT's 1e-6).
        lazy: Whether to update only the rows of the token table that a batch looks up.
            See `LazyAdamW`.
        skip_nonfinite: See `AdamW`.

    Returns:
        A Keras optimizer.

    References:
        Loshchilov and Hutter, 2019 (https://arxiv.org/abs/1711.05101); BERT's own
        exclusions: https://github.com/google-research/bert, `optimization.py`.
    """
    kind = LazyAdamW if lazy else AdamW
    return kind(
        learning_rate,
        weight_decay,
        global_clipnorm=clip_norm,
        epsilon=epsilon,
        not_decayed=_NOT_DECAYED,
        skip_nonfinite=skip_nonfinite,
    )
