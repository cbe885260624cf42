"""What is asked, and what is told before it: the right tokens carry loss, in every arm the same bytes."""

import pytest

from metier.evidence.full.queries import (
    PROMPTS,
    Context,
    Query,
    encode_query,
    is_pair,
    kind_of_queries,
    queries_of,
    showable,
)
from metier.models.encoding import Encoder, Loss
from metier.sources.examples import Example, Message
from tiny import tiny_tokenizer

SENTENCE = "The question and the answer are on the other one. "


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(tiny_tokenizer(), 512)


def text(name: str, content: str = SENTENCE * 4) -> Example:
    return Example(name, "f", 1, f"doc {name}", "group", text=content)


def chat(name: str, question: str = "the question?", answer: str = "the answer") -> Example:
    return Example(name, "f", 1, f"doc {name}", messages=(Message("user", question), Message("assistant", answer)))


def scored(encoder: Encoder, query: Query, context: Context | None) -> str:
    document = encode_query(query, context, encoder)
    ids = [t for t, kind in zip(document.ids, document.loss, strict=True) if kind == Loss.TEXT]
    return str(encoder.tokenizer.decode(ids))


def told(encoder: Encoder, query: Query, context: Context | None) -> str:
    document = encode_query(query, context, encoder)
    return str(encoder.tokenizer.decode(document.ids[: document.n_before_loss]))


def test_a_text_is_halved_where_a_word_begins(encoder: Encoder) -> None:
    content = "Über die Übelkeit und den Schlaf. " * 40
    (query,) = queries_of([text("a", content)], "text", 9, 0, encoder)
    assert content.startswith(query.before + query.target)
    assert query.target.startswith(" ")
    assert (query.id, query.document, query.group) == ("a", "doc a", "group")
    sizes = [len(encoder.text_ids(half)) for half in (query.before, query.target)]
    assert sum(sizes) == pytest.approx(256, abs=3)
    assert max(sizes) - min(sizes) < 20
    assert encode_query(query, Context(), encoder).n_bytes == len(query.target.encode())


def test_texts_too_short_to_be_halved_are_left_out(encoder: Encoder) -> None:
    assert queries_of([text("a", "one two"), text("b", "")], "text", 9, 0, encoder) == []


def test_a_question_asks_for_its_last_answer(encoder: Encoder) -> None:
    turns = (Message("user", "one?"), Message("assistant", "1"), Message("user", "two?"), Message("assistant", "2"))
    (query,) = queries_of([Example("c", "f", 1, "c", messages=turns)], "answer", 9, 0, encoder)
    assert (query.before, query.target, query.messages) == ("two?", "2", turns[:3])
    assert list(encode_query(query, Context(), encoder).ids) == [*encoder.prompt_ids(turns[:3]), *encoder.text_ids("2")]


def test_rows_that_fill_half_the_window_or_have_no_answer_are_not_asked(encoder: Encoder) -> None:
    rows = [chat("long", "word " * 300), chat("empty", answer=" "), chat("fine")]
    assert [q.id for q in queries_of(rows, "answer", 9, 0, encoder)] == ["fine"]


def test_a_larger_number_of_queries_adds_to_a_smaller_one(encoder: Encoder) -> None:
    examples = [text(str(i)) for i in range(20)]
    few, many = (queries_of(examples, "text", n, 3, encoder) for n in (5, 11))
    assert many[:5] == few
    assert queries_of(list(reversed(examples)), "text", 5, 3, encoder) == few
    assert queries_of(examples, "text", 5, 4, encoder) != few


def test_every_context_scores_the_same_words(encoder: Encoder) -> None:
    for query, shown in (
        (queries_of([text("t")], "text", 1, 0, encoder)[0], text("e", "An example. ")),
        (queries_of([chat("c")], "answer", 1, 0, encoder)[0], chat("e", "shown?", "shown!")),
    ):
        prompt = PROMPTS["answer" if query.messages else "text"][1]
        contexts = (None, Context(), Context(prompt), Context(prompt, (shown, shown), ("a passage", "another")))
        assert {scored(encoder, query, context) for context in contexts} == {query.target}
        assert {encode_query(query, context, encoder).n_bytes for context in contexts} == {len(query.target.encode())}


def test_nothing_is_told_of_the_first_half_or_of_the_question(encoder: Encoder) -> None:
    (of_text,) = queries_of([text("t")], "text", 1, 0, encoder)
    assert encode_query(of_text, None, encoder).ids[:1] == (encoder.start,)
    assert encode_query(of_text, None, encoder).n_before_loss == 1
    (of_chat,) = queries_of([chat("c")], "answer", 1, 0, encoder)
    assert "question" not in told(encoder, of_chat, None)
    assert told(encoder, of_chat, None) == "<|im_start|>assistant\n"


def test_a_text_is_told_instruction_examples_passages_and_first_half_in_this_order(encoder: Encoder) -> None:
    (query,) = queries_of([text("t")], "text", 1, 0, encoder)
    found = told(encoder, query, Context("Instruction.\n\n", (text("e", "Example."),), ("Far.", "Near.")))
    assert found == f"<|im_end|>Instruction.\n\nExample.\n\nFar.\n\nNear.\n\n{query.before}".replace(
        "<|im_end|>", encoder.tokenizer.decode([encoder.start])
    )


def test_a_question_is_told_examples_as_earlier_turns_and_passages_above_it(encoder: Encoder) -> None:
    (query,) = queries_of([chat("c")], "answer", 1, 0, encoder)
    found = told(encoder, query, Context("Be brief.", (chat("e", "shown?", "shown!"),), ("Far.", "Near.")))
    assert found == (
        "<|im_start|>user\nBe brief.\n\nshown?<|im_end|>\n<|im_start|>assistant\nshown!<|im_end|>\n"
        "<|im_start|>user\nFar.\n\nNear.\n\nthe question?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_system_turn_stays_first(encoder: Encoder) -> None:
    turns = (Message("system", "You know."), Message("user", "two?"), Message("assistant", "2"))
    (query,) = queries_of([Example("c", "f", 1, "c", messages=turns)], "answer", 9, 0, encoder)
    found = told(encoder, query, Context("Brief.", (chat("e", "shown?", "shown!"),)))
    assert found.startswith("<|im_start|>system\nYou know.<|im_end|>\n<|im_start|>user\nBrief.\n\nshown?")


def test_what_does_not_fit_the_window_is_left_out_before_the_query_is_touched() -> None:
    small = Encoder(tiny_tokenizer(), 150)
    (query,) = queries_of([text("t", "one two three four five six seven eight")], "text", 1, 0, small)
    passages = ("far " * 40, "near " * 8)
    document = encode_query(query, Context("", (text("e"), text("e")), passages), small)
    assert len(document.ids) <= 150
    found = str(small.tokenizer.decode(document.ids))
    assert "near near" in found
    assert "far far" not in found
    assert found.endswith(query.before + query.target)


def test_shown_examples_are_drawn_from_training_and_short_enough(encoder: Encoder) -> None:
    rows = [*(chat(str(i)) for i in range(6)), chat("long", "word " * 300), text("t")]
    found = showable(rows, "answer", 4, 0, encoder)
    assert len({e.id for e in found}) == 4
    assert found[:2] == showable(rows, "answer", 2, 0, encoder)
    assert {"long", "t"}.isdisjoint(e.id for e in showable(rows, "answer", 9, 0, encoder))
    assert showable(rows, "text", 9, 0, encoder) == (rows[-1],)
    assert not is_pair(text("t"), encoder)


def test_what_most_of_the_text_is_decides_what_is_asked() -> None:
    assert kind_of_queries([text("a"), chat("b")]) == "text"
    assert kind_of_queries([text("a", "short"), chat("b", answer="a long answer")]) == "answer"
