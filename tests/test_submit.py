"""What users type, what they see and the status they get."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from galaxyspark.command_line import parse
from galaxyspark.settings import STAGES, PipelineJob

ROOT = Path(__file__).parent.parent


def test_help_names_every_command(run_submit) -> None:
    shown = run_submit("--help")
    assert shown.returncode == 0
    for command in (*STAGES, "setup", "demo", "test", "bench", "pipeline", "compare", "status"):
        assert re.search(rf"^  {command}\b", shown.stdout, re.MULTILINE), command


def test_a_command_that_is_not_there(run_submit) -> None:
    completed = run_submit("agument")
    assert completed.returncode == 2
    assert "no command 'agument'" in completed.stderr


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["-np", "two"], "train -np needs a number of ranks, such as -np 2."),
        (["-np", "0"], "train -np needs a number of ranks"),
        (["-H", "a"], "train -H 'a': needs hosts and the number of ranks on each, such as a:1,b:1."),
        (["-H", "a:1,$(touch here):1"], "needs hosts and the number of ranks on each"),
        (["-H", "-oProxyCommand=date:1"], "needs hosts and the number of ranks on each"),
        (["-H", "a:1"], "train -np 2: there is room for 1 on a:1."),
        (["-H", "a:1,b:1", "-np", 3], "train -np 3: there is room for 2 on a:1,b:1."),
        (["-H", "a:1,b:1", "--launcher", "spark"], "train -H: with --launcher spark the hosts are those of Spark's"),
    ],
)
def test_ranks_and_hosts_that_cannot_be(flags: list[str], says: str, run_submit, tmp_path: Path) -> None:
    completed = run_submit("train", *flags, "--run", tmp_path)
    assert completed.returncode == 2
    assert says in completed.stderr


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"master": "spark://127.0.0.1:1"},
            "Spark does not start on spark://127.0.0.1:1: the profile has no spark.auth",
        ),
        ({"master": "yarn"}, "YARN is found by the configuration in the directory that HADOOP_CONF_DIR names"),
    ],
)
def test_a_cluster_that_is_not_there(settings: dict[str, str], says: str, run_submit, tmp_path: Path) -> None:
    profile = tmp_path / "profile.conf"
    settings |= {"authenticate": "true"}
    profile.write_text("".join(f"spark.{name} {value}\n" for name, value in settings.items()))
    flags = ["--profile", profile, "--images", tmp_path, "--labels", profile, "--run", tmp_path / "run"]
    completed = run_submit("augment", *flags)
    shown = completed.stdout + completed.stderr
    assert completed.returncode == 2
    assert says in shown and len(shown.strip().splitlines()) == 1


def test_the_pipeline_ends_with_accuracy_rates_and_what_to_look_at(finished_run: Path) -> None:
    shown = (finished_run / "terminal.txt").read_text()
    assert re.search(r"CNN, mean of 16 views +0\.\d{3}", shown)
    assert re.search(r"SVM, one view +0\.\d{3}", shown)
    for stage in ("augment", "train", "extract"):
        assert re.search(rf"^  {stage} +\d+ +[\d,]+ views/s", shown, re.MULTILINE), stage
    assert f"{finished_run}/report/index.html" in shown
    for noise in ("WARN", "Traceback", "FutureWarning", "incubator", "<stdout>"):
        assert noise not in shown


def test_the_run_is_laid_out_as_documented(finished_run: Path) -> None:
    for name in (
        "simulated/images",
        "simulated/labels.csv",
        "views/_common_metadata",
        "views/split=test",
        "quarantine",
        "model/weights.safetensors",
        "model/card.json",
        "checkpoints",
        "history.jsonl",
        "features",
        "classifiers/card.json",
        "classifiers/svm.skops",
        "metrics.json",
        "predictions.parquet",
        "dreams/layers.png",
        "dreams/dreams.json",
        "report/index.html",
        "catalogue",
        "catalogue.csv",
        "catalogue.fits",
        "catalogue.vot",
        *(f"manifests/{stage}.json" for stage in STAGES),
    ):
        assert (finished_run / name).exists(), name
    assert not list(finished_run.glob(".*"))


def test_the_settings_used_are_saved_and_can_be_used_again(finished_run: Path) -> None:
    saved = finished_run / "settings" / "train.yaml"
    assert yaml.safe_load(saved.read_text())["train"]["batch_size"] == 16
    job = parse(PipelineJob, ["--config", str(finished_run / "settings" / "pipeline.yaml"), "--epochs", "7"])
    assert (job.train.epochs, job.train.batch_size, job.predict.predict_views) == (7, 16, 2)


def test_bad_input_is_one_message_and_status_2(run_command, tmp_path: Path) -> None:
    job = ROOT / "jobs" / "augment.py"
    completed = run_command("spark-submit", job, "--images", tmp_path, "--labels", "no.csv", "--run", tmp_path / "run")
    assert completed.returncode == 2
    # spark-submit passes both streams of Python on as its standard output.
    assert f"augment: --images {tmp_path}: no .jpg, .jpeg, .png, .fits files there" in completed.stdout
    assert "Traceback" not in completed.stdout + completed.stderr
    assert not (tmp_path / "run").exists()


def test_training_without_views_is_one_message_and_status_2(run_submit, tmp_path: Path) -> None:
    completed = run_submit("train", "--run", tmp_path, "--weights", "none")
    assert completed.returncode == 2
    assert "stage 'augment' has not been published in this run. Run it first: ./submit.sh augment" in completed.stderr
    assert "Traceback" not in completed.stderr


def test_the_pipeline_finds_out_about_weights_before_the_long_work(run_submit, tmp_path: Path) -> None:
    completed = run_submit("pipeline", "--run", tmp_path / "run", "--weights", tmp_path / "none.safetensors")
    assert completed.returncode == 2
    assert re.search(r"--weights .*none.safetensors: no such file .*--weights none", completed.stderr)
    assert not (tmp_path / "run").exists()


def test_images_without_labels_make_no_pipeline(run_submit, tmp_path: Path) -> None:
    completed = run_submit("pipeline", "--run", tmp_path / "run", "--images", tmp_path)
    assert completed.returncode == 2
    assert "--images and --labels go together" in completed.stderr


JAVA_17 = "echo 'openjdk version \"17.0.15\"' >&2"
SMALL_DISK = "echo 'Filesystem 1024-blocks Used Available Capacity Mounted on'; echo '/dev/x 99 9 3145728 9% /'"


def set_up(home: Path, tools: dict, *flags: str) -> subprocess.CompletedProcess[str]:
    """Sets up a checkout on a machine that has only these tools and no apt-get."""
    shutil.copytree(ROOT / "conf", home / "checkout" / "conf", dirs_exist_ok=True)
    shutil.copy(ROOT / "setup.py", home / "checkout")
    (home / "checkout" / "galaxyspark_kernels").mkdir()
    shutil.copy(ROOT / "galaxyspark_kernels" / "kernels.cpp", home / "checkout" / "galaxyspark_kernels")
    bin_ = home / "bin"
    bin_.mkdir()
    for tool in ("bash", "dirname", "sed", "id", "cksum", "cat", "uname", "flock"):
        (bin_ / tool).symlink_to(shutil.which(tool))
    for tool, script in tools.items():
        (bin_ / tool).write_text(f"#!{shutil.which('bash')}\n{script}\n")
        (bin_ / tool).chmod(0o755)
    return subprocess.run(
        [home / "checkout" / "conf" / "setup" / "setup.sh", *flags],
        env={"PATH": str(bin_), "HOME": str(home), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("before", "flags", "message"),
    [
        (None, [], "has 3 GB free"),
        (None, ["--gpu"], "make is missing."),
        ("nccl 1 2 checkout", [], "make is missing."),
    ],
    ids=["for processors, which was compiled before", "for GPUs, which was not", "as the last set-up had it"],
)
def test_setup_compiles_horovod_for_what_is_asked(
    before: str | None, flags: list, message: str, tmp_path: Path
) -> None:
    versions = (ROOT / "conf" / "setup" / "requirements.txt").read_text()
    (torch_version,) = re.findall(r"^torch==(\S+)", versions, re.MULTILINE)
    wheels = tmp_path / f".cache/galaxyspark/wheels/python3.11-torch{torch_version}-cpu-{platform.machine()}"
    wheels.mkdir(parents=True)
    (wheels / "horovod-0.28.1-cp311.whl").touch()
    if before:
        (tmp_path / "checkout" / ".venv").mkdir(parents=True)
        (tmp_path / "checkout" / ".venv" / ".galaxyspark-ready").write_text(before)
    completed = set_up(tmp_path, {"java": JAVA_17, "g++": ":", "df": SMALL_DISK}, *flags)
    assert completed.returncode == 1
    assert message in completed.stderr


def test_setup_refuses_a_flag_that_it_does_not_know(tmp_path: Path) -> None:
    completed = set_up(tmp_path, {}, "--gpus")
    assert completed.returncode == 2
    assert "no flag --gpus. There are --gpu and --cpu." in completed.stderr


@pytest.mark.parametrize(
    ("tools", "message", "mend"),
    [
        ({}, "Java 17 or 21 (java on the PATH, or JAVA_HOME) is missing.", "apt-get install openjdk-17-jre-headless"),
        ({"java": "echo 'openjdk version \"11.0.2\"' >&2"}, "Java 17 or 21", "apt-get install openjdk-17-jre-headless"),
        ({"java": JAVA_17}, "A C++ compiler (g++) is missing.", "sudo apt-get install g++"),
        ({"java": JAVA_17, "g++": ":", "make": ":"}, "CMake is missing.", "sudo apt-get install cmake"),
        (
            {"java": JAVA_17, "g++": ":", "make": ":", "cmake": ":", "df": SMALL_DISK},
            "has 3 GB free; set-up needs 9 GB.",
            "Free some space",
        ),
    ],
    ids=["no Java", "old Java", "no compiler", "no CMake", "small disk"],
)
def test_setup_names_what_is_missing_and_what_mends_it(tools: dict, message: str, mend: str, tmp_path: Path) -> None:
    completed = set_up(tmp_path, tools)
    assert completed.returncode == 1
    assert message in completed.stderr
    assert mend in completed.stderr
    assert not (tmp_path / "checkout" / ".venv").exists()
