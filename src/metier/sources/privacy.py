"""Identifiers in texts: found by shape, believed by checksum or by the word before them, and masked on request.

Names and addresses of people need a model and are not found.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from math import log2
from typing import Literal

Kind = Literal["email", "phone", "card", "iban", "national_id", "key"]
KINDS: tuple[Kind, ...] = ("key", "email", "iban", "card", "national_id", "phone")
"""In the order in which they claim a place: what is a card is no phone."""

BEFORE = 40  # characters in which the word that explains a number is sought
DENSE = re.compile(r"\d(?:[ .()/\-]{0,2}[\dA-Z]){6,}")
"""Seven digits or capitals with little between them: every identifier made of digits holds such a run."""

EMAIL = re.compile(r"(?<![\w.+%-])[A-Za-z0-9][\w.+%-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}(?![\w-])")
IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
CARD = re.compile(
    r"(?<![\w.\-])(?:(?:4\d{3}|5[1-5]\d\d|2[2-7]\d\d|6(?:011|5\d\d))([ \-]?)\d{4}\1\d{4}\1\d{4}"
    r"|3[47]\d\d([ \-]?)\d{6}\2\d{5})(?![\w\-]|\.\d)"
)
PHONE_WORD = re.compile(
    r"\b(?:tel|telephone|phone|fax|mobile|cell|call|telefon|handy|téléphone|tél|teléfono|mob)\b\W{0,3}"
    r"(?:(?:number|no|nr|at|us|me|is)\b\W{0,3}){0,3}$",
    re.IGNORECASE,
)
INTERNATIONAL = re.compile(r"(?<![\w+.])(?:\+|00)[1-9]\d{0,2}(?:[ .\-/]?\(?\d{1,5}\)?){2,6}(?!\w|[.,]\d)")
AMERICAN = re.compile(
    r"(?<![\w.\-/])(?:1[ .\-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d([.\-]))[2-9]\d\d[.\-]\d{4}(?![\w\-]|\.\d)"
)
NATIONAL = re.compile(r"(?<![\w.\-/])\(?\d{2,5}\)?(?:[ .\-/]?\d{2,6}){1,5}(?!\w|[.,]\d)")


@dataclass(frozen=True)
class Identifier:
    """Where one stands in a text, in characters."""

    kind: Kind
    start: int
    end: int


@dataclass(frozen=True)
class NationalId:
    """How one country's number is written, the library's check of it, and the word that must stand before a number
    whose shape says too little."""

    shape: re.Pattern[str]
    check: str
    word: re.Pattern[str] | None = None


def _national(shape: str, check: str, word: str = "") -> NationalId:
    bounded = re.compile(rf"(?<![\w.\-])(?:{shape})(?![\w\-]|\.\d)")
    return NationalId(bounded, check, re.compile(rf"\b(?:{word})\b", re.IGNORECASE) if word else None)


NATIONAL_IDS = (
    _national(r"\d{3}-\d\d-\d{4}", "us.ssn"),
    _national(r"\d{3}[ \-]?\d{3}[ \-]?\d{4}", "gb.nhs", "nhs"),
    _national(
        r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]", ""
    ),  # UK National Insurance, no checksum
    _national(r"\d{8}-?[A-HJ-NP-TV-Z]", "es.dni"),
    _national(r"[XYZ]-?\d{7}-?[A-HJ-NP-TV-Z]", "es.nie"),
    _national(r"[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z]", "it.codicefiscale"),
    _national(r"[12] ?\d\d ?[01]\d ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d", "fr.nir"),
    _national(r"\d{3}\.\d{3}\.\d{3}-\d\d", "br.cpf"),
    _national(r"\d{1,2}\.\d{3}\.\d{3}-[\dkK]", "cl.rut"),
    _national(r"\d\d\.\d\d\.\d\d-\d{3}\.\d\d", "be.nn"),
    _national(r"\d{6}-\d{4}", "se.personnummer"),
    _national(r"\d{6}[-+A]\d{3}[0-9A-Y]", "fi.hetu"),
    _national(r"756\.\d{4}\.\d{4}\.\d\d", "ch.ssn"),
    _national(r"\d{17}[\dX]", "cn.ric"),
    _national(r"\d{11}", "pl.pesel", "pesel"),
    _national(r"\d{2} ?\d{3} ?\d{3} ?\d{3}", "de.idnr", "steuer-?id|idnr|steueridentifikationsnummer|tax id"),
    _national(r"\d{9}", "nl.bsn", "bsn|burgerservicenummer"),
    _national(r"\d{6}-?\d{4}", "dk.cpr", "cpr"),
    _national(r"\d{4}[ \-]?\d{4}[ \-]?\d{4}", "in_.aadhaar", "aadhaar|aadhar|uid"),
    _national(r"\d{3}[ \-]?\d{3}[ \-]?\d{3}", "ca.sin", "sin|social insurance"),
)
KEYS: Mapping[str, re.Pattern[str]] = {
    "AKIA": re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    "ASIA": re.compile(r"\bASIA[0-9A-Z]{16}\b"),
    "gh": re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36,}\b"),
    "github_pat_": re.compile(r"\bgithub_pat_\w{50,}\b"),
    "glpat-": re.compile(r"\bglpat-[\w-]{20,}"),
    "xox": re.compile(r"\bxox[abprs]-[\w-]{10,}"),
    "AIza": re.compile(r"\bAIza[\w-]{35}"),
    "sk-": re.compile(r"\bsk-(?=[\w-]*\d)[\w-]{20,}"),
    "_live_": re.compile(r"\b[spr]k_live_[A-Za-z0-9]{16,}"),
    "hf_": re.compile(r"\bhf_(?=\w*[A-Z])[A-Za-z0-9]{30,}\b"),
    "eyJ": re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}"),
    "PRIVATE KEY-----": re.compile(
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----.{16,8000}?-----END [A-Z ]*PRIVATE KEY-----", re.S
    ),
}
SECRET_WORD = re.compile(r"(?:key|secret|token|passwo?r?d|pwd)\w*[\"']?\s*$", re.IGNORECASE)
SECRET = re.compile(r"[:=]\s*[\"']?(?P<secret>[A-Za-z0-9_\-/+=]{16,})")


def identifiers(text: str) -> list[Identifier]:
    """All that are found, in the order of the text; none lies within another."""
    taken: list[Identifier] = []
    for found in (*_keys(text), *_emails(text), *_numbers(text)):
        if all(found.end <= other.start or found.start >= other.end for other in taken):
            taken.append(found)
    return sorted(taken, key=lambda found: found.start)


class Masks:
    """Replaces identifiers by <EMAIL_1>, <EMAIL_2>, …: the same one by the same mask, within a document."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[Kind, str], int] = {}
        self._counts: Counter[Kind] = Counter()

    def masked(self, text: str, found: list[Identifier]) -> str:
        parts, position = [], 0
        for one in found:
            parts += [text[position : one.start], self._mask(one.kind, text[one.start : one.end])]
            position = one.end
        return "".join([*parts, text[position:]])

    def _mask(self, kind: Kind, value: str) -> str:
        key = kind, re.sub(r"[\s().\-/]", "", value).lower()
        if key not in self._numbers:
            self._counts[kind] += 1
            self._numbers[key] = self._counts[kind]
        return f"<{kind.upper()}_{self._numbers[key]}>"


def _emails(text: str) -> Iterator[Identifier]:
    if "@" in text:
        for match in EMAIL.finditer(text):
            yield Identifier("email", *match.span())


def _keys(text: str) -> Iterator[Identifier]:
    for literal, shape in KEYS.items():
        if literal in text:
            for match in shape.finditer(text):
                yield Identifier("key", *match.span())
    for match in SECRET.finditer(text) if "=" in text or ":" in text else ():
        before = text[max(0, match.start() - BEFORE) : match.start()]
        if SECRET_WORD.search(before) and _looks_random(match["secret"]):
            yield Identifier("key", *match.span("secret"))


def _looks_random(secret: str) -> bool:
    """Letters and at least three digits, at 3 bits a character or more: no name in a program is like that."""
    counts = Counter(secret)
    entropy = -sum(n / len(secret) * log2(n / len(secret)) for n in counts.values())
    n_digits = sum(character.isdigit() for character in secret)
    return n_digits >= 3 and any(character.isalpha() for character in secret) and entropy >= 3


def _numbers(text: str) -> Iterator[Identifier]:
    """Those made of digits, sought around dense runs only, so that prose costs one pass."""
    windows: list[tuple[int, int]] = []
    for match in DENSE.finditer(text):
        start, end = max(0, match.start() - 8), min(len(text), match.end() + 8)
        if windows and start <= windows[-1][1]:
            windows[-1] = windows[-1][0], end
        else:
            windows.append((start, end))
    for seek in (_ibans, _cards, _national_ids, _phones):
        for start, end in windows:
            yield from seek(text, start, end)


def _ibans(text: str, start: int, end: int) -> Iterator[Identifier]:
    for match in IBAN.finditer(text, start, min(len(text), end + 40)):
        value = match[0]
        while len(value) >= 15:  # capitals that follow it look like its last groups
            if _valid("iban", value):
                yield Identifier("iban", match.start(), match.start() + len(value))
                break
            value = value[:-1].rstrip()


def _cards(text: str, start: int, end: int) -> Iterator[Identifier]:
    for match in CARD.finditer(text, start, end):
        if _valid("luhn", re.sub(r"\D", "", match[0])):
            yield Identifier("card", *match.span())


def _national_ids(text: str, start: int, end: int) -> Iterator[Identifier]:
    for one in NATIONAL_IDS:
        for match in one.shape.finditer(text, start, end):
            explained = one.word is None or one.word.search(text, max(0, match.start() - BEFORE), match.start())
            if explained and (not one.check or _valid(one.check, match[0])):
                yield Identifier("national_id", *match.span())


def _phones(text: str, start: int, end: int) -> Iterator[Identifier]:
    for shape, region in ((INTERNATIONAL, None), (AMERICAN, "US")):
        for match in shape.finditer(text, start, end):
            if _is_phone(match[0], region):
                yield Identifier("phone", *match.span())
    for match in NATIONAL.finditer(text, start, end):
        n_digits = sum(character.isdigit() for character in match[0])
        before = text[max(0, match.start() - BEFORE) : match.start()]
        if 7 <= n_digits <= 15 and PHONE_WORD.search(before):
            yield Identifier("phone", *match.span())


def _is_phone(value: str, region: str | None) -> bool:
    import phonenumbers

    if region is None and value.startswith("00"):
        value = f"+{value[2:]}"
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(value, region))
    except phonenumbers.NumberParseException:
        return False


def _valid(check: str, value: str) -> bool:
    return _validator(check)(value)


@cache
def _validator(check: str) -> Callable[[str], bool]:
    """The library's check, imported when a number of that shape is met."""
    is_valid: Callable[[str], bool] = import_module(f"stdnum.{check}").is_valid
    return is_valid
