#!/bin/bash
# Fetches Debian's memtest86+, unpacked and not installed, into guests/linux/work:
#   memtest.bin       the 64-bit image: a bzImage with a PE header in front
#   memtest.package   the name and version of the package it came from
#
# Needs a Debian or Ubuntu host with apt and dpkg-deb; no root. MEMTEST=/path/to/memtest86+x64.bin stays off the network.
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
work=$here/work
need=MEMTEST
apt_options=()
. "$here/packages.sh"

die() {
    echo "memtest.sh: $*" >&2
    exit 1
}

mkdir -p "$work"
if [ -n "${MEMTEST:-}" ]; then
    [ -s "$MEMTEST" ] || die "MEMTEST=$MEMTEST: no such file, or empty"
    cp "$MEMTEST" "$work/memtest.bin"
    echo "$MEMTEST" >"$work/memtest.package"
else
    fetch 'memtest86\+'
    image=$work/unpack/boot/memtest86+x64.bin
    [ -s "$image" ] || die "no /boot/memtest86+x64.bin in $package"
    cp "$image" "$work/memtest.bin"
    echo "$package" >"$work/memtest.package"
    rm -rf "$work/download" "$work/unpack"
fi
echo "memtest86+: $(cat "$work/memtest.package")"
ls -l "$work/memtest.bin"
