/* echo ADDRESS PORT: the service. Answers each datagram of 8 bytes with these, the inode of the network namespace
 * that it runs in (nobody tells it which node it is, so nobody is wrong) and the instant (CLOCK_BOOTTIME, ns).
 * Bound to the service address whether or not that is there: it answers from there only. It is a part of the measure, and all nodes
 * share the processors of one machine: it takes real time, or else the best nice value, so that what other nodes do is
 * not taken for an outage of this one, and so that it answers at once when a machine goes on after a pause. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

int main(int c, char **v) {
	if (c != 3) { fprintf(stderr, "usage: echo ADDRESS PORT\n"); return 2; }
	struct stat st;
	if (stat("/proc/self/ns/net", &st)) { perror("echo: /proc/self/ns/net"); return 1; }
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), one = 1;
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(v[2]))};
	if (inet_pton(AF_INET, v[1], &a.sin_addr) != 1) { fprintf(stderr, "echo: %s is no IPv4 address\n", v[1]); return 2; }
	setsockopt(s, IPPROTO_IP, IP_FREEBIND, &one, sizeof one);
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(s, (void *)&a, sizeof a)) { perror("echo: bind"); return 1; }
	struct sched_param sp = {.sched_priority = 2};
	if (sched_setscheduler(0, SCHED_FIFO, &sp)) setpriority(PRIO_PROCESS, 0, -20);
	mlockall(MCL_CURRENT | MCL_FUTURE);
	for (;;) {
		uint64_t b[3];
		struct sockaddr_in f;
		socklen_t l = sizeof f;
		ssize_t n = recvfrom(s, b, sizeof b, 0, (void *)&f, &l);
		if (n < 0 && errno != EINTR && errno != ECONNREFUSED) { perror("echo"); return 1; }
		if (n != 8) continue;
		struct timespec t;
		clock_gettime(CLOCK_BOOTTIME, &t);
		b[1] = st.st_ino;
		b[2] = t.tv_sec * 1000000000ull + t.tv_nsec;
		sendto(s, b, sizeof b, 0, (void *)&f, l); /* who asked will ask again */
	}
}
