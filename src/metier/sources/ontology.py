"""Definitions from an ontology in OBO format (the clinical pack)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

PHENOTYPIC_ABNORMALITY = "HP:0000118"
ALL = "HP:0000001"
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
ESCAPE = re.compile(r"\\(.)")
WHITE_ESCAPES = {"n": " ", "t": " ", "W": " "}
BRANCH_WORDS = re.compile(r"^Abnormal(?:ity)? (?:of )?(?:the )?", re.IGNORECASE)


@dataclass
class Term:
    id: str = ""
    name: str = ""
    definition: str = ""
    is_obsolete: bool = False
    parents: list[str] = field(default_factory=list)


def definition_rows(obo: bytes) -> Iterator[dict[str, Any]]:
    """{"term", "definition", "document", "group"} of every term that is defined and not obsolete.

    group  the branch of phenotypes the term belongs to ("Nervous system"), the first by id when it is in several;
           for the rest the root it is under ("Mode of inheritance")
    """
    terms = {term.id: term for term in read_terms(obo.decode("utf-8"))}
    for term in terms.values():
        if term.definition and not term.is_obsolete:
            yield {
                "term": term.name,
                "definition": term.definition,
                "document": term.id,
                "group": branch(term.id, terms),
            }


def read_terms(obo: str) -> Iterator[Term]:
    """The [Term] stanzas of an OBO file; cross-references are left out and escapes undone."""
    for stanza in obo.replace("\r\n", "\n").split("\n[Term]\n")[1:]:
        term = Term()
        # The last [Term] may be followed by stanzas of other kinds.
        for line in stanza.partition("\n[")[0].splitlines():
            tag, _, value = line.partition(": ")
            if tag == "id":
                term.id = value.strip()
            elif tag == "name":
                term.name = _unescaped(value)
            elif tag == "def" and (match := QUOTED.match(value)):
                term.definition = _unescaped(match[1])
            elif tag == "is_a":
                term.parents.append(value.split()[0])
            elif tag == "is_obsolete":
                term.is_obsolete = value.strip() == "true"
        yield term


def branch(term_id: str, terms: dict[str, Term]) -> str:
    """The short name of the top-level branch of a term."""
    above, waiting = set(), [term_id]
    while waiting:
        one = waiting.pop()
        if one in terms and one not in above:
            above.add(one)
            waiting += terms[one].parents
    phenotypes = sorted(one for one in above if PHENOTYPIC_ABNORMALITY in terms[one].parents)
    if phenotypes:
        name = BRANCH_WORDS.sub("", terms[phenotypes[0]].name)
        return name[:1].upper() + name[1:]
    roots = sorted(one for one in above if ALL in terms[one].parents)
    return terms[roots[0]].name if roots else ""


def _unescaped(text: str) -> str:
    return " ".join(ESCAPE.sub(lambda match: WHITE_ESCAPES.get(match[1], match[1]), text).split())
