"""The benchmark of disturbed clusters: how it reckons, and one real cluster whose executor is killed."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import TypeAdapter

from benchmarks import training_hosts
from benchmarks.chaos.bench import left_alone, measured
from benchmarks.chaos.input import many_galaxies
from benchmarks.chaos.job import Attempt, failures, hit_by, seconds_until_done
from benchmarks.chaos.rows import published_rows
from benchmarks.chaos.table import Row, as_markdown
from benchmarks.harness import RESULTS
from benchmarks.pages import write_table
from tests.dataset.digest import digest

ROOT = Path(__file__).parent.parent
# Executor 1 dies at 105 s, in the middle of tasks 1 and 2, which executor 2 does again; task 3 runs there meanwhile.
ATTEMPTS = [
    Attempt((7, 0), "1", 100, 104, "Success"),
    Attempt((7, 1), "1", 101, 106, "ExecutorLostFailure"),
    Attempt((7, 2), "1", 104, 106, "ExecutorLostFailure"),
    Attempt((7, 3), "2", 104, 107, "Success"),
    Attempt((7, 1), "2", 107, 110, "Success"),
    Attempt((7, 2), "2", 110, 112.5, "Success"),
    Attempt((7, 2), "3", 111, 113, "TaskKilled"),
]


def test_how_long_work_was_interrupted_is_reckoned_from_the_attempts_at_tasks() -> None:
    hit = hit_by(ATTEMPTS, "1", 105)
    assert hit == {(7, 1), (7, 2)}
    assert seconds_until_done(ATTEMPTS, None, 105) == [2, 5, 7.5]
    assert seconds_until_done(ATTEMPTS, hit, 105) == [5, 7.5]
    assert failures(ATTEMPTS) == {"ExecutorLostFailure": 2, "TaskKilled": 1}


def test_rows_are_those_that_were_published(augmented_run: Path) -> None:
    rows = published_rows(augmented_run, "augment")
    columns = (rows[name].to_pylist() for name in ("galaxy_id", "view", "split", "label", "image"))
    assert list(zip(*columns, strict=True)) == [(*row[:4], row[5]) for row in digest(augmented_run)]
    twice = pa.concat_tables([rows.slice(0, 1), rows])
    assert not twice.equals(rows)


def test_the_table_in_the_docs_is_that_of_the_results() -> None:
    results = json.loads((RESULTS / "chaos.json").read_text())
    rows = TypeAdapter(list[Row]).validate_python(results["rows"])
    assert as_markdown(rows) in (ROOT / "docs" / "chaos.md").read_text()


def test_the_table_of_training_is_that_of_its_results() -> None:
    told = json.loads((RESULTS / "training_hosts.json").read_text())["training_hosts"]
    assert training_hosts.as_markdown(told) in (ROOT / "docs" / "chaos.md").read_text()


def test_what_was_not_measured_says_why(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Before.\n\n<!-- chaos -->\nold\n<!-- end -->\n\nAfter.\n")
    write_table(page, "chaos", as_markdown([Row("augment", "network-cut", not_measured="needs root")]))
    before, *table, after = page.read_text().splitlines()
    assert (before, after) == ("Before.", "After.")
    assert table[-3].startswith("| augment | a worker's network is cut |")
    assert table[-3].endswith("| not run: needs root |")
    assert "old" not in table


@pytest.mark.slow
def test_a_stage_whose_executor_is_killed_goes_on_and_publishes_the_same(tmp_path: Path) -> None:
    given = many_galaxies(tmp_path / "input", 600)
    undisturbed = left_alone("augment", given)
    assert undisturbed.rows.num_rows == 16 * 600
    row = measured("augment", "executor-killed", given, undisturbed)
    assert row.not_measured == ""
    assert (row.exit_status, row.same_data) == (0, True)
    assert 0 < row.tasks_done < row.tasks
    assert row.tasks_hit == row.failed_attempts["ExecutorLostFailure"] == 1
    assert row.next_task_s is not None and row.lost_tasks_s is not None
    assert 0 < row.next_task_s <= row.lost_tasks_s < row.seconds  # type: ignore[operator]
