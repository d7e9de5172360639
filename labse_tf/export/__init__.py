"""SavedModels by the TF Hub text contract: written, made ready for a server, checked.

The contract is that of reusable SavedModels
(https://www.tensorflow.org/hub/reusable_saved_models) and of text embeddings
(https://www.tensorflow.org/hub/common_saved_model_apis/text).

`saved_model` writes them.
"""

from __future__ import annotations

from labse_tf.export.saved_model import INTERFACES, export_saved_model

__all__ = ["INTERFACES", "export_saved_model"]
