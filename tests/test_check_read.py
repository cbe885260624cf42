"""What the base model says of rows: whether a question makes its answer easier."""

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from metier.check import advice
from metier.check.read import difficulty
from metier.models.encoding import Encoder
from metier.models.load import load_base
from metier.models.packing import PackReader
from metier.sources.examples import Example, Message
from tiny import save_tiny

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_base(str(save_tiny(tmp_path_factory.mktemp("tiny"))))


def row(name: str, *turns: tuple[str, str], **more: Any) -> Example:
    return Example(name, "t.jsonl", 1, name, messages=tuple(Message(r, t) for r, t in turns), **more)  # type: ignore[arg-type]


ONE = row("one", ("system", "Be brief."), ("user", "What is a valve?"), ("assistant", "A part that closes a pipe."))


def plain_nats(base: Any, example: Example) -> float:
    """Of the answer, from the full logits of the model itself."""
    encoder: Encoder = base.encoder
    [document] = encoder.encode(example)
    ids = torch.tensor(document.ids)
    with torch.no_grad():
        logits = base.model(input_ids=ids[None]).logits[0]
    wanted = torch.tensor([i for i, kind in enumerate(document.loss) if i and kind == 1])
    return float(cross_entropy(logits[wanted - 1].double(), ids[wanted], reduction="sum"))


def test_difficulty_is_the_nats_of_the_answer_over_those_without_the_question(base: Any) -> None:
    found = difficulty(PackReader(base.model), base.encoder, [ONE])
    bare = row("bare", ("system", "Be brief."), ("user", ""), ("assistant", "A part that closes a pipe."))
    ratio = plain_nats(base, ONE) / plain_nats(base, bare)
    assert ratio != 1
    assert (found["looked_at"], found["median"]) == (1, round(ratio, 3))
    assert found["no_easier"] == ([{"id": "one", "ratio": round(ratio, 3)}] if ratio >= 1 else [])


def test_only_rows_of_one_question_and_one_answer_have_a_difficulty(base: Any) -> None:
    rows = [
        Example("text", "t.txt", 1, "text", text="A valve closes a pipe."),
        row("bare", ("assistant", "A valve closes a pipe.")),
        row("more", ("user", "A?"), ("assistant", "B."), ("user", "C?"), ("assistant", "D.")),
        row("pair", ("user", "A?"), ("assistant", "B."), rejected="C."),
    ]
    assert difficulty(PackReader(base.model), base.encoder, rows)["looked_at"] == 0
    assert difficulty(PackReader(base.model), base.encoder, [*rows, ONE])["looked_at"] == 1


@pytest.mark.parametrize(("n", "severity"), [(0, None), (30, "minor"), (31, "serious")])
def test_answers_that_their_questions_do_not_make_easier_are_named_and_serious_where_they_are_many(
    n: int, severity: str | None
) -> None:
    no_easier = [{"id": f"t:{i}", "ratio": 1.5 - i / 100} for i in range(n)]
    read = {
        "model": "tiny",
        "never_end": 0,
        "surprise": {"looked_at": 100, "low": [], "high": []},
        "difficulty": {"looked_at": 100, "median": 0.9, "no_easier": no_easier},
    }
    found = list(advice.about_reading(read))
    assert [warning["severity"] for warning in found] == ([severity] if severity else [])
    if severity:
        assert found[0]["problem"].startswith(f"{n} of 100 answers are no easier to the model with their question")
        assert "(first: t:0, 1.5 times the nats)" in found[0]["problem"]
