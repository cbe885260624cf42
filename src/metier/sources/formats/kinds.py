"""Which reader reads which kind of file: by what its name ends with, checked against how it begins."""

from collections.abc import Callable
from dataclasses import dataclass

from metier.sources.formats.articles import read_xml
from metier.sources.formats.book import read_epub
from metier.sources.formats.mail import read_eml, read_mbox
from metier.sources.formats.markup import read_latex, read_rst
from metier.sources.formats.office import read_docx, read_pptx
from metier.sources.formats.outcome import Reading
from metier.sources.formats.pdf import read_pdf
from metier.sources.formats.plain import read_plain
from metier.sources.formats.subtitles import read_subtitles
from metier.sources.formats.web import read_html


@dataclass(frozen=True)
class Kind:
    """How a kind of file is called in sentences, and its reader; `locks`: the reader takes a password, too."""

    name: str
    read: Callable[..., Reading]
    locks: bool = False


TEXT = Kind("text", read_plain)
HTML = Kind("HTML", read_html)
KINDS = {
    ".txt": TEXT,
    ".md": TEXT,
    ".markdown": TEXT,
    ".rst": Kind("reStructuredText", read_rst),
    ".tex": Kind("LaTeX", read_latex),
    ".html": HTML,
    ".htm": HTML,
    ".xhtml": HTML,
    ".pdf": Kind("PDF", read_pdf, locks=True),
    ".docx": Kind("DOCX", read_docx, locks=True),
    ".pptx": Kind("PPTX", read_pptx, locks=True),
    ".epub": Kind("EPUB", read_epub),
    ".xml": Kind("XML", read_xml),
    ".nxml": Kind("XML", read_xml),
    ".eml": Kind("e-mail", read_eml),
    ".mbox": Kind("mail box", read_mbox),
    ".vtt": Kind("transcript", read_subtitles),
    ".srt": Kind("transcript", read_subtitles),
}
SHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
ROWS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz")
READ = (*KINDS, *SHEETS, *ROWS, *ARCHIVES)
