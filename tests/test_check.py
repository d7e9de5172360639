"""Conformance reports: what is right passes, and each fault is found."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.errors import Fields, check_message, raises
from helpers.models import make_model, sentences
from labse_tf import cli
from labse_tf.export import check, check_saved_model, export_saved_model
from labse_tf.export.check import elsewhere
from labse_tf.export.check.conformance import Check, ConformanceReport
from labse_tf.export.check.operations import (
    NEWER_ATTRIBUTES,
    NEWER_OPERATIONS,
    TF_TEXT_OPERATIONS,
    Operation,
    foreign_operations,
    graph_operations,
)

tf = pytest.importorskip("tensorflow")

DIM, BUCKETS = 8, 50
STRINGS = tf.TensorSpec([None], tf.string, name="inputs")


@pytest.fixture
def quick(monkeypatch) -> None:
    """Leaves out the second process, whose two checks then fail."""

    def elsewhere(subject) -> dict:
        return {
            "errors": {"call": "left out", "session": "left out"},
            "call": {},
            "session": {},
            "widths": {"short": 2, "long": 61},
        }

    monkeypatch.setattr(check.served, "run_elsewhere", elsewhere)


def found(report: ConformanceReport) -> dict[str, str]:
    """The checks that are neither ok nor left out, with their status."""
    return {
        c.name: c.status
        for c in report.checks
        if c.status != "ok" and "left out" not in c.detail
    }


def detail(report: ConformanceReport, name: str) -> str:
    return next(c.detail for c in report.checks if c.name == name)


def save_text_model(
    path: Path,
    *,
    unit: bool = True,
    dropout: str = "training",
    leak: bool = False,
    dead: str = "",
    hidden: bool = False,
    outside: Path | None = None,
    python: bool = False,
    trim: bool = False,
    fixed: int | None = None,
    bare: bool = False,
    losses: str = "one",
    signature: bool = True,
    signature_of: float = 1.0,
    traces: tuple[bool | None, ...] = (False, True),
    rows: int | None = None,
) -> Path:
    """A bag of words, normalised: right unless an argument makes it wrong."""
    module = tf.Module()
    generator = tf.random.Generator.from_seed(1)
    table = tf.Variable(
        tf.random.stateless_normal([BUCKETS, DIM], (0, 1)), name="table"
    )
    dense = tf.Variable(tf.random.stateless_normal([DIM, DIM], (0, 2)), name="dense")
    unused = tf.Variable(tf.ones([DIM]), name="unused")

    def embed(strings: tf.Tensor, training: bool) -> tf.Tensor:
        words = tf.strings.split(tf.strings.join([strings, " ."]))  # never empty
        if trim:
            import tensorflow_text

            words = tensorflow_text.RoundRobinTrimmer(20).trim([words])[0]
        ids = tf.ragged.map_flat_values(
            tf.strings.to_hash_bucket_fast, words, BUCKETS - 1
        )
        ids = (ids + 1).to_tensor(shape=[None, fixed])  # (B, T), padded with 0
        mask = tf.cast(ids > 0, tf.float32)[:, :, None]
        rows = tf.gather(table, ids)  # (B, T, D)
        if leak:
            mask = tf.ones_like(mask)
        x = tf.reduce_sum(rows * mask, 1) / tf.reduce_sum(mask, 1)
        x = tf.tanh(x @ dense)
        if dropout == "always" or (training and dropout == "training"):
            x *= tf.cast(generator.uniform(tf.shape(x)) > 0.1, tf.float32) + 0.1
        if training and dropout == "fixed seed":
            x *= tf.random.stateless_uniform(tf.shape(x), (3, 4)) + 0.1
        if dead == "none":
            x += tf.stop_gradient(unused)
        if dead == "zero":
            x += 0.0 * unused
        if python:
            x = tf.ensure_shape(tf.py_function(lambda y: y, [x], tf.float32), x.shape)
        if outside is not None:
            text = tf.io.read_file(str(outside))
            x += tf.cast(tf.strings.length(text), tf.float32)
        return tf.math.l2_normalize(x, -1) if unit else x

    def wrap(x: tf.Tensor) -> object:
        return x if bare else {"default": x}

    strings = tf.TensorSpec([rows], tf.string, name="inputs")
    if traces == (None,):
        module.__call__ = tf.function(
            lambda inputs: wrap(embed(inputs, False)), input_signature=[strings]
        )
        module.__call__.get_concrete_function()
    else:

        def call(inputs: tf.Tensor, training: bool = False) -> object:
            return wrap(embed(inputs, training))

        module.__call__ = tf.function(call, autograph=False)
        for training in traces:
            module.__call__.get_concrete_function(strings, training=training)
    module.variables_ = [table, dense, unused, generator.state]
    weights = [table, dense] + ([unused] if dead else [])
    holder = tf.train.Checkpoint()
    if traces:
        holder.__call__ = module.__call__
    holder.variables = weights[1:] if hidden else weights
    holder.trainable_variables = list(holder.variables)
    holder.random_state = generator.state
    if losses == "one":
        holder.regularization_losses = [
            tf.function(lambda: tf.reduce_sum(dense**2), input_signature=[])
        ]
    if losses == "a vector":
        holder.regularization_losses = [
            tf.function(lambda: tf.reduce_sum(dense**2, 1), input_signature=[])
        ]
    holder.rest = [table, dense, unused]
    holder.serve = tf.function(
        lambda inputs: {"default": embed(inputs, False) * signature_of},
        input_signature=[strings],
    )
    signatures = {"serving_default": holder.serve} if signature else {}
    tf.saved_model.save(holder, str(path), signatures=signatures)
    return path


def save_encoder(
    path: Path, *, leak: bool = False, length: int | None = None, as_list: bool = False
) -> Path:
    """Token ids in, a masked mean out; 12 tokens."""
    table = tf.Variable(tf.random.stateless_normal([12, DIM], (0, 1)), name="table")
    types = tf.Variable(tf.random.stateless_normal([2, DIM], (0, 2)), name="types")
    names = ("input_word_ids", "input_mask", "input_type_ids")
    inputs = {n: tf.TensorSpec([None, length], tf.int32, name=n) for n in names}

    def call(inputs: object, training: bool = False) -> dict[str, tf.Tensor]:
        parts = inputs if as_list else [inputs[name] for name in names]
        ids, mask, segments = parts
        x = tf.gather(table, ids) + tf.gather(types, segments)
        mask = tf.cast(mask, tf.float32)[:, :, None]
        if leak:
            mask = mask * 0 + 1
        pooled = tf.reduce_sum(x * mask, 1) / tf.reduce_sum(mask, 1)
        if training:
            pooled = tf.nn.dropout(pooled, 0.2)
        vectors = tf.math.l2_normalize(pooled, -1)
        return {
            "default": vectors,
            "pooled_output": pooled,
            "sequence_output": x,
            "encoder_outputs": [x, 2 * x],
        }

    holder = tf.train.Checkpoint()
    holder.__call__ = tf.function(call, autograph=False)
    for training in (False, True):
        holder.__call__.get_concrete_function(
            list(inputs.values()) if as_list else inputs, training=training
        )
    holder.variables = holder.trainable_variables = [table, types]

    def serve(
        input_word_ids: tf.Tensor, input_mask: tf.Tensor, input_type_ids: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        parts = (input_word_ids, input_mask, input_type_ids)
        outputs = call(list(parts) if as_list else dict(zip(names, parts, strict=True)))
        hidden = outputs.pop("encoder_outputs")
        return {**outputs, "encoder_outputs_0": hidden[0]}

    holder.serve = tf.function(serve, input_signature=list(inputs.values()))
    tf.saved_model.save(holder, str(path), signatures={"serving_default": holder.serve})
    return path


def save_preprocessor(
    path: Path,
    *,
    dtype: tf.DType = tf.int32,
    fixed: int | None = None,
    leak: bool = False,
    parts: bool = True,
    types: bool = True,
    special: bool = True,
    length: bool = True,
) -> Path:
    """Words to ids by hashing, packed by TF-Text without its trimmer's operation."""

    def tokenize(strings: tf.Tensor) -> tf.RaggedTensor:
        words = tf.strings.split(strings)
        return tf.cast(
            tf.ragged.map_flat_values(tf.strings.to_hash_bucket_fast, words, 90), dtype
        )

    def pack(segments: list[tf.RaggedTensor], seq_length: object) -> dict:
        rows = segments[0].nrows()
        pieces = [tf.fill([rows, 1], tf.constant(101, dtype))]
        kinds = [tf.zeros([rows, 1], dtype)]
        for number, segment in enumerate(segments):
            for piece in (segment, tf.fill([rows, 1], tf.constant(102, dtype))):
                pieces.append(piece)
                kinds.append(tf.zeros_like(piece) + (number if types else 0))
        ids, kinds = tf.concat(pieces, 1), tf.concat(kinds, 1)
        if seq_length is not None:
            ids, kinds = ids[:, :seq_length], kinds[:, :seq_length]

        def pad(x: tf.RaggedTensor) -> tf.Tensor:
            x = x.to_tensor()
            wanted = seq_length if length and seq_length is not None else 0
            missing = tf.maximum(0, wanted - tf.shape(x)[1])
            return tf.pad(x, [[0, 0], [0, missing]])

        mask = pad(tf.ones_like(ids))
        return {
            "input_word_ids": pad(ids) + (mask[:1] if leak else 0),
            "input_mask": mask,
            "input_type_ids": pad(kinds),
        }

    ragged = tf.RaggedTensorSpec([None, None], dtype)
    holder = tf.train.Checkpoint()
    holder.__call__ = tf.function(
        lambda inputs: pack([tokenize(inputs)], fixed), input_signature=[STRINGS]
    )
    if parts:
        holder.tokenize = tf.train.Checkpoint()
        holder.tokenize.__call__ = tf.function(tokenize, input_signature=[STRINGS])
        if special:
            holder.tokenize.get_special_tokens_dict = tf.function(
                lambda: {"padding_id": tf.constant(0)}, input_signature=[]
            )
        holder.bert_pack_inputs = tf.train.Checkpoint()
        holder.bert_pack_inputs.__call__ = tf.function(pack)
        for count in (1, 2):
            holder.bert_pack_inputs.__call__.get_concrete_function(
                [ragged] * count, seq_length=tf.TensorSpec([], tf.int32)
            )
    tf.saved_model.save(
        holder, str(path), signatures={"serving_default": holder.__call__}
    )
    return path


# === what is right ===


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> Path:
    """Our own export."""
    path = tmp_path_factory.mktemp("ours") / "1"
    model = make_model("pooler", num_layers=1, dropout=0.1)
    return export_saved_model(model, path, texts=sentences(4))


@pytest.fixture(scope="module")
def report(ours) -> ConformanceReport:
    """A report with nothing left out."""
    return check_saved_model(ours, runs=2)


def test_our_text_export_passes(report) -> None:
    assert found(report) == {}, str(report)
    assert report.passed
    assert report.interface == "text"
    assert [c.name for c in report.checks] == [
        *("callable", "training argument", "outputs", "batch size", "unit length"),
        *("batch mates", "padding", "inference", "signature", "moved"),
        *("session loader", "training", "gradients", "variables"),
        *("regularization losses", "operations", "speed", "size"),
    ]
    told = report.measurements
    # Three tables, a norm, a block, the pooler.
    block = 4 * (16 * 16 + 16) + 2 * (2 * 16) + 2 * 16 * 32 + 32 + 16
    total = (17 + 512 + 2) * 16 + 2 * 16 + block + 16 * 16 + 16
    assert told["parameters"] == told["trainable_parameters"] == total
    assert told["dimensions"] == 16
    # [CLS], one word in two pieces, [SEP]; 60 words are cut to the model's length.
    assert told["short_length"] < told["long_length"] == 16
    assert told["milliseconds"] > 0
    assert detail(report, "gradients").startswith("23 of 23")
    assert "debug_name" in detail(report, "operations")


def test_our_int8_export_passes(tmp_path) -> None:
    """In a session, moved, by TF Serving's operations; what is small still learns."""
    model = make_model("pooler", num_layers=1, dropout=0.1)
    path = export_saved_model(model, tmp_path / "1", storage="int8", texts=sentences(4))
    report = check_saved_model(path, runs=1)
    assert found(report) == {}, str(report)
    assert detail(report, "gradients").startswith("14 of 14")


def test_a_report_is_read_by_people_and_programs(report) -> None:
    from rich.console import Console

    lines = str(report).splitlines()
    assert lines[0] == f"{report.path}: text"
    assert lines[-1] == f"passed: {len(report.checks)} ok"
    assert len(lines) == len(report.checks) + 2
    shown = io.StringIO()
    Console(width=200, file=shown).print(report.table())
    assert all(c.name in shown.getvalue() for c in report.checks)
    told = json.loads(json.dumps(report.to_dict()))
    assert told["passed"] is True
    assert told["checks"][0] == report.checks[0]._asdict()
    assert told["measurements"] == report.measurements


def test_a_report_fails_where_one_check_does() -> None:
    report = ConformanceReport(
        "m", "text", (Check("a", "ok", ""), Check("b", "warn", "x"))
    )
    assert report.passed
    assert report.summary() == "passed: 1 ok, 1 warn"
    report = ConformanceReport("m", "text", (*report.checks, Check("c", "fail", "y")))
    assert not report.passed
    assert report.names("fail") == ["c"]
    assert str(report).splitlines()[-2:] == [
        "fail  c  y",
        "failed: 1 ok, 1 warn, 1 fail",
    ]


def test_a_foreign_text_model_passes(quick, tmp_path) -> None:
    report = check_saved_model(save_text_model(tmp_path / "1"), runs=1)
    assert found(report) == {}, str(report)
    assert report.measurements["parameters"] == BUCKETS * DIM + DIM * DIM
    assert detail(report, "regularization losses") == "1"


def test_bare_vectors_are_a_text_model(quick, tmp_path) -> None:
    path = save_text_model(tmp_path / "1", bare=True, losses="")
    report = check_saved_model(path, runs=1)
    assert found(report) == {}, str(report)
    assert detail(report, "regularization losses") != "1"


@pytest.mark.parametrize("as_list", [False, True])
def test_an_encoder_passes(quick, tmp_path, as_list) -> None:
    path = save_encoder(tmp_path / "1", as_list=as_list)
    report = check_saved_model(path, runs=1)
    # Three inputs without names are matched to no signature.
    expected = {"signature": "fail"} if as_list else {}
    assert found(report) == expected, str(report)
    assert report.interface == "encoder"
    assert "any length" in detail(report, "padding")


def test_a_preprocessor_passes(quick, tmp_path) -> None:
    report = check_saved_model(save_preprocessor(tmp_path / "1"), runs=1)
    assert found(report) == {}, str(report)
    assert report.interface == "preprocessor"
    told = report.measurements
    assert (told["short_length"], told["long_length"]) == (3, 62)
    assert re.search(r"\b1\b.*\b2\b", detail(report, "subobjects"))


@pytest.mark.parametrize("interface", ["preprocessor", "encoder"])
def test_our_other_exports_pass(quick, tmp_path, interface) -> None:
    model = make_model("pooler", num_layers=1, dropout=0.1)
    path = export_saved_model(model, tmp_path / "1", interface, texts=sentences(4))
    report = check_saved_model(path, runs=1)
    assert found(report) == {}, str(report)
    assert report.interface == interface


def test_an_encoder_in_a_session(tmp_path) -> None:
    path = save_encoder(tmp_path / "1")
    ids = np.array([[3, 4, 5], [6, 7, 0]])
    batch = {
        "input_word_ids": ids.tolist(),
        "input_mask": (ids > 0).astype(int).tolist(),
        "input_type_ids": [[0] * 3] * 2,
    }
    outputs, widths = elsewhere.run_in_session(str(path), {"batch": batch})
    expected = tf.saved_model.load(str(path))(elsewhere.tensors(batch))["default"]
    np.testing.assert_allclose(outputs["default"], expected, atol=1e-6)
    assert widths == {"batch": 3}


def test_names_of_signatures_are_matched() -> None:
    batch = {"ids": 1, "mask": 2}
    matched = elsewhere.match_names(["inputs_mask", "inputs_ids"], batch)
    assert matched == {"inputs_mask": 2, "inputs_ids": 1}
    assert elsewhere.match_names(["x"], [3]) == {"x": [3]}
    with raises(ValueError, "'mask'", received="['ids']"):
        elsewhere.match_names(["ids"], batch)
    with raises(ValueError, received="['a', 'b']"):
        elsewhere.match_names(["a", "b"], [3])


# === what is wrong ===


@pytest.mark.parametrize(
    ("fault", "expected", "said"),
    [
        ({"dtype": tf.int64}, {"outputs": "fail", "subobjects": "fail"}, "int64"),
        ({"fixed": 12}, {"padding": "warn"}, 12),
        ({"leak": True}, {"batch mates": "fail"}, Fields("`input_word_ids`", 2)),
        (
            {"parts": False},
            {"subobjects": "warn"},
            Fields("`tokenize`", "`bert_pack_inputs`"),
        ),
        ({"special": False}, {"subobjects": "warn"}, "get_special_tokens_dict"),
        (
            {"types": False},
            {"subobjects": "fail"},
            Fields(2, 0),
        ),
        ({"length": False}, {"subobjects": "fail"}, 16),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_each_fault_of_a_preprocessor_is_found(
    quick, tmp_path, fault, expected, said
) -> None:
    report = check_saved_model(save_preprocessor(tmp_path / "1", **fault), runs=1)
    assert found(report) == expected, str(report)
    check_message(detail(report, next(iter(expected))), said)


def test_outputs_that_are_no_vectors(quick, tmp_path) -> None:
    """Strings, and ragged tensors, are findings and no crash."""
    holder = tf.train.Checkpoint()
    for name, function, said in (
        ("strings", tf.strings.lower, "(B, D)"),
        ("ragged", tf.strings.split, "RaggedTensor"),
        (
            "halves",
            lambda x: {"default": tf.ones([tf.size(x), 2], tf.bfloat16)},
            Fields("`default`", "bfloat16", "float32"),
        ),
    ):
        holder.__call__ = tf.function(function, input_signature=[STRINGS])
        tf.saved_model.save(holder, str(tmp_path / name), signatures={})
        report = check_saved_model(tmp_path / name, runs=1)
        assert not report.passed
        check_message(detail(report, "outputs"), said)


@pytest.mark.parametrize(
    ("fault", "expected", "said"),
    [
        ({"unit": False}, {"unit length": "warn"}, re.compile("norm")),
        ({"dropout": "always"}, {"inference": "fail"}, "dropout"),
        ({"dropout": "none"}, {"training": "warn"}, "dropout"),
        (
            {"dropout": "fixed seed"},
            {"training": "fail"},
            re.compile("StatelessRandom"),
        ),
        (
            {"traces": (None,)},
            {"training argument": "warn", "training": "skip"},
            "`training`",
        ),
        (
            {"traces": (False,)},
            {"training argument": "fail", "training": "skip"},
            "`training=True`",
        ),
        ({"dead": "none"}, {"gradients": "fail"}, Fields("unused:0", 2, 3)),
        ({"dead": "zero"}, {"gradients": "warn"}, Fields("unused:0", 2, 3)),
        ({"hidden": True}, {"variables": "fail"}, Fields("`variables`", "table:0")),
        ({"leak": True}, {"batch mates": "fail"}, 5),
        ({"signature": False}, {"signature": "fail"}, "`serving_default`"),
        ({"signature_of": 2.0}, {"signature": "fail"}, re.compile(r"[1-9]\.\de-01")),
        (
            {"losses": "a vector"},
            {"regularization losses": "fail"},
            Fields("float32", "(8,)"),
        ),
        ({"rows": 8}, {"batch size": "fail"}, 1),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_each_fault_is_found(quick, tmp_path, fault, expected, said) -> None:
    report = check_saved_model(save_text_model(tmp_path / "1", **fault), runs=1)
    got = found(report)
    if "rows" in fault:
        # No other call with another number of rows runs.
        got = {name: got[name] for name in expected}
    if fault.get("dropout") == "always":
        # Vectors that change by themselves differ in any comparison.
        got = {k: v for k, v in got.items() if k not in ("batch mates", "signature")}
    assert got == expected, str(report)
    check_message(detail(report, next(iter(expected))), said)


def test_an_encoder_that_reads_its_padding(quick, tmp_path) -> None:
    report = check_saved_model(save_encoder(tmp_path / "1", leak=True), runs=1)
    assert found(report) == {"batch mates": "fail"}, str(report)


def test_an_encoder_of_one_length(quick, tmp_path) -> None:
    report = check_saved_model(save_encoder(tmp_path / "1", length=9), runs=1)
    assert found(report) == {"padding": "warn"}, str(report)
    assert "to 9 tokens" in detail(report, "padding")


def test_a_file_outside_is_found(quick, tmp_path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("abc")
    path = save_text_model(tmp_path / "1", outside=file)
    report = check_saved_model(path, runs=1)
    assert str(file) in detail(report, "moved")
    assert found(report) == {"moved": "fail"}, str(report)


def test_another_process_has_no_python_function(tmp_path) -> None:
    """The second process is another one, and so is the session in it."""
    path = save_text_model(tmp_path / "1", python=True, fixed=9)
    report = check_saved_model(path, runs=1)
    assert found(report) == {
        "moved": "fail",
        "session loader": "fail",
        "operations": "fail",
        # Cut to 9 words, whatever the batch.
        "padding": "skip",
    }, str(report)
    assert "EagerPyFunc" in detail(report, "operations")
    assert "left out" not in detail(report, "moved")


def test_round_robin_trim_is_caught(quick, tmp_path) -> None:
    """The servers' TF-Text lacks the operation, the installed one emits it."""
    path = save_text_model(tmp_path / "1", trim=True)
    report = check_saved_model(path, runs=1)
    assert found(report) == {"operations": "fail"}, str(report)
    assert "TFText>RoundRobinTrim" in detail(report, "operations")


def test_a_signature_alone_is_no_reusable_model(quick, tmp_path) -> None:
    path = save_text_model(tmp_path / "1", traces=())
    report = check_saved_model(path, runs=1)
    assert not report.passed
    assert found(report) == {
        **{"callable": "fail", "moved": "skip", "training": "skip"},
    }, str(report)


# === operations ===


def test_the_lists_name_what_is_registered() -> None:
    pytest.importorskip("tensorflow_text")
    from tensorflow.python.framework import op_def_registry

    for name, attributes in TF_TEXT_OPERATIONS.items():
        definition = op_def_registry.get(name)
        assert definition is not None, name
        assert {a.name for a in definition.attr} == set(attributes), name
        assert not hasattr(tf.raw_ops, name)
    pairs = [(op, a) for a, names in NEWER_ATTRIBUTES.items() for op in names]
    for name, attribute in [*pairs, *((name, None) for name in NEWER_OPERATIONS)]:
        definition = op_def_registry.get(name)
        # An older TensorFlow than 2.21 lacks some of them.
        if definition is not None and attribute is not None:
            assert attribute in {a.name for a in definition.attr}, (name, attribute)


def test_what_a_server_lacks_is_found_in_graphs() -> None:
    def operations(function, *arguments) -> frozenset[Operation]:
        trace = tf.function(function).get_concrete_function(*arguments)
        definition = trace.graph.as_graph_def()
        stripped = tf.compat.v1.GraphDef()
        stripped.CopyFrom(definition)
        return graph_operations(stripped)

    x, i = tf.ones([4, 3]), tf.constant([[0], [9]])
    inner = tf.function(
        lambda y: tf.raw_ops.FFTND(
            input=tf.cast(y, tf.complex64), fft_length=[3], axes=[1]
        )
    )
    assert "FFTND" in foreign_operations(operations(lambda y: inner(y), x))
    ignored = operations(lambda y: tf.gather_nd(y, i, bad_indices_policy="IGNORE"), x)
    assert foreign_operations(ignored) == {
        "GatherNd.bad_indices_policy": "newer than TensorFlow 2.12"
    }


def test_operations_by_name() -> None:
    none = frozenset[str]()
    assert foreign_operations([Operation("MatMul", frozenset({"T"}))]) == {}
    assert foreign_operations([Operation("TFText>NgramsStringJoin", none)]) == {}
    for name in ("TFText>RoundRobinTrim", "TFText>Utf8Binarize", "MyOwnOp"):
        assert list(foreign_operations([Operation(name, none)])) == [name]
    unknown = Operation("FastBertNormalize", frozenset({"get_offsets", "shiny"}))
    assert list(foreign_operations([unknown])) == ["FastBertNormalize.shiny"]


# === bad input ===


def test_what_is_no_saved_model(tmp_path) -> None:
    for path, said in (
        (tmp_path / "none", Fields(path=tmp_path / "none", received=True)),
        (tmp_path, Fields(received=True)),
    ):
        with raises(ValueError, said):
            check_saved_model(path)
    (tmp_path / "a.txt").write_text("x")
    with raises(ValueError, "'a.txt'"):
        check_saved_model(tmp_path)
    with raises(ValueError, received=True):
        check_saved_model(tmp_path / "a.txt")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_truncated_graph(ours, tmp_path, share) -> None:
    path = shutil.copytree(ours, tmp_path / "1")
    file = path / "saved_model.pb"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with raises(ValueError, path="saved_model.pb", received=True) as e:
        check_saved_model(path)
    assert len(str(e.value).splitlines()) == 1


def test_truncated_weights(ours, tmp_path) -> None:
    path = shutil.copytree(ours, tmp_path / "1")
    file = next((path / "variables").glob("*.data-*"))
    file.write_bytes(file.read_bytes()[:100])
    with raises(ValueError, "SavedModel") as error:
        check_saved_model(path)
    assert len(str(error.value).splitlines()) == 1


def test_a_model_of_images_is_none_of_text(tmp_path) -> None:
    module = tf.train.Checkpoint()
    images = tf.TensorSpec([None, 8, 8, 3], tf.float32)
    module.__call__ = tf.function(
        lambda x: tf.reduce_mean(x, [1, 2]), input_signature=[images]
    )
    tf.saved_model.save(module, str(tmp_path / "1"))
    with raises(ValueError, "float32", "(None, 8, 8, 3)"):
        check_saved_model(tmp_path / "1")


def test_arguments_are_named(ours) -> None:
    for texts in ([], ["one"], "a string", ["a", " "]):
        with raises(ValueError, argument="texts"):
            check_saved_model(ours, texts=texts)
    with raises(ValueError, 1, 0, argument="runs"):
        check_saved_model(ours, runs=0)


# === the command ===


def test_the_command_passes(report, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr("labse_tf.export.check_saved_model", lambda path: report)
    file = tmp_path / "report.json"
    assert cli.main(["export", "--check", "anywhere", "--json", str(file)]) == 0
    assert json.loads(file.read_text()) == report.to_dict()
    assert "regularization losses" in capsys.readouterr().out


def test_the_command_fails_in_one_line(quick, tmp_path, capsys) -> None:
    path = save_text_model(tmp_path / "1", leak=True)
    file = tmp_path / "report.json"
    assert cli.main(["export", "--check", str(path), "--json", str(file)]) == 2
    told = capsys.readouterr()
    last = told.err.splitlines()[-1]
    assert last.startswith("labse-tf: ")
    check_message(last, path=path, received="batch mates, moved, session loader")
    assert "batch mates" in told.out
    assert json.loads(file.read_text())["passed"] is False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--check", "x", "--model", "y"], Fields(argument="--check")),
        (["--check", "nowhere"], Fields(path="nowhere", received=True)),
        (["--model", "labse-nano"], Fields("--model", "--output")),
    ],
)
def test_the_command_names_bad_arguments(arguments, said, capsys) -> None:
    assert cli.main(["export", *arguments]) == 2
    check_message(capsys.readouterr().err, said)


def test_sentences_differ() -> None:
    """Else comparisons between rows would show nothing."""
    assert len(set(check.SENTENCES)) == len(check.SENTENCES)
    assert np.std([len(text) for text in check.SENTENCES]) > 10
