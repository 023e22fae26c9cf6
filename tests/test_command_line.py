"""Settings from defaults, YAML and flags, and what is said of those that cannot be used."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from galaxyspark import __version__
from galaxyspark.command_line import parse, quiet_libraries, run_job, to_yaml
from galaxyspark.errors import UserError
from galaxyspark.settings import (
    AugmentJob,
    AugmentSettings,
    ClassifyJob,
    ClassifySettings,
    PipelineJob,
    SimulateJob,
    TrainJob,
    TrainSettings,
)

RUN = ["--run", "runs/a b"]


@pytest.fixture(autouse=True)
def name_of_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["jobs/train.py"])


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], str]:
    """Writes a YAML file and gives its name."""

    def write(text: str) -> str:
        (tmp_path / "my settings.yaml").write_text(text)
        return str(tmp_path / "my settings.yaml")

    return write


def refusal(job: type, arguments: list[str]) -> str:
    with pytest.raises(UserError) as error:
        parse(job, arguments)
    assert error.value.status == 2
    return str(error.value)


def test_a_flag_beats_the_yaml_and_the_yaml_beats_the_default(config: Callable) -> None:
    file = config("seed: 5\ntrain:\n  epochs: 7\n  batch_size: 64\n")
    settings = parse(TrainJob, ["--config", file, *RUN, "--batch-size", "8"])
    default = TrainSettings()
    assert settings.run == Path("runs/a b")
    assert (settings.seed, settings.train.epochs, settings.train.batch_size) == (5, 7, 8)
    assert (settings.train.learning_rate, settings.train.weights) == (default.learning_rate, default.weights)


@pytest.mark.parametrize("form", ["{} {}", "{}={}"])
@pytest.mark.parametrize("last", [True, False])
def test_the_config_may_stand_anywhere_in_either_form(form: str, last: bool, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("seed: 9")
    flag = form.format("--config", file).split(" ")
    arguments = [*RUN, *flag] if last else [*flag, *RUN]
    assert parse(SimulateJob, arguments).seed == 9


def test_required_settings_may_come_from_the_yaml(config: Callable) -> None:
    file = config("run: runs/x\nimages: hdfs://host/images\nlabels: votes.csv")
    settings = parse(AugmentJob, ["--config", file, "--images", "s3a://bucket/images"])
    assert (settings.run, settings.images, settings.labels) == (Path("runs/x"), "s3a://bucket/images", "votes.csv")


def test_a_job_passes_over_the_settings_of_the_others(config: Callable) -> None:
    file = config("augment: {jpeg_quality: 1000000}\nextract: {train_views: [2]}\ntrain: {epochs: 2}\nranks: 4")
    assert parse(TrainJob, ["--config", file, *RUN]).train.epochs == 2


@pytest.mark.parametrize("number", ["1e-3", "1.0e-3", ".001", "'0.001'"])
def test_numbers_are_read_as_people_write_them(number: str, config: Callable) -> None:
    file = config(f"train:\n  learning_rate: {number}")
    assert parse(TrainJob, ["--config", file, *RUN]).train.learning_rate == 1e-3


def test_switches_and_lists_have_flags_too(config: Callable) -> None:
    inputs = [*RUN, "--images", "i", "--labels", "l"]
    file = config("augment: {allow_unmatched: true, split_fractions: [0.5, 0.3, 0.2]}")
    settings = parse(AugmentJob, ["--config", file, *inputs]).augment
    assert (settings.allow_unmatched, settings.split_fractions) == (True, (0.5, 0.3, 0.2))
    flags = ["--no-allow-unmatched", "--split-fractions", "0.6", "0.2", "0.2"]
    settings = parse(AugmentJob, ["--config", file, *inputs, *flags]).augment
    assert (settings.allow_unmatched, settings.split_fractions) == (False, (0.6, 0.2, 0.2))
    assert parse(ClassifyJob, [*RUN, "--svm-c", "2", "0.5"]).classify.svm_c == (2.0, 0.5)


def test_an_empty_config_changes_nothing(config: Callable) -> None:
    assert parse(TrainJob, ["--config", config("# nothing yet\n"), *RUN]) == parse(TrainJob, RUN)


def test_every_flag_out_of_range_is_named_at_once() -> None:
    arguments = ["--epochs", "0", "--batch-size", "1", "--seed", "-1", "--learning-rate", "nan"]
    message = refusal(TrainJob, [*RUN, *arguments])
    assert "the command line" in message
    for flag, given in (("--epochs", "0"), ("--batch-size", "1"), ("--seed", "-1"), ("--learning-rate", "nan")):
        [line] = [line for line in message.splitlines() if f"{flag}:" in line]
        assert f"(given: {given})" in line
        assert "greater than" in line


def test_every_yaml_setting_that_is_wrong_is_named_at_once_with_its_file(config: Callable) -> None:
    file = config("train:\n  epoch: 3\n  learning_rate: fast\n  label_smoothing: 1\n  epochs: 2.5\n  batch_size: 4\n")
    message = refusal(TrainJob, ["--config", file, *RUN])
    assert file in message.splitlines()[0]
    problems = {line.split(":")[0].strip() for line in message.splitlines()[1:]}
    assert problems == {"train.epoch", "train.learning_rate", "train.label_smoothing", "train.epochs"}


def test_an_unknown_setting_is_named_with_those_there_are(config: Callable) -> None:
    file = config("seed: 1\ntrains:\n  epochs: 3\nepochs: 3\n")
    message = refusal(TrainJob, ["--config", file, *RUN])
    assert message.startswith(f"--config {file}: unknown settings epochs, trains; known: ")
    known = message.partition("known: ")[2].rstrip(".").split(", ")
    assert {"run", "seed", "images", "labels", "train", "augment", "predict"} <= set(known)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("train: [", "is not YAML"),
        ("a: 1\n  b: 2", "is not YAML"),
        ("- train\n- extract", "must hold 'setting: value' lines"),
        ("epochs", "must hold 'setting: value' lines"),
        ("train:\n", "train: Input should be a dictionary"),
        ("train: 3\n", "train: Input should be a dictionary"),
        ("seed: one\n", "seed: Input should be a valid integer"),
        ("run: 5\n", "run: Input is not a valid path"),
    ],
)
def test_a_config_that_cannot_be_used_is_named(text: str, complaint: str, config: Callable) -> None:
    file = config(text)
    message = refusal(TrainJob, ["--config", file, *RUN])
    assert file in message
    assert complaint in message


@pytest.mark.parametrize(("name", "reason"), [("nowhere.yaml", "No such file"), (".", "Is a directory")])
def test_a_config_that_cannot_be_read_is_named(name: str, reason: str, tmp_path: Path) -> None:
    message = refusal(TrainJob, [*RUN, "--config", str(tmp_path / name)])
    assert message.startswith(f"--config {tmp_path / name}: cannot be read ({reason}")


def test_a_config_flag_without_a_file_says_how_to_write_it() -> None:
    assert "--config conf/laptop.yaml" in refusal(TrainJob, [*RUN, "--config"])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], ["--run"]),
        (["--run", "r", "--labels", "l"], ["--images"]),
        ([*RUN, "--images", "i", "--labels", "l", "--jpeg-qualty", "90"], ["--jpeg-qualty", "--jpeg-quality"]),
        ([*RUN, "--images", "i", "--labels", "l", "--view-size-px", "big"], ["--view-size-px", "big"]),
        ([*RUN, "--images", "i", "--labels", "l", "--split-fractions", "0.5", "0.5"], ["--split-fractions"]),
    ],
    ids=["no flag", "one missing", "misspelt", "no number", "too few"],
)
def test_flags_that_cannot_be_parsed_end_with_status_2(
    arguments: list[str], named: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(AugmentJob, arguments)
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert all(name in captured.out + captured.err for name in named)


def test_version_needs_no_other_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(TrainJob, ["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"galaxyspark {__version__}\n")


@pytest.mark.parametrize(
    "settings",
    [
        PipelineJob(run=Path("runs/a b")),
        PipelineJob(run=Path("/r"), images="i", labels="l: x", ranks=3, start_at="extract", verbose=True),
        SimulateJob(run=Path("r"), seed=0),
        AugmentJob(
            run=Path("r"),
            images="s3a://bucket/#1",
            labels="'",
            augment=AugmentSettings(split_fractions=(0.5, 0.25, 0.25), field_of_view=1 / 3, allow_unmatched=True),
        ),
        ClassifyJob(run=Path("r"), classify=ClassifySettings(svm_c=(1e-9, 3.0))),
    ],
)
def test_settings_written_as_yaml_are_read_back(settings: PipelineJob, config: Callable) -> None:
    text = to_yaml(settings)
    assert next(iter(yaml.safe_load(text))) == "run"
    assert parse(type(settings), ["--config", config(text)]) == settings


def test_a_user_error_is_its_message_and_its_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def function(settings: TrainJob) -> None:
        raise UserError(f"{settings.run}: nothing there.", status=7)

    monkeypatch.setattr(sys, "argv", ["/somewhere/jobs/train.py", *RUN])
    with pytest.raises(SystemExit) as ended:
        run_job(TrainJob, function)
    captured = capsys.readouterr()
    assert ended.value.code == 7
    assert (captured.out, captured.err) == ("", "\ntrain: runs/a b: nothing there.\n")


def test_settings_that_cannot_be_used_never_reach_the_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["jobs/train.py", *RUN, "--epochs", "0"])
    called: list[TrainJob] = []
    with pytest.raises(SystemExit) as ended:
        run_job(TrainJob, called.append)
    assert (ended.value.code, called) == (2, [])
    assert "epochs" in capsys.readouterr().err

    monkeypatch.setattr(sys, "argv", ["jobs/train.py", *RUN, "--epochs", "4", "--verbose"])
    run_job(TrainJob, called.append)
    assert [settings.train.epochs for settings in called] == [4]


def test_an_error_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def function(_: TrainJob) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "argv", ["jobs/train.py", *RUN, "--verbose"])
    with pytest.raises(ZeroDivisionError):
        run_job(TrainJob, function)


@pytest.mark.parametrize("verbose", [True, False])
def test_only_verbose_shows_the_warnings_of_dependencies(verbose: bool) -> None:
    logger = logging.getLogger("petastorm")
    level = logger.level
    logger.setLevel(logging.NOTSET)
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            quiet_libraries(verbose)
            warnings.warn("an old interface", UserWarning, stacklevel=1)
            shown = logger.isEnabledFor(logging.ERROR)
    finally:
        logger.setLevel(level)
    assert (len(seen), shown) == ((1, True) if verbose else (0, False))


def test_the_settings_file_that_training_saves_is_read_back(tmp_path: Path) -> None:
    settings = parse(TrainJob, [*RUN, "--epochs", "4", "--check"])
    saved = tmp_path / "train.yaml"
    saved.write_text(to_yaml(settings))
    assert parse(TrainJob, ["--config", str(saved)]) == settings


@pytest.mark.parametrize("content", [b"seed: \xff\xfe\n", b"1: 2\n"], ids=["not UTF-8", "a number as key"])
def test_a_config_that_is_no_text_of_settings_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    file.write_bytes(content)
    assert str(file) in refusal(TrainJob, ["--config", str(file), *RUN])


def test_config_without_a_file_does_not_swallow_the_next_flag() -> None:
    assert "--config needs a file" in refusal(TrainJob, ["--config=", "--epochs", "3", *RUN])


@pytest.mark.parametrize("values", [[], ["0"], ["-1", "2"]])
def test_the_svms_candidates_are_some_positive_numbers(values: list[str]) -> None:
    with pytest.raises((UserError, SystemExit)) as ending:
        parse(ClassifyJob, [*RUN, "--svm-c", *values])
    assert ending.type is SystemExit or "--svm-c" in str(ending.value)
