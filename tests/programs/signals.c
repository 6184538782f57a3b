/* What programs do with signals and system calls that a recording must outlive; each way of it is an argument. */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void *grow(void *unused)
{
    for (int i = 0; i < 2000; i++)
        memset(malloc(5000), 1, 5000);
    return unused;
}

static void handler(int number) { write(1, "handled ", 8); }

static void confine(int raw)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fallocate, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {6, filter};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (raw)
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
    else
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int main(int count, char **word)
{
    const char *way = word[1];
    sigset_t all;
    unsigned long mask = ~0UL;
    pthread_t thread;
    sigfillset(&all);
    if (!strcmp(way, "block"))
        sigprocmask(SIG_SETMASK, &all, NULL);
    if (!strcmp(way, "raw_block"))
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
    if (!strcmp(way, "handle"))
        signal(SIGSYS, handler);
    if (!strcmp(way, "seccomp") || !strcmp(way, "raw_seccomp"))
        confine(*way == 'r');
    if (!strcmp(way, "seccomp_fork")) {
        int status;
        confine(0);
        if (!fork()) {
            grow(NULL);
            _exit(3);
        }
        wait(&status);
        if (status != 3 << 8)
            return 1;
    }
    if (!strcmp(way, "title")) {             /* as setproctitle does */
        for (char **entry = environ; *entry; entry++)
            memset(*entry, 0, strlen(*entry));
        if (!fork()) {
            grow(NULL);
            _exit(0);
        }
    }
    if (!strcmp(way, "raw_fork") && !syscall(SYS_fork)) {
        grow(NULL);
        _exit(0);
    }
    if (!strcmp(way, "vfork") && !vfork()) {
        execl("/bin/true", "true", (char *)NULL);
        _exit(1);
    }
    if (!strcmp(way, "drop") && !fork()) {
        unsetenv("LD_PRELOAD");
        execl("/bin/ls", "ls", "/dev/null", (char *)NULL);
    }
    grow(NULL);
    pthread_create(&thread, NULL, grow, NULL);
    pthread_join(thread, NULL);
    if (!strcmp(way, "handle"))
        raise(SIGSYS);
    if (!strcmp(way, "raw_exit"))
        syscall(SYS_exit_group, 6);
    if (!strcmp(way, "kill"))
        kill(getpid(), SIGKILL);
    while (wait(NULL) > 0)
        ;
    puts("done");
    return 5;
}
