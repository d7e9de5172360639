"""Import of TF Hub SavedModels: LaBSE, LEALLA and other BERTs.

Two layouts are supported. Encoders exported by the Model Garden (LaBSE/2) take token
ids and name their variables `transformer/layer_0/self_attention/query/kernel`. LEALLA
takes strings and has the names of google-research/bert below `student_bert/`. It also
has a variable `token_type_embeddings_real` that its graph does not read.

Variable names do not specify the form of GELU or the number of heads. For this reason
the vectors of the converted model are compared with those of the SavedModel.

References:
    - https://www.tensorflow.org/hub/common_saved_model_apis/text, the interfaces.
    - Mao and Nakagawa, 2023, LEALLA, https://arxiv.org/abs/2302.08387.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from labse_tf import presets
from labse_tf.checkpoints import bert
from labse_tf.models import LaBSE
from labse_tf.saved_model import graph_nodes, load_saved_model, read_meta_graph
from labse_tf.tokenizers import WordPieceTokenizer
from labse_tf.tokenizers.vocabulary import load_vocabulary

# The preprocessing SavedModel of LaBSE/2 truncates sentences to this length.
_SEQUENCE_LENGTH = 128
# Float32 rounding stays far below this limit. Wrong heads or casing exceed it by far.
_TOLERANCE = 1e-4
_UNREAD = "token_type_embeddings_real"


def from_tf_hub(
    directory: str | Path,
    *,
    vocabulary: str | Path | None = None,
    lowercase: bool | None = None,
    activation: str | None = None,
    num_heads: int | None = None,
    sequence_length: int = _SEQUENCE_LENGTH,
    dtype: str | keras.DTypePolicy | None = None,
) -> LaBSE:
    """Load LaBSE, LEALLA or another BERT from a SavedModel of TF Hub.

    Args:
        directory: Directory of the SavedModel, for example from `kagglehub` or
            kaggle.com/models/google/labse.
        vocabulary: A `vocab.txt`, or a preprocessing SavedModel with the vocabulary in
            its assets. LaBSE/2 needs it (`universal-sentence-encoder/
            cmlm-multilingual-preprocess`). Default: the assets of `directory`.
        lowercase: Whether to lower-case text. Default: as the SavedModel specifies, or
            else true if the vocabulary has no uppercase letters.
        activation: Activation of the feed-forward layers. Default: read from the graph.
        num_heads: Number of heads, if the shapes of the variables do not specify it (as
            in LEALLA). Default: that of the model in `labse_tf.presets.FAMILY` with the
            same number of layers and dimensions.
        sequence_length: Maximum number of tokens per sentence.
        dtype: Compute type.

    Returns:
        The model. Its vectors equal those of the SavedModel up to float32 rounding and
        L2 normalization, which LaBSE/2 itself does not apply.

    Raises:
        ValueError: If there is no SavedModel; if its interface or variables are not
            supported; if the vocabulary is missing or has the wrong size; or if the
            vectors of the converted model differ from those of the SavedModel.

    References:
        https://www.kaggle.com/models/google/labse
    """
    folder = Path(directory)
    module = load_saved_model(folder)
    layout, source = _find_layout(folder, module)
    settings = _settings(folder, layout, source, num_heads)
    names = layout.names(settings["num_layers"])
    bert.check_names(source, names.values(), layout)
    tokens, where = _vocabulary(folder, module, vocabulary, settings["vocabulary_size"])
    settings["activation"] = activation or _activation(folder)
    if lowercase is None:
        stated = getattr(module, "do_lower_case", None)
        lowercase = (
            bert.is_lowercase(tokens) if stated is None else bool(stated.numpy())
        )
    model = bert.make_model(
        settings,
        WordPieceTokenizer(tokens, lowercase=lowercase),
        where=where,
        pooling="pooler",
        sequence_length=sequence_length,
        dtype=dtype,
    )
    bert.assign_weights(model, source, names, layout)
    if model.backbone.compute_dtype == "float32":
        _compare(folder, module, model)
    return model


def _find_layout(folder: Path, module: Any) -> tuple[bert.Layout, bert.Source]:
    """Return the layout of the variables, and the variables without their prefix."""
    variables = {
        variable.name.partition(":")[0]: variable
        for variable in getattr(module, "variables", [])
        if variable.dtype.is_floating and _UNREAD not in variable.name
    }
    # Some exporters add a suffix to the names of embedding tables.
    tidy = {
        re.sub(r"(_embeddings)/(embeddings|weight)$", r"\1", name): variable
        for name, variable in variables.items()
    }
    for layout, known in ((bert.MODEL_GARDEN, variables), (bert.GOOGLE, tidy)):
        table = layout.parts["token_embedding"] + layout.table
        roots = [
            name.removesuffix(table)
            for name in known
            if name == table or name.endswith(f"/{table}")
        ]
        if len(roots) == 1:
            # An encoder inside another model adds its name as a prefix.
            inside = {
                name.removeprefix(roots[0]): variable
                for name, variable in known.items()
                if name.startswith(roots[0])
            }
            return layout, _source(folder, inside)
    names = ", ".join(sorted(variables)[:3]) or "none"
    raise ValueError(
        f"{folder}: expected the variables of a BERT encoder, such as "
        "word_embeddings/embeddings or .../embeddings/word_embeddings. "
        f"Received: {len(variables)} variables, first {names}"
    )


def _source(folder: Path, variables: Mapping[str, Any]) -> bert.Source:
    """Return variables as a source of weights."""
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    return bert.Source(str(folder), shapes, lambda name: variables[name].numpy())


def _settings(
    folder: Path, layout: bert.Layout, source: bert.Source, num_heads: int | None
) -> dict[str, Any]:
    """Return the backbone's arguments from the shapes of the variables."""
    blocks = re.compile(r"(?:^|/)layer_(\d+)/")
    numbers = [int(m[1]) for name in source.shapes if (m := blocks.search(name))]

    def shape(path: str, rank: int) -> tuple[int, ...]:
        name = layout.names(1)[path]
        found = source.shapes.get(name, ())
        if len(found) != rank:
            raise ValueError(
                f"{folder}: expected a variable {name} of {rank} axes. "
                f"Received: {'shape ' + str(found) if found else 'none'}"
            )
        return found

    tokens, width = shape("token_embedding/embeddings", 2)
    block = "transformer_layer_0"
    if not layout.flat:
        heads = shape(f"{block}/self_attention_layer/query/kernel", 3)[1]
    else:
        heads = num_heads or _known_heads(folder, max(numbers, default=-1) + 1, width)
    return {
        "vocabulary_size": tokens,
        "num_layers": max(numbers, default=-1) + 1,
        "num_heads": heads,
        "hidden_dim": width,
        "intermediate_dim": shape(f"{block}/feedforward_intermediate_dense/bias", 1)[0],
        "max_sequence_length": shape("position_embedding/embeddings", 2)[0],
        "num_segments": shape("segment_embedding/embeddings", 2)[0],
    }


def _known_heads(folder: Path, layers: int, width: int) -> int:
    """Return the number of heads of the published model with this shape."""
    for known in presets.FAMILY.values():
        shape = (known.backbone["num_layers"], known.backbone["hidden_dim"])
        if shape == (layers, width):
            return known.backbone["num_heads"]
    raise ValueError(
        f"{folder}: the variables do not specify the number of heads: expected "
        f"`num_heads`. Received: None, for {layers} layers of {width} dimensions"
    )


# === Vocabulary ===


def _vocabulary(
    folder: Path, module: Any, given: str | Path | None, size: int
) -> tuple[list[str], str]:
    """Return the tokens and their file."""
    if given is not None:
        path = Path(given)
        candidates = sorted((path / "assets").glob("*")) if path.is_dir() else [path]
    else:
        path = folder
        candidates = sorted((folder / "assets").glob("*"))
        asset = getattr(module, "vocab_file", None)
        if asset is not None:
            candidates = [Path(asset.asset_path.numpy().decode())]
    if not candidates:
        raise ValueError(
            f"{path}: expected a vocabulary in the assets, or `vocabulary` "
            "(`--vocabulary`): a vocab.txt or the preprocessing SavedModel, which for "
            "LaBSE/2 is universal-sentence-encoder/cmlm-multilingual-preprocess. "
            "Received: no assets"
        )
    found: dict[Path, int] = {}
    for file in candidates:
        tokens = load_vocabulary(file)
        if len(tokens) == size:
            return tokens, str(file)
        found[file] = len(tokens)
    raise ValueError(
        f"{path}: expected {size:,} tokens, one per row of the token table. "
        "Received: "
        + ", ".join(f"{count:,} in {file.name}" for file, count in found.items())
    )


# === Graph and vectors ===


def _activation(folder: Path) -> str:
    """Return the activation of the feed-forward layers from the graph's operations."""
    graph_def = read_meta_graph(folder).graph_def
    operations = {node.op for node in graph_nodes(graph_def)}
    if operations & {"Erf", "Erfc"}:
        return "gelu"
    if "Pow" in operations and "Tanh" in operations:
        return "gelu_approximate"
    if "Relu" in operations:
        return "relu"
    raise ValueError(
        f"{folder}: expected a graph with GELU (Erf, or Pow and Tanh) or Relu, or "
        "`activation`. Received: a graph without these operations"
    )


def _compare(folder: Path, module: Any, model: LaBSE) -> None:
    """Raise an error if the model's vectors differ from the SavedModel's."""
    import tensorflow as tf

    preprocessor = model.text_preprocessor()
    words = [
        token
        for token in preprocessor.tokenizer.vocabulary
        if token.isalnum() and token.isascii()
    ]
    capitals = [word for word in words if word != word.lower()]
    rng = np.random.default_rng(0)
    texts = [
        " ".join(rng.choice(kind, size)) if kind else ""
        for kind in (words, capitals)
        for size in (1, 3, 6, 12)
    ]
    expected = _vectors(folder, module, tf.constant(texts), preprocessor(texts))
    difference = float(np.abs(expected - model.encode(texts, progress=False)).max())
    if not difference < _TOLERANCE:
        raise ValueError(
            f"{folder}: expected the converted model to return the SavedModel's "
            f"vectors within {_TOLERANCE:g}; set `activation`, `num_heads` or "
            "`lowercase` if you know them. Received: a difference of "
            f"{difference:.2g} with activation={model.backbone.activation!r}, "
            f"num_heads={model.backbone.num_heads}"
        )


def _vectors(
    folder: Path, module: Any, texts: Any, features: Mapping[str, Any]
) -> np.ndarray:
    """Return unit vectors of the SavedModel, called with token ids or with strings."""
    names = {
        "input_word_ids": "token_ids",
        "input_mask": "padding_mask",
        "input_type_ids": "segment_ids",
    }
    ids = {theirs: features[ours] for theirs, ours in names.items()}
    failures = []
    for inputs in (ids, texts):
        # Functions without a matching signature raise errors of several types.
        try:
            outputs = module(inputs)
        except Exception as error:
            failures.append(" ".join(str(error).split())[:80])
            continue
        if isinstance(outputs, Mapping):
            outputs = outputs.get("default", outputs.get("pooled_output"))
        shape = getattr(outputs, "shape", None)
        if shape is not None and len(shape) == 2:
            vectors = np.asarray(outputs, dtype=np.float32)
            return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        failures.append(f"an output of {type(outputs).__name__}")
    raise ValueError(
        f"{folder}: expected a SavedModel that takes {', '.join(names)} or strings and "
        f"returns vectors. Received: {'; '.join(failures)}"
    )
