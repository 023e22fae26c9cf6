"""The galaxies of a run's test split, what its network says of them, and which of them to show."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

import cv2
import numpy as np
import pyarrow.dataset as ds

from galaxyspark.dream.ascent import Picture
from galaxyspark.dream.goals import DreamNetwork
from galaxyspark.errors import UserError
from galaxyspark.run_directory import RunDirectory
from galaxyspark.views.augment import ViewRecipe, view_pixels
from galaxyspark.views.decode import decode_views
from galaxyspark.views.reading import UnreadableImageError

MOST_GALAXIES = 256
"""Test galaxies to choose from."""


@dataclass(frozen=True)
class JudgedGalaxy:
    """A galaxy of the test split and what the network says of it.

    Attributes:
        galaxy_id: As text.
        label: Its true class.
        picture: View 0.
        predicted: The network's class, by view 0.
        probability: Of that class, 0 to 1.
    """

    galaxy_id: str
    label: str
    picture: Picture
    predicted: str
    probability: float

    @property
    def is_right(self) -> bool:
        """Whether the network's class is the true one."""
        return self.predicted == self.label


def judged_galaxies(run: RunDirectory, network: DreamNetwork) -> list[JudgedGalaxy]:
    """The first ``MOST_GALAXIES`` test galaxies by id, and what the network says of them.

    Raises:
        UserError: The test split is empty.
    """
    directory = run.path("views/split=test")
    views = ds.dataset(directory, format="parquet") if directory.is_dir() else None
    first_views = ds.field("view") == 0
    ids = views.to_table(columns=["galaxy_id"], filter=first_views)["galaxy_id"].to_pylist() if views else []
    if views is None or not ids:
        raise UserError(
            f"{run.place('views')}: the test split is empty. Augment more galaxies, or a larger share of them."
        )
    wanted = first_views & ds.field("galaxy_id").isin(sorted(ids)[:MOST_GALAXIES])
    table = views.to_table(columns=["galaxy_id", "label", "image"], filter=wanted).sort_by("galaxy_id")
    pictures = decode_views(table["image"].to_pylist())
    probabilities = network.runtime(pictures).probabilities
    classes = network.card.classes
    return [
        JudgedGalaxy(galaxy_id, label, picture, classes[of_classes.argmax()], float(of_classes.max()))
        for galaxy_id, label, picture, of_classes in zip(
            table["galaxy_id"].to_pylist(), table["label"].to_pylist(), pictures, probabilities, strict=True
        )
    ]


def galaxy_to_change(galaxies: Sequence[JudgedGalaxy]) -> JudgedGalaxy:
    """The galaxy that the network is surest of, and rightly where it is right at all; of no rare class.

    Rare is what has less than half of an even share: artifacts, which are no galaxies, are.
    """
    num_of_class = Counter(galaxy.label for galaxy in galaxies)
    common = [galaxy for galaxy in galaxies if 2 * len(num_of_class) * num_of_class[galaxy.label] >= len(galaxies)]
    return max(common, key=lambda galaxy: (galaxy.is_right, galaxy.probability, galaxy.galaxy_id))


def right_and_wrong(galaxies: Iterable[JudgedGalaxy], count: int) -> list[JudgedGalaxy]:
    """Galaxies that the network is surest of, up to half of them wrongly; of each true class in turn.

    Args:
        galaxies: To choose from.
        count: How many at most.
    """
    surest = sorted(galaxies, key=lambda galaxy: (-galaxy.probability, galaxy.galaxy_id))
    wrong = _by_class_in_turn(galaxy for galaxy in surest if not galaxy.is_right)[: count // 2]
    return _by_class_in_turn(galaxy for galaxy in surest if galaxy.is_right)[: count - len(wrong)] + wrong


def _by_class_in_turn(galaxies: Iterable[JudgedGalaxy]) -> list[JudgedGalaxy]:
    """The first of every class, then the second, and so on."""
    of_class: dict[str, list[JudgedGalaxy]] = defaultdict(list)
    for galaxy in galaxies:
        of_class[galaxy.label].append(galaxy)
    turns = chain.from_iterable(zip_longest(*(of_class[name] for name in sorted(of_class))))
    return [galaxy for galaxy in turns if galaxy is not None]


def read_picture(flag: str, file: str, recipe: ViewRecipe, size_px: int) -> Picture:
    """The centre of an image as view 0 shows it, of any size.

    Args:
        flag: That names the file, for the message where it cannot be read.
        file: A JPEG, PNG or FITS image.
        recipe: Of the views that the network was trained on.
        size_px: Side of the picture.

    Raises:
        UserError: The file is missing, or not an image that the pipeline reads.
    """
    try:
        (view,) = view_pixels(Path(file).read_bytes(), "", dataclasses.replace(recipe, size_px=size_px), [0])
    except OSError as error:
        raise UserError(f"{flag} {file}: cannot be read ({error.strerror}). Name an image file.") from None
    except UnreadableImageError as problem:
        raise UserError(f"{flag} {file}: {problem}. Name another image.") from None
    return np.ascontiguousarray(view[..., ::-1])


def resized(picture: Picture, size_px: int) -> Picture:
    """A square picture at another size."""
    interpolation = cv2.INTER_CUBIC if size_px > len(picture) else cv2.INTER_AREA
    return cv2.resize(picture, (size_px, size_px), interpolation=interpolation)  # type: ignore[return-value]


def noise(size_px: int, seed: int) -> Picture:
    """Dark noise with blobs of some pixels, from which shapes can grow: single pixels hardly make a network respond."""
    blobs = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(size_px, size_px, 3)), (0, 0), size_px / 56)
    return (30 + 20 * blobs / blobs.std()).clip(0, 255).astype(np.uint8)
