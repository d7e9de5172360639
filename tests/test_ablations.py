"""The tables of the paper's claims: what is compared, how it is run, what is said."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.errors import raises

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
if not (BENCHMARKS / "ablations.py").exists():
    pytest.skip("no benchmarks beside the tests", allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))

import ablations  # noqa: E402
from claims import report, runs, settings, text  # noqa: E402
from claims.report import Difference, compare  # noqa: E402

from labse_tf.data import SentencePair  # noqa: E402

SEEDS = (0, 1, 2)
TINY = settings.Scale(40, 10, 40, 600, 3, 2, 2, 15, 20)


# === What is compared ===


@pytest.mark.parametrize("scale", [settings.FULL, settings.QUICK])
def test_every_row_is_compared_with_a_row_of_its_table(scale: Any) -> None:
    groups = settings.groups(scale)
    assert len({group.name for group in groups}) == len(groups)
    for group in groups:
        names = [setting.name for setting in group.settings]
        assert len(set(names)) == len(names) >= 2
        assert len({setting.plan for setting in group.settings}) >= 2
        for setting in group.settings:
            assert setting.against in ("", *names)
            assert setting.against != setting.name
            # A claim says what it is about, and what it is beside.
            assert setting.expected in ("", "better", "worse", "not worse")
            assert bool(setting.expected) <= bool(setting.paper and setting.against)
        assert any(setting.against for setting in group.settings)


def test_only_what_a_table_is_about_differs_in_it() -> None:
    """Equal steps, unless its text says otherwise."""
    allowed = {
        "pretraining": {"pretraining", "pooling", "share"},
        "margin": {"margin"},
        "scale": {"scale"},
        "replicas": {"replicas", "cross_replica"},
        "batch_size": {"batch_size"},
        "equal_pairs": {"batch_size", "steps"},
        "batches": {"batches", "mask_duplicates"},
        "stacking": {"pretraining"},
        "growing": {"bag", "num_layers", "keep_function", "steps"},
        "noise": {"shuffled", "filtered"},
        "amount": {"share"},
        "zero_shot": {"languages", "steps"},
        "vocabulary": {"smoothing"},
        "tokenizer": {"compat"},
    }
    for group in settings.groups(settings.FULL):
        plans = [dataclasses.asdict(setting.plan) for setting in group.settings]
        differing = {k for k in plans[0] if any(p[k] != plans[0][k] for p in plans)}
        assert differing == allowed.pop(group.name), group.name
    assert not allowed


def test_batches_at_equal_pairs_see_as_many_pairs() -> None:
    for group in settings.groups(settings.FULL):
        plans = [setting.plan for setting in group.settings]
        if group.name == "equal_pairs":
            assert len({plan.steps * plan.batch_size for plan in plans}) == 1
        if group.name in ("equal_pairs", "batch_size"):
            assert [p.batch_size for p in plans] == [64, 128, 256, 512, 1024, 2048]


def test_stages_and_a_fresh_start_multiply_as_much() -> None:
    """Counted again, stage by stage."""
    for scale in (settings.FULL, settings.QUICK):
        (group,) = [g for g in settings.groups(scale) if g.name == "stacking"]
        costs = []
        for setting in group.settings:
            made = setting.plan.pretraining
            assert made is not None
            left = made.steps - sum(steps for _, steps in made.stages)
            parts = (*made.stages, (settings.LAYERS, left))
            assert made.parts() == list(parts)
            costs.append(
                sum(
                    steps * settings.row_cost(layers, scale.vocabulary_size)
                    for layers, steps in parts
                )
            )
        fresh, stacked = costs
        assert fresh == pytest.approx(stacked, rel=1 / scale.pretrain_steps)


def test_products_are_those_of_the_model() -> None:
    """`row_cost` counts a weight of the blocks once a token."""
    from labse_tf.models import LaBSEBackbone

    shape = (settings.HEADS, settings.WIDTH, settings.FEED_FORWARD)

    def products(layers: int) -> int:
        model = LaBSEBackbone(50, layers, *shape)
        return sum(
            math.prod(w.shape)
            for w in model.weights
            if w.path.endswith("/kernel") and w.path.startswith("transformer_layer")
        )

    there = settings.row_cost(3, 50) - settings.row_cost(1, 50)
    attention = 2 * 2 * settings.ROW_LENGTH**2 * settings.WIDTH
    assert there == settings.ROW_LENGTH * (products(3) - products(1)) + attention


def test_each_run_is_done_once_and_after_what_it_starts_from() -> None:
    groups = settings.groups(settings.FULL)
    jobs = ablations.plan_jobs(groups, SEEDS)
    keys = [(job.plan, job.pretraining, job.seed) for job in jobs]
    assert len(set(keys)) == len(keys)
    wanted = {
        (setting.plan, None, seed)
        for group in groups
        for setting in group.settings
        for seed in SEEDS
    }
    assert wanted <= set(keys)
    place = {key: number for number, key in enumerate(keys)}
    for plan, _, seed in wanted:
        if plan.pretraining is not None:
            assert place[None, plan.pretraining, seed] < place[plan, None, seed]
        if plan.bag is not None:
            assert place[plan.bag, None, seed] < place[plan, None, seed]
            assert jobs[place[plan.bag, None, seed]].keep


def test_a_bag_of_another_table_is_run_for_the_one_that_needs_it() -> None:
    (growing,) = [g for g in settings.groups(settings.FULL) if g.name == "growing"]
    jobs = ablations.plan_jobs([growing], [0])
    assert jobs[0].plan == growing.settings[0].plan.bag
    assert jobs[0].keep


def test_a_run_is_named_by_all_that_decides_it() -> None:
    plan = settings.Plan()
    names = {plan.key(0), plan.key(1)}
    for field in dataclasses.fields(plan):
        value = getattr(plan, field.name)
        other = {
            bool: lambda v: not v,
            int: lambda v: v + 1,
            float: lambda v: v / 2 + 0.1,
            str: lambda v: v + "x",
            tuple: lambda v: v[:1],
        }.get(type(value), lambda v: settings.Plan())(value)
        names.add(dataclasses.replace(plan, **{field.name: other}).key(0))
    assert len(names) == 2 + len(dataclasses.fields(plan))


# === What is said ===


def test_a_difference_is_that_of_a_paired_t_test() -> None:
    stats = pytest.importorskip("scipy.stats")
    ours, theirs = {0: 3.0, 1: 5.5, 2: 4.0}, {0: 1.0, 1: 3.0, 2: 2.5, 7: 9.0}
    found = compare(ours, theirs)
    pairs = [ours[seed] - theirs[seed] for seed in SEEDS]
    interval = stats.t.interval(0.95, 2, np.mean(pairs), stats.sem(pairs))
    assert found.mean == pytest.approx(np.mean(pairs))
    assert found.mean - found.margin == pytest.approx(interval[0], abs=1e-3)
    assert found.mean + found.margin == pytest.approx(interval[1], abs=1e-3)


def test_a_difference_of_three_seeds_by_hand() -> None:
    found = compare({0: 2.0, 1: 3.0, 2: 4.0}, {0: 1.0, 1: 1.0, 2: 1.0})
    # 1, 2, 3: mean 2, standard deviation 1; 4.303 / sqrt(3)
    assert found == (2.0, pytest.approx(2.4843, abs=1e-4))


def test_one_seed_decides_nothing() -> None:
    found = compare({0: 50.0}, {0: 1.0})
    assert found == (49.0, math.inf)
    assert found.verdict("better") == "no clear answer"
    with raises(ValueError, "seed", received=True):
        compare({0: 1.0}, {1: 1.0})


@pytest.mark.parametrize(
    ("mean", "margin", "expected", "said"),
    [
        (3, 1, "better", "better, as in the paper"),
        (-3, 1, "better", "**worse: we disagree**"),
        (-3, 1, "worse", "worse, as in the paper"),
        (3, 1, "worse", "**better: we disagree**"),
        (3, 1, "", "better"),
        (-3, 1, "", "worse"),
        (1, 2, "better", "no clear answer"),
        (-1, 2, "", "no clear answer"),
        # As sure as can be, and of no use to anybody.
        (0.3, 0.1, "better", "no clear answer"),
        (3, 1, "not worse", "as in the paper"),
        (0, 0.4, "not worse", "as in the paper"),
        (0, 2, "not worse", "no clear answer"),
        (-3, 1, "not worse", "**worse: we disagree**"),
    ],
)
def test_verdicts(mean: float, margin: float, expected: str, said: str) -> None:
    assert Difference(mean, margin).verdict(expected) == said


def test_the_share_that_reaches_a_score() -> None:
    curve = {0.05: 10.0, 0.2: 20.0, 1.0: 30.0}
    assert "5%" in report.share_for(curve, 9.0)
    assert "20%" in report.share_for(curve, 20.0)
    # Half of the way from 0.05 to 0.2, in factors.
    assert "10%" in report.share_for(curve, 15.0)
    assert "%" not in report.share_for(curve, 31.0)


def result(plan: settings.Plan, seed: int, tico19: float, tatoeba: float) -> Any:
    return {
        "key": plan.key(seed),
        "seed": seed,
        "scores": {
            "tico19": {"hi": tico19, "fr": tico19 + 0.2},
            "tatoeba": {"hi": tatoeba, "fr": tatoeba},
        },
        "unknown": {"hi": 0.01, "fr": 0.0},
        "notes": {},
        "seconds": {"training": 60.0, "all": 70.0},
    }


def test_a_table_by_hand(tmp_path: Path) -> None:
    (group,) = [g for g in settings.groups(settings.FULL) if g.name == "margin"]
    base, other = group.settings[0].plan, group.settings[3].plan
    results = {}
    for seed in SEEDS:
        for plan, more in ((base, 0.0), (other, 0.05 + 0.002 * seed)):
            made = result(plan, seed, 0.4 + 0.01 * seed + more, 0.2)
            results[made["key"]] = made
    report.write(tmp_path, settings.groups(settings.FULL), settings.FULL, results)
    page = (tmp_path / "ablations.md").read_text()
    # TICO-19: mean of 50, 51 and 52; Indian ones: 40, 41 and 42.
    assert "| 1 | 0 | 51.0 ± 1.0 | 41.0 ± 1.0 | 20.0 ± 0.0 | 20.0 ± 0.0 |" in page
    # Of both sets: half of 5.0, 5.2 and 5.4 points.
    assert (
        "| 2 | 0.3 | 56.2 ± 1.2 | 46.2 ± 1.2 | 20.0 ± 0.0 | 20.0 ± 0.0 "
        "| +2.6 ± 0.2 to 1 |" in page
    )
    assert "of 3 seeds" in page
    assert page.count("\n| ") == 3
    assert "![Margin](ablations_margin.png)" in page
    assert (tmp_path / "ablations_margin.png").stat().st_size > 5_000


def test_a_row_has_the_languages_that_it_is_about() -> None:
    (group,) = [g for g in settings.groups(settings.FULL) if g.name == "zero_shot"]
    plan = group.settings[0].plan
    made = result(plan, 0, 0.5, 0.5)
    made["scores"]["tico19"] |= {"mr": 0.1, "ne": 0.3, "ta": 0.9}
    made["scores"]["tatoeba"] |= {"mr": 0.2, "ta": 0.7, "te": 0.8, "ml": 0.9}
    rows = report.rows_of(group, {plan.key(0): made})
    related, unrelated = (
        row.values(report.both)[0] for row in rows.values() if row.setting.plan == plan
    )
    assert related == pytest.approx((20 + 20) / 2)
    assert unrelated == pytest.approx((90 + 80) / 2)


def test_the_page_beside_the_benchmarks_is_what_its_results_say(tmp_path: Path) -> None:
    """Nobody has written a figure by hand, and all tables are whole."""
    shipped = BENCHMARKS / ablations.RESULTS
    results = ablations.read_results(shipped)
    groups = settings.groups(settings.FULL)
    for group in groups:
        for setting in group.settings:
            for seed in SEEDS:
                found = results[setting.plan.key(seed)]
                # What JSON makes of it: lists for tuples.
                plan = json.loads(json.dumps(dataclasses.asdict(setting.plan)))
                assert (found["plan"], found["seed"]) == (plan, seed)
    report.write(tmp_path, groups, settings.FULL, results)
    made = (tmp_path / "ablations.md").read_text(encoding="utf-8")
    assert made == (BENCHMARKS / "ablations.md").read_text(encoding="utf-8")
    for picture in tmp_path.glob("*.png"):
        assert (BENCHMARKS / picture.name).exists()


# === The text ===


def pairs(count: int, language: str = "hi") -> list[SentencePair]:
    return [SentencePair(f"s{i}", f"t{i}", language) for i in range(count)]


def test_exchanged_translations_are_nobodys_own() -> None:
    clean = pairs(50)
    spoilt = text.exchanged(clean, 0.3, seed=4)
    changed = [i for i in range(50) if spoilt[i] != clean[i]]
    assert len(changed) == 15
    assert [row.source for row in spoilt] == [row.source for row in clean]
    assert Counter(row.target for row in spoilt) == Counter(r.target for r in clean)
    assert spoilt != text.exchanged(clean, 0.3, seed=5)
    assert text.exchanged(clean, 0.0, seed=4) == clean


def write_corpus(folder: Path, count: int = 400) -> None:
    """Pairs whose English is shared by all languages, and some short ones."""
    words = [f"w{i}" for i in range(60)]
    folder.mkdir(parents=True)
    for language in (*settings.LANGUAGES, *settings.UNSPACED):
        rng = random.Random(1)
        lines = []
        for _ in range(count):
            chosen = rng.choices(words, k=rng.randint(2, 7))
            other = " ".join(f"{language}{word}" for word in chosen)
            lines.append(f"{' '.join(chosen)}\t{other}\n")
        with gzip.open(folder / f"en-{language}.tsv.gz", "wt", encoding="utf-8") as f:
            f.writelines(lines)


def test_the_scorer_knows_none_of_the_sentences(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    text.choose_pairs(tmp_path / "corpus", tmp_path / "work", TINY)
    sides: dict[str, set[str]] = {"train": set(), "scorer": set()}
    for name, sentences in sides.items():
        for language in settings.LANGUAGES:
            rows = text.read_text(tmp_path / "work", name, language, 1_000)
            assert len(rows) == 40
            assert all(len(row.source.split()) >= 4 for row in rows)
            sentences |= {row.source for row in rows}
    assert not sides["train"] & sides["scorer"]
    # The languages have their English in common, as the corpus has it.
    assert len(sides["train"]) <= 40
    more = TINY._replace(pairs=10_000)
    with raises(ValueError, "10,000"):
        text.choose_pairs(tmp_path / "corpus", tmp_path / "other", more)


def test_a_share_is_a_part_of_a_larger_one(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    text.choose_pairs(tmp_path / "corpus", tmp_path / "work", TINY)

    def chosen(share: float) -> set[SentencePair]:
        plan = settings.Plan(share=share)
        found = text.training_pairs(plan, 0, tmp_path / "work", TINY)
        return {row for rows in found.values() for row in rows}

    assert chosen(0.25) < chosen(0.5) < chosen(1.0)
    rows = text.training_pairs(settings.Plan(share=0.25), 0, tmp_path / "work", TINY)
    assert {len(some) for some in rows.values()} == {10}


def test_one_makes_and_the_others_wait(tmp_path: Path) -> None:
    path, made = tmp_path / "thing", []

    def make(number: int) -> None:
        with text.made_once(path) as missing:
            if missing:
                time.sleep(0.05)
                made.append(number)
                path.write_text("x")

    threads = [threading.Thread(target=make, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


# === The runs ===


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> runs.Place:
    """A corpus of made-up words, and test sets of the same."""
    folder = tmp_path_factory.mktemp("ablations")
    write_corpus(folder / "data" / "corpus")
    (folder / "data" / "dev" / "tico19").mkdir(parents=True)
    (folder / "data" / "tatoeba").mkdir()
    for language in (*settings.LANGUAGES, *settings.UNSPACED):
        sentences = [f"w{i} w{i + 1} w{2 * i}" for i in range(30)]
        others = [s.replace("w", f"{language}w") for s in sentences]
        path = folder / "data" / "dev" / "tico19" / f"en-{language}.tsv.gz"
        with gzip.open(path, "wt", encoding="utf-8") as file:
            both = zip(sentences, others, strict=True)
            file.writelines(f"{a}\t{b}\n" for a, b in both)
        code = THREE[language]
        for side, rows in (("eng", sentences), (code, others)):
            path = folder / "data" / "tatoeba" / f"tatoeba.{code}-eng.{side}"
            path.write_text("\n".join(rows) + "\n")
    made = runs.Place(folder / "data", folder / "work", TINY, threads=2)
    text.choose_pairs(made.data / "corpus", made.work, TINY)
    return made


THREE = {
    **{"hi": "hin", "bn": "ben", "mr": "mar", "ta": "tam", "te": "tel", "ml": "mal"},
    **{"ur": "urd", "ne": "nep", "fr": "fra", "de": "deu", "ru": "rus", "zh": "cmn"},
    **{"ar": "ara", "id": "ind", "tr": "tur", "th": "tha", "km": "khm"},
}
SMALL_BAG = settings.Plan(steps=3, batch_size=32)


@pytest.mark.slow
def test_a_run_again_is_the_same_run(place: runs.Place) -> None:
    first = runs.run(SMALL_BAG, 0, place)
    path = runs.result_path(place.work, SMALL_BAG, 0)
    assert json.loads(path.read_text())["scores"] == first["scores"]
    assert set(first["scores"]["tico19"]) == set(settings.LANGUAGES)
    path.unlink()
    again = runs.run(SMALL_BAG, 0, place)
    assert again["scores"] == first["scores"]
    assert again["notes"] == first["notes"]
    assert runs.run(SMALL_BAG, 1, place)["notes"] != first["notes"]


def test_scores_are_of_sentences_that_a_test_set_has(place: runs.Place) -> None:
    sets = runs.test_sets(place, ("hi", "ne"))
    assert [len(rows[0]) for rows in sets["tico19"].values()] == [20, 20]
    assert sets["tatoeba"]["hi"][1][3] == "hiw3 hiw4 hiw6"


@pytest.mark.slow
def test_grown_with_its_function_kept_is_what_it_was(place: runs.Place) -> None:
    bag = runs.bag(SMALL_BAG, 0, place)
    assert runs.Job("", 0, SMALL_BAG, keep=True).is_done(place.work)
    sentences = ["w1 w2 w3", "hiw1 hiw2", "nothing of these"]
    vectors = {}
    for keep in (True, False):
        plan = dataclasses.replace(
            SMALL_BAG, bag=SMALL_BAG, num_layers=2, keep_function=keep
        )
        encoder = runs.starting_encoder(plan, 0, place)
        assert encoder.backbone.num_layers == 2
        vectors[keep] = encoder.encode(sentences)
        table = encoder.backbone.token_embedding.embeddings
        before = bag.backbone.token_embedding.embeddings
        np.testing.assert_array_equal(np.asarray(table), np.asarray(before))
    np.testing.assert_allclose(vectors[True], bag.encode(sentences), atol=1e-5)
    assert np.abs(vectors[False] - vectors[True]).max() > 0.01


@pytest.mark.slow
def test_pretrained_filtered_and_untrained_runs(place: runs.Place) -> None:
    """Each way that a run can begin, from text to scores."""
    tuned = settings.Plan(steps=2, batch_size=16, num_layers=4, pooling="pooler")
    for share, stages in ((0.0, ()), (0.5, ((2, 6),))):
        made = settings.Pretraining(share, stages, 12)
        job = runs.Job("", 0, pretraining=made)
        assert not job.is_done(place.work)
        runs.pretrained(made, 0, place)
        assert job.is_done(place.work)
        plan = dataclasses.replace(tuned, pretraining=made)
        assert runs.run(plan, 0, place)["notes"]["pretraining_loss"] > 0
    spoilt = dataclasses.replace(SMALL_BAG, shuffled=0.5, filtered=True)
    text_marked, text.MARKED = text.MARKED, 300
    try:
        notes = runs.run(spoilt, 0, place)["notes"]
    finally:
        text.MARKED = text_marked
    assert notes["good_before"] == pytest.approx(0.5, abs=0.1)
    assert notes["good_before"] < notes["good_after"] <= 1
    untrained = dataclasses.replace(SMALL_BAG, steps=0)
    assert "loss" not in runs.run(untrained, 0, place)["notes"]
    unspaced = dataclasses.replace(
        SMALL_BAG, languages=settings.UNSPACED, vocabulary="unspaced", compat="tfhub"
    )
    assert set(runs.run(unspaced, 0, place)["unknown"]) == set(settings.UNSPACED)
