/* The kernel itself: modules, keys, tracing, clocks, and calls that have been holes. */
#define _GNU_SOURCE
#include <linux/bpf.h>
#include <linux/fanotify.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <sys/timex.h>
#include <time.h>
#include "probes.h"

static int is(long result) { return result >= 0; }

/* With arguments that no kernel takes: refused anyway, but by whom? */
static int init_module_call(void) { return is(syscall(SYS_init_module, "", 0L, "")); }
static int finit_module_call(void) { return is(syscall(SYS_finit_module, -1, "", 0)); }
static int delete_module_call(void) { return is(syscall(SYS_delete_module, "no-such-module", 04000)); }
static int kexec_load_call(void) { return is(syscall(SYS_kexec_load, 0L, 1L << 20, 0L, 0xffL)); }
static int kexec_file_load_call(void) { return is(syscall(SYS_kexec_file_load, -1, -1, 0L, "", ~0L)); }
static int reboot_call(void) { return is(syscall(SYS_reboot, 0, 0, 0, 0)); }
static int swapon_call(void) { return is(syscall(SYS_swapon, "/no/such/file", 0)); }
static int swapoff_call(void) { return is(syscall(SYS_swapoff, "/no/such/file")); }
static int acct_call(void) { return is(syscall(SYS_acct, "/no/such/file")); }
static int quotactl_call(void) { return is(syscall(SYS_quotactl, ~0L, "/no/such/device", 0, 0)); }
static int clock_settime_call(void) {
    struct timespec moment = {0, 2000000000};
    return is(syscall(SYS_clock_settime, CLOCK_REALTIME, &moment));
}
static int settimeofday_call(void) {
    struct timeval moment = {0, 2000000};
    return is(syscall(SYS_settimeofday, &moment, 0));
}
static int setns_bad_call(void) { return is(syscall(SYS_setns, -1, 0)); }
static int iopl_call(void) { return is(syscall(SYS_iopl, 77)); }
static int ioperm_call(void) { return is(syscall(SYS_ioperm, 1L << 40, 1L, 1)); }
static int lsm_call(void) { return is(syscall(460, 9999, 0, 0, 0)); } /* lsm_set_self_attr */

static int adjtimex_call(void) { struct timex t = {0}; return is(syscall(SYS_adjtimex, &t)); }
static int clock_adjtime_call(void) { struct timex t = {0}; return is(syscall(SYS_clock_adjtime, 0, &t)); }

static int keyctl_call(void) { return is(syscall(SYS_keyctl, 1, 0, 0, 0, 0)); } /* a new session keyring */
static int add_key_call(void) { return is(syscall(SYS_add_key, "user", "relbuild-probe", "x", 1L, -2)); }
static int request_key_call(void) { return is(syscall(SYS_request_key, "user", "relbuild-none", 0, -2)); }
static int persistent_call(void) { return is(syscall(SYS_keyctl, 22, -1, -2, 0, 0)); }

static int bpf_call(void) {
    union bpf_attr wanted;
    memset(&wanted, 0, sizeof wanted);
    wanted.map_type = BPF_MAP_TYPE_ARRAY;
    wanted.key_size = wanted.value_size = 4;
    wanted.max_entries = 1;
    return is(syscall(SYS_bpf, BPF_MAP_CREATE, &wanted, sizeof wanted));
}
static int perf_call(void) {
    struct perf_event_attr wanted;
    memset(&wanted, 0, sizeof wanted);
    wanted.type = PERF_TYPE_SOFTWARE;
    wanted.size = sizeof wanted;
    wanted.config = PERF_COUNT_SW_CPU_CLOCK;
    return is(syscall(SYS_perf_event_open, &wanted, 0, -1, -1, 0L));
}
static int userfault_call(void) { return is(syscall(SYS_userfaultfd, O_CLOEXEC)); }
static int uring_call(void) {
    struct io_uring_params wanted;
    memset(&wanted, 0, sizeof wanted);
    return is(syscall(SYS_io_uring_setup, 1, &wanted));
}
static int uring_enter_call(void) { return is(syscall(SYS_io_uring_enter, -1, 0, 0, 0, 0, 0)); }
static int uring_register_call(void) { return is(syscall(SYS_io_uring_register, -1, 0, 0, 0)); }
static int fanotify_call(void) { return is(syscall(SYS_fanotify_init, FAN_CLASS_CONTENT, O_RDONLY)); }
static int syslog_call(void) { static char text[8192]; return is(syscall(SYS_syslog, 3, text, sizeof text)); }
static int vhangup_call(void) { setsid(); return is(syscall(SYS_vhangup)); }
static int memfd_secret_call(void) { return is(syscall(447, 0)); }
static int modify_ldt_call(void) { static char text[64]; return is(syscall(SYS_modify_ldt, 0, text, sizeof text)); }
static int vm86_32bit(void) {
#ifdef __x86_64__
    /* int 0x80: the 32-bit table, where 20 is getpid and socket's arguments are out of a filter's sight. */
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
    if (result < 0) errno = -result;
    return result > 0;
#else
    errno = ENOSYS;
    return 0;
#endif
}

static int hostname_call(void) { return is(syscall(SYS_sethostname, "probed", 6)); }
static int domainname_call(void) { return is(syscall(SYS_setdomainname, "probed", 6)); }

const struct probe kernel_probes[] = {
    {"init_module", init_module_call}, {"finit_module", finit_module_call}, {"delete_module", delete_module_call},
    {"kexec_load", kexec_load_call}, {"kexec_file_load", kexec_file_load_call}, {"reboot", reboot_call},
    {"swapon", swapon_call}, {"swapoff", swapoff_call}, {"acct", acct_call}, {"quotactl", quotactl_call},
    {"clock_settime", clock_settime_call}, {"settimeofday", settimeofday_call}, {"adjtimex", adjtimex_call},
    {"clock_adjtime", clock_adjtime_call}, {"setns-no-namespace", setns_bad_call}, {"iopl", iopl_call},
    {"ioperm", ioperm_call}, {"lsm_set_self_attr", lsm_call}, {"keyctl", keyctl_call}, {"add_key", add_key_call},
    {"request_key", request_key_call}, {"keyctl-persistent", persistent_call}, {"bpf", bpf_call},
    {"perf_event_open", perf_call}, {"userfaultfd", userfault_call}, {"io_uring_setup", uring_call},
    {"io_uring_enter", uring_enter_call}, {"io_uring_register", uring_register_call},
    {"fanotify_init", fanotify_call}, {"syslog", syslog_call}, {"vhangup", vhangup_call},
    {"memfd_secret", memfd_secret_call}, {"modify_ldt", modify_ldt_call}, {"32-bit-calls", vm86_32bit}, {"sethostname", hostname_call}, {"setdomainname", domainname_call}, {0, 0}};
