// SPDX-License-Identifier: MIT OR GPL-2.0
/* ChaCha20 and Poly1305 (RFC 8439), in plain C. */
#include "chacha.h"

enum { DOUBLE_ROUNDS = 10, LIMB_BITS = 26 };

#define LIMB_MASK ((1u << LIMB_BITS) - 1)

static uint32_t rotate(uint32_t word, unsigned bits)
{
	return word << bits | word >> (32 - bits);
}

static inline void quarter_round(uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d)
{
	*a += *b;
	*d = rotate(*d ^ *a, 16);
	*c += *d;
	*b = rotate(*b ^ *c, 12);
	*a += *b;
	*d = rotate(*d ^ *a, 8);
	*c += *d;
	*b = rotate(*b ^ *c, 7);
}

void chacha_block(const uint32_t key[CHACHA_KEY_WORDS], uint32_t counter, const uint32_t nonce[CHACHA_NONCE_WORDS],
		  uint32_t out[CHACHA_BLOCK_WORDS])
{
	/* "expand 32-byte k" */
	const uint32_t start[CHACHA_BLOCK_WORDS] = {
		0x61707865, 0x3320646e, 0x79622d32, 0x6b206574, key[0], key[1], key[2],	  key[3],
		key[4],	    key[5],	key[6],	    key[7],	counter, nonce[0], nonce[1], nonce[2],
	};
	uint32_t x[CHACHA_BLOCK_WORDS];

	for (unsigned n = 0; n < CHACHA_BLOCK_WORDS; n++)
		x[n] = start[n];
	for (unsigned round = 0; round < DOUBLE_ROUNDS; round++) {
		for (unsigned column = 0; column < 4; column++)
			quarter_round(&x[column], &x[4 + column], &x[8 + column], &x[12 + column]);
		for (unsigned column = 0; column < 4; column++)
			quarter_round(&x[column], &x[4 + (column + 1) % 4], &x[8 + (column + 2) % 4],
				      &x[12 + (column + 3) % 4]);
	}
	for (unsigned n = 0; n < CHACHA_BLOCK_WORDS; n++)
		out[n] = x[n] + start[n];
}

/* 130 bits as five limbs. */
static void limbs(uint64_t low, uint64_t high, uint32_t bit_128, uint32_t out[POLY_LIMBS])
{
	out[0] = low & LIMB_MASK;
	out[1] = low >> 26 & LIMB_MASK;
	out[2] = (low >> 52 | high << 12) & LIMB_MASK;
	out[3] = high >> 14 & LIMB_MASK;
	out[4] = high >> 40 | bit_128 << 24;
}

void poly_start(struct poly *poly, const uint64_t key[4])
{
	/* Some bits of r are 0 (RFC 8439, 2.5). */
	limbs(key[0] & 0x0ffffffc0fffffffu, key[1] & 0x0ffffffc0ffffffcu, 0, poly->r);
	for (unsigned n = 0; n < POLY_LIMBS; n++)
		poly->h[n] = 0;
	poly->s[0] = key[2];
	poly->s[1] = key[3];
}

/* Leaves at most one bit too many, in limb 1. */
static void carry(const uint64_t wide[POLY_LIMBS], uint32_t h[POLY_LIMBS])
{
	uint64_t rest = 0;

	for (unsigned n = 0; n < POLY_LIMBS; n++) {
		rest += wide[n];
		h[n] = rest & LIMB_MASK;
		rest >>= LIMB_BITS;
	}
	/* 2^130 is 5 modulo the prime. */
	rest = rest * 5 + h[0];
	h[0] = rest & LIMB_MASK;
	h[1] += rest >> LIMB_BITS;
}

void poly_blocks(struct poly *poly, const uint64_t *words, unsigned blocks)
{
	const uint32_t *r = poly->r;
	uint32_t *h = poly->h;

	for (; blocks; blocks--, words += 2) {
		uint32_t block[POLY_LIMBS];
		uint64_t wide[POLY_LIMBS];

		limbs(words[0], words[1], 1, block);
		for (unsigned n = 0; n < POLY_LIMBS; n++)
			h[n] += block[n];
		for (unsigned n = 0; n < POLY_LIMBS; n++) {
			wide[n] = 0;
			for (unsigned m = 0; m < POLY_LIMBS; m++)
				wide[n] += (uint64_t)h[m] * (m <= n ? r[n - m] : 5 * r[POLY_LIMBS + n - m]);
		}
		carry(wide, h);
	}
}

void poly_end(const struct poly *poly, uint64_t tag[2])
{
	uint64_t wide[POLY_LIMBS], rest;
	uint32_t h[POLY_LIMBS], less[POLY_LIMBS], keep;
	unsigned __int128 sum;

	for (unsigned n = 0; n < POLY_LIMBS; n++)
		wide[n] = poly->h[n];
	carry(wide, h);
	for (unsigned n = 0; n < POLY_LIMBS; n++)
		wide[n] = h[n];
	carry(wide, h);
	/* h - (2^130 - 5), which is h + 5 without bit 130, if that bit is there. */
	rest = 5;
	for (unsigned n = 0; n < POLY_LIMBS; n++) {
		rest += h[n];
		less[n] = rest & LIMB_MASK;
		rest >>= LIMB_BITS;
	}
	keep = (uint32_t)rest - 1; /* all ones: h is below the prime */
	for (unsigned n = 0; n < POLY_LIMBS; n++)
		h[n] = (h[n] & keep) | (less[n] & ~keep);
	sum = ((unsigned __int128)poly->s[1] << 64) + poly->s[0];
	for (unsigned n = 0; n < POLY_LIMBS; n++)
		sum += (unsigned __int128)h[n] << (LIMB_BITS * n);
	tag[0] = sum;
	tag[1] = sum >> 64;
}
