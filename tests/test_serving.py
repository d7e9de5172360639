"""TF Serving: its files, its messages, and the README's clients against a server.

The server here is ours, for the real binary comes in no package; it answers as that
does, with the session loader, the tag `serve` and the signature `serving_default`.
"""

from __future__ import annotations

import http.server
import json
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text  # noqa: F401 (registers the tokenizer's ops)
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
)

from helpers.documents import README_BLOCKS
from helpers.errors import raises
from helpers.models import make_model, sentences
from labse_tf import cli
from labse_tf.export import export_saved_model
from labse_tf.export.interfaces import HUB_NAMES
from labse_tf.export.serving import (
    BATCHING_PARAMETERS,
    WARMUP_REQUESTS,
    batching_parameters,
    check_version_directory,
)
from labse_tf.models import LaBSE

README_TEXTS = ["Hello, world.", "नमस्ते दुनिया"]


def serving_modules() -> tuple:
    """The messages and the service, of the extra `serving`."""
    reason = "the extra `serving` is missing"
    apis = "tensorflow_serving.apis"
    return tuple(
        pytest.importorskip(f"{apis}.{name}", reason=reason)
        for name in ("predict_pb2", "prediction_log_pb2", "prediction_service_pb2_grpc")
    )


class Served:
    """A SavedModel in a session, as a server has it."""

    def __init__(self, path: Path) -> None:
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            loaded = tf.compat.v1.saved_model.loader.load(
                self.session, ["serve"], str(path)
            )
        self.signature = loaded.signature_def["serving_default"]

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert set(inputs) == set(self.signature.inputs)
        return self.session.run(
            {name: info.name for name, info in self.signature.outputs.items()},
            {self.signature.inputs[name].name: value for name, value in inputs.items()},
        )


@pytest.fixture(scope="module")
def model() -> LaBSE:
    return make_model("mean", num_layers=1)


@pytest.fixture(scope="module")
def served(model, tmp_path_factory) -> Path:
    """`labse/1` with all that a server reads."""
    serving_modules()
    path = tmp_path_factory.mktemp("serving") / "labse" / "1"
    return export_saved_model(model, path, serving=True, texts=sentences(40))


# === Files ===


def test_the_directory_is_a_version() -> None:
    for path in ("labse/1", "0", Path("/a/b/20261231")):
        check_version_directory(path)
    for path in ("labse", "v1", "01", "-1", "1.0", "١", "1/..", ""):
        with raises(ValueError, received=True):
            check_version_directory(path)


def test_files_lie_where_a_server_looks(served) -> None:
    assert (served / WARMUP_REQUESTS).is_file()
    assert sorted(p.name for p in served.parent.iterdir()) == ["1", BATCHING_PARAMETERS]
    # Another user's server reads them.
    for path in (served, served.parent / BATCHING_PARAMETERS):
        assert path.stat().st_mode & 0o044 == 0o044


def batching_message() -> type:
    """TF Serving's `BatchingParameters`, whose module is in no package."""
    file = descriptor_pb2.FileDescriptorProto(
        name="batching.proto", package="test", syntax="proto3"
    )
    file.dependency.append("google/protobuf/wrappers.proto")
    message = file.message_type.add(name="BatchingParameters")
    field = descriptor_pb2.FieldDescriptorProto
    for number, name in enumerate(
        (
            "max_batch_size",
            "batch_timeout_micros",
            "max_enqueued_batches",
            "num_batch_threads",
        ),
        start=1,
    ):
        message.field.add(
            name=name,
            number=number,
            label=field.LABEL_OPTIONAL,
            type=field.TYPE_MESSAGE,
            type_name=".google.protobuf.Int64Value",
        )
    message.field.add(
        name="pad_variable_length_inputs",
        number=7,
        label=field.LABEL_OPTIONAL,
        type=field.TYPE_BOOL,
    )
    from google.protobuf import wrappers_pb2

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("test.BatchingParameters")
    )


@pytest.mark.parametrize("interface", ["text", "preprocessor", "encoder"])
def test_batching_parameters_parse(interface) -> None:
    parsed = text_format.Parse(batching_parameters(interface), batching_message()())
    assert parsed.max_batch_size.value == 64
    assert parsed.batch_timeout_micros.value == 2000
    assert parsed.max_enqueued_batches.value == 1000
    assert parsed.pad_variable_length_inputs == (interface == "encoder")


def test_batching_parameters_of_ones_own_are_kept(tmp_path) -> None:
    serving_modules()
    model, file = make_model(num_layers=0), tmp_path / BATCHING_PARAMETERS
    file.write_text("max_batch_size { value: 7 }\n")
    export_saved_model(model, tmp_path / "2", serving=True, texts=["sun"])
    assert file.read_text() == "max_batch_size { value: 7 }\n"


# === Warm-up ===


def read_warmup(path: Path) -> list:
    """The records, parsed."""
    _, log_pb2, _ = serving_modules()
    records = tf.data.TFRecordDataset(str(path / WARMUP_REQUESTS)).as_numpy_iterator()
    return [log_pb2.PredictionLog.FromString(record) for record in records]


def inputs_of(request: object) -> dict[str, np.ndarray]:
    return {name: tf.make_ndarray(value) for name, value in request.inputs.items()}


def test_warmup_records_replay(served, model) -> None:
    records = read_warmup(served)
    # TF Serving reads 1,000 at most.
    assert 1 < len(records) <= 1000
    server, seen = Served(served), set()
    for record in records:
        assert record.WhichOneof("log_type") == "predict_log"
        request = record.predict_log.request
        assert request.model_spec.name == "labse"
        assert request.model_spec.signature_name == "serving_default"
        texts = inputs_of(request)["inputs"]
        vectors = server.run({"inputs": texts})["default"]
        expected = model.encode([text.decode() for text in texts])
        np.testing.assert_allclose(vectors, expected, atol=1e-6)
        features = model.preprocessor([text.decode() for text in texts])
        seen.add(features["token_ids"].shape[1])
    assert {len(inputs_of(r.predict_log.request)["inputs"]) for r in records} == {1, 16}
    assert max(seen) == model.preprocessor.sequence_length
    assert len(seen) > 2


def test_warmup_of_an_encoder_replays(tmp_path) -> None:
    serving_modules()
    model = make_model("mean", num_layers=0)
    path = export_saved_model(
        model, tmp_path / "e" / "1", "encoder", serving=True, texts=sentences(20)
    )
    server = Served(path)
    for record in read_warmup(path):
        inputs = inputs_of(record.predict_log.request)
        assert {value.dtype for value in inputs.values()} == {np.dtype(np.int32)}
        outputs = server.run(inputs)
        features = {ours: inputs[theirs] for ours, theirs in HUB_NAMES.items()}
        np.testing.assert_allclose(outputs["default"], model(features), atol=1e-6)
    assert "pad_variable" in (path.parent / BATCHING_PARAMETERS).read_text()


def test_without_the_extra_nothing_is_written(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    for name in list(sys.modules):
        if name.startswith("tensorflow_serving."):
            monkeypatch.delitem(sys.modules, name)
    model = make_model(num_layers=0)
    with raises(ImportError, "'labse-tf[serving]'"):
        export_saved_model(model, tmp_path / "1", serving=True)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_a_version_is(tmp_path, capsys) -> None:
    model = make_model(num_layers=0)
    model.save_to_preset(tmp_path / "model")
    arguments = ["export", "--model", str(tmp_path / "model"), "--serving", "--output"]
    assert cli.main([*arguments, str(tmp_path / "out" / "labse")]) == 2
    line = capsys.readouterr().err
    assert line.endswith("Received: 'labse'\n") and line.count("\n") == 1
    assert not (tmp_path / "out").exists()
    serving_modules()
    assert cli.main([*arguments, str(tmp_path / "out" / "labse" / "1")]) == 0
    assert len(read_warmup(tmp_path / "out" / "labse" / "1")) == 10


# === Clients ===


@pytest.fixture(scope="module")
def grpc_server(served) -> Iterator[tuple[int, list]]:
    """A `PredictionService` on loopback: its port, and the requests that came."""
    import grpc

    predict_pb2, _, service = serving_modules()
    model, came = Served(served), []

    class Servicer(service.PredictionServiceServicer):
        def Predict(self, request: object, context: object) -> object:
            came.append(request)
            if request.model_spec.name != "labse":
                context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
            response = predict_pb2.PredictResponse(model_spec=request.model_spec)
            for name, value in model.run(inputs_of(request)).items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return response

    server = grpc.server(futures.ThreadPoolExecutor(1))
    service.add_PredictionServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port, came
    server.stop(None)


@pytest.fixture(scope="module")
def rest_server(served) -> Iterator[int]:
    """TF Serving's REST API for one model on loopback: its port."""
    model = Served(served)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found = self.path == "/v1/models/labse:predict"
            answer: dict = {"error": f"no {self.path}"}
            if found:
                texts = np.array(json.loads(body)["instances"], object)
                # One output: the rows without its name.
                vectors = model.run({"inputs": texts})["default"]
                answer = {"predictions": vectors.tolist()}
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def readme_block(language: str, needle: str) -> str:
    """The README's block in its section on TF Serving that holds a string."""
    found = [
        block.code
        for block in README_BLOCKS
        if block.section == "TF Serving"
        and block.language == language
        and needle in block.code
    ]
    assert len(found) == 1
    return found[0]


def test_grpc_client_of_the_readme(grpc_server, model) -> None:
    port, came = grpc_server
    code = readme_block("python", "import grpc")
    assert "localhost:8500" in code
    names: dict = {}
    exec(code.replace("localhost:8500", f"127.0.0.1:{port}"), names)
    np.testing.assert_allclose(names["vectors"], model.encode(README_TEXTS), atol=1e-6)
    assert came[-1].inputs["inputs"].dtype == tf.string.as_datatype_enum
    assert names["response"].model_spec.name == "labse"


def test_warmup_requests_through_the_service(grpc_server, served, model) -> None:
    import grpc

    port, _ = grpc_server
    _, _, service = serving_modules()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = service.PredictionServiceStub(channel)
        for record in read_warmup(served)[:3]:
            request = record.predict_log.request
            response = stub.Predict(request, timeout=30)
            texts = [text.decode() for text in inputs_of(request)["inputs"]]
            vectors = tf.make_ndarray(response.outputs["default"])
            assert vectors.dtype == np.float32
            np.testing.assert_allclose(vectors, model.encode(texts), atol=1e-6)
        request.model_spec.name = "another"
        with pytest.raises(grpc.RpcError, match="no such model"):
            stub.Predict(request, timeout=30)


def test_rest_client_of_the_readme(rest_server, model) -> None:
    code = readme_block("python", "urllib.request")
    assert "localhost:8501" in code
    names: dict = {}
    exec(code.replace("localhost:8501", f"127.0.0.1:{rest_server}"), names)
    np.testing.assert_allclose(names["vectors"], model.encode(README_TEXTS), atol=1e-6)


def test_curl_of_the_readme(rest_server, model) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    code = readme_block("bash", "curl")
    command = shlex.split(code.replace("localhost:8501", f"127.0.0.1:{rest_server}"))
    printed = subprocess.run(command, capture_output=True, check=True).stdout
    vectors = json.loads(printed)["predictions"]
    np.testing.assert_allclose(vectors, model.encode(README_TEXTS), atol=1e-6)


def test_container_command_of_the_readme() -> None:
    """Nobody runs it here; that it fits what `--serving` writes can be checked."""
    code = readme_block("bash", "docker run").replace("\\\n", " ")
    export, docker = (shlex.split(line) for line in code.strip().split("\n"))
    output = Path(export[export.index("--output") + 1])
    options = cli.build_parser().parse_args(export[1:])
    assert options.serving
    volume = docker[docker.index("-v") + 1]
    name = output.parent.name
    assert volume == f"$PWD/{output.parent}:/models/{name}"
    assert docker[docker.index("-e") + 1] == f"MODEL_NAME={name}"
    assert f"--batching_parameters_file=/models/{name}/{BATCHING_PARAMETERS}" in docker
