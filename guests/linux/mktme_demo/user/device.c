// SPDX-License-Identifier: MIT OR GPL-2.0
/* The device's calls. They end the program if they fail: nothing here may fail. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mktme_user.h"

struct mktme_demo_info info;
static int device = -1;

void fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("mktme_user: ", stdout);
	vprintf(format, arguments);
	putchar('\n');
	va_end(arguments);
	exit(1);
}

static void call(const char *what, unsigned long request, void *argument)
{
	if (ioctl(device, request, argument))
		fail("%s: %s", what, strerror(errno));
}

void device_open(uint32_t mistake, uint32_t flags)
{
	struct mktme_demo_setup setup = { .mistake = mistake, .flags = flags };

	device = open(MKTME_DEMO_DEVICE, O_RDWR | O_CLOEXEC);
	if (device < 0)
		fail("%s: %s", MKTME_DEMO_DEVICE, strerror(errno));
	call("INFO", MKTME_DEMO_INFO, &info);
	call("SETUP", MKTME_DEMO_SETUP, &setup);
}

void device_close(void)
{
	close(device);
}

/* Keys come from the seed, so that a run is the same every time. On real machines they must not. */
static struct mktme_demo_key make_key(enum mktme_demo_key_type type)
{
	struct mktme_demo_key key = { .type = type };

	for (unsigned n = 0; n < sizeof(key.key) / 8; n++) {
		uint64_t words[2] = { random_word(), random_word() };

		memcpy(key.key + 8 * n, &words[0], 8);
		memcpy(key.tweak + 8 * n, &words[1], 8);
	}
	return key;
}

uint32_t key_alloc(enum mktme_demo_key_type type)
{
	struct mktme_demo_key key = make_key(type);

	call("KEY_ALLOC", MKTME_DEMO_KEY_ALLOC, &key);
	return key.keyid;
}

int key_replace(uint32_t keyid, enum mktme_demo_key_type type)
{
	struct mktme_demo_key key = make_key(type);

	key.keyid = keyid;
	return ioctl(device, MKTME_DEMO_KEY_REPLACE, &key) ? errno : 0;
}

void key_free(uint32_t keyid)
{
	call("KEY_FREE", MKTME_DEMO_KEY_FREE, &keyid);
}

uint8_t *map_pages(uint32_t keyid, unsigned pages)
{
	void *at = mmap(NULL, (size_t)pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, device,
			(off_t)keyid * PAGE_BYTES);

	if (at == MAP_FAILED)
		fail("mmap of %u pages under KeyID %u: %s", pages, keyid, strerror(errno));
	return at;
}

void unmap_pages(uint8_t *at, unsigned pages)
{
	if (munmap(at, (size_t)pages * PAGE_BYTES))
		fail("munmap: %s", strerror(errno));
}

uint64_t page_access(uint8_t *page, enum mktme_demo_operation operation, uint8_t *buffer)
{
	struct mktme_demo_page access = {
		.address = (uintptr_t)page,
		.buffer = (uintptr_t)buffer,
		.operation = operation,
	};

	call("PAGE", MKTME_DEMO_PAGE, &access);
	return access.physical;
}

void wbinvd(void)
{
	call("WBINVD", MKTME_DEMO_WBINVD, NULL);
}

void flush_page(const uint8_t *page)
{
	for (unsigned line = 0; line < PAGE_LINES; line++)
		__builtin_ia32_clflush(page + line * LINE_BYTES);
	__builtin_ia32_mfence();
}

struct mktme_demo_stats stats(void)
{
	struct mktme_demo_stats values;

	call("STATS", MKTME_DEMO_STATS, &values);
	return values;
}
