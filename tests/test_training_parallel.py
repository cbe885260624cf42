"""Two processes train, score and save what one does; what goes wrong on one of them is told once, with its number."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed import HashStore

import on_ranks
from metier.adapt import adapt
from metier.cli.terminal import complain
from metier.errors import RankError
from metier.models.machine import usable_cores
from metier.models.packing import divide, packs_of
from metier.progress import Silent
from metier.ranks import Rank, this_rank
from metier.runs import RunFolder, StepLog, read_jsonl, write_json
from metier.training import parallel, sharding
from metier.training.stream import Step
from on_ranks import launch
from tiny import documents, save_tiny

RANK_1_OF_3 = {"RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "3"}
OPTIONS: dict[str, Any] = {"tokens": 3000, "minutes": 0.1, "step_tokens": 500, "pack_tokens": 250, "threads": 1}


def as_rank(monkeypatch: pytest.MonkeyPatch, number: int = 1) -> HashStore:
    """The environment of torchrun, and a store that stands for its own."""
    store = HashStore()
    for name, value in {**RANK_1_OF_3, "RANK": str(number), "TORCHELASTIC_RUN_ID": "test"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(parallel, "_store", lambda: store)
    monkeypatch.setattr(parallel, "GRACE_S", 0.3)
    return store


# Alone


@pytest.mark.parametrize("environment", [RANK_1_OF_3, {}])
def test_without_torchrun_a_process_is_alone_whatever_else_is_set(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert this_rank() == Rank(0, 1, 0, 1)
    parallel.join(1.0)
    assert not torch.distributed.is_initialized()
    assert parallel.n_ranks() == 1


def test_alone_every_sum_and_division_is_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "all_reduce", None)
    values = torch.tensor([1.0, 2.0])
    assert parallel.sum_over_ranks(values) is values
    assert parallel.from_all("mine") == ["mine"]
    assert not parallel.any_rank(False)
    assert parallel.own_part([3, 1, 2]) == [0, 1, 2]
    rows = documents(21, 7, 16, 11, 5)
    own = parallel.own_packs(rows, 32)
    assert [p.items for _, p in own] == [p.items for p in packs_of(rows, 32)]
    assert [group for group, _ in own] == list(divide(rows, 32))


# Division


def test_documents_are_divided_longest_first_to_the_part_that_has_least() -> None:
    sizes = [3, 9, 4, 4, 8, 2]
    assert parallel.divided(sizes, 2) == [[1, 3, 5], [0, 2, 4]]
    assert parallel.divided([5], 3) == [[0], [], []]


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 7])
def test_every_rank_gets_as_many_packs_and_every_document_is_in_one(n_ranks: int) -> None:
    sizes = [(37 * i) % 90 + 10 for i in range(40)]
    rows = documents(*sizes)
    parts = parallel.groups_by_rank(rows, n_ranks, 128)
    assert len({len(groups) for groups in parts}) == 1
    assert sorted(d.item for groups in parts for group in groups for d in group) == sorted(d.item for d in rows)
    loads = [sum(len(d.ids) for group in groups for d in group) for groups in parts]
    assert max(loads) - min(loads) <= max(sizes)
    assert max(loads) <= 1.1 * sum(sizes) / n_ranks
    assert all(sum(len(d.ids) for d in group) <= 128 for groups in parts for group in groups)


def test_a_rank_without_a_document_has_an_empty_pack_where_others_have_one() -> None:
    long, *short = documents(300, 20, 20)
    assert parallel.groups_by_rank([long, *short], 2, 64) == [[[long]], [short]]
    assert parallel.groups_by_rank([long], 2, 64) == [[[long]], [[]]]


def test_more_ranks_than_rows_or_than_documents_in_any_step_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "n_ranks", lambda: 4)
    rows = documents(5, 5, 5)
    with pytest.raises(RankError, match=r"4 ranks for 3 rows to train on: start 3 at most"):
        parallel.require_rows(3, 0)
    parallel.require_rows(4, 0)
    with pytest.raises(RankError, match="2 of the rows are preferences"):
        parallel.require_rows(4, 2)
    with pytest.raises(RankError, match=r"4 ranks, and steps of 3 documents at most: start 3 at most"):
        parallel.require_documents([Step(tuple(rows[:2]), {"field": 10}, 0), Step(tuple(rows), {"field": 15}, 0)])
    parallel.require_documents([Step((*rows, *rows), {"field": 30}, 0)])


def test_the_cores_of_a_node_are_divided_among_its_ranks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert usable_cores(tmp_path) == 8
    as_rank(monkeypatch)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as torchrun sets it
    assert usable_cores(tmp_path) == 2


# Who writes and who speaks


def test_only_the_first_rank_writes_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    as_rank(monkeypatch)
    run = RunFolder(tmp_path / "run")
    run.create()
    run.set_status("running")
    write_json(tmp_path / "x.json", 1)
    log = StepLog(tmp_path / "metrics.jsonl", 7)
    log.write(step=1)
    log.close()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("RANK", "0")
    write_json(tmp_path / "x.json", 1)
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_an_error_that_all_ranks_find_is_told_by_the_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = as_rank(monkeypatch, 0)
    complain("no data.")
    assert capsys.readouterr().err == "metier: no data.\n"
    for number in (1, 2):
        monkeypatch.setenv("RANK", str(number))
        complain("no data.")
    assert capsys.readouterr().err == ""
    assert store.get("metier/told") == b"rank 0: no data."


def test_an_error_of_one_rank_is_told_by_it_with_its_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_rank(monkeypatch, 1)
    complain("the disk is full.")
    assert capsys.readouterr().err == "metier: rank 1: the disk is full.\n"


BROKEN = {
    "Timed out waiting 6000ms for recv": "did not answer in time (--rank-timeout)",
    "Connection closed by peer": "ended without a word",
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_broken_sum_names_the_rank_that_is_missing(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    as_rank(monkeypatch, 0).set(f"{parallel.WAITING}1", "")
    with pytest.raises(RankError) as failure, parallel.naming_the_missing():
        raise RuntimeError(f"[gloo/transport/tcp/pair.cc:1] {reason}")
    assert str(failure.value).startswith(f"rank 2 {BROKEN[reason]}: ")


def test_a_broken_sum_repeats_what_another_rank_has_told(monkeypatch: pytest.MonkeyPatch) -> None:
    as_rank(monkeypatch, 0).set(parallel.TOLD, "rank 2: the disk is full.")
    with pytest.raises(RankError, match=r"^rank 2: the disk is full\.$"), parallel.naming_the_missing():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:1] Connection closed by peer")


def test_errors_that_are_no_broken_sum_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), parallel.naming_the_missing():
        raise RuntimeError("shapes differ")


def test_a_rank_with_other_data_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "n_ranks", lambda: 3)
    monkeypatch.setattr(parallel, "from_all", lambda own: [own, own, "other"])
    with pytest.raises(RankError, match=r"rank 2 has data other than rank 0: give every node the same files"):
        parallel.require_alike("data", ["a", "b"])
    monkeypatch.setattr(parallel, "from_all", lambda own: [own] * 3)
    parallel.require_alike("data", ["a", "b"])


# Two processes


@pytest.fixture(scope="module")
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, Any]]:
    """What each of two ranks found, job by job."""
    return on_ranks.results(2, folder)


@pytest.fixture(scope="module")
def one(folder: Path, two: object, _one_thread: None) -> dict[str, Any]:
    """What one process finds; it goes on from where two have stopped."""
    del two
    return {name: job(folder) for name, job in on_ranks.JOBS.items() if name != "stopping"}


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_two_ranks_have_the_losses_the_norms_and_the_weights_of_one(
    sharding: str, one: dict[str, Any], two: list[dict[str, Any]]
) -> None:
    """Also at the last step, whose one document leaves the second rank without any."""
    alone = one["training"]["none"]
    for rank in two:
        found = rank["training"][sharding]
        assert found["losses"] == pytest.approx(alone["losses"], rel=1e-5)
        assert found["norms"] == pytest.approx(alone["norms"], rel=1e-5)
        assert found["supervised"] == alone["supervised"]
        for name, values in alone["weights"].items():
            assert found["weights"][name] == pytest.approx(values, rel=1e-4, abs=1e-5), name
    assert two[0]["training"][sharding]["weights"] == two[1]["training"][sharding]["weights"]


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_the_first_rank_writes_down_the_losses_of_the_rows_of_all(sharding: str, one: object, folder: Path) -> None:
    del one
    found, expected = (list(read_jsonl(folder / run / "rows.jsonl")) for run in (f"run-{sharding}-2", "run-none-1"))
    assert [r["step"] for r in found] == [r["step"] for r in expected] == [1, 2, 3, 4]
    for line, other in zip(found, expected, strict=True):
        rows, others = sorted(line["rows"]), sorted(other["rows"])
        assert [r[:3] for r in rows] == [r[:3] for r in others]
        assert [r[3] for r in rows] == pytest.approx([r[3] for r in others], rel=1e-4)


def test_fsdp_holds_a_part_of_the_layers_while_it_trains_and_all_of_them_afterwards(two: list[dict[str, Any]]) -> None:
    held = [rank["training"]["fsdp"]["held"] for rank in two]
    whole = two[0]["training"]["none"]["held"]
    for during, after in held:
        assert after == whole[0] == whole[1]
        assert during < 0.8 * after  # embedding and head, half of this model, are not divided
    assert sum(during for during, _ in held) < 1.6 * whole[0]


def test_two_ranks_score_and_answer_exactly_as_one(one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    for rank in two:
        assert rank["scoring"]["scored"] == one["scoring"]["scored"]
        assert rank["scoring"]["answers"] == one["scoring"]["answers"]
    read = [rank["scoring"]["advanced"] / 2 for rank in two]
    assert sum(read) == one["scoring"]["advanced"]
    assert max(read) < 0.6 * sum(read)


@pytest.mark.parametrize("saved", ["none", "fsdp"])
def test_a_run_of_two_ranks_goes_on_in_one_and_in_two_sharded_or_not(
    saved: str, one: dict[str, Any], two: list[dict[str, Any]], folder: Path
) -> None:
    expected = one["training"]["none"]["weights"]
    assert [p.name for p in (folder / f"stopped-{saved}" / "checkpoints").iterdir() if p.name != "step-000000"] == [
        "step-000002"
    ]
    runs = [one["going on"][f"{saved} into none"]]
    runs += [rank["going on"][f"{saved} into {sharding}"] for rank in two for sharding in ("none", "fsdp")]
    for found in runs:
        assert found["steps"] == [3, 4]
        for name, values in expected.items():
            assert found["weights"][name] == pytest.approx(values, rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_ranks_choose_the_rate_that_the_first_finds_best_and_it_is_that_of_one(
    sharding: str, one: dict[str, Any], two: list[dict[str, Any]]
) -> None:
    alone, first, last = one["rates"]["none"], *(found["rates"][sharding] for found in two)
    assert first["chosen"] == last["chosen"] == alone["chosen"] == on_ranks.RATE
    assert first["judged"] == last["judged"] == pytest.approx(alone["judged"], rel=1e-4)
    assert first["weights"] == last["weights"]
    for name, values in alone["weights"].items():
        assert first["weights"][name] == pytest.approx(values, abs=1e-4)


def test_a_number_of_one_rank_that_is_not_finite_rolls_all_back_alike(two: list[dict[str, Any]]) -> None:
    first, second = (rank["failing"] for rank in two)
    assert first["once"] == second["once"]
    (rollback,) = first["once"]["rollbacks"]
    assert rollback[1] == 0
    assert first["once"]["steps"][-4:] == [1, 2, 3, 4]
    assert first["always"] == second["always"]
    assert "has loss nan" in first["always"]


def test_memory_that_runs_out_on_one_rank_halves_the_packs_of_all(
    one: dict[str, Any], two: list[dict[str, Any]]
) -> None:
    first, second = (rank["failing"]["memory"] for rank in two)
    assert first == second
    assert first["pack_tokens"] < on_ranks.PACK_TOKENS
    assert first["said"][0].startswith("memory ran out at step 1: packs of 16 tokens")
    assert first["losses"] == pytest.approx(one["training"]["none"]["losses"], rel=1e-5)


# The whole command


@pytest.fixture(scope="module")
def rows(folder: Path) -> Path:
    path = folder / "terms.jsonl"
    pairs = [(f"What is the {i}. term?", f"The term {i} is « the answer number {i} ».") for i in range(58)]
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in pairs), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def arguments(folder: Path, rows: Path) -> list[str | Path]:
    given = [str(part) for name, value in OPTIONS.items() for part in ("--" + name.replace("_", "-"), value)]
    return ["metier", "adapt", rows, "--model", save_tiny(folder / "model"), *given]


@pytest.fixture(scope="module")
def commands(folder: Path, arguments: list[str | Path]) -> on_ranks.Launched:
    """Two runs of the command, one after the other, in the same two ranks."""
    none, fsdp = ([*arguments, "--out", folder / f"with-{how}", "--sharding", how] for how in ("none", "fsdp"))
    return launch(2, *none, "then", *fsdp, METIER_CACHE=str(folder / "cache of two"))


@pytest.fixture(scope="module")
def alone(folder: Path, rows: Path, commands: object, _one_thread: None) -> Path:
    del commands
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METIER_CACHE", str(folder / "cache of one"))
        on_ranks.small_pack(patch)
        adapt(str(rows), model=str(folder / "model"), out=folder / "alone", progress=Silent(), **OPTIONS)
    return folder / "alone"


@pytest.mark.parametrize("name", ["with-none", "with-fsdp"])
def test_the_command_on_two_ranks_leaves_the_run_folder_of_one(
    name: str, commands: on_ranks.Launched, alone: Path, folder: Path
) -> None:
    assert commands.code == 0, commands.err
    run = folder / name
    missing = {p.relative_to(alone) for p in alone.rglob("*")} - {p.relative_to(run) for p in run.rglob("*")}
    # A model in parts has no dial while it trains.
    of_the_dial = {Path("evidence") / f"{name}.jsonl" for name in ("dial", "trajectory", "trained")}
    assert missing == (of_the_dial if name == "with-fsdp" else set())
    assert not {p.relative_to(run) for p in run.rglob("*")} - {p.relative_to(alone) for p in alone.rglob("*")}
    for file in ("ledger.json", "splits.json", "evidence/answers-base.jsonl", "evidence/scores-base.jsonl"):
        assert (run / file).read_bytes() == (alone / file).read_bytes(), file
    for file, values in (
        ("metrics.jsonl", ("loss", "grad_norm", "tokens")),
        ("evidence/scores-adapted.jsonl", ("nll",)),
    ):
        found, expected = (list(read_jsonl(path / file)) for path in (run, alone))
        assert len(found) == len(expected) > 5
        for value in values:
            assert [r[value] for r in found] == pytest.approx([r[value] for r in expected], rel=1e-5), file


def test_only_the_first_rank_prints_and_draws_progress(commands: on_ranks.Launched) -> None:
    assert commands.out.count("What moved") == 2
    assert commands.err.count("training …") == 2
    assert commands.complaints == []


def test_a_fault_of_one_rank_ends_all_with_its_sentence(arguments: list[str | Path], folder: Path) -> None:
    done = launch(2, *arguments, "--out", folder / "faulty", HINDER="fail", METIER_CACHE=str(folder / "cache"))
    assert done.complaints == [
        "metier: rank 1: failed unexpectedly (ValueError: the second rank has a fault): METIER_DEBUG=1 shows where."
    ]
    assert done.code != 0
    assert 1 in done.exit_codes


@pytest.mark.slow
def test_a_mistake_of_the_user_is_told_once_and_every_rank_that_ends_by_itself_ends_with_2(folder: Path) -> None:
    done = launch(2, "metier", "adapt", folder / "nowhere.jsonl", "--out", folder / "mistaken")
    assert len(done.complaints) == 1
    assert "nowhere.jsonl does not exist" in done.complaints[0]
    assert 2 in done.exit_codes <= {2, -15}


@pytest.mark.slow
def test_more_ranks_than_documents_in_a_step_ends_with_2(arguments: list[str | Path], folder: Path) -> None:
    small = ["--step-tokens", "50", "--pack-tokens", "50", "--out", folder / "many"]
    done = launch(3, *arguments, *small, METIER_CACHE=str(folder / "cache"))
    (line,) = done.complaints
    assert "3 ranks, and steps of 1 documents at most" in line
    assert 2 in done.exit_codes <= {2, -15}
    assert not (folder / "many").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "happened"), [("hang", "did not answer in time (--rank-timeout)"), ("die", "ended without a word")]
)
def test_a_rank_that_hangs_or_dies_is_named(
    kind: str, happened: str, arguments: list[str | Path], folder: Path
) -> None:
    run = folder / kind
    limit = ["--rank-timeout", "8", "--out", run]
    done = launch(2, *arguments, *limit, HINDER=kind, METIER_CACHE=str(folder / "cache"))
    (line,) = done.complaints
    assert line.startswith(f"metier: rank 1 {happened}: ")
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "failed"
    assert "rank 1" in status["reason"]


@pytest.mark.slow
def test_a_signal_that_reaches_one_rank_stops_all_after_the_same_step_and_the_run_goes_on(
    arguments: list[str | Path], alone: Path, folder: Path
) -> None:
    run = folder / "interrupted"
    done = launch(2, *arguments, "--out", run, HINDER="interrupt", METIER_CACHE=str(folder / "cache"))
    (line,) = done.complaints
    assert "holds everything up to step 3, and the adapter as it was then" in line
    assert len(list(read_jsonl(run / "metrics.jsonl"))) == 3
    assert json.loads((run / "status.json").read_text())["state"] == "interrupted"
    assert 130 in done.exit_codes <= {130, -15}
    again = launch(2, "metier", "adapt", "--resume", run, METIER_CACHE=str(folder / "cache"))
    assert again.code == 0, again.err
    found, expected = (list(read_jsonl(path / "metrics.jsonl")) for path in (run, alone))
    assert [r["step"] for r in found] == [r["step"] for r in expected]
    assert [r["loss"] for r in found] == pytest.approx([r["loss"] for r in expected], rel=1e-5)


@pytest.mark.parametrize(
    ("limit", "expected"), [(1, [1, 1, 1, 1]), (100, [1, 1, 1, 1]), (240, [2, 1, 1]), (10**9, [4])]
)
def test_layers_are_gathered_with_their_neighbours_up_to_a_size(
    limit: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharding, "UNIT_BYTES", limit)
    layers = [nn.Linear(5, 6, bias=False) for _ in range(3)] + [nn.Linear(50, 60)]
    units = sharding._of_size(layers)
    assert [len(unit) for unit in units] == expected
    assert [layer for unit in units for layer in unit] == layers
