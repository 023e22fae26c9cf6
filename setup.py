"""Installs galaxyspark. What it needs, with exact versions, stands in conf/setup/requirements.txt."""

from setuptools import find_packages, setup

setup(
    name="galaxyspark",
    version="0.1.0",
    description="Sorts galaxies by shape at any scale: Spark, petastorm, Horovod",
    license="Apache-2.0",
    python_requires=">=3.11,<3.12",
    packages=find_packages(include=["galaxyspark", "galaxyspark.*"]),
    package_data={"galaxyspark.report": ["templates/*", "templates/sections/*"]},
)
