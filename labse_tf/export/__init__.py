"""Export as ONNX, and export and check of SavedModels of the TF Hub text contract.

The contract consists of reusable SavedModels
(https://www.tensorflow.org/hub/reusable_saved_models) and the text embedding API
(https://www.tensorflow.org/hub/common_saved_model_apis/text).

`saved_model` writes a SavedModel. `interfaces` builds the exported objects, `storage`
the weights in each storage type, `parity` measures the loss of precision, and `serving`
writes the additional files of TF Serving. `check` checks any SavedModel for text.

`onnx_directory` writes an ONNX graph, which `onnx_graph` builds, and the files that
Hugging Face's libraries read beside it.
"""

from labse_tf.export.check import check_saved_model
from labse_tf.export.check.conformance import ConformanceReport
from labse_tf.export.interfaces import INTERFACES
from labse_tf.export.onnx_directory import OnnxReport, export_onnx
from labse_tf.export.onnx_graph import ONNX_STORAGES, encoder_graph
from labse_tf.export.parity import Parity
from labse_tf.export.saved_model import ExportReport, export_saved_model, read_report
from labse_tf.export.storage import STORAGES

__all__ = ["INTERFACES", "STORAGES", "ConformanceReport", "ExportReport", "Parity"]
__all__ += ["ONNX_STORAGES", "OnnxReport", "check_saved_model", "encoder_graph"]
__all__ += ["export_onnx", "export_saved_model", "read_report"]
