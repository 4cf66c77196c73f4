/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What the files of the module share. */
#ifndef MKTME_DEMO_H
#define MKTME_DEMO_H

#include <linux/atomic.h>
#include <linux/mm.h>
#include <linux/types.h>
#include <asm/special_insns.h>

#include "uapi.h"

#undef pr_fmt
#define pr_fmt(fmt) "mktme_demo: " fmt

/* ---- tme.c: what firmware left to the operating system --------------------------------------------------------- */

struct mktme_tme {
	unsigned int keyid_bits;
	unsigned int keyid_shift;
	unsigned int keyids;
	u16 algorithm;
};

extern struct mktme_tme mktme_tme;

int mktme_detect(void);

/* KeyID bits of a physical address or page-table entry. */
static inline u64 mktme_keyid_mask(u16 keyid)
{
	return (u64)keyid << mktme_tme.keyid_shift;
}

/* ---- kmap.c: temporary kernel mappings with a KeyID ------------------------------------------------------------ */

int mktme_kmap_init(void);
void mktme_kmap_exit(void);

/*
 * Maps a page with a KeyID on this processor, until kunmap_keyid(). The caller must not sleep in between. Mappings nest,
 * MKTME_KMAP_SLOTS deep.
 */
void *kmap_keyid(struct page *page, u16 keyid);
void kunmap_keyid(void *address);

/* ---- keys.c: PCONFIG ------------------------------------------------------------------------------------------- */

struct mktme_key_program {
	u16 keyid;
	u32 keyid_ctrl;
	u8 ignored[58];
	u8 key_field_1[64];
	u8 key_field_2[64];
} __packed __aligned(256);

/* Executes PCONFIG. Inlined, so that it belongs to the function that decided on it. Returns RAX. */
static __always_inline u64 mktme_pconfig(const struct mktme_key_program *program)
{
	u64 status = 0; /* leaf 0, MKTME_KEY_PROGRAM */

	asm volatile(".byte 0x0f, 0x01, 0xc5" : "+a"(status) : "b"(program) : "memory", "cc");
	return status;
}

int mktme_keys_init(void);
void mktme_keys_exit(void);
int mktme_key_alloc(struct mktme_demo_key *key);
int mktme_key_replace(const struct mktme_demo_key *key, bool even_in_use);
int mktme_key_free(u16 keyid);
/* A page is about to be used under a KeyID: keeps its key. -ENOKEY: it has none. */
int mktme_key_get(u16 keyid);
void mktme_key_put(u16 keyid);
void mktme_key_stats(struct mktme_demo_stats *stats);
unsigned int mktme_packages(void);

/* ---- pages.c: the protocol ------------------------------------------------------------------------------------- */

extern atomic64_t mktme_pages_allocated, mktme_pages_freed;

/* The KeyID that a page is used under. Pages that the module does not hold have 0. */
static inline u16 mktme_page_keyid(struct page *page)
{
	return page_private(page);
}

/*
 * Writes back and drops the lines of a page that are cached under this mapping's KeyID, and no others. Inlined like
 * everything below, so that accesses belong to the function that decided on them.
 */
static __always_inline void mktme_flush(void *mapping)
{
	unsigned int offset;

	mb(); /* CLFLUSH is ordered behind earlier stores of the line, but compilers are not */
	for (offset = 0; offset < PAGE_SIZE; offset += 64)
		clflush(mapping + offset);
	mb();
}

static __always_inline void mktme_zero(void *mapping)
{
	unsigned long count = PAGE_SIZE / 8;

	asm volatile("rep stosq" : "+D"(mapping), "+c"(count) : "a"(0) : "memory");
}

static __always_inline void mktme_copy(void *to, const void *from)
{
	unsigned long count = PAGE_SIZE / 8;

	asm volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

void mktme_page_to_keyid(struct page *page, u16 keyid);
void mktme_page_from_keyid(struct page *page);

struct page *mktme_page_alloc(struct list_head *kept, u16 keyid, u32 mistake);
void mktme_page_free(struct list_head *kept, struct page *page, u32 mistake);
void mktme_kept_free(struct list_head *kept);

/* ---- mistakes.c: each in a function of its own ------------------------------------------------------------------ */

void mktme_alloc_no_flush(struct page *page, u16 keyid);
void mktme_free_no_flush(struct page *page);
void mktme_free_wrong_mapping(struct page *page);
void mktme_rekey_dirty(void *job);
void mktme_direct_map_read(struct page *page, void *buffer);
void mktme_direct_map_write(struct page *page, const void *buffer);

/* What keys.c has a processor of each package do. */
struct mktme_program_job {
	struct mktme_key_program *program;
	u64 status;
};

/* ---- dma.c: the emulator's DMA test device ---------------------------------------------------------------------- */

int mktme_dma_init(void);
void mktme_dma_exit(void);
bool mktme_dma_present(void);
extern atomic64_t mktme_dma_transfers;
/* Has the device move a page from `buffer` to memory, or from memory to `buffer`. */
int mktme_dma(struct page *page, void *buffer, bool to_memory);
/* The mistake. */
int mktme_dma_wrong_keyid(struct page *page, void *buffer, bool to_memory);

#endif
