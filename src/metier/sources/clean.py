"""Between reading and the split: boilerplate lines, near-duplicates and identifiers, each removal in the ledger."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from metier.sources import boilerplate
from metier.sources.closeness import closeness
from metier.sources.documents import LONG_ANSWER
from metier.sources.duplicates import Near, NearDuplicates
from metier.sources.examples import Draft, Example, Message
from metier.sources.ledger import Ledger
from metier.sources.privacy import Identifier, Masks, identifiers


@dataclass
class Findings:
    """What cleaning found, to be shown; what it removed is in the ledger.

    near       {id: (id of the earlier one, Jaccard similarity)} of plain texts, which were left out
    tied       the same for answers of conversations, which were kept and stand on one side of the split
    lines      {boilerplate line: documents that held it}
    private    {id: {kind of identifier: how many}}, whether they were reported, masked or left out
    """

    near: dict[str, tuple[str, float]] = field(default_factory=dict)
    tied: dict[str, tuple[str, float]] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    private: dict[str, dict[str, int]] = field(default_factory=dict)


def clean(
    drafts: Sequence[Draft], ledger: Ledger, privacy: str = "report", min_characters: int = 1, select: float = 1.0
) -> tuple[list[Draft], Findings]:
    """Remove what is to be removed, and say what was found.

    privacy         report: identifiers are counted; mask: each is replaced by <KIND_n>; drop: their rows are left out
    min_characters  a plain text that is shorter without its boilerplate is left out
    select          the share of the rows that stay, the closest to the field first
    """
    findings = Findings()
    kept = _without_boilerplate(drafts, ledger, min_characters, findings)
    kept = _without_near_duplicates(kept, ledger, findings)
    kept = _closest(kept, ledger, select) if select < 1 else kept
    return _private(kept, ledger, privacy, findings), findings


def _without_boilerplate(
    drafts: Sequence[Draft], ledger: Ledger, min_characters: int, findings: Findings
) -> list[Draft]:
    texts = [draft.example.text for draft in drafts if not draft.example.is_chat]
    lines = boilerplate.recurring(texts, boilerplate.candidates(texts), len(texts))
    if not lines:
        return list(drafts)
    findings.lines = lines
    for line, n in lines.items():
        ledger.removed.append({"where": f"{n} texts", "bucket": "boilerplate", "why": line})
    kept: list[Draft] = []
    for draft in drafts:
        text = boilerplate.without_lines(draft.example.text, lines)
        if text != draft.example.text:
            ledger.take_boilerplate(draft.example.id, len(draft.example.text.encode()) - len(text.encode()))
            if len(text) < max(min_characters, 1):
                ledger.drop(draft.example.id, "too_short", f"has {len(text)} characters beside boilerplate")
                continue
            draft = replace(draft, example=replace(draft.example, text=text))
        kept.append(draft)
    return kept


def _without_near_duplicates(drafts: list[Draft], ledger: Ledger, findings: Findings) -> list[Draft]:
    """Of plain texts that nearly repeat one another the first stays. Rows of conversations all stay, since templated
    questions and answers are what they are for, and those with nearly the same long answer are tied together."""
    texts = [_compared(draft.example) for draft in drafts]
    seeker = NearDuplicates()
    seeker.add(texts)
    found = seeker.find(texts.__getitem__, lambda i: drafts[i].example.is_chat)
    if not found:
        return drafts
    kept: list[Draft] = []
    anchors = {near.first for i, near in found.items() if drafts[i].example.is_chat}
    for i, draft in enumerate(drafts):
        near = found.get(i)
        if near is not None and not draft.example.is_chat:
            _drop_near(draft.example, drafts[near.first].example, near, ledger, findings)
            continue
        ties = [_tie(i)] if i in anchors else []
        if near is not None:
            findings.tied[draft.example.id] = drafts[near.first].example.id, near.jaccard
            ties.append(_tie(near.first))
        kept.append(replace(draft, shared=(*draft.shared, *ties)) if ties else draft)
    return kept


def _compared(example: Example) -> str:
    """What makes a row a near-duplicate: all of a text, a long answer."""
    if not example.is_chat:
        return example.text
    return example.learned_text if len(example.learned_text) >= LONG_ANSWER else ""


def _drop_near(example: Example, first: Example, near: Near, ledger: Ledger, findings: Findings) -> None:
    findings.near[example.id] = first.id, near.jaccard
    ledger.drop(example.id, "near_duplicate", f"nearly repeats {first.id} ({near.jaccard:.0%} of their 5-grams)")


def _tie(number: int) -> bytes:
    """What joins a row to those that repeat it, as a shared prompt would."""
    return blake2b(b"near\0%d" % number, digest_size=16).digest()


def _closest(drafts: list[Draft], ledger: Ledger, share: float) -> list[Draft]:
    weights = closeness([draft.example.learned_text for draft in drafts])
    chosen = set((-weights).argsort(kind="stable")[: max(1, round(share * len(drafts)))].tolist())
    for i, draft in enumerate(drafts):
        if i not in chosen:
            ledger.drop(draft.example.id, "not_selected", f"weighs {weights[i]:.2f} bits a word for the field")
    return [draft for i, draft in enumerate(drafts) if i in chosen]


def _private(drafts: list[Draft], ledger: Ledger, privacy: str, findings: Findings) -> list[Draft]:
    kept: list[Draft] = []
    masks: dict[str, Masks] = {}
    for draft in drafts:
        example = draft.example
        found = _identifiers(example)
        if not found:
            kept.append(draft)
            continue
        counts: Counter[str] = Counter(one.kind for part in found.values() for one in part)
        findings.private[example.id] = {**counts}
        said = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in counts.items())
        if privacy == "drop":
            ledger.drop(example.id, "private", f"holds {said}")
            continue
        if privacy == "mask":
            masked = _masked(example, found, masks.setdefault(example.document, Masks()))
            ledger.take_private(example.id, *_private_bytes(example, found), f"{said} masked")
            draft = replace(draft, example=masked)
        kept.append(draft)
    return kept


def _identifiers(example: Example) -> dict[int, list[Identifier]]:
    """{part: identifiers in it}; parts are the messages, then the rejected answer; a plain text is part 0."""
    found = {number: identifiers(text) for number, text in enumerate(_parts(example))}
    return {number: part for number, part in found.items() if part}


def _parts(example: Example) -> list[str]:
    return [*(message.content for message in example.messages), example.rejected] if example.is_chat else [example.text]


def _masked(example: Example, found: dict[int, list[Identifier]], masks: Masks) -> Example:
    parts = [masks.masked(text, found[i]) if i in found else text for i, text in enumerate(_parts(example))]
    if not example.is_chat:
        return replace(example, text=parts[0])
    messages = tuple(Message(m.role, text) for m, text in zip(example.messages, parts[:-1], strict=True))
    return replace(example, messages=messages, rejected=parts[-1])


def _private_bytes(example: Example, found: dict[int, list[Identifier]]) -> tuple[int, int]:
    """(bytes of the prompt, bytes of the learned text) that identifiers take; a preference learns both answers."""
    counts = [0, 0]
    last = len(example.messages) - 1
    for i, text in enumerate(_parts(example)):
        is_learned = not example.is_chat or i > last or example.messages[i].role == "assistant"
        if example.rejected:
            is_learned = i >= last
        counts[is_learned] += sum(len(text[one.start : one.end].encode()) for one in found.get(i, ()))
    return counts[0], counts[1]
