"""Articles in JATS (NLM) XML, one or many in a file."""

import re
from collections.abc import Iterator
from html.entities import html5
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from metier.sources.formats.outcome import Document, Reading, UnreadableError, counted, document
from metier.sources.formats.packages import elements, local_name
from metier.sources.formats.web import decode_page, read_html
from metier.sources.text import clean_text

LEFT_OUT = {"ref-list", "tex-math", "object-id"}  # tex-math stands beside the same formula in MathML
BLOCKS = {
    "p",
    "title",
    "article-title",
    "subtitle",
    "label",
    "caption",
    "disp-quote",
    "list-item",
    "def-item",
    "sec",
    "abstract",
    "disp-formula",
    "ack",
    "verse-line",
    "boxed-text",
    "table-wrap",
    "fig",
    "td-row",
}
ENTITY = re.compile(r"&([A-Za-z][A-Za-z0-9]*);")
XML_ENTITIES = {"amp", "lt", "gt", "quot", "apos"}
DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")


def read_xml(data: bytes) -> Reading:
    """Title, abstract and body of every article; references are left out and counted.

    Raises:
        UnreadableError: damaged, or XML of another kind.
    """
    page, n_bytes, mended = decode_page(data)
    try:
        root = ElementTree.fromstring(DECLARATION.sub("", ENTITY.sub(_plain_entity, page)))
    except ElementTree.ParseError as error:
        raise UnreadableError("rejected", f"is damaged: it is not XML ({error})", "mend it") from None
    if local_name(root) == "html":
        return read_html(data)
    articles = [root] if local_name(root) == "article" else list(elements(root, "article"))
    if not articles:
        raise UnreadableError("unsupported", f"is XML of a kind that is not read (<{local_name(root)}>)")
    n_references = sum(1 for article in articles for _ in elements(article, "ref"))
    texts = [(_article_text(article), _title(article)) for article in articles]
    documents: list[Document] = []
    for text, title in texts:
        share = n_bytes // len(texts) if len(texts) > 1 else n_bytes
        if text:
            documents.append(document(text, share, title))
    if not documents:
        raise UnreadableError("no_text", "holds articles without text")
    return Reading(tuple(documents), counted(mended, {"references": n_references}))


def _plain_entity(match: re.Match[str]) -> str:
    """Entities are defined in a DTD, which is not read; those of HTML are what articles use."""
    return match[0] if match[1] in XML_ENTITIES else html5.get(f"{match[1]};", match[0])


def _title(article: Element) -> str:
    title = next(elements(article, "article-title"), None)
    return " ".join("".join(title.itertext()).split()) if title is not None else ""


def _article_text(article: Element) -> str:
    parts = [_title(article)]
    for name in ("abstract", "body"):
        parts += ["\n\n".join(_paragraphs(part)) for part in elements(article, name)]
    return clean_text("\n\n".join(part for part in parts if part))


def _paragraphs(root: Element) -> Iterator[str]:
    for block in "".join(_pieces(root)).split("\0"):
        if text := " ".join(block.split()):
            yield text.removesuffix(" |")


def _pieces(element: Element) -> Iterator[str]:
    """Text in order, with NUL where a block begins or ends."""
    name = local_name(element)
    if not name or name in LEFT_OUT:
        return
    is_block = name in BLOCKS or name == "tr"
    if is_block:
        yield "\0"
    yield element.text or ""
    for child in element:
        yield from _pieces(child)
        if local_name(child) in ("td", "th"):
            yield " | "
        yield child.tail or ""
    if is_block:
        yield "\0"
