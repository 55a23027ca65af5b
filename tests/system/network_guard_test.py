# SPDX-License-Identifier: Apache-2.0
"""What a hostile machine sends in others' names, counted where it must not arrive: on a port behind the switch, and on one in the
host's bridge, whose guard is the kernel's."""

import itertools
import json
import os
import signal
import socket
import struct

from kit.case import main
from kit.frames import (ALL_NODES, ARP, BROADCAST, ICMP6, IGMP, IP4, IP6, NS, QUERY6, RA, RS, SERVICE_VLAN, UDP, VLAN, PacketSocket, Port,
                        address_option, advert, arp, ether, icmp6, ip, ip4, ip6, link_local, mac, marked, received, setns, udp)
from kit.peer import Lodge
from kit.site import Site, need_rights, wait_until

EVIL, ONE, TWO, THREE = (mac(f"02:00:00:00:00:{n:02x}") for n in range(1, 5))
NODES = mac("33:33:00:00:00:01")


class Addresses:
    """Of the machines of a network, by their number in it."""

    def __init__(self, block4, block6):
        self.block4, self.block6 = block4, block6

    def four(self, n):
        return f"{self.block4}.{n}"

    def six(self, n):
        return f"{self.block6}{n:x}"

    def given(self, n):
        return [self.four(n), self.six(n)]


def attacks(a):
    """Frames of EVIL, which has been given 30, with why they must not pass. 31 was given to ONE; 1 or 2 is the network's."""
    own4, own6, others4, others6, local = a.four(30), a.six(30), a.four(31), a.six(31), link_local(EVIL)
    own_option, foreign = address_option(2, EVIL), address_option(2, ONE)
    router = icmp6(local, ALL_NODES, RA, struct.pack(">BBHII", 64, 0, 1800, 0, 0) + address_option(1, EVIL))
    spoofed4 = ip4(others4, "255.255.255.255", UDP, udp(1000, 1000))
    spoofed_arp = arp(EVIL, others4, own4)

    def four(packet, to=BROADCAST, source=EVIL):
        return ether(to, source, IP4, packet)

    def six(packet):
        return ether(NODES, EVIL, IP6, packet)

    def six_of(source, kind, body):
        return six(ip6(source, ALL_NODES, ICMP6, icmp6(source, ALL_NODES, kind, body)))

    def notice(target, *options, source=own6):
        return six(ip6(source, ALL_NODES, ICMP6, advert(source, target, *options)))

    def tagged(*kinds, inner=spoofed_arp):
        tags = b"".join(struct.pack(">HH", kind, 0) for kind in kinds)
        return BROADCAST + EVIL + tags + struct.pack(">H", ARP) + inner

    def piece(packet, fragment):
        """Of IPv4; the checksum is right when it is marked."""
        return packet[:6] + struct.pack(">H", fragment) + packet[8:]

    def without_header(protocol):
        """A first piece of IPv6 that ends before the protocol's header."""
        return six(ip6(local, ALL_NODES, 44, struct.pack(">BBHI", 60, 0, 1, 9) + bytes([protocol, 0]) + pad))

    pad = b"\x01\x04\0\0\0\0"  # options of an extension header
    query = b"\x11\0\xee\xff\0\0\0\0"
    alert = b"\x94\x04\0\0"
    return {
        "another hardware address": four(ip4(own4, "255.255.255.255", UDP, udp(1000, 1000)), source=ONE),
        "a hardware address of nobody": four(ip4(own4, "255.255.255.255", UDP, udp(1000, 1000)), source=mac("02:00:00:00:77:77")),
        "a group as source": four(ip4(own4, "255.255.255.255", UDP, udp(1000, 1000)), source=mac("01:00:5e:00:00:01")),
        "another's IPv4 address": four(spoofed4),
        "an IPv4 address beside its own": four(ip4(a.four(99), "255.255.255.255", UDP, udp(1000, 1000))),
        "a group's IPv4 address": four(ip4("224.0.0.5", "255.255.255.255", UDP, udp(1000, 1000))),
        "the network's IPv4 address": four(ip4(a.four(2), "255.255.255.255", UDP, udp(1000, 1000))),
        "another's IPv6 address": six(ip6(others6, ALL_NODES, UDP, udp(1000, 1000))),
        "an IPv6 address beside its own": six(ip6(a.six(0x99), ALL_NODES, UDP, udp(1000, 1000))),
        "a group's IPv6 address": six(ip6("ff02::5", ALL_NODES, UDP, udp(1000, 1000))),
        "another's address in ARP": ether(BROADCAST, EVIL, ARP, spoofed_arp),
        "another's address in an ARP question": ether(BROADCAST, EVIL, ARP, arp(EVIL, others4, own4, reply=False)),
        "the network's address in ARP": ether(BROADCAST, EVIL, ARP, arp(EVIL, a.four(2), own4)),
        "another's hardware address in ARP": ether(BROADCAST, EVIL, ARP, arp(ONE, own4, others4)),
        "ARP of IEEE 802": ether(BROADCAST, EVIL, ARP, arp(EVIL, others4, own4, hardware=6)),
        "ARP that is cut": ether(BROADCAST, EVIL, ARP, spoofed_arp[:9]),
        "ARP behind SNAP": BROADCAST + EVIL + struct.pack(">H", 8 + 28) + b"\xaa\xaa\x03\0\0\0\x08\x06" + spoofed_arp,
        "ARP behind a tag of no VLAN": tagged(VLAN),
        "ARP behind two tags": tagged(VLAN, VLAN),
        "ARP behind a service tag": tagged(SERVICE_VLAN),
        "ARP behind a service tag and another": tagged(SERVICE_VLAN, VLAN),
        "another's address advertised": notice(others6, own_option),
        "another's address advertised for another": notice(others6, foreign),
        "its own advertised for another": notice(own6, foreign),
        "its own advertised twice": notice(own6, foreign, own_option),
        "its own advertised for others, too": notice(own6, own_option, foreign),
        "another's address advertised behind options": six(
            ip6(own6, ALL_NODES, 0, bytes([ICMP6, 0]) + pad + advert(own6, others6, own_option))),
        "an advertisement in pieces": six(
            ip6(own6, ALL_NODES, 44, struct.pack(">BBHI", ICMP6, 0, 1, 9) + advert(own6, others6, own_option))),
        "a question from another's hardware address": six_of(own6, NS, bytes(4) + ip(others6) + address_option(1, ONE)),
        "a question to routers for another": six_of(local, RS, bytes(4) + address_option(1, ONE)),
        "a router": six(ip6(local, ALL_NODES, ICMP6, router)),
        "a router behind options": six(ip6(local, ALL_NODES, 60, bytes([ICMP6, 0]) + pad + router)),
        "a router whose options are cut": six(ip6(local, ALL_NODES, 44, struct.pack(">BBHI", 60, 0, 1, 9) + bytes([ICMP6, 4]) + pad)),
        "a router in pieces": six(ip6(local, ALL_NODES, 44, struct.pack(">BBHI", ICMP6, 0, 1, 9) + router)),
        "a DHCP server": four(ip4(own4, "255.255.255.255", UDP, udp(67, 68))),
        "a DHCP server at another port": four(ip4(own4, "255.255.255.255", UDP, udp(1067, 68))),
        "a DHCP server behind IP options": four(
            ip4(own4, "255.255.255.255", UDP, udp(1067, 68), words=6, options=alert)),
        "a DHCPv6 server": six(ip6(local, ALL_NODES, UDP, udp(547, 546))),
        "a DHCPv6 server at another port": six(ip6(local, ALL_NODES, UDP, udp(1547, 546))),
        "an IP header that is too long": four(ip4(own4, "255.255.255.255", UDP, udp(67, 68), words=15)),
        "an IP header of version 5": four(b"\x55" + ip4(own4, "255.255.255.255", UDP, udp(67, 68))[1:]),
        "who asks for groups": four(ip4(own4, "224.0.0.1", IGMP, query, words=6, options=alert)),
        "who asks for groups in a later piece": four(piece(ip4(own4, "224.0.0.1", IGMP, query, words=6, options=alert), 1)),
        "a router that says where groups go": four(ip4(own4, "224.0.0.13", 103, b"\x20\0\xdf\xff")),
        "a router that says where IPv6 groups go": six(ip6(local, ALL_NODES, 103, b"\x20\0\xdf\xff")),
        **{f"a router of groups {kind:x}": four(ip4(own4, "224.0.0.106", IGMP, bytes([kind]) + query[1:], words=6, options=alert))
           for kind in (0x30, 0x31, 0x32)},
        **{f"a router of IPv6 groups {kind}": six(ip6(local, ALL_NODES, 0, bytes([ICMP6, 0]) + b"\x05\x02\0\0\x01\0" +
                                                     icmp6(local, ALL_NODES, kind, bytes(4)), limit=1)) for kind in (151, 152, 153)},
        "a DHCPv6 server whose header is in the next piece": without_header(UDP),
        "a router whose header is in the next piece": without_header(ICMP6),
        "a DHCPv6 server whose header is in the next piece, and padding": without_header(UDP) + bytes(40),
        "a router whose header is in the next piece, and padding": without_header(ICMP6) + bytes(40),
        "a DHCPv6 server whose header is cut": six(ip6(local, ALL_NODES, UDP, udp(547, 546)[:4])),
        "who asks for IPv6 groups": six(ip6(local, ALL_NODES, 0, bytes([ICMP6, 0]) + b"\x05\x02\0\0\x01\0" +
                                            icmp6(local, ALL_NODES, QUERY6, bytes(20)), limit=1)),
        **{f"group of bridges {n:x}": ether(mac(f"01:80:c2:00:00:{n:02x}"), EVIL, IP4, ip4(own4, a.four(1), UDP, udp(1000, 2000)))
           for n in range(16)},
    }


numbers = itertools.count(1000)  # of frames: those of a run differ, and the host's own seldom have any


def count(a, evil, receivers):
    """Sends all attacks, then what may pass, which comes behind what was sent before it."""
    marks = {}
    for what, frame in attacks(a).items():
        number = next(numbers)
        marks[number] = what
        evil.send(marked(frame, number))
    own6, local, leaks = a.six(30), link_local(EVIL), set()

    def six(source, message):
        return ether(NODES, EVIL, IP6, ip6(source, ALL_NODES, ICMP6, message))

    for frame in (announce(EVIL, a.four(30)), talk(EVIL, a.four(30)), announce(EVIL, own6), talk(EVIL, own6), announce(EVIL, local),
                  ether(BROADCAST, EVIL, IP4, ip4("0.0.0.0", "255.255.255.255", UDP, udp(68, 67))),
                  advertise(EVIL, local, own6),
                  six(own6, advert(own6, own6)),
                  six(own6, icmp6(own6, ALL_NODES, NS, bytes(4) + ip(a.six(31)) + address_option(1, EVIL))),
                  six("::", icmp6("::", ALL_NODES, NS, bytes(4) + ip(own6))),
                  six(local, icmp6(local, ALL_NODES, RS, bytes(4) + address_option(1, EVIL)))):
        number = next(numbers)
        evil.send(marked(frame, number))
        for receiver in receivers:
            leaks.update((receiver.name, marks[n]) for n in received(receiver, number) if n in marks)
    assert not leaks, leaks


def pass_(sender, receivers, frame):
    """The frame arrives everywhere."""
    number = next(numbers)
    sender.send(marked(frame, number))
    for receiver in receivers:
        received(receiver, number)


def stopped(sender, receivers, frame, what):
    """The frame arrives nowhere; one that may pass comes behind it."""
    evil, well = next(numbers), next(numbers)
    sender.send(marked(frame, evil))
    sender.send(marked(ether(BROADCAST, sender.mac, 0x88b5, bytes(46)), well))
    for receiver in receivers:
        assert evil not in received(receiver, well), f"{receiver.name} got {what}"


def announce(hardware, address):
    if ":" in address:
        return ether(NODES, hardware, IP6, ip6(address, ALL_NODES, ICMP6, advert(address, address, address_option(2, hardware))))
    return ether(BROADCAST, hardware, ARP, arp(hardware, address, address))


def advertise(hardware, address, source):
    """A neighbour advertisement from an address of its own for another."""
    return ether(NODES, hardware, IP6, ip6(source, ALL_NODES, ICMP6, advert(source, address, address_option(2, hardware))))


def talk(hardware, address):
    if ":" in address:
        return ether(NODES, hardware, IP6, ip6(address, ALL_NODES, UDP, udp(1000, 1000)))
    return ether(BROADCAST, hardware, IP4, ip4(address, "255.255.255.255", UDP, udp(1000, 1000)))


def behind_the_switch():
    with Lodge() as lodge:
        lodge("network", "create", "wires", "--kind", "switch", "--subnet", "10.9.0.0/24", "--subnet6", "fd09::/64")
        lodge("network", "up", "wires")
        a = Addresses("10.9.0", "fd09::")
        with Port(lodge, "wires", "one", ONE, addresses=a.given(31)) as one, Port(lodge, "wires", "two", TWO) as two, \
                Port(lodge, "wires", "evil", EVIL, addresses=a.given(30)) as evil:
            count(a, evil, [one, two])
            port = show(lodge, "wires", "evil")
            assert port["counters"]["spoofed"] == len(attacks(a)), port


def show(lodge, network, port):
    ports = json.loads(lodge("network", "show", network, "--json").stdout)["ports"]
    return next(p for p in ports if p["name"] == port)


def host_socket(site):
    """What a program of the host's gets that listens at all addresses."""
    with open("/proc/self/ns/net") as own, open(f"/proc/{site.host.holder.pid}/ns/net") as other:
        setns(other.fileno())
        try:
            got = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            got.bind(("0.0.0.0", 2000))
        finally:
            setns(own.fileno())
    got.setblocking(False)
    return got


def out(site):
    """A network with a bridge."""
    site.lodge("network", "create", "out", "--kind", "nat", "--subnet", "192.168.77.0/24", "--subnet6", "fd77::/64")
    site.lodge("network", "up", "out")
    bridge = json.loads(site.host.run("ip -j link show type bridge"))[0]["ifname"]
    return Addresses("192.168.77", "fd77::"), bridge


def in_the_bridge():
    need_rights()
    with Site() as site:
        lodge = site.lodge
        a, bridge = out(site)
        with Port(lodge, "out", "one", ONE, direct=True, addresses=a.given(31)) as one, Port(lodge, "out", "two", TWO) as two, \
                Port(lodge, "out", "evil", EVIL, direct=True, addresses=a.given(30)) as evil:
            host, listener = PacketSocket(site.host, bridge), host_socket(site)
            count(a, evil, [one, two, host])
            # Groups of bridges end at the port: nothing is learnt from them, and the host does not listen there.
            evil.send(ether(mac("01:80:c2:00:00:0e"), mac("02:00:00:00:77:78"), IP4, ip4(a.four(30), a.four(1), UDP, udp(1000, 2000))))
            pass_(evil, [one], talk(EVIL, a.four(30)))
            assert "02:00:00:00:77:78" not in site.host.run("bridge fdb show"), "learnt"
            try:
                said = listener.recvfrom(2000)
                raise AssertionError(f"the host listened: {said}")
            except BlockingIOError:
                pass
            counted_and_told(site, a)
            listener.close()
            host.close()


def counted_and_told(site, a):
    """What the kernel's guard dropped is in the port's counters, in what is shown, and in the log."""
    lodge = site.lodge
    port = show(lodge, "out", "evil")
    most = len(attacks(a)) + 1
    # The bridge itself refuses a group as source, and the kernel what is no frame of its kind.
    assert most - 6 <= port["counters"]["spoofed"] <= most, (most, port)
    assert port["dropped"]["source MAC"] >= 2 and port["dropped"]["DHCP server"] >= 3, port
    row = next(line for line in lodge("network", "show", "out").stdout.splitlines() if line.startswith("evil "))
    assert str(port["counters"]["spoofed"]) in row.split() and "bridge" in row, row
    wait_until(lambda: "port 'evil': the host's kernel dropped" in lodge.log("out") and "router advertisement" in lodge.log("out"),
               "nothing in the log", 60)
    assert "the host's kernel dropped" in lodge("network", "show", "out").stdout


def whose_address():
    """Who was given an address has it, else who used it first, wherever the two are."""
    need_rights()
    with Site() as site:
        lodge = site.lodge
        a, bridge = out(site)
        with Port(lodge, "out", "one", ONE, direct=True) as one, Port(lodge, "out", "two", TWO) as two, \
                Port(lodge, "out", "three", THREE) as three, Port(lodge, "out", "evil", EVIL, direct=True) as evil:
            host = PacketSocket(site.host, bridge)
            everybody = {p.name: p for p in (one, two, three, evil)}
            n = 40

            def others(*ports):
                return [p for name, p in everybody.items() if name not in [q.name for q in ports]] + [host]

            # First come: in the bridge or behind the switch, against one of the other place or the same.
            for first, second in ((one, evil), (two, evil), (one, two), (evil, two), (two, three)):
                for address in (a.four(n), a.six(n)):
                    pass_(first, others(first), announce(first.mac, address))
                    pass_(second, others(second), announce(second.mac, a.four(n + 1) if "." in address else a.six(n + 1)))
                    for frame in (announce(second.mac, address), talk(second.mac, address)):
                        stopped(second, others(second), frame, f"{second.name}'s under the address that {first.name} used first")
                    pass_(first, others(first), talk(first.mac, address))
                stopped(second, others(second), advertise(second.mac, a.six(n), a.six(n + 1)), f"{second.name}'s advertisement of {first.name}'s")
                n += 2

            # What was given to somebody who has not used it yet.
            for owner, other in ((one, evil), (two, evil), (one, two), (three, two)):
                edit(lodge, owner, f"ip={a.four(n)}")
                stopped(other, others(other), announce(other.mac, a.four(n)), f"{other.name}'s under an address that {owner.name} was given")
                stopped(other, others(other), talk(other.mac, a.four(n)), f"{other.name}'s under an address that {owner.name} was given")
                pass_(owner, others(owner), announce(owner.mac, a.four(n)))
                n += 1

            # It is given to another, from one place to the other; what the first had used meanwhile is not its own any more.
            for old, new in ((one, evil), (evil, one), (one, two), (two, evil), (three, two)):
                edit(lodge, old, f"ip={a.four(n)}")
                pass_(old, others(old), talk(old.mac, a.four(n)))
                edit(lodge, old, f"ip={a.four(n + 1)}")
                edit(lodge, new, f"ip={a.four(n)}")
                pass_(new, others(new), talk(new.mac, a.four(n)))
                stopped(old, others(old), talk(old.mac, a.four(n)), f"{old.name}'s under an address that {new.name} has now")
                stopped(old, others(old), announce(old.mac, a.four(n)), f"{old.name}'s under an address that {new.name} has now")
                pass_(old, others(old), talk(old.mac, a.four(n + 1)))
                pass_(new, others(new), talk(new.mac, a.four(n)))
                n += 2
            host.close()

        # `ip=` for a running port takes away what it had used before.
        with Port(lodge, "out", "one", ONE, direct=True) as one, Port(lodge, "out", "two", TWO) as two:
            pass_(one, [two], talk(ONE, a.four(120)))
            edit(lodge, one, f"ip={a.four(121)}")
            stopped(one, [two], talk(ONE, a.four(120)), "an address from before ip=")
            stopped(one, [two], announce(ONE, a.four(120)), "an address from before ip=")
            pass_(one, [two], talk(ONE, a.four(121)))
            pass_(two, [one], talk(TWO, a.four(122)))
        # What machines that have gone had used is free at once.
        with Port(lodge, "out", "one", THREE, direct=True) as one, Port(lodge, "out", "two", EVIL) as two:
            for address in (a.four(120), a.four(121), a.four(122)):
                pass_(one, [two], talk(THREE, address))
        with Port(lodge, "out", "one", ONE, direct=True) as one, Port(lodge, "out", "two", EVIL) as two:
            pass_(one, [two], talk(ONE, a.four(122)))


def edit(lodge, port, settings):
    lodge("network", "edit", "out", "--port", port.name, "--set", settings)


def floods():
    """Who fills the bridge with frames for everybody harms only itself."""
    need_rights()
    with Site() as site:
        a, bridge = out(site)
        with Port(site.lodge, "out", "one", ONE, direct=True) as one, Port(site.lodge, "out", "two", TWO) as two, \
                Port(site.lodge, "out", "evil", EVIL, direct=True) as evil:
            pass_(two, [one], talk(TWO, a.four(50)))
            sent = 40000
            for n in range(sent):
                kind, to = (0x88b5, BROADCAST) if n % 2 else (0x88b6, mac(f"02:00:00:55:{n >> 9 & 255:02x}:{n >> 1 & 255:02x}"))
                evil.send(ether(to, EVIL, kind, bytes(46)))
                while n % 50 == 0 and one.receive():
                    pass
            # Two's broadcasts pass, there and back.
            pass_(two, [one], talk(TWO, a.four(50)))
            pass_(one, [two], talk(ONE, a.four(51)))
            dropped = show(site.lodge, "out", "evil")["dropped"]["flood"]
            assert dropped > sent / 4, dropped


def the_network_dies():
    """A device of another network namespace is no port's; the end of a killed network's helper leaves its successor alone."""
    need_rights()
    with Site() as site:
        lodge = site.lodge
        a, bridge = out(site)
        with Port(lodge, "out", "one", ONE, direct=True, addresses=a.given(31)) as one:
            device = show(lodge, "out", "one")["direct"]["device"]
            host = PacketSocket(site.host, bridge)
            pass_(one, [host], talk(ONE, a.four(31)))
            host.close()
            # One of the same name, elsewhere.
            strange = strange_device(site.lan, device)
            answer = ask(lodge, {"name": "evil", "mac": "02:00:00:00:00:09", "direct": {"queues": 1, "must": True}}, [strange])
            assert not answer["ok"] and "no device of a port" in answer["error"], answer
            os.close(strange)
            for _ in range(5):
                os.kill(int(lodge.network_process().name), signal.SIGKILL)
                wait_until(lambda: lodge("network", "up", "out", check=False, timeout=90).returncode == 0 and
                           lodge("network", "show", "out", "--json", check=False).returncode == 0 and is_up(lodge), "no successor", 60)
                answer = ask(lodge, {"name": "one", "mac": "02:00:00:00:00:02", "addresses": a.given(31),
                                     "direct": {"queues": 1, "must": True}}, [one.fd], keep=True)
                assert answer["ok"], answer
                host = PacketSocket(site.host, bridge)
                pass_(one, [host], talk(ONE, a.four(31)))
                stopped(one, [host], talk(ONE, a.four(32)), "an address that is not its own")
                host.close()
        tables = site.host.run("nft list tables")
        assert tables.count("lodge_") <= 3, tables


def both_die():
    """What machines still hold when the network's process and its helper were killed is in no bridge without a guard."""
    need_rights()
    with Site() as site:
        lodge = site.lodge
        a, bridge = out(site)
        with Port(lodge, "out", "one", ONE, direct=True, addresses=a.given(31)) as one:
            show_all = json.loads(lodge("network", "show", "out", "--json").stdout)
            device = show(lodge, "out", "one")["direct"]["device"]
            # A bridge of somebody else's, where it would go on.
            site.host.run(f"ip link add other type bridge; ip link set other up; ip link set {device} master other")
            host = PacketSocket(site.host, "other")
            pass_(one, [host], talk(ONE, a.four(31)))
            os.kill(show_all["helper"]["pid"], signal.SIGKILL)
            os.kill(int(lodge.network_process().name), signal.SIGKILL)

            def successor():
                lodge("network", "up", "out", check=False, timeout=90)
                state = site.host.run(f"ip -o link show {device}")
                return "master" not in state and ",UP" not in state

            wait_until(successor, "the device goes on without a guard", 60)
            host.close()


def strange_device(namespace, name):
    import fcntl
    with open("/proc/self/ns/net") as own, open(f"/proc/{namespace.holder.pid}/ns/net") as other:
        setns(other.fileno())
        try:
            fd = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(fd, 0x400454ca, struct.pack("16sH22x", name.encode(), 0x0002 | 0x1000 | 0x4000))
        finally:
            setns(own.fileno())
    return fd


def is_up(lodge):
    try:
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(f"{lodge.folder}/lodge-networks/out/ports")
        return True
    except OSError:
        return False


KEPT = []


def ask(lodge, request, fds, keep=False):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(30)
    s.connect(f"{lodge.folder}/lodge-networks/out/ports")
    socket.send_fds(s, [json.dumps(request).encode()], fds)
    answer = json.loads(s.recv(65536))
    if keep:
        KEPT.append(s)
    else:
        s.close()
    return answer


main(behind_the_switch, in_the_bridge, whose_address, floods, the_network_dies, both_die)
