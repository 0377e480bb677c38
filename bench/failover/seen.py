"""What probe.c notes: who was answered by whom and when, and what follows from that."""
import mmap, os, struct

MS = 1_000_000
REST = 5 * MS      # a node that answers at both ends of such a time was active in it
MAGIC = 0x6F76656C696166
HEAD = 8


class Seen:
    """A file of probe.c, mapped while it is written. Channel 0 is the client, channel i the i-th node from inside."""

    def __init__(self, path, nodes, inode):
        self.nodes, self.who = nodes, {v: k for k, v in inode.items()}
        with open(path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 0)
        self.w = memoryview(self.map).cast("Q")
        self.width = 1 + 3 * (1 + len(nodes))

    def close(self):
        self.w.release()
        self.map.close()

    @property
    def rounds(self):
        return self.w[3]

    @property
    def real_time(self):
        return bool(self.w[4])

    def full(self):
        return self.w[3] >= self.w[2]

    def sent(self, k):
        return self.w[HEAD + k * self.width]

    def answer(self, k, channel):
        """(came, who, at) of a round; who is None if there was no answer."""
        i = HEAD + k * self.width + 1 + 3 * channel
        came = self.w[i]
        return (came, self.who.get(self.w[i + 1], "?"), self.w[i + 2]) if came else (0, None, 0)

    def first(self, t):
        """The first round that was sent at t or later."""
        lo, hi = 0, self.rounds
        while lo < hi:
            mid = (lo + hi) // 2
            if self.sent(mid) < t:
                lo = mid + 1
            else:
                hi = mid
        return lo

    def steady(self, rounds, late=30):
        """The node that has answered each of the client's last questions (those just sent need not be answered yet)
        and was the only one that was active inside; else None."""
        end = self.rounds - late
        rounds -= late
        if end < rounds or rounds < 1:
            return None
        who = self.answer(end - 1, 0)[1]
        for k in range(end - rounds, end):
            if who is None or self.answer(k, 0)[1] != who:
                return None
            for i, n in enumerate(self.nodes):
                a = self.answer(k, 1 + i)[1]
                if a is not None and n != who:
                    return None
        return who

    def other(self, since, node, rounds=50):
        """Whether another node has answered that many questions that were sent after an instant."""
        n = 0
        for k in range(self.rounds - 1, self.first(since) - 1, -1):
            n += self.answer(k, 0)[1] not in (None, node)
            if n >= rounds:
                return True
        return False

    def outage(self, t0, t1):
        """(longest time between two questions that were answered, when it began, unanswered questions) of those sent
        from t0 to t1. What is before the first and after the last answer counts as well."""
        longest, began, missed, last = 0, t0, 0, t0
        for k in range(self.first(t0), self.first(t1)):
            if self.answer(k, 0)[1] is None:
                missed += 1
                continue
            s = self.sent(k)
            if s - last > longest:
                longest, began = s - last, last
            last = s
        if t1 - last > longest:
            longest, began = t1 - last, last
        return longest, began, missed

    def pause(self, t0, t1):
        """The longest time in which the client itself asked nothing."""
        a, b = self.first(t0), self.first(t1)
        return max((self.sent(k + 1) - self.sent(k) for k in range(a, b - 1)), default=0)

    def spans(self, i, t0, t1):
        """When a node was active: it had the address and answered at it, asked from inside."""
        out = []
        times = sorted(self.answer(k, 1 + i)[2] for k in range(self.first(t0), self.first(t1))
                       if self.answer(k, 1 + i)[1] == self.nodes[i])
        for t in times:
            if out and t - out[-1][1] <= REST:
                out[-1][1] = t
            else:
                out.append([t, t])
        return out

    def address(self, t0, t1, of):
        """How long the address was on two nodes at once. of says from when on each node's counts: that of a machine that
        is off is nowhere."""
        total, last = 0, None
        for k in range(self.first(t0), self.first(t1)):
            s = self.sent(k)
            here = [self.w[HEAD + k * self.width + 5 + 3 * i] != 0 and s >= of.get(n, 0) for i, n in enumerate(self.nodes)]
            if sum(here) > 1:
                total += s - last if last else MS
                last = s
            else:
                last = None
        return total

    def overlap(self, t0, t1):
        """How long two nodes were active at once. One answer is a millisecond of activity."""
        all, total, began = [self.spans(i, t0, t1) for i in range(len(self.nodes))], 0, None
        for i, a in enumerate(all):
            for b in all[i + 1:]:
                for s in a:
                    for u in b:
                        lo, hi = max(s[0], u[0]), min(s[1], u[1])
                        if lo <= hi:
                            total += hi - lo + MS
                            began = lo if began is None else min(began, lo)
        return total, began
