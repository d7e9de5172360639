"""AdamW as BERT uses it, its lazy form for large token tables, and schedules."""

from __future__ import annotations

import re
import types
from typing import Any

import keras
from keras import ops

from labse_tf.distribute import sum_over_replicas

# Biases and the two weights of a layer normalisation. Keras looks for this in a
# variable's name: on TensorFlow "pooler/bias:0", on other backends "bias".
_NOT_DECAYED = r"(^|/)(bias|gamma|beta)(:\d+)?$"


@keras.saving.register_keras_serializable(package="labse_tf")
class WarmupLinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly from 0, then falls linearly to 0 at the last step.

    Args:
        learning_rate: The peak, reached at `warmup_steps`.
        train_steps: Where 0 is reached again; 0 from there on.
        warmup_steps: Steps of rising; 0 starts at the peak.

    Raises:
        ValueError: If there are no steps to train, or not more than of warm-up.

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
        """The learning rate of a step, float32."""
        step = ops.cast(step, "float32")
        left = (self.train_steps - step) / (self.train_steps - self.warmup_steps)
        rate = ops.clip(left, 0.0, 1.0)
        if self.warmup_steps:
            rate = ops.minimum(rate, step / self.warmup_steps)
        return self.learning_rate * rate

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "learning_rate": self.learning_rate,
            "train_steps": self.train_steps,
            "warmup_steps": self.warmup_steps,
        }


@keras.saving.register_keras_serializable(package="labse_tf")
class AdamW(keras.optimizers.AdamW):
    """AdamW that trains on N replicas as on one device, also where it clips.

    Keras clips each replica's share of the gradients before it adds them up, so its
    limit means something else on every number of replicas. Here gradients are summed
    first. What is not decayed is an argument, so that it survives saving, and a decay
    of 0 costs nothing.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: Multiplied by the learning rate; 0 for none.
        not_decayed: Pattern; variables whose name contains it do not decay. `None`:
            all do.
        skip_nonfinite: A step whose gradients, summed over the replicas, are not all
            finite changes nothing, moments and step count included, as if its batch
            had not been. `skipped` counts such steps. TensorFlow only.
        name: Of the optimiser.
        **kwargs: Other arguments of `keras.optimizers.AdamW`.

    Raises:
        ValueError: If `skip_nonfinite` is asked for on another backend.

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
        """Updates the variables.

        Args:
            grads: Tensors, `tf.IndexedSlices` or `None`, one a variable.
            trainable_variables: The variables; those of `build` where left out.
        """
        if keras.backend.backend() == "tensorflow":
            grads = self._total(grads)
        if self.skip_nonfinite:
            self._apply_if_finite(grads, trainable_variables)
        else:
            super().apply(grads, trainable_variables)

    def build(self, variables: Any) -> None:
        """Makes the moments, and the count of what was skipped.

        Args:
            variables: The trainable ones.
        """
        super().build(variables)
        if self.skip_nonfinite:
            count = keras.Variable(
                0, dtype="int64", trainable=False, aggregation="only_first_replica"
            )
            # Hidden from Keras, it is no part of a checkpoint: one may be gone on from
            # with this and without.
            self._skips = types.SimpleNamespace(count=count)

    @property
    def skipped(self) -> int:
        """How many steps were left out since the optimiser was built."""
        if not (self.skip_nonfinite and self.built):
            return 0
        return int(ops.convert_to_numpy(self._skips.count))

    def _apply_if_finite(self, grads: list[Any], variables: Any) -> None:
        """Updates the variables, or nothing; all replicas decide alike, in the graph.

        A branch that calls the optimiser must lie outside the replicas where they are
        mirrored, as in Keras's own `LossScaleOptimizer`.
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
        """The gradients of the global batch, dense.

        Keras squares a sparse gradient slice by slice, and so a token that occurs n
        times in a batch has the sum of n squares for the square of a sum.
        """
        import tensorflow as tf

        return [
            tf.convert_to_tensor(gradient) if _is_rows(gradient) else gradient
            for gradient in _sum_over_replicas(grads)
        ]

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        """Nothing more: `apply` has summed over the replicas, before clipping."""
        return grads_and_vars

    def _apply_weight_decay(self, variables: Any) -> None:
        """Keras's, which would read and write every weight for a decay of 0 too."""
        if self.weight_decay:
            super()._apply_weight_decay(variables)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "not_decayed": self.not_decayed,
            "skip_nonfinite": self.skip_nonfinite,
        }


@keras.saving.register_keras_serializable(package="labse_tf")
class LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """Keras's loss scaling for float16, deciding by all replicas.

    A step whose gradients overflow on any replica is left out and halves the scale.
    Keras asks one replica only, and the others' overflow would reach the weights.

    Args:
        inner_optimizer: A Keras optimiser.
        **kwargs: As in Keras.
    """

    def check_finite(self, grads: Any) -> Any:
        """Tells whether all gradients are finite on all replicas.

        Args:
            grads: Tensors or `None`.

        Returns:
            A bool scalar.
        """
        bad = ops.logical_not(super().check_finite(grads))
        return ops.equal(sum_over_replicas(ops.cast(bad, "float32")), 0.0)


# The tables whose rows rest where gradients are dense, by the end of their paths.
_TABLES = r"(^|/)((token|segment)_embedding|token_weights)/embeddings$"


@keras.saving.register_keras_serializable(package="labse_tf")
class LazyAdamW(AdamW):
    """AdamW that touches only the rows of a table that a batch has looked up.

    A batch of 512 pairs holds some thousand different tokens out of up to 501,153.
    Dense AdamW still reads and writes the whole table, twice its size in moments
    and its decay at every step. Here a gradient that is `tf.IndexedSlices`, as
    TensorFlow makes it for a looked-up table, stays so: rows that occur twice are
    summed, the norm for clipping is taken over the sums, and moments, decay and
    update are those of AdamW for the rows that occur. All other rows and their
    moments keep their bits. Nothing of the table's size is made, so a step costs
    the same for any vocabulary.

    It is not the same as dense AdamW, where a row goes on moving after it was seen
    (by its momentum) and decays at every step: here a rare token rests in between.
    Bias correction is by the steps done by all, not by those of the row. A dense
    gradient (of a kernel, or of a table that is also a masked-LM head's output)
    gets AdamW as Keras does it.

    Backends without `IndexedSlices`, such as JAX, have dense gradients. There, for
    the variables that `tables` names, rows whose gradient is all zero are left as
    they are. The result is the same, apart from tokens that occur and have a
    gradient of exactly 0, such as padding (they decay on TensorFlow); the cost is
    that of dense AdamW. A step with lazy rows does not compile with XLA
    (`jit_compile=True`, TPUs): take dense AdamW there.

    The variables are those of `keras.optimizers.AdamW` in the same order, so each
    goes on from the other's checkpoint.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: Multiplied by the learning rate; 0 for none.
        beta_1: Decay of the first moment.
        beta_2: Decay of the second.
        epsilon: Added to the root of the second moment.
        clipnorm: Largest norm of each gradient.
        clipvalue: Largest element of a gradient.
        global_clipnorm: Largest norm of all gradients together; at most one of the
            three.
        not_decayed: As in `AdamW`.
        skip_nonfinite: As in `AdamW`.
        tables: Pattern that a variable's path must contain; on backends without
            `IndexedSlices` only.
        name: Of the optimiser.

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
        """The gradients of the global batch, each row once."""
        return [sum_repeated_rows(gradient) for gradient in _sum_over_replicas(grads)]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable and its moments.

        Args:
            gradient: Of the variable's shape, or `tf.IndexedSlices` whose indices
                are all different, as `apply` makes them.
            variable: One that the optimiser was built for.
            learning_rate: Of this step.
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
        """Reads, changes and writes the rows of an `IndexedSlices`."""
        import tensorflow as tf

        # Not before the forward pass is over: a table that somebody else still reads
        # would be copied whole on its way to single rows.
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
        # Writing rows puts a variable into a mode where each read of the whole, which
        # is how `ops.take` begins, makes a copy.
        tf.raw_ops.DisableCopyOnRead(resource=variable.handle)

    def _update_masked(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """The same for a dense gradient, whose other rows are all zero."""
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
        """AdamW's new weight, momentum and velocity, in Keras's order of operations."""
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
        """Whether there is a decay and it is for this variable."""
        return bool(self.weight_decay) and self._use_weight_decay(variable)

    def _clip_gradients(self, grads: Any) -> list[Any]:
        """Keras's clipping, of the rows' values where there are rows.

        Rows that do not occur are zero and count for no norm. Keras itself takes the
        norm of repeated rows unsummed and makes the result dense.
        """
        values = super()._clip_gradients(
            [g.values if _is_rows(g) else g for g in grads]
        )
        return [
            _with_values(gradient, clipped)
            for gradient, clipped in zip(grads, values, strict=True)
        ]

    def _apply_weight_decay(self, variables: Any) -> None:
        """Nothing: `update_step` decays, which knows the rows."""

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
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
    """Sums the rows of a sparse gradient that stand for the same row of the table.

    Args:
        gradient: `tf.IndexedSlices`; anything else is returned as it is.

    Returns:
        `tf.IndexedSlices` whose indices are all different, in the order in which
        they first occur.

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
    # Twice as fast on a CPU as the sum over unsorted segments.
    values = tf.sparse.segment_sum(
        gradient.values, order, tf.gather(positions, order), num_segments=tf.size(rows)
    )
    return tf.IndexedSlices(values, rows, gradient.dense_shape)


def _is_rows(gradient: Any) -> bool:
    """Whether it is `tf.IndexedSlices`, without an import of TensorFlow for others."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return isinstance(gradient, tf.IndexedSlices)


def _with_values(gradient: Any, values: Any) -> Any:
    """The values as what they were taken from: a tensor or `tf.IndexedSlices`."""
    if not _is_rows(gradient):
        return values
    import tensorflow as tf

    return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)


def _sum_over_replicas(grads: Any) -> list[Any]:
    """Each gradient summed over the replicas; slices are put one after another."""
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
    """AdamW that leaves biases and layer normalisations undecayed.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: Multiplied by the learning rate at each step; 0 for none.
        clip_norm: Largest norm of all gradients together; `None` for no limit.
        epsilon: Adam's, BERT's 1e-6 where nothing is said.
        lazy: Whether rows of the token table that a batch does not look up rest; see
            `LazyAdamW`.
        skip_nonfinite: As in `AdamW`.

    Returns:
        A Keras optimiser.

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
