"""The light above the atmosphere: a scene drawn as surface brightness in the g, r and i bands.

Smooth profiles are GalSim's; arms, rings, dust and tidal tails are patterns laid over them on the pixel grid.
Each component is drawn once, at unit flux, and then added to the three bands in the ratios of its colour.
"""

from __future__ import annotations

from typing import Any

import cv2
import galsim
import numpy as np
from numpy.typing import NDArray

from galaxyspark.galaxyzoo.simulation.population import (
    PIXEL_SCALE_ARCSEC,
    Arms,
    Bar,
    BrightStar,
    Companion,
    Galaxy,
    Neighbour,
    SatelliteTrail,
    Scene,
)

Map = NDArray[np.float32]

# Coarser than GalSim's defaults and several times faster; the errors stay below the sky noise.
_ACCURACY = galsim.GSParams(folding_threshold=2e-2, maxk_threshold=2e-2, kvalue_accuracy=1e-3)

SKY_NANOMAGGIES_PER_PX = np.array([0.275, 0.69, 1.32], dtype=np.float32)
"""Dark sky over Apache Point in g, r, i: 21.9, 20.9 and 20.2 mag / arcsec^2 on a pixel of 0.157 arcsec^2."""

EXTINCTION_RELATIVE_TO_G = np.array([1.0, 0.69, 0.51], dtype=np.float32)
"""Dust absorbs less in r and i than in g (Schlegel, Finkbeiner & Davis 1998, table 6)."""


def draw_light(scene: Scene, rng: np.random.Generator) -> Map:
    """Draw the scene.

    Args:
        scene: What the frame shows.
        rng: Places the clumps of young stars.

    Returns:
        Nanomaggies per pixel above the sky, shape (size_px, size_px, 3), bands in the order g, r, i.
    """
    light = _draw_galaxy(scene.galaxy, scene.size_px, rng)
    for neighbour in scene.neighbours:
        _add_neighbour(light, neighbour)
    if isinstance(scene.artifact, BrightStar):
        light += _draw_bright_star(scene.artifact, scene.size_px)
    if isinstance(scene.artifact, SatelliteTrail):
        light += _draw_trail(scene.artifact, scene.size_px)
    return light


def nanomaggies(magnitude: float, colour: float, star: bool = False) -> Map:
    """Fluxes in g, r, i of a source of the given r magnitude and g - r colour, shape (3,).

    r - i follows g - r as for galaxies at low redshift; for stars as along the stellar locus, which bends
    sharply redwards for dwarfs beyond g - r = 1.3 (Ivezic et al. 2004).
    """
    r_minus_i = 0.42 * colour + 0.03
    if star and colour > 1.3:
        r_minus_i += 4.0 * (colour - 1.3)
    magnitudes = np.array([magnitude + colour, magnitude, magnitude - r_minus_i])
    return np.asarray(10.0 ** (-0.4 * (magnitudes - 22.5)), dtype=np.float32)


def _draw_galaxy(galaxy: Galaxy, size_px: int, rng: np.random.Generator) -> Map:
    bar_share = galaxy.bar.light_share if galaxy.bar else 0.0
    old_stars = galaxy.bulge_share * _draw_bulge(galaxy, size_px)
    if galaxy.bar:
        old_stars = old_stars + bar_share * _draw_bar(galaxy.bar, galaxy, size_px)
    light = old_stars[..., None] * nanomaggies(galaxy.magnitude, galaxy.bulge_colour)
    disk_share = 1.0 - galaxy.bulge_share - bar_share
    if disk_share > 0.0:
        young, mixed = _draw_disk(galaxy, size_px, rng)
        light += disk_share * mixed[..., None] * nanomaggies(galaxy.magnitude, galaxy.disk_colour)
        light += disk_share * young[..., None] * nanomaggies(galaxy.magnitude, galaxy.disk_colour - 0.2)
    if galaxy.dust_depth > 0.0:
        light *= _dust_transmission(galaxy, size_px)
    if galaxy.companion:
        light = _add_companion(light, galaxy, galaxy.companion)
    return light


def _draw_profile(
    profile: Any,
    axis_ratio: float,
    angle_deg: float,
    size_px: int,
    offset_px: tuple[float, float] = (0.0, 0.0),
) -> Map:
    """Draw a round GalSim profile, flattened along one axis and turned, with unit flux."""
    inclined = profile.transform(1.0, 0.0, 0.0, axis_ratio).rotate(angle_deg * galsim.degrees).withFlux(1.0)
    image = inclined.drawImage(nx=size_px, ny=size_px, scale=PIXEL_SCALE_ARCSEC, offset=offset_px, dtype=np.float32)
    return np.asarray(np.maximum(image.array, 0.0), dtype=np.float32)


def _draw_bulge(galaxy: Galaxy, size_px: int) -> Map:
    if galaxy.bulge_share == 0.0:
        return np.zeros((size_px, size_px), dtype=np.float32)
    radius, axis_ratio = galaxy.half_light_radius_arcsec, galaxy.axis_ratio
    if galaxy.bulge_share < 1.0:
        # The bulge of a disk galaxy is small and rounder than its inclined disk.
        radius, axis_ratio = radius * (0.15 + 0.35 * galaxy.bulge_share), 0.45 + 0.55 * axis_ratio
    profile = galsim.Sersic(galaxy.sersic_index, half_light_radius=radius, gsparams=_ACCURACY)
    return _draw_profile(profile, axis_ratio, galaxy.position_angle_deg, size_px)


def _draw_bar(bar: Bar, galaxy: Galaxy, size_px: int) -> Map:
    length = bar.half_length * galaxy.half_light_radius_arcsec
    profile = galsim.Gaussian(half_light_radius=0.6 * length, gsparams=_ACCURACY).transform(1.0, 0.0, 0.0, 0.24)
    in_plane = profile.rotate(bar.angle_deg * galsim.degrees)
    return _draw_profile(in_plane, galaxy.axis_ratio, galaxy.position_angle_deg, size_px)


def _draw_disk(galaxy: Galaxy, size_px: int, rng: np.random.Generator) -> tuple[Map, Map]:
    """The disk's light as (young stars, mixed stars), adding up to unit flux."""
    disk = _draw_smooth_disk(galaxy, size_px)
    radius, azimuth = plane_coordinates(galaxy, size_px)
    young, young_share = np.zeros_like(disk), 0.0
    if galaxy.arms:
        young, young_share = disk * _arm_pattern(galaxy.arms, radius, azimuth, rng), galaxy.arms.light_share
    elif galaxy.ring_share > 0.0:
        young = np.exp(-0.5 * ((radius - 1.25) / 0.17) ** 2).astype(np.float32)
        young_share = galaxy.ring_share
    elif galaxy.lopsidedness > 0.0:
        young = disk * np.exp(2.0 * galaxy.lopsidedness * np.cos(azimuth)).astype(np.float32)
        young_share = 0.8 * galaxy.lopsidedness
    if young_share == 0.0:
        return young, disk
    clumpiness = 0.4 if galaxy.lopsidedness > 0.0 else 0.12
    young = _with_clumps(young / young.sum(), clumpiness, rng)
    return young_share * young, (1.0 - young_share) * disk


def _draw_smooth_disk(galaxy: Galaxy, size_px: int) -> Map:
    radius = galaxy.half_light_radius_arcsec
    if galaxy.kind != "edge-on":
        profile = galsim.Exponential(half_light_radius=radius, gsparams=_ACCURACY)
        return _draw_profile(profile, galaxy.axis_ratio, galaxy.position_angle_deg, size_px)
    inclination = 88.0 * galsim.degrees
    edge_on = galsim.InclinedExponential(
        inclination, half_light_radius=radius, scale_h_over_r=0.75 * galaxy.axis_ratio, gsparams=_ACCURACY
    )
    return _draw_profile(edge_on, 1.0, galaxy.position_angle_deg, size_px)


def plane_coordinates(galaxy: Galaxy, size_px: int) -> tuple[Map, Map]:
    """Radius (half-light radii) and azimuth (radians from the major axis) of every pixel, in the disk."""
    y, x = np.indices((size_px, size_px), dtype=np.float32) - np.float32((size_px - 1) / 2.0)
    angle = np.float32(np.radians(galaxy.position_angle_deg))
    along = x * np.cos(angle) + y * np.sin(angle)
    across = (y * np.cos(angle) - x * np.sin(angle)) / np.float32(galaxy.axis_ratio)
    scale = np.float32(PIXEL_SCALE_ARCSEC / galaxy.half_light_radius_arcsec)
    return np.hypot(along, across) * scale, np.arctan2(across, along)


def _arm_pattern(arms: Arms, radius: Map, azimuth: Map, rng: np.random.Generator) -> Map:
    """How much brighter than the smooth disk the arms are at every pixel (arbitrary scale)."""
    unwound = np.log(radius + 0.05) / np.tan(np.radians(arms.pitch_deg))
    wobble = (
        0.25 * np.sin(2.0 * radius + rng.uniform(0.0, 2.0 * np.pi)) * np.sin(azimuth + rng.uniform(0.0, 2.0 * np.pi))
    )
    crest = np.cos(arms.count * (azimuth - arms.sense * unwound + wobble - np.radians(arms.phase_deg)))
    # Arms fade into the bulge inside, and stand out more against the fainter outer disk.
    envelope = radius**1.2 / (0.25 + radius**1.2) * (0.4 + radius) * np.exp(-((radius / 2.4) ** 4))
    return np.asarray(np.exp(arms.sharpness * (crest - 1.0)) * envelope, dtype=np.float32)


def _with_clumps(light: Map, share: float, rng: np.random.Generator, num_clumps: int = 40) -> Map:
    """Move a share of the light (unit flux) into point-like clumps of young stars that follow it."""
    cumulative = np.cumsum(light, dtype=np.float64)
    places = np.searchsorted(cumulative, rng.random(num_clumps) * cumulative[-1])
    fluxes = rng.exponential(1.0, num_clumps)
    clumps = np.bincount(places, weights=fluxes / fluxes.sum(), minlength=light.size).reshape(light.shape)
    return np.asarray((1.0 - share) * light + share * clumps, dtype=np.float32)


def _dust_transmission(galaxy: Galaxy, size_px: int) -> Map:
    """Share of light that passes a dust lane beside the major axis, shape (size_px, size_px, 3)."""
    radius, azimuth = plane_coordinates(galaxy, size_px)
    height = radius * np.sin(azimuth)
    lane = np.exp(-0.5 * ((height - 0.1) / 0.2) ** 2) * np.exp(-((radius * np.cos(azimuth) / 1.8) ** 4))
    depth = galaxy.dust_depth * EXTINCTION_RELATIVE_TO_G
    return np.asarray(np.exp(-lane[..., None] * depth), dtype=np.float32)


def _add_companion(light: Map, galaxy: Galaxy, companion: Companion) -> Map:
    size_px = light.shape[0]
    offset_x, offset_y = (offset / PIXEL_SCALE_ARCSEC for offset in companion.offset_arcsec)
    radius = galaxy.half_light_radius_arcsec * companion.size_ratio
    profile = galsim.Sersic(1.5, half_light_radius=radius, gsparams=_ACCURACY)
    partner = _draw_profile(profile, companion.axis_ratio, companion.position_angle_deg, size_px, (offset_x, offset_y))
    flux = nanomaggies(galaxy.magnitude, galaxy.disk_colour)
    tails = _draw_tails(galaxy, companion, size_px)
    added = companion.light_ratio * partner + companion.tail_share * tails
    return np.asarray((1.0 - companion.tail_share) * light + added[..., None] * flux, dtype=np.float32)


def _draw_tails(galaxy: Galaxy, companion: Companion, size_px: int) -> Map:
    """Two tidal tails, curving away from either galaxy on opposite sides; unit flux."""
    reach = 2.8 * galaxy.half_light_radius_arcsec / PIXEL_SCALE_ARCSEC
    partner = np.array(companion.offset_arcsec) / PIXEL_SCALE_ARCSEC
    direction = np.arctan2(partner[1], partner[0])
    bend = np.radians(companion.tail_bend_deg)
    along = np.linspace(0.1, 1.0, 60)
    tails = np.zeros((size_px, size_px), dtype=np.float32)
    for turn, start in ((np.pi, np.zeros(2)), (0.0, partner)):
        angle = direction + turn + bend * (along - 0.25)
        columns = np.rint(size_px / 2 + start[0] + reach * along * np.cos(angle)).astype(int)
        rows = np.rint(size_px / 2 + start[1] + reach * along * np.sin(angle)).astype(int)
        inside = (columns >= 0) & (columns < size_px) & (rows >= 0) & (rows < size_px)
        np.add.at(tails, (rows[inside], columns[inside]), (1.1 - along[inside]).astype(np.float32))
    blurred = cv2.GaussianBlur(tails, (0, 0), max(1.2, 0.06 * reach))
    return np.asarray(blurred / blurred.sum(), dtype=np.float32)


def _add_neighbour(light: Map, neighbour: Neighbour) -> None:
    size_px = light.shape[0]
    column, row = (size_px / 2 + offset / PIXEL_SCALE_ARCSEC for offset in neighbour.offset_arcsec)
    if neighbour.half_light_radius_arcsec == 0.0:
        flux = nanomaggies(neighbour.magnitude, neighbour.colour, star=True)
        light[min(int(row), size_px - 1), min(int(column), size_px - 1)] += flux
        return
    flux = nanomaggies(neighbour.magnitude, neighbour.colour)
    profile = galsim.Exponential(half_light_radius=neighbour.half_light_radius_arcsec, gsparams=_ACCURACY)
    stamp_px = 2 * int(np.ceil(4.0 * neighbour.half_light_radius_arcsec / PIXEL_SCALE_ARCSEC)) + 1
    stamp = _draw_profile(profile, neighbour.axis_ratio, neighbour.position_angle_deg, stamp_px)
    top, left = int(row) - stamp_px // 2, int(column) - stamp_px // 2
    rows = slice(max(top, 0), min(top + stamp_px, size_px))
    columns = slice(max(left, 0), min(left + stamp_px, size_px))
    visible = stamp[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    light[rows, columns] += visible[..., None] * flux


def _draw_bright_star(star: BrightStar, size_px: int) -> Map:
    """Core, halo scattered in the telescope and four diffraction spikes, shape (size_px, size_px, 3)."""
    y, x = np.indices((size_px, size_px), dtype=np.float32) - np.float32((size_px - 1) / 2.0)
    x -= np.float32(star.offset_arcsec[0] / PIXEL_SCALE_ARCSEC)
    y -= np.float32(star.offset_arcsec[1] / PIXEL_SCALE_ARCSEC)
    radius = np.hypot(x, y) + 1.0
    core = np.exp(-0.5 * (radius - 1.0) ** 2) / (2.0 * np.pi)
    halo = radius**-2.6 * 0.006
    angle = np.radians(star.spike_angle_deg)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    spikes = (np.exp(-1.5 * across**2) + np.exp(-1.5 * along**2)) * radius**-1.9 * 0.010
    flux = nanomaggies(star.magnitude, star.colour, star=True)
    # Scattered light is redder than the star: the halo of the thinned CCDs grows with wavelength.
    halo_colour = np.array([0.8, 0.9, 1.3], dtype=np.float32)
    return np.asarray((core + spikes)[..., None] * flux + halo[..., None] * flux * halo_colour, dtype=np.float32)


def _draw_trail(trail: SatelliteTrail, size_px: int) -> Map:
    """A line one pixel wide in a single band, shape (size_px, size_px, 3)."""
    ends = [(round(size_px * (0.5 + column)), round(size_px * (0.5 + row))) for column, row in (trail.start, trail.end)]
    line = np.zeros((size_px, size_px), dtype=np.uint8)
    cv2.line(line, ends[0], ends[1], (255.0,), 1, cv2.LINE_AA)
    light = np.zeros((size_px, size_px, 3), dtype=np.float32)
    level = trail.brightness * SKY_NANOMAGGIES_PER_PX[trail.band]
    light[..., trail.band] = line.astype(np.float32) / 255.0 * level
    return light
