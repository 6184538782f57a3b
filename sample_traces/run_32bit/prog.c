/* A 32-bit program: mmap2, addresses of 32 bits, a file mapped with an offset, a break limited by RLIMIT_DATA. */
#define _GNU_SOURCE
#include "../snapshot.h"
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>

int main(int argc, char **argv)
{
    (void)argc;
    free(malloc(16));
    snapshot("start");
    int file = open(argv[0], O_RDONLY | O_CLOEXEC);
    mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, file, 4096);
    for (int i = 0; i < 500; i++) malloc(1000);
    malloc(2000000);
    snapshot("grown");
    struct rlimit limit = {4 * 1024 * 1024, 4 * 1024 * 1024};
    setrlimit(RLIMIT_DATA, &limit);
    int refused = 0;
    for (int i = 0; i < 5000 && refused < 3; i++) refused += malloc(1000) == NULL;
    snapshot("limited");
    return 0;
}
