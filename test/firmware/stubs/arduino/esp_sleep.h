#pragma once
#include <stdint.h>

extern "C" void esp_deep_sleep(uint64_t us) __attribute__((noreturn));
