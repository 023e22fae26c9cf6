"""The volunteers: how a panel of about forty people would answer the 11 questions on a simulated frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from galaxyspark.galaxyzoo.simulation.light import SKY_NANOMAGGIES_PER_PX
from galaxyspark.galaxyzoo.simulation.population import (
    ARTIFACT_KINDS,
    PIXEL_SCALE_ARCSEC,
    Arms,
    Galaxy,
    SatelliteTrail,
    Scene,
)
from galaxyspark.galaxyzoo.simulation.survey import ELECTRONS_PER_NANOMAGGY
from galaxyspark.galaxyzoo.tree import QUESTIONS, VOTE_COLUMNS

Probabilities = NDArray[np.float64]

PANEL_SIZE_RANGE = (36, 50)
"""Galaxy Zoo 2 collected about 44 classifications a galaxy (Willett et al. 2013)."""

OPINION_SCATTER = 0.6
"""Standard deviation (in logits) of what a panel makes of a galaxy beyond what its parameters tell."""


def draw_votes(scene: Scene, rng: np.random.Generator) -> NDArray[np.float64]:
    """Let a panel classify the frame.

    Returns:
        Vote shares in [0, 1], shape (37,), in the order of ``VOTE_COLUMNS``. They obey the decision tree
        exactly, because every volunteer is led through it. Question 6 is asked of all, artifact or not.
    """
    panel_size = int(rng.integers(*PANEL_SIZE_RANGE, endpoint=True))
    probabilities = answer_probabilities(scene, opinion=rng.normal(0.0, OPINION_SCATTER))
    counts: dict[str, int] = {}
    for question in QUESTIONS:
        asked = sum(counts[column] for column in question.asked_after) if question.asked_after else panel_size
        given = rng.multinomial(asked, probabilities[question.number])
        counts.update(zip(question.columns, given.tolist(), strict=True))
    return np.array([counts[column] for column in VOTE_COLUMNS]) / panel_size


def visibility(scene: Scene) -> float:
    """How well detail in the galaxy can be made out: from 0, a faint or blurred patch, to 1, all of it."""
    galaxy = scene.galaxy
    resolution = galaxy.half_light_radius_arcsec * np.sqrt(galaxy.axis_ratio) / scene.seeing_arcsec
    area_px = 2.0 * np.pi * (galaxy.half_light_radius_arcsec / PIXEL_SCALE_ARCSEC) ** 2 * galaxy.axis_ratio
    flux_per_px = 10.0 ** (-0.4 * (galaxy.magnitude - 22.5)) / area_px
    sky_noise = np.sqrt(SKY_NANOMAGGIES_PER_PX[1] / ELECTRONS_PER_NANOMAGGY[1])
    signal_to_noise = flux_per_px / sky_noise
    return float(1.0 / (1.0 + (1.6 / resolution) ** 3) / (1.0 + (6.0 / signal_to_noise) ** 2))


def answer_probabilities(scene: Scene, opinion: float = 0.0) -> dict[int, Probabilities]:
    """How likely a volunteer who is asked each question gives each of its answers.

    Args:
        scene: What the frame shows.
        opinion: This panel's leaning towards "featured", in logits.

    Returns:
        Question number to probabilities, in the order of the question's answers; each adds up to 1.
    """
    galaxy, clarity = scene.galaxy, visibility(scene)
    arms_seen = _arm_strength(galaxy.arms) * clarity if galaxy.arms else 0.0
    bar_seen = _rises(galaxy.bar.light_share * clarity, 0.08, 0.03) if galaxy.bar else 0.0
    edge_on = _rises(-galaxy.axis_ratio, -0.28, 0.03)
    return {
        1: _first_question(scene, opinion),
        2: _yes_or_no(edge_on),
        3: _yes_or_no(0.04 + 0.9 * bar_seen),
        4: _yes_or_no(0.05 + 0.93 * _rises(arms_seen, 0.2, 0.06)),
        5: _nearest(np.sqrt(galaxy.bulge_share), (0.1, 0.3, 0.55, 0.9), 0.12),
        6: _yes_or_no(_oddness(scene)),
        7: _nearest(galaxy.axis_ratio, (0.97, 0.66, 0.28), 0.12),
        8: _odd_features(galaxy),
        9: _edge_on_bulge(galaxy),
        10: _nearest(galaxy.arms.pitch_deg if galaxy.arms else 15.0, (10.0, 18.0, 28.0), 4.5),
        11: _arm_counts(galaxy.arms, clarity),
    }


def _first_question(scene: Scene, opinion: float) -> Probabilities:
    galaxy = scene.galaxy
    artifact = _artifact_share(scene)
    featured = 1.0 / (1.0 + np.exp(-(_feature_logit(galaxy, visibility(scene)) + opinion)))
    return np.array([(1.0 - artifact) * (1.0 - featured), (1.0 - artifact) * featured, artifact])


def _artifact_share(scene: Scene) -> float:
    if scene.galaxy.kind not in ARTIFACT_KINDS:
        return 0.015
    if isinstance(scene.artifact, SatelliteTrail):
        return 0.62 + 0.1 * scene.artifact.brightness
    return 0.85


def _feature_logit(galaxy: Galaxy, clarity: float) -> float:
    """Log odds of "featured" against "smooth": the strongest feature that can be made out decides."""
    if galaxy.bulge_share == 1.0:
        return -2.4
    strengths = [0.25 * (1.0 - galaxy.axis_ratio) + 0.25 * (galaxy.bulge_colour - galaxy.disk_colour)]
    if galaxy.arms:
        strengths.append(_arm_strength(galaxy.arms))
    if galaxy.bar:
        strengths.append(1.8 * galaxy.bar.light_share)
    if galaxy.kind == "edge-on":
        return 2.0
    strengths += [galaxy.ring_share * 1.3, galaxy.lopsidedness, 0.7 if galaxy.companion else 0.0]
    return float(np.clip(14.0 * (max(strengths) * clarity - 0.13), -2.6, 3.2))


def _arm_strength(arms: Arms) -> float:
    """Contrast of the arms in [0, 1]: many, tight or broad arms run into one another."""
    separation = np.sin(np.radians(arms.pitch_deg)) / arms.count
    return float(arms.light_share * (0.5 + 0.5 * arms.sharpness / 3.5) * (0.7 + 0.3 * min(1.0, separation / 0.15)))


def _oddness(scene: Scene) -> float:
    galaxy = scene.galaxy
    if galaxy.companion or galaxy.lopsidedness > 0.0 or galaxy.ring_share > 0.0:
        return 0.85
    if galaxy.kind in ARTIFACT_KINDS:
        return 0.3
    return 0.45 if galaxy.dust_depth > 0.0 else 0.08


def _odd_features(galaxy: Galaxy) -> Probabilities:
    """Ring, lens or arc, disturbed, irregular, other, merger, dust lane."""
    weights = np.array([0.08, 0.05, 0.15, 0.15, 0.40, 0.15, 0.02])
    if galaxy.ring_share > 0.0:
        weights[0] += 5.0
    if galaxy.lopsidedness > 0.0:
        weights[[2, 3]] += (1.0, 3.0)
    if galaxy.companion:
        weights[[2, 5]] += (1.0, 5.0)
    if galaxy.dust_depth > 0.0:
        weights[6] += 3.0
    return np.asarray(weights / weights.sum())


def _edge_on_bulge(galaxy: Galaxy) -> Probabilities:
    """Rounded, boxy, none."""
    seen = _rises(galaxy.bulge_share, 0.1, 0.03)
    return np.array([0.85 * seen, 0.10 * seen, 1.0 - 0.95 * seen])


def _arm_counts(arms: Arms | None, clarity: float) -> Probabilities:
    """1, 2, 3, 4, more than 4, cannot tell."""
    weights = np.array([0.02, 0.10, 0.05, 0.03, 0.03, 0.30])
    if arms:
        weights[arms.count - 1] += 3.0 * clarity * _arm_strength(arms) * (1.0 if arms.count <= 2 else 0.6)
    return np.asarray(weights / weights.sum())


def _yes_or_no(yes: float) -> Probabilities:
    return np.array([yes, 1.0 - yes])


def _rises(value: float, middle: float, width: float) -> float:
    """Smooth step from 0 to 1 around ``middle``."""
    return float(1.0 / (1.0 + np.exp(-(value - middle) / width)))


def _nearest(value: float, centres: tuple[float, ...], width: float) -> Probabilities:
    """Choice among answers that stand for values on a scale: the nearest is the likeliest."""
    distance = (value - np.array(centres)) / width
    weights = np.exp(-0.5 * (distance**2 - np.min(distance**2))) + 0.01
    return np.asarray(weights / weights.sum())
