#!/bin/bash
# Builds ./mktme_demo, a kernel module for the kernel of ./build.sh and a program that uses it, into guests/linux/work:
#   mktme_demo.ko    the module
#   mktme_user       the program, static
#   module.cpio      both, and ./init, to be appended to initramfs.cpio (the kernel unpacks both)
#   module-initramfs.cpio   initramfs.cpio and module.cpio: the initrd of `guest.run=mktme-...`
#
# Needs gcc 12, make and apt-get; no root, nothing is installed: Debian's linux-headers packages are unpacked below
# work/headers, and their Makefiles made to look there. HEADERS=/path/to/root, with usr/src/linux-headers-... and
# usr/lib/linux-kbuild-... below it, keeps it off the network.
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
work=$here/work
need=HEADERS
apt_options=()
. "$here/cpio.sh"
. "$here/packages.sh"

die() {
    echo "module.sh: $*" >&2
    exit 1
}

# The release of a bzImage: the text at offset 200H plus the word at 20EH (Documentation/x86/boot.rst, kernel_version).
kernel_release() {
    local offset text
    offset=$(od -An -tu2 -j 526 -N 2 "$1")
    text=$(dd if="$1" bs=1 skip=$((offset + 512)) count=128 status=none | tr '\0' '\n')
    echo "${text%% *}"
}

add_package() { # NAME
    fetch "${1//./\\.}"
    cp -a "$work/unpack/." "$headers/"
}

# The packages name each other by absolute paths.
get_headers() {
    local version
    headers=$work/headers
    version=$(cat "$work/kernel.package")
    [ "$(cat "$headers/complete" 2>/dev/null)" != "$version in $headers" ] || return 0
    rm -rf "$headers"
    mkdir -p "$headers"
    if [ -n "${HEADERS:-}" ]; then
        [ -d "$HEADERS/usr/src/linux-headers-$release" ] || die "HEADERS=$HEADERS: no usr/src/linux-headers-$release below it"
        cp -a "$HEADERS/usr" "$headers/"
    else
        # A kernel that was not fetched has the name of its file there.
        [[ $version == linux-image-* ]] || die "the kernel is $version; set HEADERS to the root of its unpacked headers"
        add_package "linux-headers-$release"
        [ "${package##* }" = "${version##* }" ] ||
            die "the kernel is of version ${version##* }, the headers are of ${package##* }; run build.sh again"
        add_package "linux-headers-${release%-cloud-amd64}-common"
        add_package "linux-kbuild-${release%%.0-*}"
        # objtool's library.
        ldconfig -p 2>/dev/null | grep -q libelf.so.1 || add_package libelf1
        rm -rf "$work/download" "$work/unpack"
    fi
    sed -i "s|/usr/src/|$headers/usr/src/|" "$headers/usr/src/linux-headers-$release/Makefile"
    echo "$version in $headers" >"$headers/complete"
}

build_module() {
    local compiler build=$work/module-build log=$work/module-build.log
    compiler=$(command -v gcc-12 || command -v gcc) || die "no gcc; install gcc and libc6-dev"
    command -v make >/dev/null || die "no make; install make"
    rm -rf "$build"
    mkdir -p "$build"
    cp "$here"/mktme_demo/*.[ch] "$here/mktme_demo/Kbuild" "$build/"
    LD_LIBRARY_PATH=$headers/usr/lib/x86_64-linux-gnu:$headers/lib/x86_64-linux-gnu \
        make -C "$headers/usr/src/linux-headers-$release" M="$build" CC="$compiler" modules >"$log" 2>&1 ||
        die "the module does not build: $(grep -E 'error|Error|\*\*\*' "$log" | head -n 20)"
    # kbuild warns if the compiler is not the very one that built the kernel.
    ! grep -v 'warning: the compiler differs' "$log" | grep -q 'warning: ' || die "warnings: $(grep -A 3 'warning: ' "$log")"
    # Debugging information is twelve times the module; symbols stay.
    strip --strip-debug -o "$work/mktme_demo.ko" "$build/mktme_demo.ko"
}

build_program() {
    gcc -std=gnu11 -O2 -Wall -Wextra -Werror -static -s -I"$here/mktme_demo" -o "$work/mktme_user" \
        "$here"/mktme_demo/user/*.c || die "the program does not compile"
}

archive() {
    # An initramfs.cpio from before guest.run=mktme-... has another one.
    file init $((0755)) "$here/init"
    directory lib
    directory lib/modules
    file lib/modules/mktme_demo.ko $((0644)) "$work/mktme_demo.ko"
    file bin/mktme_user $((0755)) "$work/mktme_user"
    end_of_archive
}

# Everything that the result depends on, but for the compiler.
inputs() {
    (cd "$here" && sha256sum init cpio.sh module.sh mktme_demo/Kbuild mktme_demo/*.[ch] mktme_demo/user/*.[ch] \
        work/kernel.package work/initramfs.cpio)
}

[ -s "$work/vmlinuz" ] && [ -s "$work/initramfs.cpio" ] || "$here/build.sh"
if [ -s "$work/module-initramfs.cpio" ] && [ "$(cat "$work/module.inputs" 2>/dev/null)" = "$(inputs)" ]; then
    echo "module:    up to date"
    exit
fi
rm -f "$work/module.inputs"
release=$(kernel_release "$work/vmlinuz")
get_headers
build_module
build_program
archive >"$work/module.cpio"
cat "$work/initramfs.cpio" "$work/module.cpio" >"$work/module-initramfs.cpio.new"
mv "$work/module-initramfs.cpio.new" "$work/module-initramfs.cpio"
inputs >"$work/module.inputs"
echo "module:    mktme_demo for $release"
ls -l "$work/mktme_demo.ko" "$work/mktme_user" "$work/module-initramfs.cpio"
