/* snapshot(label): writes "MARK label" to standard output, then its own /proc/self/maps to maps_label.txt. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static char snapshot_text[64 * 1024];

static void snapshot(const char *label)
{
    char line[64];
    int length = snprintf(line, sizeof line, "MARK %s\n", label);
    if (write(1, line, length) != length) _exit(9);
    int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    snprintf(line, sizeof line, "maps_%s.txt", label);
    int out = open(line, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    for (ssize_t n; (n = read(maps, snapshot_text, sizeof snapshot_text)) > 0;)
        if (write(out, snapshot_text, n) != n) _exit(9);
    close(maps);
    close(out);
}
