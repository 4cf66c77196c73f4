// SPDX-License-Identifier: MIT OR GPL-2.0
/* Detection: CPUID and the MSRs that firmware locked. Intel SDM Vol. 3, "Total Memory Encryption"; Intel document 336907. */
#include <linux/bitops.h>
#include <linux/errno.h>
#include <linux/moduleparam.h>
#include <linux/printk.h>
#include <asm/cpuid.h>
#include <asm/msr.h>
#include <asm/processor.h>

#include "mktme_demo.h"

#define CPUID_7_ECX_TME BIT(13)
#define CPUID_7_EDX_PCONFIG BIT(18)

#define CPUID_PCONFIG 0x1b
#define PCONFIG_SUBLEAF_TYPE GENMASK(11, 0)
#define PCONFIG_SUBLEAF_TARGETS 1
#define PCONFIG_TARGET_TME_MK 1

#define MSR_TME_CAPABILITY 0x981
#define TME_CAPABILITY_MAX_KEYS(value) (((value) >> 36) & 0x7fff)

#define MSR_TME_ACTIVATE 0x982
#define TME_ACTIVATE_LOCKED BIT_ULL(0)
#define TME_ACTIVATE_ENABLED BIT_ULL(1)
#define TME_ACTIVATE_KEYID_BITS(value) (((value) >> 32) & 0xf)
#define TME_ACTIVATE_TDX_BITS(value) (((value) >> 36) & 0xf)
#define TME_ACTIVATE_ALGORITHMS(value) ((u16)((value) >> 48))
/* AES-XTS-128 and AES-XTS-256, each with a MAC for every line. */
#define ALGORITHMS_WITH_INTEGRITY (BIT(1) | BIT(3))

static bool integrity;
module_param(integrity, bool, 0444);
MODULE_PARM_DESC(integrity, "keys of an algorithm with integrity, or none");

struct mktme_tme mktme_tme;

static bool pconfig_programs_keys(void)
{
	unsigned int subleaf, eax, ebx, ecx, edx;

	for (subleaf = 0;; subleaf++) {
		cpuid_count(CPUID_PCONFIG, subleaf, &eax, &ebx, &ecx, &edx);
		if ((eax & PCONFIG_SUBLEAF_TYPE) == 0)
			return false;
		if ((eax & PCONFIG_SUBLEAF_TYPE) != PCONFIG_SUBLEAF_TARGETS)
			continue;
		if (ebx == PCONFIG_TARGET_TME_MK || ecx == PCONFIG_TARGET_TME_MK || edx == PCONFIG_TARGET_TME_MK)
			return true;
	}
}

int mktme_detect(void)
{
	unsigned int eax, ebx, ecx, edx, bits, tdx_bits, address_bits;
	u64 capability, activate;
	u16 algorithms;

	if (cpuid_eax(0) < CPUID_PCONFIG)
		goto none;
	cpuid_count(7, 0, &eax, &ebx, &ecx, &edx);
	if (!(ecx & CPUID_7_ECX_TME) || !(edx & CPUID_7_EDX_PCONFIG) || !pconfig_programs_keys())
		goto none;
	if (rdmsrl_safe(MSR_TME_CAPABILITY, &capability) || rdmsrl_safe(MSR_TME_ACTIVATE, &activate))
		goto none;
	if (!(activate & TME_ACTIVATE_LOCKED) || !(activate & TME_ACTIVATE_ENABLED)) {
		pr_err("firmware did not enable TME\n");
		return -ENODEV;
	}
	bits = TME_ACTIVATE_KEYID_BITS(activate);
	tdx_bits = TME_ACTIVATE_TDX_BITS(activate);
	if (bits <= tdx_bits || !TME_ACTIVATE_ALGORITHMS(activate)) {
		pr_err("firmware left no KeyIDs\n");
		return -ENODEV;
	}
	algorithms = TME_ACTIVATE_ALGORITHMS(activate);
	algorithms &= integrity ? ALGORITHMS_WITH_INTEGRITY : ~ALGORITHMS_WITH_INTEGRITY;
	if (!algorithms) {
		pr_err("no algorithm %s integrity\n", integrity ? "with" : "without");
		return -ENODEV;
	}
	/* CPUID's width includes the KeyID bits; x86_phys_bits is what the kernel left of it. */
	address_bits = cpuid_eax(0x80000008) & 0xff;
	mktme_tme.keyid_shift = address_bits - bits;
	mktme_tme.keyid_bits = bits - tdx_bits;
	mktme_tme.keyids = min_t(unsigned int, BIT(mktme_tme.keyid_bits) - 1, TME_CAPABILITY_MAX_KEYS(capability));
	mktme_tme.algorithm = BIT(__ffs(algorithms));
	/*
	 * pte_pfn() and friends cut with this. Linux reduces it for AMD's C-bit only: MKTME's bits pass through pgprot_t and
	 * pte_modify(), and stay when mprotect() changes an entry.
	 */
	if ((mktme_keyid_mask(mktme_tme.keyids) & __PHYSICAL_MASK) != mktme_keyid_mask(mktme_tme.keyids)) {
		pr_err("__PHYSICAL_MASK %llx has no KeyID bits\n", (u64)__PHYSICAL_MASK);
		return -ENODEV;
	}
	pr_info("%u KeyIDs, bits %u to %u of physical addresses, algorithm %#x; __PHYSICAL_MASK %llx, x86_phys_bits %u\n",
		mktme_tme.keyids, mktme_tme.keyid_shift, address_bits - tdx_bits - 1, mktme_tme.algorithm,
		(u64)__PHYSICAL_MASK, boot_cpu_data.x86_phys_bits);
	return 0;
none:
	pr_err("the processor has no MKTME\n");
	return -ENODEV;
}
