// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The protocol: a page gets a KeyID, and loses it. These two are the allocation and the free hook of the MKTME RFC
 * (prep_encrypted_page() and free_encrypted_page() there).
 */
#include <linux/gfp.h>
#include <linux/list.h>
#include <asm/smp.h>

#include "mktme_demo.h"

atomic64_t mktme_pages_allocated, mktme_pages_freed;

/* Allocation. The caller holds a reference of the KeyID's key for the page. */
void mktme_page_to_keyid(struct page *page, u16 keyid)
{
	void *mapping;

	/*
	 * 1. Flush through the mapping that the page was used by, the direct map: KeyID 0. A line that is dirty there would
	 *    be written back at some time, over what the new owner stores.
	 */
	mktme_flush(page_address(page));
	/* 2. From here on the direct map is not for this page. */
	set_page_private(page, keyid);
	/* 3. In memory is what the old key made; under the new one that is noise. Overwrite all of it. */
	mapping = kmap_keyid(page, keyid);
	mktme_zero(mapping);
	kunmap_keyid(mapping);
}

/* Free. The owner's mappings are gone, and so are their translations. */
void mktme_page_from_keyid(struct page *page)
{
	/* 1. Flush through a mapping with the KeyID that the page was used under. */
	void *mapping = kmap_keyid(page, mktme_page_keyid(page));

	mktme_flush(mapping);
	kunmap_keyid(mapping);
	/* 2. The direct map is for this page again. */
	set_page_private(page, 0);
	/* 3. It would show noise. The RFC leaves that there, as the allocator does with any old contents; init_on_free. */
	mktme_zero(page_address(page));
}

/*
 * A page under `keyid`, zeroed. NULL: no memory, or no key. `kept`: pages that are to be used again first.
 */
struct page *mktme_page_alloc(struct list_head *kept, u16 keyid, u32 mistake)
{
	struct page *page;

	if (keyid && mktme_key_get(keyid))
		return NULL;
	page = list_first_entry_or_null(kept, struct page, lru);
	if (page)
		list_del(&page->lru);
	else
		page = alloc_page(GFP_KERNEL | __GFP_ZERO);
	if (!page) {
		if (keyid)
			mktme_key_put(keyid);
		return NULL;
	}
	if (!keyid) {
		mktme_zero(page_address(page));
		return page;
	}
	if (mistake == MKTME_MISTAKE_ALLOC_NO_FLUSH)
		mktme_alloc_no_flush(page, keyid);
	else
		mktme_page_to_keyid(page, keyid);
	atomic64_inc(&mktme_pages_allocated);
	return page;
}

/* Takes a page back: into `kept` if that is not NULL, else to the kernel. */
void mktme_page_free(struct list_head *kept, struct page *page, u32 mistake)
{
	u16 keyid = mktme_page_keyid(page);

	if (keyid) {
		switch (mistake) {
		case MKTME_MISTAKE_FREE_NO_FLUSH:
			mktme_free_no_flush(page);
			break;
		case MKTME_MISTAKE_FREE_WRONG_MAPPING:
			mktme_free_wrong_mapping(page);
			break;
		default:
			mktme_page_from_keyid(page);
		}
		/* Taken for each page, so that the KeyID is not used for another key too early. */
		mktme_key_put(keyid);
		atomic64_inc(&mktme_pages_freed);
	} else {
		/* The owner's data. There is nothing to flush: the next to use the page sees the same lines. */
		mktme_zero(page_address(page));
	}
	if (kept)
		list_add(&page->lru, kept);
	else
		__free_page(page);
}

/*
 * Gives kept pages back to the kernel. Mistakes may have left dirty lines of any KeyID, and those would damage whatever the
 * kernel uses the pages for; so all caches are written back, and the pages overwritten after that.
 */
void mktme_kept_free(struct list_head *kept)
{
	struct page *page, *next;

	if (list_empty(kept))
		return;
	wbinvd_on_all_cpus();
	list_for_each_entry_safe(page, next, kept, lru) {
		list_del(&page->lru);
		mktme_zero(page_address(page));
		__free_page(page);
	}
}
