"""Simulated galaxies: repeatable, true to the decision tree, and showing what their votes say."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from galaxyspark.galaxyzoo.simulation import (
    ARTIFACT_SHARE,
    IMAGE_SIZE_PX,
    KIND_SHARES,
    SimulatedGalaxy,
    encode_jpeg,
    galaxy_ids,
    simulate_galaxy,
)
from galaxyspark.galaxyzoo.simulation.population import draw_scene
from galaxyspark.galaxyzoo.simulation.volunteers import draw_votes
from galaxyspark.galaxyzoo.tree import VOTE_COLUMNS

SEED = 20140404

# The challenge's sums, written out by hand: the first columns add up to the second (no second: to 1).
SUMS = [
    (["1.1", "1.2", "1.3"], []),
    (["2.1", "2.2"], ["1.2"]),
    (["3.1", "3.2"], ["2.2"]),
    (["4.1", "4.2"], ["2.2"]),
    (["5.1", "5.2", "5.3", "5.4"], ["2.2"]),
    (["6.1", "6.2"], []),
    (["7.1", "7.2", "7.3"], ["1.1"]),
    (["8.1", "8.2", "8.3", "8.4", "8.5", "8.6", "8.7"], ["6.1"]),
    (["9.1", "9.2", "9.3"], ["2.1"]),
    (["10.1", "10.2", "10.3"], ["4.1"]),
    (["11.1", "11.2", "11.3", "11.4", "11.5", "11.6"], ["4.1"]),
]


@pytest.fixture(scope="module")
def sample() -> list[SimulatedGalaxy]:
    return [simulate_galaxy(galaxy_id, SEED) for galaxy_id in galaxy_ids(300, SEED)]


def vote(galaxy: SimulatedGalaxy, answer: str) -> float:
    return float(galaxy.votes[VOTE_COLUMNS.index(f"Class{answer}")])


def of_kind(sample: list[SimulatedGalaxy], *kinds: str) -> list[SimulatedGalaxy]:
    return [galaxy for galaxy in sample if galaxy.kind in kinds]


def measured_axis_ratio(image: NDArray[np.uint8], radius_px: int = 80) -> float:
    """Minor over major axis from the second moments of the light around the centre, above the sky."""
    centre = slice(IMAGE_SIZE_PX // 2 - radius_px, IMAGE_SIZE_PX // 2 + radius_px)
    light = np.clip(image[centre, centre].sum(axis=2, dtype=float) - 60.0, 0.0, None)
    y, x = np.indices(light.shape) - (radius_px - 0.5)
    light[np.hypot(x, y) > radius_px] = 0.0
    moments = np.array([[(light * x * x).sum(), (light * x * y).sum()], [(light * x * y).sum(), (light * y * y).sum()]])
    minor, major = np.linalg.eigvalsh(moments)
    return float(np.sqrt(minor / major))


def red_over_blue(image: NDArray[np.uint8], radius_px: int = 60) -> float:
    """Ratio of red to blue light of the galaxy in the middle."""
    centre = slice(IMAGE_SIZE_PX // 2 - radius_px, IMAGE_SIZE_PX // 2 + radius_px)
    red, _, blue = image[centre, centre].reshape(-1, 3).sum(axis=0, dtype=float)
    return float(red / blue)


def test_frame_has_the_challenges_form() -> None:
    galaxy = simulate_galaxy("100008", SEED)

    assert galaxy.image.shape == (424, 424, 3) and galaxy.image.dtype == np.uint8
    assert galaxy.votes.shape == (37,) and galaxy.votes.dtype == np.float64


def test_same_id_and_seed_give_the_same_galaxy() -> None:
    first, second = simulate_galaxy("100008", SEED), simulate_galaxy("100008", SEED)

    assert first.image.tobytes() == second.image.tobytes()
    assert first.votes.tobytes() == second.votes.tobytes()
    assert first.kind == second.kind


def test_galaxy_does_not_depend_on_those_made_before() -> None:
    alone = simulate_galaxy("555555", SEED)
    np.random.seed(1)
    simulate_galaxy("444444", SEED)

    assert simulate_galaxy("555555", SEED).image.tobytes() == alone.image.tobytes()


@pytest.mark.parametrize(("galaxy_id", "seed"), [("100009", SEED), ("100008", SEED + 1)])
def test_another_id_or_seed_gives_another_galaxy(galaxy_id: str, seed: int) -> None:
    assert simulate_galaxy(galaxy_id, seed).image.tobytes() != simulate_galaxy("100008", SEED).image.tobytes()


def test_every_kind_is_drawn_as_often_as_stated() -> None:
    rng = np.random.default_rng(SEED)
    drawn = Counter(draw_scene(rng).galaxy.kind for _ in range(2500))

    assert set(drawn) == set(KIND_SHARES)
    for kind, share in KIND_SHARES.items():
        assert drawn[kind] == pytest.approx(2500 * share, abs=4.0 * np.sqrt(2500 * share))


def test_kind_shares_add_up_and_hold_the_artifact_share() -> None:
    artifacts = sum(KIND_SHARES[kind] for kind in ("star", "satellite trail", "frame edge"))

    assert sum(KIND_SHARES.values()) == pytest.approx(1.0)
    assert artifacts == pytest.approx(ARTIFACT_SHARE)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**63))
def test_votes_obey_the_challenges_sums(seed: int) -> None:
    rng = np.random.default_rng(seed)
    votes = dict(zip(VOTE_COLUMNS, draw_votes(draw_scene(rng), rng), strict=True))

    assert all(0.0 <= share <= 1.0 for share in votes.values())
    for answers, asked_after in SUMS:
        asked = sum(votes[f"Class{answer}"] for answer in asked_after) if asked_after else 1.0
        assert sum(votes[f"Class{answer}"] for answer in answers) == pytest.approx(asked, abs=1e-9)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(number=st.integers(100_000, 999_999), seed=st.integers(0, 2**31))
def test_any_six_digit_id_can_be_simulated(number: int, seed: int) -> None:
    galaxy = simulate_galaxy(str(number), seed)

    assert galaxy.image.max() > 20
    assert galaxy.kind in KIND_SHARES
    assert galaxy.votes[:3].sum() == pytest.approx(1.0)


def test_majority_classes_come_in_the_stated_mix(sample: list[SimulatedGalaxy]) -> None:
    smooth, featured, artifact = np.bincount([galaxy.votes[:3].argmax() for galaxy in sample], minlength=3) / len(
        sample
    )

    assert smooth == pytest.approx(0.45, abs=0.07)
    assert featured == pytest.approx(0.51, abs=0.07)
    assert artifact == pytest.approx(ARTIFACT_SHARE, abs=0.025)


def test_panels_disagree_within_themselves(sample: list[SimulatedGalaxy]) -> None:
    winning = np.array([galaxy.votes[:3].max() for galaxy in sample])

    assert np.mean(winning < 1.0) > 0.7
    assert 0.02 < np.mean(winning < 0.55) < 0.15


def test_ellipticals_called_cigars_are_elongated(sample: list[SimulatedGalaxy]) -> None:
    ellipticals = of_kind(sample, "elliptical")
    cigars = [measured_axis_ratio(g.image) for g in ellipticals if vote(g, "7.3") > 0.5]
    rounds = [measured_axis_ratio(g.image) for g in ellipticals if vote(g, "7.1") > 0.5]

    assert len(cigars) >= 5 and len(rounds) >= 5
    assert np.median(cigars) < 0.6
    assert np.median(rounds) > 0.85


def test_edge_on_disks_are_thin(sample: list[SimulatedGalaxy]) -> None:
    assert np.median([measured_axis_ratio(galaxy.image) for galaxy in of_kind(sample, "edge-on")]) < 0.45


def test_ellipticals_are_redder_than_spirals(sample: list[SimulatedGalaxy]) -> None:
    ellipticals = [red_over_blue(galaxy.image) for galaxy in of_kind(sample, "elliptical")]
    spirals = [red_over_blue(galaxy.image) for galaxy in of_kind(sample, "spiral", "barred spiral")]

    assert np.median(ellipticals) > 1.15 * np.median(spirals)
    assert np.median(ellipticals) > 1.2


def test_galaxy_lies_in_the_middle_of_a_dark_sky(sample: list[SimulatedGalaxy]) -> None:
    for galaxy in of_kind(sample[:80], "elliptical", "spiral", "edge-on"):
        assert galaxy.image[202:222, 202:222].mean() > np.median(galaxy.image) + 20.0
        assert np.median(galaxy.image) < 20.0


def test_spiked_star_saturates(sample: list[SimulatedGalaxy]) -> None:
    stars = of_kind(sample, "star")

    assert stars
    for star in stars:
        assert np.count_nonzero(star.image.min(axis=2) >= 250) > 30
        assert vote(star, "1.3") > 0.5


def test_frame_edge_leaves_a_black_region(sample: list[SimulatedGalaxy]) -> None:
    edges = of_kind(sample, "frame edge")

    assert edges
    for edge in edges:
        sides = [edge.image[:30], edge.image[-30:], edge.image[:, :30], edge.image[:, -30:]]
        assert sum(np.mean(side.max(axis=2) == 0) > 0.75 for side in sides) >= 1


def test_satellite_trail_has_one_colour(sample: list[SimulatedGalaxy]) -> None:
    trails = of_kind(sample, "satellite trail")

    assert trails
    for trail in trails:
        _, second, brightest = np.moveaxis(np.sort(trail.image.astype(int), axis=2), 2, 0)
        assert np.count_nonzero(brightest - second > 30) > IMAGE_SIZE_PX // 4


def test_pil_reads_the_jpeg_with_red_green_and_blue_in_place() -> None:
    stripes = np.zeros((48, 96, 3), dtype=np.uint8)
    stripes[:, :32, 0], stripes[:, 32:64, 1], stripes[:, 64:, 2] = 250, 200, 150

    decoded = np.asarray(Image.open(io.BytesIO(encode_jpeg(stripes))))

    assert decoded.shape == stripes.shape
    for column, colour in ((16, (250, 0, 0)), (48, (0, 200, 0)), (80, (0, 0, 150))):
        assert np.abs(decoded[24, column].astype(int) - colour).max() <= 6


def test_jpeg_keeps_a_simulated_frame() -> None:
    image = simulate_galaxy("100008", SEED).image

    decoded = np.asarray(Image.open(io.BytesIO(encode_jpeg(image)))).astype(int)

    assert np.abs(decoded - image).mean() < 3.0


def test_ids_are_distinct_and_have_six_digits() -> None:
    ids = galaxy_ids(61_578, SEED)

    assert len(set(ids)) == 61_578
    assert all(len(galaxy_id) == 6 and galaxy_id.isdigit() and galaxy_id[0] != "0" for galaxy_id in ids)
    assert ids == galaxy_ids(61_578, SEED)
    assert ids != galaxy_ids(61_578, SEED + 1)


def test_all_six_digit_ids_can_be_drawn_and_no_more() -> None:
    every_id = galaxy_ids(900_000, SEED)

    assert len(set(every_id)) == 900_000
    assert (min(every_id), max(every_id)) == ("100000", "999999")
    with pytest.raises(ValueError, match="900000"):
        galaxy_ids(900_001, SEED)


def test_no_ids_and_fewer_than_none() -> None:
    assert galaxy_ids(0, SEED) == []
    with pytest.raises(ValueError, match="-1"):
        galaxy_ids(-1, SEED)
