/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What the files of the program share. */
#ifndef MKTME_USER_H
#define MKTME_USER_H

#include <stdbool.h>
#include <stdint.h>

#include "uapi.h"

enum { LINE_BYTES = 64, PAGE_BYTES = MKTME_DEMO_PAGE_BYTES, PAGE_LINES = PAGE_BYTES / LINE_BYTES };

/* ---- device.c ---- */

extern struct mktme_demo_info info;

void device_open(uint32_t mistake, uint32_t flags);
/* Closes it, which gives kept pages back. */
void device_close(void);
uint32_t key_alloc(enum mktme_demo_key_type type);
/* 0 or an errno value. */
int key_replace(uint32_t keyid, enum mktme_demo_key_type type);
void key_free(uint32_t keyid);
uint8_t *map_pages(uint32_t keyid, unsigned pages);
void unmap_pages(uint8_t *at, unsigned pages);
/* Has the kernel or the device access a page; returns its physical address. */
uint64_t page_access(uint8_t *page, enum mktme_demo_operation operation, uint8_t *buffer);
void wbinvd(void);
/* Writes back and drops the lines of a page: CLFLUSH is for programs too. */
void flush_page(const uint8_t *page);
struct mktme_demo_stats stats(void);
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- random.c ---- */

/* The same sequence for the same seed, everywhere. */
void random_seed(uint64_t seed);
uint64_t random_word(void);
/* 0 to n - 1 */
unsigned random_below(unsigned n);
/* The word at `index` of the contents that `seed` stands for. */
uint64_t content_word(uint64_t seed, unsigned index);
void content_fill(uint8_t *page, uint64_t seed);
/* How many lines of the page are not the contents of `seed`. */
unsigned content_wrong_lines(const uint8_t *page, uint64_t seed);

/* ---- the commands ---- */

int secret(const char *type, bool flush, uint64_t seed);
int protocol(unsigned rounds, uint64_t seed);
int mistake(const char *name, unsigned trials, uint64_t seed);
int fault_target(const char *type, uint32_t keyid, unsigned rounds, bool check, uint64_t seed);
/* NULL after the last. The first is `none`. */
const char *mistake_name(unsigned number);

#endif
