# SPDX-License-Identifier: Apache-2.0
"""Looking inside the translator: inside_test.py [lockstep]."""

import json
import pathlib
import re
import sys

from kit.case import main
from kit.guest import run_busybox
from kit.machine import Machine, Spec

SUM = "sum 67d4ff71d43921d5739f387da09746f405e425b07d727e4c69d029461d1f051f -"


def code_can_be_looked_at():
    """perf's map names translated code, and a translation can be shown with its bytes."""
    with Machine(Spec(engine="translate", append="console=ttyS0 rdinit=/bin/sh", options=("--trace", "perf-map"))) as machine:
        machine.console.wait_for("/ # ", 120)
        perf_map = pathlib.Path(f"/tmp/perf-{machine.process.pid}.map")
        try:
            lines = perf_map.read_text().rpartition("\n")[0].splitlines()   # the last line may be half written
        finally:
            perf_map.unlink()
        names = [re.fullmatch(r"([0-9a-f]+) ([0-9a-f]+) guest(?:64|32)-(kernel|user):([0-9a-f]+)(\+cold)?", line) for line in lines]
        assert len(names) > 1000 and all(names), f"{len(lines)} lines; {[line for line, n in zip(lines, names) if not n][:3]}"
        assert {name[3] for name in names} == {"kernel", "user"}
        address = names[-1][4]
        shown = machine.lodge("stats", machine.name, "--dump", "0x" + address)
        assert f"translation of {address}: " in shown and f"\nguest {address}: " in shown, shown
        assert re.search(r"\n  hot [0-9a-f]+ instruction,entry: [0-9a-f]+", shown), shown


def times_are_told():
    """Samples of where the time goes add up to no more than the process used, and to most of it while the guest computes."""
    with Machine(Spec(engine="translate", append="console=ttyS0 rdinit=/bin/sh")) as machine:
        machine.console.wait_for("/ # ", 120)
        before = counters_of(machine)
        machine.console.send("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo coun\\ted\n")
        machine.console.wait_for("counted\n", 120)
        after = counters_of(machine)
        times = {name: after[name] - before[name] for name in after if name.startswith("vcpu0.time_")}
        used = sum(after[name] - before[name] for name in ("process.userMicroseconds", "process.systemMicroseconds",
                                                           "vcpu0.executor_microseconds") if name in after)
        assert set(times) == {f"vcpu0.time_{what}_microseconds" for what in
                              ("user", "kernel", "translator", "interpreter", "devices", "other")}, times
        assert 0.5 * used < sum(times.values()) < used + 100_000, (times, used)
        assert times["vcpu0.time_user_microseconds"] > 0.5 * used, (times, used)
        assert after["vcpu0.time_kernel_microseconds"] > 0 and after["vcpu0.time_translator_microseconds"] > 0, after


def counters_of(machine):
    return json.loads(machine.lodge("stats", "--json", machine.name))["counters"]


def boot_in_lockstep():
    """The interpreter does again all that translated code does, and finds the same."""
    script = "echo sum $(seq 1 1000 | sha256sum)\n"
    with_counters = ("--trace", "lockstep", "--stats")
    seen = {}
    status, output = run_busybox(script, 1500, engine="translate", options=with_counters, memory="128M",
                                 at_end=lambda machine: seen.update(errors=machine.errors))
    assert status == 0 and output == SUM, output
    counters = dict(re.findall(r"lockstep_(\w+)\s+(\d+)", seen["errors"]))
    assert int(counters["checks"]) > 100_000 and int(counters["instructions"]) > 100_000_000, counters
    assert int(counters["divergences"]) == 0, seen["errors"]
    print(counters)


if sys.argv[1:] == ["lockstep"]:
    main(boot_in_lockstep)
else:
    main(code_can_be_looked_at, times_are_told)
