"""Full weights combined tensor by tensor; never more than a file of the result in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from luthier.core.contracts_weights import Combination
from luthier.core.errors import RecipeError
from luthier.models.heads import HEAD_FILE
from luthier.models.load import NOTE, locate, read_note, save_note

#: Bytes of a file of the result.
_SHARD = 1 << 30
_INDEX, _WHOLE = "model.safetensors.index.json", "model.safetensors"
#: What may differ between two configs of one architecture.
_IDLE = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "quantization_config"}
_WIDE = (torch.float32, torch.float64)


class Weights:
    """The tensors of a model's folder by name, read one at a time."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        names = [_WHOLE]
        if (folder / _INDEX).is_file():
            index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
            names = sorted(set(index["weight_map"].values()))
        if (folder / HEAD_FILE).is_file():
            names.append(HEAD_FILE)
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise RecipeError(f"'{folder}' has no {missing[0]}")
        self.home: dict[str, tuple[str, Any]] = {}
        for name in names:
            file = stack.enter_context(safe_open(folder / name, framework="pt"))
            self.home |= {f"{name == HEAD_FILE}:{key}": (key, file) for key in file.keys()}  # noqa: SIM118

    def shapes(self) -> dict[str, list[int]]:
        """Name -> shape, nothing read."""
        return {n: file.get_slice(key).get_shape() for n, (key, file) in self.home.items()}

    def __getitem__(self, name: str) -> Tensor:
        key, file = self.home[name]
        tensor: Tensor = file.get_tensor(key)
        return tensor


def combine(
    folders: Sequence[Path],
    shares: Sequence[float],
    way: Combination,
    base: str | None,
    output: Path,
    say: Callable[[str], None],
) -> int:
    """Writes the combination of several folders; returns how many tensors it has.

    Raises:
        RecipeError: they are of different architectures, sizes, vocabularies or bases.
    """
    way.check(shares)
    with ExitStack() as stack:
        models = [Weights(folder, stack) for folder in folders]
        _check_alike(models)
        start = None
        if way.needs_base:
            start = Weights(_base(folders, base), stack)
            _check_alike([start, *models])
            say(f"changes against '{start.folder}'")
        names = sorted(models[0].home)

        def changes(number: int) -> Iterator[Tensor]:
            assert start is not None
            for name in names:
                old = start[name]
                if old.is_floating_point():
                    yield _wide(models[number][name]) - _wide(old)

        if way.needs_base:
            way.survey(changes, len(models))
        made = (
            (name, _one([m[name] for m in models], start[name] if start else None, shares, way))
            for name in names
        )
        _write(made, output)
    _copy_rest(folders, shares, way, output)
    return len(names)


def _one(
    tensors: Sequence[Tensor], base: Tensor | None, shares: Sequence[float], way: Combination
) -> Tensor:
    first = tensors[0]
    if not first.is_floating_point():
        if any(not torch.equal(first, other) for other in tensors[1:]):
            raise RecipeError("the models differ in numbers that are no weights")
        return first
    wide = [_wide(tensor) for tensor in tensors]
    made = way.combined(wide, None if base is None else _wide(base), shares)
    return made.to(first.dtype).contiguous()


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in _WIDE else tensor.float()


def _check_alike(models: Sequence[Weights]) -> None:
    first = models[0]
    for other in models[1:]:
        both = f"'{first.folder}' and '{other.folder}'"
        configs = [_config(each.folder) for each in (first, other)]
        if differing := sorted(
            key
            for key in configs[0].keys() | configs[1].keys()
            if configs[0].get(key) != configs[1].get(key)
        ):
            key = differing[0]
            raise RecipeError(
                f"cannot combine {both}: {key} is {configs[0].get(key)!r} and "
                f"{configs[1].get(key)!r}",
                cure="combine models of one architecture and size, with the same classes",
            )
        shapes = [each.shapes() for each in (first, other)]
        if differing := sorted(
            key
            for key in shapes[0].keys() | shapes[1].keys()
            if shapes[0].get(key) != shapes[1].get(key)
        ):
            raise RecipeError(f"cannot combine {both}: they differ in {differing[0]}")
        vocabularies = [_vocabulary(each.folder) for each in (first, other)]
        if None not in vocabularies and vocabularies[0] != vocabularies[1]:
            raise RecipeError(
                f"cannot combine {both}: their tokenizers give the same tokens other numbers",
                cure="combine models that were tuned from one base",
            )


def _config(folder: Path) -> dict[str, Any]:
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {key: value for key, value in values.items() if key not in _IDLE}


def _vocabulary(folder: Path) -> Any:
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    values = json.loads(path.read_text(encoding="utf-8"))
    return values["model"].get("vocab"), values.get("added_tokens")


def _base(folders: Sequence[Path], named: str | None) -> Path:
    """The folder of what all were tuned from.

    Raises:
        RecipeError: their notes name different ones or none.
    """
    known = {read_note(folder).get("base") for folder in folders} if named is None else {named}
    if len(known) != 1 or None in known:
        said = ", ".join(sorted(str(each) for each in known))
        raise RecipeError(
            f"the models were tuned from different bases, or do not say from which: {said}",
            cure="name it: --base MODEL",
        )
    [name] = known
    place = locate(str(name))
    if place.kind != "folder":
        raise RecipeError(
            f"the base '{name}' is no folder of full weights here",
            cure="download or merge it, and name it: --base FOLDER",
        )
    return Path(place.name)


def _write(tensors: Iterator[tuple[str, Tensor]], output: Path) -> None:
    """Files of bounded size and their index; a head of ours in its own."""
    files: list[dict[str, Any]] = []
    held: dict[str, Tensor] = {}
    head: dict[str, Tensor] = {}

    def flush() -> None:
        if held:
            save_file(held, output / f"part-{len(files)}", metadata={"format": "pt"})
            files.append({key: tensor.nbytes for key, tensor in held.items()})
            held.clear()

    for name, tensor in tensors:
        own, _, key = name.partition(":")
        (head if own == "True" else held)[key] = tensor
        if sum(each.nbytes for each in held.values()) >= _SHARD:
            flush()
    flush()
    if head:
        save_file(head, output / HEAD_FILE)
    if len(files) == 1:
        (output / "part-0").rename(output / _WHOLE)
        return
    where: dict[str, str] = {}
    for number, sizes in enumerate(files):
        name = f"model-{number + 1:05d}-of-{len(files):05d}.safetensors"
        (output / f"part-{number}").rename(output / name)
        where |= dict.fromkeys(sizes, name)
    total = sum(sum(sizes.values()) for sizes in files)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (output / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _copy_rest(
    folders: Sequence[Path], shares: Sequence[float], way: Combination, output: Path
) -> None:
    """Config, tokenizer and template of the first, and a note of what this is."""
    for path in sorted(folders[0].iterdir()):
        weights = path.suffix == ".safetensors" or path.name == _INDEX
        if path.is_file() and not weights and path.name not in (NOTE, "README.md"):
            shutil.copyfile(path, output / path.name)
    if (folders[0] / HEAD_FILE).is_file():  # its pooling stands in the file's own notes
        _keep_pooling(folders[0] / HEAD_FILE, output / HEAD_FILE)
    for path in output.glob("*.safetensors"):  # written for their owner alone
        path.chmod((output / "config.json").stat().st_mode)
    models = [{"model": str(f), "weight": s} for f, s in zip(folders, shares, strict=True)]
    note = {**read_note(folders[0]), "combined": {**way.config.model_dump(), "models": models}}
    save_note(output, note)


def _keep_pooling(old: Path, new: Path) -> None:
    from safetensors.torch import load_file

    with safe_open(old, framework="pt") as stream:
        metadata = stream.metadata()
    save_file(load_file(new), new, metadata=metadata)
