/* Serve a stream of recorded malloc requests again, by whatever allocator this process runs with.
 *
 * player STREAM ADDRESSES FIGURES [touch] [as=BYTES] [data=BYTES]
 *
 * STREAM is a header and records (see stream.py, which writes them); ADDRESSES gets, for each record, the address that
 * the allocator answered. The player itself allocates nothing: what it needs it maps, and the blocks that making a
 * thread takes come from a pool. Threads pass a baton: the records are served one by one in their order, each by the
 * thread that it names, which is made when it is first named and ends where it ended, so that arenas are chosen, and
 * given back, as they were.
 *
 * At the end a line of numbers goes to FIGURES: records served, requests refused, nanoseconds, bytes resident
 * at the end, and where most bytes were live (with `touch`). What the stream did stands between two calls
 * `munmap(0x10000, 0)`, which the kernel refuses.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Of linux/futex.h and asm-generic/mman-common.h, which not every libc brings along. */
enum { WAIT_PRIVATE = 128, WAKE_PRIVATE = 129 };
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

enum operation { MALLOC, CALLOC, REALLOC, MEMALIGN, FREE, MALLOPT, MAP, UNMAP, EXIT };

struct record {
    uint16_t operation;
    uint16_t thread;
    uint32_t slot;   /* the block that is given, or freed */
    uint64_t size;   /* bytes asked for; the value of mallopt */
    uint64_t second; /* REALLOC: the old block; MEMALIGN: the alignment; MALLOPT: the parameter; MAP: bytes above the break */
};

struct header {
    uint64_t magic, records, slots, threads;
    uint64_t peak; /* the record after which most bytes are live */
};

static const uint64_t MAGIC = 0x31796c7065725157; /* "WQreply1" */
static const uint64_t NO_SLOT = UINT32_MAX;
static const size_t STACK_BYTES = 256 << 10;
static const size_t PAGE = 4096;
static void *const MARK = (void *)0x10000;

static const struct header *head;
static const struct record *records;
static void **slots;
static uint64_t *addresses;
static uint64_t next_record, refused;
static uint32_t *turns; /* 1 where it is the thread's turn */
static pthread_t *threads; /* 0 where a thread is yet to be made */
static uint32_t ended;     /* the thread that has just ended, and is to be waited for */
static int touch_pages;
static char *first_break;

static uint64_t resident_at_peak;

static void fail(const char *what) {
    dprintf(2, "player: %s: %s\n", what, strerror(errno));
    _exit(2);
}

static void *map_zeros(size_t bytes) {
    /* Shared memory: it is no part of what the allocator makes resident. */
    void *made = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED) fail("mmap");
    return made;
}

#ifdef __GLIBC__
static char *pool, *pool_next, *pool_end;
static int pool_serves; /* while a thread is made */

/* pthread_create takes a block from calloc, which the end of the thread frees; those are none of the stream. */
void *calloc(size_t count, size_t size) {
    static void *(*next)(size_t, size_t);
    if (pool_serves) {
        size_t bytes = (count * size + 63) & ~(size_t)63;
        char *block = pool_next;
        if (bytes > (size_t)(pool_end - pool_next)) abort();
        pool_next += bytes;
        return block;
    }
    if (!next) next = (void *(*)(size_t, size_t))dlsym(RTLD_NEXT, "calloc");
    return next(count, size);
}

void free(void *block) {
    static void (*next)(void *);
    if ((char *)block >= pool && (char *)block < pool_end) return;
    if (!next) next = (void (*)(void *))dlsym(RTLD_NEXT, "free");
    next(block);
}

static void make_pool(size_t bytes) {
    pool = pool_next = map_zeros(bytes);
    pool_end = pool + bytes;
}

static void use_pool(int serves) { pool_serves = serves; }

static void set_option(int option, int value) { mallopt(option, value); }
#else
static void make_pool(size_t bytes) { (void)bytes; }
static void use_pool(int serves) { (void)serves; }
static void set_option(int option, int value) { (void)option, (void)value; }
#endif

/* Return what a line of this process's memory that begins with `name` says, in bytes. */
static uint64_t resident(const char *name) {
    char text[4096];
    int file = open("/proc/self/smaps_rollup", O_RDONLY);
    ssize_t count = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0) close(file);
    if (count <= 0) return 0;
    text[count] = 0;
    const char *found = strstr(text, name);
    return found ? strtoull(found + strlen(name), NULL, 10) << 10 : 0;
}

static void touch(char *block, size_t size) {
    for (size_t at = 0; at < size; at += PAGE) block[at] = 1;
    if (size) block[size - 1] = 1;
}

/* Map what stood in the way of the recorded break at the same distance from this one, or take it away. */
static void *foreign(const struct record *record, void *old) {
    if (record->operation == UNMAP) {
        if (old) munmap(old, record->size);
        return NULL;
    }
    void *made = mmap(first_break + record->second, record->size, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE, -1, 0);
    return made == MAP_FAILED ? NULL : made;
}

static void serve(uint64_t place) {
    const struct record *record = &records[place];
    void *old = record->slot < head->slots ? slots[record->slot] : NULL, *block = NULL;
    switch (record->operation) {
        case MALLOC: block = malloc(record->size); break;
        case CALLOC: block = calloc(1, record->size); break;
        case REALLOC: block = realloc(record->second < head->slots ? slots[record->second] : NULL, record->size); break;
        case MEMALIGN: block = memalign(record->second, record->size); break;
        case FREE: free(old); slots[record->slot] = NULL; return;
        case EXIT: return;
        case MALLOPT: set_option((int)record->second, (int)record->size); return;
        default: block = foreign(record, old);
    }
    addresses[place] = (uint64_t)block;
    if (!block && record->operation < FREE) refused++;
    if (block && touch_pages && record->operation < FREE) touch(block, record->size);
    if (record->operation == REALLOC && block && record->second < head->slots) slots[record->second] = NULL;
    if (record->slot != NO_SLOT) slots[record->slot] = block;
}

static void *play_in_thread(void *number);

static void make_thread(uint32_t number) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, map_zeros(STACK_BYTES), STACK_BYTES);
    use_pool(1);
    errno = pthread_create(&threads[number], &attributes, play_in_thread, (void *)(uintptr_t)number);
    use_pool(0);
    if (errno) fail("pthread_create");
}

static void hand_to(uint32_t thread) {
    if (thread && !threads[thread]) make_thread(thread);
    __atomic_store_n(&turns[thread], 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &turns[thread], WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void wait_for_turn(uint32_t thread) {
    while (!__atomic_load_n(&turns[thread], __ATOMIC_ACQUIRE))
        syscall(SYS_futex, &turns[thread], WAIT_PRIVATE, 0, NULL, NULL, 0);
    __atomic_store_n(&turns[thread], 0, __ATOMIC_RELAXED);
    uint32_t gone = ended;
    ended = 0;
    if (gone) pthread_join(threads[gone], NULL); /* what it had cached is freed by then */
}

/* Serve the records of one thread as often as it has the baton, and hand that on; the first thread comes back last. */
static void play(uint32_t me) {
    for (;;) {
        int ends = 0;
        while (!ends && next_record < head->records && records[next_record].thread == me) {
            ends = records[next_record].operation == EXIT && me;
            serve(next_record);
            if (next_record++ == head->peak && touch_pages) resident_at_peak = resident("Anonymous:");
        }
        uint32_t other = next_record < head->records ? records[next_record].thread : 0;
        if (other == me) return;
        if (ends) ended = me;
        hand_to(other);
        if (ends) return;
        wait_for_turn(me);
    }
}

static void *play_in_thread(void *number) {
    wait_for_turn((uint32_t)(uintptr_t)number);
    play((uint32_t)(uintptr_t)number);
    return NULL;
}

static void expect_threads(void) {
    turns = map_zeros(head->threads * sizeof *turns);
    threads = map_zeros(head->threads * sizeof *threads);
    if (head->threads > 1) make_pool(head->threads * 8192 + 65536);
}

static const void *map_stream(const char *path) {
    struct stat about;
    int file = open(path, O_RDONLY);
    if (file < 0 || fstat(file, &about) < 0) fail(path);
    if ((size_t)about.st_size < sizeof *head) fail("the stream has no header");
    const void *made = mmap(NULL, about.st_size, PROT_READ, MAP_SHARED, file, 0);
    if (made == MAP_FAILED) fail(path);
    close(file);
    head = made;
    if (head->magic != MAGIC || sizeof *head + head->records * sizeof *records > (size_t)about.st_size)
        fail("this is no stream of requests");
    return made;
}

static void map_addresses(const char *path) {
    size_t bytes = head->records * sizeof *addresses;
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0666);
    if (file < 0 || ftruncate(file, bytes) < 0) fail(path);
    addresses = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (addresses == MAP_FAILED) fail(path);
    close(file);
}

/* A limit on this process, beside what the player itself needs. */
static void limit(int resource, const char *bytes, size_t own) {
    struct rlimit both = {strtoull(bytes, NULL, 10) + own, strtoull(bytes, NULL, 10) + own};
    if (setrlimit(resource, &both) < 0) fail("setrlimit");
}

static uint64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int main(int count, char **words) {
    if (count < 4) {
        dprintf(2, "usage: player STREAM ADDRESSES FIGURES [touch] [as=BYTES] [data=BYTES]\n");
        return 2;
    }
    records = (const struct record *)((const char *)map_stream(words[1]) + sizeof *head);
    map_addresses(words[2]);
    int figures = open(words[3], O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (figures < 0) fail(words[3]);
    slots = map_zeros(head->slots * sizeof *slots);
    first_break = (char *)syscall(SYS_brk, 0);
    expect_threads();
    size_t own = head->records * (sizeof *records + sizeof *addresses) + head->slots * sizeof *slots;
    for (int word = 4; word < count; word++) {
        if (!strcmp(words[word], "touch")) touch_pages = 1;
        if (!strncmp(words[word], "as=", 3)) limit(RLIMIT_AS, words[word] + 3, own);
        if (!strncmp(words[word], "data=", 5)) limit(RLIMIT_DATA, words[word] + 5, head->slots * sizeof *slots);
    }
    munmap(MARK, 0);
    uint64_t began = nanoseconds();
    play(0);
    uint64_t took = nanoseconds() - began;
    munmap(MARK, 0);
    char line[160];
    int length = snprintf(line, sizeof line, "%llu %llu %llu %llu %llu\n", (unsigned long long)next_record,
                          (unsigned long long)refused, (unsigned long long)took,
                          (unsigned long long)resident("Anonymous:"), (unsigned long long)resident_at_peak);
    if (write(figures, line, length) != length) fail(words[3]);
    _exit(0);
}
