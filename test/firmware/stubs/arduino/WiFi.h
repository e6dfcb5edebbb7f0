#pragma once
#include "Arduino.h"

enum { WL_CONNECTED = 3 };
struct WiFiClass {
  int begin(const char* ssid, const char* passphrase);
  int status();
};
extern WiFiClass WiFi;

// As in the core for the ESP32; that for the ESP8266 returns nothing.
struct WiFiClient : Client {
  int setNoDelay(bool isSet);
};
