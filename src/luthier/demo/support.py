"""Customer support for Fern & Oak, a shop that does not exist: data for the demo.

``generate`` fills the phrases of twenty intents with slot values and returns two splits. The
held-out one is made of question phrasings and slot values that training never sees, while the
shop's answers follow from the intent and the slots alone: a model that has understood a new
question can give exactly the right answer. The same questions with their intents as labels serve
classification.

Everything hangs on the seed: equal seeds give equal files, byte for byte.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from string import Formatter

from luthier.demo import (
    phrases_account,
    phrases_faults,
    phrases_orders,
    phrases_payment,
    phrases_returns,
    phrases_shop,
)
from luthier.demo.phrases import (
    CLOSERS,
    FAREWELL,
    FOLLOW_UP_OPENERS,
    OPENERS,
    TYPOS,
    Clarification,
    Intent,
    Split,
)
from luthier.demo.slots import POOLS

INTENTS: tuple[Intent, ...] = (
    *phrases_orders.INTENTS,
    *phrases_payment.INTENTS,
    *phrases_returns.INTENTS,
    *phrases_faults.INTENTS,
    *phrases_shop.INTENTS,
    *phrases_account.INTENTS,
)

# Dialogues of each intent: (of one exchange, of two or three exchanges).
COUNTS: dict[Split, tuple[int, int]] = {"train": (102, 18), "held_out": (10, 2)}

LOWER_CASE_SHARE = 0.12
TYPO_SHARE = 0.10
# Of the longer dialogues: those where the shop has to ask back, those of them where the customer
# then asks more, and those that end in thanks. None has more than LONGEST messages.
ASK_BACK_SHARE = 0.6
FOLLOW_UP_SHARE = 0.4
FAREWELL_SHARE = 0.3
LONGEST = 6
# Far more than ever needed: where it runs out, an intent has too few phrasings for its count.
MAX_TRIES = 1000

Message = dict[str, str]


@dataclass(frozen=True)
class Dialogue:
    """One conversation with the shop.

    Args:
        messages: ``{"role", "content"}``; roles alternate, user first, assistant last.
        intent: what the first message is about.
    """

    messages: tuple[Message, ...]
    intent: str


def generate(seed: int = 0) -> tuple[list[Dialogue], list[Dialogue]]:
    """Return the training and the held-out dialogues, each in shuffled order.

    >>> train, held_out = generate()
    >>> len(train), len(held_out)
    (2400, 240)
    """
    return _split("train", seed), _split("held_out", seed)


def write(folder: Path, seed: int = 0) -> dict[str, Path]:
    """Write both splits as JSON lines: once as conversations, once as labelled questions.

    Args:
        folder: where to write; made if missing.
        seed: picks phrasings, slot values and order.

    Returns:
        The paths by name: ``train``, ``test`` (rows ``{"messages"}``), ``intents_train`` and
        ``intents_test`` (rows ``{"text", "label"}``).
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    for name, dialogues in zip(("train", "test"), generate(seed), strict=True):
        paths[name] = folder / f"support-{name}.jsonl"
        paths[f"intents_{name}"] = folder / f"support-intents-{name}.jsonl"
        write_rows(paths[name], [{"messages": list(d.messages)} for d in dialogues])
        labelled = [{"text": d.messages[0]["content"], "label": d.intent} for d in dialogues]
        write_rows(paths[f"intents_{name}"], labelled)
    return paths


def slots_in(template: str) -> frozenset[str]:
    """Return the names of the slots of a template, without articles.

    >>> sorted(slots_in("Order {order} has {a_product}."))
    ['order', 'product']
    """
    fields = (field for _, field, _, _ in Formatter().parse(template) if field)
    return frozenset(field.removeprefix("a_") for field in fields)


def answer_for(intent: Intent, slots: frozenset[str]) -> str:
    """Return the one answer of an intent that has exactly these slots."""
    (answer,) = (answer for answer in intent.answers if slots_in(answer) == slots)
    return answer


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as JSON lines."""
    # newline="\n" keeps the bytes the same on every system.
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _split(split: Split, seed: int) -> list[Dialogue]:
    # A generator for each split: changing the size of one leaves the other as it was.
    rng = Random(f"{split}-{seed}")
    seen: set[str] = set()
    dialogues = [d for intent in INTENTS for d in _dialogues(intent, split, rng, seen)]
    rng.shuffle(dialogues)
    return dialogues


def _dialogues(intent: Intent, split: Split, rng: Random, seen: set[str]) -> list[Dialogue]:
    """Return the dialogues of one intent, none of which begins with a question seen before."""
    single, multi = COUNTS[split]
    # In turn, so that each phrasing is used about as often as any other.
    questions = list(intent.questions.of(split))
    rng.shuffle(questions)
    dialogues = []
    for number in range(single + multi):
        exchange = _exchange if number < single else _long_dialogue
        for _ in range(MAX_TRIES):
            texts = exchange(intent, questions[number % len(questions)], split, rng)
            key = _key(texts[0])
            if key not in seen:
                break
        else:
            raise AssertionError(f"{intent.name} has too few phrasings for {single + multi}")
        seen.add(key)
        dialogues.append(_dialogue(texts, intent))
    return dialogues


def _key(question: str) -> str:
    """Return what makes a question another one: its words, not its case or punctuation."""
    return " ".join(re.findall(r"\w+", question.lower()))


def _dialogue(texts: list[str], intent: Intent) -> Dialogue:
    """Give the texts their roles in turn."""
    roles = ("user", "assistant")
    messages = tuple({"role": roles[i % 2], "content": text} for i, text in enumerate(texts))
    return Dialogue(messages, intent.name)


def _exchange(intent: Intent, template: str, split: Split, rng: Random) -> list[str]:
    """Return one question and its answer."""
    values = _values(slots_in(template), split, rng)
    answer = answer_for(intent, slots_in(template))
    return [_styled(template, rng).format_map(values), answer.format_map(values)]


def _long_dialogue(intent: Intent, template: str, split: Split, rng: Random) -> list[str]:
    """Return two or three exchanges: the shop asks back, or the customer asks more, or both."""
    asks_back = intent.clarification is not None and rng.random() < ASK_BACK_SHARE
    if intent.clarification is not None and asks_back:
        texts = _clarified(intent, intent.clarification, split, rng)
    else:
        texts = _exchange(intent, template, split, rng)
    if not asks_back or rng.random() < FOLLOW_UP_SHARE:
        follow_up = rng.choice(intent.follow_ups)
        question = rng.choice(follow_up.questions.of(split))
        texts += [f"{rng.choice(FOLLOW_UP_OPENERS)} {question}".strip(), follow_up.answer]
    if len(texts) < LONGEST and rng.random() < FAREWELL_SHARE:
        texts += [rng.choice(FAREWELL.questions.of(split)), FAREWELL.answer]
    return texts


def _clarified(
    intent: Intent, clarification: Clarification, split: Split, rng: Random
) -> list[str]:
    """Return a question that says too little, the shop's, the customer's reply, the answer."""
    vague = _styled(rng.choice(clarification.vague.of(split)), rng)
    give = rng.choice(clarification.give.of(split))
    values = _values(slots_in(give), split, rng)
    answer = answer_for(intent, slots_in(give))
    return [vague, clarification.ask, give.format_map(values), answer.format_map(values)]


def _values(slots: frozenset[str], split: Split, rng: Random) -> dict[str, str]:
    """Draw a value for each slot, and the same value with its article."""
    values: dict[str, str] = {}
    for slot in sorted(slots):  # sorted: the order of a set changes with the hash seed
        value = rng.choice(POOLS[slot].of(split))
        values[slot] = value
        values[f"a_{slot}"] = f"{'an' if value[0].lower() in 'aeiou' else 'a'} {value}"
    return values


def _styled(template: str, rng: Random) -> str:
    """Return a question as a customer might type it: greeted, closed, in a hurry, misspelt.

    Works on the template, before its slots are filled, so that no slot value is ever changed.
    """
    opener, closer = rng.choice(OPENERS), rng.choice(CLOSERS)
    if opener and not re.match(r"I\b|\{", template):
        template = template[0].lower() + template[1:]
    text = " ".join(part for part in (opener, template, closer) if part)
    style = rng.random()
    if style < LOWER_CASE_SHARE:
        return text.lower().rstrip(".?!")
    if style < LOWER_CASE_SHARE + TYPO_SHARE:
        return _misspelt(text, rng)
    return text


def _misspelt(text: str, rng: Random) -> str:
    """Return the text with one of its words misspelt, if it has one that people misspell."""
    # A brace on the left marks the name of a slot.
    words = [word for word in TYPOS if re.search(rf"(?<!\{{)\b{word}\b", text)]
    if not words:
        return text
    word = rng.choice(words)
    return re.sub(rf"(?<!\{{)\b{word}\b", TYPOS[word], text, count=1)
