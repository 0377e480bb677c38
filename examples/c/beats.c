/* beats: a program of several threads that each say that they are well.
 *
 *   cc -O2 -Wall -Wextra -I../../include -pthread -o beats beats.c
 *   ./beats [THREADS [MILLISECONDS]]
 *
 * SIGUSR1 hangs the first thread, as a deadlock would: under a manifest with
 *
 *   processes:
 *     beats:
 *       command: [/path/to/beats, "4", "200"]
 *       watchdog: {interval: 1s, retries: 3}
 *       ready: notify
 *
 * Gemel names the thread, keeps evidence, and starts the program again. SIGTERM
 * ends it in good order.
 */
#include "gemel.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

static volatile sig_atomic_t hang, end;
static long pause_ms = 200;

static void on_signal(int sig)
{
	if (sig == SIGUSR1)
		hang = 1;
	else
		end = 1;
}

static void rest(long ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};
	nanosleep(&t, NULL);
}

static void *work(void *arg)
{
	long n = (long)arg;
	char name[32];
	gemel_beat_t *beat;

	snprintf(name, sizeof name, "worker-%ld", n);
	beat = gemel_thread(name);
	while (!end) {
		if (n == 0 && hang) {
			rest(1000);
			continue;
		}
		gemel_beat(beat);
		rest(pause_ms);
	}
	gemel_done(beat);
	return NULL;
}

int main(int argc, char **argv)
{
	long n = argc > 1 ? atol(argv[1]) : 4, i;
	struct sigaction act;
	pthread_t *threads;

	if (argc > 2)
		pause_ms = atol(argv[2]);
	if (n < 1 || n > 10000 || pause_ms < 1) {
		fprintf(stderr, "usage: beats [THREADS [MILLISECONDS]], 1 to 10000 threads\n");
		return 2;
	}
	memset(&act, 0, sizeof act);
	act.sa_handler = on_signal;
	sigaction(SIGUSR1, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGINT, &act, NULL);
	threads = calloc((size_t)n, sizeof *threads);
	if (!threads)
		return 1;
	for (i = 0; i < n; i++)
		if (pthread_create(&threads[i], NULL, work, (void *)i) != 0) {
			perror("beats: starting a thread");
			return 1;
		}
	gemel_status("all threads run");
	if (gemel_ready() != 0)
		fprintf(stderr, "beats: cannot tell that it is ready\n");
	printf("beats: %ld threads, pid %d\n", n, (int)getpid());
	fflush(stdout);
	while (!end)
		rest(100);
	gemel_stopping();
	for (i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	free(threads);
	return 0;
}
