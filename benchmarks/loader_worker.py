"""One measurement of ``loader``: one of its alternatives has two passes over the views; the second is timed."""

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

import cv2
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from petastorm import TransformSpec, make_reader
from petastorm.pytorch import DataLoader

from benchmarks.harness import tell_rate
from benchmarks.views import SEED
from galaxyspark.dataset.read import Shard, Split, TrainingViews
from galaxyspark.galaxyzoo.tree import MORPHOLOGY_CLASSES
from galaxyspark.network.memory import keep_freed_memory
from galaxyspark.run_directory import file_url

_BATCH_SIZE = 32
_SHUFFLED_VIEWS = 2048


def main(views: Path, name: str) -> None:
    """Measure the alternative ``name`` in this process."""
    files = sorted((views / "split=train").glob("*.parquet"))
    num_views = sum(pq.read_metadata(file).num_rows for file in files)
    run: Callable[[], int]
    if name == "loader":
        keep_freed_memory()
        run = partial(run_loader, views)
    elif name == "petastorm":
        run = partial(run_petastorm, views, num_views)
    else:
        jpegs = [jpeg for file in files for jpeg in pq.read_table(file, columns=["image"])["image"]]
        run = partial(run_bare_decode, [np.frombuffer(jpeg.as_buffer(), np.uint8) for jpeg in jpegs])
    for _ in range(2):
        start = time.perf_counter()
        num_decoded = run()
        seconds = time.perf_counter() - start
    if num_decoded != num_views:
        raise RuntimeError(f"{name} decoded {num_decoded:,} of {num_views:,} views.")
    tell_rate(num_views / seconds)


def run_loader(views: Path) -> int:
    """Ours; returns how many views were decoded."""
    split = Split(views, "train", MORPHOLOGY_CLASSES)
    training = TrainingViews(split, _BATCH_SIZE, Shard(), SEED, _SHUFFLED_VIEWS)
    with closing(training.epoch(1)) as batches:
        return sum(len(batch.images) for batch in batches)


def run_petastorm(views: Path, num_views: int) -> int:
    """Petastorm's; returns how many views were decoded.

    Its reader, asked for one epoch, may end before the last row group: it is asked for no end and stopped.
    """
    num_seen = 0
    # A batch of torch tensors has no text.
    classes = TransformSpec(_with_class, [("position", np.int64, (), False)], removed_fields=["label"])
    url = file_url(views / "split=train")
    reader = make_reader(url, schema_fields=["label", "image"], num_epochs=None, seed=SEED, transform_spec=classes)
    with DataLoader(reader, batch_size=_BATCH_SIZE, shuffling_queue_capacity=_SHUFFLED_VIEWS) as loader:
        for batch in loader:
            num_seen += len(batch["image"])
            if num_seen >= num_views:
                break
    return min(num_seen, num_views)


def _with_class(row: dict[str, Any]) -> dict[str, Any]:
    return {"image": row["image"], "position": MORPHOLOGY_CLASSES.index(row["label"])}


def run_bare_decode(encoded: Sequence[NDArray[np.uint8]]) -> int:
    """Decoding alone; returns how many views were decoded."""
    threads = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(_decode_all, [encoded[start::threads] for start in range(threads)]))


def _decode_all(encoded: Sequence[NDArray[np.uint8]]) -> int:
    return sum(cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB) is not None for jpeg in encoded)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
