# Writes newc archives to standard output; sourced by the scripts of this directory.
#
# The archive is written here and not by cpio, so that the same inputs give the same bytes on every host (no inode
# numbers, owners or times of the build machine), and /dev/console needs no root.
inode=0
padding() { # NULs up to a multiple of four
    local zeros=('' '\0\0\0' '\0\0' '\0')
    printf "${zeros[$(($1 % 4))]}"
}

# entry NAME MODE SIZE [RDEV_MAJOR RDEV_MINOR]: header and name (Linux Documentation/driver-api/early-userspace/buffer-format.rst)
entry() {
    local length=$((${#1} + 1))
    inode=$((inode + 1))
    printf '070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X' \
        "$inode" "$2" 0 0 1 0 "$3" 0 0 "${4:-0}" "${5:-0}" "$length" 0
    printf '%s\0' "$1"
    padding $((110 + length))
}

directory() { entry "$1" $((0040755)) 0; }
device() { entry "$1" $((0020600)) 0 "$2" "$3"; }
symlink() {
    entry "$1" $((0120777)) ${#2}
    printf '%s' "$2"
    padding ${#2}
}
file() { # NAME MODE SOURCE
    local size
    size=$(stat -c %s "$3")
    entry "$1" $((0100000 | $2)) "$size"
    cat "$3"
    padding "$size"
}

end_of_archive() { entry 'TRAILER!!!' 0 0; }
