// SPDX-License-Identifier: MIT OR GPL-2.0
/* mktme_user: what a program can do with /dev/mktme_demo. docs/linux-module.md. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mktme_user.h"

static int usage(void)
{
	printf("usage: mktme_user secret TYPE flush|keep [SEED]      TYPE: user, cpu, no-encrypt, keyid-0\n"
	       "       mktme_user protocol ROUNDS [SEED]\n"
	       "       mktme_user mistake NAME TRIALS [SEED]         NAME: all");
	for (unsigned n = 0; mistake_name(n); n++)
		printf(", %s", mistake_name(n));
	puts("\n"
	     "       mktme_user fault-target TYPE KEYID ROUNDS check|no-check [SEED]   TYPE: user, cpu, reference");
	return 2;
}

static int all_mistakes(unsigned trials, uint64_t seed)
{
	int status = 0;

	for (unsigned n = 0; mistake_name(n); n++)
		status |= mistake(mistake_name(n), trials, seed);
	return status;
}

int main(int count, char **words)
{
	const char *command = count > 1 ? words[1] : "";
	uint64_t seed;

	setlinebuf(stdout);
	if (!strcmp(command, "protocol") && (count == 3 || count == 4)) {
		seed = count == 4 ? strtoull(words[3], NULL, 0) : 0;
		return protocol(strtoul(words[2], NULL, 0), seed);
	}
	if (!strcmp(command, "fault-target") && (count == 6 || count == 7)) {
		seed = count == 7 ? strtoull(words[6], NULL, 0) : 0;
		return fault_target(words[2], strtoul(words[3], NULL, 0), strtoul(words[4], NULL, 0),
				    !strcmp(words[5], "check"), seed);
	}
	if (count != 4 && count != 5)
		return usage();
	seed = count == 5 ? strtoull(words[4], NULL, 0) : 0;
	if (!strcmp(command, "secret"))
		return secret(words[2], !strcmp(words[3], "flush"), seed);
	if (strcmp(command, "mistake"))
		return usage();
	if (!strcmp(words[2], "all"))
		return all_mistakes(strtoul(words[3], NULL, 0), seed);
	return mistake(words[2], strtoul(words[3], NULL, 0), seed);
}
