#!/bin/busybox sh
# The first process of the guest that run.sh starts: builds the root, hands over to the command, powers off.
# The root at this point is the host's, read-only, through hostfs; only busybox's own applets are used.
b=/bin/busybox
give_up() { $b echo "init.sh: $1"; $b poweroff -f; }

$b mount -t proc proc /proc
for word in $($b cat /proc/cmdline); do
    case $word in
    ocirun_work=*) work=${word#*=} ;;
    ocirun_modules=*) modules=${word#*=}/$($b uname -r) ;;
    esac
done
$b stty -opost </dev/console >/dev/null 2>&1

# The kernel's overlay is a module.
$b insmod "$modules/kernel/fs/overlayfs/overlay.ko" || give_up "no overlay module in $modules"
$b mount -t tmpfs -o mode=755,size=75% tmpfs /mnt
$b mkdir /mnt/upper /mnt/work /mnt/root
$b mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root || give_up "no overlay root"

root=/mnt/root
$b mount -t proc proc $root/proc
$b mount -t sysfs sysfs $root/sys
$b mount -t devtmpfs devtmpfs $root/dev
$b mkdir -p $root/dev/pts $root/dev/shm
$b mount -t devpts -o mode=620,ptmxmode=666 devpts $root/dev/pts
$b mount -t tmpfs -o mode=1777 tmpfs $root/dev/shm
for pair in fd: stdin:/0 stdout:/1 stderr:/2; do
    $b ln -sf "/proc/self/fd${pair#*:}" "$root/dev/${pair%%:*}"
done
$b mount -t tmpfs -o mode=755 tmpfs $root/run
$b mount -t ext4 /dev/ubda $root/tmp || give_up "no scratch file system"
$b chmod 1777 $root/tmp

# Controllers go to groups that hold no process, so everything so far moves into a leaf.
$b mount -t cgroup2 -o nsdelegate cgroup2 $root/sys/fs/cgroup
$b mkdir $root/sys/fs/cgroup/init
echo 1 >$root/sys/fs/cgroup/init/cgroup.procs
for controller in $($b cat $root/sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" >$root/sys/fs/cgroup/cgroup.subtree_control
done

# The way back: the host's folder, writable, for the command and its status.
$b mkdir -p $root/run/ocirun-v2 $root/run/host
$b mount -t hostfs -o "$work" none $root/run/ocirun-v2

cd $root || give_up "no root"
$b pivot_root . run/host
# shellcheck disable=SC2016
exec $b chroot . $b sh -c '
    b=/bin/busybox
    $b ip link set lo up
    $b hostname ocirun-v2
    /bin/bash /run/ocirun-v2/command </dev/null
    echo $? >/run/ocirun-v2/status
    $b sync
    $b poweroff -f'
