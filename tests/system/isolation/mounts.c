/* Mounting, unmounting, roots, masked paths, device nodes. */
#define _GNU_SOURCE
#include "probes.h"

/* A folder to try things in, and a path below it. */
static const char *below(const char *name) {
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s%s", given("trial"), name);
    return path;
}
#define TRIAL below("")

static void trial(void) { mkdir(TRIAL, 0755); errno = 0; }

static int old_mount(void) { trial(); return mount("x", TRIAL, "tmpfs", 0, "") == 0; }

static int bind_mount(void) { trial(); return mount("/proc", TRIAL, 0, MS_BIND, 0) == 0; }

static int proc_mount(void) { trial(); return mount("proc", TRIAL, "proc", 0, "") == 0; }

static int sys_mount(void) { trial(); return mount("sys", TRIAL, "sysfs", 0, "") == 0; }

static int remount_root(void) {
    if (control) mount("/", "/", 0, MS_BIND, 0);
    errno = 0;
    return mount(0, "/", 0, MS_REMOUNT | MS_BIND, 0) == 0;
}

static int propagation(void) { return mount(0, "/", 0, MS_SHARED | MS_REC, 0) == 0; }

static int new_mount(void) {
    trial();
    int context = syscall(SYS_fsopen, "tmpfs", 0);
    if (context < 0) return 0;
    if (syscall(SYS_fsconfig, context, 6, 0, 0, 0) < 0) return 0;
    int mounted = syscall(SYS_fsmount, context, 0, 0);
    if (mounted < 0) return 0;
    return syscall(SYS_move_mount, mounted, "", AT_FDCWD, TRIAL, 4) == 0;
}

/* Each of the new calls by itself: the first refusal would hide the others. The arguments are no good. */
static int each(long call, const char *name, long a, long b, long c, long d, long e) {
    errno = 0;
    long result = syscall(call, a, b, c, d, e);
    SAY("%s", name);
    return result >= 0;
}
static int fsconfig_call(void) { return each(SYS_fsconfig, "fsconfig", -1, 6, 0, 0, 0); }
static int fsmount_call(void) { return each(SYS_fsmount, "fsmount", -1, 0, 0, 0, 0); }
static int fspick_call(void) { return each(SYS_fspick, "fspick", -1, (long)"", 0, 0, 0); }
static int move_mount_call(void) { return each(SYS_move_mount, "move_mount", -1, (long)"", -1, (long)"", 4); }

static int tree_clone(void) { return syscall(SYS_open_tree, AT_FDCWD, "/", 1 | O_CLOEXEC) >= 0; }

static int attributes(void) {
    if (control) { trial(); mount("x", TRIAL, "tmpfs", MS_RDONLY, ""); }
    uint64_t change[4] = {0, 1, 0, 0}; /* clear MOUNT_ATTR_RDONLY */
    errno = 0;
    return syscall(SYS_mount_setattr, AT_FDCWD, control ? TRIAL : "/", 0, change, sizeof change) == 0;
}

static int unmount_masked(void) {
    if (control) mount("/dev/null", "/proc/kallsyms", 0, MS_BIND, 0);
    errno = 0;
    return umount2("/proc/kallsyms", MNT_DETACH) == 0;
}

static int unmount_read_only(void) {
    if (control) mount("/proc/sys", "/proc/sys", 0, MS_BIND, 0);
    errno = 0;
    return umount2("/proc/sys", MNT_DETACH) == 0;
}

static int rename_over_masked(void) {
    /* On the machine: a mount point loses its name when what is mounted on it goes. */
    const char *old = "/proc/kallsyms";
    if (control) {
        trial();
        old = below("/masked");
        close(open(old, O_CREAT | O_WRONLY, 0644));
    }
    errno = 0;
    return unlink(old) == 0 || rename(old, below("-moved")) == 0;
}

static const char *masked[] = {"/proc/kcore", "/proc/kallsyms", "/proc/keys", "/proc/key-users", "/proc/timer_list",
                               "/proc/sched_debug", "/proc/latency_stats", "/proc/timer_stats", "/proc/config.gz",
                               "/proc/slabinfo", "/proc/vmallocinfo", "/proc/kpageflags", "/proc/kpagecount",
                               "/proc/iomem", "/proc/ioports", "/proc/interrupts", "/proc/modules",
                               "/proc/pagetypeinfo", "/proc/mtrr", "/proc/cmdline", 0};

static int read_masked(void) {
    int found = 0;
    for (int i = 0; masked[i]; i++) {
        char byte[64];
        int handle = open(masked[i], O_RDONLY);
        if (handle < 0) continue;
        if (read(handle, byte, sizeof byte) > 0) { found = 1; SAY("%s", masked[i]); }
        close(handle);
    }
    return found;
}

static int proc_writable(const char *path) {
    struct stat status;
    int handle = open(path, O_WRONLY | O_CLOEXEC);
    if (handle < 0 || fstat(handle, &status)) return 0;
    return S_ISREG(status.st_mode); /* a masked file is /dev/null */
}
static int write_sysctl(void) { return proc_writable("/proc/sys/vm/swappiness"); }
static int write_core_pattern(void) { return proc_writable("/proc/sys/kernel/core_pattern"); }
static int write_modprobe(void) { return proc_writable("/proc/sys/kernel/hotplug") || proc_writable("/proc/sys/kernel/randomize_va_space"); }
static int write_hostname(void) { return proc_writable("/proc/sys/kernel/hostname"); }
static int write_net_sysctl(void) { return proc_writable("/proc/sys/net/ipv4/ip_forward"); }
static int write_sysrq(void) { return proc_writable("/proc/sysrq-trigger"); }

static int pids_in(DIR *folder) { int n = 0; while (readdir(folder)) n++; return n; }
static int see_sys(void) {
    DIR *folder = opendir("/sys/kernel");
    return folder && pids_in(folder) > 2;
}
static int write_sys(void) { return proc_writable("/sys/kernel/mm/transparent_hugepage/enabled") || proc_writable("/sys/kernel/uevent_helper"); }

static int pivot(void) {
    trial();
    if (control) { mount(0, "/", 0, MS_PRIVATE | MS_REC, 0); mount("x", TRIAL, "tmpfs", 0, ""); }
    mkdir(below("/old"), 0755);
    errno = 0;
    return syscall(SYS_pivot_root, TRIAL, below("/old")) == 0;
}

static int change_root(void) { trial(); return chroot(TRIAL) == 0; }

/* The old way out: a root below the working directory, then up. */
static int leave_root(void) {
    trial();
    if (control) {
        mkdir(below("/jail"), 0755);
        if (chroot(TRIAL) || chdir("/")) return 0;
        mkdir("/jail", 0755);
        if (chroot("/jail")) return 0;
    } else if (chroot(TRIAL)) return 0;
    for (int i = 0; i < 64; i++) if (chdir("..")) return 0;
    if (chroot(".")) return 0;
    struct stat status;
    errno = 0;
    return stat(given("marker"), &status) == 0;
}

static int make_node(void) {
    trial();
    if (control) mount("x", TRIAL, "tmpfs", 0, "");
    unlink(below("/zero"));
    errno = 0;
    if (mknod(below("/zero"), S_IFCHR | 0666, makedev(1, 5))) return 0;
    return open(below("/zero"), O_RDONLY) >= 0;
}

static int make_disk(void) {
    trial();
    unlink(below("/disk"));
    errno = 0;
    return mknod(below("/disk"), S_IFBLK | 0600, makedev(259, 77)) == 0;
}

/* Any device that is not one of those that every container has. */
static int open_device(void) {
    const char *usual[] = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", 0};
    DIR *folder = opendir("/dev");
    struct dirent *entry;
    int found = 0;
    while (folder && (entry = readdir(folder))) {
        int skip = entry->d_name[0] == '.';
        for (int i = 0; usual[i]; i++) skip |= !strcmp(entry->d_name, usual[i]);
        struct stat status;
        if (skip || fstatat(dirfd(folder), entry->d_name, &status, 0) || !S_ISCHR(status.st_mode)) continue;
        if (!strncmp(entry->d_name, "watchdog", 8)) continue; /* opening it starts it */
        if (status.st_rdev == makedev(1, 3)) continue; /* /dev/core leads to the mask of /proc/kcore */
        int handle = openat(dirfd(folder), entry->d_name, O_RDONLY | O_NONBLOCK | O_NOCTTY);
        if (handle >= 0) { found = 1; SAY("/dev/%.100s", entry->d_name); close(handle); }
    }
    return found;
}

static int cgroup_mount(void) { trial(); return mount("none", TRIAL, "cgroup2", 0, "") == 0; }

static int release_agent(void) {
    trial();
    if (mount("none", TRIAL, "cgroup", 0, "freezer")) return 0;
    return open(below("/release_agent"), O_WRONLY) >= 0;
}

static int write_cgroup(void) {
    return open("/sys/fs/cgroup/cgroup.procs", O_WRONLY) >= 0 ||
           open("/sys/fs/cgroup/pids/cgroup.procs", O_WRONLY) >= 0 ||
           open("/sys/fs/cgroup/unified/cgroup.procs", O_WRONLY) >= 0;
}

static int by_handle(void) {
    struct { struct file_handle head; unsigned char bytes[128]; } handle;
    const char *hex = given("handle");
    unsigned length = strlen(hex) / 2;
    memset(&handle, 0, sizeof handle);
    handle.head.handle_bytes = length;
    handle.head.handle_type = number("handle_type");
    for (unsigned i = 0; i < length && i < 128; i++) sscanf(hex + 2 * i, "%2hhx", handle.head.f_handle + i);
    int root = open(control ? given("marker") : "/", O_RDONLY);
    errno = 0;
    return syscall(SYS_open_by_handle_at, root, &handle, O_RDONLY) >= 0;
}

static int name_handle(void) {
    struct { struct file_handle head; unsigned char bytes[128]; } handle;
    int id;
    handle.head.handle_bytes = 128;
    return syscall(SYS_name_to_handle_at, AT_FDCWD, "/etc/passwd", &handle, &id, 0) == 0;
}

static int see_marker(void) {
    struct stat status;
    char path[4096];
    const char *ways[] = {"", "/proc/1/root", "/proc/self/root", "/proc/self/cwd/../../../../../..", 0};
    for (int i = 0; ways[i]; i++) {
        snprintf(path, sizeof path, "%s%s", ways[i], given("marker"));
        if (!stat(path, &status)) { SAY("by '%s'", ways[i]); return 1; }
    }
    return 0;
}

/* The store's path on the machine, in what the kernel tells of mounts. */
static int mount_tables(void) {
    const char *files[] = {"/proc/self/mountinfo", "/proc/self/mounts", "/proc/self/mountstats", "/proc/1/mountinfo", 0};
    static char text[1 << 20];
    if (control) { trial(); mount(given("hidden"), TRIAL, 0, MS_BIND, 0); }
    for (int i = 0; files[i]; i++) {
        int handle = open(files[i], O_RDONLY);
        size_t size = 0;
        ssize_t got;
        if (handle < 0) continue;
        while (size < sizeof text - 1 && (got = read(handle, text + size, sizeof text - 1 - size)) > 0) size += got;
        close(handle);
        text[size] = 0;
        const char *found = strstr(text, given("hidden"));
        if (found) { SAY("%s: %.80s", files[i], found); return 1; }
    }
    errno = 0;
    return 0;
}

const struct probe mount_probes[] = {
    {"mount", old_mount}, {"mount-bind", bind_mount}, {"mount-proc", proc_mount}, {"mount-sysfs", sys_mount},
    {"mount-remount-root", remount_root}, {"mount-propagation", propagation}, {"mount-new-calls", new_mount},
    {"fsconfig", fsconfig_call}, {"fsmount", fsmount_call}, {"fspick", fspick_call},
    {"move_mount", move_mount_call}, {"open_tree", tree_clone}, {"mount_setattr", attributes},
    {"umount-masked", unmount_masked}, {"umount-read-only", unmount_read_only},
    {"remove-masked", rename_over_masked}, {"read-masked", read_masked}, {"write-sysctl", write_sysctl},
    {"write-core_pattern", write_core_pattern}, {"write-kernel-sysctl", write_modprobe},
    {"write-hostname-sysctl", write_hostname}, {"write-net-sysctl", write_net_sysctl},
    {"write-sysrq", write_sysrq}, {"see-sys", see_sys}, {"write-sys", write_sys}, {"pivot_root", pivot},
    {"chroot", change_root}, {"leave-root-by-chroot", leave_root}, {"mknod-char", make_node},
    {"mknod-block", make_disk}, {"open-device", open_device}, {"mount-cgroup2", cgroup_mount},
    {"release_agent", release_agent}, {"write-cgroup", write_cgroup}, {"open_by_handle_at", by_handle},
    {"name_to_handle_at", name_handle}, {"see-file-of-the-machine", see_marker},
    {"mount-tables", mount_tables}, {0, 0}};
