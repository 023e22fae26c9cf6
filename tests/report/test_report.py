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

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from galaxyspark.errors import UserError
from galaxyspark.network.progress import Progress, write_progress
from galaxyspark.report import drawing
from galaxyspark.report.original import ORIGINAL
from galaxyspark.report.page import write_report
from galaxyspark.report.wording import duration, rate
from galaxyspark.settings import ReportJob, TrainJob
from galaxyspark.summary import CLASSIFIERS
from tests.report.handmade import (
    CLASSES,
    DURATIONS_S,
    SCRIPT,
    galaxy_id_of,
    make_run,
    write_manifests,
    write_metrics,
    write_rows,
)

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
            self._table = dict(attrs).get("id") or ""
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


def test_costs_are_told(reader: PageReader) -> None:
    assert reader.cells["table-costs"][1:] == [
        ["CNN", "epoch 2", "", "4.00 ms"],
        ["SVM", "rbf, C 0.1", "12.5 s", "2.10 ms"],
        ["Random forest", "300 trees", "12.5 s", "2.10 ms"],
    ]
    assert "Fitted to 1,234 views" in reader.section_text["classifiers"]


def report_html(root: Path) -> str:
    write_report(ReportJob(run=root))
    return (root / "report" / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def coarse_figures() -> Iterator[None]:
    """PNG files in a tenth of the resolution, which is a hundredth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "_PNG_DPI", 20)
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
    for name, title in CLASSIFIERS.items():
        low, high = metrics[name]["accuracy_interval"]
        recalls = ["–" if recall is None else f"{recall:.1%}" for recall in metrics[name]["recall"].values()]
        expected = [
            f"{metrics[name]['accuracy']:.1%}",
            f"{low:.1%} – {high:.1%}",
            f"{metrics[name]['macro_f1']:.3f}",
            f"{metrics[name]['log_loss']:.3f}",
            "−5.0 (p = 0.500)" if name == "cnn_view0" else "",
        ]
        assert rows[title] == expected + recalls
    assert rows[CLASSIFIERS["svm_mean16"]][-1] == "–"


def test_headline(reader: PageReader) -> None:
    text = reader.section_text["accuracy"]
    assert "75.0% of 20 test galaxies" in text
    assert re.search(r"67% +of 3,073 galaxies", text)
    assert "Another data set" in text


def test_confusion_figures_show_the_counts(finished_run: Path, reader: PageReader) -> None:
    test = json.loads((finished_run / "metrics.json").read_text())["splits"]["test"]
    expected = [test["cnn_mean16"]["confusion"], test["svm_mean16"]["confusion"], ORIGINAL.confusion]
    expected.append(test["cnn_view0"]["confusion"])
    for texts, confusion in zip(reader.svg_text[:4], expected, strict=True):
        shown = [int(text.replace(",", "")) for text in texts if re.fullmatch(r"[\d,]+", text)]
        assert shown == [count for row in confusion for count in row]


def test_original_pipeline_is_consistent() -> None:
    assert ORIGINAL.num_galaxies == 3_073
    assert round(ORIGINAL.accuracy, 2) == 0.67


def test_galleries_hold_the_galaxies_they_say(finished_run: Path) -> None:
    """Galaxies 0 to 4 are wrong; the later, the surer and the stranger."""
    galleries = json.loads((finished_run / "report" / "numbers.json").read_text())["galleries"]
    smooth, featured = (
        [galaxy_id_of(position) for position in positions] for positions in (range(9, 4, -1), range(19, 9, -1))
    )
    assert galleries["Surest and right"] == [
        *(galaxy_id for pair in zip(smooth, featured[:5], strict=True) for galaxy_id in pair),
        *featured[5:7],
    ]
    assert galleries["Surest and wrong"] == [galaxy_id_of(position) for position in (4, 3, 2, 1, 0)]
    assert galleries["Least sure"] == [galaxy_id_of(position) for position in range(12)]
    assert galleries["Strangest"] == [galaxy_id_of(position) for position in range(19, 7, -1)]
    assert len(set(galleries["At random"])) == 12


def test_pictures_are_those_of_the_galaxies(html: str) -> None:
    """Each view of galaxy g has green 5 g and blue 16 times its number; a sheet has view 0 in the upper left."""
    facts = facts_of(html)["galaxies"]
    for position in range(20):
        galaxy = facts[galaxy_id_of(position)]
        assert decoded(galaxy["picture"])[20, 20] == pytest.approx([0, 5 * position, 128], abs=6)
        sheet = decoded(galaxy["views"])
        assert sheet.shape == (4 * 48, 4 * 48, 3)
        for view in range(16):
            pixel = sheet[48 * (view // 4) + 24, 48 * (view % 4) + 24]
            assert pixel == pytest.approx([16 * view, 5 * position, 128], abs=6)
        assert galaxy["votes"] == [0.25] * 37


def facts_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="facts">(.*?)</script>', html, re.S)
    assert found
    return json.loads(found[1])


def decoded(uri: str) -> np.ndarray[Any, Any]:
    content = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def test_map_puts_like_features_together(finished_run: Path) -> None:
    """The features of the two classes are 5 standard deviations apart in each of 8 directions."""
    numbers = json.loads((finished_run / "report" / "numbers.json").read_text())
    places = np.array([numbers["map"][galaxy_id_of(position)] for position in range(20)])
    apart = np.linalg.norm(places[:, None] - places[None], axis=2) + np.diag([np.inf] * 20)
    assert (apart.argmin(axis=1) // 10 == np.arange(20) // 10).all()


def test_numbers_are_those_of_the_metrics(finished_run: Path) -> None:
    numbers = json.loads((finished_run / "report" / "numbers.json").read_text())
    assert numbers["metrics"] == json.loads((finished_run / "metrics.json").read_text())
    assert numbers["counts"]["augment"]["images"] == 25
    assert [stage["stage"] for stage in numbers["stages"] if stage["duration_s"]] == list(DURATIONS_S)


def test_classes_table(finished_run: Path, reader: PageReader) -> None:
    """5 smooth galaxies are taken for featured, none the other way round; no artifact is there."""
    assert reader.cells["table-classes"][2][:5] == ["smooth", "10", "100.0%", "50.0%", f"{2 / 3:.3f}"]
    assert reader.cells["table-classes"][3][:5] == ["featured", "10", f"{10 / 15:.1%}", "100.0%", "0.800"]
    assert reader.cells["table-classes"][4][:5] == ["artifact", "0", "–", "–", "–"]


def test_votes_are_offered_to_be_learned_where_the_labels_have_them(finished_run: Path, tmp_path: Path) -> None:
    with_votes = PageReader((finished_run / "report" / "index.html").read_text()).section_text["votes"]
    settings = finished_run / "settings" / "train.yaml"
    assert f"./submit.sh train --config {settings} --objective votes --run {finished_run} learns" in with_votes
    make_run(tmp_path)
    file = tmp_path / "manifests" / "augment.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"label_rule": None}))
    without = PageReader(report_html(tmp_path)).section_text["votes"]
    assert "The labels have no votes to learn." in without
    assert "--objective votes" not in without


def test_what_cut_training_short_is_said(tmp_path: Path, reader: PageReader) -> None:
    assert "Training was ended" not in reader.section_text["learning"]
    make_run(tmp_path, num_epochs=1)
    file = tmp_path / "manifests" / "train.json"
    training = {"steps": 145, "asked_steps": 12_690, "settings": {"epochs": 30}}
    manifest = json.loads(file.read_text()) | {"cut_short_by": "--max-minutes 2", "training": training}
    file.write_text(json.dumps(manifest))
    text = PageReader(report_html(tmp_path)).section_text["learning"]
    assert "Training was ended by --max-minutes 2 after 145 of the 12,690 steps of 30 epochs." in text
    assert "The network was validated once, so there is no curve to draw." in text


def test_votes_are_drawn_where_they_were_learned(tmp_path: Path, reader: PageReader) -> None:
    assert "The network has learned classes, not votes" in reader.section_text["votes"]
    html = report_html(make_run(tmp_path, votes=True))
    text = PageReader(html).section_text["votes"]
    assert "by 0.123 (root mean squared error over all 37 answers" in text
    for number in range(1, 12):
        assert f"RMSE {number / 100:.3f}" in html
    for name in ("votes_tree.svg", "votes_tree.png", "votes_scatter.svg", "votes_scatter.png"):
        assert (tmp_path / "report" / name).stat().st_size > 1_000
    assert len(facts_of(html)["galaxies"]["0000"]["network_votes"]) == 37


def test_dreams_are_shown_with_what_they_are(tmp_path: Path) -> None:
    dreams = make_run(tmp_path) / "dreams"
    dreams.mkdir()
    Image.new("RGB", (64, 64), "red").save(dreams / "a.png")
    Image.new("RGB", (800, 400), "blue").save(dreams / "b.png")
    response = {"before": 0.12345, "after": 6.789}
    judged = {
        "layer": "conv3",
        "galaxy_id": SCRIPT,
        "true_class": "smooth",
        "predicted_class": "odd",
        "probability": 0.9,
    }
    records = [
        {"file": "a.png", "kind": "start", "start": "noise", "galaxy_id": None},
        {"file": "a.png", "kind": "layer", "layer": "conv1", "start": "noise", "galaxy_id": None} | response,
        {"file": "a.png", "kind": "class", "class": SCRIPT, "start": "galaxy", "galaxy_id": "7"} | response,
        {"file": "b.png", "kind": "attention"} | judged,
    ]
    (dreams / "dreams.json").write_text(json.dumps(records))
    html = report_html(tmp_path)
    text = " ".join(PageReader(html).section_text["dreams"].split())
    assert "What its layers respond to, from shallow to deep, beginning with noise the beginning noise conv1" in text
    assert "conv1 0.123 before, 6.79 after" in text
    assert "What a class looks like to it, beginning with galaxy 7" in text
    assert "(Grad-CAM of conv3)" in text
    assert f"{SCRIPT} odd, 90% uncalibrated (wrong: it is smooth)" in text
    assert SCRIPT not in html
    section = html[html.index('<section id="dreams">') : html.index('<section id="views">')]
    images = [decoded(uri) for uri in re.findall(r'src="([^"]+)"', section)]
    assert [image.shape for image in images] == [(64, 64, 3)] * 3 + [(200, 400, 3)]
    assert [image[9, 9].tolist() for image in images] == [[0, 0, 254]] * 3 + [[254, 0, 0]]


def test_quarantined_images_are_shown_as_far_as_they_can_be(tmp_path: Path) -> None:
    make_run(tmp_path)
    Image.new("CMYK", (30, 20)).save(tmp_path / "a cmyk #1.jpg")
    (tmp_path / "cut off.jpg").write_bytes((tmp_path / "a cmyk #1.jpg").read_bytes()[:100])
    (tmp_path / "quarantine" / "part-0.parquet").unlink()
    (tmp_path / "quarantine").rmdir()
    names = ["a cmyk #1.jpg", "cut off.jpg", "gone.jpg", "%20.jpg"]
    Image.new("L", (30, 20)).save(tmp_path / "%20.jpg")
    rows = [
        {"galaxy_id": str(number), "path": f"file:{tmp_path / name}", "reason": "why"}  # as Spark writes it
        for number, name in enumerate(names)
    ]
    write_rows(tmp_path / "quarantine", rows)
    shown = [row[0] for row in PageReader(report_html(tmp_path)).cells["table-quarantine"][1:]]
    assert shown == ["", "none", "none", ""]


def test_every_reason_of_the_quarantine_has_its_examples(tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / "quarantine" / "part-0.parquet").unlink()
    (tmp_path / "quarantine").rmdir()
    rows = [{"galaxy_id": f"{number:03d}", "path": "p", "reason": "left out"} for number in range(50)]
    write_rows(tmp_path / "quarantine", [*rows, {"galaxy_id": "999", "path": "p", "reason": "truncated image"}])
    shown = PageReader(report_html(tmp_path)).cells["table-quarantine"][1:]
    assert [row[1:3] for row in shown] == [[f"{n:03d}", "left out"] for n in range(6)] + [["999", "truncated image"]]


def test_times_and_rates(reader: PageReader) -> None:
    rows = {row[0]: row[1:] for row in reader.cells["table-time"][1:]}
    assert rows == {
        "simulate": ["10.0 s", "10 galaxies/s", "10", "0.1", "–"],
        "augment": ["1 min 4 s", "6 views/s", "0.375", "2.67", "–"],
        "train": ["1 h 6 min", "57.9 views/s", "–", "–", "10.5 h"],
        "extract": ["8.0 s", "300 views/s", "3", "0.333", "about 1 h, with classify"],
        "classify": ["2.5 s", "–", "–", "–", "about 1 h, with extract"],
        "predict": ["20.0 s", "0.25 images/s", "0.25", "4", "12 s an image"],
    } | {"dream": ["not in this run", "–"]}


def test_shares_and_counts(reader: PageReader) -> None:
    assert reader.cells["table-shares"][1] == ["smooth", *["6 75.0%"] * 3, "18 75.0%"]
    assert reader.cells["table-shares"][4] == ["All", *["8 33.3%"] * 3, "24"]
    assert "25 images in = 24 galaxies with views + 1 quarantined." in reader.section_text["counts"]
    assert reader.cells["table-quarantine"][1] == ["none", "999", "empty file", f"file:/{SCRIPT}.jpg"]


def test_settings_and_versions(reader: PageReader) -> None:
    text = reader.section_text["settings"]
    assert text.count("seed 7, published 2026-01-02 03:04 UTC") == len(DURATIONS_S)
    assert "galaxyspark 0.1.0" in text


def test_page_needs_nothing_else(finished_run: Path, reader: PageReader) -> None:
    """That it asks for nothing when it is open, the browser's tests see."""
    links = [value for _, name, value in reader.attributes if name in ("src", "href", "xlink:href", "srcset", "data")]
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not {tag for tag, _, _ in reader.attributes} & {"iframe", "object"}
    names = {"confusion_cnn_mean16", "confusion_svm_mean16", "confusion_cnn_view0", "confusion_original"}
    names |= {"learning_loss", "learning_accuracy", "reliability", "share_classified", "map"}
    expected = {"index.html", "numbers.json"} | {f"{name}{ending}" for name in names for ending in (".png", ".svg")}
    assert {file.name for file in (finished_run / "report").iterdir()} == expected
    assert (finished_run / "report" / "learning_loss.png").read_bytes().startswith(b"\x89PNG")
    assert "var(--" not in (finished_run / "report" / "learning_loss.svg").read_text()


def test_page_is_well_formed(html: str, reader: PageReader) -> None:
    assert reader.unclosed == []
    ids = [value for _, name, value in reader.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    own = html[: html.index("<script>/**")] + html[html.rindex("<script>") :]  # without Plotly's
    assert set(re.findall(r"var\((--[\w-]+)\)", own)) <= set(re.findall(r"(--[\w-]+):", own))


def test_names_and_paths_are_escaped(tmp_path: Path) -> None:
    html = report_html(make_run(tmp_path, ["smooth & <b>round</b> $x$", SCRIPT]))
    assert SCRIPT not in html
    assert "<b>round" not in html
    reader = PageReader(html)
    assert SCRIPT in reader.section_text["gallery"]
    assert SCRIPT in reader.section_text["settings"]
    assert "Original pipeline, other data set" not in reader.section_text["confusion"]


def test_missing_parts_are_named(tmp_path: Path) -> None:
    write_metrics(tmp_path, CLASSES, np.repeat([0, 1], 10))
    write_manifests(tmp_path, CLASSES)
    for stage in set(DURATIONS_S) - {"classify"}:
        (tmp_path / "manifests" / f"{stage}.json").unlink()
    reader = PageReader(report_html(tmp_path))
    for section in ("learning", "classes", "gallery", "map", "dreams", "views", "counts"):
        assert "Missing: " in reader.section_text[section], section
    assert reader.cells["table-time"][1] == ["simulate", "not in this run", "–"]
    assert len(reader.cells["table-test"]) == 2 + len(CLASSIFIERS)


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
    assert reader.cells["table-history"][1] == ["1 (chosen)", "9", "2.000", "1.000", "55.0%"]
    assert not (tmp_path / "report" / "learning_loss.png").exists()
    assert "None: every image has views." in reader.section_text["counts"]
    assert html.count('class="warning"') == 1
    assert "run <code>extract</code> again" in html


def test_many_classes(tmp_path: Path) -> None:
    classes = [f"class {position}" for position in range(50)]
    html = report_html(make_run(tmp_path, classes))
    assert len(PageReader(html).cells["table-test"][1]) == 50
    markers = [trace["marker"] for trace in facts_of(html)["map"]["data"]]
    dots = {(marker["color"], marker["symbol"]) for marker in markers if marker["symbol"] != "x"}
    assert len(dots) == 7 * 6  # colours come again with other symbols
    assert len(html) < 7_000_000
    assert "Another data set" not in html  # the original pipeline's, which had other classes


def test_a_run_stopped_in_training_shows_what_there_is(tmp_path: Path) -> None:
    """Three epochs are over; nothing of training has been published."""
    make_run(tmp_path)
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    for stage in ("train", "extract", "classify", "predict"):
        (tmp_path / "manifests" / f"{stage}.json").unlink()
    for name in ("history.jsonl", "metrics.json", "predictions.parquet"):
        (tmp_path / name).unlink()
    progress = Progress("id of augment", False, 27, 9, 270, history)
    write_progress(tmp_path / "checkpoints", progress, TrainJob(run=tmp_path))
    reader = PageReader(report_html(tmp_path))
    assert "Training has not ended: epoch 3 of 30, step 27 of 270." in reader.section_text["learning"]
    assert [row[0] for row in reader.cells["table-history"][1:]] == ["1", "2 (chosen)", "3"]
    assert (tmp_path / "report" / "learning_loss.svg").is_file()
    for section in (
        "accuracy",
        "classifiers",
        "confusion",
        "classes",
        "confidence",
        "votes",
        "gallery",
        "map",
        "dreams",
    ):
        assert "Missing: " in reader.section_text[section], section
    assert "25 images in = 24 galaxies with views + 1 quarantined." in reader.section_text["counts"]
    assert reader.cells["table-shares"][1][0] == "smooth"


def test_a_trained_run_without_an_svm_yet_shows_its_validation(tmp_path: Path) -> None:
    make_run(tmp_path)
    for stage in ("classify", "predict"):
        (tmp_path / "manifests" / f"{stage}.json").unlink()
    file = tmp_path / "manifests" / "train.json"
    chosen = {"epoch": 2, "accuracy": 0.8432, "num_galaxies": 1_234}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"training": {"chosen": chosen}}))
    text = PageReader(report_html(tmp_path)).section_text["accuracy"]
    assert "Not measured yet" in text
    assert "right on 84.3% of 1,234 validation galaxies, by view 0 (epoch 2" in text


def test_progress_of_other_views_or_of_an_ended_training_is_none(tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / "history.jsonl").unlink()
    for progress in (Progress("id of augment", True, 27, 9, 27, []), Progress("others", False, 27, 9, 270, [])):
        write_progress(tmp_path / "checkpoints", progress, TrainJob(run=tmp_path))
        assert "Training has not ended" not in PageReader(report_html(tmp_path)).section_text["learning"]


def test_what_an_older_version_wrote_or_what_is_gone_leaves_the_rest(tmp_path: Path) -> None:
    metrics = make_run(tmp_path) / "metrics.json"
    metrics.write_text('{"splits": {"test": {"svm_mean16": {}}}}')
    (tmp_path / "settings" / "train.yaml").unlink()
    (tmp_path / "preview.png").write_text("no picture")
    manifest = tmp_path / "manifests" / "extract.json"
    content = {
        name: value for name, value in json.loads(manifest.read_text()).items() if name not in ("rate", "versions")
    }
    manifest.write_text(json.dumps(content))
    reader = PageReader(report_html(tmp_path))
    assert "of an older version" in reader.section_text["accuracy"]
    assert "Missing: preview.png" in reader.section_text["views"]
    assert "25 images in" in reader.section_text["counts"]
    metrics.unlink()
    assert "metrics.json: is missing" in PageReader(report_html(tmp_path)).section_text["accuracy"]


def test_features_that_are_all_the_same_make_no_map(tmp_path: Path) -> None:
    file = make_run(tmp_path) / "features" / "part-0.parquet"
    table = pq.read_table(file)
    same = pa.array([[1.0] * 8] * len(table), table["features"].type)
    pq.write_table(table.set_column(table.schema.get_field_index("features"), "features", same), file)
    assert "Missing: " in PageReader(report_html(tmp_path)).section_text["map"]


def test_names_that_matplotlib_would_hide_or_that_look_like_colours(tmp_path: Path) -> None:
    classes = ["_hidden", "b: #1c2128"]
    html = report_html(make_run(tmp_path, classes))
    assert "b: #1c2128" in PageReader(html).svg_text[0]
    assert " _hidden" in (tmp_path / "report" / "map.svg").read_text()


def test_an_empty_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing is published there yet"):
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
    check = "import sys, galaxyspark.report.comparison; sys.exit(bool({'pyspark', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
