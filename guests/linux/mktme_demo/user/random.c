// SPDX-License-Identifier: MIT OR GPL-2.0
/* Random numbers and page contents, from a seed: splitmix64 (Steele, Lea and Flood, OOPSLA 2014). */
#include <string.h>

#include "mktme_user.h"

#define GOLDEN_GAMMA 0x9e3779b97f4a7c15u

static uint64_t state;

static uint64_t mix(uint64_t z)
{
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

void random_seed(uint64_t seed)
{
	state = mix(seed);
}

uint64_t random_word(void)
{
	return mix(state += GOLDEN_GAMMA);
}

unsigned random_below(unsigned n)
{
	return random_word() % n;
}

uint64_t content_word(uint64_t seed, unsigned index)
{
	return mix(seed + (index + 1) * GOLDEN_GAMMA);
}

void content_fill(uint8_t *page, uint64_t seed)
{
	volatile uint64_t *words = (volatile uint64_t *)page;

	for (unsigned n = 0; n < PAGE_BYTES / 8; n++)
		words[n] = content_word(seed, n);
}

unsigned content_wrong_lines(const uint8_t *page, uint64_t seed)
{
	const volatile uint64_t *words = (const volatile uint64_t *)page;
	unsigned wrong = 0;

	for (unsigned line = 0; line < PAGE_LINES; line++) {
		bool same = true;

		for (unsigned n = line * (LINE_BYTES / 8); n < (line + 1) * (LINE_BYTES / 8); n++)
			same &= words[n] == content_word(seed, n);
		wrong += !same;
	}
	return wrong;
}
