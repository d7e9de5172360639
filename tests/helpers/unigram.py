"""A small SentencePiece tokenizer of Hugging Face's library, and models with it."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from helpers import foreign

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
WORDS = ["▁sun", "ny", "▁moon", "▁day", "sun", "▁a", "▁दिन", "न", "fi", "day"]
WORDS += ["▁query", "s>"]
LETTERS = [*"abdefimnosuyि.", "▁", "q", ":", "<", ">", "/"]
# Scores without ties: no two ways to split a text have the same sum.
SCORED = [(piece, 0.0) for piece in SPECIAL]
SCORED += [(word, -3.1 - 0.37 * i) for i, word in enumerate(WORDS)]
SCORED += [(c, -9.3 - 0.113 * i**1.1) for i, c in enumerate(dict.fromkeys(LETTERS))]
NMT_NFKC = [normalizers.Nmt(), normalizers.NFKC()]
NMT_NFKC.append(normalizers.Replace(Regex(" {2,}"), " "))


def make(*steps: normalizers.Normalizer) -> Tokenizer:
    """A Unigram tokenizer with rows of `<s> tokens </s>`, like XLM-RoBERTa's."""
    tokenizer = Tokenizer(models.Unigram(SCORED, unk_id=3))
    tokenizer.normalizer = normalizers.Sequence(list(steps))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def write(folder: Path, *steps: normalizers.Normalizer) -> Path:
    """A directory as `transformers` writes it, with such a tokenizer."""
    foreign.write_huggingface(folder)
    (folder / "vocab.txt").unlink()
    make(*(steps or NMT_NFKC)).save(str(folder / "tokenizer.json"))
    foreign.write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 12},
    )
    return folder
