"""Slurm on this machine alone: a controller and one node, started for a test and stopped after it."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

CONFIG = """\
ClusterName=here
SlurmctldHost={host}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
CredType=cred/munge
SlurmctldPort={port}
SlurmdPort={node_port}
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MessageTimeout=30
MpiDefault=none
NodeName={host} CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")


def free_port():
    """A port that nothing listens on now."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


class Cluster:
    """The running cluster."""

    def __init__(self, place):
        self.place = place
        self.env = os.environ | {"SLURM_CONF": str(place / "slurm.conf")}

    def call(self, *arguments):
        """Runs one of Slurm's commands and returns what it printed."""
        done = subprocess.run([*map(str, arguments)], env=self.env, capture_output=True, text=True, check=False,
                              cwd=self.place)
        if done.returncode != 0:
            raise RuntimeError(f"{arguments[0]}: {done.stderr}{self.log('slurmctld')}{self.log('slurmd')}")
        return done.stdout

    def log(self, program):
        """The last words of a daemon."""
        file = self.place / f"{program}.log"
        return file.read_text()[-2000:] if file.exists() else ""

    def submit(self, script, plan, tasks, binary):
        """Submits an array of `tasks` with the binary's folder first on PATH, and returns its number."""
        path = f"{Path(binary).parent}:{os.environ['PATH']}"
        return self.call("sbatch", "--parsable", f"--array=1-{tasks}", "--cpus-per-task=1", "--mem=0",
                         f"--export=ALL,PATH={path}", script, plan).strip()

    def states(self, job):
        """Task -> state, of all tasks the controller remembers."""
        found = {}
        for block in self.call("scontrol", "show", "job", job, "--oneliner").splitlines():
            fields = dict(field.split("=", 1) for field in block.split() if "=" in field)
            found[fields.get("ArrayTaskId", fields["JobId"])] = fields["JobState"]
        return found

    def requeue_one(self, job):
        """Kills a task while it runs and queues it again; whether one was caught."""
        for _ in range(600):
            for task, state in self.states(job).items():
                if state == "RUNNING" and task.isdigit():
                    self.call("scontrol", "requeue", f"{job}_{task}")
                    # It is held back for two minutes otherwise.
                    with contextlib.suppress(RuntimeError):
                        self.call("scontrol", "update", f"JobId={job}_{task}", "StartTime=now")
                    return True
            time.sleep(0.05)
        return False

    def wait(self, job, seconds=600):
        """The states of all tasks, when all have ended."""
        for _ in range(seconds * 2):
            states = self.states(job)
            if all(state in ENDED for state in states.values()):
                return list(states.values())
            time.sleep(0.5)
        raise RuntimeError(f"the array did not end: {states}")


@contextlib.contextmanager
def started(place):
    """Munge, a controller and a node, which end with the block."""
    for program in ("munged", "slurmctld", "slurmd"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            sys.exit(f"skipped: there is no {program} (Debian: apt-get install slurmctld slurmd munge)")
    place.mkdir(parents=True)
    for folder in ("state", "spool"):
        (place / folder).mkdir()
    key = place / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host = socket.gethostname().split(".")[0]
    (place / "slurm.conf").write_text(CONFIG.format(
        host=host, user=os.environ.get("USER") or "root", place=place, port=free_port(), node_port=free_port(),
        cpus=os.cpu_count()))
    path = f"{os.environ['PATH']}:/usr/sbin"
    cluster = Cluster(place)
    cluster.env["PATH"] = path
    daemons = [
        ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={place}/munge.socket",
         f"--pid-file={place}/munge.pid", f"--log-file={place}/munge.log", f"--seed-file={place}/munge.seed"],
        ["slurmctld", "-D"],
        ["slurmd", "-D", "-N", host],
    ]
    running = []
    try:
        for daemon in daemons:
            running.append(subprocess.Popen(daemon, env=cluster.env, stdout=subprocess.DEVNULL,
                                            stderr=subprocess.DEVNULL, cwd=place))
            time.sleep(1)
        for _ in range(60):
            with contextlib.suppress(RuntimeError):
                if "idle" in cluster.call("sinfo", "--noheader", "--format=%T"):
                    break
            time.sleep(0.5)
        else:
            raise RuntimeError(f"no node came up\n{cluster.log('slurmctld')}{cluster.log('slurmd')}")
        yield cluster
    finally:
        for daemon in reversed(running):
            daemon.terminate()
        for daemon in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
