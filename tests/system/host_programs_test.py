# SPDX-License-Identifier: Apache-2.0
"""Static programs, compiled on the host, give in the guest what the host's own processor gives."""

import pathlib
import re
import subprocess
import tempfile

from kit.case import main
from kit.guest import run_busybox

SOURCES = pathlib.Path(__file__).resolve().parent / "guest"
SECONDS = 240


def compiled(source, *flags):
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        program = pathlib.Path(folder) / "program"
        subprocess.run(["gcc", "-O2", "-static", *flags, "-o", program, SOURCES / source, "-lm"], check=True)
        return program.read_bytes()


def in_guest(program, **options):
    status, output = run_busybox("/lodge/program", SECONDS, files=[("program", program)], memory="256M", **options)
    assert status == 0, f"status {status}: {output}"
    return output


def natively(program):
    with tempfile.NamedTemporaryFile(prefix="lodge-test-", delete=False) as file:
        path = pathlib.Path(file.name)
        file.write(program)
    try:
        path.chmod(0o755)
        return subprocess.run([path], check=True, capture_output=True, text=True, timeout=60).stdout.strip()
    finally:
        path.unlink()


def mathematics():
    """All of libm, in all rounding modes, with exception flags."""
    program = compiled("libm.c")
    expected, seen = natively(program).splitlines(), in_guest(program).splitlines()
    differing = [line for line, other in zip(expected, seen) if line != other]
    assert len(expected) > 60 and len(seen) == len(expected) and not differing, differing


def legacy_calls():
    """The vsyscall page, INT 80 from 64-bit code; x32 is absent."""
    assert in_guest(compiled("legacy_calls.c"), append="console=ttyS0 quiet vsyscall=xonly") == "legacy calls work"


def code32():
    """A 32-bit process on the 64-bit kernel."""
    program = compiled("code32.c", "-m32", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-pie", "-no-pie", "-msse2")
    assert in_guest(program) == "32-bit code works"
    assert in_guest(program, cpus=2, options=("--cpu", "x86-64-v2")) == "32-bit code works"


NATIVE = ("--trace", "executors,executors-native")


def as_it_is():
    """Faults, traps, flags, segment registers and changing code of user programs."""
    program = compiled("as_it_is.c")
    expected = natively(program)
    assert expected.count("no signal") == 0 and len(expected.splitlines()) > 50
    for options in ((), NATIVE):
        seen = in_guest(program, options=options).splitlines()
        differing = [pair for pair in zip(expected.splitlines(), seen) if pair[0] != pair[1]]
        assert len(seen) == len(expected.splitlines()) and not differing, (options, differing, len(seen))


def natively_in_executors():
    """The others again, as code that the host's processor runs as it is."""
    program = compiled("libm.c")
    assert in_guest(program, options=NATIVE) == natively(program)
    assert in_guest(compiled("legacy_calls.c"), append="console=ttyS0 quiet vsyscall=xonly", options=NATIVE) == "legacy calls work"
    program = compiled("code32.c", "-m32", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-pie", "-no-pie", "-msse2")
    assert in_guest(program, cpus=2, options=NATIVE) == "32-bit code works"


def memory_is_filled():
    """A program that computes and fills new memory in turn: it is in executors and out of them."""
    program, seen = compiled("fills.c"), {}
    output = in_guest(program, options=("--stats",), at_end=lambda machine: seen.update(errors=machine.errors))
    assert output == natively(program)
    print("  ", *re.findall(r"executor_(?:promotions|demotions|lingers) +\d+", seen["errors"]))


def read_before_written():
    """New memory, copies and what comes between the page fault for reading and that for writing."""
    program, seen = compiled("reads_first.c"), {}
    expected = natively(program)
    assert "refused: 64, where it was: 64" in expected and "calls: 64" in expected
    for options in (NATIVE, ("--trace", "executors")):
        for attempt in range(3):  # where all executors were in use there are none
            output = in_guest(program, options=(*options, "--stats"), at_end=lambda machine: seen.update(errors=machine.errors))
            assert output == expected, (options, output)
            counts = dict(re.findall(r"executor(s_started|_fault_pairs) +(\d+)", seen["errors"]))
            print("  ", counts)
            if int(counts["_fault_pairs"]) > 100:  # of new pages some 130, of the file's and the two at once the rest
                break
        assert int(counts["_fault_pairs"]) > 100, (options, seen["errors"])


main(mathematics, legacy_calls, code32, as_it_is, natively_in_executors, memory_is_filled, read_before_written)
