/* Three threads allocate at the same time: each gets an arena of its own; one fills more than a heap of 64 MiB. */
#include "../snapshot.h"
#include <pthread.h>
#include <stdlib.h>

static pthread_barrier_t barrier;
static const int blocks[] = {100, 30, 560};

static void *work(void *count)
{
    static __thread char *block[560];
    for (int i = 0; i < *(int *)count; i++) block[i] = malloc(126000);
    pthread_barrier_wait(&barrier); /* grown */
    pthread_barrier_wait(&barrier); /* seen */
    for (int i = *(int *)count - 1; i >= 0; i--) free(block[i]);
    pthread_barrier_wait(&barrier); /* freed */
    pthread_barrier_wait(&barrier); /* seen */
    return NULL;
}

int main(void)
{
    pthread_t thread[3];
    pthread_barrier_init(&barrier, NULL, 4);
    snapshot("start");
    for (int i = 0; i < 3; i++) pthread_create(&thread[i], NULL, work, (void *)&blocks[i]);
    pthread_barrier_wait(&barrier);
    snapshot("grown");
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    snapshot("freed");
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 3; i++) pthread_join(thread[i], NULL);
    snapshot("joined");
    return 0;
}
