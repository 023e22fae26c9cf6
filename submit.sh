#!/usr/bin/env bash
# The one command of galaxyspark: sets itself up, then starts a job through spark-submit or horovodrun.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=$root/.venv/bin

usage() {
  cat <<'HELP'
Usage: ./submit.sh COMMAND [flags]

  setup       make .venv, compile Horovod and layers; every other command does so first where needed. --gpu: for GPUs too
  demo        run everything on simulated galaxies: runs/demo
  test        lint, format, types and tests
  bench NAME  measure one thing against named alternatives: benchmarks/results/NAME.json

On your own galaxies:
  pipeline    every stage below, in order: --images DIR --labels CSV --run runs/NAME [--config conf/laptop.yaml]

One stage at a time:
  simulate    make galaxies with votes, laid out as the Galaxy Zoo challenge has them
  augment     images and labels to 16 views a galaxy, as petastorm Parquet
  train       views to a GoogLeNet, by Horovod: ./submit.sh train [-np RANKS] [-H HOST:RANKS,...] --run ...
  extract     views to features and class probabilities, by a pandas UDF
  classify    features to an SVM and its rivals, and the metrics of all classifiers
  predict     new images to a catalogue; --like ID or --odd N to look into it
  dream       what the network responds to, as pictures: RUN/dreams; --layer or --dream-class for one picture
  report      everything to one page: RUN/report/index.html

  compare RUN RUN ...  one page with all of them: comparison.html
  status RUN  which stages of a run are done, from what and when, and what comes next

On a cluster (docs/cluster.md):
  --profile NAME  where Spark runs, of the pipeline and of each stage on Spark: local, standalone, yarn, kubernetes, or
                  a Spark properties file
  cluster start|stop|status  a Spark standalone cluster on this machine, to try --profile standalone
  pack-images a folder of very many image files to Parquet files of them: --images DIR --packed DIR (docs/inputs.md)
  pack        the packages that executors need as one archive, where they do not see this checkout

  COMMAND --help   all flags of a command, with defaults. Settings also come from --config FILE.yaml (see conf/).
  --version        the version of galaxyspark
HELP
}

# job NAME LAUNCHER...: turns into jobs/NAME.py by its launcher, without the noise of Spark and Horovod unless asked for
# it.
job() {
  local name=$1
  shift
  if asked "--help|-h|--version"; then
    exec "$bin/python" "$root/jobs/$name.py" "${flags[@]}"
  elif asked "--verbose"; then
    exec "$@" "$root/jobs/$name.py" "${flags[@]}"
  else
    exec "$bin/python" -m galaxyspark.quiet "$@" "$root/jobs/$name.py" "${flags[@]}"
  fi
}

# asked 'A|B': whether one of these is among the flags.
asked() { [[ " ${flags[*]} " =~ \ ($1)\  ]]; }

spark_job() {
  local code=() added=()
  take_profile
  if ! asked "--help|-h|--version" && ! grep -q '^spark.master *local' "$properties"; then
    if grep -q '^spark.master *yarn' "$properties" && [ -z "${HADOOP_CONF_DIR:-}${YARN_CONF_DIR:-}" ]; then
      fail "--profile: YARN is found by the configuration in the directory that HADOOP_CONF_DIR names, which is not set."
    fi
    # Horovod's ranks in executors are processes of their own, which look for the code beside them.
    code=(--py-files "$("$bin/python" -m galaxyspark.packing)" --conf spark.executorEnv.PYTHONPATH=galaxyspark.zip)
  fi
  job "$1" "$bin/spark-submit" --properties-file "$properties" "${added[@]}" "${code[@]}"
}

# take_profile: takes --profile out of the flags; its file becomes $properties.
take_profile() {
  local profile=local kept=()
  while [ ${#flags[@]} -gt 0 ]; do
    case ${flags[0]} in
      --profile=*) profile=${flags[0]#*=} ;;
      --profile) profile=${flags[1]:-}; flags=("${flags[@]:1}") ;;
      *) kept+=("${flags[0]}") ;;
    esac
    flags=("${flags[@]:1}")
  done
  flags=("${kept[@]}")
  # What comes behind the last comma adds to it, unless the comma is in a file's name.
  if [[ $profile != *,* || -f $profile ]]; then
    find_profile "$profile"
  else
    find_profile "${profile%,*}"
    add_settings "$root/conf/spark/${profile##*,}.conf"
  fi
}

# find_profile NAME: its file becomes $properties. The one that cluster start has made comes first: it has the secret.
find_profile() {
  for properties in "$root/.cluster/$1.conf" "$root/conf/spark/$1.conf" "$1"; do
    [ ! -f "$properties" ] || return 0
  done
  echo "submit.sh: --profile '$1': there is no such file, and no $1.conf in conf/spark." >&2
  exit 2
}

# add_settings FILE: the settings of a properties file become flags of spark-submit, in $added.
add_settings() {
  local key value
  if [ ! -f "$1" ]; then
    echo "submit.sh: --profile: behind the comma comes the name of a file in conf/spark, such as s3a; $1 is none." >&2
    exit 2
  fi
  while read -r key value; do
    case $key in "" | \#*) ;; *) added+=(--conf "$key=$value") ;; esac
  done <"$1"
}

train_job() {
  local ranks=2 hosts="" launcher=()
  while [[ ${flags[0]:-} =~ ^(-np|-H|--network-interface)$ ]]; do
    case ${flags[0]} in
      -np) ranks=${flags[1]:-} ;;
      -H) hosts=${flags[1]:-}; check_hosts ;;
      *)
        [ -n "${flags[1]:-}" ] || fail "train --network-interface needs a name, such as eth0."
        launcher+=(--network-interface "${flags[1]}")
        ;;
    esac
    flags=("${flags[@]:2}")
  done
  check_ranks
  if asked "--launcher spark|--launcher=spark"; then
    [ -z "$hosts${launcher[*]}" ] || fail "train -H: with --launcher spark the hosts are those of Spark's executors; leave -H out."
    flags+=(--ranks "$ranks")
    spark_job train
  fi
  flags+=(--launcher horovodrun) # whatever the settings of an earlier run say
  # What is wrong with the input is said once, by one process, before the ranks start.
  if asked "--help|-h"; then
    printf 'Before the flags below: -np RANKS (2), -H HOST:RANKS,... (this machine), --network-interface NAME.\n\n'
  elif ! asked "--version"; then
    "$bin/python" "$root/jobs/train.py" "${flags[@]}" --ranks "$ranks" --check
    if asked "--check"; then
      echo "Settings, views and checkpoints are in order."
      exit 0
    fi
    echo "Starting ranks: $ranks. It takes about half a minute." >&2
  fi
  if [ -n "$hosts" ]; then
    # What Horovod remembers of hosts for an hour may have changed; and the terminals on them are to change no byte.
    launcher+=(-H "$hosts" --disable-cache --start-timeout 120 sh -c '[ ! -t 1 ] || stty -opost <&1; exec "$@"' rank)
  fi
  job train "$bin/python" -m galaxyspark.horovodrun -np "$ranks" "${launcher[@]}" "$bin/python"
}

check_ranks() {
  local host slots=0
  [[ $ranks =~ ^[1-9][0-9]*$ ]] || fail "train -np needs a number of ranks, such as -np 2."
  [ -n "$hosts" ] || return 0
  for host in ${hosts//,/ }; do slots=$((slots + 10#${host##*:})); done
  [ "$ranks" -le "$slots" ] || fail "train -np $ranks: there is room for $slots on $hosts."
}

# check_hosts: Horovod gives names of hosts and this directory to a shell on each of them.
check_hosts() {
  local host='[A-Za-z0-9][A-Za-z0-9.-]*:[1-9][0-9]*'
  [[ $hosts =~ ^$host(,$host)*$ ]] || fail "train -H '$hosts': needs hosts and the number of ranks on each, such as a:1,b:1."
  [[ $PWD =~ ^[A-Za-z0-9_./@+,:-]+$ ]] || fail "train -H: start it in a directory without blanks and signs in its path."
}

fail() { echo "submit.sh: $1" >&2; exit 2; }

run_tests() {
  local failed=0
  cd "$root"
  echo "ruff check" && "$bin/ruff" check . || failed=1
  echo "ruff format --check" && "$bin/ruff" format --check . || failed=1
  echo "clang-format --dry-run" && "$bin/clang-format" --dry-run --Werror galaxyspark_kernels/*.cpp || failed=1
  echo "mypy" && "$bin/mypy" || failed=1
  "$bin/pytest" "$@" || failed=1
  return $failed
}

main() {
  local command=${1:-}
  [ $# -eq 0 ] || shift
  flags=("$@")
  case $command in
    "" | -h | --help | help) usage; exit 0 ;;
    setup | demo | test | bench | pipeline | simulate | augment | train | extract | classify | predict | dream | report | compare | status | cluster | pack | pack-images) ;;
    --version) ;;
    *)
      echo "submit.sh: there is no command '$command'. ./submit.sh --help lists them." >&2
      exit 2
      ;;
  esac

  local setup_flags=()
  [ "$command" != setup ] || setup_flags=("$@")
  [ -n "${GALAXYSPARK_READY:-}" ] || "$root/conf/setup/setup.sh" "${setup_flags[@]}"
  export GALAXYSPARK_READY=1
  export PATH=$bin:$PATH SPARK_CONF_DIR=$root/conf/spark PYSPARK_PYTHON=$bin/python PYSPARK_DRIVER_PYTHON=$bin/python
  export SPARK_HOME=$("$bin/python" -c 'import pathlib, importlib.util as u; print(pathlib.Path(u.find_spec("pyspark").origin).parent)')

  case $command in
    setup) echo "[setup] Everything is in place: $root/.venv" ;;
    demo) exec "$bin/python" "$root/jobs/pipeline.py" --config "$root/conf/demo.yaml" --run "$root/runs/demo" "$@" ;;
    test) run_tests "$@" ;;
    bench) cd "$root" && exec "$bin/python" -m galaxyspark.quiet "$bin/python" -m benchmarks "$@" ;;
    pipeline | classify | report | compare | status | cluster | pack) exec "$bin/python" "$root/jobs/$command.py" "$@" ;;
    train) train_job ;;
    dream) job dream "$bin/python" ;;
    pack-images) spark_job pack_images ;;
    --version) exec "$bin/python" "$root/jobs/pipeline.py" --version ;;
    *) spark_job "$command" ;;
  esac
}

# On one line, so that bash has read all of this file before anything runs: an update cannot disturb a run.
main "$@"; exit $?
