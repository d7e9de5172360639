"""Review of pairs by people: a page to mark pairs, a report of likely errors.

`pairs` reads pairs with their scores and marks, `page` writes them as one HTML file.
"""

from __future__ import annotations

from labse_tf.review.page import review_page
from labse_tf.review.pairs import ReviewPair, read_review_pairs

__all__ = ["ReviewPair", "read_review_pairs", "review_page"]
