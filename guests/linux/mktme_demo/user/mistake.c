// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The classic mistakes, and what they do to data. A trial follows one page through three owners and is the same for every
 * mistake, so that `none` is the control:
 *
 *   1. KeyID 0 has it and gives it back, which leaves its lines dirty in the cache.
 *   2. KeyID A has it: stores, lets time pass, reads, stores again; the kernel or the device reads and writes it too; or
 *      the KeyID's key is replaced. The page is given back with dirty lines.
 *   3. KeyID B, or KeyID 0, has it: stores, lets time pass, reads.
 *
 * What happens while time passes is up to the seed: nothing; memory traffic that evicts lines; the owner's own flush, as
 * programs do for devices or persistent memory; a WBINVD, as the kernel does when it changes memory types.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mktme_user.h"

static const char *const names[] = {
	[MKTME_MISTAKE_NONE] = "none",
	[MKTME_MISTAKE_ALLOC_NO_FLUSH] = "no-flush-on-alloc",
	[MKTME_MISTAKE_FREE_NO_FLUSH] = "no-flush-on-free",
	[MKTME_MISTAKE_FREE_WRONG_MAPPING] = "wrong-mapping-on-free",
	[MKTME_MISTAKE_REKEY_DIRTY] = "rekey-dirty",
	[MKTME_MISTAKE_DIRECT_MAP] = "direct-map",
	[MKTME_MISTAKE_DMA_WRONG_KEYID] = "dma-wrong-keyid",
	[MKTME_MISTAKES] = NULL,
};

enum { TRAFFIC_BYTES_MAX = 4 << 20, SCENES = 4 };

static const char *const scene_names[SCENES] = { "nothing", "traffic", "owner's flush, traffic", "WBINVD" };
static uint8_t buffer[PAGE_BYTES] __attribute__((aligned(4096)));
static uint8_t *traffic;

const char *mistake_name(unsigned number)
{
	return names[number];
}

static void make_traffic(void)
{
	unsigned lines = 1 + random_below(TRAFFIC_BYTES_MAX / LINE_BYTES);
	unsigned at = random_below(TRAFFIC_BYTES_MAX / LINE_BYTES);

	for (unsigned n = 0; n < lines; n++) {
		volatile uint8_t *line = traffic + (size_t)((at + n) % (TRAFFIC_BYTES_MAX / LINE_BYTES)) * LINE_BYTES;

		*line = n;
	}
}

/* Time passes for the owner of a page. Returns what happened. */
static unsigned pass_time(const uint8_t *page)
{
	unsigned scene = random_below(SCENES);

	if (scene == 2)
		flush_page(page);
	if (scene == 1 || scene == 2)
		make_traffic();
	if (scene == 3)
		wbinvd();
	return scene;
}

/* The owner stores again, here and there, what is there already: lines become dirty. */
static void touch(uint8_t *page, uint64_t seed)
{
	volatile uint64_t *words = (volatile uint64_t *)page;

	for (unsigned line = 0; line < PAGE_LINES; line++) {
		unsigned n = line * (LINE_BYTES / 8);

		if (line == 0 || random_below(4))
			words[n] = content_word(seed, n);
	}
}

/* The kernel or the device reads the owner's data and writes other data for it. Returns how many lines are wrong. */
static unsigned others_access(uint8_t *page, uint64_t *seed, bool device)
{
	unsigned wrong;

	touch(page, *seed);
	page_access(page, device ? MKTME_PAGE_DMA_READ : MKTME_PAGE_READ, buffer);
	wrong = content_wrong_lines(buffer, *seed);
	*seed = random_word();
	content_fill(buffer, *seed);
	page_access(page, device ? MKTME_PAGE_DMA_WRITE : MKTME_PAGE_WRITE, buffer);
	return wrong;
}

struct trial {
	unsigned scenes[3];
	unsigned lines[3]; /* wrong ones */
};

static struct trial run_trial(unsigned which)
{
	uint32_t a = key_alloc(random_below(2) ? MKTME_KEY_USER : MKTME_KEY_CPU);
	uint32_t b = random_below(2) ? key_alloc(random_below(MKTME_KEY_TYPES)) : 0;
	struct trial trial = { 0 };
	uint64_t seed;
	uint8_t *page;

	page = map_pages(0, 1);
	content_fill(page, random_word());
	unmap_pages(page, 1);

	seed = random_word();
	page = map_pages(a, 1);
	content_fill(page, seed);
	trial.scenes[0] = pass_time(page);
	trial.lines[0] = content_wrong_lines(page, seed);
	/* What was wrong before counts once. */
	content_fill(page, seed);
	trial.scenes[1] = pass_time(page);
	if (which == MKTME_MISTAKE_REKEY_DIRTY) {
		touch(page, seed);
		if (key_replace(a, MKTME_KEY_CPU))
			fail("KEY_REPLACE failed");
		pass_time(page);
	} else {
		trial.lines[1] = others_access(page, &seed, which == MKTME_MISTAKE_DMA_WRONG_KEYID);
	}
	trial.lines[1] += content_wrong_lines(page, seed);
	touch(page, seed);
	unmap_pages(page, 1);

	seed = random_word();
	page = map_pages(b, 1);
	content_fill(page, seed);
	trial.scenes[2] = pass_time(page);
	trial.lines[2] = content_wrong_lines(page, seed);
	unmap_pages(page, 1);

	key_free(a);
	if (b)
		key_free(b);
	return trial;
}

int mistake(const char *name, unsigned trials, uint64_t seed)
{
	unsigned which, corrupted = 0;
	unsigned long lines = 0;

	for (which = 0; names[which] && strcmp(name, names[which]); which++)
		;
	if (!names[which])
		fail("mistake %s: unknown", name);
	random_seed(seed);
	device_open(which, MKTME_SETUP_KEEP_PAGES);
	if (which == MKTME_MISTAKE_DMA_WRONG_KEYID && !info.dma) {
		printf("MISTAKE %s: no DMA device (--dma-device on)\n", name);
		device_close();
		return 1;
	}
	traffic = malloc(TRAFFIC_BYTES_MAX);
	if (!traffic)
		fail("no memory");
	memset(traffic, 1, TRAFFIC_BYTES_MAX);
	for (unsigned n = 0; n < trials; n++) {
		struct trial trial = run_trial(which);
		unsigned wrong = trial.lines[0] + trial.lines[1] + trial.lines[2];

		printf("TRIAL %s %u: lines wrong %u after %s, %u after %s, %u after %s\n", name, n, trial.lines[0],
		       scene_names[trial.scenes[0]], trial.lines[1], scene_names[trial.scenes[1]], trial.lines[2],
		       scene_names[trial.scenes[2]]);
		corrupted += wrong != 0;
		lines += wrong;
	}
	printf("MISTAKE %s: %s, %u of %u trials, %lu lines\n", name, corrupted ? "corrupted" : "intact", corrupted, trials,
	       lines);
	free(traffic);
	device_close();
	return 0;
}
