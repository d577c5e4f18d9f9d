"""Run a planned sweep on Dask distributed: one task for each shard.

    pip install dask distributed
    lacuna-sim sweep plan sim/sweeps/mixim-fig8.toml --out sweep
    python sim/cluster/dask_sweep.py sweep --shards 32 [--scheduler tcp://HOST:8786] [--workers 2]
    lacuna-sim sweep merge sweep

Without --scheduler the workers are processes of this machine. The folder of the sweep must be
the same on all workers. A worker that dies costs nothing but time: its shards run again elsewhere, and
results that are there are kept. `--kill-one` kills a worker on purpose while shards run.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys


def shard(program, folder, index, count):
    subprocess.run(
        [program, "sweep", "shard", folder, "--index", str(index), "--count", str(count),
         "--threads", "1", "--quiet"],
        check=True,
    )
    return index


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", help="folder of the sweep, with its plan.json")
    arguments.add_argument("--shards", type=int, default=32)
    arguments.add_argument("--workers", type=int, default=os.cpu_count())
    arguments.add_argument("--scheduler", help="address of a running scheduler")
    arguments.add_argument("--program", default=shutil.which("lacuna-sim") or "lacuna-sim")
    arguments.add_argument("--kill-one", action="store_true", help="kill a local worker half way")
    options = arguments.parse_args()
    folder = os.path.abspath(options.folder)
    if not os.path.exists(os.path.join(folder, "plan.json")):
        sys.exit(f"{folder} has no plan.json; make it with: lacuna-sim sweep plan")

    from distributed import Client, LocalCluster, as_completed

    cluster = None
    if options.scheduler:
        client = Client(options.scheduler)
    else:
        cluster = LocalCluster(
            host="127.0.0.1", n_workers=options.workers, threads_per_worker=1, dashboard_address=None
        )
        client = Client(cluster)
    try:
        tasks = [
            client.submit(shard, options.program, folder, index, options.shards, pure=False, retries=3)
            for index in range(options.shards)
        ]
        done = 0
        for _task in as_completed(tasks):
            done += 1
            if options.kill_one and cluster is not None and done == max(1, options.shards // 4):
                victim = client.run(os.getpid)
                os.kill(next(iter(victim.values())), signal.SIGKILL)
                print("killed a worker", file=sys.stderr)
        for task in tasks:
            task.result()
        print(f"{done} shards done")
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


if __name__ == "__main__":
    main()
