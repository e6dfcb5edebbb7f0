/* A simulated board: the core over whatever MQTT client is linked to it. device_board.c says how it is
 * started. What is here is the one or the other side of that seam. */
#ifndef DEVICE_BOARD_H
#define DEVICE_BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../firmware-protocol/src/fp.h"

/* How the client of a board behaves. */
typedef struct board_options {
  uint32_t packet_size;     /* largest packet that it receives, header and topic included */
  bool closes_on_overflow;  /* ends the connection when a larger one comes, as 256dpi/arduino-mqtt does */
} board_options;

/* ---- what a client gives ---------------------------------------------------------------------------- */

/* Highest QoS at which it publishes. */
extern const int client_qos_max;
/* Connects and waits for CONNACK. Returns its code, or -1 when it did not come that far. */
int client_connect(const board_options *options, const char *host, const char *port, const char *user,
                   const char *key);
fp_sent client_publish(const char *topic, const char *payload, size_t n, int qos);
bool client_subscribe(const char *filter, int qos);
/* Receives for a few ms, and tells board_message and board_puback. False: the connection is lost. */
bool client_loop(void);
/* Ends the connection, with DISCONNECT or without. */
void client_close(bool says_so);

/* ---- what the board is told ------------------------------------------------------------------------- */

/* `bytes`: size of the packet, 0 when the client does not say it. */
void board_message(const char *topic, const void *payload, size_t n, size_t bytes);
void board_puback(void);
/* A packet was larger than the client's buffer. */
void board_overflow(size_t bytes);

#endif
