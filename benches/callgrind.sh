#!/bin/bash
# Host instructions per guest instruction, by valgrind's callgrind: a figure that, unlike times, is the same each time.
#
#   benches/callgrind.sh [OPTION...]         options of `mktme-emu run`; default: Linux from guests/linux/work
#
# FROM and TO (default 100000000 and 200000000) are guest instruction counts: what is counted lies between them. Two runs,
# to each of the two; about a minute for each 100 million. MKTME_EMU is the program, default target/release/mktme-emu.
#
# valgrind knows neither AVX-512 nor VAES, hence --aes-backend aesni, and hides the kernel's clock page, hence --no-summary.
set -euo pipefail
cd "$(dirname "$0")/.."
die() { echo "${0##*/}: $*" >&2; exit 1; }

from=${FROM:-100000000} to=${TO:-200000000}
[[ $from =~ ^[0-9]+$ && $to =~ ^[0-9]+$ && $from -lt $to ]] || die "FROM=$from TO=$to: expected two counts, FROM less than TO"
emulator=${MKTME_EMU:-${CARGO_TARGET_DIR:-target}/release/mktme-emu}
[ -x "$emulator" ] || die "$emulator: no such program; build it (cargo build --release) or set MKTME_EMU"
command -v valgrind >/dev/null || die "valgrind is missing (Debian: apt install valgrind)"
kit=guests/linux/work
if [ $# -eq 0 ]; then
    [ -s $kit/vmlinuz ] || die "no guest; run guests/linux/build.sh, or give options of 'mktme-emu run'"
    set -- -m 512M -kernel $kit/vmlinuz -initrd $kit/initramfs.cpio -append console=ttyS0
fi

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
count() {
    echo "${0##*/}: to instruction $1" >&2
    local status=0
    valgrind --tool=callgrind --callgrind-out-file="$dir/$1.out" "$emulator" run --aes-backend aesni --no-summary \
        -serial none "${@:2}" --until "icount:$1" >"$dir/log" 2>&1 </dev/null || status=$?
    # 10: stopped at the count.
    [ $status -eq 10 ] || { cat "$dir/log" >&2; die "ended with status $status before instruction $1"; }
    callgrind_annotate --threshold=100 --auto=no "$dir/$1.out" >"$dir/$1.txt" 2>"$dir/log" || { cat "$dir/log" >&2; exit 1; }
}
count "$from" "$@"
count "$to" "$@"

# Lines of callgrind_annotate: "1,234 ( 5.6%)  FILE:FUNCTION [OBJECT]". Functions are put into groups by their paths.
awk -v from="$from" -v to="$to" '
    function group(name) {
        if (name ~ /crypto::/) return "cipher"
        if (name ~ /cpu::mmu::/) return "translation and slow accesses"
        if (name ~ /cpu::(run|block|state|op)::|cpu::reset/) return "run loop, block lookup"
        if (name ~ /iced_x86::|cpu::translate::/) return "decoding"
        if (name ~ /cpu::exec::int::/) return "frequent instructions, fast path inlined"
        if (name ~ /cpu::/) return "other instructions"
        if (name ~ /mem::/) return "cache and memory controller"
        if (name ~ /devices::|machine::/) return "devices"
        if (name ~ /__mem|libc/) return "memcpy, memset"
        return "everything else"
    }
    FNR == 1 { sign = NR == 1 ? -1 : 1 }
    $0 ~ /PROGRAM TOTALS/ { gsub(",", "", $1); total += sign * $1; next }
    $1 ~ /^[0-9,]+$/ && $2 ~ /^\(/ { gsub(",", "", $1); sums[group($0)] += sign * $1 }
    END {
        insns = to - from
        printf "guest instructions %.0f to %.0f: %.1f host instructions for each\n", from, to, total / insns
        for (name in sums) printf "%8.2f %5.1f %%  %s\n", sums[name] / insns, 100 * sums[name] / total, name | "sort -rn"
    }' "$dir/$from.txt" "$dir/$to.txt"
