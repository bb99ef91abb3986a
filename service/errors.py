"""Everything that can go wrong, by who can mend it.

* EmqxGptError
  * ConfigError            settings or flows.toml; the person who starts the service
  * ApiError               an HTTP caller of ours; carries the status
    + BadRequest 400, Unauthorized 401, NotFound 404, Conflict 409, TooLarge 413
    + Unavailable 503      the whole service can't store now; carries retry_after
  * MessageError           one device's message; it is told on the error topic
  * ModelError             the model's side; carries what `retry` needs to decide
  * BrokerError            EMQX's REST API; carries what `retry` needs to decide
  * StoreError             the database
    + StoreBusy            full, locked, away: try again later (becomes Unavailable)
    + StoreUnusable        wrong URL, wrong program, too new: a person has to act
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from service import safe_text


class EmqxGptError(Exception):
    """Base of all errors of this program; `code` is stable, `message` is for people.

    Whoever's words it holds, it is fit to be shown: on a terminal, in a log, to a device.
    """

    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        message = safe_text.line(message)
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault in a file or setting: where, what is wrong, what to do."""

    where: str
    message: str
    line: int | None = None
    hint: str = ""
    warning: bool = False

    def __post_init__(self) -> None:
        for name in ("where", "message", "hint"):
            object.__setattr__(self, name, safe_text.line(getattr(self, name)))

    def __str__(self) -> str:
        place = f"{self.where}:{self.line}" if self.line else self.where
        return f"{place}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class ConfigError(EmqxGptError):
    """Settings or flows that can't be used. `faults` lists all of them at once."""

    code = "config"

    def __init__(self, message: str, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(message)
        self.faults = faults


class ApiError(EmqxGptError):
    """An answer to an HTTP caller in the one error shape."""

    status = 500
    code = "internal"


class BadRequest(ApiError):
    """400: this can never become a request."""

    status = 400
    code = "bad_request"


class Unauthorized(ApiError):
    """401: bearer token missing or wrong."""

    status = 401
    code = "unauthorized"


class Forbidden(ApiError):
    """403: it comes from a page that has no business here."""

    status = 403
    code = "origin"


class NotFound(ApiError):
    """404."""

    status = 404
    code = "not_found"


class Conflict(ApiError):
    """409: the request is not in a state in which this can be done."""

    status = 409
    code = "conflict"


class Mismatch(ApiError):
    """422: an Idempotency-Key came before, with another question."""

    status = 422
    code = "key_reused"


class OverShare(ApiError):
    """202: nothing was stored, and its sender is told: EMQX must neither repeat nor hold it."""

    status = 202
    code = "share"


class TooLarge(ApiError):
    """413: over MAX_BODY."""

    status = 413
    code = "too_large"


class NotJson(ApiError):
    """415: only JSON is taken, and said to be."""

    status = 415
    code = "content_type"


class Unavailable(ApiError):
    """503 with Retry-After (seconds): EMQX keeps the message and tries again."""

    status = 503
    code = "unavailable"

    def __init__(self, message: str, *, code: str | None = None, retry_after: int = 1) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class TooManyAttempts(ApiError):
    """429 with Retry-After (seconds): too many wrong tokens."""

    status = 429
    code = "too_many_attempts"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class MessageError(EmqxGptError):
    """A device's message that can't be answered; its sender is told `message`."""

    code = "message"


class ErrorKind(StrEnum):
    """What an error speaks of, and so what waiting could mend."""

    REQUEST = "request"  # this question, as it stands, will fail again
    MODEL = "model"  # this model will not do it; another one might
    ANSWER = "answer"  # it answered, and was paid, with nothing that can be used
    PASSING = "passing"  # network, overload: the same call may succeed later
    RATE = "rate"  # the provider asks everyone to wait
    ACCOUNT = "account"  # key or quota: a person has to act; keep the backlog


class ModelError(EmqxGptError):
    """The model's side failed. `retry_after` in seconds, if the provider named it."""

    code = "model_error"

    def __init__(
        self,
        message: str,
        *,
        code: str,
        kind: ErrorKind,
        retry_after: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.kind = kind
        self.retry_after = retry_after
        self.status = status
        self.theirs = ""  # the server's words in `message`: they may hold the question itself
        self.usage: Any = None  # domain.Usage of an answer that came, but can't be used
        self.unasked = status is not None and status >= 400  # nothing of it can be billed

    @property
    def ours(self) -> str:
        """The message without the server's words, for the log."""
        return self.message.removesuffix(f": {self.theirs}") if self.theirs else self.message


class BudgetError(EmqxGptError):
    """A budget of the day is used up; `message` is for the sender, `about` names the budget.
    `begun`: tools had been called by then."""

    code = "limit"

    def __init__(self, message: str, about: str) -> None:
        super().__init__(message)
        self.about = about
        self.begun = False


class BrokerError(EmqxGptError):
    """EMQX's REST API failed. `refused`: this very message is refused, others may pass."""

    code = "broker_error"

    def __init__(
        self, message: str, *, code: str, refused: bool = False, status: int | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.refused = refused
        self.status = status


class StoreError(EmqxGptError):
    """The database."""

    code = "store"


class StoreBusy(StoreError):
    """Full, locked or away; nothing was written; the same call may succeed later."""

    code = "store_busy"


class StoreUnusable(StoreError):
    """Wrong URL, another program's database, a newer schema: a person has to act."""

    code = "store_unusable"
