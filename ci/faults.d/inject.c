/* Counts the file-changing calls of relbuild and of all that it starts, over all their processes, and makes the N-th
 * of them fail, come out short, or be the last. Loaded with LD_PRELOAD; what is linked statically (runc, say) and what
 * the C library does inside itself (stdio) is not seen. The file named by RELBUILD_FAULTS holds `struct plan`, shared
 * by all processes; ci/faults.d/plan.py has the same layout. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { TRACE, KILL, GROUP, FAIL, SHORT };

struct plan {
    int32_t armed;     /* Are calls counted now? */
    int32_t counter;   /* Calls so far. */
    int32_t at;        /* The call that it happens to, from 1. */
    int32_t kind;
    int32_t error;     /* The errno of FAIL. */
    int32_t forever;   /* Also to all calls after it? */
    int32_t fired;     /* How often it happened. */
    int32_t main;      /* The process that is killed, a leader of its group. */
    int32_t sends;     /* Are sends to the network counted too? */
    int32_t opens;     /* Is each file that is opened written down too, uncounted? */
    char folder[256];  /* Only what lies below is counted. */
    char log[256];     /* Where each call is written down. */
};

/* Allocates: can run out of space. Writes: can come out short. */
enum { ALLOCATES = 1, WRITES = 2 };

static struct plan *plan;
static char library[PATH_MAX], shared[PATH_MAX];

__attribute__((constructor)) static void start(void) {
    const char *name = getenv("RELBUILD_FAULTS"), *own = getenv("LD_PRELOAD");
    if (!name || !own) return;
    snprintf(shared, sizeof shared, "%s", name);
    snprintf(library, sizeof library, "%s", own);
    int file = syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CLOEXEC, 0);
    if (file < 0) return;
    void *found = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    syscall(SYS_close, file);
    if (found != MAP_FAILED) plan = found;
}

static int below(const char *path) {
    size_t length = strlen(plan->folder);
    return !strncmp(path, plan->folder, length) && (path[length] == '/' || path[length] == 0);
}

static void name_of(int file, char *to) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, to, PATH_MAX - 1);
    to[length < 0 ? 0 : length] = 0;
}

static void full(int folder, const char *path, char *to) {
    char base[PATH_MAX];
    if (!path || !*path) { if (folder >= 0) name_of(folder, to); else *to = 0; return; }
    if (*path == '/') { snprintf(to, PATH_MAX, "%s", path); return; }
    if (folder == AT_FDCWD) { if (syscall(SYS_getcwd, base, sizeof base) < 0) *base = 0; }
    else name_of(folder, base);
    snprintf(to, PATH_MAX, "%.*s/%.*s", 2000, base, 2000, path);
}

static unsigned long inode(int file, const char *path) {
    struct stat found;
    if (file >= 0 ? fstat(file, &found) : lstat(path, &found)) return 0;
    return found.st_ino;
}

static void note(int number, const char *call, unsigned long node, const char *one, const char *other) {
    char line[2 * PATH_MAX + 128];
    int length = snprintf(line, sizeof line, "%d\t%d\t%s\t%lu\t%s\t%s\n", number, getpid(), call, node, one, other);
    if (!*plan->log) return;
    /* Opened each time: a daemon may close all that it does not know. */
    int file = syscall(SYS_openat, AT_FDCWD, plan->log, O_WRONLY | O_APPEND | O_CLOEXEC, 0);
    if (file < 0) return;
    syscall(SYS_write, file, line, length);
    syscall(SYS_close, file);
}

/* What is to happen to this call: 0 nothing, else -errno, or 1 for a write that comes out short. */
static int happens(const char *call, int flags, unsigned long node, const char *one, const char *other) {
    int number = __atomic_add_fetch(&plan->counter, 1, __ATOMIC_SEQ_CST);
    int due = plan->at && (plan->forever ? number >= plan->at : number == plan->at);
    note(number, call, node, one, other);
    if (!due || plan->kind == TRACE) return 0;
    switch (plan->kind) {
    case KILL:
        __atomic_add_fetch(&plan->fired, 1, __ATOMIC_SEQ_CST);
        kill(plan->main, SIGKILL);
        return 0;
    case GROUP:
        __atomic_add_fetch(&plan->fired, 1, __ATOMIC_SEQ_CST);
        kill(-plan->main, SIGKILL);
        return 0;
    case FAIL:
        if (plan->error != EIO && !(flags & ALLOCATES)) return 0;
        __atomic_add_fetch(&plan->fired, 1, __ATOMIC_SEQ_CST);
        return -plan->error;
    case SHORT:
        if (!(flags & WRITES)) return 0;
        __atomic_add_fetch(&plan->fired, 1, __ATOMIC_SEQ_CST);
        return 1;
    }
    return 0;
}

static int on_path(const char *call, int flags, int folder, const char *path, int folder2, const char *path2) {
    if (!plan || !plan->armed) return 0;
    int kept = errno;
    char one[PATH_MAX], other[PATH_MAX] = "";
    full(folder, path, one);
    if (path2) full(folder2, path2, other);
    int due = below(one) || (*other && below(other)) ? happens(call, flags, inode(-1, one), one, other) : 0;
    errno = due < 0 ? -due : kept;
    return due;
}

static int on_file(const char *call, int flags, int file) {
    if (!plan || !plan->armed) return 0;
    int kept = errno;
    char one[PATH_MAX];
    name_of(file, one);
    int due = below(one) ? happens(call, flags, inode(file, NULL), one, "") : 0;
    errno = due < 0 ? -due : kept;
    return due;
}

/* Mounts count wherever they are made: in a namespace, what stands below the folder has other paths. */
static int on_mount(const char *call, const char *path) {
    if (!plan || !plan->armed) return 0;
    int kept = errno;
    char one[PATH_MAX];
    full(AT_FDCWD, path, one);
    int due = happens(call, 0, 0, one, "");
    errno = due < 0 ? -due : kept;
    return due;
}

static int on_send(int file) {
    if (!plan || !plan->armed || !plan->sends) return 0;
    int kept = errno, family = 0;
    socklen_t size = sizeof family;
    if (getsockopt(file, SOL_SOCKET, SO_DOMAIN, &family, &size) || (family != AF_INET && family != AF_INET6)) {
        errno = kept;
        return 0;
    }
    int due = happens("send", 0, 0, "network", "");
    errno = due < 0 ? -due : kept;
    return due;
}

/* Which files are opened at all. */
static void seen(int folder, const char *path) {
    if (!plan || !plan->armed || !plan->opens) return;
    int kept = errno;
    char one[PATH_MAX];
    full(folder, path, one);
    if (below(one)) note(0, "opened", 0, one, "");
    errno = kept;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static int changes(int flags) { return flags & (O_CREAT | O_TRUNC) || (flags & O_TMPFILE) == O_TMPFILE; }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, #name, const char *, int, ...); \
        va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest); \
        seen(AT_FDCWD, path); \
        if (changes(flags) && on_path("open", ALLOCATES, AT_FDCWD, path, 0, NULL) < 0) return -1; \
        return real(path, flags, mode); \
    }
#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        REAL(int, #name, int, const char *, int, ...); \
        va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest); \
        seen(folder, path); \
        if (changes(flags) && on_path("open", ALLOCATES, folder, path, 0, NULL) < 0) return -1; \
        return real(folder, path, flags, mode); \
    }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)

ssize_t write(int file, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    int due = on_file("write", ALLOCATES | WRITES, file);
    return due < 0 ? -1 : real(file, data, due && size > 1 ? size / 2 : size);
}
#define PWRITE(name, offset_type) \
    ssize_t name(int file, const void *data, size_t size, offset_type at) { \
        REAL(ssize_t, #name, int, const void *, size_t, offset_type); \
        int due = on_file("pwrite", ALLOCATES | WRITES, file); \
        return due < 0 ? -1 : real(file, data, due && size > 1 ? size / 2 : size, at); \
    }
PWRITE(pwrite, off_t) PWRITE(pwrite64, off64_t)
ssize_t writev(int file, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    int due = on_file("writev", ALLOCATES | WRITES, file);
    return due < 0 ? -1 : real(file, parts, due && count > 1 ? count / 2 : count);
}
ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t size, unsigned flags) {
    REAL(ssize_t, "copy_file_range", int, off64_t *, int, off64_t *, size_t, unsigned);
    int due = on_file("copy_file_range", ALLOCATES | WRITES, to);
    return due < 0 ? -1 : real(from, a, to, b, due && size > 1 ? size / 2 : size, flags);
}
#define SENDFILE(name, offset_type) \
    ssize_t name(int to, int from, offset_type *at, size_t size) { \
        REAL(ssize_t, #name, int, int, offset_type *, size_t); \
        int due = on_file("sendfile", ALLOCATES | WRITES, to); \
        return due < 0 ? -1 : real(to, from, at, due && size > 1 ? size / 2 : size); \
    }
SENDFILE(sendfile, off_t) SENDFILE(sendfile64, off64_t)

/* Calls by path: name, flags, folder, path, other folder, other path; then parameters and arguments. */
#define BY_PATH(name, flags, folder, path, folder2, path2, parameters, ...) \
    int name parameters { \
        static int (*real) parameters; \
        if (!real) real = (int (*) parameters)dlsym(RTLD_NEXT, #name); \
        return on_path(#name, flags, folder, path, folder2, path2) < 0 ? -1 : real(__VA_ARGS__); \
    }
#define BY_FILE(name, flags, file, parameters, ...) \
    int name parameters { \
        static int (*real) parameters; \
        if (!real) real = (int (*) parameters)dlsym(RTLD_NEXT, #name); \
        return on_file(#name, flags, file) < 0 ? -1 : real(__VA_ARGS__); \
    }
#define HERE AT_FDCWD
BY_PATH(rename, ALLOCATES, HERE, a, HERE, b, (const char *a, const char *b), a, b)
BY_PATH(renameat, ALLOCATES, x, a, y, b, (int x, const char *a, int y, const char *b), x, a, y, b)
BY_PATH(renameat2, ALLOCATES, x, a, y, b, (int x, const char *a, int y, const char *b, unsigned f), x, a, y, b, f)
BY_PATH(link, ALLOCATES, HERE, a, HERE, b, (const char *a, const char *b), a, b)
BY_PATH(linkat, ALLOCATES, x, a, y, b, (int x, const char *a, int y, const char *b, int f), x, a, y, b, f)
BY_PATH(symlink, ALLOCATES, HERE, b, HERE, NULL, (const char *a, const char *b), a, b)
BY_PATH(symlinkat, ALLOCATES, y, b, HERE, NULL, (const char *a, int y, const char *b), a, y, b)
BY_PATH(unlink, 0, HERE, a, HERE, NULL, (const char *a), a)
BY_PATH(unlinkat, 0, x, a, HERE, NULL, (int x, const char *a, int f), x, a, f)
BY_PATH(remove, 0, HERE, a, HERE, NULL, (const char *a), a)
BY_PATH(rmdir, 0, HERE, a, HERE, NULL, (const char *a), a)
BY_PATH(mkdir, ALLOCATES, HERE, a, HERE, NULL, (const char *a, mode_t m), a, m)
BY_PATH(mkdirat, ALLOCATES, x, a, HERE, NULL, (int x, const char *a, mode_t m), x, a, m)
BY_PATH(mknod, ALLOCATES, HERE, a, HERE, NULL, (const char *a, mode_t m, dev_t d), a, m, d)
BY_PATH(mknodat, ALLOCATES, x, a, HERE, NULL, (int x, const char *a, mode_t m, dev_t d), x, a, m, d)
BY_PATH(mkfifo, ALLOCATES, HERE, a, HERE, NULL, (const char *a, mode_t m), a, m)
BY_PATH(truncate, ALLOCATES, HERE, a, HERE, NULL, (const char *a, off_t s), a, s)
BY_PATH(truncate64, ALLOCATES, HERE, a, HERE, NULL, (const char *a, off64_t s), a, s)
BY_PATH(chmod, 0, HERE, a, HERE, NULL, (const char *a, mode_t m), a, m)
BY_PATH(fchmodat, 0, x, a, HERE, NULL, (int x, const char *a, mode_t m, int f), x, a, m, f)
BY_PATH(chown, 0, HERE, a, HERE, NULL, (const char *a, uid_t u, gid_t g), a, u, g)
BY_PATH(lchown, 0, HERE, a, HERE, NULL, (const char *a, uid_t u, gid_t g), a, u, g)
BY_PATH(fchownat, 0, x, a, HERE, NULL, (int x, const char *a, uid_t u, gid_t g, int f), x, a, u, g, f)
BY_PATH(utimensat, 0, x, a, HERE, NULL, (int x, const char *a, const struct timespec *t, int f), x, a, t, f)
BY_PATH(setxattr, ALLOCATES, HERE, a, HERE, NULL,
        (const char *a, const char *n, const void *v, size_t s, int f), a, n, v, s, f)
BY_PATH(lsetxattr, ALLOCATES, HERE, a, HERE, NULL,
        (const char *a, const char *n, const void *v, size_t s, int f), a, n, v, s, f)
BY_FILE(ftruncate, ALLOCATES, x, (int x, off_t s), x, s)
BY_FILE(ftruncate64, ALLOCATES, x, (int x, off64_t s), x, s)
BY_FILE(fsync, ALLOCATES, x, (int x), x)
BY_FILE(fdatasync, ALLOCATES, x, (int x), x)
BY_FILE(fchmod, 0, x, (int x, mode_t m), x, m)
BY_FILE(fchown, 0, x, (int x, uid_t u, gid_t g), x, u, g)
BY_FILE(futimens, 0, x, (int x, const struct timespec *t), x, t)
BY_FILE(fsetxattr, ALLOCATES, x, (int x, const char *n, const void *v, size_t s, int f), x, n, v, s, f)
BY_FILE(fallocate, ALLOCATES, x, (int x, int m, off_t o, off_t l), x, m, o, l)
BY_FILE(fallocate64, ALLOCATES, x, (int x, int m, off64_t o, off64_t l), x, m, o, l)

int mount(const char *what, const char *path, const char *kind, unsigned long flags, const void *options) {
    REAL(int, "mount", const char *, const char *, const char *, unsigned long, const void *);
    return on_mount("mount", path) < 0 ? -1 : real(what, path, kind, flags, options);
}
int umount2(const char *path, int flags) {
    REAL(int, "umount2", const char *, int);
    return on_mount("umount2", path) < 0 ? -1 : real(path, flags);
}

/* What the C library has no function for, or had none when relbuild was written. */
long syscall(long number, ...) {
    REAL(long, "syscall", long, ...);
    va_list rest; va_start(rest, number);
    long a = va_arg(rest, long), b = va_arg(rest, long), c = va_arg(rest, long);
    long d = va_arg(rest, long), e = va_arg(rest, long), f = va_arg(rest, long);
    va_end(rest);
    if (number == SYS_move_mount && on_mount("move_mount", (const char *)d) < 0) return -1;
    if (number == SYS_openat2) {
        seen(a, (const char *)b);
        if (changes(*(uint64_t *)c) && on_path("open", ALLOCATES, a, (const char *)b, 0, NULL) < 0) return -1;
    }
    return real(number, a, b, c, d, e, f);
}

ssize_t send(int file, const void *data, size_t size, int flags) {
    REAL(ssize_t, "send", int, const void *, size_t, int);
    return on_send(file) < 0 ? -1 : real(file, data, size, flags);
}
ssize_t sendmsg(int file, const struct msghdr *message, int flags) {
    REAL(ssize_t, "sendmsg", int, const struct msghdr *, int);
    return on_send(file) < 0 ? -1 : real(file, message, flags);
}

/* relbuild gives what it starts a clean environment: this goes along. */
int execve(const char *path, char *const argv[], char *const envp[]) {
    REAL(int, "execve", const char *, char *const *, char *const *);
    if (!plan || !*library) return real(path, argv, envp);
    size_t count = 0;
    while (envp && envp[count]) count++;
    static char preload[PATH_MAX + 16], faults[PATH_MAX + 32];
    snprintf(preload, sizeof preload, "LD_PRELOAD=%.*s", PATH_MAX - 1, library);
    snprintf(faults, sizeof faults, "RELBUILD_FAULTS=%.*s", PATH_MAX - 1, shared);
    char *more[count + 3];
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (strncmp(envp[i], "LD_PRELOAD=", 11) && strncmp(envp[i], "RELBUILD_FAULTS=", 16)) more[kept++] = envp[i];
    more[kept++] = preload;
    more[kept++] = faults;
    more[kept] = NULL;
    return real(path, argv, more);
}
