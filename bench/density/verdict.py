"""The table and the targets of bench-density, from the raw figures of one run."""
import json, os, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from common import stats, verdict

COLUMNS = (("start all", "start_all_s", "s", 1), ("its CPU", "start_cpu_s", "s", 1), ("all back", "restart_all_ms", "ms", 1), ("half back", "restart_half_ms", "ms", 1),
           ("PSS", "pss_MiB", "MiB", 1), ("PSS after", "pss_after_MiB", "MiB", 1), ("idle CPU", "idle_cpu_pct", "%", 1))


def load(n):
    return json.load(open(f"{sys.argv[1]}-{n}.json"))


def of(res, name, key):
    """Statistics of one figure; only rounds in which everything came up count."""
    return stats([r[key] for r in res.get(name, []) if key in r and r.get("started") == r["n"] == r.get("restarted", r["n"])])


def table(doc):
    res = doc["results"]
    print(f"\n{doc['n']} programs: median (min-max) of the rounds in which all came up")
    for name in sorted(res, key=lambda n: of(res, n, "start_all_s").get("median", 1e9)):
        cells = []
        for title, key, unit, _ in COLUMNS:
            s = of(res, name, key)
            cells.append(f"{title} {s['median']:.4g} ({s['min']:.4g}-{s['max']:.4g}) {unit}" if s["n"] else f"{title} -")
        print(f"  {name:16s} n={len(res[name])} " + "; ".join(cells))


def peers(res, key):
    m = {n: of(res, n, key).get("median") for n in res if not n.startswith(("gemel", "limit-"))}
    return {n: v for n, v in m.items() if v is not None}


empty, few, many = load(0), load(1000), load(5000)
for doc in (few, many):
    table(doc)
print()
res, ok = few["results"], True
name = "bench-density"
mine = of(res, "gemel", "start_all_s")
back = of(res, "gemel", "restart_all_ms")
beats = of(res, "gemel-beats", "pss_MiB")
if not (mine["n"] and back["n"] and beats["n"] and of(many["results"], "gemel-beats", "pss_MiB")["n"]):
    sys.exit(name + ": Gemel did not bring all programs up in any round")
others = peers(res, "start_all_s")
if others:
    best = min(others, key=others.get)
    ok &= verdict(name, f"start 1,000: best peer ({best}) / gemel", others[best] / mine["median"], "x", ">=", 1.5)
else:
    print(name + ": no peer is installed to compare the start with")
    ok = False
d = of(res, "daemontools", "restart_all_ms")
if d["n"]:
    ok &= verdict(name, "all 1,000 back: daemontools / gemel", d["median"] / back["median"], "x", ">", 1)
else:
    print(name + ": daemontools is not there to compare the mass restart with")
    ok = False
ok &= verdict(name, "PSS of both halves, 1,000 programs that beat", beats["median"], "MiB", "<=", 40)
grown = of(many["results"], "gemel-beats", "pss_MiB")["median"]
ok &= verdict(name, "PSS for each further program that beats", (grown - beats["median"]) * 1024 / (many["n"] - few["n"]), "KiB", "<", 12)
ok &= verdict(name, "PSS of both halves without programs", empty["results"]["gemel-empty"][0]["pss_MiB"], "MiB", "<", 30)
ok &= verdict(name, "idle CPU, 1,000 programs that beat", of(res, "gemel-beats", "idle_cpu_pct")["median"], "% of a core", "<", 0.5)
ok &= verdict(name, "threads of both halves, 1,000 programs", of(res, "gemel-beats", "threads")["median"], "threads", "<", 100)
sys.exit(0 if ok else 1)
