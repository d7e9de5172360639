r"""Compares the shipped models in transformers.js with the package, in Node.

    npm install @huggingface/transformers
    python benchmarks/javascript.py --data path/to/data --node-modules node_modules

Each model is exported with `labse_tf.export.export_onnx`. Node reads the directory and
encodes sentences of Tatoeba's files (`--data` is the folder of `benchmarks/zoo.py`), or
those of the shipped sample without `--data`. The table tells how many vectors have a
cosine of at least 0.999 with those of `encode`, the lowest cosine, and milliseconds a
sentence.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import labse_tf
from labse_tf import evaluation
from labse_tf.export import export_onnx
from labse_tf.export.parity import sample_texts

MODELS = {"labse-nano": "int8", "labse-mini": "int4"}
SCRIPT = """
import fs from "fs";
import { pipeline, env } from "@huggingface/transformers";
const [folder, name] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = folder + "/";
const texts = JSON.parse(fs.readFileSync(folder + "/texts.json"));
const options = { dtype: "fp32" };
const { tokenizer, model } = await pipeline("feature-extraction", name, options);
const rows = [];
const started = performance.now();
for (let i = 0; i < texts.length; i += 32) {
  const batch = texts.slice(i, i + 32);
  const inputs = tokenizer(batch, { padding: true, truncation: true });
  rows.push(...(await model(inputs)).sentence_embedding.tolist());
}
const milliseconds = (performance.now() - started) / texts.length;
fs.writeFileSync(folder + "/vectors.json", JSON.stringify({ milliseconds, rows }));
"""


def main() -> None:
    """Prints one row per model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--node-modules", type=Path, required=True)
    parser.add_argument("--most", type=int, default=100, help="sentences a language")
    options = parser.parse_args()
    print("| model | storage | sentences | cosine >= 0.999 | lowest | ms a sentence |")
    print("|---|---|---:|---:|---:|---:|")
    for name, storage in MODELS.items():
        model = labse_tf.LaBSE.from_preset(name)
        texts = sample_texts(model)
        if options.data is not None:
            pairs = evaluation.tatoeba_pairs(options.data / "tatoeba")
            sides = [side for both in pairs.values() for side in both]
            texts = sorted({text for side in sides for text in side[: options.most]})
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            (place / "node_modules").symlink_to(options.node_modules.resolve())
            (place / "encode.mjs").write_text(SCRIPT)
            (place / "texts.json").write_text(json.dumps(texts))
            export_onnx(model, place / name, storage=storage)
            subprocess.run(["node", "encode.mjs", folder, name], cwd=place, check=True)
            result = json.loads((place / "vectors.json").read_text())
        cosines = (np.array(result["rows"]) * model.encode(texts)).sum(axis=1)
        print(
            f"| {name} | {storage} | {len(texts):,} | {(cosines >= 0.999).mean():.2%} "
            f"| {cosines.min():.6f} | {result['milliseconds']:.1f} |"
        )


if __name__ == "__main__":
    main()
