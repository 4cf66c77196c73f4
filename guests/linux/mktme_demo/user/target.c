// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A program for fault injection: it works on a secret in encrypted memory, and what it prints in the end depends on every bit
 * of it (docs/linux-module.md).
 *
 * The buffer is 256 lines. The first has the key and the tag of the round before, the others the message. In a round every
 * line of the message is read, XORed with a block of ChaCha20, written, and authenticated by Poly1305; key and counter are
 * as in RFC 8439, 2.8, and the nonce is the tag of the round before. So a wrong bit in one round is wrong everywhere in the
 * next. Between rounds all lines are flushed, so that each round reads from DRAM what the round before has written there.
 *
 * With the check, the last word of a line is a checksum of the others, of the line's number and of the round: a line that is
 * old is as wrong as a line that is damaged.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <termios.h>
#include <unistd.h>

#include "chacha.h"
#include "mktme_user.h"

enum { PAGES = 4, LINES = PAGES * PAGE_LINES, WORDS = LINE_BYTES / 8, CHECK = WORDS - 1 };
/* Pages come one by one; among so many there are some in a row. */
enum { MAPPED = 64 };
/* The port of markers (docs/faults.md), and what is written to it. */
enum { MARKER_PORT = 0xe8, MARKER_START = 0x51, MARKER_END = 0x5e, MARKER_DETECTED = 0xd1 };
/* Words of line 0. */
enum { KEY = 0, TAG = 4, SPARE = 6 };

static bool real; /* in the guest: with the device and with markers */
static bool checked;
static uint8_t *pages[PAGES];

static void marker(uint8_t value)
{
	/* What was printed leaves the serial port before, so that it does so at no other time. */
	fflush(stdout);
	if (!real)
		return;
	tcdrain(STDOUT_FILENO);
	outb(value, MARKER_PORT);
}

static volatile uint64_t *line(unsigned n)
{
	return (volatile uint64_t *)(pages[n / PAGE_LINES] + n % PAGE_LINES * LINE_BYTES);
}

static uint64_t checksum(const uint64_t words[WORDS], unsigned n, unsigned round)
{
	uint64_t sum = (uint64_t)round << 32 | n;

	for (unsigned word = 0; word < CHECK; word++) {
		sum = (sum ^ words[word]) * 0x9e3779b97f4a7c15u;
		sum ^= sum >> 29;
	}
	return sum;
}

/* Reads a line that was stored in `round`. */
static void load(unsigned n, unsigned round, uint64_t words[WORDS])
{
	volatile uint64_t *from = line(n);

	for (unsigned word = 0; word < WORDS; word++)
		words[word] = from[word];
	if (checked && words[CHECK] != checksum(words, n, round)) {
		printf("fault detected: line %u of the buffer, round %u\n", n, round);
		marker(MARKER_DETECTED);
		exit(3);
	}
}

static void store(unsigned n, unsigned round, uint64_t words[WORDS])
{
	volatile uint64_t *to = line(n);

	words[CHECK] = checked ? checksum(words, n, round) : 0;
	for (unsigned word = 0; word < WORDS; word++)
		to[word] = words[word];
}

static void flush(void)
{
	for (unsigned n = 0; n < PAGES; n++)
		flush_page(pages[n]);
}

/* Round 0: the secret, from the seed. */
static void make_secret(uint64_t seed)
{
	uint64_t words[WORDS];

	for (unsigned n = 0; n < LINES; n++) {
		for (unsigned word = 0; word < CHECK; word++)
			words[word] = content_word(seed, n * WORDS + word);
		store(n, 0, words);
	}
	flush();
}

/* Authenticates what is there, encrypting it if there is another round to come. Returns the tag. */
static void work(unsigned round, bool encrypt, uint64_t tag[2])
{
	uint32_t key[CHACHA_KEY_WORDS], nonce[CHACHA_NONCE_WORDS];
	uint64_t words[WORDS], stream[WORDS];
	struct poly poly;

	load(0, round, words);
	memcpy(key, &words[KEY], sizeof(key));
	memcpy(nonce, &words[TAG], sizeof(nonce));
	chacha_block(key, 0, nonce, (uint32_t *)stream);
	poly_start(&poly, stream);
	/* The key and the tag as they were read; a number makes whole blocks of it. */
	words[CHECK] = round;
	poly_blocks(&poly, words, WORDS / 2);
	for (unsigned n = 1; n < LINES; n++) {
		load(n, round, words);
		if (encrypt) {
			chacha_block(key, n, nonce, (uint32_t *)stream);
			for (unsigned word = 0; word < CHECK; word++)
				words[word] ^= stream[word];
			store(n, round + 1, words);
		}
		words[CHECK] = n;
		poly_blocks(&poly, words, WORDS / 2);
	}
	poly_end(&poly, tag);
	if (!encrypt)
		return;
	memcpy(&words[KEY], key, sizeof(key));
	words[TAG] = tag[0];
	words[TAG + 1] = tag[1];
	words[SPARE] = round + 1;
	store(0, round + 1, words);
	flush();
}

static int by_address(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

/* Takes pages that follow each other in physical memory; returns where. */
static uint64_t map_buffer(uint32_t keyid)
{
	struct {
		uint64_t physical;
		uint8_t *at;
	} all[MAPPED];
	uint8_t *mapped = map_pages(keyid, MAPPED);

	for (unsigned n = 0; n < MAPPED; n++) {
		all[n].at = mapped + (size_t)n * PAGE_BYTES;
		all[n].physical = page_access(all[n].at, MKTME_PAGE_QUERY, NULL);
	}
	qsort(all, MAPPED, sizeof(all[0]), by_address);
	for (unsigned first = 0; first + PAGES <= MAPPED; first++) {
		/* They are sorted, and no two are the same. */
		if (all[first + PAGES - 1].physical - all[first].physical != (PAGES - 1) * PAGE_BYTES)
			continue;
		for (unsigned n = 0; n < PAGES; n++)
			pages[n] = all[first + n].at;
		return all[first].physical;
	}
	fail("no %d pages in a row among %d", PAGES, MAPPED);
}

/* A key of this type for this KeyID, by allocating until its turn comes. */
static void program(uint32_t keyid, enum mktme_demo_key_type type)
{
	uint32_t got;

	if (keyid == 0)
		return;
	if (keyid > info.keyids)
		fail("KeyID %u; accepted: 0 to %u", keyid, info.keyids);
	do
		got = key_alloc(type);
	while (got < keyid);
	if (got != keyid)
		fail("KeyID %u is in use", keyid);
}

/* Examples of RFC 8439: 2.3.2, and A.3 numbers 7, 8 and 10, which are whole blocks and about the carries. */
static void self_test(void)
{
	static const uint32_t nonce[CHACHA_NONCE_WORDS] = { 0x09000000, 0x4a000000, 0 };
	static const struct {
		uint64_t key[4], words[6], blocks, tag[2];
	} examples[] = {
		{ { 2, 0, 0, 0 }, { -1ul, -1ul }, 1, { 3, 0 } },
		{ { 2, 0, -1ul, -1ul }, { 2, 0 }, 1, { 3, 0 } },
		{ { 1, 0, 0, 0 },
		  { -1ul, -1ul, 0xfefefefefefefefb, 0xfefefefefefefefe, 0x0101010101010101, 0x0101010101010101 },
		  3,
		  { 0, 0 } },
	};
	uint32_t key[CHACHA_KEY_WORDS], out[CHACHA_BLOCK_WORDS];

	for (unsigned n = 0; n < CHACHA_KEY_WORDS; n++)
		key[n] = 0x03020100 + n * 0x04040404;
	chacha_block(key, 1, nonce, out);
	if (out[0] != 0xe4e7f110 || out[5] != 0x0368c033 || out[15] != 0x4e3c50a2)
		fail("ChaCha20 is wrong");
	for (unsigned n = 0; n < sizeof(examples) / sizeof(examples[0]); n++) {
		struct poly poly;
		uint64_t tag[2];

		poly_start(&poly, examples[n].key);
		poly_blocks(&poly, examples[n].words, examples[n].blocks);
		poly_end(&poly, tag);
		if (tag[0] != examples[n].tag[0] || tag[1] != examples[n].tag[1])
			fail("Poly1305 is wrong: example %u", n);
	}
}

/* The same computation on ordinary memory, without device and markers: what `result` has to be. */
static void map_reference(void)
{
	static uint8_t memory[PAGES * PAGE_BYTES] __attribute__((aligned(4096)));

	self_test();
	for (unsigned n = 0; n < PAGES; n++)
		pages[n] = memory + n * PAGE_BYTES;
}

int fault_target(const char *type, uint32_t keyid, unsigned rounds, bool check, uint64_t seed)
{
	uint64_t tag[2], at;

	checked = check;
	real = strcmp(type, "reference") != 0;
	if (!real) {
		map_reference();
	} else {
		if (strcmp(type, "user") && strcmp(type, "cpu"))
			fail("key type %s: unknown; accepted: user, cpu, reference", type);
		if (ioperm(MARKER_PORT, 1, 1))
			fail("ioperm: %s", strerror(errno));
		random_seed(seed);
		device_open(MKTME_MISTAKE_NONE, 0);
		program(keyid, strcmp(type, "cpu") ? MKTME_KEY_USER : MKTME_KEY_CPU);
		at = map_buffer(keyid);
		printf("buffer: %#llx keyid %u bytes %u\n", (unsigned long long)at, keyid, PAGES * PAGE_BYTES);
	}
	make_secret(seed);
	marker(MARKER_START);
	for (unsigned round = 0; round < rounds; round++)
		work(round, true, tag);
	work(rounds, false, tag);
	printf("result: %016llx%016llx\n", (unsigned long long)tag[1], (unsigned long long)tag[0]);
	marker(MARKER_END);
	return 0;
}
