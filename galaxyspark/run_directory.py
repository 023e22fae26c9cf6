"""The run directory: where each stage finds its input, and how it publishes its output.

A stage writes all of its output, its manifest and its settings into a place of the attempt's own, and then publishes
all of it at once, as its storage can. A stage without a manifest has not been published, and its output is refused.
"""

from __future__ import annotations

import json
import platform
import re
import shlex
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from galaxyspark import __version__
from galaxyspark.command_line import to_yaml
from galaxyspark.disk_storage import DiskStorage
from galaxyspark.errors import UserError
from galaxyspark.object_storage import ObjectStorage
from galaxyspark.settings import STAGES, RunSettings
from galaxyspark.storage import Place, Staging, Storage, url_in, write_atomically

_VERSIONS_OF = ("pyspark", "petastorm", "pyarrow", "numpy", "torch", "torchvision", "horovod", "scikit-learn")
_NOT_IN_PATHS = re.compile(r"[#?*\[\]{}\\]")


class RunDirectory:
    """One run of the pipeline: a directory on a disk, or what lies below a URL.

    Attributes:
        root: The run, as people name it.
    """

    def __init__(self, root: Path) -> None:
        """Point at a run.

        Raises:
            UserError: The path is a file, or has characters that Spark or petastorm give a meaning of their own; or no
                package for such a URL is installed.
        """
        if _NOT_IN_PATHS.search(str(root)):
            raise UserError(f"--run {root}: must be without any of # ? * [ ] {{ }} \\")
        url = url_in(root)
        self._storage: Storage = DiskStorage(root) if url is None else ObjectStorage(url)
        self.root = self._storage.root

    def exists(self) -> bool:
        """Whether there is anything of the run."""
        return self._storage.exists()

    def has(self, name: str) -> bool:
        """Whether ``name`` (``views``, ``model``, ``metrics.json``, ...) is in the run."""
        return self._storage.has(name)

    def place(self, name: str) -> Place:
        """Where the published ``name`` lies: for Spark and petastorm, and to show to people."""
        return self._storage.place(name)

    def path(self, name: str) -> Path:
        """The published ``name`` on a disk of this machine, copied there if it lies elsewhere."""
        return self._storage.path(name)

    def keep(self, name: str) -> None:
        """Bring to the run what was written to ``path(name)``, and is of no stage's publishing."""
        self._storage.keep(name)

    def is_running(self, stage: str) -> bool:
        """Whether a process is at the stage now, as far as can be known. Asking keeps no stage from starting."""
        return self._storage.is_running(stage)

    def leftovers(self, stage: str) -> Sequence[Place]:
        """What a stage that runs has not published yet, or one that was killed has left, as far as can be known."""
        return self._storage.leftovers(stage)

    def manifest(self, stage: str) -> dict[str, Any]:
        """The manifest of a published stage.

        Raises:
            UserError: The stage has not been published in this run.
        """
        manifest = self._storage.manifest(stage)
        if manifest is not None:
            return manifest
        if not self.exists():
            raise UserError(f"{self.root}: no such run.")
        raise UserError(
            f"{self.root}: stage '{stage}' has not been published in this run. "
            f"Run it first: ./submit.sh {stage} --run {self.root} ..."
        )

    def published(self) -> dict[str, dict[str, Any]]:
        """The manifests of all published stages, in the order of the pipeline."""
        found = ((stage, self._storage.manifest(stage)) for stage in STAGES)
        return {stage: manifest for stage, manifest in found if manifest is not None}

    def outdated(self) -> list[tuple[str, str]]:
        """Pairs (stage, earlier stage) where the stage has read another output than is published now."""
        published = self.published()
        return [
            (stage, earlier)
            for stage, manifest in published.items()
            for earlier, read_id in manifest.get("inputs", {}).items()
            if earlier in STAGES and published.get(earlier, {}).get("id") != read_id
        ]

    def require_current(self, *stages: str) -> None:
        """Refuse to build on stages that were not run again after what they had read was replaced.

        Raises:
            UserError: It names the stage to run again; or one of the stages has not been published.
        """
        for stage in stages:
            self.manifest(stage)
        for stage, earlier in self.outdated():
            if stage in stages:
                settings = shlex.quote(str(self.place(f"settings/{stage}.yaml")))
                raise UserError(
                    f"{self.root}: stage '{earlier}' was run again after '{stage}'. "
                    f"Run it again too: ./submit.sh {stage} --config {settings}"
                )

    @contextmanager
    def stage(self, name: str, settings: RunSettings, inputs: Mapping[str, str]) -> Iterator[Staging]:
        """Run the body with a staging directory and publish what it wrote there when it ends without an error.

        Args:
            name: The stage, one of ``STAGES``.
            settings: Saved with the run: in the manifest and as ``settings/<stage>.yaml``.
            inputs: What the stage reads: the ``id`` of the manifests of earlier stages, paths of images and labels.
        """
        with self._storage.only_one(name):
            staging = self._storage.begin(name)
            start = time.perf_counter()
            try:
                yield staging
                self._describe(name, staging, settings, inputs, time.perf_counter() - start)
                self._storage.publish(name, staging)
            finally:
                self._storage.end(staging)

    def _describe(
        self, stage: str, staging: Staging, settings: RunSettings, inputs: Mapping[str, str], duration_s: float
    ) -> None:
        """Write the manifest and the settings into the staging directory, where they will lie in the run."""
        count, unit = staging.handled or (0, "")
        staging.manifest = {
            "stage": stage,
            "id": uuid.uuid4().hex,
            "published": datetime.now(UTC).isoformat(timespec="seconds"),
            "duration_s": round(duration_s, 2),
            "rate": {"per_s": count / duration_s, "unit": unit} if staging.handled else None,
            "inputs": dict(inputs),
            "outputs": self._storage.outputs(staging),
            **({"attempt": staging.attempt} if staging.attempt else {}),
            "versions": versions(),
            **staging.manifest,
        }
        write_atomically(staging.path(f"settings/{stage}.yaml"), to_yaml(settings))
        write_atomically(staging.path(f"manifests/{stage}.json"), json.dumps(staging.manifest, indent=2))


def duration_s(manifest: Mapping[str, Any]) -> float:
    """Seconds that a stage took from reading its input to publishing; of a training, of all its sittings."""
    return float(manifest["duration_s"] + manifest.get("earlier_sittings_s", 0.0))


def versions() -> dict[str, str]:
    """Versions of what the results depend on, by package name."""
    return {
        "galaxyspark": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _VERSIONS_OF},
    }
