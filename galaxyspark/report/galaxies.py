"""The test galaxies that the page shows: which, their pictures, and what is said of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from galaxyspark.galaxyzoo.tree import VOTE_FIELDS
from galaxyspark.report.pictures import contact_sheet, thumbnail

GALLERY_GALAXIES = 12
"""Most galaxies in a gallery."""

_VIEW_PX = 80
_THUMBNAIL_PX = 40


@dataclass(frozen=True)
class JudgedGalaxies:
    """What is said of every test galaxy, in the order of their ids.

    Attributes:
        classes: Names of the classes.
        ids: As text.
        truth: Positions of the true classes, int64, shape (galaxies,).
        probabilities: The network's, calibrated, the mean of 16 views; 0 to 1, shape (galaxies, classes).
        outlier_scores: Shape (galaxies,); 0 is the median validation galaxy.
        votes, true_votes: The network's and the volunteers', 0 to 1, shape (galaxies, 37); None where not learned.
    """

    classes: tuple[str, ...]
    ids: NDArray[np.str_]
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    outlier_scores: NDArray[np.float64]
    votes: NDArray[np.float32] | None = None
    true_votes: NDArray[np.float32] | None = None

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Positions of the classes that are likeliest."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Their probabilities."""
        return self.probabilities.max(axis=1)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Where they are the true ones."""
        return self.predicted == self.truth

    def said(self, position: int, by: str) -> dict[str, Any]:
        """What is said of one galaxy, and by what, for the page's script."""
        return {
            "by": by,
            "predicted": self.classes[self.predicted[position]],
            "probabilities": self.probabilities[position].round(6).tolist(),
        }


@dataclass(frozen=True)
class Gallery:
    """Galaxies with something in common, as positions among the test galaxies."""

    title: str
    note: str
    positions: list[int]
    shows_score: bool = False


def read_judged_galaxies(predictions: Path, classes: Sequence[str]) -> JudgedGalaxies | None:
    """The test galaxies of predictions.parquet; None where it is not there."""
    if not predictions.is_file():
        return None
    names = ["galaxy_id", "label", "cnn_mean16", "outlier_score", "votes", "true_votes"]
    there = [name for name in names if name in pq.read_schema(predictions).names]
    table = pq.read_table(predictions, columns=there, filters=ds.field("split") == "test").sort_by("galaxy_id")
    return JudgedGalaxies(
        tuple(classes),
        table["galaxy_id"].to_numpy().astype(str),
        pc.index_in(table["label"], pa.array(classes)).to_numpy().astype(np.int64),
        as_block(table["cnn_mean16"]),
        table["outlier_score"].to_numpy(),
        **{name: as_block(table[name]) for name in ("votes", "true_votes") if name in there},
    )


def as_block(lists: pa.ChunkedArray) -> NDArray[Any]:
    """A column of lists of one length as an array (rows, length), without a Python object for each number."""
    return pc.list_flatten(lists).to_numpy().reshape(len(lists), -1)


def choose_galleries(galaxies: JudgedGalaxies, seed: int) -> list[Gallery]:
    """The surest right and wrong, the least sure, the strangest, and some of each class at random."""
    sure, right = galaxies.confidence, galaxies.right
    surest_right = [np.flatnonzero(right & (galaxies.truth == each)) for each in range(len(galaxies.classes))]
    random = np.random.default_rng(seed)
    drawn = [random.permutation(np.flatnonzero(galaxies.truth == each)) for each in range(len(galaxies.classes))]
    return [
        Gallery(
            "Surest and right",
            "The network's class is the true one; of each class in turn.",
            in_turns([_first(found, -sure) for found in surest_right]),
        ),
        Gallery(
            "Surest and wrong",
            "Mistakes that the network is surest of; or the volunteers' own.",
            _first(np.flatnonzero(~right), -sure),
        ),
        Gallery("Least sure", "Likeliest to be decided otherwise.", _first(np.arange(len(sure)), sure)),
        Gallery(
            "Strangest",
            "The most unlikely features, whatever the class: by outlier score, in robust standard deviations.",
            _first(np.arange(len(sure)), -galaxies.outlier_scores),
            shows_score=True,
        ),
        Gallery("At random", "Drawn from each true class in turn.", in_turns([each.tolist() for each in drawn])),
    ]


def _first(positions: NDArray[np.int64], by: NDArray[np.float64]) -> list[int]:
    """Those with the smallest value of ``by``, as many as a gallery has."""
    return positions[np.argsort(by[positions], kind="stable")[:GALLERY_GALAXIES]].tolist()


def in_turns(lists: Iterable[Sequence[int]]) -> list[int]:
    """The first of each list, then the second of each, ..., as many as a gallery has."""
    lists = list(lists)
    rounds = range(max(map(len, lists), default=0))
    return [each[turn] for turn in rounds for each in lists if turn < len(each)][:GALLERY_GALAXIES]


def describe(
    galaxies: JudgedGalaxies, in_galleries: Iterable[int], on_map: Iterable[int], views: Path
) -> dict[str, dict[str, Any]]:
    """What a click on a galaxy shows, by its id.

    Args:
        galaxies: All of them.
        in_galleries: Positions of those whose 16 views are shown,
        on_map: and of those that have a small picture only.
        views: The views of the test split, Parquet; may be missing.
    """
    wanted, small = set(in_galleries), set(on_map)
    pictures = read_pictures(views, galaxies.ids[sorted(wanted)], galaxies.ids[sorted(small - wanted)])
    described = {}
    for position in sorted(wanted | small):
        galaxy_id = str(galaxies.ids[position])
        described[galaxy_id] = {
            "label": galaxies.classes[galaxies.truth[position]],
            "said": [galaxies.said(position, "Network")],
            "outlier_score": round(score, 2)
            if math.isfinite(score := float(galaxies.outlier_scores[position]))
            else None,
            **pictures.get(galaxy_id, {"picture": "", "views": "", "votes": None}),
        }
        if galaxies.votes is not None and galaxies.true_votes is not None:
            described[galaxy_id]["votes"] = _rounded(galaxies.true_votes[position])
            described[galaxy_id]["network_votes"] = _rounded(galaxies.votes[position])
    return described


def _rounded(shares: NDArray[np.float32]) -> list[float]:
    """Shares as JSON has them in few letters; rounded in float32 they would have 17 digits."""
    return shares.astype(np.float64).round(3).tolist()


def read_pictures(
    views: Path, with_all_views: NDArray[np.str_], with_view0: NDArray[np.str_]
) -> dict[str, dict[str, Any]]:
    """By id ``picture``, view 0, ``views``, all of them (or empty), as data URIs; and the volunteers' ``votes``."""
    if not views.is_dir():
        return {}
    of_galaxy: dict[str, dict[int, bytes]] = {}
    votes: dict[str, list[float] | None] = {}
    wanted = ds.field("galaxy_id").isin(with_all_views)
    wanted |= (ds.field("view") == 0) & ds.field("galaxy_id").isin(with_view0)
    dataset = ds.dataset(views, format="parquet")
    fields = [field for field in VOTE_FIELDS.values() if field in dataset.schema.names]
    for batch in dataset.to_batches(columns=["galaxy_id", "view", "image", *fields], filter=wanted, batch_size=256):
        for row in batch.to_pylist():
            of_galaxy.setdefault(row["galaxy_id"], {})[row["view"]] = row["image"]
            shares = [row[field] for field in fields]
            votes[row["galaxy_id"]] = [round(each, 3) for each in shares] if shares and None not in shares else None
    large = set(with_all_views.tolist())
    return {
        galaxy_id: _pictures(images, galaxy_id in large, votes[galaxy_id]) for galaxy_id, images in of_galaxy.items()
    }


def _pictures(images: Mapping[int, bytes], large: bool, votes: list[float] | None) -> dict[str, Any]:
    sheet = contact_sheet([images[view] for view in sorted(images)], _VIEW_PX) if large else ""
    return {"picture": thumbnail(images[0], 2 * _VIEW_PX if large else _THUMBNAIL_PX), "views": sheet, "votes": votes}
