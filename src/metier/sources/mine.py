"""Tasks and terms mined from plain English text by patterns, without a teacher model.

After AdaptLLM (arXiv 2309.09530): a text that is only read lowers how well a model answers, and tasks made from the
same text give that back. Patterns and wording are our own. One document in, its tasks out; none depends on another.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from metier.sources.examples import Example, Message

Task = tuple[str, str]  # what is asked, what is answered

CHARACTERS_PER_TASK = 2500  # of a document, for each kind of task; the mined text stays a fraction of it
KEYWORDS = 4
SHORTEST, LONGEST = 8, 40  # words of a sentence that is used
MIN_STOP_WORDS = 0.15  # of the words, in English prose
# fmt: off
STOP_WORDS = frozenset({
    "the", "of", "and", "to", "in", "a", "is", "that", "it", "for", "as", "with", "was", "on", "are", "be", "by",
    "this", "or", "from", "at", "an", "which", "not", "have", "has", "but", "were", "can", "their", "its", "also",
    "they", "these", "when", "if", "will", "may", "more", "than", "other", "such", "been", "into", "there", "one",
    "all", "you", "we", "he", "she", "so", "only", "most",
})
# fmt: on
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
PARAGRAPH = re.compile(r"\n\s*\n")
SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bcf\.)(?<!\bvs\.)(?<!\bal\.)(?<!\bDr\.)(?<!\bFig\.)\s+(?=[A-Z“\"])"
)
WORD = re.compile(r"[^\W\d_][\w'’-]*")
PART_OF_WORD = re.compile(r"\w+")  # a hyphen parts the words that an acronym is made of
HEADING = re.compile(
    r"#{0,6}\s*(?:(?:chapter|section|appendix)\s+)?(?:[\dA-Z]{1,2}(?:\.\d+)*\.?\s+)?(.{3,80})", re.IGNORECASE
)
DEFINITION = re.compile(
    r"(?:The term |An? |The )?((?:[A-Za-z][\w/-]*)(?: [\w/-]+){0,4}?)(?:,? \(([A-Z][A-Za-z0-9-]{1,9})\),?)?"
    r" (is an?|is the|is defined as|refers to|means|denotes|describes) \w.*"
)
# fmt: off
NO_TERM = frozenset({
    "it", "this", "that", "these", "those", "there", "here", "he", "she", "they", "we", "you", "i", "one", "what",
    "which", "who", "such", "another", "each", "both", "some", "many", "most", "all", "any", "none", "nothing",
    "everything", "something", "someone", "anyone", "but", "and", "or", "if", "when", "while", "because", "so",
    "then", "also", "not", "result", "example", "note", "reason", "difference", "following", "first", "second",
    "last", "next", "same", "other", "goal", "purpose", "idea", "point",
})
# fmt: on
ASKED = re.compile(r"What (?:is \(are\)|is|are) (?:an? |the )?([^\s?]+(?: [^\s?]+){0,5}) ?\?")
ACRONYM = re.compile(r"((?:[A-Za-z][\w-]*[ -]){1,7}[A-Za-z][\w-]*) \(([A-Z][A-Za-z]*[A-Z])s?\)")
FOLLOWS = re.compile(r"(?:Therefore|Thus|Hence|Consequently|Accordingly|As a result|For this reason),? (.+)")
AGAINST = re.compile(r"(?:However|Nevertheless|Nonetheless|In contrast|By contrast|On the contrary|Conversely),? (.+)")
CAUSE = re.compile(r"(?!(?:This|That|These|It|They|He|She|If|But|And)\b)(.+?),? because (?!of\b)(.+)[.!]")


@dataclass(frozen=True)
class Term:
    """A term and what a document says it means, or what an acronym stands for."""

    term: str
    definition: str
    document: str


def mined_tasks(examples: Sequence[Example]) -> list[Example]:
    """The tasks of all plain texts, each as a question and its answer, in the order of the texts."""
    return [task for example in examples if not example.is_chat for task in tasks_of(example)]


def tasks_of(example: Example) -> list[Example]:
    """Tasks of every kind that one text gives, each at most once in CHARACTERS_PER_TASK; none if it is not English."""
    text = FENCE.sub("", example.text)
    if not is_english(text):
        return []
    rng = random.Random(example.id)
    most = max(1, len(text) // CHARACTERS_PER_TASK)
    sentences = sentences_of(text)
    found: list[tuple[str, Task]] = []
    for kind, mine in KINDS.items():
        tasks = list(mine(text, sentences, rng))
        found += [(kind, task) for task in rng.sample(tasks, min(most, len(tasks)))]
    return [
        replace(
            example,
            id=f"mined:{example.id}/{kind}/{i + 1}",
            group=f"mined {kind}",
            text="",
            messages=(Message("user", asked), Message("assistant", answered)),
        )
        for i, (kind, (asked, answered)) in enumerate(found)
    ]


def mined_terms(examples: Sequence[Example]) -> list[Term]:
    """The terms that texts define, acronyms that they resolve, and what is asked for by "What is …?"; each term once,
    as first met."""
    found: dict[str, Term] = {}
    for example in examples:
        for term, definition in _terms_of(example):
            found.setdefault(term.lower(), Term(term, definition, example.document))
    return list(found.values())


def _terms_of(example: Example) -> Iterator[tuple[str, str]]:
    if not example.is_chat:
        sentences = sentences_of(FENCE.sub("", example.text))
        yield from definitions_of(sentences)
        yield from acronyms_of(sentences)
    elif len(example.messages) == 2 and (match := ASKED.fullmatch(example.prompt_text)):
        yield match[1], example.learned_text


def is_english(text: str) -> bool:
    """By the share of its commonest words; the patterns below are of no use in another language."""
    words = [word.lower() for word in WORD.findall(text)]
    return len(words) >= SHORTEST and sum(word in STOP_WORDS for word in words) >= MIN_STOP_WORDS * len(words)


def sentences_of(text: str) -> list[list[str]]:
    """The sentences of each paragraph of prose, those of a usable length, in order."""
    paragraphs = []
    for paragraph in PARAGRAPH.split(text):
        sentences = [" ".join(s.split()) for s in SENTENCE_END.split(paragraph.strip())]
        usable = [s for s in sentences if s[-1:] in ".!?" and SHORTEST <= len(s.split()) <= LONGEST and s[0].isupper()]
        if usable:
            paragraphs.append(usable)
    return paragraphs


def definitions_of(paragraphs: Sequence[Sequence[str]]) -> Iterator[tuple[str, str]]:
    """(term, the sentence that says what it is)"""
    for sentence in (s for paragraph in paragraphs for s in paragraph):
        match = DEFINITION.fullmatch(sentence)
        if match is None:
            continue
        term = match[1]
        words = [word.lower() for word in term.split()]
        loose = sentence.startswith("The ") and len(words) == 1  # "The value is a list": of this text alone
        if len(term) > 2 and not loose and not any(word in NO_TERM or word in STOP_WORDS for word in words):
            yield term, sentence


def acronyms_of(paragraphs: Sequence[Sequence[str]]) -> Iterator[tuple[str, str]]:
    """(acronym, what it stands for): as many words before the bracket as it has letters, with these initials."""
    for sentence in (s for paragraph in paragraphs for s in paragraph):
        for match in ACRONYM.finditer(sentence):
            words = list(PART_OF_WORD.finditer(match[1]))[-len(match[2]) :]
            if "".join(word[0][0] for word in words).lower() == match[2].lower():
                yield match[2], match[1][words[0].start() :]


def _titles(text: str, sentences: Sequence[Sequence[str]], rng: random.Random) -> Iterator[Task]:
    first, _, rest = text.strip().partition("\n")
    match = HEADING.fullmatch(first.strip())
    if match and sentences and rest.startswith("\n") and first.strip()[-1] not in ".!?:;,":
        opening = " ".join(sentences[0][:4])
        yield (
            rng.choice(("Find a title for this text.", "What is the subject of this text?")) + f"\n\n{opening}",
            match[1],
        )


def _definitions(text: str, sentences: Sequence[Sequence[str]], rng: random.Random) -> Iterator[Task]:
    del text
    for term, sentence in definitions_of(sentences):
        yield rng.choice((f"What is meant by {term}?", f"Define {term}.", f"Explain the term {term}.")), sentence
    for acronym, long_form in acronyms_of(sentences):
        yield f"What does {acronym} stand for?", f"{acronym} stands for {long_form}."


def _keywords(text: str, sentences: Sequence[Sequence[str]], rng: random.Random) -> Iterator[Task]:
    counts = Counter(word.lower() for word in WORD.findall(text))
    for sentence in (s for paragraph in sentences for s in paragraph):
        words = {w.lower(): w for w in WORD.findall(sentence) if len(w) > 3 and w.lower() not in STOP_WORDS}
        rarest = sorted(words, key=lambda w: (counts[w], w))[:KEYWORDS]
        if len(rarest) == KEYWORDS:
            rng.shuffle(rarest)
            yield f"Write one sentence with these words: {', '.join(words[w] for w in rarest)}.", sentence


def _completions(text: str, sentences: Sequence[Sequence[str]], rng: random.Random) -> Iterator[Task]:
    del text
    for paragraph in sentences:
        if len(paragraph) >= 3:
            cut = rng.randrange(2, len(paragraph))
            yield f"How does this text go on?\n\n{' '.join(paragraph[max(0, cut - 3) : cut])}", paragraph[cut]


def _connections(text: str, sentences: Sequence[Sequence[str]], rng: random.Random) -> Iterator[Task]:
    """Whether the second of two neighbouring sentences follows from the first or stands against it, as its connective
    says."""
    del text, rng
    for paragraph in sentences:
        for first, second in pairwise(paragraph):
            for pattern, answer in ((FOLLOWS, "It follows from it."), (AGAINST, "It stands against it.")):
                if match := pattern.fullmatch(second):
                    said = match[1][0].upper() + match[1][1:]
                    yield (
                        f"1. {first}\n2. {said}\n\nDoes the second statement follow from the first, or does it stand "
                        "against it?",
                        answer,
                    )


def _causes(text: str, sentences: Sequence[Sequence[str]], rng: random.Random) -> Iterator[Task]:
    del text, rng
    for sentence in (s for paragraph in sentences for s in paragraph):
        if match := CAUSE.fullmatch(sentence):
            yield f"{match[1]}. What is the reason?", f"Because {match[2]}."


KINDS: dict[str, Callable[[str, Sequence[Sequence[str]], random.Random], Iterator[Task]]] = {
    "title": _titles,
    "definition": _definitions,
    "keywords": _keywords,
    "completion": _completions,
    "connection": _connections,
    "cause": _causes,
}
