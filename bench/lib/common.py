"""Shared helpers of the benchmarks: statistics, /proc accounting, process ends.

Only the standard library is used; everything needs root on Linux.
"""
import json, os, signal, subprocess, sys, time

NS = 1_000_000_000
now = lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC)
TICK = os.sysconf("SC_CLK_TCK")


def pct(values, p):
    """p-th percentile (nearest rank, so p=100 is the maximum)."""
    v = sorted(values)
    if not v:
        return float("nan")
    k = max(0, min(len(v) - 1, int(-(-p * len(v) // 100)) - 1))
    return v[k]


def stats(values):
    v = sorted(values)
    n = len(v)
    if not n:
        return {"n": 0}
    med = v[n // 2] if n % 2 else (v[n // 2 - 1] + v[n // 2]) / 2
    return {"n": n, "min": v[0], "p25": pct(v, 25), "median": med,
            "p75": pct(v, 75), "p99": pct(v, 99), "max": v[-1]}


def show(name, s, unit="ms", scale=1.0):
    if not s.get("n"):
        return f"{name:28s} no samples"
    f = lambda k: f"{s[k] * scale:10.3f}"
    return (f"{name:28s} n={s['n']:<4d} min{f('min')} p25{f('p25')} med{f('median')}"
            f" p75{f('p75')} p99{f('p99')} max{f('max')} {unit}")


def save(path, obj):
    with open(path, "w") as f:
        json.dump(obj, f, indent=1, sort_keys=True)


# ---- /proc -------------------------------------------------------------
def pids():
    return [int(d) for d in os.listdir("/proc") if d.isdigit()]


def pidns(pid):
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


def members(ns):
    """Every process of one PID namespace."""
    return [p for p in pids() if pidns(p) == ns]


def comm(pid):
    try:
        return open(f"/proc/{pid}/comm").read().strip()
    except OSError:
        return ""


def children(pid):
    """Each thread of a process has a list of its own."""
    out = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            out += [int(x) for x in open(f"/proc/{pid}/task/{task}/children").read().split()]
    except OSError:
        pass
    return out


def tree(pid):
    out, todo = [], [pid]
    while todo:
        p = todo.pop()
        out.append(p)
        todo += children(p)
    return out


def mem_kib(pid):
    """(RSS, PSS) in KiB."""
    rss = pss = 0
    try:
        for line in open(f"/proc/{pid}/smaps_rollup"):
            if line.startswith("Rss:"):
                rss = int(line.split()[1])
            elif line.startswith("Pss:"):
                pss = int(line.split()[1])
    except OSError:
        pass
    return rss, pss


def threads(pid):
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def cpu_s(pid, with_children=False):
    """User + system CPU seconds of a process (and of its reaped children)."""
    try:
        f = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    t = int(f[11]) + int(f[12])
    if with_children:
        t += int(f[13]) + int(f[14])
    return t / TICK


def cpu_exact_s(pid):
    """CPU seconds of the living threads of a process, by the scheduler's own account in nanoseconds."""
    t = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            t += int(open(f"/proc/{pid}/task/{task}/schedstat").read().split()[0])
        except OSError:
            pass
    return t / 1e9


def stop(proc, sig=signal.SIGKILL):
    """End one child (by its pid) and reap it."""
    if proc.poll() is None:
        try:
            proc.send_signal(sig)
        except OSError:
            pass
    try:
        proc.wait(10)
    except subprocess.TimeoutExpired:
        proc.kill()
        proc.wait()


# ---- the last lines ----------------------------------------------------
def verdict(bench, what, value, unit, sign, target):
    """Prints one line for machines; says whether the target is met."""
    met = value <= target if sign == "<=" else value < target if sign == "<" else value >= target if sign == ">=" else value > target
    print(f"{bench}: {value:.3g} {unit} ({what}), target {sign} {target:g} {unit}: {'met' if met else 'missed'}", flush=True)
    return met
