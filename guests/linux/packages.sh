# Debian packages without root: sourced by build.sh, memtest.sh and module.sh, which define $work, die, apt_options and
# $need, the part of a message that says what to do instead.

apt_() {
    local tool=$1
    shift
    "$tool" ${apt_options[@]+"${apt_options[@]}"} "$@"
}

# Package lists of our own, where the host has none: `apt-get update` wants root only for the host's.
use_private_lists() {
    mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
    apt_options=(-o "Dir::State::lists=$work/apt/lists" -o "Dir::Cache=$work/apt/cache" -o "APT::Sandbox::User=")
    echo "${0##*/}: no package lists on this host; fetching some into $work/apt" >&2
    apt_ apt-get -qq update >&2 || true
}

# The newest package whose whole name matches $1.
newest() {
    apt_ apt-cache search --names-only "^$1\$" | awk '{print $1}' | sort -V | tail -n 1
}

# Finds the newest package matching $1 and unpacks it below $work/unpack; its name and version are left in $package.
package=
fetch() {
    local name
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
        die "apt-get and dpkg-deb are needed to get $1; on other systems set $need (see the head of this file)"
    name=$(newest "$1")
    if [ -z "$name" ] && [ ${#apt_options[@]} -eq 0 ]; then
        use_private_lists
        name=$(newest "$1")
    fi
    [ -n "$name" ] || die "apt knows no package $1. Run 'apt-get update' as root with a Debian 12 (bookworm) source, \
or set $need (see the head of this file)"
    rm -rf "$work/download" "$work/unpack"
    mkdir -p "$work/download" "$work/unpack"
    (cd "$work/download" && apt_ apt-get -qq -o APT::Sandbox::User= download "$name" >&2) ||
        die "cannot download $name. Is the network up, and are the package lists fresh ('apt-get update' as root)?"
    dpkg-deb -x "$work"/download/*.deb "$work/unpack"
    package=$(dpkg-deb -W --showformat '${Package} ${Version}' "$work"/download/*.deb)
}
