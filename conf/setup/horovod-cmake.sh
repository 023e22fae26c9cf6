#!/usr/bin/env bash
# Stands in for cmake while Horovod is built (HOROVOD_CMAKE): the same call, with horovod.cmake included.
here=$(cd "$(dirname "$0")" && pwd)
case " $* " in
  *" --build "*) exec cmake "$@" ;;
esac
exec cmake "$@" -DCMAKE_PROJECT_horovod_INCLUDE="$here/horovod.cmake" -DCMAKE_POLICY_VERSION_MINIMUM=3.5
