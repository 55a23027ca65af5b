# SPDX-License-Identifier: Apache-2.0
"""A busybox guest that is busy and checks itself, for machines that are moved or saved meanwhile."""

# Three things at once: files that are written, dropped from memory, read again and compared; arithmetic with a known
# result; and a connection to the host. `say` tells how far they are.
WORK = """
mkdir -p /data; mount -t ext4 /dev/vda /data || exit 1
ip link set eth0 up; udhcpc -i eth0 -s /etc/udhcpc.script -q -n >/dev/null 2>&1 || exit 2
(
  n=0
  while [ ! -e /tmp/stop ]; do
    n=$((n + 1))
    dd if=/dev/urandom of=/tmp/data bs=64k count=8 2>/dev/null
    cp /tmp/data /data/file.$((n % 5)); sync; echo 3 >/proc/sys/vm/drop_caches
    a=$(sha256sum </tmp/data); b=$(sha256sum </data/file.$((n % 5)))
    [ "$a" = "$b" ] || { echo "BROKEN file $n"; break; }
    echo $n >/tmp/files
  done
) &
(
  n=0
  while [ ! -e /tmp/stop ]; do
    s=0; i=0
    while [ $i -lt 3000 ]; do s=$(((s * 31 + i) % 1000003)); i=$((i + 1)); done
    [ -z "$first" ] && first=$s
    [ $s = $first ] || { echo "BROKEN sum $s"; break; }
    n=$((n + 1)); echo $n >/tmp/sums
  done
) &
(
  mkfifo /tmp/in /tmp/out
  nc HOST PORT </tmp/out >/tmp/in &
  exec 3>/tmp/out 4</tmp/in
  n=0
  while [ ! -e /tmp/stop ]; do
    n=$((n + 1)); echo "count $n" >&3
    read got <&4 || { echo "LOST the connection after $n"; break; }
    [ "$got" = "$n" ] || { echo "BROKEN connection: $got, not $n"; break; }
    echo $n >/tmp/counts; usleep 20000
  done
) &
tick=0
while [ ! -e /tmp/stop ]; do
  tick=$((tick + 1))
  echo "at $tick up $(cut -d' ' -f1 /proc/uptime) date $(date +%s) done $(cat /tmp/files) $(cat /tmp/sums) $(cat /tmp/counts)"
  sleep 1
done
"""
PROGRESS = r"^at (\d+) up ([\d.]+) date (\d+) done (\d+) (\d+) (\d+)"
