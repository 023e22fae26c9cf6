"""Reckons with the costs, and writes the tables of docs/scaling.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.growth.table import Row, memory_rows, phase_rows, rate_rows, task_rows
from benchmarks.harness import RESULTS
from benchmarks.model.costs import Costs, costs_of, read_results
from benchmarks.pages import markdown, with_table
from galaxyspark.classify.catalogue import MOST_ROWS
from galaxyspark.storage import write_atomically
from galaxyspark.views.augment import NUM_VIEWS

_DOCS = Path(__file__).parents[2] / "docs" / "scaling.md"
_SIZE_PX = 224
_MIB, _GIB = 2**20, 2**30
_BREAKS = {
    "features": (
        "`classify`: the features of training galaxies, in its machine's memory",
        "it says so before it reads them; `--fit-views view0` takes a quarter, and some of the labels are enough",
    ),
    "tables": (
        "`catalogue.fits` and `catalogue.vot`, which one process writes",
        "they are left out, and that is said; Parquet and CSV go on",
    ),
    "heap": (
        "the driver's heap (`spark.driver.memory`): what it knows of every file",
        "more of it; [packed images](inputs.md), since a shard is one file",
    ),
    "results": (
        "what tasks send to the driver (`spark.driver.maxResultSize`): labels and paths, for tables that all need",
        "more than a million rows are joined by a shuffle instead ([inputs](inputs.md))",
    ),
    "broadcast": (
        "the labels as one table that every executor has",
        "labels of more than a million galaxies are joined by a shuffle ([inputs](inputs.md))",
    ),
    "listing": (
        "one driver lists the files for an hour, at the speed of a local disk",
        "packed images; in subfolders they are listed in parallel; predict takes over rows of what has not changed",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Model:
    """Write the tables of docs/scaling.md: what the whole job costs, from what the benchmarks measured."""

    galaxies: tuple[int, ...] = tuple(10**power for power in range(6, 11))
    """Numbers of galaxies."""
    cores: tuple[int, ...] = (100, 100, 1_000, 10_000, 100_000)
    """Cores for each of them."""
    gpus: tuple[int, ...] = (1, 1, 8, 64, 512)
    """GPUs for each of them."""
    most_labelled: int = 1_000_000
    """Galaxies with labels, at most: those are augmented, trained on, extracted and classified; all are predicted."""
    epochs: int = 30
    """Passes of the training."""
    train_share: float = 0.9
    """Share of the labelled galaxies in the training split."""
    train_views: int = 4
    """Views of a training galaxy that are extracted; of the others it is 16."""
    gpu_train_views_per_s: float = 1_500.0
    """Views of 224 px that a GPU trains on in a second. Not measured."""
    gpu_extract_views_per_s: float = 5_000.0
    """Views of 224 px that a GPU extracts in a second. Not measured."""
    num_features: int = 1_024
    """Features of a view; GoogLeNet has 1,024."""
    driver_heap_gib: float = 2.0
    """spark.driver.memory, as in the profile standalone."""
    driver_machine_gib: float = 64.0
    """Memory of the machine on which classify runs."""
    result_gib: float = 1.0
    """spark.driver.maxResultSize, Spark's default."""
    broadcast_gib: float = 8.0
    """The largest table that Spark broadcasts."""
    label_row_bytes: int = 400
    """A galaxy with 37 votes in such a table: 8 bytes a column, its texts, its place in the hash table. Reckoned."""
    catalogue_columns_bytes: int = 200
    """A row of the catalogue without its features. Reckoned."""
    galaxies_per_task: int = 5_000
    """Galaxies that one task of augment has, about."""
    row_group_mb: int = 32
    """--row-group-mb."""
    results: Path = RESULTS
    """Folder with the results of the benchmarks."""
    docs: Path = _DOCS
    """The file whose tables are replaced."""

    def labelled(self, num_galaxies: int) -> int:
        """Galaxies with labels among so many."""
        return min(num_galaxies, self.most_labelled)

    @property
    def extracted_views(self) -> float:
        """Views that are extracted of a labelled galaxy, on average."""
        return self.train_share * self.train_views + (1 - self.train_share) * NUM_VIEWS


def main(arguments: Sequence[str]) -> None:
    """Write the tables; ``arguments`` are flags as ``--help`` lists them."""
    model = tyro.cli(Model, args=arguments, prog="bench model")
    results = read_results(model.results)
    costs = costs_of(results)
    runs = results["growth"]["runs"]
    tables = {
        "rates": rate_rows(runs),
        "phases": phase_rows(runs),
        "tasks": task_rows(runs),
        "memory": memory_rows(runs),
        "costs": cost_rows(costs, results["growth"]["view_size_px"]),
        "bytes": size_rows(costs, model),
        "core-hours": core_hour_rows(costs, model),
        "time": time_rows(costs, model),
        "limits": limit_rows(costs, model),
    }
    text = model.docs.read_text()
    for name, rows in tables.items():
        text = with_table(text, name, markdown(rows))
    write_atomically(model.docs, text)
    print(f"Tables written to {model.docs}.")


def core_seconds(num_galaxies: int, size_px: int, costs: Costs, model: Model) -> dict[str, float]:
    """Seconds of one core, by stage: ``train`` on cores, ``predict`` on 16 views, which it makes as augment does."""
    labelled = model.labelled(num_galaxies)
    of_view = costs.extract_core_s[size_px]
    return {
        "augment": labelled * costs.augment_core_s[size_px],
        "train": labelled * model.train_share * NUM_VIEWS * model.epochs * costs.train_core_s[size_px],
        "extract": labelled * model.extracted_views * of_view,
        "predict": num_galaxies * (costs.augment_core_s[size_px] + NUM_VIEWS * of_view),
    }


def wall_seconds(num_galaxies: int, cores: int, gpus: int, costs: Costs, model: Model) -> dict[str, float]:
    """Seconds from start to end of each stage at 224 px, training on the GPUs and all else on the cores.

    ``predict_on_gpus`` makes the views on the cores and looks at them on the GPUs, at the same time; ``listing`` is
    what of either the driver lists files for, twice.
    """
    labelled, of_cores = model.labelled(num_galaxies), core_seconds(num_galaxies, _SIZE_PX, costs, model)
    trained = labelled * model.train_share * NUM_VIEWS * model.epochs
    views_s = num_galaxies * costs.augment_core_s[_SIZE_PX] / (cores * costs.efficiency["augment"])
    on_gpus_s = num_galaxies * NUM_VIEWS / (gpus * model.gpu_extract_views_per_s)
    alone = {
        "augment": costs.fixed_s["augment"] + costs.driver_s["augment"] * labelled,
        "extract": costs.fixed_s["extract"] + costs.driver_s["extract"] * labelled,
        "predict": costs.fixed_s["augment"] + costs.driver_s["augment"] * num_galaxies,
    }
    return {
        "augment": alone["augment"] + of_cores["augment"] / (cores * costs.efficiency["augment"]),
        "train": trained / (gpus * model.gpu_train_views_per_s),
        "extract": alone["extract"] + of_cores["extract"] / (cores * costs.efficiency["extract"]),
        "classify": labelled * model.train_share * model.train_views * costs.classify_s,
        "predict": alone["predict"] + of_cores["predict"] / (cores * costs.efficiency["extract"]),
        "predict_on_gpus": alone["predict"] + max(views_s, on_gpus_s),
        "listing": 2 * costs.first_look_s * num_galaxies,
    }


def sizes(num_galaxies: int, costs: Costs, model: Model) -> dict[str, float]:
    """Bytes of all galaxies, if all were augmented and extracted, and the numbers of files and row groups of views."""
    feature_bytes = num_galaxies * model.extracted_views * costs.feature_bytes
    return {
        "images": num_galaxies * costs.image_bytes,
        **{f"views_{size_px}": num_galaxies * size for size_px, size in costs.view_bytes.items()},
        "features": feature_bytes,
        "catalogue": num_galaxies * (4 * model.num_features + model.catalogue_columns_bytes),
        "files": 3 * max(1, num_galaxies / model.galaxies_per_task),
        "row_groups": num_galaxies * costs.view_bytes[_SIZE_PX] / (model.row_group_mb * _MIB),
    }


def limits(costs: Costs, model: Model) -> dict[str, float]:
    """What breaks, one of ``_BREAKS`` -> the number of galaxies at which it does."""
    fitted_views = model.train_share * model.train_views
    return {
        "features": model.driver_machine_gib * _GIB / (fitted_views * (4 * model.num_features + costs.classify_bytes)),
        "tables": MOST_ROWS,
        "heap": (model.driver_heap_gib * 1024 - costs.heap_mb) * _MIB / (costs.heap_bytes or 1e-9),
        "results": model.result_gib * _GIB / (costs.result_bytes or 1e-9),
        "broadcast": model.broadcast_gib * _GIB / model.label_row_bytes,
        "listing": 3600 / (2 * costs.first_look_s or 1e-9),
    }


def cost_rows(costs: Costs, size_px: int) -> list[Row]:
    """What a galaxy costs, with the file it comes from."""
    growth, of_size = "growth.json", f"views of {size_px} px"
    core_ms = {
        "augment, core ms": (costs.augment_core_s, "augment.json"),
        "extract of one view, core ms": (costs.extract_core_s, "extract.json"),
        "training on one view, core ms": (costs.train_core_s, "train.json"),
    }
    rows: list[Row] = [("of each galaxy", of_size, "views of 224 px", "from")]
    for name, (core_s, of_224) in core_ms.items():
        source = of_224 if name.startswith("training") else f"{growth}, {of_224}"
        small = f"{core_s[size_px] * 1e3:.2f}" if size_px in core_s else ""
        rows.append((name, small, f"{core_s[_SIZE_PX] * 1e3:.2f}", source))
    view_kb = {size: size_bytes / 1e3 for size, size_bytes in costs.view_bytes.items()}
    rows += [
        ("16 views, kB", f"{view_kb[size_px]:.1f}", f"{view_kb[_SIZE_PX]:.1f}", f"{growth}, scale.json"),
        ("image, kB", f"{costs.image_bytes / 1e3:.1f}", "", growth),
        ("features of one view, kB", f"{costs.feature_bytes / 1e3:.2f}", "", growth),
        ("driver's heap, bytes", _seen(costs.heap_bytes, ",.0f"), "", growth),
        ("results to the driver of the largest Spark job, bytes", f"{costs.result_bytes:,.0f}", "", growth),
        ("shuffle, bytes", f"{costs.shuffle_bytes:,.0f}", "", growth),
        ("listing its file once, ms", _seen(costs.first_look_s * 1e3, ".3f"), "", growth),
    ]
    for stage in ("augment", "extract"):
        rows.append((f"{stage} with no task running, ms", _seen(costs.driver_s[stage] * 1e3, ".2f"), "", growth))
        rows.append((f"{stage} with no task running, of each run, s", f"{costs.fixed_s[stage]:.0f}", "", growth))
        rows.append((f"efficiency of {stage} on most executors", f"{costs.efficiency[stage]:.2f}", "", growth))
    return rows


def size_rows(costs: Costs, model: Model) -> list[Row]:
    """What lies on disk, by the number of galaxies."""
    header = (
        "galaxies",
        "images",
        *(f"views of {size_px} px" for size_px in costs.view_bytes),
        "features",
        "catalogue",
    )
    rows: list[Row] = [(*header, "files of views", "row groups at 224 px")]
    for number in model.galaxies:
        *of_bytes, files, row_groups = sizes(number, costs, model).values()
        rows.append((_many(number), *map(_bytes, of_bytes), f"{files:,.0f}", f"{row_groups:,.0f}"))
    return rows


def core_hour_rows(costs: Costs, model: Model) -> list[Row]:
    """Hours of a core, by stage, size of the views and number of galaxies."""
    rows: list[Row] = [("galaxies", "views", "augment", "train", "extract", "predict")]
    for size_px in sorted(set(costs.extract_core_s) & set(costs.train_core_s)):
        for number in model.galaxies:
            of_stages = core_seconds(number, size_px, costs, model).values()
            rows.append((_many(number), f"{size_px} px", *(f"{seconds / 3600:,.0f}" for seconds in of_stages)))
    return rows


def time_rows(costs: Costs, model: Model) -> list[Row]:
    """From start to end, by stage and number of galaxies."""
    header = ("galaxies", "cores", "GPUs", "augment", "train", "extract", "classify", "predict", "predict on GPUs")
    rows: list[Row] = [(*header, "of these listing")]
    for number, cores, gpus in zip(model.galaxies, model.cores, model.gpus, strict=True):
        seconds = wall_seconds(number, cores, gpus, costs, model).values()
        rows.append((_many(number), f"{cores:,}", f"{gpus:,}", *map(_time, seconds)))
    return rows


def limit_rows(costs: Costs, model: Model) -> list[Row]:
    """What breaks first, and what is done about it."""
    found = sorted(limits(costs, model).items(), key=lambda limit: limit[1])
    header: Row = ("galaxies", "what breaks", "what is done, or can be")
    return [header, *((_many(number) if number < 1e12 else "not seen", *_BREAKS[name]) for name, number in found)]


def _seen(growth: float, digits: str) -> str:
    """What grows with the galaxies, unless it was lost in what varies from run to run."""
    return format(growth, digits) if growth else "not seen"


def _many(number: float) -> str:
    """A number of galaxies in two digits."""
    power = int(f"{number:.1e}".partition("e")[2])
    digits = f"{number / 10**power:.1f}".removesuffix(".0")
    return f"10^{power}" if digits == "1" else f"{digits} x 10^{power}"


def _bytes(size: float) -> str:
    for unit, length in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if size >= length:
            return f"{size / length:,.3g} {unit}"
    return f"{size / 1e6:,.3g} MB"


def _time(seconds: float) -> str:
    for unit, length in (("years", 365.25 * 86_400), ("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:,.2g} {unit}" if seconds < 100 * length else f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} s" if seconds else "not seen"
