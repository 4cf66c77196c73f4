// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A page with a secret in encrypted memory, for whoever probes the memory bus afterwards. The text exists nowhere else: it
 * is made byte by byte in that page, so that finding it in DRAM means that this page is in clear there.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "mktme_user.h"

/* A line is "secret NN 0123456789abcdef 0123456789abcdef 0123456789abcdef\n", with hexadecimal digits from the seed. */
enum { WORDS = 3, NUMBER_AT = 7, WORDS_AT = 10 };

static char digit(uint64_t value)
{
	value &= 15;
	return value < 10 ? '0' + value : 'a' + value - 10;
}

static char character(uint64_t seed, unsigned line, unsigned column)
{
	unsigned word, place;

	if (column < NUMBER_AT)
		return "secret "[column];
	if (column < NUMBER_AT + 2)
		return '0' + (column == NUMBER_AT ? line / 10 : line % 10);
	if (column == LINE_BYTES - 1)
		return '\n';
	if (column < WORDS_AT)
		return ' ';
	word = (column - WORDS_AT) / 17;
	place = (column - WORDS_AT) % 17;
	if (word >= WORDS)
		return '.';
	return place == 16 ? ' ' : digit(content_word(seed, line * WORDS + word) >> (60 - 4 * place));
}

int secret(const char *type, bool flush, uint64_t seed)
{
	static const char *const types[] = { "user", "cpu", "no-encrypt", "keyid-0" };
	uint32_t keyid = 0;
	volatile char *page;
	unsigned number;

	for (number = 0; number < 4 && strcmp(type, types[number]); number++)
		;
	if (number == 4)
		fail("key type %s: unknown; accepted: user, cpu, no-encrypt, keyid-0", type);
	random_seed(seed);
	device_open(MKTME_MISTAKE_NONE, 0);
	if (number < MKTME_KEY_TYPES)
		keyid = key_alloc(number);
	page = (volatile char *)map_pages(keyid, 1);
	for (unsigned n = 0; n < PAGE_BYTES; n++)
		page[n] = character(seed, n / LINE_BYTES, n % LINE_BYTES);
	if (flush)
		flush_page((const uint8_t *)page);
	printf("SECRET at %#llx under KeyID %u, key %s, %s\n",
	       (unsigned long long)page_access((uint8_t *)page, MKTME_PAGE_QUERY, NULL), keyid, type,
	       flush ? "flushed" : "not flushed");
	fflush(stdout);
	/* The page is overwritten when its owner ends. */
	for (;;)
		pause();
}
