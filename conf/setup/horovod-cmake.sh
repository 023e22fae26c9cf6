#!/usr/bin/env bash
# Stands in for cmake while Horovod is built (HOROVOD_CMAKE): the same call, with horovod.cmake included.
here=$(cd "$(dirname "$0")" && pwd)
case " $* " in
  *" --build "*) exec cmake "$@" ;;
esac
gpu=()
if [ -n "${GALAXYSPARK_NVIDIA:-}" ]; then
  # The packages that torch brings have CUDA's libraries by their full names only, which CMake does not look for.
  cudart=$GALAXYSPARK_NVIDIA/cu13/lib/libcudart.so.13
  gpu=(
    -DGALAXYSPARK_WITH_CUDA=ON
    -DCUDAToolkit_INCLUDE_DIR="$GALAXYSPARK_NVIDIA/cu13/include"
    -DCUDA_CUDART="$cudart" -DCUDA_cudart_LIBRARY="$cudart" -DFOUND_LIB_cudart="$cudart"
    # The driver's library comes with the driver; Horovod calls nothing of it, but CMake asks for one.
    -DCUDA_cuda_driver_LIBRARY="$cudart"
    -DNCCL_INCLUDE_DIR="$GALAXYSPARK_NVIDIA/nccl/include" -DNCCL_LIBRARY="$GALAXYSPARK_NVIDIA/nccl/lib/libnccl.so.2"
    "-DCMAKE_CUDA_ARCHITECTURES=75;80;90"
  )
fi
exec cmake "$@" "${gpu[@]}" \
  -DCMAKE_PROJECT_horovod_INCLUDE="$here/horovod.cmake" -DCMAKE_POLICY_VERSION_MINIMUM=3.5
