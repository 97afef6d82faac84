"""BLEU, chrF and ROUGE equal sacrebleu and rouge-score; exact match normalises as it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from luthier.core.records import Origin, Scored
from luthier.metrics import bleu, chrf, exact_match, rouge

CAT = ("the cat sat on the mat", "the cat is on the mat")
HELLO = ("hello there general", "hello there general kenobi")
CHINESE = "我的订单什么时候能到？"
TEXT = (
    "the The cat cats running ran, mat. (well) isn't U.S. 3.5 2024 email@x.org — naïvely "
    'dogs\' "quoted" under_score a an of order delivery policies generously'
)


def corpus(seed: int, count: int = 25) -> list[tuple[str, tuple[str, ...]]]:
    """Answers near one or more references, and now and then an empty one."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        words = [str(word) for word in rng.choice(TEXT.split(), size=rng.integers(1, 15))]
        references = []
        for _ in range(rng.integers(1, 4)):
            kept = [word for word in words if rng.random() < 0.7]
            references.append(" ".join([*kept, str(rng.choice(TEXT.split()))]))
        pairs.append(("" if rng.random() < 0.1 else " ".join(words), tuple(references)))
    return pairs


def filled(metric: Any, pairs: Sequence[tuple[str, tuple[str, ...]]]) -> Any:
    for answer, references in pairs:
        metric.update(Scored(Origin("test", 1), answer=answer, references=references))
    return metric


def value(metric: Any, name: str) -> float:
    return float(metric.reduce(name, metric.rows()[name].sum(axis=0)))


def streams(pairs: Sequence[tuple[str, tuple[str, ...]]]) -> tuple[list[str], Any]:
    """sacrebleu's shape: answers, and one list a reference place, padded with ``None``."""
    places = max(len(references) for _, references in pairs)
    padded = [[*references, *[None] * (places - len(references))] for _, references in pairs]
    return [answer for answer, _ in pairs], [list(place) for place in zip(*padded, strict=True)]


PINNED = [(CAT[0], (CAT[1],)), (HELLO[0], (HELLO[1],))]


def test_pinned_figures_of_the_field() -> None:
    assert value(filled(bleu.Metric(), PINNED), "bleu") == pytest.approx(40.59, abs=0.005)
    characters = filled(chrf.Metric(), PINNED)
    assert value(characters, "chrf") == pytest.approx(70.79, abs=0.005)
    assert value(characters, "chrf_pp") == pytest.approx(71.32, abs=0.005)
    words = filled(rouge.Metric(), PINNED[:1])
    assert value(words, "rouge_1") == pytest.approx(0.8333, abs=5e-5)
    assert value(words, "rouge_2") == pytest.approx(0.6)
    assert value(words, "rouge_l") == pytest.approx(0.8333, abs=5e-5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("lowercase", [False, True])
def test_bleu_is_sacrebleus(seed: int, lowercase: bool) -> None:
    pairs = corpus(seed)
    ours = value(filled(bleu.Metric(bleu.Config(lowercase=lowercase)), pairs), "bleu")
    theirs = BLEU(lowercase=lowercase).corpus_score(*streams(pairs)).score
    assert ours == pytest.approx(theirs, rel=1e-12)


def test_reduced_bleu_is_compute_bleu_on_any_counts() -> None:
    rng = np.random.default_rng(0)
    total = rng.integers(0, 6, size=(500, 4))
    correct = np.minimum(total, rng.integers(0, 6, size=(500, 4)))
    lengths = rng.integers(1, 9, size=(500, 2))
    rows = np.hstack([correct, total, lengths]).astype(np.float64)
    theirs = [
        BLEU.compute_bleu(c.tolist(), t.tolist(), int(s), int(r), smooth_method="exp").score
        for c, t, (s, r) in zip(correct, total, lengths, strict=True)
    ]
    np.testing.assert_allclose(bleu.Metric().reduce("bleu", rows), theirs, rtol=1e-12)
    assert any(theirs)


def test_bleu_of_chinese_needs_its_tokenizer() -> None:
    pair = [(CHINESE, (CHINESE.replace("什么时候", "何时"),))]
    plain = value(filled(bleu.Metric(), pair), "bleu")
    chinese = value(filled(bleu.Metric(bleu.Config(tokenizer="zh")), pair), "bleu")
    theirs = BLEU(tokenize="zh").corpus_score([pair[0][0]], [[pair[0][1][0]]]).score
    assert chinese == pytest.approx(theirs)
    assert chinese > plain == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("whitespace", [False, True])
def test_chrf_is_sacrebleus(seed: int, whitespace: bool) -> None:
    pairs = corpus(seed)
    metric = filled(chrf.Metric(chrf.Config(whitespace=whitespace)), pairs)
    for name, order in (("chrf", 0), ("chrf_pp", 2)):
        theirs = CHRF(word_order=order, whitespace=whitespace).corpus_score(*streams(pairs)).score
        assert value(metric, name) == pytest.approx(theirs, rel=1e-12)


def test_reduced_chrf_is_sacrebleus_on_any_counts() -> None:
    rng = np.random.default_rng(0)
    sides = rng.integers(0, 5, size=(500, 6, 2))
    match = np.minimum(sides.min(axis=2), rng.integers(0, 5, size=(500, 6)))
    rows = np.concatenate([sides, match[..., None]], axis=2).reshape(500, 18).astype(np.float64)
    theirs = [CHRF()._compute_f_score(row) for row in rows.astype(int).tolist()]
    np.testing.assert_allclose(chrf.Metric().reduce("chrf", rows), theirs, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("stemmer", [False, True])
def test_rouge_is_rouge_scores_on_english(seed: int, stemmer: bool) -> None:
    # The one departure: letters beyond a to z are letters, so words with them are left out here.
    pairs = [
        (answer.replace("naïvely", "-"), tuple(r.replace("naïvely", "-") for r in references))
        for answer, references in corpus(seed)
    ]
    metric = filled(rouge.Metric(rouge.Config(stemmer=stemmer)), pairs)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stemmer)
    best = [scorer.score_multi(references, answer) for answer, references in pairs]
    for name, kind in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
        theirs = [score[kind].fmeasure for score in best]
        np.testing.assert_array_equal(metric.rows()[name][:, 0], theirs)
        assert value(metric, name) == pytest.approx(np.mean(theirs))


@pytest.mark.parametrize(
    "text",
    [
        CHINESE,
        "東京タワーは高いです",
        "ราคาเท่าไหร่ครับ",
        "Сколько стоит доставка?",
        "كم سعر التوصيل؟",
        "डिलीवरी कब होगी",
        "배송은 언제 오나요",
        "ຂອບໃຈຫຼາຍ",
    ],
)
def test_a_text_in_any_script_agrees_with_itself(text: str) -> None:
    metric = filled(rouge.Metric(), [(text, (text,))])
    for name in metric.names:
        assert value(metric, name) == pytest.approx(1)
    changed = filled(rouge.Metric(), [(text, (text[: len(text) // 2],))])
    assert 0 < value(changed, "rouge_1") < 1


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Naïve café", ["naïve", "café"]),
        ("我有2只cat。", ["我", "有", "2", "只", "cat"]),
        ("น้ำ", ["น้", "ำ"]),
        ("दिल्ली", ["दिल्ली"]),
        ("a\N{COMBINING ACUTE ACCENT}b under_score", ["áb", "under", "score"]),
        (". \N{COMBINING ACUTE ACCENT}x", ["x"]),
        ("🙂", []),
    ],
)
def test_words_keep_their_marks(text: str, tokens: list[str]) -> None:
    assert rouge.Tokenizer().tokenize(text) == tokens


def test_the_stemmer_leaves_words_of_three_letters_and_other_scripts() -> None:
    found = rouge.Tokenizer(stemmer=True).tokenize("was policies generously быстро naïves")
    assert found == ["was", "polici", "gener", "быстро", "naïves"]


@pytest.mark.parametrize(
    ("normalise", "answer", "reference", "equal"),
    [
        ("none", " Paris\n", "Paris", True),
        ("none", "paris", "Paris", False),
        ("light", "“Paris”.", "paris", True),
        ("light", "Yes,  we\ncan!", "yes, we can", True),
        ("light", "Stra\N{LATIN SMALL LETTER SHARP S}e", "STRASSE", True),
        ("light", "cafe\N{COMBINING ACUTE ACCENT}", "café", True),
        ("light", "3.5", "35", False),
        ("light", "-5", "5", False),
        ("light", "C#", "C", False),
        ("light", "x²", "x2", False),
        ("light", "?", "!", False),
        ("light", "好的。", "好的", True),
        ("squad", "The Eiffel Tower!", "eiffel tower", True),
        ("squad", "an apple a day", "apple day", True),
    ],
)
def test_exact_match(normalise: Any, answer: str, reference: str, equal: bool) -> None:
    metric = exact_match.Metric(exact_match.Config(normalise=normalise))
    filled(metric, [(answer, ("something else", reference))])
    assert value(metric, "exact_match") == equal
