"""Rows of named languages stay; what is too short to tell stays as well, and is said."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from luthier.core import kinds
from luthier.core import recipe as recipes
from luthier.core.contracts_data import Cleaned
from luthier.core.errors import RecipeError
from luthier.core.records import Conversation, Labelled, Origin, Record, SourceTarget, Text, Turn
from luthier.data.parts import read_parts

SAID = {
    "en": "Where is the parcel that you sent to me last week?",
    "es": "¿Dónde está el paquete que me enviaste la semana pasada?",
    "de": "Wo ist das Paket, das du mir letzte Woche geschickt hast?",
    "fr": "Où est le colis que tu m'as envoyé la semaine dernière ?",
    "ru": "Где посылка, которую ты отправил мне на прошлой неделе?",
    "ja": "先週あなたが私に送った荷物はどこにありますか、教えてください。",
    "tr": "Geçen hafta bana gönderdiğin paket nerede, söyler misin?",
    "pl": "Gdzie jest paczka, którą wysłałeś mi w zeszłym tygodniu?",
}


def texts(*said: str) -> list[Record]:
    return [Text(Origin("a", n), text) for n, text in enumerate(said, start=1)]


def clean(records: list[Record], *keep: str, **settings: Any) -> Cleaned:
    pytest.importorskip("py3langid")
    config = kinds.config("data/cleaners", {"kind": "language", "keep": list(keep), **settings})
    made: Cleaned = kinds.build("data/cleaners", config).clean(records)
    return made


@pytest.mark.parametrize("code", SAID)
def test_each_language_is_told_from_the_others(code: str) -> None:
    found = clean(texts(*SAID.values()), code)
    assert [r.text for r in found.records if isinstance(r, Text)] == [SAID[code]]
    assert (found.changed, found.dropped, found.notes) == (0, len(SAID) - 1, ())


def test_several_languages_stay() -> None:
    assert len(clean(texts(*SAID.values()), "de", "ja", "en").records) == 3


def test_short_texts_stay_and_are_said() -> None:
    found = clean(texts("Hola", "¿Qué?", "12 345 678 901 234", "", SAID["es"]), "en")
    assert (len(found.records), found.dropped) == (4, 1)
    assert found.notes == ("4 rows too short to tell, kept",)
    assert clean(texts("Guten Morgen"), "en", least_letters=5).dropped == 1


def test_every_text_of_a_row_is_judged() -> None:
    pair = [SourceTarget(Origin("a", 1), SAID["en"], SAID["es"])]
    assert clean(list(pair), "en").dropped == 1
    assert clean(list(pair), "en", "es").dropped == 0
    talk = Conversation(Origin("a", 1), (Turn("user", SAID["en"]), Turn("assistant", SAID["de"])))
    assert clean([talk], "en").dropped == 1
    assert clean([Labelled(Origin("a", 1), SAID["de"], "en")], "de").dropped == 0


def test_a_language_that_nobody_knows() -> None:
    with pytest.raises(RecipeError, match="'xx' is no language that can be told"):
        clean(texts("x"), "xx")
    for keep in ([], "English", ["EN"], None):
        with pytest.raises((kinds.BadConfigError, kinds.BadKindError)):
            kinds.config("data/cleaners", {"kind": "language", "keep": keep})
    with pytest.raises(kinds.BadConfigError):
        kinds.config("data/cleaners", "language")


def test_the_cure_is_named_where_the_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from luthier.data.cleaners import language

    language._identifier.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    config = kinds.config("data/cleaners", {"kind": "language", "keep": "en"})
    with pytest.raises(RecipeError) as caught:
        kinds.build("data/cleaners", config).clean(texts("x"))
    assert caught.value.faults[0].cure == "pip install 'luthier[language]'"
    language._identifier.cache_clear()


def test_in_a_recipe_it_is_counted_and_said() -> None:
    pytest.importorskip("py3langid")
    rows = [{"text": text} for text in (*SAID.values(), "ok")]
    data = {"train": rows, "validation": 0, "clean": [{"kind": "language", "keep": "en"}]}
    recipe = recipes.load({"model": "m", "objective": "language_modeling", "data": data})
    said: list[str] = []
    objective = kinds.build("objectives", recipe.objective)
    part, _ = read_parts(recipe.data, objective, 0, said.append)
    assert len(part.records) == 2
    assert part.cleaned == {"1 language": {"changed": 0, "dropped": 7}}
    assert "clean, language: 0 rows changed, 7 dropped" in said
    assert "clean, language: 1 row too short to tell, kept" in said


@pytest.mark.skipif(
    not os.environ.get("LUTHIER_DATA"), reason="LUTHIER_DATA names no folder of real data sets"
)
def test_english_and_spanish_sentences_of_tatoeba() -> None:
    path = Path(os.environ["LUTHIER_DATA"], "tatoeba_eng_spa", "spa.txt")
    if not path.exists():
        pytest.skip("LUTHIER_DATA holds no tatoeba_eng_spa/spa.txt")
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[:3_000]]
    english, spanish = (
        [each for each in texts(*side) if sum(map(str.isalpha, each.text)) >= 15]  # type: ignore[attr-defined]
        for side in zip(*(line[:2] for line in lines), strict=True)
    )
    kept = len(clean(english, "en").records) / len(english)
    leaked = len(clean(spanish, "en").records) / len(spanish)
    assert kept > 0.997
    assert leaked < 0.003
