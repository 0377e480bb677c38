#!/usr/bin/env python3
"""beats: a program of several threads that each say that they are well.

    beats.py [THREADS [MILLISECONDS]]

SIGUSR1 hangs the first thread, as a deadlock would; SIGTERM ends the program in
good order.
"""

import os
import signal
import sys
import threading

import gemel

hang, end = threading.Event(), threading.Event()


def work(n, pause):
    with gemel.Thread(f"worker-{n}") as beat:
        while not end.is_set():
            if n == 0 and hang.is_set():
                end.wait()
                return
            beat.beat()
            end.wait(pause)


def main():
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    pause = (int(sys.argv[2]) if len(sys.argv) > 2 else 200) / 1000
    signal.signal(signal.SIGUSR1, lambda *_: hang.set())
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    signal.signal(signal.SIGINT, lambda *_: end.set())
    threads = [threading.Thread(target=work, args=(i, pause)) for i in range(n)]
    for t in threads:
        t.start()
    gemel.status("all threads run")
    gemel.ready()
    print(f"beats: {n} threads, pid {os.getpid()}", flush=True)
    # A signal handler of Python runs between the waits of the main thread.
    while not end.wait(0.2):
        pass
    gemel.stopping()
    for t in threads:
        t.join()


if __name__ == "__main__":
    main()
