/* Grows the break, maps one page right above it, and goes on: each growth is refused from then on. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(void) {
    static void *blocks[3000];
    for (int i = 0; i < 100; i++) blocks[i] = malloc(1000);
    void *page = mmap((char *)sbrk(0) + 4 * 4096, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    for (int i = 100; i < 3000; i++) blocks[i] = malloc(1000);
    for (int i = 0; i < 3000; i += 2) free(blocks[i]);
    return page == MAP_FAILED;
}
