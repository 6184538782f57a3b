/* Forks, then threads, that malloc and free; the live bytes by the program's own count. Its sizes end in 003: those of
 * blocks that libc takes for itself do not. */
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_long live;
static void *kept[64];

static void *work(void *number)
{
    void *block[100];
    for (int round = 0; round < 20; round++) {
        for (long i = 0; i < 100; i++)
            block[i] = malloc(1003 + 1000 * ((i + (long)number) % 9));
        for (int i = 0; i < 100; i++)
            free(block[i]);
    }
    kept[(long)number] = malloc(5003);
    live += 5003;
    return NULL;
}

int main(void)
{
    void *aligned;
    for (long child = 0; child < 3; child++) {
        pid_t pid = fork();
        if (!pid) {
            work((void *)child);
            _exit(0);
        }
        waitpid(pid, NULL, 0);
    }
    pthread_t thread[8];
    for (long i = 0; i < 8; i++)
        pthread_create(&thread[i], NULL, work, (void *)i);
    for (int i = 0; i < 8; i++)
        pthread_join(thread[i], NULL);
    kept[8] = realloc(malloc(2003), 700003);
    kept[9] = calloc(1, 9003);
    if (posix_memalign(&aligned, 4096, 3003))
        return 1;
    live += 700003 + 9003 + 3003;
    free(kept[0]);
    live -= 5003;
    dprintf(1, "live=%ld blocks=%d\n", live, 7 + 3);
    return 7;
}
