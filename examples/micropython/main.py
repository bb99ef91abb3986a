# A kitchen panel in MicroPython: reports a temperature, shows alarms, asks when its button is
# pressed, and switches a lamp when the answer is a command.
#
#   mpremote mip install umqtt.simple
#   mpremote cp main.py :main.py + reset
#
# Its topics are those of the flows `alarm` and `home` of flows.toml.
import json
import time

import network
from machine import Pin
from umqtt.simple import MQTTClient

WIFI, PASSWORD = "your-network", "your-password"
BROKER, PORT = "192.168.1.10", 1883

button, lamp = Pin(0, Pin.IN, Pin.PULL_UP), Pin(2, Pin.OUT)
last_call = None  # the last command that was carried out: delivery is at least once


def read_temperature():
    return 45.5  # your sensor


def on_message(topic, payload):
    global last_call
    if topic == b"home/devices/kitchen/light/set":
        command = json.loads(payload)
        if command["call_id"] != last_call:
            last_call = command["call_id"]
            lamp.value(1 if command["on"] else 0)
    else:
        print(f"{topic.decode()}: {payload.decode()}")  # your display


wifi = network.WLAN(network.STA_IF)
wifi.active(True)
wifi.connect(WIFI, PASSWORD)
while not wifi.isconnected():
    time.sleep(0.25)

client = MQTTClient("kitchen-panel", BROKER, PORT, keepalive=60)
client.set_callback(on_message)
client.connect()
for topic in (b"alerts/oven", b"home/panel/say", b"home/devices/kitchen/light/set"):
    client.subscribe(topic, 1)

reported = time.ticks_ms() - 10_000
while True:
    client.check_msg()
    if time.ticks_diff(time.ticks_ms(), reported) >= 10_000:
        reported = time.ticks_ms()
        client.publish(b"sensors/oven/telemetry", json.dumps({"temperature": read_temperature()}))
    if button.value() == 0:
        client.publish(b"home/panel/ask", b"Light up the kitchen.")
        time.sleep(0.5)
    time.sleep(0.05)
