"""Cleaning: which pairs of a corpus are left out, and what is said about them.

`characters` knows characters, `rules` judges pairs one by one, `held_out` reads test
sets, `report` counts and shows, `pairs` puts them together; each imports from those
before it only.
"""

from __future__ import annotations

from labse_tf.data.cleaning.held_out import HeldOut
from labse_tf.data.cleaning.pairs import (
    clean_files,
    clean_pairs,
    new_report,
    report_files,
    write_pairs,
)
from labse_tf.data.cleaning.report import CleaningReport, Example
from labse_tf.data.cleaning.rules import DUPLICATES, RULES, CleaningRules

__all__ = [
    "DUPLICATES",
    "RULES",
    "CleaningReport",
    "CleaningRules",
    "Example",
    "HeldOut",
    "clean_files",
    "clean_pairs",
    "new_report",
    "report_files",
    "write_pairs",
]
