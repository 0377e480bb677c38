#!/usr/bin/env python3
"""The cost of beats: what 10 programs of 1,000 threads that beat each second through the page cost the daemon, and
what one beat costs a program in C and in Go.

usage: beat.py [-n SECONDS] [-s SAMPLES] [-o OUT.json]

An eleventh program stops one of its two threads; that the daemon tells of it is the proof that the beats are judged
while they are measured.
"""
import argparse, json, os, shutil, struct, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from common import *

BIN = os.environ["BENCH_BIN"]
PROGRAMS, THREADS = 10, 1000

a = argparse.ArgumentParser()
a.add_argument("-n", type=float, default=10)
a.add_argument("-s", type=int, default=5)
a.add_argument("-o")
a = a.parse_args()


def page(path):
    """A beat page as docs/beat-page.md describes it, which nobody reads."""
    with open(path, "wb") as f:
        f.write(struct.pack("<8sIIII", b"GEMELBP", 1, 64, 16384, 0))
        f.truncate(64 + 16384 * 64)


def costs(program, path):
    out = subprocess.run([program], env={"GEMEL_BEAT_PAGE": path, "GEMEL_START": "1"}, check=True, capture_output=True, text=True)
    return [float(x) for x in out.stdout.split()]


def manifest(path):
    with open(path, "w") as f:
        f.write("processes:\n")
        for i in range(PROGRAMS):
            f.write(f"  p{i}:\n    command: [{BIN}/threads, '{THREADS}', '0']\n"
                    "    watchdog: {interval: 1s, retries: 3, by: page}\n    ramp-up: 5s\n")
        f.write(f"  hangs:\n    command: [{BIN}/threads, '2', '4']\n    recovery: none\n"
                "    watchdog: {interval: 1s, retries: 3, by: page}\n    ramp-up: 5s\n")


class Daemon:
    def __init__(self, d):
        self.d = d
        manifest(f"{d}/gemel.yaml")
        self.where = ["--data-dir", f"{d}/data", "--run-dir", f"{d}/run"]
        self.log = open(f"{d}/log", "wb")
        self.p = subprocess.Popen([f"{BIN}/gemel", "run", *self.where, f"{d}/gemel.yaml"], stdout=self.log, stderr=self.log,
                                  stdin=subprocess.DEVNULL)

    def tool(self, *args):
        r = subprocess.run([f"{BIN}/gemel", *args, *self.where], capture_output=True, text=True)
        return r.stdout

    def wait(self, what, done, limit=60):
        end = time.time() + limit
        while time.time() < end:
            if self.p.poll() is not None:
                sys.exit(f"the daemon ended:\n{open(f'{self.d}/log').read()}")
            if done():
                return
            time.sleep(0.5)
        sys.exit(f"bench-beat: {what} did not come within {limit} s")

    def up(self):
        ready = 0
        for i in range(PROGRAMS):
            ready += "ready" in self.tool("logs", f"p{i}")
        return ready == PROGRAMS

    def halves(self):
        return [self.p.pid] + [p for p in children(self.p.pid) if b"monitor" in open(f"/proc/{p}/cmdline", "rb").read()]

    def used(self):
        return sum(cpu_exact_s(p) for p in self.halves())

    def close(self):
        if self.p.poll() is None:
            self.p.terminate()
        try:
            self.p.wait(60)
        except subprocess.TimeoutExpired:
            stop(self.p)


d = tempfile.mkdtemp(prefix="bench-beat-")
res = {}
try:
    page(f"{d}/page")
    for name, program in (("C", f"{BIN}/beatcost"), ("Go", f"{BIN}/beatcost-go")):
        res[f"ns_{name}"] = costs(program, f"{d}/page")
        print(show(f"one beat in {name}", stats(res[f"ns_{name}"]), "ns"), flush=True)
    g = Daemon(d)
    try:
        g.wait("a place for each thread", g.up)
        g.wait("the fault of the hung thread", lambda: "hangs" in g.tool("alarms"))
        print("the thread that stopped was noticed:", next(x for x in g.tool("alarms").splitlines() if "hangs" in x).strip(), flush=True)
        time.sleep(5)
        before, res["cpu_pct"] = g.halves(), []
        if len(before) != 2:
            sys.exit("bench-beat: not two halves of the daemon: " + str(before))
        for _ in range(a.s):
            c0, t0 = g.used(), now()
            time.sleep(a.n)
            res["cpu_pct"].append(100 * (g.used() - c0) / ((now() - t0) / 1e9))
        if g.halves() != before:
            sys.exit("bench-beat: a half of the daemon was replaced while it was measured")
        events = [x for x in g.tool("alarms").splitlines() if " p" in x]
        if events:
            sys.exit("bench-beat: a beating program was found at fault:\n" + "\n".join(events))
        rss, pss = zip(*(mem_kib(p) for p in g.halves()))
        res["pss_MiB"] = sum(pss) / 1024
        print(show(f"{PROGRAMS} x {THREADS} threads, daemon", stats(res["cpu_pct"]), f"% of a core; PSS {res['pss_MiB']:.1f} MiB"))
    finally:
        g.close()
finally:
    shutil.rmtree(d, ignore_errors=True)
    if a.o:
        save(a.o, res)
ok = verdict("bench-beat", f"{PROGRAMS * THREADS} beating threads, CPU of both halves, median of {a.s} x {a.n:g} s",
             stats(res["cpu_pct"])["median"], "% of a core", "<", 1)
for name in ("C", "Go"):
    ok &= verdict("bench-beat", f"one beat in {name}, median", stats(res[f"ns_{name}"])["median"], "ns", "<", 10)
sys.exit(0 if ok else 1)
