#!/usr/bin/env bash
# The one command of galaxyspark: sets itself up, then starts a job through spark-submit or horovodrun.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=$root/.venv/bin

usage() {
  cat <<'HELP'
Usage: ./submit.sh COMMAND [flags]

  setup       make .venv and compile Horovod; every other command does so first where it is needed
  demo        run everything on simulated galaxies: runs/demo
  test        lint, format, types and tests
  bench NAME  measure one thing against named alternatives: benchmarks/results/NAME.json

On your own galaxies:
  pipeline    every stage below, in order: --images DIR --labels CSV --run runs/NAME [--config conf/laptop.yaml]

One stage at a time:
  simulate    make galaxies with votes, laid out as the Galaxy Zoo challenge has them
  augment     images and labels to 16 views a galaxy, as petastorm Parquet
  train       views to a GoogLeNet, by Horovod: ./submit.sh train [-np RANKS] [--launcher spark] --run ...
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
  local code=()
  take_profile
  if ! asked "--help|-h|--version" && ! grep -q '^spark.master *local' "$properties"; then
    # Horovod's ranks in executors are processes of their own, which look for the code beside them.
    code=(--py-files "$("$bin/python" -m galaxyspark.packing)" --conf spark.executorEnv.PYTHONPATH=galaxyspark.zip)
  fi
  job "$1" "$bin/spark-submit" --properties-file "$properties" "${code[@]}"
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
  # The profile that cluster start has made comes first: it has the secret.
  for properties in "$root/.cluster/$profile.conf" "$root/conf/spark/$profile.conf" "$profile"; do
    [ ! -f "$properties" ] || return 0
  done
  echo "submit.sh: --profile '$profile': there is no such file, and no $profile.conf in conf/spark." >&2
  exit 2
}

train_job() {
  local ranks=2
  if [ "${flags[0]:-}" = -np ]; then
    ranks=${flags[1]:-}
    case $ranks in
      "" | *[!0-9]*) echo "submit.sh: train -np needs a number of ranks, such as -np 2." >&2; exit 2 ;;
    esac
    flags=("${flags[@]:2}")
  fi
  if asked "--launcher spark|--launcher=spark"; then
    flags+=(--ranks "$ranks")
    spark_job train
  fi
  flags+=(--launcher horovodrun) # whatever the settings of an earlier run say
  # What is wrong with the input is said once, by one process, before the ranks start.
  asked "--help|-h|--version" || "$bin/python" "$root/jobs/train.py" "${flags[@]}" --ranks "$ranks" --check
  job train "$bin/python" -m galaxyspark.horovodrun -np "$ranks" "$bin/python"
}

run_tests() {
  local failed=0
  cd "$root"
  echo "ruff check" && "$bin/ruff" check . || failed=1
  echo "ruff format --check" && "$bin/ruff" format --check . || failed=1
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

  [ -n "${GALAXYSPARK_READY:-}" ] || "$root/conf/setup/setup.sh"
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
