// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The classic mistakes, each in a function that says which, for those who look at a report. Compare pages.c, keys.c and
 * dma.c, which are right.
 */
#include <linux/compiler.h>

#include "mktme_demo.h"

/* No flush on allocation: lines that are dirty under KeyID 0 will overwrite what the owner stores. */
noinline void mktme_alloc_no_flush(struct page *page, u16 keyid)
{
	void *mapping;

	set_page_private(page, keyid);
	mapping = kmap_keyid(page, keyid);
	mktme_zero(mapping);
	kunmap_keyid(mapping);
}

/* No flush on free: lines that are dirty under the KeyID will overwrite what the next owner stores. */
noinline void mktme_free_no_flush(struct page *page)
{
	set_page_private(page, 0);
	mktme_zero(page_address(page));
}

/* A flush through the direct map reaches KeyID 0's lines. None of them is dirty. */
noinline void mktme_free_wrong_mapping(struct page *page)
{
	mktme_flush(page_address(page));
	set_page_private(page, 0);
	mktme_zero(page_address(page));
}

/*
 * A new key while pages are in use under the KeyID: what is in memory turns into noise, what is dirty in the cache is
 * encrypted with the new key. Called on one processor of each package.
 */
noinline void mktme_rekey_dirty(void *job)
{
	struct mktme_program_job *program = job;

	program->status = mktme_pconfig(program->program);
}

/* The direct map shows what KeyID 0's key makes of the page, or what was there long ago. */
noinline void mktme_direct_map_read(struct page *page, void *buffer)
{
	mktme_copy(buffer, page_address(page));
}

/* What is stored through the direct map is noise for the owner, or is lost. */
noinline void mktme_direct_map_write(struct page *page, const void *buffer)
{
	mktme_copy(page_address(page), buffer);
}

/* mktme_dma_wrong_keyid() is in dma.c. */
