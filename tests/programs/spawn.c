/* posix_spawn and system() run a child on this program's memory until it executes; fork in fork copies it twice. */
#include "snapshot.h"
#include <spawn.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

extern char **environ;

int main(void)
{
    char *arguments[] = {"true", NULL};
    pid_t child;
    free(malloc(100));
    char *pages = mmap(NULL, 8 * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    posix_spawn(&child, "/bin/true", NULL, NULL, arguments, environ);
    waitpid(child, NULL, 0);
    snapshot("spawned");
    if (system("true")) return 1;
    snapshot("shell");
    if (fork() == 0) {
        munmap(pages + 4096, 4096);
        if (fork() == 0) {
            munmap(pages + 3 * 4096, 4096);
            snapshot("grandchild");
            _exit(0);
        }
        wait(NULL);
        malloc(500000);
        snapshot("child");
        _exit(0);
    }
    wait(NULL);
    snapshot("parent");
    return 0;
}
