"""What Spark brings to executors that have no checkout: our code, and an environment of packages for it to run in."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
import tarfile
import uuid
import zipfile
from pathlib import Path

PACKAGE = Path(__file__).parent
BUILD = PACKAGE.parent / "build"

# Stages do without these on executors, where Spark itself is there already; they are five sixths of the environment.
_NOT_FOR_EXECUTORS = (
    *("torch", "torchgen", "functorch", "torchvision", "nvidia", "triton", "horovod", "captum", "tensorboard"),
    *("pyspark", "galaxyspark", "__editable__", "playwright", "duckdb", "_duckdb", "plotly", "mypy", "pip"),
    *("sympy", "networkx", "cuda", "grpc", "kubernetes_validate"),
)


def pack_code() -> Path:
    """The package as a zip file for ``--py-files``, in a directory named for its content: running jobs read theirs."""
    sources = sorted(path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    contents = {str(path.relative_to(PACKAGE.parent)): path.read_bytes() for path in sources}
    digest = hashlib.sha256(repr(contents).encode()).hexdigest()[:12]
    archive = BUILD / f"code-{digest}" / "galaxyspark.zip"
    if archive.exists():
        return archive
    archive.parent.mkdir(parents=True, exist_ok=True)
    temporary = archive.with_name(f".{uuid.uuid4().hex}")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in contents.items():
            file.writestr(name, content)
    os.replace(temporary, archive)
    return archive


def pack_environment(archive: Path) -> None:
    """Write the packages of this virtual environment that executors need, for ``spark.archives``.

    It has no interpreter of its own: ``bin/python`` is a link to the one that this environment was made from, which
    must be in the same place on every host.

    Args:
        archive: The ``.tar.gz`` to write.
    """
    packages = Path(sysconfig.get_path("purelib"))
    archive.parent.mkdir(parents=True, exist_ok=True)
    temporary = archive.with_name(f".{uuid.uuid4().hex}")
    with tarfile.open(temporary, "w:gz", compresslevel=1) as file:
        file.add(Path(sys.prefix) / "pyvenv.cfg", "pyvenv.cfg")
        python = tarfile.TarInfo("bin/python")
        python.type, python.linkname = tarfile.SYMTYPE, str(Path(sys.executable).resolve())
        file.addfile(python)
        for path in sorted(packages.iterdir()):
            if not path.name.startswith(_NOT_FOR_EXECUTORS):
                file.add(path, packages.relative_to(sys.prefix) / path.name)
    os.replace(temporary, archive)


if __name__ == "__main__":
    print(pack_code())
