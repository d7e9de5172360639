"""Checks of training: dropout, gradients, variables, regularization losses."""

from __future__ import annotations

from typing import Any

import numpy as np

from labse_tf.export.check.elsewhere import named_tensors
from labse_tf.export.check.operations import graph_operations
from labse_tf.export.check.subject import Subject, attempt, first_names, largest_gap


def check_training(subject: Subject) -> None:
    """Check that calls with `training=True` use dropout."""
    if subject.errors[True]:
        subject.add("training", "skip", "no call with `training=True`")
        return
    first, second = (subject.run(subject.batch, training=True)[0] for _ in range(2))
    gap = largest_gap(first or {}, second or {})
    if gap:
        subject.add("training", "ok", f"dropout: two calls differ by {gap:.1e}")
    elif random := _random_operations(subject):
        told = f"two calls return the same despite {random[0]}: the seed is fixed"
        subject.add("training", "fail", told)
    else:
        told = "two calls return the same, and the graph has no random operation"
        subject.add("training", "warn", f"no dropout: {told}")


def _random_operations(subject: Subject) -> list[str]:
    """Return the random operations of a call with `training=True`."""
    for trace in subject.module.__call__.concrete_functions:
        positional, named = trace.structured_input_signature
        if any(value is True for value in [*positional[1:], *named.values()]):
            operations = graph_operations(trace.graph.as_graph_def())
            names = {operation.name for operation in operations}
            return sorted(name for name in names if "Random" in name)
    return []


def check_gradients(subject: Subject) -> None:
    """Check that every trainable variable receives a gradient."""
    import tensorflow as tf

    if not subject.trainable:
        subject.add("gradients", "skip", "no trainable variables")
        return
    arguments = {} if subject.errors[True] else {"training": True}

    def differentiate() -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch(subject.trainable)
            losses = []
            for value in named_tensors(
                subject.call(subject.batch, **arguments)
            ).values():
                if value.dtype.is_floating:
                    value = tf.cast(value, tf.float32)
                    # Random weights, because the sum of squares of unit vectors is
                    # constant.
                    weights = tf.random.stateless_normal(tf.shape(value), (0, 1))
                    losses.append(tf.reduce_sum(weights * value))
            loss = tf.add_n(losses)
        return tape.gradient(loss, subject.trainable)

    gradients, error = attempt(differentiate)
    if gradients is None:
        subject.add("gradients", "fail", f"cannot be computed: {error}")
        return
    without, zero = [], []
    for variable, gradient in zip(subject.trainable, gradients, strict=True):
        if gradient is None:
            without.append(variable.name)
        elif not tf.reduce_any(getattr(gradient, "values", gradient) != 0):
            zero.append(variable.name)
    reached = len(subject.trainable) - len(without) - len(zero)
    subject.judge(
        "gradients",
        [f"none: {first_names(without)}"] if without else [],
        [f"zero: {first_names(zero)}"] if zero else [],
        f"{reached} of {len(subject.trainable)} trainable variables receive a gradient",
    )


def check_variables(subject: Subject) -> None:
    """Check the lists of variables against the variables that the call uses."""
    listed = list(getattr(subject.module, "variables", None) or [])
    traces = subject.module.__call__.concrete_functions if subject.callable else []
    used = {v.ref(): v for trace in traces for v in trace.variables}
    known = {v.ref() for v in listed}
    # States of random generators are not weights.
    hidden = [v.name for r, v in used.items() if r not in known and v.dtype.is_floating]
    outside = [v.name for v in subject.trainable if v.ref() not in known]
    frozen = [v.name for v in subject.trainable if not v.trainable]
    faults = [
        f"{what}: {first_names(sorted(names))}"
        for what, names in (
            ("used by the call, not in `variables`", hidden),
            ("in `trainable_variables`, not in `variables`", outside),
            ("in `trainable_variables`, not trainable", frozen),
        )
        if names
    ]
    for name, variables in (("", listed), ("trainable_", subject.trainable)):
        sizes = [int(np.prod(v.shape.as_list())) for v in variables]
        subject.measurements[f"{name}parameters"] = sum(sizes)
    doubts = []
    if not subject.trainable and subject.interface.name != "preprocessor":
        doubts.append("the model cannot be fine-tuned")
    told = f"{len(listed)} variables, {len(subject.trainable)} trainable"
    subject.judge("variables", faults, doubts, told)


def check_regularization(subject: Subject) -> None:
    """Check that regularization losses are functions that return a scalar."""
    losses = getattr(subject.module, "regularization_losses", None)
    faults = []
    for position, loss in enumerate(losses or ()):
        value, error = attempt(loss)
        if error or value.shape.rank != 0 or not value.dtype.is_floating:
            faults.append(
                f"index {position}: expected a function without arguments that "
                "returns a scalar. Received: "
                + (error or f"{value.dtype.name} {value.shape}")
            )
    told = "no such attribute" if losses is None else f"{len(losses)}"
    subject.judge("regularization losses", faults, [], told)
