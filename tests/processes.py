"""Run a command in two processes on the CPU, as `accelerate launch` starts them."""

from __future__ import annotations

import os
import subprocess
import sys

# --multi_gpu is accelerate's word for "several processes on this machine"; its --cpu would ask for MPI.
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--num_processes",
          "2", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]


def in_two_processes(*arguments: str) -> subprocess.CompletedProcess[str]:
    """arguments: a script, or -m and a module, and what it is given."""
    return subprocess.run([*LAUNCH, *arguments], capture_output=True, text=True, timeout=300, check=False,
                          env=os.environ | {"ACCELERATE_USE_CPU": "true"})
