#!/usr/bin/env python3
"""Restart latency: kill -9 of a supervised process to the first instruction of
its successor.

usage: restart.py [-n ROUNDS] [-k SERVICES] [-u UPTIME_S] [-c] [-o OUT.json] [CONTENDER ...]

Every contender runs at once with K idle services. Each round kills every service
of every contender once, in random order, so that they are interleaved. UPTIME_S
is how long an instance lives at least before it is killed. With -c the successor
is killed too, 50 ms after its start, and that second restart is reported as well:
it shows each contender's throttle for quick crashes.

A contender that took longer than SLOW the first time only waits, by design: from
then on its services are killed together at the beginning of the round, and the
others' turn comes when they are back.
"""
import argparse, random
from harness import *

SLOW = 300.0  # ms
GIVE_UP = 30  # s

a = argparse.ArgumentParser()
a.add_argument("-n", type=int, default=30)
a.add_argument("-k", type=int, default=4)
a.add_argument("-u", type=float, default=1.3)
a.add_argument("-o")
a.add_argument("-c", action="store_true")
a.add_argument("names", nargs="*")
a = a.parse_args()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


class Lost(Exception):
    pass


def begin(name):
    c = Contender(name, a.k, log=logof(name))
    got = c.collect(a.k, 30)
    if len(got) < a.k:
        print(f"{name}: did not start, left out", flush=True)
        c.close()
        return None
    c.at = dict(got)  # index: (start, pid)
    c.lat, c.quick, c.slow = [], [], False
    return c


def drain(c):
    while True:
        r = c.recv(0)
        if not r:
            return
        c.at[r[0]] = (r[1], r[2])


def kill(c, services):
    """Kills the services at once; {index: ms to the successor}."""
    drain(c)
    t0 = {}
    for i in services:
        t0[i] = now()
        os.kill(c.at[i][1], signal.SIGKILL)
    out, end = {}, now() + GIVE_UP * NS
    while len(out) < len(t0):
        r = c.recv((end - now()) / NS)
        if not r:
            if now() >= end:
                raise Lost
            continue
        c.at[r[0]] = (r[1], r[2])
        if r[0] in t0 and r[0] not in out:
            out[r[0]] = (r[1] - t0[r[0]]) / 1e6
    return out


def turn(c, services):
    drain(c)
    youngest = max(c.at[i][0] for i in services)
    time.sleep(max(0.0, a.u - (now() - youngest) / NS) + random.random() * 0.02)
    got = kill(c, services)
    c.lat += got.values()
    if a.c:
        time.sleep(0.05)
        got = kill(c, services)
        c.quick += got.values()
    c.slow = c.slow or max(got.values()) > SLOW and min(got.values()) > SLOW


cs = {n: c for n in (a.names or contenders()) if (c := begin(n))}
time.sleep(3)
try:
    for k in range(a.n):
        turns = [(n, list(range(a.k))) for n, c in cs.items() if c.slow]
        quick = [(n, [i]) for n, c in cs.items() if not c.slow for i in range(a.k)]
        random.shuffle(quick)
        for name, services in turns + quick:
            if name not in cs:
                continue
            try:
                turn(cs[name], services)
            except (Lost, ProcessLookupError):
                print(f"{name}: no restart within {GIVE_UP} s in round {k + 1}, left out", flush=True)
                cs.pop(name).close()
finally:
    out = {}
    for name, c in cs.items():
        out[name] = dict(stats(c.lat), samples=c.lat)
        if c.quick:
            out[name + " (quick crash)"] = dict(stats(c.quick), samples=c.quick)
        c.close()
    for name, s in sorted(out.items(), key=lambda x: x[1].get("median", 1e9)):
        print(show(name, s), flush=True)
    if a.o:
        save(a.o, {"uptime_s": a.u, "unit": "ms", "results": out})
