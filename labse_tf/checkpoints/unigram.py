"""SentencePiece tokenizers in Hugging Face's `tokenizer.json`: import and export.

References:
    https://huggingface.co/docs/tokenizers/api/models#tokenizers.models.Unigram
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.files import read_json
from labse_tf.tokenizers import SentencePieceTokenizer
from labse_tf.tokenizers.sentencepiece_model import (
    SPECIAL_PIECES,
    WORD_MARK,
    Piece,
    PieceType,
    build_model,
)
from labse_tf.tokenizers.vocabulary import CLS_TOKEN, SEP_TOKEN, UNK_TOKEN

if TYPE_CHECKING:
    import tokenizers

TOKENIZER = "tokenizer.json"

_REPEATED = " {2,}"
_NMT_NFKC = ["Nmt", "NFKC", "Replace"]


def _characters(*ranges: int | tuple[int, int]) -> str:
    """Return the regular expression of some characters, written as themselves."""
    pairs = [(each, each) if isinstance(each, int) else each for each in ranges]
    parts = (chr(a) if a == b else f"{chr(a)}-{chr(b)}" for a, b in pairs)
    return f"[{''.join(parts)}]"


# What `Nmt` does, for libraries without it, such as transformers.js: characters that it
# deletes, and others that it replaces by a space.
_NMT = (
    (_characters((1, 8), 0xB, (0xE, 0x1F), 0x7F, 0x8F, 0x9F), ""),
    (
        _characters(
            *(9, 0xA, 0xC, 0xD, 0x1680, (0x200B, 0x200F), 0x2028, 0x2029, 0x2581),
            *(0xFEFF, 0xFFFD),
        ),
        " ",
    ),
)


def read_unigram(
    directory: str | Path, size: int | None = None
) -> SentencePieceTokenizer:
    """Read the Unigram model of a `tokenizer.json`.

    The ids are those of `tokenizers`, except for special tokens in a text and ties; see
    `labse_tf.SentencePieceTokenizer`. If the file neither strips text nor splits it at
    white space, a space at the end of a text makes a token in `tokenizers` only, unless
    characters are normalized by `Nmt` and `NFKC`.

    Args:
        directory: Directory with the file.
        size: Number of rows of the token table. Rows without a piece become
            `[unused1]`, `[unused2]` and so on. Default: the number of pieces.

    Returns:
        The tokenizer.

    Raises:
        ValueError: If the file is damaged, or has another model or other steps than
            those of SentencePiece.
    """
    path = Path(directory) / TOKENIZER
    pieces, settings, normalization = _read(path)
    if size is not None:
        if size < len(pieces):
            raise ValueError(
                f"{path}: expected at most {size:,} tokens, the rows of the token "
                f"table. Received: {len(pieces):,}"
            )
        pieces += [
            Piece(f"[unused{number}]", 0.0, PieceType.CONTROL)
            for number in range(1, size - len(pieces) + 1)
        ]
    try:
        return SentencePieceTokenizer(
            build_model(pieces, **settings), normalization=normalization
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def check_unigram(directory: str | Path) -> None:
    """Check that `read_unigram` supports the `tokenizer.json` of a directory.

    Raises:
        ValueError: See `read_unigram`.
    """
    _read(Path(directory) / TOKENIZER)


def _read(path: Path) -> tuple[list[Piece], dict[str, Any], str]:
    """Return the pieces, the settings of `build_model` and our normalization."""
    content = read_json(path)
    model = content.get("model") or {}
    if _kind(path, content) != "Unigram" or model.get("byte_fallback"):
        raise ValueError(
            f"{path}: expected a model of type Unigram without bytes. Received: "
            f"{_kind(path, content)}, byte_fallback={model.get('byte_fallback')}"
        )
    character_map, normalization, strips = _read_normalizer(path, content)
    add_space, splits = _read_spaces(path, content)
    if normalization != "model" and (splits or not add_space):
        raise ValueError(
            f"{path}: expected only a Metaspace that adds a space after Nmt and NFKC. "
            f"Received: {json.dumps(content['pre_tokenizer'], ensure_ascii=False)}"
        )
    pieces = _read_pieces(path, content)
    _check_template(path, content, {piece.text for piece in pieces})
    with_spaces = normalization == "model"
    settings = {
        "character_map": character_map,
        "add_space": with_spaces and add_space,
        "remove_extra_spaces": with_spaces and (strips or splits),
    }
    return pieces, settings, normalization


def _kind(path: Path, content: Mapping[str, Any]) -> str:
    """Return the type of the model."""
    model = content.get("model")
    if not isinstance(model, dict):
        raise ValueError(
            f'{path}: expected a JSON object with a "model". Received: {model!r:.80}'
        )
    return str(model.get("type", "WordPiece"))


def _steps(value: Any, key: str) -> list[dict[str, Any]]:
    """Return the steps of a normalizer or pre-tokenizer, without sequences."""
    if not value:
        return []
    if value.get("type") == "Sequence":
        return [step for part in value[key] for step in _steps(part, key)]
    return [value]


def _read_normalizer(path: Path, content: Mapping[str, Any]) -> tuple[bytes, str, bool]:
    """Return the table of characters, our normalization, and whether text is stripped.

    Raises:
        ValueError: If SentencePiece does not have the steps.
    """
    steps = _steps(content.get("normalizer"), "normalizers")
    written = [
        {"type": "Replace", "pattern": {"Regex": some}, "content": by}
        for some, by in _NMT
    ]
    if steps[: len(_NMT)] == written:
        steps = [{"type": "Nmt"}, *steps[len(_NMT) :]]
    kinds = [str(step.get("type")) for step in steps]
    repeated = all(
        step.get("pattern") == {"Regex": _REPEATED}
        and step.get("content") in (" ", WORD_MARK)
        for step in steps
        if step.get("type") == "Replace"
    )
    if kinds == _NMT_NFKC and repeated and steps[-1]["content"] == " ":
        return b"", "nmt_nfkc", False
    tables = [step for step in steps if step.get("type") == "Precompiled"]
    others = set(kinds) - {"Precompiled", "Replace", "Strip"}
    if others or not repeated or len(tables) != 1 or tables[0] is not steps[0]:
        raise ValueError(
            f"{path}: expected the normalizers of SentencePiece: Precompiled, Strip, "
            "and Replace of repeated spaces; or Nmt, NFKC and Replace. Received: "
            f"{', '.join(kinds) or 'none'}"
        )
    try:
        table = base64.b64decode(tables[0]["precompiled_charsmap"])
        return table, "model", "Replace" in kinds
    except (binascii.Error, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected precompiled_charsmap in base64. Received: {error}"
        ) from error


def _read_spaces(path: Path, content: Mapping[str, Any]) -> tuple[bool, bool]:
    """Return whether a space is added, and whether text is split at white space."""
    steps = _steps(content.get("pre_tokenizer"), "pretokenizers")
    kinds = [step.get("type") for step in steps]
    mark = steps[-1] if steps else {}
    scheme = mark.get("prepend_scheme")
    if scheme is None:
        scheme = "always" if mark.get("add_prefix_space", True) else "never"
    if (
        kinds not in (["Metaspace"], ["WhitespaceSplit", "Metaspace"])
        or mark.get("replacement") != WORD_MARK
        or mark.get("split") is False
    ):
        raise ValueError(
            f"{path}: expected a Metaspace, alone or after a WhitespaceSplit. "
            f"Received: {json.dumps(content.get('pre_tokenizer'), ensure_ascii=False)}"
        )
    return scheme != "never", len(kinds) == 2


def _read_pieces(path: Path, content: Mapping[str, Any]) -> list[Piece]:
    """Return the pieces and added tokens in the order of their ids."""
    special = {name for names in SPECIAL_PIECES.values() for name in names}
    unk = content["model"].get("unk_id")
    try:
        added = {int(t["id"]): t for t in content.get("added_tokens") or []}
        special |= {str(token["content"]) for token in added.values()}
        pieces = [
            Piece(
                str(text),
                float(score),
                PieceType.UNKNOWN
                if row == unk
                else PieceType.CONTROL
                if text in special
                else PieceType.NORMAL,
            )
            for row, (text, score) in enumerate(content["model"]["vocab"])
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected a list of pieces and scores in the vocabulary. "
            f"Received: {error!r}"
        ) from error
    plain = [t["content"] for t in added.values() if not t.get("special")]
    if plain:
        raise ValueError(
            f"{path}: expected only special added tokens. Received: {plain[0]!r}"
        )
    for row in sorted(row for row in added if row >= len(pieces)):
        if row != len(pieces):
            raise ValueError(
                f"{path}: expected ids without gaps. Received: {row} after "
                f"{len(pieces) - 1}"
            )
        pieces.append(Piece(str(added[row]["content"]), 0.0, PieceType.CONTROL))
    return pieces


def _check_template(path: Path, content: Mapping[str, Any], known: Set[str]) -> None:
    """Raise an error unless a row is `<s> tokens </s>` and all special pieces exist."""
    names = {
        token: next((name for name in some if name in known), some[0])
        for token, some in SPECIAL_PIECES.items()
    }
    missing = [name for name in names.values() if name not in known]
    if missing:
        raise ValueError(
            f"{path}: expected the special tokens {', '.join(names.values())}. "
            f"Received: no {', '.join(missing)}"
        )
    template = content.get("post_processor") or {}
    row: list[Any] = []
    if template.get("type") == "TemplateProcessing":
        for part in template.get("single") or []:
            row.append("$A" if "Sequence" in part else part["SpecialToken"]["id"])
    elif template.get("type") in ("RobertaProcessing", "BertProcessing"):
        row = [template["cls"][0], "$A", template["sep"][0]]
    expected = [names[CLS_TOKEN], "$A", names[SEP_TOKEN]]
    if row != expected:
        raise ValueError(
            f"{path}: expected rows of {' '.join(expected)}. "
            f"Received: {' '.join(map(str, row)) or template.get('type')}"
        )


def to_tokenizers(tokenizer: SentencePieceTokenizer) -> tokenizers.Tokenizer:
    """Create the same tokenizer of the package `tokenizers`.

    Its special pieces are special tokens in text too, as usual there. `[unused...]` at
    the end of the vocabulary are left out.

    Args:
        tokenizer: The tokenizer.

    Returns:
        A tokenizer with `save`.
    """
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    model = tokenizer.model
    count = len(model.tokens)
    while count and model.tokens[count - 1].startswith("[unused"):
        count -= 1
    pieces = list(zip(model.tokens[:count], model.scores.tolist(), strict=False))
    found = Tokenizer(models.Unigram(pieces, unk_id=model.special[UNK_TOKEN]))
    add_space, remove_extra = model.spaces
    steps: list[Any] = []
    if tokenizer.normalization == "nmt_nfkc":
        steps = [normalizers.Replace(Regex(some), by) for some, by in _NMT]
        steps.append(normalizers.NFKC())
        steps.append(normalizers.Replace(Regex(_REPEATED), " "))
        add_space = True
    else:
        if model.normalizes:
            steps.append(normalizers.Precompiled(model.character_map))
        if remove_extra:
            steps.append(normalizers.Strip(left=False, right=True))
            steps.append(normalizers.Replace(Regex(_REPEATED), " "))
    if steps:
        found.normalizer = normalizers.Sequence(steps)
    scheme = "always" if add_space else "never"
    found.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    found.decoder = decoders.Metaspace(prepend_scheme=scheme)
    cls, sep = (model.tokens[model.special[token]] for token in (CLS_TOKEN, SEP_TOKEN))
    found.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} {sep} $B {sep}",
        special_tokens=[(name, model.index[name]) for name in (cls, sep)],
    )
    found.add_special_tokens(
        [
            model.tokens[row]
            for row in range(count)
            if model.types[row] in (PieceType.UNKNOWN, PieceType.CONTROL)
        ]
    )
    return found
