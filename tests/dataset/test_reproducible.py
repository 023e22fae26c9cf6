"""The bytes of a view depend on seed, galaxy id and view number alone: not on partitions, cores or retries."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.dataset.digest import differences, digest
from tests.dataset.job_process import SPARK_HOME, started_augment


def num_partitions(run: Path) -> int:
    """In how many Spark partitions the views were written: each numbers its files, part-00007-... and so on."""
    return len({re.match(r"part-\d+", file.name).group() for file in (run / "views").rglob("part-*.parquet")})


def test_one_core_and_more_partitions_make_the_same_views(undisturbed, many_galaxies: Path, tmp_path: Path) -> None:
    with started_augment(tmp_path / "run", many_galaxies, tmp_path, master="local[1]", parallelism=5) as job:
        assert job.wait() == 0, job.shown()
    assert num_partitions(job.run) > 2 * num_partitions(undisturbed.run)
    assert differences(digest(job.run), undisturbed.rows) == []


@pytest.mark.slow
@pytest.mark.parametrize(("master", "parallelism"), [("local[3]", 25), ("local[1]", None)])
def test_any_number_of_cores_and_partitions_makes_the_same_views(
    master: str, parallelism: int | None, undisturbed, many_galaxies: Path, tmp_path: Path
) -> None:
    with started_augment(tmp_path / "run", many_galaxies, tmp_path, master=master, parallelism=parallelism) as job:
        assert job.wait() == 0, job.shown()
    assert num_partitions(job.run) != num_partitions(undisturbed.run)
    assert differences(digest(job.run), undisturbed.rows) == []


def test_a_task_tried_again_after_its_worker_was_killed_makes_the_same_views(
    undisturbed, many_galaxies: Path, tmp_path: Path
) -> None:
    # In Spark's own notation: two cores, and up to four attempts at a task.
    with started_augment(tmp_path / "run", many_galaxies, tmp_path, master="local[2,4]") as job:
        job.wait_for_a_worker_at_work().kill()
        assert job.wait() == 0, job.shown()
    assert sum(job.failed_tasks().values()) == 1
    assert differences(digest(job.run), undisturbed.rows) == []


@pytest.mark.slow
def test_a_job_that_lost_an_executor_makes_the_same_views(undisturbed, many_galaxies: Path, tmp_path: Path) -> None:
    # Spark's workers keep what executors have logged beside Spark itself, which is not ours to write to.
    spark_home = tmp_path / "spark"
    spark_home.mkdir()
    for part in SPARK_HOME.iterdir():
        (spark_home / part.name).symlink_to(part)
    cluster = "local-cluster[2,1,1024]"
    with started_augment(tmp_path / "run", many_galaxies, tmp_path, master=cluster, spark_home=spark_home) as job:
        at_work = job.wait_for_a_worker_at_work().parents()
        executor = next(executor for executor in job.executors() if executor in at_work)
        executor.kill()
        assert job.wait() == 0, job.shown()
    # 137: ended by SIGKILL. That executors are removed when the job ends is as it should be.
    removed = [event["Removed Reason"] for event in job.events_of("SparkListenerExecutorRemoved")]
    assert sum("137" in reason for reason in removed) == 1
    assert job.failed_tasks()["ExecutorLostFailure"] >= 1
    assert differences(digest(job.run), undisturbed.rows) == []


@pytest.mark.slow
def test_another_seed_makes_other_views_beside_the_plain_centre(undisturbed, undisturbed_of_seed_2) -> None:
    assert len(undisturbed.rows) == len(undisturbed_of_seed_2.rows)
    for (*of_one, image_of_one), (*of_two, image_of_two) in zip(
        undisturbed.rows, undisturbed_of_seed_2.rows, strict=True
    ):
        assert of_one == of_two
        assert (image_of_one == image_of_two) == (of_one[1] == 0), of_one[:2]
