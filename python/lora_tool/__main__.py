"""``python -m lora_tool`` is the ``lora-tool`` command."""

import subprocess
import sys

from ._call import find_binary


def main() -> int:
    """Runs the command with this program's arguments; its exit code."""
    with subprocess.Popen([find_binary(), *sys.argv[1:]]) as child:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                # A terminal sends the interrupt to both; the command ends by itself.
                continue


if __name__ == "__main__":
    sys.exit(main())
