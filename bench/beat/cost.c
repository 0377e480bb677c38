/* Measures one beat of gemel.h: nanoseconds for each of many trials, one a line. The page is that of
 * GEMEL_BEAT_PAGE. build: cc -O2 -I../../include */
#include "gemel.h"
#include <time.h>

enum { TRIALS = 300, BEATS = 1000000 };

static double ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

int main(void)
{
	gemel_beat_t *b = gemel_thread("cost");

	if (!b) {
		fprintf(stderr, "cost: no place on the page of GEMEL_BEAT_PAGE\n");
		return 2;
	}
	for (int i = 0; i < TRIALS; i++) {
		double began = ns();
		for (int k = 0; k < BEATS; k++) {
			gemel_beat(b);
			__asm__ volatile("" ::: "memory"); /* each beat is a store of its own */
		}
		printf("%.4f\n", (ns() - began) / BEATS);
	}
	gemel_done(b);
	return 0;
}
