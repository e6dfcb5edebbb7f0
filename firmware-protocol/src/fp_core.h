/* What fp_client.c uses of fp.c beside fp.h. Not for applications: it may change with any version. */
#ifndef FP_CORE_H
#define FP_CORE_H

#include "fp.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bits of `due`. */
enum { DUE_SUBSCRIBE = 1, DUE_HELLO = 2, DUE_ANSWER = 4, DUE_REPORT = 8, DUE_KEY = 16 };
/* What a message is, by its topic; `reading` has a bit of the one that a handler reads. */
enum { IN_CMD, IN_CFG, IN_HELLO, IN_ERR, IN_KEY, IN_OTHER };
/* States of the last configuration. Tried: applying it began, and did not end before a reset. */
enum { CFG_NONE, CFG_OK, CFG_BAD, CFG_TRIED, CFG_TRIED_TWICE };

/* Leaves *out alone when there is no such number. */
bool fp_get_u32(fp_span object, const char *name, uint32_t *out);
/* Begins an object. */
void fp_w_open(fp_w *w, char *buffer, size_t capacity);
/* Adds a text unless it is NULL. */
void fp_add_said(fp_w *w, const char *name, const char *text);
/* Results and reports are written first, and what the contract wants follows them. */
void fp_part(fp_w *w, char *buffer, size_t capacity, const char *name);
/* Ends what fp_part began; leaves it out when it is empty, malformed, too long or does not fit. */
void fp_part_end(fp_w *w, const char *name);
/* Ends the object and publishes it. */
bool fp_publish_own(fp_client *c, const char *topic, fp_w *w);
/* What became of the last command, to be saved with fp_save. */
void fp_keep_status(fp_client *c, fp_st st, const char *code);
bool fp_save(fp_client *c);

#ifdef __cplusplus
}
#endif

#endif
