#!/bin/bash
# run.sh COMMAND [ARG...] - run a command as root under User-Mode Linux, where cgroups are v2 and nothing else.
#
# The guest sees this machine's files through hostfs, under an overlay that forgets every change. /tmp is an ext4
# of its own, for idmapped mounts. There is no network. The exit status is the command's; 125: the guest died.
# Debian: user-mode-linux busybox-static e2fsprogs. It works for a plain user as well: the guest's root is no one here.
#
# OCIRUN_V2_MEMORY   the guest's memory (3G)
# OCIRUN_V2_SECONDS  when to give up (900)
set -euo pipefail

here=$(dirname "$(realpath "$0")")
PATH=$PATH:/usr/sbin:/sbin
kernel=$(command -v linux.uml) || { echo "run.sh: no linux.uml on this host; install user-mode-linux" >&2; exit 125; }
modules=$(realpath "$(dirname "$(realpath "$kernel")")/../lib/uml/modules")
work=$(mktemp -d /var/tmp/ocirun-v2.XXXXXX)
trap 'rm -rf "$work"' EXIT

# The kernel's command line is short, so the command travels as a file.
{
    for name in CI LANG OCIRUN_LANE OCIRUN_STRICT OCIRUN_EXPECT_INSTALLED PYTHONSAFEPATH XDG_CACHE_HOME; do
        [ -z "${!name:-}" ] || printf 'export %s=%q\n' "$name" "${!name}"
    done
    printf 'export HOME=/root TERM=dumb PATH=%q\n' "$PATH"
    printf 'cd %q\nexec' "$PWD"
    printf ' %q' "$@"
    echo
} >"$work/command"

truncate -s 6G "$work/tmp.ext4"
mkfs.ext4 -q -F "$work/tmp.ext4"

# UML maps its memory from a file in TMPDIR, which must allow execution.
TMPDIR=/dev/shm HOME=$work timeout --foreground "${OCIRUN_V2_SECONDS:-900}" "$kernel" \
    mem="${OCIRUN_V2_MEMORY:-3G}" root=/dev/root rootfstype=hostfs rootflags=/ ro init="$here/init.sh" \
    uml_dir="$work" con=null con0=null,fd:1 ssl=null quiet loglevel=1 \
    ubd0="$work/tmp.ext4" ocirun_work="$work" ocirun_modules="$modules" </dev/null || true

status=$(cat "$work/status" 2>/dev/null || echo 125)
[ "$status" != 125 ] || echo "run.sh: the guest ended without an answer" >&2
exit "$status"
