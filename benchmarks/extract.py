"""Views a second of the stage extract, against OpenVINO without Spark and against a plain torch UDF in Spark.

All alternatives take the same views, on all cores:

- ``spark``: the job's own path, by OpenVINO in bfloat16, from the views on disk to the features on disk;
- ``bare_openvino``: the same program in as many processes as cores, one thread each, from the views on disk; nothing is
  written;
- ``eager_fp32``: a pandas UDF as tutorials have it: torch in float32, one thread a task, the features written.

With ``--run`` the views and the network are those of a run that was trained, and the results also say how far the
runtimes agree, in features and in accuracy. Else galaxies are simulated, 224 px, and the weights are random.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch
import tyro
from pydantic import TypeAdapter
from pyspark import Broadcast
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from torch import Tensor, nn

from benchmarks.harness import Alternative, GalaxiesBenchmarkSettings, Measurement, measure, report
from benchmarks.views import SEED, make_views
from galaxyspark.features.extract import with_inference
from galaxyspark.features.inference import Inference, Program, Runtime, infer
from galaxyspark.features.programs import make_program
from galaxyspark.galaxyzoo.tree import MORPHOLOGY_CLASSES
from galaxyspark.network.card import ModelCard, load_card
from galaxyspark.network.model import load_weights
from galaxyspark.network.networks import ARCHITECTURES, FeatureNetwork, build_network, to_input
from galaxyspark.run_directory import RunDirectory
from galaxyspark.spark import start_session
from galaxyspark.storage import as_url
from galaxyspark.views.augment import ViewRecipe
from galaxyspark.views.decode import decode_views

_BATCH_VIEWS = 64
_LOADED: list[Runtime] = []  # in each process of the pool
_COLUMNS = ("galaxy_id", "view", "split", "label", "features", "probabilities")


@dataclass(frozen=True, kw_only=True)
class ExtractBenchmark(GalaxiesBenchmarkSettings):
    """Views a second of the stage extract, against OpenVINO without Spark and a plain torch UDF in Spark."""

    num_galaxies: int = 256
    """Galaxies to simulate, with 16 views each."""
    run: Path | None = None
    """A trained run, whose views of validation and test galaxies are taken, and whose network."""


@dataclass(frozen=True)
class Work:
    """What every alternative has to do.

    Attributes:
        files: Parquet files of views, all of which are taken.
        num_views: In them.
        card: Of the network.
        state: Its weights.
        program: The network for OpenVINO, in bfloat16.
    """

    files: tuple[Path, ...]
    num_views: int
    card: ModelCard
    state: dict[str, Tensor]
    program: Program


def main(arguments: Sequence[str]) -> None:
    """Measure and report; ``arguments`` are flags as ``--help`` lists them."""
    settings = tyro.cli(ExtractBenchmark, args=arguments, prog="bench extract")
    num_galaxies, rounds = settings.amount()
    with tempfile.TemporaryDirectory(prefix="galaxyspark-bench-") as directory:
        work = prepare(settings.run, Path(directory), num_galaxies)
        measurements = measure_all(work, rounds)
        further = {"agreement": agreement(work)} if settings.run else {}
    report("extract", measurements, settings, further)


def prepare(run: Path | None, directory: Path, num_galaxies: int) -> Work:
    """The views and the network."""
    if run:
        root, splits = RunDirectory(run), ("split=validation", "split=test")
        card, state = load_card(root.path("model")), load_weights(root.path("model"))
        files = [file for split in splits for file in (root.path("views") / split).glob("*.parquet")]
    else:
        views = make_views(directory, num_galaxies) / "views"
        card, state = random_network(RunDirectory(directory).manifest("augment")["recipe"])
        files = list(views.rglob("*.parquet"))
    num_views = sum(pq.read_metadata(file).num_rows for file in files)
    return Work(tuple(sorted(files)), num_views, card, state, make_program(card, state, "openvino", "bfloat16"))


def random_network(recipe: dict[str, Any]) -> tuple[ModelCard, dict[str, Tensor]]:
    """GoogLeNet as it is before training."""
    torch.manual_seed(SEED)
    network = build_network("googlenet", len(MORPHOLOGY_CLASSES))
    card = ModelCard(
        classes=MORPHOLOGY_CLASSES,
        recipe=TypeAdapter(ViewRecipe).validate_python(recipe),
        training={},
        versions={},
        network="googlenet",
        objective="classes",
        pixel_mean=ARCHITECTURES["googlenet"].pixel_mean,
        pixel_std=ARCHITECTURES["googlenet"].pixel_std,
    )
    return card, network.state_dict()


def measure_all(work: Work, rounds: int) -> list[Measurement]:
    """The stage against each other way to do it."""
    spark = start_session("bench extract")
    cores = spark.sparkContext.defaultParallelism
    with ExitStack() as stack:
        # Not forked: this process runs Spark's threads.
        pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(cores, _load, (work.program,)))
        ours = Alternative("spark", partial(run_spark, spark, work), count_rows)
        others = [
            Alternative("bare_openvino", partial(run_bare, pool, work)),
            Alternative("eager_fp32", partial(run_eager, spark, work), count_rows),
        ]
        measurements = [measure([ours, other], work.num_views, "views", rounds) for other in others]
    spark.stop()
    return measurements


def run_spark(spark: SparkSession, work: Work, directory: Path) -> Path:
    """The job's own path; returns the features it wrote."""
    views_df = spark.read.parquet(*map(as_url, work.files)).withColumn("split", F.lit("test"))
    features_df = with_inference(spark, views_df, work.program, work.card).select(*_COLUMNS)
    features_df.write.parquet(as_url(directory / "features"))
    return directory / "features"


def run_bare(pool: Pool, work: Work, _: Path) -> int:
    """OpenVINO alone; returns how many views were classified."""
    parts = [(file, group) for file in work.files for group in range(pq.read_metadata(file).num_row_groups)]
    return sum(pool.imap_unordered(_classify_row_group, parts))


def _load(program: Program) -> None:
    _LOADED.append(program.load(num_threads=1))


def _classify_row_group(part: tuple[Path, int]) -> int:
    file, group = part
    jpegs = pq.ParquetFile(file).read_row_group(group, columns=["image"])["image"].to_pylist()
    batches = (jpegs[start : start + _BATCH_VIEWS] for start in range(0, len(jpegs), _BATCH_VIEWS))
    return sum(len(infer(_LOADED[0], batch).features) for batch in batches)


def run_eager(spark: SparkSession, work: Work, directory: Path) -> Path:
    """A torch UDF; returns the features it wrote."""
    model = spark.sparkContext.broadcast((work.card, work.state))
    views_df = spark.read.parquet(*map(as_url, work.files)).withColumn("split", F.lit("test"))
    features_df = views_df.withColumn("inference", eager_udf(model)("image")).select("*", "inference.*")
    features_df.select(*_COLUMNS).write.parquet(as_url(directory / "features"))
    return directory / "features"


def eager_udf(model: Broadcast[Any]) -> Callable[..., Any]:
    """Torch in float32, in its usual memory order."""

    @F.pandas_udf("features array<float>, probabilities array<float>")  # type: ignore[attr-defined,untyped-decorator]
    def infer_views(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        torch.set_num_threads(1)
        card, state = model.value
        network = eager_network(card, state)
        for jpegs in batches:
            images = torch.from_numpy(decode_views(jpegs.tolist()))
            with torch.inference_mode():
                features, logits = network(to_input(images, card.pixel_mean, card.pixel_std).contiguous())
                probabilities = torch.softmax(logits, dim=1)
            yield pd.DataFrame({"features": list(features.numpy()), "probabilities": list(probabilities.numpy())})

    return infer_views  # type: ignore[no-any-return]


def eager_network(card: ModelCard, state: dict[str, Tensor]) -> nn.Module:
    """GoogLeNet with its weights in torch's usual memory order."""
    network = build_network(card.network, len(card.classes))
    network.load_state_dict(state)
    return FeatureNetwork(card.network, network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def count_rows(features: Path) -> int:
    """How many rows the files say they have."""
    return sum(pq.read_metadata(file).num_rows for file in features.glob("*.parquet"))


def agreement(work: Work) -> dict[str, dict[str, float]]:
    """How far the runtimes agree on view 0 of every galaxy, by runtime and precision; see ``compared``."""
    table = ds.dataset(list(work.files)).to_table(columns=["label", "image"], filter=ds.field("view") == 0)
    jpegs, labels = table["image"].to_pylist(), np.array(table["label"].to_pylist())
    said = {}
    for runtime in ("torch", "openvino"):
        for precision in ("float32", "bfloat16"):
            program = make_program(work.card, work.state, runtime, precision)  # type: ignore[arg-type]
            said[f"{runtime}_{precision}"] = infer(program.load(num_threads=2), jpegs)
    reference = said["torch_float32"]
    classes = np.array(work.card.classes)
    return {
        name: {"accuracy": float((classes[each.probabilities.argmax(axis=1)] == labels).mean())}
        | compared(each, reference)
        for name, each in said.items()
    }


def compared(inference: Inference, reference: Inference) -> dict[str, float]:
    """Least and mean cosine of the features, largest difference of a probability, galaxies whose class is another."""
    lengths = np.linalg.norm(inference.features, axis=1) * np.linalg.norm(reference.features, axis=1)
    cosines = (inference.features * reference.features).sum(axis=1) / lengths
    classes, reference_classes = (each.probabilities.argmax(axis=1) for each in (inference, reference))
    return {
        "least_cosine": float(cosines.min()),
        "mean_cosine": float(cosines.mean()),
        "largest_probability_difference": float(np.abs(inference.probabilities - reference.probabilities).max()),
        "classes_changed": float((classes != reference_classes).sum()),
    }
