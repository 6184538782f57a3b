/* A forked child changes its own copy of the memory, a vforked one the parent's, and the program executes itself. */
#define _GNU_SOURCE
#include "../snapshot.h"
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

static char *map(size_t pages)
{
    return mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        snapshot("again");
        return 0;
    }
    free(malloc(100));
    char *sixteen = map(16);
    madvise(sixteen + 2 * 4096, 4096, MADV_DONTFORK);
    snapshot("parent");
    pid_t child = fork();
    if (child == 0) {
        munmap(sixteen, 4096);
        mprotect(sixteen + 8 * 4096, 4096, PROT_NONE);
        malloc(300000);
        sbrk(65536);
        snapshot("child");
        _exit(0);
    }
    waitpid(child, NULL, 0);
    snapshot("after_fork");
    child = vfork();
    if (child == 0) {
        map(5);
        execl("/nonexistent", "nonexistent", (char *)NULL);
        execl("/bin/true", "true", (char *)NULL);
        _exit(127);
    }
    waitpid(child, NULL, 0);
    snapshot("after_vfork");
    execl(argv[0], argv[0], "again", (char *)NULL);
    return 1;
}
