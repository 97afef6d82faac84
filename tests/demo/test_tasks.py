"""Made tasks: every answer is right, every row is there once, files are the same each time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from luthier.core.records import Origin, Prompt, Row
from luthier.data.formats import checkable
from luthier.demo import sentences, tasks
from luthier.rewards import exact


@pytest.mark.parametrize("name", tasks.TASKS)
def test_tasks_are_divided_and_each_once(name: str) -> None:
    train, test = tasks.split(name)
    prompts = [row["prompt"] for row in (*train, *test)]
    assert len(prompts) == len(set(prompts)) > 500
    assert len(test) == round(tasks.TEST * len(prompts))
    assert tasks.split(name) == (train, test)
    assert tasks.split(name, seed=1) != (train, test)


def test_every_answer_is_right() -> None:
    for row in tasks.arithmetic():
        a, sign, b, _ = row["prompt"].split()
        assert int(row["answer"]) == (int(a) + int(b) if sign == "+" else int(a) - int(b)) >= 0
    for row in tasks.sorting():
        assert sorted(row["prompt"].split()[1:]) == row["answer"].split()


def test_the_package_reads_and_rewards_its_own_tasks(tmp_path: Path) -> None:
    files = tasks.write(tmp_path)
    again = tasks.write(tmp_path / "again")
    for name, path in files.items():
        assert path.read_bytes() == again[name].read_bytes()
        row = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
        record = checkable.Format(checkable.Config()).read(Row(row, Origin(str(path), 1)))
        assert isinstance(record, Prompt)
        compare = "text" if name.startswith("sorting") else "auto"
        reward = exact.Reward(exact.Config(compare=compare))
        assert reward.score([record] * 2, [row["answer"], "no idea"]) == [1.0, 0.0]


def test_sentences_are_each_once_and_of_both_tones_alike(tmp_path: Path) -> None:
    made = sentences.split()
    texts = [row["text"] for rows in made.values() for row in rows]
    assert len(texts) == len(set(texts)) >= 5000
    assert len(made["train"]) >= 4000
    for rows in made.values():
        labels = [row["label"] for row in rows]
        assert labels.count("positive") == labels.count("negative")
    said = {row["prompt"] for row in sentences.beginnings()}
    assert all(any(text.startswith(prompt) for prompt in said) for text in texts[:50])
    files, again = sentences.write(tmp_path), sentences.write(tmp_path / "again")
    assert set(files) == {"train", "test", "beginnings"}
    for name, path in files.items():
        assert path.read_bytes() == again[name].read_bytes()
