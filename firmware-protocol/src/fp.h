/* The firmware's side of Puback's contract v1 in C99: no heap, no stdio, nothing but mem*, strlen, strncpy
 * and floating point. Drives any MQTT 3.1.1 client through callbacks. docs/firmware.md shows it in use.
 *
 * An fp_client belongs to one task: call everything from there, or hold a lock. The only callbacks that
 * run inside fp_on_message and fp_on_part are `refused` and `keep_key`; commands and configuration are
 * copied and run in fp_tick, where it is safe to publish.
 *
 * fp.c is the core: JSON, what is kept, commands, clock, backoff and the check of keys. It links alone; then
 * fp_obey, fp_answer and fp_clock_set stand in for fp_tick. fp_client.c drives it: greeting, configuration,
 * new keys, pieces of payloads.
 *
 * `now` is milliseconds since boot and may wrap: millis(), or esp_timer_get_time() / 1000. Readings that
 * were not acknowledged are the application's to keep: the core buffers none. */
#ifndef FP_H
#define FP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../generated/fp_contract.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- JSON reader ------------------------------------------------------------------------------------ */

/* Text of one JSON value inside a payload, strings with their quotes. Valid as long as the payload is. */
typedef struct fp_span {
  const char *p;
  size_t n;
} fp_span;

/* Deepest nesting that is read; what is deeper counts as malformed. */
#define FP_DEPTH_MAX 32

/* Whether a text is exactly one JSON value. Linear, no recursion. Words and numbers are checked when they
 * are read, here only for their characters. */
bool fp_json_ok(fp_span text);
/* Finds a member of an object; the last one when it stands twice. False: not there, or the object is
 * malformed anywhere, so a payload that was cut off has no members at all. */
bool fp_get(fp_span object, const char *name, fp_span *value);
/* Finds an element of an array, the first being 0. False as in fp_get. */
bool fp_at(fp_span array, size_t index, fp_span *value);
/* These return false, and leave *out alone, when the value is of another type or does not fit. */
bool fp_bool(fp_span value, bool *out);
/* Exact up to 15 digits and 10^±22, else within a few units of the last place. From 1e-290 to
 * 1e290: what is smaller may be 0, what is larger may be refused. Leading zeros are taken. */
bool fp_num(fp_span value, double *out);
bool fp_i64(fp_span value, int64_t *out);
bool fp_u32(fp_span value, uint32_t *out);
/* Decodes a string into UTF-8 with a NUL; what did not fit may have been begun. False as well for U+0000 and for
 * the escape of one half of a surrogate pair. */
bool fp_str(fp_span value, char *out, size_t capacity);
/* Whether a value is a string of this text. */
bool fp_eq(fp_span value, const char *text);

/* ---- JSON writer ------------------------------------------------------------------------------------ */

/* Writes into the caller's buffer. What does not fit makes it `full`, and it stays so: check once at the end. */
typedef struct fp_w {
  char *p;
  size_t capacity;
  size_t n;
  const char *code;
  const char *msg;
  bool full;
} fp_w;

void fp_w_init(fp_w *w, char *buffer, size_t capacity);
/* Ends the text with a NUL. Returns its length; 0 when it did not fit. */
size_t fp_w_end(fp_w *w);
/* Members of an object have a name; elements of an array, and the outermost value, have NULL. */
void fp_obj(fp_w *w, const char *name);
void fp_obj_end(fp_w *w);
void fp_arr(fp_w *w, const char *name);
void fp_arr_end(fp_w *w);
/* The fewest digits that give the number again, by the precision of a float where it came from one. What is
 * no finite number is null: a missing value. */
void fp_add_num(fp_w *w, const char *name, double value);
void fp_add_int(fp_w *w, const char *name, int64_t value);
void fp_add_bool(fp_w *w, const char *name, bool value);
/* Escapes; bytes that are no UTF-8 become '?'. NULL is written as null. */
void fp_add_str(fp_w *w, const char *name, const char *text);
/* Adds JSON as it is. */
void fp_add_raw(fp_w *w, const char *name, fp_span json);
/* One metric of a series, as an array. */
void fp_add_nums(fp_w *w, const char *name, const float *values, size_t count);
/* Says why a command fails or a configuration is not applied; for programs (at most 11 characters are
 * kept for repeats) and for people. Either may be NULL; both must stay valid until the handler returned. */
void fp_fail(fp_w *w, const char *code, const char *msg);

/* ---- what the application gives --------------------------------------------------------------------- */

/* How a command ended. FP_ST_UNKNOWN: taken, but power was lost before the end. */
typedef enum fp_st { FP_ST_UNKNOWN = 0, FP_ST_OK = 1, FP_ST_RUN = 2, FP_ST_ERR = 3, FP_ST_NO = 4 } fp_st;

typedef struct fp_cmd {
  uint32_t id;
  fp_span name; /* compare with fp_eq */
  fp_span args; /* an object */
  uint32_t n;   /* commands that wait, this one included */
  uint32_t exp; /* unix seconds from which on it is not executed; 0: never */
} fp_cmd;

/* What became of a publish: not taken (try later), done (QoS 0, or acknowledged already), or open: the
 * PUBACK comes later and fp_on_puback tells it. */
typedef enum fp_sent { FP_SENT_NOT = 0, FP_SENT_DONE = 1, FP_SENT_OPEN = 2 } fp_sent;

typedef struct fp_port {
  void *ctx; /* handed to every callback */
  fp_sent (*publish)(void *ctx, const char *topic, const char *payload, size_t n, int qos);
  bool (*subscribe)(void *ctx, const char *filter, int qos);
  /* Reads or writes one of two slots (0, 1) of storage that survives a reset. `save` returns true only
   * once it is durable; a torn write is recognised and the other slot counts. `load` returns false when
   * the slot was never written. Both NULL: nothing survives, and commands repeat after a reset. */
  bool (*load)(void *ctx, unsigned slot, void *record, size_t n);
  bool (*save)(void *ctx, unsigned slot, const void *record, size_t n);
  /* Executes a command; adds the members of the result, if any, to `result`. FP_ST_RUN: not finished,
   * fp_done follows. FP_ST_NO: not a command of this firmware, or wrong arguments. */
  fp_st (*command)(void *ctx, const fp_cmd *cmd, fp_w *result);
  /* Whether a command is saved after it was executed (at least once: it may be repeated after a crash) and
   * not before (at most once). NULL: always before. */
  bool (*save_after)(void *ctx, const fp_cmd *cmd);
  /* Applies a configuration, always the whole document. Adds the values in effect to `report` where they
   * differ. False: not applied, see fp_fail. NULL: this firmware has no configuration. */
  bool (*config)(void *ctx, fp_span cfg, fp_w *report);
  /* Told when the broker refused something (`in/err`); each may be an empty span. Must not publish. */
  void (*refused)(void *ctx, fp_span code, fp_span channel, fp_span msg);
  /* Stores a key and user name in slot 0 or 1, durably. NULL: sys.rekey is not known. Must not publish. */
  bool (*keep_key)(void *ctx, unsigned slot, const char *user, const char *key);
  /* Restarts the board, for sys.reboot, and does not return. NULL, or without `save`: sys.reboot goes to
   * `command`, because it would come again after each restart. */
  void (*restart)(void *ctx);
} fp_port;

/* What `hello` says of the board. Texts may be NULL, numbers 0: not said. */
typedef struct fp_about {
  const char *fw;    /* version of the firmware */
  const char *ota;   /* new pending valid invalid aborted */
  const char *mdl;   /* model */
  const char *hw;    /* chip */
  const char *rst;   /* reset reason */
  const char *units; /* JSON: {"temp":"Cel"} */
  uint32_t mps;      /* largest MQTT packet that the client can receive */
  uint32_t sleep_s;  /* planned seconds between contacts; 0: always on */
  uint8_t qos;       /* of hello, ack, cfg and key: 0 or 1 */
  bool keeps_config; /* the application stores its configuration itself: it is not applied anew at each boot */
} fp_about;

/* ---- client ----------------------------------------------------------------------------------------- */

/* What survives a reset: kept by `save` as it is, in two slots in turn. */
typedef struct fp_kept {
  uint32_t magic;
  uint32_t generation;
  uint32_t last;      /* id of the last command taken */
  uint32_t st;        /* what became of it, fp_st */
  uint32_t cfg_v;     /* version of the last configuration seen */
  uint32_t cfg_state;
  uint32_t boot;      /* boot counter */
  uint32_t key_slot;  /* key that the broker greeted last, or a newer one */
  char code[12];      /* why it failed or was not taken */
  uint32_t crc;
} fp_kept;

/* State of a client. Read what has a comment, write nothing. */
typedef struct fp_client {
  uint32_t now;
  uint32_t due;
  const fp_port *port;
  const fp_about *about;
  char *rx;
  uint32_t rx_capacity;
  char *tx;
  uint32_t tx_capacity;
  uint32_t cmd_n;
  uint32_t cfg_n;
  uint32_t reading;
  uint32_t part_kind;
  uint32_t part_at;
  uint32_t part_n;
  uint32_t hello_up;
  uint32_t rekey_id;
  uint32_t is_connected;
  uint32_t is_cfg_settled;
  fp_kept kept;
  uint32_t unacked;      /* publishes whose PUBACK has not come */
  uint32_t waiting;      /* commands that wait, as far as is known */
  uint32_t running;      /* commands that were answered FP_ST_RUN and are not done */
  uint32_t desired_cfg;  /* version of the configuration that the broker wants */
  uint32_t stored_seq;   /* highest seq up to which everything is stored */
  uint32_t is_greeted;   /* the broker has answered on this connection */
  uint32_t is_lost;
  uint32_t is_busy;
  uint32_t is_key_wanted;
  uint32_t is_reconnecting;
  uint32_t key_slot;     /* of the key to connect with next, 0 or 1 */
  uint32_t key_from;
  uint32_t key_ms;
  uint32_t begun_at;
  uint32_t connected_at;
  uint32_t asked_at;
  uint32_t failed_at;
  uint32_t quiet_from;
  uint32_t quiet_ms;
  uint32_t attempts;
  uint32_t connack;
  uint32_t too_big;      /* messages that never fit rx */
  uint32_t unix_at;
  uint64_t unix_ms;
} fp_client;

/* How fp_begin found the record. LOST: it was there and is damaged; then the first command is answered
 * `dup` and not executed, because nobody knows whether it was before. */
typedef enum fp_record { FP_RECORD_FOUND, FP_RECORD_NEW, FP_RECORD_LOST } fp_record;

/* `port`, `about` and the buffers stay the client's until the end. rx: at least as large as the largest
 * payload that is wanted (mps); tx: 256 unless results and reports are larger; at least 64. */
void fp_init(fp_client *c, const fp_port *port, const fp_about *about);
void fp_buffers(fp_client *c, char *rx, size_t rx_capacity, char *tx, size_t tx_capacity);
/* Reads the record. `is_boot`: counts a boot; say false after deep sleep when `seq` goes on. */
fp_record fp_begin(fp_client *c, uint32_t now, bool is_boot);

/* Tell what happens on the connection. */
void fp_on_connected(fp_client *c, uint32_t now);
void fp_on_disconnected(fp_client *c);
/* `connack`: return code of CONNACK, 0 when it did not come that far. After 4 or 5 the other key is tried. */
void fp_on_refused(fp_client *c, uint8_t connack);
void fp_on_puback(fp_client *c);
void fp_on_message(fp_client *c, uint32_t now, const char *topic, const void *payload, size_t n);
/* One piece of a payload that starts at `index` of `total`. The topic counts where index is 0. */
void fp_on_part(fp_client *c, uint32_t now, fp_span topic, fp_span piece, size_t index, size_t total);
/* Does what is due: subscribes, says hello, executes the command that waits, applies configuration,
 * answers. Call it often, never from inside the MQTT client's message callback. */
void fp_tick(fp_client *c, uint32_t now);

/* Publishes. False: not taken; keep it and try again. Never from inside the client's message callback. */
bool fp_publish(fp_client *c, const char *topic, const char *payload, size_t n, int qos);
/* Publishes what was written to `data`. False as well when it did not fit, or while the broker asks for
 * quiet (in/err rate). */
bool fp_send(fp_client *c, uint32_t now, fp_w *w, int qos);
/* Asks for a fresh greeting. */
void fp_hello(fp_client *c);
/* Claims a key (the board is connected with a pbc_ key); keep_key gets it. */
void fp_claim(fp_client *c);

/* For the core alone. Executes the command of a slot (the payload of in/cmd) with `execute`, in place of the
 * port's `command`, unless that was done before, and answers it. False: say fp_answer. */
typedef fp_st fp_execute(fp_client *c, const fp_cmd *cmd, fp_w *result);
bool fp_obey(fp_client *c, uint32_t now, fp_span slot, fp_execute *execute);
/* For the core alone: answers what became of the last command. False: not taken, try again. */
bool fp_answer(fp_client *c);
/* Starts the answer of a command that ran: add the members of its result, then call fp_done. */
void fp_result(fp_w *w, char *buffer, size_t capacity);
/* Answers a command whose handler returned FP_ST_RUN. `w` NULL: no result. False: not taken, try again. */
bool fp_done(fp_client *c, uint32_t id, fp_st st, fp_w *w);
/* Tells how far a running command is, 0 to 100. */
bool fp_progress(fp_client *c, uint32_t id, unsigned percent);

/* For the core alone: sets the clock by a greeting (in/hello). False: it was malformed. */
bool fp_clock_set(fp_client *c, uint32_t now, fp_span greeting);
/* Unix ms, 0 while the clock is not set. */
uint64_t fp_clock_ms(const fp_client *c, uint32_t now);
/* Whether a board that sleeps may do so: greeted, no command waits or runs, the wanted configuration is
 * seen, every PUBACK is in; or no greeting within 3 s; or awake for 10 s and no command runs. */
bool fp_can_sleep(const fp_client *c, uint32_t now);
/* Whether to connect anew, with the key of slot `key_slot`: a new one was stored. False when the
 * connection has ended. */
bool fp_wants_reconnect(const fp_client *c);
/* Milliseconds to wait before the next attempt to connect; counts attempts until a greeting comes. */
uint32_t fp_retry_ms(fp_client *c, uint32_t random);

/* Full jitter: up to 1 s doubled with each attempt (0 first), up to 300 s; 60 s to 300 s after CONNACK 4
 * and 5. `random`: any 32 random bits. */
uint32_t fp_backoff_ms(unsigned attempt, uint8_t connack, uint32_t random);
/* Whether a text is a device or claim key without a typing error. */
bool fp_key_ok(const char *key);
/* CRC-32 (IEEE 802.3). */
uint32_t fp_crc32(const void *bytes, size_t n);

#ifdef __cplusplus
}
#endif

#endif
