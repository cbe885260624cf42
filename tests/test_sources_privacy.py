"""Identifiers: planted ones are found, real law and medicine raise next to no false alarm, masks are stable."""

import random

import pytest

from metier.sources.privacy import Masks, identifiers
from shared import texts_of

# Valid by their checksums and made up, or given as examples by those who issue them.
PLANTED = {
    "email": ["ann.smith@example.org", "j_doe+lab@mail.example.co.uk", "x.y-z@uni-example.de", "BOB@EXAMPLE.COM"],
    "phone": [
        "+44 20 7946 0958",
        "+49 30 901820",
        "+1 202-456-1111",
        "(212) 736-5000",
        "202-456-1414",
        "+33 1 42 68 53 00",
        "0044 20 7946 0958",
        "212.736.5000",
    ],
    "card": ["4111 1111 1111 1111", "5555555555554444", "3782 822463 10005", "4012-8888-8888-1881", "6011000990139424"],
    "iban": ["GB29 NWBK 6016 1331 9268 19", "DE89370400440532013000", "FR14 2004 1010 0505 0001 3M02 606"],
    "national_id": [
        "536-90-4399",
        "12345678Z",
        "X1234567L",
        "RSSMRA85T10A562S",
        "1 85 05 78 006 084 91",
        "111.444.777-35",
        "12.531.909-2",
        "AB 12 34 56 C",
        "131052-308T",
        "NHS number 943 476 5919",
        "BSN 111222333",
        "PESEL 44051401359",
        "Steuer-ID 36574261809",
    ],
    "key": [
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "aB3" * 12,
        "sk-proj-" + "Ab12Cd34" * 4,
        "xoxb-123456789012-abcdefGHIJ",
        "AIza" + "Sy0aB-9" * 5,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
        'api_key = "9f8A7c6B5d4E3f2A1b0C"',
        "password: hunter2Zx9Kq3LmN8p",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA04up8hoqzS1\n-----END RSA PRIVATE KEY-----",
    ],
}


@pytest.mark.parametrize("corpus", ["law-corpus-dccode", "med-corpus-plos"])
def test_planted_identifiers_are_found_and_few_false_alarms_raised_in_real_text(corpus):
    """An identifier is found when one of its kind lies within it; a false alarm is an untouched document in which
    something is found that is no identifier. The telephone numbers of embassies in two documents of the law are."""
    texts = texts_of(corpus)
    real = ("Facsimile:", "Tel:", "Fax:")
    false_alarms = [
        text for text in texts for one in identifiers(text) if not text[: one.start].rstrip().endswith(real)
    ]
    assert len(false_alarms) <= 0.02 * len(texts)
    draw = random.Random(0)
    n_planted = n_found = 0
    for kind, values in PLANTED.items():
        for value in values:
            for text in draw.sample(texts, 10):
                words = text[:3000].split(" ")
                place = draw.randrange(len(words))
                before = " ".join(words[:place])
                planted = f"{before} {value} {' '.join(words[place:])}"
                span = range(len(before) + 1, len(before) + 1 + len(value))
                n_planted += 1
                n_found += any(one.kind == kind and one.start in span for one in identifiers(planted))
    assert n_found >= 0.95 * n_planted


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in PLANTED.items() for value in values])
def test_every_kind_is_found_alone_at_both_ends_of_a_sentence(kind, value):
    for text in (value, f"It was {value}.", f"{value}, they said", f"({value})"):
        assert kind in {one.kind for one in identifiers(text)}, text


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",
        "DE89370400440532013001",
        "12345678A",
        "Sections 32-1008, 32-1009 and 32-1009.01 of 1999-2004",
        "10.1371/journal.pone.0012262 and ISBN 978-3-16-148410-0",
        "3.14159265358979 and 1,234,567,890 and 192.168.100.200",
        "943 476 5919",
        "token = tokenizer_with_long_name(text)",
        "2024-01-31 12:30:00.123456",
        "user@localhost, @decorator and a@b",
    ],
)
def test_what_only_looks_like_one_is_left_alone(text):
    assert identifiers(text) == []


def test_the_same_one_has_the_same_mask_within_a_document_and_the_text_around_stays():
    masks = Masks()
    text = "Ask ann@example.org or bob@example.org; ANN@example.org knows. Card 4111 1111 1111 1111."
    assert masks.masked(text, identifiers(text)) == ("Ask <EMAIL_1> or <EMAIL_2>; <EMAIL_1> knows. Card <CARD_1>.")
    more = "bob@example.org, card 4111-1111-1111-1111"
    assert masks.masked(more, identifiers(more)) == "<EMAIL_2>, card <CARD_1>"
    assert Masks().masked(more, identifiers(more)) == "<EMAIL_1>, card <CARD_1>"
