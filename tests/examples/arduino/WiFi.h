// What the sketch uses of the ESP32's WiFi library, declared only.
#pragma once
#include "Arduino.h"

typedef enum { WL_CONNECTED = 3, WL_DISCONNECTED = 6 } wl_status_t;

class Client {};
class WiFiClient : public Client {};

struct WiFiClass {
  wl_status_t begin(const char *name, const char *password);
  wl_status_t status();
};
extern WiFiClass WiFi;
