# SPDX-License-Identifier: Apache-2.0
"""A guest on a tap device whose frames the host's kernel moves (vhost-net): in the first-level guest of kit/nested.py, whose
kernel has it: vhost_test.py ENGINE [network]. With "network" the device is a network's, in the bridge that it made."""

import hashlib
import os
import shutil
import sys

from kit import paths
from kit.archive import cpio_archive
from kit.boot_disk import need
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

# The same on a network of Lodge's: the card's own device in the bridge, with two pairs of queues.
NETWORK = r"""
mkdir -p /usr/sbin && mv /lodge/nft /lodge/ip /usr/sbin/
export XDG_CONFIG_HOME=/root
lodge network create in --kind internal --subnet 10.77.0.0/24 >/dev/null && lodge network up in || exit 10
mkdir -p /www/cgi-bin && mv /lodge/file /www/file
printf '#!/bin/sh\necho; echo "host has $(sha256sum | cut -d" " -f1)"\n' >/www/cgi-bin/sum
chmod +x /www/cgi-bin/sum
httpd -p 10.77.0.1:80 -h /www
: >/tmp/console; tail -f /tmp/console & shown=$!
worked() { cat /proc/[0-9]*/comm /proc/[0-9]*/task/*/comm | grep -c "^vhost-"; }
( n=0; until [ $n -ge 900 ] || grep -q 'guest has' /tmp/console; do n=$((n+1)); sleep 1; done
  echo "kernel threads $(worked)"
  lodge network show in --json | grep -A 3 '"direct"'
  lodge stats m | grep '^net0'
  n=0; while [ $n -lt 200 ] && ! nc 10.77.0.9 99; do n=$((n+1)); sleep 1; done
  echo "after a while: kernel threads $(worked)" ) & watcher=$!
lodge run --engine ENGINE --name m --kernel /lodge/vmlinuz --initrd /lodge/initrd2 --memory 128M --cpus 2 \
  --net in,ip=10.77.0.9,queues=2,direct=auto --append 'console=ttyS0 quiet' </dev/null >>/tmp/console 2>&1
status=$?
[ $status -eq 0 ] || cat /run/lodge-networks/in/log
[ $status -ne 0 ] || wait $watcher
sleep 1; kill $shown
exit $status
"""


def frames_go_through_the_kernel():
    engine, network = sys.argv[1], "network" in sys.argv[2:]
    content = os.urandom(2 << 20).hex().encode()  # wget sends text
    host, programs, modules, script = HOST, [], ["tun", "vhost_net"], GUEST
    if network:
        host, script = NETWORK, GUEST.replace("10.77.0.2/", "10.77.0.9/")
        need("nft", "ip")
        programs = [(paths.BUILD / "lodge-network-helper", "lodge-network-helper"), (shutil.which("nft"), "nft"), (shutil.which("ip"), "ip")]
        modules += ["bridge", "nf_tables", "nft_ct", "nft_meta_bridge", "nft_limit"]
    first = paths.INITRD.read_bytes()
    initrd = first + bytes(-len(first) % 4) + cpio_archive([("lodge/run", 0o755, script.encode())])
    with FirstLevel(host.replace("ENGINE", engine), files=[("initrd2", initrd), ("file", content)], cpus=2, programs=programs,
                    modules=modules) as guest:
        status, output = guest.result(SECONDS)
    digest = hashlib.sha256(content).hexdigest()
    assert status == 0, f"{status}: {output[-4000:]}"
    own = ('"held": false', '"vhost": true') if network else ("saved and goes on",)
    for line in (f"guest has {digest}", f"host has {digest}", *own, "lodge-guest: exit status 0"):
        assert line in output, f"no {line!r} in:\n{output[-4000:]}"
    assert not network or "rx-0 rx-1 tx-0 tx-1" in output, output
    assert "kernel threads 0" not in output and "kernel threads" in output, output
    print("  " + "\n  ".join(line for line in output.splitlines() if line.startswith(("net0", "received", "kernel threads"))))


main(frames_go_through_the_kernel)
