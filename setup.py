"""Installs galaxyspark. What it needs, with exact versions, stands in conf/setup/requirements.txt."""

import sys
from typing import Any

from setuptools import find_packages, setup


def kernels() -> dict[str, Any]:
    """The compiled layers; without them training takes torch's. Compiled for the torch that is installed already."""
    try:
        from torch.utils.cpp_extension import BuildExtension, CppExtension
    except ImportError:
        return {}
    if sys.platform != "linux":
        return {}
    # -fopenmp is for the compiler alone: the threads are torch's, whose OpenMP is loaded already.
    flags = ["-O3", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
    library = CppExtension("galaxyspark_kernels.library", ["galaxyspark_kernels/kernels.cpp"], extra_compile_args=flags)
    build = BuildExtension.with_options(use_ninja=False, no_python_abi_suffix=True)
    return {"ext_modules": [library], "cmdclass": {"build_ext": build}}


setup(
    name="galaxyspark",
    version="0.1.0",
    description="Sorts galaxies by shape at any scale: Spark, petastorm, Horovod",
    license="Apache-2.0",
    python_requires=">=3.11,<3.12",
    packages=find_packages(include=["galaxyspark", "galaxyspark.*", "galaxyspark_kernels"]),
    package_data={"galaxyspark.report": ["templates/*", "templates/sections/*"]},
    **kernels(),
)
