"""MQTT 5's reason codes, as far as this broker says them, and what it raises with them."""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    """A reason code; those from 0x80 on are failures."""

    SUCCESS = 0x00
    DISCONNECT_WITH_WILL = 0x04
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    UNSPECIFIED_ERROR = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    UNSUPPORTED_PROTOCOL_VERSION = 0x84
    CLIENT_IDENTIFIER_NOT_VALID = 0x85
    NOT_AUTHORIZED = 0x87
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    PACKET_IDENTIFIER_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    ADMINISTRATIVE_ACTION = 0x98


# What a 3.1.1 client is told in a CONNACK: it knows five refusals.
CONNACK_311 = {
    Reason.SUCCESS: 0,
    Reason.UNSUPPORTED_PROTOCOL_VERSION: 1,
    Reason.CLIENT_IDENTIFIER_NOT_VALID: 2,
    Reason.NOT_AUTHORIZED: 5,
}


class ProtocolFault(Exception):
    """A client broke the protocol: its connection ends with this reason and these words."""

    def __init__(self, reason: Reason, words: str) -> None:
        super().__init__(words)
        self.reason = reason
        self.words = words


def malformed(words: str) -> ProtocolFault:
    return ProtocolFault(Reason.MALFORMED_PACKET, words)


def protocol_error(words: str) -> ProtocolFault:
    return ProtocolFault(Reason.PROTOCOL_ERROR, words)
