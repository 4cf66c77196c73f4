#!/bin/bash
# Builds the user-mode x86 test programs of Debian's `qemu` source package, runs them on this host and packs them with
# what they printed, for `guest.run=programs` of ./init:
#   programs.sh NAME...      the programs named; without names, all of the table below
#
#   work/programs/NAME.run        the program, 64-bit and static
#   work/programs/NAME.expected   its standard output on this host
#   work/programs/results         a line "P NAME STATUS SHA256" for each program of the archive
#   work/programs.cpio            to be appended to initramfs.cpio (the kernel unpacks both)
#
# Needs gcc, python3 and apt-get; no root, nothing is installed. Without source packages among apt's sources it uses
# package lists of its own. QEMU_SOURCE=/path/to/qemu_*.orig.tar.xz keeps it off the network. The programs are QEMU's and
# stay out of this repository.
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
work=$here/work
out=$work/programs
tcg=$work/qemu/tests/tcg
. "$here/cpio.sh"

die() {
    echo "programs.sh: $*" >&2
    exit 1
}

# The build, one program a line: name, source below tests/tcg, options. The options are what the program's code requires;
# QEMU's test runner uses other optimisation levels for some, which changes nothing in what they print. Left out:
# test-i386-fprem, which prints 66 MB (QEMU runs it only when asked for slow tests).
table='
test-i386-f2xm1           i386/test-i386-f2xm1.c           -lm
test-i386-fbstp           i386/test-i386-fbstp.c
test-i386-fisttp          i386/test-i386-fisttp.c
test-i386-fldcst          i386/test-i386-fldcst.c
test-i386-fp-exceptions   i386/test-i386-fp-exceptions.c
test-i386-fpatan          i386/test-i386-fpatan.c          -lm
test-i386-fscale          i386/test-i386-fscale.c
test-i386-fxam            i386/test-i386-fxam.c
test-i386-fxtract         i386/test-i386-fxtract.c
test-i386-fyl2x           i386/test-i386-fyl2x.c           -lm
test-i386-fyl2xp1         i386/test-i386-fyl2xp1.c         -lm
test-i386-pseudo-denormal i386/test-i386-pseudo-denormal.c
test-i386-snan-convert    i386/test-i386-snan-convert.c
test-i386-sse-exceptions  i386/test-i386-sse-exceptions.c  -msse4.1 -mfpmath=sse
test-i386-pcmpistri       i386/test-i386-pcmpistri.c       -msse4.2
test-i386-bmi2            i386/test-i386-bmi2.c
test-x86_64               i386/test-i386.c                 -lm
test-mmx                  i386/test-mmx.c                  -masm=intel -O
test-3dnow                i386/test-3dnow.c                -masm=intel -O
test-avx                  i386/test-avx.c                  -mavx -masm=intel -O
cmpxchg                   x86_64/cmpxchg.c
vsyscall                  x86_64/vsyscall.c
noexec                    x86_64/noexec.c
sha1                      multiarch/sha1.c
sha512                    multiarch/sha512.c               -O3
sha512-sse                multiarch/sha512.c               -O3 -msse4.1
float_convs               multiarch/float_convs.c          HELPERS -lm
float_convd               multiarch/float_convd.c          HELPERS -lm
float_madds               multiarch/float_madds.c          HELPERS -lm
overflow                  multiarch/overflow.c
testthread                multiarch/testthread.c           -lpthread
threadcount               multiarch/threadcount.c          -lpthread
munmap-pthread            multiarch/munmap-pthread.c       -lpthread
test-mmap                 multiarch/test-mmap.c
sigbus                    multiarch/sigbus.c
signals                   multiarch/signals.c              -lpthread -lrt
'

get_source() {
    [ ! -d "$tcg/i386" ] || return 0
    local archive=${QEMU_SOURCE:-} options=()
    if [ -z "$archive" ]; then
        command -v apt-get >/dev/null || die "apt-get is needed to get qemu's source; or set QEMU_SOURCE"
        if ! apt-cache showsrc qemu 2>/dev/null | grep -q '^Package: qemu$'; then
            mkdir -p "$work/apt-src/lists/partial" "$work/apt-src/cache/archives/partial"
            echo 'deb-src http://deb.debian.org/debian bookworm main' >"$work/apt-src/sources.list"
            options=(-o "Dir::State::lists=$work/apt-src/lists" -o "Dir::Cache=$work/apt-src/cache"
                -o "Dir::Etc::sourcelist=$work/apt-src/sources.list" -o Dir::Etc::sourceparts=/dev/null)
            apt-get -qq -o APT::Sandbox::User= "${options[@]}" update >&2 || true
        fi
        mkdir -p "$work/qemu.download"
        (cd "$work/qemu.download" &&
            apt-get -qq -o APT::Sandbox::User= ${options[@]+"${options[@]}"} source --download-only qemu >&2) ||
            die "cannot download qemu's source package. Is the network up?"
        archive=$(ls "$work"/qemu.download/qemu_*.orig.tar.xz)
    fi
    [ -s "$archive" ] || die "$archive: no such file, or empty"
    mkdir -p "$work/qemu"
    tar -C "$work/qemu" --strip-components=1 --wildcards -xf "$archive" \
        '*/tests/tcg/i386' '*/tests/tcg/x86_64' '*/tests/tcg/multiarch'
    rm -rf "$work/qemu.download"
}

generate_headers() {
    local i386=$tcg/i386
    [ -s "$out/test-avx.h" ] && return
    python3 "$i386/test-mmx.py" "$i386/x86.csv" "$out/test-mmx.h" MMX SSE SSE2 SSE3 SSSE3
    python3 "$i386/test-mmx.py" "$i386/x86.csv" "$out/test-3dnow.h" 3DNOW
    python3 "$i386/test-avx.py" "$i386/x86.csv" "$out/test-avx.h"
}

build() { # NAME
    local name source options
    [ ! -x "$out/$1.run" ] || return 0
    read -r name source options < <(grep "^$1 " <<<"$table") || die "$1: not in the table of this script"
    options=${options/HELPERS/$tcg/multiarch/libs/float_helpers.c}
    # shellcheck disable=SC2086 # a list of words
    gcc -w -O2 -static -no-pie -fno-strict-aliasing -I"$out" -I"$tcg/multiarch" -I"$tcg/multiarch/libs" \
        -o "$out/$name.run.new" "$tcg/$source" $options || die "$name does not compile"
    mv "$out/$name.run.new" "$out/$name.run"
}

# The guest's processor has no FMA and no AVX2, so the C library takes other code paths there than on most hosts, and of
# two NaN operands another one survives. The tunable makes the host take the guest's.
run_here() { # NAME
    local status=0
    local -x GLIBC_TUNABLES=glibc.cpu.hwcaps=-FMA,-FMA4,-AVX2
    if [ ! -s "$out/$1.result" ]; then
        { (cd "$out" && timeout 60 "./$1.run" >"$1.expected" 2>/dev/null </dev/null) || status=$?; } 2>/dev/null
        gzip -9nc "$out/$1.expected" >"$out/$1.expected.gz"
        echo "P $1 $status $(sha256sum <"$out/$1.expected" | cut -d ' ' -f 1)" >"$out/$1.result"
    fi
    cat "$out/$1.result"
}

archive() {
    local name
    directory root/programs
    for name in "$@"; do
        file "root/programs/$name.run" $((0755)) "$out/$name.run"
        file "root/programs/$name.expected.gz" $((0644)) "$out/$name.expected.gz"
    done
    end_of_archive
}

mkdir -p "$out"
get_source
generate_headers
# shellcheck disable=SC2046 # a list of words
[ $# -gt 0 ] || set -- $(awk '{print $1}' <<<"$table")
for name in "$@"; do build "$name"; done
for name in "$@"; do run_here "$name"; done >"$out/results"
archive "$@" >"$work/programs.cpio"
