"""The settings as a whole: conf/, the defaults, and flags without prefixes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import yaml
from pydantic import TypeAdapter

from galaxyspark import settings
from galaxyspark.command_line import parse
from galaxyspark.settings import STAGES, PipelineJob, RunSettings, TrainJob, TrainSettings

CONFIGS = sorted((Path(__file__).parent.parent / "conf").glob("*.yaml"))
JOBS = [job for job in vars(settings).values() if isinstance(job, type) and issubclass(job, RunSettings)]
JOBS.remove(RunSettings)
SECTIONS = {
    name: kind for name, kind in get_type_hints(PipelineJob).items() if dataclasses.is_dataclass(kind)
}  # such as train: TrainSettings
REQUIRED = {"run": "r", "images": "i", "labels": "l", "new_images": "n"}


def fields(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def required_flags(job: type) -> list[str]:
    return [
        word
        for field in dataclasses.fields(job)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        for word in (f"--{field.name.replace('_', '-')}", REQUIRED[field.name])
    ]


def test_there_is_a_job_for_every_stage_and_one_for_all() -> None:
    assert {job.__name__.removesuffix("Job").lower() for job in JOBS} == {*STAGES, "pipeline"}
    assert get_args(get_type_hints(PipelineJob)["start_at"]) == STAGES


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("config", CONFIGS, ids=lambda file: file.name)
def test_every_job_takes_its_part_of_every_yaml(config: Path, job: type) -> None:
    content = yaml.safe_load(config.read_text())
    parsed = parse(job, ["--config", str(config), *required_flags(job)])
    taken = set()
    for name in set(content) & fields(job):
        if name not in SECTIONS:
            assert getattr(parsed, name) == content[name]
            continue
        for setting, value in content[name].items():
            value = tuple(value) if isinstance(value, list) else value
            assert getattr(getattr(parsed, name), setting) == value
        taken.add(name)
    stage = job.__name__.removesuffix("Job").lower()
    assert taken == (set(content) & set(SECTIONS) if job is PipelineJob else {stage} & set(content))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda file: file.name)
def test_the_splits_of_every_yaml_add_up(config: Path) -> None:
    assert sum(yaml.safe_load(config.read_text())["augment"]["split_fractions"]) == pytest.approx(1)


@pytest.mark.parametrize("section", SECTIONS.values())
def test_defaults_pass_their_own_checks(section: type) -> None:
    default = section()
    assert TypeAdapter(section).validate_python(dataclasses.asdict(default)) == default


def test_no_two_settings_share_a_flag() -> None:
    names = [name for section in SECTIONS.values() for name in fields(section)]
    names += [name for name in set.union(*map(fields, JOBS)) if name not in SECTIONS]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("job", JOBS)
def test_help_lists_every_setting_as_a_flag_without_prefix(job: type, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(job, ["--help"])
    assert ended.value.code == 0
    words = set(re.findall(r"--[\w.-]+", capsys.readouterr().out))
    names = fields(job) - set(SECTIONS)
    names = names.union(*(fields(SECTIONS[name]) for name in fields(job) & set(SECTIONS)))
    assert {f"--{name.replace('_', '-')}" for name in names} <= words
    assert not any("." in word for word in words)


@pytest.mark.parametrize("job", [*JOBS, *SECTIONS.values()])
def test_every_setting_says_what_it_is(job: type) -> None:
    """The strings below the fields, which help shows."""
    source = Path(settings.__file__).read_text()
    body = re.search(rf"^class {job.__name__}\b.*?(?=^@dataclass|\Z)", source, re.MULTILINE | re.DOTALL).group()
    for name in set(vars(job).get("__annotations__", {})) - set(SECTIONS):
        assert re.search(rf'^    {name}: .*\n    """[A-Z]', body, re.MULTILINE), name


def test_ranks_that_start_elsewhere_find_run_and_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = TrainJob(run=Path("runs/a"), train=TrainSettings(weights="runs/b"))
    job = given.with_absolute_paths()
    assert (job.run, job.train.weights) == (tmp_path / "runs" / "a", f"{tmp_path}/runs/b")
    elsewhere = TrainJob(run=Path("s3a://sky/a"), train=TrainSettings(weights="imagenet"))
    assert elsewhere.with_absolute_paths() == elsewhere
