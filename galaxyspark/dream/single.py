"""One dream: of the layer or class, and from the image, that a user names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from galaxyspark.dream.ascent import Goal, Picture, ascend
from galaxyspark.dream.galaxies import galaxy_to_change, judged_galaxies, noise, read_picture, resized
from galaxyspark.dream.goals import DreamNetwork, class_goal, guided_goal, layer_goal, open_network
from galaxyspark.dream.sheets import encode_png, safe_name
from galaxyspark.errors import UserError
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import DreamJob
from galaxyspark.storage import Place, write_atomically


def asks_for_one(job: DreamJob) -> bool:
    """Whether the settings name a single picture, rather than all that the stage makes."""
    return any((job.layer, job.dream_class, job.image, job.guide, job.noise))


def dream_one(job: DreamJob, say: Callable[[str], None] = print) -> Place:
    """Write ``RUN/dream-<layer or class>-<image or noise>.png``; what the stage has published stays as it is.

    Args:
        job: The settings.
        say: Is told what the picture began with, and the response to it before and after.

    Returns:
        The file.

    Raises:
        UserError: The settings contradict each other, there is no such layer, class or image, or no trained network.
    """
    _check(job)
    run = RunDirectory(job.run)
    run.require_current("train")
    network = open_network(run)
    goal = _goal(job, network)
    name, start = _start(job, run, network)
    dreamed = ascend(start, goal, job.dream, job.seed)
    say(f"Beginning with {name}: response {dreamed.before:.3g} before, {dreamed.after:.3g} after.")
    parts = [job.layer or job.dream_class, name, *(["guided-by", Path(job.guide).stem] if job.guide else [])]
    name = f"dream-{'-'.join(map(safe_name, parts))}.png"
    write_atomically(run.path(name), encode_png(dreamed.picture))
    run.keep(name)
    return run.place(name)


def _check(job: DreamJob) -> None:
    if bool(job.layer) == bool(job.dream_class):
        raise UserError("One picture is of one layer or one class: give either --layer or --dream-class.")
    if job.image and job.noise:
        raise UserError("--image and --noise: a dream begins with one of them.")
    if job.guide and not job.layer:
        raise UserError("--guide says what a layer is to respond like: give --layer instead of --dream-class.")


def _goal(job: DreamJob, network: DreamNetwork) -> Goal:
    if job.dream_class:
        return class_goal(network, job.dream_class)
    if job.guide:
        guide = read_picture("--guide", job.guide, network.card.recipe, job.dream.dream_size_px)
        return guided_goal(network, job.layer, guide)
    return layer_goal(network, job.layer)


def _start(job: DreamJob, run: RunDirectory, network: DreamNetwork) -> tuple[str, Picture]:
    """Its name and the picture: the image, noise, or the galaxy that the stage begins with too."""
    size_px = job.dream.dream_size_px
    if job.image:
        return Path(job.image).stem, read_picture("--image", job.image, network.card.recipe, size_px)
    if job.noise:
        return "noise", noise(size_px, job.seed)
    galaxy = galaxy_to_change(judged_galaxies(run, network))
    return galaxy.galaxy_id, resized(galaxy.picture, size_px)
