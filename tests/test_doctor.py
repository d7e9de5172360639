"""The doctor: each clash from made-up facts, and the command on real environments."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import ROOT
from labse_tf import extras
from labse_tf.cli.doctor import report
from labse_tf.doctor import LEVELS, Facts, Module, diagnose, diagnosis, environment
from labse_tf.extras import EXTRAS

PACKAGES = {
    "tensorflow": "2.21.0",
    "tensorflow-text": "2.21.1",
    "keras": "3.15.1",
    "keras-hub": "0.32.0",
    "tensorflow-hub": "0.16.1",
    "tf-keras": "2.21.0",
    "numpy": "2.4.6",
    "setuptools": "80.9.0",
}
MODULES = {
    "tensorflow": Module(version="2.21.0", cuda=True),
    "tensorflow_text": Module(version="2.21.1"),
    "keras": Module(version="3.15.1", backend="tensorflow"),
    "keras_hub": Module(version="0.32.0"),
}
HEALTHY = Facts(
    packages=PACKAGES,
    modules=MODULES,
    cpu="A processor",
    cpu_flags=frozenset({"avx", "avx2", "fma"}),
    cores=8,
    memory_gb=16,
)
TPU_KERNELS = {"tensorflow": Module(version="2.20.0", tpu_kernels=1)}
TPU_PACKAGES = {
    "tensorflow": None,
    "tensorflow-tpu": "2.20.0",
    "tensorflow-text": "2.20.1",
    "tf-keras": "2.20.1",
    "libtpu": "0.0.14",
}
TPU = {
    "packages": TPU_PACKAGES,
    "modules": TPU_KERNELS,
    "tpu_devices": ("/dev/accel0",),
}
NOT_INSTALLED = Module(error="ModuleNotFoundError: No module named 'tensorflow'")
BROKEN = Module(error="ImportError: libx.so: cannot open shared object file")


def changed(**changes: object) -> Facts:
    """The healthy environment with some facts changed; None takes a package away."""
    for name in ("packages", "modules", "variables"):
        merged = {**getattr(HEALTHY, name), **changes.get(name, {})}
        changes[name] = {k: v for k, v in merged.items() if v is not None}
    return dataclasses.replace(HEALTHY, **changes)


def test_nothing_is_wrong_with_a_healthy_environment() -> None:
    assert diagnose(HEALTHY) == []
    assert not [line for line in report(HEALTHY, []) if line.startswith(LEVELS)]
    # Linux on ARM, a Mac with Apple silicon, a GPU that is seen.
    arm = {"cpu_flags": frozenset({"asimd"})}
    assert diagnose(changed(machine="aarch64", **arm)) == []
    mac = changed(system="Darwin", machine="arm64", cpu_flags=frozenset())
    assert diagnose(mac) == []
    seen = Module(version="2.21.0", cuda=True, gpus=("/physical_device:GPU:0",))
    gpu = {"nvidia_gpus": ("NVIDIA L4",), "nvidia_driver": "550.54"}
    assert diagnose(changed(modules={"tensorflow": seen}, **gpu)) == []


CASES = {
    # --- which TensorFlow ---
    "no TensorFlow": (
        {
            "packages": {"tensorflow": None, "tensorflow-text": None},
            "modules": {"tensorflow": NOT_INSTALLED},
        },
        "error",
        ["TensorFlow"],
        ["pip install labse-tf"],
    ),
    "no TensorFlow on a TPU": (
        {
            "packages": {"tensorflow": None, "tensorflow-text": None},
            "modules": {"tensorflow": NOT_INSTALLED},
            "variables": {"COLAB_TPU_1VM": "1"},
        },
        "error",
        ["TensorFlow"],
        ["tensorflow-tpu", "--find-links", "--no-deps 'tensorflow-text"],
    ),
    "CPU build over the TPU build": (
        {"packages": {"tensorflow-tpu": "2.20.0"}},
        "error",
        ["tensorflow-tpu", "ConfigureDistributedTPU"],
        ["pip uninstall -y", "--no-deps 'tensorflow-text"],
    ),
    "both, and the TPU build has won": (
        {
            "packages": {"tensorflow-tpu": "2.20.0", "tensorflow-text": "2.20.1"},
            "modules": TPU_KERNELS,
        },
        "error",
        ["tensorflow-tpu"],
        ["pip uninstall -y"],
    ),
    "TPU build with another's files": (
        {"packages": TPU_PACKAGES, "modules": {"tensorflow": Module(version="2.20.0")}},
        "error",
        ["tensorflow-tpu", "ConfigureDistributedTPU"],
        ["pip uninstall -y"],
    ),
    "CPU build on a TPU": (
        {"tpu_devices": ("/dev/vfio/0",), "packages": {"libtpu": "0.0.14"}},
        "error",
        ["TPU", "tensorflow"],
        ["tensorflow-tpu==2.20.*"],
    ),
    "TPU at work": (TPU, "note", ["local"], ['tpu="local"', 'tpu=""']),
    "TPU of another name": (
        {**TPU, "variables": {"TPU_NAME": "my-tpu"}},
        "warning",
        ["TPU_NAME", "my-tpu"],
        ["unset TPU_NAME"],
    ),
    "TPU over the network": (
        {**TPU, "variables": {"COLAB_TPU_ADDR": "10.0.0.2:8470"}},
        "warning",
        ["COLAB_TPU_ADDR"],
        ["v5e-1"],
    ),
    "two CPU builds": (
        {"packages": {"tensorflow-cpu": "2.21.0"}},
        "warning",
        ["tensorflow", "tensorflow-cpu"],
        ["pip uninstall -y tensorflow tensorflow-cpu"],
    ),
    "an old TensorFlow": (
        {
            "packages": {
                "tensorflow": "2.19.1",
                "tensorflow-text": "2.19.0",
                "tf-keras": "2.19.0",
            },
            "modules": {"tensorflow": Module(version="2.19.1")},
        },
        "warning",
        ["TensorFlow 2.19.1"],
        ["tensorflow>=2.20,<2.22"],
    ),
    # --- a TensorFlow that cannot be imported ---
    "a missing library": (
        {"modules": {"tensorflow": BROKEN}},
        "error",
        ["TensorFlow", "libx.so"],
        ["--force-reinstall"],
    ),
    "remains": (
        {
            "modules": {
                "tensorflow": Module(
                    error="AttributeError: module 'tensorflow' has no attribute "
                    "'__version__'",
                    file="/site/tensorflow/__init__.py",
                )
            }
        },
        "error",
        ["TensorFlow", "__version__"],
        ["/site/tensorflow"],
    ),
    "NumPy's ABI": (
        {
            "modules": {
                "tensorflow": Module(error="ImportError: numpy.core.multiarray failed")
            }
        },
        "error",
        ["multiarray"],
        ["NumPy", "TensorFlow"],
    ),
    "Protobuf": (
        {
            "modules": {
                "tensorflow": Module(
                    error="VersionError: Detected incompatible Protobuf Gencode"
                )
            }
        },
        "error",
        ["Gencode"],
        ["pip install --upgrade protobuf"],
    ),
    "a device that another process holds": (
        {"modules": {"tensorflow": Module(error="no end after 180 s")}},
        "error",
        ["no end after 180 s"],
        ["process"],
    ),
    "no AVX, and TensorFlow dies": (
        {
            "cpu_flags": frozenset({"sse2"}),
            "modules": {"tensorflow": Module(error="status -4", signal="SIGILL")},
        },
        "error",
        ["SIGILL"],
        ["AVX"],
    ),
    "no AVX, and no TensorFlow yet": (
        {
            "cpu_flags": frozenset({"sse2"}),
            "packages": {"tensorflow": None},
            "modules": {"tensorflow": NOT_INSTALLED, "tensorflow_text": None},
        },
        "error",
        ["AVX"],
        ["machine"],
    ),
    "another signal": (
        {"modules": {"tensorflow": Module(error="status -11", signal="SIGSEGV")}},
        "error",
        ["SIGSEGV"],
        ["--force-reinstall"],
    ),
    # --- TF-Text ---
    "no TF-Text": (
        {"packages": {"tensorflow-text": None}},
        "error",
        ["TF-Text"],
        ["pip install 'tensorflow-text==2.21.*'"],
    ),
    "no TF-Text on a TPU": (
        {**TPU, "packages": {**TPU_PACKAGES, "tensorflow-text": None}},
        "error",
        ["TF-Text"],
        ["pip install --no-deps 'tensorflow-text==2.20.*'"],
    ),
    "TF-Text of another version": (
        {"packages": {"tensorflow-text": "2.20.1"}},
        "error",
        ["TF-Text 2.20.1", "2.21"],
        ["tensorflow-text==2.21.*"],
    ),
    "TF-Text of another build": (
        {
            "modules": {
                "tensorflow_text": Module(error="NotFoundError: undefined symbol")
            }
        },
        "error",
        ["TF-Text", "undefined symbol"],
        ["--no-deps 'tensorflow-text==2.21.*'"],
    ),
    # --- Keras ---
    "another backend": (
        {
            "variables": {"KERAS_BACKEND": "jax"},
            "modules": {"keras": Module(backend="jax")},
        },
        "warning",
        ["KERAS_BACKEND", "jax"],
        ["KERAS_BACKEND=tensorflow"],
    ),
    "another backend in the file": (
        {"modules": {"keras": Module(backend="torch")}},
        "warning",
        ["keras.json", "torch"],
        ["KERAS_BACKEND=tensorflow"],
    ),
    "legacy Keras": (
        {"variables": {"TF_USE_LEGACY_KERAS": "1"}},
        "warning",
        ["TF_USE_LEGACY_KERAS"],
        ["unset"],
    ),
    "Keras 2": (
        {"packages": {"keras": "2.15.0"}},
        "error",
        ["keras 2.15.0", "3.10"],
        ["pip install --upgrade 'keras>=3.10'"],
    ),
    "an old KerasHub": (
        {"packages": {"keras-hub": "0.20.0"}},
        "warning",
        ["keras-hub 0.20.0"],
        ["keras-hub>=0.25"],
    ),
    "no KerasHub": (
        {"packages": {"keras-hub": None}},
        "error",
        ["keras-hub"],
        ["pip install keras-hub"],
    ),
    "a broken KerasHub": (
        {"modules": {"keras_hub": BROKEN}},
        "error",
        ["keras_hub"],
        ["keras-hub"],
    ),
    # --- others ---
    "setuptools without pkg_resources": (
        {"packages": {"setuptools": "82.0.1"}},
        "warning",
        ["tensorflow-hub 0.16.1", "setuptools 82.0.1"],
        ["setuptools<81"],
    ),
    "no setuptools": (
        {"packages": {"setuptools": None}},
        "warning",
        ["setuptools"],
        ["setuptools<81"],
    ),
    "a broken tensorflow-hub": (
        {"modules": {"tensorflow_hub": BROKEN}},
        "warning",
        ["tensorflow_hub"],
        ["labse-tf[quickstart]"],
    ),
    "tf-keras of another version": (
        {"packages": {"tf-keras": "2.20.1"}},
        "warning",
        ["tf-keras 2.20.1"],
        ["tf-keras==2.21.*"],
    ),
    "an old NumPy": (
        {"packages": {"numpy": "1.25.2"}},
        "warning",
        ["numpy 1.25.2"],
        ["numpy>=1.26"],
    ),
    "Python": ({"python": "3.14.1"}, "warning", ["3.14.1", "3.10"], ["wheel"]),
    "Windows": (
        {"system": "Windows", "packages": {"tensorflow-text": None}},
        "error",
        ["Windows"],
        ["WSL2"],
    ),
    "macOS on Intel": ({"system": "Darwin"}, "error", ["Intel"], ["Apple silicon"]),
    # --- accelerators and processors ---
    "a GPU without CUDA libraries": (
        {"nvidia_gpus": ("NVIDIA L4",), "nvidia_driver": "550.54"},
        "warning",
        ["GPU", "0", "1", "NVIDIA L4"],
        ["pip install 'labse-tf[gpu]'", "CUDA"],
    ),
    "one GPU of two": (
        {
            "nvidia_gpus": ("NVIDIA L4", "NVIDIA T4"),
            "nvidia_driver": "550.54",
            "modules": {"tensorflow": Module(version="2.21.0", cuda=True, gpus=("0",))},
        },
        "warning",
        ["GPU", "1", "2"],
        ["CUDA"],
    ),
    "a hidden GPU": (
        {
            "nvidia_gpus": ("NVIDIA L4",),
            "nvidia_driver": "550.54",
            "variables": {"CUDA_VISIBLE_DEVICES": "-1"},
        },
        "warning",
        ["GPU", "0", "1"],
        ["CUDA_VISIBLE_DEVICES=-1"],
    ),
    "a GPU and a build without CUDA": (
        {
            "nvidia_gpus": ("NVIDIA L4",),
            "nvidia_driver": "550.54",
            "packages": {"tensorflow": None, "tensorflow-cpu": "2.21.0"},
            "modules": {"tensorflow": Module(version="2.21.0")},
        },
        "warning",
        ["GPU", "0", "1"],
        ["CUDA", "pip uninstall -y tensorflow-cpu && pip install 'labse-tf[gpu]'"],
    ),
    "a GPU without a driver": (
        {"nvidia_gpus": ("NVIDIA device 0000:01:00.0",)},
        "warning",
        ["GPU", "0", "1"],
        ["driver"],
    ),
    "no AVX2": (
        {"cpu_flags": frozenset({"avx"})},
        "note",
        ["AVX2"],
        ["labse-nano"],
    ),
    "oneDNN's message": (
        {"messages": "port.cc: oneDNN custom operations are on. You may see"},
        "note",
        ["oneDNN"],
        ["TF_CPP_MIN_LOG_LEVEL"],
    ),
    "oneDNN off": (
        {"variables": {"TF_ENABLE_ONEDNN_OPTS": "0"}},
        "note",
        ["TF_ENABLE_ONEDNN_OPTS=0"],
        ["unset"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_case_is_found_and_told_what_to_do_about(name: str) -> None:
    changes, level, titles, advice = CASES[name]
    facts = changed(**changes)
    findings = diagnose(facts)
    matching = [f for f in findings if all(part in f.title for part in titles)]
    assert len(matching) == 1, findings
    assert matching[0].level == level
    assert all(part in matching[0].advice for part in advice), matching[0]
    # The worst comes first, and nothing else is worse than the case itself.
    levels = [LEVELS.index(finding.level) for finding in findings]
    assert levels == sorted(levels)
    assert levels[0] == LEVELS.index(level), findings
    lines = report(facts, findings)
    assert f"{level}: {matching[0].title}" in lines
    assert any(x.startswith(("error: ", "warning: ")) for x in lines) == (
        level != "note"
    )


def test_supported_versions_of_python_are_the_same_everywhere() -> None:
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    listed = re.findall(r"Python :: (3\.\d+)", setup)
    assert listed == ["3.10", "3.11", "3.12", "3.13"]
    low, high = (int(v.partition(".")[2]) for v in (listed[0], listed[-1]))
    assert f'python_requires=">=3.{low},<3.{high + 1}"' in setup
    for minor in range(low - 1, high + 2):
        found = diagnose(changed(python=f"3.{minor}.1"))
        assert bool(found) == (not low <= minor <= high), minor
    stated = f"Python 3.{low} to 3.{high}"
    assert stated in (ROOT / "README.md").read_text(encoding="utf-8")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert stated in script and f"(3, {low}) <=" in script
    assert f"< (3, {high + 1})" in script


def test_extras_are_those_of_the_installation() -> None:
    listed = {}
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    names: dict[str, ast.expr] = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }

    def requirements(node: ast.expr) -> list[str]:
        if isinstance(node, ast.Name):
            return requirements(names[node.id])
        if isinstance(node, ast.Starred):
            return requirements(node.value)
        if isinstance(node, ast.List):
            return [text for item in node.elts for text in requirements(item)]
        return [re.split(r"[<>=]", ast.literal_eval(node))[0]]

    table = names["EXTRAS_REQUIRE"]
    for key, value in zip(table.keys, table.values, strict=True):
        listed[ast.literal_eval(key)] = set(requirements(value)) - {"setuptools"}
    for_developers = {"bench", "parity", "test", "dev"}
    assert set(EXTRAS) == set(listed) - for_developers
    for name, extra in EXTRAS.items():
        assert set(extra.modules) == listed[name]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"labse-tf\[(\w+)\]", readme)) <= set(listed)
    assert "tensorboard" in readme and "labse-tf[train]" in readme


def test_extras_in_the_report() -> None:
    lines = report(changed(extras={"plots": (), "train": ("tensorboard",)}), [])
    plots, train = lines[lines.index("extras") + 1 :][:2]
    assert re.match(r"  plots +installed  .*--plot", plots)
    assert re.match(r"  train +missing .*: pip install 'labse-tf\[train\]'$", train)


def test_what_follows_from_a_broken_tensorflow_is_not_told_again() -> None:
    facts = changed(
        modules=dict.fromkeys(("tensorflow", "tensorflow_text", "keras_hub"), BROKEN)
    )
    [finding] = diagnose(facts)
    assert "TensorFlow" in finding.title and "libx.so" in finding.title


def test_a_custom_build_without_avx_that_works_is_no_error() -> None:
    assert diagnose(changed(cpu_flags=frozenset({"sse2"}))) == []


def test_facts_are_gathered_where_none_are_given(monkeypatch) -> None:
    made_up = Facts(packages={"tensorflow": "2.21.0", "tensorflow-tpu": "2.20.0"})
    monkeypatch.setattr(diagnosis, "gather", lambda: made_up)
    assert diagnose() == diagnose(made_up) != []


# === Real environments ===


def doctor(
    *arguments: object, paths: tuple[Path, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs the command with folders before all others on the path."""
    found = os.pathsep.join(map(str, (*paths, ROOT)))
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    return subprocess.run(
        [sys.executable, "-m", "labse_tf", "doctor", *map(str, arguments)],
        env={**clean, "PYTHONPATH": found, "PYTHONUTF8": "1", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_this_environment(tmp_path) -> None:
    import keras
    import tensorflow as tf

    path = tmp_path / "doctor.json"
    run = doctor("--json", path, TF_VAR_secret="hush")
    result = json.loads(path.read_text(encoding="utf-8"))
    facts, findings = result["facts"], result["findings"]
    assert run.returncode == (2 if any(f["level"] == "error" for f in findings) else 0)
    # The tests run, so nothing is broken.
    assert run.returncode == 0, run.stdout
    assert "Traceback" not in run.stderr
    modules = facts["modules"]
    assert modules["tensorflow"]["version"] == tf.__version__
    assert modules["keras"]["version"] == keras.__version__
    assert modules["keras"]["backend"] == "tensorflow"
    assert all(module["error"] is None for module in modules.values())
    seen = [device.name for device in tf.config.list_physical_devices("GPU")]
    assert modules["tensorflow"]["gpus"] == seen
    assert facts["cores"] >= 1
    # Imports ran with messages on: they are collected and not printed.
    assert "oneDNN" in facts["messages"] or not facts["cpu_flags"]
    assert "oneDNN custom operations are on. You" not in run.stdout + run.stderr
    for text in (f"tensorflow {tf.__version__}", f"keras {keras.__version__}"):
        assert text in " ".join(run.stdout.split())
    assert "hush" not in run.stdout + path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("code", "title"),
    [
        ("raise ImportError('made for a test')", "ImportError: made for a test"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "with SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "SIGILL: it was"),
        ("", "AttributeError: module 'tensorflow' has no attribute '__version__'"),
        ("print('{}'); raise SystemExit(0)", "SystemExit: 0"),
    ],
)
def test_a_tensorflow_that_cannot_be_imported(tmp_path, code, title) -> None:
    """The command itself goes on, says so, and ends with 2."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text(code + "\n")
    run = doctor(paths=(tmp_path,))
    assert run.returncode == 2, run.stdout
    assert "Traceback" not in run.stderr
    errors = [x for x in run.stdout.splitlines() if x.startswith("error: ")]
    assert len(errors) == 1, run.stdout
    assert title in errors[0]


def test_an_import_without_end(tmp_path, monkeypatch) -> None:
    (tmp_path / "tensorflow.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(environment, "PROBE_SECONDS", 2)
    modules, _ = environment._probe(["json", "tensorflow", "keras"])
    assert modules["json"].error is None
    assert "2 s" in modules["tensorflow"].error
    assert "tensorflow" in modules["keras"].error


def test_both_builds_as_pip_leaves_them(tmp_path) -> None:
    """The distribution of the TPU build beside a real CPU build."""
    info = tmp_path / "tensorflow_tpu-2.20.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: tensorflow-tpu\nVersion: 2.20.0\n"
    )
    run = doctor(paths=(tmp_path,))
    assert run.returncode == 2
    assert re.search(r"^error: .*tensorflow\b.*tensorflow-tpu\b", run.stdout, re.M)
    assert "ConfigureDistributedTPU" in run.stdout


def test_the_command_starts_without_numpy_and_rich(tmp_path) -> None:
    """What it needs itself is Python alone."""
    for name in ("numpy", "rich", "keras", "tensorflow", "h5py"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('no {name}')\n")
    run = doctor(paths=(tmp_path,))
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert "tensorflow" in run.stdout


def test_gpus_as_the_tool_lists_them(tmp_path, monkeypatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\necho '550.54.14, NVIDIA L4'\necho '550.54.14, Tesla T4'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert environment._nvidia() == (("NVIDIA L4", "Tesla T4"), "550.54.14")
    tool.write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    names, _ = environment._nvidia()
    assert "No devices were found" not in names


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Path:
    """The root of a machine without nvidia-smi, whose files a test makes."""
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_gpus_as_the_driver_lists_them(machine) -> None:
    assert environment._nvidia() == ((), None)
    driver = machine / "proc" / "driver" / "nvidia"
    (driver / "gpus" / "0000:01:00.0").mkdir(parents=True)
    information = driver / "gpus" / "0000:01:00.0" / "information"
    information.write_text("Model: \t\t Tesla T4\nIRQ: 33\n")
    (driver / "version").write_text("NVRM version: NVIDIA x86_64 Kernel Module  550.54")
    assert environment._nvidia() == (("Tesla T4",), "550.54")


def test_gpus_without_a_driver(machine) -> None:
    device = machine / "sys" / "bus" / "pci" / "devices" / "0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x040300\n")  # The sound of a graphics card.
    assert environment._nvidia() == ((), None)
    (device / "class").write_text("0x030200\n")
    assert environment._nvidia() == (("NVIDIA device 0000:01:00.0",), None)


def test_a_gpu_in_a_container_that_shows_only_its_file(machine) -> None:
    (machine / "dev").mkdir()
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm"):
        (machine / "dev" / name).touch()
    names, driver = environment._nvidia()
    assert [Path(name).name for name in names] == ["nvidia0"]
    [finding] = diagnose(changed(nvidia_gpus=names, nvidia_driver=driver))
    assert "labse-tf[gpu]" in finding.advice


def test_a_missing_extra_inside_a_missing_package(monkeypatch) -> None:
    monkeypatch.setitem(
        extras.EXTRAS, "gpu", extras.Extra("", {"x": "no_such_package.module"})
    )
    assert extras.missing("gpu") == ("x",)
