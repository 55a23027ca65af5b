# SPDX-License-Identifier: Apache-2.0
"""Debian's programs compute in the guest what they compute elsewhere: programs_test.py GROUP...; see GROUPS below."""

import functools
import pathlib
import sys

from kit import paths
from kit.case import main
from kit.guest import Debian

GUEST_SOURCES = pathlib.Path(__file__).resolve().parent / "guest"


def file_system(debian):
    """Every file of every package is as it was packed."""
    changed = debian.run("dpkg --verify", 900)[1]
    # The image is made without documentation and with its own configuration files (c).
    bad = [line for line in changed.splitlines() if line and " c /" not in line and not line.startswith("missing ")]
    assert not bad, f"changed files: {bad[:20]}"
    missing = [line for line in changed.splitlines() if line.startswith("missing ") and "/usr/share/" not in line]
    assert not missing, f"missing files: {missing[:20]}"
    first = debian.check("find /usr/bin /usr/lib/x86_64-linux-gnu -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum", 600)
    debian.check("sync; echo 3 >/proc/sys/vm/drop_caches", 60)
    again = debian.check("find /usr/bin /usr/lib/x86_64-linux-gnu -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum", 600)
    assert first == again


def has_avx512(debian):
    return debian.run("grep -q avx512bw /proc/cpuinfo", 30)[0] == 0


def compiler(debian):
    """A C program, compiled at several levels and against several instruction sets, prints the same."""
    digests = set()
    for flags in ("-O0", "-O2", "-O3 -mavx2 -mfma -ffp-contract=off", "-Os -m64 -static", "-O2 -mno-sse3 -fno-tree-vectorize"):
        output = debian.check(f"cd /tmp && gcc {flags} -o compute /payload/compute.c -lm && ./compute", 240)
        digests.add(output)
    assert len(digests) == 1, digests
    if has_avx512(debian):
        output = debian.check("cd /tmp && gcc -O3 -march=x86-64-v4 -mprefer-vector-width=512 -ffp-contract=off -o compute "
                              "/payload/compute.c -lm && ./compute", 240)
        assert digests == {output}, output
    assert "sorted 1" in output and "primes 78498" in output, output
    debian.check("cd /tmp && cp /payload/compute.c a.c && echo 'all: a' >Makefile && make -s CFLAGS=-O1 LDLIBS=-lm && ./a", 240)


def openssl(debian):
    """Known answers, sign and verify, and the speed program with its vector code for a moment each."""
    known = {"md5": "900150983cd24fb0d6963f7d28e17f72", "sha1": "a9993e364706816aba3e25717850c26c9cd0d89d",
             "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
             "sha3-256": "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"}
    for digest, wanted in known.items():
        assert wanted in debian.check(f"printf abc | openssl dgst -{digest}", 60)
    # FIPS 197, appendix B.
    aes = debian.check(r"printf '\x32\x43\xf6\xa8\x88\x5a\x30\x8d\x31\x31\x98\xa2\xe0\x37\x07\x34' | openssl enc -aes-128-ecb "
                       r"-nopad -K 2b7e151628aed2a6abf7158809cf4f3c | od -An -tx1 | tr -d ' \n'", 60)
    assert aes == "3925841d02dc09fbdc118597196a0b32", aes
    for cipher in ("aes-256-cbc", "aes-256-ctr", "chacha20", "camellia-256-cbc"):
        debian.check(f"head -c 3000000 /usr/bin/openssl >/tmp/plain; openssl enc -{cipher} -pbkdf2 -k word -in /tmp/plain "
                     f"-out /tmp/c && openssl enc -d -{cipher} -pbkdf2 -k word -in /tmp/c | cmp - /tmp/plain", 120)
    debian.check("cd /tmp && openssl genrsa -out rsa 2048 2>/dev/null && openssl rsa -in rsa -check -noout && "
                 "openssl rsa -in rsa -pubout -out rsa.pub 2>/dev/null && openssl dgst -sha256 -sign rsa -out s plain && "
                 "openssl dgst -sha256 -verify rsa.pub -signature s plain", 240)
    debian.check("cd /tmp && openssl ecparam -genkey -name prime256v1 -noout -out ec && openssl ec -in ec -pubout -out ec.pub "
                 "2>/dev/null && openssl dgst -sha256 -sign ec -out s plain && "
                 "openssl dgst -sha256 -verify ec.pub -signature s plain && openssl prime 1000000007", 120)
    # Code for wide vectors against code without them.
    narrow = "OPENSSL_ia32cap=:~0x602d0230000"
    debian.check("cd /tmp && openssl req -x509 -key rsa -subj /CN=x -out cert 2>/dev/null && openssl cms -encrypt -aes-256-gcm "
                 f"-binary -in plain -outform DER -out sealed cert && {narrow} openssl cms -decrypt -inkey rsa -inform DER "
                 "-in sealed -binary | cmp - plain", 120)
    debian.check(f"cd /tmp && openssl dgst -sha256 -sign rsa -out s plain && {narrow} openssl dgst -sha256 -sign rsa -out t plain "
                 "&& cmp s t", 120)
    output = debian.check("openssl speed -seconds 1 -bytes 8192 -evp aes-128-gcm; openssl speed -seconds 1 -bytes 8192 -evp "
                          "chacha20-poly1305; openssl speed -seconds 1 -bytes 8192 sha256 sha512 md5; "
                          "openssl speed -seconds 1 rsa2048 ecdsap256 ecdhx25519", 300)
    assert "RSA verify failure" not in output and "error:" not in output, output


def python(debian):
    tests = ("test_int test_long test_float test_math test_cmath test_complex test_struct test_hashlib test_zlib test_json "
             "test_re test_unicode test_array test_bytes test_memoryview test_decimal test_fractions test_random test_sort "
             "test_threading_local test_thread test_signal test_mmap test_pickle test_generators test_set test_dict test_heapq")
    status, output = debian.run(f"cd /tmp && python3 -m test -j2 --timeout 600 {tests}", 1500)
    assert status == 0, output[-3000:]
    debian.check("python3 -c 'import sqlite3, hashlib; d = sqlite3.connect(\":memory:\"); d.execute(\"create table t(a,b)\"); "
                 "d.executemany(\"insert into t values(?,?)\", ((i, i * i % 97) for i in range(50000))); "
                 "assert d.execute(\"select sum(a*b) from t\").fetchone()[0] == sum(i * (i * i % 97) for i in range(50000))'", 120)


def perl(debian):
    debian.check("perl -MTest::More /payload/check.pl", 300)


def jits(debian):
    """Programs that write code and run it."""
    node = debian.check("node /payload/check.js", 600)
    lua = debian.check("luajit /payload/check.lua", 300)
    assert debian.check("luajit -joff /payload/check.lua", 600) == lua
    assert debian.check("node --jitless --no-expose-wasm /payload/check.js", 900) == node
    debian.check("cd /tmp && gcc -O2 -pthread -o smc /payload/smc.c && ./smc", 300)


def processes(debian):
    """Forks, threads, futexes, signals, protections, wild branches, in small programs that check themselves."""
    for name in ("forks", "threads", "faults", "addresses"):
        debian.check(f"cd /tmp && gcc -O2 -Wall -pthread -o {name} /payload/{name}.c -lm && ./{name}", 400)
    if has_avx512(debian):
        debian.check("cd /tmp && gcc -nostdlib -static -o fresh /payload/fresh_vectors.S && gcc -O2 -o vectors /payload/vectors.c && "
                     "./vectors /tmp/fresh", 300)
    debian.check("bash -c 'for i in $(seq 300); do (exit $((i % 7))) & done; wait'", 300)
    debian.check("for i in $(seq 200); do /bin/true; done", 200)
    output = debian.check("cd /tmp && gcc -g -o compute /payload/compute.c -lm && gdb -q -batch -ex 'break checksum' -ex run -ex "
                          "'watch calls' -ex continue -ex 'stepi 50' -ex 'info registers rip' -ex 'delete' -ex continue ./compute",
                          400)
    assert "Breakpoint 1, checksum" in output and "atchpoint 2: calls" in output and "exited normally" in output, output


def stress(debian):
    """stress-ng checks its own results (--verify) with each method in turn."""
    runs = ["--cpu 2 --cpu-method all --cpu-ops 300", "--vm 2 --vm-bytes 64M --vm-method all --vm-ops 30000",
            "--matrix 2 --matrix-method all --matrix-ops 200", "--memcpy 1 --memcpy-ops 60", "--syscall 1 --timeout 20",
            "--fork 2 --fork-ops 1500", "--pthread 2 --pthread-ops 2000", "--futex 2 --futex-ops 8000",
            "--mutex 2 --mutex-ops 30000", "--sigq 1 --sigq-ops 8000", "--sigsegv 1 --sigsegv-ops 3000",
            "--mmap 1 --mmap-bytes 32M --mmap-ops 60", "--mprotect 2 --mprotect-ops 30000", "--switch 2 --switch-ops 30000",
            "--memrate 1 --memrate-bytes 32M --memrate-ops 4", "--atomic 2 --atomic-ops 5000", "--vecmath 2 --vecmath-ops 500",
            "--hdd 1 --hdd-bytes 32M --hdd-ops 300", "--timer 1 --timer-ops 3000", "--str 1 --str-ops 500", "--qsort 1 --qsort-ops 10",
            "--tree 1 --tree-ops 20", "--longjmp 1 --longjmp-ops 20000", "--clone 1 --clone-ops 500", "--madvise 1 --madvise-ops 200"]
    for options in runs:
        limit = "" if "--timeout" in options else "--timeout 90"
        status, output = debian.run(f"cd /tmp && stress-ng --verify {limit} {options}", 240)
        assert status == 0, f"stress-ng {options}: status {status}\n{output[-3000:]}"
    faults = debian.run(r"dmesg | grep -E 'BUG:|Oops|lockup|rcu.*stall|unchecked MSR'", 30)[1]
    assert faults == "", faults


GROUPS = {f.__name__: f for f in (file_system, compiler, openssl, python, perl, jits, processes, stress)}


def run():
    """All groups in one guest."""
    with Debian(image=paths.DEBIAN_TEST, payload=GUEST_SOURCES, memory="1500M") as debian:
        tests = [functools.partial(GROUPS[name], debian) for name in sys.argv[1:] or GROUPS]
        for test in tests:
            functools.update_wrapper(test, test.func)
        main(*tests)


run()
