#!/usr/bin/env python3
"""Runs an FMF tree with atex and prints what that cost, as JSON.

    atex_run.py MACHINES TREE DIRECTORY [ADDRESS:PORT KEY]...

Without addresses the machines are local, else SSH servers. Figures are per test: `test_ms` from the first test's start to the
last one's result, `cpu_ms` of this process alone; `peak_mib` is the most memory it had.
"""

import itertools
import json
import os
import resource
import shutil
import sys
import threading
import time

from atex.aggregator.jsonl import JSONLinesAggregator
from atex.connection.local import LocalConnection
from atex.connection.ssh import ManagedSSHConnection
from atex.executor.fmf import FMFExecutor, discover
from atex.orchestrator.adhoc import AdHocOrchestrator
from atex.provisioner.anyconn import AnyConnectionProvisioner

MACHINES, TREE, DIRECTORY = int(sys.argv[1]), sys.argv[2], sys.argv[3]
SERVERS = [(address, key) for address, key in zip(sys.argv[4::2], sys.argv[5::2])]


class Server(ManagedSSHConnection):
    """A connection to the next of the servers, in turns."""

    number = itertools.count()

    def __init__(self):
        address, key = SERVERS[next(self.number) % len(SERVERS)]
        host, port = address.rsplit(":", 1)
        super().__init__({"Hostname": host, "Port": int(port), "User": "root", "IdentityFile": key})


class Span:
    """When the first test began and the last result came."""

    def __init__(self):
        self.lock, self.first, self.last, self.results = threading.Lock(), None, None, 0

    def begins(self):
        with self.lock:
            self.first = self.first or time.monotonic()

    def ended(self):
        with self.lock:
            self.last = time.monotonic()
            self.results += 1


SPAN = Span()


class Executor(FMFExecutor):
    def run_test(self, *args, **kwargs):
        SPAN.begins()
        return super().run_test(*args, **kwargs)


class Aggregator(JSONLinesAggregator):
    def ingest(self, *args, **kwargs):
        result = super().ingest(*args, **kwargs)
        SPAN.ended()
        return result


def run():
    tests = discover(TREE)
    executors = []

    def make(connection):
        executor = Executor(connection, fmf_tests=tests)
        executors.append(executor)
        return executor

    results, files = os.path.join(DIRECTORY, "results.jsonl"), os.path.join(DIRECTORY, "files")
    provisioner = AnyConnectionProvisioner(Server if SERVERS else LocalConnection, max_remotes=MACHINES)
    with provisioner, Aggregator(results, files) as aggregator:
        with AdHocOrchestrator("platform", list(tests.data), [provisioner], make, aggregator) as orchestrator:
            orchestrator.serve_forever()
    # On local machines it leaves these behind.
    for executor in executors:
        if not SERVERS and executor.work_dir:
            shutil.rmtree(executor.work_dir, ignore_errors=True)


def main():
    run()
    used = resource.getrusage(resource.RUSAGE_SELF)
    count = SPAN.results
    print(json.dumps({
        "tests": count,
        "test_ms": 1000 * (SPAN.last - SPAN.first) / count,
        "cpu_ms": 1000 * (used.ru_utime + used.ru_stime) / count,
        "peak_mib": used.ru_maxrss / 1024,
    }))


main()
