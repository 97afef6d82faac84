"""A subset by clusters has the rare kinds of text in it that a draw loses."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from luthier.core import kinds
from luthier.core import recipe as recipes
from luthier.core.errors import RecipeError
from luthier.core.recipe_parts import SubsetSpec
from luthier.core.records import Floats, Origin, Text
from luthier.data.parts import read_parts
from luthier.data.subset import subset, weighted_words

WORDS = {
    kind: words.split()
    for kind, words in {
        "parcels": "parcel courier delivery address street tracking late arrived box door",
        "cards": "card bank pin account blocked payment machine cash fee refund",
        "sheep": "wool shepherd pasture lamb fleece shears flock meadow barn ram",
    }.items()
}


def records(sizes: dict[str, int]) -> list[Text]:
    rng = random.Random(1)
    rows = [
        f"the {' and the '.join(rng.sample(WORDS[kind], 7))} {n}"
        for kind, size in sizes.items()
        for n in range(size)
    ]
    rng.shuffle(rows)
    return [Text(Origin("a", n + 1), row) for n, row in enumerate(rows)]


def drawn(rows: Sequence[Text], spec: SubsetSpec, seed: int = 0) -> list[int]:
    return subset(rows, spec, seed, lambda line: None, None)


def rare(rows: Sequence[Text], indices: Sequence[int]) -> int:
    return sum(any(word in rows[i].text for word in WORDS["sheep"]) for i in indices)


def test_a_rare_kind_of_text_is_kept_where_a_draw_loses_it() -> None:
    rows = records({"parcels": 600, "cards": 396, "sheep": 4})
    by_clusters = [drawn(rows, SubsetSpec(rows=40, by="clusters"), seed) for seed in range(8)]
    by_chance = [drawn(rows, SubsetSpec(rows=40), seed) for seed in range(8)]
    assert all(len(kept) == 40 for kept in (*by_clusters, *by_chance))
    assert all(rare(rows, kept) for kept in by_clusters), "there every time"
    assert sum(rare(rows, kept) == 0 for kept in by_chance) >= 4, "lost more often than not"
    cards = [sum(any(w in rows[i].text for w in WORDS["cards"]) for i in k) for k in by_clusters]
    assert all(10 <= count <= 22 for count in cards), "and the common kinds keep their share"


def test_it_is_the_same_each_time_and_another_with_another_seed() -> None:
    rows = records({"parcels": 60, "cards": 40})
    spec = SubsetSpec(rows=10, by="clusters", clusters=3)
    assert drawn(rows, spec) == drawn(rows, spec) == sorted(set(drawn(rows, spec)))
    assert drawn(rows, spec) != drawn(rows, spec, 1)


@pytest.mark.parametrize("count", [2, 3, 17, 99])
@pytest.mark.parametrize("clusters", [2, 16, 200, None])
def test_exactly_so_many_rows(count: int, clusters: int | None) -> None:
    rows = records({"parcels": 60, "cards": 30, "sheep": 10})
    spec = SubsetSpec(rows=count, by="clusters", clusters=clusters)
    assert len(set(drawn(rows, spec))) == count


def test_rows_without_a_word_are_drawn_as_well() -> None:
    rows = [Text(Origin("a", n), "?!" if n % 2 else "") for n in range(10)]
    assert len(drawn(rows, SubsetSpec(rows=4, by="clusters"))) == 4


def test_weighted_words_tell_texts_apart() -> None:
    said = [
        "the cat sat on the mat 77",
        "THE mat, on the cat sat",
        "a field of wheat",
        "wheat field 77 alone",
        "",
        "? 9",
        "seldom",
    ]
    vectors = weighted_words(said)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 1, 0, 0, 0])
    assert np.allclose(vectors[0], vectors[1]), "order, case and numbers do not count"
    assert np.allclose(vectors[2], vectors[3]), "nor do words of one text alone"
    assert abs(vectors[0] @ vectors[2]) < 0.3
    common = [*[f"the {word}" for word in "abcdefgh"], "the cat", "a cat"]
    alike = weighted_words(common)
    assert alike[8] @ alike[9] > alike[8] @ alike[0], "a rare word says more than a common one"


class Encoder:
    """Embeds by length, and says which model was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def writer(self, *_: object) -> None:
        raise AssertionError

    def embed(self, model: str, texts: Sequence[str], say: Callable[[str], None]) -> Floats:
        self.asked.append(model)
        return np.array([[len(text) > 50, len(text) <= 50] for text in texts], dtype=np.float32)


def test_in_a_recipe_with_an_encoder() -> None:
    rows = [{"text": f"short {n}" if n % 25 else f"long {n} " + "x" * 60} for n in range(100)]
    data = {
        "train": rows,
        "validation": 0,
        "subset": {"rows": 5, "by": "clusters", "model": "enc", "clusters": 2},
    }
    recipe = recipes.load({"model": "m", "objective": "language_modeling", "data": data})
    objective = kinds.build("objectives", recipe.objective)
    encoder, said = Encoder(), list[str]()
    part, _ = read_parts(recipe.data, objective, 0, said.append, encoder)  # type: ignore[arg-type]
    assert encoder.asked == ["enc"]
    texts = [record.text for record in part.records if isinstance(record, Text)]
    assert [text[:5] for text in sorted(texts)] == ["long ", *["short"] * 4]
    assert "a subset of 5 of 100 training rows, as data.subset says" in said
    assert (
        "2 clusters of texts by vectors of enc, the smallest of 4 rows, the largest of 96 rows"
        in said
    )
    plain = recipes.load({**recipe.plain(), "data": {**data, "subset": 5}})
    other, _ = read_parts(plain.data, objective, 0, said.append)
    assert other.fingerprint != part.fingerprint


def test_settings_that_would_do_nothing() -> None:
    for values in ({"model": "m"}, {"clusters": 3}):
        with pytest.raises(RecipeError, match="no meaning without 'by: clusters'"):
            recipes.load({"model": "m", "data": {"train": "x", "subset": {"rows": 5, **values}}})
    with pytest.raises(RecipeError):
        recipes.load({"model": "m", "data": {"train": "x", "subset": 1}})
    spec = recipes.load({"model": "m", "data": {"train": "x", "subset": 7}})
    assert spec.data.subset == SubsetSpec(rows=7)
    assert recipes.load(spec.resolved()) == spec
