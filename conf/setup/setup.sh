#!/usr/bin/env bash
# Makes .venv beside submit.sh: Python packages of exact versions, and Horovod compiled for them.
# Quick when nothing has changed. The compiled wheel is kept in the user's cache for other checkouts.
#   --gpu  compile Horovod for GPUs too (NCCL); later set-ups keep to it
#   --cpu  compile it for processors alone again
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=$root/.venv
requirements=$here/requirements.txt
log=$root/.venv-setup.log
needed_gb=9
wheel_cache=${XDG_CACHE_HOME:-$HOME/.cache}/galaxyspark/wheels

say() { printf '[setup] %s\n' "$*"; }
fail() { printf '[setup] %s\n' "$@" >&2; exit 1; }
version_of() { sed -n "s/^$1==\([^ ]*\).*/\1/p" "$requirements"; }

# timed "What is done" command...: says what, keeps the output in the log, says how long it took.
timed() {
  local what=$1 start=$SECONDS
  shift
  say "$what ..."
  if ! "$@" >>"$log" 2>&1; then
    tail -n 25 "$log" >&2
    fail "failed: $what" "The whole output is in $log"
  fi
  say "$what: done in $((SECONDS - start)) s"
}

# need NAME TEST DEBIAN_PACKAGES: installs Debian's packages as root on Debian, else says how to mend it.
need() {
  local name=$1 works=$2 packages=$3
  "$works" && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "$name is missing; installing Debian's package $packages as root."
    timed "apt-get install $packages" bash -c "apt-get update && apt-get install -y --no-install-recommends $packages"
    "$works" && return
  fi
  fail "$name is missing." "On Debian or Ubuntu: sudo apt-get install $packages"
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3; do
    [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || continue
    python=$candidate
    return
  done
  return 1
}
java_works() {
  local java=java version
  [ -z "${JAVA_HOME:-}" ] || java=$JAVA_HOME/bin/java
  version=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p') || return 1
  [ "$version" = 17 ] || [ "$version" = 21 ]
}
compiler_works() { command -v g++ >/dev/null; }
make_works() { command -v make >/dev/null; }
cmake_works() { command -v cmake >/dev/null; }
venv_works() { "$python" -c 'import ensurepip' 2>/dev/null; }

# What can be missing is looked for before the long work.
check_machine() {
  local free_gb
  need "Python's venv module" venv_works "python3.11-venv"
  need "A C++ compiler (g++)" compiler_works "g++"
  if [ -z "$(compiled_wheel)" ]; then
    need "make" make_works "make"
    need "CMake" cmake_works "cmake"
  fi
  free_gb=$(df -Pk "$root" | sed -n '2s/^[^ ]* *[0-9]* *[0-9]* *\([0-9]*\).*/\1/p')
  free_gb=$((free_gb / 1048576))
  [ -d "$venv" ] || [ "$free_gb" -ge "$needed_gb" ] ||
    fail "$root has $free_gb GB free; set-up needs $needed_gb GB." "Free some space, or move the checkout to another disk."
}

install_packages() {
  # Half made, or made where the checkout was before.
  if [ -d "$venv" ] && ! { grep -qsF "$venv/" "$venv/bin/pip" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; }; then
    say "Removing a .venv that does not work."
    rm -rf "$venv"
  fi
  [ -d "$venv" ] || timed "Making .venv" "$python" -m venv "$venv"
  timed "Installing Python packages (6 GB; about 3 minutes)" install_all_but_horovod
}

install_all_but_horovod() {
  grep -v '^horovod==' "$requirements" | "$venv/bin/python" -m pip install --disable-pip-version-check -r /dev/stdin
  # It would tell OpenVINO's makers of every import; OpenVINO does as well without it.
  "$venv/bin/python" -m pip uninstall --disable-pip-version-check --yes openvino-telemetry
}

# The wheel in the user's cache; nothing where there is none.
compiled_wheel() {
  local wheel
  for wheel in "$wheels/horovod-$(version_of horovod)-"*.whl; do
    [ ! -f "$wheel" ] || printf '%s' "$wheel"
  done
}

# For GPUs CUDA comes from Python packages: libraries and headers with torch, the compiler from requirements-gpu.txt.
build_horovod() {
  mkdir -p "$wheels"
  local building nvidia=$venv/lib/python3.11/site-packages/nvidia for_gpus=()
  if [ "$kind" = nccl ]; then
    timed "Installing NVIDIA's compiler (0.3 GB)" \
      "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps -r "$here/requirements-gpu.txt"
    for_gpus=(
      GALAXYSPARK_NVIDIA="$nvidia" CUDA_HOME="$nvidia/cu13" HOROVOD_CUDA_HOME="$nvidia/cu13"
      LIBRARY_PATH="$nvidia/cu13/lib" HOROVOD_NCCL_HOME="$nvidia/nccl"
      HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_BUILD_CUDA_CC_LIST=75,80,90
    )
  fi
  building=$(mktemp -d "$wheels/.building-XXXXXX")
  # pip's own cache knows a wheel by its name alone, and one built against another torch breaks: --no-cache-dir.
  timed "Compiling Horovod (3 to 6 minutes, once for all checkouts)" env \
    PATH="$venv/bin:$PATH" HOROVOD_CMAKE="$here/horovod-cmake.sh" \
    HOROVOD_WITH_PYTORCH=1 HOROVOD_WITH_GLOO=1 \
    HOROVOD_WITHOUT_MPI=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 "${for_gpus[@]}" \
    "$venv/bin/python" -m pip wheel "horovod==$(version_of horovod)" --wheel-dir "$building" \
    --no-deps --no-binary horovod --no-build-isolation --no-cache-dir --disable-pip-version-check
  mv "$building"/horovod-*.whl "$wheels/"
  rmdir "$building"
}

install_horovod() {
  if [ -n "$(compiled_wheel)" ]; then
    say "Horovod was compiled before: $(compiled_wheel)"
  else
    build_horovod
  fi
  timed "Installing Horovod" "$venv/bin/python" -m pip install --disable-pip-version-check \
    --no-deps --force-reinstall "$(compiled_wheel)"
  timed "Installing galaxyspark, with its compiled layers" "$venv/bin/python" -m pip install --disable-pip-version-check \
    --no-deps --no-build-isolation -e "$root"
}

# What the last set-up has left, unless told otherwise.
kind=cpu
[ ! -f "$venv/.galaxyspark-ready" ] || read -r kind _ <"$venv/.galaxyspark-ready" || true
[ "$kind" = nccl ] || kind=cpu
case ${1:-} in
  "") ;;
  --gpu) kind=nccl ;;
  --cpu) kind=cpu ;;
  *) printf '[setup] setup: no flag %s. There are --gpu and --cpu.\n' "$1" >&2; exit 2 ;;
esac

find_python || fail "Python 3.11 is missing (looked for python3.11, python3 and \$PYTHON)." \
  "On Debian 12: sudo apt-get install python3.11 python3.11-venv. Elsewhere name it: PYTHON=/path/to/python3.11 ./submit.sh setup"
need "Java 17 or 21 (java on the PATH, or JAVA_HOME)" java_works "openjdk-17-jre-headless"

wheels=$wheel_cache/python3.11-torch$(version_of torch)-$kind-$(uname -m)
is_ready() {
  [ "$(cat "$venv/.galaxyspark-ready" 2>/dev/null)" = "$stamp" ] &&
    { [ "$(uname)" != Linux ] || [ -f "$root/galaxyspark_kernels/library.so" ]; }
}
stamp="$kind $(cat "$requirements" "$here"/requirements-gpu.txt "$here/setup.sh" "$here/horovod.cmake" "$here/horovod-cmake.sh" "$root/setup.py" "$root/galaxyspark_kernels/kernels.cpp" | cksum) $root"
is_ready && exit 0

exec 9>"$root/.venv-setup.lock"
flock 9 2>/dev/null || true
is_ready && exit 0 # another set-up has just ended
: >"$log"
start=$SECONDS
check_machine
install_packages
install_horovod
printf '%s' "$stamp" >"$venv/.galaxyspark-ready"
say "Ready after $((SECONDS - start)) s."
