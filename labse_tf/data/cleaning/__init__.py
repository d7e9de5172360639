"""Cleaning: rules that remove sentence pairs from a corpus, and a report of removals.

`characters` counts characters and hashes letters, `report` names the rules and counts
the removed pairs, `held_out` reads test sets, `rules` judges single pairs, `pairs`
combines all of them. Each module imports only from the modules named before it.
"""

from labse_tf.data.cleaning.held_out import HeldOut
from labse_tf.data.cleaning.pairs import (
    clean_files,
    clean_pairs,
    new_report,
    report_files,
    write_pairs,
)
from labse_tf.data.cleaning.report import DUPLICATES, RULES, CleaningReport, Example
from labse_tf.data.cleaning.rules import CleaningRules

__all__ = ["DUPLICATES", "RULES", "CleaningReport", "CleaningRules", "Example"]
__all__ += ["HeldOut", "clean_files", "clean_pairs", "new_report", "report_files"]
__all__ += ["write_pairs"]
