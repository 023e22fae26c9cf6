"""The report of a large test split: how large its page is, how long it takes to write, and to open in a browser.

Galaxies are simulated and augmented for real, nearly all of them test galaxies; features, votes and probabilities are
made up, since what they say makes no difference to the page's size. There are no dreams, which are some 0.3 MB. The
page is opened from disk by headless Chromium, each time by a new one; it is open when the map stands and everything has
been loaded.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import tyro
from playwright.sync_api import sync_playwright

from benchmarks.harness import GalaxiesBenchmarkSettings, report
from benchmarks.svm_worker import make_rows
from benchmarks.views import SEED, make_views
from galaxyspark.classify.metrics import evaluate
from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.tree import MORPHOLOGY_CLASSES, QUESTIONS, VOTE_COLUMNS
from galaxyspark.report.page import write_report
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import AugmentSettings, ClassifyJob, ReportJob
from galaxyspark.summary import CLASSIFIERS

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_MOST_MB = 15
_SETTINGS = AugmentSettings(view_size_px=224, split_fractions=(0.04, 0.02, 0.94), preview=True)


@dataclass(frozen=True, kw_only=True)
class ReportBenchmark(GalaxiesBenchmarkSettings):
    """Size of the report's page, and seconds to write and to open it."""

    num_galaxies: int = 3_200
    """Galaxies to simulate; 94% of them are test galaxies."""


def main(arguments: Sequence[str]) -> None:
    """Measure and report; ``arguments`` are flags as ``--help`` lists them."""
    settings = tyro.cli(ReportBenchmark, args=arguments, prog="bench report")
    num_galaxies, rounds = settings.amount()
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        raise UserError(f"needs a browser on the PATH: {', '.join(_BROWSERS)}.")
    with tempfile.TemporaryDirectory(prefix="galaxyspark-bench-") as directory:
        run = make_views(Path(directory) / "run", num_galaxies, _SETTINGS)
        num_test = make_up_classification(run)
        start = time.perf_counter()
        write_report(ReportJob(run=run))
        write_s = time.perf_counter() - start
        page = run / "report" / "index.html"
        opening = [seconds_to_open(page, browser) for _ in range(rounds)]
        if page.stat().st_size > 1e6 * _MOST_MB:
            raise RuntimeError(f"The page has {page.stat().st_size / 1e6:.1f} MB, more than {_MOST_MB}.")
        told = {
            "test_galaxies": num_test,
            "page_mb": page.stat().st_size / 1e6,
            "seconds_to_write": write_s,
            "seconds_to_open": median(opening),
            "slowest_s": max(opening),
        }
    report("report", [], settings, {"report": {"page": told}})


def make_up_classification(run: Path) -> int:
    """Publish features, predictions and metrics as if there were a network; returns the number of test galaxies."""
    views = ds.dataset(run / "views" / "split=test", format="parquet")
    table = views.to_table(columns=["galaxy_id", "label"], filter=ds.field("view") == 0).sort_by("galaxy_id")
    ids, labels = table["galaxy_id"].to_pylist(), table["label"].to_pylist()
    classes = list(MORPHOLOGY_CLASSES)
    truth = np.array([classes.index(label) for label in labels])
    features, _ = make_rows(len(ids), SEED)
    random = np.random.default_rng(SEED)
    said = {name: random.dirichlet(1 + 8 * np.eye(len(classes))[0], len(ids)) for name in CLASSIFIERS}
    of_split = {name: evaluate(truth, probabilities, classes) for name, probabilities in said.items()}
    costs = {"kernel": "rbf", "c": 1.0, "training_views": 0, "fit_s": 0.0, "seconds_a_view": 0.0}
    rmse = {"view0": 0.1, "mean16": 0.1, "by_question": {str(each.number): 0.1 for each in QUESTIONS}}
    metrics: dict[str, Any] = {
        "classes": classes,
        "epoch": 1,
        "classifiers": {"svm": costs},
        "network": {"seconds_a_view": 0.0, "votes_rmse": {"test": rmse, "validation": rmse}},
        "splits": {"test": of_split, "validation": of_split},
    }
    with RunDirectory(run).stage("classify", ClassifyJob(run=run), {}) as staging:
        columns: dict[str, Any] = {"split": ["test"] * len(ids), "galaxy_id": ids, "label": labels}
        columns["outlier_score"] = random.normal(size=len(ids))
        votes = random.random((len(ids), len(VOTE_COLUMNS))).astype(np.float32)
        columns |= {"votes": list(votes), "true_votes": list(votes[::-1])}
        pq.write_table(
            pa.table(columns | {name: list(p) for name, p in said.items()}), staging.path("predictions.parquet")
        )
        staging.path("features").mkdir()
        of_views = {"split": columns["split"], "galaxy_id": ids, "view": [0] * len(ids), "features": list(features)}
        pq.write_table(pa.table(of_views), staging.path("features") / "part-0.parquet")
        staging.path("metrics.json").write_text(json.dumps(metrics))
    return len(ids)


def seconds_to_open(page: Path, browser: str) -> float:
    """From asking for the page to its map being drawn, in a browser that has just been started."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = started.new_page()
        start = time.perf_counter()
        tab.goto(page.as_uri(), wait_until="load")
        tab.locator("#map-plot .point").first.wait_for(state="attached")
        seconds = time.perf_counter() - start
        started.close()
    print(f"opened in {seconds:.2f} s", file=sys.stderr)
    return seconds
