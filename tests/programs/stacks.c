/* Three blocks from one place, one that libc asks for. */
#include <stdlib.h>
#include <string.h>

static char *volatile block;

__attribute__((noinline)) void leak_here(int size)
{
    block = malloc(size);
    __asm__ volatile("");
}

__attribute__((noinline)) void three_times(void)
{
    for (int i = 0; i < 3; i++)
        leak_here(100 + i);
    __asm__ volatile("");
}

int main(void)
{
    three_times();
    block = strdup("abc");
    return 0;
}
