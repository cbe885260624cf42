"""Questions to both models: what is asked, what counts as recited, and what the records come to."""

import pytest
import torch
from transformers import PreTrainedModel

from metier.evidence.full.questions import (
    EXAMPLES,
    FEW_SHOT,
    PREFIX,
    _starts,
    few_shot,
    few_shot_items,
    recite,
    recited,
    start_of,
    term_choices,
)
from metier.models.encoding import Encoder
from metier.sources import general
from metier.sources.examples import Example, Message
from tiny import tiny_model, tiny_tokenizer


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(tiny_tokenizer(), 256)


def test_examples_stand_before_each_question_and_are_never_asked() -> None:
    asked = few_shot_items(1000)
    whole = {c.id: c for c in general.choices()}
    shown = {c.id for c in whole.values()} - {c.id for c in asked}
    assert len(shown) == EXAMPLES * len({c.kind for c in whole.values()})
    for choice in asked[:40]:
        own = whole[choice.id]
        examples = [c for c in whole.values() if c.id in shown and c.kind == own.kind]
        assert len(examples) == EXAMPLES
        for example in examples:
            assert f"{example.stem} {example.choices[example.label]}\n" in choice.stem
        assert choice.stem.endswith(own.stem)
        assert (choice.choices, choice.label, choice.kind) == (own.choices, own.label, FEW_SHOT)
    assert [c.id for c in few_shot_items(5)] == [c.id for c in asked[:5]]


def greedy(model: PreTrainedModel, ids: list[int], n: int) -> list[int]:
    out = list(ids)
    with torch.no_grad():
        for _ in range(n):
            out.append(int(model(input_ids=torch.tensor([out])).logits[0, -1].argmax()))
    return out[len(ids) :]


def test_recited_is_what_the_model_goes_on_with_word_for_word(encoder: Encoder) -> None:
    model = tiny_model()
    text = Example("long", "d", 1, "d", text="The quick brown fox jumps over the lazy dog again. " * 8)
    start = start_of(encoder, text)
    assert start is not None
    shown, follows = start
    assert (len(shown) >= PREFIX, len(follows)) == (True, PREFIX)
    said = tuple(greedy(model, list(shown), PREFIX))
    assert said != follows
    assert not set(said) & set(encoder.ends)
    shorter = (shown[3:], tuple(greedy(model, list(shown[3:]), PREFIX)))
    starts = [(shown, follows), (shown, said), shorter]
    for batch_tokens in (10_000, 100, 1):
        assert recite(model, starts, encoder.ends, batch_tokens) == [False, True, True]
    assert recite(model, [], encoder.ends, 100) == []


LONG = "The quick brown fox jumps over the lazy dog again. " * 8


def test_only_what_is_learned_in_one_piece_is_recited(encoder: Encoder) -> None:
    def row(*turns: str, text: str = "") -> Example:
        roles = ("user", "assistant") * 2
        messages = tuple(Message(r, t) for r, t in zip(roles, turns, strict=False))
        return Example("r", "d", 1, "d", text=text, messages=messages)

    assert start_of(encoder, row(text="Only a few words.")) is None
    assert start_of(encoder, row("What?", LONG)) is not None
    assert start_of(encoder, row("What?", "Short.", "And?", LONG)) is None
    assert start_of(encoder, row(LONG * 3, LONG)) is None


def test_one_row_of_each_document_is_recited(encoder: Encoder) -> None:
    rows = [Example(f"r{i}", "d", i, f"d{i // 5}", text=f"{i} {LONG}") for i in range(20)]
    chosen = [item for item, _ in _starts(encoder, rows, seed=0)]
    assert sorted(int(item[1:]) // 5 for item in chosen) == [0, 1, 2, 3]
    assert chosen == [item for item, _ in _starts(encoder, rows, seed=0)]


def choice(arm: str, item: str, kind: str, right: float) -> dict[str, object]:
    nll = [right, 5.0, 5.0, 5.0]
    return {
        "arm": arm,
        "item": item,
        "document": item,
        "slice": f"choices/{kind}",
        "nll": nll,
        "bytes": [4] * 4,
        "label": 0,
    }


def test_records_come_to_accuracies_by_kind() -> None:
    records = [choice("base", f"q{i}", "few-shot", 1.0) for i in range(12)]
    records += [choice("adapted", f"q{i}", "few-shot", 9.0 if i < 6 else 1.0) for i in range(12)]
    records += [choice(arm, "t", "cloze", 1.0) for arm in ("base", "adapted")]
    found = few_shot(records)
    assert found is not None
    assert (found["base"], found["adapted"]) == (1.0, 0.5)
    assert found["ci_high"] < 0
    assert set(term_choices(records)) == {"cloze"}
    assert few_shot([]) is None
    assert term_choices([]) == {}


def test_what_was_recited_is_counted_for_both() -> None:
    rows = [{"item": str(i), "base": i == 0, "adapted": i < 3} for i in range(10)]
    assert recited(rows) == {"continued_verbatim": 3, "continued_verbatim_base": 1, "n_prefixes": 10}
    assert recited([]) is None
