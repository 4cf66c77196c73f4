#!/bin/bash
# Builds the Linux guest kit into guests/linux/work:
#   vmlinuz          Debian's newest linux-image-6.1.0-*-cloud-amd64, unpacked and not installed
#   kernel.package   the name and version of the package it came from
#   initramfs.cpio   busybox-static and ./init, newc cpio, not compressed
#
# KERNEL_FLAVOUR=amd64 fetches the kernel for ordinary PCs (linux-image-6.1.0-*-amd64) instead and nothing else, as
# vmlinuz-amd64 and kernel-amd64.package.
#
# Needs a Debian or Ubuntu host with apt and dpkg-deb; no root, and nothing is installed. To stay off the network, name
# the files: KERNEL=/path/to/vmlinuz BUSYBOX=/path/to/static/busybox ./build.sh
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
work=$here/work
flavour=${KERNEL_FLAVOUR:-cloud-amd64}
need="KERNEL and BUSYBOX"
apt_options=()
. "$here/cpio.sh"
. "$here/packages.sh"

die() {
    echo "build.sh: $*" >&2
    exit 1
}

is_static() { # a dynamic program names its loader by its whole path; static glibc has the bare name
    [ -x "$1" ] && ! grep -q '/ld-linux' "$1"
}

get_kernel() { # SUFFIX of the files' names
    if [ -n "${KERNEL:-}" ]; then
        [ -s "$KERNEL" ] || die "KERNEL=$KERNEL: no such file, or empty"
        cp "$KERNEL" "$work/vmlinuz$1"
        echo "$KERNEL" >"$work/kernel$1.package"
        return
    fi
    fetch "linux-image-6\\.1\\.0-[0-9]+-$flavour"
    cp "$work"/unpack/boot/vmlinuz-* "$work/vmlinuz$1"
    echo "$package" >"$work/kernel$1.package"
}

get_busybox() {
    local candidate
    if [ -n "${BUSYBOX:-}" ]; then
        is_static "$BUSYBOX" || die "BUSYBOX=$BUSYBOX: not a static executable"
    fi
    for candidate in "${BUSYBOX:-}" /bin/busybox /usr/bin/busybox; do
        if [ -n "$candidate" ] && is_static "$candidate"; then
            cp "$candidate" "$work/busybox"
            return
        fi
    done
    fetch 'busybox-static'
    for candidate in "$work"/unpack/bin/busybox "$work"/unpack/usr/bin/busybox; do
        if [ -x "$candidate" ]; then
            cp "$candidate" "$work/busybox"
            return
        fi
    done
    die "no busybox in $package"
}

# ---- initramfs -------------------------------------------------------------------------------------------------

# 64 KiB of text that looks like words, always the same. The guest repeats it to make its work file; the distance of 64 KiB
# is above gzip's window of 32 KiB, so that gzip has real work all the way. The generator is Park and Miller's minimal
# standard one, exact in awk's doubles.
text_block() {
    "$work/busybox" awk '
        function random(n) { state = state * 16807 % 2147483647; return int(state / 2147483647 * n) }
        BEGIN {
            state = 20240601
            for (i = 0; i < 2000; i++) {
                word = ""
                for (n = 2 + random(9); n > 0; n--) word = word sprintf("%c", 97 + random(26))
                words[i] = word
            }
            for (left = 65536; left > 0; left -= length(text)) {
                # The smaller of two draws: some words are common, most are rare.
                a = random(2000); b = random(2000)
                text = words[a < b ? a : b] (random(11) == 0 ? "\n" : " ")
                printf "%s", substr(text, 1, left)
            }
        }'
}

archive() {
    local applet
    for name in bin dev proc root sys tmp; do directory "$name"; done
    device dev/console 5 1
    file init $((0755)) "$here/init"
    file root/block $((0644)) "$work/block"
    file bin/busybox $((0755)) "$work/busybox"
    for applet in $("$work/busybox" --list | sort); do
        [ "$applet" = busybox ] || symlink "bin/$applet" busybox
    done
    end_of_archive
}

mkdir -p "$work"
case $flavour in
    cloud-amd64) get_kernel '' ;;
    amd64)
        get_kernel -amd64
        rm -rf "$work/download" "$work/unpack"
        echo "kernel:    $(cat "$work/kernel-amd64.package")"
        ls -l "$work/vmlinuz-amd64"
        exit
        ;;
    *) die "KERNEL_FLAVOUR=$flavour: unknown; accepted: cloud-amd64, amd64" ;;
esac
get_busybox
chmod 755 "$work/busybox"
text_block >"$work/block"
archive >"$work/initramfs.cpio.new"
mv "$work/initramfs.cpio.new" "$work/initramfs.cpio"
rm -rf "$work/download" "$work/unpack"
echo "kernel:    $(cat "$work/kernel.package")"
ls -l "$work/vmlinuz" "$work/initramfs.cpio"
