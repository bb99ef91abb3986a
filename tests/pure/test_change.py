"""`on_change`: which values are others, and what is wrong with its keys."""

from __future__ import annotations

import pytest

from service.domain import Message
from service.flows import change, parse
from service.mqtt.templates import Scope

FLOW = """
[flows.door]
request = "doors/${door}"
reply = "said/${door}"
prompt = "${payload}"
"""


def flow(lines: str):
    made, faults = parse(FLOW + lines + "\n")
    assert made is not None, [str(fault) for fault in faults]
    return made.flows["door"]


@pytest.mark.parametrize(
    ("more", "last", "value", "other"),
    [
        ("", None, "open", True),
        ("", "open", "open", False),
        ("", "open", "Open", True),
        ("", "20", "20.0", True),
        ("deadband = 0.5", "20", "20.5", False),
        ("deadband = 0.5", "20", "20.6", True),
        ("deadband = 0.5", "20", "19.4", True),
        ("deadband = 0.5", "20", "off", True),
        ("deadband = 0.5", "off", "off", False),
        ("deadband = 0.5", "nan", "20", True),
        ("deadband = 0.5", None, "20", True),
        ('within = "5%"', "200", "210", False),
        ('within = "5%"', "200", "210.1", True),
        ('within = "5%"', "-200", "-190", False),
        ('within = "5%"', "0", "0.001", True),
        ("deadband = 0.3", "20.3", "20.6", False),
        ("deadband = 0.3", "20.6", "20.3", False),
        ("deadband = 0.3", "20.3", "20.600000000001", True),
        ("deadband = 0.3", "0.1", "0.4", False),
        ("deadband = 1e-7", "1e-07", "2e-07", False),
        ("deadband = 1", "9007199254740992", "9007199254740994", True),
        ('within = "10%"', "0.3", "0.33", False),
        ('within = "10%"', "1.1", "1.21", False),
        ('within = "10%"', "1.1", "1.2101", True),
        ('within = "1.1%"', "1000", "1011", False),
        ('within = "1.1%"', "-1000", "-1011.1", True),
        ("deadband = 5", "1_0", "10", True),
        ("deadband = 5", "١٠", "10", True),
        ("deadband = 5", " +10. ", "12", False),
        ("deadband = 5", "1e400", "1e401", True),
        ("deadband = 5", "1e-99999999999999999999", "5", False),
        ("deadband = 5", "1e308", "-1e308", True),
        ("deadband = 5", "1" * 5000, "1", True),
        ("deadband = 5", "0." + "1" * 5000, "5", False),
        ('within = "5%"\ndeadband = 1', "0", "1", False),
        ('within = "5%"\ndeadband = 1', "100", "104", False),
    ],
)
def test_which_values_are_others(more: str, last: str | None, value: str, other: bool) -> None:
    made = flow('on_change = "${payload}"\n' + more)
    assert change.changed(made, last, value) is other


def test_a_message_without_the_value_has_one_of_its_own() -> None:
    made = flow('on_change = "${payload.state}"')

    def value(payload: bytes) -> str:
        return change.value_of(made, Scope(Message("1", "doors/a", payload, 0), {"door": "a"}))

    found = [value(each) for each in (b'{"state":"open"}', b"{}", b'{"state":"undefined"}', b"no")]
    assert found == ["open", change.NOTHING, "undefined", change.NOTHING]


FAULTS = {
    "deadband = 0.5": "does nothing without on_change",
    'within = "5%"': "does nothing without on_change",
    'on_change = "open"': "is the same for every message",
    'on_change = "${state}"': "${payload.state}",
    'on_change = "${payload}"\nwithin = 5': 'write "5%"',
    'on_change = "${payload}"\nwithin = "5m"': "must be a share in percent",
    'on_change = "${payload}"\ndeadband = 0': "greater than 0",
}


@pytest.mark.parametrize(("lines", "said"), FAULTS.items())
def test_faults_are_told(lines: str, said: str) -> None:
    made, faults = parse(FLOW + lines + "\n")
    assert made is None
    assert any(said in str(fault) for fault in faults), [str(fault) for fault in faults]


def test_a_conversation_is_asked_one_at_a_time() -> None:
    assert flow('on_change = "${payload}"').ordered
    assert not flow("").ordered
