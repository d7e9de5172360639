"""Facts about an environment, from which `diagnosis` derives findings.

`gather` reads the installed distributions and the hardware. It imports the libraries in
a separate process, because a TensorFlow that does not match the machine can crash or
hang. This module needs only Python.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from labse_tf.extras import EXTRAS, missing

# Distributions that all install files into the folder `tensorflow`.
TENSORFLOWS = (
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-gpu",
    "tensorflow-tpu",
    "tf-nightly",
    "tf-nightly-tpu",
)
DISTRIBUTIONS = (
    *TENSORFLOWS,
    *("tensorflow-text", "keras", "keras-hub", "keras-nlp", "tensorflow-hub"),
    *("tf-keras", "numpy", "h5py", "protobuf", "setuptools", "libtpu", "jax", "torch"),
)
# Full names instead of prefixes: Terraform's variables, which can contain secrets, also
# start with TF_.
_VARIABLES = re.compile(
    r"TF_(CONFIG|(CPP|USE|ENABLE|DISABLE|FORCE|GPU|XLA|NUM|DETERMINISTIC)_\w+)|TPU_\w+|"
    r"KERAS_(BACKEND|HOME)|CUDA_VISIBLE_DEVICES|XLA_FLAGS|JAX_PLATFORMS|PJRT_DEVICE|"
    r"COLAB_(TPU_\w+|RELEASE_TAG)|LD_LIBRARY_PATH|PYTHONPATH"
)
# Imported by the probe in this order; the optional modules only if installed.
_MODULES = ("tensorflow", "tensorflow_text", "keras", "keras_hub")
_OPTIONAL = {"tensorflow_hub": "tensorflow-hub", "tf_keras": "tf-keras"}
PROBE_SECONDS = 180
# Another folder in tests.
ROOT = Path("/")

# Prints one line of JSON per module at once, because the next import may crash.
_PROBE = """
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
for name in sys.argv[2:]:
    told = {"module": name}
    print(json.dumps({"module": name, "started": True}), flush=True)
    try:
        module = importlib.import_module(name)
        told["file"] = getattr(module, "__file__", None)
        told["version"] = getattr(module, "__version__", None)
        if name == "keras":
            told["backend"] = module.backend.backend()
        if name == "tensorflow":
            told["version"] = module.__version__
            told["cuda"] = module.test.is_built_with_cuda()
            told["gpus"] = [d.name for d in module.config.list_physical_devices("GPU")]
            told["tpus"] = [d.name for d in module.config.list_physical_devices("TPU")]
            from tensorflow.python.framework import kernels
            op = "ConfigureDistributedTPU"
            told["tpu_kernels"] = len(kernels.get_registered_kernels_for_op(op).kernel)
    except BaseException as error:
        told["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(told), flush=True)
"""


@dataclasses.dataclass(frozen=True)
class Module:
    """Result of importing a module.

    Attributes:
        error: Reason why it could not be imported, or `None`.
        signal: Name of the signal that ended the process during the import, or `None`.
        version: Its `__version__`.
        file: Its path.
        backend: Of `keras`: the backend in use.
        cuda: Of `tensorflow`: whether it was built for NVIDIA GPUs.
        gpus: Of `tensorflow`: visible GPUs.
        tpus: Of `tensorflow`: visible TPUs, before a TPU is initialized.
        tpu_kernels: Of `tensorflow`: number of kernels of the op that initializes a
            TPU; 0 unless this is the TPU build.
    """

    error: str | None = None
    signal: str | None = None
    version: str | None = None
    file: str | None = None
    backend: str | None = None
    cuda: bool = False
    gpus: tuple[str, ...] = ()
    tpus: tuple[str, ...] = ()
    tpu_kernels: int = 0


@dataclasses.dataclass(frozen=True)
class Facts:
    """Facts about an environment.

    Attributes:
        python: Version, such as `"3.11.9"`.
        system: `"Linux"`, `"Darwin"` or `"Windows"`.
        machine: `"x86_64"`, `"arm64"`, ...
        packages: Installed distribution of `DISTRIBUTIONS` -> version.
        modules: Module -> result of importing it.
        variables: Relevant environment variables.
        cpu: Name of the processor.
        cpu_flags: Its instruction sets (`"avx"`, ...); empty if unknown.
        cores: Number of logical cores that this process may use.
        memory_gb: Main memory; 0 if unknown.
        nvidia_gpus: GPUs of the machine, including those that TensorFlow does not see.
        nvidia_driver: Version of the NVIDIA driver; `None` if no driver is loaded.
        tpu_devices: Device files of TPUs on this machine.
        messages: Output of TensorFlow on standard error.
        extras: Name of an extra -> its distributions that are not installed.
    """

    python: str = "3.11.0"
    system: str = "Linux"
    machine: str = "x86_64"
    packages: Mapping[str, str] = dataclasses.field(default_factory=dict)
    modules: Mapping[str, Module] = dataclasses.field(default_factory=dict)
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cpu: str = ""
    cpu_flags: frozenset[str] = frozenset()
    cores: int = 1
    memory_gb: float = 0.0
    nvidia_gpus: tuple[str, ...] = ()
    nvidia_driver: str | None = None
    tpu_devices: tuple[str, ...] = ()
    messages: str = ""
    extras: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as a dict for JSON."""
        return dataclasses.asdict(self) | {"cpu_flags": sorted(self.cpu_flags)}


def gather() -> Facts:
    """Return the facts of this environment; unknown facts have their default values."""
    packages = _packages()
    wanted = [*_MODULES, *(m for m, name in _OPTIONAL.items() if name in packages)]
    modules, messages = _probe(wanted)
    cpu, flags = _processor()
    gpus, driver = _nvidia()
    return Facts(
        python=platform.python_version(),
        system=platform.system(),
        machine=platform.machine(),
        packages=packages,
        modules=modules,
        variables={
            name: value
            for name, value in sorted(os.environ.items())
            if _VARIABLES.fullmatch(name) and value
        },
        cpu=cpu,
        cpu_flags=flags,
        cores=_cores(),
        memory_gb=_memory_gb(),
        nvidia_gpus=gpus,
        nvidia_driver=driver,
        tpu_devices=tuple(
            str(path)
            for pattern in ("accel[0-9]*", "vfio/[0-9]*")
            for path in sorted(Path("/dev").glob(pattern))
        ),
        messages=messages,
        extras={name: missing(name) for name in EXTRAS},
    )


def _packages() -> dict[str, str]:
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _probe(names: Sequence[str]) -> tuple[dict[str, Module], str]:
    """Import modules in a new process that has the same `sys.path`."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"}
    code = [sys.executable, "-c", _PROBE, json.dumps(sys.path), *names]
    try:
        process = subprocess.run(
            code,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
        )
        output, messages, status = process.stdout, process.stderr, process.returncode
        end = f"the process ended with status {status}"
    except subprocess.TimeoutExpired as error:
        output, messages, status = error.stdout or b"", error.stderr or b"", 0
        end = f"no end after {PROBE_SECONDS} s"
    except OSError as error:
        output, messages, status, end = b"", b"", 0, str(error)
    modules: dict[str, Module] = {}
    started = None
    for line in output.decode("utf-8", "replace").splitlines():
        try:
            told = json.loads(line)
            name = told.pop("module")
        except (ValueError, KeyError, AttributeError, TypeError):
            continue  # Other output of a library.
        if told.pop("started", False):
            started = name
        else:
            lists = {key: tuple(v) for key, v in told.items() if isinstance(v, list)}
            modules[name] = Module(**{**told, **lists})
    died = signal.Signals(-status).name if status < 0 else None
    for name in names:
        if name not in modules:
            first = name == started or started is None
            modules[name] = Module(
                error=end if first else f"not imported: {started} ended the process",
                signal=died if first else None,
            )
    return modules, messages.decode("utf-8", "replace")


def _processor() -> tuple[str, frozenset[str]]:
    """Return the name and flags of the processor, if the system provides them."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor(), frozenset()
    found = re.findall(r"(?m)^([^\t:]+?)\s*:[ \t]*(.*)$", text)
    lines: dict[str, str] = dict(found)
    return (
        lines.get("model name", platform.processor()),
        frozenset((lines.get("flags") or lines.get("Features") or "").split()),
    )


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _memory_gb() -> float:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):
        return 0.0


def _nvidia() -> tuple[tuple[str, ...], str | None]:
    """Return GPUs and driver version from nvidia-smi, the driver, PCI or /dev."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
        )
        text = listed.stdout.decode("utf-8", "replace")
        rows = [line.split(",", 1) for line in text.splitlines() if "," in line]
        if listed.returncode == 0 and rows:
            return tuple(name.strip() for _, name in rows), rows[0][0].strip()
    except (OSError, subprocess.TimeoutExpired):
        pass
    found, driver = [], ROOT / "proc/driver/nvidia"
    for path in sorted((driver / "gpus").glob("*/information")):
        model = re.search(r"(?m)^Model:\s*(.+)$", _read(path))
        found.append(model[1] if model else path.parent.name)
    version = re.search(r"Kernel Module.*?(\d+\.[\d.]+)", _read(driver / "version"))
    for device in [] if found else sorted((ROOT / "sys/bus/pci/devices").glob("*")):
        # Class 03 is a display controller, 0x10de the vendor.
        ours = _read(device / "vendor").strip() == "0x10de"
        if ours and _read(device / "class").startswith("0x03"):
            found.append(f"NVIDIA device {device.name}")
    loaded = version[1] if version else None
    # In a container, these files may be all that is visible.
    files = sorted((ROOT / "dev").glob("nvidia[0-9]*"))
    if files and not found:
        found, loaded = [f"NVIDIA device {path}" for path in files], loaded or "unknown"
    return tuple(found), loaded


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
