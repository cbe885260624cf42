"""Rows → examples: the format found by its fields, and what makes a row a bad one."""

import pytest

from metier.errors import DataError
from metier.sources.rows import BadRowError, find_layout, parse_row


def parsed(row, named=None):
    return parse_row(row, find_layout([row], named or {}, "a.jsonl"))


def turns(row, named=None):
    return [(message.role, message.content) for message in parsed(row, named).messages]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"question": "Why?", "answer": "So."}, [("user", "Why?"), ("assistant", "So.")]),
        ({"QUESTION": "Why?", "Answer": "So."}, [("user", "Why?"), ("assistant", "So.")]),
        ({"prompt": "Why?", "completion": "So."}, [("user", "Why?"), ("assistant", "So.")]),
        ({"instruction": "Add.", "input": "1, 2", "output": "3"}, [("user", "Add.\n\n1, 2"), ("assistant", "3")]),
        ({"instruction": "Add.", "input": "", "output": "3"}, [("user", "Add."), ("assistant", "3")]),
        ({"instruction": "Add.", "output": "3"}, [("user", "Add."), ("assistant", "3")]),
        ({"term": "Ataxia", "definition": "Poor aim."}, [("user", "What is Ataxia?"), ("assistant", "Poor aim.")]),
        (
            {"context": "A passage.", "question": "Why?", "answer": "So."},
            [("user", "A passage.\n\nWhy?"), ("assistant", "So.")],
        ),
        (
            {
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "Why?"},
                    {"role": "assistant", "content": [{"type": "text", "text": "So."}]},
                ]
            },
            [("system", "Be brief."), ("user", "Why?"), ("assistant", "So.")],
        ),
        (
            {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
            [("user", "Why?"), ("assistant", "So.")],
        ),
    ],
)
def test_every_format_becomes_a_conversation(row, expected):
    assert turns(row) == expected


def test_plain_text_stays_plain_text_and_keeps_its_paragraphs():
    row = parsed({"id": 1, "text": "\r\nOne.  \r\n\r\nTwo.\t\n"})
    assert (row.text, row.messages) == ("One.\n\nTwo.", ())


def test_named_fields_decide_where_several_formats_fit():
    row = {"text": "Whole.", "question": "Why?", "answer": "So.", "reply": "Because."}
    assert turns(row, {"question": "question", "answer": "reply"}) == [("user", "Why?"), ("assistant", "Because.")]
    assert parsed(row, {"text": "answer"}).text == "So."


def test_document_and_group_are_found_or_named():
    row = {"text": "A text.", "doc_id": 7, "category": "x", "topic": "t"}
    assert (parsed(row).document, parsed(row).group) == ("7", "x")
    named = parsed(row, {"document": "topic", "group": "doc_id"})
    assert (named.document, named.group) == ("t", "7")
    assert parsed({"text": "A text.", "doc": None}).document == ""


def test_the_bytes_of_added_words_are_not_bytes_of_the_source():
    row = parsed({"term": "Œdème", "definition": "Swelling."})
    assert (row.prompt_bytes, row.learned_bytes) == (len("Œdème".encode()), 9)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"body": "x", "title": "y"}, "fits no format that is read: its fields are body, title"),
        ({"text": "x", "question": "y", "answer": "z"}, r"fits several formats \(text, question/answer\)"),
    ],
)
def test_unknown_and_ambiguous_fields_are_listed_with_the_way_to_name_them(row, words):
    with pytest.raises(DataError, match=rf"^a.jsonl:1 {words}.*; say which to learn with .*--answer FIELD"):
        parsed(row)


def test_a_named_field_that_is_not_there_is_an_error_that_lists_the_fields():
    with pytest.raises(DataError, match=r"a.jsonl:1 has no field 'topic' \(named for document\): its fields are text"):
        parsed({"text": "x"}, {"document": "topic"})


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"question": "Why?", "answer": None}, "has a null answer"),
        ({"question": "Why?", "answer": " \n"}, "has an empty answer"),
        ({"question": "Why?", "answer": 4}, r"has a answer that is not text \(int\)"),
        ({"question": "Why?", "answer": "a\0b"}, "has a NUL character in answer"),
        ({"question": "Why?", "answer": "\ud800"}, "lone surrogate"),
        ({"question": "", "answer": "So."}, "has an empty question"),
        ({"messages": [{"role": "user", "content": "Why?"}]}, "has no assistant turn"),
        ({"messages": []}, "has no list of turns"),
        ({"messages": ["Why?"]}, "has a turn 1 that is not an object"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "has a turn 1 by 'tool'"),
        ({"messages": [{"role": "assistant", "content": None}]}, "has a null assistant turn"),
        ({"instruction": "Add.", "input": 3, "output": "3"}, "has a input that is not text"),
    ],
)
def test_a_row_that_cannot_be_learned_says_why(row, why):
    with pytest.raises(BadRowError, match=why):
        parsed(row)


def test_a_row_that_lacks_a_field_of_the_first_rows_is_bad():
    layout = find_layout([{"question": "a", "answer": "b"}], {}, "a.jsonl")
    with pytest.raises(BadRowError, match="has no field 'answer'"):
        parse_row({"question": "a"}, layout)


def test_a_context_that_is_not_text_is_left_out_of_the_question():
    assert turns({"question": "Why?", "answer": "So.", "context": {"a": ["b"]}})[0] == ("user", "Why?")


ASKED = {"role": "user", "content": "Why?"}
SYSTEM = {"role": "system", "content": "Be brief."}


def said(text):
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("row", "before"),
    [
        ({"prompt": "Why?", "chosen": "So.", "rejected": "No."}, [("user", "Why?")]),
        ({"prompt": [ASKED], "chosen": [said("So.")], "rejected": [said("No.")]}, [("user", "Why?")]),
        ({"prompt": "Why?", "chosen": [ASKED, said("So.")], "rejected": [ASKED, said("No.")]}, [("user", "Why?")]),
        (
            {"prompt": "Why?", "chosen": [SYSTEM, ASKED, said("So.")], "rejected": [SYSTEM, ASKED, said("No.")]},
            [("system", "Be brief."), ("user", "Why?")],
        ),
    ],
)
def test_a_preference_is_its_conversation_with_the_chosen_answer_and_the_rejected_one_beside(row, before):
    found = parsed(row)
    assert [(m.role, m.content) for m in found.messages] == [*before, ("assistant", "So.")]
    assert found.rejected == "No."
    assert (found.prompt_bytes, found.learned_bytes) == (sum(len(text) for _, text in before), 6)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "Why?", "chosen": "So.", "rejected": "So."}, "has the same answer chosen and rejected"),
        ({"prompt": "Why?", "chosen": "So.", "rejected": None}, "has a null rejected"),
        (
            {"prompt": "Why?", "chosen": [said("So.")], "rejected": [said("a"), ASKED, said("b")]},
            "has chosen and rejected answers to different conversations",
        ),
        (
            {"prompt": "Why?", "chosen": [said("So."), ASKED], "rejected": "No."},
            "has a conversation in 'chosen' that does not end with an assistant turn",
        ),
    ],
)
def test_a_preference_that_cannot_be_learned_says_why(row, why):
    with pytest.raises(BadRowError, match=why):
        parsed(row)
