"""Web pages and books: the text, without menus and scripts, in the encoding that they say or have."""

import io
import zipfile

import pytest

from metier.sources.formats.book import read_epub
from metier.sources.formats.outcome import UnreadableError
from metier.sources.formats.web import read_html
from small_files import epub, zipped

ARTICLE = "<h1>Valves</h1><p>The valve of the first line closes when the pressure falls below three bar.</p>" * 3


def test_menus_scripts_and_footers_are_left_out_and_the_title_is_kept():
    page = (
        "<html><head><title>On &amp; off</title><style>p{}</style></head><body><nav><a>Home</a></nav>"
        '<div class="navheader"><a>Previous</a> of <a>Next</a></div>'
        f"<script>var leak = 1</script><main>{ARTICLE}</main><footer>All rights reserved</footer></body></html>"
    )
    (found,) = read_html(page.encode()).documents
    assert found.title == "On & off"
    assert found.text.count("falls below three bar.") == 3
    assert not {word for word in ("Home", "Previous", "leak", "rights", "p{}") if word in found.text}
    assert found.n_bytes == len(page)


def test_a_page_without_a_main_text_is_read_whole():
    assert read_html(b"<html><body><nav>Only a menu is here, and it is all</nav></body></html>").documents[0].text == (
        "Only a menu is here, and it is all"
    )


@pytest.mark.parametrize(
    ("declaration", "encoding"),
    [
        ('<meta charset="iso-8859-1">', "cp1252"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=koi8-r">', "koi8-r"),
        ("", "utf-16"),
        ('<meta charset="utf-8">', "cp1252"),
        ('<meta charset="nonsense">', "utf-8"),
    ],
)
def test_the_encoding_is_the_declared_one_unless_that_cannot_be(declaration, encoding):
    words = "Однажды в студёную зимнюю пору" if encoding == "koi8-r" else "Die schöne Straße nach Köln für “fünf” Euro"
    page = f"<html><head>{declaration}</head><body><p>{words}</p></body></html>"
    assert read_html(page.encode(encoding)).documents[0].text == words


def test_a_book_is_its_chapters_in_reading_order_without_the_contents():
    book = epub({"b.xhtml": "<h1>One</h1><p>It begins.</p>", "a.xhtml": "<h1>Two</h1><p>It ends.</p>"}, "A life")
    (found,) = read_epub(book).documents
    assert found.text == "One\n\nIt begins.\n\nTwo\n\nIt ends."
    assert found.title == "A life"


def test_a_book_that_lacks_a_chapter_is_read_in_part():
    whole = epub({"a.xhtml": "<p>It begins.</p>", "b.xhtml": "<p>It ends.</p>"})
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist() if not name.endswith("b.xhtml")}
    assert read_epub(zipped(parts)).problem == "1 of its chapters are missing"


def test_a_book_under_digital_rights_management_is_rejected():
    with pytest.raises(UnreadableError, match="rights management"):
        read_epub(zipped({"META-INF/rights.xml": "<x/>", "META-INF/container.xml": "<x/>"}))
