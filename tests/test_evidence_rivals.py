"""Rivals take equal steps by the same loop; their texts are what they are said to be."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metier.errors import DataError
from metier.evidence.full.rivals import (
    Steps,
    body_parameters,
    scratch_model,
    share_of,
    shuffled_words,
    train_rival,
    wrong_field,
)
from metier.models.encoding import Encoder
from metier.models.methods import add_method
from metier.models.packing import PackReader
from metier.settings import Settings
from metier.sources import general
from metier.sources.examples import Example, Message
from metier.training.mix import Beside
from metier.training.stream import FIELD, MINED, OWN_GENERAL, REPLAY
from tiny import document, random_ids, tiny_model, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [Example(f"t{i}", "f", 1, f"t{i}", text=f"The answer number {i} is on the other one. " * 3) for i in range(8)]
CHAT = Example("c", "f", 1, "c", messages=(Message("system", "Be kind, be brief."), Message("user", "a b c d e f?")))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(tiny_tokenizer(), 128)


def steps(n: int = 6, lr: float = 1e-2, **shares: float) -> Steps:
    """shares: of what is beside the field, by the names of its parts."""
    every = {MINED: 0.0, OWN_GENERAL: 0.0, REPLAY: 0.0} | shares
    return Steps(n, 100, lr, every, Settings(data=("f",), pack_tokens=64))


def test_a_rival_takes_as_many_steps_as_it_is_told_and_learns(encoder: Encoder) -> None:
    reader = PackReader(add_method(tiny_model(), "lora", r=4, alpha=8, seed=0))
    seen: list[float] = []
    trained = train_rival(reader, TEXTS, encoder.encode, Beside(), steps(), lambda metrics: seen.append(metrics.loss))
    assert trained.n_steps == len(seen) == 6
    assert trained.n_tokens == pytest.approx(600, abs=60)
    assert seen[-1] < seen[0] - 0.1


def test_a_rival_is_trained_the_same_every_time(encoder: Encoder) -> None:
    losses: list[list[float]] = [[], []]
    for seen in losses:
        reader = PackReader(add_method(tiny_model(), "lora", r=4, alpha=8, seed=0))
        train_rival(reader, TEXTS, encoder.encode, Beside(), steps(3), lambda m, seen=seen: seen.append(m.loss))
    assert losses[0] == losses[1]


def test_replay_has_its_share(encoder: Encoder) -> None:
    reader = PackReader(add_method(tiny_model(), "lora", r=4, alpha=8, seed=0))
    replay = [document(random_ids(10, 1), "replay:1")]
    trained = train_rival(reader, TEXTS, encoder.encode, Beside(written=replay), steps(**{REPLAY: 0.25}))
    assert trained.n_replay_tokens / trained.n_tokens == pytest.approx(0.25, abs=0.06)
    none = train_rival(reader, TEXTS, encoder.encode, Beside(), steps(1, **{REPLAY: 0.25}))
    assert none.n_replay_tokens == 0


def test_what_is_beside_the_field_has_its_share(encoder: Encoder) -> None:
    """Tasks, the user's own general text, and replay."""
    reader = PackReader(add_method(tiny_model(), "lora", r=4, alpha=8, seed=0))
    tasks, talks = (
        [Example(name, "f", 1, "t0", text="The answer is on the other one.")] for name in ("mined:t0/cause/1", "talk")
    )
    beside = Beside(tasks, talks, [document(random_ids(10, 1), "replay:1")])
    planned = steps(**{MINED: 0.2, OWN_GENERAL: 0.2, REPLAY: 0.2})
    trained = train_rival(reader, TEXTS, encoder.encode, beside, planned)
    shares = {name: n / trained.n_tokens for name, n in trained.tokens_of_part.items()}
    assert shares == pytest.approx({FIELD: 0.4, MINED: 0.2, OWN_GENERAL: 0.2, REPLAY: 0.2}, abs=0.06)
    without = train_rival(reader, TEXTS, encoder.encode, replace(beside, mined=()), planned)
    assert set(without.tokens_of_part) == {FIELD, OWN_GENERAL, REPLAY}


def test_a_rival_keeps_to_the_mix_of_the_run(encoder: Encoder, tmp_path: Path) -> None:
    reader = PackReader(add_method(tiny_model(), "lora", r=4, alpha=8, seed=0))
    names = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    for name in names:
        Path(name).touch()
    examples = [replace(e, source=Path(names[i % 2]).name) for i, e in enumerate(TEXTS)]
    mix = Settings(data=tuple(names), mix=(f"{names[0]}=3", f"{names[1]}=1"), pack_tokens=64)
    trained = train_rival(reader, examples, encoder.encode, Beside(), replace(steps(12), settings=mix))
    assert trained.tokens_of_part[names[0]] / trained.n_tokens == pytest.approx(0.75, abs=0.06)


def test_a_rival_without_text_is_refused(encoder: Encoder) -> None:
    reader = PackReader(add_method(tiny_model(), "lora", r=4, alpha=8, seed=0))
    with pytest.raises(DataError, match="no text"):
        train_rival(reader, [], encoder.encode, Beside(), steps())


def test_the_same_words_come_in_another_order() -> None:
    found = shuffled_words([*TEXTS, CHAT], 0)
    assert [e.id for e in found] == [e.id for e in (*TEXTS, CHAT)]
    for before, after in zip(TEXTS, found, strict=False):
        assert Counter(before.text.split()) == Counter(after.text.split())
        assert before.text.split() != after.text.split()
    system, asked = found[-1].messages
    assert system == CHAT.messages[0]
    assert asked.role == "user"
    assert sorted(asked.content.split()) == sorted(CHAT.messages[1].content.split())
    assert asked.content != CHAT.messages[1].content
    assert shuffled_words(TEXTS, 0) == found[:-1]
    assert shuffled_words(TEXTS, 1) != found[:-1]


def test_the_wrong_field_is_another_pack_that_is_there_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "security.jsonl"
    path.write_text('{"question": "What is CWE-1?", "answer": "A weakness.", "document": "CWE-1"}\n' * 2)
    monkeypatch.setattr("metier.evidence.full.rivals.cached_pack", lambda name: path if name == "security" else None)
    monkeypatch.setattr("metier.sources.find.pack_path", {"security": path}.__getitem__)
    said, rows = wrong_field(["pack:clinical"], as_chat=True)
    assert said == "text of another field (software weaknesses)"
    assert rows[0].is_chat
    _, texts = wrong_field(["pack:clinical"], as_chat=False)
    assert (texts[0].is_chat, texts[0].text) == (False, "A weakness.")
    assert wrong_field(["pack:security"], as_chat=True)[0] == "general questions and answers"


def test_without_another_pack_the_general_pack_is_the_wrong_field() -> None:
    said, rows = wrong_field(["notes.txt"], as_chat=False)
    assert (said, rows) == ("general text", list(general.texts()))
    said, rows = wrong_field(["notes.txt"], as_chat=True)
    assert said == "general questions and answers"
    assert [m.role for m in rows[0].messages] == ["user", "assistant"]


def test_smaller_shares_are_parts_of_larger_ones() -> None:
    quarter, half, whole = (share_of(TEXTS, share, 0) for share in (0.25, 0.5, 1))
    assert (len(quarter), len(half), len(whole)) == (2, 4, 8)
    assert quarter == half[:2] == whole[:2]
    assert len(share_of(TEXTS, 0.0001, 0)) == 1
    assert share_of(TEXTS, 1, 1) != whole


def test_a_model_from_scratch_has_the_architecture_and_none_of_the_weights(encoder: Encoder) -> None:
    base = tiny_model()
    torch.manual_seed(9)
    model, again, other = scratch_model(base, 3), scratch_model(base, 3), scratch_model(base, 4)
    weights = dict(model.named_parameters())
    assert {n: p.shape for n, p in base.named_parameters()} == {n: p.shape for n, p in weights.items()}
    assert all(torch.equal(p, weights[n]) for n, p in again.named_parameters())
    assert not torch.equal(model.get_input_embeddings().weight, base.get_input_embeddings().weight)
    assert not torch.equal(model.get_input_embeddings().weight, other.get_input_embeddings().weight)
    assert all(p.requires_grad for p in weights.values())
    before = {n: p.detach().clone() for n, p in weights.items()}
    train_rival(PackReader(model), TEXTS, encoder.encode, Beside(), steps(2, lr=1e-3))
    assert all(not torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_the_body_of_a_model_is_what_is_neither_embedding_nor_head() -> None:
    model = tiny_model()
    outside = model.get_input_embeddings().weight.numel() + model.get_output_embeddings().weight.numel()
    assert body_parameters(model) == model.num_parameters() - outside
    tied = tiny_model(tie_word_embeddings=True)
    assert body_parameters(tied) == tied.num_parameters() - tied.get_input_embeddings().weight.numel()
