# SPDX-License-Identifier: Apache-2.0
"""Frames longer than 1500 bytes, and shorter ones, on every kind of network: whole from end to end, never in fragments."""

import time

from kit import guest
from kit.case import main
from kit.peer import Lodge, Peer, need_namespaces, transfer
from kit.site import Site, need_rights

MTU = 9000
ECHO = ("import socket\nu=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM); u.setsockopt(41,26,0); u.bind(('::',7))\n"
        "print('up',flush=True)\nwhile True:\n d,a=u.recvfrom(65536); u.sendto(d,a)")
# Datagrams that may not be cut: a fragment anywhere on the way would be an error here.
SEND = ("import socket,sys,time\nto,size=sys.argv[1],int(sys.argv[2]); six=':' in to\n"
        "u=socket.socket(socket.AF_INET6 if six else socket.AF_INET,socket.SOCK_DGRAM)\n"
        "u.setsockopt(41 if six else 0, 23 if six else 10, 3)\nu.settimeout(1); data=bytes(i%251 for i in range(size))\n"
        "for n in range(30):\n u.sendto(data,(to,7))\n try:\n  assert u.recv(65536)==data; print('whole'); break\n"
        " except TimeoutError: pass")


def echo(server):
    process = server.start(f'exec python3 -c "{ECHO}"')
    assert process.stdout.readline() == "up\n"
    return process


def whole(client, address, mtu=MTU):
    """The longest datagram comes and goes; a longer one does not leave the card."""
    size = mtu - (48 if ":" in address else 28)
    said = client.run(f'python3 -c "{SEND}" {address} {size}')
    assert said == "whole\n", f"{client.name} to {address}: {said}"
    too_long = client.run(f'python3 -c "{SEND}" {address} {size + 1}', check=False)
    assert "Message too long" in too_long.stderr, too_long


def kinds_without_privileges():
    need_namespaces()
    with Lodge() as lodge:
        for mtu in (MTU, 1300):
            for name, words in (("user", ()), ("switch", ("--kind", "switch")), ("isolated", ("--kind", "isolated"))):
                name = f"{name}{mtu}"
                lodge("network", "create", name, *words, "--mtu", mtu)
                with Peer(lodge, name, "a") as a, Peer(lodge, name, "b") as b:
                    assert f"mtu {mtu} " in a.run("ip link show eth0"), a.run("ip link show eth0")
                    process = echo(b)
                    whole(a, b.address, mtu)
                    whole(a, b.address6(), mtu)
                    transfer(a, b, b.address, 3)
                    process.kill()
        lodge.fails("network", "create", "x", "--mtu", "70000", saying="a number of bytes from 576 to 65521")
        lodge.fails("network", "create", "x", "--mtu", "500", saying="the MTU must be 576 to 65521")


def kinds_of_the_host():
    need_rights()
    with Site() as site:
        lodge = site.lodge
        for kind in ("nat", "internal"):
            lodge("network", "create", kind, "--kind", kind, "--mtu", MTU)
            with Peer(lodge, kind, "a") as a, Peer(lodge, kind, "b") as b:
                on_b, on_host = echo(b), echo(site.host)
                whole(a, b.address)
                whole(a, a.router or b.address.rsplit(".", 1)[0] + ".1")
                site.host.must_ping(b.address6())
                whole(site.host, b.address6())
                on_b.kill(), on_host.kill()
        # A network on the host's card has the card's MTU, or less.
        for kind in ("bridge", "wifi"):
            lodge("network", "create", f"{kind}-long", "--kind", kind, "--uplink", "card0", "--mtu", MTU)
            lodge("network", "create", kind, "--kind", kind, "--uplink", "card0")
            lodge("network", "create", f"{kind}-short", "--kind", kind, "--uplink", "card0", "--mtu", 1300)
            lodge.fails("network", "up", f"{kind}-long", saying="the MTU 9000 is more than 'card0' has, 1500")
        site.lan.run(f"ip link set ap0 mtu {MTU}; ip link set br0 mtu {MTU}")
        site.host.run(f"ip link set card0 mtu {MTU}")
        on_lan = echo(site.lan)
        for name, mtu in (("bridge", MTU), ("bridge-short", 1300), ("wifi", MTU), ("wifi-short", 1300)):
            with Peer(lodge, name, "a") as a:
                assert f"mtu {mtu} " in a.run("ip link show eth0"), a.run("ip link show eth0")
                whole(a, "203.0.113.1", mtu)
                a.must_ping("2001:db8::1")
                if mtu == MTU:  # the router's advertisements say what the others have
                    whole(a, "2001:db8::1", mtu)
                # The host's own connections keep the card's.
                whole(site.host, "203.0.113.1")
            lodge("network", "down", name, "--force")
            for _ in range(100):  # the card comes back a moment later
                if "master" not in site.host.run("ip link show card0"):
                    break
                time.sleep(0.1)
        on_lan.kill()


GUEST = r"""
ip link set eth0 up
cat /sys/class/net/eth0/mtu
ip addr add 10.61.0.9/24 dev eth0
n=0; while ! ping -c 1 -s 8972 10.61.0.5; do n=$((n+1)); [ $n -lt 30 ] || exit 1; sleep 1; done
ping -c 3 -s 8972 10.61.0.5
awk '/^Ip:/ && !/Reasm/ { print "fragments", $15 + $18 + $20 }' /proc/net/snmp
ip link set eth0 mtu 9001 2>/dev/null || echo "not longer"
"""


def a_guest_has_the_networks_mtu():
    need_namespaces()
    with Lodge() as lodge:
        lodge("network", "create", "long", "--kind", "isolated", "--subnet", "10.61.0.0/24", "--mtu", MTU)
        with Peer(lodge, "long", "peer", "ip=10.61.0.5"):
            environment = ["env", f"XDG_RUNTIME_DIR={lodge.folder}", f"XDG_CONFIG_HOME={lodge.folder}/config"]
            status, output = guest.run_busybox(GUEST, 240, prefix=environment, name="box", net="long,ip=10.61.0.9")
        assert status == 0, output
        for line in ("9000", "fragments 0", "not longer"):
            assert line in output.splitlines(), output


main(kinds_without_privileges, kinds_of_the_host, a_guest_has_the_networks_mtu)
