# SPDX-License-Identifier: Apache-2.0
"""How a test script runs: its functions in turn, one line each; the process's status is ctest's verdict."""

import sys
import time
import traceback

SKIPPED = 77


class Skip(Exception):
    """Raised by a test that cannot run here; the text is the reason."""


def main(*tests):
    """Runs the functions; prints OK, FAIL or SKIP for each. Exits 1 if any failed, 77 if all were skipped."""
    failed = skipped = 0
    for test in tests:
        start = time.monotonic()
        name = getattr(test, "__name__", None) or test.func.__name__
        try:
            test()
            verdict = "OK  "
        except Skip as reason:
            skipped += 1
            print(f"SKIP: {name}: {reason}")
            continue
        except Exception as error:
            failed += 1
            verdict = "FAIL"
            if isinstance(error, AssertionError):
                where = traceback.extract_tb(error.__traceback__)
                print("".join(f"  {frame.filename}:{frame.lineno} {frame.line}\n" for frame in where[1:]) + f"  {error}")
                print("".join(f"  {note}\n" for note in getattr(error, "__notes__", [])), end="")
            else:
                traceback.print_exc()
        print(f"{verdict} {name} ({time.monotonic() - start:.1f} s)", flush=True)
    sys.exit(1 if failed else SKIPPED if skipped == len(tests) else 0)
