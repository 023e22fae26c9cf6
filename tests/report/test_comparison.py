"""Runs compared, against numbers worked by hand.

The first run has galaxies 0-9 smooth, 10-19 featured, and its CNN has 0-4 wrong; the second has 0-5 smooth, 6-11
featured, and its CNN has 0-6 wrong. So they share galaxies 0-5, 10 and 11.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galaxyspark.errors import UserError
from galaxyspark.report import drawing
from galaxyspark.report.comparison import unlike_names, write_comparison
from galaxyspark.settings import CompareJob
from tests.report.handmade import SCRIPT, make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("compared")
    first, second = make_run(root / "first"), make_run(root / "second", num_galaxies=12, more_wrong=2, num_epochs=1)
    settings = second / "settings" / "train.yaml"
    settings.write_text(settings.read_text() + f"train:\n  epochs: 30\n  network: {SCRIPT}\n")
    return first, second


@pytest.fixture(scope="module")
def page(runs: tuple[Path, Path]) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "_PNG_DPI", 20)
        return write_comparison(CompareJob(runs=runs, output=runs[0].parent / "comparison.html"))


def test_pairs_are_of_the_shared_galaxies(page: Path) -> None:
    """On the 8 shared ones 5 and 6 are wrong: one galaxy decides, so p is 1."""
    numbers = json.loads(page.with_suffix(".json").read_text())
    assert numbers["shared_test_galaxies"] == 8
    first, second = numbers["compared"]["cnn_mean16"]
    assert "against_first" not in first
    assert second["against_first"] == {"difference": -1 / 8, "p_value": 1.0}
    assert (first["n"], second["n"]) == (20, 12)
    assert first["accuracy"] == 15 / 20
    assert second["accuracy"] == pytest.approx(5 / 12)


def test_only_settings_that_differ_are_listed(page: Path) -> None:
    """Images have the same name in both; seeds and runs too, but runs lie elsewhere by their nature."""
    numbers = json.loads(page.with_suffix(".json").read_text())
    assert numbers["differing_settings"] == {"train.epochs": ["–", "30"], "train.network": ["–", SCRIPT]}
    html = page.read_text()
    assert SCRIPT not in html
    assert "&lt;script&gt;" in html


def test_runs_without_shared_galaxies(runs: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "a"), make_run(tmp_path / "b", ["smooth", "featured", "artifact"])
    table = second / "predictions.parquet"
    content = pq.read_table(table)
    others = pa.array([f"other {galaxy_id}" for galaxy_id in content["galaxy_id"].to_pylist()])
    pq.write_table(content.set_column(content.schema.get_field_index("galaxy_id"), "galaxy_id", others), table)
    html = write_comparison(CompareJob(runs=(first, second), output=tmp_path / "c.html")).read_text()
    assert "no test galaxy in common" in html


def test_runs_of_other_classes_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", ["round", "flat"])
    with pytest.raises(UserError, match="Only runs of the same classes"):
        write_comparison(CompareJob(runs=(runs[0], other), output=tmp_path / "page.html"))
    assert not (tmp_path / "page.html").exists()


def test_ids_of_other_classes_are_pointed_out(page: Path) -> None:
    """Galaxies 6 to 9 are smooth in the first run and featured in the second."""
    assert "4 more ids are in all runs with another true class" in page.read_text()


@pytest.mark.parametrize("output", ["numbers.json", "page", "a directory.html"])
def test_only_a_page_is_written(runs: tuple[Path, Path], tmp_path: Path, output: str) -> None:
    (tmp_path / "a directory.html").mkdir()
    with pytest.raises(UserError, match="ends with .html"):
        write_comparison(CompareJob(runs=runs, output=tmp_path / output))
    assert [path.name for path in tmp_path.iterdir()] == ["a directory.html"]


def test_wrong_classes_are_marked(page: Path) -> None:
    """Galaxy 5 is smooth: right in the first run, wrong in the second."""
    section = page.read_text().partition('<section id="differ">')[2].partition("</section>")[0]
    assert section.count('<span class="wrong">') == 1


def test_unmeasured_run_is_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="classify"):
        write_comparison(CompareJob(runs=(runs[0], tmp_path), output=tmp_path / "page.html"))


def test_names_tell_runs_apart() -> None:
    assert unlike_names([Path("/data/a/run"), Path("/data/b/run")]) == ["a/run", "b/run"]
    assert unlike_names([Path("/data/a"), Path("/data/b")]) == ["a", "b"]
    with pytest.raises(UserError, match="twice"):
        unlike_names([Path("/data/a"), Path("/data/b/../a")])
