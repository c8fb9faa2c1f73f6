"""Kills a loaded server again and again and looks whether anything that was acknowledged is lost.

    python bench/kills.py [--kills 200] [--seed 1]

Every round: writers of objects, items, vectors and messages, asynchronous and synchronous invocations and a queue with
an event source mapping, all at once; SIGKILL at a random moment; a restart on the same state; every name read back.
Prints counts; exit code 1 and the finding when something is lost, undone or left running.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.crashing import Crashes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        crashes = Crashes(Path(directory) / "state", arguments.seed)
        try:
            while crashes.kills < arguments.kills:
                crashes.kill_once()
                if crashes.kills % 10 == 0:
                    print(f"{crashes.kills} kills, {time.monotonic() - began:.0f} s", file=sys.stderr)
            crashes.stop()
        except AssertionError as error:
            crashes.server.stop()
            print(f"after {crashes.kills} kills (seed {arguments.seed}): {error}")
            return 1
    print(f"kills {crashes.kills}, seed {arguments.seed}, {time.monotonic() - began:.0f} s; nothing lost")
    print(f"worker processes ended with their server: {crashes.workers_ended}")
    print("load       acknowledged   found equal after a restart")
    for name, count in crashes.acknowledged.items():
        print(f"{name:10} {count:12}   {crashes.found[name]:12}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
