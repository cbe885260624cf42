"""Web pages: the text of the page, not that of its menus."""

import re
from html import unescape

from metier.sources.decoding import decode
from metier.sources.formats.outcome import Reading, counted, one_document
from metier.sources.text import clean_text

NOT_CONTENT = (
    "nav",
    "footer",
    "aside",
    "[role=navigation]",
    "[role=banner]",
    "[role=contentinfo]",
    "[role=search]",
    "[aria-hidden=true]",
    ".navheader",
    ".navfooter",
    ".sphinxsidebar",
    ".related[role]",
    ".headerlink",
    ".skip-link",
    "[class^=skipToContent]",
)
DECLARED = re.compile(
    rb"<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]+)", re.IGNORECASE
)
LOOKED_AT = 4096
FEW_LEFT = 0.05  # of all text: then the heuristics took the content for a menu
BLANK_LINES = re.compile(r"\n(?:[ \t\xa0]*\n){2,}")
BULLET = re.compile(r"^(\s*)• ", re.MULTILINE)


def read_html(data: bytes) -> Reading:
    """The main text of a page; all of its text where nothing looks like the main one.

    Raises:
        UnreadableError: binary.
    """
    page, n_bytes, mended = decode_page(data)
    text, title = html_text(page)
    return one_document(text, n_bytes, mended, title)


def decode_page(data: bytes) -> tuple[str, int, dict[str, int]]:
    """(text, its bytes, what was mended): as `decode`, but what the page says about itself is tried first."""
    declared = DECLARED.search(data[:LOOKED_AT])
    if declared and not data.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        name = declared[1].decode("ascii").lower()
        name = "cp1252" if name in ("iso-8859-1", "latin1", "us-ascii") else name  # as browsers do
        try:
            if not name.startswith(("utf-16", "utf-32")):
                text = data.decode(name)
                return text.replace("\0", ""), len(text.encode()), counted({"NUL characters": text.count("\0")})
        except (LookupError, UnicodeError):
            pass  # a page that is wrong about itself is read as any other text
    decoded = decode(data)
    return decoded.text, decoded.n_bytes, dict(decoded.mended)


def html_text(page: str, *, main: bool = True) -> tuple[str, str]:
    """(text, title) of a page. main: leave out what is not its main text."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    tree = HTMLTree.parse(page)
    whole: str = extract_plain_text(tree, alt_texts=False)
    text = whole
    if main:
        text = extract_plain_text(tree, main_content=True, alt_texts=False, skip_elements=list(NOT_CONTENT))
        if len(text) < FEW_LEFT * len(whole):
            text = whole
    text = BULLET.sub(r"\1- ", text.replace("\xa0", " "))
    return clean_text(BLANK_LINES.sub("\n\n", clean_text(text))), " ".join(unescape(tree.title or "").split())
