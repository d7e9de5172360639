"""Review of pairs by people: a page to mark pairs, a report of likely errors.

`pairs` reads pairs with their scores and marks, `page` writes them as one HTML file.
`suspects` estimates which messages of a catalog are wrong, `report` does so for files.
"""

from __future__ import annotations

from labse_tf.review.page import review_page
from labse_tf.review.pairs import ReviewPair, read_review_pairs
from labse_tf.review.report import Finding, as_annotation, report_findings
from labse_tf.review.suspects import Suspects, find_suspects

__all__ = [
    "Finding",
    "ReviewPair",
    "Suspects",
    "as_annotation",
    "find_suspects",
    "read_review_pairs",
    "report_findings",
    "review_page",
]
