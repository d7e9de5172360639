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
    from labse_tf.tokenizers import WordPieceTokenizer

__version__ = "0.1.0"

__all__ = ["DualEncoder", "HubEncoder", "LaBSE", "LaBSEBackbone", "WordPieceTokenizer"]
__all__ += ["__version__"]

_HOME = {
    "DualEncoder": "models",
    "HubEncoder": "hub",
    "LaBSE": "models",
    "LaBSEBackbone": "models",
    "WordPieceTokenizer": "tokenizers",
}


def __getattr__(name: str) -> Any:
    """Import a public name or a module of the package on first use."""
    if name in _HOME:
        module = importlib.import_module(f"labse_tf.{_HOME[name]}")
        return getattr(module, name)
    if name in _modules():
        return importlib.import_module(f"labse_tf.{name}")
    raise AttributeError(f"module 'labse_tf' has no attribute {name!r}")


def _modules() -> set[str]:
    """Return the names of the modules that are loaded on first use."""
    import pkgutil

    # Not `beam`, whose import fails without Apache Beam.
    return {m.name for m in pkgutil.iter_modules(__path__)} - {"__main__", "beam"}


def __dir__() -> list[str]:
    """Return the lazy names and the loaded names."""
    return sorted(set(globals()) | set(__all__) | _modules())
