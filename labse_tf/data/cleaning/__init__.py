"""Cleaning: rules that remove sentence pairs from a corpus, and a report of removals.

`characters` counts characters and hashes letters, `lines` judges single lines, `report`
names the rules and counts the removed pairs, `held_out` reads test sets, `rules` judges
single pairs, `pairs` combines them. Each module imports only from the modules named
before it.
"""

from __future__ import annotations

from labse_tf.data.cleaning.held_out import HeldOut
from labse_tf.data.cleaning.lines import UnlikelyLines, unlikely_lines
from labse_tf.data.cleaning.pairs import (
    clean_files,
    clean_pairs,
    new_report,
    report_files,
    write_pairs,
)
from labse_tf.data.cleaning.report import (
    DUPLICATES,
    RELAXED_BY,
    RULES,
    CleaningReport,
    Example,
)
from labse_tf.data.cleaning.rules import CleaningRules

__all__ = [
    "DUPLICATES",
    "RELAXED_BY",
    "RULES",
    "CleaningReport",
    "CleaningRules",
    "Example",
    "HeldOut",
    "UnlikelyLines",
    "clean_files",
    "clean_pairs",
    "new_report",
    "report_files",
    "unlikely_lines",
    "write_pairs",
]
