/* The client: what is due on a connection, greeting, configuration, keys, pieces of payloads. Over fp.c. */
#include "fp_core.h"

#include <string.h>

/* ---- connection and greeting ------------------------------------------------------------------------ */

static uint32_t since(const fp_client *c, uint32_t then) { return c->now - then; }

void fp_on_refused(fp_client *c, uint8_t connack) {
  c->connack = connack;
  if (connack == 4 || connack == 5) c->key_slot ^= 1;
  fp_on_disconnected(c);
}

uint32_t fp_retry_ms(fp_client *c, uint32_t random) {
  uint32_t ms = fp_backoff_ms(c->attempts++, (uint8_t)c->connack, random);
  c->connack = 0;
  return ms;
}

void fp_hello(fp_client *c) { c->due |= DUE_HELLO; }

void fp_claim(fp_client *c) {
  c->is_key_wanted = true;
  c->key_ms = 0;
}

bool fp_send(fp_client *c, uint32_t now, fp_w *w, int qos) {
  size_t n = fp_w_end(w);
  if (n == 0 || now - c->quiet_from < c->quiet_ms) return false;
  return fp_publish(c, FP_TOPIC_DATA, w->p, n, qos);
}

static bool say_hello(fp_client *c) {
  static const char NAMES[][6] = {"p", "up", "sleep", "mps", "boot", "last", "cfg", "fw", "ota", "mdl", "hw", "rst", "u"};
  const fp_about *about = c->about;
  const fp_kept *kept = &c->kept;
  bool is_applied = c->is_cfg_settled && kept->cfg_state == CFG_OK;
  const uint32_t numbers[] = {FP_PROTOCOL_MINOR, c->now, about->sleep_s, about->mps, kept->boot, kept->last,
                              is_applied ? kept->cfg_v : 0};
  const char *const texts[] = {about->fw, about->ota, about->mdl, about->hw, about->rst};
  /* A client sends with the buffer that it receives with; its header and topic need 24 bytes. */
  uint32_t room = c->tx_capacity;
  if (about->mps && about->mps - 24 < room) room = about->mps - 24;
  fp_w w;
  c->hello_up = c->now;
  fp_w_open(&w, c->tx, room);
  for (unsigned i = 0; i < 13; i++) {
    size_t n = w.n;
    if (i < 3 || (i < 7 && numbers[i] != 0)) fp_add_int(&w, NAMES[i], numbers[i]);
    if (i >= 7 && i < 12) fp_add_said(&w, NAMES[i], texts[i - 7]);
    if (i == 12 && about->units) {
      fp_span units = {about->units, strlen(about->units)};
      fp_add_raw(&w, NAMES[i], units);
    }
    /* What does not fit, with the end of the object, is left out. */
    if (w.full || w.capacity - w.n < 2) {
      w.n = n;
      w.full = false;
    }
  }
  return fp_publish_own(c, FP_TOPIC_HELLO, &w);
}

/* ---- system commands -------------------------------------------------------------------------------- */

static fp_st execute(fp_client *c, const fp_cmd *cmd, fp_w *w) {
  const fp_port *port = c->port;
  if (fp_eq(cmd->name, FP_SYS_HELLO)) {
    fp_hello(c);
    return FP_ST_OK;
  }
  if (port->keep_key && fp_eq(cmd->name, FP_SYS_REKEY)) {
    c->rekey_id = cmd->id;
    fp_claim(c);
    return FP_ST_UNKNOWN;
  }
  if (port->restart && port->save && fp_eq(cmd->name, FP_SYS_REBOOT)) {
    /* The slot comes again after the restart and is answered then: done is said when it is done. */
    fp_keep_status(c, FP_ST_OK, NULL);
    if (fp_save(c)) port->restart(port->ctx);
    return FP_ST_ERR;
  }
  if (!port->command) return FP_ST_NO;
  fp_st st = port->command(port->ctx, cmd, w);
  return st == FP_ST_UNKNOWN ? FP_ST_ERR : st;
}

/* ---- configuration ---------------------------------------------------------------------------------- */

static bool report(fp_client *c, fp_w *w) {
  fp_add_int(w, "v", c->kept.cfg_v);
  fp_add_bool(w, "ok", c->kept.cfg_state == CFG_OK);
  fp_add_said(w, "msg", c->kept.cfg_state == CFG_TRIED_TWICE ? "reset" : w->msg);
  return fp_publish_own(c, FP_TOPIC_CFG, w);
}

/* Without the values in effect: what is left when the whole report did not fit or was not taken. */
static bool report_shortly(fp_client *c) {
  char buffer[64];
  fp_w w;
  fp_w_open(&w, buffer, sizeof buffer);
  return report(c, &w);
}

static void apply(fp_client *c, uint32_t version, fp_span cfg) {
  fp_kept *kept = &c->kept;
  if (version != kept->cfg_v || kept->cfg_state == CFG_TRIED) {
    kept->cfg_state = version == kept->cfg_v ? CFG_TRIED_TWICE : CFG_TRIED;
    kept->cfg_v = version;
    fp_save(c);
  } else if (kept->cfg_state == CFG_TRIED_TWICE) {
    /* It reset the board twice while it was applied. */
    c->due |= DUE_REPORT;
    return;
  }
  fp_w w;
  fp_part(&w, c->tx, c->tx_capacity, "cfg");
  c->reading = 1u << IN_CFG;
  uint32_t state = c->port->config(c->port->ctx, cfg, &w) ? CFG_OK : CFG_BAD;
  c->reading = 0;
  if (state != kept->cfg_state) {
    kept->cfg_state = state;
    fp_save(c);
  }
  fp_part_end(&w, "cfg");
  if (!report(c, &w)) c->due |= DUE_REPORT;
}

static void take_config(fp_client *c) {
  fp_span document = {c->rx, c->cfg_n}, cfg;
  uint32_t version;
  if (fp_get_u32(document, "v", &version) && fp_get(document, "cfg", &cfg)) {
    if (c->is_cfg_settled && version == c->kept.cfg_v)
      c->due |= DUE_REPORT;
    else
      apply(c, version, cfg);
    c->is_cfg_settled = true;
  }
  c->cfg_n = 0;
}

/* ---- what comes in ---------------------------------------------------------------------------------- */

static void hear_greeting(fp_client *c, fp_span greeting) {
  if (!fp_clock_set(c, c->now, greeting)) return;
  fp_get_u32(greeting, "cmd", &c->waiting);
  fp_get_u32(greeting, "cfg", &c->desired_cfg);
  fp_get_u32(greeting, "seq", &c->stored_seq);
  c->is_greeted = true;
  c->attempts = 0;
  if (c->kept.key_slot != c->key_slot) {
    c->kept.key_slot = c->key_slot;
    fp_save(c);
  }
}

static void hear_refusal(fp_client *c, fp_span refusal) {
  static const char NAMES[][5] = {"code", "ch", "msg"};
  fp_span said[3];
  for (unsigned i = 0; i < 3; i++) {
    said[i].p = "";
    said[i].n = 0;
    fp_get(refusal, NAMES[i], &said[i]);
  }
  if (fp_eq(said[0], FP_ERR_RATE)) {
    c->quiet_from = c->now;
    c->quiet_ms = 1000;
    fp_get_u32(refusal, "retry", &c->quiet_ms);
  }
  if (c->port->refused) c->port->refused(c->port->ctx, said[0], said[1], said[2]);
}

static bool get_str(fp_span object, const char *name, char *out, size_t capacity) {
  fp_span v;
  return fp_get(object, name, &v) && fp_str(v, out, capacity);
}

static void hear_key(fp_client *c, fp_span message) {
  fp_span st;
  char user[FP_USER_MAX + 1], key[FP_KEY_CHARS + 1];
  uint32_t retry_s = 60;
  if (!c->is_key_wanted || !fp_get(message, "st", &st)) return;
  bool is_ok = fp_eq(st, FP_KEY_OK);
  if (is_ok) {
    uint32_t slot = c->kept.key_slot ^ 1;
    /* What is malformed or not kept is asked for again. */
    if (!get_str(message, "user", user, sizeof user) || !get_str(message, "key", key, sizeof key) ||
        !fp_key_ok(key) || !c->port->keep_key(c->port->ctx, slot, user, key))
      return;
    c->key_slot = c->kept.key_slot = slot;
    c->is_reconnecting = true;
  } else if (!fp_eq(st, FP_KEY_NO)) {
    fp_get_u32(message, "retry", &retry_s);
    c->key_from = c->now;
    c->key_ms = retry_s < 86400 ? retry_s * 1000 : 86400000;
    return;
  }
  c->is_key_wanted = false;
  if (c->rekey_id && c->rekey_id == c->kept.last) {
    bool has_code = !is_ok && get_str(message, "code", user, sizeof user);
    fp_keep_status(c, is_ok ? FP_ST_OK : FP_ST_ERR, has_code ? user : NULL);
    c->due |= DUE_ANSWER;
  }
  c->rekey_id = 0;
  fp_save(c);
}

/* What does not fit beside the others comes again with a subscription, if it is retained. */
static void miss(fp_client *c, size_t n) {
  if (n > c->rx_capacity)
    c->too_big++;
  else
    c->due |= DUE_SUBSCRIBE;
}

/* The command lies at the end of rx, the configuration at its start, pieces of something between. */
static void keep(fp_client *c, uint32_t kind, fp_span message) {
  uint32_t *own = kind == IN_CMD ? &c->cmd_n : &c->cfg_n;
  uint32_t other = c->cmd_n + c->cfg_n - *own;
  bool is_read = c->reading >> kind & 1;
  if (kind == IN_CMD) c->waiting = message.n > 0;
  if (message.n > 0 && (is_read || message.n > c->rx_capacity - other)) {
    miss(c, message.n);
  } else if (!is_read) {
    if (message.n > 0) memmove(c->rx + (kind == IN_CMD ? c->rx_capacity - message.n : 0), message.p, message.n);
    *own = (uint32_t)message.n;
  }
}

static void hear(fp_client *c, uint32_t kind, fp_span message) {
  if (kind == IN_CMD || (kind == IN_CFG && c->port->config))
    keep(c, kind, message);
  else if (kind == IN_HELLO)
    hear_greeting(c, message);
  else if (kind == IN_ERR)
    hear_refusal(c, message);
  else if (kind == IN_KEY)
    hear_key(c, message);
}

static uint32_t kind_of(fp_span topic) {
  static const char NAMES[][6] = {FP_IN_CMD, FP_IN_CFG, FP_IN_HELLO, FP_IN_ERR, FP_IN_KEY};
  const size_t start = sizeof FP_TOPIC_IN_PREFIX - 1;
  size_t n = topic.n - start;
  if (topic.n <= start || n > 5 || memcmp(topic.p, FP_TOPIC_IN_PREFIX, start) != 0) return IN_OTHER;
  uint32_t kind = IN_CMD;
  while (kind < IN_OTHER && (NAMES[kind][n] != 0 || memcmp(NAMES[kind], topic.p + start, n) != 0)) kind++;
  return kind;
}

void fp_on_part(fp_client *c, uint32_t now, fp_span topic, fp_span piece, size_t index, size_t total) {
  c->now = now;
  if (index == 0) {
    c->part_kind = kind_of(topic);
    c->part_at = c->cfg_n;
    c->part_n = 0;
    if (piece.n < total && c->part_kind != IN_OTHER && total > c->rx_capacity - c->cmd_n - c->cfg_n) {
      miss(c, total);
      c->part_kind = IN_OTHER;
    }
  }
  uint32_t kind = c->part_kind;
  if (kind == IN_OTHER) return;
  if (piece.n < total) {
    /* Pieces come in order, or the rest of the message is lost. */
    char *start = c->rx + c->part_at;
    if (index != c->part_n || index + piece.n > total || total > c->rx_capacity - c->cmd_n - c->part_at) return;
    memcpy(start + index, piece.p, piece.n);
    c->part_n += (uint32_t)piece.n;
    if (c->part_n < total) return;
    piece.p = start;
    piece.n = total;
  }
  c->part_kind = IN_OTHER;
  hear(c, kind, piece);
}

void fp_on_message(fp_client *c, uint32_t now, const char *topic, const void *payload, size_t n) {
  fp_span name = {topic, strlen(topic)}, whole = {payload, n};
  fp_on_part(c, now, name, whole, 0, n);
}

/* ---- what is due ------------------------------------------------------------------------------------ */

static bool ask_for_key(fp_client *c) {
  char buffer[64];
  fp_w w;
  fp_w_open(&w, buffer, sizeof buffer);
  if (!c->rekey_id) fp_add_said(&w, "mdl", c->about->mdl);
  /* A lost answer is asked for again. */
  c->key_from = c->now;
  c->key_ms = 30000;
  return fp_publish_own(c, FP_TOPIC_KEY, &w);
}

static bool do_due(fp_client *c, uint32_t what) {
  switch (what) {
    case DUE_SUBSCRIBE:
      c->asked_at = c->now;
      return c->port->subscribe(c->port->ctx, FP_TOPIC_INBOX, 1);
    case DUE_HELLO:
      return say_hello(c);
    case DUE_ANSWER:
      return fp_answer(c);
    case DUE_REPORT:
      return report_shortly(c);
    default:
      return ask_for_key(c);
  }
}

void fp_tick(fp_client *c, uint32_t now) {
  if (c->is_busy || !c->is_connected) return;
  c->is_busy = true;
  c->now = now;
  /* Long before the 49 days after which `now` wraps. */
  if (c->unix_ms && since(c, c->unix_at) >> 30) {
    c->unix_ms += since(c, c->unix_at);
    c->unix_at = now;
  }
  if (c->cmd_n > 0) {
    fp_span slot = {c->rx + c->rx_capacity - c->cmd_n, c->cmd_n};
    fp_obey(c, now, slot, execute);
  }
  if (c->cfg_n > 0) take_config(c);
  /* A greeting is sent once and without an acknowledgement. */
  if (!c->is_greeted && since(c, c->asked_at) >= 30000) c->due |= DUE_SUBSCRIBE | DUE_HELLO;
  if (c->is_key_wanted && since(c, c->key_from) >= c->key_ms) c->due |= DUE_KEY;
  for (uint32_t what = 1; what <= DUE_KEY && since(c, c->failed_at) >= 1000; what <<= 1) {
    if (!(c->due & what)) continue;
    c->due &= ~what;
    if (do_due(c, what)) continue;
    c->due |= what;
    c->failed_at = now;
  }
  c->is_busy = false;
}

bool fp_wants_reconnect(const fp_client *c) {
  return c->is_connected && c->is_reconnecting && c->due == 0 && c->unacked == 0;
}

bool fp_can_sleep(const fp_client *c, uint32_t now) {
  uint32_t at = now;
  if (c->running > 0) return false;
  if (at - c->begun_at >= FP_AWAKE_MS) return true;
  if (!c->is_connected) return false;
  if (!c->is_greeted) return at - c->connected_at >= FP_GREETING_WAIT_MS;
  if (c->port->config && c->desired_cfg != 0 && (!c->is_cfg_settled || c->desired_cfg != c->kept.cfg_v))
    return false;
  return (c->waiting | c->cmd_n | c->cfg_n | c->due | c->unacked) == 0;
}
