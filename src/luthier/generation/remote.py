"""A generator behind an address that speaks OpenAI's chat completions.

The key comes from the environment and goes into one header, to that address alone: redirects are
not followed, and wherever an answer quotes the key it is taken out.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from http.client import HTTPException
from threading import Event
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from luthier.core.errors import RecipeError, UserError
from luthier.core.generators import GeneratorSpec, Question
from luthier.core.words import many
from luthier.generation.kept import Answers, answered, sampling

Say = Callable[[str], None]

#: Bytes of an answer, and of what is quoted of an error.
_MOST, _QUOTED = 1 << 24, 300
#: Seconds before the second attempt, doubled with each further one, and the most.
_FIRST, _LONGEST = 0.5, 60.0
_LOCAL = ("127.0.0.1", "::1", "localhost")


class _Straight(HTTPRedirectHandler):
    """Follows nothing: a redirect would take the key and the rows to another address."""

    def redirect_request(self, *_: Any) -> None:
        return None


class RemoteWriter:
    """Answers from an address, several at once, each kept as it comes.

    Args:
        spec: with its ``url``.
        say: told what leaves this process, before it does.

    Raises:
        RecipeError: the variable of the key is not set, or holds no key.
    """

    def __init__(self, spec: GeneratorSpec, say: Say) -> None:
        assert spec.url is not None
        self._spec, self._say = spec, say
        self._key = _key(spec.key_env)
        self._place = spec.url
        parts = urlsplit(spec.url)
        self._host = parts.netloc
        self._near = parts.hostname in _LOCAL
        if self._key and parts.scheme == "http" and not self._near:
            say(f"the key in {spec.key_env} goes to {self._host} unencrypted: the address is http")
        aside = [ProxyHandler({})] if self._near else []  # what stays here goes through no other
        self._opener = build_opener(_Straight(), *aside)

    def answers(self, questions: Sequence[Question]) -> list[str | None]:
        """An answer to each question; ``None`` where it is empty or was cut at its bound.

        Raises:
            UserError: the address cannot be reached, or refuses.
        """
        spec = self._spec
        identity = ["remote", spec.url, spec.model, sampling(spec), spec.body]
        return answered(identity, questions, 1, self._ask)

    def _ask(self, runs: Sequence[Sequence[Question]]) -> Iterator[tuple[int, Answers]]:
        """Answers as they come; after the first error nothing more is sent."""
        rows = {row for (question,) in runs for row in question.rows}
        near = "this machine" if self._near else "text of these rows leaves this machine"
        self._say(
            f"{many(len(runs), 'question')} with the text of {many(len(rows), 'training row')} "
            f"to {self._host} ({near}), model {self._spec.model}"
        )
        failed: BaseException | None = None
        stop = Event()
        pool = ThreadPoolExecutor(self._spec.parallel)
        try:
            waiting = {
                pool.submit(self._unless, stop, question): number
                for number, (question,) in enumerate(runs)
            }
            for done in as_completed(waiting):
                error = done.exception()
                if error is None:
                    yield waiting[done], [done.result()]
                elif failed is None and not isinstance(error, CancelledError):
                    failed = error
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
        if failed is not None:
            raise failed

    def _unless(self, stop: Event, question: Question) -> str | None:
        """An answer, unless another question failed before."""
        if stop.is_set():
            raise CancelledError
        try:
            return self._one(question, stop)
        except BaseException:
            stop.set()
            raise

    def _one(self, question: Question, stop: Event) -> str | None:
        for attempt in range(self._spec.retries + 1):
            try:
                return self._read(self._sent(question))
            except HTTPError as error:
                with error:
                    busy = error.code == 429 or error.code >= 500
                    if not busy or attempt == self._spec.retries:
                        raise self._refused(error) from None
                    wait = _wait(error.headers.get("Retry-After"), attempt)
                    if stop.wait(wait):
                        raise self._refused(error) from None
            except TimeoutError:
                raise self._late() from None
            except URLError as error:
                if isinstance(error.reason, TimeoutError):
                    raise self._late() from None
                reason = self._hidden(str(error.reason).encode())
                raise self._silent(f"cannot be reached: {reason}") from None
            except (OSError, HTTPException) as error:
                raise self._silent(f"broke off: {type(error).__name__}") from None
        raise AssertionError("the last attempt returns or raises")

    def _sent(self, question: Question) -> bytes:
        spec = self._spec
        fields: dict[str, Any] = {
            "model": spec.model,
            "messages": [{"role": t.role, "content": t.content} for t in question.turns],
            "temperature": spec.temperature,
            "top_p": spec.top_p,
            "max_tokens": spec.max_tokens,
            "seed": question.seed,
        }
        fields = {k: v for k, v in {**fields, **spec.body}.items() if v is not None}
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        text = json.dumps(fields).encode()
        request = Request(f"{self._place}/chat/completions", text, headers)  # noqa: S310 - http(s) only, by GeneratorSpec
        with self._opener.open(request, timeout=spec.timeout) as response:
            read: bytes = response.read(_MOST + 1)
        return read

    def _read(self, answer: bytes) -> str | None:
        """The text of a response.

        Raises:
            UserError: it is none of chat completions.
        """
        try:
            choice = json.loads(answer)["choices"][0]
            text, ended = choice["message"]["content"], choice.get("finish_reason")
        except (ValueError, LookupError, TypeError, RecursionError):
            raise UserError(
                f"the answer is no chat completion: {self._hidden(answer)}",
                self._place,
                "an address ends before /chat/completions: http://127.0.0.1:8000/v1",
                "generator",
            ) from None
        return text if isinstance(text, str) and text.strip() and ended != "length" else None

    def _refused(self, error: HTTPError) -> UserError:
        cures = {
            401: "does the variable that key_env names hold a key of this address?",
            403: "does the variable that key_env names hold a key of this address?",
            404: "is the address right up to /chat/completions, and the model's name?",
            429: "ask later, or less at once (parallel); what was answered is kept",
        }
        moved = "name the address that it leads to" if 300 <= error.code < 400 else ""
        return UserError(
            f"the generator answered {error.code}: {self._hidden(error.read(_MOST))}",
            self._place,
            cures.get(error.code, moved or "start again later; what was answered is kept"),
            "generator",
        )

    def _silent(self, reason: str) -> UserError:
        return UserError(
            f"the generator {reason}",
            self._place,
            "is it running, and is the address right? What was answered is kept",
            "generator",
        )

    def _late(self) -> UserError:
        return self._silent(f"did not answer in {self._spec.timeout:g} seconds")

    def _hidden(self, said: bytes) -> str:
        """The beginning of what was said, the key taken out before it is cut."""
        text = said.decode("utf-8", "replace").strip()
        return (text.replace(self._key, "[key]") if self._key else text)[:_QUOTED]


def _key(variable: str | None) -> str:
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise RecipeError(
            f"the variable {variable}, which key_env names, is not set",
            cure=f"export {variable}=…",
            code="generator",
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise RecipeError(
            f"the variable {variable} holds no key: it has spaces or other signs in it",
            code="generator",
        )
    return key


def _wait(asked: str | None, attempt: int) -> float:
    """Seconds before the next attempt: what the address asks for, else twice as long each time."""
    if asked is not None and asked.strip().isdecimal():
        return min(_LONGEST, float(asked))
    return min(_LONGEST, _FIRST * 2.0**attempt) * random.uniform(0.5, 1.0)
