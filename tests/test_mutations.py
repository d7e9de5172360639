"""Deliberate faults in the arithmetic that matters: each must make a test fail.

A copy of the package and of the tests gets one fault; the tests that ought to notice
run on it. A fault is an edit by pattern inside a function, see `helpers.mutation`; one
that finds its code no longer fails in the default suite.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from helpers.mutation import Functions, edited, find_functions
from helpers.paths import PACKAGE, ROOT

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
PATHS = "tests/test_alignment.py -k (cheapest)or(infinite)"
COSTS = "tests/test_alignment.py -k by_hand"
PRODUCT = "tests/test_adapters.py -k added_to_the_kernels"
TRAINED = "tests/test_adapters.py -k (only_low_rank)or(no_gradient)"
GUIDE = "tests/test_guide.py -k (equal_numpy)or(ignores_all)"


class Fault(NamedTuple):
    """What is made of what in a function, and the tests that must notice."""

    function: str
    right: str
    wrong: str
    tests: str


FAULTS = {
    "no margin": Fault("_logits", "C - M * ops.cast(O, T)", "C", LOSSES),
    "margin everywhere": Fault("_logits", "M * ops.cast(O, T)", "M", LOSSES),
    "no scale": Fault("_logits", "S * (C - M)", "C - M", LOSSES),
    "one direction": Fault(
        "AdditiveMarginSoftmax.call", "self.bidirectional", "False", LOSSES
    ),
    "halved": Fault(
        "AdditiveMarginSoftmax.__call__",
        "ops.mean(V) / R",
        "ops.mean(V) / 2 / R",
        LOSSES,
    ),
    "wrong side": Fault(
        "AdditiveMarginSoftmax.call",
        "D.append((target, all_sources))",
        "D.append((target, all_targets))",
        LOSSES,
    ),
    "duplicates need both": Fault(
        "same_sentences", "ops.logical_or(A, B)", "ops.logical_and(A, B)", LOSSES
    ),
    "half a fingerprint": Fault(
        "same_sentences",
        "ops.logical_and(S[:, :, 0], S[:, :, 1])",
        "S[:, :, 0]",
        LOSSES,
    ),
    "the pair itself masked": Fault(
        "pair_masks", "ops.logical_not(O)", "ops.ones_like(O)", LOSSES
    ),
    "guide: the margin the other way": Fault(
        "AdditiveMarginSoftmax._guided", "C - M * U", "C + M * U", GUIDE
    ),
    "guide: vectors of the queries' side": Fault(
        "_block_masks",
        "(K.source_guide, K.all_target_guide)",
        "(K.source_guide, K.all_source_guide)",
        GUIDE,
    ),
    "guide: the pair itself ignored": Fault(
        "_block_masks", "ops.logical_and(N, ops.logical_not(O))", "N", GUIDE
    ),
    "running sum of the loss not rescaled": Fault(
        "LogSumExp.add", "T * ops.exp(A - B) + P", "T + P", LOSSES
    ),
    "last block left out": Fault("over_blocks", "step(F, S - F, *X)", "X", LOSSES),
    "every block the first": Fault(
        "_block_masks", "S + ops.arange(R, dtype=D)", "ops.arange(R, dtype=D)", LOSSES
    ),
    "nearest of a block": Fault(
        "TranslationRankingAccuracy._hits", "ops.where(H > T, P, N)", "P", LOSSES
    ),
    "replicas forgotten": Fault(
        "AdditiveMarginSoftmax.__call__", "V / replica_count()", "V", REPLICAS
    ),
    "local row ids": Fault(
        "global_row_ids", "O + tf.range(C, dtype=D)", "tf.range(C, dtype=D)", GATHER
    ),
    "offset without rows": Fault(
        "global_row_ids", "tf.cast(R, T) * C", "tf.cast(R, T)", GATHER
    ),
    "padding in fingerprints": Fault(
        "sentence_fingerprints",
        "ops.sum(M * P, axis=1)",
        "ops.sum(M, axis=1)",
        MODELS,
    ),
    "fingerprints of bags": Fault(
        "sentence_fingerprints", "T * A + P * B", "T * A", MODELS
    ),
    "layer by division": Fault("_origin", "int(M) % L", "int(M) // L", STACK),
    "head forgotten": Fault("grow", "MaskedLM(B, H)", "MaskedLM(B)", GROW),
    "step count forgotten": Fault(
        "stack_moments", "N.iterations.assign(O.iterations)", "None", GROW
    ),
    "token weights forgotten": Fault("_copy_weights", "copy_value(S, T)", "None", BAG),
    "embedding norm left where it was": Fault(
        "_keep_function", "E.assign(np.full(S, V, dtype=D))", "None", ZERO
    ),
    "the last step of a stage in the next": Fault(
        "fit", "S > T.end", "S >= T.end", RESUME
    ),
    "segments off by one": Fault(
        "frame_segments", "return S, L + 1", "return S, L", HAND
    ),
    "special tokens masked": Fault("MaskedLMPreprocessor.mask", "~S & R", "R", RATES),
    "rate rounded down": Fault(
        "MaskedLMPreprocessor.mask",
        "A * self.mask_rate + uniform(S, P)",
        "A * self.mask_rate",
        RATES,
    ),
    "packed sentences see each other": Fault(
        "PackedAttentionMask.call",
        "return ops.logical_and(S, R)",
        "return ops.logical_and(ops.ones_like(S), R)",
        LEAKS,
    ),
    "running sum not rescaled": Fault(
        "LogSumExp.add", "T * ops.exp(A - B) + P", "T + P", CHUNKS
    ),
    "label of another chunk": Fault(
        "_cross_entropy_backward",
        "ops.one_hot(L - S, R, dtype=D)",
        "ops.one_hot(L, R, dtype=D)",
        CHUNKS,
    ),
    "one order for both streams": Fault(
        "_Stream.__init__", "2 * S + N", "2 * S", STREAM
    ),
    "a tie goes to the pool": Fault("Queries.offer", "A <= B", "A < B", POOLS),
    "copies in a pool are others": Fault("Queries.offer", "T not in K", "True", POOLS),
    "wrong for one block only": Fault(
        "Queries.offer", "self.hits[S] = H", "self.hits[S] |= H", POOLS
    ),
    "alignment of the other side": Fault(
        "xsim_shares", "(B, B.swapped())", "(B.swapped(), B)", XSIM
    ),
    "beads: no run of deleted targets": Fault(
        "best_path", "A < B - 1e-9", "A < B - 1e9", PATHS
    ),
    "beads: a band as narrow as the path": Fault(
        "band_around",
        "A[np.minimum(R + W, S)] + W",
        "A[np.minimum(R + W, S)]",
        "tests/test_alignment.py -k a_band_holds",
    ),
    "beads: many sentences as cheap as one": Fault(
        "BeadCosts.block",
        "X * Y * np.take_along_axis(D, I, axis=1)",
        "np.take_along_axis(D, I, axis=1)",
        COSTS,
    ),
    "beads: the translation counts as random": Fault(
        "_excess", "(A - B) / C", "B * 0", COSTS
    ),
    "scale of the low-rank product forgotten": Fault(
        "LowRankLayer.low_rank_product",
        "ops.matmul(X, A) * S",
        "ops.matmul(X, A)",
        PRODUCT,
    ),
    "scale of the merged product forgotten": Fault(
        "merge", "B * np.float32(S)", "B", PRODUCT
    ),
    "low-rank product of a kernel's size": Fault(
        "LowRankLayer.low_rank_product",
        "return ops.matmul(H, B)",
        "return ops.matmul(rows, ops.matmul(self.lora_kernel_a, B))",
        TRAINED,
    ),
    "norms are trained": Fault(
        "LaBSEBackbone.enable_lora",
        "W.trainable = False",
        "W.trainable = len(W.shape) < 2",
        TRAINED,
    ),
    "the last rank of a tie": Fault(
        "_ranks", "np.cumsum(C) - (C - 1) / 2", "np.cumsum(C)", CORRELATIONS
    ),
}


@functools.cache
def functions() -> Functions:
    return find_functions(PACKAGE)


@pytest.mark.parametrize("name", FAULTS)
def test_fault_can_be_made(name: str) -> None:
    fault = FAULTS[name]
    path, code = edited(functions(), fault.function, fault.right, fault.wrong)
    assert code != path.read_bytes()
    assert (ROOT / fault.tests.split()[0]).exists()


def test_edits_by_pattern(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    code = """
class A:
    def f(self, x, é):
        é = x * (x -
            2)
        if x <= é: return x + 1
def f(): pass
"""
    path.write_text(code, encoding="utf-8")
    for right, wrong, line in (
        ("X * (X - Y)", "X / Y", "é = (x / 2)"),
        ("A <= B", "A < B", "if (x < é): return x + 1"),
        ("return A + 1", "return A", "if x <= é: return x"),
        ("A = X * Y", "pass", "        pass\n"),
    ):
        changed, new = edited(find_functions(tmp_path), "A.f", right, wrong)
        assert changed == path and line in new.decode()
    for function, right in (
        ("A.g", "A <= B"),
        ("A.f", "A < B"),
        ("A.f", "X * (Y - Y)"),
        ("A.f", "x"),  # More than once.
    ):
        with pytest.raises(LookupError):
            edited(find_functions(tmp_path), function, right, "None")
    (tmp_path / "other.py").write_text("def f(): pass")
    with pytest.raises(LookupError):
        edited(find_functions(tmp_path), "f", "pass", "None")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_noticed(name: str, tmp_path: Path) -> None:
    fault = FAULTS[name]
    path, code = edited(functions(), fault.function, fault.right, fault.wrong)
    for folder in ("labse_tf", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / path.relative_to(ROOT)).write_bytes(code)
    file, *selection = fault.tests.split(" ", 1)
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
