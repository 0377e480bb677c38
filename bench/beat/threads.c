/* A program with many threads that beat each second: argv THREADS HANG. After HANG seconds (0: never) the last
 * thread stops beating and stays. Prints "ready" when all have a place.
 * build: cc -O2 -pthread -I../../include */
#include "gemel.h"
#include <pthread.h>
#include <time.h>

static pthread_barrier_t all;
static int hang, count;

static void *work(void *arg)
{
	long i = (long)arg;
	char name[32];
	snprintf(name, sizeof name, "worker %ld", i);
	gemel_beat_t *b = gemel_thread(name);
	if (!b)
		exit(3);
	pthread_barrier_wait(&all);
	struct timespec spread = {0, i * 1000000000ll / count % 1000000000ll}, second = {1, 0};
	nanosleep(&spread, NULL);
	for (int k = 0;; k++) {
		if (!hang || i != count - 1 || k < hang)
			gemel_beat(b);
		nanosleep(&second, NULL);
	}
}

int main(int argc, char **argv)
{
	pthread_attr_t small;
	pthread_t t;

	if (argc != 3)
		return 2;
	count = atoi(argv[1]);
	hang = atoi(argv[2]);
	pthread_barrier_init(&all, NULL, count + 1);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 64 << 10);
	for (long i = 0; i < count; i++)
		if (pthread_create(&t, &small, work, (void *)i))
			return 4;
	pthread_barrier_wait(&all);
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}
