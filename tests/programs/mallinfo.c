/* Prints what mallinfo2 says at moments that are marked by a call that fails, munmap(1, 0x777), and its own counts. */
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t live, peak;

static void *take(size_t size)
{
    live += size;
    peak = live > peak ? live : peak;
    return malloc(size);
}

static void give(void *block, size_t size)
{
    live -= size;
    free(block);
}

static void show(void)
{
    char text[200];
    struct mallinfo2 found = mallinfo2();
    munmap((void *)1, 0x777);
    write(1, text, sprintf(text, "heap=%zu free=%zu mapped=%zu live=%zu peak=%zu\n", found.arena, found.fordblks,
                           found.hblkhd, live, peak));
}

static void *work(void *unused)
{
    void *blocks[100];
    for (int place = 0; place < 100; place++)
        blocks[place] = malloc(2000 + place);
    for (int place = 0; place < 100; place++)
        free(blocks[place]);
    return unused;
}

int main(void)
{
    static void *blocks[3000];
    for (int place = 0; place < 3000; place++)
        blocks[place] = take(10 + place % 900);
    show();
    for (int place = 0; place < 3000; place += 3)
        give(blocks[place], 10 + place % 900);
    show();
    void *large = take(5000000), *other = take(300000);
    show();
    give(large, 5000000);
    show();
    for (int place = 0; place < 3000; place++)
        if (place % 3)
            give(blocks[place], 10 + place % 900);
    show();
    malloc_trim(0);
    show();
    pthread_t thread;
    pthread_create(&thread, NULL, work, NULL);
    pthread_join(thread, NULL);
    show();
    return !other;
}
