"""Every token of what is to be learned carries loss once, and nothing else does."""

import pytest

from metier.errors import DataError, ModelError
from metier.models import encoding
from metier.models.encoding import PLAIN_TEMPLATE, Encoded, Encoder, Loss
from metier.sources.examples import Example, Message
from tiny import CHATML, tiny_model, tiny_tokenizer

MULTI_BYTE = "Die Übelkeit – naïve « café » 🩺 終わり. "


def chat(*turns: tuple[str, str]) -> Example:
    messages = tuple(Message(role, content) for role, content in turns)  # type: ignore[arg-type]
    return Example("rows.jsonl:1", "rows.jsonl", 1, "rows.jsonl:1", messages=messages)


def plain(text: str) -> Example:
    return Example("a.txt", "a.txt", 1, "a.txt", text=text)


def encoder(window: int = 512, template: str | None = CHATML) -> Encoder:
    return Encoder(tiny_tokenizer(template), window)


def decoded(found: Encoder, document: Encoded, *kinds: Loss) -> str:
    return str(
        found.tokenizer.decode([t for t, kind in zip(document.ids, document.loss, strict=True) if kind in kinds])
    )


CONVERSATION = chat(
    ("system", "Be brief."),
    ("user", "What is a naïve question?"),
    ("assistant", "One that is asked."),
    ("user", "And the answer?"),
    ("assistant", "It is given: « oui »."),
)


@pytest.mark.parametrize("template", [CHATML, None], ids=["chatml", "plain"])
def test_every_assistant_turn_is_supervised_and_nothing_else(template: str | None) -> None:
    found = encoder(template=template)
    (document,) = found.encode(CONVERSATION)
    assert decoded(found, document, Loss.TEXT) == "One that is asked.It is given: « oui »."
    ends = [token for token, kind in zip(document.ids, document.loss, strict=True) if kind == Loss.END]
    assert ends == [found.end, found.end]
    assert document.n_bytes == len(CONVERSATION.learned_text.encode())
    assert document.n_cut_bytes == 0
    read = decoded(found, document, Loss.NONE)
    assert "Be brief." in read
    assert "And the answer?" in read
    assert "asked" not in read


def test_nothing_after_the_last_end_token_is_read() -> None:
    found = encoder()
    (document,) = found.encode(CONVERSATION)
    assert document.ids[-1] == found.end
    assert document.loss[-1] == Loss.END


def test_an_assistant_turn_that_opens_the_conversation_is_supervised_too() -> None:
    found = encoder()
    (document,) = found.encode(chat(("assistant", "Good day."), ("user", "Hello"), ("assistant", "Yes?")))
    assert decoded(found, document, Loss.TEXT) == "Good day.Yes?"
    assert document.loss[0] == Loss.NONE


def test_a_conversation_that_the_template_refuses_is_named() -> None:
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + CHATML
    with pytest.raises(DataError, match=r"rows\.jsonl:1: the model's chat template refuses .* \(no system turn\)"):
        encoder(template=strict).encode(CONVERSATION)


def test_a_tokenizer_without_a_template_gets_the_plain_one() -> None:
    bare = encoder(template=None)
    assert not bare.has_own_template
    assert bare.tokenizer.chat_template == PLAIN_TEMPLATE
    assert bare.tokenizer.decode(bare.prompt_ids([Message("user", "Why?")])) == "### User:\nWhy?\n\n### Assistant:\n"
    assert encoder().has_own_template


def test_a_prompt_ends_where_the_answer_begins() -> None:
    found = encoder()
    prompt = found.prompt_ids(CONVERSATION.messages[:4])
    (document,) = found.encode(CONVERSATION)
    assert document.ids[: len(prompt)] == tuple(prompt)
    assert document.loss[len(prompt)] == Loss.TEXT


def test_a_short_text_is_one_window_with_a_start_before_it_and_an_end_after_it() -> None:
    found = encoder()
    (document,) = found.encode(plain("the answer"))
    assert document.ids == (found.start, *found.text_ids("the answer"), found.end)
    assert set(document.loss[1:-1]) == {Loss.TEXT}
    assert (document.loss[0], document.loss[-1]) == (Loss.NONE, Loss.END)
    assert document.n_bytes == 10


@pytest.mark.parametrize("text_window", [16, 40, 61, 200])
@pytest.mark.parametrize("text", [MULTI_BYTE * 6, "the question " * 30, "🩺" * 40])
def test_the_windows_of_a_text_supervise_every_token_once_and_their_bytes_add_up(
    text: str, text_window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "CONTEXT", 7)
    found = encoder(window=text_window)
    windows = found.encode(plain(text))
    supervised = [t for w in windows for t, kind in zip(w.ids, w.loss, strict=True) if kind == Loss.TEXT]
    assert supervised == found.text_ids(text)
    assert sum(w.n_bytes for w in windows) == len(text.encode())
    assert [w.window for w in windows] == list(range(len(windows)))
    assert all(len(w.ids) <= text_window for w in windows)
    assert [kind for w in windows for kind in w.loss if kind == Loss.END] == [Loss.END]
    assert windows[-1].loss[-1] == Loss.END


def test_a_later_window_reads_what_came_before_without_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "CONTEXT", 5)
    found = encoder(window=20)
    ids = found.text_ids("the question and the answer " * 8)
    first, second, *_ = found.encode(plain("the question and the answer " * 8))
    n_first = first.n_supervised
    assert second.ids[0] == found.start
    assert list(second.ids[1:6]) == ids[n_first - 5 : n_first]
    assert set(second.loss[:6]) == {Loss.NONE}
    assert second.ids[6] == ids[n_first]
    assert second.loss[6] == Loss.TEXT


def test_a_model_with_a_window_as_short_as_the_context_still_reads_the_whole_text() -> None:
    """The context of a later window takes half of it at most, or the windows would never come to the end."""
    found = encoder(window=encoding.CONTEXT)
    windows = found.encode(plain(MULTI_BYTE * 20))
    assert sum(w.n_bytes for w in windows) == len((MULTI_BYTE * 20).encode())


def test_a_text_is_windowed_by_its_own_limit_and_a_conversation_by_the_models() -> None:
    found = encoder(window=4096)
    assert max(len(w.ids) for w in found.encode(plain("xyz " * 600))) == encoding.TEXT_WINDOW - 1  # room for an end
    (document,) = found.encode(chat(("user", "?"), ("assistant", "xyz " * 400)))
    assert len(document.ids) > encoding.TEXT_WINDOW


def test_a_conversation_longer_than_the_window_is_cut_and_the_cut_bytes_counted() -> None:
    answer = "abcdefghij" * 20
    found = encoder(window=100)
    (document,) = found.encode(chat(("user", "Letters?"), ("assistant", answer)))
    assert len(document.ids) == 100
    kept = decoded(found, document, Loss.TEXT)
    assert answer.startswith(kept)
    assert document.n_bytes == len(kept)
    assert document.n_bytes + document.n_cut_bytes == len(answer)
    assert Loss.END not in document.loss


def test_a_conversation_that_fits_exactly_is_not_cut() -> None:
    example = chat(("user", "Letters?"), ("assistant", "abcdefghij"))
    (whole,) = encoder().encode(example)
    (exact,) = encoder(window=len(whole.ids)).encode(example)
    assert exact == whole
    (shorter,) = encoder(window=len(whole.ids) - 1).encode(example)
    assert len(shorter.ids) == len(whole.ids) - 1


def test_a_prompt_that_fills_the_window_gives_nothing() -> None:
    assert encoder(window=30).encode(chat(("user", "letters " * 40), ("assistant", "abc"))) == []


def test_a_tokenizer_without_an_end_token_is_refused() -> None:
    with pytest.raises(ModelError, match="has no end token"):
        Encoder(tiny_tokenizer(end=None), 512)


def test_a_text_starts_with_the_separator_of_pretraining_when_the_tokenizer_puts_nothing_there() -> None:
    found = encoder()
    assert found.start == found.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert found.opening_ids("the") == [found.start, *found.text_ids("the")]


def test_the_vocabulary_of_the_tests_fits_their_models() -> None:
    assert len(tiny_tokenizer()) <= tiny_model().config.vocab_size


def test_what_the_template_puts_before_an_answer_carries_no_loss() -> None:
    tokenizer = tiny_tokenizer()
    plain = Encoder(tiny_tokenizer(), 512)
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "message['content']", "('<think></think>' if message['role'] == 'assistant' else '') + message['content']"
    )
    thinking = Encoder(tokenizer, 512)
    turns = (Message("user", "why?"), Message("assistant", "the answer is here"))
    example = Example("a", "a", 1, "a", messages=turns)
    (short,), (long,) = plain.encode(example), thinking.encode(example)
    assert len(long.ids) > len(short.ids)
    assert long.n_supervised == short.n_supervised


@pytest.mark.parametrize(
    "text", ["the answer", "naïve « café » 🩺 終わり. ", "x", "the question and the answer, " * 30]
)
def test_the_scored_text_comes_back_whole_and_every_token_ends_in_it(text: str) -> None:
    encoder = Encoder(tiny_tokenizer(), 64)
    documents = encoder.encode(Example("t", "t", 1, "t", text=text))
    found, ends = encoder.scored_text(documents)
    assert found == text
    assert list(ends) == sorted(ends)
    assert ends[-1] == len(text)
    assert len(ends) == sum(1 for d in documents for kind in d.loss if kind == Loss.TEXT)


def test_tokens_end_where_their_own_text_does() -> None:
    encoder = Encoder(tiny_tokenizer(), 64)
    text = "the question"
    _, ends = encoder.scored_text(encoder.encode(Example("t", "t", 1, "t", text=text)))
    pieces = [encoder.tokenizer.decode([i]) for i in encoder.text_ids(text)]
    lengths = [len("".join(pieces[: i + 1])) for i in range(len(pieces))]
    assert list(ends) == lengths
