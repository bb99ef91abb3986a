"""A lamp, a door and a heater that speak with the tools of the flow `house` in flows.toml.

    pip install 'paho-mqtt>=2'
    python examples/device.py --host localhost --port 1883     # --v4 speaks MQTT 3.1.1

A command comes on `house/lamps/kitchen/set`: JSON with the arguments and a `call_id`. A device
does it, and answers with how it is now. Which call it answers, it says with MQTT 5 by sending the
command's Correlation-Data to its Response-Topic, and else by sending the `call_id` back.
"""

import argparse
import json

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def lamp(command):
    """Switch it here; what is told is how it is afterwards."""
    return {"on": command["on"]}


def door(command):
    return {"state": "unlocked"}


def heater(command):
    """A heater that can't do more than 21 °C says so: the model is told that it did not follow."""
    return {"target": min(command["temperature"], 21)}


DEVICES = {"lamps": lamp, "doors": door, "heaters": heater}
done = {}  # what was answered, by call_id: a command that comes twice is carried out once


def on_connect(client, userdata, flags, reason, properties):
    client.subscribe([(f"house/{kind}/+/set", 1) for kind in DEVICES])


def on_subscribe(client, userdata, mid, reasons, properties):
    print("at home: a lamp, a door, a heater", flush=True)


def on_message(client, userdata, message):
    try:
        command = json.loads(message.payload)
        call_id = command.get("call_id")
        state = done.get(call_id) or DEVICES[message.topic.split("/")[1]](command)
    except (ValueError, KeyError, TypeError, AttributeError):
        return  # no command: a device that does not understand does nothing
    if call_id is not None:
        state["call_id"] = call_id
        done.clear()  # the last one is enough
        done[call_id] = state
    where, properties = message.topic.removesuffix("set") + "state", None
    asked = message.properties  # None with MQTT 3.1.1
    if hasattr(asked, "ResponseTopic"):
        where = asked.ResponseTopic
    if hasattr(asked, "CorrelationData"):
        properties = Properties(PacketTypes.PUBLISH)
        properties.CorrelationData = asked.CorrelationData
    client.publish(where, json.dumps(state), qos=1, properties=properties)
    print(message.topic, command, "->", where, state, flush=True)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--host", default="localhost")
    options.add_argument("--port", type=int, default=1883)
    options.add_argument("--v4", action="store_true", help="speak MQTT 3.1.1")
    given = options.parse_args()
    version = mqtt.MQTTv311 if given.v4 else mqtt.MQTTv5
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=version)
    client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
    client.connect(given.host, given.port)
    client.loop_forever()  # and connect again, when the connection breaks


if __name__ == "__main__":
    main()
