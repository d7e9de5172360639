"""Report: what each rule left out in each language, with examples."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from labse_tf.text import SentencePair

# Rule -> why a pair is left out. The first rule that a pair breaks counts, in this
# order; held-out sets come between `RULES` and `DUPLICATES`.
RULES = {
    "too_short": "a side has fewer characters than `min_characters`",
    "too_long": "a side has more characters than `max_characters`",
    "markup": "tags, entities or placeholders",
    "few_letters": "a side has fewer letters than `min_letters` of what is visible",
    "wrong_script": "a side has fewer letters than `min_script` in its own script",
    "length_ratio": "one side is more than `max_length_ratio` times the other",
    "identical": "both sides are the same, but for case, digits and punctuation",
}
DUPLICATES = {
    "duplicate": "the same pair was there before",
    "near_duplicate": "it was there before but for case, digits and punctuation",
}

EXAMPLES = 3  # of each rule and language


class Example(NamedTuple):
    """A pair that was left out; those with the lowest hashes are shown.

    So they are the same whatever the order of the text, and as good as drawn.
    """

    key: int
    source: str
    target: str


class CleaningReport:
    """Counts what `clean_pairs` reads and leaves out; two can be added up.

    Attributes:
        rules: the rules in their order, held-out sets among them.
        read: language -> pairs.
        removed: (rule, language) -> pairs.
        examples: (rule, language) -> at most three of them.
    """

    def __init__(self, rules: Sequence[str]) -> None:
        """Starts empty.

        Args:
            rules: the names of all that may occur.
        """
        self.rules = tuple(rules)
        self.read: Counter[str] = Counter()
        self.removed: Counter[tuple[str, str]] = Counter()
        self.examples: dict[tuple[str, str], list[Example]] = {}

    def add(self, rule: str, pair: SentencePair, key: int) -> None:
        """Counts a pair that goes.

        Args:
            rule: why.
            pair: the pair.
            key: a hash of its text.
        """
        where = rule, pair.language
        self.removed[where] += 1
        self._keep(where, [Example(key, pair.source, pair.target)])

    def update(self, other: CleaningReport) -> None:
        """Adds up with what another has counted.

        Args:
            other: a report of the same rules.
        """
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
        """Language -> pairs that stay, sorted."""
        gone = Counter[str]()
        for (_, language), count in self.removed.items():
            gone[language] += count
        return {code: self.read[code] - gone[code] for code in sorted(self.read)}

    def by_rule(self) -> dict[str, int]:
        """Rule -> pairs that it left out, in the order of the rules."""
        totals = Counter[str]()
        for (rule, _), count in self.removed.items():
            totals[rule] += count
        return {rule: totals[rule] for rule in self.rules}

    def examples_of(self, rule: str) -> list[tuple[str, Example]]:
        """Examples of a rule from different languages.

        Args:
            rule: one of `rules`.

        Returns:
            (language, example), at most three, of the languages that lost most.
        """
        losses = [(n, code) for (name, code), n in self.removed.items() if name == rule]
        most = sorted(losses, key=lambda loss: (-loss[0], loss[1]))[:EXAMPLES]
        return [(code, self.examples[rule, code][0]) for _, code in most]

    def to_dict(self) -> dict[str, Any]:
        """All of it in JSON's types."""
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
        """Returns a page of Markdown: tables and lists of examples."""
        return "\n".join(self._page()) + "\n"

    def _page(self) -> Iterator[str]:
        read, kept = sum(self.read.values()), sum(self.kept.values())
        yield "# Cleaned pairs"
        yield f"\n{kept:,} of {read:,} pairs in {len(self.read)} languages were kept.\n"
        yield "| rule | pairs | share | a pair goes because |"
        yield "|---|---:|---:|---|"
        for rule, count in self.by_rule().items():
            share = count / read if read else 0.0
            held_out = f"a sentence of the held-out set {rule}"
            meaning = {**RULES, **DUPLICATES}.get(rule, held_out)
            yield f"| {rule} | {count:,} | {share:.2%} | {meaning} |"
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
    """A sentence for a line of Markdown."""
    text = text if len(text) <= most else text[: most - 1] + "…"
    return "`" + text.replace("`", "'") + "`" if text else "(empty)"
