#!/usr/bin/env python3
"""What Gemel costs on a node of a cluster of three in which nothing happens.

usage: idle.py [-t SECONDS] [-c gemel-PROFILE] -o OUT.json
"""
import argparse
from cluster import *


def main():
    a = argparse.ArgumentParser()
    a.add_argument("-t", type=float, default=60)
    a.add_argument("-c", default="gemel-normal")
    a.add_argument("-o", required=True)
    a = a.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    c = Cluster(a.c, ("a", "b", "c"))
    try:
        c.up()
        end = now() + 90 * NS
        while why := c.lacks():
            if now() > end:
                raise SystemExit(f"idle: the cluster is not well: {why}")
            time.sleep(0.5)
        time.sleep(float(os.environ.get("IDLE_SETTLE", 15)))  # what a start leaves to do
        parts = {n: c.parts(n) for n in c.nodes}
        for n, p in parts.items():
            if not {"monitor", "shadow", "store"} <= set(p):  # the guard comes with the first group
                raise SystemExit(f"idle: on {n} there is only {sorted(p)}")
        before = {p: cpu_exact_s(p) for x in parts.values() for p in x.values()}
        t = now()
        time.sleep(a.t)
        took = (now() - t) / NS
        out = {n: {k: {"cpu_pct": 100 * (cpu_exact_s(p) - before[p]) / took, "pss_MiB": mem_kib(p)[1] / 1024} for k, p in x.items()}
               for n, x in parts.items()}
        s = c.status("a") or {}
        active = next((g["node"] for g in s.get("groups", []) if g["name"] == "web"), "?")
        if {n: c.parts(n) for n in c.nodes} != parts:
            raise SystemExit("idle: something was replaced meanwhile")
        save(a.o, {"contender": a.c, "seconds": took, "nodes": out, "active": active, "load": os.getloadavg()[0]})
    finally:
        c.down()


if __name__ == "__main__":
    main()
