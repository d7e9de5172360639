"""SentencePiece models: the `.model` file, its pieces and its special pieces.

A `.model` file is a protocol buffer, `ModelProto`. Its fields that this package needs
are declared here for protobuf, which TensorFlow requires; the package sentencepiece is
not needed. Other fields are kept when a model is read and written.

References:
    - Kudo and Richardson, SentencePiece, https://arxiv.org/abs/1808.06226
    - https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from labse_tf.tokenizers.vocabulary import (
    CLS_TOKEN,
    MASK_TOKEN,
    PAD_TOKEN,
    SEP_TOKEN,
    UNK_TOKEN,
)

# SentencePiece writes it in place of a space.
WORD_MARK = "\u2581"

# Special token -> its names in vocabularies of SentencePiece and of BERT.
SPECIAL_PIECES = {
    PAD_TOKEN: ("<pad>", PAD_TOKEN),
    UNK_TOKEN: ("<unk>", UNK_TOKEN),
    CLS_TOKEN: ("<s>", CLS_TOKEN),
    SEP_TOKEN: ("</s>", SEP_TOKEN),
    MASK_TOKEN: ("<mask>", MASK_TOKEN),
}

_UNIGRAM = 1  # TrainerSpec.ModelType


class PieceType(IntEnum):
    """Types of pieces; only `NORMAL` and `USER_DEFINED` pieces match text."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Piece(NamedTuple):
    """A piece of a vocabulary.

    Attributes:
        text: The piece, with U+2581 in place of spaces.
        score: Logarithm of its probability.
        type: Its type.
    """

    text: str
    score: float
    type: PieceType = PieceType.NORMAL


class SentencePieceModel:
    """Checked Unigram model; a plain object, so that Keras does not wrap its lists.

    Args:
        model: Path of a `.model` file, or its content.

    Attributes:
        content: The serialized model.
        tokens: The pieces in the order of their ids.
        index: Piece -> id.
        special: `"[PAD]"`, `"[UNK]"`, `"[CLS]"`, `"[SEP]"` and `"[MASK]"` -> id. The
            pieces have these names, or `<pad>`, `<unk>`, `<s>`, `</s>` and `<mask>`.
        normalizes: Whether the model replaces characters before it splits text.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the content is not a Unigram model, a piece is empty or occurs
            twice, a special piece is missing, or pieces are bytes.
    """

    def __init__(self, model: str | os.PathLike[str] | bytes) -> None:
        where = "`model`"
        if isinstance(model, bytes):
            self.content = model
        else:
            where = os.fspath(model)
            path = Path(model)
            if not path.is_file():
                raise FileNotFoundError(
                    f"`model` must be a SentencePiece model file. Received: {where}"
                )
            self.content = path.read_bytes()
        proto = _parse(self.content, where)
        self.normalizes = bool(proto.normalizer_spec.precompiled_charsmap)
        self.tokens = [piece.piece for piece in proto.pieces]
        self.index: dict[str, int] = {}
        for number, piece in enumerate(proto.pieces):
            if not piece.piece or piece.type == PieceType.BYTE:
                raise ValueError(
                    f"{where}: expected pieces of text. Received: piece {number}, "
                    f"{piece.piece!r}, of type {PieceType(piece.type).name}"
                )
            if self.index.setdefault(piece.piece, number) != number:
                raise ValueError(
                    f"{where}: expected each piece once. Received: {piece.piece!r} "
                    f"with the ids {self.index[piece.piece]} and {number}"
                )
        self.special = {
            token: self.index[name]
            for token, names in SPECIAL_PIECES.items()
            for name in names[::-1]
            if name in self.index
        }
        missing = [t for t in SPECIAL_PIECES if t not in self.special]
        if missing:
            names = ", ".join(SPECIAL_PIECES[token][0] for token in missing)
            raise ValueError(
                f"{where}: expected the pieces <pad>, <unk>, <s>, </s> and <mask>, in "
                "the order of the model's token ids; `labse-tf convert` adds them to "
                f"the model of a Hugging Face directory. Received: no {names}"
            )
        unknown = [n for n, p in enumerate(proto.pieces) if p.type == PieceType.UNKNOWN]
        if unknown != [self.special[UNK_TOKEN]]:
            raise ValueError(
                f"{where}: expected one piece of type UNKNOWN, "
                f"{self.tokens[self.special[UNK_TOKEN]]}. Received: the pieces "
                f"{[self.tokens[n] for n in unknown[:5]]}"
            )

    @functools.cached_property
    def scores(self) -> np.ndarray:
        """Scores of the pieces, float32 `(n,)`."""
        pieces = _parse(self.content, "`model`").pieces
        return np.array([piece.score for piece in pieces], np.float32)

    @functools.cached_property
    def types(self) -> np.ndarray:
        """Types of the pieces (`PieceType`), int8 `(n,)`."""
        pieces = _parse(self.content, "`model`").pieces
        return np.array([piece.type for piece in pieces], np.int8)

    @property
    def character_map(self) -> bytes:
        """Compiled replacements of characters; empty without replacements."""
        spec = _parse(self.content, "`model`").normalizer_spec
        return bytes(spec.precompiled_charsmap)

    @property
    def spaces(self) -> tuple[bool, bool]:
        """Whether a space is added in front, and whether extra spaces are removed."""
        spec = _parse(self.content, "`model`").normalizer_spec
        return spec.add_dummy_prefix, spec.remove_extra_whitespaces

    def with_pieces(self, ids: Sequence[int]) -> bytes:
        """Return the content of a model with some of the pieces, in this order."""
        proto = _parse(self.content, "`model`")
        pieces = list(proto.pieces)
        smaller = type(proto)()
        smaller.CopyFrom(proto)
        del smaller.pieces[:]
        smaller.pieces.extend(pieces[i] for i in ids)
        # The ids in the specification of the training are those of the special pieces.
        _write_special_ids(smaller)
        return smaller.SerializeToString(deterministic=True)


def build_model(
    pieces: Sequence[Piece],
    *,
    character_map: bytes = b"",
    add_space: bool = True,
    remove_extra_spaces: bool = True,
) -> bytes:
    """Return the content of a `.model` file with a Unigram model.

    Args:
        pieces: The pieces in the order of their ids.
        character_map: Compiled replacements of characters
            (`NormalizerSpec.precompiled_charsmap`); empty for none.
        add_space: Whether to put a space in front of each text.
        remove_extra_spaces: Whether to remove spaces at both ends and repeated spaces.

    Returns:
        The serialized model.

    Example:
        >>> from labse_tf.tokenizers.sentencepiece_model import *
        >>> special = [Piece(s, 0.0, PieceType.CONTROL) for s in ("<s>", "<pad>")]
        >>> special += [Piece("</s>", 0.0, PieceType.CONTROL)]
        >>> special += [Piece("<unk>", 0.0, PieceType.UNKNOWN)]
        >>> special += [Piece("<mask>", 0.0, PieceType.CONTROL)]
        >>> model = SentencePieceModel(build_model([*special, Piece("▁sun", -1.0)]))
        >>> model.index["▁sun"], model.special["[PAD]"]
        (5, 1)
    """
    proto = _message()()
    for text, score, kind in pieces:
        proto.pieces.add(piece=text, score=score, type=int(kind))
    proto.trainer_spec.model_type = _UNIGRAM
    proto.trainer_spec.vocab_size = len(pieces)
    spec = proto.normalizer_spec
    spec.name = "precompiled" if character_map else "identity"
    spec.precompiled_charsmap = character_map
    spec.add_dummy_prefix = add_space
    spec.remove_extra_whitespaces = remove_extra_spaces
    spec.escape_whitespaces = True
    _write_special_ids(proto)
    return proto.SerializeToString(deterministic=True)


def read_pieces(content: bytes, where: str) -> tuple[list[Piece], dict[str, Any]]:
    """Return the pieces of a model and the other arguments of `build_model`.

    Args:
        content: A serialized Unigram model, which need not have the special pieces of
            `SentencePieceModel`.
        where: Name of the model, for messages.

    Returns:
        The pieces in the order of their ids, and the keyword arguments.

    Raises:
        ValueError: If the content is not a Unigram model.
    """
    proto = _parse(content, where)
    spec = proto.normalizer_spec
    settings = {
        "character_map": bytes(spec.precompiled_charsmap),
        "add_space": spec.add_dummy_prefix,
        "remove_extra_spaces": spec.remove_extra_whitespaces,
    }
    pieces = [Piece(p.piece, p.score, PieceType(p.type)) for p in proto.pieces]
    return pieces, settings


def _write_special_ids(proto: Any) -> None:
    """Set the size and the special ids in the specification of the training."""
    spec = proto.trainer_spec
    spec.vocab_size = len(proto.pieces)
    index = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    keys = {PAD_TOKEN: "pad", UNK_TOKEN: "unk", CLS_TOKEN: "bos", SEP_TOKEN: "eos"}
    for token, key in keys.items():
        for name in SPECIAL_PIECES[token]:
            if name in index:
                setattr(spec, f"{key}_id", index[name])
                setattr(spec, f"{key}_piece", name)
                break


def _parse(content: bytes, where: str) -> Any:
    """Return the message of a model."""
    from google.protobuf.message import DecodeError

    proto = _message()()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise ValueError(
            f"{where}: expected a SentencePiece model. Received: {len(content):,} "
            "bytes that are not a protocol buffer"
        ) from error
    if proto.trainer_spec.model_type != _UNIGRAM or not proto.pieces:
        raise ValueError(
            f"{where}: expected a SentencePiece model of type Unigram with pieces. "
            f"Received: type {proto.trainer_spec.model_type} with "
            f"{len(proto.pieces)} pieces"
        )
    return proto


# Message -> field -> (number, type, default). `*` marks a repeated field.
_FIELDS: Mapping[str, Mapping[str, tuple[int, str, str]]] = {
    "SentencePiece": {
        "piece": (1, "string", ""),
        "score": (2, "float", ""),
        "type": (3, "int32", "1"),
    },
    "TrainerSpec": {
        "model_type": (3, "int32", "1"),
        "vocab_size": (4, "int32", "8000"),
        "unk_id": (40, "int32", "0"),
        "bos_id": (41, "int32", "1"),
        "eos_id": (42, "int32", "2"),
        "pad_id": (43, "int32", "-1"),
        "unk_piece": (45, "string", "<unk>"),
        "bos_piece": (46, "string", "<s>"),
        "eos_piece": (47, "string", "</s>"),
        "pad_piece": (48, "string", "<pad>"),
    },
    "NormalizerSpec": {
        "name": (1, "string", ""),
        "precompiled_charsmap": (2, "bytes", ""),
        "add_dummy_prefix": (3, "bool", "true"),
        "remove_extra_whitespaces": (4, "bool", "true"),
        "escape_whitespaces": (5, "bool", "true"),
    },
    "ModelProto": {
        "pieces": (1, "*SentencePiece", ""),
        "trainer_spec": (2, "TrainerSpec", ""),
        "normalizer_spec": (3, "NormalizerSpec", ""),
    },
}


@functools.cache
def _message() -> Any:
    """Return the class of `ModelProto`, in a pool of its own."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="labse_tf/sentencepiece_model.proto",
        package="labse_tf.sentencepiece",
        syntax="proto2",
    )
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for name, (number, kind, default) in fields.items():
            repeated, kind = kind.startswith("*"), kind.removeprefix("*")
            label = "LABEL_REPEATED" if repeated else "LABEL_OPTIONAL"
            field = described.field.add(
                name=name,
                number=number,
                label=getattr(descriptor_pb2.FieldDescriptorProto, label),
            )
            if kind in _FIELDS:
                field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
                field.type_name = f".{file.package}.{kind}"
            else:
                types = descriptor_pb2.FieldDescriptorProto.Type
                field.type = types.Value(f"TYPE_{kind.upper()}")
                if default:
                    field.default_value = default
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName(f"{file.package}.ModelProto")
    return message_factory.GetMessageClass(found)
