# SPDX-License-Identifier: Apache-2.0
"""The time stamp counter of a machine that is saved and restored, as a program in an executor reads it."""

import json
import pathlib
import re
import subprocess
import tempfile
import time

from kit.case import main
from kit.machine import Machine, Spec

from state_test import Restored, with_script

SOURCES = pathlib.Path(__file__).resolve().parent / "guest"


def time_stamps_go_on():
    """A program that computes reads its time stamp counter in an executor, where it is not the host's after a restore: it never goes
    back, and keeps its rate by the guest's clock."""
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        program, state = pathlib.Path(folder) / "tsc", pathlib.Path(folder) / "state"
        subprocess.run(["gcc", "-O2", "-static", "-o", program, SOURCES / "tsc.c"], check=True)
        initrd = with_script(folder, "exec /lodge/tsc\n", [("lodge/tsc", 0o755, program.read_bytes())])

        def goes_on(machine, in_executor):
            """Some rounds; as many as it takes until an executor has run (a restored machine's memory is loaded first)."""
            for rounds in range(1, 200):
                machine.console.wait_for(r"^tsc round \d+ agrees|WRONG", 120)
                assert "WRONG" not in machine.console.text, re.search("WRONG.*", machine.console.text).group()
                counters = json.loads(machine.lodge("stats", "--json", machine.name))["counters"]
                stops = counters.get("vcpu0.executor_stops", 0)
                if rounds >= 4 and (stops > 100 or not in_executor):
                    print(f"   {rounds} rounds, {stops} stops of executors")
                    return stops > 100
            raise AssertionError("no executor ran the program")

        # With all programs in executors, where the host can.
        spec = Spec(initrd=initrd, append="console=ttyS0 quiet", memory="128M", engine="translate",
                    options=("--trace", "executors,executors-native"))
        with Machine(spec) as machine:
            goes_on(machine, False)
            in_executor = goes_on(machine, False)
            machine.lodge("save", machine.name, str(state), timeout=120)
            assert machine.wait_end(30) == 0, machine.errors
        time.sleep(2)
        with Restored(state) as machine:
            goes_on(machine, in_executor)


main(time_stamps_go_on)
