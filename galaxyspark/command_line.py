"""From YAML file and flags to checked settings, and from errors to exit codes: what every job's main does."""

from __future__ import annotations

import dataclasses
import errno
import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import tyro
import yaml
from pydantic import TypeAdapter, ValidationError

from galaxyspark import __version__
from galaxyspark.errors import UserError
from galaxyspark.settings import JobSettings, PipelineJob, RunSettings
from galaxyspark.storage import filesystem_of, url_in

Job = TypeVar("Job", bound=JobSettings)


def run_job(job: type[Job], function: Callable[[Job], None]) -> None:
    """Call ``function`` with the settings of the command line; a ``UserError`` becomes one message and its status."""
    name = Path(sys.argv[0]).stem.replace("_", "-")
    try:
        settings = parse(job, sys.argv[1:])
        quiet_libraries(settings.verbose)
        function(settings)
    except UserError as error:
        print(f"\n{name}: {error}", file=sys.stderr)
        sys.exit(error.status)
    except Exception as error:
        message = _said_plainly(error)
        if message is None or settings.verbose:
            raise
        place = url_in(settings.place) or settings.place
        print(f"\n{name}: {place}: {message}. --verbose shows all of it.", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _said_plainly(error: Exception) -> str | None:
    """One line for a failure of the disk or of Spark; None for others, which are ours to look into."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror}"
    if type(error).__module__.startswith(("py4j.", "pyspark.")):
        from galaxyspark.spark import cause_of  # not every job uses Spark

        return f"Spark could not do it: {cause_of(error)}"
    return None


def parse(job: type[Job], arguments: Sequence[str]) -> Job:
    """Settings of a job: defaults, overridden by the YAML of ``--config FILE``, overridden by flags.

    Raises:
        UserError: The YAML cannot be read or has an unknown setting, or a value is out of range; all such values
            are named at once. (Unknown flags and missing required ones end the process with status 2 and a usage.)
    """
    if "--version" in arguments:
        print(f"galaxyspark {__version__}")
        sys.exit(0)
    config_file, flags = _split_config(arguments)
    values = _section_values(job, config_file) if config_file else {}
    required = {f.name: tyro.MISSING for f in dataclasses.fields(job) if _is_required(f)}
    settings = tyro.cli(
        job,
        default=job(**(required | values)),
        args=flags,
        prog=f"{Path(sys.argv[0]).stem.replace('_', '-')} [--config FILE.yaml]",
        description=f"{job.__doc__} Settings come from --config, a YAML file as in conf/, and flags override it.",
    )
    return _checked(job, dataclasses.asdict(settings), "the command line")


def to_yaml(settings: RunSettings) -> str:
    """The settings as YAML text that ``--config`` reads back."""
    return yaml.safe_dump(TypeAdapter(type(settings)).dump_python(settings, mode="json"), sort_keys=False)


def quiet_libraries(verbose: bool) -> None:
    """Without ``verbose``, keep the warnings of dependencies (not our own messages) off the terminal."""
    if verbose:
        return
    warnings.simplefilter("ignore")
    for name in ("petastorm", "py4j", "matplotlib", "DataFrameQueryContextLogger"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _split_config(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Take ``--config FILE`` (or ``--config=FILE``) out of the arguments."""
    rest: list[str] = []
    config_file: Path | None = None
    remaining = iter(arguments)
    for argument in remaining:
        name, _, value = argument.partition("=")
        if name != "--config":
            rest.append(argument)
            continue
        value = value if "=" in argument else next(remaining, "")
        if not value:
            raise UserError("--config needs a file: --config conf/laptop.yaml")
        config_file = Path(value)
    return config_file, rest


def _section_values(job: type[Job], config_file: Path) -> dict[str, Any]:
    """The settings in a YAML file that belong to this job, checked; those of other jobs are passed over."""
    try:
        content = yaml.safe_load(_text_of(config_file)) or {}
    except OSError as error:
        raise UserError(f"--config {config_file}: cannot be read ({error.strerror or error}).") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--config {config_file}: is not YAML: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(f"--config {config_file}: must hold 'setting: value' lines, as the files in conf/ do.")
    known = get_type_hints(PipelineJob) | get_type_hints(job)
    unknown = sorted(set(content) - set(known))
    if unknown:
        raise UserError(f"--config {config_file}: unknown settings {', '.join(unknown)}; known: {', '.join(known)}.")
    hints = get_type_hints(job, include_extras=True)
    return {
        name: _checked(hints[name], value, str(config_file), name) for name, value in content.items() if name in hints
    }


def _text_of(config_file: Path) -> str:
    """Of a file on a disk, or of a run's settings behind a URL."""
    url = url_in(config_file)
    if url is None:
        return config_file.read_text(encoding="utf-8")
    filesystem, path = filesystem_of(url)
    content: bytes = filesystem.cat_file(path)
    return content.decode()


def _checked(kind: Any, value: Any, source: str, name: str = "") -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            place = [str(part) for part in ((name,) if name else ()) + problem["loc"]]
            flag = next(part for part in reversed(place) if not part.isdigit()).replace("_", "-")
            named = ".".join(place) if name else f"--{flag}"
            problems.append(f"\n  {named}: {problem['msg']} (given: {problem['input']!r})")
        raise UserError(f"Settings from {source} are not usable:{''.join(problems)}") from None


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
