"""SavedModels by the TF Hub text contract: written, made ready for a server, checked.

The contract is that of reusable SavedModels
(https://www.tensorflow.org/hub/reusable_saved_models) and of text embeddings
(https://www.tensorflow.org/hub/common_saved_model_apis/text).

`saved_model` writes them: `interfaces` has the objects, `storage` the types of their
weights, `parity` what those cost, `serving` what TF Serving reads besides.

`check` checks any SavedModel for text and reports what it found.
"""

from __future__ import annotations

from labse_tf.export.check import check_saved_model
from labse_tf.export.check.conformance import ConformanceReport
from labse_tf.export.interfaces import INTERFACES
from labse_tf.export.parity import Parity
from labse_tf.export.saved_model import ExportReport, export_saved_model, read_report
from labse_tf.export.storage import STORAGES

__all__ = [
    "INTERFACES",
    "STORAGES",
    "ConformanceReport",
    "ExportReport",
    "Parity",
    "check_saved_model",
    "export_saved_model",
    "read_report",
]
