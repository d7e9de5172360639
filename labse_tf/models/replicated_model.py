"""What `fit` needs on several replicas and hosts, and a look at each step's loss."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
from keras import ops

from labse_tf.cpu_kernels import cpu_kernels
from labse_tf.distribute import is_multi_worker, is_tpu, sum_over_replicas


class ReplicatedModel(keras.Model):
    """A `keras.Model` whose `fit` works on several hosts too.

    Keras 3 reduces the logs of a step in ways that MultiWorkerMirroredStrategy does
    not know, and several steps an execution lose the static batch that gathering needs.
    Here, where a strategy has several replicas, an execution is `strategy.run` as often
    as `steps_per_execution` says, and the logs are the metrics of all replicas. On a
    TPU that is a loop of the graph; elsewhere each step is called by itself, since in a
    loop TensorFlow's collectives take the rows of a sparse gradient, which vary, to be
    as many in every round.
    Callbacks, `evaluate`, `validation_data` and `train_on_batch` stay as they are.

    The model is built when it is made: all its weights are there.

    A loss that is not finite is noted in the graph with the number of its step, which
    nobody waits for: see `first_nonfinite_step`.
    """

    _watch: _Watch | None = None
    train_function: Any
    test_function: Any

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As `keras.Model.compile`."""
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
                    f"Several workers need `keras.Model.{name}`, which Keras 3.10 to "
                    f"3.15 have. Received: Keras {keras.__version__}"
                )
        # Batches are full, so that nothing needs to be filled up at the end, for which
        # TensorFlow would forget their size.
        strategy.extended.experimental_enable_get_next_as_optional = False

    def train_step(self, *arguments: Any) -> Any:
        """As `keras.Model.train_step`, with the kernels of a CPU where it is one."""
        with self.training_kernels():
            return super().train_step(*arguments)

    def training_kernels(self) -> AbstractContextManager[None]:
        """The kernels for the steps of this model, see `labse_tf.cpu_kernels`.

        None where XLA compiles all of the step, or TensorFlow is to be deterministic,
        which Keras takes to exclude XLA.
        """
        if keras.backend.backend() != "tensorflow" or self.jit_compile:
            return nullcontext()
        from tensorflow.python.framework.config import is_op_determinism_enabled

        return nullcontext() if is_op_determinism_enabled() else cpu_kernels("training")

    def start_counting_at(self, step: int) -> None:
        """Says how many steps are done, and forgets a loss that was not finite.

        Args:
            step: The next one is one more.
        """
        if self._watch is not None:
            self._watch.step.assign(step)
            self._watch.first.assign(0)

    def first_nonfinite_step(self) -> int:
        """Tells at which step the loss first was not finite; waits for the steps.

        Returns:
            The step, counted from `start_counting_at`; 0 if there was none.
        """
        return (
            0 if self._watch is None else int(ops.convert_to_numpy(self._watch.first))
        )

    def note_loss(self, loss: Any) -> None:
        """Counts a step and notes whether its loss is finite, in the graph.

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
        """Whether an execution is one call: where all shapes are static."""
        return is_tpu(self.distribute_strategy)

    def _maybe_symbolic_build(self, *args: Any, **kwargs: Any) -> None:
        """Only the optimiser has something to build."""
        if not (self._has_replicas() and all(layer.built for layer in self.layers)):
            super()._maybe_symbolic_build(*args, **kwargs)
        elif self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def make_train_function(self, force: bool = False) -> Any:
        """As `keras.Model.make_train_function`."""
        if not self._has_replicas():
            return super().make_train_function(force)
        if self.train_function is None or force:
            self.train_function = self._on_replicas(self.train_step)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        """As `keras.Model.make_test_function`."""
        if not self._has_replicas():
            return super().make_test_function(force)
        if self.test_function is None or force:
            self.test_function = self._on_replicas(self.test_step)
        return self.test_function

    def _on_replicas(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A function of an iterator that does the steps of an execution."""
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
    """Decides what `"auto"` means.

    Args:
        jit_compile: As `compile` takes it.

    Returns:
        `False` for `"auto"` on TensorFlow, where XLA is slower on the CPU and fails
        with collectives outside a TPU (which compiles always); else the argument.
    """
    if jit_compile == "auto" and keras.backend.backend() == "tensorflow":
        return False
    return jit_compile


class _Watch:
    """Variables that Keras does not see, so that they are no part of the model."""

    def __init__(self) -> None:
        self.step, self.first = (
            keras.Variable(
                0, dtype="int64", trainable=False, aggregation="only_first_replica"
            )
            for _ in range(2)
        )
