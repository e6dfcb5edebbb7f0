#pragma once
#include "Arduino.h"

enum { WL_CONNECTED = 3 };
struct WiFiClass {
  int begin(const char* ssid, const char* passphrase);
  int status();
};
extern WiFiClass WiFi;
