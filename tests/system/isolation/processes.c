/* Other processes, namespaces, privileges. */
#define _GNU_SOURCE
#include <linux/sched.h>
#include <sys/resource.h>
#include <termios.h>
#include "probes.h"

char secret[16] = "of the prober";

static int trace_victim(void) {
    pid_t pid = number("victim");
    if (ptrace(PTRACE_ATTACH, pid, 0, 0)) return 0;
    waitpid(pid, 0, __WALL);
    ptrace(PTRACE_DETACH, pid, 0, 0);
    return 1;
}
static int seize_victim(void) {
    if (ptrace(PTRACE_SEIZE, (pid_t)number("victim"), 0, 0)) return 0;
    return 1;
}
static int trace_child(void) {
    pid_t child = fork();
    if (!child) { pause(); _exit(0); }
    int result = ptrace(PTRACE_ATTACH, child, 0, 0);
    int error = errno;
    kill(child, SIGKILL);
    errno = error;
    return result == 0;
}
static int trace_me(void) { return ptrace(PTRACE_TRACEME, 0, 0, 0) == 0; }

static int copy(long call, pid_t pid, void *there) {
    char here[16] = "";
    struct iovec local = {here, 6}, remote = {there, 6};
    errno = 0;
    return syscall(call, pid, &local, 1L, &remote, 1L, 0L) > 0;
}
static int read_victim(void) { return copy(SYS_process_vm_readv, number("victim"), (void *)number("address")); }
static int write_victim(void) { return copy(SYS_process_vm_writev, number("victim"), (void *)number("address")); }
static int read_self(void) { return copy(SYS_process_vm_readv, getpid(), secret); }

static int memory_of_victim(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/mem", number("victim"));
    return open(path, O_RDWR) >= 0;
}
static int get_descriptor(void) {
    int handle = syscall(SYS_pidfd_open, (pid_t)number("victim"), 0);
    if (handle < 0) { SAY("pidfd_open"); return 0; }
    errno = 0;
    return syscall(SYS_pidfd_getfd, handle, 0, 0) >= 0;
}
static int get_descriptor_of_self(void) {
    int handle = syscall(SYS_pidfd_open, getpid(), 0);
    errno = 0;
    return syscall(SYS_pidfd_getfd, handle, 1, 0) >= 0;
}
static int signal_victim(void) { return kill(number("victim"), 0) == 0; }
static int limit_victim(void) {
    struct rlimit64 now;
    return syscall(SYS_prlimit64, (pid_t)number("victim"), RLIMIT_NOFILE, 0, &now) == 0;
}
static int advise_victim(void) {
    struct iovec piece = {secret, 1};
    return syscall(SYS_process_madvise, -1, &piece, 1L, 21, 0) >= 0;
}
static int compare(void) { return syscall(SYS_kcmp, getpid(), getpid(), 0, 0L, 1L) >= 0; }

static int see_processes(void) {
    DIR *folder = opendir("/proc");
    struct dirent *entry;
    char path[300], name[64];
    while (folder && (entry = readdir(folder))) {
        snprintf(path, sizeof path, "/proc/%s/comm", entry->d_name);
        FILE *file = fopen(path, "r");
        if (!file) continue;
        if (fgets(name, sizeof name, file) && (!strncmp(name, "kthreadd", 8) || !strncmp(name, "pytest", 6))) {
            fclose(file);
            SAY("%.20s", name);
            return 1;
        }
        fclose(file);
    }
    return 0;
}

/* Namespaces. */
static const struct { const char *name; unsigned long flag; } kinds[] = {
    {"user", CLONE_NEWUSER}, {"mnt", CLONE_NEWNS}, {"net", CLONE_NEWNET}, {"pid", CLONE_NEWPID},
    {"ipc", CLONE_NEWIPC}, {"uts", CLONE_NEWUTS}, {"cgroup", CLONE_NEWCGROUP}, {"time", 0x80}};

static int unshare_user(void) { return unshare(CLONE_NEWUSER) == 0; }
static int unshare_any(void) {
    for (unsigned i = 1; i < sizeof kinds / sizeof *kinds; i++)
        if (unshare(kinds[i].flag) == 0) { SAY("%s", kinds[i].name); return 1; }
    return 0;
}
static int clone_user(void) {
    long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    return child > 0;
}
static int clone_any(void) {
    for (unsigned i = 1; i + 1 < sizeof kinds / sizeof *kinds; i++) {
        long child = syscall(SYS_clone, kinds[i].flag | SIGCHLD, 0, 0, 0, 0);
        if (child == 0) _exit(0);
        if (child > 0) { SAY("%s", kinds[i].name); return 1; }
    }
    return 0;
}
static int clone_high_bits(void) {
    /* The filter sees 64 bits, the kernel once saw 32 of them. */
    long child = syscall(SYS_clone, 0xffffffff00000000UL | CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    return child > 0;
}
static int clone3_user(void) {
    struct clone_args wanted = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    long child = syscall(SYS_clone3, &wanted, sizeof wanted);
    if (child == 0) _exit(0);
    return child > 0;
}
static int clone3_plain(void) {
    struct clone_args wanted = {.exit_signal = SIGCHLD};
    long child = syscall(SYS_clone3, &wanted, sizeof wanted);
    if (child == 0) _exit(0);
    return child > 0;
}
static int enter_own(void) {
    int handle = open("/proc/self/ns/uts", O_RDONLY);
    errno = 0;
    return setns(handle, 0) == 0;
}
static int enter_pid1(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/ns/net", control ? number("victim") : 1);
    int handle = open(path, O_RDONLY);
    errno = 0;
    return setns(handle, CLONE_NEWNET) == 0;
}

/* Privileges. */
static int become(const char *program) {
    char *words[] = {(char *)program, "who", 0};
    int pipes[2];
    if (pipe(pipes)) return 0;
    pid_t child = fork();
    if (child == 0) {
        dup2(pipes[1], 1);
        if (getuid() == 0 && (setgid(number("gid")) || setuid(number("uid")))) {
            printf("- - %d\n", errno);
            fflush(stdout);
            _exit(127);
        }
        execv(program, words);
        printf("- - %d\n", errno);
        fflush(stdout);
        _exit(127);
    }
    close(pipes[1]);
    char text[128] = "";
    if (read(pipes[0], text, sizeof text - 1) < 0) return 0;
    waitpid(child, 0, 0);
    int uid = -1;
    unsigned long long capabilities = 0;
    char *newline = strchr(text, '\n');
    if (newline) *newline = 0;
    SAY("as %.60s", text);
    errno = EPERM;
    if (sscanf(text, "%d %llx", &uid, &capabilities) != 2) return 0;
    /* A gain is more than the process had before: its user, or a capability. */
    return uid == 0 || capabilities != 0;
}
static int set_user_program(void) { return become(given("setuid")); }
static int capability_program(void) { return become(given("filecap")); }

int who(void) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[256], effective[32] = "?";
    while (file && fgets(line, sizeof line, file)) sscanf(line, "CapEff: %31s", effective);
    printf("%d %s\n", geteuid(), effective);
    return 0;
}

static int raise_capabilities(void) {
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{1u << CAP_SYS_ADMIN, 1u << CAP_SYS_ADMIN, 0}, {0}};
    return syscall(SYS_capset, &head, data) == 0;
}
static int other_new_privileges(void) {
    if (control) return 1 - prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
    errno = EPERM;
    return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1;
}
static int without_filter(void) {
    errno = EPERM;
    return prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 2;
}
static int real_time(void) {
    struct sched_param wanted = {10};
    return sched_setscheduler(0, SCHED_FIFO, &wanted) == 0;
}
static int nice_up(void) { return setpriority(PRIO_PROCESS, 0, -10) == 0; }
static int io_real_time(void) { return syscall(SYS_ioprio_set, 1, 0, (1 << 13) | 0) == 0; }
static int more_ids(void) {
    /* Ids beyond the container's own do not exist here. */
    return setuid(70000) == 0;
}

/* Terminals. */
static int push_terminal(void) {
    int found = 0, error = ENOTTY;
    for (int handle = 0; handle < 64; handle++)
        if (isatty(handle)) {
            if (ioctl(handle, TIOCSTI, "x") == 0) found = 1;
            else error = errno;
        }
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master >= 0 && !grantpt(master) && !unlockpt(master)) {
        setsid();
        int terminal = open(ptsname(master), O_RDWR);
        if (terminal >= 0) {
            ioctl(terminal, TIOCSCTTY, 0);
            if (ioctl(terminal, TIOCSTI, "x") == 0) found = 1;
            else error = errno;
        }
    }
    errno = error;
    return found;
}
static int push_high_bits(void) {
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) || unlockpt(master)) return 0;
    setsid();
    int terminal = open(ptsname(master), O_RDWR);
    ioctl(terminal, TIOCSCTTY, 0);
    errno = 0;
    return syscall(SYS_ioctl, terminal, 0x100000000UL | TIOCSTI, "x") == 0;
}
static int own_terminal(void) {
    if (control) { /* a session with a terminal, as a person's shell has one */
        int master = posix_openpt(O_RDWR | O_NOCTTY);
        if (master < 0 || grantpt(master) || unlockpt(master)) return 0;
        setsid();
        ioctl(open(ptsname(master), O_RDWR), TIOCSCTTY, 0);
    }
    errno = 0;
    return open("/dev/tty", O_RDWR) >= 0;
}
static int descriptors(void) {
    DIR *folder = opendir("/proc/self/fd");
    struct dirent *entry;
    if (control) open("/", O_RDONLY);
    errno = EBADF;
    while ((entry = readdir(folder)))
        if (entry->d_name[0] != '.' && atoi(entry->d_name) > 2 && atoi(entry->d_name) != dirfd(folder)) {
            SAY("%s", entry->d_name);
            return 1;
        }
    return 0;
}

/* Waits for a process whose program is another than its own, and tries to get hold of that program. */
int hunt(void) {
    struct stat mine, other;
    stat("/proc/self/exe", &mine);
    long seen = 0, held = 0, written = 0;
    puts("hunting");
    fflush(stdout);
    for (long round = 0; round < 1L << 40; round++) {
        if (access("/tmp/stop", F_OK) == 0) break;
        DIR *folder = opendir("/proc");
        struct dirent *entry;
        while (folder && (entry = readdir(folder))) {
            if (entry->d_name[0] < '1' || entry->d_name[0] > '9' || atoi(entry->d_name) == getpid()) continue;
            char path[64];
            snprintf(path, sizeof path, "/proc/%.20s/exe", entry->d_name);
            seen++;
            int handle = open(path, O_RDONLY);
            if (handle < 0 || fstat(handle, &other)) continue;
            if (other.st_dev != mine.st_dev) {
                held++;
                snprintf(path, sizeof path, "/proc/self/fd/%d", handle);
                for (int i = 0; i < 200; i++) {
                    int again = open(path, O_WRONLY);
                    if (again >= 0) { written++; close(again); break; }
                }
            }
            close(handle);
        }
        if (folder) closedir(folder);
    }
    printf("seen %ld held %ld written %ld\n", seen, held, written);
    return 0;
}

const struct probe process_probes[] = {
    {"ptrace-machine-process", trace_victim}, {"ptrace-seize", seize_victim}, {"ptrace-own-child", trace_child},
    {"ptrace-traceme", trace_me}, {"process_vm_readv", read_victim}, {"process_vm_writev", write_victim},
    {"process_vm_readv-self", read_self}, {"proc-mem-of-machine-process", memory_of_victim},
    {"pidfd_getfd", get_descriptor}, {"pidfd_getfd-self", get_descriptor_of_self},
    {"signal-machine-process", signal_victim}, {"prlimit-machine-process", limit_victim},
    {"process_madvise", advise_victim}, {"kcmp", compare}, {"see-machine-processes", see_processes},
    {"unshare-user", unshare_user}, {"unshare-others", unshare_any}, {"clone-user", clone_user},
    {"clone-others", clone_any}, {"clone-user-high-bits", clone_high_bits}, {"clone3-user", clone3_user},
    {"clone3", clone3_plain}, {"setns-own", enter_own}, {"setns-of-pid-1", enter_pid1},
    {"setuid-program", set_user_program}, {"file-capability-program", capability_program},
    {"capset", raise_capabilities}, {"no_new_privs-off", other_new_privileges}, {"seccomp-off", without_filter},
    {"real-time-scheduling", real_time}, {"nice-below-0", nice_up}, {"io-real-time", io_real_time}, {"uid-beyond-range", more_ids}, {"TIOCSTI", push_terminal},
    {"TIOCSTI-high-bits", push_high_bits}, {"dev-tty", own_terminal}, {"descriptors-beyond-2", descriptors},
    {0, 0}};
