// What the sketch uses of PubSubClient 2.8, declared only.
#pragma once
#include <functional>

#include "Arduino.h"
#include "WiFi.h"

class PubSubClient {
 public:
  explicit PubSubClient(Client &client);
  PubSubClient &setServer(const char *domain, uint16_t port);
  PubSubClient &setCallback(std::function<void(char *, uint8_t *, unsigned int)> call);
  bool setBufferSize(uint16_t size);
  bool connect(const char *id);
  bool connected();
  bool subscribe(const char *topic, uint8_t qos);
  bool publish(const char *topic, const char *payload);
  bool loop();
};
