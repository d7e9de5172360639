"""Other people's layouts of the BERT in `peers`, written without their libraries.

The weights are `peers.bert_state()`, whose outputs in `golden/bert_outputs.npz` are
those of `transformers`: what is read back from any of the layouts must give them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from helpers import peers

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "Sun moon Star sky day night good bad old new hill Sea".split()
PIECES = ["##s", "##ly", "!", "?", "Straße", "été", "日"]
TOKENS = [*SPECIAL, *WORDS, *PIECES]
TOKENS += [f"word{i}" for i in range(peers.SHAPE["vocabulary_size"] - len(TOKENS))]
HEADS = peers.SHAPE["num_heads"]


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def change_json(path: Path, **changes: object) -> None:
    """Replaces values; None takes a key away."""
    value = json.loads(path.read_text(encoding="utf-8")) | changes
    write_json(path, {k: v for k, v in value.items() if v is not None})


def bert_config(**changes: object) -> dict[str, object]:
    """A `config.json`, which is a `bert_config.json` too."""
    return {
        "model_type": "bert",
        "vocab_size": peers.SHAPE["vocabulary_size"],
        "num_hidden_layers": peers.SHAPE["num_layers"],
        "num_attention_heads": HEADS,
        "hidden_size": peers.SHAPE["hidden_dim"],
        "intermediate_size": peers.SHAPE["intermediate_dim"],
        "max_position_embeddings": peers.SHAPE["max_sequence_length"],
        "type_vocab_size": peers.SHAPE["num_segments"],
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "layer_norm_eps": 1e-12,
    } | changes


def write_huggingface(
    folder: Path,
    state: Mapping[str, np.ndarray] | None = None,
    *,
    tokens: list[str] = TOKENS,
    **config: object,
) -> Path:
    """A plain directory as `transformers` writes it, with a cased vocabulary."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", bert_config(**config))
    state = peers.bert_state() if state is None else state
    arrays = {name: np.ascontiguousarray(array) for name, array in state.items()}
    save_file(arrays, folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {"do_lower_case": False})
    return folder


def add_modules(folder: Path, *modules: tuple[str, dict[str, object]]) -> Path:
    """Makes a sentence-transformers directory of a plain one."""
    kinds = [("Transformer", {}), *modules]
    listed = []
    for number, (kind, config) in enumerate(kinds):
        place = f"{number}_{kind}" if number else ""
        module = f"sentence_transformers.models.{kind}"
        listed.append(
            {"idx": number, "name": str(number), "path": place, "type": module}
        )
        if number:
            write_json(folder / place / "config.json", config)
    write_json(folder / "modules.json", listed)
    return folder


def pooling(mode: str) -> tuple[str, dict[str, object]]:
    """A pooling in the form of sentence-transformers 2 to 5."""
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    return "Pooling", {f"pooling_mode_{name}": name == mode for name in modes}


NORMALIZE = ("Normalize", {})


def google_state() -> dict[str, np.ndarray]:
    """The weights as Google's code for TensorFlow 1 names and turns them."""
    found = {}
    for name, array in peers.bert_state().items():
        path = name.replace(".", "/").replace("layer/", "layer_")
        if path.endswith("_embeddings/weight"):
            path = path.removesuffix("/weight")
        elif "LayerNorm" in path:
            path = path.replace("/weight", "/gamma").replace("/bias", "/beta")
        elif path.endswith("/weight"):
            path, array = path.removesuffix("weight") + "kernel", array.T
        found[path] = array
    return found


def write_bert_checkpoint(
    folder: Path, state: Mapping[str, np.ndarray] | None = None, **config: object
) -> Path:
    """A directory as Google released it, with what pre-training leaves behind."""
    folder.mkdir(parents=True, exist_ok=True)
    if state is None:
        state = {f"bert/{name}": array for name, array in google_state().items()}
    extra = {
        "cls/predictions/output_bias": np.zeros(3, np.float32),
        "global_step": np.zeros((), np.int64),
        "bert/pooler/dense/bias/adam_m": np.zeros(3, np.float32),
    }
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [
            tf.compat.v1.get_variable(name, initializer=array)
            for name, array in (extra | dict(state)).items()
        ]
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(variables)
        prefix = str(folder / "bert_model.ckpt")
        saver.save(session, prefix, write_meta_graph=False, write_state=False)
    settings = bert_config(**config)
    del settings["model_type"], settings["layer_norm_eps"]
    write_json(folder / "bert_config.json", settings)
    (folder / "vocab.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    return folder


# === SavedModels ===


def garden_state() -> dict[str, np.ndarray]:
    """The weights as the Model Garden's `BertEncoder` names and shapes them."""
    dim = peers.SHAPE["hidden_dim"]
    shapes = {"query": (dim, HEADS, -1), "key": (dim, HEADS, -1)}
    shapes |= {"value": (dim, HEADS, -1), "attention_output": (HEADS, -1, dim)}
    renamed = [
        ("embeddings/LayerNorm", "embeddings/layer_norm"),
        ("embeddings/word_embeddings", "word_embeddings/embeddings"),
        ("embeddings/position_embeddings", "position_embedding/embeddings"),
        ("embeddings/token_type_embeddings", "type_embeddings/embeddings"),
        ("encoder/", "transformer/"),
        ("attention/self/", "self_attention/"),
        ("attention/output/dense", "self_attention/attention_output"),
        ("attention/output/LayerNorm", "self_attention_layer_norm"),
        ("output/LayerNorm", "output_layer_norm"),
        ("intermediate/dense", "intermediate"),
        ("output/dense", "output"),
        ("pooler/dense", "pooler_transform"),
    ]
    found = {}
    for name, array in google_state().items():
        for old, new in renamed:
            name = name.replace(old, new)
        *_, part, kind = name.split("/")
        if part in shapes and kind == "kernel":
            array = array.reshape(shapes[part])
        elif part in ("query", "key", "value"):
            array = array.reshape(HEADS, -1)
        found[name] = array
    return found


def run_bert(weights: Mapping[str, tf.Variable], gelu: str, ids, mask, segments):
    """BERT (Devlin et al., section 3) on weights by Google's names: pooled output."""

    def dense(x: tf.Tensor, name: str) -> tf.Tensor:
        return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]

    def norm(x: tf.Tensor, name: str) -> tf.Tensor:
        mean, variance = tf.nn.moments(x, -1, keepdims=True)
        scale = weights[f"{name}/gamma"]
        return (x - mean) / tf.sqrt(variance + 1e-12) * scale + weights[f"{name}/beta"]

    def activate(x: tf.Tensor) -> tf.Tensor:
        if gelu == "gelu":
            return 0.5 * x * (1 + tf.math.erf(x / np.sqrt(2).astype("float32")))
        root = np.sqrt(2 / np.pi).astype("float32")
        return 0.5 * x * (1 + tf.tanh(root * (x + 0.044715 * tf.pow(x, 3))))

    def heads(x: tf.Tensor) -> tf.Tensor:
        rows, length = tf.shape(x)[0], tf.shape(x)[1]
        return tf.transpose(tf.reshape(x, (rows, length, HEADS, -1)), (0, 2, 1, 3))

    x = tf.gather(weights["embeddings/word_embeddings"], ids)
    x += weights["embeddings/position_embeddings"][: tf.shape(ids)[1]]
    x += tf.gather(weights["embeddings/token_type_embeddings"], segments)
    x = norm(x, "embeddings/LayerNorm")
    hidden = (1.0 - tf.cast(mask, tf.float32))[:, None, None, :] * -1e9
    for i in range(peers.SHAPE["num_layers"]):
        block = f"encoder/layer_{i}"
        attention = f"{block}/attention/self"
        query, key, value = (
            heads(dense(x, f"{attention}/{part}")) for part in ("query", "key", "value")
        )
        scores = tf.matmul(query, key, transpose_b=True)
        scores /= tf.sqrt(tf.cast(tf.shape(query)[-1], tf.float32))
        seen = tf.matmul(tf.nn.softmax(scores + hidden), value)
        seen = tf.transpose(seen, (0, 2, 1, 3))
        seen = tf.reshape(seen, tf.shape(x))
        output = f"{block}/attention/output"
        x = norm(x + dense(seen, f"{output}/dense"), f"{output}/LayerNorm")
        inner = activate(dense(x, f"{block}/intermediate/dense"))
        output = f"{block}/output"
        x = norm(x + dense(inner, f"{output}/dense"), f"{output}/LayerNorm")
    return tf.tanh(dense(x[:, 0], "pooler/dense"))


class Saved(tf.Module):
    """What a reusable SavedModel has: `variables`, and a call with a signature."""

    def __init__(self, state: Mapping[str, np.ndarray], root: str = "") -> None:
        super().__init__()
        self._weights = {
            name: tf.Variable(array, name=root + name) for name, array in state.items()
        }

    def by_google_names(self) -> dict[str, tf.Tensor]:
        """The Model Garden's weights turned back, for `run_bert`."""
        names = dict(zip(garden_state(), google_state(), strict=True))
        shapes = {name: array.shape for name, array in google_state().items()}
        return {
            google: tf.reshape(self._weights[garden], shapes[google])
            for garden, google in names.items()
        }


def _save(module: tf.Module, folder: Path, call, spec) -> Path:
    saved = tf.train.Checkpoint()
    saved.module = module
    saved.variables = list(module._weights.values())
    saved.trainable_variables = list(module._weights.values())
    saved.regularization_losses = []
    for name in ("vocab_file", "do_lower_case", "table"):
        if hasattr(module, name):
            setattr(saved, name, getattr(module, name))
    saved.__call__ = tf.function(call, input_signature=[spec])
    tf.saved_model.save(saved, str(folder))
    return folder


def write_labse(
    folder: Path,
    *,
    gelu: str = "gelu_approximate",
    vocabulary: Path | None = None,
    state: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """An encoder as the Model Garden's exporter writes it: ids in, a dict out."""
    module = Saved(garden_state() if state is None else state)
    if vocabulary is not None:
        module.vocab_file = tf.saved_model.Asset(str(vocabulary))
        module.do_lower_case = tf.Variable(False, trainable=False)

    def call(inputs):
        pooled = run_bert(
            module.by_google_names(),
            gelu,
            inputs["input_word_ids"],
            inputs["input_mask"],
            inputs["input_type_ids"],
        )
        return {"default": pooled, "pooled_output": pooled}

    spec = {
        name: tf.TensorSpec((None, None), tf.int32, name=name)
        for name in ("input_word_ids", "input_mask", "input_type_ids")
    }
    return _save(module, folder, call, spec)


def write_lealla(folder: Path, vocabulary: Path, *, gelu: str = "gelu") -> Path:
    """As LEALLA: strings in, unit vectors out, Google's names below `student_bert/`."""
    import tensorflow_text as tf_text

    state = google_state()
    unread = np.ones((2, peers.SHAPE["hidden_dim"]), np.float32)
    state["embeddings/token_type_embeddings_real"] = unread
    module = Saved(state, "student_bert/")
    table = tf.lookup.StaticVocabularyTable(
        tf.lookup.TextFileInitializer(
            str(vocabulary),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        ),
        1,
    )
    tokenizer = tf_text.BertTokenizer(
        table, lower_case=False, token_out_type=tf.int32, unknown_token="[UNK]"
    )
    module.table = table

    def call(texts):
        ids = tokenizer.tokenize(texts).merge_dims(1, 2)
        ends = tf.ones((ids.nrows(), 1), tf.int32)
        rows = tf.concat([ends * 2, ids, ends * 3], axis=1)
        dense = rows.to_tensor()
        mask = tf.sequence_mask(rows.row_lengths(), tf.shape(dense)[1], tf.int32)
        pooled = run_bert(module._weights, gelu, dense, mask, tf.zeros_like(dense))
        return tf.nn.l2_normalize(pooled, axis=-1)

    return _save(module, folder, call, tf.TensorSpec((None,), tf.string))
