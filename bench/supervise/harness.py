"""Starts a contender in its own namespaces and receives its start records."""
import glob, os, shutil, socket, struct, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from common import *

HERE = os.path.dirname(os.path.abspath(__file__))
BIN = os.environ.get("BENCH_BIN", "/tmp/bench/bin")


def logof(name):
    """What a contender prints goes to a file beside the programs."""
    d = os.path.join(os.path.dirname(os.path.abspath(BIN)), "log")
    os.makedirs(d, exist_ok=True)
    return os.path.join(d, name + ".log")


def contenders():
    d = os.path.join(HERE, "contenders")
    return sorted(f for f in os.listdir(d) if os.access(os.path.join(d, f), os.X_OK)
                  and os.path.isfile(os.path.join(d, f)))


def sweep(run):
    """Removes the control groups of a Gemel that was killed with all its programs; thousands of them slow the machine."""
    h = 14695981039346656037
    for b in run.encode():
        h = (h ^ b) * 1099511628211 % (1 << 64)
    h >>= 16
    name = ""
    while h or not name:
        name, h = "0123456789abcdefghijklmnopqrstuvwxyz"[h % 36] + name, h // 36
    for top in glob.glob(f"/sys/fs/cgroup/gemel-{name}") + glob.glob(f"/sys/fs/cgroup/*/gemel-{name}"):
        for d, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(d)
            except OSError:
                pass  # somebody is in it still


class Contender:
    def __init__(self, name, n, log=None):
        self.name, self.n = name, n
        self.dir = tempfile.mkdtemp(prefix=f"b-{name}-", dir="/tmp")
        self.sock = tempfile.mktemp(prefix="b-", suffix=".s", dir="/tmp")
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUFFORCE
                          if hasattr(socket, "SO_RCVBUFFORCE") else 33, 64 << 20)
        self.s.bind(self.sock)
        env = dict(os.environ, BENCH_DIR=self.dir, BENCH_N=str(n), BENCH_SOCK=self.sock,
                   BENCH_STAMP=os.path.join(BIN, "stamp"), BENCH_BIN=BIN)
        self.log = open(log or os.devnull, "wb")
        self.t0 = now()
        self.p = subprocess.Popen(
            ["unshare", "-p", "-f", "-m", "--mount-proc", "--kill-child",
             os.path.join(HERE, "contenders", name)],
            env=env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            start_new_session=True)

    def recv(self, timeout):
        """(index, start time ns, pid as seen here), or None."""
        self.s.settimeout(max(timeout, 0.0001))
        try:
            data, anc, _, _ = self.s.recvmsg(128, socket.CMSG_SPACE(12))
        except (socket.timeout, BlockingIOError):
            return None
        pid = struct.unpack("iii", anc[0][2][:12])[0] if anc else 0
        i, t = data.split()
        return int(i), int(t), pid

    def collect(self, count, timeout):
        """Wait for count records of distinct services; {index: (t, pid)}."""
        got, end = {}, now() + timeout * NS
        while len(got) < count:
            left = (end - now()) / NS
            if left <= 0:
                break
            r = self.recv(left)
            if r:
                got[r[0]] = (r[1], r[2])
        return got

    def close(self):
        for p in children(self.p.pid):
            try:
                os.kill(p, signal.SIGKILL)   # PID 1 of the namespace: all of it ends
            except OSError:
                pass
        try:
            self.p.wait(20)
        except subprocess.TimeoutExpired:
            stop(self.p)
        sweep(self.dir + "/run")
        self.s.close()
        for f in (self.sock,):
            if os.path.exists(f):
                os.unlink(f)
        shutil.rmtree(self.dir, ignore_errors=True)
