/* Writes what a program does with memory as text: malloc and its kin as `ltrace -f -S` prints them.
 *
 * Preloaded (LD_PRELOAD) by `replay record`, which says in the environment
 *     REPLAY_RECORD         the directory that the files go to, one for each image that runs: PID.N.log, and beside it
 *                           PID.N.maps, PID.N.auxv and PID.N.limits, as /proc/PID has them before the first malloc,
 *                           and PID.N.status, as it has that at the end
 *     REPLAY_RECORD_CALLS   if set, the program's own memory calls, forks, threads and ends are written too, an mmap
 *                           of a file in the form of strace; without, strace writes them beside us
 *     REPLAY_RECORD_STACKS  how many return addresses are written behind each allocation, ` > 0xADDRESS`
 *
 * A line is `TID SECONDS.NANOSECONDS malloc(24) = 0x5581999bb2a0`, and where the allocator calls the kernel
 *     TID TIME malloc(5000 <unfinished ...>
 *     TID TIME SYS_brk(0x5581999dc000) = 0x5581999dc000
 *     TID TIME <... malloc resumed> ) = 0x5581999bb2a0
 * These system calls are seen by Syscall User Dispatch (Linux 5.11, Documentation/admin-guide/syscall-user-dispatch):
 * while the real allocator runs, and only then, each system call of the thread raises SIGSYS, and our handler makes it.
 *
 * One lock is held from before the real call until its line is written: the order of lines is the order of effects.
 * Lines go to a window of the file that is mapped here: what a killed program wrote last is in the file all the same.
 * The page `state` is wiped in a forked child (MADV_WIPEONFORK), which begins a file of its own.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define VISIBLE __attribute__((visibility("default")))
#define OWN_PAGE __attribute__((aligned(65536)))
#define LIKELY(condition) __builtin_expect(!!(condition), 1)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

enum {
    WINDOW = 1 << 20,         /* bytes of the file that are mapped at a time */
    LONGEST = 16 << 10,       /* bytes that a line takes at most */
    EARLY = 64 << 10,         /* bytes for what asks for memory before the real malloc is found */
    SHORTEST = 1000,          /* nanoseconds that a call of the kernel takes at least, under strace */
    MOST_FRAMES = 64,
    MOST_STARTS = 256,        /* threads that are being started at one time */
    MOST_WAITING = 8,         /* signals of one thread that wait for the end of a call */
    SIGNALS = 65,
    DISPATCH = 59,            /* PR_SET_SYSCALL_USER_DISPATCH */
    POPULATE_WRITE = 23,      /* MADV_POPULATE_WRITE */
    WIPE_ON_FORK = 18,        /* MADV_WIPEONFORK */
    BY_DISPATCH = 2,          /* si_code SYS_USER_DISPATCH */
    ALLOW = 0,                /* SYSCALL_DISPATCH_FILTER_ALLOW */
    BLOCK = 1,                /* SYSCALL_DISPATCH_FILTER_BLOCK */
};

/* --- system calls of our own: without errno, from a range that dispatch lets through --------------------------- */

#if defined(__x86_64__) && !defined(WITHOUT_DISPATCH)
long replay_call(long number, long, long, long, long, long, long);
extern char replay_calls[], replay_sigreturn[], replay_calls_end[];
__asm__(".text\n"
        ".hidden replay_call, replay_calls, replay_sigreturn, replay_calls_end\n"
        ".globl replay_call, replay_calls, replay_sigreturn, replay_calls_end\n"
        "replay_calls:\n"
        "replay_call:\n"
        "    mov %rdi, %rax\n"
        "    mov %rsi, %rdi\n"
        "    mov %rdx, %rsi\n"
        "    mov %rcx, %rdx\n"
        "    mov %r8, %r10\n"
        "    mov %r9, %r8\n"
        "    mov 8(%rsp), %r9\n"
        "    syscall\n"
        "    ret\n"
        "replay_sigreturn:\n"
        "    mov $15, %eax\n"
        "    syscall\n"
        "    ud2\n"
        "replay_calls_end:\n");
#define CAN_DISPATCH 1
#else
static long replay_call(long number, long a, long b, long c, long d, long e, long f)
{
    int before = errno;
    long result = syscall(number, a, b, c, d, e, f);
    result = result == -1 ? -errno : result;
    errno = before;
    return result;
}
#define CAN_DISPATCH 0
#endif
#define CALL_6(number, a, b, c, d, e, f, ...) \
    replay_call(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define CALL(...) CALL_6(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

#if CAN_DISPATCH
extern void *replay_real_syscall __attribute__((visibility("hidden")));
#endif

static bool refused(long result) { return (unsigned long)result >= -4095UL; }

/* --- what is known ---------------------------------------------------------------------------------------------- */

static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void *(*reallocarray)(void *, size_t, size_t);
    void (*free)(void *);
    int (*posix_memalign)(void **, size_t, size_t);
    void *(*aligned_alloc)(size_t, size_t);
    void *(*memalign)(size_t, size_t);
    void *(*valloc)(size_t);
    void *(*pvalloc)(size_t);
    size_t (*malloc_usable_size)(void *);
    int (*malloc_trim)(size_t);
    int (*mallopt)(int, int);
    void *(*sbrk)(intptr_t);
    int (*brk)(void *);
    int (*pthread_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    int (*sigaction)(int, const struct sigaction *, struct sigaction *);
    void (*(*signal)(int, void (*)(int)))(int);
    void (*(*bsd_signal)(int, void (*)(int)))(int);
    void (*(*sysv_signal)(int, void (*)(int)))(int);
    void (*(*__sysv_signal)(int, void (*)(int)))(int);
    void (*(*sigset)(int, void (*)(int)))(int);
    int (*sigblock)(int);
    int (*sigsetmask)(int);
    int (*sigprocmask)(int, const sigset_t *, sigset_t *);
    int (*pthread_sigmask)(int, const sigset_t *, sigset_t *);
    int (*sigsuspend)(const sigset_t *);
    int (*ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
    int (*pselect)(int, fd_set *, fd_set *, fd_set *, const struct timespec *, const sigset_t *);
    int (*epoll_pwait)(int, struct epoll_event *, int, int, const sigset_t *);
    int (*prctl)(int, ...);
    int (*walk_stack)(int (*)(void *, void *), void *);
    void *(*frame_address)(void *);
} real;

static struct {               /* of this image; a forked child has the same */
    bool found;               /* the real functions are */
    bool finding;
    bool begun;               /* its first process is recorded */
    bool own_calls;
    bool dispatching;
    bool confined;            /* by seccomp, as its children are */
    int frames;
    int64_t last_ns;          /* the time of the last line, of which a forked child's first one comes next */
    char directory[900];      /* a copy: programs write their titles over the environment */
    char *window;             /* where the file is mapped */
    char early[EARLY] __attribute__((aligned(16)));
    size_t early_used;
} image;

static union {                /* of this process: zero in a forked child */
    struct {
        int lock;             /* 0 free, 1 held, 2 held and waited for */
        bool recording;
        bool off;
        size_t used;          /* bytes of the window that are written */
        off_t offset;         /* where in the file the window begins */
        int pid;
        time_t second;        /* whose digits these are */
        char second_digits[16];
        char path[1024];
    };
    char page[65536];
} state OWN_PAGE;

struct call {                 /* a call of libc while it runs */
    const char *name;
    const char *kinds;        /* of its arguments: p pointer, u number, d signed */
    unsigned long argument[3];
    int64_t time_ns;
    bool is_open;             /* its `<unfinished ...>` line is written */
};

static __thread struct {
    bool busy;                /* inside one of our functions: what else is called there is not written */
    bool holds;               /* the lock */
    bool registered;
    bool dispatching;
    bool fresh;               /* the line that it was made is not written */
    int ends;
    char by[16];              /* the thread that made it, as text, where we know */
    volatile unsigned char selector;
    struct call *call;
    int tid_length;
    char tid[16];             /* as text, with a space behind it */
    void *frame[MOST_FRAMES];
    int frames;
    int waiting;
    struct waiting {          /* a signal that came while this thread was busy */
        int pid;              /* the process that it came to */
        siginfo_t info;
    } waits[MOST_WAITING];
} self __attribute__((tls_model("initial-exec")));

/* --- the lock --------------------------------------------------------------------------------------------------- */

static void take_lock(void)
{
    int is = 0;
    if (__atomic_compare_exchange_n(&state.lock, &is, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return;
    for (int spins = 0; spins < 100; spins++) {
        is = 0;
        if (__atomic_compare_exchange_n(&state.lock, &is, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            return;
        __asm__ volatile("" ::: "memory");
    }
    while (__atomic_exchange_n(&state.lock, 2, __ATOMIC_ACQUIRE))
        CALL(SYS_futex, &state.lock, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
}

static void lock(void)
{
    take_lock();
    self.holds = true;
}

static void unlock(void)
{
    self.holds = false;
    if (__atomic_exchange_n(&state.lock, 0, __ATOMIC_RELEASE) == 2)
        CALL(SYS_futex, &state.lock, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* Send the signals that waited, and this process's alone: a forked child has a copy of those of its parent. */
static void deliver(void)
{
    unsigned long all = ~(1UL << (SIGSYS - 1)), before;
    int pid = CALL(SYS_getpid);
    CALL(SYS_rt_sigprocmask, SIG_BLOCK, &all, &before, 8);
    for (int place = 0; place < self.waiting; place++)
        if (self.waits[place].pid == pid)
            CALL(SYS_rt_tgsigqueueinfo, pid, CALL(SYS_gettid), self.waits[place].info.si_signo, &self.waits[place].info);
    self.waiting = 0;
    CALL(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, 8);
}

static inline void enter(void)
{
    self.busy = true;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline void leave(void)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    self.busy = false;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (UNLIKELY(self.waiting))
        deliver();
}

/* --- text ------------------------------------------------------------------------------------------------------- */

static char *put(char *at, const char *text)
{
    while (*text)
        *at++ = *text++;
    return at;
}

static char *put_decimal(char *at, unsigned long number)
{
    char digits[20];
    int count = 0;
    do
        digits[count++] = '0' + number % 10;
    while (number /= 10);
    while (count)
        *at++ = digits[--count];
    return at;
}

static char *put_hexadecimal(char *at, unsigned long number)
{
    *at++ = '0', *at++ = 'x';
    for (int shift = (63 - __builtin_clzl(number | 1)) & ~3; shift >= 0; shift -= 4)
        *at++ = "0123456789abcdef"[number >> shift & 15];
    return at;
}

static char *put_value(char *at, char kind, unsigned long value)
{
    if (kind == 'v')
        return put(at, "<void>");
    if (kind == 'p' && value)
        return put_hexadecimal(at, value);
    if (kind == 'd' && (long)value < 0) {
        *at++ = '-';
        value = -value;
    }
    return put_decimal(at, value);
}

/* How long a call took, where it may have called the kernel: where dispatch does not show that, strace's log beside ours
 * does, and tells by the time which of its lines belong inside. */
static char *put_duration(char *at, int64_t time_ns)
{
    if (time_ns < SHORTEST)
        return at;
    at = put(put_decimal(put(at, " <"), time_ns / 1000000000), ".");
    unsigned rest = time_ns % 1000000000;
    for (int place = 8; place >= 0; place--, rest /= 10)
        at[place] = '0' + rest % 10;
    return put(at + 9, ">");
}

/* A text of the program, of which nothing can end a string, the path of a descriptor or the line. */
static char *put_escaped(char *at, const char *text)
{
    for (size_t length = 0; text[length] && length < 2048; length++) {
        unsigned char byte = text[length];
        if (byte >= ' ' && byte < 127 && byte != '"' && byte != '\\' && byte != '<' && byte != '>')
            *at++ = byte;
        else
            *at++ = '\\', *at++ = '0' + (byte >> 6), *at++ = '0' + (byte >> 3 & 7), *at++ = '0' + (byte & 7);
    }
    return at;
}

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* What each line begins with: the thread and the time. */
static char *put_prefix(char *at, int64_t time_ns)
{
    image.last_ns = time_ns;
    memcpy(at, self.tid, 12);
    at += self.tid_length;
    time_t second = time_ns / 1000000000;
    unsigned rest = time_ns % 1000000000;
    if (UNLIKELY(second != state.second)) {
        *put(put_decimal(state.second_digits, second), ".") = 0;
        state.second = second;
    }
    memcpy(at, state.second_digits, 16);
    at += 11;
    for (int place = 8; place >= 0; place--, rest /= 10)
        at[place] = '0' + rest % 10;
    at[9] = ' ';
    return at + 10;
}

/* --- the file --------------------------------------------------------------------------------------------------- */

static void stop(const char *why);

/* Map the next part of the file; what cannot be written from now on is not. */
static bool move_window(void)
{
    off_t offset = state.offset + (state.used & ~4095UL);
    struct rlimit limit;
    int fd = CALL(SYS_openat, AT_FDCWD, state.path, O_RDWR | O_CLOEXEC, 0);
    bool made = fd >= 0 && !refused(CALL(SYS_prlimit64, 0, RLIMIT_FSIZE, NULL, &limit)) &&
                (rlim_t)offset + WINDOW <= limit.rlim_cur;
    if (made) {
        long result = CALL(SYS_fallocate, fd, 0, offset, WINDOW);
        if (result == -EOPNOTSUPP)
            result = CALL(SYS_ftruncate, fd, offset + WINDOW);
        made = !refused(result);
    }
    if (made) {
        int place = image.window ? MAP_SHARED | MAP_FIXED : MAP_SHARED;
        long mapped = CALL(SYS_mmap, image.window, WINDOW, PROT_READ | PROT_WRITE, place, fd, offset);
        made = !refused(mapped);
        if (made) {
            image.window = (char *)mapped;
            CALL(SYS_madvise, mapped, WINDOW, POPULATE_WRITE);
            state.used -= offset - state.offset;
            state.offset = offset;
        }
    }
    if (fd >= 0)
        CALL(SYS_close, fd);
    return made;
}

/* Return where the next line goes; NULL where no more can be written. */
static char *line(void)
{
    if (UNLIKELY(state.used + 2 * LONGEST > WINDOW) && !state.off && !move_window())
        stop("its file cannot grow (disk full, a limit, or no right to open it)");
    return state.off ? NULL : image.window + state.used;
}

static void wrote(char *end) { state.used = end - image.window; }

static void note(const char *what, const char *why)
{
    char *at = put(image.window + state.used, "warning: replay record: process ");
    wrote(put(put(put(put(put_decimal(at, state.pid), " "), what), why), "\n"));
}

static void stop(const char *why)
{
    if (!state.off)
        note("is not recorded any further: ", why);
    state.off = true;
}

/* Copy a file of /proc beside the log. */
static void keep(const char *from, const char *ending)
{
    char path[1100], buffer[4096];
    size_t length = strlen(state.path) - 3;
    memcpy(path, state.path, length);
    *put(path + length, ending) = 0;
    int in = CALL(SYS_openat, AT_FDCWD, from, O_RDONLY | O_CLOEXEC, 0);
    int out = CALL(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    for (long count; in >= 0 && out >= 0 && (count = CALL(SYS_read, in, buffer, sizeof buffer)) > 0;)
        if (CALL(SYS_write, out, buffer, count) != count)
            break;
    CALL(SYS_close, in);
    CALL(SYS_close, out);
}

/* Make the file of this process: the first of PID.0.log, PID.1.log, ... that is not there. */
static bool make_file(void)
{
    for (int number = 0; number < 100000; number++) {
        char *at = put(put(state.path, image.directory), "/");
        *put(put_decimal(put(put_decimal(at, state.pid), "."), number), ".log") = 0;
        long fd = CALL(SYS_openat, AT_FDCWD, state.path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (!refused(fd)) {
            CALL(SYS_close, fd);
            return move_window();
        }
        if (fd != -EEXIST)
            return false;
    }
    return false;
}

/* --- the allocator's system calls ------------------------------------------------------------------------------- */

static void open_line(void)
{
    struct call *call = self.call;
    char *at = line();
    if (!at || !call || call->is_open)
        return;
    at = put(put(put_prefix(at, call->time_ns), call->name), "(");
    for (int place = 0; call->kinds[place]; place++)
        at = put_value(place ? put(at, ", ") : at, call->kinds[place], call->argument[place]);
    wrote(put(at, " <unfinished ...>\n"));
    call->is_open = true;
}

struct shown {                /* a system call as it is written */
    int number;
    const char *name;
    const char *kinds;        /* of its arguments */
    char result;
};

static const struct shown SHOWN[] = {
    {SYS_brk, "brk", "p", 'p'},
    {SYS_mmap, "mmap", "puuudu", 'p'},
    {SYS_munmap, "munmap", "pu", 'd'},
    {SYS_mremap, "mremap", "puuup", 'p'},
    {SYS_mprotect, "mprotect", "puu", 'd'},
    {SYS_madvise, "madvise", "puu", 'd'},
    {SYS_prctl, "prctl", "upupp", 'd'},
};

/* The file of a descriptor, as `strace -y` prints it. */
static char *put_file(char *at, int fd)
{
    char link[32], path[2048];
    *put_decimal(put(link, "/proc/self/fd/"), fd) = 0;
    long length = CALL(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (refused(length))
        return at;
    path[length] = 0;
    bool is_deleted = length > 10 && !strcmp(path + length - 10, " (deleted)");
    path[is_deleted ? length - 10 : length] = 0;
    return put(put(put_escaped(put(at, "<"), path), ">"), is_deleted ? "(deleted)" : "");
}

static char *put_system_call(const struct shown *call, const unsigned long *argument, int64_t time_ns)
{
    bool of_file = call->number == SYS_mmap && (int)argument[4] >= 0 && image.own_calls;
    char *at = put(put(put(put_prefix(line(), time_ns), of_file ? "" : "SYS_"), call->name), "(");
    int count = strlen(call->kinds);
    if (call->number == SYS_mremap && !(argument[3] & MREMAP_FIXED))
        count = 4;
    for (int place = 0; place < count; place++) {
        unsigned long value = call->kinds[place] == 'd' ? (unsigned long)(int)argument[place] : argument[place];
        at = put_value(place ? put(at, ", ") : at, call->kinds[place], value);
        at = of_file && place == 4 ? put_file(at, value) : at;
    }
    return at;
}

static char *put_result(char *at, char kind, long result)
{
    at = put_value(at, refused(result) ? 'd' : kind, result);
    *at++ = '\n';
    return at;
}

/* Make a system call of the allocator and write it. Memory is taken before the call and given behind it: so is the
 * time of its line, by which other logs are merged; mremap, which does both, has two lines. */
static long show(const struct shown *call, const unsigned long *argument)
{
    open_line();
    if (!line())
        return CALL(call->number, argument[0], argument[1], argument[2], argument[3], argument[4], argument[5]);
    int64_t before = now();
    if (call->number == SYS_mremap)
        wrote(put(put_system_call(call, argument, before), " <unfinished ...>\n"));
    long result = CALL(call->number, argument[0], argument[1], argument[2], argument[3], argument[4], argument[5]);
    if (call->number == SYS_mremap) {
        wrote(put_result(put(put_prefix(line(), now()), "<... SYS_mremap resumed> ) = "), call->result, result));
        return result;
    }
    bool gives = call->number == SYS_mmap || call->number == SYS_brk;
    wrote(put_result(put(put_system_call(call, argument, gives ? now() : before), ") = "), call->result, result));
    return result;
}

#if CAN_DISPATCH
static void serve(int signal, siginfo_t *info, void *context)
{
    self.selector = ALLOW;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    if (info->si_code != BY_DISPATCH) {      /* a seccomp filter's: what the kernel does where no one handles it */
        struct { void *handler; unsigned long flags; void *restorer; unsigned long mask; } plain = {0};
        CALL(SYS_rt_sigaction, signal, &plain, NULL, 8);
        CALL(SYS_tgkill, state.pid, CALL(SYS_gettid), signal);
        return;
    }
    long number = info->si_syscall;
    unsigned long argument[] = {registers[REG_RDI], registers[REG_RSI], registers[REG_RDX],
                                registers[REG_R10], registers[REG_R8],  registers[REG_R9]};
    switch (number) {
    case SYS_rt_sigreturn:                   /* of the program's own handler, which ran inside the allocator */
        registers[REG_RIP] = (greg_t)replay_sigreturn;
        break;
    case SYS_clone:
    case SYS_clone3:
    case SYS_fork:
    case SYS_vfork:
    case SYS_rt_sigprocmask:
    case SYS_sigaltstack:                    /* what depends on where it is called from is called there */
        registers[REG_RAX] = number;
        registers[REG_RIP] -= 2;
        return;
    default: {
        const struct shown *shown = NULL;
        for (size_t place = 0; place < sizeof SHOWN / sizeof *SHOWN; place++)
            if (SHOWN[place].number == number)
                shown = &SHOWN[place];
        registers[REG_RAX] = shown ? show(shown, argument)
                                   : CALL(number, argument[0], argument[1], argument[2], argument[3], argument[4],
                                          argument[5]);
    }
    }
    self.selector = BLOCK;
}

/* No other signal comes while ours is served: on its handler's return dispatch would find SIGSYS blocked, and kill. */
static void handle_dispatch(void)
{
    struct { void *handler; unsigned long flags; void *restorer; unsigned long mask; } action = {
        serve, SA_SIGINFO | SA_ONSTACK | 0x04000000 /* SA_RESTORER */, replay_sigreturn, ~0UL};
    image.dispatching = !refused(CALL(SYS_rt_sigaction, SIGSYS, &action, NULL, 8));
}

/* Have this thread's system calls dispatched while its selector says so. A thread that blocks SIGSYS would be killed
 * by it: those that libc starts for itself block all signals. */
static void dispatch_thread(void)
{
    unsigned long blocked = 0;
    if (refused(CALL(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &blocked, 8)) || blocked >> (SIGSYS - 1) & 1)
        return;
    self.selector = ALLOW;
    long result = CALL(SYS_prctl, DISPATCH, 1, replay_calls, replay_calls_end - replay_calls, &self.selector);
    self.dispatching = image.dispatching = !refused(result);
}
#else
static void handle_dispatch(void) {}
static void dispatch_thread(void) {}
#endif

/* --- beginning -------------------------------------------------------------------------------------------------- */

static const char *setting(const char *name)
{
    size_t length = strlen(name);
    for (char **entry = environ; entry && *entry; entry++)
        if (!strncmp(*entry, name, length) && (*entry)[length] == '=')
            return *entry + length + 1;
    return NULL;
}

static void find_real(void)
{
    image.finding = true;
#define FIND(name) real.name = (__typeof__(real.name))dlsym(RTLD_NEXT, #name)
    FIND(malloc), FIND(calloc), FIND(realloc), FIND(reallocarray), FIND(free), FIND(posix_memalign);
    FIND(aligned_alloc), FIND(memalign), FIND(valloc), FIND(pvalloc), FIND(malloc_usable_size), FIND(malloc_trim);
    FIND(mallopt), FIND(sbrk), FIND(brk), FIND(pthread_create), FIND(sigaction), FIND(signal);
    FIND(bsd_signal), FIND(sysv_signal), FIND(__sysv_signal), FIND(sigset), FIND(sigblock), FIND(sigsetmask);
    FIND(sigprocmask), FIND(pthread_sigmask), FIND(sigsuspend), FIND(ppoll), FIND(pselect), FIND(epoll_pwait);
    FIND(prctl);
#if CAN_DISPATCH
    if (dlsym(RTLD_NEXT, "syscall"))
        replay_real_syscall = dlsym(RTLD_NEXT, "syscall");
#endif
    image.found = real.malloc && real.free;
    image.finding = false;
}

static int frames_asked(void)
{
    int asked = atoi(setting("REPLAY_RECORD_STACKS"));
    return asked < MOST_FRAMES ? asked : MOST_FRAMES;
}

static bool find_unwinder(void)
{
    void *library = dlopen("libgcc_s.so.1", RTLD_NOW);
    real.walk_stack = library ? (__typeof__(real.walk_stack))dlsym(library, "_Unwind_Backtrace") : NULL;
    real.frame_address = library ? (__typeof__(real.frame_address))dlsym(library, "_Unwind_GetIP") : NULL;
    return real.walk_stack && real.frame_address;
}

static void register_thread(void)
{
    int tid = CALL(SYS_gettid);
    *put(put_decimal(self.tid, tid), " ") = 0;
    self.tid_length = strlen(self.tid);
    self.registered = true;
    self.fresh = image.own_calls && tid != state.pid;
    self.dispatching = false;
    self.selector = ALLOW;
    if (image.dispatching)
        dispatch_thread();
}

static void begin_image(void)
{
    char path[2048];
    long length = CALL(SYS_readlinkat, AT_FDCWD, "/proc/self/exe", path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    keep("/proc/self/maps", "maps");
    keep("/proc/self/auxv", "auxv");
    keep("/proc/self/limits", "limits");
    char *at = put(put_prefix(line(), now()), "SYS_execve(\"");
    wrote(put(put_escaped(at, path), "\", 0, 0) = 0\n"));
    if (!image.dispatching && image.own_calls)
        note("shows malloc alone, without the system calls inside: ", "there is no Syscall User Dispatch (Linux 5.11)");
}

/* Write, in the name of the thread that made it, that a thread or process was made. */
static void write_made(const char *by, int64_t time_ns, const char *call, int made)
{
    char own[sizeof self.tid];
    int own_length = self.tid_length;
    memcpy(own, self.tid, sizeof own);
    memcpy(self.tid, by, sizeof own);
    self.tid_length = strlen(by);
    char *at = line();
    if (at)
        wrote(put_result(put(put_prefix(at, time_ns), call), 'd', made));
    memcpy(self.tid, own, sizeof own);
    self.tid_length = own_length;
}

/* Begin to record this process, or this thread of it; false where that is not wanted or cannot be. */
static bool prepare(void)
{
    if (!image.found && !image.finding)
        find_real();
    if (!image.found || !environ || state.off || image.confined)
        return false;
    if (!state.recording) {
        if (!*image.directory) {
            const char *directory = setting("REPLAY_RECORD");
            if (directory && strlen(directory) < sizeof image.directory)
                strcpy(image.directory, directory);
            image.own_calls = setting("REPLAY_RECORD_CALLS");
            image.frames = setting("REPLAY_RECORD_STACKS") ? frames_asked() : 0;
            if (image.frames && !find_unwinder())
                image.frames = 0;
            handle_dispatch();
        }
        state.pid = CALL(SYS_getpid);
        state.off = true;
        if (!*image.directory || refused(CALL(SYS_madvise, &state, sizeof state, WIPE_ON_FORK)) || !make_file())
            return false;
        state.off = false;
        char parent[16];
        memcpy(parent, self.tid, sizeof parent);
        register_thread();
        if (!image.begun)
            begin_image();
        else if (image.own_calls)
            write_made(parent, image.last_ns + 1, "SYS_clone(0x1200011, 0, 0, 0) = ", state.pid);
        image.begun = true;
        state.recording = true;
    } else
        register_thread();
    return true;
}

/* --- calls of libc ---------------------------------------------------------------------------------------------- */


extern char __ehdr_start[] __attribute__((visibility("hidden"))), _end[] __attribute__((visibility("hidden")));

static int take_frame(void *context, void *unused)
{
    (void)unused;
    char *address = real.frame_address(context);
    if (self.frames || address < __ehdr_start || address >= _end)   /* those of our own come first */
        self.frame[self.frames++] = address;
    return self.frames < image.frames ? 0 : 5 /* _URC_END_OF_STACK */;
}

/* Begin a call, that has a line of its own unless it is NULL; false where the real one is to be called and no more. */
static inline bool begin(struct call *call)
{
    if (UNLIKELY(self.busy))
        return false;
    enter();
    if (UNLIKELY(!state.recording || !self.registered) && !prepare()) {
        leave();
        return false;
    }
    self.frames = 0;
    if (UNLIKELY(image.frames) && call && *call->name != 'f')
        real.walk_stack(take_frame, NULL);
    lock();
    if (UNLIKELY(state.off)) {
        unlock();
        leave();
        return false;
    }
    if (UNLIKELY(self.fresh)) {
        self.fresh = false;
        if (!*self.by)
            *put(put_decimal(self.by, state.pid), " ") = 0;
        write_made(self.by, now(), "SYS_clone(0x3d0f00, 0, 0, 0) = ", atoi(self.tid));
    }
    if (call)
        call->time_ns = now();
    self.call = call;
    if (self.dispatching && image.dispatching)
        self.selector = BLOCK;
    return true;
}

static inline void end(struct call *call, char kind, unsigned long result)
{
    self.selector = ALLOW;
    char *at = call ? line() : NULL;
    if (at) {
        if (UNLIKELY(call->is_open))
            at = put(put(put(put_prefix(at, now()), "<... "), call->name), " resumed> ) = ");
        else {
            at = put(put(put_prefix(at, call->time_ns), call->name), "(");
            for (int place = 0; call->kinds[place]; place++)
                at = put_value(place ? put(at, ", ") : at, call->kinds[place], call->argument[place]);
            at = put(at, ") = ");
        }
        at = put_value(at, kind, result);
        if (UNLIKELY(!self.dispatching && !image.own_calls && !call->is_open))
            at = put_duration(at, now() - call->time_ns);
        *at++ = '\n';
        for (int place = 0; place < self.frames; place++)
            at = put(put_hexadecimal(put(at, " > "), (unsigned long)self.frame[place]), "\n");
        wrote(at);
    }
    self.call = NULL;
    unlock();
    leave();
}

static void *early(size_t size)
{
    size_t used = __atomic_fetch_add(&image.early_used, (size + 31) & ~15UL, __ATOMIC_RELAXED);
    if (used + size + 16 > EARLY)
        return NULL;
    *(size_t *)(image.early + used) = size;
    return image.early + used + 16;
}

static bool is_early(const void *block) { return (char *)block >= image.early && (char *)block < image.early + EARLY; }

/* Whether a real function is there to be called. */
static bool is_found(void)
{
    if (UNLIKELY(!image.found) && !image.finding)
        find_real();
    return image.found;
}

VISIBLE void *malloc(size_t size)
{
    struct call call = {"malloc", "u", {size}, 0, false};
    if (!begin(&call))
        return is_found() ? real.malloc(size) : early(size);
    void *block = real.malloc(size);
    end(&call, 'p', (unsigned long)block);
    return block;
}

VISIBLE void *calloc(size_t count, size_t size)
{
    struct call call = {"calloc", "uu", {count, size}, 0, false};
    if (!begin(&call))
        return is_found() ? real.calloc(count, size) : early(count * size);
    void *block = real.calloc(count, size);
    end(&call, 'p', (unsigned long)block);
    return block;
}

VISIBLE void free(void *block)
{
    struct call call = {"free", "p", {(unsigned long)block}, 0, false};
    if (!block || UNLIKELY(is_early(block)))
        return;
    if (!begin(&call)) {
        if (is_found())
            real.free(block);
        return;
    }
    real.free(block);
    end(&call, 'v', 0);
}

VISIBLE void *realloc(void *block, size_t size)
{
    struct call call = {"realloc", "pu", {(unsigned long)block, size}, 0, false};
    if (UNLIKELY(is_early(block))) {
        void *copy = malloc(size);
        size_t old = ((size_t *)block)[-2];
        return copy ? memcpy(copy, block, old < size ? old : size) : NULL;
    }
    if (!begin(&call))
        return is_found() ? real.realloc(block, size) : early(size);
    block = real.realloc(block, size);
    end(&call, 'p', (unsigned long)block);
    return block;
}

VISIBLE void *reallocarray(void *block, size_t count, size_t size)
{
    struct call call = {"reallocarray", "puu", {(unsigned long)block, count, size}, 0, false};
    if (!begin(&call))
        return is_found() ? real.reallocarray(block, count, size) : NULL;
    block = real.reallocarray(block, count, size);
    end(&call, 'p', (unsigned long)block);
    return block;
}

/* ltrace's line of posix_memalign does not show the block: it is written as the memalign that it is. */
VISIBLE int posix_memalign(void **block, size_t alignment, size_t size)
{
    struct call call = {"memalign", "uu", {alignment, size}, 0, false};
    if (!begin(&call))
        return is_found() ? real.posix_memalign(block, alignment, size) : ENOMEM;
    int error = real.posix_memalign(block, alignment, size);
    end(&call, 'p', error ? 0 : (unsigned long)*block);
    return error;
}

#define ALIGNED(name)                                                        \
    VISIBLE void *name(size_t alignment, size_t size)                        \
    {                                                                        \
        struct call call = {#name, "uu", {alignment, size}, 0, false};       \
        if (!begin(&call))                                                   \
            return is_found() ? real.name(alignment, size) : NULL;           \
        void *block = real.name(alignment, size);                            \
        end(&call, 'p', (unsigned long)block);                               \
        return block;                                                        \
    }
ALIGNED(aligned_alloc)
ALIGNED(memalign)

#define OF_ONE_NUMBER(type, name, parameter, kind, result_kind)              \
    VISIBLE type name(parameter argument)                                    \
    {                                                                        \
        struct call call = {#name, kind, {(unsigned long)argument}, 0, false}; \
        if (!begin(&call))                                                   \
            return is_found() ? real.name(argument) : 0;                     \
        type result = real.name(argument);                                   \
        end(&call, result_kind, (unsigned long)result);                      \
        return result;                                                       \
    }
OF_ONE_NUMBER(void *, valloc, size_t, "u", 'p')
OF_ONE_NUMBER(void *, pvalloc, size_t, "u", 'p')
OF_ONE_NUMBER(size_t, malloc_usable_size, void *, "p", 'u')
OF_ONE_NUMBER(int, malloc_trim, size_t, "u", 'd')

VISIBLE int mallopt(int parameter, int value)
{
    struct call call = {"mallopt", "dd", {(long)parameter, (long)value}, 0, false};
    if (!begin(&call))
        return is_found() ? real.mallopt(parameter, value) : 0;
    int result = real.mallopt(parameter, value);
    end(&call, 'd', (long)result);
    return result;
}

/* --- the program's own memory calls ----------------------------------------------------------------------------- */

/* Make a memory call that libc or the program makes through libc; inside an allocator it is one of the allocator's. */
static long memory_call(int number, const unsigned long *argument)
{
    const struct shown *shown = SHOWN;
    while (shown->number != number)
        shown++;
    bool own = image.own_calls && begin(NULL);
    self.selector = ALLOW;
    long result = own || (self.busy && self.call) ? show(shown, argument)
                                                  : CALL(number, argument[0], argument[1], argument[2], argument[3],
                                                         argument[4], argument[5]);
    if (own)
        end(NULL, 'v', 0);
    else if (self.busy && self.call && self.dispatching && image.dispatching)
        self.selector = BLOCK;
    if (!refused(result))
        return result;
    errno = -result;
    return -1;
}

#define MEMORY_CALL(number, ...) memory_call(number, (unsigned long[6]){__VA_ARGS__})
#define WORD(value) (unsigned long)(value)

VISIBLE void *mmap(void *address, size_t length, int prot, int flags, int fd, off_t offset)
{
    return (void *)MEMORY_CALL(SYS_mmap, WORD(address), length, WORD(prot), WORD(flags), WORD(fd), WORD(offset));
}

#undef mmap64                                /* to musl it is a macro */
VISIBLE void *mmap64(void *, size_t, int, int, int, off_t) __attribute__((alias("mmap")));

VISIBLE int munmap(void *address, size_t length) { return MEMORY_CALL(SYS_munmap, WORD(address), length); }

VISIBLE int mprotect(void *address, size_t length, int prot)
{
    return MEMORY_CALL(SYS_mprotect, WORD(address), length, WORD(prot));
}

VISIBLE void *mremap(void *address, size_t old_length, size_t length, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    void *place = flags & (MREMAP_FIXED | 4 /* MREMAP_DONTUNMAP */) ? va_arg(more, void *) : NULL;
    va_end(more);
    return (void *)MEMORY_CALL(SYS_mremap, WORD(address), old_length, length, WORD(flags), WORD(place));
}

/* libc keeps the break itself: its functions are called, and the system call inside is seen by dispatch. */
VISIBLE void *sbrk(intptr_t increment)
{
    bool own = is_found() && image.own_calls && increment && begin(NULL);
    void *result = real.sbrk(increment);
    if (own)
        end(NULL, 'v', 0);
    return result;
}

VISIBLE int brk(void *address)
{
    bool own = is_found() && image.own_calls && begin(NULL);
    int result = real.brk(address);
    if (own)
        end(NULL, 'v', 0);
    return result;
}

/* --- threads -------------------------------------------------------------------------------------------------- */

static struct started {       /* a thread that is being started */
    bool taken;
    void *(*routine)(void *);
    void *argument;
    char by[16];
} starts[MOST_STARTS];

static pthread_key_t thread_ends;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Other destructors of the thread may free what they hold: in the last round comes the line of its end. */
static void thread_ended(void *unused)
{
    if (++self.ends < PTHREAD_DESTRUCTOR_ITERATIONS)
        pthread_setspecific(thread_ends, unused);
    else if (begin(NULL)) {
        char *at = line();
        if (at)
            wrote(put(put_prefix(at, now()), "+++ exited (status 0) +++\n"));
        end(NULL, 'v', 0);
    }
}

static void make_key(void) { pthread_key_create(&thread_ends, thread_ended); }

static void *run_thread(void *of)
{
    struct started *start = of, mine = *start;
    __atomic_store_n(&start->taken, false, __ATOMIC_RELEASE);
    pthread_setspecific(thread_ends, &once);
    memcpy(self.by, mine.by, sizeof self.by);
    if (begin(NULL))
        end(NULL, 'v', 0);
    return mine.routine(mine.argument);
}

VISIBLE int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*routine)(void *), void *argument)
{
    if (!is_found())
        return EAGAIN;
    for (int place = 0; image.own_calls && state.recording && self.registered && place < MOST_STARTS; place++) {
        bool free = false;
        struct started *start = &starts[place];
        if (!__atomic_compare_exchange_n(&start->taken, &free, true, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            continue;
        pthread_once(&once, make_key);
        start->routine = routine, start->argument = argument;
        memcpy(start->by, self.tid, sizeof start->by);
        int error = real.pthread_create(thread, attributes, run_thread, start);
        if (error)
            __atomic_store_n(&start->taken, false, __ATOMIC_RELEASE);
        return error;
    }
    return real.pthread_create(thread, attributes, routine, argument);
}

/* --- signals: SIGSYS is ours while dispatch is on, and must not be blocked -------------------------------------- */

static const sigset_t *without_sigsys(const sigset_t *set, sigset_t *copy)
{
    if (!set || !image.dispatching || !sigismember(set, SIGSYS))
        return set;
    *copy = *set;
    sigdelset(copy, SIGSYS);
    return copy;
}

/* Tell whether a disposition of SIGSYS is left as it is; where the program handles it, ours gives way. */
static bool keeps_sigsys(int signal, bool handles)
{
    if (signal != SIGSYS || !image.dispatching)
        return false;
    if (!handles)
        return true;
    image.dispatching = false;
    if (begin(NULL)) {
        note("handles SIGSYS itself: ", "the system calls of its allocator are not seen any further");
        end(NULL, 'v', 0);
    }
    return false;
}

static struct handler {       /* what the program set, where the kernel has `handle` */
    void (*function)(int, siginfo_t *, void *);
    int flags;
} handlers[SIGNALS];

/* Tell whether a signal is the answer to what this very thread did, which cannot go on before it is handled. */
static bool is_synchronous(int signal, const siginfo_t *info)
{
    bool fault = signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL || signal == SIGTRAP;
    return signal == SIGABRT || ((fault || signal == SIGSYS) && info->si_code > 0);
}

/* Have a signal wait, once if it is one that does not queue (signal(7)); false where there is no room. */
static bool waits(const siginfo_t *info)
{
    int pid = CALL(SYS_getpid);
    for (int place = 0; place < self.waiting && info->si_signo < 32; place++)
        if (self.waits[place].info.si_signo == info->si_signo && self.waits[place].pid == pid)
            return true;
    if (self.waiting == MOST_WAITING)
        return false;
    self.waits[self.waiting].info = *info;
    self.waits[self.waiting++].pid = pid;
    return true;
}

/* Handle a signal as the program would, but not inside one of our functions: there it waits until the call is made and
 * written. So a handler may call malloc, or never return. What cannot wait finds the lock free. */
static void handle(int signal, siginfo_t *info, void *context)
{
    struct handler handler = handlers[signal];
    bool busy = self.busy, now = is_synchronous(signal, info), held = busy && now && self.holds;
    if (UNLIKELY(busy) && !now && waits(info))
        return;
    if (handler.flags & SA_RESETHAND)
        real.sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
    if (LIKELY(!held)) {
        handler.function(signal, info, context);
        return;
    }
    struct call *call = self.call;
    unsigned char selector = self.selector;
    self.selector = ALLOW, self.call = NULL;
    unlock();
    leave();
    handler.function(signal, info, context);
    enter();
    lock();
    self.call = call, self.selector = selector;
}

static bool is_function(void (*handler)(int, siginfo_t *, void *))
{
    return (uintptr_t)handler > 2 /* SIG_HOLD */ && (uintptr_t)handler != (uintptr_t)SIG_ERR && handler != handle;
}

VISIBLE int sigaction(int signal, const struct sigaction *action, struct sigaction *old)
{
    if (!is_found())
        return -1;
    if (action && keeps_sigsys(signal, action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN)) {
        if (old)
            *old = (struct sigaction){.sa_handler = SIG_DFL};
        return 0;
    }
    if (signal <= 0 || signal >= SIGNALS)
        return real.sigaction(signal, action, old);
    struct handler former = handlers[signal];
    struct sigaction set, before;
    if (action) {
        set = *action;
        if (signal != SIGSYS)
            set.sa_mask = *without_sigsys(&action->sa_mask, &set.sa_mask);
        if (is_function(action->sa_sigaction)) {
            handlers[signal] = (struct handler){action->sa_sigaction, action->sa_flags};
            set.sa_sigaction = handle;
            set.sa_flags = (action->sa_flags | SA_SIGINFO) & ~SA_RESETHAND;
        }
    }
    int result = real.sigaction(signal, action ? &set : NULL, &before);
    if (result || !old)
        return result;
    if (before.sa_sigaction == handle) {
        before.sa_sigaction = former.function;
        before.sa_flags = (before.sa_flags & ~SA_SIGINFO) | (former.flags & (SA_SIGINFO | SA_RESETHAND));
    }
    *old = before;
    return 0;
}

VISIBLE int __sigaction(int, const struct sigaction *, struct sigaction *)
    __attribute__((alias("sigaction"), copy(sigaction)));

typedef void (*plain_handler)(int);

/* Have libc set a handler by one of its older functions, and then take its place as above. */
static plain_handler set_handler(plain_handler (*set)(int, plain_handler), int signal, plain_handler handler)
{
    if (!is_found() || !set || signal <= 0 || signal >= SIGNALS)
        return is_found() && set ? set(signal, handler) : SIG_ERR;
    if (keeps_sigsys(signal, handler != SIG_DFL && handler != SIG_IGN))
        return SIG_DFL;
    struct handler former = handlers[signal];
    struct sigaction action;
    plain_handler old = set(signal, handler);
    if (old != SIG_ERR && !real.sigaction(signal, NULL, &action) && is_function(action.sa_sigaction))
        sigaction(signal, &action, NULL);
    return (void *)old == (void *)handle ? (plain_handler)(void *)former.function : old;
}

#define SETS_HANDLER(name) \
    VISIBLE plain_handler name(int signal, plain_handler handler) { return set_handler(real.name, signal, handler); }
SETS_HANDLER(signal)
SETS_HANDLER(bsd_signal)
SETS_HANDLER(sysv_signal)
SETS_HANDLER(__sysv_signal)
SETS_HANDLER(sigset)

static int without_sigsys_bit(int mask) { return image.dispatching ? mask & ~(1 << (SIGSYS - 1)) : mask; }

VISIBLE int sigblock(int mask) { return is_found() && real.sigblock ? real.sigblock(without_sigsys_bit(mask)) : -1; }

VISIBLE int sigsetmask(int mask)
{
    return is_found() && real.sigsetmask ? real.sigsetmask(without_sigsys_bit(mask)) : -1;
}

VISIBLE int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
    sigset_t copy;
    return is_found() ? real.sigprocmask(how, how == SIG_UNBLOCK ? set : without_sigsys(set, &copy), old) : -1;
}

VISIBLE int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    sigset_t copy;
    return is_found() ? real.pthread_sigmask(how, how == SIG_UNBLOCK ? set : without_sigsys(set, &copy), old) : EINVAL;
}

VISIBLE int sigsuspend(const sigset_t *set)
{
    sigset_t copy;
    return is_found() ? real.sigsuspend(without_sigsys(set, &copy)) : -1;
}

VISIBLE int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *set)
{
    sigset_t copy;
    return is_found() ? real.ppoll(fds, count, timeout, without_sigsys(set, &copy)) : -1;
}

VISIBLE int pselect(int count, fd_set *reads, fd_set *writes, fd_set *others, const struct timespec *timeout,
                    const sigset_t *set)
{
    sigset_t copy;
    return is_found() ? real.pselect(count, reads, writes, others, timeout, without_sigsys(set, &copy)) : -1;
}

VISIBLE int epoll_pwait(int epoll, struct epoll_event *events, int count, int timeout, const sigset_t *set)
{
    sigset_t copy;
    return is_found() ? real.epoll_pwait(epoll, events, count, timeout, without_sigsys(set, &copy)) : -1;
}

/* --- seccomp: a filter may kill a program for what we do -------------------------------------------------------- */

static void confined(void)
{
    if (begin(NULL)) {
        stop("it confines itself by seccomp, which our own system calls might not pass");
        end(NULL, 'v', 0);
    }
    image.dispatching = false;
    image.confined = true;
}

VISIBLE int prctl(int option, ...)
{
    va_list more;
    va_start(more, option);
    unsigned long a = va_arg(more, unsigned long), b = va_arg(more, unsigned long);
    unsigned long c = va_arg(more, unsigned long), d = va_arg(more, unsigned long);
    va_end(more);
    if (option == PR_SET_SECCOMP && (a == 1 || b))       /* a filter of NULL only asks what the kernel can */
        confined();
    return is_found() ? real.prctl(option, a, b, c, d) : -1;
}

#if CAN_DISPATCH
/* The function syscall of libc: all but two numbers go on to it. */
long replay_plain_syscall(long number, long a, long b, long c, long d, long e, long f)
{
    long result = CALL(number, a, b, c, d, e, f);
    if (!refused(result))
        return result;
    errno = -result;
    return -1;
}

long replay_odd_syscall(long number, long a, long b, long c, long d, long e, long f)
{
    unsigned long mask;
    if (number == SYS_seccomp && (!a || (a == 1 && c)))
        confined();
    if (number == SYS_rt_sigprocmask && a != SIG_UNBLOCK && b && image.dispatching) {
        mask = *(unsigned long *)b & ~(1UL << (SIGSYS - 1));
        b = (long)&mask;
    }
    return replay_plain_syscall(number, a, b, c, d, e, f);
}

void *replay_real_syscall __attribute__((visibility("hidden"))) = replay_plain_syscall;
__asm__(".text\n"
        ".hidden replay_odd_syscall\n"
        ".globl syscall\n"
        ".type syscall, @function\n"
        "syscall:\n"
        "    cmp $14, %rdi\n"               /* rt_sigprocmask */
        "    je replay_odd_syscall\n"
        "    cmp $317, %rdi\n"              /* seccomp */
        "    je replay_odd_syscall\n"
        "    jmp *replay_real_syscall(%rip)\n");
#endif

/* --- the process: its forks and its end ------------------------------------------------------------------------- */

static void before_fork(void)
{
    if (!state.recording || self.busy)
        return;
    enter();
    lock();
}

static void after_fork(void)
{
    if (!self.holds)
        return;
    unlock();
    leave();
}

static void in_child(void)
{
    memset(&state, 0, sizeof state);         /* as the kernel does, from Linux 4.14 on */
    self.holds = self.registered = false;
    leave();
    if (image.own_calls && begin(NULL))
        end(NULL, 'v', 0);
}

static void ended(int status, void *unused)
{
    (void)unused;
    if (!begin(NULL))
        return;
    char *at = line();
    if (at && image.own_calls) {             /* all threads end by it */
        int64_t time_ns = now();
        at = put(put_decimal(put(put_prefix(at, time_ns), "SYS_exit_group("), status & 255), " <no return ...>\n");
        wrote(put(put_decimal(put(put_prefix(at, time_ns), "+++ exited (status "), status & 255), ") +++\n"));
    }
    end(NULL, 'v', 0);
    if (image.own_calls)
        keep("/proc/self/status", "status");
    if (image.frames)
        keep("/proc/self/maps", "modules");
}

VISIBLE void _exit(int status)
{
    if (image.own_calls)
        ended(status, NULL);
    for (;;)
        CALL(SYS_exit_group, status);
}

VISIBLE void _Exit(int status) __attribute__((alias("_exit")));

extern int on_exit(void (*)(int, void *), void *) __attribute__((weak));

__attribute__((constructor)) static void start(void)
{
    enter();
    bool recording = prepare();
    int (*at_fork)(void (*)(void), void (*)(void), void (*)(void), void *) = dlsym(RTLD_DEFAULT, "__register_atfork");
    if (!at_fork)
        at_fork = dlsym(RTLD_DEFAULT, "pthread_atfork");
    if (recording && at_fork)
        at_fork(before_fork, after_fork, in_child, NULL);
    if (recording && on_exit)
        on_exit(ended, NULL);
    leave();
}
