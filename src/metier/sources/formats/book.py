"""EPUB books: the chapters in reading order."""

from urllib.parse import unquote

from metier.sources.formats.outcome import Reading, UnreadableError, counted, document
from metier.sources.formats.packages import Package, attribute, elements
from metier.sources.formats.web import decode_page, html_text
from metier.sources.text import clean_text

PAGES = ("application/xhtml+xml", "text/html")


def read_epub(data: bytes) -> Reading:
    """One document: every chapter of the spine, without the navigation.

    Raises:
        UnreadableError: damaged, locked, or without text.
    """
    package = Package(data, "EPUB")
    if "META-INF/rights.xml" in package.names:
        raise UnreadableError("rejected", "is locked by digital rights management", "leave it out")
    main = next((attribute(e, "full-path") for e in elements(package.xml("META-INF/container.xml"), "rootfile")), "")
    root = package.xml(main)
    folder = main.rpartition("/")[0]
    items = {attribute(e, "id"): e for e in elements(root, "item")}
    chapters, missing, n_bytes = [], 0, 0
    for reference in elements(root, "itemref"):
        item = items.get(attribute(reference, "idref"))
        if item is None or attribute(item, "media-type") not in PAGES or "nav" in attribute(item, "properties").split():
            continue
        name = unquote(f"{folder}/{attribute(item, 'href')}".lstrip("/"))
        if name not in package.names:
            missing += 1
            continue
        page, size, _ = decode_page(package.read(name))
        chapters.append(html_text(page, main=False)[0])
        n_bytes += size
    text = clean_text("\n\n".join(chapter for chapter in chapters if chapter))
    if not text:
        raise UnreadableError("no_text", "holds no text")
    title = next((e.text or "" for e in elements(root, "title")), "")
    problem = f"{missing} of its chapters are missing" if missing else ""
    return Reading((document(text, n_bytes, " ".join(title.split())),), counted({}), problem)
