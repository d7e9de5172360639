"""Cleaning report: removed pairs per rule and language, with examples."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from labse_tf.text import SentencePair

# Rule -> why a pair is removed. A pair counts for the first rule that it breaks, in
# this order. Held-out sets come between `RULES` and `DUPLICATES`.
RULES = {
    "too_short": "a side has fewer characters than `min_characters`",
    "too_long": "a side has more characters than `max_characters`",
    "markup": "a side has tags, entities or placeholders",
    "few_letters": "the share of letters in a side is below `min_letters`",
    "wrong_script": "the share of letters in the right script is below `min_script`",
    "length_ratio": "one side is more than `max_length_ratio` times the other",
    "identical": "both sides are equal except for case, digits and punctuation",
}
DUPLICATES = {
    "duplicate": "the same pair occurred before",
    "near_duplicate": "a pair with the same letters in both sides occurred before",
}

# Rule -> the flags of `labse-tf clean` and fields of `CleaningRules` that relax it.
RELAXED_BY = {
    "too_short": "`--short` (2 characters, for messages of an interface) or "
    "`--min-characters`",
    "too_long": "`--max-characters`",
    "markup": "`--interface` (removes the markup instead) or `--without markup`",
    "few_letters": "`--min-letters`",
    "wrong_script": "`--min-script`",
    "length_ratio": "`--max-length-ratio`",
    "identical": "`--without identical`",
    "duplicate": "`--without duplicate near_duplicate`",
    "near_duplicate": "`--without near_duplicate`",
}
_MANY = 0.25  # ours: a larger share suggests a rule that does not fit the text

EXAMPLES = 3  # per rule and language


class Example(NamedTuple):
    """A removed pair.

    The pairs with the lowest hashes are shown: a random sample that does not depend on
    the order of the text.
    """

    key: int
    source: str
    target: str


class CleaningReport:
    """Counts of the pairs that `clean_pairs` reads and removes. Reports can be added.

    Attributes:
        rules: Names of the rules in their order, including held-out sets.
        read: Language -> number of pairs.
        removed: (rule, language) -> number of pairs.
        examples: (rule, language) -> at most three examples.
    """

    def __init__(self, rules: Sequence[str]) -> None:
        """Create an empty report of all rules that may occur."""
        self.rules = tuple(rules)
        self.read: Counter[str] = Counter()
        self.removed: Counter[tuple[str, str]] = Counter()
        self.examples: dict[tuple[str, str], list[Example]] = {}

    def add(self, rule: str, pair: SentencePair, key: int) -> None:
        """Count a pair that a rule removed; `key` is a hash of its text."""
        where = rule, pair.language
        self.removed[where] += 1
        self._keep(where, [Example(key, pair.source, pair.target)])

    def update(self, other: CleaningReport) -> None:
        """Add the counts of another report of the same rules."""
        self.read.update(other.read)
        self.removed.update(other.removed)
        for where, examples in other.examples.items():
            self._keep(where, examples)

    def _keep(self, where: tuple[str, str], new: list[Example]) -> None:
        kept = self.examples.setdefault(where, [])
        if len(kept) < EXAMPLES or new[0].key < kept[-1].key:
            self.examples[where] = heapq.nsmallest(EXAMPLES, {*kept, *new})

    @property
    def kept(self) -> dict[str, int]:
        """Language -> number of pairs kept, sorted."""
        gone = Counter[str]()
        for (_, language), count in self.removed.items():
            gone[language] += count
        return {code: self.read[code] - gone[code] for code in sorted(self.read)}

    def by_rule(self) -> dict[str, int]:
        """Return the number of pairs that each rule removed, in the order of rules."""
        totals = Counter[str]()
        for (rule, _), count in self.removed.items():
            totals[rule] += count
        return {rule: totals[rule] for rule in self.rules}

    def examples_of(self, rule: str) -> list[tuple[str, Example]]:
        """Return one example of a rule per language, most affected languages first."""
        losses = [(n, code) for (name, code), n in self.removed.items() if name == rule]
        most = sorted(losses, key=lambda loss: (-loss[0], loss[1]))[:EXAMPLES]
        return [(code, self.examples[rule, code][0]) for _, code in most]

    def hints(self) -> list[str]:
        """Return one sentence for each rule that removed more than a quarter."""
        read = sum(self.read.values())
        return [
            f"{rule} removed {count / read:.0%} of the pairs. To relax it: {flags}."
            for rule, count in self.by_rule().items()
            if count > _MANY * read and (flags := RELAXED_BY.get(rule))
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the report in JSON's types."""
        languages: dict[str, Any] = {}
        for code, kept in self.kept.items():
            removed = {
                rule: {
                    "pairs": self.removed[rule, code],
                    "examples": [
                        [example.source, example.target]
                        for example in self.examples[rule, code]
                    ],
                }
                for rule in self.rules
                if (rule, code) in self.removed
            }
            languages[code] = {"read": self.read[code], "kept": kept}
            languages[code]["removed"] = removed
        return {
            "read": sum(self.read.values()),
            "kept": sum(self.kept.values()),
            "removed": self.by_rule(),
            "languages": languages,
        }

    def to_markdown(self) -> str:
        """Return a page of Markdown: tables and lists of examples."""
        return "\n".join(self._page()) + "\n"

    def _page(self) -> Iterator[str]:
        read, kept = sum(self.read.values()), sum(self.kept.values())
        yield "# Cleaned pairs"
        yield f"\n{kept:,} of {read:,} pairs in {len(self.read)} languages were kept.\n"
        yield "| rule | pairs | share | reason |"
        yield "|---|---:|---:|---|"
        for rule, count in self.by_rule().items():
            share = count / read if read else 0.0
            held_out = f"a side is a sentence of the held-out set {rule}"
            meaning = {**RULES, **DUPLICATES}.get(rule, held_out)
            yield f"| {rule} | {count:,} | {share:.2%} | {meaning} |"
        for hint in self.hints():
            yield f"\n{hint}"
        used = [rule for rule, count in self.by_rule().items() if count]
        yield "\n## Languages\n"
        yield "| language | read | kept | " + " | ".join([*used, ""]).rstrip()
        yield "|---|---:|---:|" + "---:|" * len(used)
        for code, count in self.kept.items():
            numbers = self.read[code], count, *(self.removed[r, code] for r in used)
            yield f"| {code} | " + " | ".join(f"{n:,}" for n in numbers) + " |"
        yield "\n## Examples"
        for rule in used:
            yield f"\n### {rule}\n"
            for code in self.kept:
                for example in self.examples.get((rule, code), []):
                    sides = (_shown(example.source), _shown(example.target))
                    yield f"- {code}: {' | '.join(sides)}"


def _shown(text: str, most: int = 120) -> str:
    """Return a sentence as code for a line of Markdown, shortened."""
    text = text if len(text) <= most else text[: most - 1] + "…"
    return "`" + text.replace("`", "'") + "`" if text else "(empty)"
