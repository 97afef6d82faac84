"""Every code has its fixture: exact code, line and exit status; a clean file gives nothing."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from luthier import cli
from luthier.core.findings import SHOWN
from luthier.data.check import Ask, Report, check, codes, sides

GOOD = [
    {"prompt": f"What is the capital of {land}?", "response": f"The capital of {land} is {city}."}
    for land, city in (("France", "Paris"), ("Italy", "Rome"), ("Spain", "Madrid"))
]
LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def with_good(*rows: Any) -> str:
    """Three good rows, a blank line, then these: the first of them stands on line 5."""
    return lines(GOOD) + "\n" + lines(list(rows))


def said(response: str) -> str:
    return with_good({"prompt": "And now?", "response": response})


def labelled(*pairs: tuple[str, str]) -> str:
    return "text,label\n" + "".join(f"{text},{label}\n" for text, label in pairs)


#: Code -> files by name, and the file and line that are named (no line: the whole file).
FIXTURES: dict[str, tuple[dict[str, str | bytes], str]] = {
    "D002": ({"a.jsonl": with_good() + '{"prompt": "x"\n'}, "a.jsonl:5"),
    "D003": ({"a.jsonl": said("")}, "a.jsonl:5"),
    "D004": ({"a.jsonl": with_good([1, 2])}, "a.jsonl:5"),
    "D005": ({"a.jsonl": with_good().encode() + b'{"prompt": "caf\xe9"}\n'}, "a.jsonl:5"),
    "D006": ({"a.jsonl": with_good({"prompt": "And now?", "response": None})}, "a.jsonl:5"),
    "D007": ({"a.jsonl": with_good({"prompt": "And now?", "response": 7})}, "a.jsonl:5"),
    "D008": ({"a.jsonl": lines([{"foo": 1}, {"foo": 2}])}, "a.jsonl"),
    "D009": (
        {"a.jsonl": with_good({"messages": [{"role": "user", "content": "Hello"}]})},
        "a.jsonl:5",
    ),
    "D020": (
        {
            "train.csv": labelled(("it rains", "wet"), ("sun is out", "dry")),
            "valid.csv": labelled(("a storm", "wet"), ("no cloud", "drry"), ("hot", "dry")),
        },
        "valid.csv:3",
    ),
    "D040": (
        {
            "train.jsonl": lines(GOOD),
            "dev.jsonl": lines([{k: v.upper() for k, v in GOOD[1].items()}]),
        },
        "dev.jsonl:1",
    ),
    "D041": (
        {
            "train.txt": f"{LONG} sixteen seventeen eighteen {LONG}",
            "test.txt": f"{LONG} sixteen seventeen eighteen {LONG} and then a few",
        },
        "test.txt:1",
    ),
    "D050": ({"a.jsonl": with_good(GOOD[0])}, "a.jsonl:5"),
    "D051": (
        {
            "a.jsonl": with_good(
                {"prompt": LONG, "response": f"It is {LONG}."},
                {"prompt": LONG, "response": f"It is {LONG} now."},
            )
        },
        "a.jsonl:6",
    ),
    "D052": (
        {
            "a.jsonl": with_good(
                *({"prompt": f"Tell me of {n}", "response": "I can not help."} for n in range(10))
            )
        },
        "a.jsonl:5",
    ),
    "D053": (
        {
            "a.csv": labelled(
                ("it rains", "wet"), ("dust", "dry"), ("It rains!", "dry"), ("fog", "wet")
            )
        },
        "a.csv:4",
    ),
    "D060": (
        {
            "a.csv": labelled(
                *((f"rain number {n} falls", "wet") for n in range(25)),
                ("dust", "dry"),
                ("sand", "dry"),
            )
        },
        "a.csv",
    ),
    "D061": ({"a.csv": labelled(("it rains", "wet"), ("fog", "wet"), ("dust", "dry"))}, "a.csv:4"),
    "D062": (
        {
            "train.csv": labelled(("it rains", "wet"), ("sun is out", "dry")),
            "valid.csv": labelled(("a storm", "wet")),
        },
        "valid.csv",
    ),
    "D064": (
        {
            "a.csv": labelled(
                *((f"short {n}", "no") for n in range(30)),
                *((f"this is a much longer text than number {n}", "yes") for n in range(30)),
            )
        },
        "a.csv",
    ),
    "D070": (
        {
            "a.jsonl": with_good(
                *(
                    {"prompt": f"Is it {n} that you have for the cat?", "response": f"It was {n}."}
                    for n in range(20)
                ),
                {"prompt": "Где мой заказ номер семь?", "response": "Он уже в пути к вам."},
            )
        },
        "a.jsonl:25",
    ),
    "D071": ({"a.jsonl": said("The cafÃ© is open.")}, "a.jsonl:5"),
    "D072": ({"a.jsonl": said("A bell \x07 rings.")}, "a.jsonl:5"),
    "D073": ({"a.jsonl": said("Fish &amp; chips<br>are out.")}, "a.jsonl:5"),
    "D074": ({"a.jsonl": said("iVBORw0KGgo" * 12)}, "a.jsonl:5"),
    "D075": ({"a.jsonl": said("so" * 40)}, "a.jsonl:5"),
    "D076": ({"a.jsonl": said("Log in at pay\u0440\u0430l today.")}, "a.jsonl:5"),
    "D080": ({"a.jsonl": said("Write to jane.roe@corp.co.uk please.")}, "a.jsonl:5"),
    "D081": ({"a.jsonl": said("Call +44 20 7946 0958 now.")}, "a.jsonl:5"),
    "D082": ({"a.jsonl": said("Pay with 4111 1111 1111 1111 please.")}, "a.jsonl:5"),
    "D083": ({"a.jsonl": said("Use AKIAIOSFODNN7EXAMPLE here.")}, "a.jsonl:5"),
}
#: Codes that need a recipe or a format of one's own; tests/test_checking.py has the others.
OWN_FORMAT = {"D010": "tags", "D011": "span", "D022": "equal", "D023": "prompt"}


def written(folder: Path, files: dict[str, str | bytes]) -> list[str]:
    for name, content in files.items():
        raw = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(raw)
    return [str(folder / name) for name in files]


def looked(values: list[str], **changes: Any) -> Report:
    found, known = sides(values)
    return check(Ask(found, known, **changes))


def places(report: Report, code: str) -> list[str]:
    kept = [one for group, _ in report.findings.groups() for one in group if one.code == code]
    return [Path(one.place).name for one in kept]


@pytest.mark.parametrize("code", sorted(FIXTURES))
def test_every_code_is_found_at_its_line(
    code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, place = FIXTURES[code]
    names = written(tmp_path, files)
    report = looked(names)
    assert places(report, code) == [place]
    assert set(report.findings.totals) == {code}
    severity = next(each.severity for each in codes() if each.name == code)
    assert cli.run(["data", "check", *names]) == (1 if severity == "error" else 0)
    word = "ERROR" if severity == "error" else "WARN "
    assert f"{word} {code} {tmp_path / place}  " in capsys.readouterr().out


def own_format(folder: Path, read: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's format whose ``read`` is this expression, by its import path."""
    package = folder / "own_formats"
    package.mkdir()
    name = f"own_{abs(hash(read))}"
    (package / f"{name}.py").write_text(
        "from luthier.core.contracts import KindConfig\n"
        "from luthier.core.errors import DataError\n"
        "from luthier.core.records import Preference, Text, Turn\n"
        f"class Config(KindConfig):\n    kind: str = 'own_formats.{name}'\n"
        "class Format:\n    records = (Text, Preference)\n"
        "    def __init__(self, config): pass\n"
        "    def recognise(self, fields): return ''\n"
        f"    def read(self, row):\n        {read}\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "own_formats", raising=False)
    return f"own_formats.{name}"


@pytest.mark.parametrize("code", sorted(OWN_FORMAT))
def test_faults_of_formats_become_codes(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = own_format(
        tmp_path,
        "if row.fields['text'] == 'good': return Text(row.origin, 'good')\n"
        f"        raise DataError('bad', str(row.origin), code='{OWN_FORMAT[code]}')",
        monkeypatch,
    )
    names = written(tmp_path, {"a.jsonl": lines([{"text": "good"}, {"text": "bad"}])})
    report = looked(names, format=own)
    assert dict(report.findings.totals) == {code: 1}
    assert places(report, code) == ["a.jsonl:2"]


@pytest.mark.parametrize(("shorter", "told"), [(2, True), (3, False)])
def test_a_bias_to_length(
    shorter: int, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of twenty pairs, those whose chosen answer is the shorter one."""
    own = own_format(
        tmp_path,
        "turns = [(Turn('assistant', row.fields[k]),) for k in ('chosen', 'rejected')]\n"
        "        return Preference(row.origin, (Turn('user', row.fields['prompt']),), *turns)",
        monkeypatch,
    )
    rows = [
        {"prompt": f"Say {n}", "chosen": f"no {n}", "rejected": f"well {n}"}
        if n < shorter
        else {"prompt": f"Say {n}", "chosen": f"I say {n}", "rejected": f"{n}"}
        for n in range(20)
    ]
    report = looked(written(tmp_path, {"a.jsonl": lines(rows)}), format=own)
    assert dict(report.findings.totals) == ({"D090": 1} if told else {})
    assert places(report, "D090") == (["a.jsonl"] if told else [])


def test_a_file_that_is_not_there_is_a_finding(tmp_path: Path) -> None:
    good = written(tmp_path, {"a.jsonl": lines(GOOD)})
    report = looked([*good, str(tmp_path / "b.jsonl")])
    assert dict(report.findings.totals) == {"D001": 1}
    assert places(report, "D001") == ["b.jsonl"]
    assert report.rows == 3
    assert cli.run(["data", "check", str(tmp_path / "b.jsonl")]) == 1


def test_every_code_has_a_fixture() -> None:
    from test_checking import RECIPES  # type: ignore[import-not-found, unused-ignore]

    known = {code.name for code in codes()}
    assert known == {*FIXTURES, *OWN_FORMAT, "D001", "D090", *RECIPES}


def test_a_clean_file_gives_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (name,) = written(tmp_path, {"a.jsonl": lines(GOOD)})
    assert cli.run(["data", "check", name]) == 0
    out = capsys.readouterr().out
    assert "0 errors, 0 warnings in 3 rows" in out
    assert "ERROR" not in out
    assert "WARN" not in out


def test_one_file_with_a_fault_of_each_kind_lists_them_all(tmp_path: Path) -> None:
    """Rows that can stand in one file, each on a line of its own with a blank one before it."""
    raw, expected = b"".join(json.dumps(row).encode() + b"\n" for row in GOOD), {}
    line = len(GOOD)
    for code in sorted(FIXTURES):
        content = FIXTURES[code][0].get("a.jsonl", b"")
        raw_content = content if isinstance(content, bytes) else content.encode()
        if FIXTURES[code][1] != "a.jsonl:5" or code in ("D052", "D040"):
            continue
        last = raw_content.split(b"\n")[-2]
        raw += b"\n" + last + b"\n"
        line += 2
        expected[code] = line
    (tmp_path / "all.jsonl").write_bytes(raw)
    report = looked([str(tmp_path / "all.jsonl")])
    found = {code: places(report, code) for code in report.findings.totals}
    assert found == {code: [f"all.jsonl:{at}"] for code, at in expected.items()}
    assert len(expected) >= 17
    assert report.rows == len(GOOD) + len(expected)


def test_ten_examples_are_kept_and_all_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": f"Number {n}?", "response": ""} for n in range(13)]
    (name,) = written(tmp_path, {"a.jsonl": lines([*GOOD, *GOOD, *rows])})
    assert cli.run(["data", "check", name, "--json"]) == 1
    plain = json.loads(capsys.readouterr().out)
    assert plain["totals"] == {"D003": 13, "D050": 3}
    assert (plain["errors"], plain["warnings"], plain["rows"]) == (13, 3, 19)
    shown = [each for each in plain["findings"] if each["code"] == "D003"]
    assert len(shown) == SHOWN
    assert (shown[0]["file"], shown[0]["line"], shown[0]["severity"]) == (name, 7, "error")
    cli.run(["data", "check", name])
    assert "… and 3 more D003" in capsys.readouterr().out


def test_what_is_personal_is_masked_wherever_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [FIXTURES[code][0]["a.jsonl"] for code in ("D080", "D081", "D082", "D083")]
    for number, content in enumerate(texts):
        assert isinstance(content, str)
        (tmp_path / f"{number}.jsonl").write_text(content)
    for flag in ([], ["--json"]):
        cli.run(["data", "check", *(str(tmp_path / f"{n}.jsonl") for n in range(4)), *flag])
        out = capsys.readouterr().out
        for code in ("D080", "D081", "D082", "D083"):
            assert code in out
        for secret in ("jane", "corp.co", "7946", "0958", "1111", "IOSFODNN"):
            assert secret not in out


@pytest.mark.parametrize(
    "text",
    [
        "Write to info@example.com.",
        "Call 555-0123 or (212) 555-0142.",
        "It cost 1234567890123456 pounds, order 4821 of 2024-05-03, 10.5.0.1 at 12:30.",
        "Pay with 4111 1111 1111 1112 please.",
        "Flights AA 1234 and BA 5678; between 1914 and 1918; ISBN 978-3-16-148410-0.",
        "Use <b>bold</b> in html like this.",
        "if a < b and c > d: print('x & y')",
        "café, naïve, Ångström, São Paulo, NÃO, señor – “quoted” … 5 €",
        "https://example.com/a/very/long/path/that/goes/on/and/on/and/never/ends/at/all.html",
        "ACGT" * 40,
        "=" * 100,
        "👩‍👩‍👧 emoji joined",
        "my password is hunter2, and the token = x",
    ],
)
def test_what_only_looks_wrong_is_left_in_peace(text: str, tmp_path: Path) -> None:
    report = looked(written(tmp_path, {"a.jsonl": said(text)}))
    dna = {"D075"} if text.startswith("ACGT") else set()
    assert set(report.findings.totals) == dna


def test_splits_go_by_names_or_every_source_is_one(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"b.jsonl": lines(GOOD), "a.jsonl": lines(GOOD[:1])}
    report = looked(written(tmp_path, files))
    assert places(report, "D040") == ["a.jsonl:1"]
    (tmp_path / "set").mkdir()
    written(tmp_path / "set", {"dev.jsonl": lines(GOOD[:2]), "train.jsonl": lines(GOOD)})
    report = looked([str(tmp_path / "set")])
    assert [(Path(s.name).name, s.split) for s in report.sources] == [
        ("train.jsonl", "train"),
        ("dev.jsonl", "validation"),
    ]
    assert places(report, "D040") == ["dev.jsonl:1", "dev.jsonl:2"]


@pytest.mark.parametrize("words", [[], ["--recipe", "no-such-recipe"], ["a.jsonl", "--nonsense"]])
def test_wrong_usage_exits_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["data", "check", *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_output_reads_well_at_80_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.chdir(tmp_path)
    names = written(tmp_path, FIXTURES["D040"][0])
    assert cli.run(["data", "check", *(Path(n).name for n in names)]) == 1
    out = capsys.readouterr().out
    assert "says the same as train.jsonl:2" in out
    assert cli.run(["data", "codes"]) == 0
    listed = capsys.readouterr().out
    assert all(code.name in listed for code in codes())
    assert max(map(len, [*out.splitlines(), *listed.splitlines()])) <= 100


def test_the_page_lists_the_codes_as_they_are() -> None:
    root = Path(__file__).resolve().parents[2]
    spec = importlib.util.spec_from_file_location("page", root / "tools" / "write_data_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (root / "docs" / "data.md").read_text(encoding="utf-8")
    assert module.table() in page
    assert all(f"| {code.name} |" in page for code in codes())
