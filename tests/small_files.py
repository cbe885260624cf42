"""Small real files of the kinds that people keep documents in, made by hand."""

import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence

Placed = tuple[float, float, str]  # left, bottom, text; a page is 612 by 792 points
PADDING = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")


def pdf(pages: Sequence[Sequence[Placed]], password: str = "") -> bytes:
    """A PDF of 10-point text at given places, locked with 40-bit RC4 if there is a password."""
    objects: list[bytes] = [b"", b""]
    kids = []
    streams: dict[int, bytes] = {}
    for page in pages:
        shown = "".join(f"1 0 0 1 {x} {y} Tm ({_escaped(text)}) Tj\n" for x, y, text in page)
        streams[len(objects) + 1] = f"BT /F1 10 Tf\n{shown}ET".encode("cp1252")
        objects.append(b"")
        kids.append(len(objects) + 1)
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents %d 0 R/Resources<</Font<</F1<</Type/Font"
            b"/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>>>>>>>" % len(objects)
        )
    objects[0] = b"<</Type/Catalog/Pages 2 0 R>>"
    objects[1] = b"<</Type/Pages/Count %d/Kids[%s]>>" % (len(kids), b" ".join(b"%d 0 R" % kid for kid in kids))
    trailer = b""
    if password:
        identity, permissions = b"0123456789abcdef", -4
        padded = (password.encode() + PADDING)[:32]
        owner = rc4(hashlib.md5(padded).digest()[:5], padded)
        key = hashlib.md5(padded + owner + permissions.to_bytes(4, "little", signed=True) + identity).digest()[:5]
        user = rc4(key, PADDING)
        trailer = b"/ID[<%s><%s>]/Encrypt<</Filter/Standard/V 1/R 2/O<%s>/U<%s>/P %d>>" % (
            *(value.hex().encode() for value in (identity, identity, owner, user)),
            permissions,
        )
        for number, stream in streams.items():
            own = hashlib.md5(key + number.to_bytes(3, "little") + b"\0\0").digest()[:10]
            streams[number] = rc4(own, stream)
    for number, stream in streams.items():
        objects[number - 1] = b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream)
    return _file(objects, trailer)


def _file(objects: Sequence[bytes], trailer: bytes) -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, content in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    out += b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF" % (
        size,
        table,
        size,
        trailer,
        len(out),
    )
    return bytes(out)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


def rc4(key: bytes, data: bytes) -> bytes:
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]

    def stream() -> Iterator[int]:
        i = j = 0
        while True:
            i = (i + 1) % 256
            j = (j + state[i]) % 256
            state[i], state[j] = state[j], state[i]
            yield state[(state[i] + state[j]) % 256]

    return bytes(byte ^ mask for byte, mask in zip(data, stream(), strict=False))


def lines(texts: Sequence[str], left: float = 72, top: float = 700, leading: float = 12) -> list[Placed]:
    """Lines under one another."""
    return [(left, top - leading * n, text) for n, text in enumerate(texts)]


def zipped(parts: Mapping[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return out.getvalue()


RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
SLIDES = "http://schemas.openxmlformats.org/presentationml/2006/main"
DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"
SHEETS = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def relations(*entries: tuple[str, str, str]) -> str:
    inner = "".join(f'<Relationship Id="{i}" Type="{OFFICE}/{kind}" Target="{part}"/>' for i, kind, part in entries)
    return f'<Relationships xmlns="{RELATIONS}">{inner}</Relationships>'


def docx(
    body: str, more: Mapping[str, str | bytes] | None = None, related: Sequence[tuple[str, str, str]] = ()
) -> bytes:
    """body: the inside of w:body. more: further parts, by name."""
    return zipped(
        {
            "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
            "_rels/.rels": relations(("r1", "officeDocument", "word/document.xml")),
            "word/document.xml": f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>',
            "word/_rels/document.xml.rels": relations(*related),
            **(more or {}),
        }
    )


def paragraph(text: str, inside: str = "") -> str:
    return f"<w:p>{inside}<w:r><w:t>{text}</w:t></w:r></w:p>"


def pptx(slides: Sequence[str]) -> bytes:
    """slides: the inside of each slide's text body; stored in the opposite order of their file names."""
    numbers = range(len(slides), 0, -1)
    order = "".join(f'<p:sldId r:id="s{n}"/>' for n in numbers)
    parts = {
        "_rels/.rels": relations(("r1", "officeDocument", "ppt/presentation.xml")),
        "ppt/presentation.xml": f'<p:presentation xmlns:p="{SLIDES}" xmlns:r="{OFFICE}"><p:sldIdLst>{order}'
        "</p:sldIdLst></p:presentation>",
        "ppt/_rels/presentation.xml.rels": relations(*((f"s{n}", "slide", f"slides/slide{n}.xml") for n in numbers)),
    }
    for number, inside in zip(numbers, slides, strict=True):
        parts[f"ppt/slides/slide{number}.xml"] = (
            f'<p:sld xmlns:p="{SLIDES}" xmlns:a="{DRAWING}"><p:txBody>{inside}</p:txBody></p:sld>'
        )
    return zipped(parts)


def xlsx(sheets: Mapping[str, Sequence[Sequence[str | float]]]) -> bytes:
    listed = "".join(f'<sheet name="{name}" sheetId="{n}" r:id="s{n}"/>' for n, name in enumerate(sheets, start=1))
    parts = {
        "_rels/.rels": relations(("r1", "officeDocument", "xl/workbook.xml")),
        "xl/workbook.xml": f'<workbook xmlns="{SHEETS}" xmlns:r="{OFFICE}"><sheets>{listed}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": relations(
            *((f"s{n}", "worksheet", f"worksheets/sheet{n}.xml") for n in range(1, len(sheets) + 1))
        ),
    }
    for n, rows in enumerate(sheets.values(), start=1):
        inside = "".join(f"<row>{''.join(map(_cell, row))}</row>" for row in rows)
        parts[f"xl/worksheets/sheet{n}.xml"] = (
            f'<worksheet xmlns="{SHEETS}"><sheetData>{inside}</sheetData></worksheet>'
        )
    return zipped(parts)


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return f'<c t="inlineStr"><is><t>{value}</t></is></c>'
    return f"<c><v>{value}</v></c>"


def epub(chapters: Mapping[str, str], title: str = "A book") -> bytes:
    """chapters: file name → the inside of its body, in reading order; a table of contents is added."""
    items = "".join(f'<item id="{name}" href="{name}" media-type="application/xhtml+xml"/>' for name in chapters)
    spine = '<itemref idref="toc"/>' + "".join(f'<itemref idref="{name}"/>' for name in chapters)
    page = "<html><head><title>x</title></head><body>{}</body></html>"
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<container><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles>'
            "</container>",
            "OEBPS/book.opf": f"<package><metadata><title>{title}</title></metadata><manifest>"
            f'<item id="toc" href="toc.xhtml" media-type="application/xhtml+xml" properties="nav"/>{items}</manifest>'
            f"<spine>{spine}</spine></package>",
            "OEBPS/toc.xhtml": page.format("<nav>Contents of this book</nav>"),
            **{f"OEBPS/{name}": page.format(body) for name, body in reversed(chapters.items())},
        }
    )
