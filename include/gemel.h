/* gemel.h: what a C or C++ program uses that runs under Gemel.
 *
 *   gemel_beat_t *b = gemel_thread("worker");
 *   for (;;) { gemel_beat(b); work(); }
 *   gemel_done(b);
 *
 * Header only, no library, C11 with GNU or Clang atomics (also C++), Linux.
 * Everything is safe and does nothing when the program was not started by Gemel.
 * The layout of the page is described in docs/beat-page.md; it is that of Gemel's
 * Go package. Each file that includes this header maps the page for itself; all
 * of them share its places.
 */
#ifndef GEMEL_H
#define GEMEL_H 1

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef O_CLOEXEC /* a strict standard was asked for, and another header came first */
#error "include gemel.h before every other header, or compile with -D_GNU_SOURCE"
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum {
	GEMEL_PAGE_VERSION = 1,
	GEMEL_HEADER_SIZE = 64,
	GEMEL_SLOT_SIZE = 64,
	GEMEL_MAX_SLOTS = 16384,
	GEMEL_PAGE_SIZE = GEMEL_HEADER_SIZE + GEMEL_MAX_SLOTS * GEMEL_SLOT_SIZE,
	GEMEL_FREE = 0,
	GEMEL_CLAIMING = 1,
	GEMEL_LIVE = 2,
	GEMEL_DONE = 3
};

struct gemel_header {
	char magic[8]; /* "GEMELBP" and a zero */
	uint32_t version;
	uint32_t slot_size;
	uint32_t slots;
	uint32_t used; /* no slot from here on was ever claimed */
	uint8_t reserved[40];
};

/* One place. owner: state in the low half, low 32 bits of GEMEL_START in the high
 * half. */
typedef struct gemel_slot {
	uint64_t counter;
	uint64_t owner;
	uint32_t tid;
	uint32_t reserved1;
	char name[32];
	uint64_t reserved2;
} gemel_beat_t;

/* gemel_start returns the number of this start of the program, 0 if not run under
 * Gemel. */
static inline uint64_t gemel_start(void)
{
	const char *s = getenv("GEMEL_START");
	return s ? strtoull(s, NULL, 10) : 0;
}

static inline struct gemel_header *gemel_map_page(void)
{
	const char *path = getenv("GEMEL_BEAT_PAGE");
	struct gemel_header *h;
	struct stat st;
	void *mem;
	int fd;

	if (!path || !*path)
		return NULL;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size < GEMEL_PAGE_SIZE) {
		close(fd);
		return NULL;
	}
	mem = mmap(NULL, GEMEL_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (mem == MAP_FAILED)
		return NULL;
	h = (struct gemel_header *)mem;
	if (memcmp(h->magic, "GEMELBP", 8) != 0 || h->version != GEMEL_PAGE_VERSION ||
	    h->slot_size != GEMEL_SLOT_SIZE) {
		munmap(mem, GEMEL_PAGE_SIZE);
		return NULL;
	}
	return h;
}

/* gemel_page maps the page once; threads that race map it twice, and one copy is
 * given back. */
static inline struct gemel_header *gemel_page(void)
{
	static struct gemel_header *page;
	struct gemel_header *have = __atomic_load_n(&page, __ATOMIC_ACQUIRE), *mine;

	if (have)
		return have;
	mine = gemel_map_page();
	if (!mine)
		return NULL;
	have = NULL;
	if (!__atomic_compare_exchange_n(&page, &have, mine, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
		munmap(mine, GEMEL_PAGE_SIZE);
		return have;
	}
	return mine;
}

/* gemel_next holds the number below which no place is free, as far as is known. */
static inline uint32_t *gemel_next(void)
{
	static uint32_t next;
	return &next;
}

/* gemel_thread claims a place on the beat page for the calling thread and beats
 * once. The name is for people and is cut to 32 bytes. From now on the thread is
 * missed if it is silent for longer than the manifest's watchdog allows. Returns
 * NULL, which gemel_beat and gemel_done accept, if nobody listens. */
static inline gemel_beat_t *gemel_thread(const char *name)
{
	struct gemel_header *page = gemel_page();
	uint64_t me = (uint64_t)(uint32_t)gemel_start() << 32;
	gemel_beat_t *slots;
	uint32_t first, i, k, n, used;

	if (!page)
		return NULL;
	slots = (gemel_beat_t *)((char *)page + GEMEL_HEADER_SIZE);
	n = __atomic_load_n(&page->slots, __ATOMIC_RELAXED);
	if (n > GEMEL_MAX_SLOTS)
		n = GEMEL_MAX_SLOTS;
	first = __atomic_load_n(gemel_next(), __ATOMIC_RELAXED);
	for (k = 0; k < n; k++) {
		gemel_beat_t *s;
		uint64_t old;
		uint32_t state;

		i = (first + k) % n;
		s = &slots[i];
		old = __atomic_load_n(&s->owner, __ATOMIC_ACQUIRE);
		state = (uint32_t)old;

		if (old >> 32 == me >> 32 && state != GEMEL_FREE && state != GEMEL_DONE)
			continue;
		if (!__atomic_compare_exchange_n(&s->owner, &old, me | GEMEL_CLAIMING, 0,
						 __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			continue;
		__atomic_store_n(gemel_next(), i + 1, __ATOMIC_RELAXED);
		s->tid = (uint32_t)syscall(SYS_gettid);
		memset(s->name, 0, sizeof s->name);
		if (name)
			memcpy(s->name, name, strnlen(name, sizeof s->name));
		__atomic_add_fetch(&s->counter, 1, __ATOMIC_RELAXED);
		__atomic_store_n(&s->owner, me | GEMEL_LIVE, __ATOMIC_RELEASE);
		used = __atomic_load_n(&page->used, __ATOMIC_RELAXED);
		while (used < i + 1 && !__atomic_compare_exchange_n(&page->used, &used, i + 1, 0,
								    __ATOMIC_RELEASE, __ATOMIC_RELAXED))
			;
		return s;
	}
	return NULL;
}

/* gemel_beat says that the thread is well: one atomic store, no system call. Only
 * the thread that claimed the place may call it. */
static inline void gemel_beat(gemel_beat_t *b)
{
	if (b)
		__atomic_store_n(&b->counter, __atomic_load_n(&b->counter, __ATOMIC_RELAXED) + 1,
				 __ATOMIC_RELAXED);
}

/* gemel_done gives the place back: a thread that ended on purpose is not missed.
 * Do not beat after it. */
static inline void gemel_done(gemel_beat_t *b)
{
	struct gemel_header *page = gemel_page();
	uint64_t old;
	uint32_t i;

	if (!b || !page)
		return;
	old = __atomic_load_n(&b->owner, __ATOMIC_RELAXED);
	if ((uint32_t)old == GEMEL_LIVE)
		__atomic_compare_exchange_n(&b->owner, &old, (old & ~(uint64_t)0xffffffff) | GEMEL_DONE, 0,
					    __ATOMIC_RELEASE, __ATOMIC_RELAXED);
	/* Low places are used again first, so that little is read of the page. */
	i = (uint32_t)(b - (gemel_beat_t *)((char *)page + GEMEL_HEADER_SIZE));
	if (i < __atomic_load_n(gemel_next(), __ATOMIC_RELAXED))
		__atomic_store_n(gemel_next(), i, __ATOMIC_RELAXED);
}

/* gemel_notify sends one notification by the protocol of sd_notify. Returns 0, or
 * the errno of what failed; 0 as well if nobody listens. It waits two seconds at
 * most. */
static inline int gemel_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct timeval wait = {2, 0};
	struct sockaddr_un to;
	socklen_t tolen;
	char text[1024];
	size_t len;
	int fd, n, err = 0;

	if (!path || !*path)
		return 0;
	len = strlen(path);
	if ((*path != '/' && *path != '@') || len >= sizeof to.sun_path)
		return EINVAL;
	memset(&to, 0, sizeof to);
	to.sun_family = AF_UNIX;
	memcpy(to.sun_path, path, len);
	tolen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (*path == '/'));
	if (*path == '@')
		to.sun_path[0] = 0;
	n = snprintf(text, sizeof text, "%s\nX_GEMEL_START=%llu", state, (unsigned long long)gemel_start());
	if (n < 0 || (size_t)n >= sizeof text)
		return EMSGSIZE;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return errno;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait) != 0)
		err = errno;
	while (!err && sendto(fd, text, (size_t)n, MSG_NOSIGNAL, (struct sockaddr *)&to, tolen) < 0)
		if (errno != EINTR)
			err = errno;
	close(fd);
	return err;
}

/* gemel_ready says that the program can be used now. */
static inline int gemel_ready(void) { return gemel_notify("READY=1"); }

/* gemel_stopping says that the program is about to end on purpose. */
static inline int gemel_stopping(void) { return gemel_notify("STOPPING=1"); }

/* gemel_status tells in one line what the program does; it is cut to 500 bytes. */
static inline int gemel_status(const char *text)
{
	char line[512];
	char *c;

	snprintf(line, sizeof line, "STATUS=%s", text);
	for (c = line; *c; c++)
		if ((unsigned char)*c < ' ')
			*c = ' ';
	return gemel_notify(line);
}

#ifdef __cplusplus
}
#endif
#endif
