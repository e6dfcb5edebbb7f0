/* A board with the core: device_CLIENT HOST PORT KEY STATE [OPTION…]
 * STATE is the file that survives a reset: the core's record in two slots, and two keys.
 *   --packet N             largest packet that the client receives, told as mps (256)
 *   --close-on-overflow    the small client closes instead of dropping what is larger
 *   --sleep S              says that it sleeps S seconds, and ends when it may sleep, or was awake for 3 s
 *   --save-after           saves commands after they were executed
 *   --keeps-config         says that it stores its configuration itself
 *   --halt POINT           stops moving at a point of the first command, until it is killed: saved (before
 *                          it is executed), executed, kept (its outcome is saved, nothing is answered)
 *   --busy MS              does nothing for so long after a command has come
 *   --do LINE              first lines of the script
 * The script goes on with standard input:
 *   publish TOPIC QOS PAYLOAD     hello     packet N     drop (loses the connection)     bye (DISCONNECT, end)
 * Each happening is a line of JSON on standard output. */
#define _POSIX_C_SOURCE 200809L
#include "device_board.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { AWAKE_MS = 3000, LINE_MAX_BYTES = 4096, LINES_MAX = 16, RETRY_MS_MAX = 100 };

typedef struct stored_key {
  char user[FP_USER_MAX + 1];
  char key[FP_KEY_CHARS + 1];
} stored_key;

static struct nvs {
  char record[2][sizeof(fp_kept)];
  stored_key keys[2];
  char is_written[2];
} nvs;

static board_options options = {256, false};
static fp_about about = {.fw = "1.0.0", .hw = "host", .qos = 1, .mps = 256};
static fp_client fp;
static char rx[1024], tx[1024];
static const char *state_file, *halt_point = "";
static bool saves_after, has_halted, is_over;
static uint32_t busy_ms, begun_at, slow_id;
static char lines[LINES_MAX][LINE_MAX_BYTES];
static unsigned line_count, line_at;
static char typed[LINE_MAX_BYTES];
static size_t typed_n;

static uint32_t now(void) {
  static uint64_t start;
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  uint64_t ms = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
  if (start == 0) start = ms - 1;
  return (uint32_t)(ms - start);
}

static void wait_ms(uint32_t ms) {
  struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
  nanosleep(&t, NULL);
}

/* ---- what is printed -------------------------------------------------------------------------------- */

static char said[8192];
static fp_w out;

static void say(const char *happening) {
  fp_w_init(&out, said, sizeof said);
  fp_obj(&out, NULL);
  fp_add_str(&out, "ev", happening);
}

/* JSON as it is, anything else as text. */
static void say_body(const char *name, const char *p, size_t n) {
  fp_span body = {p, n};
  char text[LINE_MAX_BYTES];
  if (n == 0) {
    fp_add_str(&out, name, NULL);
  } else if (fp_json_ok(body)) {
    fp_add_raw(&out, name, body);
  } else {
    snprintf(text, sizeof text, "%.*s", (int)n, p);
    fp_add_str(&out, name, text);
  }
}

static void said_all(void) {
  fp_obj_end(&out);
  if (fp_w_end(&out) > 0) puts(said);
}

static void say_only(const char *happening) {
  say(happening);
  said_all();
}

static void halt_at(const char *point) {
  if (has_halted || strcmp(halt_point, point) != 0) return;
  has_halted = true;
  say("halted");
  fp_add_str(&out, "at", point);
  said_all();
  for (;;) pause();
}

/* ---- what survives ---------------------------------------------------------------------------------- */

static bool write_state(void) {
  int file = open(state_file, O_WRONLY | O_CREAT, 0600);
  bool is_done = file >= 0 && write(file, &nvs, sizeof nvs) == (ssize_t)sizeof nvs;
  if (file >= 0) close(file);
  return is_done;
}

static void read_state(void) {
  int file = open(state_file, O_RDONLY);
  if (file < 0) return;
  if (read(file, &nvs, sizeof nvs) != (ssize_t)sizeof nvs) memset(&nvs, 0, sizeof nvs);
  close(file);
}

static bool load(void *ctx, unsigned slot, void *record, size_t n) {
  (void)ctx;
  if (nvs.is_written[slot]) memcpy(record, nvs.record[slot], n);
  return nvs.is_written[slot];
}

static bool save(void *ctx, unsigned slot, const void *record, size_t n) {
  (void)ctx;
  fp_kept kept;
  memcpy(&kept, record, sizeof kept);
  memcpy(nvs.record[slot], record, n);
  nvs.is_written[slot] = 1;
  if (!write_state()) return false;
  say("saved");
  fp_add_int(&out, "last", kept.last);
  fp_add_int(&out, "st", kept.st);
  said_all();
  if (kept.last > 0) halt_at(kept.st == FP_ST_UNKNOWN ? "saved" : "kept");
  return true;
}

static bool keep_key(void *ctx, unsigned slot, const char *user, const char *key) {
  (void)ctx;
  snprintf(nvs.keys[slot].user, sizeof nvs.keys[slot].user, "%s", user);
  snprintf(nvs.keys[slot].key, sizeof nvs.keys[slot].key, "%s", key);
  say("key");
  fp_add_int(&out, "slot", slot);
  fp_add_str(&out, "user", user);
  said_all();
  return write_state();
}

/* ---- what it does ----------------------------------------------------------------------------------- */

static fp_sent publish(void *ctx, const char *topic, const char *payload, size_t n, int qos) {
  (void)ctx;
  if (qos > client_qos_max) qos = client_qos_max;
  fp_sent sent = client_publish(topic, payload, n, qos);
  say("out");
  fp_add_str(&out, "topic", topic);
  fp_add_int(&out, "qos", qos);
  fp_add_bool(&out, "taken", sent != FP_SENT_NOT);
  say_body("body", payload, n);
  said_all();
  return sent;
}

static bool subscribe(void *ctx, const char *filter, int qos) {
  (void)ctx;
  return client_subscribe(filter, qos);
}

static fp_st command(void *ctx, const fp_cmd *cmd, fp_w *result) {
  (void)ctx;
  bool is_slow = fp_eq(cmd->name, "slow");
  if (!is_slow && !fp_eq(cmd->name, "relay") && !fp_eq(cmd->name, "jam")) return FP_ST_NO;
  say("executed");
  fp_add_int(&out, "id", cmd->id);
  say_body("cmd", cmd->name.p, cmd->name.n);
  say_body("args", cmd->args.p, cmd->args.n);
  said_all();
  halt_at("executed");
  if (is_slow) {
    slow_id = cmd->id;
    return FP_ST_RUN;
  }
  if (fp_eq(cmd->name, "jam")) {
    fp_fail(result, "valve", "stuck");
    return FP_ST_ERR;
  }
  fp_span n;
  if (fp_get(cmd->args, "n", &n)) fp_add_raw(result, "n", n);
  return FP_ST_OK;
}

static bool save_after(void *ctx, const fp_cmd *cmd) {
  (void)ctx;
  (void)cmd;
  return saves_after;
}

static bool config(void *ctx, fp_span cfg, fp_w *report) {
  (void)ctx;
  fp_span every;
  uint32_t seconds = 0;
  say("applied");
  say_body("cfg", cfg.p, cfg.n);
  said_all();
  if (!fp_get(cfg, "every", &every) || !fp_u32(every, &seconds) || seconds >= 10) return true;
  fp_fail(report, NULL, "every<10");
  return false;
}

static void refused(void *ctx, fp_span code, fp_span channel, fp_span msg) {
  (void)ctx;
  (void)msg;
  say("err");
  say_body("code", code.p, code.n);
  say_body("ch", channel.p, channel.n);
  said_all();
}

static void restart(void *ctx) {
  (void)ctx;
  say_only("restart");
  client_close(false);
  exit(0);
}

static const fp_port port = {.publish = publish, .subscribe = subscribe, .load = load, .save = save,
                             .command = command, .save_after = save_after, .config = config,
                             .refused = refused, .keep_key = keep_key, .restart = restart};

static void end_slow_command(void) {
  static char text[128];
  if (slow_id == 0 || !fp_progress(&fp, slow_id, 50)) return;
  fp_w w;
  fp_result(&w, text, sizeof text);
  fp_add_bool(&w, "slow", true);
  if (fp_done(&fp, slow_id, FP_ST_OK, &w)) slow_id = 0;
}

/* ---- what its client tells -------------------------------------------------------------------------- */

static bool is_busy;

void board_message(const char *topic, const void *payload, size_t n, size_t bytes) {
  say("in");
  fp_add_str(&out, "topic", topic);
  if (bytes > 0) fp_add_int(&out, "bytes", (int64_t)bytes);
  say_body("body", payload, n);
  said_all();
  fp_on_message(&fp, now(), topic, payload, n);
  if (n > 0 && strcmp(topic, FP_TOPIC_IN_CMD) == 0) is_busy = true;
}

void board_puback(void) { fp_on_puback(&fp); }

void board_overflow(size_t bytes) {
  say("overflow");
  fp_add_int(&out, "bytes", (int64_t)bytes);
  said_all();
}

/* ---- script ----------------------------------------------------------------------------------------- */

static void add_line(const char *line) {
  unsigned at = line_count % LINES_MAX;
  if (line_count - line_at == LINES_MAX) exit(65);
  snprintf(lines[at], sizeof lines[at], "%s", line);
  line_count++;
}

static void read_lines(void) {
  struct pollfd input = {.fd = 0, .events = POLLIN};
  while (line_count - line_at < LINES_MAX && poll(&input, 1, 0) > 0 && (input.revents & POLLIN)) {
    char c;
    if (read(0, &c, 1) != 1) return;
    if (c != '\n') {
      if (typed_n + 1 == sizeof typed) exit(65);
      typed[typed_n++] = c;
      continue;
    }
    typed[typed_n] = 0;
    typed_n = 0;
    add_line(typed);
  }
}

/* Returns false when it could not be done now. */
static bool do_line(char *line) {
  char topic[FP_TOPIC_MAX + 1];
  int qos, at;
  unsigned size;
  if (sscanf(line, "publish %128s %d %n", topic, &qos, &at) == 2)
    return fp_publish(&fp, topic, line + at, strlen(line + at), qos);
  if (sscanf(line, "packet %u", &size) == 1) {
    options.packet_size = about.mps = size;
    fp_hello(&fp);
  } else if (strcmp(line, "hello") == 0) {
    fp_hello(&fp);
  } else if (strcmp(line, "bye") == 0) {
    is_over = true;
  } else {
    client_close(false);
  }
  return true;
}

/* ---- life ------------------------------------------------------------------------------------------- */

static bool may_sleep(void) {
  if (about.sleep_s == 0 || line_at != line_count) return false;
  return fp_can_sleep(&fp, now()) || now() - begun_at >= AWAKE_MS;
}

static void note_greeting(uint32_t *greetings) {
  if (!fp.is_greeted || *greetings > 0) return;
  *greetings = 1;
  say("greeted");
  fp_add_int(&out, "clock", (int64_t)fp_clock_ms(&fp, now()));
  fp_add_int(&out, "seq", fp.stored_seq);
  fp_add_int(&out, "waiting", fp.waiting);
  said_all();
}

static void one_connection(void) {
  uint32_t greetings = 0;
  while (!is_over) {
    if (!client_loop()) return;
    if (is_busy) {
      is_busy = false;
      if (busy_ms > 0) wait_ms(busy_ms);
    }
    fp_tick(&fp, now());
    note_greeting(&greetings);
    end_slow_command();
    read_lines();
    while (fp.is_greeted && line_at != line_count && do_line(lines[line_at % LINES_MAX])) line_at++;
    if (fp_wants_reconnect(&fp)) {
      client_close(true);
      return;
    }
    if (may_sleep()) is_over = true;
  }
  say(about.sleep_s > 0 ? "sleep" : "bye");
  fp_add_int(&out, "awake", now() - begun_at);
  fp_add_bool(&out, "may", fp_can_sleep(&fp, now()));
  fp_add_int(&out, "waiting", fp.waiting);
  said_all();
  client_close(true);
}

static int find_option(int argc, char **argv, int at) {
  const char *value = at + 1 < argc ? argv[at + 1] : "";
  if (strcmp(argv[at], "--close-on-overflow") == 0) options.closes_on_overflow = true;
  else if (strcmp(argv[at], "--save-after") == 0) saves_after = true;
  else if (strcmp(argv[at], "--keeps-config") == 0) about.keeps_config = true;
  else {
    if (strcmp(argv[at], "--packet") == 0) options.packet_size = about.mps = (uint32_t)atoi(value);
    else if (strcmp(argv[at], "--sleep") == 0) about.sleep_s = (uint32_t)atoi(value);
    else if (strcmp(argv[at], "--halt") == 0) halt_point = value;
    else if (strcmp(argv[at], "--busy") == 0) busy_ms = (uint32_t)atoi(value);
    else if (strcmp(argv[at], "--do") == 0) add_line(value);
    else exit(64);
    return 2;
  }
  return 1;
}

int main(int argc, char **argv) {
  if (argc < 5) return 64;
  setvbuf(stdout, NULL, _IOLBF, 0);
  state_file = argv[4];
  for (int at = 5; at < argc;) at += find_option(argc, argv, at);
  about.qos = (uint8_t)client_qos_max;
  read_state();
  fp_init(&fp, &port, &about);
  fp_buffers(&fp, rx, about.mps < sizeof rx ? about.mps : sizeof rx, tx, sizeof tx);
  begun_at = now();
  srand((unsigned)time(NULL));
  static const char *const FOUND[] = {"found", "new", "lost"};
  fp_record record = fp_begin(&fp, now(), true);
  say("begun");
  fp_add_str(&out, "record", FOUND[record]);
  fp_add_int(&out, "boot", fp.kept.boot);
  said_all();
  while (!is_over) {
    const stored_key *own = &nvs.keys[fp.key_slot];
    bool is_stored = own->key[0] != 0;
    int code = client_connect(&options, argv[1], argv[2], is_stored ? own->user : "device",
                              is_stored ? own->key : argv[3]);
    say(code == 0 ? "connected" : "refused");
    fp_add_int(&out, "code", code);
    fp_add_int(&out, "key", fp.key_slot);
    said_all();
    if (code == 0) {
      fp_on_connected(&fp, now());
      one_connection();
      fp_on_disconnected(&fp);
    } else {
      fp_on_refused(&fp, code > 0 ? (uint8_t)code : 0);
    }
    if (is_over) break;
    say_only("lost");
    /* A board waits longer. */
    uint32_t wait = fp_retry_ms(&fp, (uint32_t)rand());
    wait_ms(wait < RETRY_MS_MAX ? wait : RETRY_MS_MAX);
    if (about.sleep_s > 0 && now() - begun_at >= AWAKE_MS) is_over = true;
  }
  return 0;
}
