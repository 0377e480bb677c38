"""A contender's cluster in network namespaces, and what is done to it."""
import contextlib, glob, json, os, random, shutil, signal, socket, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from common import *

HERE = os.path.dirname(os.path.abspath(__file__))
BIN = os.environ.get("BENCH_BIN") or os.path.abspath(os.path.join(HERE, "..", "..", ".bench", "bin"))
VIP, PLAIN, PORT = "10.77.3.100", "10.77.3.101", "7077"
boot = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Cluster:
    """One contender on machines of its own: NAME or NAME-VARIANT."""

    def __init__(self, name, nodes=("a", "b")):
        self.name = name
        self.kind, _, opt = name.partition("-")
        self.gemel = self.kind == "gemel"
        self.nodes = list(nodes)
        self.witness = ["w"] if self.gemel and len(nodes) == 2 else []
        self.prefix = f"fo{os.getpid()}"
        room = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
        self.dir = tempfile.mkdtemp(prefix="fo-", dir=os.environ.get("DIR") or room)
        self.env = dict(os.environ, FO_NODES=" ".join(self.nodes), FO_WITNESS=" ".join(self.witness), FO_PREFIX=self.prefix,
                        FO_VIP=VIP + "/24", FO_PLAIN=PLAIN + "/24", FO_DIR=self.dir, FO_OPT=opt, FO_BIN=BIN)
        for k in [k for k in self.env if k.startswith(("GEMEL_", "NOTIFY_", "INVOCATION_"))]:
            del self.env[k]
        self.inode, self.echos, self.stopped, self.trees, self.alive = {}, [], [], set(), 0

    # -- parts ---------------------------------------------------------------
    def script(self, *v, check=True, timeout=180, out=subprocess.PIPE):
        r = subprocess.run([os.path.join(HERE, "contenders", self.kind), *v], env=self.env, stdin=subprocess.DEVNULL,
                           stdout=out, text=True, timeout=timeout)
        if check and r.returncode:
            raise RuntimeError(f"{self.name} {' '.join(v)}: exit {r.returncode}\n{self.logs()}")
        return r

    def net(self, *v):
        subprocess.run([os.path.join(HERE, "net.sh"), v[0], self.prefix, *v[1:]], check=True)

    def up(self):
        self.net("up", *self.nodes, *self.witness)
        for n in self.nodes + self.witness:
            self.inode[n] = os.stat(f"/run/netns/{self.prefix}-{n}").st_ino
        for n in self.nodes:
            self.serve(n)
        self.script("up", out=subprocess.DEVNULL)

    def serve(self, n):
        """The service runs on all nodes all the time where the contender moves an address only."""
        for vip in [PLAIN] if self.gemel else [VIP]:
            self.echos.append(subprocess.Popen(["nsenter", f"--net=/run/netns/{self.prefix}-{n}", os.path.join(BIN, "fo-echo"), vip, PORT],
                                               stdin=subprocess.DEVNULL))

    def inside(self, *nodes):
        """The processes that run in nodes."""
        want, out = {self.inode[n] for n in nodes}, []
        for p in pids():
            try:
                if os.stat(f"/proc/{p}/ns/net").st_ino in want:
                    out.append(p)
            except OSError:
                pass
        return out

    def signal(self, sig, *nodes):
        """To all that runs in nodes, until nothing new is there; returns to whom it went."""
        with at_once():
            return self.send(sig, *nodes)

    def send(self, sig, *nodes):
        seen = set()
        for _ in range(400):
            fresh = [p for p in self.inside(*nodes) if p not in seen or sig == signal.SIGKILL]
            if not fresh:
                break
            for p in fresh:
                seen.add(p)
                try:
                    os.kill(p, sig)
                except OSError:
                    pass
            if sig == signal.SIGKILL:
                time.sleep(0.001)
        return seen

    def down(self):
        try:
            self.script("down", check=False)
            if self.inode:
                self.note_trees()
                self.signal(signal.SIGKILL, *self.inode)
            for e in self.echos:
                stop(e)
            # The loops that start a daemon again are outside of the nodes; they end by themselves, as they see that they shall.
            try:
                keepers = [int(x) for x in open(os.path.join(self.dir, "keepers")).read().split()]
            except OSError:
                keepers = []
            for _ in range(300):
                if not any(self.dir in environ(p) for p in keepers):
                    break
                time.sleep(0.01)
            if self.inode:
                self.signal(signal.SIGKILL, *self.inode)
        finally:
            subprocess.run([os.path.join(HERE, "net.sh"), "down", self.prefix])
            for t in self.trees:
                for top in glob.glob(f"/sys/fs/cgroup/{t}") + glob.glob(f"/sys/fs/cgroup/*/{t}"):
                    for d, _, _ in os.walk(top, topdown=False):
                        try:
                            os.rmdir(d)
                        except OSError:
                            pass
            if os.environ.get("KEEP"):
                print("kept:", self.dir)
            else:
                shutil.rmtree(self.dir, ignore_errors=True)

    def note_trees(self):
        for p in self.inside(*self.inode):
            for w in environ(p).split("\0"):
                if w.startswith("GEMEL_TREE=") and "/" not in w:
                    self.trees.add(w.removeprefix("GEMEL_TREE="))

    def logs(self):
        out = ""
        for f in sorted(glob.glob(os.path.join(self.dir, "*.log"))):
            out += f"-- {f}\n" + "".join(open(f, errors="replace").readlines()[-15:])
        return out

    # -- faults --------------------------------------------------------------
    def kill(self, n):
        """The whole node in one instant: no packet of it tells the others."""
        self.note_trees()
        self.script("off", n)
        t = boot()
        self.net("off", n)
        self.signal(signal.SIGKILL, n)
        return t

    def revive(self, n):
        self.net("plug", n)
        self.alive = boot()
        self.net("on", n)
        self.serve(n)
        self.script("boot", n, out=subprocess.DEVNULL)

    def cut(self, n):
        t = boot()
        self.net("pull", n)
        return t

    def uncut(self, n):
        self.net("push", n)

    def drop(self, n):
        t = boot()
        self.net("off", n)
        return t

    def undrop(self, n):
        self.net("on", n)

    def freeze(self, n):
        """As the host of a virtual machine does: no process of it runs, and its kernel answers nobody."""
        t = boot()
        self.net("off", n)
        self.stopped = self.signal(signal.SIGSTOP, n)
        return t

    def thaw(self, n):
        """The networks are there first: what was under way arrives."""
        self.net("on", n)
        stopped = list(self.stopped)
        random.shuffle(stopped)
        self.alive = boot()
        with at_once():
            for p in stopped:
                try:
                    os.kill(p, signal.SIGCONT)
                except OSError:
                    pass
        self.stopped = []

    # -- state ---------------------------------------------------------------
    def ready(self):
        if not self.gemel:
            return self.script("ready", check=False).returncode == 0
        return not self.lacks()

    def status(self, n):
        try:
            r = self.script("status", n, check=False, timeout=10)
            return json.loads(r.stdout) if r.returncode == 0 else None
        except (ValueError, subprocess.TimeoutExpired):
            return None

    def lacks(self):
        """What a Gemel cluster wants before a fault is a single one; empty: nothing."""
        for n in self.nodes + self.witness:
            s = self.status(n)
            if not s:
                return f"{n} does not answer"
            c = s.get("cluster") or {}
            if not s["node"].get("shadow") or not c.get("store") or c.get("lacks"):
                return f"{n}: shadow {s['node'].get('shadow')}, store {c.get('store')}, lacks {c.get('lacks')!r}"
            for m in c["nodes"]:
                if n not in self.witness and not m.get("witness") and m["state"] != "member":
                    return f"{n}: {m['name']} is {m['state']}"
                if not m.get("self") and len(m.get("hears") or []) < 2:
                    return f"{n} hears {m['name']} on {m.get('hears')}"
            if n not in self.witness and any(g["state"] not in ("active", "standby") and g.get("node") for g in s["groups"]):
                return f"{n}: {s['groups']}"
        if sum(self.leads(n) for n in self.nodes + self.witness) != 1:
            return "the store has not one leader"
        return ""

    def tool(self, n, *v, timeout=60):
        try:
            return self.script("tool", n, *v, check=False, timeout=timeout)
        except subprocess.TimeoutExpired as e:
            return subprocess.CompletedProcess(e.cmd, 124, "", "")

    def http(self, n, method, path):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(3)
        try:
            s.connect(os.path.join(self.dir, n, "run", "store.sock"))
            s.sendall(f"{method} {path} HTTP/1.1\r\nHost: store\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            out = b""
            while b := s.recv(65536):
                out += b
            return out.decode(errors="replace")
        except OSError:
            return ""
        finally:
            s.close()

    def leads(self, n):
        return "\netcd_server_is_leader 1\n" in self.http(n, "GET", "/metrics")

    def leader(self):
        return next((n for n in self.nodes + self.witness if self.leads(n)), None)

    def lead(self, n):
        """Has the member of the store on this node lead."""
        m = self.http(n, "GET", "/metrics")
        i = m.index('etcd_server_id{server_id="') + len('etcd_server_id{server_id="')
        self.http(n, "POST", "/gemel/lead?to=" + m[i:m.index('"', i)])
        return self.leads(n)

    def parts(self, n):
        """The pids of Gemel's own on a node, by what they are."""
        out = {}
        for p in self.inside(n):
            w = cmdline(p)
            if len(w) > 1 and os.path.join(self.dir, n, "run") in w and w[1] in ("run", "monitor", "store", "guard"):
                part = "shadow" if w[1] == "run" else w[1]
                if part not in out or p in ancestors(out[part]):
                    out[part] = p
        return out


@contextlib.contextmanager
def at_once():
    """In real time, before those to whom signals are sent: they come as near to one instant as they can."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(45))
    except OSError:
        pass
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def cmdline(p):
    try:
        return open(f"/proc/{p}/cmdline").read().split("\0")
    except OSError:
        return []


def environ(p):
    try:
        return open(f"/proc/{p}/environ", errors="replace").read()
    except OSError:
        return ""


def ancestors(p):
    out = []
    while p > 1:
        try:
            p = int(open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()[1])
        except OSError:
            break
        out.append(p)
    return out
