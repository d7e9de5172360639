"""Export and check of SavedModels that follow the TF Hub text contract.

The contract consists of reusable SavedModels
(https://www.tensorflow.org/hub/reusable_saved_models) and the text embedding API
(https://www.tensorflow.org/hub/common_saved_model_apis/text).

`saved_model` writes a SavedModel. `interfaces` builds the exported objects, `storage`
the weights in each storage type, `parity` measures the loss of precision, and `serving`
writes the additional files of TF Serving. `check` checks any SavedModel for text.
"""

from labse_tf.export.check import check_saved_model
from labse_tf.export.check.conformance import ConformanceReport
from labse_tf.export.interfaces import INTERFACES
from labse_tf.export.parity import Parity
from labse_tf.export.saved_model import ExportReport, export_saved_model, read_report
from labse_tf.export.storage import STORAGES

__all__ = ["INTERFACES", "STORAGES", "ConformanceReport", "ExportReport", "Parity"]
__all__ += ["check_saved_model", "export_saved_model", "read_report"]
