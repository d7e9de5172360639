"""The command `doctor`: print the facts and findings of `labse_tf.doctor`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from labse_tf import __version__
from labse_tf.cli.arguments import add_json, command
from labse_tf.cli.output import write_json
from labse_tf.extras import EXTRAS

if TYPE_CHECKING:
    from labse_tf.doctor import Facts, Finding


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = command(
        commands,
        "doctor",
        _doctor,
        "print versions and devices, find problems and how to fix them; exit status 2 "
        "if there are errors, else 0",
        "labse-tf doctor",
    )
    # This command must work if TensorFlow cannot be imported.
    parser.set_defaults(start_tensorflow=False)
    add_json(parser)


def _doctor(options: argparse.Namespace) -> int:
    from labse_tf.doctor import diagnose, gather

    if sys.stderr.isatty():
        print("importing TensorFlow and Keras ...", file=sys.stderr, flush=True)
    facts = gather()
    findings = diagnose(facts)
    print("\n".join(report(facts, findings)))
    write_json(
        options.json,
        {
            "labse_tf": __version__,
            "facts": facts.to_dict(),
            "findings": [dataclasses.asdict(finding) for finding in findings],
        },
    )
    return 2 if any(finding.level == "error" for finding in findings) else 0


def report(facts: Facts, findings: Sequence[Finding]) -> list[str]:
    """Return facts and findings as lines of text.

    Args:
        facts: Facts of the environment.
        findings: Findings of `diagnose` about these facts.
    """
    from labse_tf.doctor import Module

    tensorflow = facts.modules.get("tensorflow", Module())
    memory = f", {facts.memory_gb:.0f} GB" if facts.memory_gb else ""
    special = ("avx", "avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
    can = " ".join(flag for flag in special if flag in facts.cpu_flags)
    rows = [
        ("labse_tf", __version__),
        ("python", f"{facts.python} on {facts.system} {facts.machine}"),
        *facts.packages.items(),
        ("processor", f"{facts.cpu or 'unknown'}, {facts.cores} cores{memory}"),
        ("", can),
        ("GPUs", ", ".join(facts.nvidia_gpus) or "none"),
        ("  driver", facts.nvidia_driver or ""),
        ("  seen by TensorFlow", ", ".join(tensorflow.gpus) or "none"),
        ("TPUs", ", ".join(facts.tpu_devices) or "none"),
        (
            "  TensorFlow's build",
            "for TPUs" if tensorflow.tpu_kernels else "not for TPUs",
        ),
        ("Keras backend", facts.modules.get("keras", Module()).backend or "unknown"),
        *facts.variables.items(),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:{width}}  {value}" for name, value in rows if value]
    if facts.extras:
        lines += ["", *_extras(facts.extras)]
    for finding in findings:
        lines += ["", f"{finding.level}: {finding.title}", f"  -> {finding.advice}"]
    if not any(finding.level != "note" for finding in findings):
        lines += ["", "No problems found."]
    return lines


def _extras(missing: Mapping[str, Sequence[str]]) -> list[str]:
    """Return one line per extra: its state, its purpose, how to install it."""
    lines = ["extras"]
    for name, absent in missing.items():
        about = f"{'missing' if absent else 'installed':9}  {EXTRAS[name].purpose}"
        install = f": pip install 'labse-tf[{name}]'" if absent else ""
        lines.append(f"  {name:10}  {about}{install}")
    return lines
