"""Import of Hugging Face directories as sentence encoders.

In a directory of `sentence-transformers`, `modules.json` specifies how vectors are
computed. A directory of `transformers` has only a BERT. Weights are read from
safetensors one at a time, so LaBSE's 1.9 GB are not in memory twice. PyTorch is not
needed.

References:
    - https://www.sbert.net/docs/package_reference/sentence_transformer/models.html
    - https://huggingface.co/sentence-transformers/LaBSE, the released weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labse_tf.checkpoints import bert
from labse_tf.checkpoints.unigram import TOKENIZER, read_unigram
from labse_tf.files import read_json
from labse_tf.layers import POOLINGS
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.tokenizers import Tokenizer, WordPieceTokenizer
from labse_tf.tokenizers.vocabulary import SPECIAL_TOKENS, load_vocabulary

MODULES = "modules.json"
CONFIG = "config.json"
VOCABULARY = "vocab.txt"
WEIGHTS = "model.safetensors"
PROMPTS = "config_sentence_transformers.json"
_INDEX = "model.safetensors.index.json"
_PICKLED = "pytorch_model.bin"
_DTYPES = ("float32", "bfloat16", "float16")
_DEFAULT = object()
NEEDS_SAFETENSORS = (
    "Hugging Face directories need safetensors: pip install 'labse-tf[convert]'"
)


def from_huggingface(
    directory: str | Path,
    dtype: str = "float32",
    *,
    pooling: str | None = None,
    sequence_length: int | None = None,
    preprocessor: SentencePreprocessor | None | object = _DEFAULT,
    prefix: str | None = None,
) -> LaBSE:
    """Load a sentence encoder from a Hugging Face directory.

    Supports BERTs with WordPiece vocabularies, or with a Unigram model of SentencePiece
    in `tokenizer.json`, such as XLM-RoBERTa's: directories of `sentence-transformers`
    with Transformer, optional WordWeights, Pooling (`cls` or `mean`), optional Dense
    (tanh, as wide as the encoder, after `cls`, as in LaBSE) and Normalize; and plain
    directories of `transformers`. Vectors always have unit length, also if the
    directory has no Normalize.

    Text is split as by the directory's tokenizer, except words over 100 characters and
    special tokens in a text. See `labse_tf.WordPieceTokenizer` and
    `labse_tf.SentencePieceTokenizer`.

    Args:
        directory: Directory with `config.json`, weights and vocabulary.
        dtype: Compute type: `"float32"`, `"bfloat16"`, or `"auto"` for the type in
            `config.json` or, if it states none, of the weights. Variables are always
            float32. (In `LaBSE.from_preset`, `"auto"` is the type that suits this CPU.)
        pooling: Pooling, only for directories without `modules.json`. Default:
            `"pooler"` if the weights include a pooler, as in the ports of LaBSE and
            LEALLA, else `"mean"`.
        sequence_length: Maximum number of tokens per sentence. Default: the
            directory's.
        preprocessor: A preprocessor to use instead of the directory's. With `None` the
            model has no preprocessor, and the directory's tokenizer is not read, so
            that it can be of any kind.
        prefix: Text before each sentence, such as `"query: "` for the E5 models.
            Default: the default prompt in `config_sentence_transformers.json`, if any.

    Returns:
        The model. If the directory has no pooler, the model's pooler is the identity
        and is not used.

    Raises:
        ValueError: If files are missing or damaged; if weights are missing, unexpected
            or of another shape; if the vocabulary and the token table differ in size;
            or if the architecture, pooling or tokenizer is not supported.
        ImportError: If safetensors (or PyTorch, for `pytorch_model.bin`) is missing.

    References:
        https://www.sbert.net/docs/sentence_transformer/usage/custom_models.html
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: expected a Hugging Face directory. Received: no directory"
        )
    steps = _read_steps(folder)
    if steps is not None and pooling is not None:
        raise ValueError(
            f"`pooling` must be left out for directories with {MODULES}. "
            f"Received: pooling={pooling!r} and {folder / MODULES}"
        )
    if pooling is not None and pooling not in POOLINGS:
        raise ValueError(
            f"`pooling` must be one of {POOLINGS}. Received: pooling={pooling!r}"
        )
    transformer = folder if steps is None else steps.transformer
    config = _read_config(transformer)
    settings = bert.backbone_config(transformer / CONFIG, config)
    source = _encoder_source(_weights(transformer))
    has_pooler = any(name.startswith("pooler.") for name in source.shapes)
    if steps is not None:
        pooling = steps.pooling
    elif pooling is None:
        pooling = "pooler" if has_pooler else "mean"
    dense = steps.dense if steps is not None else None
    if dense is not None:
        # The vectors pass through the Dense module instead of the BERT's pooler.
        source = _without(source, "pooler.")
        has_pooler = False
    names = bert.HUGGING_FACE.names(
        settings["num_layers"],
        pooler=has_pooler or (pooling == "pooler" and dense is None),
    )
    bert.check_names(source, names.values(), bert.HUGGING_FACE)
    compute_type = _compute_type(transformer / CONFIG, config, source, dtype)
    if preprocessor is _DEFAULT:
        tokenizer, where, length = _read_tokenizer(
            transformer, steps, settings["vocabulary_size"]
        )
        if prefix is None:
            prefix = "" if steps is None else steps.prefix
        model = bert.make_model(
            settings,
            tokenizer,
            where=where,
            pooling=pooling,
            sequence_length=sequence_length
            or length
            or settings["max_sequence_length"],
            prefix=prefix,
            dtype=compute_type,
        )
    else:
        backbone = LaBSEBackbone(**settings, dtype=compute_type)
        model = LaBSE(backbone, preprocessor, pooling=pooling)  # type: ignore[arg-type]
    bert.assign_weights(model, source, names, bert.HUGGING_FACE)
    if dense is not None:
        _assign_dense(model, dense)
    elif not has_pooler:
        bert.neutral_pooler(model)
    if steps is not None and steps.word_weights is not None:
        _assign_word_weights(model, steps.word_weights)
    return model


def check_supported(directory: str | Path) -> None:
    """Check the architecture and the modules of a Hugging Face directory.

    Neither the tokenizer nor the weights are read.

    Raises:
        ValueError: If `from_huggingface` does not support them, or a file is damaged.
    """
    read_sizes(directory)


def read_sizes(directory: str | Path) -> dict[str, Any]:
    """Return the sizes of the encoder in a Hugging Face directory.

    Neither the tokenizer nor the weights are read.

    Returns:
        Arguments of `LaBSEBackbone` and, if `modules.json` states it, `pooling`.

    Raises:
        ValueError: See `check_supported`.
    """
    folder = Path(directory)
    steps = _read_steps(folder)
    transformer = folder if steps is None else steps.transformer
    sizes = bert.backbone_config(transformer / CONFIG, _read_config(transformer))
    return sizes if steps is None else {**sizes, "pooling": steps.pooling}


# === Modules and configuration ===


@dataclass(frozen=True)
class _Steps:
    """The modules of a sentence-transformers directory."""

    transformer: Path
    pooling: str
    dense: Path | None
    word_weights: Path | None
    prefix: str


def _read_steps(folder: Path) -> _Steps | None:
    """Read `modules.json`; return `None` if it does not exist."""
    path = folder / MODULES
    if not path.is_file():
        return None
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
        kinds = [
            (str(m["type"]).rpartition(".")[2], folder / m["path"]) for m in modules
        ]
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f'{path}: expected a list of modules, each with "type" and "path". '
            f"Received: {error!r}"
        ) from error
    order = ("Transformer", "WordWeights", "Pooling", "Dense", "Normalize")
    found: dict[str, Path] = {}
    for kind, place in kinds:
        known = order.index(kind) if kind in order else -1
        if known < 0 or any(order.index(other) >= known for other in found):
            raise ValueError(
                f"{path}: expected the modules {', '.join(order)} in this order, each "
                f"at most once. Received: {', '.join(name for name, _ in kinds)}"
            )
        found[kind] = place
    for kind in ("Transformer", "Pooling"):
        if kind not in found:
            raise ValueError(
                f"{path}: expected a {kind} among the modules. "
                f"Received: {', '.join(found) or 'none'}"
            )
    prefix = _read_prompt(folder / PROMPTS)
    pooling = _read_pooling(found["Pooling"] / CONFIG)
    dense, weights = found.get("Dense"), found.get("WordWeights")
    if dense is not None:
        if pooling != "cls" or weights is not None:
            raise ValueError(
                f"{path}: expected a Dense only after the pooling cls, as in LaBSE. "
                f"Received: a Dense after {pooling}"
            )
        pooling = "pooler"
    if weights is not None:
        if pooling != "mean":
            raise ValueError(
                f"{path}: expected WordWeights only before the pooling mean. "
                f"Received: WordWeights before {pooling}"
            )
        pooling = "weighted_mean"
    return _Steps(found["Transformer"], pooling, dense, weights, prefix)


def _read_prompt(path: Path) -> str:
    """Return the default prompt, a prefix of every sentence; empty without one."""
    if not path.is_file():
        return ""
    config = read_json(path)
    name, prompts = config.get("default_prompt_name"), config.get("prompts") or {}
    prompt = prompts.get(name, "") if isinstance(prompts, dict) and name else ""
    if not isinstance(prompt, str):
        raise ValueError(
            f"{path}: expected text as the prompt {name!r}. Received: {prompt!r:.80}"
        )
    return prompt


def _read_pooling(path: Path) -> str:
    """Read the pooling from `1_Pooling/config.json` in its old or new format."""
    config = read_json(path)
    if "pooling_mode" in config:
        modes = config["pooling_mode"]
        modes = [modes] if isinstance(modes, str) else list(modes or [])
    else:
        modes = [
            key.removeprefix("pooling_mode_")
            .removesuffix("_tokens")
            .replace("cls_token", "cls")
            for key, value in config.items()
            if key.startswith("pooling_mode_") and value is True
        ]
    # Division by the square root of the length differs from the mean only in the
    # length of the vector.
    ours = {"cls": "cls", "mean": "mean", "mean_sqrt_len": "mean"}
    ours["mean_sqrt_len_tokens"] = "mean"
    if len(modes) != 1 or modes[0] not in ours:
        raise ValueError(
            f"{path}: expected the pooling cls or mean. "
            f"Received: {' + '.join(map(str, modes)) or 'none'}"
        )
    return ours[modes[0]]


def _read_config(transformer: Path) -> dict[str, Any]:
    """Read `config.json`; raise an error unless it describes a plain BERT."""
    path = transformer / CONFIG
    config = read_json(path)
    for key, expected in (
        ("model_type", ("bert",)),
        ("position_embedding_type", (None, "absolute")),
        ("is_decoder", (None, False)),
        ("add_cross_attention", (None, False)),
    ):
        if config.get(key) not in expected:
            raise ValueError(
                f'{path}: expected "{key}": {json.dumps(expected[-1])}. '
                f"Received: {json.dumps(config.get(key))}"
            )
    return config


def _compute_type(
    path: Path, config: Mapping[str, Any], source: bert.Source, dtype: str
) -> str:
    """Return `dtype`, or for `"auto"` the type in `config.json` or of the weights."""
    if dtype != "auto":
        return dtype
    named, where = config.get("dtype") or config.get("torch_dtype"), str(path)
    if named is None:
        # A small one, because a weight has to be read.
        named = source.read("embeddings.token_type_embeddings.weight").dtype.name
        where = source.where
    if named not in _DTYPES:
        raise ValueError(
            f'{where}: expected "dtype" to be one of {", ".join(_DTYPES)}. '
            f"Received: {named!r}"
        )
    return named


# === Tokenizer ===


def _read_tokenizer(
    folder: Path, steps: _Steps | None, rows: int
) -> tuple[Tokenizer, str, int | None]:
    """Return the tokenizer, its vocabulary file and the maximum number of tokens."""
    config = _optional_json(folder / "tokenizer_config.json")
    whole = _optional_json(folder / "tokenizer.json")
    sentences = (
        _optional_json(folder / "sentence_bert_config.json")
        if steps is not None
        else {}
    )
    # `transformers` writes 1e30 if there is no limit.
    limits = [sentences.get("max_seq_length"), config.get("model_max_length")]
    known = [n for n in limits if isinstance(n, (int, float)) and 3 <= n <= 1 << 20]
    length = int(known[0]) if known else None
    if (whole.get("model") or {}).get("type") == "Unigram":
        if sentences.get("do_lower_case"):
            raise ValueError(
                f"{folder / 'sentence_bert_config.json'}: expected do_lower_case to be "
                "false for a SentencePiece tokenizer. Received: true"
            )
        return read_unigram(folder, rows), str(folder / TOKENIZER), length
    vocabulary, where = _read_vocabulary(folder, whole)
    _refuse_tokenizers(folder, config)
    lowercase, strip_accents = _read_casing(folder, config, whole)
    if sentences.get("do_lower_case") and not lowercase:
        # sentence-transformers lower-cases before it calls the tokenizer, so accents
        # are kept.
        lowercase = True
    tokenizer = WordPieceTokenizer(
        vocabulary, lowercase=lowercase, strip_accents=strip_accents
    )
    return tokenizer, where, length


def _optional_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; return an empty one if the file does not exist."""
    return read_json(path) if path.is_file() else {}


def _refuse_tokenizers(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise an error for unsupported settings in `tokenizer_config.json`."""
    path = folder / "tokenizer_config.json"

    def refuse(key: str, expected: str) -> None:
        raise ValueError(
            f'{path}: expected "{key}" to be {expected}. '
            f"Received: {json.dumps(config[key], ensure_ascii=False)}"
        )

    kind = config.get("tokenizer_class")
    generic = ("PreTrainedTokenizerFast", "TokenizersBackend")
    if kind not in (None, "BertTokenizer", "BertTokenizerFast", *generic):
        refuse("tokenizer_class", "BertTokenizer or BertTokenizerFast")
    for key in ("do_basic_tokenize", "tokenize_chinese_chars"):
        if config.get(key, True) is False:
            refuse(key, "true")
    if config.get("never_split"):
        refuse("never_split", "empty")
    for token in SPECIAL_TOKENS:
        key = f"{token.strip('[]').lower()}_token"
        given = config.get(key) or token
        if (given.get("content") if isinstance(given, dict) else given) != token:
            refuse(key, f'"{token}"')


def _read_vocabulary(folder: Path, whole: Mapping[str, Any]) -> tuple[list[str], str]:
    """Return the tokens and their file: `tokenizer.json` or else `vocab.txt`."""
    if whole:
        path = folder / "tokenizer.json"
        return _wordpieces(path, whole), str(path)
    path = folder / VOCABULARY
    if not path.is_file():
        raise ValueError(
            f"{folder}: expected a WordPiece vocabulary, {VOCABULARY} or "
            "tokenizer.json. Received: neither file"
        )
    return load_vocabulary(path), str(path)


def _wordpieces(path: Path, whole: Mapping[str, Any]) -> list[str]:
    """Return the tokens of a `tokenizer.json` in the order of their ids."""
    model = whole.get("model") or {}
    vocabulary = model.get("vocab")
    prefix = model.get("continuing_subword_prefix", "##")
    if (
        # Files of tokenizers before version 0.9 have no type.
        model.get("type", "WordPiece") != "WordPiece"
        or prefix != "##"
        or not isinstance(vocabulary, dict)
    ):
        raise ValueError(
            f'{path}: expected a model of type WordPiece with the prefix "##"; '
            "`labse-tf shrink --vocab` makes a student of a Unigram model. "
            f"Received: {model.get('type')} with {prefix!r}"
        )
    rows = dict(vocabulary)
    for added in whole.get("added_tokens") or []:
        rows.setdefault(added["content"], added["id"])
    tokens = {row: token for token, row in rows.items()}
    if len(tokens) < len(rows) or not all(
        isinstance(row, int) and 0 <= row < 1 << 24 for row in tokens
    ):
        raise ValueError(
            f"{path}: expected a distinct id, at least 0, for each token. "
            f"Received: {len(tokens):,} distinct ids for {len(rows):,} tokens"
        )
    # If a token occurred twice in the original file, one id is never used.
    return [tokens.get(row, f"[[{row}]]") for row in range(max(tokens, default=-1) + 1)]


def _read_casing(
    folder: Path, config: Mapping[str, Any], whole: Mapping[str, Any]
) -> tuple[bool, bool]:
    """Return whether to lower-case and to strip accents, according to both files."""
    path = folder / "tokenizer.json"
    normalizer = whole.get("normalizer") or {}
    if whole and (
        normalizer.get("type") != "BertNormalizer"
        or not normalizer.get("clean_text", True)
        or not normalizer.get("handle_chinese_chars", True)
        or (whole.get("pre_tokenizer") or {}).get("type") != "BertPreTokenizer"
    ):
        raise ValueError(
            f"{path}: expected a BertNormalizer that cleans text and splits Chinese "
            "characters, and a BertPreTokenizer. Received: "
            f"{json.dumps(whole.get('normalizer'))} and "
            f"{json.dumps(whole.get('pre_tokenizer'))}"
        )
    stated = []
    if "do_lower_case" in config:
        stated.append((config["do_lower_case"], config.get("strip_accents")))
    if normalizer:
        stated.append((normalizer.get("lowercase"), normalizer.get("strip_accents")))
    # BERT's tokenizer lower-cases by default. It strips accents by default if it
    # lower-cases.
    casings = {
        (bool(lower), bool(lower if strip is None else strip))
        for lower, strip in stated or [(True, config.get("strip_accents"))]
    }
    if len(casings) > 1:
        raise ValueError(
            f"{folder}: expected the same values for lower-casing and stripping "
            "accents in tokenizer_config.json and tokenizer.json. Received: "
            f"{' and '.join(map(str, sorted(casings)))}"
        )
    return casings.pop()


# === Weights ===


def _weights(folder: Path) -> bert.Source:
    """Return all weights of a directory by the names in its files."""
    if (folder / WEIGHTS).is_file():
        return _safetensors(folder / WEIGHTS)
    if (folder / _INDEX).is_file():
        return _shards(folder / _INDEX)
    if (folder / _PICKLED).is_file():
        return _pickled(folder / _PICKLED)
    others = sorted(
        path.name
        for path in folder.iterdir()
        if path.suffix in (".h5", ".msgpack", ".onnx", ".bin", ".safetensors")
    )
    raise ValueError(
        f"{folder}: expected weights in {WEIGHTS}, {_INDEX} or {_PICKLED}. "
        f"Received: {', '.join(others) or 'none'}"
    )


def _safetensors(path: Path) -> bert.Source:
    """Return the weights of a safetensors file."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ImportError(NEEDS_SAFETENSORS) from error

    def failed(error: Exception) -> ValueError:
        return ValueError(
            f"{path}: expected a valid safetensors file. Received: {error}"
        )

    try:
        with safe_open(path, "np") as file:
            shapes = {
                name: tuple(file.get_slice(name).get_shape()) for name in file.keys()
            }
    except SafetensorError as error:
        raise failed(error) from error

    def read(name: str) -> np.ndarray:
        try:
            with safe_open(path, "np") as file:
                return file.get_tensor(name)
        except (SafetensorError, TypeError, AttributeError) as error:
            raise failed(error) from error

    return bert.Source(str(path), shapes, read)


def _shards(index: Path) -> bert.Source:
    """Return the weights of the files that an index lists."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict):
        raise ValueError(
            f'{index}: expected "weight_map", an object from weights to files. '
            f"Received: {type(places).__name__}"
        )
    files: dict[str, bert.Source] = {}
    for name in sorted(set(places.values())):
        if not (index.parent / name).is_file():
            raise ValueError(
                f"{index}: expected the file {name} in the same directory. "
                "Received: no such file"
            )
        files[name] = _safetensors(index.parent / name)
    shapes = {}
    for weight, name in places.items():
        if weight not in files[name].shapes:
            raise ValueError(
                f"{index}: expected {weight} in {name}. Received: no such weight"
            )
        shapes[weight] = files[name].shapes[weight]
    return bert.Source(
        str(index), shapes, lambda weight: files[places[weight]].read(weight)
    )


def _pickled(path: Path) -> bert.Source:
    """Return the weights of a PyTorch file."""
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{path.name} needs PyTorch: pip install 'labse-tf[parity]', or add the "
            f"model's {WEIGHTS} to the directory if it exists"
        ) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    # PyTorch raises errors of many types for a damaged file.
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path}: expected a PyTorch file with only weights. Received: {said}"
        ) from error

    def read(name: str) -> np.ndarray:
        tensor = state[name]
        if tensor.dtype == torch.bfloat16:
            # NumPy has this type only through another package.
            import ml_dtypes

            return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()

    return bert.Source(str(path), shapes, read)


def _encoder_source(source: bert.Source) -> bert.Source:
    """Return the weights of the BERT by their current names in `BertModel`."""
    names: dict[str, str] = {}
    prefixed = any(name.startswith("bert.") for name in source.shapes)
    for full in source.shapes:
        if prefixed and full.startswith("cls."):
            continue  # pre-training heads
        name = full.removeprefix("bert.")
        # Directories from before 2019 have these names.
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        if name != "embeddings.position_ids":  # 0, 1, 2, ...
            names[name] = full
    return bert.Source(
        source.where,
        {name: source.shapes[full] for name, full in names.items()},
        lambda name: source.read(names[name]),
    )


def _without(source: bert.Source, prefix: str) -> bert.Source:
    """Return a source without the names that start with a prefix."""
    kept = {n: s for n, s in source.shapes.items() if not n.startswith(prefix)}
    return bert.Source(source.where, kept, source.read)


def _assign_dense(model: LaBSE, folder: Path) -> None:
    """Assign a Dense module to the pooler, which computes the same function."""
    path = folder / CONFIG
    config = read_json(path)
    width = model.backbone.hidden_dim
    activation = str(config.get("activation_function", "")).rpartition(".")[2]
    if activation != "Tanh" or config.get("bias") is False:
        raise ValueError(
            f"{path}: expected a Dense with bias and Tanh, as in LaBSE. Received: "
            f"{activation or 'no activation'}, bias={config.get('bias')}"
        )
    if config.get("out_features") != width:
        raise ValueError(
            f"{path}: expected a Dense of the encoder's width, {width}. "
            f"Received: out_features={config.get('out_features')}"
        )
    source = _weights(folder)
    names = {"pooler/kernel": "linear.weight", "pooler/bias": "linear.bias"}
    bert.check_names(source, names.values(), bert.HUGGING_FACE)
    bert.assign_weights(model, source, names, bert.HUGGING_FACE)


def _assign_word_weights(model: LaBSE, folder: Path) -> None:
    """Assign WordWeights, one factor per token, to the pooling as logarithms."""
    source = _weights(folder)
    name = "emb_layer.weight"
    bert.check_names(source, [name], bert.HUGGING_FACE)
    expected = (model.backbone.vocabulary_size, 1)
    if source.shapes[name] != expected:
        raise ValueError(
            f"{source.where}: expected {name} of shape {expected}. "
            f"Received: {source.shapes[name]}"
        )
    factors = np.asarray(source.read(name), dtype=np.float32)
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise ValueError(
            f"{source.where}: expected positive word weights. "
            f"Received: values from {factors.min():g} to {factors.max():g}"
        )
    model.sentence_pooling.token_weights.set_weights([np.log(factors)])
