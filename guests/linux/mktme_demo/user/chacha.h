/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* ChaCha20 and Poly1305 as in RFC 8439, for the fault target. Without branches or addresses that depend on secrets. */
#ifndef CHACHA_H
#define CHACHA_H

#include <stdint.h>

enum { CHACHA_KEY_WORDS = 8, CHACHA_NONCE_WORDS = 3, CHACHA_BLOCK_WORDS = 16, POLY_LIMBS = 5 };

/* The block function (RFC 8439, 2.3); words are the RFC's, as the little-endian host has them. */
void chacha_block(const uint32_t key[CHACHA_KEY_WORDS], uint32_t counter, const uint32_t nonce[CHACHA_NONCE_WORDS],
		  uint32_t out[CHACHA_BLOCK_WORDS]);

/* A one-time authenticator over whole blocks of 16 bytes (RFC 8439, 2.5). */
struct poly {
	uint32_t r[POLY_LIMBS], h[POLY_LIMBS]; /* 26 bits each */
	uint64_t s[2];
};

/* `key` is r, then s. */
void poly_start(struct poly *poly, const uint64_t key[4]);
void poly_blocks(struct poly *poly, const uint64_t *words, unsigned blocks);
void poly_end(const struct poly *poly, uint64_t tag[2]);

#endif
