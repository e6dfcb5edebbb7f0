/* newlib, which ESP-IDF has, knows strlcpy. */
#pragma once
#include_next <string.h>

#ifndef strlcpy
size_t strlcpy(char *to, const char *from, size_t n);
#endif
