#pragma once
#include "WiFiClientSecure.h"

enum HTTPUpdateResult { HTTP_UPDATE_FAILED, HTTP_UPDATE_NO_UPDATES, HTTP_UPDATE_OK };
class HTTPUpdate {
 public:
  void rebootOnUpdate(bool reboot);
  HTTPUpdateResult update(WiFiClientSecure& client, const char* url);
};
extern HTTPUpdate httpUpdate;
