// What the sketch uses of ArduinoJson 7, declared only.
#pragma once
#include <cstddef>
#include <cstdint>

struct JsonVariant {
  const char *operator|(const char *otherwise) const;
  bool operator|(bool otherwise) const;
};

struct JsonDocument {
  JsonVariant operator[](const char *key);
};

struct DeserializationError {
  explicit operator bool() const;
};

DeserializationError deserializeJson(JsonDocument &into, const uint8_t *text, size_t length);
