"""Operations of a SavedModel that a stock TF Serving can run.

TF Serving 2.12 to 2.19 links TF-Text 2.12.1 (`tensorflow_serving/workspace.bzl` of
each of these tags), namely the target `//tensorflow_text:ops_lib`
(`tensorflow_serving/model_servers/BUILD`). A graph is compared with the oldest of these
versions: TensorFlow 2.12 with TF-Text 2.12.1.

`TF_TEXT_OPERATIONS` lists the operations that `ops_lib` registers at tag v2.12.1 of
https://github.com/tensorflow/text: `REGISTER_OP` and `REGISTER_TF_OP_SHIM` in
`tensorflow_text/core/ops/*.cc` of its dependencies. `trimmer_ops` is not among them,
but the Python package of later versions emits its `TFText>RoundRobinTrim`. The wheel
tensorflow-text 2.12.1 registers the same operations. `NEWER_OPERATIONS` and
`NEWER_ATTRIBUTES` are in the registry of TensorFlow 2.21.0 but not in that of 2.12.1,
except names that start with `_` or `Xla`.

Attributes are compared by name. `tf.saved_model.save` strips attributes with default
values, so an attribute in the graph changes the operation. A server ignores an
attribute that it does not know (`ValidateNodeDef` in
`tensorflow/core/framework/node_def_util.cc`, observed with 2.12.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from labse_tf.saved_model import graph_nodes

# The first version of TensorFlow that the lists below do not cover.
LISTED_BEFORE = (2, 22)


class Operation(NamedTuple):
    """An operation of a graph and the names of its attributes."""

    name: str
    attributes: frozenset[str]


TF_TEXT_OPERATIONS: dict[str, tuple[str, ...]] = {
    "CaseFoldUTF8": (),
    "ConstrainedSequence": (
        *("Tin", "Tsplits", "use_viterbi", "use_log_space"),
        "use_start_and_end_states",
    ),
    "FastBertNormalize": ("get_offsets",),
    "FastWordpieceTokenizeWithOffsets": (),
    "FindSourceOffsets": ("Tsplits",),
    "MaxSpanningTree": ("T", "forest"),
    "NormalizeUTF8": ("normalization_form",),
    "NormalizeUTF8WithOffsetsMap": ("normalization_form",),
    "PhraseTokenize": (),
    "RegexSplitWithOffsets": (),
    "RougeL": ("Tsplits", "Tvalues"),
    "SentenceFragments": (
        *("input_encoding", "errors", "replacement_char"),
        "replace_control_characters",
    ),
    "SentenceFragmentsV2": (),
    "SentencepieceDetokenizeOp": ("T", "Tsplits"),
    "SentencepieceIdToStringOp": (),
    "SentencepieceOp": ("model", "container", "shared_name", "use_node_name_sharing"),
    "SentencepieceStringToIdOp": (),
    "SentencepieceTokenizeOp": ("out_type", "Tsplits", "return_nbest"),
    "SentencepieceTokenizeWithOffsetsOp": ("out_type", "Tsplits", "return_nbest"),
    "SentencepieceVocabSizeOp": (),
    "SplitMergeTokenizeWithOffsets": ("force_split_at_break_character",),
    "TFText>BoiseTagsToOffsets": (),
    "TFText>ByteSplitByOffsets": (),
    "TFText>ByteSplitWithOffsets": (),
    "TFText>FastSentencepieceDetokenize": ("Tsplits",),
    "TFText>FastSentencepieceTokenize": ("out_type", "Tsplits"),
    "TFText>FastWordpieceDetokenize": (),
    "TFText>NgramsStringJoin": (
        *("width", "axis", "string_separator", "RAGGED_RANK", "Tsplits"),
    ),
    "TFText>OffsetsToBoiseTags": (),
    "TFText>PhraseDetokenize": (),
    "TFText>WhitespaceTokenizeWithOffsetsV2": (),
    "TokenizerFromLogits": (),
    "UnicodeScriptTokenizeWithOffsets": ("Tsplits", "keep_whitespace"),
    "WhitespaceTokenizeWithOffsets": ("Tsplits",),
    "WordpieceTokenizeWithOffsets": (
        *("suffix_indicator", "max_bytes_per_word", "max_chars_per_token"),
        *("use_unknown_token", "unknown_token", "split_unknown_characters"),
        "output_row_partition_type",
    ),
}

# Operations of core TensorFlow that were added after 2.12.
NEWER_OPERATIONS = frozenset(
    """
    CalibrationStatisticsSaver CheckPinned CollectiveAllToAllV2 ComputeDedupDataSize
    ComputeDedupDataSizeV2 ComputeDedupDataTupleMaskV2 Conv ConvertToCooTensor
    ConvertToListOfSparseCoreCooTensors ConvertToSparseCoreCsrWrappedCooTensor
    DTensorAllToAll DatasetFingerprint DebugIdentityV3 DecodeJxl DecodeWebP DumpTensor
    DynamicEnqueueTPUEmbeddingRaggedTensorBatch FFTND FinalizeTPUEmbeddingV2
    GetMinibatchSplitsWithPhysicalReplica GetMinibatchesInCsrWithPhysicalReplica
    GetStatsFromListOfSparseCoreCooTensors GetTpuTaskId GlobalIterId
    GlobalShuffleDataset IFFTND IRFFTND IndexFlatMapDataset IteratorGetModelProto
    ListSnapshotChunksDataset RFFTND RaggedFillEmptyRows RaggedFillEmptyRowsGrad
    RelayoutLike SegmentMaxV2 SegmentMinV2 SnapshotChunkDataset
    SortListOfSparseCoreCooTensors SparseSegmentMeanGradV2 SparseSegmentSqrtNGradV2
    SparseSegmentSumGradV2 StochasticCastToInt StoreMinibatchStatisticsInFdo
    TFRecordDatasetV2 TPUAnnotateTensorsWithDynamicShape TPUCopyWithDynamicShape
    TPUDummyInput UpdateTaskIdAndGlobalCoreArray WeightedFlatMapDataset
    """.split()
)

# Attribute -> operations to which it was added after 2.12.
NEWER_ATTRIBUTES: dict[str, frozenset[str]] = {
    attribute: frozenset(operations.split())
    for attributes, operations in {
        "batch_padding_policy low_priority_allowed_batch_sizes "
        "low_priority_batch_timeout_micros low_priority_max_batch_size "
        "low_priority_max_enqueued_batches mixed_priority_policy": "BatchFunction",
        "grad_a grad_b": "MatMul",
        "grad_x grad_y": "BatchMatMul BatchMatMulV2 BatchMatMulV3",
        "is_stateless": "CollectiveGatherV2 CollectiveReduceScatterV2 "
        "CollectiveReduceV2",
        "shape_type": "ConcatOffset",
        "mesh": "CopyToMesh",
        "calibration_method max_percentile min_percentile num_bins": "CustomAggregator",
        "cardinality_options": "DatasetCardinality",
        "force_synchronous": "ExperimentalMapDataset MapDataset",
        "bad_indices_policy": "GatherNd ResourceScatterNdAdd ResourceScatterNdMax "
        "ResourceScatterNdMin ResourceScatterNdSub ResourceScatterNdUpdate ScatterNd "
        "ScatterNdAdd ScatterNdMax ScatterNdMin ScatterNdNonAliasingAdd ScatterNdSub "
        "ScatterNdUpdate TensorScatterAdd TensorScatterMax TensorScatterMin "
        "TensorScatterSub TensorScatterUpdate",
        "config": "MergeDedupData SplitDedupData",
        "use_unbounded_threadpool": "ParallelMapDatasetV2",
        "sparse_gradient": "SparseSegmentMean SparseSegmentMeanWithNumSegments "
        "SparseSegmentSqrtN SparseSegmentSqrtNWithNumSegments SparseSegmentSum "
        "SparseSegmentSumWithNumSegments",
        "use_shardy_partitioner": "TPUReplicateMetadata",
        "Tshape": "TensorListGetItem",
        "resize_if_index_out_of_bounds": "TensorListSetItem",
        "Tk index_type": "TopKV2",
    }.items()
    for attribute in attributes.split()
}

# A newer attribute that is always written and only used in messages. TensorFlow 2.12.1
# ignores it and returns the same vectors.
IGNORED = Operation("VarHandleOp", frozenset({"debug_name"}))

# These operations call back into the Python process that traced them.
PYTHON_OPERATIONS = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})


def graph_operations(graph_def: Any) -> frozenset[Operation]:
    """Return the distinct operations of a graph and of its function library.

    Calls of library functions and attributes that start with `_` are left out.
    """
    functions = {f.signature.name for f in graph_def.library.function}
    return frozenset(
        Operation(
            node.op, frozenset(name for name in node.attr if not name.startswith("_"))
        )
        for node in graph_nodes(graph_def)
        if node.op not in functions
    )


def foreign_operations(operations: Iterable[Operation]) -> dict[str, str]:
    """Return operations that TF Serving 2.12 to 2.19 may lack, with the reason.

    Keys are names of operations, or `operation.attribute` for an unknown attribute.

    Example:
    >>> trim = Operation("TFText>RoundRobinTrim", frozenset({"T"}))
    >>> foreign_operations([trim, Operation("MatMul", frozenset({"T"}))])
    {'TFText>RoundRobinTrim': 'not in core TensorFlow, nor in TF-Text 2.12.1'}
    """
    found = {}
    for name, attributes in sorted(operations, key=lambda o: (o.name, *o.attributes)):
        known = TF_TEXT_OPERATIONS.get(name)
        if name in PYTHON_OPERATIONS:
            found[name] = "a Python function, which other processes lack"
        elif known is not None:
            for attribute in sorted(attributes.difference(known)):
                found[f"{name}.{attribute}"] = "an attribute newer than TF-Text 2.12.1"
        elif name in NEWER_OPERATIONS:
            found[name] = "newer than TensorFlow 2.12"
        elif not _is_core(name):
            found[name] = "not in core TensorFlow, nor in TF-Text 2.12.1"
        else:
            for attribute in sorted(attributes):
                if name in NEWER_ATTRIBUTES.get(attribute, ()):
                    found[f"{name}.{attribute}"] = "newer than TensorFlow 2.12"
    return found


def _is_core(name: str) -> bool:
    """Return whether an operation belongs to core TensorFlow.

    `tf.raw_ops` is generated when TensorFlow is built, so it lacks operations that
    other packages register. It has only a few of XLA's operations.
    """
    import tensorflow as tf

    return hasattr(tf.raw_ops, name) or name.startswith("Xla")
