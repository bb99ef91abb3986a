"""Into blobs and back; keys and texts that a column takes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.domain import Attempt, Entry, Message, Publish, Turn
from service.inbox import Change, codec, notices

anything = st.text(st.characters(codec=None), max_size=60)  # lone surrogates too
maybe = st.none() | anything
number = st.integers(-(2**62), 2**62)
properties = st.lists(st.tuples(anything, anything), max_size=3).map(tuple)

messages = st.builds(
    Message,
    id=anything,
    topic=anything,
    payload=st.binary(max_size=50),
    received_at=number,
    flow=maybe,
    clientid=maybe,
    username=maybe,
    qos=st.integers(0, 2),
    retained=st.booleans(),
    response_topic=maybe,
    correlation=st.none() | st.binary(max_size=20),
    content_type=maybe,
    expiry=st.none() | number,
    user_properties=properties,
)
publishes = st.builds(
    Publish,
    topic=anything,
    payload=st.binary(max_size=50) | anything.map(lambda t: t.encode("utf-8", "surrogatepass")),
    qos=st.integers(0, 2),
    retain=st.booleans(),
    content_type=maybe,
    correlation=st.none() | st.binary(max_size=20),
    expiry=st.none() | number,
    user_properties=properties,
)
attempts = st.builds(
    Attempt, at=number, took_ms=number, model=anything, result=anything, message=anything
)


def made_of(message: Message, flow: str | None, conversation: str) -> Entry:
    return Entry("id", flow, "d", conversation, True, message, 0, 0)


@given(messages, st.none() | anything.filter(bool), anything)
def test_messages_come_back(message: Message, flow: str | None, conversation: str) -> None:
    blob = codec.entry_out(made_of(message, flow, conversation))
    assert codec.message_in(blob, message.payload) == message
    names = codec.names_in(blob, codec.key(flow or ""), codec.key(conversation))
    assert names == (flow, conversation)


@given(st.lists(publishes, max_size=3).map(tuple))
def test_outboxes_come_back(outbox: tuple[Publish, ...]) -> None:
    assert codec.outbox_in(codec.outbox_out(outbox)) == outbox


@given(st.lists(attempts, max_size=3).map(tuple))
def test_attempts_come_back(made: tuple[Attempt, ...]) -> None:
    assert codec.attempts_in(codec.attempts_out(made)) == made


@given(anything, anything)
def test_turns_and_texts_come_back(user: str, assistant: str) -> None:
    turn = Turn(user, assistant, at=1, tokens=2)
    assert codec.turn_in(codec.turn_out(turn), 1, 2) == turn
    assert codec.text_in(codec.text_out(user)) == user


@given(anything)
def test_cleaned_text_is_taken_by_every_column(text: str) -> None:
    clean = codec.clean(text)
    assert "\0" not in clean
    clean.encode()
    assert len(clean) == len(text)


@given(anything, anything)
def test_keys_are_short_clean_and_never_shared(one: str, two: str) -> None:
    assert (codec.key(one) == codec.key(two)) == (one == two)
    assert len(codec.key(one * 9).encode()) <= codec.MAX_KEY
    assert "\0" not in codec.key(one)
    assert codec.key(codec.key(one * 99)) != codec.key(one * 99) or len(one * 99) < 200


def test_a_plain_name_is_its_own_key() -> None:
    assert codec.key("chat/user-1/語") == "chat/user-1/語"


def test_a_text_that_looks_like_a_hash_is_hashed() -> None:
    key = codec.key("x" * 1000)
    assert codec.key(key) != key


@given(st.integers())
def test_numbers_fit(value: int) -> None:
    assert -(2**63) <= codec.number(value) - 1 < codec.number(value) + 1 < 2**63


changes = st.builds(
    Change, id=anything, flow=maybe, conversation=anything, state=st.sampled_from(notices.State)
)


@given(st.lists(changes, max_size=200), st.booleans())
def test_notices_fit_and_come_back(made: list[Change], wake: bool) -> None:
    texts = notices.pack("me", wake, made)
    assert all(len(text.encode()) < 8000 for text in texts)
    heard = [notices.unpack(text) for text in texts]
    assert [(c.id, c.flow, c.state) for n in heard for c in n.changes] == [
        (c.id, c.flow, c.state) for c in made
    ]
    assert all((n.origin, n.wake) == ("me", wake) for n in heard)
    assert bool(texts) == bool(made or wake)
