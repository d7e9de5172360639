"""Export to Hugging Face directories for sentence-transformers and transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from labse_tf.checkpoints.bert import HUGGING_FACE, activation_name
from labse_tf.checkpoints.huggingface import (
    CONFIG,
    MODULES,
    NEEDS_SAFETENSORS,
    PROMPTS,
    VOCABULARY,
    WEIGHTS,
)
from labse_tf.checkpoints.unigram import TOKENIZER, to_tokenizers
from labse_tf.files import atomic_directory
from labse_tf.models import LaBSE
from labse_tf.models.backbone import merged_weights
from labse_tf.tokenizers import (
    SentencePieceTokenizer,
    Tokenizer,
    WordPieceTokenizer,
)
from labse_tf.tokenizers.vocabulary import SPECIAL_TOKENS


def to_huggingface(
    model: LaBSE,
    directory: str | Path,
    *,
    weights: bool = True,
    overwrite: bool = False,
) -> Path:
    """Write a directory that `SentenceTransformer(directory)` loads.

    All four poolings can be exported. The pooler becomes a Dense with tanh after `cls`,
    as in the released LaBSE. A weighted mean becomes WordWeights before `mean`.
    `transformers.BertModel` loads the BERT without the pooling.

    Vectors are equal up to float32 rounding if the tokens are equal. Hugging Face's
    tokenizer differs in three cases: it replaces words over 100 characters by [UNK], it
    recognizes special tokens in text, and it lower-cases a Greek sigma at the end of a
    word differently. A prefix becomes the default prompt, which only
    sentence-transformers applies.

    Args:
        model: A model with a preprocessor.
        directory: The target, written atomically.
        weights: Whether to write the weights of the BERT too. Without them, another
            file, such as an ONNX graph, must hold them.
        overwrite: Whether to replace an existing target.

    Returns:
        The directory.

    Raises:
        ValueError: If the model has no preprocessor, its tokenizer has
            `compat="tfhub"`, Hugging Face lacks its activation, the model has quantized
            weights, or the target exists.
        ImportError: If safetensors is missing.
        OSError: If the target cannot be written.
    """
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise ImportError(NEEDS_SAFETENSORS) from error

    preprocessor = model.text_preprocessor()
    tokenizer = preprocessor.tokenizer
    if isinstance(tokenizer, WordPieceTokenizer) and tokenizer.compat != "bert":
        raise ValueError(
            'Cannot export the tokenizer: expected compat="bert", as in Hugging Face. '
            f"Received: compat={tokenizer.compat!r}"
        )
    values = merged_weights(model)
    config = _bert_config(model)
    tensors = {
        name: HUGGING_FACE.export_array(path, np.asarray(values[path]))
        for path, name in HUGGING_FACE.names(model.backbone.num_layers).items()
        if weights or path.startswith("pooler/")
    }
    places = _module_folders(model.pooling)
    with atomic_directory(directory, overwrite=overwrite) as folder:
        for place in places.values():
            (folder / place).mkdir(exist_ok=True)
        _write_json(folder / MODULES, _modules(places))
        _write_json(folder / CONFIG, config)
        if weights:
            save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        _write_tokenizer(folder, tokenizer, preprocessor.sequence_length)
        if preprocessor.prefix:
            _write_json(
                folder / PROMPTS,
                {
                    "prompts": {"default": preprocessor.prefix},
                    "default_prompt_name": "default",
                },
            )
        _write_json(
            folder / "sentence_bert_config.json",
            {"max_seq_length": preprocessor.sequence_length, "do_lower_case": False},
        )
        _write_pooling(folder / places["Pooling"], model)
        if "Dense" in places:
            _write_json(
                folder / places["Dense"] / CONFIG,
                {
                    "in_features": model.embedding_dim,
                    "out_features": model.embedding_dim,
                    "bias": True,
                    "activation_function": "torch.nn.modules.activation.Tanh",
                },
            )
            linear = {
                "linear.weight": tensors["pooler.dense.weight"],
                "linear.bias": tensors["pooler.dense.bias"],
            }
            save_file(linear, folder / places["Dense"] / WEIGHTS)
        if "WordWeights" in places:
            learned = model.sentence_pooling.token_weights.weights[0]
            factors = np.exp(np.asarray(learned))
            _write_word_weights(folder / places["WordWeights"], tokenizer, factors)
            save_file(
                {"emb_layer.weight": factors}, folder / places["WordWeights"] / WEIGHTS
            )
        (folder / "README.md").write_text(
            _card(Path(directory).name, model), encoding="utf-8"
        )
    return Path(directory)


def _module_folders(pooling: str) -> dict[str, str]:
    """Return the sentence-transformers modules of a pooling and their folders."""
    kinds = ["Transformer", "Pooling", "Normalize"]
    if pooling == "pooler":
        kinds.insert(2, "Dense")
    elif pooling == "weighted_mean":
        kinds.insert(1, "WordWeights")
    return {
        kind: f"{number}_{kind}" if number else "" for number, kind in enumerate(kinds)
    }


def _modules(places: dict[str, str]) -> list[dict[str, Any]]:
    """Return the content of `modules.json`."""
    return [
        {
            "idx": number,
            "name": str(number),
            "path": place,
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, (kind, place) in enumerate(places.items())
    ]


def _write_pooling(folder: Path, model: LaBSE) -> None:
    """Write the configuration of the module Pooling."""
    pooling = {"pooler": "cls", "weighted_mean": "mean"}.get(
        model.pooling, model.pooling
    )
    _write_json(
        folder / CONFIG,
        {
            "word_embedding_dimension": model.embedding_dim,
            "pooling_mode_cls_token": pooling == "cls",
            "pooling_mode_mean_tokens": pooling == "mean",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    )


def _write_word_weights(
    folder: Path, tokenizer: Tokenizer, factors: np.ndarray
) -> None:
    """Write the configuration of the module WordWeights."""
    vocabulary = tokenizer.vocabulary
    weights = dict(zip(vocabulary, factors[:, 0].tolist(), strict=True))
    _write_json(
        folder / CONFIG,
        {"vocab": vocabulary, "word_weights": weights, "unknown_word_weight": 1.0},
    )


def _bert_config(model: LaBSE) -> dict[str, Any]:
    """Return the `config.json` of `transformers.BertModel`."""
    backbone = model.backbone
    tokenizer = model.text_preprocessor().tokenizer
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "attention_probs_dropout_prob": backbone.dropout,
        "hidden_act": activation_name(backbone.activation),
        "hidden_dropout_prob": backbone.dropout,
        "hidden_size": backbone.hidden_dim,
        "initializer_range": backbone.initializer_range,
        "intermediate_size": backbone.intermediate_dim,
        "layer_norm_eps": backbone.layer_norm_epsilon,
        "max_position_embeddings": backbone.max_sequence_length,
        "num_attention_heads": backbone.num_heads,
        "num_hidden_layers": backbone.num_layers,
        "pad_token_id": tokenizer.pad_token_id,
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
        "type_vocab_size": backbone.num_segments,
        "vocab_size": backbone.vocabulary_size,
    }


def _write_tokenizer(folder: Path, tokenizer: Tokenizer, sequence_length: int) -> None:
    """Write the tokenizer's files for old and new versions of transformers."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        _write_sentencepiece(folder, tokenizer, sequence_length)
    elif isinstance(tokenizer, WordPieceTokenizer):
        _write_wordpiece(folder, tokenizer, sequence_length)


def _write_sentencepiece(
    folder: Path, tokenizer: SentencePieceTokenizer, sequence_length: int
) -> None:
    """Write the files of a SentencePiece tokenizer."""
    to_tokenizers(tokenizer).save(str(folder / TOKENIZER), pretty=False)
    tokens = tokenizer.vocabulary
    ids = {
        "bos_token": tokenizer.cls_token_id,
        "eos_token": tokenizer.sep_token_id,
        "cls_token": tokenizer.cls_token_id,
        "sep_token": tokenizer.sep_token_id,
        "pad_token": tokenizer.pad_token_id,
        "unk_token": tokenizer.unk_token_id,
        "mask_token": tokenizer.mask_token_id,
    }
    keys = {key: tokens[row] for key, row in ids.items()}
    _write_json(folder / "special_tokens_map.json", keys)
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": sequence_length,
            **keys,
        },
    )


def _write_wordpiece(
    folder: Path, tokenizer: WordPieceTokenizer, sequence_length: int
) -> None:
    """Write the files of a WordPiece tokenizer."""
    import tokenizers

    tokenizer.save_vocabulary(folder / VOCABULARY)
    keys = {f"{t.strip('[]').lower()}_token": t for t in SPECIAL_TOKENS}
    _write_json(folder / "special_tokens_map.json", keys)
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": tokenizer.lowercase,
            "strip_accents": tokenizer.strip_accents,
            "tokenize_chinese_chars": True,
            "model_max_length": sequence_length,
            **keys,
        },
    )
    rows = {token: row for row, token in enumerate(tokenizer.vocabulary)}
    fast = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(
            rows, unk_token="[UNK]", max_input_chars_per_word=100
        )
    )
    fast.normalizer = tokenizers.normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=True,
        strip_accents=tokenizer.strip_accents,
        lowercase=tokenizer.lowercase,
    )
    fast.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    fast.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, rows[token]) for token in ("[CLS]", "[SEP]")],
    )
    fast.decoder = tokenizers.decoders.WordPiece(prefix="##")
    fast.add_special_tokens(list(SPECIAL_TOKENS))
    fast.save(str(folder / TOKENIZER), pretty=False)


def _write_json(path: Path, value: Any) -> None:
    """Write a JSON file."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def _card(name: str, model: LaBSE) -> str:
    """Return a model card with the fields that Hugging Face reads."""
    from labse_tf import __version__

    return f"""---
pipeline_tag: sentence-similarity
library_name: sentence-transformers
tags:
- sentence-transformers
- labse
---

# {name}

A multilingual sentence encoder with {model.embedding_dim} dimensions, exported by
labse_tf {__version__}.

```python
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("{name}").encode(["Hello, world.", "नमस्ते दुनिया"])
```
"""
