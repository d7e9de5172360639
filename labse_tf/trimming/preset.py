"""Presets: trim a preset and measure the smaller model on held-out text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from labse_tf import __version__, data, presets
from labse_tf.files import atomic_directory, check_vacant, write_text
from labse_tf.languages import language_code, language_name
from labse_tf.models import LaBSE
from labse_tf.progress import Progress, announce
from labse_tf.trimming.parity import COLUMNS, LanguageParity, compare, parity_rows
from labse_tf.trimming.sentences import HELD_OUT_SHARE, Sentences, sample_sentences
from labse_tf.trimming.smaller import trim
from labse_tf.trimming.tokens import Texts


@dataclasses.dataclass(frozen=True)
class TrimReport:
    """Result of `trim_preset`; each pair is before and after.

    Attributes:
        source: Name or path of the source preset, as given.
        source_sha256: Hash of its `config.json`, which holds the hashes of its other
            files.
        languages: Codes of the languages whose tokens were kept.
        chosen_by: How the tokens were chosen, as text.
        storage: Storage type of the weights.
        tokens: Number of rows of the token table.
        parameters: Number of weights.
        bytes: Size on disk of configuration, vocabulary and weights.
        held_out: Origin of the sentences of `parity`, as text.
        parity: Language -> comparison of the old and the new model.
    """

    source: str
    source_sha256: str
    languages: list[str]
    chosen_by: str
    storage: str
    tokens: tuple[int, int]
    parameters: tuple[int, int]
    bytes: tuple[int, int]
    held_out: str
    parity: dict[str, LanguageParity]

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return dataclasses.asdict(self)

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table of `parity`, one row per language, under `COLUMNS`."""
        return parity_rows(self.parity)


def trim_preset(
    preset: str | Path,
    directory: str | Path,
    *,
    files: data.Files | None = None,
    languages: Iterable[str] | None = None,
    english: bool = True,
    language: str | None = None,
    held_out: data.Files | None = None,
    min_count: int = 1,
    max_tokens: int | None = None,
    keep_characters: bool = True,
    storage: str | None = None,
    on_error: data.OnError = "raise",
    skipped: data.SkipReport | None = None,
    progress: Progress = None,
) -> TrimReport:
    """Trim a preset and measure the effect on held-out text.

    With `files`, tokens are chosen by their text; 5 % of the sentences of each
    language, at most 1,000, are held out for the measurement, the same sentences in
    every run. Without `files`, tokens are chosen by the scripts of the languages, and
    the measurement uses the sample shipped with the package, if it has the language.
    The measurement uses the preset as written, so it includes the rounding to
    `storage`.

    Args:
        preset: A shipped name or a preset directory.
        directory: New or empty directory for the new preset.
        files: Text and pair files; see `labse_tf.data.load_sentences`.
        languages: Languages to keep; optional if `files` are given.
        english: Whether to keep English too.
        language: Language of files whose names do not state it.
        held_out: Files for the measurement, instead of held-out sentences.
        min_count: See `choose_tokens`.
        max_tokens: See `choose_tokens`; requires `files`.
        keep_characters: See `choose_tokens`.
        storage: Storage type of the new weights, see `LaBSE.save_to_preset` (default:
            that of the old preset).
        on_error: Action at an invalid line, `"raise"` or `"skip"`.
        skipped: Report that counts the lines omitted by `"skip"`.
        progress: See `labse_tf.progress`.

    Returns:
        The report, which is also in the card of the new preset.

    Raises:
        ValueError: If the preset does not exist, the directory is not empty, a language
            is unknown or has no text, or the text has no token of the vocabulary.
        DataError: See `labse_tf.data.load_sentences`.
        OSError: If the directory cannot be written.
    """
    source, target = presets.find(preset), Path(directory)
    check_vacant(target, "The output")
    if languages is not None:
        given = [languages] if isinstance(languages, str) else languages
        languages = sorted({language_code(code) for code in given})
    if max_tokens is not None and files is None:
        raise ValueError(
            "`max_tokens` requires `files`, whose text ranks the tokens. Received: "
            f"max_tokens={max_tokens} without files"
        )
    if not languages and (files is None or languages is not None):
        raise ValueError("Expected `files` or `languages`. Received: neither")
    if files is None:
        for code in languages or ():
            language_code(code, strict=True)
    config = presets.read_config(source)
    storage = storage or config.get("storage", "float32")
    presets.check_storage(storage, config["backbone"].get("hidden_dim"))

    def load(paths: data.Files) -> dict[str, Sentences]:
        return _load(paths, languages, english, language, on_error, skipped, progress)

    choice = (
        _by_scripts(languages or (), english)
        if files is None
        else _by_text(
            load(files), held_out is None, min_count, max_tokens, keep_characters
        )
    )
    if held_out is not None:
        choice = choice._replace(
            measured={c: s.lowest(1.0) for c, s in load(held_out).items()},
            held_out="the given held-out files",
        )
    # Create the directory before the long work, so that write errors appear at once.
    with atomic_directory(target, overwrite=target.exists()) as folder:
        model = LaBSE.from_preset(source)
        trimmed = trim(
            model,
            choice.texts,
            languages=choice.codes if choice.texts is None else None,
            min_count=min_count,
            max_tokens=max_tokens,
            keep_characters=keep_characters,
            progress=progress,
        )
        trimmed.save_to_preset(folder, storage=storage)
        written = LaBSE.from_preset(folder)
        report = TrimReport(
            source=str(preset),
            source_sha256=presets.sha256(source / presets.CONFIG),
            languages=choice.codes,
            chosen_by=choice.chosen_by,
            storage=storage,
            tokens=(model.backbone.vocabulary_size, written.backbone.vocabulary_size),
            parameters=(model.count_params(), written.count_params()),
            bytes=(presets.size_of(source), presets.size_of(folder)),
            held_out=choice.held_out,
            parity=compare(model, written, choice.measured, progress=progress),
        )
        write_text(folder / presets.CARD, _card(target.name, written, report))
    return report


class _Choice(NamedTuple):
    """How tokens are chosen, and the text for the measurement.

    Attributes:
        codes: The languages.
        texts: Text of each language; `None` to choose by scripts.
        chosen_by: The rule of the choice, as text.
        measured: Held-out sentences of each language.
        held_out: Origin of the held-out sentences, as text.
    """

    codes: list[str]
    texts: Texts | None
    chosen_by: str
    measured: Mapping[str, Sequence[str | bytes]]
    held_out: str


def _by_scripts(languages: Sequence[str], english: bool) -> _Choice:
    """Choose tokens by the scripts of languages."""
    codes = list(languages)
    if english and "en" not in codes:
        codes.append("en")
    return _Choice(
        codes=codes,
        texts=None,
        chosen_by=f"all tokens in the scripts of {_names(codes)}",
        measured=sample_sentences(codes),
        held_out="the sample shipped with labse_tf",
    )


def _by_text(
    corpus: Mapping[str, Sentences],
    hold_out: bool,
    min_count: int,
    max_tokens: int | None,
    keep_characters: bool,
) -> _Choice:
    """Choose tokens by text, without its held-out share if `hold_out` is set."""
    codes = sorted(corpus)
    measured = {
        code: corpus[code].lowest(HELD_OUT_SHARE) if hold_out else [] for code in codes
    }
    # A sentence of two languages may be held out of one only: exclude it from both.
    unseen = {text for sentences in measured.values() for text in sentences}
    count = sum(map(len, corpus.values())) - len(unseen)
    kind = "all" if max_tokens is None else "the most frequent"
    chosen_by = f"{kind} tokens of {count:,} sentences in {_names(codes)}"
    if min_count > 1:
        chosen_by += f" that occur at least {min_count:,} times"
    if keep_characters:
        chosen_by += ", and single characters"
    return _Choice(
        codes=codes,
        texts={code: corpus[code].without(unseen) for code in corpus},
        chosen_by=chosen_by,
        measured=measured,
        held_out="sentences of the same text, not used to choose the tokens",
    )


def _load(
    files: data.Files,
    languages: list[str] | None,
    english: bool,
    language: str | None,
    on_error: data.OnError,
    skipped: data.SkipReport | None,
    progress: Progress,
) -> dict[str, Sentences]:
    """Load the sentences of the languages, all of which must occur, and of English."""

    def wanted(code: str) -> bool:
        if code == "en":
            return english or "en" in (languages or ())
        return languages is None or code in languages

    paths = data.find_sentence_files(files)
    if language is None:
        # Pairs with an excluded language are not read for their English side.
        some = (p for p in paths if data.has_one_language(p))
        left_out = {p for p in some if not wanted(data.file_language(p) or "en")}
        paths = [p for p in paths if p not in left_out] or paths
    corpus = data.load_sentences(
        paths,
        language=language,
        on_error=on_error,
        skipped=skipped,
        progress=announce("Reading", len(paths), "files", show=progress),
    )
    found = [code for code in corpus.languages if wanted(code)]
    missing = set(languages or ()) - set(found)
    if missing or not found:
        raise ValueError(
            "The files must contain sentences in "
            f"{_names(sorted(missing)) or 'a language to keep'}. Received: "
            f"{len(paths)} file(s) from {paths[0]} on, "
            f"in {', '.join(corpus.languages)}"
        )
    return {code: Sentences(corpus, code) for code in found}


def _names(codes: Iterable[str]) -> str:
    return ", ".join(language_name(code) for code in codes)


def _card(name: str, model: LaBSE, report: TrimReport) -> str:
    """Return the model card: source, choice of tokens, and effect."""
    backbone = model.backbone
    source = Path(report.source).name
    table = "".join(f"| {' | '.join(row)} |\n" for row in report.rows())
    head = f"| {' | '.join(COLUMNS)} |\n|---|{'---:|' * (len(COLUMNS) - 1)}\n"
    parity = (
        f"""Old and new model, compared on {report.held_out}.
"Same tokens" is the share of sentences whose tokens were all kept. Their vectors are
the same: "largest difference" is that of two vector components, including the rounding
of the weights to {report.storage}. The rest of the sentences lost a token and are split
into other tokens; the last two columns give the cosine with their old vectors.

{head}{table}"""
        if report.parity
        else "Not compared with the old model: no text was given.\n"
    )
    return f"""# {name}

`{source}` with fewer tokens.
Kept: {report.chosen_by}.
All other weights are those of `{source}`. See its card for training data, scores and
license; the same license applies to this model.

| | before | after |
|---|---:|---:|
| tokens | {report.tokens[0]:,} | {report.tokens[1]:,} |
| parameters | {report.parameters[0]:,} | {report.parameters[1]:,} |
| size on disk | {report.bytes[0] / 1e6:.1f} MB | {report.bytes[1] / 1e6:.1f} MB |

| | |
|---|---|
| trimmed from | `{source}`, sha256 of its config.json: `{report.source_sha256}` |
| trimmed by | labse_tf {__version__} |
| languages | {_names(report.languages)} |
| layers | {backbone.num_layers} |
| hidden dimension | {backbone.hidden_dim} |
| pooling | {model.pooling} |
| weights on disk | {report.storage} |

```python
import labse_tf

model = labse_tf.LaBSE.from_preset("{name}")  # or the path of this directory
vectors = model.encode(["Hello, world."])
```

## Effect on the vectors

{parity}"""
