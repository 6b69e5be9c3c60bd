"""Frames: whole or not at all, bounded, and nothing but JSON objects."""

import json
import socket
import threading
from typing import Any

import pytest

from pytest_ocirun.agent import wire


def test_round_trip_in_any_pieces() -> None:
    """However the bytes arrive, the same messages come out, in order."""
    messages: list[dict[str, Any]] = [{"type": "a", "text": "é\udc80\x00"}, {"type": "b", "list": [1, 2.5, None, True]}]
    data = b"".join(wire.encode(wire.WORKER, message) for message in messages)

    for size in (1, 3, 7, len(data)):
        decoder, found = wire.Decoder(), []
        for start in range(0, len(data), size):
            decoder.feed(data[start : start + size])
            found += [(origin, wire.decode(body)) for origin, body in decoder.frames()]

        assert found == [(wire.WORKER, message) for message in messages]
        assert decoder.pending == 0


def test_announced_size_is_refused_before_it_arrives() -> None:
    """Four gigabytes are not waited for."""
    decoder = wire.Decoder()
    decoder.feed(wire.HEADER.pack(wire.WORKER, 0xFFFFFFFF))

    with pytest.raises(wire.WireError, match="a frame of 4294967295 bytes"):
        list(decoder.frames())


def test_too_large_a_message_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender learns it, so it can say less."""
    monkeypatch.setattr(wire, "MAX_FRAME", 100)

    with pytest.raises(wire.WireError, match="does not fit"):
        wire.encode(wire.WORKER, {"text": "x" * 100})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": "\xff"}',
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a": ' + b"9" * 10_000 + b"}",
    ],
)
def test_what_is_no_message(body: bytes) -> None:
    """Neither other JSON, nor what only Python's JSON takes, nor bombs."""
    with pytest.raises(wire.WireError):
        wire.decode(body)


def test_not_a_number_is_not_sent() -> None:
    """NaN is no JSON, whoever sends it."""
    with pytest.raises(ValueError, match="JSON"):
        wire.encode(wire.WORKER, {"duration": float("nan")})


def test_channel_reads_whole_messages() -> None:
    """The worker's end blocks until a message is whole, and says when the host has gone."""
    ours, theirs = socket.socketpair()
    channel = wire.Channel(theirs, wire.WORKER)
    frame = wire.encode(wire.HOST, {"type": "run"})

    def drip() -> None:
        for place in range(len(frame)):
            ours.send(frame[place : place + 1])
        ours.close()

    thread = threading.Thread(target=drip)
    thread.start()
    assert channel.receive() == {"type": "run"}
    assert channel.receive() is None
    thread.join()
    theirs.close()


def test_frames_are_ascii() -> None:
    """Whatever the text, a frame's body is ASCII: no decoder of the host can stumble."""
    frame = wire.encode(wire.WORKER, {"text": "\ud800 ☃ \x1b"})

    assert json.loads(frame[wire.HEADER.size :].decode("ascii"))["text"] == "\ud800 ☃ \x1b"
