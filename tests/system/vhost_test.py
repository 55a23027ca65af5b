# SPDX-License-Identifier: Apache-2.0
"""A guest on a tap device whose frames the host's kernel moves (vhost-net): in the first-level guest of kit/nested.py, whose
kernel has it: vhost_test.py ENGINE."""

import hashlib
import os
import sys

from kit import paths
from kit.archive import cpio_archive
from kit.case import main
from kit.nested import FirstLevel

SECONDS = 1000
GUEST = r"""
ip link set eth0 up
ip addr add 10.77.0.2/24 dev eth0
n=0; while ! ping -c 1 -s 1400 10.77.0.1; do n=$((n+1)); [ $n -lt 60 ] || exit 1; sleep 1; done
wget -q -O /tmp/file http://10.77.0.1/file || exit 2
echo "guest has $(sha256sum </tmp/file | cut -d' ' -f1)"
wget -q -O - --post-file /tmp/file http://10.77.0.1/cgi-bin/sum || exit 3
# Frames to others' addresses stay away unless they are asked for.
echo ready | nc -l -p 99 || exit 4
awk '/eth0/ { print "received", $3 }' /proc/net/dev
ls /sys/class/net/eth0/queues | tr '\n' ' '; echo
"""
HOST = r"""
tunctl -t tap7 >/dev/null && ip addr add 10.77.0.1/24 dev tap7 && ip link set tap7 up || exit 10
mkdir -p /www/cgi-bin && mv /lodge/file /www/file
printf '#!/bin/sh\necho; echo "host has $(sha256sum | cut -d" " -f1)"\n' >/www/cgi-bin/sum
chmod +x /www/cgi-bin/sum
httpd -p 10.77.0.1:80 -h /www
worked() { cat /proc/[0-9]*/comm /proc/[0-9]*/task/*/comm | grep -c "^vhost-"; }
( n=0; until [ $n -ge 900 ] || grep -q 'guest has' /tmp/console; do n=$((n+1)); sleep 1; done
  echo "kernel threads $(worked)"
  lodge save m /tmp/state --keep-running >/tmp/saved 2>&1 && echo "saved and goes on" || cat /tmp/saved
  lodge stats m | grep '^net0'
  n=0; while [ $n -lt 200 ] && ! nc 10.77.0.2 99; do n=$((n+1)); sleep 1; done ) &
lodge run --engine ENGINE --name m --kernel /lodge/vmlinuz --initrd /lodge/initrd2 --memory 128M --cpus 1 \
  --net tap,ifname=tap7,vhost=on --append 'console=ttyS0 quiet' </dev/null >/tmp/console 2>&1
status=$?
wait
cat /tmp/console
exit $status
"""


def frames_go_through_the_kernel():
    engine = sys.argv[1]
    content = os.urandom(2 << 20).hex().encode()  # wget sends text
    first = paths.INITRD.read_bytes()
    initrd = first + bytes(-len(first) % 4) + cpio_archive([("lodge/run", 0o755, GUEST.encode())])
    with FirstLevel(HOST.replace("ENGINE", engine), files=[("initrd2", initrd), ("file", content)], cpus=2,
                    modules=("tun", "vhost_net")) as guest:
        status, output = guest.result(SECONDS)
    digest = hashlib.sha256(content).hexdigest()
    assert status == 0, f"{status}: {output[-4000:]}"
    for line in (f"guest has {digest}", f"host has {digest}", "saved and goes on", "lodge-guest: exit status 0"):
        assert line in output, f"no {line!r} in:\n{output[-4000:]}"
    assert "kernel threads 0" not in output and "kernel threads" in output, output
    print("  " + "\n  ".join(line for line in output.splitlines() if line.startswith(("net0", "received", "kernel threads"))))


main(frames_go_through_the_kernel)
