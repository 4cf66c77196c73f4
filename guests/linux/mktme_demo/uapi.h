/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * /dev/mktme_demo as programs see it: memory under a KeyID by mmap(), the rest by ioctl(). docs/linux-module.md.
 *
 * mmap(NULL, length, prot, MAP_SHARED, fd, KEYID * 4096) gives zeroed pages under KEYID; 0 is memory without a KeyID.
 * The mapping cannot be split, and a child does not inherit it.
 */
#ifndef MKTME_DEMO_UAPI_H
#define MKTME_DEMO_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define MKTME_DEMO_DEVICE "/dev/mktme_demo"

/* What is done wrong, if anything. The module parameter `mistake` takes the same numbers. */
enum mktme_demo_mistake {
	MKTME_MISTAKE_NONE,
	MKTME_MISTAKE_ALLOC_NO_FLUSH,	  /* a page gets a KeyID, and KeyID 0's dirty lines stay in the cache */
	MKTME_MISTAKE_FREE_NO_FLUSH,	  /* a page loses its KeyID, and the KeyID's dirty lines stay */
	MKTME_MISTAKE_FREE_WRONG_MAPPING, /* the same, after a flush through the direct map */
	MKTME_MISTAKE_REKEY_DIRTY,	  /* a KeyID gets a new key while pages are in use under it */
	MKTME_MISTAKE_DIRECT_MAP,	  /* the kernel reads and writes a page under a KeyID through KeyID 0 */
	MKTME_MISTAKE_DMA_WRONG_KEYID,	  /* the same, by a device: a bus address without the KeyID */
	MKTME_MISTAKES,
};

/* Key types: names and meaning of the payload are those of the RFC's key service. */
enum mktme_demo_key_type {
	MKTME_KEY_USER,	      /* `key` and `tweak` are the keys */
	MKTME_KEY_CPU,	      /* random keys; `key` and `tweak` are entropy, and may be zero */
	MKTME_KEY_NO_ENCRYPT, /* no encryption */
	MKTME_KEY_TYPES,
};

#define MKTME_DEMO_KEY_BYTES 32
#define MKTME_DEMO_PAGE_BYTES 4096

struct mktme_demo_info {
	__u32 keyid_bits;  /* TDX's not among them */
	__u32 keyid_shift; /* lowest KeyID bit in a physical address */
	__u32 keyids;	   /* usable ones are 1 to this */
	__u32 algorithm;   /* bit of 982H[63:48] that keys are programmed with */
	__u32 packages;	   /* each has a key table of its own */
	__u32 dma;	   /* 1: the DMA test device is there */
};

struct mktme_demo_key {
	__u32 type;
	__u32 keyid; /* out for KEY_ALLOC, in for KEY_REPLACE */
	__u8 key[MKTME_DEMO_KEY_BYTES];
	__u8 tweak[MKTME_DEMO_KEY_BYTES];
};

#define MKTME_SETUP_KEEP_PAGES 1 /* freed pages are the next that mmap() gives, newest first. Every mistake implies it */

struct mktme_demo_setup {
	__u32 mistake;
	__u32 flags;
};

/* Who accesses a page on the program's behalf. */
enum mktme_demo_operation {
	MKTME_PAGE_QUERY,     /* nobody: only `physical` and `keyid` are told */
	MKTME_PAGE_READ,      /* the kernel, through a temporary mapping with the page's KeyID */
	MKTME_PAGE_WRITE,
	MKTME_PAGE_DMA_READ,  /* the DMA test device */
	MKTME_PAGE_DMA_WRITE,
};

struct mktme_demo_page {
	__u64 address;	/* a page of a mapping of this device */
	__u64 buffer;	/* 4096 bytes of the caller */
	__u64 physical; /* out: without the KeyID */
	__u32 operation;
	__u32 keyid;	/* out */
};

struct mktme_demo_stats {
	__u64 pages_allocated; /* since the module was loaded; KeyID 0 not among them */
	__u64 pages_freed;
	__u64 keys_programmed; /* PCONFIGs that ended with PROG_SUCCESS */
	__u64 retries;	       /* after DEVICE_BUSY and ENTROPY_ERROR */
	__u64 transfers;       /* of the DMA test device */
};

#define MKTME_DEMO_INFO _IOR('K', 0, struct mktme_demo_info)
#define MKTME_DEMO_SETUP _IOW('K', 1, struct mktme_demo_setup)
#define MKTME_DEMO_KEY_ALLOC _IOWR('K', 2, struct mktme_demo_key)
#define MKTME_DEMO_KEY_REPLACE _IOW('K', 3, struct mktme_demo_key) /* EBUSY while pages are in use under the KeyID */
#define MKTME_DEMO_KEY_FREE _IOW('K', 4, __u32)			   /* likewise */
#define MKTME_DEMO_PAGE _IOWR('K', 5, struct mktme_demo_page)
#define MKTME_DEMO_WBINVD _IO('K', 6)
#define MKTME_DEMO_STATS _IOR('K', 7, struct mktme_demo_stats)

#endif
