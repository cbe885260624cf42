"""reStructuredText and LaTeX: their text, without what steers the layout."""

import re
from collections.abc import Iterator

from metier.sources.decoding import decode
from metier.sources.formats.outcome import Reading, UnreadableError, one_document
from metier.sources.text import clean_text

DIRECTIVE = re.compile(r"^(\s*)\.\. +(?:\|[^|]+\| +)?([\w:.+-]+)::(?: +(.*))?$")
TARGET = re.compile(r"^\s*(?:\.\. (?:_|\[)|__ )")
COMMENT = re.compile(r"^(\s*)\.\.(?: .*)?$")
FIELD = re.compile(r"^\s*:[\w -]+:(?: .*)?$")
UNDERLINE = re.compile(r"^([=\-`:'\"~^_*+#<>.])\1{2,}\s*$")
ROLE = re.compile(r":[\w:.+-]+:`~?!?([^`<]*?)(?:\s*<[^`>]*>)?`")
LINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`__?")
REFERENCE = re.compile(r"`([^`]+)`__?(?!\w)|\b([\w.-]{1,80}\w)__?(?=[\s.,;:!?)])")
LITERAL = re.compile(r"``(.+?)``")
SUBSTITUTION = re.compile(r"\|([^|\s][^|\n]*?)\|_{0,2}")
# The content of these is no text, or it is a list of other files.
DROPPED = {
    "toctree",
    "image",
    "figure-md",
    "index",
    "include",
    "literalinclude",
    "raw",
    "highlight",
    "currentmodule",
    "module",
    "automodule",
    "autoclass",
    "autofunction",
    "automethod",
    "autosummary",
    "contents",
    "meta",
    "sectionauthor",
    "moduleauthor",
    "plot",
    "only",
    "tabularcolumns",
    "default-role",
    "role",
    "replace",
}
CODE = {"code", "code-block", "sourcecode", "parsed-literal", "math", "doctest", "testcode", "prompt"}


def read_rst(data: bytes) -> Reading:
    """The text of a page: roles and links by their words, admonitions and code by their content.

    Raises:
        UnreadableError: binary, or without text.
    """
    decoded = decode(data)
    text = clean_text("\n".join(_rst_lines(clean_text(decoded.text).split("\n"))))
    if not text:
        raise UnreadableError("no_text", "holds markup without text")
    return one_document(re.sub(r"\n{3,}", "\n\n", text), decoded.n_bytes, decoded.mended)


def _rst_lines(lines: list[str]) -> Iterator[str]:
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if found := DIRECTIVE.match(line):
            indent, name, argument = len(found[1]), found[2].rpartition(":")[2], found[3] or ""
            end = _end_of_block(lines, number, indent)
            if name not in DROPPED:
                yield from _directive(name, argument, lines[number:end])
            number = end
        elif TARGET.match(line):
            number = _end_of_block(lines, number, len(line) - len(line.lstrip()))
        elif found := COMMENT.match(line):
            number = _end_of_block(lines, number, len(found[1]))
        elif UNDERLINE.match(line):
            continue  # under or over a title
        else:
            yield _inline(line)


def _end_of_block(lines: list[str], number: int, indent: int) -> int:
    """The line after what is indented deeper than `indent`."""
    end = number
    while number < len(lines):
        line = lines[number]
        if line.strip():
            if len(line) - len(line.lstrip()) <= indent:
                break
            end = number + 1
        number += 1
    return end


def _directive(name: str, argument: str, block: list[str]) -> Iterator[str]:
    """The content of a directive, moved to the margin; options at its start are none of it."""
    while block and (FIELD.match(block[0]) or not block[0].strip()):
        block = block[1:]
    yield ""
    if argument and name not in CODE:
        yield _inline(argument)
    margin = min((len(line) - len(line.lstrip()) for line in block if line.strip()), default=0)
    content = [line[margin:] for line in block]
    yield from content if name in CODE else _rst_lines(content)
    yield ""


def _inline(line: str) -> str:
    line = LITERAL.sub(r"\1", LINK.sub(r"\1", ROLE.sub(r"\1", line)))
    line = REFERENCE.sub(lambda m: m[1] or m[2], line)
    line = SUBSTITUTION.sub(r"\1", line) if line.count("|") == 2 else line
    return line[:-1] if line.rstrip().endswith("::") else line


BODY = re.compile(r"\\begin\s*\{document\}(.*?)(?:\\end\s*\{document\}|\Z)", re.DOTALL)
TITLE = re.compile(r"\\title\s*(?:\[[^\]]*\])?\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
COMMENTS = re.compile(r"(?<!\\)%.*")
NO_TEXT = re.compile(
    r"~?\\(?:[cC]ite[a-zA-Z]*\*?(?:\s*\[[^\]]*\]){0,2}|label|vspace\*?|hspace\*?|includegraphics(?:\s*\[[^\]]*\])?"
    r"|bibliography(?:style)?|pagestyle|thispagestyle|input|include|usepackage(?:\s*\[[^\]]*\])?|index|setlength"
    r"(?:\s*\{[^{}]*\})?|newcommand\*?(?:\s*\{[^{}]*\})(?:\s*\[\d\])?)\s*\{(?:[^{}]|\{[^{}]*\})*\}"
)
REFERS = re.compile(r"~?\\(?:[cC]ref|ref|eqref|autoref|pageref)\*?\s*\{[^{}]*\}")
HEADING = re.compile(
    r"\\(?:part|chapter|(?:sub){0,2}section|(?:sub)?paragraph)\*?\s*(?:\[[^\]]*\])?\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
BIBLIOGRAPHY = re.compile(r"\\begin\s*\{thebibliography\}.*?\\end\s*\{thebibliography\}", re.DOTALL)
PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")


def read_latex(data: bytes) -> Reading:
    """The text of the document's body; formulas stay as they are written, references and the preamble are left out.

    Raises:
        UnreadableError: binary, or without text.
    """
    from pylatexenc.latex2text import LatexNodes2Text

    decoded = decode(data)
    source = COMMENTS.sub("", clean_text(decoded.text))
    title = TITLE.search(source)
    body = BODY.search(source)
    n_references = source.count("\\bibitem")
    content = BIBLIOGRAPHY.sub("", body[1] if body else source)
    content = HEADING.sub(r"\n\n\1\n\n", REFERS.sub("", NO_TEXT.sub("", content)))
    plain = LatexNodes2Text(math_mode="verbatim", keep_comments=False)
    try:
        text = plain.latex_to_text(content)
        name = plain.latex_to_text(title[1]) if title else ""
    except (ValueError, RecursionError, IndexError, TypeError, AttributeError) as error:
        raise UnreadableError("rejected", f"is LaTeX that cannot be followed ({type(error).__name__})") from None
    text = clean_text("\n\n".join(_unwrapped(p) for p in PARAGRAPH.split(text) if p.strip()))
    if not text:
        raise UnreadableError("no_text", "holds markup without text")
    name = " ".join(name.split())
    whole = f"{name}\n\n{text}" if name and body else text
    return one_document(whole, decoded.n_bytes, {**decoded.mended, "references": n_references}, name)


def _unwrapped(paragraph: str) -> str:
    return "\n".join(" ".join(line.split()) if line.strip() else "" for line in paragraph.strip("\n").split("\n"))
