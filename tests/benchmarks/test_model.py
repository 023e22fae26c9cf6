"""The model on costs in round numbers, worked by hand; and the costs out of results whose lines are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.growth.table import aligned, efficiency, rate_rows
from benchmarks.model.bench import Model, core_seconds, limits, main, sizes, wall_seconds
from benchmarks.model.costs import Costs, costs_of, read_results
from benchmarks.pages import markdown, with_table
from galaxyspark.errors import UserError

COSTS = Costs(
    image_bytes=20_000,
    shuffle_bytes=50,
    result_bytes=1024,
    heap_bytes=1024,
    heap_mb=48,
    view_bytes={112: 32_000, 224: 2**17},
    feature_bytes=4_000,
    augment_core_s={112: 0.004, 224: 0.01},
    extract_core_s={112: 0.003, 224: 0.01},
    train_core_s={112: 0.01, 224: 0.04},
    classify_s=0.01,
    classify_bytes=4_096,
    fixed_s={"augment": 40, "extract": 20},
    driver_s={"augment": 0.001, "extract": 0.0},
    first_look_s=0.0001,
    efficiency={"augment": 0.8, "extract": 0.5},
)
# Of a labelled galaxy 0.75 x 4 + 0.25 x 16 = 7 views are extracted.
MODEL = Model(train_share=0.75, epochs=10, gpu_train_views_per_s=1_000, gpu_extract_views_per_s=8_000)


def test_core_seconds_worked_by_hand() -> None:
    # A million galaxies with labels among ten million.
    assert core_seconds(10_000_000, 224, COSTS, MODEL) == pytest.approx(
        {
            "augment": 10_000,  # 10^6 x 10 ms
            "train": 4_800_000,  # 10^6 x 0.75 x 16 views x 10 epochs x 40 ms
            "extract": 70_000,  # 10^6 x 7 views x 10 ms
            "predict": 1_700_000,  # 10^7 x (10 ms + 16 x 10 ms)
        }
    )
    # Fewer than may have labels: all have.
    assert core_seconds(100, 112, COSTS, MODEL)["extract"] == pytest.approx(100 * 7 * 0.003)


def test_wall_seconds_worked_by_hand() -> None:
    assert wall_seconds(10_000_000, 100, 2, COSTS, MODEL) == pytest.approx(
        {
            "augment": 40
            + 1_000
            + 125,  # 10^6 x 1 ms with no task running; 10^4 core seconds on 100 cores that give 80
            "train": 60_000,  # 1.2 x 10^8 views by 2 x 1,000 a second
            "extract": 20 + 1_400,  # 7 x 10^4 core seconds on 100 cores that give 50
            "classify": 30_000,  # 10^6 x 0.75 x 4 views x 10 ms, whatever the cores
            "predict": 40 + 10_000 + 34_000,
            "predict_on_gpus": 40 + 10_000 + 10_000,  # 1.6 x 10^8 views by 2 x 8,000 a second; the cores need 1,250 s
            "listing": 2_000,  # twice 10^7 x 0.1 ms
        }
    )


def test_more_cores_do_not_help_the_driver() -> None:
    many = wall_seconds(10_000_000, 10**9, 10**9, COSTS, MODEL)
    assert (many["predict"], many["predict_on_gpus"]) == pytest.approx((10_040, 10_040), rel=1e-4)
    assert many["classify"] == 30_000


def test_sizes_and_limits_worked_by_hand() -> None:
    assert sizes(1_000_000, COSTS, MODEL) == pytest.approx(
        {
            **{"images": 2e10, "views_112": 3.2e10, "views_224": 2**17 * 1e6, "features": 2.8e10},
            **{"catalogue": 1e6 * (4_096 + 200), "files": 600, "row_groups": 1e6 / 256},
        }
    )
    assert limits(COSTS, MODEL) == pytest.approx(
        {
            "features": 64 * 2**30 / (3 * 8_192),
            "tables": 2_000_000,
            "heap": 2_000 * 1024,  # 2,048 MB less 48, by 1 kB each
            "results": 2**20,
            "broadcast": 8 * 2**30 / 400,
            "listing": 18_000_000,
        }
    )


def run(stage: str, executors: int, galaxies: int, work_s: float, views: int) -> dict[str, Any]:
    """A run of growth: 30 s and 2 ms a galaxy with no task running, 7 s and 5 ms a galaxy of processor time."""
    first_look_s = 1 + 0.0005 * galaxies
    phases = {"start": 0, "preparing": 29 - 0.0005 * galaxies + 0.002 * galaxies, "commit": 0, "checking": 0, "stop": 0}
    tasks = dict.fromkeys(("tasks", "task_s", "python_s", "python_start_s", "gc_s", "deserialize_s"), 0)
    tasks |= {
        "scheduler_delay_s": 0,
        "shuffle_written_bytes": 10 + 3 * galaxies,
        "result_bytes": 500 + 90 * galaxies,
        "output_bytes": 5 * views,
    }
    return {
        **{"stage": stage, "executors": executors, "galaxies": galaxies, "views": views, "image_bytes": 9 * galaxies},
        **{"view_bytes": 64 * galaxies, "wall_s": 30 + 0.002 * galaxies + work_s, "work_task_s": executors * work_s},
        **{"phases": {**phases, "work": work_s, "first_look": first_look_s}, "executor_cpu_s": 7 + 0.005 * galaxies},
        **{
            "largest_result_bytes": 100 + 20 * galaxies,
            "driver_heap_mb": 50 + galaxies / 2**10,
            "tasks": tasks,
            "idle_s": 30 + 0.002 * galaxies,
            "peaks_mb": {},
        },
    }


RUNS = [
    *(run("augment", executors, 400, work_s, 6_400) for executors, work_s in ((1, 40.0), (2, 22.0), (4, 12.5))),
    *(run("augment", 2, galaxies, 0.05 * galaxies, 16 * galaxies) for galaxies in (100, 1_600)),
    *(run("extract", executors, 400, work_s, 2_000) for executors, work_s in ((1, 40.0), (2, 22.0), (4, 20.0))),
    *(run("extract", 2, galaxies, 0.05 * galaxies, 5 * galaxies) for galaxies in (100, 1_600)),
]


def results() -> dict[str, Any]:
    def rates(name: str, rate: float) -> dict[str, Any]:
        return {name: {"median": rate}}

    return {
        "growth": {"view_size_px": 112, "runs": RUNS, "machine": {"cores": 2}},
        "augment": {"rates": [rates("spark", 3_200.0)]},
        "extract": {"rates": [rates("spark", 200.0)]},
        "train": {"rates": [rates("loop", 50.0), rates("one_process", 1.0), rates("loop", 100.0)]},
        "scale": {"runs": [{"galaxies": 1, "bytes": 0}, {"galaxies": 1_000, "bytes": 100_000_000}]},
        "svm": {
            "svm": {"5,000 rows": {"seconds": 10, "memory_mb": 1}, "20,000 rows": {"seconds": 200, "memory_mb": 20}}
        },
    }


def test_costs_are_the_slopes_of_what_was_measured() -> None:
    costs = costs_of(results())
    assert (costs.shuffle_bytes, costs.result_bytes, costs.heap_bytes) == pytest.approx((3, 20, 1024))
    assert costs.heap_mb == pytest.approx(50)
    assert (costs.image_bytes, costs.feature_bytes) == pytest.approx((9, 5))
    assert costs.view_bytes == pytest.approx({112: 64, 224: 100_000})
    assert costs.augment_core_s == pytest.approx({112: 0.005, 224: 0.01})  # 2 cores, 200 galaxies a second
    assert costs.extract_core_s == pytest.approx({112: 0.001, 224: 0.01})
    assert costs.train_core_s == pytest.approx({112: 0.02, 224: 0.04})
    assert costs.classify_s == pytest.approx(0.01)
    assert costs.classify_bytes == pytest.approx(1_000)
    assert costs.fixed_s == pytest.approx({"augment": 30, "extract": 30})
    assert costs.driver_s == pytest.approx({"augment": 0.002, "extract": 0.002})
    assert costs.first_look_s == pytest.approx(0.0005)
    assert costs.efficiency == pytest.approx({"augment": 40 / (4 * 12.5), "extract": 0.5})


def test_efficiency_is_against_one_executor_on_as_many_galaxies() -> None:
    assert efficiency(RUNS[1], RUNS) == pytest.approx(40 / 44)
    assert efficiency(RUNS[3], RUNS) is None
    assert [row[6] for row in rate_rows(RUNS)[1:6]] == ["1.00", "0.91", "0.80", "", ""]


def test_results_that_do_not_suffice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"augment.json: not there. Measure it: ./submit.sh bench augment"):
        read_results(tmp_path)
    one_size = results()
    one_size["growth"]["runs"] = [each for each in RUNS if each["galaxies"] == 400]
    with pytest.raises(UserError, match="one number of galaxies only"):
        costs_of(one_size)


def test_the_tables_of_the_page_are_replaced_and_nothing_else(tmp_path: Path) -> None:
    for name, content in results().items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    page = Path(__file__).parents[2] / "docs" / "scaling.md"
    copy = tmp_path / "scaling.md"
    copy.write_text(page.read_text())
    main(["--results", str(tmp_path), "--docs", str(copy)])

    assert [line for line in copy.read_text().splitlines() if not line.startswith("|")] == [
        line for line in page.read_text().splitlines() if not line.startswith("|")
    ]
    # 10^9 galaxies of 100 kB are 100 TB; a million of them have labels: 10^6 x 10 ms are 2.8 hours of a core.
    assert "| 10^9 | 9 GB | 64 GB | 100 TB |" in copy.read_text()
    assert "| 10^9 | 224 px | 3 |" in copy.read_text()


def test_a_table_without_a_place_is_said() -> None:
    page = "before\n<!-- one -->\nold\n<!-- end -->\nbetween\n<!-- two -->\nold\n<!-- end -->\n"
    assert with_table(page, "two", r"new \1") == page[::-1].replace("dlo", r"1\ wen", 1)[::-1]
    with pytest.raises(UserError, match="no lines <!-- three -->"):
        with_table(page, "three", "")


def test_rows_as_text() -> None:
    rows = [("a", "number"), ("word", "1")]
    assert aligned(rows) == "   a  number\nword       1"
    assert markdown(rows) == "| a | number |\n| --- | --- |\n| word | 1 |"


def test_the_page_has_the_tables_of_the_results(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "scaling.md"
    copy = tmp_path / "scaling.md"
    copy.write_text(page.read_text())
    main(["--docs", str(copy)])
    assert copy.read_text() == page.read_text()
