#!/usr/bin/env python3
"""Runs an FMF tree with atex and prints what that cost, as JSON.

    atex_run.py MACHINES TREE DIRECTORY [ADDRESS:PORT KEY]...

Without addresses the machines are local, else SSH servers. Figures are per test: `test_ms` from the first test's start to the
last one's result, `cpu_ms` of this process alone; `peak_mib` is the most memory it had.
"""

import json
import os
import resource
import shutil
import sys
import threading
import time

from atex.aggregator.jsonl import JSONLinesAggregator
from atex.connection.ssh import ManagedSSHConnection
from atex.executor.fmf import FMFExecutor, discover
from atex.orchestrator.adhoc import AdHocOrchestrator
from atex.provisioner import Remote
from atex.provisioner.local import LocalProvisioner

MACHINES, TREE, DIRECTORY = int(sys.argv[1]), sys.argv[2], sys.argv[3]
SERVERS = [(address, key) for address, key in zip(sys.argv[4::2], sys.argv[5::2])]


class SSHRemote(Remote, ManagedSSHConnection):
    """A connection to one of the servers, which the provisioner gets back."""

    def __init__(self, server, given_back):
        host, port = server[0].rsplit(":", 1)
        super().__init__({"Hostname": host, "Port": int(port), "User": "root", "IdentityFile": server[1]})
        self.server, self.given_back = server, given_back

    def release(self):
        if self.given_back:
            self.disconnect()
            self.given_back(self)
            self.given_back = None

    def __str__(self):
        return f"ssh {self.server[0]}"


class Provisioner(LocalProvisioner):
    """At most MACHINES at a time: local ones, or the servers."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.free = list(SERVERS)

    def get_remote(self, block=True):
        with self._lock:
            if not block and len(self._remotes) >= MACHINES:
                return None
            if SERVERS and (self._requested <= 0 or not self.free):
                return None
            if SERVERS:
                self._requested -= 1
                remote = SSHRemote(self.free.pop(), self.give_back)
                remote.connect()
                self._remotes.add(remote)
                return remote
        return super().get_remote(block=block)

    def give_back(self, remote):
        with self._lock:
            self._remotes.discard(remote)
            self.free.append(remote.server)


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
    with Provisioner() as provisioner, Aggregator(results, files) as aggregator:
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
