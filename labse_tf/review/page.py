"""The review page: pairs and scores -> one HTML file to mark them in a browser.

The page needs no server and loads nothing. It keeps the marks in the browser, and
downloads them as the file that `labse-tf filter --marked` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from labse_tf.html_page import application
from labse_tf.review.pairs import ReviewPair


def review_page(
    pairs: Sequence[ReviewPair], *, name: str, digest: str, score: str = "score"
) -> str:
    """Return the HTML of a page to mark pairs as good or bad.

    Args:
        pairs: The pairs in the order to show them.
        name: Name of the file, for the title and the name of the download.
        digest: Hash of the file. Pages with the same digest share their marks, by
            `ReviewPair.row`.
        score: Name of the score.

    Example:
        >>> from labse_tf.review import ReviewPair, review_page
        >>> pair = ReviewPair(0, 1, "Hello.", "नमस्ते।", ("en", "hi"), 0.7)
        >>> page = review_page([pair], name="en-hi.tsv", digest="1f")
        >>> '[0,0.7,"Hello.","नमस्ते।","en","hi","",1]' in page
        True
    """
    here = resources.files(__package__ or "labse_tf.review")
    style, script, body = (
        here.joinpath(f"page.{kind}").read_text(encoding="utf-8")
        for kind in ("css", "js", "html")
    )
    rows = [
        [
            pair.row,
            pair.score,
            pair.source,
            pair.target,
            *pair.languages,
            pair.mark,
            pair.line,
        ]
        for pair in pairs
    ]
    data = {
        "name": name,
        "digest": digest,
        "download": f"{name}.marked.tsv",
        "score": score,
        "pairs": rows,
    }
    return application(
        f"Review of {name}", body=body, style=style, script=script, data=data
    )
