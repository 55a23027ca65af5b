# SPDX-License-Identifier: Apache-2.0
"""Two machines and the host on every kind of network: addresses by DHCP, names, ping, TCP and UDP both ways, IPv4 and IPv6,
isolation where it is promised, a capture that tshark reads."""

import json
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from kit import paths
from kit.case import Skip, main
from kit.peer import Lodge, Namespace, Peer, need_namespaces, transfer
from kit.site import Site, need_rights, wait_until

ECHO = ("import socket\nu=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM); u.setsockopt(41,26,0); u.bind(('::',7))\n"
        "print('up',flush=True)\nwhile True:\n d,a=u.recvfrom(65536); u.sendto(d,a)")
# A short datagram and one in fragments; each is sent until it comes back.
SEND = ("import socket,sys\nto=sys.argv[1]\nu=socket.socket(socket.AF_INET6 if ':' in to else socket.AF_INET,socket.SOCK_DGRAM)\n"
        "u.settimeout(1)\nfor size in (100, 5000):\n data=bytes(i%251 for i in range(size))\n for n in range(30):\n"
        "  u.sendto(data,(to,7))\n  try:\n   assert u.recv(65536)==data; print('whole'); break\n  except TimeoutError: pass")


def datagrams(client, server, address):
    echo = server.start(f'exec python3 -c "{ECHO}"')
    assert echo.stdout.readline() == "up\n"
    said = client.run(f'python3 -c "{SEND}" {address}')
    echo.kill()
    assert said == "whole\nwhole\n", f"{client.name} to {server.name}, {address}: {said}"


def both_ways(a, a_addresses, b, b_addresses):
    for mine, theirs in zip(a_addresses, b_addresses):
        a.must_ping(theirs)
        b.must_ping(mine)
        transfer(a, b, theirs, 3)
        transfer(b, a, mine, 3)
        datagrams(a, b, theirs)
        datagrams(b, a, mine)


class Capture:
    def __init__(self, lodge, network, folder):
        self.file = pathlib.Path(folder) / f"{network}.pcapng"
        self.process = subprocess.Popen([*lodge.prefix, str(paths.LODGE), "network", "capture", network, "-w", str(self.file), "--snap", "128"],
                                        env=lodge.environment)
        wait_until(lambda: self.file.exists() and self.file.stat().st_size > 0, "no capture")

    def rows(self):
        time.sleep(1)
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(60) == 0
        out = subprocess.run(["tshark", "-r", str(self.file), "-T", "fields", "-e", "frame.interface_name", "-e", "_ws.col.Protocol"],
                             capture_output=True, text=True, timeout=120)
        assert out.returncode == 0, out
        return {tuple(line.split("\t")) for line in out.stdout.splitlines()}


def machines(lodge, kind, words=(), host=None, host_addresses=(), names=True):
    """Two machines, `a` and `b`, among themselves and, with `host`, with the host."""
    network = f"{kind}-1"
    lodge("network", "create", network, "--kind", kind, *words)
    with tempfile.TemporaryDirectory() as folder, Peer(lodge, network, "a") as a, Peer(lodge, network, "b") as b:
        capture = Capture(lodge, network, folder) if shutil.which("tshark") else None
        pair = [a.address, a.address6()], [b.address, b.address6()]
        assert len({*pair[0], *pair[1]}) == 4, pair
        if names:
            server = json.loads(lodge("network", "show", network, "--json").stdout)["nameServer"]
            for name, address in (("b", b.address), (f"b.{network}.internal", b.address), (f"a.{network}.internal", a.address)):
                said = b.run(f"busybox nslookup {name} {server}", check=False).stdout
                assert address in said, (name, said)
        both_ways(a, pair[0], b, pair[1])
        if host:
            both_ways(a, pair[0], host, [each() if callable(each) else each for each in host_addresses])
        if capture:
            rows = capture.rows()
            for name in ("a", "b"):
                for protocol in ("ARP", "ICMP", "ICMPv6", "TCP"):
                    assert (name, protocol) in rows, (name, protocol, sorted(rows))
        yield a, b


def kinds_without_privileges():
    need_namespaces()
    with Lodge() as lodge:
        for kind in ("user", "switch", "isolated"):
            for a, _ in machines(lodge, kind):
                # Nobody else is there: not the host, and no way out of what has none.
                if kind != "user":
                    assert not a.run("ip route show default"), a.run("ip route")
                    assert not a.pings("198.51.100.1", wait=1)
            lodge("network", "rm", f"{kind}-1", "--force")


def kinds_of_the_host():
    need_rights()
    with Site() as site:
        lodge, host, before = site.lodge, site.host, site.links()
        for kind in ("nat", "internal"):
            where = ["192.168.77.1", "fd00:77::1"]
            for a, _ in machines(lodge, kind, ["--subnet", "192.168.77.0/24", "--subnet6", "fd00:77::/64"], host, where):
                assert a.pings("203.0.113.1", wait=5 if kind == "nat" else 1) == (kind == "nat")
                assert not site.lan.pings(a.address, wait=1), "reached from outside"
                with Namespace("beside") as beside:  # a device of somebody's in the same bridge takes part
                    host.run(f"ip link add mine type veth peer name eth0 netns {beside.holder.pid}; "
                             f"ip link set mine master {bridge_of(site, before)} up")
                    beside.run("ip link set eth0 up")
                    beside.take_lease()
                    beside.must_ping(a.address)
                    beside.must_ping("192.168.77.1")
                wait_until(lambda: "mine" not in site.links(), "the device stays")
            lodge("network", "rm", f"{kind}-1", "--force")
            wait_until(lambda: site.links() == before, f"left behind: {site.links() - before}")
        host.address6(card="card0")  # by the router's advertisement, whose route must move with it
        for kind in ("bridge", "wifi"):
            # Addresses and names are the LAN's.
            card = (lambda: host.address6(card="card0")) if kind == "wifi" else (lambda: host.address6(card=bridge_of(site, before)))
            for a, b in machines(lodge, kind, ["--uplink", "card0"], host, ["203.0.113.2", card], names=False):
                both_ways(a, [a.address, a.address6()], site.lan, ["203.0.113.1", "2001:db8::1"])
                assert b.address.startswith("203.0.113.")
            lodge("network", "rm", f"{kind}-1", "--force")
            wait_until(lambda: site.links() == before, f"left behind: {site.links() - before}")


def bridge_of(site, before):
    return next(name for name in site.links() - before if name.startswith("lg-"))


main(kinds_without_privileges, kinds_of_the_host)
