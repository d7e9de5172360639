"""Cleaning: which pairs of a corpus are left out, and what is said about them.

`characters` counts characters and hashes letters, `report` names the rules and counts
what they leave out, `held_out` reads test sets, `rules` judges pairs one by one,
`pairs` puts them together; each imports only from the files named before it.
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
from labse_tf.data.cleaning.report import (
    DUPLICATES,
    RULES,
    CleaningReport,
    Example,
)
from labse_tf.data.cleaning.rules import CleaningRules

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
