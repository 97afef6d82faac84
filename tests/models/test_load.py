"""Models from a folder, a run or an adapter: safetensors only, and errors that teach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builders
import classifiers
import pytest
import torch
from builders import document, gap

from luthier.core.errors import RecipeError, UserError
from luthier.core.recipe import ModelSpec
from luthier.data.batching import collate
from luthier.methods import lora
from luthier.models import load as loading
from luthier.models.language_model import CausalModel
from luthier.models.load import (
    Loaded,
    count_parameters,
    from_scratch,
    load,
    locate,
    read_note,
    save_note,
    tokenizer_at,
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A tiny model with its tokenizer, in bfloat16 on disk."""
    folder = tmp_path / "model"
    builders.talking(len(builders.tokenizer())).bfloat16().save_pretrained(folder)
    builders.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(saved: Path, tmp_path: Path) -> Path:
    """A LoRA adapter on it, moved away from the identity."""
    method = lora.Method(lora.Config(rank=4, targets=("q_proj", "down_proj")))
    model = method.prepare(load(str(saved)).model.module)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    method.save(model, tmp_path / "adapter")
    return tmp_path / "adapter"


def outputs(model: CausalModel) -> torch.Tensor:
    with torch.no_grad():
        model.module.eval()
        return model.logits(model.hidden(collate([document(12)])))


def test_a_folder_is_loaded_in_float32_with_its_tokenizer(saved: Path) -> None:
    loaded = load(str(saved))
    assert {p.dtype for p in loaded.model.module.parameters()} == {torch.float32}
    assert loaded.tokenizer("the cat").input_ids == builders.tokenizer()("the cat").input_ids
    assert loaded.context == 128
    assert loaded.name == str(saved)
    assert locate(str(saved)).kind == "folder"


def test_an_adapter_is_put_on_its_base(saved: Path, adapter: Path) -> None:
    assert locate(str(adapter)).kind == "adapter"
    adapted, base = load(str(adapter)), load(str(adapter), adapter=False)
    assert gap(outputs(base.model), outputs(load(str(saved)).model)) == 0
    assert gap(outputs(base.model), outputs(adapted.model)) > 0.01
    assert adapted.tokenizer.chat_template  # the base's, where the adapter brings none
    trainable, total = count_parameters(adapted.model.module)
    assert trainable == 0
    assert total > count_parameters(base.model.module)[1]


def test_pickled_weights_are_refused(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    torch.save({}, saved / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot load") as caught:
        load(str(saved))
    assert "only safetensors are loaded, never pickles" in caught.value.faults[0].cure


def test_a_pickled_adapter_is_refused(adapter: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no adapter_model\.safetensors") as caught:
        load(str(adapter))
    assert "never pickles" in caught.value.faults[0].cure


def test_an_adapter_of_another_model_is_refused(adapter: Path, tmp_path: Path) -> None:
    for number, changes in enumerate(({"num_hidden_layers": 3}, {"hidden_size": 64})):
        other = tmp_path / f"other{number}"
        builders.talking(len(builders.tokenizer()), **changes).save_pretrained(other)
        builders.tokenizer().save_pretrained(other)
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = str(other)
        (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        with pytest.raises(UserError, match="does not fit its base"):
            load(str(adapter))


def test_an_adapter_that_forgot_its_base_is_refused(adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = None
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match="does not say what its base model is"):
        load(str(adapter))


def test_an_adapter_finds_a_builtin_base_wherever_the_package_lies(
    saved: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    saved.rename(tmp_path / "elsewhere" / "nano")
    monkeypatch.setattr(loading, "BUILTIN", tmp_path / "elsewhere")
    save_note(adapter, {"base": "builtin:nano"})
    assert read_note(adapter) == {"base": "builtin:nano"}
    assert load(str(adapter)).context == 128


def test_an_unknown_builtin_has_a_nearest_name(saved: Path, monkeypatch: Any) -> None:
    saved.rename(saved.with_name("nano"))
    monkeypatch.setattr(loading, "BUILTIN", saved.parent)
    assert locate("builtin:nano").kind == "folder"
    with pytest.raises(RecipeError, match="did you mean 'nano'"):
        locate("builtin:nanno")
    with pytest.raises(RecipeError, match="unknown model"):
        locate("builtin:../model")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c"])
def test_a_folder_that_is_not_there_is_said_to_be(name: str) -> None:
    with pytest.raises(RecipeError, match="no model folder"):
        locate(name)


def test_a_hub_id_is_not_looked_up_until_it_is_loaded() -> None:
    assert locate("someone/some-model").kind == "hub"
    assert locate("some-model").kind == "hub"


def test_a_model_that_cannot_be_reached_is_a_users_error() -> None:
    with pytest.raises(UserError, match="cannot load 'luthier-tests/nothing'") as caught:
        load(ModelSpec(name="luthier-tests/nothing", offline=True))
    assert "local folder" in caught.value.faults[0].cure


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="holds no model"):
        locate(str(tmp_path))
    builders.tokenizer().save_pretrained(tmp_path)
    assert locate(str(tmp_path), weights=False).kind == "folder"
    assert len(tokenizer_at(locate(str(tmp_path), weights=False))) == len(builders.tokenizer())


def test_an_unfinished_run_has_no_model_yet(tmp_path: Path) -> None:
    for name in ("recipe.yaml", "environment.json"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    with pytest.raises(RecipeError, match="no model yet") as caught:
        locate(str(tmp_path))
    assert f"--resume {tmp_path}" in caught.value.faults[0].cure


def test_a_model_without_a_tokenizer_is_a_users_error(saved: Path) -> None:
    for path in saved.glob("*token*"):
        path.unlink()
    with pytest.raises(UserError, match="cannot load"):
        load(str(saved))


def test_weights_that_the_files_lack_are_named(saved: Path) -> None:
    from safetensors.torch import load_file, save_file

    assert load(str(saved)).said == []
    weights = load_file(saved / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, saved / "model.safetensors", {"format": "pt"})
    assert load(str(saved)).said == [
        "1 weights are not in the files and start fresh: model.norm.weight"
    ]


def test_damaged_weights_are_a_users_error(saved: Path) -> None:
    (saved / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0half a header")
    with pytest.raises(UserError, match="cannot load"):
        load(str(saved))


def test_code_that_comes_with_a_model_is_not_run(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    config["model_type"] = "surprise"
    config["auto_map"] = {
        "AutoConfig": "surprise.Config",
        "AutoModelForCausalLM": "surprise.Model",
    }
    (saved / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (saved / "surprise.py").write_text("raise SystemExit('ran')\n", encoding="utf-8")
    with pytest.raises(UserError, match="cannot load") as caught:
        load(str(saved))
    assert "trust_remote_code" in caught.value.faults[0].cure


def scratch(architecture: str = "llama", **config: Any) -> ModelSpec:
    return ModelSpec(architecture=architecture, config=config)


def test_weights_from_scratch_follow_the_seed() -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    small |= {"intermediate_size": 32, "num_key_value_heads": 2}
    tokenizer = builders.tokenizer()
    first, second, other = (
        dict(from_scratch(scratch(**small), tokenizer, seed).model.module.state_dict())
        for seed in (1, 1, 2)
    )
    assert gap(first, second) == 0
    assert gap(first, other) > 0
    made = from_scratch(scratch(**small), tokenizer, 1)
    assert made.model.config.vocab_size == len(tokenizer)
    assert made.model.config.eos_token_id == tokenizer.eos_token_id


def test_from_scratch_refuses_what_the_architecture_has_not() -> None:
    with pytest.raises(RecipeError, match=r"model\.config\.hiden_size.*did you mean 'hidden_size'"):
        from_scratch(scratch(hiden_size=16), builders.tokenizer(), 0)
    with pytest.raises(RecipeError, match="'lama': did you mean 'llama'"):
        from_scratch(scratch("lama"), builders.tokenizer(), 0)
    with pytest.raises(RecipeError, match="none of that name"):
        from_scratch(scratch("zzzzzz"), builders.tokenizer(), 0)
    with pytest.raises(RecipeError, match=r"hidden size .30. is not a multiple"):
        from_scratch(scratch(hidden_size=30, num_attention_heads=4), builders.tokenizer(), 0)


def test_the_context_is_the_architectures_or_the_tokenizers() -> None:
    tokenizer = builders.tokenizer()
    assert Loaded(CausalModel(builders.tiny("gpt2")), tokenizer, "made").context == 64

    class Boundless(CausalModel):
        context = None  # type: ignore[assignment]

    model = Boundless(builders.tiny("gpt2"))
    tokenizer.model_max_length = 77
    assert Loaded(model, tokenizer, "made").context == 77
    tokenizer.model_max_length = 10**30
    assert Loaded(model, tokenizer, "made").context == 1_000_000


def test_robertas_context_is_without_its_offset() -> None:
    loaded = Loaded(classifiers.model("roberta"), builders.tokenizer(), "made")
    assert loaded.context == 64 - 2


def test_tied_parameters_count_once() -> None:
    tied, untied = (builders.tiny("llama", tie_word_embeddings=t) for t in (True, False))
    assert count_parameters(untied)[1] - count_parameters(tied)[1] == 101 * 32


def test_no_note_is_an_empty_one(tmp_path: Path) -> None:
    assert read_note(tmp_path) == {}
