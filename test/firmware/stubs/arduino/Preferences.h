#pragma once
#include <stddef.h>
#include <stdint.h>

struct Preferences {
  bool begin(const char* name, bool readOnly = false);
  bool isKey(const char* key);
  bool remove(const char* key);
  size_t getBytes(const char* key, void* bytes, size_t length);
  size_t putBytes(const char* key, const void* bytes, size_t length);
  size_t getString(const char* key, char* value, size_t length);
  size_t putString(const char* key, const char* value);
  uint32_t getUInt(const char* key, uint32_t otherwise = 0);
  size_t putUInt(const char* key, uint32_t value);
};
