"""The benchmark of GPUs on a machine without one: what it says there, and all of its steps on the processor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(run_submit) -> None:
    completed = run_submit("bench", "gpu")
    assert completed.returncode == 2
    assert "bench gpu: torch sees no GPU here" in completed.stderr
    assert "Traceback" not in completed.stderr


@pytest.mark.slow
def test_every_alternative_does_its_steps(run_submit, tmp_path: Path) -> None:
    results = tmp_path / "gpu.json"
    flags = ["--device", "cpu", "--view-size-px", 48, "--batch-size", 8, "--quick", "--out", results]
    completed = run_submit("bench", "gpu", *flags)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    written = json.loads(results.read_text())
    assert set(written["ratios"]) == {
        "fed_vs_fed_by_nvjpeg",
        "fed_vs_kept",
        "horovod_vs_plain",
        "features_of_jpegs_vs_features_of_pixels",
        "features_of_jpegs_vs_features_by_nvjpeg",
    }
    assert all(ratio > 0 for ratio in written["ratios"].values())
    assert written["device"] == {"used": {"name": "the processor"}}
