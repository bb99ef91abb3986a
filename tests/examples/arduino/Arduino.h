// What the sketch uses of Arduino's core for the ESP32, declared only.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstring>

typedef uint8_t byte;
enum { LOW, HIGH, INPUT, OUTPUT, INPUT_PULLUP };
void pinMode(uint8_t pin, uint8_t mode);
void digitalWrite(uint8_t pin, uint8_t value);
int digitalRead(uint8_t pin);
void delay(uint32_t ms);
unsigned long millis();
size_t strlcpy(char *to, const char *from, size_t size);

struct HardwareSerial {
  void begin(unsigned long baud);
  size_t printf(const char *format, ...) __attribute__((format(printf, 2, 3)));
};
extern HardwareSerial Serial;
