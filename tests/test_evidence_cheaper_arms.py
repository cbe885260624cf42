"""The arms as they are measured: the same items in each, chosen on the select half, the base without its adapter."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from metier.evidence.full import cheaper_arms
from metier.evidence.full.cheaper import ADAPTED, BASE, NGRAM, NOTHING
from metier.evidence.full.cheaper_arms import (
    WAYS,
    Arms,
    Asked,
    Models,
    Setting,
    Way,
    answer_arms,
    context_of,
    expected_tokens,
    measure_arms,
    sources_of,
)
from metier.evidence.full.ngrams import NgramModel
from metier.evidence.full.queries import Kind, encode_query, queries_of
from metier.evidence.score import score_documents
from metier.evidence.statistics import bits_per_byte
from metier.models.encoding import Encoded, Encoder
from metier.models.methods import add_method
from metier.models.packing import PackReader
from metier.progress import Silent
from metier.sources.examples import Example, Message
from tiny import VOCABULARY, tiny_model, tiny_tokenizer

WORDS = ("liver", "heart", "skin", "bone", "blood", "nerve", "lung", "eye")


def examples(kind: Kind, first: int, n: int) -> list[Example]:
    made = []
    for i in range(first, first + n):
        name = f"{WORDS[i % 8]} {WORDS[i // 8 % 8]}"
        if kind == "text":
            made.append(
                Example(f"t{i}", "f", 1, f"t{i}", text=f"The {name} of a patient. It is the {name} number {i}.")
            )
        else:
            turns = (Message("user", f"What is the {name}?"), Message("assistant", f"It is the {name} number {i}."))
            made.append(Example(f"c{i}", "f", 1, f"c{i}", messages=turns))
    return made


def asked_of(kind: Kind) -> Asked:
    encoder = Encoder(tiny_tokenizer(), 512)
    train, select, test = examples(kind, 0, 24), examples(kind, 24, 5), examples(kind, 40, 7)
    model = add_method(tiny_model(), "lora", r=4, alpha=8, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05)
    reader = PackReader(model)
    sources = sources_of(train, [*select, *test], kind, 0, encoder)
    queries = [queries_of(part, kind, 20, 0, encoder) for part in (select, test)]
    return Asked(kind, *queries, Models(reader, reader, encoder, encoder), sources, 256)


def ngrams(kind: Kind, encoder: Encoder) -> NgramModel:
    return NgramModel([d for e in examples(kind, 0, 24) for d in encoder.encode(e)], VOCABULARY)


@pytest.fixture(scope="module", params=["text", "answer"])
def measured(request: pytest.FixtureRequest) -> tuple[Asked, Arms]:
    asked = asked_of(request.param)
    return asked, measure_arms(asked, ngrams(asked.kind, asked.models.encoder), Silent())


def half(arms: Arms, name: str, which: str = "test") -> list[dict]:
    return [r for r in arms.records if r["arm"] == name and r["half"] == which]


def test_every_arm_has_the_same_items_with_the_same_bytes_in_both_halves(measured: tuple[Asked, Arms]) -> None:
    asked, arms = measured
    names = {NOTHING, NGRAM, *(way.name for way in WAYS[asked.kind])}
    assert {r["arm"] for r in arms.records} == names
    for which, queries in (("test", asked.test), ("select", asked.select)):
        expected = [(q.id, q.document, len(q.target.encode())) for q in queries]
        for name in names:
            assert [(r["item"], r["document"], r["bytes"]) for r in half(arms, name, which)] == expected
    assert {r["kind"] for r in arms.records} == {asked.kind}


def test_the_base_is_read_without_its_adapter_and_the_adapted_model_with_it(measured: tuple[Asked, Arms]) -> None:
    asked, arms = measured
    base, adapted = half(arms, BASE), half(arms, ADAPTED)
    way = WAYS[asked.kind][0]
    documents = [
        encode_query(q, context_of(asked, way, arms.chosen[BASE], q), asked.models.encoder) for q in asked.test
    ]
    plain = score_documents(PackReader(tiny_model()), documents, 256, lambda _: None)
    assert [r["nll"] for r in base] == pytest.approx([plain[q.id].nll for q in asked.test], rel=1e-5)
    assert all(a["nll"] != pytest.approx(b["nll"], rel=1e-3) for a, b in zip(adapted, base, strict=True))


def test_an_arm_that_is_told_more_reads_more(measured: tuple[Asked, Arms]) -> None:
    _, arms = measured
    read = {name: half(arms, name)[0]["read"] for name in (NOTHING, BASE, "base + examples", "base + retrieval")}
    assert read[NOTHING] < read[BASE] < min(read["base + examples"], read["base + retrieval"])


def test_contexts_hold_training_text_and_never_what_is_asked(measured: tuple[Asked, Arms]) -> None:
    asked, _ = measured
    trained = {e.id for e in examples(asked.kind, 0, 24)}
    for way in WAYS[asked.kind]:
        for query in asked.test:
            context = context_of(asked, way, Setting(examples=4, passages=3), query)
            assert {e.id for e in context.examples} <= trained
            assert not any(query.target.strip() in passage for passage in context.passages)
            assert len(context.passages) == (3 if way.passages else 0)
            assert len(context.examples) == (4 if way.examples != "none" else 0) or way.examples == "none"


def test_picked_examples_are_the_most_alike_with_the_best_last() -> None:
    asked = asked_of("answer")
    picked = next(way for way in WAYS["answer"] if way.examples == "picked" and not way.passages)
    query = next(q for q in asked.test if "liver" in q.before)
    found = context_of(asked, picked, Setting(examples=2), query).examples
    best = asked.sources.passages.top_passages(query.before, 2)
    assert [e.id for e in found] == [asked.sources.passages.examples[p.example].id for p in reversed(best)]


def test_of_retrieved_passages_the_nearest_stands_last() -> None:
    asked = asked_of("text")
    way = Way("base + retrieval", "base", passages=True)
    query = asked.test[0]
    told = context_of(asked, way, Setting(passages=3), query).passages
    nearest = [passage.text for passage in asked.sources.passages.top_passages(query.before, 3)]
    assert len(set(nearest)) == 3
    assert list(told) == nearest[::-1]


def test_other_numbers_of_examples_are_tried_with_the_instruction_that_did_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = asked_of("answer")
    last = len(cheaper_arms.PROMPTS["answer"]) - 1
    assert last > 0

    def scored(_: object, way: Way, setting: Setting, queries: object, half: str) -> list[dict]:
        del way, queries, half
        return [{"nll": 1.0 if setting.prompt == last else 2.0, "bytes": 1, "item": "q"}]

    monkeypatch.setattr(cheaper_arms, "_scored", scored)
    tried = cheaper_arms._tried(asked, Way("base + examples", "base", "random"))
    assert {s.prompt for s in tried if s.examples > min(cheaper_arms.EXAMPLES)} == {last}


def test_what_an_arm_is_told_is_the_best_of_all_that_was_tried_on_the_select_half(
    measured: tuple[Asked, Arms], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, arms = measured
    tried: list[tuple[str, Setting, str]] = []
    score = cheaper_arms._scored

    def noted(asked: Asked, way: cheaper_arms.Way, setting: Setting, queries: object, which: str) -> object:
        tried.append((way.name, setting, which))
        return score(asked, way, setting, queries, which)

    monkeypatch.setattr(cheaper_arms, "_scored", noted)
    measure_arms(asked, ngrams(asked.kind, asked.models.encoder), Silent())
    for way in WAYS[asked.kind]:
        chosen = arms.chosen[way.name]
        settings = [setting for name, setting, which in tried if name == way.name and which == "select"]
        bits = {s: bits_per_byte(score(asked, way, s, asked.select, "select")) for s in settings}
        assert chosen == min(bits, key=lambda s: bits[s])
        assert [s for name, s, which in tried if name == way.name and which == "test"] == [chosen]
    assert len({s.prompt for _, s, _ in tried}) > 2


def test_the_mixture_is_never_worse_than_the_base_on_the_select_half(measured: tuple[Asked, Arms]) -> None:
    _, arms = measured
    assert bits_per_byte(half(arms, NGRAM, "select")) <= bits_per_byte(half(arms, BASE, "select"))
    assert any(arms.ngram_shares)


def test_what_is_mixed_is_what_was_fitted_on_the_select_half(
    measured: tuple[Asked, Arms], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, arms = measured
    fitted: list[int] = []

    def base_alone(base: Sequence[object], counted: Sequence[object]) -> tuple[float, ...]:
        fitted.extend((len(base), len(counted)))
        return (0.0,)

    monkeypatch.setattr(cheaper_arms, "fit_mixture", base_alone)
    mixed, shares = cheaper_arms._mixture(asked, arms.chosen[BASE], ngrams(asked.kind, asked.models.encoder))
    assert fitted == [len(asked.select)] * 2
    assert shares == (0.0,)
    expected = [r["nll"] for which in ("select", "test") for r in half(arms, BASE, which)]
    assert [r["nll"] for r in mixed] == pytest.approx(expected, rel=1e-5)


def test_the_tokens_expected_are_about_those_that_are_read(
    measured: tuple[Asked, Arms], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, arms = measured
    read: list[int] = []
    score = cheaper_arms.score_documents

    def counted(reader: PackReader, documents: Sequence[Encoded], *rest: Any) -> Any:
        read.extend(len(d.ids) for d in documents)
        return score(reader, documents, *rest)

    monkeypatch.setattr(cheaper_arms, "score_documents", counted)
    measure_arms(asked, ngrams(asked.kind, asked.models.encoder), Silent())
    query = sum(r["read"] for r in half(arms, BASE)) / len(asked.test)
    told = (half(arms, "base + examples")[0]["read"] - query) / arms.chosen["base + examples"].examples
    expected = expected_tokens(asked.kind, len(asked.select), len(asked.test), query, told)
    assert 0.5 * expected < sum(read) < 1.5 * expected


def test_questions_are_answered_in_words_by_each_arm() -> None:
    asked = asked_of("answer")
    chosen = {way.name: Setting(1, 1) for way in WAYS["answer"]}
    records = answer_arms(asked, chosen, [BASE, "base + retrieval", ADAPTED], 3)
    assert [r["arm"] for r in records] == [BASE] * 3 + ["base + retrieval"] * 3 + [ADAPTED] * 3
    assert {r["item"] for r in records} == {q.id for q in asked.test[:3]}
    by_id = {q.id: q for q in asked.test}
    assert all(r["reference"] == by_id[r["item"]].target and r["request"] == by_id[r["item"]].before for r in records)
    base, adapted = ({r["item"]: r["answer"] for r in records if r["arm"] == name} for name in (BASE, ADAPTED))
    assert base != adapted
