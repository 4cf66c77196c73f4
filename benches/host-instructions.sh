#!/bin/bash
# Host instructions of a whole run, start and end included, under QEMU's user emulation (Debian: qemu-user). The same count each time,
# and much quicker than callgrind, without its table by functions.
#
#   benches/host-instructions.sh [OPTION...]         options of `mktme-emu run`; default: Linux from guests/linux/work
#
# MKTME_EMU is the program, default target/release/mktme-emu. QEMU 7.2 knows neither AVX-512 nor VAES, hence --aes-backend aesni;
# --no-summary because the summary has times.
set -euo pipefail
cd "$(dirname "$0")/.."
die() { echo "${0##*/}: $*" >&2; exit 1; }

emulator=${MKTME_EMU:-${CARGO_TARGET_DIR:-target}/release/mktme-emu}
[ -x "$emulator" ] || die "$emulator: no such program; build it (cargo build --release) or set MKTME_EMU"
command -v qemu-x86_64 >/dev/null || die "qemu-x86_64 is missing (Debian: apt install qemu-user)"
kit=guests/linux/work
if [ $# -eq 0 ]; then
    [ -s $kit/vmlinuz ] || die "no guest; run guests/linux/build.sh, or give options of 'mktme-emu run'"
    set -- -m 512M -kernel $kit/vmlinuz -initrd $kit/initramfs.cpio -append "console=ttyS0 guest.run=workload"
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cc -O2 -shared -fPIC -o "$dir/count.so" benches/host-instructions.c
qemu-x86_64 -cpu max -plugin "$dir/count.so,out=$dir/count" "$emulator" run --aes-backend aesni --no-summary -serial none "$@" \
    </dev/null || echo "${0##*/}: the run ended with status $?" >&2
echo "host instructions: $(cat "$dir/count")"
