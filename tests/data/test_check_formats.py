"""What formats refuse, in the shapes that real sets have: exact code, line and exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier import cli
from luthier.data.check import Ask, Report, check, codes, sides

#: 118 shingles of three words, beside which a question and its answer are few.
RULES = " ".join(f"rule{n}" for n in range(120))
TOOL = {
    "type": "function",
    "function": {
        "name": "find_order",
        "description": RULES,
        "parameters": {"type": "object", "properties": {"number": {"type": "integer"}}},
    },
}


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def transcript(*said: str) -> str:
    """As in hh-rlhf: blank lines, then who speaks."""
    return "".join(f"\n\n{('Human', 'Assistant')[i % 2]}: {text}" for i, text in enumerate(said))


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, str]:
    return {"chosen": transcript(prompt, chosen), "rejected": transcript(prompt, rejected)}


PAIRS = [pair(f"What is {n}?", "A number.", f"It is {n}, a number.") for n in range(3)]
MARKED = [
    {"text": "Ada wrote to Babbage.", "spans": [{"start": 0, "end": 3, "label": "PER"}]},
    {"text": "Nothing is marked here.", "spans": []},
]
OVERLAP = [{"start": 0, "end": 9, "label": "PER"}, {"start": 4, "end": 9, "label": "ORG"}]
TAGGED = [
    {"tokens": ["EU", "rejects", "it"], "tags": ["B-ORG", "O", "O"]},
    {"tokens": ["Peter", "Blackburn"], "tags": ["B-PER", "I-PER"]},
]
CONLL = "EU B-ORG\nrejects O\n\nPeter B-PER\nBlackburn I-PER\n\n"

#: Name -> code, the file, and the line that is named (none: the whole file).
FIXTURES: dict[str, tuple[str, str, str]] = {
    "a tag that goes on with nothing, in columns": (
        "D010",
        "a.conll",
        CONLL + "the O\nDutch B-MISC\nparty I-ORG\n",
    ),
    "a tag that goes on with nothing, in lists": (
        "D010",
        "a.jsonl",
        lines(*TAGGED) + "\n" + lines({"tokens": ["the", "party"], "tags": ["O", "I-ORG"]}),
    ),
    "a tag too few": (
        "D010",
        "a.jsonl",
        lines(*TAGGED) + "\n" + lines({"tokens": ["the", "party"], "tags": ["O"]}),
    ),
    "spans over each other": (
        "D011",
        "a.jsonl",
        lines(*MARKED) + "\n" + lines({"text": "The New Guard met.", "spans": OVERLAP}),
    ),
    "a span through a word": (
        "D011",
        "a.jsonl",
        lines(*MARKED)
        + "\n"
        + lines({"text": "Ada met him.", "spans": [{"start": 0, "end": 2, "label": "PER"}]}),
    ),
    "a span beyond the text": (
        "D011",
        "a.jsonl",
        lines(*MARKED) + "\n" + lines({"text": "Ada.", "spans": [[0, 9, "PER"]]}),
    ),
    "chosen equals rejected, transcripts": (
        "D022",
        "a.jsonl",
        lines(*PAIRS) + "\n" + lines(pair("And now?", "Yes.", "Yes.")),
    ),
    "chosen equals rejected, columns": (
        "D022",
        "a.jsonl",
        lines(
            {"prompt": "One?", "chosen": "Yes.", "rejected": "Not at all."},
            {"prompt": "Two?", "chosen": "Yes!", "rejected": "By no means."},
        )
        + "\n"
        + lines({"prompt": "Three?", "chosen": "Yes.", "rejected": "Yes."}),
    ),
    "transcripts that begin otherwise": (
        "D023",
        "a.jsonl",
        lines(*PAIRS)
        + "\n"
        + lines(
            {
                "chosen": transcript("And now?", "Yes."),
                "rejected": transcript("And then?", "No."),
            }
        ),
    ),
    "transcripts that part at a question": (
        "D023",
        "a.jsonl",
        lines(*PAIRS)
        + "\n"
        + lines(
            {
                "chosen": transcript("And now?", "Yes.", "Why?", "So."),
                "rejected": transcript("And now?", "Yes.", "Who?", "No."),
            }
        ),
    ),
    "the longer answer is chosen": (
        "D090",
        "a.jsonl",
        lines(*(pair(f"What is {n}?", f"It is {n}, a number.", f"{n}.") for n in range(20))),
    ),
}


def line_of(name: str) -> str:
    """Where the faulty row begins: after the good ones and a blank line."""
    code, _, content = FIXTURES[name]
    if code == "D090":
        return ""
    before = content.rsplit("\n\n", 1)[0]
    return f":{before.count(chr(10)) + 3}"


def looked(*paths: Path) -> Report:
    found, known = sides([str(path) for path in paths])
    return check(Ask(found, known))


def found_in(report: Report, code: str) -> list[tuple[str, str]]:
    """Name and line of each place, and what is said there."""
    kept = [one for group, _ in report.findings.groups() for one in group if one.code == code]
    return [(Path(one.place).name, one.message) for one in kept]


@pytest.mark.parametrize("name", sorted(FIXTURES))
def test_every_shape_gives_its_code_at_its_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, file, content = FIXTURES[name]
    path = tmp_path / file
    path.write_text(content)
    report = looked(path)
    assert dict(report.findings.totals) == {code: 1}
    place = f"{file}{line_of(name)}"
    assert [at for at, _ in found_in(report, code)] == [place]
    severity = next(each.severity for each in codes() if each.name == code)
    assert cli.run(["data", "check", str(path)]) == (1 if severity == "error" else 0)
    assert f" {code} {tmp_path / place}  " in capsys.readouterr().out


def test_a_message_table_is_checked_as_whole_trees(tmp_path: Path) -> None:
    """One message twice says nothing; a tree twice does, at the line where it begins."""

    def message(name: str, parent: str | None, text: str, rank: int | None = None) -> Any:
        role = "assistant" if rank is not None else "prompter"
        fields = {"message_id": name, "parent_id": parent, "text": text, "role": role}
        return {**fields, "rank": rank, "lang": "en"}

    rows = [
        message("a1", "a", "Gladly, here it is.", 0),  # before its parent
        message("a", None, "Tell me of the sea."),
        message("b", None, "Tell me of the wood."),
        message("b1", "b", "Gladly, here it is.", 0),
        message("c1", "c", "Gladly, here it is.", 0),
        message("c", None, "Tell me of the sea."),
    ]
    path = tmp_path / "a.jsonl"
    path.write_text(lines(*rows))
    report = looked(path)
    assert dict(report.findings.totals) == {"D050": 1}
    assert found_in(report, "D050") == [("a.jsonl:6", "says the same as line 2")]
    (source,) = report.sources
    assert (source.rows, source.format[:5]) == (6, "oasst")
    path.write_text(lines(*rows, message("d", None, "And now?"), message("d1", "d", "", 0)))
    report = looked(path)
    assert found_in(report, "D003")[0][0] == "a.jsonl:8"  # the message's own line


def test_columns_are_checked_as_whole_sentences(tmp_path: Path) -> None:
    """Words stand again and again; a sentence twice is named where it begins."""
    path = tmp_path / "a.conll"
    path.write_text("-DOCSTART- O\n\n" + CONLL + "EU B-ORG\nagrees O\n\n" + CONLL[:18])
    report = looked(path)
    assert dict(report.findings.totals) == {"D050": 1}
    assert found_in(report, "D050") == [("a.conll:12", "says the same as line 3")]
    assert report.rows == 4


def conversation(question: str, answer: str, system: str = "", tools: Any = None) -> Any:
    turns = [("system", system)] if system else []
    turns += [("user", question), ("assistant", answer)]
    row: dict[str, Any] = {"messages": [{"role": r, "content": c} for r, c in turns]}
    return {**row, "tools": tools} if tools else row


@pytest.mark.parametrize("shared", [{"system": RULES}, {"tools": [TOOL]}])
def test_what_rows_share_does_not_make_them_alike(shared: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    sea = conversation("Where is the sea?", "It lies behind the hills.", **shared)
    wood = conversation("Who planted this wood?", "Nobody knows any more.", **shared)
    path.write_text(lines(sea, wood))
    assert dict(looked(path).findings.totals) == {}
    path.write_text(lines(sea, wood, sea))
    assert found_in(looked(path), "D050") == [("a.jsonl:3", "says the same as line 1")]


def test_an_entity_of_a_type_that_training_has_not_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.conll").write_text("in\tO\nRome\tB-LOC\n\nAnna\tB-PER\nran\tO\n")
    (tmp_path / "valid.conll").write_text("at\tO\nOslo\tB-LOC\n\nthe\tO\nBBC\tB-ORG\n")
    found = looked(tmp_path / "train.conll", tmp_path / "valid.conll")
    said = "no training row has an entity of type 'ORG'"
    assert found_in(found, "D020") == [("valid.conll:4", said)]
