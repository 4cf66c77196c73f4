// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The correct protocol, many times: in each round some pages are given back and others allocated, under a KeyID at random,
 * while up to 15 other regions keep their contents. The program, the kernel and the device write and read them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "mktme_user.h"

enum { REGIONS = 16, REGION_PAGES = 4, KEYS = 24, REPLACE_EVERY = 16 };

struct region {
	uint8_t *at; /* NULL: none */
	unsigned pages;
	unsigned key; /* index of keyids */
	uint64_t seeds[REGION_PAGES];
};

static struct region regions[REGIONS];
static uint32_t keyids[KEYS];
static unsigned keys;
static uint8_t buffer[PAGE_BYTES] __attribute__((aligned(4096)));
static unsigned long wrong;

static void expect(bool right, const char *what, const struct region *region, unsigned page)
{
	if (right)
		return;
	/* The first few tell it all. */
	if (wrong++ < 10)
		printf("PROTOCOL wrong: %s, KeyID %u, page %u\n", what, keyids[region->key], page);
}

/* Who accesses a page: the program, the kernel or, if there is one, the device. */
static unsigned agent(void)
{
	return random_below(info.dma ? 3 : 2);
}

static void write_page(struct region *region, unsigned n)
{
	uint8_t *page = region->at + n * PAGE_BYTES;
	unsigned by = agent();

	region->seeds[n] = random_word();
	if (by == 0) {
		content_fill(page, region->seeds[n]);
		return;
	}
	content_fill(buffer, region->seeds[n]);
	page_access(page, by == 1 ? MKTME_PAGE_WRITE : MKTME_PAGE_DMA_WRITE, buffer);
}

static void check_page(const struct region *region, unsigned n)
{
	uint8_t *page = region->at + n * PAGE_BYTES;
	unsigned by = agent();

	if (by == 0) {
		expect(!content_wrong_lines(page, region->seeds[n]), "contents", region, n);
		return;
	}
	page_access(page, by == 1 ? MKTME_PAGE_READ : MKTME_PAGE_DMA_READ, buffer);
	expect(!content_wrong_lines(buffer, region->seeds[n]), by == 1 ? "the kernel's view" : "the device's view", region, n);
}

static bool all_zero(const uint8_t *page)
{
	const volatile uint64_t *words = (const volatile uint64_t *)page;
	uint64_t bits = 0;

	for (unsigned n = 0; n < PAGE_BYTES / 8; n++)
		bits |= words[n];
	return !bits;
}

static void allocate(struct region *region)
{
	region->key = random_below(keys);
	region->pages = 1 + random_below(REGION_PAGES);
	region->at = map_pages(keyids[region->key], region->pages);
	for (unsigned n = 0; n < region->pages; n++) {
		expect(all_zero(region->at + n * PAGE_BYTES), "a new page is not zero", region, n);
		write_page(region, n);
	}
}

static void release(struct region *region)
{
	for (unsigned n = 0; n < region->pages; n++)
		check_page(region, n);
	unmap_pages(region->at, region->pages);
	region->at = NULL;
}

static enum mktme_demo_key_type key_type(void)
{
	return random_below(MKTME_KEY_TYPES);
}

/* A key can be replaced when no page is in use under it, and not before. */
static void replace_key(void)
{
	unsigned key = 1 + random_below(keys - 1);
	struct region *user = NULL;
	int result = key_replace(keyids[key], key_type());

	for (unsigned n = 0; n < REGIONS; n++)
		if (regions[n].at && regions[n].key == key)
			user = &regions[n];
	if (user)
		expect(result == EBUSY, "a key in use was replaced", user, 0);
	else if (result)
		fail("KEY_REPLACE: error %d", result);
}

int protocol(unsigned rounds, uint64_t seed)
{
	struct mktme_demo_stats at_end;

	random_seed(seed);
	device_open(MKTME_MISTAKE_NONE, 0);
	keyids[0] = 0; /* pages without a KeyID take part */
	for (keys = 1; keys < KEYS && keys <= info.keyids; keys++)
		keyids[keys] = key_alloc(key_type());
	for (unsigned round = 0; round < rounds; round++) {
		struct region *region = &regions[random_below(REGIONS)], *other = &regions[random_below(REGIONS)];

		if (region->at)
			release(region);
		allocate(region);
		if (other->at) {
			unsigned n = random_below(other->pages);

			check_page(other, n);
			write_page(other, n);
		}
		if (random_below(REPLACE_EVERY) == 0)
			replace_key();
	}
	for (unsigned n = 0; n < REGIONS; n++)
		if (regions[n].at)
			release(&regions[n]);
	for (unsigned n = 1; n < keys; n++)
		key_free(keyids[n]);
	at_end = stats();
	printf("PROTOCOL %u rounds: %s; %llu pages under %u KeyIDs, %llu keys programmed, %llu retries, %llu DMA transfers\n",
	       rounds, wrong ? "CONTENTS WRONG" : "contents correct", (unsigned long long)at_end.pages_allocated, keys - 1,
	       (unsigned long long)at_end.keys_programmed, (unsigned long long)at_end.retries,
	       (unsigned long long)at_end.transfers);
	if (wrong)
		printf("PROTOCOL %lu checks failed\n", wrong);
	device_close();
	return wrong != 0;
}
