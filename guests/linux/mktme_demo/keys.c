// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Keys: which KeyIDs are taken, and by how many pages; PCONFIG. There is a key table per package, so a processor of each
 * package executes it, and a key that the processors choose is a different one in each.
 */
#include <linux/bitmap.h>
#include <linux/cpumask.h>
#include <linux/mutex.h>
#include <linux/printk.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/string.h>
#include <linux/topology.h>

#include "mktme_demo.h"

/* COMMAND, bits 7:0 of KEYID_CTRL (SDM Vol. 2B, PCONFIG). ENC_ALG follows in bits 23:8. */
enum { KEYID_SET_KEY_DIRECT, KEYID_SET_KEY_RANDOM, KEYID_CLEAR_KEY, KEYID_NO_ENCRYPT };
#define KEYID_CTRL_ENC_ALG_SHIFT 8

/* RAX */
enum { PROG_SUCCESS = 0, ENTROPY_ERROR = 2, DEVICE_BUSY = 5 };

/* The RFC's. */
#define TRIES 10

struct mktme_keyid {
	bool in_use;
	atomic_t pages;
};

static DEFINE_MUTEX(lock);
static struct mktme_keyid *table; /* [0] is not used */
static struct mktme_key_program *program;
static cpumask_var_t leads; /* one processor of each package */
static atomic64_t programmed, retried;

static void mktme_program_key(void *job)
{
	struct mktme_program_job *at = job;

	at->status = mktme_pconfig(at->program);
}

/* Executes PCONFIG on one processor of each package, `by` that function. */
static int program_packages(smp_call_func_t by)
{
	struct mktme_program_job job = { .program = program };
	unsigned int cpu, tries;
	int error = 0;

	for_each_cpu(cpu, leads) {
		for (tries = 0; tries < TRIES; tries++) {
			error = smp_call_function_single(cpu, by, &job, 1);
			if (error || (job.status != DEVICE_BUSY && job.status != ENTROPY_ERROR))
				break;
			atomic64_inc(&retried);
		}
		if (!error && job.status != PROG_SUCCESS) {
			pr_err("PCONFIG for KeyID %u: status %llu\n", program->keyid, job.status);
			error = tries == TRIES ? -EBUSY : -EIO;
		}
		if (error)
			break;
		atomic64_inc(&programmed);
	}
	/* What was flushed or not, the keys are in nobody's memory any more. */
	memzero_explicit(program, sizeof(*program));
	return error;
}

/* `command` needs no algorithm for two of its values, but the processor checks ENC_ALG for all of them. */
static int program_keyid(u16 keyid, unsigned int command, const struct mktme_demo_key *key, smp_call_func_t by)
{
	program->keyid = keyid;
	program->keyid_ctrl = command | mktme_tme.algorithm << KEYID_CTRL_ENC_ALG_SHIFT;
	if (key) {
		memcpy(program->key_field_1, key->key, sizeof(key->key));
		memcpy(program->key_field_2, key->tweak, sizeof(key->tweak));
	}
	return program_packages(by);
}

static int program_key(u16 keyid, const struct mktme_demo_key *key, smp_call_func_t by)
{
	switch (key->type) {
	case MKTME_KEY_USER:
		return program_keyid(keyid, KEYID_SET_KEY_DIRECT, key, by);
	case MKTME_KEY_CPU:
		return program_keyid(keyid, KEYID_SET_KEY_RANDOM, key, by);
	case MKTME_KEY_NO_ENCRYPT:
		return program_keyid(keyid, KEYID_NO_ENCRYPT, NULL, by);
	default:
		return -EINVAL;
	}
}

int mktme_key_alloc(struct mktme_demo_key *key)
{
	int error = -ENOSPC;
	u16 keyid;

	mutex_lock(&lock);
	for (keyid = 1; keyid <= mktme_tme.keyids; keyid++) {
		if (table[keyid].in_use)
			continue;
		error = program_key(keyid, key, mktme_program_key);
		if (!error) {
			table[keyid].in_use = true;
			key->keyid = keyid;
		}
		break;
	}
	mutex_unlock(&lock);
	return error;
}

static bool taken(u32 keyid)
{
	return keyid >= 1 && keyid <= mktme_tme.keyids && table[keyid].in_use;
}

/*
 * Another key for a KeyID. PCONFIG touches no line of any cache and encrypts nothing anew, so no page may be in use under
 * the KeyID, and all have to be flushed; both is so if no references are left. `even_in_use`: the mistake.
 */
int mktme_key_replace(const struct mktme_demo_key *key, bool even_in_use)
{
	int error;

	mutex_lock(&lock);
	if (!taken(key->keyid))
		error = -ENOKEY;
	else if (!atomic_read(&table[key->keyid].pages))
		error = program_key(key->keyid, key, mktme_program_key);
	else if (even_in_use)
		error = program_key(key->keyid, key, mktme_rekey_dirty);
	else
		error = -EBUSY;
	mutex_unlock(&lock);
	return error;
}

/* KEYID_CLEAR_KEY: the KeyID uses TME's key again, and the old one is gone. */
int mktme_key_free(u16 keyid)
{
	int error;

	mutex_lock(&lock);
	if (!taken(keyid))
		error = -ENOKEY;
	else if (atomic_read(&table[keyid].pages))
		error = -EBUSY;
	else
		error = program_keyid(keyid, KEYID_CLEAR_KEY, NULL, mktme_program_key);
	if (!error)
		table[keyid].in_use = false;
	mutex_unlock(&lock);
	return error;
}

int mktme_key_get(u16 keyid)
{
	int error = 0;

	mutex_lock(&lock);
	if (taken(keyid))
		atomic_inc(&table[keyid].pages);
	else
		error = -ENOKEY;
	mutex_unlock(&lock);
	return error;
}

void mktme_key_put(u16 keyid)
{
	atomic_dec(&table[keyid].pages);
}

unsigned int mktme_packages(void)
{
	return cpumask_weight(leads);
}

void mktme_key_stats(struct mktme_demo_stats *stats)
{
	stats->keys_programmed = atomic64_read(&programmed);
	stats->retries = atomic64_read(&retried);
}

int mktme_keys_init(void)
{
	unsigned int cpu, other;

	if (!zalloc_cpumask_var(&leads, GFP_KERNEL))
		return -ENOMEM;
	for_each_online_cpu(cpu) {
		bool first = true;

		for_each_cpu(other, leads)
			first &= topology_physical_package_id(other) != topology_physical_package_id(cpu);
		if (first)
			cpumask_set_cpu(cpu, leads);
	}
	table = kcalloc(mktme_tme.keyids + 1, sizeof(*table), GFP_KERNEL);
	/* kmalloc() aligns powers of two naturally, and PCONFIG wants 256. */
	BUILD_BUG_ON(sizeof(*program) != 256);
	program = kzalloc(sizeof(*program), GFP_KERNEL);
	if (!table || !program) {
		mktme_keys_exit();
		return -ENOMEM;
	}
	return 0;
}

/* Clears the keys that programs left behind. Nobody can hold a page: that would keep the module loaded. */
void mktme_keys_exit(void)
{
	u16 keyid;

	for (keyid = 1; table && program && keyid <= mktme_tme.keyids; keyid++)
		if (table[keyid].in_use)
			mktme_key_free(keyid);
	kfree(table);
	kfree_sensitive(program);
	free_cpumask_var(leads);
}
