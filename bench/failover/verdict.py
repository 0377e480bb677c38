"""The table and the targets of bench-failover, from the raw figures of one run or of several pieces of it."""
import json, os, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from common import pct, stats, verdict

NAME = "bench-failover"
LONG = 10  # ms in which a client that asks each millisecond asked nothing
FAULTS = {
    "kill": "the active node is killed as a whole",
    "cut": "all its cables are pulled",
    "drop": "all its switches drop what it sends and what goes to it",
    "freeze": "it stands still, and goes on later",
    "apart": "killed, another node decides, the witness leads the store (Gemel)",
    "brain": "killed, it decides and leads the store itself (Gemel)",
    "move": "planned move of a group that is an address (Gemel)",
    "monitor": "kill -9 of the monitor (Gemel)",
    "shadow": "kill -9 of the shadow (Gemel)",
    "store": "kill -9 of the store's member (Gemel)",
    "daemons": "kill -9 of monitor, shadow and store (Gemel)",
    "stall": "all of Gemel on the active node stands still for 1 s, under fast for 0.2 s (Gemel)",
    "loss": "a fifth of what goes to and from the active node is lost on both networks (Gemel)",
    "network": "one of its two networks drops everything (Gemel)",
    "witness": "the witness is killed, which leads the store (Gemel)",
    "standby": "the other node is killed (Gemel)",
    "busy": "twice as many busy programs as processors (Gemel)",
    "quiet": "nothing is done (Gemel)",
}
BORNE = ("stall", "loss", "network", "witness", "standby", "busy")
UNMOVED = ("monitor", "shadow", "store", "daemons", "quiet", *BORNE)
trials, idle = [], None
for path in sys.argv[1:]:
    doc = json.load(open(path))
    if "trials" in doc:
        trials += doc["trials"]
    else:
        idle = doc


def of(name, fault):
    return [t for t in trials if t["contender"] == name and t["fault"] == fault and "error" not in t]


def outages(name, fault):
    return [t["outage_ms"] for t in of(name, fault)]


names = sorted({t["contender"] for t in trials}, key=lambda n: (not n.startswith("gemel"), n))
for fault, what in FAULTS.items():
    rows = [(n, of(n, fault)) for n in names if of(n, fault)]
    if not rows:
        continue
    print(f"\n{fault}: {what}\n  {'ms':16s} {'n':>3s} {'min':>8s} {'median':>8s} {'p90':>8s} {'max':>8s}   missed   overlap: median, max (address: max)"
          "   later: max   well again: s")
    for n, ts in rows:
        o, v, a = [t["outage_ms"] for t in ts], [t["overlap_ms"] for t in ts], [t["after_ms"] for t in ts]
        s = stats(o)
        never = sum(1 for t in ts if fault not in UNMOVED and not t.get("moved", True))
        paused = sum(1 for t in ts if t["client_pause_ms"] > LONG)
        notes = [f"{never} times no other node answered within the bound"] * bool(never)
        notes += [f"{sum(t['from'] != t['to'] for t in ts)} moved"] * (fault in UNMOVED and any(t["from"] != t["to"] for t in ts))
        notes += [f"the client itself paused in {paused}, up to {max(t['client_pause_ms'] for t in ts):.0f} ms"] * bool(paused)
        notes += [f"{sum(t.get('restless', 0) for t in ts)} times not calm when the fault was to be done"] * bool(sum(t.get("restless", 0) for t in ts))
        print(f"  {n:16s} {s['n']:3d} {s['min']:8.1f} {s['median']:8.1f} {pct(o, 90):8.1f} {s['max']:8.1f} {sum(t['missed'] for t in ts):8d}"
              f"   {stats(v)['median']:9.1f} {max(v):9.1f} {max(t['address_ms'] for t in ts):9.1f}     {max(a):10.1f}   {stats([t['well_s'] for t in ts])['median']:6.1f}"
              + ("   " + "; ".join(notes) if notes else ""))
if idle:
    print("\none node of three, nothing happens, for " + f"{idle['seconds']:g} s: CPU of a core in %, PSS in MiB")
    for n, parts in sorted(idle["nodes"].items()):
        cells = ", ".join(f"{k} {v['cpu_pct']:.2f} % {v['pss_MiB']:.1f} MiB" for k, v in sorted(parts.items()))
        print(f"  {idle['contender']} {n}{' (active)' if n == idle['active'] else ''}: {sum(v['cpu_pct'] for v in parts.values()):.2f} %, "
              f"{sum(v['pss_MiB'] for v in parts.values()):.1f} MiB ({cells})")
for t in trials:
    if "error" in t:
        print(f"\n{t['contender']} {t['fault']}: {t['error']}")
print()
ok = True


def target(what, values, which, unit, sign, bound):
    """One line; a figure that is not there is a target that is not met."""
    global ok
    if values:
        v = stats(values)["median"] if which == "median" else max(values) if which == "longest" else sum(values)
        ok &= verdict(NAME, f"{what}, {which} of {len(values)}", v, unit, sign, bound)


for n, median, longest, worst in (("gemel-normal", 1.9, None, 2.6), ("gemel-fast", 0.6, 1.2, 1.2)):
    for fault in ("kill", "apart", "cut", "freeze"):
        o = [v / 1000 for v in outages(n, fault)]
        target(f"{n}: {fault}", o, "median", "s", "<=", median)
        if longest:
            target(f"{n}: {fault}", o, "longest", "s", "<=", longest)
    target(f"{n}: brain, killed with the brain and the leader of the store on it", [v / 1000 for v in outages(n, "brain")], "longest", "s", "<=", worst)
    target(f"{n}: planned move of an address", outages(n, "move"), "median", "ms", "<", 50)
    target(f"{n}: questions missed when daemons are killed", [t["missed"] for f in UNMOVED[:4] for t in of(n, f)], "sum", "questions", "<=", 0)
    # An authority of fast is shorter than two times that TCP sends a lost segment again.
    borne = [t for f in BORNE for t in of(n, f) if (n, f) != ("gemel-fast", "loss")]
    if borne:
        target(f"{n}: moved, or started anew, by what must not do that", [float(t["from"] != t["to"] or t["starts"] != 0) for t in borne], "sum", "times", "<=", 0)
    if stalls := of(n, "stall"):
        target(f"{n}: stalls that no event names", [float(not t["named"]) for t in stalls], "sum", "times", "<=", 0)
    target(f"{n}: two nodes active at once", [t["overlap_ms"] for t in trials if t["contender"] == n and "error" not in t], "longest", "ms", "<=", 0)
if idle:
    target("one node of three, idle: CPU of Gemel's own", [sum(v["cpu_pct"] for v in p.values()) for p in idle["nodes"].values()], "longest", "% of a core", "<", 3)
    target("one node of three, idle: PSS of Gemel's own", [sum(v["pss_MiB"] for v in p.values()) for p in idle["nodes"].values()], "longest", "MiB", "<", 60)
missing = [n for n in ("gemel-normal", "gemel-fast") if not outages(n, "kill")]
if missing:
    print(f"{NAME}: no figures of {', '.join(missing)}")
if not any(outages(n, "kill") for n in names if not n.startswith("gemel")):
    print(f"{NAME}: no peer is installed to compare with")
    ok = False
sys.exit(0 if ok and not missing and not any("error" in t for t in trials) else 1)
