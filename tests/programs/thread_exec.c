/* A thread that is not the leader executes the program anew: it takes over the leader's pid. */
#include "snapshot.h"
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

static char *program;

static void *leave(void *unused)
{
    mmap(NULL, 5 * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    snapshot("thread");
    execl(program, program, "again", (char *)NULL);
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    if (argc > 1) {
        malloc(200000);
        snapshot("again");
        return 0;
    }
    program = argv[0];
    snapshot("start");
    pthread_create(&thread, NULL, leave, NULL);
    pthread_join(thread, NULL);
    return 1;
}
