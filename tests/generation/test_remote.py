"""A generator behind an address: a real server at the other end, nothing of ours replaced."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from chat_server import Reply, Server, serving

from luthier.core.errors import RecipeError, UserError
from luthier.core.generators import GeneratorSpec, Question
from luthier.core.records import Origin, Turn
from luthier.generation import remote
from luthier.generation.remote import RemoteWriter

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_FIRST", 0.01)


def questions(count: int = 6) -> list[Question]:
    return [
        Question((Turn("user", f"ask {n}"),), n, (Origin("a.csv", n % 3 + 1),))
        for n in range(count)
    ]


def writer(server: Server, said: list[str] | None = None, **changes: Any) -> RemoteWriter:
    spec = GeneratorSpec(model="m", url=server.url, **changes)
    return RemoteWriter(spec, (said if said is not None else []).append)


def echo(prompt: str, _number: int) -> Reply:
    return Reply(f"said {prompt}")


def test_answers_come_in_order_and_what_leaves_is_said() -> None:
    said: list[str] = []
    with serving(echo) as server:
        found = writer(server, said, temperature=0.3, max_tokens=9, body={"top_p": None, "n": 1})
        assert found.answers(questions()) == [f"said ask {n}" for n in range(6)]
    path, headers, body = min(server.seen, key=lambda each: each[2]["seed"])
    assert path == "/v1/chat/completions"
    assert "Authorization" not in headers
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "ask 0"}],
        "temperature": 0.3,
        "max_tokens": 9,
        "seed": 0,
        "n": 1,
    }
    host = server.url.removeprefix("http://").removesuffix("/v1")
    assert said == [
        f"6 questions with the text of 3 training rows to {host} (this machine), model m"
    ]


def test_a_second_start_asks_nothing() -> None:
    said: list[str] = []
    with serving(echo) as server:
        first = writer(server).answers(questions())
        assert writer(server, said).answers(questions()) == first
        assert (len(server.seen), said) == (6, []), "nothing was sent, so nothing is said"
        other = [*questions()[1:], Question((Turn("user", "ask 0"),), 99, ())]
        writer(server, said).answers(other)
        assert len(server.seen) == 7, "another seed is another question"
        assert said[0].startswith("1 question with the text of 0 training rows")
        writer(server, temperature=0.1).answers(questions(1))
        assert len(server.seen) == 8


def test_what_came_before_an_error_is_kept() -> None:
    broken = [True]

    def answer(prompt: str, number: int) -> Reply:
        return Reply(status=400, body="no") if prompt == "ask 3" and broken[0] else echo(prompt, 0)

    with serving(answer) as server:
        with pytest.raises(UserError, match="answered 400: no"):
            writer(server, parallel=1).answers(questions())
        assert server.asked == [f"ask {n}" for n in range(4)], "nothing is sent after an error"
        broken[0] = False
        assert writer(server).answers(questions()) == [f"said ask {n}" for n in range(6)]
        assert sorted(server.asked[4:]) == ["ask 3", "ask 4", "ask 5"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_address_is_asked_again(status: int) -> None:
    def answer(prompt: str, number: int) -> Reply:
        headers = {"Retry-After": "0"} if number == 1 else {}
        return Reply(status=status, body="busy", headers=headers) if number < 3 else echo(prompt, 0)

    with serving(answer) as server:
        assert writer(server).answers(questions(1)) == ["said ask 0"]
        assert len(server.seen) == 3
        server.seen.clear()
        new = [Question((Turn("user", "new"),), 5, ())]
        with pytest.raises(UserError, match=rf"answered {status}: busy"):
            writer(server, retries=1).answers(new)
        assert len(server.seen) == 2


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404])
def test_a_refusal_is_not_repeated(status: int) -> None:
    reply = Reply(status=status, body="no", headers={"Location": "/"})
    with (
        serving(lambda *_: reply) as server,
        pytest.raises(UserError, match=f"answered {status}: no") as caught,
    ):
        writer(server).answers(questions(1))
    assert len(server.seen) == 1
    [fault] = caught.value.faults
    assert fault.place == server.url
    assert fault.cure


def test_the_waits_double_and_are_bounded() -> None:
    waits = [remote._wait(None, attempt) for attempt in range(30)]
    assert all(w <= remote._LONGEST for w in waits)
    assert all(0.5 * 0.01 * 2**n <= waits[n] <= 0.01 * 2**n for n in range(8))
    assert remote._wait("7", 0) == 7
    assert remote._wait("99999", 0) == remote._LONGEST
    assert remote._wait("Wed, 21 Oct", 0) <= 0.01


def test_no_more_are_on_their_way_than_the_recipe_says() -> None:
    gate = threading.Barrier(3)

    def answer(prompt: str, _number: int) -> Reply:
        gate.wait(timeout=10)  # three at once, or none would come through
        return echo(prompt, 0)

    with serving(answer) as server:
        writer(server, parallel=3).answers(questions(6))
    assert server.most == 3


def test_the_key_goes_to_the_address_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("A_KEY", f"{KEY}\n")
    said: list[str] = []

    def answer(prompt: str, number: int) -> Reply:
        if number == 1:
            return echo(prompt, 0)
        padding = "x" * (remote._QUOTED - 10)  # the key stands where the quotation is cut
        return Reply(status=401, body=f"{padding}{KEY} is wrong")

    with serving(answer) as server:
        found = writer(server, said, key_env="A_KEY")
        found.answers(questions(1))
        assert server.seen[0][1]["Authorization"] == f"Bearer {KEY}"
        with pytest.raises(UserError) as caught:
            found.answers([Question((Turn("user", "again"),), 1, ())])
    everything = [str(caught.value), *said, repr(found._spec)]
    files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [text for text in (*everything, *files) if KEY[:8] in text]


def test_a_redirect_takes_nothing_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    with serving(echo) as other:
        away = Reply(status=307, body="", headers={"Location": f"{other.url}/chat/completions"})
        with serving(lambda *_: away) as server, pytest.raises(UserError, match="answered 307"):
            writer(server, key_env="A_KEY").answers(questions(1))
    assert other.seen == []


def test_keys_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = GeneratorSpec(model="m", url="http://127.0.0.1:1/v1", key_env="A_KEY")
    monkeypatch.delenv("A_KEY", raising=False)
    with pytest.raises(RecipeError, match="the variable A_KEY, which key_env names, is not set"):
        RemoteWriter(spec, print)
    monkeypatch.setenv("A_KEY", f"{KEY}\nX-Header: 1")
    with pytest.raises(RecipeError, match="A_KEY holds no key") as caught:
        RemoteWriter(spec, print)
    assert KEY not in str(caught.value)


def test_a_key_in_the_open_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    said: list[str] = []
    RemoteWriter(
        GeneratorSpec(model="m", url="http://far.example/v1", key_env="A_KEY"), said.append
    )
    assert said == ["the key in A_KEY goes to far.example unencrypted: the address is http"]
    said.clear()
    RemoteWriter(
        GeneratorSpec(model="m", url="https://far.example/v1", key_env="A_KEY"), said.append
    )
    assert said == []


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (Reply(None), None),
        (Reply("  \n"), None),
        (Reply("cut sho", finish="length"), None),
        (Reply("ok"), "ok"),
    ],
)
def test_answers_that_are_none(reply: Reply, found: str | None) -> None:
    with serving(lambda *_: reply) as server:
        assert writer(server).answers(questions(1)) == [found]


@pytest.mark.parametrize("body", ["<html>", "{}", '{"choices": []}', "[1]", "", "[" * 100_000])
def test_what_is_no_chat_completion(body: str) -> None:
    with (
        serving(lambda *_: Reply(body=body)) as server,
        pytest.raises(UserError, match="the answer is no chat completion") as caught,
    ):
        writer(server).answers(questions(1))
    assert len(str(caught.value)) < 1000


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(UserError, match=r"cannot be reached: .*refused"):
            RemoteWriter(GeneratorSpec(model="m", url=url), lambda _: None).answers(questions(1))


def test_nobody_answers() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        spec = GeneratorSpec(model="m", url=url, timeout=0.05)
        with pytest.raises(UserError, match=r"did not answer in 0\.05 seconds"):
            RemoteWriter(spec, lambda _: None).answers(questions(1))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"url": "ftp://x/v1"}, "must be an address"),
        ({"url": "127.0.0.1:8000"}, "must be an address"),
        ({"url": "http://me:pw@host/v1"}, "holds no password"),
        ({"url": "http://host/v1?key=1"}, "holds no password, query"),
        ({"key_env": "A"}, "'key_env' has no meaning without 'url'"),
        ({"body": {"n": 1}}, "'body' has no meaning without 'url'"),
        ({"url": "http://h/v1", "key_env": "sk-12 3"}, "key_env"),
    ],
)
def test_addresses_that_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GeneratorSpec(model="m", **values)
    assert GeneratorSpec(model="m", url="http://h/v1/").url == "http://h/v1"
