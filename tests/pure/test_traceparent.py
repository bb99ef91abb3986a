"""W3C Trace Context: what is a trace, and what is none."""

import pytest

from service.mqtt.traceparent import Context, read

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("properties", "found"),
    [
        ([("traceparent", PARENT)], Context(TRACE, SPAN, "01")),
        ([("a", "b"), ("traceparent", PARENT), ("traceparent", "x")], Context(TRACE, SPAN, "01")),
        ([("traceparent", PARENT), ("tracestate", "a=1")], Context(TRACE, SPAN, "01", "a=1")),
        ([("traceparent", PARENT), ("tracestate", "a=\n")], Context(TRACE, SPAN, "01")),
        ([("traceparent", PARENT), ("tracestate", "a" * 513)], Context(TRACE, SPAN, "01")),
        ([("traceparent", f"00-{TRACE}-{SPAN}-ff")], Context(TRACE, SPAN, "03")),
        ([("traceparent", f"cc-{TRACE}-{SPAN}-01-what-comes")], Context(TRACE, SPAN, "01")),
        ([("traceparent", f"ff-{TRACE}-{SPAN}-01")], None),
        ([("traceparent", f"00-{TRACE}-{SPAN}-01-more")], None),
        ([("traceparent", f"00-{'0' * 32}-{SPAN}-01")], None),
        ([("traceparent", f"00-{TRACE}-{'0' * 16}-01")], None),
        ([("traceparent", PARENT + "\n")], None),
        ([("traceparent", f" {PARENT}")], None),
        ([("traceparent", "")], None),
        ([("Traceparent", PARENT)], None),
        ([("tracestate", "a=1")], None),
        ([], None),
    ],
)
def test_read(properties, found):
    assert read(properties) == found
    if found is not None:
        assert read(found.properties()) == found
