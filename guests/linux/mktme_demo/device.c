// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * mktme_demo: Linux that uses MKTME, for the MKTME emulator. /dev/mktme_demo gives programs memory under KeyIDs; uapi.h
 * describes it. Each open file may make one classic mistake on request.
 */
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/overflow.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/smp.h>

#include "mktme_demo.h"

#define REGION_PAGES_MAX 256

static unsigned int mistake;
module_param(mistake, uint, 0444);
MODULE_PARM_DESC(mistake, "what files do wrong that did not say otherwise: 0 nothing, 1 to 6 see uapi.h");

struct mktme_file {
	struct mutex lock; /* of `kept` and the set-up */
	u32 mistake;
	bool keep;
	struct list_head kept;
};

/* A mapping's pages. */
struct mktme_region {
	refcount_t users;
	struct mktme_file *file; /* the mapping's vm_file keeps it */
	unsigned long count;
	struct page *pages[];
};

/* ---- mappings -------------------------------------------------------------------------------------------------- */

static void region_free(struct mktme_region *region)
{
	struct mktme_file *file = region->file;
	unsigned long n;

	mutex_lock(&file->lock);
	for (n = 0; n < region->count; n++)
		mktme_page_free(file->keep ? &file->kept : NULL, region->pages[n], file->mistake);
	mutex_unlock(&file->lock);
	kfree(region);
}

static struct mktme_region *region_alloc(struct mktme_file *file, u16 keyid, unsigned long count)
{
	struct mktme_region *region = kzalloc(struct_size(region, pages, count), GFP_KERNEL);

	if (!region)
		return NULL;
	refcount_set(&region->users, 1);
	region->file = file;
	mutex_lock(&file->lock);
	while (region->count < count) {
		struct page *page = mktme_page_alloc(&file->kept, keyid, file->mistake);

		if (!page)
			break;
		region->pages[region->count++] = page;
	}
	mutex_unlock(&file->lock);
	if (region->count < count) {
		region_free(region);
		return NULL;
	}
	return region;
}

/* mremap() makes a second mapping before it removes the first. */
static void vm_open(struct vm_area_struct *vma)
{
	struct mktme_region *region = vma->vm_private_data;

	refcount_inc(&region->users);
}

/* The page tables' entries are gone by now and have been flushed from all TLBs. */
static void vm_close(struct vm_area_struct *vma)
{
	struct mktme_region *region = vma->vm_private_data;

	if (refcount_dec_and_test(&region->users))
		region_free(region);
}

static int vm_may_split(struct vm_area_struct *vma, unsigned long address)
{
	return -EINVAL;
}

static vm_fault_t vm_fault(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	struct mktme_region *region = vma->vm_private_data;
	unsigned long n = (vmf->address - vma->vm_start) >> PAGE_SHIFT;

	if (n >= region->count)
		return VM_FAULT_SIGBUS;
	/* The KeyID is in vm_page_prot, as in the RFC: it is a property of the mapping. */
	return vmf_insert_pfn_prot(vma, vmf->address & PAGE_MASK, page_to_pfn(region->pages[n]), vma->vm_page_prot);
}

static const struct vm_operations_struct vm_operations = {
	.open = vm_open,
	.close = vm_close,
	.may_split = vm_may_split,
	.fault = vm_fault,
};

static int mktme_mmap(struct file *file, struct vm_area_struct *vma)
{
	unsigned long keyid = vma->vm_pgoff, count = vma_pages(vma);
	struct mktme_region *region;

	if (keyid > mktme_tme.keyids || count > REGION_PAGES_MAX || !(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	region = region_alloc(file->private_data, keyid, count);
	if (!region)
		return -ENOMEM;
	vma->vm_private_data = region;
	vma->vm_ops = &vm_operations;
	/* No child, no core dump, no get_user_pages(): all of them would have a mapping without the KeyID. */
	vma->vm_flags |= VM_PFNMAP | VM_IO | VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP;
	vma->vm_page_prot = __pgprot(pgprot_val(vma->vm_page_prot) | mktme_keyid_mask(keyid));
	return 0;
}

/* ---- accesses on a program's behalf ---------------------------------------------------------------------------- */

/* The page at an address of the caller, whose mmap_lock is held: that keeps it. */
static struct page *page_at(unsigned long address)
{
	struct vm_area_struct *vma = vma_lookup(current->mm, address);
	struct mktme_region *region;

	if (!vma || vma->vm_ops != &vm_operations)
		return NULL;
	region = vma->vm_private_data;
	return region->pages[(address - vma->vm_start) >> PAGE_SHIFT];
}

static noinline void mktme_kernel_read(struct page *page, void *buffer)
{
	void *mapping = kmap_keyid(page, mktme_page_keyid(page));

	mktme_copy(buffer, mapping);
	kunmap_keyid(mapping);
}

static noinline void mktme_kernel_write(struct page *page, const void *buffer)
{
	void *mapping = kmap_keyid(page, mktme_page_keyid(page));

	mktme_copy(mapping, buffer);
	kunmap_keyid(mapping);
}

static int page_access(struct page *page, u32 operation, void *buffer, u32 wrong)
{
	switch (operation) {
	case MKTME_PAGE_QUERY:
		return 0;
	case MKTME_PAGE_READ:
		if (wrong == MKTME_MISTAKE_DIRECT_MAP)
			mktme_direct_map_read(page, buffer);
		else
			mktme_kernel_read(page, buffer);
		return 0;
	case MKTME_PAGE_WRITE:
		if (wrong == MKTME_MISTAKE_DIRECT_MAP)
			mktme_direct_map_write(page, buffer);
		else
			mktme_kernel_write(page, buffer);
		return 0;
	case MKTME_PAGE_DMA_READ:
	case MKTME_PAGE_DMA_WRITE:
		if (wrong == MKTME_MISTAKE_DMA_WRONG_KEYID)
			return mktme_dma_wrong_keyid(page, buffer, operation == MKTME_PAGE_DMA_WRITE);
		return mktme_dma(page, buffer, operation == MKTME_PAGE_DMA_WRITE);
	default:
		return -EINVAL;
	}
}

static int ioctl_page(struct mktme_file *file, struct mktme_demo_page *call)
{
	bool reads = call->operation == MKTME_PAGE_READ || call->operation == MKTME_PAGE_DMA_READ;
	bool writes = call->operation == MKTME_PAGE_WRITE || call->operation == MKTME_PAGE_DMA_WRITE;
	void __user *user = u64_to_user_ptr(call->buffer);
	struct page *page;
	int error = -EFAULT;
	void *buffer;

	/* In between, because neither mmap_lock nor a temporary mapping can be held while the program's memory faults. */
	buffer = kmalloc(PAGE_SIZE, GFP_KERNEL);
	if (!buffer)
		return -ENOMEM;
	if (writes && copy_from_user(buffer, user, PAGE_SIZE))
		goto free;
	mmap_read_lock(current->mm);
	page = page_at(call->address);
	if (page) {
		call->physical = page_to_phys(page);
		call->keyid = mktme_page_keyid(page);
		error = page_access(page, call->operation, buffer, file->mistake);
	}
	mmap_read_unlock(current->mm);
	if (!error && reads && copy_to_user(user, buffer, PAGE_SIZE))
		error = -EFAULT;
free:
	kfree_sensitive(buffer);
	return error;
}

/* ---- the device ------------------------------------------------------------------------------------------------ */

static int ioctl_setup(struct mktme_file *file, const struct mktme_demo_setup *setup)
{
	if (setup->mistake >= MKTME_MISTAKES || setup->flags & ~MKTME_SETUP_KEEP_PAGES)
		return -EINVAL;
	mutex_lock(&file->lock);
	file->mistake = setup->mistake;
	/* Pages with lines that will be written back some day are not for the kernel. Once kept, always kept. */
	file->keep |= setup->mistake != MKTME_MISTAKE_NONE || setup->flags & MKTME_SETUP_KEEP_PAGES;
	mutex_unlock(&file->lock);
	return 0;
}

static void get_stats(struct mktme_demo_stats *stats)
{
	mktme_key_stats(stats);
	stats->pages_allocated = atomic64_read(&mktme_pages_allocated);
	stats->pages_freed = atomic64_read(&mktme_pages_freed);
	stats->transfers = atomic64_read(&mktme_dma_transfers);
}

union argument {
	struct mktme_demo_info info;
	struct mktme_demo_setup setup;
	struct mktme_demo_key key;
	struct mktme_demo_page page;
	struct mktme_demo_stats stats;
	__u32 keyid;
};

static long mktme_ioctl(struct file *file, unsigned int command, unsigned long user)
{
	union argument argument = {};
	long error = 0;

	if (_IOC_SIZE(command) > sizeof(argument))
		return -ENOTTY;
	if (_IOC_DIR(command) & _IOC_WRITE && copy_from_user(&argument, (void __user *)user, _IOC_SIZE(command)))
		return -EFAULT;
	switch (command) {
	case MKTME_DEMO_INFO:
		argument.info.keyid_bits = mktme_tme.keyid_bits;
		argument.info.keyid_shift = mktme_tme.keyid_shift;
		argument.info.keyids = mktme_tme.keyids;
		argument.info.algorithm = mktme_tme.algorithm;
		argument.info.packages = mktme_packages();
		argument.info.dma = mktme_dma_present();
		break;
	case MKTME_DEMO_SETUP:
		error = ioctl_setup(file->private_data, &argument.setup);
		break;
	case MKTME_DEMO_KEY_ALLOC:
		error = mktme_key_alloc(&argument.key);
		break;
	case MKTME_DEMO_KEY_REPLACE: {
		struct mktme_file *state = file->private_data;

		error = mktme_key_replace(&argument.key, state->mistake == MKTME_MISTAKE_REKEY_DIRTY);
		break;
	}
	case MKTME_DEMO_KEY_FREE:
		error = argument.keyid > mktme_tme.keyids ? -ENOKEY : mktme_key_free(argument.keyid);
		break;
	case MKTME_DEMO_PAGE:
		error = ioctl_page(file->private_data, &argument.page);
		break;
	case MKTME_DEMO_WBINVD:
		wbinvd_on_all_cpus();
		break;
	case MKTME_DEMO_STATS:
		get_stats(&argument.stats);
		break;
	default:
		return -ENOTTY;
	}
	if (!error && _IOC_DIR(command) & _IOC_READ && copy_to_user((void __user *)user, &argument, _IOC_SIZE(command)))
		error = -EFAULT;
	/* It may have been a key. */
	memzero_explicit(&argument, sizeof(argument));
	return error;
}

static int mktme_open(struct inode *inode, struct file *file)
{
	struct mktme_file *state = kzalloc(sizeof(*state), GFP_KERNEL);

	if (!state)
		return -ENOMEM;
	mutex_init(&state->lock);
	INIT_LIST_HEAD(&state->kept);
	state->mistake = mistake;
	state->keep = mistake != MKTME_MISTAKE_NONE;
	file->private_data = state;
	return 0;
}

static int mktme_release(struct inode *inode, struct file *file)
{
	struct mktme_file *state = file->private_data;

	mktme_kept_free(&state->kept);
	kfree(state);
	return 0;
}

static const struct file_operations file_operations = {
	.owner = THIS_MODULE,
	.open = mktme_open,
	.release = mktme_release,
	.mmap = mktme_mmap,
	.unlocked_ioctl = mktme_ioctl,
	.llseek = noop_llseek,
};

/* Keys and encrypted memory are for the administrator, as in the RFC. */
static struct miscdevice misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "mktme_demo",
	.fops = &file_operations,
	.mode = 0600,
};

static int __init mktme_init(void)
{
	int error;

	if (mistake >= MKTME_MISTAKES)
		return -EINVAL;
	error = mktme_detect();
	if (error)
		return error;
	error = mktme_kmap_init();
	if (error)
		return error;
	error = mktme_keys_init();
	if (error)
		goto kmap;
	error = mktme_dma_init();
	if (error)
		goto keys;
	error = misc_register(&misc);
	if (!error)
		return 0;
	mktme_dma_exit();
keys:
	mktme_keys_exit();
kmap:
	mktme_kmap_exit();
	return error;
}

static void __exit mktme_exit(void)
{
	struct mktme_demo_stats stats;

	misc_deregister(&misc);
	mktme_dma_exit();
	mktme_keys_exit();
	mktme_kmap_exit();
	get_stats(&stats);
	pr_info("unloaded: %llu pages were under KeyIDs, %lld are; %llu keys programmed\n", stats.pages_allocated,
		stats.pages_allocated - stats.pages_freed, stats.keys_programmed);
}

module_init(mktme_init);
module_exit(mktme_exit);
MODULE_DESCRIPTION("Memory under MKTME KeyIDs, by the protocol and by its classic mistakes");
MODULE_LICENSE("Dual MIT/GPL");
