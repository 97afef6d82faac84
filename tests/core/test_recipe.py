"""A recipe is understood whole or refused whole: every fault, each with its place, exit code 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from refusals import FILE, GOOD, only, refused, said

from luthier.core import kinds
from luthier.core.errors import RecipeError
from luthier.core.recipe import load


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a test writes its recipe; named as a user names it, without a folder."""
    monkeypatch.chdir(tmp_path)
    return Path("recipe.yaml")


def test_every_fault_at_once_in_the_order_of_the_file(file: Path) -> None:
    file.write_text(
        "model: builtin:nano\n"
        "objective: {kind: sft, train_onn: all}\n"
        "training:\n"
        "  learning_rat: 2e-4\n"
        "  epochs: fast\n"
        "  batch_size: 2.5\n"
        "method: lorra\n"
        "evaluation: {metrics: [rouge, {kind: bleu, lowercas: true}, perplexty, 3]}\n"
        "data: {validation: 1.5}\n"
        "epochs: 3\n"
    )
    assert said(file) == [
        "recipe.yaml:2:24: objective.train_onn: unknown key, did you mean 'train_on'?",
        "recipe.yaml:4:3: training.learning_rat: unknown key, did you mean 'learning_rate'?",
        "recipe.yaml:5:3: training.epochs: must be a number, this is 'fast'",
        "recipe.yaml:6:3: training.batch_size: must be a whole number, this is 2.5",
        "recipe.yaml:7:1: method: unknown method 'lorra', did you mean 'lora'?",
        "recipe.yaml:8:44: evaluation.metrics.1.lowercas: unknown key, did you mean 'lowercase'?",
        "recipe.yaml:8:61: evaluation.metrics.2: unknown metric 'perplexty', did you mean "
        "'perplexity'?",
        "recipe.yaml:8:72: evaluation.metrics.3: a metric is a name, or a mapping with a 'kind', "
        f"one of: {', '.join(kinds.names('metrics'))}",
        "recipe.yaml:9:8: data.validation: must be a share of the rows: at least 0 and less than "
        "1, this is 1.5",
        "recipe.yaml:10:1: epochs: unknown key, did you mean 'epochs' under 'training'?",
    ]


def test_the_error_prints_one_line_a_fault_and_its_cure(file: Path) -> None:
    file.write_text(FILE + "version: 2\ntraining: {epochs: -1}\n")
    with pytest.raises(RecipeError) as caught:
        load(file)
    assert str(caught.value).split("\n") == [
        "recipe.yaml:3:1: version: recipe format 2 is newer than this Luthier (1)",
        "  cure: pip install --upgrade luthier",
        "recipe.yaml:4:12: training.epochs: must be greater than 0, this is -1",
    ]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("training: {epochs: true}", "training.epochs: must be a number, this is true"),
        ("training: {seed: yes}", "training.seed: must be a whole number, this is true"),
        ("training: {seed: -1}", "training.seed: must be at least 0, this is -1"),
        ("training: {epochs: .nan}", "training.epochs: must be a finite number, this is nan"),
        ("training: {epochs: inf}", "training.epochs: must be a finite number, this is 'inf'"),
        ("training: {epochs: [1]}", "training.epochs: must be a number, this is a list of 1"),
        (
            "training: {learning_rate: fast}",
            "training.learning_rate: must be a number or 'auto', this is 'fast'",
        ),
        (
            "training: {learning_rate: 0}",
            "training.learning_rate: must be greater than 0 or 'auto', this is 0",
        ),
        (
            "training: {token_budget: 0}",
            "training.token_budget: must be at least 1 or 'auto', this is 0",
        ),
        ("training: {compile: 7}", "training.compile: must be true or false, this is 7"),
        ("training: {warmup: {a: 1}}", "training.warmup: must be a number, this is a mapping"),
        (
            "training: {schedule: cosin}",
            "training.schedule: must be 'constant', 'linear', 'cosine' or 'wsd' (did you mean "
            "'cosine'?), this is 'cosin'",
        ),
        (
            "training: {early_stopping: 3}",
            "training.early_stopping: must be a mapping (patience, min_delta, metric), this is 3",
        ),
        ("training: {early_stopping: true}", "training.early_stopping: must be a mapping "
         "(patience, min_delta, metric), this is true"),
        (
            "training: {early_stopping: {patience: 0}}",
            "training.early_stopping.patience: must be at least 1, this is 0",
        ),
        ("training: {betas: [0.9]}", "training.betas: has too few entries, this is a list of 1"),
        ("training: {betas: [0.9, 1]}", "training.betas.1: must be less than 1, this is 1"),
        ("training: {trackers: 5}", "training.trackers: must be a list or 'auto', this is 5"),
        ("training: 5", "training: must be a mapping, this is 5"),
        ("evaluation: {metrics: 5}", "evaluation.metrics: must be a list, this is 5"),
        (
            "evaluation: {metrics: [bleu, bleu]}",
            "evaluation.metrics: names 'bleu' twice, and its figures have one name",
        ),
        ("output: 7", "output: must be text, this is 7"),
        ("output: ''", "output: must not be empty, this is ''"),
        ("stages: 7", "stages: must be a list, this is 7"),
        ("version: x", "version: must be 1, this is 'x'"),
        ("version: true", "version: must be 1, this is true"),
        ("version: 0", "version: must be 1, this is 0"),
        ("objective: {kind: sft, label_smoothing: 1}", "objective.label_smoothing: must be less "
         "than 1, this is 1"),
        ("objective: [sft]", "objective: an objective is a name, or a mapping with a 'kind', one "
         f"of: {', '.join(kinds.names('objectives'))}"),
        ("objective: {train_on: all}", "objective: an objective is a name, or a mapping with a "
         f"'kind', one of: {', '.join(kinds.names('objectives'))}"),
        ("method: {kind: lora, rank: yes}", "method.rank: must be a whole number, this is true"),
        ("rank: 3", "rank: unknown key, did you mean 'rank' under 'method'?"),
        ("training.epochs: 3", "training.epochs: unknown key, did you mean 'epochs' under "
         "'training'?"),
    ],
)  # fmt: skip
def test_wrong_values_in_plain_words(file: Path, part: str, message: str) -> None:
    file.write_text(FILE + part + "\n")
    line = only(file)
    assert line.partition(": ")[2] == message
    assert line.startswith("recipe.yaml:3:")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{train: a, validation: -0.1}", "data.validation: must be a share of the rows: at least 0 "
         "and less than 1, this is -0.1"),
        ("{train: a, validation: 1}", "data.validation: must be a share of the rows: at least 0 "
         "and less than 1, this is 1"),
        ("{train: a, validation: true}", "data.validation: must be a share of the rows, or a file, "
         "this is true"),
        ("{train: a, validation: .nan}", "data.validation: must be a share of the rows: at least 0 "
         "and less than 1, this is nan"),
        ("{train: a, validation: {b: 1}}", "data.validation: must be a file, a list of files, a "
         "hub id, or rows in memory, this is a mapping"),
        ("{train: 3}", "data.train: must be a file, a list of files, a hub id, or rows in memory, "
         "this is 3"),
        ("{train: []}", "data.train: must name a file, this list is empty"),
        ("{train: ' '}", "data.train: must name a file, this is empty"),
        ("{train: [a, {b: c}]}", "data.train: must be all files or all rows, this list mixes them"),
        ("{validation: a}", "data.train: missing, there is nothing to learn from"),
        ("{train: a, format: promt_response}", "data.format: unknown format 'promt_response', did "
         "you mean 'prompt_response'?"),
        ("{train: a, columns: {prompt: 1}}", "data.columns.prompt: must be text, this is 1"),
        ("{train: a, overlong: cut}", "data.overlong: must be 'auto', 'window', 'refuse', 'left', "
         "'right' or 'drop', this is 'cut'"),
        ("{train: <9 rows in memory>}", "data.train: the rows were in memory, no file holds them"),
    ],
)  # fmt: skip
def test_wrong_data(file: Path, data: str, message: str) -> None:
    file.write_text(f"model: builtin:nano\ndata: {data}\n")
    assert only(file).partition(": ")[2] == message


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("3", "model: must be a mapping, this is 3"),
        ("{}", "model: takes either 'name' (a pretrained model) or 'architecture' (from scratch), "
         "this says neither"),
        ("{name: a, architecture: llama}", "model: takes either 'name' (a pretrained model) or "
         "'architecture' (from scratch), not both"),
        ("{name: a, config: {x: 1}}", "model: 'config' has no meaning for a pretrained model"),
        ("{name: a, tokenizer: b}", "model: 'tokenizer' has no meaning for a pretrained model"),
        ("{architecture: llama, revision: x}", "model: 'revision' has no meaning for a model from "
         "scratch"),
        ("{name: ''}", "model.name: must not be empty, this is ''"),
        ("{architecture: llama, tokenizer: 3}", "model.tokenizer: must be text or a mapping "
         "(vocab_size, sample), this is 3"),
        ("{architecture: llama, tokenizer: {vocab_size: 3}}", "model.tokenizer.vocab_size: must be "
         "at least 300, this is 3"),
        ("{architecture: llama, config: {a: .inf}}", "model.config.a: must be a finite number, "
         "this is inf"),
        ("{name: a, offlin: true}", "model.offlin: unknown key, did you mean 'offline'?"),
    ],
)  # fmt: skip
def test_wrong_models(file: Path, model: str, message: str) -> None:
    file.write_text(f"model: {model}\ndata: {{train: a}}\n")
    assert only(file).partition(": ")[2] == message


def test_what_is_missing_is_said(file: Path) -> None:
    file.write_text("training: {epochs: 1}\n")
    assert said(file) == ["recipe.yaml: model: missing"]
    file.write_text("model: builtin:nano\n")
    assert said(file) == ["recipe.yaml: data.train: missing, there is nothing to learn from"]


def test_an_empty_part_is_one_left_out(file: Path) -> None:
    file.write_text(FILE + "training:\n  # epochs: 3\nevaluation:\nobjective:\nmethod:\nstages:\n")
    assert load(file) == load(GOOD)


@pytest.mark.parametrize("value", ["1e-4", "1E-4", "0.0001", ".0001", "'1e-4'"])
def test_small_numbers(file: Path, value: str) -> None:
    file.write_text(FILE + f"training: {{learning_rate: {value}}}\n")
    assert load(file).training.learning_rate == 1e-4


def test_a_plain_name_will_do_for_lists_of_one() -> None:
    recipe = load(GOOD, ["evaluation.metrics=rouge", "training.trackers=wandb"])
    assert recipe.evaluation.metrics is not None
    assert [metric.kind for metric in recipe.evaluation.metrics] == ["rouge"]
    assert recipe.training.trackers == ("wandb",)


@pytest.mark.parametrize("objective", ["objective: sft\n", "objective: {kind: sft}\n", ""])
def test_a_kinds_settings_are_overridden_by_path(file: Path, objective: str) -> None:
    file.write_text(FILE + objective)
    recipe = load(file, ["objective.train_on=all", "method.rank=4", "model.offline=true"])
    assert recipe.resolved()["objective"]["train_on"] == "all"
    assert recipe.resolved()["method"]["rank"] == 4
    assert recipe.model.name == "builtin:nano"
    assert recipe.model.offline


def test_overrides_are_laid_in_order(file: Path) -> None:
    file.write_text(FILE + "training: {epochs: 9, seed: 1}\n")
    recipe = load(file, ["training.epochs=5", "training.epochs=6", "output=runs/x"])
    assert (recipe.training.epochs, recipe.training.seed) == (6, 1)
    assert recipe.output == "runs/x"
    assert load(file, ["training={epochs: 2}"]).training.seed == 0, "a part is replaced as a whole"


def test_a_fault_of_an_override_is_the_command_lines(file: Path) -> None:
    file.write_text(FILE + "training: {epochs: fast}\n")
    words = ("training.epochs=slow", "training.sed=3", "method.rank.x=1", "objectiv=3")
    assert sorted(said(file, *words)) == [
        "command line: method.rank: must be a whole number, this is a mapping",
        "command line: objectiv: unknown key, did you mean 'objective'?",
        "command line: training.epochs: must be a number, this is 'slow'",
        "command line: training.sed: unknown key, did you mean 'seed'?",
    ]


def test_the_file_keeps_its_places_beside_overrides(file: Path) -> None:
    file.write_text(FILE + "training: {epochs: fast, seed: 1}\n")
    assert said(file, "training.seed=x") == [
        "recipe.yaml:3:12: training.epochs: must be a number, this is 'fast'",
        "command line: training.seed: must be a whole number, this is 'x'",
    ]
    assert said(file, "training={epochs: slow}") == [
        "command line: training.epochs: must be a number, this is 'slow'"
    ]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("epochs", "'epochs' is no override"),
        ("=3", "'=3' is no override"),
        ("a..b=3", "'a..b=3' is no override"),
        (".".join("a" * 60) + "=1", f"'{'.'.join('a' * 60)}=1' is no override"),
        ("data.train.x=3", "'data.train.x=3': 'data.train' is no mapping"),
        ("stages.0.training.epochs=3", "'stages.0.training.epochs=3': 'stages' is a list of 0 "
         "without '0'"),
        ("data.limit=[", "'data.limit=[': the value is not YAML: expected the node content, but "
         "found '<stream end>', while parsing a flow node"),
        ("data.limit={a: 1, a: 2}", "'data.limit={a: 1, a: 2}': the value is a: stands twice"),
    ],
)  # fmt: skip
def test_words_that_override_nothing(word: str, message: str) -> None:
    assert only({**GOOD, "stages": []}, word) == f"command line: {message}"


def test_another_kind_does_not_take_the_old_ones_settings_in_silence(file: Path) -> None:
    file.write_text(FILE + "method: {kind: lora, rank: 4}\n")
    [fault] = refused(file, "method.kind=full")
    assert str(fault) == (
        "recipe.yaml:3:22: method.rank: unknown key, one of: kind\n"
        "  cure: method.kind=… keeps the file's other settings, method=… replaces them"
    )
    assert load(file, ["method=full"]).method.kind == "full"


def test_a_recipe_takes_overrides_and_stays_as_it_was() -> None:
    rows = [{"prompt": "a ${NOT_SET}", "response": "b"}]
    first = load({**GOOD, "data": {"train": rows, "template": "$${price} {prompt}"}})
    second = load(first, ["training.epochs=7"])
    assert (first.training.epochs, second.training.epochs) == (3, 7)
    assert second.data.train is rows
    assert second.data.template == "${price} {prompt}"
    assert load(first) is first


def test_variables(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "/data")
    monkeypatch.setenv("EPOCHS", "7")
    monkeypatch.setenv("SHARE", "0.25")
    file.write_text(
        "model: builtin:nano\n"
        "data:\n"
        '  train: ["${PLACE}/a.jsonl", "${PLACE}/$${b}.jsonl"]\n'
        "  validation: ${SHARE}\n"
        "training: {epochs: '${EPOCHS}'}\n"
    )
    recipe = load(file, ["output=${PLACE}/run"])
    assert recipe.data.train == ["/data/a.jsonl", "/data/${b}.jsonl"]
    assert (recipe.training.epochs, recipe.data.validation) == (7, 0.25)
    assert recipe.output == "/data/run"


def test_unset_variables_are_named_with_their_places(file: Path) -> None:
    file.write_text(
        "model: builtin:nano\ndata:\n  train: ${NO_SUCH_A}/x\n  validation: ${NO_SUCH_B}\n"
        "training: {epochs: '${NO_SUCH_C}'}\n"
    )
    faults = refused(file, "output=${NO_SUCH_D}")
    assert [f"{f.place}: {f.message}" for f in faults] == [
        "recipe.yaml:3:3: data.train: the variable NO_SUCH_A is not set",
        "recipe.yaml:4:3: data.validation: the variable NO_SUCH_B is not set",
        "recipe.yaml:5:12: training.epochs: the variable NO_SUCH_C is not set",
        "command line: output: the variable NO_SUCH_D is not set",
    ]
    assert faults[0].cure == "export NO_SUCH_A=…, or write $${NO_SUCH_A} for the text itself"


def test_an_overridden_variable_need_not_be_set(file: Path) -> None:
    file.write_text("model: builtin:nano\ndata: {train: '${NO_SUCH}/x'}\n")
    assert load(file, ["data.train=y"]).data.train == "y"


def test_pairings_carry_the_place(file: Path) -> None:
    file.write_text(
        "model: builtin:nano\n"
        "data: {train: a, validation: 0, format: text}\n"
        "training: {early_stopping: {patience: 1}}\n"
    )
    assert said(file) == [
        "recipe.yaml:2:33: data.format: 'text' reads rows as Text, and the objective 'sft' learns "
        "from Conversation or ConversationTree",
        "recipe.yaml:3:12: training.early_stopping: needs held-out rows to watch, and "
        "data.validation gives none",
    ]


def test_a_format_may_have_settings(file: Path) -> None:
    file.write_text(
        "model: builtin:nano\ndata: {train: a, format: {kind: oasst, paths: best}}\n",
    )
    recipe = load(file)
    assert recipe.data.format == {"kind": "oasst", "paths": "best"}
    file.write_text(recipe.to_yaml())
    assert load(file) == recipe
    for settings, reason in {
        "{kind: oasst, path: best}": "data.format.path: unknown key, did you mean 'paths'?",
        "{kind: oast}": "data.format: unknown format 'oast', did you mean 'oasst'?",
        "{kind: oasst, paths: preferences}": "data.format: 'oasst' reads rows as Ranking, and the "
        "objective 'sft' learns from Conversation or ConversationTree",
    }.items():
        file.write_text(f"model: builtin:nano\ndata: {{train: a, format: {settings}}}\n")
        (found,) = said(file)
        assert reason in found


@pytest.mark.parametrize(
    ("lines", "place"),
    [("method: lora\nobjective: sft\n", ":3:1"), ("objective: sft\n", ":3:1"), ("", "")],
)
def test_a_method_that_does_not_fit(
    file: Path, monkeypatch: pytest.MonkeyPatch, lines: str, place: str
) -> None:
    from luthier.methods import lora

    monkeypatch.setattr(
        lora.Method, "supports", lambda self, objective: "lora has no head to train"
    )
    file.write_text(FILE + lines)
    assert said(file) == [f"recipe.yaml{place}: method: lora has no head to train"]
    assert refused(file)[0].code == "pairing"


def test_what_is_no_recipe_at_all() -> None:
    assert only(5) == ": a recipe is a file or a mapping, this is 5"
    assert only("no-such-file.yaml") == ": no recipe 'no-such-file.yaml'"
    assert "recipe: 1 is no name for a setting" in only({**GOOD, 1: 2})
    assert only({**GOOD, "training": {None: 2}}) == (
        "recipe: training: None is no name for a setting"
    )


def test_a_mapping_within_itself() -> None:
    values: dict[str, Any] = dict(GOOD)
    values["training"] = values
    assert only(values) == ": nested deeper, or larger, than any recipe"
