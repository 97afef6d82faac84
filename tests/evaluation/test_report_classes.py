"""What the page says of a classifier: the baseline, its confusions, its weakest classes."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from luthier.core.records import Origin, Scored
from luthier.core.rundir import RunDir, write_json, write_lines
from luthier.evaluation import card, report, report_classes
from luthier.evaluation.classes import class_figures

ACCURACY = {
    "before": 0.2,
    "after": 0.9,
    "difference": 0.7,
    "interval": [0.6, 0.8],
    "after_interval": [0.85, 0.95],
    "p_value": 0.0001,
    "higher_is_better": True,
}


class Drawing(HTMLParser):
    """Shapes of the page's heat map, and all of its words."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.labels: list[str] = []
        self.rects: list[dict[str, str | None]] = []
        self.pieces: list[str] = []
        self.feed(html.partition("</head>")[2])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.labels += [value for name, value in attrs if name == "aria-label" and value]
        if tag == "rect":
            self.rects.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.pieces).split())


def figures(table: list[list[int]], names: list[str] | None = None) -> dict[str, Any]:
    """Figures of a model with this confusion matrix."""
    size = len(table)
    names = names or [f"class {i}" for i in range(size)]
    after = [
        Scored(Origin("t", 1), probabilities=np.eye(size, dtype=np.float32)[said], label=true)
        for true, row in enumerate(table)
        for said, count in enumerate(row)
        for _ in range(count)
    ]
    found = class_figures(names, None, after)
    assert found is not None
    return found


def page(run: RunDir, classes: Any, **accuracy: Any) -> Drawing:
    metrics = {"accuracy": ACCURACY | accuracy}
    write_json(run.evaluation, {"rows": 240, "metrics": metrics, "classes": classes})
    return Drawing(report.render(run))


def diagonal(size: int, right: int = 3) -> list[list[int]]:
    return [[right if i == j else 0 for j in range(size)] for i in range(size)]


def test_the_baseline_stands_beside_accuracy(full_run: RunDir) -> None:
    text = page(full_run, figures([[40, 1], [2, 37]], ["ham", "spam"])).text
    baseline = "Always saying “ham” would be right in 51.2 % of rows."
    assert text.count(baseline) == 2
    table = text[text.index("Before and after") : text.index("The bar shows")]
    assert baseline in table
    assert "not shown to be better" not in text


def test_a_model_no_better_than_the_baseline_is_said_so(full_run: RunDir) -> None:
    classes = figures([[90, 0], [9, 1]], ["ham", "spam"])
    text = page(full_run, classes, after=0.91, after_interval=[0.85, 0.96]).text
    warning = "Accuracy is not shown to be better than always saying the most frequent class."
    assert text.index(warning) < text.index("Before and after")
    assert warning in page(full_run, classes, after=0.9, after_interval=None).text
    assert warning not in page(full_run, classes, after=0.97, after_interval=[0.93, 0.99]).text


def test_few_classes_are_drawn_cell_by_cell(full_run: RunDir) -> None:
    found = page(full_run, figures([[8, 2, 0], [0, 5, 0], [1, 0, 19]], ["hot", "cold", "mild"]))
    cells = [rect for rect in found.rects if "x" in rect]
    assert len(cells) == 9
    assert "hot, read as cold: 2 of 10 rows" in found.text
    assert "cold, read right: 5 of 5 rows" in found.text
    assert "cold, read as mild: 0 of 5 rows" in found.text
    said = "32 of 35 rows are read right. Most often confused: “hot” read as “cold” (2);"
    assert any(f"Confusion matrix of 3 classes. {said}" in label for label in found.labels)
    assert said in found.text
    assert "Most often confused, by the trained model" not in found.text


def test_cells_lie_truth_down_and_prediction_across() -> None:
    found = report_classes.classes({"classes": figures([[8, 2], [0, 5]])})
    assert found is not None
    assert found.heat is not None
    cell = found.heat.cell
    places = [(s.x // cell, s.y // cell, s.tone, s.level, s.text) for s in found.heat.squares]
    assert places == [
        (0, 0, "right", 4, "8"),
        (1, 0, "wrong", 2, "2"),
        (0, 1, "none", 0, ""),
        (1, 1, "right", 5, "5"),
    ]


@pytest.mark.parametrize("size", [2, 6, 12, 20, 30])
def test_what_is_drawn_fits_a_page(size: int) -> None:
    names = [f"a rather long name of a class with number {i}" for i in range(size)]
    found = report_classes.classes({"classes": figures(diagonal(size), names)})
    assert found is not None
    assert found.heat is not None
    assert found.heat.left + found.heat.side + found.heat.right <= 990
    assert all(name.text.endswith("…") for name in found.heat.names)
    assert [name.full for name in found.heat.names] == names


def test_names_are_shortened_by_the_room_they_take() -> None:
    names = ["x" * 60, "字" * 60, "short", " ", "a\nb"]
    found = report_classes.classes({"classes": figures(diagonal(5), names)})
    assert found is not None
    assert found.heat is not None
    wide, square, *others = [name.text for name in found.heat.names]
    assert len(wide) == 2 * len(square) - 1 == 21
    assert others == ["short", "(empty)", "a b"]


def test_counts_fit_their_cells() -> None:
    table = diagonal(30, right=1)
    table[0][0], table[1][1], table[2][2] = 999, 1234, 56_789
    found = report_classes.classes({"classes": {"names": ["n"] * 30, "confusion": table}})
    assert found is not None
    assert found.heat is not None
    assert [found.heat.squares[31 * i].text for i in range(4)] == ["999", "1.2k", "57k", "1"]


def test_many_classes_are_listed_by_their_confusions(full_run: RunDir) -> None:
    table = diagonal(31, right=4)
    for i in range(18):
        table[i][i + 1] = i + 1
    found = page(full_run, figures(table))
    assert not found.rects
    text = found.text
    listed = text[text.index("Most often confused, by the trained model") :]
    order = [int(count) for count in re.findall(r"class (\d+)class \d+\d", listed)]
    assert re.search(r"class 17 ?class 18 ?18 ?81\.8 %", listed)
    assert len(order) <= 15
    assert listed.index("81.8 %") < listed.index("81 %")
    assert "3 more pairs of classes, with 6 rows between them, are in evaluation.json." in text


def test_nothing_confused_is_said(full_run: RunDir) -> None:
    assert "confuses no class with another" in page(full_run, figures(diagonal(40))).text


def test_the_weakest_classes_come_first_and_the_rest_is_counted() -> None:
    table = diagonal(26, right=10)
    for i in range(24):
        table[i][(i + 1) % 24] = i  # the later, the weaker
    table[25] = [0] * 26
    found = report_classes.classes({"classes": figures(table)})
    assert found is not None
    scores = [float(row.f1) for row in found.rows]
    assert len(scores) == report_classes.WEAKEST
    assert scores == sorted(scores)
    assert "5 more classes have an F1 of " in found.more
    assert "1 class has no held-out row" in found.more
    assert not found.before
    assert "class 25" not in [row.name for row in found.rows]


def test_several_labels_have_a_table_and_no_matrix(full_run: RunDir) -> None:
    after = [
        Scored(Origin("t", 1), probabilities=np.array([0.9, 0.2], dtype=np.float32), label=label)
        for label in ((0,), (0, 1), (), ())
    ]
    classes = class_figures(("joy", "fear"), after, after)
    found = page(full_run, classes)
    assert "Label by label, weakest first" in found.text
    assert "Always saying no label at all would be right in 50 % of rows." in found.text
    assert "F1 before" in found.text
    assert "Confusion" not in found.text
    assert "confuses no class" not in found.text


def test_samples_are_marked_right_or_wrong(full_run: RunDir) -> None:
    sample = {
        "prompt": "Where is my card?",
        "reference": "card_arrival",
        "before": "age_limit",
        "after": "card_arrival",
        "before_probability": 0.0214,
        "after_probability": 0.99999,
        "origin": "bank.csv:12",
    }
    write_lines(full_run.samples, [sample, sample | {"after": "", "after_probability": None}])
    text = page(full_run, figures([[3, 1], [0, 2]])).text
    assert "The same texts, labelled before training and after." in text
    assert "Before training wrong 2.1 % sure age_limit" in text
    assert "After training right over 99.9 % sure card_arrival" in text
    assert "After training wrong No label True label card_arrival" in text
    assert "equals the reference" not in text
    full_run.evaluation.unlink()
    assert "equals the reference" in Drawing(report.render(full_run)).text


def test_the_card_says_the_baseline(full_run: RunDir) -> None:
    page(full_run, figures([[3, 1], [0, 2]], ["ham", "spam"]))
    lines = card._figures(full_run)
    assert any(line.startswith("| accuracy | 0.2 | 0.9 |") for line in lines)
    assert "Always saying “ham” would be right in 66.7 % of rows." in lines


HOSTILE = "</svg></title><script>alert(1)</script>_<img src=x onerror=alert(1)>"


@pytest.mark.parametrize("size", [3, 40])
def test_names_never_become_markup(full_run: RunDir, size: int) -> None:
    table = diagonal(size)
    table[0][1] = 2
    html_names = [f"{HOSTILE}{i}" for i in range(size)]
    found = page(full_run, figures(table, html_names))
    assert not {"script", "img"} & set(found.tags)
    assert HOSTILE in "".join(found.pieces)


WHOLE = figures([[8, 2], [0, 5]])


@pytest.mark.parametrize("key", [*WHOLE, "f1", "support", "name", "accuracy", "cell", "all"])
@pytest.mark.parametrize("value", [None, "x", [], {}, True, -1, float("nan"), [[1, 2]], [None]])
def test_odd_values_break_nothing(key: str, value: Any) -> None:
    classes = copy.deepcopy(WHOLE)
    if key in WHOLE:
        classes[key] = value
    elif key == "cell":
        classes["confusion"][0][1] = value
    elif key == "accuracy":
        classes["majority"][key] = value
    else:
        classes["per_class"][0][key] = value
    metrics = {"accuracy": ACCURACY | {"after_interval": value}}
    whole = {"rows": 9, "metrics": metrics, "classes": value if key == "all" else classes}
    found = report_classes.classes(whole)
    assert found is None or found.rows or found.heat
    assert isinstance(report_classes.majority(whole), str)
    assert isinstance(report_classes.no_better(whole), bool)


def test_a_run_without_classes_says_nothing_of_them(full_run: RunDir) -> None:
    assert "Classes" not in page(full_run, None).text
    assert "Classes" not in page(full_run, {}).text
