"""The one scoring pass: the right bytes, the right nats, and the same for the same model."""

from pathlib import Path

import pytest
import torch
from torch import nn

from metier.evidence import arms
from metier.evidence.arms import nll_per_token, score_arm, write_arm
from metier.evidence.score import Items, encode_items, score_branches, score_documents, score_field, score_general
from metier.models import encoding
from metier.models.adapters import disabled
from metier.models.encoding import Encoder
from metier.models.generate import Answer
from metier.models.methods import add_method
from metier.models.packing import Branches, PackReader
from metier.progress import Silent
from metier.runs import RunFolder, read_jsonl
from metier.sources.examples import Example, Message
from metier.sources.general import Choice, Request
from tiny import random_ids, tiny_model, tiny_tokenizer

LONG = "Die Übelkeit – naïve « café » 🩺 終わり. " * 8
PACK_TOKENS = 120


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(tiny_tokenizer(), 96)


@pytest.fixture(scope="module")
def reader() -> PackReader:
    return PackReader(tiny_model())


def chat(name: str, question: str, answer: str) -> Example:
    return Example(
        name, "f", 1, f"doc {name}", "group", messages=(Message("user", question), Message("assistant", answer))
    )


FIELD = (
    chat("f:1", "the question?", "the answer"),
    chat("f:2", "letters " * 60, "its prompt fills the window"),
    Example("t:1", "t", 1, "doc t", text=LONG),
)
TEXTS = (
    Example("news-1", "general", 1, "news-1", "news", LONG),
    Example("code-1", "general", 1, "code-1", "code", "x = 1"),
)
REQUESTS = (Request("chat-1", "fact", "why?", "Because of é."), Request("chat-2", "fact", "who?", "Nobody."))
CHOICES = (Choice("facts-1", "facts", "Which?", ("one", "another", "é", "the last"), 2),)


@pytest.fixture(scope="module")
def items(encoder: Encoder) -> Items:
    return encode_items(encoder, FIELD, TEXTS, REQUESTS, ["It is so.", " "], CHOICES)


def nll_of(encoder: Encoder, prompt: list[int], text: str) -> float:
    """Nats of a text after a prompt, from the model's own forward."""
    ids = [*prompt, *encoder.text_ids(text)]
    with torch.no_grad():
        logits = tiny_model(attention="eager")(input_ids=torch.tensor([ids])).logits[0, len(prompt) - 1 : -1]
    return float(nn.functional.cross_entropy(logits, torch.tensor(ids[len(prompt) :]), reduction="sum"))


def test_a_model_against_itself_scores_every_item_exactly_the_same(reader: PackReader, items: Items) -> None:
    def once() -> object:
        return score_arm(reader, items, [], PACK_TOKENS, Silent())

    assert once() == once()


def test_a_fresh_adapter_a_switched_off_one_and_the_base_score_the_same(items: Items) -> None:
    model = add_method(tiny_model(), "lora", r=4, alpha=8, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.01)
    adapted = PackReader(model)
    with disabled(model):
        off = score_arm(adapted, items, [], PACK_TOKENS, Silent())
    base = score_arm(PackReader(tiny_model()), items, [], PACK_TOKENS, Silent())
    assert off == base
    assert score_arm(adapted, items, [], PACK_TOKENS, Silent()) != base


def test_field_records_hold_the_bytes_of_what_was_scored(reader: PackReader, items: Items, encoder: Encoder) -> None:
    (first, text), _ = score_field(reader, items, PACK_TOKENS, lambda _: None)
    assert (first["item"], first["slice"], first["document"], first["group"]) == ("f:1", "field", "doc f:1", "group")
    assert first["bytes"] == len("the answer")
    assert first["tokens"] == len(encoder.text_ids("the answer"))
    prompt = encoder.prompt_ids([Message("user", "the question?")])
    assert first["nll"] == pytest.approx(nll_of(encoder, prompt, "the answer"), rel=1e-5)
    assert text["bytes"] == len(LONG.encode())
    assert text["tokens"] == len(encoder.text_ids(LONG))
    assert len([d for d in items.field_documents if d.item == "t:1"]) > 3


def test_end_tokens_are_not_scored(reader: PackReader, items: Items) -> None:
    """An end stands for no byte: tokens scored are those supervised less the two ends, of the row and of the text."""
    records, _ = score_field(reader, items, PACK_TOKENS, lambda _: None)
    assert sum(int(str(r["tokens"])) for r in records) == sum(d.n_supervised for d in items.field_documents) - 2


def test_general_records_hold_their_slices_bytes_and_nats(reader: PackReader, items: Items, encoder: Encoder) -> None:
    records, choices = score_general(reader, items, PACK_TOKENS, lambda _: None)
    found = {(r["slice"], r["item"]): r for r in records}
    assert list(found) == [
        ("text/news", "news-1"),
        ("text/code", "code-1"),
        ("chat/good answers", "chat-1"),
        ("chat/own answers", "chat-1"),
    ]
    assert found["text/news", "news-1"]["bytes"] == len(LONG.encode())
    code = found["text/code", "code-1"]
    assert code["nll"] == pytest.approx(nll_of(encoder, [encoder.start], "x = 1"), rel=1e-5)
    prompt = encoder.prompt_ids([Message("user", "why?")])
    for name, answer in (("chat/good answers", "Because of é."), ("chat/own answers", "It is so.")):
        record = found[name, "chat-1"]
        assert record["bytes"] == len(answer.encode())
        assert record["tokens"] == len(encoder.text_ids(answer))
        assert record["nll"] == pytest.approx(nll_of(encoder, prompt, answer), rel=1e-5)
    (choice,) = choices
    assert (choice["item"], choice["slice"], choice["label"]) == ("facts-1", "choices/facts", 2)
    assert choice["bytes"] == [3, 7, 2, 8]
    stem = encoder.opening_ids("Question: Which?\nAnswer:")
    expected = [nll_of(encoder, stem, " " + text) for text in CHOICES[0].choices]
    assert choice["nll"] == pytest.approx(expected, rel=1e-5)


def test_a_request_that_the_base_left_empty_is_not_scored_and_unanswered_ones_are_measured_by_their_good_answers(
    encoder: Encoder, items: Items
) -> None:
    assert [r.id for r in items.requests] == ["chat-1"]
    assert items.own_answers == ("It is so.",)
    before = encode_items(encoder, [], [], REQUESTS, None, [])
    assert [b.branches[0] == b.branches[1] for b in before.request_branches] == [True, True]


@pytest.mark.parametrize("pack_tokens", [1, 60, 10_000])
def test_the_size_of_packs_changes_no_score(pack_tokens: int, reader: PackReader, items: Items) -> None:
    expected = score_arm(reader, items, [], PACK_TOKENS, Silent())
    found = score_arm(reader, items, [], pack_tokens, Silent())
    assert [r["item"] for r in found.scores] == [r["item"] for r in expected.scores]
    assert [r["nll"] for r in found.scores] == pytest.approx([r["nll"] for r in expected.scores], rel=1e-6)
    assert found.choices[0]["nll"] == pytest.approx(expected.choices[0]["nll"], rel=1e-6)


def test_progress_ends_at_the_tokens_of_the_items(reader: PackReader, items: Items) -> None:
    told: list[int] = []

    class Told(Silent):
        def advance(self, done: int, note: str = "") -> None:
            del note
            told.append(done)

    score_arm(reader, items, [], PACK_TOKENS, Told())
    assert told == sorted(told)
    assert told[-1] == items.n_tokens


def test_windows_of_one_item_are_added_up(
    encoder: Encoder, reader: PackReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "CONTEXT", 0)
    windows = encoder.encode(Example("t", "t", 1, "t", text=LONG))
    together = score_documents(reader, windows, PACK_TOKENS, lambda _: None)["t"]
    apart = [score_documents(reader, [w], PACK_TOKENS, lambda _: None)["t"] for w in windows]
    assert together.nll == pytest.approx(sum(s.nll for s in apart), rel=1e-6)
    assert together.tokens == sum(s.tokens for s in apart)


def test_branches_are_named_by_item_and_number(reader: PackReader) -> None:
    stems = [Branches(name, random_ids(n, 1), (random_ids(3, 2), random_ids(2, 3))) for name, n in (("a", 4), ("b", 9))]
    found = score_branches(reader, stems, 10, lambda _: None)
    assert sorted(found) == ["a#0", "a#1", "b#0", "b#1"]
    assert [found[name].tokens for name in sorted(found)] == [3, 2, 3, 2]


def test_nats_per_token_divide_once(reader: PackReader, items: Items) -> None:
    records, _ = score_field(reader, items, PACK_TOKENS, lambda _: None)
    nll, tokens = (sum(float(str(r[name])) for r in records) for name in ("nll", "tokens"))
    assert nll_per_token(reader, items.field_documents, PACK_TOKENS) == pytest.approx(nll / tokens)
    assert nll_per_token(reader, [], PACK_TOKENS) == 0


def test_an_arm_is_written_item_by_item(tmp_path: Path, reader: PackReader, items: Items) -> None:
    run = RunFolder(tmp_path)
    arm = score_arm(reader, items, [("chat-1", 9, Answer("why?", "é", 2, True))], PACK_TOKENS, Silent())
    write_arm(run, "base", arm)
    assert list(read_jsonl(run.evidence / "scores-base.jsonl")) == arm.scores
    assert list(read_jsonl(run.evidence / "choices-base.jsonl")) == arm.choices
    assert list(read_jsonl(run.evidence / "answers-base.jsonl")) == [
        {"item": "chat-1", "good_tokens": 9, "request": "why?", "answer": "é", "tokens": 2, "ended": True}
    ]


def test_held_out_rows_are_shown_by_their_question_and_reference_or_their_opening(encoder: Encoder) -> None:
    conversation = Example(
        "c",
        "f",
        1,
        "c",
        messages=(
            Message("user", "one?"),
            Message("assistant", "1"),
            Message("user", "two?"),
            Message("assistant", "2"),
        ),
    )
    found = arms.shown_prompts(encoder, [FIELD[0], FIELD[2], conversation], 5)
    assert [(prompt.request, reference) for prompt, reference in found[::2]] == [
        ("the question?", "the answer"),
        ("two?", "2"),
    ]
    assert found[2][0].ids == encoder.prompt_ids(conversation.messages[:3])
    prompt, reference = found[1]
    opening = prompt.request.removesuffix(" …")
    assert prompt.ids == encoder.opening_ids(opening)[5 - encoder.window :]
    assert LONG.startswith(opening)
    assert len(opening) <= arms.CONTINUED_CHARACTERS
    assert LONG[len(opening) :].lstrip().startswith(reference)
    assert arms.shown_prompts(encoder, [], 5) == []


def test_a_long_prompt_is_shown_by_its_end_which_leaves_room_for_the_answer() -> None:
    narrow = Encoder(tiny_tokenizer(), 40)
    long = Example("c", "f", 1, "c", messages=(Message("user", "word " * 60), Message("assistant", "2")))
    ((prompt, _),) = arms.shown_prompts(narrow, [long], 12)
    assert prompt.ids == narrow.prompt_ids(long.messages[:1])[-28:]


def test_a_sample_that_answers_nothing_is_asked_for_with_the_opening_words_alone(encoder: Encoder) -> None:
    alone = Example("c", "f", 1, "c", messages=(Message("assistant", "Good day."),))
    ((prompt, reference),) = arms.shown_prompts(encoder, [alone], 5)
    assert (prompt.request, reference) == ("", "Good day.")


def test_every_token_of_a_long_text_has_its_nats_and_its_place_whatever_the_packs(
    reader: PackReader, items: Items
) -> None:
    records, tokens = score_field(reader, items, PACK_TOKENS, lambda _: None)
    _, others = score_field(reader, items, 400, lambda _: None)
    text = next(one for one in tokens if one["item"] == "t:1")
    assert len(text["nll"]) == len(text["ends"])  # type: ignore[arg-type]
    assert sum(text["nll"]) == pytest.approx(records[1]["nll"], abs=0.01)  # type: ignore[call-overload]
    assert others[1]["nll"] == pytest.approx(text["nll"], abs=2e-4)
    assert items.passages[1].text == LONG
