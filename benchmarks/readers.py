"""How fast each format is read, and how much memory a large translation memory takes.

    python benchmarks/readers.py
    python benchmarks/readers.py --pairs 20000 --tmx-megabytes 1000

Each row of the table is a process of its own. Seconds are those of the processor, so
that other work beside it counts little. "Memory" is the highest resident memory
while reading, less what the process had when everything was imported and the first
pair was read; it needs Linux.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import itertools
import json
import lzma
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

Pair = tuple[str, str]

WORDS = "time person year way day thing man world life hand part child eye".split()
WORTE = "समय व्यक्ति वर्ष रास्ता दिन चीज़ आदमी दुनिया जीवन हाथ हिस्सा बच्चा आँख".split()


def main() -> None:
    """Writes the files, reads each in a process, prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=200_000, metavar="N")
    parser.add_argument("--tmx-megabytes", type=int, default=0, metavar="MB")
    parser.add_argument("--read", metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(options.read)))
        return
    print("| file | MB | pairs | seconds | pairs/s | MB/s | memory, MB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory(prefix="labse_tf.readers.") as name:
        folder = Path(name)
        if options.tmx_megabytes:
            path = folder / "memory.tmx"
            write_tmx(path, pairs(), options.tmx_megabytes * 10**6)
            report(path)
            path.unlink()
        rows = list(itertools.islice(pairs(), options.pairs))
        for path in write_all(folder, rows):
            report(path)


def pairs() -> Iterator[Pair]:
    """Sentences of 5 to 25 words without end."""
    draw = random.Random(0)
    while True:
        size = draw.randrange(5, 26)
        yield (
            " ".join(draw.choices(WORDS, k=size)),
            " ".join(draw.choices(WORTE, k=size)),
        )


def write_tmx(path: Path, rows: Iterator[Pair], most: int) -> None:
    """Units in the form of OPUS, until the file is large enough."""
    with open(path, "wb") as file:
        file.write(b'<?xml version="1.0"?>\n<tmx version="1.4"><header srclang="en"/>')
        file.write(b"<body>\n")
        size = 0
        for english, hindi in rows:
            size += file.write(
                "    <tu>\n"
                f'      <tuv xml:lang="en"><seg>{escape(english)}</seg></tuv>\n'
                f'      <tuv xml:lang="hi"><seg>{escape(hindi)}</seg></tuv>\n'
                "    </tu>\n".encode()
            )
            if size >= most:
                break
        file.write(b"</body></tmx>\n")


def write_all(folder: Path, rows: list[Pair]) -> Iterator[Path]:
    """The same pairs in each format."""
    import tensorflow as tf
    import zstandard

    def text(name: str, content: str) -> Path:
        (folder / name).write_text(content, encoding="utf-8")
        return folder / name

    tsv = text("en-hi.tsv", "".join(f"{a}\t{b}\n" for a, b in rows))
    yield tsv
    for ending, pack in (
        ("gz", gzip.compress),
        ("bz2", bz2.compress),
        ("xz", lambda content: lzma.compress(content, preset=1)),
        ("zst", zstandard.ZstdCompressor().compress),
    ):
        path = folder / f"en-hi.tsv.{ending}"
        path.write_bytes(pack(tsv.read_bytes()))
        yield path
    yield text("hi.po", "".join(f'msgid "{a}"\nmsgstr "{b}"\n\n' for a, b in rows))
    text("corpus.en-hi.en", "".join(f"{a}\n" for a, _ in rows))
    yield text("corpus.en-hi.hi", "".join(f"{b}\n" for _, b in rows))
    yield text(
        "talk.jsonl",
        "".join(
            json.dumps({"translation": {"en": a, "hi": b}}, ensure_ascii=False) + "\n"
            for a, b in rows
        ),
    )
    units = "".join(
        f"<trans-unit><source>{a}</source><target>{b}</target></trans-unit>\n"
        for a, b in rows
    )
    yield text(
        "app.xlf",
        '<xliff version="1.2"><file source-language="en" target-language="hi"><body>'
        f"\n{units}</body></file></xliff>",
    )
    path = folder / "memory.tmx"
    write_tmx(path, iter(rows), 10**12)
    yield path
    path = folder / "en-hi.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows:
            example = tf.train.Example()
            for side, sentence in zip(("src_raw", "tgt_raw"), row, strict=True):
                feature = example.features.feature[side]
                feature.bytes_list.value.append(sentence.encode())
            writer.write(example.SerializeToString())
    yield path


def report(path: Path) -> None:
    """Reads a file in a process of its own and prints its row."""
    command = [sys.executable, __file__, "--read", str(path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads(output.splitlines()[-1])
    size, seconds = path.stat().st_size / 1e6, found["seconds"]
    print(
        f"| {path.name} | {size:,.0f} | {found['pairs']:,} | {seconds:.1f} | "
        f"{found['pairs'] / seconds:,.0f} | {size / seconds:.0f} | "
        f"{found['memory'] / 1e6:.1f} |",
        flush=True,
    )


def read(path: str) -> dict[str, float]:
    """Goes through a file and lets each pair go."""
    from labse_tf import data

    next(data.read_pairs(path))
    # What importing took for a moment would hide what reading takes.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = peak()
    start = time.process_time()
    count = sum(1 for _ in data.read_pairs(path))
    seconds = time.process_time() - start
    return {"pairs": count, "seconds": seconds, "memory": peak() - before}


def peak() -> int:
    """The highest resident memory of this process since the last reset, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main()
