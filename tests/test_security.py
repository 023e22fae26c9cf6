"""What must not leak, and what must not be taken for a command."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NASTY = "a; touch one $(touch two) `touch three` & 'x\" y"
TINY = ["--num-galaxies", "4", "--num-unlabelled", "2"]
CREDENTIALS = {
    "AWS_SECRET_ACCESS_KEY": "canary-of-the-environment",
    "AWS_SESSION_TOKEN": "canary-of-the-session",
    "AZURE_STORAGE_KEY": "canary-of-azure",
}
SPARK_CREDENTIALS = {
    "spark.hadoop.fs.s3a.access.key": "canary-access",
    "spark.hadoop.fs.s3a.secret.key": "canary-secret",
    "spark.hadoop.fs.azure.account.key.x.blob.core.windows.net": "canary-account",
    "spark.executorEnv.HF_TOKEN": "canary-executor",
}


def submit(*words: object, umask: int = 0o022, environment: dict[str, str] | None = None, cwd: Path = ROOT) -> str:
    """Run ./submit.sh; all that a user sees."""
    completed = subprocess.run(
        [str(ROOT / "submit.sh"), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
        umask=umask,
        cwd=cwd,
        env=os.environ | {"GALAXYSPARK_READY": "1", "OMP_NUM_THREADS": "1"} | (environment or {}),
        check=False,
    )
    assert completed.returncode == 0, completed.stdout
    return completed.stdout


def files_with(text: str, directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_credentials_show_up_nowhere(tmp_path: Path) -> None:
    """Of the environment and of Spark's settings: not in the run, in Spark's event log, or on a talkative terminal."""
    profile, events = tmp_path / "secret" / "profile.conf", tmp_path / "events"
    profile.parent.mkdir()
    events.mkdir()
    settings = SPARK_CREDENTIALS | {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.compress": "false",
        "spark.eventLog.dir": events.as_uri(),
    }
    lines = "".join(f"{name} {value}\n" for name, value in settings.items())
    profile.write_text((ROOT / "conf" / "spark" / "local.conf").read_text() + lines)
    run = tmp_path / "run"
    shown = submit("simulate", "--run", run, *TINY, "--profile", profile, "--verbose", environment=CREDENTIALS)
    assert files_with("spark.hadoop.fs.s3a.secret.key", events)  # Spark has logged its settings
    assert "canary" not in shown
    assert files_with("canary", run) + files_with("canary", events) == []


def test_files_are_no_more_open_than_the_users_umask_allows(tmp_path: Path) -> None:
    run = tmp_path / "run"
    submit("simulate", "--run", run, *TINY, umask=0o077)
    simulated = run / "simulated"
    submit(
        *("augment", "--run", run, "--images", simulated / "images", "--labels", simulated / "labels.csv"),
        *("--view-size-px", 32, "--split-fractions", 0.6, 0.2, 0.2),
        umask=0o077,
    )
    open_to_others = [path for path in [run, *run.rglob("*")] if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert open_to_others == []


@pytest.mark.slow
def test_no_shell_reads_the_names_of_folders(augmented_run: Path, tmp_path: Path) -> None:
    """Through spark-submit, Horovod's launcher and Horovod in executors, which all start processes."""
    work = tmp_path / "work"
    work.mkdir()
    run = work / NASTY
    submit("simulate", "--run", run, *TINY, cwd=work)
    assert (run / "simulated" / "labels.csv").is_file()
    for name in ("views", "manifests"):
        shutil.copytree(augmented_run / name, run / name, dirs_exist_ok=True)
    training = ["--run", run, "--weights", "none", "--network", "resnet18", "--epochs", 1]
    submit("train", "-np", 2, *training, cwd=work)
    assert (run / "model" / "weights.safetensors").is_file()
    profile = tmp_path / "local-cluster.conf"
    text = (ROOT / "conf" / "spark" / "local.conf").read_text()
    profile.write_text(text.replace("local[*]", "local-cluster[2,1,1024]"))
    submit("train", "-np", 2, "--launcher", "spark", "--profile", profile, *training, "--no-resume", cwd=work)
    assert [path.name for path in work.iterdir()] == [NASTY]
