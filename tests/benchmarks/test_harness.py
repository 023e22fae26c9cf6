"""The harness on alternatives whose speed is known, by a clock that they move themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import harness
from benchmarks.__main__ import main
from benchmarks.harness import Alternative, BenchmarkSettings, Measurement, format_table, measure, report
from galaxyspark.errors import UserError

MEASUREMENT = Measurement(
    "views/s", {"spark": [90.0, 50.0, 80.0], "bare": [100.0, 100.0, 80.0], "rows": [9.0, 10.0, 10.0]}
)


class Clock:
    """A clock that only moves when an alternative works, and the order in which they did."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.seconds

    def alternative(self, name: str, durations: list[float], units: int = 60) -> Alternative:
        """Takes the given seconds in its warm-up and in each round."""
        remaining = iter(durations)

        def run(directory: Path) -> Path:
            assert not list(directory.iterdir())
            (directory / "output").write_text(str(units))
            self.order.append(name)
            self.seconds += next(remaining)
            return directory / "output"

        return Alternative(name, run, self._counting(units))

    def _counting(self, units: int) -> Callable[[Path], int]:
        def count(output: Path) -> int:
            self.seconds += 1000.0  # counting is not the work that is measured
            assert output.read_text() == str(units)
            return units

        return count


def test_alternatives_take_turns_and_the_warm_up_is_not_measured() -> None:
    clock = Clock()
    alternatives = [clock.alternative("a", [99.0, 1.0, 2.0]), clock.alternative("b", [99.0, 3.0, 4.0])]

    measurement = measure(alternatives, units=60, unit="views", rounds=2, clock=clock)

    assert clock.order == ["a", "b"] * 3
    assert measurement == Measurement("views/s", {"a": [60.0, 30.0], "b": [20.0, 15.0]})


def test_a_run_that_did_not_do_all_the_work_is_refused() -> None:
    clock = Clock()

    with pytest.raises(RuntimeError, match="a did 59 views where .* 60"):
        measure([clock.alternative("a", [1.0, 1.0], units=59)], units=60, unit="views", rounds=1, clock=clock)


def test_the_output_of_a_run_is_deleted() -> None:
    directories: list[Path] = []

    def run(directory: Path) -> int:
        directories.append(directory)
        return 1

    measure([Alternative("a", run)], units=1, unit="views", rounds=1)

    assert len(set(directories)) == 2
    assert not any(directory.exists() for directory in directories)


def test_what_wakes_an_alternative_comes_before_each_of_its_runs_and_is_not_timed() -> None:
    clock = Clock()
    done: list[str] = []

    def wake(directory: Path) -> None:
        assert list(directory.iterdir()) == []
        done.append("wake")
        clock.seconds += 1000

    def run(_: Path) -> int:
        done.append("run")
        clock.seconds += 2
        return 60

    measurement = measure([Alternative("a", run, wake=wake)], units=60, unit="views", rounds=2, clock=clock)
    assert measurement.runs == {"a": [30.0, 30.0]}
    assert done == ["wake", "run"] * 3


def test_a_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_the_medians() -> None:
    # By round 0.9, 0.5, 1.0 and 10, 5, 8; the ratio of the medians would be 0.8 and 8.
    assert MEASUREMENT.ratios() == {"spark_vs_bare": 0.9, "spark_vs_rows": 8.0}


def test_rates_have_their_spread_their_unit_and_every_run() -> None:
    assert MEASUREMENT.rates()["spark"] == {
        "median": 80.0,
        "min": 50.0,
        "max": 90.0,
        "unit": "views/s",
        "runs": [90.0, 50.0, 80.0],
    }


def test_the_table_has_one_line_an_alternative() -> None:
    assert format_table(MEASUREMENT).splitlines() == [
        "       median views/s     min - max  spark / this",
        "spark            80.0   50.0 - 90.0",
        "bare            100.0  80.0 - 100.0         0.900",
        "rows             10.0    9.0 - 10.0         8.000",
    ]


def test_a_full_run_writes_the_results_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)

    report("something", [MEASUREMENT], BenchmarkSettings())

    content = json.loads((tmp_path / "something.json").read_text())
    assert list(content) == ["ratios", "rates", "machine", "versions"]
    assert content["ratios"] == MEASUREMENT.ratios()
    assert content["rates"] == [MEASUREMENT.rates()]
    assert content["machine"]["cores"] >= 1
    assert set(content["machine"]) == {"cpu", "cores", "memory_gib", "os", "kernel"}
    assert "pyspark" in content["versions"]


def test_a_quick_run_writes_only_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")

    report("something", [MEASUREMENT], BenchmarkSettings(quick=True))
    assert not list(tmp_path.iterdir())

    report("something", [MEASUREMENT], BenchmarkSettings(quick=True, out=tmp_path / "out.json"))
    assert [file.name for file in tmp_path.iterdir()] == ["out.json"]


def test_no_rounds_are_refused() -> None:
    with pytest.raises(UserError, match="--rounds 0"):
        BenchmarkSettings(rounds=0)


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["harness"], ["--quick"]])
def test_without_the_name_of_a_benchmark_those_there_are_are_listed(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2

    message = capsys.readouterr().err
    assert "There are: " in message
    assert "augment" in message
    assert "harness" not in message.partition("There are: ")[2]
