"""A conformance report for any SavedModel of TF Hub's text interfaces.

What is checked is measured: the model is loaded, called, differentiated, copied to
another folder, loaded there in a new process and run in a session as a server does.

The interfaces (https://www.tensorflow.org/hub/common_saved_model_apis/text): `text`,
strings to vectors; `preprocessor`, strings to token ids; `encoder`, token ids to
vectors. All are reusable SavedModels
(https://www.tensorflow.org/hub/reusable_saved_models).

Shapes: B sentences, T tokens, D dimensions.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labse_tf.export.conformance import Check, ConformanceReport
from labse_tf.export.elsewhere import first_line, match_names, named_tensors, tensors
from labse_tf.export.inputs import (
    load_object,
    read_interface,
    specification_text,
)
from labse_tf.export.operations import (
    IGNORED,
    LISTED_BEFORE,
    foreign_operations,
    graph_operations,
)
from labse_tf.saved_model import graph_nodes, read_meta_graph

# Scripts, lengths, and a long one so that the others are padded in a batch.
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

# Largest difference, as a share of the largest norm, between runs that compute the
# same in another order: float32 stays below the first, bfloat16 below the second.
_SAME = 1e-5
_SAME_IN_HALF = 1e-2
# A loader changes nothing: one machine, one program, one batch.
_MOVED = 1e-6
# Sentences in batches whose padding is measured: small, and no usual dimension.
_ROWS = 7
_SECONDS_ELSEWHERE = 900
# So many sentences are compared alone with what they are in the batch.
_ALONE = 16


def check_saved_model(
    path: str | os.PathLike[str],
    *,
    texts: Sequence[str] | None = None,
    runs: int = 10,
) -> ConformanceReport:
    """Checks a SavedModel against the contract of TF Hub's text models.

    Works on any text model: strings to vectors, strings to token ids, or token ids to
    vectors; which of them is read from its traces. A new Python process does a part,
    so it takes ten seconds and more, and the model lies in memory up to twice. A model
    is a program: what its graph says is run.

    Failures are: no call, a missing trace, other keys, types or shapes, a fixed batch
    size, vectors that padding or other rows of the batch change, dropout at inference,
    variables that are not listed or receive no gradient, a signature that is missing
    or gives something else, files outside the directory, other vectors in another
    folder and process or in a session, operations that TF Serving lacks. Warnings are:
    vectors that are no unit vectors, no `training` argument, no dropout, padding to
    one length, what TF Hub's interfaces only recommend.

    Args:
        path: The directory with `saved_model.pb`.
        texts: Two or more sentences to run it on; `SENTENCES` where left out. An
            encoder is run on random token ids.
        runs: How many times a batch is timed.

    Returns:
        The report; `report.passed` where nothing failed.

    Raises:
        ValueError: If there is no SavedModel, it is damaged, or its interface is
            another one; or if an argument is wrong.
        OSError: If it cannot be read or copied.
    """
    if texts is None:
        texts = SENTENCES
    if isinstance(texts, str) or len(texts) < 2 or not all(map(str.strip, texts)):
        raise ValueError(
            "`texts` must be two or more sentences, none of them empty. "
            f"Received: {texts!r}"
        )
    if runs < 1:
        raise ValueError(f"`runs` must be at least 1. Received: {runs}")
    folder = Path(path)
    meta_graph = read_meta_graph(folder)
    module = load_object(folder, meta_graph)
    return _Examination(folder, meta_graph, module, list(texts), runs).report()


# === the checks ===


class _Examination:
    """One model under examination; the methods add checks."""

    def __init__(
        self, folder: Path, meta_graph: Any, module: Any, texts: list[str], runs: int
    ) -> None:
        self.folder, self.meta_graph, self.module = folder, meta_graph, module
        self.runs = runs
        self.interface = read_interface(folder, module)
        self.checks: list[Check] = []
        self.measurements: dict[str, float] = {}
        self.callable = callable(module)
        self.trainable = list(getattr(module, "trainable_variables", None) or [])
        # Errors of calls with `training=`; of a signature, both.
        self.errors: dict[bool, str] = {}
        self.rows: list[Any] = texts if self.interface.strings else self._token_rows()
        self.batch = self.interface.batch(self.rows)

    def report(self) -> ConformanceReport:
        """Runs all checks."""
        vectors = self.interface.name != "preprocessor"
        self._calls()
        outputs, error = self._run(self.batch)
        if outputs is None:
            self._add("outputs", "fail", f"the call fails: {error}")
        else:
            self._outputs(outputs)
            self._batch_size()
            if vectors:
                self._unit_length(outputs)
                self._batch_mates(outputs)
            else:
                self._batch_mates_of_ids(outputs)
                self._subobjects(outputs)
            elsewhere = self._elsewhere()
            self._padding(elsewhere.get("widths", {}))
            self._inference(outputs)
            self._signature(outputs)
            self._moved(outputs, elsewhere)
            self._session(outputs, elsewhere)
            # After what compares vectors: training moves the averages of some layers.
            if vectors:
                self._training()
                self._gradients()
            self._variables()
            self._regularization()
        self._operations()
        if outputs is not None:
            self._speed()
        self._size()
        return ConformanceReport(
            str(self.folder),
            self.interface.name,
            tuple(self.checks),
            self.measurements,
        )

    def _add(self, name: str, status: str, detail: str) -> None:
        self.checks.append(Check(name, status, detail))

    def _judge(
        self, name: str, faults: Sequence[str], doubts: Sequence[str], told: str
    ) -> None:
        """Adds a check that has faults, or only doubts, or neither."""
        status = "fail" if faults else "warn" if doubts else "ok"
        self._add(name, status, "; ".join(filter(None, [*faults, *doubts, told])))

    # --- calling ---

    def _call(self, batch: Any, **arguments: Any) -> Any:
        """Calls the object, or the signature of one that cannot be called."""
        given = self.interface.given(batch)
        if self.callable:
            return self.module(given, **arguments)
        signature = self.module.signatures["serving_default"]
        return signature(**match_names(_signature_inputs(signature), given))

    def _run(
        self, batch: Any, **arguments: Any
    ) -> tuple[dict[str, np.ndarray] | None, str]:
        """A call's outputs by name and "", or None and what went wrong."""
        return _attempt(lambda: _arrays(self._call(batch, **arguments)))

    def _token_rows(self) -> list[list[int]]:
        """Random token ids, all of them below the vocabulary's size.

        No interface says how large it is; a lookup says when an id is not in it.
        """
        width = self.interface.fixed_length() or 24
        rows: list[list[int]] = []
        for limit in (1000, 200, 50, 20, 8, 4, 2):
            rng = np.random.default_rng(0)
            lengths = [min(width, 3 * i) for i in range(1, 9)]
            rows = [rng.integers(1, limit, length).tolist() for length in lengths]
            value, error = self._run(self.interface.batch(rows))
            if value is not None or not re.search("indices|not in", error):
                break
        return rows

    def _calls(self) -> None:
        taken = specification_text(self.interface.specification)
        if not self.callable:
            self.errors = dict.fromkeys((False, True), "the object cannot be called")
            self._add(
                "callable",
                "fail",
                f"no `__call__`: it can be served with {taken}, but not be a part of a "
                "model or be fine-tuned",
            )
            return
        traces = len(self.module.__call__.concrete_functions)
        self._add("callable", "ok", f"takes {taken}; {traces} traces")
        for training in (False, True):
            _, self.errors[training] = self._run(self.batch, training=training)
        failed = [training for training, error in self.errors.items() if error]
        name = "training argument"
        if not failed:
            self._add(name, "ok", "traced for True and False")
        elif len(failed) == 1:
            why = self.errors[failed[0]]
            self._add(name, "fail", f"`training={failed[0]}` fails: {why}")
        elif self.interface.name == "preprocessor":
            self._add(name, "ok", "none, and none is needed")
        else:
            self._add(
                name,
                "warn",
                "the call takes no `training`, so that fine-tuning has no dropout; TF "
                "Hub allows this where training computes the same",
            )

    # --- what it gives ---

    def _outputs(self, outputs: dict[str, np.ndarray]) -> None:
        kind = self.interface.name
        faults: list[str] = []
        recommended: tuple[str, ...] = ()
        wanted: np.dtype[Any] = np.dtype(np.float32)
        if kind == "preprocessor":
            recommended = ("input_word_ids", "input_mask", "input_type_ids")
            wanted = np.dtype(np.int32)
        else:
            if kind == "encoder":
                recommended = ("pooled_output", "sequence_output")
            key = self._vector_key(outputs)
            # A text model may give the bare vectors.
            if key is None:
                faults.append("no matrix (B, D) of vectors among them")
            elif key not in (("default", "output") if kind == "text" else ("default",)):
                faults.append("no `default`, which users of TF Hub read")
            if key is not None:
                self.measurements["dimensions"] = int(outputs[key].shape[1])
        for name, value in outputs.items():
            if value.dtype != wanted and (_floats(value) or wanted.kind == "i"):
                faults.append(f"`{name}` is {value.dtype}, expected {wanted}")
            if value.shape[:1] != (len(self.rows),):
                faults.append(f"`{name}` is {value.shape} for {len(self.rows)} rows")
            elif not _finite(value):
                faults.append(f"`{name}` has values that are no finite numbers")
        doubts = [f"no `{name}`" for name in recommended if name not in outputs]
        if self.interface.strings and not faults:
            empty, error = self._run([""])
            if empty is None:
                doubts.append(f"an empty text fails: {error}")
            elif not all(map(_finite, empty.values())):
                doubts.append("an empty text gives no finite numbers")
        shapes = [
            f"{name} {value.dtype} {_shape_text(value.shape)}"
            for name, value in outputs.items()
        ]
        self._judge("outputs", faults, doubts, "; ".join(shapes))

    def _vector_key(self, outputs: Mapping[str, np.ndarray]) -> str | None:
        """The output that holds the sentences' vectors."""
        matrices = [
            name
            for name, value in outputs.items()
            if value.ndim == 2 and _floats(value)
        ]
        for name in ("default", "output", "pooled_output"):
            if name in matrices:
                return name
        return matrices[0] if len(matrices) == 1 else None

    def _batch_size(self) -> None:
        faults = []
        for size in (1, 3):
            _, error = self._run(self.interface.batch((self.rows * 3)[:size]))
            if error:
                faults.append(f"a batch of {size} fails: {error}")
        told = "" if faults else f"free: 1, 3 and {len(self.rows)} rows run"
        self._judge("batch size", faults, [], told)

    def _unit_length(self, outputs: Mapping[str, np.ndarray]) -> None:
        key = self._vector_key(outputs)
        if key is None:
            self._add("unit length", "skip", "no vectors")
            return
        norms = np.linalg.norm(outputs[key].astype(np.float64), axis=1)
        off = not np.abs(norms - 1).max() <= 1e-4
        told = f"norms of `{key}` from {norms.min():.6g} to {norms.max():.6g}"
        doubts = ["users must normalise the vectors"] if off else []
        self._judge("unit length", [], doubts, told)

    def _batch_mates(self, outputs: Mapping[str, np.ndarray]) -> None:
        """A sentence alone, in a batch, and with more padding: one vector."""
        name, key = "batch mates", self._vector_key(outputs)
        if key is None:
            self._add(name, "skip", "no vectors")
            return
        variants = [
            (f"row {i} alone", [i], 0) for i in range(min(len(self.rows), _ALONE))
        ]
        if not self.interface.strings and self.interface.fixed_length() is None:
            variants.append(("with more padding", list(range(len(self.rows))), 5))
        norm = max(float(np.linalg.norm(outputs[key], axis=1).max()), 1e-12)
        worst, where = 0.0, ""
        for what, indices, extra in variants:
            rows = [self.rows[i] for i in indices]
            other, error = self._run(self.interface.batch(rows, extra))
            if other is None:
                self._add(name, "fail", f"{what}: {error}")
                return
            gap = _gap(other[key], outputs[key][indices]) / norm
            # A comparison with what is no number is false.
            if not gap <= worst:
                worst, where = gap, f" ({what})"
        told = f"alone and in a batch `{key}` differs by {worst:.1e} of its norm"
        if worst <= _SAME:
            self._add(name, "ok", told)
            return
        told += where
        if worst <= _SAME_IN_HALF:
            self._add(name, "warn", f"{told}: more than float32 explains")
        else:
            self._add(name, "fail", f"{told}: other rows or padding change vectors")

    def _batch_mates_of_ids(self, outputs: Mapping[str, np.ndarray]) -> None:
        """A sentence alone and in a batch: the same ids, then zeros."""
        for i, row in enumerate(self.rows[:_ALONE]):
            alone, error = self._run([row])
            if alone is None:
                self._add("batch mates", "fail", f"row {i} alone: {error}")
                return
            for name, value in outputs.items():
                pair = (value[i : i + 1], alone[name])
                width = max(one.shape[1] for one in pair)
                padded = [
                    np.pad(one, ((0, 0), (0, width - one.shape[1]))) for one in pair
                ]
                if (padded[0] != padded[1]).any():
                    told = f"`{name}` of row {i} is another one when it is alone"
                    self._add("batch mates", "fail", told)
                    return
        self._add("batch mates", "ok", "alone and in a batch the ids are the same")

    def _subobjects(self, outputs: Mapping[str, np.ndarray]) -> None:
        """A preprocessor's `tokenize` and `bert_pack_inputs`."""
        import tensorflow as tf

        parts = ("tokenize", "bert_pack_inputs")
        tokenize, pack = (getattr(self.module, part, None) for part in parts)
        if tokenize is None or pack is None:
            missing = [f"`{part}`" for part in parts if not hasattr(self.module, part)]
            told = f"no {' and no '.join(missing)}: pairs of segments cannot be packed"
            self._add("subobjects", "warn", told)
            return
        faults: list[str] = []
        tokens, error = _attempt(tokenize, tensors(self.batch))
        if not isinstance(tokens, tf.RaggedTensor) or tokens.dtype != tf.int32:
            what = error or f"{type(tokens).__name__} {tokens.dtype.name}"
            told = f"`tokenize` must give a ragged int32 tensor. Received: {what}"
            self._add("subobjects", "fail", told)
            return
        # Short rows, which are padded, and then all, of which some are cut.
        short = sorted(self.rows, key=len)[:2]
        for count, rows in ((1, short), (2, self.rows)):
            packed, error = _attempt(
                lambda strings, n=count: _arrays(
                    pack([tokenize(strings)] * n, seq_length=16)
                ),
                tensors(rows),
            )
            what = f"`bert_pack_inputs` of {count} segment{'s'[: count - 1]}"
            if packed is None:
                faults.append(f"{what} fails: {error}")
                continue
            shapes = {value.shape for value in packed.values()}
            if shapes != {(len(rows), 16)}:
                faults.append(f"{what} to a length of 16 gives the shapes {shapes}")
            types = packed.get("input_type_ids", np.array(count - 1))
            if types.max() != count - 1:
                faults.append(f"{what} gives type ids up to {types.max()}")
        width = next(iter(outputs.values())).shape[1]
        packed, _ = _attempt(lambda: _arrays(pack([tokens], seq_length=width)))
        if packed is not None and _largest_gap(outputs, packed):
            faults.append("tokenized and packed is not what the call gives")
        special = getattr(tokenize, "get_special_tokens_dict", dict)
        table, error = _attempt(special)
        doubts = [] if table else [f"no `tokenize.get_special_tokens_dict` {error}"]
        told = f"`tokenize` gives {_shape_text(tokens.shape)}; 1 and 2 segments packed"
        self._judge("subobjects", faults, doubts, "" if faults else told)

    def _inference(self, outputs: Mapping[str, np.ndarray]) -> None:
        again, error = self._run(self.batch)
        if again is None:
            self._add("inference", "fail", f"a second call fails: {error}")
            return
        gap = _largest_gap(outputs, again)
        faults = [f"two calls differ by {gap:.1e}: is dropout on?"] if gap else []
        told = "" if faults else "two calls give the same"
        self._judge("inference", faults, [], told)

    # --- training ---

    def _training(self) -> None:
        if self.errors[True]:
            self._add("training", "skip", "no call with `training=True`")
            return
        first, second = (self._run(self.batch, training=True)[0] for _ in range(2))
        gap = _largest_gap(first or {}, second or {})
        if gap:
            self._add("training", "ok", f"dropout: two calls differ by {gap:.1e}")
        elif random := self._random_operations():
            told = f"two calls give the same, in spite of {random[0]}: a fixed seed"
            self._add("training", "fail", told)
        else:
            told = "two calls give the same, and nothing in the graph is random"
            self._add("training", "warn", f"no dropout: {told}")

    def _random_operations(self) -> list[str]:
        """What draws random numbers in a call with `training=True`."""
        for trace in self.module.__call__.concrete_functions:
            positional, named = trace.structured_input_signature
            if any(value is True for value in [*positional[1:], *named.values()]):
                operations = graph_operations(trace.graph.as_graph_def())
                names = {operation.name for operation in operations}
                return sorted(name for name in names if "Random" in name)
        return []

    def _gradients(self) -> None:
        import tensorflow as tf

        if not self.trainable:
            self._add("gradients", "skip", "no trainable variables")
            return
        arguments = {} if self.errors[True] else {"training": True}

        def differentiate() -> list[Any]:
            with tf.GradientTape() as tape:
                tape.watch(self.trainable)
                losses = []
                for value in named_tensors(
                    self._call(self.batch, **arguments)
                ).values():
                    if value.dtype.is_floating:
                        value = tf.cast(value, tf.float32)
                        # Weighted at random: the squares of unit vectors have one sum.
                        weights = tf.random.stateless_normal(tf.shape(value), (0, 1))
                        losses.append(tf.reduce_sum(weights * value))
                loss = tf.add_n(losses)
            return tape.gradient(loss, self.trainable)

        gradients, error = _attempt(differentiate)
        if gradients is None:
            self._add("gradients", "fail", f"cannot be computed: {error}")
            return
        without, zero = [], []
        for variable, gradient in zip(self.trainable, gradients, strict=True):
            if gradient is None:
                without.append(variable.name)
            elif not tf.reduce_any(getattr(gradient, "values", gradient) != 0):
                zero.append(variable.name)
        reached = len(self.trainable) - len(without) - len(zero)
        self._judge(
            "gradients",
            [f"none: {_some(without)}"] if without else [],
            [f"zero: {_some(zero)}"] if zero else [],
            f"{reached} of {len(self.trainable)} trainable variables receive one",
        )

    def _variables(self) -> None:
        listed = list(getattr(self.module, "variables", None) or [])
        traces = self.module.__call__.concrete_functions if self.callable else []
        used = {v.ref(): v for trace in traces for v in trace.variables}
        known = {v.ref() for v in listed}
        # States of random generators are no weights.
        hidden = [
            v.name for r, v in used.items() if r not in known and v.dtype.is_floating
        ]
        outside = [v.name for v in self.trainable if v.ref() not in known]
        frozen = [v.name for v in self.trainable if not v.trainable]
        faults = [
            f"{what}: {_some(sorted(names))}"
            for what, names in (
                ("used by the call, not in `variables`", hidden),
                ("in `trainable_variables`, not in `variables`", outside),
                ("in `trainable_variables`, not trainable", frozen),
            )
            if names
        ]
        for name, variables in (("", listed), ("trainable_", self.trainable)):
            sizes = [int(np.prod(v.shape.as_list())) for v in variables]
            self.measurements[f"{name}parameters"] = sum(sizes)
        doubts = []
        if not self.trainable and self.interface.name != "preprocessor":
            doubts.append("it cannot be fine-tuned")
        told = f"{len(listed)} variables, {len(self.trainable)} trainable"
        self._judge("variables", faults, doubts, told)

    def _regularization(self) -> None:
        losses = getattr(self.module, "regularization_losses", None)
        faults = []
        for position, loss in enumerate(losses or ()):
            value, error = _attempt(loss)
            if error or value.shape.rank != 0 or not value.dtype.is_floating:
                faults.append(
                    f"number {position}: expected a function without arguments that "
                    "gives a scalar. Received: "
                    + (error or f"{value.dtype.name} {value.shape}")
                )
        told = "not listed, which means none" if losses is None else f"{len(losses)}"
        self._judge("regularization losses", faults, [], told)

    # --- serving ---

    def _signature(self, outputs: Mapping[str, np.ndarray]) -> None:
        if "serving_default" not in self.module.signatures:
            told = f"there are {sorted(self.module.signatures)}"
            told = f"no `serving_default`, which servers run; {told}"
            self._add("signature", "fail", told)
            return
        signature = self.module.signatures["serving_default"]
        given = self.interface.given(self.batch)
        served, error = _attempt(
            lambda: _arrays(
                signature(**match_names(_signature_inputs(signature), given))
            )
        )
        self._same("signature", "`serving_default`:", outputs, served, error)

    def _moved(self, outputs: Mapping[str, np.ndarray], told: dict[str, Any]) -> None:
        what = "copied, in a new process without labse_tf:"
        outside = self._outside()
        if outside:
            self._add("moved", "fail", f"{what} {'; '.join(outside)}")
        elif not self.callable:
            self._add("moved", "skip", "nothing to call")
        else:
            error = told["errors"].get("call", "")
            self._same("moved", what, outputs, told["call"], error)

    def _session(self, outputs: Mapping[str, np.ndarray], told: dict[str, Any]) -> None:
        error = told["errors"].get("session", "")
        what = "tag `serve`, `serving_default` in a session:"
        self._same("session loader", what, outputs, told["session"], error)

    def _same(
        self,
        name: str,
        what: str,
        outputs: Mapping[str, np.ndarray],
        others: Mapping[str, np.ndarray] | None,
        error: str,
    ) -> None:
        """Adds the check that outputs come out the same in another way."""
        if error or others is None:
            self._add(name, "fail", f"{what} {error}")
            return
        pairs = {key: (outputs[key], others[key]) for key in outputs.keys() & others}
        if not pairs and len(outputs) == len(others) == 1:
            # A bare tensor has no name, and a signature's output always one.
            key = next(iter(others))
            pairs = {key: (next(iter(outputs.values())), others[key])}
        if not pairs:
            told = f"outputs {sorted(others)}, the call has {sorted(outputs)}"
            self._add(name, "fail", f"{what} {told}")
            return
        # Of values over 1, as token vectors have them, a share.
        scales = {key: max(1.0, _largest(pair[0])) for key, pair in pairs.items()}
        gap = max(_gap(*pair) / scales[key] for key, pair in pairs.items())
        status = "ok" if gap <= _MOVED else "fail"
        self._add(name, status, f"{what} {_some(sorted(pairs))} equal to {gap:.1e}")

    def _elsewhere(self) -> dict[str, Any]:
        """Runs a copy in a new process, in a folder of its own.

        Returns:
            `errors` by part, the outputs by name of `call` and `session`, and `widths`.
        """
        batches = {"batch": self.batch}
        if self.interface.name == "text":
            batches |= self._short_and_long()
        found: dict[str, Any] = {"errors": {}, "call": {}, "session": {}}
        with tempfile.TemporaryDirectory(prefix="labse_tf_check_") as temporary:
            names = ("copy", "inputs.json", "outputs.npz")
            copy, inputs, arrays = (Path(temporary) / name for name in names)
            shutil.copytree(self.folder, copy, copy_function=_link_or_copy)
            given = {"callable": self.callable, "batches": batches}
            inputs.write_text(json.dumps(given), encoding="utf-8")
            # As text: run as a file, it could import what lies beside it.
            program = Path(__file__).with_name("elsewhere.py")
            command = [sys.executable, "-c", program.read_text(encoding="utf-8")]
            error = ""
            try:
                process = subprocess.run(
                    [*command, str(copy), str(inputs), str(arrays)],
                    cwd=temporary,
                    env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    encoding="utf-8",
                    timeout=_SECONDS_ELSEWHERE,
                )
            except subprocess.TimeoutExpired:
                error = f"no end after {_SECONDS_ELSEWHERE} s"
            else:
                if process.returncode:
                    lines = process.stderr.strip().splitlines()[-1:]
                    error = f"exit status {process.returncode} {' '.join(lines)}"[:200]
            if error:
                return {**found, "errors": {"call": error, "session": error}}
            found |= json.loads(process.stdout.splitlines()[-1])
            with np.load(arrays) as file:
                for name in file.files:
                    part, _, key = name.partition("/")
                    found[part][key] = file[name]
        return found

    def _outside(self) -> list[str]:
        """Files that the graph names and the SavedModel does not hold."""
        found = set()
        for asset in self.meta_graph.asset_file_def:
            if not (self.folder / "assets" / asset.filename).is_file():
                found.add(f"the asset {asset.filename} is missing")
        for node in graph_nodes(self.meta_graph.graph_def):
            if node.op != "Const" or "value" not in node.attr:
                continue
            values = node.attr["value"].tensor.string_val
            # A longer one is a vocabulary.
            for value in values if len(values) <= 16 else ():
                text = value.decode("utf-8", "replace")
                remote = re.match(r"(gs|s3|hdfs|viewfs|file|ram)://\S+$", text)
                if remote or _is_a_file(text):
                    found.add(f"the graph names the file {text}")
        return sorted(found)

    def _operations(self) -> None:
        operations = graph_operations(self.meta_graph.graph_def)
        foreign = foreign_operations(operations)
        names = sorted({operation.name for operation in operations})
        written = self.meta_graph.meta_info_def.tensorflow_version
        version = tuple(int(number) for number in re.findall(r"\d+", written)[:2])
        compiled = [name for name in names if name.startswith("Xla")]
        faults = [f"{name}: {why}" for name, why in foreign.items()]
        doubts = []
        if compiled:
            doubts.append(f"{_some(compiled)}: needs a server with XLA")
        if version >= LISTED_BEFORE:
            doubts.append(f"TensorFlow {written} wrote it and may have more new ones")
        told = f"{len(names)} kinds"
        if not faults:
            told += ", they and their attributes in TensorFlow 2.12 or TF-Text 2.12.1"
            if any(
                one.name == IGNORED.name and IGNORED.attributes <= one.attributes
                for one in operations
            ):
                told += f" ({', '.join(IGNORED.attributes)} is newer, and ignored)"
        self._judge("operations", faults, doubts, told)

    # --- measurements ---

    def _short_and_long(self) -> dict[str, list[str]]:
        """Rows of one word, and rows of 60."""
        word = self.rows[0].split()[0]
        return {"short": [word] * _ROWS, "long": [" ".join([word] * 60)] * _ROWS}

    def _padding(self, widths: dict[str, int]) -> None:
        if self.interface.name == "encoder":
            fixed = self.interface.fixed_length()
            doubts = [f"to {fixed} tokens, which the trace asks for"] if fixed else []
            self._judge("padding", [], doubts, "" if fixed else "any length runs")
            return
        batches = self._short_and_long()
        made = {name: self._run(batch) for name, batch in batches.items()}
        for name, (outputs, error) in made.items():
            if outputs is None:
                self._add("padding", "fail", f"rows of {name} text fail: {error}")
                return
            if self.interface.name == "preprocessor":
                widths[name] = next(iter(outputs.values())).shape[1]
        short, long = (self._milliseconds(batch) for batch in batches.values())
        told = f"{_ROWS} rows of 1 and of 60 words take {short:.1f} and {long:.1f} ms"
        if not (widths.get("short") and widths.get("long")):
            self._add("padding", "skip", f"no tensors (B, T, D) inside; {told}")
            return
        for name in ("short", "long"):
            self.measurements[f"{name}_length"] = widths[name]
        if widths["short"] == widths["long"]:
            told = f"short text costs what long text does; {told}"
            self._add("padding", "warn", f"always to {widths['short']} tokens: {told}")
        else:
            lengths = f"to {widths['short']} and {widths['long']} tokens"
            self._add("padding", "ok", f"by the batch, {lengths}; {told}")

    def _milliseconds(self, batch: Any) -> float:
        """The median of some runs, after one that warms up."""

        def run() -> float:
            start = time.perf_counter()
            # Arrays on the host: the device has ended.
            _arrays(self._call(batch))
            return 1000 * (time.perf_counter() - start)

        run()
        return float(np.median([run() for _ in range(self.runs)]))

    def _speed(self) -> None:
        one, error = _attempt(self._milliseconds, self.interface.batch(self.rows[:1]))
        if error:
            self._add("speed", "fail", f"one sentence: {error}")
            return
        each = self._milliseconds(self.batch) / len(self.rows)
        self.measurements["milliseconds"] = one
        self._add(
            "speed",
            "ok",
            f"{one:.1f} ms a sentence alone, {each:.1f} ms in a batch of "
            f"{len(self.rows)}, median of {self.runs} runs",
        )

    def _size(self) -> None:
        sizes: dict[str, int] = {}
        for file in self.folder.rglob("*"):
            if file.is_file():
                part = file.relative_to(self.folder).parts[0]
                sizes[part] = sizes.get(part, 0) + file.stat().st_size
        self.measurements["bytes"] = sum(sizes.values())
        parts = [f"{name} {size / 1e6:.1f}" for name, size in sorted(sizes.items())]
        told = f"{sum(sizes.values()) / 1e6:.1f} MB ({', '.join(parts)})"
        if "parameters" in self.measurements:
            types = {
                v.dtype.name for v in getattr(self.module, "variables", None) or ()
            }
            told += (
                f"; {int(self.measurements['parameters']):,} parameters, "
                f"{int(self.measurements['trainable_parameters']):,} trainable"
                + "".join(f", {name}" for name in sorted(types))
            )
        self._add("size", "ok", told)


# === helpers ===


def _attempt(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """What a function gives and "", or None and what went wrong, in one line."""
    try:
        return function(*arguments), ""
    # Whatever a model raises is a finding.
    except Exception as error:
        return None, first_line(error)


def _arrays(outputs: Any) -> dict[str, np.ndarray]:
    """Outputs by name, on the host."""
    import tensorflow as tf

    named = named_tensors(outputs)
    for name, value in named.items():
        if not isinstance(value, tf.Tensor):
            raise ValueError(
                f"expected dense tensors. Received: `{name}` of type "
                f"{type(value).__name__}"
            )
    return {name: value.numpy() for name, value in named.items()}


def _floats(values: np.ndarray) -> bool:
    """Whether they are floating-point numbers; NumPy knows no bfloat16."""
    return values.dtype.kind == "f" or values.dtype.name == "bfloat16"


def _finite(values: np.ndarray) -> bool:
    """Whether no number is infinite or none."""
    return not _floats(values) or bool(np.isfinite(values).all())


def _largest(values: np.ndarray) -> float:
    """The largest absolute value."""
    return float(np.abs(values).max(initial=0)) if values.dtype != object else 0.0


def _signature_inputs(signature: Any) -> list[str]:
    """The names of a signature's inputs."""
    return list(signature.structured_input_signature[1])


def _gap(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference; infinite where the shapes differ."""
    if one.shape != other.shape:
        return float("inf")
    if one.dtype == object:  # strings
        return 0.0 if (one == other).all() else float("inf")
    gap = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return float(gap.max(initial=0.0))


def _largest_gap(
    outputs: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]
) -> float:
    """The largest difference over outputs with the same names."""
    names = outputs.keys() & others.keys()
    return max((_gap(outputs[name], others[name]) for name in names), default=0.0)


def _shape_text(shape: Sequence[int | None]) -> str:
    """The shape of an output, its first size as B."""
    sizes = ["B", *("T" if size is None else str(size) for size in shape[1:])]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _some(names: Sequence[str], count: int = 4) -> str:
    """The first of many names."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def _is_a_file(text: str) -> bool:
    """Whether a constant is the absolute path of a file."""
    if not os.path.isabs(text) or len(text) > 4096 or "\0" in text:
        return False
    return os.path.isfile(text)


def _link_or_copy(source: str, target: str) -> str:
    """A hard link, as weights are large, or a copy where none can be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
