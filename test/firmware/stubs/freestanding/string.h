/* All of the C library that the core may use: whatever else it called would not compile here. */
#ifndef STUB_STRING_H
#define STUB_STRING_H
#include <stddef.h>

void *memcpy(void *to, const void *from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);
void *memchr(const void *bytes, int byte, size_t n);
size_t strlen(const char *text);
int strcmp(const char *a, const char *b);
char *strncpy(char *to, const char *from, size_t n);

#endif
