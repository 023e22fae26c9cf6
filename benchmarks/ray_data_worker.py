"""What ``ray_data`` runs in Ray's environment: starts Ray, then writes a dataset for every request.

Its settings are the best of those tried with 768 and 4,096 galaxies, on 2 cores that others used too. Two blocks a
core: no other number was faster, and Ray's own choice took about a quarter more time. Tasks: two actors held both
cores, and the run hung. Batches of 16 to 256 images, and partitions or none, made no difference beyond noise.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import pickle
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from pyarrow import csv

from galaxyspark.galaxyzoo.splits import SplitRule
from galaxyspark.galaxyzoo.tree import ID_COLUMN, MORPHOLOGY_CLASSES, VOTE_COLUMNS
from galaxyspark.memory import keep_freed_memory
from galaxyspark.views.augment import NUM_VIEWS, ViewRecipe, make_views

_BLOCKS_PER_CORE = 2
_IMAGES_PER_BATCH = 64
_OBJECT_STORE_BYTES = 2**30


def main() -> None:
    """Serve requests until there are no more; the argument is a directory for Ray's sockets and logs."""
    replies = _keep_stdout_for_replies()
    num_cores = len(os.sched_getaffinity(0))
    ray.init(
        address="local",
        num_cpus=num_cores,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=_OBJECT_STORE_BYTES,
        _temp_dir=sys.argv[1],
    )
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        print(json.dumps({"ready": True}), file=replies, flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            write_views(request, _BLOCKS_PER_CORE * num_cores)
            print(json.dumps({"dataset": request["dataset"]}), file=replies, flush=True)
    finally:
        ray.shutdown()


def _keep_stdout_for_replies() -> TextIO:
    """Whatever else is printed, here or by Ray's own processes, goes to stderr."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return replies


def write_views(request: dict[str, Any], num_blocks: int) -> None:
    """Make the views of all images of a request and write them, uncompressed, a directory per split."""
    arguments = {
        "labels": ray.put(read_labels(request["labels"])),  # once for all batches
        "recipe": pickle.loads(base64.b64decode(request["recipe"])),
        "split_rule": pickle.loads(base64.b64decode(request["split_rule"])),
    }
    images = ray.data.read_binary_files(request["images"], include_paths=True, override_num_blocks=num_blocks)
    views = images.map_batches(
        views_of_batch, fn_kwargs=arguments, batch_size=_IMAGES_PER_BATCH, batch_format="pyarrow", zero_copy_batch=True
    )
    views.write_parquet(request["dataset"], partition_cols=["split"], compression="none")


@lru_cache  # the Spark job's labels have been read before it makes views, too
def read_labels(file: str) -> pa.Table:
    """Read votes in the challenge's format: columns ``galaxy_id``, ``label`` and the 37 fields of the dataset."""
    types = {ID_COLUMN: pa.string()} | dict.fromkeys(VOTE_COLUMNS, pa.float32())
    votes = csv.read_csv(file, convert_options=csv.ConvertOptions(column_types=types))
    shares = np.column_stack([votes[column] for column in VOTE_COLUMNS[: len(MORPHOLOGY_CLASSES)]])
    labels = pa.array(MORPHOLOGY_CLASSES).take(pa.array(shares.argmax(axis=1)))
    fields = {column.replace(".", "_"): votes[column] for column in VOTE_COLUMNS}
    return pa.table({"galaxy_id": votes[ID_COLUMN], "label": labels} | fields).combine_chunks()


def views_of_batch(batch: pa.Table, labels: ray.ObjectRef, recipe: ViewRecipe, split_rule: SplitRule) -> pa.Table:
    """Images with their paths to one row a view: view 0 of all galaxies of the batch first, then view 1."""
    keep_freed_memory()
    labels = ray.get(labels)
    galaxy_ids = [Path(path).stem for path in batch["path"].to_pylist()]
    rows = pc.index_in(pa.array(galaxy_ids), value_set=labels["galaxy_id"])
    if rows.null_count:
        raise ValueError(f"{rows.null_count} of {len(rows)} images have no label.")
    views = [
        make_views(content.as_py(), galaxy_id, recipe)
        for content, galaxy_id in zip(batch["bytes"], galaxy_ids, strict=True)
    ]
    of_galaxies = labels.take(rows)
    splits = list(map(split_rule.split_of, galaxy_ids, of_galaxies["label"].to_pylist()))
    return (
        of_galaxies.take(pa.array(np.tile(np.arange(len(galaxy_ids)), NUM_VIEWS)))
        .add_column(1, "view", pa.array(np.repeat(np.arange(NUM_VIEWS, dtype=np.int8), len(galaxy_ids))))
        .append_column("image", pa.array([of_galaxy[view] for view in range(NUM_VIEWS) for of_galaxy in views]))
        .append_column("split", pa.array(splits * NUM_VIEWS))
    )


if __name__ == "__main__":
    main()
