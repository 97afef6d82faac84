"""A shop's answers compared: a rater by rules, and pairs of answers that it ranks.

The rater likes answers that are polite, short and complete. Every conversation of
:mod:`luthier.demo.support` gives one pair: two of the answers below to its last question, the one
with the higher rating chosen. What makes an answer worse is worded otherwise in the held-out
split, so that a reward model is asked for more than the phrases it saw.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from luthier.demo.phrases import Split
from luthier.demo.support import Dialogue, generate, write_rows

COURTESIES = ("please", "sorry", "thank", "welcome", "glad", "of course", "no problem", "happy")
RUDE: Mapping[Split, tuple[str, ...]] = {
    "train": (
        "As everybody knows:",
        "Listen, I do not have all day.",
        "That is in the terms, which you should have read.",
        "Not this question again.",
    ),
    "held_out": ("You could have found this yourself.", "Are you serious?"),
}
FILLERS: Mapping[Split, tuple[str, ...]] = {
    "train": (
        "At Fern & Oak we have always believed that every question deserves an answer, whatever "
        "the weather and whatever the day of the week may be.",
        "As you may know, our shop has been in the same street for many years, and many people "
        "have walked past its windows in that time.",
        "It goes without saying that all of this is meant in general, and that in particular "
        "cases it may always be a little different.",
    ),
    "held_out": (
        "Before I forget it, let me say once more how much we enjoy the many letters that reach "
        "us, of which there are more in winter than in summer.",
        "Then again, one could write whole books about this, and somebody may well have done so "
        "without our having heard of it.",
    ),
}
#: Words up to which an answer is short, and from which it is long.
SHORT, LONG = 50, 100
#: Ratings closer than this are no preference.
LEAST = 0.1


def rating(answer: str, right: str) -> float:
    """What the rater gives an answer: the sum of its three marks, 0 to 3.

    Args:
        answer: what is rated.
        right: an answer that says everything.

    >>> rating("Please write to us.", "Please write to us.")
    3.0
    """
    return polite(answer) + short(answer) + complete(answer, right)


def polite(answer: str) -> float:
    """1 with a courtesy and without rudeness, 0 with rudeness, one half with neither."""
    if any(phrase in answer for phrases in RUDE.values() for phrase in phrases):
        return 0.0
    return 1.0 if any(word in answer.lower() for word in COURTESIES) else 0.5


def short(answer: str) -> float:
    """1 up to :data:`SHORT` words, falling to 0 at :data:`LONG`."""
    return min(1.0, max(0.0, (LONG - len(answer.split())) / (LONG - SHORT)))


def complete(answer: str, right: str) -> float:
    """Share of the right answer's words that are said."""
    wanted = _words(right)
    return len(wanted & _words(answer)) / len(wanted)


def versions(right: str, other: str, split: Split, rng: Random) -> list[str]:
    """The right answer and four worse ones: rude, halved, long-winded, to another question."""
    sentences = re.split(r"(?<=[.?!]) ", right)
    bare = [s for s in sentences if polite(s) < 1] or sentences
    half = sentences[: max(1, len(sentences) // 2)]
    return [
        right,
        " ".join([rng.choice(RUDE[split]), *bare]),
        " ".join(half) if len(half) < len(sentences) else " ".join(right.split()[:6]),
        " ".join([right, *rng.sample(FILLERS[split], 2)]),
        other,
    ]


def pair(dialogue: Dialogue, other: str, split: Split, rng: Random) -> Mapping[str, object]:
    """Two answers to a conversation's last question, with what one is rated above the other."""
    *prompt, last = dialogue.messages
    right = last["content"]
    rated = [(rating(text, right), text) for text in versions(right, other, split, rng)]
    rng.shuffle(rated)
    drawn = rated[:2] if abs(rated[0][0] - rated[1][0]) >= LEAST else rated
    better, worse = max(drawn), min(drawn)
    return {
        "prompt": prompt,
        "chosen": better[1],
        "rejected": worse[1],
        "margin": round(better[0] - worse[0], 3),
    }


def pairs(seed: int = 0) -> tuple[list[Mapping[str, object]], list[Mapping[str, object]]]:
    """Training and held-out pairs, one a conversation.

    >>> train, held_out = pairs()
    >>> len(train), len(held_out)
    (2400, 240)
    """
    train, held_out = generate(seed)
    return _pairs(train, "train", seed), _pairs(held_out, "held_out", seed)


def write(folder: Path, seed: int = 0) -> dict[str, Path]:
    """Write both splits as JSON lines ``{"prompt", "chosen", "rejected", "margin"}``.

    Returns:
        The paths by name: ``train`` and ``test``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"support-preferences-{name}.jsonl" for name in ("train", "test")}
    for path, rows in zip(paths.values(), pairs(seed), strict=True):
        write_rows(path, rows)
    return paths


def _pairs(dialogues: Sequence[Dialogue], split: Split, seed: int) -> list[Mapping[str, object]]:
    rng = Random(f"preferences-{split}-{seed}")
    made = []
    for dialogue in dialogues:
        others = [d for d in rng.sample(dialogues, 8) if d.intent != dialogue.intent]
        made.append(pair(dialogue, others[0].messages[-1]["content"], split, rng))
    return made


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
