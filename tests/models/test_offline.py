"""Law 10: no network at run time unless the recipe asks for it, tried where nothing forbids it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import builders
import pytest

#: Every attempt to reach a host is noted and fails; the last line says how many each load made.
SCRIPT = """
import json, socket, sys

tried = []

def refuse(*given, **_):
    tried.append(given)
    raise socket.gaierror("no network in tests")

socket.getaddrinfo = socket.socket.connect = socket.socket.connect_ex = refuse

from luthier.core.errors import UserError
from luthier.core.recipe import ModelSpec
from luthier.models.load import load

counts = {}
for name, spec in json.loads(sys.argv[1]).items():
    tried.clear()
    try:
        load(ModelSpec(**spec))
    except UserError:
        pass
    counts[name] = len(tried)
print(json.dumps(counts))
"""
#: What the libraries may find in the environment and take for a word against the network.
FORBIDDING = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "HF_HOME")


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How often a fresh process, free to use the network, tried to while it loaded models."""
    folder = tmp_path_factory.mktemp("model")
    builders.tiny("llama").save_pretrained(folder)
    builders.tokenizer().save_pretrained(folder)
    specs: dict[str, dict[str, object]] = {
        "folder": {"name": str(folder)},
        "offline": {"name": "luthier-tests/nothing", "offline": True},
        "hub": {"name": "luthier-tests/nothing"},
    }
    free = {name: value for name, value in os.environ.items() if name not in FORBIDDING}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(specs)],
        capture_output=True,
        text=True,
        env={**free, "HF_HOME": str(tmp_path_factory.mktemp("home"))},
    )
    assert done.returncode == 0, done.stderr
    counts: dict[str, int] = json.loads(done.stdout.split("\n")[-2])
    return counts


def test_law_10_a_folder_needs_no_network(attempts: dict[str, int]) -> None:
    assert attempts["folder"] == 0


def test_law_10_offline_means_it_even_for_a_hub_id(attempts: dict[str, int]) -> None:
    assert attempts["offline"] == 0


def test_a_hub_id_does_ask_the_network(attempts: dict[str, int]) -> None:
    assert attempts["hub"] > 0
