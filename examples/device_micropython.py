"""A lamp on an ESP32 or Pico W that speaks with the tool `set_lamp` of the flow `house`.

MicroPython with umqtt: mip.install("umqtt.simple"). It speaks MQTT 3.1.1, so it says which command
it answers by sending the `call_id` back. The network is up before: see boot.py of your board.
"""

import json
import time

from machine import Pin
from umqtt.simple import MQTTClient

BROKER, PORT, ROOM = "192.168.1.10", 1883, "kitchen"
SET = b"house/lamps/%s/set" % ROOM.encode()
STATE = b"house/lamps/%s/state" % ROOM.encode()

lamp = Pin(2, Pin.OUT)


def answer(client, payload):
    """Do what the command says, and tell how the lamp is now."""
    try:
        command = json.loads(payload)
        lamp.value(1 if command["on"] else 0)
    except (ValueError, KeyError, TypeError):
        return  # no command: the lamp stays as it is
    state = {"on": bool(lamp.value()), "call_id": command.get("call_id")}
    client.publish(STATE, json.dumps(state).encode(), qos=1)


def run():
    client = MQTTClient("lamp-" + ROOM, BROKER, port=PORT, keepalive=60)
    commands = []
    client.set_callback(lambda topic, payload: commands.append(payload))
    client.connect()
    client.subscribe(SET, qos=1)
    print("at home: a lamp")
    while True:
        client.wait_msg()
        while commands:  # answered outside of the callback: umqtt waits for acknowledgements
            answer(client, commands.pop(0))


while True:
    try:
        run()
    except OSError as error:  # the broker or the network is away
        print("again in 5 s:", error)
        time.sleep(5)
