"""Training: what it publishes, how it goes on after it was stopped, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import signal
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.tree import MORPHOLOGY_CLASSES
from galaxyspark.network.card import load_card
from galaxyspark.network.checkpoints import Checkpoints
from galaxyspark.network.learner import Step
from galaxyspark.network.objectives import make_objective
from galaxyspark.network.progress import read_progress
from galaxyspark.network.ranks import STOPPED, start_horovod
from galaxyspark.network.trainer import Trainer
from galaxyspark.network.training import train
from galaxyspark.network.unseen import require_unseen_galaxies
from galaxyspark.run_directory import RunDirectory, duration_s
from galaxyspark.settings import TrainJob, TrainSettings

SMALL = TrainSettings(weights="none", network="resnet18", epochs=2, batch_size=64, ema_decay=0.9)


@pytest.fixture(scope="module")
def manifests(finished_run: Path) -> dict:
    directory = finished_run / "manifests"
    return {stage: json.loads((directory / f"{stage}.json").read_text()) for stage in ("augment", "train")}


@pytest.fixture(scope="module")
def history(finished_run: Path) -> list[dict]:
    return [json.loads(line) for line in (finished_run / "history.jsonl").read_text().splitlines()]


def test_validation_counts_the_whole_split_on_two_ranks(finished_run: Path, history: list[dict]) -> None:
    validation_pdf = pd.read_parquet(finished_run / "views" / "split=validation", columns=["view"])
    assert [row["num_galaxies"] for row in history] == [int((validation_pdf["view"] == 0).sum())] * 2


def test_ranks_make_the_same_number_of_steps(history: list[dict], manifests: dict) -> None:
    """As many as the larger of the two shards has batches of 16."""
    first, second = (row["step"] for row in history)
    views = manifests["augment"]["counts"]["views"]["train"]
    assert second == 2 * first
    assert views / 32 <= first <= views / 16
    assert manifests["train"]["ranks"] == 2


def test_the_published_model_is_the_best_epochs(finished_run: Path, history: list[dict]) -> None:
    card = load_card(finished_run / "model")
    assert card.training["chosen"]["accuracy"] == max(row["accuracy"] for row in history)
    published = load_file(finished_run / "model" / "weights.safetensors")
    checkpoint = Checkpoints(finished_run / "checkpoints", keep=2).newest()
    assert checkpoint is not None
    assert checkpoint["finished"]
    assert published.keys() == checkpoint["best_state"].keys()
    assert all(torch.equal(published[name], checkpoint["best_state"][name]) for name in published)


def test_the_card_says_what_the_weights_expect(finished_run: Path, manifests: dict) -> None:
    card = load_card(finished_run / "model")
    assert card.classes == tuple(manifests["augment"]["classes"])
    assert (card.recipe.size_px, card.colour_order, card.network, card.objective) == (48, "RGB", "googlenet", "classes")
    assert card.training["augment"] == manifests["augment"]["id"]


def test_curves_are_there_for_tensorboard(finished_run: Path, history: list[dict]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished_run / "tensorboard"))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("validation/accuracy")]
    assert shown == [(row["step"], pytest.approx(row["accuracy"])) for row in history]


# From here on one rank, in this process.


@pytest.fixture
def run(augmented_run: Path, tmp_path: Path) -> Iterator[Path]:
    """A run with the views of another, and Horovod as one rank."""
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "augment.json").write_text((augmented_run / "manifests" / "augment.json").read_text())
    (tmp_path / "views").symlink_to(augmented_run / "views")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    threads = torch.get_num_threads()
    start_horovod()
    assert hvd.size() == 1
    yield tmp_path
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def job_of(run: Path, **settings: Any) -> TrainJob:
    return TrainJob(run=run, train=dataclasses.replace(SMALL, **settings))


def trainer_of(job: TrainJob) -> Trainer:
    return Trainer(job, RunDirectory(job.run), RunDirectory(job.run).manifest("augment"))


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.learner.network.state_dict().items()}


def stop_before(trainer: Trainer, step: int) -> None:
    """Let a training be asked to stop as it begins a step, which it then finishes."""
    inner = trainer.learner.step

    def stepping(*arguments: Any) -> Any:
        trainer.stop_asked = trainer.step + 1 == step
        return inner(*arguments[:-1], trainer.stop_asked)

    trainer.learner.step = stepping  # type: ignore[method-assign]


@pytest.mark.parametrize(("objective", "share"), [("classes", 0.1), ("votes", 0.8), ("classes", 0.5), ("classes", 1.0)])
def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(
    objective: str, share: float, run: Path, tmp_path: Path
) -> None:
    """Also where all steps of an epoch, or all there are, were made, but it was not validated any more."""
    job = job_of(run, objective=objective)
    whole = trainer_of(job)
    whole.run_epochs()
    step = round(share * whole.step)
    for file in whole.checkpoints.files():
        file.unlink()

    stopped = trainer_of(job)
    stop_before(stopped, step)
    with pytest.raises(UserError, match=f"Stopped after step {step} of {whole.step}, as asked. Run it again") as error:
        stopped.run_epochs()
    assert error.value.status == STOPPED

    resumed = trainer_of(job)
    assert resumed.step == step
    resumed.run_epochs()
    assert resumed.history == whole.history
    for ours, theirs in ((weights_of(resumed), weights_of(whole)), (resumed.best_state, whole.best_state)):
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_training_goes_on_within_the_epoch_where_epochs_have_fewer_steps_now(epochs: int, run: Path) -> None:
    """As with more ranks: the checkpoint is of the first step of an epoch, which now is a sixth of one."""
    stopped = trainer_of(job_of(run))
    per_epoch = stopped.plan.steps_per_epoch
    stop_before(stopped, epochs * per_epoch + 1)
    with pytest.raises(UserError):
        stopped.run_epochs()
    content = stopped.checkpoints.newest()
    assert content
    of_more_steps = {"steps_per_epoch": 6 * per_epoch, "step": epochs * 6 * per_epoch + 1}
    stopped.checkpoints.write(content["step"], content | of_more_steps)
    resumed = trainer_of(job_of(run))
    resumed.run_epochs()
    assert [(row["epoch"], row["step"]) for row in resumed.history] == [(1, per_epoch), (2, 2 * per_epoch)]


def test_a_finished_training_starts_anew_and_says_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = job_of(run, epochs=1)
    assert train(job)
    assert [file.name for file in (run / "checkpoints").iterdir()]
    [events] = (run / "tensorboard").iterdir()
    assert "Starting a new training" not in capsys.readouterr().out
    assert trainer_of(job).step == 0
    assert not list((run / "checkpoints").iterdir())
    assert not events.exists()
    assert "Starting a new training (the last one had finished, or on other views)." in capsys.readouterr().out


def test_going_on_with_other_settings_is_refused(run: Path) -> None:
    stopped = trainer_of(job_of(run))
    stop_before(stopped, 2)
    with pytest.raises(UserError):
        stopped.run_epochs()
    said = r"had batch_size 64, not 32; ema_decay .*, not 0.5. Go on with --config .*settings.yaml.*--no-resume"
    with pytest.raises(UserError, match=said):
        trainer_of(job_of(run, batch_size=32, ema_decay=0.5))
    with pytest.raises(UserError, match="had weights none, not nowhere"):  # before it looks for these
        train(dataclasses.replace(job_of(run, weights="nowhere"), check=True))
    assert trainer_of(job_of(run, epochs=5)).step == 2
    assert trainer_of(job_of(run, batch_size=32, resume=False)).step == 0


def test_a_checkpoint_from_before_a_setting_goes_on_as_training_was_then(run: Path) -> None:
    stopped = trainer_of(job_of(run, turn_views=False))
    stop_before(stopped, 2)
    with pytest.raises(UserError):
        stopped.run_epochs()
    content = stopped.checkpoints.newest()
    assert content
    del content["identity"]["turn_views"]
    stopped.checkpoints.write(2, content)
    assert trainer_of(job_of(run, turn_views=False)).step == 2
    with pytest.raises(UserError, match=r"had turn_views False, not True"):
        trainer_of(job_of(run, turn_views=True))


def test_replaced_views_are_trained_on_from_the_start(run: Path) -> None:
    stopped = trainer_of(job_of(run))
    stop_before(stopped, 2)
    with pytest.raises(UserError):
        stopped.run_epochs()
    file = run / "manifests" / "augment.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"id": "of other views"}))
    assert trainer_of(job_of(run)).step == 0


def test_a_loss_that_is_no_number_stops_before_the_step(run: Path) -> None:
    trainer = trainer_of(job_of(run, learning_rate=1e30, max_gradient_norm=0.0))
    with pytest.raises(UserError, match=r"Step \d+: the loss of rank 0 is (nan|inf). Stopped before it") as error:
        trainer.run_epochs()
    assert error.value.status == 1
    assert not trainer.checkpoints.files()


def test_frozen_layers_stay_as_they_are(run: Path) -> None:
    frozen = trainer_of(job_of(run, epochs=1, freeze=1))
    before = weights_of(frozen)
    frozen.run_epochs()
    changed = {name for name, value in weights_of(frozen).items() if not torch.equal(value, before[name])}
    assert changed == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    ("best_by", "values", "best"),
    [
        ("loss", [3.0, 2.0, 2.5, 2.2, 1.0], [True, True, False, False]),
        ("accuracy", [0.5, 0.6, 0.6, 0.6, 0.7], [True, True, True, True]),
    ],
)
def test_training_ends_when_two_epochs_were_no_better(
    best_by: str, values: list[float], best: list[bool], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(job_of(run, epochs=9, patience=2, best_by=best_by))
    rest = iter(values)
    validate = trainer.validate
    monkeypatch.setattr(trainer, "validate", lambda: dataclasses.replace(validate(), **{best_by: next(rest)}))
    trainer.run_epochs()
    assert [row[best_by] for row in trainer.history] == values[:4]
    assert [row["best"] for row in trainer.history] == best
    assert trainer.cut_short_by() == "--patience 2"


@pytest.mark.parametrize("later_s", [0.5, 2.0, 5.0])
def test_the_time_allowed_holds_where_steps_get_slower_or_faster(
    later_s: float, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps take a second, and another time from the 21st on, by a clock of the test's own."""
    trainer = trainer_of(job_of(run, epochs=100, max_minutes=2.5))
    took: list[float] = []
    count = trainer._count

    def counting(loss: float, views: int, seconds: float) -> None:
        took.append(1.0 if trainer.step < 20 else later_s)
        count(loss, views, took[-1])

    monkeypatch.setattr(trainer, "_count", counting)
    monkeypatch.setattr(trainer.learner, "step", lambda *arguments: Step(1.0, stop=False))
    trainer.run_epochs()
    assert abs(sum(took) - 150) <= later_s
    assert trainer.history[-1]["step"] == trainer.step == len(took)


def test_the_time_allowed_is_that_of_all_sittings(run: Path) -> None:
    trained_s = 0.0
    for step, minutes in [(3, 5.0), (6, 5.0), (9, 4.0)]:
        sitting = trainer_of(job_of(run, epochs=1_000, max_minutes=minutes))
        assert sitting.earlier_s == pytest.approx(trained_s)
        if trained_s:  # planned at once, by the speed until then
            fitting = sitting.step + int((60 * minutes - trained_s) / (trained_s / sitting.step))
            assert sitting.plan.total_steps == min(fitting, sitting.plan.asked_steps)
        sitting.training_s = 60.0  # as if it had been slow until now
        stop_before(sitting, step)
        # How many there will be is not known before the speed is.
        with pytest.raises(UserError, match=f"Stopped after step {step}{' of' if trained_s else ','}"):
            sitting.run_epochs()
        progress = read_progress(run / "checkpoints")
        assert progress
        assert progress[0].total_steps == (sitting.plan.total_steps if trained_s else None)
        trained_s += sitting.training_s
    assert trained_s > 180
    overdue = trainer_of(job_of(run, epochs=1_000, max_minutes=2.5))
    overdue.run_epochs()
    assert overdue.cut_short_by() == "--max-minutes 2.5"
    assert (overdue.step, overdue.history[-1]["step"]) == (9, 9)


def test_the_duration_that_is_published_is_that_of_all_sittings(run: Path) -> None:
    stopped = trainer_of(job_of(run))
    stopped.started_at -= 5_000  # as if it had been there for so long
    stop_before(stopped, 3)
    with pytest.raises(UserError):
        stopped.run_epochs()
    assert train(job_of(run)) is not None
    manifest = RunDirectory(run).manifest("train")
    assert manifest["duration_s"] < 600
    assert 5_000 < duration_s(manifest) < 5_600


def test_writing_checkpoints_takes_nothing_of_the_time_allowed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(job_of(run, epochs=1, checkpoint_minutes=1e-9))
    monkeypatch.setattr(trainer.learner, "step", lambda *arguments: Step(1.0, stop=False))
    written: list[int] = []

    def write_slowly() -> None:
        time.sleep(1.0)
        written.append(trainer.step)

    monkeypatch.setattr(trainer, "write_checkpoint", write_slowly)
    trainer.run_epochs()
    assert len(set(written)) == trainer.step == trainer.plan.steps_per_epoch
    assert trainer.training_s < 0.5 * len(written)


def test_more_epochs_are_made_where_the_time_allows_for_them(run: Path) -> None:
    stopped = trainer_of(job_of(run, max_minutes=60.0))
    stop_before(stopped, 3)
    with pytest.raises(UserError):
        stopped.run_epochs()
    plan = trainer_of(job_of(run, epochs=5, max_minutes=60.0)).plan
    assert plan.total_steps == plan.asked_steps == 5 * plan.steps_per_epoch


SMOOTH, FEATURED, ARTIFACT = MORPHOLOGY_CLASSES


@pytest.mark.parametrize(
    ("split", "labels", "refused"),
    [
        ({}, "same", ""),
        ({"fractions": [0.5, 0.3, 0.2]}, "same", ""),
        ({"fractions": [0.7, 0.1, 0.2]}, "same", "have --split-seed 0 .* 0.7 0.1 0.2 --no-stratify, these "),
        ({"seed": 1}, "same", "have --split-seed 1 .* 0.2 --no-stratify, these --split-seed 0 "),
        ({"seed": 1}, "others", ""),
        ({"ends": {SMOOTH: [0.5, 0.8], FEATURED: [0.6, 0.7]}}, "same", ""),
        ({"ends": {SMOOTH: [0.5, 0.8], FEATURED: [0.61, 0.7]}}, "same", "have .* --stratify, these "),
        ({"ends": {SMOOTH: [0.5, 0.81], FEATURED: [0.6, 0.7]}}, "same", "have .* --stratify, these "),
    ],
)
@pytest.mark.parametrize("place", ["", "model/weights.safetensors"])
def test_weights_that_have_seen_the_galaxies_of_validation_or_test_are_refused(
    place: str, split: dict[str, Any], labels: str, refused: str, finished_run: Path, run: Path, tmp_path: Path
) -> None:
    card = json.loads((finished_run / "model" / "card.json").read_text())
    learned = card["training"]
    assert learned["split"] == {"fractions": [0.6, 0.2, 0.2], "seed": 0, "ends": {}}
    assert learned["labels"] == RunDirectory(run).manifest("augment")["inputs"]["labels"]
    learned["split"] |= split
    if labels == "others":
        learned["labels"] = "others.csv"
    (tmp_path / "other" / "model").mkdir(parents=True)
    (tmp_path / "other" / "model" / "card.json").write_text(json.dumps(card))
    (tmp_path / "other" / "model" / "weights.safetensors").write_bytes(b"")
    # They are no weights: the galaxies are looked at first.
    message = f"for validation or test here.*{refused}" if refused else "not a safetensors file"
    for check in (True, False):
        job = dataclasses.replace(job_of(run, weights=str(tmp_path / "other" / place)), check=check)
        with pytest.raises(UserError, match=message):
            train(job)


STRATA = {SMOOTH: 0.5, FEATURED: 0.6, ARTIFACT: 0.55}


@pytest.mark.parametrize(
    ("theirs", "rule", "ours", "refused"),
    [
        (STRATA, "argmax", STRATA, False),
        # By another label rule their artifact at 0.52 may be smooth here, and not for training.
        (STRATA, "threshold", STRATA, True),
        ({SMOOTH: 0.4, FEATURED: 0.6, ARTIFACT: 0.55}, "argmax", STRATA, True),
        ({SMOOTH: 0.5, FEATURED: 0.5, ARTIFACT: 0.5}, "threshold", STRATA, False),
        ({}, "argmax", STRATA, True),
        ({}, "argmax", {SMOOTH: 0.6, FEATURED: 0.6, ARTIFACT: 0.65}, False),
        ({}, "threshold", {}, False),
    ],
)
def test_strata_are_compared_whatever_the_classes_of_the_galaxies_were(
    theirs: dict[str, float], rule: str, ours: dict[str, float], refused: bool, finished_run: Path, tmp_path: Path
) -> None:
    def split(ends: dict[str, float]) -> dict[str, Any]:
        return {"fractions": [0.6, 0.2, 0.2], "seed": 0, "ends": {label: [end, 0.8] for label, end in ends.items()}}

    card = json.loads((finished_run / "model" / "card.json").read_text())
    assert card["training"]["label_rule"] == "argmax"
    card["training"] |= {"split": split(theirs), "label_rule": rule}
    (tmp_path / "card.json").write_text(json.dumps(card))
    (tmp_path / "weights.safetensors").write_bytes(b"")
    data = json.loads((finished_run / "manifests" / "augment.json").read_text()) | {"split": split(ours)}
    message = "Both views have .* not the same galaxies in each class" if theirs else "Their views have "
    if rule == "threshold":
        message += r".* \(theirs are by --label-rule threshold, these by argmax\)"
    with pytest.raises(UserError, match=message) if refused else nullcontext():
        require_unseen_galaxies(str(tmp_path / "weights.safetensors"), data)


def test_both_objectives_stand_in_the_manifest_once_both_were_trained(run: Path) -> None:
    train(job_of(run, epochs=1))
    manifest = train(job_of(run, epochs=1, objective="votes", best_by="rmse"))
    assert manifest is not None
    assert list(manifest["objectives"]) == ["classes", "votes"]
    assert manifest["objectives"]["votes"]["rmse"] < 0.5
    assert manifest["objectives"]["classes"]["rmse"] is None
    assert load_card(run / "model").objective == "votes"


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({"galaxies_by_class": {"train": {"smooth": 5, "featured": 0}}}, {}, "All training galaxies are of one class"),
        ({"label_rule": None}, {"objective": "votes"}, "the views have classes, but no votes"),
        ({}, {"best_by": "rmse"}, "--best-by rmse: votes are learned with --objective votes only"),
    ],
)
def test_what_cannot_be_learned_is_refused(
    change: dict[str, Any], settings: dict[str, Any], message: str, augmented_run: Path
) -> None:
    data = RunDirectory(augmented_run).manifest("augment") | change
    with pytest.raises(UserError, match=message):
        make_objective(dataclasses.replace(SMALL, **settings), data)


def test_an_empty_validation_split_is_refused_before_training(run: Path) -> None:
    file = run / "manifests" / "augment.json"
    data = json.loads(file.read_text())
    data["galaxies_by_class"]["validation"] = {"smooth": 0, "featured": 0}
    file.write_text(json.dumps(data))
    with pytest.raises(UserError, match="no galaxy is in the validation split"):
        train(dataclasses.replace(job_of(run), check=True, ranks=1))
