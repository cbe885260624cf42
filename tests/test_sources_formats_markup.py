"""reStructuredText, LaTeX, articles, mail and transcripts: what was written, without what steers it."""

import pytest

from metier.sources.formats.articles import read_xml
from metier.sources.formats.mail import read_eml, read_mbox
from metier.sources.formats.markup import read_latex, read_rst
from metier.sources.formats.outcome import UnreadableError
from metier.sources.formats.subtitles import read_subtitles


def text_of(reading):
    (document,) = reading.documents
    return document.text


RST = """
.. _target:

Valves
======

.. A comment
   of two lines.

See :ref:`the manual <manual>`, :func:`close` and `the site <https://x.y>`_ for ``x = 1``::

    close(valve)

.. note::
   :class: red

   Mind the *pressure*.

.. code-block:: python
   :linenos:

   open(valve)

.. toctree::
   :maxdepth: 2

   secret/page

The end.
"""


def test_rst_keeps_words_and_code_and_drops_what_steers():
    assert text_of(read_rst(RST.encode())) == (
        "Valves\n\nSee the manual, close and the site for x = 1:\n\n    close(valve)\n\nMind the *pressure*.\n\n"
        "open(valve)\n\nThe end."
    )


LATEX = r"""
\documentclass{article} % not this
\title{On \emph{Valves}}
\begin{document}
\maketitle
\section{Introduction}\label{sec:one}
A valve~\cite{smith} closes at $p < 3$, as na\"ive tests show (Figure~\ref{fig}). % nor this
50\% of them leak.
\begin{itemize}
\item One
\item Two
\end{itemize}
\begin{thebibliography}{9}\bibitem{smith} Smith. \bibitem{y} Young.\end{thebibliography}
\end{document}
after the end
"""


def test_latex_keeps_the_body_with_its_formulas_and_counts_the_references():
    found = read_latex(LATEX.encode())
    text = text_of(found)
    assert text.startswith("On Valves\n\n")
    assert "\n\nIntroduction\n\n" in text
    assert "A valve closes at $p < 3$, as naïve tests show (Figure)." in text
    assert "50% of them leak." in text
    assert not {word for word in ("not this", "nor this", "Smith", "sec:one", "after", "article") if word in text}
    assert found.removed == {"references": 2}
    assert found.documents[0].title == "On Valves"


JATS = """<?xml version="1.0"?><!DOCTYPE article PUBLIC "x" "JATS.dtd"><article><front><journal-meta>No journal
</journal-meta><article-meta><title-group><article-title>On <italic>valves</italic></article-title></title-group>
<abstract><p>Short&nbsp;abstract.</p></abstract></article-meta></front><body><sec><title>Methods</title><p>We
looked<xref>1</xref> at <alternatives><tex-math>$p$</tex-math><math>p</math></alternatives>.</p><ref-list><ref>R0</ref>
</ref-list><table-wrap><table><tr><td>a</td><td>b</td></tr></table></table-wrap></sec></body><back>
<ref-list><ref>R1</ref><ref>R2</ref></ref-list></back></article>"""


def test_an_article_is_its_title_abstract_and_body():
    found = read_xml(JATS.encode())
    assert text_of(found) == "On valves\n\nShort abstract.\n\nMethods\n\nWe looked1 at p.\n\na | b"
    assert found.removed == {"references": 3}


def test_a_file_of_several_articles_gives_as_many_documents():
    one = "<article><article-title>{}</article-title><body><p>Text of it.</p></body></article>"
    found = read_xml(f"<articles>{one.format('A')}{one.format('B')}</articles>".encode())
    assert [document.title for document in found.documents] == ["A", "B"]


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [(b"<a><b></a>", "rejected", "is not XML"), (b"<svg/>", "unsupported", "a kind that is not read (<svg>)")],
)
def test_other_xml_is_refused(data, status, reason):
    with pytest.raises(UnreadableError) as raised:
        read_xml(data)
    assert raised.value.status == status
    assert reason in raised.value.reason


MAIL = (
    "From: a@example.org\nSubject: =?utf-8?q?Ventil_=C3=BC?=\nMIME-Version: 1.0\n"
    'Content-Type: multipart/mixed; boundary="b"\n\n--b\nContent-Type: text/{kind}; charset=iso-8859-1\n'
    "Content-Transfer-Encoding: quoted-printable\n\n{body}\n--b\nContent-Type: image/png\n"
    "Content-Disposition: attachment\n\nxyz\n--b--\n"
)


def test_a_message_is_its_subject_and_its_text():
    found = read_eml(MAIL.format(kind="plain", body="Gr=FC=DFe von der=\n Werft.").encode())
    assert text_of(found) == "Ventil ü\n\nGrüße von der Werft."
    assert found.attached == (("attachment.png", b"xyz"),)
    assert text_of(read_eml(MAIL.format(kind="html", body="<p>Gr=FC=DFe</p>").encode())) == "Ventil ü\n\nGrüße"


def test_every_message_of_a_box_is_a_document():
    one = "From a@b Thu Jan  1 00:00:00 2026\nSubject: {}\n\n{}\n\n"
    box = one.format("One", "First.\n\n>From here on.") + one.format("Two", "Second.") + one.format("Three", "")
    found = read_mbox(box.encode())
    assert [document.text for document in found.documents] == ["One\n\nFirst.\n\nFrom here on.", "Two\n\nSecond."]
    assert found.removed == {"messages without text": 1}


@pytest.mark.parametrize(("reader", "reason"), [(read_mbox, "no mail box"), (read_eml, "begins with no header")])
def test_what_is_no_mail_is_rejected(reader, reason):
    with pytest.raises(UnreadableError, match=reason):
        reader(b"\n\nonly some text\n")


VTT = """WEBVTT

NOTE made by hand

1
00:01.000 --> 00:02.000 align:start
<v Anna>The valve is

00:02.000 --> 00:03.000
The valve is
<i>closed.</i>

00:00:03.000 --> 00:00:04.000
- Good.
"""


def test_a_transcript_is_what_was_said_once():
    found = read_subtitles(VTT.replace("<v Anna>", "").encode())
    assert text_of(found) == "The valve is closed.\n- Good."
    assert found.removed == {"repeated captions": 1}
    assert text_of(read_subtitles(VTT.encode())).startswith("Anna: The valve is")


def test_srt_is_read_as_well():
    assert text_of(read_subtitles(b"1\r\n00:00:01,000 --> 00:00:02,000\r\nOne line\r\n")) == "One line"


def test_a_transcript_without_times_is_rejected():
    with pytest.raises(UnreadableError, match="is no transcript"):
        read_subtitles(b"WEBVTT\n\nno times\n")
