"""Leaks: planted ones of every kind are found, all of them, and texts of one field are not leaks of each other."""

import json
import random

import pytest

from metier.errors import DataError
from metier.sources import general
from metier.sources.examples import Example, Message
from metier.sources.leaks import LeakIndex, Measured, benchmark_items, find_leaks, general_items
from shared import texts_of

VOCABULARY = [f"word{n}" for n in range(5000)]


def prose(seed, n_words=120):
    return " ".join(random.Random(seed).choices(VOCABULARY, k=n_words))


def text(name, content):
    return Example(name, "a.jsonl", 1, name, text=content)


def chat(name, question, answer):
    return Example(name, "a.jsonl", 1, name, messages=(Message("user", question), Message("assistant", answer)))


FIELD = [text(f"t{n}", prose(n)) for n in range(200)]


def test_held_out_texts_that_stand_in_training_text_are_found_all_of_them():
    held_out = [text(f"h{n}", prose(1000 + n)) for n in range(60)]
    planted = {}
    for n, example in enumerate(held_out[:30]):
        words = example.text.split()
        part = " ".join(words[n : n + 70]).upper().replace(" ", ", ")  # seven twelfths of it, otherwise written
        planted[example.id] = text(f"p{n}", f"{prose(2000 + n, 300)} {part} {prose(3000 + n, 40)}")
    leaks = find_leaks([*FIELD, *planted.values()], held_out)
    assert {leak.id: leak.where for leak in leaks.held_out} == {i: e.id for i, e in planted.items()}
    assert not leaks.general
    assert leaks.measured["held_out"] == 60


def test_an_answer_that_is_trained_elsewhere_leaks_and_a_short_one_does_not():
    answer = prose(7, 30)
    held_out = [chat("h1", "What is it?", answer), chat("h2", "Is it so?", "Yes, it is.")]
    train = [chat("t1", "Tell me about that.", f"{answer} And more."), chat("t2", "Is that right?", "Yes, it is.")]
    assert [leak.id for leak in find_leaks(train, held_out).held_out] == ["h1"]


@pytest.mark.parametrize("part", ["texts", "requests", "answers", "choices"])
def test_every_item_of_the_general_pack_that_is_put_into_training_is_found(part):
    if part == "texts":
        planted = {t.id: text(t.id, f"{prose(1, 20)}\n{t.text}") for t in general.texts()}
    elif part == "requests":
        planted = {r.id: chat(r.id, r.request.upper(), "I do not know.") for r in general.measured_requests()}
    elif part == "answers":
        long = [r for r in general.measured_requests() if len(r.answer.split()) >= 20]
        planted = {r.id: chat(r.id, "Well?", r.answer) for r in long}
    else:
        planted = {c.id: chat(c.id, c.question, "I do not know.") for c in general.choices()}
    leaks = find_leaks([*FIELD, *planted.values()], FIELD[:0])
    assert planted
    assert planted.keys() <= {leak.id for leak in leaks.general}


def test_what_is_replayed_is_looked_for_in_the_general_pack():
    request = general.measured_requests()[4]
    leaks = find_leaks(FIELD, [], replay=[("Say something.", "Something."), (request.request, "An answer.")])
    assert [(leak.id, leak.slice) for leak in leaks.replay] == [(request.id, "chat")]
    assert leaks.general == []


def test_the_requests_of_replay_and_of_measurement_never_meet():
    index = LeakIndex(general_items())
    for request in general.replay_requests():
        index.read([request], [request])
    assert index.leaks() == []


def test_the_rows_of_a_benchmark_are_found_whatever_their_fields_are_called(tmp_path):
    rows = [
        {"stem": f"{prose(9000 + n, 25)}?", "choices": ["one", "none of these at all"], "key": 1} for n in range(20)
    ]
    path = tmp_path / "exam.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    train = [*FIELD, chat("t", str(rows[3]["stem"]), "none of these at all"), text("u", f"So {rows[5]['stem']} Yes.")]
    leaks = find_leaks(train, [], benchmark=[str(path)])
    assert [leak.id for leak in leaks.benchmarks] == [f"{path}:4", f"{path}:6"]
    assert leaks.measured["benchmarks"] == 20
    assert leaks.as_json()["benchmarks"]["listed"][0] == {"item": f"{path}:4", "share": 1.0, "where": "t"}


def test_a_benchmark_that_is_not_there_is_refused():
    with pytest.raises(
        DataError, match=r"nowhere\.jsonl is no benchmark that can be read \(No such file .*\): name a file of rows"
    ):
        benchmark_items("nowhere.jsonl")


def test_half_of_the_words_is_the_bound_and_the_largest_share_is_named():
    words = prose(9, 200).split()
    for n_shared, expected in ((98, []), (102, [("m", 0.51)])):
        index = LeakIndex([Measured("m", "s", (" ".join(words),))])
        index.read([" ".join(words[:n_shared])], ["t"])
        assert [(leak.id, leak.share) for leak in index.leaks()] == expected


def test_in_portions_the_same_leaks_are_found():
    held_out = [text(f"h{n}", prose(n)) for n in range(0, 40, 4)]
    whole = LeakIndex([Measured(e.id, "field", (e.text,)) for e in held_out])
    whole.read([e.text for e in FIELD], [e.id for e in FIELD])
    portions = LeakIndex([Measured(e.id, "field", (e.text,)) for e in held_out])
    for example in FIELD:
        portions.read([example.text], [example.id])
    assert whole.leaks() == portions.leaks()
    assert len(whole.leaks()) == 10


@pytest.mark.parametrize(("corpus", "most"), [("law-corpus-dccode", 0.08), ("med-corpus-plos", 0.0)])
def test_documents_of_one_field_are_seldom_leaks_of_each_other(corpus, most):
    texts = [text(f"d{n}", content) for n, content in enumerate(texts_of(corpus))]
    held_out, train = texts[::10], [e for n, e in enumerate(texts) if n % 10]
    assert len(find_leaks(train, held_out).held_out) <= most * len(held_out)
