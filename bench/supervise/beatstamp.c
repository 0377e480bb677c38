/* The supervised process that beats: argv as stamp.c. It reads CLOCK_MONOTONIC with its first own system call,
 * sends "INDEX NANOSECONDS" to the socket, then beats each second through its page.
 * build: cc -O2 -static -I../../include -o stampbeat beatstamp.c */
#include "gemel.h"
#include <time.h>

int main(int argc, char **argv)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct timespec t, second = {1, 0};
	char text[64];
	int fd, n;
	gemel_beat_t *b;

	clock_gettime(CLOCK_MONOTONIC, &t);
	if (argc < 3)
		return 2;
	strncpy(to.sun_path, argv[1], sizeof to.sun_path - 1);
	n = snprintf(text, sizeof text, "%s %lld", argv[2], t.tv_sec * 1000000000ll + t.tv_nsec);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	sendto(fd, text, n, 0, (struct sockaddr *)&to, sizeof to);
	close(fd);
	for (b = gemel_thread("main");; nanosleep(&second, NULL))
		gemel_beat(b);
}
