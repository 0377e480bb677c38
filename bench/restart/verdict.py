"""The targets of bench-restart, from the raw figures of one run."""
import json, os, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from common import verdict

res = json.load(open(sys.argv[1]))["results"]
need = [n + q for n in ("gemel", "limit-go") for q in ("", " (quick crash)")]
missing = [n for n in need if not res.get(n, {}).get("n")]
if missing:
    sys.exit("bench-restart: no figures of " + ", ".join(missing))
ok = True
for q, what in (("", "long-lived"), (" (quick crash)", "quick crash")):
    g, l = res["gemel" + q], res["limit-go" + q]
    peers = {n: s["median"] for n, s in res.items() if n.endswith(" (quick crash)") == bool(q) and s.get("n")
             and not n.startswith(("gemel", "limit-"))}
    ok &= verdict("bench-restart", f"{what} median / bare Go loop", g["median"] / l["median"], "x", "<=", 1.5)
    ok &= verdict("bench-restart", f"{what} p99 / bare Go loop", g["p99"] / l["p99"], "x", "<=", 3)
    if peers:
        best = min(peers, key=peers.get)
        ok &= verdict("bench-restart", f"{what} best peer ({best.split(' ')[0]}) / gemel", peers[best] / g["median"], "x", ">=", 2)
    else:
        print(f"bench-restart: no peer is installed to compare with ({what})")
        ok = False
sys.exit(0 if ok else 1)
