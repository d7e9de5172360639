"""Diagnosis: facts about an environment -> findings with advice."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from labse_tf.doctor.environment import TENSORFLOWS, Facts, Module, gather

# === Findings ===

LEVELS = ("error", "warning", "note")

# Supported versions: lower bound, exclusive upper bound. They repeat setup.py in a form
# that can be compared without another package.
_SUPPORTED = {
    "tensorflow": ((2, 20), (2, 22)),
    "keras": ((3, 10), None),
    "keras-hub": ((0, 25), None),
    "numpy": ((1, 26), None),
}

_TPU_INDEX = "https://storage.googleapis.com/libtpu-tf-releases/index.html"

_TPU_INSTALL = (
    "pip uninstall -y tensorflow tensorflow-cpu tensorflow-tpu tensorflow-text && "
    f"pip install 'tensorflow-tpu==2.20.*' --find-links {_TPU_INDEX} && "
    "pip install --no-deps 'tensorflow-text==2.20.*', then restart Python"
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """A finding about the environment.

    Attributes:
        level: `"error"`: commands will fail; `"warning"`: some commands will fail or be
            slow; `"note"`: for information, no action needed.
        title: Description of the finding.
        advice: How to fix it.
    """

    level: str
    title: str
    advice: str


def diagnose(facts: Facts | None = None) -> list[Finding]:
    """Return findings about an environment.

    Args:
        facts: Facts from `gather`. `None` gathers the facts of this environment, which
            takes as long as importing TensorFlow.

    Returns:
        Findings, errors first. Empty if there are no problems.

    Example:
        >>> from labse_tf.doctor import Facts, diagnose
        >>> both = {"tensorflow": "2.21.0", "tensorflow-tpu": "2.20.0"}
        >>> print(diagnose(Facts(packages=both))[0].title)
        tensorflow and tensorflow-tpu are installed over each other
    """
    rules: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
        _python,
        _tensorflow,
        _tensorflow_builds,
        _tpu,
        _tensorflow_text,
        _keras,
        _other_packages,
        _gpu,
        _processor_and_messages,
    )
    known = gather() if facts is None else facts
    found = [finding for rule in rules for finding in rule(known)]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def _version(text: str | None) -> tuple[int, ...]:
    """Return the leading numbers of a version: (2, 21, 0) for "2.21.0rc1"."""
    match = re.match(r"\d+(\.\d+)*", text or "")
    return tuple(map(int, match[0].split("."))) if match else ()


def _minor(text: str | None) -> str:
    return ".".join(map(str, _version(text)[:2]))


def _unsupported(name: str, version: str | None) -> bool:
    low, high = _SUPPORTED[name]
    numbers = _version(version)
    return bool(numbers) and (numbers < low or bool(high and numbers >= high))


def _builds(facts: Facts) -> list[str]:
    """Return the installed distributions of TensorFlow."""
    return [name for name in TENSORFLOWS if name in facts.packages]


def _has_tpu(facts: Facts) -> bool:
    """Return whether this machine has a TPU."""
    set_up = ("TPU_NAME", "TPU_WORKER_ID", "TPU_ACCELERATOR_TYPE", "COLAB_TPU_")
    accelerators = any("accel" in path for path in facts.tpu_devices)
    # Other devices that are passed through also have files in /dev/vfio.
    passed = bool(facts.tpu_devices) and "libtpu" in facts.packages
    return accelerators or passed or any(v.startswith(set_up) for v in facts.variables)


def _python(facts: Facts) -> Iterator[Finding]:
    if not (3, 10) <= _version(facts.python) < (3, 14):
        yield Finding(
            "warning",
            f"Python {facts.python}; labse_tf is tested on 3.10 to 3.13",
            "create an environment with one of these versions: TensorFlow and TF-Text "
            "may have no wheels for this one",
        )
    if facts.system == "Windows" and "tensorflow-text" not in facts.packages:
        yield Finding(
            "error",
            "TF-Text, which the tokenizer needs, has no build for Windows",
            "install labse_tf inside WSL2 (wsl --install)",
        )
    elif facts.system == "Darwin" and facts.machine == "x86_64":
        yield Finding(
            "error",
            "TF-Text and current TensorFlow have no build for macOS on Intel",
            "use Linux, or a Mac with Apple silicon",
        )


def _tensorflow(facts: Facts) -> Iterator[Finding]:
    """Check that TensorFlow is installed, importable and has a supported version."""
    builds, module = _builds(facts), facts.modules.get("tensorflow", Module())
    if not builds and module.error:
        yield Finding(
            "error",
            "TensorFlow is not installed",
            _TPU_INSTALL if _has_tpu(facts) else "pip install labse-tf",
        )
    elif module.error:
        title, advice = _failed_import(facts, module)
        yield Finding("error", title, advice)
    version = module.version or (facts.packages[builds[0]] if builds else None)
    if _unsupported("tensorflow", version):
        yield Finding(
            "warning",
            f"TensorFlow {version}; labse_tf is tested on 2.20 and 2.21",
            "pip install 'tensorflow>=2.20,<2.22' 'tensorflow-text>=2.20,<2.22'",
        )


def _failed_import(facts: Facts, module: Module) -> tuple[str, str]:
    """Return title and advice for an import error of TensorFlow."""
    error = module.error or ""
    title = f"TensorFlow cannot be imported: {_short(error)}"
    if module.signal == "SIGILL":
        return (
            f"TensorFlow crashed with SIGILL: it was built for a processor with "
            f"instructions that this one lacks ({facts.cpu or 'unknown'})",
            "the wheels of TensorFlow need AVX: use another machine, or build "
            "TensorFlow yourself",
        )
    if module.signal:
        title = f"importing TensorFlow ended the process with {module.signal}"
    for sign, advice in (
        (
            r"no end after",
            "it may wait for a TPU or GPU that another process holds: end that process "
            "and run labse-tf doctor again",
        ),
        (
            r"__version__",
            "the folder has remains of an uninstalled TensorFlow: pip uninstall -y "
            f"{' '.join(_builds(facts))}, delete the folder "
            f"{Path(module.file).parent if module.file else 'tensorflow'}, and "
            "pip install labse-tf",
        ),
        (
            r"numpy|_ARRAY_API|multiarray",
            "NumPy and TensorFlow are incompatible: pip install --upgrade "
            "--force-reinstall 'numpy>=1.26' tensorflow",
        ),
        (
            r"[Pp]rotobuf|Descriptors? cannot be created|google\.protobuf",
            "Protobuf and TensorFlow are incompatible: pip install --upgrade protobuf; "
            "pip check lists other conflicts",
        ),
        (
            r"GLIBC|libstdc",
            "the system is too old for TensorFlow's wheels: use a newer system or a "
            "container",
        ),
        (r"DLL", "install Microsoft's Visual C++ redistributable, or use WSL2"),
    ):
        if re.search(sign, error):
            return title, advice
    return (
        title,
        "pip install --force-reinstall tensorflow tensorflow-text; a file or folder "
        "named tensorflow in the working directory or on PYTHONPATH hides the real "
        f"package (found: {module.file or 'none'})",
    )


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 200 else words[:197] + "..."


def _tensorflow_builds(facts: Facts) -> Iterator[Finding]:
    """Check for distributions that overwrite each other's files."""
    builds, module = _builds(facts), facts.modules.get("tensorflow", Module())
    for_tpu = [name for name in builds if name.endswith("-tpu")]
    if for_tpu and len(builds) > 1:
        lost = not module.error and "tensorflow" in facts.modules
        lost = lost and not module.tpu_kernels
        what = (
            '; the CPU build is in use, so a TPU fails with "No OpKernel was '
            "registered to support Op 'ConfigureDistributedTPU'\""
            if lost
            else ""
        )
        yield Finding(
            "error",
            f"{' and '.join(builds)} are installed over each other{what}",
            "tensorflow-text depends on tensorflow, so install it without "
            f"dependencies: {_TPU_INSTALL}",
        )
    elif for_tpu and "tensorflow" in facts.modules and not module.error:
        if not module.tpu_kernels:
            yield Finding(
                "error",
                f"{for_tpu[0]} is installed, but its files are those of another "
                'build: a TPU would fail with "No OpKernel was registered to support '
                "Op 'ConfigureDistributedTPU'\"",
                _TPU_INSTALL,
            )
    elif len(builds) > 1:
        yield Finding(
            "warning",
            f"{' and '.join(builds)} are installed over each other",
            f"pip uninstall -y {' '.join(builds)} && pip install labse-tf",
        )


def _tpu(facts: Facts) -> Iterator[Finding]:
    module = facts.modules.get("tensorflow", Module())
    if not _has_tpu(facts):
        return
    builds = _builds(facts)
    if builds and not any(name.endswith("-tpu") for name in builds):
        yield Finding(
            "error" if not module.tpu_kernels else "note",
            f"this machine has a TPU, but {builds[0]} is not a build for TPUs",
            _TPU_INSTALL,
        )
    name = facts.variables.get("TPU_NAME")
    if facts.variables.get("COLAB_TPU_ADDR"):
        yield Finding(
            "warning",
            "COLAB_TPU_ADDR is set: this TPU is used over the network, as in Colab's "
            "older runtimes",
            "choose a runtime of type v5e-1 or later, or pass that address as tpu= to "
            "labse_tf.distribute.get_strategy",
        )
    elif name and name != "local":
        yield Finding(
            "warning",
            f"TPU_NAME is {name}, but labse_tf uses the TPU of this machine",
            'for another TPU call labse_tf.distribute.get_strategy("tpu", tpu=...); '
            "unset TPU_NAME if the TPU is in this machine",
        )
    if module.tpu_kernels:
        yield Finding(
            "note",
            "the TPU of this machine has the name local",
            'train with --strategy tpu, or use TPUClusterResolver(tpu="local"), with '
            'tpu="" on older images. A v5e-1 has one chip and one replica, so large '
            "batches need gradient caching",
        )


def _tensorflow_text(facts: Facts) -> Iterator[Finding]:
    builds, version = _builds(facts), facts.packages.get("tensorflow-text")
    tensorflow = facts.modules.get("tensorflow", Module())
    module = facts.modules.get("tensorflow_text", Module())
    wanted = _minor(tensorflow.version or (facts.packages[builds[0]] if builds else ""))
    if not wanted or (facts.system == "Windows" and version is None):
        return  # Another finding covers a missing TensorFlow and Windows.
    # TF-Text would install the distribution tensorflow over any other build.
    alone = "--no-deps " if "tensorflow" not in builds else ""
    install = f"pip install {alone}'tensorflow-text=={wanted}.*'"
    if version is None:
        yield Finding(
            "error", "TF-Text is not installed; the tokenizer needs it", install
        )
    elif _minor(version) != wanted:
        yield Finding(
            "error",
            f"TF-Text {version} was built for another TensorFlow than {wanted}",
            install,
        )
    elif module.error and not tensorflow.error:
        yield Finding(
            "error",
            f"TF-Text cannot be imported: {_short(module.error)}",
            f"pip install --force-reinstall --no-deps 'tensorflow-text=={wanted}.*'",
        )


def _keras(facts: Facts) -> Iterator[Finding]:
    variables, module = facts.variables, facts.modules.get("keras", Module())
    backend = module.backend or variables.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        where = (
            "KERAS_BACKEND is" if "KERAS_BACKEND" in variables else "keras.json selects"
        )
        yield Finding(
            "warning",
            f"{where} {backend}; labse_tf supports tensorflow. With another backend, "
            "models load and train on arrays of token ids, but the commands that "
            "train or export fail",
            "export KERAS_BACKEND=tensorflow, before Keras is imported",
        )
    if variables.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true"):
        yield Finding(
            "warning",
            "TF_USE_LEGACY_KERAS is set: tf.keras is Keras 2 and does not mix with "
            "the Keras 3 models of labse_tf",
            "unset TF_USE_LEGACY_KERAS",
        )
    for name, import_name in (("keras", "keras"), ("keras-hub", "keras_hub")):
        version = facts.packages.get(name)
        imported = facts.modules.get(import_name, Module())
        if version is None:
            if facts.packages:
                yield Finding(
                    "error", f"{name} is not installed", f"pip install {name}"
                )
        elif _unsupported(name, version):
            least = ".".join(map(str, _SUPPORTED[name][0] or ()))
            # Keras 2 has no backends and no `keras.ops`.
            old = name == "keras" and _version(version) < (3,)
            yield Finding(
                "error" if old else "warning",
                f"{name} {version}; labse_tf needs {least} or later",
                f"pip install --upgrade '{name}>={least}'",
            )
        elif imported.error and not facts.modules.get("tensorflow", Module()).error:
            yield Finding(
                "error",
                f"{import_name} cannot be imported: {_short(imported.error)}",
                f"pip install --upgrade --force-reinstall --no-deps {name}",
            )


def _other_packages(facts: Facts) -> Iterator[Finding]:
    packages = facts.packages
    if _unsupported("numpy", packages.get("numpy")):
        yield Finding(
            "warning",
            f"numpy {packages['numpy']}; labse_tf needs 1.26 or later",
            "pip install --upgrade 'numpy>=1.26'",
        )
    builds = _builds(facts)
    if "tf-keras" in packages and builds:
        version = packages[builds[0]]
        if _minor(packages["tf-keras"]) != _minor(version):
            yield Finding(
                "warning",
                f"tf-keras {packages['tf-keras']} does not match TensorFlow {version}: "
                "hub.KerasLayer may fail",
                f"pip install --no-deps 'tf-keras=={_minor(version)}.*'",
            )
    hub = facts.modules.get("tensorflow_hub", Module())
    setuptools = packages.get("setuptools")
    gone = setuptools is None or _version(setuptools) >= (81,)
    if "tensorflow-hub" in packages and (
        (gone and _version(packages["tensorflow-hub"]) <= (0, 16, 1))
        or "pkg_resources" in (hub.error or "")
    ):
        yield Finding(
            "warning",
            f"tensorflow-hub {packages['tensorflow-hub']} needs pkg_resources from "
            "setuptools below 81, but found "
            f"{'no setuptools' if setuptools is None else f'setuptools {setuptools}'}: "
            "hub.KerasLayer and hub.load fail",
            "pip install 'setuptools<81'",
        )
    elif hub.error and not facts.modules.get("tensorflow", Module()).error:
        yield Finding(
            "warning",
            f"tensorflow_hub cannot be imported: {_short(hub.error)}",
            "pip install --upgrade 'labse-tf[quickstart]'",
        )


def _gpu(facts: Facts) -> Iterator[Finding]:
    module = facts.modules.get("tensorflow", Module())
    if not facts.nvidia_gpus or module.error or "tensorflow" not in facts.modules:
        return
    if len(module.gpus) >= len(facts.nvidia_gpus):
        return
    names = ", ".join(facts.nvidia_gpus)
    title = (
        f"TensorFlow sees {len(module.gpus)} of {len(facts.nvidia_gpus)} GPUs ({names})"
    )
    visible = facts.variables.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        advice = f"CUDA_VISIBLE_DEVICES={visible} hides GPUs: unset it"
    elif facts.system == "Windows":
        advice = "TensorFlow has no GPU build for Windows since 2.11: use WSL2"
    elif facts.nvidia_driver is None:
        advice = "load the NVIDIA driver: nvidia-smi must list the GPU"
    elif not module.cuda:
        advice = (
            f"this build has no CUDA: pip uninstall -y {' '.join(_builds(facts))}"
            " && pip install 'labse-tf[gpu]'"
        )
    else:
        advice = (
            "the CUDA libraries are missing or have another version: pip install "
            "'labse-tf[gpu]', and remove other CUDA libraries from LD_LIBRARY_PATH; "
            "then restart Python"
        )
    yield Finding("warning", title, advice)


def _processor_and_messages(facts: Facts) -> Iterator[Finding]:
    flags, tensorflow = facts.cpu_flags, facts.modules.get("tensorflow", Module())
    if facts.machine in ("x86_64", "AMD64") and flags:
        works = "tensorflow" in facts.modules and not tensorflow.error
        if "avx" not in flags and not works and tensorflow.signal != "SIGILL":
            yield Finding(
                "error",
                f"the processor ({facts.cpu or 'unknown'}) lacks AVX, which "
                "TensorFlow's wheels need",
                "use another machine, or build TensorFlow yourself",
            )
        elif "avx" in flags and "avx2" not in flags:
            yield Finding(
                "note",
                "the processor lacks AVX2, so models with blocks are slow on it",
                "a model without blocks, such as labse-nano, is affected least",
            )
    if facts.variables.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        yield Finding(
            "note",
            "TF_ENABLE_ONEDNN_OPTS=0 turns off TensorFlow's fast CPU kernels",
            "unset it, unless results must be the same on all machines",
        )
    elif "oneDNN custom operations are on" in facts.messages:
        yield Finding(
            "note",
            "TensorFlow prints that oneDNN custom operations are on and which CPU "
            "instructions it uses: this is not an error",
            "the labse-tf command hides it; in Python, set TF_CPP_MIN_LOG_LEVEL=3 "
            "before the first import",
        )
