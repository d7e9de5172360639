"""Extended presets: more tokens, and proof that other texts keep their vectors."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from labse_tf import __version__, data, encoders, presets
from labse_tf.files import atomic_directory, check_vacant, write_text
from labse_tf.models import LaBSE
from labse_tf.progress import Progress, announce
from labse_tf.tokenizers import WordCounter, WordPieceTokenizer, load_vocabulary
from labse_tf.trimming.extending import (
    check_tokens,
    choose_new_tokens,
    extend_vocabulary,
)
from labse_tf.trimming.parity import COLUMNS, LanguageParity, compare, parity_rows
from labse_tf.trimming.pieces import wordpiece_of
from labse_tf.trimming.sentences import HELD_OUT_SHARE, Sentences, sample_sentences
from labse_tf.trimming.tokens import BLOCK


@dataclasses.dataclass(frozen=True)
class ExtendReport:
    """Result of `extend_preset`; each pair is before and after.

    Attributes:
        source: Name or path of the old model, as given.
        added: The new tokens in the order of their ids.
        characters: How many of them are single characters that the other new tokens
            require; see `extend_vocabulary`.
        unknown: New tokens that start at the mean of all rows, because the old model
            does not know their characters.
        present: Number of given tokens that the model already had.
        storage: Storage type of the weights.
        tokens: Number of rows of the token table.
        parameters: Number of weights.
        sample: Comparison of the old and the new model on the sample shipped with the
            package, in all its languages.
        parity: Language -> comparison on held-out sentences of the text that tokens
            were chosen from; empty for given tokens.
    """

    source: str
    added: list[str]
    characters: int
    unknown: list[str]
    present: int
    storage: str
    tokens: tuple[int, int]
    parameters: tuple[int, int]
    sample: LanguageParity
    parity: dict[str, LanguageParity]

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return dataclasses.asdict(self)

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table of `parity`, one row per language, under `COLUMNS`."""
        return parity_rows(self.parity)

    def in_words(self) -> str:
        """Return the comparison on the sample as a sentence."""
        found = self.sample
        same = round(found.same * found.sentences)
        words = f"{same:,} of {found.sentences:,} sentences of the shipped sample have "
        words += "no new token"
        if found.same_difference is not None:
            words += f"; largest difference of their vectors: {found.same_difference:g}"
        return words


def extend_preset(
    model: str | Path,
    directory: str | Path,
    *,
    tokens: str | Path | None = None,
    files: data.Files | None = None,
    number: int | None = None,
    min_count: int = 2,
    languages: Iterable[str] | None = None,
    language: str | None = None,
    storage: str = "float32",
    on_error: data.OnError = "raise",
    skipped: data.SkipReport | None = None,
    progress: Progress = None,
) -> ExtendReport:
    """Write a preset with more tokens, and compare it with the old model.

    The tokens are those of a file, or are chosen from text. With `files`, 5 % of the
    sentences of each language, at most 1,000, are held out for the comparison. The
    sample shipped with the package is compared too: its sentences without a new token
    must keep their vectors. The preset is compared as written, so the rounding to
    `storage` is included.

    Args:
        model: The old model; see `labse_tf.encoders.load_model`.
        directory: New or empty directory for the preset.
        tokens: File with one token per line; see `extend_vocabulary`.
        files: Text and pair files to choose tokens from, instead of `tokens`; see
            `labse_tf.data.load_sentences`.
        number: How many tokens to choose from `files`.
        min_count: See `choose_new_tokens`.
        languages: Languages of `files` to use. Default: all.
        language: Language of files whose names do not state it.
        storage: Storage type of the new weights, see `LaBSE.save_to_preset`. Other
            types than float32 may round old weights.
        on_error: Action at an invalid line, `"raise"` or `"skip"`.
        skipped: Report that counts the lines omitted by `"skip"`.
        progress: See `labse_tf.progress`.

    Returns:
        The report, which is also in the card of the preset.

    Raises:
        ValueError: If not exactly one of `tokens` and `files` is given, `number` is
            missing, a token is invalid (the message has its line), there is no new
            token, or the directory is not empty.
        DataError: See `labse_tf.data.load_sentences`.
        OSError: If the directory cannot be written.
    """
    target = Path(directory)
    check_vacant(target, "The output")
    if (tokens is None) == (files is None) or (files is None) != (number is None):
        raise ValueError(
            "Expected either `tokens`, or `files` and `number`. Received: "
            f"tokens={tokens}, files={files}, number={number}"
        )
    for name, value in (("number", number), ("min_count", min_count)):
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be positive. Received: {value}")
    presets.check_storage(storage)
    given = None if tokens is None else load_vocabulary(tokens)
    held_out: dict[str, list[bytes]] = {}
    # Create the directory before the long work, so that write errors appear at once.
    with atomic_directory(target, overwrite=target.exists()) as folder:
        old = encoders.load_model(model)
        presets.check_storage(storage, old.backbone.hidden_dim)
        tokenizer = wordpiece_of(old.text_preprocessor().tokenizer)
        if given is None:
            paths = data.find_sentence_files(files or ())
            corpus = data.load_sentences(
                paths,
                language=language,
                languages=languages,
                on_error=on_error,
                skipped=skipped,
                progress=announce("Reading", len(paths), "files", show=progress),
            )
            texts = {c: Sentences(corpus, c) for c in corpus.languages}
            held_out = {c: texts[c].lowest(HELD_OUT_SHARE) for c in texts}
            given = _choose(
                tokenizer, texts, held_out, number or 0, min_count, progress
            )
        else:
            check_tokens(
                tokenizer, given, [f"{tokens}:{n}" for n in range(1, len(given) + 1)]
            )
        extended = extend_vocabulary(old, given)
        sample = [text for texts in sample_sentences().values() for text in texts]
        extended.model.save_to_preset(folder, storage=storage)
        written = LaBSE.from_preset(folder)
        report = ExtendReport(
            source=str(model),
            added=extended.added,
            characters=extended.characters,
            unknown=extended.unknown,
            present=len(extended.present),
            storage=storage,
            tokens=(old.backbone.vocabulary_size, written.backbone.vocabulary_size),
            parameters=(old.count_params(), written.count_params()),
            sample=compare(old, written, {"sample": sample}, progress=False)["sample"],
            parity=compare(old, written, held_out, progress=progress),
        )
        write_text(folder / presets.CARD, _card(target.name, written, report))
    return report


def _choose(
    tokenizer: WordPieceTokenizer,
    texts: dict[str, Sentences],
    held_out: dict[str, list[bytes]],
    number: int,
    min_count: int,
    progress: Progress,
) -> list[str]:
    """Choose tokens from the sentences that are not held out."""
    counter = WordCounter(
        lowercase=tokenizer.lowercase, strip_accents=tokenizer.strip_accents
    )
    unseen = {text for sentences in held_out.values() for text in sentences}
    counts: dict[str, Counter[str]] = {}
    for code, sentences in texts.items():
        counts[code] = Counter()
        rest = sentences.without(unseen)
        while block := list(islice(rest, BLOCK)):
            counts[code].update(counter.count([t.decode() for t in block]))
    return choose_new_tokens(
        tokenizer, counts, number, min_count=min_count, progress=progress
    )


def _card(name: str, model: LaBSE, report: ExtendReport) -> str:
    """Return the model card: source, new tokens, and effect."""
    source = Path(report.source).name
    table = "".join(f"| {' | '.join(row)} |\n" for row in report.rows())
    head = f"| {' | '.join(COLUMNS)} |\n|---|{'---:|' * (len(COLUMNS) - 1)}\n"
    parity = (
        f"""
Sentences of the text that the tokens were chosen from, not used for the choice. "Same
tokens" is the share of sentences without a new token. "Largest difference" is that of
two components of their vectors. The rest of the sentences have new tokens; the last two
columns give the cosine with their old vectors.

{head}{table}"""
        if report.parity
        else ""
    )
    return f"""# {name}

`{source}` with {len(report.added):,} more tokens, made by labse_tf {__version__}. All
other weights are those of `{source}`. See its card for training data, scores and
license; the same license applies to this model. The rows of the new tokens are means of
the rows of their old pieces and are not yet trained.

| | before | after |
|---|---:|---:|
| tokens | {report.tokens[0]:,} | {report.tokens[1]:,} |
| parameters | {report.parameters[0]:,} | {report.parameters[1]:,} |

| | |
|---|---|
| extended from | `{source}` |
| tokens that start at the mean of all rows | {len(report.unknown):,} |
| layers | {model.backbone.num_layers} |
| hidden dimension | {model.backbone.hidden_dim} |
| pooling | {model.pooling} |
| weights on disk | {report.storage} |

```python
import labse_tf

model = labse_tf.LaBSE.from_preset("{name}")  # or the path of this directory
vectors = model.encode(["Hello, world."])
```

## Effect on the vectors

{report.in_words()} (the weights are stored as {report.storage}).
{parity}"""
