// What the sketches use of the Arduino core, declared only: enough to check syntax and types.
#pragma once
#include <stddef.h>
#include <stdint.h>

#define OUTPUT 1
#define INPUT 0

unsigned long millis();
void delay(unsigned long ms);
void pinMode(uint8_t pin, uint8_t mode);
void digitalWrite(uint8_t pin, uint8_t value);
int analogRead(uint8_t pin);
long random(long high);

struct EspClass {
  void restart();
};
extern EspClass ESP;

struct Client {
  virtual ~Client() {}
};
