"""Students: shrink a model of any kind to a preset of fewer blocks and tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labse_tf import __version__, checkpoints, encoders, presets
from labse_tf.files import atomic_directory, check_vacant, write_text
from labse_tf.models import LaBSE
from labse_tf.progress import Progress
from labse_tf.tokenizers import WordPieceTokenizer
from labse_tf.trimming.pieces import Pieces, sentencepiece_pieces, tokenizer_kind
from labse_tf.trimming.shrinking import keep_layers, keep_positions
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
    """

    source: str
    layers: tuple[int, int]
    tokens: tuple[int, int]
    max_sequence_length: tuple[int, int]
    parameters: tuple[int, int]
    pieces_per_token: float | None
    unknown: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return dataclasses.asdict(self)


def load_teacher(name: str | Path) -> tuple[LaBSE, Pieces | None]:
    """Load a model whose vocabulary may be SentencePiece's.

    Args:
        name: A model; see `labse_tf.encoders.load_model`. A Hugging Face directory may
            also have a `tokenizer.json` with a Unigram model, such as XLM-RoBERTa's.

    Returns:
        The model, and its pieces; `None` for a model with a WordPiece tokenizer, which
        is its preprocessor's. Another model has no preprocessor.

    Raises:
        ValueError: If there is no such model, or it is not supported.
    """
    folder = Path(name)
    if encoders.layout_of(name) != "huggingface" or tokenizer_kind(folder) in (
        None,
        "WordPiece",
    ):
        return encoders.load_model(name), None
    pieces = sentencepiece_pieces(folder)
    return checkpoints.from_huggingface(folder, preprocessor=None), pieces


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
    storage: str = "float32",
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
        storage: Storage type of the new weights, see `LaBSE.save_to_preset`.
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
    if vocabulary is None and (lowercase or strip_accents is not None):
        raise ValueError(
            "`lowercase` and `strip_accents` require `vocabulary`. Received: "
            f"lowercase={lowercase}, strip_accents={strip_accents}"
        )
    tokenizer = (
        WordPieceTokenizer(vocabulary, lowercase=lowercase, strip_accents=strip_accents)
        if vocabulary is not None
        else None
    )
    with atomic_directory(target, overwrite=target.exists()) as folder:
        teacher, pieces = load_teacher(model)
        if pieces is not None and tokenizer is None:
            raise ValueError(
                f"{model}: expected `vocabulary`, a WordPiece vocabulary in place of "
                "the model's SentencePiece tokenizer. Received: vocabulary=None"
            )
        student, unknown, per_token = teacher, [], None
        if tokenizer is not None:
            found = transfer_vocabulary(
                student, tokenizer, pieces=pieces, progress=progress
            )
            student, per_token, unknown = found
        if layers is not None:
            student = keep_layers(student, layers)
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
        )
        write_text(folder / presets.CARD, _card(target.name, student, report))
    return report


def _card(name: str, model: LaBSE, report: ShrinkReport) -> str:
    """Return the model card."""
    source = Path(report.source).name
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
| hidden dimension | {model.backbone.hidden_dim} |
| pooling | {model.pooling} |

```python
import labse_tf

model = labse_tf.LaBSE.from_preset("{name}")  # or the path of this directory
vectors = model.encode(["Hello, world."])
```
"""
