/* Keeps how each program begins and ends: preloaded (LD_PRELOAD) into a tracer, strace or ltrace, by `replay record`,
 * which says in the environment
 *     REPLAY_RECORD_TRACEES  the directory that the files go to: PID.N.maps, PID.N.auxv, PID.N.limits and PID.N.status,
 *                            as /proc/PID has them, N counting from 0 on what a process executes
 *
 * A tracer hears by wait4 that execve is done and the process stopped before the first instruction of the program
 * (ptrace(2), PTRACE_EVENT_EXEC; a plain SIGTRAP of the first one, where it was not attached to). No call was made then,
 * and none is before the tracer, which is in our function, lets it. So it hears that a process ends and still has its
 * memory (PTRACE_EVENT_EXIT, which ltrace does not ask for). The traced program sees nothing of it: neither this library
 * nor the variables are in its environment.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define VISIBLE __attribute__((visibility("default")))
#define VARIABLE "REPLAY_RECORD_TRACEES"

static char directory[PATH_MAX - 64];
static bool begun;

/* Copy a file of /proc into one that is not there; false where it is. */
static bool keep(pid_t pid, int number, const char *name)
{
    char path[PATH_MAX], buffer[4096];
    snprintf(path, sizeof path, "%s/%d.%d.%s", directory, pid, number, name);
    int out = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (out < 0)
        return errno != EEXIST;
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    int in = open(path, O_RDONLY | O_CLOEXEC);
    for (ssize_t count; in >= 0 && (count = read(in, buffer, sizeof buffer)) > 0;)
        if (write(out, buffer, count) != count)
            break;
    close(out);
    if (in >= 0)
        close(in);
    return true;
}

static void executed(pid_t pid)
{
    int number = 0;
    while (!keep(pid, number, "maps"))
        number++;
    keep(pid, number, "auxv");
    keep(pid, number, "limits");
    begun = true;
}

static bool is_there(pid_t pid, int number, const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%d.%d.%s", directory, pid, number, name);
    return !access(path, F_OK);
}

/* Keep what was resident. Each thread ends by itself, but of those only the first one has the number of the process. */
static void ended(pid_t pid)
{
    char path[64], line[256];
    int number = 0, process = 0;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *status = fopen(path, "re");
    while (status && !process && fgets(line, sizeof line, status))
        sscanf(line, "Tgid: %d", &process);
    if (status)
        fclose(status);
    while (is_there(pid, number + 1, "maps"))
        number++;
    if (process == pid)
        keep(pid, number, "status");
}

static void told_of(pid_t pid, int status)
{
    int before = errno, what = status >> 8;
    if (what == (SIGTRAP | PTRACE_EVENT_EXEC << 8) || (!begun && what == SIGTRAP))
        executed(pid);
    else if (what == (SIGTRAP | PTRACE_EVENT_EXIT << 8))
        ended(pid);
    errno = before;
}

VISIBLE pid_t wait4(pid_t pid, int *status, int options, struct rusage *usage)
{
    static pid_t (*real)(pid_t, int *, int, struct rusage *);
    if (!real)
        real = (__typeof__(real))dlsym(RTLD_NEXT, "wait4");
    int told = 0;
    pid_t found = real(pid, &told, options, usage);
    if (found > 0 && *directory)
        told_of(found, told);
    if (status)
        *status = told;
    return found;
}

VISIBLE pid_t waitpid(pid_t pid, int *status, int options) { return wait4(pid, status, options, NULL); }

__attribute__((constructor)) static void start(void)
{
    const char *asked = getenv(VARIABLE), *preloaded = getenv("LD_PRELOAD");
    if (!asked || !preloaded || strlen(asked) >= sizeof directory)
        return;
    strcpy(directory, asked);
    unsetenv(VARIABLE);
    const char *rest = strchr(preloaded, ':');         /* we are the first of what is preloaded */
    if (rest)
        setenv("LD_PRELOAD", rest + 1, true);
    else
        unsetenv("LD_PRELOAD");
}
