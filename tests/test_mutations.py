"""Deliberate faults in the arithmetic that matters: each must make a test fail.

A copy of the package and of the tests gets one fault; the tests that ought to notice
run on it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import ROOT

LOSSES = "tests/test_losses.py"
GATHER = "tests/test_distribute.py -k gathering"
REPLICAS = "tests/test_distribute.py -k (one_device)and(2)"
MODELS = "tests/test_models.py -k fingerprints"
STACK = "tests/test_pretraining.py -k (copied_in_turn)or(two_digits)"
ZERO = "tests/test_pretraining.py -k growing_from_zero"
GROW = "tests/test_stages.py -k growing_takes"
BAG = "tests/test_stages.py -k grown_from_zero"
RESUME = "tests/test_stages.py -k resumed_in_any_stage"
HAND = "tests/test_masking.py -k by_hand"
RATES = "tests/test_masking.py -k (rates_over)or(never_masked)"
LEAKS = "tests/test_masking.py -k leaks_nothing"
CHUNKS = "tests/test_layers.py -k full_softmax"
STREAM = "tests/test_masked_stream.py -k in_step"
POOLS = "tests/test_ranking.py -k pools_equal"
XSIM = "tests/test_ranking.py -k xsim_equals"
CORRELATIONS = "tests/test_sts.py -k oracle"

# Name -> file, what stands there, what the fault makes of it, the tests to run.
FAULTS: dict[str, tuple[str, str, str, str]] = {
    "no margin": (
        "losses",
        "(cosines - margin * ops.cast(own, cosines.dtype))",
        "cosines",
        LOSSES,
    ),
    "margin everywhere": (
        "losses",
        "margin * ops.cast(own, cosines.dtype)",
        "margin",
        LOSSES,
    ),
    "no scale": ("losses", "scale * (cosines", "1.0 * (cosines", LOSSES),
    "one direction": ("losses", "if self.bidirectional:", "if False:", LOSSES),
    "halved": ("losses", "ops.mean(values) /", "ops.mean(values) / 2 /", LOSSES),
    "wrong side": (
        "losses",
        "directions.append((target, all_sources))",
        "directions.append((target, all_targets))",
        LOSSES,
    ),
    "duplicates need both": (
        "layers",
        "ops.logical_or(same_source, same_target)",
        "ops.logical_and(same_source, same_target)",
        LOSSES,
    ),
    "half a fingerprint": (
        "layers",
        "same_source = ops.logical_and(same[:, :, 0], same[:, :, 1])",
        "same_source = same[:, :, 0]",
        LOSSES,
    ),
    "the pair itself masked": (
        "layers",
        "ops.logical_not(own)",
        "ops.ones_like(own)",
        LOSSES,
    ),
    "running sum of the loss not rescaled": (
        "losses",
        "total * ops.exp(top - new_top) + part",
        "total + part",
        LOSSES,
    ),
    "candidates of two blocks count twice": (
        "blocks",
        'dtype="int32") >= begin',
        'dtype="int32") >= 0',
        LOSSES,
    ),
    "gradient of two blocks counts twice": (
        "losses",
        "block * fresh[:, None]",
        "block",
        LOSSES,
    ),
    "nearest of a block": (
        "metrics",
        "ops.where(highest > top, place, nearest)",
        "place",
        LOSSES,
    ),
    "replicas forgotten": ("losses", "/ replica_count()", "/ 1", REPLICAS),
    "local row ids": (
        "distribute",
        "return offset + tf.range",
        "return tf.range",
        GATHER,
    ),
    "offset without rows": ("distribute", "tf.int32) * count", "tf.int32) * 1", GATHER),
    "padding in fingerprints": (
        "layers",
        "ops.sum(mixed * padding_mask, axis=1)",
        "ops.sum(mixed, axis=1)",
        MODELS,
    ),
    "fingerprints of bags": (
        "layers",
        "token_factor + positions * position_factor",
        "token_factor",
        MODELS,
    ),
    "layer by division": (
        "pretraining",
        "int(m[1]) % layers",
        "int(m[1]) // layers",
        STACK,
    ),
    "head forgotten": (
        "pretraining",
        "new = MaskedLM(backbone, model.head)",
        "new = MaskedLM(backbone)",
        GROW,
    ),
    "step count forgotten": (
        "pretraining",
        "new_optimizer.iterations.assign(old_optimizer.iterations)",
        "pass",
        GROW,
    ),
    "token weights forgotten": (
        "pretraining",
        "        target.assign(_copied(source))\n",
        "        pass\n",
        BAG,
    ),
    "embedding norm left where it was": (
        "pretraining",
        "embedding.assign(np.full(embedding.shape, neutral, dtype=np.float32))",
        "pass",
        ZERO,
    ),
    "the last step of a stage in the next": (
        "pretraining",
        "if start > stage.end:",
        "if start >= stage.end:",
        RESUME,
    ),
    "segments off by one": (
        "preprocessing",
        "return sequences, first_length + 2",
        "return sequences, first_length + 1",
        HAND,
    ),
    "special tokens masked": ("preprocessing", "~special & (", "(", RATES),
    "rate rounded down": (
        "preprocessing",
        "available * self.mask_rate + uniform(_COUNTS, tf.shape(available))",
        "available * self.mask_rate",
        RATES,
    ),
    "packed sentences see each other": (
        "layers",
        "return ops.logical_and(same, real)",
        "return ops.logical_and(ops.ones_like(same), real)",
        LEAKS,
    ),
    "running sum not rescaled": (
        "layers",
        "total = total * ops.exp(top - new_top) + chunk_total",
        "total = total + chunk_total",
        CHUNKS,
    ),
    "label of another chunk": (
        "layers",
        "ops.one_hot(labels - start, rows",
        "ops.one_hot(labels, rows",
        CHUNKS,
    ),
    "one order for both streams": (
        "data/masked",
        "self._order_seed = 2 * seed + number",
        "self._order_seed = 2 * seed",
        STREAM,
    ),
    "a tie goes to the pool": (
        "evaluation/pool",
        "cosines[:, 0] <= self",
        "cosines[:, 0] < self",
        POOLS,
    ),
    "copies in a pool are others": (
        "evaluation/pool",
        "text not in self._known for",
        "True for",
        POOLS,
    ),
    "wrong for one block only": (
        "evaluation/pool",
        "self.hits[still] = cosines",
        "self.hits[still] |= cosines",
        POOLS,
    ),
    "alignment of the other side": (
        "evaluation/xsim",
        "(both, both.swapped()), sides",
        "(both.swapped(), both), sides",
        XSIM,
    ),
    "the last rank of a tie": (
        "evaluation/sts",
        "np.cumsum(counts) - (counts - 1) / 2",
        "np.cumsum(counts)",
        CORRELATIONS,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_noticed(name: str, tmp_path: Path) -> None:
    module, right, wrong, tests = FAULTS[name]
    for folder in ("labse_tf", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "labse_tf" / f"{module}.py"
    code = path.read_text(encoding="utf-8")
    assert code.count(right) == 1, f"{path.name} has no longer one {right!r}"
    path.write_text(code.replace(right, wrong), encoding="utf-8")
    file, *selection = tests.split(" ", 1)
    arguments = [file, *selection[0].split(" ", 1)] if selection else [file]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"),
            *arguments,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    # 1: tests ran and some failed; 2 to 5 would be a run that noticed nothing.
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-2000:]
    assert "failed" in done.stdout
