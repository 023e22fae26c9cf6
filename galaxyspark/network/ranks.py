"""The ranks of a training: how they start Horovod, what each computes on, and how all of them end together."""

from __future__ import annotations

import os
import time

import pyarrow as pa  # noqa: F401  (before torch, as petastorm asks)

import horovod.torch as hvd  # isort: skip
import torch
from tqdm import tqdm

from galaxyspark.errors import UserError
from galaxyspark.network.compiled_layers import WHY_MISSING
from galaxyspark.network.devices import device_of

STOPPED = 143
"""Exit status of a rank after SIGTERM, as shells have it; horovodrun's own is then 1."""


def start_horovod() -> None:
    """Start Horovod, with this rank's share of the cores for torch."""
    if not _has_gpu():  # looking for work every millisecond, its default, takes the ranks' own cores
        os.environ.setdefault("HOROVOD_CYCLE_TIME", "10")
    hvd.init()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // hvd.local_size()))


def device_of_rank() -> torch.device:
    """This rank's GPU, where there is one and Horovod was built for it: in Spark's executors the one Spark gave it.

    Raises:
        UserError: This host has fewer GPUs than ranks, or Spark gave one that Horovod or torch cannot use.
    """
    from horovod.spark.task import get_available_devices

    given = get_available_devices()
    if given and not hvd.nccl_built():
        raise UserError("Spark gives each rank a GPU, but Horovod was compiled without: ./submit.sh setup --gpu")
    if given or _has_gpu():
        return device_of(int(given[0]) if given else hvd.local_rank())
    if torch.cuda.is_available() and hvd.rank() == 0:
        tqdm.write("There is a GPU here, but Horovod was compiled without: training on the processor.")
        tqdm.write("To train on the GPU: ./submit.sh setup --gpu")
    if WHY_MISSING and hvd.rank() == 0:
        tqdm.write(
            f"Training with torchvision's layers, as the compiled ones, which are faster, are missing: {WHY_MISSING}"
        )
        tqdm.write("To compile them anew: rm -f galaxyspark_kernels/library.so && ./submit.sh setup")
    return torch.device("cpu")


def error_of_all_ranks(message: str, status: int) -> BaseException:
    """An error for the user from rank 0; the other ranks end with the same status in silence."""
    if hvd.rank() == 0:
        return UserError(message, status)
    time.sleep(1)  # horovodrun ends all ranks when one has ended: let rank 0 be heard
    return SystemExit(status)


def _has_gpu() -> bool:
    return bool(hvd.cuda_built()) and torch.cuda.is_available()
