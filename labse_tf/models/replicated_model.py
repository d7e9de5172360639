"""Base class of the models: `fit` on several replicas and hosts, and a loss check."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
from keras import ops

from labse_tf.cpu_kernels import cpu_kernels
from labse_tf.distribute import is_multi_worker, is_tpu, sum_over_replicas


class ReplicatedModel(keras.Model):
    """`keras.Model` whose `fit` also works on several hosts.

    In Keras 3, `fit` reduces the logs of a step in ways that
    MultiWorkerMirroredStrategy does not support. With several steps per execution it
    also loses the static batch size that gathering needs. With several replicas, this
    class therefore runs `strategy.run` once per step and logs the metrics of all
    replicas. On a TPU the steps of an execution are a loop in the graph. Elsewhere each
    step is a separate call: in a loop, TensorFlow's collectives expect a sparse
    gradient to have the same number of rows in each iteration.

    Subclasses must create all weights in the constructor.

    The graph records the step of the first loss that is not finite, without a
    synchronization per step; see `first_nonfinite_step`.
    """

    _watch: _Watch | None = None
    train_function: Any
    test_function: Any

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the model; see `keras.Model.compile`."""
        super().compile(*args, **kwargs)
        if keras.backend.backend() != "tensorflow":
            return
        strategy = self.distribute_strategy
        with strategy.scope():
            self._watch = _Watch()
        if not is_multi_worker(strategy):
            return
        for name in ("_maybe_symbolic_build", "get_metrics_result"):
            if not hasattr(keras.Model, name):
                raise RuntimeError(
                    f"Several workers need `keras.Model.{name}`: expected Keras 3.10 "
                    f"to 3.15. Received: Keras {keras.__version__}"
                )
        # All batches are full. Support for partial batches would make TensorFlow lose
        # the static batch size.
        strategy.extended.experimental_enable_get_next_as_optional = False

    def train_step(self, *arguments: Any) -> Any:
        """Run one step with the CPU kernels; see `keras.Model.train_step`."""
        with self.training_kernels():
            return super().train_step(*arguments)

    def training_kernels(self) -> AbstractContextManager[None]:
        """Return a context with the training kernels of `labse_tf.cpu_kernels`.

        The context does nothing if XLA compiles the whole step, or if TensorFlow is set
        to be deterministic, which for Keras excludes XLA.
        """
        if keras.backend.backend() != "tensorflow" or self.jit_compile:
            return nullcontext()
        from tensorflow.python.framework.config import is_op_determinism_enabled

        return nullcontext() if is_op_determinism_enabled() else cpu_kernels("training")

    def start_counting_at(self, step: int) -> None:
        """Set the number of finished steps and forget a loss that was not finite."""
        if self._watch is not None:
            self._watch.step.assign(step)
            self._watch.first.assign(0)

    def first_nonfinite_step(self) -> int:
        """Return the first step whose loss was not finite, or 0; wait for all steps.

        Steps are counted from `start_counting_at`.
        """
        return (
            0 if self._watch is None else int(ops.convert_to_numpy(self._watch.first))
        )

    def note_loss(self, loss: Any) -> None:
        """Count a step, and record it in the graph if its loss is not finite.

        Args:
            loss: Float scalar, this replica's share of the loss.
        """
        if self._watch is None:
            return
        step, first = self._watch.step, self._watch.first
        step.assign_add(1)
        fine = ops.isfinite(sum_over_replicas(loss))
        bad = ops.logical_and(ops.equal(first, 0), ops.logical_not(fine))
        first.assign(ops.where(bad, step, first))

    def _has_replicas(self) -> bool:
        if keras.backend.backend() != "tensorflow":
            return False
        return self.distribute_strategy.num_replicas_in_sync > 1

    def _loops_in_graph(self) -> bool:
        """Return whether the steps of an execution are one loop in the graph."""
        return is_tpu(self.distribute_strategy)

    def _maybe_symbolic_build(self, *args: Any, **kwargs: Any) -> None:
        """Build the optimizer, the only unbuilt part if all layers are built."""
        if not (self._has_replicas() and all(layer.built for layer in self.layers)):
            super()._maybe_symbolic_build(*args, **kwargs)
        elif self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def make_train_function(self, force: bool = False) -> Any:
        """Return the function for `fit`; see `keras.Model.make_train_function`."""
        if not self._has_replicas():
            return super().make_train_function(force)
        if self.train_function is None or force:
            self.train_function = self._on_replicas(self.train_step)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        """Return the function for `evaluate`; see `keras.Model.make_test_function`."""
        if not self._has_replicas():
            return super().make_test_function(force)
        if self.test_function is None or force:
            self.test_function = self._on_replicas(self.test_step)
        return self.test_function

    def _on_replicas(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return a function that takes an iterator and runs one execution."""
        import tensorflow as tf

        strategy, count, calls = self.distribute_strategy, self.steps_per_execution, 1
        if not self._loops_in_graph():
            count, calls = 1, count
        step = tf.autograph.experimental.do_not_convert(step)
        graph = (
            (lambda function: function)
            if self.run_eagerly
            else tf.function(autograph=False, jit_compile=self.jit_compile or None)
        )

        def one(data: Any) -> Any:
            strategy.run(step, args=(data,))
            return self.get_metrics_result()

        def several(iterator: Any) -> Any:
            def body(number: Any) -> Any:
                strategy.run(step, args=(iterator.get_next(),))
                return number + 1

            tf.while_loop(
                lambda number: number < count - 1, body, [0], parallel_iterations=1
            )
            return one(iterator.get_next())

        one_step, execution = graph(one), graph(several)

        def function(iterator: Any) -> Any:
            if hasattr(iterator, "get_next"):
                for _ in range(calls):
                    logs = execution(iterator)
                return logs
            for _, data in zip(range(calls * count), iterator, strict=False):
                logs = one_step(data)
            return logs

        return function


def resolve_jit_compile(jit_compile: bool | str) -> bool | str:
    """Resolve the argument `jit_compile` of `compile`.

    `"auto"` becomes `False` on TensorFlow, where XLA is slower on the CPU and fails
    with collectives outside a TPU. A TPU always compiles. Other values are returned
    unchanged.
    """
    if jit_compile == "auto" and keras.backend.backend() == "tensorflow":
        return False
    return jit_compile


class _Watch:
    """Step counters in a plain class, so that Keras does not track them as weights."""

    def __init__(self) -> None:
        self.step, self.first = (
            keras.Variable(
                0, dtype="int64", trainable=False, aggregation="only_first_replica"
            )
            for _ in range(2)
        )
