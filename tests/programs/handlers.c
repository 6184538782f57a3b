/* What programs do in signal handlers that come while malloc runs, each way of it an argument. Blocks of 77 bytes are
 * asked for by handlers alone. */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int count;
static sigjmp_buf out;
static char *page;

static void asks(int signal) { malloc(77), __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST); }

static void jumps(int signal)
{
    asks(signal);
    siglongjmp(out, 1);
}

static void mends(int signal, siginfo_t *info, void *context)
{
    if ((uintptr_t)info->si_addr - (uintptr_t)page >= 4096)
        _exit(9);
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
    write(1, "mended ", 7);
}

static void leaves(int signal) { _exit(signal); }

static void every(int microseconds)
{
    struct itimerval timer = {{0, microseconds}, {0, microseconds}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

static void *churn(void *rounds)
{
    for (long i = 0; i < (long)rounds; i++)
        free(malloc(100 + i % 3000));
    return NULL;
}

static void fork_many(int children)
{
    for (int child = 0; child < children; child++) {
        pid_t pid = fork();
        if (!pid) {
            churn((void *)100);
            _exit(0);
        }
        while (waitpid(pid, NULL, 0) < 0)
            ;
    }
}

static void alarms(const char *way)
{
    pthread_t thread[2];
    signal(SIGALRM, strcmp(way, "jump") ? asks : jumps);
    every(500);
    if (!strcmp(way, "jump"))
        while (count < 200)
            if (!sigsetjmp(out, 1))
                churn((void *)100000000);
    if (!strcmp(way, "alarm"))
        churn((void *)300000);
    if (!strcmp(way, "threads")) {
        for (int i = 0; i < 2; i++)
            pthread_create(&thread[i], NULL, churn, (void *)100000);
        fork_many(20);
        for (int i = 0; i < 2; i++)
            pthread_join(thread[i], NULL);
    }
    every(0);
    dprintf(1, "handled=%d\n", count);
}

int main(int words, char **word)
{
    const char *way = word[1];
    struct sigaction action = {.sa_handler = asks}, old;
    if (!strcmp(way, "alarm") || !strcmp(way, "jump") || !strcmp(way, "threads"))
        alarms(way);
    if (!strcmp(way, "fault")) {
        char *block = malloc(100000), *behind = malloc(10);
        page = (char *)(((uintptr_t)block + 8192) & ~4095UL);
        action.sa_sigaction = mends, action.sa_flags = SA_SIGINFO;
        sigaction(SIGSEGV, &action, NULL);
        mprotect(page, 4096, PROT_NONE);
        block = realloc(block, 120000);
        dprintf(1, "%d\n", block && behind);
    }
    if (!strcmp(way, "query")) {
        sigaction(SIGUSR1, &action, NULL);
        sigaction(SIGUSR1, NULL, &old);
        dprintf(1, "%d %#x ", old.sa_handler == asks, old.sa_flags & (SA_SIGINFO | SA_RESETHAND));
        dprintf(1, "%d ", signal(SIGUSR1, leaves) == asks);
        dprintf(1, "%d ", signal(SIGUSR1, SIG_IGN) == leaves);
        dprintf(1, "%d\n", signal(SIGUSR1, SIG_DFL) == SIG_IGN);
    }
    if (!strcmp(way, "once")) {
        action.sa_flags = SA_RESETHAND;
        sigaction(SIGTERM, &action, NULL);
        raise(SIGTERM);
        write(1, "still here\n", 11);
        raise(SIGTERM);
    }
    if (!strcmp(way, "fork")) {
        int status, ends = 0;
        signal(SIGTERM, leaves);
        for (int i = 0; i < 50; i++) {
            pid_t pid = fork();
            if (!pid)
                for (;;)
                    pause();
            kill(pid, SIGTERM);
            waitpid(pid, &status, 0);
            ends += WIFEXITED(status) && WEXITSTATUS(status) == SIGTERM;
        }
        dprintf(1, "%d\n", ends);
    }
    return 4;
}
