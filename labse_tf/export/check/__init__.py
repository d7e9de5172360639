"""Conformance check of any SavedModel with a TF Hub text interface.

The model is loaded, called and differentiated. A copy is loaded in a new process and
run in a session as in a server.

The interfaces (https://www.tensorflow.org/hub/common_saved_model_apis/text) are `text`
(strings to vectors), `preprocessor` (strings to token ids) and `encoder` (token ids to
vectors). All are reusable SavedModels
(https://www.tensorflow.org/hub/reusable_saved_models).

`inputs` reads the interface and creates batches. `subject` is the checked model. The
checks are in `calls`, `training`, `served` and `cost`. `elsewhere` runs in another
process, `operations` lists the operations of a server, `conformance` is the report.

Shapes: B sentences, T tokens, D dimensions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from labse_tf.export.check import calls, cost, served, training
from labse_tf.export.check.conformance import ConformanceReport
from labse_tf.export.check.inputs import load_object
from labse_tf.export.check.subject import Subject
from labse_tf.saved_model import read_meta_graph

__all__ = ["SENTENCES", "ConformanceReport", "check_saved_model"]

# Several scripts and lengths. The last sentence is long, so the others are padded.
SENTENCES = (
    "Hello, world.",
    "नमस्ते दुनिया",
    "The quick brown fox jumps over the lazy dog by the river, and nobody sees it.",
    "今日は天気がいいですね。",
    "a",
    "Не каждый день приносит хорошие новости.",
    "হ্যালো বিশ্ব",
    "One sentence that is much longer than all of the others in this batch, " * 3,
)


def check_saved_model(
    path: str | os.PathLike[str], *, texts: Sequence[str] | None = None, runs: int = 10
) -> ConformanceReport:
    """Check a SavedModel against the contract of TF Hub's text models.

    The interface is read from the traces of the model. Some checks run in a new Python
    process, so the check takes at least ten seconds and the model is in memory up to
    twice. The check executes the graph, so use it only on models that you trust.

    Failures: no call, a missing trace, wrong keys, types or shapes, a fixed batch size,
    vectors that depend on padding or other rows, dropout at inference, variables that
    are not listed or receive no gradient, a missing or different signature, files
    outside the directory, different vectors in another directory and process or in a
    session, operations that TF Serving lacks. Warnings: vectors without unit length, no
    `training` argument, no dropout, padding to one length, missing features that TF
    Hub's interfaces only recommend.

    Args:
        path: The directory with `saved_model.pb`.
        texts: Two or more sentences to run the model on. Default: `SENTENCES`. An
            encoder is run on random token ids instead.
        runs: Number of timed runs of a batch.

    Returns:
        The report. `report.passed` is true if no check failed.

    Raises:
        ValueError: If there is no SavedModel, it is damaged or has another interface,
            or an argument is invalid.
        OSError: If the SavedModel cannot be read or copied.
    """
    if texts is None:
        texts = SENTENCES
    if isinstance(texts, str) or len(texts) < 2 or not all(map(str.strip, texts)):
        raise ValueError(
            "`texts` must be two or more sentences that are not empty. "
            f"Received: {texts!r}"
        )
    if runs < 1:
        raise ValueError(f"`runs` must be at least 1. Received: {runs}")
    folder = Path(path)
    meta_graph = read_meta_graph(folder)
    module = load_object(folder, meta_graph)
    subject = Subject(folder, meta_graph, module, list(texts), runs)
    _run_checks(subject)
    return ConformanceReport(
        str(folder), subject.interface.name, tuple(subject.checks), subject.measurements
    )


def _run_checks(subject: Subject) -> None:
    """Run all checks in the order of the report."""
    calls.check_calls(subject)
    outputs, error = subject.run(subject.batch)
    if outputs is None:
        subject.add("outputs", "fail", f"the call fails: {error}")
        served.check_operations(subject)
        cost.check_size(subject)
        return
    vectors = subject.interface.name != "preprocessor"
    calls.check_outputs(subject, outputs)
    calls.check_batch_size(subject)
    if vectors:
        calls.check_unit_length(subject, outputs)
        calls.check_batch_mates(subject, outputs)
    else:
        calls.check_batch_mates_of_ids(subject, outputs)
        calls.check_subobjects(subject, outputs)
    elsewhere = served.run_elsewhere(subject)
    cost.check_padding(subject, elsewhere.get("widths", {}))
    calls.check_inference(subject, outputs)
    served.check_signature(subject, outputs)
    served.check_moved(subject, outputs, elsewhere)
    served.check_session(subject, outputs, elsewhere)
    # After all comparisons of vectors, because calls with `training=True` update the
    # moving averages of some layers.
    if vectors:
        training.check_training(subject)
        training.check_gradients(subject)
    training.check_variables(subject)
    training.check_regularization(subject)
    served.check_operations(subject)
    cost.check_speed(subject)
    cost.check_size(subject)
