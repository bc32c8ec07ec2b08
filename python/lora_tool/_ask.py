"""Asks the process that tunes for the score of a candidate, and prints it: what ``lora-tool tune --score`` runs."""

import os
import sys
from multiprocessing.connection import Client


def main() -> None:
    """Sends the candidate's path, prints the number that comes back."""
    port, key = os.environ["LORA_TOOL_SCORER"].split(":")
    with Client(("127.0.0.1", int(port)), authkey=bytes.fromhex(key)) as scorer:
        scorer.send(os.path.abspath(sys.argv[1]))
        score, error = scorer.recv()
    if error:
        raise SystemExit(error)
    print(score)


if __name__ == "__main__":
    main()
