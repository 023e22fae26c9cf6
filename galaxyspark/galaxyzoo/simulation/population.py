"""What is in a simulated frame: parameters of the galaxy, its neighbours in the field, and the seeing.

Lengths are in arcsec, angles in degrees (from the image's x axis towards higher rows), brightness in SDSS r
magnitudes, colours as g - r. The ranges follow the Galaxy Zoo 2 sample (Willett et al. 2013: r < 17,
Petrosian R90 > 3 arcsec) and were then tuned until the frames looked like the challenge's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

PIXEL_SCALE_ARCSEC = 0.396
"""SDSS imaging pixel (York et al. 2000)."""

FRAME_SIZE_R90 = 8.48
"""Side of a challenge frame in Petrosian R90: 424 pixels of 0.02 R90 each (Willett et al. 2013)."""

FRAME_SIZE_RANGE_PX = (84, 220)
"""Smallest and largest side of a frame at the survey's own pixel scale, before it is enlarged."""

ARTIFACT_SHARE = 0.04
"""Share of frames showing an artifact; the challenge itself has 0.1 %, too few to show a class."""

_ARTIFACT_MIX = {"star": 0.40, "satellite trail": 0.35, "frame edge": 0.25}

_GALAXY_MIX = {
    "elliptical": 0.40,
    "disk": 0.04,
    "spiral": 0.28,
    "barred spiral": 0.10,
    "barred disk": 0.035,
    "edge-on": 0.09,
    "ring": 0.02,
    "merger": 0.02,
    "disturbed": 0.015,
}

KIND_SHARES: dict[str, float] = {
    **{kind: share * (1.0 - ARTIFACT_SHARE) for kind, share in _GALAXY_MIX.items()},
    **{kind: share * ARTIFACT_SHARE for kind, share in _ARTIFACT_MIX.items()},
}
"""How often each kind of frame is drawn; the shares add up to 1."""

_KINDS, _SHARES = np.array(list(KIND_SHARES)), np.array(list(KIND_SHARES.values()))

ARTIFACT_KINDS: frozenset[str] = frozenset(_ARTIFACT_MIX)

NEIGHBOURS_PER_SQUARE_ARCMIN = 6.5
"""Field stars and galaxies brighter than ``FAINTEST_NEIGHBOUR_MAGNITUDE``, at high Galactic latitude."""

FAINTEST_NEIGHBOUR_MAGNITUDE = 22.2


@dataclass(frozen=True)
class Arms:
    """Logarithmic spiral arms: how many, pitch angle (10 tight to 30 loose), their share of the disk's light
    in [0, 1], how narrow they are (exponent of the crest), the sense of winding (+1 or -1) and a starting
    angle."""

    count: int
    pitch_deg: float
    light_share: float
    sharpness: float
    sense: int
    phase_deg: float


@dataclass(frozen=True)
class Bar:
    """A bar in the plane of the disk: half length in disk half-light radii, its share of all light in [0, 1],
    and its angle from the disk's line of nodes."""

    half_length: float
    light_share: float
    angle_deg: float


@dataclass(frozen=True)
class Companion:
    """The partner in a merger: where it lies from the centre (arcsec), light and size relative to the main
    galaxy, the share of the main galaxy's light drawn out into tidal tails, and the angle through which the
    tails bend."""

    offset_arcsec: tuple[float, float]
    light_ratio: float
    size_ratio: float
    axis_ratio: float
    position_angle_deg: float
    tail_share: float
    tail_bend_deg: float


@dataclass(frozen=True)
class Galaxy:
    """The galaxy in the middle of the frame.

    Attributes:
        kind: One of the keys of ``KIND_SHARES``; a frame with an artifact holds an ordinary galaxy besides.
        magnitude: Total r magnitude.
        half_light_radius_arcsec: Along the major axis, of the disk where there is one.
        axis_ratio: Projected minor over major axis, in (0, 1].
        position_angle_deg: Of the major axis.
        bulge_share: Share of all light in the bulge, in [0, 1]; 1 for an elliptical.
        sersic_index: Of the bulge.
        bulge_colour: g - r of the old stars (bulge and bar).
        disk_colour: g - r of the disk between the arms; the arms are bluer.
        ring_share: Share of the disk's light in a ring.
        dust_depth: Optical depth of an edge-on dust lane in the g band.
        lopsidedness: 0 for a regular galaxy, up to 1 for one whose light lies in clumps to one side.
    """

    kind: str
    magnitude: float
    half_light_radius_arcsec: float
    axis_ratio: float
    position_angle_deg: float
    bulge_share: float
    sersic_index: float
    bulge_colour: float
    disk_colour: float
    arms: Arms | None = None
    bar: Bar | None = None
    companion: Companion | None = None
    ring_share: float = 0.0
    dust_depth: float = 0.0
    lopsidedness: float = 0.0

    @property
    def radius_90_arcsec(self) -> float:
        """Radius holding about 90 % of the light in a circular aperture, like the Petrosian R90."""
        concentration = 1.55 + 0.15 * self.bulge_share
        return self.half_light_radius_arcsec * concentration * float(np.sqrt(0.75 + 0.25 * self.axis_ratio**2))


@dataclass(frozen=True)
class Neighbour:
    """Another source in the field; a star where ``half_light_radius_arcsec`` is 0. Offset from the centre."""

    offset_arcsec: tuple[float, float]
    magnitude: float
    colour: float
    half_light_radius_arcsec: float
    axis_ratio: float
    position_angle_deg: float


@dataclass(frozen=True)
class BrightStar:
    """A saturated star with diffraction spikes."""

    offset_arcsec: tuple[float, float]
    magnitude: float
    colour: float
    spike_angle_deg: float


@dataclass(frozen=True)
class SatelliteTrail:
    """A straight trail, in one band alone (0, 1, 2 for g, r, i) as the bands are exposed minutes apart.

    It runs from ``start`` to ``end`` (in frame sides, from -1 to 1) and adds ``brightness`` sky levels at its
    crest.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    band: int
    brightness: float


@dataclass(frozen=True)
class FrameEdge:
    """Where the survey's data end: everything further than ``distance`` (in frame sides) from the frame's
    centre in the direction ``angle_deg`` is missing."""

    angle_deg: float
    distance: float


@dataclass(frozen=True)
class Scene:
    """All that is drawn into a frame of ``size_px`` x ``size_px`` survey pixels, with seeing as a FWHM."""

    galaxy: Galaxy
    neighbours: tuple[Neighbour, ...]
    size_px: int
    seeing_arcsec: float
    artifact: BrightStar | SatelliteTrail | FrameEdge | None = None


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw what one frame shows from the simulated population."""
    kind = str(rng.choice(_KINDS, p=_SHARES))
    galaxy = _draw_galaxy(kind, rng)
    seeing = float(np.clip(rng.normal(1.3, 0.13), 1.0, 1.8))
    side_arcsec = FRAME_SIZE_R90 * float(np.hypot(galaxy.radius_90_arcsec, 0.8 * seeing))
    size_px = int(np.clip(round(side_arcsec / PIXEL_SCALE_ARCSEC), *FRAME_SIZE_RANGE_PX))
    side_arcsec = size_px * PIXEL_SCALE_ARCSEC
    return Scene(
        galaxy=galaxy,
        neighbours=_draw_neighbours(side_arcsec, rng),
        size_px=size_px,
        seeing_arcsec=seeing,
        artifact=_draw_artifact(kind, side_arcsec, rng),
    )


def _draw_galaxy(kind: str, rng: np.random.Generator) -> Galaxy:
    if kind == "elliptical":
        return _draw_elliptical(kind, rng)
    if kind == "edge-on":
        return _draw_edge_on(kind, rng)
    if kind in ARTIFACT_KINDS:
        host = _draw_elliptical(kind, rng) if rng.random() < 0.5 else _draw_disk(kind, rng)
        return replace(host, magnitude=host.magnitude + rng.uniform(0.0, 1.0))
    galaxy = _draw_disk(kind, rng)
    if kind in ("spiral", "barred spiral"):
        galaxy = replace(galaxy, arms=_draw_arms(rng))
    if kind in ("barred spiral", "barred disk"):
        galaxy = replace(galaxy, bar=_draw_bar(rng), bulge_share=0.5 * galaxy.bulge_share)
    if kind == "barred disk":
        galaxy = replace(galaxy, axis_ratio=rng.uniform(0.5, 1.0))
    if kind == "ring":
        galaxy = replace(galaxy, ring_share=rng.uniform(0.45, 0.75), axis_ratio=rng.uniform(0.5, 1.0))
    if kind == "merger":
        galaxy = replace(galaxy, companion=_draw_companion(galaxy.half_light_radius_arcsec, rng))
    if kind == "disturbed":
        galaxy = replace(galaxy, lopsidedness=rng.uniform(0.6, 1.0), disk_colour=rng.uniform(0.15, 0.4))
    return galaxy


def _magnitude(half_light_radius_arcsec: float, axis_ratio: float, surface_brightness: float) -> float:
    """Total magnitude of a galaxy with the given mean surface brightness (mag / arcsec^2) within its
    half-light ellipse."""
    return float(surface_brightness - 2.5 * np.log10(2.0 * np.pi * half_light_radius_arcsec**2 * axis_ratio))


def _draw_elliptical(kind: str, rng: np.random.Generator) -> Galaxy:
    cigar = rng.random() < 0.12
    axis_ratio = rng.uniform(0.3, 0.45) if cigar else 1.0 - 0.45 * rng.beta(1.3, 1.6)
    radius = float(np.clip(rng.lognormal(np.log(2.9), 0.30), 1.6, 8.0)) / np.sqrt(axis_ratio)
    return Galaxy(
        kind=kind,
        magnitude=_magnitude(radius, axis_ratio, rng.normal(20.55, 0.45)),
        half_light_radius_arcsec=radius,
        axis_ratio=axis_ratio,
        position_angle_deg=rng.uniform(0.0, 180.0),
        bulge_share=1.0,
        sersic_index=float(rng.choice([2.0, 2.5, 3.0, 4.0])),
        # Most are red and dead; some small ones still form stars.
        bulge_colour=rng.normal(0.88, 0.09) if rng.random() < 0.85 else rng.normal(0.55, 0.1),
        disk_colour=0.8,
    )


def _draw_disk(kind: str, rng: np.random.Generator) -> Galaxy:
    # A thin disk at random inclination has a uniform axis ratio; the nearly edge-on are a kind of their own.
    axis_ratio = rng.uniform(0.35, 1.0)
    radius = float(np.clip(rng.lognormal(np.log(4.6), 0.30), 2.3, 10.0))
    bulge_share = float(np.clip(rng.beta(1.6, 6.0), 0.02, 0.6))
    if kind == "disk":
        axis_ratio, bulge_share = rng.uniform(0.3, 0.6), rng.uniform(0.15, 0.4)
    surface_brightness = rng.normal(21.15 - 0.8 * bulge_share, 0.4)
    return Galaxy(
        kind=kind,
        magnitude=_magnitude(radius, axis_ratio, surface_brightness),
        half_light_radius_arcsec=radius,
        axis_ratio=axis_ratio,
        position_angle_deg=rng.uniform(0.0, 180.0),
        bulge_share=bulge_share,
        sersic_index=float(rng.choice([1.0, 2.0, 3.0])),
        bulge_colour=rng.normal(0.82, 0.08),
        disk_colour=float(np.clip(rng.normal(0.47 + 0.4 * bulge_share, 0.12), 0.2, 0.85)),
    )


def _draw_edge_on(kind: str, rng: np.random.Generator) -> Galaxy:
    axis_ratio = rng.uniform(0.14, 0.28)
    radius = float(np.clip(rng.lognormal(np.log(5.6), 0.3), 3.0, 11.0))
    # Dust lanes are noticed in large galaxies, where the seeing does not wash them out.
    has_dust_lane = radius > 5.5 and rng.random() < 0.6
    return Galaxy(
        kind=kind,
        magnitude=_magnitude(radius, axis_ratio, rng.normal(20.7, 0.4)),
        half_light_radius_arcsec=radius,
        axis_ratio=axis_ratio,
        position_angle_deg=rng.uniform(0.0, 180.0),
        bulge_share=rng.uniform(0.1, 0.35) if rng.random() < 0.6 else 0.0,
        sersic_index=float(rng.choice([1.0, 2.0])),
        bulge_colour=rng.normal(0.9, 0.08),
        disk_colour=rng.normal(0.6, 0.14),
        dust_depth=rng.uniform(2.0, 4.5) if has_dust_lane else 0.0,
    )


def _draw_arms(rng: np.random.Generator) -> Arms:
    return Arms(
        count=int(rng.choice([1, 2, 3, 4, 5], p=[0.06, 0.64, 0.15, 0.08, 0.07])),
        pitch_deg=rng.uniform(9.0, 30.0),
        light_share=rng.uniform(0.15, 0.65),
        sharpness=rng.uniform(0.8, 2.8),
        sense=int(rng.choice([-1, 1])),
        phase_deg=rng.uniform(0.0, 360.0),
    )


def _draw_bar(rng: np.random.Generator) -> Bar:
    return Bar(
        half_length=rng.uniform(0.65, 1.1),
        light_share=rng.uniform(0.12, 0.32),
        angle_deg=rng.uniform(0.0, 180.0),
    )


def _draw_companion(half_light_radius_arcsec: float, rng: np.random.Generator) -> Companion:
    distance, direction = half_light_radius_arcsec * rng.uniform(0.9, 2.2), rng.uniform(0.0, 2.0 * np.pi)
    return Companion(
        offset_arcsec=(distance * np.cos(direction), distance * np.sin(direction)),
        light_ratio=rng.uniform(0.3, 1.0),
        size_ratio=rng.uniform(0.4, 0.9),
        axis_ratio=rng.uniform(0.4, 1.0),
        position_angle_deg=rng.uniform(0.0, 180.0),
        tail_share=rng.uniform(0.1, 0.35),
        tail_bend_deg=float(rng.choice([-1.0, 1.0])) * rng.uniform(30.0, 130.0),
    )


def _draw_neighbours(side_arcsec: float, rng: np.random.Generator) -> tuple[Neighbour, ...]:
    expected = NEIGHBOURS_PER_SQUARE_ARCMIN * (side_arcsec / 60.0) ** 2
    neighbours = []
    for _ in range(rng.poisson(expected * rng.lognormal(0.0, 0.35))):
        is_star = rng.random() < 0.55
        # Counts rise as 10^(0.35 m): fainter neighbours are more numerous.
        magnitude = FAINTEST_NEIGHBOUR_MAGNITUDE + np.log10(1.0 - rng.random()) / 0.35
        magnitude = max(magnitude, 15.5 if is_star else 17.0)
        offset_x, offset_y = rng.uniform(-0.5, 0.5, size=2) * side_arcsec
        neighbours.append(
            Neighbour(
                offset_arcsec=(offset_x, offset_y),
                magnitude=magnitude,
                colour=_draw_star_colour(rng) if is_star else rng.normal(0.8, 0.3),
                half_light_radius_arcsec=0.0
                if is_star
                else rng.lognormal(np.log(0.9), 0.3) * 1.2 ** (21.0 - magnitude),
                axis_ratio=rng.uniform(0.3, 1.0),
                position_angle_deg=rng.uniform(0.0, 180.0),
            )
        )
    return tuple(neighbours)


def _draw_star_colour(rng: np.random.Generator) -> float:
    """g - r of a field star: blue turn-off stars, or red dwarfs."""
    return float(rng.normal(0.45, 0.15) if rng.random() < 0.6 else rng.normal(1.35, 0.1))


def _draw_artifact(
    kind: str, side_arcsec: float, rng: np.random.Generator
) -> BrightStar | SatelliteTrail | FrameEdge | None:
    if kind == "star":
        distance, direction = side_arcsec * rng.uniform(0.0, 0.12), rng.uniform(0.0, 2.0 * np.pi)
        return BrightStar(
            offset_arcsec=(distance * np.cos(direction), distance * np.sin(direction)),
            magnitude=rng.uniform(10.8, 12.8),
            colour=rng.uniform(0.2, 1.0),
            spike_angle_deg=rng.uniform(0.0, 90.0),
        )
    if kind == "satellite trail":
        angle, miss = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(-0.15, 0.15)
        along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        start = across * miss - along * rng.uniform(0.1, 1.0)
        end = across * miss + along * 1.0
        return SatelliteTrail(
            start=(float(start[0]), float(start[1])),
            end=(float(end[0]), float(end[1])),
            band=int(rng.choice([0, 1, 2], p=[0.04, 0.84, 0.12])),
            brightness=rng.uniform(0.6, 2.2),
        )
    if kind == "frame edge":
        angle = 90.0 * rng.integers(4) + rng.normal(0.0, 4.0)
        return FrameEdge(angle_deg=angle, distance=rng.uniform(0.0, 0.12))
    return None
