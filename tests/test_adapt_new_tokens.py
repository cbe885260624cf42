"""New tokens through the main path: what is saved scores what was measured, and the base is measured without them."""

import json
from pathlib import Path

import pytest

from metier.adapt import adapt
from metier.errors import DataError
from metier.prove import prove
from metier.runs import read_jsonl
from small import OPTIONS, small_pack
from tiny import save_tiny

TERMS = ("phenotype", "answer number", "the")


@pytest.mark.parametrize("method", ["lora", "tokens"])
def test_a_run_with_new_tokens_is_saved_proved_and_talks(method: str, tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model", tie_word_embeddings=True)
    rows, terms = tmp_path / "rows.jsonl", tmp_path / "terms.txt"
    pairs = [(f"What is the {i}. term?", f"The phenotype {i} is an answer number {i}.") for i in range(60)]
    rows.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in pairs), encoding="utf-8")
    terms.write_text("\n".join(TERMS), encoding="utf-8")
    with small_pack():
        options = {**OPTIONS, "lr": 3e-2, "model": str(model)}
        run = adapt(str(rows), out=tmp_path / "run", method=method, new_tokens=(str(terms),), **options)
        plain = adapt(str(rows), out=tmp_path / "plain", **{**options, "tokens": 500})
        assert run.settings.new_tokens == TERMS
        assert run.results["gain"]["diff"] > 0
        assert run.results["model"]["weights_moved"] > 0
        base, adapted = (list(read_jsonl(run.path / "evidence" / f"scores-{arm}.jsonl")) for arm in ("base", "adapted"))
        known = {(r["slice"], r["item"]): r for r in read_jsonl(plain.path / "evidence" / "scores-base.jsonl")}
        for r in base:
            alone = known[(r["slice"], r["item"])]
            assert (r["bytes"], r["tokens"]) == (alone["bytes"], alone["tokens"])
            assert r["nll"] == pytest.approx(alone["nll"], rel=1e-4)
        assert [r["bytes"] for r in adapted] == [r["bytes"] for r in base]
        assert sum(r["tokens"] for r in adapted) < sum(r["tokens"] for r in base)
        held_out = tmp_path / "held_out.jsonl"
        held_out.write_text("".join(rows.read_text(encoding="utf-8").splitlines(True)[:8]), encoding="utf-8")
        proved = prove(str(model), str(held_out), adapter=run.folder.adapter, out=tmp_path / "proved", minutes=0.1)
        assert proved.results["gain"]["diff"] > 0
        talker = run.model()
        assert talker.generate("What is the 3. term?", 8) != talker.generate("What is the 3. term?", 8, adapted=False)


def test_preferences_cannot_be_learned_in_tokens_that_the_base_lacks(tmp_path: Path) -> None:
    model, rows = save_tiny(tmp_path / "model"), tmp_path / "pairs.jsonl"
    pairs = [{"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": f"No {i}."} for i in range(40)]
    rows.write_text("".join(json.dumps(p) + "\n" for p in pairs), encoding="utf-8")
    with pytest.raises(DataError, match="leave out --new-tokens"):
        adapt(str(rows), model=str(model), out=tmp_path / "run", new_tokens=("phenotype",), **OPTIONS)
