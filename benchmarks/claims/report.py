"""Tables and pictures out of the results of runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from claims.settings import INDIAN, LAYERS, Group, Plan, Scale, Setting
from labse_tf.files import write_text
from labse_tf.plots import new_figure, save_figure

# Student's t, two-sided, 95 %, by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571}
# Differences below this many points say nothing to a user, however sure they are.
SMALL = 0.5

SETS = ("tico19", "tatoeba")

Results = Mapping[str, dict[str, Any]]


class Difference(NamedTuple):
    """What one row has more than another, in points, over the seeds that both have.

    Attributes:
        mean: Of the seeds' differences.
        margin: Half of their 95 % interval; infinite with one seed.
    """

    mean: float
    margin: float

    def verdict(self, expected: str) -> str:
        """What is to be said beside the paper.

        Args:
            expected: "better", "worse", "not worse", or "" where the paper says
                nothing.

        Returns:
            A few words; in bold where we disagree.
        """
        low, high = self.mean - self.margin, self.mean + self.margin
        if expected == "not worse":
            if low > -SMALL:
                return "as in the paper"
            return "**worse: we disagree**" if high < -SMALL else "no clear answer"
        if abs(self.mean) <= max(self.margin, SMALL):
            return "no clear answer"
        found = "better" if self.mean > 0 else "worse"
        if not expected:
            return found
        agrees = found == expected
        return f"{found}, as in the paper" if agrees else f"**{found}: we disagree**"


def compare(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference:
    """The difference of two rows, seed by seed.

    Args:
        ours: Seed -> points.
        theirs: The same of what it is compared with.

    Returns:
        Mean and 95 % interval of the paired differences, by Student's t.

    Raises:
        ValueError: If they have no seed in common.
    """
    pairs = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    if not pairs:
        raise ValueError(
            f"the rows have no seed in common. Received: {sorted(ours)} and "
            f"{sorted(theirs)}"
        )
    if len(pairs) == 1:
        return Difference(pairs[0], math.inf)
    student = STUDENT.get(len(pairs) - 1, 2.571)
    margin = student * statistics.stdev(pairs) / math.sqrt(len(pairs))
    return Difference(statistics.mean(pairs), margin)


# === Rows ===


class Row(NamedTuple):
    """A setting and its results by seed; those that have been run."""

    setting: Setting
    results: dict[int, dict[str, Any]]

    def values(self, of: Callable[[dict[str, Any]], float | None]) -> dict[int, float]:
        """Seed -> what `of` takes out of a result, where there is any."""
        found = {seed: of(result) for seed, result in self.results.items()}
        return {seed: x for seed, x in found.items() if x is not None}


def rows_of(group: Group, results: Results) -> dict[str, Row]:
    """The rows of a table by name; those without a result are left out."""
    seeds = sorted({result["seed"] for result in results.values()})
    rows = {}
    for setting in group.settings:
        keys = {seed: setting.plan.key(seed) for seed in seeds}
        codes = setting.measured or setting.plan.languages
        found = {
            seed: about(results[key], codes)
            for seed, key in keys.items()
            if key in results
        }
        if found:
            rows[setting.name] = Row(setting, found)
    return rows


def about(result: dict[str, Any], codes: Sequence[str]) -> dict[str, Any]:
    """A result with the scores of some languages only."""

    def chosen(values: Mapping[str, float]) -> dict[str, float]:
        return {code: x for code, x in values.items() if code in codes}

    scores = {name: chosen(values) for name, values in result["scores"].items()}
    return {**result, "scores": scores, "unknown": chosen(result["unknown"])}


def points(name: str, *, indian: bool = False) -> Callable[[dict[str, Any]], Any]:
    """Mean accuracy over a set's languages, or the Indian ones, in per cent."""

    def of(result: dict[str, Any]) -> float | None:
        scores = result["scores"][name]
        values = [x for code, x in scores.items() if not indian or code in INDIAN]
        return 100 * statistics.mean(values) if values else None

    return of


def both(result: dict[str, Any]) -> float:
    """Mean of the two sets' means, in per cent: what rows are compared by."""
    return statistics.mean(points(name)(result) for name in SETS)


def note(name: str, scale: float = 1.0) -> Callable[[dict[str, Any]], float | None]:
    """What a run has noted beside its scores."""

    def of(result: dict[str, Any]) -> float | None:
        value = result["notes"].get(name)
        return None if value is None else scale * value

    return of


def unknown(result: dict[str, Any]) -> float | None:
    """Mean share of [UNK] of the Indian languages, of all where there is none."""
    rates = result["unknown"]
    chosen = [x for code, x in rates.items() if code in INDIAN] or list(rates.values())
    return 100 * statistics.mean(chosen)


def minutes(result: dict[str, Any]) -> float:
    """Of training."""
    return result["seconds"]["training"] / 60


EXTRAS: dict[str, tuple[tuple[str, Callable[[dict[str, Any]], Any], str], ...]] = {
    "stacking": (("masked-LM loss", note("pretraining_loss"), ".3f"),),
    "growing": (("minutes of the last part", minutes, ".1f"),),
    "noise": (
        ("kept, %", note("kept", 100), ".1f"),
        ("good among them, %", note("good_after", 100), ".1f"),
    ),
    "vocabulary": (("[UNK], %, Indian", unknown, ".2f"),),
    "tokenizer": (("[UNK], %", unknown, ".2f"),),
}


def spread(values: Mapping[int, float], form: str = ".1f") -> str:
    """Mean and standard deviation of the seeds."""
    if not values:
        return ""
    mean = format(statistics.mean(values.values()), form)
    if len(values) == 1:
        return mean
    return f"{mean} ± {format(deviation(values), form)}"


def table(group: Group, rows: Mapping[str, Row], seeds: int) -> list[str]:
    """A group's heading and its table, in Markdown; rows with fewer seeds say so."""
    numbers = {name: number for number, name in enumerate(rows, start=1)}
    extras = EXTRAS.get(group.name, ())
    heads = ["TICO-19", "Indian", "Tatoeba", "Indian", *(name for name, _, _ in extras)]
    lines = [f"## {group.title}", ""]
    if group.about:
        lines += [group.about, ""]
    lines += [
        f"| | | {' | '.join(heads)} | difference | the paper | here |",
        f"|---:|---|{'---:|' * (len(heads) + 1)}---|---|",
    ]
    for name, row in rows.items():
        cells = [
            spread(row.values(points(which, indian=indian)))
            for which in SETS
            for indian in (False, True)
        ]
        cells += [spread(row.values(of), form) for _, of, form in extras]
        difference, verdict = "", ""
        against = row.setting.against
        if against in rows and row.results.keys() & rows[against].results.keys():
            found = compare(row.values(both), rows[against].values(both))
            difference = f"{found.mean:+.1f}"
            if math.isfinite(found.margin):
                difference += f" ± {found.margin:.1f}"
            difference += f" to {numbers[against]}"
            verdict = found.verdict(row.setting.expected)
        cells += [difference, row.setting.paper, verdict]
        missing = f" ({len(row.results)} of {seeds} seeds)"
        whole = name if len(row.results) == seeds else name + missing
        lines.append(f"| {numbers[name]} | {whole} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def data_needed(rows: Mapping[str, Row]) -> list[str]:
    """The share of the pairs that reaches what all reach without pre-training."""
    curves = by_share(rows)
    if "none" not in curves or 1.0 not in curves["none"]:
        return []
    goal = statistics.mean(curves["none"][1.0].values(both).values())
    lines = [
        f"The score of all pairs without pre-training, {goal:.1f}, is reached:",
        "",
    ]
    for kind, curve in curves.items():
        if kind == "none":
            continue
        means = {
            share: statistics.mean(row.values(both).values())
            for share, row in sorted(curve.items())
        }
        lines.append(f"- {kind}: {share_for(means, goal)}")
    return [*lines, ""]


def by_share(rows: Mapping[str, Row]) -> dict[str, dict[float, Row]]:
    """Kind of pre-training -> share of the pairs -> row, with the paper's pooling."""
    curves: dict[str, dict[float, Row]] = {}
    for name, row in rows.items():
        if row.setting.plan.pooling == "pooler":
            kind = name.split(";")[0]
            curves.setdefault(kind, {})[row.setting.plan.share] = row
    return curves


def share_for(means: Mapping[float, float], goal: float) -> str:
    """Where a curve reaches a score, on a logarithmic axis between its points.

    Args:
        means: Share -> score, the smallest share first.
        goal: The score.

    Returns:
        In words.
    """
    shares = list(means)
    if means[shares[0]] >= goal:
        return f"with {shares[0]:.0%} of them at most, the least that was tried"
    for low, high in zip(shares, shares[1:], strict=False):
        if means[high] >= goal:
            part = (goal - means[low]) / (means[high] - means[low])
            needed = low * (high / low) ** part
            return f"with about {needed:.0%} of them"
    return "with more than there are"


# === Pictures ===


class Curve(NamedTuple):
    """A line of a picture.

    Attributes:
        xs: Where.
        values: By seed, at each of them.
    """

    xs: list[float]
    values: list[dict[int, float]]


def curves_of(
    rows: Iterable[Row], x: Callable[[Plan], float], name: str = ""
) -> dict[str, Curve]:
    """A line for TICO-19 and one for Tatoeba."""
    there = sorted(rows, key=lambda row: x(row.setting.plan))
    xs = [x(row.setting.plan) for row in there]
    return {
        f"{name}{title}": Curve(xs, [row.values(points(key)) for row in there])
        for title, key in (("TICO-19", "tico19"), ("Tatoeba", "tatoeba"))
    }


def draw(path: Path, label: str, curves: Mapping[str, Curve]) -> None:
    """Lines with the seeds' standard deviation, two of each colour.

    Args:
        path: A PNG.
        label: Of the x axis, which is logarithmic but for the margin.
        curves: By name, those of `curves_of` one after the other.
    """
    from matplotlib.ticker import FuncFormatter, NullLocator

    figure = new_figure(7, 4)
    axes = figure.add_subplot()
    for number, (name, curve) in enumerate(curves.items()):
        axes.errorbar(
            curve.xs,
            [statistics.mean(values.values()) for values in curve.values],
            [deviation(values) for values in curve.values],
            label=name,
            marker="o",
            markersize=4,
            capsize=3,
            linestyle="-" if number % 2 == 0 else "--",
            color=f"C{number // 2}",
        )
    if label != "margin":
        axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({x for curve in curves.values() for x in curve.xs}))
    axes.xaxis.set_minor_locator(NullLocator())
    form = ".0%" if label.startswith("share") else "g"
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: format(x, form)))
    axes.set_xlabel(label)
    axes.set_ylabel("accuracy, %, mean of the seeds")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    save_figure(figure, path)


def deviation(values: Mapping[int, float]) -> float:
    """The seeds' standard deviation; 0 of one."""
    return statistics.stdev(values.values()) if len(values) > 1 else 0.0


def pictures(work: Path, tables: Mapping[str, dict[str, Row]]) -> dict[str, str]:
    """Draws what there is.

    Returns:
        Table -> the file name of the picture that stands below it.
    """
    sizes = {
        **curves_of(tables["batch_size"].values(), batch_size, "equal steps, "),
        **curves_of(tables["equal_pairs"].values(), batch_size, "equal pairs, "),
    }
    data = curves_of(tables["amount"].values(), share, "no layers, ")
    for kind, rows in by_share(tables["pretraining"]).items():
        data |= curves_of(rows.values(), share, f"{LAYERS} layers, {kind}, ")
    drawn = {}
    for table, name, label, curves in (
        (
            "margin",
            "margin",
            "margin",
            curves_of(tables["margin"].values(), lambda plan: plan.margin),
        ),
        ("equal_pairs", "batch_size", "pairs a step", sizes),
        ("amount", "data", "share of the pairs", data),
    ):
        there = {title: curve for title, curve in curves.items() if len(curve.xs) > 1}
        if there:
            drawn[table] = f"ablations_{name}.png"
            draw(work / drawn[table], label, there)
    return drawn


def batch_size(plan: Plan) -> float:
    """Of a plan, along an axis."""
    return plan.batch_size


def share(plan: Plan) -> float:
    """Of the pairs, along an axis."""
    return plan.share


# === The page ===


def in_short(result: dict[str, Any]) -> str:
    """A run's scores for a log."""
    if not result:
        return ""
    means = (f"{points(name)(result):.1f}" for name in SETS)
    return f": {' and '.join(means)} in {result['seconds']['all']:.0f} s"


def write(work: Path, groups: Sequence[Group], scale: Scale, results: Results) -> None:
    """Writes `ablations.md` and its pictures.

    Args:
        work: The folder.
        groups: All tables; those with results of two plans at least are written.
        scale: Of the runs.
        results: By the key of plan and seed.
    """
    tables = {}
    for group in groups:
        rows = rows_of(group, results)
        # One run may stand in several tables, and is none by itself.
        alone = len({row.setting.plan for row in rows.values()}) < 2
        tables[group.name] = {} if alone else rows
    drawn = pictures(work, tables)
    seeds = sorted({result["seed"] for result in results.values()})
    lines = [*introduction(scale, len(seeds)), ""]
    for group in groups:
        if not tables[group.name]:
            continue
        lines += table(group, tables[group.name], len(seeds))
        if group.name == "pretraining":
            lines += data_needed(tables[group.name])
        if group.name in drawn:
            lines += [f"![{group.title}]({drawn[group.name]})", ""]
    write_text(work / "ablations.md", "\n".join(lines).rstrip() + "\n")


def introduction(scale: Scale, seeds: int) -> list[str]:
    """What is the same in all tables, and how they are to be read."""
    return [
        "# The paper's claims, on a small setting",
        "",
        "Made by `benchmarks/ablations.py`; do not edit. Accuracy of the nearest "
        "translation, per cent, mean of both directions and of the languages trained "
        f"on, and of the Indian ones among them: mean of {seeds} "
        f"seed{'s' * (seeds != 1)} ± their standard deviation. The difference is that "
        "of the mean of the two sets to the row of that number, seed by seed, in "
        "points, ± half of its 95 % interval (Student's t). An answer is clear if "
        f"zero lies outside of the interval and the difference is {SMALL} points at "
        "least.",
        "",
        "Unless said otherwise: no layers (the mean of the vectors of the tokens, "
        f"{scale.vocabulary_size:,} of 128 dimensions, normalised), {scale.bag_steps} "
        "steps of 512 pairs, margin 0.3, scale 20, languages mixed, duplicates masked; "
        f"{scale.pairs:,} pairs of English with each of Hindi, Bengali, Marathi, "
        "Tamil, Telugu, Malayalam, Urdu, Nepali, French, German, Russian, Chinese, "
        "Arabic, Indonesian and Turkish, of four English words or more, mostly "
        "messages and manuals of software.",
    ]
