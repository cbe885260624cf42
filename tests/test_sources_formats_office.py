"""Office files: paragraphs, lists, tables, slides, sheets, and locks."""

import io
import random

import msoffcrypto.format.ooxml
import pytest

from metier.sources.formats.office import read_docx, read_pptx, read_sheets, sheets_text
from metier.sources.formats.outcome import UnreadableError
from small_files import WORD, docx, paragraph, pptx, xlsx, zipped

ITEM = '<w:pPr><w:numPr><w:ilvl w:val="{}"/><w:numId w:val="1"/></w:numPr></w:pPr>'


def cell(inside):
    return f"<w:tc>{inside}</w:tc>"


def test_paragraphs_lists_and_tables_come_in_order():
    inner = f"<w:tbl><w:tr>{cell(paragraph('in'))}{cell(paragraph('side'))}</w:tr></w:tbl>"
    row = f"<w:tr>{cell(paragraph('Left'))}{cell(inner)}</w:tr>"
    body = (
        paragraph("Title")
        + paragraph("One", ITEM.format(0))
        + paragraph("Deeper", ITEM.format(1))
        + f"<w:tbl>{row}{row}</w:tbl>"
        + "<w:sdt><w:sdtContent>"
        + paragraph("End")
        + "</w:sdtContent></w:sdt>"
    )
    text = read_docx(docx(body)).documents[0].text
    assert text == "Title\n\n- One\n  - Deeper\n\nLeft | in | side\nLeft | in | side\n\nEnd"


def test_what_was_deleted_is_not_read_and_what_was_inserted_is():
    run = "<w:r><w:t>{}</w:t></w:r>"
    body = f"<w:p>{run.format('Kept')}<w:del>{run.format(' gone')}</w:del><w:ins>{run.format(' added')}</w:ins></w:p>"
    assert read_docx(docx(body)).documents[0].text == "Kept added"


def test_headers_are_left_out_and_counted_and_notes_come_last():
    more = {
        "word/header1.xml": f'<w:hdr xmlns:w="{WORD}">{paragraph("Secret")}</w:hdr>',
        "word/footnotes.xml": f'<w:footnotes xmlns:w="{WORD}"><w:footnote w:type="separator">{paragraph("---")}'
        f"</w:footnote><w:footnote>{paragraph('A note')}</w:footnote></w:footnotes>",
    }
    related = [("h", "header", "header1.xml"), ("f", "footnotes", "footnotes.xml")]
    found = read_docx(docx(paragraph("Body"), more, related))
    assert found.documents[0].text == "Body\n\nA note"
    assert found.removed == {"headers and footers": 1}


def test_slides_are_read_in_the_order_in_which_they_are_shown():
    line = "<a:p><a:r><a:t>{}</a:t></a:r></a:p>"
    table = "".join(f"<a:tc><a:txBody>{line.format(text)}</a:txBody></a:tc>" for text in ("x", "y"))
    found = read_pptx(pptx([line.format("First") + line.format("point"), f"<a:tbl><a:tr>{table}</a:tr></a:tbl>"]))
    assert found.documents[0].text == "First\npoint\n\nx | y"


def test_sheets_are_rows_of_cells_and_several_are_named():
    sheets = read_sheets(xlsx({"Fuel": [["Litres", "Tank"], [12, "left"], [0.5, ""]], "Empty": [], "Oil": [["Grade"]]}))
    assert sheets == {"Fuel": [["Litres", "Tank"], ["12", "left"], ["0.5", ""]], "Oil": [["Grade"]]}
    text = sheets_text(sheets).documents[0].text
    assert text == "Fuel\nLitres | Tank\n12 | left\n0.5\n\nOil\nGrade"


@pytest.mark.parametrize("reader", [read_docx, read_pptx, read_sheets])
@pytest.mark.parametrize("data", [b"plain text", b"PK\x03\x04 cut off", zipped({"other.txt": "x"})])
def test_what_is_no_office_file_is_rejected(reader, data):
    with pytest.raises(UnreadableError) as raised:
        reader(data)
    assert raised.value.status == "rejected"


def test_a_document_without_text_is_said_to_have_none():
    with pytest.raises(UnreadableError) as raised:
        read_docx(docx(paragraph("")))
    assert raised.value.status == "no_text"


def test_a_locked_document_opens_with_its_password_only():
    opened, locked = (
        io.BytesIO(docx(paragraph("Behind the lock"), {"x": random.Random(0).randbytes(9000)})),
        io.BytesIO(),
    )
    msoffcrypto.format.ooxml.OOXMLFile(opened).encrypt("tower", locked)
    assert read_docx(locked.getvalue(), "tower").documents[0].text == "Behind the lock"
    for wrong in ("", "tide"):
        with pytest.raises(UnreadableError, match="password") as raised:
            read_docx(locked.getvalue(), wrong)
        assert raised.value.status == "needs_password"


def test_a_part_that_unpacks_too_large_is_refused_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr("metier.sources.formats.packages.MOST_PART_BYTES", 1000)
    with pytest.raises(UnreadableError, match="unpacks to more than"):
        read_docx(docx(paragraph("x" * 2000)))


def test_entities_that_grow_are_refused():
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<!DOCTYPE x [<!ENTITY e0 "ha">{levels}]><w:document xmlns:w="{WORD}"><w:body>&e9;</w:body></w:document>'
    with pytest.raises(UnreadableError, match="is not XML"):
        read_docx(zipped({"word/document.xml": bomb}))
