"""The recordings, and the state and messages that they were made with."""

from __future__ import annotations

import json
from pathlib import Path

RECORDINGS = Path(__file__).parent.parent / "recordings"
WEBHOOKS = json.loads((RECORDINGS / "webhooks.json").read_text())
REST = {item["title"]: item for item in json.loads((RECORDINGS / "rest-api.json").read_text())}
LAB_SQL = WEBHOOKS[0]["sql"]
B64_SQL = WEBHOOKS[6]["sql"]
REPLY_SQL = 'SELECT json_decode(payload) as p, base64_decode(p.correlation) as corr FROM "lab-out" '
CHAT_SQL = """SELECT 'chat' AS flow, id, clientid, username, topic, payload, qos, pub_props,
    publish_received_at, CASE WHEN is_null(pub_props.'Correlation-Data') THEN ''
    ELSE base64_encode(pub_props.'Correlation-Data') END AS correlation_base64
    FROM "lab3/request/+" """
IMAGE_SQL = """SELECT 'camera' AS flow, id, clientid, topic, base64_encode(payload)
    AS payload_base64, publish_received_at FROM "lab3/camera/+" """
RESOURCES = """
connectors.http.lab {{
  url = "{url}", pool_type = hash
  headers {{ authorization = "Bearer s3cret-token", content-type = "application/json" }}
}}
actions.http.lab {{
  connector = lab
  parameters {{ path = "/webhook" }}
  resource_opts {{ request_ttl = "10m", health_check_interval = "2s" }}
}}
"""
LAB_RULES = '''
rule_engine.rules.lab {{ description = "lab", sql = """{lab}""", actions = ["http:lab"] }}
'''
MORE_RULES = '''
rule_engine.rules.lab_b64 {{ sql = """{b64}""", actions = ["http:lab"] }}
rule_engine.rules.lab_reply {{ sql = """{reply}""", actions = [{{ function = republish, args = {{
  topic = "${{p.topic}}", payload = "${{p.payload}}", qos = 1, retain = false,
  mqtt_properties = {{ "Correlation-Data" = "${{corr}}" }}, user_properties = "${{p.user}}"
}} }}] }}
'''
EVERYTHING: dict[str, object] = {
    "User-Property": {"a": "2", "lang": "zh"},
    "User-Property-Pairs": [
        {"key": "a", "value": "1"},
        {"key": "a", "value": "2"},
        {"key": "lang", "value": "zh"},
    ],
    "Response-Topic": "lab/response/dev5",
    "Payload-Format-Indicator": 1,
    "Message-Expiry-Interval": 30,
    "Correlation-Data": b"\x00\xff\xfecorr",
    "Content-Type": "text/plain",
}
ASKING: dict[str, object] = {
    "User-Property": {},
    "Response-Topic": "lab/response/dev5",
    "Correlation-Data": b"corr-1",
}
BINARY_CORRELATION: dict[str, object] = {
    "User-Property": {},
    "Response-Topic": "lab3/response/u1",
    "Correlation-Data": b"\x00\xff",
}
NONE: dict[str, object] = {"User-Property": {}}
BYTES = b"\xff\xfe\x00binary\x80"
# in the order of webhooks.json: the SQL, the payload as it was sent, pub_props, retain
SENT: list[tuple[str, bytes, dict[str, object], bool]] = [
    (LAB_SQL, "你好 hello".encode(), EVERYTHING, False),
    (LAB_SQL, b'{"prompt":"x","n":1}', ASKING, False),
    (LAB_SQL, BYTES, NONE, False),
    (LAB_SQL, b"", NONE, False),
    (LAB_SQL, b'a"quote\\ \n newline \x01 ctrl', NONE, True),
    (LAB_SQL, b"a-0", NONE, False),
    (B64_SQL, "你好 hello".encode(), EVERYTHING, False),
    (B64_SQL, b'{"prompt":"x","n":1}', ASKING, False),
    (CHAT_SQL, b"hello 3.1.1", NONE, False),
    (IMAGE_SQL, b"\xff\xd8\xff\xe0jpeg", NONE, False),
    (CHAT_SQL, b"hello 5", BINARY_CORRELATION, False),
]
