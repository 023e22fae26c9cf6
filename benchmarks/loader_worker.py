"""One measurement of ``loader``: one of its alternatives, in this process, from its second pass over the views on."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from petastorm import TransformSpec, make_reader
from petastorm.pytorch import DataLoader

from benchmarks.harness import tell_rate
from benchmarks.views import SEED, VIEW_SIZE_PX
from galaxyspark.dataset.read import Shard, Split, TrainingViews
from galaxyspark.galaxyzoo.tree import MORPHOLOGY_CLASSES
from galaxyspark.memory import keep_freed_memory
from galaxyspark.storage import as_url
from galaxyspark.views.decode import decode_views

_BATCH_SIZE = 32
_SHUFFLED_VIEWS = 2048
_PASSES = 5  # petastorm's reader now and then ends before the last row group (see galaxyspark.dataset.read)


def main(views: Path, name: str) -> None:
    """Measure the alternative ``name`` in this process."""
    files = sorted((views / "split=train").glob("*.parquet"))
    num_views = sum(pq.read_metadata(file).num_rows for file in files)
    run: Callable[[], int]
    if name == "loader":
        keep_freed_memory()
        run = partial(run_loader, views)
    elif name == "petastorm":
        run = partial(run_petastorm, views)
    else:
        keep_freed_memory()
        jpegs = [jpeg for file in files for jpeg in pq.read_table(file, columns=["image"])["image"].to_pylist()]
        run = partial(run_bare_decode, jpegs)
    for number in range(_PASSES):
        start = time.perf_counter()
        num_decoded = run()
        seconds = time.perf_counter() - start
        if number and num_decoded == num_views:
            return tell_rate(num_views / seconds)
    raise RuntimeError(f"{name} decoded {num_decoded:,} of {num_views:,} views.")


def run_loader(views: Path) -> int:
    """Ours; returns how many views were decoded."""
    split = Split(views, "train", MORPHOLOGY_CLASSES)
    training = TrainingViews(split, _BATCH_SIZE, Shard(), SEED, _SHUFFLED_VIEWS)
    with closing(training.epoch(1)) as batches:
        return sum(len(batch.images) for batch in batches)


def run_petastorm(views: Path) -> int:
    """Petastorm's; returns how many views were decoded."""
    # A batch of torch tensors has no text.
    classes = TransformSpec(_with_class, [("position", np.int64, (), False)], removed_fields=["label"])
    reader = make_reader(
        as_url(views),  # what petastorm decodes by lies here, not beside the split's own files
        schema_fields=["label", "image"],
        filters=[("split", "=", "train")],
        seed=SEED,
        transform_spec=classes,
    )
    num_views = 0
    with DataLoader(reader, batch_size=_BATCH_SIZE, shuffling_queue_capacity=_SHUFFLED_VIEWS) as loader:
        for batch in loader:
            if batch["image"].shape[1:] != (VIEW_SIZE_PX, VIEW_SIZE_PX, 3):
                raise RuntimeError(f"petastorm gave images of shape {tuple(batch['image'].shape)}.")
            num_views += len(batch["image"])
    return num_views


def _with_class(row: dict[str, Any]) -> dict[str, Any]:
    return {"image": row["image"], "position": MORPHOLOGY_CLASSES.index(row["label"])}


def run_bare_decode(jpegs: Sequence[bytes]) -> int:
    """Decoding alone; returns how many views were decoded."""
    batches = [jpegs[start : start + _BATCH_SIZE] for start in range(0, len(jpegs), _BATCH_SIZE)]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return sum(pool.map(lambda batch: len(decode_views(batch)), batches))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
