#pragma once
#include "esp_err.h"

typedef struct {
  const char *url;
  const char *cert_pem;
  bool keep_alive_enable;
  esp_err_t (*crt_bundle_attach)(void *conf);
} esp_http_client_config_t;
typedef struct {
  const esp_http_client_config_t *http_config;
  bool bulk_flash_erase;
  bool partial_http_download;
  int max_http_request_size;
  bool ota_resumption;
  size_t ota_image_bytes_written;
} esp_https_ota_config_t;
typedef void *esp_https_ota_handle_t;
#define ESP_ERR_OTA_VALIDATE_FAILED 0x1503
#define ESP_ERR_HTTPS_OTA_IN_PROGRESS 0x9001
esp_err_t esp_https_ota_begin(const esp_https_ota_config_t *config, esp_https_ota_handle_t *handle);
esp_err_t esp_https_ota_perform(esp_https_ota_handle_t handle);
bool esp_https_ota_is_complete_data_received(esp_https_ota_handle_t handle);
esp_err_t esp_https_ota_finish(esp_https_ota_handle_t handle);
esp_err_t esp_https_ota_abort(esp_https_ota_handle_t handle);
int esp_https_ota_get_image_len_read(esp_https_ota_handle_t handle);
