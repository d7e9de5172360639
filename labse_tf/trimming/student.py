"""Students: shrink a model of any kind to a preset of fewer blocks and tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from labse_tf import __version__, encoders, presets
from labse_tf.checkpoints.tokenizer_json import (
    TokenizerJsonEncoder,
    needs_tokenizer_json,
)
from labse_tf.files import atomic_directory, check_vacant, write_text
from labse_tf.models import LaBSE
from labse_tf.progress import Progress
from labse_tf.tokenizers import WordPieceTokenizer
from labse_tf.trimming.pieces import Pieces, sentencepiece_pieces
from labse_tf.trimming.sentences import sample_sentences
from labse_tf.trimming.shrinking import drop_prefix, keep_layers, keep_positions
from labse_tf.trimming.transfer import transfer_vocabulary


@dataclasses.dataclass(frozen=True)
class ShrinkReport:
    """Result of `shrink_preset`; each pair is before and after.

    Attributes:
        source: Name or path of the teacher, as given.
        layers: Number of blocks.
        tokens: Number of rows of the token table.
        max_sequence_length: Number of rows of the position table.
        parameters: Number of weights.
        pieces_per_token: See `Transfer`; `None` if the vocabulary is the teacher's.
        unknown: See `Transfer`.
        agreement: Correlation of the cosines that teacher and student give to all pairs
            of sentences of the shipped sample; `None` if it was not measured.
    """

    source: str
    layers: tuple[int, int]
    tokens: tuple[int, int]
    max_sequence_length: tuple[int, int]
    parameters: tuple[int, int]
    pieces_per_token: float | None
    unknown: list[str]
    agreement: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return dataclasses.asdict(self)


class Teacher(NamedTuple):
    """A model to shrink.

    Attributes:
        model: The model; without a preprocessor if its tokenizer is SentencePiece's.
        pieces: Pieces of its tokenizer; `None` for the preprocessor's tokenizer.
        encode: Function from a list of n strings to unit vectors `(n, D)`.
    """

    model: LaBSE
    pieces: Pieces | None
    encode: encoders.Encode


def load_teacher(name: str | Path) -> Teacher:
    """Load a model whose vocabulary may be SentencePiece's.

    Args:
        name: A model; see `labse_tf.encoders.load_model`. A Hugging Face directory may
            also have a `tokenizer.json` with a Unigram model, such as XLM-RoBERTa's.

    Returns:
        The model, its pieces and its `encode`.

    Raises:
        ValueError: If there is no such model, or it is not supported.
    """
    if encoders.layout_of(name) == "huggingface" and needs_tokenizer_json(name):
        # Other normalizers than SentencePiece's own.
        pieces = sentencepiece_pieces(name)
        encoder = TokenizerJsonEncoder(name)
        return Teacher(encoder.model, pieces, encoder.encode)
    model = encoders.load_model(name)
    return Teacher(model, None, lambda texts: model.encode(texts, progress=False))


def shrink_preset(
    model: str | Path,
    directory: str | Path,
    *,
    layers: int | Sequence[int] | None = None,
    vocabulary: str | Path | None = None,
    lowercase: bool = False,
    strip_accents: bool | None = None,
    sequence_length: int | None = None,
    max_sequence_length: int | None = None,
    prefix: bool = True,
    storage: str = "float32",
    measure: bool = True,
    progress: Progress = None,
) -> ShrinkReport:
    """Write a preset with fewer blocks, another vocabulary or fewer positions.

    Args:
        model: The teacher; see `load_teacher`.
        directory: New or empty directory for the preset.
        layers: See `keep_layers`. Default: all blocks.
        vocabulary: A `vocab.txt`; see `transfer_vocabulary`. Default: the teacher's
            tokens.
        lowercase: See `WordPieceTokenizer`; only with `vocabulary`.
        strip_accents: See `WordPieceTokenizer`; only with `vocabulary`.
        sequence_length: Maximum number of tokens per text. Default: the teacher's.
        max_sequence_length: See `keep_positions`. Default: all positions.
        prefix: Whether to keep the teacher's prefix; see `drop_prefix`.
        storage: Storage type of the new weights, see `LaBSE.save_to_preset`.
        measure: Whether to measure `ShrinkReport.agreement`, which encodes 500 short
            sentences with both models.
        progress: See `labse_tf.progress`.

    Returns:
        The report, which is also in the card of the preset.

    Raises:
        ValueError: If an argument is invalid, the teacher has no WordPiece vocabulary
            and none is given, or the directory is not empty.
        OSError: If the directory cannot be written.
    """
    target = Path(directory)
    check_vacant(target, "The output")
    presets.check_storage(storage)
    if vocabulary is None and (lowercase or strip_accents is not None):
        raise ValueError(
            "`lowercase` and `strip_accents` require `vocabulary`. Received: "
            f"lowercase={lowercase}, strip_accents={strip_accents}"
        )
    if prefix and all(
        given is None
        for given in (layers, vocabulary, sequence_length, max_sequence_length)
    ):
        raise ValueError(
            "Expected `layers`, `vocabulary`, `sequence_length`, "
            "`max_sequence_length` or `prefix=False`. Received: none of them"
        )
    tokenizer = (
        WordPieceTokenizer(vocabulary, lowercase=lowercase, strip_accents=strip_accents)
        if vocabulary is not None
        else None
    )
    with atomic_directory(target, overwrite=target.exists()) as folder:
        teacher, pieces, encode = load_teacher(model)
        presets.check_storage(storage, teacher.backbone.hidden_dim)
        if pieces is not None and tokenizer is None:
            raise ValueError(
                f"{model}: expected a WordPiece vocabulary, `vocabulary` or --vocab, "
                "in place of the model's SentencePiece tokenizer. Received: none"
            )
        most = max_sequence_length or teacher.backbone.max_sequence_length
        if sequence_length is not None and not 3 <= sequence_length <= most:
            raise ValueError(
                f"`sequence_length` must be from 3 to {most}, the rows of the position "
                f"table. Received: {sequence_length}"
            )
        student, per_token = teacher, None
        unknown: list[str] = []
        if tokenizer is not None:
            found = transfer_vocabulary(student, tokenizer, pieces=pieces)
            student, per_token, unknown = found
        if layers is not None:
            student = keep_layers(student, layers)
        if not prefix:
            student = drop_prefix(student)
        if max_sequence_length is not None:
            student = keep_positions(student, max_sequence_length)
        if sequence_length is not None:
            student = student.with_sequence_length(sequence_length)
        student.save_to_preset(folder, storage=storage)
        shapes = [m.backbone.get_config() for m in (teacher, student)]

        def pair(name: str) -> tuple[int, int]:
            return shapes[0][name], shapes[1][name]

        report = ShrinkReport(
            source=str(model),
            layers=pair("num_layers"),
            tokens=pair("vocabulary_size"),
            max_sequence_length=pair("max_sequence_length"),
            parameters=(teacher.count_params(), student.count_params()),
            pieces_per_token=per_token,
            unknown=unknown,
            agreement=_agreement(encode, student, progress) if measure else None,
        )
        write_text(folder / presets.CARD, _card(target.name, student, report))
    return report


def _agreement(encode: encoders.Encode, student: LaBSE, progress: Progress) -> float:
    """Return the correlation of cosines of teacher and student on the sample."""
    texts = [t.decode() for some in sample_sentences().values() for t in some]
    pairs = np.triu_indices(len(texts), 1)
    cosines = [
        (vectors @ vectors.T)[pairs]
        for vectors in (encode(texts), student.encode(texts, progress=progress))
    ]
    return float(np.corrcoef(cosines)[0, 1])


def _card(name: str, model: LaBSE, report: ShrinkReport) -> str:
    """Return the model card."""
    source = Path(report.source).name
    measured = report.agreement is not None
    agreement = f"{report.agreement:.3f}" if measured else "not measured"
    return f"""# {name}

A student of `{source}`, made by labse_tf {__version__} and not yet trained. Its blocks
are those of `{source}`. See the card of `{source}` for training data and license; the
same license applies to this model.

| | before | after |
|---|---:|---:|
| layers | {report.layers[0]} | {report.layers[1]} |
| tokens | {report.tokens[0]:,} | {report.tokens[1]:,} |
| positions | {report.max_sequence_length[0]:,} | {report.max_sequence_length[1]:,} |
| parameters | {report.parameters[0]:,} | {report.parameters[1]:,} |

| | |
|---|---|
| tokens unknown to `{source}` | {len(report.unknown):,} |
| correlation of cosines with `{source}` | {agreement} |
| hidden dimension | {model.backbone.hidden_dim} |
| pooling | {model.pooling} |

```python
import labse_tf

model = labse_tf.LaBSE.from_preset("{name}")  # or the path of this directory
vectors = model.encode(["Hello, world."])
```
"""
