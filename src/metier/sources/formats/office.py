"""Office files: DOCX, PPTX, and the sheets of XLSX, XLS and ODS. A locked one is opened with its password."""

import io
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

from metier.sources.formats.outcome import Reading, UnreadableError, one_document
from metier.sources.formats.packages import Package, attribute, elements, local_name
from metier.sources.text import clean_text

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# Not text of the document: deleted by a tracked change, the other form of a drawing, codes of fields.
LEFT_OUT = {"del", "moveFrom", "Fallback", "instrText", "delText", "annotation", "txbxContent"}
CELL = " | "


def read_docx(data: bytes, password: str = "") -> Reading:
    """Paragraphs, lists, tables, text boxes and notes in order; headers and footers are left out.

    Raises:
        UnreadableError: damaged, locked, without text, or no DOCX.
    """
    package = Package(unlocked(data, password, ".docx"), "DOCX")
    main = next((part for kind, part in package.related("").values() if kind == "officeDocument"), "word/document.xml")
    root = package.xml(main)
    blocks = [block for body in elements(root, "body") for block in _blocks(body)]
    n_running = 0
    for kind, part in package.related(main).values():
        if kind in ("footnotes", "endnotes") and part in package.names:
            notes = [note for note in package.xml(part) if not attribute(note, "type")]
            blocks += [("note", text) for note in notes if (text := " ".join(t for _, t in _blocks(note)))]
        elif kind in ("header", "footer") and part in package.names:
            n_running += bool("".join(_texts(package.xml(part))).strip())
    text = ""
    for (last, _), (kind, block) in zip([("", ""), *blocks], blocks, strict=False):
        text += ("\n" if kind == last and kind in ("item", "row") else "\n\n" if text else "") + block
    return _finished(text, {"headers and footers": n_running}, package)


def _blocks(parent: Element) -> Iterator[tuple[str, str]]:
    """(paragraph, item or row; its text), in order."""
    for element in parent:
        name = local_name(element)
        if name == "p":
            text = "".join(_texts(element)).strip()
            boxes = [block for box in elements(element, "txbxContent") for block in _blocks(box)]
            if text:
                level = next((int(attribute(e, "val") or 0) for e in elements(element, "ilvl")), None)
                is_item = next(elements(element, "numPr"), None) is not None
                yield ("item", "  " * (level or 0) + "- " + text) if is_item else ("paragraph", text)
            yield from boxes[: len(boxes) // 2] if _twice(boxes) else boxes
        elif name == "tbl":
            for row in (e for e in element if local_name(e) == "tr"):
                cells = [" ".join(text for _, text in _blocks(e)) for e in row if local_name(e) == "tc"]
                if any(cells):
                    yield "row", CELL.join(cells)
        elif name in ("sdt", "sdtContent", "ins", "customXml", "smartTag"):
            yield from _blocks(element)


def _twice(boxes: list[tuple[str, str]]) -> bool:
    """A text box is stored once as a drawing and once more for old readers."""
    half = len(boxes) // 2
    return bool(boxes) and boxes[:half] == boxes[half:]


def _texts(element: Element) -> Iterator[str]:
    for child in element:
        name = local_name(child)
        if name in LEFT_OUT:
            continue
        if name == "t":
            yield child.text or ""
        elif name in ("tab", "ptab"):
            yield "\t" if local_name(element) == "r" else ""
        elif name in ("br", "cr"):
            yield "\n"
        elif name == "noBreakHyphen":
            yield "-"
        else:
            yield from _texts(child)


def read_pptx(data: bytes, password: str = "") -> Reading:
    """The text of every slide in order, with its tables and its notes.

    Raises:
        UnreadableError: damaged, locked, without text, or no PPTX.
    """
    package = Package(unlocked(data, password, ".pptx"), "PPTX")
    main = next(
        (part for kind, part in package.related("").values() if kind == "officeDocument"), "ppt/presentation.xml"
    )
    root, related = package.xml(main), package.related(main)
    order = [related[key][1] for e in elements(root, "sldId") if (key := _relation(e)) in related]
    slides = []
    for part in order:
        shown = _slide_lines(package.xml(part))
        notes = [p for kind, p in package.related(part).values() if kind == "notesSlide" and p in package.names]
        said = [line for note in notes for line in _slide_lines(package.xml(note)) if not line.strip().isdigit()]
        slides.append("\n".join(shown) + ("\n\n" + "\n".join(said) if said else ""))
    return _finished("\n\n".join(slide for slide in slides if slide.strip()), {}, package)


def _relation(element: Element) -> str:
    return next((value for key, value in element.attrib.items() if key.endswith("}id")), "")


def _slide_lines(root: Element) -> list[str]:
    lines: list[str] = []
    in_tables: set[Element] = set()
    for element in root.iter():
        if local_name(element) == "tr":
            cells = ["".join(_texts(cell)).strip() for cell in element if local_name(cell) == "tc"]
            in_tables.update(elements(element, "p"))
            lines.append(CELL.join(cells))
        elif local_name(element) == "p" and element not in in_tables:
            lines.append("".join(_texts(element)).strip())
    return [line for line in lines if line.strip(" |")]


def read_sheets(data: bytes, password: str = "") -> dict[str, list[list[str]]]:
    """{name of a sheet: its rows of cells as text}, without empty sheets and rows.

    Raises:
        UnreadableError: damaged, locked, or no spreadsheet.
    """
    import python_calamine

    if password or data.startswith(OLE):
        data = unlocked(data, password, "spreadsheet", old_is_read=True)
    if data.startswith(b"PK"):
        Package(data, "spreadsheet")
    try:
        workbook = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        found = {name: workbook.get_sheet_by_name(name).to_python() for name in workbook.sheet_names}
    except (python_calamine.CalamineError, ValueError, OSError) as error:
        raise UnreadableError("rejected", f"is damaged: no spreadsheet can be read from it ({error})") from None
    sheets = {
        name: [cells for row in rows if any(cells := [_cell(value) for value in row])] for name, rows in found.items()
    }
    return {name: rows for name, rows in sheets.items() if rows}


def _cell(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return " ".join(str(value).split()) if not isinstance(value, str) else value.strip()


def sheets_text(sheets: dict[str, list[list[str]]]) -> Reading:
    """Sheets as one document: a row a line, bars between cells, the name of the sheet above it where there are several.

    Raises:
        UnreadableError: there is no text.
    """
    parts = []
    for name, rows in sheets.items():
        lines = [CELL.join(" ".join(cell.split()) for cell in row).rstrip(" |") for row in rows]
        parts.append("\n".join([name, *lines] if len(sheets) > 1 else lines))
    text = clean_text("\n\n".join(parts))
    if not text:
        raise UnreadableError("no_text", "holds no text")
    return one_document(text, text)


def unlocked(data: bytes, password: str, kind: str, *, old_is_read: bool = False) -> bytes:
    """The bytes of an office file, decrypted if it is locked.

    Raises:
        UnreadableError: the password is missing or wrong, or it is a file of before 2007.
    """
    if not data.startswith(OLE):
        return data
    import msoffcrypto
    from msoffcrypto.exceptions import FileFormatError

    try:
        file = msoffcrypto.OfficeFile(io.BytesIO(data))
        locked = file.is_encrypted()
    except (FileFormatError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError):
        raise UnreadableError("rejected", "is damaged, or an old office file that is not read") from None
    if not locked:
        if old_is_read:
            return data
        raise UnreadableError("unsupported", "is an office file of before 2007", f"save it as {kind}")
    if not password:
        raise UnreadableError("needs_password", "opens with a password only", "give it with --password")
    opened = io.BytesIO()
    try:
        file.load_key(password=password)
        file.decrypt(opened)
    except Exception as error:  # a wrong key shows as any error of what is then decoded
        why = "opens with another password than the one given"
        raise UnreadableError("needs_password", why, "give it with --password") from error
    return opened.getvalue()


def _finished(text: str, removed: dict[str, int], package: Package) -> Reading:
    clean = clean_text(text)
    if not clean:
        raise UnreadableError("no_text", "holds no text")
    title = ""
    if "docProps/core.xml" in package.names:
        title = next((e.text or "" for e in elements(package.xml("docProps/core.xml"), "title")), "")
    return one_document(clean, text, removed, " ".join(title.split()))
