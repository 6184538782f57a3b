/* Has a malloc of its own, which never frees; executes the words it is given, if any. */
#include <stddef.h>
#include <string.h>
#include <unistd.h>

static char memory[1 << 20] __attribute__((aligned(16)));
static size_t used;

void *malloc(size_t size)
{
    used += size + 15 & ~15UL;
    return memory + used - (size + 15 & ~15UL);
}
void *calloc(size_t count, size_t size) { return memset(malloc(count * size), 0, count * size); }
void *realloc(void *block, size_t size) { return block ? memcpy(malloc(size), block, size) : malloc(size); }
void free(void *block) {}

int main(int count, char **words)
{
    if (count > 1)
        execv(words[1], words + 1);
    return malloc(5000) && write(1, "own\n", 4) == 4 ? 0 : 1;
}
