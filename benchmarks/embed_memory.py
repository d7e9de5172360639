r"""Memory of `labse-tf embed` against the number of lines.

    python benchmarks/embed_memory.py --lines 10000 100000 1000000

Each file is made of the messages of Django's catalogues, numbered so that no two lines
are equal. The highest resident memory of the command, and the size of what it wrote:
vectors go to a file that is mapped, whose pages the system may drop.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import turns

_RUN = """
import sys
from labse_tf.cli import main
status = main(sys.argv[1:])
fields = open("/proc/self/status").read().split()
anonymous = int(fields[fields.index("RssAnon:") + 1])
peak = int(fields[fields.index("VmHWM:") + 1])
print("@", anonymous, peak)
sys.exit(status)
"""


def main() -> None:
    """Embeds files of several sizes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="labse-nano")
    parser.add_argument(
        "--lines", nargs="+", type=int, default=[10_000, 100_000, 1_000_000]
    )
    options = parser.parse_args()
    texts = [" ".join(text.split()) for text in turns.real_sentences(None, 10_000)]
    rows = []
    for count in options.lines:
        with tempfile.TemporaryDirectory() as folder:
            file, output = Path(folder) / "lines.txt", Path(folder) / "vectors.npy"
            with file.open("w", encoding="utf-8") as lines:
                for number in range(count):
                    lines.write(f"{texts[number % len(texts)]} {number}\n")
            arguments = ["embed", str(file), "--model", options.model]
            start = time.perf_counter()
            said = subprocess.run(
                [sys.executable, "-c", _RUN, *arguments, "--output", str(output)],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            ).stdout
            seconds = time.perf_counter() - start
            anonymous, peak = (int(x) / 1e3 for x in said.split("@")[1].split())
            size = output.stat().st_size / 1e6
        rows.append(
            [
                f"{count:,}",
                f"{seconds:.0f}",
                f"{count / seconds:,.0f}",
                f"{size:,.0f}",
                f"{anonymous:,.0f}",
                f"{peak:,.0f}",
            ]
        )
        print(rows[-1], file=sys.stderr)
    print(turns.heading(), end="\n\n")
    columns = [
        "lines",
        "seconds",
        "lines/s",
        "vectors, MB",
        "own memory at the end, MB",
    ]
    print(turns.table([*columns, "peak with mapped files, MB"], rows))
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    print(f"\nHighest of all: {most:,.0f} MB.")


if __name__ == "__main__":
    main()
