"""Extras: optional packages, what each group of them is for, and whether it is there.

The table repeats the extras of setup.py that users need; a test compares them. The
module needs only Python.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True)
class Extra:
    """An extra, installed with `pip install 'labse-tf[NAME]'`.

    Attributes:
        purpose: What it is for.
        modules: Distribution -> the module by which to recognize it.
    """

    purpose: str
    modules: dict[str, str]


EXTRAS = {
    "quickstart": Extra(
        "labse-tf quickstart, and hub.KerasLayer",
        {
            "tensorflow-hub": "tensorflow_hub",
            "tf-keras": "tf_keras",
            "django": "django",
            "djangorestframework": "rest_framework",
            "sphinx": "sphinx",
            "weblate-language-data": "weblate_language_data",
        },
    ),
    "train": Extra("tensorboard --logdir RUN", {"tensorboard": "tensorboard"}),
    "gpu": Extra(
        "NVIDIA GPUs, on Linux and in WSL2", {"tensorflow[and-cuda]": "nvidia.cudnn"}
    ),
    "plots": Extra("plots: --plot, evaluate all", {"matplotlib": "matplotlib"}),
    "mining": Extra("fast neighbors: mine --index faiss", {"faiss-cpu": "faiss"}),
    "convert": Extra(
        "Hugging Face models: convert, --model DIR",
        {"huggingface-hub": "huggingface_hub", "safetensors": "safetensors"},
    ),
    "teacher": Extra(
        "teachers of other architectures: distill --teacher DIR",
        {"sentence-transformers": "sentence_transformers"},
    ),
    "serving": Extra(
        "warm-up requests: export --serving",
        {"tensorflow-serving-api": "tensorflow_serving"},
    ),
    "onnx": Extra(
        "ONNX Runtime: export --format onnx",
        {
            "onnx": "onnx",
            "onnxruntime": "onnxruntime",
            "safetensors": "safetensors",
        },
    ),
    "text": Extra("text compressed with zstd", {"zstandard": "zstandard"}),
    "parquet": Extra("pairs in Parquet files", {"pyarrow": "pyarrow"}),
    "tfds": Extra(
        "pairs from tfds:NAME", {"tensorflow-datasets": "tensorflow_datasets"}
    ),
    "beam": Extra("python -m labse_tf.beam", {"apache-beam": "apache_beam"}),
}


def missing(name: str) -> tuple[str, ...]:
    """Return the distributions of an extra that are not installed."""
    return tuple(
        distribution
        for distribution, module in EXTRAS[name].modules.items()
        if not _installed(module)
    )


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # A module without a specification, such as a script's.
        return True
    except ModuleNotFoundError:  # The package around the module is missing.
        return False


def require(name: str, user: str) -> None:
    """Raise an error if an extra is not installed, before any work.

    Args:
        name: A name in `EXTRAS`.
        user: What needs the extra, such as `"--plot"`.

    Raises:
        ImportError: If a distribution of the extra is missing.
    """
    absent = missing(name)
    if absent:
        raise ImportError(
            f"{user} needs {', '.join(absent)}: pip install 'labse-tf[{name}]'"
        )
