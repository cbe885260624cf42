"""Zip packages that are one document (office files, books): their parts, within limits."""

import io
import zipfile
import zlib
from collections.abc import Iterator
from xml.etree import ElementTree

from metier.sources.formats.outcome import UnreadableError

MOST_PART_BYTES = 128 << 20  # of one part, unpacked: the text of a very long book
# NotImplementedError is zipfile's for a compression or a version that it does not know.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


class Package:
    """A zip file in memory. Expat guards against entities that grow; the sizes are guarded here."""

    def __init__(self, data: bytes, kind: str) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
            self.names = self._zip.namelist()
        except DAMAGED:
            whole = "is damaged" if data.startswith(b"PK") else "is not a zip package"
            raise UnreadableError("rejected", f"{whole}: no {kind} can be read from it", "get it again") from None
        self._kind = kind

    def read(self, name: str) -> bytes:
        """One part.

        Raises:
            UnreadableError: it is not there, damaged, or too large.
        """
        try:
            with self._zip.open(name) as part:
                data = part.read(MOST_PART_BYTES + 1)
        except KeyError:
            raise UnreadableError("rejected", f"is no {self._kind}: it has no {name}", "leave it out") from None
        except DAMAGED as error:
            raise UnreadableError("rejected", f"is damaged: {name} in it cannot be read ({error})") from None
        if len(data) > MOST_PART_BYTES:
            raise UnreadableError("rejected", f"unpacks to more than {MOST_PART_BYTES >> 20} MiB ({name} in it)")
        return data

    def xml(self, name: str) -> ElementTree.Element:
        try:
            return ElementTree.fromstring(self.read(name))
        except ElementTree.ParseError as error:
            raise UnreadableError("rejected", f"is damaged: {name} in it is not XML ({error})") from None

    def related(self, name: str) -> dict[str, tuple[str, str]]:
        """{id: (kind, part)} of what a part of an office file refers to."""
        folder, _, file = name.rpartition("/")
        relations = f"{folder}/_rels/{file}.rels" if folder else f"_rels/{file}.rels"
        if relations not in self.names:
            return {}
        return {
            relation.get("Id", ""): (
                relation.get("Type", "").rpartition("/")[2],
                _path(folder, relation.get("Target", "")),
            )
            for relation in self.xml(relations)
            if relation.get("TargetMode") != "External"
        }


def _path(folder: str, target: str) -> str:
    parts: list[str] = [] if target.startswith("/") or not folder else folder.split("/")
    for part in target.strip("/").split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def local_name(element: ElementTree.Element) -> str:
    """The name of an element without its namespace; "" for a comment."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def attribute(element: ElementTree.Element, name: str) -> str:
    """An attribute whatever its namespace, "" when it is not there."""
    return next((value for key, value in element.attrib.items() if key.rpartition("}")[2] == name), "")


def elements(root: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (element for element in root.iter() if local_name(element) == name)
