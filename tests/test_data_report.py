"""``data report``: figures on small invented data, and a page that escapes, masks and says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_runs import TINY, sums

from luthier import cli
from luthier.core import recipe as recipes
from luthier.core.errors import RecipeError
from luthier.core.records import (
    Conversation,
    Labelled,
    Origin,
    Ranking,
    Record,
    SourceTarget,
    Tagged,
    Text,
    Thumb,
    Turn,
)
from luthier.data_report import page, report
from luthier.data_report.figures import Labels, Numbers
from luthier.data_report.shares import groups, labels, script, scripts
from luthier.data_report.texts import Texts, quoted
from luthier.data_report.worst import worst
from luthier.inspection import inspect

TEXTS = Texts(["rows.jsonl"])
SECTIONS = ("Lengths", "Labels", "Scripts", "Groups", "Rows that stand out")
TRAIN = [
    ("it rains again", "wet", "north"),
    ("a wet and windy day", "wet", "north"),
    ("the river is full", "wet", "south"),
    ("dust on the road", "dry", ""),
    ("sand in the shoes", "dry", "north"),
    ("a rainbow", "<b>odd</b>", "<i>west</i>"),
]
VALID = [("a storm", "wet", "south"), ("no cloud at all", "dry", "south")]


def origin(line: int) -> Origin:
    return Origin("rows.jsonl", line)


def table(path: Path, rows: list[tuple[str, str, str]]) -> str:
    path.write_text("text,label,shop\n" + "".join(f"{','.join(row)}\n" for row in rows))
    return str(path)


def classified(folder: Path, **changes: Any) -> recipes.Recipe:
    data = {
        "train": table(folder / "train.csv", TRAIN),
        "validation": table(folder / "valid.csv", VALID),
    }
    plain = {"model": "builtin:nano", "objective": "classification", "data": data}
    return recipes.validate({**plain, **changes})


def answered(folder: Path, rows: list[Any], **data: Any) -> recipes.Recipe:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return recipes.validate(
        {"model": TINY, "data": {"train": str(path), "validation": 0.2, **data}}
    )


def section(html: str, title: str) -> str:
    return html.split(f"<h2>{title}</h2>")[1].split("</section>")[0]


def test_labels_are_counted_on_each_side(tmp_path: Path) -> None:
    found = report(classified(tmp_path))
    assert isinstance(found.labels, Labels)
    assert [(x.name, x.train, x.held, x.share) for x in found.labels.labels] == [
        ("wet", 3, 1, 4 / 8),
        ("dry", 2, 1, 3 / 8),
        ("<b>odd</b>", 1, 0, 1 / 8),
    ]
    assert found.labels.ratio == 4
    assert found.labels.single
    assert [x.lacks for x in found.labels.lacking] == ["none to measure with"]
    assert (found.rows, found.errors) == (8, 0)
    html = section(page(found), "Labels")
    assert "“wet”, is in 50.0 % of them" in html
    assert "3 classes in 8 rows" in html
    assert "&lt;b&gt;odd&lt;/b&gt; (none to measure with)" in html


def test_groups_are_those_of_the_named_column(tmp_path: Path) -> None:
    found = report(classified(tmp_path), group="shop").groups
    assert found is not None
    assert [(g.name, g.rows, g.held, g.share) for g in found.groups] == [
        ("north", 3, 0, 3 / 8),
        ("south", 3, 2, 3 / 8),
        ("", 1, 0, 1 / 8),
        ("<i>west</i>", 1, 0, 1 / 8),
    ]
    assert found.groups[0].labels == (("wet", 2 / 3), ("dry", 1 / 3))
    assert found.gap is None  # no group has rows enough
    with pytest.raises(RecipeError, match="no row has a column 'shops'") as error:
        report(classified(tmp_path), group="shops")
    assert error.value.faults[0].cure == "did you mean 'shop'?"


def test_the_largest_gap_between_groups_and_their_mean_length() -> None:
    rows: list[tuple[Record, bool]] = [
        (Labelled(origin(n), f"text {n}", "yes" if n % 40 < share else "no"), False)
        for n, share in [*((n, 30) for n in range(40)), *((40 + n, 10) for n in range(40))]
    ]
    values = {f"rows.jsonl:{n}": "a" if n < 40 else "b" for n in range(80)}
    found = groups(rows, "who", values, {"rows.jsonl:0": 10, "rows.jsonl:1": 20})
    assert [(g.name, g.mean) for g in found.groups] == [("a", 15.0), ("b", None)]
    assert found.gap is not None
    assert found.gap.high[1] - found.gap.low[1] == 0.5
    assert {found.gap.high[0], found.gap.low[0]} == {"a", "b"}
    many = {f"rows.jsonl:{n}": f"v{n}" for n in range(80)}
    assert groups(rows, "who", many, {}).more == 40


def test_lengths_are_those_that_inspect_measures(tmp_path: Path) -> None:
    rows = [*sums(), *({"prompt": f"Say {n}", "response": "so " * 200} for n in range(4))]
    recipe = answered(tmp_path, rows, max_length=43, overlong="drop")
    (inspected,) = inspect(recipe, everything=True)
    found = report(recipe)
    assert inspected.validation is not None
    sides = zip(found.lengths, (inspected.train, inspected.validation), strict=True)
    for one, side in sides:
        assert sum(each.count for each in one.bins) == one.rows == side.records
        assert (one.tokens, one.longest) == (side.lengths.sum(), side.lengths[-1])
        assert (one.targets, one.lost) == (side.targets, side.cut.targets)
        assert one.over == sum(each.count for each in one.bins if each.low > 43)
        assert one.cost == side.cost("drop", 43)
    assert sum(one.over for one in found.lengths) == 4
    assert sum(one.lost for one in found.lengths) > 4 * 100
    html = section(page(found), "Lengths")
    assert "dropped" in html
    assert 'class="over"' in html
    assert f"of {found.lengths[0].targets:,} learned tokens (" in html


def test_scripts_are_told_by_letters() -> None:
    texts = ["Hello", "Привет, Bob", "東京都 x", "1 + 1", "Hola, ¿qué tal?", "สวัสดี", "שלום"]
    rows: list[tuple[Record, bool]] = [(Text(origin(n), t), False) for n, t in enumerate(texts)]
    found = {each.name: (each.rows, each.first.place) for each in scripts(rows, TEXTS)}
    assert found == {
        "Latin": (2, "rows.jsonl:0"),
        "Cyrillic": (1, "rows.jsonl:1"),
        "Han": (1, "rows.jsonl:2"),
        "no letters": (1, "rows.jsonl:3"),
        "Thai": (1, "rows.jsonl:5"),
        "Hebrew": (1, "rows.jsonl:6"),
    }
    assert script("ひらがな") == "Hiragana"
    assert script("αβγ µm") == "Greek"
    assert script("ｶﾅ Ａ ª 𝐀𝐁𝐂 ーー") == "Katakana"


def test_numbers_and_tags_are_no_classes() -> None:
    given: list[str | float] = [0.5, "2.5", "4.0"]
    numbers: list[tuple[Record, bool]] = [
        (Labelled(origin(n), "a", value), False) for n, value in enumerate(given)
    ]
    assert labels(numbers) == Numbers(3, 0.5, 2.5, 4.0)
    tagged: list[tuple[Record, bool]] = [
        (Tagged(origin(1), ("A", "b", "C"), ("B-PER", "I-PER", "B-ORG")), False),
        (Tagged(origin(2), ("a",), ("O",)), False),
        (Tagged(origin(3), ("D",), ("B-PER",)), True),
    ]
    found = labels(tagged)
    assert isinstance(found, Labels)
    assert [(x.name, x.train, x.held, x.share) for x in found.labels] == [
        ("PER", 1, 1, 2 / 3),
        ("ORG", 1, 0, 1 / 3),
    ]
    assert not found.single
    assert labels([(Text(origin(1), "a"), False)]) is None
    several = labels([(Labelled(origin(1), "a", ("x", "y")), False)])
    assert isinstance(several, Labels)
    assert (len(several.labels), several.single) == (2, False)


def test_the_rows_that_stand_out() -> None:
    def said(line: int, question: str, answer: str) -> Record:
        return Conversation(origin(line), (Turn("user", question), Turn("assistant", answer)))

    records = [
        said(1, "One?", "Not today."),
        said(2, "Two?", "A rather long answer."),
        said(3, "Two?", "not  today."),
        SourceTarget(origin(4), "Three?", "No"),
        said(5, "Four?", "Not today."),
    ]
    sizes = {f"rows.jsonl:{n}": 10 * n for n in range(1, 6)}
    codes = {"rows.jsonl:2": ["D080"], "rows.jsonl:9": ["D003", "D080", "D003"]}
    longest, shortest, repeated, faulty = worst(records, sizes, codes, TEXTS)
    assert [(r.place, r.figure) for r in longest.rows][:2] == [
        ("rows.jsonl:5", "50 tokens"),
        ("rows.jsonl:4", "40 tokens"),
    ]
    assert (shortest.rows[0].figure, shortest.rows[0].text) == ("2 characters", "“No” to: Three?")
    (often,) = repeated.rows
    assert (often.place, often.figure) == ("rows.jsonl:1", "3 rows, 3 prompts")
    assert [(r.place, r.figure) for r in faulty.rows] == [
        ("rows.jsonl:9", "D003 (2 times), D080"),
        ("rows.jsonl:2", "D080"),
    ]
    asked = (Turn("user", "Which?"),)
    best = (Turn("assistant", "This."),), (Turn("assistant", "x"),)
    ranked = Ranking(origin(6), asked, best)
    liked = Thumb(origin(7), asked, best[0], good=True)
    _, shortest, repeated, _ = worst([ranked, liked], {}, {}, TEXTS)
    assert [r.figure for r in (*shortest.rows, *repeated.rows)] == [
        "5 characters",
        "5 characters",
        "2 rows, 1 prompt",
    ]
    nothing = worst([Labelled(origin(1), "a", "b")], {}, {}, TEXTS)
    assert [(kind.rows, bool(kind.nothing)) for kind in nothing] == [((), True)] * 4


def test_duplicates_are_shown_with_their_text(tmp_path: Path) -> None:
    found = report(answered(tmp_path, [*sums(), sums()[3]], validation=0))
    (same,) = found.alike
    assert (same.code, same.total) == ("D050", 1)
    (one,) = same.examples
    assert (one.place, one.figure) == ("rows.jsonl:65", "says the same as line 4")
    assert one.text == "What is 0 plus 3? The sum is 3."
    assert "says the same as line 4" in section(page(found), "Duplicates and leaks")


def test_texts_are_escaped_and_what_is_personal_is_masked(tmp_path: Path) -> None:
    secrets = (
        "<script>alert(1)</script> & more: jane.roe@corp.co.uk, +44 20 7946 0958, "
        "4111 1111 1111 1111, AKIAIOSFODNN7EXAMPLE"
    )
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----"
    rows = [
        *sums(),
        {"prompt": secrets, "response": "yes", "shop": "shop of bob@corp.io <b>"},
        {"prompt": secrets, "response": "yes", "shop": "x"},
        {"prompt": f"{key} {'and ' * 40}", "response": "well"},
    ]
    html = page(report(answered(tmp_path, rows), group="shop"))
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more: j…@…, +4*" in html
    assert "shop of b…@… &lt;b&gt;" in html
    for leaked in ("<script", "jane", "bob@", "7946", "1111", "IOSFODNN", "MIIEv"):
        assert leaked not in html
    assert "http" not in html.replace("http-equiv", ""), "something is fetched from elsewhere"
    assert "default-src 'none'" in html


def test_every_section_says_where_it_has_nothing(tmp_path: Path) -> None:
    html = page(report(answered(tmp_path, sums())))
    said = {
        "Findings": "The check found nothing.",
        "Lengths": "nothing is too long",
        "Labels": "These rows have no labels.",
        "Duplicates and leaks": "No two of the rows",
        "Groups": "No column was named",
        "Rows that stand out": "Nothing was found at any row.",
    }
    for title, words in said.items():
        assert words in section(html, title), title
    assert "0 errors and 0 warnings in 64 rows." in html


def test_rows_that_cannot_be_put_into_tokens_leave_the_findings(tmp_path: Path) -> None:
    one_class = [row for row in TRAIN if row[1] == "wet"]
    data = {"train": table(tmp_path / "rows.csv", one_class), "validation": 0}
    found = report(classified(tmp_path, data=data))
    assert [each.code for each in found.found] == ["D038"]
    assert found.unread
    html = page(found)
    for title in SECTIONS:
        assert "Not known: " in section(html, title), title
    assert "1 error and 0 warnings in 3 rows." in html


def test_rows_that_cannot_be_read_are_counted_and_named(tmp_path: Path) -> None:
    rows = [*sums(), {"prompt": "a", "response": ""}, {"prompt": None, "response": "b"}]
    found = report(answered(tmp_path, rows))
    assert (found.errors, found.rows) == (2, 66)
    assert sum(one.rows for one in found.lengths) == 64
    faulty = found.worst[3].rows
    assert [(r.place, r.figure, r.text) for r in faulty] == [
        ("rows.jsonl:65", "D003", ""),
        ("rows.jsonl:66", "D006", ""),
    ]
    html = page(found)
    assert "This row could not be understood." in html
    assert html.count("<code>rows.jsonl:65</code>") == 2


def test_the_command_writes_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answered(tmp_path, [*sums(), {"prompt": "a", "response": ""}])
    plain = {"model": TINY, "data": {"train": "rows.jsonl", "validation": 0.2}}
    stages = [{"training": {"max_steps": 2}}, {"data": {"max_length": 64}}]
    Path("recipe.yaml").write_text(yaml.safe_dump({**plain, "stages": stages}))
    assert cli.run(["data", "report", "recipe.yaml", "data.limit=64"]) == 0
    said = capsys.readouterr().out
    assert "0 errors and 0 warnings in 64 rows" in said
    assert "written: data-report.html" in said
    assert "<h2>Findings</h2>" in Path("data-report.html").read_text(encoding="utf-8")
    words = ["recipe.yaml", "-o", "out/page.html", "--stage", "2", "--group", "prompt", "--all"]
    assert cli.run(["data", "report", *words]) == 0
    assert "1 error and 0 warnings in 65 rows" in capsys.readouterr().out
    html = Path("out/page.html").read_text(encoding="utf-8")
    assert "; 64 fit" in html
    assert "stands in the column “prompt”" in html
    assert cli.run(["data", "report", "recipe.yaml", "--group", "no"]) == 2
    assert cli.run(["data", "report"]) == 2


def test_long_rows_are_quoted_by_both_ends() -> None:
    line = quoted(f"Beginning {'and ' * 20_000} write to jane.roe@corp.co.uk at the end")
    assert line.startswith("Beginning and and")
    assert line.endswith("write to j…@… at the end")
    assert len(line) < 280


def test_files_of_one_name_keep_their_folders() -> None:
    texts = Texts(["a/x.csv", "b/x.csv", "c/y.csv"])
    assert texts.place("a/x.csv:3") == "a/x.csv:3"
    assert texts.place("c/y.csv:3") == "y.csv:3"
    assert texts.place("c/y.csv") == "y.csv"
