r"""The paper's claims as tables, on a setting that two cores can do overnight.

    python benchmarks/ablations.py --data path/to/data --output /tmp/ablations
    python benchmarks/ablations.py --data path/to/data --output /tmp/quick --quick
    python benchmarks/ablations.py --data path/to/data --output /tmp/ablations \
        --only margin batch_size --seeds 0
    python benchmarks/ablations.py --list

`--data` is a folder with `corpus/` (pair files `en-XX.tsv.gz`), `tatoeba/` (LASER's
files) and `dev/tico19/` (pair files). In the output folder appear `ablations.md` with a
table a claim, three pictures, and `ablations.jsonl` with each run's scores by language.

Killed at any moment, the same command goes on; runs that have ended stay. `--tables`
trains nothing and makes tables and pictures of what there is: of a folder in which runs
are under way, or of one that has `ablations.jsonl` alone, as `benchmarks` itself.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from claims import report, runs, text
from claims.settings import FULL, QUICK, Group, groups

from labse_tf.files import write_text
from labse_tf.progress import progress_bar

RESULTS = "ablations.jsonl"


def main() -> None:
    """Runs what is missing, then writes the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="corpus/, tatoeba/ and dev/tico19/")
    parser.add_argument("--output", type=Path, help="made if needed, and gone on with")
    parser.add_argument("--quick", action="store_true", help="a quarter of everything")
    parser.add_argument("--only", nargs="+", metavar="TABLE", help="these tables")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="runs side by side"
    )
    parser.add_argument("--tables", action="store_true", help="train nothing")
    parser.add_argument("--list", action="store_true", help="the tables and their rows")
    options = parser.parse_args()
    scale = QUICK if options.quick else FULL
    tables = groups(scale)
    names = [group.name for group in tables]
    unknown = sorted(set(options.only or ()) - set(names))
    if unknown:
        parser.error(f"--only takes {', '.join(names)}. Received: {', '.join(unknown)}")
    chosen = [group for group in tables if group.name in (options.only or names)]
    jobs = plan_jobs(chosen, options.seeds)
    if options.list:
        show(chosen, jobs)
        return
    if options.output is None or (options.data is None and not options.tables):
        parser.error("--data and --output are needed")
    if not options.tables:
        if options.workers < 1:
            parser.error(f"--workers must be positive. Received: {options.workers}")
        threads = max(1, (os.cpu_count() or 1) // options.workers)
        place = runs.Place(options.data, options.output, scale, threads)
        claim_folder(options.output, options.quick)
        try:
            text.choose_pairs(options.data / "corpus", options.output, scale)
        except (OSError, ValueError) as error:
            parser.error(str(error))
        work_off(jobs, place, options.workers)
    collect(options.output)
    report.write(options.output, tables, scale, read_results(options.output / RESULTS))
    print(options.output / "ablations.md")


def claim_folder(work: Path, quick: bool) -> None:
    """Refuses a folder that holds text and runs of the other scale."""
    path, scale = work / "scale.json", "quick" if quick else "full"
    if not path.exists():
        write_text(path, json.dumps(scale) + "\n")
    known = json.loads(path.read_text(encoding="utf-8"))
    if known != scale:
        sys.exit(f"{work} was started as {known}: take another. Received: {scale}")


def plan_jobs(chosen: Iterable[Group], seeds: Iterable[int]) -> list[runs.Job]:
    """What is to be done, each once: masked language models first, then the runs.

    Long ones come first, so that no worker is left with one at the end; what others
    start from comes before them.
    """
    settings = [setting for group in chosen for setting in group.settings]
    bags = {setting.plan.bag for setting in settings}
    models: dict[Any, runs.Job] = {}
    plans: dict[Any, runs.Job] = {}
    for seed in seeds:
        for group in chosen:
            for setting in group.settings:
                plan = setting.plan
                wanted = plan.pretraining
                if wanted is not None:
                    name = f"masked language model, TLM {wanted.tlm_share:g}"
                    job = runs.Job(name, seed, pretraining=wanted)
                    models.setdefault((wanted, seed), job)
                if plan.bag is not None:
                    job = runs.Job("encoder without layers", seed, plan.bag, keep=True)
                    plans.setdefault((plan.bag, seed), job)
                name = f"{group.name}: {setting.name}"
                job = runs.Job(name, seed, plan, keep=plan in bags)
                plans.setdefault((plan, seed), job)
    rest = sorted(plans.values(), key=lambda job: (not job.keep, -job.cost()))
    return [*sorted(models.values(), key=lambda job: -job.cost()), *rest]


def work_off(jobs: list[runs.Job], place: runs.Place, workers: int) -> None:
    """Does what is left, some at a time, each in a process of its own."""
    left = [job for job in jobs if not job.is_done(place.work)]
    context = multiprocessing.get_context("forkserver")
    # Imported once; a process then takes no time to begin.
    context.set_forkserver_preload(["labse_tf.pretraining", "tensorflow_text"])
    total = round(sum(job.cost() for job in left))
    with (
        concurrent.futures.ProcessPoolExecutor(
            workers, mp_context=context, max_tasks_per_child=1
        ) as pool,
        progress_bar("Ablations", total, "s", show=sys.stderr.isatty()) as advance,
    ):
        started = time.perf_counter()
        futures = {pool.submit(runs.do, job, place): job for job in left}
        try:
            for done, future in enumerate(
                concurrent.futures.as_completed(futures), start=1
            ):
                job = futures[future]
                try:
                    result = future.result()
                except Exception as error:
                    raise RuntimeError(
                        f"{job.name}; seed {job.seed}: the run failed; the same "
                        "command goes on with those that are left"
                    ) from error
                advance(round(job.cost()))
                if not sys.stderr.isatty():
                    minutes = (time.perf_counter() - started) / 60
                    print(
                        f"[{done}/{len(left)}, {minutes:.0f} min] {job.name}; seed "
                        f"{job.seed}{report.in_short(result)}",
                        file=sys.stderr,
                        flush=True,
                    )
        except BaseException:
            # Runs that are under way end; a second Ctrl-C ends them.
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def collect(work: Path) -> None:
    """Joins the results of all runs that have ended, where there are any."""
    files = sorted((work / "runs").glob("*.json"))
    if files:
        write_text(work / RESULTS, "".join(file.read_text("utf-8") for file in files))


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Results by the key of plan and seed."""
    if not path.exists():
        sys.exit(f"{path}: expected the results of runs. Received: no such file")
    results = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {result["key"]: result for result in results}


def show(chosen: Iterable[Group], jobs: list[runs.Job]) -> None:
    """Prints what there is."""
    for group in chosen:
        print(f"{group.name}: {group.title}")
        for setting in group.settings:
            print(f"    {setting.name}")
    hours = sum(job.cost() for job in jobs) / 3600
    print(f"{len(jobs)} runs, about {hours:.1f} hours of a core")


if __name__ == "__main__":
    main()
