"""The encoding of a text file is found, and damage of its characters is mended and counted."""

import pytest

from metier.sources.decoding import decode
from metier.sources.formats.outcome import UnreadableError

GERMAN = "Die schöne Straße führt über die Brücke nach Köln."
RUSSIAN = "Однажды в студёную зимнюю пору я из лесу вышел; был сильный мороз."
CZECH = "Příliš žluťoučký kůň úpěl ďábelské ódy a řekl, že ještě není večer."
KOREAN = "나는 고양이다. 이름은 아직 없다. 어디서 태어났는지 도무지 모르겠다. 오늘은 비가 온다."
CHINESE = "我是一只猫,还没有名字。这里是北京的冬天,外面下着很大的雪。"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (GERMAN, "utf-8"),
        (GERMAN, "cp1252"),
        (GERMAN, "utf-16-le"),
        (GERMAN, "utf-16-be"),
        ("a", "utf-8"),
        ("“smart quotes”", "cp1252"),
        ("A naïve façade", "cp1252"),
        ("ñandú", "cp1252"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8-r"),
        (RUSSIAN, "cp866"),
        (CZECH, "cp1250"),
        (CHINESE, "gb18030"),
        (KOREAN, "euc_kr"),
    ],
)
def test_the_encoding_is_found(text, encoding):
    assert decode(text.encode(encoding)).text == text


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_goes_and_is_counted(encoding):
    found = decode(GERMAN.encode(encoding))
    assert (found.text, found.mended) == (GERMAN, {"byte order marks": 1})
    assert found.n_bytes == len(GERMAN.encode()) + 3


def test_lines_of_another_encoding_are_read_by_their_own():
    mixed = f"{RUSSIAN}\n".encode() + GERMAN.encode("cp1252") + f"\n{RUSSIAN}".encode()
    found = decode(mixed)
    assert found.text == f"{RUSSIAN}\n{GERMAN}\n{RUSSIAN}"
    assert found.mended == {"lines that were not UTF-8": 1}


def test_stray_nul_characters_go():
    found = decode(b"One.\0 Two.\0 And many more words than that.")
    assert found.text == "One. Two. And many more words than that."
    assert (found.mended, found.n_bytes) == ({"NUL characters": 2}, 42)


def test_mojibake_is_mended_and_a_word_that_only_looks_like_it_is_not():
    broken = GERMAN.encode().decode("cp1252")
    found = decode(f"{broken}\n{CZECH}\n".encode())
    assert found.text == f"{GERMAN}\n{CZECH}\n"
    assert found.mended == {"lines of mojibake": 1}
    assert found.n_bytes == len(f"{broken}\n{CZECH}\n".encode())


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", bytes(range(256)) * 4, b"\x7fELF\x02\x01\x01\x03"])
def test_binary_is_refused(data):
    with pytest.raises(UnreadableError, match="is binary, not text"):
        decode(data)
