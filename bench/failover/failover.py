#!/usr/bin/env python3
"""Trials of failover: a fault on the active node, and what a client sees that asks each millisecond.

usage: failover.py [-n TRIALS] [-v VISITS] [-f FAULT[:TRIALS],...] [-s SEED] -o OUT.json CONTENDER[:TRIALS]...

The contenders take turns in random order, VISITS times; in each turn one has its cluster alone on the machine and gets its
share of each fault, in random order. What is measured is in README.md.
"""
import argparse, random
from cluster import *
from seen import MS, Seen

COMMON = ("kill", "cut", "freeze")
# What must move nothing, and for how many seconds.
BORNE = {"stall": 0, "loss": 5, "network": 3, "witness": 4, "standby": 4, "busy": float(os.environ.get("BUSY", 60))}
STALL = {"gemel-normal": 1.0, "gemel-fast": 0.2}
GEMEL = ("brain", "move", "monitor", "shadow", "store", "daemons", *BORNE)
HOLD = 1.0        # seconds for which a fault lasts on after the other node was seen to answer
CALM = {"pacemaker": 2.0}  # seconds of a well cluster before the next trial; else one
QUIET = {"gemel-normal": 2.2, "gemel-fast": 1.2}  # seconds after a fault that shall not be noticed: more than an authority lasts
PERIOD = {"gemel": 0.3}  # seconds in which a fault falls at random: more than the longest period of heartbeats; else one
BLINK = 10 * MS   # a client that asked nothing for longer paused


class Trials:
    def __init__(self, a):
        self.a, self.rand, self.done = a, random.Random(a.s), []
        self.began = time.time()

    def say(self, text):
        print(f"{time.time() - self.began:7.1f} {text}", flush=True)

    def run(self):
        plan = {}
        for word in self.a.name:
            name, _, n = word.partition(":")
            n = int(n or self.a.n)
            plan[name] = [[] for _ in range(self.a.v)]
            for kind, _, most in (f.partition(":") for f in self.a.f):
                if kind in COMMON + ("drop",) or name.startswith("gemel"):
                    for k in range(min(n, int(most or n))):
                        plan[name][k % self.a.v].append(kind)
        for v in range(self.a.v):
            order = [name for name in plan if plan[name][v]]
            self.rand.shuffle(order)
            for name in order:
                faults = plan[name][v]
                self.rand.shuffle(faults)
                self.turn(name, faults)

    def turn(self, name, faults):
        c, t = Cluster(name), now()
        try:
            c.up()
            self.say(f"{name}: up after {(now() - t) / NS:.1f} s, load {os.getloadavg()[0]:.2f}")
            if self.a.q and c.gemel:
                self.note(c, "quiet", Trial(c, self.rand, VIP, False).quiet(self.a.q))
            well = False  # at the end of the trial before
            for f in faults:
                t = Trial(c, self.rand, PLAIN if f == "move" else VIP, well)
                r = t.run(f)
                self.note(c, f, r)
                well = r.get("well", False)
                if t.broken:
                    self.say(f"{name}: the cluster is not well again; what was left of this turn is left out")
                    break
        except RuntimeError as e:
            self.say(str(e))
            self.done.append({"contender": name, "fault": "up", "error": str(e)})
        finally:
            c.down()

    def note(self, c, fault, r):
        r.update(contender=c.name, fault=fault, at=round(time.time() - self.began, 1), load=os.getloadavg()[0])
        self.done.append(r)
        text = f"{c.name} {fault}: "
        if "error" in r:
            text += r["error"]
        else:
            text += f"{r['from']} -> {r['to']}, outage {r['outage_ms']:.1f} ms, missed {r['missed']}, overlap {r['overlap_ms']:.1f} ms (address {r['address_ms']:.1f})"
            text += f", later {r['after_ms']:.1f} ms, well after {r['well_s']:.1f} s"
            if r["client_pause_ms"] > BLINK / MS:
                text += f" (THE CLIENT ITSELF PAUSED for {r['client_pause_ms']:.1f} ms)"
        self.say(text)
        self.save()

    def save(self):
        save(self.a.o, {"seed": self.a.s, "trials": self.done, "cpus": os.cpu_count(), "kernel": os.uname().release,
                        "hold_s": HOLD, "began": self.began})


class Trial:
    """One fault. The probe runs from before it until the cluster is well again."""

    def __init__(self, c, rand, vip, well):
        self.c, self.rand, self.vip, self.well, self.broken = c, rand, vip, well, False

    def probe(self):
        path = os.path.join(self.c.dir, "seen")
        words = [f"10.77.3.254@{self.c.prefix}-cl"] + [f"127.0.0.1@{self.c.prefix}-{n}" for n in self.c.nodes]
        p = subprocess.Popen([os.path.join(BIN, "fo-probe"), path, "400", self.vip, PORT, *words], stdin=subprocess.DEVNULL)
        for _ in range(1000):
            try:
                s = Seen(path, self.c.nodes, self.c.inode)
                if s.w[0] == 0x6F76656C696166:
                    return p, s
                s.close()
            except (OSError, ValueError):
                pass
            time.sleep(0.005)
        stop(p)
        raise RuntimeError("the client does not begin")

    def calm(self, seen, bound):
        """The active node, once the cluster is well and then it alone has answered for a while; None if that does not come."""
        end, well, at = now() + bound * NS, 0, 0
        while now() < end and not seen.full():
            if not well and self.c.ready():
                well, at = boot(), seen.rounds
            if well and boot() - well > CALM.get(self.c.kind, 1.0) * NS:
                x = seen.steady(seen.rounds - at)
                if x and self.c.ready():
                    return x
                well = 0
            time.sleep(0.05)
        return None

    def measured(self, do):
        p, seen = self.probe()
        try:
            return do(seen)
        finally:
            stop(p)
            seen.close()
            os.unlink(os.path.join(self.c.dir, "seen"))

    def quiet(self, seconds):
        def do(seen):
            x = self.calm(seen, 90)
            if not x:
                self.broken = True
                return {"error": "never well: " + self.lacks()}
            t0 = boot()
            time.sleep(seconds)
            return self.result(seen, x, t0, boot(), boot(), {})
        return self.measured(do)

    def run(self, fault):
        return self.measured(lambda seen: self.trial(fault, seen))

    def lacks(self):
        return self.c.lacks() if self.c.gemel else ""

    def trial(self, fault, seen):
        x, restless = self.begin(fault, seen)
        if not x:
            self.broken = True
            return {"error": "never well: " + self.lacks()}
        extra = dict(self.where(x), restless=restless)
        parts = self.c.parts(x) if self.c.gemel else {}
        starts = self.starts(x)
        gone = True
        if fault in ("kill", "brain", "apart"):
            t0, heal = self.c.kill(x), self.c.revive
        elif fault == "cut":
            t0, heal = self.c.cut(x), self.c.uncut
        elif fault == "drop":
            t0, heal = self.c.drop(x), self.c.undrop
        elif fault == "freeze":
            t0, heal = self.c.freeze(x), self.c.thaw
        elif fault == "move":
            t0, heal = boot(), lambda _: None
            r = self.c.tool(x, "move", "plain")
            extra["tool_ms"], extra["tool_exit"] = (boot() - t0) / MS, r.returncode
            if r.returncode:
                extra["refused"] = [self.c.status(n) for n in self.c.nodes]
        elif fault in BORNE:
            t0, heal, gone = boot(), self.bear(fault, x, parts), False
        else:
            t0, heal, gone = boot(), lambda _: None, False
            for k in ("monitor", "shadow", "store") if fault == "daemons" else (fault,):
                os.kill(parts[k], signal.SIGKILL)
        fault_ms = (boot() - t0) / MS
        moved = False
        if gone:
            end = now() + (1 if "refused" in extra else self.limit) * NS
            while now() < end and not moved:
                time.sleep(0.01)
                moved = seen.other(t0, x)
            time.sleep(HOLD)
        else:
            time.sleep(max(QUIET.get(self.c.name, 2.2), BORNE.get(fault, 0)))
        t1 = boot()
        heal(x)
        well = self.calm(seen, 120)
        self.broken = not well
        off = {x: self.c.alive} if fault in ("kill", "brain", "apart", "freeze") else {}
        r = self.result(seen, x, t0, t1, boot(), off)
        r.update(extra, fault_ms=fault_ms, moved=moved, well=bool(well))
        if not well:
            r["lacks"] = self.lacks()
        if not gone:
            r["starts"] = self.starts(x) - starts
        if self.c.gemel:
            r["events"] = self.events(t0, t1)
        if fault == "stall":
            r["named"] = any(e[1] == x and e[2] == "stalled" for e in r["events"])
        return r

    def bear(self, fault, x, parts):
        """Does what moves nothing, and returns how it is ended."""
        other, witness = next(n for n in self.c.nodes if n != x), self.c.witness[0]
        if fault == "stall":
            for p in parts.values():
                os.kill(p, signal.SIGSTOP)
            time.sleep(STALL[self.c.name])
            for p in parts.values():
                os.kill(p, signal.SIGCONT)
            return lambda _: None
        if fault in ("loss", "network"):
            self.c.net("lose", x, "20" if fault == "loss" else "blue")
            return lambda _: self.c.net("gain")
        if fault in ("witness", "standby"):
            n = witness if fault == "witness" else other
            self.c.kill(n)
            return lambda _: self.c.revive(n)
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * os.cpu_count())]
        return lambda _: [stop(p) for p in busy]

    limit = 60

    def begin(self, fault, seen):
        """The active node at an instant when all is well, and how often it was another one before the fault could be done."""
        for restless in range(5):
            x = self.still(seen) if self.well and not restless else None
            x = x or self.calm(seen, 90)
            if x and fault in ("brain", "apart"):
                x = self.gather(seen, fault)
            else:  # at any instant of everybody's periods
                time.sleep(self.rand.random() * PERIOD.get(self.c.kind, 1.0))
            if not x or seen.steady(300) == x:
                return x, restless
        return None, restless

    def still(self, seen):
        """The active node, if all was well a moment ago and somebody answers."""
        for _ in range(100):
            if x := seen.steady(230):
                return x
            time.sleep(0.01)
        return None

    def result(self, seen, x, t0, t1, t2, off):
        out, began, missed = seen.outage(t0 - 100 * MS, t1)
        after, _, _ = seen.outage(t1, t2 - 50 * MS)
        overlap, at = seen.overlap(t0 - 100 * MS, t2)
        address = seen.address(t0 - 100 * MS, t2, off)
        k = seen.first(t1) - 20
        return {"from": x, "to": seen.answer(k, 0)[1], "outage_ms": out / MS, "missed": missed, "after_ms": after / MS,
                "overlap_ms": overlap / MS, "address_ms": address / MS,
                "overlap_at_ms": (at - t0) / MS if at else None, "began_ms": (began - t0) / MS,
                "client_pause_ms": seen.pause(t0 - 100 * MS, t2) / MS, "real_time": seen.real_time, "well_s": (t2 - t1) / NS,
                "lasted_s": (t1 - t0) / NS, "t0": t0}

    # -- Gemel only ----------------------------------------------------------
    def where(self, x):
        if not self.c.gemel:
            return {}
        s = self.c.status(x) or {}
        return {"brain": (s.get("cluster") or {}).get("brain"), "leader": self.c.leader()}

    def starts(self, x):
        if not self.c.gemel:
            return 0
        s = self.c.status(x) or {}
        return next((p["start"] for p in s.get("processes", []) if p["name"] == "echo"), 0)

    def gather(self, seen, fault):
        """Has the active node decide and lead the store ("brain"), or another one decide and the witness lead ("apart");
        returns it."""
        for _ in range(5):
            s = self.c.status("a") or self.c.status("b") or {}
            brain = (s.get("cluster") or {}).get("brain")
            if brain not in self.c.nodes:
                return None
            want = brain if fault == "brain" else next(n for n in self.c.nodes if n != brain)
            lead = want if fault == "brain" else self.c.witness[0]
            if seen.steady(300) != want:
                self.c.tool(want, "move", "web", want)
            if self.calm(seen, 60) != want or not self.c.leads(lead) and not self.c.lead(lead):
                continue
            time.sleep(0.5 + self.rand.random())  # the node that decides gives it back to the witness, after ten seconds at most
            w = self.where(want)
            if w["brain"] == brain and w["leader"] == lead:
                return want
        return None

    def events(self, t0, t1):
        """What the nodes told in the time of the fault, with ms from its beginning."""
        out = []
        for n in self.c.nodes + self.c.witness:
            r = self.c.tool(n, "events", "--json")
            for line in r.stdout.splitlines():
                try:
                    e = json.loads(line)
                except ValueError:
                    continue
                if t0 - 5 * MS <= e.get("at_instant", 0) <= t1:
                    out.append([round((e["at_instant"] - t0) / MS, 1), n, e.get("word"), e["subject"].get("name"), e.get("detail") or "",
                                e.get("why", {}).get("text", "")])
        return sorted(out)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("-n", type=int, default=15)
    a.add_argument("-v", type=int, default=3)
    a.add_argument("-f", type=lambda s: s.split(","), default=list(COMMON + GEMEL[:-1]) + ["busy:2"])
    a.add_argument("-q", type=float, default=0, help="seconds in which nothing is done, at the beginning of each turn of Gemel")
    a.add_argument("-s", type=int, default=int(time.time()))
    a.add_argument("-o", required=True)
    a.add_argument("name", nargs="+")
    a = a.parse_args()
    for s in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(s, lambda *_: sys.exit(1))
    print(f"seed {a.s}", flush=True)
    Trials(a).run()


if __name__ == "__main__":
    main()
