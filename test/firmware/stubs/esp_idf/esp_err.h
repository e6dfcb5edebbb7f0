/* What the ESP-IDF glue uses, declared only, with the names and types of ESP-IDF 5: enough to check syntax and types. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef int esp_err_t;
#define ESP_OK 0
#define ESP_FAIL -1
#define ESP_ERR_NO_MEM 0x101
#define ESP_ERR_INVALID_ARG 0x102
#define ESP_ERR_INVALID_VERSION 0x10a
#define ESP_ERROR_CHECK(call) ((void)(call))
