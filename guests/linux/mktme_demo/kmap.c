// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * kmap_keyid(): a page in the kernel's address space, with a KeyID, for a moment. As kmap_local_page() does for highmem,
 * each processor has a few slots of its own, so that nobody else's TLB ever holds the translation.
 */
#include <linux/bug.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/percpu.h>
#include <linux/pgtable.h>
#include <linux/vmalloc.h>
#include <asm/cacheflush.h>
#include <asm/set_memory.h>

#include "mktme_demo.h"

#define MKTME_KMAP_SLOTS 2

struct kmap_cpu {
	void *address[MKTME_KMAP_SLOTS];
	pte_t *entry[MKTME_KMAP_SLOTS];
	unsigned int used;
};

static DEFINE_PER_CPU(struct kmap_cpu, kmap_cpu);
/* Only makes vmap() build the page tables; its entries are taken out at once. */
static struct page *placeholder;

static __always_inline void invalidate(void *address)
{
	asm volatile("invlpg (%0)" : : "r"(address) : "memory");
}

static int slot_init(struct kmap_cpu *cpu, unsigned int n)
{
	unsigned int level;

	cpu->address[n] = vmap(&placeholder, 1, VM_MAP, PAGE_KERNEL);
	if (!cpu->address[n])
		return -ENOMEM;
	cpu->entry[n] = lookup_address((unsigned long)cpu->address[n], &level);
	if (!cpu->entry[n] || level != PG_LEVEL_4K)
		return -EINVAL;
	set_pte(cpu->entry[n], __pte(0));
	return 0;
}

int mktme_kmap_init(void)
{
	unsigned int cpu, n;
	int error = 0;

	placeholder = alloc_page(GFP_KERNEL);
	if (!placeholder)
		return -ENOMEM;
	for_each_possible_cpu(cpu)
		for (n = 0; n < MKTME_KMAP_SLOTS && !error; n++)
			error = slot_init(per_cpu_ptr(&kmap_cpu, cpu), n);
	if (error)
		mktme_kmap_exit();
	return error;
}

void mktme_kmap_exit(void)
{
	unsigned int cpu, n;

	for_each_possible_cpu(cpu)
		for (n = 0; n < MKTME_KMAP_SLOTS; n++)
			vunmap(per_cpu_ptr(&kmap_cpu, cpu)->address[n]);
	/* Whoever gets these addresses next must not find translations of the placeholder. */
	vm_unmap_aliases();
	__free_page(placeholder);
}

void *kmap_keyid(struct page *page, u16 keyid)
{
	struct kmap_cpu *cpu;
	unsigned int n;

	preempt_disable();
	cpu = this_cpu_ptr(&kmap_cpu);
	n = cpu->used++;
	BUG_ON(n >= MKTME_KMAP_SLOTS);
	set_pte(cpu->entry[n], __pte(page_to_phys(page) | mktme_keyid_mask(keyid) | pgprot_val(PAGE_KERNEL)));
	/* Speculation may have used the placeholder's entry. */
	invalidate(cpu->address[n]);
	return cpu->address[n];
}

void kunmap_keyid(void *address)
{
	struct kmap_cpu *cpu = this_cpu_ptr(&kmap_cpu);
	unsigned int n = --cpu->used;

	BUG_ON(cpu->address[n] != address);
	set_pte(cpu->entry[n], __pte(0));
	invalidate(address);
	preempt_enable();
}
