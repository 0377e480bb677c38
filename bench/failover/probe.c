/* probe FILE SECONDS ADDRESS PORT SOURCE@NAMESPACE...: asks at ADDRESS each millisecond, from each of the sources in
 * its network namespace, and notes question and answer in FILE, which others map meanwhile.
 *
 * The first source is the client. The others ask from inside of the nodes, from 127.0.0.1: such a question can be
 * sent only where the address is, never leaves the machine, and so tells whether this node has the address and answers
 * at it, whatever became of its links.
 *
 * FILE is words of 64 bits: 8 of a head (magic, sources, capacity in rounds, rounds, real time obtained, 0, 0, 0), then
 * for each round: when it was sent, and for each source: when the answer came (0: none), who answered (without an answer: 1 if the
 * question could be sent, which from inside means that the address is there), when by its own word. All by CLOCK_BOOTTIME in ns. One process in real time and memory that is locked: what the
 * bench does beside cannot hold it up, and if something did, the time between two rounds says so. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 8, MOST = 8 };
static uint64_t now(void) { struct timespec t; clock_gettime(CLOCK_BOOTTIME, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }
static void die(const char *what) { fprintf(stderr, "probe: "); perror(what); exit(1); }

int main(int c, char **v) {
	if (c < 6 || c > 5 + MOST) { fprintf(stderr, "usage: probe FILE SECONDS ADDRESS PORT SOURCE@NAMESPACE...\n"); return 2; }
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	int n = c - 5, home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	struct pollfd p[MOST + 1];
	for (int i = 0; i < n; i++) {
		char path[256], *at = strchr(v[5 + i], '@');
		if (!at) { fprintf(stderr, "probe: %s is not SOURCE@NAMESPACE\n", v[5 + i]); return 2; }
		*at = 0;
		snprintf(path, sizeof path, "/run/netns/%s", at + 1);
		int ns = open(path, O_RDONLY | O_CLOEXEC);
		if (ns < 0 || setns(ns, CLONE_NEWNET)) die(path);
		close(ns);
		struct sockaddr_in a = {.sin_family = AF_INET};
		if (inet_pton(AF_INET, v[5 + i], &a.sin_addr) != 1) die(v[5 + i]);
		p[i] = (struct pollfd){socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), POLLIN, 0};
		if (bind(p[i].fd, (void *)&a, sizeof a)) die("bind");
	}
	if (setns(home, CLONE_NEWNET)) die("setns");
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(v[4]))};
	if (inet_pton(AF_INET, v[3], &to.sin_addr) != 1) die(v[3]);

	uint64_t rounds = atoi(v[2]) * 1000ull, width = 1 + 3 * n, size = (HEAD + rounds * width) * 8;
	int f = open(v[1], O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (f < 0 || ftruncate(f, size)) die(v[1]);
	uint64_t *w = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);
	if (w == MAP_FAILED) die(v[1]);
	struct sched_param sp = {.sched_priority = 50};
	w[4] = !sched_setscheduler(0, SCHED_FIFO, &sp);
	mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
	w[1] = n, w[2] = rounds;

	int t = timerfd_create(CLOCK_BOOTTIME, 0);
	struct itimerspec it = {{0, 1000000}, {0, 1000000}};
	timerfd_settime(t, 0, &it, 0);
	p[n] = (struct pollfd){t, POLLIN, 0};
	w[0] = 0x6f76656c696166ull;
	for (uint64_t k = 0;;) {
		poll(p, n + 1, -1);
		for (int i = 0; i < n; i++) {
			uint64_t b[4];
			ssize_t got;
			/* The word of the kernel that nobody is there comes as an error; it is taken, and the next one looked for. */
			for (int tries = 0; tries < 64 && ((got = recv(p[i].fd, b, sizeof b, 0)) > 0 || p[i].revents & POLLERR); tries++) {
				if (got == 24 && b[0] < k) {
					uint64_t *r = w + HEAD + b[0] * width + 1 + 3 * i;
					if (!r[0]) { r[1] = b[1], r[2] = b[2]; __atomic_store_n(r, now(), __ATOMIC_RELEASE); }
				}
				if (got < 0) p[i].revents = 0;
			}
		}
		uint64_t x;
		if (p[n].revents && read(t, &x, 8) == 8) {
			if (k == rounds) return 0;
			w[HEAD + k * width] = now();
			for (int i = 0; i < n; i++)
				w[HEAD + k * width + 2 + 3 * i] = sendto(p[i].fd, &k, 8, 0, (void *)&to, sizeof to) == 8;
			__atomic_store_n(&w[3], ++k, __ATOMIC_RELEASE);
		}
	}
}
