"""A kitchen panel: reports a temperature, says alarms, asks, and carries out what comes back.

    pip install paho-mqtt
    python panel.py [HOST] [PORT]

Its topics are those of the flows `alarm` and `home` of flows.toml.
"""

import json
import sys

import paho.mqtt.client as mqtt

HOST = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"
PORT = int(sys.argv[2]) if len(sys.argv) > 2 else 1883
seen = set()  # commands that were carried out: delivery is at least once


def read_temperature():
    return 45.5  # your sensor


def on_connect(client, userdata, flags, reason, properties):
    client.subscribe(
        [("alerts/oven", 1), ("home/panel/say", 1), ("home/devices/kitchen/light/set", 1)]
    )
    reading = {"temperature": read_temperature()}
    client.publish("sensors/oven/telemetry", json.dumps(reading), qos=1)
    client.publish("home/panel/ask", "Light up the kitchen.", qos=1)


def on_message(client, userdata, message):
    text = message.payload.decode()
    if message.topic == "home/devices/kitchen/light/set":
        command = json.loads(text)
        if command["call_id"] not in seen:
            seen.add(command["call_id"])
            print("lamp:", "on" if command["on"] else "off", flush=True)
    elif dict(getattr(message.properties, "UserProperty", ())).get("error"):
        print("no answer:", text, flush=True)  # a sentence that says why
    else:
        print("alarm:" if message.topic == "alerts/oven" else "says:", text, flush=True)


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.on_connect = on_connect
client.on_message = on_message
client.connect(HOST, PORT)
client.loop_forever()
