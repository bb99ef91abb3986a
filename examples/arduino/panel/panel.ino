// A kitchen panel on an ESP32: reports a temperature, shows alarms, asks when its button is pressed,
// and switches a lamp when the answer is a command.
//
// Libraries, from the Library Manager: PubSubClient, ArduinoJson. Board: any ESP32.
// Its topics are those of the flows `alarm` and `home` of flows.toml. Give those flows
// `max_length = 400`, or `chunk`, so that an answer fits into BUFFER (docs/flows.md, small devices).
#include <ArduinoJson.h>
#include <PubSubClient.h>
#include <WiFi.h>

const char *WIFI = "your-network", *PASSWORD = "your-password";
const char *BROKER = "192.168.1.10";
const uint16_t BUFFER = 1024;  // bytes for a whole packet, topic included; PubSubClient has 256
const int BUTTON = 0, LAMP = 2;

WiFiClient wifi;
PubSubClient mqtt(wifi);
char lastCall[64] = "";  // the last command that was carried out: delivery is at least once
unsigned long reported = 0;

float readTemperature() { return 45.5; }  // your sensor

void onMessage(char *topic, byte *payload, unsigned int length) {
  if (strcmp(topic, "home/devices/kitchen/light/set") == 0) {
    JsonDocument command;
    if (deserializeJson(command, payload, length)) return;  // no JSON: not for us
    const char *call = command["call_id"] | "";
    if (strcmp(call, lastCall) == 0) return;
    strlcpy(lastCall, call, sizeof lastCall);
    digitalWrite(LAMP, (command["on"] | false) ? HIGH : LOW);
    return;
  }
  Serial.printf("%s: %.*s\n", topic, (int)length, (const char *)payload);  // your display
}

void connect() {
  while (!mqtt.connected()) {
    if (mqtt.connect("kitchen-panel")) {
      mqtt.subscribe("alerts/oven", 1);
      mqtt.subscribe("home/panel/say", 1);
      mqtt.subscribe("home/devices/kitchen/light/set", 1);
    } else {
      delay(2000);
    }
  }
}

void setup() {
  Serial.begin(115200);
  pinMode(BUTTON, INPUT_PULLUP);
  pinMode(LAMP, OUTPUT);
  WiFi.begin(WIFI, PASSWORD);
  while (WiFi.status() != WL_CONNECTED) delay(250);
  mqtt.setServer(BROKER, 1883);
  mqtt.setBufferSize(BUFFER);
  mqtt.setCallback(onMessage);
}

void loop() {
  connect();
  mqtt.loop();
  if (reported == 0 || millis() - reported > 10000) {
    reported = millis();
    char reading[48];
    snprintf(reading, sizeof reading, "{\"temperature\": %.1f}", readTemperature());
    mqtt.publish("sensors/oven/telemetry", reading);
  }
  if (digitalRead(BUTTON) == LOW) {
    mqtt.publish("home/panel/ask", "Light up the kitchen.");
    delay(500);
  }
}
