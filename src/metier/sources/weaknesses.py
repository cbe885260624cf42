"""Questions and answers from the catalogue of software weaknesses in XML (the security pack)."""

import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

CWE = "{http://cwe.mitre.org/cwe-7}"
# A block of text ends at these; the rest (b, i, sub) stands in the line.
BLOCKS = {"p", "div", "br", "ul", "ol", "li", "tr", "table"}
BLANK_LINES = re.compile(r"\s*\n\s*")


def weakness_rows(xml: bytes) -> Iterator[dict[str, Any]]:
    """{"question", "answer", "document", "group"}: what every weakness is, and how it is mitigated if that is said.

    document  "CWE-79", shared by the rows of one weakness
    group     its abstraction: pillar, class, base, variant or compound
    """
    for weakness in ElementTree.fromstring(xml).iterfind(f"{CWE}Weaknesses/{CWE}Weakness"):
        if weakness.get("Status") == "Deprecated":
            continue
        name, number = weakness.get("Name", ""), weakness.get("ID", "")
        shared = {"document": f"CWE-{number}", "group": weakness.get("Abstraction", "").lower()}
        description = [plain_text(weakness.find(f"{CWE}{part}")) for part in ("Description", "Extended_Description")]
        if answer := "\n\n".join(text for text in description if text):
            yield {"question": f"What is the software weakness CWE-{number}, {name}?", "answer": answer, **shared}
        found = weakness.iterfind(f"{CWE}Potential_Mitigations/{CWE}Mitigation")
        if mitigations := list(dict.fromkeys(text for text in map(_mitigation, found) if text)):
            yield {
                "question": f"How can CWE-{number}, {name}, be mitigated?",
                "answer": "\n\n".join(mitigations),
                **shared,
            }


def plain_text(element: ElementTree.Element | None) -> str:
    """The text of an element, one paragraph a line for each block in it."""
    if element is None:
        return ""
    lines = (" ".join(line.split()) for line in "".join(_pieces(element)).split("\0"))
    return "\n".join(line for line in lines if line)


def _pieces(element: ElementTree.Element) -> Iterator[str]:
    """Text in order, with NUL where a block begins or ends (white space in the source means nothing)."""
    is_block = element.tag.rpartition("}")[2] in BLOCKS
    if is_block:
        yield "\0"
    if element.tag.endswith("}li"):
        yield "- "
    yield element.text or ""
    for child in element:
        yield from _pieces(child)
        yield child.tail or ""
    if is_block:
        yield "\0"


def _mitigation(mitigation: ElementTree.Element) -> str:
    text = plain_text(mitigation.find(f"{CWE}Description"))
    phases = [plain_text(phase) for phase in mitigation.iterfind(f"{CWE}Phase")]
    return f"{', '.join(phases)}: {text}" if text and phases else text
