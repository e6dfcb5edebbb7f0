#pragma once
#include "FreeRTOS.h"

typedef struct tskTaskControlBlock *TaskHandle_t;
BaseType_t xTaskCreate(void (*code)(void *), const char *name, uint32_t stack, void *ctx, UBaseType_t priority,
                       TaskHandle_t *task);
void vTaskDelay(TickType_t ticks);
void vTaskDelete(TaskHandle_t task);
