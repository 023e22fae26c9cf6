"""The page against the files of a small run that is written by hand: no Spark, no network."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galaxyspark.classify.metrics import evaluate
from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.splits import SPLITS
from galaxyspark.report import figures, page
from galaxyspark.report.page import duration, rate, write_report
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import ReportJob

CLASSES = ["smooth", "featured", "artifact"]
SCRIPT = "<script>alert(1)</script>"
INPUTS = {"augment": [], "train": ["augment"], "extract": ["augment", "train"], "classify": ["extract"]}
DURATIONS_S = {
    "simulate": 10.0,
    "augment": 64.0,
    "train": 4_000.0,
    "extract": 8.0,
    "classify": 2.5,
    "predict": 20.0,
}
VOID_TAGS = {"meta", "link", "img", "br"}


class PageReader(HTMLParser):
    """What a reader finds on a page.

    Attributes:
        attributes: Every (tag, attribute, value).
        cells: Texts of the cells of each row, by the id of the table.
        section_text: All text by the id of the section, in one piece.
        svg_text: The texts of each SVG figure, in order.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.cells: dict[str, list[list[str]]] = {}
        self.section_text: dict[str, str] = {}
        self.svg_text: list[list[str]] = []
        self.unclosed: list[str] = []
        self._section = self._table = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID_TAGS:
            self.unclosed.append(tag)
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
            self.section_text[self._section] = ""
        elif tag == "table":
            self._table = dict(attrs)["id"] or ""
            self.cells[self._table] = []
        elif tag == "tr":
            self.cells[self._table].append([])
        elif tag in ("td", "th"):
            self.cells[self._table][-1].append("")
        elif tag == "svg":
            self.svg_text.append([])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.unclosed.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._section:
            self.section_text[self._section] += " " + " ".join(data.split())
        if "td" in self.unclosed or "th" in self.unclosed:
            row = self.cells[self._table][-1]
            row[-1] = f"{row[-1]} {' '.join(data.split())}".strip()
        if self.unclosed and self.unclosed[-1] == "text":
            self.svg_text[-1].append(data)


def make_run(root: Path, classes: list[str] = CLASSES, num_epochs: int = 3) -> Path:
    """A finished run; its test split has 10 galaxies of each of the first two classes, none of the third."""
    truth = np.repeat([0, 1], 10)
    write_manifests(root, classes)
    write_metrics(root, classes, truth)
    rows = [
        {
            "epoch": e,
            "step": 9 * e,
            "train_loss": 2 / e,
            "num_galaxies": 20,
            "loss": 1 / e,
            "accuracy": 0.5 + e / 20,
        }
        for e in range(1, num_epochs + 1)
    ]
    (root / "history.jsonl").write_text("".join(json.dumps(row | {"best": True}) + "\n" for row in rows))
    views = [
        {
            "galaxy_id": f"{galaxy:03d}",
            "view": view,
            "label": classes[position],
            "image": jpeg_of(galaxy, view),
        }
        for galaxy, position in enumerate(truth)
        for view in range(16)
    ]
    features = [
        {
            "galaxy_id": row["galaxy_id"],
            "view": row["view"],
            "split": "test",
            "label": row["label"],
            "features": [0.0] * 4,
            "probabilities": [0.1, 0.7 + 0.02 * (row["view"] % 2), 0.2][: len(classes)],
        }
        for row in views
    ]
    write_rows(root / "views" / "split=test", views)
    write_rows(root / "features", features)
    write_rows(root / "quarantine", [{"galaxy_id": "999", "path": f"file:/{SCRIPT}.jpg", "reason": "empty file"}])
    return root


def jpeg_of(galaxy: int, view: int) -> bytes:
    """Stands for an image; the page passes the bytes on as they are."""
    return f"JPEG of galaxy {galaxy}, view {view}".encode()


def write_rows(directory: Path, rows: list[dict[str, Any]]) -> None:
    directory.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), directory / "part-0.parquet")


def write_manifests(root: Path, classes: list[str]) -> None:
    of_class = dict(zip(classes, (6, 2, 0), strict=False))
    counts: dict[str, Any] = {
        "simulate": {"galaxies": 90, "unlabelled": 10},
        "augment": {"images": 25, "galaxies": 24, "quarantined": 1, "views": dict.fromkeys(SPLITS, 128)},
        "extract": {"views": 2_400},
        "predict": {"images": 5, "classified": 4, "quarantined": 1},
    }
    extra: dict[str, Any] = {
        "augment": {"galaxies_by_class": dict.fromkeys(SPLITS, of_class)},
    }
    rates = {"simulate": (10, "galaxies"), "augment": (6, "views"), "train": (57.9, "views"), "extract": (300, "views")}
    rates["predict"] = (0.25, "images")
    for stage, duration_s in DURATIONS_S.items():
        manifest = {
            "stage": stage,
            "id": f"id of {stage}",
            "published": "2026-01-02T03:04:05+00:00",
            "duration_s": duration_s,
            "rate": dict(zip(("per_s", "unit"), rates[stage], strict=True)) if stage in rates else None,
            "inputs": {name: f"id of {name}" for name in INPUTS.get(stage, [])},
            "versions": {"galaxyspark": "0.1.0"},
            "counts": counts.get(stage, {}),
        }
        write_text(root / "manifests" / f"{stage}.json", json.dumps(manifest | extra.get(stage, {})))
        write_text(root / "settings" / f"{stage}.yaml", f"run: {root}\nseed: 7\nimages: {SCRIPT}\n")


def write_metrics(root: Path, classes: list[str], truth: np.ndarray[Any, Any]) -> None:
    """Each classifier has the first 5, 6, 7, ... galaxies wrong."""
    of_split = {}
    for num_wrong, name in enumerate(page.CLASSIFIERS, start=5):
        predicted = truth.copy()
        predicted[:num_wrong] = 1
        of_split[name] = evaluate(truth, np.eye(len(classes))[predicted], classes)
    of_split["cnn_view0"]["against_svm"] = {"difference": -0.05, "p_value": 0.5}
    metrics = {
        "classes": classes,
        "epoch": 2,
        "classifiers": {"svm": COSTS | {"kernel": "rbf", "c": 0.1}, "random_forest": COSTS | {"chosen": "300 trees"}},
        "network": {"seconds_a_view": 0.004},
        "splits": {"test": of_split, "validation": of_split},
    }
    write_text(root / "metrics.json", json.dumps(metrics))


COSTS = {"training_views": 1234, "fit_s": 12.5, "seconds_a_view": 0.0021}


def test_costs_are_told(reader: PageReader) -> None:
    assert reader.cells["table-costs"][1:] == [
        ["CNN", "epoch 2", "", "4.00 ms"],
        ["SVM", "rbf, C 0.1", "12.5 s", "2.10 ms"],
        ["Random forest", "300 trees", "12.5 s", "2.10 ms"],
    ]
    assert "Fitted to 1,234 views" in reader.section_text["classifiers"]


def write_text(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def report_html(root: Path) -> str:
    write_report(ReportJob(run=root))
    return (root / "report" / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def coarse_figures() -> Iterator[None]:
    """PNG files in a tenth of the resolution, which is a hundredth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "_PNG_DPI", 20)
        yield


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_run(tmp_path_factory.mktemp("finished"))
    write_report(ReportJob(run=root))
    return root


@pytest.fixture(scope="module")
def html(finished_run: Path) -> str:
    return (finished_run / "report" / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def reader(html: str) -> PageReader:
    return PageReader(html)


@pytest.mark.parametrize("split", ["test", "validation"])
def test_table_shows_metrics(finished_run: Path, reader: PageReader, split: str) -> None:
    metrics = json.loads((finished_run / "metrics.json").read_text())["splits"][split]
    rows = {row[0]: row[1:] for row in reader.cells[f"table-{split}"][2:]}
    assert len(rows) == len(metrics)
    for name, title in page.CLASSIFIERS.items():
        low, high = metrics[name]["bootstrap"]["accuracy"]
        recalls = ["–" if recall is None else f"{recall:.1%}" for recall in metrics[name]["recall"].values()]
        expected = [
            f"{metrics[name]['accuracy']:.1%}",
            f"{low:.1%} – {high:.1%}",
            f"{metrics[name]['macro_f1']:.3f}",
            f"{metrics[name]['log_loss']:.3f}",
            "-0.050 (p = 0.500)" if name == "cnn_view0" else "",
        ]
        assert rows[title] == expected + recalls
    assert rows[page.CLASSIFIERS["svm_mean16"]][-1] == "–"


def test_headline(reader: PageReader) -> None:
    text = reader.section_text["accuracy"]
    assert "75.0% of 20 test galaxies" in text
    assert re.search(r"67% +of 3,073 galaxies", text)
    assert "Another data set" in text


def test_confusion_figures_show_the_counts(finished_run: Path, reader: PageReader) -> None:
    test = json.loads((finished_run / "metrics.json").read_text())["splits"]["test"]
    expected = [test["cnn_mean16"]["confusion"], test["svm_mean16"]["confusion"], page.ORIGINAL.confusion]
    for texts, confusion in zip(reader.svg_text[:3], expected, strict=True):
        shown = [int(text.replace(",", "")) for text in texts if re.fullmatch(r"[\d,]+", text)]
        assert shown == [count for row in confusion for count in row]


def test_original_pipeline_is_consistent() -> None:
    assert page.ORIGINAL.num_galaxies == 3_073
    assert round(page.ORIGINAL.accuracy, 2) == 0.67


def test_gallery_shows_the_views_of_the_split(reader: PageReader) -> None:
    images = [value for tag, name, value in reader.attributes if (tag, name) == ("img", "src")]
    decoded = [base64.b64decode(image.removeprefix("data:image/jpeg;base64,")).decode() for image in images]
    galaxies = [re.fullmatch(r"JPEG of galaxy (\d+), view (\d)", text) for text in decoded]
    assert [match and int(match[2]) for match in galaxies] == list(range(page.GALLERY_VIEWS)) * 12
    assert len({match and match[1] for match in galaxies}) == 2 * page.GALLERY_GALAXIES
    text = reader.section_text["gallery"]
    assert text.count("network: featured , 0.71 – wrong") == page.GALLERY_GALAXIES
    assert "No galaxy of this class" in text


def test_gallery_keeps_within_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_GALLERY_CHARACTERS", 2_000)
    gallery = page.make_gallery(RunDirectory(make_run(tmp_path)), CLASSES, seed=1)
    assert gallery is not None
    shown = {name: len(galaxies) for name, galaxies in gallery.by_class.items()}
    assert shown == {"smooth": 2, "featured": 2, "artifact": 0}
    assert gallery.num_left_out == 8


def test_times_and_rates(reader: PageReader) -> None:
    rows = {row[0]: row[1:] for row in reader.cells["table-time"][1:]}
    assert rows == {
        "simulate": ["10.0 s", "10 galaxies/s", "–"],
        "augment": ["1 min 4 s", "6 views/s", "–"],
        "train": ["1 h 6 min", "57.9 views/s", "10.5 h"],
        "extract": ["8.0 s", "300 views/s", "about 1 h, with classify"],
        "classify": ["2.5 s", "–", "about 1 h, with extract"],
        "predict": ["20.0 s", "0.25 images/s 4 s an image", "12 s an image"],
    }


def test_shares_and_counts(reader: PageReader) -> None:
    assert reader.cells["table-shares"][1] == ["smooth", *["6 75.0%"] * 3]
    assert "25 images in = 24 galaxies with views + 1 quarantined." in reader.section_text["counts"]
    assert reader.cells["table-quarantine"][1] == ["999", "empty file", f"file:/{SCRIPT}.jpg"]


def test_settings_and_versions(reader: PageReader) -> None:
    text = reader.section_text["settings"]
    assert text.count("seed 7, published 2026-01-02 03:04 UTC") == len(DURATIONS_S)
    assert "galaxyspark 0.1.0" in text


def test_page_needs_nothing_else(finished_run: Path, html: str, reader: PageReader) -> None:
    links = [value for _, name, value in reader.attributes if name in ("src", "href", "xlink:href", "srcset", "data")]
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*['\"]?([^)]*)", html))
    assert "@import" not in html
    assert not {tag for tag, _, _ in reader.attributes} & {"script", "iframe", "object"}
    names = {
        "confusion_cnn_mean16",
        "confusion_svm_mean16",
        "confusion_original",
        "learning_loss",
        "learning_accuracy",
    }
    expected = {"index.html"} | {f"{name}.png" for name in names}
    assert {file.name for file in (finished_run / "report").iterdir()} == expected
    assert (finished_run / "report" / "learning_loss.png").read_bytes().startswith(b"\x89PNG")


def test_page_is_well_formed(html: str, reader: PageReader) -> None:
    assert reader.unclosed == []
    ids = [value for _, name, value in reader.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"var\((--[\w-]+)\)", html)) <= set(re.findall(r"(--[\w-]+):", html))


def test_names_and_paths_are_escaped(tmp_path: Path) -> None:
    html = report_html(make_run(tmp_path, ["smooth & <b>round</b> $x$", SCRIPT]))
    assert SCRIPT not in html
    assert "<b>round" not in html
    reader = PageReader(html)
    assert f"True class: {SCRIPT}" in reader.section_text["gallery"]
    assert SCRIPT in reader.section_text["settings"]
    assert "Original pipeline, other data set" not in reader.section_text["confusion"]


def test_missing_parts_are_named(tmp_path: Path) -> None:
    write_metrics(tmp_path, CLASSES, np.repeat([0, 1], 10))
    write_manifests(tmp_path, CLASSES)
    for stage in set(DURATIONS_S) - {"classify"}:
        (tmp_path / "manifests" / f"{stage}.json").unlink()
    reader = PageReader(report_html(tmp_path))
    for section in ("learning", "classes", "gallery", "counts"):
        assert "Missing: " in reader.section_text[section], section
    assert reader.cells["table-time"][1] == ["simulate", "not in this run", "–"]
    assert len(reader.cells["table-test"]) == 2 + len(page.CLASSIFIERS)


def test_both_objectives_are_shown_when_both_were_trained(tmp_path: Path) -> None:
    file = make_run(tmp_path) / "manifests" / "train.json"
    chosen = {"network": "googlenet", "epoch": 3, "accuracy": 0.8761, "macro_f1": 0.7012, "rmse": None}
    objectives = {"classes": chosen, "votes": chosen | {"network": "resnet18", "rmse": 0.12345}}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"objectives": {"classes": chosen}}))
    assert "table-objectives" not in report_html(tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"objectives": objectives}))
    assert PageReader(report_html(tmp_path)).cells["table-objectives"][1:] == [
        ["classes", "googlenet", "3", "87.6%", "0.701", "–"],
        ["votes", "resnet18", "3", "87.6%", "0.701", "0.1235"],
    ]


def test_one_epoch_empty_quarantine_and_outdated_stage(tmp_path: Path) -> None:
    quarantine = make_run(tmp_path, num_epochs=1) / "quarantine" / "part-0.parquet"
    pq.write_table(pq.read_table(quarantine).slice(0, 0), quarantine)
    manifest = tmp_path / "manifests" / "train.json"
    manifest.write_text(manifest.read_text().replace("id of train", "another id"))
    html = report_html(tmp_path)
    reader = PageReader(html)
    assert reader.cells["table-history"][1] == ["1", "9", "2.000", "1.000", "55.0%"]
    assert not (tmp_path / "report" / "learning_loss.png").exists()
    assert "None: every image has views." in reader.section_text["counts"]
    assert html.count('class="warning"') == 1
    assert "run <code>extract</code> again" in html


def test_many_classes(tmp_path: Path) -> None:
    classes = [f"class {position}" for position in range(50)]
    write_manifests(tmp_path, classes)
    (tmp_path / "manifests" / "augment.json").unlink()
    write_metrics(tmp_path, classes, np.arange(50))
    html = report_html(tmp_path)
    assert len(PageReader(html).cells["table-test"][1]) == 50
    assert len(html) < 1_000_000
    assert "Another data set" not in html  # the original pipeline's, which had other classes


def test_unmeasured_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="classify"):
        write_report(ReportJob(run=tmp_path))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(9.31, "9.3 s"), (59.97, "1 min 0 s"), (112.4, "1 min 52 s"), (37_800, "10 h 30 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("per_second", "text"), [(0.4711, "0.471"), (57.94, "57.9"), (1668.2, "1,668")])
def test_rate(per_second: float, text: str) -> None:
    assert rate(per_second) == text


def test_neither_spark_nor_torch_is_imported() -> None:
    check = "import sys, galaxyspark.report.page; sys.exit(bool({'pyspark', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
