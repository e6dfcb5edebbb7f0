/* The client of a simulated board: a small one of our own, as boards have it. One buffer holds a whole
 * packet, header and topic included, for both ways. It publishes at QoS 0 only. What is larger than its
 * buffer is thrown away without a callback and without PUBACK, or the connection is closed. PUBACK goes
 * out when the callback has returned. */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "device_board.h"

enum { LOOP_MS = 5, TIMEOUT_MS = 5000, PING_S = 15 };
enum { CONNECT = 0x10, CONNACK = 0x20, PUBLISH = 0x30, PUBACK = 0x40, SUBSCRIBE = 0x82, SUBACK = 0x90 };

const int client_qos_max = 0;

static int tcp = -1;
static const board_options *chosen;
static unsigned char buffer[65536];
static size_t used;
static uint16_t last_id;
static time_t wrote_at;

/* ---- writing ---------------------------------------------------------------------------------------- */

static void begin(unsigned char type) {
  buffer[0] = type;
  /* Room for the longest length; moved together in finish(). */
  used = 5;
}

static bool put(const void *bytes, size_t n) {
  if (used + n > sizeof buffer) return false;
  memcpy(buffer + used, bytes, n);
  used += n;
  return true;
}

static bool put_text(const char *text) {
  size_t n = strlen(text);
  unsigned char length[2] = {(unsigned char)(n >> 8), (unsigned char)n};
  return put(length, 2) && put(text, n);
}

static bool put_id(uint16_t id) {
  unsigned char bytes[2] = {(unsigned char)(id >> 8), (unsigned char)id};
  return put(bytes, 2);
}

static bool write_all(const unsigned char *bytes, size_t n) {
  while (n > 0) {
    ssize_t sent = send(tcp, bytes, n, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes += sent;
    n -= (size_t)sent;
  }
  wrote_at = time(NULL);
  return true;
}

static bool finish(void) {
  size_t rest = used - 5, at = 1;
  unsigned char length[4];
  for (size_t left = rest;; at++) {
    length[at - 1] = (unsigned char)((left & 127) | (left > 127 ? 128u : 0u));
    left >>= 7;
    if (left == 0) break;
  }
  if (tcp < 0 || 1 + at + rest > chosen->packet_size) return false;
  memmove(buffer + 1 + at, buffer + 5, rest);
  memcpy(buffer + 1, length, at);
  return write_all(buffer, 1 + at + rest);
}

/* ---- reading ---------------------------------------------------------------------------------------- */

static bool read_all(unsigned char *bytes, size_t n) {
  while (n > 0) {
    struct pollfd input = {.fd = tcp, .events = POLLIN};
    if (poll(&input, 1, TIMEOUT_MS) <= 0) return false;
    ssize_t got = recv(tcp, bytes, n, 0);
    if (got <= 0) return false;
    bytes += got;
    n -= (size_t)got;
  }
  return true;
}

/* Reads one packet into the buffer. Returns its size, 0 when it was thrown away, -1 when the connection is
 * lost or given up. *body: behind the length. */
static long read_packet(size_t *body) {
  size_t rest = 0, at = 1;
  if (!read_all(buffer, 1)) return -1;
  do {
    if (at > 4 || !read_all(buffer + at, 1)) return -1;
    rest |= (size_t)(buffer[at] & 127) << (7 * (at - 1));
  } while (buffer[at++] & 128);
  *body = at;
  if (at + rest <= chosen->packet_size) return read_all(buffer + at, rest) ? (long)(at + rest) : -1;
  board_overflow(at + rest);
  if (chosen->closes_on_overflow) return -1;
  unsigned char skipped;
  for (; rest > 0; rest--) {
    if (!read_all(&skipped, 1)) return -1;
  }
  return 0;
}

static bool take_publish(size_t body, size_t size) {
  char topic[FP_TOPIC_MAX + 1];
  bool has_id = (buffer[0] & 6) != 0;
  size_t n = (size_t)buffer[body] << 8 | buffer[body + 1];
  size_t at = body + 2 + n + (has_id ? 2 : 0);
  if (n > FP_TOPIC_MAX || at > size) return false;
  memcpy(topic, buffer + body + 2, n);
  topic[n] = 0;
  uint16_t id = 0;
  if (has_id) id = (uint16_t)(buffer[at - 2] << 8 | buffer[at - 1]);
  board_message(topic, buffer + at, size - at, size);
  begin(PUBACK);
  return !has_id || (put_id(id) && finish());
}

/* ---- client ----------------------------------------------------------------------------------------- */

static int give_up(void) {
  client_close(false);
  return -1;
}

int client_connect(const board_options *options, const char *host, const char *port, const char *user,
                   const char *key) {
  static const unsigned char HEADER[] = {0, 4, 'M', 'Q', 'T', 'T', 4, 0xc2, 0, 2 * PING_S};
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
  size_t body;
  int yes = 1;
  chosen = options;
  inet_pton(AF_INET, host, &to.sin_addr);
  tcp = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(tcp, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  if (connect(tcp, (const struct sockaddr *)&to, sizeof to) != 0) return give_up();
  begin(CONNECT);
  if (!put(HEADER, sizeof HEADER) || !put_text("board") || !put_text(user) || !put_text(key) || !finish())
    return give_up();
  if (read_packet(&body) != 4 || buffer[0] != CONNACK) return give_up();
  int code = buffer[body + 1];
  if (code != 0) client_close(false);
  return code;
}

fp_sent client_publish(const char *topic, const char *payload, size_t n, int qos) {
  (void)qos;
  begin(PUBLISH);
  return put_text(topic) && put(payload, n) && finish() ? FP_SENT_DONE : FP_SENT_NOT;
}

bool client_subscribe(const char *filter, int qos) {
  unsigned char wanted = (unsigned char)qos;
  begin(SUBSCRIBE);
  return put_id(++last_id) && put_text(filter) && put(&wanted, 1) && finish();
}

bool client_loop(void) {
  struct pollfd input = {.fd = tcp, .events = POLLIN};
  size_t body;
  if (tcp < 0) return false;
  bool is_kept = time(NULL) - wrote_at < PING_S || write_all((const unsigned char *)"\xc0", 2);
  if (is_kept && poll(&input, 1, LOOP_MS) > 0) {
    long size = read_packet(&body);
    is_kept = size >= 0;
    if (size > 0 && (buffer[0] & 0xf0) == PUBLISH) is_kept = take_publish(body, (size_t)size);
  }
  if (!is_kept) client_close(false);
  return is_kept;
}

void client_close(bool says_so) {
  if (tcp >= 0 && says_so) write_all((const unsigned char *)"\xe0", 2);
  if (tcp >= 0) close(tcp);
  tcp = -1;
}
