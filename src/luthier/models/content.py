"""What a model folder holds, as a short hash: the same wherever the folder lies."""

from __future__ import annotations

import hashlib
from pathlib import Path

from luthier.core import cache
from luthier.models.load import base_of, locate

#: Of a large file: so many blocks of so many bytes, evenly spread, the first and the last included.
_BLOCKS, _BYTES = 64, 1 << 16


def fingerprint(name: str) -> str | None:
    """Hash of a local model's weights, config and tokenizer; ``None`` for a hub id.

    Of a large file a sample of 4 MB is read, with its size: every training changes it, a single
    flipped bit may not.
    """
    where = locate(name)
    if where.kind == "hub":
        return None
    files = sorted(p for p in Path(where.name).iterdir() if p.suffix in (".safetensors", ".json"))
    return cache.key([[p.name, p.stat().st_size, _sampled(p)] for p in files])


def whole(name: str) -> str | None:
    """The same of every byte, of an adapter's base as well, and of a hub id that is cached."""
    where = locate(name)
    folders = [Path(where.name)]
    if where.kind == "adapter":
        base = whole(base_of(folders[0]).name)
        return None if base is None else cache.key(base, _every(folders[0]))
    if where.kind == "hub":
        from transformers.utils.hub import cached_file

        found = cached_file(
            where.name,
            "config.json",
            local_files_only=True,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        return None if found is None else cache.key(_every(Path(found).parent))
    return cache.key(_every(folders[0]))


def _every(folder: Path) -> list[list[str]]:
    files = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".json"))
    made = []
    for path in files:
        with path.open("rb") as stream:
            made.append([path.name, hashlib.file_digest(stream, "sha256").hexdigest()])
    return made


def _sampled(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        if size <= _BLOCKS * _BYTES:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        for number in range(_BLOCKS):
            stream.seek((size - _BYTES) * number // (_BLOCKS - 1))
            digest.update(stream.read(_BYTES))
    return digest.hexdigest()
