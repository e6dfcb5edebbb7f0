/* The core: JSON, keys and times, what is kept, the state of commands. Links without fp_client.c. */
#include "fp_core.h"

#include <string.h>

/* ---- JSON reader ------------------------------------------------------------------------------------ */

/* Where reading is. The functions skip_* return false when what they are to skip is malformed. */
typedef struct cursor {
  const char *p;
  const char *end;
} cursor;

/* The next character that is no space; 0 at the end. */
static char peek(cursor *at) {
  const char *p = at->p;
  while (p < at->end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')) p++;
  at->p = p;
  return (char)(p < at->end ? *p : 0);
}

static bool skip_string(cursor *at) {
  const char *p = at->p;
  while (++p < at->end && (unsigned char)*p >= 0x20) {
    if (*p == '"') {
      at->p = p + 1;
      return true;
    }
    if (*p == '\\') p++;
  }
  return false;
}

/* A number or one of the words; which, is checked when it is read. */
static bool skip_word(cursor *at) {
  const char *p = at->p;
  while (p < at->end && ((*p >= '+' && *p <= '9' && *p != ',') || ((*p | 0x20) >= 'a' && (*p | 0x20) <= 'z')))
    p++;
  bool has_any = p > at->p;
  at->p = p;
  return has_any;
}

/* The name of a member with its colon. */
static bool skip_name(cursor *at) {
  if (peek(at) != '"' || !skip_string(at) || peek(at) != ':') return false;
  at->p++;
  return true;
}

/* One bit for each open bracket says which it is, so the stack is an integer. */
static bool skip_value(cursor *at) {
  uint32_t objects = 0;
  unsigned depth = 0;
  for (;;) {
    char c = peek(at);
    bool is_opened = c == '{' || c == '[';
    if (is_opened) {
      if (depth++ == FP_DEPTH_MAX) return false;
      objects = objects << 1 | (c == '{');
      at->p++;
      c = peek(at);
      is_opened = c != '}' && c != ']';
    } else if (!(c == '"' ? skip_string(at) : skip_word(at))) {
      return false;
    }
    while (!is_opened) {
      if (depth == 0) return true;
      c = peek(at);
      if (c == 0) return false;
      at->p++;
      if (c == ',') break;
      if (c != (objects & 1 ? '}' : ']')) return false;
      objects >>= 1;
      depth--;
    }
    if ((objects & 1) && !skip_name(at)) return false;
  }
}

bool fp_json_ok(fp_span text) {
  cursor at = {text.p, text.p + text.n};
  if (!skip_value(&at)) return false;
  peek(&at);
  return at.p == at.end;
}

/* Reads four hex digits. 0 when they are not, and for U+0000. */
static uint32_t hex_code(const char **p) {
  uint32_t code = 1;
  while (code < 0x10000) {
    unsigned digit = (unsigned char)*(*p)++;
    /* Above '9' come the letters, of either case. */
    if (digit > '9') digit = (digit | 0x20) - 'a' + 10 + '0';
    if (digit - '0' > 15) return 0;
    code = code << 4 | (digit - '0');
  }
  return code - 0x10000;
}

/* The next character of a string's content as UTF-8; *p must lie in a string that ends. Returns its bytes,
 * 0 for an escape that is malformed, U+0000 or half of a surrogate pair. */
static size_t next_char(const char **p, char *out) {
  static const char ESCAPES[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
  uint32_t code = (unsigned char)*(*p)++;
  size_t n = 1;
  if (code == '\\') {
    const char *escape = ESCAPES;
    char c = *(*p)++;
    if (c == 'u') {
      code = hex_code(p);
      if (code - 0xd800 < 0x400 && (*p)[0] == '\\' && (*p)[1] == 'u') {
        *p += 2;
        uint32_t low = hex_code(p) ^ 0xdc00;
        if (low > 0x3ff) return 0;
        code = 0x10000 + ((code - 0xd800) << 10 | low);
      }
      if (code == 0 || code - 0xd800 < 0x800) return 0;
      if (code >= 0x80) {
        n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
        for (size_t i = n; --i > 0; code >>= 6) out[i] = (char)(0x80 | (code & 0x3f));
        code |= 0xf00u >> n;
      }
    } else {
      while (*escape != c)
        if (*(escape += 2) == 0) return 0;
      code = (unsigned char)escape[1];
    }
  }
  *out = (char)code;
  return n;
}

/* Decodes a string into `out`, or compares it with `text` when there is no `out`. */
static bool decode(fp_span v, char *out, size_t capacity, const char *text) {
  cursor at = {v.p, v.p + v.n};
  if (v.n == 0 || *v.p != '"' || !skip_string(&at) || at.p != at.end) return false;
  at.p = v.p + 1;
  while (at.p < at.end - 1) {
    char c[4];
    size_t n = next_char(&at.p, c);
    if (n == 0 || n >= capacity) return false;
    capacity -= n;
    for (size_t i = 0; i < n; i++) {
      if (out)
        *out++ = c[i];
      else if (*text++ != c[i])
        return false;
    }
  }
  if (out) *out = 0;
  return out || *text == 0;
}

bool fp_str(fp_span v, char *out, size_t capacity) { return capacity > 0 && decode(v, out, capacity, NULL); }

bool fp_eq(fp_span v, const char *text) { return decode(v, NULL, SIZE_MAX, text); }

/* The element `index` of an array, or (name given) the last member of that name. */
static bool find(fp_span v, const char *name, size_t index, fp_span *out) {
  cursor at = {v.p, v.p + v.n};
  bool is_found = false;
  if (!fp_json_ok(v) || peek(&at) != (name ? '{' : '[')) return false;
  do {
    bool is_wanted = index-- == 0;
    at.p++;
    peek(&at);
    if (name) {
      fp_span key = {at.p, 0};
      /* An empty object has no first name. */
      if (!skip_string(&at)) return false;
      key.n = (size_t)(at.p - key.p);
      is_wanted = fp_eq(key, name);
      peek(&at);
      at.p++;
      peek(&at);
    }
    fp_span value = {at.p, 0};
    if (!skip_value(&at)) return false;
    value.n = (size_t)(at.p - value.p);
    if (is_wanted) {
      *out = value;
      is_found = true;
    }
  } while (peek(&at) == ',');
  return is_found;
}

bool fp_get(fp_span object, const char *name, fp_span *value) { return find(object, name, 0, value); }

bool fp_at(fp_span array, size_t index, fp_span *value) { return find(array, NULL, index, value); }

bool fp_bool(fp_span v, bool *out) {
  bool is_true = v.n == 4;
  if (v.n - 4 > 1 || memcmp(v.p, is_true ? "true" : "false", v.n) != 0) return false;
  *out = is_true;
  return true;
}

/* Digits and exponent of ten of a number without its sign; 19 digits count, the others are left out. */
static bool read_number(fp_span v, uint64_t *digits, int *exponent) {
  const char *p = v.p, *end = v.p + v.n;
  uint64_t value = 0;
  int tens = 0, step = 0, stated = 0, sign = 1;
  bool has_digit = false;
  if (p < end && *p == '-') p++;
  for (; p < end; p++) {
    unsigned digit = (unsigned char)*p - '0';
    if (digit <= 9) {
      has_digit = true;
      tens -= step;
      if (value >> 32 <= 0x0ccccccc)
        value = value * 10 + digit;
      else
        tens++;
    } else if (*p == '.' && has_digit && step == 0) {
      has_digit = false;
      step = 1;
    } else {
      break;
    }
  }
  *digits = value;
  if (has_digit && p < end && (*p | 0x20) == 'e') {
    has_digit = false;
    if (++p < end && (*p == '-' || *p == '+')) sign = ',' - *p++;
    for (; p < end && (unsigned)(*p - '0') <= 9; p++) {
      has_digit = true;
      if (stated < 1000) stated = stated * 10 + *p - '0';
    }
  }
  *exponent = tens + sign * stated;
  return has_digit && p == end;
}

bool fp_num(fp_span v, double *out) {
  uint64_t digits;
  int exponent;
  if (!read_number(v, &digits, &exponent) || exponent > 308) return false;
  double value = (double)digits, power = 1;
  /* 10^|e| is exact up to 22, its inverse never is. */
  for (int n = exponent < 0 ? -exponent : exponent; n > 0; n--) power *= 10;
  value = exponent < 0 ? value / power : value * power;
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  if (bits >> 52 == 0x7ff) return false;
  if (*v.p == '-') bits |= (uint64_t)1 << 63;
  memcpy(out, &bits, sizeof bits);
  return true;
}

bool fp_i64(fp_span v, int64_t *out) {
  uint64_t digits;
  int exponent;
  if (!read_number(v, &digits, &exponent) || exponent != 0 || digits >> 63) return false;
  *out = *v.p == '-' ? -(int64_t)digits : (int64_t)digits;
  return true;
}

bool fp_u32(fp_span v, uint32_t *out) {
  int64_t value;
  if (!fp_i64(v, &value) || value < 0 || value > (int64_t)UINT32_MAX) return false;
  *out = (uint32_t)value;
  return true;
}

bool fp_get_u32(fp_span object, const char *name, uint32_t *out) {
  fp_span v;
  return fp_get(object, name, &v) && fp_u32(v, out);
}

/* ---- JSON writer ------------------------------------------------------------------------------------ */

void fp_w_init(fp_w *w, char *buffer, size_t capacity) {
  memset(w, 0, sizeof *w);
  w->p = buffer;
  w->capacity = capacity;
}

size_t fp_w_end(fp_w *w) {
  if (w->full || w->n >= w->capacity) return 0;
  w->p[w->n] = 0;
  return w->n;
}

static void put(fp_w *w, const char *text, size_t n) {
  if (w->full || w->capacity - w->n <= n) {
    w->full = true;
    return;
  }
  memcpy(w->p + w->n, text, n);
  w->n += n;
}

static void put_char(fp_w *w, char c) { put(w, &c, 1); }

static void put_text(fp_w *w, const char *text) { put(w, text, strlen(text)); }

/* Digits of a whole number, the point before the last `decimals` of them; at most 24. */
static void put_digits(fp_w *w, uint64_t digits, int decimals) {
  char text[32];
  size_t at = sizeof text;
  do {
    uint64_t rest = digits / 10;
    text[--at] = (char)('0' + (int)((uint32_t)digits - (uint32_t)rest * 10));
    digits = rest;
    if (--decimals == 0) text[--at] = '.';
  } while (digits != 0 || decimals >= 0);
  put(w, text + at, sizeof text - at);
}

/* Bytes of the character at s that is well-formed UTF-8; 0 when it is not. */
static size_t utf8_length(const unsigned char *s) {
  unsigned first = s[0];
  if (first < 0x80) return 1;
  size_t n = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  /* The second byte tells long forms, surrogates and what is beyond U+10FFFF. */
  unsigned pair = first << 8 | s[1];
  if (first < 0xc2 || pair > 0xf48f || pair - 0xe080 < 0x20 || pair - 0xeda0 < 0x20 || pair - 0xf080 < 0x10) return 0;
  for (size_t i = 1; i < n; i++)
    if ((s[i] & 0xc0) != 0x80) return 0;
  return n;
}

static void put_string(fp_w *w, const char *text) {
  put_char(w, '"');
  while (*text && !w->full) {
    unsigned char c = (unsigned char)*text;
    size_t n = utf8_length((const unsigned char *)text);
    if (c < 0x20) {
      put_text(w, c < 0x10 ? "\\u000" : "\\u001");
      put_char(w, "0123456789abcdef"[c & 15]);
    } else if (n == 0) {
      n = 1;
      put_char(w, '?');
    } else {
      if (c == '"' || c == '\\') put_char(w, '\\');
      put(w, text, n);
    }
    text += n;
  }
  put_char(w, '"');
}

/* Comma, where something stands before, and name. */
static void put_name(fp_w *w, const char *name) {
  char last = w->n ? w->p[w->n - 1] : '[';
  if (last != '{' && last != '[') put_char(w, ',');
  if (!name) return;
  put_string(w, name);
  put_char(w, ':');
}

void fp_obj(fp_w *w, const char *name) {
  put_name(w, name);
  put_char(w, '{');
}

void fp_obj_end(fp_w *w) { put_char(w, '}'); }

void fp_arr(fp_w *w, const char *name) {
  put_name(w, name);
  put_char(w, '[');
}

void fp_arr_end(fp_w *w) { put_char(w, ']'); }

void fp_add_raw(fp_w *w, const char *name, fp_span json) {
  put_name(w, name);
  put(w, json.p, json.n);
}

static void add_text(fp_w *w, const char *name, const char *json) {
  put_name(w, name);
  put_text(w, json);
}

void fp_add_bool(fp_w *w, const char *name, bool value) { add_text(w, name, value ? "true" : "false"); }

void fp_add_str(fp_w *w, const char *name, const char *text) {
  if (!text) {
    add_text(w, name, "null");
    return;
  }
  put_name(w, name);
  put_string(w, text);
}

static void put_int(fp_w *w, int64_t value) {
  if (value < 0) put_char(w, '-');
  put_digits(w, value < 0 ? -(uint64_t)value : (uint64_t)value, 0);
}

void fp_add_int(fp_w *w, const char *name, int64_t value) {
  put_name(w, name);
  put_int(w, value);
}

/* Writes fraction * 2^twos: the shortest decimal within half a unit of the last place. */
static void put_num(fp_w *w, uint64_t fraction, int twos) {
  /* Without an exponent from 2^-16 to 2^56. */
  bool is_plain = twos >= -16 - 52 && twos < 56 - 52;
  /* The same as scaled * 10^start, with 59 bits at least. */
  uint64_t scaled = fraction, digits;
  int start = 0, tens;
  while (twos != 0) {
    if (twos > 0 ? scaled >> 62 == 0 : scaled >> 60 != 0) {
      scaled = twos > 0 ? scaled * 2 : (scaled + 1) / 2;
      twos += twos > 0 ? -1 : 1;
    } else {
      scaled = twos > 0 ? scaled / 10 : scaled * 10;
      start += twos > 0 ? 1 : -1;
    }
  }
  for (;;) {
    uint64_t reach = scaled / fraction / 2, low = scaled - reach, high = scaled + reach;
    for (tens = start; (low + 9) / 10 <= high / 10; tens++) {
      low = (low + 9) / 10;
      high /= 10;
    }
    digits = (low + high) / 2;
    /* Many digits, and bits of a float: as few digits as give that float back. */
    if (digits >> 43 == 0 || (fraction & 0x1fffffff) != 0) break;
    fraction >>= 29;
  }
  for (; is_plain && tens > 0; tens--) digits *= 10;
  put_digits(w, digits, is_plain ? -tens : 0);
  if (is_plain) return;
  put_char(w, 'e');
  put_int(w, tens);
}

void fp_add_num(fp_w *w, const char *name, double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  int exponent = (int)(bits >> 52) & 0x7ff;
  put_name(w, name);
  if (exponent == 0x7ff) {
    put_text(w, "null");
    return;
  }
  if (bits >> 63) put_char(w, '-');
  if (exponent == 0)
    put_char(w, '0');
  else
    put_num(w, (bits & 0xfffffffffffff) | 0x10000000000000, exponent - 1075);
}

void fp_add_nums(fp_w *w, const char *name, const float *values, size_t count) {
  fp_arr(w, name);
  while (count--) fp_add_num(w, NULL, (double)*values++);
  fp_arr_end(w);
}

void fp_fail(fp_w *w, const char *code, const char *msg) {
  w->code = code;
  w->msg = msg;
}

/* ---- keys and times --------------------------------------------------------------------------------- */

uint32_t fp_crc32(const void *bytes, size_t n) {
  const unsigned char *p = bytes;
  uint32_t crc = UINT32_MAX;
  while (n--) {
    crc ^= *p++;
    for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
  }
  return ~crc;
}

bool fp_key_ok(const char *key) {
  if (strlen(key) != FP_KEY_CHARS) return false;
  if (memcmp(key, FP_KEY_PREFIX_DEVICE, 4) != 0 && memcmp(key, FP_KEY_PREFIX_CLAIM, 4) != 0) return false;
  /* The checksum covers what stands before it, so the other characters need no check of their own. */
  uint32_t rest = fp_crc32(key, FP_KEY_CHARS - 6);
  for (int at = FP_KEY_CHARS - 1; at >= FP_KEY_CHARS - 6; at--) {
    unsigned digit = rest % 62;
    rest /= 62;
    unsigned c = digit + (digit < 10 ? '0' : digit < 36 ? 'A' - 10 : 'a' - 36);
    if ((unsigned char)key[at] != c) return false;
  }
  return true;
}

uint32_t fp_backoff_ms(unsigned attempt, uint8_t connack, uint32_t random) {
  uint32_t low = 0;
  uint32_t high = attempt < 9 ? (uint32_t)FP_BACKOFF_MIN_MS << attempt : FP_BACKOFF_MAX_MS;
  if (connack == 4 || connack == 5) {
    low = FP_BACKOFF_REFUSED_MS;
    high += low;
  }
  if (high > FP_BACKOFF_MAX_MS) high = FP_BACKOFF_MAX_MS;
  return low + random % (high - low + 1);
}

bool fp_clock_set(fp_client *c, uint32_t now, fp_span greeting) {
  fp_span v;
  int64_t ts;
  uint32_t up = c->hello_up + 1;
  if (!fp_get(greeting, "ts", &v) || !fp_i64(v, &ts) || ts < 0) return false;
  fp_get_u32(greeting, "up", &up);
  /* Without the echo nobody knows how long it was under way: better than no clock, no more. */
  bool is_echo = up == c->hello_up;
  if (is_echo || !c->unix_ms) {
    c->unix_ms = (uint64_t)ts + (is_echo ? (now - up) / 2 : 0);
    c->unix_at = now;
  }
  return true;
}

uint64_t fp_clock_ms(const fp_client *c, uint32_t now) {
  return c->unix_ms ? c->unix_ms + (now - c->unix_at) : 0;
}

/* ---- what is kept ----------------------------------------------------------------------------------- */

#define MAGIC 0x31525046u

static uint32_t crc_of(const fp_kept *kept) { return fp_crc32(kept, sizeof *kept - sizeof kept->crc); }

/* Alternates between the slots, so that a torn write leaves what was before it. */
bool fp_save(fp_client *c) {
  fp_kept *kept = &c->kept;
  kept->magic = MAGIC;
  kept->generation++;
  kept->crc = crc_of(kept);
  if (!c->port->save || c->port->save(c->port->ctx, kept->generation & 1, kept, sizeof *kept)) return true;
  kept->generation--;
  return false;
}

static fp_record load(fp_client *c) {
  fp_record found = FP_RECORD_NEW;
  unsigned torn = 0;
  for (unsigned slot = 0; c->port->load && slot < 2; slot++) {
    fp_kept kept;
    if (!c->port->load(c->port->ctx, slot, &kept, sizeof kept)) continue;
    if (kept.magic == MAGIC && kept.crc == crc_of(&kept)) {
      if (found == FP_RECORD_NEW || kept.generation > c->kept.generation) c->kept = kept;
      found = FP_RECORD_FOUND;
    } else if (kept.magic + 1 > 1) {
      /* Not blank, that is, all zeros or all ones. */
      torn++;
    }
  }
  /* With one only, it was the first write of all. */
  return torn == 2 ? FP_RECORD_LOST : found;
}

void fp_keep_status(fp_client *c, fp_st st, const char *code) {
  c->kept.st = st;
  strncpy(c->kept.code, code ? code : "", sizeof c->kept.code - 1);
}

/* ---- connection ------------------------------------------------------------------------------------- */

void fp_init(fp_client *c, const fp_port *port, const fp_about *about) {
  memset(c, 0, sizeof *c);
  c->port = port;
  c->about = about;
}

void fp_buffers(fp_client *c, char *rx, size_t rx_capacity, char *tx, size_t tx_capacity) {
  c->rx = rx;
  c->rx_capacity = (uint32_t)rx_capacity;
  c->tx = tx;
  c->tx_capacity = (uint32_t)tx_capacity;
}

fp_record fp_begin(fp_client *c, uint32_t now, bool is_boot) {
  fp_record found = load(c);
  c->begun_at = now;
  c->key_slot = c->kept.key_slot;
  c->is_lost = found == FP_RECORD_LOST;
  /* What ran when power was lost runs no more, and nobody knows how far it came. */
  if (c->kept.st == FP_ST_RUN) c->kept.st = FP_ST_UNKNOWN;
  c->is_cfg_settled = c->kept.cfg_state == CFG_OK && c->about->keeps_config;
  if (is_boot) {
    c->kept.boot++;
    fp_save(c);
  }
  return found;
}

void fp_on_connected(fp_client *c, uint32_t now) {
  c->is_connected = true;
  c->is_greeted = false;
  c->is_reconnecting = false;
  c->connected_at = c->asked_at = now;
  c->failed_at = now - 1000;
  c->unacked = 0;
  c->part_kind = IN_OTHER;
  c->due |= DUE_SUBSCRIBE | DUE_HELLO;
}

void fp_on_disconnected(fp_client *c) {
  c->is_connected = false;
  c->is_greeted = false;
}

void fp_on_puback(fp_client *c) {
  if (c->unacked > 0) c->unacked--;
}

bool fp_publish(fp_client *c, const char *topic, const char *payload, size_t n, int qos) {
  if (!c->is_connected) return false;
  /* Counted before: the PUBACK may come while publish still runs. */
  c->unacked++;
  fp_sent sent = c->port->publish(c->port->ctx, topic, payload, n, qos);
  if (sent != FP_SENT_OPEN) fp_on_puback(c);
  return sent != FP_SENT_NOT;
}

bool fp_publish_own(fp_client *c, const char *topic, fp_w *w) {
  fp_obj_end(w);
  size_t n = fp_w_end(w);
  return n > 0 && fp_publish(c, topic, w->p, n, c->about->qos);
}

/* ---- what is said of commands and configuration ----------------------------------------------------- */

void fp_w_open(fp_w *w, char *buffer, size_t capacity) {
  fp_w_init(w, buffer, capacity);
  fp_obj(w, NULL);
}

void fp_add_said(fp_w *w, const char *name, const char *text) {
  if (text) fp_add_str(w, name, text);
}

void fp_part(fp_w *w, char *buffer, size_t capacity, const char *name) {
  fp_w_open(w, buffer, capacity);
  fp_obj(w, name);
}

void fp_part_end(fp_w *w, const char *name) {
  size_t start = strlen(name) + 4;
  fp_obj_end(w);
  fp_span part = {w->p + start, w->n - start};
  if (w->full || part.n == 2 || part.n > FP_ACK_RESULT_MAX || !fp_json_ok(part)) {
    w->full = false;
    w->n = 1;
  }
}

static bool answer(fp_client *c, fp_w *w, uint32_t id, fp_st st) {
  static const char TEXTS[][4] = {FP_ST_TEXT_DUP, FP_ST_TEXT_OK, FP_ST_TEXT_RUN, FP_ST_TEXT_ERR,
                                  FP_ST_TEXT_NO};
  fp_add_int(w, "id", id);
  fp_add_str(w, "st", TEXTS[st]);
  if (st == FP_ST_UNKNOWN) fp_add_int(w, "last", c->kept.last);
  fp_add_said(w, "code", w->code);
  fp_add_said(w, "msg", w->msg);
  return fp_publish_own(c, FP_TOPIC_ACK, w);
}

/* Without a result: what is left when the whole answer did not fit or was not taken. */
static bool answer_shortly(fp_client *c, uint32_t id, fp_st st, const char *code) {
  char buffer[128];
  fp_w w;
  fp_w_open(&w, buffer, sizeof buffer);
  w.code = code && *code ? code : NULL;
  return answer(c, &w, id, st);
}

bool fp_answer(fp_client *c) { return answer_shortly(c, c->kept.last, (fp_st)c->kept.st, c->kept.code); }

void fp_result(fp_w *w, char *buffer, size_t capacity) { fp_part(w, buffer, capacity, "r"); }

bool fp_done(fp_client *c, uint32_t id, fp_st st, fp_w *w) {
  const char *code = w ? w->code : NULL;
  if (w) fp_part_end(w, "r");
  if (!(w && answer(c, w, id, st)) && !answer_shortly(c, id, st, code)) return false;
  if (c->running > 0) c->running--;
  if (id == c->kept.last) {
    fp_keep_status(c, st, code);
    fp_save(c);
  }
  return true;
}

bool fp_progress(fp_client *c, uint32_t id, unsigned percent) {
  char buffer[64];
  fp_w w;
  fp_w_open(&w, buffer, sizeof buffer);
  fp_add_int(&w, "pct", percent);
  return answer(c, &w, id, FP_ST_RUN);
}

/* ---- commands --------------------------------------------------------------------------------------- */

/* PROTOCOL 6.4. Save before execute is at most once, save after at least once. Returns false when the
 * command was not taken because nothing could be saved. */
static bool obey(fp_client *c, const fp_cmd *cmd, fp_w *w, fp_execute *execute) {
  fp_kept before = c->kept;
  uint64_t unix_ms = fp_clock_ms(c, c->now);
  bool is_expired = unix_ms && cmd->exp && unix_ms >= (uint64_t)cmd->exp * 1000;
  bool is_refused = is_expired || c->is_lost;
  if (is_expired) w->code = "expired";
  c->kept.last = cmd->id;
  fp_keep_status(c, is_expired ? FP_ST_NO : FP_ST_UNKNOWN, w->code);
  if (is_refused || !c->port->save_after || !c->port->save_after(c->port->ctx, cmd)) {
    if (!fp_save(c)) {
      c->kept = before;
      return false;
    }
    c->is_lost = false;
    if (is_refused) return true;
  }
  fp_st st = execute(c, cmd, w);
  if (st == FP_ST_NO && !w->code) w->code = "unknown";
  if (st == FP_ST_RUN) c->running++;
  fp_keep_status(c, st, w->code);
  fp_save(c);
  return true;
}

bool fp_obey(fp_client *c, uint32_t now, fp_span slot, fp_execute *execute) {
  fp_cmd cmd = {0, {"", 0}, {"{}", 2}, 1, 0};
  fp_w w;
  c->now = now;
  fp_get_u32(slot, "id", &cmd.id);
  fp_get_u32(slot, "n", &cmd.n);
  fp_get_u32(slot, "exp", &cmd.exp);
  fp_get(slot, "cmd", &cmd.name);
  fp_get(slot, "args", &cmd.args);
  if (cmd.id > c->kept.last) {
    c->waiting = cmd.n;
    c->due &= ~(uint32_t)DUE_ANSWER;
    c->reading = 1u << IN_CMD;
    fp_part(&w, c->tx, c->tx_capacity, "r");
    bool is_taken = obey(c, &cmd, &w, execute);
    /* From here on there is room for the next one: it may come while the answer is published. */
    c->reading = 0;
    c->cmd_n = 0;
    fp_part_end(&w, "r");
    if (!is_taken)
      answer_shortly(c, cmd.id, FP_ST_NO, "storage");
    else if (cmd.id != c->rekey_id && !answer(c, &w, cmd.id, (fp_st)c->kept.st))
      c->due |= DUE_ANSWER;
  } else {
    c->cmd_n = 0;
    if (cmd.id == c->rekey_id || cmd.id == 0) return true;
    if (cmd.id == c->kept.last)
      c->due |= DUE_ANSWER;
    else
      answer_shortly(c, cmd.id, FP_ST_UNKNOWN, NULL);
  }
  return (c->due & DUE_ANSWER) == 0;
}
