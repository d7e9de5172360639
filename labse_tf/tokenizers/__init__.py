"""Tokenizers: WordPiece and SentencePiece in the graph, and learning of a vocabulary.

`WordPieceTokenizer` returns the ids of the original BERT tokenizer,
`SentencePieceTokenizer` those of a Unigram model, such as XLM-RoBERTa's, and
`KerasHubTokenizer` those of a tokenizer of KerasHub. All consist of TensorFlow ops, so
they run in `tf.data`, inside a SavedModel and in TensorFlow Serving. `learn_vocabulary`
learns a WordPiece vocabulary from text in many languages, smoothed by language as in
section 3.1 of the LaBSE paper; `unk_rate` measures the fit.

`vocabulary` reads, writes and checks a list of tokens, `sentencepiece_model` the model
of SentencePiece. `layer` is what the tokenizers share, `wordpiece`, `sentencepiece` and
`keras_hub` are the tokenizers, `learning` learns the list of tokens. Each module
imports only from those before it.

References:
    - Feng et al., Language-agnostic BERT Sentence Embedding,
      https://arxiv.org/abs/2007.01852
    - Song et al., Fast WordPiece Tokenization, https://arxiv.org/abs/2012.15524
    - Kudo and Richardson, SentencePiece, https://arxiv.org/abs/1808.06226
"""

from labse_tf.tokenizers.keras_hub import KerasHubTokenizer
from labse_tf.tokenizers.layer import Tokenizer
from labse_tf.tokenizers.learning import (
    WordCounter,
    learn_vocabulary,
    learn_vocabulary_from_counts,
    read_word_counts,
    unk_rate,
)
from labse_tf.tokenizers.sentencepiece import SentencePieceTokenizer
from labse_tf.tokenizers.vocabulary import (
    CLS_TOKEN,
    MASK_TOKEN,
    PAD_TOKEN,
    SEP_TOKEN,
    SPECIAL_TOKENS,
    UNK_TOKEN,
    load_vocabulary,
    save_vocabulary,
)
from labse_tf.tokenizers.wordpiece import WordPieceTokenizer

__all__ = ["CLS_TOKEN", "MASK_TOKEN", "PAD_TOKEN", "SEP_TOKEN", "SPECIAL_TOKENS"]
__all__ += ["KerasHubTokenizer", "SentencePieceTokenizer", "Tokenizer"]
__all__ += ["UNK_TOKEN", "WordCounter", "WordPieceTokenizer", "learn_vocabulary"]
__all__ += ["learn_vocabulary_from_counts", "load_vocabulary", "read_word_counts"]
__all__ += ["save_vocabulary", "unk_rate"]
