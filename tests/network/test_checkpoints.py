"""Checkpoints: only whole ones are read, the newest first, and nothing in them is run."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from galaxyspark.errors import UserError
from galaxyspark.network.checkpoints import Checkpoints


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in (9, 10, 200):
        checkpoints.write(step, {"step": step, "network": {"weight": torch.full((1000,), float(step))}})
    return checkpoints


def test_the_last_ones_are_kept_and_nothing_else(checkpoints: Checkpoints) -> None:
    assert sorted(path.name for path in checkpoints.directory.iterdir()) == ["step-00000010.pt", "step-00000200.pt"]
    found = checkpoints.newest()
    assert found is not None
    assert found["step"] == 200
    assert torch.equal(found["network"]["weight"], torch.full((1000,), 200.0))


def test_those_of_later_steps_go_when_a_training_goes_on_from_an_earlier_one(checkpoints: Checkpoints) -> None:
    checkpoints.write(100, {"step": 100})
    assert [path.name for path in checkpoints.files()] == ["step-00000010.pt", "step-00000100.pt"]
    found = checkpoints.newest()
    assert found is not None
    assert found["step"] == 100


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_newest_is_passed_over_and_said_so(
    share: float, checkpoints: Checkpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = checkpoints.files()[-1]
    newest.write_bytes(newest.read_bytes()[: int(share * newest.stat().st_size)])
    found = checkpoints.newest()
    assert found is not None
    assert found["step"] == 10
    assert f"{newest}: passed over, as it is damaged" in capsys.readouterr().err


def test_a_flipped_bit_in_the_weights_is_damage_too(checkpoints: Checkpoints) -> None:
    newest = checkpoints.files()[-1]
    content = bytearray(newest.read_bytes())
    position = content.find(torch.full((1000,), 200.0).numpy().tobytes())
    content[position + 40] ^= 1
    newest.write_bytes(content)
    found = checkpoints.newest()
    assert found is not None
    assert found["step"] == 10


def test_a_checkpoint_that_would_run_code_is_not_read(checkpoints: Checkpoints, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "was run",)

    for file in checkpoints.files():
        torch.save({"step": Harmful()}, file, pickle_module=pickle)
    with pytest.raises(UserError, match="no checkpoint there can be read. Start over with --no-resume"):
        checkpoints.newest()
    assert not (tmp_path / "was run").exists()


def test_where_there_is_none_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "nothing here", keep=1).newest() is None


def test_what_a_killed_writer_left_behind_goes_with_the_next_checkpoint(checkpoints: Checkpoints) -> None:
    leftover = checkpoints.directory / ".step-00000300.pt.0123abcd"
    leftover.write_bytes(b"half")
    checkpoints.write(301, {"step": 301})
    assert not leftover.exists()
    found = checkpoints.newest()
    assert found is not None
    assert found["step"] == 301
