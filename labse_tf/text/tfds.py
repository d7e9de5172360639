"""Translation data sets of TensorFlow Datasets -> rows."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from typing import Any

from labse_tf.text.names import TFDS
from labse_tf.text.problems import InputFile, Row
from labse_tf.text.translations import Translations


def tfds_rows(file: InputFile) -> Iterator[Row]:
    """Yield the translations of `tfds:name/config?split=train`; downloads if needed."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"{file.path} needs tensorflow-datasets: pip install 'labse-tf[tfds]'"
        ) from error
    name, _, query = str(file.path).removeprefix(TFDS).partition("?")
    options = dict(urllib.parse.parse_qsl(query))
    split = options.pop("split", "train")
    if options:
        file.problem(1, "no option other than ?split=NAME", ", ".join(options))
        return
    try:
        data, info = tfds.load(name, split=split, with_info=True)
        examples = iter(tfds.as_numpy(data))
    except Exception as error:  # The builders raise many types.
        file.problem(1, "a data set that TFDS can load", _first_line(error))
        return
    kinds = tfds.features.Translation, tfds.features.TranslationVariableLanguages
    features = info.features if isinstance(info.features, kinds[0]) else None
    keys = [k for k, kind in info.features.items() if isinstance(kind, kinds)]
    if features is None and not keys:
        received = f"the features {', '.join(info.features)}"
        file.problem(1, "a data set of translations", received)
        return
    translations, number = Translations(file), 0
    while True:
        try:
            example: Any = next(examples, None)
        except Exception as error:
            file.problem(number + 1, "a readable record", _first_line(error))
            return
        if example is None:
            break
        number += 1
        texts = example if features is not None else example[keys[0]]
        pairs = texts.items()
        try:
            if {"language", "translation"} <= texts.keys():
                codes = [code.decode() for code in texts["language"].tolist()]
                pairs = zip(codes, texts["translation"].tolist(), strict=True)
            decoded = [(code, text.decode()) for code, text in pairs]
        except ValueError as error:  # Invalid UTF-8, or unequal lengths.
            file.problem(number, "UTF-8 text and its language", str(error))
            continue
        yield from translations.rows(number, decoded)
    translations.finish()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
