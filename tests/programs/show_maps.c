/* Prints its own maps at three moments, each marked by a call that fails: munmap(1, 0x777). */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static void show(void)
{
    static char text[1 << 16];
    ssize_t used = 0;
    int file = open("/proc/self/maps", O_RDONLY);
    for (ssize_t count; (count = read(file, text + used, sizeof text - used)) > 0;)
        used += count;
    close(file);
    munmap((void *)1, 0x777);
    write(1, text, used);
    write(1, "--\n", 3);
}

int main(void)
{
    show();
    char *large = malloc(3000000), *small = malloc(200000);
    int file = open("/etc/passwd", O_RDONLY);
    mmap(NULL, 100, PROT_READ, MAP_SHARED, file, 0);
    mmap(NULL, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    show();
    free(large);
    mprotect((void *)(((long)small + 4095) & -4096), 4096, PROT_READ);
    show();
}
