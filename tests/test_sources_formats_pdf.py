"""PDF: reading order, running lines, hyphens, passwords and pages without text."""

import pytest

from metier.sources.formats.outcome import UnreadableError
from metier.sources.formats.pdf import read_pdf
from small_files import lines, pdf

LEFT = [
    "The valve of the first line closes when the",
    "pressure falls below three bar, which the pilot",
    "reads on the panel over his head. Nobody may",
    "open it again by hand before the engine rests.",
    "A mechanic writes the hour into the book.",
]
RIGHT = [
    "Fuel is measured with a clean stick before each",
    "flight, because the gauges of this aeroplane are",
    "known to show too much in cold weather. The",
    "stick hangs in the cabin and is wiped with a dry",
    "cloth after it has been read by the captain.",
]


def read(pages, password=""):
    return read_pdf(pdf(pages), password)


def test_lines_become_paragraphs_and_a_title_stands_alone():
    first = ["Inspection", *LEFT]
    page = [(72, 740, first[0]), *lines(LEFT, top=700), *lines(RIGHT, top=620)]
    text = read([page]).documents[0].text
    assert text.split("\n\n") == ["Inspection", " ".join(LEFT), " ".join(RIGHT)]


def test_columns_whose_lines_come_in_turns_are_read_one_after_the_other():
    page = [placed for pair in zip(lines(LEFT, 60), lines(RIGHT, 330), strict=True) for placed in pair]
    text = read([page]).documents[0].text
    assert " ".join(LEFT) in text
    assert text.index("by the captain") > text.index("into the book")


def test_the_cells_of_a_table_stay_in_their_row():
    cells = [("Product", "Location"), ("SKU-1", "A-12"), ("SKU-2", "B-07"), ("SKU-3", "C-15"), ("SKU-4", "D-22")]
    page = [(60 + 240 * k, 700 - 14 * n, cell) for n, row in enumerate(cells) for k, cell in enumerate(row)]
    text = read([page]).documents[0].text
    assert [line.split() for line in text.split("\n") if line] == [list(row) for row in cells]


def test_headers_and_footers_that_repeat_are_removed_and_counted_and_a_paragraph_goes_on_over_the_page():
    words = [[f"{ordinal} {line}" for line in LEFT[:4]] for ordinal in ("once", "twice", "thrice", "at last")]
    pages = [
        [(72, 760, "Handbook of valves"), *lines(body, top=100), (300, 30, f"Page {number} of 4")]
        for number, body in enumerate(words, start=1)
    ]
    found = read(pages)
    text = found.documents[0].text
    assert "Handbook" not in text
    assert "Page" not in text
    assert text == " ".join(" ".join(body) for body in words)
    assert found.removed["running headers and footers"] == 8
    assert found.documents[0].n_bytes > len(text.encode())


def test_two_pages_are_too_few_to_know_a_header():
    text = read([[(72, 760, "Handbook of valves"), *lines(LEFT)]] * 2).documents[0].text
    assert text.count("Handbook of valves") == 2


def test_a_hyphen_at_a_line_end_goes_unless_the_word_has_one():
    page = lines(
        [
            "This valve is a self-locking one with long use, and it must be exam-",
            "ined twice. Every mechanic knows that such a valve is always self-",
            "locking, and that the state of the art asks for more than one look.",
        ]
    )
    found = read([page])
    assert "must be examined twice" in found.documents[0].text
    assert "always self-locking, and" in found.documents[0].text
    assert found.removed["line-end hyphens"] == 1


def test_a_page_without_text_is_said_to_be_one():
    with pytest.raises(UnreadableError, match=r"holds no text \(2 pages\)") as raised:
        read([[], []])
    assert raised.value.status == "no_text"


def test_a_locked_file_opens_with_its_password_only():
    locked = pdf([lines(LEFT)], password="tower")
    assert read_pdf(locked, "tower").documents[0].text == " ".join(LEFT)
    for wrong in ("", "tide"):
        with pytest.raises(UnreadableError, match="password") as raised:
            read_pdf(locked, wrong)
        assert (raised.value.status, raised.value.remedy) == ("needs_password", "give it with --password")


@pytest.mark.parametrize(("data", "reason"), [(b"%PDF-1.4 cut", "is damaged"), (b"plain text", "is not a PDF")])
def test_what_is_no_pdf_is_rejected(data, reason):
    with pytest.raises(UnreadableError, match=reason) as raised:
        read_pdf(data)
    assert raised.value.status == "rejected"
