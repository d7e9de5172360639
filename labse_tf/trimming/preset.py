"""From files to a preset: text is read and held out, the smaller model is measured."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from labse_tf import __version__, presets
from labse_tf.data import (
    Files,
    MonolingualCorpus,
    OnError,
    SkipReport,
    file_language,
    find_sentence_files,
    has_one_language,
    load_sentences,
)
from labse_tf.files import atomic_directory, check_vacant, write_text
from labse_tf.languages import language_code, language_name
from labse_tf.models import LaBSE
from labse_tf.progress import Progress, announce
from labse_tf.trimming.parity import LanguageParity, compare
from labse_tf.trimming.smaller import trim
from labse_tf.trimming.tokens import BLOCK, Texts

# ours: enough for a rate to a tenth of a percent, and 5 % of a text leaves its tokens
# well counted.
HELD_OUT_SHARE, HELD_OUT_MOST = 0.05, 1000


@dataclasses.dataclass(frozen=True)
class TrimReport:
    """What `trim_preset` made of a preset; each pair is before and after.

    Attributes:
        source: The preset's name or path, as it was given.
        source_sha256: Of its `config.json`, which holds those of its other files.
        languages: Codes of those whose tokens were kept.
        chosen_by: How the tokens were chosen, in words.
        storage: Storage type of the weights.
        tokens: Rows of the token table.
        parameters: Numbers in all weights.
        bytes: Of configuration, vocabulary and weights on the disk.
        held_out: Where the sentences of `parity` came from, in words.
        parity: Language -> old and new on them.
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
        """The report for JSON."""
        return dataclasses.asdict(self)

    def rows(self) -> list[tuple[str, ...]]:
        """The table of `parity`, a row a language, under `COLUMNS`."""

        def show(value: float | None, form: str) -> str:
            return "" if value is None else format(value, form)

        return [
            (
                language_name(code),
                f"{found.sentences:,}",
                " → ".join(f"{x:.2f}" for x in found.tokens_per_word),
                " → ".join(f"{x:.2%}" for x in found.unk_rate),
                f"{found.same:.1%}",
                show(found.same_difference, ".1g"),
                show(found.rest_mean_cosine, ".4f"),
                show(found.rest_lowest_cosine, ".3f"),
            )
            for code, found in self.parity.items()
        ]


COLUMNS = (
    "language",
    "sentences",
    "tokens/word",
    "[UNK]",
    "same",
    "differ by",
    "rest, mean",
    "lowest",
)


def trim_preset(
    preset: str | Path,
    directory: str | Path,
    *,
    files: Files | None = None,
    languages: Iterable[str] | None = None,
    english: bool = True,
    language: str | None = None,
    held_out: Files | None = None,
    min_count: int = 1,
    keep_characters: bool = True,
    storage: str | None = None,
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
    progress: Progress = None,
) -> TrimReport:
    """Trims a preset and measures on held-out text what that cost.

    With `files`, tokens are chosen by their text, and 5 % of each language's
    sentences, at most 1,000, are held out for the measurement, the same ones each
    time. Without, tokens are chosen by the languages' scripts, and the measurement is
    made on the sample that ships with the package, where it has the language. What is
    measured is the preset as it was written, rounding to `storage` included.

    Args:
        preset: A shipped name or a preset directory.
        directory: Where to write the new one; new or empty.
        files: Text and pair files, as `labse_tf.data.load_sentences` takes them.
        languages: Keep these only; may be left out where `files` are given.
        english: Whether to keep English too.
        language: The language of files whose names do not say it.
        held_out: Files to measure on instead.
        min_count: As in `choose_tokens`.
        keep_characters: As in `choose_tokens`.
        storage: Of the new weights, as in `LaBSE.save_to_preset`; the old preset's
            where left out.
        on_error: What to do at a bad line, `"raise"` or `"skip"`.
        skipped: Where `"skip"` counts what it left out.
        progress: See `labse_tf.progress`.

    Returns:
        The report, which is in the new preset's card too.

    Raises:
        ValueError: If there is no such preset, the directory is not empty, a language
            is unknown or has no text, or the text has no token of the vocabulary.
        DataError: As `labse_tf.data.load_sentences`.
        OSError: If the directory cannot be written.
    """
    source, target = presets.find(preset), Path(directory)
    check_vacant(target, "The output")
    if storage is not None and storage not in presets.STORAGES:
        raise ValueError(
            f"`storage` must be one of {', '.join(presets.STORAGES)}. "
            f"Received: {storage!r}"
        )
    if languages is not None:
        given = [languages] if isinstance(languages, str) else languages
        languages = sorted({language_code(code) for code in given})
    if not languages and (files is None or languages is not None):
        raise ValueError("Expected `files`, or `languages`. Received: neither")
    if files is None:
        for code in languages or ():
            language_code(code, strict=True)
    storage = storage or presets.read_config(source).get("storage", "float32")

    def load(paths: Files) -> dict[str, _Sentences]:
        return _load(paths, languages, english, language, on_error, skipped, progress)

    choice = (
        _by_scripts(languages or (), english)
        if files is None
        else _by_text(load(files), held_out is None, min_count, keep_characters)
    )
    if held_out is not None:
        choice = choice._replace(
            measured={c: s.lowest(1.0) for c, s in load(held_out).items()},
            held_out="the files that were given for it",
        )
    # The folder is made before the long work: what cannot be written says so at once.
    with atomic_directory(target, overwrite=target.exists()) as folder:
        model = LaBSE.from_preset(source)
        trimmed = trim(
            model,
            choice.texts,
            languages=choice.codes if choice.texts is None else None,
            min_count=min_count,
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
            bytes=(_bytes(source), _bytes(folder)),
            held_out=choice.held_out,
            parity=compare(model, written, choice.measured, progress=progress),
        )
        write_text(folder / presets.CARD, _card(target.name, written, report))
    return report


class _Sentences:
    """The sentences of one language of a corpus; can be read again and again."""

    def __init__(self, corpus: MonolingualCorpus, language: str) -> None:
        self._corpus, self._language = corpus, language

    def __len__(self) -> int:
        return self._corpus.counts[self._language]

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self), BLOCK):
            rows = np.arange(start, min(start + BLOCK, len(self)))
            yield from self._corpus.sentences(self._language, rows)

    def lowest(self, share: float) -> list[bytes]:
        """A share of them, at most 1,000, by their hashes: in any order the same."""
        hashes = np.fromiter(
            (
                int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
                for text in self
            ),
            np.uint64,
            count=len(self),
        )
        least = 1 if share < 1 and len(self) > 1 else 0
        count = min(max(int(len(self) * share), least), HELD_OUT_MOST)
        rows = np.sort(np.argsort(hashes, kind="stable")[:count])
        return list(self._corpus.sentences(self._language, rows))

    def without(self, texts: set[bytes]) -> Iterator[bytes]:
        """Those that are not among `texts`."""
        return (text for text in self if text not in texts)


class _Choice(NamedTuple):
    """By what tokens are chosen, and what is measured.

    Attributes:
        codes: The languages.
        texts: Their text; `None` to choose by scripts.
        chosen_by: The same in words.
        measured: Held-out sentences of each language.
        held_out: Where they are from, in words.
    """

    codes: list[str]
    texts: Texts | None
    chosen_by: str
    measured: Mapping[str, Sequence[str | bytes]]
    held_out: str


def _by_scripts(languages: Sequence[str], english: bool) -> _Choice:
    """Chooses tokens by the scripts of languages."""
    codes = list(languages)
    if english and "en" not in codes:
        codes.append("en")
    return _Choice(
        codes=codes,
        texts=None,
        chosen_by=f"those written in the scripts of {_names(codes)}",
        measured=_sample(codes),
        held_out="the sample that ships with labse_tf",
    )


def _by_text(
    corpus: Mapping[str, _Sentences],
    hold_out: bool,
    min_count: int,
    keep_characters: bool,
) -> _Choice:
    """Chooses tokens by text, of which a share is held out unless there is other."""
    codes = sorted(corpus)
    measured = {
        code: corpus[code].lowest(HELD_OUT_SHARE) if hold_out else [] for code in codes
    }
    # A sentence that two languages have would be in the one and out of the other.
    unseen = {text for sentences in measured.values() for text in sentences}
    count = sum(map(len, corpus.values())) - len(unseen)
    chosen_by = f"those that {count:,} sentences in {_names(codes)} use"
    if min_count > 1:
        chosen_by += f" {min_count:,} times or more"
    if keep_characters:
        chosen_by += ", and single characters"
    return _Choice(
        codes=codes,
        texts={code: corpus[code].without(unseen) for code in corpus},
        chosen_by=chosen_by,
        measured=measured,
        held_out="the same text, held out from the choice of tokens",
    )


def _load(
    files: Files,
    languages: list[str] | None,
    english: bool,
    language: str | None,
    on_error: OnError,
    skipped: SkipReport | None,
    progress: Progress,
) -> dict[str, _Sentences]:
    """The sentences of the languages, each of which must be there, and English."""

    def wanted(code: str) -> bool:
        if code == "en":
            return english or "en" in (languages or ())
        return languages is None or code in languages

    paths = find_sentence_files(files)
    if language is None:
        # Pairs with a language that is not wanted are not read for their English.
        some = (p for p in paths if has_one_language(p))
        left_out = {p for p in some if not wanted(file_language(p) or "en")}
        paths = [p for p in paths if p not in left_out] or paths
    corpus = load_sentences(
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
            "The files must hold sentences in "
            f"{_names(sorted(missing)) or 'a language to keep'}. Received: "
            f"{len(paths)} from {paths[0]} on, in {', '.join(corpus.languages)}"
        )
    return {code: _Sentences(corpus, code) for code in found}


def _sample(codes: Sequence[str]) -> dict[str, list[bytes]]:
    """The sentences of the shipped sample in some languages."""
    folder = presets.shipped_directory() / "sample"
    paths = [
        path
        for path in sorted(folder.glob("en-*.tsv"))
        if "en" in codes or file_language(path) in codes
    ]
    if not paths:
        return {}
    corpus = load_sentences(paths, progress=False)
    return {
        code: list(_Sentences(corpus, code))
        for code in corpus.languages
        if code in codes
    }


def _names(codes: Iterable[str]) -> str:
    return ", ".join(language_name(code) for code in codes)


def _bytes(directory: Path) -> int:
    """Size of a preset's files, its card and what else lies there left out."""
    names = (presets.CONFIG, presets.VOCABULARY, presets.WEIGHTS)
    return sum((directory / name).stat().st_size for name in names)


def _card(name: str, model: LaBSE, report: TrimReport) -> str:
    """The model card: what was trimmed, how, and what it cost."""
    backbone = model.backbone
    source = Path(report.source).name
    table = "".join(f"| {' | '.join(row)} |\n" for row in report.rows())
    head = f"| {' | '.join(COLUMNS)} |\n|---|{'---:|' * (len(COLUMNS) - 1)}\n"
    parity = (
        f"""Old model against new on {report.held_out}.
"Same" are sentences all of whose tokens were kept: their vectors are the same, and
"differ by" is the largest difference of two numbers in them, rounding of the weights to
{report.storage} included. "The rest" lost a token, are spelled with other ones, and
have the cosine with their old vectors that the last two columns give.

{head}{table}"""
        if report.parity
        else "No text was at hand to compare it with the old model.\n"
    )
    return f"""# {name}

`{source}` with fewer tokens.
Kept: {report.chosen_by}.
All other weights are those of `{source}`, whose card has its training data, its scores
and its licence, which is the licence of this model too.

| | before | after |
|---|---:|---:|
| tokens | {report.tokens[0]:,} | {report.tokens[1]:,} |
| parameters | {report.parameters[0]:,} | {report.parameters[1]:,} |
| on the disk | {report.bytes[0] / 1e6:.1f} MB | {report.bytes[1] / 1e6:.1f} MB |

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

## What it costs

{parity}"""
