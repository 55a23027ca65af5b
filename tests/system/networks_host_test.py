# SPDX-License-Identifier: Apache-2.0
"""Networks that change the host's own: nat, internal, bridge and wifi. The host, its router and its peers are namespaces of
the test's."""

import json
import os
import shutil
import signal
import time

from kit.case import Skip, main
from kit.peer import Peer, transfer
from kit.site import Site, need_rights, wait_until


def nat_and_internal():
    need_rights()
    with Site() as site:
        lodge, before = site.lodge, site.links()
        lodge("network", "create", "out", "--kind", "nat", "--subnet", "192.168.77.0/24", "--lease", "two=192.168.77.50",
              "--forward", "tcp:203.0.113.2:8080:192.168.77.50:80")
        with Peer(lodge, "out", "one") as one, Peer(lodge, "out", "two") as two:
            assert one.router == "192.168.77.1" and two.address == "192.168.77.50"
            one.must_ping(two.address)
            one.must_ping("192.168.77.1")
            site.host.must_ping(one.address)
            one.must_ping("203.0.113.1")
            assert not site.lan.pings(one.address, wait=1), "reached from outside past the forwards"
            six = one.address6()
            site.host.must_ping(six)
            server = two.start("echo through >/tmp/x; python3 -c \"import socket; s=socket.socket(); s.setsockopt(1,2,1); "
                               "s.bind(('',80)); s.listen(); print('up',flush=True); c,_=s.accept(); c.sendall(b'through')\"")
            assert server.stdout.readline() == "up\n"
            got = site.lan.run("python3 -c \"import socket; print(socket.create_connection(('203.0.113.2',8080),timeout=10).recv(99))\"")
            assert "through" in got, got
            out = one.run(f"busybox nslookup two {one.dns}", check=False).stdout
            assert "192.168.77.50" in out, out
            # The helper is killed: machines go on, and the next start finds what was left.
            show = json.loads(lodge("network", "show", "out", "--json").stdout)
            os.kill(show["helper"]["pid"], signal.SIGKILL)
            one.must_ping("203.0.113.1")
        wait_until(lambda: "down" in lodge("network", "list").stdout, "the network does not go down")
        lodge("network", "up", "out")
        lodge("network", "down", "out")
        wait_until(lambda: site.links() == before, f"left behind: {site.links() - before}")
        assert "lodge" not in site.tables(), site.tables()

        lodge("network", "create", "in", "--kind", "internal")
        with Peer(lodge, "in", "one") as one, Peer(lodge, "in", "two") as two:
            one.must_ping(two.address)
            site.host.must_ping(one.address)
            assert not one.pings("203.0.113.1", wait=1), "an internal network leads out"
        wait_until(lambda: site.links() == before, f"left behind: {site.links() - before}")
        lodge.fails("network", "create", "clash", "--kind", "nat", "--subnet", "203.0.113.0/25", saying="overlaps with the host's card card0")


LONG_NAME = "\n".join((
    "import socket,struct,sys",
    "q=struct.pack('>HHHHHH',9,256,1,0,0,0)+b'\\x03two\\x03out\\x08internal\\0'+struct.pack('>HH',1,1)",
    "s=socket.create_connection((sys.argv[1],53),timeout=20)",
    "s.sendall(struct.pack('>H',len(q))+q)",
    "a=s.recv(4096); print('answer', socket.inet_ntoa(a[-4:]))"))


def nat_behind_a_firewall():
    """A host whose firewall drops what it does not know, as Docker's does; names by TCP."""
    need_rights()
    if not shutil.which("iptables"):
        raise Skip("there is no iptables")
    with Site() as site:
        lodge = site.lodge
        site.host.run("iptables -P FORWARD DROP && iptables -N DOCKER-USER && iptables -A DOCKER-USER -j RETURN && iptables -A FORWARD -j DOCKER-USER")
        before = site.host.run("iptables -S")
        lodge("network", "create", "out", "--kind", "nat", "--subnet", "192.168.77.0/24", "--lease", "two=192.168.77.50",
              "--forward", "tcp:203.0.113.2:8080:192.168.77.50:80")
        with Peer(lodge, "out", "two") as two:
            two.must_ping("203.0.113.1")
            assert "lodge network out" in site.host.run("iptables -S")
            server = two.start("python3 -c \"import socket; s=socket.socket(); s.setsockopt(1,2,1); s.bind(('',80)); s.listen(); "
                               "print('up',flush=True); c,_=s.accept(); c.sendall(b'through')\"")
            assert server.stdout.readline() == "up\n"
            got = site.lan.run("python3 -c \"import socket; print(socket.create_connection(('203.0.113.2',8080),timeout=10).recv(99))\"")
            assert "through" in got, got
            for server in ("192.168.77.2", json.loads(lodge("network", "show", "out", "--json").stdout)["nameServer6"]):
                two.address6()
                got = two.run(f'python3 -c "{LONG_NAME}" {server}')
                assert "answer 192.168.77.50" in got, got
            # Killed, the helper leaves its rules; the network's end takes them away all the same.
            show = json.loads(lodge("network", "show", "out", "--json").stdout)
            os.kill(show["helper"]["pid"], signal.SIGKILL)
            two.must_ping("203.0.113.1")
        wait_until(lambda: site.host.run("iptables -S") == before, "the firewall is not as it was")
        wait_until(lambda: "lodge" not in site.tables(), "a table stays")


STREAM = ("import socket,time\ns=socket.create_connection(('203.0.113.1',9),timeout=20)\ns.settimeout(20)\n"
          "for i in range(40): s.sendall(b'x'*1000); assert s.recv(9)==b'ok'; time.sleep(0.1)\nprint('whole')")
ECHO = ("import socket\ns=socket.socket(); s.setsockopt(1,2,1); s.bind(('',9)); s.listen(); print('up',flush=True); c,_=s.accept(); n=0\n"
        "while True:\n b=c.recv(65536)\n if not b: break\n n+=len(b)\n while n>=1000: c.sendall(b'ok'); n-=1000")


def bridge_keeps_connections():
    need_rights()
    with Site() as site:
        lodge, before = site.lodge, site.links()
        addresses = site.host.run("ip -4 -o addr show scope global | grep -o 'inet .*brd'; ip -4 route")
        echo = site.lan.start(f'python3 -c "{ECHO}"')
        assert echo.stdout.readline() == "up\n"
        stream = site.host.start(f'python3 -c "{STREAM}"')
        time.sleep(0.5)
        lodge("network", "create", "wire", "--kind", "bridge", "--uplink", "card0")
        with Peer(lodge, "wire", "guest") as guest:
            assert guest.address.startswith("203.0.113.") and guest.router == "203.0.113.1"
            guest.must_ping("203.0.113.1")
            site.lan.must_ping(guest.address)
            guest.must_ping("203.0.113.2")
            guest.must_ping(guest.address6())
        wait_until(lambda: site.links() == before, f"left behind: {site.links() - before}")
        assert stream.communicate(timeout=60)[0] == "whole\n", "the host's connection did not live"
        after = site.host.run("ip -4 -o addr show scope global | grep -o 'inet .*brd'; ip -4 route")
        assert after == addresses, (addresses, after)
        helper_dies_with_the_card_in_its_bridge(site, lodge, before, addresses)
        lodge.fails("network", "create", "x", "--kind", "bridge", saying="--uplink eth0")
        lodge("network", "create", "y", "--kind", "bridge", "--uplink", "nocard")
        lodge.fails("network", "up", "y", saying="there is no card 'nocard'")
        # A bridge that exists is joined and left as it was.
        site.host.run("ip link add mine type bridge; ip link set mine up; ip addr add 198.51.100.1/24 dev mine")
        lodge("network", "create", "z", "--kind", "bridge", "--uplink", "mine")
        with Peer(lodge, "z", "guest", lease=False) as guest:
            guest.run("ip addr add 198.51.100.2/24 dev eth0")
            guest.must_ping("198.51.100.1")
        wait_until(lambda: site.links() == before | {"mine"}, "the tap stays, or the bridge went")


def helper_dies_with_the_card_in_its_bridge(site, lodge, before, addresses):
    """Killed with the network's process beside it: the next start puts the card's addresses back first."""
    now = lambda: site.host.run("ip -4 -o addr show scope global | grep -o 'inet .*brd'; ip -4 route")
    with Peer(lodge, "wire", "guest") as guest:
        helper = json.loads(lodge("network", "show", "wire", "--json").stdout)["helper"]["pid"]
        os.kill(helper, signal.SIGKILL)
        guest.must_ping("203.0.113.1")
        site.host.must_ping("203.0.113.1")
    # The network's own end takes the bridge down.
    wait_until(lambda: site.links() == before and now() == addresses, "the card did not get its addresses back")
    lodge("network", "up", "wire")
    helper = json.loads(lodge("network", "show", "wire", "--json").stdout)["helper"]["pid"]
    process = int(open(f"/proc/{helper}/stat").read().rsplit(")", 1)[1].split()[1])
    os.kill(helper, signal.SIGKILL)
    os.kill(process, signal.SIGKILL)
    wait_until(lambda: "down" in lodge("network", "list").stdout, "the network lives")
    assert site.links() != before
    site.host.must_ping("203.0.113.1")
    lodge("network", "up", "wire")
    lodge("network", "down", "wire")
    wait_until(lambda: site.links() == before and now() == addresses, "the card did not get its addresses back at the next start")


def devices_that_exist():
    """A switch with a tap device that somebody made; a card that the host does not share."""
    need_rights()
    with Site() as site:
        lodge = site.lodge
        site.host.run("ip tuntap add dev mine mode tap; ip addr add 198.51.100.1/24 dev mine; ip link set mine up")
        lodge("network", "create", "t", "--kind", "switch", "--uplink", "tap:mine")
        with Peer(lodge, "t", "guest", lease=False) as guest:
            guest.run("ip addr add 198.51.100.2/24 dev eth0")
            guest.must_ping("198.51.100.1")
            site.host.must_ping("198.51.100.2")
        assert "mine" in site.links()
        lodge("network", "create", "u", "--kind", "switch", "--uplink", "tap:nodevice")
        lodge.fails("network", "up", "u", saying="there is no card 'nodevice'")
        # A macvtap device: the LAN is behind it, and it has one address.
        site.host.run("ip link add link card0 name mv0 index 7345 type macvtap mode bridge && ip link set mv0 up")
        mac = json.loads(site.host.run("ip -j link show mv0"))[0]["address"]
        lodge("network", "create", "v", "--kind", "switch", "--uplink", "tap:mv0")
        with Peer(lodge, "v", "guest", f"mac={mac}", lease=False) as guest:
            guest.run(f"ip link set eth0 down; ip link set eth0 address {mac} up")
            guest.take_lease()
            assert guest.address.startswith("203.0.113."), guest.address
            guest.must_ping("203.0.113.1")
            site.lan.must_ping(guest.address)
            guest.must_ping("2001:db8::1")
            site.lan.must_ping(guest.address6())
            transfer(guest, site.lan, "203.0.113.1", 5)
            transfer(site.lan, guest, guest.address, 5)
        assert "mv0" in site.links()
        site.host.run("ip link del mv0")
        # The host keeps off a card that it does not share.
        lodge("network", "create", "off", "--kind", "bridge", "--uplink", "card0", "--no-host")
        with Peer(lodge, "off", "guest") as guest:
            guest.must_ping("203.0.113.1")
            assert not site.host.pings("203.0.113.1", wait=1), "the host shares the card"
            assert not site.lan.pings("203.0.113.2", wait=1), "the host answers at the card"
        wait_until(lambda: site.host.pings("203.0.113.1", wait=1), "the host has its card no more")


def the_host_and_its_machines(site, a, b):
    """Over a card that cannot send to itself; who takes an address of the LAN's does not take the host's way to it."""
    site.host.must_ping(a.address)
    a.must_ping("203.0.113.2")
    site.host.must_ping(b.address6())
    b.must_ping(site.host.address6(card="card0"))
    transfer(a, site.host, "203.0.113.2", 5)
    transfer(site.host, a, a.address, 5)
    site.lan.run("ip addr add 203.0.113.200/24 dev br0")
    for taken in ("203.0.113.1", "203.0.113.200"):
        a.run(f"ip addr add {taken}/24 dev eth0; busybox ping -c 1 -W 1 -I {taken} 203.0.113.99; ip addr del {taken}/24 dev eth0; true")
        time.sleep(2)
        assert taken not in site.host.run("ip route show dev $(ip -o link | grep -o 'lt-air[^:@]*')"), site.host.run("ip route")
        site.host.must_ping(taken)
    assert f"{a.address} " in site.host.run("ip route"), site.host.run("ip route")


def wifi_station():
    need_rights()
    with Site() as site:
        lodge = site.lodge
        mac = json.loads(site.host.run("ip -j link show card0"))[0]["address"]
        site.lan.run("nft add table bridge f; nft 'add chain bridge f p { type filter hook prerouting priority 0 ; }'; "
                     f"nft add rule bridge f p iifname ap0 ether saddr != {mac} counter drop")
        before = site.links()
        lodge("network", "create", "plain", "--kind", "bridge", "--uplink", "card0")
        lodge("network", "create", "air", "--kind", "wifi", "--uplink", "card0")
        with Peer(lodge, "air", "a") as a, Peer(lodge, "air", "b") as b, Peer(lodge, "air", "c") as c:
            assert len({a.address, b.address, c.address}) == 3 and a.address.startswith("203.0.113."), a.address
            for peer in (a, b, c):
                site.lan.must_ping(peer.address)
                peer.must_ping("203.0.113.1")
                six = peer.address6()
                peer.must_ping("2001:db8::1")
                site.lan.must_ping(six)
            a.must_ping(b.address)
            b.must_ping(c.address)
            a.must_ping(c.address6())
            site.host.must_ping("203.0.113.1")
            the_host_and_its_machines(site, a, b)
            # TCP both ways, with the card's offloads.
            echo = site.lan.start(f'python3 -c "{ECHO}"')
            assert echo.stdout.readline() == "up\n"
            assert "whole" in a.run("python3 -c \"" + STREAM.replace("range(40)", "range(5)") + "\"")
            # The card goes down and up again.
            site.host.run("ip link set card0 down; sleep 0.3; ip link set card0 up")
            a.must_ping("203.0.113.1", tries=20)
        wait_until(lambda: site.links() == before, f"left behind: {site.links() - before}")
        rules = site.lan.run("nft list table bridge f")
        assert "packets 0 bytes 0" in rules, f"frames left under other addresses than the card's: {rules}"


main(nat_and_internal, nat_behind_a_firewall, bridge_keeps_connections, devices_that_exist, wifi_station)
