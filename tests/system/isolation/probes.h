/* What the probes share. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

struct probe { const char *name; int (*run)(void); };

extern const struct probe mount_probes[], kernel_probes[], process_probes[], outside_probes[];
extern int control;              /* on the machine, in throw-away namespaces */
extern char detail[256], secret[16];
const char *given(const char *key);
long number(const char *key);
int who(void), hunt(void), victim(const char *marker);

#define SAY(...) snprintf(detail, sizeof detail, __VA_ARGS__)
