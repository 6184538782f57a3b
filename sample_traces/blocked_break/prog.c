/* One page right at the break stops it from growing: every extension of the heap fails and goes to mmap instead. */
#define _GNU_SOURCE
#include "../snapshot.h"
#include <stdlib.h>
#include <sys/mman.h>

int main(void)
{
    free(malloc(16));
    char *wall = mmap(sbrk(0), 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (wall == MAP_FAILED) return 1;
    snapshot("blocked");
    for (int i = 0; i < 4000; i++) malloc(1000);
    malloc(400000);
    snapshot("grown");
    munmap(wall, 4096);
    for (int i = 0; i < 1000; i++) malloc(1000);
    snapshot("unblocked");
    return 0;
}
