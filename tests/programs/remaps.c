/* Every way to change a mapping, with a snapshot after each group. */
#define _GNU_SOURCE
#include "snapshot.h"
#include <stdlib.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#define P 4096
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
#define RW (PROT_READ | PROT_WRITE)

int main(void)
{
    char *a = mmap(NULL, 64 * P, RW, ANON, -1, 0);
    mprotect(a + 4 * P, 4 * P, PROT_READ);
    munmap(a + 6 * P, 4 * P);
    mmap(a + 20 * P, 4 * P, PROT_READ | PROT_EXEC, ANON | MAP_FIXED, -1, 0);
    mprotect(a + 2 * P, 10 * P, PROT_NONE); /* ENOMEM at the hole, the pages before it change */
    snapshot("cut");

    char *b = mmap(NULL, 16 * P, RW, ANON, -1, 0);
    b[0] = 1;
    b = mremap(b, 16 * P, 200 * P, MREMAP_MAYMOVE);
    mremap(b, 200 * P, 100 * P, 0);
    mremap(b + 10 * P, 2 * P, 2 * P, MREMAP_MAYMOVE | MREMAP_FIXED, a + 30 * P);
    mremap(b + 50 * P, 4 * P, 8 * P, MREMAP_MAYMOVE);
    snapshot("remapped");

    int file = open("data.bin", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (ftruncate(file, 32 * P)) return 1;
    char *f = mmap(NULL, 8 * P, PROT_READ, MAP_PRIVATE, file, 2 * P);
    mprotect(f + P, P, RW);
    munmap(f + 4 * P, P);
    char *s = mmap(NULL, 4 * P, RW, MAP_SHARED, file, 16 * P);
    mremap(s, 0, 4 * P, MREMAP_MAYMOVE);
    mremap(f + 6 * P, 2 * P, 2 * P, MREMAP_MAYMOVE | MREMAP_FIXED, a + 40 * P);
    snapshot("file");

    mmap(NULL, 3 * P, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int memory = memfd_create("scratch", 0);
    if (ftruncate(memory, 4 * P)) return 1;
    mmap(NULL, 4 * P, RW, MAP_SHARED, memory, 0);
    int id = shmget(IPC_PRIVATE, 5 * P, IPC_CREAT | 0600);
    char *z = shmat(id, NULL, 0);
    char *y = shmat(id, NULL, SHM_RDONLY);
    shmctl(id, IPC_RMID, NULL);
    munmap(y + P, P);
    snapshot("shared");

    shmdt(z);
    shmdt(y);
    syscall(SYS_remap_file_pages, s, P, 0, 2, 0);
    char *top = sbrk(0);
    if (brk(top + 10 * P + 123) || brk(top + 3 * P + 1)) return 1;
    munmap(top + P, P);
    mmap(top + P, P, PROT_NONE, ANON | MAP_FIXED, -1, 0);
    snapshot("heap");

    if (brk(top)) return 1;
    close(file);
    munmap(a, 64 * P);
    snapshot("end");
    return 0;
}
