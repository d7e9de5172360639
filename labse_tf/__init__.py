"""labse_tf: train, serve and measure LaBSE-style sentence encoders.

The names below are loaded on first use, so `import labse_tf` takes milliseconds and the
command line prints `--help` without TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labse_tf.hub import HubEncoder
    from labse_tf.models import DualEncoder, LaBSE, LaBSEBackbone
    from labse_tf.tokenizers import SentencePieceTokenizer, WordPieceTokenizer

__version__ = "0.1.0"

__all__ = [
    "DualEncoder",
    "HubEncoder",
    "LaBSE",
    "LaBSEBackbone",
    "SentencePieceTokenizer",
    "WordPieceTokenizer",
    "__version__",
]

_HOME = {
    "DualEncoder": "models",
    "HubEncoder": "hub",
    "LaBSE": "models",
    "LaBSEBackbone": "models",
    "SentencePieceTokenizer": "tokenizers",
    "WordPieceTokenizer": "tokenizers",
}
_MODULES = frozenset(
    {
        "adapters",
        "alignment",
        "blockwise",
        "checkpoints",
        "cli",
        "cpu_kernels",
        "data",
        "distillation",
        "distribute",
        "doctor",
        "duplicates",
        "encoders",
        "evaluation",
        "export",
        "files",
        "hub",
        "languages",
        "layers",
        "losses",
        "metrics",
        "mining",
        "models",
        "optimizers",
        "pipes",
        "plots",
        "precision",
        "preprocessing",
        "pretraining",
        "presets",
        "progress",
        "quantization",
        "quickstart",
        "recipes",
        "review",
        "saved_model",
        "settings",
        "text",
        "tokenizers",
        "training",
        "trimming",
    }
)


def __getattr__(name: str) -> Any:
    """Import a public name or a module of the package on first use."""
    if name in _HOME:
        module = importlib.import_module(f"labse_tf.{_HOME[name]}")
        return getattr(module, name)
    if name in _MODULES:
        return importlib.import_module(f"labse_tf.{name}")
    raise AttributeError(f"module 'labse_tf' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the lazy names and the loaded names."""
    return sorted(set(globals()) | set(__all__) | _MODULES)
